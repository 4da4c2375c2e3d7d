"""Standard deviations of the results of a head, from the posterior of its last layer.

A head with a posterior has two methods. ``last_inputs(environment)`` returns the inputs [C, H] of the last layer and the
number [C] of the net of every center (-1 for none). ``responses(environment, outputs)`` returns what the columns of
``outputs`` [O, Q] amount to as results: [C, Q, ...], or [Q, ...] where it is the same for all centers.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.uncertainty.posterior import Posterior


class Contributions(NamedTuple):
    """The result of center c in a member ξ changes by sum_kq z_ck ξ_kq V_cq.

    Attributes
    ----------
    z : Tensor [C, K]
    values : Tensor [C, Q, ...], or [Q, ...] if ``common``
    common : bool
    nets : Tensor [C]
        Number of the net of every center, -1 for none.
    """

    z: Tensor
    values: Tensor
    common: bool
    nets: Tensor


def has_posterior(head: Any) -> bool:
    """Whether a head has the methods from which error bars follow."""
    return hasattr(head, "last_inputs") and hasattr(head, "responses")


def contributions(head: Any, posterior: Posterior, environment: Environment) -> Contributions:
    """Contributions of the centers of ``environment`` to the results of a head."""
    inputs, nets = head.last_inputs(environment)
    z = posterior.coordinates(inputs, nets)
    if bool((nets < 0).any()):
        z = z * (nets >= 0).to(z)[:, None]
    return Contributions(z, head.responses(environment, posterior.outputs), head.common_responses, nets)


def deviations_of_atoms(of: Contributions) -> Tensor:
    """Standard deviations [C, ...] of the results of centers."""
    leverage = of.z.square().sum(dim=1)
    squares = of.values.square().sum(dim=0)[None] if of.common else of.values.square().sum(dim=1)
    return (leverage.reshape(-1, *[1] * (squares.ndim - 1)) * squares).sqrt()


def summed(of: Contributions, batch: Tensor, n_systems: int) -> Tensor:
    """Sum the contributions of the centers of each structure: Tensor [B, K], or [B, K, Q, ...] if not ``common``."""
    if of.common:
        return of.z.new_zeros(n_systems, of.z.shape[1]).index_add(0, batch, of.z)
    products = of.z.reshape(*of.z.shape, *[1] * (of.values.ndim - 1)) * of.values[:, None]
    return products.new_zeros(n_systems, *products.shape[1:]).index_add(0, batch, products)


def deviations_of_sums(sums: Tensor, of: Contributions) -> Tensor:
    """Standard deviations [B, ...] of sums over structures, from the result of ``summed``."""
    if not of.common:
        return sums.square().sum(dim=(1, 2)).sqrt()
    squares = of.values.square().sum(dim=0)
    return (sums.square().sum(dim=1).reshape(-1, *[1] * squares.ndim) * squares).sqrt()


def deviation_along(sums: Tensor, of: Contributions, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of a function of a sum, from its derivatives; exact to first order.

    Parameters
    ----------
    sums : Tensor [1, K]
        Result of ``summed`` for one structure.
    of : Contributions
        With ``common`` responses to S outputs.
    slope : Tensor [S]
        Derivatives of the function with respect to the results summed over the structure.

    Returns
    -------
    deviation : Tensor []
    change : Tensor [S]
        The most likely change of the sum where the function is one standard deviation higher.

    References
    ----------
    With the sum Z ξ V, of normal ξ, the change of the function is Z ξ (V slope): a normal number of standard deviation
    ``|Z| |V slope|``.
    """
    along = of.values @ slope
    size, length = sums[0].norm(), along.norm()
    return size * length, size / length.clamp(min=1e-300) * (along @ of.values)


def leverages(of: Contributions, posterior: Posterior) -> Tensor:
    """Extrapolation [C] of centers, 1 at the edge of the training data, 0 in their middle, and 0 for atoms without a net.

    It is the standard deviation of the difference between the result of a center and the mean result of its species in
    the training data, in units of the largest one in the training data.

    References
    ----------
    Chong et al. 2023, J. Chem. Theory Comput. 19, 8020.
    """
    kind = of.nets.clamp(min=0)
    found = (posterior.leverages(of.z, kind) / posterior.edge[kind]).sqrt()
    return torch.where(of.nets >= 0, found, 0)


def changes_of_energies(of: Contributions, posterior: Posterior, n: int) -> Tensor:
    """Changes [C, n] of a scalar of every center in n members drawn from the posterior, without the calibrated scale."""
    return of.z @ (posterior.draws(n) @ of.values).T
