"""Calibration of bars of what follows from a density of states: against calculators, and by errors of known size."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_data import ENERGIES, gaussian, make_frames
from small_models import random_model, seeded

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.electrons import Electrons
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.physics.dos import band_energy
from ase_mlelec.physics.fermi import fermi_level
from ase_mlelec.train.derived_bars import FEWEST, calibrate_derived, derived_deviations
from ase_mlelec.train.error_bars import add_error_bars
from ase_mlelec.train.log import Log
from ase_mlelec.uncertainty import coverage
from ase_mlelec.uncertainty.dos_bars import SMOOTH

KELVIN = 2000.0
METADATA = {"electrons_in_dos": {"Cu": 2.0}, "electronic_temperature_K": KELVIN}


def with_errors(frames, calc, error, seed=0):
    """Frames whose labels are predictions, less what ``error(rng, ados)`` draws for each."""
    rng, new = np.random.default_rng(seed), []
    for frame in frames:
        ados = calc.get_ados(frame.atoms)
        labels = ados - error(rng, ados)
        new.append(replace(frame, labels={"ados": labels, "dos": labels.sum(axis=0)}))
    return replace(frames, frames=new)


def smooth(rng, ados):
    """Errors of one sign at all energies."""
    return 0.01 * rng.normal() * np.ones_like(ados)


def alternating(rng, ados):
    """Errors as large as the smooth ones whose sign changes from energy to energy: sums over energies hardly know them."""
    return smooth(rng, ados) * (-1) ** np.arange(len(ENERGIES))


def opening(rng, ados):
    """Errors that move the levels above and below 0.5 eV apart by some 0.02 eV."""
    return 0.01 * rng.normal() * np.gradient(ados, ENERGIES, axis=1) * np.sign(ENERGIES - 0.5)


@pytest.fixture(scope="module")
def metal():
    """A model of a metal whose errors alternate, unlike those of its training data, and structures it does not know."""
    model = random_model(0, ("energy",), species=("Cu",), sel=(20,), metadata=METADATA)
    with seeded(0):
        model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, ENERGIES, (12,)).double()
        model.heads["dos"].nets.bias.copy_(torch.from_numpy(0.3 + 0.7 * gaussian(ENERGIES + 4)))
        model.heads["dos"].nets.scale.fill_(0.02)
    frames, calc = make_frames(60), DeepDOSCalculator(model, on_extrapolation="ignore")
    train = with_errors(frames.select("train"), calc, smooth)
    frames = with_errors(frames, calc, alternating)
    report = add_error_bars(model, train, frames.select("validation"), names=["dos"])
    return model, frames, report


def test_bars_of_fermi_levels_are_those_of_the_errors(metal):
    """On structures that nothing was fitted to; bars without this calibration, the spread of members, are far too large."""
    model, frames, report = metal
    assert report["fermi_level"]["errors"] == 12 and set(SMOOTH) <= {*report}
    model = copy.deepcopy(model)
    calc, many = DeepDOSCalculator(model, on_extrapolation="ignore"), frames.select("validation")
    many = [each for seed in range(8) for each in with_errors(many, calc, alternating, seed=seed)]
    calibrate_derived(model, replace(frames, frames=many), Log.of(False))  # twelve leave more to chance
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    ratios, of_members, rng = [], [], np.random.default_rng(9)
    for frame in with_errors(frames.select("test"), calc, alternating, seed=8):
        level, bar = calc.get_fermi_level(atoms=frame.atoms), calc.uncertainty["fermi_level"]
        spread = np.std([member.get_fermi_level() for member in calc.members(16)])
        for _ in range(10):
            dos = calc.get_total_dos() - alternating(rng, calc.get_ados()).sum(axis=0)
            error = level - fermi_level(ENERGIES, dos, 2 * len(frame.atoms), KELVIN)
            ratios.append(error / bar), of_members.append(error / spread)
    assert np.mean(np.abs(ratios) < 1) == pytest.approx(0.68, abs=0.12)
    assert np.mean(np.abs(ratios) < 2) == pytest.approx(0.95, abs=0.05)
    assert np.sqrt(np.mean(np.square(of_members))) < 0.3


def test_errors_and_parts_are_those_of_calculators(metal):
    model, frames, _ = metal
    bare = copy.deepcopy(model)
    bare.posteriors["dos"].floors, scales = {}, bare.posteriors["dos"].scales
    bare.posteriors["dos"].scales = {"members": scales["members"]}
    some = frames.take([3, 4])  # of four atoms and of two
    found = derived_deviations(bare, some)
    assert {*found} == {*SMOOTH}
    calc = DeepDOSCalculator(bare, on_extrapolation="ignore")
    for k, frame in enumerate(some):
        n_electrons = 2 * len(frame.atoms)
        level = fermi_level(ENERGIES, frame.labels["dos"], n_electrons, KELVIN)
        energy = band_energy(ENERGIES, frame.labels["dos"], n_electrons, KELVIN)
        assert found["fermi_level"].errors[k] == pytest.approx(
            calc.get_fermi_level(atoms=frame.atoms) - level, abs=1e-9
        )
        assert found["band_energy"].errors[k] == pytest.approx(calc.get_band_energy() - energy, abs=1e-9)
        for name in SMOOTH:
            assert found[name].posterior[k] == pytest.approx(calc.uncertainty[name], rel=1e-6), name
        known = DeepDOSCalculator(model, on_extrapolation="ignore")
        known.get_ados(frame.atoms)
        for name in SMOOTH:
            parts = found[name].posterior[k], model.posteriors["dos"].floor(name) * found[name].floor[k]
            wanted = scales_of(model)[name] / scales["members"] * np.hypot(*parts)
            assert known.uncertainty[name] == pytest.approx(wanted, rel=1e-6), name
    assert found["band_energy"].floor[0] / found["fermi_level"].floor[0] == pytest.approx(len(some[0].atoms))


def scales_of(model):
    return model.posteriors["dos"].scales


def test_floor_counts_twice_as_much_as_the_first_order(metal):
    model, frames, _ = metal
    for name, found in derived_deviations(model, frames.select("validation")).items():
        floor = model.posteriors["dos"].floor(name) * found.floor
        assert np.mean(floor**2) == pytest.approx(4 * np.mean(found.posterior**2), rel=1e-4), name


def test_gaps_of_insulators(metal):
    """Errors of the edges are those of the criterion of the calculator, applied to the labels."""
    model, frames, _ = metal
    model = copy.deepcopy(model)
    model.metadata = METADATA | {"dos_width_eV": 0.8}
    with torch.no_grad():
        model.heads["dos"].nets.bias.copy_(torch.from_numpy(2 * gaussian(ENERGIES + 2) + 2 * gaussian(ENERGIES - 3)))
        model.heads["dos"].nets.scale.fill_(1e-5)
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    frames = with_errors(frames.take(range(8)), calc, opening)
    found = derived_deviations(model, frames)
    assert {*found} == {"gap", "vbm", "cbm"}
    for k, frame in enumerate(frames):
        own = calc.get_band_gap(frame.atoms)
        label = calc._gap_of(torch.from_numpy(frame.labels["dos"]))
        wanted = own[0] - float(label.cbm - label.vbm), own[1] - float(label.vbm), own[2] - float(label.cbm)
        assert [found[name].errors[k] for name in ("gap", "vbm", "cbm")] == pytest.approx(wanted, abs=1e-9)
    del model.posteriors["dos"].scales["fermi_level"]
    assert {*calibrate_derived(model, frames, Log.of(False))} == {"gap", "vbm", "cbm"}
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    bars = [calc.get_uncertainty("gap", atoms=frame.atoms) for frame in frames]
    assert 0.4 <= coverage(found["gap"].errors, bars).within_one <= 0.9


def test_missed_electrons_do_not_move_the_gap(metal):
    """A valence band with too few states, and a weak level above the gap that holds more than what is missed."""
    model, frames, _ = metal
    model, valence = copy.deepcopy(model), 2 * gaussian(ENERGIES + 5)
    n_electrons = float(np.trapezoid(valence, ENERGIES))
    model.metadata = METADATA | {"dos_width_eV": 0.8, "electrons_in_dos": {"Cu": n_electrons}}
    with torch.no_grad():
        bands = 0.98 * valence + 0.05 * gaussian(ENERGIES) + gaussian(ENERGIES - 4)
        model.heads["dos"].nets.bias.copy_(torch.from_numpy(bands))
        model.heads["dos"].nets.scale.fill_(1e-5)
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    train = with_errors(frames.take(range(8)), calc, lambda *_: -0.02 * valence)
    atoms, gaps = frames[3].atoms, []
    for unseen in (None, train.take([0]), train):
        if unseen is not None:
            calibrate_derived(model, unseen, Log.of(False), train=train)
            assert model.metadata["states_below_gap_error"] == pytest.approx(0.02, rel=0.02)
        gaps.append(DeepDOSCalculator(model, on_extrapolation="ignore").get_band_gap(atoms))
    assert gaps[0].resolved and gaps[0][1] > -0.6  # above the level
    spectra, size = map(torch.from_numpy, (ENERGIES, train[3].labels["dos"])), len(atoms)
    label = (
        Electrons.of(model.metadata, model.heads["dos"])._replace(unsure=0.0).gap(*spectra, n_electrons * size, size)
    )
    wanted = [float(each) for each in (label.cbm - label.vbm, label.vbm, label.cbm)]
    assert wanted[1] < -3
    assert all([*gap] == pytest.approx(wanted, abs=0.05) for gap in gaps[1:])
    assert np.abs(derived_deviations(model, train)["gap"].errors).max() < 0.05


def test_metals_have_no_states_below_gaps(metal):
    assert "states_below_gap_error" not in metal[0].metadata


def test_few_structures_have_the_spread_of_members(metal):
    model, frames, _ = metal
    model = copy.deepcopy(model)
    model.posteriors["dos"].scales = {"members": 1.0}
    model.posteriors["dos"].floors = {}
    assert calibrate_derived(model, frames.take(range(FEWEST - 1)), Log.of(False)) == {}
    assert model.posteriors["dos"].scales == {"members": 1.0} and not model.posteriors["dos"].floors
    assert {*calibrate_derived(model, frames.take(range(FEWEST)), Log.of(False))} == {*SMOOTH}


def test_without_electrons_there_is_nothing_to_calibrate(metal):
    model, frames, _ = metal
    model = copy.deepcopy(model)
    model.metadata = {}
    assert derived_deviations(model, frames.take([0])) == {}


def test_bars_like_those_of_another_model(metal):
    """A model whose training errors, and posterior, are twice as large takes over bars of the same size."""
    model, frames, _ = metal
    other = copy.deepcopy(model)
    del other.posteriors["dos"]
    calc = DeepDOSCalculator(model, on_extrapolation="ignore")
    train = with_errors(frames.select("train"), calc, lambda *given: 2 * smooth(*given))
    add_error_bars(other, train, frames.select("validation"), names=["dos"], like=model)
    assert scales_of(other)["members"] == pytest.approx(scales_of(model)["members"] / 2, rel=0.01)
    for frame in frames.select("test").frames[:2]:
        pair = [DeepDOSCalculator(each, on_extrapolation="ignore") for each in (model, other)]
        for name in (*SMOOTH,):
            bars = [each.get_uncertainty(name, atoms=frame.atoms) for each in pair]
            assert bars[1] == pytest.approx(bars[0], rel=0.02), name


@pytest.mark.parametrize("name", ["entropy", "heat_capacity"])
def test_bars_vanish_with_the_temperature(metal, name):
    """As entropy and heat capacity do, by Sommerfeld's expansion; floors of 2000 K would be 200 times too large at 10 K."""
    model, frames, _ = metal
    atoms, relative = frames[3].atoms, []
    for kelvin in (100.0, 10.0):
        calc = DeepDOSCalculator(model, on_extrapolation="ignore", electronic_temperature=kelvin)
        relative.append(calc.get_uncertainty(name, atoms=atoms) / getattr(calc, f"get_{name}")())
    assert relative[1] == pytest.approx(relative[0], rel=0.05)
    calc = DeepDOSCalculator(model, on_extrapolation="ignore", electronic_temperature=0.0)
    assert calc.get_uncertainty(name, atoms=atoms) < 1e-30


def test_insulators_have_no_bars_of_metals(metal):
    """Scales and floors of one kind of structure mean nothing for the other, which has the spread of members."""
    model, frames, _ = metal
    model, atoms, names = copy.deepcopy(model), frames[3].atoms, ("entropy", "fermi_level")
    model.metadata = METADATA | {"dos_width_eV": 0.8}
    with torch.no_grad():
        model.heads["dos"].nets.bias.copy_(torch.from_numpy(2 * gaussian(ENERGIES + 2) + 2 * gaussian(ENERGIES - 3)))
        model.heads["dos"].nets.scale.fill_(1e-5)
    assert set(names) <= {*model.posteriors["dos"].floors}
    bare = copy.deepcopy(model)
    bare.posteriors["dos"].scales, bare.posteriors["dos"].floors = {"members": scales_of(model)["members"]}, {}
    calcs = [DeepDOSCalculator(each, on_extrapolation="ignore") for each in (model, bare)]
    assert calcs[0].get_band_gap(atoms)[0] > 1
    for name in names:
        found, wanted = (calc.get_uncertainty(name, atoms=atoms) for calc in calcs)
        assert found == pytest.approx(wanted, rel=1e-9), name
