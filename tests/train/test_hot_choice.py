"""How the energy at another temperature of the electrons is chosen: beginning, weights and ridge, by structures left out."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_data import labels_of, make_frames

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors.ace import ACE, Order
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.train.config import EnergyConfig
from ase_mlelec.train.energy_rows import plain_rows
from ase_mlelec.train.last_layer import n_weights
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.log import Log
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.recipes import hot_energies
from ase_mlelec.train.recipes.linear_energy import chooses_by
from ase_mlelec.train.standardize import standardize

LABELS = ("energy", "forces")
RIDGES = 10.0 ** np.arange(-13, 0)
SAME = 0.05  # the sum of two logarithms of errors; the search prefers larger ridges by 0.01, lower weights by 0.02


def cold_energy(frames):
    """Linear energy fitted to structures."""
    model = Model(ACE(["Cu"], inner=2.0, orders=[Order(4.5, 8), Order(4.5, 6, 6)]), {}).double()
    model.heads["energy"] = ScalarHead(1, model.descriptor.n_features, ()).double()
    torch.nn.init.zeros_(model.heads["energy"].nets.last[0].weight)
    standardize(model, frames)
    fit_linear(model, frames, EnergyLoss((1, 1), (1, 1), (0, 0)), 1e-8, progress=False)
    return model


def hotter(frames, share, unlike):
    """Frames whose labels are a share of the former ones, the labels of larger cells, and noise."""
    rng, found = np.random.default_rng(0), []
    for frame in frames:
        larger = frame.atoms.copy()
        larger.set_cell(1.15 * larger.cell, scale_atoms=True)
        other, own = labels_of(larger), frame.labels
        labels = {k: share * own[k] + unlike * other[k] + 0.003 * rng.normal(size=np.shape(own[k])) for k in LABELS}
        found.append(replace(frame, labels=labels))
    return Frames(found, None, frames.attributes)


def rows(model, frames):
    """Matrix and targets of every structure by label, in NumPy."""
    batches = Batches.for_model(model, frames, LABELS).with_label(*LABELS)
    found = [plain_rows(model, batches.batch([k]), LABELS) for k in range(len(frames))]
    return [{name: [part.detach().numpy() for part in pair] for name, pair in each.items()} for each in found]


def score(parts, weights, ridge):
    """Mean of ``score_of`` over the parts behind the first, each left out of a fit to all others."""
    found = []
    for k in range(1, len(parts)):
        fitted = [each for j, part in enumerate(parts) if j != k for each in part]
        found.append(score_of(fitted, parts[k], weights, ridge))
    return np.mean(found)


def score_of(fitted, apart, weights, ridge):
    """Sum of the logarithms of the errors of energies per atom and forces in rows ``apart``, of a fit to rows ``fitted``."""
    n_atoms = [[len(each["forces"][1]) // 3 for each in part] for part in (fitted, apart)]
    matrix, right = 0.0, 0.0
    for name in LABELS:  # squares of energies count per atom, of forces per component and structure
        roots = [n ** (-1.0 if name == "energy" else -0.5) / (1 if name == "energy" else 3**0.5) for n in n_atoms[0]]
        own = np.concatenate([root * each[name][0] for root, each in zip(roots, fitted)])
        rest = np.concatenate([root * each[name][1] for root, each in zip(roots, fitted)])
        matrix = matrix + weights[name] / (rest @ rest) * own.T @ own
        right = right + weights[name] / (rest @ rest) * own.T @ rest
    change = np.linalg.solve(matrix + ridge * np.mean(np.diag(matrix)) * np.eye(len(matrix)), right)
    errors = {
        name: np.concatenate(
            [
                (each[name][0] @ change - each[name][1]) / (n if name == "energy" else 1)
                for n, each in zip(n_atoms[1], apart)
            ]
        )
        for name in LABELS
    }
    return sum(np.log(np.abs(each).mean()) for each in errors.values())


@pytest.mark.slow
@pytest.mark.parametrize("share, unlike", [(0.9, 0.0), (0.0, 1.0)])
def test_beginning_weights_and_ridge_have_the_smallest_errors_on_structures_left_out(share, unlike):
    """Of all ridges, with and without the cold energy to begin with, and of weights of energies around the chosen one."""
    frames = make_frames(40)
    cold, hot = {300.0: cold_energy(frames)}, hotter(frames.take(range(24)), share, unlike)
    fit = hot_energies._Fit(cold, {"train": hot}, SimpleNamespace(energy=EnergyConfig(widths=[])), Log(False))
    seen, folds = chooses_by(hot, n_weights(cold[300.0].heads["energy"]))
    assert len(folds) > 1
    candidates = {True: hot_energies._shares(cold, hot), False: {300.0: 0.0}}
    starts = {kind: hot_energies._mixture(cold, shares, hot) for kind, shares in candidates.items()}
    begins = {kind: [rows(start, part) for part in (seen, *folds)] for kind, start in starts.items()}
    chosen = next(kind for kind, shares in candidates.items() if shares == fit.shares)
    assert fit.shares[300.0] == pytest.approx(share, abs=0.03)  # shares near zero are as good as none
    best = score(begins[chosen], fit.weights, fit.ridge)
    of_ridges = {kind: [score(start, fit.weights, ridge) for ridge in RIDGES] for kind, start in begins.items()}
    weights = [fit.weights | {"energy": factor * fit.weights["energy"]} for factor in (1e-4, 0.1, 10, 1e4)]
    of_weights = [score(begins[chosen], each, fit.ridge) for each in weights]
    assert best < min(*of_ridges[True], *of_ridges[False], *of_weights) + SAME
    # no other choice is as good, so that one by the structures that are fitted, or none, would be told apart
    assert best < min(of_ridges[chosen][0], of_weights[0], of_weights[-1]) - 2 * SAME
    assert share > 0 or best < of_ridges[chosen][-1] - 2 * SAME  # else the beginning is about as good as any fit
    assert share == 0 or best < min(of_ridges[False]) - 2 * SAME
