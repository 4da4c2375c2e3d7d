"""CP2K: trajectories of positions, forces (``PROJECT-pos-1.xyz``, ``-frc-1.xyz``) and Wannier centers
(``PROJECT-HOMO_centers_s1-1_0.xyz``), cells of a run (``PROJECT-1.cell``, or the input) and stress (``PROJECT-1.stress``).

A frame of centers has the atoms and the centers, labeled X, as ``&WANNIER_CENTERS`` with ``IONS+CENTERS`` prints them; the
comment names the step, ``i = 10, time = 5.000, E = -68.8``, with the energy in hartree; forces are in hartree/bohr. In
CP2K's FORMAT EXTXYZ (``PROJECT-pos-1.extxyz``) the units are the same, and the comment has the cell.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.checks import printable
from ase_mlelec.io.text import element_of, read_numbers, read_text
from ase_mlelec.io.xyz import first_lines

CENTER = "X"
LARGEST = 1e5  # Å
AGAIN = "copy the file again, or let CP2K write it again"
GIVE = "give the centers that CP2K writes with &WANNIER_CENTERS and IONS+CENTERS"
STEP = re.compile(r"(?:^|\s)i\s*=\s*(\d{1,18})")
TRAJECTORY = re.compile(r"\s*i\s*=\s*(?P<step>\d{1,18}),(?:\s*time\s*=[^,]*,)?\s*E\s*=\s*(?P<energy>\S+)")
# FORMAT EXTXYZ; the digits tell it from files of other programs, whose energies are in eV
EXTENDED = re.compile(
    r"""\s*Lattice="(?P<cell>[^"]*)" Properties=\S+(?: pbc="(?P<pbc>[TF ]*)")? Step=(?P<step>\d{1,18}) """
    r"Time=\d*\.\d{3} Energy=(?P<energy>-?\d*\.\d{10})\s*"
)
NAME = re.compile(r"(.+)-(pos|frc|vel)-(\d+)\.((?:ext)?xyz)(\.gz)?")
SECTION_UNITS = {"TRAJECTORY": "ANGSTROM", "FORCES": "HARTREE*BOHR^-1"}  # of CP2K's files without UNIT
MOVING_CELL = re.compile(r"^\s*(?:ENSEMBLE\s+NP|RUN_TYPE\s+CELL_OPT)", re.MULTILINE | re.IGNORECASE)
UNITS = {"": 1.0, "[angstrom]": 1.0, "[bohr]": units.BOHR}
LATTICE = re.compile(r"""Lattice\s*=\s*"([^"]*)\"""", re.IGNORECASE)
COLUMNS = 12  # of a file of cells: step, time, nine components, volume
BAR = 1e-4 * units.GPA


class CentersFrame(NamedTuple):
    """Atoms and Wannier centers of one step.

    Attributes
    ----------
    step : int or None
        Number of the step in the comment.
    symbols : list of str
        Length N.
    positions : array [N, 3], Å
    centers : array [W, 3], Å
        In any cell.
    cell : array [3, 3], Å, or None
        Where the comment has a ``Lattice``.
    """

    step: int | None
    symbols: list
    positions: NDArray
    centers: NDArray
    cell: NDArray | None


class TrajectoryFrame(NamedTuple):
    """One step of a trajectory.

    Attributes
    ----------
    step : int
    energy : float, eV
    symbols : list of str
        Length N.
    rows : array [N, 3]
        What the file has: positions in Å, or forces in eV/Å.
    cell : array [3, 3], Å, or None
        Where the comment has it.
    pbc : list of 3 bools
        Directions in which the cell repeats.
    """

    step: int
    energy: float
    symbols: list
    rows: NDArray
    cell: NDArray | None = None
    pbc: Sequence[bool] = (True, True, True)


def refuse_trajectory(path: str | PathLike, comment: str) -> None:
    """Raise ValueError for a file of positions or forces of a run with a name of its own, by its first ``comment``.

    Its energies are in hartree; forces, in hartree/bohr, look like positions; and there may be no cell.
    """
    if _comment(comment):
        raise ValueError(
            f"{path}: a trajectory of CP2K, with energies in hartree, and forces and perhaps the cell in other files; give "
            "it CP2K's own name, PROJECT-pos-1.xyz, with PROJECT-frc-1.xyz and PROJECT-1.cell or the input beside it"
        )


