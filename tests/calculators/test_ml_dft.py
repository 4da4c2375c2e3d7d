"""MLDFTCalculator: exact derivatives, symmetries of a grid, committees, ASE's interface, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, InputError
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.outputs import all_outputs
from ase.spectrum.doscollection import GridDOSCollection
from ase.stress import voigt_6_to_full_3x3_stress
from small_ldos import CORE, ENERGIES, SPACING, TEMPERATURE, VALENCE, random_ldos_model
from small_models import random_model

from ase_mlelec import DeepPotCalculator, MLDFTCalculator, load_model
from ase_mlelec.calculators import ldos_prediction
from ase_mlelec.descriptors import bispectrum
from ase_mlelec.edges import Edges
from ase_mlelec.heads import EnergyZero, LDOSHead
from ase_mlelec.io.cube import read_cube
from ase_mlelec.model import Model
from ase_mlelec.physics import core_charge, fermi, total_energy
from ase_mlelec.safety import RepulsiveCore
from ase_mlelec.system import System
from ase_mlelec.testing import (
    CalculatorContract,
    ModelContract,
    assert_close,
    five_point,
    random_atoms,
    shifted_by_cells,
)
from ase_mlelec.units import KB


def oxide():
    """Two species without symmetry; the cell vectors are whole numbers of grid spacings, so that cells add up."""
    lengths, directions = np.array([3.6, 4.2, 4.8]), np.array([[1, 0, 0.1], [-0.2, 1, 0], [0.1, 0.2, 1]])
    cell = lengths[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return random_atoms("Al2O2", cell=cell, shortest=1.7)


def aluminium():
    """Four atoms in a distorted cell."""
    atoms = bulk("Al", cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1.03, 0.02, 0], [0.02, 0.98, 0.04], [0, 0.04, 1]], scale_atoms=True)
    atoms.rattle(0.2, seed=3)
    return atoms


def calculator(model=None, **options):
    return MLDFTCalculator(model or random_ldos_model(), **{"device": "cpu", **options})


def results(calc, atoms, names=("energy", "forces", "stress", "fermi_level")):
    return {name: np.array(calc.get_property(name, atoms)) for name in names}


class TestContract(ModelContract, CalculatorContract):
    """As every calculator, but that a grid is moved only by its own vectors, and pulls at the atoms."""

    single = 2e-4  # forces are differences of large contributions of many points
    differences = 1e-6  # atoms that cross the cutoff of a point: kinks in the second derivative
    n_steps = 2  # the list serves but to find close atoms

    def make_model(self, seed=0):
        return random_ldos_model(seed)

    def make_calculator(self, model, **options):
        return calculator(model, **options)

    def make_atoms(self):
        return oxide()

    def test_translation(self):
        """By a vector of the grid, and by cell vectors, atom by atom."""
        calc, atoms = calculator(), oxide()
        wanted, density = self.values(calc, atoms), calc.get_density()
        moved, steps = atoms.copy(), np.array([2, -3, 5])
        moved.positions += steps / calc.grid() @ atoms.cell.array
        self.assert_same(self.values(calc, moved), wanted)
        assert_close(calc.get_density(), np.roll(density, steps, (0, 1, 2)), 1e-12)
        for other in (shifted_by_cells(atoms), moved):
            other.wrap()
            self.assert_same(self.values(calc, other), wanted)

    def test_parts_sum_to_the_whole(self):
        """Forces do not add up to zero, because the grid stands still; by 1 % at this coarse spacing."""
        found = self.values(calculator(), oxide())
        assert found["free_energy"] == found["energy"]
        assert np.abs(found["forces"].sum(axis=0)).max() < 0.01 * np.abs(found["forces"]).max()

    def test_second_call_evaluates_nothing(self, passes):
        calc, atoms = calculator(), oxide()
        wanted = self.values(calc, atoms)
        first = len(passes)
        assert first == 2 * len(list(calc.models[0].descriptor.grid_chunks(System.from_atoms(atoms), calc.grid())))
        self.assert_same(self.values(calc, atoms.copy()), wanted)
        calc.get_density(), calc.get_dos(), calc.get_ldos(), calc.get_terms()
        assert len(passes) == first

    @pytest.mark.parametrize("change", ["positions", "cell", "numbers"])
    def test_changed_atoms_are_evaluated(self, change, passes):
        calc, atoms = calculator(), oxide()
        wanted, other = self.values(calc, atoms), oxide()
        if change == "positions":
            other.positions[0] += [0.01, 0, 0]
        elif change == "cell":
            other.set_cell(atoms.cell.array * 1.01)
        else:
            other.numbers[:] = np.roll(atoms.numbers, 1)
        first = len(passes)
        found = self.values(calc, other)
        assert len(passes) > first, f"{change} changed, but the old results were given"
        self.assert_same(found, self.values(calculator(), other))
        self.assert_same(self.values(calc, atoms), wanted)


@pytest.fixture
def passes(monkeypatch):
    """List that grows with every piece of a grid that is evaluated."""
    calls, of_chunk = [], bispectrum.Bispectrum.of_chunk

    def counted(*arguments):
        calls.append(None)
        return of_chunk(*arguments)

    monkeypatch.setattr(bispectrum.Bispectrum, "of_chunk", counted)
    return calls


# derivatives -------------------------------------------------------------------------------------------------------

ZERO = EnergyZero(-4.0, {"Al": 60.0, "O": -25.0})
CASES = {
    "lda_pz": (aluminium, {}, {}),
    "pbe": (oxide, {"xc": "pbe"}, {}),
    "wide net": (aluminium, {"widths": (4, 40)}, {}),
    "fixed level": (aluminium, {}, {"fermi_level": -0.7}),
    "core": (oxide, {"xc": "pbe", "core_charges": {"Al": CORE}}, {}),
    "zero": (oxide, {"zero": ZERO}, {}),
    "zero, fixed level": (aluminium, {"zero": ZERO}, {"fermi_level": -1.0}),
    "core, fixed level": (aluminium, {"xc": "lda_pw", "core_charges": {"Al": CORE}}, {"fermi_level": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_derivatives(case):
    """Forces and stress against five-point differences of A.

    Over 0.0001 Å, as atoms that cross the cutoff of a point make kinks; then 1e-7 eV/Å is rounding of 600 eV.
    """
    make, header, options = CASES[case]
    atoms = make()
    calc = calculator(random_ldos_model(1, tuple(sorted(set(atoms.get_chemical_symbols()))), **header), **options)
    forces, stress = calc.get_property("forces", atoms), calc.get_property("stress", atoms)
    assert_derivatives(calc, atoms, forces, stress, 1e-6)


def assert_derivatives(calc, atoms, forces, stress, tolerance):
    generator = np.random.default_rng(4)
    direction, strain = generator.normal(size=(len(atoms), 3)), generator.normal(size=(3, 3))
    strain = (strain + strain.T) / 2

    def displaced(step):
        moved = atoms.copy()
        moved.positions += step * direction
        return calc.get_property("energy", moved)

    def strained(step):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + step * strain), scale_atoms=True)
        return calc.get_property("energy", moved)

    assert -five_point(displaced, 5e-5) == pytest.approx((forces * direction).sum(), abs=tolerance)
    wanted = (voigt_6_to_full_3x3_stress(stress) * strain).sum() * atoms.get_volume()
    assert five_point(strained, 2e-5) == pytest.approx(wanted, abs=tolerance)


def test_derivatives_of_a_committee():
    atoms = oxide()
    calc = calculator([random_ldos_model(seed) for seed in (0, 1)])
    assert_derivatives(calc, atoms, calc.get_property("forces", atoms), calc.get_property("stress", atoms), 1e-6)


def test_core_charge_enters():
    """By its own density on the grid, through exchange and correlation alone."""
    atoms = oxide()
    without, calc = calculator(), calculator(random_ldos_model(core_charges={"Al": CORE}))
    terms, bare = calc.get_terms(atoms), without.get_terms(atoms)
    density = core_charge.density(
        {"Al": CORE}, atoms.get_chemical_symbols(), atoms.positions, atoms.cell.array, calc.grid()
    )
    wanted = total_energy.from_density(
        calc.get_density(), atoms.cell.array, atoms.positions, charges(atoms), core_density=density
    )
    for name in terms:
        if name in ("xc", "xc_potential"):
            assert terms[name] == pytest.approx(wanted[name], rel=1e-12) and abs(terms[name] - bare[name]) > 0.1
        elif name != "total":
            assert terms[name] == bare[name]


# integrals ---------------------------------------------------------------------------------------------------------


def charges(atoms):
    return np.array([VALENCE[symbol] for symbol in atoms.get_chemical_symbols()], dtype=float)


@pytest.mark.parametrize("xc, widths", [("lda_pz", (6, 6)), ("pbe", (6, 6)), ("lda_pz", (4, 40))])
def test_terms_are_those_of_the_ldos(xc, widths):
    """The whole LDOS through total_energy.from_ldos, at several electronic temperatures, from one prediction."""
    model = random_ldos_model(2, xc=xc, widths=widths)
    atoms, calc = oxide(), calculator(model, on_extrapolation="ignore")  # states above the grid are missing at 20,000 K
    ldos = calc.get_ldos(atoms)
    assert ldos.shape == (*calc.grid(), len(ENERGIES))
    for temperature in (TEMPERATURE, 300.0, 0.0, 20_000.0):
        calc.electronic_temperature = temperature
        wanted = total_energy.from_ldos(
            ldos, ENERGIES, atoms.cell.array, atoms.positions, charges(atoms), temperature, xc=xc
        )
        assert calc.get_terms(atoms) == pytest.approx(wanted, rel=1e-12)
        assert calc.terms["total"] == calc.get_property("energy", atoms) == calc.get_property("free_energy", atoms)
        assert calc.get_property("fermi_level", atoms) == calc.get_fermi_level()


def test_electrons_and_spectra():
    atoms, calc = aluminium(), calculator(random_ldos_model(0, ("Al",)))
    density, dos = calc.get_density(atoms), calc.get_dos()
    volume = atoms.get_volume()
    assert density.mean() * volume == pytest.approx(12, rel=1e-12)
    assert isinstance(dos, GridDOSCollection) and len(dos) == 1 and dos[0].info == {"label": "Al4"}
    assert np.array_equal(dos.get_energies(), ENERGIES) and np.array_equal(dos[0].get_weights(), calc.get_total_dos())
    np.testing.assert_allclose(dos[0].get_weights(), calc.get_ldos().mean(axis=(0, 1, 2)) * volume, rtol=1e-12)
    weights = fermi.integration_weights(ENERGIES, calc.get_fermi_level(), TEMPERATURE)[0]
    np.testing.assert_allclose(density, calc.get_ldos() @ weights, rtol=1e-12)


def test_ldos_is_the_head_at_the_grid_points():
    """Alternative derivation: every grid point as a center of its own, through the neighbor list."""
    atoms, model = oxide(), random_ldos_model()
    calc = calculator(model)
    found, system = calc.get_ldos(atoms), System.from_atoms(atoms)
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in calc.grid()), indexing="ij"), -1) @ atoms.cell.array
    centers = torch.as_tensor(points.reshape(-1, 3))
    with torch.no_grad():
        wanted = model(system, Edges.build(system, model.cutoff, centers=centers))["ldos"]
    assert_close(found.reshape(len(centers), -1), wanted, 1e-12)


def test_fixed_fermi_level():
    """The charge is what the level holds; at the solved level nothing changes but the derivatives."""
    atoms, free = aluminium(), calculator(random_ldos_model(0, ("Al",)))
    level = free.get_fermi_level(atoms=atoms)
    fixed = calculator(random_ldos_model(0, ("Al",)), fermi_level=level)
    assert fixed.get_terms(atoms) == pytest.approx(free.get_terms(atoms), rel=1e-12)
    assert not np.allclose(fixed.get_property("forces", atoms), free.get_property("forces", atoms), atol=1e-4)
    higher = calculator(random_ldos_model(0, ("Al",)), fermi_level=level + 0.5)
    number = fermi.integration_weights(ENERGIES, level + 0.5, TEMPERATURE)[0] @ higher.get_total_dos(atoms)
    assert higher.get_fermi_level() == level + 0.5
    assert higher.get_density().mean() * atoms.get_volume() == pytest.approx(number, rel=1e-12) and number > 12.5


def test_fermi_level_at_another_temperature():
    """That of a calculator with this temperature; a level that is held fixed stays."""
    atoms, models = aluminium(), [random_ldos_model(seed, ("Al",)) for seed in (0, 1)]
    for model in models[0], models:
        calc, hot = calculator(model), calculator(model, electronic_temperature=20000.0, on_extrapolation="ignore")
        wanted = hot.get_fermi_level(atoms=atoms)
        assert calc.get_fermi_level(20000.0, atoms=atoms) == pytest.approx(wanted, abs=1e-10)
        assert abs(calc.get_fermi_level() - wanted) > 1e-4
    assert calculator(models[0], fermi_level=1.0).get_fermi_level(300.0, atoms=atoms) == 1.0


def test_states_above_those_of_the_model_are_told():
    """As for hot electrons of atomic densities of states: once, where more than 2 meV per atom are missing."""
    atoms = aluminium()
    calc = calculator(electronic_temperature=1e3, on_extrapolation="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_terms(atoms)
    grid, total, mu = calc.energies, calc.get_total_dos(), calc.get_fermi_level(3e4)
    inside, kt = (grid >= mu) & (grid <= grid[-1]), KB * 3e4
    x = np.linspace(grid[-1], grid[-1] + 60 * kt, 20001)
    wanted = total[inside].mean() * kt * np.trapezoid(np.log1p(np.exp(-(x - mu) / kt)), x) / len(atoms)
    calc.electronic_temperature = 3e4
    message = rf"ends {grid[-1] - mu:.1f} eV above the Fermi level; at 30000 K about {wanted:.2g} eV/atom of the free"
    with pytest.warns(UserWarning, match=message):
        calc.get_terms()
    calc.electronic_temperature = 3.1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_terms()  # told once
    assert calc.extrapolations == {"electronic temperature": 2}
    with pytest.raises(CalculationFailed, match="are missing"):
        calculator(electronic_temperature=3e4, on_extrapolation="raise").get_terms(atoms)


@pytest.mark.parametrize("fixed", [False, True])
def test_zero_of_energy(fixed):
    """All energies of electrons move by the level of the cell; density and forces do not."""
    atoms, volume = oxide(), oxide().get_volume()
    level = -4.0 + 2 * (60.0 - 25.0) / volume
    plain = calculator(random_ldos_model(), fermi_level=0.5 if fixed else None)
    moved = calculator(random_ldos_model(zero=ZERO), fermi_level=0.5 + level if fixed else None)
    number = plain.get_density(atoms).mean() * volume
    wanted, found = plain.get_terms(), moved.get_terms(atoms)
    for name, value in wanted.items():
        change = {"fermi_level": level, "band": level * number, "total": level * number}.get(name, 0.0)
        assert found[name] == pytest.approx(value + change, rel=1e-12), name
    assert_close(moved.energies, plain.energies + level, 1e-13)
    assert_close(moved.relative_energies, ENERGIES, 1e-13)
    assert moved.get_energy_zero() == pytest.approx(level, rel=1e-13) and plain.get_energy_zero() == 0
    assert_close(moved.get_density(), plain.get_density(), 1e-13)
    if not fixed:
        assert_close(moved.get_property("forces", atoms), plain.get_property("forces", atoms), 1e-9)


def test_temperature_keeps_the_ldos(passes):
    """The prediction does not depend on the temperature of the electrons, everything else does."""
    atoms, calc = aluminium(), calculator(random_ldos_model(0, ("Al",)))
    cold, ldos, dos = results(calc, atoms), calc.get_ldos(), calc.get_total_dos()
    first = len(passes)
    calc.electronic_temperature = 15_000.0
    hot = calc.get_property("energy", atoms)
    assert len(passes) == first and np.array_equal(calc.get_ldos(), ldos)
    np.testing.assert_allclose(calc.get_total_dos(), dos, rtol=1e-14)
    assert abs(hot - cold["energy"]) > 0.1
    fresh = calculator(random_ldos_model(0, ("Al",)), electronic_temperature=15_000.0)
    assert_close(calc.get_property("forces", atoms), fresh.get_property("forces", atoms), 1e-12)
    calc.electronic_temperature = TEMPERATURE
    for name, value in results(calc, atoms).items():
        assert np.array_equal(value, cold[name]), name


def test_entropy_is_the_slope_of_the_band_term():
    """E_b - TS - mu N is stationary in the occupations: d(E_b - TS)/dT = -S at fixed N.  A as a whole is not: its other
    terms see the density, which moves with the temperature."""
    atoms, calc = aluminium(), calculator(random_ldos_model(0, ("Al",)))
    calc.get_ldos(atoms)

    def at(temperature):
        calc.electronic_temperature = temperature
        return calc.get_terms()

    slope = five_point(lambda step: at(TEMPERATURE + step)["band"] + at(TEMPERATURE + step)["entropy"], 20.0)
    assert slope == pytest.approx(at(TEMPERATURE)["entropy"] / TEMPERATURE, rel=1e-7)


# the grid ----------------------------------------------------------------------------------------------------------


def test_grid_keeps_the_spacing():
    calc = calculator()
    assert calc.grid(oxide()) == (6, 7, 8)
    assert calc.grid(bulk("Al")) == (5, 5, 5) and calc.grid(Atoms("Al", cell=[0.2, 6.2, 5.8], pbc=True)) == (1, 10, 10)
    assert calc.metadata["grid_spacing_A"] == SPACING


def test_chunks_do_not_matter(monkeypatch):
    """The grid is evaluated piece by piece, of any size."""
    whole, atoms = calculator(), oxide()
    wanted = results(whole, atoms)
    for name, size in (("grid.CHUNK", 50), ("descriptor.BLOCK", 7), ("grid.BRICKS_AT_ONCE", 5)):
        monkeypatch.setattr(f"{bispectrum.__name__}.{name}", size)
    parts = calculator()
    for name, value in results(parts, atoms).items():
        assert_close(value, wanted[name], 1e-12, name)  # sums in another order
    assert_close(parts.get_ldos(), whole.get_ldos(), 1e-13)


def test_symmetry_of_crystal_and_grid():
    """A perfect fcc crystal with an atom on a grid point: no forces, a cubic stress, the density of the cubic group."""
    atoms = bulk("Al", a=4.2, cubic=True)
    calc = calculator(random_ldos_model(0, ("Al",)), on_extrapolation="ignore")
    found = results(calc, atoms)
    assert calc.grid() == (7, 7, 7) and np.isfinite(found["energy"])
    assert np.abs(found["forces"][0]).max() < 1e-10  # the others lie between grid points
    density = calc.get_density()
    np.testing.assert_allclose(density, density.transpose(1, 2, 0), rtol=1e-10)
    np.testing.assert_allclose(density, np.roll(density[::-1], 1, axis=0), rtol=1e-10)
    assert_close(found["stress"], [found["stress"][0]] * 3 + [0] * 3, 1e-10)


def test_atom_on_a_grid_point():
    """It counts as an atom at a vanishing distance does: A is continuous there, and its gradient the forces."""
    atoms = oxide()
    atoms.positions -= atoms.positions[0]
    calc = calculator()
    forces, stress = calc.get_property("forces", atoms), calc.get_property("stress", atoms)
    assert np.isfinite(forces).all() and np.isfinite(stress).all()
    assert_derivatives(calc, atoms, forces, stress, 2e-4)  # the LDOS has a kink where an atom sits
    nearby = atoms.copy()
    nearby.positions[0] += 1e-7
    assert calc.get_property("energy", nearby) == pytest.approx(calc.get_property("energy", atoms), abs=1e-4)


@pytest.mark.parametrize(
    "cell",
    [[[2.0, 0, 0], [0.9, 1.9, 0], [-0.7, 0.6, 2.3]], [[0, 1.5, 1.7], [1.6, 0, 1.4], [1.5, 1.8, 0]]],
    ids=["sheared", "left-handed"],
)
def test_tiny_cells(cell):
    """Cells smaller than the cutoff and no two vectors at right angles: one cell and eight of them agree."""
    atoms = Atoms("Al", [[0.3, 0.1, 0.2]], cell=cell, pbc=True)
    calc = calculator(random_ldos_model(0, ("Al",), grid_spacing_A=0.5))
    shape = calc.grid(atoms)
    found = results(calc, atoms)
    assert np.isfinite(found["energy"])
    assert_derivatives(calc, atoms, found["forces"], found["stress"], 1e-6)
    double = atoms.repeat(2)
    if calc.grid(double) == tuple(2 * n for n in shape):
        assert calc.get_property("energy", double) == pytest.approx(8 * found["energy"], rel=1e-12)


# committees --------------------------------------------------------------------------------------------------------


def test_committee():
    """All results are means of the members, and their spread is known: of this structure, not of the one before."""
    atoms, models = oxide(), [random_ldos_model(seed) for seed in range(3)]
    members, committee = [calculator(model) for model in models], calculator(models)
    committee.get_property("forces", aluminium()), committee.get_density()
    found, spread = results(committee, atoms), committee.uncertainty

    def electrons(calc):
        return calc.get_terms() | {"dos": calc.get_total_dos(), "density": calc.get_density()}

    each = [results(member, atoms) | electrons(member) for member in members]
    found |= electrons(committee)
    assert {*found, "free_energy"} == {*spread, "total"}
    for name in found:
        values = np.array([member[name] for member in each])
        assert_close(found[name], values.mean(axis=0), 1e-12, name)
        assert_close(spread["energy" if name == "total" else name], values.std(axis=0), 1e-9, name)
    assert_close(committee.get_ldos(), np.mean([member.get_ldos() for member in members], axis=0), 1e-12)


OTHERS = {
    "fingerprints": dict(cutoff=3.3),
    "xc": dict(xc="pbe"),
    "valence_electrons": dict(valence_electrons={"Al": 3, "O": 5}),
    "grid_spacing_A": dict(grid_spacing_A=0.5),
    "core_charges": dict(core_charges={"Al": CORE}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_committee_that_does_not_fit(what):
    refused(
        CalculatorSetupError,
        f"committee have different {what}",
        "train them on one kind of data",
        lambda: calculator([random_ldos_model(), random_ldos_model(1, **OTHERS[what])]),
    )


def test_committee_of_other_zeros():
    refused(
        CalculatorSetupError,
        "committee have different zeros of energy",
        "train them on one kind of data",
        lambda: calculator([random_ldos_model(), random_ldos_model(1, zero=ZERO)]),
    )


def test_committee_of_other_energies():
    other = random_ldos_model(1)
    other.heads["ldos"].energies += 0.1
    refused(
        CalculatorSetupError,
        "committee have different energy grids",
        "train them on one kind of data",
        lambda: calculator([random_ldos_model(), other]),
    )


# ASE ---------------------------------------------------------------------------------------------------------------


def test_results_and_files(tmp_path):
    """Results go through export_properties, trajectories and extxyz, and hold ASE's names only."""
    atoms, calc = aluminium(), calculator(random_ldos_model(0, ("Al",)))
    atoms.calc = calc
    wanted = results(calc, atoms)
    calc.get_density(), calc.get_terms()
    assert set(calc.results) <= set(all_outputs)
    assert {"energy", "free_energy", "forces", "stress", "fermi_level"} == set(calc.implemented_properties)
    assert dict(calc.export_properties())["energy"] == wanted["energy"]
    for name in "a.traj", "a.extxyz":
        write(tmp_path / name, atoms)
        stored = read(tmp_path / name)
        assert stored.get_potential_energy() == pytest.approx(wanted["energy"], abs=1e-6)
        np.testing.assert_allclose(stored.get_forces(), wanted["forces"], atol=1e-7)
        np.testing.assert_allclose(stored.get_stress(), wanted["stress"], atol=1e-7)


