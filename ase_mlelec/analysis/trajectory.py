"""Electronic quantities along trajectories: batched evaluation, and a recorder for molecular dynamics.

A *quantity* is asked for by name, and there is no list of names: it is

1. an ASE result that the calculator implements ("energy", "forces", "fermi_level", ...), or
2. what a method ``get_<name>`` of the calculator returns ("total_dos", "ados", "order_parameter", "band_gap", ...), or
3. what a method ``get_<name>`` of Atoms returns ("temperature", "volume", "positions", "cell", ...), or
4. the standard deviation of a result, with "_uncertainty" behind its name ("energy_uncertainty", ...), or
5. instead of a name, a function of Atoms; its ``__name__`` names the quantity.

Results are numbers or arrays of numbers. In a file they are HDF5 datasets with the structures along the first axis.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import ArrayLike, NDArray

from ase_mlelec import processes
from ase_mlelec.analysis.journal import ANEW
from ase_mlelec.analysis.result_file import ResultFile, stacked
from ase_mlelec.analysis.result_writer import ResultWriter
from ase_mlelec.data.structures import structures
from ase_mlelec.deprecated import former_names
from ase_mlelec.progress import Bar
from ase_mlelec.quantities import LABELS

IMMATERIAL = {"model", "device", "dtype", "skin", "on_extrapolation"}  # parameters that change rounding or names alone
BARS = "_uncertainty"  # end of the names of standard deviations
ATOMS_PER_BATCH = 1024  # small structures are evaluated together up to this size


def evaluate(
    calc: Calculator,
    images: Atoms | str | Path | Iterable[Atoms],
    quantities: Sequence[str],
    *,
    batch_size: int | None = None,
    out: str | PathLike | None = None,
    resume: bool = True,
    progress: bool = True,
) -> Mapping[str, NDArray]:
    """Quantities of many structures, small structures evaluated together.

    ::

        run = evaluate(DeepDOSCalculator("si"), "md.traj", ["fermi_level", "total_dos"], out="md.h5")
        run["total_dos"]            # array [n, S]

    With ``out`` every batch is stored as soon as it is finished: its rows survive a killed process and a full disk.
    The same call after an interruption checks and skips finished rows; a truncated last row is evaluated again.
    Other programs see in the HDF5 file all rows but those of the last moments, which ``ResultFile`` reads from the
    journal beside it, and at the end all; ase_mlelec.analysis.result_writer tells how.

    Processes that work together (see ase_mlelec.processes) take one batch each; the first writes the file.

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
        False starts a new file ``out``; the first finished batch replaces the former contents.
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
        settings of the calculator, or another model, that is damaged, or that another program is writing.
    OSError
        Where it cannot be written.
    """
    names = column_names(quantities)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, need at least 1; leave it out for a good choice")
    images = _images(images)
    if out is None:
        rows: list = []
        _evaluate(calc, images, quantities, batch_size, rows.extend, None, progress)
        return stacked(rows)
    if processes.rank() == 0:
        with writer_of(out, names, calc, resume, settings=_settings(calc)) as writer:
            _evaluate(calc, images, quantities, batch_size, writer.append, writer, progress)
            writer.begin()
    else:
        _evaluate(calc, images, quantities, batch_size, lambda rows: None, None, False)
    processes.gathered(None)  # the file is complete
    return ResultFile(out)


def _evaluate(calc, images, quantities, batch_size, store, writer, progress):
    total, names = len(images) if hasattr(images, "__len__") else None, column_names(quantities)
    with Bar(total=total, unit=" structures", show=progress) as bar:
        known = [] if writer is None or writer.n_rows == 0 else ResultFile(writer.path)["fingerprint"]
        batches = _batches(_unfinished(images, processes.of_first((known, writer and writer.path)), bar), batch_size)
        # as many batches at a time as there are processes: each takes one, and all get the rows
        while some := list(itertools.islice(batches, processes.world())):
            own = list(processes.mine(some))
            with processes.alone():  # calculators that share their work would wait for those of other structures
                found = [[row_of(calc, atoms, quantities) for atoms in _each_of(calc, batch, names)] for batch in own]
            for rows in processes.in_turn(found):
                store(rows)
                bar.update(len(rows))


def _settings(calc):
    """Parameters of a calculator that decide its results, dict of JSON types: temperatures, fields, weights and so on."""
    found = calc.todict() if hasattr(calc, "todict") else {}
    plain = json.loads(json.dumps(found, default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each)))
    # the text of an object without one of its own has its place in memory, another in each process
    return {name: value for name, value in plain.items() if name not in IMMATERIAL and " at 0x" not in str(value)}


def writer_of(
    path: str | PathLike, names: Iterable[str], calc: Calculator, resume: bool, *, settings: dict | None = None
) -> ResultWriter:
    """ResultWriter of the results of a calculator; ``settings`` of an existing file have to agree."""
    grid = getattr(calc, "relative_energies", calc.energies) if hasattr(calc, "get_dos") else None  # type: ignore[attr-defined]
    header = {"quantities": list(names), "calculator": type(calc).__name__, "model": getattr(calc, "metadata", {})}
    header |= {} if settings is None else {"settings": settings}
    return ResultWriter(path, header, grid, resume)


# Structures


def _images(images):
    if isinstance(images, (str, Path)):
        return structures(images)  # all images, or the images after @
    return [images] if hasattr(images, "get_atomic_numbers") else images


def _unfinished(images, table, bar):
    """Images without a row in the file; images with a row are compared with it. ``table``: fingerprints, and the path."""
    (known, path), k = table, -1
    for k, atoms in enumerate(images):
        if k >= len(known):
            yield atoms
            continue
        if fingerprint(atoms) != known[k]:
            raise ValueError(f"row {k} of {path} belongs to another structure than image {k}; {ANEW}")
        bar.update(1)
    if k + 1 < len(known):
        raise ValueError(f"{path} holds {len(known)} rows, got {k + 1} structures; {ANEW}")


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


def set_atom_scalars(atoms: Atoms, **scalars: ArrayLike) -> Atoms:
    """Put one number per atom into ``atoms.arrays`` under each name; returns ``atoms``.

    ASE's viewer colors by any such array: write the structures as extxyz, open them with ``ase gui run.extxyz``, and
    choose View -> Colors -> By user-defined "<name>". (It also colors by tag, force, velocity, initial charge,
    magnetic moment and number of neighbors.) The color scale spans the values of the structure shown when the window
    was opened: open it at the last structure, or set min and max there. ASE's .traj and database files drop such
    arrays; where only those will do, ``atoms.set_initial_charges(values)`` survives and can be colored by, but changes
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


