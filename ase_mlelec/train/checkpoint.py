"""Checkpoints: what an interrupted training goes on from, written atomically and checked when it is read.

A file is what torch.save writes, followed by MAGIC and the BLAKE2b digest (16 bytes) of it; it is read without unpickling
code.
"""
import hashlib
import io

import torch

from ase_mlelec.io.atomic import replacing

MAGIC = b"mlelec-checkpoint"
DIGEST = 16


def save_checkpoint(path, state):
    """Write ``state``, dict of tensors, numbers, strings, and lists and dicts of them.

    Raises ValueError where a tensor holds NaN or infinity, OSError where it cannot be written; the former checkpoint
    stays as it was.
    """
    place = _place_of_nan(state)
    if place is not None:
        raise ValueError(f"{path}: {place} holds NaN or infinity, and is not saved; train with a smaller learning rate or "
                         "look for the frame that it comes from")
    memory = io.BytesIO()
    torch.save(state, memory)
    content = memory.getbuffer()
    try:
        with replacing(path) as partial, open(partial, "wb") as file:
            file.write(content)
            file.write(MAGIC + _digest(content))
    except OSError as error:
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror}); the former checkpoint is as it was: "
                      "make room and start the training again") from None


def load_checkpoint(path):
    """The ``state`` that was saved; ValueError where the file is truncated, damaged, or holds NaN or infinity."""
    remedy = "remove it, to train from the beginning, or choose another checkpoint"
    content = path.read_bytes()
    body, end = content[:-len(MAGIC) - DIGEST], content[-len(MAGIC) - DIGEST:]
    if end[:len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is truncated or no checkpoint; {remedy}")
    if end[len(MAGIC):] != _digest(body):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content; {remedy}")
    try:
        state = torch.load(io.BytesIO(body), weights_only=True)
    except Exception as error:      # only of files that were made to look like checkpoints
        raise ValueError(f"{path} is no checkpoint ({str(error).splitlines()[0]}); {remedy}") from None
    place = _place_of_nan(state)
    if place is not None:
        raise ValueError(f"{path}: {place} holds NaN or infinity; {remedy}")
    return state


def check_identity(path, stored, identity):
    """ValueError where a checkpoint belongs to another run; ``stored``, ``identity`` : dict of what tells runs apart."""
    stored = stored if isinstance(stored, dict) else {}
    other = [f"{key} {stored.get(key)}, this one {mine}" for key, mine in identity.items() if stored.get(key) != mine]
    if other:
        raise ValueError(f"{path} belongs to another run: {'; '.join(other)}; remove it or choose another checkpoint")


def _digest(content):
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def _place_of_nan(value, name=""):
    """The keys that lead to the first tensor that is not finite, or None."""
    if isinstance(value, torch.Tensor):
        return name if value.is_floating_point() and not bool(torch.isfinite(value).all()) else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = (_place_of_nan(entry, f"{name}.{key}".lstrip(".")) for key, entry in items)
    return next((place for place in found if place is not None), None)
