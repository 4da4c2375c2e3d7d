"""Bilayers whose Hamiltonians follow from two-center formulas: graphene pz, and MX2 with d and p functions."""

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.data.hamiltonians import Function, HamiltonianFrame
from ase_mlelec.physics.bloch import from_elements

CUTOFF = 12.0


def graphene_bilayer(shift=(0.0, 0.0), distance=3.35, a=2.46, strain=0.0, noise=0.0, seed=0, repeat=1, height=17.0):
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, height]])
    cell[:2] *= 1 + strain
    sites = np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    fractions = np.hstack([np.concatenate([sites, sites + shift]), np.zeros((4, 1))])
    atoms = Atoms("C4", fractions @ cell, cell=cell, pbc=True)
    atoms.positions[:, 2] = 5 + np.repeat([0, distance], 2)
    atoms = atoms * (repeat, repeat, 1)
    atoms.positions += np.random.default_rng(seed).normal(0, noise, atoms.positions.shape) if noise else 0
    return atoms


def fade(r):
    """1 below 10.5 Å, 0 beyond 11.5 Å, smoothly: the truth ends within the reach of the model."""
    u = np.clip(r - 10.5, 0, 1)
    return 1 - u**3 * (10 - 15 * u + 6 * u * u)


def pairs_of(atoms):
    i, j, shift, vectors = neighbor_list("ijSD", atoms, CUTOFF)
    return i, j, shift, vectors, np.linalg.norm(vectors, axis=1)


def hamiltonian_of(atoms, owners, which_shift, row, column, value):
    r_vectors, which = np.unique(which_shift, axis=0, return_inverse=True)
    matrices = from_elements(len(r_vectors), len(owners), which.ravel(), row, column, value)
    return WannierHamiltonian(atoms.cell.array, r_vectors, matrices, centers=atoms.positions[owners])


def graphene_frame(atoms, name="", group="train"):
    """pz functions along z with the hopping of Moon and Koshino 2012, Phys. Rev. B 85, 195458, Eq. (2).

    t(d) = V_π (1 - (z/d)²) + V_σ (z/d)², decaying as exp(-(d - d0)/0.184 a); on-site energies depend on the bonds.
    """
    i, j, shift, vectors, r = pairs_of(atoms)
    cosine = (vectors[:, 2] / r) ** 2
    decay = 0.184 * 2.46
    value = (-2.7 * np.exp((1.42 - r) / decay) * (1 - cosine) + 0.48 * np.exp((3.35 - r) / decay) * cosine) * fade(r)
    onsite = -4.0 + 3.0 * np.bincount(i, np.exp((1.42 - r) / decay) * (1 - cosine), len(atoms)) / 10
    n = np.arange(len(atoms))
    hamiltonian = hamiltonian_of(
        atoms,
        n,
        np.concatenate([shift, np.zeros((len(n), 3), int)]),
        np.concatenate([i, n]),
        np.concatenate([j, n]),
        np.concatenate([value, onsite]),
    )
    return HamiltonianFrame(atoms, hamiltonian, [Function(k, "pz") for k in n], name=name, group=group)


# MX2: hybrids that belong to the layer, as the conventions for MoS2 have them

A, THICKNESS = 3.16, 3.13


def mx2_bilayer(shift=(0.0, 0.0), distance=6.3, turned=True, strain=0.0, noise=0.0, seed=0, height=24.0, angle=0.0):
    """Mo2S4: the second layer turned by 180 degrees (2H) or not; ``angle`` turns everything, in degrees."""
    cell = np.array([[A, 0, 0], [-A / 2, A * np.sqrt(3) / 2, 0], [0, 0, height]])
    cell[:2] *= 1 + strain
    m, x = np.array([1 / 3, 2 / 3]), np.array([2 / 3, 1 / 3])
    fractions, z = [], []
    for layer in (0, 1):
        first, second = (m, x) if not (layer and turned) else (x, m)
        offset = np.array(shift) * layer
        fractions += [first + offset, second + offset, second + offset]
        z += [5 + THICKNESS / 2 + layer * distance + dz for dz in (0, THICKNESS / 2, -THICKNESS / 2)]
    atoms = Atoms("MoSSMoSS", np.hstack([fractions, np.zeros((6, 1))]) @ cell, cell=cell, pbc=True)
    atoms.positions[:, 2] = z
    atoms.set_tags([0, 0, 0, 1, 1, 1] if turned else [0, 0, 0, 2, 2, 2])
    atoms.positions += np.random.default_rng(seed).normal(0, noise, (6, 3)) if noise else 0
    if angle:
        atoms.rotate(angle, "z", rotate_cell=True)
    return atoms


