"""Periodic functions on the grid points of a cell, and their Fourier components.

Point (i, j, k) of a grid of shape [G1, G2, G3] lies at i/G1 a_1 + j/G2 a_2 + k/G3 a_3, as in the files of plane-wave
codes. A real function is kept as the half spectrum of torch.fft.rfftn, [G1, G2, G3//2 + 1].

On an axis with an even number of points the Nyquist frequency has no sign. It counts as in the trigonometric
interpolation of the grid values: odd powers of it vanish, even powers remain. A gradient therefore has no Nyquist
component, and the Laplacian has the diagonal one only, which keeps every result real and free of a preferred direction
in skewed cells. The density of a plane-wave code, which is cut off at a sphere, has no such components.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch, sum_over_chunks

_CHUNK = 2**22  # complex numbers in flight in a structure factor: 64 MiB
_TABLE_STEP = 0.02  # 1/Å; interpolation between tabulated form factors: relative error below 1e-9


def check_cell(cell: Tensor) -> None:
    """Raise ValueError unless cell is [3, 3], finite and of a volume."""
    if cell.shape != (3, 3):
        raise ValueError(f"cell: got shape {list(cell.shape)}, need [3, 3]; pass the three vectors as rows, in Å")
    check_finite(cell=cell)
    sizes = cell.norm(dim=1).prod().item()
    if not abs(torch.linalg.det(cell).item()) > 1e-10 * sizes:
        raise ValueError(
            f"cell: got vectors {cell.tolist()} of no volume, need three independent ones; give every "
            "direction a period, with vacuum where the structure has none"
        )


def check_grid_values(name: str, values: Tensor) -> None:
    """Raise ValueError unless values is finite and [G1, G2, G3] without an empty axis."""
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{name}: got shape {list(values.shape)}, need [G1, G2, G3]; pass one value per grid point")
    check_finite(**{name: values})


def volume(cell: Tensor) -> Tensor:
    """Volume of a cell [3, 3], Å^3, of either handedness."""
    return torch.linalg.det(cell).abs()


def reciprocal_cell(cell: Tensor) -> Tensor:
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


def squared_wave_vectors(shape: Sequence[int], cell: Tensor, *, second: slice = slice(None)) -> Tensor:
    """Symbol of minus the Laplacian, G², on the half spectrum: Tensor [G1, G2, G3//2 + 1], 1/Å^2.

    ``second`` is a part of the second axis.
    """
    metric = reciprocal_cell(cell) @ reciprocal_cell(cell).T
    even, odd = list(_frequencies(shape, cell)), _odd_frequencies(shape, cell)
    even[1], odd[1] = even[1][:, second], odd[1][:, second]
    squares = sum(even[i] ** 2 * metric[i, i] for i in range(3))
    return squares + 2 * sum(odd[i] * odd[j] * metric[i, j] for i, j in ((0, 1), (0, 2), (1, 2)))


def gradient(values: Tensor, cell: Tensor) -> Tensor:
    """Gradient of a function on the grid by Fourier transform.

    Parameters
    ----------
    values : Tensor [G1, G2, G3]
    cell : Tensor [3, 3], Å

    Returns
    -------
    Tensor [3, G1, G2, G3]
        The unit of values per Å.
    """
    return torch.tensordot(reciprocal_cell(cell).T, torch.stack(phase_derivatives(values)), dims=1)


def phase_derivatives(values: Tensor) -> list[Tensor]:
    """Three Tensors [G1, G2, G3], derivatives with respect to 2π times the position along each cell vector.

    The gradient is their sum with the reciprocal vectors, and its square Σ b_i·b_k d_i d_k.
    """
    spectrum = torch.fft.rfftn(values)
    return [torch.fft.irfftn(1j * k * spectrum, s=values.shape) for k in _odd_frequencies(values.shape, values)]


def structure_factor(scaled: Tensor, weights: Tensor, frequencies: Sequence[Tensor]) -> Tensor:
    """S(k) = Σ_n w_n exp(-2πi k·s_n) on a box of integer frequencies, as products of matrices.

    Parameters
    ----------
    scaled : Tensor [N, 3]
        Positions in units of the cell vectors.
    weights : Tensor [N]
    frequencies : three Tensors [K1], [K2], [K3] of integers

    Returns
    -------
    Tensor [K1, K2, K3], complex
    """
    size = max(1, _CHUNK // (len(frequencies[0]) * len(frequencies[1])))
    return sum_over_chunks(functools.partial(_structure_factor, frequencies), size, scaled, weights)


def _structure_factor(frequencies, scaled, weights):
    first, second, third = (
        torch.polar(torch.ones_like(phase), phase)
        for phase in (-2 * math.pi * scaled[:, axis, None] * frequencies[axis] for axis in range(3))
    )
    plane = (weights[:, None] * first)[:, :, None] * second[:, None, :]
    return torch.tensordot(plane, third, dims=([0], [0]))


@numpy_or_torch
def superpose(
    density: Tensor,
    radii: Tensor,
    steps: Tensor,
    positions: Tensor,
    cell: Tensor,
    shape: Sequence[int],
    cutoff: Tensor | None = None,
) -> Tensor:
    r"""Sum over atoms and their images of one spherical density, such as the partial core charge of a pseudopotential.

    .. math::

        n(r) = \frac1\Omega \sum_G f(G) S(G) \exp(i G \cdot r), \qquad
        f(q) = 4\pi \int \rho(r) \, r^2 \, \frac{\sin(qr)}{qr} \, dr

    by Simpson's rule on the radial mesh.

    Parameters
    ----------
    density : Tensor [M], electrons/Å^3
        ρ at the radii.
    radii : Tensor [M], Å
    steps : Tensor [M], Å
        Derivative of the radii with respect to their index (rab in UPF files).
    positions : Tensor [N, 3], Å
        Of the atoms that have this density: call once per element and add.
    cell : Tensor [3, 3], Å
    shape : three int
        Points of the grid.
    cutoff : float, eV
        Kinetic energy ħ²G²/2m up to which a plane wave counts (ecutrho); by default all on the grid.

    Returns
    -------
    Tensor [G1, G2, G3], electrons/Å^3
        Differentiable with respect to positions and cell; it dips below zero where the waves do not resolve the atom,
        like the density of the plane-wave code.

    Raises
    ------
    ValueError
        For arrays that disagree, a shape that is not three positive integers, a cutoff that is not positive, a cell of
        no volume, and NaN.

    References
    ----------
    Louie, Froyen and Cohen, Phys. Rev. B 26, 1738 (1982), for the partial core charge.
    """
    shape = _checked_shape(shape)
    check_cell(cell)
    _check_radial(density, radii, steps)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions: got shape {list(positions.shape)}, need [N, 3]; pass them in Å")
    check_finite(positions=positions)
    squares = squared_wave_vectors(shape, cell)
    inside = torch.ones_like(squares, dtype=torch.bool)
    for k, n in zip(_frequencies(shape, cell), shape):
        inside = inside & (2 * k.abs() != n)
    if cutoff is not None:
        if not cutoff > 0:
            raise ValueError(f"cutoff: got {cutoff.item():g} eV, need more than 0; give the cutoff of the density")
        inside = inside & (squares.detach() <= 2 * cutoff / (units.HARTREE * units.BOHR**2))
    wave_numbers = torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0)
    factor = torch.where(inside, _form_factor(wave_numbers, density, radii, steps), 0.0) / volume(cell)
    scaled = positions @ torch.linalg.inv(cell)
    waves = structure_factor(scaled, torch.ones_like(scaled[:, 0]), [k.flatten() for k in _frequencies(shape, cell)])
    return torch.fft.irfftn(factor * waves, s=shape, norm="forward")


def _form_factor(wave_numbers, density, radii, steps):
    """f(q) of a spherical density, by cubic Hermite interpolation between exact values and slopes."""
    odd = len(radii) - (len(radii) + 1) % 2  # Simpson's rule takes pairs of intervals
    radii, weights = radii[:odd], (density * radii**2 * steps)[:odd] * (4 * math.pi / 3)
    weights = weights * torch.tensor([1.0, *[4.0, 2.0] * ((odd - 3) // 2), 4.0, 1.0]).to(weights)
    radii, weights = radii[weights != 0], weights[weights != 0]
    index = (wave_numbers.detach() / _TABLE_STEP).long()
    q = _TABLE_STEP * torch.arange(int(index.max()) + 2, dtype=radii.dtype, device=radii.device)[:, None]
    x = q * radii
    sinc = torch.sinc(x / math.pi)
    value = sinc @ weights
    slope = ((torch.cos(x) - sinc) / torch.where(q > 0, q, 1.0)) @ weights * _TABLE_STEP
    t = wave_numbers / _TABLE_STEP - index
    a, b, da, db = value[index], value[index + 1], slope[index], slope[index + 1]
    return a + t * (da + t * (3 * (b - a) - 2 * da - db + t * (2 * (a - b) + da + db)))


def _checked_shape(shape):
    if shape.shape != (3,) or not all(n > 0 and n == int(n) for n in shape.tolist()):
        raise ValueError(f"shape: got {shape.tolist()}, need three positive integers; give the points of the grid")
    return tuple(int(n) for n in shape.tolist())


def _check_radial(density, radii, steps):
    if radii.ndim != 1 or len(radii) < 3 or density.shape != radii.shape or steps.shape != radii.shape:
        raise ValueError(
            f"density, radii, steps: got shapes {list(density.shape)}, {list(radii.shape)} and "
            f"{list(steps.shape)}, need one [M] for all, M >= 3; pass the arrays of one radial mesh"
        )
    check_finite(density=density, radii=radii, steps=steps)
