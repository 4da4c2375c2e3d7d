"""Losses against their equations, and their gradients against differences."""

import numpy as np
import pytest
import torch
from small_data import make_frames, make_wannier_frames
from small_models import WANNIER, random_model

from ase_mlelec.calculators.deep_pot import DeepPotCalculator
from ase_mlelec.calculators.deep_wannier import DeepWannierCalculator
from ase_mlelec.data.batches import Batches
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss, TensorLoss, VectorLoss, prefactor


@pytest.fixture(scope="module")
def frames():
    return make_frames(3)


def small_model(frames):
    model = random_model(1, ("energy",), species=("Cu",), widths=(4,), n_basis=6, l_max=2)
    torch.manual_seed(0)
    model.heads["dos"] = SpectrumHead(1, model.descriptor.n_features, frames.energies, (8,)).double()
    return model


def test_prefactor():
    """p(t) = p_limit [1 - r(t)/r0] + p_start [r(t)/r0] with r(t) = r0 d^t: from start to limit."""
    decay = 0.99
    for t in (0, 10, 100, 10000):
        ratio = decay**t
        assert prefactor((1000.0, 1.0), ratio) == pytest.approx(1.0 + 999.0 * decay**t, rel=1e-12)
    assert prefactor((1000.0, 1.0), 1.0) == 1000.0 and prefactor((1000.0, 1.0), 0.0) == 1.0
    assert prefactor((0.0, 2.0), 0.25) == 1.5


@pytest.mark.parametrize("ratio", [1.0, 0.3, 0.0])
def test_energy_loss_is_the_equation(frames, ratio):
    """L = p_e/N dE^2 + p_f/(3N) sum |dF|^2 + p_v/(9N) |dΞ|^2 with E, F and Ξ from the calculator; structures of
    different size."""
    model = small_model(frames)
    terms = {"energy": (0.1, 10.0), "forces": (100.0, 1.0), "virial": (1.0, 5.0)}
    calc, expected = DeepPotCalculator(model, device="cpu"), []
    for frame in frames:
        n, atoms, labels = len(frame.atoms), frame.atoms.copy(), frame.labels
        atoms.calc = calc
        energy = (atoms.get_potential_energy() - labels["energy"]) ** 2
        forces = ((atoms.get_forces() - labels["forces"]) ** 2).sum()
        virial = ((-atoms.get_stress(voigt=False) * atoms.get_volume() - labels["virial"]) ** 2).sum()
        expected.append(
            prefactor(terms["energy"], ratio) / n * energy
            + prefactor(terms["forces"], ratio) / (3 * n) * forces
            + prefactor(terms["virial"], ratio) / (9 * n) * virial
        )
    loss = EnergyLoss(**terms)
    value, _ = loss(model, Batches.for_model(model, frames, loss.labels).batch([0, 1, 2]), ratio)
    assert float(value.detach()) == pytest.approx(np.mean(expected), rel=1e-10)


def test_terms_without_weight_need_no_labels():
    assert EnergyLoss((1, 1), (0, 0), (0, 0)).labels == ("energy",)
    assert EnergyLoss((0, 0), (1, 0), (0, 1)).labels == ("forces", "virial")
    assert SpectrumLoss().labels == ("ados",)
    assert SpectrumLoss(0.0, 1.0).labels == SpectrumLoss(0.0, 0.0, 1.0).labels == ("dos",)


def test_spectrum_loss_is_the_equation(frames):
    model, loss = small_model(frames), SpectrumLoss(1.0, 2.0, 3.0)
    batch = Batches.for_model(model, frames, loss.labels).batch([0, 1])
    predictions = np.split(batch.predict(model, "dos").detach().numpy(), [4])
    differences = [p - frame.labels["ados"] for p, frame in zip(predictions, frames)]
    totals = [d.mean(axis=0) for d in differences]
    step = frames.energies[1] - frames.energies[0]
    expected = (
        np.mean(np.concatenate(differences) ** 2)
        + 2 * np.mean(np.square(totals))
        + 3 * np.mean(np.square(np.cumsum(totals, axis=1) * step))
    )
    assert float(loss(model, batch, 1.0)[0].detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [EnergyLoss((1, 1), (1, 1), (1, 1)), SpectrumLoss(1, 1, 1), SpectrumLoss(0, 1)],
    ids=["energy", "ados", "dos"],
)
def test_gradient(loss, frames):
    model = small_model(frames)
    batch = Batches.for_model(model, frames, loss.labels).batch([0, 1])
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(model, batch, 0.5)[0], parameters, allow_unused=True)
    rng, h = np.random.default_rng(0), 1e-5
    for parameter, gradient in zip(parameters, gradients):
        if gradient is None:
            continue
        direction = torch.as_tensor(rng.normal(size=parameter.shape))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * h * direction
            values.append(float(loss(model, batch, 0.5)[0].detach()))
            with torch.no_grad():
                parameter -= sign * h * direction
        slope = (values[0] - values[1]) / (2 * h)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=2e-6, abs=1e-7)


