"""Ridge regression, for all models that are linear in their weights.

Energies, on-site blocks, hopping blocks and the last layer of an LDOS are fitted here. Each supplies rows A and
targets B; the weights X are the solution of ::

    least  |A X - B|^2 + sum_k ridge_k |X_k - start_k|^2

There is one rule for the ridge. For features whose scale says how much they may vary, such as ACE invariants with their
smoothness prior (see Descriptor.feature_weights), the ridge is relative to the mean diagonal element of A^T A. For
features without such a scale it is relative to the diagonal element of each feature (see ``own_sizes``).
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ase_mlelec import processes
from ase_mlelec.deprecated import former_names
from ase_mlelec.matrices import add_normal_matrix, mirror
from ase_mlelec.train.checkpoint import check_identity, load_checkpoint, save_checkpoint
from ase_mlelec.train.interrupt import Interrupted, stopping
from ase_mlelec.train.log import Log, duration

RIDGE = 1e-9  # very small: it only fixes the weights that the rows do not determine
TINY = 1e-300  # added to the ridge, for the case that all columns are zero
PATIENCE = 50  # the time between two checkpoints, in units of the time that writing the last one took
FIRST = 0.2  # s, assumed for the first checkpoint, which is therefore written after 10 s


class RidgeRegression:
    """Least squares with a ridge, from the sums A^T A [P, P] and A^T B [P, ...] in double precision.

    Parameters
    ----------
    normal, right : Tensor
        Sums A^T A and A^T B to start from; default zero.
    dual : bool
        Keep the rows, and solve equations as many as rows instead of as many as columns; for fewer rows than columns.
    """

    def __init__(self, normal: Tensor | None = None, right: Tensor | None = None, *, dual: bool = False):
        empty = torch.zeros(0, 0)
        self.dual = dual
        self._normal, self.right = (empty if part is None else part for part in (normal, right))
        self._half = False  # whether the sums above the diagonal are not those of the last rows
        self._rows: list[tuple[Tensor, Tensor]] = []

    def add(self, rows: Tensor, targets: Tensor) -> None:
        """Add rows [n, P] and targets [n, ...], both multiplied by the square roots of their weights in the fit."""
        rows, targets = (part.to(torch.promote_types(part.dtype, torch.float64)) for part in (rows, targets))
        if self.dual:
            self._rows.append((rows, targets))
            return
        columns = targets.reshape(len(targets), -1)
        if not len(self._normal):
            self._normal = rows.new_zeros(rows.shape[1], rows.shape[1])
            self.right = columns.new_zeros(rows.shape[1], *targets.shape[1:])
        self._normal, self.right = self._normal.to(rows), self.right.to(rows)  # a checkpoint is read to the CPU
        # in place: with 10^4 columns a new matrix would cost more time than the product
        self._half = add_normal_matrix(self._normal, rows) or self._half
        self.right.reshape(len(self.right), -1).addmm_(rows.mH, columns)

    @property
    def normal(self) -> Tensor:
        """A^T A [P, P]."""
        if self._half:
            mirror(self._normal)
            self._half = False
        return self._normal

    @normal.setter
    def normal(self, value: Tensor) -> None:
        self._normal, self._half = value, False

    def state(self) -> dict[str, Any]:
        """Sums for a checkpoint."""
        return {"normal": self.normal, "right": self.right}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the sums of a checkpoint."""
        self.normal, self.right = state["normal"], state["right"]

    @property
    def size(self) -> float:
        """Mean diagonal element of A^T A."""
        return float(self.normal.diagonal().real.mean())

    def equations(self, *, ridge: Tensor | float = RIDGE, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normal equations: (A^T A + ridge [P, P], A^T B + ridge start [P, ...]). They overwrite the sums.

        Parameters
        ----------
        ridge : float or Tensor [P]
            In units of the mean diagonal element of A^T A.
        start : Tensor [P, ...]
            Solution that the ridge favors; default zero.
        """
        diagonal = self.normal.diagonal()
        held = (self.size * torch.as_tensor(ridge).to(diagonal) + TINY).expand(len(diagonal))
        right = self.right if start is None else self.right + (held * start.T).T
        diagonal.add_(held)
        return self.normal, right

    def solve(self, *, ridge: Tensor | float = RIDGE) -> Tensor:
        """Solution X [P, ...]. With ``dual`` the ridge must be a single number."""
        if not self.dual:
            normal, right = self.equations(ridge=ridge)
            factor, failed = torch.linalg.cholesky_ex(normal)
            columns = right.reshape(len(right), -1)
            if failed:  # rounding made the matrix indefinite
                return torch.linalg.solve(normal, columns).reshape(right.shape)
            return torch.cholesky_solve(columns, factor).reshape(right.shape)
        rows, targets = (torch.cat(column) for column in zip(*self._rows, strict=True))
        held = rows @ rows.mH
        held.diagonal().add_(ridge * float(held.diagonal().real.sum()) / rows.shape[1])
        return rows.mH @ torch.linalg.solve(held, targets)


def own_sizes(diagonal: Tensor) -> Tensor:
    """Ridge scale [P] of each column, from the ``diagonal`` [P] of A^T A.

    The root of a scale is the root of the diagonal element plus a twentieth of the root mean square over all columns,
    so that columns which hardly vary do not get large weights.
    """
    sizes = diagonal.real.sqrt()
    return (sizes + 0.05 * sizes.square().mean().sqrt()) ** 2


class Regression(Protocol):
    """What ``sum_rows`` needs: a sum over rows; ``dual`` ones keep all rows and have no checkpoint."""

    dual: bool
    add: Callable
    state: Callable[[], dict[str, Any]]
    load: Callable[[Mapping[str, Any]], None]


def sum_rows(
    regression: Regression,
    n: int,
    batch_size: int,
    rows: Callable[[range], tuple],
    *,
    checkpoint: str | Path | None = None,
    identity: dict | None = None,
    progress: bool | Log = True,
) -> None:
    """Add the rows of ``n`` structures to a regression.

    An interrupted sum continues from its checkpoint and ends with the same bits. A signal to stop is obeyed between
    batches, when the checkpoint is written. Processes that work together (see ase_mlelec.processes) share the batches, and
    write no checkpoint.

    Parameters
    ----------
    rows : callable(range of structures) -> arguments of ``regression.add``
    checkpoint : path
        Read at the start when the file exists. It is written so seldom that this takes little of the time (see
        PATIENCE), and at the end of long sums. A dual regression has no checkpoint.
    identity : dict
        Data and settings that must agree with the checkpoint.

    Raises
    ------
    ValueError
        For a checkpoint that belongs to another fit or is damaged.
    Interrupted
        After a signal to stop.
    """
    shared = processes.world() > 1 and not regression.dual
    path, start = checkpoint and not (regression.dual or shared) and Path(checkpoint), 0
    if path and path.exists():
        state = load_checkpoint(path)
        check_identity(path, state.get("identity"), identity)  # type: ignore[arg-type]  # given with a checkpoint
        start = state["start"]
        regression.load(state)
    written, took, saved = time.monotonic(), FIRST, False
    log = Log.of(progress)
    with stopping() as stop, log.progress(total=n, done=start, unit="structures"):
        batches = range(start, n, batch_size)
        for first in processes.mine(batches) if shared else batches:
            end = min(first + batch_size, n)
            regression.add(*rows(range(first, end)))
            if path and (stop or time.monotonic() - written > PATIENCE * took or (end == n and saved)):
                begun = time.monotonic()
                save_checkpoint(path, {"identity": identity, "start": end, **regression.state()})
                written, saved = time.monotonic(), True
                took = written - begun
            if stop:
                how = f"interrupted after the rows of {end} of {n} structures; the same command goes on from"
                raise Interrupted(f"{how} {path.name}" if path else "", 128 + stop.number)
            log.advance(n, end - first)
            if log.due:
                log.line(f"rows of {end}/{n} structures, {duration(log.left(end, n))} left")
    if shared:
        regression.load(processes.summed(regression.state()))


def digest_of(module: torch.nn.Module) -> str:
    """Digest of all arrays of a module; modules of one class with equal digests give equal numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()


__getattr__ = former_names(__name__, fit_linear="train.linear_energy:fit_linear")
