"""Functions that all recipes share: seeds, checkpoints, starting model, provenance."""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ase_mlelec.bundle import load_model
from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import Frames, read_all
from ase_mlelec.data.hdf5 import StoredDataSet
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.checkpoint import load_checkpoint
from ase_mlelec.train.config import Config
from ase_mlelec.train.config.heads import Training
from ase_mlelec.train.data_checks import check_frames
from ase_mlelec.train.finite import refuse_model
from ase_mlelec.train.log import Log, counted
from ase_mlelec.train.losses import missing_terms
from ase_mlelec.train.protection import protect

Options = TypeVar("Options", bound=Training)

COPIED = (
    "dos_width_eV",
    "energy_reference",
    "valence_electrons",
    "valence_charges",
    "electrons_per_centre",
    "functions_per_vector",
    "settings",
    "bands_complete_below_eV",
)  # attributes of the data that go into the provenance
PACKAGES = ("ase-mlelec", "torch", "numpy", "ase")


def checkpoint_of(config: Config, name: str) -> Path:
    """Path of the checkpoint of one stage."""
    return (config.folder / config.output.model).with_suffix(f".{name}.checkpoint")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which random weights depend on ``seed`` alone; it does not change the random numbers after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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


FREE = {"committee", "minutes", "output"}  # settings that may change between the calls of one training
FREE_OF_HEADS = {"steps", "epochs", "patience"}


def settings_of(config: Config) -> dict[str, str]:
    """Settings that an interrupted or lengthened training must share with its checkpoint, by "section.name".

    The number of steps, the files that are written and the groups for tests may change.
    """
    found = {}
    for section, value in config.model_dump(exclude=FREE).items():
        names = value if isinstance(value, dict) else {"": value}
        for name, setting in names.items():
            if name not in FREE_OF_HEADS and (section, name) != ("data", "test"):
                found[f"{section}.{name}".rstrip(".")] = str(setting)
    return found


def defaults_of(config: Config) -> set[str]:
    """Names of ``settings_of`` at their defaults, which checkpoints of versions without these settings lack."""
    found = set()
    for name, setting in settings_of(config).items():
        section, _, key = name.partition(".")
        fields = getattr(type(getattr(config, section)), "model_fields", {}) if key else Config.model_fields
        field = fields.get(key or section)
        if field is not None and str(field.get_default(call_default_factory=True)) == setting:
            found.add(name)
    return found


def begin_log(parts: Mapping[str, Frames | StoredDataSet], config: Config, progress: bool | Log) -> Log:
    """Log with the rows that all stages share: frames by part, and the model file."""
    log = Log.of(progress)
    log.about = {
        "data": counted((len(part), name) for name, part in parts.items()),
        "model": str(config.folder / config.output.model),
    }
    if config.minutes is not None and not shares_time(config):
        log.tell(
            "minutes: without effect, as nothing is left to gradient descent; closed forms take the time they need"
        )
    return log


def duration_of(options: Any, config: Config) -> dict[str, Any]:
    """Number of steps of a stage that is trained by gradient descent, or its share of ``config.minutes``.

    A number of steps that the configuration gives takes precedence.
    """
    name = "epochs" if hasattr(options, "epochs") else "steps"
    if config.minutes is None or name in options.given:
        return {name: getattr(options, name)}
    return {name: None, "seconds": 60 * config.minutes / len(shares_time(config))}


def shares_time(config: Config) -> list[Any]:
    """Sections whose heads share ``config.minutes``: those of gradient descent without a given number of steps."""
    stages: list[Any] = [*(config.section(row.name) for row in config.wanted), config.ldos, config.hamiltonian]
    solved = [stage for stage in stages if getattr(stage, "closed_form", False) and not config.start]
    left = [stage for stage in stages if stage and stage not in solved and len(stage.widths)]
    return [stage for stage in left if ("epochs" if hasattr(stage, "epochs") else "steps") not in stage.given]


def steps_before(model: Model, name: str, config: Config) -> dict[str, Any]:
    """Steps that the stages before made; a stage on a descriptor that was trained further begins anew."""
    paths = {other: checkpoint_of(config, other) for other in model.heads if other != name}
    return {f"steps of {other}": load_checkpoint(path).get("step") for other, path in paths.items() if path.exists()}


def shown(progress: bool | Log) -> bool:
    """Whether something is to be told."""
    return progress.show if isinstance(progress, Log) else progress


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


def save(model: Model, config: Config, checkpoints: Iterable[Path] = ()) -> Model:
    """Write a trained model, which must be finite, and remove ``checkpoints``; the model as it is evaluated."""
    refuse_model(model, config.output.model)
    model.save(config.folder / config.output.model)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def starting_model(config: Config, *heads: str) -> Model:
    """Starting Model of a training; ValueError where it lacks one of ``heads``."""
    path = config.folder / config.start
    start = load_model(path if path.exists() else config.start)
    for name in heads:
        if name not in start.heads:
            raise ValueError(
                f"start: {config.start} has no {name}, it has {', '.join(start.heads)}; leave out "
                f"[{name}] or start from another model"
            )
    return start


