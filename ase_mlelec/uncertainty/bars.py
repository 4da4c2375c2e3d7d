"""Standard deviations of the results of a head, from the posterior of its last layer.

A head with a posterior has two methods. ``last_inputs(environment)`` returns the inputs [C, H] of the last layer and the
number [C] of the net of every center (-1 for none). ``responses(environment, outputs)`` returns what the columns of
``outputs`` [O, Q] amount to as results: [C, Q, ...], or [Q, ...] where it is the same for all centers. Where results are
functions of the outputs, one by one, ``slopes(environment)`` returns their derivatives [C, O]; bars are then exact to
first order, dD = 2 a da for D = a².
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.uncertainty.posterior import Posterior

N_GRADIENTS = 1  # directions whose gradients give the bars of forces and stress; each costs a seventh of an evaluation
PRIOR = 4.0  # weight of the smooth estimate beside them, in directions
REACH = 0.4  # of the cutoff: how far the leverage of neighbors counts for the force on an atom


class Contributions(NamedTuple):
    """The result of center c in a member ξ changes by sum_kq z_ck ξ_kq V_cq, times its slope.

    Attributes
    ----------
    z : Tensor [C, K]
    values : Tensor [C, Q, ...], or [Q, ...] if ``common``
    common : bool
    nets : Tensor [C]
        Number of the net of every center, -1 for none.
    slopes : Tensor [C, S], optional
        Derivatives of the results by the outputs of the last layer, with ``common`` values [Q, S]; None where they are one.
    """

    z: Tensor
    values: Tensor
    common: bool
    nets: Tensor
    slopes: Tensor | None = None


def has_posterior(head: Any) -> bool:
    """Whether a head has the methods from which error bars follow."""
    return hasattr(head, "last_inputs") and hasattr(head, "responses")


def contributions(
    head: Any, posterior: Posterior, environment: Environment, last: tuple[Tensor, Tensor] | None = None
) -> Contributions:
    """Contributions of the centers of ``environment`` to the results of a head; ``last`` are its last inputs, if known."""
    inputs, nets = last or head.last_inputs(environment)
    z = posterior.coordinates(inputs, nets)
    if bool((nets < 0).any()):
        z = z * (nets >= 0).to(z)[:, None]
    slopes = head.slopes(environment) if hasattr(head, "slopes") else None
    return Contributions(z, head.responses(environment, posterior.outputs), head.common_responses, nets, slopes)


def joined(parts: Sequence[Contributions]) -> Contributions:
    """Contributions of the centers of all ``parts``, with ``common`` values."""
    slopes = None if parts[0].slopes is None else torch.cat([part.slopes for part in parts])  # type: ignore[misc]
    z, nets = (torch.cat([getattr(part, name) for part in parts]) for name in ("z", "nets"))
    return parts[0]._replace(z=z, nets=nets, slopes=slopes)


def without_gauge(of: Contributions, posterior: Posterior) -> Contributions:
    """Contributions to results of single centers, without what is a gauge, see ``Posterior.determined``."""
    return of._replace(z=posterior.determined(of.z, of.nets.clamp(min=0)))


def deviations_of_atoms(of: Contributions, *, floor: float = 0.0) -> Tensor:
    """Standard deviations [C, ...] of the results of centers; ``floor`` as in Posterior."""
    leverage = of.z.square().sum(dim=1) + floor**2 * (of.nets >= 0)
    squares = of.values.square().sum(dim=0)[None] if of.common else of.values.square().sum(dim=1)
    found = (leverage.reshape(-1, *[1] * (squares.ndim - 1)) * squares).sqrt()
    return found if of.slopes is None else found * of.slopes.abs()


def summed(of: Contributions, batch: Tensor, n_systems: int) -> Tensor:
    """Sum the contributions of the centers of each structure.

    Returns
    -------
    Tensor [B, K], [B, K, S] with ``slopes``, or [B, K, Q, ...] if not ``common``.
    """
    if of.slopes is not None:
        each = (batch == b for b in range(n_systems))  # one by one: products of all centers would take much memory
        return torch.stack([of.z[mine].T @ of.slopes[mine] for mine in each])
    if of.common:
        return of.z.new_zeros(n_systems, of.z.shape[1]).index_add(0, batch, of.z)
    products = of.z.reshape(*of.z.shape, *[1] * (of.values.ndim - 1)) * of.values[:, None]
    return products.new_zeros(n_systems, *products.shape[1:]).index_add(0, batch, products)


def deviations_of_sums(sums: Tensor, of: Contributions, *, noise: Tensor | float = 0.0) -> Tensor:
    """Standard deviations [B, ...] of sums over structures, from the result of ``summed``.

    ``noise`` is the sum over the centers of each structure of the squared floor, see ``summed_floor``.
    """
    if not of.common:
        return (sums.square().sum(dim=(1, 2)) + noise).sqrt()
    squares = of.values.square().sum(dim=0)
    leverage = sums.square().sum(dim=1) + noise
    return ((leverage if of.slopes is not None else leverage.reshape(-1, *[1] * squares.ndim)) * squares).sqrt()


def summed_floor(
    of: Contributions, floor: float, batch: Tensor, n_systems: int, weights: Tensor | None = None
) -> Tensor:
    """Sum of the squared floors of the centers of each structure, times ``weights`` [C]², for ``deviations_of_sums``."""
    own = floor**2 * (of.nets >= 0).to(of.z)
    own = own if weights is None else own * weights**2
    own = own if of.slopes is None else own[:, None] * of.slopes.square()
    if not of.common:
        squares = of.values.square().sum(dim=1)
        own = own.reshape(-1, *[1] * (squares.ndim - 1)) * squares
    return own.new_zeros(n_systems, *own.shape[1:]).index_add(0, batch, own)


def deviation_along(sums: Tensor, of: Contributions, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of a function of a sum, from its derivatives; exact to first order.

    Parameters
    ----------
    sums : Tensor [1, K], or [1, K, S]
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
    ``|Z| |V slope|``. Where results are functions of the outputs, Z depends on the output: see ``directions_along``.
    """
    if of.slopes is not None:
        along = directions_along(sums, of, slope)
        size = along.norm()
        return size, ((along @ of.values) * sums[0]).sum(dim=0) / size.clamp(min=1e-300)
    along = of.values @ slope
    size, length = sums[0].norm(), along.norm()
    return size * length, size / length.clamp(min=1e-300) * (along @ of.values)


