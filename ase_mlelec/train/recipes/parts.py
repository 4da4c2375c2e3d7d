"""Parts of the data: structures to train on, for validation, for tests, as support, and isolated atoms."""

from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from ase_mlelec.data.blocks import pieces
from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import Frames
from ase_mlelec.data.hdf5 import StoredDataSet
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.whole import DataConfig
from ase_mlelec.train.isolated import is_isolated
from ase_mlelec.train.log import say_once

PARTS = ("test", "validation", "support", "train")  # the first that names the group or the kind of a structure has it
SHOWN = 3  # structures that a message names
# usual names of groups in any case, which stand for a part unless a setting names them
USUAL = {"train": "train", "training": "train", "test": "test", "testing": "test", "validation": "validation"}
USUAL |= dict.fromkeys(("val", "valid", "validate", "validating", "dev"), "validation")


def split(frames: Frames, config: Config, *, complete: bool = True, progress: bool = False) -> dict[str, Frames]:
    """Split frames into train, validation, test, support and isolated atoms, dict of Frames (see DataConfig).

    A structure belongs to the part that names its group or its kind. Structures that no part names are trained on, unless
    data.train names a group (or, where the configuration gives it, a kind) that others have.

    Validation structures, where no part has some, are drawn at random in pieces of trajectories, see
    ase_mlelec.data.blocks. Isolated atoms, and structures beyond data.largest_force, are in no part except the tests.

    Parameters
    ----------
    complete : bool
        Whether there must be structures to train on, and some are held out; False for data beside others.

    Raises
    ------
    ValueError
        For data without training frames.
    """
    data = config.data
    names = [part_of(frame, data) for frame in frames]
    places = {part: [k for k, name in enumerate(names) if name == part] for part in PARTS}
    places["train"] = sorted(places["train"] + _free(frames, names, data))
    inside = [k for own in places.values() for k in own]
    isolated = [k for k in inside if names[k] != "test" and is_isolated(frames[k], config.cutoff)]
    strong = [k for k in inside if names[k] != "test" and _largest_force(frames[k]) > (data.largest_force or np.inf)]
    for part in PARTS[1:]:
        places[part] = [k for k in places[part] if k not in {*isolated, *strong}]
    if progress:
        _say_what_is_not_there(frames, data)
        _say_what_is_left_out(frames, {*range(len(frames))} - {*inside}, strong, config)
    if complete and not places["validation"]:
        train = places["train"]
        held = held_out(frames.take(train), data.validation_fraction, config.seed)
        places["validation"] = [train[k] for k in held]
        places["train"] = [k for k in train if k not in {*places["validation"]}]
    if complete:
        if len(isolated) == len(frames) > 0:
            raise ValueError(
                f"{', '.join(data.files)}: got {len(frames)} isolated atoms, none with neighbors to train on; add structures"
            )
        check_not_empty(frames.take(places["train"]), frames, ", ".join(data.files), "frames", config)
    order = ("train", "validation", "test", "support", "isolated")
    found = {part: frames.take((places | {"isolated": isolated})[part]) for part in order}
    return {part: own for part, own in found.items() if len(own) or part in order[:3]}


def part_of(frame: Frame, data: DataConfig) -> str:
    """Name of the part of the data that names the group or the kind of a frame; "" for none.

    A usual name of a group, such as "val", means its part where the setting of this part has the part's own name.
    """
    own = {frame.group, frame.kind} - {""}
    usual = USUAL.get(frame.group.lower(), "")
    found = next((part for part in PARTS if own & {*getattr(data, part)}), "")
    return found or (usual if usual and usual in getattr(data, usual) else "")


def _free(frames, names, data):
    """Indices of the frames that are trained on though no part names them."""
    given = "train" in data.model_fields_set
    groups = given or any(
        frame.group in data.train or (name == "train" and frame.group.lower() in USUAL)
        for frame, name in zip(frames, names)
    )
    kinds = given and any(kind in data.train for kind in frames.kinds)
    return [
        k
        for k, (frame, name) in enumerate(zip(frames, names))
        if not name and not (frame.group and groups) and not (frame.kind and kinds)
    ]


