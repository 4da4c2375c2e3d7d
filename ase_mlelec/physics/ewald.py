"""Electrostatic energy of point or Gaussian charges in a periodic cell, in a neutralizing background, by Ewald's method."""

import functools
import math

import torch
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.physics import grid, mesh
from ase_mlelec.physics.arrays import check_finite, numpy_or_torch, sum_over_chunks

_REACH = 6.0  # both sums end where their terms have fallen to e^-36 = 2e-16
_OVERLAP = 0.01  # Å; nearer atoms are a mistake
_SERIES = 1e-3  # of (β r)², below which four terms of the series of erf are exact
_MANY = 10_000  # points from which on a mesh may be used
_CHUNK_OF_SEARCH, _CHUNK = 2**16, 2**18  # pairs in flight: about 64 MiB
# cost of each step on one core, gradient included, in units of one atom times one wave vector (4 ns)
_COST_OF_LOOK, _COST_OF_PAIR, _COST_OF_WAVE_VECTOR = 10.0, 50.0, 90.0


@numpy_or_torch
def energy(positions: Tensor, charges: Tensor, cell: Tensor, width: Tensor | float = 0.0) -> Tensor:
    r"""Energy of charges, all their periodic images, and a background that makes the cell neutral.

    .. math::

        E = \frac{e^2}{2} \Bigl\{ \sum{}' q_i q_j \frac{\mathrm{erfc}(\alpha r)}{r}
        + \frac{4\pi}{\Omega} \sum_{G \ne 0} \frac{\exp(-G^2/4\alpha^2)}{G^2} |S(G)|^2
        - \frac{2\alpha}{\sqrt\pi} \sum q_i^2 - \frac{\pi}{\Omega \alpha^2} \bigl(\sum q_i\bigr)^2 \Bigr\}

    with the structure factor S(G). It does not depend on α, which is chosen for speed.

    Charges with a width σ are Gaussians, q exp(-r²/2σ²)/(2πσ²)^(3/2), whose interaction is erf(βr)/r with β = 1/2σ. Then
    erfc(αr) - erfc(βr) takes the place of erfc(αr), 1/α² - 1/β² that of 1/α², and α is at most β. The energy of each
    Gaussian itself, q²β/√π, is left out, as it is of points. Many Gaussians, and 10,000 points and more, are summed by way
    of a mesh (see ase_mlelec.physics.mesh), in a time of order N log N, to about 1e-10 of the energy.

    Parameters
    ----------
    positions : Tensor [N, 3], Å
        Need not lie inside the cell.
    charges : Tensor [N], e
    cell : Tensor [3, 3], Å
    width : float, Å
        Standard deviation σ of Gaussian charges; 0: points.

    Returns
    -------
    Tensor [], eV
        Differentiable with respect to every argument except the width.

    Raises
    ------
    ValueError
        For shapes that disagree, NaN, a cell of no volume, a negative width, and points on top of each other.

    References
    ----------
    Ewald, Ann. Phys. 369, 253 (1921); Ellis et al. 2021, V^ii in Eq. (9).

    Examples
    --------
    The Madelung constant of rock salt, from a primitive cell with an edge of 2.82 Å between unlike ions:

    >>> import numpy as np
    >>> from ase_mlelec import units
    >>> d = 2.82
    >>> cell = d * (1 - np.eye(3))
    >>> e = energy(np.array([[0, 0, 0], [d, d, d]]), np.array([1.0, -1.0]), cell)
    >>> round(float(-e * d / units.COULOMB), 5)
    1.74756
    """
    check_charges(positions, charges)
    grid.check_cell(cell)
    beta = _largest_splitting(width)
    alpha = _splitting(len(positions), cell, beta)
    volume = grid.volume(cell)
    scaled = positions @ torch.linalg.inv(cell)
    scaled = scaled - scaled.detach().floor()
    background = math.pi / (2 * volume) * (alpha**-2 - beta**-2) * charges.sum() ** 2
    itself = alpha / math.sqrt(math.pi) * (charges**2).sum()
    near = _real_sum(scaled, charges, cell, alpha, beta) if alpha < beta else 0.0
    far = _reciprocal_sum(scaled, charges, cell, alpha, _by_mesh(len(positions), beta))
    return units.COULOMB * (near + far - itself - background)


