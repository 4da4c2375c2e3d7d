"""Check of a density of states against the number of electrons and the Fermi level of its calculation.

It finds data whose density of states is in another unit.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from ase_mlelec import units

# unit, as MALA writes it -> factor to 1/(eV Å^3)
LDOS_UNITS = {
    f"1/({energy}*{length}^3)": 1 / (per_energy * per_length**3)
    for energy, per_energy in (("eV", 1.0), ("Ry", units.RYDBERG), ("Ha", units.HARTREE))
    for length, per_length in (("A", 1.0), ("Bohr", units.BOHR))
}
# Coarse grids and unconverged calculations are off by a fifth; the nearest units differ by a factor of two.
MOST = 1.4
NEAR = 1.2  # a unit is likely where the numbers of electrons agree within this factor
SHIFT = 0.5  # eV, or a grid step where that is longer: a warning names Fermi levels that differ by more


def electrons_below(energies: NDArray, dos: NDArray, level: float, temperature: float) -> float:
    """Number of electrons in a density of states, linear between its points, at a Fermi level.

    Parameters
    ----------
    energies : array [S], eV
    dos : array [S], states/eV
    level : float, eV
    temperature : float, K

    Returns
    -------
    float
        Accurate to a thousandth, enough to distinguish units (ase_mlelec.physics.fermi is exact).
    """
    kt = max(units.KB * temperature, 1e-6)
    fine = np.linspace(0, len(energies) - 1, 20 * len(energies) + 1)
    fine = np.interp(fine, np.arange(len(energies)), energies)
    fine = np.union1d(fine, level + kt * np.linspace(-20, 20, 401))
    fine = fine[(fine >= energies[0]) & (fine <= energies[-1])]
    x = (fine - level) / kt
    occupied = np.interp(fine, energies, dos) / (1 + np.exp(np.clip(x, -700, 700)))
    return float(((occupied[1:] + occupied[:-1]) / 2 * np.diff(fine)).sum())


def likely_unit(found: float, needed: float, unit: str = "1/(eV*A^3)") -> str | None:
    """Unit in which the number of electrons is right, or None.

    ``found`` is the number of electrons with the data in ``unit``, ``needed`` is the right number.
    """
    ratios = {name: found * factor / LDOS_UNITS[unit] / needed for name, factor in LDOS_UNITS.items()}
    return next((name for name, ratio in ratios.items() if 1 / NEAR < ratio < NEAR and name != unit), None)


def check_electrons(
    here: str,
    energies: NDArray,
    dos: NDArray,
    level: float,
    temperature: float,
    n_electrons: float,
    unit: str = "1/(eV*A^3)",
) -> None:
    """Refuse a density of states with a wrong number of electrons below the Fermi level of its calculation.

    Parameters
    ----------
    here : str
        File and snapshot, for the message.
    energies, dos, level, temperature
        See electrons_below.
    n_electrons : float
        Number of electrons of the calculation.
    unit : str
        Assumed unit of the data, one of LDOS_UNITS.

    Raises
    ------
    ValueError
        Where the numbers differ by a factor of 1.4; the message names the unit in which they agree.
    """
    found = electrons_below(energies, dos, level, temperature)
    if n_electrons / MOST < found < n_electrons * MOST:
        return
    likely = likely_unit(found, n_electrons, unit)
    advice = "check the energies of its grid, its unit, and that LDOS and Fermi level are of one calculation"
    if likely:
        advice = f"it is probably in {likely}: convert it with --ldos-unit '{likely}'"
    raise ValueError(
        f"{here}: at the Fermi level of the calculation, {level:g} eV, the LDOS holds {found:.4g} "
        f"electrons, need {n_electrons:g}; {advice}"
    )


def check_unit(
    here: str, energies: NDArray, dos: NDArray, level: float, temperature: float, n_electrons: float
) -> None:
    """As check_electrons, but refuse only errors that another unit explains, since the Fermi level may be shifted.

    Raises
    ------
    ValueError
        Where another unit fits; the message names it.
    """
    found = electrons_below(energies, dos, level, temperature)
    likely = likely_unit(found, n_electrons)
    if likely and not n_electrons / MOST < found < n_electrons * MOST:
        raise ValueError(
            f"{here}: at its Fermi level, {level:g} eV, it holds {found:.4g} electrons, need "
            f"{n_electrons:g}, as many as there are in {likely}; write the LDOS in 1/(eV Å^3)"
        )


def warn_of_level(here: str, energies: NDArray, found: float, claimed: float) -> None:
    """Warn where the Fermi level of the LDOS, ``found``, is far from the Fermi level of the calculation (eV)."""
    if abs(found - claimed) > max(SHIFT, np.diff(energies).max()):
        warnings.warn(
            f"{here}: the Fermi level of the LDOS is {found:.4g} eV, that of the calculation "
            f"{claimed:.4g} eV; check the energies of the grid, and that both are of one calculation",
            stacklevel=3,
        )
