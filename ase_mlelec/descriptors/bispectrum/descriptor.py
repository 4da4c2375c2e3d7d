r"""SNAP bispectrum components around atoms or the points of a grid.

An atom at the vector r from the center, at the distance r < R, is a point g = (a, b) of the sphere in four dimensions,
a = cos(t) + i sin(t) z/r, b = sin(t) (-y + i x)/r, t = rfac0 pi (r - rmin0)/(R - rmin0). The density of neighbors
there has the components U_j = 1 + sum_k w_k f(r_k) u_j(g_k), matrices (j+1) x (j+1) with j the doubled order, and

.. math::

    B_{j_1 j_2 j} = \sum \overline{U_j} \, (C C U_{j_1} U_{j_2}), \qquad C: \text{Clebsch-Gordan coefficients}.

It is computed without them: f_j(g) = sum conj(U_j) u_j(g) is a real function on SU(2), products of the u_j follow the
Clebsch-Gordan series, and so ``B_(j1`` j2 j) = (j+1) int f_j1 f_j2 f_j dg, for which finite quadrature rules are exact.
All steps are batched products of matrices, or compiled loops (``fast``) where numba is installed.

References: Thompson et al. 2015 (J. Comput. Phys. 285, 316), Eqs. (4)-(15); Ellis et al. 2021, Sec. II C.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from threading import get_ident
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec import compiled
from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.descriptors.bispectrum import tables
from ase_mlelec.descriptors.bispectrum.grid import GridChunk, check_grid, grid_chunks, slots
from ase_mlelec.descriptors.bispectrum.kernel import kernel
from ase_mlelec.descriptors.bispectrum.program import program
from ase_mlelec.descriptors.bispectrum.sphere import Shells
from ase_mlelec.edges import Edges
from ase_mlelec.nets import json_value
from ase_mlelec.system import System

LARGEST = 16  # of twojmax: tested up to here
FAR = 1e6  # Å; where empty slots of a list of neighbors are put
BLOCK = 128  # centers evaluated together: bounds memory, and is enough to hide the cost of calling
BLOCK_CUDA = 256


class _Components(torch.autograd.Function):
    """Components B [P, F] of vectors [3, P, K]; for the backward pass only the vectors are kept.

    Attributes
    ----------
    known : Tensor [P, F] or None
        B from an earlier evaluation; then only the backward pass is evaluated.
    """

    @staticmethod
    def forward(ctx, vec, kind, shells, twojmax, known):
        ctx.save_for_backward(vec, kind)
        ctx.shells, ctx.twojmax = shells, twojmax
        if known is not None:
            return known.clone()
        if _has_loops(vec, shells):
            return _by_loops(vec, kind, shells, twojmax).components()
        out = vec.new_empty(vec.shape[1], len(kernel(twojmax, vec.dtype, vec.device).place))
        for start, used, run in _evaluate(vec, kind, shells, twojmax):
            out[start : start + used] = run.components[:used]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        vec, kind = ctx.saved_tensors
        if _has_loops(vec, ctx.shells):
            return _by_loops(vec, kind, ctx.shells, ctx.twojmax).gradient(gradient), None, None, None, None
        out = torch.empty_like(vec)
        for start, used, run in _evaluate(vec, kind, ctx.shells, ctx.twojmax, gradient):
            part = slice(start, start + used)
            out[:, part] = ctx.shells.back(vec[:, part], kind[part], run.of_sphere[:, :, :used], run.of_weight[:used])
        return out, None, None, None, None


def _has_loops(vec, shells=None):
    """Whether compiled loops evaluate radial sums or, of given shells, the components: they have no rmin0."""
    known = vec.device.type == "cpu" and vec.dtype in (torch.float64, torch.float32)
    return known and not (shells and shells.rmin0) and compiled.is_wanted()


def _by_loops(vec, kind, shells, twojmax):
    from ase_mlelec.descriptors.bispectrum.fast import Evaluation  # needs numba

    return Evaluation(vec, kind, shells, twojmax)


def _evaluate(vec, kind, shells, twojmax, gradient=None):
    """Iterator of (first center, number of centers, Program that was run for them) over blocks of [3, P, K]."""
    n_centers, n_neighbors = vec.shape[1:]
    if not n_centers:
        return
    n_blocks = -(-n_centers // (BLOCK_CUDA if vec.is_cuda else BLOCK))
    size = min(n_centers, -(-n_centers // (8 * n_blocks)) * 8)  # few sizes: a Program is made for each
    run = program(get_ident(), twojmax, vec.dtype, vec.device, size, n_neighbors, gradient is not None)
    for start in range(0, n_centers, size):
        part = slice(start, start + size)
        used = min(size, n_centers - start)  # what the other rows hold does not matter
        shells.on_sphere(vec[:, part], kind[part], run.sphere[:, :, :used], run.weight[:used])
        if gradient is not None:
            run.of_components[:used] = gradient[part]
        run.run()
        yield start, used, run


class _RadialSums(torch.autograd.Function):
    """``radial_sums`` by compiled loops; for the backward pass only the vectors are kept."""

    @staticmethod
    def forward(ctx, vec, kind, cutoffs, n_radial):
        from ase_mlelec.descriptors.bispectrum.fast import RadialSums  # needs numba

        ctx.save_for_backward(vec, kind)
        ctx.cutoffs, ctx.n_radial = cutoffs, n_radial
        return RadialSums(vec, kind, cutoffs, n_radial).sums()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        from ase_mlelec.descriptors.bispectrum.fast import RadialSums  # needs numba

        return RadialSums(*ctx.saved_tensors, ctx.cutoffs, ctx.n_radial).gradient(gradient), None, None, None


class Bispectrum(Descriptor):
    """SNAP bispectrum components of atoms, of points in space, or of a grid.

    Parameters
    ----------
    species : sequence of chemical symbols
    twojmax
        2 J, the largest order.
    cutoff : float, Å
        Cutoff of the species that ``cutoffs`` lacks.
    weights, cutoffs : dict by symbol or one number per species
        Weight and cutoff of the neighbors of each species; default weight 1.
    rfac0, rmin0
        Constants of the map to the sphere (Å).
    switch : bool
        Whether neighbors fade out at the cutoff.
    bzero : bool
        Whether the components of a center without neighbors are subtracted.
    n_radial
        Number of radial sums per species after the components, see radial_sums.

    Notes
    -----
    Features are [C, F] in LAMMPS' order: j1 = 0..2J, j2 = 0..j1, j = j1 - j2, j1 - j2 + 2, .. <= min(2J, j1 + j2),
    with j >= j1; 91 features for 2J = 10. Centers that are points in space have the species 0. There is one difference
    from LAMMPS: an atom on a center contributes its limit for r -> 0, so that features and forces are continuous, while
    LAMMPS leaves it out. (With rmin0 > 0 there is no limit, and the result is finite but meaningless.)

    For a grid, chunk by chunk, differentiable in ``system.positions`` and ``system.cell``::

        for chunk in descriptor.grid_chunks(system, shape):
            features = descriptor.of_chunk(system, chunk)       # [P, F] of the points chunk.indices

    References
    ----------
    Thompson et al. 2015, Eqs. (4)-(15).
    """

    offset: Tensor
    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[str],
        twojmax: int = 10,
        cutoff: float = 4.67637,
        weights: Mapping[str, float] | None = None,
        cutoffs: Mapping[str, float] | Sequence[float] | None = None,
        rfac0: float = 0.99363,
        rmin0: float = 0.0,
        switch: bool = True,
        bzero: bool = False,
        n_radial: int = 0,
    ):
        super().__init__()
        self.species, self.twojmax, self.n_radial = tuple(species), int(twojmax), int(n_radial)
        self.shells = Shells(
            _per_species("cutoffs", cutoffs, self.species, cutoff),
            _per_species("weights", weights, self.species, 1.0),
            float(rfac0),
            float(rmin0),
            switch,
        )
        if not 1 <= self.twojmax <= LARGEST:
            raise ValueError(f"twojmax: got {twojmax}, need 1 to {LARGEST}; 8 and 10 are usual")
        if not all(radius > max(rmin0, 0.0) for radius in self.shells.cutoffs):
            raise ValueError(
                f"cutoffs: got {min(self.shells.cutoffs)} Å, need more than 0 and than rmin0 = "
                f"{rmin0} Å; choose a larger cutoff"
            )
        if self.n_radial < 0:
            raise ValueError(f"n_radial: got {n_radial}, need 0 or more; 16 are plenty")
        self.cutoff, self.bzero = max(self.shells.cutoffs), bzero
        order = tables.triples(self.twojmax)[:, 2]
        self.n_sums = self.n_radial * len(self.species)
        self.n_features = len(order) + self.n_sums
        offset = torch.tensor(order + 1.0 if bzero else 0.0 * order)
        self.register_buffer("offset", offset.to(torch.get_default_dtype()))
        self.register_buffer("species_of_number", species_table(self.species).clamp(min=0), persistent=False)

    def arguments(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("species", "twojmax", "cutoff", "bzero", "n_radial")}
        return json_value(own | asdict(self.shells))

    def forward(self, system: System, edges: Edges) -> Environment:
        kinds = self.species_of_number[system.numbers]
        place, width = slots(edges.center, edges.n_centers)
        vec = edges.vec.new_full((3, edges.n_centers * width), FAR).scatter(1, place.expand(3, -1), edges.vec.T)
        kind = place.new_zeros(edges.n_centers * width).scatter(0, place, kinds[edges.neighbor])
        features = self._features(vec.reshape(3, -1, width), kind.reshape(-1, width))
        return Environment(features, torch.where(edges.atoms < 0, 0, kinds[edges.atoms]))

    def _features(self, vec, kind, known=None):
        offset = self.offset.to(vec.dtype)
        known = None if known is None else known[:, : len(offset)] + offset
        components = _Components.apply(vec, kind, self.shells, self.twojmax, known) - offset
        if not self.n_radial:
            return components
        return torch.cat([components, radial_sums(vec, kind, self.shells.cutoffs, self.n_radial)], dim=1)

    def grid_chunks(
        self, system: System, shape: Sequence[int], *, share: tuple[int, int] = (0, 1)
    ) -> Iterator[GridChunk]:
        """Iterator of GridChunk over all points (i/G1, k/G2, l/G3) of a grid of ``shape`` = (G1, G2, G3).

        With ``share`` = (k, n) it is the share of process k of n.

        Raises
        ------
        InputError
            Unless the cell is periodic in three directions.
        """
        return grid_chunks(system, shape, self.cutoff, share=share)

    def of_chunk(
        self, system: System, chunk: GridChunk, dtype: torch.dtype | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Features [P, F] of the points of a GridChunk, differentiable in ``system.positions`` and ``system.cell``.

        Parameters
        ----------
        dtype
            Precision of the evaluation after the vectors to neighbors; default: precision of the system.
        known : Tensor [P, F] of that precision
            Features from an earlier call; then only derivatives are evaluated.
        """
        cell = system.cell[0]
        positions = torch.cat([system.positions, system.positions.new_full((1, 3), FAR)])
        atoms = positions[chunk.neighbor] + chunk.shift @ cell  # [b, K, 3]
        vec = atoms.permute(2, 0, 1).index_select(1, chunk.brick) - (chunk.fractional @ cell).T[:, :, None]
        kinds = torch.cat([self.species_of_number[system.numbers], chunk.neighbor.new_zeros(1)])
        return self._features(vec.to(dtype or vec.dtype), kinds[chunk.neighbor].index_select(0, chunk.brick), known)


