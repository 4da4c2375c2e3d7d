"""MALA's snapshots: fingerprints and LDOS as npy files, and the info.json of the DFT calculation beside them.

On disk an LDOS is in 1/(eV Å^3), MALA's own unit, unless the data were made otherwise, which no file tells: compare its
electrons with what info.json claims (see electrons.check_electrons). The energy grid is not stored either and is
e_i = offset + i spacing. info.json holds eV, Å and K.

References: Materials Learning Algorithms 1.3; unit and grid checked by the number of electrons.
"""

import json
import math
import zipfile
from dataclasses import dataclass, field
from os import PathLike

import numpy as np
from ase import Atoms

from ase_mlelec.checks import check_finite, printable
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.npy import map_npy
from ase_mlelec.io.text import read_text

TERMS = {
    "band": "band_energy_dft_calculation",
    "one_electron": "one_electron_contribution",
    "hartree": "hartree_contribution",
    "xc": "xc_contribution",
    "ion_ion": "ewald_contribution",
    "entropy": "entropy_contribution_dft_calculation",
}  # name here -> in info.json
OPTIONAL = {
    "temperature": "temperature",
    "fermi_level": "fermi_energy_dft",
    "energy": "total_energy_dft_calculation",
    "n_electrons": "number_of_electrons_exact",
}
AGAIN = "write it with MALA's data converter"


@dataclass(frozen=True)
class MalaSnapshot:
    """One structure; attributes that the files lack are None.

    Attributes
    ----------
    atoms : ase.Atoms
    grid : tuple of int
        (G1, G2, G3).
    fingerprints : array [G1, G2, G3, F]
        Without the coordinates that MALA puts in front; dtype of the file.
    ldos : array [G1, G2, G3, S], 1/(eV Å^3)
        dtype of the file.
    energies : array [S], eV
    temperature : float, K
        Of the electrons.
    fermi_level : float, eV
    energy : float, eV
        The total free energy.
    terms : dict of float, eV
        Terms in the file, with the names of PwResult.
    n_electrons : float
    forces : array [N, 3], eV/Å
    """

    atoms: Atoms
    grid: tuple
    fingerprints: np.ndarray | None = None
    ldos: np.ndarray | None = None
    energies: np.ndarray | None = None
    temperature: float | None = None
    fermi_level: float | None = None
    energy: float | None = None
    terms: dict = field(default_factory=dict)
    n_electrons: float | None = None
    forces: np.ndarray | None = None


@formerly_positional("input_npy", "output_npy", "grid_offset", "grid_spacing")
def read_mala(
    info: str | PathLike,
    *,
    input_npy: str | PathLike | None = None,
    output_npy: str | PathLike | None = None,
    grid_offset: float | None = None,
    grid_spacing: float | None = None,
) -> MalaSnapshot:
    """Read a snapshot of MALA.

    Parameters
    ----------
    info : path of info.json
    input_npy : path of the fingerprints, or None
        The first three of their columns are the coordinates.
    output_npy : path of the LDOS, or None
    grid_offset, grid_spacing : float, eV
        ldos_gridoffset_ev and ldos_gridspacing_ev of MALA's parameters, needed with output_npy.

    Returns
    -------
    MalaSnapshot

    Raises
    ------
    ValueError
        For missing, truncated or damaged files, missing keys, values of another kind than their keys need, and arrays
        that do not fit the grid of info.
    """
    data = _json(info)
    atoms, grid = _structure(info, data)
    optional = {name: _number(info, data, key) for name, key in OPTIONAL.items()}
    for name, least in ("temperature", 0), ("n_electrons", 1e-6):
        if optional[name] is not None and optional[name] < least:
            raise ValueError(f"{info}: got {name} {optional[name]:g}, need more; {AGAIN}")
    terms = {name: _number(info, data, key) for name, key in TERMS.items() if data.get(key) is not None}
    forces = data.get("atomic_forces_dft")
    if forces is not None:
        forces = _array(info, "atomic_forces_dft", forces, (len(atoms), 3))
    fingerprints = None if input_npy is None else _fingerprints(input_npy, atoms.cell, grid)
    ldos, energies = (None, None) if output_npy is None else _ldos(output_npy, grid, grid_offset, grid_spacing)
    return MalaSnapshot(atoms, grid, fingerprints, ldos, energies, **optional, forces=forces, terms=terms)


def _ldos(path, grid, offset, spacing):
    """(LDOS [G1, G2, G3, S], energies [S], eV)"""
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in (offset, spacing)) or not spacing > 0:
        raise ValueError(
            f"{path}: got grid_offset {offset} and grid_spacing {spacing}, need the "
            "energies in eV; take ldos_gridoffset_ev and ldos_gridspacing_ev of MALA's parameters"
        )
    ldos = np.array(_npy(path, grid))
    return ldos, offset + spacing * np.arange(ldos.shape[-1])


