"""What a step of a small structure costs, counted rather than timed: calls of torch and comparisons of structures."""

import gc
from collections import Counter

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators import calculator as ase_calculator
from small_models import random_model
from torch.utils._python_dispatch import TorchDispatchMode

from ase_mlelec import DeepDOSCalculator, compiled

VIEWS = {
    "view",
    "detach",
    "select",
    "slice",
    "transpose",
    "permute",
    "t",
    "unbind",
    "split",
    "split_with_sizes",
    "expand",
    "unsqueeze",
    "squeeze",
    "alias",
    "lift_fresh",
    "_unsafe_view",
}


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


MODELS = {"DeepPotSE": lambda: random_model(heads=("energy", "dos"), species=("Si",), centers=()), "ACE": lambda: "si"}


@pytest.fixture
def atoms(request):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.03, seed=1)
    atoms.calc = DeepDOSCalculator(MODELS[getattr(request, "param", "DeepPotSE")]())
    return atoms


@pytest.mark.parametrize("atoms", MODELS, indirect=True)
def test_calls_of_torch_in_a_step(atoms, request):
    """584 once, 389 of them not views; most were derivatives of the rows of the descriptor, one by one.

    The repulsive core sees at a glance that no atoms are close. ACE invariants take thousands without compiled loops.
    """
    if "ACE" in request.node.name and not compiled.is_wanted():
        pytest.skip("needs compiled loops (extra fast)")
    rng, counts = np.random.default_rng(0), []
    for _ in range(21):
        atoms.positions += rng.normal(0, 1e-3, (8, 3))
        with Calls() as calls:
            atoms.get_potential_energy(), atoms.get_forces()
        counts.append((sum(calls.counts.values()), sum(n for name, n in calls.counts.items() if name not in VIEWS)))
    # a list of neighbors is built now and then, and every tenth step is compared with the training
    assert np.median(counts, axis=0)[0] <= 220
    assert np.median(counts, axis=0)[1] <= 160


def test_steps_leave_no_arrays_behind(atoms):
    """An array that a backward pass kept was a view of its result: nine tensors stayed of every step."""
    rng, counts = np.random.default_rng(0), []
    for _ in range(4):
        atoms.positions += rng.normal(0, 1e-4, (8, 3))
        atoms.get_forces(), atoms.calc.get_ados()
        gc.collect()
        counts.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert counts[1] == counts[2] == counts[3]


def test_what_is_identical_is_not_compared_number_by_number(atoms, monkeypatch):
    """ASE's comparison with a tolerance, for arrays that differ at all."""
    compared, equal = [], ase_calculator.equal

    def counted(a, b, **options):
        compared.append(np.shape(a))
        return equal(a, b, **options)

    monkeypatch.setattr(ase_calculator, "equal", counted)
    energy = atoms.get_potential_energy()
    atoms.get_forces(), atoms.get_potential_energy()
    assert not compared
    atoms.positions[0, 0] += 1e-16  # below the tolerance: still the same structure
    assert atoms.calc.check_state(atoms) == [] and compared
    atoms.positions[0, 0] += 1e-3
    assert atoms.calc.check_state(atoms) == ["positions"]
    assert atoms.get_potential_energy() != energy
    atoms.set_initial_charges(np.ones(8))
    assert atoms.calc.check_state(atoms) == ["initial_charges"]
    atoms.pbc = [True, True, False]
    assert set(atoms.calc.check_state(atoms)) == {"initial_charges", "pbc"}