def _comment(line):
    return TRAJECTORY.match(line) or EXTENDED.fullmatch(line)


def is_trajectory(path: str | PathLike) -> bool:
    """Whether a file has the name and the first comment of a trajectory of positions, forces or velocities."""
    path = Path(path)
    return bool(NAME.fullmatch(path.name) and path.is_file() and _comment(first_lines(path)[1]))


def read_trajectory(path: str | PathLike) -> list[TrajectoryFrame]:
    """Read all frames of positions or forces, compressed or not; a last frame that is cut off is left out.

    Raises
    ------
    ValueError
        For a missing or damaged file, and for velocities.
    """
    named = NAME.fullmatch(Path(path).name)
    if named and named[2] == "vel":
        raise ValueError(f"{path}: velocities, which are no labels; give {named[1]}-pos-{named[3]}.{named[4]}")
    factor = units.HARTREE_PER_BOHR if named and named[2] == "frc" else 1.0
    found = []
    for at, comment, rows in _blocks(path, whole=False):
        where, match = f"the frame at line {at + 1}", _comment(comment)
        if not match:
            raise ValueError(
                f"{path}, line {at + 2}: got '{printable(comment, 60)}', need i = STEP, ..., E = ENERGY; {AGAIN}"
            )
        words = _words(path, at, rows)
        (energy,) = read_numbers(path, f"the energy of {where}", match["energy"])[:1]
        values = read_numbers(path, where, " ".join(" ".join(each[1:4]) for each in words)).reshape(-1, 3)
        try:
            symbols = [element_of(each[0]) for each in words]
        except ValueError as error:
            raise ValueError(f"{path}: {where}: {error}") from None
        of_cell = _cell_of(path, where, match.groupdict())
        found.append(TrajectoryFrame(int(match["step"]), energy * units.HARTREE, symbols, values * factor, *of_cell))
    return found


def _cell_of(path, where, words):
    """(cell, directions in which it repeats) of a comment, or nothing."""
    if "cell" not in words:
        return ()
    cell = _cell(path, where, read_numbers(path, f"Lattice of {where}", words["cell"]))
    pbc = (words["pbc"] or "T T T").split()
    if len(pbc) != 3:
        raise ValueError(f'{path}: {where} has pbc="{words["pbc"]}", need three of T and F; {AGAIN}')
    return cell, [word == "T" for word in pbc]


def read_input_cell(path: str | PathLike) -> tuple[NDArray, list[bool]]:
    """Cell [3, 3] in Å and directions in which it repeats, from the section &CELL of an input.

    Raises
    ------
    ValueError
        For a missing file, a section with variables or other files, and for runs in which the cell changes.
    """
    text = _input(path)
    lines = [words for section, words in _lines(text) if section[-2:] in (["SUBSYS", "CELL"], ["CELL"])]
    if not lines or MOVING_CELL.search(text):
        cause = "its cell changes" if lines else "it has no section &CELL in &SUBSYS"
        raise ValueError(f"{path}: {cause}; put CP2K's file of cells, PROJECT-1.cell, beside the trajectory")
    settings = {words[0]: words[1:] for words in lines}
    others = any(settings[words[0]] != words[1:] for words in lines)  # of several force evaluations
    multiple = settings.get("MULTIPLE_UNIT_CELL", ["1"]) not in (["1"], ["1"] * 3)
    if others or multiple or "CELL_FILE_NAME" in settings:
        raise ValueError(f"{path}: &CELL names other cells or files; put PROJECT-1.cell beside the trajectory")
    if "ABC" in settings:
        angles = _vector(path, settings.get("ALPHA_BETA_GAMMA", ["90"] * 3))
        cell = cellpar_to_cell([*_vector(path, settings["ABC"]), *angles])
    else:
        cell = np.array([_vector(path, settings.get(name, [])) for name in "ABC"])
    periodic = "".join(settings.get("PERIODIC", ["XYZ"]))
    return _cell(path, "&CELL", cell.ravel()), [axis in periodic and periodic != "NONE" for axis in "XYZ"]