def directions_along(sums: Tensor, of: Contributions, slope: Tensor) -> Tensor:
    """Derivatives [K, Q] by ξ of a function of a sum, from its derivatives; arguments as in ``deviation_along``."""
    if of.slopes is None:
        return sums[0][:, None] * (of.values @ slope)
    return (sums[0] * slope) @ of.values.T


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


def slopes_of_energies(posterior: Posterior, nets: Tensor, n: int = N_GRADIENTS) -> Tensor:
    """Derivatives [n, C, H] of the energies of centers by the inputs of the last layer, in ``posterior.directions``.

    They are changes of the weights of the last layer, without the calibrated scale; ``nets`` [C] as in Contributions.
    """
    weights = torch.einsum("shk,nk->nsh", posterior.inputs[:, :-1], posterior.directions(n)) * posterior.outputs[0, 0]
    return weights.index_select(1, nets)


def leverage_around(leverage: Tensor, edges: Edges, cutoff: float) -> Tensor:
    """Mean [N] of the leverage [N] of every atom and its neighbors, with weights exp(-(r/(0.4 cutoff))²)."""
    edges.check_cutoff(cutoff)
    squares = edges.vec.T.square().sum(dim=0)
    weight = torch.exp(squares * (-1 / (REACH * cutoff) ** 2))
    weight = weight * (squares < cutoff**2)  # faster than to choose the edges
    total = leverage.index_add(0, edges.neighbor, weight * leverage[edges.center])
    return total / torch.ones_like(leverage).index_add(0, edges.neighbor, weight)


def deviations_of_forces(forces: Tensor, leverage: Tensor, batch: Tensor, *, floor: float = 0.0) -> Tensor:
    """Standard deviations [N, 3] of forces from those of a few directions of the posterior.

    The mean square of a component over n directions has a relative error of (2/n)^1/2. It is therefore joined with a
    smooth estimate, as PRIOR more directions would be: the mean square over all components of the structure, shared out
    in proportion to the leverage around the atoms.

    Parameters
    ----------
    forces : Tensor [n, N, 3], eV/Å
        Forces of the energies whose weights are ``slopes_of_energies``.
    leverage : Tensor [N]
        Result of ``leverage_around``.
    batch : Tensor [N]
        Structure of every atom.
    floor : float, eV/Å
    """
    n, squares = len(forces), forces.square().mean(dim=0)
    sums = squares.new_zeros(int(batch.max()) + 1, 2).index_add(
        0, batch, torch.stack([squares.mean(dim=1), leverage], dim=1)
    )
    smooth = leverage * (sums[:, 0] / sums[:, 1].clamp(min=1e-300))[batch]
    return ((n * squares + PRIOR * smooth[:, None]) / (n + PRIOR) + floor**2).sqrt()


def deviations_of_stress(stresses: Tensor, *, noise: Tensor | float = 0.0) -> Tensor:
    """Standard deviations [B, 6] of virials or stresses, in Voigt order, from those [n, B, 6] of a few directions.

    As for forces; the smooth estimates are the mean squares of the normal and of the shear components.
    """
    n, squares = len(stresses), stresses.square().mean(dim=0)
    smooth = squares.unflatten(1, (2, 3)).mean(dim=2, keepdim=True).expand(-1, 2, 3).flatten(1)
    return ((n * squares + PRIOR * smooth) / (n + PRIOR) + noise).sqrt()
