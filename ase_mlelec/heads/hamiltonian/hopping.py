"""Hopping of all kinds of pairs: which net has part in it, and how its result turns with the frames of the layers.

Between functions that wind around the normals of their layers with λ and μ (χ_λ ~ exp(iλθ)), with θ1 and θ2 the
directions of the pair in the frames of the two layers and s = sin of its angle to the normal,

    M_λμ = s^|λ-μ| exp(-iλθ1 + iμθ2) h_λμ,

where h depends on what does not turn with either frame: r, z/r, s^M exp(iMθ1), s^M exp(iMθ2) and environments.  So
blocks follow a turn of either layer exactly, and are smooth where atoms are above each other.  h is the sum of a linear
two-centre part, one linear in functions of third atoms beside the pair, and a net.  Reflections of the frames are
averaged over, and i -> j with the transpose of j -> i.
"""

from itertools import combinations_with_replacement
from typing import NamedTuple

import torch

from ase_mlelec.descriptors.deep_pot import switch
from ase_mlelec.heads.hamiltonian.orbitals import reflected_block
from ase_mlelec.heads.hamiltonian.pair_geometry import Geometry
from ase_mlelec.heads.hamiltonian.three_centre import ThirdAtoms, reflected_signs
from ase_mlelec.heads.hamiltonian.two_centre import PairNet, inputs_of_net

NEAR = (5.5, 6.5)  # Å; nets of near pairs fade out, those of long ones in
FADE = 11.0  # Å; from here to the cutoff hopping fades
# polynomials of the distances to a third atom, powers of its place, and polynomials of the pair's distance
N_THIRD = {"near": (4, 10, 6), "long": (3, 6, 3)}
CHUNK = 40000  # pairs at a time
REFLECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


class View(NamedTuple):
    """A structure as frames see it whose normal (up = -1) or direction in the plane (across = -1) is reflected.

    features : [N, F], standardised; reduced [N, R] and directed [N, C, q]: representations of the environments
    """

    up: int
    across: int
    geometry: Geometry
    features: torch.Tensor
    reduced: torch.Tensor
    directed: torch.Tensor


class Hopping(torch.nn.ModuleDict):
    """Hopping of all kinds (inter, a, b): nets of near and of long pairs by the names that ``net_name`` gives.

    orbitals : list of AtomicFunctions; fold : int, M; cutoff, third : Å, see PairHead
    n_reduced, n_directed, n_windings : sizes of the representations of environments
    """

    def __init__(self, orbitals, fold, cutoff, third, widths, n_reduced, n_directed, n_windings):
        super().__init__()
        self.orbitals, self.fold, self.cutoff, self.third = tuple(orbitals), fold, cutoff, third
        self.third_atoms = {name: ThirdAtoms(2 * len(orbitals), third, *n) for name, (*n, _) in N_THIRD.items()}
        for inter in (False, True):
            n_in = inputs_of_net(n_reduced, n_directed, n_windings, inter)
            for a, b in combinations_with_replacement(range(len(orbitals)), 2):
                for reach, limits in (("near", (2.0 if inter else 0.7, NEAR[1])), ("long", (NEAR[0], cutoff))):
                    shape = orbitals[a].size, orbitals[b].size
                    n_third = (N_THIRD[reach][-1], self.third_atoms[reach].n_features) if third else (0, 0)
                    self[net_name((inter, a, b), reach)] = PairNet(n_in, shape, widths, limits, inter, n_third)

    def net(self, key, reach):
        """The PairNet of a kind of pairs and "near" or "long"."""
        return self[net_name(key, reach)]

    def forward(self, geometry, views):
        """dict by kind of blocks [e, W, W'], eV, of all pairs of the Geometry; views : list of View."""
        return {
            key: torch.cat([self._blocks(key, geometry, views, part) for part in rows.split(CHUNK)])
            for key, rows in geometry.groups().items()
        }

    def _blocks(self, key, geometry, views, rows):
        """Blocks [e, W, W'] of pairs of one kind; of equal species from both ends."""
        blocks = []
        for back in (False, True) if key[1] == key[2] else (False,):

            def ends(view):
                pairs = view.pairs(rows)
                return pairs.reversed() if back else pairs

            h = 0
            for view in views:
                part = self._faded(
                    key, ends(view.geometry), lambda net, own, _: net(own, self.fold, view.reduced, view.directed)
                )
                h = h + self.reflected(part, key, view.up, view.across)
            h, pairs = h / len(views), ends(geometry)
            if geometry.neighbours is not None:
                h = h + self._faded(
                    key,
                    pairs,
                    lambda net, own, reach: net.beside(
                        own, self.third_atoms[reach](own), self._third_coefficients(key, net, reach)
                    ),
                )
            block = self._dressed(h, key, pairs)
            blocks.append(block.mT if back else block)
        return sum(blocks) / len(blocks)

    def _faded(self, key, pairs, part_of):
        """h [e, W, W'] of pairs as one frame sees them, near and long ones by nets of their own.

        part_of : callable of (net, pairs, "near" or "long") -> h
        """
        near = switch(pairs.r, *NEAR)
        far = (1 - near) * switch(pairs.r, FADE, self.cutoff)
        h = pairs.r.new_zeros(len(pairs.r), *(self.orbitals[k].size for k in key[1:]))
        for reach, share in (("near", near), ("long", far)):
            rows = (share > 0).nonzero()[:, 0]
            if len(rows):
                part = part_of(self.net(key, reach), pairs.pairs(rows), reach)
                h = h.index_add(0, rows, share[rows, None, None] * part)
        return h

    def _third_coefficients(self, key, net, reach):
        """Tensor [n, F, W W'], the mean over reflections: h of third atoms is the same in all of them."""
        blocks, total = net.third.unflatten(2, net.shape), 0
        signs = self.third_atoms[reach].signs().to(blocks)
        for up, across in REFLECTIONS:
            sign = reflected_signs(signs, up, across)
            total = total + sign[:, None, None] * self.reflected(blocks, key, up, across)
        return (total / len(REFLECTIONS)).flatten(2)

    def reflected(self, block, key, up, across):
        """Blocks of one kind in reflected frames."""
        first, second = (self.orbitals[k] for k in key[1:])
        return reflected_block(block, first, second, up, across)

    def phases(self, key, pairs):
        """Tensor [e, W, W'], complex: s^|λ-μ| exp(-iλθ1 + iμθ2)."""
        first, second = (self.orbitals[k].winding.tolist() for k in key[1:])
        step = {0: torch.ones_like(pairs.u)}
        for charge in range(1, 5):
            step[charge] = step[charge - 1] * pairs.u.conj()
            step[-charge] = step[1 - charge] * pairs.u
        turn = {q: pairs.turn**q for q in set(second)}
        return torch.stack([torch.stack([step[a - b] * turn[b] for b in second], dim=1) for a in first], dim=1)

    def _dressed(self, h, key, pairs):
        """Blocks in the columns of the two frames from h, which is in the frame of the pair."""
        first, second = (self.orbitals[k] for k in key[1:])
        if not (first.turns or second.turns):
            return h
        left, right = first.circular(pairs.u.dtype), second.circular(pairs.u.dtype)
        matrix = (left.conj() @ h.to(left.dtype) @ right.T) * self.phases(key, pairs)
        return (left.T @ matrix @ right.conj()).real


def net_name(key, reach):
    """Name of a net, such as "inter_0_1_near"."""
    inter, a, b = key
    return f"{'inter' if inter else 'intra'}_{a}_{b}_{reach}"
