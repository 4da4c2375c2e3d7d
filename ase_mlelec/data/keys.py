"""Keys of labels in files of other programs, and recognition of keys that look like labels but are not read."""

import re
import warnings
from collections.abc import Container, Mapping, Sequence, Set
from os import PathLike
from typing import Any

import numpy as np

from ase_mlelec import units
from ase_mlelec.quantities import DIPOLE, LABELS

GROUP, KIND, WEIGHT, STRESS_UNIT = "group", "kind", "weight", "stress_unit"
STRUCTURE = {"numbers", "positions", "dos_energies", "name", GROUP}  # keys that are read but are no labels
# factors to eV/Å^3 with ASE's sign, positive under tension; programs that print a pressure have the opposite sign
STRESS_UNITS = {"eV/A^3": 1.0, "GPa": units.GPA, "kbar": units.GPA / 10}
STRESS_UNITS |= {f"-{name}": -factor for name, factor in STRESS_UNITS.items()}
# units in which files may have a label, for settings such as "dipole_unit", with factors to the unit of the label
LABEL_UNITS = {
    DIPOLE: {"e A": 1.0, "e bohr": units.BOHR, "debye": units.DEBYE},
    "polarizability": {"A^3": 1.0, "bohr^3": units.BOHR**3},
}
UNIT = "_unit"
# order of the two indices of Born charges in files
ORDER = "born_charges_order"
DISPLACEMENT_FIRST = "displacement, dipole"
ORDERS = ("dipole, displacement", DISPLACEMENT_FIRST)

# parts of keys and whole words in keys for quantities that are no labels here; LONGER_PARTS are tried before labels
LONGER_PARTS = ("stresses", "energies", "polarization", "polarisation")
FOREIGN_PARTS = ("hessian", "gradient", "enthalpy", "magmom", "eigenvalue", "charges", "hirshfeld", "bandgap")
FOREIGN_WORDS = ("homo", "lumo", "gap", "grad")
# whole words in keys of numbers in units other than ASE's, or per atom, which cannot be read directly
OTHER_UNITS = set(
    "kbar kb gpa mpa pa ha mha eh hartree ry mry rydberg kcal kcalmol kj kjmol mol bohr au mev mevatom evatom debye per "
    "peratom".split()
)
# those of these words that a setting of the unit reads
READ_UNITS = {
    "stress": {"kbar": "kbar", "kb": "kbar", "gpa": "GPa"},
    DIPOLE: {"debye": "debye", "bohr": "e bohr", "au": "e bohr"},
    "polarizability": {"bohr": "bohr^3", "au": "bohr^3"},
}
# whole words in keys of inputs on which labels depend
INPUTS = set("charge spin multiplicity efield field fparam aparam electronic_temperature smearing".split())
# words in keys of energies that are not the energy whose gradient the forces are
OTHER_ENERGIES = set(
    "kinetic fermi hull zero zpe ekin repulsion dispersion vdw d3 coulomb interaction formation cutoff correction std error "
    "delta uncertainty variance var shift binding cohesive atomization reaction".split()
)
UNITS = {"unit", "units"}  # words in keys of texts
NO_UNITS = {"cell", "formula"}  # beside these words, as in unit_cell, which ASE's reader of CIF files adds
# words in the values of keys such as energy_unit for the units that labels are read in
OWN_UNITS = set("ev electronvolt electronvolts angstrom angstroms ang a å e per atom metal ase".split())


def check_keys(keys: Mapping[str, str]) -> dict:
    """Check ``keys`` and return them as a dict; refuse unknown labels.

    Raises
    ------
    ValueError
    """
    known = (*LABELS, GROUP, KIND, WEIGHT, STRESS_UNIT, ORDER, *(label + UNIT for label in LABEL_UNITS))
    for label, key in keys.items():
        if label not in known or not key:
            raise ValueError(
                f"keys: got {label} = {key!r}, need one of {', '.join(known)} and the name that it has in the file"
            )
        if label == STRESS_UNIT and key not in STRESS_UNITS:
            raise ValueError(
                f"keys: got {STRESS_UNIT} = {key!r}, need one of {', '.join(STRESS_UNITS)}; - is for a stress that is "
                "positive under pressure"
            )
        if label == ORDER and key not in ORDERS:
            raise ValueError(f"keys: got {ORDER} = {key!r}, need '{ORDERS[0]}', the default, or '{ORDERS[1]}'")
        if label.removesuffix(UNIT) in LABEL_UNITS and label.endswith(UNIT):
            factor_of(label, key)
    return dict(keys)


