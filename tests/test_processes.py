"""Processes of torchrun that share work have the results of one process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from small_data import ENERGIES, make_frames
from small_ldos import random_ldos_model
from small_models import random_model, seeded
from torchrun import free_port, together

from ase_mlelec import DeepPotCalculator, MLDFTCalculator, evaluate, load_model, processes
from ase_mlelec.calculators import ldos_prediction
from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.descriptors import ACE, DeepPotSE
from ase_mlelec.descriptors.ace import Order
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing import assert_close, random_atoms
from ase_mlelec.train.closed_form import fit_closed_form
from ase_mlelec.train.fit import fit
from ase_mlelec.train.interrupt import Interrupted
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss
from ase_mlelec.train.standardize import standardize


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


def nested(rank):
    whole = torch.full((2, 3), 1.0 + rank)
    return {
        "parts": [{"normal": whole if rank else torch.zeros(0, 0)}, {"normal": whole}],
        "squares": {"energy": 1.5} | ({"forces": 2.0} if rank else {}),
        "count": 3,
    }


def sums_of_nested():
    return processes.summed(nested(processes.rank()))


@pytest.mark.slow
def test_sums_of_what_some_processes_lack():
    for found in together(sums_of_nested):
        assert found["squares"] == {"energy": 3.0, "forces": 2.0} and found["count"] == 6
        assert torch.equal(found["parts"][0]["normal"], torch.full((2, 3), 2.0))
        assert torch.equal(found["parts"][1]["normal"], torch.full((2, 3), 3.0))


def evaluated(folder):
    """Rows of structures of different sizes, in memory, in a file, and in that file after an interruption."""
    images = [random_atoms(f"Si{k}O{k}", cell=np.eye(3) * 6.0, seed=k) for k in (1, 3, 2, 4, 2)]
    calc = DeepPotCalculator(random_model(), device="cpu")
    quantities, path = ["energy", "forces", "volume"], f"{folder}/rows.h5"
    inside = evaluate(calc, images, quantities, batch_size=2, progress=False)
    evaluate(calc, images[:3], quantities, batch_size=2, out=path, progress=False)
    stored = evaluate(calc, images, quantities, batch_size=2, out=path, progress=False)
    return [{name: np.array(rows[name]) for name in quantities} for rows in (inside, stored)]


@pytest.mark.slow
def test_evaluate(tmp_path):
    """The same bits, as every batch is evaluated as by one process."""
    (tmp_path / "one").mkdir()
    wanted = evaluated(tmp_path / "one")
    for found in together(evaluated, tmp_path):
        for rows, as_one in zip(found, wanted, strict=True):
            for name, value in as_one.items():
                np.testing.assert_array_equal(rows[name], value)


def evaluated_grids():
    """Rows of structures by a calculator that shares its own work elsewhere."""
    images = [random_atoms("Al2O2", cell=np.diag([3.6, 4.2, z]), shortest=1.7) for z in (4.8, 5.4, 4.2)]
    rows = evaluate(MLDFTCalculator(random_ldos_model(), device="cpu"), images, ["energy", "forces"], progress=False)
    return {name: np.array(rows[name]) for name in ("energy", "forces")}


@pytest.mark.slow
def test_evaluate_where_calculators_share_work():
    """Each process has another structure, and must not wait for the others within it, nor add up their results."""
    wanted = evaluated_grids()
    for found in together(evaluated_grids):
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


def frames_with_labels(n=7):
    """Frames of two sizes, of which some lack forces or virials."""
    truth, frames = random_model(3), []
    for k in range(n):
        atoms = random_atoms("Si2O2" if k % 3 else "Si4O4", cell=np.eye(3) * 6.0, seed=k)
        calc = DeepPotCalculator(truth, device="cpu", on_extrapolation="ignore")
        labels = {"energy": np.array(calc.get_property("energy", atoms))}
        if k % 4:
            labels["forces"] = calc.get_property("forces", atoms)
        if k % 2:
            labels["virial"] = -atoms.get_volume() * voigt_6_to_full_3x3_stress(calc.get_property("stress", atoms))
        frames.append(Frame(atoms, labels))
    return Frames(frames)


class StoppedLoss(EnergyLoss):
    """A loss during whose fifth evaluation the last process gets a signal to stop."""

    calls = 0

    def __call__(self, *args):
        type(self).calls += 1
        if self.calls == 5 and processes.rank() == processes.world() - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(*args)


def interrupted(folder):
    """The message of an interrupted training, then what is trained by the same call."""
    try:
        trained(folder, StoppedLoss)
    except Interrupted as stop:
        processes.gathered(None)
        return str(stop), *trained(folder, StoppedLoss)


def trained(folder, kind=EnergyLoss):
    """Weights and learning curve of a few steps of gradient descent; the curve as the file has it."""
    model, frames = random_model(1), frames_with_labels()
    loss = kind(energy=(0.1, 1.0), forces=(10.0, 1.0), virial=(0.1, 1.0))
    curve = f"{folder}/curve.csv"
    fit(
        model,
        frames.take(range(5)),
        loss,
        steps=12,
        validation=frames.take(range(5, 7)),
        batch_size=3,
        checkpoint=f"{folder}/checkpoint",
        curve=curve,
        interval=3,
        progress=False,
    )
    weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    processes.gathered(None)
    return weights, np.genfromtxt(curve, delimiter=",", skip_header=1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_gradient_descent(n, tmp_path):
    """The same loss curve; with four processes, some have no structure of a batch."""
    (tmp_path / "one").mkdir()
    weights, curve = trained(tmp_path / "one")
    assert curve.shape[0] == 4 and np.isfinite(curve).all()
    assert curve[0, 2] != curve[-1, 2]
    for found_weights, found_curve in together(trained, tmp_path, n=n):
        np.testing.assert_allclose(found_curve, curve, rtol=1e-10)
        np.testing.assert_allclose(found_weights, weights, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step(tmp_path):
    """A signal to one of them is enough, and the same call goes on to the same end."""
    (tmp_path / "one").mkdir()
    weights, curve = trained(tmp_path / "one")
    found = together(interrupted, tmp_path)
    assert found[0][0] == found[1][0] and found[0][0].startswith("interrupted after ")
    for _, found_weights, found_curve in found:
        np.testing.assert_allclose(found_curve, curve, rtol=1e-10)
        np.testing.assert_allclose(found_weights, weights, rtol=0, atol=1e-10)


def linear_model():
    descriptor = ACE(("Si", "O"), inner=1.3, orders=[Order(4.0, 3, 0), Order(4.0, 2, 2)]).double()
    with seeded(0):
        return Model(descriptor, {"energy": ScalarHead(2, descriptor.n_features, ()).double()}).eval()


def in_closed_form():
    """Linear energies of structures that were fitted."""
    frames = frames_with_labels()
    model = linear_model()
    fit_linear(model, frames, EnergyLoss(energy=(1.0, 1.0), forces=(1.0, 1.0)), 1e-3, batch_size=2, progress=False)
    with torch.no_grad():
        system = System.from_atoms([frame.atoms for frame in frames])
        return model(system, Edges.build(system, model.cutoff))["energy"].numpy()


@pytest.mark.slow
def test_closed_form():
    wanted = in_closed_form()
    for found in together(in_closed_form):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


def drawn_nets():
    """Predictions of densities of states by a drawn net, whose ridge and weights cross-validation chose."""
    frames = make_frames(6)
    torch.manual_seed(0)
    descriptor = DeepPotSE(("Cu",), 4.0, 1.0, (5,), 3, n_basis=5, l_max=2)
    model = Model(descriptor, {"dos": SpectrumHead(1, descriptor.n_features, ENERGIES, widths=(9,))}).double()
    standardize(model, frames)
    about = fit_closed_form(model, frames, SpectrumLoss(total=1.0), batch_size=1).about
    with torch.no_grad():
        system = System.from_atoms([frame.atoms for frame in frames])
        return about, model(system, Edges.build(system, model.cutoff))["dos"].numpy()


@pytest.mark.slow
def test_drawn_nets():
    about, wanted = drawn_nets()
    for own, found in together(drawn_nets):
        assert own["ridge"] == about["ridge"] and own["weights"] == about["weights"]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


CONFIG = """
[data]
files = ["data.h5"]
train = ["train"]
validation = ["validation"]
test = ["test"]

[descriptor]
cutoff = 4.0
widths = [4]
n_axis = 2

[energy]
widths = [6]
steps = 8
batch_size = 3

[dos]

[output]
model = "model.safetensors"
"""


@pytest.mark.slow
def test_command(tmp_path):
    """torchrun trains a model with the errors of one process; the first process alone writes and tells."""
    outputs = {}
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        write_hdf5(folder / "data.h5", make_frames(12))
        (folder / "config.toml").write_text(CONFIG)
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--master-port"]
        command += [str(free_port()), "-m", "ase_mlelec_entry_points.cli.main", "train", "config.toml"]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        outputs[n] = done.stdout, load_model(folder / "model.safetensors"), {path.name for path in folder.iterdir()}
    (told, one, files), (told_by_two, two, files_of_two) = outputs[1], outputs[2]
    assert told.count("Model: ") == told_by_two.count("Model: ") == 1
    assert files == files_of_two
    for part, errors in one.metadata["errors"].items():
        assert two.metadata["errors"][part] == pytest.approx(errors, rel=1e-8)
