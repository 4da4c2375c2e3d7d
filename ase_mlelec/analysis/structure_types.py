"""Crystal structure around every atom by common-neighbor analysis, beside the order parameter of an atomic DOS."""

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

DIAMOND_TYPES = (  # the numbers of OVITO
    "other",
    "cubic diamond",
    "cubic diamond, first neighbor",
    "cubic diamond, second neighbor",
    "hexagonal diamond",
    "hexagonal diamond, first neighbor",
    "hexagonal diamond, second neighbor",
)


def diamond_structure(atoms: Atoms) -> NDArray:
    """Diamond structure around every atom, by the common-neighbor analysis of second neighbors.

    First and second neighbors are atoms next to one in the middle of a crystal, as at a surface of the liquid. The
    analysis is that of OVITO, an optional requirement: ``pip install ase-mlelec[cna]``.

    Parameters
    ----------
    atoms : ase.Atoms

    Returns
    -------
    array [N] of int
        Places in ``DIAMOND_TYPES``.

    Raises
    ------
    ValueError
        Where OVITO is not installed.

    References
    ----------
    Maras et al., Comput. Phys. Commun. 205, 13 (2016).
    """
    try:
        from ovito.io.ase import ase_to_ovito
        from ovito.modifiers import IdentifyDiamondModifier
    except ImportError as error:
        raise ValueError(f"common-neighbor analysis needs OVITO ({error}); pip install ase-mlelec[cna]") from None
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    data = ase_to_ovito(bare)
    data.apply(IdentifyDiamondModifier())
    return np.array(data.particles["Structure Type"])
