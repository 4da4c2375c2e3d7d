"""Edges: the pairs of a structure with their vectors, and a cache that keeps them while no atom has moved far."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.calculators.calculator import InputError
from torch import Tensor

from ase_mlelec import compiled
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.edges.pairs import find_center_pairs, find_pairs
from ase_mlelec.system import System

SHORTEST_DISTANCE = 0.05  # Å; below it two atoms are on top of each other


@dataclass(frozen=True)
class Edges:
    """Directed pairs center -> neighbor within a cutoff, all periodic images, sorted by center.

    The neighbors of a center come in the order of their atomic numbers where ``build`` made them.

    Attributes
    ----------
    center : Tensor [E]
        Index of the center.
    neighbor : Tensor [E]
        Index of the atom.
    shift : Tensor [E, 3]
        Integers; the neighbor sits at r_neighbor + shift @ cell.
    vec : Tensor [E, 3], Å
        Neighbor - center: the only geometry a descriptor reads; carries the gradient.
    atoms : Tensor [C]
        Atom at every center; -1 for a point in space.
    shortest : float, Å
        Lower bound of the distances; 0 where none is known.
    cutoff : float or None, Å
        Distance within which the list is complete, where it is known.
    """

    center: torch.Tensor
    neighbor: torch.Tensor
    shift: torch.Tensor
    vec: torch.Tensor
    atoms: torch.Tensor
    shortest: float = 0.0
    cutoff: float | None = None

    @property
    def n_centers(self) -> int:
        return len(self.atoms)

    @property
    def distances(self) -> torch.Tensor:
        """Distances [E], Å; several times faster than ``vec.norm(dim=1)``, because x, y and z are separate planes."""
        planes = self.vec.T
        return (planes * planes).sum(dim=0).sqrt()

    def with_vec(self, vec: torch.Tensor) -> "Edges":
        """The same pairs with other vectors, e.g. a leaf that collects the gradient."""
        return replace(self, vec=vec)

    def to(self, dtype: torch.dtype | None) -> "Edges":
        """The same pairs with vectors in another precision; with None as they are."""
        return self if dtype in (None, self.vec.dtype) else self.with_vec(self.vec.to(dtype))

    def chunks(self, size: int) -> Iterator[tuple[slice, "Edges"]]:
        """Iterate over (rows, edges) for at most ``size`` centers at a time; rows is the slice of the pairs.

        Chunks are of equal size up to one center, and their number is even, so that two threads share them fairly; up to
        half of ``size`` centers are one chunk.
        """
        if self.n_centers <= size // 2 or self.n_centers < 2:
            yield slice(0, len(self.center)), self
            return
        count = min(2 * -(-self.n_centers // (2 * size)), self.n_centers)
        starts = [k * self.n_centers // count for k in range(count + 1)]
        bounds = torch.searchsorted(self.center, torch.tensor(starts, device=self.center.device)).tolist()
        for start, end, low, high in zip(starts, starts[1:], bounds, bounds[1:]):
            yield (
                slice(low, high),
                Edges(
                    self.center[low:high] - start,
                    self.neighbor[low:high],
                    self.shift[low:high],
                    self.vec[low:high],
                    self.atoms[start:end],
                    self.shortest,
                    self.cutoff,
                ),
            )

    def closer_than(self, cutoff: float) -> "Edges":
        """The pairs with a distance below ``cutoff``, Å."""
        near = (self.distances < cutoff).nonzero()[:, 0]
        within = None if self.cutoff is None else min(self.cutoff, cutoff)
        return Edges(
            self.center[near], self.neighbor[near], self.shift[near], self.vec[near], self.atoms, self.shortest, within
        )

    def up_to(self, cutoff: float) -> "Edges":
        """All pairs within ``cutoff``, Å.

        Raises
        ------
        InputError
            Where the list is known to have a shorter cutoff.
        """
        self.check_cutoff(cutoff)
        return self if self.cutoff == cutoff else self.closer_than(cutoff)

    def check_cutoff(self, cutoff: float) -> None:
        """Raise InputError where the list is known to have a shorter cutoff."""
        if self.cutoff is not None and self.cutoff < cutoff:
            raise InputError(
                f"got edges within {self.cutoff:g} Å, need those within {cutoff:g} Å; use Edges.build(system, {cutoff:g})"
            )

    def at_centers(self, rows: torch.Tensor) -> "Edges":
        """Some of the centers (Tensor of indices, ascending) with their edges."""
        number = torch.full((self.n_centers,), -1, device=rows.device)
        number[rows] = torch.arange(len(rows), device=rows.device)
        center = number.index_select(0, self.center)
        keep = (center >= 0).nonzero()[:, 0]
        return Edges(
            center.index_select(0, keep),
            self.neighbor.index_select(0, keep),
            self.shift.index_select(0, keep),
            self.vec.T.index_select(1, keep).T,
            self.atoms.index_select(0, rows),
            self.shortest,
            self.cutoff,
        )

    def part(self, atoms: slice, rows: slice) -> "Edges":
        """The edges ``rows`` (slice) of the structure with ``atoms`` (slice), counted from its first atom."""
        return Edges(
            self.center[rows] - atoms.start,
            self.neighbor[rows] - atoms.start,
            self.shift[rows],
            self.vec[rows],
            self.atoms[atoms] - atoms.start,
            self.shortest,
            self.cutoff,
        )

    @classmethod
    @formerly_positional("centers")
    def build(cls, system: System, cutoff: float, *, centers: torch.Tensor | None = None) -> "Edges":
        """All pairs closer than ``cutoff`` (Å) in every structure of ``system``.

        Any cell shape, any pbc, cutoffs beyond the cell and single atoms (which see their images) are allowed.

        Parameters
        ----------
        centers : Tensor [C, 3], Å
            Points in space as centers, of one structure. Give them as a function of ``system.cell`` (fractional @ cell)
            where they move with it: ``vec`` carries their gradient too. An atom may sit on a center; atoms that overlap
            are not noticed then.

        Raises
        ------
        InputError
            When two atoms overlap, or for centers in more than one structure.
        """
        if centers is None:
            return connect(system, *find_pairs(system, cutoff), cutoff)
        center, neighbor, shift = find_center_pairs(system, centers, cutoff)
        offset = shift.to(system.cell.dtype) @ system.cell[0]
        vec = system.positions.index_select(0, neighbor) + offset - centers.index_select(0, center)
        keep = (vec.detach().norm(dim=1) < cutoff).nonzero()[:, 0]
        atoms = torch.full((len(centers),), -1, device=centers.device)
        center, neighbor, shift, vec = (array.index_select(0, keep) for array in (center, neighbor, shift, vec))
        return cls(center, neighbor, shift, vec, atoms, cutoff=cutoff)


def connect(
    system: System,
    center: torch.Tensor,
    neighbor: torch.Tensor,
    shift: torch.Tensor,
    cutoff: float,
    *,
    offset: torch.Tensor | None = None,
) -> Edges:
    """Edges of the candidate pairs that are within ``cutoff`` at the present positions.

    Parameters
    ----------
    offset : Tensor [3, E], Å
        Shift @ cell of every pair, where it is known already.
    """
    # vectors are kept as planes x, y, z, and gathered: several times faster than rows of three and [...]
    offset = offsets(system, center, shift) if offset is None else offset
    if system.positions.device.type == "cpu" and not (system.positions.requires_grad or offset.requires_grad):
        return _connected(system, [array.numpy() for array in (center, neighbor, shift, offset)], cutoff)
    positions = system.positions.T.contiguous()
    vec = positions.gather(1, neighbor.expand(3, -1)) - positions.gather(1, center.expand(3, -1)) + offset
    with torch.no_grad():
        distance = (vec * vec).sum(dim=0).sqrt()
        near = distance < cutoff
        shortest = _shortest(distance, center, neighbor, cutoff)
    keep = near.nonzero().view(-1)
    if len(keep) < len(near):
        center, neighbor, shift = (array.index_select(0, keep) for array in (center, neighbor, shift))
        vec = vec.gather(1, keep.expand(3, -1))
    atoms = torch.arange(len(system.positions), device=center.device)
    return Edges(center, neighbor, shift, vec.T, atoms, shortest, cutoff)


def _connected(system, arrays, cutoff):
    """As ``connect``, of NumPy arrays (center, neighbor, shift, offset), which are faster where they are small."""
    center, neighbor, shift, offset = arrays
    atoms = torch.arange(len(system.positions))
    if compiled.is_wanted() and system.positions.dtype == torch.float64:
        from ase_mlelec.edges.loops import near_pairs  # imports numba

        *found, vec, shortest = near_pairs(system.positions.numpy(), center, neighbor, shift, offset, cutoff)
        if shortest >= SHORTEST_DISTANCE:
            return Edges(*map(torch.from_numpy, (*found, vec.T)), atoms, shortest, cutoff)
    positions = np.ascontiguousarray(system.positions.numpy().T)
    vec = positions.take(neighbor, axis=1) - positions.take(center, axis=1) + offset
    distance = np.sqrt(vec[0] ** 2 + vec[1] ** 2 + vec[2] ** 2)
    shortest = _shortest(distance, center, neighbor, cutoff)
    keep = np.flatnonzero(distance < cutoff)
    found = center[keep], neighbor[keep], shift[keep], vec.take(keep, axis=1).T
    return Edges(*map(torch.from_numpy, found), atoms, shortest, cutoff)


def _shortest(distance, center, neighbor, cutoff):
    """Shortest of the distances, or the cutoff where there are none; raise InputError for atoms that overlap."""
    shortest = float(distance.min()) if len(distance) else cutoff
    if len(distance) and shortest < SHORTEST_DISTANCE:
        worst = int(distance.argmin())
        raise InputError(
            f"atoms {int(center[worst])} and {int(neighbor[worst])} overlap "
            f"({shortest:.3f} Å apart); remove one of them or check the cell"
        )
    return shortest


def offsets(system: System, center: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Lattice vectors [3, E], Å, shift @ cell of every pair.

    They are computed one structure after the other, so that the last digit does not depend on the number of structures.
    """
    if system.n_systems == 1:
        return system.cell[0].T @ shift.T.to(system.cell.dtype)
    counts = torch.bincount(system.batch.index_select(0, center), minlength=system.n_systems).tolist()
    return torch.cat(
        [cell.T @ part.T.to(cell.dtype).clone() for cell, part in zip(system.cell, shift.split(counts))], dim=1
    )


