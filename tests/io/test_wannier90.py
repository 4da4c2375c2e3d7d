"""Wannier90's files: what is written is read again, what is damaged is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from ase_mlelec.io import wannier90
from ase_mlelec.io.wannier90 import (
    Centers,
    assign_centers,
    nearest_atoms,
    read_centers,
    read_hr,
    read_tb,
    read_win,
    write_hr,
    write_tb,
)
from ase_mlelec.units import BOHR

SILICON = Path(__file__).parents[1] / "data" / "silicon_wannier"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "wannier90"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference data in {REFERENCE}")

WOUT = """
                            Lattice Vectors ({unit})
                    a_1     {6:.6f}   0.000000   0.000000
                    a_2     0.000000   {7:.6f}   0.000000
                    a_3     0.000000   0.000000   {8:.6f}

 |   Site       Fractional Coordinate          Cartesian Coordinate ({unit})     |
 +----------------------------------------------------------------------------+
 | O    1   0.01667   0.01429   0.01250   |    0.10000   0.10000   0.10000    |
 | H1   1   0.15000   0.05714   0.01250   |    0.90000   0.40000   0.10000    |
 *----------------------------------------------------------------------------*
 |  Number of Wannier Functions               :                 2             |
 Initial State
  WF centre and spread    1  (  9.000000,  9.000000,  9.000000 )     9.00000000
 Final State
  WF centre and spread    1  (  {x:.6f}, -0.755890,  0.944863 )     2.84264245
  WF centre and spread    2  ( -0.566918,  0.188973,  0.377945 )    {spread}
  Sum of centres and spreads (  0.000000, -0.566918,  1.322808 )     4.84264245
