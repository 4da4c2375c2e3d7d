"""Reading of labeled structures from all formats: HDF5, deepmd npy folders, pw.x runs, and files that ASE reads.

Nothing here needs torch.
"""

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

from ase_mlelec.data.data_set import Frame, Frames, join
from ase_mlelec.data.frames_hdf5 import read_hdf5, write_hdf5
from ase_mlelec.data.images import READABLE, from_images, read_labeled, to_images
from ase_mlelec.data.keys import check_used
from ase_mlelec.data.runs import is_run, read_run
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.io.deepmd.data import is_hdf5_data, read_data

__all__ = ["Frame", "Frames", "from_images", "join", "read_all", "read_frames", "read_hdf5", "to_images", "write_hdf5"]


@formerly_positional("keys", "found")
def read_frames(path: str | PathLike, *, keys: dict[str, str] | None = None, found: set | None = None) -> Frames:
    """Read labeled structures from a file or folder of any known format.

    The formats are HDF5 of this package, deepmd npy folders, pw.x runs (text output, XML or ``prefix.save``), and files
    with labels that ASE reads.

    Parameters
    ----------
    keys : dict
        Names of labels in files that ASE reads, see ``from_images``.
    found : set, optional
        Set to which the ``keys`` that the file has are added. Keys that the file lacks are then no error.

    Raises
    ------
    ValueError
        For a file that does not exist, is damaged, or has no labels.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not has_keys(path):
        if keys:
            raise ValueError(
                f"{path}: got names of labels ({', '.join(keys.values())}), which are for files that ASE "
                "reads; leave them out"
            )
        if is_run(path):
            return read_run(path)
        return read_hdf5(path) if path.is_file() and not is_hdf5_data(path) else _read_deepmd(path)
    if not path.is_file():  # opening a pipe would block
        raise ValueError(f"{path}: no file; {READABLE}")
    return read_labeled(path, keys=keys, found=found)


def has_keys(path: str | PathLike) -> bool:
    """Whether the format of a data set has free names of labels, so that ``keys`` apply."""
    path = Path(path)
    return not (
        path.is_dir() or path.suffix in (".h5", ".hdf5") or (path.is_file() and (is_hdf5_data(path) or is_run(path)))
    )


@formerly_positional("keys", "check")
def read_all(
    paths: Iterable[str | PathLike],
    *,
    keys: dict[str, str] | None = None,
    check: Callable = lambda frames, path: frames,
) -> Frames:
    """Read several data sets as one.

    ``keys`` apply to files that ASE reads; ``check(frames, path)`` is called for each data set and returns its Frames.

    Raises
    ------
    ValueError
        For errors of ``read_frames`` and ``join``, and where no file has the ``keys``.
    """
    paths = list(paths)
    if keys and not any(map(has_keys, paths)):
        raise ValueError(
            f"{', '.join(map(str, paths))}: got names of labels ({', '.join(keys.values())}), which are "
            "for files that ASE reads; leave them out"
        )
    found: set[str] = set()
    frames = join(check(read_frames(path, keys=keys if has_keys(path) else None, found=found), path) for path in paths)
    check_used(", ".join(map(str, paths)), keys or {}, found, {})
    return frames


def _read_deepmd(path):
    return Frames([Frame(atoms, labels, f"{path.name}-{i}") for i, (atoms, labels) in enumerate(read_data(path))])
