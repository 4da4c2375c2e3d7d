"""Energy, forces and stress at other electronic temperatures, against differences, the physics, and other calculators."""

import copy
import warnings

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError
from ase.calculators.fd import calculate_numerical_forces
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from small_models import random_model, rooted

from ase_mlelec import CombinedCalculator, DeepDOSCalculator, DeepPotCalculator
from ase_mlelec.model import Model
from ase_mlelec.physics.free_energy import electronic_free_energy
from ase_mlelec.testing import assert_close, random_atoms

HOT = 9000.0  # K
WIDTH = {"dos_width_eV": 0.3}
SHEARED = [[0, 5.5, 0.7], [5.1, 0.3, 0], [0.4, 0, 6.1]]
NAMES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")


def rectangular():
    return random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


def left_handed():
    return random_atoms("Si3O3", cell=SHEARED, seed=2)


def both_heads(seed=0, **metadata):
    return random_model(seed, ("energy", "dos"), metadata={**WIDTH, **metadata})


def free_energy(calc, atoms, temperature):
    n_electrons = sum(calc.metadata["electrons_in_dos"][symbol] for symbol in atoms.symbols)
    return electronic_free_energy(calc.energies, calc.get_total_dos(atoms), n_electrons, temperature, width=0.3)


def test_energy_is_that_of_the_formula():
    atoms, model = rectangular(), both_heads()
    hot, cold = DeepDOSCalculator(model, electronic_temperature=HOT), DeepPotCalculator(model)
    excess = free_energy(hot, atoms, HOT) - free_energy(hot, atoms, 300.0)
    assert excess < -1
    assert_close(hot.get_property("energy", atoms), cold.get_property("energy", atoms) + excess, 1e-12)
    assert hot.get_fermi_level() == DeepDOSCalculator(model).get_fermi_level(HOT, atoms=atoms)


def test_the_temperature_of_the_model_changes_nothing():
    atoms, model = rectangular(), both_heads()
    plain = DeepDOSCalculator(model)
    same = DeepDOSCalculator(model, electronic_temperature=300)
    for name in NAMES:
        assert np.array_equal(plain.get_property(name, atoms), same.get_property(name, atoms))
    assert plain.electronic_temperature == plain.reference_temperature == 300


def test_a_potential_of_another_temperature():
    """The excess is added to the results of a potential; parts of the sum are where the models are."""
    atoms, model = left_handed(), both_heads()
    together = DeepDOSCalculator(model, electronic_temperature=HOT)
    apart = DeepDOSCalculator(model, potential=DeepPotCalculator(model), electronic_temperature=HOT)
    for name in NAMES:
        assert_close(apart.get_property(name, atoms), together.get_property(name, atoms), 1e-12, name)
    other = DeepDOSCalculator(model, potential=model, electronic_temperature=HOT, reference_temperature=2000)
    difference = other.get_property("energy", atoms) - apart.get_property("energy", atoms)
    assert_close(difference, free_energy(apart, atoms, 300.0) - free_energy(apart, atoms, 2000.0), 1e-9)


def test_several_structures_at_once():
    images = [rectangular(), left_handed()]
    calc = DeepDOSCalculator(both_heads(), electronic_temperature=HOT)
    alone = [[calc.get_property(name, image) for name in NAMES] for image in images]
    for image, wanted in zip(calc.each_of(images), alone):
        for name, value in zip(NAMES, wanted):
            assert_close(calc.get_property(name, image), value, 1e-12, name)


def test_a_committee_is_the_mean_of_its_members():
    atoms, models = rectangular(), [both_heads(seed) for seed in (0, 1)]
    members = [DeepDOSCalculator(model, electronic_temperature=HOT) for model in models]
    committee = DeepDOSCalculator(models, electronic_temperature=HOT)
    for name in NAMES:
        each = [member.get_property(name, atoms) for member in members]
        assert_close(committee.get_property(name, atoms), np.mean(each, axis=0), 1e-12, name)
        assert_close(committee.uncertainty[name], np.std(each, axis=0), 1e-9, name)


def test_set_changes_the_results():
    atoms = rectangular()
    atoms.calc = calc = DeepDOSCalculator(both_heads())
    cold = atoms.get_potential_energy(), atoms.get_forces()
    assert calc.set(electronic_temperature=HOT) == {"electronic_temperature": HOT}
    assert calc.parameters["electronic_temperature"] == HOT
    hot = atoms.get_potential_energy(), atoms.get_forces()
    assert hot[0] < cold[0] - 1 and np.abs(hot[1] - cold[1]).max() > 1e-3
    other = copy.deepcopy(calc)
    assert other.get_property("energy", atoms) == hot[0]
    calc.electronic_temperature = None
    assert atoms.get_potential_energy() == cold[0] and np.array_equal(atoms.get_forces(), cold[1])


