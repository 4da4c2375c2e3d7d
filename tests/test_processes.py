"""Processes of torchrun that share work have the results of one process."""

import numpy as np
import pytest
import torch
from small_ldos import random_ldos_model
from torchrun import together

from ase_mlelec import MLDFTCalculator, processes
from ase_mlelec.calculators import ldos_prediction
from ase_mlelec.testing import assert_close, random_atoms


def exchanged():
    value = torch.tensor([1.0 + processes.rank(), 2.0], dtype=torch.float64)
    processes.sum_up(value)
    own = list(processes.mine(range(5)))
    return {
        "sum": value.tolist(),
        "own": own,
        "in turn": processes.in_turn([10 * k for k in own]),
        "first": processes.of_first(processes.rank() + 7),
        "rank": (processes.rank(), processes.world()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_exchange(n):
    for rank, found in enumerate(together(exchanged, n=n)):
        assert found["sum"] == [n * (n + 1) / 2, 2.0 * n]
        assert found["own"] == list(range(rank, 5, n))
        assert found["in turn"] == [0, 10, 20, 30, 40]
        assert found["first"] == 7
        assert found["rank"] == (rank, n)


def test_alone_nothing_is_shared():
    with processes.together():
        found = exchanged()
    assert found["own"] == list(range(5)) and found["sum"] == [1.0, 2.0] and found["rank"] == (0, 1)
    assert not torch.distributed.is_initialized()


def grid_results(streams, seeds):
    """Results of ML-DFT; at another temperature; and the passes that were needed after the work was shared."""
    ldos_prediction.MOST_COORDINATES = 0 if streams else 10**9
    atoms = random_atoms("Al2O2", cell=np.diag([3.6, 4.2, 4.8]), shortest=1.7)
    calc = MLDFTCalculator([random_ldos_model(seed) for seed in seeds], device="cpu")
    names = ("energy", "fermi_level", "forces", "stress")
    found = {name: np.array(calc.get_property(name, atoms)) for name in names}
    found |= {"density": calc.get_density(), "dos": calc.get_total_dos(), "ldos": calc.get_ldos()}
    calc.electronic_temperature = 1000.0
    return found | {"cold": np.array(calc.get_terms()["total"])}


@pytest.mark.slow
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_grids_of_ml_dft(streams, seeds, monkeypatch):
    monkeypatch.setattr(ldos_prediction, "MOST_COORDINATES", None)  # restored after grid_results
    wanted = grid_results(False, seeds)
    for found in together(grid_results, streams, seeds):
        for name, value in wanted.items():
            assert_close(found[name], value, 1e-12 if name not in ("forces", "stress") else 1e-10, name)


def inside_and_outside():
    """Energies of one calculator before and after the end of the shared work, at two temperatures."""
    from ase_mlelec.calculators.ml_dft import MLDFTCalculator as Calculator

    atoms = random_atoms("Al2O2", cell=np.diag([3.6, 4.2, 4.8]), shortest=1.7)
    calc = Calculator(random_ldos_model(), device="cpu")
    found = [calc.get_potential_energy(atoms)]
    processes._shared.update(rank=0, world=1)
    calc.electronic_temperature = 1000.0
    return [*found, calc.get_potential_energy(atoms)]


@pytest.mark.slow
def test_shares_do_not_outlive_the_shared_work():
    wanted = inside_and_outside()
    for found in together(inside_and_outside):
        assert found == pytest.approx(wanted, rel=1e-12)
