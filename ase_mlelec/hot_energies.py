"""How the energy of a model changes with the temperature of the electrons, at temperatures where that was learned."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.uncertainty import Posterior

# of the temperature in which what a density of states leaves is interpolated: free energies of electrons change with T²
POWER = 2.0


class HotEnergies(torch.nn.Module):
    r"""Changes of the last layers of the energy head with which it gives the free energy at other temperatures.

    The free energy of electrons in a density of states, F_e, has most of the dependence on the temperature, but misses
    that the density of states changes as well, and has the errors of that density. What it misses at the temperatures
    T_k is known here, and is interpolated:

    .. math::

        F(T) = E + F_e(T) - F_e(T_0) + \sum_k w_k(T) \, \bigl[E_k - E - F_e(T_k) + F_e(T_0)\bigr]

    with the energies E_k of the model with the k-th change; w are the polynomials of least degree in
    T² with w_k(T_k) = 1 that vanish at T_0 and the other temperatures.

    Parameters
    ----------
    reference : float, K
        T_0, the temperature of the electrons to which the energies of the model belong.
    temperatures : sequence of K floats, K
    n_species, n_inputs : int
        Numbers of last layers, and of their inputs.
    scales, floors : sequence of K dicts of float, optional
        Scales and floors of error bars at each temperature by label, as in Posterior; default those of the posterior.

    Attributes
    ----------
    changes : Tensor [K, n_species, n_inputs + 1], eV
        Changes of weights and constants, as the energy head's ``change_last`` takes them.

    Raises
    ------
    ValueError
        For temperatures that are not positive, or not different.
    """

    changes: Tensor

    def __init__(
        self,
        reference: float,
        temperatures: Sequence[float],
        n_species: int,
        n_inputs: int,
        scales: Sequence[Mapping[str, float]] | None = None,
        floors: Sequence[Mapping[str, float]] | None = None,
    ):
        super().__init__()
        every = [reference, *temperatures]
        if len({float(t) for t in every}) < len(every) or not all(0 < t < np.inf for t in every):
            raise ValueError(
                f"hot energies: got the temperatures {', '.join(f'{t:g}' for t in every)} K, need different ones above 0"
            )
        self.reference, self.temperatures = float(reference), tuple(map(float, temperatures))
        self.scales, self.floors = (
            [{label: float(size) for label, size in each.items()} for each in given or [{}] * len(temperatures)]
            for given in (scales, floors)
        )
        if not len(self.scales) == len(self.floors) == len(temperatures):
            raise ValueError(
                f"hot energies: got {len(self.scales)} scales and {len(self.floors)} floors for {len(temperatures)} "
                "temperatures, need one for each"
            )
        self.register_buffer("changes", torch.zeros(len(self.temperatures), n_species, n_inputs + 1))

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        n_species, n_inputs = self.changes.shape[1], self.changes.shape[2] - 1
        return {
            "reference": self.reference,
            "temperatures": list(self.temperatures),
            "n_species": n_species,
            "n_inputs": n_inputs,
            "scales": self.scales,
            "floors": self.floors,
        }

    def shares(self, temperature: float) -> list[float]:
        """Shares w [K] of what is known at each temperature, at another temperature, K."""
        x = temperature**POWER
        return [float(np.prod([(x - other) / (own - other) for other in others])) for own, others in self._points()]

    def slopes(self, temperature: float) -> list[float]:
        """Derivatives dw/dT [K] of the shares, 1/K."""
        x, by_temperature = temperature**POWER, POWER * temperature ** (POWER - 1)
        found = []
        for own, others in self._points():
            polynomial = np.poly1d(others, r=True) / np.prod([own - other for other in others])
            found.append(float(polynomial.deriv()(x)) * by_temperature)
        return found

    def _points(self):
        """Pairs (power of each temperature, list of those of the others and of the reference)."""
        points = [t**POWER for t in (self.reference, *self.temperatures)]
        return [(points[k], points[:k] + points[k + 1 :]) for k in range(1, len(points))]

    def change(self, temperature: float) -> Tensor:
        """Change [n_species, n_inputs + 1] of the last layers at a temperature, K."""
        shares = self.changes.new_tensor(self.shares(temperature))
        return torch.einsum("k,ksf->sf", shares, self.changes)

    def forget_bars(self) -> None:
        """Drop scales and floors, which belong to a posterior of the energy that has been replaced."""
        self.scales, self.floors = [{} for _ in self.temperatures], [{} for _ in self.temperatures]

    def posterior(self, cold: Posterior, temperature: float) -> Posterior:
        r"""Posterior of the energy at a temperature, K, from that at the reference; both share their arrays.

        At every known temperature an error has the bar of the posterior with the scale and the floor of this temperature.
        Between them the energy is a sum of those that are known, with the shares of ``parts``, and so is its bar:

        .. math::

            \sigma(T) = \sum_k |v_k(T)| \, \sigma_k

        as if the errors at all temperatures were the same up to their size, because nothing is known of their signs.
        """
        found = copy.copy(cold)
        known = [(cold.scale, cold.floor), *(self._known(cold, k) for k in range(len(self.temperatures)))]
        parts, labels = self.parts(temperature), {*cold.scales, *(label for each in self.scales for label in each)}
        found.scales = {label: _sum(parts, [scale(label) for scale, _ in known]) for label in labels}
        sizes = {label: _sum(parts, [scale(label) * floor(label) for scale, floor in known]) for label in labels}
        found.floors = {label: size / found.scales[label] for label, size in sizes.items() if size}
        return found

    def parts(self, temperature: float) -> list[float]:
        """Shares v [1 + K] of the energies of the reference and of each temperature, at another temperature, K."""
        shares = self.shares(temperature)
        return [1.0 - sum(shares), *shares]

    def _known(self, cold, k):
        """Functions of a label: scale and floor at the k-th temperature; those of the reference where it has none."""
        scales, floors = self.scales[k], self.floors[k]
        if not scales:
            return cold.scale, cold.floor
        others = scales.get("members", cold.scale("members"))
        return lambda label: scales.get(label, others), lambda label: floors.get(label, 0.0)

    def members(self, cold: Posterior, n: int, *, seed: int) -> list["HotEnergies"]:
        """Those of n members, whose energy at the reference changes by ``cold.changes`` with the same seed."""
        own = torch.stack(cold.changes(n, scale=cold.scale("members"), seed=seed))
        each = []
        for k in range(len(self.temperatures)):
            scale, _ = self._known(cold, k)
            each.append(scale("members") / cold.scale("members") * own)
        found = [copy.copy(self) for _ in range(n)]
        for j, member in enumerate(found):
            member._buffers = dict(self._buffers)
            member.changes = self.changes + torch.stack([part[j] - own[j] for part in each])[..., 0].to(self.changes)
        return found


def _sum(parts, sizes):
    return float(sum(abs(part) * size for part, size in zip(parts, sizes)))


def check_hot(hot: HotEnergies, heads: Mapping[str, Any]) -> None:
    """Raise ValueError where a model with these heads cannot have hot energies of this size."""
    nets = getattr(heads["energy"], "nets", None) if "energy" in heads else None
    if nets is None:
        raise ValueError("hot energies: got a model without an energy; train one with [energy]")
    wanted = len(nets.last), nets.last[0].in_features + 1
    if tuple(hot.changes.shape[1:]) != wanted:
        raise ValueError(
            f"hot energies: got changes of shape {tuple(hot.changes.shape[1:])}, need that of the last layers, {wanted}"
        )
