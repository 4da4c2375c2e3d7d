"""DeepDOSCalculator: one Fermi level per structure and temperature, whoever asks."""

import numpy as np
import pytest
from ase.build import bulk
from ase.spectrum.doscollection import GridDOSCollection

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.physics import dos, filling


@pytest.fixture
def solved(monkeypatch):
    """kT, eV, of every Fermi level that is solved for."""
    calls, solve = [], filling.fermi_level

    def counted(energies, density, n_electrons, kT):
        calls.append(kT)
        return solve(energies, density, n_electrons, kT)

    monkeypatch.setattr(filling, "fermi_level", counted)
    return calls


@pytest.fixture
def atoms():
    atoms = bulk("Si")
    atoms.rattle(0.02, seed=1)
    atoms.calc = DeepDOSCalculator("si")
    return atoms


def test_the_fermi_level_is_solved_once_per_structure_and_temperature(atoms, solved):
    calc = atoms.calc
    for _ in range(2):
        calc.get_fermi_level(), calc.get_property("fermi_level", atoms), calc.get_order_parameter()
        calc.get_band_energy(), calc.get_entropy(), calc.get_heat_capacity()
    assert len(solved) == 1
    for _ in range(2):
        calc.get_fermi_level(300.0), calc.get_entropy(300.0), calc.get_band_gap(), calc.get_fermi_level(0.0)
    assert len(solved) == 3 and len(set(solved)) == 3
    atoms.positions[0, 0] += 0.01
    calc.get_fermi_level(), calc.get_band_energy()
    assert len(solved) == 4


def test_what_follows_from_a_known_level_is_as_without(atoms):
    calc = atoms.calc
    for temperature in (300.0, 5e3):
        n_electrons = 2 * calc.metadata["electrons_in_dos"]["Si"]
        arguments = calc.energies, calc.get_total_dos(), n_electrons, temperature
        assert calc.get_band_energy(temperature) == pytest.approx(dos.band_energy(*arguments), rel=1e-14)
        assert calc.get_entropy(temperature) == pytest.approx(dos.entropy(*arguments), rel=1e-14)
        assert calc.get_heat_capacity(temperature) == pytest.approx(dos.heat_capacity(*arguments), rel=1e-14)


def test_a_level_that_is_given_is_checked_with_its_dos():
    with pytest.raises(ValueError, match="dos: got NaN"):
        dos.band_energy([0, 1], [np.nan, 1], 1, 300, mu=0.5)


def test_offsets_of_the_order_parameter_come_from_the_model(atoms):
    calc = atoms.calc
    assert np.array_equal(calc.get_order_parameter(), calc.get_order_parameter((0, -5, -8)))
    calc.metadata["order_parameter_offsets_eV"] = [0.0, -1.0]
    assert np.array_equal(calc.get_order_parameter(), calc.get_order_parameter(offsets=(0, -1)))


def test_collection_of_atoms(atoms):
    found = atoms.calc.get_dos()
    assert isinstance(found, GridDOSCollection) and found[1].info == {"index": "1", "symbol": "Si"}
    assert np.allclose(found.sum_all().get_weights(), atoms.calc.get_total_dos(), rtol=1e-12)


def test_choices_are_enums_and_strings(atoms):
    calc = DeepDOSCalculator("si", on_extrapolation=OnExtrapolation.IGNORE)
    assert calc.on_extrapolation == "ignore" and calc.parameters["on_extrapolation"] == "ignore"
    assert type(calc.parameters["on_extrapolation"]) is str and "on_extrapolation='ignore'" in repr(calc)
    calc.on_extrapolation = "raise"
    assert calc.on_extrapolation is OnExtrapolation.RAISE
