"""Ctrl-C and the signal that ends a job, at any moment of a training in closed form: files, message, the way on."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from small_data import make_frames, make_wannier_frames

from ase_mlelec import load_model
from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.train import basis, block_ridge, linear, linear_energy, log
from ase_mlelec.train.interrupt import Interrupted, explained, stopping
from ase_mlelec.train.recipes import frames as recipe
from ase_mlelec_entry_points.cli.main import main

SECTIONS = {
    "energy": "[energy]\nwidths = []\nvirial = [0, 0]\n",
    "dos": "[dos]\ndrawn = 16\n",
    "dipole": '[dipole]\ncenters = ["O"]\ndrawn = 16\n',
}
# (where a function is called that a signal precedes, from its call of this number on)
MOMENTS = {
    "energy": [(recipe, "read_checked", 1), (linear.RidgeRegression, "add", 1), (recipe, "add_error_bars", 1)],
    "dos": [(recipe, "split", 1), (block_ridge.BlockSums, "add", 2), (block_ridge.BlockRidge, "choose", 1)],
    "dipole": [(block_ridge.BlockRidge, "solve", 1), (recipe, "errors", 1), (recipe, "save", 1)],
}


def configured(folder, name):
    vectors = name == "dipole"
    write_hdf5(folder / "d.h5", make_wannier_frames(5) if vectors else make_frames(5))
    invariants = "[power_spectrum]\nn_radial = 2\nl_max = 1\nnear = 0\n"
    small = "[descriptor]\nwidths = [4, 6]\nn_axis = 2\n" if vectors else invariants
    config = folder / "c.toml"
    config.write_text(f'[data]\nfiles = ["d.h5"]\n{small}{SECTIONS[name]}[output]\nmodel = "m.safetensors"\n')
    return ["train", str(config)]


def interrupt(monkeypatch, place, name, call, number):
    """Send a signal before the given call of a function."""
    former, calls = getattr(place, name), [0]

    def wrapped(*arguments, **options):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return former(*arguments, **options)

    monkeypatch.setattr(place, name, wrapped)


@pytest.mark.parametrize("name", SECTIONS)
def test_any_moment(name, tmp_path, capsys, monkeypatch):
    """The program says how to go on, leaves nothing half-written, and the same command ends with the same bits."""
    command = configured(tmp_path, name)
    before = {path.name for path in tmp_path.iterdir()}
    assert main([*command, "--quiet"]) == 0
    whole = load_model(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").unlink()
    capsys.readouterr()
    for k, (place, function, call) in enumerate(MOMENTS[name]):
        number = signal.SIGTERM if k % 2 else signal.SIGINT
        with monkeypatch.context() as patched:
            interrupt(patched, place, function, call, number)
            assert main([*command, "--quiet"]) == 128 + number
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mlelec: interrupted")]
        assert "the same command begins anew" in said or "the same command goes on from" in said
        left = {path.name for path in tmp_path.iterdir()} - before
        assert all(each.endswith(".checkpoint") for each in left)
        assert main([*command, "--quiet"]) == 0
        assert {path.name for path in tmp_path.iterdir()} - before == {"m.safetensors"}
        again = load_model(tmp_path / "m.safetensors")
        assert again.metadata["errors"] == whole.metadata["errors"]
        assert all(torch.equal(value, whole.state_dict()[key]) for key, value in again.state_dict().items())
        (tmp_path / "m.safetensors").unlink()


def test_trials_of_cutoffs(tmp_path, capsys, monkeypatch):
    """The program does not say that all begins anew where trials are kept."""
    write_hdf5(tmp_path / "d.h5", make_frames(24))
    config = tmp_path / "c.toml"
    energy = "[power_spectrum]\n[energy]\nwidths = []\nvirial = [0, 0]\n"
    config.write_text(f'[data]\nfiles = ["d.h5"]\n{energy}[output]\nmodel = "m.safetensors"\n')
    former, trials = basis._trial, []

    def second(*arguments):
        trials.append(arguments[0])
        if len(trials) == 2:
            interrupt(monkeypatch, linear_energy, "checked_rows", 1, signal.SIGINT)
        return former(*arguments)

    monkeypatch.setattr(basis, "_trial", second)
    assert main(["train", str(config), "--quiet"]) == 128 + signal.SIGINT
    said = capsys.readouterr().err
    assert "interrupted; the same command begins anew, except for what m.energy-trials.checkpoint holds" in said


def test_signal_that_no_step_sees():
    """One that comes after the last look at it is not lost."""
    with pytest.raises(Interrupted, match="^interrupted; anew$") as caught, explained(lambda: "anew"), stopping():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM


def test_the_words_of_a_loop_stay():
    with pytest.raises(Interrupted, match="^after 3 steps$"), explained(lambda: "anew"):
        raise Interrupted("after 3 steps")


ENDED_WHILE_WRITING = """
import sys, time
from ase_mlelec.atomic_write import replacing
from ase_mlelec_entry_points.cli import models
from ase_mlelec_entry_points.cli.main import main
def run(arguments):
    with replacing("a.txt") as partial:
        partial.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
models.run = run
sys.exit(main(["models"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_of_any_command(number, tmp_path):
    """Files that are being written are removed, and there is no traceback."""
    started = [sys.executable, "-c", ENDED_WHILE_WRITING]
    options = dict(cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(started, **options) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.stderr.read() == "mlelec: interrupted\n"
    assert process.returncode == 128 + number and not list(tmp_path.iterdir())


def test_lines_of_a_long_iteration(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log, "clock", lambda: now[0])
    seen = []
    for item in log.Log().each([3, 3, 2], 8, "rows of", size=lambda item: item):
        now[0] += 2.5
        seen.append(item)
    assert seen == [3, 3, 2]
    assert capsys.readouterr().err.splitlines() == [
        "rows of 3/8 structures, 0:04 left",
        "rows of 8/8 structures, 0:00 left",
    ]
