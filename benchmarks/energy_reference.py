"""Which zero should the energies of a density of states have?  Writes ENERGY_REFERENCE.md beside this file.

    python benchmarks/energy_reference.py ../shared/reference/deepmd

References of each structure, for the same spectra, features and folds:

- potential: the average electrostatic potential of the cell, as plane-wave programs have it;
- Fermi: the Fermi level of the structure;
- adaptive: shifts of the training structures that minimize the error of the fit together with its weights (arXiv
  2407.01068), in closed form for the weights, within 1.2 eV of where the search begins, which is in brackets.

Of silicon, structures whose spectra reach 2.5 eV above the Fermi level.  They are left out in five blocks of consecutive
ones.  The ridge is the best of each reference, which is the same favor for all.  Errors of the ADOS are root mean squares
over the energies that all references know; *aligned*: after the shift of each structure that makes its error least, which
takes no account of the reference; that is the fair comparison, as the paper makes it.  Gap and density of states at the
Fermi level, N(E_F), follow from the predicted spectra alone, whatever their zero, and are compared with those of labels.
"""

import argparse
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from spectra_defaults import heat, trained
from spectra_defaults import own as own_set

from ase_mlelec.data.batches import Batches
from ase_mlelec.physics import fermi
from ase_mlelec.physics.gap import gap_of_dos
from ase_mlelec.quantities import QUANTITIES

TABLE = Path(__file__).parent / "ENERGY_REFERENCE.md"
SETS = ["si", "mgo", "heat-221"]
FOLDS, TURNS = 5, 10
FIRST = 1e-3  # ridge
ADAPTIVE = "adaptive ({})"
MARGIN, REACH = 1.2, 0.6  # eV: shifts from where they begin, in training; shifts that align a prediction
ABOVE, ELECTRONS = 2.5, 3.946  # eV above the Fermi level in the spectra of silicon, and electrons per atom in them
STEP = 0.1  # eV; taken for that of the grid of heat-221, whose energies are not known


class Problem(NamedTuple):
    """Structures with labels, levels of references on the scale of the labels, and columns of the linear problem."""

    labels: list  # CubicSpline of [N, S]
    grid: np.ndarray
    levels: dict  # reference -> array [n], eV
    fermi_levels: np.ndarray | None
    columns: list  # [N, P]
    species: list  # [N]
    electrons: float | None  # per atom, in the spectra
    attributes: dict


def load(name, folder):
    """Problem of a data set, without the structures that are tests."""
    if name == "heat-221":
        frames = heat(folder, ())
        frames = replace(frames, energies=STEP * np.asarray(frames.energies))
    else:
        frames = own_set({"si": "silicon.h5", "mgo": "mgo.h5"}[name])
        frames = frames.where(lambda frame: frame.group == "train" and len(frame.atoms) == 8)
    grid, attributes = np.asarray(frames.energies, dtype=float), frames.attributes
    if name == "si":
        top = grid[-1] - ABOVE
        frames = frames.where(lambda frame: level_of(frame.labels["ados"].mean(0), grid, ELECTRONS, attributes) < top)
    model, _ = trained(frames, "dos", {})
    columns, species = hidden(model, frames)
    counts = model.metadata.get("electrons_in_dos")
    electrons, levels, zero = None, {"as given": np.zeros(len(frames))}, None
    if counts:
        electrons = float(np.mean([np.mean([counts[symbol] for symbol in f.atoms.symbols]) for f in frames]))
    if name == "si":
        zero = np.array([level_of(f.labels["ados"].sum(0), grid, electrons * len(f.atoms), attributes) for f in frames])
        levels = {"potential": np.zeros(len(frames)), "Fermi": zero}
    if name == "mgo":
        above = np.array([attributes["electronic_levels"][f.name][0] for f in frames])
        zero = np.zeros(len(frames))
        levels = {"potential": -above, "Fermi": zero}
    labels = [CubicSpline(grid, f.labels["ados"], axis=1) for f in frames]
    return Problem(labels, grid, levels, zero, columns, species, electrons, attributes)


def level_of(total, grid, electrons, attributes):
    """Fermi level of a total DOS, eV."""
    return float(fermi.fermi_level(grid, total, electrons, attributes["settings"]["electronic_temperature_K"]))


def hidden(model, frames):
    """Drawn functions and a constant [N, P] of the atoms of each structure, and their species [N]."""
    nets, descriptor = model.heads["dos"].nets, model.descriptor_of("dos")
    batches, found = Batches.for_model(model, frames, QUANTITIES["dos"].labels), []
    for k in range(len(frames)):
        batch = batches.batch([k])
        with torch.no_grad():
            environment = descriptor(batch.system, batch.edges())
            rows = torch.zeros(len(environment.features), nets.last[0].in_features + 1, dtype=torch.float64)
            for s in range(len(model.species)):
                mine = environment.species == s
                x = (environment.features[mine] - nets.shift[s]) * nets.inverse[s]
                rows[mine, :-1], rows[mine, -1] = nets.hidden[s](x), 1.0
        found.append((rows.numpy(), environment.species.numpy()))
    return tuple(zip(*found))


