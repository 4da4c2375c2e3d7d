"""Cutoff of the descriptor of vectors and tensors, chosen by trials where the configuration leaves it open.

Vectors of Wannier centers see farther than atomic polarizabilities, by how much differs from material to material.
"""

from collections.abc import Callable, Sequence
from os import PathLike

from ase_mlelec.data.frames import Frames
from ase_mlelec.train.block_ridge import geometric_mean
from ase_mlelec.train.checkpoint import KeptScores
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.whole import DescriptorConfig
from ase_mlelec.train.recipes.checkpoints import settings_of
from ase_mlelec.train.recipes.defaults import in_closed_form, of_directions

TRIALS = "cutoff-trials"  # name of the checkpoint that keeps them

FACTORS = 0.75, 1.3  # of the cutoff, in trials
SHORTEST, LONGEST = 2.5, 8.0  # Å
BETTER = 0.95  # factor of the errors below which another cutoff is worth it: less is often noise
FEWEST = 10  # structures
ATOMS = 20_000  # of the structures of a trial: with few, shorter cutoffs win


def with_tried_cutoff(
    given: Config,
    config: Config,
    frames: Frames,
    errors_of: Callable[[Config, Frames], Sequence[float]],
    tell: Callable[[str], None] = lambda text: None,
    checkpoint: str | PathLike | None = None,
) -> Config:
    """Config with the cutoff of vectors and tensors that has the smallest errors in cross-validation.

    Parameters
    ----------
    given, config : Config
        As the user wrote it, and with what the data decide. A descriptor that both share is left alone.
    frames : Frames
        Structures to train on.
    errors_of : callable(Config, Frames)
        Errors in cross-validation of the vectors and tensors, sequence of float.
    tell : callable
        Gets a line for every trial.
    checkpoint : path, optional
        Keeps the scores of the trials, which are not made again.
    """
    place = _open_place(given, config)
    if not place or len(frames) < FEWEST:
        return config
    some = frames.take(_evenly(frames, ATOMS))
    identity = {"frames": some.fingerprint(), "settings": settings_of(config)}
    kept, told = KeptScores(checkpoint, identity), set[float]()

    def with_cutoff(cutoff):
        return config.model_copy(update={place: of_directions(cutoff)})

    def score(cutoff):
        found = kept.of(f"{cutoff:g}", lambda: geometric_mean(errors_of(with_cutoff(cutoff), some)))
        if cutoff not in told:
            tell(f"trial of a cutoff of {cutoff:g} Å for vectors and tensors: error {found:.3g}")
            told.add(cutoff)
        return found

    best = getattr(config, place).cutoff
    for factor in FACTORS:
        before = best
        while (other := _moved(best, factor)) != best and score(other) < BETTER * score(best):
            best = other
        if best != before:
            break
    return with_cutoff(best)


def _open_place(given, config):
    """Section with a DeepPotSE for vectors and tensors that the data chose, "" for none."""
    directed = [row.name for row in config.wanted if "3" in row.shape]
    if not directed or not all(in_closed_form(config, name) for name in directed):
        return ""
    places = ("electronic", "descriptor")
    own = (name for name in places if isinstance(getattr(config, name), DescriptorConfig))
    return next((name for name in own if getattr(given, name) != getattr(config, name)), "")


def _moved(cutoff, factor):
    return round(min(max(factor * cutoff, SHORTEST), LONGEST), 1)


def _evenly(frames, most):
    """Indices of frames, evenly over all, with at most about ``most`` atoms."""
    total = sum(len(frame.atoms) for frame in frames)
    return list(range(0, len(frames), max(1, -(-total // most))))
