"""What every head must obey."""

import json

import torch

from ase_mlelec.descriptors import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing.descriptors import assert_slope
from ase_mlelec.testing.numbers import assert_close
from ase_mlelec.testing.structures import random_rotation, turned


class HeadContract:
    """Locality, precision and round trip of a Head that gives one row per center.

    A subclass writes ``make_head()`` -> Head in float64 and ``make_environment()`` -> Environment of several centers
    that the head understands, the same every time.
    """

    tolerance = 1e-13
    single = 1e-5

    def make_head(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_head()")

    def make_environment(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_environment()")

    def test_one_row_per_center(self):
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


class HeadOfPairsContract:
    """Symmetry, precision, gradient and round trip of a HeadOfPairs.

    A subclass writes ``make_head()`` -> HeadOfPairs and ``make_descriptor()`` -> the Descriptor that it reads, in
    float64, the same every time, and ``make_atoms()``.
    """

    tolerance = 1e-12
    single = 2e-5

    def make_head(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_head()")

    def make_atoms(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_atoms()")

    def make_descriptor(self):
        raise NotImplementedError(f"{type(self).__name__} must define make_descriptor()")

    def blocks(self, head, atoms, dtype=torch.float64):
        with torch.no_grad():
            return self.blocks_of(head, System.from_atoms(atoms, dtype))

    def blocks_of(self, head, system):
        descriptor = self.make_descriptor().to(system.positions.dtype)
        edges = Edges.build(system, descriptor.cutoff)
        return head(descriptor(system, edges), edges)

    def test_blocks_of_all_atoms_and_pairs(self):
        """Each pair within the cutoff once, from the species that comes first; on-site blocks are symmetric."""
        head, atoms = self.make_head(), self.make_atoms()
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

    def test_rotation(self):
        """Blocks turn with their frames: nothing changes."""
        head, atoms = self.make_head(), self.make_atoms()
        wanted, found = self.blocks(head, atoms), self.blocks(head, turned(atoms, random_rotation()))
        for part in ("onsite", "hopping"):
            for key, values in getattr(wanted, part).items():
                assert_close(getattr(found, part)[key], values, self.tolerance, f"{part} {key}")

    def test_float32(self):
        head, atoms = self.make_head(), self.make_atoms()
        wanted, found = self.blocks(head, atoms), self.blocks(head.float(), atoms, torch.float32)
        for part in ("onsite", "hopping"):
            for key, values in getattr(found, part).items():
                assert values.dtype == torch.float32
                assert_close(values, getattr(wanted, part)[key], self.single, f"{part} {key}")

    def test_gradient_of_positions(self):
        """Of all blocks together, along a random move of the atoms and a random strain."""
        head, atoms = self.make_head(), self.make_atoms()

        def scalar(system):
            blocks, generator = self.blocks_of(head, system), torch.Generator().manual_seed(1)
            # the sum over pairs: there are more or fewer of them at the cutoff
            totals = [part.sum(dim=0) for part in (*blocks.onsite.values(), *blocks.hopping.values())]
            return sum((torch.randn(part.shape, generator=generator, dtype=part.dtype) * part).sum() for part in totals)

        assert_slope(scalar, System.from_atoms(atoms))

    def test_arguments_rebuild_it(self):
        head, atoms = self.make_head(), self.make_atoms()
        again = type(head)(**json.loads(json.dumps(head.arguments()))).to(torch.float64)
        again.load_state_dict(head.state_dict())
        found, wanted = self.blocks(again, atoms), self.blocks(head, atoms)
        assert all(torch.equal(found.onsite[k], values) for k, values in wanted.onsite.items())
        assert all(torch.equal(found.hopping[key], values) for key, values in wanted.hopping.items())
