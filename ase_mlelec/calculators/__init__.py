"""ASE calculators for the models of this package."""

from ase_mlelec.calculators import deep_pot as _makes_potentials  # noqa: F401, for models given as ``potential``
