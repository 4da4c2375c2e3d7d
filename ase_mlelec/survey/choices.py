"""The configuration of a training that follows from the findings on its data."""

import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ase_mlelec.data.data_set import Frames
from ase_mlelec.data.keys import STRESS_UNIT
from ase_mlelec.quantities import DIPOLE, QUANTITIES
from ase_mlelec.survey.cost import expected, expected_hamiltonian, expected_ldos
from ase_mlelec.survey.dipoles import charges_like, formal_charges
from ase_mlelec.survey.sources import HAMILTONIAN, LDOS
from ase_mlelec.survey.toml_text import TomlText
from ase_mlelec.survey.whole import Survey
from ase_mlelec.survey.wrong_units import is_certain

BORN = "born_charges"
PARTS = ("train", "validation", "test", "support")  # groups that the settings of [data] name by default, and support
SHARE = 0.1  # of the structures that are held out for validation
FEW_SNAPSHOTS, EPOCHS = 4, {False: 300, True: 30}  # epochs of more and of fewer snapshots
FEW_HAMILTONIANS = 20


def configuration(found: Survey, path: str | PathLike, *, minutes: float | None = None) -> str:
    """Text of the commented TOML file for a training on the data.

    Parameters
    ----------
    found : Survey
    path : path
        Name of the TOML file, from whose folder the paths of data start; the model has the same name.
    minutes : float
        Time for gradient descent.

    Raises
    ------
    ValueError
        For data that have to be converted first, or that have no labels to train on; the message says what to do.
    """
    path = Path(path)
    if found.source.remedy:
        raise ValueError(f"{', '.join(map(str, found.source.paths))}: {found.source.remedy}")
    text = TomlText()
    _head(text, found, path)
    if minutes is not None:
        text.set(
            "minutes",
            float(minutes),
            "Time for gradient descent, as asked for; the steps follow from it. Closed forms take what they need.",
        )
    _data(text, found, path)
    if found.source.kind == LDOS:
        _ldos(text, found, timed=minutes is not None)
    else:
        (_hamiltonian if found.source.kind == HAMILTONIAN else _frames)(text, found)
    text.section("output")
    text.set("model", f"{path.stem}.safetensors")
    return str(text)


def _head(text, found, path):
    s = found.structures
    labels = ", ".join(f"{name} ({len(spread.frames)})" for name, spread in found.spreads.items()) or "no such labels"
    text.comment(
        f"Written by 'mlelec init' from {s.n_frames} structures of {', '.join(s.species)} with {int(s.n_atoms.sum())} atoms "
        f"and labels of {labels}."
    )
    text.comment(f"Train with 'mlelec train {path.name}'. All settings are in docs/settings.rst and 'mlelec schema'.")
    for each in found.suspicions:
        text.comment(f"WARNING: {each.text}")
    wrong = [each for each in found.misfits if not each.extreme]
    if wrong:
        shown = "; ".join(f"{found.name(each.frame)}: {each.reason}" for each in wrong[:3])
        many = f"{len(wrong)} structures do" if len(wrong) > 1 else "1 structure does"
        text.comment(f"WARNING: {many} not fit the rest, look before the training: {shown}.")


def relative(path: Path, folder: Path) -> str:
    """Path from a folder, absolute where it is not below it."""
    inside = os.path.relpath(path.resolve(), folder.resolve())
    return str(path.resolve()) if inside.startswith("..") else Path(inside).as_posix()


def _data(text, found, path):
    text.section("data")
    text.set("files", [relative(each, path.parent) for each in found.source.paths])
    if found.source.hot:
        why = "Energies of some of the structures at other temperatures of the electrons."
        text.set("hot", [relative(each, path.parent) for each in found.source.hot], why)
    groups = {name: found.frames.groups.count(name) for name in dict.fromkeys(found.frames.groups) if name}
    other = [name for name in groups if name not in PARTS]
    shown = ", ".join(f"{name} ({groups[name]})" for name in other)
    if other and "train" in groups:
        text.comment(f"Left out, as no setting names their groups: {shown}.")
    elif other:
        why = f"Structures of groups that no setting names would be left out: {shown}."
        text.set("train", other, why)
    if "support" in groups:
        text.set("support", ["support"], f"{groups['support']} structures teach the repulsion alone.")
    for name in ("validation", "test"):
        if name in groups:
            text.comment(f"The {groups[name]} structures of the group {name} are for {name} alone.")
    if "validation" not in groups and found.source.kind not in (LDOS, HAMILTONIAN):
        _held_out(text, found)
    keys = dict(found.source.keys)
    unit = _stress_unit(found)
    if keys or unit:
        text.section("data.keys")
        for label, name in keys.items():
            if label != STRESS_UNIT or not unit:
                text.set(label, name)
        if unit:
            text.set(STRESS_UNIT, unit, "From energies or forces, see the warning above.")


