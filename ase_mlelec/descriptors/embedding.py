"""Embeddings: learned functions of the distance that weight a neighbor, as nets or as Chebyshev series.

A net of one variable is a smooth function of one variable, so a Chebyshev series of it is exact to its truncation. The
sum over neighbors then runs over the basis functions, and the net's coefficients act once per center.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.nets import DenseNet, map_by_species

NODES = (64, 128, 256)  # numbers of nodes at which embedding nets are interpolated in training; the first that suffices
NEGLIGIBLE = 1e-13  # coefficients below this times the largest are left out


class ChebyshevMoments(torch.autograd.Function):
    """sum_j R_j T_k(x_j) for k < K, by species of the neighbor j; differentiable to any order.

    Attributes
    ----------
    padded : Tensor [C, 1 + rows, n]
        x and below it R.
    blocks
        Slices of n, one per species.

    Returns
    -------
    moments [C
        Rows, species, K], and the T_k(x_j) up to a sign, [C, K, n]: the backward pass is written with them, and a
        second backward pass goes through them. T'_k = sum_m D_km T_m is again a series, so that the derivatives with
        respect to x and R are one matrix product per center, with no array [C, K, n] but the first one.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, blocks: Sequence[slice], n_basis: int) -> tuple[Tensor, Tensor]:
        basis, rows = signed_chebyshev(padded[:, 0], n_basis), padded[:, 1:]
        ctx.save_for_backward(padded, basis)
        ctx.set_materialize_grads(False)
        ctx.blocks = blocks
        moments = [rows[:, :, block] @ basis[:, :, block].transpose(1, 2) for block in blocks]
        return torch.stack(moments, dim=2) * _signs(n_basis, basis.dtype, basis.device), basis

    @staticmethod
    def backward(ctx: Any, of_moments: Tensor | None, of_basis: Tensor | None) -> tuple[Tensor | None, None, None]:
        padded, basis = ctx.saved_tensors
        constants = basis.shape[1], basis.dtype, basis.device
        total = None
        if of_moments is not None:
            of_moments = of_moments * _signs(*constants)
            both = torch.cat([of_moments, of_moments @ differentiation(*constants)], dim=1)
            parts = [both[:, :, k] @ basis[:, :, block] for k, block in enumerate(ctx.blocks)]
            of_rows, slope = _assemble(parts, ctx.blocks).chunk(2, dim=1)
            total = torch.cat([(slope * padded[:, 1:]).sum(dim=1, keepdim=True), of_rows], dim=1)
        if of_basis is not None:
            of_x = ((differentiation(*constants).T @ of_basis) * basis).sum(dim=1, keepdim=True)
            of_x = torch.nn.functional.pad(of_x, (0, 0, 0, padded.shape[1] - 1))
            total = of_x if total is None else total + of_x
        return total, None, None


class FixedSeries(torch.autograd.Function):
    """Product [C, rows, M] of ChebyshevMoments with constant coefficients.

    Attributes
    ----------
    padded, blocks
        As in ChebyshevMoments.
    forth : Tensor [species K, M]
        Coefficients of the S_k.
    back : Tensor [M, species 2 K]
        Coefficients of the values and of the slopes.
    plain : function of ``padded`` with the same values
        Replacement where the result is differentiated more than once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        padded: Tensor,
        blocks: Sequence[slice],
        forth: Tensor,
        back: Tensor,
        plain: Callable[[Tensor], Tensor],
    ) -> Tensor:
        basis, rows = signed_chebyshev(padded[:, 0], len(forth) // len(blocks)), padded[:, 1:]
        ctx.save_for_backward(padded, basis)
        ctx.blocks, ctx.back, ctx.plain = blocks, back, plain
        if len(blocks) == 1:
            moments = torch.bmm(rows, basis.transpose(1, 2))
        else:
            moments = torch.cat(
                [torch.bmm(rows[:, :, block], basis[:, :, block].transpose(1, 2)) for block in blocks], dim=2
            )
        n_centers, n_rows = rows.shape[:2]  # there may be none
        return torch.mm(moments.view(n_centers * n_rows, len(forth)), forth).view(n_centers, n_rows, forth.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        padded, basis = ctx.saved_tensors
        if torch.is_grad_enabled():
            padded = padded.view_as(padded)
            (total,) = torch.autograd.grad((ctx.plain(padded) * grad).sum(), padded, create_graph=True)
            return total, None, None, None, None
        (n_centers, n_rows), n_basis = grad.shape[:2], basis.shape[1]
        both = torch.mm(grad.reshape(n_centers * n_rows, grad.shape[2]), ctx.back)
        if len(ctx.blocks) == 1:
            both = torch.bmm(both.view(n_centers, 2 * n_rows, n_basis), basis)
        else:
            both = both.view(n_centers, n_rows, len(ctx.blocks), 2, n_basis)
            both = _assemble(
                [
                    torch.bmm(both[:, :, k].reshape(n_centers, 2 * n_rows, n_basis), basis[:, :, block])
                    for k, block in enumerate(ctx.blocks)
                ],
                ctx.blocks,
            )
        of_rows, slope = both.view(n_centers, n_rows, 2, basis.shape[2]).unbind(2)
        of_x = (slope * padded[:, 1:]).sum(dim=1, keepdim=True)
        return torch.cat([of_x, of_rows], dim=1), None, None, None, None


def _assemble(parts, blocks):
    """Put the parts [..., block] in the order of their blocks."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part for _, part in sorted(zip(blocks, parts), key=lambda pair: pair[0].start)], dim=-1)


