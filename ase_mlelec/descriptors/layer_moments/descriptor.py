"""Layer moments: environments of layered crystals in the frames of their layers.

The moments of an atom are sums over its neighbors j, with complex u = (x + i y)/r and t = z/r in the frame of the layer,

    A_q = Σ_j T_n(r_j) w(r_j) t^p u^q                       by species of j, in the same or another layer,

They are permutation-symmetric and turn by exp(-i q β) with the frame: q is their azimuthal number. Features are made of
them that do not change when the frame turns by 2π/M.

References
----------
Zhang et al. 2018, Phys. Rev. Lett. 120, 143001 (local frames, rows (1/R, x/R²...)); Qi et al. 2024, section II B.
"""

from collections.abc import Mapping, Sequence

import torch
from ase.calculators.calculator import InputError
from torch import Tensor

from ase_mlelec.descriptors.ace import ACE
from ase_mlelec.descriptors.base import Descriptor, species_table
from ase_mlelec.descriptors.layer_moments.frames import LayerFrames, layer_frames
from ase_mlelec.descriptors.layer_moments.geometry import Geometry, Layers, Signs, heights
from ase_mlelec.descriptors.layer_moments.third_atoms import Neighbors, ThirdAtoms
from ase_mlelec.descriptors.radial import chebyshev, switch
from ase_mlelec.edges import Edges
from ase_mlelec.structures.layers import formula_of
from ase_mlelec.system import System

HIGHEST = 4  # azimuthal number of the moments that on-site blocks of d functions need at most
# for on-site blocks: polynomials of the distances to a third atom, powers of its position, and cutoff (Å)
ONSITE_THIRD = 2, 10, 5.0
SHORTEST_THIRD = 3.5  # Å; with a shorter cutoff the functions of third atoms would fade at all distances
CENTERS = 500  # at a time, for ACE invariants


