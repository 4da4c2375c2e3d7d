"""Sign, unit and order of elements of stresses, by a pair potential that is fitted to the forces."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from small_survey import labeled, mapped

from ase_mlelec.data.frames import Frame, Frames, to_images
from ase_mlelec.survey.choices import configuration
from ase_mlelec.survey.energy_scale import terms
from ase_mlelec.survey.stress_scale import stress_by_forces, virial_terms
from ase_mlelec.survey.whole import survey
from ase_mlelec.survey.wrong_units import suspicions
from ase_mlelec.units import GPA

PLACES = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def moving(n=12, seed=0):
    """Copper atoms that move in one cell, as in molecular dynamics: no energies of strained cells."""
    rng, frames = np.random.default_rng(seed), []
    for k in range(n):
        atoms = bulk("Cu", a=3.6, cubic=True) * (2, 1, 1)
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        frames.append(labeled(atoms, f"step-{k}"))
    return Frames(frames)


def found(frames):
    stress = stress_by_forces(frames, without=[])
    return [(each.text, each.stress_unit) for each in suspicions(None, None, frames, stress_scale=stress)]


def in_order(*names):
    """Function of a virial that reads the six numbers of other elements as those in ASE's order."""

    def read(virial):
        result = np.diag(np.diag(virial))
        for place, name in zip(("yz", "xz", "xy"), names):
            i, j = PLACES[place]
            result[i, j] = result[j, i] = virial[PLACES[name]]
        return result

    return read


def test_virials_are_derivatives_of_the_pair_potential():
    atoms = Atoms(
        "CuAgCu", [[0, 0, 0], [2.1, 0.3, 0], [0.2, 2.4, 0.4]], cell=[[6, 0, 0], [1, 6, 0], [0, 0.5, 5]], pbc=True
    )
    pairs, step = [(29, 29), (29, 47), (47, 47)], 1e-5
    columns = virial_terms(Frame(atoms, {}), pairs).reshape(3, 3, -1)
    for a in range(3):
        for b in range(3):
            energies = []
            for sign in 1, -1:
                strain, moved = np.eye(3), atoms.copy()
                strain[a, b] += sign * step
                moved.set_cell(atoms.cell.array @ strain.T, scale_atoms=True)
                energies.append(terms(Frame(moved, {"energy": 0.0, "forces": np.zeros((3, 3))}), pairs)[0])
            np.testing.assert_allclose(columns[a, b], -(energies[0] - energies[1]) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_belong_together(seed):
    frames = moving(seed=seed)
    assert not found(frames) and stress_by_forces(frames, without=[]).factor.value == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    "factor, unit, meaning",
    [
        (-1, "-eV/A^3", "it looks as if it were positive under pressure"),
        (1 / GPA, "GPa", "in GPa; stress_unit"),
        (-10 / GPA, "-kbar", "in kbar and positive under pressure"),
        (1e-5, "", "times too small; correct it and write"),
    ],
)
def test_signs_and_units_without_strained_cells(factor, unit, meaning):
    ((text, mended),) = found(mapped(moving(), virial=lambda virial: factor * virial))
    assert mended == unit and "the stress of 12 structures varies" in text
    assert meaning in text


@pytest.mark.parametrize("names, program", [("xy yz xz", " (VASP's)"), ("xy xz yz", " (LAMMPS')"), ("xz yz xy", "")])
@pytest.mark.parametrize("sign", [1, -1])
def test_orders_of_the_elements(names, program, sign):
    read = in_order(*names.split())
    texts = found(mapped(moving(), virial=lambda virial: sign * read(virial)))
    assert len(texts) == 1 + (sign < 0)
    assert (
        f"fit the forces in the order {', '.join(names.split())}{program}, and are read in that of ASE" in texts[-1][0]
    )


def test_few_strained_structures_of_another_order_do_not_decide():
    """Large shears with the right order, and many small stresses in another one."""
    frames, read = moving(16), in_order("xy", "yz", "xz")
    for k, frame in enumerate(frames):
        if k < 2:
            strain = np.eye(3)
            strain[0, 1] = strain[1, 0] = 0.05
            frame.atoms.set_cell(frame.atoms.cell.array @ strain, scale_atoms=True)
            frame.labels = labeled(frame.atoms).labels
        else:
            frame.labels["virial"] = read(frame.labels["virial"])
    assert stress_by_forces(frames, without=[]).order == "xy, yz, xz (VASP's)"


def test_what_tells_nothing():
    """Few structures, no stress, molecules, and forces that no pair potential explains."""
    frames, rng = moving(), np.random.default_rng(0)
    alone = [Frame(Atoms(f.atoms.numbers, f.atoms.positions), f.labels) for f in frames]
    noise = mapped(frames, forces=lambda forces: rng.normal(0, 1, forces.shape))
    bare = [Frame(f.atoms, {name: f.labels[name] for name in ("energy", "forces")}) for f in frames]
    for each in (frames.take(range(5)), Frames(alone), noise, Frames(bare)):
        assert stress_by_forces(each, without=[]) == (None, "")


def test_survey_of_a_file(tmp_path):
    write(tmp_path / "a.extxyz", to_images(mapped(moving(), virial=np.negative)))
    seen = survey([tmp_path / "a.extxyz"])
    assert seen.stress_factor is None and [each.stress_unit for each in seen.suspicions] == ["-eV/A^3"]


@pytest.mark.parametrize(
    "given, right", [("kbar", "-kbar"), ("eV/A^3", "-kbar"), ("-kbar", "-kbar"), ("-eV/A^3", "-kbar")]
)
def test_units_that_were_given_are_corrected(given, right, tmp_path):
    """The configuration names one unit, with which the data are right."""
    frames = mapped(moving(), virial=lambda virial: -10 / GPA * virial)
    path = tmp_path / "a.extxyz"
    write(path, to_images(frames))
    found = survey([path], keys={"stress_unit": given})
    text = configuration(found, tmp_path / "a.toml")
    assert text.count(f'\nstress_unit = "{right}"') == text.count("\nstress_unit") == 1
    assert bool(found.suspicions) == (given != right)
    assert not survey([path], keys={"stress_unit": right}).suspicions


@pytest.mark.parametrize("sign", [1, -1])
def test_a_stress_in_another_order_is_not_left_out(tmp_path, sign):
    """Its diagonal is right, once the sign is; the warning says how to leave it out."""
    read = in_order("xy", "yz", "xz")
    write(tmp_path / "a.extxyz", to_images(mapped(moving(), virial=lambda virial: sign * read(virial))))
    text = configuration(survey([tmp_path / "a.extxyz"]), tmp_path / "a.toml")
    assert "virial = [0.0, 0.0]" not in text and ('stress_unit = "-eV/A^3"' in text) == (sign < 0)
    assert "# WARNING: elements of the stress beside the diagonal fit the forces in the order xy, yz, xz" in text


def test_stress_in_place_of_a_virial():
    """Where the data have virials, and no unit can be named for them."""
    frames = moving()
    volume = frames[0].atoms.get_volume()
    stresses = mapped(frames, virial=lambda virial: -virial / volume)
    scale = stress_by_forces(stresses, without=[])
    (suspicion,) = suspicions(None, None, stresses, stress_scale=scale, convertible=False)
    assert "or minus the virial divided by the volume, in place of the virial; correct it" in suspicion.text
    (suspicion,) = suspicions(None, None, stresses, stress_scale=scale)
    assert "in place of" not in suspicion.text
