"""The script that times every capability on a GPU runs, here on the processor and for tiny structures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def gpu():
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    try:
        import gpu as module

        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_every_capability_is_timed(gpu):
    rows = gpu.main(["--device", "cpu", "--tiny"])
    assert [row["what"] for row in rows] == list(gpu.CAPABILITIES)
    for row in rows:
        assert min(row["processor"], row["float64"], row["float32"]) > 0
        assert row["float64 differs"] < 1e-4  # models in single precision are compared with double precision
        assert row["float32 differs"] < 1e-2
    text = gpu.report(rows, "a processor")
    assert all(name in text for name in gpu.CAPABILITIES)


def test_without_a_gpu_it_says_so(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no GPU here" in capsys.readouterr().err


def test_differences_are_relative_to_the_largest_number(gpu):
    found = [np.array([1.0, 4.0]), np.array(2.0)], [np.array([1.0, 5.0]), np.array(2.0)]
    assert gpu.difference(*found) == pytest.approx(0.2)
