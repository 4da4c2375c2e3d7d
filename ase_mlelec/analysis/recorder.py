"""Recorder of electronic quantities for molecular dynamics."""

import atexit
import errno
import io
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculatorSetupError
from ase.io import write
from ase.outputs import all_outputs

from ase_mlelec.analysis.journal import ANEW
from ase_mlelec.analysis.result_file import ResultFile
from ase_mlelec.analysis.trajectory import (
    column_names,
    fingerprint,
    getter,
    row_of,
    set_atom_scalars,
    with_labels,
    writer_of,
)
from ase_mlelec.atomic_write import not_written, replacing
from ase_mlelec.progress import Bar

if TYPE_CHECKING:
    from ase.md.md import MolecularDynamics
    from ase.optimize.optimize import Dynamics

RECORDED = ("energy", "temperature", "fermi_level", "total_dos", "order_parameter")


class ElectronicRecorder:
    """Writes electronic quantities of a run to HDF5: an observer for ASE's molecular dynamics and optimizers.

    ::

        recorder = ElectronicRecorder(atoms, "run.h5", quantities=("energy", "fermi_level", "total_dos"), dyn=dyn)
        dyn.attach(recorder, interval=10)
        dyn.run(1000)
        recorder.results["total_dos"]           # array [n, S]

    Every row is stored before the run goes on: it survives a killed process and a full disk. Other programs can read
    the file meanwhile; they see all rows but those of the last moments, which ``recorder.results`` reads from the
    journal beside it, and all of them at the end of dyn.run(), of the program, or after ``close``. See
    ase_mlelec.analysis.result_writer.

    An existing file is checked and continued: a last row that was cut off is dropped, time goes on from the last row,
    and the first call adds nothing if the structure is the one of the last row, as after a restart from a trajectory.

    Parameters
    ----------
    atoms : ase.Atoms of the run
        With a calculator.
    path : path of the HDF5 file
    quantities : names
        See the module.
    dyn
        ASE dynamics; adds "step" and "time" (fs; molecular dynamics only).
    extxyz : path of a file that also gets the structures
        With all recorded quantities that are one number per atom as columns: ``ase gui`` colors by them, see
        set_atom_scalars. Dipole, polarizability and Born charges that are recorded are where data sets have them, see
        with_labels. Its frames are those of the rows, one by one: what is behind them is cut off when the run goes on.
    resume : bool
        False starts new files; the first row replaces the former contents.

    Raises
    ------
    ValueError
        For unknown quantities, quantities that are not numbers, and a file with other quantities, of another model, of
        the same run from its beginning, damaged, or that another recorder is writing.
    OSError
        Where it cannot be written.
    """

    def __init__(
        self,
        atoms: Atoms,
        path: str | PathLike,
        quantities: Sequence[str | Callable] = RECORDED,
        *,
        dyn: "Dynamics | None" = None,
        extxyz: str | PathLike | None = None,
        resume: bool = True,
    ) -> None:
        if atoms.calc is None:
            raise CalculatorSetupError("got atoms without a calculator; set atoms.calc before recording")
        for quantity in quantities if not isinstance(quantities, str) else ():
            getter(atoms.calc, atoms, quantity)  # a slip of the pen shows here, not after the first steps
        self.atoms, self.quantities, self.dyn = atoms, quantities, dyn
        clock = [] if dyn is None else ["step", "time"] if hasattr(dyn, "get_time") else ["step"]
        self._writer = writer_of(path, [*clock, *column_names(quantities)], atoms.calc, resume)
        self._finish = weakref.finalize(self, self._writer.close)
        self._finish.atexit = False  # where it began before h5py was imported, h5py would be gone by then
        atexit.register(self._finish)  # h5py is imported by now, and ends later
        self.results = ResultFile(path)
        try:
            n_rows = self._writer.n_rows
            self._last = self._last_row() if n_rows else None
            self._start = {name: self.results[name][-1] - self._clock()[name] for name in clock if n_rows}
            self._frames = None if extxyz is None else _Frames(extxyz, n_rows)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Bring the HDF5 file up to date, and let another recorder go on with it."""
        self._finish()

    def __call__(self) -> None:
        """Add a row for the present structure."""
        repeated, self._last = fingerprint(self.atoms) == self._last, None
        if repeated:
            return
        row = {name: value + self._start.get(name, 0) for name, value in self._clock().items()}
        row.update(row_of(self.atoms.calc, self.atoms, self.quantities))
        if self._frames is not None:
            by_atom = (name for name, value in row.items() if np.shape(value) == (len(self.atoms),))
            scalars = {name: row[name] for name in by_atom if name not in all_outputs}
            self._frames.write(with_labels(set_atom_scalars(self.atoms, **scalars), row))
        self._writer.append([row])
        if self._frames is not None:
            self._frames.keep()
        if self.dyn is not None and self.dyn.nsteps >= getattr(self.dyn, "max_steps", np.inf):
            self._writer.update()  # the end of dyn.run()

    def _last_row(self):
        """Fingerprint of the last row, after making sure that the run was not started from the beginning again."""
        rows, present = self.results["fingerprint"], fingerprint(self.atoms)
        if present == rows[0] and present != rows[-1]:
            here = f"{self.results.path} already holds a run from this structure on"
            raise ValueError(f"{here}; continue from its last structure, {ANEW}")
        return rows[-1]

    def _clock(self):
        if self.dyn is None:
            return {}
        time = {"time": self.dyn.get_time() / units.fs} if hasattr(self.dyn, "get_time") else {}
        return {"step": self.dyn.nsteps, **time}


class _Frames:
    """An extxyz file with one frame for every row of a ResultFile.

    A frame is written before its row; one whose row failed is overwritten by the next.
    """

    def __init__(self, path: str | PathLike, n_rows: int):
        self.path, self._new = Path(path), n_rows == 0
        self._end = self._written = 0
        if n_rows:
            n_frames, self._end = _complete_frames(self.path, n_rows)
            if n_frames < n_rows:
                warnings.warn(
                    f"{self.path}: got {n_frames} complete frames for {n_rows} rows; its frames will not be "
                    "those of the rows: give another extxyz file",
                    stacklevel=4,
                )

    def write(self, atoms: Atoms) -> None:
        """Append a frame to the trajectory."""
        text = io.StringIO()
        write(text, atoms, format="extxyz")
        content = text.getvalue().encode()
        if self._new:
            with replacing(self.path) as partial:
                partial.write_bytes(content)
        else:
            with open(self.path, "ab", buffering=0) as file:
                file.truncate(self._end)
                try:
                    if file.write(content) < len(content):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as error:
                    file.truncate(self._end)
                    safe = "the frames before are safe: make room and go on"
                    raise not_written(self.path, error, remedy=safe) from None
        self._written = self._end + len(content)

    def keep(self) -> None:
        """The last frame has its row."""
        self._end, self._new = self._written, False


def heat(dyn: "MolecularDynamics", start: float, end: float, steps: int, *, progress: bool = True) -> None:
    """Run ``steps`` steps of a thermostatted ASE dynamics while its temperature goes linearly from start to end, K."""
    for step, _ in enumerate(Bar(dyn.irun(steps), total=steps + 1, unit=" steps", show=progress)):
        dyn.set_temperature(temperature_K=start + (end - start) * min(step + 1, steps) / max(steps, 1))  # type: ignore[attr-defined]


def _complete_frames(path, n_frames):
    """(number of complete frames in an extxyz file, ``n_frames`` at most; where they end)"""
    end, found = 0, 0
    if not path.exists():
        return found, end
    with open(path, "rb") as file:
        while found < n_frames:
            first = file.readline().strip()
            lines = [file.readline() for _ in range(int(first) + 1)] if first.isdigit() else [b""]
            if not lines[-1].endswith(b"\n"):
                break
            end, found = file.tell(), found + 1
    return found, end
