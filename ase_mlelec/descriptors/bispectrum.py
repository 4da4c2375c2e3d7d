"""SNAP bispectrum components around atoms or the points of a grid.

An atom at the vector r from the centre, at the distance r < R, is a point g = (a, b) of the sphere in four dimensions,
a = cos(t) + i sin(t) z/r, b = sin(t) (-y + i x)/r, t = rfac0 pi (r - rmin0)/(R - rmin0).  The density of neighbours
there has the components U_j = 1 + sum_k w_k f(r_k) u_j(g_k), matrices (j+1) x (j+1) with j the doubled order, and

    B_(j1 j2 j) = sum conj(U_j) (C C U_j1 U_j2), C: Clebsch-Gordan coefficients.

It is computed without them: f_j(g) = sum conj(U_j) u_j(g) is a real function on SU(2), products of the u_j follow the
Clebsch-Gordan series, and so B_(j1 j2 j) = (j+1) int f_j1 f_j2 f_j dg, for which finite quadrature rules are exact.
All steps are batched products of matrices.

Sources: Thompson et al. 2015 (J. Comput. Phys. 285, 316), Eqs. (4)-(15); Ellis et al. 2021, Sec. II C.
"""

from dataclasses import dataclass
from itertools import islice, product
from threading import get_ident

import numpy as np
import torch
from ase.calculators.calculator import InputError
from ase.data import atomic_numbers

from ase_mlelec.descriptors import wigner
from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.descriptors.su2 import kernel, program
from ase_mlelec.edges import find_center_pairs
from ase_mlelec.system import System

LARGEST = 16  # of twojmax: tested up to here
FAR = 1e6  # Å; where empty slots of a list of neighbours are put
BRICK_EDGE = 0.8  # Å; edge of the bricks of grid points that share a list of neighbours
BRICKS_AT_ONCE = 4096  # bricks whose neighbours are searched together: bounds memory
CHUNK = 2048  # grid points that are handed out together: bounds memory
BLOCK = 128  # centres evaluated together: bounds memory, and is enough to hide the cost of calling
BLOCK_CUDA = 256


@dataclass(frozen=True)
class Shells:
    """How neighbours are weighted: per species cutoff (Å) and weight, and the constants of the map to the sphere."""

    cutoffs: tuple
    weights: tuple
    rfac0: float
    rmin0: float
    switch: bool

    def on_sphere(self, vec, kind, sphere, weight):
        """Write Re and Im of (a, b) [2, 2, P, K] and w f [P, K] of vectors [3, P, K] to neighbours of a kind [P, K].

        At r = 0 they take their limit for r -> 0.
        """
        w, _, _, argument, c, s = self._radial(vec, kind)
        sphere[0, 0] = c
        torch.mul(vec[2], s, out=sphere[1, 0])
        torch.mul(vec[1], s, out=sphere[0, 1]).neg_()
        torch.mul(vec[0], s, out=sphere[1, 1])
        torch.mul(self._fade(argument), w, out=weight)

    def _fade(self, argument):
        """f of (r - rmin0)/(R - rmin0): 0 from 1 on."""
        if not self.switch:
            return (argument < 1).to(argument.dtype)
        return torch.cos(argument.clamp(min=0).mul_(torch.pi)).add_(1).mul_(0.5)

    def _radial(self, vec, kind):
        """Weight w, R - rmin0, r, (r - rmin0)/(R - rmin0) or 1 beyond the cutoff, cos(t) and sin(t)/r.

        As in LAMMPS, r < rmin0 has (a, b) of the opposite sign.
        """
        if len(self.cutoffs) == 1:
            cutoff, weight = self.cutoffs[0], self.weights[0]
        else:
            cutoff, weight = (torch.take(vec.new_tensor(values), kind) for values in (self.cutoffs, self.weights))
        reach = cutoff - self.rmin0
        r = (vec * vec).sum(dim=0).sqrt_().clamp_(min=torch.finfo(vec.dtype).tiny ** 0.25)
        argument = ((r - self.rmin0) / reach).clamp_(max=1)  # cosines of large numbers, in empty slots, are slow
        angle = (self.rfac0 * torch.pi) * argument
        c, s = torch.cos(angle), torch.sin(angle) / r
        if self.rmin0:
            side = torch.where(argument > 0, 1.0, -1.0).to(r.dtype)
            c, s = c * side, s * side
        return weight, reach, r, argument, c, s

    def back(self, vec, kind, of_sphere, of_weight):
        """Gradient [3, P, K] with respect to vec from those with respect to what ``on_sphere`` writes."""
        (of_c, of_b_re), (of_a_im, of_b_im) = of_sphere
        weight, reach, r, argument, c, s = self._radial(vec, kind)
        x, y, z = vec
        of_s = of_a_im * z - of_b_re * y + of_b_im * x
        kappa = self.rfac0 * torch.pi / reach
        # dc/dr = -kappa s r, ds/dr = (kappa c - s)/r
        slope = (kappa * c - s) / (r * r)
        if not self.rmin0:  # cancels near r = 0
            t = (kappa * r) ** 2
            series = kappa**3 * (-1 / 3 + t * (1 / 30 + t * (-1 / 840 + t / 45360)))
            slope = torch.where(t < 0.01, series, slope)
        radial = of_s * slope - of_c * (kappa * s)
        if self.switch:
            fade = weight / reach * torch.sin(argument.clamp(min=0).mul_(torch.pi)) / r
            radial -= of_weight * (argument < 1) * (fade * (torch.pi / 2))
        return torch.stack([radial * x + s * of_b_im, radial * y - s * of_b_re, radial * z + s * of_a_im])


