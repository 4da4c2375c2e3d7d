"""Labeled structures as batches of tensors; ase_mlelec.data.frames reads the files."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from ase.calculators.calculator import InputError

from ase_mlelec.data.data_set import check_same
from ase_mlelec.data.fixed import FixedStructures
from ase_mlelec.data.frames import Frames
from ase_mlelec.descriptors import Descriptor, Environment
from ase_mlelec.edges import Edges, connect, find_pairs
from ase_mlelec.heads.base import FittingNets
from ase_mlelec.model import Model
from ase_mlelec.quantities import LABELS, QUANTITIES
from ase_mlelec.system import System


@dataclass(frozen=True)
class Batch:
    """Structures with their labels and pairs of atoms, as tensors; arrays by atom are concatenated.

    Attributes
    ----------
    pairs : (center, neighbor, shift) within ``cutoff`` Å
    labels : dict of Tensor
        Values of every label, for the structures that have it, in their order; a label that no structure has is left
        out.
    partial : dict of Tensor [B]
        Mask of the structures that have a label, for the labels that some structures lack.
    environment : Environment or None
        Environment of all atoms, where the descriptor is fixed.
    weights : Tensor [B]
        Configuration weights.
    fixed, indices
        FixedStructures of a descriptor that is trained, and the structures of the batch among them; None for none.
    label_weights : dict of Tensor [B]
        Further weights of the labels that have some.
    shares : dict of (float, float, float) or None
        Of a batch that is a part of another, by tuple of labels: its share of the structures with one of them, of the
        atoms of these, and of those atoms that have a value.
    """

    system: System
    pairs: tuple
    labels: dict
    cutoff: float
    weights: torch.Tensor
    environment: Environment | None = None
    partial: dict = field(default_factory=dict)
    fixed: FixedStructures | None = None
    indices: Sequence[int] = ()
    label_weights: dict = field(default_factory=dict)
    shares: dict | None = None

    def mean(self, name: str, values: torch.Tensor, *, of_atoms: bool = False) -> torch.Tensor:
        """Mean of values of the structures, or of the atoms, with a label; the addend of this part to that of the whole."""
        return values.mean() * self.share(name, of="atoms" if of_atoms else "structures")

    def share(self, *names: str | None, of: str) -> float:
        """Share of this part in the whole: of the "structures" that have a label, their "atoms", or "values" of these."""
        labels = tuple(name for name in names if name)
        return 1.0 if self.shares is None else self.shares[labels][("structures", "atoms", "values").index(of)]

    def scaled(self, name: str, weights: torch.Tensor) -> torch.Tensor:
        """Weights of all structures, or of all atoms for labels by atom, times the weights of a label."""
        factors = self.label_weights.get(name)
        if factors is None:
            return weights
        return weights * (factors[self.system.batch] if LABELS[name].of_atoms else factors)

    def weights_of(self, name: str) -> torch.Tensor:
        """Weights [B] of a label of all structures: configuration weights times those of the label."""
        return self.weights * self.label_weights.get(name, 1.0)

    def parts(self, model: Model, quantity: str) -> list | None:
        """Parts of the centers with a quantity of ``model``, by species; None where only edges will do."""
        head = model.heads[quantity]
        if (
            self.fixed is None
            or self.fixed.descriptor is not model.descriptor_of(quantity)
            or not isinstance(getattr(head, "nets", None), FittingNets)
            or (quantity == "energy" and model.core is not None)
        ):
            return None
        return self.fixed.parts(self.indices, getattr(head, "centers", range(len(model.species))))

    def has(self, name: str) -> torch.Tensor:
        """Mask [B] of the structures that have a label."""
        every = torch.ones(self.system.n_systems, dtype=torch.bool, device=self.system.positions.device)
        return self.partial.get(name, every if name in self.labels else ~every)

    def matching(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Rows of ``values`` that have a label; rows are atoms for labels by atom, and structures for other labels."""
        if name not in self.partial:
            return values
        chosen = self.partial[name]
        return values[chosen[self.system.batch] if LABELS[name].of_atoms else chosen]

    def predict(self, model: Model, quantity: str) -> torch.Tensor:
        """Prediction [N, ...] of a quantity of every atom."""
        if self.environment is not None:
            return model.heads[quantity](self.environment, None)
        parts = self.parts(model, quantity)
        if parts:
            values = torch.cat([model.heads[quantity](part.environment(part.moments), None) for part in parts])
            atoms = torch.cat([part.slots.atoms for part in parts])
            return values.new_zeros(len(self.system.numbers), *values.shape[1:]).index_copy(0, atoms, values)
        edges, chosen = self.edges(), model.is_center(self.system.numbers, quantity)
        if bool(chosen.all()):
            return model(self.system, edges, (quantity,))[quantity]
        rows = chosen.nonzero()[:, 0]
        values = model(self.system, edges.at_centers(rows), (quantity,))[quantity]
        return values.new_zeros(len(chosen), *values.shape[1:]).index_copy(0, rows, values)

    def edges(self) -> Edges:
        center, neighbor, shift = self.pairs
        return connect(self.system, center, neighbor, shift, self.cutoff)

    def strained_edges(self) -> tuple:
        """(positions, strain, system, edges): system and edges are functions of the leaves positions and strain."""
        strain = torch.zeros_like(self.system.cell, requires_grad=True)
        positions = self.system.positions.detach().requires_grad_(True)
        leaf = System(positions, self.system.numbers, self.system.cell, self.system.pbc, self.system.batch)
        strained = leaf.strained(strain)
        center, neighbor, shift = self.pairs
        return positions, strain, strained, connect(strained, center, neighbor, shift, self.cutoff)


