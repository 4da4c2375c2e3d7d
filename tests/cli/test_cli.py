"""Every subcommand of ``mlelec`` on a tiny model and data set."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read, write
from command_line import call, fails
from small_data import ENERGIES, make_frames
from small_ldos import random_ldos_model
from small_models import random_model
from small_projwfc import write_run

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, MLDFTCalculator, bundle, load_model
from ase_mlelec.data.frames import Frames, Spectra, read_frames, to_images, write_hdf5
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors, told_of_zero
from ase_mlelec_entry_points.cli.test import differences, models_and_data
from ase_mlelec_entry_points.cli.train import ending


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of silicon with energy and DOS, one of copper energies, and copper data."""
    path = tmp_path_factory.mktemp("cli")
    random_model(0, ("energy", "dos"), species=("Si",), n_basis=6).save(path / "si.safetensors")
    random_model(0, ("energy",), species=("Cu",), n_basis=6).save(path / "cu.safetensors")
    write_hdf5(path / "cu.h5", make_frames(10))
    atoms = bulk("Si", cubic=True)
    images = [atoms.copy() for _ in range(3)]
    for seed, image in enumerate(images):
        image.rattle(0.1, seed=seed)
    write(path / "si.traj", images)
    return path


CONFIG = """
[data]
files = ["cu.h5"]
[descriptor]
cutoff = 4.0
smooth = 2.0
widths = [4]
n_axis = 3
n_basis = 5
[energy]
steps = 3
widths = [6]
[dos]
steps = 3
widths = [6]
[output]
model = "out/trained.safetensors"
"""


def test_train(folder, capsys):
    (folder / "config.toml").write_text(CONFIG)
    call("train", folder / "config.toml")
    out = capsys.readouterr().out
    assert "validation" in out and "test" in out and "meV/atom" in out and "trained.safetensors" in out
    assert "trained.safetensors STRUCTURE --plot dos.png" in out
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "trained.dos.checkpoint",
        "trained.dos.csv",
        "trained.energy.checkpoint",
        "trained.energy.csv",
        "trained.safetensors",
    ]
    assert set(load_model(folder / "out" / "trained.safetensors").heads) == {"energy", "dos"}
    call("train", folder / "config.toml", "--quiet")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
    (folder / "wrong.toml").write_text(CONFIG.replace("n_axis", "naxis"))
    assert "unknown key 'descriptor.naxis'; did you mean 'n_axis'?" in fails(capsys, "train", folder / "wrong.toml")


