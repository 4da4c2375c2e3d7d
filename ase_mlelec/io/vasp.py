"""VASP's vasprun.xml: steps with energies, forces and stress, and the bands of the last step with their shares of atoms.

The file is read piece by piece, since projections may take gigabytes as text.

References: VASP's wiki, "vasprun.xml"; the stress is in kbar with the opposite of ASE's sign.
"""

import gzip
import warnings
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ase_mlelec import units
from ase_mlelec.checks import check_finite, printable
from ase_mlelec.io.projections import Projections
from ase_mlelec.io.text import GZIP, element_of, float_or, fortran_floats

KBAR = 0.1 * units.GPA
LEARNED = "are of a machine-learned potential"
AGAIN = "the file is damaged or VASP did not finish: let it finish or copy the file again"
ENDED = (3, 5, 12)  # codes of expat for a text that ends before its elements, its tags or its other parts do
UNREADABLE = (OSError, EOFError, zlib.error)  # of files that may be compressed
LOOSE = 10  # times EDIFF, by which the last two energies of a converged step may differ


class VaspError(ValueError):
    """A VASP file cannot be used; the message names the file, the cause and the remedy."""


@dataclass(frozen=True)
class VaspStep:
    """One ionic step.

    Attributes
    ----------
    cell : array [3, 3], Å
        Rows.
    positions : array [N, 3], Å
    energy : float, eV
        Free energy (TOTEN or e_fr_energy), whose negative gradient the forces are, without PSTRESS x volume.
    forces : array [N, 3], eV/Å, or None
    stress : array [3, 3], eV/Å^3 in ASE's sign, or None
    converged : bool
        False where the electrons took NELM steps and still changed the energy by more than EDIFF.
    born_charges : array [N, 3, 3], e, or None
        Derivatives of the dipole (first axis) by displacements (second).
    """

    cell: np.ndarray
    positions: np.ndarray
    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None
    converged: bool
    born_charges: np.ndarray | None = None


@dataclass(frozen=True)
class Vasprun:
    """Contents of vasprun.xml.

    Attributes
    ----------
    symbols : list of str
        Length N.
    steps : list of VaspStep
    projections : Projections or None
        Bands of the last step and their shares of the atoms (LORBIT = 10 or more); zero-weight k-points are left out.
    n_electrons : float
    valence : dict of float by symbol
        Valence electrons of the pseudopotentials.
    fermi_level : float, eV, or None
    parameters : dict of str
        What VASP used, by the name in INCAR.
    mesh : str
        How the k-points were made, e.g. "Gamma 3 3 3".
    left_out : dict of int
        Steps that are no labels, by reason.
    """

    symbols: list
    steps: list
    projections: Projections | None
    n_electrons: float
    valence: dict
    fermi_level: float | None
    parameters: dict
    mesh: str = ""
    left_out: dict = field(default_factory=dict)


@dataclass
class _Found:
    """What was found so far."""

    parameters: dict = field(default_factory=dict)
    incar: dict = field(default_factory=dict)  # what the user set; a few settings are here alone
    version: str = ""
    learned: bool = False  # whether some steps may be of a machine-learned potential
    n_learned: int = 0
    mesh: str = ""
    weights: NDArray | None = None
    symbols: list = field(default_factory=list)
    valence: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)
    shares: list = field(default_factory=list)  # of the atoms in each band, [N]
    eigenvalues: NDArray | None = None
    projected: NDArray | None = None
    fermi_level: float | None = None


def read_vasprun(path: str | PathLike) -> Vasprun:
    """Read vasprun.xml, which may be compressed by gzip; of a run that did not finish the steps before, with a warning.

    Raises
    ------
    VaspError
        For a missing or damaged file or one without a whole step, for spectra along lines of k-points, and for parts that
        do not fit.
    """
    found = _Found()
    inside: set[str] = set()
    with opened(path) as file:
        try:
            for event, element in ElementTree.iterparse(file, ("start", "end")):
                if element.tag in ("calculation", "projected"):
                    inside ^= {element.tag}
                if event == "start":
                    found.shares = [] if element.tag == "calculation" else found.shares
                elif element.tag == "set" and "projected" in inside and element.get("comment", "").startswith("band"):
                    found.shares.append(_rows(path, "the projections", element).sum(axis=1))
                    element.clear()
                elif element.tag in READERS and not inside:  # further k-points may stand within a calculation
                    READERS[element.tag](path, found, element)
                    element.clear()
        except (ElementTree.ParseError, *UNREADABLE, UnicodeError, LookupError) as error:
            if not found.steps or getattr(error, "code", None) not in ENDED:
                raise VaspError(f"{path}: truncated or not XML ({printable(error)}); {AGAIN}") from None
            warnings.warn(
                f"{path}: ends early, the {len(found.steps)} steps before are read and no bands: VASP did not finish, or "
                "the file is cut off",
                stacklevel=2,
            )
            found.projected = None
    if not found.steps or not found.symbols:
        raise VaspError(f"{path}: no calculation in it; {AGAIN}")
    return Vasprun(
        symbols=found.symbols,
        steps=found.steps,
        projections=_projections(path, found),
        n_electrons=_parameter(path, found, "NELECT"),
        valence=found.valence,
        fermi_level=found.fermi_level,
        parameters=found.incar | found.parameters | {"version": found.version},
        mesh=found.mesh,
        left_out={LEARNED: found.n_learned},
    )


