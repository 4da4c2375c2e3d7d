"""``mlelec bands`` on graphene's pz bands."""

import numpy as np
import pytest
from ase.io.jsonio import read_json
from small_lattices import GRAPHENE_SITES, graphene

from ase_mlelec import WannierHamiltonian
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture
def files(tmp_path):
    hamiltonian = WannierHamiltonian(*graphene(), centers=GRAPHENE_SITES)
    hamiltonian.write(tmp_path / "g_hr.dat")
    rows = "\n".join(" ".join(map(str, row)) for row in hamiltonian.cell)
    (tmp_path / "g.win").write_text(f"begin unit_cell_cart\n{rows}\nend unit_cell_cart\n")
    return tmp_path


def test_bands(files, capsys):
    options = [
        "--path",
        "GMKG",
        "--points",
        "31",
        "--fermi",
        "0.5",
        "--plot",
        files / "g.png",
        "--out",
        files / "g.json",
    ]
    assert main([str(word) for word in ["bands", files / "g_hr.dat", *options]]) == 0
    assert capsys.readouterr().out == "2 functions, 7 lattice vectors; path GMKG: 2 bands from -8.100 to 8.100 eV\n"
    bands = read_json(files / "g.json")
    assert bands.energies.shape == (1, 31, 2) and bands.reference == 0.5
    np.testing.assert_allclose(bands.energies[0, 0], [-8.1, 8.1], atol=1e-9)
    assert (files / "g.png").read_bytes().startswith(b"\x89PNG")


def test_folder(files, capsys):
    """The folder of one run stands for its file; with several runs below it the message says so."""
    assert main(["bands", str(files), "--path", "GMKG"]) == 0
    assert capsys.readouterr().out.startswith("2 functions, 7 lattice vectors; path GMKG")
    for name in ("a", "b"):
        (files / "runs" / name).mkdir(parents=True)
        (files / "runs" / name / "g_hr.dat").write_bytes((files / "g_hr.dat").read_bytes())
    assert main(["bands", str(files / "runs")]) == 1
    error = capsys.readouterr().err
    assert "got a folder with 2 Hamiltonians of Wannier90" in error and "give one file" in error


def test_window_and_errors(files, capsys):
    path = str(files / "g_hr.dat")
    assert main(["bands", path, "--window", "0.5", "9"]) == 0
    assert ": 1 bands from 0.5" in capsys.readouterr().out
    for arguments, message in (
        ([path, "--window", "20", "21"], "--window: got 20 to 21 eV, need one that holds bands"),
        ([path, "--window", "2", "1"], "need (low, high) with low < high"),
        ([str(files / "none_hr.dat")], "no"),
        ([path, "--path", "ABC"], "'A' is no special point of this cell, which are G K M;"),
        ([path, "--points", "0"], "npoints: got 0, need an integer above 1"),
        ([path, "--fermi", "nan"], "--fermi: got nan, need an energy in eV"),
        ([str(files / "g.win")], "got another name"),
    ):
        assert main(["bands", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("mlelec: error: ") and message in error and error.count("\n") == 1
