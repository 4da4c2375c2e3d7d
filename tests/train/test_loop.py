"""The training loop by a parabola: schedules, best weights, resume, checkpoints of others."""

import numpy as np
import pytest
import torch

from ase_mlelec.train.checkpoint import save_checkpoint
from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.loop import Schedule, batch_of_step, run_loop


class Parabola:
    """The least of (w - 1)^2, with errors that are given, or those of w."""

    largest_gradient = 10.0

    def __init__(self, watched="", told=None):
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.parameters, self.identity, self.watched = list(self.model.parameters()), {"seed": 0}, watched
        self.told, self.weights, self.stop_at = told, [], None

    def batches(self, step):
        if step == self.stop_at:
            raise KeyboardInterrupt
        yield step

    def loss(self, batch, ratio):
        for share in (0.25, 0.75):
            yield share * (self.model.weight - 1).square().sum()

    def errors(self):
        self.weights.append(float(self.model.weight.detach()))
        return {"loss": self.told[len(self.weights) - 1] if self.told else (self.weights[-1] - 1) ** 2}

    def explained(self, failure, batch, step, ratio, rate):
        return Diverged(f"{failure.what} in step {step}, batch {batch}, rate {rate:g}")


def rates(path):
    return np.genfromtxt(path, delimiter=",", names=True)["learning_rate"]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("exponential", lambda t: 0.1 * 0.01 ** (t / 20)),
        ("cosine", lambda t: 0.001 + 0.099 * (1 + np.cos(np.pi * t / 20)) / 2),
    ],
)
def test_learning_rates(kind, expected, tmp_path):
    run_loop(Parabola(), steps=20, schedule=Schedule(0.1, 0.001, kind), curve=tmp_path / "a.csv", progress=False)
    np.testing.assert_allclose(rates(tmp_path / "a.csv"), expected(np.arange(20)), rtol=1e-12)


def test_plateau_halves_and_ends(tmp_path):
    """Halved after two validations in a row without a new minimum; equal is none; it ends below the last rate."""
    told = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 2.0, 2.1, 2.2, 2.3, 2.4, 9.0, 9.0]
    run_loop(
        Parabola("loss", told),
        steps=100,
        schedule=Schedule(0.1, 0.0125, "plateau", patience=2),
        curve=tmp_path / "a.csv",
        progress=False,
    )
    expected = [0.1] * 4 + [0.05] * 5 + [0.025] * 2 + [0.0125] * 2
    np.testing.assert_allclose(rates(tmp_path / "a.csv"), expected, rtol=1e-12)


def test_best_weights():
    problem = Parabola("loss", [3.0, 1.0, 2.0, 1.0])
    errors = run_loop(problem, steps=4, schedule=Schedule(0.1, 0.1), progress=False)
    assert errors == {"loss": 1.0}
    assert float(problem.model.weight.detach()) == problem.weights[1] != problem.weights[3]
    problem = Parabola("", [3.0, 1.0, 2.0, 1.5])
    assert run_loop(problem, steps=4, schedule=Schedule(0.1, 0.1), progress=False) == {"loss": 1.5}
    assert float(problem.model.weight.detach()) == problem.weights[3]


@pytest.mark.parametrize("kind", ["exponential", "cosine", "plateau"])
def test_resumed_is_bit_equal(kind, tmp_path):
    """Weights, best weights, curve and learning rates."""
    options = dict(steps=23, schedule=Schedule(0.3, 1e-3, kind), interval=2, progress=False)
    found = []
    for stops in ((), (9, 14)):
        options |= dict(checkpoint=tmp_path / f"{len(stops)}.checkpoint", curve=tmp_path / f"{len(stops)}.csv")
        for stop in stops:
            problem = Parabola("loss")
            problem.stop_at = stop
            with pytest.raises(KeyboardInterrupt):
                run_loop(problem, **options)
        problem = Parabola("loss")
        errors = run_loop(problem, **options)
        found.append((errors, problem.model.weight.detach().clone(), options["curve"].read_text()))
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="belongs to another run: .*learning_rate"):
        run_loop(Parabola("loss"), **options | {"schedule": Schedule(0.3, 2e-3, kind)})


def test_checkpoint_of_a_former_version(tmp_path):
    path = tmp_path / "a.checkpoint"
    save_checkpoint(path, {"model": {}, "optimizer": {}, "step": 1, "rows": [], "identity": {"seed": 0}})
    with pytest.raises(ValueError, match="a.checkpoint is a checkpoint of another version .*remove it") as caught:
        run_loop(Parabola(), steps=2, schedule=Schedule(0.1, 0.1), checkpoint=path, progress=False)
    assert "\n" not in str(caught.value)


def test_stops_at_nan():
    problem = Parabola(told=[1.0, np.nan])
    with pytest.raises(Diverged, match="error loss in step 2, batch None, rate 0.1"):
        run_loop(problem, steps=3, schedule=Schedule(0.1, 0.1), progress=False)
    problem = Parabola()
    problem.loss = lambda batch, ratio: [problem.model.weight.sum() * np.nan]
    with pytest.raises(Diverged, match="loss in step 1, batch 0, rate 0.1"):
        run_loop(problem, steps=3, schedule=Schedule(0.1, 0.1), progress=False)


def test_every_frame_is_used_once_per_epoch():
    epochs = [np.concatenate([batch_of_step(7, 3, 1, step) for step in pair]) for pair in ((0, 1), (2, 3))]
    assert all(len(set(epoch)) == 6 for epoch in epochs) and not np.array_equal(*epochs)
    assert len(batch_of_step(2, 8, 0, 0)) == 2  # fewer frames than a batch
