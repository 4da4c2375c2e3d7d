"""What the readers of Quantum ESPRESSO hold against what the files say themselves, and files that were damaged."""

import gzip
import random
import re
import warnings

import ase.units
import numpy as np
import pytest
from small_espresso import stored

from ase_mlelec.io.espresso import EspressoError, read_ph, read_projections, read_pw

STORED = stored()
RYDBERG = ase.units.create_units("2018")["Rydberg"]
TEXT, XML = STORED["fermi_dirac"]
FORCE = "     atom    2 type  1   force =    -0.03045201    0.00000000    0.00000000\n"
SITE = "         2           Si  tau(   2) = (   0.2700000   0.2500000   0.2500000  )\n"


def refused(path, content, message, read=read_pw):
    (path.write_bytes if isinstance(content, bytes) else path.write_text)(content)
    with pytest.raises(EspressoError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def edited(text, old, new):
    assert old in text
    return text.replace(old, new)


# text of pw.x --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, message",
    [
        (SITE, "", r"line \d+: got 1 atoms, 'number of atoms/cell' says 2"),
        (SITE, SITE + SITE, "got 3 atoms, 'number of atoms/cell' says 2"),
        (SITE, SITE.replace("tau(   2)", "tau(   3)"), "got atom 3, need 2"),
        (SITE, SITE.replace("0.2700000", "*********"), r"line \d+: tau\(2\) holds '\*+': Fortran prints stars"),
        (SITE, SITE.replace("0.2700000", "NaN"), r"line \d+: tau\(2\) holds 'NaN', NaN or infinity; the"),
        (SITE, SITE.replace("   0.2700000", ""), r"tau\(2\) holds 2 numbers, need 3"),
        (SITE, SITE.replace("0.2700000", "1.0E+200"), "a number as large as 1e.200"),
        (FORCE, "", r"line \d+: got 1 rows of forces for 2 atoms"),
        (FORCE, FORCE.replace("-0.03045201", "***********"), r"the force on atom 2 holds '\*+': Fortran prints stars"),
        (FORCE, FORCE.replace("atom    2", "atom    4"), "got atom 4, need 2"),
        (FORCE, FORCE.replace("-0.03045201", "Infinity"), "the force on atom 2 holds 'Infinity', NaN or infinity"),
        ("     Forces acting on atoms (cartesian axes, Ry/au):\n", "", "rows of forces without their heading"),
        ("number of atoms/cell      =            2", "number of atoms/cell      = 99999999999", "got 2 atoms, .* 9999"),
        ("number of atoms/cell      =            2", "number of atoms/cell      = ****", r"is \*{4}, need one whole"),
        (
            "number of atomic types    =            1",
            "number of atomic types    =            0",
            "number of atomic types",
        ),
        (
            "number of electrons       =         8.00",
            "number of electrons       = ********",
            "number of electrons holds",
        ),
        ("-15.48400860 Ry", "NaN Ry", "the total energy holds 'NaN'"),
        ("-15.48400860 Ry", "****** Ry", "prints stars"),
        ("-15.48400860 Ry", "-7.74200430 Ha", "line .*: the total energy is in 'Ha', need Ry"),
        ("the Fermi energy is     6.8400 ev", "the Fermi energy is ********** ev", "the Fermi energy is holds"),
        (
            "          total   stress  (Ry/bohr**3)",
            "          stress  (Ry/bohr**3)",
            "'Computing stress' without a total",
        ),
        ("  -0.00012913   0.00000000   0.00000000", "", "the stress holds 3 numbers, need 6"),
        ("a(1) = (  -0.500000", "a(1) = (   0.000000   0.0", r"a\(1\) holds 4 numbers, need 3"),
        ("a(1) = (  -0.500000   0.000000   0.500000 )", "a(1) = (   0.000000   0.000000   0.000000 )", "no volume"),
        (
            "lattice parameter (alat)  =      10.2000",
            "lattice parameter (alat)  =       0.0000",
            "cell or positions not",
        ),
        ("     Si( 1.00)", "     C ( 1.00)", "species 'Si' has a pseudopotential of C; write C into the input"),
        ("   JOB DONE.", "   JOB DON", "the run is unfinished"),
    ],
)
def test_text_is_held_against_itself(tmp_path, old, new, message):
    refused(tmp_path / "pw.out", edited(TEXT, old, new), message)


