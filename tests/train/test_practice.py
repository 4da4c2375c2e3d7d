"""Training in practice: log lines, signals to stop, budgets of time, longer runs, the best weights, models on the way."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from small_data import make_frames
from test_loop import Parabola, rates

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.train import log as logs
from ase_mlelec.train import run as runs
from ase_mlelec.train.checkpoint import load_checkpoint
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.interrupt import Interrupted
from ase_mlelec.train.linear import RidgeRegression, sum_rows
from ase_mlelec.train.log import duration, readable_errors
from ase_mlelec.train.loop import Schedule, run_loop
from ase_mlelec.train.recipes.checkpoints import defaults_of, settings_of
from ase_mlelec.train.recipes.draft import UNFINISHED, is_unfinished
from ase_mlelec_entry_points.cli.main import main

PLAIN = Schedule(0.3, 3e-3)


class Clock:
    """Time that passes by one second for each step of a problem, and not otherwise."""

    def __init__(self, monkeypatch, problem):
        self.now, batches = 0.0, problem.batches

        def slow(step):
            self.now += 1.0
            yield from batches(step)

        monkeypatch.setattr(problem, "batches", slow)
        for module in (logs, runs):
            monkeypatch.setattr(module, "clock", lambda: self.now)


def test_line_every_few_seconds_without_a_terminal(capsys, monkeypatch):
    problem = Parabola("loss")
    Clock(monkeypatch, problem)
    run_loop(problem, steps=100, schedule=PLAIN, interval=10)
    title, *lines = capsys.readouterr().err.splitlines()
    assert title == "training" and lines[0].startswith("steps 2/100, 1:38 left, rate 2.7e-01")
    steps = [int(line.split("/")[0].split()[1]) for line in lines]
    assert steps == [2, *range(7, 100, 5), 100] and "1:40 in all" in lines[-1]
    assert "loss 0." in lines[3] or "loss 1e" in lines[3] or "e-" in lines[3]
    run_loop(Parabola("loss"), steps=100, schedule=PLAIN, interval=10, progress=False)
    assert capsys.readouterr() == ("", "")


def test_errors_as_users_read_them():
    row = {"energy_eV_per_atom": 0.0012, "validation_energy_eV_per_atom": 0.0034, "forces_eV_per_A": 0.1}
    assert readable_errors(row) == "energy 1.2/3.4 meV/atom  forces 100 meV/Å"
    assert readable_errors({"training_ldos": 0.1, "ldos": 0.2, "other": 3.0}) == "LDOS 0.1/0.2 of its scale  other 3"
    assert (duration(59.6), duration(3661)) == ("1:00", "1:01:01")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["exponential", "plateau"])
def test_signal_saves_after_the_step_and_the_run_resumes_to_the_bit(kind, number, tmp_path):
    """Between two validations, so that no regular checkpoint helps."""
    options = dict(steps=23, schedule=Schedule(0.3, 1e-3, kind), interval=5, progress=False)
    whole = Parabola("loss")
    expected = run_loop(whole, **options, curve=tmp_path / "whole.csv")
    files = dict(checkpoint=tmp_path / "a.checkpoint", curve=tmp_path / "a.csv")
    kept, problem = [], Parabola("loss")
    loss = problem.loss

    def interrupting(batch, ratio):
        if batch == 7:
            os.kill(os.getpid(), number)
        return loss(batch, ratio)

    problem.loss = interrupting
    with pytest.raises(Interrupted, match="after 8 of 23 steps; the same command goes on from a.checkpoint") as stop:
        run_loop(problem, **options, **files, keep=lambda *arguments: kept.append(arguments))
    assert stop.value.code == 128 + number and load_checkpoint(files["checkpoint"])["step"] == 8
    assert [place for _, place in kept] == [{"steps": 8, "of": 23}]
    resumed = Parabola("loss")
    assert run_loop(resumed, **options, **files) == expected
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert signal.getsignal(number) is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_within_an_epoch_gives_the_epoch_up(tmp_path):
    """The checkpoint is that of the last whole epoch."""
    problem = Parabola("loss")

    def batches(step):
        yield step
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        yield step

    problem.batches = batches
    options = dict(steps=6, schedule=PLAIN, progress=False, checkpoint=tmp_path / "a.checkpoint", unit="epochs")
    with pytest.raises(Interrupted, match="after 3 of 6 epochs"):
        run_loop(problem, **options)
    resumed, whole = Parabola("loss"), Parabola("loss")
    resumed.batches = whole.batches = lambda step: [step, step]
    run_loop(resumed, **options)
    run_loop(whole, **options | {"checkpoint": None})
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_settings_that_an_earlier_version_did_not_have(tmp_path):
    """An interrupted run goes on where they are at their defaults, and is refused where they are not."""
    sections = {
        "data": {"files": ["a.h5"]},
        "energy": {"learning_rate": [0.02, 0.001]},
        "output": {"model": "m.safetensors"},
    }
    config = parse_config(sections)
    settings, defaults = settings_of(config), defaults_of(config)
    assert {"energy.strong_force", "local_frame", "seed"} <= defaults and "energy.learning_rate" not in defaults
    options = dict(steps=9, schedule=PLAIN, progress=False, checkpoint=tmp_path / "a.checkpoint")

    def interrupted_without(name):
        stopped = Parabola()
        stopped.stop_at = 5
        (tmp_path / "a.checkpoint").unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            run_loop(stopped, **options, identity={key: each for key, each in settings.items() if key != name})

    interrupted_without("energy.strong_force")
    run_loop(Parabola(), **options, identity=settings, may_lack=defaults)
    interrupted_without("energy.learning_rate")
    with pytest.raises(ValueError, match="another run: energy.learning_rate None, this one .0.02, 0.001.; remove it"):
        run_loop(Parabola(), **options, identity=settings, may_lack=defaults)
    interrupted_without("")
    changed = settings_of(parse_config(sections | {"seed": 3}))
    with pytest.raises(ValueError, match="another run: seed 0, this one 3"):
        run_loop(Parabola(), **options, identity=changed, may_lack=defaults)


def test_lengthened(tmp_path):
    """A finished run goes on at 0.3 of the first learning rate, and an interrupted lengthening ends with the same
    bits."""
    files = dict(checkpoint=tmp_path / "a.checkpoint", curve=tmp_path / "a.csv")
    options = dict(schedule=PLAIN, progress=False, **files)
    run_loop(Parabola(), steps=10, **options)
    before = (tmp_path / "a.checkpoint").read_bytes()
    longer = Parabola()
    run_loop(longer, steps=25, **options)
    expected = np.r_[0.3 * 0.01 ** (np.arange(10) / 10), 0.09 * (3e-3 / 0.09) ** (np.arange(15) / 15)]
    np.testing.assert_allclose(rates(tmp_path / "a.csv"), expected, rtol=1e-12)
    (tmp_path / "a.checkpoint").write_bytes(before)
    stopped = Parabola()
    stopped.stop_at = 17
    with pytest.raises(KeyboardInterrupt):
        run_loop(stopped, steps=25, **options)
    resumed = Parabola()
    run_loop(resumed, steps=25, **options)
    assert torch.equal(resumed.model.weight, longer.model.weight)
    run_loop(resumed, steps=20, **options)  # fewer than there are: nothing to do
    assert len(rates(tmp_path / "a.csv")) == 25


def test_finished_run_of_other_settings(tmp_path, capsys):
    """It is no obstacle where the settings are known; an interrupted one is."""
    options = dict(steps=4, schedule=PLAIN, checkpoint=tmp_path / "a.checkpoint")
    run_loop(Parabola(), **options, identity={"batch": 1})
    problem = Parabola()
    run_loop(problem, **options, identity={"batch": 2})
    assert len(problem.weights) == 4 and "batch 1, this one 2: it had ended, and training starts anew" in (
        capsys.readouterr().err
    )
    problem.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        run_loop(problem, **options | {"steps": 8}, identity={"batch": 2})
    with pytest.raises(ValueError, match="belongs to another run: batch 2, this one 3"):
        run_loop(Parabola(), **options | {"steps": 8}, identity={"batch": 3})


def test_budget_of_time(tmp_path, monkeypatch):
    """Constant rate until the time of a step is known; then it falls over the steps for which there is time."""
    files = dict(checkpoint=tmp_path / "a.checkpoint", curve=tmp_path / "a.csv")
    options = dict(steps=None, schedule=PLAIN, interval=5, progress=False, **files)

    def run(problem, seconds):
        with monkeypatch.context() as patch:
            Clock(patch, problem)
            run_loop(problem, seconds=seconds, **options)

    problem = Parabola()
    run(problem, 60)
    n = 10 + int(50 / 1.08)  # measured over ten steps
    (leg,) = load_checkpoint(tmp_path / "a.checkpoint")["plan"]
    assert leg == [10, n, 0.3]
    found = np.genfromtxt(tmp_path / "a.csv", delimiter=",", names=True)
    steps = np.r_[15:n:5, n]
    np.testing.assert_array_equal(found["step"], steps)
    np.testing.assert_allclose(found["learning_rate"], 0.3 * 0.01 ** ((steps - 11) / (n - 10)), rtol=1e-12)
    # a resumed one makes as many steps, however fast they are now
    (tmp_path / "a.checkpoint").unlink()
    first, resumed = Parabola(), Parabola()
    first.stop_at = 20
    with pytest.raises(KeyboardInterrupt):
        run(first, 60)
    run_loop(resumed, seconds=60, **options)
    assert torch.equal(resumed.model.weight, problem.model.weight)
    run(Parabola(), 80)  # twenty seconds more
    assert load_checkpoint(tmp_path / "a.checkpoint")["step"] > n + 15


def test_validation_takes_a_twentieth_of_the_time(tmp_path):
    problem = Parabola("loss")
    problem.validation_cost = 3.0
    run_loop(problem, steps=200, schedule=PLAIN, interval=None, progress=False)
    assert len(problem.weights) == 4  # every 60 steps, and after the last
    problem = Parabola("loss")
    run_loop(problem, steps=200, schedule=PLAIN, interval=None, progress=False)
    assert len(problem.weights) == 100


def test_early_stopping():
    """After three validations without a smaller error; the weights are those of the smallest."""
    problem = Parabola("loss", [5.0, 4.0, 4.5, 3.0, 3.0, 3.5, 4.0, 1.0])
    assert run_loop(problem, steps=8, schedule=PLAIN, patience=3, progress=False) == {"loss": 3.0}
    assert len(problem.weights) == 7 and float(problem.model.weight.detach()) == problem.weights[3]


# the recipe

CONFIG = """
[data]
files = ["cu.h5"]
[descriptor]
cutoff = 4.0
smooth = 2.0
widths = [4]
n_axis = 3
l_max = 2
n_basis = 5
[energy]
widths = [6]
steps = {steps}
[output]
model = "cu.safetensors"
"""


@pytest.fixture
def folder(tmp_path):
    write_hdf5(tmp_path / "cu.h5", make_frames(10))
    return tmp_path


def configure(folder, steps, head=""):
    (folder / "cu.toml").write_text(head + CONFIG.format(steps=steps))
    return str(folder / "cu.toml")


LINES_AT_EVERY_STEP = """
import sys
from ase_mlelec.train import log
from ase_mlelec_entry_points.cli.main import main
log.FIRST_LINE = log.LINE = 0.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ctrl_c_of_the_command(folder):
    """The model can be used, and the same command ends with the same bits as without an interruption."""
    command = ["train", configure(folder, 40)]
    started = [sys.executable, "-c", LINES_AT_EVERY_STEP, *command]
    with subprocess.Popen(started, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        next(line for line in process.stderr if line.startswith("steps 10/40"))
        process.send_signal(signal.SIGINT)
        *_, last = process.stderr.read().splitlines()
    assert process.returncode == 130 and last.startswith("mlelec: interrupted after ")
    assert last.endswith(" of 40 steps; the same command goes on from cu.energy.checkpoint")
    model = load_model(folder / "cu.safetensors")
    assert is_unfinished(folder / "cu.safetensors") and 10 <= model.metadata[UNFINISHED]["steps"] < 40
    assert model.core is not None and model.metadata["shortest_distance_A"] > 2
    atoms = make_frames(1).frames[0].atoms
    assert np.isfinite(DeepPotCalculator(model, device="cpu").get_property("forces", atoms)).all()
    with pytest.warns(UserWarning, match=r"its training has not ended \(energy: \d+ steps of 40\)"):
        assert main(["test", str(folder / "cu.safetensors"), str(folder / "cu.h5"), "--group", "test"]) == 0
    assert main([*command, "--quiet"]) == 0
    resumed = load_model(folder / "cu.safetensors")
    (folder / "cu.energy.checkpoint").unlink()
    assert main([*command, "--quiet"]) == 0
    whole = load_model(folder / "cu.safetensors")
    assert not is_unfinished(folder / "cu.safetensors")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_one_process_trains_a_model(folder, capsys, monkeypatch):
    """Two would write the same checkpoints, learning curves and model."""
    command = ["train", configure(folder, 3), "--quiet"]
    other = subprocess.Popen([sys.executable, "-c", LOCK, str(folder / "cu.safetensors")], stdout=subprocess.PIPE)
    with other:
        other.stdout.readline()
        assert main(command) == 1 and not (folder / "cu.safetensors").exists()
        assert f"cu.safetensors: is being written by process {other.pid} on" in capsys.readouterr().err
        other.kill()
    assert main(command) == 0 and not [*folder.glob("*.lock")]

    def refused(*given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    assert main(command) == 1
    assert "cu.safetensors: cannot be written, since nothing can be made in" in capsys.readouterr().err


LOCK = """
import sys, time
from ase_mlelec.atomic_write import FileLock
lock = FileLock(sys.argv[1])
print(flush=True)
time.sleep(100)
"""


def test_model_on_the_way(folder, monkeypatch, capsys):
    """It is written in the first minute, and a finished one of the same name is kept."""
    assert main(["train", configure(folder, 3)]) == 0
    finished = (folder / "cu.safetensors").read_bytes()
    assert "continues this training" in capsys.readouterr().out
    monkeypatch.setattr(runs, "FIRST_SAVE", -1.0)
    monkeypatch.setattr(runs.Run, "ended", property(lambda run: run.step == 5 and 1 / 0))
    with pytest.raises(ZeroDivisionError):
        main(["train", configure(folder, 6)])
    assert (folder / "cu.former.safetensors").read_bytes() == finished
    assert load_model(folder / "cu.safetensors").metadata[UNFINISHED] == {"stage": "energy", "steps": 4, "of": 6}
    told = capsys.readouterr().err
    assert "3 steps were made before, now of 6: the learning rate is 0.0015 again" in told
    assert "a model that can be used, of the training so far" in told
    assert "6 train, 2 validation, 2 test" in told and "parameters  " in told


def test_single_precision(folder, capsys):
    """The same model up to rounding, saved in double precision; energies that rounding would spoil are not trained so."""
    found = {}
    for precision in ("double", "single"):
        assert main(["train", configure(folder, 20, f'precision = "{precision}"\n'), "--quiet"]) == 0
        model = load_model(folder / "cu.safetensors")
        assert model.dtype == torch.float64
        found[precision] = torch.cat([parameter.detach().flatten() for parameter in model.heads["energy"].parameters()])
    rounding = (found["single"] - found["double"]).abs().max()
    assert 1e-9 < rounding < 1e-4 and torch.equal(found["single"].float().double(), found["single"])
    frames = make_frames(10)
    for frame in frames:
        frame.labels["energy"] -= 40_000.0 * len(frame.atoms)
    write_hdf5(folder / "cu.h5", frames)
    assert main(["train", configure(folder, 3, 'precision = "single"\n')]) == 0
    told = capsys.readouterr().err
    assert "so large that they are trained in double precision" in told and ", double precision," in told


def test_rows_of_closed_forms(tmp_path, capsys, monkeypatch):
    """Lines with the time left; a signal writes the checkpoint, and the sum ends with the same bits."""
    data = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    now = [0.0]

    def rows(chosen):
        now[0] += 2.5
        if chosen.start == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return data[list(chosen), :2], data[list(chosen), 2]

    monkeypatch.setattr(logs, "clock", lambda: now[0])
    whole, first, second = RidgeRegression(), RidgeRegression(), RidgeRegression()
    stop_at = None
    sum_rows(whole, 30, 4, rows)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["rows of 4/30 structures, 0:16 left", "rows of 12/30 structures, 0:11 left"]
    files = dict(checkpoint=tmp_path / "a.checkpoint", identity={"data": 1}, progress=False)
    stop_at = 8
    with pytest.raises(Interrupted, match="rows of 12 of 30 structures; the same command goes on from a.checkpoint"):
        sum_rows(first, 30, 4, rows, **files)
    stop_at = None
    sum_rows(second, 30, 4, rows, **files)
    assert torch.equal(second.normal, whole.normal) and torch.equal(second.right, whole.right)
