"""Electronic quantities along trajectories: batched evaluation, and a recorder for molecular dynamics.

A *quantity* is asked for by name, and there is no list of names: it is

1. an ASE result that the calculator implements ("energy", "forces", "fermi_level", ...), or
2. what a method get_<name> of the calculator returns ("total_dos", "ados", "order_parameter", "band_gap", ...), or
3. what a method get_<name> of Atoms returns ("temperature", "volume", "positions", "cell", ...), or
4. instead of a name, a function of Atoms; its ``__name__`` names the quantity.

Results are numbers or arrays of numbers.  In a file they are HDF5 datasets with the structures along the first axis.
"""
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, CalculatorSetupError
from ase.io import iread, write
from ase.outputs import all_outputs
from tqdm import tqdm

FORMAT_VERSION = 1
ATOMS_PER_BATCH = 256       # small structures are evaluated together up to this size
CHUNK_BYTES = 32768         # of a dataset in the file


def evaluate(calc, images, quantities, *, batch_size=None, out=None, resume=True, progress=True):
    """Quantities of many structures, small structures evaluated together.

        run = evaluate(DeepDOSCalculator("si"), "md.traj", ["fermi_level", "total_dos"], out="md.h5")
        run["total_dos"]            # array [n, S]

    With ``out`` every batch is in the file as soon as it is finished.  The same call after an interruption skips what
    is there; a last row that was cut off is evaluated again.

    calc : ASE calculator
    images : sequence of Atoms, one Atoms, or the path of a trajectory ("md.traj", "md.extxyz@::10"), which is read
        structure by structure
    quantities : names, see the module
    batch_size : int, structures at a time; default as many as have 256 atoms together
    out : path of an HDF5 file; default: in memory
    resume : False starts ``out`` anew
    progress : show a progress bar, where the output is a terminal

    Returns a mapping from quantity to array [n, ...]: a dict, or with ``out`` the ResultFile, which reads on demand.
    Where structures differ in size, the arrays of the smaller ones are filled up with NaN; "n_atoms" [n] tells.

    Raises ValueError for unknown quantities, quantities that are not numbers, and an ``out`` of other structures,
    quantities or another model.
    """
    names = _names(quantities)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, need at least 1; leave it out for a good choice")
    images = _images(images)
    rows, table = [], None
    if out is not None:
        table = ResultFile(out)
        table.start(names, calc, resume)
    total = len(images) if hasattr(images, "__len__") else None
    with tqdm(total=total, unit=" structures", disable=None if progress else True) as bar:
        for batch in _batches(_unfinished(images, table, bar), batch_size):
            new = [_row(calc, atoms, quantities) for atoms in _each_of(calc, batch, names)]
            rows.extend(new) if table is None else table.append(new)
            bar.update(len(batch))
    return _stack(rows) if table is None else table


class ElectronicRecorder:
    """Writes electronic quantities of a run to HDF5: an observer for ASE's molecular dynamics and optimizers.

        recorder = ElectronicRecorder(atoms, "run.h5", quantities=("energy", "fermi_level", "total_dos"), dyn=dyn)
        dyn.attach(recorder, interval=10)
        dyn.run(1000)
        recorder.results["total_dos"]           # array [n, S]

    Every row is complete in the file before the run goes on, and the file is closed in between, so that other programs
    can read it.  An existing file is continued: a last row that was cut off is dropped, time goes on from the last row,
    and the first call adds nothing if the structure is the one of the last row, as after a restart from a trajectory.

    atoms : ase.Atoms of the run, with a calculator
    path : path of the HDF5 file
    quantities : names, see the module
    dyn : ASE dynamics; adds "step" and "time" (fs; molecular dynamics only)
    extxyz : path of a file that also gets the structures, with all recorded quantities that are one number per atom
        as columns: ``ase gui`` colours by them, see set_atom_scalars
    resume : False starts the files anew

    Raises ValueError for unknown quantities, quantities that are not numbers, and a file with other quantities, of
    another model, or of the same run from its beginning.
    """

    def __init__(self, atoms, path, quantities=("energy", "temperature", "fermi_level", "total_dos", "order_parameter"),
                 *, dyn=None, extxyz=None, resume=True):
        if atoms.calc is None:
            raise CalculatorSetupError("got atoms without a calculator; set atoms.calc before recording")
        self.atoms, self.quantities, self.dyn = atoms, quantities, dyn
        self.extxyz = None if extxyz is None else Path(extxyz)
        self.results = ResultFile(path)
        clock = [] if dyn is None else ["step", "time"] if hasattr(dyn, "get_time") else ["step"]
        self.results.start([*clock, *_names(quantities)], atoms.calc, resume)
        n_rows = self.results.n_rows
        self._last = self._last_row() if n_rows else None
        self._start = {name: self.results[name][-1] - self._clock()[name] for name in clock if n_rows}
        if self.extxyz is not None:
            _trim_extxyz(self.extxyz, n_rows)

    def __call__(self):
        """Add a row for the present structure."""
        repeated, self._last = _fingerprint(self.atoms) == self._last, None
        if repeated:
            return
        row = {name: value + self._start.get(name, 0) for name, value in self._clock().items()}
        row.update(_row(self.atoms.calc, self.atoms, self.quantities))
        self.results.append([row])
        if self.extxyz is not None:
            scalars = {name: value for name, value in row.items()
                       if np.shape(value) == (len(self.atoms),) and name not in all_outputs}
            write(self.extxyz, set_atom_scalars(self.atoms, **scalars), format="extxyz", append=True)

    def _last_row(self):
        """Fingerprint of the last row, after making sure that the run was not started from the beginning again."""
        rows, present = self.results["fingerprint"], _fingerprint(self.atoms)
        if present == rows[0] and present != rows[-1]:
            raise ValueError(f"{self.results.path} already holds a run from this structure on; continue from its last "
                             "structure, give another file, or resume=False to start it anew")
        return rows[-1]

    def _clock(self):
        if self.dyn is None:
            return {}
        time = {"time": self.dyn.get_time() / units.fs} if hasattr(self.dyn, "get_time") else {}
        return {"step": self.dyn.nsteps, **time}


