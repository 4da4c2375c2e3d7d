"""Refusals of ASE's functions for bands in calculators without bands."""

from collections.abc import Callable

from ase.calculators.calculator import PropertyNotImplementedError


def _refusing(name):
    def refuse(self, *arguments, **options):
        raise PropertyNotImplementedError(f"{type(self).__name__} has no {name}(): {self.instead_of_bands}")

    refuse.__name__, refuse.__doc__ = name, "Raises PropertyNotImplementedError that says what to call instead."
    refuse.is_refusal = True
    return refuse


class NoBands:
    """Mix-in before ase's Calculator for calculators without bands.

    ``ase.dft.bandgap.bandgap``, ``ase.dft.dos.DOS`` and ``calc.band_structure()`` raise PropertyNotImplementedError with
    a hint which method to call instead. A calculator with bands overrides the methods.
    """

    instead_of_bands = (
        "it has no electronic levels; use a WannierTBCalculator for bands, a DeepDOSCalculator or an "
        "MLDFTCalculator for densities of states"
    )


for _name in (
    "band_structure get_fermi_level get_eigenvalues get_occupation_numbers get_ibz_k_points get_bz_k_points "
    "get_bz_to_ibz_map get_k_point_weights get_number_of_bands get_number_of_spins get_spin_polarized"
).split():
    setattr(NoBands, _name, _refusing(_name))


def is_refusal(method: Callable) -> bool:
    """Whether a method only raises, because its calculator has no bands."""
    return getattr(method, "is_refusal", False)
