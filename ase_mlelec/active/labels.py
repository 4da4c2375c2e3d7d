"""Labels of selected structures: a folder for each, several processes, and what came of it."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_mlelec.active.config import ActiveConfig
from ase_mlelec.active.explore import write_frames
from ase_mlelec.active.scores import SCORES
from ase_mlelec.active.worker import FAILED, LABELED, START, labeled, note_failure, prepare, read_result
from ase_mlelec.data.frames import Frames, join, read_hdf5, write_hdf5
from ase_mlelec.quantities import DIPOLE


class Waiting(Exception):
    """Folders wait for labels that are made by hand."""


def label_all(
    config: ActiveConfig, images: Sequence[Atoms], folder: Path, *, function: Callable | None = None, tell: Callable
) -> Frames:
    """Labeled frames of those images whose labels did not fail.

    A folder with labels, or with a note of its failure, is not touched again.

    Parameters
    ----------
    folder : Path
        The folders of the structures, 000, 001, ..., are in it.
    function : callable(atoms, folder) -> Atoms, optional
        Makes the labels in this process, in place of what the configuration says.
    tell : callable(text)

    Raises
    ------
    Waiting
        With ``manual``, while some are neither labeled nor noted as failed.
    ValueError
        Where all labels failed.
    """
    task, open_ones, folders = task_of(config), [], [folder / f"{k:03d}" for k in range(len(images))]
    for atoms, own in zip(images, folders):
        own.mkdir(parents=True, exist_ok=True)
        if not (own / START).exists():
            write_frames(own / START, [Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)])
        if not (own / LABELED).exists() and not (own / FAILED).exists():
            open_ones.append(own)
    began = time.monotonic()
    if open_ones and function is not None:
        for own in open_ones:
            labeled(own, task | {"way": "function"}, function)
    elif open_ones and task["way"] == "manual":
        _by_hand(images, folders, task)
    elif open_ones:
        in_processes(config, task, open_ones, folder)
    if open_ones:
        seconds = (time.monotonic() - began) / len(open_ones)
        n, at_a_time = len(open_ones), config.label.workers
        tell(f"{n} label{'s' * (n != 1)}, {seconds:.3g} s each with {at_a_time} at a time")
    return gathered(folders, tell)


def task_of(config: ActiveConfig) -> dict[str, Any]:
    """What a worker needs to know, dict of JSON types."""
    label = config.label
    names = ("way", "calculator", "function", "command", "structure", "result", "files", "options", "profile")
    properties = ["energy", "forces", "stress", *([DIPOLE] if config.select.quantity == DIPOLE else [])]
    return {name: getattr(label, name) for name in names} | {
        "parent": str(config.parent.resolve()),
        "properties": properties,
    }


def gathered(folders: Sequence[Path], tell: Callable) -> Frames:
    """The labeled frames of folders; what failed is told."""
    parts, failed = [], []
    for own in folders:
        if (own / LABELED).exists():
            parts.append(read_hdf5(own / LABELED))
            parts[-1][0].name = f"{own.parent.parent.name}-{own.name}"
        elif (own / FAILED).exists():
            failed.append(f"{own}: {(own / FAILED).read_text(encoding='utf-8').strip()}")
    for text in failed:
        tell(f"failed: {text}")
    if not parts:
        raise ValueError(f"none of {len(folders)} labels succeeded; {failed[0] if failed else 'there are no folders'}")
    return join(parts)


def store(path: Path, frames: Frames, quantity: str) -> None:
    """Write the labels of a round.

    Raises
    ------
    ValueError
        Where they do not have the labels that teach the selected quantity.
    """
    needed = SCORES[quantity].labels
    if not set(needed) & set(frames.counts):
        raise ValueError(
            f"{path.parent / 'label'}: the labels are {', '.join(frames.counts)}, but {quantity} needs "
            f"{' or '.join(needed)}; let the program write them, or select by another quantity"
        )
    write_hdf5(path, frames)


def _by_hand(images, folders, task):
    """Write folders, and take the results that are there; Waiting where some are missing."""
    missing = []
    for atoms, own in zip(images, folders):
        if (own / LABELED).exists() or (own / FAILED).exists():
            continue
        if not (own / task["structure"]).exists():
            prepare(atoms, own, task)
        try:
            read_result(own, task)
        except (ValueError, OSError):
            missing.append(own)
        else:
            labeled(own, task)
    if missing:
        what = task["result"] or "result.extxyz or an output of pw.x or VASP"
        raise Waiting(
            f"{len(missing)} folders wait for labels, the first is {missing[0]}; leave {what} there (or a failed.txt), "
            "and start the same command again"
        )


def in_processes(config: ActiveConfig, task: dict[str, Any], folders: Sequence[Path], parent: Path) -> None:
    """Label folders by worker processes, so that no crash and no endless run stops the others."""
    path = parent / "task.json"
    path.write_text(json.dumps(task, indent=1) + "\n", encoding="utf-8")
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    for own in folders:
        waiting.put(own)
    limit = None if config.label.longest is None else 60 * config.label.longest
    crew = [Worker(path, limit) for _ in range(min(config.label.workers, len(folders)))]
    threads = [threading.Thread(target=_work, args=(worker, waiting), daemon=True) for worker in crew]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)  # short, so that Ctrl-C is noticed
    finally:
        for worker in crew:
            worker.stop()


def _work(worker, waiting):
    """Take folders from a queue until it is empty."""
    while True:
        try:
            own = waiting.get_nowait()
        except queue.Empty:
            return
        worker.label(own)


class Worker:
    """A worker process, which is started when it is needed, and again after it ended.

    Parameters
    ----------
    task : Path
        JSON file of the task.
    limit : float, optional
        Longest time of a label, s.
    """

    def __init__(self, task: Path, limit: float | None) -> None:
        self.task, self.limit, self.process = task, limit, None

    def label(self, folder: Path) -> None:
        """Label a folder; it has labels or a note of its failure afterwards, unless the worker was stopped."""
        process = self.process = self.process or self._started()
        late = threading.Event()
        alarm = threading.Timer(self.limit or 0, _give_up, [process, late])
        try:
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            if self.limit is not None:
                alarm.start()
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it ended, or was stopped
            answer = ""
        finally:
            alarm.cancel()
        if not answer and self.process is not None:
            self.stop()  # the next label gets a new one
            reason = f"it took longer than {self.limit / 60:g} minutes" if late.is_set() else "the process ended"
            note_failure(folder, f"{reason} (exit code {process.returncode})")

    def _started(self):
        process = subprocess.Popen(
            [sys.executable, "-m", "ase_mlelec.active.worker", str(self.task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that its programs end with it
        )
        process.stdout.readline()  # "ready": the limit is for labels, not for starts
        return process

    def stop(self) -> None:
        """End the process with everything that it started; a folder in work stays without labels."""
        process, self.process = self.process, None
        if process is None:
            return
        _end(process)
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()


def _give_up(process, late):
    """End a process that takes too long."""
    late.set()
    _end(process)


def _end(process):
    """Kill a process and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
