r"""Hopping blocks of pairs of atoms, and how they transform with the frames of the two layers.

A function with azimuthal number λ varies as exp(iλθ) around the normal of its layer. The hopping between functions with
azimuthal numbers λ and μ is

.. math::

    M_{\lambda\mu} = s^{|\lambda-\mu|} \exp(-i\lambda\theta_1 + i\mu\theta_2) \, h_{\lambda\mu}.

θ1 and θ2 are the directions of the pair in the frames of the two layers, and s is the sine of the angle between the
pair and the normal. The coefficient h depends only on quantities that do not turn with either frame: r, z/r,
s^M exp(iMθ1), s^M exp(iMθ2) and the environments. Blocks therefore follow a rotation of either layer exactly, and they
are smooth where one atom is above another.

h is the sum of a linear two-center part, of three-center terms that are linear in functions of the atoms beside the
pair, and of a net. The output of the net is averaged over reflections of the frames. For the linear parts it is enough
to average the coefficients, because their functions have definite parity. Pairs of equal species are averaged with the
transpose of the reversed pair.
"""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments.geometry import Geometry
from ase_mlelec.descriptors.layer_moments.third_atoms import ThirdAtoms, reflected_signs
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions, reflected_block
from ase_mlelec.heads.hamiltonian.two_center import PairNet, inputs_of_net

NEAR = (5.5, 6.5)  # Å; between them the net of near pairs fades out and the net of long pairs fades in
FADE = 11.0  # Å; hopping fades to zero between this distance and the cutoff
# numbers of polynomials of the distances to a third atom, of powers of its position, of polynomials of the pair distance
N_THIRD = {"near": (4, 10, 6), "long": (3, 6, 3)}
CHUNK = 40000  # pairs at a time
REFLECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


class View(NamedTuple):
    """A structure seen in frames with a reflected normal (up = -1) or a reflected in-plane axis (across = -1).

    Attributes
    ----------
    features : Tensor [N, F]
        Standardized features.
    reduced, directed : Tensor [N, R], [N, C, q]
        Invariant and turning representations of the environments.
    """

    up: int
    across: int
    geometry: Geometry
    features: Tensor
    reduced: Tensor
    directed: Tensor


