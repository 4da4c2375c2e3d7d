"""The LDOS at the points of a grid: kept by its coordinates or, where these are too many, by a few projections.

The total free energy needs the LDOS at a point only as the density there, n(r) = D(r) w with the weights w of occupied
states, and these follow from the Fermi level, which all points decide. Where the coordinates of all points do not fit
into memory, the Fermi level of a coarse grid is a guess. Weights at levels near the guess are combinations of very few
spectra, so that one pass over the points finds the projections of the LDOS on these, and the mean LDOS. If the Fermi
level turns out to be farther away, a second pass follows.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec import processes, units
from ase_mlelec.heads.spectrum import LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.physics import fermi
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

CHUNK = 2**16  # grid points that are converted to float64 at a time
COARSE = 4  # spacing of the grid for a guess of the Fermi level, in spacings of the grid
REACH = 0.014  # of kT: distance of a Fermi level from the guess at which COLUMNS projections still suffice
COLDEST = 0.01  # eV; least kT for this purpose
NODES = 9  # levels within REACH that stand for all; an odd number has the guess itself among them
EXACT = 3e-14  # relative error of weights as combinations of the spectra


class KeptPoints:
    """The LDOS at all points by its coordinates.

    Parameters
    ----------
    head : LDOSHead
    coordinates : Tensor [G, K]
        See LDOSHead.coordinates. Where several processes share the points, those of the others are zero.
    own : Tensor [G], optional
        1 at the points of this process and 0 elsewhere.
    """

    def __init__(self, head: LDOSHead, coordinates: Tensor, own: Tensor | None = None):
        self.coordinates, (self.matrix, self.offset) = coordinates, head.basis()
        self.own, self.n_points, self.dtype = own, len(coordinates), coordinates.dtype

    def weighted(self, weights: Tensor) -> Tensor:
        """Sums [G] over energies of the LDOS times weights [S]."""
        weights = weights if self.own is None else _ToAll.apply(weights)
        found = _Projected.apply(self.matrix @ weights, self.coordinates) + self.offset @ weights
        return found if self.own is None else _FromAll.apply(found * self.own)


class _Projected(torch.autograd.Function):
    """Coordinates [G, K] of any type times a vector [K], in float64, and its gradient by the vector.

    Autograd would keep the coordinates in float64.
    """

    @staticmethod
    def forward(ctx, vector, coordinates):
        ctx.save_for_backward(coordinates)
        return torch.cat([part.double() @ vector for part in coordinates.split(CHUNK)])

    @staticmethod
    def backward(ctx, grad):
        (coordinates,) = ctx.saved_tensors
        return sum(part.double().T @ own for part, own in zip(coordinates.split(CHUNK), grad.split(CHUNK))), None


class _ToAll(torch.autograd.Function):
    """A tensor that all processes have; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        processes.sum_up(grad)
        return grad


class _FromAll(torch.autograd.Function):
    """Sum of the tensors of all processes; what follows, and its gradient, is the same in all of them."""

    @staticmethod
    def forward(ctx, tensor):
        tensor = tensor.clone()
        processes.sum_up(tensor)
        return tensor

    @staticmethod
    def backward(ctx, grad):
        return grad


class StreamedPoints:
    """The LDOS at all points by its projections on some spectra.

    Parameters
    ----------
    spectra : Tensor [S, Q]
        Orthonormal.
    columns : list of Q Tensors [G]
        The first in float64. They are used up by ``weighted`` without gradients.
    dtype : torch.dtype
        Of the model.
    """

    def __init__(self, spectra: Tensor, columns: list[Tensor], dtype: torch.dtype):
        self.spectra, self.columns, self.n_points, self.dtype = spectra, columns, len(columns[0]), dtype

    def spans(self, weights: Tensor) -> bool:
        """Whether ``weighted`` is exact for weights [S]."""
        rest = weights - self.spectra @ (self.spectra.T @ weights)
        return bool(self.columns) and bool(rest.norm() <= 4 * EXACT * weights.norm())

    def weighted(self, weights: Tensor) -> Tensor:
        """Sums [G] over energies of the LDOS times weights [S] that are ``spanned``."""
        factors = self.spectra.T @ weights
        if torch.is_grad_enabled():
            return torch.stack([column.double() for column in self.columns], dim=1) @ factors
        first, *others = self.columns
        self.columns = []
        for start in range(0, self.n_points, CHUNK):  # in place, as there may be no memory for another column
            part = slice(start, start + CHUNK)
            first[part] *= factors[0]
            for factor, column in zip(factors[1:], others):
                first[part] += factor * column[part].double()
        return first


