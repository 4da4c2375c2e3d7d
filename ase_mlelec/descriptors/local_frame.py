"""Environments in the frame of an atom's own layer, for layered crystals.

Frame of a layer: its normal n, along the side of the third cell vector, and an in-plane direction e1 by which a turn of
the layer is seen.  With M-fold symmetry around n, e1 is where the bonds point,

    M φ = arg Σ_ij w(r_ij) ((x_ij + i y_ij)/r_ij)^M        over bonds i -> j within the layer,

smooth, independent of the order of atoms, and turning with the layer exactly.  φ is known up to 2π/M: whatever is built
on it must not depend on which of the M frames is taken.  Where M is odd, bonds lead from the heavier to the lighter
species, so that a layer turned by 180 degrees, as the second one of 2H stacking, has a frame turned by 180 degrees;
layers of one species have an even M.

Environment: moments over the neighbours j in that frame, with complex u = (x + i y)/r and t = z/r,

    A_q = Σ_j T_n(r_j) w(r_j) t^p u^q                       by species of j, in the same or another layer,

are permutation-symmetric and turn by exp(-i q β) with the frame.  Features are what does not turn under 2π/M.

Sources: Zhang et al. 2018, Phys. Rev. Lett. 120, 143001 (local frames, rows (1/R, x/R²...)); Qi et al. 2024, section
II B.
"""

from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.data import covalent_radii

from ase_mlelec.descriptors.base import Environment, species_table
from ase_mlelec.descriptors.deep_pot import switch
from ase_mlelec.edges import Edges, check_density
from ase_mlelec.structures.layers import layers

BOND = 1.2  # bonds end at this times the sum of the covalent radii, as in ase_mlelec.bilayers
ORDERED = 0.1  # share of bonds that must point alike for a layer to have a direction
HIGHEST = 4  # winding number of the moments that on-site blocks of d functions need


class LayerFrames(NamedTuple):
    """Which layer every atom is in, and how the layers lie.

    layer : Tensor [N], 0 for the lowest
    level : Tensor [N], integer number of third cell vectors by which an atom is above the home image of its layer
    axes : Tensor [3, 3], common to all layers: rows x along the first cell vector's direction in the plane, y, n
    angle : Tensor [L], φ of every layer, from x
    """

    layer: torch.Tensor
    level: torch.Tensor
    axes: torch.Tensor
    angle: torch.Tensor

    def of_pairs(self, edges):
        """Pair vectors as (r [E] Å, t = z/r [E], u = (x + iy)/r [E] in the frame of the centre's layer, exp(iΔφ) [E]
        with Δφ = φ of the centre - φ of the neighbour, within [E]: whether both are in the same layer)."""
        x, y, z = self.axes.to(edges.vec) @ edges.vec.T
        r = (x * x + y * y + z * z).sqrt()
        first, second = (self.layer.index_select(0, index) for index in (edges.center, edges.neighbor))
        turns = torch.polar(torch.ones_like(self.angle), -self.angle).to(torch.complex(x, y))
        u = torch.complex(x / r, y / r) * turns[first]
        step = edges.shift[:, 2] + self.level.index_select(0, edges.neighbor) - self.level.index_select(0, edges.center)
        return r, z / r, u, turns[first].conj() * turns[second], (first == second) & (step == 0)


def layer_frames(system, fold, areas=None):
    """LayerFrames of one structure; axes and angles are differentiable functions of its cell and positions.

    fold : int, M
    areas : dict of float, Å^2 per atom by formula, of layers that may be alone; none by default

    Raises InputError where there is no cell, the layers cannot be told apart, or a layer has no M-fold direction.
    """
    axes = _axes(system)
    layer, level = _layers(system, areas)
    bonds = _bonds(system, layer, fold)
    x, y, _ = axes @ bonds.vec.T
    radii = torch.as_tensor(covalent_radii)[system.numbers.cpu()].to(bonds.vec)
    r = bonds.distances
    reach = BOND * (radii[bonds.center] + radii[bonds.neighbor])
    share = torch.complex(x / r, y / r) ** fold * switch(r / reach, 0.8, 1.0)
    n_layers = int(layer.max()) + 1
    total = torch.zeros(n_layers, dtype=share.dtype).index_add(0, layer[bonds.center], share)
    size = torch.zeros(n_layers, dtype=r.dtype).index_add(0, layer[bonds.center], share.abs())
    weak = total.abs() <= ORDERED * size
    if bool(weak.any()):
        raise InputError(
            f"layer {int(weak.nonzero()[0])} has no {fold}-fold direction of its bonds, which the frame "
            "of its functions needs; use a model of crystals with this symmetry"
        )
    device = system.positions.device
    return LayerFrames(*(array.to(device) for array in (layer, level, axes, total.angle() / fold)))


