"""Vectors beyond the weighted sums of neighbors, and descriptors of electronic heads alone."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.descriptors.products import quadrupoles
from ase_mlelec.edges import Edges
from ase_mlelec.heads import ScalarHead, VectorHead
from ase_mlelec.model import Model
from ase_mlelec.system import System

CHARGES = {"valence_charges": {"O": 6.0, "H": 1.0}, "electrons_per_centre": {"O": 8.0}}


def descriptor(seed=0, **options):
    torch.manual_seed(seed)
    return DeepPotSE(("H", "O"), **dict(cutoff=4.0, smooth=0.5, widths=[6], n_axis=3, l_max=2, n_basis=8) | options)


def model(electronic=None):
    shared = descriptor()
    own = electronic or shared
    heads = {
        "energy": ScalarHead(2, shared.n_features, (8,)),
        "dipole": VectorHead(2, own.n_features, own.n_frame, (1,), (8,)),
    }
    return Model(shared, heads, CHARGES, electronic).double()


def water():
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=3)
    return atoms


def test_quadrupole_of_a_direction():
    unit = torch.nn.functional.normalize(torch.randn(3, 9, dtype=torch.float64), dim=0)
    found = quadrupoles(harmonics(unit, 2, 2)[None])[0]
    expected = torch.einsum("ie,je->eij", unit, unit) - torch.eye(3, dtype=torch.float64) / 3
    assert torch.allclose(found, expected, atol=1e-14)


def test_products_of_one_neighbor():
    """(u u^T - 1/3) u = 2/3 u: every product lies along the bond."""
    made, atoms = descriptor(n_products=2).double(), molecule("OH")
    system = System.from_atoms(atoms)
    edges = Edges.build(system, made.cutoff)
    frame = made(system, edges).frame[0]
    unit = edges.vec[0] / edges.vec[0].norm()
    along = frame[:2] @ unit
    expected = 2 / 3 * torch.outer(along, along).flatten()[:, None] * unit
    assert len(frame) == made.n_frame == 10
    assert abs(expected).max() > 1e-6
    assert torch.allclose(frame[6:], expected, rtol=1e-6, atol=1e-14)


def test_products_turn_with_the_structure():
    made, atoms = model(descriptor(1, n_products=3)), water()
    turned = atoms.copy()
    turned.rotate(77, (1, 2, 3), rotate_cell=False)
    rotation = np.linalg.lstsq(atoms.positions, turned.positions, rcond=None)[0]
    values = [DeepWannierCalculator(made).get_property("dipole", a) for a in (atoms, turned)]
    assert abs(values[0] @ rotation - values[1]).max() < 1e-10


@pytest.mark.parametrize("options", [dict(n_products=7), dict(n_products=2, l_max=1), dict(n_products=-1)])
def test_products_that_cannot_be(options):
    with pytest.raises(ValueError, match="n_products"):
        descriptor(**options)


def test_electronic_descriptor_is_saved_and_used(tmp_path):
    made, atoms = model(descriptor(1, n_products=3)), water()
    made.save(tmp_path / "m.safetensors")
    stored = load_model(tmp_path / "m.safetensors")
    assert stored.electronic.arguments() == made.electronic.arguments() != stored.descriptor.arguments()
    for order in (("energy", "dipole"), ("dipole", "energy")):
        calc = DeepWannierCalculator(stored)
        found = {name: calc.get_property(name, atoms) for name in order}
        assert found["energy"] == pytest.approx(DeepPotCalculator(made).get_property("energy", atoms), abs=1e-10)
        system = System.from_atoms(atoms)
        vectors = made.heads["dipole"](made.electronic(system, Edges.build(system, 4.0)), None).detach().numpy()
        expected = np.array([-2.0, 1, 1]) @ atoms.positions - 8 * vectors[0]
        assert abs(found["dipole"] - expected).max() < 1e-10


@pytest.mark.parametrize("reach", [3.0, 5.0])
def test_descriptors_of_different_reach(reach):
    """Each descriptor sees the neighbors within its own cutoff, whatever the calculator asks for first."""
    atoms = bulk("MgO", "rocksalt", a=3.9, cubic=True)
    atoms.symbols[:] = ["O", "H"] * 4
    atoms.rattle(0.1, seed=1)
    electronic = descriptor(1, n_products=2, cutoff=reach)
    made = model(electronic)
    system = System.from_atoms(atoms)
    environment = made.electronic(system, Edges.build(system, reach))
    vectors = made.heads["dipole"](environment, None).detach().numpy()
    alone = DeepPotCalculator(Model(made.descriptor, {"energy": made.heads["energy"]}).double())
    for order in (("forces", "vectors"), ("vectors", "forces")):
        calc = DeepWannierCalculator(made)
        calc.calculate(atoms, [name for name in order if name == "forces"])
        for name in order:
            if name == "forces":
                np.testing.assert_allclose(calc.get_forces(atoms), alone.get_forces(atoms), atol=1e-12)
                np.testing.assert_allclose(calc.get_stress(atoms), alone.get_stress(atoms), atol=1e-12)
            else:
                found = calc.get_centroids(atoms) - atoms.positions[atoms.numbers == 8]
                np.testing.assert_allclose(found, vectors[atoms.numbers == 8], atol=1e-12)
