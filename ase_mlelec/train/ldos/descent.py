"""Gradient descent on the LDOS of grid points."""

import math
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from tqdm import tqdm

from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.fit import Run
from ase_mlelec.train.ldos.refit import refit_last_layer, require_finite


@dataclass(frozen=True)
class LDOSLoss:
    """Mean squares over points and energies of the LDOS (in units of the head's scale), over points of the density (in
    units of the mean density), over energies of the DOS per atom, and of the band energy per atom (eV).

    Source: Ellis et al. 2021, section II C; the integrated terms as in its outlook.
    """

    ldos: float = 1.0
    density: float = 0.0
    dos: float = 0.0
    band_energy: float = 0.0

    def __call__(self, head, item):
        error = head.spectrum(item.features[item.points]) - item.ldos
        errors = {
            "ldos": ((error / head.scale) ** 2).mean(),
            "density_relative": ((error @ item.number / item.n_electrons * item.volume) ** 2).mean(),
        }
        loss = self.ldos * errors["ldos"] + self.density * errors["density_relative"]
        if self.dos or self.band_energy or not torch.is_grad_enabled():
            # the LDOS is linear in the last hidden layer, and so is its mean over the grid
            mean = head.scale * head.last(head.activations(item.features).mean(dim=0))
            per_atom = (item.volume * mean - item.dos) / item.n_atoms
            errors["dos_per_atom_eV"] = (per_atom**2).mean()
            errors["band_energy_eV_per_atom"] = (per_atom @ item.energy) ** 2
            loss = loss + self.dos * errors["dos_per_atom_eV"] + self.band_energy * errors["band_energy_eV_per_atom"]
        return loss, errors


def fit_ldos(
    model,
    data,
    loss=LDOSLoss(),
    *,
    validation=None,
    epochs=60,
    batch_size=8,
    batch_points=0,
    learning_rate=(2e-3, 1e-5),
    schedule="plateau",
    patience=4,
    dos_weight=30.0,
    hold=0.0,
    seed=0,
    checkpoint=None,
    curve=None,
    progress=True,
):
    """Fit the LDOS head of ``model``: Adam, a falling learning rate, closed-form refit.

    model : Model with a head "ldos", trained in place
    data, validation : GridData
    batch_size : snapshots per step
    batch_points : points of each of them, at random, until all with an LDOS had their turn; 0: all of them in one step
    learning_rate : (first, last)
    schedule : "plateau": the learning rate is halved on plateaus, and training ends when it falls below the last one,
        or after ``epochs``; "cosine": it falls to the last one as half a cosine, over all ``epochs``
    patience : of "plateau", epochs without a new minimum of the loss on ``validation`` (default: on the training data)
        before the learning rate is halved
    dos_weight, hold : of the refit, see refit_last_layer
    checkpoint, curve : paths, as in ase_mlelec.train.fit

    Returns dict of the root mean square errors on ``validation`` or the training data.

    Raises ValueError when a checkpoint belongs to another run, and Diverged for NaN and infinity.

    Source: Ellis et al. 2021, section II C.
    """
    head, held = model.heads["ldos"], validation if validation is not None and len(validation) else data
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate[0])
    run = Run(
        model,
        optimizer,
        checkpoint,
        {
            "seed": seed,
            "batch_size": batch_size,
            "batch_points": batch_points,
            "schedule": schedule if schedule == "plateau" else f"{schedule} over {epochs} epochs",
            "learning_rate": f"{learning_rate[0]:g} to {learning_rate[1]:g}",
            "patience": patience,
            "loss": f"{type(loss).__name__} {vars(loss)}",
            "snapshots": data.snapshots.fingerprint(),
        },
    )
    with tqdm(total=epochs, initial=run.step, disable=None if progress else True, unit=" epochs") as bar:
        while run.step < epochs:
            rate = (
                cosine(run.step / epochs, learning_rate)
                if schedule == "cosine"
                else plateau([row["loss"] for row in run.rows], learning_rate[0], patience)
            )
            if rate < learning_rate[1]:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate
            try:
                _epoch(head, data, loss, optimizer, np.random.default_rng([seed, run.step]), batch_size, batch_points)
                value, errors = mean_errors(head, held, loss)
                require_finite(held, range(len(held)), "error", *map(torch.tensor, errors.values()))
            except Diverged as problem:
                raise Diverged(
                    f"training stopped in epoch {run.step + 1}, learning rate {rate:.3g}: {problem}"
                ) from None
            run.step += 1
            run.rows.append({"step": run.step, "learning_rate": rate, "loss": value, **errors})
            run.save(curve)
            bar.update()
            bar.set_postfix({name: f"{e:.3g}" for name, e in errors.items()})
    refit_last_layer(head, data, dos_weight, hold)
    return mean_errors(head, held, loss)[1]


def _epoch(head, data, loss, optimizer, rng, batch_size, batch_points):
    order = rng.permutation(len(data))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size].tolist()
        chosen = [_parts(data[k], batch_points, rng) for k in places]
        for parts in zip_longest(*chosen):
            present = [(k, part) for k, part in zip(places, parts) if part is not None]
            n_points = sum(len(part.points) for _, part in present)
            optimizer.zero_grad()
            for k, part in present:
                value, _ = loss(head, part)
                require_finite(data, [k], "loss", value)
                (value * len(part.points) / n_points).backward()  # every point counts the same
            require_finite(data, places, "gradient", *(p.grad for p in head.parameters() if p.grad is not None))
            optimizer.step()
            require_finite(data, places, "parameters", *head.parameters())


def _parts(item, n, rng):
    """The snapshot, or shares of it with the LDOS of n of its points each."""
    if not n:
        return [item]
    order = torch.from_numpy(rng.permutation(len(item.points)))
    return [replace(item, points=item.points[share], ldos=item.ldos[share]) for share in order.split(n)]


def cosine(progress, learning_rate):
    """Learning rate after the share ``progress`` of a training: half a cosine between (first, last)."""
    first, last = learning_rate
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def plateau(losses, first, patience):
    """Learning rate after these losses: halved whenever ``patience`` epochs in a row brought no new minimum."""
    rate, best, waited = first, np.inf, 0
    for value in losses:
        if value < best:
            best, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            rate, waited = rate / 2, 0
    return rate


@torch.no_grad()
def mean_errors(head, data, loss):
    """(mean loss, dict of root mean square errors) over all snapshots."""
    total, squares = 0.0, {}
    for k in range(len(data)):
        value, errors = loss(head, data[k])
        total += float(value)
        for name, square in errors.items():
            squares[name] = squares.get(name, 0.0) + float(square)
    return total / len(data), {name: (square / len(data)) ** 0.5 for name, square in squares.items()}
