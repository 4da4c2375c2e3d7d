"""Structures that do not move while a model is trained, and what does not change with its parameters.

The moments of a Chebyshev series, m = sum_j R_j S_k(x_j), are functions of the geometry alone. Features are functions of
m and of the parameters, and forces are linear in dE/dm, with constants. Training therefore differentiates, for the loss
of forces, only the short way from m to the energy twice.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.embedding import differentiation, signed_chebyshev
from ase_mlelec.descriptors.smooth_rows import Shape, pull_back, push_forward, rows_of
from ase_mlelec.edges import Edges

CHUNK = 2**15  # slots of neighbors that are evaluated at a time: a few MB, which stay in the cache


@dataclass(frozen=True)
class Slots:
    """Neighbors of all centers of one species, in slots; those of one species are one block of slots.

    Attributes
    ----------
    atoms : Tensor [C]
        Atom at every center.
    vec : Tensor [3, C, n], Å
        Empty slots hold a vector as long as the cutoff, where all rows vanish.
    neighbor : Tensor [C, n]
        Atom of the neighbor; in empty slots the center itself.
    present : Tensor [C, species]
        Number of neighbors.
    widths : tuple of int
        Numbers of slots of each species of the neighbor.
    """

    atoms: Tensor
    vec: Tensor
    neighbor: Tensor
    present: Tensor
    widths: tuple

    @classmethod
    def of(cls, edges: Edges, chosen: Tensor, kinds: Tensor, n_species: int, cutoff: float) -> "Slots":
        """Slots of the atoms ``chosen`` [C], ascending, from edges to neighbors of species ``kinds`` [E]."""
        edges, rows = edges.at_centers(chosen), torch.isin(edges.center, chosen)
        kinds = kinds[rows]
        group = edges.center * n_species + kinds
        order = group.argsort(stable=True)
        present = torch.bincount(group, minlength=len(chosen) * n_species)
        first = present.cumsum(0) - present
        slot = torch.empty_like(group)
        slot[order] = torch.arange(len(group), device=group.device) - first[group[order]]
        present = present.view(len(chosen), n_species)
        widths = present.amax(dim=0) if len(chosen) else present.sum(dim=0)
        n = int(widths.sum())
        place = edges.center * n + (widths.cumsum(0) - widths)[kinds] + slot
        vec = edges.vec.new_zeros(3, len(chosen) * n)
        vec[0] = cutoff
        vec[:, place] = edges.vec.T
        neighbor = chosen.repeat_interleave(n)
        neighbor[place] = edges.neighbor
        shape = len(chosen), n
        return cls(chosen, vec.view(3, *shape), neighbor.view(shape), present, tuple(widths.tolist()))

    @classmethod
    def join(cls, parts: Sequence["Slots"], offsets: Sequence[int], cutoff: float) -> "Slots":
        """Slots of several structures, whose atoms are counted from ``offsets``."""
        if len(parts) == 1 and offsets[0] == 0:
            return parts[0]
        atoms = torch.cat([part.atoms + offset for part, offset in zip(parts, offsets)])
        widths = tuple(map(max, zip(*(part.widths for part in parts))))
        vec = parts[0].vec.new_zeros(3, len(atoms), sum(widths))
        vec[0] = cutoff
        neighbor = atoms[:, None].repeat(1, sum(widths))
        row = 0
        for part, offset in zip(parts, offsets):
            rows, old, new = slice(row, row + len(part.atoms)), 0, 0
            for own, width in zip(part.widths, widths):
                vec[:, rows, new : new + own] = part.vec[:, :, old : old + own]
                neighbor[rows, new : new + own] = part.neighbor[:, old : old + own] + offset
                old, new = old + own, new + width
            row += len(part.atoms)
        return cls(atoms, vec, neighbor, torch.cat([part.present for part in parts]), widths)

    @property
    def blocks(self) -> list:
        """list of slice, the slots of each species."""
        ends = torch.tensor([0, *self.widths]).cumsum(0).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def filled(self) -> Tensor:
        """Mask [C, n] of the slots with a neighbor."""
        index = torch.cat([torch.arange(width) for width in self.widths]).to(self.present.device)
        kind = torch.arange(len(self.widths)).repeat_interleave(torch.tensor(self.widths)).to(index.device)
        return index < self.present[:, kind]

    def chunks(self) -> Iterator[slice]:
        """Slices of the centers, of about CHUNK slots each."""
        step = max(1, CHUNK // max(1, self.vec.shape[2]))
        for start in range(0, len(self.atoms), step):
            yield slice(start, min(start + step, len(self.atoms)))


class Law(NamedTuple):
    """How the centers of one species see their neighbors.

    Attributes
    ----------
    shape : Shape
    normalization : (mean of s, factor of s, factor of the other rows), numbers
    n_basis : int
    seen : tuple of bool, by species of the neighbor
    """

    shape: Shape
    normalization: tuple
    n_basis: int
    seen: tuple

    def mask(self, slots: Slots) -> Tensor | None:
        """Mask [C, n] of the slots that count; None where the others vanish by themselves."""
        if all(self.seen) and self.normalization[0] == 0:
            return None
        seen = torch.tensor(self.seen).repeat_interleave(torch.tensor(slots.widths))
        return slots.filled() & seen.to(slots.vec.device)

    def table(self, vec: Tensor) -> tuple:
        """(table [1 + rows, c, n] of vectors [3, c, n], what the derivatives need)."""
        table, *parts = rows_of(vec.flatten(1), self.shape, *self.normalization)
        return table.view(len(table), *vec.shape[1:]), parts


def moments_of(slots: Slots, law: Law) -> Tensor:
    """Moments [C, rows, species, K]: sum_j R_j S_k(x_j) by species of the neighbor."""
    found, mask = [], law.mask(slots)
    for rows in slots.chunks():
        table, _ = law.table(slots.vec[:, rows])
        values = table[1:] if mask is None else table[1:] * mask[rows]
        basis, values = signed_chebyshev(table[0], law.n_basis), values.transpose(0, 1)
        blocks = [values[:, :, block] @ basis[:, :, block].transpose(1, 2) for block in slots.blocks]
        found.append(torch.stack(blocks, dim=2))
    return torch.cat(found)


def gradient_by_vectors(grad: Tensor, slots: Slots, law: Law) -> Iterator[tuple]:
    """Pull dE/dm [C, rows, species, K] back to the vectors: (rows of centers, dE/dvec [3, c, n]), part after part."""
    change = differentiation(law.n_basis, grad.dtype, grad.device)
    mask, n_rows = law.mask(slots), grad.shape[1]
    both = torch.cat([grad, grad @ change], dim=1)
    for rows in slots.chunks():
        table, parts = law.table(slots.vec[:, rows])
        basis = signed_chebyshev(table[0], law.n_basis)
        found = [both[rows, :, k] @ basis[:, :, block] for k, block in enumerate(slots.blocks)]
        of_rows, slope = torch.cat(found, dim=2).transpose(0, 1).split(n_rows)
        if mask is not None:
            of_rows, slope = of_rows * mask[rows], slope * mask[rows]
        of_x = (slope * table[1:]).sum(dim=0, keepdim=True)
        of_table = torch.cat([of_x, of_rows]).flatten(1)
        arguments = law.shape, *law.normalization
        yield rows, pull_back(of_table, arguments, *parts).view(3, *table.shape[1:])


def change_along(moves: Tensor, rows: slice, slots: Slots, law: Law) -> Tensor:
    """Change [c, rows, species, K] of the moments of centers ``rows`` when their vectors move by ``moves`` [3, c, n]."""
    change, mask = differentiation(law.n_basis, moves.dtype, moves.device), law.mask(slots)
    table, parts = law.table(slots.vec[:, rows])
    arguments = law.shape, *law.normalization
    moving = push_forward(moves.flatten(1), arguments, *parts).view(table.shape)
    both = torch.cat([moving[1:], table[1:] * moving[0]])
    if mask is not None:
        both = both * mask[rows]
    basis, both = signed_chebyshev(table[0], law.n_basis), both.transpose(0, 1)
    blocks = [both[:, :, block] @ basis[:, :, block].transpose(1, 2) for block in slots.blocks]
    direct, through_x = torch.stack(blocks, dim=2).chunk(2, dim=1)
    return direct + through_x @ change.T


class GeometryGradient(torch.autograd.Function):
    """(dE/dpositions [3, N], dE/dstrain [B, 3, 3]) from dE/dm, which it is linear in.

    References
    ----------
    Virial as the derivative by a homogeneous strain of positions and cell.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, slots: Slots, law: Law, owner: Tensor, n_systems: int) -> tuple:
        ctx.slots, ctx.law, ctx.owner = slots, law, owner
        positions = grad.new_zeros(3, len(owner))
        strains = grad.new_zeros(n_systems, 3, 3)
        for rows, of_vec in gradient_by_vectors(grad, slots, law):
            atoms = slots.atoms[rows]
            positions.index_add_(1, slots.neighbor[rows].flatten(), of_vec.flatten(1))
            positions.index_add_(1, atoms, of_vec.sum(dim=2), alpha=-1)
            products = torch.bmm(slots.vec[:, rows].transpose(0, 1), of_vec.permute(1, 2, 0))
            strains.index_add_(0, owner[atoms], products)
        return positions, strains

    @staticmethod
    def backward(ctx: Any, of_positions: Tensor, of_strains: Tensor) -> tuple:
        slots, found = ctx.slots, []
        for rows in slots.chunks():
            atoms, neighbor = slots.atoms[rows], slots.neighbor[rows]
            moves = of_positions.index_select(1, neighbor.flatten()).view(3, *neighbor.shape)
            moves = moves - of_positions.index_select(1, atoms)[:, :, None]
            strain = of_strains[ctx.owner[atoms]]
            moves = moves + torch.bmm(strain.mT, slots.vec[:, rows].transpose(0, 1)).transpose(0, 1)
            found.append(change_along(moves, rows, slots, ctx.law))
        return torch.cat(found), None, None, None, None
