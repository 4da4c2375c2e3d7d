"""Our HDF5 files when they are damaged, forged or of another kind: one ValueError that names the file."""

import h5py
import numpy as np
import pytest
from small_bilayers import graphene_bilayer, graphene_frame
from small_data import ENERGIES, make_frames
from small_ldos import ATTRIBUTES, make_snapshot
from small_ldos import ENERGIES as LDOS_ENERGIES

from ase_mlelec.data.frames import read_frames, write_hdf5
from ase_mlelec.data.hamiltonians import Hamiltonians, is_hamiltonians, write_hamiltonians
from ase_mlelec.data.snapshots import Snapshots, is_snapshots, write_snapshots

MARKS = {"frames": "ase_mlelec", "snapshots": "ase_mlelec_snapshots", "hamiltonians": "ase_mlelec_hamiltonians"}


def everything(kind, path):
    """All that there is to read in a file."""
    if kind == "frames":
        return read_frames(path).frames
    data = (Snapshots if kind == "snapshots" else Hamiltonians)(path)
    data.fingerprint()
    return list(data)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    frames = make_frames(3)
    del frames.frames[1].labels["virial"]
    write_hdf5(folder / "frames.h5", frames)
    write_snapshots(
        folder / "snapshots.h5",
        [make_snapshot(k, n_points=9) for k in range(2)],
        energies=LDOS_ENERGIES,
        attributes=ATTRIBUTES,
    )
    write_hamiltonians(
        folder / "hamiltonians.h5", [graphene_frame(graphene_bilayer((0, 0), 3.4), "g", "train")], attributes={}
    )
    return folder


@pytest.fixture
def changed(files, tmp_path):
    def function(kind, change):
        path = tmp_path / f"{kind}.h5"
        path.write_bytes((files / path.name).read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return function


def refused(kind, path, message):
    with pytest.raises(ValueError, match=message) as caught:
        everything(kind, path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def put(name, data, **options):
    """Change that writes another dataset in the place of one."""

    def change(file):
        if name in file:
            del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def hollow(name, shape, chunks=None):
    """Change that claims a shape and stores nothing: a file of a few kB, an array of TB."""

    def change(file):
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, kind, chunks=chunks)

    return change


def linked(name, link):
    def change(file):
        del file[name]
        file[name] = link

    return change


def elsewhere(file):
    """The data of positions in another file, whatever it holds."""
    del file["positions"]
    file.create_dataset("positions", (10, 3), float, external=[("/etc/hostname", 0, 240)])


def virtual(file):
    layout = h5py.VirtualLayout((10, 3), float)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (10, 3))
    del file["positions"]
    file.create_virtual_dataset("positions", layout)


