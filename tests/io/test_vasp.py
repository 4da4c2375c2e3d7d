"""vasprun.xml: numbers that were written into it, and the same as ASE reads."""

import gzip

import ase.io
import numpy as np
import pytest
from small_vasp import example, row, vasprun

from ase_mlelec import units
from ase_mlelec.io.vasp import VaspError, has_projections, read_vasprun


def write(folder, data, name="vasprun.xml", **parameters):
    path = folder / name
    path.write_text(vasprun(data, **parameters))
    return path


@pytest.mark.parametrize("spins", [1, 2])
def test_what_was_written(tmp_path, spins):
    data = example(spins=spins)
    path = write(tmp_path, data, ISPIN=spins)
    run = read_vasprun(path)
    assert run.symbols == ["Na", "Cl"] and run.valence == data["valence"] and run.n_electrons == 8
    assert run.mesh == "Gamma 2 1 1" and run.fermi_level == 0 and run.parameters["version"] == "6.3.0"
    for step, own in zip(run.steps, data["steps"], strict=True):
        assert step.energy == pytest.approx(own["energy"], abs=1e-8) and step.converged
        np.testing.assert_allclose(step.cell, data["cell"], atol=1e-8)
        np.testing.assert_allclose(step.positions, own["fractions"] @ data["cell"], atol=1e-7)
        np.testing.assert_allclose(step.forces, own["forces"], atol=1e-8)
        np.testing.assert_allclose(step.stress, -own["stress"] * 0.1 * units.GPA, atol=1e-9)
    bands = run.projections
    np.testing.assert_allclose(bands.eigenvalues, data["eigenvalues"].reshape(-1, 6), atol=1e-8)
    np.testing.assert_allclose(bands.site_weights, data["shares"].sum(axis=4).reshape(-1, 6, 2), atol=1e-7)
    np.testing.assert_allclose(bands.kpoint_weights, np.tile([0.25, 0.75], spins) * 2 / spins)
    assert bands.kpoint_weights.sum() == pytest.approx(2.0)


def test_steps_are_those_of_ase(tmp_path):
    """ASE's free energy, forces and stress; its energy is extrapolated to zero smearing and not what forces belong to."""
    path = write(tmp_path, example())
    images = ase.io.read(path, ":", format="vasp-xml")
    for step, atoms in zip(read_vasprun(path).steps, images, strict=True):
        assert atoms.calc.results["free_energy"] == pytest.approx(step.energy, abs=1e-8)
        assert atoms.calc.results["energy"] == pytest.approx(step.energy + 0.01, abs=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), step.forces, atol=1e-8)
        np.testing.assert_allclose(atoms.get_stress(voigt=False), step.stress, atol=1e-8)
        np.testing.assert_allclose(atoms.positions, step.positions, atol=1e-7)


def test_spinors_and_points_without_weight(tmp_path):
    """Of spinors the components of the magnetization follow the total; points without weight are of a band structure."""
    data = example()
    data["shares"] = np.concatenate([data["shares"], -data["shares"], data["shares"], data["shares"]])
    bands = read_vasprun(write(tmp_path, data, LNONCOLLINEAR=True)).projections
    np.testing.assert_allclose(bands.site_weights, data["shares"][0].sum(axis=3), atol=1e-7)
    assert bands.kpoint_weights.sum() == pytest.approx(1.0)
    data = example() | {"weights": [1.0, 0.0]}
    bands = read_vasprun(write(tmp_path, data)).projections
    np.testing.assert_allclose(bands.eigenvalues, data["eigenvalues"][0, :1], atol=1e-8)
    np.testing.assert_allclose(bands.kpoint_weights, [2.0])


def test_further_kpoints_within_a_calculation(tmp_path):
    """KPOINTS_OPT of VASP 6 writes further points, bands and projections beside those of the calculation."""
    data = example(n_steps=1)
    path = write(tmp_path, data)
    more = '<kpoints><varray name="weights"><v>1.0</v></varray></kpoints>'
    more += '<projected_kpoints_opt><array><set><set comment="spin1"><set comment="kpoint 1"><set comment="band 1">'
    more += "<r>9 9 9 9</r></set></set></set></set></array></projected_kpoints_opt>"
    path.write_text(path.read_text().replace("</calculation>", f"{more}</calculation>"))
    np.testing.assert_allclose(read_vasprun(path).projections.kpoint_weights, [0.5, 1.5])


def test_without_projections(tmp_path):
    path = write(tmp_path, example() | {"shares": None})
    assert read_vasprun(path).projections is None and not has_projections(path)
    path = write(tmp_path, example())
    assert has_projections(path)
    packed = tmp_path / "vasprun.xml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert has_projections(packed) and len(read_vasprun(packed).steps) == 2


