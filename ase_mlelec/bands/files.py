"""Files of a WannierHamiltonian: choice of Wannier90's formats, and spin degeneracy of files that lack it."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.bands.interior import DENSE_SIZE
from ase_mlelec.io import wannier90
from ase_mlelec.physics import bands
from ase_mlelec.physics.bloch import BlochSum
from ase_mlelec.physics.kmesh import monkhorst_pack

_PAIR = 5e-3  # eV; functions are spinors if eigenvalues are in pairs this close at every point with -k = k


def write_hamiltonian(
    path: str | os.PathLike, *, cell: NDArray, bloch: BlochSum, positions: NDArray | None, spin_degeneracy: int
) -> None:
    """Write ``seed_hr.dat`` or ``seed_tb.dat``; see WannierHamiltonian.write."""
    name = Path(path).name
    if name.endswith("_hr.dat"):
        wannier90.write_hr(path, bloch.r_vectors, bloch.toarray(), spin_degeneracy=spin_degeneracy)
    elif not name.endswith("_tb.dat"):
        raise ValueError(f"{path}: got another name, need seed_hr.dat or seed_tb.dat; rename the file")
    elif positions is None:
        raise ValueError(f"{path}: got no <0|r|R>, which _tb.dat holds; write seed_hr.dat")
    else:
        wannier90.write_tb(path, cell, bloch.r_vectors, bloch.toarray(), positions, spin_degeneracy=spin_degeneracy)


def guessed_spin(path: str | os.PathLike, *, bloch: BlochSum, pbc: NDArray, has_input: bool) -> tuple[int, str | None]:
    """Guess the spin degeneracy where no file has it; returns it with the text of a warning, or None.

    With time reversal, eigenvalues of spinors are pairwise degenerate wherever -k equals k (Kramers); other eigenvalues
    are so by chance only.
    """
    seed = str(path).removesuffix(".gz")[: -len("_hr.dat")]
    pairs = False
    if bloch.size <= DENSE_SIZE and bloch.size % 2 == 0:
        energies = bands.eigenvalues(bloch, monkhorst_pack(np.where(pbc, 2, 1)))
        pairs = (energies[:, 1::2] - energies[:, ::2] < _PAIR).all()
    if has_input:  # without such a line Wannier90 assumes functions without spin
        return 2, (
            f"{seed}.win does not say spinors, but all levels come in pairs, as those of spinors do: taken as 2 "
            "electrons per level; set spin_degeneracy = 1 if they are spinors"
        ) if pairs else None
    if pairs:
        return 1, (
            f"no {seed}.win beside it: spin degeneracy 1 is guessed from levels that all come in pairs, as those of "
            "spinors do; set spin_degeneracy"
        )
    return 2, (
        f"no {seed}.win beside it: spin degeneracy 2 is guessed, as levels do not come in pairs; set "
        "spin_degeneracy = 1 for spinors or one spin"
    )