"""


def wout(unit="Bohr", x=0.566918, spread="2.00000000"):
    lengths = {str(n): n / BOHR if unit == "Bohr" else n for n in (6, 7, 8)}
    text = WOUT
    for n, length in lengths.items():
        text = text.replace(f"{{{n}:.6f}}", f"{length:.6f}")
    return text.format(unit=unit, x=x, spread=spread)


# Centers -----------------------------------------------------------------------------------------------------------


def test_wout(tmp_path):
    path = tmp_path / "m.wout"
    path.write_text(wout())
    found = read_centers(path)
    np.testing.assert_allclose(found.positions, [[0.3, -0.4, 0.5], [-0.3, 0.1, 0.2]], atol=1e-6)
    np.testing.assert_allclose(found.spreads, [0.79602095, 2 * BOHR**2], atol=1e-8)
    assert found.symbols == ["O", "H"] and found.atoms.pbc.all()
    np.testing.assert_allclose(found.atoms.cell.lengths(), [6, 7, 8], atol=1e-6)
    np.testing.assert_allclose(found.atoms.positions[1], [0.9, 0.4, 0.1], atol=1e-4)
    assert found.n_bands is None
    line = " |  Number of input Bloch states     :     5     |\n"
    path.write_text(wout().replace(" Initial State", f"{line} Initial State"))
    assert read_centers(path).n_bands == 5
    path.write_text(wout("Ang"))
    assert read_centers(path).positions[0, 0] == 0.566918 and read_centers(path).spreads[0] == 2.84264245


def test_centers_xyz(tmp_path):
    text = " 3\n written by hand\nX  0.1 0.2 0.3\nX 1.0 2.0 3.0\nSi  0.5 0.5 0.5\n"
    path = tmp_path / "m_centres.xyz.gz"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_centers(path)
    np.testing.assert_array_equal(found.positions, [[0.1, 0.2, 0.3], [1, 2, 3]])
    assert found.spreads is None and found.symbols == ["Si"] and found.atoms.positions[0, 0] == 0.5


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.wout", "Wannier90\n", "a.wout: no final state; the run did not finish"),
        ("a.wout", wout().partition("Sum of")[0], "no final state"),
        ("a.wout", wout(spread="**********"), "got 1 readable centers, need 2; run Wannier90 again"),
        ("a.xyz", "3\n\nX 0 0 0\n", r"truncated or not an xyz file \(1 rows of 3\); set write_xyz"),
        ("a.xyz", "X\n", "truncated or not an xyz file"),
        ("a.xyz", "1\n\nSi 0 0 0\n", r"no center \(X\), need seed_centres.xyz"),
        ("a.wout.gz", "not gzip", "truncated or not text"),
    ],
)
def test_bad_centers(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_centers(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="none.wout: no such file"):
        read_centers(tmp_path / "none.wout")


def water(rng, n=5):
    """n oxygens, some beyond the faces of an oblique cell, and four centers around each, in arbitrary cells."""
    cell = np.array([[6.0, 0, 0], [2.5, 5.5, 0], [-1, 2, 7]])
    oxygens = np.array([[0.01, 0.02, 0.01], [0.5, 0.5, 0.98], [1.05, 0.4, 0.3], [0.5, 0.0, 0.5], [0.2, 0.7, 0.6]])[:n]
    atoms = Atoms(f"O{n}H", [*(oxygens @ cell), [1.0, 1, 1]], cell=cell, pbc=True)
    offsets = rng.uniform(-0.35, 0.35, (n, 4, 3))
    positions = (atoms.positions[:n, None] + offsets + rng.integers(-2, 3, (n, 4, 3)) @ cell).reshape(-1, 3)
    order = rng.permutation(4 * n)
    return atoms, positions[order], offsets, order // 4


def test_centroids():
    atoms, positions, offsets, owner = water(np.random.default_rng(1))
    centroids, indices = assign_centers(atoms, positions, {"O": 4})
    np.testing.assert_array_equal(indices, range(5))
    np.testing.assert_allclose(centroids, atoms.positions[:5] + offsets.mean(1), atol=1e-12)
    found, vectors = nearest_atoms(atoms[:5], positions)
    np.testing.assert_array_equal(found, owner)
    whole = (positions - atoms.positions[owner] - vectors) @ np.linalg.inv(atoms.cell)
    np.testing.assert_allclose(whole, whole.round(), atol=1e-12)


def test_centers_that_do_not_split():
    atoms, positions, *_ = water(np.random.default_rng(2))
    with pytest.raises(ValueError, match=r"got 20 centers, need 25 for \{'O': 5\}"):
        assign_centers(atoms, positions, {"O": 5})
    with pytest.raises(ValueError, match="got 20 centers, need 0"):
        assign_centers(atoms, positions, {"N": 4})
    wrong = positions.copy()
    wrong[3] = wrong[7]
    with pytest.raises(ValueError, match=r"centers do not split: got [35] nearest to atom \d \(O\), need 4; reject"):
        assign_centers(atoms, wrong, {"O": 4})
    pair = Atoms("O2", [[0, 0, 0], [2.0, 0, 0]])
    with pytest.raises(ValueError, match="center 0: got atoms 0 and 1 both at 1.00 Å, need one nearest"):
        assign_centers(pair, [[1.0, 0, 0], [2.0, 0, 0]], {"O": 1})


def bands_of(atoms, positions, n_bands=None):
    """Centers of a run as Wannier90 has them: its atoms sorted by species and in any cell."""
    sorted_atoms = atoms[np.argsort(atoms.numbers, kind="stable")]
    sorted_atoms.positions += [1, -1, 2] @ atoms.cell.array
    return Centers(positions, None, list(sorted_atoms.symbols), sorted_atoms, n_bands)


def test_centers_of_another_structure():
    atoms, positions, *_ = water(np.random.default_rng(5))
    wanted, _ = assign_centers(atoms, positions, {"O": 4})
    np.testing.assert_array_equal(assign_centers(atoms, bands_of(atoms, positions), {"O": 4})[0], wanted)
    moved = atoms.copy()
    moved.positions[3] += [0.0, 0.2, 0.0]
    with pytest.raises(ValueError, match="structure whose atoms are up to 0.20 Å away from these, need less than 0.01"):
        assign_centers(moved, bands_of(atoms, positions), {"O": 4})
    moved.symbols[3] = "S"
    with pytest.raises(ValueError, match="got centers of HO5, need those of HO4S; these are of another structure"):
        assign_centers(moved, bands_of(atoms, positions), {"O": 4})
    exchanged = atoms.copy()
    exchanged.symbols[[0, 5]] = ["H", "O"]  # the same places and the same formula
    with pytest.raises(ValueError, match="structure whose atoms are up to"):
        assign_centers(exchanged, bands_of(atoms, positions), {"O": 4})


def test_functions_of_a_metal():
    """Disentangled functions are made from more bands than there are functions; some of them are not occupied."""
    atoms, positions, *_ = water(np.random.default_rng(6))
    assign_centers(atoms, bands_of(atoms, positions, 20), {"O": 4})
    with pytest.raises(ValueError, match="got 20 functions of 24 bands, need as many as functions; a metal has no"):
        assign_centers(atoms, bands_of(atoms, positions, 24), {"O": 4})


def test_spreads():
    atoms, positions, *_ = water(np.random.default_rng(3))
    centers = Centers(positions, np.full(20, 0.6), list(atoms.symbols), atoms)
    assign_centers(atoms, centers, {"O": 4}, max_spread=0.9)
    centers.spreads[6] = 1.4
    with pytest.raises(ValueError, match=r"center 6: got a spread of 1.40 Å\^2, need at most 0.9; reject"):
        assign_centers(atoms, centers, {"O": 4}, max_spread=0.9)
    with pytest.raises(ValueError, match="got centers without spreads"):
        assign_centers(atoms, positions, {"O": 4}, max_spread=0.9)


@needs_reference
@pytest.mark.parametrize("index, good", [(0, True), (1, True), (2, True), (3, False), (4, True)])
def test_graphene_bilayers(index, good):
    """One pz function per atom; in one of the five the gauge is bad: spreads of 10 Å^2."""
    with np.load(REFERENCE / "graphene_bilayer_wannier.npz") as stored:
        data = {key.removesuffix(f"_{index:02}"): stored[key] for key in stored if key.endswith(f"_{index:02}")}
    atoms = Atoms([str(symbol) for symbol in data["symbols"]], data["positions"], cell=data["cell"], pbc=True)
    centers = Centers(data["centres"], data["spreads"], list(atoms.symbols), atoms)
    if good:
        centroids, _ = assign_centers(atoms, centers, {"C": 1}, max_spread=1.2)
        assert np.abs(centroids - atoms.positions).max() < 0.1
    else:
        with pytest.raises(ValueError, match=r"center 0: got a spread of 9.93 Å\^2"):
            assign_centers(atoms, centers, {"C": 1}, max_spread=1.2)


def test_silicon_centers():
    """sp3 functions: each in the direction of a neighbor, in the atoms' cell or not."""
    found = read_centers(SILICON / "silicon_centres.xyz")
    assert found.positions.shape == (8, 3) and found.symbols == ["Si", "Si"]
    atoms = found.atoms
    atoms.set_cell(2.7 * np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]]))
    atoms.pbc = True
    centroids, _ = assign_centers(atoms, found, {"Si": 4})
    np.testing.assert_allclose(centroids, atoms.positions, atol=1e-4)


