"""Text outputs of other programs that ASE reads: electrons that did not converge, and charges, which ASE does not tell."""

import re
import warnings

import pytest

from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.other_outputs import CHARGE, FAILED, check_output
from ase_mlelec.units import HARTREE

ORCA = """                                 * O   R   C   A *
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  H      0.000000    0.000000    0.000000
  H      0.000000    0.000000    0.760000

Number of atoms                             ...      2
 Total Charge           Charge          ....    {charge}
{scf}
-------------------------   --------------------
FINAL SINGLE POINT ENERGY        -1.150000000000{mark}
-------------------------   --------------------
                            *** FINAL ENERGY EVALUATION ***
                             ****ORCA TERMINATED NORMALLY****
"""
GAUSSIAN = """ Entering Gaussian System, Link 0=g16
 Charge = {charge:2d} Multiplicity = 1
                         Standard orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1          1           0        0.000000    0.000000    0.000000
      2          1           0        0.000000    0.000000    0.760000
 ---------------------------------------------------------------------
{scf}
 SCF Done:  E(RB3LYP) =  -1.15000000000     A.U. after    8 cycles
 {mark}
"""
CONVERGED = {"orca": "SCF CONVERGED AFTER   8 CYCLES", "gaussian": ""}
TEXTS = {"orca": ORCA, "gaussian": GAUSSIAN}
LINES = {  # of a charge of 1 e, in each kind of file
    "aims-output": "  Charge =   1.000000E+00: Charge requested explicitly.",
    "castep-castep": " net charge of system                           :  1.000    ",
    "gamess-us-out": " CHARGE OF MOLECULE                          =    1",
    "gaussian-out": " Charge =  1 Multiplicity = 2",
    "gpaw-out": "Total Charge: 1.000000",
    "nwchem-out": "          Charge           :     1",
    "orca-output": " Total Charge           Charge          ....    1",
}


def write(folder, program, charge=0, scf=None, mark=""):
    path = folder / f"{program}.log"
    scf = CONVERGED[program] if scf is None else scf
    path.write_text(TEXTS[program].format(charge=charge, scf=scf, mark=mark))
    return path


@pytest.mark.parametrize("program", TEXTS)
def test_neutral_and_converged(program, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (frame,) = read_frames(write(tmp_path, program))
    assert frame.labels["energy"] == pytest.approx(-1.15 * HARTREE, rel=1e-6)


@pytest.mark.parametrize("program", TEXTS)
@pytest.mark.parametrize("charge", [-1, 2])
def test_charges_are_told(program, charge, tmp_path):
    path = write(tmp_path, program, charge)
    with pytest.warns(UserWarning, match=f"{path.name}: the structure has a charge of {charge} e, on which its energy"):
        assert len(read_frames(path)) == 1


@pytest.mark.parametrize(
    "program, words",
    [
        ("orca", {"scf": "SCF NOT CONVERGED AFTER 125 CYCLES"}),
        ("orca", {"mark": " (Wavefunction not fully converged!)"}),
        ("gaussian", {"mark": "Convergence failure -- run terminated."}),
    ],
)
def test_electrons_that_did_not_converge(program, words, tmp_path):
    path = write(tmp_path, program, **words)
    with pytest.raises(
        ValueError, match=rf"{path.name}: .*(the electrons did not converge|energy: .* NaN).*calculate it"
    ):
        read_frames(path)


@pytest.mark.parametrize("kind", CHARGE)
def test_charges_of_all_kinds(kind, tmp_path, recwarn):
    path = tmp_path / "a.out"
    path.write_text(f"first line\n{LINES[kind]}\nlast line\n")
    check_output(path, kind)
    (warning,) = recwarn
    assert "a.out: the structure has a charge of 1 e, on which" in str(warning.message)
    path.write_text(re.sub(r"\b1(?=\.0|\b)(?!\d)", "0", LINES[kind], count=1))
    check_output(path, kind)
    assert len(recwarn) == 1 and FAILED.keys() <= CHARGE.keys()
