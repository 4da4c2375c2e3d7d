"""What every calculator must obey: physics, precision, cache, ASE's interface."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.outputs import all_outputs
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.calculators.no_bands import is_refusal
from ase_mlelec.model import Model
from ase_mlelec.quantities import DIPOLE
from ase_mlelec.testing.models import assert_same_model, load_again
from ase_mlelec.testing.structures import (
    Contract,
    assert_close,
    assert_continuous,
    change_one,
    doubled,
    five_point,
    pair_at_cutoff,
    random_rotation,
    shifted_by_cells,
    turned,
)

PER_ATOM = ("scalar", "atom")

# ASE result -> (how it turns with the structure, how it grows with it)
RULES = {
    "energy": ("scalar", "extensive"),
    "free_energy": ("scalar", "extensive"),
    "energies": PER_ATOM,
    "forces": ("vector", "atom"),
    "stress": ("voigt", "intensive"),
    "stresses": ("voigt", "atom"),
    "fermi_level": ("scalar", "intensive"),
}


@contextmanager
def counted(calculator: Calculator) -> Iterator[list[int]]:
    """List that grows with every evaluation of a descriptor of the calculator's models."""
    calls = []
    hooks = [model.descriptor.register_forward_hook(lambda *_: calls.append(1)) for model in calculator.models]  # type: ignore[attr-defined]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


