"""Error bars of energies that a model has learned at other temperatures of the electrons."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from command_line import call, fails
from small_data import hot_configuration, make_frames
from small_models import random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, load_model
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.long_range import LongRange
from ase_mlelec.model import Model
from ase_mlelec.testing import assert_close, random_atoms
from ase_mlelec.train.deviations import errors_and_deviations
from ase_mlelec.train.error_bars import add_error_bars
from ase_mlelec.train.hot_bars import add_hot_error_bars
from ase_mlelec.train.recipe import train
from ase_mlelec.uncertainty import Posterior, coverage

COLD, HOT = 300.0, (9000.0, 14000.0)  # K
LABELS = ("energy", "forces", "virial")
NAMES = ("energy", "energies", "forces", "stress", "stresses")
SCALES = [{"energy": 0.5, "forces": 0.2, "virial": 0.3, "members": 0.5}, {"energy": 3.0, "forces": 2.0, "virial": 4.0}]
FLOORS = [{"forces": 0.4, "energy": 0.1}, {"virial": 0.05}]


def posterior(scales, floors):
    found = Posterior(2, 12, 5, scales=scales, floors=floors).double()
    found.inputs += torch.randn(found.inputs.shape, generator=torch.Generator().manual_seed(3)).double()
    found.outputs += 1
    return found


def hot_model(scales=SCALES, floors=FLOORS):
    """Model with energies at two more temperatures, and bars of its own at each."""
    plain = random_model(0, ("energy", "dos"), metadata={"dos_width_eV": 0.3})
    hot = HotEnergies(COLD, HOT, 2, 12, scales, floors).double()
    hot.changes += 0.01 * torch.randn(hot.changes.shape, generator=torch.Generator().manual_seed(1))
    cold = posterior(dict.fromkeys((*LABELS, "members"), 1.0), {"forces": 0.3})
    return Model(plain.descriptor, plain.heads, plain.metadata, hot=hot, posteriors={"energy": cold})


def structure():
    return random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


def bars(model, temperature=None, kind=DeepDOSCalculator):
    options = {} if kind is DeepPotCalculator else {"electronic_temperature": temperature}
    calc = kind(model, on_extrapolation="ignore", **options)
    return {name: calc.get_uncertainty(name, atoms=structure()) for name in NAMES}


def test_known_temperatures_have_their_own_scales_and_floors():
    for k, temperature in enumerate(HOT):
        wanted = hot_model()
        wanted.posteriors["energy"].scales, wanted.posteriors["energy"].floors = {"members": 1.0} | SCALES[k], FLOORS[k]
        for name, value in bars(wanted, kind=DeepPotCalculator).items():
            assert_close(bars(hot_model(), temperature)[name], value, 1e-10, name)
    for name, value in bars(hot_model(), kind=DeepPotCalculator).items():
        for temperature in (COLD, None):
            assert_close(bars(hot_model(), temperature)[name], value, 1e-12, name)


def test_between_them_bars_are_sums_with_the_shares_of_the_energy():
    model, temperature = hot_model(floors=None), 6000.0
    model.posteriors["energy"].floors = {}
    shares = model.hot.parts(temperature)
    assert sum(shares) == pytest.approx(1) and min(shares) < 0
    each = [bars(model, t) for t in (COLD, *HOT)]
    for name, value in bars(model, temperature).items():
        assert_close(value, sum(abs(share) * own[name] for share, own in zip(shares, each)), 1e-10, name)


def test_without_scales_they_are_those_of_the_cold_energy():
    for name, value in bars(hot_model(), COLD).items():
        assert_close(bars(hot_model(None, None), HOT[1])[name], value, 1e-12, name)


def test_members_differ_by_the_bars_at_every_temperature():
    calc = DeepDOSCalculator(hot_model(floors=None), electronic_temperature=COLD, on_extrapolation="ignore")

    def energies(temperature, n):
        calc.set(electronic_temperature=temperature)
        return [member.get_property("energy", structure()) for member in calc.members(n, atoms=structure())]

    wanted = bars(hot_model(floors=None), COLD)["energy"]
    assert np.std(energies(COLD, 80)) == pytest.approx(wanted, rel=0.15)
    cold = np.std(energies(COLD, 10))  # of the same draws as at other temperatures
    for temperature, scale in zip(HOT, (0.5, 1.0)):
        assert np.std(energies(temperature, 10)) == pytest.approx(scale * cold, rel=1e-9)


def test_a_file_keeps_them(tmp_path):
    model = hot_model()
    model.save(tmp_path / "hot.safetensors")
    loaded = load_model(tmp_path / "hot.safetensors")
    assert loaded.hot.scales == SCALES and loaded.hot.floors == FLOORS
    for name, value in bars(model, 12000.0).items():
        assert_close(bars(loaded, 12000.0)[name], value, 1e-12, name)


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="got 1 scales and 2 floors for 2 temperatures"):
        HotEnergies(COLD, HOT, 2, 12, SCALES[:1])


def frames_of(model, n=6):
    """Structures with energies and forces of a model and errors of a tenth of an eV."""
    rng, found, calc = np.random.default_rng(5), [], DeepPotCalculator(model, on_extrapolation="ignore")
    for k in range(n):
        atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5], seed=k)
        energy, forces = (calc.get_property(name, atoms) for name in ("energy", "forces"))
        labels = {"energy": energy + 0.1 * rng.normal(), "forces": forces + 0.1 * rng.normal(size=forces.shape)}
        found.append(Frame(atoms, labels, f"{k}"))
    return Frames(found)


def test_they_are_made_with_the_long_range():
    model = hot_model(None, None)
    model.long_range = LongRange(0.8, {"Si": 2.0, "O": -2.0 * 4 / 3})
    hot = model.at_temperature(HOT[0])
    report = add_hot_error_bars(model, {HOT[0]: (hot, frames_of(hot))})
    bare = copy.deepcopy(hot)
    bare.long_range = None
    wanted = add_hot_error_bars(hot_model(None, None), {HOT[0]: (bare, frames_of(bare))})
    for label in ("energy", "forces"):
        assert report[f"{label} at 9000 K"]["scale"] == pytest.approx(wanted[f"{label} at 9000 K"]["scale"], rel=1e-4)
    assert model.hot.scales[0] and not model.hot.scales[1]


def test_another_posterior_of_the_energy_has_others():
    """Also one with the size of the bars of another model."""
    frames, other = frames_of(hot_model()), hot_model()
    for like in (None, other):
        model = hot_model()
        model.metadata["error_bars"] = {f"{label} at 9000 K": {} for label in LABELS} | {"dos": {}}
        add_error_bars(model, frames, frames, names=["energy"], like=like)
        assert model.hot.scales == model.hot.floors == [{}, {}]
        assert not [label for label in model.metadata["error_bars"] if " at " in label]
        assert "dos" in model.metadata["error_bars"]
    model = hot_model()
    add_error_bars(model, frames, frames, names=["dos"])
    assert model.hot.scales == SCALES


def hotter(frames, share, temperature=8000.0):
    """The frames with free energies that are a share of the cold ones, of which errors are that share, too."""
    found = [replace(frame, labels={key: share * frame.labels[key] for key in LABELS}) for frame in frames]
    settings = frames.attributes["settings"] | {"electronic_temperature_K": temperature}
    return Frames(found, None, frames.attributes | {"settings": settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, model) whose energies at 8000 K are a tenth of the cold ones."""
    folder, frames = tmp_path_factory.mktemp("hot"), make_frames(40)
    return folder, train(hot_configuration(folder, frames, hotter(frames, 0.1)), progress=False)


