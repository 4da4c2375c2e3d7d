"""Runs of pw.x as data sets: read by read_pw, and not as ASE reads them."""

import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from small_espresso import run, stored
from small_vasp import example, outcar, vasprun

from ase_mlelec import units
from ase_mlelec.data.frames import read_all, read_frames
from ase_mlelec.data.runs.steps import charge_of, has_field
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.espresso.common import EspressoError

STORED = stored()


def write(name, folder, which=0):
    path = folder / ("data-file-schema.xml" if which else "pw.out")
    path.write_text(STORED[name][which])
    return path


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["fermi_dirac", "hybrid", "no_forces"])
def test_labels_are_those_of_read_pw(name, which, tmp_path):
    path = write(name, tmp_path, which)
    (frame,) = read_frames(path)
    found = read_pw(path)
    assert frame.labels["energy"] == found.energy and list(frame.atoms.symbols) == found.symbols
    assert np.allclose(frame.atoms.positions, found.positions, atol=1e-12)
    assert ("forces" in frame.labels) == (found.forces is not None)
    if found.stress is not None:
        assert np.allclose(frame.labels["virial"], -found.stress * frame.atoms.get_volume())


@pytest.mark.parametrize("which", [0, 1])
def test_charged_cells_are_told(which, tmp_path):
    with pytest.warns(UserWarning, match="the cell has a charge of 1 e, on which its energy depends"):
        read_frames(write("charged", tmp_path, which))
    assert all(charge_of(text) == 0 for name, texts in STORED.items() if name != "charged" for text in texts[:2])


@pytest.mark.parametrize(
    "which, line",
    [
        (0, "        E field amplitude [Ha a.u.]:  {}\n"),
        (0, "     Using Berry phase electric field\n     Direction :   3\n     Intensity (Ry a.u.) : {}\n"),
        (
            0,
            "     Using Berry phase electric field\n     In a.u.(Ry)  cartesian system of reference\n"
            "        0.0000000000\n        0.0000000000\n        {}\n     Number of iterative cycles:   1\n",
        ),
        (1, "<electric_field><electric_field_amplitude>{}</electric_field_amplitude></electric_field>"),
        (1, "<electric_field><electric_field_vector>0.0 0.0 {}</electric_field_vector></electric_field>"),
    ],
)
def test_electric_fields_are_told(which, line, tmp_path, recwarn):
    path, before = write("scf", tmp_path, which), ("     Self-consistent", "</input>")[which]
    text = path.read_text()
    assert before in text
    for number, told in ("0.0000E+00", False), ("1.0000E-03", True):
        path.write_text(text.replace(before, line.format(number) + before, 1))
        read_frames(path)
        assert ["it is in an electric field, on which" in str(each.message) for each in recwarn] == [True] * told
    assert not any(has_field(text) for texts in STORED.values() for text in texts[:2])


def test_folders(tmp_path):
    folder = tmp_path / "x.save"
    folder.mkdir()
    write("scf", folder, 1)
    for path in folder, tmp_path:
        (frame,) = read_frames(path)
        assert frame.name == "x-0" and frame.labels.keys() == {"energy", "forces", "virial"}


@pytest.mark.parametrize("which", [0, 1])
def test_what_read_pw_refuses(which, tmp_path):
    with pytest.raises(EspressoError, match="the SCF did not converge"):
        read_frames(write("unconverged", tmp_path, which))


def test_no_names_of_labels(tmp_path):
    with pytest.raises(ValueError, match="got names of labels"):
        read_all([write("scf", tmp_path)], keys={"energy": "REF_energy"})


