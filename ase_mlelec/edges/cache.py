"""Reuse of the pairs between the steps of a run."""

import torch
from torch import Tensor

from ase_mlelec.edges.edges import Edges, connect, offsets
from ase_mlelec.edges.pairs import find_pairs
from ase_mlelec.system import System


class EdgeCache:
    """Keeps the pairs of one structure within cutoff + skin and reuses them while they are guaranteed complete.

    A pair vector v becomes v F + u_j - u_i when the cell changes by F = cell_old^-1 cell_new and atoms move by u beyond
    that. Pairs not in the list were longer than cutoff + skin, so none can have come within the cutoff as long as
    sigma_min(F) (cutoff + skin) - 2 ``max|u|`` >= cutoff. This holds for moving atoms and changing cells alike.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.reference: System | None = None
        self.pairs: tuple[Tensor, Tensor, Tensor] | None = None
        self.offset: Tensor | None = None
        self._same_cell, self.n_builds = False, 0

    def edges(self, system: System) -> Edges:
        if self.pairs is None or not self._complete_for(system):
            self.pairs = find_pairs(system, self.cutoff + self.skin)
            self.reference = System(
                system.positions.detach().clone(),
                system.numbers,
                system.cell.detach().clone(),
                system.pbc,
                system.batch,
            )
            self.offset = offsets(self.reference, self.pairs[0], self.pairs[2])
            self.n_builds += 1
            center, neighbor, shift = self.pairs
            return connect(system, center, neighbor, shift, self.cutoff)
        same = self._same_cell and not system.cell.requires_grad
        center, neighbor, shift = self.pairs
        return connect(system, center, neighbor, shift, self.cutoff, offset=self.offset if same else None)

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
