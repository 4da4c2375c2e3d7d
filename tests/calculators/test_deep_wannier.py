"""DeepWannierCalculator: dipoles, Born charges and forces in a field against each other, ASE's tools, errors."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.harmonic import SpringCalculator
from ase.spacegroup import Spacegroup, crystal
from ase.vibrations.infrared import Infrared
from ase.vibrations.placzek import PlaczekStatic
from ase.vibrations.raman import StaticRamanCalculator
from small_models import WANNIER, random_model

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, units
from ase_mlelec.calculators.deep_wannier import StaticPolarizability
from ase_mlelec.testing import (
    assert_close,
    counted,
    doubled,
    five_point,
    random_atoms,
    random_rotation,
    shifted_by_cells,
    turned,
)

# neutral with the charges of small_models: Si 4, O 6 - 8
CRYSTAL = random_atoms("Si3O6", cell=[[5.5, 0, 0], [1.1, 6.0, 0], [0.3, -0.7, 6.3]])
MOLECULE = random_atoms("SiO2", seed=4)
FIELD = np.array([0.3, -0.2, 0.5])  # V/Å


def model(seed=0, heads=("energy", "dipole", "polarizability"), **options):
    return random_model(seed, heads, metadata=dict(WANNIER), **options)


def dipole(calculator, atoms):
    return calculator.get_property("dipole", atoms)


@pytest.fixture(params=["crystal", "molecule"])
def atoms(request):
    return {"crystal": CRYSTAL, "molecule": MOLECULE}[request.param].copy()


def test_dipole_is_that_of_ions_and_centroids(atoms):
    calculator = DeepWannierCalculator(model())
    centroids, oxygen = calculator.get_centroids(atoms), atoms.numbers == 8
    ions = np.where(oxygen, 6.0, 4.0)
    assert centroids.shape == (oxygen.sum(), 3)
    assert 0.01 < np.abs(centroids - atoms.positions[oxygen]).max() < 2
    assert_close(dipole(calculator, atoms), ions @ atoms.positions - 8 * centroids.sum(axis=0), 1e-13)
    if atoms.pbc.any():
        polarization = calculator.get_property("polarization", atoms)
        assert_close(polarization * atoms.get_volume(), dipole(calculator, atoms), 1e-14)


def test_vectors_that_are_sums_over_wannier_functions():
    """The same centroids from four times the vectors, as in data that add up displacements."""
    summed = model()
    with_sums = DeepWannierCalculator(summed).get_centroids(CRYSTAL)
    summed.metadata["functions_per_vector"] = 4
    calculator, oxygen = DeepWannierCalculator(summed), CRYSTAL.positions[CRYSTAL.numbers == 8]
    assert_close(calculator.get_centroids(CRYSTAL) - oxygen, (with_sums - oxygen) / 4, 1e-13)
    assert_gradient(calculator, CRYSTAL)


def test_origin_and_images(atoms):
    """A neutral structure has no origin; images of atoms differ by charges times cell vectors, centroids go along."""
    calculator = DeepWannierCalculator(model())
    wanted = dipole(calculator, atoms)
    moved = atoms.copy()
    moved.positions += [3.2, -1.5, 0.7]
    assert_close(dipole(calculator, moved), wanted, 1e-12)
    other = shifted_by_cells(atoms)
    charge = np.where(atoms.numbers == 8, -2.0, 4.0)
    assert_close(dipole(calculator, other), wanted + charge @ (other.positions - atoms.positions), 1e-12)
    together = atoms.copy()
    if atoms.pbc.any():
        together.positions += [5, 0, 0] @ atoms.cell.array
        assert_close(dipole(calculator, together), wanted, 1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_turns_with_the_structure(atoms, sign):
    calculator, rotation = DeepWannierCalculator(model()), sign * random_rotation()
    wanted = dipole(calculator, atoms) @ rotation.T
    alpha, born = calculator.get_polarizability(), calculator.get_born_charges()
    other = turned(atoms, rotation)
    assert_close(dipole(calculator, other), wanted, 1e-12)
    assert_close(calculator.get_polarizability(), rotation @ alpha @ rotation.T, 1e-12)
    assert_close(calculator.get_born_charges(), rotation @ born @ rotation.T, 1e-12)


def test_twice_the_structure(atoms):
    calculator = DeepWannierCalculator(model())
    wanted, alpha, born = dipole(calculator, atoms), calculator.get_polarizability(), calculator.get_born_charges()
    assert_close(dipole(calculator, doubled(atoms)), 2 * wanted, 1e-12)
    assert_close(calculator.get_polarizability(), 2 * alpha, 1e-12)
    assert_close(calculator.get_born_charges(), np.concatenate([born, born]), 1e-12)


def assert_gradient(calculator, atoms):
    """Born charges along random directions against five-point differences of the dipole.

    1e-7: fourth-order differences over 0.001 Å, and kinks of the switch's third derivative.
    """
    born = calculator.get_born_charges(atoms)
    for direction in np.random.default_rng(0).normal(size=(2, *atoms.positions.shape)):

        def dipole_at(step):
            moved = atoms.copy()
            moved.positions += step * direction
            return dipole(calculator, moved)

        slope, wanted = five_point(dipole_at), np.einsum("iab,ib->a", born, direction)
        assert np.abs(slope - wanted).max() < 1e-6
        assert_close(slope, wanted, 1e-7)


def test_born_charges_are_the_gradient_of_the_dipole(atoms):
    calculator = DeepWannierCalculator(model())
    assert_gradient(calculator, atoms)
    born = calculator.get_born_charges(atoms)
    assert np.abs(born - born.transpose(0, 2, 1)).max() > 0.005  # such that a wrong order of indices would show
    assert_close(born.sum(axis=0), np.zeros((3, 3)), 1e-9)  # relative to 0.001 e


def test_born_charges_only_when_asked_for():
    calculator = DeepWannierCalculator(model())
    dipole(calculator, CRYSTAL)
    assert "born_effective_charges" in calculator.implemented_properties
    assert "born_effective_charges" not in calculator.results
    calculator.get_born_charges()
    assert set(calculator.results) == {"dipole", "polarization", "born_effective_charges"}
    assert calculator.export_properties()["born_effective_charges"].shape == (9, 3, 3)


def test_only_centers_are_evaluated():
    """Without energies the descriptor sees the oxygens alone; with them it is evaluated once for all."""
    calculator, rows = DeepWannierCalculator(model(heads=("dipole",))), []
    calculator.models[0].descriptor.register_forward_hook(lambda module, args, out: rows.append(len(out.features)))
    dipole(calculator, CRYSTAL)
    assert rows == [6]
    calculator = DeepWannierCalculator(model())
    with counted(calculator) as calls:
        calculator.get_property("forces", CRYSTAL)
        dipole(calculator, CRYSTAL)
        calculator.get_polarizability()
    assert len(calls) == 1


def test_batches_of_structures():
    calculator, images = DeepWannierCalculator(model()), [CRYSTAL, MOLECULE, CRYSTAL[:5]]
    single = [(calculator.get_centroids(image), dipole(calculator, image)) for image in images]
    for properties in (["dipole"], ["energy", "dipole"]):
        for image, wanted in zip(calculator.each_of(images, properties=properties), single):
            assert_close(calculator.get_centroids(), wanted[0], 1e-13)
            assert_close(dipole(calculator, image), wanted[1], 1e-12)


def test_structure_without_centers():
    atoms = random_atoms("Si2")
    calculator = DeepWannierCalculator(model(heads=("dipole",)))
    assert calculator.get_centroids(atoms).shape == (0, 3)
    assert_close(dipole(calculator, atoms), 4 * atoms.positions.sum(axis=0), 1e-14)
    assert_close(calculator.get_born_charges(), 4 * np.array([np.eye(3)] * 2), 1e-14)


# fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("external", [False, True], ids=["own energy", "potential"])
def test_forces_in_a_field_are_the_gradient(atoms, external):
    """-dE/dr by five-point differences; E is that without field minus M.F, forces those without plus Z* F."""
    wannier, energy = (model(heads=("dipole",)), model(3, ("energy",))) if external else (model(), None)
    calculator = DeepWannierCalculator(wannier, potential=energy, electric_field=FIELD)
    free = DeepWannierCalculator(wannier, potential=energy)
    forces = calculator.get_property("forces", atoms)
    without = free.get_property("forces", atoms)
    assert_close(forces, without + np.einsum("a,iab->ib", FIELD, free.get_born_charges()), 1e-12)
    found = calculator.get_property("energy", atoms)
    assert found == calculator.get_property("free_energy", atoms)
    assert found == pytest.approx(free.get_property("energy", atoms) - dipole(free, atoms) @ FIELD, abs=1e-10)
    direction = np.random.default_rng(0).normal(size=forces.shape)

    def energy_at(step):
        moved = atoms.copy()
        moved.positions += step * direction
        return calculator.get_property("energy", moved)

    tolerance = 1e-7 * np.abs(forces * direction).sum()
    assert -five_point(energy_at) == pytest.approx((forces * direction).sum(), abs=tolerance)


def test_second_order_in_the_field(atoms):
    """Forces, dipole and Born charges are the derivatives of one enthalpy E - M.F - F.A.F/2."""
    one = DeepWannierCalculator(model(), electric_field=FIELD)
    two = DeepWannierCalculator(model(), electric_field=FIELD, field_order=2)
    alpha = two.get_polarizability(atoms)
    saved = FIELD @ alpha @ FIELD / 2 / units.COULOMB
    assert abs(saved) > 1e-4
    assert two.get_potential_energy(atoms) == pytest.approx(one.get_potential_energy(atoms) - saved, rel=1e-13)
    assert_close(dipole(two, atoms) - dipole(one, atoms), alpha @ FIELD / units.COULOMB, 1e-11)
    direction = np.random.default_rng(1).normal(size=atoms.positions.shape)

    def in_field(field, step=0.0):
        two.set(electric_field=field)
        moved = atoms.copy()
        moved.positions += step * direction
        return two.get_potential_energy(moved)

    wanted = -np.sum(two.get_forces(atoms) * direction)
    assert_close(five_point(lambda step: in_field(FIELD, step)), wanted, 1e-7)
    two.set(electric_field=FIELD)
    moment, born = dipole(two, atoms), two.get_born_charges(atoms)
    slopes = [-five_point(lambda step: in_field(FIELD + step * axis)) for axis in np.eye(3)]
    assert_close(slopes, moment, 1e-8)  # the enthalpy is quadratic in the field
    two.set(electric_field=FIELD)
    assert_gradient(two, atoms)

    def of_field(step, result):
        two.set(electric_field=FIELD + step * np.eye(3)[1])
        return result(atoms).copy()

    # mixed and second derivatives: Born charges of the forces, the polarizability of the dipole
    assert_close(five_point(lambda step: of_field(step, two.get_forces)), born[:, 1], 1e-8)
    moments = five_point(lambda step: of_field(step, lambda atoms: dipole(two, atoms)))
    assert_close(moments, alpha[1] / units.COULOMB, 1e-8)
    two.set(electric_field=FIELD)
    assert np.abs(born - DeepWannierCalculator(model()).get_born_charges(atoms)).max() > 1e-4
    with pytest.raises(CalculatorSetupError, match=r"got field_order=2 for a model of energy, dipole; load one"):
        DeepWannierCalculator(model(heads=("energy", "dipole")), field_order=2)
    with pytest.raises(CalculatorSetupError, match=r"got field_order=3, need 1 or 2"):
        two.set(field_order=3)


def test_field_can_be_set():
    calculator = DeepWannierCalculator(model())
    free = calculator.get_property("energy", CRYSTAL)
    calculator.electric_field = FIELD
    assert calculator.get_property("energy", CRYSTAL) != free
    assert not {"stress", "energies"} & set(calculator.implemented_properties)
    calculator.electric_field = None
    assert calculator.get_property("energy", CRYSTAL) == free and calculator.electric_field is None
    assert "stress" in calculator.implemented_properties


def test_committee_in_a_field():
    models = [model(seed) for seed in (0, 1)]
    committee = DeepWannierCalculator(models, electric_field=FIELD)
    members = [DeepWannierCalculator(each, electric_field=FIELD) for each in models]
    for name in ("energy", "forces", "dipole", "polarization", "born_effective_charges"):
        each = [member.get_property(name, CRYSTAL) for member in members]
        assert_close(committee.get_property(name, CRYSTAL), np.mean(each, axis=0), 1e-12, name)
        assert_close(committee.uncertainty[name], np.std(each, axis=0), 1e-11, name)
    each = [member.get_polarizability() for member in members]
    assert_close(committee.get_polarizability(), np.mean(each, axis=0), 1e-12)
    assert_close(committee.uncertainty["polarizability"], np.std(each, axis=0), 1e-12)


# ASE's tools -------------------------------------------------------------------------------------------------------


def test_infrared(tmp_path):
    """Intensities from ASE's differences against |sum Z* e/sqrt(m)|^2 of the modes."""
    atoms = MOLECULE.copy()
    atoms.calc = calculator = DeepWannierCalculator(
        model(heads=("dipole",)), potential=SpringCalculator(atoms.positions, 3.0)
    )
    infrared = Infrared(atoms, name=str(tmp_path / "ir"), delta=1e-3, nfree=4)
    infrared.run()
    infrared.get_energies()
    born = calculator.get_born_charges(atoms).transpose(1, 0, 2).reshape(3, -1)
    modes = infrared.modes * np.repeat(atoms.get_masses(), 3) ** -0.5
    debye = 0.2081943  # e Å
    assert_close(infrared.intensities, ((modes @ born.T) ** 2).sum(axis=1) / debye**2, 1e-6)


