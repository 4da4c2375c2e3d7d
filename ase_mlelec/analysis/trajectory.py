"""Electronic quantities along trajectories: batched evaluation, and a recorder for molecular dynamics.

A *quantity* is asked for by name, and there is no list of names: it is

1. an ASE result that the calculator implements ("energy", "forces", "fermi_level", ...), or
2. what a method ``get_<name>`` of the calculator returns ("total_dos", "ados", "order_parameter", "band_gap", ...), or
3. what a method ``get_<name>`` of Atoms returns ("temperature", "volume", "positions", "cell", ...), or
4. instead of a name, a function of Atoms; its ``__name__`` names the quantity.

Results are numbers or arrays of numbers. In a file they are HDF5 datasets with the structures along the first axis.
"""

import errno
import hashlib
import io
import os
import warnings
import weakref
from functools import partial
from pathlib import Path

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, CalculatorSetupError
from ase.io import iread, write
from ase.outputs import all_outputs
from tqdm import tqdm

from ase_mlelec.analysis.result_file import ResultFile, stacked
from ase_mlelec.analysis.result_writer import ResultWriter
from ase_mlelec.atomic_write import replacing

ATOMS_PER_BATCH = 1024  # small structures are evaluated together up to this size


def evaluate(calc, images, quantities, *, batch_size=None, out=None, resume=True, progress=True):
    """Quantities of many structures, small structures evaluated together.

    ::

        run = evaluate(DeepDOSCalculator("si"), "md.traj", ["fermi_level", "total_dos"], out="md.h5")
        run["total_dos"]            # array [n, S]

    With ``out`` every batch is stored as soon as it is finished: its rows survive a killed process and a full disk.
    The same call after an interruption checks and skips what is there; a last row that was cut off is evaluated again.
    Other programs see in the HDF5 file all rows but those of the last moments, which ``ResultFile`` reads from the
    journal beside it, and at the end all; ase_mlelec.analysis.result_writer tells how.

    Parameters
    ----------
    calc
        ASE calculator.
    images : sequence of Atoms
        One Atoms, or the path of a trajectory ("md.traj", "md.extxyz@::10"), which is read structure by structure.
    quantities : names
        See the module.
    batch_size : int
        Structures at a time; default as many as have 1024 atoms together.
    out : path of an HDF5 file
        Default: in memory.
    resume : bool
        False starts ``out`` anew; what it held is replaced by the first batch that is finished.
    progress
        Show a progress bar, where the output is a terminal.

    Returns
    -------
    mapping from quantity to array [n, ...]
        A dict, or with ``out`` the ResultFile, which reads on demand. Where structures differ in size, the arrays of
        the smaller ones are filled up with NaN; "n_atoms" [n] tells.

    Raises
    ------
    ValueError
        For unknown quantities, quantities that are not numbers, and an ``out`` of other structures, quantities or
        another model, that is damaged, or that another program is writing.
    OSError
        Where it cannot be written.
    """
    names = _names(quantities)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, need at least 1; leave it out for a good choice")
    images = _images(images)
    if out is None:
        rows = []
        _evaluate(calc, images, quantities, batch_size, rows.extend, None, progress)
        return stacked(rows)
    with _writer(out, names, calc, resume) as writer:
        _evaluate(calc, images, quantities, batch_size, writer.append, writer, progress)
        writer.begin()
    return ResultFile(out)


def _evaluate(calc, images, quantities, batch_size, store, writer, progress):
    total, names = len(images) if hasattr(images, "__len__") else None, _names(quantities)
    with tqdm(total=total, unit=" structures", disable=None if progress else True) as bar:
        for batch in _batches(_unfinished(images, writer, bar), batch_size):
            store([_row(calc, atoms, quantities) for atoms in _each_of(calc, batch, names)])
            bar.update(len(batch))


