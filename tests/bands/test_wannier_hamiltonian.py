"""WannierHamiltonian: files of Wannier90 against its own bands, choices of bands, and quantities of whole crystals."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from small_lattices import GRAPHENE_SITES, HEXAGONAL, A, graphene, random_model, ssh, supercell

from ase_mlelec import WannierHamiltonian
from ase_mlelec.bands import interior
from ase_mlelec.physics.kmesh import irreducible, monkhorst_pack
from ase_mlelec.units import PLANCK, SIEMENS_PER_METRE

SILICON = Path(__file__).parents[1] / "data" / "silicon_wannier"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "wannier90"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference data in {REFERENCE}")
RNG = np.random.default_rng(3)
KPTS = RNG.uniform(-1, 1, (5, 3))


def pi_bands(**keywords):
    return WannierHamiltonian(*graphene(**keywords), centers=GRAPHENE_SITES)


def located(hamiltonian, sites):
    """The same with <0|r|R> of points."""
    home = ~hamiltonian.r_vectors.any(1)
    positions = np.zeros((len(home), *[hamiltonian.size] * 2, 3))
    positions[home] = np.eye(hamiltonian.size)[None, :, :, None] * sites[:, None, :]
    return WannierHamiltonian(
        hamiltonian.cell, hamiltonian.r_vectors, hamiltonian.matrices, centers=sites, positions=positions
    )


# Files


@pytest.mark.parametrize("kind", ["hr", "tb"])
def test_silicon(kind, tmp_path):
    """Wannier90's own bands to the six digits of its files, and the same after writing and reading."""
    found = WannierHamiltonian.read(SILICON / f"silicon_{kind}.dat.gz")
    with np.load(SILICON / "bands_ref.npz") as data:
        kpts, bands, from_hr = data["kfrac"], data["e_wannier90"], data["e_hr_wsvec"]
    energies = found.eigenvalues(kpts)
    assert abs(energies - bands).max() < 3e-5
    if kind == "hr":
        np.testing.assert_allclose(energies, from_hr, atol=1e-12)
    else:
        found.write(tmp_path / "again_tb.dat")
        again = WannierHamiltonian.read(tmp_path / "again_tb.dat")
        np.testing.assert_allclose(again.positions, found.positions, atol=1e-12)
        np.testing.assert_allclose(again.centers, found.centers, atol=1e-12)
        np.testing.assert_allclose(again.eigenvalues(kpts), energies, atol=1e-9)
    middle = 0.5 * (energies[:, 3].max() + energies[:, 4].min())
    assert found.fermi_level(8, (6, 6, 6), 0) == pytest.approx(middle, abs=0.3)


def test_silicon_without_images(tmp_path):
    """A 4x4x4 mesh without the images of minimal distance: said, and wrong by half an eV and more."""
    for name in ("silicon_hr.dat.gz", "silicon.win"):
        (tmp_path / name).write_bytes((SILICON / name).read_bytes())
    with pytest.warns(UserWarning, match="no silicon_wsvec.dat.gz beside it"):
        found = WannierHamiltonian.read(tmp_path / "silicon_hr.dat.gz")
    with np.load(SILICON / "bands_ref.npz") as data:
        error = found.eigenvalues(data["kfrac"]) - data["e_wannier90"]
        np.testing.assert_allclose(found.eigenvalues(data["kfrac"]), data["e_plain_hr"], atol=1e-12)
    assert 0.4 < abs(error).max() < 1.8


@needs_reference
@pytest.mark.parametrize("index", range(5))
def test_graphene_bilayers(index):
    """The stored Hamiltonians on the mesh that they were made on: the stored energies."""
    with np.load(REFERENCE / "graphene_bilayer_wannier.npz") as data:
        cell, r_vectors, matrices, kpts, energies = (
            data[f"{key}_{index:02}"] for key in ("cell", "R", "H", "k", "eig_wann")
        )
    if np.linalg.matrix_rank(cell) < 3:
        cell[2, 2] = 20.0
    found = WannierHamiltonian(cell, r_vectors, matrices)
    np.testing.assert_allclose(found.eigenvalues(kpts), energies, atol=1e-5)
    assert found.pbc.tolist() == [True, True, False]