class GridLDOS:
    """Fingerprints and nets at the points of a grid, evaluated chunk by chunk in float64.

    Processes that work together (see ase_mlelec.processes) share the points.

    Parameters
    ----------
    models : sequence of Model
        With the same fingerprints.
    system : System
        One structure in float64.
    shape : (G1, G2, G3)
    dtype : torch.dtype
        Of what is kept.
    """

    def __init__(self, models: Sequence[Model], system: System, shape: tuple[int, int, int], dtype: torch.dtype):
        self.system, self.shape, self.dtype, self.n_points = system, shape, dtype, math.prod(shape)
        self.descriptor: Any = models[0].descriptor
        self.heads: Any = [copy.deepcopy(model.heads["ldos"]).double() for model in models]
        self.bases = [head.basis() for head in self.heads]
        self.device = system.positions.device

    @property
    def n_coordinates(self) -> int:
        """How many numbers the coordinates of all points are."""
        return self.n_points * sum(len(matrix) for matrix, _ in self.bases)

    def kept(self, known: Iterable[Tensor], *, features: bool) -> dict[str, list]:
        """Coordinates [G, K] and their means over the grid [K] of every member, and the fingerprints of every chunk.

        Coordinates and fingerprints are those of the points of this process; "own" [G] is 1 there, if there are others.

        Parameters
        ----------
        known : iterable of Tensor [P, F]
            Fingerprints of the chunks, if they are known.
        features : bool
            Whether to keep fingerprints.
        """
        like: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        shared = processes.world() > 1
        new: Callable = torch.zeros if shared else torch.empty
        coordinates = [new(self.n_points, len(matrix), **like) for matrix, _ in self.bases]
        own = torch.zeros(self.n_points if shared else 0, device=self.device)

        def receive(indices, parts):
            if shared:
                own[indices] = 1
            for part, whole in zip(parts, coordinates):
                whole[indices] = part.to(self.dtype)

        means, kept = self._run(receive, known, features)
        return {"coordinates": coordinates, "means": means, "features": kept, "own": own if shared else None}

    def projected(self, spectra: Sequence[Tensor]) -> tuple[list[Tensor], list[StreamedPoints]]:
        """Means of the coordinates, and projections of the LDOS on spectra [S, Q] of each member."""
        products = [(matrix @ own, offset @ own) for (matrix, offset), own in zip(self.bases, spectra)]
        columns = [
            [
                torch.zeros(self.n_points, dtype=self.dtype if k else torch.float64, device=self.device)
                for k in range(own.shape[1])
            ]
            for own in spectra
        ]

        def receive(indices, parts):
            for part, (matrix, offset), own in zip(parts, products, columns):
                for column, values in zip(own, (part @ matrix + offset).T):
                    column[indices] = values.to(column.dtype)

        means, _ = self._run(receive)
        processes.sum_up(*(column for own in columns for column in own))
        return means, [StreamedPoints(own, column, self.dtype) for own, column in zip(spectra, columns)]

    def means(self) -> list[Tensor]:
        """Means of the coordinates [K] over the grid."""
        return self._run(lambda indices, parts: None)[0]

    def coarse(self) -> "GridLDOS":
        """The same on a grid of about COARSE times the spacing, which no crystal on this grid fits."""
        found = copy.copy(self)
        found.shape = tuple(min(n, n // COARSE + 1) for n in self.shape)  # type: ignore[assignment]  # three
        found.n_points = math.prod(found.shape)
        return found

    def ldos(self) -> Tensor:
        """The mean LDOS [G, S] of the members."""
        found = torch.zeros(self.n_points, len(self.bases[0][1]), dtype=self.dtype, device=self.device)

        def receive(indices, parts):
            for part, (matrix, offset) in zip(parts, self.bases):
                found[indices] += ((part @ matrix + offset) / len(self.bases)).to(self.dtype)

        self._run(receive)
        processes.sum_up(found)
        return found

    def _run(self, receive, known=(), keeps=False):
        """Means of the coordinates, and fingerprints; ``receive`` gets the indices and coordinates of every chunk."""
        means = [torch.zeros(len(matrix), dtype=torch.float64, device=self.device) for matrix, _ in self.bases]
        kept = []

        @torch.no_grad()
        def evaluated(piece):
            chunk, given = piece
            features = self.descriptor.of_chunk(self.system, chunk) if given is None else given.double()
            parts = [head.coordinates(features) for head in self.heads]
            receive(chunk.indices, parts)
            return features.to(self.dtype) if keeps else None, [part.sum(dim=0) for part in parts]

        for features, sums in map_chunks(evaluated, self.chunks(known), device=self.device):
            kept += [features] if keeps else []
            means = [mean + part / self.n_points for mean, part in zip(means, sums)]
        processes.sum_up(*means)
        return means, kept

    def chunks(self, known: Iterable[Tensor] = ()) -> Iterable[tuple]:
        """Pairs of a chunk of points of this process and its fingerprints, None if these are not known."""
        share = processes.rank(), processes.world()
        return zip_longest(self.descriptor.grid_chunks(self.system, self.shape, share=share), known)


def streamed(
    grid: GridLDOS,
    levels: Callable[[list[Tensor]], Sequence[Tensor]],
    temperature: Tensor,
    means: list[Tensor] | None = None,
) -> tuple[list[Tensor], list[StreamedPoints]]:
    """Means of the coordinates [K], and projections that suffice at the Fermi level, of each member.

    Parameters
    ----------
    grid : GridLDOS
    levels : callable
        Fermi level of each member from the means, eV on the grid of energies.
    temperature : Tensor [], K
    means : list of Tensor [K], optional
        Where they are known from a former pass.
    """
    energies = [head.energies.to(grid.device) for head in grid.heads]
    mus = levels(grid.coarse().means() if means is None else means)
    while True:
        means, points = grid.projected([spectra_near(e, mu, temperature) for e, mu in zip(energies, mus)])
        mus = levels(means)
        weights = [fermi.integration_weights(e, mu, temperature)[0] for e, mu in zip(energies, mus)]
        if all(own.spans(w) for own, w in zip(points, weights)):
            return means, points


def spectra_near(energies: Tensor, level: Tensor, temperature: Tensor) -> Tensor:
    """Orthonormal spectra [S, Q] of which the weights of occupied states near a Fermi level are combinations.

    Parameters
    ----------
    energies : Tensor [S], eV
    level : Tensor [], eV
    temperature : Tensor [], K

    Notes
    -----
    Weights are analytic in the level within π kT, so that interpolation between a few levels within a small part of kT is
    exact to rounding.
    """
    reach = REACH * max(units.KB * float(temperature), COLDEST)
    nodes = reach * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    weights = fermi.integration_weights(energies, level.detach() + energies.new_tensor(nodes), temperature)[0]
    _, sizes, spectra = torch.linalg.svd(weights, full_matrices=False)
    return spectra[sizes > EXACT * sizes[0]].T.contiguous()
