"""One pw.x calculation, from the XML file or from the text output."""

from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_mlelec.io.espresso.common import EspressoError, find_file
from ase_mlelec.io.espresso.pw_text import parse_pw_text
from ase_mlelec.io.espresso.pw_xml import parse_pw_xml
from ase_mlelec.io.text import read_text

if TYPE_CHECKING:
    from ase import Atoms

WHAT_TO_GIVE = "give the pw.x output, prefix.save or data-file-schema.xml"


@dataclass(frozen=True)
class PwResult:
    """One converged pw.x calculation; of a relaxation or MD run the last one, with the structure that it was done for.

    Attributes
    ----------
    symbols : list of str
        Length N.
    cell : array [3, 3], Å
        Rows.
    positions : array [N, 3], Å
    energy : float, eV
        Total (Mermin) free energy; the forces are its negative gradient.
    terms : dict of float, eV
        one_electron, hartree, xc, ion_ion, entropy (-TS) and, from XML, band; those the file has.
    forces : array [N, 3], eV/Å, or None where they were not calculated
    stress : array [3, 3], eV/Å^3 in ASE's sign, or None where it was not calculated
    fermi_level : float, eV
        None for fixed occupations, for those from the input, and where there are two Fermi levels (tot_magnetization
        with smearing).
    smearing : str or None
        As pw.x prints it, e.g. "Fermi-Dirac".
    smearing_width : float, eV (k_B T for Fermi-Dirac)
    n_electrons : float, or None where the file does not say
    kpoints : array [K, 3]
        Fractions of the reciprocal vectors.
    eigenvalues : array [K, M], eV (of spinors in a noncollinear run)
        None of text output and spin-polarized runs.
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

    def to_atoms(self) -> "Atoms":
        """ase.Atoms that carry energy, forces and stress as a SinglePointCalculator."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms = Atoms(self.symbols, self.positions, cell=self.cell, pbc=True)
        results: dict[str, Any] = {"energy": self.energy, "free_energy": self.energy}
        if self.forces is not None:
            results["forces"] = self.forces
        if self.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(self.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms


def read_pw(path: str | PathLike) -> PwResult:
    """Read one pw.x calculation from ``data-file-schema.xml``, a ``prefix.save`` folder, the folder that holds one, or
    the text output; any of these files may be compressed by gzip.

    Returns
    -------
    PwResult
        Of a relaxation or MD run it is the last self-consistent calculation: structure, energy, forces and stress of
        one and the same step, which is not the structure that pw.x stores last where nstep ended the run.

    Raises
    ------
    EspressoError
        When the run is unfinished, not converged, without a total energy (nscf, bands), several runs in one file, or
        when the file is damaged or something else.
    """
    path = find_file(path, "data-file-schema.xml", WHAT_TO_GIVE)
    text = read_text(path, WHAT_TO_GIVE, EspressoError)
    parse = parse_pw_xml if text.lstrip("\ufeff \n\t").startswith("<") else parse_pw_text
    return PwResult(**parse(path, text))
