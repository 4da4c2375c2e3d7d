"""ACE invariants from the arguments of former versions, which had separate arguments for each correlation order."""

from collections.abc import Sequence
from typing import Any

from ase_mlelec.deprecated import former_names, formerly_positional
from ase_mlelec.descriptors.ace.descriptor import ACE
from ase_mlelec.descriptors.ace.orders import next_roughness


@formerly_positional("cutoff", "inner", "n_pair", "n_radial", "l_max", "near", "roughest", "roughest_5")
def from_power_spectrum(species: Sequence[str], **options: Any) -> ACE:
    """ACE from the arguments of the former class PowerSpectrum; new code uses ACE."""
    return ACE(**present_arguments(species=species, **options))


def present_arguments(
    *,
    cutoff: float = 6.0,
    n_pair: int = 12,
    n_radial: int = 5,
    l_max: int = 8,
    near: float = 0.0,
    roughest: float = 9.0,
    roughest_5: float | None = 0.0,
    **others: Any,
) -> dict:
    """Arguments of ACE (JSON types) from the arguments of the former class PowerSpectrum.

    Parameters
    ----------
    n_pair, n_radial : int
        Radial functions of order 1, and of the higher orders.
    near : float
        Cutoff of orders 3 and 4, Å; 0 for neither order.
    roughest, roughest_5 : float
        Largest roughness of order 3 and of order 4; 0 for no such order. ``roughest_5`` = None takes 3/7 of ``roughest``.
    """
    roughest_5 = next_roughness(roughest) if roughest_5 is None else roughest_5
    orders = [
        {"cutoff": cutoff, "n_radial": n_pair, "l_max": 0, "max_roughness": None},
        {"cutoff": cutoff, "n_radial": n_radial, "l_max": l_max, "max_roughness": None},
    ]
    limits = (roughest, roughest_5)[: 0 if not near else 2 if roughest_5 else 1]
    orders += [{"cutoff": near, "n_radial": n_radial, "l_max": l_max, "max_roughness": limit} for limit in limits]
    return {**others, "orders": orders}


__getattr__ = former_names(__name__, PowerSpectrum="from_power_spectrum")
