"""The recipe: from data to a model file that says what it is, and the errors it states."""

import copy
import re

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_data import ATTRIBUTES, ENERGIES, SPILL, make_frames, make_wannier_frames
from small_models import random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, load_model, units
from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.physics import fermi
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import compared, errors, table
from ase_mlelec.train.fit import FrameProblem
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.budget import begin_log, shares_time
from ase_mlelec.train.recipes.description import electrons_in_dos, wannier_charges
from ase_mlelec.train.recipes.frames import split

DESCRIPTOR = {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 3, "l_max": 2, "n_basis": 5}


@pytest.fixture(scope="module")
def frames():
    return make_frames(10)


def configuration(folder, **sections):
    """Four steps of each stage; a section that is None is left out."""
    tables = {
        "data": {"files": ["cu.h5"]},
        "descriptor": DESCRIPTOR,
        "output": {"model": "cu.safetensors"},
        "energy": {"steps": 4, "widths": [6]},
        "dos": {"steps": 4, "widths": [6]},
        **sections,
    }
    return parse_config({name: table for name, table in tables.items() if table is not None}, folder)


def test_train(frames, tmp_path):
    write_hdf5(tmp_path / "cu.h5", frames)
    random_state = torch.random.get_rng_state()
    train(configuration(tmp_path), progress=False)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    files = sorted(path.name for path in tmp_path.iterdir())
    checkpoints = ["cu.dos.checkpoint", "cu.energy.checkpoint"]  # with which the training can be lengthened
    assert files == sorted([*checkpoints, "cu.dos.csv", "cu.energy.csv", "cu.h5", "cu.safetensors"])
    model = load_model(tmp_path / "cu.safetensors")
    metadata = model.metadata
    assert model.species == ("Cu",) and set(model.heads) == {"energy", "dos"}
    assert {name: metadata[name] for name in ATTRIBUTES} == ATTRIBUTES
    assert metadata["electronic_temperature_K"] == 1000.0
    shortest = min(
        frame.atoms.repeat(2).get_all_distances(mic=True)[np.triu_indices(len(frame.atoms) * 8, 1)].min()
        for frame in frames
        if frame.group == "train"
    )
    assert metadata["shortest_distance_A"] == pytest.approx(shortest, rel=1e-6)
    training = metadata["training"]
    assert training["frames"] == {"train": 6, "validation": 2, "test": 2}
    assert training["configuration"]["energy"]["steps"] == 4 and "folder" not in training["configuration"]
    test = frames.select("test")
    assert training["fingerprints"]["test"] == test.fingerprint()
    assert metadata["errors"]["test"] == pytest.approx(errors(model, test), rel=1e-5)
    calc = DeepDOSCalculator(model, device="cpu", on_extrapolation="ignore")
    atoms = frames.frames[0].atoms.copy()
    atoms.calc = calc
    assert np.isfinite(atoms.get_forces()).all() and -3 < calc.get_fermi_level() < 3


def test_core_and_ranges(frames, tmp_path):
    """What is trained knows how close and how unlike structures may be; support counts for distances, not for ranges."""
    close = copy.deepcopy(frames.frames[0])
    close.group, close.name = "support", "close"
    close.atoms.set_cell(0.7 * close.atoms.cell, scale_atoms=True)
    write_hdf5(tmp_path / "cu.h5", Frames([*frames.frames, close], frames.energies, frames.attributes))
    without = train(configuration(tmp_path), progress=False)
    data = {"files": ["cu.h5"], "support": ["support"]}
    model = train(configuration(tmp_path, data=data), progress=False)
    assert model.metadata["training"]["frames"]["support"] == 1
    seen = {each: each.metadata["shortest_distances_A"]["Cu-Cu"] for each in (model, without)}
    assert seen[model] == pytest.approx(0.7 * seen[without], rel=0.3) and seen[model] < seen[without]
    for each in (model, without):
        assert float(each.core.outer) == pytest.approx(0.95 * seen[each], abs=2e-4)
    # the support teaches, but is no part of normalization and ranges
    assert not torch.equal(model.heads["energy"].nets.last[0].weight, without.heads["energy"].nets.last[0].weight)
    assert torch.equal(model.heads["energy"].nets.scale, without.heads["energy"].nets.scale)
    assert model.core.crowded == without.core.crowded
    calc = DeepPotCalculator(model)
    for frame in frames:
        if frame.group == "train":
            assert calc.get_extrapolation(atoms=frame.atoms).max() < 1.001
    assert calc.extrapolations == {}
    with pytest.warns(UserWarning, match="unlike the training data"):
        assert calc.get_extrapolation(atoms=close.atoms).max() > 1.5
    bare = train(configuration(tmp_path, data=data, energy={"steps": 4, "widths": [6], "core": False}), progress=False)
    assert bare.core is None and bare.ranges


