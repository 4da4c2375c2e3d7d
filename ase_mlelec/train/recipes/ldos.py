"""Recipe for models of a local density of states."""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, cast

from ase_mlelec.data.grid_points import ForceData, GridData
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.heads import LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.physics.energy_zero import EnergyZero
from ase_mlelec.train.config import Config, LDOSConfig
from ase_mlelec.train.data_checks import check_snapshots
from ase_mlelec.train.error_bars import told
from ase_mlelec.train.ldos.descent import LDOSLoss, fit_ldos
from ase_mlelec.train.ldos.error_bars import add_ldos_error_bars
from ase_mlelec.train.ldos.errors import mean_ldos_errors
from ase_mlelec.train.ldos.label_refit import check_densities, refit_with_labels
from ase_mlelec.train.ldos.standardize import fit_zero, standardize_ldos
from ase_mlelec.train.log import Log, shown
from ase_mlelec.train.recipes.budget import begin_log, duration_of
from ase_mlelec.train.recipes.checkpoints import checkpoint_of, defaults_of, save, settings_of
from ase_mlelec.train.recipes.description import COPIED, provenance
from ase_mlelec.train.recipes.distances import protect_trained
from ase_mlelec.train.recipes.draft import Draft
from ase_mlelec.train.recipes.parts import parts_of
from ase_mlelec.train.recipes.starting import seeded


def train_ldos(config: Config, cache: str | PathLike, progress: bool | Log = True) -> Model:
    """Train a local density of states: fingerprints of all grid points, gradient descent, refit, errors.

    Parameters
    ----------
    cache : path
        HDF5 file of fingerprints, which is kept.
    """
    snapshots = _snapshots(config)
    output = config.folder / config.output.model
    output.parent.mkdir(parents=True, exist_ok=True)
    chosen = parts_of(snapshots, "snapshots", config)
    model = new_ldos_model(snapshots, fit_zero(chosen["train"]), config)
    parts = {
        name: GridData(part, model.descriptor, cache, progress=progress, zero=model.heads["ldos"].zero)
        for name, part in chosen.items()
    }
    log = begin_log({name: part.snapshots for name, part in parts.items()}, config, progress)
    draft = Draft(
        config,
        model,
        describe_ldos(snapshots),
        partial(protect_trained, parts=chosen, config=config, ranges=False),
        log.tell,
    )
    fit_ldos_model(
        model,
        parts["train"],
        parts["validation"],
        config,
        checkpoint_of(config, "ldos"),
        output.with_suffix(".ldos.csv"),
        log,
        keep=draft.stage("ldos"),
        identity=settings_of(config),
        may_lack=defaults_of(config),
    )
    held_out = {name: mean_ldos_errors(model, part) for name, part in parts.items() if name != "train" and len(part)}
    model.metadata = describe_ldos(snapshots) | {
        "errors": held_out,
        "training": provenance({name: part.snapshots for name, part in parts.items()}, config),
    }
    log.tell(told(add_ldos_error_bars(model, parts["train"], parts["validation"], progress=log)))
    protect_trained(model, chosen, config)
    return save(model, config)


def fit_ldos_model(
    model: Model,
    data: GridData,
    validation: GridData,
    config: Config,
    checkpoint: str | Path | None = None,
    curve: str | Path | None = None,
    progress: bool | Log = True,
    **saving: Any,
) -> None:
    """Train a new model of the LDOS in place: gradient descent and the refits of ``config`` (Config).

    Parameters
    ----------
    data, validation : GridData
    checkpoint, curve : paths
        As in ase_mlelec.train.ldos.descent.fit_ldos.
    saving
        ``keep`` and ``identity`` of ase_mlelec.train.loop.run_loop.

    Raises
    ------
    ValueError
        For snapshots without forces or densities, where ``config`` gives them a weight.
    """
    options, head = cast(LDOSConfig, config.ldos), model.heads["ldos"]
    forces = (
        ForceData(data.snapshots, model.descriptor, data.cache, progress=shown(progress))
        if options.force_weight
        else None
    )
    if options.energy_weight:
        check_densities(data.snapshots)
    model.float()  # the fingerprints are computed in double precision, and kept in single
    standardize_ldos(head, data, options.scaling, options.fingerprints)
    loss = LDOSLoss(options.ldos, options.density, options.dos, options.band_energy)
    fit_ldos(
        model,
        data,
        loss,
        validation=validation,
        **duration_of(options, config),
        batch_size=options.batch_size,
        batch_points=options.batch_points,
        learning_rate=options.learning_rate,
        schedule=options.schedule,
        patience=options.patience,
        dos_weight=options.dos_weight,
        hold=options.hold,
        seed=config.seed,
        checkpoint=checkpoint,
        curve=curve,
        progress=progress,
        **saving,
    )
    if options.force_weight or options.energy_weight:
        refit_with_labels(
            head,
            data,
            forces,
            options.force_weight,
            options.energy_weight,
            options.dos_weight,
            options.hold,
            shown(progress),
        )


def _snapshots(config):
    snapshots = Snapshots(*(config.folder / name for name in config.data.files))
    missing = [key for key in ("valence_electrons", "xc", "grid_spacing_A") if key not in snapshots.attributes]
    if missing:
        raise ValueError(f"{snapshots.path}: no '{missing[0]}' in its attributes; write it with write_snapshots")
    return check_snapshots(snapshots)


def describe_ldos(snapshots: Snapshots) -> dict:
    """Metadata of an LDOS model, dict of JSON types; of several electronic temperatures it has the lowest."""
    described = {
        name: snapshots.attributes[name]
        for name in (*COPIED, "xc", "grid_spacing_A", "core_charges")
        if name in snapshots.attributes
    }
    described["electronic_temperature_K"] = min(snapshot.temperature for snapshot in snapshots)
    return described


def new_ldos_model(snapshots: Snapshots, zero: EnergyZero, config: Config) -> Model:
    """Untrained Model for the species and energies of ``snapshots``, with an EnergyZero."""
    species = sorted({symbol for snapshot in snapshots for symbol in snapshot.atoms.get_chemical_symbols()})
    descriptor = Bispectrum(species, **config.bispectrum.model_dump()).double()
    options = cast(LDOSConfig, config.ldos)
    with seeded(config.seed):
        head = LDOSHead(
            descriptor.n_features, snapshots.energies, options.widths, options.activation, zero, descriptor.n_sums
        )
    return Model(descriptor, {"ldos": head})
