"""pp.x: functions on a grid, in its own format filplot."""
import io
import re

import numpy as np

from ase_mlelec import units
from ase_mlelec.io.checks import check_count
from ase_mlelec.io.espresso.common import EspressoError, check_values, fortran_floats, read_text


def read_filplot(path):
    """Read one ``filplot`` file of pp.x: a function on the FFT grid, to ten digits (its cube files have five).

    Returns array [G1, G2, G3] in the unit of the file, Rydberg atomic units: e/bohr^3 for a density, Ry for a
    potential, states/(Ry bohr^3) for an LDOS.

    Raises EspressoError for missing, truncated and other files.

    Source: Quantum ESPRESSO 6.7, PP/src and Modules/plot_io.f90, for the layout.
    """
    return _filplot(path)[2]


def _filplot(path):
    """Title, what describes grid, cell and atoms, and the data [G1, G2, G3] of a filplot file."""
    lines = io.StringIO(read_text(path, "give the file that filplot names in pp.x's input"))
    try:
        title, counts, lattice = (lines.readline() for _ in range(3))
        *stored, n1, n2, n3, n_atoms, n_species = map(int, counts.split())
        m1, m2, m3 = stored     # array dimensions of the FFT, which may be larger than the grid
        by_hand = int(lattice.split()[0]) == 0
    except (ValueError, IndexError) as error:
        raise EspressoError(f"{path}: truncated, or not a filplot file ({error}); run pp.x again") from None
    check_count(path, "atoms and species", n_atoms + n_species, 8, EspressoError)
    if min(n1, n2, n3, n_atoms, n_species) < 1 or m1 < n1 or m2 < n2 or m3 < n3:
        raise EspressoError(f"{path}: a grid of {n1} x {n2} x {n3} in arrays of {m1} x {m2} x {m3} with {n_atoms} "
                            f"atoms of {n_species} species cannot be; the file is damaged or not a filplot file: run "
                            "pp.x again")
    # rows of the cell where ibrav is 0, cutoffs, species, atoms; the cutoffs hold plot_num
    rows = [lines.readline() for _ in range(3 * by_hand + 1 + n_species + n_atoms)]
    text = lines.read()
    try:
        values = fortran_floats(text)
    except ValueError as error:
        raise EspressoError(f"{path}: truncated, or not a filplot file ({error}); run pp.x again") from None
    if values.size > m1 * m2 * n3:
        raise EspressoError(f"{path}: got {values.size} numbers for a grid of {n1} x {n2} x {n3}, need {m1 * m2 * n3}; "
                            "the file is damaged or not a filplot file: run pp.x again")
    if values.size < m1 * m2 * n3 or not text.endswith("\n"):
        raise EspressoError(f"{path}: truncated after {values.size} of the {m1 * m2 * n3} numbers on a grid of "
                            f"{n1} x {n2} x {n3}; run pp.x again")
    check_values(path, "the function", values)
    return title, "".join([counts, lattice, *rows]), values.reshape(m1, m2, n3, order="F")[:n1, :n2]


def read_ldos(paths, energies=None):
    """Local density of states from the ``filplot`` files of pp.x with plot_num = 3, one file per energy.

    pp.x 6.7 broadens with the kind of smearing of the pw.x run, whatever that was; an LDOS is meant to be Gaussian.

    paths : sequence of paths, S of them, in the order of the energies
    energies : array [S], eV, as in pp.x's input (emin, emin + delta_e, ...); compared with those in the files if given

    Returns array [G1, G2, G3, S], 1/(eV Å^3), spin degeneracy included; converted from states/(Ry bohr^3).

    Raises EspressoError for missing or truncated files, and for files of different structures or other energies.
    """
    if energies is not None and len(energies) != len(paths):
        raise EspressoError(f"paths: got {len(paths)} files for {len(energies)} energies, need one file per energy")
    ldos = None
    for index, path in enumerate(paths):
        title, structure, data = _filplot(path)
        if ldos is None:
            ldos, first = np.empty((*data.shape, len(paths))), structure
        if structure != first:
            raise EspressoError(f"{path}: grid, cell, atoms or quantity differ from those of {paths[0]}; give the "
                                "files of one pp.x run")
        _check_energy(path, title, None if energies is None else energies[index])
        ldos[..., index] = data
    if ldos is None:
        raise EspressoError("paths: got no file, need one per energy")
    ldos /= units.RYDBERG * units.BOHR**3
    return ldos


def _check_energy(path, title, energy):
    found = re.findall(r"Energy =\s*([-+.\d]+)", title)
    try:
        found = float(found[-1])
    except (IndexError, ValueError):
        raise EspressoError(f"{path}: not an LDOS (no energy in its title); run pp.x with plot_num = 3") from None
    if energy is not None and abs(found - energy) > 1e-3:       # the title has four decimals
        raise EspressoError(f"{path}: got the energy {found:g} eV, need {energy:g} eV; check emin, delta_e and the "
                            "order of the files")
