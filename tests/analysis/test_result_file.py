"""Rows that were reported as written survive whatever happens, and are never other numbers than were written."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import read

from ase_mlelec import ElectronicRecorder, evaluate
from ase_mlelec.analysis import result_writer
from ase_mlelec.analysis.result_file import ResultFile, journal_of
from ase_mlelec.analysis.result_writer import ResultWriter

HEADER = {"quantities": ["energy", "forces"]}


def row(k):
    """Number k; of different sizes."""
    rng = np.random.default_rng(k)
    n = 2 + k % 3
    return {
        "n_atoms": n,
        "fingerprint": np.uint64(2**63 + k),
        "energy": rng.normal(),
        "forces": rng.normal(size=(n, 3)),
    }


def check_rows(path, n):
    """The first n rows, and no more."""
    stored = ResultFile(path)
    assert stored.n_rows == n
    for k in range(n):
        wanted = row(k)
        assert stored["energy"][k] == wanted["energy"] and stored["fingerprint"][k] == wanted["fingerprint"]
        np.testing.assert_array_equal(stored["forces"][k, : 2 + k % 3], wanted["forces"])
        assert np.isnan(stored["forces"][k, 2 + k % 3 :]).all()


@pytest.fixture
def path(tmp_path):
    """A file of six rows."""
    with ResultWriter(tmp_path / "run.h5", HEADER) as writer:
        writer.append([row(k) for k in range(6)])
    return tmp_path / "run.h5"


@pytest.fixture
def behind(tmp_path, monkeypatch):
    """A file without rows and six in its journal, as its writer leaves it when it is killed."""
    monkeypatch.setattr(result_writer, "PATIENCE", 1e9)
    path = tmp_path / "run.h5"
    writer = ResultWriter(path, HEADER)
    for k in range(6):
        writer.append([row(k)])
    content = path.read_bytes(), journal_of(path).read_bytes()
    writer.close()
    path.write_bytes(content[0])
    journal_of(path).write_bytes(content[1])
    return path


@contextmanager
def room(n):
    """No file can grow beyond n bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


# kills -------------------------------------------------------------------------------------------------------------


