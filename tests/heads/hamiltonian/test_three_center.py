"""Functions of third atoms against sums over triples of atoms, and hopping that depends on them, learnt back."""

import itertools

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from small_bilayers import graphene_bilayer, mx2_bilayer, mx2_functions, random_wannier_model

from ase_mlelec.calculators.wannier_tb import WannierTBCalculator
from ase_mlelec.data.hamiltonians import Function, HamiltonianFrame
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.descriptors.layer_moments.third_atoms import FADE, INNER, N_MOMENT, POWERS, UNIT
from ase_mlelec.edges import Edges
from ase_mlelec.heads import HamiltonianHead
from ase_mlelec.heads.hamiltonian.hopping import N_THIRD
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.hamiltonian.closed_form import standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import category_errors
from ase_mlelec.train.hamiltonian.items import prepare, without_third_atoms

CUTOFF = 4.5


def radial(r, n):
    x = np.clip((r - CUTOFF + FADE) / FADE, 0, 1)
    fade = 1 - x**3 * (10 - 15 * x + 6 * x**2)
    return chebyshev.chebval(np.clip(2 * (r - INNER) / (CUTOFF - INNER) - 1, -1, 1), np.eye(n)) * fade


def summed(atoms, layer, species, i, pair, third):
    """B [kinds, n, n, powers] of the pair from atom i along the vector ``pair``, atom by atom."""
    cell, middle = atoms.cell.array, atoms.positions[i] + pair / 2
    direction = pair[:2] / np.linalg.norm(pair)
    n, powers = third.n_radial, POWERS[: len(third.powers)]
    total = np.zeros((2 * len(species), n, n, len(powers)))
    for k, position in enumerate(atoms.positions):
        for images in np.ndindex(9, 9):
            place = position + (np.array(images) - 4) @ cell[:2]
            first, second = (np.linalg.norm(place - end) for end in (atoms.positions[i], atoms.positions[i] + pair))
            if min(first, second) < 1e-6 or max(first, second) > CUTOFF:
                continue
            away = (place - middle) / UNIT
            y = direction[0] * away[1] - direction[1] * away[0]
            kind = species.index(atoms[k].symbol) + len(species) * (layer[k] != layer[i])
            total[kind] += (radial(first, n)[:, None] * radial(second, n))[:, :, None] * np.array(
                [y**a * away[2] ** b for a, b in powers]
            )
    return total


@pytest.mark.parametrize("kind", ["mx2", "graphene"])
def test_sums_over_triples(kind):
    atoms = (mx2_bilayer if kind == "mx2" else graphene_bilayer)((0.3, 0.1), noise=0.05, seed=1)
    model, system = random_wannier_model(kind), System.from_atoms(atoms)
    head, descriptor = model.heads["hamiltonian"], model.descriptor
    geometry = descriptor(system, Edges.build(system, descriptor.cutoff))
    place, layer = atoms.get_scaled_positions(wrap=False), geometry.layer.numpy()
    for name, (low, high) in (("near", (0, 6)), ("long", (6, 9))):
        rows = ((geometry.r > low) & (geometry.r < high)).nonzero()[::17, 0]
        assert 5 < len(rows) and len(set(geometry.inter[rows].tolist())) == 2
        third = head.hopping[0].third_atoms[name]
        for way in (geometry.pairs(rows), geometry.pairs(rows).reversed()):
            found = third(way).numpy()
            for row, i, j, shift in zip(found, way.first.tolist(), way.second.tolist(), way.shift.numpy()):
                vector = (place[j] + shift - place[i]) @ atoms.cell.array
                wanted = summed(atoms, layer, head.species, i, vector, third)
                np.testing.assert_allclose(row, wanted.ravel(), atol=1e-10)
            assert abs(found).max() > 0.1


def test_signs_of_reflections():
    """A bilayer in a mirror: functions keep their values or change sign as ``signs`` says."""
    atoms = mx2_bilayer((0.3, 0.1), noise=0.05, seed=1)
    model = random_wannier_model("mx2")
    third, descriptor = model.heads["hamiltonian"].hopping[0].third_atoms["near"], model.descriptor

    def functions(crystal):
        system = System.from_atoms(crystal)
        frames = descriptor.frames(system)._replace(axes=torch.eye(3, dtype=torch.float64))
        geometry = descriptor.in_frames(system, Edges.build(system, descriptor.cutoff), frames)
        rows = (geometry.r < 6).nonzero()[:, 0]
        return torch.stack([part[rows] for part in (geometry.first, geometry.second, *geometry.shift.T)]), third(
            geometry.pairs(rows)
        )

    pairs, wanted = functions(atoms)
    for sign, mirror in zip(third.signs(), (np.diag([1, 1, -1]), np.diag([1, -1, 1]))):
        other = atoms.copy()
        other.set_cell(atoms.cell.array @ mirror)
        other.positions = atoms.positions @ mirror
        same, found = functions(other)
        assert torch.equal(same, pairs)
        torch.testing.assert_close(found, wanted * sign, atol=1e-10, rtol=0)


