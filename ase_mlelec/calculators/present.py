"""The structure that a call of a calculator's method is about, and one call at a time.

An ASE calculator keeps a copy of the structure that it evaluated last. Methods that ASE does not know, such as
``atoms.calc.get_dos()``, get no Atoms, and the copy may be out of date.
"""

import copy
import functools
import inspect
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError, all_changes, compare_atoms

from ase_mlelec.threads import one_thread_each


class PresentStructure:
    """Mix-in before ase's Calculator: public methods with an argument ``atoms`` answer for the present structure.

    The present structure is the argument ``atoms``. By default it is the Atoms object that the calculator is attached to
    (``atoms.calc = calc``), or the Atoms object that this thread passed last, in its present state. InputError is raised
    where there is no such object, and where several differ, because the calculator cannot know which one was meant.
    ``atoms_came_first`` names methods whose first argument was ``atoms`` in former versions; they still accept this
    order, with a warning.

    Calls from several threads run one after the other. The result does not depend on torch.no_grad, inference_mode or
    autocast around the call, nor on torch's default device, precision and number of threads.
    """

    atoms_came_first: Sequence[str] = ()
    implemented_properties: Any  # of ase's Calculator, as the next two attributes
    ignored_changes: Any
    atoms: Any

    def __init_subclass__(cls):
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and name[0] != "_" and "atoms" in inspect.signature(method).parameters:
                setattr(cls, name, _as_one_call(method))

    def __init__(self) -> None:
        self._lock = Turns()
        self._prepare()
        super().__init__()

    def _prepare(self):
        """Set up the attributes that are not copied or pickled with the object."""
        self._attached = weakref.WeakValueDictionary()  # Atoms by their id, because they cannot be hashed
        self._last = threading.local()  # given: reference to Atoms; copy: the evaluated state
        self._inside, self._asked = False, None  # state of the call in progress, guarded by the lock

    def set_atoms(self, atoms: Atoms) -> None:
        """Called by ASE where ``atoms.calc`` is set to this calculator."""
        self._attached[id(atoms)] = atoms

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return an ASE result of ``atoms``, by default of the present structure."""
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(f"{name} property not implemented")
        if atoms is None and not allow_calculation and not self._candidates():
            return None
        with self._one_call():
            return super().get_property(name, self._live(atoms), allow_calculation)  # type: ignore[misc]  # ase's

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return the names of the properties of ``atoms`` that changed since the last evaluation.

        Identical arrays, and those that surely differ, are found first; ASE's comparison, which is slow, looks at the
        remaining ones only.
        """
        known = self.atoms
        if known is None or not isinstance(atoms, Atoms):
            return compare_atoms(known, atoms, tol)
        arrays: Any = [{**each.arrays, "cell": each.cell.array, "pbc": each.pbc} for each in (known, atoms)]
        pairs = {name: [each.get(name) for each in arrays] for name in all_changes if name not in self.ignored_changes}
        others = {name: pair for name, pair in pairs.items() if not _is_equal(*pair)}
        moved = ["positions"] if "positions" in others and _differs(others["positions"], tol) else []
        open_ones = others.keys() - moved
        return moved + (compare_atoms(known, atoms, tol, set(all_changes) - open_ones) if open_ones else [])

    # the call in progress ---------------------------------------------------------------------------------------

    @contextmanager
    def _one_call(self):
        """Hold the lock and set torch's modes for the models; inner calls are about the structure of the outer call."""
        with self._lock:
            if self._inside:
                yield
                return
            self._inside, evaluated = True, False
            try:
                with torch_as_usual():
                    yield
                evaluated = self.atoms is not None
            finally:
                if self._asked is not None:
                    self._last.copy = self.atoms if evaluated else self._asked.copy()
                self._inside, self._asked = False, None

    def _live(self, atoms=None):
        """The Atoms object that the call in progress is about."""
        if atoms is None:
            atoms = self._asked if self._asked is not None else self._only_candidate()
        elif not isinstance(atoms, Atoms):
            raise InputError(
                f"got {atoms!r} of type {type(atoms).__name__} as atoms; pass an ase.Atoms object, and "
                "other options by name"
            )
        elif self._asked is not None and atoms is self.atoms:  # our copy, passed from method to method
            return self._asked
        if atoms is not self._asked:
            self._asked = atoms
            if atoms is not self.atoms:
                self._last.given = weakref.ref(atoms)
        return atoms

    def _present(self, atoms=None):
        """Make ``atoms`` (default: see the class) the present structure, drop older results, and return a copy of it."""
        atoms = self._live(atoms)
        if self.atoms is None or self.calculation_required(atoms, []):
            self.reset()
            self.atoms = atoms.copy()
        return self.atoms

    def _candidates(self):
        """Atoms objects that a call without ``atoms`` may be about."""
        found = [reference() for reference in self._attached.valuerefs()]
        found = [atoms for atoms in found if atoms is not None and atoms.calc is self]
        last = getattr(self._last, "given", lambda: None)()
        if last is None:  # the object is gone, so it cannot have changed since
            last = getattr(self._last, "copy", None)
        if last is not None and not any(atoms is last for atoms in found):
            found.append(last)
        return found

    def _only_candidate(self):
        found = self._candidates()
        if not found:
            raise InputError("no structure yet; pass atoms= or evaluate the energy first")
        for other in found[1:]:
            if compare_atoms(found[0], other):
                raise InputError(
                    f"the calculator is shared by different structures ({found[0].symbols} and "
                    f"{other.symbols}), and cannot know which of them is meant; pass atoms="
                )
        return found[0]

    # copies -----------------------------------------------------------------------------------------------------

    def __getstate__(self):
        own = ("_attached", "_last", "_inside", "_asked")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._prepare()

    def __deepcopy__(self, memo):
        """Copy the calculator; the copy is attached to the copies of Atoms that are made in the same call."""
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        for number in list(self._attached.keys()):
            if number in memo:
                new.set_atoms(memo[number])
        return new


class Turns:
    """Reentrant lock that can be copied; copies of objects that shared a lock share the copy of the lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self._lock.release()

    def __reduce__(self):
        return Turns, ()


def _is_equal(one, other):
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool((one == other).all())


def _differs(pair, tol):
    """Whether two arrays surely differ by more than ``tol``; not where there is NaN."""
    one, other = pair
    return one.shape == other.shape and bool(np.abs(one - other).max(initial=0) > tol)


def _as_one_call(method):
    """Wrap a method of a PresentStructure, so that it runs as one call."""
    first = list(inspect.signature(method).parameters)[1]

    @functools.wraps(method)
    def in_one_call(self, *arguments, **options):
        if first != "atoms" and arguments and isinstance(arguments[0], Atoms):
            message = f"got Atoms as {first} of {method.__name__}; pass them by name: atoms=..."
            if method.__name__ not in self.atoms_came_first:
                raise InputError(message)
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            arguments, options["atoms"] = arguments[1:], arguments[0]
        with self._one_call():
            return method(self, *arguments, **options)

    return in_one_call


@contextmanager
def torch_as_usual() -> Iterator:
    """Context with gradients on, inference mode and autocast off, new tensors on the CPU, and one thread an operation."""
    with ExitStack() as modes:
        modes.enter_context(one_thread_each())
        if torch.is_inference_mode_enabled():
            modes.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        yield