def _stress_unit(found):
    """Unit of stresses that the configuration has to name; "" for none."""
    return next((each.stress_unit for each in found.suspicions if each.stress_unit), "")


def _n_held(found):
    """Number of structures that are not trained on."""
    groups = found.frames.groups
    drawn = 0 if "validation" in groups else round(SHARE * found.structures.n_frames)
    return drawn + groups.count("validation") + groups.count("test")


def _held_out(text, found):
    """Say how many structures are held out for validation, and which."""
    s = found.structures
    held = round(SHARE * s.n_frames)
    if not held:
        text.comment(f"{s.n_frames} structures are too few to hold some out for validation.")
        return
    n = sum(len(run) for run in s.trajectories)
    pieces = (
        f"{n} structures lie in trajectories, of which whole pieces are held out, because neighbors in time are alike"
        if n
        else "no two are consecutive steps of a trajectory, so they are drawn at random"
    )
    text.set("validation_fraction", SHARE, f"Held out for validation: {held} of {s.n_frames} structures; {pieces}.")


# labeled structures ------------------------------------------------------------------------------------------------


def heads_of(frames: Frames) -> list[str]:
    """Quantities that labels of the frames can train."""
    has = frames.counts
    rows = [row for row in QUANTITIES.values() if row.labels]
    # stress alone says nothing about energies
    found = [row.name for row in rows if any(label in has and label != "virial" for label in row.labels)]
    alone = {DIPOLE, BORN} & {*has} and DIPOLE not in found and charges_of(frames)
    return found + [DIPOLE] if alone else found


