"""Blocks of a tight-binding Hamiltonian between the functions of two atoms, or of one, of layered crystals.

Three kinds, by physics: on-site from the environment (``onsite``); hopping within a layer from reduced representations
of both environments and the pair vector; hopping between layers from the pair vector, and the representations
(``hopping``, made of ``two_centre`` and ``three_centre``).

Sources: Slater and Koster 1954, Phys. Rev. 94, 1498; Qi et al. 2024, section II B, for the three kinds.
"""

from dataclasses import replace

import torch

from ase_mlelec.descriptors.ace import ACE
from ase_mlelec.descriptors.local_frame import LocalFrame, layer_frames
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import Blocks, HeadOfPairs
from ase_mlelec.heads.hamiltonian.assemble import elements
from ase_mlelec.heads.hamiltonian.hopping import FADE, REFLECTIONS, Hopping, View
from ase_mlelec.heads.hamiltonian.interface_dipole import interface_features, layer_shifts
from ase_mlelec.heads.hamiltonian.onsite import OnsiteBlocks
from ase_mlelec.heads.hamiltonian.orbitals import AtomicFunctions, reflected_block
from ase_mlelec.heads.hamiltonian.pair_geometry import Geometry, Layers, heights
from ase_mlelec.heads.hamiltonian.three_centre import Neighbours, ThirdAtoms
from ase_mlelec.nets import map_by_species
from ase_mlelec.structures.layers import formula_of

# polynomials of the distances to a third atom, powers of its place, and cutoff (Å, no longer than that of hopping), for
# on-site blocks
ONSITE_THIRD = 2, 10, 5.0
SHORTEST_THIRD = 3.5  # Å, where functions of third atoms fade from the shortest distances on
CENTERS = 500  # of a power spectrum at a time


