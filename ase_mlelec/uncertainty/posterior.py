"""Posterior of the last layer of a head."""

import functools
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_of(name: str) -> int:
    """Seed of the draws for the head of a quantity, so that members of different heads are independent."""
    return zlib.crc32(name.encode())


@functools.lru_cache(maxsize=8)
def _normal(shape, seed):
    """Normal random numbers, the same for each structure."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    noise.setflags(write=False)
    return noise


@functools.lru_cache(maxsize=8)
def _orthogonal(size, n, seed):
    """Orthogonal vectors [n, size] of random directions, with a mean square of one."""
    return np.ascontiguousarray(np.linalg.qr(_normal((size, n), seed))[0].T * size**0.5)


class Posterior(torch.nn.Module):
    r"""Gaussian posterior of the last layer of fitting nets, in the units of the quantity.

    .. math::

        W = \bar W + X \xi Y^T, \qquad \xi_{kq} \sim N(0, 1)

    W are the weights of the inputs of the last layer, the constant of each species being the weight of an input that is
    one. A linear result with inputs x has the variance (x\ :sup:`T` X X\ :sup:`T` x) (Y Y\ :sup:`T`).

    Parameters
    ----------
    n_species, n_inputs, n_outputs : int
        Sizes of the last layer, without the constant.
    n_directions, rank : int
        Numbers of columns of X and Y.
    scales : dict of float
        Calibrated factor of the standard deviation of each quantity; 1 for other quantities.
    floors : dict of float
        Standard deviation of the errors of each quantity that no change of the weights explains, before the scale; 0 for
        other quantities. For results of atoms it is in units of that of an atom with a leverage of one, for forces in
        eV/Å, and for sums it counts once for each atom. For what follows from a density of states it is the standard
        deviation, over that of ``DosBars.floor``.
    ridge : float
        Ridge of the covariance, in units of the mean diagonal element of the normal matrix.

    Attributes
    ----------
    inputs : Tensor [species, n_inputs + 1, n_directions]
        X.
    outputs : Tensor [n_outputs, rank]
        Y.
    center : Tensor [species, n_directions]
        Mean of the coordinates of the atoms in the training data.
    edge : Tensor [species]
        Largest squared distance of the coordinates of an atom in the training data from their mean.
    gauge : Tensor [species, n_directions]
        Part of the coordinates of every atom that no label of the training data determines, see ``gauge_of``.

    References
    ----------
    Bigi et al. 2024, Mach. Learn.: Sci. Technol. 5, 045018 (arXiv:2403.02251); MacKay 1992, Neural Comput. 4,
    415.
    """

    inputs: Tensor
    outputs: Tensor
    center: Tensor
    edge: Tensor
    gauge: Tensor

    def __init__(
        self,
        n_species: int,
        n_inputs: int,
        n_directions: int,
        n_outputs: int = 1,
        rank: int = 1,
        scales: Mapping[str, float] | None = None,
        ridge: float = 0.0,
        floors: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.n_species, self.n_inputs, self.n_directions = n_species, n_inputs, n_directions
        self.n_outputs, self.rank = n_outputs, rank
        self.scales, self.ridge, self.floors = dict(scales or {}), float(ridge), dict(floors or {})
        self.register_buffer("inputs", torch.zeros(n_species, n_inputs + 1, n_directions))
        self.register_buffer("outputs", torch.zeros(n_outputs, rank))
        self.register_buffer("center", torch.zeros(n_species, n_directions))
        self.register_buffer("edge", torch.ones(n_species))
        self.register_buffer("gauge", torch.zeros(n_species, n_directions))

    @classmethod
    def from_factors(
        cls, inputs: Tensor, outputs: Tensor, *, n_species: int, ridge: float = 0.0, rounded: bool = True
    ) -> "Posterior":
        """Posterior from X [P, K], with the rows of one species after the other, and Y [O, Q].

        Both are ``rounded`` to float32, which halves files, unless the ridge is so small that this would show: where data
        determine sums of weights alone, X has numbers of the size of ridge^(-1/2) that cancel in all results.
        """
        n_outputs, rank = outputs.shape
        found = cls(n_species, len(inputs) // n_species - 1, inputs.shape[1], n_outputs, rank, ridge=ridge).to(inputs)
        inputs, outputs = (part.float() if rounded else part for part in (inputs, outputs))
        found.inputs.copy_(inputs.reshape(found.inputs.shape))
        found.outputs.copy_(outputs)
        return found

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        names = ("n_species", "n_inputs", "n_directions", "n_outputs", "rank", "scales", "ridge")
        return {name: getattr(self, name) for name in names} | ({"floors": self.floors} if self.floors else {})

    def scale(self, quantity: str) -> float:
        """Factor of the standard deviation of a quantity; that of members for one whose errors were not known."""
        return self.scales.get(quantity, self.scales.get("members", 1.0))

    def floor(self, quantity: str) -> float:
        """Floor of the standard deviation of a quantity, without its scale."""
        return self.floors.get(quantity, 0.0)

    def directions(self, n: int, *, seed: int = 0) -> Tensor:
        """Orthogonal ξ [m, K] of one output, m = min(n, K); sum_k (z ξ_k)² / m is ``|z|²`` on average, exactly for m = K."""
        return torch.as_tensor(_orthogonal(self.n_directions, min(n, self.n_directions), seed)).to(self.inputs)

    def coordinates(self, inputs: Tensor, species: Tensor) -> Tensor:
        """Coordinates z [C, K] = X^T x of centers, from the inputs [C, n_inputs] of the last layer."""
        if self.n_species == 1:
            return torch.addmm(self.inputs[0, -1], inputs, self.inputs[0, :-1])
        found = inputs.new_zeros(len(inputs), self.n_directions)
        for k in range(self.n_species):
            rows = (species == k).nonzero()[:, 0]
            found = found.index_copy(0, rows, torch.addmm(self.inputs[k, -1], inputs[rows], self.inputs[k, :-1]))
        return found

    def determined(self, z: Tensor, species: Tensor) -> Tensor:
        """The coordinates [C, K] of single centers without their ``gauge``.

        Sums over a structure with the composition of the training data are the same with and without it; those of another
        composition need it.
        """
        return z - self.gauge[species]

    def leverages(self, z: Tensor, species: Tensor) -> Tensor:
        """Squared distances [C] of coordinates [C, K] from their mean over the training data."""
        return (z - self.center[species]).square().sum(dim=1)

    def draws(self, n: int, *, seed: int = 0) -> Tensor:
        """Normal random numbers ξ [n, K, Q] that depend on n and seed alone, with a mean of zero and a variance of one."""
        noise = _normal((n, self.n_directions, self.rank), seed)
        noise = noise - noise.mean(axis=0)
        return torch.as_tensor(noise * (n / max(n - 1, 1)) ** 0.5).to(self.inputs)

    def changes(self, n: int, *, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
        """Changes [species, n_inputs + 1, n_outputs] of the weights in n members, which add up to zero."""
        return [scale * (self.inputs @ draw @ self.outputs.T) for draw in self.draws(n, seed=seed)]


N_HAMILTONIANS = 8  # members of Hamiltonians: their standard deviations have a relative error of a quarter


def drawn_layers(posteriors: Mapping[str, Posterior], n: int = N_HAMILTONIANS) -> dict[str, Tensor]:
    """Changes of the last layers of a head in n members, as ``Model.members`` has them.

    Parameters
    ----------
    posteriors : dict of Posterior
        By "head/layer"; others have no part.

    Returns
    -------
    dict by layer of Tensor [n, H + 1, outputs]
    """
    return {
        name.partition("/")[2]: torch.cat(each.changes(n, scale=each.scale("members"), seed=seed_of(name)))
        for name, each in posteriors.items()
        if "/" in name
    }
