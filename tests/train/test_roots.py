"""Densities of states as squares of what the last layer gives: the fit, its error bars, and when it is chosen."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_data import ENERGIES, WIDTH, gaussian, make_frames
from small_models import random_model, rooted
from test_closed_form import by_numpy, configuration, model_of, values_of

from ase_mlelec import DeepDOSCalculator, load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.io.deepmd.export import write_model
from ase_mlelec.train.closed_form import fit_closed_form
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.error_bars import add_error_bars, errors_and_deviations
from ase_mlelec.train.last_layer import rows_of
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.defaults import settled
from ase_mlelec.train.roots import RootLoss, of_insulators, roots_of
from ase_mlelec.uncertainty import contributions

SMALL = {"power_spectrum": {"cutoff": 3.5, "n_radial": 3}}


@pytest.fixture(scope="module")
def copper(tmp_path_factory):
    """A model trained without a setting, of which the data demand roots, and its data."""
    folder, frames = tmp_path_factory.mktemp("roots"), make_frames(30)
    write_hdf5(folder / "d.h5", frames)
    model = train(configuration(folder, dos={"drawn": 30}, **SMALL), progress=False)
    return model, frames, folder / "m.safetensors"


def with_ados(frames, change):
    """Copy of the frames with other labels of atoms, and their sums."""

    def changed(frame):
        ados = change(frame.labels["ados"])
        return replace(frame, labels=frame.labels | {"ados": ados, "dos": ados.sum(axis=0)})

    return replace(frames, frames=[changed(frame) for frame in frames])


def test_fit_is_that_of_numpy():
    """As a fit of spectra to the roots, whose squares are the prediction; labels below zero count as zero."""
    frames = with_ados(make_frames(6), lambda ados: ados - 1e-3)
    frames[1].weight = 0.5
    roots = roots_of(frames)
    assert all((root.labels["ados"] >= 0).all() and "dos" not in root.labels for root in roots)
    np.testing.assert_allclose(roots[0].labels["ados"] ** 2, np.maximum(frames[0].labels["ados"], 0), atol=1e-15)
    assert frames[0].labels["ados"].min() < 0
    model = model_of("dos", roots)
    chosen = fit_closed_form(model, roots, RootLoss(), weights_by_data=False, batch_size=2).about
    assert list(chosen["cross_validation"]) == ["root_of_ados"] and chosen["weights"] == {"atomic": 1.0}
    expected = by_numpy(copy.deepcopy(model), "dos", roots, chosen["ridge"], (1.0, 0.0))
    model.heads["dos"].square_root = True
    batch = Batches.for_model(model, frames, ()).batch(range(len(frames)))
    np.testing.assert_allclose(values_of(model, "dos", batch), expected**2, rtol=1e-5, atol=1e-9)


def test_without_a_setting(copper):
    model, frames, path = copper
    assert model.heads["dos"].square_root
    assert model.metadata["training"]["configuration"]["dos"]["square_root"] is True
    again, atoms = load_model(path), frames[4].atoms
    calc, other = (DeepDOSCalculator(each, on_extrapolation="ignore") for each in (model, again))
    ados = calc.get_ados(atoms)
    assert ados.min() >= 0 and np.array_equal(ados, other.get_ados(atoms))
    labels = frames[4].labels["ados"]
    assert np.sqrt(np.mean((ados - labels) ** 2)) < 0.3 * labels.std()
    gap, label = calc.get_band_gap(atoms), calc._gap_of(torch.from_numpy(labels.sum(axis=0)))
    assert gap[0] == pytest.approx(float(label.cbm - label.vbm), abs=0.3)
    assert 0 < gap.uncertainty[0] < 1


def test_rows_are_those_of_the_roots(copper):
    model, frames, _ = copper
    some = frames.take([0, 1])
    (found,) = rows_of(model, "dos", some)
    labels = np.sqrt(np.concatenate([frame.labels["ados"] for frame in some]))
    nets, last = model.heads["dos"].nets, model.heads["dos"].nets.last[0]
    weights = torch.cat([last.weight.T, last.bias[None]]) * nets.scale
    wanted = found.rows @ weights.detach() + nets.bias[0] - torch.from_numpy(labels)
    torch.testing.assert_close(found.errors, wanted, rtol=0, atol=1e-10)


def test_bars_are_the_spread_of_members(copper):
    """Members are drawn from the posterior of the weights, and squared; bars are exact to first order."""
    model, frames, _ = copper
    model = copy.deepcopy(model)
    posterior, atoms = model.posteriors["dos"], frames[4].atoms.copy()
    posterior.scales, posterior.floors = {"members": 0.05}, {}  # small, for the first order
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    members = [member.get_ados() for member in calc.members(400, atoms=atoms)]
    for mine, own in zip(members, model.members(400)):
        if np.array_equal(mine, members[0]) or np.array_equal(mine, members[-1]):
            alone = DeepDOSCalculator(own, on_extrapolation="ignore").get_ados(atoms)
            np.testing.assert_allclose(mine, alone, rtol=1e-9, atol=1e-12)
    for name, found in ("ados", members), ("dos", [ados.sum(axis=0) for ados in members]):
        bars, spread = calc.uncertainty[name], np.std(found, axis=0)
        large = spread > 0.05 * spread.max()  # elsewhere the root is about zero, and the change is of second order
        assert large.mean() > 0.2
        np.testing.assert_allclose(bars[large], spread[large], rtol=0.2)
        assert np.mean(bars[large] / spread[large]) == pytest.approx(1, abs=0.1)  # three standard errors


def test_calculator_and_training_agree(copper):
    model, frames, _ = copper
    calc, some = DeepDOSCalculator(model, on_extrapolation="ignore"), frames.take([4])
    calc.get_ados(some[0].atoms)
    for label, (errors, deviations) in errors_and_deviations(model, "dos", some).items():
        np.testing.assert_allclose(np.squeeze(deviations), calc.uncertainty[label], rtol=1e-9, atol=1e-12)
        truth = some[0].labels["ados"]
        value = calc.get_ados() - truth if label == "ados" else calc.get_total_dos() - truth.sum(axis=0)
        np.testing.assert_allclose(np.squeeze(errors), value, atol=1e-12)


def test_floor_is_that_of_the_roots(copper):
    model, frames, _ = copper
    model = copy.deepcopy(model)
    posterior = model.posteriors["dos"]
    posterior.scales, posterior.floors = {}, {"ados": 0.3, "dos": 0.2}
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    ados = calc.get_ados(frames[4].atoms)
    with torch.no_grad():
        of = contributions(model.heads["dos"], posterior, calc._environments_of("dos")[1][0])
    z, size, signs = of.z.numpy(), of.values.square().sum(dim=0).sqrt().numpy(), of.slopes.sign().numpy()
    leverage, total = (z**2).sum(axis=1), z.T @ (2 * signs * np.sqrt(ados))
    np.testing.assert_allclose(
        calc.uncertainty["ados"], np.sqrt((leverage + 0.09)[:, None] * 4 * ados) * size, rtol=1e-7, atol=1e-12
    )
    wanted = np.sqrt((total**2).sum(axis=0) + 0.04 * 4 * ados.sum(axis=0)) * size
    np.testing.assert_allclose(calc.uncertainty["dos"], wanted, rtol=1e-7, atol=1e-12)


def test_calibration_of_a_model(copper):
    """As ``mlelec calibrate`` does it; where there are no states, errors and bars do not count."""
    _, frames, path = copper
    parts = frames.select("train"), frames.select("test")  # the validation has been fitted by now
    again = load_model(path)
    report = add_error_bars(again, *parts)
    assert set(report) == {"ados", "dos", "gap", "vbm", "cbm"} == {*again.posteriors["dos"].scales} - {"members"}
    for label, found in report.items():
        if label not in ("ados", "dos"):  # of six structures
            continue
        assert 0.45 < found["within_one"] < 0.85 and found["within_one"] < found["within_two"], label
        errors, deviations = errors_and_deviations(again, "dos", parts[1])[label]
        states = deviations > 2e-3 * np.sqrt(np.mean(deviations**2))  # there are none elsewhere
        assert np.mean(np.abs(errors[states]) < deviations[states]) == pytest.approx(found["within_one"], abs=0.05)


def test_insulators_and_others():
    frames = make_frames(5)
    assert of_insulators(frames)
    metal = with_ados(frames, lambda ados: ados + 0.1 * gaussian(ENERGIES / 4) * WIDTH)
    assert not of_insulators(metal)
    assert of_insulators(replace(frames, frames=[*frames, *metal.frames[:4]]))
    assert not of_insulators(replace(frames, frames=[*frames.frames[:4], *metal]))
    assert not of_insulators(with_ados(frames, lambda ados: ados - 0.1))  # far below zero
    assert not of_insulators(replace(frames, attributes={}))
    alone = replace(frames, frames=[*frames, replace(frames[0], labels={"dos": frames[0].labels["dos"]})])
    assert not of_insulators(alone)


def test_what_the_configuration_decides(tmp_path):
    frames = make_frames(5)
    assert settled(configuration(tmp_path, dos={}), frames).dos.square_root is True
    for given in ({"square_root": False}, {"total": 1.0}, {"steps": 5}):
        assert not settled(configuration(tmp_path, dos=given), frames).dos.square_root
    for given, other in (({"total": 1.0}, "total"), ({"widths": [8]}, "gradient descent"), ({"drawn": 0}, "gradient")):
        with pytest.raises(ValueError, match=f"dos.square_root: got true beside {other}") as caught:
            configuration(tmp_path, dos={"square_root": True, **given})
        assert "\n" not in str(caught.value)


def test_sums_alone_are_refused(tmp_path):
    frames = make_frames(6)
    del frames[2].labels["ados"]
    write_hdf5(tmp_path / "d.h5", frames)
    with pytest.raises(
        ValueError, match=r"d\.h5: dos\.square_root: frame 'cu-2' has a total density of states and none"
    ):
        train(configuration(tmp_path, dos={"square_root": True, "drawn": 5}, **SMALL), progress=False)


@pytest.mark.slow
def test_start_keeps_the_root(copper, tmp_path):
    """Gradient descent from a model of roots learns densities of states by way of their roots."""
    model, frames, path = copper
    write_hdf5(tmp_path / "d.h5", frames)
    tables = {"start": str(path), "dos": {"widths": [30], "steps": 2, "learning_rate": [1e-9, 1e-9]}, **SMALL}
    again = train(parse_config(configuration_of(tables), tmp_path), progress=False)
    assert again.heads["dos"].square_root
    calcs = [DeepDOSCalculator(each, on_extrapolation="ignore") for each in (model, again)]
    spectra = [calc.get_ados(frames[4].atoms) for calc in calcs]
    np.testing.assert_allclose(*spectra, atol=1e-3)
    tables["dos"] = {"square_root": False, "drawn": 0, **tables["dos"]}
    with pytest.raises(ValueError, match="start: got False as square_root of the dos, the model .* has True"):
        train(parse_config(configuration_of(tables), tmp_path), progress=False)


def configuration_of(tables):
    return {"data": {"files": ["d.h5"]}, "output": {"model": "again.safetensors"}} | tables


def test_export_is_refused(tmp_path):
    with pytest.raises(ValueError, match="deepmd-kit has no square of the output of a net; train with") as caught:
        write_model(tmp_path / "m.dp", rooted(random_model(0, ("dos",))))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
