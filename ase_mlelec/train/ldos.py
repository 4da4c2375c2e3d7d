"""Training a model of the local density of states: fingerprints once, gradient descent, then a closed-form refit.

The LDOS is learnt point by point, but what is wanted are its integrals: DOS, density, band energy.  A net that is good
at every point still has a common offset in its integrals that wanders during training.  The last layer is linear, so
it is refitted at the end by least squares on the pointwise LDOS and the DOS of every snapshot together.
"""

import math
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.interpolate import CubicSpline
from tqdm import tqdm

from ase_mlelec.heads.spectrum import EnergyZero
from ase_mlelec.physics import core, fermi, total_energy
from ase_mlelec.system import System
from ase_mlelec.train.finite import Diverged, closed_form
from ase_mlelec.train.fit import Run

MEMORY = 3e9  # bytes of fingerprints and LDOS kept in memory; the rest is read again every time
RIDGE = 1e-10  # of the largest diagonal element
SMALLEST = 1e-6  # of the largest variance of fingerprints
# of fit_zero, eV and eV Å^3: how far the Fermi level is off a function of the density, and how steep that may be
NOISE, STEEPEST = 0.05, 500.0


@dataclass(frozen=True)
class GridItem:
    """One snapshot as tensors.

    features : Tensor [G, F], fingerprints of all grid points; points : Tensor [P], those with an LDOS
    ldos : Tensor [P, S], 1/(eV Å^3); dos : Tensor [S], states/eV; on energies relative to ``level``, eV
    number, energy : Tensor [S], weights of occupied states and band energy at the Fermi level of the labels
    """

    features: torch.Tensor
    points: torch.Tensor
    ldos: torch.Tensor
    dos: torch.Tensor
    number: torch.Tensor
    energy: torch.Tensor
    volume: float
    n_atoms: int
    n_electrons: float
    level: float


class GridData:
    """Snapshots with the fingerprints of all their grid points, computed once into an HDF5 file.

    A run that was interrupted goes on with the fingerprints it finds there.

    snapshots : Snapshots
    cache : path of the HDF5 file of fingerprints; it belongs to one descriptor
    zero : EnergyZero, that of the head which is trained or tested
    """

    def __init__(self, snapshots, descriptor, cache, progress=True, zero=EnergyZero()):
        self.snapshots, self.cache, self.zero = snapshots, Path(cache), zero
        self._kept, self._bytes = {}, 0
        self._keys = [snapshots.identity(k) for k in range(len(snapshots))]
        with h5py.File(self.cache, "a") as file:
            if file.attrs.setdefault("descriptor", repr(descriptor.arguments())) != repr(descriptor.arguments()):
                raise ValueError(f"{self.cache} holds fingerprints of another kind; remove it")
            missing = [k for k, key in enumerate(self._keys) if key not in file]
            for k in tqdm(missing, disable=None if progress else True, desc="fingerprints", unit=" snapshots"):
                snapshot = snapshots[k]
                file[self._keys[k]] = fingerprints(descriptor, snapshot.atoms, snapshot.shape).numpy()
                file.flush()

    def __len__(self):
        return len(self.snapshots)

    def __getitem__(self, k):
        if k in self._kept:
            return self._kept[k]
        item = self._read(k)
        size = 4 * (item.features.numel() + item.ldos.numel())
        if self._bytes + size < MEMORY:
            self._kept[k], self._bytes = item, self._bytes + size
        return item

    def _read(self, k):
        snapshot = self.snapshots[k]
        with h5py.File(self.cache) as file:
            features = torch.from_numpy(file[self._keys[k]][()])
        points = torch.arange(len(features)) if snapshot.points is None else torch.as_tensor(snapshot.points).long()
        counts = self.snapshots.attributes["valence_electrons"]
        n_electrons = float(sum(counts[symbol] for symbol in snapshot.atoms.get_chemical_symbols()))
        energies, volume = self.snapshots.energies, snapshot.atoms.get_volume()
        level = self.zero.level(snapshot.atoms.get_chemical_symbols(), volume)
        ldos, dos = (relative(energies, spectra, level) for spectra in (snapshot.ldos, snapshot.dos))
        mu = fermi.fermi_level(energies, dos, n_electrons, snapshot.temperature)
        weights = fermi.integration_weights(energies, mu, snapshot.temperature)
        ldos, dos, number, energy = (torch.as_tensor(a, dtype=torch.float32) for a in (ldos, dos, *weights[:2]))
        return GridItem(features, points, ldos, dos, number, energy, volume, len(snapshot.atoms), n_electrons, level)


