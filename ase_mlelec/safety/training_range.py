"""Range of the training data: numbers of neighbors, and features of the descriptor."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

COMPONENTS = 16  # number of principal components of the features
SAMPLES = 1500  # number of environments from which the components are computed
PER_COMPONENT = 4  # number of structures needed for each component
# ranges of n structures are widened by MARGIN/n + (FEWEST/n)^4, because few structures show no extremes
MARGIN, FEWEST = 6.0, 8.0
LEAST = 0.02  # smallest half width of a range, in units of the size of the number


class Interval(torch.nn.Module):
    """Ranges of K numbers for every species, stored as middle and inverse half width.

    Numbers with inverse 0 are not compared.
    """

    middle: Tensor
    inverse: Tensor

    def __init__(self, n_species: int, n_numbers: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(n_species, n_numbers))
        self.register_buffer("inverse", torch.zeros(n_species, n_numbers))

    def forward(self, values: Tensor, species: Tensor) -> Tensor:
        """Distances [C] of ``values`` [C, K] from the middle, in half widths, for the farthest of the K numbers."""
        middle, inverse = self.middle, self.inverse
        if len(middle) > 1:
            middle, inverse = middle[species], inverse[species]
        return ((values - middle) * inverse).abs().amax(dim=1)

    def set_range(self, k: int, values: Tensor, *, floor: float, wider: float, n_watched: int) -> None:
        """Set the ranges of species ``k`` from values in the training data.

        Parameters
        ----------
        k : int
        values : Tensor [n, K]
        floor : float
            Smallest half width.
        wider : float
            Relative widening of the ranges of ``values``.
        n_watched : int
            Number of components to compare. Data that are few do not fill all directions; ranges along the empty
            directions would be exceeded by structures like the data.
        """
        low, high = values.amin(dim=0), values.amax(dim=0)
        self.middle[k] = (low + high) / 2
        half = ((high - low) / 2 * (1 + wider)).clamp(min=max(floor, 1e-12))
        self.inverse[k] = (torch.arange(len(half)) < n_watched) / half


class TrainingRange(torch.nn.Module):
    """Ranges of the numbers of neighbors and of the features in the training data.

    The features of every species are projected on their first principal components in the training data. There is a range
    for single atoms, and a narrower range for means over the atoms of a structure, which distinguishes phases and
    densities. Every measure is 1 at the edge of the training data and 0 in their middle.

    Parameters
    ----------
    species : sequence of chemical symbols
    n_features : int, F
    n_components : int, K

    Raises
    ------
    ValueError
        For numbers that are not positive.
    """

    mean: Tensor
    axes: Tensor
    short_mean: Tensor
    short_axes: Tensor

    def __init__(self, species: Sequence[str], n_features: int, n_components: int = COMPONENTS) -> None:
        super().__init__()
        self.species, self.n_features = tuple(species), int(n_features)
        self.n_components = int(min(n_components, n_features))
        if self.n_components < 1:
            raise ValueError(f"ranges: got {n_features} features and {n_components} components, need at least one")
        n_species = len(self.species)
        self.register_buffer("mean", torch.zeros(n_species, self.n_features))
        self.register_buffer("axes", torch.zeros(n_species, self.n_features, self.n_components))
        self.of_atoms = Interval(n_species, self.n_components)
        self.of_structures = Interval(n_species, self.n_components)
        self.of_neighbors = Interval(n_species, 1)

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        return {"species": list(self.species), "n_features": self.n_features, "n_components": self.n_components}

    @torch.no_grad()
    def project(self, features: Tensor, species: Tensor) -> Tensor:
        """Project features [C, F] of centers on the principal components of their species [C]; returns [C, K]."""
        whole = features.shape[1] == self.n_features
        mean, axes = (self.mean, self.axes) if whole else (self.short_mean, self.short_axes)
        if len(self.species) == 1:
            return (features.to(mean) - mean[0]) @ axes[0]
        along = mean.new_zeros(len(features), self.n_components)
        for k in range(len(self.species)):
            rows = (species == k).nonzero()[:, 0]
            along[rows] = (features[rows].to(mean) - mean[k]) @ axes[k]
        return along

    @torch.no_grad()
    def condense(self, shortened: Callable[[Tensor], Tensor]) -> None:
        """Project fewer features too; tables [F, ...] of all features are ``shortened`` to [F', ...] of these."""
        self.register_buffer("short_mean", shortened(self.mean.T).T.contiguous(), persistent=False)
        self.register_buffer("short_axes", torch.stack([shortened(axes) for axes in self.axes]), persistent=False)

    @torch.no_grad()
    def atoms(self, along: Tensor, species: Tensor) -> Tensor:
        """Measures [C] of the projected features [C, K] of centers."""
        return self.of_atoms(along, species)

    @torch.no_grad()
    def neighbors(self, counts: Tensor, species: Tensor) -> Tensor:
        """Measures [C] of the numbers of neighbors [C] of centers."""
        return self.of_neighbors(counts.to(self.mean)[:, None], species)

    @torch.no_grad()
    def structures(self, along: Tensor, species: Tensor, batch: Tensor, n_systems: int) -> Tensor:
        """Measures [B] of structures: the largest measure of the means over the centers of each species.

        Parameters
        ----------
        along : Tensor [C, K], projected features
        species : Tensor [C]
        batch : Tensor [C], the structure of each center
        n_systems : int, B

        Returns
        -------
        Tensor [B]
        """
        n_species = len(self.species)
        place = batch * n_species + species
        number = torch.bincount(place, minlength=n_systems * n_species)
        total = along.new_zeros(n_systems * n_species, along.shape[1]).index_add(0, place, along)
        kinds = torch.arange(n_species, device=batch.device).repeat(n_systems)
        found = self.of_structures(total / number[:, None].clamp(min=1), kinds)
        return torch.where(number > 0, found, 0).reshape(n_systems, n_species).amax(dim=1)

    @torch.no_grad()
    def fit(self, samples: Sequence[tuple[Tensor, Tensor, Tensor]]) -> "TrainingRange":
        """Set the ranges from training structures.

        Parameters
        ----------
        samples : sequence of (features [N, F], species [N], numbers of neighbors [N]) of one structure each

        Returns
        -------
        TrainingRange
            The object itself.
        """
        n = max(len(samples), 1)
        wider = MARGIN / n + (FEWEST / n) ** 4
        for k in range(len(self.species)):
            having = [sample for sample in samples if bool((sample[1] == k).any())]
            if having:
                self._fit_species(k, having, wider)
        return self

    def _fit_species(self, k, samples, wider):
        """Set principal components and ranges of species ``k`` from the ``samples`` of structures that contain it.

        The features of all atoms can fill a gigabyte, and are therefore not joined.
        """
        counts = torch.cat([counts[species == k] for _, species, counts in samples]).double()
        n, n_watched = len(counts), max(1, len(samples) // PER_COMPONENT)

        def each():
            return (features[species == k].double() for features, species, _ in samples)

        mean = sum(own.sum(dim=0) for own in each()) / n
        spread = (sum((own - mean).square().sum(dim=0) for own in each()) / n).sqrt()
        inverse = 1 / (spread + 0.1 * spread.mean() + 1e-12)  # limits the scale of features that hardly vary
        chosen = (_every(max(1, n // SAMPLES), each()) - mean) * inverse
        axes = torch.linalg.svd(chosen, full_matrices=False)[2][: self.n_components].T
        axes = axes * axes.gather(0, axes.abs().argmax(dim=0)[None]).sign()  # fixes the sign of each axis
        watched = min(axes.shape[1], n_watched)
        self.mean[k], self.axes[k, :, :watched] = mean, axes[:, :watched] * inverse[:, None]
        size = float((spread * inverse).norm())
        axes = self.axes[k].double()
        along = torch.cat([(own - mean) @ axes for own in each()])
        means = torch.stack([(own - mean).mean(dim=0) for own in each()]) @ axes
        share = {"wider": wider, "n_watched": n_watched}
        self.of_atoms.set_range(k, along, floor=LEAST * size, **share)
        self.of_structures.set_range(k, means, floor=LEAST * size, **share)
        self.of_neighbors.set_range(k, counts[:, None], floor=LEAST * float(counts.mean()), **share)


def _every(step, parts):
    """Every ``step``-th of the rows of all ``parts``."""
    chosen, start = [], 0
    for part in parts:
        chosen.append(part[-start % step :: step])
        start += len(part)
    return torch.cat(chosen)
