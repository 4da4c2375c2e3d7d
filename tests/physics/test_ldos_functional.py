"""The functional of the LDOS against the function of the whole LDOS, and its core charges and levels."""

import numpy as np
import pytest
import torch

from ase_mlelec.physics import core_charge, total_energy
from ase_mlelec.physics.energy_zero import EnergyZero
from ase_mlelec.physics.ldos_functional import Ions, free_energy

SHAPE, CELL = (4, 5, 6), torch.tensor([[4.0, 0, 0], [0.3, 4.2, 0], [0, 0.2, 4.1]], dtype=torch.float64)
POSITIONS = torch.tensor([[0.1, 0.2, 0.3], [2.0, 2.1, 1.9]], dtype=torch.float64)
ENERGIES, TEMPERATURE = torch.linspace(-10, 8, 60, dtype=torch.float64), torch.tensor(3000.0, dtype=torch.float64)
RADII = np.linspace(0, 1.5, 60)
CORE = {"r": RADII, "rab": np.full(60, RADII[1]), "charge": 0.4 * np.exp(-((RADII / 0.4) ** 2))}
ATTRIBUTES = {"valence_electrons": {"Al": 3.0, "O": 6.0}, "xc": "pbe", "core_charges": {"Al": CORE}}


def ldos():
    rng = torch.Generator().manual_seed(0)
    return 0.02 + 0.01 * torch.rand(*SHAPE, len(ENERGIES), generator=rng, dtype=torch.float64)


def ions():
    return Ions.described(ATTRIBUTES, ["Al", "O"], POSITIONS, CELL)


@pytest.mark.parametrize("mu", [None, torch.tensor(-1.0, dtype=torch.float64)], ids=["solved", "given"])
def test_equals_the_function_of_the_whole_ldos(mu):
    d, volume = ldos(), float(torch.linalg.det(CELL))
    terms, density = free_energy(
        ions(), ENERGIES, d.mean((0, 1, 2)) * volume, lambda weights: d @ weights, TEMPERATURE, mu=mu
    )
    core = core_charge.density(ATTRIBUTES["core_charges"], ["Al", "O"], POSITIONS, CELL, SHAPE)
    wanted = total_energy.from_ldos(
        d, ENERGIES, CELL, POSITIONS, torch.tensor([3.0, 6.0]), TEMPERATURE, xc="pbe", core_density=core, mu=mu
    )
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-12), name
    if mu is None:
        assert float(density.sum()) * volume / density.numel() == pytest.approx(9, abs=1e-9)


def test_a_density_is_taken_as_it_is():
    density = torch.full(SHAPE, 9 / float(torch.linalg.det(CELL)), dtype=torch.float64)
    dos = ldos().mean((0, 1, 2)) * float(torch.linalg.det(CELL))
    terms, same = free_energy(ions(), ENERGIES, dos, density, TEMPERATURE)
    assert same is density and float(terms["hartree"]) == pytest.approx(0, abs=1e-12)


def test_without_core_charges():
    bare = Ions.described({**ATTRIBUTES, "core_charges": {}}, ["Al", "O"], POSITIONS, CELL)
    assert bare.core_density(SHAPE) is None and bare.charges.tolist() == [3, 6]


def test_level_of_the_zero():
    assert EnergyZero(-4.0, {"Al": 60.0}).level(["Al", "O", "Al"], 40.0) == -4 + 120 / 40
