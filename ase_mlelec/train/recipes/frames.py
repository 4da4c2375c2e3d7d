"""Recipe for models of quantities of atoms and their sums: energy, DOS, dipole, polarizability."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ase_mlelec.data.frames import Frames, join
from ase_mlelec.descriptors import DeepPotLocalFrame, DeepPotSE
from ase_mlelec.descriptors.ace import ACE, Order
from ase_mlelec.descriptors.ace.former import from_power_spectrum
from ase_mlelec.heads import ScalarHead
from ase_mlelec.long_range import VECTORS
from ase_mlelec.model import Model
from ase_mlelec.quantities import HEADS, LOSSES, QUANTITIES
from ase_mlelec.train.closed_form import fit_closed_form
from ase_mlelec.train.config import Config, EnergyConfig
from ase_mlelec.train.config.local_frame import LocalFrameConfig
from ase_mlelec.train.config.whole import PowerSpectrumConfig
from ase_mlelec.train.dipoles import settle_parts, told_of_sum_rule
from ase_mlelec.train.error_bars import add_error_bars, arranged, told
from ase_mlelec.train.evaluate import comparable, errors
from ase_mlelec.train.finite import refuse_model
from ase_mlelec.train.fit import fit
from ase_mlelec.train.hot_bars import add_hot_error_bars
from ase_mlelec.train.isolated import reproduce
from ase_mlelec.train.linear_energy import add_change
from ase_mlelec.train.log import Log, shown
from ase_mlelec.train.recipes.budget import begin_log, duration_of
from ase_mlelec.train.recipes.checkpoints import checkpoint_of, defaults_of, save, settings_of, steps_before
from ase_mlelec.train.recipes.cutoff_trials import TRIALS, with_tried_cutoff
from ase_mlelec.train.recipes.defaults import in_closed_form, n_drawn, settled
from ase_mlelec.train.recipes.description import describe, provenance
from ase_mlelec.train.recipes.distances import inner_distance, protect_trained
from ase_mlelec.train.recipes.draft import Draft
from ase_mlelec.train.recipes.hot_energies import fit_hot_energies, hot_energies_kept, read_hot
from ase_mlelec.train.recipes.linear_energy import ROWS, Fitted, fit_energy, orders_of, without_absurd
from ase_mlelec.train.recipes.local_frame import with_places
from ase_mlelec.train.recipes.long_range import FarPart, centroids_alone, long_range_of
from ase_mlelec.train.recipes.parts import split
from ase_mlelec.train.recipes.reading import read_checked
from ase_mlelec.train.recipes.references import reference_energies
from ase_mlelec.train.recipes.starting import check_same, seeded, starting_model
from ase_mlelec.train.recipes.terms import with_labels
from ase_mlelec.train.roots import RootLoss, check_roots, roots_of
from ase_mlelec.train.spreads import energy_weights, with_born
from ase_mlelec.train.standardize import standardize, standardize_heads

# defaults of gradient descent for energies
ATOMS_IN_STEP, LARGEST_BATCH = 128, 32
PASSES, PASS = 30, 8  # passes over the data; least number of steps of one
LARGEST_SINGLE = 100.0  # eV for each atom: in single precision it is rounded to 1e-5 eV
ATOMS_IN_ALL, FEWEST_STEPS, MOST_STEPS = 1_000_000, 2000, 200_000


def train_frames(config: Config, progress: bool | Log = True) -> Model:
    """Train one model of energy, dos, dipole, polarizability and quantities of other packages."""
    whole = read_checked((config.folder / name for name in config.data.files), config)
    parts = _of_known_species(split(whole, config, progress=shown(progress)), config)
    hot = read_hot(parts, config)
    given, config = config, with_places(settled(config, parts["train"]), parts)
    # errors in the description should show before the training, not after it
    described = describe(parts["train"], config)
    if config.dipole:
        parts = settle_parts(parts, described, config.dipole.centers)
    chosen: dict[str, Any] = {}  # by the closed forms
    (config.folder / config.output.model).parent.mkdir(parents=True, exist_ok=True)
    log = begin_log(parts, config, progress)
    if config.dipole and (sum_rule := told_of_sum_rule(parts["train"], described)):
        log.tell(sum_rule)
    kept = checkpoint_of(config, TRIALS)
    config = with_tried_cutoff(given, config, parts["train"], _directed_errors, log.tell, kept)
    references = reference_energies(parts, config, progress=log.show)
    far, original = _far_part(parts, config, described, log, chosen), parts
    parts = without_absurd(far.without(parts, log), config, log)
    model = new_model(parts["train"], far.of_energy(config), orders=orders_of(parts, config, log))
    protect = partial(protect_trained, parts=parts, config=config, ranges=False)
    draft = Draft(config, model, described, protect, log.tell, complete=far.complete)
    fits: dict[str, Fitted] = {}
    take_in: list[Callable[[], None] | None] = []  # for the validation structures
    spent: list[Path] = []  # checkpoints that nothing needs once the model is saved
    for quantity in config.wanted:
        if quantity.gradients:
            spent += train_energy(model, parts, config, log, draft, fits=fits)
            far.add_centroids(model)
        elif quantity.name not in model.heads:
            take_in.append(_train_of_atoms(model, quantity, parts, config, log, draft, chosen))
    hot = {temperature: far.without(known, log) for temperature, known in hot.items()}
    hot_fit = fit_hot_energies(model, hot, config, log)
    model.cpu()
    chosen |= hot_fit.about | {name: fitted.about for name, fitted in fits.items() if fitted.about}
    model.metadata = described  # errors of dipoles depend on the charges, errors of energies on the core
    protect_trained(model, parts, config)
    refuse_model(model, config.output.model)  # before error bars are made of it
    _make_error_bars(model, parts, fits, hot_fit.held, log)
    held_out = _errors(model, parts, "validation")
    with hot_energies_kept(model):
        for fitted in fits.values():
            if fitted.change is not None:  # after error bars and errors, for which the validation was held out
                add_change(model, fitted.change)
    for add in filter(None, take_in):
        add()
    if references:
        reproduce(model, parts["train"], references)
        model.metadata["isolated_atoms_eV"] = references
    held_out |= _errors(model, parts, "test")
    training = provenance(original, config) | ({"closed_form": chosen} if chosen else {})
    model.metadata |= {"errors": held_out, "training": training}
    far.complete(model)
    return save(model, config, spent)


def _make_error_bars(model, parts, fits, hot, log):
    """Give the model what its error bars need; ``fits`` are those in closed form by quantity, ``hot`` as HotFit.held."""
    factors = {
        name: arranged(fitted.factor, model.heads[name].nets)
        for name, fitted in fits.items()
        if fitted.factor is not None
    }
    log.tell("making error bars")
    more = {name: fitted.left_out for name, fitted in fits.items() if fitted.left_out is not None}
    report = add_error_bars(
        model,
        parts["train"],
        parts["validation"],
        factors=factors,
        left_out=more,
        held_errors={name: fitted.about["errors"] for name, fitted in fits.items() if fitted.about},
        support=parts.get("support"),
        progress=log,
    )
    log.tell(told(report | add_hot_error_bars(model, hot, progress=log)))


def _far_part(parts, config, described, log, chosen):
    """Long range of the energy, with the centroids that it needs, which are trained first."""
    if config.long_range is None:
        return FarPart()
    model = None
    if not config.long_range.charges:
        model = new_model(parts["train"], centroids_alone(config))
        # the validation structures stay held out: the energy is fitted to what these very centroids leave
        _train_of_atoms(model, QUANTITIES[VECTORS], parts, config, log, None, chosen)
        model.cpu()
    return FarPart(long_range_of(config, described), model)


def _directed_errors(config, frames):
    """Errors in cross-validation of closed forms of vectors and tensors, which have a descriptor for themselves."""
    alone, chosen = centroids_alone(config) if config.electronic else config, {}
    model, parts = new_model(frames, alone), {"train": frames, "validation": frames.take([])}
    for quantity in config.wanted:
        if "3" in quantity.shape:
            _train_of_atoms(model, quantity, parts, alone, Log.of(False), None, chosen)
    return [error for about in chosen.values() for error in about["cross_validation"].values()]


def _errors(model, parts, name):
    """Errors on a part of the data, dict by its name; empty where it has nothing to compare with."""
    return {name: errors(model, parts[name])} if comparable(model, parts[name]) else {}


def _of_known_species(parts, config):
    """The parts; ValueError, before the training, for species of held-out frames that the training frames lack."""
    known = {symbol for frame in parts["train"] for symbol in frame.atoms.symbols}
    for name in ("validation", "test"):
        for frame in parts[name]:
            foreign = sorted(set(frame.atoms.symbols) - known)
            if foreign:
                raise ValueError(
                    f"{', '.join(config.data.files)}: frame '{frame.name}' of the {name} part has "
                    f"{foreign[0]}, no frame to train on has; add some with {foreign[0]} to the training "
                    "part or leave the frame out"
                )
    return parts


def new_model(frames: Frames, config: Config, *, orders: Sequence[Order] | None = None) -> Model:
    """Untrained Model without heads, with the descriptors of ``config`` for the species of ``frames``.

    Parameters
    ----------
    orders : sequence of Order, optional
        Correlation orders of ACE, in place of the settings of [power_spectrum].
    """
    species = sorted({symbol for frame in frames for symbol in frame.atoms.get_chemical_symbols()})

    def new_descriptor(options):
        if isinstance(options, PowerSpectrumConfig):
            theirs = getattr(starting_model(config).descriptor, "inner", None) if config.start else None
            inner = options.inner or theirs or inner_distance(frames)
            try:
                if orders is not None and options is config.power_spectrum:
                    return ACE(species, inner=inner, orders=orders)
                return from_power_spectrum(species, **options.model_dump() | {"inner": inner})
            except ValueError as error:
                raise ValueError(f"[power_spectrum]: {error}") from None
        if isinstance(options, LocalFrameConfig):
            try:
                return DeepPotLocalFrame(species, **options.model_dump())
            except ValueError as error:
                raise ValueError(f"local_frame.{error}") from None
        with seeded(config.seed):  # one does not depend on the other: electrons can be trained without the energy
            return DeepPotSE(species, **options.model_dump() | {"n_basis": options.n_basis or None})

    descriptor: Any  # made from the settings
    electronic: Any
    descriptor, electronic = (options and new_descriptor(options) for options in (config.of_first, config.electronic))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Model(descriptor, {}, electronic=electronic).to(device=device, dtype=torch.float64)


def _loss(name, options):
    """Loss of a quantity with the weights from its section."""
    kind = LOSSES[name]
    return kind(**{entry.name: getattr(options, entry.name) for entry in fields(kind) if hasattr(options, entry.name)})


def train_energy(
    model: Model,
    parts: dict[str, Frames],
    config: Config,
    progress: bool | Log,
    draft: Draft | None = None,
    *,
    fits: dict | None = None,
) -> list[Path]:
    """Add an energy head to ``model`` and train it; returns the checkpoints to remove when the model is saved.

    What is known after the fit of a closed form goes into ``fits``.
    """
    options = completed_energy(cast(EnergyConfig, config.energy), parts["train"])
    options = with_labels(options, "energy", _loss, parts["train"], config, shown(progress))
    head = _add_head(model, ScalarHead, config.seed, widths=options.widths)
    standardize(model, parts["train"])  # without the support, whose energies are far away
    loss = _loss("energy", options)
    if not options.widths:
        for layer in head.nets.last:  # the ridge favors these values
            torch.nn.init.zeros_(layer.weight)
        if config.start:
            take_over(model, "energy", config)
        fitted = fit_energy(model, parts, loss, config, Log.of(progress))
        if fits is not None:
            fits["energy"] = fitted
        return [checkpoint_of(config, ROWS)]
    if len(parts.get("support", ())):
        parts = parts | {"train": join([parts["train"], parts["support"]])}
    _fit(model, "energy", loss, parts, config, options, progress, draft)
    return []


def completed_energy(options: EnergyConfig, frames: Frames) -> EnergyConfig:
    """Settings of the energy with weights, batch size and number of steps that suit the structures to train on."""
    n_atoms = float(np.mean([len(frame.atoms) for frame in frames]))
    size = options.batch_size or max(1, min(round(ATOMS_IN_STEP / n_atoms), LARGEST_BATCH, len(frames) // PASS))
    steps = max(PASSES * len(frames) / size, ATOMS_IN_ALL / (size * n_atoms), FEWEST_STEPS)
    return options.completed(**energy_weights(frames), batch_size=size, steps=math.ceil(min(steps, MOST_STEPS)))


def _train_of_atoms(model, quantity, parts, config, log, draft, chosen):
    """Add a head of a quantity of atoms to ``model`` and train it; what a closed form finds is added to ``chosen``.

    Returns a function that has the validation structures fitted as well, or None.
    """
    name, frames, first = quantity.name, parts["train"], not model.heads
    options = with_born(config.section(name), quantity, frames)
    options = with_labels(options, name, _loss, frames, config, log.show)
    head = _add_head(model, HEADS[name], config.seed, **_head_options(model, name, frames, options, config))
    for layer in head.nets.last:  # start from the mean of the labels: better than from noise around it
        torch.nn.init.zeros_(layer.weight)
    root = in_closed_form(config, name) and bool(getattr(options, "square_root", False))
    later, loss = parts["validation"], _loss(name, options)
    if root:
        check_roots(join([frames, later]), ", ".join(config.data.files))
        frames, later, loss = roots_of(frames), roots_of(later), RootLoss()
    if first:
        standardize(model, frames)
    else:
        standardize_heads(model, frames, [name])
    if not in_closed_form(config, name):
        _fit(model, name, loss, parts, config, options, log, draft, _parameters(model, head))
        return None
    by_data = not {"atomic", "total", "born"} & set(config.section(name).given)
    fitted = fit_closed_form(model, frames, loss, later=later, weights_by_data=by_data, seed=config.seed, tell=log.tell)
    if root:  # nets that are linear in what was fitted are squared from now on
        head.square_root = True
    chosen[name] = fitted.about
    return fitted.take_in


def _head_options(model, name, frames, options, config):
    """Constructor arguments of the head of a quantity, from data and configuration, dict."""
    wanted, found = inspect.signature(HEADS[name]).parameters, {"widths": options.widths}
    if in_closed_form(config, name):
        n_nets = len(options.centers) if "centers" in wanted else len(model.species)
        n_features = model.descriptor_of(name).n_features
        found["widths"] = (n_drawn(frames, name, n_nets, n_features, options.drawn),)
    sources = ", ".join(config.data.files)
    if "square_root" in wanted and config.start:
        found["square_root"] = getattr(starting_model(config, name).heads[name], "square_root", False)
        if options.square_root is not None:
            check_same(name, {"square_root": options.square_root}, {"square_root": found["square_root"]})
    if "energies" in wanted:
        if frames.energies is None:
            raise ValueError(
                f"{sources}: the spectra of the data have no energy grid; convert the data with 'mlelec convert --grid'"
            )
        found["energies"] = frames.energies
    if "n_rows" in wanted:
        found["n_rows"] = model.descriptor_of(name).n_frame
    if "centers" in wanted:
        foreign = [symbol for symbol in options.centers if symbol not in model.species]
        if foreign:
            raise ValueError(
                f"{sources}: {name}.centers: got {foreign[0]}, the data have {', '.join(model.species)}; choose of these"
            )
        found["centers"] = [model.species.index(symbol) for symbol in options.centers]
    return found


def _parameters(model, head):
    """Parameters of a stage: of a head, and of its descriptor unless another head was trained on that descriptor."""
    descriptor = model.descriptor_of(head.quantity)
    shared = any(model.descriptor_of(name) is descriptor for name in model.heads if name != head.quantity)
    return [*(() if shared else descriptor.parameters()), *head.parameters()]


def _add_head(model, kind, seed, **options):
    """Add a new head of class ``kind`` to ``model``, with initial weights that depend on the seed alone."""
    like = next(array for array in (*model.parameters(), *model.buffers()) if array.is_floating_point())
    with seeded(seed):
        head = kind(len(model.species), model.descriptor_of(kind.quantity).n_features, **options)
    model.heads[head.quantity] = head.to(device=like.device, dtype=like.dtype)
    return head


def _fit(model, name, loss, parts, config, options, progress, draft, parameters=None):
    """Train one stage, with the settings ``options`` of its head."""
    checkpoint = checkpoint_of(config, name)
    if config.start:
        take_over(model, name, config)
    if config.precision == "single":
        if name == "energy" and float(model.heads[name].nets.bias.abs().max()) > LARGEST_SINGLE:
            Log.of(progress).tell("precision: energies are so large that they are trained in double precision")
        else:
            model.float()
    fit(
        model,
        parts["train"],
        loss,
        **duration_of(options, config),
        validation=parts["validation"],
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        parameters=parameters,
        seed=config.seed,
        checkpoint=checkpoint,
        curve=checkpoint.with_suffix(".csv"),
        progress=progress,
        patience=options.patience,
        keep=draft and draft.stage(name),
        identity=settings_of(config) | steps_before(model, name, config),
        may_lack=defaults_of(config),
    )
    model.double()


def take_over(model: Model, name: str, config: Config) -> None:
    """Copy parameters and normalization of a head, and of its descriptor if untrained, from the starting model."""
    start = starting_model(config, name)
    pairs = [(model.heads[name], start.heads[name])]
    if sum(model.descriptor_of(head) is model.descriptor_of(name) for head in model.heads) == 1:
        pairs.insert(0, (model.descriptor_of(name), start.descriptor_of(name)))
    for mine, theirs in pairs:
        given = {key: value for key, value in theirs.arguments().items() if key != "lone"}  # set after the training
        check_same(name, mine.arguments(), given)
        own = mine.state_dict()
        mine.load_state_dict({key: array for key, array in theirs.state_dict().items() if key in own})
