"""Scales and zeros of fingerprints and LDOS before training."""

import math

import numpy as np
import torch

from ase_mlelec import processes
from ase_mlelec.data.grid_points import GridData
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.heads import LDOSHead
from ase_mlelec.physics import fermi
from ase_mlelec.physics.energy_zero import EnergyZero

# for fit_zero: scatter of the Fermi level around a function of the density, eV, and largest slope of it, eV Å^3
NOISE, STEEPEST = 0.05, 500.0

SMALLEST = 1e-6  # of the largest variance of fingerprints


def fit_zero(snapshots: Snapshots) -> EnergyZero:
    """EnergyZero that follows the Fermi levels of snapshots, and is zero at their mean density.

    Least squares, with slopes no steeper than the densities of the snapshots can tell.
    """
    counts = snapshots.attributes["valence_electrons"]
    symbols = [snapshot.atoms.get_chemical_symbols() for snapshot in snapshots]
    species = sorted({symbol for each in symbols for symbol in each})
    densities = np.array(
        [
            [own.count(symbol) / snapshot.atoms.get_volume() for symbol in species]
            for own, snapshot in zip(symbols, snapshots)
        ]
    )
    levels = np.array(
        [
            float(
                fermi.fermi_level(snapshots.energies, snapshot.dos, sum(counts[s] for s in own), snapshot.temperature)
            )
            for own, snapshot in zip(symbols, snapshots)
        ]
    )
    mean = densities.mean(axis=0)
    shifts = densities - mean
    if not shifts.any():
        return EnergyZero()
    slopes = np.linalg.solve(
        shifts.T @ shifts + np.eye(len(species)) * (NOISE / STEEPEST) ** 2, shifts.T @ (levels - levels.mean())
    )
    return EnergyZero(-float(slopes @ mean), dict(zip(species, slopes.tolist())))


@torch.no_grad()
def standardize_ldos(head: LDOSHead, data: GridData, scaling: str = "maximum", fingerprints: str = "elements") -> None:
    """Standardize the fingerprints of a new head to mean 0 and spread 1, and scale its LDOS.

    With ``scaling`` = "maximum" the LDOS is scaled to a maximum of 1. With "spread" its deviation from the mean spectrum
    is scaled to a spread of 1, the head starts from the mean spectrum, and the first layer gets weights of variance 1/F,
    so that its outputs have a spread of 1 too. The net then learns an LDOS that varies little around a large mean with
    full resolution.

    Parameters
    ----------
    fingerprints : str
        "elements": one by one. "components": as principal components, separately for the linear fingerprints. Elements
        are strongly correlated, and gradient descent needs fewer steps with components. Components of small variance
        extrapolate badly, however, and need data of more than a snapshot or two.

    References
    ----------
    Ellis et al. 2021, section II C, for "maximum" and "elements".
    """
    own = list(processes.mine(range(len(data))))
    mean, covariance = _mean_and_covariance(data[k].features[data[k].points] for k in own)
    head.shift.copy_(mean)
    if fingerprints == "elements":
        head.inverse.copy_(torch.diag(_inverse_spread(covariance)))
    else:
        first = head.n_features - head.n_linear
        parts = (_whitening(covariance[part, part]) for part in (slice(0, first), slice(first, None)))
        head.inverse.copy_(torch.block_diag(*parts))
    if scaling == "maximum":
        largest = max((float(data[k].ldos.max()) for k in own), default=-math.inf)
        head.scale.fill_(max(processes.gathered(largest)))
        return
    mean, spread = _mean_and_spread(data[k].ldos for k in own)
    head.scale.copy_(spread.square().mean().sqrt())
    head.last.bias.copy_(mean / head.scale)
    head.hidden[0].weight.mul_(3**0.5)  # torch draws them with variance 1/(3 F)


def _mean_and_covariance(arrays):
    """Means [F] of the columns and their covariances [F, F], double precision."""
    mean, square = _means(arrays, lambda x: x.T @ x)
    return mean, square - torch.outer(mean, mean)


def _whitening(covariance):
    """Matrix [F, F] that turns deviations from the mean into principal components of spread 1, of standardized columns.

    Components below SMALLEST of the largest variance, of which many are numerical noise, stay small.
    """
    if not len(covariance):
        return covariance
    inverse = _inverse_spread(covariance)
    variance, axes = torch.linalg.eigh(inverse[:, None] * covariance * inverse)
    return (axes / (variance.clamp(min=0) + SMALLEST * variance[-1]).sqrt()).T * inverse


def _inverse_spread(covariance):
    spread = covariance.diagonal().clamp(min=0).sqrt()
    return 1 / spread.clamp(min=1e-6 * float(spread.max()))


def _mean_and_spread(arrays):
    """Mean and standard deviation of every column, double precision."""
    mean, square = _means(arrays, lambda x: (x**2).sum(dim=0))
    return mean, (square - mean**2).clamp(min=0).sqrt()


def _means(arrays, squares):
    """Means [F] of the columns, and of what ``squares`` sums, over the arrays of all processes; double precision."""
    sums: dict = {}
    for x in arrays:
        x = x.double()
        parts = {"count": len(x), "total": x.sum(dim=0), "square": squares(x)}
        sums = {name: sums.get(name, 0) + part for name, part in parts.items()}
    sums = processes.summed(sums)
    return sums["total"] / sums["count"], sums["square"] / sums["count"]
