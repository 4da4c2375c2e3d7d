"""Cube files: closed forms there and back, the layout by another writer, and the LDOS files of pp.x."""

import gzip
from pathlib import Path

import ase.units
import numpy as np
import pytest
from ase import Atoms

import ase_mlelec.io.cube
from ase_mlelec.io.cube import read_cube, read_cubes, write_cube

UNITS = ase.units.create_units("2018")
RY, BOHR = UNITS["Rydberg"], UNITS["Bohr"]
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mala" / "Be2"

CELLS = {
    "cubic": np.eye(3) * 4,
    "skewed": [[4, 0, 0], [-1.5, 3, 0], [0.7, 1.9, 5]],
    "left-handed": [[0, 3, 0], [4, 0.2, 0], [0, 0, 5]],
}
SHAPE = (4, 5, 6)


def wave(cell, shape=SHAPE):
    """Positive density in e/Å^3 without symmetry between the axes, cos of reciprocal vectors: 2 e in the cell."""
    i, j, k = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    volume = abs(np.linalg.det(cell))
    return (2 + np.cos(2 * np.pi * i) * 0.5 + 0.3 * np.sin(2 * np.pi * (j + k)) + 0.2 * np.cos(2 * np.pi * k)) / volume


def structure(cell):
    return Atoms("AlO", scaled_positions=[[0.1, 0.2, 0.3], [-0.2, 0.6, 1.3]], cell=cell, pbc=True)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_round_trip(tmp_path, cell):
    atoms, data = structure(cell), wave(cell)
    write_cube(tmp_path / "x.cube", atoms, data, comment="two\nlines")
    found, back = read_cube(tmp_path / "x.cube")
    assert back.shape == SHAPE and (found.numbers == atoms.numbers).all() and found.pbc.all()
    np.testing.assert_allclose(back, data, rtol=1e-6)  # seven digits
    np.testing.assert_allclose(found.cell, atoms.cell, rtol=0, atol=2e-6)  # six decimals per step, six steps
    np.testing.assert_allclose(found.positions, atoms.positions, rtol=0, atol=1e-6)
    assert back.mean() * found.get_volume() == pytest.approx(2, rel=1e-5)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.cube"]


def test_unit_of_the_file(tmp_path):
    """One electron per cubic bohr reads 1.0 in the file; lengths there are in bohr."""
    write_cube(tmp_path / "x.cube", Atoms("H", cell=np.eye(3) * 8 * BOHR), np.full((2, 2, 2), BOHR**-3))
    lines = (tmp_path / "x.cube").read_text().splitlines()
    assert [float(word) for word in lines[3].split()] == [2, 4, 0, 0]
    assert [float(line) for line in lines[7:]] == [1] * 8


def pp_cube(atoms, data, origin=(0, 0, 0)):
    """As pp.x writes it: E13.5 with a leading zero, six in a row, a new row after every innermost loop."""

    def number(value):
        mantissa, exponent = f"{value:.4e}".split("e")
        power = int(exponent) + 1 if value else 0
        digits = f"{mantissa[0]}{mantissa[2:]}"
        return f"  0.{digits}{'E' if abs(power) < 100 else ''}{power:+03d}"

    text = " Cubefile created from PWScf calculation\n  Energy = -6.0000 eV, broadening =   0.2000 eV\n"
    rows = [(len(atoms), *origin), *((n, *vector / n / BOHR) for n, vector in zip(data.shape, atoms.cell.array))]
    text += "".join("%5d%12.6f%12.6f%12.6f\n" % row for row in rows)
    text += "".join(
        "%5d%12.6f%12.6f%12.6f%12.6f\n" % (z, z, *position / BOHR)
        for z, position in zip(atoms.numbers, atoms.positions)
    )
    for column in data.reshape(-1, data.shape[2]):
        words = [number(value) for value in column]
        text += "".join("".join(words[i : i + 6]) + "\n" for i in range(0, len(words), 6))
    return text


def test_other_writer(tmp_path):
    """The nuclear charge is not a coordinate, the last index runs fastest, exponents may have three digits."""
    atoms, raw = structure(CELLS["skewed"]), wave(CELLS["skewed"])
    raw[1, 2, 3] = 1.5e-120
    (tmp_path / "x.cube").write_text(pp_cube(atoms, raw))
    found, data = read_cube(tmp_path / "x.cube")
    np.testing.assert_allclose(data, raw / BOHR**3, rtol=1e-4)
    assert data[1, 2, 3] == pytest.approx(1.5e-120 / BOHR**3)
    np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-6)


