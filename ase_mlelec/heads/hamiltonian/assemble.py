"""Assembly of a Hamiltonian matrix from blocks of pairs of atoms."""

from collections.abc import Sequence

import torch

from ase_mlelec.heads.base import Blocks
from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions


def elements(blocks: Blocks, orbitals: Sequence[AtomicFunctions]) -> tuple:
    """Matrix elements of the Hamiltonian of one structure.

    Parameters
    ----------
    orbitals : AtomicFunctions of every species

    Returns
    -------
    tuple
        (r_vectors [R, 3], which [m], row [m], column [m], value [m], owners [W]), NumPy arrays. An element is
        ``value`` (eV) between function ``row`` of the home cell and function ``column`` of the cell at lattice vector
        ``r_vectors[which]``; ``owners`` holds the atom of each function. Functions are sorted by atom; the functions
        of one atom have the order of its AtomicFunctions.
    """
    species = blocks.geometry.species
    sizes = torch.tensor([functions.size for functions in orbitals], device=species.device)[species]
    parts = _in_functions(blocks, orbitals)
    vectors, which = unique_rows(torch.cat([shift for shift, *_ in parts]))
    starts, found, start = sizes.cumsum(0) - sizes, [], 0
    for _shift, first, second, block in parts:
        n, height, width = block.shape
        row = starts[first][:, None, None] + torch.arange(height, device=species.device)[:, None]
        column = starts[second][:, None, None] + torch.arange(width, device=species.device)
        place = which[start : start + n][:, None, None]
        found.append([array.expand(n, height, width).reshape(-1) for array in (place, row, column, block)])
        start += n
    places, rows, columns, values = (torch.cat(arrays).detach().cpu().numpy() for arrays in zip(*found))
    owners = torch.repeat_interleave(torch.arange(len(species), device=species.device), sizes)
    return vectors.cpu().numpy(), places, rows, columns, values.astype(float), owners.cpu().numpy()


def unique_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Different rows [R, 3] of whole numbers [n, 3], sorted, and which of them each row is; n > 0.

    ``torch.unique(rows, dim=0)`` is the same, but calls itself for every comparison of two rows.
    """
    low = rows.amin(dim=0)
    sizes = (rows.amax(dim=0) - low + 1).tolist()
    first, second, third = (rows - low).unbind(dim=1)
    codes, which = torch.unique((first * sizes[1] + second) * sizes[2] + third, return_inverse=True)
    found = [codes // (sizes[1] * sizes[2]), codes // sizes[2] % sizes[1], codes % sizes[2]]
    return torch.stack(found, dim=1) + low, which


def values_in_functions(blocks: Blocks, orbitals: Sequence[AtomicFunctions]) -> torch.Tensor:
    """The values [m] that ``elements`` returns, as a differentiable Tensor."""
    return torch.cat([block.reshape(-1) for *_, block in _in_functions(blocks, orbitals)])


def _in_functions(blocks, orbitals):
    """Transform blocks from the columns of the layer frames to the functions of the data.

    Returns a list of (lattice vectors [n, 3], first atoms [n], second atoms [n], blocks [n, W, W']); every pair is
    there in both directions.
    """
    geometry, parts = blocks.geometry, []
    transforms, number = {}, torch.zeros_like(geometry.species)
    for k, functions in enumerate(orbitals):
        atoms = blocks.atoms(k)
        number[atoms] = torch.arange(len(atoms), device=atoms.device)
        transforms[k] = functions.at_heights(geometry.height[atoms])
    for k, block in blocks.onsite.items():
        atoms = blocks.atoms(k)
        turned = transforms[k] @ block @ transforms[k].mT
        turned = (turned + turned.mT) / 2  # removes rounding errors
        parts.append((torch.zeros(len(atoms), 3, dtype=torch.long, device=atoms.device), atoms, atoms, turned))
    for key, block in blocks.hopping.items():
        first, second, shift = blocks.pairs(key)
        turned = transforms[key[1]][number[first]] @ block @ transforms[key[2]][number[second]].mT
        parts += [(shift, first, second, turned), (-shift, second, first, turned.mT)]
    return parts
