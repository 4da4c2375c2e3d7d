"""Dipoles of structures and Born charges as labels of the vectors of centers.

A dipole is that of charges at the atoms and of the vectors d, M = sum_i (Z_i - Q_i) r_i - Q/k sum_c d_c, so that it gives
the sum of the vectors. In a periodic structure it is known up to charges times lattice vectors. The right multiple is the
one for which the sums of all structures are a smooth function of the structure, see ``settle_branches``. Born charges are
derivatives of the dipole, and give those of the sum of the vectors, without any such choice.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import Frames, join
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.quantities import DIPOLE, QUANTITIES
from ase_mlelec.system import System

SUM, VECTORS, SLOPES = QUANTITIES[DIPOLE].total, QUANTITIES[DIPOLE].atomic, QUANTITIES[DIPOLE].slopes  # labels
BORN = "born_charges"
REACH, N_RADIAL = 5.0, 6  # Å; functions of the distance of a neighbor
MOST_ROUNDS, MARGIN = 20, 3.0  # of the search for branches; rows for each coefficient, from which a fit can tell them
NEUTRAL = 1e-6  # e, of a structure
RIDGE = 1e-6  # relative to the mean diagonal element
SCANNED, LARGEST = 81, 2.0  # multiples of a feature; the largest, root mean square in units of the distance of branches


def has_only_dipole(frame: Frame) -> bool:
    """Whether the dipole is all that a frame tells about the vectors."""
    return DIPOLE in frame.labels and not {SUM, VECTORS} & {*frame.labels}


def has_only_charges(frame: Frame) -> bool:
    """Whether the derivatives of the sum of the vectors are known from Born charges alone."""
    return BORN in frame.labels and SLOPES not in frame.labels


def _needs_charges(frame):
    """Whether labels of a frame are those of charges, and none of vectors yet."""
    return has_only_dipole(frame) or has_only_charges(frame)


def with_sums(frames: Frames, known: Mapping[str, Any]) -> Frames:
    """Frames with the sum of the vectors, Å, of dipoles that are alone, and its derivatives, of Born charges.

    Sums are on the branch on which the dipole is given. Derivatives by the positions have no branches. The dipole of a
    charged structure is taken to refer to the origin of the positions, which a warning tells.

    Parameters
    ----------
    known : dict
        ``valence_charges``, ``electrons_per_centre`` and, if not 1, ``functions_per_vector``; see DeepWannierCalculator.

    Raises
    ------
    ValueError
        Where charges are missing, and where species of centers have different numbers of electrons.
    """
    if not any(map(_needs_charges, frames)):
        return frames
    charge = _charge(known)
    _warn_of_charged(frames, known)
    return replace(
        frames, frames=[_of_vectors(frame, known, charge) if _needs_charges(frame) else frame for frame in frames]
    )


def _warn_of_charged(frames, known):
    """Tell of structures with a dipole and a charge: such a dipole depends on the origin."""
    some = [frame for frame in frames if has_only_dipole(frame) and _knows(frame, known)]
    charged = [(frame.name, net) for frame in some if abs(net := float(_charges_at(frame, known).sum())) > NEUTRAL]
    if charged:
        name, net = charged[0]
        warnings.warn(
            f"{len(charged)} of {len(some)} structures with a dipole are charged, such as '{name}' with {net:+.3g} e: their "
            "dipoles depend on the origin, and are taken to refer to that of the positions; move the positions if the "
            "dipoles refer to another point, or correct dipole.ions and dipole.electrons if the structures are neutral",
            stacklevel=4,
        )


def _knows(frame, known):
    """Whether all species of a frame have a charge."""
    return {*frame.atoms.symbols} <= {*known["valence_charges"]}


def _charges_at(frame, known):
    """Charges of the ions and of the electrons at them [N], e."""
    ions, electrons = known["valence_charges"], known["electrons_per_centre"]
    return np.array([ions[symbol] - electrons.get(symbol, 0.0) for symbol in frame.atoms.symbols])


def _charge(known):
    """Q/k, e, which all centers share."""
    ions, electrons = known.get("valence_charges"), known.get("electrons_per_centre")
    if not ions or not electrons:
        raise ValueError(
            "dipoles and Born charges need the charges of ions and of electrons at the centers to be learned, which the "
            "data lack; give dipole.ions and dipole.electrons, such as ions = {O = 6, H = 1}, electrons = {O = 8}"
        )
    if len({*electrons.values()}) > 1:
        raise ValueError(
            f"dipoles and Born charges cannot be learned with different electrons at the centers, {dict(electrons)}; give "
            "all the same"
        )
    return next(iter(electrons.values())) / known.get("functions_per_vector", 1)


def _of_vectors(frame, known, charge):
    """Frame with labels of vectors beside those of charges."""
    if not _knows(frame, known):
        missing = min({*frame.atoms.symbols} - {*known["valence_charges"]})
        raise ValueError(f"frame '{frame.name}': there is no charge of {missing}; add it to dipole.ions")
    charges = _charges_at(frame, known)
    found = {}
    if has_only_dipole(frame):
        found[SUM] = (charges @ frame.atoms.positions - np.asarray(frame.labels[DIPOLE])) / charge
    if has_only_charges(frame):
        found[SLOPES] = (charges[:, None, None] * np.eye(3) - np.asarray(frame.labels[BORN])) / charge
    sources = {SUM: DIPOLE, SLOPES: BORN}
    weights = {label: frame.label_weights[sources[label]] for label in found if sources[label] in frame.label_weights}
    return replace(frame, labels=frame.labels | found, label_weights=frame.label_weights | weights)


def settle_branches(frames: Frames, known: Mapping[str, Any], centers: Sequence[str]) -> Frames:
    """Frames with sums of vectors from dipoles, each on the branch that fits the others, and their derivatives.

    Sums over the neighbors of every center, of unit vectors times functions of the distance, are fitted to the sums of the
    vectors. Each label goes to the branch nearest to the fit, until nothing changes. The search begins with the branches
    as they are given, with those nearest to zero, and with those nearest to a multiple of one of these sums; the best fit
    counts. With few structures, it is the branch nearest to zero. Without charges, dipoles beside other labels of vectors
    are left alone. Derivatives follow from Born charges.

    Raises
    ------
    ValueError
        See ``with_sums``.
    """
    chosen = [k for k, frame in enumerate(frames) if has_only_dipole(frame)]
    others = any({SUM, VECTORS} & {*frame.labels} for frame in frames)
    if others and not known.get("electrons_per_centre") and not any(map(has_only_charges, frames)):
        return frames
    frames = with_sums(frames, known)
    if not chosen:
        return frames
    charge, some = _charge(known), [frames[k] for k in chosen]
    given = np.stack([frame.labels[SUM] for frame in some])
    lattice = _Lattice([frame.atoms for frame in some], charge)
    species = sorted({symbol for frame in some for symbol in frame.atoms.symbols})
    features = np.stack([_features(frame.atoms, species, centers) for frame in some])
    changed = list(frames)
    for k, frame, sums in zip(chosen, some, _smoothest(given, features, lattice)):
        changed[k] = replace(frame, labels=frame.labels | {SUM: sums})
    return replace(frames, frames=changed)


def told_of_sum_rule(frames: Frames, known: Mapping[str, Any]) -> str:
    """Line on how far Born charges are from the acoustic sum rule, which models obey exactly; "" where there are none.

    The derivatives of the sum of the vectors add up to zero over the atoms of a structure, whatever its charge is.
    """
    sums = [np.asarray(frame.labels[SLOPES]).sum(axis=0) for frame in frames if {BORN, SLOPES} <= {*frame.labels}]
    if not sums:
        return ""
    excess = abs(_charge(known)) * np.abs(sums)
    return (
        f"Born charges of {len(sums)} structures: elements of their sum are {np.sqrt(np.square(excess).mean()):.2g} e (root "
        f"mean square), at most {excess.max():.2g} e, away from the charge of the structure (acoustic sum rule)"
    )


class _Lattice:
    """Branches of the sums of vectors of structures, which differ by lattice vectors over the charge."""

    def __init__(self, structures, charge):
        self.cells = np.stack([atoms.cell.complete() for atoms in structures]) / charge
        self.inverse = np.linalg.inv(self.cells)
        self.pbc = np.stack([atoms.pbc for atoms in structures])

    def nearest(self, sums, wanted):
        """Sums [n, 3] on the branches nearest to those wanted."""
        fractions = np.einsum("ni,nij->nj", wanted - sums, self.inverse)
        return sums + np.einsum("ni,nij->nj", np.where(self.pbc, fractions.round(), 0.0), self.cells)


def settle_parts(parts: Mapping[str, Frames], known: Mapping[str, Any], centers: Sequence[str]) -> dict[str, Frames]:
    """``settle_branches`` of the parts of a data set together, dict of Frames."""
    whole, found, start = settle_branches(join(list(parts.values())), known, centers), {}, 0
    for name, part in parts.items():
        found[name] = replace(part, frames=list(whole)[start : start + len(part)])
        start += len(part)
    return found


def _smoothest(given, features, lattice):
    """Sums [n, 3] of the start from which the fit [n, 3, F] becomes best."""
    zero = lattice.nearest(given, np.zeros_like(given))
    if features.shape[0] * 3 < MARGIN * features.shape[2]:
        return zero
    best = None
    for sums in (given, zero, _by_one_feature(given, features, lattice)):
        for _ in range(MOST_ROUNDS):
            again = lattice.nearest(given, _fitted(features, sums))
            if np.allclose(again, sums, atol=1e-9):
                break
            sums = again
        error = np.square(_fitted(features, sums) - sums).mean()
        best = (error, sums) if best is None or error < best[0] else best
    return best[1]


def _by_one_feature(given, features, lattice):
    """Sums [n, 3] on the branches nearest to a multiple of one of the features, the one for which they are nearest."""
    best = None
    for k in range(features.shape[2]):
        size = np.sqrt(np.square(features[:, :, k]).mean())
        for multiple in np.linspace(-1, 1, SCANNED) * LARGEST * np.abs(lattice.cells).max() if size > 0 else ():
            wanted = multiple / size * features[:, :, k]
            sums = lattice.nearest(given, wanted)
            error = np.square(sums - wanted).mean()
            best = (error, sums) if best is None or error < best[0] else best
    return best[1]


def _fitted(features, sums):
    """Values [n, 3] of the linear fit to ``sums``."""
    rows = features.reshape(-1, features.shape[2])
    normal = rows.T @ rows
    normal += RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal)) + 1e-30 * np.eye(len(normal))
    return features @ np.linalg.solve(normal, rows.T @ sums.ravel())


def _features(atoms, species, centers):
    """Sums over centers of one species and their neighbors of another, [3, F]."""
    edges = Edges.build(System.from_atoms(atoms), REACH)
    distances, symbols = edges.distances, np.array(atoms.get_chemical_symbols())
    at = torch.linspace(0.8, REACH - 0.8, N_RADIAL, dtype=distances.dtype)
    fade = (1 - (distances / REACH) ** 2) ** 2
    functions = fade[:, None] * torch.exp(-(((distances[:, None] - at) / 0.8) ** 2))
    vectors = (edges.vec / distances[:, None])[:, :, None] * functions[:, None]
    columns = []
    for center in centers:
        for neighbor in species:
            rows = (symbols[edges.center.numpy()] == center) & (symbols[edges.neighbor.numpy()] == neighbor)
            columns.append(vectors[torch.from_numpy(rows)].sum(dim=0))
    return torch.cat(columns, dim=1).numpy()


@torch.no_grad()
def on_branch_of_model(model: Model, frames: Frames) -> Frames:
    """Frames with sums of vectors from dipoles, on the branch nearest to that of a model, and their derivatives.

    Without charges in the metadata of the model, or without such frames, they are returned as they are.
    """
    known = model.metadata
    chosen = [k for k, frame in enumerate(frames) if has_only_dipole(frame)]
    if (
        DIPOLE not in model.heads
        or not known.get("electrons_per_centre")
        or not (chosen or any(map(has_only_charges, frames)))
    ):
        return frames
    frames, charge = with_sums(frames, known), _charge(known)
    if not chosen:
        return frames
    some = frames.take(chosen)
    batches, changed = Batches.for_model(model, some, ()), list(frames)
    for place, (k, frame) in enumerate(zip(chosen, some)):
        batch = batches.batch([place])
        wanted = batch.predict(model, DIPOLE).sum(dim=0).double().cpu().numpy()
        (sums,) = _Lattice([frame.atoms], charge).nearest(frame.labels[SUM][None], wanted[None])
        changed[k] = replace(frame, labels=frame.labels | {SUM: sums})
    return replace(frames, frames=changed)
