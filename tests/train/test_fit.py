"""The training loop learns, resumes to the bit, and refuses what does not belong together."""

import copy
import csv

import numpy as np
import pytest
import torch
from ase.calculators.calculator import InputError
from small_data import ENERGIES, make_frames, make_wannier_frames
from small_models import random_model

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.heads import ScalarHead, SpectrumHead, TensorHead, VectorHead
from ase_mlelec.model import Model
from ase_mlelec.testing import assert_close
from ase_mlelec.train import fit as module
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.fit import evaluate_loss, fit
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss
from ase_mlelec.train.standardize import standardize, standardize_heads

ENERGY_LOSS = EnergyLoss((0.1, 1.0), (10.0, 1.0), (0.1, 0.1))


@pytest.fixture(scope="module")
def frames():
    return make_frames(15)


@pytest.fixture(scope="module")
def train_frames(frames):
    return frames.select("train")


def new_model(frames, heads=("energy", "dos")):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        descriptor = DeepPotSE(["Cu"], 4.0, 2.0, (6,), 4, l_max=2, n_basis=6)
        made = {
            "energy": ScalarHead(1, descriptor.n_features, (12,)),
            "dos": SpectrumHead(1, descriptor.n_features, ENERGIES, (12,)),
        }
    model = Model(descriptor, {name: made[name] for name in heads}).double()
    standardize(model, frames)
    return model


def parameters_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.slow
def test_learns():
    """Energies, forces and spectra of structures that it has not seen."""
    frames = make_frames(30)
    train, held = (frames.where(lambda frame, own=own: (frame.group == "train") == own) for own in (True, False))
    model = new_model(train)
    before = errors(model, held)
    fit(
        model,
        train,
        EnergyLoss((1, 100), (10, 1), (1, 1)),
        steps=240,
        batch_size=4,
        learning_rate=(1e-2, 1e-4),
        progress=False,
    )
    standardize_heads(model, train, ["dos"])
    fit(
        model,
        train,
        SpectrumLoss(),
        steps=150,
        batch_size=6,
        learning_rate=(1e-2, 1e-4),
        parameters=model.heads["dos"].parameters(),
        progress=False,
    )
    after = errors(model, held)
    assert after["energy_rmse_meV_per_atom"] < 0.3 * before["energy_rmse_meV_per_atom"]
    assert after["forces_rmse_meV_per_A"] < 0.4 * before["forces_rmse_meV_per_A"]
    assert after["ados_rmse_over_std"] < 0.6


def interrupt_at(monkeypatch, step):
    """The step-th loss is the Ctrl-C."""
    true_loss, calls = module.FrameProblem.loss, []

    def stopping(*arguments):
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return true_loss(*arguments)

    monkeypatch.setattr(module.FrameProblem, "loss", stopping)


