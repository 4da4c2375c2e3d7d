"""Quantum ESPRESSO files: one small run of pw.x 6.7 as text and as XML, cut down by hand, and what must be refused."""

import json
import re
from pathlib import Path

import ase.units
import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

from ase_mlelec.io.espresso import (
    EspressoError,
    Projections,
    read_filplot,
    read_ldos,
    read_ph,
    read_projections,
    read_pw,
)

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mala"
UNITS = ase.units.create_units("2018")  # of QE 6.7
RY, HARTREE, BOHR = UNITS["Rydberg"], UNITS["Hartree"], UNITS["Bohr"]

TEXT = """
     Program PWSCF v.6.7MaX starts on 21Nov2026 at  7:40: 0

     bravais-lattice index     =            0
     lattice parameter (alat)  =       7.3505  a.u.
     unit-cell volume          =     287.2246 (a.u.)^3
     number of atoms/cell      =            2
     number of atomic types    =            1
     number of electrons       =         8.00
     number of Kohn-Sham states=            8
     kinetic-energy cutoff     =      10.0000  Ry
     Exchange-correlation= SLA  PZ   NOGX NOGC

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   0.000000   0.694136   0.719844 )
               a(2) = (   0.694136   0.000000   0.668427 )
               a(3) = (   0.706990   0.694136   0.025709 )

     reciprocal axes: (cart. coord. in units 2 pi/alat)
               b(1) = ( -0.700367  0.686399  0.727304 )
               b(2) = (  0.727304 -0.768209  0.740773 )
               b(3) = (  0.700367  0.754241 -0.727304 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           Si1 tau(   1) = (   0.0128544   0.0000000   0.0000000  )
         2           Si1 tau(   2) = (   0.3342134   0.3599221   0.3470678  )

   Crystallographic axes

     site n.     atom                  positions (cryst. coord.)
         1           Si1 tau(   1) = ( -0.0090028  0.0093490  0.0090028  )
         2           Si1 tau(   2) = (  0.2653974  0.2236850  0.2530961  )

     number of k points=     4  Fermi-Dirac smearing, width (Ry)=  0.0200
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   0.5000000

     iteration #  1     ecut=    10.00 Ry     beta= 0.70
     total energy              =     -15.42816411 Ry
     estimated scf accuracy    <       0.05021358 Ry

     End of self-consistent calculation

          k = 0.0000 0.0000 0.0000 (   143 PWs)   bands (ev):

    -5.5007   6.0830   6.4183   7.1391   8.8111   9.0125   9.1632  10.4567

     the Fermi energy is     6.8984 ev

!    total energy              =     -15.43563229 Ry
     estimated scf accuracy    <       0.00000083 Ry
     smearing contrib. (-TS)   =      -0.02874636 Ry
     internal energy E=F+TS    =     -15.40688593 Ry

     The total energy is F=E-TS. E is the sum of the following terms:
     one-electron contribution =       5.28774639 Ry
     hartree contribution      =       1.10818578 Ry
     xc contribution           =      -4.83576753 Ry
     ewald contribution        =     -16.96705057 Ry

     convergence has been achieved in   5 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.01549258   -0.01253285    0.00659752
     atom    2 type  1   force =    -0.01549258    0.01253285   -0.00659752
     The non-local contrib.  to forces
     atom    1 type  1   force =    -0.01658679   -0.00378514    0.05623377
     atom    2 type  1   force =     0.01655899    0.00379964   -0.05626140

     Total force =     0.020946     Total SCF correction =     0.000060

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       61.48
   0.00104543   0.00083939   0.00008802          153.79      123.48       12.95
   0.00083939   0.00084375   0.00012709          123.48      124.12       18.70
   0.00008802   0.00012709  -0.00063541           12.95       18.70      -93.47

     kinetic stress (kbar)   2434.00     -3.84      3.04

     PWSCF        :      0.62s CPU      0.71s WALL

=------------------------------------------------------------------------------=
   JOB DONE.
=------------------------------------------------------------------------------=
"""