def test_start_from_a_model(frames, tmp_path):
    """One step too small to change anything leaves the model that training started from; and what does not fit."""
    write_hdf5(tmp_path / "cu.h5", frames)
    first = train(configuration(tmp_path), progress=False)
    step = {"steps": 1, "widths": [6], "learning_rate": [1e-12, 1e-12]}
    again = dict(output={"model": "tuned.safetensors"}, energy=step, dos=step, seed=7, start="cu.safetensors")
    tuned = train(configuration(tmp_path, **again), progress=False)
    for (name, one), two in zip(first.state_dict().items(), tuned.state_dict().values()):
        if not name.startswith("posteriors."):  # whose columns may turn where errors are alike
            torch.testing.assert_close(one, two, rtol=0, atol=1e-9, msg=name)
    assert tuned.metadata["training"]["configuration"]["start"] == "cu.safetensors"
    for change, message in (
        (dict(dos=None, energy=step | {"widths": [5]}), r"got \[5\] as widths of the energy"),
        (dict(dos=None, descriptor=DESCRIPTOR | {"n_axis": 2}), "got 2 as n_axis of the energy"),
        (dict(dos=None, start="ice"), "as species of the energy"),
        (dict(energy=None, start="ice"), "ice has no dos"),
    ):
        with pytest.raises(ValueError, match=message):
            train(configuration(tmp_path, **again | change), progress=False)


def test_interrupted_training_goes_on(frames, tmp_path, monkeypatch):
    """Interrupted in the second stage, the same command repeats nothing and ends with the same model."""
    write_hdf5(tmp_path / "cu.h5", frames)
    expected = train(configuration(tmp_path), progress=False).state_dict()
    for path in (*tmp_path.glob("*.checkpoint"), tmp_path / "cu.safetensors"):
        path.unlink()
    true_loss, calls = FrameProblem.loss, []

    def counting(problem, *rest):
        calls.append(type(problem.of_batch).__name__)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return true_loss(problem, *rest)

    monkeypatch.setattr(FrameProblem, "loss", counting)
    with pytest.raises(KeyboardInterrupt):
        train(configuration(tmp_path), progress=False)
    assert not (tmp_path / "cu.safetensors").exists()
    resumed = train(configuration(tmp_path), progress=False).state_dict()
    assert calls == ["EnergyLoss"] * 4 + ["SpectrumLoss"] * (3 + 2)  # each step is validated and saved
    assert all(torch.equal(value, expected[name]) for name, value in resumed.items())


def test_dos_without_energy_trains_the_descriptor(frames, tmp_path):
    write_hdf5(tmp_path / "cu.h5", frames)
    data = {"files": ["cu.h5"], "train": ["train", "validation"], "validation": [], "validation_fraction": 0.0}
    short, longer = (
        train(configuration(tmp_path, data=data, energy=None, dos={"steps": steps, "widths": [6]}), progress=False)
        for steps in (1, 2)
    )
    assert set(short.heads) == {"dos"}
    assert not torch.equal(*(m.descriptor.embedding.coefficients for m in (short, longer)))
    assert set(short.metadata["errors"]["test"]) == {
        "ados_rmse_states_per_eV",
        "ados_rmse_over_std",
        "dos_rmse_states_per_eV_per_atom",
    }


def test_spectra_without_grid(frames, tmp_path):
    write_hdf5(tmp_path / "cu.h5", Frames(frames.frames))
    with pytest.raises(ValueError, match="no energy grid; convert the data with 'mlelec convert --grid'"):
        train(configuration(tmp_path), progress=False)


def without_groups(frames):
    return Frames([copy.copy(frame) for frame in frames], ENERGIES)


