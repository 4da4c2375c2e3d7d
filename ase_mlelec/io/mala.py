"""MALA's snapshots: fingerprints and LDOS as npy files, and the info.json of the DFT calculation beside them.

On disk an LDOS is in 1/(eV Å^3), MALA's own unit, unless the data were made by hand; the energy grid is not stored
and is e_i = offset + i spacing.  info.json holds eV, Å and K.

Source: Materials Learning Algorithms 1.3; unit and grid checked by the number of electrons.
"""
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms

TERMS = {"band": "band_energy_dft_calculation", "one_electron": "one_electron_contribution",
         "hartree": "hartree_contribution", "xc": "xc_contribution", "ion_ion": "ewald_contribution",
         "entropy": "entropy_contribution_dft_calculation"}     # name here -> in info.json


@dataclass(frozen=True)
class MalaSnapshot:
    """One structure; what the files do not have is None.

    atoms : ase.Atoms
    grid : tuple of int, (G1, G2, G3)
    fingerprints : array [G1, G2, G3, F], without the coordinates that MALA puts in front; dtype of the file
    ldos : array [G1, G2, G3, S], 1/(eV Å^3); dtype of the file
    energies : array [S], eV
    temperature : float, K, of the electrons
    fermi_level : float, eV
    energy : float, eV; the total free energy
    terms : dict of float, eV, named as those of PwResult; those the file has
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


def read_mala(info, input_npy=None, output_npy=None, grid_offset=None, grid_spacing=None):
    """Read a snapshot of MALA.

    info : path of info.json
    input_npy : path of the fingerprints, or None; the first three of their columns are the coordinates
    output_npy : path of the LDOS, or None
    grid_offset, grid_spacing : float, eV; ldos_gridoffset_ev and ldos_gridspacing_ev of MALA's parameters, needed with
        output_npy

    Returns MalaSnapshot.

    Raises ValueError for missing or truncated files, missing keys, and arrays that do not fit the grid of info.
    """
    data = _json(info)
    atoms, grid = _structure(info, data)
    optional = {name: data.get(key) for name, key in (
        ("temperature", "temperature"), ("fermi_level", "fermi_energy_dft"),
        ("energy", "total_energy_dft_calculation"), ("n_electrons", "number_of_electrons_exact"))}
    forces = data.get("atomic_forces_dft")
    fingerprints = None if input_npy is None else _fingerprints(input_npy, atoms.cell, grid)
    ldos = energies = None
    if output_npy is not None:
        if grid_offset is None or grid_spacing is None or not grid_spacing > 0:
            raise ValueError(f"{output_npy}: got grid_offset {grid_offset} and grid_spacing {grid_spacing}, need the "
                             "energies in eV; take ldos_gridoffset_ev and ldos_gridspacing_ev of MALA's parameters")
        ldos = np.array(_npy(output_npy, grid))
        energies = grid_offset + grid_spacing * np.arange(ldos.shape[-1])
    return MalaSnapshot(atoms, grid, fingerprints, ldos, energies, **optional,
                        terms={name: data[key] for name, key in TERMS.items() if data.get(key) is not None},
                        forces=None if forces is None else np.array(forces, dtype=float))


def _json(path):
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: missing, truncated or not JSON ({error}); give MALA's info.json") from None
    missing = [key for key in ("atoms", "grid_dimensions") if not isinstance(data, dict) or not data.get(key)]
    if missing:
        raise ValueError(f"{path}: no {' and no '.join(missing)}; write it with MALA's data converter")
    return data


def _structure(path, data):
    """Atoms and the shape of the grid."""
    try:
        atoms = Atoms(**{key: data["atoms"][key] for key in ("numbers", "positions", "cell", "pbc")})
        n1, n2, n3 = map(int, data["grid_dimensions"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: atoms or grid_dimensions incomplete ({type(error).__name__}: {error}); "
                         "write it with MALA's data converter") from None
    return atoms, (n1, n2, n3)


def _npy(path, grid):
    """Array [G1, G2, G3, columns], mapped from the file, which so is found to be whole before any of it is read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: missing, truncated or not npy ({error}); convert the data again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise ValueError(f"{path}: got {getattr(array, 'dtype', 'an npz archive')}, need an npy file of real numbers")
    if array.ndim != 4 or array.shape[:3] != grid:
        raise ValueError(f"{path}: got shape {array.shape}, need the grid {grid} of info.json and one more axis; "
                         "give the info.json of this snapshot")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: got NaN or infinite values, need finite ones; convert the data again")
    return array


def _fingerprints(path, cell, grid):
    """Columns after the coordinates, which must be those of the grid points (their lengths: MALA may turn the cell)."""
    array = _npy(path, grid)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij"), axis=-1) @ cell.array
    lengths = np.linalg.norm(array[..., :3], axis=-1)
    if array.shape[-1] < 4 or not np.allclose(lengths, np.linalg.norm(points, axis=-1), rtol=0, atol=1e-3):
        raise ValueError(f"{path}: the first three columns are not the coordinates of the grid of info.json in Å; "
                         "convert with descriptors_contain_xyz = True, and give the info.json of this snapshot")
    return np.array(array[..., 3:])