def test_origin(tmp_path):
    """A grid that starts elsewhere: what counts is where the atoms lie on it."""
    atoms = structure(CELLS["cubic"])
    shift = np.array([1.0, -2.0, 0.5])
    moved = atoms.copy()
    moved.positions += shift * BOHR
    (tmp_path / "x.cube").write_text(pp_cube(moved, wave(CELLS["cubic"]), shift))
    np.testing.assert_allclose(read_cube(tmp_path / "x.cube")[0].positions, atoms.positions, atol=1e-6)


def test_interrupted(tmp_path, monkeypatch):
    """The old file stays, and no part of the new one."""
    path = tmp_path / "x.cube"
    path.write_text("old")

    def fail(file, *arguments, **options):
        file.write("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(ase_mlelec.io.cube, "write_ase_cube", fail)
    with pytest.raises(KeyboardInterrupt):
        write_cube(path, structure(CELLS["cubic"]), wave(CELLS["cubic"]))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "atoms, data, message",
    [
        (structure(np.eye(3)), np.ones((2, 3)), "data: got shape .2, 3., need .G1, G2, G3."),
        (structure(np.eye(3)), np.ones((2, 0, 2)), "data: got shape"),
        (structure(np.eye(3)), np.full((2, 2, 2), np.nan), "data: got NaN or infinite values"),
        (
            Atoms("H", cell=[1, 1, 0]),
            np.ones((2, 2, 2)),
            "atoms: got a cell of rank 2, need three vectors; set atoms.cell",
        ),
    ],
)
def test_not_written(tmp_path, atoms, data, message):
    with pytest.raises(ValueError, match=message):
        write_cube(tmp_path / "x.cube", atoms, data)
    assert not list(tmp_path.iterdir())


