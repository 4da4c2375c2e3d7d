r"""Refit of the last layer of an LDOS to forces and free energies.

The LDOS is D = scale W (h, 1), and forces are derivatives of a functional of the LDOS. The hidden layers h(r) and their
derivatives with respect to atomic displacements are evaluated once. After that, forces are smooth functions F(W) of the
last layer alone. To first order around the present W_p they are linear equations. W_0 is the least-squares solution for
LDOS and DOS, with the normal matrix N, which is the same for all energies. The refit solves

.. math::

    \min_W \; \mathrm{tr} \, M (W - W_0) N (W - W_0)^T + \text{weight} \sum_\text{snapshots}
    \mathrm{mean}_m \bigl( F_m(W_p) + G_m \cdot (W - W_p) - F_m^\mathrm{DFT} \bigr)^2

and likewise for the free energy of each snapshot. Long-wavelength changes of the density contribute most to the Coulomb
energy, and so to the free energy, but hardly to the mean square of the LDOS.

The metric M is 1/S for all energies, and larger for changes of the LDOS that change the density: they are a small part
of the LDOS, but the part to which forces respond.

W has some 10^4 elements, but there are few labels. The solution is therefore W_0 plus a combination of M^-1 G_m N^-1,
whose coefficients solve a linear system of the size of the labels. The step is repeated with new F and G (Gauss-Newton).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.data.grid_points import ForceData, ForceItem, GridData, n_directions
from ase_mlelec.data.snapshots import Snapshot, Snapshots
from ase_mlelec.heads import LDOSHead
from ase_mlelec.physics.ldos_functional import Ions, free_energy
from ase_mlelec.progress import Bar
from ase_mlelec.train.ldos.descent import normal_equations
from ase_mlelec.train.ldos.errors import free_energy as free_energy_of_labels

ITERATIONS = 2
DENSITY = 10.0  # weight of changes of the density in units of its mean, relative to the LDOS in units of its scale
FRACTIONS = (1, 0.5, 0.25, 0.125)  # shares of a step, tried until one is an improvement


def hidden_first_order(head: LDOSHead, item: ForceItem) -> tuple[Tensor, Tensor]:
    """Coordinates of the LDOS and a column of ones [P, H + 1], and their derivatives [M, P, H + 1] by directions."""
    values, slopes = (item.features - head.shift) @ head.inverse.T, item.slopes @ head.inverse.T
    linear = [x[..., head.n_features - head.n_linear :] for x in (values, slopes)]
    for part in head.hidden:
        if isinstance(part, torch.nn.Linear):
            values, slopes = part(values).detach(), slopes @ part.weight.detach().T
        else:  # element by element
            values.requires_grad_(True)
            out = part(values)
            values, slopes = out.detach(), slopes * torch.autograd.grad(out.sum(), values)[0]
    values, slopes = (torch.cat(parts, dim=-1) for parts in zip((values, slopes), linear))
    return torch.nn.functional.pad(values, (0, 1), value=1.0), torch.nn.functional.pad(slopes, (0, 1))


def projected_forces(
    head: LDOSHead, attributes: Mapping[str, Any], item: ForceItem, hidden: Tensor, slopes: Tensor, last: Tensor
) -> Tensor:
    """Forces [M] eV/Å of the last layer ``last`` [S, H + 1] along the directions of ``item``, differentiable in it.

    Parameters
    ----------
    attributes : dict
        Attributes of the snapshots.
    hidden, slopes
        Results of hidden_first_order.

    References
    ----------
    Derivative of Ellis et al. 2021, Eq. (9).
    """
    steps = torch.zeros(len(slopes), dtype=torch.float64, requires_grad=True)
    total = _free_energy(head, attributes, item.snapshot, item.shape, hidden, last, slopes, item.directions, steps)
    (forces,) = torch.autograd.grad(total, steps, create_graph=last.requires_grad)
    return -forces


def energy_per_atom(
    head: LDOSHead, attributes: Mapping[str, Any], snapshot: Snapshot, hidden: Tensor, last: Tensor
) -> Tensor:
    """Free energy A per atom, eV, relative to head.zero, as a differentiable function of the last layer.

    ``hidden`` is [G, H + 1].
    """
    return _free_energy(head, attributes, snapshot, snapshot.shape, hidden, last) / len(snapshot.atoms)


def _free_energy(head, attributes, snapshot, shape, hidden, last, slopes=None, directions=None, steps=None):
    """A, eV; with slopes, to first order in ``steps`` [M] Å along the directions."""
    atoms, kind = snapshot.atoms, last.dtype
    temperature = torch.tensor(snapshot.temperature, dtype=torch.float64)
    cell, positions = (torch.as_tensor(array) for array in (atoms.cell.array, atoms.positions))
    mean = hidden.mean(dim=0)
    if steps is not None:
        positions = positions + torch.tensordot(steps, directions, 1)
        mean = mean + steps.to(kind) @ slopes.mean(dim=1)

    def density(weights):
        weights = weights.to(kind) @ last
        density = hidden @ weights
        if steps is not None:
            # the product before the sum over directions: no graph of tensors [M, P, H]
            density = density + steps.to(kind) @ (slopes @ weights)
        return (head.scale * density).double().reshape(shape)

    dos = (head.scale * atoms.get_volume() * (last @ mean)).double()
    ions = Ions.described(attributes, atoms.get_chemical_symbols(), positions, cell)
    return free_energy(ions, head.energies, dos, density, temperature).terms["total"]


def force_rows(
    head: LDOSHead, attributes: Mapping[str, Any], item: ForceItem, hidden: Tensor, slopes: Tensor, last: Tensor
) -> Tensor:
    """Derivatives [M, S, H + 1] of projected_forces with respect to ``last``, float64."""
    last = last.detach().to(hidden.dtype).requires_grad_(True)
    forces = projected_forces(head, attributes, item, hidden, slopes, last)
    return torch.stack([torch.autograd.grad(force, last, retain_graph=True)[0] for force in forces]).double()


def refit_with_labels(
    head: LDOSHead,
    data: GridData,
    forces: ForceData | None,
    force_weight: float,
    energy_weight: float,
    dos_weight: float,
    hold: float = 0.0,
    progress: bool = True,
) -> dict[str, tuple[float, float]]:
    """Move the last layer from the least-squares solution for LDOS and DOS towards the forces of the DFT code and the
    free energies of its LDOS.

    Parameters
    ----------
    head : LDOSHead after refit_last_layer of ase_mlelec.train.ldos
    data, dos_weight, hold
        As in refit_last_layer.
    forces : ForceData, or None where force_weight is 0
    force_weight, energy_weight
        Weights of the mean squared force error ((eV/Å)^2) and of the squared energy error ((eV/atom)^2) of a snapshot,
        relative to the mean squared error of the LDOS (in units of the scale).

    Returns
    -------
    dict
        {"forces": (before, after), "energy": (before, after)}: root mean square errors of forces along the directions
        of ``forces`` (eV/Å) and of energies (eV/atom); entries without a weight are left out.
    """
    labels = [
        kind(*arguments, weight)  # type: ignore[call-arg]
        for kind, arguments, weight in (
            (_Forces, (head, forces), force_weight),
            (_Energies, (head, data), energy_weight),
        )
        if weight
    ]
    first = torch.cat([head.last.weight, head.last.bias[:, None]], dim=1).detach().double()
    normal, _ = normal_equations(head, data, dos_weight, hold)
    metric = energy_metric(head, data)

    def value(last, residuals):
        pull = ((metric @ (last - first) @ normal) * (last - first)).sum()
        return float(pull + sum(weights @ residual**2 for (residual, weights) in residuals))

    def all_residuals(last):
        return [(label.residuals(last.float()), label.weights) for label in labels]

    last, residuals = first, all_residuals(first)
    errors = [_root_mean_squares(residuals)]
    for _ in Bar(range(ITERATIONS), show=progress, desc="forces", unit=" iterations"):
        rows = torch.cat([label.rows(last.float()) for label in labels])
        missing, weights = (torch.cat(parts) for parts in zip(*residuals))
        wanted = missing + torch.einsum("msh,sh->m", rows, last - first)
        step = first + nearest(metric, normal, rows, wanted, weights) - last
        for fraction in FRACTIONS:
            trial = last + fraction * step
            of_trial = all_residuals(trial)
            if value(trial, of_trial) < value(last, residuals):
                last, residuals = trial, of_trial
                break
        else:
            break
    with torch.no_grad():
        head.last.weight.copy_(last[:, :-1])
        head.last.bias.copy_(last[:, -1])
    errors.append(_root_mean_squares(residuals))
    return {label.name: tuple(both) for label, *both in zip(labels, *errors)}


def check_densities(snapshots: Snapshots) -> None:
    """Raise ValueError for snapshots without a density, which have no free energy."""
    for snapshot in snapshots:
        if snapshot.density is None:
            raise ValueError(
                f"{snapshots.path}: snapshot '{snapshot.name}' has no density; write it too, or train "
                "with energy_weight = 0"
            )


class _Forces:
    """Forces of the DFT code: residuals and weights [m] and rows [m, S, H + 1] of all snapshots."""

    name = "forces"

    def __init__(self, head, forces, weight):
        self.head, self.forces = head, forces
        counts = [n_directions(snapshot.atoms) for snapshot in forces.snapshots]
        self.weights = torch.cat([torch.full((n,), weight / n, dtype=torch.float64) for n in counts])

    def residuals(self, last):
        return torch.cat(
            [
                item.wanted - projected_forces(self.head, self.forces.attributes, item, *hidden, last)
                for item, hidden in self._items()
            ]
        )

    def rows(self, last):
        return torch.cat(
            [force_rows(self.head, self.forces.attributes, item, *hidden, last) for item, hidden in self._items()]
        )

    def _items(self):
        items = (self.forces[k] for k in range(len(self.forces)))
        return ((item, hidden_first_order(self.head, item)) for item in items)


class _Energies:
    """Free energies of the DFT code's LDOS, per atom: residuals and weights [n] and rows [n, S, H + 1]."""

    name = "energy"

    def __init__(self, head, data, weight):
        self.head, self.data = head, data
        self.weights = torch.full((len(data),), weight, dtype=torch.float64)
        self.wanted = []
        for k in range(len(data)):
            item, snapshot = data[k], data.snapshots[k]
            total = free_energy_of_labels(data.snapshots, snapshot, snapshot.dos)[0]["total"]
            self.wanted.append((float(total) - item.level * item.n_electrons) / item.n_atoms)

    def residuals(self, last):
        with torch.no_grad():
            return torch.stack([wanted - self._energy(k, last) for k, wanted in enumerate(self.wanted)])

    def rows(self, last):
        last = last.detach().requires_grad_(True)
        return torch.stack(
            [torch.autograd.grad(self._energy(k, last), last)[0].double() for k in range(len(self.data))]
        )

    def _energy(self, k, last):
        hidden = torch.nn.functional.pad(self.head.activations(self.data[k].features).detach(), (0, 1), value=1.0)
        return energy_per_atom(self.head, self.data.snapshots.attributes, self.data.snapshots[k], hidden, last)


