"""ACE invariants against sums over pairs of neighbors, Legendre polynomials and orthonormality."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.special import eval_legendre

import ase_mlelec.descriptors.ace.descriptor as of_descriptor
from ase_mlelec import descriptors
from ase_mlelec.descriptors import ACE
from ase_mlelec.descriptors.ace import Order, standard_orders
from ase_mlelec.descriptors.ace.descriptor import SHARES
from ase_mlelec.descriptors.ace.former import present_arguments
from ase_mlelec.descriptors.harmonics import harmonics
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

CUTOFF, INNER = 4.0, 1.2


def descriptor(*limits, cutoff=CUTOFF, inner=INNER, n_pair=5, n_radial=3, l_max=4, near=3.0):
    """ACE of two species; limits : the largest roughness of order 3, and of order 4."""
    orders = [Order(cutoff, n_pair), Order(cutoff, n_radial, l_max)]
    orders += [Order(near, n_radial, l_max, limit) for limit in limits]
    return ACE(("O", "Si"), inner=inner, orders=orders).double()


def features(atoms, made):
    system = System.from_atoms(atoms)
    return made(system, Edges.build(system, made.cutoff)).features.numpy()


def radial(r, n, cutoff=CUTOFF):
    """R_0 .. R_n-1 by Gram-Schmidt on a fine grid of its own, in powers of another variable of the same span."""

    def raw(r):
        return ((r / (r + cutoff))[:, None] ** np.arange(n)) * (1 - (r / cutoff) ** 2)[:, None] ** 2

    grid = INNER + (cutoff - INNER) * (np.arange(2000) + 0.5) / 2000
    values, at = raw(grid), raw(np.asarray(r, float))
    for k in range(n):
        for m in range(k):
            overlap = (values[:, m] * values[:, k]).mean()
            values[:, k] -= overlap * values[:, m]
            at[:, k] -= overlap * at[:, m]
        norm = np.sqrt((values[:, k] ** 2).mean())
        values[:, k] /= norm
        at[:, k] /= norm
    return at


def test_harmonics_add_up_to_legendre():
    a, b = torch.nn.functional.normalize(torch.randn(2, 3, 50, dtype=torch.float64), dim=1)
    rows = harmonics(a, 10) * harmonics(b, 10)
    for l in range(11):
        found = rows[l * l : (l + 1) ** 2].sum(dim=0)
        np.testing.assert_allclose(found, eval_legendre(l, (a * b).sum(dim=0).numpy()), atol=1e-12)


def test_sums_over_pairs_of_neighbors():
    """Features in their order; the sign of R_n is a convention and cancels in pairs (n, n) alone."""
    atoms = random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=3)
    made = descriptor()
    found = features(atoms, made)
    system = System.from_atoms(atoms)
    edges = Edges.build(system, CUTOFF)
    kinds = np.array([{"O": 0, "Si": 1}[s] for s in atoms.symbols])
    signs = np.sign(features(Atoms("SiO", [[0, 0, 0], [1.7, 0, 0]]), made)[0, :5] * radial([1.7], 5)[0])
    for center in range(len(atoms)):
        own = (edges.center == center).numpy()
        vec, kind = edges.vec.numpy()[own], kinds[edges.neighbor.numpy()[own]]
        r = np.linalg.norm(vec, axis=1)
        weights = radial(r, 5) * signs
        unit = vec / r[:, None]
        pairs = np.concatenate([weights[kind == s].sum(axis=0) for s in (0, 1)])
        columns = np.concatenate([weights[:, :3] * (kind == s)[:, None] for s in (0, 1)], axis=1)
        triples = [(columns.T @ eval_legendre(l, unit @ unit.T) @ columns)[np.triu_indices(6)] for l in range(5)]
        np.testing.assert_allclose(found[center], np.concatenate([pairs, *triples]), rtol=1e-6, atol=1e-8)


def test_weights_fall_with_the_roughness():
    made = descriptor(n_pair=3, n_radial=2, l_max=1)
    weights = made.feature_weights().numpy()
    assert len(weights) == made.n_features == 2 * 3 + 2 * 10
    np.testing.assert_allclose(weights[:6] ** (-2 / 5), [1, 2, 5] * 2)
    degrees = [0, 1, 0, 1]  # of both species
    squares = [1 + degrees[a] ** 2 + degrees[b] ** 2 for a, b in zip(*np.triu_indices(4))]
    np.testing.assert_allclose(weights[6:] ** (-2 / 5), squares + [square + 0.1 for square in squares])


def test_quadruples_in_closed_form():
    """<P1 P1 P2> and <P2 P2 P2> of directions to three neighbors, by traces of their second moments."""
    near = 3.0
    made = descriptor(2.2, n_radial=1, n_pair=1, near=near)
    a = random_atoms("Si" * 4, cell=[9, 9, 9], seed=5).positions[:3]
    a *= np.array([1.5, 1.9, 2.6])[:, None] / np.linalg.norm(a, axis=1)[:, None]
    found = features(Atoms("OSi3", [[0, 0, 0], *a]), made)[0, [-5, -1]]  # of Si alone: (1, 1, 2), (2, 2, 2)
    weights = radial(np.linalg.norm(a, axis=1), 1, near)[:, 0]
    unit = a / np.linalg.norm(a, axis=1)[:, None]
    first, second = (weights[:, None] * unit).sum(axis=0), np.einsum("j,jx,jy->xy", weights, unit, unit)
    second -= np.eye(3) * np.trace(second) / 3
    wanted = [first @ second @ first / 5 / 3 / np.sqrt(5), 9 / 35 * np.trace(second @ second @ second) / 5**1.5]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_quintuples_in_closed_form():
    """<P1 P1 P1 P1> and <P1 P1 P1' P1'> of directions, by sums d of these over each species."""
    near = 3.0
    made = descriptor(0, 1.45, n_radial=1, n_pair=1, near=near)
    a = random_atoms("Si" * 5, cell=[9, 9, 9], seed=7).positions[:5]
    a *= np.array([1.5, 1.9, 2.1, 2.3, 2.6])[:, None] / np.linalg.norm(a, axis=1)[:, None]
    found = features(Atoms("OSi3O2", [[0, 0, 0], *a]), made)[0, -5:]  # OOOO, OOOSi, OOSiSi, OSiSiSi, SiSiSiSi
    weights = radial(np.linalg.norm(a, axis=1), 1, near)[:, 0]
    vec = weights[:, None] * a / np.linalg.norm(a, axis=1)[:, None]
    si, o = vec[:3].sum(axis=0), vec[3:].sum(axis=0)
    wanted = [
        3 * (o @ o) ** 2,
        3 * (o @ o) * (o @ si),
        (o @ o) * (si @ si) + 2 * (o @ si) ** 2,
        3 * (si @ si) * (o @ si),
        3 * (si @ si) ** 2,
    ]
    np.testing.assert_allclose(found, np.array(wanted) / 15 / 9, rtol=1e-6)


@pytest.mark.parametrize("size, limits", [(3, [6.5]), (4, [0, 4.2])])
def test_quadruples_and_quintuples_are_means_over_directions(size, limits):
    """All of them, with Legendre polynomials for harmonics and another rule for the mean."""
    near = 3.2
    atoms = random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=3)
    made = descriptor(*limits, near=near)
    plain, found = features(atoms, descriptor()), features(atoms, made)
    np.testing.assert_array_equal(found[:, : plain.shape[1]], plain)
    found = found[:, plain.shape[1] :]
    kinds = [(l, s, n) for l in range(5) for s in (0, 1) for n in range(3)]
    groups = [
        group
        for group in combinations_with_replacement(range(30), size)
        if _coupled([kinds[k] for k in group], limits[-1])
    ]
    assert found.shape[1] == len(groups) > 50
    cosine, weights = np.polynomial.legendre.leggauss(9)
    angle = 2 * np.pi * np.arange(19) / 19
    sine = np.sqrt(1 - cosine**2)[:, None]
    u = np.stack([sine * np.cos(angle), sine * np.sin(angle), np.repeat(cosine[:, None], 19, axis=1)], axis=-1)
    system = System.from_atoms(atoms)
    edges = Edges.build(system, near)
    species = np.array([{"O": 0, "Si": 1}[s] for s in atoms.symbols])[edges.neighbor.numpy()]
    # radial functions have the sign of those of a pair at 1.7 Å
    pair = Atoms("SiO", [[0, 0, 0], [1.7, 0, 0]])
    signs = np.sign(features(pair, descriptor(cutoff=near))[0, :3] * radial([1.7], 3, near)[0])
    for center in range(len(atoms)):
        own = (edges.center == center).numpy()
        vec = edges.vec.numpy()[own]
        r = np.linalg.norm(vec, axis=1)
        functions = radial(r, 3, near) * signs
        densities = [
            np.einsum("j,...j->...", functions[:, n] * (species[own] == s), eval_legendre(l, u @ (vec / r[:, None]).T))
            / np.sqrt(2 * l + 1)
            for l, s, n in kinds
        ]
        wanted = [weights / 2 @ np.prod([densities[k] for k in group], axis=0).mean(axis=1) for group in groups]
        np.testing.assert_allclose(found[center], wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


def _coupled(kinds, max_roughness):
    l, _, n = np.transpose(kinds)
    return (
        l.min() > 0
        and l.sum() % 2 == 0
        and 2 * l.max() <= l.sum()
        and 1 + (n**2).sum() + 0.1 * (l**2).sum() <= max_roughness
    )


def test_weights_of_quadruples_and_quintuples():
    made = descriptor(2.2, 1.45, n_radial=1)
    weights = made.feature_weights().numpy()
    assert len(weights) == made.n_features == 2 * 5 + 5 * 3 + 6 + 4 + 5  # (1, 1, 2), (2, 2, 2), (1, 1, 1, 1)
    np.testing.assert_allclose((weights[25:35] / SHARES[2]) ** (-2 / 3), 6 * [1.6] + 4 * [2.2])
    np.testing.assert_allclose((weights[35:] / SHARES[3]) ** (-2 / 3), 1.4)
    for limits, size in (([1.2], 3), ([0, 1.2], 4)):
        with pytest.raises(ValueError, match=f"1.2, but nothing of an atom and {size} neighbors is as smooth"):
            descriptor(*limits)
    with pytest.raises(ValueError, match="sum of 66 in a product of densities, more than 65; use a smaller l_max"):
        descriptor(200, n_radial=1, l_max=22)
    with pytest.raises(ValueError, match="too many products of densities; use a smaller max_roughness"):
        descriptor(None)


def test_limits_of_few_densities():
    """Orders 1 and 2 with a largest roughness are those features of all that are as smooth."""
    atoms = random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=3)
    whole, orders = descriptor(), [Order(CUTOFF, 5, 0, 5.0), Order(CUTOFF, 3, 4, 3.0)]
    part = ACE(("O", "Si"), inner=INNER, orders=orders).double()
    n, rough = 10, np.concatenate([1 + coupling.squares[0] + 0.1 * coupling.squares[1] for coupling in whole.couplings])
    kept = np.flatnonzero(rough <= np.where(np.arange(len(rough)) < n, 5.0, 3.0))
    assert n > (kept < n).sum() > 0 and whole.n_features - n > (kept >= n).sum() > 0
    np.testing.assert_allclose(features(atoms, part), features(atoms, whole)[:, kept], atol=1e-12)


def test_standard_orders():
    """One number says how far all orders from three on go."""
    first, second, third, fourth = standard_orders(max_roughness=14.0)
    assert (first, second) == (Order(6.0, 12), Order(6.0, 5, 8))
    assert (third, fourth) == (Order(4.5, 5, 8, 14.0), Order(4.5, 5, 8, 6.0))
    assert standard_orders(max_order=1, n_pair=3) == (Order(6.0, 3),)
    assert {order.cutoff for order in standard_orders(cutoff=4.0)} == {4.0}
    assert ACE(["Si"]).orders == standard_orders()
    assert [order.max_roughness for order in standard_orders(max_roughness=3.0)[2:]] == [3.0, 0.0]  # none as smooth
    orders = present_arguments(near=4.5, roughest=14.0, roughest_5=None)["orders"]
    assert tuple(Order(**order) for order in orders) == standard_orders(max_roughness=14.0)
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=f"max_order: got {wrong}, need 1 to 4"):
            standard_orders(max_order=wrong)


def test_former_arguments():
    """Those of the class PowerSpectrum, each order with arguments of its own."""
    with pytest.warns(DeprecationWarning, match="PowerSpectrum is now"):
        former = descriptors.PowerSpectrum
    made = former(["O", "Si"], cutoff=CUTOFF, inner=INNER, n_pair=5, n_radial=3, l_max=4, near=3.0, roughest=2.2)
    atoms = random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=1)
    np.testing.assert_array_equal(features(atoms, made.double()), features(atoms, descriptor(2.2)))
    assert [len(present_arguments(**options)["orders"]) for options in ({}, {"near": 4.0})] == [2, 3]
    orders = present_arguments(near=4.0, roughest=0.0, roughest_5=3.0, species=["Si"])["orders"]
    assert [order["max_roughness"] for order in orders] == [None, None, 0.0, 3.0]


def test_smooth_at_the_cutoff():
    """Neither values nor derivatives jump where a neighbor leaves; alone, an atom has no features."""
    made = descriptor()
    values = np.array(
        [features(Atoms("SiO", [[0, 0, 0], [CUTOFF + x, 0, 0]]), made)[0] for x in (-2e-4, -1e-4, 0, 1e-4)]
    )
    assert abs(values[2:]).max() == 0
    assert abs(np.diff(values, axis=0)).max() < 1e-4 * abs(features(Atoms("SiO", [[0, 0, 0], [2.0, 0, 0]]), made)).max()


def test_gradients_are_summed_over_all_centers(monkeypatch):
    """Whether they are taken at a time or one after the other."""
    system = System.from_atoms(random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=1))
    made = descriptor(2.2, 1.45)
    edges = Edges.build(system, made.cutoff)
    together = made.summed_gradients(system, edges)
    monkeypatch.setattr(of_descriptor, "CENTERS", 1)
    torch.testing.assert_close(made.summed_gradients(system, edges), together, rtol=0, atol=1e-10)
    plain = super(ACE, made).summed_gradients(system, edges)
    torch.testing.assert_close(together, plain, rtol=0, atol=1e-10)


def test_arguments():
    made = descriptor()
    again = ACE(**made.arguments()).double()
    atoms = random_atoms("SiO2", cell=[3.9, 4.2, 4.5], seed=1)
    np.testing.assert_array_equal(features(atoms, made), features(atoms, again))
    for wrong in ({"inner": 4.5}, {"inner": 0}):
        with pytest.raises(ValueError, match="need 0 < inner < cutoff"):
            descriptor(**wrong)
    for wrong in ({"n_radial": 0}, {"l_max": -1}, {"l_max": 31}, {"n_pair": 65}, {"cutoff": float("nan")}):
        with pytest.raises(ValueError, match="need a cutoff above 0, 1 to 64 radial functions and l_max from 0 to 30"):
            descriptor(**wrong)
    with pytest.raises(ValueError, match="max_roughness -1, need 0 or more"):
        descriptor(-1)
    for orders in ([], made.orders * 3):
        with pytest.raises(ValueError, match=f"got {len(orders)} correlation orders, need 1 to 4"):
            ACE(["Si"], orders=orders)


def test_scalars_are_products_of_lower_orders():
    """Order 3 with a density of l = 0 is that density times a feature of the power spectrum; without it, it is missing."""
    atoms = random_atoms("Si3", cell=[3.9, 4.2, 4.5], seed=1)
    orders = [Order(CUTOFF, 3), Order(CUTOFF, 3, 2), Order(CUTOFF, 3, 2, 6.0, scalars=True)]
    made = ACE(("Si",), inner=INNER, orders=orders).double()
    without = ACE(("Si",), inner=INNER, orders=[*orders[:2], Order(CUTOFF, 3, 2, 6.0)]).double()
    values = features(atoms, made)
    n = [len(part.squares[0]) for part in made.couplings]
    single, pairs, triples = np.split(values, np.cumsum(n)[:2], axis=1)
    products = (single[:, :, None] * pairs[:, None]).reshape(len(values), -1)
    products /= np.linalg.norm(products, axis=0)
    wanted = triples / np.linalg.norm(triples, axis=0)
    of_scalars = (products.T @ wanted).max(axis=0) > 1 - 1e-12
    missing = n[2] - len(without.couplings[2].squares[0])
    assert of_scalars.sum() == missing > 0