def test_split(frames):
    config = configuration(".")
    by_group = split(frames, config)
    assert {name: {f.group for f in part} for name, part in by_group.items()} == {
        name: {name} for name in ("train", "validation", "test")
    }
    plain = without_groups(frames)
    for frame in plain:
        frame.group = ""
    at_random = split(plain, configuration(".", data={"files": ["a"], "validation_fraction": 0.3}))
    assert [len(part) for part in at_random.values()] == [7, 3, 0]
    names = [frame.name for part in at_random.values() for frame in part]
    assert sorted(names) == sorted(frame.name for frame in plain)
    with pytest.raises(ValueError, match="groups test, train, validation, none of them to train on; .* now learn"):
        split(frames, configuration(".", data={"files": ["a"], "train": ["learn"]}))


def test_electrons_in_dos(frames):
    """The total DOS is SPILL times the atomic ones: these hold 1/SPILL of the electrons below the true level."""
    assert electrons_in_dos(frames, {"Cu": 2}, 1000.0) == {"Cu": pytest.approx(2 / SPILL, rel=1e-9)}
    frame = frames.frames[0]
    level = fermi.fermi_level(ENERGIES, frame.labels["dos"], 2.0 * len(frame.atoms), 1000.0)
    held = fermi.integration_weights(ENERGIES, level, 1000.0)[0] @ frame.labels["ados"].sum(axis=0)
    single = electrons_in_dos(Frames([frame], ENERGIES), {"Cu": 2}, 1000.0)
    assert single["Cu"] == pytest.approx(held / len(frame.atoms))


# errors


def test_errors_are_those_of_the_calculators(frames):
    """Alternative derivation: structure by structure through ASE."""
    model = random_model(2, ("energy",), species=("Cu",), n_basis=6)
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (8,)).double()
    model.metadata.clear()
    potential, dos = DeepPotCalculator(model, device="cpu"), DeepDOSCalculator(model, device="cpu")
    found = {name: [] for name in ("energy", "forces", "stress", "ados", "dos")}
    for frame in frames:
        atoms, labels, n = frame.atoms.copy(), frame.labels, len(frame.atoms)
        atoms.calc = potential
        found["energy"].append((atoms.get_potential_energy() - labels["energy"]) / n)
        found["forces"].append(atoms.get_forces() - labels["forces"])
        found["stress"].append(atoms.get_stress(voigt=False) + labels["virial"] / atoms.get_volume())
        difference = dos.get_ados(atoms) - labels["ados"]
        found["ados"].append(difference)
        found["dos"].append(difference.mean(axis=0))
    found = {name: np.concatenate([np.atleast_1d(v) for v in values]) for name, values in found.items()}
    rms = {name: np.sqrt((value**2).mean()) for name, value in found.items()}
    labels = np.concatenate([frame.labels["ados"] for frame in frames])
    assert errors(model, frames) == pytest.approx(
        {
            "energy_mae_meV_per_atom": 1000 * np.abs(found["energy"]).mean(),
            "energy_rmse_meV_per_atom": 1000 * rms["energy"],
            "forces_mae_meV_per_A": 1000 * np.abs(found["forces"]).mean(),
            "forces_rmse_meV_per_A": 1000 * rms["forces"],
            "stress_rmse_GPa": rms["stress"] / units.GPA,
            "ados_rmse_states_per_eV": rms["ados"],
            "ados_rmse_over_std": rms["ados"] / np.sqrt(labels.var(axis=0).mean()),
            "dos_rmse_states_per_eV_per_atom": rms["dos"],
        },
        rel=1e-9,
    )


def test_errors_of_what_is_there(frames):
    model = random_model(2, ("energy",), species=("Cu",), n_basis=6)
    part = without_groups(frames)
    for frame in part:
        frame.labels = {"energy": frame.labels["energy"], "ados": frame.labels["ados"]}
    assert set(errors(model, part)) == {"energy_mae_meV_per_atom", "energy_rmse_meV_per_atom"}
    for frame in part:
        del frame.labels["energy"]
    with pytest.raises(ValueError, match="labels ados in common, the model predicts energy"):
        errors(model, part)


def test_table():
    text = table({"test": {"stress_rmse_GPa": 0.25}, "size": {"stress_rmse_GPa": 1.0, "ados_rmse_over_std": 0.2}})
    header, stress, ados = text.splitlines()
    assert header.split() == ["test", "size"]
    assert stress.split()[-3:] == ["0.25", "1", "GPa"] and ados.split()[-2:] == ["-", "0.2"]


