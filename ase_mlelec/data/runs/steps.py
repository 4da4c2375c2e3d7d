"""Runs of pw.x as data sets of energies, forces and stress, with all steps where a text has them."""

import warnings
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec.data.data_set import Frames
from ase_mlelec.data.images import from_images, read_images
from ase_mlelec.data.runs.find import PROJECTIONS, XML, program_of
from ase_mlelec.io.espresso.common import EspressoError, find_file
from ase_mlelec.io.espresso.pw import WHAT_TO_GIVE, read_pw
from ase_mlelec.io.espresso.pw_text import MARK
from ase_mlelec.io.text import read_text

SAME_ENERGY, SAME_PLACE = 1e-3, 1e-3  # eV, Å
NEAR = ("*.save", "*/*.save")  # folders near a text output


def is_run(path: str | PathLike) -> bool:
    """Whether a path is a text or XML file of pw.x, or the folder of a pw.x run."""
    path = Path(path)
    if path.is_dir():
        return not (path / "type.raw").exists() and any(
            any(path.glob(pattern)) for pattern in (f"{XML}*", f"*.save/{XML}*", "data-file.xml")
        )
    return program_of(path) == "PWSCF"


def read_run(path: str | PathLike) -> Frames:
    """Read Frames from a pw.x run, with energy, forces and virial as far as they were calculated.

    The text output of a relaxation or of molecular dynamics gives all steps, provided that ASE and read_pw agree on the
    last step. Otherwise, from XML, and with hybrid functionals, the result is the last step alone, with a warning.

    Raises
    ------
    EspressoError
        For errors of read_pw.
    """
    file = find_file(path, XML, WHAT_TO_GIVE)
    last = read_pw(file).to_atoms()
    text = read_text(file, WHAT_TO_GIVE, EspressoError)
    images, note = [last], None
    if text.lstrip("\ufeff \n\t").startswith("<"):
        n_steps = text.count("<step ")
    else:
        marks = [mark.group(1) for mark in MARK.finditer(text)]
        n_steps = marks.count("!!") or len(marks)
        if n_steps > 1 and "!!" not in marks:
            images = _steps(file, last) or images
    if n_steps > 1 and len(images) == 1:
        note = f"the last of {n_steps} steps alone is read"
    near = [] if file.name.startswith(XML) else [p for form in NEAR for p in file.parent.glob(f"{form}/{PROJECTIONS}")]
    if near:
        more = f"bands projected on atoms lie in {near[0].parent}: give this folder to have spectra too"
        note = f"{note}, and {more}" if note else more
    if note:
        warnings.warn(f"{file}: {note}", stacklevel=4)
    return from_images(images, name=file.parent.stem if file.name.startswith(XML) else file.stem)


def _steps(path, last):
    """Atoms of all steps as ASE reads them, with ``last`` as the last step; None where ASE's last step differs."""
    try:
        images = [atoms for atoms in read_images(path) if "energy" in getattr(atoms.calc, "results", {})]
    except ValueError:
        return None
    if not images or len(images[-1]) != len(last):
        return None
    energy, other = (atoms.calc.results["energy"] for atoms in (images[-1], last))
    moved = np.abs(images[-1].positions - last.positions).max() + np.abs(images[-1].cell - last.cell).max()
    return [*images[:-1], last] if abs(energy - other) < SAME_ENERGY and moved < SAME_PLACE else None