def test_electrons_that_did_not_converge(tmp_path):
    data = example()
    data["steps"][0]["scsteps"] = [-1.0, -6.0, -7.0]
    assert [step.converged for step in read_vasprun(write(tmp_path, data, NELM=3)).steps] == [False, True]
    assert [step.converged for step in read_vasprun(write(tmp_path, data, NELM=4)).steps] == [True, True]
    data["steps"][0]["scsteps"], data["steps"][1]["scsteps"] = [-7.0], [-7.1]
    for nelm, converged in (
        (1, False),
        (60, True),
    ):  # of a single step, which was all that was allowed, it is not known
        assert [step.converged for step in read_vasprun(write(tmp_path, data, NELM=nelm)).steps] == [converged] * 2


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("</modeling>", "</model>", "truncated or not XML .*; the file is damaged or VASP did not finish"),
        ('<set comment="band 6">', '<set comment="no">', "the projections are of other bands or atoms"),
        ("<c>Na</c>", "<c>Xq</c>", "<atominfo> not understood .*begins with no chemical symbol"),
        ("<v>      0.25000000 </v>", "<v>      -0.2500000 </v>", "no positive weights"),
        (
            '"e_fr_energy"> -7.00000000',
            '"e_fr_energy"> ********',
            "step 1: the energy holds something else than numbers",
        ),
        ('"e_fr_energy"> -7.00000000', '"e_fr_energy"> NaN', "step 1: the energy is NaN or infinite"),
        ('<i name="NELECT"> 8.0  </i>', "", "no NELECT in its <parameters>"),
        ('<varray name="weights" >', '<varray name="other" >', "no weights of the k-points"),
        ('<varray name="basis" >', '<varray name="none" >', "step 1: no structure or no energy"),
    ],
)
def test_damaged_files(tmp_path, old, new, message):
    path = write(tmp_path, example())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(VaspError, match=message):
        read_vasprun(path)


def test_missing_and_other_files(tmp_path):
    with pytest.raises(VaspError, match="no such file; give vasprun.xml"):
        read_vasprun(tmp_path / "none.xml")
    (tmp_path / "other.xml").write_text("<modeling><generator/></modeling>")
    with pytest.raises(VaspError, match="no calculation in it"):
        read_vasprun(tmp_path / "other.xml")


def test_run_that_did_not_finish(tmp_path):
    path = write(tmp_path, example(n_steps=3))
    text = path.read_text()
    second = text.index("<calculation>", text.index("<calculation>", text.index("<calculation>") + 1) + 1)
    for end in (second + 5, second + 300, len(text) - 20):
        path.write_text(text[:end])
        n_steps = 2 if end < len(text) - 20 else 3
        with pytest.warns(UserWarning, match=f"ends early, the {n_steps} steps before are read and no bands"):
            found = read_vasprun(path)
        assert [step.energy for step in found.steps] == pytest.approx([-7.0, -7.1, -7.2][:n_steps])
        assert found.projections is None
    path.write_text(text[: text.index("</calculation>")])
    with pytest.raises(VaspError, match="truncated or not XML"):
        read_vasprun(path)


def test_pressure_of_the_input_is_not_in_the_energy(tmp_path):
    data = example()
    plain = read_vasprun(write(tmp_path, data)).steps[0]
    step = read_vasprun(write(tmp_path, data, PSTRESS=10.0)).steps[0]
    volume = abs(np.linalg.det(data["cell"]))
    assert step.energy == pytest.approx(plain.energy - 1e9 * volume * 1e-30 / 1.602176634e-19, abs=1e-8)
    assert np.array_equal(step.stress, plain.stress)


def test_steps_of_a_learned_potential(tmp_path):
    data = example(n_steps=3)
    data["steps"][1]["scsteps"] = []
    path = write(tmp_path, data)
    assert len(read_vasprun(path).steps) == 3
    incar = '<incar>\n<i type="logical" name="ML_LMLFF"> T  </i>\n</incar>\n<kpoints>'
    path.write_text(path.read_text().replace("<kpoints>", incar))
    found = read_vasprun(path)
    assert [step.energy for step in found.steps] == pytest.approx([-7.0, -7.2])
    assert found.left_out == {"are of a machine-learned potential": 1}


def test_born_charges(tmp_path):
    path, charges = write(tmp_path, example(n_steps=1)), np.random.default_rng(3).normal(0, 2, (2, 3, 3)).round(8)
    sets = "".join("<set>\n" + "".join(row(each) for each in atom) + "</set>\n" for atom in charges)
    array = f'<array name="born_charges" >\n<dimension dim="1">ion</dimension>\n{sets}</array>\n'
    path.write_text(path.read_text().replace("</calculation>", f"{array}</calculation>"))
    assert np.allclose(read_vasprun(path).steps[0].born_charges, charges, atol=1e-12)
    path.write_text(path.read_text().replace(sets, sets[: len(sets) // 2]))
    with pytest.raises(VaspError, match="Born charges of 1 atoms, need 2"):
        read_vasprun(path)
