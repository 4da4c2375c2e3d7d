"""Places of local frames, which settings leave to the data."""

from collections.abc import Mapping

import numpy as np

from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors import DeepPotLocalFrame
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.train.config import Config
from ase_mlelec.train.recipes.starting import starting_model

FULL = 16  # neighbors of each species with full information


def with_places(config: Config, parts: Mapping[str, Frames]) -> Config:
    """Config with the numbers of neighbors of [local_frame] that suit the structures of all parts.

    Raises
    ------
    ValueError
        For numbers that the structures exceed.
    """
    options = config.local_frame
    if options is None:
        return config
    species = sorted({symbol for frame in parts["train"] for symbol in frame.atoms.symbols})
    most = most_neighbors(parts, species, options.cutoff)
    theirs = starting_model(config).descriptor if config.start else None
    sel, full = options.sel, options.full
    if isinstance(theirs, DeepPotLocalFrame):
        sel, full = sel or theirs.sel, full or theirs.full
    sel = sel or tuple(max(number, 1) for number in most)
    if len(sel) == len(most) and any(number > room for number, room in zip(most, sel)):
        raise ValueError(
            f"local_frame.sel: got {list(sel)}, atoms of {', '.join(config.data.files)} have up to {list(most)} neighbors "
            f"of {', '.join(species)} within {options.cutoff:g} Å; give at least these, or a shorter cutoff"
        )
    full = full or tuple(min(FULL, number) for number in sel)
    return config.model_copy(update={"local_frame": options.model_copy(update={"sel": sel, "full": full})})


def most_neighbors(parts: Mapping[str, Frames], species: list[str], cutoff: float) -> tuple[int, ...]:
    """The largest number of neighbors of each species within ``cutoff``, Å, of any atom of the structures."""
    most = np.zeros(len(species), dtype=int)
    for frame in (frame for part in parts.values() for frame in part):
        edges = Edges.build(System.from_atoms(frame.atoms), cutoff)
        symbols = np.array(frame.atoms.get_chemical_symbols())[edges.neighbor.numpy()]
        for k, symbol in enumerate(species):
            own = edges.center.numpy()[symbols == symbol]
            most[k] = max(most[k], np.bincount(own).max(initial=0))
    return tuple(most.tolist())