def _largest_force(frame):
    """Largest force of a frame, eV/Å; 0 without forces."""
    return float(np.linalg.norm(frame.labels["forces"], axis=1).max()) if "forces" in frame.labels else 0.0


def _say_what_is_not_there(frames: Frames, data: DataConfig) -> None:
    """Print a line for names of a setting that no structure has, which may be misspelled."""
    known = {*frames.groups, *frames.kinds} - {""}
    for part in PARTS:
        missing = [name for name in getattr(data, part) if name not in known and name != part]
        if missing and part in data.model_fields_set:
            say_once(
                f"[data] {part}: no structure is of the group or kind {', '.join(missing)}; there are "
                f"{', '.join(sorted(known)) or 'none at all'}"
            )


def _say_what_is_left_out(frames: Frames, unnamed: set[int], strong: Sequence[int], config: Config) -> None:
    """Print a line for structures that no part names, and a line for structures with strong forces."""
    sources = ", ".join(config.data.files)
    if unnamed:
        counts = Counter(frames[k].group or frames[k].kind for k in sorted(unnamed))
        shown = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        say_once(f"{sources}: left out are structures that no part of [data] names: {shown}")
    if strong:
        most = sorted(strong, key=lambda k: -_largest_force(frames[k]))[:SHOWN]
        shown = ", ".join(f"{frames[k].name} ({_largest_force(frames[k]):.3g})" for k in most)
        say_once(
            f"{sources}: left out are {len(strong)} structures with forces beyond data.largest_force, "
            f"{config.data.largest_force:g} eV/Å: {shown}{', ...' * (len(strong) > SHOWN)}"
        )


def held_out(frames: Frames, fraction: float, seed: int) -> list[int]:
    """Indices of the frames to hold out for validation, about ``fraction`` of all, in whole pieces of trajectories."""
    wanted = round(fraction * len(frames))
    if not wanted:
        return []
    parts = pieces([frame.atoms for frame in frames], fraction=fraction)
    found: list[int] = []
    for k in np.random.default_rng(seed).permutation(len(parts)).tolist():
        if len(found) + len(parts[k]) / 2 <= wanted:
            found += parts[k]
        if len(found) >= wanted:
            break
    return sorted(found)


def check_not_empty(
    part: Frames | StoredDataSet, whole: Frames | StoredDataSet, path: str | PathLike, what: str, config: Config
) -> None:
    """Raise ValueError, which begins with ``path``, where ``part``, to train on, has none of the frames of ``whole``."""
    if not len(part):
        groups = ", ".join(sorted(set(whole.groups)))
        raise ValueError(
            f"{path}: got {len(whole)} {what} of the groups {groups or 'none'}, none of them to train on; name groups "
            f"in data.train, now {', '.join(config.data.train)}"
        )


def parts_of(data: StoredDataSet, what: str, config: Config) -> dict[str, Any]:
    """Structures to train on, for validation and for tests, of a data set in a file; ``what`` names them in messages.

    Structures without a group train. Where none has a group, ``validation_fraction`` of them, drawn at random, is held
    out for validation.

    Raises
    ------
    ValueError
        For data without structures to train on.
    """
    groups = {"train": ("", *config.data.train), "validation": config.data.validation, "test": config.data.test}
    parts: dict[str, Any] = {name: data.select(*of_part) for name, of_part in groups.items()}
    if len(data) and not any(data.groups):
        order = np.random.default_rng(config.seed).permutation(len(data))
        held = round(config.data.validation_fraction * len(data))
        parts |= {"train": data.take(sorted(order[held:])), "validation": data.take(sorted(order[:held]))}
    check_not_empty(parts["train"], data, data.path, what, config)
    return parts