def relative(energies, spectra, level):
    """Spectra [..., S] on ``energies`` [S] as functions of the energy relative to ``level``, on the same numbers.

    Cubic splines; beyond the ends of the grid, the values there.
    """
    if level == 0:
        return spectra
    return CubicSpline(energies, spectra, axis=-1)(np.clip(energies + level, energies[0], energies[-1]))


def fit_zero(snapshots):
    """EnergyZero that follows the Fermi levels of snapshots, and is zero at their mean density.

    Least squares, with slopes no steeper than the densities of the snapshots can tell.
    """
    counts = snapshots.attributes["valence_electrons"]
    symbols = [snapshot.atoms.get_chemical_symbols() for snapshot in snapshots]
    species = sorted(set(sum(symbols, [])))
    densities = np.array(
        [
            [own.count(symbol) / snapshot.atoms.get_volume() for symbol in species]
            for own, snapshot in zip(symbols, snapshots)
        ]
    )
    levels = np.array(
        [
            float(
                fermi.fermi_level(snapshots.energies, snapshot.dos, sum(counts[s] for s in own), snapshot.temperature)
            )
            for own, snapshot in zip(symbols, snapshots)
        ]
    )
    mean = densities.mean(axis=0)
    shifts = densities - mean
    if not shifts.any():
        return EnergyZero()
    slopes = np.linalg.solve(
        shifts.T @ shifts + np.eye(len(species)) * (NOISE / STEEPEST) ** 2, shifts.T @ (levels - levels.mean())
    )
    return EnergyZero(-float(slopes @ mean), dict(zip(species, slopes.tolist())))


@torch.no_grad()
def fingerprints(descriptor, atoms, shape, dtype=torch.float32):
    """Tensor [G1 G2 G3, F] of all grid points in C order, computed in float64."""
    system = System.from_atoms(atoms, torch.float64)
    features = torch.empty(int(np.prod(shape)), descriptor.n_features, dtype=dtype)
    for chunk in descriptor.grid_chunks(system, shape):
        features[chunk.indices] = descriptor.of_chunk(system, chunk).to(dtype)
    return features


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


@torch.no_grad()
def standardise_ldos(head, data, scaling="maximum", fingerprints="elements"):
    """Fingerprints of a new head to mean 0 and spread 1, and the LDOS by ``scaling``:

    "maximum": to a maximum of 1.  "spread": around its mean spectrum, from which the head starts, to a spread of 1; the
    first layer gets weights of variance 1/F, so that its outputs have a spread of 1 too.  An LDOS that varies little
    around a large mean is then learnt with the full resolution of the net.

    fingerprints : "elements", one by one, or "components": principal components, of the linear ones by themselves.
        Elements are strongly correlated; with components descent gets further in fewer steps.  But components of small
        variance extrapolate badly: the data must be more than a snapshot or two.

    Source: Ellis et al. 2021, section II C, for "maximum" and "elements".
    """
    mean, covariance = _mean_and_covariance(data[k].features[data[k].points] for k in range(len(data)))
    head.shift.copy_(mean)
    if fingerprints == "elements":
        head.inverse.copy_(torch.diag(_inverse_spread(covariance)))
    else:
        first = head.n_features - head.n_linear
        parts = (_whitening(covariance[part, part]) for part in (slice(0, first), slice(first, None)))
        head.inverse.copy_(torch.block_diag(*parts))
    if scaling == "maximum":
        head.scale.fill_(max(float(data[k].ldos.max()) for k in range(len(data))))
        return
    mean, spread = _mean_and_spread(data[k].ldos for k in range(len(data)))
    head.scale.copy_(spread.square().mean().sqrt())
    head.last.bias.copy_(mean / head.scale)
    head.hidden[0].weight.mul_(3**0.5)  # torch draws them with variance 1/(3 F)