def test_round_trip(tmp_path):
    """Without rounding beyond 1e-12, with centers and cell from the files beside it, images not asked for."""
    found = located(WannierHamiltonian(*random_model(RNG)), RNG.normal(size=(5, 3)))
    found.write(tmp_path / "x_tb.dat")
    found.write(tmp_path / "x_hr.dat")
    rows = "\n".join(" ".join(map(str, row)) for row in found.cell)
    (tmp_path / "x.win").write_text(f"spinors = T\nbegin unit_cell_cart\n{rows}\nend unit_cell_cart\n")
    (tmp_path / "x_centres.xyz").write_text("5\n\n" + "".join("X {} {} {}\n".format(*row) for row in found.centers))
    for kind, spin in (("hr", 1), ("tb", 1)):
        again = WannierHamiltonian.read(tmp_path / f"x_{kind}.dat")
        np.testing.assert_allclose(again.hk(KPTS), found.hk(KPTS), atol=1e-10)
        np.testing.assert_allclose(again.centers, found.centers, atol=1e-12)
        np.testing.assert_allclose(again.cell, found.cell, atol=1e-12)
        assert again.spin_degeneracy == spin
    np.testing.assert_allclose(again.berry_curvature(KPTS), found.berry_curvature(KPTS), rtol=1e-6, atol=1e-8)
    assert found.berry_terms == "all terms" and "internal terms only" in pi_bands().berry_terms


def test_bad_files(tmp_path):
    found = pi_bands()
    with pytest.raises(ValueError, match="got another name, need seed_hr.dat or seed_tb.dat"):
        found.write(tmp_path / "x.dat")
    with pytest.raises(ValueError, match="x_tb.dat: got no <0|r|R>, which _tb.dat holds"):
        found.write(tmp_path / "x_tb.dat")
    found.write(tmp_path / "x_hr.dat")
    with pytest.raises(ValueError, match="x_hr.dat: no cell, need x.win or .wout beside it; copy one of them"):
        WannierHamiltonian.read(tmp_path / "x_hr.dat")
    with pytest.raises(ValueError, match="no such file|no cell"):
        WannierHamiltonian.read(tmp_path / "y_hr.dat")
    with pytest.raises(ValueError, match="got another name"):
        WannierHamiltonian.read(tmp_path / "x.win")


def test_bad_arguments():
    cell, r_vectors, matrices = graphene()
    for arguments, message in (
        ({"cell": np.eye(2)}, "cell: got shape .2, 2., need three independent"),
        ({"cell": np.zeros((3, 3))}, "cell: got shape .3, 3., need three indep"),
        ({"centers": np.zeros((3, 3))}, "centers: got shape .3, 3., need .2,"),
    ):
        with pytest.raises(ValueError, match=message):
            WannierHamiltonian(**({"cell": cell, "r_vectors": r_vectors, "matrices": matrices} | arguments))
    with pytest.raises(ValueError, match=r"positions: got shape \[2, 3\], need \[\d, 2, 2, 3\]; give"):
        WannierHamiltonian(cell, r_vectors, matrices, positions=np.zeros((2, 3)))


# Energies


def test_moved_functions():
    """Other home cells: the same energies; the elements between neighbors come home."""
    found = pi_bands(mass=0.3)
    moved = found.moved([[0, 0, 0], [2, -1, 0]])
    np.testing.assert_allclose(moved.eigenvalues(KPTS), found.eigenvalues(KPTS), atol=1e-13)
    np.testing.assert_allclose(moved.centers[1], GRAPHENE_SITES[1] + np.array([2, -1, 0]) @ HEXAGONAL)
    back = moved.moved([[0, 0, 0], [-2, 1, 0]])
    np.testing.assert_allclose(back.hk(KPTS), found.hk(KPTS), atol=1e-13)
    # hops reach a site at the same distance, counted from the centers
    for hamiltonian in found, moved:
        for r_vector, matrix in zip(hamiltonian.r_vectors, hamiltonian.bloch.toarray()):
            if abs(matrix[0, 1]) > 1e-9:
                vector = hamiltonian.centers[1] + r_vector @ HEXAGONAL - hamiltonian.centers[0]
                assert np.linalg.norm(vector) == pytest.approx(A / np.sqrt(3))


@pytest.fixture
def large(monkeypatch):
    """A crystal whose few bands are found by factorization, beside all of its levels."""
    cell, r_vectors, matrices = supercell(*graphene(mass=0.2), (7, 7, 1))
    matrices[r_vectors.tolist().index([0, 0, 0])] += np.diag(0.4 * np.random.default_rng(0).normal(size=98))
    found = WannierHamiltonian(cell, r_vectors, matrices)
    kpts = np.random.default_rng(1).uniform(-0.5, 0.5, (4, 3))
    return found, kpts, found.eigenvalues(kpts), lambda: monkeypatch.setattr(interior, "DENSE_SIZE", 10)