def _root_mean_squares(residuals):
    return [float(residual.square().mean().sqrt()) for residual, _ in residuals]


@torch.no_grad()
def energy_metric(head: LDOSHead, data: GridData) -> Tensor:
    """Tensor [S, S], float64: 1/S, and the mean of w w^T with w the weights of the density at the Fermi level."""
    metric = torch.eye(head.last.out_features, dtype=torch.float64) / head.last.out_features
    for item in (data[k] for k in range(len(data))):
        weights = float(head.scale) * item.volume / item.n_electrons * item.number.double()
        metric += DENSITY / len(data) * torch.outer(weights, weights)
    return metric


def nearest(metric: Tensor, normal: Tensor, rows: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Solution X [S, K], float64, that minimizes tr M X N X^T + sum_m weights_m (rows_m.X - wanted_m)^2.

    Parameters
    ----------
    metric
        M, Tensor [S, S].
    normal
        N, Tensor [K, K], positive definite.
    rows : Tensor [m, S, K]
    wanted, weights : Tensor [m]

    Notes
    -----
    From the normal equations of the few rows: X = sum_m c_m M^-1 rows_m N^-1, with c from
    (rows_m.(M^-1 rows_n N^-1) + 1/weights_m on the diagonal) c = wanted.
    """
    left, right = torch.linalg.cholesky(metric), torch.linalg.cholesky(normal)
    # R = A^-1 rows B^-T with M = A A^T, N = B B^T
    reduced = torch.linalg.solve_triangular(left, rows, upper=False)
    reduced = torch.linalg.solve_triangular(right.T, reduced, upper=True, left=False)
    flat = reduced.flatten(1)
    coefficients = torch.linalg.solve(flat @ flat.T + torch.diag(1 / weights), wanted)
    combined = torch.linalg.solve_triangular(left.T, torch.tensordot(coefficients, reduced, 1), upper=True)
    return torch.linalg.solve_triangular(right, combined, upper=False, left=False)
