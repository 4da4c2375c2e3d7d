r"""Hopping of all kinds of pairs: which net has part in it, and how its result turns with the frames of the layers.

Between functions of azimuthal numbers λ and μ around the normals of their layers (χ_λ ~ exp(iλθ)), with θ1 and θ2 the
directions of the pair in the frames of the two layers and s = sin of its angle to the normal,

.. math::

    M_{\lambda\mu} = s^{|\lambda-\mu|} \exp(-i\lambda\theta_1 + i\mu\theta_2) \, h_{\lambda\mu},

where h depends on what does not turn with either frame: r, z/r, s^M exp(iMθ1), s^M exp(iMθ2) and environments. So
blocks follow a turn of either layer exactly, and are smooth where atoms are above each other. h is the sum of a linear
two-center part, three-center terms, linear in functions of the atoms beside the pair, and a net. The net is averaged
over reflections of the frames, the coefficients of the linear parts are: their functions have definite parity. i -> j
is averaged with the transpose of j -> i.
"""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor

from ase_mlelec.descriptors.layer_moments.geometry import Geometry
from ase_mlelec.descriptors.layer_moments.third_atoms import ThirdAtoms, reflected_signs
from ase_mlelec.descriptors.radial import switch
from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions, reflected_block
from ase_mlelec.heads.hamiltonian.two_center import PairNet, inputs_of_net

NEAR = (5.5, 6.5)  # Å; nets of near pairs fade out, those of long ones in
FADE = 11.0  # Å; from here to the cutoff hopping fades
# polynomials of the distances to a third atom, powers of its place, and polynomials of the pair's distance
N_THIRD = {"near": (4, 10, 6), "long": (3, 6, 3)}
CHUNK = 40000  # pairs at a time
REFLECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


class View(NamedTuple):
    """A structure as frames see it whose normal (up = -1) or direction in the plane (across = -1) is reflected.

    Attributes
    ----------
    features : Tensor [N, F]
        Standardized.
    reduced, directed : Tensor [N, R], [N, C, q]
        Representations of the environments.
    """

    up: int
    across: int
    geometry: Geometry
    features: Tensor
    reduced: Tensor
    directed: Tensor


class PairKind(torch.nn.Module):
    """Hopping of pairs of two species within layers or between them, by nets of near and of long pairs.

    Parameters
    ----------
    ends : two AtomicFunctions
        Of the species of the first atom and of the second.
    inter : bool
        Whether the atoms are in different layers.
    sizes : three int
        n_reduced, n_directed, n_turning of the representations of environments.
    third_atoms : dict of ThirdAtoms
        For "near" and "long"; empty for no three-center terms.
    """

    def __init__(
        self,
        ends: Sequence[AtomicFunctions],
        *,
        inter: bool,
        symmetry: int,
        cutoff: float,
        widths: Sequence[int],
        sizes: Sequence[int],
        third_atoms: dict[str, ThirdAtoms],
    ):
        super().__init__()
        self.ends, self.alike = tuple(ends), ends[0] is ends[1]
        self.inter, self.symmetry, self.cutoff, self.third_atoms = inter, symmetry, cutoff, third_atoms
        limits = {"near": (2.0 if inter else 0.7, NEAR[1]), "long": (NEAR[0], cutoff)}
        self.nets = torch.nn.ModuleDict()
        for reach in limits:
            n_third = (N_THIRD[reach][-1], third_atoms[reach].n_features) if third_atoms else (0, 0)
            shape = tuple(functions.size for functions in ends)
            self.nets[reach] = PairNet(inputs_of_net(*sizes, inter), shape, widths, limits[reach], inter, n_third)

    def forward(self, pairs: Geometry, views: list[View], rows: Tensor) -> Tensor:
        """Blocks [e, W, W'] of the ``rows`` of all pairs; of equal species from both ends.

        Parameters
        ----------
        pairs : Geometry with these rows alone
        """
        blocks = []
        for back in (False, True) if self.alike else (False,):
            own, h = pairs.reversed() if back else pairs, 0
            for view in views:
                seen = view.geometry.pairs(rows)
                part = self._faded(
                    seen.reversed() if back else seen,
                    lambda net, some, _: net(some, self.symmetry, view.reduced, view.directed),
                )
                h = h + self.reflected(part, view.up, view.across)
            h = h / len(views) + self._faded(own, self._linear)
            block = self._dressed(h, own)
            blocks.append(block.mT if back else block)
        return sum(blocks) / len(blocks)

    def _linear(self, net, pairs, reach):
        """h of the linear parts, the same in all reflected frames as their coefficients are means over these."""
        h = net.linear_part(pairs, self.symmetry, self._definite(net, net.linear, net.signs()))
        if pairs.neighbors is None:
            return h
        third = self.third_atoms[reach]
        return h + net.beside(pairs, third(pairs), self._definite(net, net.third, third.signs()))

    def _faded(self, pairs, part_of: Callable):
        """h [e, W, W'] of pairs as one frame sees them, near and long ones by nets of their own.

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
        """Coefficients [..., K, W W'] of functions [K] of definite parity: what reflections leave of them.

        Parameters
        ----------
        signs : Tensor [2, K] of the functions
            As ThirdAtoms.signs.
        """
        blocks, signs, total = coefficients.unflatten(-1, net.shape), signs.to(coefficients), 0
        for up, across in REFLECTIONS:
            sign = reflected_signs(signs, up, across)
            total = total + sign[:, None, None] * self.reflected(blocks, up, across)
        return (total / len(REFLECTIONS)).flatten(-2)

    def reflected(self, block: Tensor, up: int, across: int) -> Tensor:
        """Blocks in reflected frames."""
        return reflected_block(block, *self.ends, up, across)

    def phases(self, pairs: Geometry) -> Tensor:
        """s^``|λ-μ|`` exp(-iλθ1 + iμθ2), complex [e, W, W']."""
        first, second = (functions.winding.tolist() for functions in self.ends)
        step = {0: torch.ones_like(pairs.u)}
        for charge in range(1, 5):
            step[charge] = step[charge - 1] * pairs.u.conj()
            step[-charge] = step[1 - charge] * pairs.u
        turn = {q: pairs.turn**q for q in set(second)}
        return torch.stack([torch.stack([step[a - b] * turn[b] for b in second], dim=1) for a in first], dim=1)

    def _dressed(self, h, pairs):
        """Blocks in the columns of the two frames from h, which is in the frame of the pair."""
        first, second = self.ends
        if not (first.turns or second.turns):
            return h
        left, right = first.circular(pairs.u.dtype), second.circular(pairs.u.dtype)
        matrix = (left.conj() @ h.to(left.dtype) @ right.T) * self.phases(pairs)
        return (left.T @ matrix @ right.conj()).real


class Hopping(torch.nn.ModuleList):
    """Hopping of all kinds of pairs, a PairKind for each: those within layers first, then by species.

    Parameters
    ----------
    orbitals : sequence of AtomicFunctions
        Of every species.
    third : float
        Å, see HamiltonianHead.
    **options
        Those of PairKind that all have.
    """

    def __init__(self, orbitals: Sequence[AtomicFunctions], *, third: float, **options):
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
        """Of pairs (between layers or not, species of the first atom, of the second)."""
        return self[self.keys.index(key)]

    def forward(self, geometry: Geometry, views: list[View]) -> dict:
        """Blocks [e, W, W'], eV, of all pairs of the Geometry by kind."""
        return {
            key: torch.cat([self.kind(key)(geometry.pairs(part), views, part) for part in rows.split(CHUNK)])
            for key, rows in geometry.groups().items()
        }
