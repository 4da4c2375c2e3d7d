"""The root of the number of electrons in the Fermi level, one density of states at a time, in NumPy.

Everything that does not change with the level is computed once: the integral of the density of states up to every
grid point, and the points of a Gauss-Legendre quadrature with their weights times the density of states. What is left
for every level that is tried are Fermi functions of some thousand numbers.
"""

import math

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-13  # electrons per state of the grid that count as none: 500 times the rounding of N(μ)
COLDEST_KT = 1e-12  # eV; below it, points kT apart are not told apart, and the limit at temperature 0 is exact
WINDOW, MOVE = 48, 8  # kT: half the width of the thermal window that is integrated, and how far μ moves within it
FINEST = 20.7  # -ln of the relative error of the quadrature
MAX_ITERATIONS = 200  # bisection alone needs 60


def fermi_level(energies: NDArray, dos: NDArray, n_electrons: float, kT: float) -> float:
    """Fermi level, eV, of one density of states that is linear between the points of a grid.

    It is the midpoint of the two levels at which N differs from n_electrons by a rounding error more and less. In a
    metal the two coincide. Within a gap, holes at the one equal electrons at the other; since both are exponential in
    μ/kT, they equal each other at the midpoint: the neutrality condition that N - n cannot resolve.

    Parameters
    ----------
    energies, dos : arrays [S], eV and states/eV
    n_electrons : float
    kT : float, eV
    """
    filling = Filling(energies, dos, kT)
    return filling.level_when_cold(n_electrons) if kT < COLDEST_KT else filling.level(n_electrons)