def at(label, grid, energies):
    """Label [N, S] at energies: 0 below its grid, which begins below the bands."""
    return np.where(energies < grid[0], 0.0, label(np.maximum(energies, grid[0])))


def aligned(reference, function, reach, points=25):
    """(shift for which function(shift) [N, S] is nearest to a reference [N, S], mean square of what is left)."""
    shifts = np.linspace(-reach, reach, points)
    errors = np.array([np.mean((function(shift) - reference) ** 2) for shift in shifts])
    k = int(np.clip(errors.argmin(), 1, len(shifts) - 2))
    curvature, slope, value = np.polyfit(shifts[k - 1 : k + 2] - shifts[k], errors[k - 1 : k + 2], 2)
    step = np.clip(-slope / (2 * curvature), shifts[0] - shifts[1], shifts[1] - shifts[0]) if curvature > 0 else 0.0
    return shifts[k] + step, max(value + slope * step + curvature * step**2, 0.0)


class Fit:
    """Ridge regression in the rows of some structures."""

    def __init__(self, problem, chosen, ridge):
        self.chosen, counts = chosen, [len(problem.species[k]) for k in chosen]
        self.ends = np.cumsum(counts)[:-1]
        self.rows, self.species = self._joined(problem, chosen)
        kernel = self.rows @ self.rows.T * (self.species[:, None] == self.species)
        self.ridge = ridge * np.trace(kernel) / (self.rows.shape[1] * len(np.unique(self.species)))
        self.inverse = np.linalg.inv(kernel + self.ridge * np.eye(len(kernel)))

    @staticmethod
    def _joined(problem, chosen):
        return (np.concatenate([part[k] for k in chosen]) for part in (problem.columns, problem.species))

    def _centered(self, targets):
        values, self.means = np.concatenate(targets), {}
        for s in np.unique(self.species):
            self.means[s] = values[self.species == s].mean(axis=0)
        return values - self._mean(self.species)

    def _mean(self, species):
        return np.array([self.means[s] for s in species])

    def predict(self, problem, targets, others):
        """Predictions [N, S] for other structures."""
        weights = self.inverse @ self._centered(targets)
        found = []
        for k in others:
            kernel = problem.columns[k] @ self.rows.T * (problem.species[k][:, None] == self.species)
            found.append(kernel @ weights + self._mean(problem.species[k]))
        return found


def targets_of(problem, chosen, levels, grid):
    return [at(problem.labels[k], problem.grid, grid + levels[k]) for k in chosen]


def adapted(problem, fit, levels, grid):
    """Levels of the structures of a fit that minimize its least squares with the ridge; their mean stays.

    The least squares of the best weights are y^T Q y, Q = ridge (K + ridge)^-1, with a row y of every atom and energy: up
    to a constant the likelihood of a Gaussian process.  Newton's method in the shifts, whose derivative is that of y.
    """
    found, begin = levels.copy(), levels[fit.chosen].mean()
    same = fit.species[:, None] == fit.species
    center = np.eye(len(same)) - same / same.sum(axis=1)
    weights = center @ fit.inverse @ center
    slopes = {k: problem.labels[k].derivative() for k in fit.chosen}
    starts = np.concatenate([[0], fit.ends])
    for _ in range(TURNS):
        y = np.concatenate(targets_of(problem, fit.chosen, found, grid))
        d = np.concatenate([at(slopes[k], problem.grid, grid + found[k]) for k in fit.chosen])
        gradient = np.add.reduceat(((weights @ y) * d).sum(axis=1), starts)
        curvature = np.add.reduceat(np.add.reduceat(weights * (d @ d.T), starts, axis=0), starts, axis=1)
        shift = -np.linalg.lstsq(curvature, gradient, rcond=1e-6)[0]
        found[fit.chosen] += np.clip(shift, -0.3, 0.3)
        found[fit.chosen] += begin - found[fit.chosen].mean()
        found = np.clip(found, levels - MARGIN, levels + MARGIN)
    return found


def grids(problem):
    """(grid of each reference; energies from the level of comparison at which errors are taken)."""
    low, step, end = problem.grid[0], problem.grid[1] - problem.grid[0], problem.grid[-1]
    found = {
        name: np.arange(low - levels.max(), end - levels.max() - MARGIN, step)
        for name, levels in problem.levels.items()
    }
    zero = problem.fermi_levels if problem.fermi_levels is not None else np.zeros(len(problem.labels))
    top = min((found[name][-1] + levels - zero).min() for name, levels in problem.levels.items()) - REACH
    bottom = max((found[name][0] + levels - zero).max() for name, levels in problem.levels.items()) + REACH
    return found, np.arange(bottom, top, step), zero


def number_of(problem, total, grid, n_atoms):
    """Gap, eV, of an insulator, or density of states at the Fermi level, states/eV per atom, of a metal; else NaN."""
    if problem.electrons is None:
        return np.nan
    per_atom = np.maximum(total, 0.0) / n_atoms
    if "electronic_levels" in problem.attributes:
        width = problem.attributes["dos_width_eV"]
        gap = gap_of_dos(
            torch.from_numpy(grid), torch.from_numpy(per_atom), problem.electrons, width=width, tolerance=0.05
        )
        return np.nan if gap is None else float(gap.cbm - gap.vbm)
    return float(np.interp(level_of(per_atom, grid, problem.electrons, problem.attributes), grid, per_atom))


