"""Ridge regression of the last layer of an LDOS."""

import torch

from ase_mlelec.train.finite import Diverged, closed_form
from ase_mlelec.train.linear import RIDGE, RidgeRegression


def not_finite(data, places, what: str) -> str:
    """Message that the ``what`` of the snapshots at these places is NaN or infinite, with their names."""
    names = ", ".join(f"{k} ({data.snapshots[k].name or 'unnamed'})" for k in places)
    return (
        f"{data.snapshots.path}: the {what} of snapshot {names} is NaN or infinite; the learning rate "
        "is likely too large: lower it, or check the labels; the last checkpoint is as it was"
    )


@torch.no_grad()
def refit_last_layer(head, data, dos_weight: float, hold: float = 0.0) -> None:
    r"""Replace the last layer by the least-squares solution for the pointwise LDOS and the DOS of every snapshot:

    .. math::

        \sum_\text{snapshots} \text{share} \, \Bigl( \mathrm{mean}_r |W h(r) - D(r)|^2
        + \text{dos\_weight} \, |\mathrm{mean}_r W h(r) - \mathrm{DOS}/\text{volume}|^2
        + \text{hold} \; \mathrm{mean}_{r,i} h_i(r)^2 \, |W - W_0|^2 \Bigr)

    W_0 is the last layer that gradient descent found, and the shares give every point with an LDOS the same weight.
    ``hold`` matters for few snapshots: many combinations of hidden units hardly vary on their points but vary on the
    points of other structures, and W should not change for these combinations.
    """
    with closed_form("the refit of the last layer", "check the LDOS of the snapshots, or train longer before it"):
        solution = torch.linalg.solve(*normal_equations(head, data, dos_weight, hold)) / head.scale
    if not bool(torch.isfinite(solution).all()):
        raise Diverged(not_finite(data, range(len(data)), "refit of the last layer"))
    head.last.weight.copy_(solution[:-1].T)
    head.last.bias.copy_(solution[-1])


@torch.no_grad()
def normal_equations(head, data, dos_weight: float, hold: float = 0.0) -> tuple:
    """(N [H + 1, H + 1], R [H + 1, S]), float64: scale W of refit_last_layer is N^-1 R."""
    regression, n_points, pull = RidgeRegression(), 0, 0.0
    for item in (data[k] for k in range(len(data))):
        layers = torch.nn.functional.pad(head.activations(item.features).double(), (0, 1), value=1.0)
        h, root = layers[item.points], (dos_weight * len(item.points)) ** 0.5
        regression.add(h, item.ldos)
        regression.add(root * layers.mean(dim=0, keepdim=True), root * item.dos.double()[None] / item.volume)
        pull, n_points = pull + hold * float((h**2).mean()) * len(h), n_points + len(h)
    start = head.scale * torch.cat([head.last.weight.T, head.last.bias[None]]).double()
    share = len(data) / n_points
    return tuple(share * part for part in regression.equations(ridge=RIDGE + pull / regression.size, start=start))
