"""Numbers of the shipped models on small structures, in float64, for comparison with later versions of the code.

    python tests/reference/shipped_numbers.py           # writes tests/data/shipped_numbers.json
    python tests/reference/shipped_numbers.py si        # those of one model

Written with version 0.1.0, before the layout of the package changed.  Write it again only where a model is replaced.
"""

import hashlib
import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, graphene, molecule, mx2

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, MLDFTCalculator, WannierTBCalculator

PATH = Path(__file__).parent.parent / "data" / "shipped_numbers.json"
OPTIONS = {"device": "cpu", "on_extrapolation": "ignore"}


def bilayer(layer, distance):
    """Two layers, the upper one shifted, with atoms off their places."""
    lower, upper = layer.copy(), layer.copy()
    upper.positions += [0.4, 0.2, distance]
    atoms = lower + upper
    atoms.set_cell([*layer.cell[:2], [0, 0, 30.0]])
    atoms.pbc = True
    atoms.rattle(0.03, seed=2)
    return atoms


def silicon():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=1)
    calc = DeepDOSCalculator("si", dtype="float64", **OPTIONS)
    return calc, atoms, {"ados": calc.get_ados(atoms=atoms), "fermi_level": calc.get_fermi_level(atoms=atoms)}


def hot_silicon():
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=1)
    calc = DeepDOSCalculator("si_hot", electronic_temperature=15000, dtype="float64", **OPTIONS)
    return calc, atoms, {"dos": calc.get_total_dos(atoms=atoms), "fermi_level": calc.get_fermi_level(atoms=atoms)}


def magnesium_oxide():
    atoms = bulk("MgO", "rocksalt", a=3.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    calc = DeepDOSCalculator("mgo", dtype="float64", **OPTIONS)
    return calc, atoms, {"ados": calc.get_ados(atoms=atoms)}


def aluminium():
    atoms = bulk("Al")
    atoms.rattle(0.05, seed=1)
    calc = MLDFTCalculator("al", electronic_temperature=933, dtype="float64", **OPTIONS)
    dos, density = calc.get_total_dos(atoms=atoms), calc.get_density(atoms=atoms)
    return calc, atoms, {"dos": dos, "density": density[0, 0]}


def ice():
    oxygen = np.array([[0, 0, 0], [1.6, 1.6, 1.6]])
    hydrogen = [[0.6, 0.6, 0.55], [-0.55, -0.6, 0.6], [2.2, 1.0, 2.15], [1.0, 2.2, 2.1]]
    atoms = Atoms("O2H4", [*oxygen, *hydrogen], cell=[3.2, 3.2, 3.2], pbc=True)
    calc = DeepWannierCalculator("ice", dtype="float64", **OPTIONS)
    return calc, atoms, {"dipole": calc.get_property("dipole", atoms)}


def water():
    atoms = molecule("H2O")
    other = molecule("H2O")
    other.rotate(70, "x")
    other.positions += [0.2, 1.6, 2.3]
    atoms += other
    atoms.set_cell([4.0, 4.1, 4.4])
    atoms.pbc = True
    calc = DeepWannierCalculator("water", dtype="float64", **OPTIONS)
    return calc, atoms, {"dipole": calc.get_property("dipole", atoms)}


def wannier(name, layer, distance):
    atoms = bilayer(layer, distance)
    calc = WannierTBCalculator(name, dtype="float64", **OPTIONS)
    kpts = [[0, 0, 0], [0.2, 0.1, 0], [1 / 3, 1 / 3, 0]]
    found = {"eigenvalues": calc.get_hamiltonian(atoms=atoms).eigenvalues(kpts)}
    return (calc if "energy" in calc.implemented_properties else None), atoms, found


def energies_of_mos2():
    atoms = mx2("MoS2", a=3.2, thickness=3.1, size=(2, 1, 1), vacuum=8)
    atoms.pbc = True
    atoms.rattle(0.05, seed=1)
    return DeepPotCalculator("mos2", dtype="float64", **OPTIONS), atoms, {}


CASES = {
    "si": silicon,
    "si_hot": hot_silicon,
    "mgo": magnesium_oxide,
    "al": aluminium,
    "ice": ice,
    "water": water,
    "graphene": lambda: wannier("graphene", graphene(a=2.48, vacuum=0), 3.4),
    "mos2": energies_of_mos2,
    "mos2-bilayer": lambda: wannier("mos2", mx2("MoS2", a=3.2, thickness=3.1), 6.2),
}


def numbers(name):
    """dict of nested lists: energy, forces, stress where the model has them, and its electronic quantities."""
    calc, atoms, found = CASES[name]()
    if calc is not None:
        for key in ("energy", "forces", "stress"):
            if key in calc.implemented_properties:
                found[key] = calc.get_property(key, atoms)
    return {key: np.asarray(value, dtype=float).tolist() for key, value in found.items()}


def file_hash(name):
    """SHA-256 of a shipped model's file, the first sixteen digits."""
    content = (files("ase_mlelec") / "pretrained" / f"{name.split('-')[0]}.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


if __name__ == "__main__":
    kept = json.loads(PATH.read_text()) if sys.argv[1:] else {}
    made = {name: {"file": file_hash(name), **numbers(name)} for name in sys.argv[1:] or CASES}
    PATH.write_text(json.dumps(kept | made) + "\n")