def with_labels(atoms: Atoms, results: Mapping[str, ArrayLike]) -> Atoms:
    """Copy of ``atoms`` with results where readers of extxyz files and ``mlelec train`` look for them.

    Results that ASE's format has, such as energy, forces and dipole, are those of a SinglePointCalculator. Others that are
    labels of data sets become ``arrays`` where there is one for each atom, and ``info`` elsewhere: "polarizability" in
    ``info``, and ``born_effective_charges`` as ``arrays["born_charges"]`` [N, 9], because ASE cannot write them as they are.

    Parameters
    ----------
    atoms : ase.Atoms
        Results of its calculator for the present structure are taken as well.
    results : dict by name
        Other names than those of results and labels are passed over.
    """
    copy = atoms.copy()
    is_other = getattr(atoms.calc, "check_state", lambda other: False)
    of_calculator = {} if is_other(atoms) else getattr(atoms.calc, "results", {})
    found = {name: value for name, value in {**of_calculator, **results}.items() if value is not None}
    for name, value in found.items():
        label = next((row for row in LABELS.values() if name in (row.name, *row.keys) and not row.ase), None)
        if label is None or np.ndim(value) != len(label.shape):
            continue
        if label.of_atoms:
            copy.arrays[label.name] = np.array(value, dtype=float).reshape(len(atoms), -1)
        else:
            copy.info[label.name] = np.array(value, dtype=float)
    known = {name: found[name] for name in found if name in all_properties and name != "born_effective_charges"}
    if known:
        copy.calc = SinglePointCalculator(copy, **known)
    return copy


# Quantities


def column_names(quantities: Sequence[str | Callable]) -> list:
    if isinstance(quantities, str):
        raise ValueError(f"got quantities={quantities!r}, need a list of names; write [{quantities!r}]")
    return [name.__name__ if callable(name) else name for name in quantities]


def getter(calc: Calculator, atoms: Atoms, name: str | Callable) -> Callable[[], Any]:
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
    if hasattr(calc, f"get_{name}"):
        return partial(getattr(calc, f"get_{name}"), atoms=atoms)
    if name.endswith(BARS) and hasattr(type(calc), "get_uncertainty"):
        return partial(getattr(calc, "get_uncertainty"), name.removesuffix(BARS), atoms=atoms)  # noqa: B009
    if hasattr(atoms, f"get_{name}"):
        return getattr(atoms, f"get_{name}")
    methods = sorted(found[4:] for found in {*dir(calc)} - {*dir(Calculator())} if found.startswith("get_"))
    raise ValueError(
        f"got quantity {name!r}, which neither {type(calc).__name__} nor Atoms has; choose among "
        f"{', '.join(dict.fromkeys([*calc.implemented_properties, *methods]))}"
    )


def row_of(calc: Calculator, atoms: Atoms, quantities: Sequence[str | Callable]) -> dict[str, Any]:
    row = {"n_atoms": len(atoms), "fingerprint": fingerprint(atoms)}
    for name, quantity in zip(column_names(quantities), quantities):
        value = getter(calc, atoms, quantity)()
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"got quantity {name!r}, which is a {type(value).__name__}, need numbers; ask for a "
                "quantity that is an array, such as 'ados' for 'dos'"
            )
        row[name] = array
    return row


def fingerprint(atoms: Atoms) -> np.uint64:
    """Hash, 64-bit int, of the parts of a structure on which results depend."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "big"))


__getattr__ = former_names(
    __name__, ElectronicRecorder="analysis.recorder:ElectronicRecorder", heat="analysis.recorder:heat"
)
