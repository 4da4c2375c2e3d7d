"""Structures for tests: random ones without symmetry, and copies that should give the same or nearly the same."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.symbols import string2symbols
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Head
from ase_mlelec.model import Model
from ase_mlelec.system import System


class Contract:
    """What contracts share: tests take what the functions ``make_...`` of a subclass give as fixtures."""

    def __getattr__(self, name):
        if name.startswith("make_"):
            raise NotImplementedError(f"{type(self).__name__} must define {name}()")
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

    @pytest.fixture(name="atoms")
    def made_atoms(self) -> Atoms:
        return self.make_atoms()

    @pytest.fixture(name="model")
    def made_model(self) -> Model:
        return self.make_model()

    @pytest.fixture(name="calculator")
    def made_calculator(self) -> Calculator:
        return self.make_calculator(self.make_model())

    @pytest.fixture(name="descriptor")
    def made_descriptor(self) -> Descriptor:
        return self.make_descriptor()

    @pytest.fixture(name="head")
    def made_head(self) -> Head:
        return self.make_head()

    @pytest.fixture(name="environment")
    def made_environment(self) -> Environment:
        return self.make_environment()


def random_atoms(
    symbols: str, cell: ArrayLike | None = None, pbc: bool | ArrayLike = True, shortest: float = 1.6, seed: int = 0
) -> Atoms:
    """ase.Atoms at random places, no two closer than ``shortest`` Å (images included).

    Parameters
    ----------
    symbols : str
        e.g. "Si4O3".
    cell
        As for ase.Atoms, or None for a molecule in a small box.
    """
    generator = np.random.default_rng(seed)
    names = string2symbols(symbols)
    box = cell if cell is not None else [1.3 * shortest * len(names) ** (1 / 3)] * 3
    atoms = Atoms(cell=box, pbc=pbc if cell is not None else False)
    matrix, positions = atoms.cell.array, np.empty((0, 3))
    images = _images(matrix, atoms.pbc, shortest)
    free = all(np.linalg.norm(images[images.any(axis=1)], axis=1) >= shortest)  # of its own images
    for _ in range(10_000):
        if len(positions) == len(names):
            break
        place = generator.random((1, 3)) @ matrix
        apart = np.linalg.norm(positions[:, None] - place + images, axis=2)
        if free and (apart >= shortest).all():
            positions = np.concatenate([positions, place])
    else:
        raise ValueError(f"{symbols} with {shortest} Å between atoms does not fit into {box}; enlarge the cell")
    return Atoms(names, positions, cell=matrix if cell is not None else None, pbc=atoms.pbc)


def _images(matrix, pbc, reach):
    """Lattice vectors [S, 3] of all images of one cell that points of another come closer to than ``reach``."""
    heights = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    counts = np.where(pbc, np.ceil(reach / heights) + 1, 0).astype(int)
    return np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts)), axis=-1).reshape(-1, 3) @ matrix


def random_rotation(seed: int = 0) -> NDArray:
    """Proper rotation matrix [3, 3]; vectors turn as v @ R.T."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def turned(atoms: Atoms, rotation: NDArray) -> Atoms:
    """Copy of ``atoms`` with positions and cell turned by a matrix [3, 3]."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ rotation.T)
    atoms.positions = atoms.positions @ rotation.T
    return atoms


def doubled(atoms: Atoms) -> Atoms:
    """Two copies of ``atoms``: repeated along the first periodic direction, or far apart."""
    if atoms.pbc.any():
        return atoms.repeat([2 if axis == int(np.argmax(atoms.pbc)) else 1 for axis in range(3)])
    copy_ = atoms.copy()
    copy_.positions += [100.0, 0, 0]
    return atoms + copy_


def change_one(atoms: Atoms, what: str, other_pbc: ArrayLike) -> None:
    """Change positions, cell, numbers or pbc of ``atoms``."""
    if what == "positions":
        atoms.positions[0] += [0.02, 0.01, 0.03]
    elif what == "cell":
        atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    elif what == "numbers":
        atoms.numbers[:] = np.roll(atoms.numbers, 1)
    else:
        atoms.pbc = other_pbc


def shifted_by_cells(atoms: Atoms, seed: int = 0) -> Atoms:
    """Copy in which every atom is replaced by a random image of itself."""
    atoms = atoms.copy()
    images = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    atoms.positions += images @ atoms.cell.array
    return atoms


def pair_at_cutoff(atoms: Atoms, cutoff: float, distance: float) -> Atoms:
    """Copy of ``atoms`` in which the pair that is nearest to the cutoff is ``distance`` apart."""
    edges = Edges.build(System.from_atoms(atoms), 1.5 * cutoff)
    apart = edges.vec.norm(dim=1)
    distinct = torch.where(edges.center != edges.neighbor, (apart - cutoff).abs(), torch.inf)
    k = int(distinct.argmin())
    atoms = atoms.copy()
    atoms.positions[edges.neighbor[k]] += (edges.vec[k] * (distance / apart[k] - 1)).numpy()
    return atoms


def assert_close(
    found: ArrayLike | torch.Tensor, wanted: ArrayLike | torch.Tensor, tolerance: float, what: str = ""
) -> None:
    """Equal to ``tolerance`` relative to the largest of the wanted numbers (or to 0.001, where all are smaller)."""
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale, err_msg=what)


def assert_continuous(function: Callable[[float], Mapping[str, NDArray]], tolerance: float) -> None:
    """Jumps of function(+d) - function(-d) vanish with d.

    A continuous function jumps ten times less over a tenth of the distance; one with a gap does not.
    """

    def jumps(d):
        above, below = function(d), function(-d)
        return {name: np.abs(above[name] - below[name]).max() for name in above}

    wide, narrow = jumps(1e-5), jumps(1e-6)
    for name in wide:
        assert narrow[name] <= 0.2 * wide[name] + tolerance, f"{name} is not continuous: {wide[name]}, {narrow[name]}"


def five_point(function: Callable[[float], float], step: float = 1e-3) -> float:
    """df/dx at 0; the error is of fourth order in the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)
