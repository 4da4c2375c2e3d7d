"""Hopping between two atoms: a two-center part linear in its coefficients, and a net that sees both environments."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments import Geometry
from ase_mlelec.descriptors.radial import chebyshev

N_LINEAR, N_TURNED, N_NET = 14, 8, 8  # numbers of Chebyshev polynomials: two-center, anisotropic part, net


def inputs_of_net(n_reduced: int, n_directed: int, n_windings: int, inter: bool) -> int:
    """Number of inputs of the net of a PairNet."""
    return N_NET + 1 + 2 * n_reduced + 4 * n_directed * n_windings + (4 if inter else 2)


class PairNet(torch.nn.Module):
    """Hopping coefficients h [E, W, W'] of pairs of one kind and range: envelope(r) times (two-center part + net).

    The envelope exp(a + b r) follows the size of the elements, so that near and far pairs are learned equally well.
    """

    linear: Tensor
    third: Tensor
    envelope: Tensor
    net_scale: Tensor

    def __init__(
        self,
        n_in: int,
        shape: tuple[int, int],
        widths: Sequence[int],
        limits: tuple[float, float],
        inter: bool,
        n_third: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        self.shape, self.limits, self.inter = shape, limits, inter
        sizes = [n_in, *widths]
        self.hidden = torch.nn.Sequential(
            *(part for a, b in itertools.pairwise(sizes) for part in (torch.nn.Linear(a, b), torch.nn.SiLU()))
        )
        self.last = torch.nn.Linear(sizes[-1], shape[0] * shape[1])
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)
        n_linear = N_LINEAR * (5 if inter else 3) + N_TURNED * (8 if inter else 4)
        self.register_buffer("linear", torch.zeros(n_linear, shape[0] * shape[1]))
        if all(n_third):
            self.register_buffer("third", torch.zeros(*n_third, shape[0] * shape[1]))
        self.register_buffer("envelope", torch.tensor([0.0, 0.0]))
        self.register_buffer("net_scale", torch.ones(()))

    def linear_parts(self) -> list:
        """list of the coefficient buffers of all linear parts."""
        return [part for name, part in self.named_buffers() if name in ("linear", "third")]

    def size(self, r: Tensor) -> Tensor:
        return (self.envelope[0] + self.envelope[1] * r).exp()

    def radial(self, r: Tensor, n: int) -> Tensor:
        low, high = self.limits
        # the variable of 1/(r + const) resolves short distances better
        x = (1 / (r + low) - 1 / (high + low)) / (0.5 / low - 1 / (high + low))
        return chebyshev((2 * x - 1).clamp(-1, 1), n)

    def two_center(self, g: Geometry, fold: int) -> Tensor:
        """Functions [E, K] of pairs in which the two-center part is linear."""
        radial = self.radial(g.r, N_LINEAR)
        turned = radial[:, :N_TURNED]
        parts = [radial * (g.t**power)[:, None] for power in range(5 if self.inter else 3)]
        angles = [g.u**fold] + ([(g.u * g.turn) ** fold] if self.inter else [])
        for angle in angles:
            parts += [
                turned * (factor * weight)[:, None]
                for factor in (angle.real, angle.imag)
                for weight in (torch.ones_like(g.t), g.t)
            ]
        return torch.cat(parts, dim=1)

    def signs(self) -> Tensor:
        """Parities [2, K], ±1, of the functions of ``two_center`` under reflections, as in ThirdAtoms.signs."""
        up = [(-1.0) ** power for power in range(5 if self.inter else 3) for _ in range(N_LINEAR)]
        across = [1.0] * len(up)
        for part in (1.0, -1.0) * (2 if self.inter else 1):
            up += [1.0] * N_TURNED + [-1.0] * N_TURNED
            across += [part] * 2 * N_TURNED
        return torch.tensor([up, across], dtype=torch.float64)

    def linear_part(self, g: Geometry, fold: int, coefficients: Tensor) -> Tensor:
        """h [E, W, W'] of the two-center functions times coefficients [K, W W']."""
        h = self.two_center(g, fold) @ coefficients
        return (self.size(g.r)[:, None] * h).reshape(-1, *self.shape)

    def beside(self, g: Geometry, functions: Tensor, coefficients: Tensor) -> Tensor:
        """h [E, W, W'] of the three-center terms: functions [E, F] of third atoms times coefficients [n, F, W W']."""
        radial = self.radial(g.r, len(coefficients))
        h = sum(radial[:, n, None] * (functions @ part) for n, part in enumerate(coefficients))
        return (self.size(g.r)[:, None] * h).reshape(-1, *self.shape)

    def forward(self, g: Geometry, fold: int, reduced: Tensor, directed: Tensor) -> Tensor:
        """h [E, W, W'] of the net alone, from the representations ``reduced`` [N, R] and ``directed`` [N, C, q]."""
        ways = torch.stack([g.u.conj() ** (q + 1) for q in range(directed.shape[2])], dim=1)[:, None]
        back = -g.u * g.turn
        backs = torch.stack([back.conj() ** (q + 1) for q in range(directed.shape[2])], dim=1)[:, None]
        seen = torch.cat([directed[g.first] * ways, directed[g.second] * backs], dim=1).flatten(1)
        angles = [g.u**fold] + ([(g.u * g.turn) ** fold] if self.inter else [])
        x = torch.cat(
            [
                self.radial(g.r, N_NET)[:, 1:],
                g.t[:, None],
                (g.t * g.t)[:, None],
                reduced[g.first],
                reduced[g.second],
                seen.real,
                seen.imag,
            ]
            + [part[:, None] for angle in angles for part in (angle.real, angle.imag)],
            dim=1,
        )
        h = self.net_scale * self.last(self.hidden(x))
        return (self.size(g.r)[:, None] * h).reshape(-1, *self.shape)
