"""Embedding nets as Chebyshev series, for evaluation."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.embedding import EmbeddingNets, Series


class CompressedEmbedding(Series):
    """Series of EmbeddingNets over a range of the normalized s, and the nets above it; for evaluation.

    Raises
    ------
    ValueError
        For nets that no short series reproduces, such as nets with kinks.
    """

    def __init__(self, nets: EmbeddingNets, low: float, high: float, tolerance: float):
        super().__init__(nets.n_species, nets.one_side)
        self.nets, self.low, self.high = nets, low, high
        fits = [_interpolate(net, low, high, tolerance) for net in nets.nets]
        self.n_basis = max(len(fit) for fit in fits)
        padded = [np.pad(fit, ((0, self.n_basis - len(fit)), (0, 0))).T for fit in fits]
        like = nets.nets[0][0].weight
        self.register_buffer("coefficients", torch.as_tensor(np.array(padded), dtype=like.dtype, device=like.device))

    def argument(self, r: Tensor, s: Tensor) -> Tensor:
        return (s - self.low) * (2 / (self.high - self.low)) - 1

    def argument_slopes(self, r: Tensor, x: Tensor) -> tuple[None, float]:
        return None, 2 / (self.high - self.low)

    def values(self, s: Tensor, center: int, neighbor: int) -> Tensor:
        return self.nets.values(s, center, neighbor)

    def moments(self, padded: Tensor, blocks: Sequence[slice], species: Tensor) -> Tensor:
        if padded.numel() and bool(padded[:, 0].detach().max() > 1):
            s = padded[:, 1:2]  # the first row of R
            return self.nets.moments(torch.cat([s, padded[:, 1:]], dim=1), blocks, species)
        return super().moments(padded, blocks, species)


@functools.cache
def _nodes_and_transform(n):
    """Chebyshev nodes [n], and the matrix [n, n] that makes coefficients from values there."""
    nodes = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    transform = np.cos(np.outer(np.arange(n), np.arccos(nodes))) * (2 / n)
    transform[0] /= 2
    return nodes, transform


def _interpolate(net, low, high, tolerance):
    """Chebyshev coefficients [K, M] of a net, to ``tolerance`` relative to its largest value."""
    n = 256
    nodes, transform = _nodes_and_transform(n)
    parameter = next(net.parameters())
    with torch.no_grad():
        x = torch.as_tensor((nodes + 1) / 2 * (high - low) + low, dtype=parameter.dtype, device=parameter.device)
        values = net(x[:, None]).double().cpu().numpy()
    coefficients = transform @ values
    error = np.abs(coefficients)[::-1].max(axis=1).cumsum()[::-1]  # bound of the tail from k on
    largest = np.abs(values).max()
    if error[-16] > max(tolerance, 100 * torch.finfo(parameter.dtype).eps) * largest:
        raise ValueError(f"a Chebyshev series of {n} terms does not reproduce the embedding net")
    needed = int(np.argmax(error < tolerance * largest)) or n
    return coefficients[:needed]
