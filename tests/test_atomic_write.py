"""Files that appear whole or not at all, and locks."""

import os
import subprocess
import sys

import h5py
import pytest

from ase_mlelec.atomic_write import FileLock, remove_leftovers, replacing


def test_link_stays_a_link(tmp_path):
    (tmp_path / "target.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "target.txt")
    with replacing(tmp_path / "link.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "target.txt").read_text() == "new"


def test_failure_keeps_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


def test_one_lock_at_a_time(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    lock = FileLock(tmp_path / "file")
    for name in "file", "link":  # the same file under another name
        with pytest.raises(ValueError, match=f"file: is being written by process {os.getpid()} on"):
            FileLock(tmp_path / name)
    FileLock(tmp_path / "other").release()
    lock.release()
    lock.release()
    assert [entry.name for entry in tmp_path.iterdir()] == ["link"]
    FileLock(tmp_path / "link").release()


def test_lock_of_a_process_that_was_killed(tmp_path):
    """The file it left holds nobody."""
    (tmp_path / "file.lock").write_text("process 1 on nowhere")
    lock = FileLock(tmp_path / "file")
    assert (tmp_path / "file.lock").read_text().startswith(f"process {os.getpid()} on")
    lock.release()


def test_no_locks(tmp_path, monkeypatch):
    from ase_mlelec import atomic_write as atomic

    monkeypatch.setattr(atomic, "fcntl", None)
    with pytest.warns(UserWarning, match="no file locks here"):
        FileLock(tmp_path / "file").release()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder in which nobody can make files")
@pytest.mark.parametrize("opened", [lambda path: path.write_text("x"), lambda path: h5py.File(path, "w")])
def test_folder_in_which_nothing_can_be_made(opened):
    with pytest.raises(PermissionError) as caught, replacing("/proc/x.h5") as partial:
        opened(partial)
    assert str(caught.value).startswith("/proc/x.h5: cannot be written, since nothing can be made in /proc (")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="no signals")
def test_leftovers_of_killed_programs(tmp_path):
    """SIGKILL leaves the temporary file; the next program that writes the file removes it, but not those of others."""
    target = tmp_path / "a.h5"
    code = (
        "import sys, time; from ase_mlelec.atomic_write import replacing\n"
        "with replacing(sys.argv[1]) as partial:\n    partial.write_text('x'); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (left,) = tmp_path.iterdir()
        with replacing(target) as partial:
            partial.write_text("while the other lives")
        assert left.exists()
        process.kill()
    other = tmp_path / left.name.replace("a.h5", "b.h5")
    other.write_text("of another file")
    with replacing(target) as partial:
        partial.write_text("after its end")
    assert sorted(tmp_path.iterdir()) == sorted([other, target]) and target.read_text() == "after its end"


def test_leftovers(tmp_path):
    for name in ".12.part.a.h5", ".12.part.b.h5", ".x.part.a.h5", "12.part.a.h5":
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".12.part.b.h5", ".x.part.a.h5", "12.part.a.h5"]
