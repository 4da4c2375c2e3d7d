"""Calculator of the Hamiltonian, bands and density of states of layered crystals."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    CalculationFailed,
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
)
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.doscollection import GridDOSCollection
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.calculators.band_bars import HasBandBars
from ase_mlelec.calculators.base import MLElecCalculator, ModelLike
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.calculators.parameters import HasElectronicTemperature, check_temperature
from ase_mlelec.calculators.spectra import total_dos
from ase_mlelec.edges import Edges
from ase_mlelec.heads.hamiltonian.members import bare
from ase_mlelec.physics import fermi, levels
from ase_mlelec.physics.bloch import check_kpts
from ase_mlelec.system import System

LARGE = 3000  # functions; larger cells get their density of states from kernel polynomials
MARGIN = 0.03  # relative margin of distances beyond the training data before a warning
TEMPERATURE = 300.0  # K, default temperature of the electrons
BANDS = ("eigenvalues", "ibz_kpoints", "kpoint_weights", "nbands", "nkpts", "nspins")


class WannierTBCalculator(HasElectronicTemperature, HasBandBars):
    """Calculator of the Wannier tight-binding Hamiltonian H(R) of layered crystals, and of bands and spectra.

    Energy, forces and stress come from the energy head of the model, or from ``potential``. Electronic energies are
    relative to the vacuum level.

    The members of a committee must have the same functions. The Hamiltonian is the mean over the members.
    ``uncertainty`` has standard deviations of "hamiltonian" (a WannierHamiltonian of them), "eigenvalues" and
    "fermi_level"; ``get_band_uncertainty`` and ``get_dos_uncertainty`` those of bands and density of states.
    ASE's ``calculate_band_structure(atoms, path)`` and ``ase.dft.bandgap.bandgap(calc)`` work with the calculator.

    Parameters
    ----------
    model, device, dtype, skin, potential, on_extrapolation
        See MLElecCalculator.
    kpts : three ints, array [K, 3] or ase BandPath
        Γ-centered mesh, or k-points, of the eigenvalues. The Fermi level belongs to the mesh that was set last.
    electronic_temperature : float, K
        Default: 300.

    Raises
    ------
    CalculatorSetupError
        For models without a Hamiltonian, and for an invalid mesh or temperature.

    References
    ----------
    Qi et al. 2024.
    """

    needs = ("hamiltonian",)
    evaluates_together = False
    electronic = (*BANDS, "fermi_level")
    settable = ("kpts", "electronic_temperature", *MLElecCalculator.settable)
    atoms_came_first = ("get_fermi_level",)
    instead_of_bands = (
        "the Hamiltonian gives eigenvalues on a mesh; call get_dos(), get_eigenvalues() or get_hamiltonian()"
    )

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        kpts: Sequence[int] | ArrayLike | BandPath = (1, 1, 1),
        electronic_temperature: float | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ) -> None:
        super().__init__(
            model, device=device, dtype=dtype, skin=skin, potential=potential, on_extrapolation=on_extrapolation
        )
        self._electrons = self.metadata.get("electrons_per_atom")
        if not self._electrons:
            self.implemented_properties.remove("fermi_level")
        self._kpts: Any = (1, 1, 1)
        self._mesh: tuple[int, ...] = (1, 1, 1)
        self.kpts = kpts
        self.electronic_temperature = TEMPERATURE if electronic_temperature is None else electronic_temperature

    def _check_models(self):
        super()._check_models()
        first, *others = (
            (model.heads["hamiltonian"].functions, model.descriptor_of("hamiltonian").arguments())
            for model in self.models
        )
        for other in others:
            if other != first:
                raise CalculatorSetupError(
                    "the models of a committee have different functions or cutoffs; train them on one kind of data"
                )

    @property
    def kpts(self) -> tuple[int, int, int] | NDArray:
        """Mesh (three ints) or k-points [K, 3] of the eigenvalues."""
        return self._kpts

    @kpts.setter
    def kpts(self, kpts: Any) -> None:
        with self._one_call():
            try:
                if np.ndim(kpts) == 1 and len(kpts) == 3 and all(int(n) == n and n >= 1 for n in kpts):
                    self._kpts = self._mesh = tuple(int(n) for n in kpts)
                else:
                    self._kpts = check_kpts(kpts.kpts if isinstance(kpts, BandPath) else kpts)
            except (ValueError, TypeError, OverflowError):
                raise CalculatorSetupError(
                    f"got kpts={kpts!r}; give three positive integers, k points [K, 3] or a BandPath"
                ) from None
            self._drop_electronic()

    def _drop_electronic(self):
        """Drop the results that depend on k-points or temperature; the Hamiltonian is kept."""
        for name in (*BANDS, "fermi_level"):
            self.results.pop(name, None)
            self._extra.pop(name, None)
            self._uncertainty.pop(name, None)

    # Hamiltonian --------------------------------------------------------------------------------------------------

    def get_hamiltonian(self, atoms: Atoms | None = None) -> WannierHamiltonian:
        """Return the WannierHamiltonian, eV above the vacuum level.

        Functions are sorted by atom. The functions of one atom have the order of ``functions`` of the model, and axes in
        the frame of the atom's layer.

        Raises
        ------
        InputError
            For layers that cannot be separated, and for structures without a cell or with unknown species.
        """
        self._present(atoms)
        if "hamiltonian" not in self._extra:
            members = self._members()
            self._extra["member_values"] = [values for *_, values in members]
            self._extra["pattern"] = members[0][:-1]
            self._extra["hamiltonian"] = self._built(np.mean(self._extra["member_values"], axis=0))
        return self._extra["hamiltonian"]

    def _built(self, values):
        (r_vectors, which, row, column), owners = self._extra["pattern"]
        if not np.isfinite(values).all():
            raise CalculationFailed("the model gave a Hamiltonian that is not finite; check structure and model")
        return WannierHamiltonian.from_elements(
            self.atoms.cell.array,
            r_vectors=r_vectors,
            which=which,
            row=row,
            column=column,
            values=values,
            centers=self.atoms.positions[owners],
            device=str(self.device),
        )

    def _members(self):
        """Elements of every member: list of ((r_vectors, which, row, column), owners, values)."""
        self.models[0].check_species(self.atoms.numbers)
        system = System.from_atoms(self.atoms, self.dtype, self.device)
        found = []
        with torch.no_grad():
            descriptor = self.models[0].descriptor_of("hamiltonian")
            geometry = descriptor(system, Edges.build(system, descriptor.cutoff))
            self._check_layers(geometry)
            self._measure(geometry, system)
            if self._has_layers():
                self._extra["pair_geometry"] = bare(geometry)
            for model in self.models:
                blocks = model.evaluate_head("hamiltonian", geometry, system, None)
                *pattern, values, owners = model.heads["hamiltonian"].elements(blocks)
                found.append((tuple(pattern), owners, values))
        return found

    def _check_layers(self, geometry):
        known = self.metadata.get("nearest_distances_A")
        if self.on_extrapolation == "ignore" or not known:
            return
        head = self.models[0].heads["hamiltonian"]
        for name, distances in zip(("within", "across"), geometry.nearest()):
            low, high = known.get(name, (np.inf, 0.0))
            if len(distances):
                within = low * (1 - MARGIN) <= float(distances.min()) and float(distances.max()) <= high * (1 + MARGIN)
            else:
                within = name == "within" or known.get("alone", False)
            if not within:
                what = {"within": "the layers", "across": "neighboring layers"}[name]
                found = (
                    f"{float(distances.min()):.2f} to {float(distances.max()):.2f}"
                    if len(distances)
                    else f"more than {head.cutoff:g}"
                )
                wanted = f"{low:.2f} to {high:.2f}" if name in known else "none"
                self._beyond.found(
                    f"layers {name}", f"nearest atoms of {what} are {found} Å apart, {wanted} in the training data"
                )

    def _measure(self, geometry, system):
        """Compare the environments of the Hamiltonian with the training data."""
        known, descriptor = self.models[0].range_of("hamiltonian"), self.models[0].descriptor_of("hamiltonian")
        if known is None:
            return
        near = geometry.r < descriptor.environment
        counts = torch.bincount(torch.cat([geometry.first[near], geometry.second[near]]), minlength=len(system.numbers))
        along = known.project(descriptor.sizes(geometry.features), geometry.species)
        self._measured()["hamiltonian"] = self._beyond.compare(known, along, geometry.species, counts, system.batch)

    def _measure_range(self):
        self.get_hamiltonian()

    @property
    def _watched(self):
        return "hamiltonian"

    # bands --------------------------------------------------------------------------------------------------------

    def electronic_results(self) -> dict[str, Any]:
        """Return the eigenvalues on the mesh or at the k-points, and the Fermi level."""
        hamiltonian = self.get_hamiltonian()
        kpts, weights = self._points()
        eigenvalues = hamiltonian.eigenvalues(kpts)
        # counts come first: ASE derives them from the arrays otherwise, and refuses to set them again
        results = {
            "nspins": 1,
            "nkpts": len(kpts),
            "nbands": hamiltonian.size,
            "eigenvalues": eigenvalues[None],
            "ibz_kpoints": kpts,
            "kpoint_weights": weights,
        }
        if self._electrons:
            results["fermi_level"] = self.get_fermi_level()
        return results

    def get_fermi_level(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the Fermi level of the mesh, eV above the vacuum level.

        Parameters
        ----------
        temperature : float, K
            Default: ``electronic_temperature``.
        atoms : ase.Atoms
        """
        hamiltonian = self.get_hamiltonian(atoms)
        if temperature is not None:
            check_temperature(temperature)
            return self._solve_fermi_level(hamiltonian, float(temperature))
        if "fermi_level" not in self._extra:
            self._extra["fermi_level"] = self._solve_fermi_level(hamiltonian, self.electronic_temperature)
        return self._extra["fermi_level"]

    def _solve_fermi_level(self, hamiltonian, temperature):
        if not self._electrons:
            raise PropertyNotImplementedError(
                "the model's header has no electrons_per_atom, without which there is no "
                "Fermi level; train with it in the attributes of the data"
            )
        n_electrons = float(sum(self._electrons[symbol] for symbol in self.atoms.get_chemical_symbols()))
        try:
            if hamiltonian.size < LARGE:
                return float(hamiltonian.fermi_level(n_electrons, self._mesh, temperature))
            energies, dos = self._polynomial_dos
            dos = dos * (2 * hamiltonian.size / np.trapezoid(dos, energies))
            return float(fermi.fermi_level(energies, dos, n_electrons, temperature))
        except ValueError as error:
            raise CalculationFailed(str(error)) from None

    @property
    def _polynomial_dos(self):
        """(energies, DOS) of a large cell at Γ, over the whole spectrum."""
        if "polynomial_dos" not in self._extra:
            hamiltonian = self.get_hamiltonian()
            bound = np.abs(hamiltonian.bloch.sparse((0, 0, 0))).sum(axis=1).max()  # of all eigenvalues (Gershgorin)
            energies = np.linspace(-bound, bound, 8001)
            self._extra["polynomial_dos"] = energies, hamiltonian.kernel_polynomial_dos(energies).dos
        return self._extra["polynomial_dos"]

    def get_dos(
        self, atoms: Atoms | None = None, *, energies: ArrayLike | None = None, width: float = 0.1
    ) -> GridDOSCollection:
        """Return a collection of one entry, the density of states of the whole structure (info: label).

        It consists of broadened eigenvalues on the mesh. For 3000 functions and more it comes from kernel polynomials
        at Γ, with a resolution of π x width of the spectrum / 512.

        Parameters
        ----------
        atoms : ase.Atoms
        energies : array [S], eV above the vacuum level
            Default: the range of the spectrum.
        width : float, eV
            Width of the Gaussians exp(-(x/width)²).
        """
        if atoms is not None and energies is None and not isinstance(atoms, Atoms):
            warnings.warn("pass energies of get_dos by name: energies=...", DeprecationWarning, stacklevel=3)
            atoms, energies = None, atoms
        hamiltonian = self.get_hamiltonian(atoms)
        if hamiltonian.size >= LARGE:
            grid, dos = self._polynomial_dos
            chosen = grid if energies is None else np.asarray(energies, dtype=float)
            total = np.interp(chosen, grid, dos, left=0.0, right=0.0)
        else:
            kpts, weights = hamiltonian.mesh(self._mesh)
            every = hamiltonian.eigenvalues(kpts)
            if energies is None:
                energies = np.arange(every.min() - 5 * width, every.max() + 5 * width, width / 4)
            chosen = np.asarray(energies, dtype=float)
            total = levels.density_of_states(chosen, every, weights, width, degeneracy=hamiltonian.spin_degeneracy)
        return total_dos(chosen, total, self.atoms.get_chemical_formula())

    def band_structure(
        self,
        path: str | BandPath | None = None,
        *,
        n_bands: int | None = None,
        window: Sequence[float] | None = None,
        npoints: int = 100,
        atoms: Atoms | None = None,
    ) -> BandStructure:
        """Make ase's BandStructure along a path; its reference is the Fermi level, where it is known.

        Parameters
        ----------
        path, n_bands, window, npoints
            As in WannierHamiltonian.band_structure; energies are above the vacuum level.
        atoms : ase.Atoms
        """
        hamiltonian = self.get_hamiltonian(atoms)
        reference = self.get_fermi_level() if self._electrons else 0.0
        return hamiltonian.band_structure(path, npoints=npoints, n_bands=n_bands, window=window, reference=reference)

    # methods that ASE's functions for bands call

    def get_eigenvalues(self, kpt: int = 0, spin: int = 0, *, atoms: Atoms | None = None) -> NDArray:
        """Return the eigenvalues [bands] at one of the k-points, eV."""
        if spin != 0:
            raise InputError(f"got spin={spin}; there is one spin channel, 0")
        return self.get_property("eigenvalues", atoms)[spin, kpt]

    def get_ibz_k_points(self, atoms: Atoms | None = None) -> NDArray:
        """Return the k-points [K, 3]."""
        return self.get_property("ibz_kpoints", atoms)

    def get_k_point_weights(self, atoms: Atoms | None = None) -> NDArray:
        """Return the weights [K] of the k-points; their sum is 1."""
        return self.get_property("kpoint_weights", atoms)

    def get_number_of_bands(self, atoms: Atoms | None = None) -> int:
        """Return the number of functions of the cell."""
        return self.get_property("nbands", atoms)

    def get_number_of_spins(self) -> int:
        """Return 1; every state holds two electrons."""
        return 1

    def get_spin_polarized(self) -> bool:
        """Return False."""
        return False
