"""Parts of data sets in files: by group, or at random where no structure has a group."""

import numpy as np
import pytest
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot

from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.recipes.parts import parts_of


def parts(folder, *groups, **options):
    path = folder / "a.h5"
    snapshots = [make_snapshot(seed, group, n_points=5) for seed, group in enumerate(groups)]
    write_snapshots(path, snapshots, energies=ENERGIES, attributes=ATTRIBUTES)
    text = {"data": {"files": ["a.h5"], **options}, "bispectrum": {}, "ldos": {}, "output": {"model": "a.safetensors"}}
    found = parts_of(Snapshots(path), "snapshots", parse_config(text))
    dos = [snapshot.dos for snapshot in snapshots]
    return {
        name: [next(k for k, each in enumerate(dos) if np.array_equal(each, s.dos)) for s in part]
        for name, part in found.items()
    }


def test_groups(tmp_path):
    found = parts(tmp_path, "train", "", "validation", "test", "other")
    assert found == {"train": [0, 1], "validation": [2], "test": [3]}


def test_without_groups(tmp_path):
    """The held-out structures are a random choice that depends on the seed alone."""
    found = parts(tmp_path, *[""] * 6, validation_fraction=0.4)
    assert len(found["validation"]) == 2 and found["test"] == []
    assert sorted(found["train"] + found["validation"]) == [0, 1, 2, 3, 4, 5]
    assert found == parts(tmp_path, *[""] * 6, validation_fraction=0.4)
    assert parts(tmp_path, "", "", validation_fraction=0.1)["validation"] == []


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match=r"got 1 snapshots of the groups test, none of them to train on"):
        parts(tmp_path, "test")
