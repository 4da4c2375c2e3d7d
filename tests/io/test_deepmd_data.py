"""deepmd-kit's data folders: what changes the meaning of the arrays, what is not read, and damaged files."""

import re
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest

from ase_mlelec.data.frames import read_frames
from ase_mlelec.io.deepmd import read_data
from ase_mlelec.io.npy import read_npy

BOX = np.diag([8.0, 7.0, 6.0]).ravel()


def positions(n_frames, n_atoms):
    return np.random.default_rng(0).uniform(0, 6, (n_frames, 3 * n_atoms))


def write(folder, types=(0, 1, 1), names="O H", name="set.000", n_frames=2, **arrays):
    """A system of two frames of O, H, H in one set; ``arrays`` are further files, or take the place of these."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "type.raw").write_text("\n".join(map(str, types)))
    (folder / "type_map.raw").write_text(names)
    usual = {
        "coord": positions(n_frames, len(types)),
        "box": np.tile(BOX, (n_frames, 1)),
        "energy": -np.arange(1.0, n_frames + 1),
    }
    for stem, values in (usual | arrays).items():
        np.save(folder / name / f"{stem}.npy", values)
    return folder


def refused(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_data(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


# what changes the meaning ------------------------------------------------------------------------------------------


def test_every_frame_of_a_mixed_system_has_its_own_atoms(tmp_path):
    """type.raw holds zeros alone there, and -1 is a place without atom."""
    force = np.arange(18.0).reshape(2, 9)
    write(
        tmp_path,
        types=(0, 0, 0),
        real_atom_types=np.array([[0, 1, 1], [1, -1, 1]]),
        force=force,
        atom_dos=np.arange(24.0).reshape(2, 12),
    )
    (water, one), (hydrogen, two) = read_data(tmp_path)
    assert water.get_chemical_symbols() == ["O", "H", "H"] and hydrogen.get_chemical_symbols() == ["H", "H"]
    stored = positions(2, 3).reshape(2, 3, 3)
    assert np.array_equal(hydrogen.positions, stored[1, [0, 2]]) and np.array_equal(water.positions, stored[0])
    assert np.array_equal(two["forces"], force.reshape(2, 3, 3)[1, [0, 2]]) and one["forces"].shape == (3, 3)
    assert np.array_equal(two["ados"], np.arange(24.0).reshape(2, 3, 4)[1, [0, 2]])
    assert (one["energy"], two["energy"]) == (-1, -2)


@pytest.mark.parametrize(
    "types, message",
    [
        ([[0, 1, 2], [0, 1, 1]], "does not name the chemical species of all types"),
        ([[0, 1, 1], [-1, -1, -1]], "a frame without atoms"),
        ([[0, 1, 1], [0, 1, -2]], "types below -1"),
        ([[0, 1, 0.5], [0, 1, 1]], "need whole numbers"),
        ([[0, 1, 1]], r"shape \(1, 3\) does not fit 2 frames of 3 atoms"),
    ],
)
def test_types_of_a_mixed_system_that_cannot_be(tmp_path, types, message):
    refused(write(tmp_path, types=(0, 0, 0), real_atom_types=np.array(types)), message)


def test_a_set_without_types_among_sets_with_types(tmp_path):
    write(tmp_path, types=(0, 0, 0), real_atom_types=np.array([[0, 1, 1], [0, 1, 1]]))
    write(tmp_path, types=(0, 0, 0), name="set.001")
    refused(tmp_path, "set.000 has real_atom_types.npy, another set has not")


@pytest.mark.parametrize(
    "name, values",
    [
        ("fparam", [[300.0], [30000.0]]),
        ("aparam", np.arange(6.0).reshape(2, 3)),
        ("spin", np.arange(18.0).reshape(2, 9)),
        ("efield", np.eye(2, 9)),
    ],
)
def test_inputs_that_differ_are_refused(tmp_path, name, values):
    """Labels of two temperatures of the electrons would be mixed."""
    refused(write(tmp_path, **{name: np.array(values)}), f"{name}.npy: the labels depend on these inputs, which differ")


def test_inputs_that_are_the_same_everywhere_are_named(tmp_path):
    write(tmp_path, fparam=np.full((2, 1), 300.0), aparam=np.tile([1.0, 2.0, 3.0], (2, 1)))
    with pytest.warns(UserWarning, match=r"labels depend on aparam.npy \(1, 2, 3\), fparam.npy \(300\), the same in"):
        assert len(read_data(tmp_path)) == 2


def test_inputs_of_different_systems_are_compared(tmp_path):
    write(tmp_path / "cold", fparam=np.full((2, 1), 300.0))
    write(tmp_path / "hot", fparam=np.full((2, 1), 9000.0), types=(0, 0))
    refused(tmp_path, "hot/set.000/fparam.npy: the labels depend on these inputs")


def test_what_is_not_read_is_named_once(tmp_path):
    hessian = np.zeros((2, 81))
    for name in "set.000", "set.001":
        write(tmp_path, name=name, hessian=hessian, atom_ener=np.zeros((2, 3)), atom_pref=np.ones((2, 3)))
    np.save(tmp_path / "fparam.npy", np.zeros(2))  # beside the sets
    (tmp_path / "formal_charges.raw").write_text("0 0 0")
    (tmp_path / "energy.raw").write_text("-1\n-2\n")  # what dpdata made the sets of
    with pytest.warns(UserWarning) as caught:
        read_data(tmp_path)
    assert [str(each.message) for each in caught] == [
        f"{tmp_path}: not read: atom_ener.npy, atom_pref.npy, formal_charges.raw, fparam.npy, hessian.npy"
    ]


def test_numbers_that_their_type_rounds(tmp_path):
    """Half precision has three digits; single precision has enough for the energies of small cells."""
    write(tmp_path, n_frames=2, energy=np.array([-21234.5, -21233.0], dtype=np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_data(tmp_path)
    write(tmp_path, n_frames=2, energy=np.array([-21234.5, -21233.0], dtype=np.float16))
    with pytest.warns(
        UserWarning, match="energy.npy: its numbers, of type float16, are 16 eV apart, .*; write float64"
    ):
        read_data(tmp_path)
    write(tmp_path, n_frames=2, coord=np.float16(positions(2, 3)))
    with pytest.warns(UserWarning, match="coord.npy: its numbers, of type float16, are .* Å apart"):
        read_data(tmp_path)


def test_zeros_in_place_of_a_virial(tmp_path):
    virial = np.stack([np.zeros(9), np.eye(3).ravel()])
    write(tmp_path, n_frames=2, virial=virial)
    with pytest.warns(UserWarning, match="the virial of 1 frames is exactly zero, .* and is not read"):
        (_, first), (_, second) = read_data(tmp_path)
    assert "virial" not in first and np.array_equal(second["virial"], np.eye(3))


def test_mark_of_an_editor_of_windows(tmp_path):
    write(tmp_path)
    for name in "type.raw", "type_map.raw":
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert str(read_data(tmp_path)[0][0].symbols) == "OH2"


def test_virials_become_symmetric(tmp_path):
    """No energy of atoms has an antisymmetric part; more than rounding is told once, with the largest difference."""
    virial = np.tile(np.diag([3.0, 4.0, 5.0]), (2, 1, 1))
    virial[1, 0, 1] = 2.0
    write(tmp_path, virial=virial.reshape(2, 9))
    with pytest.warns(UserWarning, match="set.000/virial.npy: virials are not symmetric.* by up to 2 eV") as caught:
        (_, first), (_, second) = read_data(tmp_path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    np.testing.assert_array_equal(first["virial"], virial[0])
    np.testing.assert_array_equal(second["virial"], [[3, 1, 0], [1, 4, 0], [0, 0, 5]])
    write(tmp_path, virial=(np.diag([3.0, 4.0, 5.0]) + 1e-6 * np.triu(np.ones((3, 3))))[None].repeat(2, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_data(tmp_path)


# shapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("flat", [False, True])
def test_one_frame(tmp_path, shape, flat):
    """deepmd-kit takes the arrays of one frame with and without the axis of the frames."""
    coord, box, force = positions(1, 3), BOX[None], np.arange(9.0)[None]
    if flat:
        coord, box, force = coord[0], BOX.reshape(3, 3), force.reshape(3, 3)
    write(tmp_path, n_frames=1, energy=np.full(shape, -467.0), coord=coord, box=box, force=force)
    ((atoms, labels),) = read_data(tmp_path)
    assert labels["energy"] == -467 and np.ndim(labels["energy"]) == 0
    assert np.array_equal(atoms.positions, positions(1, 3).reshape(3, 3))
    assert np.array_equal(labels["forces"], np.arange(9.0).reshape(3, 3))


def test_column_of_energies(tmp_path):
    write(tmp_path, energy=np.array([[-5.0], [-6.0]]))
    assert [labels["energy"] for _, labels in read_data(tmp_path)] == [-5, -6]


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("virial", (2, 6), r"virial.npy: shape \(2, 6\) does not fit 2 frames of 3 atoms and 9 components"),
        ("energy", (3,), r"energy.npy: shape \(3,\) does not fit 2 frames"),
        ("energy", (), r"energy.npy: shape \(\) does not fit 2 frames"),
        ("force", (1, 18), r"force.npy: shape \(1, 18\) does not fit 2 frames"),
        ("dos", (4,), r"dos.npy: shape \(4,\) does not fit 2 frames"),
        ("box", (1, 9), r"box.npy: shape \(1, 9\) does not fit 2 frames of 9 numbers"),
        ("coord", (4, 18), r"coord.npy: shape \(4, 18\) does not fit any number of frames of 9"),
        ("coord", (0, 9), "coord.npy: no frames"),
        ("fparam", (3, 1), r"fparam.npy: shape \(3, 1\) does not fit 2 frames"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path, name, shape, message):
    refused(write(tmp_path, **{name: np.ones(shape)}), message)


def test_sets_with_other_labels(tmp_path):
    """Every frame has the labels of its own set."""
    write(tmp_path, force=np.ones((2, 9)))
    write(tmp_path, name="set.001")
    assert ["forces" in labels for _, labels in read_data(tmp_path)] == [True, True, False, False]


def test_spectra_of_different_lengths(tmp_path):
    write(tmp_path, dos=np.ones((2, 5)), atom_dos=np.ones((2, 12)))
    refused(tmp_path, "spectra of 4 and 5 energies")


@pytest.mark.parametrize("box", [np.zeros(9), np.diag([8.0, 7.0, 0]).ravel(), [1, 0, 0, 2, 0, 0, 0, 0, 1]])
def test_box_without_volume(tmp_path, box):
    write(tmp_path, box=np.array([BOX, box]))
    refused(tmp_path, "box.npy: the box of frame 2 has no volume")
    (tmp_path / "nopbc").touch()
    assert not read_data(tmp_path)[1][0].pbc.any()


# names of types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, symbols",
    [("O\nH\n", "OHH"), ("SI H # of the model", ["Si", "H", "H"]), ("Fe1 Fe_bulk", ["Fe"] * 3), ("O H Xx", "OHH")],
)
def test_names_that_tell_an_element(tmp_path, names, symbols):
    assert read_data(write(tmp_path, names=names))[0][0].get_chemical_symbols() == list(symbols)


def test_elements_that_are_guessed_are_named(tmp_path):
    write(tmp_path, names="Ow Hw")
    with pytest.warns(UserWarning, match="are no chemical symbols; read Hw as H, Ow as O"):
        assert read_data(tmp_path)[0][0].get_chemical_symbols() == ["O", "H", "H"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 one 1", "got 'one', need finite numbers"),
        ("", "no atoms"),
        ("0 1e400 1", "got '1e400'"),
        ("0 0.5 1", "need whole numbers"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_damaged_type_raw(tmp_path, text, message):
    write(tmp_path)
    (tmp_path / "type.raw").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(tmp_path, message)


# other layouts -----------------------------------------------------------------------------------------------------


def write_texts(folder):
    write(folder)
    for file in (folder / "set.000").iterdir():
        np.savetxt(folder / f"{file.stem}.raw", np.load(file))
        file.unlink()
    (folder / "set.000").rmdir()


def test_text_files_are_read(tmp_path):
    write(tmp_path / "npy", force=np.arange(18.0).reshape(2, 9))
    write_texts(tmp_path / "raw")
    np.savetxt(tmp_path / "raw" / "force.raw", np.arange(18.0).reshape(2, 9))
    for (atoms, labels), (wanted, values) in zip(read_data(tmp_path / "raw"), read_data(tmp_path / "npy"), strict=True):
        assert atoms == wanted and np.array_equal(labels["forces"], values["forces"])
        assert labels["energy"] == values["energy"]
    (tmp_path / "raw" / "force.raw").write_text("0 1\n0\n")
    refused(tmp_path / "raw", "force.raw: the lines have different numbers of columns")


def test_a_folder_of_systems(tmp_path):
    write(tmp_path / "all" / "water")
    write(tmp_path / "all" / "more" / "hydrogen", types=(1, 1))
    found = read_frames(tmp_path / "all")
    assert [frame.atoms.get_chemical_formula() for frame in found] == ["H2", "H2", "H2O", "H2O"]
    (tmp_path / "all" / "more" / "hydrogen" / "set.000" / "coord.npy").unlink()
    refused(tmp_path / "all", "hydrogen/set.000: no coord.npy")


def test_systems_below_a_system_are_named(tmp_path):
    write(tmp_path)
    write(tmp_path / "later")
    with pytest.warns(UserWarning, match="not read: later/"):
        assert len(read_data(tmp_path)) == 2


def write_hdf5(path, **groups):
    """Folders as groups of one file, as dpdata writes them."""
    with h5py.File(path, "w") as file:
        for name, folder in groups.items():
            group = file.create_group(name) if name != "root" else file
            group["type.raw"] = np.loadtxt(folder / "type.raw", dtype=int)
            group["type_map.raw"] = np.array((folder / "type_map.raw").read_text().split(), dtype="S")
            if (folder / "nopbc").exists():
                group["nopbc"] = True
            for each in folder.glob("set.*/*.npy"):
                group[f"{each.parent.name}/{each.name}"] = np.load(each)


def test_one_file(tmp_path):
    one, two = write(tmp_path / "all" / "one"), write(tmp_path / "all" / "two", types=(1, 1), name="set.001")
    (two / "nopbc").touch()
    write_hdf5(tmp_path / "data.hdf5", one=one, two=two)
    write_hdf5(tmp_path / "alone.h5", root=one)
    for file, folder in ("data.hdf5", "all"), ("alone.h5", "all/one"):
        found, wanted = read_frames(tmp_path / file), read_frames(tmp_path / folder)
        assert [frame.labels for frame in found] == [frame.labels for frame in wanted] and len(found) > 1
        assert all(frame.atoms == other.atoms for frame, other in zip(found, wanted, strict=True))


def test_messages_name_the_file(tmp_path):
    bad = write(tmp_path / "bad", force=np.ones((2, 5)))
    write_hdf5(tmp_path / "data.hdf5", water=bad)
    refused(tmp_path / "data.hdf5", "data.hdf5/water/set.000/force.npy: shape .2, 5. does not fit")
    write_hdf5(tmp_path / "data.hdf5", water=write(bad, force=np.ones((2, 9)), hessian=np.ones((2, 81))))
    with pytest.warns(UserWarning, match="data.hdf5: not read: hessian.npy"):
        read_data(tmp_path / "data.hdf5")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("type.raw", np.ones((2, 2), dtype=int), "type.raw has shape"),
        ("type.raw", h5py.ExternalLink("other.h5", "/"), "type.raw is a link"),
        ("set.000", np.ones(2), "/water/set.000 is no group"),
        ("/../out/type.raw", [0], "a group with the name '..', which no folder has"),
        ("set.000/force.npy", np.full((2, 9), np.nan), "force.npy is NaN"),
        ("set.000/force.npy", np.array(["x"], dtype="S"), "force.npy is of type"),
    ],
)
def test_damaged_file(tmp_path, name, value, message):
    path = tmp_path / "data.hdf5"
    write_hdf5(path, water=write(tmp_path / "water"))
    with h5py.File(path, "a") as file:
        if name in file["water"]:
            del file["water"][name]
        file["water"][name] = value
    refused(path, message)
    assert {each.name for each in tmp_path.iterdir()} == {"data.hdf5", "water"}


def test_data_need_no_torch(tmp_path):
    write(tmp_path)
    code = (
        "import sys; from ase_mlelec.data.frames import read_frames; "
        f"print(len(read_frames({str(tmp_path)!r})), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["2", "False"], result.stderr


# damaged arrays ----------------------------------------------------------------------------------------------------


def header(shape, descr="<f8"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "damaged, or no .npy file"),
        (b"PK\x03\x04" + bytes(100), "damaged, or no .npy file"),
        (header((2, 9))[:40], "damaged, or no .npy file"),
        (header((2, 9)) + bytes(100), r"the header tells 144 bytes of data \(shape \(2, 9\)\), the file has 100"),
        (header((2, 9)) + bytes(200), "the header tells 144 bytes"),
        (header((99999999999, 9)) + bytes(100), "the header tells 7.2e\\+12 bytes"),
        (header((-2, -9)) + bytes(144), "the header tells 144 bytes"),
        (header((2, 9), "|O") + bytes(144), "got data of type object, need real numbers"),
        (header((2, 9), "<c16") + bytes(288), "got data of type complex128, need real numbers"),
        (header((2, 9), "<U1") + bytes(72), "got data of type <U1, need real numbers"),
        (header("((" * 400) + bytes(144), "damaged, or no .npy file"),
        (header((2, 9)) + bytes(136) + np.array(np.nan).tobytes(), r"a number is NaN or infinite \(entry 2, 9\)"),
    ],
    ids=range(12),
)
def test_damaged_npy(tmp_path, content, message):
    (write(tmp_path) / "set.000" / "coord.npy").write_bytes(content)
    refused(tmp_path, f"coord.npy: {message}")


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "<f2"])
def test_types_of_numbers(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)))
    found = read_npy(tmp_path / "a.npy")
    assert found.dtype == np.float64 and np.array_equal(found, [[0, 1, 2], [3, 4, 5]])


def test_changed_bytes(tmp_path):
    """Whatever is done to a file, it is read or refused with its name, and what is read is finite."""
    write(tmp_path, force=np.ones((2, 9)))
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    contents = {file: file.read_bytes() for file in files}
    generator = np.random.default_rng(0)
    for _ in range(300):
        file = files[generator.integers(len(files))]
        content = bytearray(contents[file])
        if generator.random() < 0.3:
            content = content[: generator.integers(len(content))]
        else:
            for place in generator.integers(min(len(content), 160), size=3):
                content[place] = generator.integers(256)
        file.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of names that are guessed
                frames = read_data(tmp_path)
        except ValueError as error:
            assert re.match(re.escape(str(tmp_path)), str(error)) and "\n" not in str(error)
        else:
            assert all(
                np.isfinite(atoms.positions).all()
                and np.isfinite(atoms.cell.array).all()
                and all(np.isfinite(values).all() for values in labels.values())
                for atoms, labels in frames
            )
        file.write_bytes(contents[file])
