"""Text outputs of CP2K, as its versions print them: what was written, in eV and Å."""

import gzip

import numpy as np
import pytest

from ase_mlelec.data.frames import read_all, read_frames
from ase_mlelec.io.cp2k_output import is_output

HARTREE, BOHR = 27.211386245988, 0.529177210903
RNG = np.random.default_rng(3)
PLACES, FORCES = RNG.uniform(0, 4, (3, 3)).round(6), RNG.normal(0, 0.02, (3, 3)).round(8)
HALF = RNG.normal(0, 2, (3, 3))
PRESSURE = (HALF + HALF.T).round(8)  # GPa
VERSIONS = ("6.1", "2023.1", "2025.2")


def output(version="2025.2", *, energy=-17.25, forces=FORCES, periodic="XYZ", more=""):
    recent = version == "2025.2"
    unit = {"6.1": "(a.u.):", "2023.1": "[a.u.]:", "2025.2": "[hartree]"}[version]
    text = (
        " DBCSR| CPU Multiplication driver                                           BLAS\n"
        f" CP2K| version string:                                          CP2K version {version}\n"
        " CELL_TOP| Vector a [angstrom]:      99.000     0.000     0.000    |a| =    99.000000\n"
        " CELL| Volume [angstrom^3]:                                            990.000000\n"
        " CELL| Vector a [angstrom]:       9.000     0.000     0.000    |a| =     9.000000\n"
        " CELL| Vector b [angstrom]:       0.000    10.000     0.000    |b| =    10.000000\n"
        " CELL| Vector c [angstrom]:       0.500     0.000    11.000    |c| =    11.011358\n"
        f" POISSON| Periodicity                                                      {periodic:>5}\n"
        f"{more}\n MODULE QUICKSTEP: ATOMIC COORDINATES IN {'ANGSTROM' if recent else 'angstrom'}\n\n"
        f"   Atom Kind{'  ' * (not recent)} Element         X             Y             Z       Z(eff)     Mass\n"
        + "\n"
        * (not recent)
    )
    for k, (symbol, number, place) in enumerate(zip(("O", "H", "H"), (8, 1, 1), PLACES), 1):
        text += (
            f"{k:7d}{min(k, 2):5d} {symbol:2}{number:5d}"
            + "".join(f"{x:14.6f}" for x in place)
            + "   6.0000  15.9994\n"
        )
    text += "\n *** SCF run converged in    14 steps ***\n\n"
    text += f" ENERGY| Total FORCE_EVAL ( QS ) energy {unit} {energy:26.15f}\n\n"
    if forces is not None and recent:
        text += (
            " FORCES| Atomic forces [hartree/bohr]\n FORCES|   Atom     x               y               z      |f|\n"
        )
        for k, row in enumerate(forces, 1):
            text += f" FORCES|{k:7d}" + "".join(f"{x:16.8E}" for x in row) + f"{np.linalg.norm(row):16.8E}\n"
        text += " FORCES| Sum      1.0E-08 0.0E+00 0.0E+00 1.0E-08\n"
    elif forces is not None:
        text += " ATOMIC FORCES in [a.u.]\n\n # Atom   Kind   Element          X              Y              Z\n"
        for k, (symbol, row) in enumerate(zip("OHH", forces), 1):
            text += f"{k:7d}{min(k, 2):7d}      {symbol}      " + "".join(f"{x:15.8f}" for x in row) + "\n"
        text += " SUM OF ATOMIC FORCES           0.00000000     0.00000000     0.00000000     0.00000000\n"
    rows = [" ".join(f"{x:20.11E}" for x in row) for row in PRESSURE * (1e4 if recent else 1)]
    if version == "6.1":
        text += "\n STRESS TENSOR [GPa]\n\n            X               Y               Z\n"
        text += "".join(f"  {axis} {row}\n" for axis, row in zip("XYZ", rows))
    else:
        text += f"\n STRESS| Analytical stress tensor [{'bar' if recent else 'GPa'}]\n"
        text += " STRESS|                        x                   y                   z\n"
        text += "".join(f" STRESS|      {axis} {row}\n" for axis, row in zip("xyz", rows))
    return text + "\n  **** **** ******  **  PROGRAM ENDED AT               2024-01-10 12:00:10.000\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_written(version, tmp_path):
    (tmp_path / "cp2k.out").write_text(output(version))
    (frame,) = read_frames(tmp_path / "cp2k.out")
    assert str(frame.atoms.symbols) == "OH2" and np.array_equal(frame.atoms.positions, PLACES) and frame.atoms.pbc.all()
    assert np.allclose(frame.atoms.cell, [[9, 0, 0], [0, 10, 0], [0.5, 0, 11]], atol=1e-6)
    assert frame.labels["energy"] == pytest.approx(-17.25 * HARTREE, abs=1e-8)
    np.testing.assert_allclose(frame.labels["forces"], FORCES * HARTREE / BOHR, atol=1e-8)
    virial = PRESSURE * 1e9 / 1.602176634e-19 * 990e-30  # positive under pressure
    np.testing.assert_allclose(frame.labels["virial"], virial, rtol=1e-7)


def test_forms(tmp_path):
    """Compressed, of Windows, molecules, and several outputs of which some have energies alone."""
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(output().replace("\n", "\r\n").encode()))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "slurm-1").write_text(output("2023.1", periodic="NONE", forces=None))
    frames = read_all([tmp_path / "a.log.gz", tmp_path / "b" / "slurm-1"])
    assert frames.counts == {"energy": 2, "forces": 1, "virial": 2} and not frames[1].atoms.pbc.any()
    (tmp_path / "c.txt").write_text("CP2K| is a program\n")
    text = output().replace(
        "11.000    |c| =    11.011358", "11.000    |c| =    11.011800"
    )  # of three and of six digits
    (tmp_path / "d.out").write_text(text)
    assert read_frames(tmp_path / "d.out")[0].atoms.cell.lengths()[2] == pytest.approx(11.0118, abs=1e-9)
    assert not is_output(tmp_path / "c.txt") and not is_output(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        (output() + output(), "2 energies of CP2K, .* give PROJECT-pos-1.xyz"),
        (output().replace("SCF run converged", "SCF run NOT converged"), "the electrons did not converge"),
        (output().split(" ENERGY|")[0], "no energy .* let the run end"),
        (output(more=" DFT| Charge                          -1"), "a charge of -1 e"),
        (output().replace("[hartree]", "[eV]"), "energy in eV, which is read in hartree alone"),
        (
            output().replace("[hartree/bohr]", "[eV/angstrom]"),
            "forces in eV/angstrom, which is read in hartree/bohr alone",
        ),
        (output().replace("[bar]", "[furlong]"), "a stress in furlong"),
        (output(forces=FORCES[:2]), "forces of 2 atoms, need those of 3"),
        (
            output().replace("ATOMIC COORDINATES", "COORDINATES"),
            "0 tables of atomic coordinates, need one; .* give PROJECT-pos-1.xyz",
        ),
        (output().replace(" CELL| Vector b", " CELL| b"), "no atoms, or no cell"),
        (output().replace("-17.25", "NaN"), "the energy holds .*NaN"),
    ],
)
def test_refused(text, message, tmp_path):
    (tmp_path / "a.out").write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}/a.out: {message}"):
        read_frames(tmp_path / "a.out")