def test_raman(tmp_path):
    """ASE reads the polarizabilities back in Å^3."""
    atoms = MOLECULE.copy()
    atoms.calc = calculator = DeepWannierCalculator(
        model(heads=("dipole", "polarizability")), potential=SpringCalculator(atoms.positions, 3.0)
    )
    options = {"name": str(tmp_path / "raman"), "delta": 0.01, "txt": None}
    StaticRamanCalculator(atoms, StaticPolarizability, {"calculator": calculator}, **options).run()
    raman = PlaczekStatic(atoms, **options)
    raman.calculate_energies_and_modes()
    raman.read_excitations()
    plus, minus = atoms.copy(), atoms.copy()
    plus.positions[0, 2] += 0.01
    minus.positions[0, 2] -= 0.01
    slope = (calculator.get_polarizability(plus) - calculator.get_polarizability(minus)) / 0.02
    assert_close((raman.alp_rr[2] - raman.alm_rr[2]) * units.COULOMB / 0.02, slope, 1e-8)
    assert raman.get_absolute_intensities().shape == (9,)


def test_born_file(tmp_path):
    """A structure without symmetry has all rows, its supercell no more than those."""
    calculator = DeepWannierCalculator(model())
    calculator.write_born(tmp_path / "BORN", atoms=CRYSTAL)
    first, *rows = (tmp_path / "BORN").read_text().splitlines()
    rows = np.array([row.split() for row in rows], dtype=float).reshape(-1, 3, 3)
    assert float(first) == pytest.approx(14.39965, abs=1e-5)
    assert_close(rows[0], np.eye(3) + 4 * np.pi * calculator.get_polarizability() / CRYSTAL.get_volume(), 1e-9)
    assert_close(rows[1:], calculator.get_born_charges(), 1e-8)
    calculator.write_born(tmp_path / "BORN", dielectric=2 * np.eye(3), atoms=doubled(CRYSTAL))
    rows = np.loadtxt(tmp_path / "BORN", skiprows=1)
    assert rows[0].tolist() == [2, 0, 0, 0, 2, 0, 0, 0, 2]
    assert len(rows) == 1 + len(CRYSTAL)


