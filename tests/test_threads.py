"""Chunks on several threads: mechanism, results that do not depend on it, and what other code sees of it."""

import os
import sys
import threading

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
import torch
from ase.build import bulk
from small_ldos import random_ldos_model
from small_models import WANNIER, random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, MLDFTCalculator
from ase_mlelec.calculators import extrapolation
from ase_mlelec.descriptors.bispectrum import grid
from ase_mlelec.physics import shift_invert
from ase_mlelec.threads import MOST, available, map_chunks, one_thread_each


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads for chunks, on any number of cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def meet(_):
    """Wait for another thread in the same function: none comes where one thread does all."""
    return barrier.wait(timeout=20) is not None


barrier = threading.Barrier(2)


def test_two_threads_work_at_the_same_time(two_threads):
    with one_thread_each():
        assert list(map_chunks(meet, range(6))) == [True] * 6


def test_results_come_in_order_and_few_chunks_exist_at_a_time(two_threads):
    alive, most = 0, 0

    def chunks():
        nonlocal alive, most
        for k in range(50):
            alive += 1
            most = max(most, alive)
            yield k

    with one_thread_each():
        for k, square in enumerate(map_chunks(lambda chunk: chunk**2, chunks())):
            assert square == k**2
            alive -= 1
    assert k == 49 and most <= 4


def test_operations_have_one_thread_inside_and_the_former_number_afterwards(two_threads):
    with one_thread_each():
        assert torch.get_num_threads() == 1
        with one_thread_each():
            inside = set(map_chunks(lambda _: torch.get_num_threads(), range(8)))
        assert torch.get_num_threads() == 1 and inside == {1}
    assert torch.get_num_threads() == 2
    found = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start(), new.join()
    assert found == [2]  # threads of others begin as they would without this module


def test_an_error_reaches_the_caller_and_the_next_call_works(two_threads):
    with one_thread_each():
        with pytest.raises(ZeroDivisionError):
            list(map_chunks(lambda k: 1 / (3 - k), range(8)))
        assert list(map_chunks(float, range(3))) == [0.0, 1.0, 2.0]
    assert torch.get_num_threads() == 2


def test_the_number_of_threads_is_bounded_by_what_the_user_gave_and_by_the_cores(monkeypatch, two_threads):
    assert available() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5}, raising=False)
    assert available() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    torch.set_num_threads(64)
    assert available() == MOST
    torch.set_num_threads(1)
    assert available() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(two_threads):
    with one_thread_each():
        list(map_chunks(float, range(4)))  # the threads of this process are there
        child = os.fork()
        if child == 0:
            os._exit(0 if list(map_chunks(float, range(4))) == [0.0, 1.0, 2.0, 3.0] else 1)
        assert os.waitpid(child, 0)[1] == 0


ENERGIES = {"energy": ("energy",), "dos": ("energy", "dos"), "dipole": ("energy", "dipole", "polarizability")}
CLASSES = {
    "energy": DeepPotCalculator,
    "dos": DeepDOSCalculator,
    "dipole": DeepWannierCalculator,
    "ldos": MLDFTCalculator,
}


def results(kind):
    """Results of a calculator of a kind, dict."""
    if kind == "ldos":
        atoms, model = bulk("Al", cubic=True), random_ldos_model(0, ("Al",))
    else:
        atoms, model = (
            bulk("SiO", "zincblende", a=4.8, cubic=True) * (1, 1, 2),
            random_model(0, ENERGIES[kind], metadata=WANNIER),
        )
    atoms.rattle(0.05, seed=1)
    calc = atoms.calc = CLASSES[kind](model, on_extrapolation="ignore")
    found = {name: calc.get_property(name, atoms) for name in calc.implemented_properties}
    others = {"dos": "get_ados", "ldos": "get_ldos", "dipole": "get_polarizability"}
    return found | ({"other": getattr(calc, others[kind])()} if kind in others else {})


def make_chunks_small(monkeypatch):
    """Three centers in a chunk, in all modules."""
    size = extrapolation.CHUNK
    for name, module in list(sys.modules.items()):
        if name.startswith("ase_mlelec.calculators.") and getattr(module, "CHUNK", 0) == size:
            monkeypatch.setattr(module, "CHUNK", 3)


@pytest.mark.parametrize("kind", CLASSES)
def test_results_do_not_depend_on_the_number_of_threads(kind, monkeypatch, two_threads):
    make_chunks_small(monkeypatch)
    monkeypatch.setattr(grid, "CHUNK", 64)
    together = results(kind)
    torch.set_num_threads(1)
    alone = results(kind)
    assert together.keys() == alone.keys() and "forces" in alone
    for name, value in alone.items():
        assert np.array_equal(value, together[name]), name


def test_bands_around_an_energy_have_one_thread_of_linear_algebra(monkeypatch):
    """Two threads made this slower by 1.7 on an idle machine, and by 12 to 17 beside other programs."""

    def threads():
        found = (library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas")
        return {library["filepath"]: library["num_threads"] for library in found}

    matrix = scipy.sparse.diags_array(np.arange(300.0), format="csr")
    shift_invert.eigenpairs(matrix, 100.5, 4)  # libraries that are loaded when first needed are there from now on
    inside, search = [], shift_invert._largest
    monkeypatch.setattr(shift_invert, "_largest", lambda *arguments: (inside.append(threads()), search(*arguments))[1])
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        shift_invert.eigenpairs(matrix, 100.5, 4)
        assert 2 in before.values() and set(inside[0].values()) == {1} and threads() == before


def test_no_operation_of_a_step_is_split_among_threads(two_threads):
    """The mechanism behind the time beside a busy program: threads that wait for each other in every operation.

    The default of PyTorch took 25 to 45 times the time of one thread there.
    """
    seen = set()

    class Watched(DeepPotCalculator):
        def _check_pairs(self, system, edges):
            seen.add(torch.get_num_threads())
            super()._check_pairs(system, edges)

        def _store_potential(self, members, edges):
            seen.add(torch.get_num_threads())
            super()._store_potential(members, edges)

    atoms = bulk("SiO", "zincblende", a=4.8, cubic=True)
    atoms.calc = Watched(random_model(0), on_extrapolation="ignore")
    atoms.get_forces()
    assert seen == {1} and torch.get_num_threads() == 2


def test_forces_of_hot_electrons_in_chunks(monkeypatch):
    """The factors of the densities of states of atoms go with the chunks of these atoms, which need not be of one size."""
    atoms = bulk("SiO", "zincblende", a=4.8, cubic=True)
    atoms.rattle(0.05, seed=1)
    calcs = [DeepDOSCalculator(random_model(0, ("energy", "dos")), electronic_temperature=8000) for _ in range(2)]
    whole = calcs[0].get_property("forces", atoms)
    make_chunks_small(monkeypatch)
    np.testing.assert_allclose(calcs[1].get_property("forces", atoms), whole, rtol=0, atol=1e-10)
