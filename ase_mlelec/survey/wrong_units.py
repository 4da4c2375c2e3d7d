"""Units and signs of labels that look wrong."""

from dataclasses import dataclass

import numpy as np

from ase_mlelec.data.data_set import Frames
from ase_mlelec.data.keys import STRESS_UNITS
from ase_mlelec.survey.derivatives import CERTAIN_PAIRS, Factor
from ase_mlelec.survey.energy_zeros import TwoZeros
from ase_mlelec.survey.stress_scale import StressScale
from ase_mlelec.units import BOHR, GPA, HARTREE, HARTREE_PER_BOHR, HARTREE_PER_BOHR3, KCAL_PER_MOL, KJ_PER_MOL

SAME = 0.2  # logarithm of the ratio of two factors that are the same; anharmonic forces change a factor by as much
OFF = 0.5  # logarithm of a factor above which something is wrong
CERTAIN = 0.1  # largest error of a factor, relative to it
EXACT = 0.05  # largest relative error of factors of ase_mlelec.survey.energy_scale that count like those of pairs
ROUGH = (0.3, 4.0)  # factors of ase_mlelec.survey.energy_scale with larger errors that are right
NEAR = 0.9  # logarithm of the ratio of such a factor and a unit that explains it
ROUGH_STRESS = (0.2, 5.0)  # factors of ase_mlelec.survey.stress_scale that are right
MOST = 100.0  # eV/atom, of stress x volume in matter; iron at 1.5 TPa has 50

PER_ATOM, MULTIPLY = "energies per atom", "multiply them by the numbers of atoms and write the data again"
# Energy differences over those that forces say, by what is wrong. Of both in Hartree and bohr only 1/bohr is left.
OF_FORCES = {
    1 / HARTREE: "energies in Hartree, forces in eV/Å",
    2 / HARTREE: "energies in Rydberg, forces in eV/Å",
    1 / BOHR: "energies in Hartree and forces in Hartree/bohr, or both in Rydberg, or forces in eV/bohr",
    BOHR: "positions in bohr",
    HARTREE_PER_BOHR: "forces in Hartree/bohr",
    HARTREE_PER_BOHR / 2: "forces in Rydberg/bohr",
    1 / KCAL_PER_MOL: "energies in kcal/mol",
    1 / KJ_PER_MOL: "energies in kJ/mol",
    KCAL_PER_MOL: "forces in kcal/mol/Å",
    KJ_PER_MOL: "forces in kJ/mol/Å",
    1000.0: "energies in meV",
    0.001: "forces in meV/Å",
}
# The same for stresses; the name is that of [data.keys] stress_unit where there is one.
OF_STRESS = {
    GPA: ("GPa", "GPa"),
    GPA / 10: ("kbar", "kbar"),
    GPA / 1e4: ("bar", ""),
    HARTREE_PER_BOHR3: ("Hartree/bohr^3", ""),
    HARTREE_PER_BOHR3 / 2: ("Rydberg/bohr^3", ""),
}


@dataclass(frozen=True)
class Units:
    """Whether ``[data.keys] stress_unit`` applies to data, and the one with which they were read."""

    convertible: bool
    given: str

    def after(self, unit: str) -> str:
        """Name of the unit of stresses that look as if they still were in ``unit`` after reading; "" for none."""
        wanted = STRESS_UNITS[self.given] * STRESS_UNITS[unit]
        return next(
            (name for name, factor in STRESS_UNITS.items() if self.convertible and np.isclose(factor, wanted)), ""
        )


@dataclass(frozen=True)
class Suspicion:
    """Unit or sign that looks wrong.

    Attributes
    ----------
    text : str
        What was found, and what it looks like.
    label : str
        "forces", "stress" or "energy".
    stress_unit : str
        Value of ``[data.keys] stress_unit`` that mends it; "" for none.
    partly : bool
        Whether a part of the label is right, so that it is worth to train with.
    """

    text: str
    label: str
    stress_unit: str = ""
    partly: bool = False


