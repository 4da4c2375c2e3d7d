"""Functions on the FFT grid from pp.x of Quantum ESPRESSO, as its ``filplot`` files hold them."""

import re
from collections.abc import Sequence
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike

from ase_mlelec import units
from ase_mlelec.checks import check_count, printable
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.espresso.common import EspressoError
from ase_mlelec.io.text import fortran_floats, read_numbers, read_text


def read_filplot(path: str | PathLike) -> np.ndarray:
    """Read one ``filplot`` file of pp.x: a function on the FFT grid, to ten digits (its cube files have five).

    Returns
    -------
    array [G1, G2, G3] in the unit of the file
        Rydberg atomic units: e/bohr^3 for a density, Ry for a potential, states/(Ry bohr^3) for an LDOS.

    Raises
    ------
    EspressoError
        For missing, truncated and other files.

    References
    ----------
    Quantum ESPRESSO 6.7, PP/src and Modules/plot_io.f90, for the layout.
    """
    return _filplot(path)[2]


def plot_num_of(path: str | PathLike) -> int | None:
    """``plot_num`` of a filplot file, such as 3 for an LDOS and 11 for a potential; None for another file."""
    try:
        with open(path, "rb") as file:
            lines = file.read(2000).decode("ascii").splitlines()
        counts = [int(word) for word in lines[1].split()]
        row = lines[6 if int(lines[2].split()[0]) == 0 else 3].split()
        return int(row[3]) if len(counts) == 8 and len(row) == 4 else None
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        return None


def _filplot(path):
    """Title, what describes grid, cell and atoms, and the data [G1, G2, G3] of a filplot file."""
    text = read_text(path, "give the file that filplot names in pp.x's input", EspressoError)
    try:
        title, counts, lattice, rest = [*text.split("\n", 3), ""][:4]
        *stored, n1, n2, n3, n_atoms, n_species = map(int, counts.split())
        m1, m2, m3 = stored  # array dimensions of the FFT, which may be larger than the grid
        by_hand = int(lattice.split()[0]) == 0
    except (ValueError, IndexError) as error:
        raise EspressoError(f"{path}: truncated, or not a filplot file ({printable(error)}); run pp.x again") from None
    if min(n1, n2, n3, n_atoms, n_species) < 1 or m1 < n1 or m2 < n2 or m3 < n3:
        raise EspressoError(
            f"{path}: a grid of {n1} x {n2} x {n3} in arrays of {m1} x {m2} x {m3} with {n_atoms} "
            f"atoms of {n_species} species cannot be; the file is damaged or not a filplot file: run "
            "pp.x again"
        )
    check_count(path, "atoms and species", n_atoms + n_species, 8, EspressoError)
    check_count(path, "grid points", m1 * m2 * n3, 1, EspressoError)
    # rows of the cell where ibrav is 0, cutoffs, species, atoms; the cutoffs hold plot_num
    n_rows = 3 * by_hand + 1 + n_species + n_atoms
    *rows, values = rest.split("\n", n_rows)
    if len(rows) < n_rows or not values.rstrip(" ").endswith("\n"):
        raise _truncated(path, 0 if len(rows) < n_rows else len(values.split()), (n1, n2, n3), m1 * m2 * n3)
    try:
        fortran_floats(values)
    except ValueError as error:
        raise EspressoError(f"{path}: truncated, or not a filplot file ({printable(error)}); run pp.x again") from None
    data = read_numbers(path, "the function", values, EspressoError)
    if data.size != m1 * m2 * n3:
        raise _truncated(path, data.size, (n1, n2, n3), m1 * m2 * n3)
    return title, "\n".join([counts, lattice, *rows]), data.reshape(m1, m2, n3, order="F")[:n1, :n2]


def _truncated(path, got, grid, needed):
    how = "truncated after" if got <= needed else "not a filplot file, or damaged: got"
    return EspressoError(
        f"{path}: {how} {got} of the {needed} numbers on a grid of {grid[0]} x {grid[1]} x {grid[2]}; run pp.x again"
    )


@formerly_positional("energies")
def read_ldos(paths: Sequence[str | PathLike], *, energies: ArrayLike | None = None) -> np.ndarray:
    """Local density of states from the ``filplot`` files of pp.x with plot_num = 3, one file per energy.

    pp.x 6.7 broadens with the kind of smearing of the pw.x run, whatever that was; an LDOS is meant to be Gaussian.

    Parameters
    ----------
    paths : sequence of paths
        S of them, in the order of the energies.
    energies : array [S], eV
        As in pp.x's input (emin, emin + delta_e, ...); compared with those in the files if given.

    Returns
    -------
    array [G1, G2, G3, S], 1/(eV Å^3)
        Spin degeneracy included; converted from states/(Ry bohr^3).

    Raises
    ------
    EspressoError
        For missing or truncated files, and for files of different structures or other energies.
    """
    energies = None if energies is None else np.asarray(energies, dtype=float)
    if energies is not None and len(energies) != len(paths):
        raise EspressoError(f"paths: got {len(paths)} files for {len(energies)} energies, need one file per energy")
    ldos = None
    for index, path in enumerate(paths):
        title, structure, data = _filplot(path)
        if ldos is None:
            ldos, first = np.empty((*data.shape, len(paths))), structure
        if structure != first:
            raise EspressoError(
                f"{path}: grid, cell, atoms or quantity differ from those of {paths[0]}; give the files of one pp.x run"
            )
        _check_energy(path, title, None if energies is None else energies[index])
        ldos[..., index] = data
    if ldos is None:
        raise EspressoError("paths: got no file, need one per energy")
    ldos /= units.RYDBERG * units.BOHR**3
    return ldos


def _check_energy(path, title, energy):
    found = re.search(r"Energy =\s*(\S+)", title)
    if found is None:
        raise EspressoError(f"{path}: not an LDOS (no energy in its title); run pp.x with plot_num = 3")
    found = read_numbers(path, "the energy in its title", found.group(1), EspressoError)[0]
    if energy is not None and abs(found - energy) > 1e-3:  # the title has four decimals
        raise EspressoError(
            f"{path}: got the energy {found:g} eV, need {energy:g} eV; check emin, delta_e and the order of the files"
        )
