"""WannierHamiltonian.read: whatever lies beside a Hamiltonian, it is read, and one warning says what was not."""

import re

import numpy as np
import pytest
from small_lattices import ssh

from ase_mlelec import WannierHamiltonian
from ase_mlelec.io.wannier90 import Wannier90Error, write_hr, write_tb
from ase_mlelec.units import BOHR

R_VECTORS = np.array([[-1, 0, 0], [0, 0, 0], [1, 0, 0]])
HOP = np.array([[0.1, 0.3], [-0.2, 0.4]])
MATRICES = np.array([HOP.T, [[1.0, 0.5], [0.5, -1.0]], HOP])
CELL = np.diag([4.0, 5, 6])
CENTERS = np.array([[0.1, 0, 0], [2.0, 0.5, 0]])
SITES = np.zeros((3, 2, 2, 3))
SITES[1] = np.eye(2)[:, :, None] * CENTERS[:, None]
K = [[0.1, 0, 0]]

WIN = "num_wann = 2\nbegin unit_cell_cart\n4 0 0\n0 5 0\n0 0 6\nend unit_cell_cart\n"
XYZ = "3\n\nX 0.1 0 0\nX 2.0 0.5 0\nH 0 0 0\n"
WOUT = """
                              Lattice Vectors (Ang)
                    a_1     4.000000   0.000000   0.000000
                    a_2     0.000000   5.000000   0.000000
                    a_3     0.000000   0.000000   6.000000

 *----------------------------------------------------------------------------*
 |   Site       Fractional Coordinate          Cartesian Coordinate (Ang)     |
 +----------------------------------------------------------------------------+
 | H    1   0.00000   0.00000   0.00000   |    0.00000   0.00000   0.00000    |
 *----------------------------------------------------------------------------*
 |  Number of Wannier Functions               :                 2             |
 Final State
  WF centre and spread    1  (  0.100000,  0.000000,  0.000000 )     1.00000000
  WF centre and spread    2  (  2.000000,  0.500000,  0.000000 )     1.00000000
  Sum of centres and spreads (  2.100000,  0.500000,  0.000000 )     2.00000000
"""
UNFINISHED = WOUT.partition(" Final State")[0]


@pytest.fixture
def folder(tmp_path):
    """A folder with H(R) as Wannier90 writes it, its images beside it, and room for other files."""
    write_hr(tmp_path / "x_hr.dat", R_VECTORS, MATRICES)
    write_tb(tmp_path / "t_tb.dat", CELL, R_VECTORS, MATRICES, SITES)
    for name in "x_hr.dat", "t_tb.dat":
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(" written on 28Nov2026\n" + text.partition("\n")[2])
    images = "".join(f"{r} 0 0 {m} {n}\n1\n0 0 0\n" for r in (-1, 0, 1) for n in (1, 2) for m in (1, 2))
    for name in "x_wsvec.dat", "t_wsvec.dat":
        (tmp_path / name).write_text(f"## images\n{images}")
    return tmp_path


def put(folder, **files):
    """Files beside x_hr.dat: win, wout, centers, tb."""
    endings = {"win": "x.win", "wout": "x.wout", "centers": "x_centres.xyz", "tb": "x_tb.dat"}
    for key, text in files.items():
        (folder / endings[key]).write_text(text)


def read(folder, *messages, name="x_hr.dat", **options):
    """The Hamiltonian, after one warning that has all of these messages, or none; its levels are always the same."""
    if messages:
        with pytest.warns(UserWarning) as caught:
            found = WannierHamiltonian.read(folder / name, **options)
        assert len(caught) == 1 and caught[0].filename == __file__
        for message in messages:
            assert re.search(message, str(caught[0].message)), f"{message} is not in {caught[0].message}"
    else:
        found = WannierHamiltonian.read(folder / name, **options)
    np.testing.assert_allclose(found.cell, CELL, atol=1e-6)
    np.testing.assert_allclose(found.hk(K), WannierHamiltonian(CELL, R_VECTORS, MATRICES).hk(K), atol=1e-10)
    return found


