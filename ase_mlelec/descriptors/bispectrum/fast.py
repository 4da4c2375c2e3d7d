"""Bispectrum components, radial sums and their derivatives by the compiled loops."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.descriptors.bispectrum import group_loops, neighbor_loops, radial_loops
from ase_mlelec.descriptors.bispectrum.layout import layout
from ase_mlelec.descriptors.bispectrum.product_code import codes
from ase_mlelec.lanes import aligned, lanes

if TYPE_CHECKING:
    from ase_mlelec.descriptors.bispectrum.sphere import Shells

BLOCKS = 8  # vectors of centers between the loops over neighbors and those over the group: half a megabyte


class Evaluation:
    """Components of centers with neighbors at fixed vectors.

    Parameters
    ----------
    vec : Tensor [3, C, K], Å, float64 or float32
        On the CPU.
    kind : Tensor [C, K]
        Species of the neighbors.
    shells : Shells
        With rmin0 = 0.
    twojmax : int
    """

    def __init__(self, vec: Tensor, kind: Tensor, shells: "Shells", twojmax: int):
        self.vec, self.kind = vec.contiguous().numpy(), kind.contiguous().numpy()
        self.dtype = self.vec.dtype
        self.layout, self.codes = layout(twojmax, self.dtype), codes(twojmax, self.dtype)
        kappa = [shells.rfac0 * np.pi / cutoff for cutoff in shells.cutoffs]
        table = np.array([shells.cutoffs, shells.weights, kappa], self.dtype).T.copy()
        scalars = np.array([0.5, 1 / shells.rfac0], self.dtype)
        self.centers = self.vec, self.kind, table, scalars, shells.switch, tuple(self.layout.neighbors)
        self.tables, self.width = tuple(self.layout.components), lanes(self.dtype)
        self.scratch = self._near()

    def components(self) -> Tensor:
        """Components [C, F]."""
        found = np.empty((self.vec.shape[1], len(self.layout.components.places)), self.dtype)
        every, rules = self._blocks(self.layout.n_products), list(self._rules(1))
        for start, state in self._states():
            products = every[: len(state)]
            products[:] = 0
            for rule, scratch in rules:
                group_loops.add_all_products(state, rule, scratch, products)
            group_loops.fill_components(state, self.tables, products, start, found)
        return torch.from_numpy(found)

    def gradient(self, of_components: Tensor) -> Tensor:
        """Derivatives [3, C, K] by the vectors from those by the components [C, F]."""
        found, of = np.zeros_like(self.vec), of_components.contiguous().numpy()
        of_products, of_states = (self._blocks(n) for n in (self.layout.n_products, self.layout.n_state))
        rules = list(self._rules(2))
        for start, state in self._states():
            of_state = of_states[: len(state)]
            of_state[:] = 0
            group_loops.components_pull_back(state, self.tables, start, of, of_products[: len(state)], of_state)
            for (rule, scratch), code in zip(rules, self.codes):
                group_loops.all_products_pull_back(state, rule, code, scratch, of_products, of_state)
            neighbor_loops.fill_gradient(*self.centers, self.scratch, start, of_state, found)
        return torch.from_numpy(found)

    def _blocks(self, n_rows):
        """Array [blocks, rows, lanes]; it is used again and again, as the first use of memory takes long."""
        n_blocks = min(BLOCKS, -(-self.vec.shape[1] // self.width))
        return aligned((n_blocks, n_rows, self.width), self.dtype)

    def _states(self):
        """Iterator of (first center, state [blocks, rows, lanes]), the same array each time."""
        every, step = self._blocks(self.layout.n_state), BLOCKS * self.width
        for start in range(0, self.vec.shape[1], step):
            state = every[: -(-min(step, self.vec.shape[1] - start) // self.width)]
            neighbor_loops.fill_state(*self.centers, self.scratch, start, state)
            yield start, state

    def _rules(self, n_functions):
        """Iterator of (rule, arrays for it: planes, functions)."""
        for rule in self.layout.rules:
            n_rows = 8 * (len(rule.orders) - 1) * (rule.gamma.shape[1] + 1)
            rows = [8 * len(rule.blocks), *n_functions * [n_rows]]
            yield tuple(rule), tuple(aligned((n, self.width), self.dtype) for n in rows)

    def _near(self):
        """Arrays for the loops over neighbors."""
        tables, n_slots = self.layout.neighbors, max(4, -(-self.vec.shape[2] // 4) * 4)
        n_powers = 4 * len(tables.highest)
        rows = neighbor_loops.QUANTITIES * n_slots, 4 * len(tables.rows), n_powers, n_powers, len(tables.identity)
        first, *others = (aligned((n, self.width), self.dtype) for n in rows)
        return first, np.empty((n_slots, self.width), np.int64), *others


class RadialSums:
    """Radial sums of centers with neighbors at fixed vectors; arguments as of ``descriptor.radial_sums``, on the CPU."""

    def __init__(self, vec: Tensor, kind: Tensor, cutoffs: Sequence[float], n_radial: int):
        self.vec, kinds = vec.contiguous().numpy(), kind.contiguous().numpy()
        dtype, n_slots = self.vec.dtype, max(4, -(-vec.shape[2] // 4) * 4)
        self.shape, width = (vec.shape[1], len(cutoffs) * n_radial), lanes(dtype)
        shells = np.ones((len(cutoffs), len(cutoffs), 3))
        shells[:, :, 0], shells[:, :, 2] = np.diag(cutoffs), np.pi / np.array(cutoffs)
        scalars = np.array([2, 1 / np.pi**2], dtype)
        near, sums = (aligned((n, width), dtype) for n in (neighbor_loops.QUANTITIES * n_slots, n_radial))
        scratch = near, np.empty((n_slots, width), np.int64), sums
        series = layout(1, dtype).neighbors.series  # the same for all orders
        self.arguments = self.vec, kinds, shells.astype(dtype), series, scalars, scratch

    def sums(self) -> Tensor:
        """[C, species K]"""
        found = np.empty(self.shape, self.vec.dtype)
        radial_loops.fill_sums(*self.arguments, found)
        return torch.from_numpy(found)

    def gradient(self, of_sums: Tensor) -> Tensor:
        """Derivatives [3, C, K] by the vectors from those by the sums."""
        found = np.zeros_like(self.vec)
        radial_loops.fill_gradient(*self.arguments, of_sums.contiguous().numpy(), found)
        return torch.from_numpy(found)
