"""Error bars of models and calculators: against explicit members, finite differences and symmetry."""

import copy
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError
from ase.neighborlist import neighbor_list
from small_data import ENERGIES, make_frames, make_wannier_frames
from small_models import random_model, randomize_nets, seeded

from ase_mlelec import CombinedCalculator, DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.nets import DenseNet
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms
from ase_mlelec.train import last_layer
from ase_mlelec.train.deviations import Deviations, deviations, floor_and_scale
from ase_mlelec.train.error_bars import add_error_bars, arranged, errors_and_deviations
from ase_mlelec.train.last_layer import n_weights, rows_of
from ase_mlelec.uncertainty import Posterior, contributions, coverage
from ase_mlelec.uncertainty.bars import N_GRADIENTS
from ase_mlelec.uncertainty.dos_bars import DosBars
from ase_mlelec_entry_points.cli.main import main

DOS = {"electrons_in_dos": {"Cu": 2.0}, "order_parameter_offsets_eV": [0.0]}
WANNIER = {"valence_charges": {"Si": 4.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}


def copper_model():
    """A model that knows nothing, with the energy grid of the small data set."""
    model = random_model(0, ("energy",), species=("Cu",), sel=(20,), metadata=DOS)
    with seeded(0):
        model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (12,)).double()
        model.heads["dos"].nets.bias.fill_(0.3)
        model.heads["dos"].nets.scale.fill_(0.02)
    return model


@pytest.fixture(scope="module")
def copper():
    frames, model = make_frames(20), copper_model()
    report = add_error_bars(model, frames.select("train"), frames.select("validation"))
    return model, frames, report


@pytest.fixture(scope="module")
def wannier():
    frames, model = make_wannier_frames(10), random_model(0, ("dipole", "polarizability"), metadata=WANNIER)
    add_error_bars(model, frames.select("train"), frames.select("validation"))
    return model, frames


