"""``mlelec demo``, the first thing that people try."""

import pytest
from ase.io import read

from ase_mlelec import list_models
from ase_mlelec.analysis.trajectory import ResultFile
from ase_mlelec_entry_points.cli.main import main


@pytest.mark.skipif("si" not in list_models(), reason="the model 'si' is not there")
def test_demo(tmp_path, capsys):
    assert (
        main(["demo", "--out", str(tmp_path / "demo"), "--device", "cpu", "--atoms-per-side", "1", "--steps", "20"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "lattice constant 5." in printed and "ase gui" in printed
    results = ResultFile(tmp_path / "demo" / "demo.h5")
    assert results["order_parameter"].shape == (21, 8)
    last = read(tmp_path / "demo" / "demo.extxyz")
    assert last.arrays["order_parameter"] == pytest.approx(results["order_parameter"][-1], abs=1e-6)
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000


def test_impossible_sizes(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--atoms-per-side", "0"]) == 1
    assert "need at least 1 and 10" in capsys.readouterr().err
