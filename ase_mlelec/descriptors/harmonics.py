"""Real spherical harmonics of unit vectors."""
import math

import torch


def harmonics(unit, l_max):
    """Rows [(l_max + 1)^2, E] of unit vectors [3, E]: of every l those of m = -l .. l, so that
    sum_m Y_lm(a) Y_lm(b) = P_l(a . b).

    Source: associated Legendre functions by the recursion in l, from P_m^m = (2m - 1)!! sin^m, without the sign (-1)^m.
    """
    x, y, z = unit
    rows = [None] * (l_max + 1)**2
    cosine, sine, start = torch.ones_like(z), torch.zeros_like(z), 1.0
    for m in range(l_max + 1):
        before, legendre = None, torch.full_like(z, start)
        for l in range(m, l_max + 1):
            norm = math.sqrt((2 if m else 1) * math.factorial(l - m) / math.factorial(l + m))
            rows[l * l + l + m] = norm * legendre * cosine
            if m:
                rows[l * l + l - m] = norm * legendre * sine
            following = (2 * l + 1) * z * legendre
            if before is not None:
                following = following - (l + m) * before
            before, legendre = legendre, following / (l - m + 1)
        cosine, sine, start = x * cosine - y * sine, x * sine + y * cosine, start * (2 * m + 1)
    return torch.stack(rows)
