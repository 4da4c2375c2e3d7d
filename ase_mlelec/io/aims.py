"""FHI-aims: outputs that ASE reads, without the steps that are no labels.

ASE reads only outputs of runs that have ended, and takes steps whose electrons did not converge.
"""

import warnings
from os import PathLike

from ase import Atoms
from ase.io import read
from ase.io.formats import open_with_compression

BEGIN, FAILED, END = "Begin self-consistency loop:", "SELF-CONSISTENCY CYCLE DID NOT CONVERGE", "Have a nice day."


def read_aims(path: str | PathLike) -> list[Atoms]:
    """Read the finished steps of an output whose electrons converged, with a warning about others.

    Raises
    ------
    ValueError
        Where the steps that did not converge cannot be told, and where no step is left; and all errors of ASE.
    """
    failed, ended = _steps(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that ASE will read the format by a package of its own
        images = read(str(path), ":", format="aims-output", non_convergence_ok=True, do_not_split_by_at_sign=True)
    images = images if isinstance(images, list) else [images]
    if not ended and len(images) == len(failed):  # of relaxations ASE leaves the last one out itself
        images = images[:-1]
    notes = [] if ended else [f"the run did not finish; its {len(images)} whole steps are read"]
    if any(failed[: len(images)]):
        if len(failed) - len(images) > 1:
            raise ValueError(
                f"electrons did not converge in some of {len(images)} steps, and it cannot be told in which, as there are "
                f"{len(failed)} loops; leave the file out, or cut it at the step"
            )
        kept = [atoms for atoms, bad in zip(images, failed) if not bad]
        notes.append(f"{len(images) - len(kept)} of {len(images)} steps did not converge, and are left out")
        images = kept
    if not images:
        raise ValueError(f"no step that has ended and whose electrons converged{': ' + notes[0] if notes else ''}")
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=5)
    return images


def _steps(path):
    """For every loop of the electrons whether it failed, list of bool, and whether the run has ended."""
    failed, ended = list[bool](), False
    with open_with_compression(str(path)) as file:
        for line in file:
            if BEGIN in line:
                failed.append(False)
            elif FAILED in line and failed:
                failed[-1] = True
            ended = ended or END in line
    return failed, ended
