"""Search for the pairs of atoms, and of points and atoms, within a cutoff (by vesin, or by a tree)."""

import numpy as np
import torch
import vesin
from ase.calculators.calculator import InputError
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ase_mlelec.system import System

MOST_NEIGHBORS = 4000  # of an atom on average; silicon at eight times its density has 360 within 6 Å
MOST_BOXES = 100_000  # of vesin's
MOST_PAIRS = 400_000_000  # in all, about 40 GB
MOST_IMAGES = 1_000_000  # of a cell that reach into the cutoff


def find_pairs(system: System, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(center, neighbor, shift) of all pairs within ``cutoff`` Å, as tensors on the system's device."""
    offset, parts = 0, []
    positions = system.positions.detach().cpu().double().numpy()
    for k, (count, cell, pbc) in enumerate(
        zip(system.n_atoms.tolist(), system.cell.detach().cpu().double().numpy(), system.pbc.cpu().numpy())
    ):
        check_density(positions[offset : offset + count], cell, pbc, cutoff, count)
        # nothing repeats along a non-periodic direction: any independent vector does there
        whole = complete_cell(cell * pbc[:, None])
        if has_boxes(positions[offset : offset + count], whole, pbc, cutoff):
            search = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True)
            pairs, shift = search.compute(positions[offset : offset + count], whole, pbc, "PS")
        else:
            pairs, shift = _pairs_by_tree(system, slice(offset, offset + count), k, cutoff)
        parts.append((pairs.astype(np.int64) + offset, shift))
        offset += count
    device = system.positions.device
    pairs, shift = (np.concatenate(arrays) for arrays in zip(*parts))
    numbers = system.numbers.cpu().numpy()
    order = np.argsort(pairs[:, 0] * (numbers.max() + 1) + numbers[pairs[:, 1]], kind="stable")
    pairs, shift = torch.as_tensor(pairs[order], device=device), torch.as_tensor(shift[order], device=device)
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), shift


def has_boxes(positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float) -> bool:
    """Whether vesin can sort the atoms of a cell into boxes.

    For more than MOST_BOXES boxes, vesin enlarges them along all directions alike. A direction of few boxes then has
    none, and the process crashes (vesin 0.6).
    """
    lengths = _heights(cell) * np.where(pbc, 1, np.ptp(positions @ np.linalg.inv(cell), axis=0))
    counts = np.maximum(lengths // cutoff, 1)
    return bool((counts * np.cbrt(min(1, MOST_BOXES / (counts + 1).prod())) >= 1).all())


def _pairs_by_tree(system, atoms, k, cutoff):
    """(pairs [E, 2], shift [E, 3]) of the structure k, which has ``atoms`` (slice)."""
    positions = system.positions[atoms].detach()
    alone = System(
        positions,
        system.numbers[atoms],
        system.cell[k : k + 1],
        system.pbc[k : k + 1],
        torch.zeros_like(system.batch[atoms]),
    )
    center, neighbor, shift = find_center_pairs(alone, positions, cutoff)
    other = ((center != neighbor) | shift.any(dim=1)).cpu()  # an atom is not its own neighbor, its images are
    return torch.stack([center, neighbor], dim=1).cpu()[other].numpy(), shift.cpu()[other].numpy()


def check_density(positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float, n_centers: int) -> None:
    """Raise InputError where the list of pairs would be too long for any real material, before it is made.

    Parameters
    ----------
    positions : array [N, 3], Å
    cell : array [3, 3], Å
    pbc : three bool
    n_centers : int

    Notes
    -----
    The number of neighbors is estimated from the density in the cell, however oblique it is; along directions that are
    not periodic, from the extent of the atoms.
    """
    whole = complete_cell(cell * pbc[:, None])  # with vectors of length 1 where nothing repeats
    lengths = np.where(pbc, _heights(whole), np.ptp(positions, axis=0))
    reach = 2 * cutoff / np.maximum(lengths, 1e-9)
    repeats = (2 * cutoff) ** pbc.sum() / max(abs(np.linalg.det(whole)), 1e-30)
    neighbors = len(positions) * repeats * np.prod(np.where(pbc, 1, np.minimum(reach, 1))) * np.pi / 6
    if neighbors <= MOST_NEIGHBORS and np.prod(np.where(pbc, reach + 1, 1)) > MOST_IMAGES:
        raise InputError(
            f"the faces of the cell are {', '.join(f'{h:.3g}' for h in lengths[pbc])} Å apart, as its vectors are long and "
            f"nearly in one plane, and more than {MOST_IMAGES:g} images of it are within {cutoff:g} Å; give the same "
            "crystal with shorter vectors, as ase.build.niggli_reduce finds them"
        )
    if pbc.any() and neighbors > MOST_NEIGHBORS:
        raise InputError(
            f"every atom would have about {neighbors:.2g} neighbors within {cutoff:g} Å: {len(positions)} "
            f"atoms in a cell whose faces are {', '.join(f'{h:.3g}' for h in lengths[pbc])} Å apart, denser "
            "than any matter; check the cell (other units? a vector that is too short or in the plane of "
            "the others?)"
        )
    if n_centers * neighbors > MOST_PAIRS:
        raise InputError(
            f"about {n_centers * neighbors:.2g} pairs within {cutoff:g} Å, more than fit into memory; "
            "take a smaller structure"
        )


def _heights(cell):
    """Distances [3] between opposite faces of a cell, Å."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def find_center_pairs(system: System, centers: torch.Tensor, cutoff: float) -> tuple[torch.Tensor, ...]:
    """(center, neighbor, shift) of all atoms within ``cutoff`` Å of points [C, 3], by center, then atomic number.

    Raises
    ------
    InputError
        For more than one structure.
    """
    if system.n_systems != 1:
        raise InputError(f"got {system.n_systems} structures with centers; give centers of one structure at a time")
    pbc = system.pbc[0].cpu().numpy()
    cell = complete_cell(system.cell[0].detach().cpu().double().numpy() * pbc[:, None])
    (points, home), (positions, wrap) = (
        _wrapped(array.detach().cpu().double().numpy(), cell, pbc) for array in (centers, system.positions)
    )
    check_density(system.positions.detach().cpu().double().numpy(), cell, pbc, cutoff, len(centers))
    reach = cutoff / _heights(cell)  # in cell vectors
    images = np.indices(2 * np.ceil(reach).astype(int) * pbc + 1).reshape(3, -1).T - np.ceil(reach).astype(int) * pbc
    place = (positions @ np.linalg.inv(cell))[:, None] + images
    atom, image = np.nonzero((((place > -1e-6 - reach) & (place < 1 + 1e-6 + reach)) | ~pbc).all(axis=2))
    if len(points):
        pairs = cKDTree(points).sparse_distance_matrix(
            cKDTree(positions[atom] + images[image] @ cell), cutoff, output_type="ndarray"
        )
    else:
        pairs = {"i": np.zeros(0, int), "j": np.zeros(0, int)}
    center, found = pairs["i"], pairs["j"]
    order = np.lexsort((found, system.numbers.cpu().numpy()[atom[found]], center))
    center, found = center[order], found[order]
    shift = images[image[found]] - wrap[atom[found]] + home[center]
    return tuple(
        torch.as_tensor(array.astype(np.int64), device=system.positions.device)
        for array in (center, atom[found], shift)
    )


def _wrapped(points, cell, pbc):
    """Move points [n, 3] into the cell along the periodic directions; returns them and the numbers of cell vectors."""
    off = np.floor(points @ np.linalg.inv(cell)) * pbc
    return points - off @ cell, off.astype(int)