def find_fold(systems, areas=None):
    """The symmetry M of all layers, 3, 4, 6 or 2: the first by which their bonds point alike.

    areas : as for layer_frames

    Raises InputError where none does.
    """
    for fold in (3, 4, 6, 2):
        try:
            for system in systems:
                layer_frames(system, fold, areas)
        except InputError as error:
            if "fold direction" not in str(error):
                raise
        else:
            return fold
    raise InputError(
        "bonds of the layers point in no direction that 2-, 3-, 4- or 6-fold symmetry keeps; give crystalline layers"
    )


def _axes(system):
    """Rows x, y, n; x is the part of the first cell vector in the plane, y perpendicular to it."""
    cell = system.cell[0].double().cpu()
    volume = float(torch.linalg.det(cell.detach()).abs())
    if system.n_systems != 1 or not bool(system.pbc[0, :2].all()) or volume < 1e-6:
        raise InputError(
            f"got {system.n_systems} structure(s) with pbc {system.pbc[0].tolist()} and a cell of "
            f"{volume:.3g} Å^3, need layers that repeat along the first two "
            "of three cell vectors; set cell and pbc"
        )
    n = torch.linalg.cross(cell[0], cell[1])
    n = n / n.norm() * torch.sign(n @ cell[2])
    x = cell[0] / cell[0].norm()
    return torch.stack([x, torch.linalg.cross(n, x), n])


def _layers(system, areas):
    """(layer [N], level [N]); see LayerFrames."""
    cell = system.cell[0].detach().double().cpu().numpy()
    atoms = Atoms(
        system.numbers.cpu().numpy(),
        system.positions.detach().double().cpu().numpy(),
        cell=cell,
        pbc=system.pbc[0].cpu().numpy(),
    )
    reach = 2 * BOND * covalent_radii[atoms.numbers].max()
    check_density(atoms.positions, cell, atoms.pbc, reach, len(atoms))  # before all bonds are listed
    try:
        layer = layers(atoms, areas=areas)
    except ValueError as error:
        raise InputError(str(error)) from None
    height = atoms.cell.scaled_positions(atoms.positions)[:, 2]
    if not atoms.pbc[2]:
        return torch.from_numpy(layer), torch.zeros(len(atoms), dtype=torch.long)
    order = np.sort(height % 1)
    gaps = np.diff(np.append(order, order[0] + 1))
    lowest = order[(np.argmax(gaps) + 1) % len(order)]
    # heights are counted from the middle of the widest gap: rounding puts no atom on the other side
    return torch.from_numpy(layer), torch.from_numpy(np.floor(height - lowest + gaps.max() / 2).astype(np.int64))


def _bonds(system, layer, fold):
    """Edges of the bonds that point the way: within layers, from heavier to lighter species where fold is odd."""
    numbers = system.numbers.cpu()
    radii = torch.as_tensor(covalent_radii)[numbers]
    plain = type(system)(
        system.positions.double().cpu(), numbers, system.cell.double().cpu(), system.pbc.cpu(), system.batch.cpu()
    )
    edges = Edges.build(plain, 2 * BOND * float(radii.max()))
    reach = BOND * (radii[edges.center] + radii[edges.neighbor])
    keep = (edges.distances < reach) & (layer[edges.center] == layer[edges.neighbor])
    if fold % 2:
        keep &= numbers[edges.center] > numbers[edges.neighbor]
    rows = keep.nonzero()[:, 0]
    return Edges(edges.center[rows], edges.neighbor[rows], edges.shift[rows], edges.vec[rows], edges.atoms)


