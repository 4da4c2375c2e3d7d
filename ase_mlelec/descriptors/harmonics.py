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
