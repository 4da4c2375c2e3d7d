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

    width: Annotated[float, Field(ge=0.2, le=5)] = 1.0
    """Standard deviation of the charges, Å. Narrow charges leave less to the short range but cost more wave vectors; the
    difference between any two widths has a range of about 4 times the larger one, which should be less than the cutoff."""
    dielectric: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Dielectric constant of the electrons, by which the interaction is divided. 1 suits molecules, and liquids of them;
    dense materials whose longitudinal modes or charges far apart matter take the high-frequency constant of their
    calculations."""
    charges: Charges = Field(default={})
    """Charges of rigid ions by species, e, such as {Mg = 2, O = -2}, for data without Wannier centroids: these take the
    place of ions and centroids, and no [dipole] is needed. With Born charges, ``dielectric`` makes longitudinal modes
    right."""