def is_vasprun(path: str | PathLike) -> bool:
    """Whether a file is a vasprun.xml, from its first lines; it may be compressed by gzip."""
    try:
        with opened(path) as file:
            return b"<modeling>" in file.read(1000)
    except (VaspError, *UNREADABLE):
        return False


def has_projections(path: str | PathLike) -> bool:
    """Whether a file is a vasprun.xml with projections, from a look at its text."""
    with opened(path) as file:
        try:
            former = file.read(1 << 20)
            if b"<modeling>" not in former[:1000]:
                return False
            while former:
                if b"<projected>" in former:
                    return True
                more = file.read(1 << 24)
                former = former[-20:] + more if more else b""
        except UNREADABLE:
            return False
    return False


@contextmanager
def opened(path: str | PathLike) -> Iterator[IO[bytes]]:
    """A file of bytes, which may be compressed by gzip; VaspError where it is not there."""
    if not Path(path).is_file():
        raise VaspError(f"{path}: no such file; give vasprun.xml or OUTCAR")
    with open(path, "rb") as raw:
        head = raw.read(len(GZIP))
        raw.seek(0)
        with gzip.open(raw) if head == GZIP else raw as file:
            yield file  # type: ignore[misc]  # both are files of bytes


def _numbers(path, what, text):
    try:
        values = fortran_floats(text or "")
    except ValueError as error:
        raise VaspError(f"{path}: {what} holds something else than numbers ({printable(error, 60)}); {AGAIN}") from None
    return check_finite(path, what, values, VaspError)


def _rows(path, what, element, tag="r"):
    """Array of the numbers in the rows of an element, as many in each."""
    rows = [row.text or "" for row in element.findall(tag)]
    values = _numbers(path, what, " ".join(rows))
    if not rows or len(values) % len(rows):
        raise VaspError(f"{path}: {what} has {len(values)} numbers in {len(rows)} rows; {AGAIN}")
    return values.reshape(len(rows), -1)


def _parameter(path, found, name):
    if name not in found.parameters:
        raise VaspError(f"{path}: no {name} in its <parameters>; {AGAIN}")
    return float(_numbers(path, name, found.parameters[name])[0])


# the parts of the file


def _read_generator(path, found, element):
    found.version = " ".join((element.findtext("i[@name='version']") or "").split())


def _read_kpoints(path, found, element):
    generation = element.find("generation")
    weights = element.find("varray[@name='weights']")
    if weights is None:
        raise VaspError(f"{path}: no weights of the k-points; {AGAIN}")
    found.weights = _rows(path, "the weights of the k-points", weights, "v")[:, 0]
    if generation is not None:
        divisions = generation.findtext("v[@name='divisions']") or generation.findtext("i[@name='divisions']") or ""
        found.mesh = " ".join([generation.get("param", "").strip(), *divisions.split()])


def _read_parameters(path, found, element):
    found.parameters = {each.get("name"): (each.text or "").strip() for tag in "iv" for each in element.iter(tag)}


def _read_atominfo(path, found, element):
    try:
        found.symbols = [
            element_of(row.findall("c")[0].text or "") for row in element.findall("array[@name='atoms']/set/rc")
        ]
        for row in element.findall("array[@name='atomtypes']/set/rc"):
            cells = [cell.text or "" for cell in row.findall("c")]
            symbol, valence = element_of(cells[1]), float(cells[3])
            if found.valence.setdefault(symbol, valence) != valence:
                raise VaspError(
                    f"{path}: {symbol} has pseudopotentials with {found.valence[symbol]:g} and {valence:g} valence "
                    "electrons; give all atoms of an element the same"
                )
    except VaspError:
        raise
    except (ValueError, IndexError) as error:
        raise VaspError(f"{path}: <atominfo> not understood ({printable(error)}); {AGAIN}") from None


def _read_incar(path, found, element):
    found.incar = {each.get("name"): (each.text or "").strip() for tag in "iv" for each in element.iter(tag)}
    found.learned = found.incar.get("ML_LMLFF", "").strip(" .").upper().startswith("T")