class LayerMoments(Descriptor):
    """Descriptor of atoms and pairs of atoms in the frames of their layers.

    Parameters
    ----------
    species : sequence of str
        Chemical symbols.
    cutoff : float
        Cutoff of pairs, Å; longer than all bonds.
    environment : float
        Cutoff of the moments, Å; beyond the next layer.
    smooth : float, optional
        Distance at which the moments begin to fade, Å; default 1 Å before ``environment``.
    symmetry : int
        M of the M-fold rotation axis along the normal that all layers share.
    n_radial : int
        Number of Chebyshev polynomials of the distance in the moments.
    third : float
        Range of three-center terms, Å: third atoms within it of both atoms of a pair count; 0 for none.
    third_moments : bool
        Whether single atoms have moments of third atoms too, for functions that turn around the normal.
    ace : dict, optional
        Arguments of ACE except the species, for additional ACE invariants.
    reference_areas : dict of float, optional
        Area per atom, Å^2, of the unstrained layer of every formula.

    Raises
    ------
    ValueError
        For numbers out of range.

    Notes
    -----
    The environment is a Geometry. Features do not change when atoms are renumbered, when the structure is rotated, or
    when another of the M equivalent frames of a layer is taken. Derivatives with respect to positions are exact through
    ``edges.vec``. Derivatives with respect to the cell need ``system.cell`` as well, because it sets the normal.
    """

    species_of_number: Tensor

    def __init__(
        self,
        species: Sequence[str],
        *,
        cutoff: float = 12.0,
        environment: float = 6.0,
        smooth: float | None = None,
        symmetry: int = 3,
        n_radial: int = 6,
        third: float = 0.0,
        third_moments: bool = False,
        ace: Mapping | None = None,
        reference_areas: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.species, self.cutoff, self.environment = tuple(species), float(cutoff), float(environment)
        self.smooth = float(environment - 1.0 if smooth is None else smooth)
        self.symmetry, self.n_radial, self.third = int(symmetry), int(n_radial), float(third)
        if not (0 <= self.smooth < self.environment <= self.cutoff and symmetry >= 1 and n_radial >= 1):
            raise ValueError(
                f"got cutoff {cutoff}, environment {environment}, smooth {smooth}, symmetry {symmetry}, n_radial "
                f"{n_radial}; need 0 <= smooth < environment <= cutoff and positive integers"
            )
        if third and not SHORTEST_THIRD <= third <= cutoff:
            raise ValueError(f"third: got {third} Å, need {SHORTEST_THIRD} to {cutoff}, or 0: no third atoms")
        self.ace = None if ace is None else ACE(self.species, **ace)
        if self.ace is not None and self.ace.cutoff > self.cutoff:
            raise ValueError(f"ace: got a cutoff of {self.ace.cutoff} Å, need at most that of pairs, {self.cutoff} Å")
        self.reference_areas = dict(reference_areas or {})
        # azimuthal numbers that turn, then the pairs (p, q) of all moments
        low = tuple(range(1, min(HIGHEST, self.symmetry - 1) + 1))
        self.n_turning = len(low)
        self.kinds = ((0, 0), (1, 0), (2, 0)) + tuple((p, q) for q in (*low, self.symmetry) for p in (0, 1))
        self.n_channels = 2 * len(self.species) * self.n_radial
        self.n_features = self.n_channels * (3 + 4 + len(low))
        self.n_ace = self.ace.n_features if self.ace else 0
        *n, reach = ONSITE_THIRD
        seen = third_moments and third and low
        self.onsite_third = ThirdAtoms(2 * len(self.species), min(self.third, reach), *n) if seen else None
        self.n_third = len(self.onsite_third.moment_signs()) if self.onsite_third else 0
        self.register_buffer("species_of_number", species_table(self.species), persistent=False)

    def arguments(self) -> dict:
        """Constructor arguments (JSON types)."""
        ace = self.ace and {name: value for name, value in self.ace.arguments().items() if name != "species"}
        names = ("cutoff", "environment", "smooth", "symmetry", "n_radial", "third", "reference_areas")
        own = {"species": list(self.species), "third_moments": self.onsite_third is not None, "ace": ace}
        return own | {name: getattr(self, name) for name in names}

    def frames(self, system: System, edges: Edges | None = None) -> LayerFrames:
        """LayerFrames of one structure; InputError where it has no layers, or where a layer has no direction."""
        return layer_frames(system, self.symmetry, self.reference_areas, edges)

    def forward(self, system: System, edges: Edges) -> Geometry:
        """Geometry of one or more structures, joined.

        Raises
        ------
        InputError
            For edges that are shorter than ``cutoff`` or leave out atoms, a structure without layers, and a layer
            without a direction.
        """
        if edges.n_centers != len(system.positions):
            raise InputError(
                f"got edges of {edges.n_centers} centers, need those of all {len(system.positions)} atoms, by which "
                "layers are told apart"
            )
        edges, ends = edges.up_to(self.cutoff), system.n_atoms.cumsum(0)
        bounds = torch.searchsorted(edges.center, torch.cat([0 * ends[:1], ends])).tolist()
        parts, n_atoms = [], [0, *ends.tolist()]
        for k, one in enumerate(system.singles()):
            own = edges.part(slice(n_atoms[k], n_atoms[k + 1]), slice(bounds[k], bounds[k + 1]))
            parts.append(self.in_frames(one, own, self.frames(one, own)))
        return Geometry.joined(parts)

    def in_frames(self, system: System, edges: Edges, frames: LayerFrames) -> Geometry:
        """Geometry of one structure in given frames."""
        moments, species = self.moments(system, edges, frames)
        r, t, u, turn, within = frames.of_pairs(edges)
        features = self.features(moments)
        around, third = None, None
        if self.third:
            around = Neighbors.of(species, len(self.species), edges.closer_than(self.third), frames)
        if self.onsite_third:
            near = edges.closer_than(self.onsite_third.cutoff)
            third = self.onsite_third.moments(species, near, frames, self.n_turning)
        keep = _each_once(edges, species)
        return Geometry(
            features=features,
            species=species,
            frame=frames.triads().to(features)[edges.atoms],
            height=heights(species, edges, r, t, within),
            layer=frames.layer,
            layers=(self._layers(system, species, frames),),
            moments=moments,
            ace=self._ace(system, edges),
            first=edges.center[keep],
            second=edges.neighbor[keep],
            r=r[keep],
            t=t[keep],
            u=u[keep],
            turn=turn[keep],
            inter=~within[keep],
            shift=edges.shift[keep].long(),
            signs=self._signs(features),
            neighbors=around,
            third_moments=third,
        )

    def moments(self, system: System, edges: Edges, frames: LayerFrames) -> tuple[Tensor, Tensor]:
        """Complex moments A [C, kinds, channels] in the order of ``kinds``, and species [C]."""
        edges = edges.closer_than(self.environment)
        r, t, u, _, within = frames.of_pairs(edges)
        species = self.species_of_number[system.numbers]
        fade = switch(r, self.smooth, self.environment)
        radial = chebyshev(2 * r / self.environment - 1, self.n_radial) * fade[:, None]
        group = edges.center * 2 * len(self.species) + 2 * species[edges.neighbor] + within.long()
        found = []
        for p, q in self.kinds:
            value = (t**p * u**q)[:, None] * radial
            total = value.new_zeros(edges.n_centers * 2 * len(self.species), self.n_radial)
            found.append(total.index_add(0, group, value).reshape(edges.n_centers, -1))
        return torch.stack(found, dim=1), species[edges.atoms]

    def features(self, moments: Tensor) -> Tensor:
        """Features [C, F]: the moments of q = 0 and q = M, and the squared moduli of the other moments."""
        first = len(self.kinds) - 2
        straight = [moments[:, k].real for k in range(3)]
        turned = [part for k in (first, first + 1) for part in (moments[:, k].real, moments[:, k].imag)]
        squares = [moments[:, k].abs() ** 2 for k in range(3, first, 2)]
        return torch.cat(straight + turned + squares, dim=1)

    def sizes(self, features: Tensor) -> Tensor:
        """Features [C, 3 channels] that do not depend on the twist of any layer, for comparisons of environments."""
        return features[:, : 3 * self.n_channels].abs()

    @property
    def parity(self) -> Tensor:
        """Signs [2, F] of the features under reflection of the normal, and under reflection of the in-plane axis e2."""
        up, across = [1, -1, 1, 1, 1, -1, -1], [1, 1, 1, 1, -1, 1, -1]
        rest = [1] * (self.n_features // self.n_channels - 7)
        return torch.tensor([up + rest, across + rest], dtype=torch.get_default_dtype()).repeat_interleave(
            self.n_channels, dim=1
        )

    def _signs(self, features):
        third = self.onsite_third.moment_signs().to(features)[:, None] if self.onsite_third else None
        return Signs(self.parity.to(features), third)

    def _ace(self, system, edges):
        if self.ace is None:
            return system.positions.new_zeros(len(system.positions), 0)
        near = edges.closer_than(self.ace.cutoff)
        return torch.cat([self.ace(system, part).features for _, part in near.chunks(CENTERS)])

    def _layers(self, system, species, frames):
        area = torch.linalg.cross(*system.cell[0, :2].double()).norm().cpu()
        parts = [species[frames.layer == layer].tolist() for layer in range(len(frames.angle))]
        return Layers(
            [len(part) for part in parts],
            torch.stack([area / len(part) for part in parts]),
            [formula_of(self.species[k] for k in part) for part in parts],
        )


def _each_once(edges, species):
    """Rows of the edges that list each pair once, from the lower species to the higher."""
    first, second, shift = edges.center, edges.neighbor, edges.shift.long()
    code = shift @ torch.tensor([1 << 40, 1 << 20, 1], device=shift.device)
    ahead = (code > 0) | ((code == 0) & (first < second))
    alike = species[first] == species[second]
    return ((species[first] < species[second]) | (alike & ahead)).nonzero()[:, 0]