def test_born_file_of_a_crystal_with_symmetry(tmp_path):
    """Quartz: from the two lines of charges phonopy turns out those of all nine atoms, by the rotations of the crystal.

    phonopy's format: conversion factor, dielectric tensor, then the charges of the first atom of each symmetry class in
    the order of the atoms, row by row, field or polarization first.
    """
    quartz = crystal(
        ["Si", "O"], [(0.47, 0, 1 / 3), (0.413, 0.266, 0.786)], spacegroup=152, cellpar=[4.91, 4.91, 5.40, 90, 90, 120]
    )
    calculator = DeepWannierCalculator(model())
    calculator.write_born(tmp_path / "BORN", atoms=quartz)
    rows = np.loadtxt(tmp_path / "BORN", skiprows=2).reshape(-1, 3, 3)
    born, cell, places = calculator.get_born_charges(), quartz.cell.array.T, quartz.get_scaled_positions()
    assert np.abs(born[0] - born[0].T).max() > 0.01  # such that a wrong order of indices would show
    expanded = np.full(born.shape, np.nan)
    for rotation, shift in Spacegroup(152).get_symop():
        turn = cell @ rotation @ np.linalg.inv(cell)
        for row, first in zip(rows, (0, 3), strict=True):
            away = places - (rotation @ places[first] + shift)
            image = np.abs(away - away.round()).max(axis=1).argmin()
            expanded[image] = turn @ row @ turn.T
    assert_close(expanded, born, 1e-8)


