"""Numbers as Fortran writes them."""
import re

import numpy as np


def fortran_floats(text):
    """Array of the numbers in a text written by Fortran, which prints 1e-100 as 1.0-100 and may print D for E."""
    try:
        return np.array(text.split(), dtype=float)
    except ValueError:
        return np.array(re.sub(r"(?<=[\d.])[DdEe]?(?=[-+]\d)", "E", text).split(), dtype=float)