def test_resumed_run_is_bit_identical(train_frames, tmp_path, monkeypatch):
    options = dict(
        steps=17,
        batch_size=4,
        seed=5,
        interval=5,
        validation=train_frames.where(lambda f: "1" in f.name),
        progress=False,
    )
    whole = new_model(train_frames)
    errors_of_whole = fit(whole, train_frames, ENERGY_LOSS, curve=tmp_path / "whole.csv", **options)
    files = dict(checkpoint=tmp_path / "run.checkpoint", curve=tmp_path / "run.csv")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 13)  # after the checkpoint of step 10 and two more steps, which are lost
        fit(new_model(train_frames), train_frames, ENERGY_LOSS, **files, **options)
    resumed = new_model(train_frames)
    assert fit(resumed, train_frames, ENERGY_LOSS, **files, **options) == errors_of_whole
    assert torch.equal(parameters_of(resumed), parameters_of(whole))
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "whole.csv").read_text()
    finished = new_model(train_frames)  # nothing left to do: the same model and the same errors again
    assert fit(finished, train_frames, ENERGY_LOSS, **files, **options) == errors_of_whole
    assert torch.equal(parameters_of(finished), parameters_of(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.checkpoint", "run.csv", "whole.csv"]


def test_curve(train_frames, tmp_path):
    result = fit(
        new_model(train_frames),
        train_frames,
        EnergyLoss((1, 1), (1, 1)),
        steps=7,
        interval=3,
        batch_size=2,
        learning_rate=(1e-2, 1e-4),
        validation=train_frames,
        curve=tmp_path / "a.csv",
        progress=False,
    )
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [3, 6, 7]
    for row in rows:  # the rate of the step just made: r0 d^(t/steps), t = step - 1
        assert float(row["learning_rate"]) == pytest.approx(1e-2 * 1e-2 ** ((int(row["step"]) - 1) / 7))
    best = min(rows, key=lambda row: float(row["validation_relative"]))
    assert {name: float(value) for name, value in best.items() if name not in ("step", "learning_rate")} == result
    names = ("energy_eV_per_atom", "forces_eV_per_A")
    assert set(result) == {"validation_relative", *names, *(f"validation_{name}" for name in names)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, "belongs to another run: seed 0, this one 1; remove it"),
        (
            {"learning_rate": (1e-3, 1e-4)},
            "learning_rate 0.002 to 1e-06, exponential, this one 0.001 to 0.0001, exponential",
        ),
        ({"loss": EnergyLoss((2, 1), (1, 1))}, "loss EnergyLoss .*energy"),
        ({"frames": 3}, "frames [0-9a-f]{16}, this one"),
        ({"parameters": "energy"}, "another model or other parameters"),
    ],
)
def test_checkpoint_of_another_run(change, message, train_frames, tmp_path):
    model = new_model(train_frames)
    options = dict(loss=EnergyLoss((1, 1), (1, 1)), steps=1, checkpoint=tmp_path / "a", progress=False)
    fit(model, train_frames, **options)
    change = dict(change)
    frames = Frames(train_frames.frames[: change.pop("frames", None)], ENERGIES)
    if "parameters" in change:
        change["parameters"] = model.heads["energy"].parameters()
    with pytest.raises(ValueError, match=message):
        fit(model, frames, **{**options, **change})


def test_truncated_checkpoint(train_frames, tmp_path):
    options = dict(loss=EnergyLoss((1, 1), (0, 0)), steps=1, checkpoint=tmp_path / "a", progress=False)
    fit(new_model(train_frames), train_frames, **options)
    for content in ((tmp_path / "a").read_bytes()[:1000], b"", b"text"):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="truncated or no checkpoint.*remove it"):
            fit(new_model(train_frames), train_frames, **options)


def test_fixed_descriptor_changes_nothing_but_the_time(train_frames):
    """Features evaluated once give the same parameters as features evaluated at every step."""

    class Cautious(SpectrumLoss):
        moves_atoms = True

    models = []
    for loss in (SpectrumLoss(), Cautious()):
        model = new_model(train_frames)
        before = copy.deepcopy(model.descriptor.state_dict())
        energy = parameters_of(model.heads["energy"])
        fit(
            model,
            train_frames,
            loss,
            steps=10,
            batch_size=3,
            parameters=model.heads["dos"].parameters(),
            validation=train_frames,
            progress=False,
        )
        assert all(torch.equal(value, before[name]) for name, value in model.descriptor.state_dict().items())
        assert torch.equal(parameters_of(model.heads["energy"]), energy)
        models.append(model)
    torch.testing.assert_close(parameters_of(models[0]), parameters_of(models[1]), rtol=0, atol=1e-10)


def test_descriptor_is_evaluated_once_where_it_is_fixed(train_frames, monkeypatch):
    model, calls = new_model(train_frames), []
    for name in ("forward", "of_moments"):
        monkeypatch.setattr(
            model.descriptor,
            name,
            lambda *args, former=getattr(model.descriptor, name): (calls.append(None), former(*args))[1],
        )
    fit(
        model,
        train_frames,
        SpectrumLoss(),
        steps=20,
        batch_size=3,
        parameters=model.heads["dos"].parameters(),
        progress=False,
    )
    assert len(calls) == len(train_frames)
    fit(model, train_frames, SpectrumLoss(), steps=2, batch_size=3, progress=False)  # trained with the head
    assert len(calls) == len(train_frames) + 2


