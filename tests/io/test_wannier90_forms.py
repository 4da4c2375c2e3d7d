"""What Wannier90 and its companions write and take is read alike in all its forms; damaged files end in one error."""

import gzip
import random
import re
import shutil
import subprocess
import time
import warnings

import numpy as np
import pytest
from test_wannier90 import HOME, HOP, MATRICES, PLACES, R_VECTORS, WSVEC, hr_text, wout

from ase_mlelec.io.wannier90 import Wannier90Error, read_centers, read_hr, read_tb, read_win, write_hr, write_tb
from ase_mlelec.units import BOHR

FOLDED = " images of minimal distance folded in"
DENSE = hr_text((1, 1, 1), first=FOLDED)


def read(tmp_path, name, content):
    """What the reader for that name makes of text or bytes."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    name = name.removesuffix(".gz")
    return (
        read_win
        if name.endswith(".win")
        else read_hr
        if name.endswith("_hr.dat")
        else read_tb
        if name.endswith("_tb.dat")
        else read_centers
    )(path)


# seed_hr.dat


def edited(*changes):
    text = DENSE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "text",
    [
        edited(("\n  2\n  3\n", "\n  2 ! num_wann\n 3  number of R\n")),
        edited(("\n  2\n  3\n1 1 1\n", "\n\t2\n\t3 # R\n1 1\n1 ! degeneracies\n")),
        edited(("\n1 1 1\n", "\n1\n1\n1\n")),
        edited(("\n", "\r\n")),
        edited(("\n-1 0 0", "\n\t-1, 0, 0")),
        "\ufeff" + DENSE,
        DENSE + "\n\n",
        re.sub(r"(-?\d+\.\d+) (-?\d+\.\d+)\n", r"\1 \2 ! an element\n", DENSE),
        re.sub(r"(-?\d+\.\d+) (-?\d+\.\d+)\n", r"\1 \2 hop (eV)\n", DENSE),
        re.sub(r"(-?\d+\.\d+) (-?\d+\.\d+)\n", r"\1D0 \2d+00\n", DENSE),
    ],
    ids=["comments", "tabs", "one_per_line", "crlf", "commas", "bom", "blank_end", "text", "words", "D"],
)
def test_forms_of_hr(tmp_path, text):
    found = read(tmp_path, "x_hr.dat", text)
    np.testing.assert_array_equal(found.r_vectors, R_VECTORS)
    np.testing.assert_allclose(found.matrices, MATRICES, atol=1e-6)


def test_many_blanks_take_no_time(tmp_path):
    """Text behind numbers is found in a time that grows as the length of the line."""
    start = time.process_time()
    with pytest.raises(Wannier90Error, match="x_hr.dat: truncated or damaged"):
        read(tmp_path, "x_hr.dat", DENSE.replace("-1 0 0 1 1", "-1 0 0" + " " * 200_000 + "1e 1", 1))
    assert time.process_time() - start < 2


def test_first_line_in_another_encoding_or_blank(tmp_path):
    for first in ("Übergänge,".encode("latin-1"), b""):
        (tmp_path / "x_wsvec.dat").write_text(WSVEC)
        found = read(tmp_path, "x_hr.dat", first + hr_text(first="").encode())
        assert found.matrices.shape == (3, 2, 2)


def test_compressed_under_any_name(tmp_path):
    for name in "x_hr.dat", "y_hr.dat.gz":
        np.testing.assert_allclose(read(tmp_path, name, gzip.compress(DENSE.encode())).matrices, MATRICES, atol=1e-6)


def test_lattice_vector_that_is_there_again(tmp_path):
    """Some generators of models fill up with zeros at R = 0; elements there twice are another matter."""

    def with_rows(values):
        again = "".join(f"0 0 0 {m} {n} {value} 0\n" for (m, n), value in zip([(1, 1), (2, 1), (1, 2), (2, 2)], values))
        return DENSE.replace("  3\n1 1 1\n", "  4\n1 1 1 1\n") + again

    found = read(tmp_path, "x_hr.dat", with_rows([0, 0, 0, 0]))
    np.testing.assert_array_equal(found.r_vectors, R_VECTORS)
    np.testing.assert_allclose(found.matrices, MATRICES, atol=1e-6)
    with pytest.raises(Wannier90Error, match=r"x_hr.dat: got the lattice vector \[0, 0, 0\] twice, need each once"):
        read(tmp_path, "x_hr.dat", with_rows([0, 0.5, 0.5, 0]))


def sparse_text(head=None):
    """A chain of two sites per cell in WannierTools' variant, which lists what is not zero."""
    rows = [
        "-1 0 0 2 1 0.25 -0.5",
        "0 0 0 1 1 1.5 0.0",
        "0 0 0 1 2 -2.0 0.0",
        "0 0 0 2 1 -2.0 0.0",
        "1 0 0 1 2 0.25 0.5",
    ]
    return "\n".join(["! sparse", *(head or ["5 ! elements", "2 ! functions", "3", "1 1 1"]), *rows]) + "\n"


