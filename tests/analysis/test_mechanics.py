"""Elastic constants and energies against volume, by closed forms and potentials with known constants."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.units import GPa

from ase_mlelec.analysis import mechanics
from ase_mlelec.analysis.mechanics import (
    cubic_constants,
    elastic_constants,
    energy_volume,
    equation_of_state,
    relaxation_energy,
    relaxed,
    strained,
)
from ase_mlelec_entry_points.cli.eos import errors_of_model
from ase_mlelec_entry_points.cli.main import main

SILICON = TersoffParameters(  # Tersoff 1988, Phys. Rev. B 38, 9902
    A=1830.8, B=471.18, lambda1=2.4799, lambda2=1.7322, lambda3=1.7322, beta=1.1e-6, gamma=1.0, m=3.0, n=0.78734,
    c=1.0039e5, d=16.217, h=-0.59825, R=2.85, D=0.15,
)  # fmt: skip


@pytest.fixture(scope="module")
def neighbors_alone():
    """fcc crystal of Lennard-Jones pairs, nearest neighbors alone, at rest; the stiffness of a pair; the distance."""
    distance = 2 ** (1 / 6)
    atoms = bulk("Ar", a=distance * 2**0.5)
    atoms.calc = LennardJones(epsilon=1.0, sigma=1.0, rc=1.3 * distance)
    return atoms, 72 / 2 ** (1 / 3), distance


def test_central_forces(neighbors_alone):
    """C11 = 2 C12 = 2 C44 = sqrt(2) k / r for springs between nearest neighbors."""
    atoms, stiffness, distance = neighbors_alone
    found = elastic_constants(atoms, strain=1e-4, relax=False)
    c11, c12, c44 = cubic_constants(found)
    assert c11 == pytest.approx(2**0.5 * stiffness / distance, rel=1e-5)
    assert c12 == pytest.approx(c11 / 2, rel=1e-5) and c44 == pytest.approx(c12, rel=1e-5)
    expected = np.zeros((6, 6))
    expected[:3, :3], expected[3:, 3:] = c12, c44 * np.eye(3)
    expected[[0, 1, 2], [0, 1, 2]] = c11
    np.testing.assert_allclose(found, expected, atol=1e-4 * c11)


def test_bulk_modulus_is_that_of_the_elastic_constants(neighbors_alone):
    atoms, stiffness, distance = neighbors_alone
    found = equation_of_state(atoms, kind="birch-murnaghan-4", spread=0.03, points=9)
    assert found.bulk_modulus == pytest.approx(2**0.5 * stiffness / distance * 2 / 3, rel=1e-3)
    assert found.v0 == pytest.approx(distance**3 / 2**0.5, rel=1e-5)


def test_silicon_with_its_inner_relaxation():
    """Tersoff's potential: Balamane et al. 1992, Phys. Rev. B 46, 2250, Table IV; Mbar with two or three digits."""
    atoms = bulk("Si", a=5.432)
    atoms.calc = Tersoff({("Si", "Si", "Si"): SILICON})
    clamped = cubic_constants(elastic_constants(atoms, relax=False) / GPa)
    assert clamped == pytest.approx((142.5, 75.4, 118.8), rel=0.01)
    column = [relaxed(strained(atoms, 3, sign * 0.003)).get_stress()[3] for sign in (1, -1)]
    assert (column[0] - column[1]) / 0.006 / GPa == pytest.approx(69.0, rel=0.01)


@pytest.mark.parametrize("many", [100, 3])
def test_relaxation(many, monkeypatch):
    """With and without the matrix of all atoms."""
    monkeypatch.setattr(mechanics, "MANY", many)
    ideal = bulk("Cu", cubic=True)
    ideal.calc = EMT()
    rest = relaxed(ideal, cell=True, fmax=1e-4)
    disturbed = rest.copy()
    disturbed.set_cell(rest.cell * 1.02, scale_atoms=True)
    disturbed.rattle(0.05, seed=1)
    disturbed.calc = EMT()
    gain = (disturbed.get_potential_energy() - rest.get_potential_energy()) / 4
    assert relaxation_energy(disturbed, fmax=1e-4) == pytest.approx(gain, abs=1e-6)
    assert relaxation_energy(rest, fmax=1e-3) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="forces above 0.0001 eV/Å after 1 steps; give more"):
        relaxed(disturbed, fmax=1e-4, steps=1)


