"""Data sets of Wannier Hamiltonians: structures, H(R) relative to the vacuum level, and the axes of every function.

A data set is one HDF5 file, which is read frame by frame. The elements of H(R) are stored sparse and in single precision
(2e-7 eV at 4 eV).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import NamedTuple

import numpy as np
import scipy.sparse
from ase import Atoms

from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.data.hdf5 import (
    HAMILTONIANS,
    PACKED,
    STRUCTURE,
    StoredDataSet,
    created,
    is_of,
    read_atoms,
    read_indices,
    write_atoms,
)
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.hdf5 import AGAIN, json_of, read_array, text_attribute

SMALLEST = 1e-7  # eV; smaller elements are not stored
VACUUM = "vacuum level"


class Function(NamedTuple):
    """The atomic orbital from which a Wannier function was projected.

    Attributes
    ----------
    atom : int
    orbital : str
        Name as in Wannier90, in the axes z and x: s, pz, px, py, dz2, dxz, dyz, dx2-y2, dxy.
    z, x : tuple of 3 floats
        Perpendicular axes, Cartesian, as in the projections block of Wannier90.
    """

    atom: int
    orbital: str
    z: tuple = (0.0, 0.0, 1.0)
    x: tuple = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class HamiltonianFrame:
    """A structure and its Hamiltonian.

    Attributes
    ----------
    hamiltonian : WannierHamiltonian of the same cell, eV above the vacuum level
        Real Hamiltonian; function n of the home cell belongs to an atom at its position in ``atoms``.
    functions : list of Function
        Function of every row of H(R).
    energy : float, eV
    forces : array [N, 3], eV/Å, or None
    group : str
        Purpose of the frame, e.g. "train", "validation", "test".
    """

    atoms: Atoms
    hamiltonian: WannierHamiltonian
    functions: list
    energy: float | None = None
    forces: np.ndarray | None = None
    name: str = ""
    group: str = ""

    def __post_init__(self):
        here, size = f"frame '{self.name}'", self.hamiltonian.size
        if len(self.functions) != size:
            raise ValueError(
                f"{here}: got {len(self.functions)} functions for a Hamiltonian of {size}, need one per "
                "row; list them in its order"
            )
        owners = [function.atom for function in self.functions]
        if not (0 <= min(owners) and max(owners) < len(self.atoms)):
            raise ValueError(
                f"{here}: got functions of atom {max(owners)}, need 0 to {len(self.atoms) - 1}; correct their atoms"
            )
        if not self.hamiltonian.bloch.is_real:
            raise ValueError(
                f"{here}: got a complex H(R), need a real one; leave out spin-orbit coupling, and check the gauge"
            )
        if abs(self.hamiltonian.cell - self.atoms.cell.array).max() > 1e-4:
            raise ValueError(f"{here}: got a Hamiltonian of another cell than that of its atoms; read both of one run")


def referred_to(hamiltonian: WannierHamiltonian, level: float) -> WannierHamiltonian:
    """The Hamiltonian with energies relative to ``level`` (eV), such as the vacuum level; without ``<0|r|R>``."""
    home = np.flatnonzero(~hamiltonian.r_vectors.any(axis=1))[0]
    matrices = list(hamiltonian.bloch.tolist())
    matrices[home] = matrices[home] - level * scipy.sparse.eye_array(hamiltonian.size)
    kept = {name: getattr(hamiltonian, name) for name in ("centers", "spin_degeneracy")}
    return WannierHamiltonian(hamiltonian.cell, hamiltonian.r_vectors, matrices, **kept)


def at_their_atoms(hamiltonian: WannierHamiltonian, atoms: Atoms, functions: Sequence[Function]) -> WannierHamiltonian:
    """The Hamiltonian with every function in the cell where its center is nearest to its atom."""
    away = hamiltonian.centers - atoms.positions[[function.atom for function in functions]]
    cells = np.rint(away @ np.linalg.inv(hamiltonian.cell)).astype(int)
    return hamiltonian.moved(-cells) if cells.any() else hamiltonian


@formerly_positional("attributes")
def write_hamiltonians(path: str | PathLike, frames: Iterable[HamiltonianFrame], *, attributes: dict) -> None:
    """Write HamiltonianFrames, taken one by one, to an HDF5 file, compressed and atomically.

    Parameters
    ----------
    attributes : dict of JSON types
        electrons_per_atom: numbers of the electrons in the functions, by symbol; settings.
    """
    with created(path, HAMILTONIANS, {"energy_reference": VACUUM, **attributes}) as file:
        for k, frame in enumerate(frames):
            group = file.create_group(f"{k:05d}")
            group.attrs.update(name=frame.name, group=frame.group)
            write_atoms(group, frame.atoms)
            r_vectors = frame.hamiltonian.r_vectors
            half = len(r_vectors) // 2  # vectors before the middle are the negatives of vectors behind it
            elements = frame.hamiltonian.bloch.stacked.tocoo()
            which, row = np.divmod(elements.row.astype(np.int64), frame.hamiltonian.size)
            keep = (which >= half) & (abs(elements.data) > SMALLEST)
            group["r_vectors"] = r_vectors[half:].astype(np.int32)
            for key, values, kind in (
                ("which", which - half, np.int32),
                ("row", row, np.int32),
                ("column", elements.col, np.int32),
                ("value", elements.data, np.float32),
            ):
                group.create_dataset(key, data=values[keep].astype(kind), **PACKED)
            group["atom"] = np.array([function.atom for function in frame.functions], dtype=np.int32)
            group["axes"] = np.array([[function.z, function.x] for function in frame.functions], dtype=float)
            group.attrs["orbitals"] = json.dumps([function.orbital for function in frame.functions])
            for key in ("energy", "forces"):
                if getattr(frame, key) is not None:
                    group[key] = getattr(frame, key)


def is_hamiltonians(path: str | PathLike) -> bool:
    """True for an HDF5 file of Hamiltonians."""
    return is_of(path, HAMILTONIANS)


class Hamiltonians(StoredDataSet):
    """Frames in one or more files, read on demand; a selection of frames has the same class.

    Attributes
    ----------
    attributes : dict
    groups : list of str
        Group of every frame.

    Raises
    ------
    ValueError
        For damaged, foreign or newer files, at once or when a frame is read, and for energies that are not relative to
        the vacuum level.
    """

    kind = HAMILTONIANS
    hashed = (*STRUCTURE, ("r_vectors", (None, 3)), ("value", (None,)))

    def _read_common(self, file):
        if self.attributes.get("energy_reference") != VACUUM:
            raise ValueError(
                f"{self.path}: got energies referred to {self.attributes.get('energy_reference')}, need the "
                "vacuum level, which all structures share; use referred_to"
            )

    def _read(self, group):
        atoms = read_atoms(group)
        functions = _functions(group, len(atoms))
        hamiltonian = _from_half(atoms, functions, *_elements(group, len(functions)))
        shapes = {"energy": (), "forces": (len(atoms), 3)}
        found = {name: read_array(group, name, shape) for name, shape in shapes.items() if name in group}
        texts = {name: text_attribute(group, name) for name in ("name", "group")}
        return HamiltonianFrame(atoms, hamiltonian, functions, **found, **texts)

    def frames(self) -> Frames:
        """The structures with energies and forces as Frames, for a force field."""
        known = (each for each in self if each.energy is not None and each.forces is not None)
        found = [Frame(k.atoms, {"energy": float(k.energy), "forces": k.forces}, k.name, k.group) for k in known]
        return Frames(found, None, dict(self.attributes))


def _functions(group, n_atoms):
    owners = read_indices(group, "atom", None, n_atoms)
    orbitals = json_of(group, "orbitals", list)
    axes = read_array(group, "axes", (len(owners), 2, 3))
    if len(orbitals) != len(owners) or not all(isinstance(orbital, str) for orbital in orbitals):
        raise ValueError(
            f"{group.file.filename}: {group.name}: got {len(orbitals)} orbitals of {len(owners)} "
            f"functions, need a name of each; {AGAIN}"
        )
    return [
        Function(int(atom), orbital, tuple(z.tolist()), tuple(x.tolist()))
        for atom, orbital, (z, x) in zip(owners, orbitals, axes)
    ]


def _elements(group, size):
    """Stored elements: half of the lattice vectors R [R, 3], and place of R, row, column and value of each element [M]."""
    half = read_array(group, "r_vectors", (None, 3), int)
    value = read_array(group, "value", (None,))
    # few rows are empty; wrong counts in a damaged file would take much memory
    if not len(half) or half[0].any() or (2 * len(half) - 1) * size > 1000 * (len(value) + size) + 10**6:
        raise ValueError(
            f"{group.file.filename}: {group.name}: got {len(half)} lattice vectors and {len(value)} "
            f"elements for {size} functions, need R = 0 first and elements for most R; {AGAIN}"
        )
    counts = {"which": len(half), "row": size, "column": size}
    return half, *(read_indices(group, name, len(value), count) for name, count in counts.items()), value


def _from_half(atoms, functions, half, which, row, column, value):
    """WannierHamiltonian from the H(R) of half of the lattice vectors R."""
    count, size = len(half), len(functions)
    away = which > 0  # H(0) is stored completely
    opposite = count - 1 + which[away], column[away], row[away], value[away]
    which, row, column, value = map(np.concatenate, zip((which, row, column, value), opposite))
    stacked = scipy.sparse.csr_array((value, (which * size + row, column)), ((2 * count - 1) * size, size))
    matrices = [stacked[start : start + size] for start in range(0, stacked.shape[0], size)]
    centers = atoms.positions[[function.atom for function in functions]]
    return WannierHamiltonian(atoms.cell.array, np.concatenate([half, -half[1:]]), matrices, centers=centers)