@pytest.mark.slow
def test_training_gives_bars_of_the_size_of_the_errors(trained):
    _, model = trained
    report = model.metadata["error_bars"]
    for label in LABELS:
        assert report[f"{label} at 8000 K"]["scale"] == pytest.approx(0.1 * report[label]["scale"], rel=0.5)
    frames = hotter(make_frames(40), 0.1).select("test")
    calc, ratios = DeepDOSCalculator(model, electronic_temperature=8000.0, on_extrapolation="ignore"), []
    for frame in frames:
        errors = calc.get_property("forces", frame.atoms) - frame.labels["forces"]
        ratios.append((errors, calc.get_uncertainty("forces", atoms=frame.atoms)))
    shares = coverage(*map(np.concatenate, zip(*ratios)))
    assert 0.5 <= shares.within_one <= 0.9 and shares.within_two >= 0.85


@pytest.mark.slow
def test_command(trained, tmp_path, capsys):
    folder, out = trained[0], tmp_path / "again.safetensors"
    command = "calibrate", folder / "m.safetensors", folder / "cold.h5", "--out", out
    call(*command, "--hot", folder / "hot.h5")
    assert "forces at 8000 K" in capsys.readouterr().out
    again = load_model(out)
    frames = hotter(make_frames(40), 0.1).select("validation")
    like = copy.deepcopy(again.at_temperature(8000.0))
    like.posteriors["energy"] = again.hot.posterior(again.posteriors["energy"], 8000.0)
    assert 0.6 <= coverage(*errors_and_deviations(like, "energy", frames)["forces"]).within_one <= 0.76
    call(*command)
    assert load_model(out).hot.scales == [{}]
    capsys.readouterr()
    told = fails(capsys, *command, "--hot", folder / "cold.h5")
    assert "got energies at 1000 K, the model has learned 8000 K beside its own" in told
    hot = "--hot", folder / "hot.h5"
    assert "hot.h5: got a second file with energies at 8000 K; join the two" in fails(capsys, *command, *hot, *hot)
    committee = "calibrate", folder / "m.safetensors", folder / "m.safetensors", folder / "cold.h5", "--out", out
    assert "got --hot, which is for one model and labeled structures" in fails(capsys, *committee, *hot)
