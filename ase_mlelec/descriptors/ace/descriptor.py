"""ACE invariants as a Descriptor, with a smoothness prior for energies that are linear in them.

Features of high degree n and l make an energy rough. A ridge that grows with the degree lets a linear energy be learned
from few structures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from ase_mlelec import compiled
from ase_mlelec.descriptors.ace.contracted import Contracted
from ase_mlelec.descriptors.ace.couplings import coupling
from ase_mlelec.descriptors.ace.moments import DensityMoments
from ase_mlelec.descriptors.ace.orders import Order, checked_orders, roughness, standard_orders
from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

# smoothness prior of each order: a factor, and the power with which the prior falls with the roughness
SHARES, STEEPNESS = (1, 1, 30, 3), (5, 5, 3, 3)
CENTERS = 32  # at a time, for changes along moves


class ACE(Descriptor):
    """ACE invariants up to five-body terms.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols.
    inner : float
        Inner end of the range of the radial functions, Å, about the shortest distance; below it they grow.
    orders : sequence of Order or of dict of its arguments, optional
        Settings of correlation orders 1, 2, ..., at most 4; default ``standard_orders()``.

    Raises
    ------
    ValueError
        For numbers out of range, too many products, and an order without any product.

    Notes
    -----
    Features are sorted by order. Their smoothness prior (``feature_weights``) is a power of their roughness, 1 + sum of
    n^2 + (sum of l^2)/10: the power -5/2 for orders 1 and 2, and -3/2 for orders 3 and 4. The common l of the two
    densities of order 2 counts once.

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019); the algebraic smoothness prior of Witt et al., J. Chem. Phys. 159, 164101
    (2023).
    """

    weights: Tensor
    species_of_number: Tensor
    moments: Any  # a ModuleList, which has no type for its entries
    couplings: Any

    def __init__(
        self, species: Sequence[str], *, inner: float = 2.0, orders: Sequence[Order | Mapping] = standard_orders()
    ):
        super().__init__()
        self.species, self.inner = tuple(species), float(inner)
        self.orders = checked_orders(orders, self.inner)
        self.cutoff = float(max(order.cutoff for order in self.orders))
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)
        couplings = [coupling(number, order, len(self.species)) for number, order in enumerate(self.orders, 1)]
        self.couplings = torch.nn.ModuleList(couplings)
        # orders with the same cutoff and number of radial functions share their moments
        shared = [(order.cutoff, order.n_radial) for order in self.orders]
        kinds = sorted(range(len(self.species)), key=lambda k: atomic_numbers[self.species[k]])
        self.moments = torch.nn.ModuleList(
            DensityMoments(
                kinds, self.inner, *key, max(part.l_max for part, own in zip(couplings, shared) if own == key)
            )
            for key in dict.fromkeys(shared)
        )
        self.source = [list(dict.fromkeys(shared)).index(key) for key in shared]
        weights = [
            share * roughness(part.squares) ** (-steepness / 2)
            for part, share, steepness in zip(couplings, SHARES, STEEPNESS)
        ]
        self.register_buffer("weights", torch.as_tensor(np.concatenate(weights)), persistent=False)
        self.n_features = len(self.weights)
        self.settled, self._invariants = False, None  # a copy that is only evaluated; its compiled loops

    def feature_weights(self) -> Tensor:
        """Smoothness prior [F]: the relative size that the weight of each feature may have in an energy."""
        return self.weights

    def arguments(self) -> dict:
        """Constructor arguments (JSON types)."""
        return {"species": list(self.species), "inner": self.inner, "orders": [asdict(order) for order in self.orders]}

    def forward(self, system: System, edges: Edges) -> Environment:
        """Environment of all centers of ``edges``."""
        species = self.species_of_number[system.numbers][edges.atoms]
        if not self._uses_loops(edges):
            return Environment(self._features(system, edges), species)
        edges = edges.up_to(self.cutoff)
        kinds, loops = self._neighbors(system, edges), self._loops()
        return Environment(
            loops.features(edges, kinds, lambda vec: self._features(system, edges.with_vec(vec))), species
        )

    def weighted_sums(self, system: System, edges: Edges, weights: Tensor) -> Tensor:
        """As in the base class, without the features, which are many more than the atomic basis."""
        species = self.species_of_number[system.numbers][edges.atoms]
        parts = weights.split([part.squares.shape[1] for part in self.couplings], dim=1)
        return Contracted.apply(self.couplings, self.source, parts, species, *self._atomic_basis(system, edges))

    def sums_with_gradient(self, system: System, edges: Edges, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As in the base class, by one call of the loops where they are used."""
        if not self._uses_loops(edges):
            return super().sums_with_gradient(system, edges, weights)
        _, sums, gradients = self._loops().sums(edges, weights[None], *self._kinds(system, edges))
        return sums[0], gradients[0]

    def sums_with_environment(
        self, system: System, edges: Edges, weights: Tensor
    ) -> tuple[Environment, Tensor, list[Tensor]]:
        """As in the base class, by one call of the loops where they are used."""
        if not self._uses_loops(edges):
            return super().sums_with_environment(system, edges, weights)
        kinds, own = self._kinds(system, edges)
        features, sums, gradients = self._loops().sums(edges, weights, kinds, own, wants_features=True)
        return Environment(features, self.species_of_number[system.numbers][edges.atoms]), sums, gradients

    def _kinds(self, system, edges):
        """Species of the neighbors [E] and of the centers [C], arrays."""
        edges.check_cutoff(self.cutoff)
        species = self.species_of_number.numpy()[system.numbers.numpy()]
        return species[edges.neighbor.numpy()], species[edges.atoms.numpy()]

    def settle(self) -> None:
        """Allow compiled loops, where they are installed; for copies that are only evaluated."""
        self.settled = True

    def _uses_loops(self, edges):
        """Whether compiled loops are used: where nothing is differentiated twice, as by a training of nets."""
        once = self.settled or not torch.is_grad_enabled()
        return once and edges.vec.device.type == "cpu" and compiled.is_wanted()

    def _loops(self):
        """Compiled loops; their tables are those of float64, whatever the precision of the model."""
        if self._invariants is None:
            from ase_mlelec.descriptors.ace.fast import Invariants  # imports numba

            exact = self if self.weights.dtype == torch.float64 else ACE(**self.arguments())
            self._invariants = Invariants(exact.moments, exact.couplings, self.source, len(self.species))
        return self._invariants

    def _features(self, system, edges):
        moments = self._atomic_basis(system, edges)
        return torch.cat([part(moments[k]) for k, part in zip(self.source, self.couplings)], dim=1)

    def _atomic_basis(self, system, edges):
        """The atomic basis A of every set of radial functions."""
        near = [edges.up_to(part.cutoff) for part in self.moments]
        return [part(self._neighbors(system, own), own) for part, own in zip(self.moments, near)]

    @torch.no_grad()
    def summed_gradients(self, system: System, edges: Edges, *, strain: bool = True) -> Tensor:
        """As ``Descriptor.summed_gradients``, for all derivatives at once; compiled loops are used where there are some."""
        n_atoms = len(system.numbers)
        if edges.vec.device.type == "cpu" and compiled.is_wanted():
            edges = edges.up_to(self.cutoff)
            found = self._loops().summed_gradients(edges, *self._kinds(system, edges), n_atoms=n_atoms, strain=strain)
            return torch.from_numpy(found).to(edges.vec.dtype)
        total = edges.vec.new_zeros(len(self.species), self.n_features, 3 * n_atoms + 9 * strain)
        species = self.species_of_number[system.numbers][edges.atoms]
        for k in range(len(self.species)):
            centers = (species == k).nonzero()[:, 0]
            for some in centers.split(CENTERS):
                self._add_gradients(total[k], system, edges.at_centers(some), strain)
        return total.permute(2, 0, 1)

    def _add_gradients(self, total, system, edges, strain):
        """Add the derivatives of the features, summed over centers of one species, to ``total`` [F, T]."""
        sets = []
        for part in self.moments:
            near = edges.up_to(part.cutoff)
            sets.append(part.gradients(self._neighbors(system, near), near, len(system.numbers), strain=strain))
        parts = total.split([part.squares.shape[1] for part in self.couplings])
        for source, part, rows in zip(self.source, self.couplings, parts):
            part.add_gradients(rows, sets[source])

    def _neighbors(self, system, edges):
        return self.species_of_number[system.numbers].index_select(0, edges.neighbor)
