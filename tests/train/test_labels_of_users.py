"""Kinds, weights, isolated atoms, trajectories and mixtures of labels, from files to trained models."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from small_data import ENERGIES, copper, labels_of, make_frames
from small_models import random_model
from small_trajectories import displaced, trajectory

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames, to_images, write_hdf5
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors, errors_by_kind
from ase_mlelec.train.isolated import binding, is_isolated, isolated_energies
from ase_mlelec.train.log import say_once
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.parts import held_out, split
from ase_mlelec.train.recipes.reading import read_checked
from ase_mlelec_entry_points.cli.main import main

SMALL = {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 2, "l_max": 1, "n_basis": 5}
LINEAR = {"power_spectrum": {"cutoff": 4.0, "inner": 2.0, "n_pair": 6, "n_radial": 2, "l_max": 2, "near": 0}}


def configuration(folder=".", data=(), **sections):
    tables = {"data": {"files": ["cu.h5"], **dict(data)}, "output": {"model": "cu.safetensors"}, "energy": {}}
    return parse_config(tables | sections, folder)


@pytest.fixture(autouse=True)
def _nothing_was_said():
    say_once.cache_clear()


def frame(kind="", group="", forces=0.0, **options):
    return Frame(
        Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]]),
        {"forces": np.full((2, 3), forces)},
        f"{group}/{kind}",
        group,
        kind=kind,
        **options,
    )


# groups and kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, expected",
    [
        ({}, {"train": "train/, train/a, /a, /b, /train", "validation": "/validation", "test": "test/a"}),
        ({"test": ["test", "b"]}, {"train": "train/, train/a, /a, /train", "test": "/b, test/a"}),
        ({"support": ["a"]}, {"train": "train/, /b, /train", "support": "train/a, /a", "test": "test/a"}),
        ({"train": ["a"]}, {"train": "train/a, /a", "validation": "/validation", "test": "test/a"}),
        ({"train": ["train"]}, {"train": "train/, train/a, /train", "validation": "/validation", "test": "test/a"}),
    ],
)  # fmt: skip
def test_parts(data, expected):
    """A kind drops no structure unless a setting says so; a group that is no part does."""
    names = [("train", ""), ("train", "a"), ("", "a"), ("", "b"), ("test", "a"), ("", "validation"), ("", "train")]
    frames = Frames([frame(kind, group) for group, kind in names] + [frame(group="other")])
    found = split(frames, configuration(data=data))
    for part, members in expected.items():
        assert ", ".join(each.name for each in found[part]) == members, part


def test_groups_that_are_no_parts_are_trained_on():
    frames = Frames([frame(group="bulk"), frame(group="surface"), frame(group="test")])
    found = split(frames, configuration(data={"validation_fraction": 0.0}))
    assert [len(found[part]) for part in ("train", "test")] == [2, 1]


def test_usual_names_of_groups():
    """Tests under another usual name are not trained on, unless a setting says so."""
    groups = ["training", "Val", "TEST", "dev", "bulk", "testing"]
    frames = Frames([frame(group=group) for group in groups])

    def parts(**data):
        found = split(frames, configuration(data=data | {"validation_fraction": 0.0}))
        return {part: [each.group for each in found[part]] for part in ("train", "validation", "test")}

    assert parts() == {"train": ["training"], "validation": ["Val", "dev"], "test": ["TEST", "testing"]}
    own = parts(train=["training", "Val"], validation=["bulk"], test=["test", "x"])
    assert own == {"train": ["training", "Val"], "validation": ["bulk"], "test": ["TEST", "testing"]}


def test_what_is_left_out_is_said(capsys):
    frames = Frames([frame(group="train"), frame(group="old"), frame(forces=100.0), frame(group="test", forces=100.0)])
    found = split(frames, configuration(data={"largest_force": 50.0}), progress=True)
    assert [len(found[part]) for part in ("train", "test")] == [1, 1]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "cu.h5: left out are structures that no part of [data] names: old (1)",
        "cu.h5: left out are 1 structures with forces beyond data.largest_force, 50 eV/Å: / (173)",
    ]


def test_groups_that_no_structure_has_are_said(capsys):
    """A misspelled test is trained on."""
    frames = Frames([frame(), frame(kind="liquid"), frame(kind="solid")])
    data = {"test": ["test", "liqiud"], "train": ["train"], "validation_fraction": 0.0}
    assert len(split(frames, configuration(data=data), progress=True)["train"]) == 3
    said = "[data] test: no structure is of the group or kind liqiud; there are liquid, solid\n"
    assert capsys.readouterr().err == said
    split(frames, configuration(data=data | {"test": ["liquid"]}), progress=True)
    assert capsys.readouterr().err == ""


def test_trajectories_are_held_out_in_pieces():
    images = trajectory(40) + displaced(20)
    frames = Frames([Frame(atoms, {"energy": 0.0}) for atoms in images])
    held = held_out(frames, 0.2, seed=3)
    assert abs(len(held) - 12) <= 2 and held == held_out(frames, 0.2, seed=3) != held_out(frames, 0.2, seed=4)
    of_run = [k for k in held if k < 40]
    assert len(of_run) % 4 == 0 and sum(k + 1 in of_run for k in of_run) == 3 * len(of_run) // 4
    at_random = held_out(frames.take(range(40, 60)), 0.2, seed=3)
    assert at_random == sorted(np.random.default_rng(3).permutation(20)[:4].tolist())


def test_names_of_weights_are_those_of_the_data(tmp_path):
    frames = make_frames(10)
    for each in frames:
        each.kind, each.weight = "hot", 0.5
    write_hdf5(tmp_path / "cu.h5", frames)
    with pytest.raises(
        ValueError, match="data.weights: got 'cold', need one of data.files, or a group or kind .*: hot, t"
    ):
        train(configuration(tmp_path, {"weights": {"cold": 0.1}}), progress=False)
    config = configuration(tmp_path, {"weights": {"hot": 0.1, "cu.h5": 2.0, "test": 0.0}})
    found = read_checked([tmp_path / "cu.h5"], config)
    assert [each.weight for each in found] == pytest.approx([0.1] * 8) and "test" not in found.groups


# weights of labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label, loss",
    [
        ("energy", EnergyLoss((1, 1), (0, 0), (0, 0))),
        ("forces", EnergyLoss((0, 0), (1, 1), (0, 0), strong_force=1.0)),
        ("virial", EnergyLoss((0, 0), (0, 0), (1, 1))),
        ("ados", SpectrumLoss(1.0, 0.5)),
        ("dos", SpectrumLoss(0.0, 1.0, 1.0)),
    ],
)
def test_weights_of_labels_multiply_squares(label, loss):
    """The loss is linear in the weight of the label of a structure, and does not see those of other labels."""
    model = random_model(1, ("energy",), species=("Cu",), n_basis=6)
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (8,)).double()

    def value(**weights):
        frames = make_frames(3)
        frames[1].label_weights = weights
        batches = Batches.for_model(model, frames, loss.labels)
        with torch.no_grad():
            return float(loss(model, batches.batch([0, 1, 2]), 0.0)[0])

    none, one, three = (value(**{label: weight}) for weight in (1e-300, 1.0, 3.0))
    assert three - none == pytest.approx(3 * (one - none), rel=1e-9) and one > none
    other = "forces" if label == "energy" else "energy"
    assert value(**{other: 7.0}) == pytest.approx(one, rel=1e-12)


# isolated atoms -------------------------------------------------------------------------------------------------------


def alone(symbol="Cu", energy=3.0, kind="", cell=None, **labels):
    atoms = Atoms(symbol, cell=cell, pbc=cell is not None)
    return Frame(atoms, {"energy": energy, "forces": np.zeros((1, 3)), **labels}, symbol, kind=kind)


def test_what_is_an_isolated_atom():
    assert is_isolated(alone(), 6.0) and is_isolated(alone(cell=[7, 7, 8]), 6.0)
    assert not is_isolated(alone(cell=[5, 9, 9]), 6.0) and is_isolated(alone(cell=[5, 9, 9], kind="isolated_atom"), 6.0)
    assert not is_isolated(
        alone(cell=[[0, 5, 5], [5, 0, 5], [10, 10, 0]]), 10.1
    )  # a vector of 14.1 Å, images at 7.07 Å
    assert is_isolated(alone(cell=[[0, 5, 5], [5, 0, 5], [10, 10, 0]]), 7.0)
    assert not is_isolated(alone(ados=np.zeros((1, 3))), 6.0) and not is_isolated(frame(), 6.0)
    assert isolated_energies([alone(), alone(energy=2.0), alone("Au")]) == ({"Cu": 2.0, "Au": 3.0}, ["Cu"])
    pair = Frame(Atoms("CuAu"), {"energy": 3.0})
    assert binding(Frames([pair]), {"Cu": 2.0, "Au": 3.0}) == 1.0 and binding(Frames([pair]), {"Cu": 2.0}) is None


def copper_and_atoms(folder, *atoms, n=10):
    frames = make_frames(n)
    write_hdf5(folder / "cu.h5", Frames([*frames, *atoms], ENERGIES, frames.attributes))


def energy_alone(folder, name="cu"):
    atoms = Atoms("Cu")
    atoms.calc = DeepPotCalculator(load_model(folder / f"{name}.safetensors"), device="cpu", on_extrapolation="ignore")
    return atoms.get_potential_energy()


@pytest.mark.parametrize(
    "kind, given",
    [("net", {}), ("net", {"E0": {"Cu": 3.51}}), ("linear", {"E0": {"Cu": 3.51}}), ("linear on nets", {})],
)
def test_models_reproduce_isolated_atoms(kind, given, tmp_path, capsys):
    copper_and_atoms(tmp_path, alone(energy=3.51 if not given else -77.0, kind="IsolatedAtom"))
    options = {"steps": 4, "widths": [5]} if kind == "net" else {"widths": []}
    sections = LINEAR if kind == "linear" else {"descriptor": SMALL}
    model = train(configuration(tmp_path, energy=options | given, **sections))
    assert energy_alone(tmp_path) == pytest.approx(3.51, abs=1e-9)
    assert model.metadata["isolated_atoms_eV"] == {"Cu": 3.51} and model.metadata["training"]["frames"]["isolated"] == 1
    assert "isolated atoms have exactly these energies (E0), eV: Cu 3.51" in capsys.readouterr().err
    assert "isolated" not in model.metadata["errors"]
    # the structures are bound by 3.5 eV/atom
    assert model.metadata["errors"]["validation"]["energy_mae_meV_per_atom"] < 1000


def test_nets_with_isolated_atoms_are_those_without(tmp_path):
    """Near the structures of the data nothing differs, to the bit of the weights and to rounding of the energies."""
    copper_and_atoms(tmp_path, alone(energy=3.51))
    options = {"steps": 2, "widths": [4]}
    models = [
        train(configuration(tmp_path, energy=options | {"E0": given}, descriptor=SMALL), progress=False)
        for given in ("average", "isolated")
    ]
    nets = [model.heads["energy"].nets.state_dict() for model in models]
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())
    energies = []
    for model in models:
        atoms = make_frames(1)[0].atoms.copy()
        atoms.calc = DeepPotCalculator(model, device="cpu", on_extrapolation="ignore")
        energies.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert energies[0][0] == pytest.approx(energies[1][0], abs=1e-12)
    np.testing.assert_allclose(energies[0][1], energies[1][1], atol=1e-11)
    tuned = configuration(
        tmp_path, energy=options, descriptor=SMALL, start="cu.safetensors", output={"model": "t.safetensors"}
    )
    model = train(tuned, progress=False)
    assert model.metadata["isolated_atoms_eV"] == {"Cu": 3.51} and energy_alone(tmp_path, "t") == pytest.approx(3.51)


def test_isolated_atoms_count_for_nothing_else(tmp_path):
    copper_and_atoms(tmp_path)
    options = {"energy": {"steps": 2, "widths": [4], "E0": "average"}, "descriptor": SMALL}
    plain = train(configuration(tmp_path, **options), progress=False)
    copper_and_atoms(tmp_path, alone(), alone("Cu", 2.0))
    beside = train(configuration(tmp_path, **options), progress=False)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, beside.state_dict()[name]), name
    assert plain.metadata["shortest_distances_A"] == beside.metadata["shortest_distances_A"]
    assert "isolated_atoms_eV" not in beside.metadata


def test_isolated_atoms_of_some_species(tmp_path):
    """The other references are least squares of what is left."""
    frames = make_frames(12)
    for k, each in enumerate(frames):
        each.labels = {name: each.labels[name] for name in ("energy", "forces", "virial")}
        if k % 2:
            each.atoms.symbols[:2] = "Au"
    write_hdf5(tmp_path / "cu.h5", Frames([*frames, alone(energy=3.51)]))
    model = train(configuration(tmp_path, energy={"widths": []}, **LINEAR), progress=False)
    assert energy_alone(tmp_path) == pytest.approx(3.51, abs=1e-9)
    assert model.metadata["isolated_atoms_eV"] == {"Cu": 3.51}


@pytest.mark.parametrize(
    "energy, message",
    [
        ({"E0": "isolated"}, 'energy.E0: got "isolated", but cu.h5 has no isolated atom of Cu with an energy; .*Cu = '),
        ({"E0": {"Au": 1.0}}, "energy.E0: got Au, cu.h5 has Cu to train on; leave it out"),
        ({"E0": "none"}, "energy.E0: got 'none', need \"auto\""),
        ({"E0": {"Xx": 1.0}}, "energy.E0: got ''Xx'', need a chemical symbol"),
        ({"E0": {"Cu": "a"}}, "energy.E0: got Cu = 'a', need an energy in eV"),
        ({"E0": {}}, "energy.E0: got {}, need"),
    ],
)
def test_wrong_energies_of_isolated_atoms(energy, message, tmp_path):
    copper_and_atoms(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(configuration(tmp_path, energy={"widths": []} | energy, **LINEAR), progress=False)


def test_energies_of_other_calculations_are_reported(tmp_path, capsys):
    copper_and_atoms(tmp_path)
    train(configuration(tmp_path, energy={"widths": [], "E0": {"Cu": -500.0}}, **LINEAR))
    said = capsys.readouterr().err
    assert "warning: with E0 the structures are bound by -50" in said and 'E0 = "average"' in said


# errors by kind -------------------------------------------------------------------------------------------------------


def test_errors_by_kind(tmp_path, capsys):
    """Those of each kind are the errors of its structures alone."""
    frames = make_frames(5)
    for k, each in enumerate(frames):
        each.kind, each.labels = ("hot", "cold", "hot", "", "cold")[k], {"energy": each.labels["energy"]}
    write_hdf5(tmp_path / "cu.h5", frames)
    model = random_model(1, ("energy",), species=("Cu",), n_basis=6)
    model.save(tmp_path / "m.safetensors")
    found = errors_by_kind(model, frames)
    assert {name: own.pop("frames") for name, own in found.items()} == {"cold": 2, "hot": 2}
    assert found["hot"] == errors(model, frames.take([0, 2]))
    assert main(["test", str(tmp_path / "m.safetensors"), str(tmp_path / "cu.h5")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == ["kind", "structures", "energy", "(meV/atom)"]
    assert [line.split()[:2] for line in lines[-2:]] == [["cold", "2"], ["hot", "2"]]
    assert float(lines[-1].split()[2]) == pytest.approx(found["hot"]["energy_mae_meV_per_atom"], rel=1e-3)


# mixtures -------------------------------------------------------------------------------------------------------------


def test_forces_without_energies_are_said(tmp_path, capsys):
    frames = make_frames(10)
    for each in frames:
        each.labels = {"forces": each.labels["forces"]}
    write_hdf5(tmp_path / "cu.h5", frames)
    train(configuration(tmp_path, energy={"widths": []}, **LINEAR))
    assert "no structure has an energy: the zero of energy of every species is undetermined" in capsys.readouterr().err


def test_a_file_as_users_of_mace_have_it(tmp_path, capsys):
    """Keys with REF_, kinds, weights and an isolated atom, in extxyz; energies, forces and stress are learned."""
    frames = Frames([Frame(atoms, labels_of(atoms)) for atoms in copper(12, 0)])
    for k, each in enumerate(frames):
        each.labels = {name: each.labels[name] for name in ("energy", "forces", "virial")}
        each.kind, each.weight = ("bulk", "surface")[k % 2], (1.0, 2.0)[k % 2]
    images = to_images(Frames([*frames, alone(energy=3.51, kind="IsolatedAtom")]))
    for atoms in images:
        results = atoms.calc.results
        atoms.info |= {f"REF_{name}": results[name] for name in ("energy", "stress") if name in results}
        atoms.info["config_type"] = atoms.info.pop("kind")
        atoms.arrays["REF_forces"], atoms.calc = results["forces"], None
    write(tmp_path / "mace.xyz", images)
    with pytest.warns(UserWarning, match="read as energy: REF_energy, forces: REF_forces, stress: REF_stress"):
        model = train(
            configuration(
                tmp_path, {"files": ["mace.xyz"], "weights": {"surface": 0.5}}, energy={"widths": []}, **LINEAR
            )
        )
    assert model.metadata["training"]["frames"] == {"train": 11, "validation": 1, "test": 0, "isolated": 1}
    assert energy_alone(tmp_path) == pytest.approx(3.51, abs=1e-9)
    assert set(model.metadata["errors"]["validation"]) > {"energy_mae_meV_per_atom", "stress_rmse_GPa"}
