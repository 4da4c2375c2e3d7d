"""Training stops at the first NaN or infinity, says where and why, and leaves no model behind."""

import copy

import numpy as np
import pytest
import torch
from small_data import make_frames
from small_models import random_model

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames, write_hdf5
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.train import checked_rows, linear_energy
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.data_checks import check_frames
from ase_mlelec.train.finite import Diverged, refuse_model
from ase_mlelec.train.fit import fit
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss
from ase_mlelec.train.memory import available_memory, check_memory
from ase_mlelec.train.recipe import train

LOSS = EnergyLoss((1, 1), (1, 1), (1, 1))
DESCRIPTOR = {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 3, "l_max": 2, "n_basis": 5}


@pytest.fixture(scope="module")
def frames():
    return make_frames(6)


def new_model(frames):
    model = random_model(1, ("energy",), species=("Cu",), widths=(4,), n_basis=6, l_max=2)
    torch.manual_seed(0)
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, frames.energies, (8,)).double()
    return model


def with_label(frames, k, name, value):
    part = Frames([copy.copy(frame) for frame in frames], frames.energies)
    part.frames[k].labels = part.frames[k].labels | {name: value}
    return part


@pytest.mark.parametrize("loss", [LOSS, SpectrumLoss()], ids=["energy", "dos"])
def test_too_large_learning_rate(loss, frames, tmp_path):
    """The checkpoint of before is as it was."""
    options = dict(batch_size=2, interval=1, checkpoint=tmp_path / "a", progress=False, steps=3)
    with pytest.raises(
        Diverged,
        match=r"training stopped at step [123]: the (loss|gradient|parameters) .* NaN or "
        r"infinite.*learning rate, 1e\+200, is likely too large: lower it.*checkpoint is as it was",
    ) as caught:
        fit(new_model(frames), frames, loss, learning_rate=(1e200, 1e200), **options)
    assert "frame" in str(caught.value) and "\n" not in str(caught.value)
    if (tmp_path / "a").exists():
        stored = torch.load(tmp_path / "a", weights_only=True)
        assert all(bool(torch.isfinite(value).all()) for value in stored["model"].values())


def test_frame_with_atoms_that_are_too_close(frames, monkeypatch):
    """Where a frame's prediction is NaN its name, its label and its distance are told."""
    part = Frames([copy.deepcopy(frame) for frame in frames], frames.energies)
    part.frames[4].atoms.positions[1] = part.frames[4].atoms.positions[0] + [0.1, 0, 0]
    model, forward = new_model(part), None
    forward = model.heads["energy"].forward

    def blows_up(environment, edges):
        close = edges is not None and edges.vec.norm(dim=1).min() < 0.2  # the others are evaluated without edges
        return forward(environment, edges) * (torch.nan if bool(close) else 1.0)

    monkeypatch.setattr(model.heads["energy"], "forward", blows_up)
    with pytest.raises(
        Diverged,
        match=r"stopped at step 1: the loss is NaN or infinite, by the energy and forces and "
        r"virial of training frame 4 \(cu-4\); its atoms are too close, 0.1 Å: correct the structure",
    ):
        fit(model, part, LOSS, steps=2, batch_size=6, progress=False)


def test_label_far_beyond_the_others(frames):
    part = with_label(frames, 2, "forces", np.full((4, 3), 1e200))
    with pytest.raises(
        Diverged,
        match=r"by the forces of training frame 2 \(cu-2\); its label 'forces' reaches "
        r"1e\+200, the median of all frames is .*correct it or remove the frame",
    ):
        fit(new_model(frames), part, LOSS, steps=2, batch_size=6, progress=False)