def test_test(folder, capsys):
    call("test", folder / "cu.safetensors", folder / "cu.h5", "--group", "test", "--out", folder / "errors.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 structures, 6 atoms" and lines[1].split() == ["test"] and lines[2].endswith("meV/atom")
    stored = json.loads((folder / "errors.json").read_text())
    frames = read_frames(folder / "cu.h5").select("test")
    assert stored == {"frames": 2, **errors(load_model(folder / "cu.safetensors"), frames)}
    call("test", folder / "cu.safetensors", folder / "cu.h5", "--plot", folder / "parity.png")
    assert (folder / "parity.png").stat().st_size > 10_000
    assert capsys.readouterr().out.startswith("10 structures")
    assert "no frames of group 'size'; it has test, train, validation" in fails(
        capsys, "test", folder / "cu.safetensors", folder / "cu.h5", "--group", "size"
    )
    message = fails(capsys, "test", folder / "si.safetensors", folder / "cu.h5")
    name = read_frames(folder / "cu.h5")[0].name
    assert f"cu.h5: {name}: got species Cu; the model knows Si" in message and message.rstrip().endswith(
        "or leave it out"
    )


def test_test_of_a_run(tmp_path, capsys):
    """Spectra are made of the levels on the grid and with the width of the model."""
    write_run("symmetric", tmp_path / "run")
    own = read_frames(tmp_path / "run")
    model = random_model(0, ("dos",), species=("H",), n_basis=6, metadata={"dos_width_eV": 0.8})
    energies = model.heads["dos"].energies
    energies.copy_(torch.linspace(own.energies[0] - 2.0, own.energies[-1], len(energies)))
    model.save(tmp_path / "h.safetensors")
    call("test", tmp_path / "h.safetensors", tmp_path / "run", "--out", tmp_path / "errors.json")
    step = float(energies[1] - energies[0])
    spectra = Spectra(0.8, (float(energies[0]), float(energies[-1])), step)
    expected = errors(model, read_frames(tmp_path / "run", spectra=spectra))
    found = json.loads((tmp_path / "errors.json").read_text())
    assert len(expected) == 2 and found == pytest.approx({"frames": 1} | expected)
    capsys.readouterr()


def test_test_of_several_data_sets(folder, tmp_path, capsys):
    """Errors are those of all structures together; what is no model is data."""
    frames = read_frames(folder / "cu.h5")
    write_hdf5(tmp_path / "a.h5", frames.take([0, 1, 2]))
    write_hdf5(tmp_path / "b.h5", frames.take(range(3, 10)))
    call("test", folder / "cu.safetensors", tmp_path / "a.h5", tmp_path / "b.h5", "--out", tmp_path / "two.json")
    assert capsys.readouterr().out.startswith("10 structures")
    expected = {"frames": 10, **errors(load_model(folder / "cu.safetensors"), frames)}
    stored = json.loads((tmp_path / "two.json").read_text())
    assert set(stored.pop("kinds")) == {"train", "validation", "test"} and stored == pytest.approx(expected)
    models = [folder / "cu.safetensors", folder / "si.safetensors"]
    assert "got 2 models" in fails(capsys, "test", *models, tmp_path / "a.h5", tmp_path / "b.h5")
    assert models_and_data(["si", "mgo", "a.h5", "b"]) == (["si", "mgo"], ["a.h5", "b"])
    assert models_and_data(["a", "b.dp", "si"]) == (["a", "b.dp"], ["si"])
    sources = tmp_path / "a.h5", Path(__file__).parents[2] / "examples/data/graphene.h5"
    assert "graphene.h5: got 2 data sets" in fails(capsys, "test", folder / "cu.safetensors", *sources)


def test_another_grid_of_energies(folder, tmp_path, capsys):
    """The message has the options that make the grid of the model."""
    frames = read_frames(folder / "cu.h5")
    random_model(0, ("dos",), species=("Cu",), n_basis=6).save(tmp_path / "cu.safetensors")
    grid = load_model(tmp_path / "cu.safetensors").heads["dos"].energies.numpy()
    write_hdf5(tmp_path / "a.h5", Frames(frames.frames, ENERGIES + 0.3, {}))
    message = fails(capsys, "test", tmp_path / "cu.safetensors", tmp_path / "a.h5")
    first, last, step = grid[0], grid[-1], grid[1] - grid[0]
    assert f"convert them with --grid {first:g} {last:g} --step {step:g}" in message


def test_another_zero_of_energy(folder, capsys):
    """Labels of another zero for each species are told; small or unlike errors are not."""
    model, frames = load_model(folder / "cu.safetensors"), read_frames(folder / "cu.h5")
    atoms = [frame.atoms for frame in frames]
    for one in atoms:
        one.calc = DeepPotCalculator(model, device="cpu")
    energies = np.array([one.get_potential_energy() for one in atoms])
    for shift, told in ((3.0, True), (0.01, False)):
        for frame, energy in zip(frames, energies):
            frame.labels["energy"] = energy - shift * len(frame.atoms)
        write_hdf5(folder / "zero.h5", frames)
        call("test", folder / "cu.safetensors", folder / "zero.h5")
        text = capsys.readouterr().out
        assert ("predictions less labels are Cu +3 eV an atom" in text) == told, text
    rng = np.random.default_rng(0)
    for frame, energy in zip(frames, energies):
        frame.labels["energy"] = energy + float(rng.normal()) * len(frame.atoms)
    assert told_of_zero(model, frames) == ""


@pytest.mark.parametrize(
    "section, command",
    [("hamiltonian", "bands STRUCTURE --model m.safetensors"), ("ldos", "dos m.safetensors STRUCTURE")],
)
def test_what_follows_a_training(section, command, tmp_path, monkeypatch):
    """The commands that are proposed suit the quantity."""
    monkeypatch.chdir(tmp_path)
    table = {"data": {"files": ["x.h5"]}, section: {}, "output": {"model": "m.safetensors"}}
    table |= {"bispectrum": {}} if section == "ldos" else {}
    lines = ending(parse_config(table)).splitlines()
    assert [line for line in lines if f"mlelec {command}" in line]


def test_energies_of_pictures():
    """Energies that are large beside their differences are drawn as differences from a round number."""
    energies = np.array([-155.96, -155.955])
    for shift, words in ((0.0, " + 155.96 eV/atom"), (155.96, "")):
        labels, predictions, zero = differences(energies + shift, energies + shift + 1e-3)
        assert zero == words
        np.testing.assert_allclose(labels, [0, 5], atol=1e-9)
        np.testing.assert_allclose(predictions - labels, 1)


def test_predict(folder, capsys):
    call("predict", folder / "si.safetensors", folder / "si.traj", "--out", folder / "out.extxyz")
    assert "3 structures" in capsys.readouterr().out
    calc = DeepPotCalculator(folder / "si.safetensors", device="cpu", on_extrapolation="ignore")
    for got, atoms in zip(read(folder / "out.extxyz", ":"), read(folder / "si.traj", ":"), strict=True):
        atoms.calc = calc
        assert got.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(got.get_forces(), atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(got.get_stress(), atoms.get_stress(), atol=1e-6)
    former = f"{folder / 'si.traj'}@1:", folder / "former.extxyz"  # without --out
    call("predict", folder / "si.safetensors", *former)
    assert "2 structures" in capsys.readouterr().out
    assert "ends in .extxyz" in fails(capsys, "predict", folder / "si.safetensors", folder / "si.traj", "out.pdb")


def test_predict_names_structures_with_other_species(folder, capsys):
    write(folder / "both.traj", [bulk("Si"), bulk("Si"), bulk("Cu")])
    message = fails(capsys, "predict", folder / "si.safetensors", folder / "both.traj", "--out", folder / "both.extxyz")
    assert "both.traj: structure 2: got species Cu; the model knows Si" in message
    assert not (folder / "both.extxyz").exists()


def test_predict_without_cell(folder):
    atoms = read(folder / "si.traj")
    atoms.pbc, atoms.cell = False, None
    write(folder / "cluster.xyz", atoms)
    call("predict", folder / "si.safetensors", folder / "cluster.xyz", folder / "cluster.extxyz")
    assert set(read(folder / "cluster.extxyz").calc.results) >= {"energy", "forces"}


def test_dos(folder, capsys):
    files = "--plot", folder / "dos.png", "--out", folder / "dos.csv"
    call("dos", folder / "si.safetensors", folder / "si.traj", *files)
    calc = DeepDOSCalculator(folder / "si.safetensors", device="cpu")
    atoms = read(folder / "si.traj")
    assert (
        capsys.readouterr().out
        == f"Si8: Fermi level {calc.get_fermi_level(atoms=atoms):.3f} eV, {calc.get_band_gap(atoms)}\n"
    )
    assert (folder / "dos.csv").read_text().startswith("energy_eV,dos_states_per_eV\n")
    table = np.loadtxt(folder / "dos.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, np.column_stack([calc.energies, calc.get_total_dos(atoms)]), rtol=1e-5)
    assert (folder / "dos.png").read_bytes().startswith(b"\x89PNG")
    assert "needs a model with 'dos'" in fails(capsys, "dos", folder / "cu.safetensors", folder / "si.traj")
    message = fails(capsys, "dos", "graphene", folder / "si.traj")
    assert (
        f"WannierTBCalculator('graphene').get_dos(), or 'mlelec bands {folder / 'si.traj'} --model graphene'" in message
    )
    bulk("Si", a=5.43).write(folder / "diamond.xyz")
    call("dos", "si", folder / "diamond.xyz")
    bar = DeepDOSCalculator("si").get_uncertainty("fermi_level", atoms=bulk("Si", a=5.43))
    assert f"deviation of the Fermi level by the errors of the model: {bar:.3f} eV" in capsys.readouterr().out


def test_dos_of_an_ldos_model(folder, capsys):
    model = random_ldos_model(species=("Al",))
    model.save(folder / "al.safetensors")
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.1, seed=0)
    write(folder / "al.traj", atoms)
    call("dos", folder / "al.safetensors", folder / "al.traj", "--out", folder / "ldos.csv", "--device", "cpu")
    calc = MLDFTCalculator(model, device="cpu")
    assert capsys.readouterr().out == f"Al4: Fermi level {calc.get_fermi_level(atoms=atoms):.3f} eV, no gap\n"
    table = np.loadtxt(folder / "ldos.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table[:, 1], calc.get_total_dos(atoms), rtol=1e-5)


def test_convert_data(folder, capsys):
    frames = read_frames(folder / "cu.h5")
    write(folder / "a.extxyz", to_images(Frames(frames.frames[:4], ENERGIES)))
    write_hdf5(folder / "b.h5", Frames(frames.frames[4:], ENERGIES, frames.attributes))
    call("convert", folder / "a.extxyz", folder / "b.h5", "--out", folder / "both.h5")
    assert capsys.readouterr().out == f"{folder / 'both.h5'}: 10 structures with energy, forces, virial, ados, dos\n"
    both = read_frames(folder / "both.h5")
    assert both.attributes == frames.attributes and [f.group for f in both] == [f.group for f in frames]
    np.testing.assert_allclose(both.frames[1].labels["forces"], frames.frames[1].labels["forces"], atol=1e-7)


def test_convert_grid(folder, capsys):
    """Spectra without energies, as deepmd-kit has them."""
    frames = read_frames(folder / "cu.h5")
    write_hdf5(folder / "no-grid.h5", Frames(frames.frames))
    call("convert", folder / "no-grid.h5", folder / "grid.h5", "--grid", "-6", "6")
    np.testing.assert_allclose(read_frames(folder / "grid.h5").energies, ENERGIES)
    for frame in frames:
        frame.labels = {"energy": frame.labels["energy"]}
    write_hdf5(folder / "no-dos.h5", frames)
    assert "got --grid, and spectra with no energies" in fails(
        capsys, "convert", folder / "no-dos.h5", folder / "other.h5", "--grid", "-6", "6"
    )


def test_convert_names_of_labels(folder, capsys):
    """Labels under names of others, by --key; labels that some structures lack are counted."""
    frame = "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1 {}\nCu 0 0 0 0 0 0\n"
    (folder / "ref.xyz").write_text(frame.format("") + frame.format('dipole="0 0 1"'))
    call("convert", folder / "ref.xyz", folder / "ref.h5", "--key", "energy=REF_energy", "--key", "forces=REF_forces")
    assert capsys.readouterr().out == f"{folder / 'ref.h5'}: 2 structures with energy, forces, dipole (1)\n"
    (folder / "bare.xyz").write_text(frame.format(""))
    with pytest.warns(UserWarning, match="read as energy: REF_energy, forces: REF_forces"):
        call("convert", folder / "bare.xyz", folder / "bare.h5")
    assert "bare.h5: 1 structures with energy, forces" in capsys.readouterr().out
    (folder / "two.xyz").write_text(frame.format("MP2_energy=-2"))
    with pytest.warns(UserWarning, match="energy"):
        call("convert", folder / "two.xyz", folder / "two.h5")
    assert "got --key energy, need LABEL=NAME" in fails(
        capsys, "convert", folder / "ref.xyz", folder / "x.h5", "--key", "energy"
    )
    assert "alone; give the result a name with --out" in fails(capsys, "convert", folder / "ref.xyz")
    assert "got --key, which is for labels" in fails(
        capsys, "convert", folder / "cu.safetensors", folder / "x.safetensors", "--key", "energy=E"
    )


def test_convert_targets(folder, capsys):
    before = (folder / "cu.h5").read_bytes()
    (folder / "link.h5").symlink_to(folder / "cu.h5")
    for target, message in (
        ("cu.h5", "as SOURCE and as TARGET"),
        ("link.h5", "as SOURCE and as TARGET"),
        ("none/x.h5", "there is no folder"),
        (".", "a folder, need the name of a file"),
    ):
        assert message in fails(capsys, "convert", folder / "cu.h5", folder / target)
    assert (folder / "cu.h5").read_bytes() == before
    assert "need two energies in eV, the lower first" in fails(
        capsys, "convert", folder / "cu.h5", folder / "x.h5", "--grid", "6", "-6"
    )


def test_warnings_are_one_line(folder):
    (folder / "extra.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1 REF_energy=-2\nCu 0 0 0\n")
    code = (
        f"from ase_mlelec_entry_points.cli.main import main; main(['convert', {str(folder / 'extra.xyz')!r}, 'e.h5'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=folder)
    assert result.stderr.startswith("mlelec: warning: ") and result.stderr.count("\n") == 1


def test_convert_model(folder, capsys, monkeypatch):
    model = random_model(0, ("dos",), species=("Si",))
    monkeypatch.setitem(bundle.READERS, ".dp", lambda path: model)
    (folder / "model.dp").touch()
    call("convert", folder / "model.dp", folder / "converted.safetensors", "--grid", "-2", "3")
    assert "dos of Si" in capsys.readouterr().out
    energies = load_model(folder / "converted.safetensors").heads["dos"].energies.numpy()
    np.testing.assert_allclose(energies, np.linspace(-2, 3, len(energies)))
    assert "got --grid for a model of energy" in fails(
        capsys, "convert", folder / "cu.safetensors", folder / "x.safetensors", "--grid", "0", "1"
    )
    assert "got 2 models for one TARGET" in fails(
        capsys, "convert", folder / "model.dp", folder / "model.dp", folder / "x.safetensors"
    )


def test_convert_keeps_what_is_there(folder, capsys):
    """A data set may be all that is left of hours of work; the error comes before the data are read."""
    target = folder / "kept.h5"
    call("convert", folder / "cu.h5", "--out", target)
    before = target.read_bytes()
    message = "kept.h5: exists already; give another name with --out, or --force to write over it"
    assert (
        message in fails(capsys, "convert", folder / "missing.xyz", "--out", target) and target.read_bytes() == before
    )
    write(folder / "one.extxyz", to_images(read_frames(folder / "cu.h5").take([0])))
    call("convert", folder / "one.extxyz", "--out", target, "--force")
    assert len(read_frames(target)) == 1
    assert "as SOURCE and as TARGET" in fails(capsys, "convert", target, "--out", target, "--force")


def test_convert_mistakes(folder, capsys):
    assert "ending in .h5 (data) or .safetensors (model)" in fails(capsys, "convert", folder / "cu.h5", "cu.npz")
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["x"] = 1
    assert "another program" in fails(capsys, "convert", folder / "foreign.h5", folder / "x.h5")
    assert not (folder / "x.h5").exists()
    (folder / "failed").mkdir()
    (folder / "failed" / "pw.out").write_text("     Program PWSCF v.6.7 starts\n     stopping ...\n")
    assert "failed: a folder without data that can be read; a folder of a run needs" in fails(
        capsys, "convert", folder / "failed", "--out", folder / "x.h5"
    )
