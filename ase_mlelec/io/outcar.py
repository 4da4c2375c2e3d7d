"""VASP's OUTCAR: steps with energies, forces and stress.

ASE's reader takes the atoms of a second run in the file from the first, constraints from another file, steps whose
electrons did not converge, and fails at steps of a machine-learned potential (ML_LMLFF), which are no labels.

References: VASP's wiki, "OUTCAR" and "ML_LMLFF". The stress is in kbar with the opposite of ASE's sign; PSTRESS is in
neither energy nor stress.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from ase_mlelec.checks import printable
from ase_mlelec.io.text import GZIP, element_of, float_or, fortran_floats
from ase_mlelec.io.vasp import AGAIN, KBAR, LEARNED, UNREADABLE, VaspError, VaspStep, opened
from ase_mlelec.io.vasp_settings import NAMES

HEAD = 4000  # bytes within which VASP writes its version and the machine
TOUCHING = re.compile(r"(?<=[0-9])-")
ITERATION = re.compile(r"Iteration +\S+\( *(\d{1,9})\)")
VALENCE = re.compile(r"\s+ZVAL\s+=((?: *\d+\.\d\d)+)\s*")  # of the kinds of atoms
NELECT = re.compile(r"\s+NELECT +=\s*(\d+\.\d+)\s+total number")
SETTING = re.compile(rf"\s+({'|'.join(NAMES)}) *=((?: *[-+]?[\d.]+)+)(?:[\s;]|$)")
ADDED_FIELD = re.compile(r"\s*added-field ion interaction +(\S+)")
# in steps of an elastic band, and of searches for transition states; VASP with VTST's tools prints settings of elastic
# bands in every run
CHAIN = re.compile(r"CHAIN-FORCE|CHAIN \+ TOTAL|NEB: (?:Tangent|projections)|CHAIN: Read ICHAIN +[1-9]")
NELM = re.compile(r"NELM += *(\d{1,9});")


@dataclass
class Outcar:
    """Contents of OUTCAR.

    Attributes
    ----------
    symbols : list of str
        Length N.
    steps : list of VaspStep
    left_out : dict of int
        Steps that are no labels, by reason.
    charge : float, e
        Of the cell; 0 where the file does not tell.
    parameters : dict of str
        Settings by their names in INCAR, those of ``vasp_settings.NAMES``.
    """

    symbols: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    charge: float = 0.0
    parameters: dict = field(default_factory=dict)


@dataclass
class _State:
    """What was found so far; the first five of the run, the others of the step."""

    elements: list = field(default_factory=list)
    of_potcar: list = field(default_factory=list)
    counts: list = field(default_factory=list)  # of the atoms of each kind
    ions: float | None = None  # charge of all ions, e
    most: float = np.inf  # NELM
    cell: Any = None
    positions: Any = None
    forces: Any = None
    stress: Any = None
    electronic: int = 0
    reached: bool = False
    stopped: bool = False

    def clear(self):
        self.positions = self.forces = self.stress = None
        self.electronic, self.reached, self.stopped = 0, False, False


def is_outcar(path: str | PathLike) -> bool:
    """Whether a file is an OUTCAR, from its first lines; it may be compressed by gzip."""
    try:
        with opened(path) as file:
            head = file.read(HEAD)
    except (VaspError, *UNREADABLE):
        return False
    return b"vasp." in head and b" executed on " in head and not head.startswith(GZIP)


def read_outcar(path: str | PathLike) -> Outcar:
    """Read OUTCAR, which may be compressed by gzip; a step that was not finished is left out.

    Raises
    ------
    VaspError
        For a missing or damaged file, for outputs of several runs in one file, and for a file without a step.
    """
    found, state = Outcar(), _State()
    with opened(path) as file:
        lines = (line.decode("utf-8", "replace") for line in file)
        try:
            for number, line in enumerate(lines, 1):
                if not found.symbols:
                    _read_header(path, found, state, line)
                elif "ions per type =" in line:
                    raise VaspError(
                        f"{path}: line {number}: a second run begins; cut the file at its lines ' executed on' and give the "
                        "parts"
                    )
                else:
                    _read_line(f"{path}: step {len(found.steps) + 1}", found, state, line, lines)
        except UNREADABLE as error:
            raise VaspError(f"{path}: damaged or cut off ({printable(error)}); {AGAIN}") from None
    if state.positions is not None or state.electronic:
        found.left_out["did not finish"] = 1
    if not found.steps:
        what = "; ".join(f"{count} steps {reason}" for reason, count in found.left_out.items())
        raise VaspError(f"{path}: no step with atoms, energy and forces in it{what and f' ({what})'}; {AGAIN}")
    return found


def _read_header(path, found, state, line):
    _read_setting(found, line)
    if "VRHFIN" in line and "=" in line:
        state.elements.append(line.split("=")[1].split(":")[0])
    elif line.startswith(" POTCAR:"):
        state.of_potcar.append((line.split() + ["", "", ""])[2])
    elif match := NELM.search(line):
        state.most = int(match[1])
    elif "ions per type =" in line:
        counts = line.split("=")[1].split()
        names, listed = state.elements, state.of_potcar
        if not names:  # where the potentials themselves are left out; the list comes once or twice
            names = listed if len(listed) == len(counts) else listed[: len(listed) // 2]
        try:
            if len(names) != len(counts):
                raise ValueError(f"{len(counts)} kinds of atoms, {len(names)} potentials")
            state.counts = [int(n) for n in counts]
            found.symbols = [element_of(name) for name, n in zip(names, state.counts) for _ in range(n)]
        except ValueError as error:
            raise VaspError(f"{path}: kinds of atoms not understood ({printable(error)}); {AGAIN}") from None


def _read_setting(found, line):
    """Take a setting, of which VASP's own line follows that of INCAR; and what tells of settings that are not printed."""
    if match := SETTING.match(line):
        found.parameters[match[1]] = match[2].strip()
    elif (match := ADDED_FIELD.match(line)) and float_or(match[1], 0.0):
        found.parameters.setdefault("EFIELD", match[1])
    elif CHAIN.search(line):
        found.parameters.setdefault("IMAGES", "1")


