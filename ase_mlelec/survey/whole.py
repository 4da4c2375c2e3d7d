"""A look at the data of a training: all findings together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ase_mlelec.checks import CLOSEST
from ase_mlelec.data.frames import has_keys
from ase_mlelec.data.keys import STRESS_UNIT
from ase_mlelec.quantities import LABELS
from ase_mlelec.survey.derivatives import CERTAIN_PAIRS, Factor, factors, find_pairs
from ase_mlelec.survey.energy_scale import by_forces, by_sizes
from ase_mlelec.survey.energy_zeros import two_zeros
from ase_mlelec.survey.labels import Energies, Spread, fit_energies, spread_of
from ase_mlelec.survey.misfits import Misfit, misfits
from ase_mlelec.survey.sources import Source, source_of
from ase_mlelec.survey.stress_scale import stress_by_forces
from ase_mlelec.survey.structures import Structures, survey_structures
from ase_mlelec.survey.wrong_units import Suspicion, is_certain, suspicions

LOOSE = 0.2


@dataclass(frozen=True)
class Survey:
    """Findings on the data of a training.

    Attributes
    ----------
    source : Source
        The data themselves.
    structures : Structures
    energies : Energies or None
        None without energies.
    spreads : dict of Spread
        By label.
    force_factor, stress_factor : Factor or None
        Energy differences over those that forces and stresses say; None where no structures are similar enough.
    energy_scale : Factor or None
        Variation of energies over that of a pair potential fitted to the forces, where ``force_factor`` is not known.
    misfits : list of Misfit
    suspicions : list of Suspicion
    """

    source: Source
    structures: Structures
    energies: Energies | None
    spreads: dict[str, Spread]
    force_factor: Factor | None
    stress_factor: Factor | None
    energy_scale: Factor | None
    misfits: list[Misfit]
    suspicions: list[Suspicion]

    @property
    def frames(self) -> Any:
        """All structures with their labels, Frames."""
        return self.source.frames

    def name(self, k: int) -> str:
        """Name of a frame for messages."""
        return f"frame {k}" + (f" ({self.frames[k].name})" if self.frames[k].name else "")


def survey(
    paths: Sequence[str | PathLike],
    *,
    keys: dict[str, str] | None = None,
    progress: Callable[[Iterable, str], Iterable] = lambda items, what: items,
) -> Survey:
    """Look at data sets before a training.

    Parameters
    ----------
    paths : sequence of path
        Data of one kind, in any format that the package reads.
    keys : dict
        Names of labels in files that ASE reads, see ase_mlelec.data.images.from_images.
    progress : callable(items, what)
        Returns the iterable, such as a progress bar with the title ``what``.

    Raises
    ------
    ValueError
        For data that cannot be read or have no labels, for data of several kinds, and for structures that no training
        takes.
    """
    source = source_of(paths, keys=keys, progress=lambda items: progress(items, "reading"))
    frames = source.frames
    structures = survey_structures(
        [frame.atoms for frame in frames], progress=lambda items: progress(items, "distances")
    )
    _check_distances(source, structures)
    energies = fit_energies(frames, without=structures.isolated)
    spreads = {name: spread for name in LABELS if (spread := spread_of(frames, name)) is not None}
    pairs = find_pairs(frames, progress=lambda items: progress(items, "energy differences"))
    of_forces, of_stress = factors(pairs, frames)
    certain = of_forces is not None and of_forces.n_pairs >= CERTAIN_PAIRS and is_certain(of_forces)
    scale = None if certain else by_forces(frames, without=structures.isolated)
    shares = not certain and by_sizes(frames, without=structures.isolated)
    convertible = all(map(_names_units, paths))
    stress = stress_by_forces(frames, without=structures.isolated)
    given = (keys or {}).get(STRESS_UNIT, "eV/A^3")
    more: dict[str, Any] = {"scale": scale, "stress_scale": stress, "shares": shares}
    more["zeros"] = None if shares else two_zeros(frames, energies)
    wrong = suspicions(of_forces, of_stress, frames, **more, convertible=convertible, given=given)
    trusted = pairs if _fits(of_stress) else pairs.unstrained()
    odd = misfits(frames, structures, energies, spreads, trusted, _fits(of_forces))
    return Survey(source, structures, energies, spreads, of_forces, of_stress, scale, odd, wrong)


def _check_distances(source, structures):
    """Raise ValueError for atoms at one place, which no training takes."""
    k = int(structures.shortest.argmin())
    if structures.shortest[k] < CLOSEST:
        name = source.frames[k].name or "unnamed"
        raise ValueError(
            f"{', '.join(map(str, source.paths))}: frame {k} ({name}): two atoms are {structures.shortest[k]:.3g} Å apart; "
            "correct the structure or remove it"
        )


def _names_units(path):
    """Whether ``[data.keys] stress_unit`` applies to a data set; results of ASE's calculators are in ASE's unit."""
    return has_keys(path) and not {".xyz", ".extxyz"}.isdisjoint(Path(path).suffixes)


def _fits(factor):
    """Whether a factor is 1 within a little more than what anharmonic forces change."""
    return factor is not None and 1 - LOOSE < factor.value < 1 + LOOSE
