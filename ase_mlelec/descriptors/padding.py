"""Tables of edges by center, in which sums over neighbors are products of matrices."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pad(center: Tensor, kind: Tensor | None, table: Tensor, n_centers: int, kinds: Sequence[int]) -> tuple:
    """Arrange the columns of ``table`` [R, E] by center, with one block of slots per kind and zeros in empty slots.

    Parameters
    ----------
    kinds
        All kinds. Edges of a center in the order of the kinds are not sorted again.

    Returns
    -------
    table : Tensor [C, R, n]
        Zero in empty slots.
    counts : Tensor [C, kinds]
        Number of edges of each kind.
    blocks : list of slice
        The slots of each kind among the n.
    """
    if len(kinds) == 1:
        return _pad_one_kind(center, table, n_centers)
    rank = torch.tensor(kinds, device=center.device).argsort()
    group = center * len(kinds) + rank.index_select(0, kind)  # type: ignore[arg-type]  # None for one kind alone
    present = torch.bincount(group, minlength=n_centers * len(kinds)).reshape(n_centers, len(kinds))
    ends = (present.amax(dim=0) if n_centers else present.sum(dim=0)).cumsum(0)
    bounds = [0, *ends.tolist()]
    blocks = [slice(bounds[k], bounds[k + 1]) for k in rank.tolist()]
    return _filled(table, _places(group, present, bounds), n_centers, bounds[-1]), present.index_select(1, rank), blocks


def _pad_one_kind(center, table, n_centers):
    """As ``pad`` for one kind: the slot of an edge is its place among the edges of its center."""
    if center.device.type == "cpu":
        present, place, n = _places_of_one_kind(center.numpy(), n_centers)
        return _filled(table, place, n_centers, n), present[:, None], [slice(0, n)]
    present = torch.bincount(center, minlength=n_centers)
    n = int(present.max()) if n_centers else 0
    ahead = torch.arange(0, n_centers * n, n, device=center.device) if n else present
    ahead = ahead - (present.cumsum(0) - present)
    place = ahead.index_select(0, center) + torch.arange(len(center), device=center.device)
    return _filled(table, place, n_centers, n), present[:, None], [slice(0, n)]


def _places_of_one_kind(center, n_centers):
    """Numbers of edges [C], slots of the edges [E] and slots of a center, by NumPy, whose calls take less time."""
    present = np.bincount(center, minlength=n_centers)
    n = int(present.max()) if n_centers else 0
    ahead = np.arange(n_centers) * n - (present.cumsum() - present)
    return torch.from_numpy(present), torch.from_numpy(ahead[center] + np.arange(len(center))), n


def _filled(table, place, n_centers, n):
    # planes [R, C n] are filled by one scatter, which is several times faster than writing rows
    planes = table.new_zeros(len(table), n_centers * n).scatter(1, place.expand_as(table), table)
    return planes.view(len(table), n_centers, n).transpose(0, 1)


def _places(group, present, bounds):
    """Places [E] of the edges in [C, n]: edge e has slot e - (first edge of its group) in the block of the group."""
    order = None
    if bool((group[1:] < group[:-1]).any()):
        group, order = group.sort(stable=True)
    starts = torch.arange(len(present), device=group.device)[:, None] * bounds[-1]
    starts = starts + torch.tensor(bounds[:-1], device=group.device)
    first = (present.flatten().cumsum(0) - present.flatten()).reshape(present.shape)
    place = (starts - first).flatten().index_select(0, group) + torch.arange(len(group), device=group.device)
    return place if order is None else torch.empty_like(place).index_copy(0, order, place)
