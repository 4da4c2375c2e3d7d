"""Meshes of k points: sums that a mesh must do exactly, and the counts that group theory gives."""

import numpy as np
import pytest
from ase.build import bulk, graphene

from ase_mlelec.physics.kmesh import irreducible, monkhorst_pack, time_reversal_pairs


def crystal(atoms):
    return np.array(atoms.cell), atoms.get_scaled_positions(), atoms.numbers


@pytest.mark.parametrize(
    "shape, shift", [((4, 3, 2), (0, 0, 0)), ((4, 3, 2), (0.5, 0.5, 0)), ((5, 1, 6), (0.3, 0, 0.1))]
)
def test_plane_waves(shape, shift):
    """The sum of exp(2πi k·R) is zero, except for R = n N, where it is the phase of the shift."""
    kpts = monkhorst_pack(shape, shift)
    assert (kpts >= -0.5).all() and (kpts < 0.5).all() and len(kpts) == np.prod(shape)
    r_vectors = np.indices((7, 7, 7)).reshape(3, -1).T - 3
    sums = np.exp(2j * np.pi * kpts @ r_vectors.T).mean(0)
    whole = (r_vectors % shape == 0).all(1)
    wanted = np.where(whole, np.exp(2j * np.pi * (r_vectors / shape) @ shift), 0)
    np.testing.assert_allclose(sums, wanted, atol=1e-14)


@pytest.mark.parametrize(
    "shape, shift, count",
    [((4, 4, 4), 0, 36), ((3, 3, 1), 0, 5), ((4, 4, 4), 0.5, 32), ((3, 2, 1), (0.5, 0.5, 0), 3), ((1, 1, 1), 0, 1)],
)
def test_pairs(shape, shift, count):
    """(N + points that are their own partner)/2 points, and the same average of an even function."""
    kpts, weights = time_reversal_pairs(shape, shift)
    assert len(kpts) == count and weights.sum() == pytest.approx(1, abs=1e-15)
    r_vectors = np.array([[1, 0, 0], [2, -1, 3], [4, 4, 0], [3, 0, 0]])
    np.testing.assert_allclose(
        weights @ np.cos(2 * np.pi * kpts @ r_vectors.T),
        np.cos(2 * np.pi * monkhorst_pack(shape, shift) @ r_vectors.T).mean(0),
        atol=1e-14,
    )


@pytest.mark.parametrize(
    "atoms, shape, shift, count",
    [
        (bulk("Si"), (4, 4, 4), 0, 8),
        (bulk("Si"), (4, 4, 4), 0.5, 10),
        (bulk("Al", cubic=True), (4, 4, 4), 0, 10),
        (graphene(vacuum=5.0), (6, 6, 1), 0, 7),
    ],
)
def test_irreducible(atoms, shape, shift, count):
    """The counts of the special-point literature; the map keeps an energy that has the symmetry of the lattice."""
    atoms.pbc = True
    kpts, weights, mapping = irreducible(shape, *crystal(atoms), shift=shift)
    assert len(kpts) == count and weights.sum() == pytest.approx(1, abs=1e-15)
    full = monkhorst_pack(shape, shift)
    reach = np.indices((7, 7, 7 if shape[2] > 1 else 1)).reshape(3, -1).T - [3, 3, 3 if shape[2] > 1 else 0]
    lengths = np.linalg.norm(reach @ atoms.cell, axis=1)
    shell = reach[lengths < 1.8 * lengths[lengths > 0].min()]  # whole shells: as symmetric as the lattice
    energy = np.cos(2 * np.pi * full @ shell.T).sum(1)
    np.testing.assert_allclose(np.cos(2 * np.pi * kpts @ shell.T).sum(1)[mapping], energy, atol=1e-12)
    np.testing.assert_allclose(np.bincount(mapping) / len(full), weights)


def test_time_reversal_in_a_crystal_without_inversion():
    """Zincblende has no inversion: without time reversal there are points more."""
    atoms = bulk("GaAs", "zincblende", a=5.65)
    with_pairs, without = (
        len(irreducible((4, 4, 4), *crystal(atoms), time_reversal=flag)[0]) for flag in (True, False)
    )
    assert with_pairs == 8 and without > 8


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 0), (4, 4, 1.5), 4])
def test_bad_shape(shape):
    with pytest.raises(ValueError, match="shape: got .*, need three positive integers"):
        monkhorst_pack(shape)


def test_bad_shift():
    for function in (time_reversal_pairs, lambda *a: irreducible(a[0], *crystal(bulk("Si")), shift=a[1])):
        with pytest.raises(ValueError, match="shift: got .0.25, 0.0, 0.0., need 0 or 1/2"):
            function((4, 4, 4), (0.25, 0, 0))


def test_atoms_on_top_of_each_other():
    with pytest.raises(ValueError, match="cell: got a crystal without symmetry"):
        irreducible((2, 2, 2), np.eye(3), np.zeros((2, 3)), [1, 1])
