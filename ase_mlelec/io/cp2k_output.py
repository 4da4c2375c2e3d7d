"""CP2K: the text output of a calculation of one structure, with energy, forces and stress.

Versions print their tables in different ways::

    ENERGY| Total FORCE_EVAL ( QS ) energy (a.u.):          until 7, then [a.u.]:, since 2025 [hartree]
    ATOMIC FORCES in [a.u.]                                 until 2024, then FORCES| Atomic forces [hartree/bohr]
    STRESS TENSOR [GPa]                                     until 7, then STRESS| Analytical stress tensor [GPa] or [bar]

The energy contains the entropy of the electrons, so that forces are its gradient. The stress is positive under pressure.
"""

import re
from os import PathLike

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import open_with_compression
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec import units
from ase_mlelec.io.text import element_of, read_numbers, read_text

HEAD = 20_000  # bytes within which CP2K writes its name
AGAIN = "let the run end, or copy the file again"
NUMBER = r"[-+]?\d*\.\d+(?:[DEde][-+]?\d+)?"
ROW = rf"((?:\s+(?:{NUMBER}|\*+|NaN)){{3}})"
ENERGY = re.compile(
    r"^ *ENERGY\| Total FORCE_EVAL \( *\w+ *\) energy[ \[(]+([^\])]+)[\])]:? +(\S+)[ \t]*$", re.MULTILINE
)
STRUCTURE = re.compile(
    r"^.*ATOMIC COORDINATES IN (ANGSTROM|BOHR)[^\n]*\n\s*Atom +Kind[^\n]*\n\s*", re.MULTILINE | re.IGNORECASE
)
SITE = re.compile(rf"[ \t]*\d+\s+\d+\s+([A-Za-z]\w*)\s+\d+{ROW}[^\n]*\n")
FORCES = re.compile(
    r"^ *(?:FORCES\| Atomic forces|ATOMIC FORCES in) \[([^\]]+)\][^\n]*\n(?:[^\n]*\n){1,3}?(?=.*\d\.\d)", re.MULTILINE
)
FORCE = re.compile(rf"[ \t]*(?:FORCES\|\s+\d+|\d+\s+\d+\s+[A-Za-z]\w*){ROW}[^\n]*\n")
STRESS = re.compile(
    rf"(?:STRESS\| Analytical stress tensor|STRESS TENSOR) \[(\w+)\]\s+(?:STRESS\|)?\s+x\s+y\s+z\s+(?:STRESS\|)?\s+x{ROW}\s+"
    rf"(?:STRESS\|)?\s+y{ROW}\s+(?:STRESS\|)?\s+z{ROW}",
    re.IGNORECASE,
)
VECTOR = re.compile(rf"^ *CELL\| Vector ([abc]) \[angstrom\]:?{ROW}\s+\|[abc]\|\s*=\s*({NUMBER})", re.MULTILINE)
PERIODIC = re.compile(r"^ *(?:CELL|POISSON)\| Periodicity +(\w+)", re.MULTILINE)
OF_STRESS = {"gpa": units.GPA, "bar": units.GPA / 1e4, "kbar": units.GPA / 10}


def is_output(path: str | PathLike) -> bool:
    """Whether a file, perhaps compressed, is a text output of CP2K."""
    try:
        with open_with_compression(str(path), "rb") as file:
            return bool(re.search(rb"^ CP2K\| version string:", file.read(HEAD), re.MULTILINE))
    except (OSError, EOFError, ValueError):
        return False


