"""LDOS of grids with too many points to keep it: the same results, and memory for a few numbers per point."""

import numpy as np
import pytest
import torch
from ase.calculators.calculator import CalculationFailed
from small_ldos import ENERGIES, TEMPERATURE, random_ldos_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ase_mlelec import MLDFTCalculator
from ase_mlelec.calculators import ldos_points, ldos_prediction
from ase_mlelec.calculators.ldos_points import GridLDOS, KeptPoints, StreamedPoints, spectra_near
from ase_mlelec.descriptors.bispectrum import grid as grid_of_bispectrum
from ase_mlelec.physics import fermi
from ase_mlelec.testing import assert_close, random_atoms

WIDE = (24, 24)  # the last hidden layer is narrower than the LDOS, as in models that are used


def oxide():
    return random_atoms("Al2O2", cell=np.diag([3.6, 4.2, 4.8]), shortest=1.7)


def everything(calc, atoms):
    """All results; forces come last, as they use up what the others need."""
    found = {f"term {name}": np.array(value) for name, value in calc.get_terms(atoms).items()}
    found |= {"dos": calc.get_total_dos(), "density": calc.get_density(), "ldos": calc.get_ldos()}
    return found | {name: np.array(calc.get_property(name, atoms)) for name in ("forces", "stress", "fermi_level")}


@pytest.fixture
def streams(monkeypatch):
    """Nothing is kept; list of the numbers of projections of every pass."""
    passes = []
    monkeypatch.setattr(ldos_prediction, "MOST_COORDINATES", 0)
    monkeypatch.setattr(ldos_prediction, "KEPT", 0)
    former = GridLDOS.projected

    def projected(self, spectra):
        passes.append([each.shape[1] for each in spectra])
        return former(self, spectra)

    monkeypatch.setattr(GridLDOS, "projected", projected)
    return passes


@pytest.mark.parametrize("case", ["one", "wide", "two", "fixed level", "cold"])
def test_results_are_those_of_kept_points(case, streams, monkeypatch):
    models = [random_ldos_model(seed, widths=WIDE if case == "wide" else (6, 6)) for seed in range(1 + (case == "two"))]
    options = {"fixed level": {"fermi_level": 1.3}, "cold": {"electronic_temperature": 0.0}}.get(case, {})
    found = everything(MLDFTCalculator(models, device="cpu", **options), oxide())
    assert len(streams) in (2, 3)  # energy, perhaps after a wrong guess, and forces
    assert all(1 < n <= 6 for each in streams for n in each)
    with monkeypatch.context() as patch:
        patch.setattr(ldos_prediction, "MOST_COORDINATES", 10**9)
        wanted = everything(MLDFTCalculator(models, device="cpu", **options), oxide())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, 1e-12 if name not in ("forces", "stress") else 1e-10, name)


def test_spread_of_a_committee(streams, monkeypatch):
    models = [random_ldos_model(seed) for seed in range(2)]
    calc = MLDFTCalculator(models, device="cpu")
    calc.get_property("forces", oxide())
    found = {name: calc.uncertainty[name] for name in ("energy", "density", "fermi_level", "forces")}
    monkeypatch.setattr(ldos_prediction, "MOST_COORDINATES", 10**9)
    calc = MLDFTCalculator(models, device="cpu")
    calc.get_property("forces", oxide())
    for name, value in found.items():
        assert_close(value, calc.uncertainty[name], 1e-9, name)


def test_another_temperature_is_one_more_pass(streams):
    calc, atoms = MLDFTCalculator(random_ldos_model(), device="cpu"), oxide()
    calc.get_terms(atoms)
    before = len(streams)
    calc.electronic_temperature = 2 * TEMPERATURE
    found = calc.get_terms()
    assert len(streams) == before + 1
    hot = MLDFTCalculator(random_ldos_model(), device="cpu", electronic_temperature=2 * TEMPERATURE)
    assert found == pytest.approx(hot.get_terms(oxide()), rel=1e-12)


