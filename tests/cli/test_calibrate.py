"""``mlelec calibrate``"""

from dataclasses import replace

import numpy as np
import pytest
from small_data import make_frames
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot, random_ldos_model
from small_models import random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import Frames, write_hdf5
from ase_mlelec.data.snapshots import write_snapshots
from ase_mlelec.train import error_bars, linear_energy
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.error_bars import errors_and_deviations
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes.again import parts_of_training
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture
def folder(tmp_path):
    write_hdf5(tmp_path / "cu.h5", make_frames(10))
    random_model(species=("Cu",), sel=(20,)).save(tmp_path / "old.safetensors")
    return tmp_path


def calibrate(folder, *options):
    paths = [str(folder / name) for name in ("old.safetensors", "cu.h5", "new.safetensors")]
    return main(["calibrate", *paths[:2], "--out", paths[2], *options])


def trained(folder, **energy):
    """Model with an energy in closed form of the structures in the folder, which is written as old.safetensors."""
    table = {
        "data": {"files": ["cu.h5"]},
        "power_spectrum": {"cutoff": 3.5, "n_pair": 3, "n_radial": 2, "l_max": 2, "near": 0},
        "energy": {"widths": [], **energy},
        "output": {"model": "old.safetensors"},
    }
    return train(parse_config(table, folder), progress=False)


def test_scales_from_validation_data(folder, capsys):
    assert calibrate(folder) == 0
    told = capsys.readouterr().out
    assert "6 structures of the training, 2 to calibrate on" in told and "(validation data)" in told
    old, new = (load_model(folder / f"{name}.safetensors") for name in ("old", "new"))
    assert set(new.metadata["error_bars"]) == {"energy", "forces", "virial"}
    atoms = make_frames(1)[0].atoms
    calc = DeepPotCalculator(new)
    assert calc.get_potential_energy(atoms) == DeepPotCalculator(old).get_potential_energy(atoms)
    assert calc.uncertainty["energy"] > 0


def test_scales_from_training_data(folder, capsys):
    assert calibrate(folder, "--group", "train", "--validation", "none") == 0
    told = capsys.readouterr().out
    assert "6 structures of the training, 0 to calibrate on" in told and "(training data)" in told


@pytest.mark.parametrize("groups, options", [(True, []), (True, ["--validation", "validation"]), (False, [])])
def test_closed_form_gets_the_bars_of_its_training(tmp_path, groups, options):
    """From the same data, though the model has learned the validation structures as well; its weights do not change."""
    frames = make_frames(40)
    frames = frames if groups else Frames([replace(frame, group="") for frame in frames])
    write_hdf5(tmp_path / "cu.h5", frames)
    trained(tmp_path, ridge=1e-5)
    assert calibrate(tmp_path, *options) == 0
    old, new = (load_model(tmp_path / f"{name}.safetensors") for name in ("old", "new"))
    for label, wanted in old.metadata["error_bars"].items():
        found = new.metadata["error_bars"][label]
        assert found.pop("calibrated_on") == wanted.pop("calibrated_on")
        # bars of xy and yx are equal but for rounding, which decides their ranks
        assert found.pop("rank_correlation") == pytest.approx(wanted.pop("rank_correlation"), abs=0.01)
        assert found == pytest.approx(wanted, rel=1e-3)
    for label in ("energy", "forces", "virial"):
        one, other = (errors_and_deviations(model, "energy", frames)[label] for model in (old, new))
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], rtol=1e-3)


def test_few_labels_have_bars_as_in_the_training(tmp_path, monkeypatch):
    """With fewer labels than half of many weights the fit has no normal matrix, but samples of the posterior."""
    monkeypatch.setattr(linear_energy, "MANY_WEIGHTS", 0)
    monkeypatch.setattr(linear_energy, "FEW_ROWS", 1e9)
    monkeypatch.setattr(error_bars, "MOST_WEIGHTS", 1)
    write_hdf5(tmp_path / "cu.h5", make_frames(40))
    bars = trained(tmp_path).metadata["error_bars"]
    assert "that were left out" in bars["energy"]["calibrated_on"] and 0.5 < bars["forces"]["within_one"] < 0.9
    assert calibrate(tmp_path) == 0
    again = load_model(tmp_path / "new.safetensors").metadata["error_bars"]
    for label, found in bars.items():
        assert again[label]["scale"] == pytest.approx(found["scale"], rel=1e-3)


def test_other_data_than_those_of_the_training(tmp_path, capsys):
    """Rows of these make the bars; nothing is fitted again."""
    write_hdf5(tmp_path / "cu.h5", make_frames(40))
    model = trained(tmp_path)
    assert parts_of_training(model, make_frames(40)) is not None
    assert parts_of_training(model, make_frames(30)) is None
    write_hdf5(tmp_path / "cu.h5", make_frames(30))
    capsys.readouterr()
    assert calibrate(tmp_path) == 0
    assert "to calibrate on" in capsys.readouterr().out
    assert load_model(tmp_path / "new.safetensors").posteriors["energy"].scale("energy") > 0


def test_groups_that_are_not_there(folder, capsys):
    assert calibrate(folder, "--group", "tarin") == 1
    assert "no structures of the training; they are of the groups test, train, validation" in capsys.readouterr().err
    assert not (folder / "new.safetensors").exists()


def test_committee(folder, capsys):
    random_model(1, species=("Cu",), sel=(20,)).save(folder / "second.safetensors")
    paths = [str(folder / name) for name in ("old.safetensors", "second.safetensors", "cu.h5", "new.safetensors")]
    assert main(["calibrate", *paths[:3], "--out", paths[3]]) == 0
    assert "first of a committee of 2, 2 structures to calibrate on" in capsys.readouterr().out
    atoms, scales = make_frames(1)[0].atoms, load_model(paths[3]).metadata["committee_scales"]
    before, after = (DeepPotCalculator([path, paths[1]], on_extrapolation="ignore") for path in (paths[0], paths[3]))
    for name in ("energy", "forces", "stress"):
        spread, scaled = (calc.get_uncertainty(name, atoms=atoms) for calc in (before, after))
        np.testing.assert_allclose(scaled, scales[name] * spread)


def test_snapshots(tmp_path, capsys):
    made = [make_snapshot(seed, "train" if seed < 3 else "validation") for seed in range(4)]
    write_snapshots(tmp_path / "al.h5", made, energies=ENERGIES, attributes=ATTRIBUTES)
    random_ldos_model(3, ("Al",)).save(tmp_path / "old.safetensors")
    paths = [str(tmp_path / name) for name in ("old.safetensors", "al.h5", "new.safetensors")]
    assert main(["calibrate", *paths[:2], "--out", paths[2]]) == 0
    assert "3 snapshots of the training, 1 to calibrate on" in capsys.readouterr().out
    assert load_model(paths[2]).posteriors["ldos"].scale("dos") > 0