def signed_chebyshev(x, n_basis):
    """S_k(x) = ±T_k(x) for k < K, signs + + - - + + ...: [C, n] -> [C, K, n].

    With these signs ``T_{k+1}`` = 2 x T_k - ``T_{k-1}`` becomes ``S_{k+1}`` = ``S_{k-1}`` ± 2 x S_k, a single fused
    operation.
    """
    values = x.new_empty(n_basis, *x.shape)
    planes = values.unbind(0)
    planes[0].fill_(1)
    if n_basis > 1:
        planes[1].copy_(x)
    for k in range(1, n_basis - 1):
        torch.addcmul(planes[k - 1], x, planes[k], value=-2 if k % 2 else 2, out=planes[k + 1])
    return values.transpose(0, 1)


@functools.lru_cache
def _signs(n_basis, dtype, device):
    """Tensor [K], T_k = sign_k S_k."""
    return torch.tensor([1, 1, -1, -1] * n_basis, dtype=dtype, device=device)[:n_basis]


@functools.lru_cache
def differentiation(n_basis, dtype, device):
    """Tensor [K, K]: S'_k = sum_m D_km S_m."""
    matrix = np.zeros((n_basis, n_basis))
    for k in range(1, n_basis):
        matrix[k, :k] = np.polynomial.chebyshev.chebder(np.eye(n_basis)[k])[:k]
    signs = _signs(n_basis, torch.float64, "cpu")
    return (signs[:, None] * torch.as_tensor(matrix) * signs).to(device, dtype)


class _Embedding(torch.nn.Module):
    """One function of distance per species of the neighbor, or per pair of species.

    Parameters
    ----------
    n_species : int
    one_side : bool
        True, numbered by species of the neighbor; False, center + n_species * neighbor.
    """

    def __init__(self, n_species, one_side):
        super().__init__()
        self.n_species, self.one_side = n_species, one_side or n_species == 1
        self.n_pairs = n_species if self.one_side else n_species**2

    def pair(self, center, neighbor):
        return neighbor if self.one_side else center + self.n_species * neighbor

    def series(self, low, high):
        """(signed coefficients [pairs, M, K] of a series in x, the Variable x), or None where no series is short.

        Parameters
        ----------
        low, high : float
            Range of the normalized s.
        """
        raise NotImplementedError(f"{type(self).__name__} must define series(low, high)")

    def argument(self, r, s):
        """The variable of the function, from distances and normalized s [E]."""
        return s

    def argument_slopes(self, r, x):
        """(partial derivative of the variable in r, in s); None where it is zero."""
        return None, 1.0

    def moments(self, padded, blocks, species):
        """sum_j R_j G(x_j)^T over all neighbors.

        Parameters
        ----------
        padded : Tensor [C, 1 + rows, n]
            x and below it R.
        blocks
            Slices of n, one per species of the neighbor.
        species : Tensor [C]
            Of the center.

        Returns
        -------
        Tensor [C, rows, M]
        """
        raise NotImplementedError(f"{type(self).__name__} must define moments(padded, blocks, species)")


class EmbeddingNets(_Embedding):
    """Nets of the normalized s(r) (DeepPot-SE).

    References
    ----------
    Zhang et al. 2018, Eq. (11); conventions of the weights as in the reference implementation.
    """

    nets: Any  # ModuleList of DenseNet

    def __init__(
        self, n_species: int, one_side: bool, widths: Sequence[int], timestep: bool = False, activation: str = "tanh"
    ):
        super().__init__(n_species, one_side)
        self.nets = torch.nn.ModuleList(DenseNet(1, widths, timestep, activation) for _ in range(self.n_pairs))
        self.n_out = widths[-1]

    def values(self, x: Tensor, center: int, neighbor: int) -> Tensor:
        """G(x): [...] -> [..., M]"""
        return self.nets[self.pair(center, neighbor)](x.reshape(-1, 1)).reshape(*x.shape, self.n_out)

    def series(self, low: float, high: float) -> tuple | None:
        """Interpolate the nets at Chebyshev nodes; as many terms as the present parameters need (see NEGLIGIBLE)."""
        parameter = self.nets[0][0].weight
        for n in NODES:
            nodes, transform = _nodes(n, parameter.dtype, parameter.device)
            s = (nodes + 1) * ((high - low) / 2) + low
            coefficients = torch.stack([net(s[:, None]) for net in self.nets]).transpose(1, 2) @ transform
            needed = _terms_needed(coefficients.detach())
            if needed:
                return coefficients[:, :, :needed], Interpolated(low, high)
        return None

    def moments(self, padded: Tensor, blocks: Sequence[slice], species: Tensor) -> Tensor:
        def part(k, center, own):
            return own[:, 1:] @ self.values(own[:, 0], center, k)

        n_centers = 1 if self.one_side else self.n_species
        return sum(  # type: ignore[return-value]  # there are blocks
            map_by_species(functools.partial(part, k), species, n_centers, padded[:, :, block])
            for k, block in enumerate(blocks)
        )


