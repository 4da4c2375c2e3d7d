import numpy as np
import pytest
from ase.build import molecule
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from small_survey import clean, labeled, mapped

from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.survey.derivatives import compare, factors, find_pairs, moves, weighted_median
from ase_mlelec.survey.wrong_units import suspicions
from ase_mlelec.units import BOHR, GPA, HARTREE, KCAL_PER_MOL


def looked_at(frames):
    return suspicions(*factors(find_pairs(frames), frames), frames)


def test_trapezoidal_rule_is_exact_for_springs():
    """In a quadratic potential the energy difference of any two structures is the work of the mean force."""
    rng = np.random.default_rng(0)
    atoms = molecule("CH4")
    spring, rest = rng.normal(size=(15, 15)), atoms.positions.copy()
    spring = spring @ spring.T
    spring = np.einsum("iajb,ic,jd->cadb", spring.reshape(5, 3, 5, 3), np.eye(5) - 0.2, np.eye(5) - 0.2).reshape(15, 15)
    frames = []
    for _ in range(2):
        moved = rng.normal(0, 0.1, (5, 3))
        atoms = atoms.copy()
        atoms.set_cell([9, 9, 9])
        atoms.pbc, atoms.positions = True, rest + moved
        x = moved.ravel()
        frames.append(Frame(atoms, {"energy": 0.5 * x @ spring @ x, "forces": -(spring @ x).reshape(5, 3)}))
    energy, work, strain_work, strained, _ = compare(*frames)
    assert energy == pytest.approx(work, rel=1e-9) and not strained and np.isnan(strain_work)


def test_strain_between_cells():
    atoms = clean(1)[0].atoms
    strain = np.array([[0.02, 0.01, 0], [0.01, -0.03, 0.005], [0, 0.005, 0.01]])
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ expm(strain), scale_atoms=True)
    displacement, found, _ = moves(atoms, other)
    assert abs(found - strain).max() < 1e-5 and abs(displacement).max() < 1e-12
    other.positions[0] += other.cell[1]  # another image of the same atom
    assert abs(moves(atoms, other)[0]).max() < 1e-12
    turned = atoms.copy()
    turned.rotate(5, "z", rotate_cell=True)
    assert moves(atoms, turned) is None


def test_molecules_are_turned_onto_each_other():
    first = molecule("CH3CH2OH")
    second = first.copy()
    second.positions[3] += [0.1, 0, 0.05]
    turned = second.copy()
    turned.positions = Rotation.from_rotvec([1, 2, 3]).apply(second.positions) + 5
    for other in (second, turned):
        displacement, strain, _ = moves(first, other)
        assert not strain.any() and (displacement**2).sum() < 0.1**2 + 0.05**2 + 1e-12
    assert moves(first, second)[0] == pytest.approx(moves(first, turned)[0], abs=1e-9)


def test_forces_turn_with_molecules():
    """Energy differences are the work of the forces however the molecules are turned."""
    rng, frames = np.random.default_rng(1), []
    for k in range(8):
        atoms = molecule("CH3OH")
        atoms.set_chemical_symbols(["Cu"] * 6)
        atoms.positions = 1.8 * atoms.positions + rng.normal(0, 0.03, (6, 3))
        atoms.positions = Rotation.random(random_state=k).apply(atoms.positions)
        frames.append(labeled(atoms))
    forces, stress = factors(find_pairs(Frames(frames)), Frames(frames))
    assert forces.value == pytest.approx(1, abs=0.05) and stress is None


def test_labels_that_belong_together():
    frames = clean(24)
    forces, stress = factors(find_pairs(frames), frames)
    assert forces.value == pytest.approx(1, abs=0.1) and stress.value == pytest.approx(1, abs=0.1)
    assert not suspicions(forces, stress, frames)


@pytest.mark.parametrize(
    "change, factor, words",
    [
        ({"energy": lambda e: e / HARTREE}, 1 / HARTREE, "energies in Hartree"),
        ({"energy": lambda e: 2 * e / HARTREE}, 2 / HARTREE, "energies in Rydberg"),
        ({"energy": lambda e: e / 8}, 1 / 8, "energies per atom"),
        ({"energy": lambda e: e / KCAL_PER_MOL}, 1 / KCAL_PER_MOL, "energies in kcal/mol"),
        ({"forces": lambda f: f * BOHR / HARTREE}, HARTREE / BOHR, "forces in Hartree/bohr"),
        ({"forces": lambda f: 2 * f * BOHR / HARTREE}, HARTREE / BOHR / 2, "forces in Rydberg/bohr"),
        (
            {"energy": lambda e: 2 * e / HARTREE, "forces": lambda f: 2 * f * BOHR / HARTREE},
            1 / BOHR,
            "both in Rydberg",
        ),
        ({"forces": lambda f: -f}, -1.0, "the wrong sign"),
        ({"forces": lambda f: 3 * f}, 1 / 3, "do not belong together"),
    ],
)
def test_units_of_energies_and_forces(change, factor, words):
    frames = mapped(clean(24), **change)
    found = factors(find_pairs(frames), frames)[0]
    assert found.value == pytest.approx(factor, rel=0.1)
    assert any(words in each.text for each in looked_at(frames))