def test_sparse_hr(tmp_path):
    for head in (None, ["5", "2", "3", "1 1", "1"], ["5", "2", "3", "1", "1", "1"]):
        found = read(tmp_path, "x_hr.dat", sparse_text(head))
        np.testing.assert_array_equal(found.r_vectors, R_VECTORS)
        np.testing.assert_array_equal(
            [matrix.toarray() for matrix in found.matrices],
            [[[0, 0], [0.25 - 0.5j, 0]], [[1.5, -2], [-2, 0]], [[0, 0.25 + 0.5j], [0, 0]]],
        )


@pytest.mark.parametrize(
    "text, message",
    [
        (sparse_text().rpartition("1 0 0")[0], r"damaged \(28 numbers of 35\)"),
        (sparse_text()[:-2], "damaged|digits may be missing"),
        (sparse_text().replace("0 0 0 1 1", "0 0 0 1 3"), "between functions 1 to 3, need 1 to 2"),
        (sparse_text().replace("0 0 0 1 1", "0 0 0 1 2"), "got an element of H.R. twice"),
        (sparse_text().replace("1 0 0 1 2", "1 0 0 1 1"), r"R = \[-1, 0, 0\]: H\(-R\)† differs by"),
        (sparse_text(["5", "2", "4", "1 2 2 1"]), "degeneracies of 4 lattice vectors and elements of 3"),
        (sparse_text(["5", "999999999", "3", "1 1 1"]), "need 1 to 999999999 and one element of each function"),
        (sparse_text(["5", "2", "999999999", "1 1 1"]), "x_hr.dat: truncated or not written by Wannier90"),
    ],
)
def test_bad_sparse_hr(tmp_path, text, message):
    with pytest.raises(Wannier90Error, match=message):
        read(tmp_path, "x_hr.dat", text)