XML = """<?xml version="1.0" encoding="UTF-8"?>
<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0" Units="Hartree atomic units">
  <input><control_variables><calculation>scf</calculation></control_variables></input>
  <output>
    <convergence_info>
      <scf_conv>
        <convergence_achieved>true</convergence_achieved>
        <n_scf_steps>5</n_scf_steps>
        <scf_error>4.174485496250256e-7</scf_error>
      </scf_conv>
    </convergence_info>
    <atomic_structure nat="2" alat="7.350524526780e0">
      <atomic_positions>
        <atom name="Si1" index="2">2.456643962013501e0 2.645616574476078e0 2.551130268244790e0</atom>
        <atom name="Si1" index="1">9.448630623128851e-2 0.000000000000000e0 0.000000000000000e0</atom>
      </atomic_positions>
      <cell>
        <a1>0.000000000000000e0 5.102260536489580e0 5.291233148952156e0</a1>
        <a2>5.102260536489580e0 0.000000000000000e0 4.913287924027003e0</a2>
        <a3>5.196746842720868e0 5.102260536489580e0 1.889726124625770e-1</a3>
      </cell>
    </atomic_structure>
    <total_energy>
      <etot>-7.717816146505375e0</etot>
      <eband>5.991973745310215e-1</eband>
      <ehart>5.540928881377081e-1</ehart>
      <vtxc>-3.152944932252001e0</vtxc>
      <etxc>-2.417883763931878e0</etxc>
      <ewald>-8.483525286831341e0</ewald>
      <demet>-1.437318052244346e-2</demet>
    </total_energy>
    <band_structure>
      <lsda>false</lsda>
      <nbnd>8</nbnd>
      <nelec>8.000000000000000e0</nelec>
      <fermi_energy>2.535114058720773e-1</fermi_energy>
      <smearing degauss="1.000000000000e-2">fd</smearing>
    </band_structure>
    <forces rank="2" dims="3 2" order="F">
      7.746289302505272e-3 -6.266422863790423e-3 3.298759841321709e-3
      -7.746289302505272e-3 6.266422863790423e-3 -3.298759841321709e-3
      </forces>
    <stress rank="2" dims="3 3" order="F">
      5.227151346365293e-4 4.196971341573253e-4 4.401238490353044e-5
      4.196971341573253e-4 4.218743446647178e-4 6.354591520623998e-5
      4.401238490353044e-5 6.354591520623998e-5 -3.177055767818598e-4
      </stress>
  </output>
</qes:espresso>
"""


@pytest.fixture
def files(tmp_path):
    """The run as pw.x leaves it: scf.out and x.save/data-file-schema.xml."""
    (tmp_path / "scf.out").write_text(TEXT)
    (tmp_path / "x.save").mkdir()
    (tmp_path / "x.save" / "data-file-schema.xml").write_text(XML)
    return tmp_path


# pw.x --------------------------------------------------------------------------------------------------------------


def test_text(files):
    """Every number of the file, converted by ASE's factors."""
    run = read_pw(files / "scf.out")
    assert run.symbols == ["Si", "Si"]
    assert run.smearing == "Fermi-Dirac" and run.n_electrons == 8 and run.fermi_level == 6.8984
    # 1e-10: conversion factors agree to 1e-11, numbers are of order 100
    assert run.energy == pytest.approx(-15.43563229 * RY, rel=1e-10)
    assert run.smearing_width == pytest.approx(0.02 * RY, rel=1e-10)
    wanted = {
        "one_electron": 5.28774639,
        "hartree": 1.10818578,
        "xc": -4.83576753,
        "ion_ion": -16.96705057,
        "entropy": -0.02874636,
    }
    assert run.terms == pytest.approx({name: value * RY for name, value in wanted.items()}, rel=1e-10)
    assert sum(run.terms.values()) == pytest.approx(run.energy, abs=2e-8 * RY)  # eight printed digits
    np.testing.assert_allclose(run.cell[2], np.array([0.706990, 0.694136, 0.025709]) * 7.3505 * BOHR, rtol=1e-10)
    position = np.array([0.3342134, 0.3599221, 0.3470678]) * 7.3505 * BOHR
    np.testing.assert_allclose(run.positions[1], position, rtol=1e-10)
    np.testing.assert_allclose(run.forces[1], np.array([-0.01549258, 0.01253285, -0.00659752]) * RY / BOHR, rtol=1e-10)
    # pw.x prints -dE/dε/V: compressed crystals have positive numbers there and a negative stress in ASE
    stress = -np.array([0.00104543, 0.00083939, 0.00008802]) * RY / BOHR**3
    np.testing.assert_allclose(run.stress[0], stress, rtol=1e-10)
    assert -np.trace(run.stress) / 3 / ase.units.GPa == pytest.approx(6.148, abs=1e-3)  # "P = 61.48 kbar"