def suspicions(
    forces: Factor | None,
    stress: Factor | None,
    frames: Frames,
    *,
    scale: Factor | None = None,
    stress_scale: StressScale | None = None,
    shares: bool = False,
    zeros: TwoZeros | None = None,
    convertible: bool = True,
    given: str = "eV/A^3",
) -> list[Suspicion]:
    """Units and signs that look wrong, from the factors of ase_mlelec.survey.derivatives.factors.

    Parameters
    ----------
    scale, shares
        What ase_mlelec.survey.energy_scale finds, by forces and by sizes.
    stress_scale : StressScale or None
        What ase_mlelec.survey.stress_scale finds.
    zeros : TwoZeros or None
        What ase_mlelec.survey.energy_zeros finds.
    convertible : bool
        Whether ``[data.keys] stress_unit`` applies to the data.
    given : str
        The ``stress_unit`` with which they were read.
    """
    found = [] if zeros is None else [Suspicion(_of_zeros(zeros, frames), "energy")]
    units = Units(convertible, given)
    if shares:
        found.append(
            Suspicion(f"energies do not grow with the numbers of atoms, as with {PER_ATOM}; {MULTIPLY}", "energy")
        )
    elif scale is not None and (suspicion := _of_scale(scale)):
        found.append(suspicion)
    if forces is not None and is_off(forces):
        found.append(Suspicion(_of_forces(forces), "forces"))
    if stress is not None and is_off(stress):
        found.append(_of_stress(stress, units))
    elif stress_scale is not None and (suspicion := _of_stress_scale(stress_scale.factor, stress, units, frames)):
        found.append(suspicion)
    else:
        found += _beyond_matter(frames, convertible)
    if stress_scale is not None and stress_scale.order:
        found.append(
            Suspicion(
                f"elements of the stress beside the diagonal fit the forces in the order {stress_scale.order}, and are read "
                "in that of ASE, yz, xz, xy; write all nine elements, or these six in that order, and write the data again, "
                "or leave the stress out with virial = [0, 0] in [energy]",
                "stress",
                partly=True,
            )
        )
    for name in ("energy", "forces"):
        # a lattice with one atom has no forces
        values = [f.labels[name] for f in frames if name in f.labels and (name != "forces" or len(f.atoms) > 1)]
        if len(values) > 1 and not any(np.any(value) for value in values):
            remedy = "; if none were calculated, set forces = [0, 0] in [energy]" * (name == "forces")
            found.append(Suspicion(f"all {len(values)} labels '{name}' are zero{remedy}", name))
    return found


def is_certain(factor: Factor) -> bool:
    """Whether the error of a factor is small enough for conclusions."""
    return bool(factor.error < CERTAIN * abs(factor.value))


def is_off(factor: Factor) -> bool:
    """Whether a factor is certain and not 1."""
    if factor.n_pairs < CERTAIN_PAIRS or not is_certain(factor):
        return False
    return factor.value < 0 or abs(np.log(factor.value)) > OFF


def _of_forces(factor):
    size, parts = abs(factor.value), []
    if factor.value < 0:
        parts.append("the forces have the wrong sign")
    if abs(np.log(size)) > OFF:
        known = [PER_ATOM] if abs(np.log(abs(factor.per_atom))) < SAME else _alike(OF_FORCES, size)
        parts.append(f"as with {', or '.join(known)}" if known else "labels do not belong together")
    return (
        f"energy differences of {factor.n_pairs} pairs of similar structures are {_shown(factor)} times those that the "
        f"forces give: {', '.join(parts)}; correct the labels and write the data again"
    )


def _of_scale(factor):
    """Suspicion of a factor of ase_mlelec.survey.energy_scale, or None where it is right."""
    size, exact = abs(factor.value), factor.error < EXACT * abs(factor.value)
    known = []
    if abs(np.log(size)) > OFF if exact else not ROUGH[0] < size < ROUGH[1]:
        same = SAME if exact else NEAR
        shares = abs(np.log(abs(factor.per_atom))) < same
        known = [*([PER_ATOM] if shares else []), *_alike(OF_FORCES, size, same)]
    elif factor.value > 0:
        return None
    cause = f"as with {', or '.join(known)}" if known else "labels do not belong together"
    if factor.value < 0:
        cause = f"the forces have the wrong sign, and {cause}" if known else "the forces have the wrong sign"
    remedy = MULTIPLY if known == [PER_ATOM] else "correct the labels and write the data again"
    return Suspicion(
        f"energies of {factor.n_pairs} structures vary {factor.value:.2g} times as much as by a pair potential that is "
        f"fitted to the forces: {cause}; {remedy}",
        "energy",
    )


