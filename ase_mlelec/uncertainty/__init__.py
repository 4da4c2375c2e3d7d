"""Error bars from the posterior of the last layer of a head, and their calibration."""

from ase_mlelec.uncertainty.bars import (
    Contributions,
    contributions,
    deviation_along,
    deviations_of_atoms,
    deviations_of_forces,
    deviations_of_stress,
    deviations_of_sums,
    has_posterior,
    joined,
    leverage_around,
    leverages,
    slopes_of_energies,
    summed,
    summed_floor,
    without_gauge,
)
from ase_mlelec.uncertainty.covariance import inverse_factor, posterior_of, posterior_of_rows
from ase_mlelec.uncertainty.gauge import gauge_of, undetermined_shifts
from ase_mlelec.uncertainty.linear_bars import LinearBars
from ase_mlelec.uncertainty.posterior import Posterior, seed_of
from ase_mlelec.uncertainty.scales import coverage, scale_of

__all__ = [
    "Contributions",
    "LinearBars",
    "Posterior",
    "contributions",
    "coverage",
    "deviation_along",
    "deviations_of_atoms",
    "deviations_of_forces",
    "deviations_of_stress",
    "deviations_of_sums",
    "gauge_of",
    "has_posterior",
    "inverse_factor",
    "joined",
    "leverage_around",
    "leverages",
    "posterior_of",
    "posterior_of_rows",
    "scale_of",
    "seed_of",
    "slopes_of_energies",
    "summed",
    "summed_floor",
    "undetermined_shifts",
    "without_gauge",
]