def _mean_and_covariance(arrays):
    """Means [F] of the columns and their covariances [F, F], double precision."""
    count, total, square = 0, 0.0, 0.0
    for x in arrays:
        x = x.double()
        count, total, square = count + len(x), total + x.sum(dim=0), square + x.T @ x
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)


def _whitening(covariance):
    """Matrix [F, F] that turns deviations from the mean into principal components of spread 1, of standardised columns.

    Components below SMALLEST of the largest variance, of which many are numerical noise, stay small.
    """
    if not len(covariance):
        return covariance
    inverse = _inverse_spread(covariance)
    variance, axes = torch.linalg.eigh(inverse[:, None] * covariance * inverse)
    return (axes / (variance.clamp(min=0) + SMALLEST * variance[-1]).sqrt()).T * inverse


def _inverse_spread(covariance):
    spread = covariance.diagonal().clamp(min=0).sqrt()
    return 1 / spread.clamp(min=1e-6 * float(spread.max()))


def _mean_and_spread(arrays):
    """Mean and standard deviation of every column, double precision."""
    count, total, square = 0, 0.0, 0.0
    for x in arrays:
        x = x.double()
        count, total, square = count + len(x), total + x.sum(dim=0), square + (x**2).sum(dim=0)
    mean = total / count
    return mean, (square / count - mean**2).clamp(min=0).sqrt()


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
                _require_finite(held, range(len(held)), "error", *map(torch.tensor, errors.values()))
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
                _require_finite(data, [k], "loss", value)
                (value * len(part.points) / n_points).backward()  # every point counts the same
            _require_finite(data, places, "gradient", *(p.grad for p in head.parameters() if p.grad is not None))
            optimizer.step()
            _require_finite(data, places, "parameters", *head.parameters())