class PairHead(HeadOfPairs):
    """Hamiltonian blocks, eV above the vacuum level, in the columns of ``orbitals`` and the frames of the layers.

    Blocks have exact derivatives with respect to the positions and the cell of the structure.

    functions : dict by symbol of dict: "orbitals", list of names as in ``orbitals``; "z" and "x", their
        axes in the frame of the layer for atoms above its middle; "sided", whether the axes of atoms below are mirrored
    frame : dict of arguments of LocalFrame, whose species are those of the model
    spectrum : dict of arguments of ACE but for the species; what of the on-site blocks does not turn is
        linear in it, too.  None: without
    cutoff : float, Å, of hopping; third : float, Å, within which of both atoms a third one changes it; 0: none does
    reference_areas : dict of float, Å^2 per atom, of unstrained layers by their formulas
    widths : of the nets of pairs; n_reduced : size of the reduced representation of an environment, and n_directed :
        of its parts that turn, by winding number
    """

    quantity = "hamiltonian"

    def __init__(
        self,
        functions,
        frame,
        cutoff=12.0,
        widths=(48, 32),
        n_hidden=48,
        n_reduced=16,
        n_directed=4,
        reference_areas=None,
        spectrum=None,
        third=0.0,
    ):
        super().__init__()
        self.functions, self.cutoff, self.widths, self.third = functions, float(cutoff), tuple(widths), float(third)
        self.n_hidden, self.n_reduced, self.n_directed = n_hidden, n_reduced, n_directed
        if cutoff <= FADE:
            raise ValueError(f"cutoff: got {cutoff} Å, need more than {FADE}, from where hopping fades")
        if third and not SHORTEST_THIRD <= third <= cutoff:
            raise ValueError(f"third: got {third} Å, need {SHORTEST_THIRD} to {cutoff}, or 0: no third atoms")
        self.local = LocalFrame(**frame)
        self.species, self.fold = self.local.species, self.local.fold
        self.spectrum = None if spectrum is None else ACE(self.species, **spectrum)
        self._build_functions()
        self._build_blocks()
        self._build_normalisation()
        self.register_buffer("dipole", torch.zeros(2))
        self.reference_areas = dict(reference_areas or {})

    def _build_functions(self):
        missing = [symbol for symbol in self.species if symbol not in self.functions]
        if missing:
            raise ValueError(f"functions: got none of {missing[0]}, need those of {', '.join(self.species)}")
        self.orbitals = torch.nn.ModuleList(AtomicFunctions(self.functions[symbol]) for symbol in self.species)

    def _build_blocks(self):
        local, n_species, n_windings = self.local, len(self.species), len(self.local.windings) - 1
        *n, reach = ONSITE_THIRD
        turning = n_windings and any(functions.turns for functions in self.orbitals)
        self.onsite_third = ThirdAtoms(2 * n_species, min(self.third, reach), *n) if self.third and turning else None
        n_third = len(self.onsite_third.moment_signs()) if self.onsite_third else 0
        n_spectrum = self.spectrum.n_features if self.spectrum else 0
        self.environment = torch.nn.ModuleList(
            _environment_net(local.n_features, self.n_hidden, self.n_reduced) for _ in range(n_species)
        )
        self.onsite = torch.nn.ModuleList(
            OnsiteBlocks(
                functions,
                self.fold,
                local.n_features + n_spectrum,
                self.n_reduced,
                self.n_directed,
                2 * local.n_channels,
                n_third,
            )
            for functions in self.orbitals
        )
        self.directed = torch.nn.Parameter(
            torch.randn(max(n_windings, 1), self.n_directed, 2 * local.n_channels) * (2 * local.n_channels) ** -0.5
        )
        self.pairs = Hopping(
            self.orbitals, self.fold, self.cutoff, self.third, self.widths, self.n_reduced, self.n_directed, n_windings
        )
        if n_third:
            self.register_buffer("third_inverse", torch.ones(n_windings, n_third))

    def _build_normalisation(self):
        n_species, n_windings = len(self.species), len(self.local.windings) - 1
        for name, n in (("", self.local.n_features), ("spectrum_", self.spectrum.n_features if self.spectrum else 0)):
            if n:
                self.register_buffer(f"{name}shift", torch.zeros(n_species, n))
                self.register_buffer(f"{name}inverse", torch.ones(n_species, n))
        self.register_buffer("moment_inverse", torch.ones(max(n_windings, 1), 2 * self.local.n_channels))
        self.register_buffer("onsite_scale", torch.ones(n_species))

    def arguments(self):
        return dict(
            functions=self.functions,
            frame=self.local.arguments(),
            cutoff=self.cutoff,
            widths=list(self.widths),
            n_hidden=self.n_hidden,
            n_reduced=self.n_reduced,
            n_directed=self.n_directed,
            reference_areas=self.reference_areas,
            third=self.third,
            spectrum=self.spectrum
            and {name: value for name, value in self.spectrum.arguments().items() if name != "species"},
        )

    # geometry ---------------------------------------------------------------------------------------------------

    def frames(self, system):
        """LayerFrames of one structure; InputError where it has no layers, or they no direction."""
        return layer_frames(system, self.fold, self.reference_areas)

    def geometry(self, system, frames=None):
        """Geometry of the structures, one after the other.

        frames : LayerFrames of a single structure, where they are known already

        Raises InputError as ``frames`` does.
        """
        if frames is not None:
            return self._geometry_of_one(system, frames)
        return Geometry.joined([self._geometry_of_one(one, self.frames(one)) for one in system.singles()])

    def _geometry_of_one(self, system, frames):
        edges = Edges.build(system, self.cutoff)
        moments, species = self.local.moments(system, edges, frames)
        r, t, u, turn, within = frames.of_pairs(edges)
        first, second, shift = edges.center, edges.neighbor, edges.shift.long()
        # each pair once, from the species that comes first
        code = shift @ torch.tensor([1 << 40, 1 << 20, 1], device=shift.device)
        ahead = (code > 0) | ((code == 0) & (first < second))
        keep = ((species[first] < species[second]) | ((species[first] == species[second]) & ahead)).nonzero()[:, 0]
        around, third = None, None
        if self.third:
            around = Neighbours.of(species, len(self.species), edges.closer_than(self.third), frames)
        if self.onsite_third:
            third = self.onsite_third.moments(
                species, edges.closer_than(self.onsite_third.cutoff), frames, len(self.third_inverse)
            )
        return Geometry(
            species,
            self._sides(species, edges, r, t, within),
            frames.layer,
            (self._layers(system, species, frames),),
            moments,
            self.local.features(moments),
            self._spectra(system, edges),
            first[keep],
            second[keep],
            r[keep],
            t[keep],
            u[keep],
            turn[keep],
            ~within[keep],
            shift[keep],
            around,
            third,
        )

    def _layers(self, system, species, frames):
        area = torch.linalg.cross(*system.cell[0, :2].double()).norm().cpu()
        parts = [species[frames.layer == layer].tolist() for layer in range(len(frames.angle))]
        return Layers(
            [len(part) for part in parts],
            torch.stack([area / len(part) for part in parts]),
            [formula_of(self.species[k] for k in part) for part in parts],
        )

    def _spectra(self, system, edges):
        """Features [N, P] of the power spectrum of all atoms; P is 0 without one."""
        if self.spectrum is None:
            return system.positions.new_zeros(len(system.positions), 0)
        near = edges.closer_than(self.spectrum.cutoff)
        return torch.cat([self.spectrum(system, part).features for _, part in near.chunks(CENTERS)])

    def _sides(self, species, edges, r, t, within):
        """+1 for atoms above their neighbours of other species within the layer, -1 below; +1 where it is no matter."""
        sided = torch.tensor([functions.sided for functions in self.orbitals], device=species.device)
        return torch.where(sided[species] & (heights(species, edges, r, t, within) < 0), -1, 1)

    # blocks -----------------------------------------------------------------------------------------------------

    def environments(self, geometry):
        """(standardised features [N, F + P], reduced [N, R], directed [N, C, q]) of all atoms."""
        features = self.standardised(geometry)
        moments = self.scaled_moments(geometry)
        directed = torch.einsum("nmq,qcm->ncq", moments, self.directed[: moments.shape[2]].to(moments.dtype))
        reduced = map_by_species(
            lambda k, own: self.environment[k](own[:, : self.local.n_features]),
            geometry.species,
            len(self.species),
            features,
        )
        return features, reduced, directed

    def standardised(self, geometry):
        """Features [N, F + P] of the LocalFrame and of the power spectrum."""
        found = (geometry.features - self.shift[geometry.species]) * self.inverse[geometry.species]
        if self.spectrum is None:
            return found
        spectrum = geometry.spectrum - self.spectrum_shift[geometry.species]
        return torch.cat([found, spectrum * self.spectrum_inverse[geometry.species]], dim=1)

    def scaled_moments(self, geometry):
        """Moments [N, m, q], complex, that turn with the frame, q = 1, 2 ... below M, of about unit size."""
        low = len(self.local.windings) - 1
        moments = [
            torch.cat([geometry.moments[:, 3 + 2 * q], geometry.moments[:, 4 + 2 * q]], dim=1) * self.moment_inverse[q]
            for q in range(low)
        ]
        empty = geometry.moments.new_zeros(len(geometry.species), 2 * self.local.n_channels, 0)
        return torch.stack(moments, dim=2) if moments else empty

    def reflected(self, geometry, up, across):
        """The Geometry as reflected frames see it."""
        signs = self.onsite_third.moment_signs().to(geometry.r) if self.onsite_third else None
        return geometry.reflected(up, across, self.local.parity.to(geometry.features), signs)

    def scaled_third_moments(self, geometry):
        """Moments of third atoms [N, C, q] of about unit size, or None."""
        return None if geometry.third_moments is None else geometry.third_moments * self.third_inverse.T

    def forward(self, geometry):
        """Blocks, eV, without the shifts of whole layers (see ``complete``)."""
        views = []
        for up, across in REFLECTIONS:
            seen = self.reflected(geometry, up, across)
            views.append(View(up, across, seen, *self.environments(seen)))
        moments = [(self.scaled_moments(view.geometry), self.scaled_third_moments(view.geometry)) for view in views]
        onsite = {k: self._onsite(k, geometry, views, moments) for k in range(len(self.species))}
        return Blocks(geometry, onsite, self.pairs(geometry, views))

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

    def elements(self, blocks):
        """Elements between the functions of one structure, as arrays; see ``assemble.elements``."""
        return elements(blocks, self.orbitals)

    # layers ------------------------------------------------------------------------------------------------------

    def interface_features(self, layers):
        """Tensor [L - 1, 2] of the Layers of one structure, in which the steps between them are linear."""
        return interface_features(layers, self.reference_areas)

    def layer_shifts(self, layers):
        """Shift [L] of every layer of one structure, eV, by the dipoles of the interfaces."""
        return layer_shifts(self.interface_features(layers) @ self.dipole.double().cpu())

    def complete(self, blocks):
        """Blocks of ``forward`` with the shifts of the layers."""
        geometry = blocks.geometry
        shifts = torch.cat([self.layer_shifts(layers) for layers in geometry.layers]).to(geometry.r)[geometry.layer]
        return replace(
            blocks,
            onsite={
                k: block + shifts[blocks.atoms(k)][:, None, None] * torch.eye(block.shape[1]).to(block)
                for k, block in blocks.onsite.items()
            },
        )

    @staticmethod
    def nearest(geometry):
        """Distances [N], Å, of the nearest atoms in the same layer, and (for atoms that have one) in another."""
        found = []
        for between in (False, True):
            rows = (geometry.inter == between).nonzero()[:, 0]
            shortest = torch.full((len(geometry.species),), float("inf")).to(geometry.r)
            for index in (geometry.first, geometry.second):
                shortest = shortest.scatter_reduce(0, index[rows], geometry.r[rows], "amin")
            found.append(shortest[shortest.isfinite()])
        return found


def _environment_net(n_in, n_hidden, n_out):
    return torch.nn.Sequential(
        torch.nn.Linear(n_in, n_hidden), torch.nn.SiLU(), torch.nn.Linear(n_hidden, n_out), torch.nn.SiLU()
    )
