r"""Derivatives of sums of vectors by the positions of the atoms, from which Born charges follow.

With M = sum_i (Z_i - Q_i) r_i - Q/k sum_c d_c, the Born charges are

.. math::

    Z^*_{i,ab} = \frac{\partial M_a}{\partial r_{ib}} = (Z_i - Q_i) \delta_{ab} - \frac{Q}{k} S_{i,ab},
    \qquad S_{i,ab} = \frac{\partial}{\partial r_{ib}} \sum_c d_{ca}

and S is linear in the unknowns of a drawn net, as the vectors d are.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.data.batches import Batch
from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.nets import DenseLayer
from ase_mlelec.system import System
from ase_mlelec.train.drawn_nets import DrawnNet

LARGEST = 2_000_000  # numbers in the derivatives of edges that are held at once


def slopes_of_sums(model: Model, batch: Batch, quantity: str) -> Tensor:
    """Derivatives S [N, 3, 3] of the sum of the vectors of a structure: of component a by the coordinate b of an atom.

    They can be differentiated by the parameters of the model, unless under ``torch.no_grad()``.
    """
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        positions, _, system, edges = batch.strained_edges()
        sums = model(system, edges, (quantity,))[quantity].sum(dim=0)
        found = [torch.autograd.grad(each, positions, create_graph=training, retain_graph=True)[0] for each in sums]
    return torch.stack(found, dim=1)


@torch.no_grad()
def slope_columns(drawn: DrawnNet, batch: Batch) -> tuple[Tensor, Tensor]:
    """Derivatives of S by the unknowns of a drawn net of vectors, and S of its bias alone.

    Returns
    -------
    Tensor [N, 3, 3, P], Tensor [N, 3, 3]
    """
    model, numbers = drawn.model, batch.system.numbers
    descriptor = model.descriptor_of(drawn.name)
    edges, species = batch.edges().up_to(descriptor.cutoff), model.species_index(numbers)
    columns, of_bias = [], edges.vec.new_zeros(len(numbers), 3, 3)
    for k, own in enumerate(drawn.head.centers):
        mine = edges.at_centers((species == own).nonzero()[:, 0])
        found = edges.vec.new_zeros(len(numbers), 3, 3, sum(drawn.directions[k].shape))
        if len(mine.vec):
            for rows, slopes, bias in _of_edges(drawn, k, batch.system, mine):
                for total, part in ((found, slopes), (of_bias, bias)):
                    total.index_add_(0, mine.neighbor[rows], part)
                    total.index_add_(0, mine.atoms[mine.center[rows]], part, alpha=-1)
        columns.append(found)
    return torch.cat(columns, dim=3), of_bias


def _of_edges(drawn: DrawnNet, k: int, system: System, edges: Edges) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Part by part of the edges: their rows, and the derivatives of the vectors of their centers by the edge vectors.

    They are [e, a, b, P] by the unknowns of the net k, and [e, a, b] of its bias. A vector is sum_m F_m T_m, so that both
    its factors change: the hidden layer with the features, and the rows T of the frame.
    """
    nets, directions = drawn.head.nets, drawn.directions[k]
    environment, of_features, of_frame = _jacobian(drawn.model.descriptor_of(drawn.name), system, edges)
    frame: Any = environment.frame
    hidden, weight = _hidden_and_slopes(nets.hidden[k][0], (environment.features - nets.shift[k]) * nets.inverse[k])
    along = (frame.mT * nets.scale) @ directions.T  # [C, a, p]
    size = max(1, LARGEST // (9 * sum(directions.shape)))
    for start in range(0, len(edges.vec), size):
        rows = slice(start, start + size)
        center, turned = edges.center[rows], of_frame[rows].permute(0, 3, 1, 2)  # [e, a, b, m]
        changes = (of_features[rows] * nets.inverse[k]) @ nets.hidden[k][0].weight * weight[center, None]  # [e, b, p]
        functions = along[center, :, None] * changes[:, None]
        functions += ((turned * nets.scale) @ directions.T) * hidden[center, None, None]
        yield rows, torch.cat([functions, turned * nets.scale], dim=3), turned @ nets.bias[k]


def _jacobian(descriptor: Descriptor, system: System, edges: Edges) -> tuple[Environment, Tensor, Tensor]:
    """Environment, and derivatives by the edge vectors of features [E, 3, F] and frame [E, 3, M, 3] of their centers."""
    vec = edges.vec.detach().requires_grad_(True)
    with torch.enable_grad():
        found = descriptor(system, edges.with_vec(vec))
        assert found.frame is not None  # the constructor of the model has checked it
        outputs = torch.cat([found.features, found.frame.flatten(1)], dim=1).sum(dim=0)
        # every edge belongs to one center, so that sums over the centers do
        slopes = torch.stack([torch.autograd.grad(each, vec, retain_graph=True)[0] for each in outputs], dim=2)
    n_features = found.features.shape[1]
    environment = Environment(found.features.detach(), found.species, found.frame.detach())
    return environment, slopes[:, :, :n_features], slopes[:, :, n_features:].unflatten(2, found.frame.shape[1:])


def _hidden_and_slopes(layer: DenseLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values [C, H] of a layer without a shortcut, and derivatives of its activation function."""
    with torch.enable_grad():
        z = torch.addmm(layer.bias, x, layer.weight).detach().requires_grad_(True)
        y = layer.activation(z)
        (slopes,) = torch.autograd.grad(y.sum(), z)
    return y.detach(), slopes
