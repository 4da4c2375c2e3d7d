"""The solver behind fermi.fermi_level, against bisection of the exact integral, and what it costs."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ase_mlelec.physics import fermi, filling
from ase_mlelec.units import KB

ENERGIES = np.linspace(-8, 10, 181)
DOS = 2 + np.sin(ENERGIES) + 0.3 * np.cos(7 * ENERGIES)


def bisected(energies, dos, n_electrons, temperature):
    low, high = energies[0] - 50 * KB * temperature, energies[-1] + 50 * KB * temperature
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = fermi.integration_weights(energies, middle, temperature)[0] @ dos < n_electrons
        low, high = (middle, high) if below else (low, middle)
    return middle


@pytest.mark.parametrize("temperature", [0, 1, 300, 2e3, 1e5])
@pytest.mark.parametrize("filled", [0.01, 0.6, 0.99])
def test_the_root_is_that_of_bisection(temperature, filled):
    n_electrons = filled * np.trapezoid(DOS, ENERGIES)
    level = filling.fermi_level(ENERGIES, DOS, n_electrons, KB * temperature)
    assert level == pytest.approx(bisected(ENERGIES, DOS, n_electrons, temperature), abs=2e-12)


@pytest.mark.parametrize("temperature", [0, 1e-9, 1e-6, 1, 300, 1e5])
@pytest.mark.parametrize("seed", range(4))
def test_spectra_that_dip_below_zero(seed, temperature):
    """Whatever root is found, it holds the electrons, also where there are none, all, or several roots."""
    rng = np.random.default_rng(seed)
    energies = np.sort(rng.uniform(-10, 10, 40))
    dos = rng.uniform(0, 3, 40) * (rng.random(40) < 0.6) - 0.1
    capacity = np.trapezoid(dos, energies)
    for n_electrons in capacity * np.array([0, 1e-6, 0.3, 0.9, 1]):
        mu = fermi.fermi_level(energies, dos, n_electrons, temperature)
        number = fermi.integration_weights(energies, mu, temperature)[0] @ dos
        assert number == pytest.approx(n_electrons, abs=5e-12)


@pytest.mark.parametrize("edges", [(-1, 1), (-0.2, 1.7)])
@pytest.mark.parametrize("temperature", [100, 300])
def test_a_gap_is_split_by_the_band_edges(edges, temperature):
    """Bands of constant densities, one step wide: mu = middle + kT/2 ln(D_v/D_c)."""
    valence, conduction = edges
    energies = np.array([-6, valence - 1e-10, valence, conduction, conduction + 1e-10, 6])
    dos = np.array([3.0, 3, 0, 0, 0.5, 0.5])
    n_electrons = 3 * (valence - 1e-10 + 6) + 1.5e-10
    expected = (valence + conduction) / 2 + KB * temperature / 2 * np.log(6)
    assert filling.fermi_level(energies, dos, n_electrons, KB * temperature) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature, most", [(0, 0), (300, 5), (2000, 6), (1e5, 7)])
def test_few_levels_are_tried(temperature, most, monkeypatch):
    """Newton steps from the level at temperature 0; at 0 the root is a formula."""
    tried, count = [], filling.Filling.count

    def counted(self, mu):
        tried.append(mu)
        return count(self, mu)

    monkeypatch.setattr(filling.Filling, "count", counted)
    fermi.fermi_level(ENERGIES, DOS, 20.0, temperature)
    assert len(tried) <= most


class NoTorch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} was called")


def test_arrays_do_not_become_tensors():
    with NoTorch():
        assert fermi.fermi_level(ENERGIES, DOS, 20, 300).__class__ is float
        assert fermi.fermi_level(ENERGIES, np.stack([DOS, DOS + 1]), 20, [[0], [300], [3e3]]).shape == (3, 2)


def test_gradients_of_many_levels():
    """Rows of a batch are solved one by one; their derivatives are those of single ones."""
    energies, dos = torch.tensor(ENERGIES), torch.tensor(np.stack([DOS, DOS + 1])).requires_grad_()
    (slopes,) = torch.autograd.grad(fermi.fermi_level(energies, dos, 20.0, 900.0).sum(), dos)
    for row, slope in zip(dos.detach(), slopes):
        row = row.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(fermi.fermi_level(energies, row, 20.0, 900.0), row)[0], slope)