class _Components(torch.autograd.Function):
    """B [P, F] of vectors [3, P, K]; nothing is kept for the way back but the vectors.

    known : Tensor [P, F] or None, B that was evaluated before: then only the way back is left to do
    """

    @staticmethod
    def forward(ctx, vec, kind, shells, twojmax, known):
        ctx.save_for_backward(vec, kind)
        ctx.shells, ctx.twojmax = shells, twojmax
        if known is not None:
            return known.clone()
        out = vec.new_empty(vec.shape[1], len(kernel(twojmax, vec.dtype, vec.device).place))
        for start, used, run in _evaluate(vec, kind, shells, twojmax):
            out[start : start + used] = run.components[:used]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        vec, kind = ctx.saved_tensors
        out = torch.empty_like(vec)
        for start, used, run in _evaluate(vec, kind, ctx.shells, ctx.twojmax, gradient):
            part = slice(start, start + used)
            out[:, part] = ctx.shells.back(vec[:, part], kind[part], run.of_sphere[:, :, :used], run.of_weight[:used])
        return out, None, None, None, None


def _evaluate(vec, kind, shells, twojmax, gradient=None):
    """Iterator of (first centre, number of centres, Program that was run for them) over blocks of [3, P, K]."""
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


@dataclass(frozen=True)
class GridChunk:
    """Some points of a grid and the atoms near them; bricks of neighbouring points share a list of neighbours.

    indices : Tensor [P], in the flattened grid (C order)
    fractional : Tensor [P, 3], coordinates in cell vectors
    brick : Tensor [P], the brick of every point
    neighbor : Tensor [b, K], index of the atom; the number of atoms in empty slots
    shift : Tensor [b, K, 3], whole numbers; the neighbour sits at r_neighbor + shift @ cell
    """

    indices: torch.Tensor
    fractional: torch.Tensor
    brick: torch.Tensor
    neighbor: torch.Tensor
    shift: torch.Tensor