def errors_of(problem, name, begin, ridge):
    """Pooled errors of structures left out, dict; ``begin`` is the reference where an adaptive one begins, or None."""
    all_grids, window, zero = grids(problem)
    levels, grid = problem.levels[begin or name], all_grids[begin or name]
    n, rows = len(problem.labels), []
    blocks = np.arange(n) * min(FOLDS, n) // n
    for block in range(blocks.max() + 1):
        inside, outside = np.flatnonzero(blocks != block), np.flatnonzero(blocks == block)
        fit = Fit(problem, inside, ridge)
        own = adapted(problem, fit, levels, grid) if begin else levels
        predicted = fit.predict(problem, targets_of(problem, inside, own, grid), outside)
        rows += [row_of(problem, k, p, grid, levels[k], window + zero[k]) for k, p in zip(outside, predicted)]
    direct, best, total, number = np.array(rows).T
    return {
        "direct": np.nan if begin else np.sqrt(direct.mean()),
        "aligned": np.sqrt(best.mean()),
        "total": np.sqrt(total.mean()),
        "number": np.nanmean(abs(number)) if np.isfinite(number).any() else np.nan,
    }


def row_of(problem, k, predicted, grid, level, energies):
    """Squared errors of a structure: of its ADOS as it is and aligned, of its aligned total; error of gap or N(E_F)."""
    label, spline = at(problem.labels[k], problem.grid, energies), CubicSpline(grid, predicted, axis=1)
    shift, best = aligned(label, lambda d: spline(energies - level + d), REACH)
    off = (spline(energies - level + shift) - label).sum(axis=0) / len(label)
    known = number_of(problem, at(problem.labels[k], problem.grid, problem.grid).sum(axis=0), problem.grid, len(label))
    found = number_of(problem, predicted.sum(axis=0), grid, len(label))
    return np.mean((spline(energies - level) - label) ** 2), best, np.mean(off**2), found - known


def rows_of(name, folder):
    problem = load(name, folder)
    yield name, len(problem.labels), problem
    best = {}
    for case, begin in [(each, None) for each in problem.levels] + [
        (ADAPTIVE.format(each), each) for each in problem.levels
    ]:
        ridge, found = best_ridge(problem, case, begin, best.get(begin, FIRST))
        best[case] = ridge
        print(name, case, f"ridge {ridge:.0e}", found, flush=True)
        yield case, ridge, found


def best_ridge(problem, case, begin, ridge):
    """(ridge with the least aligned error, by steps of a factor of ten from ``ridge`` on; errors)"""
    tried = {}

    def error(exponent):
        if exponent not in tried:
            tried[exponent] = errors_of(problem, case, begin, 10.0**exponent)
        return tried[exponent]["aligned"]

    here = round(np.log10(ridge))
    while (there := min((here - 1, here, here + 1), key=error)) != here:
        here = there
    return 10.0**here, tried[here]


def lines_of(name, folder):
    """Lines of the table of one data set."""
    (_, n, problem), *rows = rows_of(name, folder)
    _, window, _ = grids(problem)
    what = "gap" if "electronic_levels" in problem.attributes else "N(E_F)"
    for case, ridge, found in rows:
        values = [found[key] for key in ("direct", "aligned", "total", "number")]
        shown = " | ".join("-" if np.isnan(value) else f"{value:.4f}" for value in values)
        span = f"{window[0]:.0f} to {window[-1]:.0f} eV"
        yield f"| {name}, {n} | {span} | {case} | {ridge:.0e} | {shown} | {what} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with deepmd-kit's heat-221 in dos/")
    parser.add_argument("--only", nargs="+", default=SETS, help="some of the sets; the lines of the others stay")
    arguments = parser.parse_args()
    known = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    lines = {name: [line for line in known if line.startswith(f"| {name},")] for name in SETS}
    for name in arguments.only:
        lines[name] = [*lines_of(name, arguments.data)]
        TABLE.write_text("\n".join([HEAD, *chain(*lines.values())]) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


HEAD = """# Zero of the energies of a density of states

Regenerated by `python benchmarks/energy_reference.py DATA`, whose text explains the columns. Root mean square errors on
structures left out: of the ADOS in states/eV, as it is and aligned; of the aligned total DOS in states/eV/atom. Mean
absolute error of gap (eV) or density of states at the Fermi level (states/eV/atom), which need no zero.

The Fermi level gains a quarter for the insulator, and 1 to 3 % for silicon; adaptive shifts gain at most 3 % more, and none
where they begin far from an optimum, as from the potential of magnesium oxide. There is therefore no such setting.

| set, structures | energies | reference | ridge | ADOS | ADOS, aligned | total, aligned | gap or N(E_F) | which |
|---|---|---|---|---|---|---|---|---|"""

if __name__ == "__main__":
    main()
