"""Checks of training data before training: finite and plausible labels, and atoms at different places."""

from os import PathLike

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import ArrayLike

from ase_mlelec.checks import CLOSEST
from ase_mlelec.data.data_set import Frames
from ase_mlelec.data.hamiltonians import Hamiltonians
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.edges import connect, find_pairs
from ase_mlelec.quantities import LABELS
from ase_mlelec.system import System

LARGEST_ELEMENT = 1e5  # eV, of a Hamiltonian
LARGEST_OF_GRIDS = {
    "ldos": (1e6, "1/(eV Å^3)"),
    "density": (1e6, "1/Å^3"),
    "fermi_level": (1e5, "eV"),
    "temperature": (1e8, "K"),
}


def _check_label(name, value, what, n_atoms):
    """Raise ValueError for a label, of a structure of ``n_atoms``, that is not finite or implausibly large."""
    row = LABELS[name]
    check_numbers(value, what, row.largest, row.unit + " per atom" * row.extensive, n_atoms if row.extensive else 1)


def check_frames(frames: Frames, path: str | PathLike) -> Frames:
    """Check the frames of the file ``path``, and return them unchanged.

    Raises
    ------
    ValueError
        For labels that are not finite or implausibly large, invalid structures, and atoms at the same place; the message
        names file and frame.
    """
    if not len(frames):
        raise ValueError(f"{path}: got no structures in it; give a data set with some")
    for k, frame in enumerate(frames):
        where = f"{path}: frame {k} ({frame.name or 'unnamed'})"
        check_structure(frame.atoms, where)
        for name, value in frame.labels.items():
            if name in LABELS:
                _check_label(name, value, f"{where}: label '{name}'", len(frame.atoms))
    return frames


def check_hamiltonians(frames: Hamiltonians) -> Hamiltonians:
    """Check Hamiltonians, including their elements, and return them unchanged; errors as in check_frames."""
    for k, frame in enumerate(frames):
        where = f"{frames.file_of(k)}: frame {k} ({frame.name or 'unnamed'})"
        check_structure(frame.atoms, where)
        check_numbers(frame.hamiltonian.bloch.stacked.data, f"{where}: H(R)", LARGEST_ELEMENT, "eV")
        for name in ("energy", "forces"):
            if getattr(frame, name) is not None:
                _check_label(name, getattr(frame, name), f"{where}: label '{name}'", len(frame.atoms))
    return frames


def check_snapshots(snapshots: Snapshots) -> Snapshots:
    """Check snapshots and return them unchanged; errors as in check_frames."""
    for k, snapshot in enumerate(snapshots):
        where = f"{snapshots.file_of(k)}: snapshot {k} ({snapshot.name or 'unnamed'})"
        check_structure(snapshot.atoms, where)
        for name in ("dos", "energy", "forces", "stress"):
            if getattr(snapshot, name) is not None:
                _check_label(name, getattr(snapshot, name), f"{where}: {name}", len(snapshot.atoms))
        for name, (largest, unit) in LARGEST_OF_GRIDS.items():
            if getattr(snapshot, name) is not None:
                check_numbers(getattr(snapshot, name), f"{where}: {name}", largest, unit)
    return snapshots


def check_numbers(values: ArrayLike, what: str, largest: float, unit: str, per: int = 1) -> None:
    """Raise ValueError, which names ``what``, for numbers that are not finite or above ``largest`` times ``per``."""
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds NaN or infinite numbers; correct it or remove the frame")
    size = float(np.abs(values).max(initial=0.0)) / per
    if size > largest:
        raise ValueError(
            f"{what} reaches {size:.3g} {unit}, more than any calculation gives ({largest:.0e}); correct "
            "its unit or remove the frame"
        )


def check_structure(atoms: Atoms, where: str) -> None:
    """Raise ValueError, which begins with ``where``, for a structure without volume, and for atoms at one place."""
    try:
        system = System.from_atoms(atoms)
        edges = connect(system, *find_pairs(system, 1.0), 1.0)
    except InputError as error:
        raise ValueError(f"{where}: {error}") from None
    distances = edges.vec.norm(dim=1)
    if len(distances) and float(distances.min()) < CLOSEST:
        k = int(distances.argmin())
        raise ValueError(
            f"{where}: atoms {int(edges.center[k])} and {int(edges.neighbor[k])} are "
            f"{float(distances[k]):.3g} Å apart; correct the structure or remove it"
        )
