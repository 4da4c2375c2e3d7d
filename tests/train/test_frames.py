"""Data sets: what is written is read again, in every format, and what does not fit is told by name."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from small_data import ENERGIES, make_frames

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames, from_images, join, read_frames, to_images, write_hdf5
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def frames():
    return make_frames(5)


def assert_same(got, expected, tolerance=1e-12, names=("energy", "forces", "virial", "ados", "dos")):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a.atoms.numbers, b.atoms.numbers)
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, atol=1e-8)
        np.testing.assert_allclose(a.atoms.cell, b.atoms.cell, atol=1e-8)
        np.testing.assert_array_equal(a.atoms.pbc, b.atoms.pbc)
        for name in names:
            np.testing.assert_allclose(a.labels[name], b.labels[name], atol=tolerance, err_msg=name)


# files


def test_hdf5_round_trip(frames, tmp_path):
    write_hdf5(tmp_path / "a.h5", frames)
    got = read_frames(tmp_path / "a.h5")
    assert_same(got, frames, names=("energy", "forces", "virial"))
    assert_same(got, frames, 1e-6, names=("ados", "dos"))
    np.testing.assert_array_equal(got.energies, frames.energies)
    assert got.attributes == frames.attributes
    assert [(f.name, f.group) for f in got] == [(f.name, f.group) for f in frames]
    assert got.fingerprint() == frames.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]  # no temporary file is left


def test_extxyz_round_trip(frames, tmp_path):
    write(tmp_path / "a.extxyz", to_images(frames))
    got = read_frames(tmp_path / "a.extxyz")
    assert_same(got, frames, 1e-7)
    np.testing.assert_allclose(got.energies, frames.energies)
    assert [(f.name, f.group) for f in got] == [(f.name, f.group) for f in frames]


def test_ase_reads_and_writes_our_format(frames, tmp_path):
    path = tmp_path / "a.mlelec.h5"
    write(path, to_images(frames))
    assert_same(read_frames(path), frames, 1e-6)
    last, second = read(path), read(path, 1)
    assert len(read(path, ":")) == 5 and len(read(path, "1::2")) == 2
    assert last.get_potential_energy() == frames.frames[-1].labels["energy"]
    np.testing.assert_allclose(
        second.get_stress(voigt=False) * second.get_volume(), -frames.frames[1].labels["virial"], atol=1e-12
    )
    np.testing.assert_allclose(second.arrays["ados"], frames.frames[1].labels["ados"], atol=1e-6)


def test_reading_our_format_imports_no_torch(frames, tmp_path):
    write_hdf5(tmp_path / "a.mlelec.h5", frames)
    code = (
        f"import sys; from ase.io import read; print(len(read({str(tmp_path / 'a.mlelec.h5')!r}, ':')),"
        " 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["5", "False"], result.stderr


def write_deepmd(folder, frames):
    """deepmd-kit's layout: one system, one set; all frames must have the same atoms."""
    (folder / "set.000").mkdir(parents=True)
    atoms = frames[0].atoms
    (folder / "type.raw").write_text("0 " * len(atoms))
    (folder / "type_map.raw").write_text("Cu\n")
    columns = {"coord": [f.atoms.positions for f in frames], "box": [f.atoms.cell.array for f in frames]}
    for name, label in (("energy", "energy"), ("force", "forces"), ("virial", "virial"), ("atom_dos", "ados")):
        columns[name] = [f.labels[label] for f in frames]
    for name, values in columns.items():
        np.save(folder / "set.000" / f"{name}.npy", np.array(values).reshape(len(frames), -1))


def test_deepmd_folder(frames, tmp_path):
    fcc = [frame for frame in frames if len(frame.atoms) == 4]
    write_deepmd(tmp_path / "system", fcc)
    got = read_frames(tmp_path / "system")
    assert_same(got, fcc, names=("energy", "forces", "virial", "ados"))
    assert got.energies is None and got.frames[0].name == "system-0"


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", None], ids=["empty", "signature", "cut"])
def test_truncated_file(content, frames, tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path, frames)
    path.write_bytes(path.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ValueError, match="truncated or not an HDF5"):
        read_frames(path)


def test_foreign_and_newer_files(frames, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(ValueError, match="another program"):
        read_frames(path)
    write_hdf5(path, frames)
    with h5py.File(path, "r+") as file:
        file.attrs["ase_mlelec"] = '{"format_version": 99}'
    with pytest.raises(ValueError, match="format 99.*update"):
        read_frames(path)


def test_missing_file_and_file_without_labels(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_frames(tmp_path / "a.h5")
    write(tmp_path / "a.extxyz", Atoms("Cu"))
    with pytest.raises(ValueError, match="no energies, forces or spectra"):
        read_frames(tmp_path / "a.extxyz")


def test_interrupted_writing_keeps_the_old_file(frames, tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path, frames)
    broken = Frames(frames.frames, frames.energies, {"settings": object()})  # not JSON
    with pytest.raises(TypeError):
        write_hdf5(path, broken)
    assert read_frames(path).fingerprint() == frames.fingerprint()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


# labels


def test_labels_of_atoms():
    """The free energy, which forces are the gradient of, and forces that no constraint has touched."""
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], constraint=FixAtoms([0]))
    forces = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.5, forces=forces)
    with pytest.warns(UserWarning, match="energy is free_energy, which is up to 0.25 eV/atom away from energy"):
        labels = from_images([atoms]).frames[0].labels
    assert labels["energy"] == -1.5 and "virial" not in labels
    np.testing.assert_array_equal(labels["forces"], forces)