def heat(dyn, start, end, steps, *, progress=True):
    """Run ``steps`` steps of a thermostatted ASE dynamics while its temperature goes linearly from start to end, K."""
    for step, _ in enumerate(tqdm(dyn.irun(steps), total=steps + 1, unit=" steps",
                                  disable=None if progress else True)):
        dyn.set_temperature(temperature_K=start + (end - start) * min(step + 1, steps) / max(steps, 1))


def set_atom_scalars(atoms, **scalars):
    """Put one number per atom into ``atoms.arrays`` under each name; returns ``atoms``.

    ASE's viewer colours by any such array: write the structures as extxyz, open them with ``ase gui run.extxyz``, and
    choose View -> Colors -> By user-defined "<name>".  (It also colours by tag, force, velocity, initial charge,
    magnetic moment and number of neighbours.)  The colour scale spans the values of the structure shown when the window
    was opened: open it at the last structure, or set min and max there.  ASE's .traj and database files drop such
    arrays; where only those will do, ``atoms.set_initial_charges(values)`` survives and can be coloured by, but changes
    what calculators see.

    atoms : ase.Atoms
    scalars : name=array [N]

    Raises ValueError for arrays of another shape.
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
    if callable(name):
        return name(atoms)
    if name in calc.implemented_properties:
        return calc.get_property(name, atoms)
    method = getattr(calc, f"get_{name}", None)
    if method is not None:
        return method(atoms=atoms)
    if hasattr(atoms, f"get_{name}"):
        return getattr(atoms, f"get_{name}")()
    methods = sorted(found[4:] for found in {*dir(calc)} - {*dir(Calculator())} if found.startswith("get_"))
    raise ValueError(f"got quantity {name!r}, which neither {type(calc).__name__} nor Atoms has; choose among "
                     f"{', '.join(dict.fromkeys([*calc.implemented_properties, *methods]))}")


def _row(calc, atoms, quantities):
    row = {"n_atoms": len(atoms), "fingerprint": _fingerprint(atoms)}
    for name, quantity in zip(_names(quantities), quantities):
        value = _quantity(calc, atoms, quantity)
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"got quantity {name!r}, which is a {type(value).__name__}, need numbers; ask for a "
                             "quantity that is an array, such as 'ados' for 'dos'")
        row[name] = array
    return row


def _fingerprint(atoms):
    """int, 64 bits, of what a calculator sees of a structure."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "big"))


