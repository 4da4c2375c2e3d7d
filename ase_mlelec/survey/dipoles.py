"""Charges by which dipoles of structures and Born charges become displacements of centroids."""

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_mlelec.data.ions import outer_electrons


def formal_charges(structures: Iterable[Atoms]) -> tuple[dict[str, int], dict[str, int]] | None:
    """Charges of ions, and of the electrons at the centers, dict of e by symbol; None where they cannot be told.

    Ions have the charge of their outer electrons, all of which are at the one species that is not hydrogen, the same number
    at each of its atoms, so that structures are neutral.
    """
    symbols = [atoms.get_chemical_symbols() for atoms in structures]
    species = sorted({symbol for each in symbols for symbol in each})
    ions = {symbol: outer_electrons(symbol) for symbol in species}
    heavy = [symbol for symbol in species if symbol != "H"]
    if len(heavy) != 1 or None in ions.values() or not all(heavy[0] in each for each in symbols):
        return None
    known = {symbol: charge for symbol, charge in ions.items() if charge is not None}
    shares = {sum(known[symbol] for symbol in each) / each.count(heavy[0]) for each in symbols}
    share = shares.pop()
    return (known, {heavy[0]: int(share)}) if not shares and share == int(share) else None


SHELL = 8  # electrons of a closed shell, at each centroid


def charges_like(
    structures: Sequence[Atoms], born_charges: Sequence[NDArray]
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Charges of ions and electrons as in ``formal_charges``, from the Born charges [N, 3, 3], e, of some structures.

    The net charge of a species is the mean of a third of the traces, as an integer where structures are then neutral.
    Species with a negative one are the centers, each with a closed shell of electrons. None where no species is negative,
    and where not all structures can be neutral.
    """
    symbols = [np.array(atoms.get_chemical_symbols()) for atoms in structures]
    species, counts = (
        np.unique(np.concatenate(symbols)),
        [dict(zip(*np.unique(s, return_counts=True))) for s in symbols],
    )
    own = np.concatenate([np.trace(charges, axis1=1, axis2=2) / 3 for charges in born_charges])
    means = {str(name): float(own[np.concatenate(symbols) == name].mean()) for name in species}
    for net in ({name: float(round(charge)) for name, charge in means.items()}, _neutral(means, counts[0])):
        centers = [name for name, charge in net.items() if charge < 0]
        if centers and all(abs(sum(net[name] * n for name, n in each.items())) < 1e-6 for each in counts):
            return {name: net[name] + SHELL * (name in centers) for name in net}, dict.fromkeys(centers, float(SHELL))
    return None


def _neutral(means, counts):
    """Charges in hundredths that are neutral for a composition: negative ones are shifted."""
    net = {name: round(charge, 2) for name, charge in means.items()}
    centers = [name for name, charge in net.items() if charge < 0]
    excess = sum(net[name] * n for name, n in counts.items())
    share = excess / max(sum(counts.get(name, 0) for name in centers), 1)
    return {name: charge - share * (name in centers) for name, charge in net.items()}
