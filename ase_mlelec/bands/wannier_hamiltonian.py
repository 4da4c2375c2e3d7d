"""WannierHamiltonian: a tight-binding Hamiltonian with its cell and files, and everything that follows from it."""

import functools
import numbers
import warnings
from pathlib import Path

import numpy as np
import torch

from ase_mlelec.io import wannier90
from ase_mlelec.physics import bands, bloch, kernel_polynomial, levels, shift_invert, transport
from ase_mlelec.physics.bloch import BlochSum, check_kpts, hermitian_part
from ase_mlelec.physics.kmesh import monkhorst_pack, time_reversal_pairs

_DENSE_SIZE = 1200  # functions; up to here all levels at once cost less than a few of them one by one
_PAIR = 5e-3  # eV; levels as close as this at every point with -k = k are those of spinors
_WITHOUT_POSITIONS = "internal terms only: no <0|r|R>"


class WannierHamiltonian:
    """H(R) between Wannier functions (or any orthogonal orbitals), H(k) = Σ_R exp(2πi k·R) H(R), and what it gives.

    cell : array [3, 3], Å, rows
    r_vectors : array [R, 3], integers, every R with its -R
    matrices : array [R, W, W] or sequence of R sparse matrices, eV, <m 0|H|n R>
    centres : array [W, 3], Å; zero where unknown (energies do not depend on them)
    positions : array [R, W, W, 3], Å, <m 0|r|n R>, or None; Berry curvature needs it
    spin_degeneracy : 2 without spin, 1 for spinors or one spin channel
    device : device of dense eigenproblems; CUDA where there is one

    k points are in reduced coordinates, arrays [K, 3].  The phase knows lattice vectors only.

    Raises ValueError for shapes that do not match, NaN, and H(R) that is Hermitian to less than 1e-4 eV.
    """

    def __init__(self, cell, r_vectors, matrices, centres=None, *, positions=None, spin_degeneracy=2, device=None):
        self.cell = _finite("cell", cell, (3, 3), "three independent vectors [3, 3], Å")
        if not abs(np.linalg.det(self.cell)) > 0:
            raise ValueError("cell: got shape [3, 3], need three independent vectors [3, 3], Å")
        self.bloch = BlochSum(r_vectors, matrices)
        size = self.bloch.size
        self.centres = (
            np.zeros((size, 3))
            if centres is None
            else _finite("centres", centres, (size, 3), f"[{size}, 3]; one per function")
        )
        self.position_blochs = None
        if positions is not None:
            shape = len(r_vectors), size, size, 3
            positions = _finite("positions", positions, shape, f"{list(shape)}; give <0|r|R> for every R", complex)
            # Wannier90 makes <0|r|R> by finite differences, which are not exactly Hermitian
            self.position_blochs = [BlochSum(*hermitian_part(r_vectors, positions[..., axis])) for axis in range(3)]
        if spin_degeneracy not in (1, 2):
            raise ValueError(
                f"spin_degeneracy: got {spin_degeneracy!r}, need 2 without spin, 1 for spinors or one spin"
            )
        self.spin_degeneracy = spin_degeneracy
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")

    def __repr__(self):
        return (
            f"WannierHamiltonian({self.size} functions, {len(self.r_vectors)} lattice vectors, "
            f"{self.bloch.stacked.nnz} elements{'' if self.position_blochs else ', no <0|r|R>'})"
        )

    @property
    def size(self):
        """Number of functions W."""
        return self.bloch.size

    @property
    def r_vectors(self):
        """Lattice vectors [R, 3], integers; -R is as far from the end as R from the start."""
        return self.bloch.r_vectors

    @functools.cached_property
    def matrices(self):
        """H(R), eV: array [R, W, W], or list of CSR matrices where few elements are not zero."""
        return self.bloch.matrices

    @property
    def pbc(self):
        """Directions [3] in which functions of different cells are coupled."""
        return self.r_vectors.any(0)

    # Files

    @classmethod
    def read(cls, path, spin_degeneracy=None):
        """Read ``seed_hr.dat`` or ``seed_tb.dat`` of Wannier90, with what lies beside it.

        ``seed_wsvec.dat`` holds the images of minimal distance.  For ``_hr.dat``, ``seed.win``, ``seed.wout`` or
        ``seed_tb.dat`` gives the cell, ``seed.wout`` or ``seed_centres.xyz`` the centres.  Files may be compressed.

        spin_degeneracy : 1 or 2; None: as ``seed.win`` says, or guessed from the levels where it is not there

        Warns once of all that is missing or was passed over, and of what was guessed instead: images, centres, the
        spin degeneracy, files that are damaged or of another run.

        Raises Wannier90Error for a damaged Hamiltonian, and where no file has a cell.
        """
        run = wannier90.read_run(path)
        found = run.hamiltonian
        spin = spin_degeneracy or run.spin_degeneracy
        hamiltonian = cls(
            run.cell, found.r_vectors, found.matrices, run.centres, positions=found.positions, spin_degeneracy=spin or 2
        )
        notes = list(run.notes)
        if spin is None:
            hamiltonian.spin_degeneracy, note = _guessed_spin(path, hamiltonian, run.has_input)
            notes += [note] if note else []
        if notes:
            warnings.warn("; ".join(notes), stacklevel=2)
        return hamiltonian

    @classmethod
    def from_elements(cls, cell, r_vectors, which, row, column, value, centres, **options):
        """From single elements [M]: place of the lattice vector, functions of the home cell and of that cell, eV."""
        matrices = bloch.from_elements(len(r_vectors), len(centres), which, row, column, value)
        return cls(cell, r_vectors, matrices, centres, **options)

    def write(self, path):
        """Write ``seed_hr.dat`` (H(R) only) or ``seed_tb.dat`` (cell and <0|r|R> too), images folded in.

        Raises ValueError for another name, and for ``_tb.dat`` without <0|r|R>.
        """
        name = Path(path).name
        if name.endswith("_hr.dat"):
            wannier90.write_hr(path, self.r_vectors, self.bloch.toarray(), self.spin_degeneracy)
        elif not name.endswith("_tb.dat"):
            raise ValueError(f"{path}: got another name, need seed_hr.dat or seed_tb.dat; rename the file")
        elif self.position_blochs is None:
            raise ValueError(f"{path}: got no <0|r|R>, which _tb.dat holds; write seed_hr.dat")
        else:
            wannier90.write_tb(
                path, self.cell, self.r_vectors, self.bloch.toarray(), self.positions, self.spin_degeneracy
            )

    @property
    def positions(self):
        """<m 0|r|n R>, Å, array [R, W, W, 3], or None."""
        if self.position_blochs is None:
            return None
        return np.stack([_in_order(bloch, self.r_vectors) for bloch in self.position_blochs], axis=-1)

    def moved(self, cells):
        """The same functions with other members of their lattice at home: function n moves by whole cells.

        cells : array [W, 3], integers, e.g. what brings centres next to their atoms

        Returns WannierHamiltonian with the same energies; without <0|r|R>.
        """
        cells = np.asarray(cells, dtype=int)
        elements = self.bloch.stacked.tocoo()
        which, row = np.divmod(elements.row.astype(np.int64), self.size)
        # <m s_m|H|n R> is <m 0|H|n R - s_m>, and n counts from s_n
        r_vectors, place = np.unique(
            self.r_vectors[which] + cells[row] - cells[elements.col], axis=0, return_inverse=True
        )
        matrices = bloch.from_elements(len(r_vectors), self.size, place.ravel(), row, elements.col, elements.data)
        return WannierHamiltonian(
            self.cell,
            r_vectors,
            matrices,
            self.centres + cells @ self.cell,
            spin_degeneracy=self.spin_degeneracy,
            device=self.device,
        )

    # Energies

    def hk(self, kpts):
        """H(k), array [K, W, W], eV, exactly Hermitian."""
        return self.bloch.dense(check_kpts(kpts)).numpy()

    def eigenvalues(self, kpts, n_bands=None, window=None):
        """Energies at k points, eV, ascending.

        n_bands : int; alone, the lowest; with a window, those bands that at the first k point are nearest to its middle
        window : (low, high), eV; alone, all bands that enter it at one of the points, NaN where they are outside

        Returns array [K, n]; a column is the same band (counted from below) at every point.  A few bands of a large
        Hamiltonian are found by factorization and Lanczos iteration, all bands of a small one at once.

        Raises ValueError for kpts that are not [K, 3], more bands than functions, and a window that is not low < high.
        """
        kpts = check_kpts(kpts)
        if n_bands is not None and not 1 <= n_bands <= self.size:
            raise ValueError(f"n_bands: got {n_bands}, need 1 to {self.size}, the number of functions; ask for fewer")
        if window is not None and not (len(window) == 2 and window[0] < window[1]):
            raise ValueError(f"window: got {window}, need (low, high) with low < high, eV")
        if window is None or self.size <= _DENSE_SIZE:
            return _chosen(bands.eigenvalues(self.bloch, kpts, self.device), n_bands, window)
        if n_bands is not None:
            return self._interior_bands(kpts, n_bands, 0.5 * (window[0] + window[1]))
        return self._interior_window(kpts, *window)

    def _interior_bands(self, kpts, n_bands, center):
        energies, first = [], None
        for k in kpts:
            matrix, asked = self.bloch.sparse(k), n_bands
            while True:
                found = shift_invert.eigenpairs(matrix, center, asked)
                first = found.first if first is None else first
                missing = max(found.first - first, first + n_bands - found.first - asked)
                if missing <= 0:
                    break
                asked = min(asked + 2 * missing, self.size)  # they come from both sides of the center
            energies.append(found.energies[first - found.first :][:n_bands])
        return np.array(energies).reshape(len(kpts), n_bands)

    def _interior_window(self, kpts, low, high):
        center, found_at = 0.5 * (low + high), []
        for k in kpts:
            matrix, asked = self.bloch.sparse(k), min(24, self.size)
            while True:
                found = shift_invert.eigenpairs(matrix, center, asked)
                if asked == self.size or abs(found.energies - center).max() > 0.5 * (high - low):
                    break
                asked = min(2 * asked, self.size)
            inside = (found.energies >= low) & (found.energies <= high)
            found_at.append((found.first + int((found.energies < low).sum()), found.energies[inside]))
        filled = [(first, energies) for first, energies in found_at if len(energies)]
        start = min((first for first, _ in filled), default=0)
        stop = max((first + len(energies) for first, energies in filled), default=0)
        table = np.full((len(kpts), stop - start), np.nan)
        for row, (first, energies) in zip(table, found_at):
            row[first - start : first - start + len(energies)] = energies
        return table

    def velocities(self, kpts):
        """Slopes dE/dk of all bands, array [K, W, 3], eV Å; divide by ħ for a velocity.

        Degenerate levels split along each direction on its own, slopes ascending.
        """
        return bands.velocities(self.bloch, kpts, self.cell, self.device)[1]

    def projections(self, kpts, groups):
        """Energies [K, W], eV, and weights [K, W, len(groups)] of groups of functions, e.g. layers, in each state."""
        return bands.projections(self.bloch, kpts, groups, self.device)

    def band_structure(self, path=None, *, n_bands=None, window=None, npoints=100, reference=0.0):
        """ase.spectrum.band_structure.BandStructure along a path.

        path : str such as "GKMG" or "GK,MG", ase BandPath, or None for ASE's choice for this cell and its periodic
            directions
        n_bands, window : as in eigenvalues
        npoints : int, where path is not a BandPath
        reference : float, eV, the zero of plots, e.g. the Fermi level

        Raises ValueError for special points that the cell does not have, naming those that it has.
        """
        from ase.dft.kpoints import BandPath
        from ase.spectrum.band_structure import BandStructure

        if not isinstance(path, BandPath):
            path = _band_path(self.cell, self.pbc, path, npoints)
        return BandStructure(path, self.eigenvalues(path.kpts, n_bands, window)[None], reference=reference)

    # Meshes

    def mesh(self, kmesh):
        """(kpts [K, 3], weights [K]) of three ints, halved by E(-k) = E(k) where H(R) is real; a pair is passed on."""
        if len(kmesh) == 2:
            kpts, weights = check_kpts(kmesh[0]), np.asarray(kmesh[1], dtype=float)
            if weights.shape != (len(kpts),) or abs(weights.sum() - 1) > 1e-8:
                raise ValueError(
                    f"kmesh: got weights of shape {list(weights.shape)} and sum {weights.sum():g}, need "
                    f"{len(kpts)} that add up to 1"
                )
            return kpts, weights
        if self.bloch.is_real:
            return time_reversal_pairs(kmesh)
        kpts = monkhorst_pack(kmesh)
        return kpts, np.full(len(kpts), 1 / len(kpts))

    def fermi_level(self, n_electrons, kmesh, temperature):
        """Fermi level, eV, at which the bands hold n_electrons per cell.

        n_electrons : float
        kmesh : three ints (Gamma-centred), or (kpts, weights) as physics.kmesh.irreducible gives them
        temperature : float, K; 0 is the limit, mid-gap in an insulator

        Raises ValueError for more electrons than the bands hold.
        """
        kpts, weights = self.mesh(kmesh)
        eigenvalues = bands.eigenvalues(self.bloch, kpts, self.device)
        return levels.fermi_level(eigenvalues, weights, n_electrons, temperature, self.spin_degeneracy)

    def dos(self, energies, kmesh, width):
        """Density of states, states/eV with spin degeneracy, by Gaussians exp(-(x/width)²) on every level of a mesh.

        energies : array [S], eV
        kmesh : three ints, or (kpts, weights)
        width : float, eV

        Returns array [S], whose integral is spin_degeneracy W.
        """
        kpts, weights = self.mesh(kmesh)
        eigenvalues = bands.eigenvalues(self.bloch, kpts, self.device)
        return levels.density_of_states(energies, eigenvalues, weights, width, self.spin_degeneracy)

    def kernel_polynomial_dos(self, energies, k=(0, 0, 0), n_moments=512, n_vectors=16, seed=0):
        """Density of states of a large cell at one k point without eigenvalues, states/eV with spin degeneracy.

        Returns physics.kernel_polynomial.KernelPolynomialDOS (dos, error).
        """
        matrix = self.bloch.sparse(check_kpts([k])[0])
        found = kernel_polynomial.kernel_polynomial_dos(matrix, energies, n_moments, n_vectors, seed)
        return kernel_polynomial.KernelPolynomialDOS(*(self.spin_degeneracy * array for array in found))

    # Response

    def conductivity(self, fermi_level, kmesh, temperature, relaxation_time):
        """Conductivity tensor [3, 3], S/m, of the Boltzmann equation with one relaxation time (fs)."""
        kpts, weights = self.mesh(kmesh)
        drude = transport.drude_weight(
            self.bloch, self.cell, kpts, weights, fermi_level, temperature, self.spin_degeneracy, self.device
        )
        return transport.conductivity(drude, relaxation_time)

    def joint_dos(self, energies, fermi_level, kmesh, temperature, width):
        """Pairs of filled and empty levels at the same k by their difference, states²/eV, array [S]."""
        kpts, weights = self.mesh(kmesh)
        eigenvalues = bands.eigenvalues(self.bloch, kpts, self.device)
        return transport.joint_density_of_states(
            energies, eigenvalues, weights, fermi_level, temperature, width, self.spin_degeneracy
        )

    @property
    def berry_terms(self):
        """What Berry curvature and Hall conductivity contain: "all terms", or "internal terms only: no <0|r|R>"."""
        return _WITHOUT_POSITIONS if self.position_blochs is None else "all terms"

    def berry_curvature(self, kpts):
        """Berry curvature of every band, array [K, W, 3], Å^2: the axial vector (yz, zx, xy).

        Without <0|r|R> it holds internal terms only; berry_terms says which it is.  Undefined within degenerate levels.
        """
        return transport.berry_curvature(self.bloch, self.cell, kpts, self.position_blochs, self.device)[1]

    def hall_conductivity(self, fermi_level, kmesh, temperature):
        """Intrinsic anomalous Hall conductivity, S/m: the axial vector (σ_yz, σ_zx, σ_xy).

        Without <0|r|R> it holds internal terms only, exact for an insulator; berry_terms says which it is.
        """
        kpts, weights = self.mesh(kmesh) if len(kmesh) == 2 else (monkhorst_pack(kmesh), None)
        return transport.hall_conductivity(
            self.bloch,
            self.cell,
            kpts,
            weights,
            fermi_level,
            temperature,
            self.spin_degeneracy,
            self.position_blochs,
            self.device,
        )


