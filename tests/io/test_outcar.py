"""OUTCAR: numbers that were written into it, the same as ASE reads, and steps and files that are no labels."""

import bz2
import gzip
import warnings
from contextlib import nullcontext

import ase.io
import numpy as np
import pytest
from small_vasp import example, outcar

from ase_mlelec import units
from ase_mlelec.data.frames import has_keys, read_all, read_frames
from ase_mlelec.io.outcar import is_outcar, read_outcar
from ase_mlelec.io.vasp import VaspError


def write(folder, text, name="OUTCAR"):
    path = folder / name
    path.write_text(text)
    return path


def test_what_was_written(tmp_path):
    data = example(n_steps=3)
    path = write(tmp_path, outcar(data))
    found = read_outcar(path)
    assert is_outcar(path) and not has_keys(path) and found.symbols == ["Na", "Cl"] and not found.left_out
    for step, own in zip(found.steps, data["steps"], strict=True):
        assert step.energy == pytest.approx(own["energy"], abs=1e-8) and step.converged
        np.testing.assert_allclose(step.cell, data["cell"], atol=1e-9)
        np.testing.assert_allclose(step.positions, own["fractions"] @ data["cell"], atol=1e-5)
        np.testing.assert_allclose(step.forces, own["forces"], atol=1e-6)
        np.testing.assert_allclose(step.stress, -own["stress"] * units.GPA / 10, atol=1e-5 * units.GPA)


def test_the_same_as_ase(tmp_path):
    path = write(tmp_path, outcar(example(n_steps=2)))
    frames = read_frames(path)
    assert frames.counts == {"energy": 2, "forces": 2, "virial": 2}
    for frame, atoms in zip(frames, ase.io.read(path, ":")):
        assert frame.labels["energy"] == pytest.approx(atoms.calc.results["free_energy"], abs=1e-10)
        assert np.allclose(frame.labels["forces"], atoms.calc.results["forces"], atol=1e-10)
        virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
        assert np.allclose(frame.labels["virial"], virial, rtol=1e-6)  # another value of e
        assert list(frame.atoms.symbols) == list(atoms.symbols) and np.allclose(frame.atoms.cell, atoms.cell)


@pytest.mark.parametrize("density, first", [(11, "was read"), (10, "was read"), (12, "began, as the sum"), (2, "")])
def test_fixed_density(density, first, tmp_path):
    line = f"   ICHARG ={density:7d}    charge: 1-file 2-atom 10-const\n"
    path = write(tmp_path, outcar(example(), settings=line))
    if not first:
        assert len(read_frames(path)) == 2
        return
    with pytest.raises(VaspError, match=f"OUTCAR: its density is kept as it {first}.*ICHARG = {density}.*give the run"):
        read_frames(path)


@pytest.mark.parametrize(
    "line, told",
    [
        ("   EFIELD_PEAD=    0.0000    0.0000   -0.0400\n", True),
        ("   EFIELD_PEAD=    0.0000    0.0000    0.0000\n", False),
        ("   EFIELD = 0.1000000 electric field\n", True),
        ("   EFIELD = 0.1\n   EFIELD_PEAD = 0.0 0.0 0.0\n", True),
        (" added-field ion interaction          0.372100 eV  (added to PSCEN)\n", True),
        (" added-field ion interaction          0.000000 eV  (added to PSCEN)\n", False),
    ],
)
def test_electric_fields(line, told, tmp_path, recwarn):
    assert len(read_frames(write(tmp_path, outcar(example(), settings=line)))) == 2
    assert ["OUTCAR: it is in an electric field, on which" in str(each.message) for each in recwarn] == [True] * told


@pytest.mark.parametrize(
    "line, label, message",
    [
        ("   ISIF   =      1    stress and relaxation\n", "virial", "the stress is not read, as with ISIF = 1"),
        ("   ISIF   =      2    stress and relaxation\n", "", ""),
        ("   IMAGES =     5\n", "forces", "the forces are not read, as those of an image of an elastic band"),
        (" CHAIN + TOTAL  (eV/Angst)\n", "forces", "calculate the images again, each by itself"),
        (" NEB: Tangent\n", "forces", "calculate the images again, each by itself"),
        (" CHAIN: Read ICHAIN            2\n", "forces", "calculate the images again, each by itself"),
        (" CHAIN: Read ICHAIN            0\n CHAIN: Running the NEB\n NEB:        SPRING     -5.000000\n", "", ""),
        ("   I_CONSTRAINED_M =  1\n", "", "OUTCAR: its magnetic moments are constrained .*the penalty E_p"),
    ],
)
def test_settings_that_make_labels_wrong(line, label, message, tmp_path):
    path = write(tmp_path, outcar(example(), settings=line))
    with pytest.warns(UserWarning, match=message) if message else nullcontext():
        frames = read_frames(path)
    assert frames.counts == {name: 2 for name in ("energy", "forces", "virial") if name != label}


@pytest.mark.parametrize("electrons, told", [(8, False), (7, True)])
def test_charged_cell(electrons, told, tmp_path, recwarn):
    lines = f"  Ionic Valenz\n   ZVAL   =   1.00  7.00\n   NELECT =    {electrons:9.4f}    total number of electrons\n"
    path = write(tmp_path, outcar(example()).replace("   NELM  ", f"{lines}   NELM  ", 1))
    assert read_outcar(path).charge == 8 - electrons
    read_frames(path)
    found = ["OUTCAR: the cell has a charge of 1 e (NELECT), on which" in str(each.message) for each in recwarn]
    assert found == [True] * told


