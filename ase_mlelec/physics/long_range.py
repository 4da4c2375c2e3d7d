"""Electrostatic energy of Gaussian charges: in crystals and liquids, in slabs, and in molecules.

In cells with three periods it is the Ewald sum of ase_mlelec.physics.ewald, with tin-foil boundary conditions: there is no
energy of a macroscopic field that depends on the shape of the sample. Slabs, with two periods, and molecules, without any,
are exact: no vacuum enters.
"""

import math

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import ewald, grid
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch, sum_over_chunks

_REACH = 6.0  # Gaussians end where they have fallen to e^-36
_ROWS = 2**17  # pairs in flight


@numpy_or_torch
def energy(positions: Tensor, charges: Tensor, cell: Tensor, pbc: Tensor, width: Tensor | float) -> Tensor:
    r"""Interaction energy of Gaussian charges and their periodic images.

    .. math::

        E = \frac{e^2}{2} \sum{}' q_i q_j \frac{\mathrm{erf}(r/2\sigma)}{r}

    It is smooth where charges coincide, and that of points beyond about 4 σ. The energy of each Gaussian itself is left
    out. In slabs, the energy of planes of charge is counted from their energy at zero distance, -2π ``|z|`` for unit
    charges of a unit area: a charged slab has no other zero of energy.

    Parameters
    ----------
    positions : Tensor [N, 3], Å
        Need not lie inside the cell.
    charges : Tensor [N], e
    cell : Tensor [3, 3], Å
        Rows without a period are not read.
    pbc : Tensor [3]
        Which cell vectors are periods.
    width : float, Å
        Standard deviation σ of the charges.

    Returns
    -------
    Tensor [], eV
        Differentiable with respect to positions, charges and cell.

    Raises
    ------
    ValueError
        For shapes that disagree, NaN, periods that span no volume, a width that is not positive, and one single period.

    References
    ----------
    Zhang et al., J. Chem. Phys. 156, 124107 (2022), for the energy; Sohier, Calandra and Mauri, Phys. Rev. B 96, 075448
    (2017), for slabs.

    Examples
    --------
    Two opposite charges at a distance of 10 Å, in vacuum:

    >>> import numpy as np
    >>> from ase_mlelec import units
    >>> positions, charges = np.array([[0, 0, 0], [0, 0, 10.0]]), np.array([1.0, -1.0])
    >>> e = energy(positions, charges, np.zeros((3, 3)), [False] * 3, width=1.0)
    >>> round(float(-e * 10 / units.COULOMB), 9)
    1.0
    """
    ewald.check_charges(positions, charges)
    if not 0 < float(width) < math.inf:
        raise ValueError(f"width: got {float(width):g} Å, need more than 0; give the standard deviation of the charges")
    periodic = pbc.bool()
    n_periods = int(periodic.sum())
    if n_periods == 3:
        return ewald.energy(positions, charges, cell, width)
    if n_periods == 2:
        return _of_slab(positions, charges, cell[periodic], float(width))
    if n_periods == 1:
        raise ValueError(
            "pbc: got one period, need none, two or three; make a second direction periodic, with vacuum around the chain"
        )
    return _of_molecule(positions, charges, float(width))


def _of_molecule(positions, charges, width):
    """Sum over all pairs, some rows of the matrix of pairs at a time."""
    rows = max(1, _ROWS // len(positions))
    whole = sum_over_chunks(_all_pairs, rows, positions, charges, shared=(positions, charges, _beta(positions, width)))
    itself = (charges**2).sum() / (math.sqrt(math.pi) * width)
    return units.COULOMB / 2 * (whole - itself)


def _beta(like, width):
    return torch.tensor(1 / (2 * width), dtype=like.dtype, device=like.device)


def _all_pairs(others, their_charges, beta, positions, charges):
    potentials = ewald.erf_over_r(positions[:, None] - others, float(beta)) @ their_charges
    return (charges * potentials).sum()


def _of_slab(positions, charges, periods, width):
    r"""Energy of a slab: that of a crystal of slabs that do not see each other.

    The third period is a normal so long that a Coulomb interaction which ends at ``|z|`` = L/2 is complete within one slab
    and nothing between two. Its Fourier components are 4π/G² [1 - (-1)^n exp(-G_p L/2)] with the part G_p in the plane,
    4π/G² [1 - (-1)^n] for G_p = 0, and -π L²/2 for G = 0.
    """
    check_finite(cell=periods)
    normal = torch.linalg.cross(periods[0], periods[1])
    area = normal.norm()
    if not area.item() > 1e-10 * periods.norm(dim=1).prod().item():
        raise ValueError(f"cell: got the periods {periods.tolist()} of no area, need two independent ones")
    unit = normal / area
    height = (positions @ unit).detach()
    # twice the extent of the charges and of the tail of the interaction of two of them
    length = 2 * float(height.max() - height.min()) + 4 * _REACH * width
    cell = torch.cat([periods, length * unit[None]])
    scaled = positions @ torch.linalg.inv(cell)
    vectors, share, intensity = ewald.waves(scaled, charges, cell, 1 / (2 * width), True)
    waves = vectors @ grid.reciprocal_cell(cell)
    along = waves @ unit
    squares = waves.square().sum(-1)
    in_plane = vectors[:, :2].any(-1)
    across = torch.where(in_plane, (squares - along**2).clamp(min=0), 1.0).sqrt()
    sign = 1 - 2 * (vectors[:, 2] % 2)
    decay = torch.where(in_plane, torch.exp(-across * length / 2), 1.0)
    zero = ~vectors.any(-1)
    kernel = 4 * math.pi / torch.where(zero, 1.0, squares) * (1 - sign * decay)
    kernel = torch.where(zero, -math.pi * length**2 / 2, kernel)
    whole = (share * kernel * torch.exp(-squares * width**2) * intensity).sum() / (area * length)
    itself = (charges**2).sum() / (math.sqrt(math.pi) * width)
    return units.COULOMB / 2 * (whole - itself)
