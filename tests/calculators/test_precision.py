"""Single precision: what of it energies and forces see; benchmarks/PRECISION.md has the numbers of the shipped models."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from small_models import WANNIER, random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, DeepWannierCalculator
from ase_mlelec.descriptors import ACE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.long_range import LongRange
from ase_mlelec.model import Model
from ase_mlelec.nets import precision_of


def both(model, images, kind=DeepPotCalculator):
    """Energies per atom, eV, and forces, eV/Å, in float32 and float64: two pairs of arrays."""
    found = []
    for dtype in "float32", "float64":
        calc = kind(model, dtype=dtype, device="cpu", on_extrapolation="ignore")
        energies = [calc.get_property("energy", atoms) / len(atoms) for atoms in images]
        found.append((np.array(energies), np.array([calc.get_property("forces", atoms) for atoms in images])))
    return found


def displaced(atoms, n, size=0.05):
    images = [atoms.copy() for _ in range(n)]
    for seed, image in enumerate(images):
        image.rattle(size, seed=seed)
    return images


@pytest.mark.slow
def test_energy_of_silicon_is_smooth():
    """The last layer in float32 alone would make the noise 1e-6 eV per atom, half a digit of 107 eV."""
    (low, low_forces), (high, high_forces) = both("si", displaced(bulk("Si", cubic=True) * 2, 8), DeepDOSCalculator)
    assert np.std(low - high) < 1.5e-7 and abs(np.mean(low - high)) < 3e-7
    assert np.abs(low_forces - high_forces).max() < 3e-5
    assert np.sqrt(np.mean((low_forces - high_forces) ** 2)) < 8e-6


def linear_model(seed=0):
    """Linear energies of ACE invariants, hundreds of eV made of terms that nearly cancel."""
    torch.manual_seed(seed)
    descriptor = ACE(("Si", "O"), inner=1.5).double()
    head = ScalarHead(2, descriptor.n_features, ()).double()
    with torch.no_grad():
        head.nets.bias.fill_(-500.0)
        head.nets.scale.fill_(0.1)
    return Model(descriptor, {"energy": head}).eval()


def test_linear_energies_are_as_in_double_precision():
    images = displaced(bulk("SiO", "zincblende", a=4.8, cubic=True), 2)
    (low, low_forces), (high, high_forces) = both(linear_model(), images)
    assert np.abs(high_forces).max() > 0.1
    np.testing.assert_allclose(low_forces, high_forces, rtol=0, atol=1e-10)
    np.testing.assert_allclose(low, high, rtol=0, atol=1e-10)


def test_a_far_away_cell_has_the_same_forces():
    """Vectors between atoms are made in float64: float32 has 1e-4 Å left at a distance of 1000 Å."""
    atoms = bulk("SiO", "zincblende", a=4.8, cubic=True)
    atoms.rattle(0.05, seed=0)
    far = atoms.copy()
    far.positions += 1000.0
    (_, (near, away)), _ = both(random_model(0), [atoms, far])
    np.testing.assert_allclose(away, near, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", [("energy",), ("energy", "dos")])
def test_parts_of_a_model_in_single_precision(heads):
    model = random_model(0, heads).for_evaluation(torch.float32)
    nets = model.heads["energy"].nets
    assert nets.last[0].weight.dtype == nets.bias.dtype == torch.float64
    assert model.dtype == precision_of(model.descriptor) == nets.hidden[0][0].weight.dtype == torch.float32
    linear = linear_model().for_evaluation(torch.float32)
    assert precision_of(linear.descriptor) == linear.heads["energy"].nets.inverse.dtype == torch.float64


def near(model, atoms, kind, bars=(), **options):
    """Compare all results and some of their error bars with those in float64."""
    low, high = (kind(model, dtype=dtype, device="cpu", **options) for dtype in ("float32", "float64"))
    names = low.implemented_properties
    found = [
        {name: calc.get_property(name, atoms) for name in names}
        | {f"bar of {name}": calc.uncertainty[name] for name in bars}
        for calc in (low, high)
    ]
    for name, value in found[1].items():
        assert np.abs(value).max() > 0
        np.testing.assert_allclose(found[0][name], value, rtol=0, atol=2e-5 * max(1, np.abs(value).max()), err_msg=name)
    return low, high


def test_linear_energies_with_a_density_of_states_hot_electrons_and_bars():
    """The descriptor is in float64, the net of the density of states in float32. In a gap the Fermi level would be loose."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.02, seed=0)
    options = {"electronic_temperature": 8000.0, "on_extrapolation": "ignore"}
    low, high = near("si", atoms, DeepDOSCalculator, ("energy", "forces", "stress", "dos"), **options)
    np.testing.assert_allclose(low.get_leverage(atoms), high.get_leverage(atoms), rtol=1e-5)
    np.testing.assert_allclose(low.get_extrapolation(atoms), high.get_extrapolation(atoms), rtol=1e-3, atol=1e-3)


def test_electric_field_long_range_and_bars():
    atoms = molecule("H2O", cell=[8, 8, 8], pbc=True)
    options = {"electric_field": [0.1, 0.2, -0.1], "field_order": 1, "on_extrapolation": "ignore"}
    near("ice", atoms, DeepWannierCalculator, ("energy", "forces", "dipole"), **options)
    model = random_model(0, ("energy", "dipole", "polarizability"), metadata=WANNIER)
    model.long_range = LongRange(0.8, WANNIER["valence_charges"], WANNIER["electrons_per_centre"])
    atoms = bulk("SiO", "zincblende", a=4.8, cubic=True)
    atoms.rattle(0.05, seed=0)
    near(model, atoms, DeepWannierCalculator, **options | {"field_order": 2})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_of_a_model_whose_file_is_in_single_precision(dtype):
    """The parts that the energy needs in float64 are, and with float64 all others."""
    model = random_model(0, dtype=torch.float32).for_evaluation(dtype)
    assert model.heads["energy"].nets.last[0].weight.dtype == torch.float64
    assert precision_of(model.descriptor) == model.heads["energy"].nets.hidden[0][0].weight.dtype == dtype
