"""Text and XML of one pw.x run tell the same: runs of every kind, stored by tests/small_espresso.py and made afresh."""

import shutil
from xml.etree import ElementTree

import ase.units
import numpy as np
import pytest
from small_espresso import INPUTS, run, run_script, stored

from ase_mlelec.io.espresso import EspressoError, read_pw

UNITS = ase.units.create_units("2018")  # of QE 6.7
RY, HARTREE, BOHR = UNITS["Rydberg"], UNITS["Hartree"], UNITS["Bohr"]
STORED = stored()

# name -> what the message of both readers says
REFUSED = {
    "unconverged": "the SCF did not converge; raise electron_maxstep",
    "unconverged_allowed": "the SCF did not converge; .*its accuracy is",
    "relax_unconverged": "the SCF did not converge; raise electron_maxstep",
    "initialization": "nothing was calculated .*; run pw.x to the end|the run is unfinished .*; run it to the end",
    "nscf": "an nscf or bands run, which has no total",
    "bands": "an nscf or bands run, which has no total energy",
    "no_element": "the label 'Xq' begins with no chemical symbol",
    "carbon_called_cs": "species 'Cs' has .*pseudopotential.* C.*; write C into the input and run pw.x again",
}
WITHOUT_STRESS = {"vc_md": "stores it times the volume after vc-md"}
READ = [name for name in STORED if name not in REFUSED]
FERMI_LEVELS = {
    "fermi_dirac",
    "gaussian",
    "methfessel_paxton",
    "cold",
    "tetrahedra",
    "tetrahedra_opt",
    "spin",
    "noncollinear",
    "spin_orbit",
    "charged",
    "verbose",
    "vc_relax_angstrom",
    "aluminium",
    "silicon",
}
SMEARED = FERMI_LEVELS - {"tetrahedra", "tetrahedra_opt"} | {"two_fermi_levels"}


def read_xml(name, path):
    if name not in WITHOUT_STRESS:
        return read_pw(path)
    with pytest.warns(UserWarning, match=WITHOUT_STRESS[name]):
        return read_pw(path)


def check_agreement(name, text, xml):
    """To the digits that the text prints: 8 decimals of Ry, 4 of eV, and of positions 7 decimals of alat."""
    assert text.symbols == xml.symbols and text.smearing == xml.smearing and text.n_electrons == xml.n_electrons
    assert text.energy == pytest.approx(xml.energy, abs=1e-8 * RY)
    assert text.smearing_width == pytest.approx(xml.smearing_width, abs=1e-4 * RY)
    assert (text.fermi_level is None) == (xml.fermi_level is None)
    if text.fermi_level is not None:
        assert text.fermi_level == pytest.approx(xml.fermi_level, abs=6e-5)
    for term in {*text.terms} & {*xml.terms}:
        assert text.terms[term] == pytest.approx(xml.terms[term], abs=1e-8 * RY), term
    np.testing.assert_allclose(text.cell, xml.cell, rtol=0, atol=1e-5)
    np.testing.assert_allclose(text.positions, xml.positions, rtol=0, atol=1e-5)
    digits = {"forces": 1e-8 * RY / BOHR, "stress": 1e-8 * RY / BOHR**3}
    for quantity, tolerance in digits.items():
        found, wanted = getattr(text, quantity), getattr(xml, quantity)
        if quantity == "stress" and name in WITHOUT_STRESS:
            assert wanted is None
            continue
        assert (found is None) == (wanted is None), quantity
        if found is not None:
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=quantity)


def write(name, folder):
    (folder / "pw.out").write_text(STORED[name][0])
    (folder / "pw.xml").write_text(STORED[name][1])
    return folder / "pw.out", folder / "pw.xml"


def test_every_input_is_stored():
    assert STORED.keys() == INPUTS.keys() | {"silicon", "aluminium", "ice"}


