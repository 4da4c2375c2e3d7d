"""Reader of the text output of pw.x, which has the one-electron term in addition, and fewer digits than the XML."""

import re
import warnings
from os import PathLike

import numpy as np

from ase_mlelec import units
from ase_mlelec.checks import printable
from ase_mlelec.io.espresso.common import (
    ESM,
    LARGEST,
    LOOSE,
    NO_ENERGY,
    NOT_CONVERGED,
    EspressoError,
    check_values,
    damaged,
    describe_no_number,
    element,
)
from ase_mlelec.io.text import fortran_floats

# "!!" marks the energy of a hybrid functional with a converged exchange operator, "!" the energy of each step before
MARK = re.compile(r"^(!{1,2})[ \t]+total energy[ \t]+=[ \t]*(\S*)[ \t]*(\S*)", re.MULTILINE)
DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[EeDd][-+]?\d+)?")  # of numbers that may touch: -100.1-200.2
LATTICE_ROW = re.compile(r"^[ \t]*a\(([123])\) = \((.*)\)", re.MULTILINE)
SITE_ROW = re.compile(r"^[ \t]*([\d*]+)[ \t]+(\S+)[ \t]+tau\([ \t]*([\d*]+)[ \t]*\)[ \t]*=[ \t]*\((.*)\)", re.MULTILINE)
FORCE_ROW = re.compile(r"^[ \t]*atom[ \t]+([\d*]+)[ \t]+type[ \t]+[\d*]+[ \t]+force =(.*)$", re.MULTILINE)
BLOCK = re.compile(
    r"^[ \t]*(CELL_PARAMETERS|ATOMIC_POSITIONS)[ \t]*[({]?[ \t]*(\w*)[ \t]*=?([^)}\n]*)[)}]?[ \t]*\n", re.MULTILINE
)
LONGEST = 500  # length of a line with numbers
TERMS = {
    "one_electron": "one-electron contribution",
    "hartree": "hartree contribution",
    "xc": "xc contribution",
    "ion_ion": "ewald contribution",
    "entropy": r"smearing contrib\. \(-TS\)",
}


def parse_pw_text(path: str | PathLike, text: str) -> dict:
    """dict of the fields of PwResult."""
    output = _Output(path, _one_run(path, text))
    mark = _last_mark(output)
    n_atoms = output.count(r"number of atoms/cell\s+=", "number of atoms/cell")
    start, cell, symbols, positions = _structure(output, mark.start(), n_atoms)
    _check_convergence(output, start)
    energy = output.number(mark.group(2), mark.start(2), "the total energy") * units.RYDBERG
    terms = {name: output.last(rf"{label}\s+=", mark.end()) for name, label in TERMS.items()}
    smearing = re.search(r"number of k points=\s*\S+\s+(\S.*?)\s*smearing, width \(Ry\)=", output.text)
    return dict(
        symbols=symbols,
        cell=cell,
        positions=positions,
        energy=energy,
        terms={name: value * units.RYDBERG for name, value in terms.items() if value is not None},
        forces=_forces(output, mark.end(), n_atoms),
        stress=_stress(output, mark.end()),
        fermi_level=output.last(r"the Fermi energy is", start),
        smearing=smearing.group(1) if smearing else None,
        smearing_width=output.last(r"smearing, width \(Ry\)=") * units.RYDBERG if smearing else 0.0,
        n_electrons=output.last(r"number of electrons\s+="),
    )


def whole_steps(text: str) -> str:
    """Text of an interrupted relaxation or MD run up to the end of its last whole step; others unchanged."""
    marks = list(MARK.finditer(text))
    if "JOB DONE." in text or "Forces acting on atoms" not in text:
        return text
    for mark in reversed(marks):
        following = BLOCK.search(text, mark.end())  # the structure of the step after
        if following and "Forces acting on atoms" in text[mark.end() : following.start()]:
            return f"{text[: following.start()]}\n   JOB DONE.\n"
    return text


def is_converged(text: str, k: int) -> bool:
    """Whether the self-consistent calculation of the step ``k`` of a relaxation or MD run converged."""
    mark = list(MARK.finditer(text))[k]
    before = [block.start() for block in BLOCK.finditer(text, 0, mark.start())]
    following = BLOCK.search(text, mark.end())
    step = text[max(before, default=0) : following.start() if following else len(text)]
    accuracy = re.compile(r"estimated scf accuracy\s+<\s*(\S+)").search(text, mark.end())
    threshold = re.search(r"scf convergence threshold\s+=\s*(\S+)", text)
    if "convergence NOT achieved" in step or accuracy is None or threshold is None:
        return "convergence NOT achieved" not in step
    return _number_of(accuracy[1]) <= LOOSE * max(_number_of(threshold[1]), 1e-8)


