"""What every descriptor is: cutoff, number of features, and a map from edges to environments."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ase.data import atomic_numbers
from torch import Tensor

from ase_mlelec.edges import Edges
from ase_mlelec.system import System


@dataclass(frozen=True)
class Environment:
    """What a descriptor says about every center.

    Attributes
    ----------
    features : Tensor [C, F]
        Invariant under rotation, translation and permutation of equal atoms.
    species : Tensor [C]
        Index of the center's species in the model's list.
    frame : Tensor [C, M, 3] or None
        Vectors that rotate with the structure.
    """

    features: torch.Tensor
    species: torch.Tensor
    frame: torch.Tensor | None = None


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

    def forward(self, system: System, edges: Edges):
        """Environment of all centers of ``edges``; reads no geometry but ``edges.vec``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(system, edges)")

    def standardize(self, samples) -> None:
        """Set the normalization of a new descriptor from training data, an iterable of (system, edges); none here."""

    def feature_weights(self):
        """Tensor [F], how much of each feature an energy may have where they differ in roughness; None: as it comes."""

    def summed_changes(self, system: System, edges: Edges, moves: Tensor) -> Tensor:
        """Tensor [T, species, F]: by how much the features, summed over the centers of each species, change along T
        moves of the edges, ``moves`` [T, E, 3]; derivatives. Here with one pass for each move.
        """
        vec = edges.vec.detach().requires_grad_(True)
        with torch.enable_grad():
            environment = self(system, edges.with_vec(vec))
            own = torch.nn.functional.one_hot(environment.species, len(self.species)).to(vec)
            return torch.stack(changes_along(moves, own.T @ environment.features, vec))

    def arguments(self):
        """dict of constructor arguments (JSON types), from which a model file builds the descriptor again."""
        raise NotImplementedError(f"{type(self).__name__} must define arguments()")


def changes_along(directions: Tensor, values: Tensor, leaf: Tensor) -> list:
    """list of Tensors: derivatives of ``values``, which depend on ``leaf``, where the leaf moves along each direction.

    The gradient is linear in its cotangents: its own derivative is that of the values along a direction.
    """
    cotangents = torch.zeros_like(values, requires_grad=True)
    (gradient,) = torch.autograd.grad(values, leaf, cotangents, create_graph=True)
    return [torch.autograd.grad(gradient, cotangents, direction, retain_graph=True)[0] for direction in directions]


def species_table(species: Sequence[str]) -> Tensor:
    """Tensor [120]: index of the species of each atomic number, -1 for foreign ones."""
    table = torch.full((120,), -1)
    table[[atomic_numbers[symbol] for symbol in species]] = torch.arange(len(species))
    return table