def check_input_units(path: str | PathLike, project: str) -> None:
    """Raise ValueError where the input of a project has CP2K write positions or forces in units of its choice."""
    for section, words in _lines_of(path, project):
        name, unit = section[-1] if section else "", words[-1].strip("[]")
        if words[0] == "UNIT" and unit != SECTION_UNITS.get(name, unit):
            raise ValueError(
                f"{path}: &{name} has UNIT {unit}, and its file is read in {SECTION_UNITS[name]}, CP2K's default; leave "
                "UNIT out and run CP2K again, or convert the file and take UNIT out of the input"
            )


def charge_of_input(path: str | PathLike, project: str) -> int:
    """Charge of the cell, e, that the input of a project sets; 0 where it sets none."""
    found = [
        words[1:] for section, words in _lines_of(path, project) if words[0] == "CHARGE" and section[-1:] == ["DFT"]
    ]
    return next((int(each[0]) for each in found if each and re.fullmatch(r"[-+]?\d{1,9}", each[0])), 0)


def _lines_of(path, project):
    """Lines of the input of a project, see ``_lines``; none of the input of another one."""
    lines = [(section, words) for section, words in _lines(_input(path))]
    names = [words[1:] for _, words in lines if words[0] in ("PROJECT", "PROJECT_NAME")]
    return [] if any(name != [project.upper()] for name in names) else lines


def _input(path):
    return re.sub(r"[#!].*", "", read_text(path, "give CP2K's input")).upper()


