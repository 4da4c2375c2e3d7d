"""deepmd-kit models (.dp) against what deepmd-kit 3.2 itself computes with them in float64.

The files (LGPL data of others) lie outside the repository, in ../shared/reference/deepmd; their .npz hold the numbers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, load_model
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "deepmd"
pytestmark = pytest.mark.skipif(not (FOLDER / "si_dos.dp").exists(), reason=f"no reference data in {FOLDER}")


def reference(name):
    """(Model, Atoms, arrays of the .npz)"""
    with np.load(FOLDER / f"{name}.npz") as stored:
        data = dict(stored)
    symbols = [str(symbol) for symbol in data["type_map"][data["types"]]]
    atoms = Atoms(symbols, data["positions"], cell=data["cell"], pbc=data["pbc"])
    return load_model(FOLDER / f"{name}.dp"), atoms, data


def close(found, wanted, tolerance):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=tolerance)


def test_water_by_the_plain_model():
    """Both evaluate the same formulas in float64: 1e-10 is rounding of a sum of 192 energies of about 100 eV."""
    model, atoms, data = reference("water_ener_small")
    system = System.from_atoms(atoms)
    positions = system.positions.requires_grad_(True)
    strain = torch.zeros(1, 3, 3, dtype=torch.float64, requires_grad=True)
    strained = system.strained(strain)
    energies = model(strained, Edges.build(strained, model.cutoff))["energy"]
    forces, virial = (-g for g in torch.autograd.grad(energies.sum(), [positions, strain]))
    close(energies.detach(), data["atomic"], 1e-10)
    close(float(energies.detach().sum()), float(data["energy"]), 1e-10)
    close(forces, data["forces"], 1e-11)
    close(virial[0], data["virial"], 1e-10)


def test_water_by_the_calculator():
    """The embedding nets as Chebyshev series, truncated at 1e-11 of their largest value."""
    model, atoms, data = reference("water_ener_small")
    atoms.calc = DeepPotCalculator(model)
    close(atoms.get_potential_energies(), data["atomic"], 1e-10)
    close(atoms.get_potential_energy(), float(data["energy"]), 1e-10)
    close(atoms.get_forces(), data["forces"], 1e-10)
    virial = -voigt_6_to_full_3x3_stress(atoms.get_stress()) * atoms.get_volume()
    close(virial, (data["virial"] + data["virial"].T) / 2, 1e-10)
    # deepmd-kit shares pairs out between atoms in another way: only the sum of the atomic virials is the same
    close(-atoms.get_stresses().sum(axis=0)[:3] * atoms.get_volume(), np.diag(data["atomic_virial"].sum(axis=0)), 1e-10)


def test_silicon_dos_by_the_plain_model():
    model, atoms, data = reference("si_dos")
    system = System.from_atoms(atoms)
    with torch.no_grad():
        ados = model(system, Edges.build(system, model.cutoff))["dos"]
    close(ados, data["atomic"], 1e-12)
    close(ados.sum(dim=0), data["dos"], 1e-12)


def test_silicon_dos_by_the_calculator():
    model, atoms, data = reference("si_dos")
    calculator = DeepDOSCalculator(model)
    close(calculator.get_ados(atoms), data["atomic"], 1e-10)
    close(calculator.get_total_dos(), data["dos"], 1e-10)
    assert calculator.energies.tolist() == list(range(250)) and calculator.metadata["energy_grid_known"] is False
