"""``mlelec protect``"""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from small_models import random_model

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec_entry_points.cli.main import main


@pytest.fixture
def data(tmp_path):
    images = []
    for seed in range(6):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.3 if seed == 5 else 0.05, seed=seed)
        atoms.info["group"] = "close" if seed == 5 else "train"
        atoms.calc = SinglePointCalculator(atoms, energy=0.0)
        images.append(atoms)
    write(tmp_path / "cu.extxyz", images)
    random_model(species=("Cu",)).save(tmp_path / "old.safetensors")
    return tmp_path, images


def shortest(images):
    return min(np.sort(atoms.get_all_distances(mic=True)[np.triu_indices(4, 1)])[0] for atoms in images)


def test_core_and_ranges(data, capsys):
    folder, images = data
    new = folder / "new.safetensors"
    assert (
        main(
            [
                "protect",
                str(folder / "old.safetensors"),
                str(folder / "cu.extxyz"),
                "-o",
                str(new),
                "--support",
                "close",
            ]
        )
        == 0
    )
    assert "a repulsive core below them" in capsys.readouterr().out
    old, model = load_model(folder / "old.safetensors"), load_model(new)
    assert model.metadata["shortest_distances_A"]["Cu-Cu"] == pytest.approx(shortest(images), abs=1e-4)
    assert float(model.core.outer) == pytest.approx(0.95 * shortest(images), abs=1e-3)
    system = System.from_atoms(images[0])
    edges = Edges.build(system, old.descriptor.cutoff)
    energies = [each(system, edges, ("energy",))["energy"].tolist() for each in (old, model)]
    assert energies[0] == energies[1]
    calc = DeepPotCalculator(model)
    assert max(calc.get_extrapolation(atoms=atoms).max() for atoms in images[:5]) < 1.01
    assert calc.extrapolations == {}
    assert calc.get_extrapolation(atoms=bulk("Cu", cubic=True) * 2).shape == (32,)
    with pytest.warns(UserWarning, match="unlike the training data"):
        calc.get_extrapolation(atoms=bulk("Cu", "bcc", a=2.2))
    assert calc.extrapolations


def test_without_core(data):
    folder, _ = data
    assert (
        main(
            [
                "protect",
                str(folder / "old.safetensors"),
                str(folder / "cu.extxyz"),
                "-o",
                str(folder / "b.safetensors"),
                "--no-core",
                "--group",
                "train",
            ]
        )
        == 0
    )
    assert load_model(folder / "b.safetensors").core is None


@pytest.mark.parametrize(
    "change, message",
    [
        (["-o", "x.h5"], "need a name that ends in .safetensors"),
        (["--group", "none", "-o", "x.safetensors"], "no structures of the groups none; name others with --group"),
    ],
)
def test_errors(data, change, message, capsys):
    folder, _ = data
    assert main(["protect", str(folder / "old.safetensors"), str(folder / "cu.extxyz"), *change]) == 1
    assert message in capsys.readouterr().err


def test_from_the_configuration_of_a_training(data, capsys):
    folder, images = data
    (folder / "cu.toml").write_text(
        '[data]\nfiles = ["cu.extxyz"]\nsupport = ["close"]\n[energy]\n[output]\nmodel = "cu.safetensors"\n',
        encoding="utf-8",
    )
    for source in ([str(folder / "cu.toml")], [str(folder / "cu.extxyz"), "--support", "close"]):
        assert main(["protect", str(folder / "old.safetensors"), *source, "-o", str(folder / "new.safetensors")]) == 0
        assert "5 structures" in capsys.readouterr().out
        model = load_model(folder / "new.safetensors")
        assert model.metadata["shortest_distances_A"]["Cu-Cu"] == pytest.approx(shortest(images), abs=1e-4)
