"""Steps of calculators on a GPU that is not there: nothing on the host is mixed in, and all waits for the GPU are known.

ML-DFT and Hamiltonians are not among them: their integrals and levels make numbers that the pretended GPU cannot follow.
"""

import numpy as np
import pytest
from ase.build import bulk
from fake_cuda import gpu
from small_models import WANNIER, random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator

HEADS = {"energy": ("energy",), "dos": ("energy", "dos"), "dipole": ("energy", "dipole", "polarizability")}
CLASSES = {"energy": DeepPotCalculator, "dos": DeepDOSCalculator, "dipole": DeepWannierCalculator}
ALLOWED = {  # (file, function): why it may wait for the GPU or copy to the host
    ("calculators/potential.py", "potential_results"): "final results",
    ("calculators/potential.py", "_sums"): "final results",
    ("calculators/evaluation.py", "_member_electronic"): "final results",
    ("calculators/deep_wannier.py", "_member_electronic"): "final results",
    ("calculators/electric_field.py", "_sums"): "final results",
    ("edges/pairs.py", "find_pairs"): "search of neighbors, on the host",
    ("edges/edges.py", "_as_arrays"): "whether the list of neighbors still holds",
    ("edges/edges.py", "connect"): "the pairs within the cutoff",
    ("edges/edges.py", "_shortest"): "atoms that overlap are an error",
    ("edges/edges.py", "at_centers"): "the pairs of the atoms with a centroid",
    ("heads/vector.py", "forward"): "the atoms with a centroid, whose number is the size of an array",
    ("system.py", "n_atoms"): "sizes of structures, for the search of neighbors",
    ("descriptors/padding.py", "pad"): "the largest number of neighbors is the size of an array",
    ("descriptors/padding.py", "_places"): "whether the neighbors are sorted by species",
    ("descriptors/embedding.py", "moments"): "whether an atom is closer than the series of the embedding reaches",
    ("nets.py", "map_by_species"): "numbers of atoms of each species are sizes of arrays",
}


def moving(kind):
    """Atoms of a kind of calculator, and a model for them."""
    return bulk("SiO", "zincblende", a=4.8, cubic=True), random_model(0, HEADS[kind], metadata=WANNIER)


def steps(atoms, calc):
    """Results of two steps; of the second, the waits are told."""
    atoms.rattle(0.05, seed=1)
    atoms.calc = calc
    for seed in range(2):
        atoms.rattle(0.001, seed=seed)
        found = {name: calc.get_property(name, atoms) for name in calc.implemented_properties}
    return found


@pytest.mark.parametrize("kind", CLASSES)
def test_a_step_waits_for_the_gpu_at_known_places_only(kind, monkeypatch):
    atoms, model = moving(kind)
    wanted = steps(atoms.copy(), CLASSES[kind](model, device="cpu", on_extrapolation="ignore"))
    with gpu(monkeypatch) as mode:
        found = steps(atoms, CLASSES[kind](model, device="cuda", on_extrapolation="ignore"))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10 * max(1, np.abs(value).max()), err_msg=name)
    places = {(place, function): what for place, function, what in mode.waits}
    assert places  # the final results at least
    unknown = places.keys() - ALLOWED.keys()
    assert not unknown, "\n".join(
        f"{place}, {function}: {places[place, function]}" for place, function in sorted(unknown)
    )
