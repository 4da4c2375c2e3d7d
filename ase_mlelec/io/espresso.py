"""Read Quantum ESPRESSO: pw.x results, projwfc.x projections, ph.x, and functions on a grid by pp.x (see filplot).

Two sources are understood for pw.x.  ``data-file-schema.xml`` (in ``prefix.save``) holds full precision and is
preferred; the text output is what people keep, and has the one-electron term as well.  A run that did not finish or did
not converge is refused by name: its numbers look like any others.

Source: Quantum ESPRESSO 6.7 output; sign of the stress checked against finite differences (QE prints -dE/dε/V).
"""
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ase_mlelec import units
from ase_mlelec.io.errors import EspressoError
from ase_mlelec.io.filplot import read_filplot, read_ldos

__all__ = ["EspressoError", "PwResult", "Projections", "read_filplot", "read_ldos", "read_ph", "read_projections",
           "read_pw"]


@dataclass(frozen=True)
class PwResult:
    """One converged pw.x calculation.

    symbols : list of str, length N
    cell : array [3, 3], Å, rows
    positions : array [N, 3], Å
    energy : float, eV; the total (Mermin) free energy, whose negative gradient the forces are
    terms : dict of float, eV; one_electron, hartree, xc, ion_ion, entropy (-TS) and, from XML, band; those the file has
    forces : array [N, 3], eV/Å, or None
    stress : array [3, 3], eV/Å^3 in ASE's sign, or None
    fermi_level : float, eV, or None for fixed occupations
    smearing : str or None, as pw.x prints it, e.g. "Fermi-Dirac"; smearing_width : float, eV (k_B T for Fermi-Dirac)
    n_electrons : float
    kpoints : array [K, 3], fractions of the reciprocal vectors, and eigenvalues : array [K, M], eV; None of text output
        and spin-polarized runs
    """
    symbols: list
    cell: np.ndarray
    positions: np.ndarray
    energy: float
    terms: dict = field(default_factory=dict)
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    fermi_level: float | None = None
    smearing: str | None = None
    smearing_width: float = 0.0
    n_electrons: float | None = None
    kpoints: np.ndarray | None = None
    eigenvalues: np.ndarray | None = None

    def to_atoms(self):
        """ase.Atoms that carry energy, forces and stress as a SinglePointCalculator."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress
        atoms = Atoms(self.symbols, self.positions, cell=self.cell, pbc=True)
        results = {"energy": self.energy, "free_energy": self.energy}
        if self.forces is not None:
            results["forces"] = self.forces
        if self.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(self.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def read_pw(path):
    """Read one pw.x calculation from ``data-file-schema.xml``, a ``prefix.save`` folder, or the text output.

    Returns PwResult.

    Raises EspressoError when the run is unfinished, not converged, or the file is something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "data-file-schema.xml"
    if not path.exists():
        raise EspressoError(f"{path}: no such file; give the pw.x output, prefix.save or data-file-schema.xml")
    return _read_pw_xml(path) if path.suffix == ".xml" else _read_pw_text(path)


NO_ENERGY = "an nscf or bands run, which has no total energy; give the scf run's output, kept before the nscf run"
SMEARING = {"fd": "Fermi-Dirac", "mp": "Methfessel-Paxton", "mv": "Marzari-Vanderbilt"}     # name in XML -> in the text


def _floats(element):
    return np.array(element.text.split(), dtype=float)