def _number_of(word):
    try:
        return float(fortran_floats(word)[0])
    except ValueError:  # stars: it is large
        return np.inf


class _Output:
    """Text of one run, with errors that name the line."""

    def __init__(self, path: str | PathLike, text: str):
        self.path, self.text = path, text

    def place(self, position) -> str:
        return f"{self.path}, line {self.text.count(chr(10), 0, position) + 1}"

    def number(self, word, position, what: str):
        """One finite number; ``what`` names it in the message."""
        if re.fullmatch(r"[-+]?\d{1,18}", word):
            return float(word)
        return self.row(word, position, 1, what)[0]

    def row(self, text: str, position, count, what: str):
        """``count`` finite numbers that fill the text, with or without blanks between them."""
        if len(text) > LONGEST:
            raise damaged(self.place(position), f"{what} stands in a line of {len(text)} characters")
        words = DECIMAL.findall(text)
        rest = DECIMAL.sub(" ", text).split()
        values = [float(word.upper().replace("D", "E")) for word in words]
        if rest:
            raise EspressoError(f"{self.place(position)}: {what} holds {describe_no_number(rest[0])}")
        if len(words) != count:
            raise damaged(self.place(position), f"{what} holds {len(words)} numbers, need {count}")
        if not np.abs(values).max() < LARGEST:  # the place takes time to find, and is found for errors only
            check_values(self.place(position), what, values)
        return values

    def last(self, label: str, start=0):
        """The number behind the last occurrence of a label (regular expression) from ``start`` on, or None."""
        found = None
        for found in re.compile(label + r"[ \t]*([^\s,()]*)").finditer(self.text, start):  # noqa: B007
            pass
        if found is None:
            return None
        return self.number(found.group(1), found.start(1), self.text[found.start() : found.start(1)].strip(" =<\t"))

    def count(self, label: str, what: str) -> int:
        """The whole number behind a label, the same at all of its occurrences."""
        found = set(re.findall(label + r"[ \t]*(\S+)", self.text))
        if not found:
            raise EspressoError(f"{self.path}: no {what!r}; keep pw.x's whole standard output")
        if len(found) > 1 or not re.fullmatch(r"\d{1,18}", min(found)):
            raise EspressoError(
                f"{self.path}: {what} is {printable(', '.join(sorted(found)), 60)}, need one whole number; "
                "read the run's XML file instead"
            )
        return int(min(found))


def _one_run(path, text):
    """Part of a text that is output of pw.x, from its first line to the first line of another program."""
    starts = [match.start() for match in re.finditer(r"Program PWSCF", text)]
    if not starts:
        raise EspressoError(f"{path}: not a pw.x output (no 'Program PWSCF'); give pw.x's standard output")
    if len(starts) > 1:
        raise EspressoError(
            f"{path}: got the outputs of {len(starts)} runs in one file, need one; cut the file at "
            "its lines 'Program PWSCF' and give the part that you want"
        )
    other = re.compile(r"^ {0,8}Program [A-Z]+ v\.", re.MULTILINE).search(text, starts[0])
    return text[: other.start() if other else None]


def _last_mark(output):
    """Match of the last final energy, after what tells that there is none."""
    path, text = output.path, output.text
    marks = list(MARK.finditer(text))
    if "convergence NOT achieved" in text[marks[-2].end() if len(marks) > 1 else 0 :]:
        raise EspressoError(f"{path}: {NOT_CONVERGED}")
    if "End of band structure calculation" in text:
        raise EspressoError(f"{path}: the output of {NO_ENERGY}")
    if not marks or "JOB DONE." not in text[marks[-1].end() :]:
        raise EspressoError(
            f"{path}: the run is unfinished (no final total energy or no 'JOB DONE' after it); run it to the end"
        )
    mark = marks[-1]
    if "End of self-consistent calculation" in text[mark.end() :]:
        raise damaged(path, "the last self-consistent calculation has no line '!    total energy'")
    if mark.group(3) != "Ry":
        raise EspressoError(
            f"{output.place(mark.start())}: the total energy is in {mark.group(3)[:20]!r}, need Ry; "
            "give pw.x's own output"
        )
    if mark.group(1) == "!" and ("EXX: now go back" in text or any(m.group(1) == "!!" for m in marks)):
        raise EspressoError(
            f"{path}: the exchange operator did not converge (no energy marked '!!' at the end); run "
            "pw.x again with a larger exx_maxstep"
        )
    return mark


def _check_convergence(output, start):
    """The last SCF, of the structure that stands at ``start``, converged; scf_must_converge = false hides it."""
    if "convergence NOT achieved" in output.text[start:]:
        raise EspressoError(f"{output.path}: {NOT_CONVERGED}")
    threshold = output.last(r"scf convergence threshold\s+=")
    accuracy = output.last(r"estimated scf accuracy\s+<", start)
    if threshold is not None and accuracy is not None and accuracy > LOOSE * max(threshold, 1e-8):  # printed to 1e-8
        raise EspressoError(
            f"{output.path}: {NOT_CONVERGED} (its accuracy is {accuracy:g} Ry, the threshold {threshold:g} Ry)"
        )


