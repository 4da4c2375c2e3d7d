"""One training loop that can be read, interrupted and resumed."""
import csv
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ase_mlelec.train.frames import Batches


def fit(model, frames, loss, *, steps, validation=None, batch_size=8, learning_rate=(2e-3, 1e-6), parameters=None,
        seed=0, checkpoint=None, curve=None, interval=200, progress=True):
    """Minimise ``loss`` over ``frames`` with Adam and a learning rate that falls exponentially, r = r0 d^(t/steps).

    model : Model, trained in place, in its own dtype
    frames, validation : Frames
    loss : callable(model, batch, ratio) -> (loss, dict of mean squared errors), with ``labels``
    learning_rate : (first, last)
    parameters : the parameters to train; default all that require gradients
    checkpoint : path; written every ``interval`` steps and read at the start when present
    curve : path of a CSV file with root mean square errors every ``interval`` steps

    Returns dict of the last root mean square errors, those of validation with the prefix "validation_".

    Raises ValueError when labels are missing or mis-shaped, or a checkpoint belongs to another run.

    Source: learning rate, Rottenberg 2023, Eq. (2.22).
    """
    train = Batches(frames, model.cutoff, loss.labels, model.dtype)
    held = Batches(validation, model.cutoff, loss.labels, model.dtype) if validation else None
    parameters = [p for p in (parameters or model.parameters()) if p.requires_grad]
    run = _Run(model, torch.optim.Adam(parameters, lr=learning_rate[0]), checkpoint,
               {"steps": steps, "seed": seed, "frames": len(frames)})
    first, last = learning_rate
    order = _order(len(train), batch_size, seed, run.step)
    bar = tqdm(total=steps, initial=run.step, disable=not progress, desc="train", unit="step", mininterval=2)
    errors = {}
    while run.step < steps:
        ratio = (last / first) ** (run.step / steps)
        for group in run.optimizer.param_groups:
            group["lr"] = first * ratio
        value, squares = loss(model, train.batch(next(order)), ratio)
        run.optimizer.zero_grad()
        value.backward(inputs=parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        run.optimizer.step()
        run.step += 1
        bar.update()
        if run.step % interval == 0 or run.step == steps:
            errors = {name: float(square.detach()) ** 0.5 for name, square in squares.items()}
            if held is not None:
                errors |= {f"validation_{name}": e for name, e in evaluate_loss(model, held, loss).items()}
            bar.set_postfix({name: f"{e:.4g}" for name, e in errors.items()})
            _write_row(curve, {"step": run.step, "learning_rate": first * ratio, **errors})
            run.save()
    bar.close()
    return errors


def evaluate_loss(model, batches, loss, batch_size=16):
    """dict of root mean square errors over all frames, weighted by the size of the batches."""
    totals, count = {}, 0
    for batch in batches.all_batches(batch_size):
        n = batch.system.n_systems
        _, squares = loss(model, batch, 0.0)
        count += n
        for name, square in squares.items():
            totals[name] = totals.get(name, 0.0) + n * float(square.detach())
    return {name: (total / count) ** 0.5 for name, total in totals.items()}


def _order(n, batch_size, seed, done):
    """Endless shuffled batches of indices, the same whether or not the run was interrupted."""
    per_epoch = max(n // batch_size, 1)
    epoch, skip = divmod(done, per_epoch)
    while True:
        shuffled = np.random.default_rng([seed, epoch]).permutation(n)
        for k in range(skip, per_epoch):
            yield shuffled[k * batch_size:(k + 1) * batch_size]
        epoch, skip = epoch + 1, 0


class _Run:
    """Model, optimizer and step, kept in a checkpoint that is replaced atomically."""

    def __init__(self, model, optimizer, path, identity):
        self.model, self.optimizer, self.identity, self.step = model, optimizer, identity, 0
        self.path = Path(path) if path else None
        if self.path and self.path.exists():
            self._load()

    def _load(self):
        state = torch.load(self.path, weights_only=True)
        if state["identity"] != self.identity:
            raise ValueError(f"{self.path} belongs to another run {state['identity']}, this one is {self.identity}; "
                             "remove it or choose another checkpoint")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self):
        if self.path is None:
            return
        partial = self.path.with_name(f".{self.path.name}.part")
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                    "identity": self.identity}, partial)
        os.replace(partial, self.path)


def _write_row(path, row):
    if path is None:
        return
    new = row["step"] == 0 or not Path(path).exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


@torch.no_grad()
def standardise(model, frames):
    """Set the normalisation of a new model from its training data.

    Descriptor rows get unit root mean square; features zero mean and unit spread; energies their least-squares
    composition; spectra their mean by species.
    """
    batches = Batches(frames, model.cutoff, _normalised_labels(model), model.dtype)
    _scale_rows(model.descriptor, batches)
    features, species = [], []
    for batch in batches.all_batches(16):
        environment = model.descriptor(batch.system, batch.edges())
        features.append(environment.features)
        species.append(environment.species)
    features, species = torch.cat(features), torch.cat(species)
    for head in model.heads.values():
        for k in range(len(model.species)):
            own = features[species == k]
            head.nets.shift[k] = own.mean(dim=0)
            # features that hardly vary must not be blown up
            spread = own.std(dim=0)
            head.nets.inverse[k] = 1 / (spread + 0.1 * spread.mean() + 1e-12)
    if "energy" in model.heads:
        _centre_energies(model, batches)
    if "dos" in model.heads:
        _centre_spectra(model, batches, species)


def _normalised_labels(model):
    return tuple({"energy": "energy", "dos": "ados"}[name] for name in model.heads)


def _scale_rows(descriptor, batches):
    square = torch.zeros_like(descriptor.scale)
    count = torch.zeros(len(descriptor.species), dtype=descriptor.scale.dtype)
    descriptor.scale.fill_(1.0)
    for batch in batches.all_batches(16):
        edges = batch.edges()
        center = descriptor.species_of_number[batch.system.numbers][edges.center]
        _, s, rows = descriptor._rows(edges.vec, center)
        angular = (rows[:, 1:4] ** 2).sum(dim=1) / 3
        square.index_add_(0, center, torch.stack([s**2, angular], dim=1))
        count += torch.bincount(center, minlength=len(count))
    descriptor.scale.copy_((square / count[:, None].clamp(min=1)).sqrt().clamp(min=1e-3))


def _centre_energies(model, batches):
    counts, energies = [], []
    for batch in batches.all_batches(16):
        species = model.descriptor.species_of_number[batch.system.numbers]
        one_hot = torch.nn.functional.one_hot(species, len(model.species)).to(model.dtype)
        counts.append(batch.system.sum_per_system(one_hot))
        energies.append(batch.labels["energy"])
    counts, energies = torch.cat(counts), torch.cat(energies)
    bias = torch.linalg.lstsq(counts, energies[:, None], driver="gelsd").solution
    nets = model.heads["energy"].nets
    nets.bias.copy_(bias)
    residual = (energies - (counts @ bias)[:, 0]) / counts.sum(dim=1)
    nets.scale.fill_(float(residual.std()) if len(residual) > 1 else 1.0)


def _centre_spectra(model, batches, species):
    spectra = torch.cat([batch.labels["ados"] for batch in batches.all_batches(16)])
    nets = model.heads["dos"].nets
    for k in range(len(model.species)):
        nets.bias[k] = spectra[species == k].mean(dim=0)
    nets.scale.fill_(float((spectra - nets.bias[species]).std()))