def test_standardize(train_frames):
    model = new_model(train_frames)
    batch = Batches.for_model(model, train_frames, ("energy", "ados")).batch(range(len(train_frames)))
    edges = batch.edges()
    r = edges.vec.norm(dim=1)
    radial = switch(r, 2.0, 4.0) / r
    angular = (radial / r)[:, None] * edges.vec
    rms = torch.stack([radial.square().mean(), angular.square().mean()]).sqrt()
    torch.testing.assert_close(model.descriptor.scale[0], rms)
    features = model.descriptor(batch.system, edges).features
    spectra, energies = batch.labels["ados"], batch.labels["energy"]
    for head in model.heads.values():
        torch.testing.assert_close(head.nets.shift[0], features.mean(dim=0))
    dos, energy = model.heads["dos"].nets, model.heads["energy"].nets
    torch.testing.assert_close(dos.bias[0], spectra.mean(dim=0))
    assert float(dos.scale[0]) == pytest.approx(float((spectra - spectra.mean(dim=0)).pow(2).mean().sqrt()))
    counts = batch.system.n_atoms.double()
    assert float(energy.bias[0, 0]) == pytest.approx(float((counts @ energies) / (counts @ counts)))


def test_standardize_again_starts_afresh(train_frames):
    """Nothing of an earlier normalization is left, and one head can be done alone when the descriptor has moved on."""
    model = new_model(train_frames)
    fresh = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.descriptor.scale.mul_(3.0)
        for head in model.heads.values():
            head.nets.shift.add_(1.0)
            head.nets.inverse.mul_(2.0)
    standardize(model, train_frames)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, fresh[name], msg=name)
    with torch.no_grad():
        model.descriptor.embedding.coefficients.mul_(2.0)
    standardize_heads(model, train_frames, ["dos"])
    assert torch.equal(model.heads["energy"].nets.shift, fresh["heads.energy.nets.shift"])
    torch.testing.assert_close(model.heads["dos"].nets.shift, 4 * fresh["heads.dos.nets.shift"])


def test_total_dos_alone_is_enough(train_frames):
    totals = Frames([copy.copy(frame) for frame in train_frames], ENERGIES)
    for frame in totals:
        frame.labels = {"dos": frame.labels["dos"]}
    model = new_model(totals, heads=("dos",))
    result = fit(
        model, totals, SpectrumLoss(0.0, 1.0), steps=40, batch_size=3, learning_rate=(1e-2, 1e-3), progress=False
    )
    assert set(result) == {"dos_per_atom_eV"}
    assert set(errors(model, totals)) == {"dos_rmse_states_per_eV_per_atom"}
    assert errors(model, totals)["dos_rmse_states_per_eV_per_atom"] < 0.1


def test_data_that_do_not_fit_the_model(train_frames):
    model = new_model(train_frames)
    options = dict(steps=1, progress=False)
    with pytest.raises(ValueError, match="the energy grid of the data is -5..7 eV, 25 points, that of the model -6..6"):
        fit(model, Frames(train_frames.frames, ENERGIES + 1), SpectrumLoss(), **options)
    other = Frames(train_frames.frames, ENERGIES, {"dos_width_eV": 0.3})
    model.metadata["dos_width_eV"] = 0.5
    with pytest.raises(ValueError, match=r"widths \(eV\) of the levels of model and data differ: 0.5 and 0.3"):
        fit(model, other, SpectrumLoss(), **options)
    foreign = copy.deepcopy(train_frames.frames[:1])
    foreign[0].atoms.symbols[0] = "Ag"
    with pytest.raises(InputError, match="got species Ag; the model knows Cu"):
        fit(model, Frames(foreign, ENERGIES), EnergyLoss(), **options)
    del foreign[0].labels["forces"]
    foreign[0].atoms.symbols[0] = "Cu"
    with pytest.raises(ValueError, match="no label 'forces'.*take its term out of the loss"):
        fit(model, Frames(foreign, ENERGIES), EnergyLoss(), **options)


def test_species_without_atoms(train_frames):
    model = Model(DeepPotSE(["Cu", "Ag"], 4.0, 2.0, (6,), 4, n_basis=6), {})
    model.heads["energy"] = ScalarHead(2, model.descriptor.n_features, (4,))
    with pytest.raises(ValueError, match="no atoms of Ag in 9 frames"):
        standardize(model.double(), train_frames)


