"""``mlelec pca`` on a tiny model."""

import sys

import h5py
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from small_models import random_model

from ase_mlelec import DeepDOSCalculator, load_model
from ase_mlelec.analysis.ados import principal_components
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pca")
    model = random_model(0, ("dos",), species=("Si",), n_basis=6)
    model.metadata["order_parameter_offsets_eV"] = [0.0, -1.0]
    model.save(path / "si.safetensors")
    images = [bulk("Si", cubic=True) for _ in range(4)]
    for seed, image in enumerate(images):
        image.rattle(0.1, seed=seed)
    write(path / "si.traj", images)
    return path, images


def test_components_of_a_trajectory(folder, capsys):
    path, images = folder
    out, picture = path / "si.h5", path / "pca.png"
    arguments = ["pca", f"{path}/si.safetensors", f"{path}/si.traj", "--out", str(out), "--plot", str(picture)]
    assert main(arguments) == 0
    calc = DeepDOSCalculator(load_model(path / "si.safetensors"))
    ados = np.array([calc.get_ados(atoms) for atoms in images])
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["ados"], ados, atol=1e-12)
        order = file["order_parameter"][()]
    share = 100 * principal_components(ados).explained_variance
    low, high = np.percentile(order, (1, 99))
    assert capsys.readouterr().out.splitlines() == [
        f"32 atoms in 4 structures: components with {share[0]:.1f} and {share[1]:.1f} % of the variance",
        f"order parameter Q (states/eV): {low:.3f} to {high:.3f} (1st and 99th percentile)",
    ]
    assert picture.stat().st_size > 10000
    assert main([*arguments[:3], "--out", str(out)]) == 0  # goes on with what is there
    assert main([*arguments[:2], f"{path}/si.traj@:2", "--atom", "9", "--plot", str(picture)]) == 1
    assert "got atom 9, need 0 to 7" in capsys.readouterr().err


def test_minima_and_other_structure_types(folder, capsys, monkeypatch):
    """Types of the common-neighbor analysis stand in for those of OVITO."""
    path, _ = folder
    from ase_mlelec.analysis import structure_types

    monkeypatch.setattr(structure_types, "diamond_structure", lambda atoms: np.arange(len(atoms)) % 2)
    assert main(["pca", f"{path}/si.safetensors", f"{path}/si.traj", "--cna", "--minima"]) == 0
    first, *_, other, cubic = capsys.readouterr().out.splitlines()
    assert first.startswith("minima of the DOS: ") and first.endswith(" eV from the Fermi level")
    assert other.startswith("other: 50.0 % of the atoms, Q ") and cubic.startswith("cubic diamond: 50.0 % of the atoms")


def test_without_ovito(folder, capsys, monkeypatch):
    path, _ = folder
    monkeypatch.setitem(sys.modules, "ovito", None)
    monkeypatch.setitem(sys.modules, "ovito.io.ase", None)
    assert main(["pca", f"{path}/si.safetensors", f"{path}/si.traj@:2", "--cna"]) == 1
    assert "needs OVITO" in capsys.readouterr().err
