"""Structures whose labels do not fit the rest of a data set."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ase_mlelec.data.data_set import Frames
from ase_mlelec.survey.derivatives import Pairs
from ase_mlelec.survey.labels import Energies, Spread
from ase_mlelec.survey.structures import Structures
from ase_mlelec.units import GPA

FEWEST = 10  # structures of which nine of ten tell what is usual; of fewer, twice the median does
VERY_FEW = 4  # structures below which nothing is usual
BEYOND = 5.0  # times what nine of ten structures stay below
LEAST = {"energy": 0.05, "forces": 2.0, "virial": 0.1, "net": 0.01, "pairs": 0.05}  # eV/atom, eV/Å, eV/Å^3, eV/Å, eV
OF_MEDIAN = 10.0  # net forces above this times the median are outliers
SAME_ENERGY = 1e-3  # eV/atom, of duplicates
AGREE = 0.5  # of two energy differences; their difference is below this times their sum where they agree
PARTNERS = 3  # similar structures, all of which an energy has to contradict
CLOSE = 0.55  # of the usual shortest distance


@dataclass(frozen=True)
class Misfit:
    """Structure that does not fit the rest.

    Attributes
    ----------
    frame : int
    reason : str
        What is unusual, with the numbers of the others.
    extreme : bool
        Whether it may be right: energy, forces and stress, as far as there are some, are all unusual together. Others
        contradict what the data say elsewhere.
    size : float
        How far it is from the rest, in units of the limit.
    """

    frame: int
    reason: str
    extreme: bool
    size: float


def misfits(
    frames: Frames,
    structures: Structures,
    energies: Energies | None,
    spreads: dict[str, Spread],
    pairs: Pairs,
    trust: bool,
) -> list[Misfit]:
    """Find structures whose labels do not fit the rest, the farthest first, one entry per structure.

    Parameters
    ----------
    spreads : dict of Spread
        By label.
    trust : bool
        Whether forces are the derivatives of most energies, so that pairs tell which energies are wrong.
    """
    far = {name: dict(_beyond(column, LEAST[name])) for name, column in _columns(energies, spreads).items()}
    found: dict[int, Misfit] = {}
    entries = [*_contradictions(frames, structures, pairs, trust), *_net_forces(frames), *_far_frames(far, structures)]
    for entry in entries:
        if entry.frame in found:
            other = found[entry.frame]
            reasons, extreme = f"{other.reason}; {entry.reason}", other.extreme and entry.extreme
            entry = Misfit(entry.frame, reasons, extreme, max(other.size, entry.size))
        found[entry.frame] = entry
    return sorted(found.values(), key=lambda entry: (entry.extreme, -entry.size))


def _columns(energies, spreads):
    """(frames, sizes) by label."""
    found = {}
    if energies is not None:
        found["energy"] = energies.frames, abs(energies.rest - np.median(energies.rest))
    for name in ("forces", "virial"):
        if spreads.get(name) is not None:
            found[name] = spreads[name].frames, spreads[name].largest
    return found


def _beyond(column, least):
    """Iterate over (frame, (size, what most stay below, how many are most)) of structures far beyond the others."""
    frames, sizes = column
    if len(frames) < VERY_FEW:
        return
    few = len(frames) < FEWEST
    usual = float(2 * np.median(sizes) if few else np.quantile(sizes, 0.9))
    for k in np.flatnonzero(sizes > max(BEYOND * usual, least)):
        yield int(frames[k]), (float(sizes[k]), usual, "most" if few else "9 of 10")


def _far_frames(far, structures):
    """Structures whose energy, forces or stress are far beyond the others."""
    units = {"energy": ("energy {} eV/atom from the others'", 1), "forces": ("forces up to {} eV/Å", 1)}
    units["virial"] = ("stress up to {} GPa", 1 / GPA)
    for k in sorted(set().union(*far.values())):
        mine = {name: far[name][k] for name in far if k in far[name]}
        parts = []
        for name, (size, usual, most) in mine.items():
            text, factor = units[name]
            parts.append(f"{text.format(f'{size * factor:.3g}')} ({most} have at most {usual * factor:.2g})")
        shortest = structures.shortest[k]
        if np.isfinite(shortest):
            parts.append(f"shortest distance {shortest:.2f} Å")
        ratio = max(size / max(BEYOND * usual, LEAST[name]) for name, (size, usual, _) in mine.items())
        # high energies come with high forces, stresses or short distances; an energy alone is a wrong label
        alone = set(mine) == {"energy"} and len(far) > 1 and not _is_close(structures, k)
        if structures.n_frames < FEWEST:  # one of another kind, such as a molecule, differs for good reasons
            alone &= bool(np.sum(structures.n_atoms == structures.n_atoms[k]) >= VERY_FEW)
        yield Misfit(k, ", ".join(parts), not alone, ratio)


def _is_close(structures, k):
    finite = structures.shortest[np.isfinite(structures.shortest)]
    return bool(structures.shortest[k] < CLOSE * np.median(finite)) if len(finite) else False


def _net_forces(frames) -> Iterator[Misfit]:
    """Structures whose forces do not add up to zero, where those of most others do."""
    chosen = [k for k, frame in enumerate(frames) if "forces" in frame.labels]
    net = np.array([np.linalg.norm(frames[k].labels["forces"].sum(axis=0)) / len(frames[k].atoms) for k in chosen])
    if not len(net):
        return
    limit = max(OF_MEDIAN * float(np.median(net)), LEAST["net"])
    for k, value in zip(chosen, net, strict=True):
        if value > limit:
            reason = f"its forces add up to {value:.2g} eV/Å per atom, not to zero"
            yield Misfit(k, reason, False, value / limit)


def _contradictions(frames, structures, pairs, trust) -> Iterator[Misfit]:
    """Structures whose energies contradict forces, or the energies of equal structures."""
    for group in structures.duplicates:
        having = [k for k in group if "energy" in frames[k].labels]
        per_atom = np.array([frames[k].labels["energy"] / len(frames[k].atoms) for k in having])
        if not len(having) or np.ptp(per_atom) <= SAME_ENERGY:
            continue
        low, high = (having[int(k)] for k in (per_atom.argmin(), per_atom.argmax()))
        reason = f"{np.ptp(per_atom):.2g} eV/atom above frame {low}, the same structure"
        yield Misfit(high, reason, False, float(np.ptp(per_atom)) / SAME_ENERGY)
    if trust:
        yield from _by_pairs(pairs)


def _by_pairs(pairs):
    """Structures whose energy differs from all similar structures by other amounts than the forces say."""
    work = pairs.work + np.where(pairs.strained, pairs.strain_work, 0.0)
    usable = np.isfinite(work)
    rest = abs(pairs.energy - work)[usable]
    ends = pairs.frames[usable]
    both = abs(pairs.energy) + abs(work)
    contradicts = rest > AGREE * both[usable]
    best: dict[int, float] = {}
    for (i, j), value in zip(ends.tolist(), np.where(contradicts, rest, 0.0), strict=True):
        for k in (i, j):
            best[k] = min(best.get(k, np.inf), float(value))
    sizes = np.array(list(best.values()))
    if len(sizes) < FEWEST:
        return
    counts = np.bincount(ends.ravel())
    limit = max(2 * BEYOND * float(np.quantile(sizes, 0.9)), LEAST["pairs"])
    for k, value in best.items():
        if value > limit and counts[k] >= PARTNERS:
            reason = f"its energy is {value:.2g} eV off what forces say on the way from {counts[k]} similar structures"
            yield Misfit(k, reason, False, value / limit)