# what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("valence_charges", None, r"have no valence_charges of Si, O; set model.metadata\['valence_charges'\] ="),
        ("valence_charges", {"O": 6}, "have no valence_charges of Si; set"),
        ("electrons_per_centre", None, "have no electrons_per_centre of O; set"),
        ("electrons_per_centre", {"O": 8, "Si": 0.5}, "_centre names O, Si, the centers of the model are O; correct"),
    ],
)
def test_charges_that_do_not_fit(key, value, message):
    spoilt = model()
    spoilt.metadata[key] = value
    with pytest.raises(CalculatorSetupError, match=message) as caught:
        DeepWannierCalculator(spoilt)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [1.0, [0, 0, np.nan], [[0, 0, 1]]])
def test_fields_that_are_none(field):
    with pytest.raises(CalculatorSetupError, match="got electric_field=.*, need three numbers in V/Å"):
        DeepWannierCalculator(model(), electric_field=field)


def test_models_without_what_is_needed():
    with pytest.raises(CalculatorSetupError, match="model with 'dipole' or 'polarizability', this one has energy"):
        DeepWannierCalculator(model(heads=("energy",)))
    with pytest.raises(CalculatorSetupError, match="electric_field for a model without dipoles"):
        DeepWannierCalculator(model(heads=("polarizability",)), electric_field=FIELD)
    with pytest.raises(CalculatorSetupError, match="committee have 'dipole' of different species"):
        DeepWannierCalculator([model(), model(centers=(0, 1))])
    with pytest.raises(CalculatorSetupError, match="the model has no polarizability, only dipole"):
        DeepWannierCalculator(model(heads=("dipole",))).get_polarizability(CRYSTAL)


