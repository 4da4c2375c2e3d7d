"""Options of imported deepmd-kit models that few of them have, and what is said where their sel is too small."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.data import atomic_numbers
from small_deepmd import STRUCTURES, change, evaluate, neighbors, predict, random_layers, random_tree, write_dp

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

DATA = Path(__file__).parents[1] / "data"


def with_functions(embedding, fitting):
    def apply(tree):
        for name, function in ("descriptor", embedding), ("fitting", fitting):
            part = tree["model"][name]
            part["activation_function"] = function
            for net in part["embeddings" if name == "descriptor" else "nets"]["networks"]:
                for layer in net["layers"]:
                    if layer["activation_function"] != "none":
                        layer["activation_function"] = function

    return apply


def with_timesteps(tree):
    descriptor, generator = tree["model"]["descriptor"], np.random.default_rng(5)
    descriptor["resnet_dt"] = True
    descriptor["embeddings"]["networks"] = [
        random_layers(generator, 1, [3, 6, 6], timestep=True) for _ in descriptor["embeddings"]["networks"]
    ]


def combined(*edits):
    def apply(tree):
        for edit in edits:
            edit(tree)

    return apply


TENSORFLOW = change("backend", value="TensorFlow")
OPTIONS = {
    "time steps in the embedding": with_timesteps,
    "protection": change("descriptor", "env_protection", value=0.1),
    "pairs of the descriptor": change("descriptor", "exclude_types", value=[[0, 1]]),
    "pairs of the descriptor, TensorFlow": combined(TENSORFLOW, change("descriptor", "exclude_types", value=[[1, 0]])),
    "pairs of the model": change("pair_exclude_types", value=[[0, 1], [1, 1]]),
    "pairs of both": combined(
        change("pair_exclude_types", value=[[1, 1]]), change("descriptor", "exclude_types", value=[[0, 1], [1, 1]])
    ),
    "types of the model": change("atom_exclude_types", value=[1]),
    "types of the fitting": change("fitting", "exclude_types", value=[0]),
    "energies in vacuum": change("fitting", "atom_ener", value=[None, -13.6]),
    "gelu and softplus": with_functions("gelu", "softplus"),
    "silu and sigmoid": with_functions("silu", "sigmoid"),
    "relu and relu6": with_functions("relu", "relu6"),
}


@pytest.mark.parametrize("one_side", [True, False], ids=["one side", "two sides"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options(tmp_path, option, one_side):
    """Of energies; also after they were saved as our own model, and by the calculator with its series."""
    tree, atoms = random_tree(one_side=one_side, seed=4), STRUCTURES[0]
    plain = evaluate(tree, atoms)[:, 0]
    OPTIONS[option](tree)
    wanted = evaluate(tree, atoms)[:, 0]
    assert np.abs(wanted - plain).max() > 1e-4
    model = load_model(write_dp(tmp_path / "m.dp", tree))
    np.testing.assert_allclose(predict(model, atoms), wanted, rtol=0, atol=1e-13)
    model.save(tmp_path / "m.safetensors")
    calculator = DeepPotCalculator(tmp_path / "m.safetensors")
    np.testing.assert_allclose(calculator.get_property("energies", atoms), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["dos", "dipole", "polar"])
@pytest.mark.parametrize("option", ["time steps in the embedding", "pairs of the descriptor", "types of the model"])
def test_options_of_other_quantities(tmp_path, kind, option):
    tree, atoms = random_tree(kind, seed=4), STRUCTURES[0]
    OPTIONS[option](tree)
    wanted = evaluate(tree, atoms)
    found = predict(load_model(write_dp(tmp_path / "m.dp", tree)), atoms)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * max(1, np.abs(wanted).max()))


def test_forces_with_excluded_pairs(tmp_path):
    """The calculator's gradient against differences of the energy."""
    tree, atoms = random_tree(seed=4), STRUCTURES[0].copy()
    combined(with_timesteps, OPTIONS["pairs of both"], OPTIONS["protection"])(tree)
    atoms.calc = DeepPotCalculator(write_dp(tmp_path / "m.dp", tree))
    forces, h = atoms.get_forces(), 1e-4
    for i, axis in (0, 0), (3, 2):
        energies = []
        for step in h, -h:
            atoms.positions[i, axis] += step
            energies.append(atoms.get_potential_energy())
            atoms.positions[i, axis] -= step
        np.testing.assert_allclose(forces[i, axis], (energies[1] - energies[0]) / (2 * h), atol=1e-6)


