"""Zero of energy of a local density of states: a function of the mean density."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class EnergyZero:
    """Zero of the energies of an LDOS, on the scale of the DFT code.

    Plane-wave codes refer energies to the average potential of the cell.  When the whole crystal is compressed, the
    chemical potential moves on this scale, by 10 eV per unit of strain of the volume in aluminium.  When a part of it
    is, the chemical potential stays and the bands move instead.  A model that sees the surroundings of a point alone
    cannot tell the two apart: its energies must be relative to what the chemical potential is at the mean density.

    Attributes
    ----------
    offset : float, eV
    slopes : dict of float, eV Å^3
        By chemical symbol.
    """

    offset: float = 0.0
    slopes: dict = field(default_factory=dict)

    def level(self, symbols: Iterable[str], volume: float | Tensor) -> float | Tensor:
        """eV, of a cell with these atoms and this volume, Å^3."""
        return self.offset + sum(self.slopes.get(symbol, 0.0) for symbol in symbols) / volume
