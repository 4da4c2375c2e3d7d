"""How people use ASE's calculators: every calculator under the habits contract, and a combination."""

import copy
import json
import pickle

import numpy as np
import pytest
from ase.calculators.calculator import CalculatorSetupError, InputError, PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.db import connect
from ase.dft.bandgap import bandgap
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from small_bilayers import graphene_bilayer, random_wannier_model
from small_ldos import random_ldos_model
from small_models import WANNIER, random_model
from structures import LeftHanded, Orthorhombic, Sheared, Slab

from ase_mlelec import (
    CombinedCalculator,
    DeepDOSCalculator,
    DeepPotCalculator,
    DeepWannierCalculator,
    MLDFTCalculator,
    WannierTBCalculator,
)
from ase_mlelec.testing import HabitsContract, random_atoms

OF_OTHERS, SECOND = random_model(5), random_model(7, ("energy", "dos"))


class Habits(HabitsContract):
    """Pickled copies too: how structures and calculators get to other processes."""

    def twins(self, atoms):
        return [copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))]


class TestDeepPot(Slab, Habits):
    def make_model(self, seed=0):
        return random_model(seed)

    def make_calculator(self, model, **options):
        return DeepPotCalculator(model, **options)


class TestDeepDOS(LeftHanded, Habits):
    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dos"))

    def make_calculator(self, model, **options):
        return DeepDOSCalculator(model, **options)


class TestDeepDOSOfOthersEnergy(Sheared, Habits):
    def make_model(self, seed=0):
        return random_model(seed, ("dos",))

    def make_calculator(self, model, **options):
        return DeepDOSCalculator(model, **{"potential": OF_OTHERS, **options})


class TestDeepWannier(LeftHanded, Habits):
    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dipole", "polarizability"), metadata=dict(WANNIER))

    def make_calculator(self, model, **options):
        return DeepWannierCalculator(model, **options)


class TestMLDFT(Habits):
    def make_model(self, seed=0):
        return random_ldos_model(seed)

    def make_calculator(self, model, **options):
        return MLDFTCalculator(model, **options)

    def make_atoms(self):
        return random_atoms("AlO", cell=[[2.9, 0, 0.2], [0.1, 3.1, 0], [0, 0.3, 3.3]])


class TestWannierTB(Habits):
    def make_model(self, seed=0):
        return random_wannier_model("graphene", seed, energy=True)

    def make_calculator(self, model, **options):
        return WannierTBCalculator(model, **options)

    def make_atoms(self):
        return graphene_bilayer((0.3, 0.1), noise=0.02, seed=1)


class TestCommittee(Orthorhombic, Habits):
    def make_model(self, seed=0):
        return random_model(seed, ("energy", "dos"))

    def make_calculator(self, model, **options):
        return DeepDOSCalculator([model, SECOND], **options)

    def test_parameters_are_stated(self):
        parameters = self.make_calculator(self.make_model()).parameters
        assert len(parameters["model"]) == len(set(parameters["weights"])) == 2

    def test_uncertainty_is_of_the_present_structure(self):
        atoms = self.make_atoms()
        atoms.calc = calculator = self.make_calculator(self.make_model())
        atoms.get_forces()
        assert calculator.uncertainty["forces"].shape == (len(atoms), 3)
        atoms.positions[0] += [0.1, 0, 0]
        assert calculator.uncertainty == {}
        atoms.get_forces()
        other = self.make_atoms()
        other.calc = calculator
        with pytest.raises(InputError, match="pass atoms="):
            calculator.uncertainty


def combined():
    return CombinedCalculator([DeepPotCalculator(random_model(0)), DeepDOSCalculator(random_model(1, ("dos",)))])