def test_kills():
    """kills.py --evaluate 300 --recorder 100 is the same at length."""
    script = Path(__file__).with_name("kills.py")
    result = subprocess.run(
        [sys.executable, script, "--evaluate", "4", "--recorder", "4"], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_rows_behind_the_file(behind):
    with h5py.File(behind) as file:
        assert file.attrs["rows"] == 0
    check_rows(behind, 6)
    with ResultWriter(behind, HEADER) as writer:
        assert writer.n_rows == 6
        writer.append([row(6)])
        check_rows(behind, 7)
    check_rows(behind, 7)
    with h5py.File(behind) as file:
        assert file.attrs["rows"] == len(file["energy"]) == 7
    assert names_in(behind.parent) == ["run.h5"]


@pytest.mark.parametrize("cut", [1, 20, 60, 200])
def test_row_that_was_cut_off(behind, cut):
    content = journal_of(behind).read_bytes()
    journal_of(behind).write_bytes(content[:-cut])
    n = ResultFile(behind).n_rows
    assert n == 5
    check_rows(behind, n)
    with ResultWriter(behind, HEADER) as writer:
        assert writer.n_rows == n
        writer.append([row(n)])
    check_rows(behind, n + 1)


def test_interrupted_append(tmp_path, monkeypatch):
    """What a call left behind that did not come to its end is overwritten."""
    monkeypatch.setattr(result_writer, "PATIENCE", 1e9)
    with ResultWriter(tmp_path / "run.h5", HEADER) as writer:
        for k in range(3):
            writer.append([row(k)])
        with open(journal_of(tmp_path / "run.h5"), "ab") as file:
            file.write(b"\x93ROW and more than a whole row of it" * 50)
        writer.append([row(3)])
        check_rows(tmp_path / "run.h5", 4)
    check_rows(tmp_path / "run.h5", 4)


# damage ------------------------------------------------------------------------------------------------------------


def test_damaged_journal(behind):
    content = bytearray(journal_of(behind).read_bytes())
    last = bytearray(content)
    last[-3] ^= 1
    journal_of(behind).write_bytes(last)
    with pytest.warns(UserWarning, match="run.h5.journal: row 5, the last one, is damaged and left out"):
        assert ResultFile(behind).n_rows == 5
    with pytest.warns(UserWarning, match="row 5"), ResultWriter(behind, HEADER) as writer:
        assert writer.n_rows == 5
    check_rows(behind, 5)


@pytest.mark.parametrize(
    "place, message",
    [
        (0.5, "run.h5.journal: row [234] is damaged, rows behind it are not"),
        (0.0, "run.h5.journal: is damaged at its beginning"),
    ],
)
def test_journal_damaged_before_its_end(behind, place, message):
    content = bytearray(journal_of(behind).read_bytes())
    content[int(place * len(content)) + 40] ^= 1
    journal_of(behind).write_bytes(content)
    for use in (lambda: ResultFile(behind)["energy"], lambda: ResultWriter(behind, HEADER)):
        with pytest.raises(ValueError, match=message):
            use()
    assert journal_of(behind).read_bytes() == content


@pytest.mark.parametrize("name", ["energy", "fingerprint", "row_checksum"])
def test_rows_with_other_numbers(path, name):
    """The last ones are dropped with a warning; others are named and refused."""
    with h5py.File(path, "r+") as file:
        file[name][5] = 1
    with pytest.warns(UserWarning, match="run.h5: rows 5, the last ones, have other numbers than were written"):
        with ResultWriter(path, HEADER) as writer:
            assert writer.n_rows == 5
    check_rows(path, 5)
    with h5py.File(path, "r+") as file:
        file[name][2] = 1
    with pytest.raises(ValueError, match=r"run.h5: rows 2 have other numbers than were written \(checksum\)"):
        ResultWriter(path, HEADER)
    assert names_in(path.parent) == ["run.h5"]


def test_flipped_bits(path):
    """Never other numbers; one class of errors, on one line."""
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(content), 25):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            check_rows(path, 6)
        except ValueError as error:
            assert "run.h5" in str(error) and "\n" not in str(error)


def test_later_version(path):
    with h5py.File(path, "r+") as file:
        file.attrs["ase_mlelec"] = json.dumps(json.loads(file.attrs["ase_mlelec"]) | {"format_version": 3})
    with pytest.raises(ValueError, match="format version 3, this version writes 2; update ase-mlelec"):
        ResultWriter(path, HEADER)


def test_files_of_version_1(tmp_path):
    """They had no checksums, and counted their rows last."""
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs["ase_mlelec"], file.attrs["rows"] = json.dumps({"format_version": 1, **HEADER}), 2
        for name, kind in ("n_atoms", int), ("fingerprint", np.uint64), ("energy", float):
            file.create_dataset(
                name, data=np.array([row(k)[name] for k in range(3)], kind), maxshape=(None,), chunks=(4,)
            )
        forces = np.full((3, 4, 3), np.nan)
        for k in range(3):
            forces[k, : 2 + k] = row(k)["forces"]
        file.create_dataset("forces", data=forces, maxshape=(None, None, None), chunks=(4, 4, 3))
    check_rows(path, 2)
    with ResultWriter(path, HEADER) as writer:
        assert writer.n_rows == 2
        writer.append([row(2)])
    check_rows(path, 3)
    assert ResultFile(path).header["format_version"] == 2 and not ResultFile(path).damaged_rows()
    with h5py.File(path, "r+") as file:
        file["energy"][0] = 1
    assert ResultFile(path).damaged_rows() == [0]


def test_quantity_with_other_axes(path):
    with ResultWriter(path, HEADER) as writer:
        with pytest.raises(ValueError, match="quantity 'energy': got an array of 1 axes, the rows before have 0"):
            writer.append([row(6), row(7) | {"energy": np.zeros(2)}])
    check_rows(path, 6)


