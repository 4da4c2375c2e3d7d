"""Chunks of grid points with the atoms near them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import torch
from ase.calculators.calculator import InputError
from torch import Tensor

from ase_mlelec.edges import find_center_pairs
from ase_mlelec.system import System

BRICK_EDGE = 0.8  # Å; edge of the bricks of grid points that share a list of neighbors
BRICKS_AT_ONCE = 4096  # bricks whose neighbors are searched together: bounds memory
CHUNK = 2048  # grid points that are handed out together: bounds memory


@dataclass(frozen=True)
class GridChunk:
    """Some points of a grid and the atoms near them; bricks of neighboring points share a list of neighbors.

    Attributes
    ----------
    indices : Tensor [P]
        In the flattened grid (C order).
    fractional : Tensor [P, 3]
        Coordinates in cell vectors.
    brick : Tensor [P]
        The brick of every point.
    neighbor : Tensor [b, K]
        Index of the atom; the number of atoms in empty slots.
    shift : Tensor [b, K, 3]
        Whole numbers; the neighbor sits at r_neighbor + shift @ cell.
    """

    indices: torch.Tensor
    fractional: torch.Tensor
    brick: torch.Tensor
    neighbor: torch.Tensor
    shift: torch.Tensor


def grid_chunks(system: System, shape: Sequence[int], cutoff: float, *, share: tuple[int, int] = (0, 1)) -> Iterator:
    """Iterator of GridChunk over all points (i/G1, k/G2, l/G3) of a grid of ``shape`` = (G1, G2, G3), with the atoms
    within ``cutoff``, Å.

    With ``share`` = (k, n) it is every n-th brick of points, from the k-th, for process k of n.

    Raises
    ------
    InputError
        Unless the cell is periodic in three directions.
    """
    shape = check_grid(system, shape)
    bricks = islice(_bricks(system.cell[0].detach().double().cpu().numpy(), shape), share[0], None, share[1])
    while batch := list(islice(bricks, BRICKS_AT_ONCE)):
        yield from _chunks_of(system, shape, batch, cutoff)


def _chunks_of(system, shape, bricks, cutoff):
    cell, device = system.cell[0].detach().double().cpu().numpy(), system.positions.device
    sizes = np.array([len(brick) for brick in bricks])
    ends, brick, indices = sizes.cumsum(), np.repeat(np.arange(len(bricks)), sizes), np.concatenate(bricks)
    points = np.stack(np.unravel_index(indices, shape), axis=1) / shape
    middles = np.add.reduceat(points, ends - sizes) / sizes[:, None]
    radius = np.linalg.norm((points - middles[brick]) @ cell, axis=1).max()
    # 1e-4 Å: float32 puts points and atoms a little elsewhere
    center, neighbor, shift = find_center_pairs(
        system, torch.as_tensor(middles @ cell, device=device), cutoff + radius + 1e-4
    )
    place, width = slots(center, len(bricks))
    table = place.new_full((len(bricks) * width,), len(system.positions)).scatter(0, place, neighbor)
    offset = shift.new_zeros(len(bricks) * width, 3).index_copy(0, place, shift).to(system.cell.dtype)
    table, offset = table.reshape(-1, width), offset.reshape(-1, width, 3)
    indices, brick = (torch.as_tensor(array, device=device) for array in (indices, brick))
    points = torch.as_tensor(points, device=device).to(system.cell.dtype)
    low = 0
    while low < len(bricks):
        start = ends[low] - sizes[low]
        high = max(low + 1, int(np.searchsorted(ends, start + CHUNK, side="right")))
        part = slice(start, ends[high - 1])
        yield GridChunk(indices[part], points[part], brick[part] - low, table[low:high], offset[low:high])
        low = high


def slots(center: Tensor, n_centers: int) -> tuple:
    """Places in a table [C, K], flattened, for pairs that are sorted by center, and its width K, a multiple of 4."""
    count = torch.bincount(center, minlength=n_centers)
    width = 4 * max(1, -(-int(count.max()) // 4)) if n_centers else 4
    first = count.cumsum(0) - count
    return center * width + torch.arange(len(center), device=center.device) - first[center], width


def check_grid(system: System, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape as a tuple of three int.

    Raises
    ------
    InputError
        For several structures, an invalid shape, or a cell that is not periodic in all directions.
    """
    if system.n_systems != 1:
        raise InputError(f"got {system.n_systems} structures, need one; make a grid for each")
    if not bool(system.pbc.all()):
        raise InputError(
            f"got pbc {system.pbc[0].tolist()}, need three periodic directions for a grid; set "
            "atoms.pbc = True and a cell with three vectors"
        )
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"got grid {shape}, need three positive numbers of points")
    return shape


def _bricks(cell, shape):
    """Iterator over bricks of neighboring points that together are the grid: their flattened indices."""
    spacing = np.linalg.norm(cell, axis=1) / shape
    pieces = [np.array_split(np.arange(n), min(n, max(1, round(n * h / BRICK_EDGE)))) for n, h in zip(shape, spacing)]
    for i, k, m in product(*pieces):
        yield ((i[:, None, None] * shape[1] + k[:, None]) * shape[2] + m).ravel()
