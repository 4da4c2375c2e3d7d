"""Text outputs of other programs that ASE reads: what ASE does not look at, whether electrons converged, and charges."""

import re
import warnings
from os import PathLike

from ase.io.formats import open_with_compression

from ase_mlelec.data.ase_readers import refuse_dump
from ase_mlelec.data.conditions import CHARGED

NUMBER = r"\s*([-+]?\d+\.?\d*(?:[Ee][-+]?\d+)?)"
# what programs write where the electrons did not converge, and before the charge of the whole structure
FAILED = {
    "castep-castep": r"SCF cycles performed but system has not reached the groundstate",
    "gamess-us-out": r"SCF IS UNCONVERGED",
    "gaussian-out": r"Convergence failure -- run terminated",  # another way to it may follow "criterion not met"
    "gpaw-out": r"Did not converge!",
    "nwchem-out": r"Calculation failed to converge",
    "orca-output": r"SCF NOT CONVERGED AFTER|Wavefunction not fully converged|finished by error termination in SCF",
}
CHARGE = {
    "aims-output": r"Charge =",
    "castep-castep": r"net charge of system +:",
    "gamess-us-out": r"CHARGE OF MOLECULE +=",
    "gaussian-out": r"Charge =",
    "gpaw-out": r"Total Charge:",
    "nwchem-out": r"Charge +:",
    "orca-output": r"Total Charge +Charge +\.+",
}


def check_output(path: str | PathLike, kind: str) -> None:
    """Refuse files of a kind, as ASE calls it, that have no labels, and warn of what their labels depend on.

    Raises
    ------
    ValueError
        For dumps of LAMMPS, and for outputs with electrons that did not converge.
    """
    refuse_dump(path, kind)
    if kind == "runnerdata":
        warnings.warn(
            f"{path}: read in hartree and bohr, the units of RuNNer; data in eV and Å need another format", stacklevel=6
        )
    if not {kind} & (FAILED.keys() | CHARGE.keys()):
        return
    failed = re.compile(FAILED.get(kind, "(?!)"), re.IGNORECASE)
    before = re.compile(rf"^[ |]*{CHARGE[kind]}{NUMBER}", re.IGNORECASE)
    charges: set[float] = set()
    with open_with_compression(str(path)) as file:
        for line in file:
            if failed.search(line):
                raise ValueError(
                    f"{path}: the electrons did not converge ('{line.strip()[:60]}'), so that its numbers are no labels; "
                    "calculate it again, or cut the step out"
                )
            if match := before.match(line):
                charges.add(float(match[1]))
    if charges - {0.0}:
        told = " and ".join(f"{charge:g}" for charge in sorted(charges))
        warnings.warn(f"{path}: the structure has a charge of {told} e, {CHARGED}", stacklevel=6)