def test_two_runs_in_one_file(tmp_path):
    refused(tmp_path / "pw.out", STORED["scf"][0] + TEXT, "got the outputs of 2 runs in one file, need one; cut")


def test_output_of_another_program_behind(tmp_path):
    (tmp_path / "pw.out").write_text(TEXT + "     Program PROJWFC v.6.7MaX starts on 28Nov2026\n   JOB DONE.\n")
    assert read_pw(tmp_path / "pw.out").n_electrons == 8
    refused(
        tmp_path / "pw.out",
        edited(TEXT, "JOB DONE.", "") + "     Program PROJWFC v.6.7MaX\n   JOB DONE.\n",
        "the run is unfinished",
    )


def test_the_last_energy_is_gone(tmp_path):
    """Of several steps: the forces of the last would go with the energy of the one before."""
    text = STORED["md"][0]
    last = [line for line in text.splitlines(keepends=True) if line.startswith("!")][-1]
    refused(tmp_path / "pw.out", text.replace(last, ""), "the last self-consistent calculation has no line '!")


@pytest.mark.parametrize(
    "name, heading",
    [("md", "ATOMIC_POSITIONS"), ("vc_relax_angstrom", "CELL_PARAMETERS"), ("vc_relax_angstrom", "ATOMIC_POSITIONS")],
)
def test_the_last_structure_is_gone(tmp_path, name, heading):
    """The step before would give its structure to the last energy."""
    text = STORED[name][0]
    place = text.rindex(heading, 0, text.rindex("\n!"))
    refused(
        tmp_path / "pw.out",
        text[:place] + text[place:].replace(heading, "PLACES", 1),
        "the structure of the last step is missing",
    )


def test_exact_exchange(tmp_path):
    """The energy is that marked '!!'; without it the exchange operator did not converge."""
    text = STORED["hybrid"][0]
    marks = [line for line in text.splitlines(keepends=True) if line.startswith("!")]
    assert len(marks) == 4 and marks[-1].startswith("!!")
    (tmp_path / "pw.out").write_text(text)
    assert read_pw(tmp_path / "pw.out").energy == pytest.approx(float(marks[-1].split()[4]) * RYDBERG, rel=1e-10)
    refused(
        tmp_path / "pw.out",
        text.replace(marks[-1], marks[-1].replace("!!", "  ")),
        "the exchange operator did not converge",
    )


def test_line_ends_and_bytes_of_windows(tmp_path):
    wanted = read_pw(write(tmp_path / "pw.out", TEXT))
    title = "     Title: Größe\n"
    found = read_pw(write(tmp_path / "w.out", (title + TEXT).encode("latin-1").replace(b"\n", b"\r\n")))
    assert found.energy == wanted.energy and np.array_equal(found.stress, wanted.stress)
    assert np.array_equal(found.forces, wanted.forces)


def write(path, content):
    (path.write_bytes if isinstance(content, bytes) else path.write_text)(content)
    return path


def test_numbers_that_touch(tmp_path):
    """Fortran leaves no blank where a number fills its field."""
    row = SITE.replace("   0.2700000   0.2500000   0.2500000", "-100.0000000-100.2500000-100.5000000")
    found = read_pw(write(tmp_path / "pw.out", edited(TEXT, SITE, row)))
    np.testing.assert_allclose(found.positions[1] / found.positions[1, 0], [1, 1.0025, 1.005], rtol=1e-12)


# XML of pw.x ---------------------------------------------------------------------------------------------------------


