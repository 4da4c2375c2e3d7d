"""Every class and every shipped model runs the contract of its kind: none is forgotten when one is added."""

import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

import ase_mlelec
from ase_mlelec import descriptors, heads
from ase_mlelec.bundle import list_models
from ase_mlelec.descriptors.base import Descriptor
from ase_mlelec.heads.base import Head, HeadOfPairs
from ase_mlelec.testing import (
    CalculatorContract,
    DescriptorContract,
    EnvironmentContract,
    HeadContract,
    HeadOfPairsContract,
    ModelContract,
)

TESTS = Path(__file__).parent.parent
NO_QUANTITY = {"EnergyZero"}  # of an LDOS: a function that LDOSHead calls, tested with it


@pytest.fixture(scope="module")
def classes():
    """All test classes of the files that use a contract."""
    found, folders = [], [str(TESTS), *{str(path.parent) for path in TESTS.rglob("test_*.py")}]
    sys.path[:0] = folders
    try:
        for path in sorted(TESTS.rglob("test_*.py")):
            if path != Path(__file__) and "Contract" in path.read_text(encoding="utf-8"):
                spec = importlib.util.spec_from_file_location(f"contract_of_{path.stem}", path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                found += [
                    value for name, value in vars(module).items() if inspect.isclass(value) and name.startswith("Test")
                ]
    finally:
        del sys.path[: len(folders)]
    return found


def kinds(classes, contract, make):
    """Names of the types of what ``make`` gives for each test class of a contract."""
    return {type(make(each())).__name__ for each in classes if issubclass(each, contract)}


def public(module, *bases):
    """Names of the public classes of a module that are one of the bases, which are not counted themselves."""
    return {
        name
        for name in module.__all__
        if issubclass(getattr(module, name), bases) and getattr(module, name) not in bases
    }


def test_descriptors(classes):
    assert public(descriptors, Descriptor) <= kinds(classes, DescriptorContract, lambda case: case.make_descriptor())
    rest = set(descriptors.__all__) - public(descriptors, Descriptor) - {"Descriptor", "Environment"}
    assert rest <= kinds(classes, EnvironmentContract, lambda case: case.make_descriptor())


def test_heads(classes):
    of_pairs = public(heads, HeadOfPairs)
    assert of_pairs <= kinds(classes, HeadOfPairsContract, lambda case: case.make_head())
    rest = public(heads, Head) - of_pairs - {"HeadOfPairs"}
    assert rest <= kinds(classes, HeadContract, lambda case: case.make_head())
    assert set(heads.__all__) == public(heads, Head) | of_pairs | {"Blocks", "Head", "HeadOfPairs"} | NO_QUANTITY


def test_calculators(classes):
    wanted = {name for name in ase_mlelec.__all__ if name.endswith("Calculator")}
    assert wanted <= kinds(classes, CalculatorContract, lambda case: case.make_calculator(case.make_model()))


def test_shipped_models(classes):
    assert set(list_models()) <= {
        case.shipped for case in classes if issubclass(case, ModelContract) and hasattr(case, "shipped")
    }


def test_none_is_left_out(classes):
    """A test that a contract has is inherited or written anew, never removed."""
    for case in classes:
        removed = [name for name in dir(case) if name.startswith("test_") and getattr(case, name) is None]
        assert not removed, f"{case.__name__} leaves out {removed}"
