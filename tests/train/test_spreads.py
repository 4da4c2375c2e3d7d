"""Spreads of labels, and the weights of energies, forces and virials that follow from them."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_data import labels_of

from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.train.config import EnergyConfig, parse_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.frames import completed_energy
from ase_mlelec.train.spreads import START_AND_END, energy_weights, spread_of
from ase_mlelec.train.standardize import standardize


def test_spread():
    """Energies about -1 eV for each Cu and -3 eV for each O; forces about their mean."""
    rng = np.random.default_rng(0)
    numbers = [np.array([29] * a + [8] * b) for a, b in ((1, 1), (2, 1), (4, 4), (3, 5), (1, 6), (7, 2))]
    exact = [(own, -1.0 * (own == 29).sum() - 3.0 * (own == 8).sum()) for own in numbers]
    assert spread_of(exact, "energy") < 1e-12
    shifted = [(own, value + 0.01 * len(own) * sign) for (own, value), sign in zip(exact, (1, -1) * 3)]
    assert 0.005 < spread_of(shifted, "energy") < 0.01  # a part of it looks like composition
    forces = [(own, rng.normal(size=(len(own), 3))) for own in numbers]
    every = np.concatenate([value for _, value in forces])
    assert spread_of(forces, "forces") == pytest.approx(np.sqrt(every.var(axis=0).mean()))
    assert spread_of([], "energy") == 0.0


def labeled(n, spread, **labels):
    """Frames of four atoms: energies and virials per atom of this spread, forces of 1 eV/Å."""
    signs = (-1) ** np.arange(n)
    of_frame = {
        "energy": lambda sign: 4 * spread * sign,
        "forces": lambda sign: np.full((4, 3), 1.0) * np.array([1, -1, 1, -1])[:, None],
        "virial": lambda sign: np.full((3, 3), 4 * spread * sign),
    }
    atoms = Atoms("Cu4", np.arange(12).reshape(4, 3), cell=[9, 9, 9], pbc=True)
    names = [name for name, wanted in labels.items() if wanted]
    return Frames([Frame(atoms, {name: of_frame[name](sign) for name in names}, "a") for sign in signs])


def test_units_of_weights():
    every = dict(energy=True, forces=True, virial=True)
    # units: sqrt(4) times the spread, but at least the force times 1 Å and 3 Å
    for spread, energy, virial in ((5.0, 10.0, 10.0), (1.0, 2.0, 3.0), (0.1, 1.0, 3.0)):
        found = energy_weights(labeled(6, spread, **every))
        for name, unit in (("energy", energy), ("forces", 1.0), ("virial", virial)):
            assert found[name] == pytest.approx([weight / unit**2 for weight in START_AND_END[name]])
    alone = energy_weights(labeled(6, 5.0, energy=True))
    assert alone["energy"] == pytest.approx([weight / 100 for weight in START_AND_END["energy"]])
    assert all(np.isfinite(pair).all() for pair in energy_weights(labeled(1, 0.0, energy=True)).values())


def test_settings_that_follow_from_the_data():
    frames = labeled(400, 1.0, energy=True, forces=True)
    found = completed_energy(EnergyConfig(), frames)
    assert found.batch_size == 32 and found.steps == 7813  # a million atoms
    assert found.forces == energy_weights(frames)["forces"] and found.given == ()
    given = completed_energy(EnergyConfig(steps=7, batch_size=3, energy=(1.0, 2.0)), frames)
    assert (given.steps, given.batch_size, given.energy, given.forces) == (7, 3, (1.0, 2.0), (100.0, 10.0))
    assert completed_energy(EnergyConfig(), labeled(9, 1.0, energy=True)).batch_size == 1


def crystals(n, seed):
    """Copper cells of 32 atoms, strained and rattled."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * 2
        strain = rng.normal(0, 0.03, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
        labels = labels_of(atoms)
        yield Frame(atoms, {name: labels[name] for name in ("energy", "forces", "virial")}, f"cu-{i}")


@pytest.mark.slow
def test_exact_stress_does_no_harm():
    """A model that cannot fit all: stresses beside energies and forces in automatic and in fixed weights."""
    train, held = (Frames(list(crystals(n, seed))) for n, seed in ((12, 0), (6, 1)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        descriptor = DeepPotSE(["Cu"], 4.0, 2.0, (6,), 3, l_max=2, n_basis=6)
        model = Model(descriptor, {"energy": ScalarHead(1, descriptor.n_features, ())}).double()
    standardize(model, train)

    def errors_with(**weights):
        for layer in model.heads["energy"].nets.last:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        fit_linear(model, train, EnergyLoss(**weights), 1e-7, progress=False)
        return errors(model, held)

    chosen = energy_weights(train)
    without, automatic = errors_with(**chosen | {"virial": (0, 0)}), errors_with(**chosen)
    fixed = errors_with(energy=(0.1, 10), forces=(100, 10), virial=(1, 5))
    keys = "energy_rmse_meV_per_atom", "forces_mae_meV_per_A"
    assert all(automatic[key] < 1.05 * without[key] for key in keys)
    assert automatic["stress_rmse_GPa"] < 0.95 * without["stress_rmse_GPa"]
    assert fixed["forces_mae_meV_per_A"] > 1.15 * without["forces_mae_meV_per_A"]


@pytest.mark.slow
def test_stress_of_one_volume_teaches_others(tmp_path):
    """Twelve rattled crystals at one volume, with nearly exact labels: strained ones have energies to some meV/atom."""

    def copper(seed, strain):
        rng, atoms = np.random.default_rng(seed), bulk("Cu", cubic=True) * (2, 2, 1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.03, seed=seed)
        return Frame(atoms, {name: labels_of(atoms)[name] for name in ("energy", "forces", "virial")}, f"cu-{seed}")

    write_hdf5(tmp_path / "cu.h5", Frames([copper(seed, 0.0) for seed in range(12)]))
    table = {"data": {"files": ["cu.h5"]}, "output": {"model": "cu.safetensors"}, "energy": {"widths": []}}
    model = train(parse_config(table | {"power_spectrum": {}}, tmp_path), progress=False)
    assert 0 < model.metadata["training"]["closed_form"]["energy"]["weights"]["virial"] < 1e-3
    found = errors(model, Frames([copper(seed, 0.02) for seed in range(50, 60)]))
    assert found["energy_mae_meV_per_atom"] < 10 and found["stress_rmse_GPa"] < 3