@pytest.mark.parametrize(
    "text, message",
    [
        (DENSE[:-1], "the last line does not end, so that digits may be missing"),
        (DENSE[:-3], "the last line does not end"),
        (DENSE.replace("-1 0 0 1 1 ", "-1 0 0 1 1 NaN "), r"\(could not convert 'NaN' to a number, line 5\)"),
        (re.sub(r"\S+\n$", "inf\n", DENSE), r"'inf' to a number, line 16"),
        (re.sub(r"\S+\n$", "******\n", DENSE), r"'\*\*\*\*\*\*' to a number, line 16"),
        (re.sub(r"\S+\n$", "1e400\n", DENSE), r"'1e400' to a number, line 16"),
        (re.sub(r"0 0 0 1 1 \S+", "0 0 0 1 1 99999999999", DENSE), r"elements of H\(R\): got 1e\+11 eV, need finite"),
        (DENSE.replace("1 0 0 2 2 ", "1 0 0 2 1.5 "), "numbers of functions: got 1.5, need integers"),
        (DENSE.replace("1 0 0 2 2 ", "1 0 0 2 9e18 "), r"numbers of functions: got 9e\+18, need integers"),
        (DENSE.replace("\n1 0 0", "\n2 0 0"), r"at R = \[-1, 0, 0\]: there is no H\(-R\), need a Hermitian"),
        (
            re.sub(r"\n1 0 0 1 2 \S+", "\n1 0 0 1 2 7.5", DENSE),
            r"at R = \[-1, 0, 0\]: H\(-R\)† differs by .* eV, need a",
        ),
        (
            re.sub(r"\n0 0 0 1 1 (\S+) 0.000000", r"\n0 0 0 1 1 \1 0.3", DENSE),
            r"at R = \[0, 0, 0\]: H\(-R\)† differs by",
        ),
        (DENSE.replace("  2\n", "  99999999999\n"), "x_hr.dat: truncated or damaged"),
        (DENSE.replace("  3\n", "  99999999999\n"), "x_hr.dat: truncated or not written"),
        (DENSE.replace("  3\n", "  " + 5000 * "9" + "\n"), "x_hr.dat: truncated or not written"),
        (DENSE.replace("\n1 1 1\n", "\n1 -1 1\n"), "wrong degeneracies, -1 to 1"),
        (" h\n1\n3\n1 1 1\n-1 0 0 1 1 -0.5 0\n0 0 0 1 1 0.2 0\n", "14 numbers of 21"),  # no sparse one
        (DENSE.encode("utf-16"), "it holds zero bytes, as binary files and UTF-16 do"),
        (b"\x1f\x8b" + 40 * b"\x07", "truncated or not text"),
        (gzip.compress(bytes(10**7)), "expands to more than 400 times its size"),
    ],
)
def test_damaged_hr(tmp_path, text, message):
    with pytest.raises(Wannier90Error, match=message) as caught:
        read(tmp_path, "x_hr.dat", text)
    assert "\n" not in str(caught.value) and "x_hr.dat" in str(caught.value)