CENTERS = {
    "dipole": {"centers": ["O"], "steps": 100, "widths": [8], "learning_rate": [3e-2, 3e-3]},
    "polarizability": {"centers": ["O"], "steps": 100, "widths": [8], "learning_rate": [3e-2, 3e-3]},
}


@pytest.mark.parametrize("atomic", [1.0, 0.0], ids=["atomic", "totals alone"])
def test_train_vectors_and_tensors(tmp_path, atomic):
    """The first head with its descriptor, the second on it as it is: better than the constant coefficients of the
    start, and a model that a calculator can use."""
    frames = make_wannier_frames(15)
    if not atomic:
        for frame in frames:
            del frame.labels["atomic_dipole"], frame.labels["atomic_polarizability"]
    write_hdf5(tmp_path / "cu.h5", frames)
    sections = {name: {**table, "atomic": atomic, "total": 1.0} for name, table in CENTERS.items()}
    started = {name: {**table, "learning_rate": [1e-12, 1e-12], "steps": 1} for name, table in sections.items()}
    start = train(configuration(tmp_path, energy=None, dos=None, **started), progress=False)
    model = train(configuration(tmp_path, energy=None, dos=None, **sections), progress=False)
    assert model.metadata["electrons_per_centre"] == {"O": 8.0} and set(model.heads) == {"dipole", "polarizability"}
    train_part = frames.select("train")
    before, after = errors(start, train_part), errors(model, train_part)
    keys = {"summed_dipole_rmse_A", "dipole_rmse_e_A", "polarizability_rmse_A3"}
    assert set(after) == (keys | {"atomic_dipole_rmse_A", "atomic_polarizability_rmse_A3"} if atomic else keys)
    assert after["dipole_rmse_e_A"] == pytest.approx(8 * after["summed_dipole_rmse_A"])
    for name in after:
        assert after[name] < 0.95 * before[name], name
    atoms = frames.frames[0].atoms
    calculator = DeepWannierCalculator(tmp_path / "cu.safetensors")
    assert np.isfinite(calculator.get_property("dipole", atoms)).all()
    assert np.abs(calculator.get_polarizability() - frames.frames[0].labels["polarizability"]).max() < 2
    assert "dipole" in table({"train": after})


def test_electronic_descriptor_is_trained_by_the_first_head_that_has_it(frames, tmp_path):
    """The energy stays as it is without the second descriptor; the dos moves that one and nothing else."""
    write_hdf5(tmp_path / "cu.h5", frames)
    electronic = {**DESCRIPTOR, "widths": [3]}
    alone = train(configuration(tmp_path, dos=None), progress=False)
    start = train(
        configuration(
            tmp_path, electronic=electronic, dos={"steps": 1, "widths": [6], "learning_rate": [1e-12, 1e-12]}
        ),
        progress=False,
    )
    model = train(configuration(tmp_path, electronic=electronic), progress=False)
    assert model.electronic.widths == (3,) and model.descriptor.widths == (4,)
    for part, same in (("descriptor.", alone), ("heads.energy.", alone), ("electronic.", start)):
        pairs = [
            (value, same.state_dict()[name]) for name, value in model.state_dict().items() if name.startswith(part)
        ]
        equal = [torch.allclose(*pair, atol=1e-9) for pair in pairs]
        assert pairs and all(equal) == (part != "electronic.")
    found = load_model(tmp_path / "cu.safetensors")
    assert errors(found, frames) == pytest.approx(errors(model, frames), rel=1e-5)


def test_charges_of_the_data():
    frames = make_wannier_frames(2)
    assert wannier_charges(frames, ["O"]) == {"valence_charges": {"Si": 4, "O": 6}, "electrons_per_centre": {"O": 8.0}}
    assert wannier_charges(frames, ["Si", "O"]) == {"valence_charges": {"Si": 4, "O": 6}}
    frames.attributes["electrons_per_centre"] = {"O": 8}
    assert "electrons_per_centre" not in wannier_charges(frames, ["O"])  # which is copied as it is
    assert wannier_charges(Frames([]), ["O"]) == {}


def test_centers_that_the_data_do_not_have(tmp_path):
    write_hdf5(tmp_path / "cu.h5", make_wannier_frames(5))
    with pytest.raises(ValueError, match="dipole.centers: got H, the data have O, Si; choose of these"):
        train(configuration(tmp_path, energy=None, dos=None, dipole={"centers": ["H"]}), progress=False)


