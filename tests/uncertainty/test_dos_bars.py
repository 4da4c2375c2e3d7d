"""Bars of what follows from a density of states, against numerical derivatives by the weights of the last layer."""

import numpy as np
import pytest
import torch

from ase_mlelec.physics import dos
from ase_mlelec.physics.gap import gap_of_dos
from ase_mlelec.uncertainty import Contributions, Posterior
from ase_mlelec.uncertainty.dos_bars import SMOOTH, DosBars

ENERGIES = np.linspace(-6.0, 6.0, 61)
N_ATOMS, N_INPUTS, RANK = 3, 4, 2
FILLING = {"n_electrons": 9.0, "temperature": 1500.0}


def posterior(scale):
    generator = torch.Generator().manual_seed(1)
    found = Posterior.from_factors(
        torch.randn(N_INPUTS + 1, N_INPUTS + 1, generator=generator).double(),
        torch.randn(len(ENERGIES), RANK, generator=generator).double(),
        n_species=1,
    )
    found.scales = {"members": scale}
    return found


def ados():
    x = ENERGIES + np.array([[0.0], [0.3], [-0.4]])
    return 1.0 + 0.4 * np.sin(1.3 * x) + 0.05 * x


def made(scale=1e-4, spectra=None, square_root=False, **filling):
    own = posterior(scale)
    inputs = torch.randn(N_ATOMS, N_INPUTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = own.coordinates(inputs, torch.zeros(N_ATOMS, dtype=torch.long))
    spectra = ados() if spectra is None else spectra
    slopes = torch.from_numpy(2 * np.sqrt(spectra)) if square_root else None
    of = Contributions(z, own.outputs.T, True, torch.zeros(N_ATOMS, dtype=torch.long), slopes)
    return DosBars(ENERGIES, spectra, of=of, posterior=own, **FILLING | filling), z.numpy(), own.outputs.numpy()


def numerical(function, z, outputs, scale, ados=ados, square_root=False):
    """Root of the sum of the squares of the derivatives of a function of the spectra by all ξ, central differences."""
    if square_root:
        return numerical(lambda root: function(root**2), z, outputs, scale, lambda: np.sqrt(ados()))
    total = 0.0
    for change in z.T:
        for output in outputs.T:
            step = 0.01 * scale * np.outer(change, output)
            total = total + ((function(ados() + step) - function(ados() - step)) / 0.02) ** 2
    return np.sqrt(total)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("square_root", [False, True])
def test_first_order(name, square_root):
    bars, z, outputs = made(square_root=square_root)

    def function(found):
        return SMOOTH[name](ENERGIES, found.sum(axis=0), *FILLING.values())

    wanted = numerical(function, z, outputs, 1e-4, square_root=square_root)
    assert bars.smooth(name) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("square_root", [False, True])
def test_order_parameter_moves_with_the_fermi_level(square_root):
    bars, z, outputs = made(square_root=square_root)

    def order(spectra):
        mu = SMOOTH["fermi_level"](ENERGIES, spectra.sum(axis=0), *FILLING.values())
        return dos.order_parameter(ENERGIES, spectra, mu, (0, -2))

    np.testing.assert_allclose(
        bars.order_parameter((0, -2), FILLING["temperature"]),
        numerical(order, z, outputs, 1e-4, square_root=square_root),
        rtol=1e-3,
    )


@pytest.mark.parametrize("name", ["gap", "vbm", "cbm"])
@pytest.mark.parametrize("square_root", [False, True])
def test_edges_of_an_insulator_to_first_order(name, square_root):
    width, wall = 0.3, 1 / (1 + np.exp((1.2 - abs(ENERGIES)) / 0.12))
    spectra = wall * (1.0 + 0.1 * np.array([[0.0], [1.0], [2.0]]))
    filled = np.trapezoid(spectra.sum(axis=0), ENERGIES) / 2

    def find(total):
        return gap_of_dos(torch.from_numpy(ENERGIES), torch.as_tensor(total) / N_ATOMS, filled / N_ATOMS, width=width)

    def edge(found):
        gap = find(found.sum(axis=0))
        return float({"gap": gap.cbm - gap.vbm, "vbm": gap.vbm, "cbm": gap.cbm}[name])

    bars, z, outputs = made(1e-6, spectra, square_root, n_electrons=filled)
    wanted = numerical(edge, z, outputs, 1e-6, lambda: spectra, square_root)
    assert wanted > 0 and bars.gap(find)[name] == pytest.approx(wanted, rel=1e-3)


def test_an_insulator_has_no_first_order():
    """Within a gap the slope is steep, beyond it there is none; the bar then comes from members."""
    insulator = np.where(abs(ENERGIES) < 2, 0.0, 0.75) * np.ones((N_ATOMS, 1))
    filled = np.trapezoid(insulator.sum(axis=0), ENERGIES) / 2
    bars, *_ = made(1e-3, insulator, n_electrons=filled, temperature=50.0)
    assert bars.smooth("fermi_level") is None


def test_floor_is_the_typical_leverage():
    """Of an extensive quantity it grows with the number of atoms, and in a repeated cell nothing else changes."""
    bars, z, _ = made(scale=0.1)
    typical = np.sqrt(np.mean(np.sum((0.1 * z) ** 2, axis=1)))
    assert bars.floor("fermi_level") == pytest.approx(typical, rel=1e-12)
    assert bars.floor("band_energy") == pytest.approx(N_ATOMS * typical, rel=1e-12)
    assert bars.with_floor("gap", 0.7) == 0.7
    bars.posterior.floors = {"gap": 3.0}
    assert bars.with_floor("gap", 0.7) == pytest.approx(np.hypot(0.7, 3.0 * typical), rel=1e-12)
    twice = bars.of._replace(**{name: torch.cat(2 * [getattr(bars.of, name)]) for name in ("z", "nets")})
    repeated = DosBars(ENERGIES, np.concatenate(2 * [ados()]), of=twice, posterior=posterior(1.0), **FILLING)
    assert repeated.floor("gap") == pytest.approx(typical, rel=1e-12)
    assert repeated.floor("band_energy") == pytest.approx(6 * typical, rel=1e-12)
