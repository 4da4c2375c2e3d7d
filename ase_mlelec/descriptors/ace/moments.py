"""The atomic basis A_snlm: moments of the density of neighbors of each species.

R_n = (1 - (r/cutoff)^2)^2 times a polynomial of degree n in (1 - r/cutoff)/(1 + r/cutoff), orthonormal over distances
from ``inner`` to the cutoff.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.embedding import ChebyshevMoments
from ase_mlelec.descriptors.harmonics import harmonic_slopes, harmonics
from ase_mlelec.descriptors.padding import pad
from ase_mlelec.descriptors.radial import chebyshev
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

    def gradients(self, species: Tensor, edges: Edges, n_atoms: int, *, strain: bool = True) -> "MomentGradients":
        """A and its derivatives with respect to the positions of all ``n_atoms`` atoms and, optionally, to the strain."""
        vec = edges.vec.detach().T.contiguous()
        values, slopes = self._functions(vec)
        n = edges.n_centers
        moments = _sums(values, species * n + edges.center, len(self.kinds) * n).unflatten(2, (len(self.kinds), n))
        parts = [
            self._moved((species == k).nonzero()[:, 0], vec, slopes, edges, n_atoms, strain)
            for k in range(len(self.kinds))
        ]
        moved, columns = zip(*parts)
        return MomentGradients(moments.permute(3, 1, 2, 0), moved, columns)

    def _moved(self, rows, vec, slopes, edges, n_atoms, strain):
        """Derivatives of the moments of one species, whose edges are ``rows``, and the columns that they belong to."""
        n, center, slopes = edges.n_centers, edges.center[rows], slopes[..., rows]
        atoms, place = torch.unique(torch.cat([edges.neighbor[rows], edges.atoms]), return_inverse=True)
        place, place_of_center = place[: len(rows)], place[len(rows) :]
        width = 3 * len(atoms)
        by_axis = slopes.movedim(0, 2).flatten(2)  # [n, (l_max + 1)^2, 3 E]
        axes = torch.arange(3, device=vec.device)[:, None]
        moved = _sums(by_axis, (center * width + 3 * place + axes).flatten(), n * width)
        # a center moves against its neighbors
        recoil = _sums(by_axis, (3 * center + axes).flatten(), 3 * n)
        own = (torch.arange(n, device=vec.device) * width + 3 * place_of_center + axes).T.flatten()
        moved.flatten(0, 1).index_add_(1, own, recoil.flatten(0, 1), alpha=-1)
        moved = moved.unflatten(2, (n, width))
        if strain:
            stretched = [_sums(slopes[b] * vec[a, rows], center, n) for a in range(3) for b in range(3)]
            moved = torch.cat([moved, torch.stack(stretched, dim=3)], dim=3)
        return moved, _of_atoms(atoms, n_atoms, strain)

    def _functions(self, vec):
        """Functions R_n Y_lm [n, (l_max + 1)^2, E] of vectors [3, E], and their derivatives [3, n, (l_max + 1)^2, E]."""
        r = (vec * vec).sum(dim=0).sqrt()
        unit = vec / r
        radial, falling = self._radial(r)
        angular, slopes = harmonics(unit, self.l_max), harmonic_slopes(unit, self.l_max)
        # on the unit sphere: the part of the slopes along the vector does not count
        slopes = (slopes - unit[:, None] * torch.einsum("xe,xle->le", unit, slopes)) / r
        slopes = unit[:, None, None] * (falling[:, None] * angular) + radial[:, None] * slopes[:, None]
        return radial[:, None] * angular, slopes

    def _radial(self, r):
        """Radial functions [n, E] of the distances [E], and their derivatives."""
        leaf = r.requires_grad_(True)
        with torch.enable_grad():
            rho = leaf / self.cutoff
            series = chebyshev(_variable(rho, self.inner), max(len(self.radial), 2)).T[: len(self.radial)]
            values = self.radial.T.to(leaf) @ (series * (1 - rho**2).clamp(min=0) ** 2)
            slopes = [torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0] for value in values]
        return values.detach(), torch.stack(slopes)

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


class MomentGradients(NamedTuple):
    """The atomic basis A and its derivatives.

    Attributes
    ----------
    moments : Tensor [C, (l_max + 1)^2, species, n]
    by_coordinates : list by species of Tensor [n, (l_max + 1)^2, C, T]
        Of the moments of this species, by the coordinates of its atoms and of the centers, and by the strain.
    columns : list by species of Tensor [T]
        Which coordinates, and components of the strain after those of all atoms, the derivatives belong to.
    """

    moments: Tensor
    by_coordinates: Sequence[Tensor]
    columns: Sequence[Tensor]

    @property
    def n_species(self) -> int:
        return len(self.columns)


def _sums(values, place, n):
    """Sums [..., n] of the columns of ``values`` [..., E] at equal ``place`` [E]."""
    flat = values.flatten(0, -2)
    return values.new_zeros(len(flat), n).index_add_(1, place, flat).unflatten(0, values.shape[:-1])


def _of_atoms(atoms, n_atoms, strain):
    """Columns of the coordinates of ``atoms``, then of the strain, in the derivatives by all coordinates and the strain."""
    axes = torch.arange(3, device=atoms.device)
    return torch.cat(
        [(3 * atoms[:, None] + axes).flatten(), 3 * n_atoms + torch.arange(9 * strain, device=atoms.device)]
    )
