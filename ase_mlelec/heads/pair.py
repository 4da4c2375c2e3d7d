"""Blocks of a tight-binding Hamiltonian between the functions of two atoms, or of one, of layered crystals.

Three kinds, by physics: on-site from the environment; hopping within a layer from reduced representations of both
environments and the pair vector; hopping between layers from the pair vector, and the representations.

Between functions that wind around the normals of their layers with λ and μ (χ_λ ~ exp(iλθ)), with θ1 and θ2 the
directions of the pair in the frames of the two layers and s = sin of its angle to the normal,

    M_λμ = s^|λ-μ| exp(-iλθ1 + iμθ2) h_λμ,

where h depends on what does not turn with either frame: r, z/r, s^M exp(iMθ1), s^M exp(iMθ2) and environments.  So
blocks follow a turn of either layer exactly, and are smooth where atoms are above each other.  h is the sum of a linear
two-centre part, one linear in functions of third atoms beside the pair, and a net.  Reflections of the frames are
averaged over, and i -> j with the transpose of j -> i.

Sources: Slater and Koster 1954, Phys. Rev. 94, 1498; Qi et al. 2024, section II B, for the three kinds.
"""
from dataclasses import replace

import numpy as np
import torch

from ase_mlelec.bilayers import formula_of
from ase_mlelec.descriptors.deep_potential import switch
from ase_mlelec.descriptors.local_frame import LocalFrame, chebyshev, layer_frames
from ase_mlelec.descriptors.power_spectrum import PowerSpectrum
from ase_mlelec.edges import Edges
from ase_mlelec.heads import orbitals
from ase_mlelec.heads.base import Blocks, HeadOfPairs
from ase_mlelec.heads.geometry import Geometry, Layers, heights
from ase_mlelec.heads.third_atoms import Neighbours, ThirdAtoms, reflected_signs
from ase_mlelec.nets import map_by_species

NEAR = (5.5, 6.5)           # Å; nets of near pairs fade out, those of long ones in
FADE = 11.0                 # Å; from here to the cutoff hopping fades
N_LINEAR, N_TURNED, N_NET = 14, 8, 8        # Chebyshev polynomials of the two-centre part, its anisotropy, and the net
# polynomials of the distances to a third atom, powers of its place, and polynomials of the pair's distance
N_THIRD = {"near": (4, 10, 6), "long": (3, 6, 3)}
ONSITE_THIRD = 2, 10, 5.0   # the first two, and cutoff (Å, no longer than that of hopping), for on-site blocks
SHORTEST_THIRD = 3.5        # Å, where functions of third atoms fade from the shortest distances on
CHUNK, CENTERS = 40000, 500     # pairs, and centres of a power spectrum, at a time
REFLECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


