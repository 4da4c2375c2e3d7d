"""Training of the local density of states."""

from ase_mlelec.deprecated import former_names

__getattr__ = former_names(
    __name__,
    GridData="data.grid_points:GridData",
    GridItem="data.grid_points:GridItem",
    LDOSLoss="train.ldos.descent:LDOSLoss",
    fingerprints="data.grid_points:fingerprints",
    fit_ldos="train.ldos.descent:fit_ldos",
    fit_zero="train.ldos.standardize:fit_zero",
    free_energy="train.ldos.errors:free_energy",
    ldos_errors="train.ldos.errors:ldos_errors",
    mean_ldos_errors="train.ldos.errors:mean_ldos_errors",
    refit_last_layer="train.ldos.descent:refit_last_layer",
    standardise_ldos="train.ldos.standardize:standardize_ldos",
)
