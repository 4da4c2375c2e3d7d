"""Steps of calculators on a GPU that is not there: nothing on the host is mixed in, and all waits for the GPU are known."""

import numpy as np
import pytest
from ase.build import bulk
from fake_cuda import gpu
from small_bilayers import mx2_bilayer, random_wannier_model
from small_ldos import CORE, random_ldos_model
from small_models import ENERGIES, WANNIER, random_model, randomize_nets, seeded

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator, MLDFTCalculator, WannierTBCalculator
from ase_mlelec.calculators import ldos_prediction
from ase_mlelec.descriptors import ACE
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.model import Model

HEADS = {"energy": ("energy",), "dos": ("energy", "dos"), "dipole": ("energy", "dipole", "polarizability")}
CLASSES = {
    "energy": DeepPotCalculator,
    "dos": DeepDOSCalculator,
    "dipole": DeepWannierCalculator,
    "ldos": MLDFTCalculator,
    "ldos, streamed": MLDFTCalculator,
    "hamiltonian": WannierTBCalculator,
    "linear": DeepDOSCalculator,
}
SEARCH, SIZE, CHECK, RESULT = (
    "search, on the host",
    "the size of an array",
    "a wrong input is an error",
    "final results",
)
ALLOWED = {  # (file, function): why it may wait for the GPU or copy to the host
    ("calculators/potential.py", "potential_results"): "final results",
    ("calculators/potential.py", "_sums"): "final results",
    ("calculators/evaluation.py", "_joined"): "final results",
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
    ("descriptors/compressed.py", "moments"): "whether an atom is closer than the series of the embedding reaches",
    ("nets.py", "map_by_species"): "numbers of atoms of each species are sizes of arrays",
    # density of states on a grid, and the terms of the free energy
    ("calculators/ldos_prediction.py", "<genexpr>"): CHECK,
    ("calculators/ldos_points.py", "spans"): "whether another pass over the points is needed",
    ("calculators/ldos_points.py", "spectra_near"): SIZE,
    ("calculators/ml_dft.py", "<listcomp>"): RESULT,
    ("calculators/ml_dft.py", "_differentiate"): RESULT,
    ("descriptors/bispectrum/grid.py", "grid_chunks"): SEARCH,
    ("descriptors/bispectrum/grid.py", "_chunks_of"): SEARCH,
    ("descriptors/bispectrum/grid.py", "check_grid"): CHECK,
    ("descriptors/bispectrum/grid.py", "slots"): SIZE,
    ("edges/pairs.py", "<genexpr>"): SEARCH,
    ("edges/pairs.py", "find_center_pairs"): SEARCH,
    ("physics/arrays.py", "check_finite"): CHECK,
    ("physics/dos_checks.py", "check_filling"): CHECK,
    ("physics/dos_checks.py", "check_grid"): CHECK,
    ("physics/dos_checks.py", "check_temperature"): CHECK,
    ("physics/ewald.py", "_check_distances"): CHECK,
    ("physics/ewald.py", "_close_pairs"): SIZE,
    ("physics/ewald.py", "_largest_splitting"): CHECK,
    ("physics/ewald.py", "_real_sum"): SIZE,
    ("physics/ewald.py", "_splitting"): SIZE,
    ("physics/ewald.py", "waves"): SIZE,
    ("physics/fermi.py", "<genexpr>"): "the Fermi level, a root of one spectrum, on the host",
    ("physics/fermi.py", "_hat_weights"): "which of two formulas the energies need",
    ("physics/grid.py", "_checked_shape"): SIZE,
    ("physics/grid.py", "_form_factor"): SIZE,
    ("physics/grid.py", "check_cell"): CHECK,
    ("physics/total_energy.py", "_check_ions"): CHECK,
    ("physics/total_energy.py", "_check_level"): CHECK,
    # Hamiltonians
    ("descriptors/layer_moments/descriptor.py", "<listcomp>"): SIZE,
    ("descriptors/layer_moments/descriptor.py", "_each_once"): SIZE,
    ("descriptors/layer_moments/descriptor.py", "_layers"): "the numbers of the layers",
    ("descriptors/layer_moments/descriptor.py", "forward"): SIZE,
    ("descriptors/layer_moments/frames.py", "_axes"): SEARCH,
    ("descriptors/layer_moments/frames.py", "_bonds"): SEARCH,
    ("descriptors/layer_moments/frames.py", "_layers"): SEARCH,
    ("descriptors/layer_moments/frames.py", "layer_frames"): SEARCH,
    ("descriptors/layer_moments/frames.py", "longest_bond"): SEARCH,
    ("descriptors/layer_moments/geometry.py", "<dictcomp>"): SIZE,
    ("descriptors/layer_moments/geometry.py", "groups"): SIZE,
    ("descriptors/layer_moments/geometry.py", "heights"): SIZE,
    ("descriptors/layer_moments/third_atoms.py", "_part"): SIZE,
    ("descriptors/layer_moments/third_atoms.py", "of"): SIZE,
    ("edges/edges.py", "closer_than"): SIZE,
    ("heads/base.py", "atoms"): SIZE,
    ("heads/hamiltonian/assemble.py", "<genexpr>"): RESULT,
    ("heads/hamiltonian/assemble.py", "elements"): RESULT,
    ("heads/hamiltonian/assemble.py", "unique_rows"): SIZE,
    ("heads/hamiltonian/blocks.py", "_onsite"): SIZE,
    ("heads/hamiltonian/blocks.py", "layer_shifts"): "a few numbers for each layer, summed on the host",
    ("heads/hamiltonian/hopping.py", "<genexpr>"): SIZE,
    ("heads/hamiltonian/hopping.py", "_faded"): SIZE,
    ("physics/bands.py", "eigenvalues"): RESULT,
    ("system.py", "singles"): SIZE,
}


