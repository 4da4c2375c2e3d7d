"""Files that appear whole or not at all, and locks."""

import os

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


def test_leftovers(tmp_path):
    for name in ".12.part.a.h5", ".12.part.b.h5", ".x.part.a.h5", "12.part.a.h5":
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a.h5")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".12.part.b.h5", ".x.part.a.h5", "12.part.a.h5"]
