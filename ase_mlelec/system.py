"""System: one or many structures as tensors. The only place where strain is applied."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_mlelec.checks import check_atoms


@dataclass(frozen=True)
class System:
    """A batch of B structures with N atoms in all.

    Attributes
    ----------
    positions : Tensor [N, 3], Å
    numbers : Tensor [N]
        Atomic numbers.
    cell : Tensor [B, 3, 3], Å
        Lattice vectors in rows; zero rows along directions without one.
    pbc : Tensor [B, 3]
        Bool.
    batch : Tensor [N]
        The structure every atom belongs to.
    """

    positions: torch.Tensor
    numbers: torch.Tensor
    cell: torch.Tensor
    pbc: torch.Tensor
    batch: torch.Tensor

    @classmethod
    def from_atoms(
        cls, atoms: Atoms | Iterable[Atoms], dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu"
    ) -> "System":
        """Build from one ase.Atoms or a sequence of them.

        Raises
        ------
        InputError
            For an empty structure, positions that are NaN, infinite or beyond LARGEST, and a periodic cell without volume.
        """
        images: list[Any] = [atoms] if hasattr(atoms, "get_atomic_numbers") else list(atoms)
        if not images:
            raise InputError("got an empty sequence of structures; give at least one ase.Atoms")
        for image in images:
            check_atoms(image)
        counts = [len(image) for image in images]

        def tensor(rows, kind):
            return torch.from_numpy(np.asarray(rows)).to(device=device, dtype=kind)

        return cls(
            positions=tensor(np.concatenate([image.positions for image in images]), dtype),
            numbers=tensor(np.concatenate([image.numbers for image in images]), torch.long),
            cell=tensor([image.cell.array for image in images], dtype),
            pbc=tensor([image.pbc for image in images], torch.bool),
            batch=tensor(np.repeat(np.arange(len(images)), counts), torch.long),
        )

    @property
    def n_systems(self) -> int:
        return len(self.cell)

    @property
    def n_atoms(self) -> torch.Tensor:
        """Tensor [B], atoms of each structure."""
        return torch.bincount(self.batch, minlength=self.n_systems)

    def singles(self) -> list["System"]:
        """list of System, one for each structure."""
        counts = self.n_atoms.tolist()
        return [
            System(positions, numbers, self.cell[b : b + 1], self.pbc[b : b + 1], torch.zeros_like(numbers))
            for b, (positions, numbers) in enumerate(zip(self.positions.split(counts), self.numbers.split(counts)))
        ]

    def to(self, dtype: torch.dtype) -> "System":
        """The same structures with positions and cells in another precision."""
        if self.positions.dtype == dtype:
            return self
        return replace(self, positions=self.positions.to(dtype), cell=self.cell.to(dtype))

    @property
    def volume(self) -> torch.Tensor:
        """Tensor [B], Å^3."""
        return torch.linalg.det(self.cell).abs()

    def strained(self, strain: torch.Tensor) -> "System":
        """The structures deformed by a strain: r -> r (1 + ε), cell -> cell (1 + ε); ε is Tensor [B, 3, 3]."""
        deformation = torch.eye(3, dtype=self.cell.dtype, device=self.cell.device) + strain
        return replace(
            self,
            positions=torch.einsum("ni,nij->nj", self.positions, deformation[self.batch]),
            cell=self.cell @ deformation,
        )

    def sum_per_system(self, values: torch.Tensor) -> torch.Tensor:
        """Sum per-atom values [N, ...] over the atoms of each structure -> [B, ...]."""
        out = values.new_zeros(self.n_systems, *values.shape[1:])
        return out.index_add(0, self.batch, values)
