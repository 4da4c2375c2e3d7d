"""Energies that a model has learned at other temperatures of the electrons: what they must reproduce, and derivatives."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from fake_cuda import gpu
from small_data import hot_configuration, make_frames
from small_models import random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, load_model
from ase_mlelec.analysis.two_temperature import TwoTemperature, gaussian_pulse
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.model import Model
from ase_mlelec.testing import assert_close, random_atoms
from ase_mlelec.train.config import Config
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes import hot_energies

COLD, HOT = 300.0, (9000.0, 14000.0)  # K
NAMES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")


def hot_model(temperatures=HOT, seed=0):
    """Model of energy and DOS with random changes of the energy at other temperatures."""
    plain = random_model(seed, ("energy", "dos"), metadata={"dos_width_eV": 0.3})
    hot = HotEnergies(COLD, temperatures, 2, 12).double()
    hot.changes += torch.randn(hot.changes.shape, generator=torch.Generator().manual_seed(seed)) * 0.01
    return Model(plain.descriptor, plain.heads, plain.metadata, hot=hot)


def structure():
    return random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


def calculator(temperature, model=None, **options):
    options = {"on_extrapolation": "ignore", **options}
    return DeepDOSCalculator(model or hot_model(), electronic_temperature=temperature, **options)


def test_shares():
    hot = HotEnergies(COLD, HOT, 1, 3)
    for k, temperature in enumerate(HOT):
        assert_close(np.array(hot.shares(temperature)), np.eye(2)[k], 1e-12)
    assert_close(np.array(hot.shares(COLD)), np.zeros(2), 1e-12)
    numerical = (np.array(hot.shares(5001.0)) - hot.shares(4999.0)) / 2
    np.testing.assert_allclose(hot.slopes(5000.0), numerical, rtol=1e-6)  # second order of the step
    assert HotEnergies(0.5, (4.0,), 1, 3).shares(1.0)[0] == pytest.approx((1 - 0.5**2) / (16 - 0.5**2))


def test_learned_energies_are_reproduced():
    """At a temperature that was learned the density of states adds nothing, to energy, forces and stress."""
    atoms, model = structure(), hot_model()
    for k, temperature in enumerate(HOT):
        changed = hot_model()
        changed.heads["energy"].change_last(changed.hot.changes[k][:, :, None])
        calc, wanted = calculator(temperature), DeepPotCalculator(changed)
        for name in NAMES:
            assert_close(calc.get_property(name, atoms), wanted.get_property(name, atoms), 1e-9, name)
    cold = DeepPotCalculator(model).get_property("energy", atoms)
    assert_close(calculator(COLD).get_property("energy", atoms), cold, 1e-12)
    assert abs(calculator(HOT[0]).get_property("energy", atoms) - cold) > 0.01


def test_between_them_it_is_the_formula_with_what_is_left():
    atoms, temperature = structure(), 6000.0
    calc, plain = calculator(temperature), random_model(0, ("energy", "dos"), metadata={"dos_width_eV": 0.3})
    shares = calc.models[0].hot.shares(temperature)

    def formula(t):
        return calculator(t, plain).get_property("energy", atoms)

    rests = [calculator(t).get_property("energy", atoms) - formula(t) for t in HOT]
    assert_close(calc.get_property("energy", atoms), formula(temperature) + np.dot(shares, rests), 1e-9)


def test_forces_and_stress_are_derivatives():
    atoms = structure()
    atoms.calc = calculator(6000.0)
    assert np.abs(calculate_numerical_forces(atoms, eps=2e-4, iatoms=[1, 5]) - atoms.get_forces()[[1, 5]]).max() < 1e-6
    assert np.abs(calculate_numerical_stress(atoms, eps=1e-5) - atoms.get_stress()).max() < 1e-6


def test_several_structures_at_once():
    images = [structure(), random_atoms("Si3O3", cell=[5.5, 5.1, 6.1], seed=2)]
    calc = calculator(6000.0)
    alone = [calc.get_property("forces", image) for image in images]
    for image, wanted in zip(calc.each_of(images), alone):
        assert_close(calc.get_property("forces", image), wanted, 1e-12)


def test_entropy_is_minus_the_derivative():
    atoms, step = structure(), 1.0
    free = [calculator(6000 + way * step).get_property("energy", atoms) for way in (-1, 1)]
    entropies, energies = zip(*(calculator(None).get_energy_of_electrons(t, atoms=atoms)[::-1] for t in (6000, 9000)))
    assert_close(entropies[0], -(free[1] - free[0]) / (2 * step), 1e-7)
    wanted = calculator(9000).get_property("energy", atoms) - calculator(6000).get_property("energy", atoms)
    assert_close((energies[1] - 9000 * entropies[1]) - (energies[0] - 6000 * entropies[0]), wanted, 1e-9)


def test_entropy_of_a_committee():
    """Of members whose changes of the energy differ, and whose density of states is the same."""
    first, other = hot_model(), hot_model()
    other.hot.changes *= -2
    atoms, step = structure(), 1.0
    free = [calculator(6000 + way * step, [first, other]).get_property("energy", atoms) for way in (-1, 1)]
    entropy = calculator(None, [first, other]).get_energy_of_electrons(6000, atoms=atoms)[1]
    assert_close(entropy, -(free[1] - free[0]) / (2 * step), 1e-7)


@pytest.mark.slow
def test_a_pulse_conserves_energy():
    """Half the time step leaves about a quarter of the fluctuation of the energy less that of the pulse."""

    def spread(timestep, n_steps):
        atoms = structure()
        model = hot_model((9000.0,))
        model.hot.changes[..., -1] -= 0.3  # eV per atom, as with random changes alone the heat capacity is negative
        atoms.calc = calculator(3000.0, model)
        dyn = VelocityVerlet(atoms, timestep * units.fs)
        two = TwoTemperature(atoms, dyn, coupling=0.0, pulse=gaussian_pulse(0.1, center=3, duration=2))
        totals = []
        dyn.attach(two, interval=1)
        dyn.attach(lambda: totals.append(two.total_energy - two.absorbed), interval=1)
        dyn.run(n_steps)
        assert two.electronic_temperature > 4000
        return np.ptp(totals)

    coarse, fine = spread(0.5, 10), spread(0.25, 20)
    assert coarse < 0.05 and fine < 0.5 * coarse


def test_energies_of_others_have_no_change():
    """With another potential, or another temperature of the energies, the density of states alone counts."""
    atoms, model = structure(), hot_model()
    plain = random_model(0, ("energy", "dos"), metadata={"dos_width_eV": 0.3})
    for options in ({"potential": DeepPotCalculator(plain)}, {"reference_temperature": 1000.0}):
        wanted = calculator(6000.0, plain, **options).get_property("energy", atoms)
        assert_close(calculator(6000.0, model, **options).get_property("energy", atoms), wanted, 1e-9)


def test_a_file_keeps_them(tmp_path):
    model, atoms = hot_model(), structure()
    model.save(tmp_path / "hot.safetensors")
    loaded = load_model(tmp_path / "hot.safetensors")
    assert loaded.hot.temperatures == HOT and torch.equal(loaded.hot.changes, model.hot.changes)
    single = calculator(6000.0, loaded, dtype="float32")
    assert single.models[0].hot.changes.dtype == torch.float64
    assert_close(single.get_property("energy", atoms), calculator(6000.0).get_property("energy", atoms), 1e-3)


def test_what_does_not_fit_is_refused():
    model = hot_model()
    for temperatures in ((COLD,), (9000.0, 9000.0), (-1.0,)):
        with pytest.raises(ValueError, match="need different ones above 0"):
            HotEnergies(COLD, temperatures, 2, 12)
    with pytest.raises(ValueError, match="got changes of shape"):
        Model(model.descriptor, model.heads, model.metadata, hot=HotEnergies(COLD, HOT, 2, 11))
    with pytest.raises(ValueError, match="without an energy"):
        Model(model.descriptor, {"dos": model.heads["dos"]}, model.metadata, hot=model.hot)


def hotter(frames, temperature):
    """The frames with free energies that are lower, by a share of the energy and a constant."""
    found = []
    for frame in frames:
        labels = {key: 0.9 * frame.labels[key] for key in ("energy", "forces", "virial")}
        labels["energy"] -= 0.5 * len(frame.atoms)
        found.append(replace(frame, labels=labels))
    settings = frames.attributes["settings"] | {"electronic_temperature_K": temperature}
    return Frames(found, None, frames.attributes | {"settings": settings})


@pytest.mark.slow
def test_training(tmp_path):
    """Energies that are a share of the cold ones are learned as well as these, from some of the structures."""
    frames = make_frames(40)
    config = hot_configuration(tmp_path, frames, hotter(frames.take(range(0, 40, 2)), 8000.0))
    model = train(config, progress=False)
    assert model.hot.reference == 1000 and model.hot.temperatures == (8000.0,)
    cold = model.metadata["errors"]["validation"]["energy_rmse_meV_per_atom"]
    about = model.metadata["training"]["closed_form"]["energy at 8000 K"]
    assert about["begins_with"]["1000"] == pytest.approx(0.9, abs=0.01)
    assert about["validation"]["energy_rmse_meV_per_atom"] < 1.2 * cold
    frame = next(frame for frame in frames if frame.group == "test")
    hot = calculator(8000.0, model).get_property("energy", frame.atoms)
    n_atoms = len(frame.atoms)
    assert hot == pytest.approx(0.9 * frame.labels["energy"] - 0.5 * n_atoms, abs=0.003 * cold * n_atoms)


def mixture():
    """Energies of two models, by temperature, and frames with those of a mixture of both and other constants."""
    cold = Model(random_model(0).descriptor, {"energy": random_model(0).heads["energy"]})
    warm, wanted = copy.deepcopy(cold), copy.deepcopy(cold)
    nets = [model.heads["energy"].nets for model in (cold, warm, wanted)]
    with torch.no_grad():
        for own, hot, mixed in zip(*(each.last.parameters() for each in nets)):
            hot.copy_(torch.randn(own.shape, generator=torch.Generator().manual_seed(1)))
            mixed.copy_(0.4 * own + 0.7 * hot)
        nets[2].bias += torch.tensor([[3.0], [-2.0]])
    calc = DeepPotCalculator(wanted, on_extrapolation="ignore")
    structures = [random_atoms(symbols, cell=[4.7, 6.0, 5.5], seed=2) for symbols in ("Si4O3", "Si3O3", "Si2O4")]
    labels = [{name: calc.get_property(name, atoms) for name in ("energy", "forces")} for atoms in structures]
    frames = Frames([Frame(*pair) for pair in zip(structures, labels)])
    return {1000.0: cold, 8000.0: warm}, frames


def test_a_mixture_of_energies_is_found_again():
    """Its shares by the forces, its constants by the energies."""
    fitted, frames = mixture()
    shares = hot_energies._shares(fitted, frames)
    assert shares == pytest.approx({1000.0: 0.4, 8000.0: 0.7})
    found = hot_energies._mixture(fitted, shares, frames)
    for label in ("energy", "forces"):
        assert_close(hot_energies._values(found, frames, label), hot_energies._labels(frames, label), 1e-8)


def test_a_mixture_of_models_on_a_gpu(monkeypatch):
    fitted, frames = mixture()
    with gpu(monkeypatch):
        fitted = {temperature: model.to("cuda") for temperature, model in fitted.items()}
        shares = hot_energies._shares(fitted, frames)
        assert shares == pytest.approx({1000.0: 0.4, 8000.0: 0.7})
        found = hot_energies._values(hot_energies._mixture(fitted, shares, frames), frames, "energy")
        assert_close(found, hot_energies._labels(frames, "energy"), 1e-8)


def test_hot_energies_stay_when_the_cold_one_changes():
    model, atoms = hot_model(), structure()
    before = [calculator(t, model).get_property("energy", atoms) for t in (COLD, HOT[1])]
    with hot_energies.hot_energies_kept(model):
        model.heads["energy"].change_last(torch.full((2, 13, 1), 0.01, dtype=torch.float64))
    after = [calculator(t, model).get_property("energy", atoms) for t in (COLD, HOT[1])]
    assert abs(after[0] - before[0]) > 0.01
    assert_close(after[1], before[1], 1e-9)


def test_data_that_do_not_belong_are_refused(tmp_path):
    frames = make_frames(15)
    same = hot_configuration(tmp_path, frames, hotter(frames, 1000.0))
    with pytest.raises(ValueError, match="hot.h5: got energies at 1000 K, which is that of data.files"):
        train(same, progress=False)
    without = hotter(frames, 8000.0)
    without.attributes["settings"].pop("electronic_temperature_K")
    with pytest.raises(
        ValueError, match="hot.h5: got energies without electronic_temperature_K in the settings of this"
    ):
        train(hot_configuration(tmp_path, frames, without), progress=False)
    for what in ("positions", "cell", "numbers"):
        changed = hotter(frames, 8000.0)
        changed = Frames([replace(frame, atoms=frame.atoms.copy()) for frame in changed], None, changed.attributes)
        atoms = changed[0].atoms
        {"positions": atoms.positions, "cell": atoms.cell, "numbers": atoms.numbers}[what][0] += 1
        with pytest.raises(ValueError, match="hot.h5: 'cu-0' has other atoms, positions or another cell"):
            train(hot_configuration(tmp_path, frames, changed), progress=False)
    others = Frames(
        [replace(frame, name=f"x{frame.name}") for frame in hotter(frames, 8000.0)], None, without.attributes
    )
    others.attributes["settings"] = {"electronic_temperature_K": 8000.0}
    with pytest.raises(ValueError, match="none of its structures is in the training data"):
        train(hot_configuration(tmp_path, frames, others), progress=False)
    with pytest.raises(ValueError, match="data.hot"):
        Config(data={"files": ["a.h5"], "hot": ["b.h5"]}, output={"model": "m.safetensors"}, energy={})


def test_a_model_of_unknown_temperature():
    model = hot_model()
    del model.metadata["electronic_temperature_K"]
    with pytest.raises(CalculatorSetupError, match="give reference_temperature"):
        calculator(6000.0, model)