@pytest.mark.parametrize(
    "name, tolerance", [("excluded", 1e-12), ("functions", 1e-12), ("dos", 1e-12), ("single", 1e-7)]
)  # the last one's nets are evaluated in float32 there
def test_options_as_deepmd_kit_computes_them(name, tolerance):
    """Made by tests/data/deepmd_options.py."""
    with np.load(DATA / "deepmd_options.npz") as stored:
        data = dict(stored)
    symbols = [str(symbol).capitalize() for symbol in data["names"][data["types"]]]
    atoms = Atoms(symbols, data["positions"], cell=data["cell"], pbc=True)
    found = predict(load_model(DATA / f"deepmd_options_{name}.dp"), atoms)
    np.testing.assert_allclose(found, data[name].reshape(found.shape), rtol=0, atol=tolerance)


# more neighbors than sel ------------------------------------------------------------------------------------------


def small_sel(path, **options):
    return DeepPotCalculator(write_dp(path, random_tree(sel=(1, 41))), **options)


def test_more_neighbors_than_the_other_program_keeps(tmp_path):
    atoms = STRUCTURES[0].copy()
    atoms.calc = small_sel(tmp_path / "m.dp")
    found = max(sum(kind == 0 for kind, _ in neighbors(atoms, i, 4.0)) for i in range(len(atoms)))
    with pytest.warns(
        UserWarning,
        match=rf"has {found} neighbors of O within 4 Å.*\(deepmd-kit 3.2.0\) keeps the near"
        r"est 1 at most \(its sel\) and drops the others.*larger sel",
    ) as caught:
        atoms.get_potential_energy()
    assert len(caught) == 1
    atoms.rattle(0.01)
    atoms.get_potential_energy()  # once per run: a second warning were an error here


def test_neighbors_of_a_saved_model_in_a_committee(tmp_path):
    """Also through each_of; and a model with enough slots is quiet."""
    few, enough = (load_model(write_dp(tmp_path / "m.dp", random_tree(sel=sel))) for sel in ((1, 41), (30, 41)))
    few.save(tmp_path / "few.safetensors")
    with pytest.warns(UserWarning, match="keeps the nearest 1"):
        list(DeepPotCalculator([enough, tmp_path / "few.safetensors"]).each_of([STRUCTURES[0]]))
    DeepPotCalculator(enough).get_property("energy", STRUCTURES[0])
    with pytest.raises(CalculationFailed, match="keeps the nearest 1"):
        small_sel(tmp_path / "m.dp", on_extrapolation="raise").get_property("energy", STRUCTURES[0])
    small_sel(tmp_path / "m.dp", on_extrapolation="ignore").get_property("energy", STRUCTURES[0])


def test_what_the_other_program_drops():
    """deepmd-kit's numbers, where only the neighbors that it keeps are left: the nearest of all species together, as many
    as the sum of sel, and of these the nearest of each species.

    deepmd_small_sel.dp is a model of deepmd-kit 3.2.0 (PyTorch) with sel 3 and 4, deepmd_small_sel.npz what its
    DeepPot computes with it.
    """
    known, model = np.load(DATA / "deepmd_small_sel.npz"), load_model(DATA / "deepmd_small_sel.dp")
    symbols = [str(known["type_map"][kind]) for kind in known["types"]]
    system = System.from_atoms(Atoms(symbols, known["pos"], cell=known["cell"], pbc=True))
    places = system.positions.clone().requires_grad_()
    edges = Edges.build(replace(system, positions=places), model.descriptor.cutoff)
    center, kind = edges.center.numpy(), system.numbers[edges.neighbor].numpy()
    order, kept = np.argsort(edges.distances.detach().numpy(), kind="stable"), []
    for i in range(len(system.numbers)):
        nearest = [e for e in order if center[e] == i][: sum(model.metadata["most_neighbors"].values())]
        for symbol, most in model.metadata["most_neighbors"].items():
            kept += [e for e in nearest if kind[e] == atomic_numbers[symbol]][:most]
    kept = torch.tensor(sorted(kept))
    columns = {name: getattr(edges, name)[kept] for name in ("center", "neighbor", "shift", "vec")}
    energies = model(replace(system, positions=places), replace(edges, **columns))["energy"]
    energies.sum().backward()
    np.testing.assert_allclose(energies.detach(), known["atom_energy"].ravel(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(-places.grad, known["force"][0], rtol=0, atol=1e-12)
    whole = model(system, Edges.build(system, model.descriptor.cutoff))["energy"].sum()
    assert abs(float(whole.detach()) - known["energy"].item()) > 0.5
