"""Labelled structures: read extxyz, deepmd npy folders and our HDF5; write HDF5. Nothing here needs torch."""

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
    """Read a data set: ``.h5`` (ours), a deepmd npy folder, a pw.x run (text output, XML or ``prefix.save``), or any
    file ASE reads that carries labels.

    Parameters
    ----------
    keys : dict
        For files that ASE reads: what labels are called there, see ``from_images``.
    found : set
        For one of several files: takes up the ``keys`` that this one has, and none are missed.

    Raises
    ------
    ValueError
        When there is no such file, it is damaged or it holds no labels.
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
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path}: no file; {READABLE}")
    return read_labeled(path, keys=keys, found=found)


def has_keys(path: str | PathLike) -> bool:
    """Whether labels may have any names in a data set, so that ``keys`` apply to it."""
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
    """One data set of several; ``keys`` are for those of them that ASE reads, ``check(frames, path)`` for each of them.

    Raises
    ------
    ValueError
        As ``read_frames`` and ``join`` do, and where no file has use for ``keys``.
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
