"""The calculators under the calculator contract, and their models under the model contract, in cells of every kind."""

import numpy as np
import pytest
import torch
from ase.calculators.calculator import CalculatorSetupError
from small_models import ENERGIES, WANNIER, random_model
from structures import LeftHanded, Molecule, Orthorhombic, Sheared, Slab

import ase_mlelec.long_range
from ase_mlelec import CombinedCalculator, DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator
from ase_mlelec.calculators import evaluation
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing import CalculatorContract, ModelContract, assert_close, counted


class DeepPot(ModelContract, CalculatorContract):
    def make_model(self, seed=0):
        return random_model(seed)

    def make_calculator(self, model, **options):
        return DeepPotCalculator(model, **options)


class DeepDOS(ModelContract, CalculatorContract):
    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dos"), one_side=False)

    def make_calculator(self, model, **options):
        return DeepDOSCalculator(model, **options)

    def per_atom(self, calculator, atoms):
        return {"ados": calculator.get_ados(atoms)}


class DeepWannier(ModelContract, CalculatorContract):
    """Dipoles change with the images of the atoms; displacements of the centroids and polarizabilities do not."""

    heads = ("energy", "dipole", "polarizability")

    def make_model(self, seed=0):
        return random_model(seed, self.heads, metadata=dict(WANNIER))

    def make_calculator(self, model, **options):
        return DeepWannierCalculator(model, **options)

    def names(self, calculator, atoms):
        flat = atoms.cell.rank < 3
        return [name for name in super().names(calculator, atoms) if not (flat and name == "polarization")]

    def per_atom(self, calculator, atoms):
        displacements, oxygen = np.zeros((len(atoms), 3)), atoms.numbers == 8
        displacements[oxygen] = calculator.get_centroids(atoms) - atoms.positions[oxygen]
        return {"displacements": displacements}

    def rule(self, name):
        return ("vector", "atom") if name == "displacements" else super().rule(name)


class LongRange(DeepWannier):
    """Energies with charges of ions and centroids far away."""

    def make_model(self, seed=0):
        model = super().make_model(seed)
        model.long_range = ase_mlelec.long_range.LongRange(
            0.9 + 0.1 * seed, WANNIER["valence_charges"], WANNIER["electrons_per_centre"], dielectric=1.7
        )
        return model


class Combined(ModelContract, CalculatorContract):
    """Energy of one part, density of states of the other."""

    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dos"), one_side=False)

    def make_calculator(self, model, **options):
        return CombinedCalculator([DeepPotCalculator(model, **options), DeepDOSCalculator(model, **options)])

    def per_atom(self, calculator, atoms):
        return {"ados": calculator.get_ados(atoms)}


class TestDeepPotOrthorhombic(Orthorhombic, DeepPot):
    pass


class TestDeepPotSheared(Sheared, DeepPot):
    pass


class TestDeepPotSlab(Slab, DeepPot):
    pass


class TestDeepPotMolecule(Molecule, DeepPot):
    pass


class TestDeepPotChebyshev(LeftHanded, DeepPot):
    def make_model(self, seed=0):
        return random_model(seed, n_basis=12, l_max=3)


class TestDeepDOSLeftHanded(LeftHanded, DeepDOS):
    pass


class TestDeepDOSSlab(Slab, DeepDOS):
    pass


class HotDOS(DeepDOS):
    """Electrons at another temperature than that of the energies."""

    def make_calculator(self, model, **options):
        return DeepDOSCalculator(model, electronic_temperature=8000.0, **options)


class TestHotDOSLeftHanded(LeftHanded, HotDOS):
    pass


class TestDeepDOSAlone(Sheared, DeepDOS):
    """No energy of its own: nothing but the electronic results."""

    def make_model(self, seed=0):
        return random_model(seed, ("dos",))


class TestCombined(LeftHanded, Combined):
    pass


class TestDeepWannierLeftHanded(LeftHanded, DeepWannier):
    pass


class TestDeepWannierSlab(Slab, DeepWannier):
    pass


class TestLongRangeSheared(Sheared, LongRange):
    pass


class TestLongRangeSlab(Slab, LongRange):
    def other_pbc(self, atoms):
        return np.array([True, True, True])


class TestLongRangeMolecule(Molecule, LongRange):
    def test_supercell(self):
        """Two neutral molecules feel the fields of each other, which fall off."""
        calculator, molecule = self.make_calculator(self.make_model()), self.make_atoms()
        del molecule[int(np.argmax(molecule.numbers == 8))]
        del molecule[int(np.argmax(molecule.numbers == 14))]
        assert molecule.get_chemical_formula() == "O2Si"
        single, between = calculator.get_potential_energy(molecule), []
        for distance in 200.0, 400.0:
            other = molecule.copy()
            other.positions[:, 0] += distance
            between.append(calculator.get_potential_energy(molecule + other) - 2 * single)
        assert between[0] / between[1] == pytest.approx(8, rel=0.1)  # dipoles: 1/r^3