@pytest.mark.parametrize("path", ["x.save", "x.save/data-file-schema.xml"])
def test_xml_and_text_agree(files, path):
    """The XML of the same run, to the digits that the text prints."""
    text, xml = read_pw(files / "scf.out"), read_pw(files / path)
    assert xml.symbols == text.symbols and xml.smearing == text.smearing and xml.n_electrons == text.n_electrons
    assert xml.energy == pytest.approx(text.energy, abs=1e-8 * RY)
    assert xml.fermi_level == pytest.approx(text.fermi_level, abs=1e-4)
    assert xml.smearing_width == pytest.approx(text.smearing_width, abs=1e-4 * RY)
    for name in {*text.terms} & {*xml.terms}:
        assert xml.terms[name] == pytest.approx(text.terms[name], abs=1e-8 * RY), name
    digits = {"cell": 5e-5, "positions": 5e-5, "forces": 1e-8 * RY / BOHR, "stress": 1e-8 * RY / BOHR**3}
    for name, tolerance in digits.items():
        np.testing.assert_allclose(getattr(xml, name), getattr(text, name), rtol=0, atol=tolerance, err_msg=name)


def test_xml_has_full_precision(files):
    run = read_pw(files / "x.save")
    assert run.energy == pytest.approx(-7.717816146505375 * HARTREE, rel=1e-10)
    np.testing.assert_allclose(run.positions[0], [0.05, 0, 0], rtol=1e-10)  # as it stood in the input, in Å
    assert set(run.terms) == {"band", "hartree", "xc", "xc_potential", "ion_ion", "entropy"}
    # Ellis et al. 2021, Eq. (9): total = band - hartree + xc - xc_potential + ion_ion + entropy
    signs = {"band": 1, "hartree": -1, "xc": 1, "xc_potential": -1, "ion_ion": 1, "entropy": 1}
    # the band energy is of the potential before the last: first order in what the accuracy, 4e-7 Ha, is second order in
    assert sum(signs[name] * run.terms[name] for name in signs) == pytest.approx(run.energy, abs=2e-4 * HARTREE)


def test_levels_of_xml(files):
    """Two points of a made-up run: in the file in units of 2π/alat, here as fractions of the reciprocal vectors."""
    path = files / "x.save" / "data-file-schema.xml"
    text = path.read_text()
    alat = 7.35052452678
    cell = np.array(re.findall(r"<a[123]>([^<]*)</a", text))
    cell = np.array([row.split() for row in cell], dtype=float) / alat
    kpoints = np.array([[0.0, 0.0, 0.0], [0.5, -0.25, 0.125]])
    levels = np.array([[-0.2, -0.1, 0.3], [-0.15, -0.05, 0.25]])
    rows = "".join(
        f"<ks_energies><k_point weight='1.0'>{' '.join(f'{x:.12f}' for x in point)}</k_point>"
        f"<eigenvalues size='3'>{' '.join(str(x) for x in energies)}</eigenvalues></ks_energies>"
        for point, energies in zip(kpoints @ np.linalg.inv(cell).T, levels)
    )
    path.write_text(text.replace("</band_structure>", rows + "</band_structure>"))
    found = read_pw(path)
    np.testing.assert_allclose(found.kpoints, kpoints, atol=1e-9)
    np.testing.assert_allclose(found.eigenvalues, levels * HARTREE, rtol=1e-10)


def test_to_atoms(files):
    atoms = read_pw(files / "x.save").to_atoms()
    run = read_pw(files / "x.save")
    assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True) == run.energy
    assert np.array_equal(atoms.get_forces(), run.forces) and atoms.pbc.all()
    np.testing.assert_allclose(voigt_6_to_full_3x3_stress(atoms.get_stress()), run.stress, rtol=0, atol=1e-16)