class CalculatorContract(Contract):
    """Physics, precision, cache and ASE's interface of a calculator.

    A subclass writes ``make_model(seed=0)`` (float64), ``make_calculator(model, **options)``, ``make_atoms()``, and
    ``per_atom`` where the calculator has more than ASE's results.

    Attributes
    ----------
    rules
        ASE result -> (turns as "scalar", "vector" or "voigt"; grows as "extensive", "intensive" or "atom").
    tolerance
        Tolerance of float64, relative to the largest value; forces amplify rounding by sums over neighbors and nets.
    single
        Tolerance of float32 (rounding 6e-8, amplified in forces by the slopes of the nets).
    differences
        Tolerance of forces and stress against five-point differences of the energy over 0.001 Å.
    n_steps
        Number of steps of a run that reuses its neighbor list.
    """

    rules = RULES
    tolerance = 1e-12
    single = 2e-5
    differences = 1e-7
    n_steps = 5

    def per_atom(self, calculator: Calculator, atoms: Atoms) -> dict[str, NDArray]:
        """dict of arrays [N, ...] beyond ASE's results that do not turn with the structure, e.g. the atomic DOS."""
        return {}

    def pair_of_calculators(self, model: Model) -> tuple[Calculator, Calculator]:
        """(calculator of a structure, calculator of its double); they differ where meshes of k-points must."""
        calculator = self.make_calculator(model)
        return calculator, calculator

    def other_pbc(self, atoms: Atoms) -> NDArray:
        """Other periodic directions that the calculator accepts, three bool."""
        return ~atoms.pbc

    def names(self, calculator: Calculator, atoms: Atoms) -> list[str]:
        """ASE results the calculator can give for ``atoms``."""
        flat = atoms.cell.rank < 3
        return [name for name in calculator.implemented_properties if not (flat and name in ("stress", "stresses"))]

    def values(self, calculator: Calculator, atoms: Atoms) -> dict[str, NDArray]:
        """Everything that has a rule, as arrays."""
        names = [name for name in self.names(calculator, atoms) if name in self.rules]
        found = {name: np.array(calculator.get_property(name, atoms)) for name in names}
        return found | self.per_atom(calculator, atoms)

    def rule(self, name: str) -> tuple[str, str]:
        return self.rules.get(name, PER_ATOM)

    def assert_same(
        self, found: Mapping[str, ArrayLike], wanted: Mapping[str, ArrayLike], tolerance: float | None = None
    ) -> None:
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_close(found[name], wanted[name], tolerance or self.tolerance, name)

    # physics -------------------------------------------------------------------------------------------------------

    def test_translation(self, calculator: Calculator, atoms: Atoms) -> None:
        wanted = self.values(calculator, atoms)
        moved = atoms.copy()
        moved.positions += [1.234, -5.6, 0.789]
        for other in (moved, shifted_by_cells(atoms)):
            self.assert_same(self.values(calculator, other), wanted)
            other.wrap()
            self.assert_same(self.values(calculator, other), wanted)

    @pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "inversion"])
    def test_rotation(self, sign: int, calculator: Calculator, atoms: Atoms) -> None:
        """Electronic structure has no handedness: inversion as well as rotation."""
        rotation = random_rotation() * sign
        values = self.values(calculator, atoms)
        wanted = {name: turn(self.rule(name)[0], value, rotation) for name, value in values.items()}
        self.assert_same(self.values(calculator, turned(atoms, rotation)), wanted)

    def test_permutation(self, calculator: Calculator, atoms: Atoms) -> None:
        order = np.random.default_rng(1).permutation(len(atoms))
        values = self.values(calculator, atoms)
        wanted = {name: value[order] if self.rule(name)[1] == "atom" else value for name, value in values.items()}
        self.assert_same(self.values(calculator, atoms[order]), wanted)

    def test_supercell(self) -> None:
        (calculator, large), atoms = self.pair_of_calculators(self.make_model()), self.make_atoms()
        grow = {"extensive": lambda v: 2 * v, "intensive": lambda v: v, "atom": lambda v: np.concatenate([v, v])}
        wanted = {name: grow[self.rule(name)[1]](value) for name, value in self.values(calculator, atoms).items()}
        found = self.values(large, doubled(atoms))
        if "stresses" in wanted:
            wanted["stresses"] /= 2  # ASE's stresses sum to the stress of the larger volume
        self.assert_same(found, wanted)

    def test_parts_sum_to_the_whole(self) -> None:
        found = self.values(self.make_calculator(self.make_model()), self.make_atoms())
        for part, whole in ("energies", "energy"), ("stresses", "stress"):
            if part in found:
                assert_close(found[part].sum(axis=0), found[whole], self.tolerance, whole)
        if "forces" in found:
            assert np.abs(found["forces"].sum(axis=0)).max() < 1e-11 * max(np.abs(found["forces"]).max(), 1)
        if "energy" in found:
            assert found["free_energy"] == found["energy"]  # so that forces are the gradient of what MD logs

    def test_forces_are_the_gradient(self, calculator: Calculator, atoms: Atoms) -> None:
        if "forces" not in self.names(calculator, atoms):
            pytest.skip("no forces")
        forces, generator = calculator.get_property("forces", atoms), np.random.default_rng(0)
        for direction in generator.normal(size=(2, *forces.shape)):

            def energy(step):
                moved = atoms.copy()
                moved.positions += step * direction
                return calculator.get_property("energy", moved)

            tolerance = self.differences * np.abs(forces * direction).sum()
            assert -five_point(energy) == pytest.approx((forces * direction).sum(), abs=tolerance)

    def test_stress_is_the_gradient(self, calculator: Calculator, atoms: Atoms) -> None:
        if "stress" not in self.names(calculator, atoms):
            pytest.skip("no stress")
        stress = voigt_6_to_full_3x3_stress(calculator.get_property("stress", atoms))
        for random in np.random.default_rng(0).normal(size=(2, 3, 3)):
            direction = (random + random.T) / 2

            def energy(step):
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ (np.eye(3) + step * direction), scale_atoms=True)
                return calculator.get_property("energy", strained)

            tolerance = self.differences * np.abs(stress * direction).sum()
            slope = five_point(energy, 2e-4) / atoms.get_volume()  # 0.001 Å at the distance of neighbors
            assert slope == pytest.approx((stress * direction).sum(), abs=tolerance)

    def test_smooth_at_the_cutoff(self, calculator: Calculator, atoms: Atoms) -> None:
        cutoff = max(model.reach for model in calculator.models)  # type: ignore[attr-defined]
        scale = max(np.abs(value).max() for value in self.values(calculator, atoms).values())
        assert_continuous(
            lambda d: self.values(calculator, pair_at_cutoff(atoms, cutoff, cutoff + d)), self.tolerance * scale
        )

    def test_float32(self, atoms: Atoms) -> None:
        wanted = self.values(self.make_calculator(self.make_model()), atoms)
        found = self.values(self.make_calculator(self.make_model(), dtype="float32"), atoms)
        assert all(value.dtype == np.float64 for value in found.values())
        self.assert_same(found, wanted, self.single)

    # cache and neighbor list --------------------------------------------------------------------------------------

    def test_second_call_evaluates_nothing(self, calculator: Calculator, atoms: Atoms) -> None:
        with counted(calculator) as calls:
            wanted = self.values(calculator, atoms)
            first = len(calls)
            assert first > 0
            self.assert_same(self.values(calculator, atoms.copy()), wanted)
            assert len(calls) == first, "evaluated the same structure twice"

    @pytest.mark.parametrize("change", ["positions", "cell", "numbers", "pbc"])
    def test_changed_atoms_are_evaluated(self, change: str, calculator: Calculator, atoms: Atoms) -> None:
        if change in ("cell", "pbc") and atoms.cell.rank == 0:
            pytest.skip("a molecule without a cell")
        wanted = self.values(calculator, atoms)
        other = atoms.copy()
        change_one(other, change, self.other_pbc(atoms))
        with counted(calculator) as calls:
            found = self.values(calculator, other)
            assert calls, f"{change} changed, but the old results were given"
        self.assert_same(found, self.values(self.make_calculator(self.make_model()), other))
        self.assert_same(self.values(calculator, atoms), wanted)

    def test_kept_neighbor_list_gives_the_same(self) -> None:
        """Steps with a changing cell: the list with a skin against one built afresh every step."""
        kept, fresh = (self.make_calculator(self.make_model(), skin=skin) for skin in (1.0, 0.0))
        atoms, generator = self.make_atoms(), np.random.default_rng(5)
        for _ in range(self.n_steps):
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + generator.normal(0, 0.006, (3, 3))), scale_atoms=True)
            atoms.positions += generator.normal(0, 0.06, atoms.positions.shape)
            self.assert_same(self.values(kept, atoms), self.values(fresh, atoms))

    # ASE's interface -----------------------------------------------------------------------------------------------

    def test_delivers_what_it_promises(self, calculator: Calculator, atoms: Atoms) -> None:
        promised = self.names(calculator, atoms)
        for name in promised:
            assert np.isfinite(calculator.get_property(name, atoms)).all(), name
        self.per_atom(calculator, atoms)
        assert set(promised) <= set(calculator.results) <= set(all_outputs)
        assert set(calculator.results) <= set(calculator.export_properties())  # which checks the shapes
        known = {name: value for name, value in calculator.results.items() if name in all_properties}
        stored = SinglePointCalculator(atoms, **known)
        for name in known:
            assert np.array_equal(stored.get_property(name, atoms), known[name])

    def test_refuses_what_it_does_not_promise(self, calculator: Calculator, atoms: Atoms) -> None:
        foreign = next(name for name in ("magmoms", "charges", DIPOLE) if name not in calculator.implemented_properties)
        with pytest.raises(PropertyNotImplementedError):
            calculator.get_property(foreign, atoms)
        if atoms.cell.rank < 3 and "stress" in calculator.implemented_properties:
            with pytest.raises(PropertyNotImplementedError, match="stress needs a cell.*set_cell"):
                calculator.get_property("stress", atoms)

    def test_results_are_not_shared(self, calculator: Calculator, atoms: Atoms) -> None:
        """Writing into an array that was handed out changes nothing inside."""
        wanted = {name: value.copy() for name, value in self.values(calculator, atoms).items()}
        for name in self.names(calculator, atoms):
            value = calculator.get_property(name, atoms)
            if isinstance(value, np.ndarray):
                value += 1
        wanted = {name: value for name, value in wanted.items() if name in self.rules}
        self.assert_same({name: calculator.get_property(name, atoms) for name in wanted}, wanted)

    def test_model_is_left_as_it_was(self, model: Model) -> None:
        before = copy.deepcopy(model)
        self.values(self.make_calculator(model, dtype="float32"), self.make_atoms())
        assert_same_model(model, before)

    def test_saved_model_gives_the_same_bit_by_bit(self, tmp_path: Path, model: Model, atoms: Atoms) -> None:
        model.save(tmp_path / "model.safetensors")
        again = load_again(tmp_path / "model.safetensors", model)
        wanted, found = (self.values(self.make_calculator(each), atoms) for each in (model, again))
        for name in wanted:
            assert np.array_equal(found[name], wanted[name]), name

    def test_signatures(self) -> None:
        """After the first argument everything is keyword-only, and every option is named."""
        for name, function in public_functions(type(self.make_calculator(self.make_model()))):
            if name != "__init__":  # which may hand options on to ours
                assert_plain_signature(function, name=name)

    # committees ----------------------------------------------------------------------------------------------------

    def test_committee_of_one_is_the_model(self, model: Model, atoms: Atoms) -> None:
        alone, committee = self.make_calculator(model), self.make_calculator([model])
        wanted, found = self.values(alone, atoms), self.values(committee, atoms)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        assert committee.uncertainty == {}

    def test_committee_gives_mean_and_spread(self) -> None:
        """Linear quantities are means; the Fermi level is left out, because it follows from the mean DOS."""
        models, atoms = [self.make_model(seed) for seed in (0, 1, 2)], self.make_atoms()
        members = [self.values(self.make_calculator(model), atoms) for model in models]
        committee = self.make_calculator(models)
        found = self.values(committee, atoms)
        for name in set(found) - {"fermi_level"}:
            each = np.array([member[name] for member in members])
            assert_close(found[name], each.mean(axis=0), self.tolerance, name)
            assert_close(committee.uncertainty[name], each.std(axis=0), self.tolerance, name)
        atoms.positions[0] += [0.02, 0, 0]
        committee.get_property(self.names(committee, atoms)[0], atoms)
        for name in committee.uncertainty.keys() & found.keys():  # of this structure, not of the last one
            assert np.shape(committee.uncertainty[name]) == np.shape(found[name])


