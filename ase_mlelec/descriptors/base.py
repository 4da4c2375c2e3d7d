"""What every descriptor is: cutoff, number of features, and a map from edges to environments."""
from dataclasses import dataclass

import torch
from ase.data import atomic_numbers


@dataclass(frozen=True)
class Environment:
    """What a descriptor says about every centre.

    features : Tensor [C, F], invariant under rotation, translation and permutation of equal atoms
    species : Tensor [C], index of the centre's species in the model's list
    frame : Tensor [C, M, 3] or None; vectors that rotate with the structure
    """
    features: torch.Tensor
    species: torch.Tensor
    frame: torch.Tensor | None = None


class Descriptor(torch.nn.Module):
    """Base of all descriptors; a subclass sets the three attributes and writes ``forward``.

    cutoff : float, Å
    n_features : int
    species : tuple of str, chemical symbols in the order of the model's species index
    """
    cutoff: float
    n_features: int
    species: tuple

    def forward(self, system, edges):
        """Environment of all centres of ``edges``; reads no geometry but ``edges.vec``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(system, edges)")

    def standardise(self, samples):
        """Set the normalisation of a new descriptor from training data, an iterable of (system, edges); none here."""

    def feature_weights(self):
        """Tensor [F], how much of each feature an energy may have where they differ in roughness; None: as it comes."""

    def feature_groups(self):
        """Tensor [F] of int, features that are alike; None: all.  A linear energy may find how much of each it has."""

    def arguments(self):
        """dict of constructor arguments (JSON types), from which a model file builds the descriptor again."""
        raise NotImplementedError(f"{type(self).__name__} must define arguments()")


def species_table(species):
    """Tensor [120]: index of the species of each atomic number, -1 for foreign ones."""
    table = torch.full((120,), -1)
    table[[atomic_numbers[symbol] for symbol in species]] = torch.arange(len(species))
    return table