def radial_sums(vec: Tensor, kind: Tensor, cutoffs: Sequence[float], n_radial: int) -> Tensor:
    """Radial sums [P, n_species K]: for every species, sums of K radial functions over its neighbors.

    The functions are phi_k = sin(k pi x)/(k pi x) (1 - x^2)^3 for k = 0..K-1, with x = r/R. Linear combinations of the
    sums are superpositions of one function per atom, like superpositions of the densities of neutral atoms.

    Parameters
    ----------
    vec : Tensor [3, P, N], Å
    kind : Tensor [P, N]
        Species of the neighbors.
    cutoffs
        R of every species, Å.

    Notes
    -----
    Spherical Bessel functions of order 0, which vanish at R, with a smooth end.
    """
    if _has_loops(vec):
        return _RadialSums.apply(vec, kind, cutoffs, n_radial)
    reach = torch.take(vec.new_tensor(cutoffs), kind)
    x = ((vec * vec).sum(dim=0).clamp(min=1e-12).sqrt() / reach).clamp(max=1)
    fade = (1 - x * x) ** 3
    sine, cosine = torch.sin(torch.pi * x), torch.cos(torch.pi * x)
    radial, before, now = [fade], torch.zeros_like(x), sine
    for k in range(1, n_radial):
        radial.append(fade * now / (k * torch.pi * x))
        before, now = now, 2 * cosine * now - before  # sin((k + 1) pi x)
    return torch.cat(
        [
            torch.stack([(part * (kind == species)).sum(dim=1) for part in radial], dim=1)
            for species in range(len(cutoffs))
        ],
        dim=1,
    )


