"""Molecular dynamics with electrons at a temperature of their own, which exchange heat with the ions."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError

if TYPE_CHECKING:
    from ase.md.md import MolecularDynamics

TOLERANCE = 1e-9  # eV per atom, of the energy of the electrons
COLDEST, HOTTEST = 1e-3, 1e7  # K


class TwoTemperature:
    """Electrons and ions that exchange heat: an observer for ASE's molecular dynamics.

    ::

        atoms.calc = DeepDOSCalculator("si", electronic_temperature=300, reference_temperature=2000)
        dyn = VelocityVerlet(atoms, 1 * units.fs)
        two = TwoTemperature(atoms, dyn, coupling=1e18 * WATT_PER_M3_K, pulse=gaussian_pulse(0.8, center=100, duration=50))
        dyn.attach(two, interval=2)
        dyn.run(1000)

    Ions move by the forces of the calculator at the present electronic temperature T_e. At every call

    - T_e becomes the temperature at which the electrons at the present positions have the entropy that they had: moving
      ions do work on the electrons and bring no heat;
    - ions get the heat G V (T_e - T_i) Δt by a factor to their momenta relative to the center of mass, and T_e becomes the
      temperature at which the internal energy of the electrons is less by this heat and more by what the pulse brought.

    Entropy and internal energy of the electrons follow from the free energy of the calculator at the present positions.
    The energy of the structure, K + F + T_e S, less that of the pulse, is conserved as well as the dynamics conserves an
    energy.

    Parameters
    ----------
    atoms : ase.Atoms
        With momenta, and a DeepDOSCalculator.
    dyn : MolecularDynamics
        At constant energy; a thermostat exchanges energy that is not accounted for.
    coupling : float, eV/(Å^3 fs K)
        G, which is ase_mlelec.units.WATT_PER_M3_K times the number in W/(m^3 K). Metals have 10^16 to 10^18 W/(m^3 K).
    pulse : callable, optional
        Energy that the electrons absorbed up to a time (fs), eV per atom, such as gaussian_pulse(...).

    Attributes
    ----------
    absorbed : float, eV
        Energy brought by the pulse until now.
    exchanged : float, eV
        Heat that went from the electrons to the ions.

    Raises
    ------
    CalculatorSetupError
        For a calculator without an electronic temperature, and a coupling below 0.
    CalculationFailed
        Where the electrons have less energy than at 0 K, and for a model whose entropy falls with the temperature.

    References
    ----------
    Anisimov, Kapeliovich, Perel'man, Sov. Phys. JETP 39, 375 (1974), for the model of two temperatures; forces at T_e as in
    Ben Mahmoud, Grasselli, Ceriotti, Phys. Rev. B 106, L121116 (2022).
    """

    def __init__(
        self, atoms: Atoms, dyn: "MolecularDynamics", *, coupling: float, pulse: Callable[[float], float] | None = None
    ) -> None:
        if not hasattr(atoms.calc, "reference_temperature"):
            raise CalculatorSetupError(
                f"got {type(atoms.calc).__name__}, need a DeepDOSCalculator, which has an electronic temperature; set "
                "atoms.calc first"
            )
        if not coupling >= 0:
            raise CalculatorSetupError(f"got coupling={coupling!r} eV/(Å^3 fs K); give 0 or more")
        self.atoms, self.dyn, self.coupling, self.pulse = atoms, dyn, coupling, pulse
        self.absorbed = self.exchanged = 0.0
        self._time = self._now()
        self._start = 0.0 if pulse is None else len(atoms) * pulse(self._time)
        self._entropy = self._electrons(self.electronic_temperature)[1]

    @property
    def electronic_temperature(self) -> float:
        """T_e, K."""
        return self.atoms.calc.electronic_temperature

    @property
    def ionic_temperature(self) -> float:
        """T_i, K."""
        return self.atoms.get_temperature()

    @property
    def heat_capacity(self) -> float:
        """Heat capacity of electrons in the density of states of the present structure, eV/K, see get_heat_capacity."""
        return self.atoms.calc.get_heat_capacity(atoms=self.atoms)

    @property
    def total_energy(self) -> float:
        """Kinetic energy and internal energy K + F + T_e S, eV."""
        temperature = self.electronic_temperature
        free = self.atoms.get_potential_energy() + self.atoms.get_kinetic_energy()
        return float(free + temperature * self._electrons(temperature)[1])

    def __call__(self) -> None:
        """Exchange heat for the time since the last call, and set the electronic temperature."""
        now = self._now()
        if now == self._time:
            return
        elapsed, self._time = now - self._time, now
        before = self.absorbed
        self.absorbed = 0.0 if self.pulse is None else len(self.atoms) * self.pulse(now) - self._start
        temperature = self._solve(self._entropy, 1, self.electronic_temperature)
        energy = self._electrons(temperature)[0] + self.absorbed - before - self._heat_ions(temperature, elapsed)
        temperature = self._solve(energy, 0, temperature)
        self._entropy = self._electrons(temperature)[1]
        if temperature != self.electronic_temperature:
            self.atoms.calc.electronic_temperature = temperature

    def _heat_ions(self, temperature, elapsed):
        """Heat, eV, that the ions get from electrons at a temperature."""
        momenta, masses = self.atoms.get_momenta(), self.atoms.get_masses()[:, None]
        drift = masses * momenta.sum(axis=0) / masses.sum()  # of the center of mass, which gets no heat
        kinetic = float(((momenta - drift) ** 2 / masses).sum() / 2)
        heat = self.coupling * self.atoms.get_volume() * (temperature - self.ionic_temperature) * elapsed
        if not heat or kinetic == 0:
            return 0.0
        heat = max(heat, -0.5 * kinetic)  # a step that is too long takes no more than half of it
        self.atoms.set_momenta(drift + (momenta - drift) * math.sqrt(1 + heat / kinetic))
        self.exchanged += heat
        return heat

    # energies of the present positions --------------------------------------------------------------------------

    def _now(self):
        return self.dyn.get_time() / units.fs

    def _electrons(self, temperature):
        """(internal energy, eV, entropy, eV/K) of the electrons."""
        return self.atoms.calc.get_energy_of_electrons(temperature, atoms=self.atoms)

    def _solve(self, value, which, temperature):
        """Temperature, K, at which internal energy (0) or entropy (1) have a value: secants within a bracket."""
        temperature, low, high = max(temperature, COLDEST), 0.0, np.inf
        slope, former = self._first_slope(which, temperature), None
        for _ in range(100):
            excess = self._electrons(temperature)[which] - value
            if abs(excess) * (temperature if which == 1 else 1) < TOLERANCE * len(self.atoms):
                return temperature
            low, high = (low, temperature) if excess > 0 else (temperature, high)
            if high < COLDEST or low > HOTTEST:
                break
            if former is not None and (excess - former[1]) * (temperature - former[0]) > 0:
                slope = (excess - former[1]) / (temperature - former[0])
            former, following = (temperature, excess), temperature - excess / slope
            if not low < following < high:
                following = 0.5 * (low + high) if np.isfinite(high) else 2 * temperature
            temperature = following
        raise CalculationFailed(
            f"no electronic temperature between {COLDEST:g} and {HOTTEST:g} K belongs to the energy of the electrons; "
            "take a shorter time step, or a weaker coupling or pulse"
        )

    def _first_slope(self, which, temperature):
        """Derivative of internal energy (0) or entropy (1) by the temperature, of the density of states alone."""
        capacity = max(self.atoms.calc.get_heat_capacity(temperature, atoms=self.atoms), 1e-12)
        return capacity / temperature if which == 1 else capacity


def gaussian_pulse(energy: float, *, center: float, duration: float) -> Callable[[float], float]:
    """Energy absorbed from a laser pulse that is a Gaussian in time, as a function of the time.

    Parameters
    ----------
    energy : float, eV per atom
        Of the whole pulse.
    center : float, fs
    duration : float, fs
        Full width at half maximum.

    Returns
    -------
    function of a time in fs
        eV per atom absorbed until then.

    Examples
    --------
    >>> pulse = gaussian_pulse(0.8, center=100, duration=50)
    >>> [round(pulse(time), 3) for time in (0, 100, 200)]
    [0.0, 0.4, 0.8]
    """
    if not duration > 0:
        raise ValueError(f"duration: got {duration!r} fs, need more than 0")
    scale = duration / (2 * math.sqrt(math.log(2)))
    return lambda time: 0.5 * energy * (1 + math.erf((time - center) / scale))
