"""Long range of a model: electrostatic energy of Gaussian charges at the ions and at the Wannier centroids."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from ase.calculators.calculator import InputError
from ase.data import atomic_numbers
from torch import Tensor

from ase_mlelec import units
from ase_mlelec.edges import Edges
from ase_mlelec.heads.vector import VectorHead
from ase_mlelec.physics import long_range
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

VECTORS = VectorHead.quantity  # head of the displacements of the centroids
CHUNK, KEPT = 256, 16  # centers at a time; chunks whose graph is kept, others are evaluated twice


class Terms(NamedTuple):
    """Contributions of the long range to the results of N atoms in B structures, in double precision.

    Attributes
    ----------
    energies : Tensor [N], eV
        Half of the interaction of the charges of each atom with all others.
    forces : Tensor [N, 3], eV/Å
    virials : Tensor [B, 3, 3], eV
        -dE/dε.
    """

    energies: Tensor
    forces: Tensor
    virials: Tensor

    def part(self, atoms: slice, structure: int) -> "Terms":
        """Contributions to one structure, whose atoms are the slice ``atoms``."""
        return Terms(self.energies[atoms], self.forces[atoms], self.virials[structure : structure + 1])


@dataclass(frozen=True)
class LongRange:
    r"""Long-range part of the energy of a model, which its energy head does not contain.

    .. math::

        E = \frac{e^2}{2 \epsilon} \sum{}' q_i q_j \frac{\mathrm{erf}(r_{ij}/2\sigma)}{r_{ij}} - E_0,
        \qquad w_c = r_c + d_c / k

    over the ions with the charges Z at r and the electrons with the charges -Q at the centroids w, and all their periodic
    images; d are the vectors of that head. E_0 is the energy of all atoms far from each other, with d = 0: an
    isolated atom has no long-range energy. Forces and stress include the motion of the centroids.

    Parameters
    ----------
    width : float, Å
        Standard deviation σ of the charges.
    ions : dict of float, e
        Z by symbol.
    electrons : dict of float, e
        Q by the symbol of the atoms that have a centroid; empty for rigid ions, which need no head.
    functions_per_vector : float
        k, the number of Wannier functions whose displacements are summed in d.
    dielectric : float
        ε of the electrons. The centroids of a model follow the neighbors of their atoms, but not the macroscopic field,
        which the electrons screen by ε. The dipoles of a dense material then interact as they do at a long distance.

    Raises
    ------
    ValueError
        For a width that is not positive, a dielectric constant below 1, charges that are no numbers, and species with
        electrons but no ion.

    References
    ----------
    Zhang et al., J. Chem. Phys. 156, 124107 (2022), where ε is 1.
    """

    width: float
    ions: Mapping[str, float]
    electrons: Mapping[str, float] = field(default_factory=dict)
    functions_per_vector: float = 1.0
    dielectric: float = 1.0

    def __post_init__(self):
        numbers = self.width, self.dielectric, self.functions_per_vector
        charges = [*dict(self.ions).values(), *dict(self.electrons).values()]
        for value in (*numbers, *charges):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"long range: got {value!r}, need a number; correct it")
        if not (self.width > 0 and self.dielectric >= 1 and self.functions_per_vector > 0):
            raise ValueError(
                f"long range: got a width of {self.width:g} Å, a dielectric constant of {self.dielectric:g} and "
                f"{self.functions_per_vector:g} functions, need more than 0, at least 1, and more than 0; correct them"
            )
        foreign = sorted({*self.electrons} - {*self.ions})
        if foreign:
            raise ValueError(f"long range: got electrons of {foreign[0]}, which has no ion; give the charge of its ion")

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, for the model file."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(self).items()}

    def check(self, species: Iterable[str], heads: Iterable[str]) -> None:
        """Raise ValueError where a model of these species and heads cannot have this long range."""
        missing = [symbol for symbol in species if symbol not in self.ions]
        if missing:
            raise ValueError(f"long range: there is no charge of {missing[0]}; give one for each species")
        if self.electrons and VECTORS not in heads:
            raise ValueError(f"long range: got electrons for a model without '{VECTORS}'; train one that has it")

    def terms(self, model: Any, system: System, edges: Edges) -> Terms:
        """Long-range energies, forces and virials.

        Parameters
        ----------
        model : Model
            With the head of the displacements, where there are electrons.
        system : System
        edges : Edges
            All pairs within the cutoff of the descriptor of that head, of all atoms.

        Returns
        -------
        Terms

        Raises
        ------
        InputError
            For structures with one single period, and periods of no volume.
        """
        vectors = system.positions.new_zeros(system.positions.shape, dtype=torch.float64)
        parts = list(self._parts(model, system, edges)) if self.electrons else []
        evaluated, device = functools.partial(_vectors_of, model, system), system.positions.device
        graphs: Any = []
        for graph in map_chunks(evaluated, parts, device=device):
            vectors = vectors.index_copy(0, graph.edges.atoms, graph.vectors.detach().double())
            if len(parts) <= KEPT:
                graphs.append(graph)
        counts = system.n_atoms.tolist()
        found = [self._of_structure(single, own) for single, own in zip(system.singles(), vectors.split(counts))]
        energies, forces, virials, slopes = (torch.cat(column) for column in zip(*found))
        backward = functools.partial(_gradient, slopes)
        for leaf, gradient in map_chunks(backward, graphs or map(evaluated, parts), device=device):
            gradient, vec = gradient.double(), leaf.vec.detach().double()
            atoms = leaf.atoms[leaf.center]
            forces.index_add_(0, atoms, gradient).index_add_(0, leaf.neighbor, gradient, alpha=-1)
            virials.index_add_(0, system.batch[atoms], vec[:, :, None] * gradient[:, None], alpha=-1)
        return Terms(energies, forces, virials)

    def _parts(self, model, system, edges):
        """Edges of the centers, chunk by chunk."""
        rows = model.is_center(system.numbers, VECTORS).nonzero()[:, 0]
        return (part for _, part in edges.up_to(model.descriptor_of(VECTORS).cutoff).at_centers(rows).chunks(CHUNK))

    def _of_structure(self, system, vectors):
        """Atomic energies, forces, virial and dE/dd of one structure, with fixed displacements."""
        with torch.enable_grad():
            positions, vectors = (array.detach().double().requires_grad_(True) for array in (system.positions, vectors))
            strain = torch.zeros(3, 3, dtype=torch.float64, device=positions.device, requires_grad=True)
            ions, bound = self._charges(system.numbers)
            charged = bound.nonzero()[:, 0]
            charges = torch.cat([ions, -bound[charged]]).requires_grad_(True)
            deformation = torch.eye(3, dtype=torch.float64, device=positions.device) + strain
            at = positions @ deformation
            centroids = at[charged] + vectors[charged] / self.functions_per_vector
            cell = system.cell[0].double() @ deformation
            try:
                energy = long_range.energy(torch.cat([at, centroids]), charges, cell, system.pbc[0], self.width)
            except ValueError as error:
                raise InputError(f"long range: {error}") from None
            leaves = positions, vectors, strain, charges
            along = torch.autograd.grad(energy, leaves, allow_unused=True)
            slopes = [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, along)]
        half = charges.detach() * slopes[3] / 2
        energies = half[: len(ions)].index_add(0, charged, half[len(ions) :])
        apart = units.COULOMB / (math.sqrt(math.pi) * self.width) * ions * bound
        virial = -(slopes[2] + slopes[2].T) / 2
        return energies + apart, -slopes[0], virial[None], slopes[1]

    def _charges(self, numbers):
        """Tensors [N] of the charges of ions and electrons, e, reduced by the screening."""
        root = self.dielectric**0.5
        tables = numbers.new_zeros(2, max(atomic_numbers.values()) + 1, dtype=torch.float64)
        for table, charges in zip(tables, (self.ions, self.electrons)):
            for symbol, charge in charges.items():
                table[atomic_numbers[symbol]] = charge / root
        return tables[0][numbers], tables[1][numbers]


class _Graph(NamedTuple):
    """Vectors [C, 3] of the head as a function of the vectors of edges, which are a leaf."""

    edges: Edges
    vectors: Tensor


def _vectors_of(model, system, part):
    with torch.enable_grad():
        leaf = part.with_vec(part.vec.detach().requires_grad_(True))
        return _Graph(leaf, model.heads[VECTORS](model.environment(VECTORS, system, leaf), leaf))


def _gradient(slopes, graph):
    """(edges, gradient [E, 3] with respect to their vectors) for the derivatives ``slopes`` [N, 3] of the energy."""
    leaf, vectors = graph
    return leaf, torch.autograd.grad(vectors, leaf.vec, slopes[leaf.atoms].to(vectors.dtype))[0]