# full disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 300, 3000, 100_000])
def test_full_disk(path, more):
    """The error is one line that names the file; all accepted rows are there; it goes on when there is room."""
    n = 6
    with pytest.raises(OSError, match=r"run.h5: cannot be written \(File too large\); the \d+ rows before are") as e:
        with room(path.stat().st_size + more), ResultWriter(path, HEADER) as writer:
            for n in range(6, 6000):
                writer.append([row(n)])
    assert "\n" not in str(e.value)
    stored = ResultFile(path)
    assert stored.n_rows == n
    np.testing.assert_array_equal(stored["energy"], [row(k)["energy"] for k in range(n)])
    with ResultWriter(path, HEADER) as writer:
        assert writer.n_rows == n
        writer.append([row(n)])
    assert ResultFile(path).n_rows == n + 1 and ResultFile(path)["energy"][n] == row(n)["energy"]
    assert names_in(path.parent) == ["run.h5"]


def test_full_disk_for_a_new_file(path):
    content = path.read_bytes()
    with pytest.raises(OSError, match="run.h5: cannot be written"), room(100):
        with ResultWriter(path, HEADER, resume=False) as writer:
            writer.append([row(0)])
    assert path.read_bytes() == content and names_in(path.parent) == ["run.h5"]


# writers -----------------------------------------------------------------------------------------------------------


def test_second_writer_is_refused(path):
    with ResultWriter(path, HEADER) as writer:
        for resume in (True, False):
            with pytest.raises(ValueError, match=rf"run.h5: is being written by process {os.getpid()} on .*close\(\)"):
                ResultWriter(path, HEADER, resume=resume)
        writer.append([row(6)])
    check_rows(path, 7)
    ResultWriter(path, HEADER).close()


