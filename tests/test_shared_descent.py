"""Gradient descent of electronic quantities by processes of torchrun has the learning curve of one process."""

import time
from dataclasses import replace
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
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.descriptors import Bispectrum, LayerMoments
from ase_mlelec.heads import HamiltonianHead, LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.testing import random_atoms
from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.fit import fit
from ase_mlelec.train.hamiltonian.closed_form import standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import fit_hamiltonian
from ase_mlelec.train.hamiltonian.items import frame_functions, prepare
from ase_mlelec.train.ldos.descent import LDOSLoss, fit_ldos
from ase_mlelec.train.ldos.standardize import standardize_ldos
from ase_mlelec.train.losses import SpectrumLoss, TensorLoss, VectorLoss
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


def of_grid_points(folder, quantity):
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
        model, data, LDOSLoss(1.0, 0.1, 0.1, 0.1), epochs=4, batch_size=2, batch_points=60, curve=curve, progress=False
    )
    return weights_and_curve(model, curve)


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
    tolerance = 1e-6 if quantity == "levels" else 1e-10  # derivatives of levels are kept in single precision
    (tmp_path / "one").mkdir()
    weights, curve = function(tmp_path / "one", quantity)
    assert curve.shape[0] >= 3 and np.isfinite(weights).all()
    assert np.ptp(curve[:, 2]) > 1e-4 * abs(curve[:, 2]).max()
    for n in (2, 3) if quantity == "dos" else (3,):
        (tmp_path / str(n)).mkdir()
        for found_weights, found_curve in together(function, tmp_path / str(n), quantity, n=n):
            np.testing.assert_allclose(found_curve, curve, rtol=tolerance)
            np.testing.assert_allclose(found_weights, weights, rtol=0, atol=10 * tolerance * abs(weights).max())


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