def test_damaged_gzip(tmp_path):
    """Single bits of a compressed file: refused, or of no consequence."""
    packed = gzip.compress(DENSE.encode(), mtime=0)
    for at in range(0, 8 * len(packed), 11):
        damaged = bytearray(packed)
        damaged[at // 8] ^= 1 << at % 8
        try:
            np.testing.assert_allclose(read(tmp_path, "x_hr.dat.gz", bytes(damaged)).matrices, MATRICES, atol=1e-6)
        except Wannier90Error as error:
            assert "x_hr.dat.gz: truncated or not text" in str(error)


def test_what_is_written_is_finite(tmp_path):
    bad = MATRICES.copy()
    bad[1, 0, 0] = np.nan
    for write in (
        lambda: write_hr(tmp_path / "x_hr.dat", R_VECTORS, bad),
        lambda: write_tb(tmp_path / "x_tb.dat", np.eye(3), R_VECTORS, MATRICES, PLACES * np.inf),
    ):
        with pytest.raises(Wannier90Error, match="what to write is NaN or infinite"), np.errstate(invalid="ignore"):
            write()
    assert not list(tmp_path.iterdir())


# seed_tb.dat and seed_wsvec.dat


def tb_text(tmp_path):
    write_tb(tmp_path / "w_tb.dat", np.diag([2.0, 3, 4]), R_VECTORS, MATRICES, PLACES)
    return (tmp_path / "w_tb.dat").read_text()


def test_forms_of_tb(tmp_path):
    text = tb_text(tmp_path)
    for changed in (
        text.replace("\n2\n3\n", "\n2 ! num_wann\n3 lattice vectors\n"),
        text.replace("\n", "\r\n"),
        re.sub(r"\n(\d+\.\d+ \d+\.\d+) (\d+\.\d+)\n", r"\n\1 \2 ! Ang\n", text),
        text.replace("0.000000000000 0.0", "2*0.0", 1),
        re.sub(r"(\.\d+)\n", r"\1d0\n", text),
    ):
        assert changed != text
        found = read(tmp_path, "x_tb.dat", changed)
        np.testing.assert_array_equal(found.cell, np.diag([2.0, 3, 4]))
        np.testing.assert_allclose(found.positions, PLACES, atol=1e-12)


def test_damaged_tb(tmp_path):
    text = tb_text(tmp_path)
    for changed, message in (
        (text[:-1], "the last line does not end"),
        (text.replace("2.000000", "nan", 1), "line 2: got 'nan"),
        (text.replace("3.000000000000", "0.0", 1), "no readable cell .lattice vectors that span"),
        (re.sub(r"\S+\n$", "Infinity\n", text), "'Infinity' to a number, line"),
        (re.sub(r"\S+\n$", "1e7\n", text), r"elements of <0\|r\|R>: got 1e\+07 Å"),
    ):
        with pytest.raises(Wannier90Error, match=message):
            read(tmp_path, "x_tb.dat", changed)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("0 0 0 1 1\n1\n", "0 0 0 1 1\n0\n", r"element 1, 1 of R = \[0, 0, 0\]: 0 images.; write it again, or move it"),
        ("0 0 0 1 1\n1\n", "0 0 0 1 1\n-1\n", "-1 images"),
        ("1 0 0 2 2\n2\n", "1 0 0 2 2\n99999\n", "99999 images, more than follow"),
        ("0 0 0 1 1\n1\n", "0 0 0 1 2\n1\n", r"element 1, 2 of R = \[0, 0, 0\] twice"),
        ("0 0 0 1 1\n", "0 0 0 3 1\n", r"element 3, 1 of R = \[0, 0, 0\] is not in H.R."),
        ("0 0 0 1 1\n", "0 0 0 1 nan\n", "could not convert 'nan' to a number, line 18"),
        ("-2 0 0", "-2 0 5", r"x_wsvec.dat: H.R. at R = \[-1, 0, 0\]: H.-R.† differs by .*of another run"),
        ("0 0 0 1 1\n", "0 0 0 1 1e30\n", "need integers below"),
    ],
)
def test_damaged_wsvec(tmp_path, old, new, message):
    assert old in WSVEC
    (tmp_path / "x_wsvec.dat").write_text(WSVEC.replace(old, new, 1))
    with pytest.raises(Wannier90Error, match=message):
        read(tmp_path, "x_hr.dat", hr_text())


def test_wsvec_that_does_not_end(tmp_path):
    (tmp_path / "x_wsvec.dat").write_text(WSVEC[:-1])
    with pytest.raises(Wannier90Error, match="x_wsvec.dat: truncated: the last line does not end"):
        read(tmp_path, "x_hr.dat", hr_text())


# seed.win

CELL = "3.0 0.0 0.0\n0.0 3.0 0.0\n0.0 0.0 3.0"
WIN = """num_wann = 1
mp_grid : 1 1 1
{begin}
{cell}
{end}
begin atoms_frac
{atom}
end atoms_frac
begin kpoints
0 0 0
end kpoints
"""


def win(begin="begin unit_cell_cart", cell=CELL, end="end unit_cell_cart", atom="Si 0.25 0.0 0.0"):
    return WIN.format(begin=begin, cell=cell, end=end, atom=atom)


