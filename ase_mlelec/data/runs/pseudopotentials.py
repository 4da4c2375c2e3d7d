"""What a data set of local densities of states says of the electrons, from pseudopotentials."""

from collections.abc import Sequence
from typing import Any

from ase_mlelec.io.functionals import TERMS, functional_of
from ase_mlelec.io.upf import UPF


def electrons_of(pseudopotentials: Sequence[UPF]) -> dict[str, Any]:
    """Attributes of a file of snapshots: valence_electrons, xc and core_charges, dict of JSON types.

    Raises
    ------
    ValueError
        For pseudopotentials of several functionals, or of one that is not known.
    """
    found = {functional_of(upf.functional) or upf.functional for upf in pseudopotentials}
    if len(found) != 1 or not found <= TERMS.keys():
        raise ValueError(
            f"got pseudopotentials of {', '.join(sorted(found))}, need one of the functionals "
            f"{', '.join(TERMS)}; others cannot be evaluated"
        )
    charges = {}
    for upf in pseudopotentials:
        if upf.core_charge is not None:
            end = int(upf.core_charge.nonzero()[0].max(initial=0)) + 3  # nothing but zeros from there on
            charges[upf.symbol] = {
                "r": upf.r[:end].tolist(),
                "rab": upf.rab[:end].tolist(),
                "charge": upf.core_charge[:end].tolist(),
            }
    return {
        "valence_electrons": {upf.symbol: upf.z_valence for upf in pseudopotentials},
        "xc": found.pop(),
        "core_charges": charges,
    }
