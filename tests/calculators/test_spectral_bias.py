"""Biases on the density of states: values, derivatives, and molecular dynamics that conserves the energy."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from small_models import random_model, rooted

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.calculators.spectral_bias import SpectralBias
from ase_mlelec.physics import dos
from ase_mlelec.testing import random_atoms

OFFSETS = (0.0, -1.3, 0.6)


def order(spectra):
    return 3.0 * (spectra.order_parameter(OFFSETS).mean() - 2.3) ** 2


def heat_capacity(spectra):
    """A functional made of a function of physics."""
    return 1e3 * dos.heat_capacity(spectra.energies, spectra.dos, spectra.n_electrons, 3000.0)


def silica():
    return random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


@pytest.fixture
def calc():
    return DeepDOSCalculator(random_model(0, ("energy", "dos")))


@pytest.mark.parametrize("functional", [order, heat_capacity])
@pytest.mark.parametrize("square_root", [False, True])
def test_derivatives(calc, functional, square_root):
    atoms = silica()
    if square_root:
        calc = DeepDOSCalculator(rooted(random_model(0, ("energy", "dos"))))
    atoms.calc = SpectralBias(calc, functional)
    forces = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 5])
    assert np.abs(atoms.get_forces()).max() > 1e-4
    assert np.abs(forces - atoms.get_forces()[[0, 5]]).max() < 1e-6 * max(1, np.abs(forces).max())
    assert np.abs(calculate_numerical_stress(atoms, eps=1e-5) - atoms.get_stress()).max() < 1e-7


def test_values_are_those_of_the_calculator(calc):
    atoms = silica()
    value = SpectralBias(calc, lambda spectra: spectra.order_parameter(OFFSETS).mean()).get_property("energy", atoms)
    assert value == pytest.approx(calc.get_order_parameter(OFFSETS, atoms=atoms).mean(), rel=0.02)
    wanted = 1e3 * calc.get_heat_capacity(3000.0, atoms=atoms)
    assert SpectralBias(calc, heat_capacity).get_property("energy", atoms) == pytest.approx(wanted, rel=1e-12)


def test_interpolation_is_exact_for_parabolas_and_has_a_continuous_slope(calc):
    atoms, grid = silica(), np.asarray(calc.energies)

    def at(points):
        def functional(spectra):
            object.__setattr__(spectra, "ados", 0 * spectra.ados + spectra.energies**2)
            return spectra.at(points)[0].sum()

        return float(calc.evaluate_functional(functional, atoms=atoms)["energy"])

    for point in (-3.21, 0.0, 1.77):
        assert at([point]) == pytest.approx(point**2, abs=1e-12)
    with pytest.raises(ValueError, match="points: got 9 to 9 eV, need energies inside the grid, -7.75 to 5.75 eV"):
        at([9.0])
    node, h = float(grid[20]), 1e-6

    def value(point):
        return float(calc.evaluate_functional(lambda s: s.at([point]).sum(), atoms=atoms)["energy"])

    slopes = [(value(node + a * h) - value(node + (a - 1) * h)) / h for a in (0, 1)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


def test_molecular_dynamics_with_a_bias_conserves_the_energy(calc):
    def run(timestep, n_steps):
        atoms, totals = silica(), []
        atoms.calc = SumCalculator([calc, SpectralBias(calc, order)])
        thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
        dynamics.attach(lambda: totals.append(atoms.get_total_energy()))
        dynamics.run(n_steps)
        return np.ptp(totals)

    coarse, fine = run(1.0, 12), run(0.5, 24)
    assert fine < 2e-4 and coarse / fine == pytest.approx(4, rel=0.3)


def test_a_bias_drives_the_order_parameter():
    """Steps down its own gradient lower the order parameter of silicon that is out of order."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.2, seed=1)
    calc = DeepDOSCalculator("si", on_extrapolation="ignore")
    atoms.calc = SpectralBias(calc, lambda spectra: spectra.order_parameter((0, -5, -8)).mean())
    before = calc.get_order_parameter(atoms=atoms).mean()
    for _ in range(3):
        atoms.positions += 0.05 * atoms.get_forces() / np.abs(atoms.get_forces()).max()
    assert calc.get_order_parameter(atoms=atoms).mean() < before - 0.002


def test_wrong_input(calc):
    with pytest.raises(CalculatorSetupError, match="got LennardJones, need a DeepDOSCalculator"):
        SpectralBias(LennardJones(), order)
    with pytest.raises(CalculatorSetupError, match="got a committee"):
        SpectralBias(DeepDOSCalculator([random_model(k, ("dos",)) for k in (0, 1)]), order)


@pytest.mark.parametrize(
    "functional, message",
    [
        (lambda spectra: 3.0, "got float, need a Tensor"),
        (lambda spectra: spectra.dos, r"got a Tensor of shape \[57\]"),
        (lambda spectra: spectra.energies[0], r"got a Tensor of shape \[\], need a Tensor .* that depends"),
    ],
)
def test_wrong_functionals(calc, functional, message):
    with pytest.raises(CalculatorSetupError, match=message):
        SpectralBias(calc, functional).get_property("energy", silica())


def test_electrons_that_the_model_does_not_know():
    model = random_model(0, ("energy", "dos"))
    model.metadata["electrons_in_dos"] = {"Si": 4.0}
    with pytest.raises(CalculatorSetupError, match="no electrons of O in 'electrons_in_dos'"):
        DeepDOSCalculator(model).get_fermi_level(atoms=silica())
    del model.metadata["electrons_in_dos"]
    calc = DeepDOSCalculator(model)
    for bias in (order, lambda spectra: spectra.gap(0.1).cbm):
        with pytest.raises(CalculatorSetupError, match="the Fermi level is unknown"):
            SpectralBias(calc, bias).get_property("energy", silica())
    calc.set(electronic_temperature=3000.0)
    with pytest.raises(CalculatorSetupError, match="the Fermi level is unknown"):
        calc.get_property("energy", silica())


def test_results_follow_temperature_and_functional(calc):
    """They are no longer valid although the structure is the same."""
    atoms = silica()
    atoms.calc = SpectralBias(calc, lambda spectra: spectra.fermi_level())
    before = atoms.get_potential_energy()
    calc.set(electronic_temperature=6000.0)
    assert atoms.get_potential_energy() == pytest.approx(calc.get_fermi_level(6000.0, atoms=atoms), abs=1e-9)
    assert atoms.get_potential_energy() != before
    atoms.calc.functional = lambda spectra: 2 * spectra.fermi_level()
    assert atoms.get_potential_energy() == pytest.approx(2 * calc.get_fermi_level(6000.0, atoms=atoms), abs=1e-9)
