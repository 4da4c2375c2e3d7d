"""Snapshots: round trips to the stored precision, selections, and what is refused."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from ase import Atoms
from small_data import make_frames
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot

from ase_mlelec.data.frames import write_hdf5
from ase_mlelec.data.snapshots import LEVELS, Snapshot, Snapshots, is_snapshots, write_snapshots

GRID = (2, 3, 4)


def tiny(**changes):
    """Random numbers on a small grid; everything that a snapshot may hold."""
    rng = np.random.default_rng(0)
    atoms = Atoms("AlO", [[0, 0, 0], [0.1, 0.2, 0.3]], cell=[[2, 0, 0], [0.1, 3, 0], [0, 0.2, 4]], pbc=True)
    given = dict(
        atoms=atoms,
        shape=GRID,
        temperature=933.0,
        ldos=rng.random((24, 5)),
        dos=rng.random(5),
        density=rng.random(GRID),
        energy=-57.25,
        forces=rng.normal(size=(2, 3)),
        stress=rng.normal(size=(3, 3)),
        fermi_level=7.5,
        name="one",
        group="train",
    )
    return Snapshot(**(given | changes))


def write_tiny(path, *snapshots, attributes=ATTRIBUTES):
    write_snapshots(path, snapshots or [tiny()], energies=np.arange(5.0), attributes=attributes)
    return Snapshots(path)


def test_round_trip(tmp_path):
    """LDOS to half a step of max/65535, the density to float32, everything else to the bit."""
    wanted = tiny()
    stored = write_tiny(tmp_path / "a.h5")
    assert stored.attributes == ATTRIBUTES and np.array_equal(stored.energies, np.arange(5.0)) and len(stored) == 1
    found = stored[0]
    assert (found.name, found.group, found.shape, found.temperature) == ("one", "train", GRID, 933.0)
    assert found.atoms == wanted.atoms and found.energy == -57.25 and found.fermi_level == 7.5
    for key in ("dos", "forces", "stress"):
        assert np.array_equal(getattr(found, key), getattr(wanted, key)), key
    np.testing.assert_allclose(found.ldos, wanted.ldos, rtol=0, atol=0.6 * wanted.ldos.max() / LEVELS)
    np.testing.assert_allclose(found.density, wanted.density, rtol=1e-7)
    assert found.points is None and is_snapshots(tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_least_information(tmp_path):
    """Some points only, and no results of the calculation but the spectra; without name or group."""
    bare = dict(density=None, energy=None, forces=None, stress=None, fermi_level=None, name="", group="")
    found = write_tiny(tmp_path / "a.h5", tiny(ldos=np.zeros((3, 5)), points=np.array([1, 7, 23]), **bare))[0]
    assert np.array_equal(found.points, [1, 7, 23]) and not found.ldos.any()
    assert found.density is found.energy is found.forces is found.stress is found.fermi_level is None
    assert found.name == found.group == ""


def test_negative_values_are_stored_as_zero(tmp_path):
    ldos = tiny().ldos
    ldos[0] = -1e-6
    assert not write_tiny(tmp_path / "a.h5", tiny(ldos=ldos))[0].ldos[0].any()
    assert not write_tiny(tmp_path / "b.h5", tiny(ldos=-np.ones((24, 5))))[0].ldos.any()


def test_large_attributes(tmp_path):
    """Core charges of several elements on their radial meshes."""
    attributes = {**ATTRIBUTES, "core_charges": {symbol: {"r": np.linspace(0, 1, 5000).tolist()} for symbol in "HBC"}}
    assert write_tiny(tmp_path / "a.h5", attributes=attributes).attributes == attributes


def test_selections(tmp_path):
    groups = ("train", "test", "train", "size", "")
    stored = write_tiny(tmp_path / "a.h5", *(tiny(group=group, name=str(k)) for k, group in enumerate(groups)))
    assert stored.groups == list(groups) and [s.name for s in stored] == list("01234")
    part = stored.select("train", "")
    assert [s.name for s in part] == ["0", "2", "4"] and part.groups == ["train", "train", ""] and len(part) == 3
    assert [s.name for s in part.take([2, 0])] == ["4", "0"] and [s.name for s in stored.take([3])] == ["3"]
    assert len(stored.select("nothing")) == 0 and len(stored) == 5
    assert np.array_equal(part.energies, stored.energies) and part.attributes == stored.attributes


def test_identity_and_fingerprint(tmp_path):
    """Structure and grid make the identity, from which fingerprints are found; the spectra count in the other."""

    def moved(step):
        atoms = tiny().atoms
        atoms.positions[1, 2] += step
        return atoms

    stored = write_tiny(tmp_path / "a.h5", tiny(), tiny(dos=np.ones(5), name="two"), tiny(atoms=moved(1e-9)))
    assert stored.identity(0) == stored.identity(1) != stored.identity(2)
    each = [stored.take([k]).fingerprint() for k in range(3)]
    assert len(set(each)) == 3 and stored.fingerprint() not in each
    again = write_tiny(tmp_path / "b.h5", tiny(name="another"))
    assert again.fingerprint() == each[0] and again.identity(0) == stored.identity(0)
    finer = write_tiny(tmp_path / "c.h5", tiny(shape=(4, 3, 4), ldos=np.ones((48, 5)), density=None))
    assert finer.identity(0) != stored.identity(0)


def test_several_files_are_one_data_set(tmp_path):
    """As the same snapshots in one file; a file that is named twice counts once."""
    every = [tiny(name=name, group=group) for name, group in zip("abc", ("train", "test", "train"))]
    whole = write_tiny(tmp_path / "whole.h5", *every)
    write_tiny(tmp_path / "1.h5", every[0])
    write_tiny(tmp_path / "2.h5", *every[1:], attributes=ATTRIBUTES | {"valence_electrons": {"H": 1}})
    stored = Snapshots(tmp_path / "1.h5", tmp_path / "2.h5")
    assert [each.name for each in stored] == list("abc") and stored.groups == whole.groups
    assert stored.fingerprint() == whole.fingerprint() and stored.identity(2) == whole.identity(2)
    assert [each.name for each in stored.select("train").take([1])] == ["c"]
    assert [stored.file_of(k).name for k in range(3)] == ["1.h5", "2.h5", "2.h5"] and stored.n_points(2) == 24
    assert stored.attributes["valence_electrons"] == ATTRIBUTES["valence_electrons"] | {"H": 1}
    with pytest.warns(UserWarning, match="named more than once"):
        assert len(Snapshots(tmp_path / "1.h5", tmp_path / "." / "1.h5")) == 1


def test_spacing_of_several_files_is_the_finest(tmp_path):
    """In whatever order they are: models get their grids by it."""
    spacing = ATTRIBUTES["grid_spacing_A"]
    for name, factor in ("1", 1.0), ("2", 0.5), ("3", 2.0):
        write_tiny(tmp_path / f"{name}.h5", attributes=ATTRIBUTES | {"grid_spacing_A": factor * spacing})
    stored = Snapshots(*(tmp_path / f"{name}.h5" for name in "123"))
    assert stored.attributes["grid_spacing_A"] == 0.5 * spacing


@pytest.mark.parametrize(
    "attributes, energies, message",
    [
        ({"xc": "pbe"}, 5, "functionals differ: lda_pz and pbe"),
        ({"valence_electrons": {"Al": 11}}, 5, "numbers of valence electrons of Al differ: 3 and 11"),
        ({}, 6, "energy grids differ"),
    ],
)
def test_several_files_that_are_unlike(tmp_path, attributes, energies, message):
    write_tiny(tmp_path / "1.h5")
    free = dict(ldos=np.zeros((24, energies)), dos=np.zeros(energies), density=None, fermi_level=None)
    grid = np.arange(float(energies))
    write_snapshots(tmp_path / "2.h5", [tiny(**free)], energies=grid, attributes=ATTRIBUTES | attributes)
    refused(rf"1\.h5 and .*2\.h5: {message}", lambda: Snapshots(tmp_path / "1.h5", tmp_path / "2.h5"))


def test_iterable_is_taken_one_by_one(tmp_path):
    """Several snapshots need not fit into memory together."""
    write_snapshots(
        tmp_path / "a.h5", (make_snapshot(k, n_points=9) for k in range(3)), energies=ENERGIES, attributes=ATTRIBUTES
    )
    assert [s.name for s in Snapshots(tmp_path / "a.h5")] == ["al-0", "al-1", "al-2"]


# what is refused ---------------------------------------------------------------------------------------------------


def refused(message, function):
    with pytest.raises(ValueError, match=message) as caught:
        function()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(ldos=np.ones((23, 5))), r"snapshot 'one': got an LDOS of shape \(23, 5\), need 24 points x 5 energies"),
        (dict(ldos=np.ones((2, 3, 4, 5))), "got an LDOS of shape .* flatten the grid"),
        (dict(dos=np.ones(6)), "need 24 points x 6 energies"),
        (dict(points=np.arange(5)), "need 5 points x 5 energies"),
        (dict(points=np.arange(24) + 1), "need flat indices from 0 to 23; correct them"),
        (dict(points=np.arange(0), ldos=np.ones((0, 5))), "got points that are none"),
        (
            dict(density=np.ones((4, 3, 2))),
            r"got a density of shape \(4, 3, 2\), need \(2, 3, 4\); give it on the grid",
        ),
        (dict(shape=(2, 12)), r"got a grid \(2, 12\), need three positive numbers"),
        (dict(shape=(2, 3, 0)), "got a grid .*need three positive numbers"),
        (
            dict(dos=np.full(5, np.nan)),
            "got NaN or infinity in LDOS or DOS, need finite numbers; check the calculation",
        ),
        (dict(ldos=np.full((24, 5), np.inf)), "got NaN or infinity"),
    ],
)
def test_snapshots_that_do_not_fit(changes, message):
    refused(message, lambda: tiny(**changes))


def test_other_energies(tmp_path):
    """Nothing is left of a file that could not be written."""
    snapshot = tiny()
    refused(
        "snapshot 'one': got 5 energies, need the 6 of the file; write it to a file of its own",
        lambda: write_snapshots(tmp_path / "a.h5", [snapshot], energies=np.arange(6.0), attributes={}),
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:100], lambda data: b""])
def test_truncated(tmp_path, damage):
    path = tmp_path / "a.h5"
    write_tiny(path, *(tiny() for _ in range(20)))
    path.write_bytes(damage(path.read_bytes()))
    refused(
        "a.h5: missing, truncated or not an HDF5 file of snapshots .*write or copy it again", lambda: Snapshots(path)[0]
    )


def test_foreign_files(tmp_path):
    refused("none.h5: missing, truncated or not", lambda: Snapshots(tmp_path / "none.h5"))
    write_hdf5(tmp_path / "frames.h5", make_frames(2))
    refused(
        "frames.h5: not a file of snapshots, it is a data set; convert files of pp.x or MALA with 'mlelec convert', "
        "or write it with write_snapshots",
        lambda: Snapshots(tmp_path / "frames.h5"),
    )
    (tmp_path / "text").write_text("1 2 3")
    assert not is_snapshots(tmp_path / "frames.h5") and not is_snapshots(tmp_path / "text")
    with h5py.File(tmp_path / "half.h5", "w") as file:
        file.attrs["ase_mlelec_snapshots"] = "{"
    refused("half.h5: missing, truncated or not an HDF5 file of snapshots", lambda: Snapshots(tmp_path / "half.h5"))
    with h5py.File(tmp_path / "half.h5", "a") as file:
        file.attrs["ase_mlelec_snapshots"] = "{}"
    refused("half.h5: missing, truncated or not an HDF5 file of snapshots", lambda: Snapshots(tmp_path / "half.h5"))


def test_newer_files(tmp_path):
    write_tiny(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["ase_mlelec_snapshots"] = json.dumps({"format_version": 2})
    refused(
        "a.h5 has data format 2, this version reads up to 1; update ase-mlelec", lambda: Snapshots(tmp_path / "a.h5")
    )


def test_snapshots_are_not_changed():
    snapshot = tiny()
    assert replace(snapshot, name="two").ldos is snapshot.ldos
    with pytest.raises(AttributeError):
        snapshot.name = "two"


# damaged files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(temperature=np.nan), "snapshot 'one': temperature is NaN"),
        (dict(temperature=-1.0), "got a temperature of -1 K"),
        (dict(fermi_level=np.inf), "fermi_level is NaN or infinite"),
        (dict(energy=np.nan), "energy is NaN"),
        (dict(forces=np.full((2, 3), np.nan)), "forces is NaN or infinite"),
        (dict(density=np.full(GRID, np.inf)), "density is NaN or infinite"),
    ],
)
def test_numbers_that_are_not_finite(changes, message):
    refused(message, lambda: tiny(**changes))


def damage(name, value):
    def change(file):
        if name in file["00000"]:
            del file["00000"][name]
        if value is not None:
            file["00000"][name] = value

    return change


@pytest.mark.parametrize(
    "change, cause",
    [
        (damage("dos", None), "no /00000/dos in it"),
        (damage("dos", np.full(5, np.nan)), "/00000/dos is NaN or infinite"),
        (damage("numbers", [13, 999]), "/00000/numbers: got 13 to 999, need 0 to 118"),
        (damage("numbers", [13, 0]), "/00000/numbers are no atomic numbers"),
        (damage("cell", np.zeros((3, 3))), "no volume"),
        (damage("ldos", np.zeros((24, 5))), "is of type"),
        (damage("positions", np.zeros((3, 3))), "/00000/positions has shape"),
        (damage("forces", np.zeros((3, 3))), "/00000/forces has shape"),
        (damage("pbc", [2, 0, 1]), "/00000/pbc"),
        (lambda file: file["00000"].attrs.update(shape=[2, -3, 4]), "attribute 'shape'"),
        (lambda file: file["00000"].attrs.update(shape=[10**6] * 3), "/00000/ldos has shape"),
        (lambda file: file["00000"]["ldos"].attrs.update(scale=np.nan), "'scale' of /00000/ldos"),
        (lambda file: file["00000"].attrs.update(temperature="warm"), "'temperature'"),
        (lambda file: file.attrs.update(ase_mlelec_snapshots='{"format_version": 0}'), "got 0 as its data format"),
        (lambda file: file.attrs.update(ase_mlelec_snapshots="[1]"), "holds a list"),
        (lambda file: file["energies"].write_direct(np.array([0.0, 2, 1, 3, 4])), "/energies are not"),
    ],
)
def test_damaged(tmp_path, change, cause):
    path = tmp_path / "a.h5"
    write_tiny(path)
    with h5py.File(path, "a") as file:
        change(file)
    refused(f"a.h5: .*{cause}.*(write or copy|calculate) it again", lambda: Snapshots(path)[0])
