"""What is asked of every reader: finite numbers that fit each other, or its one error, a line that names the file."""

import dataclasses
import re
import resource
import shutil
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from ase import Atoms

LONGEST_MESSAGE = 2000


def largest():
    """int, KiB (Linux), the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Verdict(NamedTuple):
    """finding : str, what is wrong, or None; outcome : str; seconds : float of the processor; kib : int, the largest
    memory so far"""

    finding: str | None
    outcome: str
    seconds: float
    kib: int


class Finding(Exception):
    """Something that no reader may do."""


def judged(call, names, errors, check=lambda found: None):
    """Verdict of ``call()``.

    names : file names, of which an error must have one, or none where there is no file; errors : the documented classes
    check : called with what comes back, raises AssertionError where it is not consistent
    """
    start, outcome, finding = time.process_time(), "", None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = call()
        except Exception as error:
            outcome, finding = f"refused: {type(error).__name__}", wrong_with_error(error, names, errors)
        else:
            outcome, finding = "read", wrong_with_result(found, check)
    for warning in caught if finding is None else ():
        if warning.category is not UserWarning:
            finding = f"warns: {warning.category.__name__}: {str(warning.message)[:200]} ({warning.filename})"
        elif len(str(warning.message).splitlines()) != 1:
            finding = f"a warning of several lines: {str(warning.message)[:200]!r}"
    return Verdict(finding, outcome, time.process_time() - start, largest())


def wrong_with_error(error, names, errors):
    text = str(error)
    place = error.__traceback__
    while place.tb_next:
        place = place.tb_next
    here = f"{type(error).__name__}: {text[:300]!r} ({Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno})"
    if type(error) not in errors:
        return f"another class of errors: {here}"
    cause = error
    while cause:
        if isinstance(cause, MemoryError) or re.search(r"allocate|bad_alloc|out of memory", str(cause), re.IGNORECASE):
            return f"too much memory was asked for: {here}, of {type(cause).__name__}: {str(cause)[:200]}"
        cause = cause.__cause__ or cause.__context__
    if len(text.splitlines()) != 1:
        return f"a message of several lines: {here}"
    if not text.isprintable():
        return f"a message that terminals cannot show: {here}"
    if len(text) > LONGEST_MESSAGE:
        return f"a message of {len(text)} characters: {here}"
    if names and not any(name in text for name in names):
        return f"no file in the message: {here}"
    return None


def wrong_with_result(found, check):
    try:
        for place, value in numbers(found):
            if not np.isfinite(value).all():
                return f"NaN or infinity in {place}"
        check(found)
    except AssertionError as error:
        return f"not consistent: {str(error).splitlines()[0] if str(error) else 'assertion'}"
    return None


def numbers(value, place="result"):
    """Iterate over (place, array) of every number in anything that a reader returns."""
    if isinstance(value, (bool, str, bytes, type(None), Path)):
        return
    if isinstance(value, (int, np.integer)):  # whole numbers of any size
        return
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield place, value.detach().double().numpy()
    elif scipy.sparse.issparse(value):
        yield place, value.data
    elif isinstance(value, (float, complex, np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind in "fc":
            yield place, array
        elif array.dtype.kind == "O":
            yield from numbers(array.tolist(), place)
    elif isinstance(value, Atoms):
        results = value.calc.results if value.calc else {}
        yield from numbers([value.arrays, value.cell.array, results], f"{place}.atoms")
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from numbers(entry, f"{place}.{key}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from numbers({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, place)
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        yield from numbers(value._asdict(), place)
    elif isinstance(value, (list, tuple)):
        for k, entry in enumerate(value):
            yield from numbers(entry, f"{place}[{k}]")
    else:
        raise TypeError(f"judge.numbers knows no {type(value).__name__}")


def write_files(folder, files):
    """Make ``folder`` hold these files (name, with folders, -> bytes) and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_files(folder):
    """dict name -> bytes of all files in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }
