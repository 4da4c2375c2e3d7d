"""Settings that a configuration leaves open, chosen by the data."""

from typing import Any

import numpy as np

from ase_mlelec.data.frames import Frames
from ase_mlelec.edges import Edges
from ase_mlelec.quantities import LABELS, QUANTITIES
from ase_mlelec.system import System
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.whole import DescriptorConfig, PowerSpectrumConfig
from ase_mlelec.train.roots import of_insulators

PRODUCTS = 4  # channels of the products of second and first moments, for vectors and tensors
SMOOTH = 1.0  # start of the switch of DeepPotSE for vectors and tensors, Å, or as much of the cutoff as of SHORTEST
# vectors and tensors depend on near atoms: with a cutoff of 6 Å, dipoles of dense ice had errors a quarter larger
NEIGHBORS, SHORTEST, LONGEST = 45, 4.5, 6.0  # within the cutoff; range of the cutoff, Å
LOOKED_AT = 8  # structures
DRAWN = 512, 1024  # drawn functions of each species for spectra, for few and for many structures
MANY = 2000  # atoms with labels that are many
MOST_DRAWN = 2048  # of all species together, the size of the normal matrices


def settled(config: Config, frames: Frames) -> Config:
    """Config with the descriptors and the centers that suit its heads and ``frames``, where it leaves them open.

    Raises
    ------
    ValueError
        Where centers cannot be found from the labels.
    """
    changes: dict[str, Any] = {}
    for quantity in config.wanted:
        section = config.section(quantity.name)
        if quantity.name in type(config).model_fields and getattr(section, "centers", None) == ():
            charged = tuple(sorted(getattr(section, "electrons", ())))
            centers = charged or centers_of(frames, quantity.name, ", ".join(config.data.files))
            changes[quantity.name] = section.model_copy(update={"centers": centers})  # type: ignore[union-attr]
    if _root_is_open(config) and of_insulators(frames):
        changes["dos"] = config.dos.model_copy(update={"square_root": True})  # type: ignore[union-attr]
    directed = [row for row in config.wanted if "3" in row.shape]
    if not config.instead:
        if "descriptor" not in config.model_fields_set and not config.start:
            changes |= _own_descriptor(config, directed, frames)
    elif config.electronic is None:
        changes |= _beside_energy(config, directed, frames)
    if config.long_range and config.dipole and config.electronic is None and "electronic" not in changes:
        # the centroids are trained first, the energy without them
        changes["electronic"] = of_directions(near(frames))
    return config.model_copy(update=changes) if changes else config


def _root_is_open(config):
    """Whether the data are to choose between the density of states and its square root."""
    dos = config.dos
    return bool(dos) and in_closed_form(config, "dos") and dos.square_root is None and not dos.loss_given


def _own_descriptor(config, directed, frames):
    """Descriptor of heads that are all fitted in closed form, without an energy; dict of settings of the Config."""
    if not config.wanted or not all(in_closed_form(config, row.name) for row in config.wanted):
        return {}
    return {"descriptor": of_directions(near(frames))} if directed else {"power_spectrum": PowerSpectrumConfig()}


def _beside_energy(config, directed, frames):
    """Descriptor of the other heads beside the ACE invariants of an energy; dict of settings of the Config."""
    by_data = config.power_spectrum is not None and config.power_spectrum.chosen_by_data
    if directed:
        return {"electronic": of_directions(near(frames) if by_data else config.cutoff)}
    others = [row.name for row in config.wanted if not row.gradients]
    # features chosen for energies and forces see too little for spectra, whose errors were a third larger with them
    if by_data and others and config.energy and all(in_closed_form(config, name) for name in others):
        return {"electronic": PowerSpectrumConfig()}
    return {}


def of_directions(cutoff: float) -> DescriptorConfig:
    """Settings of the DeepPotSE for vectors and tensors, by its cutoff, Å."""
    return DescriptorConfig(cutoff=cutoff, smooth=SMOOTH * min(cutoff / SHORTEST, 1), n_products=PRODUCTS)


def near(frames: Frames) -> float:
    """Cutoff, Å, within which an atom has NEIGHBORS neighbors, if the density is that of the neighbors within 6 Å."""
    some = frames.frames[:: max(1, len(frames) // LOOKED_AT)]
    edges = [Edges.build(System.from_atoms(frame.atoms), LONGEST) for frame in some]
    number = sum(len(each.vec) for each in edges) / max(sum(each.n_centers for each in edges), 1)
    return round(min(max(LONGEST * (NEIGHBORS / max(number, 1.0)) ** (1 / 3), SHORTEST), LONGEST), 1)


def in_closed_form(config: Config, name: str) -> bool:
    """Whether the head of a quantity is a drawn net, which is fitted in closed form."""
    return bool(getattr(config.section(name), "closed_form", False)) and not config.start


def n_drawn(frames: Frames, name: str, n_nets: int, n_features: int, wanted: int | None) -> int:
    """Number of drawn functions of each net of a head.

    Parameters
    ----------
    name : str
        Quantity of the head.
    n_nets, n_features : int
        Number of the nets, and of their inputs.
    wanted : int, optional
        Number that the configuration gives.
    """
    row = QUANTITIES[name]
    having = frames.where(lambda frame: any(label in frame.labels for label in row.labels))
    many = sum(len(frame.atoms) for frame in having) > MANY
    number = wanted or min(DRAWN[many], max(MOST_DRAWN // n_nets, 64))
    return number + (number in (n_features, 2 * n_features))  # layers of such a width have a shortcut


def centers_of(frames: Frames, name: str, sources: str) -> tuple[str, ...]:
    """Species with a value of a quantity that is not zero in ``frames``, tuple of str.

    Where all labels are sums over structures, every atom may have a share of a tensor. Vectors are then those of the
    species for which the data have electrons, or of some given by hand, because the dipole follows from their charges.

    Raises
    ------
    ValueError
        Where no label is by atom and nothing is known.
    """
    row, found = QUANTITIES[name], set()
    label = row.atomic
    for frame in frames:
        if label in frame.labels:
            values = np.reshape(frame.labels[label], (len(frame.atoms), -1))
            found |= {symbol for symbol, value in zip(frame.atoms.symbols, values) if value.any()}
    if not found and row.shape == "33" and any(row.total in frame.labels for frame in frames):
        found = {symbol for frame in frames for symbol in frame.atoms.symbols}
    if not found and row.shape == "3":
        found = {*frames.attributes.get("electrons_per_centre", ())} & {s for f in frames for s in f.atoms.symbols}
    if not found:
        raise ValueError(
            f"{sources}: {name}.centers: none of the {len(frames)} frames to train on has {LABELS[label].noun} that are "
            f'not zero, which would show the species of centers; give it, such as [{name}] centers = ["O"]'
        )
    return tuple(sorted(found))
