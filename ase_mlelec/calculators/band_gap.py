"""Band gap as calculators return it: three numbers, with an uncertainty, and whether the density of states shows it."""

import math

from ase_mlelec.physics.gap import GapOfDOS


class BandGap(tuple):
    """(gap, vbm, cbm), eV.

    Attributes
    ----------
    uncertainty : tuple of three floats, eV
        Standard deviations of gap, vbm and cbm, by the shape of the bands at their edges, which the width of the levels
        in the density of states hides. The error of the model is in ``calc.uncertainty["gap"]``.
    resolved : bool
        Whether the density of states is that of an insulator or that of a metal; False where its width may hide a gap.
    largest : float, eV
        The largest gap that may be hidden where it is not resolved, or else the gap.
    """

    uncertainty: tuple[float, float, float]
    resolved: bool
    largest: float

    @classmethod
    def between(cls, found: GapOfDOS) -> "BandGap":
        """Make the gap of an insulator."""
        vbm, cbm = float(found.vbm), float(found.cbm)
        new = cls((cbm - vbm, vbm, cbm))
        lower, upper = (float(each) for each in found.uncertainty)
        new.uncertainty, new.resolved, new.largest = (math.hypot(lower, upper), lower, upper), True, cbm - vbm
        return new

    @classmethod
    def none(cls, fermi_level: float, hidden: float, width: float) -> "BandGap":
        """Make the gap 0 of a metal, or of a density of states that may hide a gap of more than its width, both eV."""
        new = cls((0.0, fermi_level, fermi_level))
        new.resolved = hidden <= width
        new.largest = 0.0 if new.resolved else hidden
        new.uncertainty = (new.largest / 2,) * 3
        return new

    def __reduce__(self):
        return _again, (tuple(self), self.__dict__)

    def __str__(self) -> str:
        if self[0] > 0:
            return f"gap {self[0]:.2f} ± {self.uncertainty[0]:.2f} eV from {self[1]:.2f} to {self[2]:.2f} eV"
        if self.resolved:
            return "no gap"
        return f"gap not resolved at this width of the levels (below {self.largest:.1f} eV)"


def _again(values, attributes):
    new = BandGap(values)
    new.__dict__.update(attributes)
    return new
