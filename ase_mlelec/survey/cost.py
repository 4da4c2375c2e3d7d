"""Expected time and memory of a training, before any of it."""

import numpy as np

from ase_mlelec.survey.whole import Survey

# those of ase_mlelec.train.basis, which needs torch
LABELS_PER_WEIGHT, FEWEST, MOST, WORK, TRIAL_SHARE, FULL, MOST_TRIED = 3, 200, 5000, 2.2e8, 0.5, 400, 3500
TRIALS = 4  # of cutoffs; three to five
# seconds on one core, from closed forms of the public data in benchmarks/public.py: start, for each atom of a trial, and
# for each atom and weight; number of solutions, and operations a second
START, MOMENTS, ROWS, SOLUTIONS, OPERATIONS = 5.0, 0.003, 2e-6, 30, 1.5e10
MATRICES, PROGRAM = 8, 0.4  # matrices of the size of the weights; memory of the program, GB


def _fit(n_atoms, n_labels, n_weights):
    """Seconds of rows and solutions."""
    operations = 2 * n_labels * n_weights**2 + SOLUTIONS * n_weights**3 / 3
    return ROWS * n_atoms * n_weights + operations / OPERATIONS


def expected(found: Survey) -> str:
    """Sentence on time and memory of an energy in closed form."""
    frames, names = found.frames, ("energy", "forces", "virial")
    n_labels = sum(np.size(frame.labels[name]) for frame in frames for name in names if name in frame.labels)
    n_atoms = int(found.structures.n_atoms.sum())
    most = min(MOST, WORK / n_atoms)
    n_weights = int(max(min(n_labels / LABELS_PER_WEIGHT, most), FEWEST * len(found.structures.species)))
    tried = min(n_atoms, MOST_TRIED)
    share = min(TRIAL_SHARE, tried / n_atoms)
    in_trials = max(share * n_weights, min(n_weights, FULL * len(found.structures.species)))
    trial = MOMENTS * tried + _fit(tried, n_labels * tried / n_atoms, in_trials)
    seconds = START + TRIALS * trial + _fit(n_atoms, n_labels, n_weights)
    memory = PROGRAM + MATRICES * 8 * n_weights**2 / 1e9
    return (
        f"Expected: {n_labels} labels for about {n_weights} weights, {seconds / 60:.2g} minutes of one core and "
        f"{memory:.1g} GB, within a factor of three (from the numbers of labels and weights, by trainings on other "
        "data)."
    )
