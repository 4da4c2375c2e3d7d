"""Long range in a training: centroids first, then the energy of what their electrostatics leave of the labels."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from ase_mlelec.data.frames import Frames
from ase_mlelec.edges import Edges
from ase_mlelec.long_range import VECTORS, LongRange
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.whole import DescriptorConfig
from ase_mlelec.train.log import Log

LABELS = ("energy", "forces", "virial")


@dataclass(frozen=True)
class FarPart:
    """Long range of a model that is trained, and the Model of the centroids alone; None for none."""

    long_range: LongRange | None = None
    centroids: Model | None = None

    def of_energy(self, config: Config) -> Config:
        """Config of a new model for the energy: the centroids, with their descriptor, are added later."""
        return config.model_copy(update={"electronic": None}) if self.centroids else config

    @torch.no_grad()
    def without(self, parts: dict[str, Frames], log: Log) -> dict[str, Frames]:
        """Parts of the data whose energies, forces and virials lack the long range; isolated atoms have none."""
        if self.long_range is None:
            return parts
        found = {name: frames if name == "isolated" else self._of_frames(frames) for name, frames in parts.items()}
        log.tell(f"long range: subtracted from {', '.join(LABELS)} of {sum(map(len, found.values()))} structures")
        return found

    def _of_frames(self, frames):
        return replace(frames, frames=[self._of_frame(frame) for frame in frames])

    def _of_frame(self, frame):
        if not {*LABELS} & {*frame.labels}:
            return frame
        system = System.from_atoms(frame.atoms)
        cutoff = self.centroids.descriptor.cutoff if self.centroids else 1.0
        try:
            terms = self.long_range.terms(self.centroids, system, Edges.build(system, cutoff))
        except ValueError as error:
            raise ValueError(f"frame '{frame.name}': {error}") from None
        far = {
            "energy": float(terms.energies.sum()),
            "forces": terms.forces.numpy(),
            "virial": terms.virials[0].numpy(),
        }
        return replace(
            frame, labels=frame.labels | {name: frame.labels[name] - far[name] for name in far if name in frame.labels}
        )

    def add_centroids(self, model: Model) -> None:
        """Add the trained centroids to a model, with their descriptor."""
        if self.centroids is not None and VECTORS not in model.heads:
            like = next(model.parameters())
            model.electronic = self.centroids.descriptor.to(like)
            model.heads[VECTORS] = self.centroids.heads[VECTORS].to(like)

    def complete(self, model: Model) -> None:
        """Add centroids and long range to a model."""
        self.add_centroids(model)
        if self.long_range is not None:
            self.long_range.check(model.species, model.heads)
        model.long_range = self.long_range


def centroids_alone(config: Config) -> Config:
    """Config of a new model for the centroids, whose descriptor is that of [electronic]."""
    changes: dict[str, Any] = {"descriptor": config.electronic or DescriptorConfig(), "electronic": None}
    return config.model_copy(update=changes | {"power_spectrum": None, "local_frame": None})


def long_range_of(config: Config, described: dict[str, Any]) -> LongRange:
    """LongRange of a configuration, with the charges in the metadata ``described`` of the model.

    Raises
    ------
    ValueError
        Where charges are missing.
    """
    options: Any = config.long_range
    if options.charges:
        return LongRange(options.width, dict(options.charges), dielectric=options.dielectric)
    ions, electrons = described.get("valence_charges"), described.get("electrons_per_centre")
    if not ions or not electrons:
        raise ValueError(
            f"{', '.join(config.data.files)}: [long_range] needs the charges of ions and of electrons at the centroids, "
            "which the data lack; give dipole.ions and dipole.electrons, such as ions = {O = 6, H = 1}, "
            "electrons = {O = 8}"
        )
    vectors = described.get("functions_per_vector", 1)
    return LongRange(options.width, dict(ions), dict(electrons), float(vectors), options.dielectric)
