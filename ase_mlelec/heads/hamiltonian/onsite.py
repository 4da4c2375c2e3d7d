"""On-site blocks of the atoms of one species from their environments.

Elements that do not turn with the frame are linear in the features and in a reduced representation of the environment,
which a net learns. An element that turns is made of moments of the environment with the same azimuthal number.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions


def turning_elements(winding: Sequence[int], symmetry: int, highest: int) -> list[tuple[int, int, int, int]]:
    """Azimuthal numbers of the moments that make up each element (i, j) that turns with the frame.

    Parameters
    ----------
    winding : sequence of W int
        Azimuthal numbers λ of the functions.
    symmetry : int
        M of the M-fold rotation axis.
    highest : int
        Highest azimuthal number of the moments.

    Returns
    -------
    list of (i, j, place, q)
        q = λ_i - λ_j + nM, for the two n of smallest ``|q|`` (place 0 and 1) where ``|q|`` is at most ``highest``.
    """
    found = []
    for i, first in enumerate(winding):
        for j, second in enumerate(winding):
            charge, rest = first - second, (first - second) % symmetry
            if rest:
                nearest = sorted((rest, rest - symmetry), key=lambda q: (abs(q), q * charge < 0))
                found += [(i, j, place, q) for place, q in enumerate(nearest) if abs(q) <= highest]
    return found


class OnsiteBlocks(torch.nn.Module):
    """On-site blocks of one species, in units of its scale.

    Parameters
    ----------
    functions : AtomicFunctions
    symmetry : int
        M of the M-fold rotation axis.
    n_features, n_reduced, n_directed, n_moments, n_third : int
        Sizes of the arguments of ``forward``; n_third = 0 for no third atoms.
    """

    linear: Tensor
    turned: Tensor
    third_turned: Tensor | None

    def __init__(
        self,
        functions: AtomicFunctions,
        symmetry: int,
        n_features: int,
        n_reduced: int,
        n_directed: int,
        n_moments: int,
        n_third: int,
    ):
        super().__init__()
        self.functions, self.symmetry, size = functions, symmetry, functions.size
        self.net = torch.nn.Linear(n_reduced, (1 + 2 * n_directed) * size * size)
        torch.nn.init.zeros_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)
        self.register_buffer("linear", torch.zeros(n_features, size * size))
        self.register_buffer("turned", torch.zeros(1 + 2 * n_moments, size, size))
        self.register_buffer("third_turned", torch.zeros(1 + 2 * n_third, size, size) if n_third else None)

    def linear_parts(self) -> list:
        """list of the coefficient buffers of all linear parts."""
        return [part for part in (self.linear, self.turned, self.third_turned) if part is not None]

    def forward(
        self, features: Tensor, reduced: Tensor, directed: Tensor, moments: Tensor, third: Tensor | None
    ) -> Tensor:
        """On-site blocks [n, W, W] of n atoms, in units of the species' scale.

        Parameters
        ----------
        features : Tensor [n, F]
        reduced, directed : Tensor [n, R], [n, C, q]
            Invariant and turning representations of the environments.
        moments : Tensor [n, m, q]
        third : Tensor [n, t, q], optional
            Moments of third atoms.
        """
        size = self.functions.size
        h = self.net(reduced)
        h = h + torch.nn.functional.pad(features @ self.linear, (0, h.shape[1] - size * size))
        block = self._turned(h.reshape(len(reduced), -1, size, size), directed)
        if self.functions.turns:
            block = block + self._turned_linear(self.turned, moments)
            if third is not None:
                block = block + self._turned_linear(self.third_turned, third)
        return block

    def fixed(self) -> Tensor:
        """Mask [W, W] of the elements that do not turn with the frame, between functions of definite λ."""
        winding = self.functions.winding
        return (winding[:, None] - winding) % self.symmetry == 0

    def generators(self, moments: Tensor) -> Tensor:
        """Generators [n, 1 + 2C, W, W]: quantities that turn as the element between λ and μ does.

        The first generator is 1 where λ - μ is a multiple of M and 0 elsewhere. The others are conjugates of the
        ``moments`` [n, C, q] with q = λ - μ + nM, for the two n of smallest ``|q|``, or zero where no moment has it.
        """
        n, channels, highest = moments.shape
        winding = self.functions.windings
        found = moments.new_zeros(n, 1 + 2 * channels, len(winding), len(winding))
        found[:, 0, self.fixed()] = 1
        for i, j, place, q in turning_elements(winding, self.symmetry, highest):
            start, value = 1 + place * channels, moments[:, :, abs(q) - 1]
            found[:, start : start + channels, i, j] = value.conj() if q > 0 else value
        return found

    def _turned(self, h, directed):
        """Σ_c h_c G_c [n, W, W] with h [n, c, W, W] and the generators of directed [n, C, q]."""
        vectors = self.functions.circular(directed.dtype)
        matrix = ((vectors.conj() @ h.to(directed.dtype) @ vectors.T) * self.generators(directed)).sum(dim=1)
        return (vectors.T @ matrix @ vectors.conj()).real

    def _turned_linear(self, h, moments):
        """The same sum with one h [c, W, W] for all atoms, over the elements that turn alone.

        It takes the generators one at a time, because all at once need much memory.
        """
        vectors, channels = self.functions.circular(moments.dtype), moments.shape[1]
        coefficients = vectors.conj() @ h.to(moments.dtype) @ vectors.T
        matrix = moments.new_zeros(len(moments), *coefficients.shape[1:])
        for i, j, place, q in turning_elements(self.functions.windings, self.symmetry, moments.shape[2]):
            start, value = 1 + place * channels, moments[:, :, abs(q) - 1]
            factors = coefficients[start : start + channels, i, j]
            matrix[:, i, j] += (value.conj() if q > 0 else value) @ factors
        return (vectors.T @ matrix @ vectors.conj()).real