def _stack(rows):
    """dict of array [n, ...]; arrays of different shapes are filled up with NaN."""
    return {name: _padded([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _padded(values):
    shapes = {np.shape(value) for value in values}
    if len(shapes) == 1:
        return np.array(values)
    padded = np.full((len(values), *np.max(list(shapes), axis=0)), np.nan)
    for target, value in zip(padded, values):
        target[tuple(map(slice, np.shape(value)))] = value
    return padded


# Structures

def _images(images):
    if isinstance(images, (str, Path)):
        return iread(str(images))       # all of them, or those that @ tells
    return [images] if hasattr(images, "get_atomic_numbers") else images


def _unfinished(images, table, bar):
    """The images without a row in the file, after comparing the others with their rows."""
    known = [] if table is None or table.n_rows == 0 else table["fingerprint"]
    k = -1
    for k, atoms in enumerate(images):
        if k >= len(known):
            yield atoms
            continue
        if _fingerprint(atoms) != known[k]:
            raise ValueError(f"row {k} of {table.path} belongs to another structure than image {k}; give another "
                             "out, or resume=False to start it anew")
        bar.update(1)
    if k + 1 < len(known):
        raise ValueError(f"{table.path} holds {len(known)} rows, got {k + 1} structures; give another out, or "
                         "resume=False to start it anew")


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
    return calc.each_of(batch, [name for name in names if name in calc.implemented_properties
                                or hasattr(calc, f"get_{name}")])


# Files

class ResultFile(Mapping):
    """An HDF5 file of ``evaluate`` or ``ElectronicRecorder``: mapping from quantity to array [n, ...], read on demand.

    Beside the quantities there are "n_atoms", "fingerprint" (of each structure) and, where the calculator has one, the
    "energy_grid" [S] of spectra, eV.

    path : path of the file; it is opened for every access and closed again

    n_rows : int, the complete rows
    """

    def __init__(self, path):
        self.path = Path(path)

    @property
    def n_rows(self):
        with self._open() as file:
            return _count_rows(file)

    @property
    def header(self):
        """dict: format version, quantities, calculator and the metadata of its model."""
        with self._open() as file:
            return json.loads(file.attrs["ase_mlelec"])

    def __getitem__(self, name):
        with self._open() as file:
            if name not in file:
                raise KeyError(f"{self.path} has no '{name}'; it has {', '.join(file)}")
            return file[name][()] if name == "energy_grid" else file[name][:_count_rows(file)]

    def __iter__(self):
        with self._open() as file:
            return iter(list(file))

    def __len__(self):
        with self._open() as file:
            return len(file)

    def start(self, names, calc, resume=True):
        """Begin the file, or make sure that what exists can be continued."""
        header = {"format_version": FORMAT_VERSION, "quantities": list(names), "calculator": type(calc).__name__,
                  "model": getattr(calc, "metadata", {})}
        grid = getattr(calc, "relative_energies", calc.energies) if hasattr(calc, "get_dos") else None
        if resume and self.path.exists():
            self._check(header, grid)
            return
        with h5py.File(self.path, "w") as file:
            file.attrs["ase_mlelec"], file.attrs["rows"] = json.dumps(header), 0
            if grid is not None:
                file["energy_grid"] = grid

    def append(self, rows):
        """Add rows, list of dict; all of them count only when the last number is written."""
        with self._open("r+") as file:
            n = _count_rows(file)
            for name, values in _stack(rows).items():
                dataset = file[name] if name in file else _create(file, name, values)
                dataset.resize(n, axis=0)       # an unfinished row leaves nothing behind
                dataset.resize((n + len(values), *np.maximum(dataset.shape[1:], values.shape[1:])))
                dataset[(slice(n, None), *map(slice, values.shape[1:]))] = values
            file.flush()
            file.attrs["rows"] = n + len(rows)

    def _open(self, mode="r"):
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such file")
        try:
            # a reader in another process must not stop a run
            file = h5py.File(self.path, mode, locking=None if mode == "r" else False)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be opened as an HDF5 file ({error}); if it is truncated, delete it, "
                             "or give resume=False to start it anew") from None
        if "rows" not in file.attrs:
            file.close()
            raise ValueError(f"{self.path}: an HDF5 file of another program; give a file of evaluate or "
                             "ElectronicRecorder")
        return file

    def _check(self, header, grid):
        known = self.header
        for key, value in json.loads(json.dumps(header)).items():
            if known.get(key) != value:
                told = "" if key == "model" else f" ({known.get(key)}, not {value})"
                raise ValueError(f"{self.path} was written with another {key.replace('_', ' ')}{told}; give another "
                                 "file, or resume=False to start it anew")
        if (grid is not None) != ("energy_grid" in self) or grid is not None and not np.array_equal(
                self["energy_grid"], grid):
            raise ValueError(f"{self.path} has another energy grid than the calculator; give another file, or "
                             "resume=False to start it anew")


def _count_rows(file):
    """Complete rows: those counted, as far as all datasets have them."""
    return min([int(file.attrs["rows"]), *(len(file[name]) for name in file if name != "energy_grid")])


def _create(file, name, values):
    """An empty dataset that grows along every axis, in chunks of whole rows unless those are large."""
    shape = np.maximum(values.shape[1:], 1)
    kind = values.dtype if name in ("n_atoms", "fingerprint") else float
    rows = int(np.clip(CHUNK_BYTES // (8 * np.prod(shape)), 1, 1024))
    return file.create_dataset(name, shape=(0, *values.shape[1:]), maxshape=(None,) * values.ndim, dtype=kind,
                               chunks=(rows, *map(int, shape)), compression="gzip", compression_opts=1, shuffle=True,
                               fillvalue=0 if kind is not float else np.nan)


def _trim_extxyz(path, n_frames):
    """Cut a file down to its first complete frames, ``n_frames`` at most."""
    if not path.exists():
        return
    end = 0
    with open(path, "r+b") as file:
        for _ in range(n_frames):
            first = file.readline().strip()
            lines = [file.readline() for _ in range(int(first) + 1)] if first.isdigit() else [b""]
            if not lines[-1].endswith(b"\n"):
                break
            end = file.tell()
        file.truncate(end)
