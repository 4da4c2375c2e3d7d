r"""Three-center terms: functions of the atoms near a pair, on which the hopping of the pair depends.

A function of a pair i -> j is a sum over the atoms k within a cutoff of both,

.. math::

    B = \sum_k T_n(r_{ik}) \, w(r_{ik}) \, T_m(r_{jk}) \, w(r_{jk}) \, y^a z^b
    \text{ by species of } k \text{, in the layer of } i \text{ or not},

All vectors are in the frame of the layer of i: z is the height of k over the middle of the pair, v = x + iy is the
in-plane position of k from this middle, u is x + iy of the unit vector of the pair, and y = Im(conj(u) v). B does not
turn with the frame and is smooth where j is above i. A reflection of the normal multiplies it by (-1)^b, a reflection of
the in-plane axis by (-1)^a.

On-site blocks depend on the same pairs of neighbors j and k through moments that turn with the frame,

.. math::

    X_q = \sum_j T_l(r_{ij}) \, w(r_{ij}) \, i^{a \bmod 2} u_{ij}^q B_{ij}
    \text{ by species of } j \text{, in the layer of } i \text{ or not}.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments.frames import LayerFrames
from ase_mlelec.descriptors.radial import chebyshev, switch
from ase_mlelec.edges import Edges

POWERS = (
    (0, 0),
    (1, 0),
    (0, 1),
    (1, 1),
    (2, 0),
    (0, 2),
    (2, 1),
    (1, 2),
    (3, 0),
    (0, 3),
)  # of y and z, in units of UNIT
UNIT = 2.0  # Å
INNER, FADE = 1.0, 2.5  # Å: inner end of the polynomials, and width of their fading before the cutoff
CHUNK = 2000  # pairs at a time
N_MOMENT = 2  # number of polynomials of r_ij in the moments


def reflected_signs(signs: Tensor, up: int, across: int) -> Tensor:
    """Signs [F], ±1, in frames with a reflected normal (up = -1), in-plane axis (across = -1), or both.

    ``signs`` [2, F] are the signs under each reflection.
    """
    return signs[0] ** (up < 0) * signs[1] ** (across < 0)


class Neighbors(NamedTuple):
    """Neighbors of all atoms, sorted by the atom that they surround.

    Attributes
    ----------
    start, count : Tensor [N]
        First neighbor of every atom, and number of its neighbors.
    vectors : Tensor [M, 3]
        Vectors to the neighbors, Å, in the frame of the layer of the central atom.
    kind : Tensor [M]
        Species of the neighbor, plus the number of species for neighbors in another layer.
    """

    start: Tensor
    count: Tensor  # type: ignore[assignment]
    vectors: Tensor
    kind: Tensor

    @classmethod
    def of(cls, species: Tensor, n_species: int, edges: Edges, frames: LayerFrames) -> "Neighbors":
        """Neighbors from Edges and LayerFrames."""
        order = torch.argsort(edges.center, stable=True)
        r, t, u, _, within = (array[order] for array in frames.of_pairs(edges))
        count = torch.bincount(edges.center, minlength=len(species))
        kind = species[edges.neighbor[order]] + n_species * (~within).long()
        return cls(count.cumsum(0) - count, count, torch.stack([r * u.real, r * u.imag, r * t], dim=1), kind)

    @classmethod
    def joined(cls, parts: list) -> "Neighbors":
        """Join the Neighbors of several structures."""
        starts, n_vectors = [], 0
        for part in parts:
            starts.append(part.start + n_vectors)
            n_vectors += len(part.vectors)
        return cls(torch.cat(starts), *(torch.cat(arrays) for arrays in list(zip(*parts))[1:]))


class ThirdAtoms:
    """Three-center functions B of pairs, and their moments X.

    Parameters
    ----------
    n_kinds : int
        Number of kinds of third atoms: two for every species, in the same layer or in another.
    cutoff : float
        Largest distance of a third atom from both atoms of the pair, Å.
    n_radial : int
        Number of polynomials of each distance.
    n_powers : int
        Number of pairs (a, b), the first of POWERS.
    """

    def __init__(self, n_kinds: int, cutoff: float, n_radial: int, n_powers: int):
        self.n_kinds, self.cutoff, self.n_radial, self.powers = n_kinds, cutoff, n_radial, POWERS[:n_powers]
        self.n_features = n_kinds * n_radial**2 * n_powers

    def signs(self) -> Tensor:
        """Signs [2, F], ±1, of the functions under reflection of the normal, and under reflection of the in-plane axis."""
        signs = torch.tensor(
            [[(-1.0) ** b for _, b in self.powers], [(-1.0) ** a for a, _ in self.powers]], dtype=torch.float64
        )
        return signs[:, None].expand(-1, self.n_kinds * self.n_radial**2, -1).reshape(2, -1)

    def __call__(self, geometry) -> Tensor:
        """Functions B [E, F] of the pairs of a Geometry."""
        rows = torch.arange(len(geometry.r), device=geometry.r.device)
        if not len(rows):
            return geometry.r.new_zeros(0, self.n_features)
        return torch.cat(
            [
                self._part(
                    geometry.neighbors, geometry.first[part], geometry.r[part], geometry.u[part], geometry.t[part]
                )
                for part in rows.split(CHUNK)
            ]
        )

    def moments(self, species: Tensor, edges: Edges, frames: LayerFrames, highest: int) -> Tensor:
        """Complex moments X [N, C, q] for q = 1 ... ``highest``, with C = n_kinds N_MOMENT F."""
        around = Neighbors.of(species, self.n_kinds // 2, edges, frames)
        r, t, u, _, within = frames.of_pairs(edges)
        kind = edges.center * self.n_kinds + species[edges.neighbor] + self.n_kinds // 2 * (~within).long()
        total = u.new_zeros(highest, len(species) * self.n_kinds, N_MOMENT * self.n_features)
        odd = torch.tensor([a % 2 for a, _ in self.powers], device=r.device).repeat(self.n_features // len(self.powers))
        units = torch.where(odd > 0, 1j, 1.0).to(u)
        for part in torch.arange(len(r), device=r.device).split(CHUNK):
            functions = self._part(around, edges.center[part], r[part], u[part], t[part]) * units
            radial = self._radial(r[part], N_MOMENT).to(u)
            each = (radial[:, :, None] * functions[:, None]).flatten(1)
            for power in range(highest):
                each = each * u[part, None]
                total[power].index_add_(0, kind[part], each)
        return total.reshape(highest, len(species), -1).permute(1, 2, 0)

    def moment_signs(self) -> Tensor:
        """Signs [C], ±1, of X under reflection of the normal; a reflection of the in-plane axis makes X conj(X)."""
        return self.signs()[0].repeat(self.n_kinds * N_MOMENT)

    def _part(self, around, first, r, u, t):
        n_pairs, count = len(first), around.count[first]
        pair = torch.repeat_interleave(torch.arange(n_pairs, device=r.device), count)
        place = torch.arange(len(pair), device=r.device) - (count.cumsum(0) - count)[pair] + around.start[first][pair]
        vectors = torch.stack([r * u.real, r * u.imag, r * t], dim=1)
        from_first = around.vectors[place]
        from_second = from_first - vectors[pair]
        distance = from_second.norm(dim=1)
        near = ((distance > 0.1) & (distance < self.cutoff)).nonzero()[:, 0]  # leaves out the second atom itself
        pair, place, from_first, from_second = pair[near], place[near], from_first[near], from_second[near]
        radial = (
            self._radial(from_first.norm(dim=1), self.n_radial)[:, :, None]
            * self._radial(distance[near], self.n_radial)[:, None]
        ).flatten(1)
        x, y, z = ((from_first + from_second) / (2 * UNIT)).T
        y = y * u.real[pair] - x * u.imag[pair]
        angular = torch.stack([y**a * z**b for a, b in self.powers], dim=1)
        each = (radial[:, :, None] * angular[:, None]).flatten(1)
        total = each.new_zeros(n_pairs * self.n_kinds, each.shape[1])
        return total.index_add(0, pair * self.n_kinds + around.kind[place], each).reshape(n_pairs, -1)

    def _radial(self, r, n):
        x = 2 * (r - INNER) / (self.cutoff - INNER) - 1
        return chebyshev(x.clamp(-1, 1), n) * switch(r, self.cutoff - FADE, self.cutoff)[:, None]
