"""Closed-form fit of the last layer of an LDOS."""

import torch

from ase_mlelec.train.finite import Diverged, closed_form


def not_finite(data, places, what):
    """str, that the ``what`` of the snapshots at these places is NaN or infinite, with their names."""
    names = ", ".join(f"{k} ({data.snapshots[k].name or 'unnamed'})" for k in places)
    return (
        f"{data.snapshots.path}: the {what} of snapshot {names} is NaN or infinite; the learning rate "
        "is likely too large: lower it, or check the labels; the last checkpoint is as it was"
    )


RIDGE = 1e-10  # of the largest diagonal element


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
    if not bool(torch.isfinite(solution).all()):
        raise Diverged(not_finite(data, range(len(data)), "refit of the last layer"))
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