def test_density_file(tmp_path):
    atoms, calc = oxide(), calculator()
    calc.write_density(tmp_path / "n.cube", atoms=atoms)
    stored, density = read_cube(tmp_path / "n.cube")
    np.testing.assert_allclose(density, calc.get_density(), rtol=1e-5)
    np.testing.assert_allclose(stored.cell, atoms.cell, atol=1e-4)
    assert stored.get_chemical_symbols() == atoms.get_chemical_symbols()


def test_potential_from_elsewhere():
    """Energy and forces of the other calculator; the electrons are the model's own."""
    atoms = aluminium()
    atoms.calc = calculator(random_ldos_model(0, ("Al",)), potential=EMT())
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    level, density = atoms.calc.get_fermi_level(), atoms.calc.get_density()
    own, wanted = calculator(random_ldos_model(0, ("Al",))), atoms.copy()
    wanted.calc = EMT()
    np.testing.assert_allclose(forces, wanted.get_forces())
    assert energy == wanted.get_potential_energy()
    assert level == own.get_fermi_level(atoms=atoms) and np.array_equal(density, own.get_density())
    deep = DeepPotCalculator(random_model(0, species=("Al", "O")), device="cpu")
    both = calculator(potential=deep)
    assert both.get_property("energy", oxide()) == deep.get_property("energy", oxide())