# Hamiltonians ------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(4)
R_VECTORS = np.array([[-1, 0, 0], [0, 0, 0], [1, 0, 0]])
HOME = RNG.normal(size=(2, 2))
HOP = RNG.normal(size=(2, 2)) + 1j * RNG.normal(size=(2, 2))
MATRICES = np.array([HOP.conj().T, HOME + HOME.T, HOP])
PLACES = RNG.normal(size=(3, 2, 2, 3)) + 1j * RNG.normal(size=(3, 2, 2, 3))


def hr_text(degeneracies=(2, 1, 2), matrices=MATRICES, first=" written by Wannier90"):
    rows = [
        f"{r[0]} {r[1]} {r[2]} {m + 1} {n + 1} {h[m, n].real:.6f} {h[m, n].imag:.6f}"
        for r, h in zip(R_VECTORS, matrices)
        for n in range(2)
        for m in range(2)
    ]
    return "\n".join([first, "  2", "  3", " ".join(map(str, degeneracies)), *rows]) + "\n"


WSVEC = "## written\n" + "".join(
    f"{r} 0 0 {m} {n}\n{images}"
    for r in (-1, 0, 1)
    for m in (1, 2)
    for n in (1, 2)
    for images in ["2\n0 0 0\n" + f"{-2 * r} 0 0\n" if r else "1\n0 0 0\n"]
)