def test_insulator_without_forces(files):
    """Fixed occupations have neither Fermi level nor entropy; forces and stress are computed on demand only."""
    text = TEXT.replace("the Fermi energy is     6.8984 ev", "highest occupied level (ev):     6.2255")
    text = text.replace("  Fermi-Dirac smearing, width (Ry)=  0.0200", "")
    text = "\n".join(line for line in text.splitlines() if "smearing contrib" not in line)
    start, end = text.index("     Forces acting"), text.index("     PWSCF        :")
    (files / "scf.out").write_text(text[:start] + text[end:])
    xml = XML[: XML.index("    <forces")] + XML[XML.index("  </output>") :]
    for tag in "fermi_energy", "smearing":
        xml = re.sub(f"<{tag}.*</{tag}>", "", xml)
    (files / "x.save" / "data-file-schema.xml").write_text(xml)
    for run in read_pw(files / "scf.out"), read_pw(files / "x.save"):
        assert run.forces is run.stress is run.fermi_level is run.smearing is None and run.smearing_width == 0
        assert set(run.to_atoms().calc.results) == {"energy", "free_energy"}


def refused(path, message, read=read_pw):
    with pytest.raises(EspressoError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            lambda text: text.replace("convergence has been achieved in   5", "convergence NOT achieved after   5"),
            "the SCF did not converge; raise electron_maxstep",
        ),
        (lambda text: text[: text.index("!    total")], "the run is unfinished .*; run it to the end"),
        (lambda text: text.replace("JOB DONE.", ""), "the run is unfinished .*; run it to the end"),
        (
            lambda text: text.replace("End of self-consistent", "End of band structure").replace("!", " "),
            "an nscf or bands run, which has no total energy; give the scf",
        ),
        (lambda text: text.replace("PWSCF v", "PROJWFC v"), "not a pw.x output .*; give pw.x's standard output"),
        (lambda text: text.replace("     Total force", "ATOMIC_POSITIONS (angstrom)\n"), "several structures; read it"),
        (lambda text: text.replace("a(1) =", "a1 ="), "cell or positions not found; keep pw.x's whole standard output"),
    ],
)
def test_refused_text(files, edit, message):
    (files / "scf.out").write_text(edit(TEXT))
    refused(files / "scf.out", message)


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            lambda xml: xml.replace("achieved>true", "achieved>false"),
            "the SCF did not converge; raise electron_maxstep",
        ),
        (
            lambda xml: xml.replace("<calculation>scf", "<calculation>nscf"),
            "nscf or bands run, which has no total energy",
        ),
        (lambda xml: xml[:1500], "truncated or not XML .*; run pw.x again"),
        (lambda xml: xml.replace("output>", "input_again>"), "no <output>; this is not pw.x's data-file-schema.xml or"),
    ],
)
def test_refused_xml(files, edit, message):
    path = files / "x.save" / "data-file-schema.xml"
    path.write_text(edit(XML))
    refused(path, message)


def test_missing(tmp_path):
    refused(tmp_path / "scf.out", "no such file; give the pw.x output, prefix.save or data-file-schema.xml")


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference data in {REFERENCE}")
def test_beryllium_of_mala():
    """A run of pw.x 6.6 by others, with the numbers read from it by others."""
    run = read_pw(REFERENCE / "Be2" / "Be_snapshot0.out")
    wanted = json.loads((REFERENCE / "eq9_be2.json").read_text())["qe_Ry"]
    names = {"one_el": "one_electron", "hartree": "hartree", "xc": "xc", "ewald": "ion_ion", "demet": "entropy"}
    assert run.energy == pytest.approx(wanted.pop("total") * RY, rel=1e-10)
    assert run.terms == pytest.approx({names[key]: value * RY for key, value in wanted.items()}, rel=1e-10)
    assert run.symbols == ["Be", "Be"] and run.n_electrons == 4 and run.smearing == "Fermi-Dirac"
    assert run.forces.shape == (2, 3) and np.abs(run.forces.sum(axis=0)).max() < 1e-7


# projwfc.x ---------------------------------------------------------------------------------------------------------

