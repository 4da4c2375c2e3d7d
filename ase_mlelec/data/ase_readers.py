"""Images that ASE reads, finished: what its readers add to files of other programs, leave out or take for something else."""

import re
from collections.abc import Sequence
from os import PathLike

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import open_with_compression
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec.data.keys import meant, words_of
from ase_mlelec.io.text import element_of
from ase_mlelec.quantities import DIPOLE
from ase_mlelec.units import HARTREE

MARK = "mlelec:"  # prefix of keys of extxyz files, so that ASE does not interpret them
OWN = ("Lattice", "Properties", "pbc")  # keys of the structure; some programs write them in another case
SPECIES_COLUMN = "mlelec_labels"  # column of the species; other programs write labels such as Fe1
SPECIES_NAMES = ("species", "element", "elements", "symbol", "symbols")  # of other programs
DUMPS = ("lammps-dump-text", "lammps-dump-binary")


def extxyz_options() -> dict:
    """Options of ase.io.read for extxyz files, whose images ``complete`` has to finish."""
    return {"properties_parser": _parse_comment, "format": "extxyz"}


def complete(atoms: Atoms, kind: str) -> None:
    """Finish an image that ASE read, in place: keys, species, and what the readers of ASE leave out.

    Parameters
    ----------
    kind : str
        Format, as ASE calls it.

    Raises
    ------
    ValueError
        For species that are no elements, a cell under a name that ASE does not read, and sites of a CIF file that are
        occupied in part; and for Qbox, of which ASE converts no unit.
    """
    atoms.info = {key.removeprefix(MARK): value for key, value in atoms.info.items()}
    _name_species(atoms)
    add_free_energy(atoms)
    if kind == "extxyz":
        refuse_unread_cell(atoms)
        join_columns(atoms)
    if kind == "cif":
        refuse_shared_sites(atoms)
    if kind == "qbox":
        raise ValueError(
            "an output of Qbox, whose hartree, bohr and GPa ASE takes for eV, Å and eV/Å^3; write the structures in these "
            "units, such as extxyz"
        )


def labels_to_calculator(atoms: Atoms) -> None:
    """Move labels of an extxyz image to its calculator, in place, which ``extxyz_options`` leave in info.

    They are those with names of ASE's results; a result of a shape that ASE does not know is dropped. The virial is dropped
    as well: it would stay beside the stress of another calculator.
    """
    atoms.info.pop("virial", None)
    found = dict(getattr(atoms.calc, "results", {}))
    shapes = {"energy": (), "free_energy": (), "magmom": (), DIPOLE: (3,), "stress": (6,)}
    for name in sorted({*all_properties} & {*atoms.info}):
        value = np.asarray(atoms.info.pop(name))
        if name == "stress" and value.size == 9:
            value = full_3x3_to_voigt_6_stress(value.reshape(3, 3))
        if value.dtype.kind in "fiu" and value.shape == shapes.get(name):
            found[name] = value if value.shape else float(value)
    atoms.calc = SinglePointCalculator(atoms, **found) if found else None


def _name_species(atoms):
    """Set the elements of atoms whose species were read as labels, unless the file has atomic numbers as well."""
    labels = atoms.arrays.pop(SPECIES_COLUMN, None)
    if labels is None and not atoms.numbers.any():
        labels = next((atoms.arrays.pop(name) for name in SPECIES_NAMES if name in atoms.arrays), None)
    if atoms.numbers.any():
        return
    if labels is None:
        raise ValueError(
            "its atoms have no species; write symbols of elements, in extxyz in a column species:S:1 that Properties names"
        )
    atoms.symbols = [element_of(label) for label in labels]
    if atoms.calc is not None:  # the calculator remembers the structure of its results
        atoms.calc.atoms.symbols = atoms.symbols


def _parse_comment(line):
    """Parse the second line of an extxyz frame to a dict with keys that ASE does not interpret.

    ASE would make a calculator of some keys, whatever their values are; it expects nine numbers for a stress, and
    symbols for species.
    """
    for key in OWN:
        if not re.search(rf"(^|\s){key}\s*=", line):
            line = re.sub(rf"(^|\s){key}(\s*=)", rf"\1{key}\2", line, count=1, flags=re.IGNORECASE)
    _refuse_repeated(line)
    marked = re.sub(r"(^|\s)(stress|virial)(\s*=)", rf"\1{MARK}\2\3", line)
    found = key_val_str_to_dict(marked).items()
    found = {key if key in OWN or key.startswith(MARK) else MARK + key: value for key, value in found}
    columns = str(found.get("Properties", "species:S:1:pos:R:3"))
    if not {"pos", "positions"} & {*columns.split(":")[::3]}:
        raise ValueError(f"Properties={columns} names no column pos, of positions in Å; correct it")
    return {**found, "Properties": re.sub(r"(^|:)species(?=:S:1(:|$))", rf"\1{SPECIES_COLUMN}", columns)}


