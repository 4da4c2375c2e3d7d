"""Training from a configuration and data sets to a model file with its provenance, as in ``mlelec train``."""

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ase_mlelec import processes
from ase_mlelec.atomic_write import FileLock
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config, OutputConfig
from ase_mlelec.train.interrupt import explained
from ase_mlelec.train.log import Log
from ase_mlelec.train.recipes.checkpoints import checkpoint_of
from ase_mlelec.train.recipes.cutoff_trials import TRIALS as TRIALS_OF_CUTOFF
from ase_mlelec.train.recipes.frames import train_frames
from ase_mlelec.train.recipes.hamiltonian import train_hamiltonian
from ase_mlelec.train.recipes.ldos import train_ldos
from ase_mlelec.train.recipes.linear_energy import TRIALS as TRIALS_OF_ENERGY

TRIALS = (
    TRIALS_OF_ENERGY,
    TRIALS_OF_CUTOFF,
)  # checkpoints that all members of a committee keep until the last is trained


def train(config: Config, progress: bool | Log = True) -> Model | list[Model]:
    """Train the model of a Config, save it, and return it.

    The descriptor is trained with the first of the heads energy, dos, dipole and polarizability; the later heads are
    trained on this descriptor. Checkpoints and learning curves are next to the output, and so is, from the first minute
    on, the model so far, with an entry "unfinished" in its metadata. After an interruption the same call continues from
    the last checkpoint. After the end a call with more steps, or more minutes, continues too; a call with other settings
    trains anew.

    Returns
    -------
    Model
        ``metadata["errors"]`` has the errors on the held-out frames, ``metadata["training"]`` the provenance. A committee
        is a list of Model.

    Raises
    ------
    ValueError
        For data that do not fit the configuration, for checkpoints of another configuration, and where another process
        trains the same model.
    """
    models = [model for _, model in train_members(config, progress)]
    return models if config.committee > 1 else models[0]


def train_members(config: Config, progress: bool | Log = True) -> Iterator:
    """Train the members of a committee one after the other: iterator over (Config of the member, Model)."""
    cache = (config.folder / config.output.model).with_suffix(".fingerprints.h5")  # the same for all members
    recipe: Callable[..., Model] = train_hamiltonian if config.hamiltonian else train_frames
    if config.ldos:
        recipe = partial(train_ldos, cache=cache)
    with _alone(config):
        for member in _members(config):
            with explained(partial(_how_to_go_on, member)):
                model = recipe(member, progress=progress)
            yield member, model
        processes.gathered(None)  # none reads it any more
        for spent in (cache, *(checkpoint_of(member, name) for member in _members(config) for name in TRIALS)):
            spent.unlink(missing_ok=True)


def _members(config):
    """A Config for each member of a committee, with its own seed and file and its share of the time."""
    if config.committee == 1:
        return [config]
    stem, shared = config.output.model.removesuffix(".safetensors"), {"committee": 1}
    if config.minutes is not None:
        shared["minutes"] = config.minutes / config.committee
    return [
        config.model_copy(
            update=shared | {"seed": config.seed + k, "output": OutputConfig(model=f"{stem}-{k}.safetensors")}
        )
        for k in range(config.committee)
    ]


@contextmanager
def _alone(config):
    """Context in which no other process trains this model: both would write the same checkpoints and files."""
    lock, path = None, config.folder / config.output.model
    if processes.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _how_to_go_on(config):
    """What the same command does after an interruption between two steps that save."""
    path = config.folder / config.output.model
    kept = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.checkpoint"))
    what = f", except for what {', '.join(each.name for each in kept)} holds" if kept else ""
    return f"the same command begins anew{what}"
