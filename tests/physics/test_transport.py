"""Currents of bands: closed forms, topology, and Berry phases on small loops as a second derivation."""

import numpy as np
import pytest
from small_lattices import GRAPHENE_SITES, chain, graphene, random_model, ssh

from ase_mlelec import units
from ase_mlelec.physics import transport
from ase_mlelec.physics.bands import eigenstates, eigenvalues
from ase_mlelec.physics.bloch import BlochSum
from ase_mlelec.physics.kmesh import monkhorst_pack

RNG = np.random.default_rng(11)
QUANTUM = 1 / units.PLANCK / units.SIEMENS_PER_METRE  # e²/h per Å, S/m


def mesh(shape):
    kpts = monkhorst_pack(shape)
    return kpts, np.full(len(kpts), 1 / len(kpts))


# Boltzmann


def test_drude_weight_of_a_chain():
    """∫ dk/2π v² (-df/dE) = |v_F|/π at low temperature, two spins: 2 |v|/(π area), and no current across."""
    found = transport.drude_weight(BlochSum(*chain(-1, 2.0)[1:]), chain(-1, 2.0)[0], *mesh((4000, 1, 1)), -0.5, 60)
    slope = 2.0 * np.sqrt(4 - 0.25)  # a sqrt(4t² - E²), eV Å
    assert found[0, 0] == pytest.approx(2 * slope / np.pi / 81, rel=1e-3)
    np.testing.assert_allclose(found.ravel()[1:], 0, atol=1e-15)


def test_drude_weight_is_the_second_derivative():
    """By parts, ∫ v v (-df/dE) = ∫ f d²E/dk², whatever the temperature; a random model without symmetry."""
    cell, *model = random_model(RNG, size=3)
    bloch = BlochSum(*model)
    kpts, weights = mesh((12, 12, 12))
    found = transport.drude_weight(bloch, cell, kpts, weights, 0.5, 30000)
    step = 1e-3
    total = np.zeros((3, 3))
    energies = eigenvalues(bloch, kpts)
    filling = 1 / (1 + np.exp((energies - 0.5) / (units.KB * 30000)))
    for a in range(3):
        move = step * cell[:, a] / (2 * np.pi)
        second = (eigenvalues(bloch, kpts + move) - 2 * energies + eigenvalues(bloch, kpts - move)) / step**2
        total[a, a] = 2 * (weights @ (filling * second).sum(1)) / np.linalg.det(cell)
    np.testing.assert_allclose(np.diag(found), np.diag(total), rtol=0.02)
    np.testing.assert_allclose(found, found.T, atol=1e-12)


def test_degenerate_bands_conduct_twice():
    cell, r_vectors, matrices = random_model(RNG, size=3)
    turn = np.linalg.qr(RNG.normal(size=(6, 6)) + 1j * RNG.normal(size=(6, 6)))[0]
    double = turn @ np.kron(np.eye(2), matrices) @ turn.conj().T
    one, two = (
        transport.drude_weight(BlochSum(r_vectors, m), cell, *mesh((3, 3, 3)), 0, 3000) for m in (matrices, double)
    )
    np.testing.assert_allclose(two, 2 * one, rtol=1e-9)


def test_conductivity_of_the_free_electron_formula():
    """σ = n e² τ/m: with D = n ħ²/m for n = 0.0847 Å^-3 and τ = 27 fs copper's 6.4e7 S/m."""
    hbar2_over_m = units.HARTREE * units.BOHR**2
    assert transport.conductivity(0.0847 * hbar2_over_m, 27.0) == pytest.approx(6.44e7, rel=1e-3)


def test_cold_metals_are_refused():
    with pytest.raises(ValueError, match="temperature: got 0 K, need more than 0"):
        transport.drude_weight(BlochSum(*chain()[1:]), chain()[0], *mesh((4, 1, 1)), 0, 0)


# Joint density of states