def _json(path):
    text = read_text(path, "give MALA's info.json")
    try:
        data = json.loads(text)  # NaN, which it lets through, is found where it is used
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: missing, truncated or not JSON ({printable(error)}); give MALA's info.json"
        ) from None
    missing = [key for key in ("atoms", "grid_dimensions") if not isinstance(data, dict) or not data.get(key)]
    if missing:
        raise ValueError(f"{path}: no {' and no '.join(missing)}; {AGAIN}")
    return data


def _number(path, data, key):
    """float, finite, or None without the key."""
    value = data.get(key)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError(f"{path}: {key} is {str(value)[:40]!r}, need a number; {AGAIN}")
    return float(_array(path, key, value, ()))


def _array(path, key, values, shape):
    """Array of finite numbers of a shape."""
    try:
        if any(isinstance(value, (str, bool)) for value in np.asarray(values, dtype=object).ravel()):
            raise ValueError("text or a truth value")
        array = np.array(values, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {key} holds something else than numbers ({printable(error)}); {AGAIN}") from None
    if array.shape != shape:
        raise ValueError(f"{path}: {key} has shape {array.shape}, need {shape}; {AGAIN}")
    return check_finite(path, key, array)


def _structure(path, data):
    """Atoms and the shape of the grid."""
    try:
        given = {key: data["atoms"][key] for key in ("numbers", "positions", "cell", "pbc")}
        n_atoms, n_axes = len(given["numbers"]), len(data["grid_dimensions"])
        if n_axes != 3:
            raise ValueError(f"{n_axes} grid_dimensions")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: atoms or grid_dimensions incomplete ({type(error).__name__}: {printable(error)}); {AGAIN}"
        ) from None
    numbers = _whole(path, "atoms/numbers", given["numbers"], n_atoms, 118)
    grid = tuple(_whole(path, "grid_dimensions", data["grid_dimensions"], 3, 10**6).tolist())
    cell, positions = _array(path, "atoms/cell", given["cell"], (3, 3)), given["positions"]
    if not abs(np.linalg.det(cell)) > 1e-6:
        raise ValueError(f"{path}: atoms/cell has no volume; {AGAIN}")
    pbc = given["pbc"] if isinstance(given["pbc"], list) else [given["pbc"]] * 3
    if len(pbc) != 3 or not all(type(value) in (bool, int) and value in (0, 1) for value in pbc):
        raise ValueError(f"{path}: atoms/pbc is {str(given['pbc'])[:40]!r}, need three of true or false; {AGAIN}")
    return Atoms(numbers, _array(path, "atoms/positions", positions, (n_atoms, 3)), cell=cell, pbc=pbc), grid


def _whole(path, key, values, n, largest):
    """Array [n] of whole numbers from 1 to ``largest``."""
    array = _array(path, key, values, (n,))
    if n < 1 or not ((array >= 1) & (array <= largest) & (array == np.rint(array))).all():
        raise ValueError(f"{path}: {key} is {str(values)[:40]}, need whole numbers from 1 to {largest}; {AGAIN}")
    return array.astype(int)


def _npy(path, grid):
    """Map a file as an array [G1, G2, G3, columns], and refuse a truncated file before anything is read."""
    if zipfile.is_zipfile(path):
        raise ValueError(f"{path}: got an npz archive, need an npy file of real numbers; convert the data again")
    try:
        array = map_npy(path, kinds="fiuc")
    except ValueError as error:
        cause = str(error).removeprefix(f"{path}: ").rpartition("; ")[0] or "no such file"
        raise ValueError(f"{path}: missing, truncated or not npy ({cause}); convert the data again") from None
    if array.dtype.kind != "f":
        raise ValueError(f"{path}: got {array.dtype}, need an npy file of real numbers; convert the data again")
    if array.ndim != 4 or array.shape[:3] != grid:
        raise ValueError(
            f"{path}: got shape {array.shape}, need the grid {grid} of info.json and one more axis; "
            "give the info.json of this snapshot"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: got NaN or infinite values, need finite ones; convert the data again")
    return array


def _fingerprints(path, cell, grid):
    """Columns after the coordinates, whose lengths must fit the grid points (MALA may turn the cell)."""
    array = _npy(path, grid)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij"), axis=-1) @ cell.array
    with np.errstate(over="ignore"):  # of numbers that are no coordinates
        lengths = np.linalg.norm(array[..., :3].astype(float), axis=-1)
    if array.shape[-1] < 4 or not np.allclose(lengths, np.linalg.norm(points, axis=-1), rtol=0, atol=1e-3):
        raise ValueError(
            f"{path}: the first three columns are not the coordinates of the grid of info.json in Å; "
            "convert with descriptors_contain_xyz = True, and give the info.json of this snapshot"
        )
    return np.array(array[..., 3:])