def _refuse_repeated(line):
    """Raise ValueError for a comment with a label twice, of which ASE would take the last."""
    values = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|\{[^}]*\}|\[[^\n]*?\](?=\s|$)"
    names = re.findall(r"(?:^|\s)([^\s=]+)\s*=", re.sub(values, "_", line))
    for name in names:
        if names.count(name) > 1 and (name in OWN or meant(name, 0.0)[0]):
            raise ValueError(f"the comment has {name} {names.count(name)} times; leave one")


def refuse_dump(path: str | PathLike, kind: str) -> None:
    """Refuse dumps of LAMMPS as labels: ASE adds energies of zero, and takes types for atomic numbers.

    Parameters
    ----------
    kind : str
        Format, as ASE calls it.

    Raises
    ------
    ValueError
        For such a file.
    """
    if kind in DUMPS:
        raise ValueError(
            f"{path}: a dump of LAMMPS, which has no energies, no units, and types in place of elements; write a file that "
            "has them, such as extxyz"
        )


def refuse_types(path: str | PathLike, kind: str) -> None:
    """Refuse dumps of LAMMPS without elements as structures, see ``refuse_dump``; they may be compressed."""
    if kind != DUMPS[0]:
        return
    with open_with_compression(str(path), "rb") as file:
        columns = next((line for line in file if line.startswith(b"ITEM: ATOMS")), b"").decode("utf-8", "replace")
    if not re.search(r"\s(element|mass)\s", f"{columns} "):
        raise ValueError(f"{path}: a dump of LAMMPS with types in place of elements; write it with a column 'element'")


def add_free_energy(atoms: Atoms) -> None:
    """Add the free energy of GPAW's text output, of which ASE takes the energy at a width of zero alone."""
    terms = {name.lower(): value for name, value in (getattr(atoms.calc, "energy_contributions", None) or {}).items()}
    extrapolated = terms.get("extrapolated", terms.get("zero kelvin"))
    if "free energy" in terms and extrapolated is not None and "free_energy" not in atoms.calc.results:
        correction = atoms.calc.results["energy"] - extrapolated  # of van der Waals forces
        atoms.calc.results["free_energy"] = terms["free energy"] + correction


def drop_dipole(atoms: Atoms, kind: str) -> bool:
    """Drop the dipole of a periodic structure of GPAW, in place, and return whether there was one.

    GPAW sums the density over its cell, whatever the boundaries are.
    """
    of_gpaw = kind in ("gpaw-out", "gpw") or getattr(atoms.calc, "name", None) == "gpaw"
    return bool(of_gpaw and atoms.calc and atoms.pbc.any() and atoms.calc.results.pop(DIPOLE, None) is not None)


FULL = 0.99  # occupancy of a site, less rounding


def refuse_shared_sites(atoms: Atoms) -> None:
    """Raise ValueError for sites that several species share, or that are partly empty: ASE makes whole atoms of them."""
    for shares in atoms.info.get("occupancy", {}).values():
        if len(shares) > 1 or min(shares.values()) < FULL:
            found = ", ".join(f"{symbol} {share:g}" for symbol, share in shares.items())
            raise ValueError(
                f"a site is occupied in part ({found}), which no model can evaluate; give a structure of whole atoms, such "
                "as a supercell with one arrangement of them"
            )


def refuse_unread_cell(atoms: Atoms) -> None:
    """Raise ValueError for an extxyz image whose cell has another name than Lattice: ASE would take it for a molecule."""
    for key, value in atoms.info.items():
        cells = words_of(key) & {"cell", "box", "lattice", "unitcell"} and atoms.cell.rank == 0
        if cells and np.size(value) in (3, 6, 9) and np.asarray(value).dtype.kind in "fiu":
            raise ValueError(
                f"it has {key} in place of Lattice, and would have no cell; rename it, nine numbers row by row"
            )


def join_columns(atoms: Atoms) -> None:
    """Join the columns fx, fy and fz of an extxyz image to forces, unless it has these."""
    columns = {name.lower(): name for name in atoms.arrays if name.lower() in ("fx", "fy", "fz")}
    names = [columns.get(name, "") for name in ("fx", "fy", "fz")]
    if all(names) and not any("force" in name.lower() for name in atoms.arrays):
        atoms.arrays["forces"] = np.stack([atoms.arrays.pop(name) for name in names], axis=1)


def read_aenet(path: str | PathLike, images: Sequence[Atoms]) -> None:
    """Add the energy of a file of aenet, an XSF file that begins with it, in place; its forces are in eV/Å.

    XCrySDen's forces are in hartree/Å, which ASE converts.
    """
    with open_with_compression(str(path), "rb") as file:
        first = file.readline(1000).decode("utf-8", "replace")
    found = re.match(r"#\s*total energy\s*=\s*(\S+)\s+eV\b", first, re.IGNORECASE)
    if (
        not found
        or len(images) != 1
        or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(E[-+]?\d+)?", found[1], re.IGNORECASE)
    ):
        return
    results = {"energy": float(found[1])}
    if images[0].calc is not None:
        results["forces"] = images[0].calc.results["forces"] / HARTREE
    images[0].calc = SinglePointCalculator(images[0], **results)