def between(text, tag, new, last=True):
    """``text`` with the content of its last (first) element of this tag replaced."""
    found = list(re.finditer(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL))[-1 if last else 0]
    return text[: found.start(1)] + new + text[found.end(1) :]


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda xml: edited(xml, 'creator NAME="PWSCF"', 'creator NAME="CP"'), "written by 'CP', need a file of pw.x"),
        (lambda xml: edited(xml, "Hartree atomic units", "Rydberg"), "the units are 'Rydberg', need Hartree atomic"),
        (lambda xml: between(xml, "calculation", "ensemble"), "the calculation is 'ensemble', need one of scf"),
        (lambda xml: between(xml, "calculation", "bands"), "an nscf or bands run"),
        (lambda xml: between(xml, "n_scf_steps", "0"), "nothing was calculated"),
        (lambda xml: between(xml, "etot", "0.0"), "the total energy is 0: nothing was calculated"),
        (lambda xml: edited(xml, "band_structure>", "bands>"), "nothing was calculated .*no band structure"),
        (lambda xml: edited(xml, "total_energy>", "energy>"), "nothing was calculated"),
        (lambda xml: edited(xml, "scf_conv>", "conv>"), "it does not say whether the SCF converged; give the text"),
        (lambda xml: between(xml, "convergence_achieved", "false"), "the SCF did not converge"),
        (lambda xml: between(xml, "scf_error", "1e-3"), "the SCF did not converge; .*its accuracy is 0.001 Ha"),
        (lambda xml: between(xml, "scf_error", "NaN"), "<scf_error> is NaN"),
        (lambda xml: between(xml, "status", "255"), "pw.x stopped early"),
        (lambda xml: between(xml, "etot", "NaN"), "<etot> is NaN or infinite"),
        (lambda xml: between(xml, "etot", "1e400"), "<etot> is NaN or infinite"),
        (lambda xml: between(xml, "etot", "1e300"), "<etot> holds a number as large as 1e.300"),
        (lambda xml: between(xml, "etot", "*****"), "<etot> holds .*stars"),
        (lambda xml: between(xml, "etot", ""), "<etot> holds 0 numbers, need 1"),
        (lambda xml: between(xml, "ewald", "-1_0"), "<ewald> holds '-1_0', which is no number"),
        (lambda xml: between(xml, "nelec", "eight"), "<nelec> holds 'eight', which is no number"),
        (lambda xml: between(xml, "forces", "0.1 0.2 0.3"), "<forces> holds 3 numbers, need 6"),
        (lambda xml: between(xml, "forces", " "), "<forces> holds 0 numbers, need 6"),
        (lambda xml: edited(xml, 'rank="2" dims="3 2"', 'rank="2" dims="3 9"'), "dims '3 9', need 3 and 2"),
        (lambda xml: between(xml, "stress", "0.1 0.2 0.3"), "<stress> holds 3 numbers, need 9"),
        (
            lambda xml: edited(xml, '<atomic_structure nat="2"', '<atomic_structure nat="3"'),
            "got 2 atoms, its nat says 3",
        ),
        (lambda xml: edited(xml, 'index="2"', 'index="1"'), r"the indices of the atoms are \[1, 1\], need 1 to 2"),
        (lambda xml: edited(xml, 'index="2"', 'index="-2"'), "index of an atom is '-2', need a whole number"),
        (lambda xml: edited(xml, 'name="Si" index="2"', 'name="S" index="2"'), "an atom is 'S', the species are Si"),
        (lambda xml: edited(xml, "Si.pz-vbc", "C.pz").replace("2.808600000000000e1", "12.01"), "and the mass of C"),
        (lambda xml: between(xml, "nks", "7"), "got 2 <ks_energies>, <nks> says 7"),
        (lambda xml: between(xml, "eigenvalues", "1.0 2.0"), "<eigenvalues> holds 2 numbers, need 8"),
        (lambda xml: between(xml, "a3", "0 0 0"), "the cell has no volume"),
        (lambda xml: edited(xml, "<a3>", "<a4>"), "truncated or not XML"),
        (lambda xml: edited(xml, "a3>", "a4>"), "no <a3> in <cell>"),
        (lambda xml: between(xml, "smearing", "fd").replace('degauss="1', 'degauss="x'), "degauss holds 'x"),
        (lambda xml: edited(xml, "</output>", "</output><output/>"), "got 2 times <output>"),
        (lambda xml: "<!DOCTYPE a [<!ENTITY b 'cccc'>]>" + xml, "declares a document type or entities"),
        (lambda xml: xml.encode("utf-16"), "not a pw.x output|not XML"),
        (lambda xml: "", "not a pw.x output"),
    ],
)
def test_xml_is_held_against_itself(tmp_path, edit, message):
    refused(tmp_path / "pw.xml", edit(XML), message)