def test_hr_by_hand(tmp_path):
    """A mesh of two points: R = 1 and R = -1 are the same vector, each counts half, and wsvec shares it out again."""
    (tmp_path / "x_hr.dat").write_text(hr_text())
    with pytest.warns(UserWarning, match="x_hr.dat: no x_wsvec.dat beside it; without the images of minimal distance"):
        found = read_hr(tmp_path / "x_hr.dat")
    np.testing.assert_array_equal(found.r_vectors, R_VECTORS)
    np.testing.assert_allclose(found.matrices, MATRICES * np.array([0.5, 1, 0.5])[:, None, None], atol=1e-6)
    assert found.positions is None and found.cell is None
    (tmp_path / "x_wsvec.dat").write_text(WSVEC)
    found = read_hr(tmp_path / "x_hr.dat")
    half = 0.25 * (HOP + HOP.conj().T)
    np.testing.assert_allclose(found.matrices, [half, HOME + HOME.T, half], atol=1e-6)


def test_written_files_are_read(tmp_path):
    """To the twelve digits that are written, without a wsvec file and without a warning."""
    write_hr(tmp_path / "x_hr.dat", R_VECTORS, MATRICES)
    write_tb(tmp_path / "x_tb.dat", np.diag([2.0, 3, 4]), R_VECTORS, MATRICES, PLACES)
    for found in read_hr(tmp_path / "x_hr.dat"), read_tb(tmp_path / "x_tb.dat"):
        np.testing.assert_array_equal(found.r_vectors, R_VECTORS)
        np.testing.assert_allclose(found.matrices, MATRICES, atol=1e-12)
    np.testing.assert_allclose(found.positions, PLACES, atol=1e-12)
    np.testing.assert_array_equal(found.cell, np.diag([2.0, 3, 4]))


@pytest.mark.parametrize(
    "text, message",
    [
        (hr_text()[:-30], r"truncated or damaged \(\d\d numbers of 84\); write it again"),
        (hr_text().rpartition("1 0 0 2 2")[0], r"truncated or damaged \(77 numbers of 84\)"),
        (hr_text()[:30], "truncated or not written by Wannier90"),
        ("", "truncated or not written by Wannier90"),
        (hr_text().replace("  2\n", "  two\n"), "truncated or not written by Wannier90"),
        (hr_text((2, 1, 0)), "wrong degeneracies, 0 to 2, need positive ones whose inverses add up to the number of k"),
        (hr_text((2, 1, 3)), "wrong degeneracies, 1 to 3"),
        (hr_text((2, 1)), "wrong degeneracies|truncated"),
        (hr_text().replace("1 0 0 2 2 ", "1 0 0 2 1 "), "rows m, n that are not each pair of 2 functions once"),
        (hr_text().replace("1 0 0 2 2 ", "3 0 0 2 2 "), "rows of one lattice vector apart from each other"),
        (hr_text().replace(".", "x", 1), r"truncated or damaged \(could not convert"),
    ],
)
def test_bad_hr(tmp_path, text, message):
    path = tmp_path / "x_hr.dat"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_hr(path)
    assert "\n" not in str(caught.value) and "x_hr.dat: " in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        (WSVEC[:-7], "x_wsvec.dat: truncated or of another run"),
        ("## written\n", r"\(0 elements of 12\)"),
        (WSVEC.replace("1 0 0 2 2\n", "5 0 0 2 2\n"), "truncated or of another run"),
        (WSVEC.rpartition("1 0 0 2 2\n")[0], r"\(11 elements of 12\)"),
    ],
)
def test_bad_wsvec(tmp_path, text, message):
    (tmp_path / "x_hr.dat").write_text(hr_text())
    (tmp_path / "x_wsvec.dat").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_hr(tmp_path / "x_hr.dat")
    assert "\n" not in str(caught.value)