class PairKind(torch.nn.Module):
    """Hopping of one kind of pair: two species, within a layer or between layers.

    Near pairs and long pairs have a net each.

    Parameters
    ----------
    ends : two AtomicFunctions
        Functions of the first and of the second species.
    inter : bool
        Whether the atoms are in different layers.
    sizes : three int
        n_reduced, n_directed and n_turning of the environments.
    third_atoms : dict of ThirdAtoms
        Entries "near" and "long"; empty for no three-center terms.
    """

    def __init__(
        self,
        ends: Sequence[AtomicFunctions],
        *,
        inter: bool,
        symmetry: int,
        cutoff: float,
        widths: Sequence[int],
        sizes: tuple[int, int, int],
        third_atoms: dict[str, ThirdAtoms],
    ):
        super().__init__()
        first, second = ends
        self.ends, self.alike = (first, second), first is second
        self.inter, self.symmetry, self.cutoff, self.third_atoms = inter, symmetry, cutoff, third_atoms
        limits = {"near": (2.0 if inter else 0.7, NEAR[1]), "long": (NEAR[0], cutoff)}
        self.nets = torch.nn.ModuleDict()
        for reach in limits:
            n_third = (N_THIRD[reach][-1], third_atoms[reach].n_features) if third_atoms else (0, 0)
            shape = (first.size, second.size)
            self.nets[reach] = PairNet(inputs_of_net(*sizes, inter), shape, widths, limits[reach], inter, n_third)

    def forward(self, pairs: Geometry, views: list[View], rows: Tensor) -> Tensor:
        """Blocks [e, W, W'] of some pairs, eV.

        Parameters
        ----------
        pairs : Geometry
            These pairs alone.
        views : list of View
            The structure in all reflected frames.
        rows : Tensor [e]
            Rows of these pairs in the geometries of the views.
        """
        blocks = []
        for back in (False, True) if self.alike else (False,):
            directed = pairs.reversed() if back else pairs
            h: Tensor | float = 0
            for view in views:
                seen = view.geometry.pairs(rows)
                part = self._faded(
                    seen.reversed() if back else seen,
                    lambda net, some, _: net(some, self.symmetry, view.reduced, view.directed),
                )
                h = h + self.reflected(part, view.up, view.across)
            h = h / len(views) + self._faded(directed, self._linear)
            block = self._dressed(h, directed)
            blocks.append(block.mT if back else block)
        return sum(blocks) / len(blocks)

    def _linear(self, net, pairs, reach):
        """h of the linear parts; the same in all reflected frames, because the coefficients are averaged over them."""
        h = net.linear_part(pairs, self.symmetry, self._definite(net, net.linear, net.signs()))
        if pairs.neighbors is None:
            return h
        third = self.third_atoms[reach]
        return h + net.beside(pairs, third(pairs), self._definite(net, net.third, third.signs()))

    def _faded(self, pairs, part_of: Callable):
        """h [e, W, W'] of pairs in one frame: the near and the long part, each times its fade function.

        Parameters
        ----------
        part_of : callable of (net, pairs, "near" or "long") -> h
        """
        near = switch(pairs.r, *NEAR)
        far = (1 - near) * switch(pairs.r, FADE, self.cutoff)
        h = pairs.r.new_zeros(len(pairs.r), *(functions.size for functions in self.ends))
        for reach, share in (("near", near), ("long", far)):
            rows = (share > 0).nonzero()[:, 0]
            if len(rows):
                part = part_of(self.nets[reach], pairs.pairs(rows), reach)
                h = h.index_add(0, rows, share[rows, None, None] * part)
        return h

    def _definite(self, net, coefficients, signs):
        """Coefficients [..., K, W W'] averaged over reflections; only elements of the functions' parity remain.

        Parameters
        ----------
        signs : Tensor [2, K]
            Parities of the K functions, as in ThirdAtoms.signs.
        """
        blocks, signs, total = coefficients.unflatten(-1, net.shape), signs.to(coefficients), 0
        for up, across in REFLECTIONS:
            sign = reflected_signs(signs, up, across)
            total = total + sign[:, None, None] * self.reflected(blocks, up, across)
        return (total / len(REFLECTIONS)).flatten(-2)

    def reflected(self, block: Tensor, up: int, across: int) -> Tensor:
        """Transform blocks to reflected frames, or back."""
        return reflected_block(block, *self.ends, up, across)

    def phases(self, pairs: Geometry) -> Tensor:
        """Phase factors s^``|λ-μ|`` exp(-iλθ1 + iμθ2), complex [e, W, W']."""
        first, second = (functions.windings for functions in self.ends)
        step = {0: torch.ones_like(pairs.u)}
        for charge in range(1, 5):
            step[charge] = step[charge - 1] * pairs.u.conj()
            step[-charge] = step[1 - charge] * pairs.u
        turn = {q: pairs.turn**q for q in set(second)}
        return torch.stack([torch.stack([step[a - b] * turn[b] for b in second], dim=1) for a in first], dim=1)

    def _dressed(self, h, pairs):
        """Blocks in the frames of the two layers, from h in the frame of the pair."""
        first, second = self.ends
        if not (first.turns or second.turns):
            return h
        left, right = first.circular(pairs.u.dtype), second.circular(pairs.u.dtype)
        matrix = (left.conj() @ h.to(left.dtype) @ right.T) * self.phases(pairs)
        return (left.T @ matrix @ right.conj()).real


class Hopping(torch.nn.ModuleList):
    """Hopping of all pairs: one PairKind for each kind, first the kinds within layers, then the kinds between layers.

    Parameters
    ----------
    orbitals : sequence of AtomicFunctions
        Functions of every species.
    third : float
        Range of three-center terms, Å, see HamiltonianHead.
    **options
        Arguments of PairKind that are the same for all kinds.
    """

    def __init__(self, orbitals: Sequence[AtomicFunctions], *, third: float, **options: Any):
        n_species = len(orbitals)
        third_atoms = {name: ThirdAtoms(2 * n_species, third, *n) for name, (*n, _) in N_THIRD.items() if third}
        self.keys = [
            (inter, a, b) for inter in (False, True) for a, b in combinations_with_replacement(range(n_species), 2)
        ]
        super().__init__(
            PairKind([orbitals[a], orbitals[b]], inter=inter, third_atoms=third_atoms, **options)
            for inter, a, b in self.keys
        )

    def kind(self, key: tuple[bool, int, int]) -> PairKind:
        """The PairKind of a key (between layers or not, first species, second species)."""
        return cast(PairKind, self[self.keys.index(key)])

    def forward(self, geometry: Geometry, views: list[View]) -> dict:
        """dict by key of the hopping blocks [e, W, W'], eV, of all pairs of the Geometry."""
        return {
            key: torch.cat([self.kind(key)(geometry.pairs(part), views, part) for part in rows.split(CHUNK)])
            for key, rows in geometry.groups().items()
        }
