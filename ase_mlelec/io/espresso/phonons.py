"""ph.x: the response to an electric field."""

import re
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec.io.espresso.common import EspressoError, damaged, floats
from ase_mlelec.io.text import read_text


def read_ph(path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Born effective charges and dielectric tensor of the electrons from the text output of ph.x (epsil, zeu).

    Returns
    -------
    born_charges : array [N, 3, 3], e
        Dipole by displacement: Z[i, a, b] = dM_a/dR_ib, as calculated, without acoustic sum rule.
    dielectric : array [3, 3]

    Raises
    ------
    EspressoError
        When the run is unfinished, damaged or had no electric field.

    References
    ----------
    Quantum ESPRESSO 6.7 output; order of the axes checked by turning a water molecule with its dipole.
    """
    if not Path(path).exists():
        raise EspressoError(f"{path}: No such file; give ph.x's standard output")
    text = read_text(path, "give ph.x's standard output", EspressoError)
    runs = len(re.findall("Program PHONON", text))
    if runs == 0 or "JOB DONE." not in text:
        raise EspressoError(f"{path}: unfinished or not an output of ph.x; run it to the end")
    if runs > 1:
        raise EspressoError(
            f"{path}: got the outputs of {runs} runs in one file, need one; cut the file at its "
            "lines 'Program PHONON' and give the part that you want"
        )
    if "No convergence has been achieved" in text:
        raise EspressoError(f"{path}: the response did not converge; raise niter_ph or lower alpha_mix(1)")
    tensor = re.search(r"Dielectric constant in cartesian axis[^\n]*\n\s*\n((?:[^\n]*\n){3})", text)
    charges = _charges(path, text)
    if tensor is None or not charges:
        raise EspressoError(
            f"{path}: no dielectric tensor or no charges (d Force / dE); set epsil and zeu in "
            "&inputph at q = 0 of an insulator"
        )
    n_atoms = re.search(r"number of atoms/cell\s+=\s*(\d+)", text)
    if n_atoms and int(n_atoms.group(1)[:18]) != len(charges):
        raise damaged(path, f"got charges of {len(charges)} atoms, 'number of atoms/cell' says {n_atoms.group(1)[:18]}")
    dielectric = [_row(path, "the dielectric tensor", row) for row in tensor.group(1).splitlines()]
    return np.array(charges), np.array(dielectric)


def _charges(path, text):
    """List of the [3, 3] charges of the first table, which is as calculated.

    Newer versions print the charges twice, first as calculated and then with the acoustic sum rule.
    """
    heading = re.search(r"Effective charges \(d Force / dE\) in cartesian axis(?! with asr)[^\n]*\n", text)
    if heading is None:
        return []
    charges = []
    lines = iter(text[heading.end() :].splitlines())
    for line in lines:
        atom = re.match(r"\s*atom\s+(\S+)", line)
        if line.strip() and not atom:
            break
        if atom is None:
            continue
        if atom.group(1) != str(len(charges) + 1) and "*" not in atom.group(1):
            raise damaged(path, f"got charges of atom {atom.group(1)[:18]}, need {len(charges) + 1}")
        rows = []
        for axis in "xyz":
            row = next(lines, "").strip()
            if not row.startswith(f"E{axis}"):
                raise damaged(path, f"no row E{axis} in the charges of atom {len(charges) + 1}")
            rows.append(_row(path, f"the charges of atom {len(charges) + 1}", row[2:]))
        charges.append(rows)
    return charges


def _row(path, what, row):
    """Three numbers in brackets."""
    row = row.strip()
    if not (row.startswith("(") and row.endswith(")")):
        raise damaged(path, f"{what} has a row {row[:40]!r}, need three numbers in brackets")
    return floats(path, what, row[1:-1], 3)