@pytest.mark.parametrize("which", [0, 1])
def test_one_step_of_several_is_said(which, tmp_path):
    path = write("hybrid_relax", tmp_path, which)
    with pytest.warns(UserWarning, match="the last of 2 steps alone is read"):
        (frame,) = read_frames(path)
    assert frame.labels["energy"] == read_pw(path).energy


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
def test_all_steps_of_a_folder(tmp_path):
    """The XML of a run has its last step alone, the text output beside it all of them; nothing is said then."""
    text, xml = run("relax", tmp_path)
    for path in tmp_path, xml.parent:
        frames, others = read_frames(path), read_frames(text)
        assert len(frames) == len(others) > 2 and frames.counts == others.counts
        for k, (frame, other) in enumerate(zip(frames, others)):
            assert frame.name == f"x-{k}" and frame.labels["energy"] == other.labels["energy"]
            assert np.array_equal(frame.atoms.positions, other.atoms.positions)
    text.write_text(STORED["fermi_dirac"][0])  # the text of another run
    with pytest.warns(UserWarning, match="the last of . steps alone is read"):
        assert len(read_frames(tmp_path)) == 1


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
def test_all_steps_of_a_text(tmp_path):
    text, xml = run("relax", tmp_path)
    frames = read_frames(text)
    steps = ElementTree.parse(xml).findall("step")
    assert len(frames) == len(steps) > 2 and frames.labels == ("energy", "forces")
    for frame, step in zip(frames, steps):
        places = [atom.text.split() for atom in step.findall("atomic_structure/atomic_positions/atom")]
        assert np.allclose(frame.atoms.positions, np.array(places, dtype=float) * units.BOHR, atol=1e-5)
        assert np.isclose(frame.labels["energy"], float(step.findtext("total_energy/etot")) * units.HARTREE, atol=2e-5)


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
def test_steps_of_large_energies(tmp_path):
    """ASE's rydberg is 9e-8 smaller, which is more than a meV here; all energies are in the same rydberg."""
    path, _ = run("md", tmp_path)
    path.write_text(re.sub(r"^(! +total energy +=) +-15\.", r"\1 -90015.", path.read_text(), flags=re.MULTILINE))
    frames = read_frames(path)
    found = [frame.labels["energy"] for frame in frames]
    assert len(found) == 3 and found == pytest.approx(energies(path.read_text().replace("= -9", "=  -9")), abs=1e-6)


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
def test_steps_of_deuterium(tmp_path):
    path, _ = run("md", tmp_path)
    wanted = read_frames(path)
    path.write_text(path.read_text().replace("Si", "D "))
    frames = read_frames(path)
    assert len(frames) == len(wanted) == 3 and list(frames[0].atoms.symbols) == ["H", "H"]
    assert np.array_equal(frames[0].atoms.positions, wanted[0].atoms.positions)


def energies(text):
    return [float(words.split()[0]) * units.RYDBERG for words in text.split("!    total energy              =")[1:]]


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
@pytest.mark.parametrize("name", ["relax", pytest.param("vc_relax", marks=pytest.mark.slow), "md"])
def test_interrupted_run(name, tmp_path):
    """The whole steps are read, wherever the rest is cut off."""
    path, _ = run(name, tmp_path)
    text, whole = path.read_text(), read_frames(path)
    starts = [place.start() for place in re.finditer("^!", text, re.MULTILINE)]
    blocks = [place.start() for place in re.finditer("^(CELL_PARAM|ATOMIC_POS)", text, re.MULTILINE)]
    for cut in (starts[1] - 100, starts[1] + 3, starts[1] + 200, starts[-1] + 100):
        (tmp_path / "cut.out").write_text(text[:cut])
        n = sum(any(start < block < cut for block in blocks) for start in starts if start < cut)
        with pytest.warns(UserWarning, match=f"the run did not finish; of its {n} whole steps {n} are read"):
            frames = read_frames(tmp_path / "cut.out")
        assert len(frames) == n and [each.labels["energy"] for each in frames] == pytest.approx(
            energies(text)[:n], abs=1e-4
        )
        for each, other in zip(frames, whole):
            assert each.labels.keys() == other.labels.keys() and "forces" in each.labels
            assert np.allclose(each.labels["forces"], other.labels["forces"], atol=1e-6)
            assert np.allclose(each.atoms.positions, other.atoms.positions, atol=1e-6)
    (tmp_path / "cut.out").write_text(text[: starts[0] + 100])
    with pytest.raises(EspressoError, match="the run is unfinished"):
        read_frames(tmp_path / "cut.out")


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x")
def test_steps_that_did_not_converge(tmp_path):
    path, _ = run("md", tmp_path)
    text = path.read_text()
    second = text.index("estimated scf accuracy", [place.start() for place in re.finditer("^!", text, re.MULTILINE)][1])
    path.write_text(text[:second] + re.sub(r"< +\S+", "<  0.00123000", text[second:], count=1))
    with pytest.warns(UserWarning, match="1 of 3 steps did not converge, and are left out"):
        frames = read_frames(path)
    assert [each.labels["energy"] for each in frames] == pytest.approx([energies(text)[k] for k in (0, 2)], abs=1e-4)


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "x.pdos_tot",
            "# ik    E (eV)  dos(E)    pdos(E)\n    1  -12.459  0.171E-03  0.170E-03\n",
            "a density of states on an",
        ),
        ("x.pdos_atm#1(Si)_wfc#1(s)", "# E (eV)   ldos(E)   pdos(E)   \n", "a density of states on an energy grid"),
        ("x.proj.projwfc_up", "\n 36 36 36 36 36 36 8 2\n", "projections of projwfc.x .filproj."),
        ("a.xml", '<PROJECTIONS>\n<HEADER NUMBER_OF_ATOMIC_WFC="8"/>\n', "of projwfc.x alone, without the structure"),
        ("rho.cube", " title\n", "a function on a grid, and no labels"),
        (
            "cp.out",
            "\n     Program CP v.6.7MaX starts on  1Jan2022\n",
            "an output of CP of Quantum ESPRESSO, and those of pw.x",
        ),
        ("ph.out", "\n     Program PHONON v.7.2 starts on  1Jan2022\n", "an output of PHONON of Quantum ESPRESSO"),
    ],
)
def test_parts_of_runs(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf": {message}.* give the folder of the run"):
        read_frames(tmp_path / name)


