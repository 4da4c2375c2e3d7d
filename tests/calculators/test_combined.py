import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError, InputError, PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.io import read, write
from small_models import random_model

from ase_mlelec import CombinedCalculator, DeepDOSCalculator, DeepPotCalculator
from ase_mlelec.edges import edges as edges_module
from ase_mlelec.testing import random_atoms


@pytest.fixture
def atoms():
    return random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])


@pytest.fixture
def parts():
    return [DeepPotCalculator(random_model(0)), DeepDOSCalculator(random_model(1, ("dos",), cutoff=3.5), skin=0.8)]


@pytest.fixture
def searches(monkeypatch):
    """Cutoffs of all neighbor searches."""
    found, search = [], edges_module.find_pairs

    def counted(system, cutoff):
        found.append(cutoff)
        return search(system, cutoff)

    monkeypatch.setattr(edges_module, "find_pairs", counted)
    return found


def test_results_are_those_of_the_parts(atoms, parts):
    alone = [DeepPotCalculator(random_model(0)), DeepDOSCalculator(random_model(1, ("dos",), cutoff=3.5))]
    atoms.calc = CombinedCalculator(parts)
    assert set(atoms.calc.implemented_properties) == {*alone[0].implemented_properties, "fermi_level"}
    for name in alone[0].implemented_properties:
        np.testing.assert_allclose(atoms.calc.get_property(name, atoms), alone[0].get_property(name, atoms), atol=1e-12)
    np.testing.assert_allclose(atoms.calc.get_ados(), alone[1].get_ados(atoms), atol=1e-12)
    assert atoms.calc.get_property("fermi_level", atoms) == pytest.approx(alone[1].get_fermi_level(), abs=1e-9)


def test_one_neighbor_search_for_all_parts(atoms, parts, searches):
    atoms.calc = CombinedCalculator(parts)
    atoms.get_forces()
    atoms.calc.get_order_parameter(offsets=(0, -1))
    atoms.rattle(0.01, seed=0)
    atoms.get_stress()
    atoms.calc.get_fermi_level()
    assert searches == [4.0 + 0.8]  # the largest cutoff and the largest skin
    assert parts[0]._cache is parts[1]._cache and parts[0]._cache.n_builds == 1


def test_potential_of_a_part_shares_the_list_too(atoms, searches):
    dos = DeepDOSCalculator(random_model(1, ("dos",)), potential=random_model(0))
    atoms.calc = CombinedCalculator([dos, DeepPotCalculator(random_model(2))])
    del searches[:]  # those that made the models
    atoms.get_forces()
    atoms.calc.get_ados()
    atoms.calc.get_descriptors()
    assert len(searches) == 1
    assert atoms.get_potential_energy() == DeepPotCalculator(random_model(0)).get_property("energy", atoms)


def test_parts_of_different_precision_have_their_own_list(atoms):
    parts = [DeepPotCalculator(random_model(0)), DeepPotCalculator(random_model(0), dtype="float32")]
    CombinedCalculator(parts)
    assert parts[0]._cache is not parts[1]._cache


def test_methods_see_the_present_structure(atoms, parts):
    """Also those of a part that was never asked for a result."""
    atoms.calc = CombinedCalculator(parts)
    atoms.get_forces()
    first = atoms.calc.get_ados()
    atoms.rattle(0.2, seed=0)
    atoms.get_forces()
    assert np.abs(atoms.calc.get_ados() - first).max() > 1e-4
    other = random_atoms("Si2O", cell=[5, 5, 5], seed=5)
    assert len(atoms.calc.get_ados(other)) == len(atoms.calc.get_ados(atoms=other)) == 3
    with pytest.raises(InputError, match="shared by different structures .* pass atoms="):
        atoms.calc.get_fermi_level(300.0)
    level = atoms.calc.get_fermi_level(300.0, atoms=atoms)
    assert atoms.calc.get_fermi_level(300.0) == level
    assert level == pytest.approx(parts[1].get_fermi_level(300.0, atoms=atoms))


def test_energy_and_forces_come_from_one_part(atoms):
    """Lennard-Jones has energies, forces and stress, but the first part with an energy supplies all of them."""
    first, dos, last = LennardJones(), DeepDOSCalculator(random_model(1, ("dos",))), DeepPotCalculator(random_model(0))
    atoms.calc = CombinedCalculator([dos, first, last])
    assert atoms.get_potential_energy() == LennardJones().get_property("energy", atoms)
    np.testing.assert_array_equal(atoms.get_forces(), LennardJones().get_property("forces", atoms))
    assert atoms.calc.energies is not None and atoms.calc.get_descriptors().shape[0] == len(atoms)


def test_trajectory_holds_what_came_along(atoms, parts, tmp_path):
    atoms.calc = CombinedCalculator(parts)
    atoms.get_potential_energy()
    assert {"energy", "free_energy", "forces", "stress"} <= {*atoms.calc.results}
    write(tmp_path / "run.traj", atoms)
    np.testing.assert_allclose(read(tmp_path / "run.traj").get_forces(), atoms.get_forces(), atol=1e-12)
    atoms.calc.export_properties()


def test_each_of(atoms, parts):
    calc = CombinedCalculator(parts)
    images = [atoms, random_atoms("Si2O", cell=[5, 5, 5], seed=5)]
    energies = [calc.get_property("energy", image) for image in images]
    ados = [calc.get_ados(image) for image in images]
    k = -1
    for k, image in enumerate(calc.each_of(images, properties=["energy", "ados"])):
        assert image is images[k]
        assert parts[0].results["energy"] == pytest.approx(energies[k], abs=1e-10)
        np.testing.assert_allclose(parts[1]._extra["ados"], ados[k], atol=1e-12)
        np.testing.assert_allclose(calc.get_ados(), ados[k], atol=1e-12)
    assert k == 1


def test_parameters_of_a_part_that_change(atoms):
    part = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    atoms.calc = CombinedCalculator([part])
    before = atoms.get_potential_energy()
    part.set(electronic_temperature=6000.0)
    assert atoms.get_potential_energy() == part.get_property("energy", atoms) < before - 0.1


def test_names(parts):
    calc = CombinedCalculator(parts)
    assert {"get_ados", "get_descriptors", "energies", "parts"} <= {*dir(calc)}
    with pytest.raises(AttributeError, match="'get_bands'"):
        calc.get_bands


def test_uncertainty_of_committees(atoms):
    calc = CombinedCalculator(
        [
            DeepPotCalculator([random_model(0), random_model(1)]),
            DeepDOSCalculator([random_model(k, ("dos",)) for k in (2, 3)]),
        ]
    )
    atoms.calc = calc
    atoms.get_forces(), calc.get_ados()
    assert calc.uncertainty["forces"].shape == (len(atoms), 3)
    assert calc.uncertainty["ados"].shape == calc.get_ados().shape


def test_mistakes(atoms, parts):
    with pytest.raises(CalculatorSetupError, match="empty list"):
        CombinedCalculator([])
    with pytest.raises(CalculatorSetupError, match="needed ASE calculators"):
        CombinedCalculator([random_model(0)])
    with pytest.raises(PropertyNotImplementedError):
        CombinedCalculator(parts).get_property("dipole", atoms)
