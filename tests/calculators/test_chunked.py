"""Results of chunks in one array."""

import pytest
import torch

from ase_mlelec.calculators.chunked import Chunked


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("sizes", [[3, 0, 4], [7], [0, 7]])
def test_rows_in_their_order(planes, sizes):
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    chunked = Chunked(7, planes=planes)
    for part in rows.split(sizes):
        chunked.add(part)
    assert torch.equal(chunked.whole, rows)
    assert chunked.whole.T.is_contiguous() == (planes and len(sizes) > 1)


def test_a_missing_chunk_is_told():
    chunked = Chunked(3)
    chunked.add(torch.ones(2))
    with pytest.raises(RuntimeError, match="2 of 3 rows have been added"):
        chunked.whole


def test_nothing_at_all():
    chunked = Chunked(0)
    chunked.add(torch.ones(0, 3))
    assert chunked.whole.shape == (0, 3)
