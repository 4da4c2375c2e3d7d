"""FHI-aims: outputs that ASE reads, without the steps that are no labels.

ASE reads only outputs of runs that have ended, and takes steps whose electrons did not converge.
"""

import warnings
from os import PathLike

from ase import Atoms
from ase.io.aims import get_aims_out_chunks, get_header_chunk
from ase.io.formats import open_with_compression

FAILED, END = "SELF-CONSISTENCY CYCLE DID NOT CONVERGE", "Have a nice day."


def read_aims(path: str | PathLike) -> list[Atoms]:
    """Read the finished steps of an output whose electrons converged, with a warning about others.

    Raises
    ------
    ValueError
        Where no step is left; and all errors of ASE.
    """
    with open_with_compression(str(path)) as file:
        header = get_header_chunk(file)
        steps = list(get_aims_out_chunks(file, header))  # loops that restart the mixer belong to one step
    ended = bool(steps) and any(END in line for line in steps[-1].lines)
    # what follows the last step of a relaxation is no step; without the end of a run, its last step is not whole
    steps = steps[:-1] if header.is_relaxation or not ended else steps
    kept = [step for step in steps if not any(FAILED in line for line in step.lines)]
    notes = [] if ended else [f"the run did not finish; its {len(steps)} whole steps are read"]
    if len(kept) < len(steps):
        notes.append(f"{len(steps) - len(kept)} of {len(steps)} steps did not converge, and are left out")
    if not kept:
        raise ValueError(f"no step that has ended and whose electrons converged{': ' + notes[0] if notes else ''}")
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=5)
    return [step.atoms for step in kept]