OWNERS = """
     Program PROJWFC v.6.7MaX starts on 21Nov2026 at  5:49:54

     Atomic states used for projection
     (read from pseudopotential files):

     state #   1: atom   1 (Si ), wfc  1 (l=0 m= 1)
     state #   2: atom   2 (H  ), wfc  1 (l=0 m= 1)
     state #   3: atom   1 (Si ), wfc  2 (l=1 m= 1)
"""
EIGENVALUES = [[-0.4, 0.1, 0.5], [-0.3, 0.2, 0.45]]  # Ry
AMPLITUDES = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 3, 2))  # k, function, band, (Re, Im)


def projections_xml(spins=1):
    points = ""
    for weight, energies, functions in zip((0.25, 0.75), EIGENVALUES, AMPLITUDES):
        points += f'<K-POINT Weight="{weight:.16E}">\n 0.0 0.0 {weight}\n</K-POINT>\n'
        points += f"<E>\n {energies[0]:.15E} {energies[1]:.15E}\n {energies[2]:.15E}\n</E>\n<PROJS>\n"
        for k, function in enumerate(functions):
            rows = "\n".join(f" {re:.16E} {im:.16E}" for re, im in function)
            points += f'<ATOMIC_WFC index="{k + 1}" spin="1">\n{rows}\n</ATOMIC_WFC>\n'
        points += "</PROJS>\n"
    return (
        f'<PROJECTIONS>\n<HEADER NUMBER_OF_BANDS="3" NUMBER_OF_K-POINTS="2" NUMBER_OF_SPIN_COMPONENTS="{spins}" '
        'NUMBER_OF_ATOMIC_WFC="3" NUMBER_OF_ELECTRONS="5.0" FERMI_ENERGY="0.15"/>\n'
        f"<EIGENSTATES>\n{points}</EIGENSTATES>\n</PROJECTIONS>\n"
    )


@pytest.fixture
def projected(tmp_path):
    (tmp_path / "x.save").mkdir()
    (tmp_path / "x.save" / "atomic_proj.xml").write_text(projections_xml())
    (tmp_path / "pdos.out").write_text(OWNERS)
    return tmp_path


@pytest.mark.parametrize("path", ["x.save", "x.save/atomic_proj.xml"])
def test_projections(projected, path):
    found = read_projections(projected / path, output=projected / "pdos.out")
    np.testing.assert_allclose(found.eigenvalues, np.array(EIGENVALUES) * RY, rtol=1e-10)
    np.testing.assert_allclose(found.kpoint_weights, [0.5, 1.5], rtol=1e-15)  # two electrons in every band
    squares = (AMPLITUDES**2).sum(axis=3)  # k, function, band
    np.testing.assert_allclose(found.site_weights[..., 0], squares[:, 0] + squares[:, 2], rtol=1e-14)
    np.testing.assert_allclose(found.site_weights[..., 1], squares[:, 1], rtol=1e-14)
    assert found.complete_below == pytest.approx(0.45 * RY, rel=1e-10)


def test_dos_integrates_to_the_weights(projected):
    """A Gaussian on a fine grid: the sum is exact to exp(-(π width/step)^2), here 1e-42, and to its tails, erfc(9)."""
    found = read_projections(projected / "x.save", output=projected / "pdos.out")
    width, step = 0.2, 0.06
    energies = np.arange(-0.4 * RY - 9 * width, 0.5 * RY + 9 * width, step)
    site = found.site_dos(energies, width=width)
    assert site.shape == (2, len(energies))
    np.testing.assert_allclose(
        site.sum(axis=1) * step, np.einsum("k,kbn->n", found.kpoint_weights, found.site_weights), rtol=1e-14
    )
    np.testing.assert_allclose(found.total_dos(energies, width=width).sum() * step, 2 * 3, rtol=1e-14)  # three bands


def test_width_is_that_of_the_metadata():
    """exp(-(x/width)^2): at one width from a level 1/e of the peak."""
    one = Projections(np.array([[0.0]]), np.array([2.0]), np.ones((1, 1, 1)))
    dos = one.site_dos([0.0, 0.3], width=0.3)[0]
    assert dos == pytest.approx([2 / (0.3 * np.pi**0.5), 2 / (0.3 * np.pi**0.5) / np.e], rel=1e-14)
    assert dos == pytest.approx(one.total_dos([0.0, 0.3], width=0.3))
    with pytest.raises(ValueError, match="width must be positive, got 0 eV"):
        one.site_dos([0.0], width=0)


@pytest.mark.parametrize(
    "spins, message",
    [
        (2, "got 2 k points with weights and 2 with energies, the header says 4"),
        (3, "got 3 spin components, need 1, 2"),
    ],
)
def test_projections_of_too_few_spins(projected, spins, message):
    (projected / "x.save" / "atomic_proj.xml").write_text(projections_xml(spins=spins))
    refused(projected / "x.save", message, lambda path: read_projections(path, output=projected / "pdos.out"))


def test_truncated_projections(projected):
    path = projected / "x.save" / "atomic_proj.xml"
    path.write_text(projections_xml()[:900])
    refused(
        path,
        "missing or truncated .*; run projwfc.x again",
        lambda path: read_projections(path, output=projected / "pdos.out"),
    )


def test_output_of_another_run(projected):
    (projected / "pdos.out").write_text(OWNERS.replace("     state #   3", "     sta"))
    refused(
        projected / "pdos.out",
        "lists 2 atomic functions, .* holds 3; give the text output of the same",
        lambda path: read_projections(projected / "x.save", output=path),
    )
    refused(
        projected / "none.out", "missing or truncated", lambda path: read_projections(projected / "x.save", output=path)
    )


def test_xml_of_another_program(projected):
    (projected / "other.xml").write_text(XML)
    refused(
        projected / "other.xml",
        "no <HEADER> or <EIGENSTATES>; give projwfc.x's atomic_proj.xml",
        lambda path: read_projections(path, output=projected / "pdos.out"),
    )


# pp.x --------------------------------------------------------------------------------------------------------------


def filplot(data, energy=None, stored=None, exponent="E"):
    """As pp.x 6.7 writes it: a cell by hand (ibrav 0), 1PE17.9, five in a row, the first index fastest."""
    n1, n2, n3 = data.shape
    m1, m2, m3 = stored or data.shape
    full = np.full((m1, m2, n3), 7.0)  # what the FFT needs and nobody reads
    full[:n1, :n2] = data
    words = []
    for value in full.ravel(order="F"):
        mantissa, power = f"{value:.9e}".split("e")
        words.append(f"{mantissa}{exponent if abs(int(power)) < 100 else ''}{int(power):+03d}".rjust(17))
    rows = "".join("".join(words[i : i + 5]) + "\n" for i in range(0, len(words), 5))
    title = "" if energy is None else f" Energy = {energy:8.4f} eV, broadening =   0.5000 eV"
    return (
        f"{title:75}\n" + "".join(f"{n:8d}" for n in (m1, m2, m3, n1, n2, n3, 2, 1)) + "\n"
        "     0        5.41176366      0.00000000      0.00000000      0.00000000      0.00000000      0.00000000\n"
        "   1.0000000000000069        0.0000000000000000        0.0000000000000000     \n"
        "   6.9837718094464360E-002   1.4142137914129034        0.0000000000000000     \n"
        "   3.4918859047232180E-002  0.10475657714169656        1.0126469123697335     \n"
        "       35.6089481138        4.0000000000       12.0000000000     3\n"
        "   1   Al    3.00\n"
        "   1       0.010000000    0.000000000    0.000000000    1\n"
        "   2       0.553775043    0.787769460    0.506323456    1\n" + rows
    )


FIELD = np.random.default_rng(3).uniform(-1, 1, (3, 4, 5))


@pytest.mark.parametrize("stored, exponent", [(None, "E"), ((4, 4, 5), "E"), ((3, 5, 6), "D")])
def test_filplot(tmp_path, stored, exponent):
    (tmp_path / "rho").write_text(filplot(FIELD, stored=stored, exponent=exponent))
    found = read_filplot(tmp_path / "rho")
    assert found.shape == FIELD.shape
    np.testing.assert_allclose(found, FIELD, rtol=1e-9)


