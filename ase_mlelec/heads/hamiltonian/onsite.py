"""On-site blocks of the atoms of one species from their environments.

What does not turn with the frame is linear in features and in a reduced representation of the environment that a net
learns; what turns is made of parts of the environment that turn alike, such as moments of the right winding number.
"""

import torch


def turning_elements(winding, symmetry, highest):
    """list of (i, j, place, q): q = λ - μ + nM of an element that turns, the two of smallest ``|q|``, if up to
    ``highest``.
    """
    found = []
    for i, first in enumerate(winding.tolist()):
        for j, second in enumerate(winding.tolist()):
            charge, rest = first - second, (first - second) % symmetry
            if rest:
                nearest = sorted((rest, rest - symmetry), key=lambda q: (abs(q), q * charge < 0))
                found += [(i, j, place, q) for place, q in enumerate(nearest) if abs(q) <= highest]
    return found


class OnsiteBlocks(torch.nn.Module):
    """On-site blocks of one species, in units of its scale.

    Parameters
    ----------
    functions : AtomicFunctions
    symmetry : int
        M.
    n_features, n_reduced, n_directed, n_moments, n_third
        Sizes of what ``forward`` sees; n_third = 0: no third atoms.
    """

    def __init__(self, functions, symmetry, n_features, n_reduced, n_directed, n_moments, n_third):
        super().__init__()
        self.functions, self.symmetry, size = functions, symmetry, functions.size
        self.net = torch.nn.Linear(n_reduced, (1 + 2 * n_directed) * size * size)
        torch.nn.init.zeros_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)
        self.register_buffer("linear", torch.zeros(n_features, size * size))
        self.register_buffer("turned", torch.zeros(1 + 2 * n_moments, size, size))
        self.register_buffer("third_turned", torch.zeros(1 + 2 * n_third, size, size) if n_third else None)

    def linear_parts(self):
        """list of the buffers of coefficients."""
        return [part for part in (self.linear, self.turned, self.third_turned) if part is not None]

    def forward(self, features, reduced, directed, moments, third):
        """Blocks [n, W, W] of atoms from their features [n, F], reduced [n, R] and directed [n, C, q] representations,
        moments [n, m, q], and moments of third atoms [n, t, q] or None."""
        size = self.functions.size
        h = self.net(reduced)
        h = h + torch.nn.functional.pad(features @ self.linear, (0, h.shape[1] - size * size))
        block = self._turned(h.reshape(len(reduced), -1, size, size), directed)
        if self.functions.turns:
            block = block + self._turned_linear(self.turned, moments)
            if third is not None:
                block = block + self._turned_linear(self.third_turned, third)
        return block

    def fixed(self):
        """Mask [W, W] of the elements between circular functions that do not turn with the frame."""
        winding = self.functions.winding
        return (winding[:, None] - winding) % self.symmetry == 0

    def generators(self, moments):
        """What turns as an element between λ and μ, [n, 1 + 2C, W, W], from moments [n, C, q]: 1 where λ - μ is a
        multiple of M, else conjugates of moments with q = λ - μ + nM, the two of smallest ``|q|``; zero without
        any.
        """
        n, channels, highest = moments.shape
        winding = self.functions.winding
        found = moments.new_zeros(n, 1 + 2 * channels, len(winding), len(winding))
        found[:, 0, self.fixed()] = 1
        for i, j, place, q in turning_elements(winding, self.symmetry, highest):
            start, value = 1 + place * channels, moments[:, :, abs(q) - 1]
            found[:, start : start + channels, i, j] = value.conj() if q > 0 else value
        return found

    def _turned(self, h, directed):
        """Σ_c h_c G_c [n, W, W] with h [n, c, W, W] and the generators of directed [n, C, q]."""
        vectors = self.functions.circular(directed.dtype)
        matrix = ((vectors.conj() @ h.to(directed.dtype) @ vectors.T) * self.generators(directed)).sum(dim=1)
        return (vectors.T @ matrix @ vectors.conj()).real

    def _turned_linear(self, h, moments):
        """_turned with h [c, W, W] of all atoms, without its elements that do not turn, and without all generators at
        once."""
        vectors, channels = self.functions.circular(moments.dtype), moments.shape[1]
        coefficients = vectors.conj() @ h.to(moments.dtype) @ vectors.T
        matrix = moments.new_zeros(len(moments), *coefficients.shape[1:])
        for i, j, place, q in turning_elements(self.functions.winding, self.symmetry, moments.shape[2]):
            start, value = 1 + place * channels, moments[:, :, abs(q) - 1]
            own = coefficients[start : start + channels, i, j]
            matrix[:, i, j] += (value.conj() if q > 0 else value) @ own
        return (vectors.T @ matrix @ vectors.conj()).real
