"""Every conversion factor twice: from ASE's CODATA 2018 tables and from the constants they are made of (SciPy)."""

import ase.units
import pytest
import scipy.constants as si

from ase_mlelec import units

CODATA = ase.units.create_units("2018")
HARTREE = 2 * si.Rydberg * si.h * si.c / si.e
BOHR = si.fine_structure / (4 * si.pi * si.Rydberg) * 1e10


@pytest.mark.parametrize(
    "name, of_ase, of_si",
    [
        ("HARTREE", CODATA["Hartree"], HARTREE),
        ("RYDBERG", CODATA["Rydberg"], HARTREE / 2),
        ("BOHR", CODATA["Bohr"], BOHR),
        ("KB", CODATA["kB"], si.k / si.e),
        ("GPA", CODATA["GPa"], 1e9 * si.angstrom**3 / si.e),
        ("COULOMB", CODATA["Hartree"] * CODATA["Bohr"], 1e10 * si.e / (4 * si.pi * si.epsilon_0)),
        ("CM", CODATA["m"] / 100, 0.01 / si.angstrom),
        ("SPEED_OF_LIGHT", CODATA["_c"] * CODATA["m"] / 1e15, si.c / si.angstrom * si.femto),
        ("PLANCK", CODATA["_hplanck"] / CODATA["_e"] * 1e15, si.h / si.e / si.femto),
        ("SIEMENS_PER_METRE", CODATA["C"] ** 2 / CODATA["J"] / 1e15 / CODATA["m"], 1 / (si.e / si.femto / si.angstrom)),
        ("KJ_PER_MOL", CODATA["kJ"] / CODATA["mol"], 1e3 / (si.N_A * si.e)),
        ("KCAL_PER_MOL", CODATA["kcal"] / CODATA["mol"], 1e3 * si.calorie / (si.N_A * si.e)),
        ("DEBYE", CODATA["Debye"], 1e-21 / si.c / (si.e * si.angstrom)),
        ("WATT_PER_M3_K", CODATA["J"] / 1e15 / CODATA["m"] ** 3, si.angstrom**3 * si.femto / si.e),
        ("HARTREE_PER_BOHR", CODATA["Hartree"] / CODATA["Bohr"], HARTREE / BOHR),
        ("HARTREE_PER_BOHR3", CODATA["Hartree"] / CODATA["Bohr"] ** 3, HARTREE / BOHR**3),
    ],
)
def test_factor(name, of_ase, of_si):
    value = getattr(units, name)
    exact = name in (
        "KB",
        "GPA",
        "CM",
        "SPEED_OF_LIGHT",
        "PLANCK",
        "SIEMENS_PER_METRE",
        "DEBYE",
        "WATT_PER_M3_K",
    )  # by definition of the SI
    # ASE derives atomic units from rounded constants: 8e-12 in Hartree, 6e-12 in Bohr
    assert value == pytest.approx(of_ase, rel=1e-15 if exact else 3e-11)
    # SciPy carries CODATA 2018 or 2022: they differ by 7e-10 in Bohr (the fine-structure constant)
    assert value == pytest.approx(of_si, rel=1e-15 if exact else 3e-9)


def test_all_factors_are_tested():
    tested = {mark.args[1][k][0] for mark in test_factor.pytestmark for k in range(len(mark.args[1]))}
    assert tested == {name for name in vars(units) if name.isupper()}


def test_consistent_with_each_other():
    assert units.RYDBERG * 2 == units.HARTREE
    assert units.HARTREE_PER_BOHR3 * units.BOHR**2 == pytest.approx(units.HARTREE_PER_BOHR, rel=1e-15)
