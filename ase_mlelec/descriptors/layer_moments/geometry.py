"""The environment of heads of pairs: atoms in the frames of their layers, pairs of them, and what is beside the pairs."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.descriptors.layer_moments.third_atoms import Neighbors
from ase_mlelec.edges import Edges

OF_PAIRS = ("first", "second", "r", "t", "u", "turn", "inter", "shift")  # what has a row for each pair


class Layers(NamedTuple):
    """The layers of one structure, the lowest first.

    Attributes
    ----------
    n_atoms : list of int
    areas : Tensor [L]
        Å^2 per atom.
    formulas : list of str
    """

    n_atoms: list
    areas: Tensor
    formulas: list


class Signs(NamedTuple):
    """±1 of what a reflection of the frames changes the sign of.

    Attributes
    ----------
    features : Tensor [2, F]
        Where the normal, and where the direction in the plane is reflected.
    third : Tensor [C] or None
        Of the moments of third atoms where the normal is reflected.
    """

    features: Tensor
    third: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Geometry(Environment):
    """Environment of the atoms and of their pairs, of one or more structures.

    Attributes
    ----------
    features : Tensor [N, F]
        Invariants of the layer moments.
    height : Tensor [N]
        Å, above the neighbors of other species within the layer: the sign tells the side of its middle.
    layer : Tensor [N]
        Layers of all structures counted through.
    layers : tuple of Layers
        Of every structure.
    moments : Tensor [N, kinds, channels]
        Complex layer moments.
    ace : Tensor [N, P]
        ACE invariants; P may be 0.
    first, second, shift : Tensor [E], [E], [E, 3]
        Each pair once: its atoms, and the lattice vector of the second one's cell.
    r, t, u, turn : Tensor [E]
        Å, z/r, (x + iy)/r in the frame of the first atom, and exp(iΔφ) between the frames.
    inter : Tensor [E]
        Whether the atoms are in different layers.
    signs : Signs
    neighbors : Neighbors or None
        From which third atoms of hopping are taken.
    third_moments : Tensor [N, C, q] or None
        Of third atoms, for on-site blocks.
    """

    height: Tensor
    layer: Tensor
    layers: tuple
    moments: Tensor
    ace: Tensor
    first: Tensor
    second: Tensor
    r: Tensor
    t: Tensor
    u: Tensor
    turn: Tensor
    inter: Tensor
    shift: Tensor
    signs: Signs
    neighbors: Neighbors | None = None
    third_moments: Tensor | None = None

    @classmethod
    def joined(cls, parts: list["Geometry"]) -> "Geometry":
        """That of several structures, one after the other; what not all of them have is left out."""
        if len(parts) == 1:
            return parts[0]
        n_atoms = torch.tensor([0] + [len(part.species) for part in parts]).cumsum(0).tolist()
        n_layers = torch.tensor([0] + [part.n_layers for part in parts]).cumsum(0).tolist()
        starts, arrays = {"first": n_atoms, "second": n_atoms, "layer": n_layers}, {"signs": parts[0].signs}
        for name in (entry.name for entry in fields(cls) if entry.name != "signs"):
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                continue
            if name == "layers":
                arrays[name] = sum(values, ())
            elif name == "neighbors":
                arrays[name] = Neighbors.joined(values)
            else:
                values = [value + start for value, start in zip(values, starts[name])] if name in starts else values
                arrays[name] = torch.cat(values)
        return cls(**arrays)

    @property
    def n_layers(self) -> int:
        """Of all structures together."""
        return sum(len(layers.n_atoms) for layers in self.layers)

    def groups(self) -> dict:
        """(inter, a, b) -> rows of the pairs of that kind, those within layers first, then by species."""
        count = int(self.species.max()) + 1
        code = (self.inter.long() * count + self.species[self.first]) * count + self.species[self.second]
        kinds, found = torch.unique(code, return_inverse=True)
        return {
            (kind >= count * count, kind // count % count, kind % count): (found == place).nonzero()[:, 0]
            for place, kind in enumerate(kinds.tolist())
        }

    def reflected(self, up: int, across: int) -> "Geometry":
        """Seen in frames with reflected normal (up = -1) or in-plane direction y (across = -1)."""
        features, third, moments, u, turn = self.features, self.third_moments, self.moments, self.u, self.turn
        if up < 0:
            features, third = features * self.signs.features[0], third if third is None else third * self.signs.third
            sign = torch.ones(moments.shape[1], dtype=features.dtype, device=features.device)
            sign[1] = -1  # the kinds with p = 1: (1, 0), then every other one
            sign[4::2] = -1
            moments = moments * sign[:, None]
        if across < 0:
            features, moments = features * self.signs.features[1], moments.conj()
            third, u, turn = third if third is None else third.conj(), u.conj(), turn.conj()
        return replace(self, features=features, moments=moments, t=up * self.t, u=u, turn=turn, third_moments=third)

    def pairs(self, rows: Tensor | slice) -> "Geometry":
        """The same atoms with some of the pairs."""
        return replace(self, **{name: getattr(self, name)[rows] for name in OF_PAIRS})

    def reversed(self) -> "Geometry":
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

    def nearest(self) -> list[Tensor]:
        """Distances [N], Å, of the nearest atoms in the same layer, and (for atoms that have one) in another."""
        found = []
        for between in (False, True):
            rows = (self.inter == between).nonzero()[:, 0]
            shortest = torch.full((len(self.species),), float("inf")).to(self.r)
            for index in (self.first, self.second):
                shortest = shortest.scatter_reduce(0, index[rows], self.r[rows], "amin")
            found.append(shortest[shortest.isfinite()])
        return found


def heights(species: Tensor, edges: Edges, r: Tensor, t: Tensor, within: Tensor) -> Tensor:
    """Tensor [N], Å: mean height of an atom above its neighbors of other species within the layer and 3.2 Å."""
    near = (within & (species[edges.center] != species[edges.neighbor]) & (r < 3.2)).nonzero()[:, 0]
    total = torch.zeros(len(species), dtype=r.dtype, device=r.device)
    center = edges.center[near]
    count = torch.zeros_like(total).index_add(0, center, torch.ones_like(r[near]))
    return total.index_add(0, center, -(t * r)[near]) / count.clamp(min=1)