def test_nothing_is_missing(folder):
    put(folder, win=WIN, wout=WOUT, centers=XYZ)
    np.testing.assert_allclose(read(folder).centers, CENTERS)


@pytest.mark.parametrize(
    "files",
    [
        {"win": "num_wann = 2\n", "wout": WOUT},
        {"win": WIN, "wout": UNFINISHED, "centers": XYZ},
        {"win": WIN + "spinors = .false.\n", "centers": XYZ},
    ],
    ids=["wout", "restart", "win"],
)
def test_each_source_is_enough(folder, files):
    """A .win without a cell (Wannier90 as a library), a restarted run without a final state: nothing to warn of."""
    put(folder, **files)
    np.testing.assert_allclose(read(folder).centers, CENTERS)


def test_cell_of_tb(folder):
    put(folder, tb=(folder / "t_tb.dat").read_text())
    found = read(
        folder,
        "no centers of the functions in x.wout or x_centres.xyz: they are set to zero",
        r"no .*x.win beside it: spin degeneracy 2 is guessed, as levels do not come in pairs",
    )
    assert not found.centers.any() and found.spin_degeneracy == 2
    put(folder, win="begin unit_cell_cart\n1 0 0\n", wout="nothing\n")
    read(folder, "passed over: .*x.win: got a block without an end", "passed over: .*x.wout: no readable cell")


@pytest.mark.parametrize(
    "files, message",
    [
        ({"win": "begin unit_cell_cart\n4 0 0\n", "wout": WOUT}, "passed over: .*x.win: got a block without an end"),
        ({"win": WIN.replace("4 0 0", "4 0 x"), "wout": WOUT}, "passed over: .*x.win: no readable cell or atoms"),
        ({"win": "\0", "wout": WOUT}, "passed over: .*x.win: truncated or not text"),
        (
            {"win": WIN, "wout": WOUT.replace("0.500000, ", "********,"), "centers": XYZ},
            "x.wout: got 1 readable centers",
        ),
        ({"win": WIN, "wout": WOUT.replace("0.500000,", "0.600000,", 1), "centers": XYZ}, "x.wout: .* do not add up"),
        ({"win": WIN, "wout": WOUT.replace("4.000000", "********"), "centers": XYZ}, "x.wout: no readable cell"),
        ({"win": WIN, "wout": UNFINISHED, "centers": XYZ[:-1]}, "x_centres.xyz: truncated.*they are set to zero"),
        (
            {"win": WIN, "wout": UNFINISHED, "centers": "1\n\nX 0 0 0\n"},
            "x_centres.xyz: got 1 centers, but x_hr.dat has 2",
        ),
        ({"win": WIN.replace("= 2", "= 8"), "wout": WOUT}, "x.win: num_wann is 8, but x_hr.dat has 2 functions"),
        (
            {"win": WIN, "wout": WOUT.replace("5.000000", "5.100000")},
            "x.wout: its cell is not that of .*x.win, which is",
        ),
        ({"win": WIN + "spinors = yes\n", "wout": WOUT}, "spinors: got 'yes', need .true. or .false."),
    ],
)
def test_damaged_files_beside_it(folder, files, message):
    """They are named in the warning, and another source is used."""
    put(folder, **files)
    read(folder, message)


def test_labels_do_not_matter(folder):
    """Atoms of no element, in either file: not needed for a Hamiltonian."""
    put(folder, win=WIN + "begin atoms_frac\nQ7 0 0 0\nend atoms_frac\n", wout=WOUT.replace("| H ", "| Q7"))
    np.testing.assert_allclose(read(folder).centers, CENTERS)


def test_no_cell(folder):
    with pytest.raises(Wannier90Error, match="x_hr.dat: no cell, need x.win or .wout beside it; copy one .*x_tb.dat$"):
        WannierHamiltonian.read(folder / "x_hr.dat")
    put(folder, win="begin unit_cell_cart\n4 0 0\n")
    with pytest.raises(Wannier90Error, match="no cell, need .*passed over: .*x.win: got a block without an") as caught:
        WannierHamiltonian.read(folder / "x_hr.dat")
    assert "\n" not in str(caught.value)