def test_volumes():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=2)
    atoms.calc = EMT()
    plain, rest = energy_volume(atoms, points=5), energy_volume(atoms, points=5, relax=True, fmax=1e-2)
    np.testing.assert_allclose(plain.volumes, atoms.get_volume() * np.linspace(0.94, 1.06, 5))
    np.testing.assert_allclose(rest.volumes, plain.volumes)
    assert (rest.energies < plain.energies - 1e-3).all()
    np.testing.assert_allclose(plain.structures[0].get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda atoms: energy_volume(Atoms("Cu", cell=[3, 3, 3])), "not periodic along three directions"),
        (lambda atoms: elastic_constants(Atoms("Cu")), "not periodic along three directions"),
        (lambda atoms: energy_volume(atoms, spread=2), "got spread=2, need more than 0 and less than 1"),
        (lambda atoms: equation_of_state(atoms, points=3), "need at least 5"),
    ],
)
def test_mistakes(call, message):
    atoms = bulk("Cu")
    atoms.calc = EMT()
    with pytest.raises(ValueError, match=message):
        call(atoms)


def test_members_without_an_equation_of_state():
    """The one of the model stands, with a warning in the place of its errors."""

    class Member(Calculator):
        def __init__(self, power):
            self.power = power

        def get_property(self, name, atoms):
            return 10 * ((atoms.get_volume() - 13.56) / 1.8) ** self.power

    volumes = np.linspace(13.2, 15, 11)
    structures = [Atoms("Cu", cell=np.eye(3) * volume ** (1 / 3), pbc=True) for volume in volumes]
    curve, posterior = SimpleNamespace(volumes=volumes, structures=structures), SimpleNamespace(scale=lambda name: 1.0)
    models = [SimpleNamespace(posteriors={"energy": posterior})]
    for powers, known in (((2, 2, 2), True), ((2, 4, 2), False)):
        calc = SimpleNamespace(models=models, members=lambda n, atoms, powers=powers: [Member(each) for each in powers])
        if known:
            np.testing.assert_allclose(errors_of_model(calc, curve, "birch-murnaghan-4"), 0, atol=1e-9)
            continue
        with pytest.warns(UserWarning, match="no errors of the model: of one of its members the energies from 13.200"):
            assert errors_of_model(calc, curve, "birch-murnaghan-4") is None


@pytest.mark.slow
def test_commands(tmp_path, capsys):
    path, table, picture = (str(tmp_path / name) for name in ("si.xyz", "si.csv", "si.png"))
    bulk("Si", a=5.40).write(path)
    assert main(["eos", "si", path, "--points", "7", "--out", table, "--plot", picture]) == 0
    out = capsys.readouterr().out
    assert "Si2: birch-murnaghan, 7 volumes" in out and "model ±" in out
    volume = next(line.split() for line in out.splitlines() if line.startswith("volume"))
    assert float(volume[1]) == pytest.approx(19.7, rel=0.01) and float(volume[3]) < 0.3
    assert np.loadtxt(table, delimiter=",", skiprows=1).shape == (7, 2) and (tmp_path / "si.png").stat().st_size > 5000
    assert main(["elastic", "si", path, "--clamped", "--out", table]) == 0
    assert "stable under strain" in capsys.readouterr().out
    constants = np.loadtxt(table, delimiter=",")
    assert constants[0, 0] == pytest.approx(constants[1, 1], rel=1e-4) and 100 < constants[0, 0] < 200
    assert main(["elastic", "si", path, "--strain", "0.5"]) == 1
    assert "need more than 0 and less than 0.1" in capsys.readouterr().err
    assert main(["eos", "graphene", path]) == 1
    assert "graphene has no energy, it has hamiltonian" in capsys.readouterr().err
