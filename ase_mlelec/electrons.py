"""Electrons in the density of states of a model, and the gap above them, by what the model's metadata say."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ase.data import chemical_symbols
from torch import Tensor

from ase_mlelec.physics.gap import TOLERANCE, GapOfDOS, gap_of_dos

MISSED = 2.0  # an insulator's projections may miss this many times the average share
UNSURE = 3.0  # times the root mean square error of the number of states below a gap
OF_INSULATORS = 0.15  # of the electrons of structures that should have a gap, see Electrons.tolerance


class Electrons(NamedTuple):
    """How the density of states of a model is filled.

    Attributes
    ----------
    counts : dict of float
        Electrons in the density of states of an atom, by its symbol; None where the metadata do not tell.
    width : float, eV
        Width of the levels, 0 where it is unknown.
    tolerance : float
        Share by which the states below a gap may differ from the electrons. A model whose training structures have gaps
        is trusted more in that there is one than in how many states lie below.
    unsure : float
        Share of the electrons by which the number of states below a gap may be wrong, see ``gap_of_dos``; 0 for labels.
    """

    counts: Mapping[str, float] | None
    width: float
    tolerance: float
    unsure: float = 0.0

    @classmethod
    def of(cls, metadata: Mapping[str, Any], head: Any) -> "Electrons":
        """Those of a model with this head "dos"."""
        valence = dict(metadata.get("valence_electrons") or {})
        counts = metadata.get("electrons_in_dos") or valence
        missed = max([1 - own / valence[each] for each, own in counts.items() if valence.get(each)], default=0.0)
        least = OF_INSULATORS if getattr(head, "square_root", False) else 0.0
        width = float(metadata.get("dos_width_eV", 0.0))
        unsure = UNSURE * float(metadata.get("states_below_gap_error", 0.0))
        return cls(counts or None, width, max(least, TOLERANCE + MISSED * missed), unsure)

    def number(self, numbers: Iterable[int]) -> float | None:
        """Electrons in the density of states of a structure with these atomic numbers; None where that is unknown."""
        symbols = [chemical_symbols[number] for number in numbers]
        if self.counts is None or not {*symbols} <= {*self.counts}:
            return None
        return float(sum(self.counts[symbol] for symbol in symbols))

    def gap(self, energies: Tensor, dos: Tensor, n_electrons: float, n_atoms: int) -> GapOfDOS | None:
        """Gap of the density of states [S], states/eV, of a structure; None in a metal."""
        shares = {"tolerance": self.tolerance, "unsure": self.unsure}
        return gap_of_dos(energies, dos / n_atoms, n_electrons / n_atoms, width=self.width, **shares)
