"""Checkpoints come back as they were, or are refused in one line."""

import resource

import numpy as np
import pytest
import torch

from ase_mlelec.train.checkpoint import load_checkpoint, save_checkpoint

STATE = {
    "model": {"a": torch.arange(600.0).reshape(20, 30), "empty": torch.zeros(0)},
    "rows": [{"step": 1, "e": 0.5}],
    "identity": {"steps": 3},
}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "a.checkpoint", STATE)
    return tmp_path / "a.checkpoint"


def test_round_trip(path):
    found = load_checkpoint(path)
    assert torch.equal(found["model"]["a"], STATE["model"]["a"])
    assert found["rows"] == STATE["rows"] and found["identity"] == STATE["identity"]


def test_damage(path):
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for k in range(100):
        damaged = bytearray(content)
        place = rng.integers(len(damaged))
        if k % 4:
            damaged[place] ^= 1 << rng.integers(8)
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.checkpoint is (truncated or no|damaged).*remove it") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_nan_is_not_saved(path):
    content = path.read_bytes()
    with pytest.raises(ValueError, match="a.checkpoint: model.a holds NaN or infinity, and is not saved"):
        save_checkpoint(path, {"model": {"a": torch.tensor([1.0, torch.nan])}})
    assert path.read_bytes() == content


@pytest.mark.parametrize("room", [0, 500, 2000])
def test_full_disk(path, room):
    content, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="a.checkpoint: cannot be written .* the former checkpoint is") as caught:
            save_checkpoint(path, STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [(path.name, content)]
