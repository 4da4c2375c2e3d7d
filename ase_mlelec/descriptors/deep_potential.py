"""DeepPot-SE: smooth, many-body features from a small net of the distance, without hand-made functions.

Row of neighbour j: R_j = (s, w x/r^2, w y/r^2, w z/r^2) with s = w(r)/r and a switch w; normalised by species.
T = 1/n sum_j G(s_j) R_j^T, D = T T_<^T, with T_< the first rows of T.

Sources: Zhang et al. 2018 (NeurIPS), Eqs. (8)-(13); Zeng et al. 2022, Fig. 1.
"""
import copy
import math

import torch
from ase.data import atomic_numbers

from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.descriptors.embedding import ChebyshevEmbedding, CompressedEmbedding, EmbeddingNets
from ase_mlelec.nets import one_hot_rows

CLOSEST = 0.8       # Å; a compressed embedding covers all distances above, the nets themselves serve below


def switch(r, smooth, cutoff):
    """w(r): 1 below ``smooth``, 0 beyond ``cutoff``, 1 - 10 u^3 + 15 u^4 - 6 u^5 between; two smooth derivatives."""
    u = ((r - smooth) / (cutoff - smooth)).clamp(0, 1)
    return 1 - u**3 * (10 - 15 * u + 6 * u**2)


class DeepPotSE(Descriptor):
    """DeepPot-SE descriptor, optionally with higher angular channels.

    species : sequence of chemical symbols
    cutoff, smooth : float, Å; where the switch ends and starts
    widths : embedding widths; the last is M
    n_axis : rows of T_<
    sel : expected number of neighbours of each species; n = sum(sel) scales T (no neighbour is ever dropped)
    one_side : True, one embedding per neighbour species; False, one per (centre, neighbour)
    l_max : 1 is DeepPot-SE; 2 or 3 add the invariants sum_jk G_j G_k P_l(cos jk) as further blocks of features
    n_basis : None for embedding nets; a number for a Chebyshev series of so many terms, trained directly

    Features: [C, l_max * M * n_axis].
    """

    def __init__(self, species, cutoff, smooth, widths=(25, 50, 100), n_axis=16, sel=None, one_side=True, l_max=1,
                 n_basis=None):
        super().__init__()
        if not 0 <= smooth < cutoff:
            raise ValueError(f"got smooth = {smooth} and cutoff = {cutoff} Å; need 0 <= smooth < cutoff")
        if l_max not in (1, 2, 3):
            raise ValueError(f"got l_max = {l_max}; DeepPotSE has 1, 2 or 3")
        self.species = tuple(species)
        self.cutoff, self.smooth, self.widths, self.n_axis = float(cutoff), float(smooth), tuple(widths), n_axis
        self.sel = tuple(sel) if sel else (math.ceil(0.2 * cutoff**3 / len(self.species)),) * len(self.species)
        self.one_side, self.l_max, self.n_basis = one_side, l_max, n_basis
        n_species = len(self.species)
        n_pairs = n_species if one_side else n_species**2
        self.embedding = (EmbeddingNets(n_pairs, self.widths) if n_basis is None else
                          ChebyshevEmbedding(n_pairs, n_basis, self.widths[-1], self.cutoff))
        self.n_features = l_max * self.widths[-1] * n_axis
        self.register_buffer("mean", torch.zeros(n_species))        # of s, by species of the centre
        self.register_buffer("scale", torch.ones(n_species, 2))     # of the radial and the angular entries
        table = torch.full((120,), -1)
        table[[atomic_numbers[symbol] for symbol in self.species]] = torch.arange(n_species)
        self.register_buffer("species_of_number", table, persistent=False)

    def arguments(self):
        return dict(species=list(self.species), cutoff=self.cutoff, smooth=self.smooth, widths=list(self.widths),
                    n_axis=self.n_axis, sel=list(self.sel), one_side=self.one_side, l_max=self.l_max,
                    n_basis=self.n_basis)

    def forward(self, system, edges):
        all_species = self.species_of_number[system.numbers]
        species, neighbor_species = all_species[edges.atoms], all_species[edges.neighbor]
        r, s, rows = self._rows(edges.vec, species[edges.center])
        x = self.embedding.argument(r, s)
        t = self._empty(species)
        for k, chosen in enumerate(one_hot_rows(neighbor_species, len(self.species))):
            padded_x, padded_rows, present = _pad(edges.center[chosen], x[chosen], rows[chosen], edges.n_centers)
            t = t + self._moments(padded_x, padded_rows, present, k, species)
        t = t / sum(self.sel)
        blocks = [(0, 4), (4, 9), (9, 16)][:self.l_max]
        features = [(t[:, :, a:b] @ t[:, :self.n_axis, a:b].transpose(1, 2)).flatten(1) for a, b in blocks]
        return Environment(torch.cat(features, dim=1) if len(features) > 1 else features[0], species, t[:, :, 1:4])

    def _rows(self, vec, center_species):
        """Distances [E], normalised s [E] and normalised rows [E, 4, 9 or 16]."""
        r = (vec * vec).sum(dim=1).sqrt()
        weight = switch(r, self.smooth, self.cutoff) / r
        if len(self.species) > 1:
            mean, scale = self.mean[center_species], self.scale[center_species]
            s, angular = (weight - mean) / scale[:, 0], weight / (r * scale[:, 1])
        else:
            s, angular = (weight - self.mean) / self.scale[0, 0], weight / (r * self.scale[0, 1])
        rows = [s[:, None], angular[:, None] * vec]
        if self.l_max > 1:
            rows += [(angular * r)[:, None] * harmonics(vec / r[:, None], self.l_max)]
        return r, s, torch.cat(rows, dim=1)

    @torch.no_grad()
    def standardise(self, samples):
        """Bring the radial and angular rows of every species to unit root mean square over the neighbours."""
        self.mean.zero_()
        self.scale.fill_(1.0)
        square, count = torch.zeros_like(self.scale), torch.zeros_like(self.mean)
        for system, edges in samples:
            center = self.species_of_number[system.numbers][edges.atoms][edges.center]
            _, s, rows = self._rows(edges.vec, center)
            square.index_add_(0, center, torch.stack([s**2, (rows[:, 1:4] ** 2).sum(dim=1) / 3], dim=1))
            count += torch.bincount(center, minlength=len(count))
        self.scale.copy_((square / count[:, None].clamp(min=1)).sqrt().clamp(min=1e-3))

    def _moments(self, x, rows, present, k, species):
        """Contribution of the neighbours of species k to sum_j G_j R_j^T - (as many empty slots): [C, M, rows]."""
        if self.one_side:
            return self._moments_of(self.embedding, x, rows, present, k, self._empty_argument(species))
        parts = torch.zeros(len(species), self.widths[-1], rows.shape[2], dtype=rows.dtype, device=rows.device)
        for c, chosen in enumerate(one_hot_rows(species, len(self.species))):
            pair = c + len(self.species) * k
            part = self._moments_of(self.embedding, x[chosen], rows[chosen], present[chosen], pair,
                                    self._empty_argument(species[chosen]))
            parts = parts.index_put((chosen,), part)
        return parts

    def _moments_of(self, embedding, x, rows, present, pair, empty):
        if isinstance(embedding, CompressedEmbedding) and x.numel() and bool(x.detach().max() > embedding.high):
            embedding = self.nets
        moments = embedding.basis(x, pair) @ rows
        if bool(self.mean.any()):
            moments = moments - _radial(embedding.basis(empty, pair)[:, :, 0] * (empty * present[:, None]), rows)
        return embedding.contract(moments, pair)

    def _empty_argument(self, species):
        """[C, 1], the normalised s of an empty slot, -mean/scale."""
        return (-self.mean / self.scale[:, 0])[species][:, None]

    def _empty(self, species):
        """What sum(sel) empty slots add to T (zero rows are normalised too): [C, M, rows].

        Zero unless the mean of s is subtracted, which a Chebyshev series in r never needs.
        """
        width = {1: 4, 2: 9, 3: 16}[self.l_max]
        t = torch.zeros(len(species), self.widths[-1], width, dtype=self.mean.dtype, device=self.mean.device)
        if not bool(self.mean.any()):
            return t
        empty = self._empty_argument(species)
        embedding = getattr(self, "nets", self.embedding)
        for k, slots in enumerate(self.sel):
            for c, chosen in enumerate(one_hot_rows(species, len(self.species))):
                pair = k if self.one_side else c + len(self.species) * k
                values = embedding.basis(empty[chosen], pair)[:, :, 0] * (empty[chosen] * slots)
                t[chosen] = t[chosen] + _radial(values, t[chosen])
        return t

    def compressed(self, tolerance=1e-11):
        """Copy whose embedding nets are replaced by their Chebyshev series, several times faster to evaluate.

        The series covers distances above CLOSEST; closer pairs are sent through the nets.
        """
        if self.n_basis is not None or isinstance(self.embedding, CompressedEmbedding):
            return self
        fast = copy.deepcopy(self)
        fast.nets = fast.embedding
        low = float((-self.mean / self.scale[:, 0]).min())
        high = float(((1 / CLOSEST - self.mean) / self.scale[:, 0]).max())
        fast.embedding = CompressedEmbedding(fast.nets, low, high, tolerance)
        return fast