def _of_zeros(zeros, frames):
    few, many = sorted((zeros.lower, zeros.upper), key=len)
    side = "below" if few is zeros.lower else "above"
    first = min(few)
    return (
        f"energies of {len(few)} structures, such as frame {first} ({frames[first].name or 'unnamed'}), are "
        f"{zeros.apart:.3g} eV/atom {side} those of {len(many)} others, and vary by {zeros.width:.2g} eV/atom among "
        "themselves, as with two zeros of energy, of two programs or sets of pseudopotentials; bring them to one zero, or "
        "train on those of one"
    )


def _of_stress_scale(factor, by_pairs, units, frames):
    """Suspicion of a factor of ase_mlelec.survey.stress_scale, or None where it is right, or where pairs tell otherwise."""
    if factor is None or (by_pairs is not None and by_pairs.n_pairs >= CERTAIN_PAIRS and is_certain(by_pairs)):
        return None
    size, sign = abs(factor.value), "-" if factor.value < 0 else ""
    usual = ROUGH_STRESS[0] < size < ROUGH_STRESS[1]
    if usual and not sign:
        return None
    unit = ("", "eV/A^3") if usual else next(iter(_alike(OF_STRESS, 1 / size, NEAR)), None)
    meaning, mended, remedy = _meaning_of(unit, 1 / size, sign, units)
    volume = np.median([f.atoms.cell.volume for f in frames if "virial" in f.labels and f.atoms.cell.rank == 3])
    if not units.convertible and not usual and abs(np.log(size * volume)) < OFF:
        meaning = f"{meaning}, or {sign and 'minus '}the virial divided by the volume, in place of the virial"
    return Suspicion(
        f"the stress of {factor.n_pairs} structures varies {factor.value:.2g} times as much as by a pair potential that is "
        f"fitted to the forces: it looks as if it were {meaning}; {remedy}",
        "stress",
        mended,
    )


def _of_stress(factor, units):
    size, sign = abs(factor.value), "-" if factor.value < 0 else ""
    unit = ("", "eV/A^3") if abs(np.log(size)) <= OFF else next(iter(_alike(OF_STRESS, size)), None)
    meaning, mended, remedy = _meaning_of(unit, size, sign, units)
    return Suspicion(
        f"energy differences of {factor.n_pairs} pairs of strained structures are {_shown(factor)} times those that the "
        f"stress gives: it looks as if it were {meaning}; {remedy}",
        "stress",
        mended,
    )


def _meaning_of(unit, size, sign, units):
    """What a factor ``size`` of energies over stresses means, the stress_unit that mends it, and the remedy."""
    if unit is None:
        meaning = f"{size:.3g} times too small" if size > 1 else f"{1 / size:.3g} times too large"
    else:
        meaning = unit[0] and f"in {unit[0]}"
    if sign:
        meaning = f"{meaning} and positive under pressure".removeprefix(" and ")
    mended = units.after(f"{sign}{unit[1]}") if unit and unit[1] else ""
    remedy = f'stress_unit = "{mended}" in [data.keys] converts it' if mended else "correct it and write the data again"
    return meaning, mended, remedy


def _beyond_matter(frames, convertible):
    """list of Suspicion for stresses that are too large where no pair of structures tells their unit."""
    chosen = [frame for frame in frames if "virial" in frame.labels and frame.atoms.cell.rank == 3]
    virials = np.array([np.linalg.norm(frame.labels["virial"], 2) for frame in chosen])
    if not len(chosen) or np.median(virials / [len(frame.atoms) for frame in chosen]) < MOST:
        return []
    size = float(np.median(virials / [frame.atoms.get_volume() for frame in chosen])) / GPA
    remedy = (
        'stress_unit = "kbar" or "GPa" in [data.keys] converts it, with a minus sign where it is positive under pressure'
        if convertible
        else "correct it and write the data again"
    )
    text = f"the stress, {size:.2g} GPa (median), is beyond any of matter of this density; {remedy}"
    return [Suspicion(text, "stress")]


def _shown(factor):
    return f"{factor.value:.3g} ± {max(factor.error, 0.01 * abs(factor.value)):.1g}"


def _alike(table, factor, same=SAME):
    """Entries whose factors are about the same as ``factor``, the nearest first."""
    away = {known: abs(np.log(known / factor)) for known in table}
    return [table[known] for known in sorted(away, key=away.__getitem__) if away[known] < same]
