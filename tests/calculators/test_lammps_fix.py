"""Calculators in LAMMPS itself: forces, pressure and dynamics as in ASE."""

import numpy as np
import pytest
from ase import units
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from peers import create_lammps_atoms, lammps_atoms, lammps_run
from small_models import random_model

from ase_mlelec import DeepPotCalculator
from ase_mlelec.calculators.lammps_fix import use_in_lammps
from ase_mlelec.testing import random_atoms

pytestmark = pytest.mark.peer


def structure():
    return random_atoms("Si4O8", [[6.0, 0, 0], [0.7, 6.4, 0], [0.3, -0.5, 6.2]], shortest=1.5)


def test_dynamics():
    atoms, run = structure(), lammps_run()
    create_lammps_atoms(run, atoms, ["Si", "O"])
    calc = DeepPotCalculator(random_model())
    use_in_lammps(run, calc, ["Si", "O"])
    run.commands_string("mass 1 28.085\nmass 2 15.999\nfix 1 all nve\ntimestep 0.001\nrun 0")
    atoms.calc = DeepPotCalculator(random_model())
    assert run.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    pressure = [run.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    np.testing.assert_allclose(-np.array(pressure) * units.bar, atoms.get_stress(), atol=1e-7)
    order = np.argsort(run.numpy.extract_atom("id")[: len(atoms)])
    np.testing.assert_allclose(run.numpy.extract_atom("f")[: len(atoms)][order], atoms.get_forces(), atol=1e-9)
    before = atoms.positions.copy()
    VelocityVerlet(atoms, timestep=1 * units.fs).run(10)
    run.command("run 10")
    assert np.abs(atoms.positions - before).max() > 1e-3
    assert run.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-5)  # constants of either program
    run.close()


def test_refused():
    run = lammps_run()
    create_lammps_atoms(run, structure(), ["Si", "O"])
    with pytest.raises(ValueError, match="species: got 1 symbols for 2 types"):
        use_in_lammps(run, LennardJones(), ["Si"])
    run.command("clear")
    with pytest.raises(ValueError, match="got LAMMPS' units lj, need metal"):
        use_in_lammps(run, LennardJones(), ["Si"])
    run.close()


def test_lennard_jones_of_both():
    """A potential that LAMMPS has itself."""
    atoms = random_atoms("Ar16", [[9.0, 0, 0], [0.7, 9.4, 0], [0.3, -0.5, 9.2]], shortest=2.8)
    calc = LennardJones(epsilon=0.01, sigma=3.0, rc=6.0)
    own = "pair_style lj/cut 6.0\npair_coeff 1 1 0.01 3.0\npair_modify shift yes"
    energy, forces, stress = lammps_atoms(atoms, ["Ar"], own)
    run = lammps_run()
    create_lammps_atoms(run, atoms, ["Ar"])
    use_in_lammps(run, calc, ["Ar"])
    run.command("run 0")
    assert run.get_thermo("pe") == pytest.approx(energy, abs=1e-9)
    pressure = [run.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    np.testing.assert_allclose(-np.array(pressure) * units.bar, stress, atol=1e-9)
    order = np.argsort(run.numpy.extract_atom("id")[: len(atoms)])
    np.testing.assert_allclose(run.numpy.extract_atom("f")[: len(atoms)][order], forces, atol=1e-9)
    run.close()
