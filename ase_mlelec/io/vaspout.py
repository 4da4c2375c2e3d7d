"""VASP's vaspout.h5: steps with energies, forces and stress.

References: VASP's wiki, "HDF5 support"; the names of py4vasp. Positions are fractions of the lattice vectors, which
"scale" multiplies; the stress is in kbar with the opposite of ASE's sign. Numbers of a step are written as they come: of a
run that did not finish, some arrays have a step more than others.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import h5py
import numpy as np

from ase_mlelec.io.hdf5 import check_heaps, holds, one_line, read_array
from ase_mlelec.io.outcar import Outcar
from ase_mlelec.io.text import element_of, float_or
from ase_mlelec.io.vasp import AGAIN, KBAR, VaspError, VaspStep
from ase_mlelec.io.vasp_settings import NAMES

STEPS = "intermediate/ion_dynamics"
KINDS = ("results/positions", "input/poscar")  # groups that have the kinds of atoms, the first that is there is read
ENERGIES = ("free energy TOTEN", "ion-electron TOTEN")  # of relaxations and of molecular dynamics
OTHER = "give vasprun.xml or OUTCAR of the run"


def is_vaspout(path: str | PathLike) -> bool:
    """Whether a file is a vaspout.h5, of any name, from its groups."""
    return holds(path, lambda file: "version/major" in file and ("input" in file or "results" in file))


def read_vaspout(path: str | PathLike) -> Outcar:
    """Read vaspout.h5; a step that was not finished is left out.

    Raises
    ------
    VaspError
        For a missing or damaged file, for one without a step, and for runs with PSTRESS or ML_LMLFF, of which the file does
        not tell what is in the energies.
    """
    with _opened(path) as file:
        if STEPS not in file:
            raise VaspError(f"{path}: no {STEPS} in it, which has the energies; {OTHER}")
        _check_settings(path, file)
        settings = {name: text for name in NAMES if (text := _setting(file, name))}
        group, (symbols, counts) = file[STEPS], _kinds(path, file)
        charge = _charge(file, counts)
        column = _column(path, group)
        energies = read_array(group, "energies", (None, None))[:, column]
        shapes = {"lattice_vectors": (None, 3, 3), "position_ions": (None, len(symbols), 3)}
        shapes |= {
            name: shape
            for name, shape in (("forces", (None, len(symbols), 3)), ("stress", (None, 3, 3)))
            if name in group
        }
        arrays = {name: read_array(group, name, shape) for name, shape in shapes.items()}
        cells, failed = arrays["lattice_vectors"] * _scale(path, file), _failed(group)
    n_steps = _n_steps(path, {"energies": len(energies), **{name: len(each) for name, each in arrays.items()}})
    steps = [
        VaspStep(
            cells[k],
            arrays["position_ions"][k] @ cells[k],
            float(energies[k]),
            arrays["forces"][k] if "forces" in arrays else None,
            -KBAR * arrays["stress"][k] if "stress" in arrays else None,
            k not in failed,
        )
        for k in range(n_steps)
    ]
    more = max(len(energies), *map(len, arrays.values())) > n_steps
    return Outcar(symbols, steps, {"did not finish": 1} if more else {}, charge, settings)


@contextmanager
def _opened(path: str | PathLike) -> Iterator[h5py.File]:
    """The file; whatever HDF5 finds wrong with it becomes a VaspError."""
    try:
        if not Path(path).is_file():
            raise LookupError("there is no such file")
        check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file
    except VaspError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything within HDF5, h5py and NumPy
        text = one_line(error)
        raise VaspError(text if text.startswith(f"{path}") else f"{path}: cannot be read ({text}); {AGAIN}") from None


def _n_steps(path, counts):
    """Number of steps that are complete; all arrays have as many, but for one that was being written."""
    fewest = min(counts.values())
    if max(counts.values()) > fewest + 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise VaspError(f"{path}: its steps do not belong together ({listed}), as with NBLOCK beyond 1; {OTHER}")
    if not fewest:
        raise VaspError(f"{path}: no step with atoms, energy and forces in it; {AGAIN}")
    return fewest


def _column(path, group):
    """Column of the free energy, whose gradient the forces are."""
    tags = [" ".join(str(tag).split()) for tag in read_array(group, "energies_tags", (None,), str)]
    found = [k for k, tag in enumerate(tags) if tag in ENERGIES]
    if len(found) != 1:
        raise VaspError(f"{path}: energies_tags are {', '.join(tags)}, need one of {', '.join(ENERGIES)}; {OTHER}")
    return found[0]


def _kinds(path, file):
    """(symbols of all atoms, numbers of atoms of each kind)"""
    kinds = next((name for name in KINDS if f"{name}/ion_types" in file), KINDS[0])
    names = read_array(file[kinds], "ion_types", (None,), str)
    counts = read_array(file[kinds], "number_ion_types", (len(names),), int)
    if len(names) == 0 or counts.min() < 1 or counts.sum() > Path(path).stat().st_size:
        raise VaspError(f"{path}: {kinds}/number_ion_types cannot be; {AGAIN}")
    try:  # a hash of the potential may follow the name
        return [element_of(name.split("/")[0].strip()) for name, n in zip(names, counts) for _ in range(n)], counts
    except ValueError as error:
        raise VaspError(f"{path}: {kinds}/ion_types: {error}; {AGAIN}") from None


def _scale(path, file):
    """Factor of the lattice vectors."""
    scale = float_or(_scalar(file, "results/positions/scale"), 1.0)
    if not 0 < scale < 1e6:
        raise VaspError(f"{path}: results/positions/scale is {scale:g}, need a positive number; {AGAIN}")
    return scale


def _failed(group):
    """Numbers of the steps whose electrons did not converge, set of int; the file has 0 where they did."""
    name = "electronic_step_converged"
    return {*np.flatnonzero(read_array(group, name, (None, 1))).tolist()} if name in group else set()


def _check_settings(path, file):
    """Refuse runs in whose energies there may be something else, by the settings in the file."""
    pressure, learned = (_setting(file, name) for name in ("PSTRESS", "ML_LMLFF"))
    if float_or(pressure, 0.0):
        raise VaspError(
            f"{path}: PSTRESS = {pressure}, and the file does not tell whether PSTRESS times the volume is in its energies; "
            f"{OTHER}"
        )
    if learned.upper().startswith(("T", "1")):
        raise VaspError(
            f"{path}: of a run with ML_LMLFF, whose steps of a machine-learned potential are not told apart; give ML_ABN or "
            "OUTCAR of the run"
        )


def _charge(file, counts):
    """Charge of the cell, e, where INCAR sets the number of electrons and the potentials are in the file; 0 elsewhere."""
    electrons = float_or(_setting(file, "NELECT"), 0.0)
    text = _scalar(file, "input/potcar/content")
    valence = [float(word) for word in re.findall(r"ZVAL +=\s*(\d+\.\d+)", text)]
    if not electrons or len(valence) != len(counts):
        return 0.0
    return round(float(np.dot(valence, counts)) - electrons, 4)


def _setting(file, name):
    """Text of a setting of INCAR, from its own entry or the text of INCAR; "" where it is not set."""
    own, incar = (_scalar(file, place) for place in (f"input/incar/{name}", "original/incar/content"))
    found = re.search(rf"(?:^|[;\n])\s*{name}\s*=\s*([^;\n#!]*)", incar, re.IGNORECASE)
    return (own or (found[1] if found else "")).strip(" .\t")


def _scalar(file, place):
    """Text of a single number or text; "" where there is none."""
    item = file.get(place)
    value = np.ravel(item[()])[0] if isinstance(item, h5py.Dataset) and item.shape in ((), (1,)) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
