"""Terms of a loss that the data have labels for."""

from collections.abc import Callable
from typing import Any, TypeVar

from ase_mlelec.data.frames import Frames
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.heads import Training
from ase_mlelec.train.log import say_once
from ase_mlelec.train.losses import missing_terms

Options = TypeVar("Options", bound=Training)

UNSAID = {"virial"}  # few data have stress, which follows from energies and forces as well; molecules have none
INSTEAD = "total"  # term that replaces the term of labels by atom, where the data have sums alone


def with_labels(
    options: Options,
    section: str,
    make_loss: Callable[[str, Options], Any],
    frames: Frames,
    config: Config,
    progress: bool = True,
) -> Options:
    """Remove the terms without labels from ``options`` (such as an EnergyConfig), and report them once.

    Parameters
    ----------
    make_loss : callable(section, options) -> loss
        See ase_mlelec.train.losses.
    frames : Frames to train on

    Raises
    ------
    ValueError
        For a term without labels whose weight the configuration sets, and where no term is left; the message names files
        and keys.
    """
    loss = make_loss(section, options)
    missing = missing_terms(loss, frames)
    if loss.terms and not missing:
        return options
    sources = ", ".join(config.data.files)
    have = ", ".join(frames.counts) or "none"
    for term, labels in missing.items():
        if term in options.given:
            value = (
                "[0, 0]"
                if isinstance(getattr(options, term), tuple)
                else "0 (and total = 1)"
                if term == "atomic"
                else "0"
            )
            raise ValueError(
                f"[{section}] {term}: none of the {len(frames)} frames to train on of {sources} has a "
                f"label {' or '.join(map(repr, labels))}, they have {have}; give them, or leave the term "
                f"out with {term} = {value}"
            )
    left = _without(options, section, missing, frames, make_loss)
    if left is None:
        wanted = dict.fromkeys(name for labels in missing.values() for name in labels)
        raise ValueError(
            f"[{section}]: none of the {len(frames)} frames to train on of {sources} has a label "
            f"{' or '.join(map(repr, wanted))}, they have {have}; give them, or leave out [{section}]"
        )
    told = [term for term in missing if term not in UNSAID]
    if progress and told:
        say_once(
            f"[{section}] trains without {', '.join(told)}: none of the {len(frames)} frames to train on has "
            f"such labels ({', '.join(str(config.folder / name) for name in config.data.files)})"
        )
    return left


def _without(options, section, missing, frames, make_loss):
    """Options with zero weights for the missing terms, or None where no term is left."""
    zero = {term: (0.0, 0.0) if isinstance(getattr(options, term), tuple) else 0.0 for term in missing}
    kept = [term for term in make_loss(section, options).terms if term not in missing]
    if not kept and hasattr(options, INSTEAD) and INSTEAD not in options.given:
        trial = options.model_copy(update={**zero, INSTEAD: 1.0})
        return None if missing_terms(make_loss(section, trial), frames) else trial
    return options.model_copy(update=zero) if kept else None
