"""Structure factors by way of a mesh: charges are spread by splines, and a fast Fourier transform does the rest."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ase_mlelec.physics.arrays import sum_over_chunks

ORDER = 8  # of the splines: points along each axis to which a charge is spread
_FINER = 2.0  # points of the mesh, in units of those that the highest frequency needs
_CHUNK = 2**13  # charges in flight: about 100 MB
# cost on one core, gradient included, in units of one charge times one wave vector in grid.structure_factor (4 ns)
_COST_OF_SPREAD, _COST_OF_POINT = 7.0, 15.0


def cost(n_charges: int, reach: Tensor) -> Tensor:
    """Cost [...] for wave vectors up to the frequencies ``reach`` [..., 3], in the unit above."""
    return _COST_OF_SPREAD * n_charges * ORDER**3 + _COST_OF_POINT * (_FINER * (2 * reach + 1)).prod(-1)


def structure_factor(scaled: Tensor, weights: Tensor, frequencies: Sequence[Tensor]) -> Tensor:
    """As grid.structure_factor, but approximate at high frequencies, in a time that does not grow as N times their number.

    exp(-2πi k s) is interpolated by splines of the order p through the n points of the mesh along each axis. The relative
    error is about (k/(n - k))^p: 2e-4 at the highest frequency, 2e-7 at half of it, and none at the lowest. Where
    Gaussians, which fall to e^-36 at the highest frequency, multiply the factors, 1e-10 remains.

    Parameters
    ----------
    scaled : Tensor [N, 3]
        Positions in units of the cell vectors.
    weights : Tensor [N]
    frequencies : three Tensors [K1], [K2], [K3] of integers
        The third not negative.

    Returns
    -------
    Tensor [K1, K2, K3], complex

    References
    ----------
    Essmann et al., J. Chem. Phys. 103, 8577 (1995).
    """
    shape = [next_fast_len(math.ceil(_FINER * (2 * float(k.abs().max()) + 1))) for k in frequencies]
    mesh = sum_over_chunks(partial(_spread, shape), _chunk(math.prod(shape)), scaled, weights)
    found = torch.fft.rfftn(mesh.reshape(shape))
    for axis, k in enumerate(frequencies):
        at = k.long() % shape[axis]
        factor = _of_nodes(shape[axis], k)
        found = found.index_select(axis, at) / factor.reshape([-1 if a == axis else 1 for a in range(3)])
    return found


def _chunk(n_points):
    """Charges in flight: for large meshes as many as take half of the memory of the mesh, which each chunk fills anew."""
    return max(_CHUNK, n_points // (4 * ORDER**3))


def _spread(shape, scaled, weights):
    """Mesh [n1 n2 n3] of charges, the function M_p(u - k) of each charge at u at the point k along each axis."""
    places = scaled * torch.tensor(shape, dtype=scaled.dtype, device=scaled.device)
    below = places.detach().floor()
    parts = [_spline((places - below)[:, axis]) for axis in range(3)]
    steps = torch.arange(ORDER, device=scaled.device)
    one, two, three = ((below[:, axis, None].long() - steps) % shape[axis] for axis in range(3))
    plane = (one[:, :, None] * shape[1] + two[:, None]) * shape[2]
    index = plane[..., None] + three[:, None, None]
    values = ((weights[:, None] * parts[0])[:, :, None] * parts[1][:, None])[..., None] * parts[2][:, None, None]
    return scaled.new_zeros(math.prod(shape)).index_add(0, index.flatten(), values.flatten())


def _spline(fraction):
    """Cardinal B-spline M_p(f + j) [C, p] for j = 0 ... p - 1, by its recursion from the order before."""
    values, f = torch.ones_like(fraction)[:, None], fraction[:, None]
    for order in range(2, ORDER + 1):
        j = torch.arange(order, dtype=fraction.dtype, device=fraction.device)
        same, shifted = (torch.nn.functional.pad(values, ends) for ends in ((0, 1), (1, 0)))
        values = ((f + j) * same + (order - f - j) * shifted) / (order - 1)
    return values


def _of_nodes(n, k):
    """Fourier transform of the spline at the points of a mesh, so that waves are exact there."""
    at_nodes = _spline(k.new_zeros(1))[0]
    phases = 2 * math.pi / n * k[:, None] * torch.arange(ORDER, dtype=k.dtype, device=k.device)
    return (torch.polar(torch.ones_like(phases), phases) * at_nodes).sum(dim=1)
