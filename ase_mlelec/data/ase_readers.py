"""What readers of ASE add to files of other programs, or leave out."""

import re
from os import PathLike

from ase import Atoms

DUMPS = ("lammps-dump-text", "lammps-dump-binary")


def refuse_dump(path: str | PathLike, kind: str) -> None:
    """Refuse dumps of LAMMPS as labels: ASE adds energies of zero, and takes types for atomic numbers.

    Parameters
    ----------
    kind : str
        Format, as ASE calls it.
    """
    if kind in DUMPS:
        raise ValueError(
            f"{path}: a dump of LAMMPS, which has no energies, no units, and types in place of elements; write a file that "
            "has them, such as extxyz"
        )


def refuse_types(path: str | PathLike, kind: str) -> None:
    """Refuse dumps of LAMMPS without elements as structures, see ``refuse_dump``."""
    if kind != DUMPS[0]:
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        columns = next((line for line in file if line.startswith("ITEM: ATOMS")), "")
    if not re.search(r"\s(element|mass)\s", f"{columns} "):
        raise ValueError(f"{path}: a dump of LAMMPS with types in place of elements; write it with a column 'element'")


def add_free_energy(atoms: Atoms) -> None:
    """Add the free energy of GPAW's text output, of which ASE takes the energy at a width of zero alone."""
    terms = {name.lower(): value for name, value in (getattr(atoms.calc, "energy_contributions", None) or {}).items()}
    extrapolated = terms.get("extrapolated", terms.get("zero kelvin"))
    if "free energy" in terms and extrapolated is not None and "free_energy" not in atoms.calc.results:
        correction = atoms.calc.results["energy"] - extrapolated  # of van der Waals forces
        atoms.calc.results["free_energy"] = terms["free energy"] + correction