def test_tb_needs_nothing_else(folder):
    found = read(folder, "no .*t.win beside it: spin degeneracy 2", name="t_tb.dat")
    np.testing.assert_allclose(found.centers, CENTERS)
    for name in "t.wout", "t_centres.xyz":  # which are not even looked at
        (folder / name).write_bytes(b"\0")
    assert read(folder, name="t_tb.dat", spin_degeneracy=1).spin_degeneracy == 1
    (folder / "t.win").write_text("begin unit_cell_cart\n")
    read(folder, "passed over: .*t.win: got a block without an end", "t.win beside it", name="t_tb.dat")
    (folder / "t.win").write_text(WIN.replace("4 0 0", "4.1 0 0"))
    read(folder, "t.win: its cell is not that of .*t_tb.dat, which is used", name="t_tb.dat")
    (folder / "t.win").write_text(
        WIN.replace("unit_cell_cart\n", "unit_cell_cart\nbohr\n", 1).replace(
            "4 0 0\n0 5 0\n0 0 6", "\n".join(" ".join(f"{x / BOHR:.8f}" for x in row) for row in CELL)
        )
    )
    assert read(folder, name="t_tb.dat").spin_degeneracy == 2


def spinors(folder):
    """A chain with spin-orbit coupling: levels in pairs where -k equals k, and not elsewhere."""
    sigma = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    hop = np.kron([[0.3, 0.2], [0.1, -0.4]], np.eye(2)) + 0.2j * np.kron(np.eye(2), sigma[1])
    home = np.kron([[1.0, 0.3], [0.3, -1.0]], np.eye(2))
    matrices = np.array([hop.conj().T, home, hop])
    write_hr(folder / "s_hr.dat", R_VECTORS, matrices)
    return WannierHamiltonian(CELL, R_VECTORS, matrices)


def test_spin_is_checked_against_the_levels(folder):
    energies = spinors(folder).eigenvalues([[0, 0, 0], [0.5, 0, 0], [0.2, 0, 0]])
    pairs = energies[:, 1::2] - energies[:, ::2]
    assert pairs[:2].max() < 1e-9 and pairs[2].min() > 0.01
    (folder / "s.wout").write_text(WOUT.partition(" Final")[0])
    with pytest.warns(UserWarning, match="no .*s.win beside it: spin degeneracy 1 is guessed from levels that all"):
        assert WannierHamiltonian.read(folder / "s_hr.dat").spin_degeneracy == 1
    (folder / "s.win").write_text(WIN.replace("= 2", "= 4"))
    with pytest.warns(UserWarning, match="s.win does not say spinors, but all levels come in pairs.*taken as 2"):
        assert WannierHamiltonian.read(folder / "s_hr.dat").spin_degeneracy == 2
    for line, spin in (("spinors = .true.", 1), ("SPINORS : T", 1), ("spinors .FALSE.", 2), ("spinors=t ! yes", 1)):
        (folder / "s.win").write_text(WIN.replace("= 2", "= 4") + line + "\n")
        assert WannierHamiltonian.read(folder / "s_hr.dat").spin_degeneracy == spin


@pytest.mark.parametrize("spin", [1, 2])
def test_written_files_tell_the_spin(tmp_path, spin):
    """Without any file beside them they are read as they were, and there is nothing to warn of."""
    found = WannierHamiltonian(CELL, R_VECTORS, MATRICES, centers=CENTERS, positions=SITES, spin_degeneracy=spin)
    found.write(tmp_path / "x_tb.dat")
    found.write(tmp_path / "x_hr.dat")
    for name in "x_tb.dat", "x_hr.dat":  # the cell of the second is that of the first
        assert WannierHamiltonian.read(tmp_path / name).spin_degeneracy == spin


def test_sparse_files_are_read(tmp_path):
    """WannierTools' variant: the same Hamiltonian, the matrices sparse all the way."""
    rows = "".join(
        f"{r[0]} 0 0 {m + 1} {n + 1} {h[m, n].real:.6f} 0.0\n"
        for r, h in zip(R_VECTORS, MATRICES)
        for n in range(2)
        for m in range(2)
    )
    (tmp_path / "x_hr.dat").write_text(f"a comment\n 12 ! elements\n 2\n 3\n 1 1 1\n{rows}")
    put(tmp_path, win=WIN, centers=XYZ)
    read(tmp_path)


