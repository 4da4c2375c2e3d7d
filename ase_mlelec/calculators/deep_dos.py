"""Calculator of the density of states, atom by atom and in total, and of quantities that follow from it."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorSetupError
from ase.data import chemical_symbols
from ase.spectrum.doscollection import GridDOSCollection
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.calculators.band_gap import BandGap
from ase_mlelec.calculators.base import MLElecCalculator, ModelLike
from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.calculators.hot_electrons import HasHotElectrons
from ase_mlelec.calculators.parameters import check_temperature
from ase_mlelec.calculators.spectra import dos_by_atom
from ase_mlelec.calculators.spectral_functional import NO_COUNTS, Spectra
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.electrons import Electrons
from ase_mlelec.model import Model
from ase_mlelec.physics import dos, fermi
from ase_mlelec.physics.gap import hidden_gap
from ase_mlelec.system import System
from ase_mlelec.uncertainty import contributions, joined, seed_of
from ase_mlelec.uncertainty.dos_bars import SMOOTH, DosBars

SILICON_OFFSETS = (0, -5, -8)  # eV from the Fermi level (Zeng et al. 2022), for models whose metadata have none


class DeepDOSCalculator(HasHotElectrons, MLElecCalculator):
    """Calculator of the atomic density of states (ADOS).

    Energy, forces and stress come from the model, where it has an energy head, or from ``potential``; with them the
    calculator runs under ASE's optimizers and molecular dynamics. At another electronic temperature than that of the
    training data, T_0, the energy is F(R, T) = E(R) + F_e(R, T) - F_e(R, T_0), where F_e is the free energy of electrons
    in the density of states, corrected for its width. Forces and stress are exact derivatives of F. The density of
    states itself stays that of T_0, an error of second order in the change of the electron density.

    Parameters
    ----------
    model, device, dtype, skin, potential, on_extrapolation
        See MLElecCalculator.
    electronic_temperature : float, K
        Temperature of the electrons, for energy, forces and stress, and the default of all methods. Default: the
        temperature of the model. The density of states must reach far above the Fermi level: ``on_extrapolation`` decides
        what is done where states above it miss more than 2 meV per atom.
    reference_temperature : float, K
        Electronic temperature T_0 of the energies. Default: ``electronic_temperature_K`` in the metadata of the model.
        Give it with a ``potential`` whose energies belong to another temperature.

    Raises
    ------
    CalculatorSetupError
        For an electronic temperature where the temperature of the energies is unknown, and as MLElecCalculator does.

    References
    ----------
    Zeng et al. 2022, Eq. (1); hot electrons: Ben Mahmoud, Grasselli, Ceriotti, Phys. Rev. B 106, L121116 (2022).
    """

    needs = ("dos",)
    settable = ("electronic_temperature", "reference_temperature", *MLElecCalculator.settable)
    derived: ClassVar = {
        "fermi_level": lambda calc: calc.get_fermi_level(),
        "gap": lambda calc: calc.get_band_gap()[0],
        "vbm": lambda calc: calc.get_band_gap()[1],
        "cbm": lambda calc: calc.get_band_gap()[2],
        "order_parameter": lambda calc: calc.get_order_parameter(),
        "band_energy": lambda calc: calc.get_band_energy(),
        "entropy": lambda calc: calc.get_entropy(),
        "heat_capacity": lambda calc: calc.get_heat_capacity(),
    }
    instead_of_bands = "it has a density of states and no bands; call get_dos(), get_band_gap() or get_fermi_level()"

    def __init__(
        self,
        model: ModelLike | Sequence[ModelLike],
        *,
        electronic_temperature: float | None = None,
        reference_temperature: float | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        potential: BaseCalculator | ModelLike | Sequence[ModelLike] | None = None,
        on_extrapolation: str = OnExtrapolation.WARN,
    ) -> None:
        super().__init__(
            model, device=device, dtype=dtype, skin=skin, potential=potential, on_extrapolation=on_extrapolation
        )
        self._set_temperatures(electronic_temperature, reference_temperature)

    @property
    def electronic(self) -> tuple[str, ...]:  # type: ignore[override]  # depends on the model
        """ASE results in addition to energy, forces and stress; the Fermi level where the electron number is known."""
        return () if self._electron_counts() is None else ("fermi_level",)

    def _check_models(self):
        super()._check_models()
        grid = self.energies
        for member in self.models[1:]:
            other = member.heads["dos"].energies.cpu().numpy()
            if len(other) != len(grid) or not np.allclose(other, grid):
                raise CalculatorSetupError("the models of a committee have different energy grids; train them on one")

    @property
    def energies(self) -> NDArray:
        """Energy grid [S] of the DOS, eV, on the absolute scale of the training data."""
        return self.models[0].heads["dos"].energies.cpu().numpy()

    def evaluate(self, model: Model, system: System, environment: Environment) -> dict[str, Tensor]:
        """Return the atomic density of states [C, S], states/eV."""
        return {"ados": model.heads["dos"](environment, None)}

    def _from_posterior(self, name):
        """As in the base class, with "ados" [N, S], the total "dos" [S], and what follows from them."""
        if "dos" not in self.models[0].posteriors:
            return super()._from_posterior(name)
        if name in ("ados", "dos"):
            return self._deviations_of("dos", {"ados": "ados", "dos": "dos"})
        if name == "order_parameter":
            found: Any = self._bars().order_parameter(self._offsets(), self.reference_temperature or 0.0)
        elif name in ("gap", "vbm", "cbm") and self._gap() is not None:
            edges = self._bars().gap(self._gap_of)
            return {edge: self._scaled(edge, value) for edge, value in edges.items()}
        elif name in SMOOTH and self._gap() is None:
            found = self._bars().smooth(name)
        else:
            return super()._from_posterior(name)
        return {} if found is None else {name: self._scaled(name, found)}

    def _scaled(self, name, spread):
        """As in the base class, with the floor of quantities that follow from the density of states.

        Those in SMOOTH were calibrated on metals, gaps and edges on insulators: the others have the spread alone.
        """
        posteriors = self.models[0].posteriors
        if len(self.models) > 1 or "dos" not in posteriors or not posteriors["dos"].floor(name):
            return super()._scaled(name, spread)
        if (name in SMOOTH) != (self._gap() is None):
            return spread
        return super()._scaled(name, self._bars().with_floor(name, spread))

    def _bars(self):
        """DosBars of the present structure."""
        if "dos_bars" not in self._extra:
            head, posterior = (part["dos"] for part in (self.models[0].heads, self.models[0].posteriors))
            (_, _, n_electrons, _), level = self._filled(None, None)
            with torch.no_grad():
                of = joined([contributions(head, posterior, each) for each in self._environments_of("dos")[1]])
            self._extra["dos_bars"] = DosBars(
                self.energies,
                self._extra["ados"],
                n_electrons=n_electrons,
                temperature=self.electronic_temperature,
                of=of,
                posterior=posterior,
                fermi_level=level,
            )
        return self._extra["dos_bars"]

    def _fill(self, members):
        """Atomic densities of states, from outputs that are linear in the weights of the last layer."""
        if "dos" not in self.models[0].posteriors:
            return
        head, posterior = (part["dos"] for part in (self.models[0].heads, self.models[0].posteriors))
        with torch.no_grad():
            environments = self._environments_of("dos")[1]
            z = torch.cat([contributions(head, posterior, each).z for each in environments])
            own = torch.cat([head.nets.of(each) for each in environments])
            scale, draws = posterior.scale("members"), posterior.draws(len(members), seed=seed_of("dos"))
            changes = [scale * (z @ draw) @ posterior.outputs.T for draw in draws]
            found = [head.of_outputs((own + change).double()) for change in changes]
        for member, ados in zip(members, found):
            member._extra["ados"] = ados.cpu().numpy()

    def electronic_results(self) -> dict[str, Any]:
        """Return the Fermi level at the electronic temperature."""
        return {"fermi_level": self.get_fermi_level()}

    def get_ados(self, atoms: Atoms | None = None) -> NDArray:
        """Return the atomic density of states, array [N, S], states/eV."""
        self._present(atoms)
        if "ados" not in self._extra:
            self._evaluate_electronic()
        return self._extra["ados"].copy()

    def get_total_dos(self, atoms: Atoms | None = None) -> NDArray:
        """Return the density of states of the whole structure, array [S], states/eV."""
        return self.get_ados(atoms).sum(axis=0)

    def get_dos(self, atoms: Atoms | None = None) -> GridDOSCollection:
        """Return a collection with one entry per atom (info: index, symbol); ``sum_all()`` is the total."""
        ados = self.get_ados(atoms)
        return dos_by_atom(self.energies, ados, self.atoms.get_chemical_symbols())

    def _spectra(self, ados, numbers):
        """Spectra of one structure, for functionals of them."""
        counts = self._electron_counts()
        n_electrons = None if counts is None else sum(self._electrons_of(int(z)) for z in numbers)
        grid = self.models[0].heads["dos"].energies.to(ados.device)
        return Spectra(grid, ados, n_electrons, self.electronic_temperature)

    def _electrons_of(self, number):
        """Electrons in the DOS of an atom with an atomic number."""
        counts = self._electron_counts()
        if counts is None:
            raise CalculatorSetupError(NO_COUNTS)
        symbol = chemical_symbols[number]
        if symbol not in counts:
            raise CalculatorSetupError(
                f"the model's header has no electrons of {symbol} in 'electrons_in_dos'; add them"
            )
        return float(counts[symbol])

    def _electron_counts(self):
        """Numbers of electrons in the DOS by species, dict or None."""
        return self._electrons().counts

    def _offsets(self):
        """Energies of the order parameter, eV from the Fermi level."""
        return self.metadata.get("order_parameter_offsets_eV", SILICON_OFFSETS)

    def _filled(self, atoms, temperature):
        """Total DOS of a structure, filled with its electrons at a temperature."""
        if temperature is None:
            temperature = self.electronic_temperature
        check_temperature(temperature)
        total = self.get_total_dos(atoms)
        gap = self._gap()
        n_electrons = self.get_electron_number() if gap is None else float(gap.n_electrons) * len(self.atoms)
        known = self._extra.setdefault("fermi_levels", {})  # by temperature; all other quantities need it
        if temperature not in known:
            insulator = gap is not None and temperature == 0
            known[temperature] = (
                float(gap.vbm + gap.cbm) / 2  # which filling finds where its density is zero, up to rounding
                if insulator
                else fermi.fermi_level(self.energies, total, n_electrons, temperature)
            )
        return _Filled((self.energies, total, n_electrons, temperature), known[temperature])

    def _gap(self):
        """GapOfDOS of the present structure, or None; it counts the electrons of an insulator."""
        if "gap" not in self._extra:
            self._extra["gap"] = self._gap_of(torch.from_numpy(self.get_total_dos()))
        return self._extra["gap"]

    def _gap_of(self, total):
        """GapOfDOS of a density of states [S] of the present structure, or None."""
        grid, n_electrons = torch.from_numpy(self.energies), self.get_electron_number()
        return self._electrons().gap(grid, total, n_electrons, len(self.atoms))

    def _electrons(self):
        """Electrons of the model."""
        return Electrons.of(self.models[0].metadata, self.models[0].heads["dos"])

    def get_electron_number(self, atoms: Atoms | None = None) -> float:
        """Return the number of electrons in the density of states of the structure."""
        self._present(atoms)
        kinds, counts = np.unique(self.atoms.numbers, return_counts=True)
        return float(sum(n * self._electrons_of(int(z)) for z, n in zip(kinds, counts)))

    def get_fermi_level(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the Fermi level, eV, at an electronic temperature in K (default: ``electronic_temperature``)."""
        return self._filled(atoms, temperature).mu

    def get_band_gap(self, atoms: Atoms | None = None) -> tuple[float, float, float]:
        """Return (gap, vbm, cbm), eV, corrected for the width of the levels in the density of states.

        Returns
        -------
        BandGap
            A tuple of three numbers with attributes ``uncertainty``, ``resolved`` and ``largest``. Where there is no gap, it
            is 0 and both edges are the Fermi level at 0 K; if ``resolved`` is False, the width of the levels may hide a gap
            up to ``largest``.
        """
        _, mu = self._filled(atoms, 0.0)
        gap = self._gap()
        if gap is None:
            grid, total = torch.from_numpy(self.energies), torch.from_numpy(self.get_total_dos())
            return BandGap.none(mu, hidden_gap(grid, total, mu, width=self._width()), self._width())
        return BandGap.between(gap)

    def get_order_parameter(self, offsets: Sequence[float] | None = None, *, atoms: Atoms | None = None) -> NDArray:
        """Return the order parameter Q of every atom, which is small in crystals and large in liquids.

        Q is the sum of the atom's DOS at some energies.

        Parameters
        ----------
        offsets : sequence of float, eV
            Energies relative to the Fermi level. Default: ``order_parameter_offsets_eV`` in the metadata of the model, or
            else the offsets of silicon, 0, -5 and -8.
        atoms : ase.Atoms

        Returns
        -------
        array [N], states/eV

        References
        ----------
        Zeng et al. 2022, section VI.
        """
        if offsets is None:
            offsets = self._offsets()
        self._present(atoms)
        mu = self.get_fermi_level(self.reference_temperature or 0.0)  # the same order at all electronic temperatures
        return dos.order_parameter(self.energies, self.get_ados(), mu, offsets)

    def get_band_energy(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the band energy, eV, the integral of e f(e) D(e), at an electronic temperature.

        ``temperature`` is in K; default: ``electronic_temperature``.
        """
        arguments, mu = self._filled(atoms, temperature)
        return dos.band_energy(*arguments, mu=mu)

    def get_entropy(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the electronic entropy, eV/K, at a temperature in K (default: ``electronic_temperature``)."""
        arguments, mu = self._filled(atoms, temperature)
        return dos.entropy(*arguments, mu=mu)

    def get_heat_capacity(self, temperature: float | None = None, *, atoms: Atoms | None = None) -> float:
        """Return the electronic heat capacity, eV/K, at constant number of electrons and fixed DOS.

        ``temperature`` is in K; default: ``electronic_temperature``.
        """
        arguments, mu = self._filled(atoms, temperature)
        return dos.heat_capacity(*arguments, mu=mu)


class _Filled(NamedTuple):
    """Arguments of physics.dos (energy grid, DOS, number of electrons, temperature), and the Fermi level."""

    arguments: tuple
    mu: float
