"""Energies in closed form: what the configuration leaves open is chosen by errors on held-out structures."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
from torch import Tensor

from ase_mlelec.data.frames import Frames, join
from ase_mlelec.descriptors.ace import Order
from ase_mlelec.model import Model
from ase_mlelec.train.absurd_energies import absurd_energies, without_absurd_energies
from ase_mlelec.train.basis import ENOUGH, FOLDS, WORK, basis_of_few, choose_basis
from ase_mlelec.train.choice import TOLERANCE
from ase_mlelec.train.config import Config, EnergyConfig
from ase_mlelec.train.deviations import Deviations
from ase_mlelec.train.energy_rows import n_rows
from ase_mlelec.train.last_layer import n_weights
from ase_mlelec.train.linear_energy import fit_by_choice, fit_linear, folds_in_memory
from ase_mlelec.train.log import Log, counted
from ase_mlelec.train.losses import EnergyLoss
from ase_mlelec.train.recipes.checkpoints import checkpoint_of
from ase_mlelec.train.recipes.distances import inner_distance
from ase_mlelec.train.recipes.starting import starting_model

RIDGE = 1e-7  # where the file gives weights, or where there are too few structures for a choice
BLOCK = 4  # neighbors among the training structures that are in one fold
FEWEST, FEWEST_IN_TURN = 12, 4  # structures, from which some can be held out, and all in turn
MOST = WORK / FOLDS  # atoms times weights of more folds than one
TRIALS, ROWS = "energy-trials", "energy-rows"  # names of checkpoints
WITHOUT_STRESS = (
    "stress has no weight: with each that was tried, energies and forces of structures that were left out were worse by "
    f"more than {100 * TOLERANCE:g} %. Strained structures teach it, and weights in [energy] overrule the choice"
)


@dataclass(frozen=True)
class Fitted:
    """What is known after a fit.

    Attributes
    ----------
    about : dict of JSON types
        What was chosen; empty where nothing was.
    factor : Tensor [P, K] or None
        Factor of the covariance of the weights, for error bars.
    change : Tensor [P] or None
        Change of the weights by which the validation structures are fitted too.
    left_out : Deviations or None
        Energies of structures that were left out, for the calibration of error bars.
    """

    about: dict[str, Any] = field(default_factory=dict)
    factor: Tensor | None = None
    change: Tensor | None = None
    left_out: Deviations | None = None


def orders_of(parts: dict[str, Frames], config: Config, log: Log) -> tuple[Order, ...] | None:
    """Correlation orders of ACE for an energy in closed form; None where the configuration or the start has them."""
    options, energy = config.power_spectrum, config.energy
    if options is None or energy is None or energy.widths or not options.chosen_by_data:
        return None
    if config.start:
        return getattr(starting_model(config).descriptor, "orders", None)
    train, held = chooses_by(parts["train"])
    loss = unit_loss(train, energy)
    if not loss.terms:
        return None
    species = sorted({symbol for frame in parts["train"] for symbol in frame.atoms.symbols})
    if not held:
        in_turn = len(train) >= FEWEST_IN_TURN and not weights_given(energy)
        return basis_of_few(len(species), n_rows(train, loss) if in_turn else math.inf).orders
    inner = options.inner or inner_distance(parts["train"])
    checkpoint = checkpoint_of(config, TRIALS)
    basis = choose_basis(train, held[0], loss, species=species, inner=inner, checkpoint=checkpoint, tell=log.tell)
    return basis.orders


def weights_given(options: EnergyConfig) -> bool:
    """Whether the configuration has weights of labels, which are then not chosen."""
    return any(any(getattr(options, name) or ()) for name in options.loss_terms)


def without_absurd(parts: dict[str, Frames], config: Config, log: Log) -> dict[str, Frames]:
    """Parts whose "train" and "validation" lack energies that contradict all other labels, for closed forms.

    Each of these energies is told. Both parts are fitted in the end.
    """
    if config.energy is None or config.energy.widths:
        return parts
    names = [name for name in ("train", "validation") if len(parts[name])]
    both = join([parts[name] for name in names])
    found = absurd_energies(both, inner=inner_distance(parts["train"]))
    for k, error in sorted(found.items()):
        log.tell(
            f"left out: the energy of frame '{both[k].name}' is {error:.4g} eV off what all other labels say; correct "
            "it or remove the frame"
        )
    if not found:
        return parts
    ends = np.cumsum([0, *(len(parts[name]) for name in names)])
    kept = without_absurd_energies(both, found)
    return parts | {name: kept.take(range(*ends[k : k + 2])) for k, name in enumerate(names)}


def fit_energy(model: Model, parts: Mapping[str, Frames], loss: EnergyLoss, config: Config, log: Log) -> Fitted:
    """Fit a new linear energy head to the parts "train" and "support".

    ``loss`` counts where the configuration gives weights. Otherwise they are chosen by errors on some of "train" alone:
    those of the support are so much larger that they would decide.
    """
    support, validation = parts.get("support"), parts["validation"]
    train = join([parts["train"], support]) if support else parts["train"]
    options = cast(EnergyConfig, config.energy)
    checkpoint = checkpoint_of(config, ROWS)  # not that of a net of former settings
    given = weights_given(options)
    seen, held = (train, []) if given else chooses_by(parts["train"], n_weights(model.heads["energy"]))
    if not held:
        ridge = RIDGE if options.ridge is None else options.ridge
        loss = loss if given else unit_loss(train, options)
        _begin(model, train, loss, log)
        fit_linear(model, train, loss, ridge, checkpoint=checkpoint, progress=log)
        return Fitted()
    unit = unit_loss(train, options)
    _begin(model, train, unit, log)
    seen, held = folds_in_memory(model, join([seen, support]) if support else seen, held, unit, progress=log)
    fit = fit_by_choice(
        model,
        seen,
        unit,
        held=held,
        validation=validation if _has_labels(validation) else None,
        in_order=parts["train"],
        ridge=options.ridge,
        checkpoint=checkpoint,
        progress=log,
    )
    choice = fit.choice
    for line in _in_words(choice, unit, f"{sum(map(len, held))} of {len(train)} structures"):
        log.tell(line)
    orders = [asdict(order) for order in getattr(model.descriptor_of("energy"), "orders", ())]
    about = {"ridge": choice.ridge, "weights": choice.weights, "errors": choice.errors, "orders": orders}
    return Fitted(about, fit.factor, fit.change, fit.left_out)


def _in_words(choice, loss, structures):
    """Lines that say what was chosen."""
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in choice.weights.items())
    yield f"chosen by {structures}: ridge {choice.ridge:.3g}, weights {weights}"
    if "virial" in loss.labels and "virial" not in choice.weights:
        yield WITHOUT_STRESS


def _begin(model, train, loss, log):
    """Block at the start of the log."""
    labels = counted((train.counts.get(name, 0), name) for name in loss.labels)
    parameters = f"{n_weights(model.heads['energy'])}, double precision, {next(model.parameters()).device}"
    title = f"energy of {', '.join(model.species)} in closed form"
    log.block(title, log.about | {"labels": labels, "parameters": parameters})


def chooses_by(train: Frames, size: int | None = None) -> tuple[Frames, list[Frames]]:
    """Structures to fit, and folds of structures by whose errors settings are chosen before these are fitted too.

    Folds are of blocks of neighbors, and of species that the others have as well. There is one without a ``size``, the
    number of weights that are fitted, and none among few structures; with it there are more where one has few structures,
    and few structures are all in folds.
    """
    if len(train) < FEWEST:
        return _of_few(train) if size is not None and len(train) >= FEWEST_IN_TURN else (train, [])
    blocks = np.array_split(np.arange(len(train)), max(2, len(train) // BLOCK))
    order = np.random.default_rng(0).permutation(len(blocks))
    folds: list[list[int]] = []
    size_of_fold = max(1, round(len(blocks) / FOLDS))
    for k in range(min(FOLDS, len(blocks) // size_of_fold)):
        chosen = order[k * size_of_fold : (k + 1) * size_of_fold]
        fold = sorted(int(place) for block in chosen for place in blocks[block])
        n_atoms = sum(len(train[place].atoms) for own in (*folds, fold) for place in own)
        if folds and (size is None or sum(map(len, folds)) >= ENOUGH or n_atoms * size > MOST):
            break
        if _species(train, fold) <= _species(train, {*range(len(train))} - {*fold}):
            folds.append(fold)
    held = {k for fold in folds for k in fold}
    return train.take([k for k in range(len(train)) if k not in held]), [train.take(fold) for fold in folds]


def _of_few(train):
    """Folds of one to three structures, whose species the others have as well."""
    every = {*range(len(train))}
    folds = [each.tolist() for each in np.array_split(np.arange(len(train)), min(FOLDS, len(train)))]
    held = [fold for fold in folds if _species(train, fold) <= _species(train, every - {*fold})]
    seen = every - {k for fold in held for k in fold}
    return train.take(sorted(seen)), [train.take(fold) for fold in held]


def _species(frames, chosen):
    return {symbol for k in chosen for symbol in frames[k].atoms.symbols}


def _has_labels(frames):
    return bool({"energy", "forces", "virial"} & set(frames.counts))


def unit_loss(frames: Frames, options: EnergyConfig) -> EnergyLoss:
    """Loss with a weight of 1 for each label of ``frames`` that the configuration does not leave out."""
    ends = {name: getattr(options, name) for name in options.loss_terms}
    out = {name for name, pair in ends.items() if pair is not None and not any(pair)}
    ends = {
        name: (1.0, 1.0) if name in frames.counts and name not in out else (0.0, 0.0) for name in options.loss_terms
    }
    return EnergyLoss(**ends, strong_force=options.strong_force)
