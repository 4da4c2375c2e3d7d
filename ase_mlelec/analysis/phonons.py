"""Phonons of a crystal with any ASE calculator, by finite displacements; needs phonopy (extra ``phonons``)."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.dosdata import GridDOSData
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.bands.paths import band_path
from ase_mlelec.checks import check_finite, printable
from ase_mlelec.io.espresso import read_ph
from ase_mlelec.io.text import read_text
from ase_mlelec.units import COULOMB, PLANCK

THZ = PLANCK * 1e-3  # eV


class Phonons:
    r"""Harmonic phonons of a crystal at rest.

    Force constants come from forces in a supercell, in which symmetry leaves few displacements. In ionic crystals the
    dynamical matrix has a part that depends on the direction of q at Γ,

    .. math::

        \frac{4\pi e^2}{\Omega \sqrt{m_i m_j}} \frac{(q Z_i)_a (q Z_j)_b}{q \epsilon q},

    with Born charges Z and the dielectric tensor ε of the electrons; it splits longitudinal from transverse modes.

    Parameters
    ----------
    atoms : ase.Atoms
        A primitive cell with a calculator, at rest (``analysis.mechanics.relaxed``).
    supercell : three int
        Repetitions of the cell.
    displacement : float, Å
    born_charges : array [N, 3, 3], e, optional
        Z[i, a, b] = dM_a/dr_ib, as ``DeepWannierCalculator.get_born_charges``; their mean is subtracted, so that their sum
        is zero.
    dielectric : array [3, 3], optional
        As ``DeepWannierCalculator.get_dielectric_tensor``. Needed with ``born_charges``.

    Raises
    ------
    ValueError
        Without phonopy, for structures that do not repeat in all directions, and for one response without the other.

    References
    ----------
    Togo and Tanaka, Scr. Mater. 108, 1 (2015); Gonze and Lee, Phys. Rev. B 55, 10355 (1997), for the part above.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        supercell: Sequence[int] = (2, 2, 2),
        displacement: float = 0.01,
        born_charges: ArrayLike | None = None,
        dielectric: ArrayLike | None = None,
    ) -> None:
        phonopy = _phonopy()
        repeats = np.asarray(supercell)
        if not atoms.pbc.all() or atoms.cell.rank < 3:
            raise ValueError(
                "phonons: got a structure that does not repeat in all directions, need a crystal; set cell and pbc"
            )
        if repeats.shape != (3,) or repeats.dtype.kind not in "iu" or repeats.min() < 1:
            raise ValueError(f"supercell: got {supercell}, need three whole numbers of 1 or more, such as 2 2 2")
        self.atoms = atoms
        self._run = phonopy.Phonopy(_cell_of(atoms), np.diag(repeats), primitive_matrix=np.eye(3), log_level=0)
        self._run.generate_displacements(distance=displacement)
        forces = [self._forces(cell) for cell in self._run.supercells_with_displacements]
        self._run.forces = np.array(forces)
        self._run.produce_force_constants()
        self._run.symmetrize_force_constants()
        self.is_polar = born_charges is not None or dielectric is not None
        if self.is_polar:
            self._run.nac_params = _response(len(atoms), born_charges, dielectric)

    def _forces(self, cell):
        atoms = Atoms(cell.symbols, cell.positions, cell=cell.cell, masses=cell.masses, pbc=True)
        atoms.calc = self.atoms.calc
        return atoms.get_forces()

    @property
    def n_displacements(self) -> int:
        """Number of displacements that symmetry leaves."""
        return len(self._run.supercells_with_displacements)

    def energies(self, qpoints: ArrayLike, *, direction: ArrayLike | None = None) -> NDArray:
        """Energies ħω [K, 3N], eV, of the modes at q points, ascending; negative for imaginary frequencies.

        Parameters
        ----------
        qpoints : array [K, 3]
            In reduced coordinates.
        direction : array [3], optional
            Direction, in reduced coordinates, from which Γ is approached; without it the part of Born charges is left out
            at Γ, as for transverse modes.
        """
        self._run.run_qpoints(np.atleast_2d(np.asarray(qpoints, dtype=float)), nac_q_direction=direction)
        return np.asarray(self._run.qpoints.frequencies) * THZ

    def band_structure(self, path: str | BandPath | None = None, *, npoints: int = 150) -> BandStructure:
        """Energies ħω along a path of special points such as "GXWG", eV; by default ASE's path.

        At Γ, modes of polar crystals are those of the direction of the path.
        """
        points = band_path(path, cell=self.atoms.cell.array, pbc=self.atoms.pbc, npoints=npoints)
        energies = self.energies(points.kpts)
        at_center = np.flatnonzero(np.abs(points.kpts - np.round(points.kpts)).max(axis=1) < 1e-9)
        for k in at_center if self.is_polar else ():
            energies[k] = self.energies(points.kpts[k], direction=_direction(points, k))[0]
        return BandStructure(points, energies[None])

    def dos(self, mesh: Sequence[int] = (20, 20, 20), *, npoints: int = 400) -> GridDOSData:
        """Density of states of a cell over the energy ħω, 1/eV, by the tetrahedron method; its integral is 3N."""
        self._run.run_mesh(list(mesh), is_gamma_center=True)
        found = self._run.mesh.frequencies
        step = (found.max() - min(found.min(), 0)) / (npoints - 8)
        first = min(found.min(), 0) - 4 * step
        window = {"freq_min": first, "freq_max": first + (npoints - 1) * step, "freq_pitch": step}
        self._run.run_total_dos(use_tetrahedron_method=True, **window)
        dos = self._run.total_dos
        return GridDOSData(np.asarray(dos.frequency_points) * THZ, np.asarray(dos.dos) / THZ, info={"unit": "1/eV"})