@pytest.fixture(scope="module")
def repulsive():
    """A model whose band energy rises by far more than Ewald's energy falls when atoms come close: a stiff solid."""
    return random_ldos_model(5, ("Al",), valence_electrons={"Al": 0.5})


@pytest.mark.slow
def test_relaxation_of_atoms_and_cell(repulsive):
    """The optimizer sees a consistent surface: the energy falls, and forces and stress with it."""
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.02, seed=1)
    atoms.calc = calculator(repulsive, on_extrapolation="ignore")
    start, force = atoms.get_potential_energy(), None
    optimizer = BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.01)
    force = np.abs(optimizer.optimizable.get_gradient()).max()
    optimizer.run(fmax=1e-3, steps=8)
    assert atoms.get_potential_energy() < start and force > 0
    assert atoms.calc.get_density().shape == atoms.calc.grid()


@pytest.mark.slow
def test_molecular_dynamics_conserves_the_energy(repulsive):
    atoms = bulk("Al", cubic=True)
    atoms.set_velocities(np.random.default_rng(0).normal(0, 0.03, (4, 3)))
    atoms.calc = calculator(repulsive, on_extrapolation="ignore")
    total, potential = [], []
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    dynamics.attach(lambda: (total.append(atoms.get_total_energy()), potential.append(atoms.get_potential_energy())))
    dynamics.run(15)
    assert np.ptp(total) < 0.02 * np.ptp(potential)


