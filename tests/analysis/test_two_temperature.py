"""Molecular dynamics with two temperatures: energies add up, entropy is kept, and heat flows as the equations say."""

import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError
from ase.calculators.lj import LennardJones
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from scipy.integrate import solve_ivp
from small_models import random_model

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.analysis.two_temperature import TwoTemperature, gaussian_pulse
from ase_mlelec.testing import random_atoms
from ase_mlelec.units import KB, WATT_PER_M3_K

STRONG = 3e19 * WATT_PER_M3_K


def silica(calc, temperature=600):
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(1))
    return atoms


def hot(temperature=4000, **options):
    model = random_model(0, ("energy", "dos"), metadata={"dos_width_eV": 0.3})
    return DeepDOSCalculator(model, electronic_temperature=temperature, **options)


def internal_energy(atoms):
    """K + F + T S, with S from a difference of F."""
    calc = atoms.calc
    temperature, free = calc.electronic_temperature, []
    for step in (-2.0, 2.0):
        calc.electronic_temperature = temperature + step
        free.append(atoms.get_potential_energy())
    calc.electronic_temperature = temperature
    return atoms.get_total_energy() - temperature * (free[1] - free[0]) / 4


def energies(timestep, n_steps):
    """(change of the energy, what the pulse brought, exchange) of a run of 8 fs."""
    atoms = silica(hot())
    dyn = VelocityVerlet(atoms, timestep * units.fs)
    two = TwoTemperature(atoms, dyn, coupling=STRONG, pulse=gaussian_pulse(1.0, center=4, duration=3))
    start, temperature = internal_energy(atoms), two.electronic_temperature
    dyn.attach(two, interval=2)
    momentum = atoms.get_momenta().sum(axis=0)
    dyn.run(n_steps)
    assert atoms.get_momenta().sum(axis=0) == pytest.approx(momentum, abs=1e-9)
    assert two.electronic_temperature > temperature + 500
    assert internal_energy(atoms) == pytest.approx(two.total_energy, abs=2e-6)
    return internal_energy(atoms) - start, two.absorbed, two.exchanged


def test_energies_add_up():
    """Ions and electrons together gain what the pulse brings, whatever they exchange, to the error of the dynamics."""
    (coarse, _, _), (fine, absorbed, exchanged) = energies(1.0, 8), energies(0.5, 16)
    assert absorbed == pytest.approx(7 * 1.0, rel=0.01) and exchanged > 0.01
    assert abs(fine - absorbed) < min(2e-5, 0.8 * abs(coarse - absorbed))


def test_moving_ions_alone_leave_the_entropy_of_the_electrons():
    """They heat or cool the electrons at constant entropy; at constant temperature it would change."""
    atoms = silica(hot(6000), 3000)
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    two = TwoTemperature(atoms, dyn, coupling=0.0)
    dyn.attach(two, interval=1)
    start, energy = two._electrons(6000)[1], two.total_energy
    dyn.run(10)
    change, isothermal = two._electrons(two.electronic_temperature)[1] - start, two._electrons(6000)[1] - start
    assert abs(isothermal) > 1e-8 and abs(change) < 1e-3 * abs(isothermal)
    assert two.total_energy == pytest.approx(energy, abs=1e-4)


def test_relaxation_of_a_free_electron_gas_and_an_ideal_gas():
    """With a constant density of states C_e is proportional to T_e; the two temperatures obey two equations."""
    model = random_model(0, ("dos",), metadata={"electrons_in_dos": {"Si": 12.0, "O": 14.0}})
    with torch.no_grad():
        model.heads["dos"].nets.scale.zero_()
        model.heads["dos"].nets.bias.fill_(2.0)
    nothing = LennardJones(epsilon=0.0, sigma=1.0, rc=2.5)
    calc = DeepDOSCalculator(model, potential=nothing, electronic_temperature=5000, on_extrapolation="ignore")
    atoms = silica(calc)
    dyn = VelocityVerlet(atoms, 0.2 * units.fs)
    two = TwoTemperature(atoms, dyn, coupling=STRONG)
    dyn.attach(two, interval=1)
    start = two.ionic_temperature
    linear = np.pi**2 / 3 * KB**2 * 2.0 * len(atoms)  # C_e / T_e

    def slopes(_, temperatures):
        flow = STRONG * atoms.get_volume() * (temperatures[0] - temperatures[1])
        return -flow / (linear * temperatures[0]), flow / (1.5 * len(atoms) * KB)

    wanted = solve_ivp(slopes, (0, 2.4), (5000, start), rtol=1e-9).y[:, -1]
    dyn.run(12)
    assert wanted[0] < 4850 and wanted[1] > 1.1 * start
    assert (two.electronic_temperature, two.ionic_temperature) == pytest.approx(tuple(wanted), rel=5e-3)
    assert linear * two.electronic_temperature == pytest.approx(two.heat_capacity, rel=1e-4)


def test_wrong_input():
    atoms = silica(hot())
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    with pytest.raises(CalculatorSetupError, match="coupling=-1 eV.*; give 0 or more"):
        TwoTemperature(atoms, dyn, coupling=-1)
    with pytest.raises(ValueError, match="duration: got 0 fs"):
        gaussian_pulse(1.0, center=0, duration=0)
    drain = TwoTemperature(atoms, dyn, coupling=0, pulse=lambda time: -10 * time)
    dyn.attach(drain, interval=1)
    with pytest.raises(CalculationFailed, match="no electronic temperature between"):
        dyn.run(1)
    atoms.calc = LennardJones()
    with pytest.raises(CalculatorSetupError, match="got LennardJones, need a DeepDOSCalculator"):
        TwoTemperature(atoms, dyn, coupling=0)
