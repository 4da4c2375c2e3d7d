"""Reference energies of a new energy head: isolated atoms from the configuration or the data."""

from collections.abc import Mapping
from typing import Any

from ase_mlelec.train.config import Config
from ase_mlelec.train.isolated import BOUND, binding, isolated_energies
from ase_mlelec.train.log import say_once
from ase_mlelec.train.recipes.starting import starting_model


def reference_energies(parts: Mapping[str, Any], config: Config, *, progress: bool = False) -> dict[str, float]:
    """Energies of isolated atoms that a model is to reproduce, dict of eV by symbol; {} for none (see EnergyConfig.E0).

    With ``progress`` lines tell what is taken, and what is implausible about it.

    Raises
    ------
    ValueError
        For species that the data lack, isolated atoms that are asked for and are not there, and energies that are given
        for a model that starts from another.
    """
    if config.energy is None:
        return {}
    given = config.energy.E0
    isolated, sources = parts.get("isolated", ()), ", ".join(config.data.files)
    species = {symbol for frame in parts["train"] for symbol in frame.atoms.symbols}
    found, different = isolated_energies(isolated)
    missing = sorted(species - found.keys())
    if config.start:
        if given != "auto" and given != "average":
            raise ValueError(
                "energy.E0: got energies of isolated atoms beside start, whose model has some; leave one out"
            )
        found, different, missing = starting_model(config).metadata.get("isolated_atoms_eV", {}), [], []
    elif isinstance(given, dict):
        foreign = sorted(given.keys() - species)
        if foreign:
            raise ValueError(
                f"energy.E0: got {foreign[0]}, {sources} has {', '.join(sorted(species))} to train on; leave it out"
            )
        found, different, missing = given, [], sorted(species - given.keys())
    elif given == "isolated" and missing:
        raise ValueError(
            f'energy.E0: got "isolated", but {sources} has no isolated atom of {missing[0]} with an energy; add one, or '
            f"give E0 = {{{missing[0]} = ...}}"
        )
    found = {symbol: found[symbol] for symbol in sorted(found) if symbol in species} if given != "average" else {}
    if progress:
        _say(found, parts, missing if found else [], [symbol for symbol in different if symbol in found], len(isolated))
    return found


def _say(found, parts, missing, different, n_isolated):
    """Print what the reference energies are, and warn of implausible ones."""
    if found:
        shown = ", ".join(f"{symbol} {energy:.6g}" for symbol, energy in found.items())
        rest = f"; of {', '.join(missing)} by least squares" if missing else ""
        say_once(f"[energy] isolated atoms have exactly these energies (E0), eV: {shown}{rest}")
    elif n_isolated:
        say_once(f"[energy] {n_isolated} isolated atoms are left out; reference energies by least squares")
    for symbol in different:
        say_once(f"[energy] warning: isolated atoms of {symbol} have several energies; the lowest is taken")
    bound = binding(parts["train"], found) if found else None
    if bound is not None and not BOUND[0] < bound < BOUND[1]:
        say_once(
            f"[energy] warning: with E0 the structures are bound by {bound:.3g} eV/atom, expected are {BOUND[0]:g} to "
            f"{BOUND[1]:g}; is E0 of the same calculations as the energies? If not, leave it out, or set "
            'E0 = "average"'
        )
    if not any("energy" in frame.labels for frame in parts["train"]) and not found:
        say_once(
            "[energy] no structure has an energy: the zero of energy of every species is undetermined and set to zero; "
            "forces and stress are learned"
        )
