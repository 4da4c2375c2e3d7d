"""Symmetric tensors of rank 2 of chosen centers, such as atomic polarizabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ase_mlelec.heads.vector import CenterHead


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
        centers,
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

    def basis(self, frame) -> Tensor:
        eye = torch.eye(3, dtype=frame.dtype, device=frame.device).expand(len(frame), 1, 3, 3)
        if not self.full:
            return torch.cat([eye, frame[:, :, :, None] * frame[:, :, None]], dim=1)
        i, j = torch.triu_indices(self.n_rows, self.n_rows, device=frame.device)
        products = frame[:, i, :, None] * frame[:, j, None]
        return torch.cat([eye, torch.where((i < j)[:, None, None], products + products.mT, products)], dim=1)

    def contract(self, outputs, frame):
        weighted = outputs[:, self.index] @ frame if self.full else outputs[:, 1:, None] * frame
        values = frame.mT @ weighted
        eye = torch.eye(3, dtype=frame.dtype, device=frame.device)
        return (values + values.mT) / 2 + outputs[:, 0, None, None] * eye  # symmetric to the last bit