class Series(_Embedding):
    """Chebyshev series with ``coefficients`` [pairs, M, K]."""

    def settle(self):
        """Arrange the coefficients for FixedSeries; for copies that are only evaluated."""
        if not self.one_side:
            return
        constants = self.n_basis, self.coefficients.dtype, self.coefficients.device
        signed = self.coefficients.detach() * _signs(*constants)
        back = torch.stack([signed, signed @ differentiation(*constants)], dim=2)  # [species, M, 2, K]
        self.register_buffer("forth", signed.transpose(1, 2).flatten(0, 1).contiguous(), persistent=False)
        self.register_buffer("back", back.transpose(0, 1).flatten(1).contiguous(), persistent=False)

    def combined(self, columns):
        """Copy for evaluation whose functions are combinations ``columns`` [M, M'] of these."""
        new = copy.deepcopy(self)
        del new.coefficients  # a parameter of some
        new.register_buffer("coefficients", columns.T @ self.coefficients.detach())
        new.settle()
        return new

    def moments(self, padded, blocks, species):
        if getattr(self, "forth", None) is not None:
            return FixedSeries.apply(padded, blocks, self.forth, self.back, lambda p: self._moments(p, blocks, species))
        return self._moments(padded, blocks, species)

    def _moments(self, padded, blocks, species):
        moments, _ = ChebyshevMoments.apply(padded, blocks, self.n_basis)
        if self.one_side:
            return moments.flatten(2) @ self.coefficients.transpose(1, 2).flatten(0, 1)
        by_center = self.coefficients.unflatten(0, (self.n_species, self.n_species)).permute(1, 0, 3, 2).flatten(1, 2)
        return map_by_species(lambda c, own: own.flatten(2) @ by_center[c], species, self.n_species, moments)


class ChebyshevEmbedding(Series):
    """Trainable series in a bounded variable of the distance, x = 2 (1 - ρ)/(1 + ρ) - 1 with ρ = r/cutoff.

    x resolves short distances four times finer than long ones.
    """

    def __init__(self, n_species: int, one_side: bool, n_basis: int, n_out: int, cutoff: float):
        super().__init__(n_species, one_side)
        self.cutoff, self.n_basis, self.n_out = cutoff, n_basis, n_out
        decay = 1 / (1 + 0.5 * torch.arange(n_basis, dtype=torch.get_default_dtype()))[:, None]
        self.coefficients = torch.nn.Parameter(torch.randn(self.n_pairs, n_out, n_basis) * decay.T)

    def series(self, low: float, high: float) -> tuple:
        """The coefficients as they are, which cover all distances."""
        return self.coefficients * _signs(self.n_basis, self.coefficients.dtype, self.coefficients.device), self

    def argument(self, r: Tensor, s: Tensor) -> Tensor:
        return (r + self.cutoff).reciprocal() * (4 * self.cutoff) - 3

    def argument_slopes(self, r: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return (x + 3) ** 2 * (-0.25 / self.cutoff), None


class Interpolated(NamedTuple):
    """The variable of a series over the range low .. high of the normalized s, as an embedding has it."""

    low: float
    high: float

    def argument(self, r: Tensor, s: Tensor) -> Tensor:
        return (s - self.low) * (2 / (self.high - self.low)) - 1

    def argument_slopes(self, r: Tensor, x: Tensor) -> tuple[None, float]:
        return None, 2 / (self.high - self.low)


@functools.lru_cache
def _nodes(n, dtype, device):
    """(Chebyshev nodes [n], transform [n, n] from values at them to signed coefficients)."""
    angles = np.pi * (np.arange(n) + 0.5) / n
    transform = np.cos(np.outer(angles, np.arange(n))) * (2 / n)
    transform[:, 0] /= 2
    signed = torch.as_tensor(transform) * _signs(n, torch.float64, "cpu")
    return torch.as_tensor(np.cos(angles)).to(device, dtype), signed.to(device, dtype)


def _terms_needed(coefficients):
    """Number of terms, a multiple of 8, beyond which all coefficients [pairs, M, n] are negligible; 0 for none."""
    sizes = coefficients.abs().amax(dim=(0, 1))
    limit = max(NEGLIGIBLE, 8 * torch.finfo(sizes.dtype).eps) * sizes.max()
    found = int((sizes > limit).nonzero().max()) + 1 if bool(torch.isfinite(limit)) else len(sizes)
    needed = -(-found // 8) * 8
    return needed if needed <= len(sizes) - 8 else 0
