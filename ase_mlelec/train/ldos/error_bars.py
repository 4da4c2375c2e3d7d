"""Error bars of a trained LDOS: posterior of its last layer, calibrated on validation snapshots.

As ase_mlelec.train.error_bars, with one row for every grid point. Density and total free energy are not linear in the
LDOS; their standard deviations are the spread over members drawn from the posterior.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ase_mlelec.data.grid_points import GridData, GridItem
from ase_mlelec.model import Model
from ase_mlelec.train.error_bars import rounded, shapes_of_errors
from ase_mlelec.train.ldos.errors import free_energy
from ase_mlelec.train.log import Log
from ase_mlelec.uncertainty import Posterior, coverage, inverse_factor, scale_of
from ase_mlelec.uncertainty.scales import log_likelihood

RIDGES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
N_MEMBERS = 16
TITLE = "error bars of the LDOS: {} of"
POINTS = 500  # of each snapshot, by which the ridge is chosen and the LDOS calibrated


@torch.no_grad()
def add_ldos_error_bars(
    model: Model,
    data: GridData,
    validation: GridData,
    *,
    ridges: Sequence[float] = RIDGES,
    progress: bool | Log = False,
) -> dict[str, dict[str, Any]]:
    """Give the LDOS of ``model`` a calibrated posterior, and its metadata a report in "error_bars".

    Parameters
    ----------
    model : Model
        Changed in place; its weights are not.
    data, validation : GridData
        Snapshots that the model was trained on, and others. Without validation snapshots the scales are those of the
        training errors, which are too small.
    ridges : sequence of float
        Ridges to choose from, in units of the mean diagonal element of the normal matrix.
    progress : bool or Log
        Whether to tell where the calculation is, or the Log that tells it.

    Returns
    -------
    dict by quantity of dict
        As for ase_mlelec.train.error_bars.add_error_bars: "ldos", "dos", "density", and "energy" of the free energy.
    """
    head, held = model.heads["ldos"], validation if len(validation) else data
    normal: Any = 0.0
    covariance: Any = 0.0
    n = 0
    log = Log.of(progress)
    for item in _one_by_one(data, log, "rows"):
        rows, errors = _rows_and_errors(head, item)
        normal, covariance, n = normal + rows.T @ rows, covariance + errors.T @ errors, n + len(rows)
    outputs = shapes_of_errors(covariance / n)
    sample = [_thinned(*_rows_and_errors(head, held[k])) for k in range(len(held))]
    found: list[tuple[float, float, torch.Tensor]] = []
    for ridge in ridges:
        factor = inverse_factor(normal, ridge)
        deviations, errors = _of_points(sample, factor, outputs)
        found.append((log_likelihood(errors, scale_of(errors, deviations) * deviations), ridge, factor))
    _, ridge, factor = max(found, key=lambda each: each[0])
    posterior = Posterior.from_factors(factor, outputs, n_species=1, ridge=ridge).to(head.scale)
    model.posteriors["ldos"] = posterior
    _set_edge(posterior, head, data)
    return _calibrate(model, held, sample, log, "training data" if held is data else "validation data")


def _one_by_one(data, log, what):
    return log.each((data[k] for k in range(len(data))), len(data), TITLE.format(what))


def _rows_and_errors(head, item: GridItem):
    """Rows [P, H + 1] of the points with an LDOS, and errors [P, S] there, float64."""
    inputs = head.activations(item.features.to(head.scale)).double()[item.points]
    errors = head.scale * head.last(inputs.to(head.scale)) - item.ldos.to(head.scale)
    return torch.nn.functional.pad(inputs, (0, 1), value=1.0), errors.double()


def _thinned(rows, errors):
    step = max(1, len(rows) // POINTS)
    return rows[::step], errors[::step]


def _of_points(sample, factor, outputs):
    """Standard deviations and errors [n, S] of the points of a sample."""
    leverage = torch.cat([(rows @ factor).norm(dim=1) for rows, _ in sample])
    size = outputs.square().sum(dim=1).sqrt()
    errors = torch.cat([errors for _, errors in sample])
    return (leverage[:, None] * size).numpy(), errors.numpy()


def _set_edge(posterior, head, data):
    z = [posterior.coordinates(head.activations(data[k].features.to(head.scale)), None) for k in range(len(data))]
    posterior.center[0] = sum(each.sum(dim=0) for each in z) / sum(map(len, z))
    posterior.edge[0] = max(float(posterior.leverages(each, torch.zeros(len(each), dtype=int)).max()) for each in z)


def _calibrate(model, held, sample, log, where):
    """Set the scales; report of every quantity."""
    posterior = model.posteriors["ldos"]
    deviations, errors = _of_points(sample, posterior.inputs[0].double(), posterior.outputs.double())
    pairs = {"ldos": (errors.ravel(), deviations.ravel()), "dos": _of_dos(model, held)}
    posterior.scales = {"members": scale_of(*pairs["dos"])}
    spreads: dict[str, list] = {"density": [], "energy": []}
    for k in log.each(range(len(held)), len(held), TITLE.format("free energies")):
        for name, pair in _of_snapshot(model, held, k).items():
            spreads[name].append([np.ravel(part) / posterior.scales["members"] ** i for i, part in enumerate(pair)])
    pairs |= {name: tuple(map(np.concatenate, zip(*parts))) for name, parts in spreads.items()}
    scales = {name: scale_of(*pair) for name, pair in pairs.items()}
    posterior.scales |= {name: float(f"{scale:.6g}") for name, scale in scales.items()}
    report = {
        name: {
            "scale": scales[name],
            **coverage(e, scales[name] * d)._asdict(),
            "errors": len(e),
            "calibrated_on": where,
        }
        for name, (e, d) in pairs.items()
    }
    model.metadata["error_bars"] = {name: rounded(found) for name, found in report.items()}
    return report


def _of_dos(model, data):
    """Errors and standard deviations, without a scale, of the DOS of all snapshots."""
    head, posterior, found = model.heads["ldos"], model.posteriors["ldos"], []
    size = posterior.outputs.double().square().sum(dim=1).sqrt()
    for item in (data[k] for k in range(len(data))):
        inputs = head.activations(item.features.to(head.scale))
        z = torch.nn.functional.pad(inputs, (0, 1), value=1.0).double().mean(dim=0) @ posterior.inputs[0].double()
        dos = (head.scale * head.last(inputs)).double().mean(dim=0) * item.volume
        found.append([(dos - item.dos).numpy(), (item.volume * z.norm() * size).numpy()])
    return tuple(map(np.concatenate, zip(*found)))


def _of_snapshot(model, data, k):
    """(errors, spread over members) of density and free energy of a snapshot, dict by quantity."""
    head, posterior, item, snapshot = model.heads["ldos"], model.posteriors["ldos"], data[k], data.snapshots[k]
    inputs = head.activations(item.features.to(head.scale))
    ldos = (head.scale * head.last(inputs)).double()
    rows = torch.nn.functional.pad(inputs, (0, 1), value=1.0).double()
    true, true_density = free_energy(data.snapshots, snapshot, snapshot.dos)
    found = []
    for change in [None, *posterior.changes(N_MEMBERS, scale=posterior.scale("members"))]:
        own = (ldos if change is None else ldos + rows @ change[0].double()).numpy()
        terms, density = free_energy(data.snapshots, snapshot, own.mean(axis=0) * item.volume, own, item.level)
        found.append((density, terms["total"]))
    return {
        name: (members[0] - label, np.std(members[1:], axis=0))
        for name, label, members in zip(("density", "energy"), (true_density, true["total"]), zip(*found))
    }
