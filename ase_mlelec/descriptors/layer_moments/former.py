"""LayerMoments from the arguments of the former class LocalFrame, which had no pairs."""

from collections.abc import Sequence

from ase_mlelec.deprecated import former_names
from ase_mlelec.descriptors.layer_moments.descriptor import LayerMoments
from ase_mlelec.descriptors.layer_moments.frames import layer_frames  # noqa: F401


def from_local_frame(
    species: Sequence[str], cutoff: float = 6.0, fold: int = 3, n_radial: int = 6, smooth: float | None = None
) -> LayerMoments:
    """LayerMoments from the arguments of the former class LocalFrame; new code uses LayerMoments."""
    return LayerMoments(species, cutoff=cutoff, environment=cutoff, symmetry=fold, n_radial=n_radial, smooth=smooth)


__getattr__ = former_names(__name__, LocalFrame="from_local_frame")