def check_same(section: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise ValueError where the arguments ``mine`` differ from ``theirs``, the arguments of the starting model."""
    for name, value in theirs.items():
        if mine.get(name) != value:
            raise ValueError(
                f"start: got {mine.get(name)} as {name} of the {section}, the model that training starts "
                f"from has {value}; give it the same"
            )


def shortest_distance(frames: Iterable[Frame], cutoff: float) -> float | None:
    """The shortest distance of two atoms, Å, or None where none are within ``cutoff``."""
    edges = (Edges.build(System.from_atoms(frame.atoms), cutoff) for frame in frames)
    return min((float(e.distances.min()) for e in edges if len(e.vec)), default=None)


def inner_distance(frames: Iterable[Frame]) -> float:
    """Inner end of the radial functions of ACE, Å: a little below the shortest distance."""
    shortest = shortest_distance(frames, 6.0)
    if shortest is None:
        raise ValueError(
            "got no atoms within 6 Å of each other, from which a power spectrum takes where it begins; "
            "give power_spectrum.inner"
        )
    return round(0.9 * shortest, 3)


def protect_trained(
    model: Model,
    parts: Mapping[str, Iterable[Frame]],
    config: Config,
    hamiltonians: Iterable[Frame] | None = None,
    ranges: bool = True,
) -> None:
    """Add core and ranges to a model from its training data (see ase_mlelec.train.protection).

    Parameters
    ----------
    parts : dict of Frames
        Parts of the data; "train" has the structures for the purpose of the model.
    hamiltonians : iterable of frames
    ranges : bool
        As in ase_mlelec.train.protection.protect.
    """
    former = starting_model(config).metadata.get("shortest_distances_A", {}) if config.start else {}
    protect(
        model,
        *([frame.atoms for frame in part] for part in (parts["train"], parts.get("support", ()))),
        hamiltonians=hamiltonians and [frame.atoms for frame in hamiltonians],  # type: ignore[arg-type]  # itself if empty
        former=former,
        core=config.energy is None or config.energy.core,
        ranges=ranges,
    )


def provenance(parts: Mapping[str, Frames | StoredDataSet], config: Config) -> dict[str, Any]:
    """Provenance of a model, dict of JSON types: data of ``parts``, configuration, versions of packages."""
    return {
        "frames": {name: len(part) for name, part in parts.items()},
        "labels": {name: part.counts for name, part in parts.items() if isinstance(part, Frames)},
        "fingerprints": {name: part.fingerprint() for name, part in parts.items() if len(part)},
        "configuration": config.model_dump(),
        "versions": {name: version(name) for name in PACKAGES},
    }


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


UNSAID = {"virial"}  # few data have stress, which follows from energies and forces as well; molecules have none
INSTEAD = "total"  # term that replaces the term of labels by atom, where the data have sums alone


def with_labels(
    options: Options,
    section: str,
    make_loss: Callable[[str, Options], Any],
    frames: Frames,
    config: Config,
    progress: bool = True,
) -> Options:
    """Remove the terms without labels from ``options`` (such as an EnergyConfig), and report them once.

    Parameters
    ----------
    make_loss : callable(section, options) -> loss
        See ase_mlelec.train.losses.
    frames : Frames to train on

    Raises
    ------
    ValueError
        For a term without labels whose weight the configuration sets, and where no term is left; the message names files
        and keys.
    """
    loss = make_loss(section, options)
    missing = missing_terms(loss, frames)
    if loss.terms and not missing:
        return options
    sources = ", ".join(config.data.files)
    have = ", ".join(frames.counts) or "none"
    for term, labels in missing.items():
        if term in options.given:
            value = (
                "[0, 0]"
                if isinstance(getattr(options, term), tuple)
                else "0 (and total = 1)"
                if term == "atomic"
                else "0"
            )
            raise ValueError(
                f"[{section}] {term}: none of the {len(frames)} frames to train on of {sources} has a "
                f"label {' or '.join(map(repr, labels))}, they have {have}; give them, or leave the term "
                f"out with {term} = {value}"
            )
    left = _without(options, section, missing, frames, make_loss)
    if left is None:
        wanted = dict.fromkeys(name for labels in missing.values() for name in labels)
        raise ValueError(
            f"[{section}]: none of the {len(frames)} frames to train on of {sources} has a label "
            f"{' or '.join(map(repr, wanted))}, they have {have}; give them, or leave out [{section}]"
        )
    told = [term for term in missing if term not in UNSAID]
    if progress and told:
        say_once(
            f"[{section}] trains without {', '.join(told)}: none of the {len(frames)} frames to train on has "
            f"such labels ({', '.join(str(config.folder / name) for name in config.data.files)})"
        )
    return left


def _without(options, section, missing, frames, make_loss):
    """Options with zero weights for the missing terms, or None where no term is left."""
    zero = {term: (0.0, 0.0) if isinstance(getattr(options, term), tuple) else 0.0 for term in missing}
    kept = [term for term in make_loss(section, options).terms if term not in missing]
    if not kept and hasattr(options, INSTEAD) and INSTEAD not in options.given:
        trial = options.model_copy(update={**zero, INSTEAD: 1.0})
        return None if missing_terms(make_loss(section, trial), frames) else trial
    return options.model_copy(update=zero) if kept else None


@functools.cache
def say_once(text: str) -> None:
    """Print a line to the standard error, unless it was printed before."""
    print(text, file=sys.stderr)
