"""Vectors of chosen centers, such as the displacement of the Wannier centroid from its atom."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import FittingNets, Head
from ase_mlelec.nets import constructor_arguments


class CenterHead(Head):
    r"""Base of heads that give a tensor to every center of the chosen species, and zero to all other centers.

    .. math::

        \text{value} = \sum_o F_o(D) B_o(T)

    F are the outputs of the fitting net of the center's species. B are tensors that the subclass makes of the rows T of
    ``Environment.frame``, which turn with the structure.

    Parameters
    ----------
    n_rows
        Number M of rows of ``Environment.frame``.
    centers
        Indices of the species whose atoms have a value; no other atoms go through the nets.
    n_out
        Number of tensors B_o.
    """

    place: Tensor

    def __init__(
        self,
        n_species: int,
        n_features: int,
        n_rows: int,
        centers,
        widths: Sequence[int],
        timestep: bool,
        n_out: int,
        activation: str = "tanh",
    ):
        super().__init__()
        if not centers or not all(0 <= k < n_species for k in centers):
            raise ValueError(
                f"got centers {list(centers)}, need indices of some of the {n_species} species; correct them"
            )
        self.n_species, self.n_features, self.n_rows = n_species, n_features, n_rows
        self.centers, self.widths, self.timestep = tuple(centers), tuple(widths), timestep
        self.activation = activation
        self.nets = FittingNets(len(self.centers), n_features, self.widths, n_out, timestep, activation)
        place = torch.full((n_species,), -1)
        place[list(self.centers)] = torch.arange(len(self.centers))
        self.register_buffer("place", place, persistent=False)

    def arguments(self):
        return constructor_arguments(self, rare=("activation",))

    def basis(self, frame):
        """Tensors B_o [C, n_out, 3 ...] that are multiplied by the outputs of the nets."""
        raise NotImplementedError(f"{type(self).__name__} must define basis(frame)")

    def contract(self, outputs, frame):
        """Sum [C, 3 ...] of the outputs [C, n_out] of the nets times ``basis``."""
        raise NotImplementedError(f"{type(self).__name__} must define contract(outputs, frame)")

    def forward(self, environment: Environment, edges: Edges):
        if environment.frame is None:
            raise ValueError(
                f"{type(self).__name__} got a descriptor without rows that turn with the structure; use DeepPotSE"
            )
        place = self.place[environment.species]
        rows = (place >= 0).nonzero()[:, 0]
        if len(rows) == len(place):
            return self.contract(self.nets(environment.features, place), environment.frame)
        features, place, frame = (t.index_select(0, rows) for t in (environment.features, place, environment.frame))
        values = self.contract(self.nets(features, place), frame)
        return values.new_zeros(len(environment.species), *values.shape[1:]).index_copy(0, rows, values)


class VectorHead(CenterHead):
    """Vectors [C, 3], w = sum_j F_j(D) T_j, with T_j the j-th row of ``Environment.frame`` [C, M, 3].

    A head that is trained on displacements of Wannier centroids from their atoms predicts displacements in Å.

    References
    ----------
    Zhang et al. 2020, the equation after Eq. (5).
    """

    quantity = "dipole"

    def __init__(
        self,
        n_species: int,
        n_features: int,
        n_rows: int,
        centers,
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        activation: str = "tanh",
    ):
        super().__init__(n_species, n_features, n_rows, centers, widths, timestep, n_rows, activation)

    def basis(self, frame):
        return frame

    def contract(self, outputs, frame):
        return (outputs[:, None] @ frame)[:, 0]
