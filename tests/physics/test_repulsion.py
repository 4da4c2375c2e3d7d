"""The universal repulsion: Coulomb's law at contact, its screening function, LAMMPS's forces."""

import numpy as np
import pytest
import torch
from peers import lammps_run
from scipy.differentiate import derivative

from ase_mlelec.physics.repulsion import zbl
from ase_mlelec.units import COULOMB

PAIRS = [(1, 1), (8, 8), (1, 8), (14, 14), (42, 16), (79, 79)]


def energy(r, pair):
    r = torch.as_tensor(np.asarray(r, dtype=float))
    return zbl(r, *(torch.full_like(r, z) for z in pair)).numpy()


@pytest.mark.parametrize("pair", PAIRS)
def test_bare_nuclei_at_contact(pair):
    """The screening function is 1 at 0 (its printed coefficients add up to 1.00000)."""
    r = 1e-9
    assert energy(r, pair) * r == pytest.approx(COULOMB * pair[0] * pair[1], rel=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_falls_with_the_distance_and_does_not_know_which_is_first(pair):
    r = np.linspace(0.05, 6, 500)
    values = energy(r, pair)
    assert (values > 0).all() and (np.diff(values) < 0).all()
    assert np.array_equal(values, energy(r, pair[::-1]))


def test_screening_of_silicon_by_hand():
    """phi(x) at x = 5 from the four printed terms, one by one."""
    a = 0.46850 / (2 * 14**0.23)
    phi = 0.18175 * np.exp(-15.999) + 0.50986 * np.exp(-4.71145) + 0.28022 * np.exp(-2.0145) + 0.02817 * np.exp(-1.0081)
    assert energy(5 * a, (14, 14)) == pytest.approx(14.399645 * 14**2 / (5 * a) * phi, rel=1e-6)


@pytest.mark.peer
@pytest.mark.parametrize("pair", PAIRS)
def test_forces_of_lammps(pair):
    """Its energy is shifted by a constant within its inner cutoff; the force is not."""
    run = lammps_run()
    run.commands_string(f"""
        units metal
        boundary f f f
        atom_modify map array
        region box block -20 20 -20 20 -20 20
        create_box 2 box
        create_atoms 1 single 0 0 0
        create_atoms 2 single 1 0 0
        mass * 1.0
        pair_style zbl 4.0 5.0
        pair_coeff 1 1 {pair[0]} {pair[0]}
        pair_coeff 2 2 {pair[1]} {pair[1]}
        pair_coeff 1 2 {pair[0]} {pair[1]}
        run 0""")
    for r in (0.1, 0.5, 1.0, 2.0, 3.0):
        run.commands_string(f"set atom 2 x {r}\nrun 0")
        theirs = run.numpy.extract_atom("f")[1, 0]
        ours = -derivative(lambda x: energy(x, pair), r, initial_step=0.02 * r).df
        assert ours == pytest.approx(theirs, rel=2e-5), r  # their e^2/(4 pi eps0) has 7 digits
    run.close()