@pytest.mark.parametrize("n_bands", [1, 6, 13])
def test_bands_around_an_energy(large, n_bands):
    hamiltonian, kpts, energies, by_factorization = large
    dense = hamiltonian.eigenvalues(kpts, n_bands=n_bands, window=(-0.3, 0.2))
    start = np.flatnonzero((energies == dense[:, :1]).all(0))[0]
    np.testing.assert_array_equal(dense, energies[:, start : start + n_bands])
    assert abs(energies[0, start : start + n_bands] + 0.05).max() <= np.sort(abs(energies[0] + 0.05))[n_bands - 1]
    by_factorization()
    np.testing.assert_allclose(hamiltonian.eigenvalues(kpts, n_bands=n_bands, window=(-0.3, 0.2)), dense, atol=1e-8)


@pytest.mark.parametrize("window", [(-0.9, 0.6), (-20, -5.5), (-9, 9), (30, 31)])
def test_bands_of_a_window(large, window):
    hamiltonian, kpts, energies, by_factorization = large
    dense = hamiltonian.eigenvalues(kpts, window=window)
    inside = (energies > window[0]) & (energies < window[1])
    assert (np.isfinite(dense).sum(1) == inside.sum(1)).all() and dense.shape[1] == inside.any(0).sum()
    np.testing.assert_array_equal(np.sort(dense[np.isfinite(dense)]), np.sort(energies[inside]))
    by_factorization()
    np.testing.assert_allclose(hamiltonian.eigenvalues(kpts, window=window), dense, atol=1e-8)


def test_lowest_bands_and_bad_choices():
    found = pi_bands()
    np.testing.assert_array_equal(found.eigenvalues(KPTS, n_bands=1), found.eigenvalues(KPTS)[:, :1])
    for keywords, message in (
        ({"n_bands": 3}, "n_bands: got 3, need 1 to 2, the number of functions"),
        ({"n_bands": 0}, "n_bands: got 0"),
        ({"window": (1, 0)}, "window: got .1, 0., need"),
    ):
        with pytest.raises(ValueError, match=message):
            found.eigenvalues(KPTS, **keywords)
    with pytest.raises(ValueError, match=r"kpts: got shape \[3\]"):
        found.hk([0, 0, 0])


def test_few_points():
    """With nine points ASE leaves out a segment of this path, whose ends would be drawn at one place."""
    with pytest.raises(ValueError, match="npoints: got 9, too few for a point within each part of the path GMKG; ask"):
        pi_bands().band_structure("GMKG", npoints=9)
    assert pi_bands().band_structure("GM,KG", npoints=9).energies.shape == (1, 9, 2)


def test_default_path_of_a_layer():
    """Elements of rounding between the images of a layer do not make its path one of three dimensions."""
    flat = pi_bands()
    up = flat.r_vectors + [0, 0, 1]
    vectors = np.concatenate([flat.r_vectors, up, -up])
    tiny = np.full((2 * len(up), flat.size, flat.size), 1e-12)
    model = WannierHamiltonian(flat.cell, vectors, np.concatenate([flat.bloch.toarray(), tiny]))
    assert model.pbc.all() and set(model.band_structure().path.path) <= set("GMK,")
    coupled = WannierHamiltonian(flat.cell, vectors, np.concatenate([flat.bloch.toarray(), 1e9 * tiny]))
    assert "A" in coupled.band_structure().path.path


def test_band_structure(tmp_path):
    """On ASE's path of the lattice: written, read and drawn by ASE; the Dirac point is at K."""
    from ase.io.jsonio import read_json

    bands = pi_bands().band_structure("GMKG", npoints=31, reference=-0.1)
    at_k = np.argmin(np.linalg.norm(bands.path.kpts - bands.path.special_points["K"], axis=1))
    np.testing.assert_allclose(bands.energies[0, at_k], 0, atol=1e-12)
    np.testing.assert_allclose(bands.energies[0, 0], [-8.1, 8.1])
    bands.write(tmp_path / "bands.json")
    assert read_json(tmp_path / "bands.json").reference == -0.1
    path = bands.path
    assert pi_bands().band_structure(path, n_bands=1).energies.shape == (1, 31, 1)
    assert set(pi_bands().band_structure().path.path) <= set("GMK,")  # two dimensions
    assert WannierHamiltonian(*ssh()).band_structure(npoints=5).energies.shape == (1, 5, 2)


# Meshes


def test_fermi_level_of_a_metal():
    """Doped graphene: the level at which the counted states add up, on whole, halved and irreducible meshes."""
    found = pi_bands()
    shape = (24, 24, 1)
    symmetric = irreducible(shape, HEXAGONAL, GRAPHENE_SITES @ np.linalg.inv(HEXAGONAL), [6, 6])
    whole = monkhorst_pack(shape)
    meshes = shape, symmetric[:2], (whole, np.full(len(whole), 1 / len(whole)))
    levels = [found.fermi_level(2.3, mesh, 600) for mesh in meshes]
    np.testing.assert_allclose(levels, levels[0], atol=1e-10)
    energies = found.eigenvalues(whole)
    counted = 2 * (1 / (1 + np.exp((energies - levels[0]) / (8.617333262e-5 * 600)))).sum(1).mean()
    assert counted == pytest.approx(2.3, abs=1e-8)
    assert found.fermi_level(2, shape, 300) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="kmesh: got weights of shape .2. and sum 1, need 1 that add up to 1"):
        found.fermi_level(2, ([[0, 0, 0]], [0.5, 0.5]), 300)


