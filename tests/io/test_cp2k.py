"""Trajectories of Wannier centers and cells of CP2K, in the form that it prints."""

import gzip

import numpy as np
import pytest

from ase_mlelec.io.cp2k import is_centers, read_cells, read_centers_trajectory

ATOMS = [("O", 0.0, 0.0, 0.1), ("H", 0.76, 0.0, 0.7), ("H", -0.76, 0.0, 0.7)]
CENTERS = [(0.3, 0.0, 0.3), (-0.3, 0.0, 0.3), (0.0, 0.25, -0.1), (0.0, -0.25, -0.1)]


def frame(step, shift=0.0, comment=None):
    """A frame as CP2K prints it."""
    rows = [(label, x + shift, y, z) for label, x, y, z in [*ATOMS, *(("X", *center) for center in CENTERS)]]
    text = comment or f" i = {step:8d}, time = {0.5 * step:12.3f}, E = {-17.2:20.10f}"
    return f"{len(rows):8d}\n{text}\n" + "".join(f"{r[0]:>3}{r[1]:20.10f}{r[2]:20.10f}{r[3]:20.10f}\n" for r in rows)


CELL = "#   Step   Time [fs]       Ax [Angstrom]       Ay [Angstrom] ...      Volume [Angstrom^3]\n" + "".join(
    f"{step:8d}{step / 2:12.3f}" + "".join(f"{x:20.10f}" for x in (9.0 + step, 0, 0, 0, 9, 0, 0, 0.5, 9, 700)) + "\n"
    for step in (0, 10)
)


def test_frames(tmp_path):
    path = tmp_path / "w-HOMO_centers_s1-1_0.xyz"
    path.write_text(frame(0) + frame(10, 0.5))
    assert is_centers(path)
    first, second = read_centers_trajectory(path)
    assert (first.step, second.step, first.symbols, first.cell) == (0, 10, ["O", "H", "H"], None)
    np.testing.assert_allclose(second.positions, np.array([row[1:] for row in ATOMS]) + [0.5, 0, 0], atol=1e-9)
    np.testing.assert_allclose(second.centers, np.array(CENTERS) + [0.5, 0, 0], atol=1e-9)
    packed = tmp_path / "w.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert is_centers(packed) and len(read_centers_trajectory(packed)) == 2


def test_cell_in_the_comment(tmp_path):
    (tmp_path / "a.xyz").write_text(frame(0, comment='Lattice="9 0 0 0 9 0 0 0.5 9"'))
    (found,) = read_centers_trajectory(tmp_path / "a.xyz")
    assert found.step is None
    np.testing.assert_allclose(found.cell, [[9, 0, 0], [0, 9, 0], [0, 0.5, 9]])


def test_cells(tmp_path):
    (tmp_path / "w-1.cell").write_text(CELL)
    found = read_cells(tmp_path / "w-1.cell")
    assert list(found) == [0, 10]
    np.testing.assert_allclose(found[10], [[19, 0, 0], [0, 9, 0], [0, 0.5, 9]])


@pytest.mark.parametrize(
    "text, message",
    [
        (frame(0)[:-3], "line 1: claims 7 rows, the file ends before; copy the file again"),
        (frame(0) + "7\n", "line 10: claims 7 rows"),
        (frame(0) + "some text\n", "line 10: got 'some text', need the number of rows"),
        (frame(0).replace("  X", "  H"), "the frame at line 1 has no centers"),
        (frame(0).replace("  O", "  X").replace("  H", "  X"), "the frame at line 1 has no atoms"),
        (frame(0).replace("0.1000000000", "0.1O00000000"), "holds something else than numbers"),
        (frame(0).replace("  O", " Qq"), "the frame at line 1: .*Qq"),
        (frame(0, comment='Lattice="1 2 3"'), "has no cell with a volume"),
        ("", "line 1: got '', need the number of rows"),
    ],
)
def test_damaged_centers(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(ValueError, match=f"a.xyz.*{message}"):
        read_centers_trajectory(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    "text, message",
    [
        (CELL[:-1], "its last line does not end"),
        (CELL.splitlines()[0] + "\n", "no cell in it"),
        (CELL.replace("700.0000000000", ""), "line 2, need a step|line 2: need a step"),
        (CELL.replace(" 9.0000000000", " 0.0000000000"), "line 2 has no cell with a volume"),
    ],
)
def test_damaged_cells(tmp_path, text, message):
    (tmp_path / "a.cell").write_text(text)
    with pytest.raises(ValueError, match=f"a.cell.*({message})"):
        read_cells(tmp_path / "a.cell")


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.xyz", frame(0).replace("  X", "  H")),
        ("a.xyz", frame(0, comment='Properties=species:S:1:pos:R:3 Lattice="9 0 0 0 9 0 0 0 9"')),
        ("a.txt", frame(0)),
        ("a.xyz", "no numbers\n"),
    ],
)
def test_other_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert not is_centers(tmp_path / name)
