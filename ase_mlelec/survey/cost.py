"""How long a training will take and how much memory it needs, from the numbers of labels, weights, points and pairs.

Counts and formulas of the recipes; speeds from trainings of other data on one core.
"""

import math

import numpy as np

from ase_mlelec.survey.neighbors import neighbor_distances
from ase_mlelec.survey.whole import Survey

# those of ase_mlelec.train.basis, which needs torch
LABELS_PER_WEIGHT, FEWEST, MOST, WORK, TRIAL_SHARE, FULL, MOST_TRIED = 3, 200, 5000, 2.2e8, 0.5, 400, 3500
LARGEST, FOLDS, ENOUGH = 8000, 5, 100
MOST_DUAL = 16_000
TRIALS = 4  # of cutoffs; three to five
# structures to train on without which nothing is tried, and without which a matrix of the size of the weights is solved
# (ase_mlelec.train.recipes.linear_energy), and labels for each weight below which one of the size of the labels is solved
# (ase_mlelec.train.linear_energy)
FEW, IN_TURN, FEW_ROWS = 12, 4, 0.5
# seconds on one core, from closed forms of the public data in benchmarks/public.py: start, for each atom of a trial, and
# for each atom and weight; number of solutions, and operations a second
START, MOMENTS, ROWS, SOLUTIONS, OPERATIONS = 5.0, 0.003, 2e-6, 30, 1.5e10
# matrices of the size of the weights; memory of the program, GB; copies of the rows, and samples for error bars
MATRICES, PROGRAM, ROW_COPIES, SAMPLES, GROWN = 8, 0.4, 4, 64, 1.5
# default settings of [bispectrum], [ldos] and [hamiltonian]
FINGERPRINTS, REACH = 91, 4.67637  # numbers of a point, and radius of its surroundings, Å
HOPPING, STEPS, BATCH = 12.0, 2000, 4
# seconds on one core: for each point and neighbor of its fingerprints; for each point in an epoch, and for each weight of
# the net beside; for each pair of atoms in a step, and for its error bars; bytes of each number of a point
OF_NEIGHBORS, OF_POINTS, OF_WEIGHTS, OF_PAIRS, OF_BARS, BYTES = 1.1e-5, 7e-6, 3e-11, 5e-5, 8e-4, 40


def _said(what, seconds, memory):
    time = f"{seconds / 60:.2g} minutes" if seconds < 5400 else f"{seconds / 3600:.2g} hours"
    return f"Expected: {what}, {time} of one core and {memory:.1f} GB, within a factor of three"


def _fit(n_atoms, n_labels, n_weights):
    """Seconds of rows and solutions."""
    size = n_labels if n_labels < FEW_ROWS * n_weights else n_weights
    operations = 2 * n_labels * n_weights * size + SOLUTIONS * size**3 / 3
    return ROWS * n_atoms * n_weights + operations / OPERATIONS


def _memory(n_labels, n_weights):
    """GB of the rows, or of the matrices of the size of the weights."""
    few = n_labels < FEW_ROWS * n_weights
    return PROGRAM + 8 * (ROW_COPIES * (n_labels + SAMPLES) if few else MATRICES * n_weights) * n_weights / 1e9


def _most_weights(n_labels, n_species, n_structures):
    """Largest number of weights, as of ase_mlelec.train.basis.largest_basis."""
    if n_labels < FEW_ROWS * MOST:
        return min(MOST_DUAL, MOST * n_species)
    n_folds = min(FOLDS, math.ceil(ENOUGH * FOLDS / n_structures))
    return max(MOST, LARGEST / n_folds**0.5) if n_labels > LABELS_PER_WEIGHT * MOST else MOST


def expected(found: Survey, held: int) -> str:
    """Sentence on time and memory of an energy in closed form, of which ``held`` structures are held out."""
    frames, names = found.frames, ("energy", "forces", "virial")
    n_labels = sum(np.size(frame.labels[name]) for frame in frames for name in names if name in frame.labels)
    n_atoms, n_species = int(found.structures.n_atoms.sum()), len(found.structures.species)
    n_train = found.structures.n_frames - held
    rows = n_labels if n_train >= IN_TURN else math.inf
    largest = int(min(_most_weights(rows, n_species, n_train), WORK / n_atoms))
    if n_train < FEW:
        n_weights = largest
        seconds = START + MOMENTS * n_atoms + _fit(n_atoms, n_labels, n_weights)
    else:
        n_weights = int(max(min(n_labels / LABELS_PER_WEIGHT, largest), FEWEST * n_species))
        tried = min(n_atoms, MOST_TRIED)
        share = min(TRIAL_SHARE, tried / n_atoms)
        in_trials = max(share * n_weights, min(n_weights, FULL * n_species))
        trial = MOMENTS * tried + _fit(tried, n_labels * tried / n_atoms, in_trials)
        seconds = START + TRIALS * trial + _fit(n_atoms, n_labels, largest)
        if n_weights < largest / GROWN:  # sizes are tried
            seconds += MOMENTS * tried + _fit(tried, n_labels * tried / n_atoms, largest * tried / n_atoms)
    memory = _memory(rows, largest)
    weights = f"{n_weights}" if n_weights >= largest / GROWN else f"{n_weights} to {largest}"
    what = f"{n_labels} labels for about {weights} weights"
    return f"{_said(what, seconds, memory)} (from the numbers of labels and weights, by trainings on other data)."


def expected_ldos(found: Survey, epochs: int, widths: tuple[int, int]) -> str:
    """Sentence on time and memory of a local density of states."""
    n_points, n_energies = int(found.frames.attributes["points"]), len(found.frames.energies)
    weights = FINGERPRINTS * widths[0] + widths[0] * widths[1] + widths[1] * n_energies
    around = found.structures.neighbors * (REACH / 6) ** 3
    seconds = START + n_points * (2 * OF_NEIGHBORS * around + epochs * (OF_POINTS + OF_WEIGHTS * weights))
    memory = PROGRAM + BYTES * n_points * (FINGERPRINTS + n_energies) / 1e9
    return _said(f"{n_points} points in {epochs} epochs", seconds, memory) + "."


def expected_hamiltonian(found: Survey) -> str:
    """Sentence on time and memory of a Hamiltonian."""
    some = found.frames.frames[:: max(1, len(found.frames) // 20)]
    pairs = float(np.mean([len(neighbor_distances(frame.atoms, HOPPING)[0]) for frame in some]))
    n = len(found.frames)
    seconds = START + pairs * (STEPS * min(BATCH, n) * OF_PAIRS + n * OF_BARS)
    memory = PROGRAM + BATCH * pairs * 2e-5
    return _said(f"{pairs:.0f} pairs of atoms within {HOPPING:g} Å in {STEPS} steps", seconds, memory) + "."
