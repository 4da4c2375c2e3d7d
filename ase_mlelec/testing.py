"""Contract tests: what every descriptor, head, model and calculator must obey, for other packages to inherit.

Write a pytest class that inherits a contract and makes the object; everything else is inherited::

    from ase_mlelec.testing import CalculatorContract, random_atoms

    class TestMyCalculator(CalculatorContract):
        def make_model(self, seed=0):
            return my_small_model(seed)                         # float64; seeds make different members of a committee
        def make_calculator(self, model, **options):
            return MyCalculator(model, **options)               # options: dtype, skin, ...
        def make_atoms(self):
            return random_atoms("Si4O3", cell=[6, 7, 8])        # every call the same, at least two atoms

``DescriptorContract`` needs ``make_descriptor`` and ``make_atoms``, ``HeadContract`` needs ``make_head`` and
``make_environment``, ``ModelContract`` needs ``make_model`` and ``make_atoms``.  Structures should have no symmetry;
run each contract with a cell smaller than the cutoff, a slab and a molecule as well.
Needs pytest (extra ``test``).
"""
import copy
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError, all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.outputs import all_outputs
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from ase.symbols import string2symbols

from ase_mlelec.bundle import load_model
from ase_mlelec.descriptors import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.system import System

PER_ATOM = ("scalar", "atom")

# ASE result -> (how it turns with the structure, how it grows with it)
RULES = {"energy": ("scalar", "extensive"), "free_energy": ("scalar", "extensive"), "energies": PER_ATOM,
         "forces": ("vector", "atom"), "stress": ("voigt", "intensive"), "stresses": ("voigt", "atom"),
         "fermi_level": ("scalar", "intensive")}


def random_atoms(symbols, cell=None, pbc=True, shortest=1.6, seed=0):
    """ase.Atoms at random places, no two closer than ``shortest`` Å (images included).

    symbols : str, e.g. "Si4O3"; cell : as for ase.Atoms, or None for a molecule in a small box
    """
    generator = np.random.default_rng(seed)
    names = string2symbols(symbols)
    box = cell if cell is not None else [1.3 * shortest * len(names) ** (1 / 3)] * 3
    atoms = Atoms(cell=box, pbc=pbc if cell is not None else False)
    for _ in range(10_000):
        trial = atoms + Atoms(names[len(atoms)], positions=generator.random((1, 3)) @ atoms.cell.array)
        if _shortest_distance(trial, shortest) >= shortest:
            atoms = trial
        if len(atoms) == len(names):
            break
    else:
        raise ValueError(f"{symbols} with {shortest} Å between atoms does not fit into {box}; enlarge the cell")
    if cell is None:
        atoms.cell = None
    return atoms


def _shortest_distance(atoms, at_most):
    try:
        edges = Edges.build(System.from_atoms(atoms), at_most)
    except InputError:      # on top of each other
        return 0.0
    return min(edges.vec.norm(dim=1).tolist(), default=at_most)


def random_rotation(seed=0):
    """Proper rotation matrix [3, 3]; vectors turn as v @ R.T."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def turned(atoms, rotation):
    """Copy of ``atoms`` with positions and cell turned by a matrix [3, 3]."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ rotation.T)
    atoms.positions = atoms.positions @ rotation.T
    return atoms


def doubled(atoms):
    """Two copies of ``atoms``: repeated along the first periodic direction, or far apart."""
    if atoms.pbc.any():
        return atoms.repeat([2 if axis == int(np.argmax(atoms.pbc)) else 1 for axis in range(3)])
    copy_ = atoms.copy()
    copy_.positions += [100.0, 0, 0]
    return atoms + copy_


def shifted_by_cells(atoms, seed=0):
    """Copy in which every atom is replaced by a random image of itself."""
    atoms = atoms.copy()
    images = np.random.default_rng(seed).integers(-2, 3, (len(atoms), 3)) * atoms.pbc
    atoms.positions += images @ atoms.cell.array
    return atoms


