"""Base class of descriptors: a map from edges to environments, with a cutoff and a number of features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from ase_mlelec.edges import Edges
from ase_mlelec.nets import precision_of
from ase_mlelec.system import System


@dataclass(frozen=True)
class Environment:
    """Output of a descriptor for every center.

    Attributes
    ----------
    features : Tensor [C, F]
        Invariant under rotation, translation and permutation of equal atoms.
    species : Tensor [C]
        Index of the center's species in the model's list.
    frame : Tensor [C, M, 3] or None
        Vectors that rotate with the structure.
    kept : dict or None
        With a dict, heads keep in it what they compute before their last layer, for error bars; see ``keeping``.
    """

    features: torch.Tensor
    species: torch.Tensor
    frame: torch.Tensor | None = None
    kept: dict | None = field(default=None, compare=False, repr=False)

    def keeping(self) -> "Environment":
        """The same environments, with a place for what heads compute from them; for heads that do not change."""
        return replace(self, kept={})

    def detached(self) -> "Environment":
        """The same environments without gradients."""
        kept = None if self.kept is None else {owner: value.detach() for owner, value in self.kept.items()}
        frame = None if self.frame is None else self.frame.detach()
        return Environment(self.features.detach(), self.species, frame, kept)

    def to(self, dtype: torch.dtype | None) -> "Environment":
        """The same environments in another precision; with None as they are."""
        if dtype in (None, self.features.dtype):
            return self
        frame = None if self.frame is None else self.frame.to(dtype)
        return Environment(self.features.to(dtype), self.species, frame, None if self.kept is None else {})


class Descriptor(torch.nn.Module):
    """Base of all descriptors; a subclass sets the three attributes and writes ``forward``.

    Attributes
    ----------
    cutoff : float, Å
    n_features : int
    species : tuple of str
        Chemical symbols in the order of the model's species index.
    """

    cutoff: float
    n_features: int
    species: tuple

    def forward(self, system: System, edges: Edges) -> Environment:
        """Environment of all centers of ``edges``; the only geometry that it reads is ``edges.vec``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(system, edges)")

    def standardize(self, samples: Iterable[tuple[System, Edges]]) -> None:
        """Set the normalization of a new descriptor from training data, an iterable of (system, edges).

        The base class has no normalization.
        """

    def feature_weights(self) -> Tensor | None:
        """Smoothness prior [F]: relative size that the weight of each feature may have; None for no prior."""

    def weighted_sums(self, system: System, edges: Edges, weights: Tensor) -> Tensor:
        """Sums [C] of the features of each center times the ``weights`` [species, F] of its species.

        A subclass may have a way that is faster than the features, and that can be differentiated once.
        """
        environment = self(system, edges)
        return (environment.features * weights[environment.species]).sum(dim=1)

    def sums_with_gradient(self, system: System, edges: Edges, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As ``weighted_sums``, with the derivatives [E, 3] of the sum over all centers by the vectors of the edges.

        Edges may reach beyond the cutoff; the derivatives by those are zero.
        """
        leaf = edges.with_vec(edges.vec.detach().requires_grad_(True))
        sums = self.weighted_sums(system, leaf.to(precision_of(self)), weights)
        return sums.detach(), torch.autograd.grad(sums.sum(), leaf.vec)[0]

    def sums_with_environment(
        self, system: System, edges: Edges, weights: Tensor
    ) -> tuple[Environment, Tensor, list[Tensor]]:
        """As ``sums_with_gradient`` for several weights [W, species, F] at a time, and the environments.

        Returns (environments without gradients, sums [W, C], derivatives [E, 3] of every sum over all centers, list).
        """
        leaf = edges.with_vec(edges.vec.detach().requires_grad_(True))
        environment = self(system, leaf.up_to(self.cutoff).to(precision_of(self)))
        sums = (environment.features * weights.to(environment.features)[:, environment.species]).sum(dim=2)
        gradients = [torch.autograd.grad(each.sum(), leaf.vec, retain_graph=True)[0] for each in sums]
        return environment.detached(), sums.detach(), gradients

    def summed_gradients(self, system: System, edges: Edges, *, strain: bool = True) -> Tensor:
        """Derivatives [T, species, F] of the features of one structure, summed over the centers of each species.

        T counts the 3 N coordinates of the atoms and, with ``strain``, the 9 components d vec_b = strain_ab vec_a.
        The base class evaluates one derivative after the other.
        """
        vec = edges.vec.detach().requires_grad_(True)
        with torch.enable_grad():
            environment = self(system, edges.with_vec(vec))
            own = torch.nn.functional.one_hot(environment.species, len(self.species)).to(vec)
            return torch.stack(changes_along(_moves(system, edges, strain), own.T @ environment.features, vec))

    def arguments(self) -> dict[str, Any]:
        """dict of the constructor arguments (JSON types), from which a model file restores the descriptor."""
        raise NotImplementedError(f"{type(self).__name__} must define arguments()")


def changes_along(directions: Iterable[Tensor], values: Tensor, leaf: Tensor) -> list:
    """Derivatives of ``values``, which depend on ``leaf``, along each direction in which the leaf moves; list of Tensor.

    The gradient is linear in its cotangents, and its derivative with respect to them is the directional derivative.
    """
    cotangents = torch.zeros_like(values, requires_grad=True)
    (gradient,) = torch.autograd.grad(values, leaf, cotangents, create_graph=True)
    return [torch.autograd.grad(gradient, cotangents, direction, retain_graph=True)[0] for direction in directions]


def _moves(system, edges, strain):
    """Iterate over the derivatives [E, 3] of the edge vectors by the coordinates of all atoms, and by the strain."""
    axes = torch.eye(3).to(edges.vec)
    for atom in range(len(system.numbers)):
        moved = (edges.neighbor == atom).to(edges.vec) - (edges.center == atom).to(edges.vec)
        yield from (moved[:, None] * axis for axis in axes)
    for along in edges.vec.detach().T if strain else ():
        yield from (along[:, None] * axis for axis in axes)


def species_table(species: Sequence[str]) -> Tensor:
    """Index of the species of each atomic number, Tensor [120]; -1 for unknown species."""
    table = torch.full((120,), -1)
    table[[atomic_numbers[symbol] for symbol in species]] = torch.arange(len(species))
    return table