class _PairNet(torch.nn.Module):
    """h [E, W, W'] of pairs of one kind and range: envelope(r) (two-centre part + net).

    envelope = exp(a + b r) follows the size of the elements, so that near and far ones are learnt alike.
    """

    def __init__(self, n_in, shape, widths, limits, inter, n_third=(0, 0)):
        super().__init__()
        self.shape, self.limits, self.inter = shape, limits, inter
        sizes = [n_in, *widths]
        self.hidden = torch.nn.Sequential(*(part for a, b in zip(sizes, sizes[1:])
                                            for part in (torch.nn.Linear(a, b), torch.nn.SiLU())))
        self.last = torch.nn.Linear(sizes[-1], shape[0] * shape[1])
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)
        n_linear = N_LINEAR * (5 if inter else 3) + N_TURNED * (8 if inter else 4)
        self.register_buffer("linear", torch.zeros(n_linear, shape[0] * shape[1]))
        if all(n_third):
            self.register_buffer("third", torch.zeros(*n_third, shape[0] * shape[1]))
        self.register_buffer("envelope", torch.tensor([0.0, 0.0]))
        self.register_buffer("net_scale", torch.ones(()))

    def linear_parts(self):
        """list of the buffers of coefficients."""
        return [part for name, part in self.named_buffers() if name in ("linear", "third")]

    def size(self, r):
        return (self.envelope[0] + self.envelope[1] * r).exp()

    def radial(self, r, n):
        low, high = self.limits
        # the variable of 1/(r + const) resolves short distances better
        x = (1 / (r + low) - 1 / (high + low)) / (0.5 / low - 1 / (high + low))
        return chebyshev((2 * x - 1).clamp(-1, 1), n)

    def two_centre(self, g, fold):
        """Functions [E, K] of the two-centre part."""
        radial = self.radial(g.r, N_LINEAR)
        turned = radial[:, :N_TURNED]
        parts = [radial * (g.t**power)[:, None] for power in range(5 if self.inter else 3)]
        angles = [g.u**fold] + ([(g.u * g.turn)**fold] if self.inter else [])
        for angle in angles:
            parts += [turned * (factor * weight)[:, None] for factor in (angle.real, angle.imag)
                      for weight in (torch.ones_like(g.t), g.t)]
        return torch.cat(parts, dim=1)

    def signs(self):
        """Tensor [2, K]: ±1 of every function of ``two_centre`` in a reflected frame, as ThirdAtoms.signs."""
        up = [(-1.0)**power for power in range(5 if self.inter else 3) for _ in range(N_LINEAR)]
        across = [1.0] * len(up)
        for part in (1.0, -1.0) * (2 if self.inter else 1):
            up += [1.0] * N_TURNED + [-1.0] * N_TURNED
            across += [part] * 2 * N_TURNED
        return torch.tensor([up, across], dtype=torch.float64)

    def beside(self, g, functions, coefficients):
        """h [E, W, W'] of third atoms: their functions [E, F] times coefficients [n, F, W W']."""
        radial = self.radial(g.r, len(coefficients))
        h = sum(radial[:, n, None] * (functions @ part) for n, part in enumerate(coefficients))
        return (self.size(g.r)[:, None] * h).reshape(-1, *self.shape)

    def forward(self, g, fold, reduced, directed):
        """h [E, W, W'] but for third atoms; reduced [N, R] and directed [N, C, q] are of the environments."""
        ways = torch.stack([g.u.conj()**(q + 1) for q in range(directed.shape[2])], dim=1)[:, None]
        back = -g.u * g.turn
        backs = torch.stack([back.conj()**(q + 1) for q in range(directed.shape[2])], dim=1)[:, None]
        seen = torch.cat([directed[g.first] * ways, directed[g.second] * backs], dim=1).flatten(1)
        angles = [g.u**fold] + ([(g.u * g.turn)**fold] if self.inter else [])
        x = torch.cat([self.radial(g.r, N_NET)[:, 1:], g.t[:, None], (g.t * g.t)[:, None], reduced[g.first],
                       reduced[g.second], seen.real, seen.imag]
                      + [part[:, None] for angle in angles for part in (angle.real, angle.imag)], dim=1)
        h = self.two_centre(g, fold) @ self.linear + self.net_scale * self.last(self.hidden(x))
        return (self.size(g.r)[:, None] * h).reshape(-1, *self.shape)