def test_joint_dos():
    """SSH: transitions at 2E(k), so J(ω) = D_c(ω/2)/2; the integral counts one pair per spin; nothing when empty."""
    kpts, weights = mesh((1000, 1, 1))
    levels = eigenvalues(BlochSum(*ssh()[1:]), kpts)
    energies = np.linspace(0, 4, 401)
    found = transport.joint_density_of_states(energies, levels, weights, 0, 0, 0.02)
    assert np.trapezoid(found, energies) == pytest.approx(2, rel=1e-8)
    middle = (energies > 1.1) & (energies < 2.9)
    upper = energies[middle] / 2
    k_slope = np.sqrt(4 * 0.36 - (upper**2 - 1.36) ** 2) * np.pi / (2 * upper) * 2  # |dE/dk|/(2π)·2π, k in turns
    np.testing.assert_allclose(found[middle], 2 * 2 / (2 * k_slope), rtol=2e-2)
    assert (transport.joint_density_of_states(energies, levels, weights, -5, 0, 0.02) == 0).all()


# Berry curvature


def site_positions(bloch, sites):
    """<0|r|R> of orbitals that are points at sites [W, 3], as three sums over lattice vectors."""
    return [BlochSum([[0, 0, 0]], np.diag(sites[:, axis])[None]) for axis in range(3)]


def loop_curvature(bloch, cell, k, plane, positions=None, step=1e-4):
    """Berry phase around a small square over its area; with positions of the sites in the phases of the states."""
    moves = step * cell[:, plane].T / (2 * np.pi)
    corners = k + 0.5 * np.array([-moves[0] - moves[1], moves[0] - moves[1], moves[0] + moves[1], -moves[0] + moves[1]])
    states = eigenstates(bloch, corners)[1]
    if positions is not None:
        phases = np.exp(-2j * np.pi * corners @ (positions @ np.linalg.inv(cell)).T)
        states = phases[:, :, None] * states
    links = [np.einsum("mn,mn->n", states[i].conj(), states[(i + 1) % 4]) for i in range(4)]
    return -np.angle(np.prod(links, axis=0)) / step**2


@pytest.mark.parametrize("with_positions", [False, True])
def test_curvature_is_the_phase_of_a_loop(with_positions):
    cell, *model = random_model(RNG, size=3)
    bloch = BlochSum(*model)
    sites = RNG.normal(size=(3, 3)) if with_positions else None
    positions = site_positions(bloch, sites) if with_positions else None
    kpts = RNG.uniform(-0.5, 0.5, (4, 3))
    energies, found = transport.berry_curvature(bloch, cell, kpts, positions)
    for axis, plane in enumerate(([1, 2], [2, 0], [0, 1])):
        wanted = [loop_curvature(bloch, cell, k, plane, sites) for k in kpts]
        np.testing.assert_allclose(found[..., axis], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(energies, eigenvalues(bloch, kpts), atol=1e-12)
    if not with_positions:
        np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)


def test_curvature_does_not_depend_on_the_gauge():
    """With <0|r|R>, other home cells change nothing; without, they do."""
    cell, r_vectors, matrices = graphene(-1, 0.3, 0.1)
    bloch = BlochSum(r_vectors, matrices)
    positions = site_positions(bloch, GRAPHENE_SITES)
    # function 1 replaced by its image one cell away: <1 0|H|0 R> and <1|r|1> move along
    far = np.array([[0, 0, 0], [1, 0, 0]])
    table = {}
    for r, matrix in zip(r_vectors, matrices):
        for m in range(2):
            for n in range(2):
                table.setdefault(tuple(r + far[m] - far[n]), np.zeros((2, 2), dtype=complex))[m, n] += matrix[m, n]
    moved = BlochSum(np.array(list(table)), np.array(list(table.values())))
    kpts = RNG.uniform(-0.5, 0.5, (5, 3))
    found = transport.berry_curvature(bloch, cell, kpts, positions)[1]
    again = transport.berry_curvature(moved, cell, kpts, site_positions(moved, GRAPHENE_SITES + far @ cell))[1]
    np.testing.assert_allclose(again, found, atol=1e-9)
    # without positions it does depend on it: this is why they are called internal terms only
    internal, other = (transport.berry_curvature(b, cell, kpts)[1] for b in (bloch, moved))
    assert abs(internal - other).max() > 0.01


