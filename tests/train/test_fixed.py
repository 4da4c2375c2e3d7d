"""What training computes once for structures that do not move, against the way through all edges."""

import copy

import numpy as np
import pytest
import torch
from small_data import make_frames
from small_models import WANNIER, random_model, sample
from torch.autograd import gradcheck

from ase_mlelec.data import fixed
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.descriptors.embedding import NODES, EmbeddingNets, Interpolated, differentiation
from ase_mlelec.descriptors.fixed import GeometryGradient, change_along, gradient_by_vectors, moments_of
from ase_mlelec.descriptors.smooth_rows import Shape, plain_rows, push_forward, rows_of
from ase_mlelec.testing import random_atoms
from ase_mlelec.train.fit import fit
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss, TensorLoss, VectorLoss

ENERGY = EnergyLoss((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
NETS = {"widths": (5, 10), "n_axis": 3, "mean": False}
MODELS = {
    "nets": NETS,
    "nets by pair": {**NETS, "one_side": False, "l_max": 2},
    "empty slots": {"protection": 0.2, "excluded_pairs": (("O", "O", "taken"),)},
    "series": {"n_basis": 6, "l_max": 3, "n_products": 2},
    "series by pair": {"n_basis": 6, "one_side": False, "excluded_pairs": (("Si", "O", "none"),)},
}


def labeled(*structures):
    """Frames with labels from nowhere."""
    rng, frames = np.random.default_rng(0), []
    for atoms in structures:
        n = len(atoms)
        labels = {"energy": rng.normal(), "forces": rng.normal(size=(n, 3)), "virial": rng.normal(size=(3, 3))}
        labels |= {"ados": rng.random((n, 57)), "atomic_dipole": rng.normal(size=(n, 3))}
        frames.append(Frame(atoms, labels | {"atomic_polarizability": rng.normal(size=(n, 3, 3))}))
    return Frames(frames, np.linspace(-8.0, 6.0, 57))


@pytest.fixture(scope="module")
def frames():
    """A crystal, a molecule, and a structure without one of the species."""
    return labeled(sample(("Si", "O")), random_atoms("SiO2", seed=3), random_atoms("O3", [5, 5, 7], seed=4))


def both(model, frames, loss, indices=(2, 0, 1)):
    """(value, gradients by name) by the edges alone and with what is fixed."""
    for prepared in (False, True):
        batches = Batches.for_model(model, frames, loss.labels)
        if prepared:
            batches.prepare(model.descriptor)
        model.zero_grad()
        batch = batches.batch(indices)
        assert prepared == (batch.parts(model, loss.quantity) is not None)
        value, _ = loss(model, batch, 0.5)
        value.backward()
        yield value.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(model, frames, loss, indices=(2, 0, 1), rtol=1e-9):
    (expected, plain), (found, fast) = both(model, frames, loss, indices)
    assert found == pytest.approx(expected, rel=1e-13, abs=0)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        assert torch.linalg.norm(fast[name] - gradient) <= rtol * torch.linalg.norm(gradient), name


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_energies_forces_and_virials(options, frames):
    assert_same(random_model(**options), frames, ENERGY)


@pytest.mark.parametrize(
    "quantity, loss", [("dos", SpectrumLoss()), ("dipole", VectorLoss()), ("polarizability", TensorLoss())]
)
def test_quantities_of_atoms(quantity, loss, frames):
    model = random_model(heads=(quantity,), metadata=WANNIER, **NETS)
    assert_same(model, frames, loss)


def test_not_computed_beyond_the_memory(frames, monkeypatch):
    model = random_model(**MODELS["series"])
    _, kept = both(model, frames, ENERGY)
    monkeypatch.setattr(fixed, "MOST_BYTES", 0)
    _, again = both(model, frames, ENERGY)
    assert kept[0] == again[0] and all(torch.equal(kept[1][name], again[1][name]) for name in kept[1])


def test_sharper_nets_get_more_terms(frames):
    """Terms follow the present parameters; nets that no series follows are evaluated themselves."""
    model, terms = random_model(**NETS), []
    batches = Batches.for_model(model, frames, ENERGY.labels).prepare(model.descriptor)
    for _ in range(3):
        parts = batches.batch([0]).parts(model, "energy")
        if parts is not None:
            terms.append(parts[0].law.n_basis)
            assert_same(model, frames, ENERGY)
        with torch.no_grad():
            for net in model.descriptor.embedding.nets:
                net[0].weight *= 5
    assert terms == sorted(terms) and len(set(terms)) == len(terms) >= 2 and terms[-1] > NODES[0] / 2
    with torch.no_grad():
        model.descriptor.embedding.nets[0][0].weight *= 1e3
    assert batches.batch([0]).parts(model, "energy") is None
    kinks = random_model(activation="relu", **NETS)
    assert Batches.for_model(kinks, frames, ()).prepare(kinks.descriptor).batch([0]).parts(kinks, "energy") is None


def test_structures_beyond_the_range(frames):
    """A structure with atoms far too close, and all batches with it, go through the edges; others do not change."""
    close = frames.frames[1].atoms.copy()
    close.positions[1] = close.positions[0] + [0.3, 0, 0]
    frames = labeled(*(frame.atoms for frame in frames), close)
    model = random_model(**NETS)
    batches = Batches.for_model(model, frames, ENERGY.labels).prepare(model.descriptor)
    assert batches.batch([0, 3]).parts(model, "energy") is None
    assert_same(model, frames, ENERGY, (0, 1, 2))
    plain = ENERGY(model, Batches.for_model(model, frames, ENERGY.labels).batch([0, 3]), 0.5)[0]
    assert torch.equal(ENERGY(model, batches.batch([0, 3]), 0.5)[0], plain)


def test_single_precision(frames):
    model = random_model(**NETS)
    _, (value, gradients) = both(model, frames, ENERGY)
    _, (rounded, single) = both(copy.deepcopy(model).float(), frames, ENERGY)
    assert rounded == pytest.approx(value, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.linalg.norm(single[name] - gradient) <= 1e-4 * torch.linalg.norm(gradient), name


@pytest.mark.parametrize("quick", [True, False])
def test_resumed_run_with_nets_is_bit_identical(quick, frames, tmp_path, monkeypatch):
    def trained(steps, **files):
        model = random_model(**NETS)
        fit(model, frames, ENERGY, steps=steps, batch_size=2, learning_rate=(1e-2, 1e-3), progress=False, **files)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    if not quick:
        monkeypatch.setattr(Batches, "prepare", lambda self, descriptor: self)
    whole = trained(8)

    def stop(*_):
        raise KeyboardInterrupt

    files = {"checkpoint": tmp_path / "a", "interval": 4}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ase_mlelec.train.loop.Run.finish", stop)
        patch.setattr("ase_mlelec.train.fit.batch_of_step", _until(5))
        trained(8, **files)
    assert torch.equal(trained(8, **files), whole)


def _until(last):
    from ase_mlelec.train.loop import batch_of_step

    def batch(n, batch_size, seed, step):
        if step == last:
            raise KeyboardInterrupt
        return batch_of_step(n, batch_size, seed, step)

    return batch


def test_learning_curves_of_both_ways_agree(monkeypatch):
    data = make_frames(6)
    ends = []
    for prepare in (Batches.prepare, lambda self, descriptor: self):
        monkeypatch.setattr(Batches, "prepare", prepare)
        model = random_model(species=("Cu",), **NETS)
        errors = fit(
            model, data, ENERGY, steps=30, batch_size=2, learning_rate=(1e-2, 1e-3), validation=data, progress=False
        )
        ends.append(errors)
    assert ends[0] == pytest.approx(ends[1], rel=1e-8)


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("protection", [0.0, 0.3])
@pytest.mark.parametrize("mean", [0.0, 0.2])
def test_rows_along_a_move(l_max, protection, mean):
    torch.manual_seed(1)
    vec, move = torch.randn(2, 3, 20, dtype=torch.float64)
    vec *= torch.linspace(0.7, 4.6, 20) / vec.norm(dim=0)
    arguments = Shape(1.5, 4.5, protection, l_max, Interpolated(-0.3, 2.0)), mean, 1.7, 0.6
    _, *parts = rows_of(vec, *arguments)
    found = push_forward(move, arguments, *parts)
    expected = torch.autograd.functional.jvp(lambda v: plain_rows(v, *arguments), vec, move)[1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_derivatives_of_moments(options, frames, monkeypatch):
    """Moments along a move against central differences; the gradient by the vectors is the transpose."""
    monkeypatch.setattr("ase_mlelec.descriptors.fixed.CHUNK", 16)
    model = random_model(**options)
    batches = Batches.for_model(model, frames, ()).prepare(model.descriptor)
    for part in batches.batch([0, 2]).parts(model, "energy"):
        torch.manual_seed(2)
        moves, cotangent = torch.randn_like(part.slots.vec) * part.slots.filled(), torch.randn_like(part.moments)
        along = torch.cat([change_along(moves[:, r], r, part.slots, part.law) for r in part.slots.chunks()])
        step, sides = 1e-4, []
        for sign in (1, -1, 2, -2):
            moved = fixed.Slots(**vars(part.slots) | {"vec": part.slots.vec + sign * step * moves})
            sides.append(moments_of(moved, part.law))
        slope = (8 * (sides[0] - sides[1]) - (sides[2] - sides[3])) / (12 * step)
        torch.testing.assert_close(along, slope, rtol=1e-8, atol=1e-8)
        pulled = torch.cat([grad for _, grad in gradient_by_vectors(cotangent, part.slots, part.law)], dim=1)
        assert float((pulled * moves).sum()) == pytest.approx(float((cotangent * along).sum()), rel=1e-11)


def test_gradient_of_the_geometry_is_linear(frames):
    model = random_model(**MODELS["series"])
    batch = Batches.for_model(model, frames, ()).prepare(model.descriptor).batch([1, 2])
    part = batch.parts(model, "energy")[0]
    slope = torch.randn_like(part.moments).requires_grad_()
    assert gradcheck(lambda g: GeometryGradient.apply(g, part.slots, part.law, batch.system.batch, 2), slope)


def test_interpolated_nets():
    """The series of a net is the net, and its derivative the derivative."""
    torch.manual_seed(0)
    embedding = EmbeddingNets(2, True, (5, 10)).double()
    coefficients, variable = embedding.series(-0.5, 4.0)
    s = torch.linspace(-0.5, 4.0, 50, dtype=torch.float64)
    basis = fixed_basis(variable.argument(None, s), coefficients.shape[2])
    for k in range(2):
        expected = embedding.values(s, 0, k).detach()
        torch.testing.assert_close((coefficients[k] @ basis).T.detach(), expected, rtol=0, atol=1e-12)
        slopes = torch.autograd.functional.jvp(lambda x, k=k: embedding.values(x, 0, k), s, torch.ones_like(s))[1]
        change = differentiation(len(basis), torch.float64, torch.device("cpu")) @ basis * (2 / 4.5)
        torch.testing.assert_close((coefficients[k] @ change).T.detach(), slopes, rtol=0, atol=1e-10)


def fixed_basis(x, n):
    signs = np.resize([1, 1, -1, -1], n)[:, None]
    return torch.as_tensor(np.polynomial.chebyshev.chebvander(x.numpy(), n - 1).T * signs)