def test_what_is_compared(frames):
    """The errors of the table follow from the labels and predictions that figures show."""
    model = random_model(2, ("energy",), species=("Cu",), n_basis=6)
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (8,)).double()
    found, wanted = compared(model, frames), errors(model, frames)
    assert {name: unit for name, (_, _, unit) in found.items()} == {
        "energy": "eV/atom",
        "forces": "eV/Å",
        "stress": "GPa",
        "ados": "states/eV",
    }
    rms = {name: np.sqrt(((b - a) ** 2).mean()) for name, (a, b, _) in found.items()}
    assert 1000 * rms["energy"] == pytest.approx(wanted["energy_rmse_meV_per_atom"])
    assert 1000 * rms["forces"] == pytest.approx(wanted["forces_rmse_meV_per_A"])
    assert rms["stress"] == pytest.approx(wanted["stress_rmse_GPa"])
    assert rms["ados"] == pytest.approx(wanted["ados_rmse_states_per_eV"])
    atoms = frames.frames[0].atoms
    labels = -frames.frames[0].labels["virial"] / atoms.get_volume() / units.GPA
    np.testing.assert_allclose(found["stress"][0][:9], labels.ravel())
    model, tensors = random_model(2, ("polarizability",), species=("O", "Si"), n_basis=6), make_wannier_frames(3)
    (center,) = model.heads["polarizability"].centers
    true, _, unit = compared(model, tensors)["atomic_polarizability"]
    symbol = model.species[center]
    assert unit == "Å^3" and len(true) == 9 * sum(list(frame.atoms.symbols).count(symbol) for frame in tensors)


@pytest.mark.parametrize("isolated", [{}, {"Cu": -3.5, "Al": -2.0}])
def test_energies_of_mixtures_are_compared_without_those_of_the_species(isolated):
    """A sum over species, of hundreds of eV, is left out of labels and predictions alike."""
    rng, own = np.random.default_rng(0), {"Cu": -50.0, "Al": -400.0}
    model = random_model(2, ("energy",), species=("Cu", "Al"), n_basis=6)
    model.metadata["isolated_atoms_eV"] = isolated
    made, noise = [], rng.normal(scale=0.1, size=8)
    for k in range(8):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[: k % 4] = "Al"
        atoms.rattle(0.1, seed=k)
        energy = sum((isolated or own)[symbol] for symbol in atoms.symbols) + noise[k]
        made.append(Frame(atoms, {"energy": energy, "forces": np.zeros((4, 3))}, str(k)))
    frames = Frames(made)
    found = compared(model, frames)
    labels, predictions, unit = found["energy less that of the species"]
    assert len(found) == 2 and unit == "eV/atom"
    if isolated:
        np.testing.assert_allclose(labels, noise / 4, atol=1e-9)
    else:
        assert np.abs(labels).max() < 0.05 and abs(labels.mean()) < 0.01
    rms = np.sqrt(((predictions - labels) ** 2).mean())
    assert 1000 * rms == pytest.approx(errors(model, frames)["energy_rmse_meV_per_atom"])
    assert "energy" in compared(model, frames.take([0, 4]))  # of one composition


def test_minutes_beside_steps_are_said(tmp_path, capsys):
    config = configuration(tmp_path, energy={"widths": [4], "steps": 2}, dos=None, minutes=3)
    begin_log({}, config, True)
    said = capsys.readouterr().err
    assert "minutes: without effect, beside the numbers of steps that the configuration gives; take them out" in said


def test_minutes_without_effect_are_said(tmp_path, capsys):
    write_hdf5(tmp_path / "cu.h5", make_frames(10))
    basis = {"cutoff": 4.0, "near": 3.5, "n_radial": 2, "l_max": 1, "inner": 1.5, "roughest": 0}
    config = configuration(tmp_path, energy={"widths": []}, power_spectrum=basis, descriptor=None, dos=None, minutes=3)
    train(config)
    said = capsys.readouterr().err
    assert said.count("minutes: without effect, as nothing is left to gradient descent") == 1
    for line in ("choosing ridge and weights by 6 structures in 5 folds", "solving with all 6", "making error bars"):
        assert said.count(line) == 1
    assert re.search(
        r"Error bars, errors within one and two: energy \d+ and \d+ % of 8.*forces .* of \d+.*virial .* of \d+", said
    )
    assert shares_time(config) == []
