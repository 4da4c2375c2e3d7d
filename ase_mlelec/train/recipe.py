"""The recipe behind ``mlelec train``: from a configuration and data sets to a model file with its provenance."""

from collections.abc import Iterator

from ase_mlelec.train.config import OutputConfig
from ase_mlelec.train.recipes.frames import train_frames
from ase_mlelec.train.recipes.hamiltonian import train_hamiltonian
from ase_mlelec.train.recipes.ldos import train_ldos


def train(config, progress: bool = True):
    """Train a model as ``config`` (a Config) says, save it, and return it.

    First the descriptor with the first head, of energy, dos, dipole and polarizability, then the others on the
    descriptor as it is then. Checkpoints and learning curves are next to the output: the same call after an
    interruption goes on where the last checkpoint was. The checkpoints are removed when the model is saved.

    Returns
    -------
    Model
        ``metadata["errors"]`` has the errors on the held-out frames, ``metadata["training"]`` where the model comes
        from. With a committee: list of Model.

    Raises
    ------
    ValueError
        For data that do not fit the configuration, and for checkpoints of another one.
    """
    models = [model for _, model in train_members(config, progress)]
    return models if config.committee > 1 else models[0]


def train_members(config, progress: bool = True) -> Iterator:
    """``train``, one model of the committee after the other: iterator over (Config of the member, Model)."""
    stem = config.output.model.removesuffix(".safetensors")
    cache = (config.folder / config.output.model).with_suffix(".fingerprints.h5")  # the same for all members
    members = (
        [config]
        if config.committee == 1
        else [
            config.model_copy(
                update={
                    "committee": 1,
                    "seed": config.seed + k,
                    "output": OutputConfig(model=f"{stem}-{k}.safetensors"),
                }
            )
            for k in range(config.committee)
        ]
    )
    for member in members:
        if config.ldos:
            yield member, train_ldos(member, cache, progress)
        elif config.hamiltonian:
            yield member, train_hamiltonian(member, progress)
        else:
            yield member, train_frames(member, progress)
    cache.unlink(missing_ok=True)
