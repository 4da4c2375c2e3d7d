"""Band gap of an insulator from a density of states in which every level is a Gaussian of known width.

Broadening fills a gap from both sides. Above a valence band whose density of states begins at the edge E_v as a power p
of the depth t, the broadened density is proportional to

    I_p(u) = ∫_0^∞ t^p exp(-(u + t)²) dt,   u = (ε - E_v)/s,

whose logarithmic slope G_p(u) = p I_{p-1}/I_p (e^{-u²}/I_0 for p = 0) depends on u alone. The slope of ln D where D falls
to a threshold therefore gives the distance to the edge, whatever the height of the density. The edge is that of p = 1;
those of p = 0 (a step) and p = 2 are taken as two standard deviations away.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ase_mlelec.physics.dos_checks import check_dos

THRESHOLD = 0.005  # states/eV per atom; below it there is a gap
# an edge is where the density of states falls to this share of its largest value within NEAR widths, where that is above
# THRESHOLD: the steeper the edge, the more states are there, and the more the noise of a model hides its foot
SHARE, NEAR = 0.05, 3.0
TOLERANCE = 0.02  # of the number of electrons, by which sums of projections may be wrong
STEEPEST = 6.0  # widths, of an edge from the place where its slope is taken
LOWEST = 1e-6  # density of states at an edge, in units of the threshold there
POINTS = 4  # of the grid, through which ln D is a cubic polynomial


class GapOfDOS(NamedTuple):
    """Gap of a density of states; all energies in eV.

    Attributes
    ----------
    vbm, cbm : Tensors
        Edges of the bands.
    uncertainty : tuple of two Tensors
        Standard deviations of the edges, by the shape of the density of states there; zeros without a width.
    n_electrons : Tensor
        Number of states below the middle of the gap.
    """

    vbm: Tensor
    cbm: Tensor
    uncertainty: tuple[Tensor, Tensor]
    n_electrons: Tensor


def gap_of_dos(
    energies: Tensor,
    dos: Tensor,
    n_electrons: float,
    *,
    width: float,
    threshold: float = THRESHOLD,
    tolerance: float = TOLERANCE,
    unsure: float = 0.0,
) -> GapOfDOS | None:
    """Find the gap above n_electrons and correct its edges for the width of the levels.

    The gap is the interval with less than ``threshold`` states/eV below whose middle the number of states is nearest to
    n_electrons; where it differs by more than ``tolerance``, there is none. Numbers of states that are ``unsure`` do not
    tell apart a gap from another between few levels of the next band: of those that differ by less, the widest is taken.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing and uniform
    dos : Tensor [S], states/eV per atom
    n_electrons : float
        Per atom, about right: sums of projections miss a part that differs from structure to structure.
    width : float, eV
        Width s of the Gaussians exp(-(x/s)²); 0 for a density of states that is meant as it is.
    threshold : float, states/eV per atom
    tolerance, unsure : float
        Relative to n_electrons.

    Returns
    -------
    GapOfDOS or None
        Edges and number of electrons are differentiable with respect to ``dos``, to first order.

    Raises
    ------
    ValueError
        For a DOS that does not fit an increasing grid.

    Examples
    --------
    Bands that begin linearly at -1 and 1.5 eV, with levels of width 0.5 eV:

    >>> grid = torch.linspace(-4, 4, 81, dtype=torch.float64)
    >>> dos = broadened_edge((grid + 1) / 0.5, 1) + broadened_edge((1.5 - grid) / 0.5, 1)
    >>> found = gap_of_dos(grid, dos, float(torch.trapezoid(dos[grid < 0], grid[grid < 0])), width=0.5)
    >>> f"{found.vbm:.2f} {found.cbm:.2f}, standard deviation {found.uncertainty[0]:.2f}"
    '-1.00 1.50, standard deviation 0.08'
    """
    check_dos(energies, dos)
    interval = _interval(energies, dos.detach(), n_electrons, threshold, (tolerance, unsure))
    if interval is None:
        return None
    first, last = interval
    vbm = _edge(energies, dos, first, width, threshold)
    cbm = -_edge(-energies.flip(0), dos.flip(0), len(energies) - 1 - last, width, threshold)
    middle = ((vbm[1] + cbm[1]) / 2).detach().clamp(energies[first], energies[last])
    below = _count(energies, dos, middle)
    lower, upper = ((each[2] - each[0]).abs() / 4 for each in (vbm, cbm))
    return GapOfDOS(vbm[1], cbm[1], (lower, upper), below)


def hidden_gap(energies: Tensor, dos: Tensor, level: float, *, width: float) -> float:
    """Largest gap around a level, eV, that the width of the levels may have filled.

    Bands that begin with a step of height D at both sides of a gap g leave D erfc(g/2s) in its middle; D is the largest
    density of states within three widths.

    Parameters
    ----------
    energies : Tensor [S], eV, increasing
    dos : Tensor [S], states/eV
    level : float, eV
        Fermi level.
    width : float, eV
        Width s of the Gaussians exp(-(x/s)²).

    Examples
    --------
    Nothing hides in a constant density, and little in one that is small at the level:

    >>> grid = torch.linspace(-4, 4, 81, dtype=torch.float64)
    >>> hidden_gap(grid, torch.ones_like(grid), 0.0, width=0.5)
    0.0
    >>> round(hidden_gap(grid, 0.2 + 0.1 * grid**2, 0.0, width=0.5), 2)
    0.51
    """
    near, below, above = (
        dos[(energies >= level + a * width) & (energies <= level + b * width)] for a, b in ((-1, 1), (-3, 0), (0, 3))
    )
    if width == 0 or not (len(near) and len(below) and len(above)):
        return 0.0
    share = near.min().clamp(min=0) / torch.minimum(below.max(), above.max()).clamp(min=1e-300)
    return float(2 * width * torch.erfinv(1 - share.clamp(1e-12, 1)))


def broadened_edge(u: Tensor, power: int) -> Tensor:
    """Density of states I_p(u) beyond an edge, see the module; power 0, 1 or 2."""
    return torch.exp(-(u**2)) * _scaled(u)[power]


def _scaled(u):
    """[I_0, I_1, I_2] times exp(u²)."""
    first = 0.5 * math.sqrt(math.pi) * torch.special.erfcx(u)
    second = 0.5 - u * first
    return [first, second, 0.5 * first - u * second]


def _slope(u, power):
    """G_p(u), which rises with u."""
    parts = _scaled(u)
    return 1 / parts[0] if power == 0 else power * parts[power - 1] / parts[power]


def _distance(slope, power):
    """u at which G_p(u) is ``slope``, by bisection, and a Newton step that carries derivatives."""
    low, high = (torch.full_like(slope, end).detach() for end in (-STEEPEST, STEEPEST))
    with torch.no_grad():
        for _ in range(50):
            middle = 0.5 * (low + high)
            above = _slope(middle, power) > slope
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    with torch.enable_grad():
        u = middle.clone().requires_grad_(True)
        (steepness,) = torch.autograd.grad(_slope(u, power).sum(), u)
    return middle + (slope - _slope(middle, power).detach()) / steepness


def _edge(energies, dos, place, width, threshold):
    """Edges of powers 0, 1 and 2 below a gap whose first point on the grid is ``place``; [3], eV."""
    place, threshold = _raised(energies, dos, place, width, dos.new_tensor(threshold))
    start = min(max(place - POINTS + 1, 0), len(energies) - POINTS)
    x = energies[start : start + POINTS]
    spacing = energies[1] - energies[0]
    # a model may give a density of states below zero
    values = torch.log((dos[start : start + POINTS] / threshold).clamp(min=LOWEST))
    powers = torch.stack([((x - x[-1]) / spacing) ** k for k in range(POINTS)], dim=1)
    a = torch.linalg.solve(powers, values)
    root = _root(a.detach())
    at = root - sum(a[k] * root**k for k in range(POINTS)) / _derivative(a.detach(), root)  # carries derivatives
    slope = -_derivative(a, at) / spacing
    crossing = x[-1] + at * spacing
    if width == 0:
        return crossing.expand(3)
    return torch.stack([crossing - width * _distance(slope * width, power) for power in (0, 1, 2)])


def _raised(energies, dos, place, width, threshold):
    """First point of the gap, and threshold, for the height of the density of states next to it."""
    near = (energies > energies[place] - NEAR * width) & (energies <= energies[place])
    if width:
        threshold = torch.maximum(threshold, SHARE * dos[near].max())
    while place > 0 and dos[place - 1] < threshold:
        place -= 1
    return place, threshold


def _derivative(a, at):
    return sum(k * a[k] * at ** (k - 1) for k in range(1, POINTS))


def _root(a):
    """Where the cubic polynomial falls through zero between the last two of the points -3, -2, -1, 0."""
    low, high = a.new_tensor(-1.0), a.new_tensor(0.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        positive = sum(a[k] * middle**k for k in range(POINTS)) > 0
        low, high = torch.where(positive, middle, low), torch.where(positive, high, middle)
    return middle


def _interval(energies, dos, n_electrons, threshold, shares):
    """First and last point of the gap on the grid, or None."""
    tolerance, unsure = (share * n_electrons for share in shares)
    empty = torch.nn.functional.pad((dos < threshold).to(torch.int8), (1, 1))
    starts, ends = ((empty.diff() == sign).nonzero()[:, 0] for sign in (1, -1))
    found = []
    for first, last in zip(starts.tolist(), (ends - 1).tolist()):
        if first == 0 or last == len(energies) - 1 or first == last:  # no states at one side, or room for none
            continue
        middle = 0.5 * (energies[first] + energies[last])
        off = abs(float(_count(energies, dos, middle)) - n_electrons)
        if off <= max(tolerance, unsure):
            # of those within unsure the widest, of the others the nearest
            found.append(((1, float(energies[first] - energies[last])) if off <= unsure else (2, off), first, last))
    return min(found)[1:] if found else None


def _count(energies, dos, level):
    """Number of states below a level, of a density that is linear between the points."""
    k = int(torch.searchsorted(energies, level, right=True).clamp(1, len(energies) - 1)) - 1
    x = (level - energies[k]) / (energies[k + 1] - energies[k])
    part = (dos[k] + 0.5 * x * (dos[k + 1] - dos[k])) * x * (energies[k + 1] - energies[k])
    return torch.trapezoid(dos[: k + 1], energies[: k + 1]) + part
