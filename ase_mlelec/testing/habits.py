"""Tests of a calculator in common use: attached to Atoms that change, shared, copied, and used from several threads."""

import copy
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, InputError, PropertyNotImplementedError
from ase.dft.bandgap import bandgap
from ase.dft.dos import DOS
from ase.io.jsonio import decode, encode

from ase_mlelec.calculators.no_bands import is_refusal
from ase_mlelec.heads import TensorHead, VectorHead
from ase_mlelec.testing.structures import Contract, change_one


@contextmanager
def default(set_default: Callable, value: object, before: object) -> Iterator[None]:
    set_default(value)
    try:
        yield
    finally:
        set_default(before)


TORCH_MODES: dict[str, Callable[[], AbstractContextManager]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default_dtype": lambda: default(torch.set_default_dtype, torch.float64, torch.get_default_dtype()),
    "default_device": lambda: default(torch.set_default_device, "meta", None),
}


def _needs_more(method):
    """Whether a method has arguments that must be given, besides the calculator and the atoms."""
    others = list(inspect.signature(method).parameters.values())[1:]
    return any(part.name != "atoms" and part.default is part.empty and part.kind != part.VAR_KEYWORD for part in others)


def ask(name: str, calculator: Calculator, **atoms: Atoms) -> Any:
    """An ASE result, or what a method of the calculator returns."""
    if name.startswith("get_"):
        return getattr(calculator, name)(**atoms)
    return calculator.get_property(name, **atoms)


def outcome(function: Callable, *arguments: object, **atoms: Atoms) -> Any:
    """Arrays that a function returns, or the class of the exception that it raises, or None for other objects."""
    try:
        value = function(*arguments, **atoms)
    except (CalculatorError, PropertyNotImplementedError, ValueError) as error:
        return type(error)
    if isinstance(value, dict):
        value = list(value.values())
    if hasattr(value, "sum_all"):
        value = [part.get_weights() for part in value]
    elif hasattr(value, "get_weights"):
        value = value.get_weights()
    elif hasattr(value, "hk"):
        value = value.hk([[0.1, 0.2, 0.0]])
    try:
        return np.array(value, dtype=complex)
    except TypeError:
        return None


def same(found: object, wanted: object, tolerance: float = 1e-9) -> bool:
    """Whether two outcomes are equal, relative to the largest number.

    Neighbors come in another order where their list was kept from a former structure: the last digits differ.
    """
    if not (isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray)):
        return found is wanted
    return found.shape == wanted.shape and bool(
        np.all(np.abs(found - wanted) <= tolerance * np.abs(wanted).max(initial=1e-3))
    )


