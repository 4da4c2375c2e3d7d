"""What every model and every head must obey."""

import copy
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_mlelec.bundle import load_model
from ase_mlelec.descriptors import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Blocks, Head, HeadOfPairs
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.testing.descriptors import assert_slope
from ase_mlelec.testing.structures import Contract, assert_close, doubled, random_rotation, turned


class ModelContract(Contract):
    """Batching, saving and evaluation copies of a Model.

    A subclass writes ``make_model(seed=0)`` and ``make_atoms()``.

    Attributes
    ----------
    compression
        Agreement of the copy for evaluation with the model, relative to the largest value.
    single
        Tolerance of float32.
    """

    tolerance = 1e-12
    single = 2e-5
    compression = 1e-10

    def quantities(self, model: Model, images: Atoms | Sequence[Atoms]) -> dict[str, torch.Tensor]:
        system = System.from_atoms(images, model.dtype)
        with torch.no_grad():
            found = model(system, Edges.build(system, model.cutoff))
        return {name: rows for quantity, values in found.items() for name, rows in rows_of(quantity, values).items()}

    def test_batch_equals_singles(self) -> None:
        model, atoms, other = self.make_model(), self.make_atoms(), doubled(self.make_atoms())
        other.rattle(0.05, seed=1)
        together = self.quantities(model, [atoms, other])
        apart = [self.quantities(model, image) for image in (atoms, other)]
        for name, values in together.items():
            assert_close(values, torch.cat([part[name] for part in apart]), self.tolerance, name)

    def test_only_what_is_asked_for(self) -> None:
        model, system = self.make_model(), System.from_atoms(self.make_atoms())
        edges = Edges.build(system, model.cutoff)
        for name in model.heads:
            assert list(model(system, edges, [name])) == [name]

    def test_copy_for_evaluation(self, model: Model, atoms: Atoms) -> None:
        """It gives the same numbers, needs no gradient, and leaves the model as it was."""
        before = copy.deepcopy(model)
        fast = model.for_evaluation()
        wanted, found = self.quantities(model, atoms), self.quantities(fast, atoms)
        for name, values in found.items():
            assert_close(values, wanted[name], self.compression, name)
        assert not any(parameter.requires_grad for parameter in fast.parameters())
        for name, values in self.quantities(fast.for_evaluation(), atoms).items():
            assert torch.equal(values, found[name]), name
        fast.to(torch.float32)
        assert_same_model(model, before)

    def test_save_and_load_bit_by_bit(self, tmp_path: Path, model: Model, atoms: Atoms) -> None:
        model.metadata["note"] = {"ä": [1, 2.5, None]}
        model.save(tmp_path / "model.safetensors")
        again = load_again(tmp_path / "model.safetensors", model)
        assert again.metadata == model.metadata and again.species == model.species and again.cutoff == model.cutoff
        found = self.quantities(again, atoms)
        for name, values in self.quantities(model, atoms).items():
            assert torch.equal(found[name], values), name

    def test_every_precision(self, model: Model, atoms: Atoms) -> None:
        """Structures may have either precision; the result has the precision of the model; half precision is refused."""
        wanted = self.quantities(model, atoms)
        for dtype in (torch.float32, torch.float64):
            system, own = System.from_atoms(atoms, torch.float32), copy.deepcopy(model).to(dtype)
            with torch.no_grad():
                found = own(system, Edges.build(system, own.cutoff))
            for quantity, values in found.items():
                for name, rows in rows_of(quantity, values).items():
                    assert rows.dtype == dtype, name
                    assert_close(rows, wanted[name], self.single, name)
        half, system = copy.deepcopy(model).to(torch.float16), System.from_atoms(atoms)
        with pytest.raises(InputError, match="got a model of torch.float16, need float32 or float64; use"):
            half(system, Edges.build(system, model.cutoff))

    def test_edges_too_short(self) -> None:
        model, system = self.make_model(), System.from_atoms(self.make_atoms())
        with pytest.raises(InputError, match="got edges within .* Å, need those within .* Å; use Edges.build"):
            model(system, Edges.build(system, 0.9 * min(model.reach, model.cutoff)))

    def test_foreign_species(self, model: Model) -> None:
        with pytest.raises(InputError, match="got species Og; the model knows .*; use or train"):
            model.check_species(torch.tensor([118]))


def rows_of(quantity: str, values: torch.Tensor | Blocks) -> dict[str, torch.Tensor]:
    """Tensors of a quantity, or of all its Blocks, dict by name, with the rows of one structure after another."""
    if not isinstance(values, Blocks):
        return {quantity: values}
    return {f"{quantity}, species {k}": rows for k, rows in values.onsite.items()} | {
        f"{quantity}, pairs {key}": rows for key, rows in values.hopping.items()
    }


def load_again(path: str | PathLike, model: Model) -> Model:
    """load_model with the classes of ``model``, which may not be this package's."""
    return load_model(path, classes=(type(model.descriptor), *map(type, model.heads.values())))


def assert_same_model(model: Model, before: Model) -> None:
    assert model.training == before.training
    for (name, found), wanted in zip(model.named_parameters(), before.parameters(), strict=True):
        assert found.requires_grad == wanted.requires_grad, name
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name
    for (name, found), wanted in zip(model.named_buffers(), before.buffers(), strict=True):  # type: ignore[assignment]
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name