# accepted by wannier90.x 3.1 with this edge of the cell, Å
SPELLINGS = {
    "end_": (win(end="end_unit_cell_cart"), 3),
    "endblock": (win(end="endunit_cell_cart"), 3),
    "begin_": (win(begin="Begin_Unit_Cell_Cart"), 3),
    "colon": (win(end="END: Unit_Cell_Cart"), 3),
    "comments": (win(begin="begin unit_cell_cart # cell", cell=CELL.replace("\n", " ! a\n!\n\n", 1)), 3),
    "Angstrom": (win(cell="Angstrom\n" + CELL), 3),
    "ANG": (win(cell=" ANG ! unit\n" + CELL), 3),
    "bohr": (win(cell="bohr\n" + CELL), 3 * BOHR),
    "Bohr": (win(cell="Bohr\n" + CELL), 3 * BOHR),
    "BOHRS": (win(cell="(BOHRS)\n" + CELL), 3 * BOHR),
    "D": (win(cell="3.0d0 0.0 0\n0 .3D+1 .0\n0. 0 30.E-1"), 3),
    "no_E": (win(cell="0.3+1 0 0\n0 3 0\n0 0 3"), 3),
    "commas": (win(cell="3.0, 0.0, 0.0,\n0,3,0\n0,0,3,"), 3),
    "repeats": (win(cell="3 2*0.0\n0 3 0\n2*0 3"), 3),
    "text": (win(cell="3.0 0.0 0.0 a1\n0 3 0 4 5\n0 0 3"), 3),
    "tabs": (win().replace(" ", "\t"), 3),
    "crlf": (win().replace("\n", "\r\n"), 3),
    "SI": (win(atom="SI 0.25 0 0"), 3),
    "more": (win(atom="si1, .25, 0d0, 0., 1.5 T"), 3),
    "quotes": (win(atom="'Si' .25 0 0"), 3),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(tmp_path, name):
    text, edge = SPELLINGS[name]
    atoms = read(tmp_path, "x.win", text).atoms
    np.testing.assert_allclose(atoms.cell.array, edge * np.eye(3), rtol=1e-8)
    assert list(atoms.symbols) == ["Si"]
    np.testing.assert_allclose(atoms.positions, [[edge / 4, 0, 0]], rtol=1e-8)


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("wannier90.x"), reason="wannier90.x is not installed")
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_with_wannier90(tmp_path, name):
    """The program itself takes them, and its output has the same cell and atoms."""
    (tmp_path / "x.win").write_bytes(SPELLINGS[name][0].encode())
    subprocess.run(["wannier90.x", "-pp", "x"], cwd=tmp_path, capture_output=True)
    text = (tmp_path / "x.wout").read_text()
    edge = float(re.search(r"a_1\s+(\S+)", text)[1])
    assert edge == pytest.approx(SPELLINGS[name][1], abs=1e-6)
    assert re.search(r"\| Si *1? +1 +0.25000 ", text)


@pytest.mark.parametrize(
    "text, message",
    [
        (win(end="end"), r"x.win, line 7: got 'end', need end unit_cell_cart"),
        (win(end="end cell"), r"line 7: got 'end cell', need end unit_cell_cart"),
        (win(end=""), r"got 'begin atoms_frac' within the block unit_cell_cart, which has no end; add"),
        (win() + "end kpoints\n", "got 'end kpoints', need a begin before it"),
        (win() + "begin unit_cell_cart\n", "got 'begin unit_cell_cart' a second time; leave one of the two"),
        (win().replace("end kpoints", ""), "got a block without an end, kpoints"),
        (win(cell=CELL + "\n1 2 3"), "unit_cell_cart: got '3.0 0.0 0.0' in the first line, need the unit ang or bohr"),
        (win(cell="a.u.\n" + CELL), "got 'a.u.' in the first line, need the unit ang or bohr"),
        (win(cell="3 0 0\n0 3 0"), "got 2 lattice vectors, need 3"),
        (win(cell="3 0\n0 3 0\n0 0 3"), "got 2 numbers in '3 0'"),
        (win(cell="3 0 0\n0 3 0\n0 3 0"), "lattice vectors that span no volume"),
        (win(cell="nan 0 0\n0 3 0\n0 0 3"), "got 'nan' in"),
        (win(cell="1e400 0 0\n0 3 0\n0 0 3"), "beyond 1e.06 Å"),
        (win(atom="14 0 0 0"), "the label '14' begins with no chemical symbol"),
        (win(atom="Si 0 0"), "atoms_frac: got"),
        (win(atom="Si 0 0 1e9"), "atoms_frac: got 1e.09"),
        (win(atom="Si 0 0 ***"), "atoms_frac: got '...'"),
        (
            win() + "begin atoms_cart\nSi 0 0 0\nend atoms_cart\n",
            "got both atoms_frac and atoms_cart, need one of them",
        ),
    ],
)
def test_bad_win(tmp_path, text, message):
    with pytest.raises(Wannier90Error, match=message) as caught:
        read(tmp_path, "x.win", text)
    assert "\n" not in str(caught.value) and "x.win" in str(caught.value)