@pytest.mark.parametrize(
    "kind, label", [(VectorHead, "atomic_dipole"), (VectorHead, "summed_dipole"), (TensorHead, "polarizability")]
)
def test_bias_of_centers_is_the_best_constant(kind, label):
    """Labels that are constant coefficients times the basis are met before any training."""
    frames, model = make_wannier_frames(60), random_model(3, ())
    head = kind(2, model.descriptor.n_features, 8, (1,), (4,)).double()
    model.heads[head.quantity] = head
    with torch.no_grad():
        for layer in head.nets.last:
            layer.weight.zero_()
        head.nets.bias.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
        values = [batch.predict(model, head.quantity) for batch in Batches.for_model(model, frames, ()).all_batches(1)]
        for frame, value in zip(frames, values):
            frame.labels = {label: (value if label.startswith("atomic") else value.sum(dim=0)).numpy()}
    head.nets.bias.zero_()
    standardize_heads(model, frames)
    batch = Batches.for_model(model, frames, ()).batch(range(len(frames)))
    with torch.no_grad():
        found = batch.system.sum_per_system(batch.predict(model, head.quantity))
    # directions of the basis that hardly matter, below 1e-3 of the largest, are left out
    assert_close(found, torch.stack([value.sum(dim=0) for value in values]), 3e-3)


@pytest.mark.parametrize(
    "kind, shape, label", [(VectorHead, 3, "summed_dipole"), (TensorHead, (3, 3), "polarizability")]
)
def test_constants_of_centers_do_not_explain_few_labels(kind, shape, label):
    """There are more constant coefficients than components of labels, which would leave nothing to learn."""
    frames, model = make_wannier_frames(1), random_model(3, ())
    head = kind(2, model.descriptor.n_features, 8, (1,), (4,)).double()
    model.heads[head.quantity] = head
    batch, left = Batches.for_model(model, frames, ()).batch([0]), []
    for seed in range(5):
        value = np.random.default_rng(seed).normal(size=shape)
        frames.frames[0].labels = {label: value + value.T}
        standardize_heads(model, frames)
        torch.nn.init.zeros_(head.nets.last[0].weight)
        with torch.no_grad():
            error = batch.predict(model, head.quantity).sum(dim=0).numpy() - value - value.T
        left.append(np.square(error).sum() / np.square(value + value.T).sum())
        assert float(head.nets.scale.min()) > 1e-3
    assert 0.3 < np.mean(left) <= 1


def test_the_scale_of_energies_is_at_least_that_of_the_forces():
    """Not the spread of E/N, which is zero for one structure and its like."""
    frames = make_frames(6)
    size = np.sqrt(np.mean(np.concatenate([frame.labels["forces"].ravel() for frame in frames]) ** 2))
    assert float(new_model(frames).heads["energy"].nets.scale) == pytest.approx(size)
    for frame in frames:
        frame.labels["forces"] = 1e-3 * frame.labels["forces"]
    spread = float(new_model(frames).heads["energy"].nets.scale)
    totals = np.array([[len(frame.atoms), frame.labels["energy"]] for frame in frames])
    bias = np.linalg.lstsq(totals[:, :1], totals[:, 1])[0]
    assert spread == pytest.approx(np.sqrt(np.mean(((totals[:, 1] - totals[:, 0] * bias) / totals[:, 0]) ** 2)))


def test_batches_of_few_atoms(train_frames):
    """All frames in order; fewer at a time where their cells are large, and one at least."""
    batches = Batches(train_frames, 4.0, ("energy",), torch.float64)
    sizes = [len(system.positions) for system in batches.systems]  # 2 and 4
    for size, most in ((3, None), (3, 8), (5, 1), (100, None), (2, 5)):
        found = [batch.system.n_atoms.tolist() for batch in batches.all_batches(size, most_atoms=most)]
        assert [number for each in found for number in each] == sizes
        assert all(len(each) <= size and (len(each) == 1 or sum(each) <= (most or 10**6)) for each in found)
        assert most != 8 or max(map(sum, found)) > 5
    whole, parts = (
        evaluate_loss(new_model(train_frames), batches, EnergyLoss((1, 1), (0, 0)), size) for size in (9, 2)
    )
    assert whole == pytest.approx(parts)