def _per_species(name, values, species, default):
    """tuple of float, one per species, from a dict by symbol, a sequence or None."""
    if values is None:
        values = {}
    if isinstance(values, dict):
        foreign = sorted(values.keys() - set(species))
        if foreign:
            raise ValueError(f"{name}: got {foreign[0]}, need one of {', '.join(species)}; remove it")
        values = [values.get(symbol, default) for symbol in species]
    if len(values) != len(species):
        raise ValueError(f"{name}: got {len(values)} numbers, need {len(species)}, one per species; or give a dict")
    return tuple(float(value) for value in values)


def grid_bispectrum(
    atoms: Atoms,
    shape: Sequence[int],
    *,
    twojmax: int = 10,
    cutoff: float = 4.67637,
    weights: Mapping[str, float] | None = None,
    cutoffs: Mapping[str, float] | None = None,
    rfac0: float = 0.99363,
    rmin0: float = 0.0,
    switch: bool = True,
    bzero: bool = False,
) -> NDArray:
    """Bispectrum components on the points (i/G1, k/G2, l/G3) of a grid, as LAMMPS' ``compute sna/grid``.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic in three directions.
    shape : (G1, G2, G3)
    weights, cutoffs : dict by chemical symbol
        Without them weight 1 and ``cutoff`` (Å).
    other parameters
        See Bispectrum, also for an atom on a grid point.

    Returns
    -------
    array [G1, G2, G3, F], float64

    Raises
    ------
    InputError
        For a structure that is not periodic.

    References
    ----------
    Ellis et al. 2021, Sec. II C.
    """
    species = sorted(set(atoms.get_chemical_symbols()))
    weights, cutoffs = (
        {symbol: value for symbol, value in (given or {}).items() if symbol in species} for given in (weights, cutoffs)
    )
    descriptor = Bispectrum(species, twojmax, cutoff, weights, cutoffs, rfac0, rmin0, switch, bzero)
    system = System.from_atoms(atoms)
    out = np.empty((int(np.prod(check_grid(system, shape))), descriptor.n_features))
    with torch.no_grad():
        for chunk in descriptor.grid_chunks(system, shape):
            out[chunk.indices.numpy()] = descriptor.of_chunk(system, chunk).numpy()
    return out.reshape(*shape, -1)
