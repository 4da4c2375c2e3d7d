"""Labels by programs and processes: crashes, time limits, commands, folders that are filled by hand, and pw.x."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from ase_mlelec.active.config import LabelConfig, SelectConfig
from ase_mlelec.active.labels import Waiting, label_all

PSEUDO = Path("/usr/share/espresso/pseudo")


class Settings:
    """What labels need of an ActiveConfig."""

    def __init__(self, parent, **label):
        self.parent, self.label, self.select = parent, LabelConfig(**label), SelectConfig(low=0.1)


def copper(n):
    images = [bulk("Cu", cubic=True) for _ in range(n)]
    for k, atoms in enumerate(images):
        atoms.rattle(0.05, seed=k)
    return images


def labeled(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


def test_calculator_in_processes(tmp_path):
    images = copper(3)
    settings = Settings(tmp_path, calculator="ase.calculators.emt:EMT", options={"asap_cutoff": True}, workers=2)
    frames = label_all(settings, images, tmp_path / "label", tell=print)
    assert [frame.name[-3:] for frame in frames] == ["000", "001", "002"]
    for frame, atoms in zip(frames, images):
        atoms.calc = EMT(asap_cutoff=True)
        np.testing.assert_allclose(frame.labels["forces"], atoms.get_forces(), atol=1e-12)
        np.testing.assert_allclose(frame.labels["energy"], atoms.get_potential_energy(), atol=1e-12)
        np.testing.assert_array_equal(frame.atoms.positions, atoms.positions)


@pytest.mark.slow
def test_crashes_and_endless_labels(tmp_path, capsys):
    (tmp_path / "unsafe_labels.py").write_text(
        "import os, time\nfrom ase.calculators.emt import EMT\ndef label(atoms, folder):\n"
        "    if folder.name == '000': os._exit(7)\n"
        "    if folder.name == '001': time.sleep(1000)\n"
        "    if folder.name == '002': return None\n"
        "    print('a line that is no answer')\n"
        "    atoms.calc = EMT()\n    return atoms\n"
    )
    settings = Settings(tmp_path, function="unsafe_labels:label", longest=0.1)
    told = []
    frames = label_all(settings, copper(4), tmp_path / "label", tell=told.append)
    assert [frame.name[-3:] for frame in frames] == ["003"]
    failed = [text for text in told if text.startswith("failed")]
    for text, reason in zip(failed, ("the process ended (exit code 7)", "longer than 0.1 minutes", "NoneType, need")):
        assert reason in text


@pytest.mark.slow
def test_programs_that_print_and_read(tmp_path):
    """What a program prints is no answer of the worker, and it reads none of the names of the next folders."""
    (tmp_path / "loud_labels.py").write_text(
        "import subprocess\nfrom ase.calculators.emt import EMT\ndef label(atoms, folder):\n"
        "    subprocess.run('echo done; cat', shell=True, check=True)\n"
        "    print('done', flush=True)\n"
        "    atoms.calc = EMT()\n    return atoms\n"
    )
    settings = Settings(tmp_path, function="loud_labels:label", longest=0.2)
    frames = label_all(settings, copper(3), tmp_path / "label", tell=print)
    assert [frame.name[-3:] for frame in frames] == ["000", "001", "002"]


@pytest.mark.slow
def test_command(tmp_path):
    """Files are copied, results are read, other structures and exit codes are refused."""
    images = copper(3)
    write(tmp_path / "good.extxyz", labeled(images[0]))
    command = "case $PWD in *000|*001) cp good.extxyz result.extxyz;; *) echo broken; exit 3;; esac"
    told = []
    settings = Settings(tmp_path, command=command, files=["good.extxyz"])
    frames = label_all(settings, images, tmp_path / "label", tell=told.append)
    assert len(frames) == 1
    np.testing.assert_allclose(frames[0].labels["forces"], labeled(images[0]).get_forces(), atol=1e-6)
    assert "of a structure that is" in told[1] and "exit code 3; its output is in command.log" in told[2]
    assert (tmp_path / "label/002/command.log").read_text() == "broken\n"


def test_by_hand(tmp_path):
    images = copper(2)
    settings = Settings(tmp_path, manual=True)
    with pytest.raises(Waiting, match="2 folders wait for labels, the first is .*label/000"):
        label_all(settings, images, tmp_path / "label", tell=print)
    write(tmp_path / "label/000/result.extxyz", labeled(images[0]))
    with pytest.raises(Waiting, match="1 folders wait"):
        label_all(settings, images, tmp_path / "label", tell=print)
    (tmp_path / "label/001/failed.txt").write_text("no convergence\n")
    assert len(label_all(settings, images, tmp_path / "label", tell=print)) == 1


@pytest.mark.parametrize(
    "label, message",
    [
        ({"calculator": "ase.calculators.emt:ABC"}, "ase.calculators.emt:ABC: .*; correct the name"),
        ({"calculator": "no_such_module:ABC"}, "no_such_module.*correct the name, or install"),
        ({"calculator": "ase.calculators.emt:EMT", "profile": {"command": "x"}}, "has no EMTProfile; leave out"),
        ({"command": "true", "result": "OUTCAR"}, "OUTCAR: the command left no such file"),
        ({"command": "true"}, "none of 1 labels succeeded"),
    ],
)
@pytest.mark.slow
def test_mistakes(tmp_path, label, message):
    with pytest.raises(ValueError, match=message) as caught:
        label_all(Settings(tmp_path, **label), copper(1), tmp_path / "label", tell=print)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not shutil.which("pw.x"), reason="pw.x is not installed")
@pytest.mark.skipif(not (PSEUDO / "Si.pz-vbc.UPF").exists(), reason="the pseudopotential of silicon is not installed")
@pytest.mark.slow
def test_quantum_espresso(tmp_path, monkeypatch):
    """ASE's calculator with its profile; a run without convergence is noted."""
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=1)
    options = {
        "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
        "kpts": [1, 1, 1],
        "input_data": {"control": {"tprnfor": True, "tstress": True}, "system": {"ecutwfc": 8.0}},
    }
    profile = {"command": "pw.x", "pseudo_dir": str(PSEUDO)}
    calculator = "ase.calculators.espresso:Espresso"
    settings = Settings(tmp_path, calculator=calculator, options=options, profile=profile)
    (frame,) = label_all(settings, [atoms], tmp_path / "label", tell=print)
    assert set(frame.labels) == {"energy", "forces", "virial"}
    assert abs(frame.labels["forces"].sum(axis=0)).max() < 1e-3 and abs(frame.labels["forces"]).max() > 0.1
    options["input_data"]["electrons"] = {"electron_maxstep": 1}
    settings = Settings(tmp_path, calculator=calculator, options=options, profile=profile)
    with pytest.raises(ValueError, match="none of 1 labels succeeded"):
        label_all(settings, [atoms], tmp_path / "other", tell=print)
