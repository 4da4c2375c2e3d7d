"""Structures with true Hamiltonian blocks, prepared for training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from ase.data import chemical_symbols

from ase_mlelec.data.hamiltonians import HamiltonianFrame
from ase_mlelec.descriptors.layer_moments import Geometry, LayerMoments, Layers, find_symmetry, layer_frames
from ase_mlelec.descriptors.layer_moments.geometry import heights
from ase_mlelec.edges import Edges
from ase_mlelec.heads.hamiltonian import orbitals
from ase_mlelec.heads.hamiltonian.blocks import HamiltonianHead
from ase_mlelec.model import Model
from ase_mlelec.structures.layers import layer_areas
from ase_mlelec.system import System
from ase_mlelec.train.hamiltonian.eigenvalue_response import level_responses

CATEGORIES = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long")
SIDED = 0.5  # Å; a species whose atoms are always at least this far above or below their neighbors has two sides
SHARP = 6.0  # Å; limit between near and long pairs in tables of errors


@dataclass(frozen=True)
class Item:
    """One structure for training: its geometry and its true blocks.

    Attributes
    ----------
    onsite : dict k -> Tensor [n, W, W]
    hopping : dict (inter, a, b) -> Tensor [e, W, W'], eV
        True hopping blocks, in the order of Blocks.
    transforms : list of array [W, W]
        U of every atom: functions of the data = U @ columns.
    responses : dict of Tensor
        Derivatives of the eigenvalues, see ase_mlelec.train.hamiltonian.eigenvalue_response; may be empty.
    """

    geometry: Geometry
    onsite: dict
    hopping: dict
    transforms: list
    responses: dict
    name: str = ""

    @property
    def layers(self) -> Layers:
        """Layers of the structure."""
        return self.geometry.layers[0]


def frame_functions(frames: Sequence[HamiltonianFrame]) -> tuple:
    """Arguments of HamiltonianHead and LayerMoments that fit a data set: (species, symmetry, functions, areas).

    Parameters
    ----------
    frames : iterable of HamiltonianFrame

    Raises
    ------
    ValueError
        For a species without functions.
    """
    frames = list(frames)
    systems = [System.from_atoms(frame.atoms) for frame in frames]
    species = sorted({symbol for frame in frames for symbol in frame.atoms.get_chemical_symbols()})
    areas = layer_areas(frame.atoms for frame in frames)
    fold = find_symmetry(systems, areas)
    found: dict = {}
    raised: dict = {symbol: [] for symbol in species}
    for frame, system in zip(frames, systems):
        symbols = np.array(frame.atoms.get_chemical_symbols())
        lie = layer_frames(system, fold, areas)
        height = _heights(system, lie, species).numpy()
        for symbol in species:
            raised[symbol].append(height[symbols == symbol])
        axes = _local_axes(frame, lie)
        for atom in np.argsort(-height, kind="stable"):  # the axes of a species are taken from an atom above the middle
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
    """Functions of every atom, each as (orbital, z, x) with axes in the frame of the atom's layer."""
    axes, angle = lie.axes.numpy(), lie.angle.numpy()[lie.layer.numpy()]
    found = [[] for _ in frame.atoms]
    for atom, orbital, z, x in frame.functions:
        c, s = np.cos(angle[atom]), np.sin(angle[atom])
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ axes
        found[atom].append((orbital, tuple(np.round(rotation @ z, 8)), tuple(np.round(rotation @ x, 8))))
    return found


def prepare(model: Model, frame: HamiltonianFrame, n_electrons: int = 0) -> Item:
    """Prepare a HamiltonianFrame for the training of a Model.

    Parameters
    ----------
    n_electrons : int
        Number of electrons; where it is given, eigenvalues near the Fermi level are learned too.

    Raises
    ------
    ValueError
        For functions that differ from the functions of the head.
    """
    head, descriptor = model.heads["hamiltonian"], cast(LayerMoments, model.descriptor_of("hamiltonian"))
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
    """Blocks of H(R) in the columns of the layer frames; zero for lattice vectors that the data lack."""
    hamiltonian = frame.hamiltonian
    owners = np.array([function.atom for function in frame.functions])
    rows = [np.flatnonzero(owners == atom) for atom in range(len(frame.atoms))]
    dense = hamiltonian.bloch.toarray()
    # one more matrix, of zeros, for lattice vectors that the data lack
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


def join(head: HamiltonianHead, items: Sequence[Item]) -> tuple:
    """Join several structures into one (Geometry, onsite, hopping)."""
    onsite = {
        k: torch.cat([item.onsite[k] for item in items if k in item.onsite])
        for k in range(len(head.species))
        if any(k in item.onsite for item in items)
    }
    keys = {key for item in items for key in item.hopping}
    hopping = {key: torch.cat([item.hopping[key] for item in items if key in item.hopping]) for key in keys}
    return Geometry.joined([item.geometry for item in items]), onsite, hopping


@torch.no_grad()
def without_third_atoms(head: HamiltonianHead, items: Sequence[Item]) -> list[Item]:
    """Items with the three-center terms of ``head`` subtracted from their true blocks.

    Gradient descent does not change these terms, so they are computed once.
    """
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


def distance_ranges(items: Sequence[Item], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ranges of the distance to the nearest atom over ``items``, [shortest, longest], Å.

    Entry "within" is for atoms of the same layer and "across" for atoms of other layers; "alone" tells whether some
    structure has a single layer.

    Parameters
    ----------
    known : dict, optional
        Ranges of an earlier training, which are widened.
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
