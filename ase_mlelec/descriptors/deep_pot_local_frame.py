"""Local frames of DPMD, which came before the smooth edition: coordinates of the neighbors, in the order of their distances.

The frame of atom i has the first axis along its neighbor a, and the second in the plane of a and its neighbor b. A neighbor
j at R = r_j - r_i has the entries (1/R, x/R, y/R, z/R) with coordinates in this frame, or 1/R alone. Entries are sorted by
species and distance.

Features jump where neighbors of the frame or of the order change places, and where a neighbor crosses the cutoff, as the
formulas have no switch. They change under reflection, too.

References
----------
Zhang et al. 2018, Phys. Rev. Lett. 120, 143001; Rottenberg 2023, Eqs. (2.9)-(2.17).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ase.calculators.calculator import InputError
from torch import Tensor

from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.edges import Edges
from ase_mlelec.nets import constructor_arguments
from ase_mlelec.system import System

COLLINEAR = 0.1  # sine of the smallest angle between the two neighbors of a frame
TIED = 1e-6  # Å; distances that differ by less are equal by symmetry
ROUNDED = 1e4  # coordinates of unit vectors that order neighbors of equal distance are compared to 1/ROUNDED


class Places(NamedTuple):
    """What is chosen from distances and angles; features jump where it changes.

    Attributes
    ----------
    first, second : Tensor [C]
        Edges to the neighbors a and b of the frames; -1 where there is none.
    slot : Tensor [E]
        Place of each edge among the neighbors of its species, the nearest has 0.
    """

    first: Tensor
    second: Tensor
    slot: Tensor


class DeepPotLocalFrame(Descriptor):
    """Neighbors in local frames, sorted by species and distance.

    Parameters
    ----------
    species : sequence of chemical symbols
    cutoff : float, Å
    sel : sequence of int
        Places for neighbors of each species; empty places hold zeros.
    full : sequence of int, optional
        Number of nearest neighbors of each species with full information, at most ``sel``; the others have 1/R alone. By
        default all have full information.
    axes : dict of (symbol, symbol), optional
        Species of the neighbors a and b of the frame, by the species of the center; by default any. They are the nearest
        of their species; b is the nearest at an angle with a sine above 0.1 to a.

    Raises
    ------
    ValueError
        For arguments out of range.

    Notes
    -----
    Features: [C, F], F = sum(sel) + 3 sum(full). Each species has a block with the entries of its nearest neighbors in
    the order (1/R, x/R, y/R, z/R), followed by 1/R of the others, in 1/Å.

    Neighbors with equal distances are sorted by their coordinates. Where several neighbors are equally near and may be
    axes, as in perfect crystals, any of them is taken. Where all neighbors are in line, y = z = 0.
    """

    width: Tensor
    begin: Tensor
    wanted: Tensor
    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float,
        sel: Sequence[int],
        full: Sequence[int] | None = None,
        axes: Mapping[str, Sequence[str]] | None = None,
    ):
        super().__init__()
        self.species, self.cutoff = tuple(species), float(cutoff)
        self.sel, self.full = tuple(sel), tuple(sel if full is None else full)
        self.axes = {center: tuple(pair) for center, pair in (axes or {}).items()}
        self._check()
        sizes = torch.tensor([n + 3 * m for n, m in zip(self.sel, self.full)])
        self.n_features = int(sizes.sum())
        self.register_buffer("width", torch.tensor(self.full), persistent=False)
        self.register_buffer("begin", sizes.cumsum(0) - sizes, persistent=False)  # first feature of each species
        index = {symbol: k for k, symbol in enumerate(self.species)}
        pairs = [[index[symbol] for symbol in self.axes.get(center, ())] or [-1, -1] for center in self.species]
        self.register_buffer("wanted", torch.tensor(pairs), persistent=False)  # species of the axes, -1 for any
        self.register_buffer("unit", torch.ones(()), persistent=False)  # has the precision
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)

    def _check(self):
        names = ", ".join(self.species)
        if not 0 < self.cutoff < 100:
            raise ValueError(f"cutoff: got {self.cutoff:g} Å, need more than 0 and less than 100; correct it")
        if len(self.sel) != len(self.species) or not all(0 < n < 100_000 for n in self.sel):
            raise ValueError(f"sel: got {list(self.sel)}, need a number of neighbors for each of {names}; correct it")
        if len(self.full) != len(self.sel) or not all(0 <= m <= n for m, n in zip(self.full, self.sel)):
            raise ValueError(
                f"full: got {list(self.full)}, need a number for each of {names}, at most those of sel, "
                f"{list(self.sel)}; correct it"
            )
        for center, pair in self.axes.items():
            foreign = [symbol for symbol in (center, *pair) if symbol not in self.species]
            if foreign or len(pair) != 2:
                raise ValueError(
                    f"axes: got {center} = {list(pair)}, need two species of the neighbors of a frame, all of {names}; "
                    "correct it"
                )

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self)

    def forward(self, system: System, edges: Edges) -> Environment:
        edges = edges.up_to(self.cutoff)
        species, kinds, _ = self._species(system, edges)
        inverse = 1 / edges.distances
        local, places = self._local(system, edges, edges.vec * inverse[:, None])
        slot, width = places.slot, self.width[kinds]
        whole = slot < width
        column = self.begin[kinds] + torch.where(whole, 4 * slot, 3 * width + slot)
        column = column + edges.center * self.n_features
        angular = column[whole, None] + torch.arange(1, 4, device=column.device)
        columns = torch.cat([column, angular.flatten()])
        values = torch.cat([inverse, local[whole].flatten()])
        features = values.new_zeros(edges.n_centers * self.n_features).scatter(0, columns, values)
        return Environment(features.view(edges.n_centers, self.n_features), species)

    @torch.no_grad()
    def places(self, system: System, edges: Edges) -> Places:
        """Frames and order of the neighbors within the cutoff, which ``edges`` must end at.

        Raises
        ------
        InputError
            For more neighbors than places, and where neighbors of the species in ``axes`` are missing.
        """
        edges = edges.up_to(self.cutoff)
        return self._local(system, edges, edges.vec / edges.distances[:, None])[1]

    @torch.no_grad()
    def margins(self, system: System, edges: Edges) -> Tensor:
        """Distances [C], Å, from the next jump: the smallest difference of two distances whose order matters.

        The neighbors of the frame are compared with others that could take their place, each neighbor with full
        information with the next of its species, and all ``edges``, which may be longer, with the cutoff.
        """
        nearest = edges.vec.new_full((edges.n_centers,), torch.inf)
        nearest = nearest.scatter_reduce(0, edges.center, (edges.distances - self.cutoff).abs(), "amin")
        edges = edges.up_to(self.cutoff)
        r, center = edges.distances, edges.center
        _, kinds, candidates = self._species(system, edges)
        places = self.places(system, edges)
        beside = candidates[1] & _apart(edges.vec / r[:, None], center, places.first)
        for axis, mask in (places.first, candidates[0]), (places.second, beside):
            others = (mask & (torch.arange(len(r), device=r.device) != axis[center])).nonzero()[:, 0]
            gaps = (r[others] - r[axis[center[others]]]).abs()
            nearest = nearest.scatter_reduce(0, center[others], gaps, "amin")
        order = _sorted(center * len(self.species) + kinds, r)
        ahead, behind = order[:-1], order[1:]
        ordered = (places.slot[behind] > 0) & (places.slot[ahead] < self.width[kinds[ahead]])
        return nearest.scatter_reduce(0, center[ahead[ordered]], (r[behind] - r[ahead])[ordered], "amin")

    def _species(self, system, edges):
        """Species of the centers [C] and of the neighbors [E], and which neighbors may be a and b: two masks [E]."""
        of_atoms = self.species_of_number[system.numbers]
        species, kinds = of_atoms[edges.atoms], of_atoms.index_select(0, edges.neighbor)
        wanted = self.wanted[species].index_select(0, edges.center)
        return species, kinds, [(axis < 0) | (axis == kinds) for axis in wanted.T]

    def _local(self, system, edges, unit):
        """Coordinates [E, 3] in the frames of the vectors ``unit`` of length one, and Places."""
        _, kinds, candidates = self._species(system, edges)
        fixed, center = unit.detach(), edges.center
        order = _sorted(center, edges.distances.detach())
        first = _nearest(order, center, candidates[0], edges.n_centers)
        apart = _apart(fixed, center, first)
        second = _nearest(order, center, candidates[1] & apart, edges.n_centers)
        if self.axes:
            self._check_axes(edges, first, second, apart)
        frames = _frames(unit, first, second).index_select(0, center)
        local = torch.einsum("eij,ej->ei", frames, unit)
        return local, Places(first, second, self._slots(edges, kinds, local.detach()))

    def _slots(self, edges, kinds, local):
        """Place [E] of each edge among the neighbors of its species."""
        n = len(self.species)
        group, r = edges.center * n + kinds, edges.distances.detach()
        counts = torch.bincount(group, minlength=edges.n_centers * n)
        self._check_room(counts.view(-1, n))
        order = _sorted(group, r)
        tied = (r[order].diff() < TIED) & (group[order].diff() == 0)
        if bool(tied.any()):
            order = _by_coordinates(order, tied, local)
        begin = counts.cumsum(0) - counts
        rank = torch.arange(len(order), device=order.device) - begin[group[order]]
        return torch.empty_like(order).index_copy(0, order, rank)

    def _check_room(self, counts):
        most = counts.amax(dim=0).tolist() if len(counts) else []
        for symbol, number, room in zip(self.species, most, self.sel):
            if number > room:
                raise InputError(
                    f"an atom has {number} neighbors of {symbol} within {self.cutoff:g} Å, the local frames have places "
                    f"for {room}; use a model that was trained with [local_frame] sel of at least {number} for {symbol}"
                )

    def _check_axes(self, edges, first, second, apart):
        """Raise InputError where neighbors of the species in ``axes`` are missing, and others are there."""
        alone = torch.bincount(edges.center, minlength=edges.n_centers) == 0
        in_line = torch.bincount(edges.center[apart], minlength=edges.n_centers) == 0
        for axis, spared, place in (first, alone, 0), (second, in_line, 1):
            lost = ((axis < 0) & ~spared).nonzero()[:, 0].tolist()
            if lost:
                pairs = ", ".join(f"{center} = {list(pair)}" for center, pair in self.axes.items())
                raise InputError(
                    f"atom {int(edges.atoms[lost[0]])} has no neighbor within {self.cutoff:g} Å for axis {place + 1} of "
                    f"its frame, which is of the species in axes ({pairs}); train with other axes or a longer cutoff"
                )


def _sorted(group, r):
    """Order of the edges by group and distance."""
    order = r.argsort(stable=True)
    return order[group[order].argsort(stable=True)]


def _nearest(order, center, allowed, n_centers):
    """The first allowed edge [C] of each center in an order that is sorted by center; -1 where there is none."""
    chosen = order[allowed[order]]
    counts = torch.bincount(center[chosen], minlength=n_centers)
    begin = counts.cumsum(0) - counts
    found = torch.full_like(begin, -1)
    found[counts > 0] = chosen[begin[counts > 0]]
    return found


def _apart(unit, center, first):
    """Mask [E] of the edges that are not in line with the first axis."""
    along = unit[first[center]] if len(unit) else unit
    return 1 - (unit * along).sum(dim=1) ** 2 > COLLINEAR**2


def _frames(unit, first, second):
    """Axes [C, 3, 3], as rows, with zeros for those that no neighbor defines."""
    padded = torch.cat([unit, unit.new_tensor([[1.0, 0.0, 0.0]])])  # -1 is the last
    there = (second >= 0)[:, None]
    x, other = padded.index_select(0, first % len(padded)), padded.index_select(0, second % len(padded))
    across = torch.where(there, other - (other * x).sum(dim=1, keepdim=True) * x, padded[-1])
    y = there * across / across.norm(dim=1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=1)


def _by_coordinates(order, tied, local):
    """The order with neighbors of equal distance, ``tied`` [E - 1] to the next, sorted by x, y and z, the largest first."""
    start = torch.nn.functional.pad(~tied, (1, 0), value=True)
    keys = [start.cumsum(0), *(-(local[order] * ROUNDED).round()).T]
    moved = torch.arange(len(order), device=order.device)
    for key in reversed(keys):
        moved = moved[key[moved].argsort(stable=True)]
    return order[moved]