FRAMES = [
    (put("count", [4, 2, 5]), "count claims other numbers of atoms than the 10"),
    (put("count", [4, -2, 8]), "count claims other numbers"),
    (put("count", [2**62, 2**62, 10]), "count claims other numbers"),
    (put("count", [4.0, 2.0, 4.0]), "/count is of type float64, need int"),
    (put("count", [[4, 2, 4]]), r"/count has shape \(1, 3\), need \(any,\)"),
    (put("numbers", [29] * 9 + [119]), "numbers holds some that are no atomic numbers"),
    (put("numbers", np.full(10, 2**64 - 1, dtype=np.uint64)), "/numbers holds 18446744073709551615"),
    (put("positions", np.full((10, 3), np.nan)), r"/positions is NaN or infinite \(entry 1, 1\)"),
    (put("positions", np.zeros((10, 3), dtype=complex)), "/positions is of type complex128, need float"),
    (put("positions", np.zeros(10, dtype="f8,f8")), "positions has shape|positions is of type"),
    (put("pbc", np.full((3, 3), 2)), "/pbc holds other numbers than 0 and 1"),
    (put("cell", np.zeros((2, 3, 3))), r"/cell has shape \(2, 3, 3\), need \(3, 3, 3\)"),
    (put("name", [1, 2, 3]), "/name is of type int64, need str"),
    (put("name", np.array([b"\xff\xfe"] * 3)), "frames.h5: missing, truncated or not an HDF5 data set .*decode"),
    (put("energies", [1.0, np.inf]), "/energies is NaN or infinite"),
    (put("labels/energy", [1.0, 2.0]), r"labels/energy has shape \(2,\), need \(3,\)"),
    (put("labels/forces", np.zeros((9, 3))), r"labels/forces has shape \(9, 3\), need \(10, 3\)"),
    (put("labels/dos", np.zeros((3, len(ENERGIES) + 1))), "labels/dos has shape"),
    (put("labels/virial", np.full((2, 3, 3), np.nan)), "labels/virial is NaN"),
    (put("has/virial", [True, True, True]), r"labels/virial has shape \(2, 3, 3\), need \(3, 3, 3\)"),
    (put("labels", [1.0]), "/labels is no group"),
    (lambda file: file.pop("labels"), "no /labels in it"),
    (lambda file: file.pop("name"), "no /name in it"),
    (hollow("positions", (10**12, 3)), "positions has shape .*need"),
    (hollow("count", (10**11,)), r"/count has shape \(100000000000,\), but only 0 bytes are stored"),
    (hollow("numbers", (10**11,), (1000,)), "but only 0 bytes are stored"),
    (linked("positions", h5py.ExternalLink("/etc/hostname", "/x")), "positions is a link; put the data themselves"),
    (linked("positions", h5py.SoftLink("/positions")), "frames.h5: .*positions"),
    (elsewhere, "the data of /positions are in another file"),
    (virtual, "the data of /positions are in another file"),
    (put("positions", np.zeros((10, 3)), compression="lzf"), "packed in a way that is not read"),
]


@pytest.mark.parametrize("change, message", FRAMES)
def test_data_sets(change, message, changed):
    refused("frames", changed("frames", change), message)


@pytest.mark.parametrize(
    "change, message",
    [
        (put("00000/ldos", np.zeros((9, 3))), "ldos has shape"),
        (put("00000/dos", np.zeros(3)), "00000/dos has shape"),
        (put("00000/forces", np.zeros((1, 3))), "00000/forces has shape"),
        (put("00000/energy", np.nan), "00000/energy is NaN"),
        (put("00000/points", np.arange(9) + 10**6), "snapshots.h5: .*points that are none or outside"),
        (lambda file: file["00000"].attrs.update(shape=[2, 2]), "attribute 'shape' of /00000 is not three"),
        (lambda file: file["00000"].attrs.update(shape=[-1, 2, 2]), "attribute 'shape'"),
        (lambda file: file["00000"].attrs.update(temperature="hot"), "'temperature' of /00000 is missing or no number"),
        (lambda file: file["00000/ldos"].attrs.update(scale=np.inf), "'scale' of /00000/ldos is NaN"),
        (lambda file: file["00000"].attrs.update(group=3), "'group' of /00000 is missing or no text"),
        (put("x", [1.0]), "/x is no group"),
    ],
)
def test_snapshots(change, message, changed):
    refused("snapshots", changed("snapshots", change), message)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda file: file["00000"].attrs.update(orbitals="{"), "orbitals.* is no JSON"),
        (lambda file: file["00000"].attrs.update(orbitals="[1, 2, 3, 4]"), "need a name of each"),
        (lambda file: file["00000"].attrs.update(orbitals='["pz"]'), "got 1 orbitals of 4 functions"),
        (
            lambda file: file["00000/row"].write_direct(np.full(file["00000/row"].shape, 99, dtype=np.int32)),
            "/00000/row: got 99 to 99, need 0 to 3",
        ),
        (
            lambda file: file["00000/which"].write_direct(np.full(file["00000/which"].shape, -1, dtype=np.int32)),
            "/00000/which: got -1 to -1",
        ),
        (put("00000/atom", [0, 1, 2, 7]), "/00000/atom: got 0 to 7, need 0 to 3"),
        (put("00000/r_vectors", np.ones((3, 3), dtype=int)), "need R = 0 first|/00000/which"),
        (put("00000/r_vectors", np.zeros((0, 3), dtype=int)), "got 0 lattice vectors"),
        (
            lambda file: file["00000/value"].write_direct(np.full(file["00000/value"].shape, np.nan, dtype=np.float32)),
            "value is NaN",
        ),
        (put("00000/cell", np.zeros((3, 3))), "hamiltonians.h5: "),
    ],
)
def test_hamiltonians(change, message, changed):
    refused("hamiltonians", changed("hamiltonians", change), message)


