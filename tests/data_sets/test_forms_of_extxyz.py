"""extxyz files of any name, with marks of editors, and cut off within their last number."""

import gzip

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_mlelec import units
from ase_mlelec.data import images
from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.structures import structures

ROWS = "Na 0.00000 0.10000 -0.25000\nCl 1.00000 0.00000 0.12345\nCl 0.00000 2.00000 1.23456"
TEXT = f"3\nProperties=species:S:1:pos:R:3 energy=-2.0\n{ROWS}\n"


@pytest.mark.parametrize("name", ["a.txt", "a.dat", "a.out", "data", "OUTCAR.xyz", "a b (1).extxyz", "a.txt.gz"])
def test_any_name(name, tmp_path):
    content = TEXT.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (frame,) = read_frames(tmp_path / name)
    assert frame.labels == {"energy": -2.0} and str(frame.atoms.symbols) == "NaCl2"


def test_a_compressed_file_is_read_forwards(tmp_path, monkeypatch):
    """A step back decompresses the file from its beginning: the time would grow with the square of its length."""
    steps = []
    monkeypatch.setattr(gzip.GzipFile, "seek", lambda self, *place: steps.append(place))
    (tmp_path / "a.xyz.gz").write_bytes(gzip.compress(5 * TEXT.encode()))
    assert len(read_frames(tmp_path / "a.xyz.gz")) == len(list(structures(tmp_path / "a.xyz.gz"))) == 5
    assert not steps


def test_mark_of_an_editor_of_windows(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"\xef\xbb\xbf" + (2 * TEXT).replace("\n", "\r\n").encode())
    frames = read_frames(tmp_path / "a.xyz")
    assert frames.counts == {"energy": 2} and frames[1].atoms.positions[2, 2] == 1.23456


@pytest.mark.parametrize("ending", ["xyz", "xyz.gz"])
def test_exponents_of_fortran(ending, tmp_path):
    text = TEXT.replace("-2.0", "-2.0D+00").replace("0.12345", "1.2345d-01").replace("0.00000", "0.0D+00")
    content = text.replace("energy", 'Lattice="5.0D+00 0 0 0 6.0D+00 0 0 0 7.0D+00" energy').encode()
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress(2 * content) if ending.endswith("gz") else 2 * content)
    for frame in read_frames(path):
        assert frame.labels == {"energy": -2.0} and str(frame.atoms.symbols) == "NaCl2"
        np.testing.assert_array_equal(frame.atoms.positions[:, 2], [-0.25, 0.12345, 1.23456])
        np.testing.assert_array_equal(frame.atoms.cell.lengths(), [5.0, 6.0, 7.0])
    assert [atoms.positions[1, 2] for atoms in structures(path)] == [0.12345, 0.12345]


@pytest.mark.parametrize(
    "encode", [gzip.compress, lambda text: text.decode().encode("utf-16"), lambda text: b"\xf6" + text]
)
def test_no_text_in_utf_8(encode, tmp_path):
    (tmp_path / "a.xyz").write_bytes(encode(TEXT.encode()))
    with pytest.raises(ValueError, match=r"a.xyz: no text in UTF-8 \(byte \d+\): give a compressed file its ending"):
        read_frames(tmp_path / "a.xyz")


