"""Gradient descent of electronic quantities by processes of torchrun has the learning curve of one process."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from small_bilayers import graphene_bilayer, graphene_frame
from small_ldos import ATTRIBUTES, make_snapshot
from small_ldos import ENERGIES as LDOS_ENERGIES
from small_models import ENERGIES, random_model, seeded
from torchrun import together

from ase_mlelec import processes
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.data.grid_points import ArrayCache, GridData
from ase_mlelec.data.hamiltonians import write_hamiltonians
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.descriptors import Bispectrum, LayerMoments
from ase_mlelec.heads import HamiltonianHead, LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.testing import random_atoms
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.fit import fit
from ase_mlelec.train.hamiltonian.closed_form import standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import fit_hamiltonian
from ase_mlelec.train.hamiltonian.items import frame_functions, prepare
from ase_mlelec.train.interrupt import Interrupted
from ase_mlelec.train.ldos.descent import LDOSLoss, LDOSProblem, fit_ldos
from ase_mlelec.train.ldos.standardize import standardize_ldos
from ase_mlelec.train.losses import SpectrumLoss, TensorLoss, VectorLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.run import OVERHEAD, Run
from ase_mlelec.train.schedule import Schedule

LABELS = {  # of structures k: some have those of atoms, some of the whole, some both
    "dos": {"ados": (0, 1, 4, 5), "dos": (1, 2, 3, 6)},
    "dipole": {"atomic_dipole": (0, 1, 4, 5), "summed_dipole": (1, 2, 6), "summed_dipole_slopes": (0, 3, 6)},
    "polarizability": {"atomic_polarizability": (0, 1, 4, 5), "polarizability": (1, 2, 3, 6)},
}
LOSSES = {
    "dos": SpectrumLoss(1.0, 0.5, 0.3),
    "dipole": VectorLoss(1.0, 0.5, 0.2),
    "polarizability": TensorLoss(1.0, 0.5),
}
SHAPES = {"ados": (len(ENERGIES),), "dos": (len(ENERGIES),), "atomic_dipole": (3,), "summed_dipole": (3,)}


def label(name, atoms, rng):
    """Random numbers in the shape of a label; vectors and tensors of oxygen alone."""
    of_atoms = name in ("ados", "atomic_dipole", "atomic_polarizability", "summed_dipole_slopes")
    values = rng.normal(0, 1, ((len(atoms),) if of_atoms else ()) + SHAPES.get(name, (3, 3)))
    if name in ("atomic_dipole", "atomic_polarizability"):
        values[atoms.numbers != 8] = 0
    return values


def frames_of(quantity):
    """Frames of two sizes and with different numbers of centers."""
    frames = []
    for k in range(7):
        atoms = random_atoms(("Si2O2", "SiO3", "Si4O4")[k % 3], cell=np.eye(3) * 6.0, seed=k)
        rng = np.random.default_rng(k)
        frames.append(
            Frame(atoms, {name: label(name, atoms, rng) for name, having in LABELS[quantity].items() if k in having})
        )
    return Frames(frames, ENERGIES if quantity == "dos" else None)


def weights_and_curve(model, curve):
    """Parameters of a model as one array, and the rows of a learning curve."""
    processes.gathered(None)  # the file is there
    weights = torch.cat([p.detach().double().reshape(-1) for p in model.parameters()]).numpy()
    return weights, np.genfromtxt(curve, delimiter=",", skip_header=1)


def of_atoms(folder, quantity):
    model, frames, curve = random_model(1, (quantity,)), frames_of(quantity), f"{folder}/curve.csv"
    options = dict(steps=9, batch_size=3, checkpoint=f"{folder}/checkpoint", curve=curve, interval=3, progress=False)
    fit(model, frames.take(range(5)), LOSSES[quantity], validation=frames.take(range(5, 7)), **options)
    return weights_and_curve(model, curve)


def of_grid_points(folder, quantity, loss=LDOSLoss):
    """LDOS of three snapshots, one of which has it at some of its points; parts of the points in a step."""
    path, descriptor = f"{folder}/al.h5", Bispectrum(["Al"], 3, 3.2).double()
    if processes.rank() == 0:
        snapshots = [make_snapshot(0), make_snapshot(1, n_points=100), make_snapshot(2)]
        write_snapshots(path, snapshots, energies=LDOS_ENERGIES, attributes=ATTRIBUTES)
    processes.gathered(None)
    data = GridData(Snapshots(path), descriptor, f"{folder}/fingerprints.h5", progress=False)
    with seeded(0):
        head = LDOSHead(descriptor.n_features, LDOS_ENERGIES, (12, 12))
    standardize_ldos(head, data, "maximum")
    model, curve = Model(descriptor, {"ldos": head.double()}), f"{folder}/curve.csv"
    data._kept = {k: as_double(data[k]) for k in range(3)}
    fit_ldos(
        model, data, loss(1.0, 0.1, 0.1, 0.1), epochs=4, batch_size=2, batch_points=60, curve=curve, progress=False
    )
    return weights_and_curve(model, curve)


def reading(folder):
    """Snapshots that a process reads in each of two epochs, and whether all have the same parts of points."""
    path, descriptor = f"{folder}/al.h5", Bispectrum(["Al"], 3, 3.2)
    if processes.rank() == 0:
        snapshots = [make_snapshot(k, n_points=100 if k == 2 else None) for k in range(5)]
        write_snapshots(path, snapshots, energies=LDOS_ENERGIES, attributes=ATTRIBUTES)
    processes.gathered(None)
    data, read = GridData(Snapshots(path), descriptor, f"{folder}/fingerprints.h5", progress=False), []
    with seeded(0):
        head = LDOSHead(descriptor.n_features, LDOS_ENERGIES, (12,))
    standardize_ldos(head, data, "spread")
    model = Model(descriptor, {"ldos": head})
    problem = LDOSProblem(model, data, LDOSLoss(), None, False, batch_size=3, batch_points=60, seed=0)
    data._kept, data._bytes, of_file = {}, 1e10, data._read  # nothing is kept
    data._read = lambda k: read.append(k) or of_file(k)
    sizes = [[(k, n) for batch in problem.batches(step) for k, n, _ in batch] for step in (0, 1)]
    return read, sizes, head.state_dict()


@pytest.mark.slow
def test_each_process_reads_its_snapshots_alone(tmp_path):
    (tmp_path / "one").mkdir()
    wanted, sizes, state = reading(tmp_path / "one")
    found = together(reading, tmp_path)
    assert sorted(wanted) == sorted(found[0][0] + found[1][0]) == sorted(2 * [*range(5)])
    assert len(found[0][0]) == 6 and sum(n for _, n in sizes[0]) == 4 * 216 + 100
    for _, own, standardized in found:
        assert own == sizes
        for name, value in state.items():
            torch.testing.assert_close(standardized[name], value, rtol=1e-6, atol=0)


def as_double(item):
    """The snapshot in double precision; it is kept in single."""
    arrays = {name: value for name, value in vars(item).items() if torch.is_tensor(value) and value.is_floating_point()}
    return replace(item, **{name: value.double() for name, value in arrays.items()})


def of_hamiltonians(folder, quantity):
    """Graphene bilayers, with eigenvalues in the loss where ``quantity`` is "levels"."""
    rng, curve = np.random.default_rng(0), f"{folder}/curve.csv"
    frames = [
        graphene_frame(graphene_bilayer(rng.random(2), rng.uniform(3.2, 3.5), seed=k, noise=0.05)) for k in range(5)
    ]
    species, symmetry, functions, areas = frame_functions(frames)
    descriptor = LayerMoments(species, environment=5.5, symmetry=symmetry, n_radial=5, reference_areas=areas)
    with seeded(0):
        head = HamiltonianHead.for_descriptor(
            descriptor, functions, widths=(12,), n_hidden=12, n_reduced=6, n_directed=2
        )
    model = Model(descriptor, {"hamiltonian": head}).double()
    items = [prepare(model, frame, 4 * (quantity == "levels")) for frame in frames]
    standardize_hamiltonian(model, items[:4])
    options = dict(steps=6, batch_size=3, curve=curve, interval=2, progress=False)
    fit_hamiltonian(model, items[:4], validation=items[4:], **options)
    return weights_and_curve(model, curve)


CASES = [(of_atoms, quantity) for quantity in LABELS] + [(of_grid_points, "ldos")]
CASES += [(of_hamiltonians, "elements"), (of_hamiltonians, "levels")]


@pytest.mark.slow
@pytest.mark.parametrize("function, quantity", CASES, ids=[quantity for _, quantity in CASES])
def test_the_same_curve(function, quantity, tmp_path):
    """With three processes, of which some have no structure of a batch, and once with two."""
    (tmp_path / "one").mkdir()
    weights, curve = function(tmp_path / "one", quantity)
    assert curve.shape[0] >= 3 and np.isfinite(weights).all()
    assert np.ptp(curve[:, 2]) > 1e-4 * abs(curve[:, 2]).max()
    for n in (2, 3) if quantity == "dos" else (3,):
        (tmp_path / str(n)).mkdir()
        for found_weights, found_curve in together(function, tmp_path / str(n), quantity, n=n):
            np.testing.assert_allclose(found_curve, curve, rtol=1e-10)
            np.testing.assert_allclose(found_weights, weights, rtol=0, atol=1e-9 * abs(weights).max())


RECIPES = {
    "ldos": {
        "bispectrum": {"twojmax": 3, "cutoff": 3.2},
        "ldos": {"widths": [6], "epochs": 3, "batch_size": 3, "batch_points": 60, "scaling": "spread"},
    },
    "hamiltonian": {"hamiltonian": {"steps": 4, "batch_size": 3, "widths": [6], "n_radial": 3, "environment": 4.5}},
}
ROLES = ["train"] * 4 + ["validation", "test"]


def of_recipe(folder, kind):
    """Weights, errors and scales of error bars of a model that ``mlelec train`` makes."""
    folder = Path(folder)
    if processes.rank() == 0 and kind == "ldos":
        snapshots = [make_snapshot(k, role) for k, role in enumerate(ROLES)]
        write_snapshots(folder / "data.h5", snapshots, energies=LDOS_ENERGIES, attributes=ATTRIBUTES)
    elif processes.rank() == 0:
        bilayers = [graphene_bilayer((0.1 * k, 0.3), 3.3 + 0.02 * k, seed=k, noise=0.05) for k in range(len(ROLES))]
        frames = [graphene_frame(atoms, group=role) for atoms, role in zip(bilayers, ROLES)]
        write_hamiltonians(folder / "data.h5", frames, attributes={"electrons_per_atom": {"C": 1}})
    processes.gathered(None)
    config = {"data": {"files": ["data.h5"]}, "output": {"model": "m.safetensors"}, **RECIPES[kind]}
    model = train(parse_config(config, folder), progress=False)
    processes.gathered(None)
    bars = {name: found["scale"] for name, found in model.metadata["error_bars"].items()}
    return model.state_dict(), model.metadata["errors"], bars, sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_whole_recipes(kind, tmp_path):
    """Weights are in single precision for the LDOS, and within rounding the same; files are those of one process."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    weights, errors, bars, files = of_recipe(tmp_path / "one", kind)
    for found, found_errors, found_bars, found_files in together(of_recipe, tmp_path / "two", kind):
        assert found_files == files
        for name, value in weights.items():
            largest = float(value.abs().max()) if value.numel() else 0.0
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5 * largest)
        for part, own in errors.items():
            assert found_errors[part] == pytest.approx(own, rel=1e-4, abs=1e-12)
        assert found_bars == pytest.approx(bars, rel=1e-3)