def test_atoms_in_bohr(tmp_path):
    found = read(
        tmp_path,
        "x.win",
        win(atom="")
        .replace("atoms_frac\n", "atoms_cart\n")
        .replace("begin atoms_cart\n", "begin atoms_cart\nBohr\nFe1 1 0 0\n"),
    )
    np.testing.assert_allclose(found.atoms.positions, [[BOHR, 0, 0]])
    assert list(found.atoms.symbols) == ["Fe"]


# seed.wout and seed_centres.xyz


def test_restarted_run(tmp_path):
    """A restart appends to the file: the structure and the final state count once, those that are last."""
    first = wout("Ang", x=0.5).replace("0.000000, -0.566918", "-0.066918, -0.566918")
    found = read(tmp_path, "x.wout", first + wout("Ang"))
    assert len(found.atoms) == 2 and found.positions[0, 0] == 0.566918
    plotted = wout("Ang") + wout("Ang").partition(" Initial State")[0]
    assert len(read(tmp_path, "x.wout", plotted).atoms) == 2


def test_verbose_output(tmp_path):
    """With iprint = 2 the fractional coordinates of the k-points follow those of the atoms, in a table of the same form."""
    points = """ *----------------------------------------------------------------------------*
 | k-point      Fractional Coordinate        Cartesian Coordinate (Ang^-1)    |
 +----------------------------------------------------------------------------+
 |     1    0.00000   0.00000   0.00000   |    0.00000   0.00000   0.00000    |
"""
    head, mark, rest = wout("Ang").partition(" |  Number of Wannier Functions")
    assert mark
    found = read(tmp_path, "x.wout", head + points + mark + rest)
    assert found.symbols == read(tmp_path, "x.wout", head + mark + rest).symbols


def test_labels_in_output(tmp_path):
    text = wout("Ang").replace("| O    1", "| SI   1").replace("| H1   1", "| fe   *")
    assert read(tmp_path, "x.wout", text).symbols == ["Si", "Fe"]
    with pytest.raises(Wannier90Error, match="x.wout: the label 'Q7' begins with no chemical symbol"):
        read(tmp_path, "x.wout", text.replace("SI   1", "Q7   1"))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("-0.566918,  0.188973", "-0.566918,  0.288973", "do not add up to the sum below them"),
        ("0.188973", "NaN", "got 1 readable centers, need 2"),
        ("0.188973", "0.1889.3", "got what is no number in its tables"),
        ("spread    2", "spread    3", "got 2 readable centers, need 2"),
        ("0.188973", "1e400", "do not add up|got inf"),
        ("0.15000 ", "******* ", r"got the atom '\| H1   1   \*"),
        ("a_2", "a_9", "no readable cell .no lattice vectors"),
        ("7.000000   0.000000\n", "7.000000\n", "no readable cell"),
        ("7.000000", "0.000000", "span no volume"),
        ("   2      ", "   99999999999", "got 2 readable centers, need 99999999999"),
    ],
)
def test_damaged_wout(tmp_path, old, new, message):
    text = wout("Ang")
    assert old in text
    with pytest.raises(Wannier90Error, match=message):
        read(tmp_path, "x.wout", text.replace(old, new))