class TestCombined(Orthorhombic):
    """The same for several calculators as one."""

    def test_methods_answer_for_the_changed_structure(self):
        atoms = self.make_atoms()
        atoms.calc = calc = combined()
        atoms.get_forces(), calc.get_ados()
        atoms.positions[0] += [0.02, 0.01, 0.03]
        assert calc.get_fermi_level() == pytest.approx(combined().get_fermi_level(atoms=atoms), abs=1e-10)
        atoms.positions[0] += [0.02, 0.01, 0.03]
        np.testing.assert_allclose(calc.get_descriptors(), combined().get_descriptors(atoms), atol=1e-10)
        atoms.positions[0] += [0.02, 0.01, 0.03]
        assert calc.get_potential_energy() == pytest.approx(combined().get_potential_energy(atoms), abs=1e-10)

    def test_parts_asked_directly(self):
        """They were given the structure itself, not a copy that cannot change."""
        atoms = self.make_atoms()
        atoms.calc = calc = combined()
        atoms.get_forces(), calc.get_ados()
        atoms.positions[0] += [0.02, 0.01, 0.03]
        level = combined().get_fermi_level(atoms=atoms)
        assert calc.parts[1].get_fermi_level() == pytest.approx(level, abs=1e-10)
        energy = combined().get_potential_energy(atoms)
        assert calc.parts[0].get_potential_energy() == pytest.approx(energy, abs=1e-10)

    def test_shared_by_two_structures(self):
        calc, one, two = combined(), self.make_atoms(), self.make_atoms()[1:]
        one.calc = two.calc = calc
        with pytest.raises(InputError, match="shared by different structures.*pass atoms="):
            calc.get_dos()
        assert len(calc.get_dos(two)) == len(two) == len(calc.get_dos(atoms=one)) - 1

    def test_parameters(self):
        calc = combined()
        assert json.loads(json.dumps(calc.todict())) == calc.todict()
        first, second = calc.parameters["parts"]
        assert first["name"] == "deeppotcalculator" and second["weights"] == calc.parts[1].parameters["weights"]
        assert calc.set(skin=0.9) == {"skin": 0.9} and [part.skin for part in calc.parts] == [0.9, 0.9]
        with pytest.raises(CalculatorSetupError, match="got kpts; the parts can set skin, on_extrapolation"):
            calc.set(kpts=(2, 2, 1))
        assert repr(calc).startswith("CombinedCalculator([DeepPotCalculator(model=")

    def test_bands_of_the_part_that_has_them(self):
        atoms = graphene_bilayer((0.3, 0.1), noise=0.02, seed=1)
        tight = WannierTBCalculator(random_wannier_model("graphene"), kpts=(2, 2, 1))
        atoms.calc = CombinedCalculator([DeepPotCalculator(random_model(0, species=("C", "O"))), tight])
        assert bandgap(atoms.calc) == bandgap(tight)
        assert atoms.calc.get_fermi_level() == tight.get_fermi_level(atoms=atoms)
        with pytest.raises(PropertyNotImplementedError):
            bandgap(combined())

    def test_copies(self):
        atoms = self.make_atoms()
        atoms.calc = combined()
        level = atoms.calc.get_fermi_level()
        for twin in copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms)):
            assert twin.calc.get_fermi_level(atoms=twin) == level
            assert twin.calc.parts[0]._cache is twin.calc.parts[1]._cache is not atoms.calc.parts[0]._cache
            assert twin.calc.parts[0]._lock is twin.calc._lock is not atoms.calc._lock
            twin.positions[0] += [0.02, 0.01, 0.03]
            wanted = combined().get_fermi_level(atoms=twin)
            assert twin.calc.get_fermi_level() == pytest.approx(wanted, abs=1e-10) and abs(wanted - level) > 1e-6


def test_beside_a_calculator_of_ase():
    """The wrapper is what is attached; the part knows the structure that it was passed."""
    atoms, dos = Orthorhombic().make_atoms(), DeepDOSCalculator(random_model(0, ("energy", "dos")))
    atoms.calc = SumCalculator([dos, LennardJones(rc=3.0)])
    atoms.get_forces()
    atoms.positions[0] += [0.02, 0.01, 0.03]
    fresh = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    assert dos.get_fermi_level() == pytest.approx(fresh.get_fermi_level(atoms=atoms), abs=1e-10)


def test_potential_asked_directly():
    """A calculator that supplies energies to another one was given the structure itself."""
    potential, atoms = DeepPotCalculator(random_model(0)), Orthorhombic().make_atoms()
    atoms.calc = DeepDOSCalculator(random_model(1, ("dos",)), potential=potential)
    atoms.get_forces()
    atoms.positions[0] += [0.02, 0.01, 0.03]
    wanted = DeepPotCalculator(random_model(0)).get_potential_energy(atoms)
    assert potential.get_potential_energy() == pytest.approx(wanted, abs=1e-10)
    assert atoms.calc.parameters["potential"] == {"name": "deeppotcalculator", **potential.parameters}


def test_runs_and_filters():
    """Observers of a run, with a moving cell too, see the structure of their step."""
    atoms = Orthorhombic().make_atoms()
    atoms.calc = calc = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    fresh, levels = DeepDOSCalculator(random_model(0, ("energy", "dos"))), []
    run = VelocityVerlet(atoms, 0.1)
    run.attach(lambda: levels.append((calc.get_fermi_level(), fresh.get_fermi_level(atoms=atoms))))
    run.run(3)
    filtered = FrechetCellFilter(atoms)
    filtered.set_positions(filtered.get_positions() + 0.01)
    levels.append((calc.get_fermi_level(), fresh.get_fermi_level(atoms=atoms)))
    assert len({level for level, _ in levels}) == 5 and all(abs(a - b) < 1e-10 for a, b in levels)


def test_pieces_of_a_structure():
    """Slices and copies come without a calculator, and do not disturb the structure that has one."""
    atoms = Orthorhombic().make_atoms()
    atoms.calc = calc = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    atoms.get_potential_energy()
    pieces = atoms[:3], atoms.copy(), atoms * 2
    assert all(piece.calc is None for piece in pieces) and len(calc.get_dos()) == len(atoms)
    del atoms[0]
    assert len(calc.get_dos()) == len(atoms)


@pytest.mark.parametrize("suffix", ["traj", "json"])
def test_files_say_what_made_a_number(tmp_path, suffix):
    atoms = Orthorhombic().make_atoms()
    atoms.calc = DeepDOSCalculator(random_model(0, ("energy", "dos")), potential=LennardJones(rc=3.0))
    atoms.get_potential_energy()
    wanted = atoms.calc.parameters
    assert wanted["potential"]["name"] == "lennardjones" and wanted["electronic_temperature"] == 300.0
    if suffix == "traj":
        write(tmp_path / "run.traj", atoms)
        assert read(tmp_path / "run.traj").calc.parameters == wanted
    else:
        with connect(tmp_path / "structures.db") as database:
            database.write(atoms)
        assert connect(tmp_path / "structures.db").get(id=1).calculator_parameters == wanted
