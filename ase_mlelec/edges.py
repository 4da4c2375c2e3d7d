"""Edges: the only neighbour list (built by vesin), and its reuse between steps of a run."""
from dataclasses import dataclass, replace

import numpy as np
import torch
import vesin
from ase.calculators.calculator import InputError
from ase.geometry import complete_cell

from ase_mlelec.system import System

SHORTEST_DISTANCE = 0.05    # Å; below it two atoms are on top of each other


@dataclass(frozen=True)
class Edges:
    """Directed pairs centre -> neighbour within a cutoff, all periodic images, sorted by centre.

    The neighbours of a centre come in the order of their atomic numbers where ``build`` made them.

    center : Tensor [E], index of the centre
    neighbor : Tensor [E], index of the atom
    shift : Tensor [E, 3], integers; the neighbour sits at r_neighbor + shift @ cell
    vec : Tensor [E, 3], Å, neighbour - centre: the only geometry a descriptor reads; carries the gradient
    atoms : Tensor [C], the atom every centre sits on
    """
    center: torch.Tensor
    neighbor: torch.Tensor
    shift: torch.Tensor
    vec: torch.Tensor
    atoms: torch.Tensor

    @property
    def n_centers(self):
        return len(self.atoms)

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
            yield slice(low, high), Edges(self.center[low:high] - start, self.neighbor[low:high],
                                          self.shift[low:high], self.vec[low:high], self.atoms[start:start + size])

    def part(self, atoms, rows):
        """The edges ``rows`` (slice) of the structure with ``atoms`` (slice), counted from its first atom."""
        return Edges(self.center[rows] - atoms.start, self.neighbor[rows] - atoms.start, self.shift[rows],
                     self.vec[rows], self.atoms[atoms] - atoms.start)

    @classmethod
    def build(cls, system, cutoff):
        """All pairs closer than ``cutoff`` (Å) in every structure of ``system``.

        Any cell shape, any pbc, cutoffs beyond the cell and single atoms (which see their images) are allowed.

        Raises InputError when two atoms overlap.
        """
        return connect(system, *find_pairs(system, cutoff), cutoff)


def find_pairs(system, cutoff):
    """(center, neighbor, shift) of all pairs within ``cutoff`` Å, as tensors on the system's device."""
    offset, parts = 0, []
    positions = system.positions.detach().cpu().double().numpy()
    for count, cell, pbc in zip(system.n_atoms.tolist(), system.cell.detach().cpu().double().numpy(),
                                system.pbc.cpu().numpy()):
        # nothing repeats along a non-periodic direction: any independent vector does there
        search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
        pairs, shift = search.compute(positions[offset:offset + count], complete_cell(cell * pbc[:, None]), pbc, "PS")
        parts.append((pairs.astype(np.int64) + offset, shift))
        offset += count
    device = system.positions.device
    pairs, shift = (np.concatenate(arrays) for arrays in zip(*parts))
    numbers = system.numbers.cpu().numpy()
    order = np.argsort(pairs[:, 0] * (numbers.max() + 1) + numbers[pairs[:, 1]], kind="stable")
    pairs, shift = torch.as_tensor(pairs[order], device=device), torch.as_tensor(shift[order], device=device)
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), shift


def connect(system, center, neighbor, shift, cutoff):
    """Edges of the candidate pairs that are within ``cutoff`` at the present positions."""
    # vectors are kept as planes x, y, z, and gathered: several times faster than rows of three and [...]
    if system.n_systems == 1:
        offset = system.cell[0].T @ shift.T.to(system.cell.dtype)
    else:
        cells = system.cell.index_select(0, system.batch.index_select(0, center))
        offset = (shift.to(cells.dtype)[:, None, :] @ cells)[:, 0].T
    positions = system.positions.T.contiguous()
    vec = positions.gather(1, neighbor.expand(3, -1)) - positions.gather(1, center.expand(3, -1)) + offset
    with torch.no_grad():
        distance = (vec * vec).sum(dim=0).sqrt()
        near = distance < cutoff
        if len(distance) and float(distance.min()) < SHORTEST_DISTANCE:
            worst = int(distance.argmin())
            raise InputError(f"atoms {int(center[worst])} and {int(neighbor[worst])} overlap "
                             f"({float(distance[worst]):.3f} Å apart); remove one of them or check the cell")
    if not bool(near.all()):
        keep = near.nonzero()[:, 0]
        center, neighbor, shift = (array.index_select(0, keep) for array in (center, neighbor, shift))
        vec = vec.gather(1, keep.expand(3, -1))
    return Edges(center, neighbor, shift, vec.T, torch.arange(len(system.positions), device=center.device))


class EdgeCache:
    """Keeps the pairs of one structure within cutoff + skin and reuses them while they are guaranteed complete.

    A pair vector v becomes v F + u_j - u_i when the cell changes by F = cell_old^-1 cell_new and atoms move by u beyond
    that.  Pairs not in the list were longer than cutoff + skin, so none can have come within the cutoff as long as
    sigma_min(F) (cutoff + skin) - 2 max|u| >= cutoff.  This holds for moving atoms and changing cells alike.
    """

    def __init__(self, cutoff, skin):
        self.cutoff, self.skin = cutoff, skin
        self.reference, self.pairs = None, None
        self.n_builds = 0

    def edges(self, system):
        if not self._complete_for(system):
            self.pairs = find_pairs(system, self.cutoff + self.skin)
            self.reference = System(system.positions.detach().clone(), system.numbers, system.cell.detach().clone(),
                                    system.pbc, system.batch)
            self.n_builds += 1
        return connect(system, *self.pairs, self.cutoff)

    def _complete_for(self, system):
        old = self.reference
        if (old is None or len(old.positions) != len(system.positions) or system.n_systems != 1
                or old.positions.device != system.positions.device or not torch.equal(old.pbc, system.pbc)):
            return False
        with torch.no_grad():
            if torch.equal(old.cell, system.cell):
                affine, smallest = old.positions, 1.0
            elif not bool(system.pbc.all()):
                return False
            else:
                deformation = torch.linalg.solve(old.cell[0].double(), system.cell[0].double())
                affine = old.positions @ deformation.to(old.positions.dtype)
                smallest = float(torch.linalg.svdvals(deformation).min())
            moved = float((system.positions - affine).norm(dim=1).max())
        return smallest * (self.cutoff + self.skin) - 2 * moved >= self.cutoff
