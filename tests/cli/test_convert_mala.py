"""mlelec convert with MALA's own Be2 snapshots, outside the repository in ../shared/reference/mala."""

import json
from pathlib import Path

import numpy as np
import pytest

from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec_entry_points.cli.main import main

BE2 = Path(__file__).parents[3] / "shared" / "reference" / "mala" / "Be2"
pytestmark = pytest.mark.skipif(not BE2.exists(), reason=f"no reference data in {BE2}")
SOURCE, UPF = str(BE2 / "Be_snapshot0.info.json"), str(BE2 / "Be.pbe-n-rrkjus_psl.1.0.0.UPF")


def test_snapshots(tmp_path, capsys):
    target = tmp_path / "be.h5"
    assert main(["convert", SOURCE, str(target), "--grid", "-5", "20", "--upf", UPF]) == 0
    assert "1 snapshots with 11 energies" in capsys.readouterr().out
    snapshots = Snapshots(target)
    assert snapshots.attributes["xc"] == "pbe" and snapshots.attributes["valence_electrons"] == {"Be": 2.0}
    (snapshot,) = snapshots
    assert snapshot.shape == (18, 18, 27)
    electrons = snapshot.density.mean() * snapshot.atoms.get_volume()
    np.testing.assert_allclose(electrons, 2.0 * len(snapshot.atoms), rtol=1e-6)
    stored = np.load(BE2 / "Be_snapshot0.out.npy").reshape(-1, 11)
    np.testing.assert_allclose(snapshot.ldos, stored, atol=stored.max() / 65535)  # the steps of the file


@pytest.mark.parametrize("options, message", [([], "got no --grid"), (["--grid", "-5", "20"], "got no --upf")])
def test_missing_options(tmp_path, capsys, options, message):
    assert main(["convert", SOURCE, str(tmp_path / "be.h5"), *options]) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folders_and_arrays(tmp_path, capsys):
    """A folder has all of its snapshots, and its pseudopotentials; of an array the info.json beside it is taken."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("Be_snapshot0.info.json", "Be_snapshot0.out.npy", "Be_snapshot1.info.json", "Be_snapshot1.out.npy"):
        (folder / name).symlink_to((BE2 / name).absolute())
    grid = ["--grid", "-5", "20"]
    assert main(["convert", str(folder), "--out", str(tmp_path / "a.h5"), *grid]) == 1
    assert "got no --upf" in capsys.readouterr().err
    (folder / "Be.UPF").symlink_to(Path(UPF).absolute())
    assert main(["convert", str(folder), "--out", str(tmp_path / "a.h5"), *grid]) == 0
    assert [each.name for each in Snapshots(tmp_path / "a.h5")] == ["Be_snapshot0", "Be_snapshot1"]
    array = str(folder / "Be_snapshot1.out.npy")
    assert main(["convert", array, "--out", str(tmp_path / "b.h5"), *grid, "--upf", UPF]) == 0
    assert [each.name for each in Snapshots(tmp_path / "b.h5")] == ["Be_snapshot1"]


def test_train_on_one_and_test_on_another(tmp_path):
    """examples/be2.toml with one small net and few epochs, on a snapshot that it has not seen and that is far
    away: half of the error of the mean spectrum."""
    (tmp_path / "data").mkdir()
    for k, name in enumerate(("data/be2.h5", "test.h5")):
        assert (
            main(
                [
                    "convert",
                    str(BE2 / f"Be_snapshot{k}.info.json"),
                    str(tmp_path / name),
                    "--grid",
                    "-5",
                    "20",
                    "--upf",
                    UPF,
                ]
            )
            == 0
        )
    text = (Path(__file__).parents[2] / "examples" / "be2.toml").read_text()
    for old, new in (("committee = 5", ""), ("[512, 512]", "[32]"), ("epochs = 30", "epochs = 4")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "be2.toml").write_text(text)
    assert main(["train", str(tmp_path / "be2.toml"), "--quiet"]) == 0
    assert (
        main(
            [
                "test",
                str(tmp_path / "be2.safetensors"),
                str(tmp_path / "test.h5"),
                "--out",
                str(tmp_path / "errors.json"),
            ]
        )
        == 0
    )
    errors = json.loads((tmp_path / "errors.json").read_text())
    seen, truth = (np.load(BE2 / f"Be_snapshot{k}.out.npy").reshape(-1, 11) for k in range(2))
    assert errors["ldos_rmse"] < 0.5 * np.sqrt(((truth - seen.mean(axis=0)) ** 2).mean())