@pytest.mark.parametrize(
    "name, start, message",
    [
        (
            "train.cfg",
            b"BEGIN_CFG\n Size\n    2\n",
            "configurations of MLIP, which have types in place of elements; write them",
        ),
        (
            "df.pckl.gzip",
            b"\x1f\x8babc",
            "a pickle, which may hold any code and is not read; write its structures with ASE",
        ),
    ],
)
def test_files_of_other_potentials(tmp_path, name, start, message):
    (tmp_path / name).write_bytes(start)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_frames(tmp_path / name)


def test_folder_and_the_output_in_it_are_read_once(tmp_path):
    """The folder has the XML, and its neighbor the text of the same run."""
    for name in "r0", "r1":
        (tmp_path / name / "x.save").mkdir(parents=True)
        write("scf", tmp_path / name / "x.save", 1)
        write("scf", tmp_path / name)
    folder = tmp_path / "r0"
    for paths in ([folder, folder / "pw.out"], [folder / "pw.out", folder / "x.save"]):
        with pytest.warns(
            UserWarning, match=f"{paths[1]}: 1 of 1 structures are those of {paths[0]}, and are read once"
        ):
            assert len(read_all(paths)) == 1
    assert len(read_all([folder, tmp_path / "r1"])) == 2  # another calculation, of the same structure
    (folder / "pw.out").write_text(write("fermi_dirac", folder).read_text())
    assert len(read_all([folder, folder / "pw.out"])) == 2


def test_runs_of_vasp_at_several_depths(tmp_path):
    """All are read, but for those below the folder of another run."""
    for k, name in enumerate(("a", "batch/b", "batch/c", "a/former")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "OUTCAR").write_text(outcar(example(seed=k)))
    frames = read_frames(tmp_path)
    assert [frame.name for frame in frames] == ["a-0", "a-1", "batch/b-0", "batch/b-1", "batch/c-0", "batch/c-1"]


def test_two_files_of_a_run_of_vasp_are_read_once(tmp_path):
    data = example(n_steps=3)
    (tmp_path / "vasprun.xml").write_text(vasprun(data))
    (tmp_path / "OUTCAR").write_text(outcar(data))
    with pytest.warns(UserWarning, match="OUTCAR: 3 of 3 structures are those of .*vasprun.xml, and are read once"):
        frames = read_all([tmp_path / "OUTCAR", tmp_path / "vasprun.xml"])
    assert len(frames) == 3


@pytest.mark.parametrize("named", [True, False])
def test_zeros_for_fixed_atoms_are_no_forces(named, tmp_path):
    """The text output has the forces on atoms with if_pos = 0; the XML of QE 6.7 has zeros there, and may name no atom."""
    text, free = STORED["scf"][1], "<free_positions>{} 1 1 1 1 1</free_positions></input>"
    row = re.search(r"<forces rank[^>]*>\s*(\S+)\s", text)
    path = tmp_path / "data-file-schema.xml"
    path.write_text(text.replace("</input>", free.format(1)))
    assert "forces" in read_frames(path)[0].labels
    text = text[: row.start(1)] + "0.000000000000000e0" + text[row.end(1) :]
    path.write_text(text.replace("</input>", free.format(0)) if named else text)
    with pytest.warns(UserWarning, match="data-file-schema.xml: the forces are not read: pw.x stores zeros for atoms"):
        (frame,) = read_frames(path)
    assert frame.labels.keys() == {"energy", "virial"}


@pytest.mark.parametrize("name", ["aims.out", "r0/aims.out", "w-pos-1.xyz", "r0/x.extxyz"])
def test_folders_that_cannot_be_read_name_their_files(name, tmp_path):
    for each in (name, "w-frc-1.xyz") if "pos" in name else (name,):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_text("")
    with pytest.raises(ValueError, match=f"a folder without data that can be read; .* such as {tmp_path / name}"):
        read_frames(tmp_path)


def test_folders_of_texts_name_that_of_pw(tmp_path):
    for name, program in ("a.out", "PROJWFC"), ("b.out", "PWSCF"), ("c.out", "POST-PROC"):
        (tmp_path / name).write_text(f"     Program {program} v.6.7 starts\n")
    with pytest.raises(ValueError, match="or name files such as .*b.out;"):
        read_frames(tmp_path)