class HeadContract(Contract):
    """Locality, precision and round trip of a Head that gives one row per center.

    A subclass writes ``make_head()`` -> Head in float64 and ``make_environment()`` -> Environment of several centers
    that the head understands, the same every time.
    """

    tolerance = 1e-13
    single = 1e-5

    def test_one_row_per_center(self, environment: Environment, head: Head) -> None:
        values = head(environment, None)
        assert len(values) == len(environment.features) and values.isfinite().all()
        assert isinstance(head.quantity, str) and head.quantity

    def test_rows_do_not_depend_on_each_other(self, environment: Environment, head: Head) -> None:
        rows = torch.randperm(len(environment.features), generator=torch.Generator().manual_seed(0))[1:]
        frame = None if environment.frame is None else environment.frame[rows]
        part = Environment(environment.features[rows], environment.species[rows], frame)
        with torch.no_grad():
            assert_close(head(part, None), head(environment, None)[rows], self.tolerance)

    def test_float32(self, environment: Environment, head: Head) -> None:
        with torch.no_grad():
            wanted = head(environment, None)
            frame = None if environment.frame is None else environment.frame.float()
            found = head.float()(Environment(environment.features.float(), environment.species, frame), None)
        assert found.dtype == torch.float32
        assert_close(found, wanted, self.single)

    def test_arguments_rebuild_it(self, environment: Environment, head: Head) -> None:
        again = type(head)(**json.loads(json.dumps(head.arguments()))).to(torch.float64)
        again.load_state_dict(head.state_dict())
        assert torch.equal(again(environment, None), head(environment, None))


class HeadOfPairsContract(Contract):
    """Symmetry, precision, gradient and round trip of a HeadOfPairs.

    A subclass writes ``make_head()`` -> HeadOfPairs and ``make_descriptor()`` -> the Descriptor that it reads, in
    float64, the same every time, and ``make_atoms()``.
    """

    tolerance = 1e-12
    single = 2e-5

    def blocks(self, head: HeadOfPairs, atoms: Atoms, dtype: torch.dtype = torch.float64) -> Blocks:
        with torch.no_grad():
            return self.blocks_of(head, System.from_atoms(atoms, dtype))

    def blocks_of(self, head: HeadOfPairs, system: System) -> Blocks:
        descriptor = self.make_descriptor().to(system.positions.dtype)
        edges = Edges.build(system, descriptor.cutoff)
        return head(descriptor(system, edges), edges)

    def test_blocks_of_all_atoms_and_pairs(self, head: HeadOfPairs, atoms: Atoms) -> None:
        """Each pair within the cutoff once, from the species that comes first; on-site blocks are symmetric."""
        found, edges = self.blocks(head, atoms), Edges.build(System.from_atoms(atoms), self.make_descriptor().cutoff)
        assert isinstance(head.quantity, str) and head.quantity
        assert sum(len(found.atoms(k)) for k in found.onsite) == len(atoms)
        for k, values in found.onsite.items():
            assert len(values) == len(found.atoms(k)) and values.isfinite().all()
            assert torch.equal(values, values.mT)
        pairs = []
        for key, values in found.hopping.items():
            first, second, shift = (array.tolist() for array in found.pairs(key))
            assert len(values) == len(first) and values.isfinite().all()
            pairs += [*zip(first, second, map(tuple, shift))]
            pairs += [(j, i, tuple(-x for x in s)) for i, j, s in zip(first, second, shift)]
        wanted = zip(edges.center.tolist(), edges.neighbor.tolist(), map(tuple, edges.shift.tolist()))
        assert sorted(pairs) == sorted(wanted)

    def test_rotation(self, head: HeadOfPairs, atoms: Atoms) -> None:
        """Blocks turn with their frames: nothing changes."""
        wanted, found = self.blocks(head, atoms), self.blocks(head, turned(atoms, random_rotation()))
        for part in ("onsite", "hopping"):
            for key, values in getattr(wanted, part).items():
                assert_close(getattr(found, part)[key], values, self.tolerance, f"{part} {key}")

    def test_float32(self, head: HeadOfPairs, atoms: Atoms) -> None:
        wanted, found = self.blocks(head, atoms), self.blocks(head.float(), atoms, torch.float32)
        for part in ("onsite", "hopping"):
            for key, values in getattr(found, part).items():
                assert values.dtype == torch.float32
                assert_close(values, getattr(wanted, part)[key], self.single, f"{part} {key}")

    def test_gradient_of_positions(self, head: HeadOfPairs, atoms: Atoms) -> None:
        """Of all blocks together, along a random move of the atoms and a random strain."""

        def scalar(system):
            blocks, generator = self.blocks_of(head, system), torch.Generator().manual_seed(1)
            # the sum over pairs: there are more or fewer of them at the cutoff
            totals = [part.sum(dim=0) for part in (*blocks.onsite.values(), *blocks.hopping.values())]
            return sum((torch.randn(part.shape, generator=generator, dtype=part.dtype) * part).sum() for part in totals)

        assert_slope(scalar, System.from_atoms(atoms))

    def test_arguments_rebuild_it(self, head: HeadOfPairs, atoms: Atoms) -> None:
        again = type(head)(**json.loads(json.dumps(head.arguments()))).to(torch.float64)
        again.load_state_dict(head.state_dict())
        found, wanted = self.blocks(again, atoms), self.blocks(head, atoms)
        assert all(torch.equal(found.onsite[k], values) for k, values in wanted.onsite.items())
        assert all(torch.equal(found.hopping[key], values) for key, values in wanted.hopping.items())
