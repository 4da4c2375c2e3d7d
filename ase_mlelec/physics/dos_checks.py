"""Checks of energy grids, densities of states on them, temperatures and numbers of electrons."""

import math
from typing import Any

from torch import Tensor

from ase_mlelec.physics.arrays import check_finite


def check_grid(energies: Tensor) -> None:
    """Raise ValueError unless energies is [S], S >= 2, finite and strictly increasing."""
    if energies.ndim != 1 or len(energies) < 2:
        raise ValueError(f"energies: got shape {list(energies.shape)}, need [S] with S >= 2; pass one grid in eV")
    check_finite(energies=energies)
    increasing = energies[1:] > energies[:-1]
    if not increasing.all():
        at = increasing.tolist().index(False)
        raise ValueError(
            f"energies: got {energies[at]:g} then {energies[at + 1]:g} eV at point {at}, need increasing "
            "values; sort the grid together with the DOS"
        )


def check_dos(energies: Tensor, dos: Tensor) -> None:
    """Raise ValueError unless energies is a grid and dos is finite and [..., S] on it."""
    check_grid(energies)
    if dos.ndim < 1 or dos.shape[-1] != len(energies):
        raise ValueError(
            f"dos: got shape {list(dos.shape)}, need [..., {len(energies)}] to match energies; put the energy axis last"
        )
    check_finite(dos=dos)


def check_temperature(temperature: Any) -> None:
    """Raise ValueError unless all temperatures, a tensor or an array, are finite and at least zero."""
    good = (temperature >= 0) & (temperature < math.inf)
    if not good.all():
        raise ValueError(
            f"temperature: got {temperature[~good][0].item():g} K, need a finite number >= 0; give the "
            "electronic temperature in kelvin"
        )


def check_filling(energies: Any, dos: Any, n_electrons: Any, temperature: Any) -> Any:
    """Return the electrons [...] that the DOS holds, after checks of tensors or arrays; ValueError for too many."""
    check_dos(energies, dos)
    check_temperature(temperature)
    capacity = (0.5 * (energies[1:] - energies[:-1]) * (dos[..., 1:] + dos[..., :-1])).sum(-1)
    bad = ~((n_electrons >= 0) & (n_electrons <= capacity + 1e-12 * abs(capacity)))
    if bad.any():
        got, holds = ((value + 0 * bad)[bad][0].item() for value in (n_electrons, capacity))
        raise ValueError(
            f"n_electrons: got {got:g}, need 0 to {holds:g}, which the DOS holds on this grid; widen the "
            "energy grid or check the count of valence electrons"
        )
    return capacity