def _band_path(cell, pbc, path, npoints):
    """ase BandPath of special points "GKMG" (None: ASE's choice), or ValueError that names those of the cell."""
    from ase.cell import Cell
    from ase.dft.kpoints import parse_path_string

    if not (isinstance(npoints, numbers.Integral) and npoints > 1):
        raise ValueError(f"npoints: got {npoints!r}, need an integer above 1; ask for more points on the path")
    if not pbc.any():
        raise ValueError(
            "path: got a Hamiltonian that couples no cells, need a periodic one; it has the same levels "
            "at every k point, ask for eigenvalues([[0, 0, 0]])"
        )
    try:
        standard = Cell(cell).bandpath(npoints=0, pbc=pbc)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"path: ASE knows no special points of this cell ({str(error) or 'no Bravais lattice'}), need "
            "an ase BandPath; make one with ase.dft.kpoints.bandpath"
        ) from None
    known = sorted(standard.special_points)
    example = standard.path.partition(",")[0]
    if isinstance(path, str):
        names = [name for part in parse_path_string(path) for name in part]
        unknown = next((name for name in names if name not in known), None)
        if unknown or not names:
            raise ValueError(
                f"path: got {path!r}: {f'{unknown!r} is no' if unknown else 'no'} special point of this "
                f"cell, which are {' '.join(known)}; write for example {example}"
            )
    try:
        return Cell(cell).bandpath(path, npoints=npoints, pbc=pbc)
    except (KeyError, TypeError, ValueError, IndexError):
        raise ValueError(
            f"path: got {path!r}, need special points of this cell, which are {' '.join(known)}, or an "
            f"ase BandPath; write for example {example}"
        ) from None


