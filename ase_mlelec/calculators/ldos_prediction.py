"""Evaluation of the LDOS for a calculator: all points are kept, or only what the integrals need of them."""

from typing import Any

import torch
from ase.calculators.calculator import CalculationFailed

from ase_mlelec import processes
from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.calculators.ldos_points import GridLDOS, KeptPoints, streamed
from ase_mlelec.calculators.parameters import HasElectronicTemperature
from ase_mlelec.physics import fermi

KEPT = 2**26  # numbers; larger fingerprints are not kept but evaluated again for the forces, to save memory
MOST_COORDINATES = 2**29  # numbers; more coordinates of the LDOS are not kept, see ldos_points


class PredictsLDOS(HasElectronicTemperature, MLElecCalculator):
    """Base of calculators that evaluate models of the LDOS at the points of a grid."""

    grid: Any
    get_energy_zero: Any
    _fixed_mu: Any
    _hint: Any

    def _predict(self, atoms=None):
        """Coordinates of the LDOS at all points, or nothing yet where they are too many to keep."""
        self._present(atoms)
        if self._extra.setdefault("world", processes.world()) != processes.world():
            self._extra = {"world": processes.world()}  # what is known is a share of the points, or was to be one
        if "means" in self._extra:
            return
        grid = GridLDOS(self.models, self._structure(), self.grid(), self.dtype)
        if grid.n_coordinates > MOST_COORDINATES:
            self._stream()
            return
        keeps = grid.n_points * grid.descriptor.n_features <= KEPT
        self._extra.update(grid.kept(self._extra.get("features", []), features=keeps))
        self._check_means()

    def _check_means(self):
        bases = [model.heads["ldos"].basis() for model in self.models]
        if not all(bool((m @ matrix + b).isfinite().all()) for m, (matrix, b) in zip(self._extra["means"], bases)):
            raise CalculationFailed("the model gave an LDOS that is not finite; check structure and model")

    def _stream(self):
        """Means of the LDOS and what ``_integrals`` needs of it at all points, in one pass or two."""
        grid = GridLDOS(self.models, self._structure(), self.grid(), self.dtype)
        temperature = torch.tensor(self.electronic_temperature, dtype=torch.float64, device=self.device)

        def levels(means):
            self._extra["means"] = means
            self._check_means()
            return [self._level(head, mean, temperature) for head, mean in zip(grid.heads, means)]

        try:
            means, points = streamed(grid, levels, temperature, self._extra.get("means"))
        except ValueError as error:
            self._extra.pop("means", None)
            raise CalculationFailed(f"{error}{self._hint()}") from None
        self._extra.update(means=means, streamed=points)

    def _level(self, head, mean, temperature):
        """Fermi level of a member, eV on its grid of energies."""
        if self._fixed_mu is not None:
            return mean.new_tensor(float(self._fixed_mu) - self.get_energy_zero())
        matrix, offset = head.basis()
        dos = (mean @ matrix + offset) * self.atoms.get_volume()
        return fermi.fermi_level(head.energies.to(mean), dos, mean.new_tensor(self._n_electrons()), temperature)

    def _n_electrons(self):
        counts = self.metadata["valence_electrons"]
        return sum(float(counts[symbol]) for symbol in self.atoms.get_chemical_symbols())

    def _points(self):
        """The LDOS of every member at all points, for integrals at the present Fermi level."""
        if "coordinates" in self._extra:
            heads = [model.heads["ldos"] for model in self.models]
            return [KeptPoints(*each, self._extra["own"]) for each in zip(heads, self._extra["coordinates"])]
        if "streamed" not in self._extra:
            self._stream()
        return self._extra.pop("streamed")  # integrals use them up
