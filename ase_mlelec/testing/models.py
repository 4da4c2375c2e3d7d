"""What every model must obey."""
import copy

import pytest
import torch
from ase.calculators.calculator import InputError

from ase_mlelec.bundle import load_model
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing.numbers import assert_close


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
