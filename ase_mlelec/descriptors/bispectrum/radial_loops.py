"""Radial sums of ``descriptor.radial_sums`` and their derivatives as compiled loops over vectors, one center per lane.

With the square of the angle, t = (pi r/R)^2, the functions are F S_k/k, k > 0, where F = (1 - t/pi^2)^3 and S_k = sin(k
pi r/R)/(pi r/R); S_k and dS_k/dt follow from those of k - 1 and k - 2, and need no division. Arrays ``near`` and ``slot``
are those of ``neighbor_loops``; ``shells`` [species, species, 3] has, for each species, cutoffs, weights 1 and pi/R, where
the cutoffs of the others are 0, so that they are no neighbors. ``scalars`` are 2 and 1/pi^2.
"""

from ase_mlelec.compiled import compiled
from ase_mlelec.descriptors.bispectrum.neighbor_loops import (
    COSINE,
    KAPPA,
    SINE,
    SLOPE,
    WEIGHT,
    R,
    X,
    Z,
    gather,
    power_series,
    scatter,
)
from ase_mlelec.lanes import load, spread, store


@compiled
def inside_of(near, n_slots, n, series, scalars):
    """1 - t/pi^2 of a neighbor; t takes the place of its distance."""
    row = R * n_slots + n
    angle = load(near, KAPPA * n_slots + n) * load(near, row)
    store(near, row, angle * angle)
    return spread(series, COSINE) - load(near, row) * spread(scalars, 1)


@compiled
def add_functions(near, n_slots, n_near, series, scalars, sums):
    """Add F, then F S_k, of the neighbors to ``sums`` [K, lanes]."""
    one, two = spread(series, COSINE), spread(scalars, 0)
    for n in range(n_near):
        row, inside = R * n_slots + n, inside_of(near, n_slots, n, series, scalars)
        fade = inside * inside * inside * load(near, WEIGHT * n_slots + n)
        twice = two * power_series(series, COSINE, near, row)
        before, now = one - one, fade * power_series(series, SINE, near, row)
        store(sums, 0, load(sums, 0) + fade)
        for k in range(1, len(sums)):
            store(sums, k, load(sums, k) + now)
            before, now = now, twice * now - before


@compiled
def fill_sums(vec, kind, shells, series, scalars, scratch, found):
    """Fill ``found`` [C, species K]; ``scratch``: near, slot, sums."""
    near, slot, sums = scratch
    n_slots, lanes = slot.shape
    for start in range(0, vec.shape[1], lanes):
        for species in range(len(shells)):
            n_near = gather(vec, kind, shells[species], start, near, slot)
            sums[:] = 0
            add_functions(near, n_slots, n_near, series, scalars, sums)
            for lane in range(min(lanes, vec.shape[1] - start)):
                for k in range(len(sums)):
                    found[start + lane, species * len(sums) + k] = sums[k, lane] / max(k, 1)


@compiled
def functions_pull_back(near, n_slots, n_near, series, scalars, of_sums):
    """Derivatives by x, y, z of all neighbors, in the place of these; ``of_sums`` [K, lanes] are those by F and F S_k."""
    one, two = spread(series, COSINE), spread(scalars, 0)
    for n in range(n_near):
        row, kappa = R * n_slots + n, load(near, KAPPA * n_slots + n)
        inside = inside_of(near, n_slots, n, series, scalars)
        twice, now = two * power_series(series, COSINE, near, row), power_series(series, SINE, near, row)
        first, slope_now = now, power_series(series, SLOPE, near, row) / two
        before = slope_before = slope = one - one
        total = load(of_sums, 0)
        for k in range(1, len(of_sums)):
            total += load(of_sums, k) * now
            slope += load(of_sums, k) * slope_now
            slope_before, slope_now = slope_now, twice * slope_now - first * now - slope_before
            before, now = now, twice * now - before
        three = one + two
        slope = inside * inside * (inside * slope - three * spread(scalars, 1) * total)
        slope *= two * kappa * kappa * load(near, WEIGHT * n_slots + n)
        for direction in range(X, Z + 1):
            place = direction * n_slots + n
            store(near, place, slope * load(near, place))


@compiled
def fill_gradient(vec, kind, shells, series, scalars, scratch, of_found, gradient):
    """Fill ``gradient`` [3, C, K] where there are neighbors from the derivatives by the sums [C, species K]."""
    near, slot, of_sums = scratch
    n_slots, lanes = slot.shape
    for start in range(0, vec.shape[1], lanes):
        for species in range(len(shells)):
            n_near = gather(vec, kind, shells[species], start, near, slot)
            for lane in range(min(lanes, vec.shape[1] - start)):
                for k in range(len(of_sums)):
                    of_sums[k, lane] = of_found[start + lane, species * len(of_sums) + k] / max(k, 1)
            functions_pull_back(near, n_slots, n_near, series, scalars, of_sums)
            scatter(near, slot, n_near, start, gradient)
