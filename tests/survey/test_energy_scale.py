"""Energies per atom, and in other units than forces, among structures of which no two are alike."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from small_survey import labeled, mapped

from ase_mlelec.data.frames import Frame, Frames, to_images
from ase_mlelec.survey import report
from ase_mlelec.survey.energy_scale import CUTOFF, by_forces, by_sizes, coefficients_of, terms
from ase_mlelec.survey.whole import survey
from ase_mlelec.survey.wrong_units import suspicions
from ase_mlelec.units import HARTREE, HARTREE_PER_BOHR


def scattered(n=14, seed=0, sizes=((1, 1, 2),)):
    """Hot copper cells; atoms move so far that no structure is near another."""
    rng, frames = np.random.default_rng(seed), []
    for k in range(n):
        atoms = bulk("Cu", a=3.7, cubic=True) * sizes[k % len(sizes)]
        atoms.positions += rng.normal(0, 0.35, atoms.positions.shape)
        frames.append(labeled(atoms, f"hot-{k}"))
    return Frames(frames)


def per_atom(frames, shift=0.0):
    return Frames(
        [Frame(f.atoms, {**f.labels, "energy": f.labels["energy"] / len(f.atoms) + shift}, f.name) for f in frames]
    )


def found(frames):
    shares, scale = by_sizes(frames, without=[]), by_forces(frames, without=[])
    return [each.text for each in suspicions(None, None, frames, scale=scale, shares=shares)]


def test_forces_are_the_gradient_of_the_pair_potential():
    atoms = Atoms("CuAgCu", [[0, 0, 0], [2.1, 0.3, 0], [0.2, 2.4, 0.4]], cell=[6, 6, 7], pbc=[True, True, False])
    pairs, step = [(29, 29), (29, 47), (47, 47)], 1e-5

    def terms_of(moved):
        forces = np.zeros((3, 3))
        return terms(Frame(moved, {"energy": 0.0, "forces": forces}), pairs)

    _, columns, _ = terms_of(atoms)
    for k in range(9):
        energies = []
        for sign in 1, -1:
            moved = atoms.copy()
            moved.positions.ravel()[k] += sign * step
            energies.append(terms_of(moved)[0])
        np.testing.assert_allclose(columns[k], -(energies[0] - energies[1]) / (2 * step), atol=1e-8)
    far = Atoms("Cu2", [[0, 0, 0], [0, 0, CUTOFF - 1e-4]])
    assert abs(terms(Frame(far, {"energy": 0.0, "forces": np.zeros((2, 3))}), pairs)[0]).max() < 1e-8


def test_a_pair_potential_is_found_again():
    """From forces of a pair potential its energies follow, up to a constant."""
    rng, frames = np.random.default_rng(1), []
    coefficients, pairs = rng.normal(0, 1, 12), [(29, 29)]
    for frame in scattered(10):
        energy, columns, _ = terms(frame, pairs)
        frames.append(
            Frame(
                frame.atoms, {"energy": float(energy @ coefficients), "forces": (columns @ coefficients).reshape(-1, 3)}
            )
        )
    rows = [terms(frame, pairs) for frame in frames]
    fitted, explained = coefficients_of(rows)
    energies = np.array([row[0] for row in rows]) @ fitted
    expected = np.array([frame.labels["energy"] for frame in frames])
    assert explained == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(energies - energies.mean(), expected - expected.mean(), atol=1e-3 * expected.std())
    assert by_forces(Frames(frames), without=[]).value == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_belong_together(seed):
    frames = scattered(seed=seed)
    assert not found(frames) and by_forces(frames, without=[]).value == pytest.approx(1, abs=0.25)


def test_energies_per_atom():
    (text,) = found(per_atom(scattered(), shift=-1234.5))
    assert "energies of 14 structures vary 0.1" in text and "as with energies per atom; multiply them by" in text


def test_energies_in_hartree():
    (text,) = found(mapped(scattered(), energy=lambda energy: energy / HARTREE))
    assert "energies in Hartree, forces in eV/Å" in text


def test_both_in_atomic_units():
    """Only 1/bohr is left of them."""
    (text,) = found(mapped(scattered(), energy=lambda e: e / HARTREE, forces=lambda f: f / HARTREE_PER_BOHR))
    assert "energies in Hartree and forces in Hartree/bohr" in text


def test_crystals_and_molecules_of_the_same_atoms():
    frames = scattered(10).frames
    alone = [Atoms(f.atoms.numbers, f.atoms.positions) for f in scattered(10, seed=1)]
    assert not found(Frames([*frames, *map(labeled, alone)]))


def test_forces_of_the_wrong_sign():
    (text,) = found(mapped(scattered(), forces=np.negative))
    assert "the forces have the wrong sign; correct the labels" in text


def test_energies_per_atom_of_several_sizes():
    """They are told by the sizes alone; energies relative to atoms near zero tell nothing, and are no alarm."""
    frames = scattered(12, sizes=((1, 1, 1), (1, 1, 2), (2, 2, 1)))
    shifted = mapped(frames, energy=lambda energy: energy)
    for frame in shifted:
        frame.labels["energy"] -= 100.0 * len(frame.atoms)
    without_forces = [
        Frames([Frame(f.atoms, {"energy": f.labels["energy"]}) for f in each])
        for each in (shifted, frames, per_atom(frames), per_atom(shifted))
    ]
    texts = [found(each) for each in without_forces]
    assert texts[:3] == [[], [], []]
    assert "energies do not grow with the numbers of atoms, as with energies per atom" in texts[3][0]


def test_survey_of_a_file(tmp_path):
    write(tmp_path / "a.extxyz", to_images(per_atom(scattered())))
    seen = survey([tmp_path / "a.extxyz"])
    assert seen.force_factor is None and "energies per atom" in seen.suspicions[0].text
    assert "SUSPICIOUS" in report(seen) and "a pair potential that is fitted to the forces" in report(seen)