@pytest.mark.parametrize("error", [0.0, 1e-4, 1.0])
def test_a_wrong_guess_costs_a_pass(error, streams, monkeypatch):
    """A guess of the Fermi level that is off by more than a hundredth of kT = 0.26 eV is mended by a second pass."""
    atoms, model = oxide(), random_ldos_model()
    right = MLDFTCalculator(model, device="cpu").get_terms(atoms)
    former, streams[:] = ldos_points.spectra_near, []
    exact = right["fermi_level"]

    def near(energies, level, temperature):
        return former(energies, level if streams else torch.tensor(exact + error), temperature)

    monkeypatch.setattr(ldos_points, "spectra_near", near)
    found = MLDFTCalculator(model, device="cpu").get_terms(atoms)
    assert len(streams) == (2 if error > 0.01 else 1)
    assert found == pytest.approx(right, rel=1e-12)


class Largest(TorchDispatchMode):
    """Size of the largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            sizes = [each.numel() * (1 + each.is_complex()) for each in tree_leaves(found) if torch.is_tensor(each)]
            self.numbers = max([self.numbers, *sizes])
        return found


def test_no_array_is_larger_than_a_density(streams, monkeypatch):
    """Neither the LDOS nor its coordinates are held for all points; a chunk of points and a Fourier transform are."""
    monkeypatch.setattr(grid_of_bispectrum, "CHUNK", 32)
    monkeypatch.setattr(ldos_points, "CHUNK", 32)
    calc = MLDFTCalculator(random_ldos_model(widths=WIDE, grid_spacing_A=0.15), device="cpu")
    n_points = int(np.prod(calc.grid(oxide())))
    with Largest() as streamed:
        calc.get_potential_energy(oxide())
    assert streamed.numbers < 2.5 * n_points
    monkeypatch.setattr(ldos_prediction, "MOST_COORDINATES", 10**9)
    with Largest() as kept:
        MLDFTCalculator(calc.models[0], device="cpu").get_potential_energy(oxide())
    assert kept.numbers >= WIDE[1] * n_points


@pytest.mark.parametrize("temperature", [0.0, 300.0, 3000.0])
def test_spectra_span_the_weights_nearby(temperature):
    energies, kelvin = torch.tensor(ENERGIES), torch.tensor(temperature, dtype=torch.float64)
    spectra = spectra_near(energies, torch.tensor(1.234, dtype=torch.float64), kelvin)
    points = StreamedPoints(spectra, [torch.zeros(1, dtype=torch.float64)] * spectra.shape[1], torch.float64)
    reach = ldos_points.REACH * max(8.617e-5 * temperature, ldos_points.COLDEST)
    for distance, wanted in ((0.0, True), (0.9 * reach, True), (-0.5 * reach, True), (100 * reach, False)):
        level = torch.tensor(1.234 + distance, dtype=torch.float64)
        assert points.spans(fermi.integration_weights(energies, level, kelvin)[0]) == wanted, distance


def test_errors_are_those_of_kept_points(streams):
    with pytest.raises(CalculationFailed, match="electrons"):
        MLDFTCalculator(
            random_ldos_model(valence_electrons={"Al": 300, "O": 6}), device="cpu", on_extrapolation="ignore"
        ).get_terms(oxide())


def test_weighting_keeps_no_coordinates_in_double_precision(monkeypatch):
    head = random_ldos_model(widths=WIDE).heads["ldos"].double()
    matrix, offset = head.basis()
    coordinates = torch.randn(100, len(matrix), generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(-1, 2, len(offset), dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(ldos_points, "CHUNK", 30)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: saved.append(each) or each, lambda each: each):
        found = KeptPoints(head, coordinates).weighted(weights)
    assert [each.dtype for each in saved if each.shape[1:] == coordinates.shape[1:]] == [torch.float32]  # themselves
    ldos = coordinates.double() @ matrix + offset
    assert_close(found.detach(), (ldos @ weights).detach(), 1e-12)
    (gradient,) = torch.autograd.grad(found.square().sum(), weights)
    assert_close(gradient, (2 * (ldos @ weights) @ ldos).detach(), 1e-12)
