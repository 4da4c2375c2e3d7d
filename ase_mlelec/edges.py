"""Edges: the only neighbour list (built by vesin), and its reuse between steps of a run."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import vesin
from ase.calculators.calculator import InputError
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

from ase_mlelec.system import System

SHORTEST_DISTANCE = 0.05  # Å; below it two atoms are on top of each other
MOST_NEIGHBORS = 4000  # of an atom on average; silicon at eight times its density has 360 within 6 Å
MOST_BOXES = 100_000  # of vesin's
MOST_PAIRS = 400_000_000  # in all, about 40 GB


@dataclass(frozen=True)
class Edges:
    """Directed pairs centre -> neighbour within a cutoff, all periodic images, sorted by centre.

    The neighbours of a centre come in the order of their atomic numbers where ``build`` made them.

    center : Tensor [E], index of the centre
    neighbor : Tensor [E], index of the atom
    shift : Tensor [E, 3], integers; the neighbour sits at r_neighbor + shift @ cell
    vec : Tensor [E, 3], Å, neighbour - centre: the only geometry a descriptor reads; carries the gradient
    atoms : Tensor [C], the atom every centre sits on; -1 where it is a point in space
    shortest : float, Å, no pair is shorter; 0 where that is not known
    """

    center: torch.Tensor
    neighbor: torch.Tensor
    shift: torch.Tensor
    vec: torch.Tensor
    atoms: torch.Tensor
    shortest: float = 0.0

    @property
    def n_centers(self):
        return len(self.atoms)

    @property
    def distances(self):
        """Å, [E]; from the planes x, y, z, in which vectors are kept: several times faster than ``vec.norm(dim=1)``."""
        planes = self.vec.T
        return (planes * planes).sum(dim=0).sqrt()

    def with_vec(self, vec):
        """The same pairs with other vectors, e.g. a leaf that collects the gradient."""
        return replace(self, vec=vec)

    def chunks(self, size):
        """Iterate over (rows, edges) for ``size`` centres at a time; rows is the slice of the pairs."""
        if self.n_centers <= size:
            yield slice(0, len(self.center)), self
            return
        starts = range(0, self.n_centers, size)
        bounds = torch.searchsorted(self.center, torch.tensor([*starts, self.n_centers], device=self.center.device))
        for start, low, high in zip(starts, bounds.tolist(), bounds[1:].tolist()):
            yield (
                slice(low, high),
                Edges(
                    self.center[low:high] - start,
                    self.neighbor[low:high],
                    self.shift[low:high],
                    self.vec[low:high],
                    self.atoms[start : start + size],
                    self.shortest,
                ),
            )

    def closer_than(self, cutoff):
        """Those of the pairs whose distance is below ``cutoff``, Å."""
        near = (self.distances < cutoff).nonzero()[:, 0]
        return Edges(
            self.center[near], self.neighbor[near], self.shift[near], self.vec[near], self.atoms, self.shortest
        )

    def at_centers(self, rows):
        """Some of the centres (Tensor of indices, ascending) with their edges."""
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
        )

    def part(self, atoms, rows):
        """The edges ``rows`` (slice) of the structure with ``atoms`` (slice), counted from its first atom."""
        return Edges(
            self.center[rows] - atoms.start,
            self.neighbor[rows] - atoms.start,
            self.shift[rows],
            self.vec[rows],
            self.atoms[atoms] - atoms.start,
            self.shortest,
        )

    @classmethod
    def build(cls, system, cutoff, centers=None):
        """All pairs closer than ``cutoff`` (Å) in every structure of ``system``.

        Any cell shape, any pbc, cutoffs beyond the cell and single atoms (which see their images) are allowed.

        centers : Tensor [C, 3], Å; points in space as centres, of one structure.  Give them as a function of
            ``system.cell`` (fractional @ cell) where they move with it: ``vec`` carries their gradient too.  An atom
            may sit on a centre; atoms that overlap are not noticed then.

        Raises InputError when two atoms overlap, or for centres in more than one structure.
        """
        if centers is None:
            return connect(system, *find_pairs(system, cutoff), cutoff)
        center, neighbor, shift = find_center_pairs(system, centers, cutoff)
        offset = shift.to(system.cell.dtype) @ system.cell[0]
        vec = system.positions.index_select(0, neighbor) + offset - centers.index_select(0, center)
        keep = (vec.detach().norm(dim=1) < cutoff).nonzero()[:, 0]
        atoms = torch.full((len(centers),), -1, device=centers.device)
        return cls(*(array.index_select(0, keep) for array in (center, neighbor, shift, vec)), atoms)


def find_pairs(system, cutoff):
    """(center, neighbor, shift) of all pairs within ``cutoff`` Å, as tensors on the system's device."""
    offset, parts = 0, []
    positions = system.positions.detach().cpu().double().numpy()
    for k, (count, cell, pbc) in enumerate(
        zip(system.n_atoms.tolist(), system.cell.detach().cpu().double().numpy(), system.pbc.cpu().numpy())
    ):
        check_density(positions[offset : offset + count], cell, pbc, cutoff, count)
        # nothing repeats along a non-periodic direction: any independent vector does there
        whole = complete_cell(cell * pbc[:, None])
        if has_boxes(positions[offset : offset + count], whole, pbc, cutoff):
            search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
            pairs, shift = search.compute(positions[offset : offset + count], whole, pbc, "PS")
        else:
            pairs, shift = _pairs_by_tree(system, slice(offset, offset + count), k, cutoff)
        parts.append((pairs.astype(np.int64) + offset, shift))
        offset += count
    device = system.positions.device
    pairs, shift = (np.concatenate(arrays) for arrays in zip(*parts))
    numbers = system.numbers.cpu().numpy()
    order = np.argsort(pairs[:, 0] * (numbers.max() + 1) + numbers[pairs[:, 1]], kind="stable")
    pairs, shift = torch.as_tensor(pairs[order], device=device), torch.as_tensor(shift[order], device=device)
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), shift


