"""vaspout.h5: numbers that were written into it, the same as in vasprun.xml, and files that are not read."""

import re

import h5py
import numpy as np
import pytest
from small_vasp import example, vaspout, vasprun

from ase_mlelec import units
from ase_mlelec.data.frames import read_all, read_frames
from ase_mlelec.io.vasp import VaspError, read_vasprun
from ase_mlelec.io.vaspout import is_vaspout, read_vaspout


@pytest.mark.parametrize("scale, label", [(1.0, "free energy    TOTEN   "), (1.25, "ion-electron   TOTEN    ")])
def test_what_was_written(tmp_path, scale, label):
    data, path = example(n_steps=3), tmp_path / "vaspout.h5"
    vaspout(path, data, scale=scale, label=label)
    found = read_vaspout(path)
    assert is_vaspout(path) and found.symbols == ["Na", "Cl"] and found.left_out == {}
    for step, own in zip(found.steps, data["steps"], strict=True):
        assert step.energy == pytest.approx(own["energy"], abs=1e-12) and step.converged
        np.testing.assert_allclose(step.cell, data["cell"], atol=1e-12)
        np.testing.assert_allclose(step.positions, own["fractions"] @ data["cell"], atol=1e-12)
        np.testing.assert_allclose(step.forces, own["forces"], atol=1e-12)
        np.testing.assert_allclose(step.stress, -own["stress"] * units.GPA / 10, atol=1e-12)


def test_the_same_as_vasprun(tmp_path):
    data = example(n_steps=2)
    vaspout(tmp_path / "vaspout.h5", data)
    (tmp_path / "vasprun.xml").write_text(vasprun(data))
    pairs = zip(read_vaspout(tmp_path / "vaspout.h5").steps, read_vasprun(tmp_path / "vasprun.xml").steps, strict=True)
    for step, other in pairs:
        assert step.energy == pytest.approx(other.energy, abs=1e-7)
        for name in ("cell", "positions", "forces", "stress"):
            np.testing.assert_allclose(getattr(step, name), getattr(other, name), atol=1e-7)


def test_as_a_data_set(tmp_path):
    """By itself, under another name, in a folder, beside OUTCAR of another run; without energies that did not converge."""
    data = example(n_steps=3)
    data["steps"][1]["failed"] = True
    (tmp_path / "run").mkdir()
    vaspout(tmp_path / "run/vaspout.h5", data)
    vaspout(tmp_path / "other.h5", example(seed=1, n_steps=3), converged=False)
    with pytest.warns(UserWarning, match=r"vaspout.h5: 1 of 3 steps did not converge \(NELM\), and are left out"):
        frames = read_frames(tmp_path / "run/vaspout.h5")
    assert frames.counts == {"energy": 2, "forces": 2, "virial": 2} and frames[1].name == "run-2"
    with pytest.warns(UserWarning):
        assert len(read_all([tmp_path / "run", tmp_path / "other.h5"])) == 5


def test_step_that_was_being_written(tmp_path):
    path = tmp_path / "vaspout.h5"
    vaspout(path, example(n_steps=3))
    with h5py.File(path, "a") as file:
        group = file["intermediate/ion_dynamics"]
        for name in ("energies", "stress", "electronic_step_converged"):
            values = group[name][:2]
            del group[name]
            group[name] = values
    with pytest.warns(UserWarning, match="1 of 3 steps did not finish"):
        assert len(read_frames(path)) == 2


@pytest.mark.parametrize(
    "name, value, message",
    [
        (
            "energies_tags",
            np.array(["a", "b", "c"], dtype="S8"),
            "energies_tags are a, b, c, need one of free energy TOTEN",
        ),
        ("position_ions", np.zeros((1, 2, 3)), "its steps do not belong together .3 of energies.* as with NBLOCK"),
        ("forces", np.zeros((3, 1, 3)), "forces has shape .3, 1, 3., need .any, 2, 3."),
        ("stress", np.full((3, 3, 3), np.nan), "stress is NaN or infinite"),
        ("energies", None, "cannot be read .no /intermediate/ion_dynamics/energies in it"),
    ],
)
def test_damage(tmp_path, name, value, message):
    path = tmp_path / "vaspout.h5"
    vaspout(path, example(n_steps=3))
    with h5py.File(path, "a") as file:
        del file[f"intermediate/ion_dynamics/{name}"]
        if value is not None:
            file[f"intermediate/ion_dynamics/{name}"] = value
    with pytest.raises(VaspError, match=f"vaspout.h5.*{message}"):
        read_frames(path)


@pytest.mark.parametrize(
    "incar, message",
    [
        ({"PSTRESS": "20"}, "PSTRESS = 20, and the file does not tell .* give vasprun.xml or OUTCAR"),
        ({"ICHARG": "11"}, "its density is kept as it was read .ICHARG = 11.*give the run that made the density"),
        (
            {"ICHARG": "12"},
            "kept as it began, as the sum of those of atoms .ICHARG = 12.*give the run that made the density",
        ),
        ({"ML_LMLFF": ".TRUE."}, "of a run with ML_LMLFF.* give ML_ABN or OUTCAR"),
    ],
)
def test_settings(tmp_path, incar, message):
    path = tmp_path / "vaspout.h5"
    vaspout(path, example(), ENCUT=400, **incar)
    with pytest.raises(VaspError, match=message):
        read_frames(path)
    vaspout(path, example(), ENCUT=400, **dict.fromkeys(incar, "0"))
    assert len(read_frames(path)) == 2


@pytest.mark.parametrize(
    "incar, message, counts",
    [
        ({"EFIELD_PEAD": "0.0 0.0 0.01"}, "vaspout.h5: it is in an electric field", 3),
        ({"ISIF": "1"}, "vaspout.h5: the stress is not read, as with ISIF = 1", 2),
        ({"NELECT": "7.0"}, r"vaspout.h5: the cell has a charge of 1 e \(NELECT\)", 3),
        ({"NELECT": "8.0", "EFIELD": "0.0", "ISIF": "2"}, "", 3),
    ],
)
def test_settings_that_are_told(tmp_path, incar, message, counts, recwarn):
    path = tmp_path / "vaspout.h5"
    vaspout(path, example(), **incar)
    with h5py.File(path, "a") as file:
        file["input/potcar/content"] = b"   POMASS =   22.9; ZVAL   =    1.000\n   POMASS =   35.4; ZVAL   =    7.000\n"
    assert len(read_frames(path).counts) == counts
    assert len(recwarn) == bool(message) and all(re.search(message, str(each.message)) for each in recwarn)


def test_without_steps(tmp_path):
    with h5py.File(tmp_path / "vaspwave.h5", "w") as file:
        file["version/major"] = 6
        file["results/positions/scale"] = 1.0
    with pytest.raises(VaspError, match="vaspwave.h5: no intermediate/ion_dynamics in it.* give vasprun.xml or OUTCAR"):
        read_frames(tmp_path / "vaspwave.h5")