def _largest_splitting(width):
    """β = 1/2σ, 1/Å; infinity for points."""
    width = float(width)
    if not 0 <= width < math.inf:
        raise ValueError(f"width: got {width:g} Å, need 0 or more; give the standard deviation of the charges")
    return 1 / (2 * width) if width else math.inf


def _by_mesh(n_atoms, beta):
    """Whether the sum over waves may be approximate: few points have the energies of DFT programs to the last digits."""
    return beta < math.inf or n_atoms >= _MANY


def check_charges(positions: Tensor, charges: Tensor) -> None:
    """Raise ValueError unless positions is [N, 3], charges is [N], N >= 1, and both are finite."""
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise ValueError(f"positions: got shape {list(positions.shape)}, need [N, 3] with N >= 1; pass them in Å")
    if charges.shape != positions.shape[:1]:
        raise ValueError(
            f"charges: got shape {list(charges.shape)}, need [{len(positions)}] to match positions; pass "
            "one charge per atom"
        )
    check_finite(positions=positions, charges=charges)


def _splitting(n_atoms, cell, beta):
    """The α, 1/Å, at most β, at which both sums together are cheapest; at β there is none over pairs.

    For fewer points than 10,000 time grows as N^1.5.
    """
    cell = cell.detach().cpu()
    alpha = torch.logspace(-2, 2, 201, dtype=cell.dtype) * 6 / grid.volume(cell) ** (1 / 3)
    alpha = alpha.clamp(max=beta)
    boxes = _boxes(cell, alpha)
    by_boxes = torch.where((boxes >= 3).all(-1), 13.5 / boxes.prod(-1), math.inf)
    looked_at = n_atoms**2 * torch.minimum(by_boxes, (2 * _image_reach(cell, alpha) + 1).prod(-1) / 2)
    pairs = n_atoms**2 / 2 * 4 / 3 * math.pi * (_REACH / alpha) ** 3 / grid.volume(cell)
    near = torch.where(alpha < beta, _COST_OF_LOOK * looked_at + _COST_OF_PAIR * pairs, 0.0)
    far = _cost_of_waves(n_atoms, _wave_reach(cell, alpha), _by_mesh(n_atoms, beta))
    return alpha[(near + far).argmin()].item()


def _cost_of_waves(n_atoms, reach, by_mesh):
    """Cost of the sum over waves, by way of a mesh where this is allowed and faster."""
    waves = (2 * reach + 1).prod(-1) / 2
    every = n_atoms * waves
    return _COST_OF_WAVE_VECTOR * waves + (torch.minimum(every, mesh.cost(n_atoms, reach)) if by_mesh else every)


def _image_reach(cell, alpha):
    """Cell vectors to add either way to a difference within half a cell, Tensor [..., 3]."""
    return torch.floor(_REACH / alpha[..., None] / _heights(cell) + 0.5)


def _boxes(cell, alpha):
    """Boxes along each axis, Tensor [..., 3], at least as far across as the sum over pairs reaches."""
    return torch.floor(_heights(cell) * alpha[..., None] / _REACH)


def _heights(cell):
    """Distances between opposite faces, Tensor [3]."""
    return 1 / torch.linalg.inv(cell).norm(dim=0)


def _wave_reach(cell, alpha):
    """Highest frequency along each axis, Tensor [..., 3]."""
    return torch.floor(2 * _REACH * alpha[..., None] * cell.norm(dim=1) / (2 * math.pi))