def test_a_combined_calculator_hands_the_temperature_on():
    model, atoms = both_heads(), rectangular()
    hot = DeepDOSCalculator(model, electronic_temperature=HOT)
    combined = CombinedCalculator([DeepDOSCalculator(model)])
    combined.set(electronic_temperature=HOT)
    assert combined.get_property("energy", atoms) == hot.get_property("energy", atoms)


def run(calc, timestep, n_steps):
    atoms = rectangular()
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    totals = []
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()))
    dynamics.run(n_steps)
    return np.ptp(totals)


def test_molecular_dynamics_conserves_free_plus_kinetic_energy():
    """Half the time step leaves a quarter of the fluctuation; wrong forces would leave all of it."""
    calc = DeepDOSCalculator(both_heads(), electronic_temperature=HOT)
    coarse, fine = run(calc, 1.0, 12), run(calc, 0.5, 24)
    assert fine < 2e-4 and coarse / fine == pytest.approx(4, rel=0.3)


def test_a_density_of_states_that_ends_too_early_is_told():
    atoms = rectangular()
    calc = DeepDOSCalculator(both_heads(), electronic_temperature=3e4)
    with pytest.warns(UserWarning, match=r"ends \d+\.\d eV above the Fermi level; at 30000 K about .* eV/atom of the"):
        calc.get_property("energy", atoms)
    assert calc.extrapolations == {"electronic temperature": 1}
    with pytest.raises(CalculationFailed, match="are missing"):
        DeepDOSCalculator(both_heads(), electronic_temperature=3e4, on_extrapolation="raise").get_property(
            "energy", atoms
        )
    early = DeepDOSCalculator(both_heads(bands_complete_below_eV=2.0), electronic_temperature=HOT)
    with pytest.warns(UserWarning, match="are missing"):
        early.get_property("energy", atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepDOSCalculator(both_heads(), electronic_temperature=HOT).get_property("energy", atoms)


def test_an_unknown_temperature_of_the_energies_is_refused():
    model = both_heads()
    del model.metadata["electronic_temperature_K"]
    with pytest.raises(CalculatorSetupError, match="give reference_temperature"):
        DeepDOSCalculator(model, electronic_temperature=HOT)
    atoms = rectangular()
    given = DeepDOSCalculator(model, electronic_temperature=HOT, reference_temperature=300)
    wanted = DeepDOSCalculator(both_heads(), electronic_temperature=HOT)
    assert given.get_property("energy", atoms) == wanted.get_property("energy", atoms)
    assert DeepDOSCalculator(model).electronic_temperature == 0
    with pytest.raises(CalculatorSetupError, match="electronic_temperature=-1"):
        DeepDOSCalculator(model, electronic_temperature=-1, reference_temperature=300)


def test_order_parameter_does_not_depend_on_the_temperature():
    atoms = bulk("Si")
    orders = [DeepDOSCalculator("si", electronic_temperature=t).get_order_parameter(atoms=atoms) for t in (None, 5e3)]
    assert np.array_equal(*orders)


def test_error_bars_hold_the_spread_of_the_excess():
    """Members of the calculator, each with its own excess, spread as the error bars say."""
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=2)
    cold, hot = (DeepDOSCalculator("si", electronic_temperature=t, dtype="float64") for t in (None, 6000))
    excess = [
        member.get_property("energy", atoms)
        - DeepDOSCalculator(member.models[0], on_extrapolation="ignore").get_property("energy", atoms)
        for member in hot.members(16, atoms=atoms)
    ]
    bars = [calc.get_uncertainty("energy", atoms=atoms) for calc in (cold, hot)]
    assert bars[1] == pytest.approx(np.hypot(bars[0], np.std(excess)), rel=1e-6) and bars[1] > bars[0]
    assert hot.get_uncertainty("forces", atoms=atoms).shape == (2, 3)


@pytest.mark.parametrize("cutoffs, change", [((4.0, 3.1), copy.copy), ((3.1, 4.0), copy.copy), ((3.1, 4.0), rooted)])
def test_descriptors_of_different_reach(cutoffs, change):
    """Forces are the gradient where energy and density of states have cutoffs of their own."""
    energy, spectra = random_model(0, cutoff=cutoffs[0]), change(random_model(1, ("dos",), cutoff=cutoffs[1]))
    heads = {**energy.heads, **spectra.heads}
    model = Model(energy.descriptor, heads, spectra.metadata, electronic=spectra.descriptor)
    atoms = rectangular()
    atoms.calc = DeepDOSCalculator(model, electronic_temperature=HOT)
    numerical = calculate_numerical_forces(atoms, eps=2e-4, iatoms=[2])
    assert np.abs(numerical - atoms.get_forces()[2]).max() < 1e-6