class TestDeepWannierMolecule(Molecule, DeepWannier):
    """No energy of its own: oxygens alone are evaluated."""

    heads = ("dipole",)


def test_chunks_do_not_matter(monkeypatch):
    """Centers are evaluated some at a time; the parts of a structure fit together in any size."""
    atoms, model = Orthorhombic().make_atoms(), random_model(0, ("energy", "dos"))
    whole = DeepDOSCalculator(model)
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    parts = DeepDOSCalculator(model)
    for name in whole.implemented_properties:
        # 1e-13: the same numbers, summed in the same order but for the size of matrix products
        assert_close(parts.get_property(name, atoms), whole.get_property(name, atoms), 1e-13, name)
    assert_close(parts.get_ados(), whole.get_ados(), 1e-13)


def test_committee_of_different_cutoffs():
    atoms, models = Sheared().make_atoms(), [random_model(0, cutoff=4.0), random_model(1, cutoff=3.1)]
    committee = DeepPotCalculator(models)
    for name in committee.implemented_properties:
        members = [DeepPotCalculator(model).get_property(name, atoms) for model in models]
        assert_close(committee.get_property(name, atoms), np.mean(members, axis=0), 1e-12, name)


def test_committee_of_different_precision():
    """Evaluated in the higher one."""
    single = random_model(0, dtype=torch.float32)
    assert DeepPotCalculator([single, random_model(1)]).dtype == torch.float64
    assert DeepPotCalculator(single).dtype == torch.float32


@pytest.mark.parametrize("as_calculator", [True, False])
def test_potential_from_elsewhere(as_calculator):
    """Energy, forces and stress of the potential, as a calculator or as a model; the DOS of the calculator's own."""
    atoms, energy, dos = Orthorhombic().make_atoms(), random_model(5), random_model(6, ("dos",))
    calculator = DeepDOSCalculator(dos, potential=DeepPotCalculator(energy) if as_calculator else energy)
    atoms.calc = calculator
    forces, stress, level = atoms.get_forces(), atoms.get_stress(), atoms.calc.get_property("fermi_level", atoms)
    atoms.calc = DeepPotCalculator(energy)
    assert np.array_equal(forces, atoms.get_forces()) and np.array_equal(stress, atoms.get_stress())
    assert level == DeepDOSCalculator(dos).get_fermi_level(atoms=atoms)
    assert calculator.get_property("energy", atoms) == calculator.results["free_energy"] == atoms.get_potential_energy()


def test_own_energy_shares_the_descriptor_with_the_dos():
    atoms = Orthorhombic().make_atoms()
    atoms.calc = calculator = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    with counted(calculator) as calls:
        atoms.get_forces()
        calculator.get_ados()
        calculator.get_property("fermi_level", atoms)
    assert len(calls) == 1


def test_descriptors():
    atoms, model = Orthorhombic().make_atoms(), random_model()
    calculator = DeepPotCalculator(model)
    found = calculator.get_descriptors(atoms)
    system = System.from_atoms(atoms)
    with torch.no_grad():
        wanted = model.descriptor(system, Edges.build(system, model.cutoff)).features
    assert_close(found, wanted, ModelContract.compression)
    assert found is calculator.get_descriptors()


def test_without_an_electron_count_there_is_no_fermi_level():
    """``implemented_properties`` is what the instance delivers."""
    model = random_model(0, ("energy", "dos"))
    del model.metadata["electrons_in_dos"]
    calculator, atoms = DeepDOSCalculator(model), Orthorhombic().make_atoms()
    assert "fermi_level" not in calculator.implemented_properties
    assert calculator.get_ados(atoms).shape == (len(atoms), len(calculator.energies))
    with pytest.raises(CalculatorSetupError, match="no 'electrons_in_dos'.*; train with"):
        calculator.get_fermi_level()


def test_grid_keeps_its_digits_in_float32():
    model = random_model(0, ("dos",))
    calculator = DeepDOSCalculator(model, dtype="float32")
    assert np.array_equal(calculator.energies, ENERGIES)


def test_neighbor_list_is_reused_in_a_run():
    """Ten small steps with the default skin need one list."""
    atoms, generator = Orthorhombic().make_atoms(), np.random.default_rng(0)
    atoms.calc = calculator = DeepPotCalculator(random_model())
    for _ in range(10):
        atoms.positions += generator.normal(0, 0.005, atoms.positions.shape)
        atoms.get_forces()
    assert calculator._cache.n_builds == 1