@pytest.mark.parametrize(
    "text, message",
    [
        ("2\n\nX 0 0 nan\nSi 0 0 0\n", "centers: got nan Å"),
        ("2\n\nX 0 0 0\nSi 0 0 0", "the last line does not end"),
        ("2\n\nX 0 0 0\nQ 0 0 0\n", "the label 'Q' begins"),
        ("99999999999\n\nX 0 0 0\n", "1 rows of 99999999999"),
        ("1\n\nX 0 0\n", "truncated or not an xyz file"),
        ("-1\n\nX 0 0 0\n", "truncated or not an xyz file|no center"),
        ("2\n\nX 0 0 0\nSi 0 0 0\n" * 2, "got lines behind its 2 rows, need one structure"),
    ],
)
def test_damaged_xyz(tmp_path, text, message):
    with pytest.raises(Wannier90Error, match=message):
        read(tmp_path, "x_centres.xyz", text)


# Anything

WORDS = ["nan", "inf", "1e400", "***", "99999999999", "-1", "0", "1.5", "x", "1_0", "1d0", "--", "\x00", "é", "1e308"]


def damaged(data, rng):
    """Bytes cut, flipped, or with a word or a line in another's place."""
    kind, at = rng.randrange(4), rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    parts = re.split(rb"(\s+)" if kind == 2 else rb"(\n)", data)
    parts[rng.randrange(0, len(parts), 2)] = rng.choice(WORDS).encode() if kind == 2 else b""
    return b"".join(parts)


@pytest.mark.parametrize(
    "name", ["x_hr.dat", "s_hr.dat", "x_tb.dat", "x.win", "x.wout", "x_centres.xyz", "x_wsvec.dat"]
)
def test_damaged_files_end_in_one_error(tmp_path, name):
    """Whatever is done to a file: its values are finite or the error is that of this module and names the file."""
    texts = {
        "x_hr.dat": hr_text(),
        "s_hr.dat": sparse_text(),
        "x_tb.dat": tb_text(tmp_path),
        "x.win": win(),
        "x.wout": wout(),
        "x_centres.xyz": "3\n\nX 0.1 0.2 0.3\nX 1 2 3\nSi 0 0 0\n",
        "x_wsvec.dat": WSVEC,
    }
    (tmp_path / "x_wsvec.dat").write_text(WSVEC)
    rng = random.Random(name)
    for _ in range(150):
        data = damaged(texts[name].encode(), rng)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            try:
                if name == "x_wsvec.dat":
                    (tmp_path / name).write_bytes(data)
                    found = read(tmp_path, "x_hr.dat", hr_text())
                else:
                    found = read(tmp_path, name, data)
            except Wannier90Error as error:
                assert name in str(error) and "\n" not in str(error)
                continue
        arrays = (
            [found.atoms.positions, found.atoms.cell.array]
            if hasattr(found, "atoms")
            else [found.r_vectors, *(abs(matrix).max() for matrix in found.matrices)]
        )
        assert all(np.isfinite(array).all() for array in arrays)


def test_hermitian_to_the_digits_of_the_file(tmp_path):
    """What rounding leaves is taken, a tenth of a meV is not."""
    for change, taken in ((5e-5, True), (3e-4, False)):
        text = hr_text((1, 1, 1), np.array([HOP.conj().T + [[change, 0], [0, 0]], HOME + HOME.T, HOP]), FOLDED)
        if taken:
            assert read(tmp_path, "x_hr.dat", text).matrices.shape == (3, 2, 2)
        else:
            with pytest.raises(Wannier90Error, match="differs by 0.0003 eV, need a Hermitian Hamiltonian, to 0.0001"):
                read(tmp_path, "x_hr.dat", text)
