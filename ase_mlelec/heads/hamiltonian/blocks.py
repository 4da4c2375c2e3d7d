"""Head that predicts the blocks of a tight-binding Hamiltonian of layered crystals.

A block holds the matrix elements between the functions of two atoms, or of one atom with itself. There are three kinds:

- on-site blocks depend on the environment of the atom (``onsite``);
- hopping within a layer and hopping between layers depend on the pair vector and on reduced representations of both
  environments (``hopping``, made of two-center and three-center terms).

References
----------
Slater and Koster 1954, Phys. Rev. 94, 1498; Qi et al. 2024, section II B, for the three kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.descriptors.layer_moments import Geometry, LayerMoments, Layers
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Blocks, HeadOfPairs
from ase_mlelec.heads.hamiltonian.assemble import elements
from ase_mlelec.heads.hamiltonian.hopping import FADE, REFLECTIONS, Hopping, View
from ase_mlelec.heads.hamiltonian.members import last_layers
from ase_mlelec.heads.hamiltonian.onsite import OnsiteBlocks
from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions, reflected_block
from ase_mlelec.nets import constructor_arguments, map_by_species


def interface_features(layers: Layers, reference_areas: Mapping[str, float]) -> Tensor:
    """Features [L - 1, 2] of the interfaces: strain difference and logarithm of the ratio of atoms, below - above.

    Parameters
    ----------
    reference_areas : dict of float, Å^2 per atom
        Area of the unstrained layer of every formula; layers of other formulas count as unstrained.
    """
    strain = torch.stack(
        [
            0.5 * (area / reference_areas[formula]).log() if formula in reference_areas else torch.zeros_like(area)
            for area, formula in zip(layers.areas, layers.formulas)
        ]
    )
    count = torch.tensor(layers.n_atoms, dtype=torch.float64).log()
    return torch.stack([strain[:-1] - strain[1:], count[:-1] - count[1:]], dim=1)


def layer_shifts(steps: Tensor) -> Tensor:
    """Potential shift [L] of every layer, eV, from the steps D [L - 1] at the interfaces."""
    shifts = torch.zeros(len(steps) + 1, dtype=torch.float64)
    for place, step in enumerate(steps):
        above = torch.arange(len(shifts)) > place
        shifts = shifts + torch.where(above, step / 2, -step / 2)
    return shifts


class Standardization(torch.nn.Module):
    """Shift and scale the features of every species to about unit size."""

    shift: Tensor
    inverse: Tensor

    def __init__(self, n_species: int, n_features: int):
        super().__init__()
        self.register_buffer("shift", torch.zeros(n_species, n_features))
        self.register_buffer("inverse", torch.ones(n_species, n_features))

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """Standardized features [N, F] of atoms of ``species`` [N]."""
        return (features - self.shift[species]) * self.inverse[species]


class HamiltonianHead(HeadOfPairs):
    """Blocks of a Hamiltonian, eV above the vacuum level.

    Rows and columns of a block are the real harmonics of ``orbitals`` in the frames of the two atoms' layers.
    Blocks have exact derivatives with respect to the positions and the cell of the structure.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols, the same as in the descriptor.
    functions : dict by symbol of dict
        "orbitals": list of names as in ``orbitals``; "z" and "x": axes of each orbital in the frame of the layer, for
        atoms above the middle of their layer; "sided": whether atoms below the middle have mirrored axes.
    n_features, n_channels, n_ace, n_third, symmetry : int
        Sizes of a LayerMoments; see ``for_descriptor``.
    cutoff, third : float
        Å. ``cutoff``: range of hopping. ``third``: a third atom within this distance of both atoms changes their
        hopping; 0 for no three-center terms.
    widths : sequence of int
        Widths of the hidden layers of the pair nets.
    n_hidden : int
        Width of the hidden layer of the environment nets.
    n_reduced, n_directed : int
        Size of the reduced representation of an environment: invariant numbers, and channels of every azimuthal number.
    reference_areas : dict of float, optional
        Area per atom, Å^2, of the unstrained layer of every formula.

    Raises
    ------
    ValueError
        For a species without functions and for a cutoff that is too short.
    """

    quantity = "hamiltonian"
    orbitals: Any  # ModuleList of AtomicFunctions
    moment_inverse: Tensor
    third_inverse: Tensor
    onsite_scale: Tensor
    interface_dipole: Tensor

    def __init__(
        self,
        species: Sequence[str],
        functions: Mapping[str, Mapping],
        *,
        n_features: int,
        n_channels: int,
        symmetry: int,
        n_ace: int = 0,
        n_third: int = 0,
        cutoff: float = 12.0,
        third: float = 0.0,
        widths: Sequence[int] = (48, 32),
        n_hidden: int = 48,
        n_reduced: int = 16,
        n_directed: int = 4,
        reference_areas: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.species, self.functions, self.symmetry = tuple(species), dict(functions), symmetry
        self.n_features, self.n_channels, self.n_ace, self.n_third = n_features, n_channels, n_ace, n_third
        self.cutoff, self.third, self.widths = float(cutoff), float(third), tuple(widths)
        self.n_hidden, self.n_reduced, self.n_directed = n_hidden, n_reduced, n_directed
        self.reference_areas = dict(reference_areas or {})
        if cutoff <= FADE:
            raise ValueError(f"cutoff: got {cutoff} Å, need more than {FADE}, from where hopping fades")
        missing = [symbol for symbol in self.species if symbol not in self.functions]
        if missing:
            raise ValueError(f"functions: got none of {missing[0]}, need those of {', '.join(self.species)}")
        self.n_turning = (n_features // n_channels) - 7 if n_channels else 0
        self.orbitals = torch.nn.ModuleList(AtomicFunctions(self.functions[symbol]) for symbol in self.species)
        self._build_parts()
        self._build_normalization()

    def _build_parts(self):
        n_moments = 2 * self.n_channels
        self.environment = torch.nn.ModuleList(
            _environment_net(self.n_features, self.n_hidden, self.n_reduced) for _ in self.species
        )
        sizes = self.n_features + self.n_ace, self.n_reduced, self.n_directed, n_moments, self.n_third
        self.onsite = torch.nn.ModuleList(OnsiteBlocks(functions, self.symmetry, *sizes) for functions in self.orbitals)
        self.directed = torch.nn.Parameter(
            torch.randn(max(self.n_turning, 1), self.n_directed, n_moments) * n_moments**-0.5
        )
        self.hopping = Hopping(
            self.orbitals,
            third=self.third,
            symmetry=self.symmetry,
            cutoff=self.cutoff,
            widths=self.widths,
            sizes=(self.n_reduced, self.n_directed, self.n_turning),
        )

    def _build_normalization(self):
        n_species = len(self.species)
        self.features = Standardization(n_species, self.n_features)
        self.ace = Standardization(n_species, self.n_ace) if self.n_ace else None
        self.register_buffer("moment_inverse", torch.ones(max(self.n_turning, 1), 2 * self.n_channels))
        if self.n_third:
            self.register_buffer("third_inverse", torch.ones(self.n_turning, self.n_third))
        self.register_buffer("onsite_scale", torch.ones(n_species))
        self.register_buffer("interface_dipole", torch.zeros(2))

    @classmethod
    def for_descriptor(
        cls, descriptor: LayerMoments, functions: Mapping[str, Mapping], **options: Any
    ) -> "HamiltonianHead":
        """A head whose sizes fit the features of ``descriptor``."""
        sizes = ("n_features", "n_channels", "symmetry", "n_ace", "n_third", "cutoff", "third", "reference_areas")
        return cls(descriptor.species, functions, **{name: getattr(descriptor, name) for name in sizes} | options)

    def arguments(self) -> dict:
        """Constructor arguments (JSON types)."""
        return constructor_arguments(self)

    # environments ------------------------------------------------------------------------------------------------

    def view(self, geometry: Geometry, up: int = 1, across: int = 1) -> View:
        """The structure and the representations of its environments, seen in reflected frames."""
        seen = geometry.reflected(up, across)
        features, moments = self.standardized(seen), self.scaled_moments(seen)
        directed = torch.einsum("nmq,qcm->ncq", moments, self.directed[: moments.shape[2]].to(moments.dtype))
        reduced = map_by_species(
            lambda k, rows: self.environment[k](rows[:, : self.n_features]), seen.species, len(self.species), features
        )
        return View(up, across, seen, features, reduced, directed)

    def standardized(self, geometry: Geometry) -> Tensor:
        """Standardized features [N, F + P]: invariants of the layer moments, then ACE invariants."""
        found = self.features(geometry.features, geometry.species)
        return found if self.ace is None else torch.cat([found, self.ace(geometry.ace, geometry.species)], dim=1)

    def scaled_moments(self, geometry: Geometry) -> Tensor:
        """Complex moments [N, m, q] of the azimuthal numbers q = 1, 2 ... below M, scaled to about unit size."""
        moments = [
            torch.cat([geometry.moments[:, 3 + 2 * q], geometry.moments[:, 4 + 2 * q]], dim=1) * self.moment_inverse[q]
            for q in range(self.n_turning)
        ]
        empty = geometry.moments.new_zeros(len(geometry.species), 2 * self.n_channels, 0)
        return torch.stack(moments, dim=2) if moments else empty

    def scaled_third_moments(self, geometry: Geometry) -> Tensor | None:
        """Moments [N, C, q] of third atoms, scaled to about unit size; None in a model without them."""
        return None if geometry.third_moments is None else geometry.third_moments * self.third_inverse.T

    # blocks -----------------------------------------------------------------------------------------------------

    def forward(self, environment: Geometry, edges: Edges | None = None) -> Blocks:
        """Blocks, eV, with the shifts of whole layers."""
        blocks = self.unshifted(environment)
        shifts = torch.cat([self.layer_shifts(layers) for layers in environment.layers])
        shifts = shifts.to(environment.r)[environment.layer]
        onsite = {
            k: block + shifts[blocks.atoms(k)][:, None, None] * torch.eye(block.shape[1]).to(block)
            for k, block in blocks.onsite.items()
        }
        return replace(blocks, onsite=onsite)

    def unshifted(self, geometry: Geometry) -> Blocks:
        """Blocks, eV, without the shifts of whole layers."""
        views = [self.view(geometry, up, across) for up, across in REFLECTIONS]
        moments = [(self.scaled_moments(view.geometry), self.scaled_third_moments(view.geometry)) for view in views]
        onsite = {k: self._onsite(k, geometry, views, moments) for k in range(len(self.species))}
        return Blocks(geometry, onsite, self.hopping(geometry, views))

    def _onsite(self, k, geometry, views, moments):
        """Symmetric blocks [n, W, W] of the atoms of species k, the mean over the views of reflected frames."""
        atoms, functions, total = (geometry.species == k).nonzero()[:, 0], self.orbitals[k], 0
        for view, (turning, third) in zip(views, moments):
            block = self.onsite_scale[k] * self.onsite[k](
                view.features[atoms],
                view.reduced[atoms],
                view.directed[atoms],
                turning[atoms],
                None if third is None else third[atoms],
            )
            total = total + reflected_block(block, functions, functions, view.up, view.across)
        block = total / len(views)
        return (block + block.mT) / 2

    def elements(self, blocks: Blocks) -> tuple[NDArray, ...]:
        """Elements between the functions of one structure, as arrays; see ``assemble.elements``."""
        return elements(blocks, self.orbitals)

    def change_last(self, change: Tensor, layer: str) -> None:
        """Add ``change`` [1, H + 1, outputs] to weights and constants of one of ``members.last_layers``."""
        with torch.no_grad():
            last = last_layers(self)[layer]
            last.weight.add_(change[0, :-1].T)
            last.bias.add_(change[0, -1])

    # layers ------------------------------------------------------------------------------------------------------

    def interface_features(self, layers: Layers) -> Tensor:
        """Features [L - 1, 2] of the interfaces of one structure; the potential steps are linear in them."""
        return interface_features(layers, self.reference_areas)

    def layer_shifts(self, layers: Layers) -> Tensor:
        """Potential shift [L] of every layer of one structure, eV, from the dipoles of the interfaces."""
        return layer_shifts(self.interface_features(layers) @ self.interface_dipole.double().cpu())


def _environment_net(n_in, n_hidden, n_out):
    return torch.nn.Sequential(
        torch.nn.Linear(n_in, n_hidden), torch.nn.SiLU(), torch.nn.Linear(n_hidden, n_out), torch.nn.SiLU()
    )
