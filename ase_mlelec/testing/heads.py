"""What every head must obey."""
import json

import torch

from ase_mlelec.descriptors import Environment
from ase_mlelec.testing.numbers import assert_close


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