def test_quantities_that_were_not_calculated(tmp_path):
    """Zeros are no labels where nobody asked for forces and stress; an atom may feel none where somebody did."""
    zeros = between(between(XML, "forces", "0 0 0 0 0 0"), "stress", "0 0 0 0 0 0 0 0 0")
    found = read_pw(write(tmp_path / "pw.xml", zeros))
    assert not found.forces.any() and found.stress is None
    control = XML.index("</control_variables>")
    not_asked = zeros[:control].replace("forces>true", "forces>false").replace("stress>true", "stress>false")
    found = read_pw(write(tmp_path / "pw.xml", not_asked + zeros[control:]))
    assert found.forces is found.stress is None
    empty = between(between(not_asked + zeros[control:], "forces", ""), "stress", "\n")
    found = read_pw(write(tmp_path / "pw.xml", empty))
    assert found.forces is found.stress is None


def test_effective_screening_medium(tmp_path):
    """pw.x prints zeros for the stress along the third axis, and stores others: neither is a label."""
    boundary = "<boundary_conditions><assume_isolated>{}</assume_isolated></boundary_conditions></input>"
    text = edited(TEXT, "     celldm(1)=", "     Effective Screening Medium Method\n     celldm(1)=")
    for name, content in ("x.out", text), ("x.xml", edited(XML, "</input>", boundary.format("esm"))):
        with pytest.warns(UserWarning, match=f"{name}: the stress is not read: .*assume_isolated = 'esm'"):
            found = read_pw(write(tmp_path / name, content))
        assert found.stress is None and found.forces is not None
    other = write(tmp_path / "y.xml", edited(XML, "</input>", boundary.format("mt")))
    assert read_pw(other).stress is not None


def test_convergence_before_6_4(tmp_path):
    """There is no <convergence_achieved>, only the accuracy."""
    old = re.sub(r"<convergence_achieved>.*</convergence_achieved>", "", XML)
    assert read_pw(write(tmp_path / "pw.xml", old)).n_electrons == 8
    refused(tmp_path / "pw.xml", between(old, "scf_error", "6e-7"), "the SCF did not converge; .* 6e-07 Ha")


def test_spellings_of_numbers_and_names(tmp_path):
    wanted = read_pw(write(tmp_path / "pw.xml", XML))
    other = re.sub(r"(\d\.\d+)e(-?\d+)", r"\1D\2", XML)
    other = edited(other, ">fd<", ">Fermi-Dirac<").replace(" UTF-8", "")
    found = read_pw(write(tmp_path / "pw.xml", other))
    assert found.energy == wanted.energy and found.smearing == wanted.smearing == "Fermi-Dirac"
    assert np.array_equal(found.eigenvalues, wanted.eigenvalues)
    title = XML.replace("<title />", "<title>Größe</title>").encode("latin-1")
    assert read_pw(write(tmp_path / "pw.xml", title)).energy == wanted.energy


# where the files are -------------------------------------------------------------------------------------------------


def test_folders_and_compressed_files(tmp_path):
    save = tmp_path / "out" / "x.save"
    save.mkdir(parents=True)
    wanted = read_pw(write(save / "data-file-schema.xml", XML)).energy
    assert read_pw(save).energy == read_pw(tmp_path / "out").energy == wanted
    (save / "data-file-schema.xml").rename(save / "y")
    write(save / "data-file-schema.xml.gz", gzip.compress(XML.encode()))
    assert read_pw(save).energy == read_pw(tmp_path / "out").energy == read_pw(save / "y").energy == wanted
    packed = gzip.compress(TEXT.encode()[:1000]) + gzip.compress(TEXT.encode()[1000:])
    assert read_pw(write(tmp_path / "pw.out.gz", packed)).energy == pytest.approx(wanted, abs=1e-7)
    (tmp_path / "out" / "z.save").mkdir()
    write(tmp_path / "out" / "z.save" / "data-file-schema.xml.gz", gzip.compress(XML.encode()))
    with pytest.raises(EspressoError, match="got 2 runs .x.save, z.save., need one; give the path of one"):
        read_pw(tmp_path / "out")
    with pytest.raises(EspressoError, match="no data-file-schema.xml in this folder; give the pw.x output"):
        read_pw(tmp_path)
    (tmp_path / "data-file.xml").write_text("<Root/>")
    with pytest.raises(EspressoError, match="before 6.2 .data-file.xml., which is not read"):
        read_pw(tmp_path)


