r"""Three-center functions: of the atoms beside a pair of atoms, on which hopping between the two depends.

For a pair i -> j, over the atoms k within a cutoff of both,

.. math::

    B = \sum_k T_n(r_{ik}) \, w(r_{ik}) \, T_m(r_{jk}) \, w(r_{jk}) \, y^a z^b
    \text{ by species of } k \text{, in the layer of } i \text{ or not},

with z the height of k over the middle of the pair and y = Im(conj(u) v), where v = x + iy of k from that middle and u
that of the unit vector of the pair, in the frame of the layer of i: B does not turn with that frame, is smooth where
j is above i, and has the sign (-1)^b where the normal is reflected and (-1)^a where the direction in the plane is.

On-site blocks see the same pairs of neighbors j and k, as moments that turn with the frame,

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
INNER, FADE = 1.0, 2.5  # Å: where the polynomials begin, and how long before the cutoff they fade
CHUNK = 2000  # pairs at a time
N_MOMENT = 2  # polynomials of r_ij in moments


def reflected_signs(signs: Tensor, up: int, across: int) -> Tensor:
    """Tensor [F], ±1: of ``signs`` [2, F] in frames with reflected normal (up = -1), direction in the plane, or both."""
    return signs[0] ** (up < 0) * signs[1] ** (across < 0)


class Neighbors(NamedTuple):
    """Atoms around every atom, those of one atom after those of another.

    Attributes
    ----------
    start, count : Tensor [N]
        Where those of an atom begin, and how many there are.
    vectors : Tensor [M, 3]
        Å, in the frame of the layer of the atom in the middle.
    kind : Tensor [M]
        Species, plus the number of species for atoms that are not in its layer.
    """

    start: Tensor
    count: Tensor  # type: ignore[assignment]
    vectors: Tensor
    kind: Tensor

    @classmethod
    def of(cls, species: Tensor, n_species: int, edges: Edges, frames: LayerFrames) -> "Neighbors":
        """From Edges and LayerFrames."""
        order = torch.argsort(edges.center, stable=True)
        r, t, u, _, within = (array[order] for array in frames.of_pairs(edges))
        count = torch.bincount(edges.center, minlength=len(species))
        kind = species[edges.neighbor[order]] + n_species * (~within).long()
        return cls(count.cumsum(0) - count, count, torch.stack([r * u.real, r * u.imag, r * t], dim=1), kind)

    @classmethod
    def joined(cls, parts: list) -> "Neighbors":
        """Those of several structures as one."""
        starts, n_vectors = [], 0
        for part in parts:
            starts.append(part.start + n_vectors)
            n_vectors += len(part.vectors)
        return cls(torch.cat(starts), *(torch.cat(arrays) for arrays in list(zip(*parts))[1:]))


class ThirdAtoms:
    """The functions B of pairs, and their moments X.

    Parameters
    ----------
    n_kinds : int
        Two of every species.
    cutoff : float
        Å
    n_radial : int
        Polynomials of each distance.
    n_powers : int
        How many of POWERS.
    """

    def __init__(self, n_kinds: int, cutoff: float, n_radial: int, n_powers: int):
        self.n_kinds, self.cutoff, self.n_radial, self.powers = n_kinds, cutoff, n_radial, POWERS[:n_powers]
        self.n_features = n_kinds * n_radial**2 * n_powers

    def signs(self) -> Tensor:
        """Tensor [2, F]: ±1 of every function where the normal, and where the direction in the plane is reflected."""
        signs = torch.tensor(
            [[(-1.0) ** b for _, b in self.powers], [(-1.0) ** a for a, _ in self.powers]], dtype=torch.float64
        )
        return signs[:, None].expand(-1, self.n_kinds * self.n_radial**2, -1).reshape(2, -1)

    def __call__(self, geometry) -> Tensor:
        """Tensor [E, F] of the pairs of a Geometry."""
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
        """X [N, C, q], complex, for q = 1 ... ``highest``; C = n_kinds N_MOMENT F."""
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
        """Tensor [C], ±1 of X where the normal is reflected; where the direction in the plane is, X becomes conj(X)."""
        return self.signs()[0].repeat(self.n_kinds * N_MOMENT)

    def _part(self, around, first, r, u, t):
        n_pairs, count = len(first), around.count[first]
        pair = torch.repeat_interleave(torch.arange(n_pairs, device=r.device), count)
        place = torch.arange(len(pair), device=r.device) - (count.cumsum(0) - count)[pair] + around.start[first][pair]
        vectors = torch.stack([r * u.real, r * u.imag, r * t], dim=1)
        from_first = around.vectors[place]
        from_second = from_first - vectors[pair]
        distance = from_second.norm(dim=1)
        near = ((distance > 0.1) & (distance < self.cutoff)).nonzero()[:, 0]  # not the second atom itself
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