def test_gradient_alone(frames, monkeypatch):
    """A finite loss with a gradient that is not: nothing has changed when training stops."""

    class Steep(SpectrumLoss):
        def __call__(self, model, batch, ratio):
            value, squares = super().__call__(model, batch, ratio)
            return value + (0 * value).sqrt(), squares  # 0 * infinity

    model = new_model(frames)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Diverged, match="step 1: the gradient is NaN or infinite, by the gradient of training frame"):
        fit(model, frames, Steep(), steps=2, batch_size=2, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_validation(frames):
    part = with_label(frames, 0, "energy", 1e200)
    with pytest.raises(Diverged, match="the error validation_energy_eV_per_atom is NaN or infinite.*validation frames"):
        fit(new_model(frames), frames, LOSS, steps=2, interval=1, validation=part, progress=False)


def linear_model(frames):
    from ase_mlelec.descriptors import DeepPotSE
    from ase_mlelec.heads import ScalarHead
    from ase_mlelec.model import Model
    from ase_mlelec.train.standardize import standardize

    descriptor = DeepPotSE(["Cu"], 4.0, 1.5, (3,), 3, l_max=2, n_basis=4)
    model = Model(descriptor, {"energy": ScalarHead(1, descriptor.n_features, ())}).double()
    standardize(model, frames)
    return model


def test_closed_form(frames, monkeypatch):
    model = linear_model(frames)
    before = copy.deepcopy(model.state_dict())
    true_rows = checked_rows.weighted_rows

    def rows(model, batch, loss):
        wrong = batch.labels["energy"].sum() > 1e3
        return {
            name: (found, torch.where(wrong, torch.nan, rest))
            for name, (found, rest) in true_rows(model, batch, loss).items()
        }

    with monkeypatch.context() as patch:
        patch.setattr(checked_rows, "weighted_rows", rows)
        with pytest.raises(
            Diverged,
            match=r"closed form are NaN or infinite by training frame 3 \(cu-3\); its label "
            "'energy' reaches 1e",
        ):
            fit_linear(model, with_label(frames, 3, "energy", 1e6), LOSS, 1e-6, progress=False)
    for few_rows in (0.0, 1e9):
        monkeypatch.setattr(linear_energy, "FEW_ROWS", few_rows)
        monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0)
        with pytest.raises(Diverged, match="closed form.*(infinite|no finite solution|singular)"):
            fit_linear(model, with_label(frames, 3, "energy", 1e308), LOSS, 1e-6, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_model_of_nan_is_refused(frames):
    model = new_model(frames)
    refuse_model(model, "m.safetensors")
    with torch.no_grad():
        model.heads["energy"].nets.last[0].weight[0, 0] = torch.nan
    with pytest.raises(Diverged, match="m.safetensors: 'heads.energy.nets.last.0.weight' of the model is NaN"):
        refuse_model(model, "m.safetensors")


# before training


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("energy", np.nan, "a.h5: frame 2 .cu-2.: label 'energy' holds NaN or infinite numbers"),
        ("forces", np.full((4, 3), np.inf), "a.h5: frame 2 .cu-2.: label 'forces' holds NaN"),
        (
            "energy",
            -1e12,
            r"a.h5: frame 2 .cu-2.: label 'energy' reaches 2.5e\+11 eV per atom, more than any calculation",
        ),
        ("forces", np.full((4, 3), 1e9), "label 'forces' reaches 1e.09 eV/Å"),
        ("ados", np.full((4, 25), 1e20), "label 'ados' reaches 1e.20 states/eV"),
    ],
)
def test_labels_that_cannot_be(name, value, message, frames):
    with pytest.raises(ValueError, match=message):
        check_frames(with_label(frames, 2, name, value), "a.h5")


def test_structures_that_cannot_be(frames):
    check_frames(frames, "a.h5")
    for change, message in (
        (lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0]), "0 and 1 .*Å apart"),
        (lambda atoms: atoms.positions.__setitem__(1, np.nan), "positions of atom 1 are NaN"),
        (lambda atoms: atoms.set_cell([1, 1, 0]), "span no volume"),
    ):
        part = Frames([copy.deepcopy(frame) for frame in frames])
        change(part.frames[3].atoms)
        with pytest.raises(ValueError, match=f"a.h5: frame 3 .cu-3.: .*{message}"):
            check_frames(part, "a.h5")
    with pytest.raises(ValueError, match="a.h5: got no structures"):
        check_frames(Frames([]), "a.h5")


@pytest.mark.parametrize(
    "energy",
    [{"steps": 3, "widths": [4], "learning_rate": [1000.0, 1000.0]}, {"widths": [], "forces": [1.0, 1.0]}],
    ids=["net", "linear"],
)
def test_no_model_is_written(energy, tmp_path, frames, monkeypatch):
    """A model that was there stays."""
    write_hdf5(tmp_path / "cu.h5", make_frames(10))
    (tmp_path / "cu.safetensors").write_bytes(b"the former one")

    def broken(model, *rest, **options):
        with torch.no_grad():
            model.heads["energy"].nets.last[0].weight.fill_(torch.nan)

    monkeypatch.setattr("ase_mlelec.train.recipes.frames.fit", broken)
    monkeypatch.setattr("ase_mlelec.train.recipes.linear_energy.fit_linear", broken)
    monkeypatch.setattr("ase_mlelec.train.recipes.frames.errors", lambda model, part: {})
    config = parse_config(
        {
            "data": {"files": ["cu.h5"]},
            "descriptor": DESCRIPTOR,
            "energy": energy,
            "output": {"model": "cu.safetensors"},
        },
        tmp_path,
    )
    with pytest.raises(Diverged, match="cu.safetensors: .* of the model is NaN or infinite.*Nothing was saved"):
        train(config, progress=False)
    assert (tmp_path / "cu.safetensors").read_bytes() == b"the former one"


# memory


def test_memory(monkeypatch):
    assert available_memory() is None or available_memory() > 1e6
    with pytest.raises(ValueError, match=r"a matrix would need 8e\+09 GB of memory, .* GB are left; take less"):
        check_memory(10**18, "a matrix", "take less")
    monkeypatch.setattr("ase_mlelec.train.memory.available_memory", lambda: None)
    check_memory(10**18, "a matrix", "take less")  # where the system does not tell


@pytest.mark.parametrize("few_rows", [0.0, 1e9], ids=["normal equations", "rows"])
def test_closed_form_is_refused_before_memory_is_taken(few_rows, frames, monkeypatch):
    model = linear_model(frames)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", few_rows)
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0)
    monkeypatch.setattr("ase_mlelec.train.memory.available_memory", lambda: 1000)
    monkeypatch.setattr(Batches, "for_model", None)
    with pytest.raises(
        ValueError,
        match=r"the closed form of .*\d+ weights.* would need .* GB of memory, 1e-06 GB are "
        "left; take fewer features: .*near = 0",
    ):
        fit_linear(model, frames, LOSS, 1e-6, progress=False)
