"""Frames of layers and environments in them."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import InputError
from ase.neighborlist import neighbor_list
from small_bilayers import graphene_bilayer, mx2_bilayer

from ase_mlelec import descriptors
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.descriptors.layer_moments import find_symmetry, layer_frames
from ase_mlelec.edges import Edges
from ase_mlelec.structures.twist import commensurate, twisted_bilayer
from ase_mlelec.system import System


def frames_of(atoms, symmetry=3):
    return layer_frames(System.from_atoms(atoms), symmetry)


def environment(atoms, **options):
    options = {"cutoff": 5.0, "environment": 5.0, "n_radial": 3, **options}
    descriptor = LayerMoments(sorted(set(atoms.symbols)), **options).double()
    system = System.from_atoms(atoms)
    return descriptor(system, Edges.build(system, descriptor.cutoff + 1.0))


def degrees(angle, period):
    return (np.degrees(float(angle)) + period / 2) % period - period / 2


def test_direction_of_a_layer():
    """e1 points from Mo to S, so that the layer that is turned in 2H stacking has a frame turned by 180 degrees."""
    for turned, wanted in ((True, 60), (False, 0)):
        found = frames_of(mx2_bilayer((0.2, 0.4), turned=turned))
        assert abs(degrees(found.angle[0] + np.radians(30), 120)) < 1e-9  # S lies at -30 degrees from Mo
        assert abs(abs(degrees(found.angle[1] - found.angle[0], 120)) - wanted) < 1e-9
        assert found.layer.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("angle", [3.0, 17.0, -40.0])
def test_the_frame_turns_with_its_layer(angle):
    atoms = mx2_bilayer((0.2, 0.4), noise=0.05, seed=1)
    whole = atoms.copy()
    whole.rotate(angle, "z", rotate_cell=True)
    before, after = environment(atoms).frame, environment(whole).frame
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(after, before @ rotation, atol=1e-12)


def test_twist_is_the_difference_of_the_angles():
    layer = graphene_bilayer()[:2]
    atoms, found = twisted_bilayer(layer, layer, commensurate(2, 1), 3.35)
    angle = frames_of(atoms, 6).angle
    assert abs(abs(degrees(angle[1] - angle[0], 60)) - abs(found.angle)) < 1e-9


def test_symmetry():
    assert find_symmetry([System.from_atoms(mx2_bilayer())]) == 3
    assert find_symmetry([System.from_atoms(graphene_bilayer(noise=0.02))]) == 6
    square = Atoms("Fe2", [[0, 0, 4], [0, 0, 9]], cell=[2.4, 2.4, 15], pbc=True)
    assert find_symmetry([System.from_atoms(square)]) == 4


def test_layers_across_the_boundary():
    """A layer that is wrapped in the middle is one layer: pairs within it are not pairs between layers."""
    atoms = mx2_bilayer((0.1, 0.3))
    wanted = environment(atoms).features
    atoms.positions[:, 2] -= atoms.positions[0, 2]
    atoms.wrap()
    assert np.ptp(atoms.positions[:3, 2]) > 10
    assert torch.allclose(environment(atoms).features, wanted, atol=1e-12)


def test_moments_by_hand():
    """A_q = Σ T_n w t^p u^q, neighbor by neighbor with ASE's list."""
    atoms = mx2_bilayer((0.2, 0.4), noise=0.1, seed=2)
    system = System.from_atoms(atoms)
    descriptor = LayerMoments(["Mo", "S"], environment=5.0, symmetry=3, n_radial=3, smooth=4.0).double()
    frames = descriptor.frames(system)
    found, _ = descriptor.moments(system, Edges.build(system, 5.0), frames)
    wanted = np.zeros((6, len(descriptor.kinds), 2, 2, 3), dtype=complex)
    for i, j, vector in zip(*neighbor_list("ijD", atoms, 5.0)):
        r, angle = np.linalg.norm(vector), float(frames.angle[i // 3])  # x is along the first cell vector
        u = (vector[0] + 1j * vector[1]) / r * np.exp(-1j * angle)
        x, v = 2 * r / 5 - 1, min(max(r - 4.0, 0.0), 1.0)
        radial = np.array([1, x, 2 * x * x - 1]) * (1 - 10 * v**3 + 15 * v**4 - 6 * v**5)
        for k, (p, q) in enumerate(descriptor.kinds):
            wanted[i, k, int(atoms.symbols[j] == "S"), int(i // 3 == j // 3)] += (vector[2] / r) ** p * u**q * radial
    np.testing.assert_allclose(found.numpy(), wanted.reshape(6, len(descriptor.kinds), -1), atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [lambda: mx2_bilayer((0.2, 0.4), noise=0.05, seed=1), lambda: graphene_bilayer((0.2, 0.4), noise=0.05, seed=1)],
    ids=["MX2", "graphene"],
)
def test_features_are_invariant(make):
    atoms, options = make(), {"symmetry": find_symmetry([System.from_atoms(make())])}
    wanted = environment(atoms, **options).features
    order = np.random.default_rng(0).permutation(len(atoms))
    other = atoms.copy()
    other.rotate(50, (1, 2, 3), rotate_cell=True)
    doubled = environment(atoms * (2, 1, 1), **options).features[: len(atoms)]
    for found in (environment(other, **options).features, doubled):
        assert torch.allclose(found, wanted, atol=1e-11)
    assert torch.allclose(environment(atoms[order], **options).features, wanted[order], atol=1e-11)
    other = atoms.copy()  # another first cell vector: another of the equivalent frames
    other.cell[0] = atoms.cell[0] + atoms.cell[1]
    assert torch.allclose(environment(other, **options).features, wanted, atol=1e-11)
    assert float((environment(make(), **options).features[0] - wanted[1]).abs().max()) > 1e-3


def test_reflections_are_signs():
    """Reflected structures have the features that ``parity`` tells."""
    atoms = mx2_bilayer((0.2, 0.4), noise=0.05, seed=1)
    wanted, descriptor = environment(atoms).features, LayerMoments(["Mo", "S"], environment=5.0, n_radial=3)
    up = atoms.copy()  # n stays where it is: the third cell vector is not reflected
    up.positions[:, 2] *= -1
    assert torch.allclose(environment(up).features, wanted * descriptor.parity[0], atol=1e-11)
    across = atoms.copy()
    across.positions[:, 1] *= -1
    across.cell[:, 1] *= -1
    assert torch.allclose(environment(across).features, wanted * descriptor.parity[1], atol=1e-11)


def test_smooth_at_the_cutoff():
    """Atoms of the other layer come into reach: features and their slopes do not jump."""
    atoms = graphene_bilayer((0.0, 0.0), distance=5.0)

    def features(distance):
        moved = atoms.copy()
        moved.positions[2:, 2] += distance
        return environment(moved, symmetry=6).features

    h = 1e-4
    jump = features(h) - 2 * features(0.0) + features(-h)
    assert float(jump.abs().max()) < 1e-6


def test_errors():
    atoms = mx2_bilayer()
    flat = atoms.copy()
    flat.pbc = [True, False, True]
    close = mx2_bilayer(distance=4.0, turned=False)
    for bad, message in (
        (molecule("H2O"), "need layers that repeat.*set cell and pbc"),
        (flat, "set cell and pbc"),
        (close, "in one piece.*increase their distance"),
    ):
        with pytest.raises(InputError, match=message):
            frames_of(bad)
    with pytest.raises(InputError, match="no 4-fold direction"):
        frames_of(atoms, 4)
    for options in {"smooth": 6.5}, {"symmetry": 0}, {"n_radial": 0}, {"cutoff": 5.0}:
        with pytest.raises(ValueError, match="need 0 <= "):
            LayerMoments(["C"], **options)
    with pytest.raises(ValueError, match="ace: got a cutoff of 6.0 Å, need at most that of pairs, 5.5 Å"):
        LayerMoments(["C"], cutoff=5.5, environment=5.0, ace={})
    made, system = LayerMoments(["Mo", "S"], cutoff=6.0).double(), System.from_atoms(atoms)
    with pytest.raises(InputError, match="got edges within 5 Å, need those within 6 Å; use Edges.build"):
        made(system, Edges.build(system, 5.0))
    with pytest.raises(InputError, match="got edges of 2 centers, need those of all 6 atoms"):
        made(system, Edges.build(system, 6.0).at_centers(torch.arange(2)))


def test_former_class():
    """By the arguments of LocalFrame, which had moments alone."""
    with pytest.warns(DeprecationWarning, match="LocalFrame is now"):
        former = descriptors.LocalFrame
    atoms = mx2_bilayer((0.2, 0.4), noise=0.05, seed=1)
    system, made = System.from_atoms(atoms), former(["Mo", "S"], 5.0, 3, 3).double()
    found = made(system, Edges.build(system, 5.0))
    assert torch.allclose(found.features, environment(atoms).features, atol=1e-12) and made.cutoff == 5.0