def _read_line(where, found, state, line, lines):
    if "direct lattice vectors" in line:
        state.cell = _rows(where, "the cell", lines, 3, 6)[:, :3]
    elif "POSITION" in line and "TOTAL-FORCE" in line:
        next(lines, "")
        rows = _rows(where, "positions and forces", lines, len(found.symbols), 6)
        state.positions, state.forces = rows[:, :3], rows[:, 3:]
    elif line.lstrip().startswith("in kB"):
        state.stress = _stress(line)
    elif match := NELM.search(line):  # it may follow the kinds of atoms
        state.most = int(match[1])
    elif match := VALENCE.fullmatch(line):
        valence = fortran_floats(match[1])
        state.ions = float(valence @ state.counts) if len(valence) == len(state.counts) else None
    elif match := NELECT.match(line):
        found.charge = 0.0 if state.ions is None else round(state.ions - float(match[1]), 4)
    elif "aborting loop" in line:
        state.reached = "EDIFF is reached" in line
        state.stopped = not state.reached
    elif match := ITERATION.search(line):
        state.electronic = int(match[1])
    elif "ML FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
        _leave_out(found, state, LEARNED)
    elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
        _end_step(where, found, state, lines)
    else:
        _read_setting(found, line)


def _end_step(where, found, state, lines):
    words = next((each for each in (next(lines, "") for _ in range(4)) if "TOTEN" in each), "").split("=")
    if len(words) < 2:
        raise VaspError(f"{where}: no free energy TOTEN; {AGAIN}")
    energy = float(_numbers(where, "the energy", words[1].replace("eV", ""), 1)[0])
    if state.cell is None or state.positions is None:  # NWRITE = 0
        _leave_out(found, state, "have no positions and forces (NWRITE)")
        return
    converged = not state.stopped and (state.reached or state.electronic < state.most)
    found.steps.append(VaspStep(state.cell, state.positions, energy, state.forces, state.stress, converged))
    state.clear()


def _leave_out(found, state, reason):
    found.left_out[reason] = found.left_out.get(reason, 0) + 1
    state.clear()


def _rows(where, what, lines: Iterator[str], count, width):
    return np.array([_numbers(where, what, next(lines, ""), width)[:width] for _ in range(count)]).reshape(count, width)


def _numbers(where, what, text, least):
    try:
        values = fortran_floats(TOUCHING.sub(" -", text))
    except ValueError as error:
        raise VaspError(
            f"{where}: {what} holds something else than numbers ({printable(error, 60)}); {AGAIN}"
        ) from None
    if len(values) < least or not np.isfinite(values).all():
        raise VaspError(f"{where}: {what} needs {least} finite numbers, got '{printable(text, 60)}'; {AGAIN}")
    return values


def _stress(line):
    """Stress [3, 3] in ASE's sign and unit; None where Fortran printed stars."""
    try:
        xx, yy, zz, xy, yz, zx = -KBAR * fortran_floats(TOUCHING.sub(" -", line.split("in kB", 1)[1]))
    except ValueError:
        return None
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