def test_model_file(tmp_path):
    """Saved and loaded: the same numbers to the last digit, core charge and precision included."""
    for dtype in (torch.float64, torch.float32):
        model, atoms = random_ldos_model(core_charges={"Al": CORE}, dtype=dtype), oxide()
        model.save(tmp_path / "m.safetensors")
        again = load_model(tmp_path / "m.safetensors")
        assert isinstance(again.heads["ldos"], LDOSHead) and again.metadata == model.metadata and again.dtype == dtype
        wanted = results(calculator(model), atoms)
        for name, value in results(calculator(tmp_path / "m.safetensors"), atoms).items():
            assert np.array_equal(value, wanted[name]), name


# what is refused ---------------------------------------------------------------------------------------------------


def refused(error, cause, remedy, function):
    with pytest.raises(error, match=f"{cause}.*{remedy}") as caught:
        function()
    assert "\n" not in str(caught.value)


def without(key):
    model = random_ldos_model()
    del model.metadata[key]
    return model


@pytest.mark.parametrize("key", ["valence_electrons", "grid_spacing_A", "xc"])
def test_incomplete_header(key):
    refused(
        CalculatorSetupError,
        f"no '{key}'",
        "train with it in the attributes of the data",
        lambda: calculator(without(key)),
    )


def test_missing_valence_charge():
    refused(
        CalculatorSetupError,
        "no valence charge of O",
        "add it to valence_electrons",
        lambda: calculator(random_ldos_model(valence_electrons={"Al": 3})),
    )


