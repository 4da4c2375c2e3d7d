"""Checkpoints, from which an interrupted training continues; written atomically and checked when they are read.

A file is the output of torch.save, followed by MAGIC and the BLAKE2b digest (16 bytes) of this output. It is read
without unpickling code.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ase_mlelec import processes
from ase_mlelec.atomic_write import not_written, replacing
from ase_mlelec.checks import printable

MAGIC = b"mlelec-checkpoint"
DIGEST = 16


def save_checkpoint(path: str | PathLike, state: Mapping[str, Any]) -> None:
    """Write ``state``, a dict of tensors, numbers and strings, which may be in lists and dicts.

    Raises
    ------
    ValueError
        Where a tensor holds NaN or infinity.
    OSError
        Where the file cannot be written; the former checkpoint does not change then.
    """
    place = _place_of_nan(state)
    if place is not None:
        raise ValueError(
            f"{path}: {place} holds NaN or infinity, and is not saved; train with a smaller learning rate "
            "or look for the frame that it comes from"
        )
    try:
        with replacing(path) as partial, open(partial, "w+b") as file:
            torch.save(state, file)
            file.write(MAGIC + _digest(file, file.tell()))
    except (OSError, RuntimeError) as error:
        raise not_written(
            path,
            error,
            remedy="the former checkpoint is as it was: make room and start the training again",
            otherwise="torch could not write all of it",  # a RuntimeError
        ) from None


def load_checkpoint(path: str | PathLike) -> Any:
    """Read the ``state`` of a checkpoint, with tensors on the CPU.

    Raises
    ------
    ValueError
        Where the file is truncated, damaged, or holds NaN or infinity.
    """
    remedy = "remove it, to train from the beginning, or choose another checkpoint"
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END) - len(MAGIC) - DIGEST
        file.seek(max(size, 0))
        if size < 0 or file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is truncated or no checkpoint; {remedy}")
        if file.read(DIGEST) != _digest(file, size):
            raise ValueError(f"{path} is damaged: its checksum is not that of its content; {remedy}")
        file.seek(0)
        try:
            state = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # only for forged files, which may cause any error
            raise ValueError(f"{path} is no checkpoint ({printable(error)}); {remedy}") from None
    place = _place_of_nan(state)
    if place is not None:
        raise ValueError(f"{path}: {place} holds NaN or infinity; {remedy}")
    return state


def check_identity(
    path: str | PathLike, stored: Any, identity: Mapping[str, Any], *, may_lack: Collection[str] = ()
) -> None:
    """Raise ValueError where a checkpoint belongs to another run: ``stored`` and ``identity`` (dicts) differ.

    Parameters
    ----------
    may_lack : collection of str
        Keys of ``identity`` that ``stored`` may lack: settings at their default, which an earlier version did not have.
    """
    stored = stored if isinstance(stored, dict) else {}
    compared = {key: mine for key, mine in identity.items() if key in stored or key not in may_lack}
    other = [f"{key} {stored.get(key)}, this one {mine}" for key, mine in compared.items() if stored.get(key) != mine]
    if other:
        raise ValueError(f"{path} belongs to another run: {'; '.join(other)}; remove it or choose another checkpoint")


class KeptScores:
    """Scores of trials, which an interrupted training finds again in a checkpoint.

    Processes that work together (see ase_mlelec.processes) keep none.

    Parameters
    ----------
    path : path or None
        Written after every trial; None to keep none. Scores of another ``identity`` are not used, and are written over.
    identity : dict
        Data and settings of the trials.

    Raises
    ------
    ValueError
        For a damaged checkpoint.
    """

    def __init__(self, path: str | PathLike | None, identity: Mapping[str, Any]) -> None:
        self.path = None if path is None or processes.world() > 1 else Path(path)
        self.identity, self.scores = dict(identity), {}
        if self.path and self.path.exists():
            state = load_checkpoint(self.path)
            if state.get("identity") == self.identity:
                self.scores = state["scores"]

    def of(self, name: str, trial: Callable[[], float]) -> float:
        """Score of the trial ``name``, which is made where its score is not known."""
        if name not in self.scores:
            self.scores[name] = trial()
            if self.path:
                save_checkpoint(self.path, {"identity": self.identity, "scores": self.scores})
        return self.scores[name]


def _digest(file, size):
    """Digest of the first ``size`` bytes of a file; the position in the file moves behind them."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    file.seek(0)
    while size:
        block = file.read(min(size, 1 << 20))
        digest.update(block)
        size -= len(block)
    return digest.digest()


def _place_of_nan(value, name=""):
    """The keys that lead to the first tensor that is not finite, or None."""
    if isinstance(value, torch.Tensor):
        return name if value.is_floating_point() and not bool(torch.isfinite(value).all()) else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (_place_of_nan(entry, f"{name}.{key}".lstrip(".")) for key, entry in items)
    return next((place for place in found if place is not None), None)