def _lines(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Iterate over (names of the sections around it, the outermost first, words) of the lines of an input."""
    section: list[str] = []
    for line in text.split("\n"):
        words = line.split()
        if words and words[0].startswith("&END"):
            section = section[:-1]
        elif words and words[0].startswith("&"):
            section = [*section, words[0][1:]]
        elif words:
            yield section, words


def _vector(path, words):
    unit = words[0].lower() if words and words[0].startswith("[") else ""
    if unit not in UNITS or len(words) - bool(unit) != 3:
        raise ValueError(
            f"{path}: &CELL has '{printable(' '.join(words), 60)}', need three numbers in Å or [bohr]; correct it"
        )
    return read_numbers(path, "&CELL", " ".join(words[bool(unit) :])) * UNITS[unit]


def is_centers(path: str | PathLike) -> bool:
    """Whether a file is an xyz file whose first frame has atoms and centers labeled X, and no columns of extxyz."""
    path = Path(path)
    if not path.is_file() or not path.name.removesuffix(".gz").endswith(".xyz"):
        return False
    try:
        lines = read_text(path, GIVE).split("\n", 100_000)
    except ValueError:
        return False
    if not lines[0].strip().isdigit() or len(lines) < 3 or "Properties=" in lines[1]:
        return False
    labels = [line.split()[0] for line in lines[2 : 2 + int(lines[0].strip()[:9])] if line.split()]
    return CENTER in labels and {*labels} != {CENTER}


def read_centers_trajectory(path: str | PathLike) -> list[CentersFrame]:
    """Read all frames of a trajectory of Wannier centers, compressed or not.

    Raises
    ------
    ValueError
        For a missing, truncated or damaged file, and for frames without atoms or centers.
    """
    return [_frame(path, *block) for block in _blocks(path)]


def _blocks(path, *, whole=True):
    """Iterate over (line before its first, comment, rows) of all frames; a cut off last one is refused if ``whole``."""
    lines, at = read_text(path, GIVE).split("\n"), 0
    while any(line.strip() for line in lines[at:]) if at else True:
        where = f"{path}, line {at + 1}"
        if not lines[at].strip().isdigit():
            raise ValueError(f"{where}: got '{printable(lines[at], 40)}', need the number of rows of a frame; {AGAIN}")
        end = at + 2 + int(lines[at].strip()[:9])
        if end >= len(lines):  # the last row must end as well, or digits could be missing
            if whole or not at:
                raise ValueError(f"{where}: claims {lines[at].strip()} rows, the file ends before; {AGAIN}")
            warnings.warn(f"{path}: the last frame is cut off and left out", stacklevel=6)
            return
        yield at, lines[at + 1], lines[at + 2 : end]
        at = end


def _words(path, at, rows):
    """Words of all rows, which begin behind line ``at`` + 2, four or more in each."""
    words = [row.split() for row in rows]
    short = next((k for k, each in enumerate(words) if len(each) < 4), None)
    if short is not None:
        raise ValueError(
            f"{path}, line {at + 3 + short}: got '{printable(rows[short], 40)}', need a label and x, y, z; {AGAIN}"
        )
    return words


def _frame(path, at, comment, rows):
    """CentersFrame from its comment and rows, which begin behind line ``at`` + 2."""
    words = _words(path, at, rows)
    is_center = np.array([each[0] == CENTER for each in words], dtype=bool)
    where = f"the frame at line {at + 1}"
    if is_center.all() or not is_center.any():
        missing = "atoms" if is_center.any() else "centers (X)"
        raise ValueError(f"{path}: {where} has no {missing}; {GIVE}")
    places = read_numbers(path, where, " ".join(" ".join(each[1:4]) for each in words))
    if len(places) != 3 * len(words) or np.abs(places).max() > LARGEST:
        raise ValueError(f"{path}: {where} has coordinates that cannot be; {AGAIN}")
    places = places.reshape(-1, 3)
    try:
        symbols = [element_of(each[0]) for each, center in zip(words, is_center) if not center]
    except ValueError as error:
        raise ValueError(f"{path}: {where}: {error}") from None
    step, lattice = STEP.search(comment), LATTICE.search(comment)
    cell = None if lattice is None else _cell(path, where, read_numbers(path, f"Lattice of {where}", lattice[1]))
    return CentersFrame(step and int(step[1]), symbols, places[~is_center], places[is_center], cell)


def _cell(path, where, numbers):
    """Cell [3, 3] of nine numbers."""
    if numbers.size != 9 or np.abs(numbers).max() > LARGEST or not abs(np.linalg.det(numbers.reshape(3, 3))) > 1e-3:
        raise ValueError(f"{path}: {where} has no cell with a volume; need nine components in Å: {AGAIN}")
    return numbers.reshape(3, 3)


def read_cells(path: str | PathLike) -> dict[int, NDArray]:
    """Cells [3, 3], Å, of a run by step, from the file ``PROJECT-1.cell``.

    Raises
    ------
    ValueError
        For a missing or damaged file.
    """
    rows = _table(path, COLUMNS, "a step, a time, nine components and a volume")
    if not rows:
        raise ValueError(f"{path}: no cell in it; {AGAIN}")
    return {int(row[0]): _cell(path, f"line {number}", row[2:11]) for number, row in rows}


def read_stress(path: str | PathLike) -> tuple[dict[int, list[NDArray]], bool]:
    """Stress of a run from the file ``PROJECT-1.stress``, and whether time passes in it, as in molecular dynamics.

    CP2K prints the pressure tensor in bar, to which it adds the motion of the atoms (``virial_evaluate``).

    Returns
    -------
    (dict of list of array [3, 3], bool)
        eV/Å^3 in ASE's sign, by step. A run that goes on from a restart repeats steps.

    Raises
    ------
    ValueError
        For a missing or damaged file.
    """
    found: dict[int, list[NDArray]] = {}
    rows = _table(path, COLUMNS - 1, "a step, a time and nine components")
    for _, row in rows:
        found.setdefault(int(row[0]), []).append(-BAR * row[2:].reshape(3, 3))
    return found, any(row[1] != 0 for _, row in rows)


def _table(path, columns, needed):
    """Rows (line, numbers) of a file with a line for each step."""
    text, found = read_text(path, "give CP2K's file of a run"), []
    if not text.endswith("\n"):
        raise ValueError(f"{path}: its last line does not end; {AGAIN}")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            row = read_numbers(path, f"line {number}", line)
            if len(row) != columns or row[0] != round(row[0]):
                raise ValueError(f"{path}, line {number}: need {needed}; {AGAIN}")
            found.append((number, row))
    return found