def assert_close(found, wanted, tolerance, what=""):
    """Equal to ``tolerance`` relative to the largest of the wanted numbers (or to 0.001, where all are smaller)."""
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale, err_msg=what)


def pair_at_cutoff(atoms, cutoff, distance):
    """Copy of ``atoms`` in which the pair that is nearest to the cutoff is ``distance`` apart."""
    edges = Edges.build(System.from_atoms(atoms), 1.5 * cutoff)
    apart = edges.vec.norm(dim=1)
    distinct = torch.where(edges.center != edges.neighbor, (apart - cutoff).abs(), torch.inf)
    k = int(distinct.argmin())
    atoms = atoms.copy()
    atoms.positions[edges.neighbor[k]] += (edges.vec[k] * (distance / apart[k] - 1)).numpy()
    return atoms


def assert_continuous(function, tolerance):
    """Jumps of function(+d) - function(-d) vanish with d.

    A continuous function jumps ten times less over a tenth of the distance; one with a gap does not.
    """
    def jumps(d):
        above, below = function(d), function(-d)
        return {name: np.abs(above[name] - below[name]).max() for name in above}

    wide, narrow = jumps(1e-5), jumps(1e-6)
    for name in wide:
        assert narrow[name] <= 0.2 * wide[name] + tolerance, f"{name} is not continuous: {wide[name]}, {narrow[name]}"


