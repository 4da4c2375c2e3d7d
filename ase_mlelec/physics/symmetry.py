"""Symmetry of crystals by spglib, whose versions report failures in different ways."""

import warnings
from collections.abc import Callable
from typing import Any

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
