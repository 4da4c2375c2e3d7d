"""Every finding with a planted defect; a clean set gives none."""

import numpy as np
import pytest
from ase import Atoms
from small_survey import clean, labeled, trajectory

from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.survey import whole
from ase_mlelec.survey.derivatives import find_pairs
from ase_mlelec.survey.labels import fit_energies, pressures, spread_of
from ase_mlelec.survey.sources import FRAMES, Source


@pytest.fixture
def look(monkeypatch):
    """Function from Frames to their Survey."""

    def function(frames):
        monkeypatch.setattr(whole, "source_of", lambda *args, **options: Source(["here"], FRAMES, frames))
        return whole.survey(["here"])

    return function


def test_clean_sets(look):
    for frames in (clean(24), trajectory(12), clean(2)):
        found = look(frames)
        assert not found.misfits and not found.suspicions


@pytest.mark.parametrize(
    "label, change, words",
    [
        ("energy", lambda e: e + 8.0, "eV/atom from the others'"),
        ("energy", lambda e: e + 0.4, "off what forces say"),
        ("forces", lambda f: f + np.array([[0.2, 0, 0]] * len(f)), "its forces add up to 0.2 eV/Å per atom"),
        ("forces", lambda f: 100 * f, "forces up to"),
    ],
)
def test_wrong_labels(look, label, change, words):
    frames = clean(30)
    frames[4].labels[label] = change(frames[4].labels[label])
    found = look(frames)
    assert [each.frame for each in found.misfits if words in each.reason] == [4]
    assert not any(each.frame != 4 for each in found.misfits)
    assert found.name(4) == "frame 4 (cu-4)"


@pytest.mark.parametrize("n", [4, 6, 9])
@pytest.mark.parametrize(
    "label, change, words",
    [("energy", lambda e: e + 8.0, "from the others'"), ("forces", lambda f: 100 * f, "forces up")],
)
def test_few_structures(look, label, change, words, n):
    frames = clean(n)
    assert not look(frames).misfits
    frames[2].labels[label] = change(frames[2].labels[label])
    (found,) = look(frames).misfits
    assert found.frame == 2 and words in found.reason and "most have at most" in found.reason


def test_one_of_another_kind_among_few_may_be_right(look):
    frames = clean(6)
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])
    frames.frames.append(
        Frame(dimer, {"energy": 2.0 + 2 * frames[0].labels["energy"] / 4, "forces": np.zeros((2, 3))}, "d")
    )
    (found,) = look(frames).misfits
    assert found.frame == 6 and found.extreme
    frames.frames[6] = Frame(clean(7)[6].atoms, {"energy": 4.0 + frames[0].labels["energy"]}, "d")
    (found,) = look(frames).misfits
    assert found.frame == 6 and not found.extreme


def test_compressed_structures_are_extreme_not_wrong(look):
    frames = clean(30)
    atoms = frames[3].atoms.copy()
    atoms.set_cell(0.6 * atoms.cell.array, scale_atoms=True)
    frames.frames[3] = labeled(atoms, "dense")
    (found,) = look(frames).misfits
    assert found.frame == 3 and found.extreme and "stress up to" in found.reason and "shortest distance" in found.reason


def test_equal_structures_with_different_energies(look):
    frames = clean(24)
    again = Frame(frames[5].atoms.copy(), frames[5].labels | {"energy": frames[5].labels["energy"] + 0.03}, "again")
    found = look(Frames([*frames, again])).misfits
    assert [each.frame for each in found] == [24] and "above frame 5, the same structure" in found[0].reason


def test_isolated_atoms_are_no_misfits(look):
    frames = Frames([*clean(24), labeled(Atoms("Cu"), "atom")])
    found = look(frames)
    assert found.structures.isolated == [24] and not found.misfits and 24 not in found.energies.frames


def test_energies_beyond_a_sum_over_species():
    """Compositions with exact references, and one wrong energy that does not spoil them."""
    rng, frames = np.random.default_rng(0), []
    for k in range(20):
        atoms = Atoms("H" * (1 + k % 4) + "O" * (1 + k % 3), rng.normal(0, 5, (2 + k % 4 + k % 3, 3)))
        frames.append(Frame(atoms, {"energy": -2.0 * (1 + k % 4) - 7.5 * (1 + k % 3)}))
    frames[7].labels["energy"] += 3.0
    found = fit_energies(Frames(frames))
    assert found.references == pytest.approx({"H": -2.0, "O": -7.5}, abs=1e-4)
    assert found.rest[7] == pytest.approx(3.0 / len(frames[7].atoms), abs=1e-4)
    assert abs(np.delete(found.rest, 7)).max() < 1e-4
    water = Frames([Frame(Atoms("H2O"), {"energy": -10.0})] * 3)
    assert fit_energies(water).references == {} and fit_energies(Frames([Frame(Atoms("H"))])) is None


def test_spreads():
    frames = clean(6)
    forces = np.concatenate([frame.labels["forces"] for frame in frames])
    found = spread_of(frames, "forces")
    assert found.rms == pytest.approx((forces**2).mean() ** 0.5)
    assert found.largest.max() == pytest.approx(np.linalg.norm(forces, axis=1).max())
    frame = frames[1]
    stress = -frame.labels["virial"] / frame.atoms.get_volume()
    assert pressures(frames)[1] == pytest.approx(-np.trace(stress) / 3)
    assert spread_of(frames, "virial").largest[1] == pytest.approx(abs(stress).max())
    assert spread_of(frames, "dipole") is None


def test_pairs_without_strain():
    pairs = find_pairs(clean(10))
    kept = pairs.unstrained()
    assert 0 < len(kept.energy) < len(pairs.energy) and not kept.strained.any()