def moving(kind):
    """Atoms of a kind of calculator, and a model for them."""
    if kind.startswith("ldos"):
        return bulk("AlO", "rocksalt", a=4.3, cubic=True), random_ldos_model(core_charges={"Al": CORE})
    if kind == "hamiltonian":
        return mx2_bilayer(), random_wannier_model(energy=True)
    atoms = bulk("SiO", "zincblende", a=4.8, cubic=True)
    return atoms, linear_model() if kind == "linear" else random_model(0, HEADS[kind], metadata=WANNIER)


def linear_model():
    """Energy that is linear in invariants of ACE, density of states that is a net of them, as closed forms fit them."""
    descriptor = ACE(("Si", "O"), inner=1.3).double()
    with seeded(0):
        heads = {
            "energy": ScalarHead(2, descriptor.n_features, ()).double(),
            "dos": SpectrumHead(2, descriptor.n_features, ENERGIES, (16,)).double(),
        }
        randomize_nets(heads["energy"].nets, -3.0, 1e-3)
        randomize_nets(heads["dos"].nets, 0.7, 1e-5)
    electrons = {"electrons_in_dos": {"Si": 4.0, "O": 6.0}, "electronic_temperature_K": 300.0}
    return Model(descriptor, heads, electrons).eval()


def steps(atoms, calc):
    """Results of two steps; of the second, the waits are told."""
    atoms.rattle(0.05, seed=1)
    atoms.calc = calc
    for seed in range(2):
        atoms.rattle(0.001, seed=seed)
        found = {name: calc.get_property(name, atoms) for name in calc.implemented_properties}
    return found


SLOW = ("ldos", "ldos, streamed", "hamiltonian", "linear")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in CLASSES]
)
def test_a_step_waits_for_the_gpu_at_known_places_only(kind, monkeypatch):
    atoms, model = moving(kind)
    if "streamed" in kind:
        monkeypatch.setattr(ldos_prediction, "MOST_COORDINATES", 0)
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