def test_writer_of_another_process(path):
    """Refused while it lives; a killed one leaves no lock."""
    code = f"""
import sys, time
from ase_mlelec.analysis.result_writer import ResultWriter
writer = ResultWriter({str(path)!r}, {HEADER!r})
print("ready", flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"ready\n"
            with pytest.raises(ValueError, match=f"is being written by process {other.pid}"):
                ResultWriter(path, HEADER)
            check_rows(path, 6)  # readers are not refused
        finally:
            other.send_signal(signal.SIGKILL)
    with ResultWriter(path, HEADER) as writer:
        writer.append([row(6)])
    check_rows(path, 7)


def test_leftovers_of_killed_writers_are_removed(path):
    path.with_name(".123.part.run.h5").write_bytes(b"half")
    path.with_name(".123.part.run.h5.journal").write_bytes(b"half")
    path.with_name(".123.part.other.h5").write_bytes(b"of another file")
    ResultWriter(path, HEADER).close()
    assert names_in(path.parent) == [".123.part.other.h5", "run.h5"]


def test_anew_keeps_the_old_until_there_is_something_new(path):
    with ResultWriter(path, HEADER, resume=False) as writer:
        check_rows(path, 6)
        assert writer.n_rows == 0
    check_rows(path, 6)
    with ResultWriter(path, HEADER, resume=False) as writer:
        writer.append([row(0)])
        check_rows(path, 1)
    check_rows(path, 1)


def test_anew_over_a_journal(behind):
    with ResultWriter(behind, HEADER, resume=False) as writer:
        writer.append([row(0)])
        check_rows(behind, 1)


def test_closed_writer(path):
    writer = ResultWriter(path, HEADER)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="run.h5: is closed; make a new recorder"):
        writer.append([row(6)])


def test_size_of_the_file(tmp_path, monkeypatch):
    """Replacements leave no holes behind."""
    monkeypatch.setattr(result_writer, "PATIENCE", 0)
    with ResultWriter(tmp_path / "run.h5", {"quantities": ["spectrum"]}) as writer:
        for k in range(40):
            spectrum = np.random.default_rng(k).normal(size=300)
            writer.append([{"n_atoms": 1, "fingerprint": np.uint64(k), "spectrum": spectrum}])
    assert (tmp_path / "run.h5").stat().st_size < 1.2 * 40 * 8 * 303 + 20_000


# the recorder ------------------------------------------------------------------------------------------------------


@pytest.fixture
def atoms():
    crystal = Atoms("Ar4", np.random.default_rng(0).uniform(0, 9, (4, 3)))
    crystal.calc = LennardJones()
    return crystal


def record(atoms, path, n, **options):
    """Recorder that has written n rows."""
    recorder = ElectronicRecorder(atoms, path, ["energy", "positions"], extxyz=path.with_suffix(".extxyz"), **options)
    for _ in range(n):
        atoms.positions[0] += 0.1
        recorder()
    return recorder


def test_two_recorders(atoms, tmp_path):
    first = record(atoms, tmp_path / "run.h5", 2)
    with pytest.raises(ValueError, match="is being written by"):
        record(atoms, tmp_path / "run.h5", 2)
    first.close()
    assert record(atoms, tmp_path / "run.h5", 2).results.n_rows == 4


def test_recorder_that_is_garbage(atoms, tmp_path):
    """One in a cycle of references, as dynamics and their observers are, does not hold the file."""
    recorder = record(atoms, tmp_path / "run.h5", 2)
    recorder.itself = recorder
    del recorder
    assert record(atoms, tmp_path / "run.h5", 2).results.n_rows == 4


def test_frames_are_those_of_the_rows(atoms, tmp_path):
    path, frames = tmp_path / "run.h5", tmp_path / "run.extxyz"
    record(atoms, path, 3).close()
    with open(frames, "a") as file:  # of a row that was not written any more
        file.write(frames.read_text()[: len(frames.read_text()) // 3])
    recorder = record(atoms, path, 2)
    found, rows = read(frames, ":"), recorder.results["positions"]
    assert len(found) == len(rows) == 5
    for frame, positions in zip(found, rows):
        np.testing.assert_allclose(frame.positions, positions, atol=1e-7)
    recorder.close()
    frames.write_text("")
    with pytest.warns(UserWarning, match="run.extxyz: got 0 complete frames for 5 rows"):
        record(atoms, path, 0)


def test_failed_row_leaves_no_frame(atoms, tmp_path, monkeypatch):
    recorder = record(atoms, tmp_path / "run.h5", 2)
    with monkeypatch.context() as patch:
        patch.setattr(recorder._writer, "append", lambda rows: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError):
            recorder()
    atoms.positions[0] += 0.1
    recorder()
    assert len(read(tmp_path / "run.extxyz", ":")) == recorder.results.n_rows == 3
    np.testing.assert_allclose(read(tmp_path / "run.extxyz").positions, atoms.positions, atol=1e-7)


def test_recorder_anew_keeps_the_old_until_its_first_row(atoms, tmp_path):
    record(atoms, tmp_path / "run.h5", 3).close()
    recorder = record(atoms, tmp_path / "run.h5", 0, resume=False)
    assert recorder.results.n_rows == len(read(tmp_path / "run.extxyz", ":")) == 3
    recorder()
    assert recorder.results.n_rows == len(read(tmp_path / "run.extxyz", ":")) == 1


def test_results_in_the_hdf5_file_at_the_end_of_a_run(atoms, tmp_path, monkeypatch):
    from ase.md.verlet import VelocityVerlet

    monkeypatch.setattr(result_writer, "PATIENCE", 1e9)
    dyn = VelocityVerlet(atoms, 1.0)
    recorder = ElectronicRecorder(atoms, tmp_path / "run.h5", ["energy"], dyn=dyn)
    dyn.attach(recorder)
    dyn.run(5)
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["step"][()].tolist() == [0, 1, 2, 3, 4, 5] == recorder.results["step"].tolist()


def test_evaluate_no_structures(tmp_path):
    assert evaluate(LennardJones(), [], ["energy"], out=tmp_path / "run.h5").n_rows == 0
    assert names_in(tmp_path) == ["run.h5"]