def test_damaged_gzip(tmp_path):
    packed = gzip.compress(TEXT.encode())
    refused(tmp_path / "pw.out.gz", packed[:-20], "the gzip file is cut off; copy or compress it again")
    flipped = packed[:300] + bytes([packed[300] ^ 255]) + packed[301:]
    refused(tmp_path / "pw.out.gz", flipped, "the gzip file is damaged|not a pw.x output")
    bomb = gzip.compress(bytes(30_000_000))
    refused(tmp_path / "pw.out.gz", bomb, "expands to more than 200 times its size")


# projwfc.x and ph.x --------------------------------------------------------------------------------------------------


def projections(kinds, n_kpoints=2, n_bands=3, atoms=(1, 2)):
    """atomic_proj.xml and the text output of projwfc.x, one function of each kind on each atom."""
    rows = [(atom, kind) for atom in atoms for kind in kinds]
    points = "".join(
        f'<K-POINT Weight="{k + 1:.1f}">0 0 0</K-POINT><E>{" ".join(str(0.1 * m + k) for m in range(n_bands))}</E>'
        "<PROJS>"
        + "".join(f'<ATOMIC_WFC index="{j + 1}" spin="1">{"0.5 0.0 " * n_bands}</ATOMIC_WFC>' for j in range(len(rows)))
        + "</PROJS>"
        for k in range(n_kpoints)
    )
    header = (
        f'<HEADER NUMBER_OF_BANDS="{n_bands}" NUMBER_OF_K-POINTS="{n_kpoints}" NUMBER_OF_SPIN_COMPONENTS="1" '
        f'NUMBER_OF_ATOMIC_WFC="{len(rows)}"/>'
    )
    listing = "".join(
        f"     state # {j + 1:3d}: atom {atom:3d} (Si ), wfc  1 ({kind})\n" for j, (atom, kind) in enumerate(rows)
    )
    return f"<PROJECTIONS>{header}<EIGENSTATES>{points}</EIGENSTATES></PROJECTIONS>", listing


@pytest.mark.parametrize(
    "kinds, electrons",
    [
        (["l=0 m= 1"], 2),
        (["l=0 m= 1 s_z= 0.5", "l=0 m= 1 s_z=-0.5"], 1),
        (["l=1 j=0.5 m_j=-0.5", "l=1 j=0.5 m_j= 0.5"], 1),
    ],
)
def test_bands_of_spinors_take_one_electron(tmp_path, kinds, electrons):
    """projwfc.x tells noncollinear and spin-orbit runs by the names of the states only."""
    xml, listing = projections(kinds)
    found = read_projections(write(tmp_path / "atomic_proj.xml", xml), output=write(tmp_path / "out", listing))
    energies = np.arange(-10, 30, 0.05)
    assert found.total_dos(energies, width=0.5).sum() * 0.05 == pytest.approx(3 * electrons, rel=1e-10)
    np.testing.assert_allclose(found.kpoint_weights, np.array([1, 2]) * electrons / 3, rtol=1e-15)
    np.testing.assert_allclose(found.site_weights, len(kinds) / 4, rtol=1e-14)


