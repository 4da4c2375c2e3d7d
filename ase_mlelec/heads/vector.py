"""Vectors and tensors of chosen centers: displacements of Wannier centroids from their atoms, polarizabilities."""

from collections.abc import Sequence
from typing import Any

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
    common_responses = False

    def __init__(
        self,
        n_species: int,
        n_features: int,
        n_rows: int,
        centers: Sequence[int],
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

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self, rare=("activation",))

    def basis(self, frame: Tensor) -> Tensor:
        """Tensors B_o [C, n_out, 3 ...] that are multiplied by the outputs of the nets."""
        raise NotImplementedError(f"{type(self).__name__} must define basis(frame)")

    def contract(self, outputs: Tensor, frame: Tensor) -> Tensor:
        """Sum [C, 3 ...] of the outputs [C, n_out] of the nets times ``basis``."""
        raise NotImplementedError(f"{type(self).__name__} must define contract(outputs, frame)")

    def forward(self, environment: Environment, edges: Edges) -> Tensor:
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

    def last_inputs(self, environment: Environment) -> tuple[Tensor, Tensor]:
        """Inputs [C, H] of the last layer (zero without a net), and the number [C] of the net of every center, or -1."""
        place = self.place[environment.species]
        rows = (place >= 0).nonzero()[:, 0]
        own = self.nets.last_inputs(environment.features.index_select(0, rows), place.index_select(0, rows))
        return own.new_zeros(len(place), own.shape[1]).index_copy(0, rows, own), place

    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [nets, H + 1, outputs] to the weights and constants of the last layer."""
        self.nets.change_last(change)

    def responses(self, environment: Environment, outputs: Tensor) -> Tensor:
        """Tensors [C, Q, 3 ...] of columns of outputs [n_out, Q]; see ase_mlelec.uncertainty.bars."""
        frame: Any = environment.frame
        return torch.stack([self.contract(column.expand(len(frame), -1), frame) for column in outputs.T], dim=1)


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
        centers: Sequence[int],
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        activation: str = "tanh",
    ):
        super().__init__(n_species, n_features, n_rows, centers, widths, timestep, n_rows, activation)

    def basis(self, frame: Tensor) -> Tensor:
        return frame

    def contract(self, outputs: Tensor, frame: Tensor) -> Tensor:
        return (outputs[:, None] @ frame)[:, 0]


class TensorHead(CenterHead):
    """Symmetric tensors [C, 3, 3], A = F_0(D) 1 + sum_j F_j(D) T_j ⊗ T_j, Å^3 for polarizabilities.

    T_j is the j-th row of ``Environment.frame`` [C, M, 3].

    Parameters
    ----------
    full : bool
        True takes all products, sum_ij F_ij T_i ⊗ T_j with F_ij = F_ji.

    References
    ----------
    Sommers et al. 2020 (Phys. Chem. Chem. Phys. 22, 10592) for the products; there the isotropic part is a constant.
    """

    index: Tensor

    quantity = "polarizability"

    def __init__(
        self,
        n_species: int,
        n_features: int,
        n_rows: int,
        centers: Sequence[int],
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        full: bool = False,
        activation: str = "tanh",
    ):
        n_out = 1 + (n_rows * (n_rows + 1) // 2 if full else n_rows)
        super().__init__(n_species, n_features, n_rows, centers, widths, timestep, n_out, activation)
        self.full = full
        if full:  # places of F_ij in the outputs
            i, j = torch.triu_indices(n_rows, n_rows)
            index = torch.zeros(n_rows, n_rows, dtype=torch.long)
            index[i, j] = index[j, i] = torch.arange(1, n_out)
            self.register_buffer("index", index, persistent=False)

    def basis(self, frame: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=frame.dtype, device=frame.device).expand(len(frame), 1, 3, 3)
        if not self.full:
            return torch.cat([eye, frame[:, :, :, None] * frame[:, :, None]], dim=1)
        i, j = torch.triu_indices(self.n_rows, self.n_rows, device=frame.device)
        products = frame[:, i, :, None] * frame[:, j, None]
        return torch.cat([eye, torch.where((i < j)[:, None, None], products + products.mT, products)], dim=1)

    def contract(self, outputs: Tensor, frame: Tensor) -> Tensor:
        weighted = outputs[:, self.index] @ frame if self.full else outputs[:, 1:, None] * frame
        values = frame.mT @ weighted
        eye = torch.eye(3, dtype=frame.dtype, device=frame.device)
        return (values + values.mT) / 2 + outputs[:, 0, None, None] * eye  # symmetric to the last bit
