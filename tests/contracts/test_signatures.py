"""One order, one default and one kind of result per name, in all public classes and functions."""

import inspect
from collections import defaultdict

import pytest

import ase_mlelec
from ase_mlelec import ElectronicRecorder, WannierHamiltonian, evaluate
from ase_mlelec.descriptors.bispectrum import grid_bispectrum
from ase_mlelec.physics import eos, fermi, spectra, total_energy
from ase_mlelec.testing.calculators import assert_plain_signature, public_functions

CALCULATORS = [getattr(ase_mlelec, name) for name in ase_mlelec.__all__ if name.endswith("Calculator")]
CLASSES = [*CALCULATORS, WannierHamiltonian]
# more than one argument without a name, where all of them are needed and their order is that of the formula
POSITIONAL = {"WannierHamiltonian.__init__": 3, "WannierHamiltonian.fermi_level": 3}
FUNCTIONS = {
    evaluate: ("calc", "images", "quantities"),
    ElectronicRecorder: ("atoms", "path", "quantities"),
    fermi.integration_weights: ("energies", "mu", "temperature"),
    fermi.fermi_level: ("energies", "dos", "n_electrons", "temperature"),
    fermi.occupation: ("energies", "mu", "temperature"),
    total_energy.from_ldos: ("ldos", "energies", "cell", "positions", "charges", "temperature"),
    total_energy.from_density: ("density", "cell", "positions", "charges"),
    grid_bispectrum: ("atoms", "shape"),
    spectra.infrared: ("dipoles", "timestep_fs", "temperature", "volume"),
    eos.fit: ("volumes", "energies", "kind"),
}


def methods():
    """(name with the class, name, function) of every public method."""
    return [(f"{cls.__name__}.{name}", name, function) for cls in CLASSES for name, function in public_functions(cls)]


def test_all_calculators_are_looked_at():
    assert len(CALCULATORS) == 6 and len(methods()) > 60


@pytest.mark.parametrize("full, function", [pytest.param(full, function, id=full) for full, _, function in methods()])
def test_everything_after_the_first_argument_has_a_name(full, function):
    assert_plain_signature(function, name=full, positional=POSITIONAL.get(full, 1))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_take_by_place_what_the_design_shows(function):
    parameters = inspect.signature(function).parameters.values()
    assert tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD) == FUNCTIONS[function]
    assert not [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def test_a_name_has_one_default():
    found = defaultdict(dict)
    for full, _, function in [*methods(), *((f.__name__, "", f) for f in (evaluate, ElectronicRecorder))]:
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default is not parameter.empty:
                found[parameter.name].setdefault(repr(parameter.default), full)
    del found["spin_degeneracy"]  # of a file that is read: what the file says
    assert {name: defaults for name, defaults in found.items() if len(defaults) > 1} == {}


def test_a_method_has_one_first_argument_and_one_kind_of_result():
    first, results = defaultdict(set), defaultdict(set)
    for _, name, function in methods():
        if name == "__init__":
            continue
        signature = inspect.signature(function)
        first[name].add([*signature.parameters, None, None][1])
        results[name].add(signature.return_annotation)
    assert {name: found for name, found in first.items() if len(found) > 1} == {}
    assert {name: found for name, found in results.items() if len(found) > 1} == {}
