"""Frames of the files of a configuration, with their configuration weights."""

import math
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from ase_mlelec.data.frames import Frames, read_all
from ase_mlelec.train.config import Config
from ase_mlelec.train.data_checks import check_frames


def read_checked(paths: Iterable[str | PathLike], config: Config) -> Frames:
    """Read the frames of all data sets with their configuration weights; frames of weight 0 are left out.

    Raises
    ------
    ValueError
        For invalid labels and structures; the message names file and frame.
    """
    paths, names = list(paths), set[str]()

    def check(frames, path):
        names.update(frames.groups, frames.kinds)
        return weighted(check_frames(frames, path), path, config)

    try:
        frames = read_all(paths, keys=config.data.keys.given, check=check)
        check_weights(config, names)
        return frames
    except ValueError as error:
        known = any(str(path) in str(error) for path in paths)
        raise error if known else ValueError(f"{', '.join(map(str, paths))}: {error}") from None


def check_weights(config: Config, names: set[str]) -> None:
    """Raise ValueError for a name in data.weights that is no file and none of the groups and kinds ``names``."""
    data = config.data
    for name in data.weights:
        if name not in {*data.files, *data.train, *data.support, *names}:
            raise ValueError(
                f"data.weights: got '{name}', need one of data.files, or a group or kind of their structures: "
                f"{', '.join(sorted(names - {''})) or 'there are none'}; correct it"
            )


def weighted(frames: Frames, path: Path, config: Config) -> Frames:
    """Frames of the file ``path`` with the weights of data.weights for file, group and kind, without frames of weight 0.

    They multiply the weights that the frames have.
    """
    given = config.data.weights
    own = math.prod(weight for name, weight in given.items() if config.folder / name == path)
    for frame in frames:
        frame.weight *= own * math.prod(given.get(name, 1.0) for name in {frame.group, frame.kind})
    return frames.where(lambda frame: frame.weight > 0)