IOTK = """<?xml version="1.0"?>
<?iotk version="1.2.0"?>
<Root>
  <HEADER>
    <NUMBER_OF_BANDS type="integer" size="1">
         2
    </NUMBER_OF_BANDS>
  </HEADER>
</Root>
"""


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda xml, rows: (IOTK, rows), "of Quantum ESPRESSO before 6.4 .iotk., which is not read; run"),
        (lambda xml, rows: (xml, rows.replace("atom   2", "atom 999999999999")), "state # 2 is of atom '999999999999'"),
        (lambda xml, rows: (xml, rows.replace("atom   2", "atom ****")), r"state # 2 is of atom '\*\*\*\*', .*stars"),
        (lambda xml, rows: (xml, rows.replace("atom   2", "atom   0")), "state # 2 is of atom '0'"),
        (lambda xml, rows: (xml, rows.replace("#   2", "#   1")), "got state # 1, need 2"),
        (lambda xml, rows: (xml, rows + rows), "lists 4 atomic functions, .* holds 2"),
        (lambda xml, rows: (xml, ""), "lists 0 atomic functions"),
        (
            lambda xml, rows: (xml.replace('K-POINTS="2"', 'K-POINTS="3"'), rows),
            "got 2 k points with weights and 2 with",
        ),
        (lambda xml, rows: (xml.replace('K-POINTS="2"', 'K-POINTS="99999999999999"'), rows), "says 99999999999999"),
        (lambda xml, rows: (xml.replace('BANDS="3"', 'BANDS="4"'), rows), "<E> of k point 1 holds 3 numbers, need 4"),
        (
            lambda xml, rows: (xml.replace('BANDS="3"', 'BANDS="-3"'), rows),
            "NUMBER_OF_BANDS is '-3', need a whole number",
        ),
        (
            lambda xml, rows: (xml.replace('NUMBER_OF_BANDS="3"', ""), rows),
            "NUMBER_OF_BANDS is None, need a whole number",
        ),
        (lambda xml, rows: (xml.replace("<E>0.0", "<E>NaN"), rows), "<E> of k point 1 is NaN or infinite"),
        (lambda xml, rows: (xml.replace("<E>0.0", "<E>***"), rows), "<E> of k point 1 holds .*stars"),
        (
            lambda xml, rows: (xml.replace('Weight="1.0"', 'Weight="inf"'), rows),
            "Weight of k point 1 is NaN or infinite",
        ),
        (lambda xml, rows: (xml.replace('Weight="1.0"', 'Weight="-1"'), rows), "the weights of the k points are -1"),
        (lambda xml, rows: (re.sub('Weight="..."', 'Weight="0"', xml), rows), "the weights of the k points are 0"),
        (lambda xml, rows: (xml.replace("0.5 0.0", "nan 0.0"), rows), "<ATOMIC_WFC> at k point 1 is NaN"),
        (lambda xml, rows: (xml.replace("0.5 0.0 </ATOMIC", "</ATOMIC"), rows), "<ATOMIC_WFC> .* 1 holds 4 numbers"),
        (lambda xml, rows: (re.sub("<PROJS>.*?</PROJS>", "", xml, count=1), rows), "got projections at 1 k points"),
        (lambda xml, rows: (re.sub("<ATOMIC_WFC.*?</ATOMIC_WFC>", "", xml, count=1), rows), "on .1, 2. atomic fun"),
    ],
)
def test_projections_are_held_against_their_header(tmp_path, edit, message):
    xml, listing = edit(*projections(["l=0 m= 1"]))
    write(tmp_path / "atomic_proj.xml", xml), write(tmp_path / "projwfc.out", listing)
    with pytest.raises(EspressoError, match=message) as caught:
        read_projections(tmp_path, output=tmp_path / "projwfc.out")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


# two atoms of silicon, ph.x 6.7, numbers rounded
PH = """
     Program PHONON v.6.7MaX starts on 28Nov2026 at 16:16:13
     number of atoms/cell      =            2

          Dielectric constant in cartesian axis

          (      44.807847781       0.000000000       0.000000000 )
          (       0.000000000      44.807847781      -0.000000000 )
          (      -0.000000000      -0.000000000      44.807847781 )

          Effective charges (d Force / dE) in cartesian axis without acoustic sum rule applied (asr)

           atom      1   Si  Mean Z*:       -4.88858
      Ex  (       -4.88858        0.00000       -0.00000 )
      Ey  (       -0.00000       -4.88858        0.00000 )
      Ez  (       -0.00000        0.00000       -4.88858 )
           atom      2   Si  Mean Z*:       -4.88858
      Ex  (       -4.88858        0.10000       -0.00000 )
      Ey  (       -0.00000       -4.88858        0.00000 )
      Ez  (       -0.00000        0.00000       -4.88858 )

          Effective charges (d Force / dE) in cartesian axis with asr applied:
           atom      1   Si  Mean Z*:        0.00000
      E*x (        0.00000        0.00000       -0.00000 )

          Effective charges (d P / du) in cartesian axis

           atom      1   Si
      Px  (       -4.80000        0.00000       -0.00000 )

     PHONON       :      0.08s CPU      0.13s WALL

   JOB DONE.
"""
EZ = "      Ez  (       -0.00000        0.00000       -4.88858 )\n"