def test_no_electronic_temperature():
    refused(
        CalculatorSetupError,
        "no electronic temperature",
        "choose one with electronic_temperature=",
        lambda: calculator(without("electronic_temperature_K")),
    )
    assert calculator(without("electronic_temperature_K"), electronic_temperature=500).electronic_temperature == 500


@pytest.mark.parametrize("temperature", [-1, np.nan, np.inf])
def test_impossible_temperature(temperature):
    refused(
        CalculatorSetupError,
        f"got electronic_temperature={temperature} K",
        "give 0 or more",
        lambda: calculator(electronic_temperature=temperature),
    )


def test_model_of_something_else():
    refused(
        CalculatorSetupError,
        "MLDFTCalculator needs a model with 'ldos', this one has energy",
        "load another",
        lambda: calculator(random_model()),
    )


@pytest.mark.parametrize("change", ["no cell", "slab", "flat"])
def test_structures_without_a_grid(change):
    atoms = oxide()
    if change == "no cell":
        atoms.cell = None
    elif change == "slab":
        atoms.pbc = [True, True, False]
    else:
        atoms.cell[2] = 0
    for ask in ("get_density", "get_terms", "get_ldos"):
        refused(
            (InputError, CalculationFailed),
            "got a cell of rank",
            r"set them with atoms.set_cell\(...\)",
            lambda: getattr(calculator(), ask)(atoms),
        )


