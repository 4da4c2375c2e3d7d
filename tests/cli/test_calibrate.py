"""``mlelec calibrate``"""

import numpy as np
import pytest
from small_data import make_frames
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot, random_ldos_model
from small_models import random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.data.snapshots import write_snapshots
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