def test_filplot_of_a_lattice_by_number(tmp_path):
    """With ibrav other than 0 there are no cell vectors in the file."""
    lines = filplot(FIELD).splitlines(keepends=True)
    lines[2:6] = [lines[2].replace("     0  ", "     2  ", 1)]
    (tmp_path / "rho").write_text("".join(lines))
    np.testing.assert_allclose(read_filplot(tmp_path / "rho"), FIELD, rtol=1e-9)


def test_three_digit_exponents(tmp_path):
    """Far from all bands pp.x prints numbers such as 1.5-103, without the E."""
    data = FIELD.copy()
    data[0, 1, 2], data[2, 3, 4] = 1.5e-103, -2.25e-299
    text = filplot(data)
    assert "1.500000000-103" in text
    (tmp_path / "rho").write_text(text)
    np.testing.assert_allclose(read_filplot(tmp_path / "rho"), data, rtol=1e-9)


ENERGIES = np.array([-0.5, 0.0, 0.5])


@pytest.fixture
def ldos_files(tmp_path):
    paths = [tmp_path / f"ldos.pp{index:03d}" for index in (1, 2, 3)]
    for energy, path in zip(ENERGIES, paths):
        path.write_text(filplot(FIELD**2 * (energy + 1), energy))
    return paths


def test_ldos(ldos_files):
    found = read_ldos(ldos_files, energies=ENERGIES)
    np.testing.assert_allclose(found, FIELD[..., None] ** 2 * (ENERGIES + 1) / (RY * BOHR**3), rtol=2e-9)
    assert np.array_equal(read_ldos(ldos_files), found)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda text: text[:-18], "truncated after 59 of the 60 numbers on a grid of 3 x 4 x 5; run pp.x again"),
        (lambda text: text[:-5], "truncated after 60 of the 60 numbers"),  # the last one without its exponent
        (lambda text: text[:200], "truncated after 0 of the 60 numbers"),
        (lambda text: text[:50], "truncated, or not a filplot file"),
        (lambda text: TEXT, "truncated, or not a filplot file"),
        (lambda text: text.replace("E-01", "%"), "truncated, or not a filplot file"),
        # a count that would be read line by line for ever, a grid that no memory holds, numbers that are none
        (lambda text: text.replace("       2       1\n", "       2 999999999999\n"), "it claims 1e.12 atoms and"),
        (
            lambda text: text.replace("       3       4       5" * 2, "  999999" * 6),
            "it claims 9.99997e.17 grid points",
        ),
        (lambda text: text.replace("       2       1\n", "       2      -1\n"), "cannot be; the file is damaged"),
        (lambda text: text[:-18] + "              NaN\n", "the function is NaN or infinite .entry 60."),
        (lambda text: text + "  1.0\n", "not a filplot file, or damaged: got 61 of the 60 numbers"),
    ],
)
def test_refused_filplot(tmp_path, edit, message):
    (tmp_path / "rho").write_text(edit(filplot(FIELD)))
    refused(tmp_path / "rho", message, read_filplot)


def test_missing_filplot(tmp_path):
    refused(tmp_path / "rho", "no such file; give the file that filplot names", read_filplot)


def test_refused_ldos(ldos_files):
    refused(
        ldos_files[0],
        "got the energy -0.5 eV, need -0.25 eV; check emin, delta_e and the order",
        lambda path: read_ldos(ldos_files, energies=[-0.25, 0.0, 0.5]),
    )
    refused(
        ldos_files[2],
        "got the energy 0.5 eV, need -0.5 eV",
        lambda path: read_ldos(ldos_files[::-1], energies=ENERGIES),
    )
    text = filplot(FIELD, 0.0)
    for other, message in (
        (text.replace("0.553775043", "0.553775000"), "grid, cell, atoms or quantity differ from"),
        (filplot(FIELD[:2], 0.0), "grid, cell, atoms or quantity differ from those of .*001"),
        (filplot(FIELD), "not an LDOS .no energy in its title.; run pp.x with plot_num = 3"),
    ):
        ldos_files[1].write_text(other)
        refused(ldos_files[1], message, lambda path: read_ldos(ldos_files, energies=ENERGIES))
    with pytest.raises(EspressoError, match="got 3 files for 2 energies, need one file per energy"):
        read_ldos(ldos_files, energies=ENERGIES[:2])
    with pytest.raises(EspressoError, match="got no file, need one per energy"):
        read_ldos([])


