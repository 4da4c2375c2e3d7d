"""What the distances of the training data decide: core, ranges, and where the radial functions of ACE begin."""

from collections.abc import Iterable, Mapping

from ase_mlelec.data.data_set import Frame
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.config import Config
from ase_mlelec.train.protection import protect
from ase_mlelec.train.recipes.starting import starting_model


def shortest_distance(frames: Iterable[Frame], cutoff: float) -> float | None:
    """The shortest distance of two atoms, Å, or None where none are within ``cutoff``."""
    edges = (Edges.build(System.from_atoms(frame.atoms), cutoff) for frame in frames)
    return min((float(e.distances.min()) for e in edges if len(e.vec)), default=None)


def inner_distance(frames: Iterable[Frame]) -> float:
    """Inner end of the radial functions of ACE, Å: a little below the shortest distance."""
    shortest = shortest_distance(frames, 6.0)
    if shortest is None:
        raise ValueError(
            "got no atoms within 6 Å of each other, from which a power spectrum takes where it begins; "
            "give power_spectrum.inner"
        )
    return round(0.9 * shortest, 3)


def protect_trained(
    model: Model,
    parts: Mapping[str, Iterable[Frame]],
    config: Config,
    hamiltonians: Iterable[Frame] | None = None,
    ranges: bool = True,
) -> None:
    """Add core and ranges to a model from its training data (see ase_mlelec.train.protection).

    Parameters
    ----------
    parts : dict of Frames
        Parts of the data; "train" has the structures for the purpose of the model.
    hamiltonians : iterable of frames
    ranges : bool
        As in ase_mlelec.train.protection.protect.
    """
    former = starting_model(config).metadata.get("shortest_distances_A", {}) if config.start else {}
    protect(
        model,
        *([frame.atoms for frame in part] for part in (parts["train"], parts.get("support", ()))),
        hamiltonians=hamiltonians and [frame.atoms for frame in hamiltonians],  # type: ignore[arg-type]  # itself if empty
        former=former,
        core=config.energy is None or config.energy.core,
        ranges=ranges,
    )
