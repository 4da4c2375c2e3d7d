"""What the blocks of a Hamiltonian depend on: atoms in the frames of their layers, and pairs of them."""
from dataclasses import dataclass, replace

import torch

from ase_mlelec.heads.third_atoms import Neighbours


@dataclass(frozen=True)
class Geometry:
    """What the blocks of one or more structures depend on.

    species [N]; side [N], ±1, above or below the middle of the layer; layer [N]; moments [N, kinds, channels] and
    features [N, F] of the LocalFrame; spectrum [N, P], of the PowerSpectrum or empty
    first, second [E]: pairs, each once; r [E] Å, t = z/r [E], u [E] = (x + iy)/r in the frame of the first atom,
    turn [E] = exp(iΔφ); inter [E], between layers; shift [E, 3]
    neighbours: Neighbours, from which third atoms of hopping are taken, and moments [N, C, q] of third atoms for on-site
        blocks; None: without
    """
    species: torch.Tensor
    side: torch.Tensor
    layer: torch.Tensor
    moments: torch.Tensor
    features: torch.Tensor
    spectrum: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    r: torch.Tensor
    t: torch.Tensor
    u: torch.Tensor
    turn: torch.Tensor
    inter: torch.Tensor
    shift: torch.Tensor
    neighbours: Neighbours | None = None
    third_moments: torch.Tensor | None = None

    def reflected(self, up, across, parity, signs):
        """Seen in frames with reflected normal (up = -1) or in-plane direction y (across = -1).

        parity : of the features; signs : of the moments of third atoms, where the normal is reflected
        """
        features, third = self.features, self.third_moments
        if third is not None:
            third = third * signs[:, None] if up < 0 else third
            third = third.conj() if across < 0 else third
        moments, u, turn = self.moments, self.u, self.turn
        if up < 0:
            features = features * parity[0]
            sign = torch.ones(moments.shape[1], dtype=features.dtype, device=features.device)
            sign[1] = -1        # the kinds with p = 1: (1, 0), then every other one
            sign[4::2] = -1
            moments = moments * sign[:, None]
        if across < 0:
            features, moments, u, turn = features * parity[1], moments.conj(), u.conj(), turn.conj()
        return replace(self, features=features, moments=moments, t=up * self.t, u=u, turn=turn, third_moments=third)

    def pairs(self, rows):
        """The same atoms with some of the pairs."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ("first", "second", "r", "t", "u", "turn",
                                                                            "inter", "shift")})

    def reversed(self):
        """Every pair from its other end."""
        return replace(self, first=self.second, second=self.first, t=-self.t, u=-self.u * self.turn,
                       turn=self.turn.conj(), shift=-self.shift)


def heights(species, edges, r, t, within):
    """Tensor [N], Å: mean height of an atom above its neighbours of other species within the layer and 3.2 Å."""
    near = (within & (species[edges.center] != species[edges.neighbor]) & (r < 3.2)).nonzero()[:, 0]
    total = torch.zeros(len(species), dtype=r.dtype, device=r.device)
    center = edges.center[near]
    count = torch.zeros_like(total).index_add(0, center, torch.ones_like(r[near]))
    return total.index_add(0, center, -(t * r)[near]) / count.clamp(min=1)