@pytest.mark.parametrize("form", ["gzip", "windows", "other name", "pv"])
def test_forms(form, tmp_path):
    data = example()
    text, name = (
        outcar(data, kinds=["Na_pv", "Cl"]),
        {"other name": "run1.out", "gzip": "OUTCAR.gz"}.get(form, "OUTCAR"),
    )
    if form == "pv":  # some clusters keep no bodies of the potentials
        text = "\n".join(line for line in text.split("\n") if "VRHFIN" not in line)
    content = text.replace("\n", "\r\n" if form == "windows" else "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if form == "gzip" else content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames = read_all([tmp_path / name])
    assert [frame.labels["energy"] for frame in frames] == pytest.approx([-7.0, -7.1])
    assert [str(frame.atoms.symbols) for frame in frames] == ["NaCl", "NaCl"]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"electronic": 60}, r"1 of 3 steps did not converge \(NELM\)"),
        ({"learned": True}, "1 of 3 steps are of a machine-learned potential"),
    ],
)
def test_steps_that_are_no_labels(change, reason, tmp_path):
    data = example(n_steps=3)
    data["steps"][1] |= change
    with pytest.warns(UserWarning, match=f"{reason}, and are left out"):
        frames = read_frames(write(tmp_path, outcar(data)))
    assert [frame.labels["energy"] for frame in frames] == pytest.approx([-7.0, -7.2])
    assert np.allclose(frames[1].labels["forces"], data["steps"][2]["forces"], atol=1e-6)


def test_run_that_did_not_finish(tmp_path):
    text = outcar(example(n_steps=3))
    end = text.rindex("FREE ENERGIE")
    with pytest.warns(UserWarning, match="1 of 3 steps did not finish, and are left out"):
        assert len(read_frames(write(tmp_path, text[:end]))) == 2
    with pytest.raises(VaspError, match=r"no step with atoms, energy and forces in it \(1 steps did not finish\)"):
        read_outcar(write(tmp_path, text[: text.index("FREE ENERGIE")]))


def test_constraints_and_other_files_do_not_matter(tmp_path):
    data = example(n_steps=1)
    (tmp_path / "CONTCAR").write_text("cut off")
    (frame,) = read_frames(write(tmp_path, outcar(data)))
    assert np.allclose(frame.labels["forces"], data["steps"][0]["forces"], atol=1e-6)


def test_stress_that_does_not_fit_its_columns(tmp_path):
    data = example(n_steps=1)
    text = outcar(data)
    line = next(line for line in text.split("\n") if "in kB" in line)
    (frame,) = read_frames(write(tmp_path, text.replace(line, "  in kB  ************ 1.0 1.0 1.0 1.0 1.0")))
    assert frame.labels.keys() == {"energy", "forces"}


def test_touching_numbers(tmp_path):
    data = example(n_steps=1)
    data["steps"][0]["fractions"] = np.array([[0.0, 0, 0], [-40.0, -40.0, -40.0]])
    data["steps"][0]["forces"] = np.array([[-100000.5, -200000.5, 0.0], [0.0, 0.0, 0.0]])
    step = read_outcar(write(tmp_path, outcar(data))).steps[0]
    assert np.allclose(step.forces, data["steps"][0]["forces"], atol=1e-6)
    assert np.allclose(step.positions[1], data["steps"][0]["fractions"][1] @ data["cell"], atol=1e-5)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("POSITION ", "PLACE ", "no step with atoms, energy and forces in it .*have no positions and forces"),
        ("TOTEN  =         -7.00000000", "TOTEN  =    *************", "the energy holds something else"),
        ("VRHFIN =Cl", "VRHFIN =Q", "kinds of atoms not understood"),
        (
            "ions per type =              1   1",
            "ions per type =              1   1   1",
            "3 kinds of atoms, 2 potentials",
        ),
    ],
)
def test_damaged(old, new, message, tmp_path):
    text = outcar(example(n_steps=1))
    assert old in text
    with pytest.raises(VaspError, match=message):
        read_outcar(write(tmp_path, text.replace(old, new)))


def test_two_runs(tmp_path):
    other = example(1)
    other["symbols"] = ["Na", "Na"]
    with pytest.raises(VaspError, match="a second run begins; cut the file"):
        read_outcar(write(tmp_path, outcar(example()) + outcar(other)))


def test_folders(tmp_path):
    for name in "a", "b":
        (tmp_path / name).mkdir()
        write(tmp_path / name, outcar(example(n_steps=1)))
    assert [frame.name for frame in read_frames(tmp_path)] == ["a", "b"]
    assert [frame.name for frame in read_all([tmp_path / "b" / "OUTCAR"])] == ["b"]


def test_links_to_folders(tmp_path):
    """Those to a folder beside or above lead to the same run again."""
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", outcar(example(n_steps=1)))
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "above").symlink_to("..")
    assert [frame.name for frame in read_frames(tmp_path)] == ["a"]


def test_no_step_that_converged(tmp_path):
    path = write(tmp_path, outcar(example()).replace("EDIFF is reached", "EDIFF was not reached"))
    with pytest.warns(UserWarning, match="2 of 2 steps did not converge"):
        with pytest.raises(ValueError, match="OUTCAR: got no structures in it, or none that can be used"):
            read_all([path])


def test_packed_by_another_program(tmp_path):
    """ASE reads such files, with steps that did not converge."""
    (tmp_path / "OUTCAR.bz2").write_bytes(bz2.compress(outcar(example()).encode()))
    with pytest.raises(ValueError, match="OUTCAR.bz2: .*compressed by bzip2 or xz, .*: expand it, or use gzip"):
        read_frames(tmp_path / "OUTCAR.bz2")