def _read_pw_xml(path):
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise EspressoError(f"{path}: truncated or not XML ({error}); run pw.x again") from None
    out = root.find("output")
    if out is None:
        raise EspressoError(f"{path}: no <output>; this is not pw.x's data-file-schema.xml or the run did not finish")
    if root.findtext("input/control_variables/calculation", "scf").strip() in ("nscf", "bands"):
        raise EspressoError(f"{path}: written by {NO_ENERGY}")
    scf = out.find("convergence_info/scf_conv")
    if scf is not None and scf.findtext("convergence_achieved", "true").strip() != "true":
        raise EspressoError(f"{path}: the SCF did not converge; raise electron_maxstep or lower mixing_beta")
    atoms = sorted(out.findall("atomic_structure/atomic_positions/atom"), key=lambda a: int(a.get("index")))
    natoms = len(atoms)
    bands = out.find("band_structure")
    fermi = bands.find("fermi_energy")
    smearing = bands.find("smearing")
    forces, stress = out.find("forces"), out.find("stress")
    energies = {e.tag: float(e.text) * units.HARTREE for e in out.find("total_energy")}
    names = {"eband": "band", "ehart": "hartree", "etxc": "xc", "vtxc": "xc_potential", "ewald": "ion_ion",
             "demet": "entropy"}
    return PwResult(
        symbols=[re.match("[A-Z][a-z]?", a.get("name")).group() for a in atoms],
        cell=np.array([_floats(out.find(f"atomic_structure/cell/a{i}")) for i in (1, 2, 3)]) * units.BOHR,
        positions=np.array([_floats(a) for a in atoms]) * units.BOHR,
        energy=energies["etot"],
        terms={new: energies[old] for old, new in names.items() if old in energies},
        forces=None if forces is None else _floats(forces).reshape(natoms, 3) * units.HARTREE_PER_BOHR,
        stress=None if stress is None else -_floats(stress).reshape(3, 3) * units.HARTREE_PER_BOHR3,
        fermi_level=None if fermi is None else float(fermi.text) * units.HARTREE,
        smearing=None if smearing is None else SMEARING.get(smearing.text.strip(), smearing.text.strip()),
        smearing_width=0.0 if smearing is None else float(smearing.get("degauss")) * units.HARTREE,
        n_electrons=float(bands.findtext("nelec")), **_levels(out))


def _levels(out):
    """dict of kpoints and eigenvalues of the <output> of the XML file."""
    points, bands = out.findall("band_structure/ks_energies"), out.find("band_structure")
    if not points or bands.findtext("lsda", "false").strip() == "true":
        return {}
    length = float(out.find("atomic_structure").get("alat"))
    cell = np.array([_floats(out.find(f"atomic_structure/cell/a{i}")) for i in (1, 2, 3)]) / length
    return {"kpoints": np.array([_floats(point.find("k_point")) for point in points]) @ cell.T,    # of 2π/alat there
            "eigenvalues": np.array([_floats(point.find("eigenvalues")) for point in points]) * units.HARTREE}


_NUMBER = r"(-?\d+\.\d*(?:[ED][-+]?\d+)?)"


def _last(pattern, text, scale=1.0):
    found = re.findall(pattern + _NUMBER, text, re.MULTILINE)
    return float(found[-1].replace("D", "E")) * scale if found else None


def _read_pw_text(path):
    text = Path(path).read_text(errors="replace")
    if "Program PWSCF" not in text:
        raise EspressoError(f"{path}: not a pw.x output (no 'Program PWSCF'); give pw.x's standard output")
    if "convergence NOT achieved" in text:
        raise EspressoError(f"{path}: the SCF did not converge; raise electron_maxstep or lower mixing_beta")
    if "End of band structure calculation" in text:
        raise EspressoError(f"{path}: the output of {NO_ENERGY}")
    energy = _last(r"^!\s+total energy\s+=\s*", text, units.RYDBERG)
    if energy is None or "JOB DONE" not in text:
        raise EspressoError(f"{path}: the run is unfinished (no final total energy or no 'JOB DONE'); "
                            "run it to the end")
    labels = {"one_electron": "one-electron contribution", "hartree": "hartree contribution",
              "xc": "xc contribution", "ion_ion": "ewald contribution", "entropy": r"smearing contrib\. \(-TS\)"}
    terms = {name: _last(rf"{label}\s+=\s*", text, units.RYDBERG) for name, label in labels.items()}
    smearing = re.search(r"number of k points=\s*\d+\s+(.*?)smearing, width \(Ry\)=\s*" + _NUMBER, text)
    symbols, cell, positions = _text_structure(path, text)
    return PwResult(
        symbols=symbols, cell=cell, positions=positions, energy=energy,
        terms={name: value for name, value in terms.items() if value is not None},
        forces=_text_forces(text, len(symbols)), stress=_text_stress(text),
        fermi_level=_last(r"the Fermi energy is\s+", text),
        smearing=smearing.group(1).strip() if smearing else None,
        smearing_width=float(smearing.group(2)) * units.RYDBERG if smearing else 0.0,
        n_electrons=_last(r"number of electrons\s+=\s*", text))