def test_bad_tb(tmp_path):
    path = tmp_path / "x_tb.dat"
    write_tb(path, np.eye(3), R_VECTORS, MATRICES, PLACES)
    text = path.read_text()
    for damaged, message in (
        (text[:-40], "truncated or damaged"),
        (text[:60], "truncated or damaged"),
        (text[: len(text) // 3], "truncated or damaged"),
        (
            "   1    0    0\n".join(text.rsplit("   1    0    0\n", 1)).replace(
                "\n   1    0    0\n", "\n   1    0    7\n", 1
            ),
            "got other lattice vectors for",
        ),
    ):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=message):
            read_tb(path)


def test_win(tmp_path):
    path = tmp_path / "x.win"
    path.write_text(
        "num_wann = 4 ! four\nSpinors : .true.\nmp_grid 2 2 1\nBegin Unit_Cell_Cart\nbohr\n10 0 0\n0 10 0\n"
        "0 0 10\nEnd Unit_Cell_Cart\nbegin atoms_frac\nSi1 0.5 0 0\nO 0 0 0.25\nend atoms_frac\n"
        "begin projections\nSi: sp3 # all\nend projections\n"
    )
    found = read_win(path)
    assert found.keywords == {"num_wann": "4", "spinors": ".true.", "mp_grid": "2 2 1"}
    assert found.blocks["projections"] == ["Si: sp3"] and found.atoms.get_chemical_formula() == "OSi"
    np.testing.assert_allclose(found.atoms.positions, [[5 * BOHR, 0, 0], [0, 0, 2.5 * BOHR]])
    path.write_text("begin atoms_frac\nSi 0 0 0\n")
    with pytest.raises(ValueError, match="x.win: got a block without an end"):
        read_win(path)
    path.write_text("num_wann = 4\n")
    with pytest.raises(ValueError, match="no readable cell or atoms .'unit_cell_cart'."):
        read_win(path)
    path.write_text(
        "begin unit_cell_cart\n2 0 0\n0 2 0\n0 0 2\nend unit_cell_cart\nbegin atoms_cart\nang\nH 1 0 0\nend atoms_cart"
    )
    np.testing.assert_allclose(read_win(path).atoms.positions, [[1, 0, 0]])


def test_former_names():
    with pytest.deprecated_call(match="wannier90.read_centres is now .*read_centers"):
        assert wannier90.read_centres is read_centers
    atoms, positions, *_ = water(np.random.default_rng(1))
    with pytest.deprecated_call():
        found, _ = wannier90.assign_centers(atoms, centres=positions, per_species={"O": 4})
    np.testing.assert_array_equal(found, assign_centers(atoms, positions, {"O": 4})[0])


def test_centers_of_a_run_of_the_program(tmp_path):
    """Words, columns and units as Wannier90 3.1 writes them; silicon_centres.xyz has the same, moved into the cell."""
    folder = Path(__file__).parent.parent / "data" / "silicon_wannier"
    path = tmp_path / "silicon.wout"
    path.write_bytes(gzip.decompress((folder / "silicon.wout.gz").read_bytes()))
    found, moved = read_centers(path), read_centers(folder / "silicon_centres.xyz")
    away = np.linalg.solve(found.atoms.cell.array.T, (found.positions - moved.positions).T)
    np.testing.assert_allclose(away, np.round(away), atol=1e-5)
    assert len(found.spreads) == 8 and (found.spreads > 1).all() and (found.spreads < 4).all()