@pytest.mark.parametrize("name", READ)
def test_stored_text_and_xml_agree(name, tmp_path):
    text, xml = write(name, tmp_path)
    text, xml = read_pw(text), read_xml(name, xml)
    check_agreement(name, text, xml)
    assert xml.symbols == {
        "aluminium": ["Al"] * 4,
        "ice": ["O", "H", "H"],
        "hybrid": ["H", "H"],
        "hybrid_relax": ["H", "H"],
    }.get(name, ["Si", "Si"])
    assert (xml.fermi_level is not None) == (name in FERMI_LEVELS)
    assert (xml.smearing is not None) == (name in SMEARED) == (xml.smearing_width > 0)
    assert xml.forces is None if name == "no_forces" else xml.forces.shape == xml.positions.shape
    assert (text.stress is None) == (name in ("no_forces", "relax"))
    assert (xml.kpoints is None) == (name in ("spin", "spin_fixed", "two_fermi_levels"))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("which", ["text", "XML"])
def test_stored_runs_that_are_refused(name, which, tmp_path):
    path = write(name, tmp_path)[which == "XML"]
    with pytest.raises(EspressoError, match=REFUSED[name]) as caught:
        read_pw(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name, step",
    [
        ("relax_nstep_1", 1),
        ("relax_nstep_2", 2),
        ("vc_relax_nstep_2", 2),
        ("vc_relax_angstrom", 3),
        ("md", 3),
        ("vc_md", 3),
        ("hybrid_relax", 2),
        ("relax", None),
        ("relax_damped", None),
        ("vc_relax", None),
    ],
)
def test_structure_is_that_of_the_energy(name, step, tmp_path):
    """<output> has the structure of the next step where there is one; what belongs together stands in the <step>s."""
    text, xml = write(name, tmp_path)
    root = ElementTree.parse(xml).getroot()
    steps = root.findall("step")
    assert step in (None, len(steps))
    numbers = [atom.text.split() for atom in steps[-1].findall("atomic_structure/atomic_positions/atom")]
    wanted = np.array(numbers, dtype=float) * BOHR
    stored_last = [atom.text.split() for atom in root.findall("output/atomic_structure/atomic_positions/atom")]
    is_next = np.abs(np.array(stored_last, dtype=float) * BOHR - wanted).max() > 1e-4
    assert is_next == (step is not None)
    for found in read_xml(name, xml), read_pw(text):
        np.testing.assert_allclose(found.positions, wanted, rtol=0, atol=1e-6)
    cell = [steps[-1].findtext(f"atomic_structure/cell/a{i}").split() for i in (1, 2, 3)]
    np.testing.assert_allclose(read_pw(text).cell, np.array(cell, dtype=float) * BOHR, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["relax_nstep_1", "md", "vc_relax_nstep_2"])
def test_without_the_steps_the_structure_is_unknown(name, tmp_path):
    xml = write(name, tmp_path)[1]
    text = xml.read_text()
    xml.write_text(text[: text.index("<step ")] + text[text.rindex("</step>") + 7 :])
    with pytest.raises(EspressoError, match="not the one of its energy and forces, but of the step after, .*; read "):
        read_pw(xml)


@pytest.mark.parametrize("name", ["scf", "vc_relax", "vc_relax_nstep_2"])
def test_levels_of_a_moving_cell(name, tmp_path):
    """The points of the 2 x 2 x 2 mesh keep their fractions while the cell changes."""
    found = 2 * read_pw(write(name, tmp_path)[1]).kpoints
    np.testing.assert_allclose(found, np.round(found), rtol=0, atol=1e-9)
    assert np.abs(found[1]).max() == pytest.approx(1)


# with pw.x itself ----------------------------------------------------------------------------------------------------

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed (Debian: quantum-espresso)")


@needs_pw
@pytest.mark.peer
@pytest.mark.parametrize(
    "name",
    [
        "scf",
        "no_forces",
        "fermi_dirac",
        "tetrahedra",
        "from_input",
        "two_fermi_levels",
        "spin_orbit",
        "upper_case",
        "relax_nstep_1",
        "vc_relax",
        "vc_md",
        "hybrid",
    ],
)
def test_fresh_runs_agree(name, tmp_path):
    text, xml = run(name, tmp_path)
    check_agreement(name, read_pw(text), read_xml(name, xml))


@needs_pw
@pytest.mark.peer
@pytest.mark.parametrize("name", ["silicon", pytest.param("aluminium", marks=pytest.mark.slow), "ice"])
def test_runs_of_the_data_scripts_agree(name, tmp_path):
    """The structure of the script's Atoms, its result read from XML and the text of the same run."""
    result, output = run_script(name, tmp_path)
    check_agreement(name, read_pw(output), result)
