"""What closed forms choose: solutions against numpy, weights and ridge against grids, cutoffs and sizes by counting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_data import make_frames

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames, join, read_frames, write_hdf5
from ase_mlelec.descriptors.ace import ACE, Order
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.train import basis, left_out, linear_energy
from ase_mlelec.train.basis import ALONE, Basis, choose_basis, radius_of
from ase_mlelec.train.checked_rows import held_rows
from ase_mlelec.train.choice import (
    FEW,
    STEPS,
    TOLERANCE,
    Choice,
    RowsByLabel,
    SumsByLabel,
    _geometric_mean,
    _improved,
    _with_stress,
    choose,
    solved,
)
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.energy_rows import n_rows, weighted_rows
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.left_out import BLOCK
from ase_mlelec.train.linear_energy import add_change, fit_by_choice, fit_with_weights, folds_in_memory
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes import linear_energy as recipes_linear_energy
from ase_mlelec.train.recipes.linear_energy import chooses_by
from ase_mlelec.train.standardize import standardize

LOSS = EnergyLoss((1, 1), (1, 1), (1, 1))


def problem(n_columns=20, noise=0.1, seed=0, counts=(("energy", 15), ("forces", 120), ("virial", 30))):
    """Rows and targets by label of one linear truth with noise."""
    rng = np.random.default_rng(seed)
    truth, rows = np.random.default_rng(99).normal(size=n_columns), {}
    for name, n in counts:
        matrix = rng.normal(size=(n, n_columns)) * np.logspace(0, -2, n_columns)
        rows[name] = torch.tensor(matrix), torch.tensor(matrix @ truth + noise * rng.normal(size=n))
    return rows


def summed(kind, rows):
    equations = kind()
    for name, (matrix, targets) in rows.items():  # in two pieces
        half = len(targets) // 2
        equations.add({name: (matrix[:half], targets[:half])})
        equations.add({name: (matrix[half:], targets[half:])})
    return equations


@pytest.mark.parametrize("kind, n_columns", [(SumsByLabel, 20), (RowsByLabel, 300)])
def test_solution(kind, n_columns):
    """Both forms of the equations have the solution of the stacked rows."""
    rows, weights, ridge = problem(n_columns), {"energy": 2.0, "forces": 1.0, "virial": 0.3}, 1e-4
    roots = {name: (weight / float(rows[name][1].square().sum())) ** 0.5 for name, weight in weights.items()}
    matrix = np.concatenate([roots[name] * rows[name][0].numpy() for name in weights])
    targets = np.concatenate([roots[name] * rows[name][1].numpy() for name in weights])
    size = (matrix**2).sum() / matrix.shape[1]
    whole = np.concatenate([matrix, (ridge * size) ** 0.5 * np.eye(matrix.shape[1])])
    expected = np.linalg.lstsq(whole, np.append(targets, np.zeros(matrix.shape[1])))[0]
    found = summed(kind, rows).solve(weights, ridge=ridge)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind, n_columns", [(SumsByLabel, 20), (RowsByLabel, 300)])
def test_ridge_is_raised_where_rounding_spoils_the_equations(kind, n_columns):
    rows = problem(n_columns)
    twice = {
        name: (torch.cat([matrix, 1e8 * matrix]), torch.cat([rest, rest])) for name, (matrix, rest) in rows.items()
    }
    equations = summed(
        kind, {name: (matrix[:, :1].expand(-1, n_columns), rest) for name, (matrix, rest) in twice.items()}
    )
    choice = Choice(1e-18, {"energy": 1.0, "forces": 1.0}, {})
    assert not torch.isfinite(equations.solve(choice.weights, ridge=choice.ridge)).all()
    solution, raised = solved(equations, choice)
    assert 1e-18 < raised.ridge < 1e-9 and torch.isfinite(solution).all()
    assert torch.equal(solution, equations.solve(raised.weights, ridge=raised.ridge))
    assert solved(equations, raised)[1] is raised


def test_held_out_errors_count_by_the_weights_of_structures():
    frames = make_frames(4)
    frames.frames[0].weight, frames.frames[1].weight = 0.5, 0.0
    model = ace_model(frames)
    found, plain = held_rows(model, frames, LOSS), {}
    for k, frame in enumerate(frames):
        plain[k] = held_rows(model, replace(frames, frames=[replace(frame, weight=1.0)]), LOSS)
    batches = Batches.for_model(model, frames, LOSS.labels)
    fitted = [weighted_rows(model, batches.batch([k]), LOSS) for k in range(4)]
    for name, (rows, rest, ratio) in found.items():
        for own, place in ((rows * ratio[:, None], 0), (rest * ratio, 1)):
            expected = torch.cat([each[name][place] for each in fitted])
            np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-300)
        weights = np.repeat([0.5, 0.0, 1.0, 1.0], [len(plain[k][name][1]) for k in range(4)])
        weights /= weights.mean()
        np.testing.assert_allclose(rest, weights * np.concatenate([plain[k][name][1] for k in range(4)]), rtol=1e-12)
        joined = np.concatenate([plain[k][name][0] for k in range(4)])
        np.testing.assert_allclose(rows, weights[:, None] * joined, rtol=1e-12)


def test_checkpoint_of_sums():
    equations, again = summed(SumsByLabel, problem()), SumsByLabel()
    again.load(equations.state())
    weights = {"energy": 1.0, "forces": 1.0}
    assert torch.equal(equations.solve(weights, ridge=1e-6), again.solve(weights, ridge=1e-6))


@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_choice_is_about_the_best_of_a_grid(noise):
    equations, held = summed(SumsByLabel, problem(noise=noise)), problem(noise=noise, seed=1)
    choice = choose(equations, [held])

    def score(ridge, energy, virial):
        solution = equations.solve({"energy": energy, "forces": 1.0, "virial": virial}, ridge=ridge)
        return sum(
            np.log(float((matrix @ solution - targets).abs().mean()))
            for name, (matrix, targets) in held.items()
            if name != "virial"
        )

    assert choice.score == pytest.approx(score(choice.ridge, choice.weights["energy"], choice.weights.get("virial", 0)))
    grid = [score(ridge, energy, 0.0) for ridge in 10.0 ** np.arange(-9, 1) for energy in (0.1, 1, 10, 100)]
    assert choice.score < min(grid) + 2 * TOLERANCE + 0.05
    assert (choice.ridge > 1e-5) == (noise > 0.1)


@pytest.mark.parametrize("kind, n_columns", [(SumsByLabel, 20), (RowsByLabel, 300)])
@pytest.mark.parametrize("left", [0.0, 1e-13])
def test_energies_that_are_all_alike(kind, n_columns, left):
    """Such as of displacements that are alike by symmetry; their weight does not drive out the forces."""
    rows = problem(n_columns, noise=0.0, counts=(("energy", 6), ("forces", 120)))
    truth = torch.linalg.lstsq(*problem(n_columns, 0.0, counts=(("all", 2 * n_columns),))["all"]).solution
    row = rows["energy"][0][0]
    row = row - (row @ truth) / (truth @ truth) * truth  # an energy that no weights of the truth change
    rows["energy"] = row.expand(6, -1).clone(), torch.full((6,), left, dtype=torch.float64)
    choice = choose(summed(kind, rows), [rows])
    size = float(rows["forces"][1].abs().mean())
    assert choice.errors["forces"] < 1e-3 * size


def test_stress_never_harms():
    """Stresses of another truth get a weight with which energies and forces keep their errors."""
    rows, held = problem(noise=0.01), problem(noise=0.01, seed=1)
    without = choose(summed(SumsByLabel, {name: rows[name] for name in ("energy", "forces")}), [held])
    rows["virial"] = rows["virial"][0], -3 * rows["virial"][1]
    wrong = choose(summed(SumsByLabel, rows), [held])
    assert wrong.score <= without.score + TOLERANCE + 1e-9
    right = choose(summed(SumsByLabel, problem(noise=0.01)), [held])
    assert right.weights["virial"] > 0
    assert right.errors["virial"] <= without.errors["virial"]


def test_little_stress_is_better_than_none():
    """Where the weights that are tried first cost too much, smaller ones are tried."""

    def errors(choice):
        weight = choice.weights.get("virial", 0.0)
        found = {"energy": 1.0, "forces": 1 + 100 * weight, "virial": 1.0 / (1 + 1e5 * weight)}
        return replace(choice, errors=found)

    found = _with_stress(errors(Choice(1e-7, {"energy": 1.0, "forces": 1.0}, {})), errors)
    assert found.weights["virial"] == 1e-4
    harmful = lambda choice: replace(errors(choice), errors={"forces": 1.0 + (choice.weights.get("virial", 0.0) > 0)})
    assert "virial" not in _with_stress(harmful(Choice(1e-7, {"forces": 1.0}, {})), harmful).weights


def test_stress_without_a_weight_is_told():
    weights = {"energy": 2.0, "forces": 1.0}
    with_stress, without = EnergyLoss((1, 1), (1, 1), (1, 1)), EnergyLoss((1, 1), (1, 1), (0, 0))
    lines = list(recipes_linear_energy._in_words(Choice(1e-7, weights, {}), with_stress, "3 of 9 structures"))
    assert lines[0] == "chosen by 3 of 9 structures: ridge 1e-07, weights energy 2, forces 1"
    assert lines[1].startswith("stress has no weight: ") and "worse by more than 3 %" in lines[1]
    for choice, loss in (
        (Choice(1e-7, weights | {"virial": 1.0}, {}), with_stress),
        (Choice(1e-7, weights, {}), without),
    ):
        assert len(list(recipes_linear_energy._in_words(choice, loss, ""))) == 1


def test_stress_does_not_undo_what_it_improves():
    """Energies and forces that gain by some stress do not lose that again for smaller errors of stress alone."""
    errors_of = {
        0.0: (1.0, 5.0),
        1e-3: (0.9, 4.0),
        1e-2: (0.8, 3.0),
        1e-1: (0.61, 2.0),
        1.0: (0.6, 1.9),
        10.0: (0.9, 1.0),
    }

    def errors(choice):
        force, virial = errors_of[choice.weights.get("virial", 0.0)]
        return replace(choice, errors={"forces": force, "virial": virial})

    assert _with_stress(errors(Choice(1e-7, {"forces": 1.0}, {})), errors).weights["virial"] == 1.0


@pytest.mark.parametrize(
    "kind, n_columns, few", [(SumsByLabel, 20, 0.0), (SumsByLabel, 20, 2.0), (RowsByLabel, 300, 0.0)]
)
def test_errors_of_folds(kind, n_columns, few, monkeypatch):
    """Geometric means of the errors of each fold with the solution without it; its rows are in the end solution."""
    monkeypatch.setattr("ase_mlelec.train.choice.FEW", few)  # rows of some labels are kept, or sums alone
    folds, equations = [problem(n_columns, seed=seed) for seed in range(3)], kind()
    equations.add(problem(n_columns, seed=3))
    for k, rows in enumerate(folds):
        equations.add(rows, fold=k)
    choice = choose(equations, folds)
    squares = equations.squares
    logarithms = []
    for k, own in enumerate(folds):
        others = [problem(n_columns, seed=3), *(rows for j, rows in enumerate(folds) if j != k)]
        roots = {name: (weight / squares[name]) ** 0.5 for name, weight in choice.weights.items()}
        matrix = np.concatenate([roots[name] * rows[name][0].numpy() for rows in others for name in roots])
        targets = np.concatenate([roots[name] * rows[name][1].numpy() for rows in others for name in roots])
        normal = matrix.T @ matrix + choice.ridge * (matrix**2).sum() / n_columns * np.eye(n_columns)
        solution = np.linalg.solve(normal, matrix.T @ targets)
        logarithms.append([np.log(np.abs(a.numpy() @ solution - b.numpy()).mean()) for a, b in own.values()])
    wanted = dict(zip(own, np.exp(np.mean(logarithms, axis=0))))
    assert choice.errors == pytest.approx(wanted, rel=1e-6)
    whole = kind()
    for seed in range(4):
        whole.add(problem(n_columns, seed=seed))
    np.testing.assert_allclose(
        *(each.solve(choice.weights, ridge=choice.ridge) for each in (equations, whole)), rtol=1e-6
    )


@pytest.mark.slow
def test_luck_of_few_structures_does_not_decide(tmp_path):
    """A hundred cells of silicon, of which a fifth alone once chose a stress that made forces of others twice as wrong."""
    frames = read_frames(Path(__file__).parents[2] / "examples/data/silicon.h5")
    pool = frames.select("train").where(lambda frame: len(frame.atoms) == 8 and "ados" in frame.labels)
    order = np.random.default_rng(2).permutation(len(pool)).tolist()  # as benchmarks/active_learning.py, at random
    chosen, left = sorted(order[:20]), sorted(order[20:])
    for k in range(3):
        some = sorted(np.random.default_rng([2, k, 1_000_000]).permutation(len(left))[:27])
        chosen += [left[place] for place in some]
        left = [place for place in left if place not in chosen]
    write_hdf5(tmp_path / "si.h5", join([pool.take(chosen), frames.select("validation")]))
    table = {"data": {"files": ["si.h5"], "train": ["train"]}, "output": {"model": "si.safetensors"}}
    config = parse_config(table | {"energy": {"widths": []}, "power_spectrum": {"cutoff": 6.0}}, tmp_path)
    assert errors(train(config, progress=False), pool.take(left))["forces_rmse_meV_per_A"] < 85  # 126 once; 79


def test_fold_of_tiny_errors_has_no_say():
    """Such as of crystals whose forces nearly vanish by symmetry: what their errors are is noise."""
    assert _geometric_mean([1.0, 2.0, 1e-3]) == pytest.approx(_geometric_mean([1.0, 2.0, 1e-5]), rel=0.01)
    assert _geometric_mean([1.0, 2.0, 0.5]) == pytest.approx(1.0)


def test_fold_of_huge_errors_does_not_silence_others():
    """Such as of structures denser than all others, of which errors are 10^5 times as large."""
    assert _geometric_mean([1.0, 2.0, 4.0, 2.0, 1e6]) == pytest.approx(1.6**0.2 * 10**1.4, rel=1e-3)


def test_given_ridge_stays():
    assert choose(summed(SumsByLabel, problem()), [problem(seed=1)], ridge=1e-3).ridge == 1e-3
    assert list(choose(summed(SumsByLabel, problem(counts=(("virial", 40),))), [problem(seed=1)]).weights) == ["virial"]


def ace_model(frames):
    orders = [Order(4.0, 4), Order(4.0, 3, 2), Order(3.5, 3, 2, 3.0, scalars=True)]
    model = Model(ACE(["Cu"], inner=2.0, orders=orders), {}).double()
    model.heads["energy"] = ScalarHead(1, model.descriptor.n_features, ()).double()
    torch.nn.init.zeros_(model.heads["energy"].nets.last[0].weight)
    standardize(model, frames)
    return model


def flat(model):
    last = model.heads["energy"].nets.last
    return torch.cat([last[0].weight.detach().flatten(), last[0].bias.detach()])


@pytest.mark.parametrize("few", [False, True])
def test_all_structures_are_fitted_in_the_end(few, monkeypatch):
    """The held-out ones after the choice; ``change`` adds the validation."""
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0 if few else 10**6)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    monkeypatch.setattr("ase_mlelec.train.choice.RIDGES", (-8.0, -1.0))  # with smaller ones rounding decides
    frames = make_frames(16)
    seen, held, validation = (frames.take(list(part)) for part in (range(10), range(10, 13), range(13, 16)))
    model = ace_model(frames)
    start = flat(model)
    options = dict(held=[held], validation=validation, in_order=seen, progress=False)
    found = fit_by_choice(model, seen, LOSS, **options)
    assert (found.normal is None) == few == (found.samples is not None)
    for part, solution in ((13, flat(model) - start), (16, flat(model) - start + found.change)):
        equations, fresh = SumsByLabel(), ace_model(frames)
        batches = Batches.for_model(fresh, frames.take(list(range(part))), LOSS.labels)
        for batch in batches.all_batches(4):
            equations.add(weighted_rows(fresh, batch, LOSS))
        matrix, right = equations.equations(found.choice.weights, ridge=found.choice.ridge)
        # small ridges leave directions undetermined by rounding: compare what the equations say
        np.testing.assert_allclose(matrix @ solution.double(), right, atol=1e-6 * float(right.abs().max()))
    errors = {
        name: float((rows @ (flat(model) - start) - rest).abs().mean())
        for name, (rows, rest, _) in held_rows(ace_model(frames), held, LOSS).items()
    }
    assert errors["forces"] < 2 * found.choice.errors["forces"]
    before = flat(model)
    add_change(model, found.change)
    torch.testing.assert_close(flat(model), before + found.change)


def by_label(frames, part):
    """Weighted rows and targets of the structures of a part, for the model of all ``frames``."""
    model = ace_model(frames)
    batch = next(iter(Batches.for_model(model, part, LOSS.labels).all_batches(len(part))))
    found = weighted_rows(model, batch, LOSS)
    return {name: [each.double().numpy() for each in pair] for name, pair in found.items()}


@pytest.mark.parametrize("few", [False, True])
def test_folds_are_fitted_in_the_end(few, monkeypatch):
    """All structures may be in folds; the outcome is that of a fit to them with the same weights and ridge."""
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0 if few else 10**6)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    frames = make_frames(15)
    folds = [frames.take(list(range(k, k + 5))) for k in (0, 5, 10)]
    model, again = ace_model(frames), ace_model(frames)
    start = flat(model)
    choice = fit_by_choice(model, frames.take([]), LOSS, held=folds, ridge=1e-5, progress=False).choice
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 10**6)  # by the other form of the equations
    fit_with_weights(again, frames, LOSS, choice.weights, choice.ridge)
    np.testing.assert_allclose(flat(model) - start, flat(again) - start, rtol=1e-5, atol=1e-8)
    logarithms = []
    for k, fold in enumerate(folds):
        part = ace_model(frames)
        equations = SumsByLabel()
        for own in folds:
            batches = Batches.for_model(part, own, LOSS.labels)
            for batch in batches.all_batches(5):
                equations.add(weighted_rows(part, batch, LOSS), fold=k if own is fold else None)
        solution = equations.solve(choice.weights, ridge=choice.ridge, without=k)
        rows, rest, _ = held_rows(part, fold, LOSS)["forces"]
        logarithms.append(np.log(float((rows @ solution - rest).abs().mean())))
    assert choice.errors["forces"] == pytest.approx(np.exp(np.mean(logarithms)), rel=1e-5)


def test_memory_of_folds(monkeypatch):
    """Folds of few rows take no matrices of their own, of which there is not always memory."""
    frames = make_frames(15)
    frames = Frames([replace(frame, labels={"energy": frame.labels["energy"]}) for frame in frames])
    model, loss = ace_model(frames), EnergyLoss((1, 1), (0, 0), (0, 0))
    n_weights, folds = len(flat(model)), [frames.take([k]) for k in range(5)]
    assert 1 < FEW * n_weights
    # sums, one matrix for the solution, one for the rows of all folds or error bars, and less than another for a batch
    monkeypatch.setattr("ase_mlelec.train.memory.available_memory", lambda: 8 * 4 * n_weights**2)
    fit_by_choice(model, frames.take(list(range(5, 15))), loss, held=folds, ridge=1e-5, progress=False)
    monkeypatch.setattr("ase_mlelec.train.memory.available_memory", lambda: 8 * 2 * n_weights**2)
    with pytest.raises(ValueError, match="with 3 matrices"):
        fit_by_choice(model, frames.take(list(range(5, 15))), loss, held=folds, ridge=1e-5, progress=False)


@pytest.mark.parametrize("few", [False, True])
def test_energies_that_are_left_out(few, monkeypatch):
    """Against equations without the rows of a block, with the same weights and ridge; not those without a weight."""
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0 if few else 10**6)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    frames = make_frames(13)
    frames = Frames([*frames.frames[:6], replace(frames[6], weight=0.0), *frames.frames[7:]])
    held = frames.take([2, 3, 9])
    seen = frames.take([k for k in range(13) if k not in (2, 3, 9)])
    options = dict(held=[held], ridge=1e-4, progress=False)
    found = fit_by_choice(ace_model(frames), seen, LOSS, in_order=frames, **options)
    assert fit_by_choice(ace_model(frames), seen, LOSS, **options).left_out is None
    whole = by_label(frames, frames)
    units = {name: found.choice.weights.get(name, 0.0) / (targets**2).sum() for name, (_, targets) in whole.items()}
    ridge = 1e-4 * sum(units[name] * (matrix**2).sum() for name, (matrix, _) in whole.items())
    wanted = []
    blocks = np.array_split(np.arange(13), 13 // BLOCK)
    if few:  # in the order in which they are fitted, without the one that does not count
        blocks = [[0, 1], [4, 5], [7, 8], [10, 11], [12, 2], [3, 9]]
    for block in blocks:
        rest = by_label(frames, frames.take([k for k in range(13) if k not in block]))
        # by orthogonal transformations, which lose half as many digits as normal equations
        rows = [units[name] ** 0.5 * matrix for name, (matrix, _) in rest.items()]
        n_weights = rows[0].shape[1]
        q, r = np.linalg.qr(np.vstack([*rows, (ridge / n_weights) ** 0.5 * np.eye(n_weights)]))
        right = np.concatenate([units[name] ** 0.5 * targets for name, (_, targets) in rest.items()])
        mine = [k for k in block if k != 6]
        matrix, targets, _ = (
            part.double().numpy() for part in held_rows(ace_model(frames), frames.take(mine), LOSS)["energy"]
        )
        n_atoms = np.array([len(frames[k].atoms) for k in mine])
        errors = matrix @ np.linalg.solve(r, q[: len(right)].T @ right) - targets
        variances = np.square(np.linalg.solve(r.T, matrix.T)).sum(axis=0)
        wanted.append((n_atoms * errors, n_atoms * np.sqrt(variances), np.sqrt(n_atoms)))
    for own, each in zip(found.left_out, zip(*wanted)):
        # rows of stress with a weight of 1e-4 cost digits
        np.testing.assert_allclose(own, np.concatenate(each), rtol=1e-5, atol=1e-7 * np.abs(own).max())


@pytest.mark.parametrize("few", [False, True])
def test_no_energies_are_left_out_of_forces_alone(few, monkeypatch):
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0 if few else 10**6)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    frames, loss = make_frames(6), EnergyLoss((0, 0), (1, 1), (0, 0))
    seen, held = frames.take([0, 1, 2, 3]), [frames.take([4, 5])]
    found = fit_by_choice(ace_model(frames), seen, loss, held=held, in_order=frames, ridge=1e-4, progress=False)
    assert found.left_out is None and found.factor is not None


def test_few_of_many_structures_are_left_out(monkeypatch):
    """Blocks from all of them; structures with many labels one by one."""
    monkeypatch.setattr(left_out, "STRUCTURES", 8)
    frames = make_frames(40)
    assert left_out._blocks(frames, LOSS) == [[0, 1, 2, 3], [36, 37, 38, 39]]
    monkeypatch.setattr(left_out, "MOST_ROWS", n_rows([frames[0]], LOSS) + 1)
    assert [len(block) for block in left_out._blocks(frames, LOSS)] == [1] * 8


def test_support_is_fitted_and_does_not_choose(tmp_path, monkeypatch):
    """Of structures that only extend the range, errors are large: no choice is made by them."""
    write_hdf5(tmp_path / "cu.h5", Frames([replace(f, group="train") for f in make_frames(16)]))
    close = [replace(f, group="close", name=f"close-{k}") for k, f in enumerate(make_frames(20)[16:])]
    write_hdf5(tmp_path / "close.h5", Frames(close))
    found = {}

    def taken(model, seen, loss, *, held, **options):
        found.update(seen=[frame.group for frame in seen], held=[frame.group for frame in join(held)])
        raise InterruptedError

    monkeypatch.setattr(recipes_linear_energy, "fit_by_choice", taken)
    table = {
        "data": {"files": ["cu.h5", "close.h5"], "train": ["train"], "support": ["close"]},
        "output": {"model": "cu.safetensors"},
        "energy": {"widths": []},
        "power_spectrum": {"cutoff": 3.5, "n_pair": 3, "n_radial": 2, "l_max": 2, "near": 0},
    }
    with pytest.raises(InterruptedError):
        train(parse_config(table, tmp_path), progress=False)
    assert found["seen"].count("close") == 4 and set(found["held"]) == {"train"}


# cutoffs and size


def test_radius_holds_neighbors():
    crystal = Frames([Frame(bulk("Cu", a=3.6, cubic=True), {}, "cu")])
    assert 3.6 / 2**0.5 <= radius_of(crystal, 11.5) <= 3.2 + 1e-9  # twelve at 2.55 Å, below the lower limit
    assert radius_of(crystal, 15) == pytest.approx(3.6)  # the next six
    molecule = Frames([Frame(Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]), {}, "water")])
    assert radius_of(molecule, 16) == ALONE


@pytest.mark.parametrize("n_species", [1, 3])
def test_size(n_species):
    start = Basis(5.0, 4.0, n_species)
    for wanted in (150, 1000):
        found = start.sized(wanted * n_species)
        model = ACE([("Si", "O", "H")[k] for k in range(n_species)], inner=1.0, orders=found.orders)
        assert found.n_weights == n_species * (model.n_features + 1)
        assert found.n_weights <= wanted * n_species
        larger = replace(found, max_roughness=max(found.max_roughness + 0.5, 1.0))
        assert larger.n_weights > wanted * n_species


@pytest.mark.slow
def test_basis_by_trials(monkeypatch):
    """Trials are told, repeat themselves, and keep to the radius that the truth needs."""
    monkeypatch.setattr(basis, "FULL", 60)
    frames, lines = make_frames(16), []
    parts = frames.take(list(range(12))), frames.take(list(range(12, 16)))
    options = dict(species=["Cu"], inner=2.0)
    found = choose_basis(*parts, LOSS, **options, tell=lines.append)
    assert found == choose_basis(*parts, LOSS, **options)
    assert len(lines) >= 4
    assert lines[0] == "choosing cutoffs by trials with small bases on 12 of 12 structures"  # before the first wait
    assert "weights for" in lines[-1]
    assert found.near <= found.far


def test_trials_of_an_interrupted_training_are_kept(tmp_path, monkeypatch):
    """No trial is made twice for the same data; others make their own."""
    frames, made = make_frames(16), []

    def trial(tried, *rest):
        if len(made) == stop:
            raise KeyboardInterrupt
        made.append((tried.far, tried.near, tried.n_weights))
        return tried.near + 0.1 * tried.far  # the shortest is best

    def chosen(first=0):
        parts = frames.take(list(range(first, 12))), frames.take(list(range(12, 16)))
        return choose_basis(*parts, LOSS, species=["Cu"], inner=2.0, checkpoint=tmp_path / "c.checkpoint")

    monkeypatch.setattr(basis, "_trial", trial)
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        chosen()
    stop = None
    found = chosen()
    n = len(made)
    assert len(set(made)) == n > 3 and len({n_weights for *_, n_weights in made}) == 2
    assert chosen() == found
    assert len(made) == n
    chosen(first=1)
    assert len(made) == 2 * n
    (tmp_path / "c.checkpoint").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"c\.checkpoint is truncated or no checkpoint; remove it"):
        chosen()


@pytest.mark.parametrize("gain, larger", [(0.2, True), (0.05, False)])
def test_more_weights_than_labels_where_they_pay(gain, larger, monkeypatch):
    """The cutoffs are then chosen with as many."""
    frames, made = make_frames(16), []

    def trial(tried, *rest):
        made.append(tried.n_weights)
        return 0.0 if tried.n_weights < 1000 else -gain

    monkeypatch.setattr(basis, "_trial", trial)
    parts = frames.take(list(range(12))), frames.take(list(range(12, 16)))
    found = choose_basis(*parts, LOSS, species=["Cu"], inner=2.0)
    assert (found.n_weights > n_rows(frames, LOSS)) == larger
    assert {*made[2:]} == {made[larger]}


def test_blocks_are_held_out():
    frames = make_frames(24)
    seen, (held,) = chooses_by(frames)
    assert len(seen) + len(held) == 24
    assert {frame.name for frame in seen}.isdisjoint(frame.name for frame in held)
    names = [frame.name for frame in frames]
    places = [names.index(frame.name) for frame in held]
    assert np.diff(places).tolist().count(1) >= len(places) // 2  # neighbors stay together
    assert chooses_by(frames.take(list(range(5))))[1] == []


def test_few_structures_are_all_in_folds():
    """But for those whose species the others lack; of three or fewer there are none."""
    frames = make_frames(8)
    other = frames[2].atoms.copy()
    other.symbols[0] = "Au"
    frames = Frames([*frames.frames[:2], replace(frames[2], atoms=other), *frames.frames[3:]])
    names = [frame.name for frame in frames]
    seen, held = chooses_by(frames, 1000)
    assert [frame.name for frame in seen] == names[2:4]
    assert [[frame.name for frame in fold] for fold in held] == [names[:2], names[4:6], names[6:7], names[7:]]
    assert chooses_by(frames.take([0, 1, 3]), 1000)[1] == []


def test_as_many_folds_as_memory_suffices_for(monkeypatch, capsys):
    frames = make_frames(15)
    model, folds = ace_model(frames), [frames.take([k]) for k in range(5)]
    seen, n_weights = frames.take(list(range(5, 15))), len(flat(model))
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 10**6)

    def kept(n_matrices):
        rows = 3 * 4 * n_rows([frames[0]], LOSS)
        monkeypatch.setattr(
            "ase_mlelec.train.memory.available_memory", lambda: 8 * n_weights * (n_matrices * n_weights + rows)
        )
        others, found = folds_in_memory(model, seen, folds, LOSS)
        fewer = f"choosing with {len(found)} of 5 folds, for which the memory suffices\n"
        assert capsys.readouterr().err == ("" if len(found) == 5 else fewer)
        assert len(others) + len(found) == 15
        assert [each[0].name for each in found] == [frames[k].name for k in range(len(found))]
        return len(found)

    many = linear_energy._n_matrices(folds, LOSS, n_weights)
    assert many > 6  # two for the solution, one for each label, and others for folds
    assert kept(many) == 5 and 1 < kept(many - 1) < 5
    assert kept(5) == kept(1) == 1  # which is refused later
    monkeypatch.setattr("ase_mlelec.processes.largest", lambda number: max(number, -2))  # another process has two
    assert kept(many) == 2
    monkeypatch.undo()
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    assert kept(1) == 5  # a matrix of the size of the labels needs none for folds


def test_folds_of_few_structures_hold_all_of_them(monkeypatch):
    frames = make_frames(40)
    seen, folds = chooses_by(frames, 100)
    names = [frame.name for part in (seen, *folds) for frame in part]
    assert len(folds) == 5 and len(seen) == 0 and sorted(names) == sorted(frame.name for frame in frames)
    first = chooses_by(frames)[1][0]
    assert [frame.name for frame in first] == [frame.name for frame in folds[0]]
    monkeypatch.setattr(recipes_linear_energy, "ENOUGH", 16)
    assert len(chooses_by(frames, 100)[1]) == 2
    assert len(chooses_by(frames, 10**9)[1]) == 1  # their rows would fill the memory


@pytest.mark.slow
def test_in_one_command(tmp_path, monkeypatch):
    """An empty section leaves all to the data; the model says what was chosen, and is the same when trained again."""
    for name, small in (("FULL", 40), ("FEWEST", 150), ("TRIAL_ATOMS", (60, 20))):
        monkeypatch.setattr(basis, name, small)
    write_hdf5(tmp_path / "cu.h5", make_frames(25))
    table = {"data": {"files": ["cu.h5"]}, "output": {"model": "cu.safetensors"}, "energy": {"widths": []}}
    found = train(parse_config(table | {"power_spectrum": {}}, tmp_path), progress=False)
    again = train(parse_config(table | {"power_spectrum": {}}, tmp_path), progress=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".h5", ".safetensors"}  # no checkpoint
    chosen = found.metadata["training"]["closed_form"]["energy"]
    assert set(chosen) == {"ridge", "weights", "errors", "orders"}
    assert chosen["orders"] == found.descriptor.arguments()["orders"]
    for one, two in zip(found.state_dict().values(), again.state_dict().values()):
        assert torch.equal(one, two)
    size = 1000 * np.abs(np.concatenate([frame.labels["forces"] for frame in make_frames(25)])).mean()
    assert found.metadata["errors"]["test"]["forces_mae_meV_per_A"] < size / 5


def test_ridge_beyond_a_maximum():
    """The smallest error along the ridge is found, though a smaller minimum is nearer to the start."""

    def errors(choice):
        away = np.log10(choice.ridge)
        size = 1 - 0.5 * np.exp(-((away + 5) ** 2)) - 0.9 * np.exp(-((away + 13) ** 2))
        return replace(choice, errors={"forces": size})

    best = errors(Choice(1e-7, {"forces": 1.0}, {}))
    for steps in STEPS:
        best = _improved(best, errors, steps, True, False)
    assert best.ridge == pytest.approx(1e-13) and best.errors["forces"] == pytest.approx(0.1)