def mx2_functions(atoms, angle=0.0):
    """Three dz2 along the in-plane directions to S, dxz and dyz on Mo; three pz on S towards Mo and outward.

    Tag 1 marks layers that are turned by 180 degrees.
    """
    functions = []
    turns = {tag: np.radians(angle + (180 if tag == 1 else 0)) for tag in (0, 1, 2)}
    middle = {
        layer: atoms.positions[(atoms.get_tags() == layer) & (atoms.symbols == "Mo"), 2].mean()
        for layer in set(atoms.get_tags().tolist())
    }
    for k, atom in enumerate(atoms):
        turn = turns[int(atom.tag)]

        def along(degrees, up=0.0):
            return (np.cos(np.radians(degrees) + turn), np.sin(np.radians(degrees) + turn), up)

        if atom.symbol == "Mo":
            functions += [Function(k, "dz2", along(degrees), (0, 0, 1)) for degrees in (-30, 210, 90)]
            functions += [Function(k, name, (0, 0, 1), along(150)) for name in ("dxz", "dyz")]
        else:
            side = 1.0 if atom.position[2] > middle[int(atom.tag)] else -1.0
            functions += [Function(k, "pz", along(degrees, side), along(degrees, -side)) for degrees in (30, 150, 270)]
    return functions


def mx2_frame(atoms, functions, name="", group="train"):
    """Two-center (Slater-Koster) hopping between p and d functions along fixed axes, a crystal field of the neighbors
    on site, then turned into the hybrids."""
    from ase_mlelec.heads.hamiltonian import orbitals

    l_of = {"Mo": 2, "S": 1}
    i, j, shift, vectors, r = pairs_of(atoms)
    degree = np.array([l_of[symbol] for symbol in atoms.symbols])
    hybrids = [orthogonal([orbitals.coefficients(*f[1:]) for f in functions if f.atom == k]) for k in range(len(atoms))]
    sizes = 2 * degree + 1
    starts = np.cumsum(sizes) - sizes
    parts = []

    def add(r_vectors, a, b, blocks):
        row, column = starts[a][:, None, None] + np.arange(blocks.shape[1])[:, None], starts[b][:, None, None]
        column = column + np.arange(blocks.shape[2])
        row, column = (np.broadcast_to(array, blocks.shape).ravel() for array in (row, column))
        parts.append((np.repeat(r_vectors, blocks[0].size, axis=0), row, column, blocks.ravel()))

    for la, lb in ((2, 2), (2, 1), (1, 2), (1, 1)):
        own = np.flatnonzero((degree[i] == la) & (degree[j] == lb))
        bare = (
            two_center(la, lb, vectors[own] / r[own, None])
            * (np.exp((2.4 - r[own]) / 1.1) * fade(r[own]))[:, None, None]
        )
        left, right = (np.array([hybrids[k] for k in index[own]]) for index in (i, j))
        add(shift[own], i[own], j[own], left @ bare @ right.transpose(0, 2, 1))
    for l, energy in ((2, -5.0), (1, -7.0)):
        near = np.flatnonzero((degree[i] == l) & (r < 5.5))
        size = 0.3 * np.exp((2.4 - r[near]) / 0.8) * (1 - (r[near] / 5.5) ** 2) ** 3
        own = np.flatnonzero(degree == l)
        field = np.zeros((len(atoms), 2 * l + 1, 2 * l + 1))
        np.add.at(field, i[near], two_center(l, l, vectors[near] / r[near, None]) * size[:, None, None])
        field = field[own] + energy * np.eye(2 * l + 1)
        left = np.array([hybrids[k] for k in own])
        add(np.zeros((len(own), 3), int), own, own, left @ field @ left.transpose(0, 2, 1))
    owners = np.repeat(np.arange(len(atoms)), sizes)
    hamiltonian = hamiltonian_of(atoms, owners, *(np.concatenate(part) for part in zip(*parts)))
    return HamiltonianFrame(atoms, hamiltonian, functions, name=name, group=group)


