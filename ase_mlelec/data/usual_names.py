"""Names that other programs use for labels, kinds and weights of structures, where a file has none of ours.

Groups and kinds
    A group is the purpose of a structure: train, validation, test. A kind says where it comes from: liquid, surface,
    IsolatedAtom. Kinds have weights and errors of their own; they decide on the purpose only where a setting names them.
Weights
    MACE and GAP name them config_weight, config_energy_weight, config_forces_weight ...
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.keys import GROUP, KIND, OTHER_ENERGIES, WEIGHT, meant, words_of
from ase_mlelec.quantities import DIPOLE, LABELS

NAMES = {  # in the order of precedence
    GROUP: ("group", "split"),
    KIND: ("config_type", "kind", "dataset", "category"),
    WEIGHT: ("config_weight", "weight"),
}
WEIGHT_OF_LABEL = re.compile("config_([a-z]+)_weight")
# results of ASE's calculators that tell nothing beside a label: shares of atoms, dipole by volume
SHARES = {"energies": "energy", "stresses": "virial", "polarization": DIPOLE}
SAME_ENERGY = 1e-6  # eV/atom
REFERENCE = set("ref reference dft true target qm vasp".split())  # words in names of labels, beside those of models
PREDICTED = set(
    "pred predicted prediction predictions ml nn gap mace nequip".split()
)  # words in keys of results of models
# words of energies that belong to usual forces; ACE's energy_corrected is the energy without that of isolated atoms
PLAIN = set("total tot potential energy e etot toten epot corrected".split())


def shares_of(labels: Iterable[str]) -> set[str]:
    """Keys that tell nothing more than labels that are read."""
    return {key for key, label in SHARES.items() if label in labels}


def texts_of(contents: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """Group and kind of an image, dict of str, and set of the keys from which they were read."""
    found, taken = {GROUP: "", KIND: ""}, set[str]()
    for what in found:
        for key in [keys[what]] if what in keys else NAMES[what]:
            value = contents.get(key, "")
            if key not in taken and isinstance(value, str | int | np.integer) and not isinstance(value, bool):
                found[what] = str(value)
            if found[what]:
                taken.add(key)
                break
    return found, taken


def weights_of(
    contents: Mapping[str, Any], keys: Mapping[str, str], place: str
) -> tuple[float, dict[str, float], set[str]]:
    """Weight of an image, weights of its labels (dict by label), and set of the keys from which they were read.

    Raises
    ------
    ValueError
        For a weight that is negative or not finite.
    """
    names = [keys[WEIGHT]] if WEIGHT in keys else NAMES[WEIGHT]
    own = next((key for key in names if key in contents and _is_number(contents[key])), None)
    of_labels = {}
    for key in contents:
        match = WEIGHT_OF_LABEL.fullmatch(key.lower())
        label = match and _label_of_weight(match[1])
        if label and _is_number(contents[key]):
            of_labels[key] = label
    weights = {key: _weight(f"{place}, {key}", contents[key]) for key in (*of_labels, *filter(None, [own]))}
    return weights[own] if own else 1.0, {label: weights[key] for key, label in of_labels.items()}, {*weights}


def _label_of_weight(word):
    """Label that data sets hold for a word in the name of a weight, such as virials; None for an unknown word."""
    found = next((row for row in LABELS.values() if word in (row.name, *row.keys)), None)
    return found and (found.becomes or found.name)


def _is_number(value):
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"


def _weight(place, value):
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{place}: got {value}, need a weight of 0 or more; correct it")
    return float(value)


def guessed(images: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, str]:
    """Names of labels in a file in which no label has its usual name: keys by label, {} for none.

    A key is taken where it alone can mean the label, or where it alone of these has a word such as REF or DFT. Nothing
    is taken where a label of energies remains open: its names would be of different calculations. Beside usual forces an
    energy with a plain name is taken, such as TotEnergy, where it is the only one.

    Parameters
    ----------
    images : sequence of dict
        Contents of all images.
    keys : dict
        Names that the user gives; with a name of a label nothing is guessed.
    """
    contents: dict[str, Any] = {}
    for image in images:
        contents = {**image, **contents}
    lower = {key.lower() for key in contents}
    usual = {label: lower & {*row.keys} for label, row in LABELS.items()}
    if LABELS.keys() & keys.keys():
        return {}
    if any(usual.values()):
        return {} if usual["energy"] or not usual["forces"] else _plain_energy(contents)
    candidates: dict[str, list[str]] = {}
    for key, value in contents.items():
        label = meant(key, value)[1]
        if label and not (label == "energy" and words_of(key) & OTHER_ENERGIES) and not isinstance(value, str):
            candidates.setdefault(label, []).append(key)
    chosen = {label: _only(names) for label, names in candidates.items()}
    if {*candidates} == {"energy"} and len(str(chosen["energy"])) == 1:  # E of many programs is in hartree
        return {}
    open_ones = {label for label, name in chosen.items() if name is None}
    if open_ones & {"energy", "forces", "stress", "virial"}:
        return {}
    return {label: chosen[label] for label in LABELS if chosen.get(label)}  # type: ignore[misc]  # no None among them


def _plain_energy(contents):
    """{"energy": key} of the only energy beside usual forces, where its name is as plain as theirs, such as TotEnergy."""
    found = [key for key, value in contents.items() if meant(key, value)[1] == "energy"]
    potential = [key for key in found if words_of(key) & {"potential", "epot"}]  # beside kinetic and total energy
    found = potential if len(potential) == 1 else found
    plain = len(found) == 1 and not isinstance(contents[found[0]], str) and words_of(found[0]) <= PLAIN
    return {"energy": found[0]} if plain else {}


def _only(names: Iterable[str]) -> str | None:
    """The only one of ``names`` that no model has predicted, or the only one with a word such as REF; None otherwise."""
    names = [name for name in names if not words_of(name) & PREDICTED]
    if len(names) > 1:
        names = [name for name in names if words_of(name) & REFERENCE]
    return names[0] if len(names) == 1 else None


def other_energies(images: Sequence[Mapping[str, Any]], frames: Sequence[Frame], unread: Iterable[str]) -> list[str]:
    """Notes on energies that are not read and differ from those that are, by the contents of all images.

    Keys that name another energy, such as that of formation, or an error are left out.
    """
    notes = []
    for key in (each for each in unread if not words_of(each) & OTHER_ENERGIES):
        pairs = [(each, f) for each, f in zip(images, frames) if key in each and "energy" in f.labels]
        energies = [
            float(each[key]) for each, _ in pairs if _is_number(each[key]) and meant(key, each[key])[1] == "energy"
        ]
        if len(energies) < len(pairs) or not pairs:
            continue
        away = max(abs(e - float(f.labels["energy"])) / len(f.atoms) for e, (_, f) in zip(energies, pairs))
        if away > SAME_ENERGY:
            notes.append(
                f"{key} and the energy that is read differ by up to {away:.2g} eV/atom: make sure which is right"
            )
    return notes