def _require_finite(data, places, what, *tensors):
    """Diverged, with the names of the snapshots, for NaN or infinity."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        names = ", ".join(f"{k} ({data.snapshots[k].name or 'unnamed'})" for k in places)
        raise Diverged(
            f"{data.snapshots.path}: the {what} of snapshot {names} is NaN or infinite; the learning rate "
            "is likely too large: lower it, or check the labels; the last checkpoint is as it was"
        )


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


@torch.no_grad()
def refit_last_layer(head, data, dos_weight, hold=0.0):
    """Replace the last layer by the least-squares solution for the pointwise LDOS and the DOS of every snapshot:

        sum over snapshots of  share (mean_r |W h(r) - D(r)|^2 + dos_weight |mean_r W h(r) - DOS/volume|^2
                                      + hold mean_r,i h_i(r)^2 |W - W_0|^2)

    with W_0 the last layer that the descent found, and shares that count every point with an LDOS alike.  Where
    snapshots are few, W should move only where it matters to them: many combinations of hidden units hardly vary on
    their points, but do on others.
    """
    normal, right = normal_equations(head, data, dos_weight, hold)
    with closed_form("the refit of the last layer", "check the LDOS of the snapshots, or train longer before it"):
        solution = torch.linalg.solve(normal, right) / head.scale
    _require_finite(data, range(len(data)), "refit of the last layer", solution)
    head.last.weight.copy_(solution[:-1].T)
    head.last.bias.copy_(solution[-1])


@torch.no_grad()
def normal_equations(head, data, dos_weight, hold=0.0):
    """(N [H + 1, H + 1], R [H + 1, S]), float64: scale W of refit_last_layer is N^-1 R."""
    size, n_points = head.last.in_features + 1, 0
    normal, pull = torch.zeros(size, size, dtype=torch.float64), 0.0
    right = torch.zeros(size, head.last.out_features, dtype=torch.float64)
    for k in range(len(data)):
        item = data[k]
        layers = _with_one(head.activations(item.features).double())
        h, mean = layers[item.points], layers.mean(dim=0, keepdim=True)
        whole, n_points = dos_weight * len(h) * mean.T, n_points + len(h)
        normal += h.T @ h + whole @ mean
        right += h.T @ item.ldos.double() + whole @ (item.dos.double() / item.volume)[None]
        pull += hold * float((h**2).mean()) * len(h)
    right += pull * head.scale * torch.cat([head.last.weight.T, head.last.bias[None]]).double()
    normal += torch.eye(size, dtype=torch.float64) * (RIDGE * normal.diagonal().max() + pull)
    share = len(data) / n_points
    return share * normal, share * right


def _with_one(h):
    return torch.nn.functional.pad(h, (0, 1), value=1.0)


@torch.no_grad()
def ldos_errors(model, data):
    """Errors of every snapshot of ``data`` (GridData), integrals against those of the true LDOS in the same way.

    model : Model, or a list of them, a committee that predicts the mean LDOS of its members

    Raises ValueError where ``data`` has another zero of energy than the model.

    Returns dict of array, one entry per snapshot: ldos (root mean square over points and energies, 1/(eV Å^3)), dos
    (root mean square, states/eV/atom), density_percent (mean of |n - n_true|/n_true, %), band_energy and free_energy
    (predicted - true, eV/atom).

    Source: Ellis et al. 2021, Tables II and IV.
    """
    models, found = model if isinstance(model, list) else [model], []
    if any(one.heads["ldos"].zero != data.zero for one in models):
        raise ValueError("the data and the models have different zeros of energy; give GridData zero=head.zero")
    for k in range(len(data)):
        item, snapshot = data[k], data.snapshots[k]
        members = [one.heads["ldos"].spectrum(item.features.to(one.dtype)).double() for one in models]
        ldos = (sum(members) / len(members)).numpy()
        dos = ldos.mean(axis=0) * item.volume
        terms, density = free_energy(data.snapshots, snapshot, dos, ldos, item.level)
        true, true_density = free_energy(data.snapshots, snapshot, snapshot.dos)
        found.append(
            {
                "ldos": np.sqrt(((ldos[item.points] - item.ldos.numpy()) ** 2).mean()),
                "dos": np.sqrt(((dos - item.dos.numpy()) ** 2).mean()) / item.n_atoms,
                "density_percent": 100 * np.abs(density / true_density - 1).mean(),
                "band_energy": (terms["band"] - true["band"]) / item.n_atoms,
                "free_energy": (terms["total"] - true["total"]) / item.n_atoms,
            }
        )
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


def mean_ldos_errors(model, data):
    """dict of float, means over the snapshots of ``data``: the keys of QUANTITIES in ase_mlelec.train.evaluate."""
    found = ldos_errors(model, data)
    return {
        "ldos_rmse": float(np.sqrt((found["ldos"] ** 2).mean())),
        "density_mape_percent": float(found["density_percent"].mean()),
        "dos_rmse_states_per_eV_per_atom": float(np.sqrt((found["dos"] ** 2).mean())),
        "band_energy_mae_meV_per_atom": 1000 * float(np.abs(found["band_energy"]).mean()),
        "free_energy_mae_meV_per_atom": 1000 * float(np.abs(found["free_energy"]).mean()),
    }


def free_energy(snapshots, snapshot, dos, ldos=None, level=0.0):
    """(terms of the total free energy, density) from a DOS, and an LDOS or else the density of the snapshot.

    level : eV, what the energies of DOS and LDOS are relative to
    """
    counts, energies = snapshots.attributes["valence_electrons"], snapshots.energies + level
    charges = np.array([counts[symbol] for symbol in snapshot.atoms.get_chemical_symbols()], dtype=float)
    density = snapshot.density
    if ldos is not None:
        level = fermi.fermi_level(energies, dos, charges.sum(), snapshot.temperature)
        weights = fermi.integration_weights(energies, level, snapshot.temperature)[0]
        density = (ldos @ weights).reshape(snapshot.shape)
    cell, positions = snapshot.atoms.cell.array, snapshot.atoms.positions
    core_density = core.density(
        snapshots.attributes.get("core_charges", {}),
        snapshot.atoms.get_chemical_symbols(),
        positions,
        cell,
        snapshot.shape,
    )
    terms = total_energy.from_dos_and_density(
        dos,
        energies,
        density,
        cell,
        positions,
        charges,
        snapshot.temperature,
        xc=snapshots.attributes["xc"],
        core_density=core_density,
    )
    return terms, density
