"""warn_caller: a warning that points at the line of the user's program, however deep inside of ASE it arises."""

import sys
import warnings

INSIDE = ("ase", "ase_mlelec", "contextlib", "torch")


def warn_caller(message):
    """Warn at the first line outside of this package and of what it is called through."""
    frame, level = sys._getframe(1), 2  # level 1 is this function
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
