"""What users get wrong: every error is one line that names the cause and the remedy, in ASE's classes."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, InputError, PropertyNotImplementedError
from small_models import ENERGIES, random_model

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import SpectrumHead
from ase_mlelec.model import Model


def deep_pot(**options):
    return DeepPotCalculator(random_model(), **options)


def crystal():
    return bulk("Si", cubic=True)


def refused(error, cause, remedy, function):
    """``function`` raises ``error`` in one line in which the cause stands before the remedy."""
    with pytest.raises(error, match=f"{cause}.*{remedy}") as caught:
        function()
    assert "\n" not in str(caught.value)


# structures --------------------------------------------------------------------------------------------------------


def spoiled(change):
    atoms = crystal()
    change(atoms)
    return atoms


def nan(atoms):
    atoms.positions[3, 1] = np.nan


def infinite(atoms):
    atoms.positions[3, 1] = -np.inf


def nan_cell(atoms):
    atoms.cell[1, 1] = np.nan


def far_away(atoms):
    atoms.positions[3, 1] = 1e200


def no_element(atoms):
    atoms.numbers[1], atoms.numbers[2] = 119, -1


def flat(atoms):
    atoms.cell[2] = atoms.cell[0] + atoms.cell[1]


def no_cell(atoms):
    atoms.cell = None
    atoms.pbc = True


def overlap(atoms):
    atoms.positions[2] = atoms.positions[5] + 0.01


def foreign(atoms):
    atoms.symbols[1] = "Ge"
    atoms.symbols[2] = "C"


def dummy(atoms):
    atoms.symbols[1] = "X"


STRUCTURES = [
    (nan, "positions of atom 3 are NaN or infinite", "check the last step"),
    (infinite, "positions of atom 3 are NaN or infinite", "check the last step"),
    (nan_cell, "the cell holds NaN or infinite numbers", "set it with atoms.set_cell"),
    (far_away, "a position reaches 1e.200 Å, need at most 1e.08 Å", "check the last step"),
    (no_element, "got species number -1, number 119; the model knows Si, O", "use or train a model with all species"),
    (flat, r"pbc is \[True, True, True\] but the periodic cell vectors span no volume", "set_cell.* or pbc=False"),
    (no_cell, r"pbc is \[True, True, True\] but the periodic cell vectors span no volume", "set_cell.* or pbc=False"),
    (overlap, r"atoms 2 and 5 overlap \(0.017 Å apart\)", "remove one of them or check the cell"),
    (foreign, "got species C, Ge; the model knows Si, O", "use or train a model with all species"),
    (dummy, "got species X; the model knows Si, O", "use or train a model with all species"),
]


@pytest.mark.parametrize("change, cause, remedy", STRUCTURES, ids=lambda value: getattr(value, "__name__", ""))
def test_structure(change, cause, remedy):
    """The same errors by way of energies and of electronic quantities, and again when asked again."""
    atoms, calculator = spoiled(change), deep_pot()
    dos = DeepDOSCalculator(random_model(0, ("dos",)))
    atoms.calc = calculator
    for _ in range(2):
        refused(InputError, cause, remedy, atoms.get_potential_energy)
        refused(InputError, cause, remedy, lambda: dos.get_ados(atoms))
    assert "energy" not in calculator.results
    atoms = crystal()  # a good structure is evaluated afterwards
    assert np.isfinite(calculator.get_property("energy", atoms)) and np.isfinite(dos.get_ados(atoms)).all()


def test_no_atoms():
    refused(
        InputError, "empty Atoms object", "give at least one atom", lambda: deep_pot().get_property("energy", Atoms())
    )


def test_nothing_evaluated_yet():
    refused(
        InputError,
        "no structure yet",
        "pass atoms= or evaluate the energy first",
        DeepDOSCalculator(random_model(0, ("dos",))).get_ados,
    )


@pytest.mark.parametrize("cell", [None, [[4, 0, 0], [0, 5, 0], [0, 5, 0]]])
def test_stress_without_a_cell(cell):
    atoms = molecule("SiO", cell=cell)
    atoms.calc = deep_pot()
    refused(
        PropertyNotImplementedError,
        "stress needs a cell with three vectors",
        "set it with atoms.set_cell",
        atoms.get_stress,
    )
    assert np.isfinite(atoms.get_forces()).all()


# models and options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float", "float16", "int64", "nn", "double precision", torch.float16, np.float32])
def test_dtype(dtype):
    if dtype == "float":
        assert deep_pot(dtype=dtype).dtype == torch.float32
        return
    refused(CalculatorSetupError, "got dtype=.*", "choose 'float32' or 'float64'", lambda: deep_pot(dtype=dtype))


def test_device():
    refused(
        CalculatorSetupError, "got device='gpu'", "choose 'cpu', 'cuda' or 'cuda:0'", lambda: deep_pot(device="gpu")
    )
    refused(
        CalculatorSetupError, "got device='mps'", "choose 'cpu', 'cuda' or 'cuda:0'", lambda: deep_pot(device="mps")
    )
    if not torch.cuda.is_available():
        refused(
            CalculatorSetupError,
            "got device='cuda', but torch finds no CUDA device",
            "choose 'cpu'",
            lambda: deep_pot(device="cuda"),
        )


@pytest.mark.parametrize("skin", [-0.1, np.nan])
def test_skin(skin):
    refused(CalculatorSetupError, f"got skin={skin} Å", "give 0 or more", lambda: deep_pot(skin=skin))


def test_dos_model_has_no_energy():
    refused(
        CalculatorSetupError,
        "DeepPotCalculator needs a model with 'energy', this one has dos",
        "load another model",
        lambda: DeepPotCalculator(random_model(0, ("dos",))),
    )


def test_energy_model_has_no_dos():
    refused(
        CalculatorSetupError,
        "DeepDOSCalculator needs a model with 'dos', this one has energy",
        "load another model",
        lambda: DeepDOSCalculator(random_model()),
    )


def test_energy_of_a_dos_calculator():
    atoms = crystal()
    atoms.calc = DeepDOSCalculator(random_model(0, ("dos",)))
    refused(PropertyNotImplementedError, "energy", "", atoms.get_potential_energy)


def test_potential_without_energy():
    refused(
        CalculatorSetupError,
        "DeepPotCalculator needs a model with 'energy'",
        "load another model",
        lambda: DeepDOSCalculator(random_model(0, ("dos",)), potential=random_model(1, ("dos",))),
    )


@pytest.mark.parametrize("grid", [ENERGIES + 1e-3, ENERGIES[:-1]], ids=["shifted", "shorter"])
def test_grids_of_a_committee(grid):
    model, other = random_model(0, ("dos",)), random_model(1, ("dos",))
    other.heads["dos"] = SpectrumHead(2, other.descriptor.n_features, grid, (12, 12)).double()
    refused(
        CalculatorSetupError,
        "the models of a committee have different energy grids",
        "train them on one",
        lambda: DeepDOSCalculator([model, other]),
    )


@pytest.mark.parametrize("species", [("O", "Si"), ("Si", "O", "H")])
def test_species_of_a_committee(species):
    refused(
        CalculatorSetupError,
        "models of a committee know different species: Si, O and " + ", ".join(species),
        "train them with one list",
        lambda: DeepPotCalculator([random_model(), random_model(1, species=species)]),
    )


def test_empty_committee():
    refused(CalculatorSetupError, "empty list of models", "give at least one", lambda: DeepPotCalculator([]))


def test_no_such_model(tmp_path):
    refused(
        CalculatorSetupError,
        "no model 'silicone'",
        "neither a file nor one of the shipped models",
        lambda: DeepPotCalculator("silicone"),
    )


def test_model_of_another_kind():
    refused(
        CalculatorSetupError,
        "got an object of type Linear",
        "give a name, a path or a Model",
        lambda: DeepPotCalculator(torch.nn.Linear(2, 2)),
    )


@pytest.mark.parametrize("smooth, cutoff", [(5.0, 4.0), (-1.0, 4.0), (4.0, 4.0)])
def test_descriptor_radii(smooth, cutoff):
    refused(
        ValueError,
        f"got smooth = {smooth} and cutoff = {cutoff} Å",
        "need 0 <= smooth < cutoff",
        lambda: DeepPotSE(("Si",), cutoff, smooth),
    )


def test_descriptor_channels():
    refused(ValueError, "got l_max = 4", "has 1, 2 or 3", lambda: DeepPotSE(("Si",), 4.0, 1.0, l_max=4))


# extrapolation -----------------------------------------------------------------------------------------------------


def short_sighted(on_extrapolation):
    return DeepPotCalculator(random_model(metadata={"shortest_distance_A": 2.9}), on_extrapolation=on_extrapolation)


MESSAGE = (
    "atoms are 2.35 Å apart, the closest in the training data are 2.90 Å .*: the model extrapolates.*"
    "check the run, or train"
)


def test_extrapolation_warns_once():
    atoms = crystal()
    atoms.calc = short_sighted("warn")
    with pytest.warns(UserWarning, match=MESSAGE):
        atoms.get_forces()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.rattle(0.01)
        assert np.isfinite(atoms.get_forces()).all()


def test_extrapolation_stops_the_run():
    atoms = crystal()
    atoms.calc = short_sighted("raise")
    for _ in range(2):
        refused(CalculationFailed, *MESSAGE.split(" .*: "), atoms.get_forces)
    atoms.set_cell(1.2 * atoms.cell, scale_atoms=True)
    assert np.isfinite(atoms.get_forces()).all()


def test_extrapolation_ignored():
    atoms = crystal()
    atoms.calc = short_sighted("ignore")
    assert np.isfinite(atoms.get_forces()).all()


def test_extrapolation_option():
    refused(
        CalculatorSetupError,
        "got on_extrapolation='stop'",
        "choose 'warn', 'raise' or 'ignore'",
        lambda: short_sighted("stop"),
    )


def test_numbers_that_are_not_finite():
    model = random_model()
    with torch.no_grad():
        model.heads["energy"].nets.bias[0] = torch.inf
    refused(
        CalculationFailed,
        "the model gave a energy that is not finite",
        "check structure and model",
        lambda: DeepPotCalculator(model).get_property("energy", crystal()),
    )


def test_model_needs_arguments():
    """Base classes say what a subclass must write."""
    from ase_mlelec.descriptors import Descriptor
    from ase_mlelec.heads import Head

    for base in (Descriptor(), Head()):
        for method in (lambda: base.forward(None, None), base.arguments):
            refused(NotImplementedError, type(base).__name__, "must define", method)
    assert isinstance(random_model(), Model)
