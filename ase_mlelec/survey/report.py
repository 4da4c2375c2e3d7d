"""The findings on data as a text of one screen."""

from collections.abc import Iterator

import numpy as np

from ase_mlelec.quantities import LABELS
from ase_mlelec.survey.labels import pressures
from ase_mlelec.survey.whole import Survey
from ase_mlelec.survey.wrong_units import is_certain
from ase_mlelec.units import GPA

MOST_FORMULAS, MOST_PAIRS, MOST_GROUPS, MOST_MISFITS = 6, 6, 8, 6
WIDTH = 14  # of the titles


def report(found: Survey) -> str:
    """Text of all findings, one screen.

    Parameters
    ----------
    found : Survey
    """
    lines = [
        *_structures(found),
        *_labels(found),
        *((title, text) for title, text in found.source.facts.items()),
        *_checks(found),
        *_notes(found),
    ]
    return "\n".join(f"{title:{WIDTH - 1}} {text}" for title, text in lines)


def _structures(found):
    s, frames = found.structures, found.frames
    least, most = int(s.n_atoms.min()), int(s.n_atoms.max())
    atoms = f"{least} atoms each" if least == most else f"{least} to {most} atoms"
    yield (
        "data",
        f"{_number(s.n_frames, 'structure')} with {atoms} ({int(s.n_atoms.sum())} in all) from "
        f"{_number(len(found.source.paths), 'data set')}",
    )
    yield "species", f"{', '.join(s.species)}; {_counted(s.formulas, MOST_FORMULAS)}"
    kinds = {"group": frames.groups, "kind": getattr(frames, "kinds", [])}
    for title, names in kinds.items():
        counts = {name: names.count(name) for name in dict.fromkeys(names) if name}
        if counts:
            yield f"{title}s", _counted(counts, MOST_GROUPS)
    repeats = "periodic" if s.periodic == s.n_frames else f"{s.periodic} periodic" if s.periodic else "not periodic"
    volume = f", {s.volume:.3g} Å^3 per atom (median)" if s.volume else ""
    yield "density", f"{repeats}{volume}; an atom has {s.neighbors:.0f} neighbors within 6 Å"
    if s.nearest:
        closest = sorted(s.nearest.items(), key=lambda item: item[1][0])[:MOST_PAIRS]
        shown = ", ".join(f"{a}-{b} {distance:.2f}" for (a, b), (distance, _) in closest)
        more = f" and {len(s.nearest) - MOST_PAIRS} more pairs" if len(s.nearest) > MOST_PAIRS else ""
        yield "distances", f"shortest {shown} Å{more}"
    if s.trajectories:
        n = sum(len(run) for run in s.trajectories)
        lengths = [len(run) for run in s.trajectories]
        yield (
            "trajectories",
            f"{n} structures lie in {_number(len(lengths), 'run')} of {min(lengths)} to {max(lengths)} similar steps",
        )
    if s.isolated:
        yield "isolated", f"{_number(len(s.isolated), 'isolated atom')} ({_symbols(found, s.isolated)})"
    if s.detached:
        yield (
            "isolated",
            f"{len(s.detached)} structures have atoms without neighbors within 6 Å, first {found.name(s.detached[0])}",
        )
    if s.duplicates:
        yield "duplicates", _duplicates(found)


def _duplicates(found):
    groups = found.structures.duplicates
    text = (
        f"{_number(sum(len(group) - 1 for group in groups), 'repeated structure')}, such as {found.name(groups[0][1])}"
    )
    text += f", which is {found.name(groups[0][0])}"
    across = [group for group in groups if len({found.frames[k].group for k in group} - {""}) > 1]
    if across:
        names = " and ".join(sorted({found.frames[k].group for k in across[0]} - {""}))
        text += f"; {len(across)} of them both in {names}"
    return text


def _symbols(found, frames):
    symbols = [found.frames[k].atoms.get_chemical_symbols()[0] for k in frames]
    return _counted({symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}, MOST_FORMULAS)


def _number(count, noun):
    return f"{count} {noun}{'s' * (count != 1)}"


def _counted(counts, most):
    """Text of the ``most`` most frequent entries of a dict of counts."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} ({count})" for name, count in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _labels(found) -> Iterator:
    n = found.structures.n_frames
    for name, spread in found.spreads.items():
        count = "" if len(spread.frames) == n else f"{len(spread.frames)} of {n} structures: "
        yield ("stress" if name == "virial" else name), count + _size(found, name, spread)


def _size(found, name, spread):
    if name == "energy" and found.energies is not None:
        rest = 1000 * found.energies.rest
        references = ", ".join(f"{symbol} {value:.3f}" for symbol, value in found.energies.references.items())
        return f"spread {rest.std():.3g} meV/atom ({rest.min():.3g} to {rest.max():.3g}) beyond a sum over species" + (
            f" ({references} eV)" if references else ""
        )
    if name == "forces":
        return (
            f"root mean square {spread.rms:.3g} eV/Å; the largest force of a structure is {_range(spread.largest)} eV/Å"
        )
    if name == "virial":
        here = pressures(found.frames) / GPA
        return f"root mean square {spread.rms / GPA:.3g} GPa; pressure {here.min():.3g} to {here.max():.3g} GPa"
    row = LABELS[name]
    text = f"root mean square {spread.rms:.3g} {row.unit}, largest {spread.largest.max():.3g}"
    if name == "born_charges":
        sums = [np.abs(np.sum(found.frames[k].labels[name], axis=0)).max() for k in spread.frames]
        text += f"; an element of their sum over a structure is at most {max(sums):.2g} e (0 if it is neutral)"
    if row.on_grid:
        grid = found.frames.energies
        text += (
            "; the energy grid is not known"
            if grid is None
            else f"; {len(grid)} energies, {grid[0]:g} to {grid[-1]:g} eV"
        )
    return text


def _range(values):
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:.2g} (median), {low:.2g} to {high:.2g} (10 to 90 %), at most {values.max():.3g}"


def _checks(found):
    known = {"forces": found.force_factor, "stress": found.stress_factor}
    known = {name: each for name, each in known.items() if each is not None and is_certain(each)}
    if known:
        shown = [
            f"{each.value:.3g} ± {max(each.error, 0.01):.1g} times those of the {name} ({each.n_pairs} pairs)"
            for name, each in known.items()
        ]
        yield "check", f"energy differences of similar structures are {', '.join(shown)}"
    if found.energy_scale is not None:
        yield (
            "check",
            f"energies of {found.energy_scale.n_pairs} structures vary {found.energy_scale.value:.2g} times as much as by "
            "a pair potential that is fitted to the forces",
        )
    for each in found.suspicions:
        yield "SUSPICIOUS", each.text
    for extreme, title in ((False, "DO NOT FIT"), (True, "extreme")):
        some = [each for each in found.misfits if each.extreme == extreme]
        for k, each in enumerate(some[: MOST_MISFITS if not extreme else MOST_MISFITS // 2]):
            yield title if k == 0 else "", f"{found.name(each.frame)}: {each.reason}"
        left = len(some) - (MOST_MISFITS if not extreme else MOST_MISFITS // 2)
        if left > 0:
            yield "", f"and {left} more"


def _notes(found):
    for k, note in enumerate(found.source.notes):
        yield "note" if k == 0 else "", note
