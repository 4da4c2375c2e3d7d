"""What every model must obey."""

import copy

import pytest
import torch
from ase.calculators.calculator import InputError

from ase_mlelec.bundle import load_model
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Blocks
from ase_mlelec.system import System
from ase_mlelec.testing.numbers import assert_close
from ase_mlelec.testing.structures import doubled


class ModelContract:
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

    def make_model(self, seed=0):
        raise NotImplementedError(f"{type(self).__name__} must define make_model(seed)")

    def make_atoms(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_atoms()")

    def quantities(self, model, images):
        system = System.from_atoms(images, model.dtype)
        with torch.no_grad():
            found = model(system, Edges.build(system, model.cutoff))
        return {name: rows for quantity, values in found.items() for name, rows in rows_of(quantity, values).items()}

    def test_batch_equals_singles(self):
        model, atoms, other = self.make_model(), self.make_atoms(), doubled(self.make_atoms())
        other.rattle(0.05, seed=1)
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
        wanted, found = self.quantities(model, atoms), self.quantities(fast, atoms)
        for name, values in found.items():
            assert_close(values, wanted[name], self.compression, name)
        assert not any(parameter.requires_grad for parameter in fast.parameters())
        for name, values in self.quantities(fast.for_evaluation(), atoms).items():
            assert torch.equal(values, found[name]), name
        fast.to(torch.float32)
        assert_same_model(model, before)

    def test_save_and_load_bit_by_bit(self, tmp_path):
        model, atoms = self.make_model(), self.make_atoms()
        model.metadata["note"] = {"ä": [1, 2.5, None]}
        model.save(tmp_path / "model.safetensors")
        again = load_again(tmp_path / "model.safetensors", model)
        assert again.metadata == model.metadata and again.species == model.species and again.cutoff == model.cutoff
        found = self.quantities(again, atoms)
        for name, values in self.quantities(model, atoms).items():
            assert torch.equal(found[name], values), name

    def test_every_precision(self):
        """Structures may have either precision; the result has the precision of the model; half precision is refused."""
        model, atoms = self.make_model(), self.make_atoms()
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

    def test_edges_too_short(self):
        model, system = self.make_model(), System.from_atoms(self.make_atoms())
        with pytest.raises(InputError, match="got edges within .* Å, need those within .* Å; use Edges.build"):
            model(system, Edges.build(system, 0.9 * min(model.descriptor.cutoff, model.cutoff)))

    def test_foreign_species(self):
        model = self.make_model()
        with pytest.raises(InputError, match="got species Og; the model knows .*; use or train"):
            model.check_species([118])


def rows_of(quantity, values):
    """Tensors of a quantity, or of all its Blocks, dict by name, with the rows of one structure after another."""
    if not isinstance(values, Blocks):
        return {quantity: values}
    return {f"{quantity}, species {k}": rows for k, rows in values.onsite.items()} | {
        f"{quantity}, pairs {key}": rows for key, rows in values.hopping.items()
    }


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
