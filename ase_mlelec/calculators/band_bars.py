"""Standard deviations of a Hamiltonian, its eigenvalues, bands, Fermi level and density of states."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.spectrum.band_structure import BandStructure
from numpy.typing import ArrayLike, NDArray

from ase_mlelec.bands.members import changes_of_bands, changes_of_levels
from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.calculators.uncertainty import CALIBRATE
from ase_mlelec.heads.hamiltonian.members import changes_of_values
from ase_mlelec.physics import levels
from ase_mlelec.uncertainty.posterior import drawn_layers

OWN = ("hamiltonian", "eigenvalues", "fermi_level")


class HasBandBars(MLElecCalculator):
    """Mix-in of calculators of Hamiltonians, whose members are a committee or drawn from posteriors of last layers.

    Eigenvalues of members are those of the model plus the expectation values of the changes of the Hamiltonian, which
    needs no diagonalization for each member.
    """

    get_hamiltonian: Any  # of the calculator
    _electrons: Any
    _kpts: Any
    _mesh: tuple[int, ...]

    def _compute_uncertainty(self, name):
        if name not in OWN or (len(self.models) == 1 and not self._has_layers()):
            super()._compute_uncertainty(name)
        elif name == "hamiltonian":
            self._uncertainty[name] = self._deviation_of_elements()
        elif name == "eigenvalues":
            changes = self._level_changes(self._points()[0])[1]
            self._uncertainty[name] = self._bars_of_levels(changes)[None]
        else:
            self._uncertainty[name] = self._deviation_of_fermi_level()

    def _has_layers(self):
        """Whether the model has posteriors of the last layers of its Hamiltonian."""
        return any(name.startswith("hamiltonian/") for name in self.models[0].posteriors)

    def _check_layers_of_members(self):
        if len(self.models) == 1 and not self._has_layers():
            raise PropertyNotImplementedError(f"the model's file has no posterior of the Hamiltonian; {CALIBRATE}")

    def _member_hamiltonians(self):
        """The WannierHamiltonian of every member."""
        self._check_layers_of_members()
        if "member_hamiltonians" not in self._extra:
            self.get_hamiltonian()
            values = self._extra["member_values"]
            if len(self.models) == 1:
                model = self.models[0]
                drawn = drawn_layers(dict(model.posteriors))
                changes = changes_of_values(model.heads["hamiltonian"], self._extra["pair_geometry"], drawn)
                values = values[0] + changes.double().cpu().numpy()
            self._extra["member_hamiltonians"] = [self._built(each) for each in values]
        return self._extra["member_hamiltonians"]

    def _bars_of_levels(self, changes):
        """Standard deviations [...] of levels from their changes [n, ...] in the members."""
        first = next((part for name, part in self.models[0].posteriors.items() if "/" in name), None)
        floor = first.floor("eigenvalues") if first is not None and len(self.models) == 1 else 0.0
        return self._spread_scale("eigenvalues") * np.hypot(changes.std(axis=0), floor)

    def _scale_of_levels(self):
        """Factor of the spread of what follows from all levels, such as the Fermi level."""
        known = any("fermi_level" in part.scales for part in self.models[0].posteriors.values())
        return self._spread_scale("fermi_level" if known else "eigenvalues")

    def _deviation_of_elements(self) -> WannierHamiltonian:
        """WannierHamiltonian whose elements are the standard deviations."""
        members = [each.bloch.stacked for each in self._member_hamiltonians()]
        mean = sum(members) / len(members)
        square = sum((each - mean).multiply((each - mean).conj()) for each in members) / len(members)
        hamiltonian, scale = self.get_hamiltonian(), self._spread_scale("hamiltonian")
        size = hamiltonian.size
        rows = scale * np.sqrt(abs(square).tocsr())
        return WannierHamiltonian(
            hamiltonian.cell,
            hamiltonian.r_vectors,
            [rows[start : start + size] for start in range(0, rows.shape[0], size)],
            centers=hamiltonian.centers,
            device=str(self.device),
        )

    def _points(self):
        """k-points [K, 3] and weights [K] of the eigenvalues."""
        if isinstance(self._kpts, tuple):
            return self.get_hamiltonian().mesh(self._kpts)
        return self._kpts, np.full(len(self._kpts), 1 / len(self._kpts))

    def _level_changes(self, kpts):
        """(energies [K, W], changes [n, K, W] in the members, without the calibrated scale), eV."""
        hamiltonian, members = self.get_hamiltonian(), self._member_hamiltonians()
        if len(self.models) > 1:  # they may be far apart
            energies = hamiltonian.eigenvalues(kpts)
            return energies, np.stack([each.eigenvalues(kpts) for each in members]) - energies
        return changes_of_levels(hamiltonian, members, kpts)

    def _deviation_of_fermi_level(self):
        kpts, weights = self.get_hamiltonian().mesh(self._mesh)
        energies, changes = self._level_changes(kpts)
        n_electrons = float(sum(self._electrons[symbol] for symbol in self.atoms.get_chemical_symbols()))
        found = [
            levels.fermi_level(energies + change, weights, n_electrons, self.electronic_temperature)
            for change in changes
        ]
        return self._scale_of_levels() * float(np.std(found))

    def get_band_uncertainty(self, bands: BandStructure, *, atoms: Atoms | None = None) -> NDArray:
        """Return the standard deviations of bands of this structure.

        Parameters
        ----------
        bands : BandStructure
            Result of ``band_structure``.
        atoms : ase.Atoms

        Returns
        -------
        array of the shape of ``bands.energies``, eV
            To first order in the changes of the Hamiltonian; NaN where the bands are.

        Raises
        ------
        PropertyNotImplementedError
            For a model whose file has no posterior of the Hamiltonian.
        """
        hamiltonian = self.get_hamiltonian(atoms)
        changes = changes_of_bands(hamiltonian, self._member_hamiltonians(), bands.path.kpts, bands.energies[0])
        return self._bars_of_levels(changes)[None]

    def get_dos_uncertainty(self, energies: ArrayLike, *, width: float = 0.1, atoms: Atoms | None = None) -> NDArray:
        """Return the standard deviations [S] of the density of states at ``energies`` [S], states/eV, see ``get_dos``.

        Parameters
        ----------
        energies : array [S], eV above the vacuum level
        width : float, eV
            Width of the Gaussians exp(-(x/width)²).
        atoms : ase.Atoms

        Raises
        ------
        PropertyNotImplementedError
            For a model whose file has no posterior of the Hamiltonian.
        """
        kpts, weights = self.get_hamiltonian(atoms).mesh(self._mesh)
        levels_of_model, changes = self._level_changes(kpts)
        moved = levels_of_model + self._scale_of_levels() * changes
        found = [levels.density_of_states(np.asarray(energies, dtype=float), each, weights, width) for each in moved]
        return np.std(found, axis=0)