def with_labels(frames, **labels):
    """The frames, the labels of the third replaced; None takes one away."""
    changed = {name: value for name, value in {**frames.frames[2].labels, **labels}.items() if value is not None}
    rows = list(frames)
    rows[2] = Frame(rows[2].atoms, changed, rows[2].name)
    return Frames(rows, frames.energies)


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"forces": np.zeros((3, 3))}, r"'forces' has shape \(3, 3\), needed \(4, 3\)"),
        ({"ados": np.zeros((4, 24))}, r"'ados' has shape \(4, 24\), needed \(4, 25\); are the energy grids"),
        ({"energy": np.nan}, "'energy' holds NaN"),
        ({"virial": np.zeros(6)}, r"'virial' has shape \(6,\), needed \(3, 3\)"),
    ],
    ids=["atoms", "grid", "nan", "rank"],
)
def test_mis_shaped_labels(labels, message, frames, tmp_path):
    wrong = with_labels(frames, **labels)
    for attempt in (
        lambda: wrong.require("energy", "forces", "virial", "ados"),
        lambda: write_hdf5(tmp_path / "a.h5", wrong),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not list(tmp_path.iterdir())


def test_labels_that_some_frames_lack(frames, tmp_path):
    """They are kept where they are, and asked for by name."""
    mixed = with_labels(frames, forces=None, virial=None, ados=None)
    mixed.frames[4] = Frame(mixed.frames[4].atoms, {"energy": -1.0})
    write_hdf5(tmp_path / "a.h5", mixed)
    got = read_frames(tmp_path / "a.h5")
    assert got.counts == mixed.counts == {"energy": 5, "forces": 3, "virial": 3, "ados": 3, "dos": 4}
    assert got.labels == ("energy",) and got.fingerprint() == mixed.fingerprint()
    for a, b in zip(got, mixed, strict=True):
        assert a.labels.keys() == b.labels.keys()
        for name in b.labels:
            np.testing.assert_allclose(a.labels[name], b.labels[name], atol=1e-6)
    with pytest.raises(ValueError, match=r"frame 2 \(cu-2\) has no label 'forces'.*add it"):
        got.require("energy", "forces")


def test_format_1():
    """A file of the first format, written by the program of that time."""
    frames = read_frames(DATA / "frames_1.h5")
    assert frames.counts == {"energy": 2, "forces": 2, "ados": 2, "dos": 2} and frames.attributes == {
        "settings": {"program": "none"}
    }
    assert [(str(f.atoms.symbols), f.name, f.group) for f in frames] == [
        ("Si2", "frame-0", "train"),
        ("OH2", "frame-1", "test"),
    ]
    np.testing.assert_array_equal(frames.energies, [-1.0, 1.0])
    np.testing.assert_array_equal(frames.frames[1].labels["forces"], np.arange(9.0).reshape(3, 3) / 8)
    np.testing.assert_array_equal(frames.frames[0].labels["ados"], np.arange(4.0).reshape(2, 2))
    assert frames.frames[1].labels["energy"] == -2.5


def test_label_of_no_known_name(frames, tmp_path):
    with pytest.raises(ValueError, match="frame 2 .*got the label 'magmoms', known are energy, forces.*rename it"):
        write_hdf5(tmp_path / "a.h5", with_labels(frames, magmoms=np.zeros(4)))


def test_labels_in_common(frames):
    assert frames.labels == ("energy", "forces", "virial", "ados", "dos")
    assert "forces" not in with_labels(frames, forces=None).labels
    assert Frames([]).labels == ()


def test_join(frames):
    both = join([frames, Frames(frames.frames[:2])])
    assert len(both) == 7 and both.attributes == frames.attributes
    np.testing.assert_array_equal(both.energies, frames.energies)
    with pytest.raises(ValueError, match=r"energy grids differ \(-6..6 eV, 25 points and -6..6.5 eV, 26 points\)"):
        join([frames, Frames([], np.append(ENERGIES, 6.5))])


def test_images_with_different_grids(frames):
    images = to_images(frames)
    images[1].info["dos_energies"] = ENERGIES + 0.1
    with pytest.raises(ValueError, match="different dos_energies"):
        from_images(images)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.atoms.set_cell(frame.atoms.cell * 1.01),
        lambda frame: frame.atoms.rattle(0.01),
        lambda frame: frame.atoms.set_pbc(False),
        lambda frame: frame.atoms.set_atomic_numbers([28] * len(frame.atoms)),
        lambda frame: frame.labels.update(energy=0.0),
    ],
    ids=["cell", "positions", "pbc", "numbers", "labels"],
)
def test_fingerprint_sees_everything(change):
    frames = make_frames(2)
    before = frames.fingerprint()
    assert before == make_frames(2).fingerprint()
    change(frames.frames[1])
    assert frames.fingerprint() != before


# batches


def test_batches_are_the_structures_side_by_side(frames):
    batches = Batches(frames, 4.0, ("energy", "forces", "virial", "dos"), torch.float64)
    batch = batches.batch([3, 0])
    system = System.from_atoms([frames.frames[i].atoms for i in (3, 0)])
    edges, expected = batch.edges(), Edges.build(system, 4.0)
    for name in ("center", "neighbor", "vec"):
        torch.testing.assert_close(getattr(edges, name), getattr(expected, name))
    assert batch.system.batch.tolist() == [0, 0, 1, 1, 1, 1]
    assert {name: tuple(value.shape) for name, value in batch.labels.items()} == {
        "energy": (2,),
        "forces": (6, 3),
        "virial": (2, 3, 3),
        "dos": (2, 25),
    }
    assert sum(part.system.n_systems for part in batches.all_batches(2)) == len(batches) == 5