def orthogonal(matrix):
    """Hybrids [W, 9] -> [W, 2l + 1] in the l they are made of, symmetrically orthogonalized."""
    matrix = np.array(matrix)
    matrix = matrix[:, {5: slice(4, 9), 3: slice(1, 4)}[len(matrix)]]
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def two_center(la, lb, directions):
    """Blocks between all functions of la and lb for pairs along ``directions`` [E, 3]: diagonal in their axes."""
    strengths = {(2, 2): (-0.5, 0.4, -0.1), (1, 1): (0.6, -0.25), (2, 1): (-0.8, 0.35), (1, 2): (0.8, -0.35)}[la, lb]
    core = np.zeros((2 * la + 1, 2 * lb + 1))
    for m, strength in enumerate(strengths):
        for place in [0] if m == 0 else [2 * m - 1, 2 * m]:
            core[place, place] = strength
    return turned(la, directions).transpose(0, 2, 1) @ core @ turned(lb, directions)


def turned(degree, directions):
    """Real harmonics along pairs, rows [E, 2l + 1, 2l + 1], in those along z."""
    from ase_mlelec.heads.hamiltonian import orbitals

    helper = np.eye(3)[np.argmin(abs(directions), axis=1)]
    x = helper - (helper * directions).sum(axis=1, keepdims=True) * directions
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    axes = np.stack([x, np.cross(directions, x), directions], axis=1)
    points = np.random.default_rng(1).normal(size=(20, 3))
    columns = orbitals.DEGREE == degree
    values = orbitals.harmonics((points @ axes.transpose(0, 2, 1)).reshape(-1, 3))[:, columns]
    inverse = np.linalg.pinv(orbitals.harmonics(points)[:, columns])
    return (inverse @ values.reshape(len(directions), len(points), -1)).transpose(0, 2, 1)


def random_wannier_model(kind="mx2", seed=0, energy=False):
    """A model with random numbers wherever it has any, the same for the same seed; float64."""
    import torch
    from small_models import seeded

    from ase_mlelec.descriptors import DeepPotSE, LayerMoments
    from ase_mlelec.heads import HamiltonianHead, ScalarHead
    from ase_mlelec.model import Model
    from ase_mlelec.train.hamiltonian.items import frame_functions

    if kind == "mx2":
        atoms = mx2_bilayer()
        frame, electrons = HamiltonianFrame(atoms, *_empty(atoms, mx2_functions(atoms))), {"Mo": 6, "S": 4}
    else:
        atoms = graphene_bilayer()
        frame, electrons = HamiltonianFrame(atoms, *_empty(atoms, [Function(k, "pz") for k in range(4)])), {"C": 1}
    species, symmetry, functions, _ = frame_functions([frame])
    orders = [dict(cutoff=4.5, n_radial=3), dict(cutoff=4.5, n_radial=2, l_max=3)]
    descriptor = LayerMoments(
        species,
        environment=5.0,
        symmetry=symmetry,
        n_radial=3,
        third=4.5,
        third_moments=kind == "mx2",
        ace=dict(orders=orders) if kind == "mx2" else None,
        reference_areas={"C": 2.6},
    ).double()
    with seeded(seed), torch.no_grad():
        options = dict(widths=(6,), n_hidden=6, n_reduced=4, n_directed=2)
        head = HamiltonianHead.for_descriptor(descriptor, functions, **options).double()
        if descriptor.ace:
            head.ace.inverse[:] = descriptor.ace.weights
        for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
            if "linear" in name or "turned" in name or "third" in name or isinstance(tensor, torch.nn.Parameter):
                tensor.copy_(0.1 * torch.randn(tensor.shape, dtype=tensor.dtype))
        for net in (net for kind in head.hopping for net in kind.nets.values()):
            net.envelope.copy_(torch.tensor([0.0, -0.3]))
        head.interface_dipole.copy_(torch.tensor([0.3, -0.2]))
        heads, pairs = {"hamiltonian": head}, None
        if energy:
            pairs, descriptor = (
                descriptor,
                DeepPotSE(species, 4.0, 1.0, widths=(4,), n_axis=2, sel=(8,) * len(species)).double(),
            )
            heads = {"energy": ScalarHead(len(species), descriptor.n_features, (6,)).double(), **heads}
    return Model(descriptor, heads, {"electrons_per_atom": electrons, "energy_reference": "vacuum level"}, pairs=pairs)


def _empty(atoms, functions):
    n = np.arange(len(functions))
    owners = np.array([function.atom for function in functions])
    return hamiltonian_of(atoms, owners, np.zeros((len(n), 3), int), n, n, np.ones(len(n))), functions
