"""Periodic functions on the grid points of a cell, and their Fourier components.

Point (i, j, k) of a grid of shape [G1, G2, G3] lies at i/G1 a_1 + j/G2 a_2 + k/G3 a_3, as in the files of plane-wave
codes.  A real function is kept as the half spectrum of torch.fft.rfftn, [G1, G2, G3//2 + 1].

On an axis with an even number of points the Nyquist frequency has no sign.  It counts as in the trigonometric
interpolation of the grid values: odd powers of it vanish, even powers remain.  A gradient therefore has no Nyquist
component, and the Laplacian has the diagonal one only, which keeps every result real and free of a preferred direction
in skewed cells.  A density that is cut off at a sphere, as that of a plane-wave code, has no such components.
"""
import math

import torch
from torch.utils.checkpoint import checkpoint

from ase_mlelec.physics.arrays import check_finite

_CHUNK = 2**22      # complex numbers in flight in a structure factor: 64 MiB


def check_cell(cell):
    """Raise ValueError unless cell is [3, 3], finite and of a volume."""
    if cell.shape != (3, 3):
        raise ValueError(f"cell: got shape {list(cell.shape)}, need [3, 3]; pass the three vectors as rows, in Å")
    check_finite(cell=cell)
    sizes = cell.norm(dim=1).prod().item()
    if not abs(torch.linalg.det(cell).item()) > 1e-10 * sizes:
        raise ValueError(f"cell: got vectors {cell.tolist()} of no volume, need three independent ones; give every "
                         "direction a period, with vacuum where the structure has none")


def check_grid_values(name, values):
    """Raise ValueError unless values is finite and [G1, G2, G3] without an empty axis."""
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{name}: got shape {list(values.shape)}, need [G1, G2, G3]; pass one value per grid point")
    check_finite(**{name: values})


def volume(cell):
    """Volume of a cell [3, 3], Å^3, of either handedness."""
    return torch.linalg.det(cell).abs()


def reciprocal_cell(cell):
    """Vectors b_i as rows, a_i·b_j = 2π δ_ij; [3, 3], 1/Å."""
    return 2 * math.pi * torch.linalg.inv(cell).T


def _frequencies(shape, like):
    """Integer frequencies of the half spectrum along each axis, three tensors that broadcast to it."""
    for axis, n in enumerate(shape):
        frequencies = torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq
        shape_to_broadcast = [-1 if i == axis else 1 for i in range(3)]
        yield frequencies(n, 1 / n, dtype=like.dtype, device=like.device).view(shape_to_broadcast)


def _odd_frequencies(shape, like):
    """As _frequencies, with 0 in place of a Nyquist frequency."""
    return [torch.where(2 * k.abs() == n, 0.0, k) for k, n in zip(_frequencies(shape, like), shape)]


def squared_wave_vectors(shape, cell):
    """Symbol of minus the Laplacian, |G|², on the half spectrum: Tensor [G1, G2, G3//2 + 1], 1/Å^2."""
    metric = reciprocal_cell(cell) @ reciprocal_cell(cell).T
    even, odd = list(_frequencies(shape, cell)), _odd_frequencies(shape, cell)
    squares = sum(even[i]**2 * metric[i, i] for i in range(3))
    return squares + 2 * sum(odd[i] * odd[j] * metric[i, j] for i, j in ((0, 1), (0, 2), (1, 2)))


def gradient(values, cell):
    """Gradient of a function on the grid by Fourier transform.

    values : Tensor [G1, G2, G3]
    cell : Tensor [3, 3], Å

    Returns Tensor [3, G1, G2, G3], the unit of values per Å.
    """
    spectrum = torch.fft.rfftn(values)
    along = torch.stack([torch.fft.irfftn(1j * k * spectrum, s=values.shape)
                         for k in _odd_frequencies(values.shape, values)])
    return torch.tensordot(reciprocal_cell(cell).T, along, dims=1)


def structure_factor(scaled, weights, frequencies):
    """S(k) = Σ_n w_n exp(-2πi k·s_n) on a box of integer frequencies, as products of matrices.

    scaled : Tensor [N, 3], positions in units of the cell vectors
    weights : Tensor [N]
    frequencies : three Tensors [K1], [K2], [K3] of integers

    Returns Tensor [K1, K2, K3], complex.
    """
    size = max(1, _CHUNK // (len(frequencies[0]) * len(frequencies[1])))
    if len(scaled) <= size:
        return _structure_factor(scaled, weights, *frequencies)
    # recomputed in the backward pass, where keeping the phases of all atoms would be most of the memory
    return sum(checkpoint(_structure_factor, s, w, *frequencies, use_reentrant=False, preserve_rng_state=False)
               for s, w in zip(scaled.split(size), weights.split(size)))


def _structure_factor(scaled, weights, *frequencies):
    first, second, third = (torch.polar(torch.ones_like(phase), phase) for phase in (
        -2 * math.pi * scaled[:, axis, None] * frequencies[axis] for axis in range(3)))
    plane = (weights[:, None] * first)[:, :, None] * second[:, None, :]
    return torch.tensordot(plane, third, dims=([0], [0]))