def _text_structure(path, text):
    """Structure of the first step of a text output; positions there are in units of alat."""
    alat = _last(r"lattice parameter \(alat\)\s+=\s*", text, units.BOHR)
    rows = re.findall(r"a\([123]\) = \(\s*(\S+)\s+(\S+)\s+(\S+)\s*\)", text)[:3]
    sites = re.findall(r"^\s+\d+\s+([A-Z][a-z]?)\S*\s+tau\(\s*\d+\) = \(\s*(\S+)\s+(\S+)\s+(\S+)\s*\)", text, re.M)
    if alat is None or len(rows) != 3 or not sites:
        raise EspressoError(f"{path}: cell or positions not found; keep pw.x's whole standard output")
    if re.search(r"^CELL_PARAMETERS|^ATOMIC_POSITIONS", text, re.M):
        raise EspressoError(f"{path}: a relaxation or MD run holds several structures; read it with ase.io.read")
    natoms = int(re.search(r"number of atoms/cell\s+=\s*(\d+)", text).group(1))
    sites = sites[:natoms]
    return ([s[0] for s in sites], np.array(rows, dtype=float) * alat,
            np.array([s[1:] for s in sites], dtype=float) * alat)


def _text_forces(text, natoms):
    block = text.rfind("Forces acting on atoms")
    rows = re.findall(r"atom\s+\d+ type\s+\d+\s+force =\s+(\S+)\s+(\S+)\s+(\S+)", text[block:])[:natoms]
    return np.array(rows, dtype=float) * units.RYDBERG / units.BOHR if block >= 0 and rows else None


def _text_stress(text):
    block = re.search(r"total\s+stress\s+\(Ry/bohr\*\*3\).*\n((?:.*\n){3})", text)
    if block is None:
        return None
    rows = [line.split()[:3] for line in block.group(1).splitlines()]
    return -np.array(rows, dtype=float) * units.RYDBERG / units.BOHR**3


@dataclass(frozen=True)
class Projections:
    """Band energies and their weights on atoms, from which a DOS of any width and grid can be made.

    eigenvalues : array [K, M], eV
    kpoint_weights : array [K], sum 2 (spin degeneracy included)
    site_weights : array [K, M, N]; the share of each band on each atom, sum over N at most 1 (spilling)
    """
    eigenvalues: np.ndarray
    kpoint_weights: np.ndarray
    site_weights: np.ndarray

    @property
    def complete_below(self):
        """float, eV; above this energy bands are missing from the calculation at some k-point."""
        return float(self.eigenvalues[:, -1].min())

    def site_dos(self, energies, width):
        """Site-projected DOS [N, S] in states/eV on ``energies`` [S] (eV), Gaussian exp(-(x/width)^2)."""
        weights = self.kpoint_weights[:, None, None] * self.site_weights
        return _broaden(self.eigenvalues.ravel(), weights.reshape(-1, weights.shape[-1]), energies, width)

    def total_dos(self, energies, width):
        """Total DOS [S] in states/eV, all bands with full weight (no spilling)."""
        weights = np.broadcast_to(self.kpoint_weights[:, None], self.eigenvalues.shape)
        return _broaden(self.eigenvalues.ravel(), weights.reshape(-1, 1), energies, width)[0]


def _broaden(levels, weights, energies, width):
    """sum_l weights[l] exp(-((e - levels[l])/width)^2)/(width sqrt(pi)) -> [n_weights, S]."""
    energies = np.asarray(energies, dtype=float)
    if width <= 0:
        raise ValueError(f"Gaussian width must be positive, got {width} eV")
    kernel = np.exp(-((energies[None] - levels[:, None]) / width) ** 2) / (width * np.sqrt(np.pi))
    return np.asarray(weights, dtype=float).T @ kernel


