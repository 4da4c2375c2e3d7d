"""Standard deviations of smooth functions of a density of states: Fermi level, band energy, order parameter."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.physics import dos, fermi
from ase_mlelec.uncertainty.bars import Contributions, deviation_along, summed
from ase_mlelec.uncertainty.posterior import Posterior

SMOOTH = {
    "fermi_level": fermi.fermi_level,
    "band_energy": dos.band_energy,
    "entropy": dos.entropy,
    "heat_capacity": dos.heat_capacity,
}
LINEAR = 0.2  # largest relative deviation from first order; beyond, there is a gap or an edge nearby


class DosBars:
    """Standard deviations for one structure, without the calibrated scale of the single quantities.

    The density of states of a member ξ differs by Z ξ V from that of the model. A smooth function of it, such as the
    Fermi level with dμ = -(w_N·dD)/(dN/dμ), changes by Z ξ (V s), where s are its derivatives. That is a normal number,
    whose standard deviation ``|Z| |V s|`` needs neither members nor Fermi levels of theirs.

    Parameters
    ----------
    energies : array [S], eV
    ados : array [N, S], states/eV
    n_electrons : float
    temperature : float, K
    of : Contributions
        Of all atoms.
    posterior : Posterior
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
    ) -> None:
        scale = posterior.scale("members")
        self.energies, self.ados = (torch.as_tensor(each, dtype=torch.float64) for each in (energies, ados))
        self.filling = torch.as_tensor(n_electrons).double(), torch.as_tensor(temperature).double()
        self.of = of._replace(z=scale * of.z.double().cpu(), values=of.values.double().cpu(), nets=of.nets.cpu())
        self.sums = summed(self.of, torch.zeros_like(self.of.nets), 1)

    def smooth(self, name: str) -> float | None:
        """Standard deviation of a function in SMOOTH of the total density of states; None where it is not linear."""
        total = self.ados.sum(dim=0)
        value, slope = self._slope(name, total)
        deviation, change = deviation_along(self.sums, self.of, slope)
        return float(deviation) if self._is_linear(name, value, deviation, change) else None

    def _is_linear(self, name, value, deviation, change):
        """Whether the function changes by one standard deviation in both directions; it does not in a gap."""
        total = self.ados.sum(dim=0)
        try:
            found = SMOOTH[name](self.energies, torch.stack([total + change, total - change]), *self.filling)
        except ValueError:  # electrons beyond the grid
            return False
        return bool(deviation < torch.inf) and bool(
            ((found - value).abs() - deviation).abs().max() <= LINEAR * deviation
        )

    def order_parameter(self, offsets: Any, temperature: float) -> np.ndarray:
        """Standard deviations [N] of the order parameter, of which the Fermi level at a temperature, K, is a part."""
        filling = self.filling[0], torch.as_tensor(temperature).double()
        level, slope = self._slope("fermi_level", self.ados.sum(dim=0), filling)
        levels = level.repeat(len(self.ados)).requires_grad_(True)
        with torch.enable_grad():
            values = dos.order_parameter(self.energies, self.ados, levels, offsets)
            (steepness,) = torch.autograd.grad(values.sum(), levels)
        weights = dos.order_parameter(self.energies, torch.eye(len(self.energies)).double(), level, offsets)
        own = self.of.values @ weights
        shared = steepness[:, None] * (self.of.values @ slope)
        z, total = self.of.z, self.sums[0]
        squares = (
            z.square().sum(dim=1) * own.square().sum()
            + 2 * (z @ total) * (shared @ own)
            + total.square().sum() * shared.square().sum(dim=1)
        )
        return squares.clamp(min=0).sqrt().numpy()

    def _slope(self, name: str, total: Tensor, filling: tuple | None = None) -> tuple[Tensor, Tensor]:
        """(value, derivatives [S] with respect to the total density of states) of a function in SMOOTH."""
        with torch.enable_grad():
            leaf = total.clone().requires_grad_(True)
            value = SMOOTH[name](self.energies, leaf, *(filling or self.filling))
            (slope,) = torch.autograd.grad(value, leaf)
        return value.detach(), slope
