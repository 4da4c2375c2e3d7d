"""Gradient descent on elements of a Hamiltonian."""

import numpy as np
import torch
from tqdm import tqdm

from ase_mlelec.train.finite import Diverged, NotFinite, take_step
from ase_mlelec.train.fit import Run
from ase_mlelec.train.hamiltonian.eigenvalue_response import level_errors
from ase_mlelec.train.hamiltonian.items import CATEGORIES, SHARP, join, without_third_atoms

LARGEST_GRADIENT = 10.0


# Loss and errors


def category_errors(head, items):
    """dict category -> Tensor of differences predicted - true of all elements of the items, and of "levels", eV."""
    geometry, onsite, hopping = join(head, items)
    found = {name: [] for name in CATEGORIES}
    blocks, groups = head(geometry), geometry.groups()
    differences = {k: blocks.onsite[k] - truth for k, truth in onsite.items()}
    differences |= {key: blocks.hopping[key] - truth for key, truth in hopping.items()}
    for k in onsite:
        found["onsite"].append(differences[k].flatten())
    for key in hopping:
        near = geometry.r[groups[key]] < SHARP
        for name, mask in (("near", near), ("long", ~near)):
            found[f"{'inter' if key[0] else 'intra'}_{name}"].append(differences[key][mask].flatten())
    errors = {name: torch.cat(parts) for name, parts in found.items() if parts and sum(map(len, parts))}
    levels = level_errors(items, differences)
    return errors if levels is None else errors | {"levels": levels}


@torch.no_grad()
def category_scales(head, items, batch_size=8):
    """dict category -> root mean square difference, eV; the loss is measured in that before the fit, for a new head the
    one of the two-centre parts alone."""
    totals = {}
    for start in range(0, len(items), batch_size):
        for name, error in category_errors(head, items[start : start + batch_size]).items():
            square, count = totals.get(name, (0.0, 0))
            totals[name] = square + float(error.square().sum()), count + len(error)
    return {name: max((square / count) ** 0.5, 1e-5) for name, (square, count) in totals.items()}


def fit_hamiltonian(
    model,
    items,
    *,
    validation=(),
    steps=2000,
    batch_size=4,
    learning_rate=(3e-3, 3e-6),
    weights=None,
    seed=0,
    checkpoint=None,
    curve=None,
    fingerprint="",
    interval=100,
    progress=True,
):
    """Fit the Hamiltonian head of ``model`` with Adam and a learning rate that falls exponentially.

    The loss is the sum over categories of weight x mean square error / (that before the fit).  Call
    standardise_hamiltonian first, or start from a fitted head; at the end the interface dipole is fitted to what is
    left.

    items, validation : lists of Item (see prepare)
    weights : dict of float by category, "levels" among them; default 1
    checkpoint, curve : paths, as in ase_mlelec.train.fit

    Returns dict of the root mean square errors, eV, on ``validation`` or the training data.

    Raises ValueError when a checkpoint belongs to another run, and Diverged for NaN and infinity.
    """
    head, weights = model.heads["hamiltonian"], dict.fromkeys((*CATEGORIES, "levels"), 1.0) | (weights or {})
    items, validation = (without_third_atoms(head, part) for part in (items, validation))
    scales = category_scales(head, items)
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    first, last = learning_rate
    run = Run(
        model,
        torch.optim.Adam(parameters, lr=first),
        checkpoint,
        {
            "steps": steps,
            "seed": seed,
            "batch_size": batch_size,
            "learning_rate": f"{first:g} to {last:g}",
            "weights": str(weights),
            "frames": fingerprint,
        },
    )
    held = validation or items
    batches = _order(len(items), batch_size, seed, run.step)
    with tqdm(total=steps, initial=run.step, disable=None if progress else True, unit=" steps", mininterval=2) as bar:
        while run.step < steps:
            rate = first * (last / first) ** (run.step / steps)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            chosen = next(batches)
            errors = category_errors(head, [items[k] for k in chosen])
            loss = sum(weights[name] * (error / scales[name]).square().mean() for name, error in errors.items())
            try:
                take_step(loss, run.optimizer, parameters, LARGEST_GRADIENT)
            except NotFinite as problem:
                raise _explained(problem, head, items, chosen, run.step, rate) from None
            run.step += 1
            bar.update()
            if run.step % interval == 0 or run.step == steps:
                found = category_scales(head, held)
                if not np.isfinite(list(found.values())).all():
                    raise _explained(NotFinite("error"), head, held, range(len(held)), run.step - 1, rate)
                bar.set_postfix({name: f"{1000 * e:.3g} meV" for name, e in found.items()})
                run.rows.append({"step": run.step, "learning_rate": rate, **found})
                run.save(curve)
    fit_dipole(head, items)
    return category_scales(head, held)


@torch.no_grad()
def _explained(problem, head, items, chosen, step, rate):
    """Diverged, with the frames and the categories of elements that a step failed on."""
    found = {}
    for k in chosen:
        errors = category_errors(head, [items[k]])
        found[k] = [name for name, error in errors.items() if not bool(torch.isfinite(error).all())]
    failing = {k: names for k, names in found.items() if names} or found
    named = "; ".join(
        f"{int(k)} ({items[k].name or 'unnamed'}){': ' * bool(names)}{', '.join(names)}"
        for k, names in list(failing.items())[:8]
    )
    return Diverged(
        f"training stopped at step {step + 1}: the {problem.what} is NaN or infinite, with the frames "
        f"{named}; the learning rate, {rate:.3g}, is likely too large: lower it, or check these "
        "Hamiltonians; the last checkpoint is as it was"
    )


def _order(n, batch_size, seed, done):
    """Endless shuffled batches of indices, the same whether or not the run was interrupted."""
    per_epoch = max(n // batch_size, 1)
    while True:
        epoch, k = divmod(done, per_epoch)
        shuffled = np.random.default_rng([seed, epoch]).permutation(n)
        yield shuffled[k * batch_size : (k + 1) * batch_size]
        done += 1


@torch.no_grad()
def fit_dipole(head, items):
    """Coefficients of the interface dipole from the mean on-site differences of layers that differ; least squares.

    They stay as they are where no layers differ.
    """
    rows, steps = [], []
    for item in items:
        features = head.interface_features(item.layers)
        if not bool((features.abs() > 1e-6).any()):
            continue
        blocks = head(item.geometry.pairs(slice(0, 0)))
        rest = torch.zeros(item.geometry.n_layers, dtype=torch.float64)
        count = torch.zeros_like(rest)
        for k, truth in item.onsite.items():
            atoms = blocks.atoms(k)
            difference = (truth - blocks.onsite[k]).diagonal(dim1=1, dim2=2).mean(dim=1)
            rest.index_add_(0, item.geometry.layer[atoms], difference.double())
            count.index_add_(0, item.geometry.layer[atoms], torch.ones_like(difference).double())
        level = rest / count
        rows.append(features)
        steps.append(level[1:] - level[:-1])
    if rows:
        solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(steps)[:, None], driver="gelsd", rcond=1e-6).solution
        head.dipole.copy_(solution[:, 0])
