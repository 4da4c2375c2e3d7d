"""DeepPot-SE: smooth many-body features from learned functions of the distance.

Row of neighbor j: R_j = (s, w x/r^2, w y/r^2, w z/r^2) with s = w(r)/r and a switch w; normalized by species. T = 1/n
sum_j G(s_j) R_j^T, D = T ``T_<^T``, with ``T_<`` the first rows of T.

References: Zhang et al. 2018 (NeurIPS), Eqs. (8)-(13); Zeng et al. 2022, Fig. 1.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers, covalent_radii
from torch import Tensor

from ase_mlelec import compiled
from ase_mlelec.descriptors.base import Descriptor, Environment, species_table
from ase_mlelec.descriptors.compiled_edges import Table
from ase_mlelec.descriptors.compressed import CompressedEmbedding
from ase_mlelec.descriptors.embedding import NEGLIGIBLE, ChebyshevEmbedding, EmbeddingNets
from ase_mlelec.descriptors.fixed import Law
from ase_mlelec.descriptors.padding import pad
from ase_mlelec.descriptors.products import Products, quadrupoles
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.descriptors.smooth_rows import Shape, SmoothRows, plain_rows
from ase_mlelec.edges import Edges
from ase_mlelec.nets import constructor_arguments
from ase_mlelec.system import System

SLOTS = ("taken", "empty", "none")
CLOSEST = 0.8  # Å, or 3/4 of the shortest bond if that is longer: smallest distance of a compressed embedding


class DeepPotSE(Descriptor):
    """DeepPot-SE descriptor, optionally with higher angular channels.

    Parameters
    ----------
    species : sequence of chemical symbols
    cutoff, smooth : float, Å
        End and start of the switch.
    widths
        Embedding widths; the last is M.
    n_axis
        Rows of ``T_<``.
    sel
        Expected number of neighbors of each species; n = sum(sel) scales T (no neighbor is ever dropped).
    one_side : bool
        True, one embedding per neighbor species; False, one per (center, neighbor).
    l_max
        1 is DeepPot-SE; 2 or 3 add the invariants sum_jk G_j G_k P_l(cos jk) as further blocks of features.
    n_basis : None for embedding nets
        A number for a Chebyshev series of so many terms, trained directly.
    n_products
        0, or for l_max > 1 a number n: the frame has n^2 more vectors Q_a T_b, with the second moments Q_a = 1/n
        sum_j G_a(s_j) (r r^T/r^2 - 1/3) w/r. They point in directions that weighted sums of neighbors cannot have.
    timestep, activation
        Options of the layers of the embedding nets, see DenseLayer.
    protection : float, Å
        Added to the distance in denominators.
    excluded_pairs : sequence of (symbol, symbol, slots)
        Centers of the first species do not see neighbors of the second. ``slots`` matters where the mean of s is
        subtracted, because empty slots then contribute: the excluded neighbors have "taken" their slots, all slots of
        the pair are "empty", or the pair has "none".

    Notes
    -----
    Features: [C, l_max * M * n_axis].
    """

    mean: Tensor
    scale: Tensor
    empty_slot: Tensor | None
    directions: Tensor | None
    seen: Tensor
    slots: Tensor
    taken: Tensor
    embedding: Any  # EmbeddingNets or series of functions
    folded: tuple | None
    subtracts: bool | None
    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[str],
        cutoff: float,
        smooth: float,
        widths: Sequence[int] = (25, 50, 100),
        n_axis: int = 16,
        sel: Sequence[int] | None = None,
        one_side: bool = True,
        l_max: int = 1,
        n_basis: int | None = None,
        n_products: int = 0,
        timestep: bool = False,
        activation: str = "tanh",
        protection: float = 0.0,
        excluded_pairs: Sequence[tuple[str, str, int]] = (),
    ):
        super().__init__()
        if not 0 <= smooth < cutoff:
            raise ValueError(f"got smooth = {smooth} and cutoff = {cutoff} Å; need 0 <= smooth < cutoff")
        if l_max not in (1, 2, 3):
            raise ValueError(f"got l_max = {l_max}; DeepPotSE has 1, 2 or 3")
        if n_products and (l_max < 2 or not 0 < n_products <= widths[-1]):
            raise ValueError(
                f"got n_products = {n_products} with l_max = {l_max}; need l_max of 2 or 3 and at most "
                f"{widths[-1]} products"
            )
        if not 0 <= protection < math.inf:
            raise ValueError(f"got protection = {protection} Å; give 0 or more")
        self.species = tuple(species)
        self.cutoff, self.smooth, self.widths, self.n_axis = float(cutoff), float(smooth), tuple(widths), n_axis
        self.sel = tuple(sel) if sel else (math.ceil(0.2 * cutoff**3 / len(self.species)),) * len(self.species)
        self.one_side, self.l_max, self.n_basis, self.n_products = one_side, l_max, n_basis, n_products
        self.timestep, self.activation, self.protection = timestep, activation, float(protection)
        self.excluded_pairs = tuple(tuple(pair) for pair in excluded_pairs)
        n_species = len(self.species)
        self.embedding = (
            EmbeddingNets(n_species, one_side, self.widths, timestep, activation)
            if n_basis is None
            else ChebyshevEmbedding(n_species, one_side, n_basis, self.widths[-1], self.cutoff)
        )
        self.n_features = l_max * self.widths[-1] * n_axis
        self.n_frame = self.widths[-1] + n_products**2  # rows of the frame
        self.register_buffer("mean", torch.zeros(n_species))  # of s, by species of the center
        self.register_buffer("scale", torch.ones(n_species, 2))  # of the radial and the angular entries
        self.register_buffer("empty_slot", None, persistent=False)  # set where the embedding is fixed
        self.register_buffer("directions", None, persistent=False)  # see condensed
        self.whole: Any = None  # the descriptor that was condensed
        self.loops = None  # compiled ones, made when first used
        self.folded = self.subtracts = None  # known where the normalization does not change any more, see settle
        self._exclude()
        self.by_number = sorted(range(n_species), key=lambda k: atomic_numbers[self.species[k]])
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)

    def _exclude(self):
        """Set buffers [center species, neighbor species]: whether pairs are seen, numbers of slots, slots taken."""
        n = len(self.species)
        if len(self.sel) != n or not all(0 <= number < 1e9 for number in self.sel):
            raise ValueError(f"got sel = {self.sel}; need a number of neighbors for each of {', '.join(self.species)}")
        seen, slots, taken = torch.ones(n, n, dtype=bool), torch.tensor(self.sel).repeat(n, 1), torch.ones(n, n).long()
        for first, second, kind in self.excluded_pairs:
            if not {first, second} <= set(self.species) or kind not in SLOTS:
                raise ValueError(
                    f"got the excluded pair {(first, second, kind)}, need two of the species "
                    f"{', '.join(self.species)} and one of {', '.join(SLOTS)}; correct it"
                )
            a, b = self.species.index(first), self.species.index(second)
            for pair in (a, b), (b, a):
                seen[pair] = False
                taken[pair] = kind == "taken"
                slots[pair] *= kind != "none"
        for name, values in (("seen", seen), ("slots", slots), ("taken", taken)):
            self.register_buffer(name, values, persistent=False)

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self, rare=("timestep", "activation", "protection", "excluded_pairs"))

    def forward(self, system: System, edges: Edges) -> Environment:
        edges = edges.up_to(self.cutoff)
        if self.directions is not None and self._are_too_close(edges):
            return self.whole(system, edges)
        all_species = self.species_of_number[system.numbers]
        species = all_species[edges.atoms]
        t = self._by_loops(edges, all_species, species) if self._uses_loops(edges) else None
        t = self._moments(edges, all_species, species) if t is None else t
        if self.directions is not None:
            return Environment(Products.apply(t, self.l_max, self.n_axis, self.directions.shape[1]), species)
        return Environment(Products.apply(t, self.l_max, self.n_axis), species, self._frame(t))

    def _moments(self, edges, all_species, species):
        """Moments [C, rows, M], divided by the number of slots."""
        center = neighbor = None
        if len(self.species) > 1 or self.excluded_pairs:
            center, neighbor = species.index_select(0, edges.center), all_species.index_select(0, edges.neighbor)
        table = self._rows(edges.vec, center)
        if self.excluded_pairs:
            table = torch.cat([table[:1], table[1:] * self.seen[center, neighbor]])
        padded, present, blocks = pad(edges.center, neighbor, table, edges.n_centers, self.by_number)
        return self._with_empty_slots(self.embedding.moments(padded, blocks, species), present, species)

    def _uses_loops(self, edges):
        """Whether compiled loops are there for an embedding that is a series, of a copy that is only evaluated."""
        on_host = edges.vec.device.type == "cpu"
        plain = self.subtracts is not None and not self.excluded_pairs and not self.protection
        return on_host and plain and getattr(self.embedding, "forth", None) is not None and compiled.is_wanted()

    def _by_loops(self, edges, all_species, species):
        """As ``_moments``; None for atoms so close that no series holds."""
        if self.loops is None:
            from ase_mlelec.descriptors.deep_pot_fast import SeriesMoments  # imports numba

            self.loops = SeriesMoments(self)
        table = Table(edges, all_species.numpy().take(edges.neighbor.numpy()))
        empty = self._of_empty_slots if self.subtracts else None
        return self.loops(
            edges.vec,
            table,
            species,
            empty=empty,
            plain=lambda vec: self._moments(edges.with_vec(vec), all_species, species),
        )

    def of_moments(self, moments: Tensor, coefficients: Tensor, present: Tensor, k: int) -> Environment:
        """Environment of centers of species ``k`` from the moments of a series (see ase_mlelec.descriptors.fixed).

        Parameters
        ----------
        moments : Tensor [C, rows, species, K]
        coefficients : Tensor [pairs, M, K]
            Signed, as ``series`` of the embedding returns them.
        present : Tensor [C, species]
            Numbers of neighbors.
        """
        n_species = len(self.species)
        own = coefficients if self.embedding.one_side else coefficients[k::n_species]
        t = moments.flatten(2) @ own.transpose(1, 2).flatten(0, 1)
        species = torch.full((len(t),), k, device=t.device)
        t = self._with_empty_slots(t, present, species)
        return Environment(Products.apply(t, self.l_max, self.n_axis), species, self._frame(t))

    def closest(self) -> float:
        """Smallest usual distance, Å."""
        bond = 2 * min(covalent_radii[atomic_numbers[symbol]] for symbol in self.species)
        return max(CLOSEST, 0.75 * bond)

    def law(self, k: int, variable: Any, n_basis: int) -> Law:
        """Law of the rows of the centers of species ``k`` for series of ``n_basis`` terms in a variable."""
        shape = Shape(self.smooth, self.cutoff, self.protection, self.l_max, variable)
        inverse = (1 / self.scale[k]).tolist()
        return Law(shape, (float(self.mean[k]), *inverse), n_basis, tuple(self.seen[k].tolist()))

    def range_of_s(self, shortest: float) -> tuple:
        """(lowest, highest) normalized s of neighbors at distances from ``shortest``, Å, to the cutoff."""
        r = torch.tensor([self.cutoff, shortest], dtype=torch.float64)
        s = switch(r, self.smooth, self.cutoff) / (r + self.protection)
        low, high = ((s - self.mean.double().cpu()[:, None]) / self.scale.double().cpu()[:, :1]).unbind(dim=1)
        return float(low.min()), float(high.max())

    def _frame(self, t):
        """Vectors [C, n_frame, 3] that turn with the structure."""
        rows, n = t[:, 1:4].transpose(1, 2), self.n_products
        if not n:
            return rows
        products = torch.einsum("caij,cbj->cabi", quadrupoles(t[:, 4:9, :n]), rows[:, :n])
        return torch.cat([rows, products.flatten(1, 2)], dim=1)

    def _rows(self, vec, center_species):
        """Table [1 + 4, 9 or 16, E]: the variable of the embedding, normalized s and the other normalized rows."""
        shape = Shape(self.smooth, self.cutoff, self.protection, self.l_max, self.embedding)
        # planes: long rows are several times faster than rows of three
        rows = plain_rows if self.subtracts is None else SmoothRows.apply
        return rows(vec.T.contiguous(), shape, *self._normalization(center_species))

    def _normalization(self, center_species):
        """(mean of s, factor of s, factor of the other rows) of neighbors [E], or numbers where all have the same."""
        if self.folded is not None:
            return self.folded
        inverse = 1 / self.scale
        if len(self.species) == 1:
            return self.mean[0], *inverse[0]
        return tuple(column.index_select(0, center_species) for column in (self.mean, *inverse.T))

    def settle(self) -> None:
        """Find out once what the normalization needs; for copies that are only evaluated."""
        if len(self.species) == 1:
            self.folded = float(self.mean), *(1 / self.scale[0]).tolist()
        self.subtracts = bool(self.mean.any())
        if hasattr(self.embedding, "settle"):
            self.embedding.settle()

    @torch.no_grad()
    def standardize(self, samples: Iterable[tuple[System, Edges]]) -> None:
        """Bring the radial and angular rows of every species to unit root mean square over the neighbors."""
        self.mean.zero_()
        self.scale.fill_(1.0)
        square, count = torch.zeros_like(self.scale), torch.zeros_like(self.mean)
        for system, edges in samples:
            center = self.species_of_number[system.numbers][edges.atoms][edges.center]
            table = self._rows(edges.vec, center)
            square.index_add_(0, center, torch.stack([table[1] ** 2, (table[2:5] ** 2).sum(dim=0) / 3], dim=1))
            count += torch.bincount(center, minlength=len(count))
        self.scale.copy_((square / count[:, None].clamp(min=1)).sqrt().clamp(min=1e-3))

    def _with_empty_slots(self, t, present, species):
        """Sums over the neighbors with those over empty slots, divided by the number of slots.

        There are no empty slots unless the mean of s is subtracted, which a Chebyshev series in r never needs.
        """
        if bool(self.mean.any()) if self.subtracts is None else self.subtracts:
            radial = self._of_empty_slots(present, species)
            t = t + torch.nn.functional.pad(radial[:, None], (0, 0, 0, t.shape[1] - 1))
        return t / sum(self.sel)

    def _of_empty_slots(self, present, species):
        """Contributions [C, M] of empty slots, whose zero rows are normalized too: s = -mean/scale."""
        empty = self._empty_slot() if self.empty_slot is None else self.empty_slot
        if len(empty) == 1:
            return torch.outer((self.slots - present * self.taken)[:, 0].to(empty.dtype), empty[0, 0])
        count = (self.slots[species] - present * self.taken[species]).to(empty.dtype)  # [C, species]
        return sum((count * (species == c)[:, None]) @ own for c, own in enumerate(empty))

    def _empty_slot(self):
        """s G(s) of an empty slot, by species of center and neighbor: [species, species, M]."""
        s = -self.mean / self.scale[:, 0]
        n = len(self.species)
        values = [self.embedding.values(s[c : c + 1], c, k)[0] * s[c] for c in range(n) for k in range(n)]
        return torch.stack(values).reshape(n, n, -1)

    def compressed(self, tolerance: float = 1e-11) -> "DeepPotSE":
        """Copy whose embedding nets are replaced by their Chebyshev series, several times faster to evaluate.

        The series covers the usual distances (see CLOSEST); for closer atoms the nets themselves are evaluated.
        """
        if self.n_basis is not None or isinstance(self.embedding, CompressedEmbedding):
            return self
        fast = copy.deepcopy(self)
        low = float((-self.mean / self.scale[:, 0]).min())
        high = float(((1 / self.closest() - self.mean) / self.scale[:, 0]).max())
        try:
            fast.embedding = CompressedEmbedding(fast.embedding, low, high, tolerance)
        except ValueError:  # nets with kinks have no short series
            return self
        fast.empty_slot = fast._empty_slot().detach()
        return fast

    @torch.no_grad()
    def condensed(self) -> "DeepPotSE | None":
        """Copy of a settled descriptor with fewer features that say the same, or None where it would not be faster.

        The columns of the moments T are combinations of the K functions of a series for each species, and so span few of
        M directions: with orthonormal directions V [M, R], T = T V V^T. The features of the copy are V^T D, from which
        D = V V^T D follows, and it has no frame. Atoms too close for the series get all features.
        """
        if self.directions is not None or getattr(self.embedding, "forth", None) is None:
            return None
        size = self.widths[-1]
        series = [self.embedding.coefficients.transpose(0, 1).flatten(1)]
        series += [] if self.empty_slot is None else [self.empty_slot.reshape(-1, size).T]
        axes, sizes, _ = torch.linalg.svd(torch.cat(series, dim=1).double().cpu(), full_matrices=False)
        found = int((sizes > NEGLIGIBLE * sizes[0]).sum())
        if found + self.n_axis >= size:
            return None
        fast = copy.deepcopy(self)
        fast.whole, fast.loops = self, None  # loops that were used have the tables of all columns
        columns = torch.cat([axes[:, :found], torch.eye(size, dtype=axes.dtype)[:, : self.n_axis]], dim=1)
        columns = columns.to(self.embedding.coefficients)
        fast.directions, fast.n_features, fast.n_frame = columns[:, :found], self.l_max * found * self.n_axis, 0
        fast.embedding = self.embedding.combined(columns)
        fast.empty_slot = None if self.empty_slot is None else self.empty_slot @ columns
        return fast

    def _are_too_close(self, edges):
        """Whether atoms are closer than the series of nets reaches."""
        least = (1 + 1e-6) * self.closest()  # beyond rounding
        if isinstance(self.embedding, ChebyshevEmbedding) or edges.shortest >= least or not len(edges.center):
            return False
        return bool((edges.distances.detach() < least).any())

    def shortened(self, table: Tensor) -> Tensor:
        """Rows [F', ...] of the features of a condensed copy, from those of all features [F, ...] in linear functions."""
        size, n = self.directions.shape[0], self.n_axis  # type: ignore[union-attr]  # a condensed copy
        parts = table.reshape(self.l_max, size, n * table.shape[1])
        return (self.directions.to(table).T @ parts).reshape(self.n_features, table.shape[1])  # type: ignore[union-attr]

    def whole_features(self, features: Tensor) -> Tensor:
        """All features [C, F] from those of a condensed copy, or of any other."""
        if self.directions is None or features.shape[1] == self.whole.n_features:
            return features
        parts = features.unflatten(1, (self.l_max, self.directions.shape[1], self.n_axis))
        return (self.directions.to(features) @ parts).flatten(1)
