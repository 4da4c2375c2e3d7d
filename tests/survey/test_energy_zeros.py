"""Energies of two programs or sets of pseudopotentials in one data set."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from small_survey import clean, labeled

from ase_mlelec.data.frames import Frame, Frames, to_images
from ase_mlelec.survey.energy_zeros import two_zeros
from ase_mlelec.survey.labels import fit_energies
from ase_mlelec.survey.whole import survey


def shifted(frames, chosen, shift):
    """The frames with energies of some of them moved, eV/atom."""
    return Frames(
        [
            Frame(f.atoms, {**f.labels, "energy": f.labels["energy"] + (k in chosen) * shift * len(f.atoms)}, f.name)
            for k, f in enumerate(frames)
        ]
    )


def found(frames):
    return two_zeros(frames, fit_energies(frames))


@pytest.mark.parametrize("shift", [-1000.0, 100.0, 15.0, -2.0])
@pytest.mark.parametrize("chosen", [range(3), range(4, 16), (1, 7)])
def test_two_zeros_of_crystals(shift, chosen):
    frames = shifted(clean(20), chosen, shift)
    zeros = found(frames)
    few = zeros.lower if shift < 0 else zeros.upper
    assert sorted(few) == list(chosen) and zeros.apart == pytest.approx(abs(shift), abs=0.2)


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_one_zero(shift):
    assert found(shifted(clean(20), range(8), shift)) is None


def test_single_structures_are_no_group():
    """They are told as such, each by itself."""
    assert found(shifted(clean(20), (3,), 100.0)) is None and found(clean(3)) is None
    assert two_zeros(clean(4), None) is None


def test_matter_of_other_kinds_is_no_other_zero():
    """Molecules, compressed crystals and other compositions are apart by some eV/atom."""
    crystals = clean(10)
    dimers = [labeled(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2 + 0.01 * k]])) for k in range(6)]
    assert found(Frames([*crystals, *dimers])) is None
    dense = []
    for k in range(6):
        atoms = bulk("Cu", a=2.6 + 0.002 * k, cubic=True)
        dense.append(labeled(atoms))
        assert dense[-1].labels["energy"] / 4 > 2  # eV
    assert found(Frames([*crystals, *dense])) is None
    silver = [
        Frame(Atoms("Ag4", f.atoms.positions[:4], cell=f.atoms.cell, pbc=True), {"energy": -400.0}) for f in crystals
    ]
    assert found(Frames([*crystals, *silver])) is None


def test_several_compositions():
    """No sum over species explains two zeros where both have the same compositions."""
    rng, frames = np.random.default_rng(0), []
    for k in range(24):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.numbers[: k % 4] = 47
        frames.append(Frame(atoms, {"energy": -3.0 * 8 - 2 * (k % 4) + rng.normal(0, 0.2)}, f"a-{k}"))
    assert found(Frames(frames)) is None
    zeros = found(shifted(frames, range(12), -50.0))
    assert sorted(zeros.lower) == list(range(12)) and zeros.apart == pytest.approx(50, abs=0.3)


def test_survey_of_two_files(tmp_path):
    frames = to_images(shifted(clean(20), range(12, 20), -100.0))
    write(tmp_path / "a.extxyz", frames[:12])
    write(tmp_path / "b.extxyz", frames[12:])
    (suspicion,) = survey([tmp_path / "a.extxyz", tmp_path / "b.extxyz"]).suspicions
    assert suspicion.label == "energy" and suspicion.text.startswith(
        "energies of 8 structures, such as frame 12 (cu-12), are 100 eV/atom below those of 12 others, and vary by"
    )