class HabitsContract(Contract):
    """Which structure a calculator speaks of, its parameters, copies, threads and torch's modes around it.

    A subclass writes ``make_model(seed=0)``, ``make_calculator(model, **options)`` and ``make_atoms()``. All public
    methods that take ``atoms`` and nothing else that is required are tried, and all of ASE's results.
    """

    another: ClassVar = {
        "electronic_temperature": 5000.0,
        "electric_field": [0.0, 0.1, 0.2],
        "field_order": 2,
        "kpts": (2, 1, 1),
        "skin": 0.7,
        "on_extrapolation": "ignore",
        "fermi_level": 1.0,
        "reference_temperature": 4000.0,
    }  # values to ``set``
    needed: ClassVar = {
        "electric_field": (VectorHead.quantity,),
        "field_order": (VectorHead.quantity, TensorHead.quantity),
    }  # heads without which an option cannot be given

    def questions(self, calculator: Calculator) -> dict[str, Callable]:
        """dict: name -> function of (calculator, ``**atoms``)."""
        methods = inspect.getmembers(type(calculator), inspect.isfunction)
        methods = [(name, method) for name, method in methods if name[:4] == "get_" and name != "get_property"]
        taking = [name for name, method in methods if "atoms" in inspect.signature(method).parameters]
        asked = [name for name in taking if not is_refusal(getattr(type(calculator), name))]
        asked = [name for name in asked if not _needs_more(getattr(type(calculator), name))]
        return {name: partial(ask, name) for name in (*calculator.implemented_properties, *asked)}

    def outcomes(self, calculator: Calculator, **atoms: Atoms) -> dict[str, Any]:
        """dict of everything the calculator can be asked."""
        return {name: outcome(ask, calculator, **atoms) for name, ask in self.questions(calculator).items()}

    def fresh(self, atoms: Atoms) -> dict[str, Any]:
        """Outcomes for a structure from a calculator that knows no other."""
        return self.outcomes(self.make_calculator(self.make_model()), atoms=atoms)

    def assert_all(self, found: dict[str, Any], wanted: dict[str, Any], tolerance: float = 1e-9) -> None:
        different = [name for name in wanted if not same(found[name], wanted[name], tolerance)]
        assert found.keys() == wanted.keys() and not different, f"another structure's: {', '.join(different)}"

    def other_atoms(self) -> Atoms:
        """The structure with the first atom elsewhere."""
        atoms = self.make_atoms()
        atoms.positions[0] += [0.02, 0.01, 0.03]
        return atoms

    def twins(self, atoms: Atoms) -> list[Atoms]:
        """Copies of a structure with its calculator."""
        return [copy.deepcopy(atoms)]

    # the structure in front of it ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("change", ["positions", "cell", "numbers", "pbc"])
    def test_methods_answer_for_the_changed_structure(self, change: str, calculator: Calculator, atoms: Atoms) -> None:
        atoms.calc = calculator
        self.outcomes(calculator)
        change_one(atoms, change, ~atoms.pbc)
        wanted = self.fresh(atoms)
        for name, ask in self.questions(calculator).items():
            assert same(outcome(ask, calculator), wanted[name]), f"{name} is the former structure's"

    def test_attached_before_anything_was_evaluated(self, atoms: Atoms) -> None:
        atoms.calc = calculator = self.make_calculator(self.make_model())
        self.assert_all(self.outcomes(calculator), self.fresh(atoms))

    def test_no_structure_at_all(self, calculator: Calculator) -> None:
        for ask in self.questions(calculator).values():
            with pytest.raises((InputError, PropertyNotImplementedError)):
                ask(calculator)
        with pytest.raises(InputError, match="no structure yet; pass atoms="):
            calculator.get_property(calculator.implemented_properties[0])

    def test_shared_by_two_structures(self) -> None:
        calculator, one, two = self.make_calculator(self.make_model()), self.make_atoms(), self.make_atoms()
        one.calc = two.calc = calculator
        wanted = self.fresh(one)
        self.assert_all(self.outcomes(calculator), wanted)  # they are the same
        two.positions[0] += [0.02, 0.01, 0.03]
        for ask in self.questions(calculator).values():
            with pytest.raises((InputError, PropertyNotImplementedError)):
                ask(calculator)
        with pytest.raises(InputError, match="shared by different structures.*pass atoms="):
            calculator.get_property(calculator.implemented_properties[0])
        self.assert_all(self.outcomes(calculator, atoms=two), self.fresh(two))
        two.calc = None
        self.outcomes(calculator, atoms=one)
        self.assert_all(self.outcomes(calculator), wanted)  # no longer shared

    def test_the_structure_that_was_passed_last(self, calculator: Calculator, atoms: Atoms) -> None:
        name = calculator.implemented_properties[0]
        calculator.get_property(name, atoms)
        atoms.positions[0] += [0.02, 0.01, 0.03]
        wanted = self.fresh(atoms)
        self.assert_all(self.outcomes(calculator), wanted)
        calculator.get_property(name, self.make_atoms())
        calculator.get_property(name, atoms.copy())  # gone at once, and so unchanged
        self.assert_all(self.outcomes(calculator), wanted)

    def test_passing_another_structure_leaves_a_doubt(self) -> None:
        calculator, atoms, other = self.make_calculator(self.make_model()), self.make_atoms(), self.other_atoms()
        name = calculator.implemented_properties[0]
        atoms.calc = calculator
        calculator.get_property(name, other)
        with pytest.raises(InputError, match="pass atoms="):
            calculator.get_property(name)
        assert same(outcome(calculator.get_property, name, atoms=atoms), self.fresh(atoms)[name])
        assert same(outcome(calculator.get_property, name), self.fresh(atoms)[name])

    def test_copies_answer_for_their_own_structure(self, atoms: Atoms) -> None:
        atoms.calc = self.make_calculator(self.make_model())
        wanted = self.outcomes(atoms.calc)
        for twin in self.twins(atoms):
            assert twin.calc is not atoms.calc
            self.assert_all(self.outcomes(twin.calc, atoms=twin), wanted)
            twin.positions[0] += [0.02, 0.01, 0.03]
            self.assert_all(self.outcomes(twin.calc), self.fresh(twin))
        self.assert_all(self.outcomes(atoms.calc), wanted)
        calculator = copy.deepcopy(atoms).calc  # alone: its structure is gone
        with pytest.raises(InputError, match="no structure yet"):
            calculator.get_property(calculator.implemented_properties[0])

    def test_atoms_come_first_or_by_name(self) -> None:
        for name, method in inspect.getmembers(type(self.make_calculator(self.make_model())), inspect.isfunction):
            parameters = inspect.signature(method).parameters
            if "atoms" not in parameters or name.startswith("_") or name in ("get_property", "read_atoms"):
                continue
            by_name = parameters["atoms"].kind is inspect.Parameter.KEYWORD_ONLY
            assert by_name or list(parameters)[1] == "atoms", f"{name}{inspect.signature(method)}"

    def test_what_is_no_structure(self, calculator: Calculator, atoms: Atoms) -> None:
        with pytest.raises(InputError, match="got 300.0 of type float as atoms; pass an ase.Atoms object"):
            calculator.get_property(calculator.implemented_properties[0], 300.0)
        for name, method in inspect.getmembers(type(calculator), inspect.isfunction):
            parameters = inspect.signature(method).parameters
            if "atoms" in parameters and parameters["atoms"].kind is inspect.Parameter.KEYWORD_ONLY and name[0] != "_":
                message = "got Atoms as .*; pass them by name: atoms="
                former = name in calculator.atoms_came_first  # type: ignore[attr-defined]
                with pytest.deprecated_call(match=message) if former else pytest.raises(InputError, match=message):
                    getattr(calculator, name)(atoms)

    def test_what_is_handed_out_can_be_written_over(self, calculator: Calculator, atoms: Atoms) -> None:
        """Or it is read-only; a later answer is the same."""
        wanted = self.outcomes(calculator, atoms=atoms)
        for ask in self.questions(calculator).values():
            with suppress(CalculatorError, PropertyNotImplementedError, ValueError):
                value = ask(calculator, atoms=atoms)
                if isinstance(value, np.ndarray):
                    value += 1
        self.assert_all(self.outcomes(calculator, atoms=atoms), wanted, tolerance=0)

    # what makes a number -------------------------------------------------------------------------------------------

    def test_parameters_are_stated(self, calculator: Calculator) -> None:
        parameters = calculator.parameters
        assert json.loads(json.dumps(parameters)) == parameters == calculator.todict() == decode(encode(parameters))
        assert {"model", "weights", "device", "dtype", *calculator.settable} <= {*parameters}  # type: ignore[attr-defined]
        for name in ("weights", "device", "dtype"):
            assert f"{name}={parameters[name]!r}" in repr(calculator)
        assert self.make_calculator(self.make_model()).parameters["weights"] == parameters["weights"]
        assert self.make_calculator(self.make_model(1)).parameters["weights"] != parameters["weights"]
        with pytest.raises(CalculatorError, match=r"change it with calc.set\(name=value\)"):
            parameters["dtype"] = "float32"

    def test_set_acts(self, atoms: Atoms) -> None:
        """As a new calculator with that option; attributes likewise."""
        for name in self.make_calculator(self.make_model()).settable:
            calculator = self.make_calculator(self.make_model())
            if not set(self.needed.get(name, ())) <= set(calculator.models[0].heads):
                continue
            self.outcomes(calculator, atoms=atoms)
            made = self.make_calculator(self.make_model(), **{name: self.another[name]})
            assert calculator.set(**{name: self.another[name]}) == {name: self.another[name]}
            assert calculator.parameters == made.parameters and calculator.set(**{name: self.another[name]}) == {}
            self.assert_all(self.outcomes(calculator, atoms=atoms), self.outcomes(made, atoms=atoms))
            calculator = self.make_calculator(self.make_model())
            self.outcomes(calculator, atoms=atoms)
            setattr(calculator, name, self.another[name])
            assert calculator.parameters == made.parameters
            self.assert_all(self.outcomes(calculator, atoms=atoms), self.outcomes(made, atoms=atoms))

    def test_set_refuses(self, calculator: Calculator) -> None:
        before = calculator.parameters
        with pytest.raises(CalculatorError, match="got smearing=3; .* can set .*skin"):
            calculator.set(smearing=3)
        for name in ("model", "device", "dtype", "potential"):
            with pytest.raises(CalculatorError, match=f"{name} is fixed: make another"):
                calculator.set(**{name: "cpu"})
        with pytest.raises(CalculatorError, match="got skin=-1"):
            calculator.set(on_extrapolation="ignore", skin=-1)
        assert calculator.parameters == before and calculator.set() == {}

    def test_ase_bands(self, calculator: Calculator, atoms: Atoms) -> None:
        """Where there are none, what to call instead is said."""
        atoms.calc = calculator
        functions = bandgap, DOS, lambda calc: calc.band_structure()
        for function in functions:
            if is_refusal(calculator.band_structure):
                with pytest.raises(PropertyNotImplementedError, match="; (call get_|use a )"):
                    function(calculator)
            else:
                function(calculator)

    # around it -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("mode", TORCH_MODES)
    def test_torch_modes_do_not_matter(self, mode: str, atoms: Atoms) -> None:
        model, wanted = self.make_model(), self.fresh(atoms)
        with TORCH_MODES[mode]():
            self.assert_all(self.outcomes(self.make_calculator(model), atoms=atoms), wanted, tolerance=0)
        calculator = self.make_calculator(model)
        with TORCH_MODES[mode]():
            calculator.get_property(calculator.implemented_properties[0], atoms)
        self.assert_all(self.outcomes(calculator, atoms=atoms), wanted, tolerance=0)

    def test_threads_take_turns(self, calculator: Calculator) -> None:
        """One calculator, three structures at the same time, a few questions with and without atoms."""
        structures = [self.make_atoms(), self.other_atoms(), self.make_atoms()[1:]]
        chosen = list(self.questions(calculator).items())
        chosen = chosen[:: max(1, len(chosen) // 4)]
        wanted, wrong = [self.fresh(atoms) for atoms in structures], []

        def work(k):
            for _ in range(2):
                for name, ask in chosen:
                    for atoms in {"atoms": structures[k]}, {}:
                        if not same(outcome(ask, calculator, **atoms), wanted[k][name]):
                            wrong.append(name)  # noqa: PERF401

        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
