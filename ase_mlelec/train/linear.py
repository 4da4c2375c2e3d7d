"""The one closed form: ridge regression, of everything that is linear in its weights.

Energies, on-site and hopping blocks, and the last layer of an LDOS make rows A and what these should give, B; sums,
ridge and solution are here::

    least  |A X - B|^2 + sum_k ridge_k |X_k - start_k|^2

The ridge has one rule. Features whose scale says how much they may vary, such as ACE invariants with their smoothness
prior (see Descriptor.feature_weights), have a ridge that is relative to the mean diagonal element of A^T A. Those of
no such scale have one relative to their own diagonal elements (see ``own_sizes``).
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ase_mlelec.train.checkpoint import check_identity, load_checkpoint, save_checkpoint

RIDGE = 1e-9  # next to nothing, against directions that the rows do not determine
TINY = 1e-300  # where all columns are zero
PATIENCE = 50  # times as long as the last checkpoint took, before the next one
FIRST = 0.2  # s, taken for the first one, which is written after 10 s


class RidgeRegression:
    """Least squares with a ridge, from sums A^T A [P, P] and A^T B [P, ...] in double precision.

    Parameters
    ----------
    normal, right : Tensor
        The sums so far.
    dual : bool
        Keep the rows and solve a system as large as their number, for rows fewer than columns.
    """

    def __init__(self, normal: Tensor | None = None, right: Tensor | None = None, *, dual: bool = False):
        self.dual, self.normal, self.right = dual, normal, right
        self._rows = []

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Add rows [n, P] and what they should give [n, ...]; weights are in both, as square roots."""
        rows, targets = (part.to(torch.promote_types(part.dtype, torch.float64)) for part in (rows, targets))
        if self.dual:
            self._rows.append((rows, targets))
            return
        columns = targets.reshape(len(targets), -1)
        if self.normal is None:
            self.normal = rows.new_zeros(rows.shape[1], rows.shape[1])
            self.right = columns.new_zeros(rows.shape[1], *targets.shape[1:])
        # in place: with 10^4 weights a new matrix costs more than its terms
        self.normal.addmm_(rows.mH, rows)
        self.right.reshape(len(self.right), -1).addmm_(rows.mH, columns)

    @property
    def size(self) -> float:
        """Mean diagonal element of A^T A."""
        return float(self.normal.diagonal().real.mean())

    def equations(self, *, ridge: Tensor | float = RIDGE, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(A^T A + ridge [P, P], A^T B + ridge start [P, ...]); the sums themselves are changed.

        Parameters
        ----------
        ridge : float or Tensor [P]
            Of the mean diagonal element of A^T A.
        start : Tensor [P, ...]
            What the ridge draws to; default zero.
        """
        diagonal = self.normal.diagonal()
        held = (self.size * torch.as_tensor(ridge).to(diagonal) + TINY).expand(len(diagonal))
        right = self.right if start is None else self.right + (held * start.T).T
        diagonal.add_(held)
        return self.normal, right

    def solve(self, *, ridge: Tensor | float = RIDGE) -> Tensor:
        """X [P, ...]; with ``dual`` the ridge is a number."""
        if not self.dual:
            normal, right = self.equations(ridge=ridge)
            factor, failed = torch.linalg.cholesky_ex(normal)
            columns = right.reshape(len(right), -1)
            if failed:  # by rounding
                return torch.linalg.solve(normal, columns).reshape(right.shape)
            return torch.cholesky_solve(columns, factor).reshape(right.shape)
        rows, targets = (torch.cat(column) for column in zip(*self._rows, strict=True))
        held = rows @ rows.mH
        held.diagonal().add_(ridge * float(held.diagonal().real.sum()) / rows.shape[1])
        return rows.mH @ torch.linalg.solve(held, targets)


def own_sizes(diagonal: Tensor) -> Tensor:
    """Squares [P] of columns of which ``diagonal`` [P] has the sums; those that hardly vary get a twentieth of the rest."""
    sizes = diagonal.real.sqrt()
    return (sizes + 0.05 * sizes.square().mean().sqrt()) ** 2


def sum_rows(
    regression: RidgeRegression,
    n: int,
    batch_size: int,
    rows: Callable[[range], tuple[Tensor, Tensor]],
    *,
    checkpoint: str | Path | None = None,
    identity: dict | None = None,
    progress: bool = True,
) -> None:
    """Add the rows of ``n`` structures; an interrupted sum goes on from its checkpoint and ends with the same bits.

    Parameters
    ----------
    rows : callable(range of structures) -> (rows, targets)
    checkpoint : path
        Read at the start when present; it is written when PATIENCE times as long has passed as that takes, and at the
        end of sums that took long.  Not for a dual.
    identity : dict
        What must be the same for the sums to be those of this fit.

    Raises
    ------
    ValueError
        Where the checkpoint belongs to another fit or is damaged.
    """
    path, start = checkpoint and not regression.dual and Path(checkpoint), 0
    if path and path.exists():
        state = load_checkpoint(path)
        check_identity(path, state.get("identity"), identity)
        start, regression.normal, regression.right = (state[name] for name in ("start", "normal", "right"))
    written, duration, saved = time.monotonic(), FIRST, False
    starts = range(start, n, batch_size)
    for start in tqdm(starts, disable=None if progress else True, unit=" batches"):
        found, targets = rows(range(start, min(start + batch_size, n)))
        if regression.normal is not None:
            regression.normal, regression.right = (part.to(found) for part in (regression.normal, regression.right))
        regression.add(found, targets)
        last = start + batch_size >= n
        if path and (time.monotonic() - written > PATIENCE * duration or (last and saved)):
            begun = time.monotonic()
            sums = {"start": start + batch_size, "normal": regression.normal, "right": regression.right}
            save_checkpoint(path, {"identity": identity, **sums})
            written, saved = time.monotonic(), True
            duration = written - begun


def digest_of(module: torch.nn.Module) -> str:
    """Of all arrays of a module: two modules with the same one give the same numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()
