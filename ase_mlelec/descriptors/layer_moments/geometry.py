"""Environment of a head of pairs: atoms in the frames of their layers, pairs of atoms, and third atoms near the pairs."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.descriptors.layer_moments.third_atoms import Neighbors
from ase_mlelec.edges import Edges

OF_PAIRS = ("first", "second", "r", "t", "u", "turn", "inter", "shift")  # attributes with a row for each pair


class Layers(NamedTuple):
    """The layers of one structure, the lowest first.

    Attributes
    ----------
    n_atoms : list of int
    areas : Tensor [L]
        Area per atom, Å^2.
    formulas : list of str
    """

    n_atoms: list
    areas: Tensor
    formulas: list


class Signs(NamedTuple):
    """Signs ±1 of features and moments under reflections of the frames.

    Attributes
    ----------
    features : Tensor [2, F]
        Signs of the features under reflection of the normal, and under reflection of the in-plane axis.
    third : Tensor [C] or None
        Signs of the moments of third atoms under reflection of the normal.
    """

    features: Tensor
    third: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Geometry(Environment):
    """Environment of the atoms and pairs of one or more structures.

    Attributes
    ----------
    features : Tensor [N, F]
        Invariants of the layer moments.
    height : Tensor [N]
        Height above the neighbors of other species in the layer, Å; its sign tells the side of the layer.
    layer : Tensor [N]
        Layer of every atom, numbered through all structures.
    layers : tuple of Layers
        Layers of every structure.
    moments : Tensor [N, kinds, channels]
        Complex layer moments.
    ace : Tensor [N, P]
        ACE invariants; P may be 0.
    first, second, shift : Tensor [E], [E], [E, 3]
        Atoms of each pair, and lattice vector to the cell of the second atom; each pair is there once.
    r, t, u, turn : Tensor [E]
        Distance r in Å; t = z/r and u = (x + iy)/r in the frame of the first atom; exp(iΔφ) between the two frames.
    inter : Tensor [E]
        Whether the atoms are in different layers.
    signs : Signs
    neighbors : Neighbors or None
        Neighbors of every atom, for the three-center terms of hopping.
    third_moments : Tensor [N, C, q] or None
        Moments of third atoms, for on-site blocks.
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
        """Join the geometries of several structures; attributes that some lack are None."""
        if len(parts) == 1:
            return parts[0]
        n_atoms = torch.tensor([0] + [len(part.species) for part in parts]).cumsum(0).tolist()
        n_layers = torch.tensor([0] + [part.n_layers for part in parts]).cumsum(0).tolist()
        starts = {"first": n_atoms, "second": n_atoms, "layer": n_layers}
        arrays: dict[str, Any] = {"signs": parts[0].signs}
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
        """Number of layers of all structures."""
        return sum(len(layers.n_atoms) for layers in self.layers)

    def groups(self) -> dict:
        """Rows of the pairs of every kind, dict by (between layers or not, first species, second species)."""
        count = int(self.species.max()) + 1
        code = (self.inter.long() * count + self.species[self.first]) * count + self.species[self.second]
        kinds, found = torch.unique(code, return_inverse=True)
        return {
            (kind >= count * count, kind // count % count, kind % count): (found == place).nonzero()[:, 0]
            for place, kind in enumerate(kinds.tolist())
        }

    def reflected(self, up: int, across: int) -> "Geometry":
        """The same structure in frames with a reflected normal (up = -1) or a reflected in-plane axis y (across = -1)."""
        features, third, moments, u, turn = self.features, self.third_moments, self.moments, self.u, self.turn
        if up < 0:
            features = features * self.signs.features[0]
            if third is not None and self.signs.third is not None:
                third = third * self.signs.third
            sign = torch.ones(moments.shape[1], dtype=features.dtype, device=features.device)
            sign[1] = -1  # kinds with p = 1: (1, 0), then every second kind
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
        """The same pairs with first and second atom exchanged."""
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
        """Distances, Å, to the nearest atom in the same layer [N], and to the nearest atom in another layer.

        The second tensor leaves out atoms without a neighbor in another layer.
        """
        found = []
        for between in (False, True):
            rows = (self.inter == between).nonzero()[:, 0]
            shortest = torch.full((len(self.species),), float("inf")).to(self.r)
            for index in (self.first, self.second):
                shortest = shortest.scatter_reduce(0, index[rows], self.r[rows], "amin")
            found.append(shortest[shortest.isfinite()])
        return found


def heights(species: Tensor, edges: Edges, r: Tensor, t: Tensor, within: Tensor) -> Tensor:
    """Mean height [N], Å, of an atom above its neighbors of other species in the same layer within 3.2 Å."""
    near = (within & (species[edges.center] != species[edges.neighbor]) & (r < 3.2)).nonzero()[:, 0]
    total = torch.zeros(len(species), dtype=r.dtype, device=r.device)
    center = edges.center[near]
    count = torch.zeros_like(total).index_add(0, center, torch.ones_like(r[near]))
    return total.index_add(0, center, -(t * r)[near]) / count.clamp(min=1)
