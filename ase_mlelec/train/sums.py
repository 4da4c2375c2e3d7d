"""Sums over structures from which a closed form is solved, and their checkpoint."""

import hashlib
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ase_mlelec.train.checkpoint import check_identity, load_checkpoint, save_checkpoint

PATIENCE = 50  # times as long as the last checkpoint took, before the next one
FIRST = 0.2  # s, taken for the first one, which is written after 10 s


class NormalEquations:
    """A^T A [P, P] and A^T b [P] of least squares, summed over the structures of several data sets, one after the other.

    path : of the checkpoint, None: without; what it holds is where the sums go on
    identity : dict of what must be the same for the sums to be those of this fit

    normal, right : Tensors, the sums of the data sets that are done
    size : float, mean diagonal element of the first one

    Raises ValueError where the checkpoint belongs to another fit or is damaged.
    """

    def __init__(self, path, identity):
        self.path, self.identity = path and Path(path), identity
        self.normal = self.right = self.size = None
        self._done, self._start, self._own = 0, 0, None  # of the data set that is being summed
        self._written, self._duration, self._saved = time.monotonic(), FIRST, False
        if self.path and self.path.exists():
            self._load()

    def add(self, place, n, batch_size, rows, change=None, progress=True):
        """Sum over a data set of ``n`` structures, as far as that is not done.

        place : int, of the data set in their order
        rows : callable(range of structures) -> (A [rows, P], b [rows])
        change : callable(normal, right) -> what is added of its own sums; default: these
        """
        if place < self._done:
            return
        starts = range(self._start, n, batch_size)
        for start in tqdm(starts, disable=None if progress else True, unit=" batches"):
            matrix, rest = rows(range(start, min(start + batch_size, n)))
            if self._own is None:
                n_weights = matrix.shape[1]
                self._own = matrix.new_zeros(n_weights, n_weights), matrix.new_zeros(n_weights)
            normal, right = (own.to(matrix) for own in self._own)
            normal.addmm_(matrix.T, matrix)  # in place: with 10^4 weights a new matrix costs more than its terms
            right.addmv_(matrix.T, rest)
            self._own, self._start = (normal, right), start + batch_size
            if time.monotonic() - self._written > PATIENCE * self._duration:
                self._save()
        own = self._own if change is None else change(*self._own)
        if self.normal is None:
            self.normal, self.right = own
            self.size = float(self.normal.diagonal().mean())
        else:
            self.normal, self.right = self.normal.to(own[0]) + own[0], self.right.to(own[1]) + own[1]
        self._done, self._start, self._own = place + 1, 0, None
        if self._saved:  # they took long
            self._save()

    def _save(self):
        if self.path is None:
            return
        begun = time.monotonic()
        save_checkpoint(
            self.path,
            {
                "identity": self.identity,
                "done": self._done,
                "start": self._start,
                "size": self.size,
                "own": self._own,
                "sums": None if self.normal is None else (self.normal, self.right),
            },
        )
        self._written = time.monotonic()
        self._duration, self._saved = self._written - begun, True

    def _load(self):
        state = load_checkpoint(self.path)
        check_identity(self.path, state.get("identity"), self.identity)
        self._done, self._start, self._own, self.size = (state[key] for key in ("done", "start", "own", "size"))
        if state["sums"] is not None:
            self.normal, self.right = state["sums"]


def digest_of(module):
    """str, of all arrays of a module: two modules with the same one give the same numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()
