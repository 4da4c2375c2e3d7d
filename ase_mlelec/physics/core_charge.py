"""Partial core charge of pseudopotentials with core correction, on the grid of the density."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ase_mlelec.physics import grid


def density(
    core_charges: Mapping, symbols: Sequence, positions: Tensor, cell: Tensor, shape: Sequence[int]
) -> Tensor | None:
    """Sum of the core charges of all atoms and their images, as exchange and correlation see them.

    Parameters
    ----------
    core_charges : dict by chemical symbol of {"r": [M] Å, "rab": [M] Å, "charge": [M] electrons/Å^3}
        The radial mesh, its derivative by index and the charge, as in UPF files; elements without a core correction
        have no entry.
    symbols : sequence of N chemical symbols
    positions : Tensor [N, 3], Å
    cell : Tensor [3, 3], Å
    shape : (G1, G2, G3)

    Returns
    -------
    Tensor [G1, G2, G3], electrons/Å^3
        Differentiable with respect to positions and cell, or NumPy array for NumPy arrays; None where no atom has a
        core charge.

    Raises
    ------
    ValueError
        As grid.superpose does.

    References
    ----------
    Louie, Froyen and Cohen, Phys. Rev. B 26, 1738 (1982).
    """
    total = None
    for symbol, radial in core_charges.items():
        atoms = [k for k, other in enumerate(symbols) if other == symbol]
        if atoms:
            part = grid.superpose(radial["charge"], radial["r"], radial["rab"], positions[atoms], cell, shape)
            total = part if total is None else total + part
    return total
