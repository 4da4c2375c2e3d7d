"""Symmetry of crystals by spglib, whose versions report failures in different ways."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import spglib
from numpy.typing import NDArray

FAILURE = getattr(spglib, "SpglibError", RuntimeError)  # where spglib raises; elsewhere it returns None


def found_by(function: Callable, *arguments: Any, **options: Any) -> Any:
    """Result of a function of spglib, or None where it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about the way in which spglib reports failures
        try:
            return function(*arguments, **options)
        except FAILURE:
            return None


def equivalent_atoms(cell: NDArray, fractions: NDArray, numbers: NDArray, *, symprec: float = 1e-5) -> NDArray | None:
    """For every atom [N] the index of the first atom that a symmetry operation maps on it.

    Parameters
    ----------
    cell : array [3, 3], Å
    fractions : array [N, 3]
        Positions in units of the cell vectors.
    numbers : array [N]
        Atomic numbers.
    symprec : float, Å
        Largest distance of atoms that are equal by symmetry.

    Returns
    -------
    array [N], or None where spglib finds no symmetry, not even the identity, as for atoms on top of each other
    """
    found = found_by(spglib.get_symmetry, (cell, fractions, numbers), symprec=symprec)
    return None if found is None else found["equivalent_atoms"]


def may_have_forces(cell: NDArray, fractions: NDArray, numbers: NDArray, *, symprec: float = 1e-4) -> bool:
    """Whether the symmetry of a crystal allows a force on one of its atoms; arguments as in ``equivalent_atoms``.

    A force is allowed along the vectors that all operations leave alone which map an atom on itself. Where spglib finds no
    operation, False.
    """
    found = found_by(spglib.get_symmetry, (cell, fractions, numbers), symprec=symprec)
    if found is None:
        return False
    rotations = np.einsum("ji,rjk,kl->ril", cell, found["rotations"], np.linalg.inv(cell).T)  # of Cartesian vectors
    for place in fractions:
        away = found["rotations"] @ place + found["translations"] - place
        own = np.abs((away - away.round()) @ cell).max(axis=1) < 10 * symprec
        if own.any() and np.trace(rotations[own].mean(axis=0)) > 0.5:  # the dimension of these vectors
            return True
    return False
