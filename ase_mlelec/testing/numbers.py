"""How numbers are compared: values, slopes, continuity."""

import numpy as np


def assert_close(found, wanted, tolerance, what=""):
    """Equal to ``tolerance`` relative to the largest of the wanted numbers (or to 0.001, where all are smaller)."""
    found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale, err_msg=what)


def assert_continuous(function, tolerance):
    """Jumps of function(+d) - function(-d) vanish with d.

    A continuous function jumps ten times less over a tenth of the distance; one with a gap does not.
    """

    def jumps(d):
        above, below = function(d), function(-d)
        return {name: np.abs(above[name] - below[name]).max() for name in above}

    wide, narrow = jumps(1e-5), jumps(1e-6)
    for name in wide:
        assert narrow[name] <= 0.2 * wide[name] + tolerance, f"{name} is not continuous: {wide[name]}, {narrow[name]}"


def five_point(function, step=1e-3):
    """df/dx at 0; the error is of fourth order in the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)
