"""Error bars of models that know Born charges alone: rows, deviations of slopes, calibration, bars of the calculator."""

import copy

import numpy as np
import pytest
import torch
from small_data import make_wannier_frames
from small_models import random_model

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.data.batches import Batches
from ase_mlelec.train import last_layer
from ase_mlelec.train.deviations import N_DRAWS, PRIOR, errors_and_deviations, slope_deviations
from ase_mlelec.train.dipoles import with_sums
from ase_mlelec.train.error_bars import add_error_bars
from ase_mlelec.train.slopes import slopes_of_sums

KNOWN = {"valence_charges": {"Si": 4.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}


def changed(model, change):
    """A copy of a model with other weights in the last layer."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.heads["dipole"].change_last(change)
    return other


def slopes(model, batch):
    with torch.no_grad():
        return slopes_of_sums(model, batch, "dipole")


@pytest.fixture(scope="module")
def born():
    """A model that knows nothing with bars from Born charges of another one, which differ by more for some structures."""
    frames, model = make_wannier_frames(20), random_model(0, ("dipole",), metadata=KNOWN)
    teacher = DeepWannierCalculator(random_model(1, ("dipole",), metadata=KNOWN), on_extrapolation="ignore")
    for frame in frames:
        frame.labels = {"born_charges": teacher.get_born_charges(frame.atoms).copy()}
    known = with_sums(frames, KNOWN)
    report = add_error_bars(model, known.select("train"), known.select("validation"))
    return model, known, report


def test_rows_are_changes_by_the_weights(born, monkeypatch):
    """Of the slopes by each weight, which is linear in them, along the displacements, components and outputs drawn."""
    model, frames, _ = born
    monkeypatch.setattr(last_layer, "_number_of_moves", lambda *arguments: 2)
    pair = frames.take([0, 1])
    first, second = last_layer.rows_of(model, "dipole", pair)
    batch = Batches.for_model(model, pair, ("summed_dipole_slopes",)).batch([0, 1])
    head = model.heads["dipole"]
    present, n, scale = slopes(model, batch), len(batch.system.numbers), head.nets.scale
    wrong = present - batch.labels["summed_dipole_slopes"]
    generator = torch.Generator().manual_seed(0)
    for rows in first, second:
        move, component, output = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in
                                   ((n, 3), 3, len(scale)))  # fmt: skip

        def along(values, move=move, component=component):
            found = torch.einsum("nab,nb,a->n", values, move, component)
            return batch.system.sum_per_system(found) / (9 * batch.system.n_atoms).sqrt()

        torch.testing.assert_close(rows.errors, along(wrong))
        for p in 0, 1, rows.rows.shape[1] - 1:  # weights, and the constant
            change = torch.zeros(1, rows.rows.shape[1], len(scale), dtype=torch.float64)
            change[0, p] = scale * output
            torch.testing.assert_close(rows.rows[:, p], along(slopes(changed(model, change), batch) - present))
        assert rows.rows.abs().max() > 1e-6


def test_deviations_are_those_of_members(born):
    model, frames, _ = born
    batch = Batches.for_model(model, frames.take([0, 1]), ()).batch([0, 1])
    present, posterior = slopes(model, batch), model.posteriors["dipole"]
    differences = [slopes(changed(model, change), batch) - present for change in posterior.changes(N_DRAWS)]
    squares = torch.stack(differences).square().mean(dim=0)
    expected = (N_DRAWS * squares + PRIOR * squares.mean(dim=(1, 2), keepdim=True)) / (N_DRAWS + PRIOR)
    torch.testing.assert_close(slope_deviations(model, batch, "dipole"), expected.sqrt())
    assert expected.max() > 0


def test_calibration(born):
    """Two thirds of the errors of structures held back are within one; dipoles have the bars of members."""
    model, frames, report = born
    assert set(report) == {"summed_dipole_slopes"}
    found = report["summed_dipole_slopes"]
    assert found["errors"] == 9 * sum(len(frame.atoms) for frame in frames.select("validation"))
    assert 0.5 < found["within_one"] < 0.85 and found["within_two"] > 0.85
    ((errors, bars),) = errors_and_deviations(model, "dipole", frames.select("test")).values()
    assert 0.5 < np.mean(np.abs(errors) < bars) < 0.85
    calculator = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
    test = frames.select("test")[0]
    own = calculator.get_born_charges(test.atoms)
    bars = calculator.uncertainty["born_effective_charges"]
    assert bars.shape == own.shape
    assert 0.4 < np.mean(np.abs(own - test.labels["born_charges"]) < bars) < 0.9
    for name in "dipole", "displacements":
        assert np.max(calculator.uncertainty[name]) > 0