def test_without_gradients_the_same_numbers(frames):
    model, loss = small_model(frames), EnergyLoss((1, 1), (1, 1), (1, 1))
    batch = Batches.for_model(model, frames, loss.labels).batch([0, 1])
    with torch.no_grad():
        value, _ = loss(model, batch, 0.5)
    assert not value.requires_grad
    assert float(value) == pytest.approx(float(loss(model, batch, 0.5)[0].detach()), rel=1e-14)


@pytest.mark.parametrize("atomic", [1.0, 0.0], ids=["atomic", "totals alone"])
def test_center_losses_are_their_equations(atomic):
    """Mean squares over the oxygens and over the sums per oxygen, with predictions of the calculator."""
    frames, model = make_wannier_frames(3), random_model(2, ("dipole", "polarizability"), metadata=dict(WANNIER))
    frames.frames[1].labels["atomic_polarizability"][3, 0, 1] += 0.4  # antisymmetric parts do not count
    frames.frames[1].labels["atomic_polarizability"][3, 1, 0] -= 0.4
    calc, errors = DeepWannierCalculator(model, on_extrapolation="ignore"), {"dipole": [], "polarizability": []}
    for frame in frames:
        oxygen = frame.atoms.numbers == 8
        vectors = calc.get_centroids(frame.atoms) - frame.atoms.positions[oxygen]
        errors["dipole"].append(vectors - frame.labels["atomic_dipole"][oxygen])
        calc.get_polarizability()
        tensors = calc._extra["atomic_polarizability"] - frame.labels["atomic_polarizability"]
        errors["polarizability"].append((tensors + tensors.transpose(0, 2, 1))[oxygen] / 2)
    for loss in VectorLoss(atomic, 0.7), TensorLoss(atomic, 0.7):
        found = np.array(errors[loss.quantity])
        value, squares = loss(model, Batches.for_model(model, frames, loss.labels).batch([0, 1, 2]), 1.0)
        total = (found.sum(axis=1) / 4) ** 2
        assert float(value.detach()) == pytest.approx(atomic * (found**2).mean() + 0.7 * total.mean(), rel=1e-9)
        assert len(squares) == (2 if atomic else 1)


def test_labels_of_center_losses():
    assert VectorLoss().labels == ("atomic_dipole",) and VectorLoss(0, 1).labels == ("summed_dipole",)
    assert TensorLoss().labels == ("atomic_polarizability",) and TensorLoss(0, 1).labels == ("polarizability",)


def test_only_centers_are_described():
    """Four oxygens in a cell of six atoms."""
    frames, model, rows = make_wannier_frames(2), random_model(2, ("dipole",)), []
    model.descriptor.register_forward_hook(lambda module, args, out: rows.append(len(out.features)))
    Batches.for_model(model, frames, ("atomic_dipole",)).batch([0, 1]).predict(model, "dipole")
    assert rows == [8]


def test_structures_under_high_pressure_count_less(frames):
    """Each atom by 1/(1 + (|F|/s)^2) 1/(1 + (|virial|/(3^1/2 N s))^2), a structure by the mean over its atoms."""
    model, strong = small_model(frames), 0.7
    loss = EnergyLoss((1, 1), (1, 1), (1, 1), strong_force=strong)
    batch = Batches.for_model(model, frames, loss.labels).batch([0, 1])
    atomic, whole = loss.weights(batch, batch.system.n_atoms.double())
    wanted = []
    for frame in frames.frames[:2]:
        pressure = np.sqrt((frame.labels["virial"] ** 2).sum() / 3) / len(frame.atoms)
        wanted.append(1 / (1 + (frame.labels["forces"] ** 2).sum(axis=1) / strong**2) / (1 + (pressure / strong) ** 2))
    np.testing.assert_allclose(atomic, np.concatenate(wanted), rtol=1e-12)
    np.testing.assert_allclose(whole, [each.mean() for each in wanted], rtol=1e-12)
    assert (atomic < 1).all()