def test_unknown_species():
    atoms = oxide()
    atoms.symbols[0] = "Mg"
    refused(
        InputError,
        "got species Mg; the model knows Al, O",
        "train a model",
        lambda: calculator().get_property("energy", atoms),
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite(value):
    atoms = oxide()
    atoms.positions[1, 2] = value
    with pytest.raises(InputError, match="positions of atom 1 are NaN or infinite; check") as caught:
        calculator().get_property("forces", atoms)
    assert "\n" not in str(caught.value)


def test_atoms_on_top_of_each_other():
    atoms = oxide()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(InputError) as caught:
        calculator().get_property("energy", atoms)
    assert "\n" not in str(caught.value)


def test_more_electrons_than_the_dos_holds():
    """One-line error, and the calculator is as good as new afterwards."""
    calc = calculator(random_ldos_model(valence_electrons={"Al": 300, "O": 6}))
    refused(
        CalculationFailed,
        "n_electrons: got 612, need 0 to",
        "widen the energy grid",
        lambda: calc.get_property("energy", oxide()),
    )


@pytest.mark.parametrize("level", [-20.0, 9.5, np.nan])
def test_level_outside_of_the_grid(level):
    refused(
        CalculationFailed,
        "energies: got a grid from -6 to 9 eV|mu: got",
        "extend the grid|check",
        lambda: calculator(fermi_level=level).get_property("energy", oxide()),
    )


def test_close_atoms():
    """As every calculator warns of atoms that are closer than any in the training data."""
    calc = calculator(random_ldos_model(shortest_distance_A=3.0), on_extrapolation="raise")
    refused(CalculationFailed, "atoms are 1.* Å apart", "check the run, or train", lambda: calc.get_terms(oxide()))


def close_oxide(distance):
    """One oxygen at a distance from an aluminium."""
    atoms = oxide()
    vec = atoms.get_distance(0, 2, mic=True, vector=True)
    atoms.positions[2] = atoms.positions[0] + vec * distance / np.linalg.norm(vec)
    return atoms


def with_core(committee=1):
    models = [random_ldos_model(seed) for seed in range(committee)]
    for model in models:
        model.core = RepulsiveCore.below(("Al", "O"), {("Al", "O"): 1.8, ("Al", "Al"): 1.5, ("O", "O"): 1.5})
    return calculator(models if committee > 1 else models[0], on_extrapolation="ignore")


@pytest.mark.parametrize("distance", [0.9, 1.4])
@pytest.mark.parametrize("committee", [1, 2])
def test_forces_and_stress_within_the_core(distance, committee):
    """Close pairs repel, and the LDOS is that of atoms held apart: exact derivatives of both together."""
    calc, atoms, h = with_core(committee), close_oxide(distance), 1e-4
    assert calc.get_terms(atoms=atoms)["repulsion"] > 1
    direction = np.random.default_rng(0).normal(size=(4, 3))
    strain = np.array([[1, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.4]])

    def energy(x, e):
        moved = atoms.copy()
        moved.positions += x * direction
        moved.set_cell(moved.cell.array @ (np.eye(3) + e * strain), scale_atoms=True)
        return calc.get_property("energy", moved)

    forces, stress = (calc.get_property(name, atoms) for name in ("forces", "stress"))
    slope = (energy(h, 0) - energy(-h, 0)) / (2 * h)
    assert -(forces * direction).sum() == pytest.approx(slope, rel=1e-5)
    slope = (energy(0, h) - energy(0, -h)) / (2 * h) / atoms.get_volume()
    assert stress @ [1, -0.5, 0.4, 0.4, 0, 0.6] == pytest.approx(slope, rel=1e-5)


def test_beyond_the_core_nothing_changes():
    calc, bare, atoms = with_core(), calculator(on_extrapolation="ignore"), close_oxide(1.75)
    for name in ("energy", "forces", "stress"):
        np.testing.assert_array_equal(calc.get_property(name, atoms), bare.get_property(name, atoms))
    assert "repulsion" not in calc.get_terms(atoms=atoms)


def test_pairs_repel_down_to_contact():
    calc = with_core()
    assert (np.diff([calc.get_property("energy", close_oxide(r)) for r in np.arange(1.2, 0.09, -0.1)]) > 0).all()


def test_ldos_that_is_not_finite():
    model = random_ldos_model()
    with torch.no_grad():
        model.heads["ldos"].last.bias[3] = torch.nan
    refused(
        CalculationFailed,
        "an LDOS that is not finite",
        "check structure and model",
        lambda: calculator(model).get_property("energy", oxide()),
    )


def test_no_structure_yet():
    for ask in ("get_density", "get_ldos", "get_terms", "get_dos"):
        refused(InputError, "no structure yet", "pass atoms= or", getattr(calculator(), ask))


def test_model_is_made_of_parts():
    """What a stranger may put together: descriptor and head of their own arguments."""
    head = LDOSHead(30, ENERGIES, (4,), "leaky_relu")
    model = Model(bispectrum.Bispectrum(["Al"], 6).double(), {"ldos": head.double()})
    refused(CalculatorSetupError, "no 'valence_electrons'", "train with it", lambda: calculator(model))
    refused(
        ValueError,
        "activation: got 'relu'",
        "need one of silu, leaky_relu",
        lambda: LDOSHead(30, ENERGIES, (4,), "relu"),
    )


# precision ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    """The shipped model of aluminium in its own precision, on a coarser grid: noise of fewer points averages less."""
    model = load_model("al")
    model.metadata["grid_spacing_A"] = 0.7
    return MLDFTCalculator(model, device="cpu", electronic_temperature=933.0, on_extrapolation="ignore")


def along(calc, atoms, steps, atom, axis):
    """Energies with one atom moved by steps, Å."""

    def moved(step):
        other = atoms.copy()
        other.positions[atom, axis] += step
        return other

    return np.array([calc.get_property("energy", moved(step)) for step in steps])


@pytest.mark.parametrize("atom, axis", [(0, 0), (2, 1)])
def test_energy_of_single_precision_is_smooth(shipped, atom, axis):
    """A quartic polynomial fits the energies in steps of 1e-3 Å to 1e-7 eV."""
    assert shipped.dtype == torch.float32
    steps = np.arange(-5, 6) * 1e-3
    energies = along(shipped, aluminium(), steps, atom, axis)
    energies -= energies.mean()
    fit = np.polynomial.Polynomial.fit(steps, energies, 4)
    assert np.abs(fit(steps) - energies).max() < 1e-7 and np.ptp(energies) > 5e-4


@pytest.mark.parametrize("step", [1e-3, 3e-4])
def test_difference_quotients_of_single_precision(shipped, step):
    atoms = aluminium()
    forces = shipped.get_property("forces", atoms)
    for atom, axis in (0, 0), (3, 2):
        low, high = along(shipped, atoms, (-step, step), atom, axis)
        assert (low - high) / (2 * step) == pytest.approx(forces[atom, axis], abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fingerprints_that_are_not_kept(monkeypatch, dtype):
    """Grids too large to keep them have the same forces and stress, from a second evaluation."""
    models = [random_ldos_model(seed) for seed in range(2)]
    wanted = results(calculator(models, dtype=dtype), oxide(), ("forces", "stress"))
    monkeypatch.setattr(ldos_prediction, "KEPT", 0)
    calc = calculator(models, dtype=dtype)
    for name, value in results(calc, oxide(), ("forces", "stress")).items():
        assert_close(value, wanted[name], {"float32": 1e-4, "float64": 1e-12}[dtype], name)
    assert not calc._extra["features"]