def _finite(name, values, shape, needed, kind=float):
    """``values`` as a new array, or ValueError for another shape, NaN and infinity."""
    try:
        found = np.array(values, dtype=kind)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got {type(values).__name__} that is no array of numbers, need {needed}") from None
    if found.shape != shape:
        raise ValueError(f"{name}: got shape {list(found.shape)}, need {needed}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: got NaN or infinity, need {needed}")
    return found


def _guessed_spin(path, hamiltonian, has_input):
    """(spin degeneracy, what to say of it or None) where no file tells it.

    Levels of spinors with time reversal come in pairs wherever -k equals k (Kramers), others do so by chance only.
    """
    seed = str(path).removesuffix(".gz")[: -len("_hr.dat")]
    pairs = False
    if hamiltonian.size <= _DENSE_SIZE and hamiltonian.size % 2 == 0:
        energies = hamiltonian.eigenvalues(monkhorst_pack(np.where(hamiltonian.pbc, 2, 1)))
        pairs = (energies[:, 1::2] - energies[:, ::2] < _PAIR).all()
    if has_input:  # where it has no such line, Wannier90 takes the functions as those without spin
        return 2, (
            f"{seed}.win does not say spinors, but all levels come in pairs, as those of spinors do: taken as 2 "
            "electrons per level; set spin_degeneracy = 1 if they are spinors"
        ) if pairs else None
    return (
        (
            1,
            f"no {seed}.win beside it: spin degeneracy 1 is guessed from levels that all come in pairs, as those of "
            "spinors do; set spin_degeneracy",
        )
        if pairs
        else (
            2,
            f"no {seed}.win beside it: spin degeneracy 2 is guessed, as levels do not come in pairs; set "
            "spin_degeneracy = 1 for spinors or one spin",
        )
    )


def _in_order(bloch, r_vectors):
    """A(R) of a BlochSum for other lattice vectors, zero where it has none."""
    matrices = {tuple(r): matrix for r, matrix in zip(bloch.r_vectors.tolist(), bloch.toarray())}
    zero = np.zeros((bloch.size, bloch.size))
    return np.array([matrices.get(tuple(r), zero) for r in r_vectors.tolist()])


def _chosen(energies, n_bands, window):
    """Columns of all energies [K, W] that n_bands and window ask for."""
    if window is None:
        return energies if n_bands is None else energies[:, :n_bands]
    if not len(energies):
        return energies[:, :n_bands]
    if n_bands is None:
        inside = (energies >= window[0]) & (energies <= window[1])
        return np.where(inside, energies, np.nan)[:, inside.any(0)]
    distance = abs(energies[0] - 0.5 * (window[0] + window[1]))
    first = np.sort(np.argsort(distance, kind="stable")[:n_bands])[0]
    return energies[:, first : first + n_bands]
