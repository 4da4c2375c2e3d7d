"""Energies that contradict all other labels: who they are, and that the model does not see them."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_mlelec import load_model
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.train.absurd_energies import RIDGE, absurd_energies, left_out_errors, without_absurd_energies
from ase_mlelec.train.config import read_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.recipe import train


@pytest.fixture(scope="module")
def copper():
    """Strained and rattled crystals, two of them far denser than the others."""
    frames, rng = [], np.random.default_rng(0)
    for seed in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell * (0.85 if seed > 9 else rng.uniform(0.97, 1.04)), scale_atoms=True)
        atoms.rattle(rng.uniform(0.02, 0.15), seed=seed)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = None
        frames.append(Frame(atoms, labels=labels, name=f"copper-{seed}"))
    return frames


def with_error(frames, k, error):
    return Frames(
        [
            Frame(
                frame.atoms,
                labels=frame.labels | {"energy": frame.labels["energy"] + error * (i == k)},
                name=frame.name,
            )
            for i, frame in enumerate(frames)
        ]
    )


@pytest.mark.parametrize("k", [0, 5, 11])
@pytest.mark.parametrize("error", [1000.0, -300.0])
def test_one_wrong_energy_of_twelve(copper, k, error):
    found = absurd_energies(with_error(copper, k, error), inner=1.5)
    assert found == {k: pytest.approx(error, rel=0.02)}


def test_two_wrong_energies(copper):
    frames = with_error(with_error(copper, 3, 500.0), 7, -500.0)
    assert sorted(absurd_energies(frames, inner=1.5)) == [3, 7]


def test_right_energies_stay(copper):
    """Those of dense crystals too, which are more than 1 eV/atom above the others."""
    per_atom = np.array([frame.labels["energy"] / 4 for frame in copper])
    assert np.ptp(per_atom) > 1
    assert absurd_energies(Frames(copper), inner=1.5) == {}


def test_energies_without_forces(copper):
    frames = with_error(copper, 5, 1000.0)
    alone = Frames([Frame(frame.atoms, labels={"energy": frame.labels["energy"]}) for frame in frames])
    assert absurd_energies(alone, inner=1.5).keys() <= {5}  # there may be too few labels to tell


def test_only_the_energy_is_left_out(copper):
    kept = without_absurd_energies(Frames(copper), {4: 1000.0})
    assert [k for k, frame in enumerate(kept) if "energy" not in frame.labels] == [4]
    assert kept.counts["forces"] == 12


def problem(n):
    generator = torch.Generator().manual_seed(0)
    rows, forces = (torch.randn(m, 4, generator=generator, dtype=torch.float64) for m in (n, 3))
    noise = 0.1 * torch.randn(n + 3, generator=generator, dtype=torch.float64)
    return rows, rows.sum(dim=1) + noise[:n], forces, forces.sum(dim=1) + noise[n:]


def test_errors_and_sizes_against_ridge_regressions_that_lack_one_energy():
    rows, targets, forces, of_forces = problem(8)
    errors, sizes = left_out_errors(rows, targets, forces.T @ forces, forces.T @ of_forces, rounds=1)
    ridge = RIDGE * float((forces.square().sum() + rows.square().sum()) / 4)
    expected = []
    for k in range(len(rows)):
        others = [j for j in range(len(rows)) if j != k]
        matrix = np.concatenate([forces, rows[others], ridge**0.5 * np.eye(4)])
        weights = np.linalg.lstsq(matrix, np.concatenate([of_forces, targets[others], np.zeros(4)]), rcond=None)[0]
        variance = 1 + rows[k].numpy() @ np.linalg.inv(matrix.T @ matrix) @ rows[k].numpy()
        expected.append((float(targets[k] - rows[k].numpy() @ weights), variance**0.5))
    expected = np.array(expected)
    np.testing.assert_allclose(errors, expected[:, 0], rtol=1e-7)
    relative = abs(expected[:, 0]) / expected[:, 1]
    np.testing.assert_allclose(sizes / sizes.max(), relative / relative.max(), rtol=1e-7)


def test_a_wrong_energy_has_no_part_in_the_errors_of_others():
    rows, targets, forces, of_forces = problem(20)
    sums, wrong = (forces.T @ forces, forces.T @ of_forces), targets.clone()
    wrong[2] += 1e5
    errors, sizes = left_out_errors(rows, wrong, *sums)
    others = [k for k in range(20) if k != 2]
    alone, _ = left_out_errors(rows[others], targets[others], *sums)
    np.testing.assert_allclose(errors[others], alone, atol=0.05 * float(alone.abs().max()))
    assert sizes.argmax() == 2 and float(errors[2]) == pytest.approx(1e5, rel=1e-4)


def test_training_tells_it_and_is_as_good_as_without_it(copper, tmp_path, capsys):
    def errors_of(name, frames):
        images = []
        for frame in frames:
            atoms = frame.atoms.copy()
            atoms.calc = SinglePointCalculator(atoms, **frame.labels)
            images.append(atoms)
        write(tmp_path / f"{name}.extxyz", images)
        text = f'[data]\nfiles = ["{name}.extxyz"]\n[power_spectrum]\nnear = 0\n[energy]\nwidths = []\n'
        (tmp_path / f"{name}.toml").write_text(text + f'[output]\nmodel = "{name}.safetensors"\n')
        train(read_config(tmp_path / f"{name}.toml"))
        model = load_model(tmp_path / f"{name}.safetensors")
        return errors(model, Frames(copper))["forces_mae_meV_per_A"]

    wrong = errors_of("wrong", with_error(copper, 5, 1000.0))
    told = "".join(capsys.readouterr())
    assert "1000 eV off what all other labels say" in told and "11 train" in told
    right = errors_of("right", copper)
    assert "left out: the energy" not in "".join(capsys.readouterr())
    assert wrong < 1.5 * right
