"""Which layer every atom is in, and a frame of every layer.

Frame of a layer: its normal n, along the side of the third cell vector, and an in-plane direction e1 by which a turn of
the layer is seen.  With an M-fold axis along n, e1 is where the bonds point,

    M φ = arg Σ_ij w(r_ij) ((x_ij + i y_ij)/r_ij)^M        over bonds i -> j within the layer,

smooth, independent of the order of atoms, and turning with the layer exactly.  φ is known up to 2π/M: whatever is built
on it must not depend on which of the M frames is taken.  Where M is odd, bonds lead from the heavier to the lighter
species, so that a layer turned by 180 degrees, as the second one of 2H stacking, has a frame turned by 180 degrees;
layers of one species have an even M.

References
----------
Zhang et al. 2018, Phys. Rev. Lett. 120, 143001, for local frames.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.data import covalent_radii
from torch import Tensor

from ase_mlelec.descriptors.radial import switch
from ase_mlelec.edges import Edges, check_density
from ase_mlelec.structures.layers import layers
from ase_mlelec.system import System

BOND = 1.2  # bonds end at this times the sum of the covalent radii, as in ase_mlelec.structures.layers
ORDERED = 0.1  # share of bonds that must point alike for a layer to have a direction


class LayerFrames(NamedTuple):
    """Which layer every atom is in, and how the layers lie.

    Attributes
    ----------
    layer : Tensor [N]
        0 for the lowest.
    image : Tensor [N]
        Integer number of third cell vectors by which an atom is above the home image of its layer.
    axes : Tensor [3, 3]
        Common to all layers: rows x along the first cell vector's direction in the plane, y, n.
    angle : Tensor [L]
        φ of every layer, from x.
    """

    layer: Tensor
    image: Tensor
    axes: Tensor
    angle: Tensor

    def triads(self) -> Tensor:
        """Rows e1, e2, n of the frame of every atom, [N, 3, 3]."""
        cosine, sine = (self.angle.cos()[self.layer, None], self.angle.sin()[self.layer, None])
        x, y, n = self.axes
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x, n.expand(len(self.layer), 3)], dim=1)

    def of_pairs(self, edges: Edges) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pair vectors as (r [E] Å, t = z/r [E], u = (x + iy)/r [E] in the frame of the center's layer, exp(iΔφ) [E]
        with Δφ = φ of the center - φ of the neighbor, within [E]: whether both are in the same layer)."""
        x, y, z = self.axes.to(edges.vec) @ edges.vec.T
        r = (x * x + y * y + z * z).sqrt()
        first, second = (self.layer.index_select(0, index) for index in (edges.center, edges.neighbor))
        turns = torch.polar(torch.ones_like(self.angle), -self.angle).to(torch.complex(x, y))
        u = torch.complex(x / r, y / r) * turns[first]
        step = edges.shift[:, 2] + self.image.index_select(0, edges.neighbor) - self.image.index_select(0, edges.center)
        return r, z / r, u, turns[first].conj() * turns[second], (first == second) & (step == 0)


def layer_frames(
    system: System, symmetry: int, areas: Mapping[str, float] | None = None, edges: Edges | None = None
) -> LayerFrames:
    """Find the layers of one structure and their frames.

    Parameters
    ----------
    symmetry : int
        M of the M-fold axis along the normal.
    areas : dict of float, optional
        Å^2 per atom by formula, of layers that may be alone; none by default.
    edges : Edges, optional
        All pairs at least as far as bonds reach; they are found where they are not given.

    Returns
    -------
    LayerFrames
        Axes are differentiable functions of the cell, angles of ``edges.vec``.

    Raises
    ------
    InputError
        Where there is no cell, the layers cannot be told apart, or a layer has no M-fold direction.
    """
    axes = _axes(system)
    layer, image = _layers(system, areas)
    if edges is None:
        edges = Edges.build(system, longest_bond(system.numbers))
    bonds = _bonds(system, edges, layer, symmetry)
    x, y, _ = axes @ bonds.vec.T
    radii = torch.as_tensor(covalent_radii)[system.numbers.cpu()].to(bonds.vec)
    r = bonds.distances
    reach = BOND * (radii[bonds.center] + radii[bonds.neighbor])
    share = torch.complex(x / r, y / r) ** symmetry * switch(r / reach, 0.8, 1.0)
    n_layers = int(layer.max()) + 1
    total = torch.zeros(n_layers, dtype=share.dtype).index_add(0, layer[bonds.center], share)
    size = torch.zeros(n_layers, dtype=r.dtype).index_add(0, layer[bonds.center], share.abs())
    weak = total.abs() <= ORDERED * size
    if bool(weak.any()):
        raise InputError(
            f"layer {int(weak.nonzero()[0])} has no {symmetry}-fold direction of its bonds, which the frame "
            "of its functions needs; use a model of crystals with this symmetry"
        )
    device = system.positions.device
    return LayerFrames(*(array.to(device) for array in (layer, image, axes, total.angle() / symmetry)))


def find_symmetry(systems: Iterable[System], areas: Mapping[str, float] | None = None) -> int:
    """The M of the M-fold axes of all layers, 3, 4, 6 or 2: the first by which their bonds point alike.

    areas : as for layer_frames

    Raises
    ------
    InputError
        Where none does.
    """
    for symmetry in (3, 4, 6, 2):
        try:
            for system in systems:
                layer_frames(system, symmetry, areas)
        except InputError as error:
            if "fold direction" not in str(error):
                raise
        else:
            return symmetry
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
    """(layer [N], image [N]); see LayerFrames."""
    cell = system.cell[0].detach().double().cpu().numpy()
    atoms = Atoms(
        system.numbers.cpu().numpy(),
        system.positions.detach().double().cpu().numpy(),
        cell=cell,
        pbc=system.pbc[0].cpu().numpy(),
    )
    reach = longest_bond(system.numbers)
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


def longest_bond(numbers: Tensor) -> float:
    """Å, how far the bonds of atoms reach that have these atomic numbers."""
    return 2 * BOND * float(covalent_radii[numbers.cpu().numpy()].max())


def _bonds(system, edges, layer, symmetry):
    """Edges (float64, on the CPU) of the bonds that point the way: within layers, from heavier to lighter species where
    the symmetry is odd."""
    numbers = system.numbers.cpu()
    radii = torch.as_tensor(covalent_radii)[numbers]
    center, neighbor = edges.center.cpu(), edges.neighbor.cpu()
    keep = edges.distances.cpu() < BOND * (radii[center] + radii[neighbor])
    keep &= layer[center] == layer[neighbor]
    if symmetry % 2:
        keep &= numbers[center] > numbers[neighbor]
    rows = keep.nonzero()[:, 0]
    vec = edges.vec.cpu()[rows].double()
    return Edges(center[rows], neighbor[rows], edges.shift.cpu()[rows], vec, edges.atoms.cpu())