def test_polarizability_alone():
    """A model without charges and dipoles."""
    alone = model(heads=("polarizability",))
    alone.metadata.clear()
    calculator = DeepWannierCalculator(alone)
    assert calculator.implemented_properties == []
    assert np.array_equal(calculator.get_polarizability(CRYSTAL), calculator.get_polarizability(CRYSTAL).T)
    with pytest.raises(CalculatorSetupError, match="the model has no dipole, only polarizability; load one"):
        calculator.get_centroids()


def test_polarization_needs_a_cell():
    calculator = DeepWannierCalculator(model())
    with pytest.raises(PropertyNotImplementedError, match="polarization needs a cell with three vectors; set"):
        calculator.get_property("polarization", MOLECULE)
    assert np.isfinite(dipole(calculator, MOLECULE)).all() and "polarization" not in calculator.results


def test_beside_other_calculators():
    """Energies from a model of its own."""
    energy, atoms = model(5, ("energy",)), CRYSTAL.copy()
    atoms.calc = DeepWannierCalculator(model(heads=("dipole",)), potential=energy)
    forces, moment = atoms.get_forces(), atoms.get_dipole_moment()
    assert_close(forces, DeepPotCalculator(energy).get_property("forces", atoms), 1e-13)
    assert moment.shape == (3,) and "stress" in atoms.calc.implemented_properties


@pytest.mark.filterwarnings("ignore::UserWarning")  # far from the training data
def test_no_centers():
    """Hydrogen alone has no centroid; the dipole of this charged structure refers to the origin."""
    hydrogen = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    hydrogen.calc = DeepWannierCalculator("water", device="cpu")
    assert np.isfinite(hydrogen.get_potential_energy())
    np.testing.assert_allclose(hydrogen.get_dipole_moment(), [0, 0, 0.8])