@pytest.mark.parametrize("lost", [1, 2, 5, 6])
def test_last_number_that_is_cut_off(lost, tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text((TEXT + TEXT.rstrip("\n"))[:-lost])
    with pytest.raises(ValueError, match="line 10, the last one, is cut off: its last number has fewer digits"):
        read_frames(path)


@pytest.mark.parametrize(
    "rows", [ROWS, "Na 0 0 0\nCl 1 0 0.25\nCl 0 2 1.5", "Na 0 0 0.1234\nCl 1 0 0.25321\nCl 0 2 1.5"]
)
def test_files_whose_last_line_does_not_end(rows, tmp_path):
    (tmp_path / "a.xyz").write_text(TEXT.replace(ROWS, rows).rstrip("\n"))
    assert len(read_frames(tmp_path / "a.xyz")) == 1


def test_more_rows_than_atoms(tmp_path):
    (tmp_path / "a.xyz").write_text(TEXT + "Cl 1.0 2.0 3.0\n")
    with pytest.raises(ValueError, match="line 6 is 'Cl 1.0 2.0 3.0', need the number of atoms of the next frame"):
        read_frames(tmp_path / "a.xyz")


@pytest.mark.parametrize("name, content", [("a.xyz", "\n\n"), ("a.out", "  some program\n no structures\n")])
def test_no_structures(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: no structures in it \(read as "):
        read_frames(tmp_path / name)


def test_without_permission(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a.xyz").write_text(TEXT)
    monkeypatch.setattr(images, "check_lines", refuse)
    with pytest.raises(ValueError, match="a.xyz: you may not read it; ask its owner, or change its mode with chmod"):
        read_frames(tmp_path / "a.xyz")


def test_compressed_trajectory(tmp_path):
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((1, 3)))
    write(tmp_path / "a.traj", atoms)
    (tmp_path / "b.traj.gz").write_bytes(gzip.compress((tmp_path / "a.traj").read_bytes()))
    with pytest.raises(ValueError, match="b.traj.gz: .*it is compressed, .*: expand it with gunzip first"):
        read_frames(tmp_path / "b.traj.gz")


def test_folder_of_files(tmp_path):
    (tmp_path / "b.xyz").write_text(TEXT)
    (tmp_path / "a.extxyz.gz").write_bytes(gzip.compress(TEXT.encode()))
    with pytest.raises(ValueError, match="a folder without data .*; give its files themselves, such as .*a.extxyz.gz"):
        read_frames(tmp_path)


@pytest.mark.parametrize("key", ["cell", "box", "unit_cell", "Cell_lengths"])
def test_cells_of_another_name(key, tmp_path):
    """They would be molecules."""
    (tmp_path / "a.xyz").write_text(TEXT.replace("energy", f'{key}="4 0 0 0 4 0 0 0 4" energy'))
    with pytest.raises(ValueError, match=f"a.xyz: frame 0: it has {key} in place of Lattice, and would have no cell"):
        read_frames(tmp_path / "a.xyz")
    lattice = 'Lattice="5 0 0 0 5 0 0 0 5"'
    (tmp_path / "a.xyz").write_text(TEXT.replace("energy", f'{key}="4 0 0 0 4 0 0 0 4" {lattice} energy'))
    assert read_frames(tmp_path / "a.xyz")[0].atoms.get_volume() == pytest.approx(125)


def test_forces_in_three_columns(tmp_path):
    text = TEXT.replace("pos:R:3", "pos:R:3:fx:R:1:Fy:R:1:fz:R:1").splitlines()
    text[2:] = [f"{line} {k}.1 {k}.2 {k}.3" for k, line in enumerate(text[2:])]
    (tmp_path / "a.xyz").write_text("\n".join(text) + "\n")
    (frame,) = read_frames(tmp_path / "a.xyz")
    np.testing.assert_allclose(frame.labels["forces"], np.arange(3)[:, None] + [0.1, 0.2, 0.3])


@pytest.mark.parametrize("of_aenet", [True, False])
def test_forces_of_xsf(of_aenet, tmp_path):
    """eV/Å beside an energy, as aenet has them, else hartree/Å."""
    head = "# total energy = -9.5 eV\n\n" if of_aenet else ""
    cell = "CRYSTAL\nPRIMVEC\n4 0 0\n0 4 0\n0 0 4\nPRIMCOORD\n2 1\n"
    (tmp_path / "a.xsf").write_text(f"{head}{cell}Si 0 0 0 0.1 0 0\nSi 2 2 2 -0.1 0 0\n")
    (frame,) = read_frames(tmp_path / "a.xsf")
    assert frame.labels.get("energy") == (-9.5 if of_aenet else None)
    assert frame.labels["forces"][0, 0] == pytest.approx(0.1 if of_aenet else 0.1 * units.HARTREE)


def test_energy_of_xsf_that_is_no_number(tmp_path):
    cell = "CRYSTAL\nPRIMVEC\n4 0 0\n0 4 0\n0 0 4\nPRIMCOORD\n1 1\n"
    (tmp_path / "a.xsf").write_text(f"# total energy = --E eV\n\n{cell}Si 0 0 0 0 0 0\n")
    (frame,) = read_frames(tmp_path / "a.xsf")
    assert "energy" not in frame.labels


@pytest.mark.parametrize("name", ["element", "kind_of_atom"])
def test_species_in_another_column(tmp_path, name):
    """ASE would make atoms without an element of them."""
    rows = "Na 0 0 0\nCl 2 0 0\n"
    (tmp_path / "a.xyz").write_text(f'2\nLattice="4 0 0 0 4 0 0 0 4" Properties={name}:S:1:pos:R:3 energy=-7\n{rows}')
    if name == "element":
        assert list(read_frames(tmp_path / "a.xyz")[0].atoms.symbols) == ["Na", "Cl"]
    else:
        with pytest.raises(ValueError, match="a.xyz: frame 0: its atoms have no species; write symbols of elements"):
            read_frames(tmp_path / "a.xyz")
    (tmp_path / "b.xyz").write_text("1\n\nX 0 0 0\n")
    with pytest.raises(ValueError, match="b.xyz: frame 0: its atoms have no species; write symbols of elements"):
        read_frames(tmp_path / "b.xyz")
