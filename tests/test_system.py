"""System: structures as tensors, their strain, and sums over their atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import InputError

from ase_mlelec.checks import check_atoms
from ase_mlelec.system import System


def images():
    left_handed = Atoms("Si", cell=[[0, 3, 0], [2, 0, 0], [0, 1, 4]])
    return [bulk("NaCl", "rocksalt", 5.6, cubic=True), molecule("H2O"), left_handed]


def test_holds_what_atoms_hold():
    system = System.from_atoms(images())
    assert system.n_systems == 3
    assert system.n_atoms.tolist() == [8, 3, 1]
    assert system.batch.tolist() == [0] * 8 + [1] * 3 + [2]
    for k, image in enumerate(images()):
        own = system.batch == k
        assert np.array_equal(system.positions[own].numpy(), image.positions)
        assert np.array_equal(system.numbers[own].numpy(), image.numbers)
        assert np.array_equal(system.cell[k].numpy(), image.cell.array)
        assert np.array_equal(system.pbc[k].numpy(), image.pbc)


def test_one_structure_is_a_batch_of_one():
    one, many = System.from_atoms(images()[0]), System.from_atoms(iter(images()[:1]))
    assert all(torch.equal(getattr(one, name), getattr(many, name)) for name in System.__dataclass_fields__)


def test_does_not_share_memory_with_atoms():
    atoms = bulk("Si")
    system = System.from_atoms(atoms)
    atoms.positions += 1
    atoms.cell *= 2
    assert not np.allclose(system.positions.numpy(), atoms.positions) and not np.allclose(system.cell[0], atoms.cell)


def test_precision():
    system = System.from_atoms(bulk("Si"), torch.float32)
    assert system.positions.dtype == system.cell.dtype == torch.float32
    assert system.numbers.dtype == system.batch.dtype == torch.int64 and system.pbc.dtype == torch.bool


def test_volume_has_no_sign():
    """Cells of either hand; 0 for a molecule."""
    wanted = [image.cell.volume for image in images()]
    np.testing.assert_allclose(System.from_atoms(images()).volume.numpy(), wanted, rtol=1e-15)  # one determinant
    assert np.linalg.det(images()[2].cell.array) < 0


def test_strain_deforms_every_structure_by_its_own():
    strain = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    system = System.from_atoms(images())
    strained = system.strained(strain)
    for k, image in enumerate(images()):
        deformation = np.eye(3) + strain[k].numpy()
        own = system.batch == k
        np.testing.assert_allclose(strained.positions[own].numpy(), image.positions @ deformation, atol=1e-14)
        np.testing.assert_allclose(strained.cell[k].numpy(), image.cell.array @ deformation, atol=1e-14)
        if image.cell.rank == 3:  # fractional coordinates stay
            fraction = strained.positions[own].numpy() @ np.linalg.inv(strained.cell[k].numpy())
            np.testing.assert_allclose(fraction, image.cell.scaled_positions(image.positions), atol=1e-14)
    assert torch.equal(system.strained(torch.zeros(3, 3, 3, dtype=torch.float64)).positions, system.positions)


def test_volume_changes_by_the_trace():
    """d ln V / dε = 1."""
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    system = System.from_atoms(images()[2])
    (gradient,) = torch.autograd.grad(system.strained(strain).volume.log().sum(), strain)
    np.testing.assert_allclose(gradient[0], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-15)


def test_sum_per_system():
    values = torch.arange(24.0, dtype=torch.float64).reshape(12, 2)
    found = System.from_atoms(images()).sum_per_system(values)
    wanted = torch.stack([values[:8].sum(dim=0), values[8:11].sum(dim=0), values[11]])
    assert torch.equal(found, wanted)


def test_no_structures():
    with pytest.raises(InputError, match="empty sequence of structures; give at least one"):
        System.from_atoms([])


@pytest.mark.parametrize(
    "cell, pbc",
    [
        (None, False),
        ([5, 0, 0], [True, False, False]),
        ([5, 6, 0], [1, 1, 0]),
        ([[5, 0, 0], [0, 0, 0], [5, 0, 0]], [1, 0, 0]),
    ],
)
def test_cells_that_are_enough(cell, pbc):
    """Cell vectors are needed along periodic directions only."""
    check_atoms(Atoms("H", cell=cell, pbc=pbc))


@pytest.mark.parametrize(
    "cell, pbc",
    [
        (None, True),
        ([5, 6, 0], True),
        ([0, 5, 5], [True, False, False]),
        ([[5, 0, 0], [10, 0, 0], [0, 0, 5]], [True, True, False]),
    ],
)
def test_cells_that_are_not(cell, pbc):
    with pytest.raises(InputError, match=r"pbc is .* span no volume; set the cell with atoms.set_cell\(...\) or pbc"):
        check_atoms(Atoms("H", cell=cell, pbc=pbc))