class LocalFrame(torch.nn.Module):
    """Environments in layer frames: moments, and features made of them.

    It is no Descriptor: an atom without a layer has no frame, and the directions of the layers follow from positions and
    cell, not from ``edges.vec`` alone.  Its derivatives are exact where edges and system depend on the same positions.

    species : sequence of chemical symbols
    cutoff : float, Å, beyond the next layer; moments fade from ``smooth`` (default 1 Å before) on
    fold : int, M, the symmetry around the normal that all layers share
    n_radial : int, Chebyshev polynomials of the distance

    Features [C, F] keep their values when atoms are renamed, the structure is turned, or another of the M equivalent
    frames of a layer is taken; ``parity`` tells their signs under reflections.
    """

    def __init__(self, species, cutoff=6.0, fold=3, n_radial=6, smooth=None):
        super().__init__()
        self.species, self.cutoff, self.fold, self.n_radial = tuple(species), float(cutoff), int(fold), int(n_radial)
        self.smooth = float(cutoff - 1.0 if smooth is None else smooth)
        if not (0 <= self.smooth < self.cutoff and fold >= 1 and n_radial >= 1):
            raise ValueError(
                f"got cutoff {cutoff}, smooth {smooth}, fold {fold}, n_radial {n_radial}; need 0 <= "
                "smooth < cutoff and positive integers"
            )
        low = tuple(q for q in range(1, min(HIGHEST, self.fold - 1) + 1))
        self.windings = (*low, self.fold)
        # (p, q) of the moments
        self.kinds = ((0, 0), (1, 0), (2, 0), *tuple((p, q) for q in self.windings for p in (0, 1)))
        self.n_channels = 2 * len(self.species) * self.n_radial
        self.n_features = self.n_channels * (3 + 4 + len(low))
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)

    def arguments(self):
        return dict(
            species=list(self.species), cutoff=self.cutoff, fold=self.fold, n_radial=self.n_radial, smooth=self.smooth
        )

    def forward(self, system, edges):
        """Environment of the atoms of one structure, with ``frame`` [C, 3, 3]: rows e1, e2, n of their layers.

        Raises InputError as ``layer_frames`` does.
        """
        frames = layer_frames(system, self.fold)
        moments, species = self.moments(system, edges, frames)
        cosine, sine = (frames.angle.cos()[frames.layer, None], frames.angle.sin()[frames.layer, None])
        x, y, n = frames.axes
        triad = torch.stack([cosine * x + sine * y, cosine * y - sine * x, n.expand(len(frames.layer), 3)], dim=1)
        return Environment(self.features(moments), species, triad.to(moments.real.dtype)[edges.atoms])

    def moments(self, system, edges, frames):
        """(A [C, kinds, channels], complex, in the order of ``kinds``; species [C])"""
        edges = edges.closer_than(self.cutoff)
        r, t, u, _, within = frames.of_pairs(edges)
        species = self.species_of_number[system.numbers]
        radial = chebyshev(2 * r / self.cutoff - 1, self.n_radial) * switch(r, self.smooth, self.cutoff)[:, None]
        group = edges.center * 2 * len(self.species) + 2 * species[edges.neighbor] + within.long()
        found = []
        for p, q in self.kinds:
            value = (t**p * u**q)[:, None] * radial
            total = value.new_zeros(edges.n_centers * 2 * len(self.species), self.n_radial)
            found.append(total.index_add(0, group, value).reshape(edges.n_centers, -1))
        return torch.stack(found, dim=1), species[edges.atoms]

    def features(self, moments):
        """Features [C, F] from moments: of q = 0 and q = M themselves, of other q the squared moduli."""
        first = len(self.kinds) - 2
        straight = [moments[:, k].real for k in range(3)]
        turned = [part for k in (first, first + 1) for part in (moments[:, k].real, moments[:, k].imag)]
        squares = [moments[:, k].abs() ** 2 for k in range(3, first, 2)]
        return torch.cat(straight + turned + squares, dim=1)

    def sizes(self, features):
        """Tensor [C, 3 channels]: sizes of those features that do not turn with any layer, by which environments are
        compared whatever the twist of their layers."""
        return features[:, : 3 * self.n_channels].abs()

    @property
    def parity(self):
        """Tensor [2, F]: signs of the features under reflection of n, and of the in-plane direction across e1."""
        up, across = [1, -1, 1, 1, 1, -1, -1], [1, 1, 1, 1, -1, 1, -1]
        rest = [1] * (self.n_features // self.n_channels - 7)
        return torch.tensor([up + rest, across + rest], dtype=torch.get_default_dtype()).repeat_interleave(
            self.n_channels, dim=1
        )


def chebyshev(x, n):
    """T_0 ... T_{n-1} of x [E] -> [E, n]."""
    values = [torch.ones_like(x), x]
    for _ in range(n - 2):
        values.append(2 * x * values[-1] - values[-2])
    return torch.stack(values[:n], dim=1)
