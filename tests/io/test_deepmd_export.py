"""Models and data written for deepmd-kit: against our readers, an evaluator in NumPy alone, deepmd-kit and LAMMPS."""

import json

import h5py
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from peers import deepmd_model, deepmd_plugin, lammps_atoms
from small_deepmd import STRUCTURES, evaluate, predict
from small_models import random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.io.deepmd import read_data, write_data, write_model
from ase_mlelec.quantities import DIPOLE
from ase_mlelec.safety import RepulsiveCore
from ase_mlelec.testing import random_atoms
from ase_mlelec_entry_points.cli.main import main

SPECIES = ("O", "H")  # in the order of small_deepmd
OPTIONS = {
    "plain": {"mean": False},
    "mean": {"sel": (30, 41)},
    "two sides": {"one_side": False, "mean": False},
    "functions and time steps": {"mean": False, "timestep": True, "activation": "gelu", "widths": (4, 8, 8)},
    "protection": {"mean": False, "protection": 0.1},
    "pairs of the descriptor": {"excluded_pairs": [("O", "H", "taken")], "sel": (30, 41)},
    "pairs of the model": {"excluded_pairs": [("H", "H", "empty")], "sel": (30, 41)},
    "pairs without slots": {"excluded_pairs": [("O", "O", "none")], "mean": False},
}


def small_model(quantity="energy", **options):
    model = random_model(heads=(quantity,), species=SPECIES, **({"mean": False} | options))
    if quantity == "polarizability":  # deepmd-kit's isotropic part is a constant
        with torch.no_grad():
            for last in model.heads[quantity].nets.last:
                last.weight[0] = 0
    return model


def stored_tree(path):
    """The nested dict of a file with its arrays in place."""
    with h5py.File(path) as file:

        def loaded(value):
            if isinstance(value, dict):
                return {key: loaded(entry) for key, entry in value.items()}
            if isinstance(value, list):
                return [loaded(entry) for entry in value]
            return file[value][()] if isinstance(value, str) and value.startswith("/variable_") else value

        return loaded(json.loads(file.attrs["json"]))


