"""``mlelec init``, and ``mlelec train`` on data."""

import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import write
from command_line import call, fails
from small_survey import clean

from ase_mlelec import load_model
from ase_mlelec.data.frames import to_images, write_hdf5
from ase_mlelec.train.config import read_config
from ase_mlelec_entry_points.cli.init import name_of
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "cu.extxyz", to_images(clean(10)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init(folder, capsys):
    call("init", "cu.extxyz")
    out = capsys.readouterr().out
    assert "10 structures with 8 atoms each" in out and "mlelec train cu.toml" in out
    text = Path("cu.toml").read_text()
    assert 'files = ["cu.extxyz"]' in text
    assert "cu.toml: exists already" in fails(capsys, "init", "cu.extxyz")
    Path("cu.toml").write_text("")
    call("init", "cu.extxyz", "--force", "--quiet")
    assert Path("cu.toml").read_text() == text
    assert "10 structures" not in capsys.readouterr().out
    (folder / "runs").mkdir()
    call("init", "cu.extxyz", "-o", "runs/a.toml")
    assert str(folder / "cu.extxyz") in Path("runs/a.toml").read_text()


def test_mistakes(folder, capsys):
    assert "nowhere.xyz: no such file" in fails(capsys, "init", "nowhere.xyz")
    assert "need a name that ends in .toml" in fails(capsys, "init", "cu.extxyz", "-o", "a.txt")
    Path("text.xyz").write_text("nothing\n")
    assert "text.xyz" in fails(capsys, "init", "text.xyz")
    assert not list(folder.glob("*.toml"))


def test_keys(folder, capsys):
    images = []
    for frame in clean(4):
        frame.atoms.info["E_tot"], frame.atoms.arrays["F_dft"] = frame.labels["energy"], frame.labels["forces"]
        images.append(frame.atoms)
    write("odd.extxyz", images)
    call("init", "odd.extxyz", "--key", "energy=E_tot", "--key", "forces=F_dft")
    text = Path("odd.toml").read_text()
    assert '[data.keys]\nenergy = "E_tot"\nforces = "F_dft"\n' in text
    assert "energy (4), forces (4)" in text


def test_train_on_data(folder, capsys):
    write("cu.extxyz", to_images(clean(3)))
    call("train", "cu.extxyz")
    assert [*load_model("cu.safetensors").species] == ["Cu"]
    assert "cu.toml: written" in capsys.readouterr().out
    settings = Path("cu.toml").read_text()
    Path("cu.toml").write_text(settings + "\n# mine\n")
    call("train", "cu.extxyz")
    assert "trains with this file" in capsys.readouterr().out and "# mine" in Path("cu.toml").read_text()
    write_hdf5("cu.h5", clean(6))
    assert "cu.toml: exists already" in fails(capsys, "train", "cu.h5")
    assert "cu.toml: exists already" in fails(capsys, "train", "cu.extxyz", "--minutes", 1)
    assert "need one TOML file, or data sets alone" in fails(capsys, "train", "cu.toml", "cu.h5")
    assert "got --key or --minutes beside cu.toml" in fails(capsys, "train", "cu.toml", "--minutes", 1)
    assert "nowhere" in fails(capsys, "train", "nowhere")


@pytest.mark.parametrize(
    "data, name",
    [
        ("a/b.extxyz", "b.toml"),
        ("b.extxyz.gz", "b.toml"),
        ("OUTCAR", "OUTCAR.toml"),
        ("water.v2/", "water.v2.toml"),
        ("Be_snapshot0.info.json", "Be_snapshot0.toml"),
        ("water.v2/data_0", "water.v2.toml"),
        ("water.v2/data_0/set.000/", "water.v2.toml"),
        ("water.v2/training_data", "water.v2.toml"),
        ("water.v2/dataset", "dataset.toml"),
    ],
)
def test_names(folder, data, name):
    for each in ("data_0/set.000", "training_data", "dataset"):
        Path("water.v2", each).mkdir(parents=True)
    assert name_of(data) == name


def test_a_usual_name_in_the_home_folder_stays(folder, monkeypatch):
    Path("data_0").mkdir()
    monkeypatch.setattr(Path, "home", lambda: folder)
    assert name_of("data_0") == "data_0.toml"


def test_frames_are_looked_at_without_torch(folder):
    code = (
        "import sys\nfrom ase_mlelec_entry_points.cli.main import main\n"
        "print(main(['init', 'cu.extxyz', '--quiet']), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert result.stdout.splitlines()[-1] == "0 False", result.stderr


@pytest.mark.parametrize("minutes", ["nan", "-3", "0", "inf"])
def test_minutes_that_cannot_be(minutes, folder, capsys):
    with pytest.raises(SystemExit):
        main(["init", "cu.extxyz", "--minutes", minutes])
    assert "invalid minutes value" in capsys.readouterr().err and not (folder / "cu.toml").exists()


def test_configuration_of_an_editor_of_windows(folder):
    """With a mark before the text, and its ends of lines."""
    assert main(["init", "cu.extxyz", "--quiet"]) == 0
    text = (folder / "cu.toml").read_text(encoding="utf-8")
    (folder / "windows.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_config(folder / "windows.toml") == read_config(folder / "cu.toml")
