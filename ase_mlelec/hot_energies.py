"""How the energy of a model changes with the temperature of the electrons, at temperatures where that was learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

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

    def __init__(self, reference: float, temperatures: Sequence[float], n_species: int, n_inputs: int):
        super().__init__()
        every = [reference, *temperatures]
        if len({float(t) for t in every}) < len(every) or not all(0 < t < np.inf for t in every):
            raise ValueError(
                f"hot energies: got the temperatures {', '.join(f'{t:g}' for t in every)} K, need different ones above 0"
            )
        self.reference, self.temperatures = float(reference), tuple(map(float, temperatures))
        self.register_buffer("changes", torch.zeros(len(self.temperatures), n_species, n_inputs + 1))

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        n_species, n_inputs = self.changes.shape[1], self.changes.shape[2] - 1
        return {
            "reference": self.reference,
            "temperatures": list(self.temperatures),
            "n_species": n_species,
            "n_inputs": n_inputs,
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