def _structure(output, end, n_atoms):
    """Where it stands, cell [3, 3] and positions [N, 3] in Å, and symbols of the last structure before ``end``."""
    alat = _lattice_parameter(output)
    rows, tables = list(LATTICE_ROW.finditer(output.text)), _site_tables(output)
    if alat is None or not tables or [row.group(1) for row in rows] != ["1", "2", "3"] * max(len(rows) // 3, 1):
        raise EspressoError(f"{output.path}: cell or positions not found; keep pw.x's whole standard output")
    # of (position in the text, what stands there)
    cells = [(rows[k].start(), _lattice(output, rows[k : k + 3], alat)) for k in range(0, len(rows), 3)]
    sites = [(table[0].start(), *_site_rows(output, table, n_atoms, alat), False) for table in tables]
    start = sites[0][0]
    blocks = list(BLOCK.finditer(output.text))
    for block in _last_blocks(blocks, end):
        names, values = _block_rows(output, block, n_atoms)
        values *= _unit(output, block, alat)
        if block.group(1) == "CELL_PARAMETERS":
            cells.append((block.start(), values))
        else:
            sites.append((block.start(), names, values, block.group(2) == "crystal"))
    before = [[entry for entry in entries if entry[0] < end] for entries in (cells, sites)]
    before = [max(entries, key=lambda entry: entry[0], default=None) for entries in before]
    if None in before:
        raise EspressoError(
            f"{output.path}: cell or positions not found before the total energy; keep pw.x's whole standard output"
        )
    (cell_place, cell), (place, names, positions, is_crystal) = before
    moving_cell = "new unit-cell volume" in output.text[:end] or cell_place > rows[-1].start()
    if output.text.rfind("Forces acting on atoms", 0, end) > (min(place, cell_place) if moving_cell else place):
        raise damaged(output.path, "the structure of the last step is missing between its energy and the forces before")
    if abs(np.linalg.det(cell)) < 1e-9:
        raise damaged(output.path, "the cell has no volume")
    _check_species(output, names)
    symbols = [element(output.path, name) for name in names]
    return 0 if place == start else place, cell, symbols, positions @ cell if is_crystal else positions


def _last_blocks(blocks, end):
    """The last of each kind before ``end``, and all after it, which are checked only."""
    before = {block.group(1): block for block in blocks if block.start() < end}
    return [*before.values(), *(block for block in blocks if block.start() > end)]


def _lattice(output, rows, alat):
    return np.array([output.row(row.group(2), row.start(2), 3, f"a({row.group(1)})") for row in rows]) * alat


def _lattice_parameter(output):
    """alat in Å or None; celldm(1) is the same with more digits."""
    alat, celldm = (output.last(label) for label in (r"lattice parameter \(alat\)\s+=", r"celldm\(1\)="))
    if alat is not None and celldm is not None and abs(celldm - alat) < 6e-5:
        alat = celldm
    return alat * units.BOHR if alat else None


def _site_tables(output):
    """Lists of the rows, one below the other, of the tables of sites in units of alat."""
    tables, end = [], 0
    for row in SITE_ROW.finditer(output.text):
        between = output.text[end : row.start()]
        if between.strip() or not tables:  # the first row; its heading is the line above
            tables.append((between.rstrip().rpartition("\n")[2], []))
        tables[-1][1].append(row)
        end = row.end()
    return [rows for heading, rows in tables if "(cryst" not in heading]


def _site_rows(output, table, n_atoms, alat):
    """Labels and positions [N, 3] in Å of a table of sites."""
    if len(table) != n_atoms:
        raise damaged(output.place(table[0].start()), f"got {len(table)} atoms, 'number of atoms/cell' says {n_atoms}")
    for k, row in enumerate(table):
        _check_index(output, row, k, row.group(1), row.group(3))
    values = [output.row(row.group(4), row.start(4), 3, f"tau({k + 1})") for k, row in enumerate(table)]
    return [row.group(2) for row in table], np.array(values) * alat


def _check_index(output, row, k, *found):
    """The atom's number is k + 1, or stars where it has too many digits."""
    for word in found:
        if "*" not in word and int(word[:18]) != k + 1:
            raise damaged(output.place(row.start()), f"got atom {word[:18]}, need {k + 1}")


def _block_rows(output, block, n_atoms):
    """Labels and numbers [N, 3] of the rows below ATOMIC_POSITIONS, or numbers [3, 3] of the rows below CELL_PARAMETERS."""
    named = block.group(1) == "ATOMIC_POSITIONS"
    count = n_atoms if named else 3
    names, values, position = [], [], block.end()
    for _ in range(count):
        line = output.text[position : output.text.find("\n", position)]
        words = line.split(None, 1)
        if len(words) < 2 or "." not in line or words[0] == "=":
            break
        numbers = re.sub(r"(?:[ \t]+[01]){3}\s*$", "", words[1]) if named else line  # 0 or 1: fixed coordinates
        names.append(words[0])
        values.append(output.row(numbers, position, 3, block.group(1)))
        position += len(line) + 1
    if len(values) != count:
        raise EspressoError(
            f"{output.place(block.start())}: got {len(values)} rows of {block.group(1)}, need "
            f"{count}; the output is damaged where it holds several structures; read its XML file "
            "instead"
        )
    return names, np.array(values)


def _unit(output, block, alat):
    """Å in the unit of the block; 1 for fractions of the cell."""
    name = block.group(2).lower()
    if name == "alat" and block.group(3).strip():
        return output.row(block.group(3), block.start(), 1, "alat")[0] * units.BOHR
    scale = {"alat": alat, "bohr": units.BOHR, "angstrom": 1.0, "crystal": 1.0}.get(name)
    if scale is None:
        raise EspressoError(
            f"{output.place(block.start())}: {block.group(1)} is in units of {name!r}, need alat, "
            "bohr, angstrom or crystal; read the run's XML file instead"
        )
    return scale


def _check_species(output, names):
    """The table of species: as many as there are labels, and the elements that the pseudopotentials are of."""
    n_types = output.last(r"number of atomic types\s+=")
    if n_types is not None and len(set(names)) > n_types:
        raise damaged(
            output.path,
            f"got atoms of the types {', '.join(sorted(set(names)))[:60]}, 'number of atomic types' says {n_types:g}",
        )
    table = re.search(r"atomic species +valence +mass +pseudopotential\n((?:[ \t]+\S.*\n)*)", output.text)
    for name, other in re.findall(
        r"^[ \t]+(\S+)[ \t]+\S+[ \t]+\S+[ \t]+([A-Za-z]{1,2})[ \t]*\(", table.group(1) if table else "", re.MULTILINE
    ):
        if name in names and _is_other(output.path, name, other):
            raise EspressoError(
                f"{output.path}: species {name!r} has a pseudopotential of {other}; write {other} "
                "into the input and run pw.x again"
            )


def _is_other(path, name, other):
    try:
        return element(path, other) != element(path, name)
    except EspressoError:  # the name's own message comes later; pseudopotentials may be of no element
        return False


def _forces(output, start, n_atoms):
    block = _only_block(output, "Forces acting on atoms", start)
    if block is None:
        if FORCE_ROW.search(output.text, start):
            raise damaged(output.path, "rows of forces without their heading")
        return None
    rows = []
    for row in FORCE_ROW.finditer(output.text, block):  # contributions to the forces may follow
        if rows and output.text[rows[-1].end() : row.start()].strip():
            break
        rows.append(row)
    if len(rows) != n_atoms:
        raise damaged(output.place(block), f"got {len(rows)} rows of forces for {n_atoms} atoms")
    for k, row in enumerate(rows):
        _check_index(output, row, k, row.group(1))
    values = [output.row(row.group(2), row.start(2), 3, f"the force on atom {k + 1}") for k, row in enumerate(rows)]
    return np.array(values) * units.RYDBERG / units.BOHR


def _stress(output, start):
    block = _only_block(output, r"total +stress +\(Ry/bohr\*\*3\).*\n", start)
    if block is None:
        if "Computing stress" in output.text[start:]:
            raise EspressoError(
                f"{output.path}: 'Computing stress' without a total stress; the output is damaged, "
                "or pw.x ended in it: run it again"
            )
        return None
    first = output.text.index("\n", block) + 1
    rows = output.text[first:].split("\n\n", 1)[0].splitlines()
    if len(rows) != 3:
        raise damaged(output.place(block), f"got {len(rows)} rows of the stress, need 3")
    # three numbers in Ry/bohr^3 and the same in kbar
    values = np.array([output.row(row, first, 6, "the stress")[:3] for row in rows])
    if "Effective Screening Medium Method" in output.text and values.any():
        warnings.warn(f"{output.path}: {ESM}", stacklevel=5)
        return None
    return None if not values.any() else -values * units.RYDBERG / units.BOHR**3


def _only_block(output, heading, start):
    """Where the heading (regular expression) stands after the final energy, or None."""
    found = [match.start() for match in re.compile(heading).finditer(output.text, start)]
    if len(found) > 1:
        raise damaged(
            output.place(found[1]), f"got {len(found)} blocks of this kind after the last total energy, need one"
        )
    return found[0] if found else None