def _radial(values, like):
    """[C, M] -> [C, M, rows] with the values in the radial column."""
    return torch.nn.functional.pad(values[:, :, None], (0, like.shape[2] - 1))


def _pad(center, x, rows, n_centers):
    """Lay the edges of every centre out as [C, n] and [C, n, rows], zero rows in empty places; also counts [C]."""
    present = torch.bincount(center, minlength=n_centers)
    n = int(present.max()) if len(center) else 0
    first = present.cumsum(0) - present
    slot = torch.arange(len(center), device=center.device) - first[center]
    place = center * n + slot
    padded_x = x.new_zeros(n_centers * n).index_put((place,), x).reshape(n_centers, n)
    padded_rows = rows.new_zeros(n_centers * n, rows.shape[1]).index_put((place,), rows)
    return padded_x, padded_rows.reshape(n_centers, n, rows.shape[1]), present.to(x.dtype)


def harmonics(unit, l_max):
    """Real harmonics of l = 2 .. l_max of unit vectors [E, 3], scaled so that Y_l(a) . Y_l(b) = P_l(a . b)."""
    x, y, z = unit.unbind(dim=1)
    out = [3**0.5 * x * y, 3**0.5 * y * z, 3**0.5 * z * x, 0.75**0.5 * (x * x - y * y), 1.5 * z * z - 0.5]
    if l_max > 2:
        out += [0.625**0.5 * y * (3 * x * x - y * y), 15**0.5 * x * y * z, 0.375**0.5 * y * (5 * z * z - 1),
                0.5 * z * (5 * z * z - 3), 0.375**0.5 * x * (5 * z * z - 1), 3.75**0.5 * z * (x * x - y * y),
                0.625**0.5 * x * (x * x - 3 * y * y)]
    return torch.stack(out, dim=1)
