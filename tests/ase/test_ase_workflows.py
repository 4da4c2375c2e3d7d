"""What people do with an ASE calculator: relax, run molecular dynamics, write and read, plot."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.figure import Figure
from small_models import ENERGIES, random_descriptor, randomize_nets

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.heads import Head, ScalarHead, SpectrumHead
from ase_mlelec.model import Model

try:
    from ase.md.velocitydistribution import thermalize_momenta
except ImportError:  # ASE before 3.29
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution as thermalize_momenta

CUTOFF = 6.0


class MorseHead(Head):
    """Morse pairs of aluminium, which hold a crystal together, plus a small random net of the features."""

    quantity = "energy"

    def __init__(self, n_features):
        super().__init__()
        self.net = ScalarHead(1, n_features, (12, 12))
        randomize_nets(self.net.nets, -3.0, 0.01)

    def forward(self, environment, edges):
        r = edges.vec.norm(dim=1)
        pair = 0.5 * 0.27 * ((1 - torch.exp(-1.16 * (r - 3.25))) ** 2 - 1) * switch(r, 4.5, CUTOFF)
        return self.net(environment, edges).index_add(0, edges.center, pair)


@pytest.fixture(scope="module")
def model():
    descriptor = random_descriptor(species=("Al",), cutoff=CUTOFF, smooth=2.0, sel=(50,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dos = SpectrumHead(1, descriptor.n_features, ENERGIES, (12,))
        randomize_nets(dos.nets, 0.5, 0.02)
        heads = {"energy": MorseHead(descriptor.n_features), "dos": dos}
    return Model(descriptor, heads, {"electrons_in_dos": {"Al": 3.0}, "electronic_temperature_K": 300.0}).double()


@pytest.fixture
def atoms(model):
    crystal = bulk("Al", a=4.1, cubic=True) * (2, 2, 1)
    crystal.rattle(0.05, seed=1)
    crystal.calc = DeepDOSCalculator(model)
    return crystal


def warm(atoms, temperature):
    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(0))


def test_relaxation(atoms):
    start = atoms.get_potential_energy()
    assert BFGS(atoms, logfile=None).run(fmax=0.005, steps=60)
    assert atoms.get_potential_energy() < start - 0.05
    assert np.abs(atoms.get_forces()).max() <= 0.005


def test_relaxation_of_the_cell(atoms):
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.02, 0], [0, 0.99, 0], [0, 0, 1.01]], scale_atoms=True)
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=100)
    assert np.abs(atoms.get_stress()).max() < 1e-4


def test_energy_is_conserved(atoms):
    """The error of the integrator goes with the square of the step: anything else is an error of the forces."""
    drifts = []
    for step in (4.0, 2.0):
        run = atoms.copy()
        run.calc = atoms.calc
        warm(run, 600)
        energies = []
        dyn = VelocityVerlet(run, step * units.fs)
        dyn.attach(lambda: energies.append(run.get_total_energy()))
        dyn.run(int(120 / step))
        drifts.append(np.ptp(energies))
    assert drifts[0] < 5e-3 * len(atoms)
    assert drifts[0] / drifts[1] == pytest.approx(4, rel=0.3)


def test_the_neighbor_list_is_kept_between_steps(atoms):
    warm(atoms, 300)
    VelocityVerlet(atoms, 1 * units.fs).run(20)
    assert atoms.calc._cache.n_builds <= 2


def test_langevin(atoms):
    warm(atoms, 300)
    dyn = Langevin(
        atoms, 2 * units.fs, temperature_K=600, friction=0.05 / units.fs, fixcm=False, rng=np.random.default_rng(0)
    )
    temperatures = []
    dyn.attach(lambda: temperatures.append(atoms.get_temperature()))
    dyn.run(60)
    assert 350 < np.mean(temperatures[30:]) < 900


@pytest.mark.parametrize("kind", ["berendsen", "mtk"])
def test_constant_pressure(atoms, kind):
    """A crystal under tension contracts."""
    atoms.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    warm(atoms, 300)
    before = atoms.get_volume()
    if kind == "berendsen":
        dyn = NPTBerendsen(
            atoms,
            2 * units.fs,
            temperature_K=300,
            pressure_au=0.0,
            taut=50 * units.fs,
            taup=100 * units.fs,
            compressibility_au=0.01 / units.GPa,
        )
    else:
        barostat = pytest.importorskip("ase.md.nose_hoover_chain").IsotropicMTKNPT
        dyn = barostat(
            atoms, 2 * units.fs, temperature_K=300, pressure_au=0.0, tdamp=50 * units.fs, pdamp=100 * units.fs
        )
    dyn.run(40)
    assert atoms.get_volume() < 0.97 * before
    assert np.isfinite(atoms.get_stress()).all()


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json"])
def test_trajectories_keep_the_results(atoms, tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc.get_property("fermi_level", atoms)
    write(path, atoms)
    back = read(path)
    assert back.get_potential_energy() == pytest.approx(energy, abs=1e-7)
    np.testing.assert_allclose(back.get_forces(), forces, atol=1e-7)
    np.testing.assert_allclose(back.get_stress(), stress, atol=1e-7)


def test_database_keeps_the_results(atoms, tmp_path):
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    with connect(tmp_path / "structures.db") as database:
        database.write(atoms, fermi_level_eV=atoms.calc.get_fermi_level())
    row = connect(tmp_path / "structures.db").get(id=1)
    assert row.energy == energy and row.fermi_level_eV == atoms.calc.get_fermi_level()
    np.testing.assert_array_equal(row.toatoms().get_forces(), forces)


def test_results_are_ase_outputs(atoms):
    atoms.get_forces(), atoms.get_stress()
    atoms.calc.get_property("fermi_level", atoms)
    exported = atoms.calc.export_properties()
    assert exported["natoms"] == len(atoms)
    assert {"energy", "free_energy", "energies", "forces", "stress", "stresses", "fermi_level"} <= {*exported}
    assert exported["free_energy"] == exported["energy"]


def test_dos_is_plotted_by_ase(atoms):
    ax = Figure().add_subplot()
    atoms.calc.get_dos(atoms).sum_all().plot(npts=0, ax=ax)
    (drawn,) = ax.lines
    np.testing.assert_allclose(drawn.get_ydata(), atoms.calc.get_total_dos(), atol=1e-12)
    by_atom = atoms.calc.get_dos().select(index="3")
    np.testing.assert_array_equal(by_atom[0].get_weights(), atoms.calc.get_ados()[3])
