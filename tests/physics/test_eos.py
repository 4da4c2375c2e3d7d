"""Equations of state against their own closed forms and ASE's fit."""

import numpy as np
import pytest
from ase.eos import EquationOfState

from ase_mlelec.physics import eos

TRUE = (40.0, -214.0, 0.6, 4.3)


FOUR = [kind for kind in eos.KINDS if kind not in eos.PARAMETERS]


@pytest.mark.parametrize("kind", FOUR)
def test_recovers_its_own_parameters(kind):
    volumes = np.linspace(36, 44, 9)
    *values, errors = eos.fit(volumes, eos.KINDS[kind](volumes, *TRUE), kind)
    np.testing.assert_allclose(values, TRUE, rtol=1e-7)
    assert max(errors) < 1e-5


def test_second_and_fourth_order_recover_their_own_parameters():
    volumes = np.linspace(34, 46, 13)
    *values, errors = eos.fit(volumes, eos.birch_murnaghan_2(volumes, *TRUE[:3]), "birch-murnaghan-2")
    np.testing.assert_allclose(values, (*TRUE[:3], 4.0), rtol=1e-7)
    assert errors[3] == 0
    found = eos.fit(volumes, eos.birch_murnaghan_4(volumes, *TRUE, -9.0), "birch-murnaghan-4")
    np.testing.assert_allclose(found[:4], TRUE, rtol=1e-5)
    assert found.second_derivative == pytest.approx(-9.0, rel=1e-3) and found.second_error < 0.01


def test_energies_that_no_equation_describes():
    """Without curvature at the minimum, where the bulk modulus would be zero."""
    volumes = np.linspace(13.2, 15, 11)
    with pytest.raises(ValueError, match=r"13.200 to 15.000 Å\^3 are far from any birch-murnaghan-4 equation; look"):
        eos.fit(volumes, 10 * ((volumes - 13.56) / 1.8) ** 4, "birch-murnaghan-4")


def test_orders_agree_where_they_should():
    """The third order is the fourth one whose last term vanishes, and the second one has a derivative of 4."""
    volumes, (v0, e0, modulus, derivative) = np.linspace(34, 46, 13), TRUE
    second = -((derivative - 4) * (derivative - 3) + 35 / 9) / modulus
    np.testing.assert_allclose(
        eos.birch_murnaghan_4(volumes, *TRUE, second), eos.birch_murnaghan(volumes, *TRUE), atol=1e-10
    )
    np.testing.assert_allclose(
        eos.birch_murnaghan_2(volumes, v0, e0, modulus), eos.birch_murnaghan(volumes, v0, e0, modulus, 4), atol=1e-12
    )


def test_second_derivative_of_the_bulk_modulus_by_differences():
    """B'' = d²B/dP² at the minimum, from B(P) at several volumes."""
    h, energy = 1e-2, lambda v: eos.birch_murnaghan_4(v, *TRUE, -9.0)
    pressure = lambda v: -(energy(v + h) - energy(v - h)) / (2 * h)
    modulus = lambda v: v * (energy(v + h) - 2 * energy(v) + energy(v - h)) / h**2
    volumes = TRUE[0] + np.linspace(-1, 1, 9)
    curvature = np.polyfit([pressure(v) for v in volumes], [modulus(v) for v in volumes], 4)[-3]
    assert 2 * curvature == pytest.approx(-9.0, rel=0.01)


@pytest.mark.parametrize("kind", FOUR)
def test_bulk_modulus_and_its_derivative_by_differences(kind):
    """B = V E'' and B' = dB/dP at the minimum."""
    h, energy = 1e-2, lambda v: eos.KINDS[kind](v, *TRUE)
    pressure = lambda v: -(energy(v + h) - energy(v - h)) / (2 * h)
    modulus = lambda v: -v * (pressure(v + h) - pressure(v - h)) / (2 * h)
    assert abs(pressure(TRUE[0])) < 1e-6
    assert modulus(TRUE[0]) == pytest.approx(TRUE[2], rel=1e-5)
    slope = (modulus(TRUE[0] + 0.1) - modulus(TRUE[0] - 0.1)) / (pressure(TRUE[0] + 0.1) - pressure(TRUE[0] - 0.1))
    assert slope == pytest.approx(TRUE[3], rel=1e-3)


def test_agrees_with_ase():
    volumes = np.linspace(37, 43, 9)
    energies = eos.birch_murnaghan(volumes, *TRUE) + 1e-4 * np.random.default_rng(0).normal(size=9)
    v0, e0, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    *values, errors = eos.fit(volumes, energies)
    np.testing.assert_allclose(values[:3], (v0, e0, modulus), rtol=1e-4)
    assert abs(values[0] - TRUE[0]) < 5 * errors[0] and abs(values[2] - TRUE[2]) < 5 * errors[2]


@pytest.mark.parametrize(
    "volumes, energies, kind, message",
    [
        ([1, 2, 3], [1, 2, 3], "murnaghan", "at least 5"),
        (range(36, 44), range(8), "birch-murnaghan", "no minimum"),
        (range(36, 44), range(8), "cubic", "choose one of"),
    ],
)
def test_errors(volumes, energies, kind, message):
    with pytest.raises(ValueError, match=message):
        eos.fit(volumes, energies, kind)