def _real_sum(scaled, charges, cell, alpha, beta):
    """Σ over pairs of q_i q_j [erfc(α r) - erfc(β r)]/r, every pair once; 1/Å."""
    boxes = _boxes(cell.detach().cpu(), torch.tensor(alpha, dtype=cell.dtype)).int().tolist()
    search = functools.partial(_pairs_by_boxes, boxes) if min(boxes) >= 3 else _close_pairs
    pairs = search(scaled.detach(), cell.detach(), alpha, overlap=beta < math.inf)
    part = functools.partial(_real_part, alpha, beta)
    return sum_over_chunks(part, _CHUNK, *pairs, shared=(scaled, charges, cell))


def _real_part(alpha, beta, scaled, charges, cell, first, second, shifts):
    vectors = (scaled[second] - scaled[first] + shifts) @ cell
    # pairs of an atom and its periodic image were found with both signs
    products = charges[first] * charges[second] * torch.where(first == second, 0.5, 1.0)
    if beta < math.inf:
        return (products * (erf_over_r(vectors, beta) - erf_over_r(vectors, alpha))).sum()
    distances = vectors.norm(dim=-1)
    return (products * torch.erfc(alpha * distances) / distances).sum()


def erf_over_r(vectors: Tensor, beta: float) -> Tensor:
    """erf(β r)/r, 1/Å, of vectors [..., 3], Å; smooth at r = 0.

    Interaction of two Gaussian charges of the width σ = 1/2β.
    """
    x2 = beta**2 * vectors.square().sum(-1)
    near = x2.detach() < _SERIES
    # each branch is given arguments for which it and its derivatives are finite
    x = torch.where(near, 1.0, x2).sqrt()
    small = torch.where(near, x2, 0.0)
    series = 1 - small / 3 * (1 - small * 3 / 10 * (1 - small * 5 / 21 * (1 - small * 7 / 36)))
    return beta * torch.where(near, 2 / math.sqrt(math.pi) * series, torch.erf(x) / x)