def test_wrong_sign_in_few_structures():
    """A quarter of the pairs, those that are nearest, are too few then; all of them are enough."""
    few = Frames([frame for frame in clean(16) if not frame.name.endswith(("1", "3", "5", "7", "9"))])
    assert len(few) == 8 and not looked_at(few)
    assert any("the wrong sign" in each.text for each in looked_at(mapped(few, forces=lambda f: -f)))


@pytest.mark.parametrize(
    "factor, unit", [(1 / GPA, "GPa"), (10 / GPA, "kbar"), (-10 / GPA, "-kbar"), (-1, "-eV/A^3"), (1e-3, "")]
)
def test_units_of_stresses(factor, unit):
    frames = mapped(clean(24), virial=lambda value: factor * value)
    (found,) = looked_at(frames)
    assert found.stress_unit == unit and "stress" in found.text
    assert unit or "times too small" in found.text


def test_nothing_is_said_about_few_or_unlike_structures():
    few = mapped(clean(3), energy=lambda e: e / HARTREE)
    assert not looked_at(few)
    rng = np.random.default_rng(0)
    unlike = clean(12)
    for frame in unlike:
        frame.atoms.positions += rng.normal(0, 1.0, frame.atoms.positions.shape)
    assert factors(find_pairs(unlike), unlike) == (None, None)


def test_labels_of_zeros():
    frames = mapped(clean(4), forces=lambda f: 0 * f)
    assert [each.text for each in looked_at(frames)] == [
        "all 4 labels 'forces' are zero; if none were calculated, set forces = [0, 0] in [energy]"
    ]


def test_weighted_median():
    assert weighted_median([3.0, 1.0, 2.0], [1, 1, 5]) == 2.0
    assert weighted_median([3.0, 1.0, 2.0], [9, 1, 5]) == 3.0


def test_stresses_that_no_matter_has():
    """Their unit shows where no pair of structures tells it: one structure, and cells that differ too much."""
    frames = clean(12)
    for k, frame in enumerate(frames):
        frame.atoms.set_cell(frame.atoms.cell.array * (1 + 0.1 * k), scale_atoms=True)
    assert not suspicions(None, None, frames)  # up to 20 GPa
    for unit, factor in ("kbar", 10), ("GPa", 1):
        for frame in frames:
            frame.labels["virial"] = frame.atoms.get_volume() * factor * np.diag([15.0, 12.0, 18.0])
        (found,) = suspicions(None, None, frames)
        assert f"the stress, {18 * factor / GPA:.2g} GPa (median), is beyond any of matter" in found.text
        assert f'"{unit}"' in found.text and found.label == "stress"
        (found,) = suspicions(None, None, frames, convertible=False)
        assert found.text.endswith("correct it and write the data again")


def test_repeated_structures_tell_nothing_new():
    """Of three structures, each four times, there are too few pairs for a statement; molecules may be turned and moved."""
    crystals = clean(6).take([0, 2, 4])
    molecules = []
    for seed in range(3):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=seed)
        molecules.append(labeled(atoms))
    for three in (crystals, Frames(molecules)):
        assert factors(find_pairs(three), three) == (None, None)
        again = Frames([frame for frame in three for _ in range(4)])
        assert len(find_pairs(again).frames) > 8 and factors(find_pairs(again), again) == (None, None)
    places = Frames([elsewhere(frame, turn) for frame in molecules for turn in (0, 30, 60, 90)])
    assert len(find_pairs(places).frames) > 8 and factors(find_pairs(places), places) == (None, None)


def elsewhere(frame, degrees):
    """A molecule that is turned and moved, with its forces."""
    rotation = Rotation.from_euler("xyz", [degrees, 2 * degrees, 7], degrees=True).as_matrix()
    atoms = frame.atoms.copy()
    atoms.positions = atoms.positions @ rotation.T + degrees
    return Frame(atoms, frame.labels | {"forces": frame.labels["forces"] @ rotation.T}, frame.name)
