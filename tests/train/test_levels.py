"""First-order answers of levels to errors of the Hamiltonian, against levels of changed Hamiltonians."""

import numpy as np
import pytest
import torch
from small_bilayers import graphene_bilayer, graphene_frame, mx2_bilayer, mx2_frame, mx2_functions

from ase_mlelec import WannierHamiltonian
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.heads import Blocks, HamiltonianHead
from ase_mlelec.model import Model
from ase_mlelec.physics.kmesh import time_reversal_pairs
from ase_mlelec.train.hamiltonian import eigenvalue_response as levels
from ase_mlelec.train.hamiltonian.closed_form import standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import category_errors, category_scales
from ase_mlelec.train.hamiltonian.items import frame_functions, prepare


def mx2(k):
    atoms = mx2_bilayer((0.2, 0.1 * k), noise=0.03, seed=k, turned=k % 2 == 0)
    return mx2_frame(atoms, mx2_functions(atoms))


def graphene(k):
    return graphene_frame(graphene_bilayer((0.1 * k, 0.3), noise=0.03, seed=k))


@pytest.fixture(scope="module", params=[(mx2, 28), (graphene, 4)], ids=["MX2", "graphene"])
def fitted(request):
    """(model with the two-center parts alone, frames, number of electrons)"""
    make, n_electrons = request.param
    frames = [make(k) for k in range(3)]
    species, symmetry, functions, areas = frame_functions(frames)
    torch.manual_seed(0)
    descriptor = LayerMoments(species, environment=4.5, symmetry=symmetry, n_radial=3, reference_areas=areas)
    head = HamiltonianHead.for_descriptor(descriptor, functions, widths=(6,))
    model = Model(descriptor, {"hamiltonian": head}).double()
    standardize_hamiltonian(model, [prepare(model, frame) for frame in frames])
    return model, frames, n_electrons


@torch.no_grad()
def changed(head, item, frame, part):
    """Levels on the mesh where a part of the model's error is added to the true blocks."""
    blocks = head.unshifted(item.geometry)
    onsite, hopping = (
        {key: truth + part * (found[key] - truth) for key, truth in true.items()}
        for true, found in ((item.onsite, blocks.onsite), (item.hopping, blocks.hopping))
    )
    r_vectors, which, row, column, values, owners = head.elements(Blocks(item.geometry, onsite, hopping))
    hamiltonian = WannierHamiltonian.from_elements(
        frame.atoms.cell.array,
        r_vectors=r_vectors,
        which=which,
        row=row,
        column=column,
        values=values,
        centers=frame.atoms.positions[owners],
    )
    return hamiltonian.eigenvalues(time_reversal_pairs(levels.mesh(frame.atoms))[0])


def test_slopes_of_levels(fitted):
    """Of several structures at once, one of which has no number of electrons."""
    model, frames, n_electrons = fitted
    head = model.heads["hamiltonian"]
    items = [prepare(model, frame, n) for frame, n in zip(frames, (n_electrons, 0, n_electrons))]
    assert not items[1].responses
    found = category_errors(head, items)["levels"].detach().numpy()
    wanted = []
    for item, frame in zip(items[::2], frames[::2]):
        energies, step = changed(head, item, frame, 0.0), 1e-4
        slopes = (changed(head, item, frame, step) - changed(head, item, frame, -step)) / (2 * step)
        edges = energies[:, n_electrons // 2 - 1].max(), energies[:, n_electrons // 2].min()
        away = np.maximum(0, np.maximum(min(edges) - energies, energies - max(edges)))
        wanted.append((slopes / (1 + 2 * away))[away < 1])
    wanted = np.concatenate(wanted)
    assert len(found) > 10 and abs(wanted).max() > 1e-5
    np.testing.assert_allclose(found, wanted, atol=2e-3 * abs(wanted).max())


def test_levels_are_a_category_where_electrons_are_known(fitted):
    model, frames, n_electrons = fitted
    head = model.heads["hamiltonian"]
    errors = category_scales(head, [prepare(model, frames[0], n_electrons)])
    assert errors["levels"] > 0
    without = category_scales(head, [prepare(model, frames[0])])
    assert without == {name: error for name, error in errors.items() if name != "levels"}


@pytest.mark.parametrize("n_electrons", [0, 1, 1000])
def test_nothing_or_everything_is_filled(fitted, n_electrons):
    model, frames, _ = fitted
    assert prepare(model, frames[0], n_electrons).responses == {}


def test_large_cells_have_none(fitted, monkeypatch):
    model, frames, n_electrons = fitted
    monkeypatch.setattr(levels, "LARGEST", 3)
    assert prepare(model, frames[0], n_electrons).responses == {}