def read_output(path: str | PathLike) -> Atoms:
    """Read structure, energy and, where they are printed, forces and stress, in eV and Å, with a SinglePointCalculator.

    Raises
    ------
    ValueError
        For runs of several steps, of which PROJECT-pos-1.xyz has the structures, runs whose electrons did not converge or
        that did not end, charged cells, other units, and damaged files.
    """
    text = read_text(path, "give CP2K's output")
    energies = ENERGY.findall(text)
    if len(energies) > 1:
        raise ValueError(
            f"{path}: {len(energies)} energies of CP2K, but the structure of the first step alone; give PROJECT-pos-1.xyz, "
            "with PROJECT-frc-1.xyz and PROJECT-1.cell beside it"
        )
    if re.search(r"SCF run NOT converged|run will be aborted|\[ABORT\]", text):
        raise ValueError(f"{path}: the electrons did not converge, or CP2K gave up; calculate it again")
    if not energies:
        raise ValueError(f"{path}: no energy (ENERGY| Total FORCE_EVAL) in this output of CP2K; {AGAIN}")
    charge = re.search(r"^ *DFT\| Charge +([-+]?\d+)", text, re.MULTILINE)
    if charge and int(charge[1][:9]):
        raise ValueError(f"{path}: a charge of {charge[1]} e, on which its energy depends, and which no model knows")
    unit, number = energies[0]
    _check_unit(path, "energy", unit, ("a.u.", "hartree"))
    atoms = _structure(path, text)
    energy = float(read_numbers(path, "the energy", number)[0]) * units.HARTREE
    results = {"energy": energy, "free_energy": energy, "forces": _forces(path, text, len(atoms))}
    results["stress"] = _stress(path, text) if atoms.cell.rank == 3 else None
    atoms.calc = SinglePointCalculator(atoms, **{name: value for name, value in results.items() if value is not None})
    return atoms


def _check_unit(path, what, unit, known):
    if unit.strip().lower() not in known:
        raise ValueError(
            f"{path}: {what} in {unit}, which is read in {known[-1]} alone; leave CP2K's units as they are"
        )


def _structure(path, text):
    tables = list(STRUCTURE.finditer(text))
    if len(tables) != 1:
        raise ValueError(
            f"{path}: {len(tables)} tables of atomic coordinates, need one; raise PRINT_LEVEL to MEDIUM, or give "
            "PROJECT-pos-1.xyz"
        )
    rows = _rows(SITE, text, tables[0].end())
    vectors = {row[1]: row for row in VECTOR.finditer(text)}
    if not rows or len(vectors) != 3:
        raise ValueError(f"{path}: no atoms, or no cell (CELL| Vector a), in this output of CP2K; {AGAIN}")
    places = read_numbers(path, "the positions", " ".join(row[2] for row in rows)).reshape(-1, 3)
    cell = read_numbers(path, "the cell", " ".join(vectors[name][2] for name in "abc")).reshape(3, 3)
    lengths = read_numbers(path, "the cell", " ".join(vectors[name][3] for name in "abc"))  # of more digits
    cell *= (lengths / np.maximum(np.linalg.norm(cell, axis=1), 1e-6))[:, None]
    directions = PERIODIC.search(text)
    repeats = directions[1].upper() if directions else "XYZ"
    pbc = [axis in repeats and repeats != "NONE" for axis in "XYZ"]
    try:
        symbols = [element_of(row[1]) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    factor = units.BOHR if tables[0][1].upper() == "BOHR" else 1.0
    return Atoms(symbols, factor * places, cell=cell, pbc=pbc)


def _rows(pattern, text, start):
    """Matches of ``pattern`` that follow each other without a gap."""
    found = []
    while match := pattern.match(text, start):
        found.append(match)
        start = match.end()
    return found


def _forces(path, text, n_atoms):
    tables = list(FORCES.finditer(text))
    if not tables:
        return None
    _check_unit(path, "forces", tables[-1][1], ("a.u.", "hartree/bohr"))
    rows = _rows(FORCE, text, tables[-1].end())
    if len(rows) != n_atoms:
        raise ValueError(f"{path}: forces of {len(rows)} atoms, need those of {n_atoms}; {AGAIN}")
    values = read_numbers(path, "the forces", " ".join(row[1] for row in rows)).reshape(-1, 3)
    return values * units.HARTREE_PER_BOHR


def _stress(path, text):
    found = STRESS.search(text)
    if not found:
        return None
    if found[1].lower() not in OF_STRESS:
        raise ValueError(f"{path}: a stress in {found[1]}, which is read in GPa, kbar and bar; convert the output")
    values = read_numbers(path, "the stress", " ".join(found.groups()[1:])).reshape(3, 3)
    return full_3x3_to_voigt_6_stress(-OF_STRESS[found[1].lower()] * (values + values.T) / 2)