class DescriptorContract:
    """Symmetry, smoothness, precision, gradient and round trip of a Descriptor.

    A subclass writes ``make_descriptor()`` -> Descriptor in float64, the same every time, and ``make_atoms()``.

    tolerance : of float64 sums in another order, relative to the largest feature
    single : of float32
    """
    tolerance = 1e-12
    single = 1e-5

    def make_descriptor(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_descriptor()")

    def make_atoms(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_atoms()")

    def environment(self, atoms, descriptor=None):
        """Environment of all atoms, without gradient."""
        descriptor = descriptor or self.make_descriptor()
        arrays = [array for array in (*descriptor.parameters(), *descriptor.buffers()) if array.is_floating_point()]
        system = System.from_atoms(atoms, arrays[0].dtype if arrays else torch.float64)
        with torch.no_grad():
            return descriptor(system, Edges.build(system, descriptor.cutoff))

    def assert_same(self, found, wanted, rows=slice(None), tolerance=None):
        tolerance = tolerance or self.tolerance
        assert_close(found.features, wanted.features[rows], tolerance, "features")
        assert torch.equal(found.species, wanted.species[rows])
        if wanted.frame is not None:
            assert_close(found.frame, wanted.frame[rows], tolerance, "frame")

    def test_shapes(self):
        descriptor, atoms = self.make_descriptor(), self.make_atoms()
        found = self.environment(atoms, descriptor)
        assert found.features.shape == (len(atoms), descriptor.n_features)
        assert [descriptor.species[k] for k in found.species] == atoms.get_chemical_symbols()
        assert found.frame is None or (found.frame.ndim == 3 and found.frame.shape[::2] == (len(atoms), 3))
        assert found.features.isfinite().all() and float(found.features.std()) > 0

    def test_translation(self):
        atoms = self.make_atoms()
        wanted = self.environment(atoms)
        moved = atoms.copy()
        moved.positions += [1.234, -5.6, 0.789]
        for other in (moved, shifted_by_cells(atoms)):
            self.assert_same(self.environment(other), wanted)
            other.wrap()
            self.assert_same(self.environment(other), wanted)

    def test_rotation(self):
        atoms, rotation = self.make_atoms(), random_rotation()
        wanted, found = self.environment(atoms), self.environment(turned(atoms, rotation))
        assert_close(found.features, wanted.features, self.tolerance)
        if wanted.frame is not None:
            assert_close(found.frame, wanted.frame.numpy() @ rotation.T, self.tolerance)

    def test_permutation(self):
        atoms = self.make_atoms()
        order = np.random.default_rng(1).permutation(len(atoms))
        self.assert_same(self.environment(atoms[order]), self.environment(atoms), order)

    def test_supercell(self):
        atoms = self.make_atoms()
        self.assert_same(self.environment(doubled(atoms)), self.environment(atoms), [*range(len(atoms))] * 2)

    def test_batch_equals_singles(self):
        atoms, other = self.make_atoms(), self.make_atoms()[:-1]
        other.rattle(0.1, seed=0)
        descriptor = self.make_descriptor()
        system = System.from_atoms([atoms, other])
        with torch.no_grad():
            together = descriptor(system, Edges.build(system, descriptor.cutoff))
        for part, rows in (atoms, slice(None, len(atoms))), (other, slice(len(atoms), None)):
            self.assert_same(self.environment(part, descriptor), together, rows)

    def test_float32(self):
        descriptor, atoms = self.make_descriptor(), self.make_atoms()
        wanted = self.environment(atoms, descriptor)
        found = self.environment(atoms, descriptor.to(torch.float32))
        assert found.features.dtype == torch.float32
        self.assert_same(found, wanted, tolerance=self.single)

    def test_smooth_at_the_cutoff(self):
        descriptor, atoms = self.make_descriptor(), self.make_atoms()

        def features(d):
            found = self.environment(pair_at_cutoff(atoms, descriptor.cutoff, descriptor.cutoff + d), descriptor)
            return {"features": found.features.numpy()}
        assert_continuous(features, self.tolerance * np.abs(features(0)["features"]).max())

    def test_gradient(self):
        """dD/dvec along a random direction against a five-point difference."""
        descriptor, atoms = self.make_descriptor(), self.make_atoms()
        system = System.from_atoms(atoms)
        edges = Edges.build(system, descriptor.cutoff)
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(edges.vec.shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(descriptor.n_features, generator=generator, dtype=torch.float64)

        def scalar(step, vec=edges.vec):
            return (descriptor(system, edges.with_vec(vec + step * direction)).features @ weights).sum()

        leaf = edges.vec.clone().requires_grad_(True)
        slope = float((torch.autograd.grad(scalar(0.0, leaf), leaf)[0] * direction).sum())
        with torch.no_grad():
            numeric = five_point(lambda step: float(scalar(step)))
        # 1e-7: fourth-order differences over 0.001 Å, rounding 1e-16/1e-3 and kinks in w''' at the cutoff
        assert numeric == pytest.approx(slope, rel=1e-7)

    def test_atom_without_neighbours(self):
        atoms = Atoms(self.make_atoms().symbols[:1], [[0, 0, 0]])
        assert self.environment(atoms).features.isfinite().all()

    def test_arguments_rebuild_it(self):
        """The constructor arguments survive JSON and give, with the arrays, the same descriptor bit by bit."""
        descriptor, atoms = self.make_descriptor(), self.make_atoms()
        again = type(descriptor)(**json.loads(json.dumps(descriptor.arguments()))).to(torch.float64)
        again.load_state_dict(descriptor.state_dict())
        assert torch.equal(self.environment(atoms, again).features, self.environment(atoms, descriptor).features)


class ForceDescriptorContract(DescriptorContract):
    """Beside these, what a Descriptor needs where an energy is trained on forces: derivatives of its gradient."""

    def test_summed_changes(self):
        """Of features along two random moves of all edges, against five-point differences."""
        descriptor, atoms = self.make_descriptor(), self.make_atoms()
        system = System.from_atoms(atoms)
        edges = Edges.build(system, descriptor.cutoff)
        generator = torch.Generator().manual_seed(0)
        moves = torch.randn(2, *edges.vec.shape, generator=generator, dtype=torch.float64)

        def summed(move, step):
            environment = descriptor(system, edges.with_vec(edges.vec + step * move))
            return torch.stack([environment.features[environment.species == k].sum(dim=0)
                                for k in range(len(descriptor.species))])

        found = descriptor.summed_changes(system, edges, moves)
        assert found.shape == (2, len(descriptor.species), descriptor.n_features)
        with torch.no_grad():
            for change, move in zip(found, moves):
                numeric = five_point(lambda step: summed(move, step))
                # as in test_gradient, for one feature of the size of the largest
                assert_close(change, numeric, 1e-7)


class HeadContract:
    """Locality, precision and round trip of a Head that gives one row per centre.

    A subclass writes ``make_head()`` -> Head in float64 and ``make_environment()`` -> Environment of several centres
    that the head understands, the same every time.
    """
    tolerance = 1e-13
    single = 1e-5

    def make_head(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_head()")

    def make_environment(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_environment()")

    def test_one_row_per_centre(self):
        environment, head = self.make_environment(), self.make_head()
        values = head(environment, None)
        assert len(values) == len(environment.features) and values.isfinite().all()
        assert isinstance(head.quantity, str) and head.quantity

    def test_rows_do_not_depend_on_each_other(self):
        environment, head = self.make_environment(), self.make_head()
        rows = torch.randperm(len(environment.features), generator=torch.Generator().manual_seed(0))[1:]
        frame = None if environment.frame is None else environment.frame[rows]
        part = Environment(environment.features[rows], environment.species[rows], frame)
        with torch.no_grad():
            assert_close(head(part, None), head(environment, None)[rows], self.tolerance)

    def test_float32(self):
        environment, head = self.make_environment(), self.make_head()
        with torch.no_grad():
            wanted = head(environment, None)
            frame = None if environment.frame is None else environment.frame.float()
            found = head.float()(Environment(environment.features.float(), environment.species, frame), None)
        assert found.dtype == torch.float32
        assert_close(found, wanted, self.single)

    def test_arguments_rebuild_it(self):
        environment, head = self.make_environment(), self.make_head()
        again = type(head)(**json.loads(json.dumps(head.arguments()))).to(torch.float64)
        again.load_state_dict(head.state_dict())
        assert torch.equal(again(environment, None), head(environment, None))


class ModelContract:
    """Batching, saving and evaluation copies of a Model.

    A subclass writes ``make_model(seed=0)`` and ``make_atoms()``.

    compression : agreement of the copy for evaluation with the model, relative to the largest value
    """
    tolerance = 1e-12
    compression = 1e-10

    def make_model(self, seed=0):
        raise NotImplementedError(f"{type(self).__name__} must define make_model(seed)")

    def make_atoms(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_atoms()")

    def quantities(self, model, images):
        system = System.from_atoms(images, model.dtype)
        with torch.no_grad():
            return model(system, Edges.build(system, model.cutoff))

    def test_batch_equals_singles(self):
        model, atoms, other = self.make_model(), self.make_atoms(), self.make_atoms()[1:]
        other.rattle(0.1, seed=1)
        together = self.quantities(model, [atoms, other])
        apart = [self.quantities(model, image) for image in (atoms, other)]
        for name, values in together.items():
            assert_close(values, torch.cat([part[name] for part in apart]), self.tolerance, name)

    def test_only_what_is_asked_for(self):
        model, system = self.make_model(), System.from_atoms(self.make_atoms())
        edges = Edges.build(system, model.cutoff)
        for name in model.heads:
            assert list(model(system, edges, [name])) == [name]

    def test_copy_for_evaluation(self):
        """It gives the same numbers, needs no gradient, and leaves the model as it was."""
        model, atoms = self.make_model(), self.make_atoms()
        before = copy.deepcopy(model)
        fast = model.for_evaluation()
        for name, values in self.quantities(fast, atoms).items():
            assert_close(values, self.quantities(model, atoms)[name], self.compression, name)
        assert not any(parameter.requires_grad for parameter in fast.parameters())
        for name, values in self.quantities(fast.for_evaluation(), atoms).items():
            assert torch.equal(values, self.quantities(fast, atoms)[name]), name
        fast.to(torch.float32)
        assert_same_model(model, before)

    def test_save_and_load_bit_by_bit(self, tmp_path):
        model, atoms = self.make_model(), self.make_atoms()
        model.metadata["note"] = {"ä": [1, 2.5, None]}
        model.save(tmp_path / "model.safetensors")
        again = load_again(tmp_path / "model.safetensors", model)
        assert again.metadata == model.metadata and again.species == model.species and again.cutoff == model.cutoff
        for name, values in self.quantities(model, atoms).items():
            assert torch.equal(self.quantities(again, atoms)[name], values), name

    def test_foreign_species(self):
        model = self.make_model()
        with pytest.raises(InputError, match="got species Og; the model knows .*; use or train"):
            model.check_species([118])


def load_again(path, model):
    """load_model with the classes of ``model``, which may not be this package's."""
    return load_model(path, classes=(type(model.descriptor), *map(type, model.heads.values())))


def assert_same_model(model, before):
    assert model.training == before.training
    for (name, found), wanted in zip(model.named_parameters(), before.parameters(), strict=True):
        assert found.requires_grad == wanted.requires_grad, name
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name
    for (name, found), wanted in zip(model.named_buffers(), before.buffers(), strict=True):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name


@contextmanager
def counted(calculator):
    """List that grows with every evaluation of a descriptor of the calculator's models."""
    calls = []
    hooks = [model.descriptor.register_forward_hook(lambda *_: calls.append(1)) for model in calculator.models]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def five_point(function, step=1e-3):
    """df/dx at 0; the error is of fourth order in the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


class CalculatorContract:
    """Physics, precision, cache and ASE's interface of a calculator.

    A subclass writes ``make_model(seed=0)`` (float64), ``make_calculator(model, **options)``, ``make_atoms()``, and
    ``per_atom`` where the calculator has more than ASE's results.

    rules : ASE result -> (turns as "scalar", "vector" or "voigt"; grows as "extensive", "intensive" or "atom")
    tolerance : of float64, relative to the largest value; forces amplify rounding by sum over neighbours and nets
    single : of float32 (rounding 6e-8, amplified in forces by the slopes of the nets)
    differences : of forces and stress against five-point differences of the energy over 0.001 Å
    """
    rules = RULES
    tolerance = 1e-12
    single = 2e-5
    differences = 1e-7

    def make_model(self, seed=0):
        raise NotImplementedError(f"{type(self).__name__} must define make_model(seed)")

    def make_calculator(self, model, **options):
        raise NotImplementedError(f"{type(self).__name__} must define make_calculator(model, **options)")

    def make_atoms(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_atoms()")

    def per_atom(self, calculator, atoms):
        """dict of arrays [N, ...] beyond ASE's results that do not turn with the structure, e.g. the atomic DOS."""
        return {}

    def names(self, calculator, atoms):
        """ASE results the calculator can give for ``atoms``."""
        flat = atoms.cell.rank < 3
        return [name for name in calculator.implemented_properties if not (flat and name in ("stress", "stresses"))]

    def values(self, calculator, atoms):
        """Everything that has a rule, as arrays."""
        found = {name: np.array(calculator.get_property(name, atoms)) for name in self.names(calculator, atoms)
                 if name in self.rules}
        return {**found, **self.per_atom(calculator, atoms)}

    def rule(self, name):
        return self.rules.get(name, PER_ATOM)

    def assert_same(self, found, wanted, tolerance=None):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_close(found[name], wanted[name], tolerance or self.tolerance, name)

    # physics -------------------------------------------------------------------------------------------------------

    def test_translation(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        wanted = self.values(calculator, atoms)
        moved = atoms.copy()
        moved.positions += [1.234, -5.6, 0.789]
        for other in (moved, shifted_by_cells(atoms)):
            self.assert_same(self.values(calculator, other), wanted)
            other.wrap()
            self.assert_same(self.values(calculator, other), wanted)

    @pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "inversion"])
    def test_rotation(self, sign):
        """Electronic structure has no handedness: inversion as well as rotation."""
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        rotation = random_rotation() * sign
        wanted = {name: turn(self.rule(name)[0], value, rotation)
                  for name, value in self.values(calculator, atoms).items()}
        self.assert_same(self.values(calculator, turned(atoms, rotation)), wanted)

    def test_permutation(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        order = np.random.default_rng(1).permutation(len(atoms))
        wanted = {name: value[order] if self.rule(name)[1] == "atom" else value
                  for name, value in self.values(calculator, atoms).items()}
        self.assert_same(self.values(calculator, atoms[order]), wanted)

    def test_supercell(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        grow = {"extensive": lambda v: 2 * v, "intensive": lambda v: v, "atom": lambda v: np.concatenate([v, v])}
        wanted = {name: grow[self.rule(name)[1]](value) for name, value in self.values(calculator, atoms).items()}
        found = self.values(calculator, doubled(atoms))
        if "stresses" in wanted:
            wanted["stresses"] /= 2         # ASE's stresses sum to the stress of the larger volume
        self.assert_same(found, wanted)

    def test_parts_sum_to_the_whole(self):
        found = self.values(self.make_calculator(self.make_model()), self.make_atoms())
        for part, whole in ("energies", "energy"), ("stresses", "stress"):
            if part in found:
                assert_close(found[part].sum(axis=0), found[whole], self.tolerance, whole)
        if "forces" in found:
            assert np.abs(found["forces"].sum(axis=0)).max() < 1e-11 * max(np.abs(found["forces"]).max(), 1)
        if "energy" in found:
            assert found["free_energy"] == found["energy"]      # so that forces are the gradient of what MD logs

    def test_forces_are_the_gradient(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
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

    def test_stress_is_the_gradient(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
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
            slope = five_point(energy, 2e-4) / atoms.get_volume()       # 0.001 Å at the distance of neighbours
            assert slope == pytest.approx((stress * direction).sum(), abs=tolerance)

    def test_smooth_at_the_cutoff(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        cutoff = max(model.cutoff for model in calculator.models)
        scale = max(np.abs(value).max() for value in self.values(calculator, atoms).values())
        assert_continuous(lambda d: self.values(calculator, pair_at_cutoff(atoms, cutoff, cutoff + d)),
                          self.tolerance * scale)

    def test_float32(self):
        atoms = self.make_atoms()
        wanted = self.values(self.make_calculator(self.make_model()), atoms)
        found = self.values(self.make_calculator(self.make_model(), dtype="float32"), atoms)
        assert all(value.dtype == np.float64 for value in found.values())
        self.assert_same(found, wanted, self.single)

    # cache and neighbour list --------------------------------------------------------------------------------------

    def test_second_call_evaluates_nothing(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        with counted(calculator) as calls:
            wanted = self.values(calculator, atoms)
            first = len(calls)
            assert first > 0
            self.assert_same(self.values(calculator, atoms.copy()), wanted)
            assert len(calls) == first, "evaluated the same structure twice"

    @pytest.mark.parametrize("change", ["positions", "cell", "numbers", "pbc"])
    def test_changed_atoms_are_evaluated(self, change):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        if change in ("cell", "pbc") and atoms.cell.rank == 0:
            pytest.skip("a molecule without a cell")
        wanted = self.values(calculator, atoms)
        other = atoms.copy()
        if change == "positions":
            other.positions[0] += [0.01, 0, 0]
        elif change == "cell":
            other.set_cell(atoms.cell.array * 1.01)
        elif change == "numbers":
            other.numbers[:] = np.roll(atoms.numbers, 1)
        else:
            other.pbc = ~atoms.pbc
        with counted(calculator) as calls:
            found = self.values(calculator, other)
            assert calls, f"{change} changed, but the old results were given"
        self.assert_same(found, self.values(self.make_calculator(self.make_model()), other))
        self.assert_same(self.values(calculator, atoms), wanted)

    def test_kept_neighbour_list_gives_the_same(self):
        """Twenty steps with a changing cell: the list with a skin against one built afresh every step."""
        kept, fresh = (self.make_calculator(self.make_model(), skin=skin) for skin in (1.0, 0.0))
        atoms, generator = self.make_atoms(), np.random.default_rng(5)
        for _ in range(20):
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + generator.normal(0, 0.003, (3, 3))), scale_atoms=True)
            atoms.positions += generator.normal(0, 0.03, atoms.positions.shape)
            self.assert_same(self.values(kept, atoms), self.values(fresh, atoms))

    # ASE's interface -----------------------------------------------------------------------------------------------

    def test_delivers_what_it_promises(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        promised = self.names(calculator, atoms)
        for name in promised:
            assert np.isfinite(calculator.get_property(name, atoms)).all(), name
        self.per_atom(calculator, atoms)
        assert set(promised) <= set(calculator.results) <= set(all_outputs)
        assert set(calculator.results) <= set(calculator.export_properties())       # which checks the shapes
        known = {name: value for name, value in calculator.results.items() if name in all_properties}
        stored = SinglePointCalculator(atoms, **known)
        for name in known:
            assert np.array_equal(stored.get_property(name, atoms), known[name])

    def test_refuses_what_it_does_not_promise(self):
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        with pytest.raises(PropertyNotImplementedError):
            calculator.get_property("magmoms", atoms)
        if atoms.cell.rank < 3 and "stress" in calculator.implemented_properties:
            with pytest.raises(PropertyNotImplementedError, match="stress needs a cell.*set_cell"):
                calculator.get_property("stress", atoms)

    def test_results_are_not_shared(self):
        """Writing into an array that was handed out changes nothing inside."""
        calculator, atoms = self.make_calculator(self.make_model()), self.make_atoms()
        wanted = {name: value.copy() for name, value in self.values(calculator, atoms).items()}
        for name in self.names(calculator, atoms):
            value = calculator.get_property(name, atoms)
            if isinstance(value, np.ndarray):
                value += 1
        self.assert_same({name: calculator.get_property(name, atoms) for name in wanted if name in self.rules},
                         {name: value for name, value in wanted.items() if name in self.rules})

    def test_model_is_left_as_it_was(self):
        model = self.make_model()
        before = copy.deepcopy(model)
        self.values(self.make_calculator(model, dtype="float32"), self.make_atoms())
        assert_same_model(model, before)

    def test_saved_model_gives_the_same_bit_by_bit(self, tmp_path):
        model, atoms = self.make_model(), self.make_atoms()
        model.save(tmp_path / "model.safetensors")
        again = load_again(tmp_path / "model.safetensors", model)
        wanted, found = (self.values(self.make_calculator(each), atoms) for each in (model, again))
        for name in wanted:
            assert np.array_equal(found[name], wanted[name]), name

    # committees ----------------------------------------------------------------------------------------------------

    def test_committee_of_one_is_the_model(self):
        model, atoms = self.make_model(), self.make_atoms()
        alone, committee = self.make_calculator(model), self.make_calculator([model])
        wanted, found = self.values(alone, atoms), self.values(committee, atoms)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        assert committee.uncertainty == {}

    def test_committee_gives_mean_and_spread(self):
        """Linear quantities are means; the Fermi level is that of the mean DOS and left out here."""
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
        for name in committee.uncertainty.keys() & found.keys():        # of this structure, not of the last one
            assert np.shape(committee.uncertainty[name]) == np.shape(found[name])


def turn(kind, value, rotation):
    """A scalar, vector [..., 3] or Voigt stress [..., 6] in the turned structure."""
    if kind == "vector":
        return value @ rotation.T
    if kind == "voigt":
        return full_3x3_to_voigt_6_stress(rotation @ voigt_6_to_full_3x3_stress(value) @ rotation.T)
    return value
