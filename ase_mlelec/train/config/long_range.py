"""Section [long_range]: electrostatics of ions and Wannier centroids."""

from typing import Annotated

from ase.data import chemical_symbols
from pydantic import AfterValidator, Field

from ase_mlelec.train.config.base import Section, SettingError
from ase_mlelec.train.config.mistakes import short


def _check_symbols(charges):
    for symbol in charges:
        if symbol not in chemical_symbols[1:]:
            raise SettingError("", f"got {short(symbol)}, need a chemical symbol such as Mg; correct it")
    return charges


Charge = Annotated[float, Field(ge=-100, le=100)]
Charges = Annotated[dict[str, Charge], AfterValidator(_check_symbols)]


class LongRangeConfig(Section):
    """Long range of the energy: electrostatics of Gaussian charges at the ions and at the Wannier centroids.

    An empty section turns it on. [dipole] is then trained before [energy], which learns what the electrostatics leave of
    energies, forces and virials. It pays where charges or dipoles are far apart: ionic crystals and their longitudinal
    modes, polar liquids, interfaces, molecules beyond the cutoff.
    """

    width: Annotated[float, Field(ge=0.2, le=5)] = 1.25
    """Standard deviation of the charges, Å. The short range has to learn what they differ by from the true ones: within
    about four widths from an atom, which should be less than the cutoff. Narrow charges have strong interactions at short
    distances, which the short range has to correct, and cost more wave vectors."""
    dielectric: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Dielectric constant of the electrons, by which the interaction is divided: the high-frequency constant of the
    material, such as 1.8 for water. Longitudinal modes and charges far apart are wrong without it. 1 is for molecules in
    vacuum."""
    charges: Charges = Field(default={})
    """Charges of rigid ions by species, e, such as {Mg = 2, O = -2}, for data without Wannier centroids: these take the
    place of ions and centroids, and no [dipole] is needed. With Born charges, ``dielectric`` makes longitudinal modes
    right."""