def factor_of(setting: str, text: str) -> float:
    """Factor to the unit of a label from a text such as "e bohr" or "2.5 bohr^3", of a setting such as "dipole_unit"."""
    table = LABEL_UNITS[setting.removesuffix(UNIT)]
    found = re.fullmatch(r"\s*(?:([-+]?[\d.][-+.\deE]*)\s+)?(.*?)\s*", text)
    try:
        number = float(found[1] or 1.0) if found else 0.0
    except ValueError:
        number = 0.0
    if not found or found[2] not in table or not 0 < abs(number) < 1e9:
        raise ValueError(
            f"keys: got {setting} = {text!r}, need one of {', '.join(table)}, with a number before it where the file has "
            f"multiples, such as '2.5 {next(iter(table))}'"
        )
    return number * table[found[2]]


def in_unit(label: str, value: Any, keys: Mapping[str, str]) -> Any:
    """Value of a label in its own unit, from a file whose unit may be in ``keys``."""
    setting = label + UNIT
    return value * factor_of(setting, keys[setting]) if label in LABEL_UNITS and setting in keys else value


def in_order(label: str, value: Any, keys: Mapping[str, str]) -> Any:
    """Value of a label with its indices in the order of this package, from a file whose order may be in ``keys``."""
    swapped = label == ORDER.removesuffix("_order") and keys.get(ORDER) == DISPLACEMENT_FIRST and np.ndim(value) == 3
    return np.swapaxes(value, 1, 2) if swapped else value


def meant(key: str, value: Any) -> tuple:
    """(whether a key looks like a label, name of that label or None), from the key and the form of its value."""
    looks, label = _label_of(key, value)
    unread = label and ("weight" in key.lower() or "sigma" in key.lower() or _other_units(key, label))
    return looks, None if unread else label


def _label_of(key, value):
    """As ``meant``, also for a label in a unit that is not read directly."""
    lower, words = key.lower(), words_of(key)
    if words & UNITS:
        return False, None
    if "stress" in lower and "virial" in lower:  # it may be either, with another unit and sign
        return True, None
    # later rows are tried first, because their names may contain the names of earlier rows
    rows = [*reversed(LABELS.values())]
    found = [label for part, label in _parts(rows) if part in lower][:1]
    found = found or [row.name for row in rows if words & {*row.words}][:1] or [None] * bool(words & {*FOREIGN_WORDS})
    if not found or np.asarray(value).dtype.kind not in "fiuS" or (found[0] == "energy" and np.size(value) > 1):
        return bool(found), None
    return True, found[0]


def _other_units(key, label):
    """Words in a key that tell of other units; eV_per_A and the like is our own."""
    others = re.sub("per_?a(ng|ngstrom)?(?![a-z])", "", key, flags=re.IGNORECASE)
    words = words_of(others) | {*re.split("[^a-z]+", others.lower())}
    return words & (OTHER_UNITS | ({"atom"} if label == "energy" else set()))


def _parts(rows):
    """Pairs of (part of a key, name of the label that it means or None), in the order of precedence."""
    yield from ((part, None) for part in LONGER_PARTS)
    yield from ((part, row.name) for row in rows for part in row.parts)
    yield from ((part, None) for part in FOREIGN_PARTS)


def words_of(key: str) -> set[str]:
    """Words of a key such as REF_energy or refEnergy, set of str in lower case."""
    return set(re.split("[^a-z]+", re.sub("([a-z])([A-Z])", r"\1_\2", key).lower()))


def is_input(key: str, values: Sequence) -> bool:
    """Whether a key holds an input on which labels depend, with ``values`` that are nonzero or differ among frames."""
    words = set(re.split("[^a-z]+", key.lower()))
    if not (words & INPUTS or key.lower() in INPUTS):
        return False
    texts = {str(value) for value in values}
    if words & {"spin", "multiplicity"}:
        return len(texts) > 1 or any(map(_is_open_shell, values))
    return len(texts) > 1 or _are_set(values, "fiub")


def remedy(contents: Mapping[str, Any]) -> str:
    """Settings that would read the entries of ``contents`` (dict by key) that may be labels; "" for none."""
    found: dict[str, str] = {}
    # keys that name another energy come last
    for key, value in sorted(contents.items(), key=lambda item: bool(words_of(item[0]) & OTHER_ENERGIES)):
        label = meant(key, value)[1]
        if label:
            found.setdefault(label, key)
    for key, value in contents.items():
        label = _label_of(key, value)[1]
        units = {READ_UNITS.get(label, {}).get(word) for word in (_other_units(key, label) if label else ())}
        if label not in found and len(units) == 1 and (unit := units.pop()):
            found |= {label: key, label + UNIT: unit}
    names = (*LABELS, *(label + UNIT for label in LABELS))
    found = {name: found[name] for name in names if name in found}
    table = ", ".join(f'{name} = "{key}"' for name, key in found.items())
    options = " ".join(f"--key {name}={key!r}" if " " in key else f"--key {name}={key}" for name, key in found.items())
    signs = " (with - before the unit where it is positive under pressure)" * (STRESS_UNIT in found)
    return (
        table
        and f"to read them set {table} in [data.keys] of the configuration, or give mlelec convert {options}{signs}"
    )