class PairHead(HeadOfPairs):
    """Hamiltonian blocks, eV above the vacuum level, in the columns of ``orbitals`` and the frames of the layers.

    Blocks have exact derivatives with respect to the positions and the cell of the structure.

    functions : dict by symbol of dict: "orbitals", list of names as in ase_mlelec.heads.orbitals; "z" and "x", their
        axes in the frame of the layer for atoms above its middle; "sided", whether the axes of atoms below are mirrored
    frame : dict of arguments of LocalFrame, whose species are those of the model
    spectrum : dict of arguments of PowerSpectrum but for the species; what of the on-site blocks does not turn is
        linear in it, too.  None: without
    cutoff : float, Å, of hopping; third : float, Å, within which of both atoms a third one changes it; 0: none does
    reference_areas : dict of float, Å^2 per atom, of unstrained layers by their formulas
    widths : of the nets of pairs; n_reduced : size of the reduced representation of an environment, and n_directed :
        of its parts that turn, by winding number
    """
    quantity = "hamiltonian"

    def __init__(self, functions, frame, cutoff=12.0, widths=(48, 32), n_hidden=48, n_reduced=16, n_directed=4,
                 reference_areas=None, spectrum=None, third=0.0):
        super().__init__()
        self.functions, self.cutoff, self.widths, self.third = functions, float(cutoff), tuple(widths), float(third)
        self.n_hidden, self.n_reduced, self.n_directed = n_hidden, n_reduced, n_directed
        if cutoff <= FADE:
            raise ValueError(f"cutoff: got {cutoff} Å, need more than {FADE}, from where hopping fades")
        if third and not SHORTEST_THIRD <= third <= cutoff:
            raise ValueError(f"third: got {third} Å, need {SHORTEST_THIRD} to {cutoff}, or 0: no third atoms")
        self.local = LocalFrame(**frame)
        self.species, self.fold = self.local.species, self.local.fold
        self.spectrum = None if spectrum is None else PowerSpectrum(self.species, **spectrum)
        n_spectrum = 0 if spectrum is None else self.spectrum.n_features
        n_species = len(self.species)
        self._build_functions()
        low = len(self.local.windings) - 1
        self.environment = torch.nn.ModuleList(_environment_net(self.local.n_features, n_hidden, n_reduced)
                                               for _ in range(n_species))
        generators = 1 + 2 * n_directed
        self.onsite = torch.nn.ModuleList(torch.nn.Linear(n_reduced, generators * size * size) for size in self.sizes)
        for layer in self.onsite:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        self.directed = torch.nn.Parameter(torch.randn(max(low, 1), n_directed, 2 * self.local.n_channels)
                                           * (2 * self.local.n_channels)**-0.5)
        self.pairs = torch.nn.ModuleDict()
        self.third_atoms = {name: ThirdAtoms(2 * n_species, third, *n) for name, (*n, _) in N_THIRD.items()}
        *n, reach = ONSITE_THIRD
        turning = any(bool(getattr(self, f"winding_{k}").any()) for k in range(n_species))
        self.onsite_third = ThirdAtoms(2 * n_species, min(third, reach), *n) if third and low and turning else None
        if self.onsite_third:
            n_moments = len(self.onsite_third.moment_signs())
            self.register_buffer("third_inverse", torch.ones(low, n_moments))
            for k, size in enumerate(self.sizes):
                self.register_buffer(f"third_turned_{k}", torch.zeros(1 + 2 * n_moments, size, size))
        for inter in (False, True):
            n_in = N_NET + 1 + 2 * n_reduced + 4 * n_directed * low + (4 if inter else 2)
            for a in range(n_species):
                for b in range(a, n_species):
                    for name, limits in (("near", (2.0 if inter else 0.7, NEAR[1])), ("long", (NEAR[0], self.cutoff))):
                        shape = self.sizes[a], self.sizes[b]
                        n_third = (N_THIRD[name][-1], self.third_atoms[name].n_features) if third else (0, 0)
                        self.pairs[pair_key(inter, a, b, name)] = _PairNet(n_in, shape, self.widths, limits, inter,
                                                                           n_third)
        self.register_buffer("shift", torch.zeros(n_species, self.local.n_features))
        self.register_buffer("inverse", torch.ones(n_species, self.local.n_features))
        self.register_buffer("moment_inverse", torch.ones(max(low, 1), 2 * self.local.n_channels))
        self.register_buffer("onsite_scale", torch.ones(n_species))
        if n_spectrum:
            self.register_buffer("spectrum_shift", torch.zeros(n_species, n_spectrum))
            self.register_buffer("spectrum_inverse", torch.ones(n_species, n_spectrum))
        for k, size in enumerate(self.sizes):
            self.register_buffer(f"linear_{k}", torch.zeros(self.local.n_features + n_spectrum, size * size))
            self.register_buffer(f"turned_{k}", torch.zeros(1 + 4 * self.local.n_channels, size, size))
        self.register_buffer("dipole", torch.zeros(2))
        self.reference_areas = dict(reference_areas or {})

    def _build_functions(self):
        missing = [symbol for symbol in self.species if symbol not in self.functions]
        if missing:
            raise ValueError(f"functions: got none of {missing[0]}, need those of {', '.join(self.species)}")
        self.sizes, self.columns, self._transforms = [], [], []
        for k, symbol in enumerate(self.species):
            entry = self.functions[symbol]
            transform, columns = orbitals.transform(list(zip(entry["orbitals"], entry["z"], entry["x"])))
            up, across = orbitals.parities(columns)
            vectors, winding = orbitals.circular(columns)
            self.sizes.append(len(columns))
            self.columns.append(columns)
            for name, value in (("signs", np.stack([up, across]).astype(float)), ("transform", transform)):
                self.register_buffer(f"{name}_{k}", torch.as_tensor(value, dtype=torch.float64), persistent=False)
            # as two real arrays: conversions of a module to another precision would drop the imaginary part
            self.register_buffer(f"circular_{k}", torch.as_tensor(np.stack([vectors.real, vectors.imag])),
                                 persistent=False)
            self.register_buffer(f"winding_{k}", torch.as_tensor(winding), persistent=False)

    def arguments(self):
        return dict(functions=self.functions, frame=self.local.arguments(), cutoff=self.cutoff,
                    widths=list(self.widths), n_hidden=self.n_hidden, n_reduced=self.n_reduced,
                    n_directed=self.n_directed, reference_areas=self.reference_areas, third=self.third,
                    spectrum=self.spectrum and {name: value for name, value in self.spectrum.arguments().items()
                                                if name != "species"})

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
            third = self.onsite_third.moments(species, edges.closer_than(self.onsite_third.cutoff), frames,
                                              len(self.third_inverse))
        return Geometry(species, self._sides(species, edges, r, t, within), frames.layer,
                        (self._layers(system, species, frames),), moments,
                        self.local.features(moments), self._spectra(system, edges), first[keep], second[keep], r[keep],
                        t[keep], u[keep], turn[keep], ~within[keep], shift[keep], around, third)

    def _layers(self, system, species, frames):
        area = torch.linalg.cross(*system.cell[0, :2].double()).norm().cpu()
        parts = [species[frames.layer == layer].tolist() for layer in range(len(frames.angle))]
        return Layers([len(part) for part in parts], torch.stack([area / len(part) for part in parts]),
                      [formula_of(self.species[k] for k in part) for part in parts])

    def _spectra(self, system, edges):
        """Features [N, P] of the power spectrum of all atoms; P is 0 without one."""
        if self.spectrum is None:
            return system.positions.new_zeros(len(system.positions), 0)
        near = edges.closer_than(self.spectrum.cutoff)
        return torch.cat([self.spectrum(system, part).features for _, part in near.chunks(CENTERS)])

    def _sides(self, species, edges, r, t, within):
        """+1 for atoms above their neighbours of other species within the layer, -1 below; +1 where it is no matter."""
        sided = torch.tensor([bool(self.functions[symbol]["sided"]) for symbol in self.species], device=species.device)
        return torch.where(sided[species] & (heights(species, edges, r, t, within) < 0), -1, 1)

    def atom_transforms(self, geometry, k):
        """U [n, W, W] of the atoms of species k: functions = U @ columns."""
        matrix, up = getattr(self, f"transform_{k}"), getattr(self, f"signs_{k}")[0]
        below = (geometry.side[geometry.species == k] < 0)[:, None, None]
        return torch.where(below, matrix * up, matrix)

    # blocks -----------------------------------------------------------------------------------------------------

    def environments(self, geometry):
        """(standardised features [N, F + P], reduced [N, R], directed [N, C, q]) of all atoms."""
        features = self.standardised(geometry)
        moments = self.scaled_moments(geometry)
        directed = torch.einsum("nmq,qcm->ncq", moments, self.directed[:moments.shape[2]].to(moments.dtype))
        reduced = map_by_species(lambda k, own: self.environment[k](own[:, :self.local.n_features]), geometry.species,
                                 len(self.species), features)
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
        moments = [torch.cat([geometry.moments[:, 3 + 2 * q], geometry.moments[:, 4 + 2 * q]], dim=1)
                   * self.moment_inverse[q] for q in range(low)]
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
        seen = []
        for up, across in REFLECTIONS:
            view = self.reflected(geometry, up, across)
            seen.append((up, across, view, *self.environments(view)))
        turning = [(self.scaled_moments(view), self.scaled_third_moments(view)) for _, _, view, *_ in seen]
        onsite = {}
        for k in range(len(self.species)):
            atoms = (geometry.species == k).nonzero()[:, 0]
            block = sum(self.signed(self._onsite(k, moments[atoms], None if third is None else third[atoms],
                                                  features[atoms], reduced[atoms], directed[atoms]), k, k, up, across)
                        for (up, across, _, features, reduced, directed), (moments, third) in zip(seen, turning))
            block = block / len(seen)
            onsite[k] = (block + block.mT) / 2
        hopping = {key: torch.cat([self._hopping(key, geometry, seen, part) for part in rows.split(CHUNK)])
                   for key, rows in geometry.groups().items()}
        return Blocks(geometry, onsite, hopping)

    def signed(self, block, a, b, up, across):
        """A block as it is in the frames that were reflected."""
        first, second = (getattr(self, f"signs_{k}") for k in (a, b))
        for sign, place in ((up, 0), (across, 1)):
            if sign < 0:
                block = block * first[place, :, None] * second[place]
        return block

    def _onsite(self, k, moments, third, features, reduced, directed):
        """Blocks [n, W, W] of atoms of one species: what does not turn, and parts of the environment that turn alike,
        both from a linear part and a net."""
        size = self.sizes[k]
        h = self.onsite[k](reduced)
        h = h + torch.nn.functional.pad(features @ getattr(self, f"linear_{k}"), (0, h.shape[1] - size * size))
        block = self._turned(k, h.reshape(len(reduced), -1, size, size), directed)
        if bool(getattr(self, f"winding_{k}").any()):
            block = block + self._turned_linear(k, getattr(self, f"turned_{k}"), moments)
            if third is not None:
                block = block + self._turned_linear(k, getattr(self, f"third_turned_{k}"), third)
        return self.onsite_scale[k] * block

    def _turned(self, k, h, directed):
        """Σ_c h_c G_c [n, W, W] with h [n, c, W, W] and the generators of directed [n, C, q]."""
        vectors = self.circular(k, directed.dtype)
        generators = self.generators(directed, getattr(self, f"winding_{k}"))
        matrix = ((vectors.conj() @ h.to(directed.dtype) @ vectors.T) * generators).sum(dim=1)
        return (vectors.T @ matrix @ vectors.conj()).real

    def _turned_linear(self, k, h, moments):
        """_turned with h [c, W, W] of all atoms, without its elements that do not turn, and without all generators at
        once."""
        vectors, winding = self.circular(k, moments.dtype), getattr(self, f"winding_{k}")
        coefficients = vectors.conj() @ h.to(moments.dtype) @ vectors.T
        matrix, channels = moments.new_zeros(len(moments), *coefficients.shape[1:]), moments.shape[1]
        for i, j, place, q in self._turning(winding, moments.shape[2]):
            start, value = 1 + place * channels, moments[:, :, abs(q) - 1]
            own = coefficients[start:start + channels, i, j]
            matrix[:, i, j] += (value.conj() if q > 0 else value) @ own
        return (vectors.T @ matrix @ vectors.conj()).real

    def _turning(self, winding, low):
        """list of (i, j, place, q): q = λ - μ + nM of an element that turns, the two of smallest |q|, if up to ``low``."""
        found = []
        for i, first in enumerate(winding.tolist()):
            for j, second in enumerate(winding.tolist()):
                charge, rest = first - second, (first - second) % self.fold
                if rest:
                    nearest = sorted((rest, rest - self.fold), key=lambda q: (abs(q), q * charge < 0))
                    found += [(i, j, place, q) for place, q in enumerate(nearest) if abs(q) <= low]
        return found

    def circular(self, k, dtype):
        return torch.complex(*getattr(self, f"circular_{k}")).to(dtype)

    def generators(self, directed, winding):
        """What turns as an element between λ and μ, [n, 1 + 2C, W, W]: 1 where λ - μ is a multiple of M, else
        conjugates of moments with q = λ - μ + nM, the two of smallest |q|; zero where there are none."""
        n, channels, low = directed.shape
        found = directed.new_zeros(n, 1 + 2 * channels, len(winding), len(winding))
        found[:, 0, (winding[:, None] - winding) % self.fold == 0] = 1
        for i, j, place, q in self._turning(winding, low):
            start, value = 1 + place * channels, directed[:, :, abs(q) - 1]
            found[:, start:start + channels, i, j] = value.conj() if q > 0 else value
        return found

    def _hopping(self, key, geometry, seen, rows):
        """Blocks [e, W, W'] of pairs of one kind; of equal species from both ends."""
        ways = (False, True) if key[1] == key[2] else (False,)
        blocks = []
        for back in ways:
            h = 0
            for up, across, view, _, reduced, directed in seen:
                pairs = view.pairs(rows).reversed() if back else view.pairs(rows)
                part = self._bare(key, pairs, lambda net, own, _: net(own, self.fold, reduced, directed))
                h = h + self.signed(part, *key[1:], up, across)
            pairs = geometry.pairs(rows).reversed() if back else geometry.pairs(rows)
            h = h / len(seen)
            if geometry.neighbours is not None:
                h = h + self._bare(key, pairs, lambda net, own, name: net.beside(
                    own, self.third_atoms[name](own), self.third_coefficients(key, net, name)))
            block = self.dress(h, key, pairs)
            blocks.append(block.mT if back else block)
        return sum(blocks) / len(blocks)

    def _bare(self, key, pairs, part_of):
        """h [e, W, W'] of pairs as one frame sees them, near and long ones by nets of their own.

        part_of : callable of (net, pairs, "near" or "long") -> h
        """
        near = switch(pairs.r, *NEAR)
        far = (1 - near) * switch(pairs.r, FADE, self.cutoff)
        h = pairs.r.new_zeros(len(pairs.r), self.sizes[key[1]], self.sizes[key[2]])
        for name, share in (("near", near), ("long", far)):
            rows = (share > 0).nonzero()[:, 0]
            if len(rows):
                part = part_of(self.pairs[pair_key(*key, name)], pairs.pairs(rows), name)
                h = h.index_add(0, rows, share[rows, None, None] * part)
        return h

    def third_coefficients(self, key, net, name):
        """Tensor [n, F, W W'], the mean over reflections: h of third atoms is the same in all of them."""
        blocks, total = net.third.unflatten(2, net.shape), 0
        signs = self.third_atoms[name].signs().to(blocks)
        for up, across in REFLECTIONS:
            sign = reflected_signs(signs, up, across)
            total = total + sign[:, None, None] * self.signed(blocks, *key[1:], up, across)
        return (total / len(REFLECTIONS)).flatten(2)

    def phases(self, key, pairs):
        """Tensor [e, W, W'], complex: s^|λ-μ| exp(-iλθ1 + iμθ2)."""
        first, second = (getattr(self, f"winding_{k}").tolist() for k in key[1:])
        step = {0: torch.ones_like(pairs.u)}
        for charge in range(1, 5):
            step[charge] = step[charge - 1] * pairs.u.conj()
            step[-charge] = step[1 - charge] * pairs.u
        turn = {q: pairs.turn**q for q in set(second)}
        return torch.stack([torch.stack([step[a - b] * turn[b] for b in second], dim=1) for a in first], dim=1)

    def dress(self, h, key, pairs):
        """Blocks in the columns of the two frames from h, which is in the frame of the pair."""
        if key[1:] and not any(bool(getattr(self, f"winding_{k}").any()) for k in key[1:]):
            return h
        left, right = (self.circular(k, pairs.u.dtype) for k in key[1:])
        matrix = (left.conj() @ h.to(left.dtype) @ right.T) * self.phases(key, pairs)
        return (left.T @ matrix @ right.conj()).real

    def elements(self, blocks):
        """Hamiltonian of one structure between the functions, from its Blocks.

        Returns (r_vectors [R, 3]; which [m], row [m], column [m], value [m]: lattice vector, functions of the home cell
        and of that cell, eV; owners [W]: the atom of each function), NumPy arrays.  Functions come in the order of the
        atoms, and on each atom in that of ``functions``.
        """
        geometry, species = blocks.geometry, blocks.geometry.species
        sizes = torch.tensor(self.sizes, device=species.device)[species]
        starts = sizes.cumsum(0) - sizes
        transforms, number = {}, torch.zeros_like(species)
        for k in range(len(self.species)):
            atoms = (species == k).nonzero()[:, 0]
            number[atoms] = torch.arange(len(atoms), device=species.device)
            transforms[k] = self.atom_transforms(geometry, k)
        parts = []
        for k, block in blocks.onsite.items():
            atoms = blocks.atoms(k)
            turned = transforms[k] @ block @ transforms[k].mT
            turned = (turned + turned.mT) / 2       # of rounding
            parts.append((torch.zeros(len(atoms), 3, dtype=torch.long, device=species.device), atoms, atoms, turned))
        for key, block in blocks.hopping.items():
            first, second, shift = blocks.pairs(key)
            turned = transforms[key[1]][number[first]] @ block @ transforms[key[2]][number[second]].mT
            parts += [(shift, first, second, turned), (-shift, second, first, turned.mT)]
        vectors, which = torch.unique(torch.cat([shift for shift, *_ in parts]), dim=0, return_inverse=True)
        found, start = [], 0
        for shift, first, second, block in parts:
            n, height, width = block.shape
            row = starts[first][:, None, None] + torch.arange(height, device=species.device)[:, None]
            column = starts[second][:, None, None] + torch.arange(width, device=species.device)
            place = which[start:start + n][:, None, None]
            found.append([array.expand(n, height, width).reshape(-1) for array in (place, row, column, block)])
            start += n
        which, row, column, value = (torch.cat(arrays).detach().cpu().numpy() for arrays in zip(*found))
        owners = torch.repeat_interleave(torch.arange(len(species), device=species.device), sizes)
        return vectors.cpu().numpy(), which, row, column, value.astype(float), owners.cpu().numpy()

    # layers ------------------------------------------------------------------------------------------------------

    def layer_shifts(self, layers):
        """Shift [L] of every layer of one structure, eV, by the dipoles of the interfaces: C(strain difference, ratio of atoms).

        An interface raises all layers above it by D/2 and lowers those below by as much,
        D = c1 (ε_below - ε_above) + c2 ln(N_below/N_above); ε = ln(area per atom / that in the training data)/2.

        Source: Qi et al. 2024, section II C.
        """
        steps = self.interface_features(layers) @ self.dipole.double().cpu()
        shifts = torch.zeros(len(layers.n_atoms), dtype=torch.float64)
        for place, step in enumerate(steps):
            above = torch.arange(len(shifts)) > place
            shifts = shifts + torch.where(above, step / 2, -step / 2)
        return shifts

    def complete(self, blocks):
        """Blocks of ``forward`` with the shifts of the layers."""
        geometry = blocks.geometry
        shifts = torch.cat([self.layer_shifts(layers) for layers in geometry.layers]).to(geometry.r)[geometry.layer]
        return replace(blocks, onsite={
            k: block + shifts[blocks.atoms(k)][:, None, None] * torch.eye(block.shape[1]).to(block)
            for k, block in blocks.onsite.items()})

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

    def interface_features(self, layers):
        """Tensor [L - 1, 2]: strain difference and logarithm of the ratio of atoms, lower layer first."""
        strain = torch.stack([0.5 * (area / self.reference_areas[formula]).log() if formula in self.reference_areas
                              else torch.zeros_like(area) for area, formula in zip(layers.areas, layers.formulas)])
        count = torch.tensor(layers.n_atoms, dtype=torch.float64).log()
        return torch.stack([strain[:-1] - strain[1:], count[:-1] - count[1:]], dim=1)


def pair_key(inter, a, b, name):
    return f"{'inter' if inter else 'intra'}_{a}_{b}_{name}"


def _environment_net(n_in, n_hidden, n_out):
    return torch.nn.Sequential(torch.nn.Linear(n_in, n_hidden), torch.nn.SiLU(), torch.nn.Linear(n_hidden, n_out),
                               torch.nn.SiLU())