@pytest.mark.parametrize("kind", MARKS)
@pytest.mark.parametrize(
    "header, message",
    [
        (3.5, "no text"),
        (np.arange(3), "no text"),
        ("{", "no JSON"),
        ("[" * 10**4, "no JSON"),
        ("[1]", "need a dict"),
        ("{}", "got None as its data format"),
        ('{"format_version": "1"}', "got '1' as its data format"),
        ('{"format_version": true}', "got True as"),
        ('{"format_version": 1e400}', "1e400|inf"),
        ('{"format_version": 1, "x": NaN}', "NaN in the attribute"),
        ('{"format_version": -1}', "got -1 as"),
        ('{"format_version": 99}', "99|newer"),
    ],
    ids=range(12),
)
def test_headers(kind, header, message, changed):
    refused(kind, changed(kind, lambda file: file.attrs.__setitem__(MARKS[kind], header)), message)


@pytest.mark.parametrize("kind", MARKS)
def test_files_of_the_other_kinds(kind, files):
    for other in MARKS.keys() - {kind}:
        with pytest.raises(ValueError, match=f"{other}.h5: not a .*, it is a (data set|file of).*; "):
            everything(kind, files / f"{other}.h5")


@pytest.mark.parametrize("kind", MARKS)
def test_bytes_that_are_wrong(kind, files, tmp_path):
    """Cut anywhere, and with bytes changed anywhere: what is still read is finite."""
    rng = np.random.default_rng(0)
    whole, path = (files / f"{kind}.h5").read_bytes(), tmp_path / "a.h5"
    for trial in range(60):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.integers(len(data))]
        else:
            for place in rng.integers(len(data) if trial % 3 == 1 else 4096, size=rng.integers(1, 9)):
                data[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        path.write_bytes(data)
        is_snapshots(path), is_hamiltonians(path)
        try:
            found = everything(kind, path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            continue
        assert all(np.isfinite(item.atoms.positions).all() for item in found)


@pytest.mark.parametrize("kind", MARKS)
def test_text_that_claims_to_be_longer_than_the_file(kind, files, tmp_path):
    """The library would take the memory, up to 4 GB, before it looks."""
    data = bytearray((files / f"{kind}.h5").read_bytes())
    heap = data.find(b"GCOL").to_bytes(8, "little")
    place = next(k for k in range(12, len(data), 8) if data[k : k + 8] == heap)
    data[place - 1] = 0x7F
    (tmp_path / "a.h5").write_bytes(data)
    refused(kind, tmp_path / "a.h5", "truncated or not an HDF5 .*a text of [0-9]{10} bytes at byte")


@pytest.mark.parametrize("kind", MARKS)
def test_heap_with_an_entry_of_no_length(kind, files, tmp_path):
    """The library would read it for ever."""
    data = bytearray((files / f"{kind}.h5").read_bytes())
    heap = data.find(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)
    (tmp_path / "a.h5").write_bytes(data)
    refused(kind, tmp_path / "a.h5", "truncated or not an HDF5 .*an entry of wrong length at byte")


def test_unknown_labels_are_named(changed):
    path = changed("frames", put("labels/spin", [1.0, 2.0, 3.0]))
    with pytest.warns(UserWarning, match="frames.h5: the labels spin are not known and not read"):
        assert "spin" not in read_frames(path).counts


def test_attributes_that_are_no_json(tmp_path):
    frames = make_frames(1)
    frames.attributes["x"] = float("nan")
    with pytest.raises(ValueError, match="a.h5: .*attributes"):
        write_hdf5(tmp_path / "a.h5", frames)
    assert not list(tmp_path.iterdir())
