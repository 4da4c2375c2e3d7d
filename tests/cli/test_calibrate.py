"""``mlelec calibrate``"""

import pytest
from small_data import make_frames
from small_models import random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture
def folder(tmp_path):
    write_hdf5(tmp_path / "cu.h5", make_frames(10))
    random_model(species=("Cu",), sel=(20,)).save(tmp_path / "old.safetensors")
    return tmp_path


def calibrate(folder, *options):
    paths = [str(folder / name) for name in ("old.safetensors", "cu.h5", "new.safetensors")]
    return main(["calibrate", *paths[:2], "--out", paths[2], *options])


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


def test_groups_that_are_not_there(folder, capsys):
    assert calibrate(folder, "--group", "tarin") == 1
    assert "no structures of the training; they are of the groups test, train, validation" in capsys.readouterr().err
    assert not (folder / "new.safetensors").exists()
