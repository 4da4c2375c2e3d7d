"""Linear energy models: ridge regression to energies, forces and virials."""

from pathlib import Path

import numpy as np
import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.train.finite import Diverged, closed_form, explained_rows
from ase_mlelec.train.linear import RidgeRegression, digest_of, sum_rows
from ase_mlelec.train.losses import EnergyLoss, check_terms, energy_and_derivatives

NUMBER = 8  # bytes of one in double precision


def available_memory() -> int | None:
    """Free memory, bytes, of the machine or of the control group that limits the process; None where it is unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current")
        )
        if limit != "max":
            found.append(max(int(limit) - int(used), 0))
    except (OSError, ValueError, IndexError):
        pass
    return min(found) if found else None


def check_memory(n_numbers: int, what: str, remedy: str) -> None:
    """Raise ValueError where ``n_numbers`` numbers in double precision exceed the free memory.

    Parameters
    ----------
    what : str
        Purpose of the memory, for the message.
    remedy : str
        Remedy, for the message.
    """
    left = available_memory()
    if left is not None and NUMBER * n_numbers > left:
        raise ValueError(
            f"{what} would need {NUMBER * n_numbers / 1e9:.3g} GB of memory, {left / 1e9:.3g} GB are left; {remedy}"
        )


MANY_WEIGHTS = 20_000  # more weights have a normal matrix of gigabytes
FEW_ROWS = 0.5  # with fewer labels than this times the weights, a matrix of the size of the labels is solved
REMEDY = (
    "take fewer features: in [power_spectrum] near = 0 (no quadruples) or a lower n_radial, l_max or roughest, "
    "in [descriptor] fewer widths or a lower n_axis; or fewer species in one model"
)


def fit_linear(
    model: Model,
    frames: Frames,
    loss: EnergyLoss,
    ridge: float,
    *,
    batch_size: int = 16,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> None:
    """Fit an energy head without hidden layers to energies, forces and virials by ridge regression.

    The fit minimizes the sum over structures of ``loss``, with its last prefactors, plus a ridge on the change of the
    weights; in a new model the change is measured from zero. A structure without one of the labels adds no rows for that
    label. The weight of its other labels is the same as in a set where every structure has every label.

    Data sets of many species can have fewer labels than half the weights. The same solution is then found from a matrix
    of the size of the labels, without a checkpoint.

    Parameters
    ----------
    model : Model
        Trained in place; the descriptor does not change.
    frames, loss : Frames, EnergyLoss
    ridge : float
        In units of the mean diagonal element of the normal matrix (see ase_mlelec.train.linear).
    checkpoint : path
        Read at the start when the file exists. It holds the sums over the structures so far, P^2 numbers for P weights.
        An interrupted fit continues from it and ends with the same weights, to the bit; the ridge may differ.

    Raises
    ------
    ValueError
        For labels of a wrong shape or that are not finite, frames without any label of the loss, matrices larger than
        the free memory, and a checkpoint that belongs to another fit or is damaged.
    Diverged
        When rows or the solution are not finite.

    References
    ----------
    Thompson et al. 2015, J. Comput. Phys. 285, 316, for the linear fit without a ridge.
    """
    check_terms(loss, frames)
    remedy = f"give a ridge larger than {ridge:g}, or check the labels. Nothing was saved"
    last = model.heads["energy"].nets.last
    dual = _few_rows(frames, loss, sum(part.numel() for layer in last for part in layer.parameters()), batch_size)
    identity = {
        "frames": frames.fingerprint(),
        "loss": f"{type(loss).__name__} {vars(loss)}",
        "model": digest_of(model),
        "batch_size": batch_size,
    }
    batches = Batches.for_model(model, frames, loss.labels).with_label(*loss.labels)
    regression = RidgeRegression(dual=dual)
    with closed_form("the closed form of the energy", remedy):
        sum_rows(
            regression,
            len(batches),
            batch_size,
            lambda chosen: _checked_rows(model, batches, chosen, loss),
            checkpoint=checkpoint,
            identity=identity,
            progress=progress,
        )
        change = regression.solve(ridge=ridge).to(last[0].weight)
    if not bool(torch.isfinite(change).all()):
        raise Diverged(f"the closed form of the energy has no finite solution; {remedy}")
    _add(last, change)


def _few_rows(frames, loss, n_weights, batch_size):
    """Whether the matrix of the labels is solved instead of the matrix of the weights.

    Raises ValueError where memory suffices for neither.
    """
    n_rows, most = _n_rows(frames, loss), _largest_batch(frames, loss, batch_size)
    few = n_weights > MANY_WEIGHTS and n_rows < FEW_ROWS * n_weights
    what = f"the closed form of {n_rows} labels and {n_weights} weights"
    needed = (2 * n_rows + 3 * most) * n_weights + 3 * n_rows**2
    if not few:
        what = f"the closed form of {n_weights} weights, with 2 matrices of {NUMBER * n_weights**2 / 1e9:.3g} GB,"
        needed = 2 * n_weights**2 + 3 * n_weights * most
    check_memory(needed, what, REMEDY)
    return few


@torch.no_grad()
def _add(last, change):
    """Add the changes [P] of weights and constants to the layers."""
    weights, constants = change[: -len(last)].reshape(len(last), -1), change[-len(last) :]
    for layer, weight, constant in zip(last, weights, constants):
        layer.weight += weight
        layer.bias += constant


def _n_rows(frames, loss):
    """Number of label components of all frames."""
    return sum(np.size(frame.labels[name]) for frame in frames for name in loss.labels if name in frame.labels)


def _largest_batch(frames, loss, batch_size):
    """Largest number of rows that a batch can have."""
    return sum(sorted(_n_rows([frame], loss) for frame in frames)[-batch_size:])


def _checked_rows(model, batches, chosen, loss):
    """_weighted_rows of the chosen frames; raises Diverged where a row is not finite."""
    found = _weighted_rows(model, batches.batch(chosen), loss)
    if not all(bool(torch.isfinite(part).all()) for part in found):
        raise explained_rows(batches, chosen, lambda batch: _weighted_rows(model, batch, loss))
    return found


def _weighted_rows(model, batch, loss):
    """Rows [n, P] and residuals [n] of a batch: energies, then forces, then virials, as far as it has these labels."""
    labels = [name for name in loss.labels if name in batch.labels]
    columns, derivatives = _columns(model, batch, labels)
    energy, found = energy_and_derivatives(model, batch, labels)
    n_atoms = batch.system.n_atoms.to(energy.dtype)
    atomic, whole = loss.weights(batch, n_atoms)
    share = 1 / n_atoms.index_select(0, batch.system.batch)
    importance = {
        "energy": (loss.energy, whole / n_atoms, 1),
        "forces": (loss.forces, atomic * share, 3),
        "virial": (loss.virial, whole / n_atoms, 9),
    }
    rows, rest = [], []
    for name in labels:
        (_, last), weight, n = importance[name]
        root = (last / n * batch.matching(name, weight)).sqrt().repeat_interleave(n)
        mine = batch.matching(name, energy if name == "energy" else found[name])
        of_weights = (columns if name == "energy" else derivatives[name]).unflatten(0, (-1, n))
        rows.append(root[:, None] * batch.matching(name, of_weights).flatten(0, 1))
        rest.append(root * (batch.labels[name] - mine.detach()).reshape(-1))
    return torch.cat(rows), torch.cat(rest)


@torch.no_grad()
def _columns(model, batch, labels):
    """Derivatives with respect to the weights: energies [B, P], and dict of forces [3 N, P] and virials [9 B, P]."""
    nets, descriptor = model.heads["energy"].nets, model.descriptor_of("energy")
    system, edges = batch.system, batch.edges()
    environment = descriptor(system, edges)
    species = environment.species
    x = nets.scale * (environment.features - nets.shift[species]) * nets.inverse[species]
    own = torch.nn.functional.one_hot(species, len(nets.last)).to(x)
    columns = [*(system.sum_per_system(x * one[:, None]) for one in own.T), nets.scale * system.sum_per_system(own)]
    names, parts = [name for name in labels if name != "energy"], []
    for part in _structures(system, edges) if names else ():
        changes = descriptor.summed_gradients(*part, strain="virial" in names)
        changes = -nets.scale * (changes * nets.inverse).flatten(1)
        changes = torch.cat([changes, changes.new_zeros(len(changes), own.shape[1])], dim=1)
        parts.append(dict(zip(("forces", "virial"), changes.split([3 * len(part[0].numbers), len(changes) - 3 * len(part[0].numbers)]))))
    return torch.cat(columns, dim=1), {name: torch.cat([part[name] for part in parts]) for name in names}


def _structures(system, edges):
    """Iterate over the structures of a batch, each as (System, Edges)."""
    ends = [0, *system.n_atoms.cumsum(0).tolist()]
    bounds = torch.searchsorted(edges.center, torch.tensor(ends, device=edges.center.device)).tolist()
    for k in range(system.n_systems):
        atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
        yield (
            System(
                system.positions[atoms],
                system.numbers[atoms],
                system.cell[k : k + 1],
                system.pbc[k : k + 1],
                system.batch[atoms] - k,
            ),
            edges.part(atoms, rows),
        )