class EdgeCache:
    """Keeps the pairs of one structure within cutoff + skin and reuses them while they are guaranteed complete.

    A pair vector v becomes v F + u_j - u_i when the cell changes by F = cell_old^-1 cell_new and atoms move by u beyond
    that. Pairs not in the list were longer than cutoff + skin, so none can have come within the cutoff as long as
    sigma_min(F) (cutoff + skin) - 2 ``max|u|`` >= cutoff. This holds for moving atoms and changing cells alike.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.pairs: tuple[Tensor, Tensor, Tensor] | None = None
        self.offset: Tensor | None = None
        self._reference: tuple | None = None  # positions, cell and pbc at which the pairs were found
        self._plain: list | None = None  # pairs and offset as NumPy arrays, where they are on the CPU
        self._same_cell, self.n_builds = False, 0

    def edges(self, system: System) -> Edges:
        if self.pairs is None or not self._complete_for(system):
            self._find(system)
        center, neighbor, shift = self.pairs  # type: ignore[misc]  # found above
        if not self._same_cell or system.cell.requires_grad:
            return connect(system, center, neighbor, shift, self.cutoff)
        if self._plain is not None and not system.positions.requires_grad:
            return _connected(system, self._plain, self.cutoff)
        return connect(system, center, neighbor, shift, self.cutoff, offset=self.offset)

    def _find(self, system):
        self.pairs = find_pairs(system, self.cutoff + self.skin)
        fixed = replace(system, positions=system.positions.detach(), cell=system.cell.detach())
        self.offset = offsets(fixed, self.pairs[0], self.pairs[2])
        arrays = (*self.pairs, self.offset)
        self._plain = [array.numpy() for array in arrays] if self.offset.device.type == "cpu" else None
        self._reference = (*(array.copy() for array in _as_arrays(system)), system.positions.device)
        self._same_cell = system.n_systems == 1
        self.n_builds += 1

    def _complete_for(self, system):
        positions, cell, pbc, device = self._reference
        if len(positions) != len(system.positions) or system.n_systems != 1 or device != system.positions.device:
            return False
        own, own_cell, own_pbc = _as_arrays(system)
        if not np.array_equal(pbc, own_pbc):
            return False
        self._same_cell, smallest = np.array_equal(cell, own_cell), 1.0
        if not self._same_cell:
            if not pbc.all():
                return False
            deformation = np.linalg.solve(cell[0], own_cell[0])
            positions, smallest = positions @ deformation, float(np.linalg.svd(deformation, compute_uv=False).min())
        moved = float(np.sqrt(((own - positions) ** 2).sum(axis=1).max()))
        return smallest * (self.cutoff + self.skin) - 2 * moved >= self.cutoff


def _as_arrays(system):
    """Positions [N, 3], cell [B, 3, 3] and pbc [B, 3], NumPy arrays in float64."""
    positions, cell = system.positions, system.cell
    if positions.requires_grad or cell.requires_grad:
        positions, cell = positions.detach(), cell.detach()
    return positions.cpu().double().numpy(), cell.cpu().double().numpy(), system.pbc.cpu().numpy()