@pytest.mark.parametrize("option", OPTIONS)
def test_energy(tmp_path, option):
    model = small_model(**OPTIONS[option])
    write_model(tmp_path / "m.dp", model, sel=None if "sel" in OPTIONS[option] else [90, 90])
    for atoms in STRUCTURES:
        wanted = predict(model, atoms)
        np.testing.assert_allclose(evaluate(stored_tree(tmp_path / "m.dp"), atoms)[:, 0], wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(predict(load_model(tmp_path / "m.dp"), atoms), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("quantity", ["dos", DIPOLE, "polarizability"])
@pytest.mark.parametrize("centers", [(1,), (0, 1)])
def test_other_quantities(tmp_path, quantity, centers):
    """Of all atoms, or of those of one species."""
    model, atoms = small_model(quantity, centers=centers), STRUCTURES[0]
    write_model(tmp_path / "m.dp", model, sel=[90])
    wanted, again = predict(model, atoms), load_model(tmp_path / "m.dp")
    np.testing.assert_allclose(predict(again, atoms), wanted, rtol=0, atol=1e-12)
    assert quantity == "dos" or again.heads[quantity].centers == centers
    found = evaluate(stored_tree(tmp_path / "m.dp"), atoms)
    chosen = np.isin(atoms.symbols, SPECIES if quantity == "dos" else [SPECIES[k] for k in centers])
    np.testing.assert_allclose(found[chosen], wanted[chosen], rtol=0, atol=1e-12)


def test_full_polarizability(tmp_path):
    """Of a model of deepmd-kit, back and forth."""
    from small_deepmd import random_tree, write_dp

    tree, atoms = random_tree("full polar", seed=2), STRUCTURES[0]
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    assert write_model(tmp_path / "again.dp", model) == (30, 41)
    wanted = evaluate(tree, atoms)
    found = predict(load_model(tmp_path / "again.dp"), atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    found = evaluate(stored_tree(tmp_path / "again.dp"), atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_linear_energy(tmp_path):
    """No hidden layers: the statistics of the features and the scale go into the only layer."""
    from ase_mlelec.heads import ScalarHead

    model = small_model()
    head = ScalarHead(2, model.descriptor.n_features, ()).double()
    for name, statistic in model.heads["energy"].nets.named_buffers():
        getattr(head.nets, name).copy_(statistic)
    model.heads["energy"] = head
    write_model(tmp_path / "m.dp", model, sel=[90])
    wanted = predict(model, STRUCTURES[0])
    found = evaluate(stored_tree(tmp_path / "m.dp"), STRUCTURES[0])[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_core_may_stay_behind(tmp_path):
    atoms = STRUCTURES[0]
    model = small_model()
    plain = predict(model, atoms)
    model.core = RepulsiveCore.below(SPECIES, {("O", "H"): 0.6, ("H", "H"): 0.6, ("O", "O"): 0.6}, [1e9, 1e9])
    with pytest.raises(ValueError, match="deepmd-kit has no repulsive core; leave it out"):
        write_model(tmp_path / "m.dp", model)
    write_model(tmp_path / "m.dp", model, without_core=True)
    np.testing.assert_allclose(predict(load_model(tmp_path / "m.dp"), atoms), plain, rtol=0, atol=1e-12)


def without_shortcut(model):
    model.heads["energy"] = random_model(heads=("energy",), species=SPECIES, widths=(4, 4)).heads["energy"]
    return model


def crowded():
    """A model with everything that deepmd-kit lacks."""
    model = random_model(l_max=3, n_basis=6)
    model.core = RepulsiveCore(
        model.species, inner=np.ones((2, 2)), outer=np.full((2, 2), 2.0), reach=np.full((2, 2), 3.0)
    )
    return model


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: load_model("mgo"), "no descriptor ACE; train with"),
        (crowded, r"no angular channels l_max = 3, no Chebyshev series .*, no repulsive core; train"),
        (lambda: load_model("al"), "no quantity ldos; export another"),
        (
            lambda: small_model("polarizability").for_evaluation(),
            "no model with rearranged arrays; give the model itself",
        ),
        (lambda: random_model(heads=("polarizability",)), "no isotropic part that depends on the environment; use"),
        (lambda: random_model(excluded_pairs=[("O", "O", "none")]), "no excluded pairs without slots"),
        (lambda: small_model(n_axis=1, widths=(4, 12)), "standardized features before a layer with a shortcut; train"),
    ],
)
def test_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=f"^deepmd-kit has .*{message}") as caught:
        write_model(tmp_path / "m.dp", make())
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_refused_arguments(tmp_path):
    with pytest.raises(ValueError, match="quantity: got 'dos', the model has energy"):
        write_model(tmp_path / "m.dp", small_model(), quantity="dos")
    with pytest.raises(ValueError, match=r"sel: got \[9, 9, 9\], need a number of neighbors for each of O, H"):
        write_model(tmp_path / "m.dp", small_model(), sel=[9, 9, 9])
    with pytest.raises(ValueError, match=r"sel: got \[9, 9\], but empty slots contribute"):
        write_model(tmp_path / "m.dp", small_model(mean=True), sel=[9])
    with pytest.raises(ValueError, match="sel: the first layer of the embedding has a shortcut; leave sel out"):
        write_model(tmp_path / "m.dp", small_model(widths=(2, 8)), sel=[90])


def test_slots_of_the_training_data(tmp_path):
    """One and a half times the largest number of neighbors there."""
    from ase_mlelec.train.protection import protect

    images = [random_atoms("O6H6", [5.0, 5.0, 5.0], seed=k) for k in range(4)]
    model = protect(small_model(), images, core=False)
    (sel,) = set(write_model(tmp_path / "m.dp", model))
    limit = model.range_of("energy").of_neighbors
    most = float((limit.middle + 1 / limit.inverse).max())
    assert 1.5 * most - 2 < sel <= 1.5 * most + 1


def test_command_line(tmp_path, capsys):
    small_model(DIPOLE).save(tmp_path / "m.safetensors")
    name = str(tmp_path / "m.safetensors")
    assert main(["export", name, "--out", str(tmp_path / "m.dp"), "--sel", "40", "50"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'm.dp'}: at most 40 O, 50 H within the cutoff")
    again = load_model(tmp_path / "m.dp")
    assert again.metadata["origin"].startswith("ase-mlelec ") and again.descriptor.sel == (40, 50)
    assert main(["export", "mgo", "--out", str(tmp_path / "m.dp")]) == 1
    assert "mlelec: error: mgo: deepmd-kit has no descriptor ACE" in capsys.readouterr().err


# data ----------------------------------------------------------------------------------------------------------------


def labeled(formula, seed, **labels):
    atoms = random_atoms(formula, [[5.0, 0, 0], [0.3, 5.0, 0], [0, 0.2, 5.0]], seed=seed)
    generator, n = np.random.default_rng(seed), len(atoms)
    shapes = {"energy": (), "forces": (n, 3), "virial": (3, 3), "ados": (n, 7), "atomic_polarizability": (n, 3, 3)}
    if not labels:
        labels = {name: generator.normal(size=shape) for name, shape in shapes.items()}
        labels["virial"] = (labels["virial"] + labels["virial"].T) / 2  # others are not read as they are, and told
    return atoms, labels


def same(found, wanted):
    for (atoms, labels), (other, others) in zip(found, wanted, strict=True):
        assert atoms == other and labels.keys() == others.keys()
        assert all(np.array_equal(labels[name], others[name]) for name in labels)


@pytest.mark.parametrize("mixed", [False, True])
def test_data_are_read_as_they_were(tmp_path, mixed):
    """Two compositions, other orders of the atoms, frames without some labels, and a molecule."""
    frames = [
        labeled("O2H4", 0),
        labeled("O2H4", 1),
        labeled("H4O2", 2),
        labeled("O2C4", 3),
        labeled("O2H4", 4, energy=1.5),
    ]
    molecule, labels = labeled("OH2", 5, energy=-3.25)
    molecule.pbc, molecule.cell = False, None
    frames.append((molecule, labels))
    systems = write_data(tmp_path / "data", frames, groups=["train"] * 5 + [""], mixed=mixed)
    folders = ["6_atoms", "6_atoms_1"] if mixed else ["H4O2", "H4O2_1", "C4O2", "H4O2_2"]
    assert [*systems] == [*(f"train/{name}" for name in folders), "3_atoms" if mixed else "H2O"]
    by_system = {name: read_data(tmp_path / "data" / name) for name in systems}
    same([frame for name in systems for frame in by_system[name]], frames)
    assert len(read_data(tmp_path / "data")) == len(frames)
    assert all((path / "type_map.raw").read_text().split() == ["H", "C", "O"] for path in systems_of(tmp_path / "data"))


def systems_of(folder):
    return [file.parent for file in folder.rglob("type_map.raw")]


def test_refused_data(tmp_path):
    slab, labels = labeled("OH2", 0)
    slab.pbc = [True, True, False]
    with pytest.raises(ValueError, match=r"frame 1 repeats in the directions \[True, True, False\], .*give it a cell"):
        write_data(tmp_path / "data", [labeled("OH2", 0), (slab, labels)])
    with pytest.raises(ValueError, match=f"deepmd-kit has no {DIPOLE}; leave"):
        write_data(tmp_path / "data", [labeled("OH2", 0, **{DIPOLE: np.zeros(3)})])
    with pytest.raises(ValueError, match="is there already; give the name of a new folder"):
        write_data(tmp_path, [labeled("OH2", 0)])
    assert not list(tmp_path.iterdir())


def test_convert(tmp_path, capsys):
    images = []
    for seed in range(3):
        atoms, labels = labeled("O2H4", seed)
        atoms.calc = SinglePointCalculator(atoms, energy=labels["energy"], forces=labels["forces"], dipole=np.ones(3))
        images.append(atoms)
    write(tmp_path / "a.extxyz", images)
    target = tmp_path / "data"
    assert main(["convert", str(tmp_path / "a.extxyz"), "--to", "deepmd", "--out", str(target)]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{target}: 3 structures in 1 systems, with energy, forces\n")
    assert output.endswith(f"deepmd-kit's data have no {DIPOLE}\n")
    for (_, labels), image in zip(read_data(target), images, strict=True):
        np.testing.assert_allclose(labels["forces"], image.get_forces(), rtol=0, atol=1e-8)  # digits of the text
    assert main(["convert", str(tmp_path / "a.extxyz"), "--to", "deepmd-mixed", "--out", str(tmp_path / "mixed")]) == 0
    assert (tmp_path / "mixed" / "6_atoms" / "set.000" / "real_atom_types.npy").exists()
    assert main(["convert", str(tmp_path / "a.extxyz"), "--out", str(tmp_path / "b.h5"), "--to", "deepmd"]) == 1
    assert "got --to deepmd and TARGET" in capsys.readouterr().err


# with the programs themselves ----------------------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("quantity", ["energy", "dos", DIPOLE, "polarizability"])
def test_deepmd_kit_computes_the_same(tmp_path, quantity):
    """Its backend in NumPy, in double precision."""
    model, atoms = small_model(quantity, one_side=False, timestep=True, centers=(0, 1)), STRUCTURES[0]
    write_model(tmp_path / "m.dp", model, sel=[70])
    found = deepmd_model(tmp_path / "m.dp", quantity)(atoms)
    np.testing.assert_allclose(found, predict(model, atoms), rtol=0, atol=1e-9)


@pytest.mark.peer
def test_deepmd_kit_reads_the_data(tmp_path):
    data = pytest.importorskip("deepmd.utils.data", reason="needs deepmd-kit").DeepmdData
    frames = [labeled("O2H4", seed, energy=float(seed)) for seed in range(3)]
    write_data(tmp_path / "data", frames)
    reader = data(str(tmp_path / "data" / "H4O2"))
    reader.add("energy", 1, atomic=False, must=True, high_prec=True)
    batch = reader.get_batch(3)
    assert sorted(batch["energy"].ravel()) == [0, 1, 2]
    for energy, coordinates in zip(batch["energy"].ravel(), batch["coord"]):
        places = np.argsort(reader.idx_map)  # deepmd-kit sorts atoms by type
        np.testing.assert_allclose(
            coordinates.reshape(-1, 3)[places], frames[int(energy)][0].positions, rtol=0, atol=1e-6
        )


@pytest.mark.peer
def test_lammps_computes_the_same(tmp_path):
    """Energy, forces and pressure by deepmd-kit's plugin; the graph comes from deepmd-kit's converter."""
    model, atoms = small_model(timestep=True), random_atoms("O6H12", [[6.0, 0, 0], [0.5, 6.2, 0], [0.2, -0.4, 6.5]])
    write_model(tmp_path / "m.dp", model, sel=[90])
    plugin = deepmd_plugin(tmp_path / "m.dp", tmp_path / "m.pb")
    energy, forces, stress = lammps_atoms(atoms, SPECIES, plugin)
    atoms.calc = DeepPotCalculator(model)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(stress, atoms.get_stress(), rtol=0, atol=1e-6)
