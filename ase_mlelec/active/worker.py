"""A process that makes labels, folder after folder: ``python -m ase_mlelec.active.worker TASK.json``.

It says "ready", reads names of folders from its standard input, and answers "done" or "failed" after each of them. In the
folder it reads ``start.traj`` and leaves ``labels.h5``, or the reason in ``failed.txt``. A label that ends the whole
process, or takes too long, is noticed by the program that started it.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.io import Trajectory, write

from ase_mlelec.atomic_write import replacing
from ase_mlelec.checks import printable
from ase_mlelec.data.data_set import Frames
from ase_mlelec.data.frames import from_images, is_run, read_frames, read_run, write_hdf5
from ase_mlelec.quantities import LABELS

START, LABELED, FAILED, PLAIN = "start.traj", "labels.h5", "failed.txt", "result.extxyz"
SAME = 1e-3  # Å, of positions in a result and in the structure that was asked for


def serve(task: Mapping[str, Any]) -> None:
    """Label the folders that are named on the standard input, one a line."""
    asked, answers = _private_pipes()
    print("ready", file=answers, flush=True)
    for line in asked:
        print("done" if labeled(Path(line.rstrip("\n")), task) else "failed", file=answers, flush=True)


def _private_pipes():
    """Standard input and output as files that nobody else has: calculators and their programs read and print as they like.

    What they print goes to the standard error; what they read is empty.
    """
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return asked, answers


def labeled(folder: Path, task: Mapping[str, Any], function: Callable | None = None) -> bool:
    """Label one folder; False, with the reason in its ``failed.txt``, where that fails."""
    try:
        frames = _checked(_made(folder, task, function), start_of(folder))
        write_hdf5(folder / LABELED, frames)
    except Exception as error:  # programs and users' functions raise anything
        note_failure(folder, f"{type(error).__name__}: {printable(error, 500) or 'no cause given'}")
        return False
    return True


def note_failure(folder: Path, reason: str) -> None:
    """Write why a label failed."""
    with replacing(folder / FAILED) as partial:
        partial.write_text(f"{' '.join(reason.split())}\n", encoding="utf-8")


def start_of(folder: Path) -> Atoms:
    """The structure to label."""
    with Trajectory(str(folder / START)) as file:
        return file[0]


def _made(folder, task, function):
    """Frames of one structure with labels."""
    atoms = start_of(folder)
    if task["way"] == "calculator":
        return from_images([calculated(atoms, folder, task)])
    if task["way"] == "function":
        function = function or named(task["function"], task["parent"])
        found = function(atoms, folder)
        if not isinstance(found, Atoms):
            raise ValueError(f"the function returned {type(found).__name__}, need ase.Atoms with labels")
        return from_images([found])
    if task["way"] == "command":
        prepare(atoms, folder, task)
        with (folder / "command.log").open("w") as log:
            ended = subprocess.run(task["command"], shell=True, cwd=folder, stdout=log, stderr=log, check=False)
        if ended.returncode:
            raise ValueError(f"the command ended with exit code {ended.returncode}; its output is in command.log")
    return read_result(folder, task)


def prepare(atoms: Atoms, folder: Path, task: Mapping[str, Any]) -> None:
    """Write the file of the structure, and copy the other files."""
    write(str(folder / task["structure"]), atoms)
    for name in task["files"]:
        content = Path(task["parent"], name).read_bytes()
        (folder / Path(name).name).write_bytes(content)


def read_result(folder: Path, task: Mapping[str, Any]) -> Frames:
    """Labels that a program left; of a file with several structures the last one.

    Raises
    ------
    ValueError
        Where there are none.
    """
    plain = folder / PLAIN
    path = folder / task["result"] if task["result"] else plain if plain.exists() else folder
    if not path.exists():
        raise ValueError(f"{path.name}: the command left no such file")
    frames = read_frames(path)
    return frames.take([len(frames) - 1])


def calculated(atoms: Atoms, folder: Path, task: Mapping[str, Any]) -> Atoms:
    """Structure with the results of an ASE calculator."""
    calc = calculator(folder, task)
    wanted = [name for name in task["properties"] if name in calc.implemented_properties]
    if atoms.cell.rank < 3 and "stress" in wanted:
        wanted.remove("stress")
    atoms.calc = calc
    calc.calculate(atoms, wanted, all_changes)
    for output in folder.iterdir():
        if output.suffix in (".pwo", ".out") and is_run(output):
            read_run(output)  # raises where it did not converge
    known = {row.ase for row in LABELS.values() if row.ase} | {"free_energy", "stress"}
    results = {name: value for name, value in calc.results.items() if name in known and value is not None}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def calculator(folder: Path, task: Mapping[str, Any]) -> Any:
    """The ASE calculator of a task, in its folder where it works with files."""
    module, _, name = task["calculator"].partition(":")
    kind, options = named(task["calculator"], task["parent"]), dict(task["options"])
    if task["profile"]:
        profile = getattr(importlib.import_module(module), f"{name}Profile", None)
        if profile is None:
            raise ValueError(f"{module} has no {name}Profile; leave out [label.profile]")
        options["profile"] = profile(**task["profile"])
    try:
        return kind(directory=str(folder), **options)
    except TypeError as error:  # calculators without files
        if "directory" not in str(error):
            raise
        return kind(**options)


def named(text: str, parent: str) -> Any:
    """What "module:name" names; modules in ``parent`` are found, too.

    Raises
    ------
    ValueError
        Where there is no such module or name.
    """
    module, _, name = text.partition(":")
    if parent not in sys.path:
        sys.path.insert(0, parent)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text}: {error}; correct the name, or install the package") from None


def _checked(frames, asked):
    """Frames whose structure is the one that was asked for, and whose labels are usable."""
    found = frames[0].atoms
    if len(found) != len(asked) or (found.numbers != asked.numbers).any():
        raise ValueError(f"the result is of {found.symbols}, the structure is {asked.symbols} in this order of atoms")
    apart = find_mic(found.positions - asked.positions, asked.cell, asked.pbc)[1].max(initial=0.0)
    apart = max(apart, float(np.abs(found.cell.array - asked.cell.array).max()))
    if apart > SAME:
        raise ValueError(f"the result is of a structure that is {apart:.3g} Å away from the one that was asked for")
    if not frames.counts:
        raise ValueError("the result has no energy, forces or other labels")
    frames.check()
    frames[0].atoms = asked  # with all digits
    return frames


def end_with_parent(parent: int) -> None:
    """End this process and its programs when the program that started it is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")  # of programs; what matters fails
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
