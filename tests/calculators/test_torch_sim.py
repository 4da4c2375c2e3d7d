"""Models in torch-sim: its own check of models, and batches and dynamics against the calculator."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.geometry import find_mic
from ase.md.verlet import VelocityVerlet
from small_models import random_model

from ase_mlelec import DeepPotCalculator
from ase_mlelec.testing import random_atoms

pytest.importorskip("torch_sim", reason="needs torch-sim (pip install torch-sim-atomistic)")
import torch_sim as ts

from ase_mlelec.calculators.torch_sim_model import TorchSimModel

pytestmark = [
    pytest.mark.peer,
    # of torch-sim and what it imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


def test_what_torch_sim_checks():
    from torch_sim.models.interface import validate_model_outputs

    model = TorchSimModel(random_model(species=("Si", "Fe"), mean=False), device="cpu")
    validate_model_outputs(model, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("name", ["linear", "nets"])
def test_batch(name):
    """Cells of different size and shape; an energy in closed form, and one of nets."""
    if name == "linear":
        images = [bulk("MgO", "rocksalt", a=3.5), bulk("MgO", "rocksalt", a=3.4, cubic=True)]
        for seed, atoms in enumerate(images):
            atoms.rattle(0.05, seed=seed)
        source = "mgo"
    else:
        images = [random_atoms("Si2O4", [[5.0, 0, 0], [0.7, 5.4, 0], [0, -0.5, 5.2]]), random_atoms("SiO", [6, 6, 6])]
        source = random_model()
    state = ts.io.atoms_to_state(images, torch.device("cpu"), torch.float64)
    found = TorchSimModel(source, device="cpu")(state)
    calc, first = DeepPotCalculator(source), 0
    for k, atoms in enumerate(images):
        atoms.calc = calc
        assert found["energy"][k].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        rows = found["forces"][first : first + len(atoms)].numpy()
        np.testing.assert_allclose(rows, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(found["stress"][k].numpy(), atoms.get_stress(voigt=False), atol=1e-9)
        first += len(atoms)


def test_dynamics():
    """Velocity Verlet from rest, as in ASE; torch-sim's unit of time is that of ASE."""
    atoms = bulk("MgO", "rocksalt", a=3.5)
    atoms.rattle(0.05, seed=0)
    model = TorchSimModel("mgo", device="cpu")
    state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    start, step = ts.integrators.nve(model, dt=torch.tensor(units.fs).double(), kT=torch.tensor(0.0).double(), seed=0)
    moving = start(state)
    for _ in range(5):
        moving = step(moving)
    atoms.calc = DeepPotCalculator("mgo")
    before = atoms.positions.copy()
    VelocityVerlet(atoms, timestep=units.fs).run(5)
    assert np.abs(atoms.positions - before).max() > 0.02
    difference, _ = find_mic(moving.positions.numpy() - atoms.positions, atoms.cell)  # torch-sim wraps them
    np.testing.assert_allclose(difference, 0, atol=1e-8)


def test_models_without_an_energy():
    with pytest.raises(ValueError, match="got a model of ldos, need one with an energy"):
        TorchSimModel("al", device="cpu")
