"""Settings of the correlation orders of ACE invariants, and the products of densities of an order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_ORDERS = 4  # products of four neighbors with the central atom: five-body terms
MOST_RADIAL, LARGEST_L = 64, 30  # usual values are 12 and 8
MOST_GROUPS = 20_000_000
ANGULAR = 0.1  # weight of l^2 relative to n^2 in the roughness
NEXT = 3 / 7  # largest roughness of order 4 in units of the largest roughness of order 3


@dataclass(frozen=True)
class Order:
    """Settings of one correlation order.

    Parameters
    ----------
    cutoff : float
        Cutoff, Å.
    n_radial : int
        Number of radial functions.
    l_max : int
        Largest angular momentum l; order 1 has l = 0 alone.
    max_roughness : float, optional
        Largest roughness, 1 + sum of n^2 + (sum of l^2)/10, of a feature; 0 for no features of this order. By default
        the order has all features, which is too many for orders 3 and 4.
    scalars : bool
        Whether products of orders 3 and 4 contain densities with l = 0, as energies that are linear in the features
        need them. A net makes these products itself, from features of lower orders.

    Raises
    ------
    ValueError
        For numbers out of range.
    """

    cutoff: float
    n_radial: int
    l_max: int = 0
    max_roughness: float | None = None
    scalars: bool = False

    def __post_init__(self):
        if not (self.cutoff > 0 and 1 <= self.n_radial <= MOST_RADIAL and 0 <= self.l_max <= LARGEST_L):
            raise ValueError(
                f"got an order of cutoff {self.cutoff} Å, n_radial {self.n_radial} and l_max {self.l_max}; need a cutoff "
                f"above 0, 1 to {MOST_RADIAL} radial functions and l_max from 0 to {LARGEST_L}"
            )
        if self.max_roughness is not None and not self.max_roughness >= 0:
            raise ValueError(f"got max_roughness {self.max_roughness}, need 0 or more")


def standard_orders(
    *,
    cutoff: float = 6.0,
    n_pair: int = 12,
    n_radial: int = 5,
    l_max: int = 8,
    near: float = 4.5,
    max_roughness: float = 9.0,
    max_order: int = MOST_ORDERS,
) -> tuple[Order, ...]:
    """Settings of all correlation orders from a few numbers.

    Parameters
    ----------
    cutoff : float
        Cutoff of orders 1 and 2, Å.
    n_pair : int
        Radial functions of order 1.
    n_radial, l_max : int
        Radial functions and largest angular momentum of the higher orders.
    near : float
        Cutoff of orders 3 and 4, Å; at most ``cutoff``.
    max_roughness : float
        Largest roughness of order 3; the largest roughness of order 4 is 3/7 of it.
    max_order : int
        The highest order, 1 to 4.

    Returns
    -------
    tuple of Order
        Settings of orders 1, 2, ..., ``max_order``.
    """
    if not 1 <= max_order <= MOST_ORDERS:
        raise ValueError(f"max_order: got {max_order}, need 1 to {MOST_ORDERS}")
    far = [Order(cutoff, n_pair), Order(cutoff, n_radial, l_max)]
    limits = [max_roughness, next_roughness(max_roughness)][: max_order - 2] if max_order > 2 else []
    closer = [Order(min(near, cutoff), n_radial, l_max, limit) for limit in limits]
    return tuple((far + closer)[:max_order])


def next_roughness(max_roughness: float) -> float:
    """Largest roughness of order 4 from the largest roughness of order 3; 0 where no feature of order 4 is as smooth."""
    limit = NEXT * max_roughness
    return limit if limit >= 1 + 4 * ANGULAR else 0.0


def roughness(squares: NDArray) -> NDArray:
    """Roughness [F], 1 + sum of n^2 + (sum of l^2)/10, of features from ``squares`` [2, F]."""
    return 1 + squares[0] + ANGULAR * squares[1]


def densities_of(order: Order, n_species: int) -> NDArray:
    """All densities of an order as (l, species, n), array [K, 3] of int, sorted by l, then species, then n."""
    return np.indices((order.l_max + 1, n_species, order.n_radial)).reshape(3, -1).T


def groups_of(kinds: NDArray, size: int, limit: float | None, *, scalars: bool = False) -> NDArray:
    """Products of ``size`` densities that contain an invariant of rotations and reflections.

    Parameters
    ----------
    kinds : array [K, 3]
        (l, species, n) of the densities.
    size : int
        Number of densities in a product.
    limit : float, optional
        The largest roughness.
    scalars : bool
        Whether products of three and more densities contain densities with l = 0. They are products of invariants of
        lower orders.

    Returns
    -------
    array [F, size] of int
        Places in ``kinds`` of the densities of each product, ascending. Products of three and more densities have no odd
        sum of l, which would make them change sign in a mirror.

    Raises
    ------
    ValueError
        For too many products.
    """
    l = kinds[:, 0]
    if size == 1:
        groups = np.flatnonzero(l == 0)[:, None]
    elif size == 2:
        groups = np.concatenate(
            [np.flatnonzero(l == own)[np.transpose(np.triu_indices((l == own).sum()))] for own in np.unique(l)]
        )
    else:
        groups = _coupled(kinds, size, limit, scalars)
    return groups if limit is None else groups[roughness(squares_of(kinds, groups)) <= limit]


def _coupled(kinds, size, limit, scalars):
    l, _, n = kinds.T
    groups = np.flatnonzero((l > 0) | scalars)[:, None]
    for _ in range(size - 1):
        if len(groups) * len(kinds) > MOST_GROUPS or limit is None:
            raise ValueError("got too many products of densities; use a smaller max_roughness, l_max or n_radial")
        which, place = np.nonzero(groups[:, -1:] <= np.arange(len(kinds)))
        groups = np.column_stack([groups[which], place])
        # another density can only raise the roughness; each l of an unfinished product counts
        squares = np.stack([(n[groups] ** 2).sum(axis=1), (l[groups] ** 2).sum(axis=1)])
        groups = groups[roughness(squares) <= limit]
    total = l[groups].sum(axis=1)
    return groups[(total % 2 == 0) & (2 * l[groups].max(axis=1) <= total)]


def squares_of(kinds: NDArray, groups: NDArray) -> NDArray:
    """Sums of n^2 and of l^2 of products of densities, array [2, F]; the common l of two densities counts once."""
    l, _, n = kinds.T
    l = l[groups[:, :1]] if groups.shape[1] == 2 else l[groups]
    return np.stack([(n[groups] ** 2).sum(axis=1), (l**2).sum(axis=1)])


def checked_orders(orders: Sequence, inner: float) -> tuple[Order, ...]:
    """Check settings, each an Order or a dict of its arguments, and return them as a tuple of Order.

    Raises
    ------
    ValueError
        For no orders, for too many, and for a cutoff below ``inner``, Å.
    """
    found = tuple(order if isinstance(order, Order) else Order(**order) for order in orders)
    if not 1 <= len(found) <= MOST_ORDERS:
        raise ValueError(f"got {len(found)} correlation orders, need 1 to {MOST_ORDERS}")
    wrong = [order.cutoff for order in found if not 0 < inner < order.cutoff]
    if wrong:
        raise ValueError(f"got inner {inner:g} Å and a cutoff of {wrong[0]:g} Å; need 0 < inner < cutoff")
    return found
