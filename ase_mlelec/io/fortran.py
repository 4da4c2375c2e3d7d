"""Numbers as Fortran writes them."""

import re

import numpy as np

from ase_mlelec.checks import printable


def fortran_floats(text: str):
    """Array of the numbers in a text written by Fortran, which prints 1e-100 as 1.0-100 and may print D for E.

    Raises
    ------
    ValueError
        For what is no number.
    """
    if "_" in text:  # Python reads 1_0 as 10
        raise ValueError(f"got '{next(word for word in text.split() if '_' in word)}'")
    try:
        return np.array(text.split(), dtype=float)
    except ValueError:
        written = re.sub(r"(?<=[\d.])(?:[DdEe](?=[-+]?\d)|(?=[-+]\d{3}(?!\d)))", "E", text)
        return np.array(written.split(), dtype=float)


_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:[DdEeQq]([-+]?\d+)|([-+]\d+))?", re.ASCII)


def fortran_record(line, count):
    """The first ``count`` numbers of a line, list of float, as Fortran's ``READ(*,*)`` takes them.

    Numbers are apart by blanks or commas, ``2*0.0`` stands for two of them, text behind them is ignored.

    Raises
    ------
    ValueError
        For fewer numbers.
    """
    found = []
    for word in line.replace(",", " ").split():
        if len(found) >= count:
            break
        times, _, value = word.rpartition("*")
        number = _NUMBER.fullmatch(value)
        if not number or (times and not (times.isdecimal() and len(times) < 5)):
            raise ValueError(f"got '{printable(word, 40)}' in '{printable(line, 60)}', need {count} numbers")
        value = float(f"{number[1]}e{number[2] or number[3] or 0}")
        found += [value] * (int(times) if times else 1)
    if len(found) < count:
        raise ValueError(f"got {len(found)} numbers in '{printable(line, 60)}', need {count}")
    return found[:count]
