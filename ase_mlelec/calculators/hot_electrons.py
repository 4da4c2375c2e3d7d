"""Energy, forces and stress at other temperatures of the electrons than that of the training data."""

from functools import partial
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import CalculatorSetupError
from torch import Tensor

from ase_mlelec.calculators.extrapolation import CHUNK
from ase_mlelec.calculators.parameters import check_temperature
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES, potential_results, volume_of
from ase_mlelec.calculators.spectral_functional import DifferentiatesSpectra, Spectra
from ase_mlelec.calculators.uncertainty import N_MEMBERS
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.physics.free_energy import electronic_energy, electronic_free_energy
from ase_mlelec.threads import map_chunks


class HasHotElectrons(DifferentiatesSpectra):
    """Mix-in of calculators with atomic densities of states, which adds the free energy of hot electrons.

    With the energy E at the electronic temperature T_0 of the training data, and the free energy of electrons in the
    density of states, F_e,

        F(R, T) = E(R) + F_e(R, T) - F_e(R, T_0)

    Forces and stress are its exact derivatives; the Fermi levels at T and T_0 follow the positions. Models that have learned
    energies at other temperatures as well, HotEnergies, reproduce these, and F_e interpolates between them.

    References
    ----------
    Ben Mahmoud, Grasselli, Ceriotti, Phys. Rev. B 106, L121116 (2022).
    """

    metadata: dict[str, Any]
    potential: Any
    _one_call: Any  # of PresentStructure
    get_electron_number: Any
    get_total_dos: Any
    energies: Any
    _given_temperature: float | None = None
    _given_reference: float | None = None

    @property
    def electronic_temperature(self) -> float:
        """Temperature of the electrons, K."""
        if self._given_temperature is not None:
            return self._given_temperature
        known = self.reference_temperature
        return 0.0 if known is None else known

    @electronic_temperature.setter
    def electronic_temperature(self, temperature: float | None) -> None:
        self._set_temperatures(temperature, self._given_reference)

    @property
    def reference_temperature(self) -> float | None:
        """Electronic temperature of the energies, K: of the model, unless it was given; None where it is unknown."""
        if self._given_reference is not None:
            return self._given_reference
        known = self.metadata.get("electronic_temperature_K")
        return None if known is None else float(known)

    @reference_temperature.setter
    def reference_temperature(self, temperature: float | None) -> None:
        self._set_temperatures(self._given_temperature, temperature)

    def _set_temperatures(self, electronic, reference):
        for temperature in (electronic, reference):
            if temperature is not None:
                check_temperature(temperature)
        known = reference if reference is not None else self.metadata.get("electronic_temperature_K")
        if electronic is not None and known is None and "energy" in self.implemented_properties:
            raise CalculatorSetupError(
                f"got electronic_temperature={electronic:g} K, but the model's header does not say at which electronic "
                "temperature its energies are; give reference_temperature=... (K)"
            )
        with self._one_call():
            self._given_temperature = None if electronic is None else float(electronic)
            self._given_reference = None if reference is None else float(reference)
            kept = ("geometry", "measured", "ados", "fermi_levels", "energy_environments", "rests")
            self._extra = {key: self._extra[key] for key in kept if key in self._extra}
            self.results, self._uncertainty = {}, {}

    def _width(self):
        """Width of the Gaussians in the density of states, eV."""
        return float(self.metadata.get("dos_width_eV", 0.0))

    def _is_hot(self):
        """Whether the electrons have another temperature than those of the energies."""
        return self._given_temperature is not None and self._given_temperature != self.reference_temperature

    # free energy ------------------------------------------------------------------------------------------------

    def _hot_energies(self, model):
        """HotEnergies of a model; None where the energies are not those of this model at its own temperature."""
        hot = model.hot if self.potential is None else None
        return hot if hot is not None and hot.reference == self.reference_temperature else None

    def _excess(self, hot: HotEnergies | None, spectra: Spectra) -> Tensor:
        """F_e(T) - F_e(T_0) of one structure, eV, less the shares of its values at the temperatures of ``hot``."""
        with torch.no_grad():
            mu = float(spectra.fermi_level(self.electronic_temperature))
            self._check_reach(spectra.energies, spectra.dos, mu, len(spectra.ados))
        factors = [(1.0, self.electronic_temperature), (-1.0, self.reference_temperature)]
        if hot is not None:
            shares = hot.shares(self.electronic_temperature)
            factors[1] = (sum(shares) - 1.0, self.reference_temperature)
            factors += [(-share, temperature) for share, temperature in zip(shares, hot.temperatures)]
        width = self._width()
        found = [
            factor * electronic_free_energy(spectra.energies, spectra.dos, spectra.electrons, temperature, width=width)
            for factor, temperature in factors
        ]
        return torch.stack(found).sum()

    def _excess_potential(self, k, model, system, edges):
        """Excess energies of the atoms [N], eV, and derivative by the vectors of edges [E, 3], eV/Å.

        The excess is of first order in the density of states and the number of electrons together (Euler's theorem), so
        that it is Σ_i [Σ_ε D_i(ε) dF/dD(ε) + n_i dF/dn], of which every atom has its own part.
        """
        found = self._differentiate(partial(self._excess, self._hot_energies(model)), k, model, system, edges)
        totals = torch.stack(found.values)
        own = torch.tensor([self._electrons_of(int(z)) for z in system.numbers]).to(totals)
        left = totals - system.sum_per_system(found.parts)
        return found.parts + own * (left / system.sum_per_system(own))[system.batch], found.gradient

    def _member_potential(self, k, model, system, edges):
        if not self._is_hot():
            return super()._member_potential(k, model, system, edges)
        own = model if self._hot_energies(model) is None else model.at_temperature(self.electronic_temperature)
        energies, gradient, far = super()._member_potential(k, own, system, edges)
        more, slope = self._excess_potential(k, model, system, edges)
        return energies.double() + more, gradient + slope, far

    def _ask_potential(self, wanted):
        """As in the base class; the excess is added to the results of the potential."""
        before = set(self.results)
        super()._ask_potential(wanted)
        if not self._is_hot():
            return
        if "excess" not in self._extra:
            each = [self._excess_results(k, model) for k, model in enumerate(self.models)]
            self._extra["excess"] = {name: np.mean([member[name] for member in each], axis=0) for name in each[0]}
        for name in (set(self.results) - before) & set(POTENTIAL_PROPERTIES):
            self.results[name] = self.results[name] + self._extra["excess"][name]

    def _excess_results(self, k, model):
        """ASE's results of the excess alone, dict."""
        system, edges = self._geometry()
        volume = volume_of(self.atoms)
        return potential_results(*self._excess_potential(k, model, system, edges), edges, volume=volume)

    def get_energy_of_electrons(self, temperature: float | None = None, *, atoms: Any = None) -> tuple[float, float]:
        """Return internal energy (eV) and entropy (eV/K) of the electrons, F - T dF/dT and -dF/dT.

        F is the part of the free energy that depends on the temperature, up to a constant of the structure: that of
        electrons in the density of states, and what the model has learned at other temperatures. ``temperature`` is in K;
        default: ``electronic_temperature``. Of a committee they are those of its mean density of states and energies.
        """
        self._present(atoms)
        temperature = self.electronic_temperature if temperature is None else temperature
        check_temperature(temperature)
        energy, entropy = self._of_density(electronic_energy, temperature)
        hot = self._hot_energies(self.models[0])
        for k, rest in enumerate(self._rests(hot)):
            slope = hot.slopes(temperature)[k]
            energy, entropy = energy + (hot.shares(temperature)[k] - temperature * slope) * rest, entropy - slope * rest
        return float(energy), float(entropy)

    def _of_density(self, function, temperature):
        """Function of the total density of states, the number of electrons, and a temperature."""
        arguments = self.energies, self.get_total_dos(), self.get_electron_number()
        return function(*arguments, temperature, width=self._width())

    def _rests(self, hot):
        """E_k - E - F_e(T_k) + F_e(T_0) of the present structure at every temperature of ``hot``, eV, mean of the models."""
        if hot is None:
            return []
        if "rests" not in self._extra:
            every = hot.reference, *hot.temperatures
            energies = [np.mean([self._total_energy(model.at_temperature(t)) for model in self.models]) for t in every]
            densities = [self._of_density(electronic_free_energy, t) for t in every]
            cold, *others = (energy - float(density) for energy, density in zip(energies, densities))
            self._extra["rests"] = [other - cold for other in others]
        return self._extra["rests"]

    def _total_energy(self, model):
        """Sum of the atomic energies of a model for the present structure, eV."""
        system, edges = self._geometry()
        parts = edges.up_to(model.descriptor.cutoff).chunks(CHUNK)

        @torch.no_grad()  # of a thread, so that every chunk sets it
        def evaluated(chunk):
            return float(model(system, chunk[1], ["energy"])["energy"].double().sum())

        return sum(map_chunks(evaluated, parts, device=self.device))

    # error bars -------------------------------------------------------------------------------------------------

    def _energy_posterior(self):
        """As in the base class; at the electronic temperature, where energies were learned at other temperatures."""
        cold, hot = super()._energy_posterior(), self._hot_energies(self.models[0])
        return cold if hot is None or not self._is_hot() else hot.posterior(cold, self.electronic_temperature)

    def _from_posterior(self, name):
        """As in the base class; where the electrons are hot, with the spread of the excess."""
        found = super()._from_posterior(name)
        if name not in POTENTIAL_PROPERTIES or not self._is_hot() or "dos" not in self.models[0].posteriors:
            return found
        spread = self._excess_spread()
        return {key: np.hypot(value, spread[key]) for key, value in found.items()}

    def _of_potential(self, name):
        value = super()._of_potential(name)
        if not self._is_hot() or not ("dos" in self.models[0].posteriors or len(self.models) > 1):
            return value
        return np.hypot(value, self._excess_spread()[name])

    def _excess_spread(self):
        """Standard deviations of the excess over the members, dict by ASE's names."""
        if "excess_spread" not in self._extra:
            alone = len(self.models) == 1
            members = self.models[0].members(N_MEMBERS) if alone else self.models
            each = [self._excess_results(0 if alone else k, model) for k, model in enumerate(members)]
            self._extra["excess_spread"] = {name: np.std([member[name] for member in each], axis=0) for name in each[0]}
        return self._extra["excess_spread"]
