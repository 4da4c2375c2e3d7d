"""Layers of a structure, and a frame of every layer.

The frame of a layer has the normal n, on the side of the third cell vector, and an in-plane direction e1 that turns with
the layer. With an M-fold axis along n, e1 is the mean direction of the bonds,

    M φ = arg Σ_ij w(r_ij) ((x_ij + i y_ij)/r_ij)^M        over bonds i -> j within the layer,

The angle φ is smooth, does not depend on the order of atoms, and turns with the layer exactly. It is known up to 2π/M:
quantities that are built on it must not depend on the choice among the M frames. Where M is odd, bonds lead from the
heavier to the lighter species, so that a layer turned by 180 degrees, such as the second layer of 2H stacking, has a
frame turned by 180 degrees. Layers of one species have an even M.

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

BOND = 1.2  # longest bond in units of the sum of the covalent radii, as in ase_mlelec.structures.layers
ORDERED = 0.1  # smallest share of bonds with equal directions for which a layer has a direction


class LayerFrames(NamedTuple):
    """The layer of every atom, and the orientation of the layers.

    Attributes
    ----------
    layer : Tensor [N]
        Layer of every atom; 0 is the lowest layer.
    image : Tensor [N]
        Integer number of third cell vectors by which an atom is above the home image of its layer.
    axes : Tensor [3, 3]
        Rows x, y, n, common to all layers; x is the in-plane direction of the first cell vector.
    angle : Tensor [L]
        Angle φ from x to the direction e1 of every layer.
    """

    layer: Tensor
    image: Tensor
    axes: Tensor
    angle: Tensor

    def triads(self) -> Tensor:
        """Frames [N, 3, 3] of all atoms, with rows e1, e2, n."""
        cosine, sine = (self.angle.cos()[self.layer, None], self.angle.sin()[self.layer, None])
        x, y, n = self.axes
        return torch.stack([cosine * x + sine * y, cosine * y - sine * x, n.expand(len(self.layer), 3)], dim=1)

    def of_pairs(self, edges: Edges) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pair vectors in the frame of the center's layer.

        Returns
        -------
        tuple of Tensor [E]
            r in Å; t = z/r; u = (x + iy)/r; exp(iΔφ) with Δφ = φ of the center - φ of the neighbor; whether both atoms
            are in the same layer.
        """
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
        Area per atom, Å^2, by formula, of layers that may be alone in a structure; none by default.
    edges : Edges, optional
        All pairs up to the longest bond at least; by default they are searched.

    Returns
    -------
    LayerFrames
        The axes are differentiable functions of the cell, the angles of ``edges.vec``.

    Raises
    ------
    InputError
        For a structure without a cell, layers that cannot be separated, and a layer without an M-fold direction.
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
    """Find the M-fold axis of all layers: the first M of 3, 4, 6 and 2 for which every layer has a direction.

    ``areas`` is as in ``layer_frames``.

    Raises
    ------
    InputError
        For layers without such an axis.
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
    """Axes as rows x, y, n; x is the in-plane direction of the first cell vector."""
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
    """Layer [N] and image [N] of every atom, see LayerFrames."""
    cell = system.cell[0].detach().double().cpu().numpy()
    atoms = Atoms(
        system.numbers.cpu().numpy(),
        system.positions.detach().double().cpu().numpy(),
        cell=cell,
        pbc=system.pbc[0].cpu().numpy(),
    )
    reach = longest_bond(system.numbers)
    check_density(atoms.positions, cell, atoms.pbc, reach, len(atoms))  # a list of all bonds could exceed the memory
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
    # heights start in the middle of the widest gap, where rounding cannot move an atom to the other side
    return torch.from_numpy(layer), torch.from_numpy(np.floor(height - lowest + gaps.max() / 2).astype(np.int64))


def longest_bond(numbers: Tensor) -> float:
    """Length, Å, of the longest possible bond between atoms of these atomic numbers."""
    return 2 * BOND * float(covalent_radii[numbers.cpu().numpy()].max())


def _bonds(system, edges, layer, symmetry):
    """Edges (float64, on the CPU) of the bonds that define the directions of the layers.

    They are bonds within layers; where the symmetry is odd, bonds from the heavier to the lighter species alone.
    """
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