class Filling:
    """Electrons N(μ) in a density of states, and the μ that belongs to a number of them; arguments as above."""

    def __init__(self, energies: NDArray, dos: NDArray, kT: float) -> None:
        self.energies, self.dos, self.kT = energies, dos, kT
        self.width = np.diff(energies)
        self.below = np.concatenate([[0.0], np.cumsum(0.5 * self.width * (dos[1:] + dos[:-1]))])  # ∫ D up to a point
        self.flat = FLAT * np.dot(0.5 * self.width, abs(dos[1:]) + abs(dos[:-1]))
        self.is_narrow = bool((self.width <= kT).all())
        self.center: float | None = None

    # temperature 0 ----------------------------------------------------------------------------------------------

    def level_when_cold(self, n_electrons: float) -> float:
        """The limit of ``level`` at temperature 0."""
        first, place = self._filled_up_to(n_electrons - self.flat, 0)
        middle = 0.5 * (first + self._filled_up_to(n_electrons + self.flat, place)[0])
        return middle if abs(self._integral(middle) - n_electrons) <= 2 * self.flat else first

    def _integral(self, energy):
        """∫ D up to an energy within the grid."""
        k = min(max(int(np.searchsorted(self.energies, energy, side="right")) - 1, 0), len(self.width) - 1)
        x = energy - self.energies[k]
        return self.below[k] + x * (self.dos[k] + 0.5 * x * (self.dos[k + 1] - self.dos[k]) / self.width[k])

    def _filled_up_to(self, number, place):
        """(energy, segment): where the integral of the density of states reaches a number, in ``place`` or behind."""
        reached = np.flatnonzero(self.below[place + 1 :] >= number)
        if number <= self.below[0] or not len(reached):
            return (self.energies[0], 0) if number <= self.below[0] else (self.energies[-1], len(self.width) - 1)
        k = place + int(reached[0])
        left = self.dos[k]
        slope, missing = (self.dos[k + 1] - left) / self.width[k], number - self.below[k]
        # the root of left x + slope x²/2 = missing that does not cancel
        rooted = left + math.sqrt(max(left * left + 2 * slope * missing, 0.0))
        x = 2 * missing / rooted if rooted > 0 else self.width[k]
        return self.energies[k] + min(max(x, 0.0), self.width[k]), k

    # higher temperatures ----------------------------------------------------------------------------------------

    def level(self, n_electrons: float) -> float:
        """μ with N(μ) = n_electrons; see ``fermi_level`` for gaps."""
        start = self.level_when_cold(n_electrons)
        mu, slope = self._root(n_electrons, 0, start)
        if slope > 0 and self.flat / slope < min(1e-8, 1e-4 * self.kT):
            return mu
        middle = 0.5 * sum(self._root(n_electrons, sign, start)[0] for sign in (-1, 1))
        # where the density of states is negative, too, the two may lie on either side of something else than a gap
        return middle if abs(self.count(middle)[0] - n_electrons) <= 2 * self.flat else mu

    def _root(self, n_electrons, sign, mu):
        """(μ, dN/dμ) where N(μ) = n + sign * flat, from a guess.

        Newton steps; near the edges of a gap of the logarithm, because there electrons and holes are exponential
        in μ. Bisection where they leave the bracket or fail to halve.
        """
        low, high = self.energies[0] - 50 * self.kT, self.energies[-1] + 50 * self.kT
        step, resolution = high - low, 1e-16 * max(abs(self.energies[0]), abs(self.energies[-1]))
        for _ in range(MAX_ITERATIONS):
            number, slope = self.count(mu)
            excess = number - n_electrons - sign * self.flat
            if abs(excess) <= 0.01 * self.flat or abs(step) <= resolution:
                break
            low, high = (mu, high) if excess < 0 else (low, mu)
            carriers = sign * (number - n_electrons)
            if carriers > self.flat and slope > 0:
                newton = mu - sign * math.log(carriers / self.flat) * carriers / slope
            else:
                newton = mu - excess / slope if slope else math.inf
            safe = low < newton < high and abs(newton - mu) < 0.5 * abs(step)
            following = newton if safe else 0.5 * (low + high)
            mu, step = following, following - mu
            if safe and step * step < 1e-17 * self.kT:  # what the next step would be
                break
        return mu, slope

    def count(self, mu: float) -> tuple:
        """(N, dN/dμ), electrons and electrons/eV."""
        if self.center is None or (not self.is_narrow and abs(mu - self.center) > MOVE * self.kT):
            self.center = mu
            self._look_around(mu)
        power = np.exp(np.minimum(self.x - (mu - self.center) / self.kT, 700.0))
        occupied = 1 / (1 + power)
        return (
            self.filled + float(np.dot(self.states, occupied)),
            float(np.dot(self.states, power * occupied * occupied)) / self.kT,
        )

    def _look_around(self, mu):
        """Points of the quadrature around a level: x = (ε - center)/kT, the states at each, and those below all."""
        energies, dos, self.filled = self.energies, self.dos, 0.0
        if not self.is_narrow:  # where f is neither 1 nor 0, in segments that are no wider than kT
            between = mu + self.kT * np.arange(-WINDOW, WINDOW + 1)
            ends = np.clip(between[[0, -1]], energies[0], energies[-1])
            inside = np.clip(np.concatenate([energies, between]), *ends)
            energies = np.unique(inside)
            dos = np.interp(energies, self.energies, self.dos)
            self.filled = self._integral(ends[0])
        width = np.diff(energies)
        node, weight = _gauss(width.max(initial=0.0) / self.kT)
        self.x = ((energies[:-1, None] - mu + width[:, None] * node) / self.kT).ravel()
        self.states = (width[:, None] * weight * (dos[:-1, None] + np.diff(dos)[:, None] * node)).ravel()


_RULES = {n: np.polynomial.legendre.leggauss(n) for n in range(2, 11)}


def _gauss(width):
    """Nodes and weights on [0, 1] that integrate f over segments of a width, in kT, of 1 at most.

    f has poles at x = ±iπ: an n-point rule errs by ρ^(-2n) where ρ + 1/ρ is four times their distance over the width.
    """
    half = math.pi / max(0.5 * width, 1e-3)
    n = math.ceil(FINEST / math.log(half + math.hypot(half, 1)))
    node, weight = _RULES[min(max(n, 2), 10)]
    return 0.5 + 0.5 * node, 0.5 * weight
