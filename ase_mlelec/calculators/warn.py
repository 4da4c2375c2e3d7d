"""Warnings that point at the line of the user's program."""

import sys
import warnings

INSIDE = ("ase", "ase_mlelec", "contextlib", "torch")


def warn_caller(message: str) -> None:
    """Warn at the line of the user's program that called this package, directly or through ASE."""
    frame, level = sys._getframe(1), 2  # level 1 is this function
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
