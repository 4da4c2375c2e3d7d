"""Functions that all recipes share: seeds, checkpoints, starting model, provenance."""

import math
from contextlib import contextmanager
from importlib.metadata import version

import torch

from ase_mlelec.bundle import load_model
from ase_mlelec.data.frames import Frames, read_all
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.train.data_checks import check_frames
from ase_mlelec.train.protection import protect

COPIED = (
    "dos_width_eV",
    "energy_reference",
    "valence_electrons",
    "valence_charges",
    "electrons_per_centre",
    "functions_per_vector",
    "settings",
)  # attributes of the data that go into the provenance that go into the provenance
PACKAGES = ("ase-mlelec", "torch", "numpy", "ase")


def checkpoint_of(config, name):
    """Path of the checkpoint of one stage."""
    return (config.folder / config.output.model).with_suffix(f".{name}.checkpoint")


@contextmanager
def seeded(seed):
    """Context in which random weights depend on ``seed`` alone; it does not change the random numbers after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def starting_model(config, *heads):
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


def check_same(section, mine, theirs):
    """Raise ValueError where the arguments ``mine`` differ from ``theirs``, the arguments of the starting model."""
    for name, value in theirs.items():
        if mine.get(name) != value:
            raise ValueError(
                f"start: got {mine.get(name)} as {name} of the {section}, the model that training starts "
                f"from has {value}; give it the same"
            )


def shortest_distance(frames, cutoff):
    """The shortest distance of two atoms, Å, or None where none are within ``cutoff``."""
    edges = (Edges.build(System.from_atoms(frame.atoms), cutoff) for frame in frames)
    return min((float(e.distances.min()) for e in edges if len(e.vec)), default=None)


def inner_distance(frames):
    """Inner end of the radial functions of ACE, Å: a little below the shortest distance."""
    shortest = shortest_distance(frames, 6.0)
    if shortest is None:
        raise ValueError(
            "got no atoms within 6 Å of each other, from which a power spectrum takes where it begins; "
            "give power_spectrum.inner"
        )
    return round(0.9 * shortest, 3)


def protect_trained(model, parts, config, hamiltonians=None):
    """Add core and ranges to a model from its training data (see ase_mlelec.train.protection).

    Parameters
    ----------
    parts : dict of Frames
        Parts of the data; "train" has the structures for the purpose of the model.
    hamiltonians : iterable of frames
    """
    former = starting_model(config).metadata.get("shortest_distances_A", {}) if config.start else {}
    protect(
        model,
        *([frame.atoms for frame in part] for part in (parts["train"], parts.get("support", ()))),
        hamiltonians=hamiltonians and [frame.atoms for frame in hamiltonians],
        former=former,
        core=config.energy is None or config.energy.core,
    )


def provenance(parts, config):
    """Provenance of a model, dict of JSON types: data of ``parts``, configuration, versions of packages."""
    return {
        "frames": {name: len(part) for name, part in parts.items()},
        "labels": {name: part.counts for name, part in parts.items() if isinstance(part, Frames)},
        "fingerprints": {name: part.fingerprint() for name, part in parts.items() if len(part)},
        "configuration": config.model_dump(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def read_checked(paths, config):
    """Read the frames of all data sets with their configuration weights; frames of weight 0 are left out.

    Raises
    ------
    ValueError
        For invalid labels and structures; the message names file and frame.
    """
    paths = list(paths)
    try:
        return read_all(
            paths,
            keys=config.data.keys.given,
            check=lambda frames, path: weighted(check_frames(frames, path), path, config),
        )
    except ValueError as error:
        known = any(str(path) in str(error) for path in paths)
        raise error if known else ValueError(f"{', '.join(map(str, paths))}: {error}") from None


def weighted(frames, path, config):
    """Frames of the file ``path`` with the weights from data.weights for file and group, without frames of weight 0."""
    given = config.data.weights
    own = math.prod(weight for name, weight in given.items() if config.folder / name == path)
    for frame in frames:
        frame.weight = own * given.get(frame.group, 1.0)
    return frames.where(lambda frame: frame.weight > 0)