GOOD = pp_cube(structure(CELLS["cubic"]), wave(CELLS["cubic"]))


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda text: text[:-200], "truncated, or not a cube file"),
        (lambda text: text[:200], "truncated, or not a cube file"),
        (lambda text: "", "truncated, or not a cube file"),
        (lambda text: text + " 1.0", "truncated, or not a cube file"),
        (
            lambda text: text.replace("\n    6 ", "\n   -6 "),
            "got grid counts .4, 5, -6., need positive ones; lengths in Å",
        ),
        # two values at each point, the fifth word of the line of the origin
        (
            lambda text: text.replace("0.000000\n    4 ", "0.000000    2\n    4 ").replace("\n    6 ", "\n    3 "),
            "got 2 functions, need one",
        ),
    ],
)
def test_not_read(tmp_path, edit, message):
    path = tmp_path / "x.cube"
    path.write_text(edit(GOOD))
    with pytest.raises(ValueError, match=message) as caught:
        read_cube(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


HEAD, ROWS = GOOD[: GOOD.index("   13 ")], GOOD[GOOD.index("   13 ") :]
NAMED = HEAD.replace("    2    0.0", "   -2    0.0") + "".join(ROWS.splitlines(True)[:2])
VALUES = "".join(ROWS.splitlines(True)[2:])


def test_function_with_a_name(tmp_path):
    """A negative number of atoms: the functions are named by numbers, here by the one of an orbital."""
    for path, text in ((tmp_path / "a.cube", GOOD), (tmp_path / "b.cube", NAMED + "    1   11\n" + VALUES)):
        path.write_text(text)
    (atoms, wanted), (other, found) = read_cube(tmp_path / "a.cube"), read_cube(tmp_path / "b.cube")
    assert np.array_equal(found, wanted) and other == atoms


def test_forms_of_numbers(tmp_path):
    """Exponents with D, ends of lines of other systems, and gzip."""
    (tmp_path / "a.cube").write_text(GOOD)
    (tmp_path / "b.cube").write_bytes(GOOD.replace("E", "D").replace("\n", "\r\n").encode())
    (tmp_path / "c.cube.gz").write_bytes(gzip.compress(GOOD.encode()))
    wanted = read_cube(tmp_path / "a.cube")[1]
    for name in "b.cube", "c.cube.gz":
        assert np.array_equal(read_cube(tmp_path / name)[1], wanted)


def test_last_line_without_an_end(tmp_path):
    """As ASE leaves it, where a cut digit shows in the length of the number; elsewhere it would not."""
    atoms, data = structure(CELLS["cubic"]), wave(CELLS["cubic"])
    write_cube(tmp_path / "x.cube", atoms, data)
    text = (tmp_path / "x.cube").read_text()
    assert text.endswith("\n")
    (tmp_path / "x.cube").write_text(text.rstrip())
    np.testing.assert_allclose(read_cube(tmp_path / "x.cube")[1], data, rtol=1e-6)
    (tmp_path / "x.cube").write_text(text.rstrip()[:-1])
    with pytest.raises(ValueError, match="x.cube: truncated, .*the last line does not end, so that digits may be"):
        read_cube(tmp_path / "x.cube")


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            lambda text: (
                text.replace("\n    4 ", "\n   -4 ").replace("\n    5 ", "\n   -5 ").replace("\n    6 ", "\n   -6 ")
            ),
            "got grid counts .-4, -5, -6., need positive ones; lengths in Å are not supported",
        ),
        (lambda text: text.replace("\n    6 ", "\n 99999999999 "), "it claims 2e.12 grid points, more than a file of"),
        (lambda text: text.replace("\n    2 ", "\n 99999999999 "), "it claims 1e.11 atoms, more than a file of"),
        (lambda text: text[:-13] + "          NaN\n", "the part of the function is NaN or infinite .entry 120."),
        (lambda text: text[:-13] + "  0.10000D+400\n", "the part of the function is NaN or infinite"),
        (lambda text: text.replace("   13   13.000000", "   13         inf"), "the part of the atoms is NaN or inf"),
        (lambda text: text.replace("   13   13.0", "  213   13.0"), "got atomic numbers that are none"),
        (lambda text: text + " 0.1\n", "truncated, or not a cube file .got 121 numbers on a grid of .4, 5, 6."),
        (lambda text: NAMED + "    2   11   12\n" + VALUES + VALUES, "got 2 functions, need one; write them to files"),
        (lambda text: NAMED + VALUES, "after the atoms, need the number of functions"),
        (lambda text: text.replace("\n    5    0.000000", "\n    5         nan"), "truncated, or not a cube file"),
    ],
)
def test_damaged(tmp_path, edit, message):
    path, text = tmp_path / "x.cube", edit(GOOD)
    assert text != GOOD
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_cube(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing(tmp_path):
    with pytest.raises(ValueError, match="no such file; give a Gaussian cube file"):
        read_cube(tmp_path / "x.cube")


def ldos_files(folder, cell=CELLS["skewed"]):
    """Three energies in states/(Ry bohr^3), the second twice and the third three times the first."""
    paths = [folder / f"ldos{index:03d}.cube" for index in (1, 2, 3)]
    for factor, path in enumerate(paths, 1):
        path.write_text(pp_cube(structure(cell), factor * wave(cell)))
    return paths


def test_ldos(tmp_path):
    atoms, ldos = read_cubes(ldos_files(tmp_path))
    assert ldos.shape == (*SHAPE, 3) and len(atoms) == 2
    wanted = wave(CELLS["skewed"])[..., None] * np.array([1, 2, 3]) / (RY * BOHR**3)
    np.testing.assert_allclose(ldos, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda atoms, data: (atoms, data[:3]), "the grid points differ"),
        (lambda atoms, data: (Atoms(atoms, cell=atoms.cell * 1.001), data), "the cell vectors differ"),
        (lambda atoms, data: (atoms[:1], data), "the atoms differ"),
        (lambda atoms, data: (atoms[::-1], data), "the atoms differ"),
        (
            lambda atoms, data: (Atoms(atoms, positions=atoms.positions + 0.01), data),
            "the positions of the atoms differ",
        ),
    ],
)
def test_ldos_of_other_structures(tmp_path, edit, message):
    paths = ldos_files(tmp_path)
    paths[1].write_text(pp_cube(*edit(structure(CELLS["skewed"]), wave(CELLS["skewed"]))))
    with pytest.raises(ValueError, match=f"{message} from those of .*001.cube; give the files of one") as caught:
        read_cubes(paths)
    assert str(caught.value).startswith(str(paths[1]))


def test_no_ldos():
    with pytest.raises(ValueError, match="got no file, need one per energy"):
        read_cubes([])


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference data in {REFERENCE}")
def test_real_density(tmp_path):
    """Valence density of two Be atoms by pw.x: 4 electrons before and after, to the digits of the file."""
    from ase_mlelec.io.mala import read_mala

    density = np.load(REFERENCE / "Be_snapshot0.dens.npy", allow_pickle=False)[..., 0]
    atoms = read_mala(REFERENCE / "Be_snapshot0.info.json").atoms
    write_cube(tmp_path / "x.cube", atoms, density)
    found, data = read_cube(tmp_path / "x.cube")
    assert density.mean() * atoms.get_volume() == pytest.approx(3.999999618475253, rel=1e-12)
    np.testing.assert_allclose(data, density, rtol=1e-6)
    assert data.mean() * found.get_volume() == pytest.approx(4, rel=1e-5)
