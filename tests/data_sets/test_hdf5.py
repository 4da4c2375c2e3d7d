"""What our three formats have in common: selections, fingerprints, files of before."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from small_data import make_frames

from ase_mlelec.data.data_set import Frame, Frames, join
from ase_mlelec.data.frames import read_hdf5, write_hdf5
from ase_mlelec.data.hamiltonians import Hamiltonians, is_hamiltonians
from ase_mlelec.data.hdf5 import HAMILTONIANS, SNAPSHOTS, created, is_of, opened
from ase_mlelec.data.snapshots import Snapshots, is_snapshots

TESTS = Path(__file__).parent.parent / "data"
EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "data"


@pytest.mark.parametrize(
    "kind, path, length, fingerprint",
    [
        (read_hdf5, TESTS / "frames_1.h5", 2, "997d537020016b9c"),
        (read_hdf5, EXAMPLES / "silicon.h5", 395, "7b36da50064bdce4"),
        (Snapshots, EXAMPLES / "aluminium.h5", 141, "028aa875e41a00e4"),
        (Hamiltonians, EXAMPLES / "graphene.h5", 23, "2f29be020b90e3a3"),
    ],
    ids=["frames of version 1", "frames", "snapshots", "hamiltonians"],
)
def test_files_of_before(kind, path, length, fingerprint):
    """They are found unchanged: model files name their data by these fingerprints."""
    if not path.exists():
        pytest.skip("reads the data of the checkout")
    data = kind(path)
    assert len(data) == length and data.fingerprint() == fingerprint
    parts = [data.select(group) for group in sorted(set(data.groups))]
    assert sum(len(part) for part in parts) == length and len(data.select(*set(data.groups))) == length
    for part in parts:
        assert type(part) is type(data) and part.attributes is data.attributes
    last = data.take([length - 1])
    assert last.fingerprint() != fingerprint
    assert [item.name for item in last] == [data[length - 1].name]
    assert [item.group for item in last] == last.groups == [data.groups[-1]]


def test_snapshots_and_hamiltonians_are_told_apart(tmp_path):
    for kind, name in ((SNAPSHOTS, "s.h5"), (HAMILTONIANS, "h.h5")):
        with created(tmp_path / name, kind, {"settings": "none"}):
            pass
    assert is_snapshots(tmp_path / "s.h5") and not is_hamiltonians(tmp_path / "s.h5")
    assert is_of(tmp_path / "h.h5", HAMILTONIANS) and not is_of(tmp_path / "no.h5", HAMILTONIANS)
    with pytest.raises(
        ValueError, match=r"s\.h5: not a file of Hamiltonians, it is a file of snapshots; convert folders of "
    ):
        Hamiltonians(tmp_path / "s.h5")
    with opened(tmp_path / "h.h5", HAMILTONIANS) as (file, attributes):
        assert attributes == {"settings": "none"} and not len(file)


def test_attributes_that_no_reader_takes(tmp_path):
    with pytest.raises(ValueError, match="the attributes cannot be written .*; take out NaN and infinity"):
        with created(tmp_path / "s.h5", SNAPSHOTS, {"dos_width_eV": float("nan")}):
            pass
    assert not list(tmp_path.iterdir())


def test_frames_by_group_and_by_condition(tmp_path):
    frames = Frames([Frame(Atoms("Cu"), {"energy": k}, f"cu-{k}", group) for k, group in enumerate("aab")])
    assert frames.groups == ["a", "a", "b"] and frames[2].name == "cu-2"
    assert [frame.name for frame in frames.select("a")] == ["cu-0", "cu-1"]
    assert len(frames.select()) == 0 and len(frames.select("a", "b", "c")) == 3
    assert [frame.name for frame in frames.where(lambda frame: frame.labels["energy"] > 0)] == ["cu-1", "cu-2"]
    with pytest.deprecated_call(match=r"select\(condition\) is now where\(condition\)"):
        assert len(frames.select(lambda frame: frame.group == "b")) == 1
    write_hdf5(tmp_path / "a.h5", frames)
    assert read_hdf5(tmp_path / "a.h5").take([2, 0]).groups == ["b", "a"]


def test_fingerprints_see_every_label(tmp_path):
    one = Frames([Frame(Atoms("Cu"), {"energy": 1.0})])
    others = [
        Frames([Frame(Atoms("Cu"), {"energy": 2.0})]),
        Frames([Frame(Atoms("Ag"), {"energy": 1.0})]),
        Frames([Frame(Atoms("Cu"), {"dos": np.ones(1)})]),
        Frames([Frame(Atoms("Cu"), {"energy": 1.0})], np.ones(1)),
    ]
    assert len({data.fingerprint() for data in (one, *others)}) == 5


def test_links_out_of_a_file_are_no_structures(tmp_path):
    with created(tmp_path / "h.h5", HAMILTONIANS, {"energy_reference": "vacuum level"}) as file:
        file["00000"] = h5py.ExternalLink("other.h5", "/")
    (tmp_path / "other.h5").write_bytes((tmp_path / "h.h5").read_bytes())
    with pytest.raises(ValueError, match=r"h\.h5: /00000 is a link"):
        Hamiltonians(tmp_path / "h.h5")


@pytest.mark.parametrize(
    "own, other, message",
    [
        (
            {"dos_width_eV": 0.5},
            {"dos_width_eV": 0.3},
            r"Gaussian widths of the levels \(eV\) differ: 0.5 and 0.3; make all",
        ),
        ({"energy_reference": "vacuum"}, {"energy_reference": "average"}, "zeros of energy differ: vacuum and average"),
        (
            {"valence_electrons": {"Mg": 2}},
            {"valence_electrons": {"Mg": 10}},
            "valence electrons of Mg differ: 2 and 10",
        ),
        (
            {"settings": {"electronic_temperature_K": 300.0}},
            {"settings": {"electronic_temperature_K": 5000.0}},
            r"temperatures of the electrons \(K\) differ: 300 and 5000",
        ),
    ],
)
def test_data_of_different_settings(own, other, message):
    """Numbers of both would be taken for those of one."""
    frames = make_frames(2)
    with pytest.raises(ValueError, match=message):
        join([replace(frames, attributes=own), replace(frames, attributes=other)])


def test_attributes_of_joined_data():
    frames, both = make_frames(2), {"dos_width_eV": 0.5, "energy_reference": "vacuum"}
    own = {"valence_electrons": {"Mg": 2}, "bands_complete_below_eV": 9.0, "fermi_levels_eV": [1, 2], "a": None}
    other = {
        "valence_electrons": {"O": 6},
        "bands_complete_below_eV": 8.0,
        "fermi_levels_eV": [0, 1],
        "projected_shares": [1, 1],
    }
    found = join([replace(frames, attributes=own | both), replace(frames, attributes=other | both)]).attributes
    expected = {"valence_electrons": {"Mg": 2, "O": 6}, "bands_complete_below_eV": 8.0, "fermi_levels_eV": [0, 2]}
    assert found == both | expected | {"projected_shares": [1, 1], "a": None}
