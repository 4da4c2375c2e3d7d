"""Real spherical harmonics of unit vectors."""

import math

import torch
from torch import Tensor


def harmonics(unit: Tensor, l_max: int, l_min: int = 0) -> Tensor:
    """Real spherical harmonics [(l_max + 1)^2 - l_min^2, E] of unit vectors [3, E], l = l_min .. l_max, m = -l .. l.

    Their norm is such that sum_m Y_lm(a) Y_lm(b) = P_l(a . b).

    References
    ----------
    Recursion in l of the associated Legendre functions over sin^m, normalized, without the sign (-1)^m.
    """
    x, y, z = unit
    rows: list = [None] * (l_max + 1) ** 2
    cosine, sine = torch.ones_like(z), torch.zeros_like(z)
    for m in range(l_max + 1):
        double = math.prod(range(1, 2 * m, 2))  # (2m - 1)!!
        before, now = None, z.new_tensor(double * math.sqrt((2 if m else 1) / math.factorial(2 * m)))
        for l in range(m, l_max + 1):
            if l >= l_min:
                rows[l * l + l + m] = now * cosine if m else now.expand_as(z)
                if m:
                    rows[l * l + l - m] = now * sine
            norm = math.sqrt((l + 1 - m) * (l + 1 + m))
            slope, back = (2 * l + 1) / norm, -math.sqrt((l - m) * (l + m)) / norm
            following = slope * now * z if before is None else torch.addcmul(back * before, z, now, value=slope)
            before, now = now, following
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack(rows[l_min**2 :])


def harmonic_slopes(unit: Tensor, l_max: int) -> Tensor:
    """Derivatives [3, (l_max + 1)^2, E] of ``harmonics``, as the polynomials of the recursion, by x, y and z."""
    x, y, z = unit
    slopes = unit.new_zeros(3, (l_max + 1) ** 2, len(z))
    cosine, sine = torch.ones_like(z), torch.zeros_like(z)
    lower = torch.zeros_like(z), torch.zeros_like(z)  # cosine and sine of m - 1
    for m in range(l_max + 1):
        for l, (value, slope) in enumerate(_legendre(z, m, l_max), m):
            for row, other, along in ((l * l + l - m, sine, (lower[1], -lower[0])), (l * l + l + m, cosine, lower)):
                slopes[2, row] = slope * other
                slopes[0, row], slopes[1, row] = m * value * along[0], -m * value * along[1]
        lower = cosine, sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return slopes


def _legendre(z, m, l_max):
    """Iterate over the parts of the harmonics that depend on z alone, with their slopes, for l = m .. l_max."""
    double = math.prod(range(1, 2 * m, 2))  # (2m - 1)!!
    now = z.new_full(z.shape, double * math.sqrt((2 if m else 1) / math.factorial(2 * m)))
    before, slope, slope_before = torch.zeros_like(z), torch.zeros_like(z), torch.zeros_like(z)
    for l in range(m, l_max + 1):
        yield now, slope
        norm = math.sqrt((l + 1 - m) * (l + 1 + m))
        forward, back = (2 * l + 1) / norm, -math.sqrt((l - m) * (l + m)) / norm
        slope, slope_before = forward * (now + z * slope) + back * slope_before, slope
        now, before = forward * z * now + back * before, now