def _writer(path, names, calc, resume):
    grid = getattr(calc, "relative_energies", calc.energies) if hasattr(calc, "get_dos") else None
    return ResultWriter(
        path,
        {"quantities": list(names), "calculator": type(calc).__name__, "model": getattr(calc, "metadata", {})},
        grid,
        resume,
    )


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
        With all recorded quantities that are one number per atom as columns: ``ase gui`` colours by them, see
        set_atom_scalars. Its frames are those of the rows, one by one: what is behind them is cut off when the run goes
        on.
    resume : bool
        False starts the files anew; what they held is replaced by the first row.

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
        atoms,
        path,
        quantities=("energy", "temperature", "fermi_level", "total_dos", "order_parameter"),
        *,
        dyn=None,
        extxyz=None,
        resume=True,
    ):
        if atoms.calc is None:
            raise CalculatorSetupError("got atoms without a calculator; set atoms.calc before recording")
        for quantity in quantities if not isinstance(quantities, str) else ():
            _getter(atoms.calc, atoms, quantity)  # a slip of the pen shows here, not after the first steps
        self.atoms, self.quantities, self.dyn = atoms, quantities, dyn
        clock = [] if dyn is None else ["step", "time"] if hasattr(dyn, "get_time") else ["step"]
        self._writer = _writer(path, [*clock, *_names(quantities)], atoms.calc, resume)
        self._finish = weakref.finalize(self, self._writer.close)  # also at the end of the program
        self.results = ResultFile(path)
        try:
            n_rows = self._writer.n_rows
            self._last = self._last_row() if n_rows else None
            self._start = {name: self.results[name][-1] - self._clock()[name] for name in clock if n_rows}
            self._frames = None if extxyz is None else _Frames(extxyz, n_rows)
        except BaseException:
            self.close()
            raise

    def close(self):
        """Bring the HDF5 file up to date, and let another recorder go on with it."""
        self._finish()

    def __call__(self):
        """Add a row for the present structure."""
        repeated, self._last = _fingerprint(self.atoms) == self._last, None
        if repeated:
            return
        row = {name: value + self._start.get(name, 0) for name, value in self._clock().items()}
        row.update(_row(self.atoms.calc, self.atoms, self.quantities))
        if self._frames is not None:
            self._frames.write(
                set_atom_scalars(
                    self.atoms,
                    **{
                        name: value
                        for name, value in row.items()
                        if np.shape(value) == (len(self.atoms),) and name not in all_outputs
                    },
                )
            )
        self._writer.append([row])
        if self._frames is not None:
            self._frames.keep()
        if self.dyn is not None and self.dyn.nsteps >= getattr(self.dyn, "max_steps", np.inf):
            self._writer.update()  # the end of dyn.run()

    def _last_row(self):
        """Fingerprint of the last row, after making sure that the run was not started from the beginning again."""
        rows, present = self.results["fingerprint"], _fingerprint(self.atoms)
        if present == rows[0] and present != rows[-1]:
            raise ValueError(
                f"{self.results.path} already holds a run from this structure on; continue from its last "
                "structure, give another file, or resume=False to start it anew"
            )
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

    def __init__(self, path, n_rows):
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

    def write(self, atoms):
        """Put a frame behind those that are kept."""
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
                    raise OSError(
                        error.errno,
                        f"{self.path}: cannot be written ({error.strerror}); the frames before "
                        "are safe: make room and go on",
                    ) from None
        self._written = self._end + len(content)

    def keep(self):
        """The last frame has its row."""
        self._end, self._new = self._written, False


def heat(dyn, start, end, steps, *, progress=True):
    """Run ``steps`` steps of a thermostatted ASE dynamics while its temperature goes linearly from start to end, K."""
    for step, _ in enumerate(tqdm(dyn.irun(steps), total=steps + 1, unit=" steps", disable=None if progress else True)):
        dyn.set_temperature(temperature_K=start + (end - start) * min(step + 1, steps) / max(steps, 1))