def read_projections(path, output):
    """Read projwfc.x: ``atomic_proj.xml`` (path: the file or prefix.save) and its text ``output`` (which atom owns
    which atomic function; the XML does not say).  Collinear non-polarised runs.

    Returns Projections.

    Raises EspressoError for missing, truncated or spin-polarised files.
    """
    path = Path(path)
    path = path / "atomic_proj.xml" if path.is_dir() else path
    try:
        root = ElementTree.parse(path).getroot()
        owners = re.findall(r"state #\s*\d+: atom\s+(\d+)", Path(output).read_text())
    except (OSError, ElementTree.ParseError) as error:
        raise EspressoError(f"{path} or {output}: missing or truncated ({error}); run projwfc.x again") from None
    header, states = root.find("HEADER"), root.find("EIGENSTATES")
    if header is None or states is None:
        raise EspressoError(f"{path}: no <HEADER> or <EIGENSTATES>; give projwfc.x's atomic_proj.xml")
    n_bands, n_kpoints, n_functions = (int(header.get(key)) for key in (
        "NUMBER_OF_BANDS", "NUMBER_OF_K-POINTS", "NUMBER_OF_ATOMIC_WFC"))
    if int(header.get("NUMBER_OF_SPIN_COMPONENTS", "1")) != 1:
        raise EspressoError(f"{path}: spin-polarised projections are not supported; use nspin = 1")
    if len(owners) != n_functions:
        raise EspressoError(f"{output}: lists {len(owners)} atomic functions, {path} holds {n_functions}; "
                            "give the text output of the same projwfc.x run")
    weights = np.array([float(k.get("Weight")) for k in states.findall("K-POINT")])
    eigenvalues = np.array([_floats(e) for e in states.findall("E")]) * units.RYDBERG
    owners = np.array(owners, dtype=int) - 1
    site = np.zeros((n_kpoints, n_bands, owners.max() + 1))
    for k, projections in enumerate(states.findall("PROJS")):
        for owner, function in zip(owners, projections.findall("ATOMIC_WFC")):
            c = _floats(function).reshape(n_bands, 2)
            site[k, :, owner] += (c**2).sum(axis=1)
    return Projections(eigenvalues, 2 * weights / weights.sum(), site)


def read_ph(path):
    """Born effective charges and dielectric tensor of the electrons from the text output of ph.x (epsil, zeu).

    Returns (born_charges [N, 3, 3] e, dipole by displacement: Z[i, a, b] = dM_a/dR_ib, as calculated, without
    acoustic sum rule; dielectric [3, 3]).

    Raises EspressoError when the run is unfinished or had no electric field.

    Source: Quantum ESPRESSO 6.7 output; order of the axes checked by turning a water molecule with its dipole.
    """
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        raise EspressoError(f"{path}: {error.strerror}; give ph.x's standard output") from None
    if "Program PHONON" not in text or "JOB DONE" not in text:
        raise EspressoError(f"{path}: unfinished or not an output of ph.x; run it to the end")
    row = r"\(\s+(\S+)\s+(\S+)\s+(\S+)\s+\)"
    tensor = re.search(rf"Dielectric constant in cartesian axis\s+{row}\s+{row}\s+{row}", text)
    # newer versions print the charges twice, first as calculated and then with the acoustic sum rule
    charges = text.split("Effective charges (d Force / dE) in cartesian axis")[1:2]
    rows = re.findall(rf"E[xyz]\s+{row}", charges[0]) if charges else []
    if tensor is None or not rows or len(rows) % 3:
        raise EspressoError(f"{path}: no dielectric tensor or no charges (d Force / dE); set epsil and zeu in &inputph "
                            "at q = 0 of an insulator")
    return np.array(rows, dtype=float).reshape(-1, 3, 3), np.array(tensor.groups(), dtype=float).reshape(3, 3)
