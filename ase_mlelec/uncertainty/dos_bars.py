"""Standard deviations of smooth functions of a density of states: Fermi level, band energy, order parameter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.physics import dos, fermi
from ase_mlelec.physics.gap import GapOfDOS
from ase_mlelec.uncertainty.bars import Contributions, deviation_along, directions_along, summed
from ase_mlelec.uncertainty.posterior import Posterior

SMOOTH = {
    "fermi_level": fermi.fermi_level,
    "band_energy": dos.band_energy,
    "entropy": dos.entropy,
    "heat_capacity": dos.heat_capacity,
}
EXTENSIVE = ("band_energy", "entropy", "heat_capacity")
THERMAL = ("entropy", "heat_capacity")  # in proportion to the temperature, to leading order
LINEAR = 0.2  # largest relative deviation from first order; beyond, there is a gap or an edge nearby


class DosBars:
    """Standard deviations for one structure, without the calibrated scale of the single quantities.

    The density of states of a member ξ differs by Z ξ V from that of the model. A smooth function of it, such as the
    Fermi level with dμ = -(w_N·dD)/(dN/dμ), changes by Z ξ (V s), where s are its derivatives. That is a normal number,
    whose standard deviation ``|Z| |V s|`` needs neither members nor Fermi levels of theirs. Densities that are squares of
    what the last layer gives are treated to first order as well.

    Parameters
    ----------
    energies : array [S], eV
    ados : array [N, S], states/eV
    n_electrons : float
    temperature : float, K
    of : Contributions
        Of all atoms.
    posterior : Posterior
    fermi_level : float, eV
        That of the structure, where it is known already.
    """

    def __init__(
        self,
        energies: Any,
        ados: Any,
        *,
        n_electrons: float,
        temperature: float,
        of: Contributions,
        posterior: Posterior,
        fermi_level: float | None = None,
    ) -> None:
        scale = posterior.scale("members")
        self.energies, self.ados = (torch.as_tensor(each, dtype=torch.float64) for each in (energies, ados))
        self.filling = torch.as_tensor(n_electrons).double(), torch.as_tensor(temperature).double()
        slopes = None if of.slopes is None else of.slopes.double().cpu()
        self.of = of._replace(
            z=scale * of.z.double().cpu(), values=of.values.double().cpu(), nets=of.nets.cpu(), slopes=slopes
        )
        self.total = self.ados.sum(dim=0)
        self._level = None if fermi_level is None else torch.as_tensor(fermi_level).double()
        self.sums, self.posterior = summed(self.of, torch.zeros_like(self.of.nets), 1), posterior

    def smooth(self, name: str) -> float | None:
        """Standard deviation of a function in SMOOTH of the total density of states; None where it is not linear."""
        value, slope = self._slope(name, self.filling)
        deviation, change = deviation_along(self.sums, self.of, slope)
        return float(deviation) if self._is_linear(name, value, deviation, change) else None

    def _is_linear(self, name, value, deviation, change):
        """Whether the function changes by one standard deviation in both directions; it does not in a gap."""
        moved = torch.stack([self.total + change, self.total - change])
        try:
            found = SMOOTH[name](*(each.numpy() for each in (self.energies, moved, *self.filling)))
        except ValueError:  # electrons beyond the grid
            return False
        deviation = float(deviation)
        return deviation < np.inf and bool(np.all(abs(abs(found - float(value)) - deviation) <= LINEAR * deviation))

    def gap(self, find: Callable[[Tensor], GapOfDOS]) -> dict[str, float]:
        """Standard deviations, eV, of "gap", "vbm" and "cbm", to first order.

        Members are no alternative: a little noise in the gap of some of them moves an edge by electronvolts.

        Parameters
        ----------
        find : callable
            The gap of a total density of states [S].
        """
        with torch.enable_grad():
            leaf = self.total.clone().requires_grad_(True)
            found = find(leaf)
            lower, upper = (torch.autograd.grad(edge, leaf, retain_graph=True)[0] for edge in (found.vbm, found.cbm))
        slopes = {"gap": upper - lower, "vbm": lower, "cbm": upper}
        return {name: float(deviation_along(self.sums, self.of, slope)[0]) for name, slope in slopes.items()}

    def floor(self, name: str) -> float:
        """What a floor of one adds to the standard deviation of a function of the total density of states, in quadrature.

        It is the root mean square of the deviations of the atoms, in units of an atom with a leverage of one; times their
        number, for what is extensive, and times the temperature in K, for what vanishes with it. As the deviations of all
        results, it is the same per atom in a repeated cell.
        """
        of_atoms = float(self.of.z.square().sum(dim=1).mean().sqrt())
        return (
            of_atoms * (len(self.ados) if name in EXTENSIVE else 1) * (float(self.filling[1]) if name in THERMAL else 1)
        )

    def with_floor(self, name: str, deviation: float) -> float:
        """A standard deviation with the calibrated floor of the posterior."""
        return float(np.hypot(deviation, self.posterior.floor(name) * self.floor(name)))

    def order_parameter(self, offsets: Any, temperature: float) -> np.ndarray:
        """Standard deviations [N] of the order parameter, of which the Fermi level at a temperature, K, is a part."""
        filling = self.filling[0], torch.as_tensor(temperature).double()
        level, slope = self._slope("fermi_level", filling)
        levels = level.repeat(len(self.ados)).requires_grad_(True)
        with torch.enable_grad():
            values = dos.order_parameter(self.energies, self.ados, levels, offsets)
            (steepness,) = torch.autograd.grad(values.sum(), levels)
        weights = dos.order_parameter(self.energies, torch.eye(len(self.energies)).double(), level, offsets)
        z, shared = self.of.z, directions_along(self.sums, self.of, slope)
        slopes = torch.ones_like(self.ados) if self.of.slopes is None else self.of.slopes
        own = (slopes * weights) @ self.of.values.T
        squares = (
            z.square().sum(dim=1) * own.square().sum(dim=1)
            + 2 * steepness * ((z @ shared) * own).sum(dim=1)
            + steepness.square() * shared.square().sum()
        )
        return squares.clamp(min=0).sqrt().numpy()

    def _slope(self, name: str, filling: tuple) -> tuple[Tensor, Tensor]:
        """(value, derivatives [S] with respect to the total density of states) of a function in SMOOTH."""
        if name in ("fermi_level", "band_energy"):  # several times faster than automatic derivatives
            known = self._level is not None and filling == self.filling
            level: Any = self._level if known else fermi.fermi_level(self.energies, self.total, *filling)
            if name == "fermi_level":
                return level, fermi.level_slopes(self.energies, self.total, level, filling[1])
            return dos.band_energy_and_slopes(self.energies, self.total, level, filling[1])
        with torch.enable_grad():
            leaf = self.total.clone().requires_grad_(True)
            value = SMOOTH[name](self.energies, leaf, *filling)
            (slope,) = torch.autograd.grad(value, leaf)
        return value.detach(), slope