def set_atom_scalars(atoms, **scalars):
    """Put one number per atom into ``atoms.arrays`` under each name; returns ``atoms``.

    ASE's viewer colours by any such array: write the structures as extxyz, open them with ``ase gui run.extxyz``, and
    choose View -> Colors -> By user-defined "<name>". (It also colours by tag, force, velocity, initial charge,
    magnetic moment and number of neighbours.) The colour scale spans the values of the structure shown when the window
    was opened: open it at the last structure, or set min and max there. ASE's .traj and database files drop such
    arrays; where only those will do, ``atoms.set_initial_charges(values)`` survives and can be coloured by, but changes
    what calculators see.

    Parameters
    ----------
    atoms : ase.Atoms
    scalars : name=array [N]

    Raises
    ------
    ValueError
        For arrays of another shape.
    """
    for name, values in scalars.items():
        if np.shape(values) != (len(atoms),):
            raise ValueError(f"{name}: got shape {np.shape(values)}, need ({len(atoms)},), one number per atom")
        atoms.set_array(name, np.asarray(values, dtype=float))
    return atoms


# Quantities


def _names(quantities):
    if isinstance(quantities, str):
        raise ValueError(f"got quantities={quantities!r}, need a list of names; write [{quantities!r}]")
    return [name.__name__ if callable(name) else name for name in quantities]


def _quantity(calc, atoms, name):
    """The value of one quantity, as the module describes."""
    return _getter(calc, atoms, name)()


def _getter(calc, atoms, name):
    """A function without arguments that returns the quantity.

    Raises
    ------
    ValueError
        For one that there is not.
    """
    if callable(name):
        return partial(name, atoms)
    if name in calc.implemented_properties:
        return partial(calc.get_property, name, atoms)
    method = getattr(calc, f"get_{name}", None)
    if method is not None:
        return partial(method, atoms=atoms)
    if hasattr(atoms, f"get_{name}"):
        return getattr(atoms, f"get_{name}")
    methods = sorted(found[4:] for found in {*dir(calc)} - {*dir(Calculator())} if found.startswith("get_"))
    raise ValueError(
        f"got quantity {name!r}, which neither {type(calc).__name__} nor Atoms has; choose among "
        f"{', '.join(dict.fromkeys([*calc.implemented_properties, *methods]))}"
    )


def _row(calc, atoms, quantities):
    row = {"n_atoms": len(atoms), "fingerprint": _fingerprint(atoms)}
    for name, quantity in zip(_names(quantities), quantities):
        value = _quantity(calc, atoms, quantity)
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"got quantity {name!r}, which is a {type(value).__name__}, need numbers; ask for a "
                "quantity that is an array, such as 'ados' for 'dos'"
            )
        row[name] = array
    return row


def _fingerprint(atoms):
    """int, 64 bits, of what a calculator sees of a structure."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "big"))


# Structures


def _images(images):
    if isinstance(images, (str, Path)):
        return iread(str(images))  # all of them, or those that @ tells
    return [images] if hasattr(images, "get_atomic_numbers") else images


def _unfinished(images, table, bar):
    """The images without a row in the file, after comparing the others with their rows."""
    known = [] if table is None or table.n_rows == 0 else ResultFile(table.path)["fingerprint"]
    k = -1
    for k, atoms in enumerate(images):
        if k >= len(known):
            yield atoms
            continue
        if _fingerprint(atoms) != known[k]:
            raise ValueError(
                f"row {k} of {table.path} belongs to another structure than image {k}; give another "
                "out, or resume=False to start it anew"
            )
        bar.update(1)
    if k + 1 < len(known):
        raise ValueError(
            f"{table.path} holds {len(known)} rows, got {k + 1} structures; give another out, or "
            "resume=False to start it anew"
        )


def _batches(images, batch_size):
    batch = []
    for atoms in images:
        full = len(batch) == batch_size if batch_size else sum(map(len, batch)) + len(atoms) > ATOMS_PER_BATCH
        if batch and full:
            yield batch
            batch = []
        batch.append(atoms)
    if batch:
        yield batch


def _each_of(calc, batch, names):
    if len(batch) == 1 or not hasattr(calc, "each_of"):
        return batch
    # what Atoms or a function supplies costs the calculator nothing
    asked = [name for name in names if name in calc.implemented_properties or hasattr(calc, f"get_{name}")]
    return calc.each_of(batch, properties=asked)


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
