"""DeepDOSCalculator: atomic and total density of states, and what follows from them."""

import numpy as np
from ase.calculators.calculator import CalculatorSetupError
from ase.spectrum.doscollection import GridDOSCollection
from ase.spectrum.dosdata import GridDOSData

from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.calculators.options import check_temperature
from ase_mlelec.physics import dos, fermi


class DeepDOSCalculator(MLElecCalculator):
    """Atomic density of states (ADOS) by DeepPot-SE, with energy, forces and stress where the model or ``potential``
    has them, so that it runs under ASE's optimizers and MD.

    Parameters: see MLElecCalculator.

    Source: Zeng et al. 2022, Eq. (1).
    """

    needs = ("dos",)
    electronic = ("fermi_level",)
    instead_of_bands = "it has a density of states and no bands; call get_dos(), get_band_gap() or get_fermi_level()"

    def __init__(self, model, **options):
        super().__init__(model, **options)
        grid = self.energies
        for member in self.models[1:]:
            other = member.heads["dos"].energies.cpu().numpy()
            if len(other) != len(grid) or not np.allclose(other, grid):
                raise CalculatorSetupError("the models of a committee have different energy grids; train them on one")
        if self._electron_counts() is None:
            self.implemented_properties.remove("fermi_level")

    @property
    def energies(self):
        """Array [S], eV; the grid of the DOS, on the absolute scale of the training data."""
        return self.models[0].heads["dos"].energies.cpu().numpy()

    def evaluate(self, model, system, environment):
        return {"ados": model.heads["dos"](environment, None)}

    def electronic_results(self):
        return {"fermi_level": self.get_fermi_level()}

    def get_ados(self, atoms=None):
        """Atomic density of states [N, S], states/eV."""
        self._present(atoms)
        if "ados" not in self._extra:
            self._evaluate_electronic()
        return self._extra["ados"].copy()

    def get_total_dos(self, atoms=None):
        """Density of states [S] of the whole structure, states/eV."""
        return self.get_ados(atoms).sum(axis=0)

    def get_dos(self, atoms=None):
        """ase GridDOSCollection with one entry per atom (info: index, symbol); ``sum_all()`` is the total."""
        ados = self.get_ados(atoms)
        symbols = self.atoms.get_chemical_symbols()
        return GridDOSCollection(
            [
                GridDOSData(self.energies, row, {"index": str(i), "symbol": symbol})
                for i, (row, symbol) in enumerate(zip(ados, symbols))
            ]
        )

    def _stated(self):
        return {**super()._stated(), "electronic_temperature": self._temperature()}

    def _temperature(self):
        """K, of the Fermi level where none is asked for."""
        return float(self.metadata.get("electronic_temperature_K", 0.0))

    def _electron_counts(self):
        """dict of electrons in the DOS by species, or None."""
        return self.metadata.get("electrons_in_dos") or self.metadata.get("valence_electrons")

    def _filled(self, atoms, temperature):
        """(grid, total DOS, electrons in it, temperature) of a structure, and {"mu": Fermi level}."""
        if temperature is None:
            temperature = self._temperature()
        check_temperature(temperature)
        total = self.get_total_dos(atoms)
        counts = self._electron_counts()
        if counts is None:
            raise CalculatorSetupError(
                "the model's header has no 'electrons_in_dos': the Fermi level is unknown; "
                "train with valence_electrons in the data's attributes"
            )
        arguments = (
            self.energies,
            total,
            sum(counts[symbol] for symbol in self.atoms.get_chemical_symbols()),
            temperature,
        )
        levels = self._extra.setdefault("fermi_levels", {})  # by temperature: everything else asks for it
        if temperature not in levels:
            levels[temperature] = fermi.fermi_level(*arguments)
        return arguments, {"mu": levels[temperature]}

    def get_fermi_level(self, temperature=None, *, atoms=None):
        """Fermi level, eV, at an electronic temperature in K (default: the model's own)."""
        return self._filled(atoms, temperature)[1]["mu"]

    def get_band_gap(self, atoms=None):
        """(gap, vbm, cbm), eV, of the DOS per atom around the Fermi level at zero temperature; 0 for a metal."""
        (energies, total, _, _), level = self._filled(atoms, 0.0)
        return dos.band_gap(energies, total / len(self.atoms), level["mu"])

    def get_order_parameter(self, offsets=(0, -5, -8), *, atoms=None):
        """Q [N], states/eV: the sum of each atom's DOS at E_F + offsets (eV); small in crystals, large in liquids.

        Source: Zeng et al. 2022, section VI.
        """
        level = self.get_fermi_level(atoms=atoms)
        return dos.order_parameter(self.energies, self.get_ados(), level, offsets)

    def get_band_energy(self, temperature=None, *, atoms=None):
        """Integral of e f(e) D(e), eV."""
        arguments, level = self._filled(atoms, temperature)
        return dos.band_energy(*arguments, **level)

    def get_entropy(self, temperature=None, *, atoms=None):
        """Electronic entropy, eV/K."""
        arguments, level = self._filled(atoms, temperature)
        return dos.entropy(*arguments, **level)

    def get_heat_capacity(self, temperature=None, *, atoms=None):
        """Electronic heat capacity at constant number of electrons and fixed DOS, eV/K."""
        arguments, level = self._filled(atoms, temperature)
        return dos.heat_capacity(*arguments, **level)
