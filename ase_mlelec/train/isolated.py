"""Energies of isolated atoms: the reference energies of a model, which it then reproduces exactly."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from ase import Atoms
from ase.geometry import minkowski_reduce

from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import Frames
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.quantities import LABELS
from ase_mlelec.system import System

# labels that an isolated atom may have
ALONE = {name for name, row in LABELS.items() if name == "forces" or not (row.of_atoms or row.on_grid)}
SAME = 1e-3  # eV: energies of one species that differ by more are of different states
FAR = 6.0  # lengths: exp(-36) is 2e-16
BOUND = 0.0, 15.0  # eV/atom by which structures are bound; elements are between 0.1 (neon) and 9


def is_isolated(frame: Frame, cutoff: float) -> bool:
    """Whether a frame is a single atom for its energy: of a kind such as IsolatedAtom, or farther than ``cutoff`` from its
    images."""
    if len(frame.atoms) != 1 or not {"energy"} <= frame.labels.keys() <= ALONE:
        return False
    if "".join(letter for letter in frame.kind.lower() if letter.isalpha()) in ("isolatedatom", "isolatedatoms"):
        return True
    cell, pbc = frame.atoms.cell, frame.atoms.pbc
    if not pbc.any():
        return True
    reduced = minkowski_reduce(cell, pbc)[0]
    return bool(np.linalg.norm(reduced[pbc], axis=1).min() > cutoff)


def isolated_energies(frames: Iterable[Frame]) -> tuple[dict[str, float], list[str]]:
    """Energies of isolated atoms, dict of eV by symbol, the lowest of each; and the symbols whose energies differ."""
    found: dict[str, list[float]] = {}
    for frame in frames:
        found.setdefault(frame.atoms.get_chemical_symbols()[0], []).append(float(frame.labels["energy"]))
    different = [symbol for symbol, energies in found.items() if max(energies) - min(energies) > SAME]
    return {symbol: min(energies) for symbol, energies in found.items()}, different


def binding(frames: Frames, energies: Mapping[str, float]) -> float | None:
    """Median energy by which structures are bound, eV/atom; None without an energy of such a structure."""
    bound = [
        (sum(energies[symbol] for symbol in frame.atoms.symbols) - frame.labels["energy"]) / len(frame.atoms)
        for frame in frames
        if "energy" in frame.labels and {*frame.atoms.symbols} <= energies.keys()
    ]
    return float(np.median(bound)) if bound else None


@torch.no_grad()
def reproduce(model: Model, frames: Frames, energies: Mapping[str, float]) -> None:
    """Make a trained model reproduce the energies of isolated atoms, without a change near the structures ``frames``.

    Parameters
    ----------
    energies : dict of float, eV
        By symbol.

    Raises
    ------
    ValueError
        For a descriptor with features of an atom without neighbors.
    """
    head, species = model.heads["energy"], list(model.species)
    corrections, lengths = (head.nets.bias.new_zeros(len(species)) for _ in range(2))
    for symbol, energy in energies.items():
        alone = _features(model, Atoms(symbol))
        if bool(alone.features.any()):
            raise ValueError(f'energy.E0: atoms of {symbol} without neighbors have features; set E0 = "average"')
        corrections[species.index(symbol)] = energy - head(alone, None)[0]
    if not bool((corrections.abs() > 1e-9).any()):
        return
    smallest = corrections.new_full((len(species),), torch.inf)
    for frame in frames:
        environment = _features(model, frame.atoms)
        sizes = environment.features.norm(dim=1)
        smallest.scatter_reduce_(0, environment.species, sizes, "amin")
    lengths = torch.where(smallest.isfinite() & (smallest > 0), smallest / FAR, 1.0)
    head.add_lone(corrections, lengths)


def _features(model, atoms):
    """Environment of all atoms of a structure, for the energy."""
    like = model.heads["energy"].nets.bias
    system = System.from_atoms(atoms, like.dtype, like.device)
    descriptor = model.descriptor_of("energy")
    return descriptor(system, Edges.build(system, descriptor.cutoff))