def test_charges_without_the_sum_rule(tmp_path):
    born, dielectric = read_ph(write(tmp_path / "ph.out", PH))
    assert born.shape == (2, 3, 3) and born[1, 0, 1] == 0.1 and dielectric[0, 0] == 44.807847781


@pytest.mark.parametrize(
    "old, new, message",
    [
        (EZ, "", "no row Ez in the charges of atom 1"),
        ("-4.88858        0.10000", "-4.88858 NaN", "of atom 2 is NaN"),
        ("-4.88858        0.10000", "********* 0.1", "of atom 2 holds .*stars"),
        ("44.807847781", "Infinity", "tensor is NaN"),
        ("-4.88858        0.10000", "0.10000", "the charges of atom 2 holds 2 numbers, need 3"),
        ("atom      2", "atom      3", "got charges of atom 3, need 2"),
        ("atoms/cell      =            2", "atoms/cell      =            3", "got charges of 2 atoms, .* says 3"),
        ("     Program PHONON", "     Program PHONON x\n     Program PHONON", "got the outputs of 2 runs in one file"),
        ("     number of atoms", "     No convergence has been achieved\n     number of atoms", "did not converge"),
        ("JOB DONE.", "JOB DON", "unfinished or not an output"),
    ],
)
def test_ph_is_held_against_itself(tmp_path, old, new, message):
    refused(tmp_path / "ph.out", edited(PH, old, new), message, read_ph)


# damage --------------------------------------------------------------------------------------------------------------

TOKENS = ["nan", "inf", "1e400", "****", "99999999999", "-1", "", "1.0D+02", "0", "abc", "\0", "&#0;", "<a>", "1_0"]


def damage(data, rng):
    """One file of the many that disks, transfers and editors make of another."""
    kind = rng.randrange(5)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        data = bytearray(data)
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == 2:
        found = rng.choice(list(re.finditer(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", data)))
        return data[: found.start()] + rng.choice(TOKENS).encode() + data[found.end() :]
    lines = data.split(b"\n")
    first = rng.randrange(len(lines))
    last = min(len(lines), first + rng.choice([1, 2, 5, 20]))
    if kind == 3:
        return b"\n".join(lines[:first] + lines[last:])
    return b"\n".join(lines[:last] + lines[first:])


@pytest.mark.parametrize("name", ["fermi_dirac", "relax_nstep_2", "hybrid", "projections", "listing", "ph"])
def test_damaged_files_end_in_the_one_error(tmp_path, name):
    """Or in finite numbers, where what is damaged is not read, or a digit is another."""
    xml, listing = projections(["l=0 m= 1"])
    sources = {
        "projections": [(xml, lambda path: read_projections(path, output=tmp_path / "listing"))],
        "listing": [(listing, lambda path: read_projections(tmp_path / "projections", output=path))],
        "ph": [(PH, read_ph)],
    }
    sources = sources.get(name, [(text, read_pw) for text in STORED.get(name, ())])
    write(tmp_path / "projections", xml), write(tmp_path / "listing", listing)
    rng = random.Random(name)
    for source, read in sources:
        path = tmp_path / "damaged"
        for _ in range(100):
            path.write_bytes(damage(source.encode(), rng))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    found = read(path)
                except EspressoError as error:
                    assert "\n" not in str(error) and str(path) in str(error)
                    continue
            values = found if isinstance(found, (tuple, np.ndarray)) else vars(found).values()
            assert all(np.isfinite(value).all() for value in values if isinstance(value, (float, np.ndarray)))
