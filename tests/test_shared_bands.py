"""Processes of torchrun share the k-points of bands and sums, with the results of one process."""

import numpy as np
import pytest
from small_bilayers import graphene_bilayer, graphene_frame
from small_lattices import graphene, random_model, supercell
from torchrun import together

from ase_mlelec import WannierHamiltonian, processes
from ase_mlelec.bands import interior
from ase_mlelec.bands.members import changes_of_bands, changes_of_levels
from ase_mlelec.physics import bands
from ase_mlelec.testing import assert_close

KPTS = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 3))
MESH = (5, 4, 1)


def of_all_kinds():
    """Every quantity of a Hamiltonian that is evaluated k-point by k-point."""
    cell, r_vectors, matrices = random_model(np.random.default_rng(0))
    positions = np.random.default_rng(2).normal(0, 0.1, (*matrices.shape, 3))
    found = WannierHamiltonian(cell, r_vectors, matrices, positions=positions)
    member = WannierHamiltonian(cell, r_vectors, 1.01 * matrices)
    energies, weights = found.projections(KPTS, groups=[[0, 1], [4]])
    grid, level = np.linspace(-9, 9, 50), 0.3
    return {
        "eigenvalues": found.eigenvalues(KPTS),
        "one point": found.eigenvalues(KPTS[:1]),
        "no point": found.eigenvalues(KPTS[:0]),
        "energies": energies,
        "weights": weights,
        "velocities": found.velocities(KPTS),
        "path": found.band_structure("GX", npoints=7).energies,
        "Fermi level": np.array(found.fermi_level(4, MESH, 300.0)),
        "dos": found.dos(grid, kmesh=MESH, width=0.5),
        "joint dos": found.joint_dos(abs(grid), fermi_level=level, kmesh=MESH, temperature=2000.0),
        "conductivity": found.conductivity(level, kmesh=MESH, temperature=2000.0, relaxation_time=10.0),
        "curvature": found.berry_curvature(KPTS),
        "Hall": found.hall_conductivity(level, kmesh=MESH, temperature=2000.0),
        "changes": np.concatenate([part.ravel() for part in changes_of_levels(found, [member, member], KPTS)]),
        "chosen changes": changes_of_bands(found, [member], KPTS, energies[:, 1:3]),
    }


def by_factorization():
    """Bands of a crystal that are found by factorization, around an energy and within windows."""
    former, interior.DENSE_SIZE = interior.DENSE_SIZE, 10
    cell, r_vectors, matrices = supercell(*graphene(mass=0.2), (3, 3, 1))
    matrices[r_vectors.tolist().index([0, 0, 0])] += np.diag(0.4 * np.random.default_rng(0).normal(size=18))
    hamiltonian = WannierHamiltonian(cell, r_vectors, matrices)
    found = {"around": hamiltonian.eigenvalues(KPTS, n_bands=4, window=(-0.3, 0.2))}
    found |= {"within": np.nan_to_num(hamiltonian.eigenvalues(KPTS, window=(-3.0, 1.0)), nan=99.0)}
    interior.DENSE_SIZE = former
    return found


@pytest.mark.slow
@pytest.mark.parametrize("function, n", [(of_all_kinds, 2), (of_all_kinds, 3), (by_factorization, 2)])
def test_results_of_one_process(function, n):
    wanted = function()
    assert wanted.get("no point", np.empty((0, 5))).shape == (0, 5)
    for found in together(function, n=n):
        for name, value in wanted.items():
            assert found[name].shape == value.shape
            if value.size:
                # levels by factorization are accurate to 1e-8 eV; derivatives divide by differences of levels
                assert_close(found[name], value, 1e-8 if function is by_factorization else 1e-11, name)


def counted():
    """Numbers of k-points of which a process found the eigenvalues: of a mesh, and of a structure of its own."""
    solved, of_bands = [], bands.eigenvalues

    def counting(bloch, kpts, *options, **named):
        solved.append(len(kpts))
        return of_bands(bloch, kpts, *options, **named)

    bands.eigenvalues = counting
    hamiltonian = graphene_frame(graphene_bilayer()).hamiltonian
    hamiltonian.fermi_level(4, (3, 3, 1), 300.0)
    with processes.alone():
        hamiltonian.fermi_level(4, (3, 3, 1), 300.0)
    assert processes.world() == 2
    return solved


@pytest.mark.slow
def test_each_process_solves_its_points_alone():
    assert together(counted) == [[3, 5], [2, 5]]