class Stopping(LDOSLoss):
    """A loss during whose fourth evaluation, in the first of four epochs, the last process gets a signal to stop."""

    def __call__(self, head, item):
        type(self).calls = getattr(self, "calls", 0) + 1
        if self.calls == 4 and processes.rank() == processes.world() - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(head, item)


def stopped_within_an_epoch(folder):
    try:
        of_grid_points(folder, "ldos", Stopping)
    except Interrupted as stop:
        calls = Stopping.calls
        return str(stop), calls, *of_grid_points(folder, "ldos")


@pytest.mark.slow
def test_all_processes_stop_within_an_epoch(tmp_path):
    """One of them has the signal; the others stop after the same batch, and the same call trains from the start."""
    (tmp_path / "one").mkdir()
    weights, curve = of_grid_points(tmp_path / "one", "ldos")
    for message, calls, found_weights, found_curve in together(stopped_within_an_epoch, tmp_path):
        assert message.startswith("interrupted after 0 of 4 epochs") and calls <= 5
        np.testing.assert_allclose(found_curve, curve, rtol=1e-10)
        np.testing.assert_allclose(found_weights, weights, rtol=0, atol=1e-9)


class Failing(SpectrumLoss):
    """A loss that is NaN in the first process alone."""

    def __call__(self, model, batch, ratio):
        loss, squares = super().__call__(model, batch, ratio)
        return loss * (float("nan") if processes.rank() == 0 and torch.is_grad_enabled() else 1.0), squares