def test_moments_are_sums_over_neighbors():
    """X of on-site blocks, from B of every neighbor and its direction in the frame of the layer."""
    atoms = mx2_bilayer((0.3, 0.1), noise=0.05, seed=1)
    head = random_wannier_model("mx2").descriptor
    system, third = System.from_atoms(atoms), head.onsite_third
    frames = head.frames(system)
    found = head(system, Edges.build(system, head.cutoff)).third_moments.numpy()
    layer, count = frames.layer.numpy(), third.n_kinds * N_MOMENT * third.n_features
    cell = atoms.cell.array
    for i in (0, 2):
        total = np.zeros((third.n_kinds, N_MOMENT, third.n_features, found.shape[2]), dtype=complex)
        for j, images in itertools.product(range(len(atoms)), np.ndindex(9, 9)):
            vector = atoms.positions[j] + (np.array(images) - 4) @ cell[:2] - atoms.positions[i]
            r = np.linalg.norm(vector)
            if not 0 < r < CUTOFF:
                continue
            u = vector[:2] @ [1, 1j] / r * np.exp(-1j * float(frames.angle[layer[i]]))
            functions = summed(atoms, layer, head.species, i, vector, third)
            functions = functions * np.array([1j ** (a % 2) for a, _ in third.powers])
            kind = head.species.index(atoms[j].symbol) + len(head.species) * (layer[j] != layer[i])
            total[kind] += np.einsum(
                "n,f,q->nfq", radial(r, N_MOMENT), functions.ravel(), u ** np.arange(1, found.shape[2] + 1)
            )
        assert abs(total).max() > 0.01
        np.testing.assert_allclose(found[i], total.reshape(count, -1), atol=1e-10)


def trained_on(model, frames, **changes):
    descriptor = LayerMoments(**(model.descriptor.arguments() | changes))
    head = HamiltonianHead(**(model.heads["hamiltonian"].arguments() | changes))
    own = Model(descriptor, {"hamiltonian": head}).double()
    standardize_hamiltonian(own, [prepare(own, frame) for frame in frames])
    return own


@pytest.mark.slow
def test_hopping_by_third_atoms_is_learnt(monkeypatch):
    """Hamiltonians in which all hopping is by third atoms, by their places up to squares: of an unseen structure a linear
    fit, which has cubes too, knows most, one of two centers little."""
    with monkeypatch.context() as truth:
        truth.setitem(N_THIRD, "near", (4, 6, 6))
        model = random_wannier_model("graphene")
    head = model.heads["hamiltonian"]
    for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
        if any(part in name for part in ("hopping", "linear", "onsite.")) and not name.endswith("third"):
            tensor.data.zero_()
    for name, net in (named for kind in head.hopping for named in kind.nets.items()):
        net.envelope.copy_(torch.tensor([0.0, -0.5]))
        third = head.hopping[0].third_atoms[name]  # the smoothest alone: of few structures much can be learnt
        smooth = torch.zeros(third.n_kinds, third.n_radial, third.n_radial, len(third.powers), dtype=torch.float64)
        smooth[:, :2, :2] = 1
        net.third *= smooth.flatten()[:, None]
        net.third[1:] = 0
    calc, frames = WannierTBCalculator(model, on_extrapolation="ignore"), []
    for seed in range(11):
        atoms = graphene_bilayer(np.random.default_rng(seed).random(2)) * (3, 3, 1)
        atoms.rattle(0.05, seed=seed)
        functions = [Function(k, "pz") for k in range(len(atoms))]
        frames.append(HamiltonianFrame(atoms, calc.get_hamiltonian(atoms), functions))
    errors = []
    for cutoff in (0.0, CUTOFF):
        own = trained_on(model, frames[:10], third=cutoff)
        with torch.no_grad():
            found = category_errors(own.heads["hamiltonian"], [prepare(own, frames[10])])
            errors.append(float(found["intra_near"].abs().mean()))
    assert errors[1] < 0.1 * errors[0]


def test_what_gradient_descent_learns():
    """The part of third atoms is taken from the true blocks: errors of the rest are those of the whole."""
    model = random_wannier_model("mx2")
    head = model.heads["hamiltonian"]
    atoms = mx2_bilayer((0.1, 0.2), noise=0.05, seed=3)
    calc = WannierTBCalculator(random_wannier_model("mx2", seed=1), on_extrapolation="ignore")
    items = [prepare(model, HamiltonianFrame(atoms, calc.get_hamiltonian(atoms), mx2_functions(atoms)))]
    rest = without_third_atoms(head, items)
    assert rest[0].geometry.neighbors is None
    with torch.no_grad():
        for name, wanted in category_errors(head, items).items():
            torch.testing.assert_close(category_errors(head, rest)[name], wanted, atol=1e-12, rtol=1e-12)
