"""Long range of a model with centroids: the splitting of longitudinal and transverse polar waves, and what it needs."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import InputError
from small_models import random_model

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, units
from ase_mlelec.long_range import LongRange
from ase_mlelec.testing import five_point

CHARGES = {"valence_charges": {"Si": 2.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}
DIELECTRIC = 2.3


def crystal(model):
    """Rock salt, whose centroids stay on their atoms by symmetry until these move."""
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
    born = DeepWannierCalculator(model).get_born_charges(atoms)
    silicon = born[atoms.numbers == 14]
    np.testing.assert_allclose(silicon, np.broadcast_to(silicon[0, 0, 0] * np.eye(3), silicon.shape), atol=1e-9)
    return atoms, silicon[0, 0, 0]


def curvature(calculator, atoms, direction, n):
    """d²E/du² of a wave of n cells along x, for each pair of ions, whose relative displacement is u times a cosine."""
    waves = atoms * (n, 1, 1)
    phase = np.cos(2 * math.pi * waves.positions[:, 0] / (n * atoms.cell[0, 0]))
    sign = np.where(waves.numbers == 14, 0.5, -0.5)
    pattern = np.outer(sign * phase, direction)

    def slope(step):
        moved = waves.copy()
        moved.positions += step * pattern
        return -np.sum(calculator.get_forces(moved) * pattern)

    return five_point(slope, 1e-3) / (len(waves) / 2) / (phase**2).mean()


@pytest.mark.parametrize("cutoff", [4.0])
def test_splitting_is_that_of_the_born_charges(cutoff):
    """4π Z*²/(Ω ε), with Born charges from the centroids; no splitting without the long range, and none at q = 0."""
    model = random_model(2, ("energy", "dipole"), cutoff=cutoff, metadata=CHARGES)
    atoms, charge = crystal(model)
    assert abs(charge - 2.0) > 0.01  # the centroids follow their neighbors
    wanted = 4 * math.pi * charge**2 / (atoms.get_volume() / 4) / DIELECTRIC * units.COULOMB
    along, across, n = *np.eye(3)[:2], 12

    def splitting(calculator):
        return curvature(calculator, atoms, along, n) - curvature(calculator, atoms, across, n)

    without = splitting(DeepPotCalculator(model))
    model.long_range = LongRange(
        0.5, CHARGES["valence_charges"], CHARGES["electrons_per_centre"], dielectric=DIELECTRIC
    )
    found = splitting(DeepPotCalculator(model))
    # the wave is n cells long, not infinitely long: relative errors of (2π a/n a)²
    assert found - without == pytest.approx(wanted, rel=0.05)
    assert abs(without) < 0.1 * wanted


def test_one_period():
    model = random_model(0, ("energy", "dipole"), metadata=CHARGES)
    model.long_range = LongRange(0.5, CHARGES["valence_charges"], CHARGES["electrons_per_centre"])
    chain = Atoms("SiO", [[0, 0, 0], [1.8, 0, 0]], cell=[4.0, 0, 0], pbc=[True, False, False])
    with pytest.raises(InputError, match="long range: pbc: got one period, need none, two or three"):
        DeepPotCalculator(model).get_potential_energy(chain)


def test_results_and_parameters():
    model = random_model(0, ("energy", "dipole"), metadata=CHARGES)
    atoms = bulk("SiO", "rocksalt", a=4.4)
    atoms.rattle(0.1, seed=0)
    near, before = DeepPotCalculator(model), DeepPotCalculator(model)
    model.long_range = LongRange(0.8, CHARGES["valence_charges"], CHARGES["electrons_per_centre"])
    far = DeepPotCalculator(model)
    assert "stresses" in near.implemented_properties and "stresses" not in far.implemented_properties
    assert far.parameters["weights"] != before.parameters["weights"]
    assert far.get_potential_energies(atoms).sum() == pytest.approx(far.get_potential_energy(atoms), rel=1e-12)
    images = [atoms, bulk("SiO", "rocksalt", a=4.6), atoms]
    together = [far.get_potential_energy(image) for image in far.each_of(images)]
    assert (
        together[0]
        == pytest.approx(together[2], rel=1e-13)
        == pytest.approx(far.get_potential_energy(atoms), rel=1e-13)
    )
    committee = DeepPotCalculator([model, random_model(1, ("energy", "dipole"), metadata=CHARGES)])
    assert "stress" in committee.implemented_properties and np.isfinite(committee.get_stress(atoms)).all()