def diverged():
    frames = frames_of("dos")
    with pytest.raises(Diverged) as found:
        fit(random_model(1, ("dos",)), frames, Failing(1.0, 0.5), steps=3, batch_size=4, progress=False)
    return str(found.value)


@pytest.mark.slow
def test_all_processes_stop_where_one_finds_nan():
    for message in together(diverged):
        assert message.startswith("training stopped at step 1")


def steps_within_a_budget():
    """Number of steps of a training whose processes measured different times."""
    problem = SimpleNamespace(parameters=list(torch.nn.Linear(1, 1).parameters()), identity={}, watched="")
    run = Run(problem, Schedule(0.1, 0.01), None, None, seconds=100.0)
    run.step, run.seconds = 10, 2.0 + processes.rank()
    return run._affordable()


@pytest.mark.slow
def test_all_processes_plan_the_same_number_of_steps():
    found = together(steps_within_a_budget)
    assert found[0] == found[1] == 10 + int(98.0 / (OVERHEAD * 0.2))


def read_and_opened_again(path):
    """A file of fingerprints that is opened again while a process still reads it."""
    descriptor = Bispectrum(["Al"], 3, 3.2)
    cache = ArrayCache(path, descriptor)
    cache.fill(["a", "b", "c"], lambda k: torch.full((2,), float(k)), progress=False)
    if processes.rank():
        with h5py.File(path):
            time.sleep(1.0)
    return [ArrayCache(path, descriptor)[name].tolist() for name in "abc"]


@pytest.mark.slow
def test_fingerprints_are_not_opened_to_write_while_another_process_reads(tmp_path):
    for found in together(read_and_opened_again, tmp_path / "fingerprints.h5"):
        assert found == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
