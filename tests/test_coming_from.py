"""The page "Coming from other programs": its commands run, and the settings that it names exist."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from small_bilayers import graphene_bilayer, graphene_frame
from small_deepmd import random_tree, write_dp
from small_survey import clean

from ase_mlelec import DeepPotCalculator, WannierHamiltonian, WannierTBCalculator, load_model
from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.data.hamiltonians import write_hamiltonians
from ase_mlelec.physics.fermi import fermi_level
from ase_mlelec.train.config.schema import settings
from ase_mlelec_entry_points.cli.main import main

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.rst").read_text(encoding="utf-8")


def commands(program):
    """The words behind "mlelec" of the commands in the section of a program."""
    (section,) = re.findall(rf"\n{program}\n-+\n(.*?)(?=\n[^\n]+\n-+\n|\Z)", PAGE, re.S)
    return [shlex.split(line, comments=True) for line in re.findall(r"^    mlelec (.*)$", section, re.M)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_that_the_page_names_exist():
    known, named = settings(), re.findall(r"``\[([\w.]+)\]((?: \w+``(?:, ``\w+)*)?)", PAGE)
    assert len(named) > 15
    for section, names in named:
        *above, last = section.split(".")
        assert section in known or last in known[".".join(above)]["properties"], section
        for name in re.findall(r"\w+", names):
            assert name in known[section]["properties"], f"[{section}] {name}"


def test_deepmd(folder):
    write_dp(folder / "graph.dp", random_tree())
    rng, water = np.random.default_rng(0), molecule("H2O", cell=[7, 7, 7], pbc=True)
    frames = []
    for _ in range(3):
        atoms = water.copy()
        atoms.positions += rng.normal(0, 0.05, (3, 3))
        frames.append(Frame(atoms, {"energy": rng.normal(), "forces": rng.normal(size=(3, 3))}))
    write_hdf5(folder / "data.h5", Frames(frames))
    convert, protect, export, data = commands("deepmd-kit")
    for words in convert, data:
        assert main(words) == 0
    (folder / "SYSTEM").symlink_to(next((folder / "systems").iterdir()))
    for words in protect, export:
        assert main(words) == 0
    energies = []
    for name in "model.safetensors", "model.dp":
        frames[0].atoms.calc = DeepPotCalculator(name, on_extrapolation="ignore")
        energies.append(frames[0].atoms.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], rel=1e-10) and load_model("protected.safetensors").core


def test_mace(folder):
    images = []
    for frame in clean(6):
        atoms = frame.atoms
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = frame.labels["energy"], frame.labels["forces"]
        images.append(atoms)
    write("train.extxyz", images[:4])
    write("test.extxyz", images[4:])
    with pytest.warns(UserWarning, match="read as energy: REF_energy, forces: REF_forces"):
        assert main(["train", "train.extxyz"]) == main(["test", "train.safetensors", "test.extxyz"]) == 0
    images[0].calc = DeepPotCalculator("train.safetensors")
    assert images[0].get_potential_energy() == pytest.approx(images[0].info["REF_energy"], abs=0.05)
    for atoms in images:
        atoms.info["my_energy"], atoms.arrays["my_forces"] = (
            atoms.info.pop("REF_energy"),
            atoms.arrays.pop("REF_forces"),
        )
    write("mine.extxyz", images)
    options = re.search(r"``(--key energy=my_energy --key forces=my_forces)``", PAGE)
    assert options and main(["init", "mine.extxyz", *options[1].split()]) == 0


UPF = (
    '<UPF version="2.0.1"><PP_HEADER element="Be" z_valence="2" functional="PBE" mesh_size="2"/>\n<PP_MESH><PP_R>0 1'
    "</PP_R><PP_RAB>1 1</PP_RAB></PP_MESH><PP_LOCAL>0 0</PP_LOCAL><PP_RHOATOM>0 0</PP_RHOATOM></UPF>"
)


def test_mala(folder):
    grid, atoms = (4, 4, 6), molecule("Be2", cell=[2.3, 2.3, 3.6], pbc=True)
    energies = np.linspace(-5, 20, 11)
    ldos = np.random.default_rng(0).uniform(0.8, 1.2, (*grid, 1)) * 0.2 * np.sqrt(energies + 5) / atoms.get_volume()
    structure = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
    level = fermi_level(energies, ldos.mean(axis=(0, 1, 2)) * atoms.get_volume(), 4.0, 298.0)
    info = {"grid_dimensions": grid, "temperature": 298.0, "number_of_electrons_exact": 4.0, "fermi_energy_dft": level}
    info |= {"atoms": {key: value.tolist() for key, value in structure.items()} | {"pbc": [True] * 3}}
    Path("Be_snapshot0.info.json").write_text(json.dumps(info))
    np.save("Be_snapshot0.out.npy", ldos)
    Path("Be.UPF").write_text(UPF)
    convert, train = commands("MALA")
    assert main(convert) == 0
    assert main([*train, "--minutes", "0.005", "--quiet"]) == 0
    assert "ldos" in load_model("be2.safetensors").heads


def test_bands_of_wannier90(folder):
    frame = graphene_frame(graphene_bilayer((0.1, 0.2)))
    frame.hamiltonian.write("seed_hr.dat")
    cell = "\n".join(" ".join(f"{x:.10f}" for x in row) for row in frame.atoms.cell.array)
    Path("seed.win").write_text(f"begin unit_cell_cart\nang\n{cell}\nend unit_cell_cart\n")
    (words,) = re.findall(r"``mlelec (bands seed_hr.dat)``", PAGE)
    assert main(words.split()) == 0


@pytest.mark.slow
def test_model_of_wannier90(folder):
    """The folders are those of the page on conversion; a model gives a Hamiltonian again."""
    frames = [graphene_frame(graphene_bilayer((0.1 * k, 0.2), noise=0.02, seed=k), group="") for k in range(2)]
    write_hamiltonians("data.h5", frames, attributes={"electrons_per_atom": {"C": 1.0}})
    (words,) = re.findall(r"``mlelec (train data.h5)``", PAGE)
    assert main([*words.split(), "--minutes", "0.005", "--quiet"]) == 0
    found = WannierTBCalculator("data.safetensors").get_hamiltonian(atoms=frames[1].atoms)
    assert isinstance(found, WannierHamiltonian) and found.size == frames[1].hamiltonian.size
