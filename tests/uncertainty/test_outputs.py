"""Error bars in the files of commands, trajectories and recorders."""

import numpy as np
import pytest
from ase.io import read, write
from matplotlib.figure import Figure
from small_data import make_frames
from small_models import random_model

from ase_mlelec import DeepPotCalculator, ElectronicRecorder, evaluate
from ase_mlelec.analysis.plots import plot_parity
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.train.error_bars import add_error_bars
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture(scope="module")
def model():
    frames = make_frames(10)
    model = random_model(0, ("energy",), species=("Cu",), sel=(20,))
    add_error_bars(model, frames.select("train"), frames.select("validation"))
    return model


def test_trajectories_and_recorders(model, tmp_path):
    images, calc = [frame.atoms for frame in make_frames(3)], DeepPotCalculator(model, on_extrapolation="ignore")
    found = evaluate(calc, images, ["energy", "energy_uncertainty", "forces_uncertainty", "leverage"], progress=False)
    wanted = [calc.get_uncertainty("energy", atoms=atoms) for atoms in images]
    np.testing.assert_allclose(found["energy_uncertainty"], wanted)
    np.testing.assert_allclose(found["leverage"][0], calc.get_leverage(images[0]))
    images[0].calc = calc
    path = tmp_path / "run.extxyz"
    ElectronicRecorder(images[0], tmp_path / "run.h5", ["energy_uncertainty", "leverage"], extxyz=path)()
    np.testing.assert_allclose(read(path).arrays["leverage"], found["leverage"][0], atol=1e-7)  # ase gui colors by it


def test_coverage(model, tmp_path, capsys):
    model.save(tmp_path / "model.safetensors")
    random_model(0, ("energy",), species=("Cu",), sel=(20,)).save(tmp_path / "bare.safetensors")
    write_hdf5(tmp_path / "cu.h5", make_frames(5))
    model_path, bare, data = (str(tmp_path / name) for name in ("model.safetensors", "bare.safetensors", "cu.h5"))
    assert main(["test", model_path, data, "--bars"]) == 0
    told = capsys.readouterr().out
    assert "within 1" in told and all(f"\n{label} " in told for label in ("energy", "forces", "virial"))
    assert main(["test", bare, data, "--bars"]) == 1
    assert "has no error bars; add some with 'mlelec calibrate'" in capsys.readouterr().err


def test_parity_with_bars():
    ax = Figure().subplots()
    plot_parity(ax, np.arange(4.0), np.arange(4.0) + 0.1, "eV", deviation=np.full(4, 0.2))
    (bars,) = ax.collections
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()][1], [0.9, 1.3])


def test_predict(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    atoms = make_frames(1)[0].atoms
    write(tmp_path / "in.extxyz", atoms)
    paths = [str(tmp_path / name) for name in ("model.safetensors", "in.extxyz", "out.extxyz")]
    assert main(["predict", *paths[:2], "--out", paths[2]]) == 0
    found, calc = read(paths[2]), DeepPotCalculator(model, on_extrapolation="ignore")
    assert found.info["energy_uncertainty"] == pytest.approx(calc.get_uncertainty("energy", atoms=atoms), rel=1e-5)
    wanted = calc.get_uncertainty("forces", atoms=atoms)
    np.testing.assert_allclose(found.arrays["forces_uncertainty"], wanted, rtol=1e-4, atol=1e-7)
    assert found.info["stress_uncertainty"].shape == (6,) and found.arrays["leverage"].shape == (4,)
