"""Trials of the cutoff of vectors and tensors: the smallest error wins, settings of the user are left alone."""

import numpy as np
import pytest
from small_data import make_wannier_frames

from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.interrupt import Interrupted
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes import frames as recipe
from ase_mlelec.train.recipes.cutoff_trials import BETTER, LONGEST, SHORTEST, with_tried_cutoff
from ase_mlelec.train.recipes.defaults import settled


def configuration(folder, **sections):
    return parse_config({"data": {"files": ["d.h5"]}, "output": {"model": "m.safetensors"}} | sections, folder)


@pytest.fixture(scope="module")
def frames():
    return make_wannier_frames(12)


def tried(given, frames, errors_of):
    """Cutoff after the trials, and the cutoffs that were tried."""
    seen = []

    def errors(config, some):
        seen.append((config.electronic or config.descriptor).cutoff)
        return errors_of(seen[-1])

    found = with_tried_cutoff(given, settled(given, frames), frames, errors)
    return (found.electronic or found.descriptor).cutoff, seen


@pytest.mark.parametrize("best", [2.0, 3.0, 6.5, 9.0])
@pytest.mark.parametrize("energy", [False, True])
def test_the_smallest_error_wins(best, energy, frames, tmp_path):
    sections = {"power_spectrum": {}, "energy": {"widths": []}} if energy else {}
    given = configuration(tmp_path, polarizability={}, **sections)
    start = tried(given, frames, lambda cutoff: [1.0])[0]
    found, seen = tried(given, frames, lambda cutoff: [0.1 + abs(np.log(cutoff / best))])
    assert SHORTEST <= found <= LONGEST and len(seen) == len(set(seen))
    assert abs(np.log(found / best)) <= abs(np.log(start / best))
    assert found == min(seen, key=lambda cutoff: abs(np.log(cutoff / best)))


def test_a_gain_that_is_small_is_none(frames, tmp_path):
    given = configuration(tmp_path, dipole={})
    start = settled(given, frames).descriptor.cutoff
    assert tried(given, frames, lambda cutoff: [1.0 if cutoff == start else 1.001 * BETTER])[0] == start
    assert tried(given, frames, lambda cutoff: [1.0 if cutoff == start else 0.999 * BETTER])[0] != start


def test_the_geometric_mean_of_all_labels_counts(frames, tmp_path):
    given = configuration(tmp_path, dipole={})
    start = settled(given, frames).descriptor.cutoff
    assert tried(given, frames, lambda cutoff: [1.0, 1.0] if cutoff == start else [2.0, 0.4])[0] != start
    assert tried(given, frames, lambda cutoff: [1.0, 1.0] if cutoff == start else [2.0, 0.6])[0] == start


def test_what_is_given_is_left_alone(frames, tmp_path):
    for sections in (
        {"dipole": {}, "descriptor": {"cutoff": 5.0}},
        {"dipole": {"steps": 2}},  # gradient descent
        {"dos": {}},
    ):
        given = configuration(tmp_path, **sections)
        config = settled(given, frames) if "dos" not in sections else given
        assert with_tried_cutoff(given, config, frames, None) is config
    given = configuration(tmp_path, dipole={})
    config = settled(given, frames)
    assert with_tried_cutoff(given, config, frames.take([0, 1]), None) is config  # too few to tell


def test_a_model_has_the_cutoff_of_the_trials(tmp_path, capfd):
    write_hdf5(tmp_path / "d.h5", make_wannier_frames(18))
    model = train(configuration(tmp_path, polarizability={"drawn": 20}), progress=True)
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if line.startswith("trial of a cutoff")]
    errors = {float(line.split()[5]): float(line.split()[-1]) for line in lines}
    assert len(errors) >= 3 and model.descriptor.cutoff in errors
    assert errors[model.descriptor.cutoff] * BETTER <= min(errors.values())


def test_trials_of_an_interrupted_training_are_kept(frames, tmp_path):
    """No trial is made twice for the same data and settings; others make their own."""
    made = []

    def errors(config, some):
        if len(made) == stop:
            raise KeyboardInterrupt
        made.append(config.descriptor.cutoff)
        return [config.descriptor.cutoff]  # the shortest is best

    def chosen(**sections):
        given = configuration(tmp_path, dipole={}, **sections)
        return with_tried_cutoff(given, settled(given, frames), frames, errors, checkpoint=tmp_path / "c.checkpoint")

    stop = 2
    with pytest.raises(KeyboardInterrupt):
        chosen()
    stop = None
    found, n = chosen(), len(made)
    assert chosen() == found and len(made) == n == len({*made}) >= 3
    chosen(seed=1)
    assert len(made) == 2 * n


def test_members_of_a_committee_keep_their_trials(tmp_path, monkeypatch):
    """Until the last is trained: the same command trains members again, and repeats no trial."""
    write_hdf5(tmp_path / "d.h5", make_wannier_frames(18))
    config = configuration(tmp_path, polarizability={"drawn": 20}, committee=2)
    former, calls = recipe._directed_errors, []
    monkeypatch.setattr(recipe, "_directed_errors", lambda *arguments: calls.append(1) or former(*arguments))
    saved = recipe.save

    def interrupted(model, config, *rest):
        if config.output.model == "m-1.safetensors":
            raise KeyboardInterrupt
        return saved(model, config, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "save", interrupted)
        with pytest.raises(Interrupted, match="begins anew, except for what m-1.cutoff-trials.checkpoint holds"):
            train(config, progress=False)
    n = len(calls)
    assert {path.name for path in tmp_path.glob("*trials*")} == {f"m-{k}.cutoff-trials.checkpoint" for k in (0, 1)}
    train(config, progress=False)
    assert len(calls) == n and not list(tmp_path.glob("*checkpoint"))
