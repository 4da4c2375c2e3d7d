"""What the blocks of a Hamiltonian depend on: atoms in the frames of their layers, and pairs of them."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch

from ase_mlelec.heads.hamiltonian.three_centre import Neighbours


class Layers(NamedTuple):
    """The layers of one structure, the lowest first.

    n_atoms : list of int; areas : Tensor [L], Å^2 per atom; formulas : list of str
    """

    n_atoms: list
    areas: torch.Tensor
    formulas: list


@dataclass(frozen=True)
class Geometry:
    """What the blocks of one or more structures depend on.

    species [N]; side [N], ±1, above or below the middle of the layer; layer [N], those of all structures counted
    through; layers: Layers of every structure, a tuple; moments [N, kinds, channels] and
    features [N, F] of the LocalFrame; spectrum [N, P], of ACE or empty
    first, second [E]: pairs, each once; r [E] Å, t = z/r [E], u [E] = (x + iy)/r in the frame of the first atom,
    turn [E] = exp(iΔφ); inter [E], between layers; shift [E, 3]
    neighbours: Neighbours, from which third atoms of hopping are taken; third_moments [N, C, q], of third atoms for
        on-site blocks; None: without
    """

    species: torch.Tensor
    side: torch.Tensor
    layer: torch.Tensor
    layers: tuple
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

    @classmethod
    def joined(cls, parts):
        """That of several structures, one after the other; what not all of them have is left out."""
        if len(parts) == 1:
            return parts[0]
        n_atoms = torch.tensor([0] + [len(part.species) for part in parts]).cumsum(0).tolist()
        n_layers = torch.tensor([0] + [part.n_layers for part in parts]).cumsum(0).tolist()
        starts, arrays = {"first": n_atoms, "second": n_atoms, "layer": n_layers}, {}
        for name in (entry.name for entry in fields(cls)):
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                continue
            if name == "layers":
                arrays[name] = sum(values, ())
            elif name == "neighbours":
                arrays[name] = Neighbours.joined(values)
            else:
                values = [value + start for value, start in zip(values, starts[name])] if name in starts else values
                arrays[name] = torch.cat(values)
        return cls(**arrays)

    @property
    def n_layers(self):
        return sum(len(layers.n_atoms) for layers in self.layers)

    def groups(self):
        """dict (inter, a, b) -> rows of the pairs of that kind, those within layers first, then by species."""
        count = int(self.species.max()) + 1
        code = (self.inter.long() * count + self.species[self.first]) * count + self.species[self.second]
        kinds, found = torch.unique(code, return_inverse=True)
        return {
            (kind >= count * count, kind // count % count, kind % count): (found == place).nonzero()[:, 0]
            for place, kind in enumerate(kinds.tolist())
        }

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
            sign[1] = -1  # the kinds with p = 1: (1, 0), then every other one
            sign[4::2] = -1
            moments = moments * sign[:, None]
        if across < 0:
            features, moments, u, turn = features * parity[1], moments.conj(), u.conj(), turn.conj()
        return replace(self, features=features, moments=moments, t=up * self.t, u=u, turn=turn, third_moments=third)

    def pairs(self, rows):
        """The same atoms with some of the pairs."""
        return replace(
            self,
            **{
                name: getattr(self, name)[rows] for name in ("first", "second", "r", "t", "u", "turn", "inter", "shift")
            },
        )

    def reversed(self):
        """Every pair from its other end."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            t=-self.t,
            u=-self.u * self.turn,
            turn=self.turn.conj(),
            shift=-self.shift,
        )


def heights(species, edges, r, t, within):
    """Tensor [N], Å: mean height of an atom above its neighbours of other species within the layer and 3.2 Å."""
    near = (within & (species[edges.center] != species[edges.neighbor]) & (r < 3.2)).nonzero()[:, 0]
    total = torch.zeros(len(species), dtype=r.dtype, device=r.device)
    center = edges.center[near]
    count = torch.zeros_like(total).index_add(0, center, torch.ones_like(r[near]))
    return total.index_add(0, center, -(t * r)[near]) / count.clamp(min=1)
