"""Rows of DeepPot-SE, R_j = (s, w/r Y(r/r)), and the variable of its embedding, as one operation with its derivative.

As separate operations of torch they would take a hundred small operations forward and two hundred backward, most of the
time of a small structure. In SmoothRows the spherical harmonics are polynomials of the components of unit vectors, so
that the harmonics of one l, and their slopes, are products of matrices.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.compressed import CompressedEmbedding
from ase_mlelec.descriptors.embedding import ChebyshevEmbedding, EmbeddingNets
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.radial import switch

PAIRS = [(a, b) for a in range(3) for b in range(a, 3)]  # of components, for degree 2
TRIPLES = [(k, c) for k, (_, b) in enumerate(PAIRS) for c in range(b, 3)]  # of one of PAIRS and a component


class Shape(NamedTuple):
    """Parameters of the rows: ends of the switch and protection (Å), highest l, and the embedding."""

    smooth: float
    cutoff: float
    protection: float
    l_max: int
    embedding: EmbeddingNets | ChebyshevEmbedding | CompressedEmbedding


def plain_rows(
    vec: Tensor, shape: Shape, mean: Tensor | float, radial: Tensor | float, angular: Tensor | float
) -> Tensor:
    """Table [1 + rows, E] of vectors [3, E]: x of the embedding, s, and w/r Y_lm of l = 1 .. l_max, as torch takes it.

    Parameters
    ----------
    shape : Shape
    mean, radial, angular
        Numbers or Tensors [E]: s = radial (w/r - mean), and ``angular`` is the factor of w/r in the other rows.
    """
    r = (vec * vec).sum(dim=0).sqrt()
    divisor = r + shape.protection if shape.protection else r
    weight = switch(r, shape.smooth, shape.cutoff) / divisor
    s, size = (weight - mean) * radial, weight * angular / divisor
    parts = [shape.embedding.argument(r, s)[None], s[None], size * vec]
    if shape.l_max > 1:
        parts.append(size * r * harmonics(vec / r, shape.l_max, 2))
    return torch.cat(parts)


class SmoothRows(torch.autograd.Function):
    """``plain_rows``, faster: for models that are only evaluated."""

    @staticmethod
    def forward(ctx: Any, vec: Tensor, *arguments: Any) -> Tensor:
        table, *parts = rows_of(vec, *arguments)
        ctx.arguments, ctx.parts = arguments, parts
        ctx.save_for_backward(vec)
        return table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if not torch.is_grad_enabled():
            return pull_back(grad, ctx.arguments, *ctx.parts), None, None, None, None
        (vec,) = ctx.saved_tensors  # to be differentiated again
        vec = vec.view_as(vec)
        total = (plain_rows(vec, *ctx.arguments) * grad).sum()
        return torch.autograd.grad(total, vec, create_graph=True)[0], None, None, None, None


def rows_of(vec, shape, mean, radial, angular):
    """The table, and the intermediate arrays for the backward pass; functions of the distance alone are [1, E]."""
    r = (vec * vec).sum(dim=0, keepdim=True).sqrt()
    u = ((r - shape.smooth) * (1 / (shape.cutoff - shape.smooth))).clamp_(0, 1)
    divisor = r + shape.protection if shape.protection else r
    weight = (u * 6 - 15).mul_(u).add_(10).mul_(u**3).neg_().add_(1).div_(divisor)
    size = weight * angular
    if shape.protection:
        size = size * (r / divisor)
    table, sizes = vec.new_empty(1 + (shape.l_max + 1) ** 2, vec.shape[1]), [1, 1, (shape.l_max + 1) ** 2 - 1]
    x, s, rows = table.split(sizes)
    torch.mul(weight if isinstance(mean, float) and mean == 0 else weight - mean, radial, out=s)
    # a view of the table in the backward pass would keep the table, and it the view, for ever
    argument = shape.embedding.argument(r, s)
    argument = argument.clone() if argument is s else argument
    x.copy_(argument)
    values, pairs = torch.empty_like(rows), None
    if shape.l_max == 1:
        torch.div(vec, r, out=values)
    else:
        pairs = _harmonics(vec, r, values, shape.l_max)
    torch.mul(size, values, out=rows)
    return table, r, u, weight, argument, values, pairs, size


def _harmonics(vec, r, values, l_max):
    """Write Y_lm of l = 1 .. l_max into ``values``; returns the products of two components of the unit vectors."""
    constants = _constants(l_max, vec.dtype, vec.device)
    unit, *higher = values.split([2 * l + 1 for l in range(1, l_max + 1)])
    torch.div(vec, r, out=unit)
    first, second = constants["pairs"]
    pairs = unit.index_select(0, first).mul_(unit.index_select(0, second))
    torch.mm(constants["values"][0], pairs, out=higher[0])
    if l_max > 2:
        first, second = constants["triples"]
        torch.mm(constants["values"][1], pairs.index_select(0, first).mul_(unit.index_select(0, second)), out=higher[1])
    return pairs


def pull_back(grad, arguments, r, u, weight, x, values, pairs, size):
    """Gradient [3, E] by the vectors from the gradient by the table.

    With Y homogeneous of degree l, d(size Y)/dvec = size/r (dY/du - l Y u) + size' Y u.
    """
    shape, _, radial, angular = arguments
    of_x, of_s, of_rows = grad.split([1, 1, len(values)])
    unit, products = values[:3], of_rows * values
    if shape.l_max == 1:
        total = by_degree = products.sum(dim=0, keepdim=True)
        along = of_rows
    else:
        constants = _constants(shape.l_max, grad.dtype, grad.device)
        total, by_degree = torch.mm(constants["degrees"], products).split(1)
        along, *higher = of_rows.split([2 * l + 1 for l in range(1, shape.l_max + 1)])
        for slopes, own, lower in zip(constants["slopes"], higher, (unit, pairs)):
            along = along + torch.mm(slopes, own).view(3, len(lower), own.shape[1]).mul_(lower).sum(dim=1)
    divisor = r + shape.protection if shape.protection else r
    falling = _falling(shape, r, u, weight)
    by_r, by_s = shape.embedding.argument_slopes(r, x)
    if by_s is not None:
        of_s = of_s + by_s * of_x
    if shape.protection:  # size has another factor r/(r + protection)
        radially = angular * total * (weight * shape.protection / divisor**2 - falling * r / divisor)
        radially -= falling * of_s * radial
    else:
        radially = falling * (of_s * radial + total * angular).neg_()
    if by_r is not None:
        radially = torch.addcmul(radially, by_r, of_x)
    per_length = size / r
    return torch.addcmul(per_length * along, radially.sub_(per_length * by_degree), unit)


def push_forward(move, arguments, r, u, weight, x, values, pairs, size):
    """Change [1 + rows, E] of the table when the vectors move by ``move`` [3, E]; the transpose of ``pull_back``."""
    shape, _, radial, angular = arguments
    unit, closer = values[:3], (values[:3] * move).sum(dim=0, keepdim=True)
    divisor = r + shape.protection if shape.protection else r
    falling = _falling(shape, r, u, weight)
    table = move.new_empty(2 + len(values), move.shape[1])
    of_x, of_s, of_rows = table.split([1, 1, len(values)])
    torch.mul(falling, closer, out=of_s).mul_(-radial)
    by_r, by_s = shape.embedding.argument_slopes(r, x)
    of_x.zero_()
    if by_s is not None:
        torch.mul(of_s, by_s, out=of_x)
    if by_r is not None:
        of_x.addcmul_(by_r, closer)
    changes, per_length = [move], size / r
    if shape.l_max > 1:
        constants = _constants(shape.l_max, move.dtype, move.device)
        for slopes, lower in zip(constants["slopes"], (unit, pairs)):
            changes.append(torch.mm(slopes.T, (move[:, None] * lower).flatten(0, 1)))
        of_rows.copy_(torch.cat(changes))
    else:
        of_rows.copy_(move)
    of_rows.mul_(per_length)
    slope = -angular * falling
    if shape.protection:
        slope = angular * (weight * shape.protection / divisor**2 - falling * r / divisor)
    start = 0
    for l in range(1, shape.l_max + 1):
        rows = slice(start, start + 2 * l + 1)
        of_rows[rows].addcmul_(values[rows], (slope - l * per_length) * closer)
        start += 2 * l + 1
    return table


def _falling(shape, r, u, weight):
    """-d(w/r)/dr [1, E]."""
    divisor = r + shape.protection if shape.protection else r
    return (u - u * u).square_().mul_(30 / (shape.cutoff - shape.smooth)).add_(weight).div_(divisor)


@functools.lru_cache
def _constants(l_max, dtype, device):
    """dict of Tensors: which components make ``pairs`` [2, 6] and ``triples`` [2, 10]; for l = 2 and 3, ``values``
    [2 l + 1, products], the coefficients in the harmonics, and ``slopes`` [3 products of one component less, 2 l + 1],
    those in their derivatives; ``degrees`` [2, rows], 1 and l.
    """
    powers = [np.eye(3, dtype=int)]
    powers.append(np.array([powers[0][a] + powers[0][b] for a, b in PAIRS]))
    powers.append(np.array([powers[1][k] + powers[0][c] for k, c in TRIPLES]))
    values = _harmonic_coefficients(powers, l_max)
    slopes = []
    for lower, higher, table in zip(powers, powers[1:], values):
        place = {tuple(power): k for k, power in enumerate(lower.tolist())}
        slopes.append(np.zeros((3, len(lower), len(table))))
        for k, power in enumerate(higher):
            for a in np.flatnonzero(power):
                slopes[-1][a, place[tuple((power - powers[0][a]).tolist())]] += power[a] * table[:, k]
    degrees = np.repeat(np.arange(1, l_max + 1), 2 * np.arange(1, l_max + 1) + 1)

    def tensor(array):
        return torch.tensor(array, dtype=dtype, device=device)

    return {
        "values": [tensor(table) for table in values],
        "degrees": tensor(np.stack([degrees**0, degrees])),
        "slopes": [tensor(table.reshape(-1, table.shape[2])) for table in slopes],
        "pairs": torch.tensor(np.transpose(PAIRS), device=device),
        "triples": torch.tensor(np.transpose(TRIPLES), device=device),
    }


def _harmonic_coefficients(powers, l_max):
    """list of arrays [2 l + 1, monomials]: the harmonics of l = 2 .. l_max as sums of monomials, found at points."""
    points = np.random.default_rng(0).normal(size=(3, 64))
    points /= np.linalg.norm(points, axis=0)
    wanted = np.split(harmonics(torch.tensor(points), l_max, 2).numpy(), [5])
    tables = []
    for power, found in zip(powers[1:l_max], wanted):
        monomials = np.prod(points[None] ** power[:, :, None], axis=1)
        table = np.linalg.lstsq(monomials.T, found.T, rcond=None)[0].T
        tables.append(np.where(abs(table) < 1e-13, 0.0, table))
    return tables
