"""Scores of structures: standard deviations of one quantity, as a number, and the errors that they foretell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ase_mlelec.active.config import head_of
from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.calculators.deep_dos import DeepDOSCalculator
from ase_mlelec.calculators.deep_pot import DeepPotCalculator
from ase_mlelec.calculators.deep_wannier import DeepWannierCalculator
from ase_mlelec.model import Model
from ase_mlelec.quantities import DIPOLE, QUANTITIES


class Score(NamedTuple):
    """How a standard deviation, or an error, becomes one number.

    Attributes
    ----------
    unit : str
    labels : tuple of str
        Labels of which a data set needs one to teach the quantity.
    size : callable(array, n_atoms) -> float
    known : callable(calculator, atoms) -> array, or None
        What the model says, to be compared with the label ``labels[0]``.
    """

    unit: str
    labels: tuple[str, ...]
    size: Callable[[Any, int], float]
    known: Callable[[Any, Atoms], Any] | None = None


def _worst_vector(vectors, n_atoms):
    return float(np.linalg.norm(vectors, axis=1).max())


def _worst_spectrum(spectra, n_atoms):
    return float(np.sqrt(np.mean(np.square(spectra), axis=-1)).max())


def _per_atom(values, n_atoms):
    return float(np.sqrt(np.mean(np.square(values)))) / n_atoms


def _plain(values, n_atoms):
    return float(np.linalg.norm(values))


OF_SPECTRA = ("ados", "dos")
SCORES: Mapping[str, Score] = {
    "forces": Score("eV/Å", ("forces",), _worst_vector, lambda calc, atoms: calc.get_property("forces", atoms)),
    "energy": Score("eV/atom", ("energy",), _per_atom, lambda calc, atoms: calc.get_property("energy", atoms)),
    "ados": Score("states/eV", ("ados", "dos"), _worst_spectrum, lambda calc, atoms: calc.get_ados(atoms=atoms)),
    "dos": Score("states/eV/atom", OF_SPECTRA[::-1], _per_atom, lambda calc, atoms: calc.get_total_dos(atoms=atoms)),
    "fermi_level": Score("eV", OF_SPECTRA, _plain),
    "gap": Score("eV", OF_SPECTRA, _plain),
    DIPOLE: Score("e Å", (*QUANTITIES[DIPOLE].labels, DIPOLE), _plain),
}
CALCULATORS: Mapping[str, type[MLElecCalculator]] = {
    "energy": DeepPotCalculator,
    "dos": DeepDOSCalculator,
    DIPOLE: DeepWannierCalculator,
}


def calculator_of(models: Sequence[Model], quantity: str, potential: Any = None) -> MLElecCalculator:
    """Calculator with the standard deviation of ``quantity``; ``potential`` moves the atoms of models without energy."""
    with_energy = "energy" in models[0].heads
    return CALCULATORS[head_of(quantity)](
        list(models), potential=None if with_energy else potential, on_extrapolation="ignore"
    )


def score(calc: MLElecCalculator, quantity: str, atoms: Atoms) -> float:
    """Score of a structure in the unit of SCORES[quantity]."""
    return SCORES[quantity].size(calc.get_uncertainty(quantity, atoms=atoms), len(atoms))


def actual(calc: MLElecCalculator, quantity: str, atoms: Atoms, labels: Mapping[str, Any]) -> float | None:
    """Error of the model on labels, as one number like the score; None where the labels do not tell."""
    row = SCORES[quantity]
    if row.known is None or row.labels[0] not in labels:
        return None
    return row.size(np.asarray(row.known(calc, atoms)) - labels[row.labels[0]], len(atoms))