def _read_calculation(path, found, element):
    if found.learned and element.find("scstep") is None:
        found.n_learned += 1
        return
    where = f"{path}: step {len(found.steps) + 1}"
    cell = element.find("structure/crystal/varray[@name='basis']")
    places = element.find("structure/varray[@name='positions']")
    energy = element.findtext("energy/i[@name='e_fr_energy']")
    if cell is None or places is None or energy is None:
        raise VaspError(f"{where}: no structure or no energy; {AGAIN}")
    cell = _rows(where, "the cell", cell, "v")
    n_atoms = len(found.symbols)
    arrays: dict[str, Any] = {}
    for name in "forces", "stress":
        part = element.find(f"varray[@name='{name}']")
        arrays[name] = None if part is None else _rows(where, name, part, "v")
    fractions = _rows(where, "the positions", places, "v")
    shapes = {"cell": (3, 3), "positions": (n_atoms, 3), "forces": (n_atoms, 3), "stress": (3, 3)}
    for name, value in (("cell", cell), ("positions", fractions), *arrays.items()):
        if value is not None and value.shape != shapes[name]:
            raise VaspError(f"{where}: {name} of shape {value.shape}, need {shapes[name]}; {AGAIN}")
    stress = None if arrays["stress"] is None else -arrays["stress"] * KBAR
    found.steps.append(
        VaspStep(
            cell,
            fractions @ cell,
            float(_numbers(where, "the energy", energy)[0]) - _work_of_pressure(where, found, cell),
            arrays["forces"],
            stress,
            _is_converged(where, found, element),
            _born_charges(where, element, n_atoms),
        )
    )
    level = element.findtext("dos/i[@name='efermi']")
    found.fermi_level = found.fermi_level if level is None else float(_numbers(where, "efermi", level)[0])
    found.eigenvalues = _eigenvalues(where, element)
    found.projected = _shares(where, found)


def _born_charges(where, element, n_atoms):
    sets = element.findall("array[@name='born_charges']/set")
    if not sets:
        return None
    charges = [_rows(where, "the Born charges", each, "v") for each in sets]
    if len(charges) != n_atoms or any(each.shape != (3, 3) for each in charges):
        raise VaspError(f"{where}: Born charges of {len(charges)} atoms, need {n_atoms}, 3 x 3 each; {AGAIN}")
    return np.array(charges)


def _work_of_pressure(where, found, cell):
    """PSTRESS x volume, eV, which VASP adds to the energy of a step in this file and nowhere else."""
    pressure = found.parameters.get("PSTRESS")
    return 0.0 if not pressure else float(_numbers(where, "PSTRESS", pressure)[0]) * KBAR * abs(np.linalg.det(cell))


def _is_converged(where, found, element):
    steps, most = element.findall("scstep"), float_or(found.parameters.get("NELM"), np.inf)
    if len(steps) < 2:
        return len(steps) < most or most < 1  # of a single step it is not known
    if len(steps) < most:
        return True
    last = [step.findtext("energy/i[@name='e_fr_energy']") for step in steps[-2:]]
    if None in last:
        return True
    change = np.ptp(_numbers(where, "the energies of its electronic steps", " ".join(map(str, last))))
    return bool(change <= LOOSE * float(found.parameters.get("EDIFF") or np.inf))


def _eigenvalues(where, element):
    """Energies [spins, K, M], or None."""
    spins = element.findall("eigenvalues/array/set/set")
    if not spins:
        return None
    values = [[_rows(where, "the eigenvalues", point)[:, 0] for point in spin.findall("set")] for spin in spins]
    if len({len(row) for spin in values for row in spin}) != 1 or len({len(spin) for spin in values}) != 1:
        raise VaspError(f"{where}: other numbers of eigenvalues at its k-points; {AGAIN}")
    return np.array(values)


def _shares(where, found):
    """Shares [spins, K, M, N] of the atoms in the bands, summed over their orbitals, or None."""
    if not found.shares or found.eigenvalues is None:
        return None
    spins, n_kpoints, n_bands = found.eigenvalues.shape
    n_atoms = len(found.symbols)
    if len(found.shares) % (n_kpoints * n_bands) or any(len(each) != n_atoms for each in found.shares):
        raise VaspError(f"{where}: the projections are of other bands or atoms than the eigenvalues; {AGAIN}")
    # of spinors the components of the magnetization follow the total
    total = np.array(found.shares).reshape(-1, n_kpoints, n_bands, n_atoms)
    if len(total) < spins:
        raise VaspError(f"{where}: projections of {len(total)} spins, need {spins}; {AGAIN}")
    return total[:spins]


READERS = {
    "generator": _read_generator,
    "incar": _read_incar,
    "kpoints": _read_kpoints,
    "parameters": _read_parameters,
    "atominfo": _read_atominfo,
    "calculation": _read_calculation,
}


def _projections(path, found):
    """Projections with a row for every k-point and spin, or None."""
    if found.projected is None:
        return None
    weights = found.weights
    spins, n_kpoints = found.projected.shape[:2]
    if weights is None or len(weights) != n_kpoints or weights.min() < 0 or weights.sum() <= 0:
        raise VaspError(f"{path}: other k-points than weights, or no positive weights; {AGAIN}")
    used = weights > 0
    spinors = found.parameters.get("LNONCOLLINEAR", "F").strip(". ").upper().startswith("T")
    electrons = 1 if spinors or spins == 2 else 2
    weights = electrons * np.tile(weights[used], spins) / weights.sum()
    eigenvalues, shares = (each[:, used].reshape(-1, *each.shape[2:]) for each in (found.eigenvalues, found.projected))
    return Projections(eigenvalues, weights, shares)