def _close_pairs(scaled, cell, alpha, overlap=False):
    """Pairs within reach: Tensors [P], [P] of first and second atom, and [P, 3] of cell vectors to add to the second.

    Every pair of atoms is looked at, some rows of the matrix of pairs at a time. A pair of atoms appears in one order
    only, a pair of an atom and its periodic image with both signs.
    """
    reach = _image_reach(cell.cpu(), torch.tensor(alpha, dtype=cell.dtype)).int().tolist()
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1.0, dtype=cell.dtype, device=cell.device) for n in reach))
    metric = (cell @ cell.T).tolist()
    found, start = [], 0
    while start < len(scaled):
        stop = start + max(1, _CHUNK_OF_SEARCH // (len(images) * (len(scaled) - start)))
        # one axis at a time, in arrays that stay in the processor's cache
        difference = [scaled[start:, k] - scaled[start:stop, k, None] for k in range(3)]
        nearest = [-item.round() for item in difference]
        x, y, z = ((difference[k] + nearest[k])[:, :, None] + images[:, k] for k in range(3))
        squares = (
            x * (metric[0][0] * x + 2 * metric[0][1] * y + 2 * metric[0][2] * z)
            + y * (metric[1][1] * y + 2 * metric[1][2] * z)
            + metric[2][2] * z * z
        )
        rows, columns, image = (squares < (_REACH / alpha) ** 2).nonzero(as_tuple=True)
        wanted = (columns > rows) | (columns == rows) & images[image].any(-1)
        rows, columns, image = rows[wanted], columns[wanted], image[wanted]
        if not overlap:
            _check_distances(squares[rows, columns, image])
        shifts = torch.stack([item[rows, columns] for item in nearest], dim=-1) + images[image]
        found.append((start + rows, start + columns, shifts.short()))
        start = stop
    return [torch.cat(items) for items in zip(*found)]


def _pairs_by_boxes(boxes, scaled, cell, alpha, overlap=False):
    """As _close_pairs, in a time that grows as N: for three boxes and more along each axis, each as wide as the reach.

    An atom is compared with those of its own box and of the 26 around it. Its neighbors are within a third of the cell
    along each axis, so that whole numbers nearest to scaled differences tell which image they are.
    """
    counts = torch.tensor(boxes)
    place = torch.minimum((scaled.cpu() * counts).long(), counts - 1)
    number = (place[:, 0] * boxes[1] + place[:, 1]) * boxes[2] + place[:, 2]
    sizes = torch.bincount(number, minlength=math.prod(boxes))
    members = torch.argsort(number, stable=True).to(scaled.device).split(sizes.tolist())
    around = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)[14:]  # one of each pair of opposite ones
    found = []
    for box in place.unique(dim=0):
        others = torch.cat([box[None], (box + around) % counts])
        numbers = (others[:, 0] * boxes[1] + others[:, 1]) * boxes[2] + others[:, 2]
        columns = torch.cat([members[k] for k in numbers.tolist()])
        # all atoms of a cluster in vacuum may be in one box
        start, step = 0, max(1, _CHUNK_OF_SEARCH // len(columns))
        for rows in members[numbers[0]].split(step):
            difference = scaled[columns] - scaled[rows, None]
            nearest = -difference.round()
            squares = ((difference + nearest) @ cell).square().sum(-1)
            # each row of the own box begins behind itself
            within = (squares < (_REACH / alpha) ** 2).triu_(1 + start)
            first, second = within.nonzero(as_tuple=True)
            if not overlap:
                _check_distances(squares[first, second])
            found.append((rows[first], columns[second], nearest[first, second].short()))
            start += len(rows)
    return [torch.cat(items) for items in zip(*found)]


def _check_distances(squares):
    if len(squares) and squares.min() < _OVERLAP**2:
        raise ValueError(
            f"positions: got two atoms {squares.min().sqrt().item():.2g} Å apart, need {_OVERLAP} Å; "
            "remove the duplicate, or the atom that is a periodic image of another"
        )


def _reciprocal_sum(scaled, charges, cell, alpha, by_mesh):
    """2π/Ω ``Σ_{G≠0}`` exp(-G²/4α²)/G² ``|S(G)|²``, 1/Å."""
    vectors, share, intensity = waves(scaled, charges, cell, alpha, by_mesh)
    squares = (vectors @ grid.reciprocal_cell(cell)).square().sum(-1)
    nonzero = vectors.any(-1)
    squares = torch.where(nonzero, squares, 1.0)
    share = share * nonzero
    return 2 * math.pi / grid.volume(cell) * (share * torch.exp(-squares / (4 * alpha**2)) / squares * intensity).sum()


def waves(scaled: Tensor, charges: Tensor, cell: Tensor, alpha: float, by_mesh: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Wave vectors up to where exp(-G²/4α²) has fallen to e^-36, one of each pair of opposite ones.

    Parameters
    ----------
    scaled : Tensor [N, 3]
        Positions in units of the cell vectors.
    charges : Tensor [N], e
    cell : Tensor [3, 3], Å
    alpha : float, 1/Å
    by_mesh : bool
        Whether a mesh may be used where it is faster; intensities are then approximate, least at low frequencies.

    Returns
    -------
    vectors : Tensor [K, 3]
        Integer frequencies.
    share : Tensor [K]
        Number of wave vectors that each stands for, 1 or 2.
    intensities : Tensor [K], e²
        Squares of the structure factors.
    """
    reach = _wave_reach(cell.detach().cpu(), torch.tensor(alpha, dtype=cell.dtype)).int().tolist()
    # half of the wave vectors: S(-G) is the complex conjugate of S(G)
    k1, k2, k3 = (
        torch.arange(first, last + 1.0, dtype=cell.dtype, device=cell.device)
        for first, last in zip((-reach[0], -reach[1], 0), reach)
    )
    vectors = torch.cartesian_prod(k1, k2, k3)
    every = float(len(scaled) * len(vectors))
    fast = by_mesh and float(mesh.cost(len(scaled), torch.tensor(reach))) < every
    factor = (mesh if fast else grid).structure_factor(scaled, charges, (k1, k2, k3)).flatten()
    return vectors, torch.where(vectors[:, 2] > 0, 2.0, 1.0), factor.real.square() + factor.imag.square()
