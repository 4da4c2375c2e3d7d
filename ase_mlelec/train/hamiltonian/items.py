"""Structures with true elements, prepared for training."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols

from ase_mlelec.descriptors.layer_moments import Geometry, find_symmetry, layer_frames
from ase_mlelec.descriptors.layer_moments.geometry import heights
from ase_mlelec.edges import Edges
from ase_mlelec.heads.hamiltonian import orbitals
from ase_mlelec.structures.layers import layer_areas
from ase_mlelec.system import System
from ase_mlelec.train.hamiltonian.eigenvalue_response import level_responses

CATEGORIES = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long")
SIDED = 0.5  # Å; species that are always as far above or below their neighbors have two sides
SHARP = 6.0  # Å, between near and long pairs in tables of errors


@dataclass(frozen=True)
class Item:
    """One structure: geometry and its true blocks.

    Attributes
    ----------
    onsite : dict k -> Tensor [n, W, W]
    hopping : dict (inter, a, b) -> Tensor [e, W, W'], eV
        In the order of Blocks.
    transforms : list of array [W, W]
        U of every atom: functions of the data = U @ columns.
    responses : dict of the derivatives of its levels
        See ase_mlelec.train.hamiltonian.eigenvalue_response; may be empty.
    """

    geometry: Geometry
    onsite: dict
    hopping: dict
    transforms: list
    responses: dict
    name: str = ""

    @property
    def layers(self):
        """Layers of the structure."""
        return self.geometry.layers[0]


def frame_functions(frames):
    """(species, fold, functions, areas) that describe a data set: arguments of HamiltonianHead and LayerMoments.

    Parameters
    ----------
    frames : iterable of HamiltonianFrame

    Raises
    ------
    ValueError
        For functions that are not the same on all atoms of a species.
    """
    frames = list(frames)
    systems = [System.from_atoms(frame.atoms) for frame in frames]
    species = sorted({symbol for frame in frames for symbol in frame.atoms.get_chemical_symbols()})
    areas = layer_areas(frame.atoms for frame in frames)
    fold = find_symmetry(systems, areas)
    found, raised = {}, {symbol: [] for symbol in species}
    for frame, system in zip(frames, systems):
        symbols = np.array(frame.atoms.get_chemical_symbols())
        lie = layer_frames(system, fold, areas)
        height = _heights(system, lie, species).numpy()
        for symbol in species:
            raised[symbol].append(height[symbols == symbol])
        axes = _local_axes(frame, lie)
        for atom in np.argsort(-height, kind="stable"):  # the highest of its neighbors: above the middle
            if axes[atom]:
                found.setdefault(symbols[atom], axes[atom])
    missing = [symbol for symbol in species if symbol not in found]
    if missing:
        raise ValueError(
            f"got no functions of {missing[0]}, need some on every species; leave its atoms out or project on them"
        )
    functions = {}
    for symbol in species:
        names, z, x = zip(*found[symbol])
        functions[symbol] = {
            "orbitals": list(names),
            "z": np.round(z, 6).tolist(),
            "x": np.round(x, 6).tolist(),
            "sided": bool((abs(np.concatenate(raised[symbol])) > SIDED).all()),
        }
    return species, fold, functions, areas


def _heights(system, lie, species):
    edges = Edges.build(system, 4.0)
    index = torch.tensor([species.index(chemical_symbols[number]) for number in system.numbers.tolist()])
    r, t, _, _, within = lie.of_pairs(edges)
    return heights(index, edges, r, t, within)


def _local_axes(frame, lie):
    """list by atom of list of (orbital, z, x), axes in the frame of the atom's layer."""
    axes, angle = lie.axes.numpy(), lie.angle.numpy()[lie.layer.numpy()]
    found = [[] for _ in frame.atoms]
    for atom, orbital, z, x in frame.functions:
        c, s = np.cos(angle[atom]), np.sin(angle[atom])
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ axes
        found[atom].append((orbital, tuple(np.round(rotation @ z, 8)), tuple(np.round(rotation @ x, 8))))
    return found


def prepare(model, frame, n_electrons=0):
    """Item of a HamiltonianFrame, for the Hamiltonian of a Model.

    Parameters
    ----------
    n_electrons : int
        Of the structure; levels near the Fermi level are learnt too where it is known.

    Raises
    ------
    ValueError
        For functions that the head does not have.
    """
    head, descriptor = model.heads["hamiltonian"], model.descriptor_of("hamiltonian")
    system = System.from_atoms(frame.atoms)
    edges = Edges.build(system, descriptor.cutoff)
    lie = descriptor.frames(system, edges)
    geometry = descriptor.in_frames(system, edges, lie)
    transforms, kept = [], {}
    for k, functions in zip(geometry.species.tolist(), _local_axes(frame, lie)):
        key = tuple(functions)
        if key not in kept:
            kept[key] = orbitals.transform(functions) if functions else (np.zeros((0, 0)), np.zeros(0, int))
        matrix, columns = kept[key]
        if not np.array_equal(columns, head.orbitals[k].columns):
            got, need = ([orbitals.ORBITALS[c] for c in each] for each in (columns, head.orbitals[k].columns))
            raise ValueError(
                f"frame '{frame.name}': got the harmonics {got} of {head.species[k]}, need {need}; train "
                "on one set of functions"
            )
        transforms.append(matrix)
    onsite, hopping = _true_blocks(head, frame, geometry, transforms)
    responses = level_responses(frame, n_electrons, geometry, transforms)
    return Item(geometry, onsite, hopping, transforms, responses, frame.name)


def _true_blocks(head, frame, geometry, transforms):
    """Blocks of H(R) in the columns of the layer frames; zero beyond what the data have."""
    hamiltonian = frame.hamiltonian
    owners = np.array([function.atom for function in frame.functions])
    rows = [np.flatnonzero(owners == atom) for atom in range(len(frame.atoms))]
    dense = hamiltonian.bloch.toarray()
    # one more, of zeros, for lattice vectors that the data do not have
    dense = np.concatenate([dense, np.zeros((1, *dense.shape[1:]))])
    place = {tuple(r): index for index, r in enumerate(hamiltonian.r_vectors.tolist())}
    home = place[0, 0, 0]

    def block(which, first, second):
        values = dense[
            which[:, None, None],
            np.array([rows[i] for i in first])[:, :, None],
            np.array([rows[i] for i in second])[:, None, :],
        ]
        left, right = (np.array([transforms[i] for i in index]) for index in (first, second))
        return torch.as_tensor(left.transpose(0, 2, 1) @ values @ right)

    species = geometry.species.numpy()
    onsite = {}
    for k in range(len(head.species)):
        atoms = np.flatnonzero(species == k)
        if len(atoms):
            onsite[k] = block(np.full(len(atoms), home), atoms, atoms)
    hopping = {}
    for key, pairs in geometry.groups().items():
        which = np.array([place.get(tuple(r), len(dense) - 1) for r in geometry.shift[pairs].tolist()])
        hopping[key] = block(which, geometry.first[pairs].numpy(), geometry.second[pairs].numpy())
    return onsite, hopping


def join(head, items):
    """(Geometry, onsite, hopping) of several structures as one."""
    onsite = {
        k: torch.cat([item.onsite[k] for item in items if k in item.onsite])
        for k in range(len(head.species))
        if any(k in item.onsite for item in items)
    }
    keys = {key for item in items for key in item.hopping}
    hopping = {key: torch.cat([item.hopping[key] for item in items if key in item.hopping]) for key in keys}
    return Geometry.joined([item.geometry for item in items]), onsite, hopping


@torch.no_grad()
def without_third_atoms(head, items):
    """Items as a head without third atoms has to learn them: their part, which gradient descent leaves as it is, is
    taken from the true blocks once."""
    found = []
    for item in items:
        if item.geometry.neighbors is not None:
            bare = replace(item.geometry, neighbors=None, third_moments=None)
            whole, rest = head.unshifted(item.geometry), head.unshifted(bare)
            onsite = {k: truth - (whole.onsite[k] - rest.onsite[k]) for k, truth in item.onsite.items()}
            hopping = {key: truth - (whole.hopping[key] - rest.hopping[key]) for key, truth in item.hopping.items()}
            item = replace(item, geometry=bare, onsite=onsite, hopping=hopping)
        found.append(item)
    return found


def distance_ranges(head, items, known=None):
    """dict of [shortest, longest] Å over ``items``: to the nearest atom "within" the layer, and "across" where layers
    have neighbors; "alone": whether some have none.

    Parameters
    ----------
    known
        Those of former training, which the new ones widen.
    """
    found = [item.geometry.nearest() for item in items]
    known = known or {}
    ranges = {"alone": known.get("alone", False) or any(not len(across) for _, across in found)}
    for k, name in enumerate(("within", "across")):
        distances = [float(value) for part in found if len(part[k]) for value in (part[k].min(), part[k].max())]
        distances += known.get(name, [])
        if distances:
            ranges[name] = [min(distances), max(distances)]
    return ranges