def response_of(atoms: Atoms) -> tuple[NDArray, NDArray] | None:
    """Born charges [N, 3, 3], e, and dielectric tensor [3, 3] by the calculator of a structure; None where it has none."""
    calc: Any = atoms.calc
    if "born_effective_charges" not in calc.implemented_properties:
        return None
    try:
        return calc.get_born_charges(atoms), calc.get_dielectric_tensor(atoms)
    except PropertyNotImplementedError:
        return None


def read_response(path: str | PathLike, atoms: Atoms) -> tuple[NDArray, NDArray]:
    """Born charges and dielectric tensor from the text output of ph.x (epsil), or from a file BORN of phonopy.

    Raises
    ------
    ValueError
        For other files, and for charges of another number of atoms.
    """
    text = read_text(path, "give an output of ph.x with epsil, or a file BORN of phonopy")
    born, dielectric = read_ph(path) if "PHONON" in text else _read_born(path, text, atoms)
    if len(born) != len(atoms):
        raise ValueError(
            f"{path}: got Born charges of {len(born)} atoms, need {len(atoms)}; give those of the same cell"
        )
    return born, dielectric


def _read_born(path, text, atoms):
    _phonopy()
    from phonopy.file_IO import parse_BORN_from_strings

    try:
        found = parse_BORN_from_strings(text, _cell_of(atoms))
        born, dielectric = (np.asarray(found[name], dtype=float) for name in ("born", "dielectric"))
    except Exception as error:  # phonopy has no class for all that a damaged file can do to it
        raise ValueError(
            f"{path}: neither an output of ph.x with epsil nor a file BORN of phonopy for these {len(atoms)} atoms "
            f"({printable(str(error)) or type(error).__name__}); give one of these"
        ) from None
    return check_finite(path, "a number", born), check_finite(path, "a number", dielectric)


def _phonopy():
    try:
        import phonopy
    except ImportError:
        raise ValueError("phonons: phonopy is not installed; pip install 'ase-mlelec[phonons]'") from None
    return phonopy


def _cell_of(atoms):
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def _response(n_atoms, born_charges, dielectric):
    """Parameters of phonopy, with the sum of all charges zero."""
    if born_charges is None or dielectric is None:
        given = "Born charges" if dielectric is None else "a dielectric tensor"
        raise ValueError(f"phonons: got {given} alone, need Born charges and dielectric tensor; give both or neither")
    born, tensor = np.asarray(born_charges, dtype=float), np.asarray(dielectric, dtype=float)
    if born.shape != (n_atoms, 3, 3) or tensor.shape != (3, 3):
        raise ValueError(
            f"phonons: got Born charges {born.shape} and a dielectric tensor {tensor.shape}, need {(n_atoms, 3, 3)} and "
            "(3, 3); give one row for each atom of the cell"
        )
    return {"born": born - born.mean(axis=0), "dielectric": tensor, "factor": COULOMB}


def _direction(path, k):
    """Direction of a path at its point ``k``: from the nearer of its neighbors."""
    steps = [path.kpts[k] - path.kpts[k - 1]] if k else []
    steps += [path.kpts[k + 1] - path.kpts[k]] if k + 1 < len(path.kpts) else []
    return min((step for step in steps if step.any()), key=lambda step: np.linalg.norm(step @ path.icell))