# The constructor


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cell": CELL + np.nan}, "cell: got NaN or infinity"),
        ({"cell": "abc"}, "cell: got str that is no array"),
        ({"r_vectors": R_VECTORS + np.nan}, "r_vectors: got shape .3, 3., need integers"),
        ({"r_vectors": R_VECTORS * 1e30}, "need integers"),
        ({"r_vectors": [[0, 0, 0], [1]]}, "r_vectors: got what is no"),
        ({"matrices": MATRICES + np.nan}, "NaN or infinity"),
        ({"matrices": None}, "matrices: got none"),
        ({"matrices": np.zeros((3, 0, 0))}, "matrices: got 3 of shapes"),
        ({"matrices": MATRICES.astype(str)}, "of numbers"),
        ({"centers": CENTERS + np.inf}, "centers: got NaN or infinity"),
        ({"positions": SITES + np.nan}, "positions: got NaN"),
        ({"spin_degeneracy": 3}, "spin_degeneracy: got 3, need 2 without spin, 1 for spinors"),
        ({"spin_degeneracy": np.nan}, "spin_degeneracy: got nan"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WannierHamiltonian(**({"cell": CELL, "r_vectors": R_VECTORS, "matrices": MATRICES} | arguments))


def test_nested_lists():
    found = WannierHamiltonian(CELL.tolist(), R_VECTORS.tolist(), MATRICES.tolist(), centers=CENTERS.tolist())
    np.testing.assert_allclose(found.hk(K), WannierHamiltonian(CELL, R_VECTORS, MATRICES).hk(K))


# Paths


@pytest.mark.parametrize(
    "path, message",
    [
        (
            "ABC",
            "path: got 'ABC': 'A' is no special point of this cell, which are G R S T U X Y Z; write for example GXSY",
        ),
        ("GX1", "'X1' is no special point"),
        ("gx", "'gx' is no special point"),
        ("G X", "' ' is no special point"),
        ("", "path: got '': no special point of this cell, which are G R S"),
        ([["G", "Q"]], "path: got .* which are G R S"),
        (5, "path: got 5, need special points of this cell, which are G R S"),
    ],
)
def test_unknown_special_points(path, message):
    neighbors = np.concatenate([np.eye(3), -np.eye(3)])
    hamiltonian = WannierHamiltonian(CELL, neighbors, np.ones((6, 1, 1)))
    with pytest.raises(ValueError, match=message) as caught:
        hamiltonian.band_structure(path)
    assert "\n" not in str(caught.value)
    assert hamiltonian.band_structure("GXS,G", npoints=7).energies.shape == (1, 7, 1)


def test_bad_paths():
    for npoints in (0, -3, 2.5, None):
        with pytest.raises(ValueError, match=f"npoints: got {npoints}, need an integer above 1"):
            WannierHamiltonian(*ssh()).band_structure(npoints=npoints)
    with pytest.raises(ValueError, match="path: got a Hamiltonian that couples no cells"):
        WannierHamiltonian(CELL, [[0, 0, 0]], np.eye(2)[None]).band_structure()


@pytest.mark.parametrize("name", ["x_hr.dat", "t_tb.dat"])
def test_disentanglement_that_did_not_converge(folder, name):
    line = "     <<< Warning: Maximum number of disentanglement iterations reached >>>\n"
    put(folder, win=WIN, wout=WOUT.replace(" Final State", f"{line} Final State"))
    (folder / "t.wout").write_text(line + WOUT)
    read(folder, f"{name[0]}.wout: the disentanglement did not converge.*raise dis_num_iter", name=name)
    put(folder, win=f"dis_num_iter = 0\n{WIN}")
    (folder / "t.win").write_text(f"dis_num_iter : 0 ! by projections alone\n{WIN}")
    read(folder, name=name)
