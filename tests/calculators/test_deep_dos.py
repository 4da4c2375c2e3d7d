"""DeepDOSCalculator: one Fermi level per structure and temperature, whoever asks."""

import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.spectrum.doscollection import GridDOSCollection
from small_models import random_model

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.physics import dos, filling
from ase_mlelec.physics.gap import broadened_edge
from ase_mlelec.testing import random_atoms


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


def insulator(share=1.0, square_root=False):
    """Calculator of a density of states that is the same everywhere: bands with linear edges at -2 and 2.5 eV."""
    model = random_model(0, ("dos",))
    model.heads["dos"].square_root = square_root
    grid = model.heads["dos"].energies
    lower, upper = (broadened_edge(x / 0.5, 1) for x in (grid + 2, 2.5 - grid))
    with torch.no_grad():
        model.heads["dos"].nets.scale.zero_()
        bias = (lower + upper).sqrt() if square_root else lower + upper
        model.heads["dos"].nets.bias.copy_(bias.expand(2, -1))
    counts = dict.fromkeys(model.species, share * float(torch.trapezoid(lower, grid)))
    model.metadata |= {"dos_width_eV": 0.5, "electrons_in_dos": counts}
    return DeepDOSCalculator(model)


def test_gap_and_fermi_level_of_an_insulator():
    """A count of electrons that is off by a hundredth, as with projections, moves neither."""
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])
    for share in (1.0, 0.99, 1.01):
        calc = insulator(share)
        found = calc.get_band_gap(atoms)
        assert tuple(found) == pytest.approx((4.5, -2.0, 2.5), abs=0.01) and found.resolved
        assert 0.05 < found.uncertainty[0] < 0.2 and found.largest == found[0]
        assert calc.get_fermi_level(0.0) == pytest.approx(0.25, abs=0.01)
        assert calc.get_fermi_level(1.0) == pytest.approx(0.25, abs=0.02)
        assert str(found).startswith("gap 4.50 ± 0.")
        again = pickle.loads(pickle.dumps(found))
        assert again == found and again.uncertainty == found.uncertainty and again.resolved
    assert insulator(0.9).get_band_gap(atoms)[0] == 0


def test_a_model_of_insulators_finds_the_gap_where_many_states_are_wrong():
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])
    for share in (0.88, 1.12):
        calc = insulator(share, square_root=True)
        assert tuple(calc.get_band_gap(atoms)) == pytest.approx((4.5, -2.0, 2.5), abs=0.01)
        assert calc.get_fermi_level(0.0) == pytest.approx(0.25, abs=0.01)
    assert insulator(0.6, square_root=True).get_band_gap(atoms)[0] == 0  # another band


def test_projections_that_miss_much_hide_no_gap_of_a_model_of_insulators():
    """They miss a tenth on average, and of another structure may miss a fifth."""
    atoms = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])
    for square_root in (False, True):
        calc = insulator(1.2, square_root=square_root)
        counts = calc.metadata["electrons_in_dos"]
        calc.models[0].metadata["valence_electrons"] = {symbol: count / 0.9 for symbol, count in counts.items()}
        assert calc.get_band_gap(atoms)[0] == pytest.approx(4.5, abs=0.01)


def test_a_gap_that_the_width_may_hide(atoms):
    found = atoms.calc.get_band_gap()
    assert found[0] == 0 and not found.resolved and 0.5 < found.largest < 1.5
    assert str(found) == f"gap not resolved at this width of the levels (below {found.largest:.1f} eV)"
    gap, vbm, cbm = found
    assert (gap, vbm) == (0, cbm) and vbm == atoms.calc.get_fermi_level(0.0)