class Batches:
    """Frames as tensors, with neighbor lists that are built once; ``batch(indices)`` joins some frames.

    Parameters
    ----------
    labels : sequence of str
        Names of the labels to take from the frames.

    Raises
    ------
    ValueError
        For labels of a wrong shape or that are not finite.
    """

    def __init__(
        self,
        frames: Frames,
        cutoff: float,
        labels: Sequence[str],
        dtype: torch.dtype,
        device: str | torch.device = "cpu",
    ) -> None:
        if labels:
            frames.check(*labels)
        self.cutoff, self.label_names = cutoff, tuple(labels)
        self.names = [frame.name for frame in frames]
        self.systems = [System.from_atoms(frame.atoms, dtype, device) for frame in frames]
        self.pairs = [find_pairs(system, cutoff) for system in self.systems]

        def tensor(values):
            return torch.as_tensor(np.asarray(values), dtype=dtype, device=device)

        self.labels = [{n: tensor(frame.labels[n]) for n in labels if n in frame.labels} for frame in frames]
        self.weights = torch.tensor([frame.weight for frame in frames], dtype=dtype, device=device)
        columns = {name: [frame.label_weights.get(name, 1.0) for frame in frames] for name in labels}
        self.label_weights = {name: tensor(column) for name, column in columns.items() if {*column} != {1.0}}
        self.environments: list | None = None
        self.fixed: FixedStructures | None = None

    @classmethod
    def for_model(cls, model: Model, frames: Frames, labels: Sequence[str]) -> Self:
        """Batches with the precision, device and cutoff of ``model``.

        Raises
        ------
        InputError
            For species that the model does not know.
        ValueError
            For frames with another energy grid.
        """
        for frame in frames:
            model.check_species(frame.atoms.numbers)
        for quantity in (row for row in QUANTITIES.values() if row.name in model.heads):
            spectra = [name for name in quantity.labels if name in labels and LABELS[name].on_grid]
            if spectra:
                _check_grid(model.heads[quantity.name].energies.cpu().numpy(), frames, spectra)
                widths = [each.get("dos_width_eV") for each in (model.metadata, frames.attributes)]
                check_same("Gaussian widths (eV) of the levels of model and data", widths)
        return cls(frames, model.reach, labels, model.dtype, next(model.parameters()).device)

    def __len__(self):
        return len(self.systems)

    def with_label(self, *names: str) -> Self:
        """Batches of the frames that have at least one of these labels."""
        chosen = [k for k, labels in enumerate(self.labels) if any(name in labels for name in names)]
        found = copy.copy(self)
        for key in ("names", "systems", "pairs", "labels", "environments"):
            column = getattr(self, key)
            setattr(found, key, column and [column[k] for k in chosen])
        found.weights = self.weights[chosen]
        found.label_weights = {name: column[chosen] for name, column in self.label_weights.items()}
        return found

    @torch.no_grad()
    def fix(self, descriptor: Descriptor) -> Self:
        """Evaluate a fixed descriptor once; batches then carry its environments.

        Returns
        -------
        self
        """
        self.environments = [descriptor(batch.system, batch.edges()) for batch in self.all_batches(1)]
        return self

    def prepare(self, descriptor: Descriptor) -> Self:
        """Keep what does not change while ``descriptor`` is trained on these structures, where it has such parts.

        Returns
        -------
        self
        """
        if hasattr(descriptor, "of_moments"):
            edges = (self._edges_or_none(k, descriptor.cutoff) for k in range(len(self)))
            self.fixed = FixedStructures(descriptor, self.systems, edges)
        return self

    def _edges_or_none(self, k, cutoff):
        """Edges of a structure; None where atoms overlap, which the step that meets it reports."""
        try:
            return connect(self.systems[k], *self.pairs[k], self.cutoff).up_to(cutoff)
        except InputError:
            return None

    def batch(self, indices: Sequence[int]) -> Batch:
        systems = [self.systems[i] for i in indices]
        counts = torch.tensor([len(system.positions) for system in systems], device=systems[0].positions.device)
        names = "positions", "numbers", "cell", "pbc"
        columns = {name: torch.cat([getattr(system, name) for system in systems]) for name in names}
        batch = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        joined = System(**columns, batch=batch)
        labels, partial = {}, {}
        for name in self.label_names:
            having = [name in self.labels[i] for i in indices]
            if any(having):
                join_rows = torch.cat if LABELS[name].of_atoms else torch.stack
                labels[name] = join_rows([self.labels[i][name] for i, has in zip(indices, having) if has])
                if not all(having):
                    partial[name] = torch.tensor(having, device=counts.device)
        rows = torch.as_tensor(indices, device=counts.device)
        shared: dict[str, Any] = {
            "system": joined,
            "labels": labels,
            "cutoff": self.cutoff,
            "weights": self.weights[rows],
            "partial": partial,
            "label_weights": {name: column[rows] for name, column in self.label_weights.items()},
        }
        if self.environments is not None:  # the descriptor is fixed, and nothing reads the pairs
            return Batch(pairs=(), environment=join_environments([self.environments[i] for i in indices]), **shared)
        offsets = np.cumsum([0, *counts.tolist()])
        pairs = tuple(
            torch.cat([self.pairs[i][k] + (int(offset) if k < 2 else 0) for i, offset in zip(indices, offsets)])
            for k in range(3)
        )
        return Batch(pairs=pairs, fixed=self.fixed, indices=list(indices), **shared)

    def all_batches(self, size: int, *, most_atoms: int | None = None) -> Iterator:
        """Iterate over all frames in order, ``size`` at a time, or fewer of together ``most_atoms`` atoms."""
        start = atoms = 0
        for k, system in enumerate(self.systems):
            atoms += len(system.positions)
            if k - start == size or (k > start and most_atoms is not None and atoms > most_atoms):
                yield self.batch(range(start, k))
                start, atoms = k, len(system.positions)
        if len(self):
            yield self.batch(range(start, len(self)))


def join_environments(environments: Sequence[Environment]) -> Environment:
    """Join several Environments, center after center."""
    columns = ([getattr(each, name) for each in environments] for name in ("features", "species", "frame"))
    return Environment(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]


def _check_grid(grid, frames, labels):
    """Raise ValueError where the spectra of ``frames`` cannot be on ``grid`` [S] (eV)."""
    found = frames.energies
    if found is not None and (len(found) != len(grid) or not np.allclose(found, grid, atol=1e-6)):
        raise ValueError(
            f"the energy grid of the data is {found[0]:g}..{found[-1]:g} eV, {len(found)} points, that of "
            f"the model {grid[0]:g}..{grid[-1]:g} eV, {len(grid)} points; give the runs themselves to 'mlelec test', or "
            f"convert them with --grid {grid[0]:g} {grid[-1]:g} --step {(grid[-1] - grid[0]) / (len(grid) - 1):g}"
        )
    for frame in frames:
        for name in labels:
            if np.shape(frame.labels.get(name, grid))[-1:] != (len(grid),):
                raise ValueError(
                    f"{frame.name or 'unnamed frame'}: '{name}' has {np.shape(frame.labels[name])[-1]} "
                    f"energies, the model {len(grid)}; bring the data to the model's grid"
                )