def test_curvature_has_the_symmetry_of_the_lattice():
    """Haldane's model with the positions of its sites is the same after a third of a turn."""
    cell, *model = graphene(-1, 0.3, 0.1)
    bloch = BlochSum(*model)
    kpts = RNG.uniform(-0.5, 0.5, (5, 3)) * [1, 1, 0]
    turned = kpts @ np.array([[-1, 1, 0], [-1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(eigenvalues(bloch, turned), eigenvalues(bloch, kpts), atol=1e-12)
    first, second = (
        transport.berry_curvature(bloch, cell, k, site_positions(bloch, GRAPHENE_SITES))[1] for k in (kpts, turned)
    )
    np.testing.assert_allclose(first, second, atol=1e-9)


# Hall conductivity


@pytest.mark.parametrize("mass, chern", [(0.0, 1), (0.4, 1), (0.7, 0), (-0.7, 0)])
@pytest.mark.parametrize("with_positions", [False, True])
def test_haldane(mass, chern, with_positions):
    """|M| < 3√3 t2 = 0.52: one quantum e²/h per layer, beyond it none; -φ turns it around."""
    for phi, sign in ((np.pi / 2, -1), (-np.pi / 2, 1)):
        cell, *model = graphene(-1, mass, 0.1, phi)
        bloch = BlochSum(*model)
        positions = site_positions(bloch, GRAPHENE_SITES) if with_positions else None
        found = transport.hall_conductivity(bloch, cell, monkhorst_pack((48, 48, 1)), None, 0.0, 0, 1, positions)
        sheet = found * cell[2, 2] / QUANTUM
        assert sheet[2] == pytest.approx(sign * chern, abs=5e-3)
        np.testing.assert_allclose(sheet[:2], 0, atol=1e-12)


def test_sign_of_the_hall_conductivity():
    """-C e²/h with the Chern number of the filled band from Berry phases of loops that cover the zone."""
    cell, *model = graphene(-1, 0.1, 0.1)
    bloch = BlochSum(*model)
    n = 12
    kpts = (np.indices((n, n)).reshape(2, -1).T / n) @ np.eye(2, 3)
    states = eigenstates(bloch, kpts)[1][:, :, 0].reshape(n, n, 2)

    def link(a, b):
        return np.einsum("xym,xym->xy", a.conj(), b)

    right, up = np.roll(states, -1, 0), np.roll(states, -1, 1)
    corner = np.roll(right, -1, 1)
    around = link(states, right) * link(right, corner) * link(corner, up) * link(up, states)
    chern = -np.angle(around).sum() / (2 * np.pi)
    assert abs(chern) == pytest.approx(1, abs=1e-12)
    hall = transport.hall_conductivity(bloch, cell, monkhorst_pack((48, 48, 1)), None, 0.0, 0, 1)
    assert hall[2] * cell[2, 2] / QUANTUM == pytest.approx(-chern, abs=2e-3)


def test_hall_conductivity_of_metals_is_the_sum_over_bands():
    """Pairs of bands with the difference of their occupations against f Ω band by band, at finite temperature."""
    cell, *model = random_model(RNG, size=4)
    bloch = BlochSum(*model)
    positions = site_positions(bloch, RNG.normal(size=(4, 3)))
    kpts, weights = mesh((3, 3, 3))
    energies, curvature = transport.berry_curvature(bloch, cell, kpts, positions)
    filling = 1 / (1 + np.exp((energies - 0.2) / (units.KB * 5000)))
    hbar = units.PLANCK / (2 * np.pi)
    wanted = -2 * np.einsum("kn,kna,k->a", filling, curvature, weights) / np.linalg.det(cell) / hbar
    found = transport.hall_conductivity(bloch, cell, kpts, weights, 0.2, 5000, 2, positions)
    np.testing.assert_allclose(found * units.SIEMENS_PER_METRE, wanted, rtol=1e-9)


def test_time_reversal_means_no_hall_conductivity():
    cell, *model = random_model(RNG, size=3, real=True)
    found = transport.hall_conductivity(BlochSum(*model), cell, monkhorst_pack((4, 4, 4)), None, 0.3, 1000)
    np.testing.assert_allclose(found, 0, atol=1e-6 * QUANTUM)
