import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.neighborlist import neighbor_list
from small_survey import clean, trajectory

from ase_mlelec.survey.neighbors import neighbor_distances
from ase_mlelec.survey.structures import duplicates, survey_structures

CELLS = {
    "primitive": bulk("Si"),
    "skewed": Atoms(
        "CuOH", [[0.1, 5, -3], [7, 0.2, 1], [2, 2, 2]], cell=[[4, 0, 0], [3.5, 4, 0], [-3, 1, 5]], pbc=True
    ),
    "layer": graphene(vacuum=4),
    "wire": Atoms("HO", [[0, 0, 0], [0.9, 0, 8]], cell=[0, 0, 9], pbc=[False, False, True]),
    "molecule": molecule("CH3CH2OH"),
    "mixed": Atoms("Na4", [[0, 0, 0], [1, 9, 1], [0, 3, -20], [4, 4, 4]], cell=[5, 6, 7], pbc=[True, False, True]),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("cutoff", [2.0, 6.0])
def test_neighbors_are_those_of_ase(name, cutoff):
    """The same pairs at the same distances as ASE's neighbor list, which knows no boxes of images."""
    atoms = CELLS[name]
    expected = sorted(zip(*neighbor_list("ijd", atoms, cutoff), strict=True))
    found = sorted(zip(*neighbor_distances(atoms, cutoff), strict=True))
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in expected], atol=1e-9)


def test_no_atoms_have_no_neighbors():
    assert not len(neighbor_distances(Atoms())[0])


def test_what_structures_are():
    images = [bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=5.0), molecule("HCl")]
    found = survey_structures(images)
    assert found.species == ["Cl", "H", "Na"] and found.formulas == {"ClNa": 2, "HCl": 1}
    assert found.nearest[("Na", "Cl")] == pytest.approx((2.5, 1)) and ("H", "Na") not in found.nearest
    assert found.nearest[("Cl", "Cl")] == pytest.approx((5.0 / 2**0.5, 1))
    assert found.shortest[:2] == pytest.approx([2.8, 2.5]) and found.periodic == 2
    assert found.volume == pytest.approx((5.6**3 + 5.0**3) / 16)
    # points of the simple cubic lattice of spacing a/2 within 6 Å
    squares = [i * i + j * j + k * k for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)]
    counts = [sum(0 < square <= (12 / a) ** 2 for square in squares) for a in (5.6, 5.0)]
    assert found.neighbors == pytest.approx((2 * sum(counts) + 2 * 1) / 6)


def test_isolated_atoms():
    alone, wide, far = Atoms("Na"), Atoms("Cl", cell=[15, 15, 15], pbc=True), Atoms("Na2", [[0, 0, 0], [0, 0, 9]])
    found = survey_structures([bulk("Na"), alone, wide, far])
    assert found.isolated == [1, 2] and found.detached == [3]
    assert not survey_structures([bulk("Na"), molecule("NaCl")]).isolated


def test_duplicates():
    images = [frame.atoms for frame in clean(6)]
    assert duplicates(images) == []
    again = images[2].copy()
    again.positions += 1e-9
    assert duplicates([*images, again]) == [(2, 6)]
    again.positions[0, 0] += 1e-3
    assert duplicates([*images, again]) == []


def test_trajectories():
    steps, others = ([frame.atoms for frame in frames] for frames in (trajectory(12), clean(12)))
    for atoms in others:
        atoms.symbols = "Ni8"
    assert survey_structures(others + steps).trajectories == [range(12, 24)]
    assert survey_structures(others).trajectories == []
