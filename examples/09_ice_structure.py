"""Where are the protons of ice under pressure: at their molecule, or in the middle of the bond?

    python 09_ice_structure.py                          # the runs of 07_ice_infrared.py, as long as they are there
    python 09_ice_structure.py --repeat 4 --time 20     # 128 molecules

Molecular dynamics at 300 K with classical nuclei, that of 07_ice_infrared.py: what is there is not run again.  The pair
correlation function g_OH has two peaks where every proton belongs to one oxygen (ice VII), which run into each other
where protons hop (VII'), and one where they are in the middle of the bonds (ice X).  Both changes are located: where half
of the protons leave their oxygen within half a picosecond, and where half as many protons are in the middle of a bond as
at the most likely place.  Writes output/09_ice_structure.png.

Source: after Zhang et al. 2020, Fig. 1.
"""

import argparse
import importlib

import numpy as np
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_stack
from ase_mlelec.physics.spectra import block_error

infrared = importlib.import_module("07_ice_infrared")

EDGES = np.linspace(0.7, 2.0, 66)  # Å, of distances
WIDTH = 0.08  # Å, of bins of the difference of two distances, of which one is around zero
WINDOW = 25  # stored positions, half a picosecond
CHANGES = {  # by the place among the measures of order()
    1: "Half of the protons leave their side of the bond within 0.5 ps",
    2: "Half as many protons are in the middle of a bond as at the most likely place",
}


def distances(atoms, positions):
    """Distances O-H [m, protons, oxygens], Å, in a cubic cell."""
    side, oxygen = atoms.cell.lengths()[0], atoms.numbers == 8
    vectors = positions[:, ~oxygen, None].astype(float) - positions[:, None, oxygen]
    return np.linalg.norm(vectors - side * np.round(vectors / side), axis=-1)


def pair_correlation(found, volume):
    """g_OH [bins] of distances [m, protons, oxygens]."""
    counts, _ = np.histogram(found, EDGES)
    return counts * volume / found.size / (4 / 3 * np.pi * np.diff(EDGES**3))


def places(found):
    """Differences [m, protons], Å, of the distances to both oxygens of a bond, which are the nearest on average."""
    both = np.argsort(found.mean(axis=0), axis=1)[:, :2]
    first, second = (np.take_along_axis(found, both[None, :, k, None], axis=2)[..., 0] for k in range(2))
    return first - second


def order(along):
    """Measures of ``places``: their mean size, share of protons that stay, and density in the middle over the largest one.

    A proton stays whose mean place in a WINDOW is more than half of the mean size away from the middle.
    """
    size, n_windows = np.abs(along).mean(), max(1, len(along) // WINDOW)
    means = np.abs([part.mean(axis=0) for part in np.array_split(along, n_windows)])
    density = np.histogram(np.abs(along), np.append(0, WIDTH * (np.arange(16) + 0.5)))[0]
    density[0] *= 2  # its bin ends at zero
    return np.array([size, (means > size / 2).mean(), density[0] / density.max()])


def crossing(pressures, values, errors, level=0.5, n_draws=1000):
    """Pressure at which values that change monotonically reach a level, and its standard error; NaN if they do not."""
    rng, found = np.random.default_rng(0), []
    for drawn in [values, *(values + errors * rng.normal(size=(n_draws, len(values))))]:
        above = np.flatnonzero((drawn[1:] > level) != (drawn[:-1] > level))
        if len(above):
            k = above[0]
            share = (level - drawn[k]) / (drawn[k + 1] - drawn[k])
            found.append(pressures[k] + share * (pressures[k + 1] - pressures[k]))
    return (found[0], np.std(found[1:])) if len(found) > n_draws / 2 else (np.nan, np.nan)


def located(change, pressures, values, errors):
    """Line about the pressure of a change."""
    place, error = crossing(pressures, values, errors)
    return f"{change} " + ("at none of these pressures" if np.isnan(place) else f"at {place:.1f} ± {error:.1f} GPa")


def measures(atoms, run):
    """((g_OH, error), (order, error)) of a run, errors from blocks."""
    apart = distances(atoms, run["positions"])
    g = block_error(lambda part: pair_correlation(part, atoms.get_volume()), apart, infrared.N_BLOCKS)
    return g, order_of(apart)


def order_of(apart):
    """``order`` and its standard error from parts of a WINDOW, which are blocks of time, of distances of a run."""
    return block_error(order, places(apart), max(2, len(apart) // WINDOW))


def picture(pressures, found):
    figure = Figure(figsize=(10.5, 3.2 + 0.3 * len(pressures)), layout="constrained")
    left, right = figure.subplots(1, 2)
    radii, labels = (EDGES[1:] + EDGES[:-1]) / 2, [f"{pressure:.0f} GPa" for pressure in pressures]
    plot_stack(left, radii, [g for (g, _), _ in found], labels, errors=[error for (_, error), _ in found])
    left.set(xlabel="r (Å)", ylabel="$g_{OH}(r)$")
    values, errors = (np.array([order[k] for _, order in found]) for k in range(2))
    names = (
        "mean of |r$_1$ - r$_2$| (Å)",
        "share of protons that stay for 0.5 ps",
        "density in the middle, of the largest",
    )
    for k, (name, color) in enumerate(zip(names, COLORS)):
        right.errorbar(pressures, values[:, k], errors[:, k], fmt="o-", ms=4, capsize=2, color=color, label=name)
    right.set(xlabel="pressure (GPa)", ylim=(-0.05, 1.2))
    right.legend(frameon=False, fontsize="small")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    infrared.add_options(parser)
    arguments = parser.parse_args()
    calc, pressures, found = DeepWannierCalculator(arguments.model, on_extrapolation="warn"), [], []
    for _, atoms, run in infrared.runs(calc, arguments):
        pressures.append(run["pressure"].mean())
        found.append(measures(atoms, run))
        size, stay, middle = found[-1][1][0]
        print(
            f"{pressures[-1]:.1f} GPa: |r1 - r2| {size:.3f} Å, {100 * stay:.0f} % stay for 0.5 ps, {100 * middle:.0f} % in "
            "the middle of the most likely place",
            flush=True,
        )
    values, errors = (np.array([order[k] for _, order in found]) for k in range(2))
    for k, change in CHANGES.items():
        print(located(change, pressures, values[:, k], errors[:, k]))
    picture(pressures, found).savefig(arguments.output / "09_ice_structure.png", dpi=120)


if __name__ == "__main__":
    main()