# ph.x

# one water molecule in a box of 8 Å, PBE at 40 Ry; ph.x 6.7
RESPONSE = """
     Program PHONON v.6.7MaX starts on 21Nov2026 at 10:22:46

          Dielectric constant in cartesian axis

          (       1.041523254       0.000054762      -0.000000070 )
          (       0.000054767       1.041611087      -0.000000061 )
          (      -0.000000069      -0.000000060       1.044361521 )

     Polarizability (a.u.)^3                    Polarizability (A^3)
     11.26      0.02     -0.00             1.6687        0.0022       -0.0000
      0.02     11.28     -0.00             0.0022        1.6722       -0.0000
     -0.00     -0.00     12.02            -0.0000       -0.0000        1.7811

          Effective charges (d Force / dE) in cartesian axis

           atom      1   O
      Ex  (       -0.29646        0.07482        0.00001 )
      Ey  (        0.07521       -0.25767        0.00001 )
      Ez  (        0.00001        0.00001       -0.50394 )
           atom      2   H
      Ex  (        0.11719       -0.03956        0.00000 )
      Ey  (       -0.07541        0.24829        0.00000 )
      Ez  (       -0.00000        0.00000        0.29671 )
           atom      3   H
      Ex  (        0.26830       -0.03595        0.00000 )
      Ey  (       -0.00031        0.09719        0.00000 )
      Ez  (        0.00000        0.00000        0.29685 )

     PHONON       :     15.39s CPU   2m59.66s WALL

   JOB DONE.
"""


def test_ph_turns_the_dipole_with_the_molecule(tmp_path):
    """Σ Z (z x R) = z x M tells dipole from displacement; M of the same run's Wannier centers, 2 e each, 6 e on O."""
    (tmp_path / "ph.out").write_text(RESPONSE)
    born, dielectric = read_ph(tmp_path / "ph.out")
    assert born.shape == (3, 3, 3) and dielectric[2, 2] == 1.044361521
    assert abs(born.sum(axis=0)).max() < 0.1
    angle = np.radians(104.5)
    sites = 0.97 * np.array([[0, 0, 0], [1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    dipole = sites.sum(axis=0) - 8 * np.array([0.0642535, 0.08198025, 0])
    turned = np.einsum("iab,ib->a", born, np.cross([0, 0, 1], sites))
    np.testing.assert_allclose(turned, np.cross([0, 0, 1], dipole), atol=0.006)
    other_way = np.einsum("iba,ib->a", born, np.cross([0, 0, 1], sites))
    assert np.abs(other_way - np.cross([0, 0, 1], dipole)).max() > 0.03


def test_ph_with_a_second_block_after_the_sum_rule(tmp_path):
    """Newer versions print the corrected charges as well; what was calculated comes first."""
    block = "          Effective charges (d Force / dE) in cartesian axis"
    second = RESPONSE[RESPONSE.index(block) : RESPONSE.index("     PHONON  ")].replace("0.29", "0.31")
    (tmp_path / "one.out").write_text(RESPONSE)
    (tmp_path / "two.out").write_text(RESPONSE.replace("     PHONON  ", f"{second}     PHONON  "))
    np.testing.assert_array_equal(read_ph(tmp_path / "two.out")[0], read_ph(tmp_path / "one.out")[0])


@pytest.mark.parametrize(
    "text, message",
    [
        (RESPONSE.replace("JOB DONE", ""), "unfinished or not an output of ph.x"),
        (TEXT, "unfinished or not an output of ph.x"),
        (RESPONSE.replace("Effective charges (d Force", "Charges (d Force"), "set epsil and zeu"),
        (RESPONSE.replace("Dielectric", "Other"), "set epsil and zeu"),
    ],
)
def test_refused_ph(tmp_path, text, message):
    (tmp_path / "ph.out").write_text(text)
    with pytest.raises(EspressoError, match=message):
        read_ph(tmp_path / "ph.out")
    with pytest.raises(EspressoError, match="No such file"):
        read_ph(tmp_path / "missing.out")
