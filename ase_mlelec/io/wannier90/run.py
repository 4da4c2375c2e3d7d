"""Hamiltonian of a Wannier90 run with data from the other files of the run: cell, centers, spin."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec.deprecated import renamed_attribute
from ase_mlelec.io.wannier90.centers import cell_of_wout, positions_in
from ase_mlelec.io.wannier90.files import Wannier90Error, beside, read_text, seed_of
from ase_mlelec.io.wannier90.hamiltonians import RealSpace, cell_of_tb, real_space
from ase_mlelec.io.wannier90.win import cell_of, is_spinor, read_blocks

NOT_CONVERGED = "Maximum number of disentanglement iterations reached"  # Wannier90 goes on
SAME_CELL = 1e-3  # Å; ``.wout`` has six digits, input files may have fewer


@dataclass(frozen=True)
class Run:
    """A Hamiltonian and what lies beside it.

    Attributes
    ----------
    hamiltonian : RealSpace
    cell : array [3, 3], Å
        Rows.
    centers : array [W, 3], Å, or None where no file has them
    spin_degeneracy
        1 or 2, or None where no file tells it.
    has_input
        Whether there is a readable ``seed.win``; where it says nothing of spinors, there are none.
    notes : list of str
        Warnings: files that were ignored, and data that are missing.
    """

    hamiltonian: RealSpace
    cell: np.ndarray
    centers: np.ndarray | None
    spin_degeneracy: int | None
    has_input: bool
    notes: list
    centres = renamed_attribute("centres", "centers")


def read_run(path: str | PathLike) -> Run:
    """Read ``seed_hr.dat`` or ``seed_tb.dat``, and take missing data from related files in the same folder.

    The cell for ``_hr.dat`` comes from ``seed.win``, else from ``seed.wout``, else from ``seed_tb.dat``; the centers come
    from ``seed.wout``, else from ``seed_centres.xyz``. ``_tb.dat`` has both. Whether functions are spinors is told
    by ``seed.win`` alone. A file beside the Hamiltonian that is damaged or of another run is passed over and noted.

    Returns
    -------
    Run

    Raises
    ------
    Wannier90Error
        For a Hamiltonian that cannot be read (see read_hr), and where no file has a cell.
    """
    path = Path(path)
    if not path.name.removesuffix(".gz").endswith(("_hr.dat", "_tb.dat")):
        what, remedy = ("a folder", "give the file in it") if path.is_dir() else ("another name", "rename the file")
        raise Wannier90Error(f"{path}: got {what}, need seed_hr.dat or seed_tb.dat; {remedy}")
    found, note = real_space(path)
    notes = [note] if note else []
    size = found.matrices[0].shape[0]
    keywords, blocks, has_input = _input(path, size, notes)
    if found.cell is None:
        texts = _texts(path, notes)
        cell = _cell(path, blocks, texts, notes)
        centers = _centers(path, size, found.folded, texts, notes)
    else:
        cell, centers = found.cell, _diagonal(path, found)
        _others(path, cell, {beside(path, ".win"): _attempt(cell_of, path, blocks)}, notes)
    if keywords.get("dis_num_iter", "").split()[:1] != ["0"]:  # which leaves it out
        _check_disentanglement(beside(path, ".wout"), notes)
    spin = None
    if (spinors := _attempt(is_spinor, beside(path, ".win"), keywords, notes=notes)) is not None:
        spin = 1 if spinors else 2
    return Run(found, cell, centers, spin or found.spin_degeneracy, has_input, notes)


def _attempt(function, *arguments, notes=None):
    """Call a function; returns None and notes the error where it raises Wannier90Error."""
    try:
        return function(*arguments)
    except Wannier90Error as error:
        if notes is not None:
            notes.append(f"passed over: {error}")
        return None


def _input(path, size, notes):
    """(keywords, blocks, whether it was readable) of ``seed.win``."""
    win = beside(path, ".win")
    found = win and _attempt(read_blocks, win, notes=notes)
    if not found:
        return {}, {}, False
    number = found[0].get("num_wann", str(size)).split()
    if number[:1] != [str(size)]:
        notes.append(
            f"{win}: num_wann is {' '.join(number) or 'empty'}, but {path.name} has {size} functions: it may "
            "be of another run"
        )
    return *found, True


def _texts(path, notes):
    """Texts by path of the files that may hold centers, best first.

    ``.wout`` comes first: Wannier90 may write other images to ``_centres.xyz`` (translate_home_cell) than those that
    H(R) means.
    """
    names = [name for ending in (".wout", "_centres.xyz") if (name := beside(path, ending))]
    texts = {name: _attempt(read_text, name, notes=notes) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def _cell(path, blocks, texts, notes):
    """Cell from the first of the files that has one."""
    cells, problems = {}, []
    if "unit_cell_cart" in blocks:  # where Wannier90 runs as a library, its input has no cell
        cells[beside(path, ".win")] = _attempt(cell_of, beside(path, ".win"), blocks, notes=problems)
    wout = beside(path, ".wout")
    if wout in texts:
        cells[wout] = _attempt(cell_of_wout, wout, texts[wout], notes=problems)
    cells = {name: cell for name, cell in cells.items() if cell is not None}
    if not cells and (tb := beside(path, "_tb.dat")):
        cells = {tb: _attempt(cell_of_tb, tb, notes=problems)}
    notes += problems
    cell = next(iter(cells.values()), None)
    if cell is None:
        seed, why = seed_of(path), "".join(f" ({note})" for note in notes if note.startswith("passed over"))
        raise Wannier90Error(
            f"{path}: no cell, need {seed}.win or .wout beside it; copy one of them, or {seed}_tb.dat{why}"
        )
    _others(next(iter(cells)), cell, cells, notes)
    return cell


def _check_disentanglement(wout, notes):
    """Note a run whose space of bands was not found when its iterations ended, so that bands depend on their number."""
    if wout is not None and NOT_CONVERGED in (_attempt(read_text, wout) or ""):
        notes.append(f"{wout}: the disentanglement did not converge, so that bands are off; raise dis_num_iter")


def _others(path, cell, cells, notes):
    """Note files with a cell that differs from the chosen cell."""
    for name, other in cells.items():
        if other is not None and abs(other - cell).max() > SAME_CELL:
            notes.append(f"{name}: its cell is not that of {path}, which is used; one of them is of another run")


def _centers(path, size, folded, texts, notes):
    """Centers [W, 3] from the first of the files that has them, or None."""
    for name, text in texts.items():
        if name == beside(path, ".wout") and "Final State" not in text:
            continue  # of a restarted or a preparing run
        centers = _attempt(positions_in, name, text, notes=notes)
        if centers is not None and len(centers) == size:
            return centers
        if centers is not None:
            notes.append(
                f"passed over: {name}: got {len(centers)} centers, but {path.name} has {size} functions; it "
                "is of another run"
            )
    if not folded:
        notes.append(
            f"no centers of the functions in {seed_of(path)}.wout or {seed_of(path)}_centres.xyz: they are "
            "set to zero, on which energies do not depend"
        )
    return None


def _diagonal(path, found):
    """Centers ``<n 0|r|n 0>``, Å."""
    home = np.flatnonzero(~found.r_vectors.any(1))
    if not len(home):
        raise Wannier90Error(f"{path}: got no elements within the home cell, R = 0; write the file again")
    return np.einsum("nna->na", found.positions[home[0]]).real