class Bispectrum(Descriptor):
    """SNAP bispectrum components of atoms, of points in space, or of a grid.

    species : sequence of chemical symbols
    twojmax : 2 J, the largest order
    cutoff : float, Å, of all species for which ``cutoffs`` has none
    weights, cutoffs : dict by symbol or one number per species; a weight that is not given is 1
    rfac0, rmin0 : constants of the map to the sphere (Å)
    switch : True for neighbours that fade out at the cutoff
    bzero : True subtracts what a centre without neighbours has
    n_radial : radial sums per species that follow the components, see radial_sums

    Features are [C, F] in LAMMPS' order: j1 = 0..2J, j2 = 0..j1, j = j1 - j2, j1 - j2 + 2, .. <= min(2J, j1 + j2),
    those with j >= j1; 91 for 2J = 10.  Centres that are points in space have the species 0.  All is as in LAMMPS, but
    an atom on a centre contributes its limit for r -> 0, while LAMMPS leaves it out: only so are features and forces
    continuous.  (With rmin0 > 0 there is no limit: what is returned is finite but means nothing.)

    For a grid, chunk by chunk, differentiable in ``system.positions`` and ``system.cell``::

        for chunk in descriptor.grid_chunks(system, shape):
            features = descriptor.of_chunk(system, chunk)       # [P, F] of the points chunk.indices

    Source: Thompson et al. 2015, Eqs. (4)-(15).
    """

    def __init__(
        self,
        species,
        twojmax=10,
        cutoff=4.67637,
        weights=None,
        cutoffs=None,
        rfac0=0.99363,
        rmin0=0.0,
        switch=True,
        bzero=False,
        n_radial=0,
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
        order = wigner.triples(self.twojmax)[:, 2]
        self.n_sums = self.n_radial * len(self.species)
        self.n_features = len(order) + self.n_sums
        offset = torch.tensor(order + 1.0 if bzero else 0.0 * order)
        self.register_buffer("offset", offset.to(torch.get_default_dtype()))
        table = torch.full((120,), 0)
        table[[atomic_numbers[symbol] for symbol in self.species]] = torch.arange(len(self.species))
        self.register_buffer("species_of_number", table, persistent=False)

    def arguments(self):
        shells = self.shells
        return dict(
            species=list(self.species),
            twojmax=self.twojmax,
            cutoff=self.cutoff,
            weights=list(shells.weights),
            cutoffs=list(shells.cutoffs),
            rfac0=shells.rfac0,
            rmin0=shells.rmin0,
            switch=shells.switch,
            bzero=self.bzero,
            n_radial=self.n_radial,
        )

    def forward(self, system, edges):
        kinds = self.species_of_number[system.numbers]
        place, width = _slots(edges.center, edges.n_centers)
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

    def grid_chunks(self, system, shape):
        """Iterator of GridChunk over all points (i/G1, k/G2, l/G3) of a grid of ``shape`` = (G1, G2, G3).

        Raises InputError unless the cell is periodic in three directions.
        """
        shape = check_grid(system, shape)
        bricks = _bricks(system.cell[0].detach().double().cpu().numpy(), shape)
        while batch := list(islice(bricks, BRICKS_AT_ONCE)):
            yield from self._chunks_of(system, shape, batch)

    def _chunks_of(self, system, shape, bricks):
        cell, device = system.cell[0].detach().double().cpu().numpy(), system.positions.device
        sizes = np.array([len(brick) for brick in bricks])
        ends, brick, indices = sizes.cumsum(), np.repeat(np.arange(len(bricks)), sizes), np.concatenate(bricks)
        points = np.stack(np.unravel_index(indices, shape), axis=1) / shape
        middles = np.add.reduceat(points, ends - sizes) / sizes[:, None]
        radius = np.linalg.norm((points - middles[brick]) @ cell, axis=1).max()
        # 1e-4 Å: float32 puts points and atoms a little elsewhere
        center, neighbor, shift = find_center_pairs(
            system, torch.as_tensor(middles @ cell, device=device), self.cutoff + radius + 1e-4
        )
        place, width = _slots(center, len(bricks))
        table = place.new_full((len(bricks) * width,), len(system.positions)).scatter(0, place, neighbor)
        offset = shift.new_zeros(len(bricks) * width, 3).index_copy(0, place, shift).to(system.cell.dtype)
        table, offset = table.reshape(-1, width), offset.reshape(-1, width, 3)
        indices, brick = (torch.as_tensor(array, device=device) for array in (indices, brick))
        points = torch.as_tensor(points, device=device).to(system.cell.dtype)
        low = 0
        while low < len(bricks):
            start = ends[low] - sizes[low]
            high = max(low + 1, int(np.searchsorted(ends, start + CHUNK, side="right")))
            part = slice(start, ends[high - 1])
            yield GridChunk(indices[part], points[part], brick[part] - low, table[low:high], offset[low:high])
            low = high

    def of_chunk(self, system, chunk, dtype=None, known=None):
        """Features [P, F] of the points of a GridChunk, differentiable in ``system.positions`` and ``system.cell``.

        dtype : precision from the vectors to neighbours on; default that of the system
        known : Tensor [P, F] of that precision, these features from an earlier call: for the derivatives alone
        """
        cell = system.cell[0]
        positions = torch.cat([system.positions, system.positions.new_full((1, 3), FAR)])
        atoms = positions[chunk.neighbor] + chunk.shift @ cell  # [b, K, 3]
        vec = atoms.permute(2, 0, 1).index_select(1, chunk.brick) - (chunk.fractional @ cell).T[:, :, None]
        kinds = torch.cat([self.species_of_number[system.numbers], chunk.neighbor.new_zeros(1)])
        return self._features(vec.to(dtype or vec.dtype), kinds[chunk.neighbor].index_select(0, chunk.brick), known)


def radial_sums(vec, kind, cutoffs, n_radial):
    """Tensor [P, n_species K], for every species the sums over its neighbours of K spherical functions of them.

    phi_k = sin(k pi x)/(k pi x) (1 - x^2)^3 for k = 0..K-1, with x = r/R: linear combinations are superpositions of
    one function per atom, as densities of neutral atoms are.

    vec : Tensor [3, P, N], Å; kind : Tensor [P, N], species of the neighbours; cutoffs : R of every species, Å

    Source: none; spherical Bessel functions of order 0, which vanish at R, with a smooth end.
    """
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


def _slots(center, n_centers):
    """Places in a table [C, K], flattened, for pairs that are sorted by centre, and its width K, a multiple of 4."""
    count = torch.bincount(center, minlength=n_centers)
    width = 4 * max(1, -(-int(count.max()) // 4)) if n_centers else 4
    first = count.cumsum(0) - count
    return center * width + torch.arange(len(center), device=center.device) - first[center], width


def check_grid(system, shape):
    """The shape as a tuple of three int.

    Raises InputError for several structures, a shape that is none, or a cell that is not periodic in all directions.
    """
    if system.n_systems != 1:
        raise InputError(f"got {system.n_systems} structures, need one; make a grid for each")
    if not bool(system.pbc.all()):
        raise InputError(
            f"got pbc {system.pbc[0].tolist()}, need three periodic directions for a grid; set "
            "atoms.pbc = True and a cell with three vectors"
        )
    shape = tuple(int(n) for n in shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"got grid {shape}, need three positive numbers of points")
    return shape


def _bricks(cell, shape):
    """Iterator over bricks of neighbouring points that together are the grid: their flattened indices."""
    spacing = np.linalg.norm(cell, axis=1) / shape
    pieces = [np.array_split(np.arange(n), min(n, max(1, round(n * h / BRICK_EDGE)))) for n, h in zip(shape, spacing)]
    for i, k, m in product(*pieces):
        yield ((i[:, None, None] * shape[1] + k[:, None]) * shape[2] + m).ravel()


def grid_bispectrum(
    atoms,
    shape,
    *,
    twojmax=10,
    cutoff=4.67637,
    weights=None,
    cutoffs=None,
    rfac0=0.99363,
    rmin0=0.0,
    switch=True,
    bzero=False,
):
    """Bispectrum components on the points (i/G1, k/G2, l/G3) of a grid, as LAMMPS' ``compute sna/grid``.

    atoms : ase.Atoms, periodic in three directions
    shape : (G1, G2, G3)
    weights, cutoffs : dict by chemical symbol; without them weight 1 and ``cutoff`` (Å)
    other parameters : see Bispectrum, which also says what happens to an atom on a grid point

    Returns array [G1, G2, G3, F], float64.  Raises InputError for a structure that is not periodic.

    Source: Ellis et al. 2021, Sec. II C.
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