GIVEN_SIGNATURES = ("calculate", "check_state", "get_eigenvalues", "get_property", "set", "todict")  # by ASE
HOOKS = ("electronic_results", "evaluate")  # written by subclasses, called by the base


def public_functions(cls: type) -> list[tuple[str, Callable]]:
    """Return the constructor and public methods of a class, without methods of ASE and methods that only refuse."""
    given = GIVEN_SIGNATURES + HOOKS
    names = ["__init__", *(name for name in dir(cls) if name[0] != "_" and name not in given)]
    members = ((name, inspect.getattr_static(cls, name)) for name in names)
    functions = ((name, getattr(member, "__func__", member)) for name, member in members)  # of class methods
    ours = (
        (name, function) for name, function in functions if inspect.isfunction(function) and not is_refusal(function)
    )
    return [(name, function) for name, function in ours if not inspect.unwrap(function).__module__.startswith("ase.")]


def assert_plain_signature(function: Callable, *, name: str, positional: int = 1) -> None:
    """Assert that at most ``positional`` arguments need no name, and that there are no ``*args`` and ``**kwargs``."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name not in ("self", "cls")]
    kinds = {each.name: each.kind for each in parameters}
    open_ended = [n for n, k in kinds.items() if k in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)]
    assert not open_ended, f"{name} takes anything as {open_ended}"
    by_place = [n for n, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY]
    assert len(by_place) <= positional, f"{name} takes {', '.join(by_place[positional:])} by position"


def turn(kind: str, value: NDArray, rotation: NDArray) -> NDArray:
    """A scalar, vector [..., 3] or Voigt stress [..., 6] in the turned structure."""
    if kind == "vector":
        return value @ rotation.T
    if kind == "voigt":
        return full_3x3_to_voigt_6_stress(rotation @ voigt_6_to_full_3x3_stress(value) @ rotation.T)
    return value
