"""Error bars of a trained model: posterior of the last layer of its heads, calibrated on validation data.

The covariance of the weights of a last layer is the inverse of the sum of the products of its training rows (see
``last_layer``) plus a ridge. The ridge is the one under which the errors of the validation rows are most likely. One scale
for each quantity makes 68 % of its errors on the validation data fall within one standard deviation. Errors that no change
of the weights explains, such as those of the features, have a floor in quadrature, where it makes the validation errors
more likely.

References: Bigi et al. 2024, Mach. Learn.: Sci. Technol. 5, 045018; Imbalzano et al. 2021, J. Chem. Phys. 154, 074102.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.bars_report import rounded, told
from ase_mlelec.train.derived_bars import calibrate_derived, take_over_derived
from ase_mlelec.train.deviations import TOLERANCE, Deviations, deviations, errors_and_deviations, floor_and_scale
from ase_mlelec.train.last_layer import BATCH, batch_by_batch, n_weights, products_of_atoms, rows_of
from ase_mlelec.train.log import Log
from ase_mlelec.uncertainty import (
    Posterior,
    contributions,
    coverage,
    gauge_of,
    has_posterior,
    inverse_factor,
    scale_of,
    undetermined_shifts,
)
from ase_mlelec.uncertainty.scales import log_likelihood

__all__ = ["add_error_bars", "arranged", "errors_and_deviations", "rounded", "told"]

RIDGES = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0)
MOST_WEIGHTS = 15_000  # more weights have a normal matrix of gigabytes
MANY = 2000  # weights; with more, every ridge would take minutes, and the ridge of the fit is kept
OF_MANY = 1e-9  # ridge of heads with more weights
FEW = 1e-2  # ridge without validation data
MOST = 0.99  # largest leverage of a row with which its error is corrected
RANK = 24  # most shapes of the errors of a spectrum
NOTHING = 1e-3  # of the typical bar of a square: where there are no states, its relative errors mean nothing


def add_error_bars(
    model: Model,
    train: Frames,
    validation: Frames,
    *,
    ridges: Sequence[float] = RIDGES,
    names: Sequence[str] | None = None,
    like: Model | None = None,
    factors: Mapping[str, Tensor] | None = None,
    left_out: Mapping[str, Deviations] | None = None,
    held_errors: Mapping[str, Mapping[str, float]] | None = None,
    support: Frames | None = None,
    progress: bool | Log = False,
) -> dict[str, dict[str, float]]:
    """Give the heads of ``model`` calibrated posteriors, and its metadata a report in "error_bars".

    An energy whose training data have stress alone gets none. A head without labels in ``validation`` is calibrated on its
    training errors, enlarged as if every structure had been left out of the fit of the last layer. That is right for
    heads without hidden layers, and too small for nets.

    Parameters
    ----------
    model : Model
        Changed in place: its ``posteriors`` are replaced, its weights are not changed.
    train : Frames
        The data that the model was trained on.
    validation : Frames
        Labeled data that the model was not trained on.
    ridges : sequence of float
        Ridges to choose from, in units of the mean diagonal element of the normal matrix.
    names : sequence of str
        Heads; default all of atoms and their sums.
    like : Model
        Model with error bars, trained in the same way but without the validation data, for a model that was trained on
        all data: its ridges are taken, and the scales make the mean squares of the bars of both models on ``validation``
        equal.
    factors : dict of Tensor [P, K]
        Factors of the covariance of heads that were fitted in closed form, see ``arranged``. Without one, a head with
        more than MOST_WEIGHTS weights gets no error bars.
    left_out : dict of Deviations
        By head with a factor: totals of structures that were left out of its fit, see ``left_out``. Validation
        structures can be too few to calibrate totals on, of which each has one.
    held_errors : dict of dict of float
        By head with a factor: mean absolute errors of labels, per atom for totals, of structures that were held out for the
        choice of its ridge. Without validation data its training errors are enlarged to these.
    support : Frames
        Structures beside ``train`` that heads with a factor were fitted to.
    progress : bool or Log
        Whether to tell where a long calculation is, or the Log that tells it.

    Returns
    -------
    dict by label of dict
        Scale, shares of validation errors within one and two standard deviations, rank correlation, number of errors,
        and the data that it was calibrated on.

    Raises
    ------
    ValueError
        For labels of a wrong shape, or that are not finite.
    """
    report: dict[str, dict] = {}
    log, former = Log.of(progress), dict(model.posteriors).get("energy")
    for name in [name for name in model.heads if names is None or name in names]:
        factor = (factors or {}).get(name)
        if reason := _why_no_bars(model, name, train, factor, like):
            log.tell(f"no error bars of the {name}: {reason}")
        elif like is not None:
            report |= _take_over(model, name, train, validation, like, log)
        else:
            more = (left_out or {}).get(name)
            held = (held_errors or {}).get(name, {})
            report |= _add_posterior(model, name, train, validation, ridges, factor, more, held, support, log)
    kept = model.metadata.get("error_bars", {})
    if model.hot is not None and dict(model.posteriors).get("energy") is not former:
        model.hot.forget_bars()
        kept = {label: found for label, found in kept.items() if " at " not in label}  # see add_hot_error_bars
    model.metadata["error_bars"] = kept | {label: rounded(found) for label, found in report.items()}
    return report


def _why_no_bars(model, name, train, factor, like):
    """Why a head cannot have error bars; "" where it can."""
    if name not in QUANTITIES or not has_posterior(model.heads[name]):
        return "this kind of head has none"
    labels = [label for label in QUANTITIES[name].labels if factor is not None or label != "virial"]
    if not {*labels} & {*train.counts}:
        known = "stress alone" if "virial" in QUANTITIES[name].labels and "virial" in train.counts else "none"
        return f"they need {' or '.join(labels)} in the training data, which have {known}; add some"
    n = 0 if factor is not None or like is not None else n_weights(model.heads[name])
    return (
        f"its last layer has {n} weights, need at most {MOST_WEIGHTS}; take narrower layers or fewer features"
        if n > MOST_WEIGHTS
        else ""
    )


def _add_posterior(model, name, train, validation, ridges, factor, left_out, held, support, log):
    """Posterior of the head ``name``, calibrated on ``validation`` if it has labels; report by label."""
    unseen = validation if {*QUANTITIES[name].labels} & set(validation.counts) else None
    posterior, larger = _posterior(model, name, train, unseen or held, ridges, factor, support, log=log)
    model.posteriors[name] = posterior
    more, held, report = (left_out if unseen or held else None), ({} if unseen else held), {}
    known = calibrated(model, name, unseen or train, log, larger=larger, more=more, held=held)
    if name == "dos":
        known |= calibrate_derived(model, unseen or train, log, larger=larger, train=train)
    for label, found in known.items():
        where = "validation data" if unseen else "training data"
        if more is not None and label == QUANTITIES[name].total:
            where = (f"{where} and " if unseen else "") + "blocks of training data that were left out"
        elif label in held:
            where += ", with errors as large as those of structures that were held out"
        report[label] = found | {"calibrated_on": where}
    return report


def _take_over(model, name, train, validation, like, log):
    """Posterior of a head with the ridge of the model ``like`` and bars as large as its bars; report of every label."""
    if name not in like.posteriors:
        raise ValueError(f"the model with the scales has no error bars of the {name}; add them with 'mlelec calibrate'")
    known, quantity = like.metadata.get("error_bars", {}), QUANTITIES[name]
    mine, _ = _posterior(model, name, train, train, (like.posteriors[name].ridge,), log=log)
    model.posteriors[name], theirs = mine, like.posteriors[name]
    wanted, found = (deviations(each, name, validation, progress=log) for each in (like, model))
    mine.scales, mine.floors = {}, {}
    for label, own in found.items():
        sizes = [np.sqrt(np.mean(each.posterior**2) / np.mean(each.floor**2)) for each in (own, wanted[label])]
        floors = theirs.floor(label) * sizes[0] / sizes[1], theirs.floor(label)
        totals = [np.mean(each.total(floor) ** 2) for each, floor in zip((own, wanted[label]), floors)]
        mine.scales[label] = float(f"{theirs.scale(label) * np.sqrt(totals[1] / totals[0]):.6g}")
        if floors[0]:
            mine.floors[label] = float(f"{floors[0]:.6g}")
    label = _of_members(quantity, found)
    spreads = [np.sqrt(np.mean(each[label].posterior ** 2)) for each in (found, wanted)]
    mine.scales["members"] = float(f"{theirs.scale('members') * spreads[1] / spreads[0]:.6g}")
    if name == "dos":
        take_over_derived(model, validation, like, log)
    return {
        label: known[label] | {"scale": scale, "calibrated_on": "validation data of a model trained without them"}
        for label, scale in mine.scales.items()
        if label in known
    }


def arranged(samples: Tensor, nets: Any) -> Tensor:
    """Factor of the covariance from samples of a closed form.

    Parameters
    ----------
    samples : Tensor [P, K]
        Changes of the parameters of ``nets.last``: weights of all species, then constants of all species.
    nets : FittingNets
        Without hidden layers.

    Returns
    -------
    Tensor [P, K]
        In the units of the result, with the constant of each species behind its weights.
    """
    weights, constants = samples[: -len(nets.last)], samples[-len(nets.last) :]
    weights = weights.reshape(len(nets.last), -1, samples.shape[1])
    return nets.scale[0] * torch.cat([weights, constants[:, None]], dim=1).flatten(0, 1)


def _posterior(model, name, train, validation, ridges, factor=None, support=None, *, log):
    """Posterior of a head, without scales; factors by which errors grow where a structure is left out, dict by label."""
    head = model.heads[name]
    if factor is not None:
        one, n_species = torch.ones(1, 1).to(factor), len(head.nets.last)
        found = Posterior.from_factors(factor, one, n_species=n_species, rounded=False)
        _set_gauge(found, model, name, [*train, *(support or ())])
        _set_edge(found, model, name, train, log)
        return found, {} if validation else _larger_errors(model, name, train, factor, log)
    normal, residuals = _normal(model, name, train, log)
    # the prior of energies: all atomic energies may vary alike, those of which the data know only sums as well
    prior = products_of_atoms(model, name, train) if QUANTITIES[name].gradients and len(normal) <= MANY else None
    held = list(rows_of(model, name, validation)) if validation and 1 < len(ridges) and len(normal) <= MANY else []
    if len(normal) > MANY:
        log.tell(f"error bars: covariance of {len(normal)} weights")
    ridge, factor = _best_factor(normal, prior, held, ridges)
    larger = {} if validation else _larger_errors(model, name, train, factor, log)
    outputs = _outputs(head, residuals)
    found = Posterior.from_factors(factor, outputs.to(factor), n_species=len(head.nets.last), ridge=ridge)
    _set_gauge(found, model, name, train, prior)
    _set_edge(found, model, name, train, log)
    return found, larger


def _best_factor(normal, prior, held, ridges):
    """The largest ridge under which the validation data are about as likely as can be, and the factor of covariance.

    A larger ridge determines the shares of the atoms better.
    """
    if not held or len(ridges) == 1:
        ridge = ridges[0] if len(ridges) == 1 else OF_MANY if len(normal) > MANY else FEW
        return ridge, inverse_factor(normal, ridge, prior=prior)
    found = []
    for ridge in sorted(ridges):
        try:
            factor = inverse_factor(normal, ridge, prior=prior)
        except ValueError:  # rounding made the matrix indefinite; the largest ridge prevents that
            if ridge == max(ridges):
                raise
            continue
        found.append((_likelihood(held, factor), ridge, factor))
    best = max(likelihood for likelihood, *_ in found)
    return next((ridge, factor) for likelihood, ridge, factor in found[::-1] if likelihood >= best - TOLERANCE)


def _normal(model, name, frames, log):
    """Sum [P, P] of the products of the training rows, and the errors of the rows of spectra and tensors, list."""
    normal, residuals = None, []
    for found in rows_of(model, name, frames, progress=log):
        rows = (found.weights.sqrt()[:, None] * found.rows).double()
        normal = rows.new_zeros(rows.shape[1], rows.shape[1]) if normal is None else normal
        normal.addmm_(rows.T, rows)
        if not QUANTITIES[name].gradients:
            residuals.append(found.errors.double())
    if normal is None:
        raise ValueError(f"{name}: no labels to make error bars from; give training data with labels")
    return normal, residuals


def _larger_errors(model, name, train, factor, log):
    """Ratio of the errors of rows, each left out of the linear fit, e/(1 - h), to those of the fit, dict by label."""
    squares: dict[str, list] = {}
    for found in rows_of(model, name, train, progress=log):
        leverage = found.weights * (found.rows.double() @ factor).square().sum(dim=1)
        errors = found.errors.double().reshape(len(leverage), -1).square().sum(dim=1)
        left_out = errors / (1 - leverage.clamp(max=MOST)) ** 2
        squares.setdefault(found.label, []).append((float(left_out.sum()), float(errors.sum())))
    totals = {label: np.sum(sums, axis=0) for label, sums in squares.items()}
    return {label: float(np.sqrt(out / own)) if own > 0 else 1.0 for label, (out, own) in totals.items()}


def _likelihood(held, factor):
    """Sum over labels of the mean log likelihood of errors whose scale is calibrated."""
    labels, total = dict.fromkeys(found.label for found in held), 0.0
    for label in labels:
        errors, deviations = [], []
        for found in held:
            if found.label == label:
                own = (found.rows.double() @ factor).norm(dim=1)
                size = found.errors.double().reshape(len(own), -1).square().mean(dim=1).sqrt()
                errors.append(size.cpu().numpy())
                deviations.append(own.cpu().numpy())
        errors, deviations = np.concatenate(errors), np.concatenate(deviations)
        total += log_likelihood(errors, scale_of(errors, deviations) * deviations)
    return total


def _outputs(head, residuals):
    """Factor [O, Q] of the covariance of the outputs."""
    if head.quantity == "energy":
        return torch.ones(1, 1)
    if not head.common_responses:
        return torch.diag(head.nets.scale)
    errors = torch.cat(residuals)
    return shapes_of_errors(errors.T @ errors / len(errors))


def shapes_of_errors(covariance: Tensor) -> Tensor:
    """Factor [O, Q] of the ``covariance`` [O, O] of errors: its eigenvectors times their sizes, the largest at most RANK.

    The largest entry of each is positive: rounding would decide on its sign otherwise, and members are drawn with it.
    """
    values, vectors = torch.linalg.eigh(covariance)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    return (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :RANK]


def _set_gauge(posterior, model, name, frames, prior=None):
    """Set what no energy of the training data determines; ``prior`` is what the ridge multiplies."""
    total, species = QUANTITIES[name].total, model.species
    if not QUANTITIES[name].gradients:
        return
    every = [frame.atoms.symbols for frame in frames if total in frame.labels]
    counts = np.array([[own.count(symbol) for symbol in species] for own in every]).reshape(-1, len(species))
    posterior.gauge.copy_(gauge_of(posterior.inputs.flatten(0, 1), undetermined_shifts(counts), prior=prior))


@torch.no_grad()
def _set_edge(posterior, model, name, frames, log):
    """Set mean and largest leverage of the atoms in the training data, by species."""
    columns = []
    batches = Batches.for_model(model, frames, ())
    for batch in batch_by_batch(batches, BATCH, log, f"error bars: range of the {name} over"):
        of = contributions(model.heads[name], posterior, model.descriptor_of(name)(batch.system, batch.edges()))
        columns.append((of.z, of.nets))
    z, nets = map(torch.cat, zip(*columns))
    for k in range(len(posterior.edge)):
        own = z[nets == k]
        if len(own):
            posterior.center[k] = own.mean(dim=0)
            edge = posterior.leverages(own, nets[nets == k]).max()
            posterior.edge[k] = edge if edge > 0 else 1.0


def calibrated(
    model: Model,
    name: str,
    validation: Frames,
    log: Log,
    *,
    larger: Mapping[str, float] | None = None,
    more: Deviations | None = None,
    held: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Set scales and floors of the posterior of a head by the errors of ``validation``; report of every label.

    Parameters
    ----------
    larger : dict of float
        Factors of the errors by label; default one.
    more : Deviations
        Totals of structures beside the validation.
    held : dict of float
        Mean absolute errors, per atom for totals, to which those of ``validation`` are enlarged; ``more`` is then taken in
        place of its totals.
    """
    posterior, report, larger, held = model.posteriors[name], {}, dict(larger or {}), held or {}
    posterior.scales, posterior.floors = {}, {}
    found = deviations(model, name, validation, progress=log)
    if getattr(model.heads[name], "square_root", False):
        found = {label: each.of_some_size(NOTHING) for label, each in found.items()}
    total = QUANTITIES[name].total
    larger = larger | {label: found[label].growth_to(error) for label, error in held.items() if label in found}
    if more is not None and held:
        found[total], larger = more, larger | {total: 1.0}
    elif more is not None and total in found:
        found[total] = Deviations(*map(np.append, found[total], more))
    for label, each in found.items():
        errors = larger.get(label, 1.0) * each.errors
        floor, scale = floor_and_scale(errors, each)
        posterior.scales[label] = float(f"{scale:.6g}")
        if floor:
            posterior.floors[label] = float(f"{floor:.6g}")
        shares = coverage(errors, scale * each.total(floor))
        report[label] = {"scale": scale, **shares._asdict(), "errors": int(errors.size)}
    label = _of_members(QUANTITIES[name], found)
    alone = scale_of(larger.get(label, 1.0) * found[label].errors, found[label].posterior)
    posterior.scales["members"] = float(f"{alone:.6g}")
    return report


def _of_members(quantity, known):
    """Label by which the spread of members is scaled; a derivative where there is nothing else, such as forces."""
    return next((label for label in (quantity.total, quantity.atomic) if label in known), next(iter(known)))