def charges_of(frames: Frames) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Charges of ions and electrons for dipoles and Born charges, dict of e by symbol; None where they cannot be told."""
    found = formal_charges(frame.atoms for frame in frames)
    having = [frame for frame in frames if BORN in frame.labels]
    if found is None and having:
        return charges_like([frame.atoms for frame in having], [np.asarray(frame.labels[BORN]) for frame in having])
    return found


def _frames(text, found):
    heads = heads_of(found.frames)
    if not heads:
        labels = ", ".join(found.frames.counts) or "none"
        raise ValueError(
            f"{', '.join(map(str, found.source.paths))}: got labels {labels}, of which no model can be trained; need "
            "energies, forces, densities of states, displacements of Wannier centroids or polarizabilities: add some"
        )
    for name in heads:
        {"energy": _energy, "dos": _dos}.get(name, _centers)(text, found, name)


def _energy(text, found, name=None):
    text.section(
        "power_spectrum",
        "Descriptor of the energy: ACE invariants of up to five bodies; cutoffs and number of features by the data. "
        f"An atom has {found.structures.neighbors:.0f} neighbors within 6 Å.",
    )
    text.section("energy", f"{_energies_in_words(found)} {expected(found, _n_held(found))}")
    text.set(
        "widths",
        [],
        "Linear in the features and solved in closed form: accurate with few data, without steps, the same in each run.",
    )
    if any(each.label == "stress" and not (each.stress_unit or each.partly) for each in found.suspicions):
        text.set("virial", [0.0, 0.0], "The stress looks wrong (see the warning above) and is left out.")


def _energies_in_words(found):
    words = []
    if found.energies is not None:
        words.append(f"Energies vary by {1000 * found.energies.spread:.3g} meV/atom beyond a sum over species")
    if "forces" in found.spreads:
        words.append(f"forces by {found.spreads['forces'].rms:.3g} eV/Å (root mean square)")
    if found.force_factor is not None and is_certain(found.force_factor):
        words.append(f"energy differences are {found.force_factor.value:.3g} times those that the forces give")
    return "; ".join(words) + "."


CLOSED_FORM = "Drawn functions in closed form; their number, the ridge and weights are found from the data."


def _dos(text, found, name):
    grid = found.frames.energies
    which = "of atoms" if "ados" in found.frames.counts else "of structures alone"
    text.section("dos", f"Spectra {which} at {len(grid)} energies from {grid[0]:g} to {grid[-1]:g} eV. {CLOSED_FORM}")


def _centers(text, found, name):
    atomic = QUANTITIES[name].atomic
    text.section(name, CLOSED_FORM)
    if name == DIPOLE and _needs_charges(found.frames) and (charges := charges_of(found.frames)):
        ions, electrons = charges
        what = "Born charges" if BORN in found.frames.counts else "dipoles"
        text.set(
            "ions", ions, f"Charges by which {what} become those of displacements; check the unit of dipoles, e Å."
        )
        text.set("electrons", electrons, "Electrons at the centers, which are displaced; structures are neutral.")
    if name == DIPOLE and not set(QUANTITIES[name].labels) & set(found.frames.counts):
        return
    species = _species_with(found.frames, atomic)
    if species:
        text.set("centers", species, f"Species whose atoms have labels '{atomic}' that are not zero.")
        return
    species = found.structures.species
    centers = [symbol for symbol in species if symbol != "H"] or species
    text.set("centers", centers, "The data have sums over structures alone: all species but hydrogen share them.")


def _needs_charges(frames):
    """Whether dipoles or Born charges are to become labels of vectors, and the data do not have all that is needed."""
    alone = not {*QUANTITIES[DIPOLE].labels} & {*frames.counts}
    return alone or (BORN in frames.counts and not {"valence_charges", "valence_electrons"} & {*frames.attributes})


def _species_with(frames, label):
    """Species of the atoms with labels that are not zero."""
    found: set[str] = set()
    for frame in frames:
        if label in frame.labels:
            rows = np.asarray(frame.labels[label]).reshape(len(frame.atoms), -1).any(axis=1)
            found |= {str(symbol) for symbol in np.array(frame.atoms.get_chemical_symbols())[rows]}
    return sorted(found)


# LDOS and Hamiltonians ---------------------------------------------------------------------------------------------


def _ldos(text, found, timed):
    n, n_species = found.structures.n_frames, len(found.structures.species)
    few = n < FEW_SNAPSHOTS
    known = found.frames.attributes
    text.section("bispectrum", "Fingerprints of the points of the grid.")
    text.set(
        "n_radial", 0 if few else 16, f"Radial sums beside the bispectrum, for {n} snapshots of {n_species} species."
    )
    widths = (512, 512) if few else (128, 128)
    cost = "Time as asked for." if timed else expected_ldos(found, EPOCHS[few], widths)
    text.section("ldos", cost)
    if few:
        text.comment(f"{n} snapshots: many steps of few points each, and a refit that keeps to what it knows.")
        for key, value in (("widths", [*widths]), ("scaling", "spread"), ("batch_points", 256)):
            text.set(key, value)
        text.set("dos_weight", 0.0)
        text.set("hold", 1e-4)
    else:
        text.set("fingerprints", "components", "Principal components, of which many snapshots tell more.")
        text.set("batch_size", 4)
    if not timed:  # a number of epochs would take precedence over ``minutes``
        text.set("epochs", EPOCHS[few])
    text.set("schedule", "cosine", "Half a cosine, which needs no validation snapshots.")
    if known["densities"] == n and not few:
        text.set("density", 0.5, f"All {n} snapshots have their density.")
    if _all_have(found, "forces") and not few:
        text.set("force_weight", 0.01, "All snapshots have forces, to which the last layer is refitted.")
    if _all_have(found, "energy") and known["densities"] == n and not few:
        text.set("energy_weight", 0.1, "All snapshots have free energies, to which the last layer is refitted.")


def _all_have(found, label):
    return found.frames.counts.get(label, 0) == len(found.frames)


def _hamiltonian(text, found):
    n = found.structures.n_frames
    if {"energy", "forces"} <= found.frames.counts.keys():
        _energy(text, found)
    text.section(
        "hamiltonian", f"{n} structures; energies are relative to the vacuum level. {expected_hamiltonian(found)}"
    )
    if n >= FEW_HAMILTONIANS:
        text.set("third", 6.5, "A third atom changes the hopping of a pair; enough structures to learn it.")
    if not found.frames.attributes.get("electrons_per_atom"):
        text.set("levels", 0.0, "The file has no numbers of electrons, so that no level is the Fermi level.")
