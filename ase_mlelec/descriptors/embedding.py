"""Embeddings: the functions of distance that weigh a neighbour, as nets or as Chebyshev series.

A net of one variable is a smooth function of one variable, so a Chebyshev series of it is exact to its truncation.  The
sum over neighbours then runs over the basis functions, and the net's coefficients act once per centre.
"""
import numpy as np
import torch

from ase_mlelec.nets import DenseNet


class ChebyshevBasis(torch.autograd.Function):
    """d^m/dx^m T_k(x) for k < K: Tensor [C, n] -> [C, K, n]; differentiable to any order.

    T_{k+1} = 2 x T_k - T_{k-1}, and its m-th derivative T^(m)_{k+1} = 2 m T^(m-1)_k + 2 x T^(m)_k - T^(m)_{k-1}.
    """

    @staticmethod
    def forward(ctx, x, n_basis, order):
        ctx.save_for_backward(x)
        ctx.n_basis, ctx.order = n_basis, order
        two_x, lower = 2 * x, None
        for m in range(order + 1):
            values = x.new_empty(x.shape[0], n_basis, x.shape[1])
            values[:, 0] = 1 if m == 0 else 0
            if n_basis > 1:
                values[:, 1] = x if m == 0 else (1 if m == 1 else 0)
            for k in range(1, n_basis - 1):
                torch.mul(two_x, values[:, k], out=values[:, k + 1])
                values[:, k + 1] -= values[:, k - 1]
                if m > 0:
                    values[:, k + 1].add_(lower[:, k], alpha=2 * m)
            lower = values
        return values

    @staticmethod
    def backward(ctx, gradient):
        x, = ctx.saved_tensors
        derivative = ChebyshevBasis.apply(x, ctx.n_basis, ctx.order + 1)
        return torch.einsum("ckn,ckn->cn", gradient, derivative), None, None


class EmbeddingNets(torch.nn.Module):
    """One tanh net per pair of species, of the normalised s(r) (DeepPot-SE).

    Source: Zhang et al. 2018, Eq. (11); conventions of the weights as in the reference implementation.
    """

    def __init__(self, n_pairs, widths):
        super().__init__()
        self.nets = torch.nn.ModuleList(DenseNet(1, widths) for _ in range(n_pairs))
        self.n_out = widths[-1]

    def argument(self, r, s):
        return s

    def basis(self, x, pair):
        """[C, n] -> [C, M, n]"""
        return self.nets[pair](x.reshape(-1, 1)).reshape(*x.shape, self.n_out).transpose(1, 2)

    def contract(self, moments, pair):
        return moments


class ChebyshevEmbedding(torch.nn.Module):
    """Trainable series in a bounded variable of the distance, x = 2 (1 - ρ)/(1 + ρ) - 1 with ρ = r/cutoff.

    x resolves short distances four times finer than long ones.
    """

    def __init__(self, n_pairs, n_basis, n_out, cutoff):
        super().__init__()
        self.cutoff, self.n_basis, self.n_out = cutoff, n_basis, n_out
        decay = 1 / (1 + 0.5 * torch.arange(n_basis, dtype=torch.get_default_dtype()))[:, None]
        self.coefficients = torch.nn.Parameter(torch.randn(n_pairs, n_out, n_basis) * decay.T)

    def argument(self, r, s):
        rho = r / self.cutoff
        return 2 * (1 - rho) / (1 + rho) - 1

    def basis(self, x, pair):
        return ChebyshevBasis.apply(x, self.n_basis, 0)

    def contract(self, moments, pair):
        return self.coefficients[pair] @ moments


class CompressedEmbedding(torch.nn.Module):
    """Chebyshev series of EmbeddingNets over a range of the normalised s; for evaluation."""

    def __init__(self, nets, low, high, tolerance):
        super().__init__()
        self.low, self.high = low, high
        fits = [_interpolate(net, low, high, tolerance) for net in nets.nets]
        self.n_basis = max(len(fit) for fit in fits)
        padded = [np.pad(fit, ((0, self.n_basis - len(fit)), (0, 0))).T for fit in fits]
        like = nets.nets[0][0].weight
        self.register_buffer("coefficients", torch.as_tensor(np.array(padded), dtype=like.dtype, device=like.device))

    def argument(self, r, s):
        return s

    def basis(self, x, pair):
        return ChebyshevBasis.apply((x - self.low) * (2 / (self.high - self.low)) - 1, self.n_basis, 0)

    def contract(self, moments, pair):
        return self.coefficients[pair] @ moments


def _interpolate(net, low, high, tolerance):
    """Chebyshev coefficients [K, M] of a net, to ``tolerance`` relative to its largest value."""
    n = 256
    nodes = np.cos(np.pi * (np.arange(n) + 0.5) / n)
    parameter = next(net.parameters())
    with torch.no_grad():
        x = torch.as_tensor((nodes + 1) / 2 * (high - low) + low, dtype=parameter.dtype, device=parameter.device)
        values = net(x[:, None]).double().cpu().numpy()
    transform = np.cos(np.outer(np.arange(n), np.arccos(nodes))) * (2 / n)
    transform[0] /= 2
    coefficients = transform @ values
    error = np.abs(coefficients)[::-1].max(axis=1).cumsum()[::-1]     # bound of the tail from k on
    needed = int(np.argmax(error < tolerance * np.abs(values).max())) or n
    return coefficients[:needed]