def in_other_units(contents: Mapping[str, Any]) -> str:
    """What to do with entries of ``contents`` (dict by key) whose names tell units that are not read; "" for none."""
    found = {key: _label_of(key, value)[1] for key, value in contents.items()}
    found = {key: label for key, label in found.items() if label and _other_units(key, label)}
    return "; ".join(
        f"{key} is in another unit or per atom, by its name: convert it to {LABELS[label].unit}, and call it {label}"
        for key, label in found.items()
    )


def remedy_of_stress(virial: np.ndarray, given: np.ndarray, keys: Mapping[str, str]) -> str:
    """Remedy for a stress from which ``virial`` follows, where ``given`` is the virial."""
    was = STRESS_UNITS[keys.get(STRESS_UNIT, "eV/A^3")]
    for unit, factor in STRESS_UNITS.items():
        if np.allclose(virial * factor / was, given, atol=0.01 * abs(given).max()):
            return f'set stress_unit = "{unit}" in [data.keys] of the configuration, or give --key stress_unit={unit}'
    return "take the wrong one out of the file"


def check_used(source: str | PathLike, keys: Mapping[str, str], used: Set[str], unread: Mapping[str, list]) -> None:
    """Raise ValueError where no image has a key of the setting."""
    for label, key in keys.items():
        if key not in used and not label.endswith(UNIT) and label != ORDER:
            others = sorted(used | unread.keys())
            raise ValueError(
                f"{source}: no structure has the key '{key}' that is named for {label}; there are "
                f"{', '.join(others) or 'no keys at all'}; correct the name"
            )


def check_units(source: str | PathLike, unread: Mapping[str, Sequence], keys: Mapping[str, str]) -> None:
    """Raise ValueError where a file says that its numbers have other units than those in which labels are read.

    Units that ``keys`` name are known.
    """
    if any(name.endswith(UNIT) for name in keys):
        return
    for key, values in unread.items():
        if not words_of(key) & UNITS or words_of(key) & NO_UNITS:
            continue
        for value in values:
            if isinstance(value, str) and not {*re.findall("[^\\W\\d_]+", value.lower())} <= OWN_UNITS:
                raise ValueError(
                    f"{source}: it says {key} = '{value}', but labels are read in eV and Å; convert them, or take {key} out "
                    "of the file if they are in eV and Å"
                )


def warn_of_unread(
    source: str | PathLike, unread: Mapping[str, list], notes: Sequence[str], labels: Container[str]
) -> None:
    """Warn once of unread keys that may be labels or inputs of labels, beside ``notes`` on what was read.

    ``unread`` has the values by key, ``labels`` names what was read.
    """
    named = {key: values[0] for key, values in unread.items() if _counts(key, values)}
    inputs = sorted(key for key, values in unread.items() if key not in named and is_input(key, values))
    parts = list(notes)
    if named:
        ordered = {key: named[key] for key in sorted(named)}
        missing = {key: value for key, value in ordered.items() if _label_of(key, value)[1] not in labels}
        read = remedy(ordered) or in_other_units(missing)
        parts.append(f"{', '.join(ordered)} may be labels but are not read" + (f"; {read}" if read else ""))
    if inputs:
        parts.append(
            f"labels may depend on {', '.join(inputs)}, which no model here knows; split the data by it, or "
            "leave it out"
        )
    if parts:
        warnings.warn(f"{source}: {'. '.join(parts)}", stacklevel=5)


def _counts(key, values):
    looks, label = meant(key, values[0])
    # moments and charges of zero are no information
    return looks and (label is not None or _are_set(values, "fiu"))


def _is_open_shell(value):
    """Whether a spin or multiplicity is a number other than 0, and than 1, the multiplicity of closed shells."""
    number = np.asarray(value)
    return number.dtype.kind in "fiu" and not np.isin(number, (0, 1)).all()


def _are_set(values, kinds):
    """Whether some of the values are something else than zeros, numbers of these NumPy kinds."""
    return any(np.asarray(value).dtype.kind not in kinds or np.any(value) for value in values)