def test_dos_and_kernel_polynomials(large):
    """Both count every function once per spin; the one from moments is the other, within its error and width."""
    hamiltonian = large[0]
    energies = np.linspace(-11, 11, 221)
    dos = hamiltonian.dos(energies, kmesh=([[0, 0, 0]], [1.0]), width=0.35)
    found = hamiltonian.kernel_polynomial_dos(energies, n_moments=80, n_vectors=200)
    assert np.trapezoid(dos, energies) == pytest.approx(196, rel=1e-6)
    assert np.trapezoid(found.dos, energies) == pytest.approx(196, rel=2e-3)
    assert abs(np.cumsum(found.dos - dos).max() * 0.1) < 0.05 * 196
    first = WannierHamiltonian(hamiltonian.cell, hamiltonian.r_vectors, hamiltonian.matrices, spin_degeneracy=1)
    np.testing.assert_allclose(2 * first.dos(energies, kmesh=(1, 1, 1), width=0.35), dos, rtol=1e-12)


def test_response_of_a_crystal():
    """Graphene: isotropic in its plane, nothing across; optical pairs begin at twice the doping."""
    found = pi_bands()
    sigma = found.conductivity(0.5, kmesh=(60, 60, 1), temperature=1000, relaxation_time=10.0)
    np.testing.assert_allclose(sigma, sigma[0, 0] * np.diag([1, 1, 0]), atol=1e-3 * sigma[0, 0])
    np.testing.assert_allclose(
        found.conductivity(0.5, kmesh=(60, 60, 1), temperature=1000, relaxation_time=20.0), 2 * sigma
    )
    pairs = found.joint_dos(np.array([0.5, 1.5]), fermi_level=0.5, kmesh=(60, 60, 1), temperature=50, width=0.05)
    assert pairs[0] < 1e-3 * pairs[1]


def test_hall_conductivity_of_a_layer():
    """The anomalous quantum Hall effect of Haldane's model, with and without <0|r|R>: one e²/h per layer and spin."""
    plain = pi_bands(t=-1, mass=0.1, t2=0.1)
    for found in plain, located(plain, GRAPHENE_SITES):
        sigma = (
            found.hall_conductivity(0, kmesh=(36, 36, 1), temperature=0) * HEXAGONAL[2, 2] * PLANCK * SIEMENS_PER_METRE
        )
        np.testing.assert_allclose(abs(sigma), [0, 0, 2], atol=4e-3)


def test_velocities_and_projections():
    found = pi_bands(mass=0.5)
    assert found.velocities(KPTS).shape == (5, 2, 3)
    energies, weights = found.projections([[1 / 3, 1 / 3, 0]], groups=[[0], [1]])
    np.testing.assert_allclose(abs(energies), 0.5)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.sort(weights[0, 0]), [0, 1], atol=1e-12)  # at K a band is one sublattice


def test_real_hamiltonians_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "2 functions" in repr(pi_bands()) and pi_bands().bloch.is_real


def test_former_names_and_places():
    """Arguments that could be given by position, and centres, go on to work, with a warning."""
    found = pi_bands(mass=0.3)
    with pytest.deprecated_call(match="pass centers by name"):
        former = WannierHamiltonian(*graphene(mass=0.3), GRAPHENE_SITES)
    with pytest.deprecated_call(match="now centers="):
        WannierHamiltonian(*graphene(mass=0.3), centres=GRAPHENE_SITES)
    with pytest.deprecated_call(match=r"now WannierHamiltonian\.centers"):
        np.testing.assert_array_equal(former.centres, found.centers)
    with pytest.deprecated_call(match="pass n_bands by name"):
        np.testing.assert_array_equal(found.eigenvalues(KPTS, 1), found.eigenvalues(KPTS, n_bands=1))
    energies = np.linspace(-1, 1, 5)
    with pytest.deprecated_call(match="pass kmesh, width by name"):
        former_dos = found.dos(energies, (2, 2, 1), 0.3)
    np.testing.assert_array_equal(former_dos, found.dos(energies, kmesh=(2, 2, 1), width=0.3))
    with pytest.raises(TypeError, match="positional"):
        found.band_structure("GK", 7)
