"""Functions as harmonics around a normal, against their values in space."""

import numpy as np
import pytest

from ase_mlelec.heads.hamiltonian import orbitals

POINTS = np.random.default_rng(3).normal(size=(50, 3))
S = [("pz", (np.cos(a), np.sin(a), 1), (np.cos(a), np.sin(a), -1)) for a in np.radians([30, 150, 270])]
MO = [("dz2", (np.cos(a), np.sin(a), 0), (0, 0, 1)) for a in np.radians([-30, 210, 90])] + [
    (name, (0, 0, 1), (np.cos(2.6), np.sin(2.6), 0)) for name in ("dxz", "dyz")
]


def test_harmonics_are_orthonormal():
    """Gauss-Legendre times an even mesh of angles integrates polynomials of degree 4 exactly."""
    z, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * np.pi / 6
    z, angle, weight = np.repeat(z, 12), np.tile(angle, 6), np.repeat(weight, 12) / 24
    s = np.sqrt(1 - z * z)
    values = orbitals.harmonics(np.stack([s * np.cos(angle), s * np.sin(angle), z], axis=1))
    np.testing.assert_allclose(values.T @ (weight[:, None] * values), np.eye(9), atol=1e-12)


def test_known_hybrids():
    np.testing.assert_allclose(
        orbitals.coefficients("pz", (1, 1, 0), (0, 0, 1))[1:4], [0, 0.5**0.5, 0.5**0.5], atol=1e-12
    )
    # z² along x is -1/2 of z² and √3/2 of x² - y²
    np.testing.assert_allclose(
        orbitals.coefficients("dz2", (1, 0, 0), (0, 0, 1))[4:], [-0.5, 0, 0, 0.75**0.5, 0], atol=1e-12
    )
    np.testing.assert_allclose(orbitals.coefficients("s", (1, 2, 3), (3, 0, -1)), np.eye(9)[0], atol=1e-12)


@pytest.mark.parametrize("orbital", orbitals.ORBITALS)
def test_coefficients_give_the_values_in_the_axes(orbital):
    z, x = np.array([1.0, 2.0, -0.5]), np.array([2.0, -1.0, 0.0])
    axes = np.stack([x / np.linalg.norm(x), np.cross(z, x) / np.linalg.norm(np.cross(z, x)), z / np.linalg.norm(z)])
    wanted = orbitals.harmonics(POINTS @ axes.T)[:, orbitals.ORBITALS.index(orbital)]
    np.testing.assert_allclose(orbitals.harmonics(POINTS) @ orbitals.coefficients(orbital, z, x), wanted, atol=1e-12)


@pytest.mark.parametrize("functions", [S, MO, [("s", (0, 0, 1), (1, 0, 0))]])
def test_transforms(functions):
    matrix, columns = orbitals.transform(functions)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(functions)), atol=1e-12)
    vectors, winding = orbitals.circular(columns)
    np.testing.assert_allclose(vectors @ vectors.conj().T, np.eye(len(columns)), atol=1e-12)
    # χ_λ turn as exp(-iλβ) when the frame turns by β
    beta = 0.7
    turned = POINTS @ np.array([[np.cos(beta), -np.sin(beta), 0], [np.sin(beta), np.cos(beta), 0], [0, 0, 1]])
    before, after = (orbitals.harmonics(points)[:, columns] @ vectors.T for points in (POINTS, turned))
    np.testing.assert_allclose(after, before * np.exp(-1j * winding * beta), atol=1e-12)
    for sign, mirror in zip(orbitals.parities(columns), ([1, 1, -1], [1, -1, 1])):
        np.testing.assert_allclose(
            orbitals.harmonics(POINTS * mirror)[:, columns], sign * orbitals.harmonics(POINTS)[:, columns], atol=1e-12
        )


def test_errors():
    for functions, message in (
        ([("px", (0, 0, 1), (1, 0, 0))], "both partners"),
        ([("f", (0, 0, 1), (1, 0, 0))], "need one of s, pz"),
        ([("pz", (0, 0, 1), (0, 1, 1))], "two perpendicular"),
        ([("pz", (0, 0, 1), (1, 0, 0))] * 2, "got 2 that span 1"),
    ):
        with pytest.raises(ValueError, match=message):
            orbitals.transform(functions)
