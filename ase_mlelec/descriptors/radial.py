"""Functions of distances that descriptors and heads share."""

import torch
from torch import Tensor


def switch(r: Tensor, smooth: float, cutoff: float) -> Tensor:
    """w(r): 1 below ``smooth``, 0 beyond ``cutoff``, 1 - 10 u^3 + 15 u^4 - 6 u^5 between; two smooth derivatives."""
    u = ((r - smooth) / (cutoff - smooth)).clamp(0, 1)
    return 1 - u**3 * (10 - 15 * u + 6 * u**2)


def chebyshev(x: Tensor, n: int) -> Tensor:
    """T_0 ... ``T_{n-1}`` of x [E] -> [E, n]."""
    values = [torch.ones_like(x), x]
    for _ in range(n - 2):
        values.append(2 * x * values[-1] - values[-2])
    return torch.stack(values[:n], dim=1)
