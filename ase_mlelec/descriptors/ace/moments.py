"""The atomic basis A_snlm: moments of the density of neighbors of each species.

R_n = (1 - (r/cutoff)^2)^2 times a polynomial of degree n in (1 - r/cutoff)/(1 + r/cutoff), orthonormal over distances
from ``inner`` to the cutoff.
"""

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.base import changes_along
from ase_mlelec.descriptors.embedding import ChebyshevMoments
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.padding import pad
from ase_mlelec.edges import Edges


class DensityMoments(torch.nn.Module):
    """Atomic basis A [C, (l_max + 1)^2, species, n_radial] of the neighbors within a cutoff.

    Parameters
    ----------
    kinds : list of int
        All species, in the order in which the edges of a center are sorted.
    inner, cutoff : float
        Range of the radial functions, Å.
    n_radial, l_max : int
        Number of radial functions, and largest angular momentum l.
    """

    radial: Tensor

    def __init__(self, kinds: list[int], inner: float, cutoff: float, n_radial: int, l_max: int):
        super().__init__()
        self.kinds, self.inner, self.cutoff, self.l_max = kinds, inner / cutoff, cutoff, l_max
        self.register_buffer("radial", torch.as_tensor(_orthonormal(self.inner, n_radial)), persistent=False)

    def forward(self, species: Tensor, edges: Edges) -> Tensor:
        """A from the edges; ``species`` [E] are the species of the neighbors."""
        x, angular = self._polar(edges.vec.T.contiguous())
        table = torch.cat([x[None], angular])
        padded, _, blocks = pad(edges.center, species, table, edges.n_centers, self.kinds)
        moments, _ = ChebyshevMoments.apply(padded, blocks, len(self.radial))
        return moments @ self.radial.to(moments)

    def changes(self, species: Tensor, edges: Edges, moves: Tensor) -> tuple[Tensor, Tensor]:
        """A and its changes [C, T, ...] along T moves of the edges, ``moves`` [T, E, 3]."""
        vec = edges.vec.detach().T.contiguous().requires_grad_(True)
        with torch.enable_grad():
            values = self._functions(vec)
            slopes = changes_along(torch.eye(3).to(vec)[:, :, None].expand(3, *vec.shape), values, vec)
        table = torch.cat([values.detach(), *slopes, *moves.unbind(2)])
        padded, _, blocks = pad(edges.center, species, table, edges.n_centers, self.kinds)
        values, slopes, moves = padded.split([len(values), 3 * len(values), 3 * len(moves)], dim=1)
        slopes, moves = (array.unflatten(1, (3, -1)) for array in (slopes, moves))

        def by_function(columns):
            return torch.stack(columns, dim=-1).unflatten(-2, (-1, len(self.radial))).transpose(-1, -2)

        changes = [
            moves[..., block].transpose(1, 2).flatten(2) @ slopes[..., block].transpose(2, 3).flatten(1, 2)
            for block in blocks
        ]
        return by_function([values[..., block].sum(dim=2) for block in blocks]), by_function(changes)

    def _functions(self, vec):
        """Functions R_n Y_lm [(l_max + 1)^2 n, E] of vectors [3, E]."""
        x, angular = self._polar(vec)
        series = [torch.ones_like(x), x]
        for _ in range(2, len(self.radial)):
            series.append(2 * x * series[-1] - series[-2])
        radial = self.radial.T.to(x) @ torch.stack(series[: len(self.radial)])
        return (angular[:, None] * radial).flatten(0, 1)

    def _polar(self, vec):
        """Variable [E] of the polynomials, and Y_lm times the cutoff function [(l_max + 1)^2, E], of vectors [3, E]."""
        rho = (vec * vec).sum(dim=0).sqrt() / self.cutoff
        fade = (1 - rho**2).clamp(min=0) ** 2
        return _variable(rho, self.inner), fade * harmonics(vec / (rho * self.cutoff), self.l_max)


def _variable(rho, inner):
    """Variable of the radial polynomials: 1 at ``inner``, -1 at ρ = r/cutoff = 1."""
    return 2 * (1 - rho) * (1 + inner) / ((1 + rho) * (1 - inner)) - 1


def _orthonormal(inner, n):
    """Chebyshev coefficients [n, n] of the radial functions, one column each, orthonormal over inner < ρ < 1."""
    rho = inner + (1 - inner) * (np.arange(2000) + 0.5) / 2000
    values = np.polynomial.chebyshev.chebvander(_variable(rho, inner), n - 1) * ((1 - rho**2) ** 2)[:, None]
    triangle = np.linalg.qr(values / np.sqrt(len(rho)), mode="r")
    return np.linalg.inv(triangle) * np.sign(np.diag(triangle))