def has_boxes(positions, cell, pbc, cutoff):
    """Whether vesin can sort the atoms of a cell into boxes.  Where there would be more than MOST_BOXES it makes them
    larger along all directions alike; a direction of few boxes then has none, and the process dies (vesin 0.6)."""
    lengths = _heights(cell) * np.where(pbc, 1, np.ptp(positions @ np.linalg.inv(cell), axis=0))
    counts = np.maximum(lengths // cutoff, 1)
    return bool((counts * np.cbrt(min(1, MOST_BOXES / (counts + 1).prod())) >= 1).all())


def _pairs_by_tree(system, atoms, k, cutoff):
    """(pairs [E, 2], shift [E, 3]) of the structure k, which has ``atoms`` (slice)."""
    positions = system.positions[atoms].detach()
    alone = System(
        positions,
        system.numbers[atoms],
        system.cell[k : k + 1],
        system.pbc[k : k + 1],
        torch.zeros_like(system.batch[atoms]),
    )
    center, neighbor, shift = find_center_pairs(alone, positions, cutoff)
    other = ((center != neighbor) | shift.any(dim=1)).cpu()  # an atom is not its own neighbour, its images are
    return torch.stack([center, neighbor], dim=1).cpu()[other].numpy(), shift.cpu()[other].numpy()


def check_density(positions, cell, pbc, cutoff, n_centers):
    """Raise InputError where the list of pairs would be longer than any matter makes it, before it is made.

    positions : array [N, 3], Å; cell : array [3, 3], Å; pbc : three bool; n_centers : int

    The number of neighbours is that of the boxes of the cell, or of the atoms along directions that are not periodic,
    within a ball.
    """
    lengths = np.where(pbc, _heights(complete_cell(cell * pbc[:, None])), np.ptp(positions, axis=0))
    reach = 2 * cutoff / np.maximum(lengths, 1e-9)
    neighbors = len(positions) * np.prod(np.where(pbc, reach, np.minimum(reach, 1))) * np.pi / 6
    if pbc.any() and neighbors > MOST_NEIGHBORS:
        raise InputError(
            f"every atom would have about {neighbors:.2g} neighbours within {cutoff:g} Å: {len(positions)} "
            f"atoms in a cell whose faces are {', '.join(f'{h:.3g}' for h in lengths[pbc])} Å apart, denser "
            "than any matter; check the cell (other units? a vector that is too short or in the plane of "
            "the others?)"
        )
    if n_centers * neighbors > MOST_PAIRS:
        raise InputError(
            f"about {n_centers * neighbors:.2g} pairs within {cutoff:g} Å, more than fit into memory; "
            "take a smaller structure"
        )


def _heights(cell):
    """Distances [3] between opposite faces of a cell, Å."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def find_center_pairs(system, centers, cutoff):
    """(center, neighbor, shift) of all atoms within ``cutoff`` Å of points [C, 3], by centre, then atomic number.

    Raises InputError for more than one structure.
    """
    if system.n_systems != 1:
        raise InputError(f"got {system.n_systems} structures with centers; give centers of one structure at a time")
    pbc = system.pbc[0].cpu().numpy()
    cell = complete_cell(system.cell[0].detach().cpu().double().numpy() * pbc[:, None])
    (points, home), (positions, wrap) = (
        _wrapped(array.detach().cpu().double().numpy(), cell, pbc) for array in (centers, system.positions)
    )
    check_density(system.positions.detach().cpu().double().numpy(), cell, pbc, cutoff, len(centers))
    reach = cutoff / _heights(cell)  # in cell vectors
    images = np.indices(2 * np.ceil(reach).astype(int) * pbc + 1).reshape(3, -1).T - np.ceil(reach).astype(int) * pbc
    place = (positions @ np.linalg.inv(cell))[:, None] + images
    atom, image = np.nonzero((((place > -1e-6 - reach) & (place < 1 + 1e-6 + reach)) | ~pbc).all(axis=2))
    if len(points):
        pairs = cKDTree(points).sparse_distance_matrix(
            cKDTree(positions[atom] + images[image] @ cell), cutoff, output_type="ndarray"
        )
    else:
        pairs = {"i": np.zeros(0, int), "j": np.zeros(0, int)}
    center, found = pairs["i"], pairs["j"]
    order = np.lexsort((found, system.numbers.cpu().numpy()[atom[found]], center))
    center, found = center[order], found[order]
    shift = images[image[found]] - wrap[atom[found]] + home[center]
    return tuple(
        torch.as_tensor(array.astype(np.int64), device=system.positions.device)
        for array in (center, atom[found], shift)
    )


def _wrapped(points, cell, pbc):
    """Points [n, 3] moved into the cell along the periodic directions, and by how many cell vectors they were off."""
    off = np.floor(points @ np.linalg.inv(cell)) * pbc
    return points - off @ cell, off.astype(int)


def connect(system, center, neighbor, shift, cutoff, offset=None):
    """Edges of the candidate pairs that are within ``cutoff`` at the present positions.

    offset : Tensor [3, E], Å, shift @ cell of every pair where it is known already
    """
    # vectors are kept as planes x, y, z, and gathered: several times faster than rows of three and [...]
    offset = _offsets(system, center, shift) if offset is None else offset
    positions = system.positions.T.contiguous()
    vec = positions.gather(1, neighbor.expand(3, -1)) - positions.gather(1, center.expand(3, -1)) + offset
    with torch.no_grad():
        distance = (vec * vec).sum(dim=0).sqrt()
        near = distance < cutoff
        shortest = float(distance.min()) if len(distance) else cutoff
        if shortest < SHORTEST_DISTANCE:
            worst = int(distance.argmin())
            raise InputError(
                f"atoms {int(center[worst])} and {int(neighbor[worst])} overlap "
                f"({float(distance[worst]):.3f} Å apart); remove one of them or check the cell"
            )
    keep = near.nonzero().view(-1)
    if len(keep) < len(near):
        center, neighbor, shift = (array.index_select(0, keep) for array in (center, neighbor, shift))
        vec = vec.gather(1, keep.expand(3, -1))
    return Edges(center, neighbor, shift, vec.T, torch.arange(len(system.positions), device=center.device), shortest)


def _offsets(system, center, shift):
    """Tensor [3, E], Å: shift @ cell of every pair, one structure after the other, so that the last digit does not
    depend on how many there are."""
    if system.n_systems == 1:
        return system.cell[0].T @ shift.T.to(system.cell.dtype)
    counts = torch.bincount(system.batch.index_select(0, center), minlength=system.n_systems).tolist()
    return torch.cat(
        [cell.T @ part.T.to(cell.dtype).clone() for cell, part in zip(system.cell, shift.split(counts))], dim=1
    )


class EdgeCache:
    """Keeps the pairs of one structure within cutoff + skin and reuses them while they are guaranteed complete.

    A pair vector v becomes v F + u_j - u_i when the cell changes by F = cell_old^-1 cell_new and atoms move by u beyond
    that.  Pairs not in the list were longer than cutoff + skin, so none can have come within the cutoff as long as
    sigma_min(F) (cutoff + skin) - 2 max|u| >= cutoff.  This holds for moving atoms and changing cells alike.
    """

    def __init__(self, cutoff, skin):
        self.cutoff, self.skin = cutoff, skin
        self.reference, self.pairs, self.offset = None, None, None
        self._same_cell, self.n_builds = False, 0

    def edges(self, system):
        if not self._complete_for(system):
            self.pairs = find_pairs(system, self.cutoff + self.skin)
            self.reference = System(
                system.positions.detach().clone(),
                system.numbers,
                system.cell.detach().clone(),
                system.pbc,
                system.batch,
            )
            self.offset = _offsets(self.reference, self.pairs[0], self.pairs[2])
            self.n_builds += 1
            return connect(system, *self.pairs, self.cutoff)
        same = self._same_cell and not system.cell.requires_grad
        return connect(system, *self.pairs, self.cutoff, self.offset if same else None)

    def _complete_for(self, system):
        old = self.reference
        if (
            old is None
            or len(old.positions) != len(system.positions)
            or system.n_systems != 1
            or old.positions.device != system.positions.device
            or not torch.equal(old.pbc, system.pbc)
        ):
            return False
        with torch.no_grad():
            self._same_cell = torch.equal(old.cell, system.cell)
            if self._same_cell:
                affine, smallest = old.positions, 1.0
            elif not bool(system.pbc.all()):
                return False
            else:
                deformation = torch.linalg.solve(old.cell[0].double(), system.cell[0].double())
                affine = old.positions @ deformation.to(old.positions.dtype)
                smallest = float(torch.linalg.svdvals(deformation).min())
            moved = float((system.positions - affine).norm(dim=1).max())
        return smallest * (self.cutoff + self.skin) - 2 * moved >= self.cutoff