def changed(model, name, change):
    """A copy of a model with other weights in the last layer of a head."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.heads[name].change_last(change)
    return other


def test_report_and_scales(copper):
    model, _, report = copper
    assert set(report) == {"energy", "forces", "virial", "ados", "dos"}
    assert set(model.posteriors["energy"].scales) == {"energy", "forces", "virial", "members"}
    for label, found in report.items():
        assert found["errors"] > 0 and found["scale"] > 0, label
    assert 0.5 <= report["forces"]["within_one"] <= 0.85 and 0.85 <= report["forces"]["within_two"] <= 1


@pytest.mark.parametrize("labels", [("forces",), ("energy", "forces")])
def test_data_of_some_labels(labels):
    """Other results have the bars of members, which need no label of their own."""
    frames = make_frames(10)
    for frame in frames:
        frame.labels = {name: frame.labels[name] for name in labels}
    model = copper_model()
    report = add_error_bars(model, frames.select("train"), frames.select("validation"))
    assert set(report) == set(labels)
    posterior = model.posteriors["energy"]
    for label in {"energy", "forces", "virial"} - set(labels):
        assert posterior.scale(label) == posterior.scale("members") == posterior.scales["members"]
    calc = DeepPotCalculator(model)
    calc.get_property("stress", frames[0].atoms)
    spread = np.std([each.get_property("stress", frames[0].atoms) for each in calc.members(32)], axis=0)
    assert 0.5 < np.median(calc.uncertainty["stress"] / spread) < 2


def test_rows_are_changes_of_labels_by_weights(copper):
    for model, frames, name in (copper[:2] + ("energy",), copper[:2] + ("dos",)):
        few, head = frames.where(lambda frame: frame.name in ("cu-0", "cu-1")), model.heads[name]
        change = torch.ones(1, head.nets.last[0].in_features + 1, head.nets.last[0].out_features).double() / 7
        after = rows_of(changed(model, name, change), name, few)
        for old, new in zip(rows_of(model, name, few), after, strict=True):
            wanted = (old.rows @ change[0]).reshape(new.errors.shape)
            np.testing.assert_allclose((new.errors - old.errors).detach(), wanted.detach(), atol=1e-9)


def test_random_displacements_stand_for_all_force_components(copper):
    """On average, products of the rows of random displacements are those of the rows of all components."""
    model, frames, _ = copper
    few = frames.where(lambda frame: frame.name == "cu-0")
    (found,) = [found.rows for found in rows_of(model, "energy", few) if found.label == "forces"]
    head, batch = model.heads["energy"], Batches.for_model(model, few, ("forces",)).batch([0])
    positions, _, system, edges = batch.strained_edges()
    inputs, _ = head.last_inputs(model.descriptor(system, edges))
    slopes = [torch.autograd.grad(column.sum(), positions, retain_graph=True)[0].flatten() for column in inputs.T]
    wanted = torch.stack(slopes) @ torch.stack(slopes).T / (3 * len(positions))
    assert found.shape[1] == n_weights(head) and not found[:, -1].any()  # a constant has no forces
    error = found[:, :-1].T @ found[:, :-1] / len(found) - wanted
    assert float(error.norm() / wanted.norm()) < 4 * (2 / len(found)) ** 0.5


def test_deviations_are_the_spread_of_members(copper):
    model, frames, _ = copper
    atoms = frames[4].atoms.copy()
    calc = atoms.calc = DeepPotCalculator(model)
    energies = [member.get_potential_energy(atoms) for member in calc.members(80)]
    assert np.mean(energies) == pytest.approx(calc.get_potential_energy(atoms), abs=1e-9)
    assert calc.uncertainty["energy"] == pytest.approx(np.std(energies), rel=0.25)
    assert calc.uncertainty["energies"].shape == (len(atoms),)


def test_deviations_of_forces_and_stress(copper):
    """Against forces and stress of models with last layers along each direction, and the sum written out."""
    model, frames, _ = copper
    atoms, posterior = frames[4].atoms.copy(), model.posteriors["energy"]
    calc = atoms.calc = DeepPotCalculator(model)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    changes = [(posterior.inputs @ each)[:, :, None] for each in posterior.directions(N_GRADIENTS)]
    members = [DeepPotCalculator(changed(model, "energy", change)) for change in changes]
    squares = np.mean([(each.get_property("forces", atoms) - forces) ** 2 for each in members], axis=0)
    leverage = calc._energy_gradients()[1].numpy()
    around = leverage.copy()
    for i in range(len(atoms)):
        indices, offsets, total = *neighbors_of(atoms, i), 1.0
        for j, vector in zip(indices, offsets):
            weight = np.exp(-((np.linalg.norm(vector) / (0.4 * model.descriptor.cutoff)) ** 2))
            around[i], total = around[i] + weight * leverage[j], total + weight
        around[i] /= total
    smooth = squares.mean() * around / around.mean()
    wanted = np.sqrt((N_GRADIENTS * squares + 4 * smooth[:, None]) / (N_GRADIENTS + 4) + posterior.floor("forces") ** 2)
    np.testing.assert_allclose(calc.uncertainty["forces"], posterior.scale("forces") * wanted, rtol=1e-6)
    squares = np.mean([(each.get_property("stress", atoms) - stress) ** 2 for each in members], axis=0)
    smooth = np.repeat([squares[:3].mean(), squares[3:].mean()], 3)
    noise = len(atoms) * (posterior.floor("virial") / atoms.get_volume()) ** 2
    wanted = posterior.scale("virial") * np.sqrt((N_GRADIENTS * squares + 4 * smooth) / (N_GRADIENTS + 4) + noise)
    np.testing.assert_allclose(calc.uncertainty["stress"], wanted, rtol=1e-6)
    assert calc.uncertainty["stresses"].shape == (len(atoms), 6)


def neighbors_of(atoms, i):
    """(indices, vectors) of the neighbors of an atom within 4 Å."""
    first, second, difference = neighbor_list("ijD", atoms, 4.0)
    return second[first == i], difference[first == i]


def test_directions_are_exact_where_there_are_enough():
    posterior = Posterior(1, 5, 6)
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose((z @ posterior.directions(50).T).square().mean(dim=1), z.square().sum(dim=1), rtol=1e-5)
    few = posterior.directions(2)
    np.testing.assert_allclose(few @ few.T, 6 * torch.eye(2), atol=1e-5)


def test_bars_of_forces_share_the_evaluation(copper, monkeypatch):
    """From the second structure on the descriptor is evaluated once for forces and their bars, with the same numbers."""
    model, frames, _ = copper
    calc, first, second = DeepPotCalculator(model), frames[4].atoms, frames[5].atoms
    wanted = DeepPotCalculator(model).get_uncertainty("forces", atoms=second)
    calc.get_uncertainty("forces", atoms=first)
    calls, forward = [], DeepPotSE.forward
    monkeypatch.setattr(DeepPotSE, "forward", lambda *given: calls.append(1) or forward(*given))
    forces = calc.get_property("forces", second)
    np.testing.assert_allclose(calc.get_uncertainty("forces", atoms=second), wanted, rtol=1e-9)
    assert len(calls) == 1
    np.testing.assert_allclose(forces, DeepPotCalculator(model).get_property("forces", second), atol=1e-12)


def test_bars_share_the_hidden_layers(copper, monkeypatch):
    """Hidden layers are evaluated once for each head, for results, bars, leverage and members alike."""
    model, frames, _ = copper
    atoms, calls, forward = frames[4].atoms.copy(), [], DenseNet.forward
    calc = atoms.calc = DeepDOSCalculator(model)
    hidden = {id(head.nets.hidden[0]): name for name, head in calc.models[0].heads.items()}
    monkeypatch.setattr(
        DenseNet, "forward", lambda net, *given: calls.append(hidden.get(id(net))) or forward(net, *given)
    )
    atoms.get_forces(), calc.get_ados(), calc.get_leverage(), calc.members(3)
    for name in ("energy", "ados", "dos", "fermi_level"):
        calc.uncertainty[name]
    assert [calls.count(name) for name in ("energy", "dos")] == [1, 1]
    atoms.rattle(0.01, seed=1)
    before = calc.uncertainty["dos"].copy()
    np.testing.assert_allclose(DeepDOSCalculator(model).get_uncertainty("dos", atoms=atoms), before, rtol=1e-12)


def test_infinite_bars_where_a_member_cannot_be_filled(copper, monkeypatch):
    """Far outside the training data a member may hold fewer states than there are electrons."""
    model, frames, _ = copper
    calc = DeepDOSCalculator(model)
    monkeypatch.setattr(DosBars, "smooth", lambda *given: None)
    for member in calc.members(atoms=frames[4].atoms)[:1]:
        member._extra["ados"] *= 1e-3
        monkeypatch.setattr(calc, "_kept_members", lambda member=member: [calc, member])
    assert calc.get_uncertainty("fermi_level", atoms=frames[4].atoms) == np.inf


def test_stress_alone_makes_no_bars(tmp_path, capsys):
    """A training on stress alone ends without bars of the energy; other heads have theirs, and the command says why not."""
    frames, model = make_frames(10), copper_model()
    for frame in frames:
        frame.labels = {name: frame.labels[name] for name in ("virial", "dos")}
    assert set(add_error_bars(model, frames.select("train"), frames.select("validation"))) == {"dos"}
    assert "energy" not in model.posteriors
    for frame in frames:
        del frame.labels["dos"]
    model.save(tmp_path / "cu.safetensors"), write_hdf5(tmp_path / "cu.h5", frames)
    arguments = "calibrate", tmp_path / "cu.safetensors", tmp_path / "cu.h5", "--out", tmp_path / "out.safetensors"
    assert main([*map(str, arguments)]) != 0
    told = capsys.readouterr().err
    assert "stress alone does not do" in told
    assert (
        "no error bars of the energy: they need energy or forces in the training data, which have stress alone" in told
    )


def test_floor_of_errors_that_no_weights_explain():
    """Errors of constant size beside small deviations from the posterior: the floor takes them up."""
    generator = np.random.default_rng(0)
    deviations = generator.lognormal(sigma=2.0, size=4000)
    noise = Deviations(generator.normal(size=4000), deviations, np.ones(4000))
    floor, scale = floor_and_scale(noise.errors, noise)
    assert coverage(noise.errors, scale * noise.total(floor)).within_two > 0.93
    right = Deviations(deviations * generator.normal(size=4000), deviations, np.ones(4000))
    floor, scale = floor_and_scale(right.errors, right)
    assert floor < 0.2 * np.sqrt(np.mean(deviations**2)) and scale == pytest.approx(1, rel=0.1)


def test_without_validation_errors_are_those_of_held_out_structures(copper):
    """Training errors of few structures may vanish: scales grow with the errors that were found in the choice of a ridge."""
    model, frames = copy.deepcopy(copper[0]), copper[1].select("train")
    known = deviations(model, "energy", frames)
    left_out = Deviations(3 * known["energy"].posterior, known["energy"].posterior, known["energy"].floor)
    factor = model.posteriors["energy"].inputs.flatten(0, 1)
    options = dict(factors={"energy": factor}, left_out={"energy": left_out}, names=["energy"])
    found = []
    for error in (0.5, 1.0):
        held = {"energy": {"energy": 9.0, "forces": error, "virial": error}}
        found.append(add_error_bars(model, frames, frames.take([]), held_errors=held, **options))
    for label in ("forces", "virial"):
        assert found[1][label]["scale"] == pytest.approx(2 * found[0][label]["scale"], rel=1e-4)
        assert "held out" in found[0][label]["calibrated_on"]
    errors, bars = errors_and_deviations(model, "energy", frames)["forces"]
    assert coverage(errors / np.mean(np.abs(errors)), bars).within_one == pytest.approx(
        found[1]["forces"]["within_one"]
    )
    assert found[0]["energy"]["scale"] == pytest.approx(3 / 2**0.5)  # all errors are three bars
    assert found[0]["energy"]["calibrated_on"] == "blocks of training data that were left out"


def test_rotation_keeps_deviations(copper):
    model, frames, _ = copper
    calc = DeepDOSCalculator(model)
    atoms, found = frames[4].atoms.copy(), []
    for angle in (0, 40):
        atoms.rotate(angle, (1, 2, 3), rotate_cell=True)
        bars = {name: (calc.get_ados(atoms=atoms), calc.uncertainty[name])[1] for name in ("energy", "ados", "dos")}
        bars["forces"] = (calc.uncertainty["forces"] ** 2).sum(axis=1)
        bars["leverage"] = calc.get_leverage(atoms)
        found.append(bars)
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", ["copper", "si", "mgo"])
def test_single_precision(copper, name):
    """Bars are those of double precision, also where numbers of the posterior cancel as in data of one stoichiometry."""
    if name == "copper":
        model, atoms, exact = copper[0], copper[1][4].atoms, ("energies", "fermi_level")
    else:
        model, exact = name, ("energies", "fermi_level" if name == "si" else "gap")
        atoms = bulk("Si", cubic=True) if name == "si" else bulk("MgO", "rocksalt", a=4.2, cubic=True)
        atoms.rattle(0.05, seed=0)
    double, single = (
        DeepDOSCalculator(model, dtype=dtype, on_extrapolation="ignore") for dtype in ("float64", "float32")
    )
    for quantity in ("energy", "forces", "stress", "ados", "dos", *exact):
        bars, rough = (each.get_uncertainty(quantity, atoms=atoms) for each in (double, single))
        np.testing.assert_allclose(rough, bars, rtol=0.01, atol=1e-3 * np.max(bars), err_msg=quantity)


def test_derived_quantities(copper):
    model, frames, _ = copper
    calc = DeepDOSCalculator(model)
    atoms = frames[4].atoms.copy()
    atoms.calc = calc
    levels = [member.get_fermi_level(atoms=atoms) for member in calc.members()]
    alone = [DeepDOSCalculator(each).get_fermi_level(atoms=atoms) for each in model.members(16)]
    np.testing.assert_allclose(levels, alone, atol=1e-6)
    assert calc.uncertainty["fermi_level"] == pytest.approx(np.std(levels))
    assert calc.uncertainty["order_parameter"].shape == (len(atoms),)
    atoms.positions[0, 0] += 0.1  # of the present structure, not of the last one
    again = calc.uncertainty["fermi_level"]
    assert again != pytest.approx(np.std(levels), rel=1e-6)
    with pytest.raises(KeyError, match="no standard deviation of 'colour'; there can be some of"):
        calc.uncertainty["colour"]


def test_members_evaluate_no_descriptor_again(copper, monkeypatch):
    """What costs most is shared: one evaluation of the descriptor for energy, forces, their bars, and all members."""
    model, frames, _ = copper
    atoms, calls, forward = frames[4].atoms.copy(), [], DeepPotSE.forward
    monkeypatch.setattr(DeepPotSE, "forward", lambda *given: calls.append(1) or forward(*given))
    calc = atoms.calc = DeepDOSCalculator(model)
    atoms.get_forces()
    for name in ("energy", "ados", "dos", "fermi_level", "gap"):
        calc.uncertainty[name]
    calc.get_leverage()
    assert [member.get_total_dos().shape for member in calc.members(5)] == [(len(ENERGIES),)] * 5
    assert len(calls) == 1
    calc.uncertainty["forces"], calc.uncertainty["stress"]
    assert len(calls) == 2


def test_members_know_other_structures(copper):
    model, frames, _ = copper
    calc = DeepPotCalculator(model)
    first, second = calc.members(2, atoms=frames[4].atoms)
    other = frames[5].atoms
    mean = (first.get_potential_energy(other) + second.get_potential_energy(other)) / 2
    assert mean == pytest.approx(calc.get_potential_energy(other), abs=1e-9)


def test_file_keeps_the_posterior(copper, tmp_path):
    model, frames, _ = copper
    model.save(tmp_path / "model.safetensors")
    again, few = load_model(tmp_path / "model.safetensors"), frames.select("test")
    for name in ("energy", "dos"):
        assert again.posteriors[name].arguments() == model.posteriors[name].arguments()
        for label, pair in errors_and_deviations(model, name, few).items():
            for mine, theirs in zip(pair, errors_and_deviations(again, name, few)[label]):
                np.testing.assert_array_equal(mine, theirs)


def test_calculator_and_training_agree(copper):
    model, frames, _ = copper
    few = frames.where(lambda frame: frame.name == "cu-4")
    calc, atoms = DeepDOSCalculator(model), few[0].atoms
    found = {name: pair for head in ("energy", "dos") for name, pair in errors_and_deviations(model, head, few).items()}
    calc.get_ados(atoms=atoms)
    for name in ("energy", "forces", "ados", "dos"):
        np.testing.assert_allclose(
            calc.uncertainty[name],
            np.reshape(found[name][1], np.shape(calc.uncertainty[name])),
            rtol=1e-5,
            atol=1e-9,
            err_msg=name,
        )
    virial = found["virial"][1][0] / atoms.get_volume()
    np.testing.assert_allclose(calc.uncertainty["stress"][:3], virial.diagonal(), rtol=1e-5)


def test_samples_of_a_closed_form():
    """They are changes of the parameters; their factor gives the changes of the results."""
    model = random_model(0, ("energy",))
    head = ScalarHead(2, model.descriptor.n_features, ()).double()
    randomize_nets(head.nets, -3.0, 0.5)
    system = System.from_atoms(random_atoms("Si2O4", cell=[5.0, 5.2, 5.4]))
    environment = model.descriptor(system, Edges.build(system, 4.0))
    samples = torch.randn(2 * model.descriptor.n_features + 2, 2, dtype=torch.float64)
    posterior = Posterior.from_factors(arranged(samples, head.nets), torch.ones(1, 1).double(), n_species=2)
    before, z = head(environment, None), contributions(head, posterior, environment).z
    with torch.no_grad():
        for k, layer in enumerate(head.nets.last):
            layer.weight += samples[:-2, 1].reshape(2, -1)[k]
            layer.bias += samples[k - 2, 1]
    np.testing.assert_allclose((head(environment, None) - before).detach(), z[:, 1].detach(), rtol=1e-5, atol=1e-5)


def test_vectors_and_tensors(wannier):
    model, frames = wannier
    few = frames.where(lambda frame: frame.name == "sio-4")
    atoms = few[0].atoms.copy()
    calc = atoms.calc = DeepWannierCalculator(model)
    for name, head in (("dipole", "dipole"), ("polarizability", "polarizability")):
        found = errors_and_deviations(model, head, few)
        label = {"dipole": "summed_dipole"}.get(name, name)
        charge = 8.0 if name == "dipole" else 1.0
        np.testing.assert_allclose(calc.uncertainty[name], charge * found[label][1][0], rtol=1e-5)
    assert calc.uncertainty["displacements"].shape == (6, 3)
    assert not calc.uncertainty["displacements"][:2].any()  # silicon has no centroid
    np.testing.assert_allclose(calc.uncertainty["polarization"], calc.uncertainty["dipole"] / atoms.get_volume())
    dipoles = [member.get_property("dipole", atoms) for member in calc.members(80)]
    np.testing.assert_allclose(np.std(dipoles, axis=0), calc.uncertainty["dipole"], rtol=0.3)
    np.testing.assert_allclose(np.mean(dipoles, axis=0), atoms.get_dipole_moment(), atol=1e-9)
    assert calc.uncertainty["born_effective_charges"].shape == (6, 3, 3)


def test_far_from_the_data_bars_and_leverage_rise(copper):
    model, frames, _ = copper
    calc, atoms = DeepPotCalculator(model, on_extrapolation="ignore"), frames[0].atoms.copy()
    inside = calc.get_leverage(atoms)
    assert inside.max() <= 1 + 1e-5  # a training structure
    calm = (calc.get_potential_energy(atoms), calc.uncertainty["energy"])[1]
    atoms.positions[0] += 1.0
    assert calc.get_leverage(atoms).max() > 1.5
    assert calc.uncertainty["energy"] > 1.5 * calm


def test_without_posterior():
    atoms = make_frames(1)[0].atoms
    calc = atoms.calc = DeepPotCalculator(copper_model())
    assert calc.uncertainty == {}
    for ask in (lambda: calc.uncertainty["energy"], calc.members, calc.get_leverage):
        with pytest.raises(CalculatorSetupError, match="no posterior, from which error bars follow; add .* calibrate'"):
            ask()


def test_committee_gives_derived_quantities(copper):
    model, frames, _ = copper
    other = changed(model, "dos", torch.full((1, 13, len(ENERGIES)), 0.1).double())
    committee, atoms = DeepDOSCalculator([model, other]), frames[4].atoms
    levels = [DeepDOSCalculator(each).get_fermi_level(atoms=atoms) for each in (model, other)]
    committee.get_fermi_level(atoms=atoms)
    assert committee.uncertainty["fermi_level"] == pytest.approx(np.std(levels), rel=1e-9)
    assert len(committee.members()) == 2


def test_parts_of_a_combined_calculator(copper):
    model, frames, _ = copper
    atoms = frames[4].atoms.copy()
    calc = atoms.calc = CombinedCalculator([DeepPotCalculator(model), DeepDOSCalculator(model)])
    atoms.get_potential_energy()
    assert calc.uncertainty["energy"] == pytest.approx(calc.parts[0].uncertainty["energy"])
    assert calc.uncertainty["ados"].shape == (len(atoms), len(ENERGIES))


@pytest.mark.parametrize("n_structures, n_atoms, wanted", [(3, 8, 96), (3, 4000, 5340), (100, 64, 160), (10**5, 8, 4)])
def test_random_moves_are_no_more_than_coordinates_span(n_structures, n_atoms, wanted):
    """Four rows for each of 4,005 weights, where the structures have so many that are not combinations of others."""
    head = ScalarHead(1, 4004, ())
    systems = [SimpleNamespace(numbers=torch.zeros(n_atoms))] * n_structures
    batches = MagicMock(systems=systems, __len__=lambda self: n_structures)
    model = SimpleNamespace(heads={"energy": head})
    assert last_layer._number_of_moves(model, "energy", batches) == wanted
