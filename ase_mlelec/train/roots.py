"""Roots of densities of states: what they are fitted to, and for which data they are the better choice.

Least squares makes errors that are about equal everywhere. A weak band, such as the foot of a conduction band, then
drowns in them, or becomes negative. Where the last layer gives a root a of the density of states D = a², the errors of D
are dD = 2 a da: proportional to the root, and D is never negative. Roots are fitted to labels of atoms alone, because the
total density of states is no longer linear in the last layer.
"""

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.frames import Frames
from ase_mlelec.model import Model
from ase_mlelec.physics.gap import gap_of_dos
from ase_mlelec.train.losses import SpectrumLoss

LOOKED_AT = 100  # structures
NEGATIVE = 0.01  # share of the labels below zero, which no square can be
MISSED = 0.1  # of the electrons, which projections on atoms may miss


@dataclass(frozen=True)
class RootLoss(SpectrumLoss):
    """Loss of roots of the densities of states of atoms: their mean squared errors."""

    of_structures: ClassVar = False
    errors: ClassVar[tuple[str, ...]] = ("root_of_ados",)


def roots_of(frames: Frames) -> Frames:
    """Copy whose labels "ados" are the roots of those of ``frames``, zero for negative ones; without total ones."""

    def with_roots(frame):
        labels = {name: value for name, value in frame.labels.items() if name != "dos"}
        if "ados" in labels:
            labels["ados"] = np.sqrt(np.maximum(labels["ados"], 0))
        return replace(frame, labels=labels)

    return replace(frames, frames=[with_roots(frame) for frame in frames])


def linear_problem(model: Model, name: str, frames: Frames) -> tuple[Model, Frames]:
    """Model and labels for which results of the head ``name`` are linear in its last layer; most are already."""
    head = model.heads[name]
    if not getattr(head, "square_root", False):
        return model, frames
    linear = copy.copy(head)  # shares the arrays
    linear.square_root = False
    return model.with_heads({**model.heads, name: linear}), roots_of(frames)


def check_roots(frames: Frames, sources: str) -> None:
    """Raise ValueError where a structure has a total density of states alone."""
    alone = next((frame for frame in frames if "dos" in frame.labels and "ados" not in frame.labels), None)
    if alone is not None:
        raise ValueError(
            f"{sources}: dos.square_root: frame '{alone.name}' has a total density of states and none of atoms, to which "
            "roots are fitted; set square_root = false, or leave such frames out"
        )


def of_insulators(frames: Frames) -> bool:
    """Whether roots suit the labels: densities of states of atoms, not below zero, most of them with a gap.

    Data without ``valence_electrons`` among their attributes do not tell.
    """
    labeled = frames.where(lambda frame: bool({"ados", "dos"} & {*frame.labels}))
    if not len(labeled) or not all("ados" in frame.labels for frame in labeled) or frames.energies is None:
        return False
    some = labeled.frames[:: max(1, len(labeled) // LOOKED_AT)]
    spectra = np.concatenate([frame.labels["ados"] for frame in some])
    if -np.minimum(spectra, 0).sum() > NEGATIVE * np.abs(spectra).sum():
        return False
    return sum(_has_gap(frame, frames) for frame in some) > len(some) / 2


def _has_gap(frame: Frame, frames: Frames) -> bool:
    """Whether the density of states of a structure has a gap above its valence electrons."""
    valence, symbols = frames.attributes.get("valence_electrons") or {}, frame.atoms.get_chemical_symbols()
    if not {*symbols} <= {*valence}:
        return False
    whole = frame.labels["dos"] if "dos" in frame.labels else frame.labels["ados"].sum(axis=0)
    per_atom = torch.as_tensor(np.asarray(whole, dtype=float) / len(symbols))
    electrons = sum(valence[symbol] for symbol in symbols) / len(symbols)
    width = float(frames.attributes.get("dos_width_eV") or 0.0)
    grid = torch.as_tensor(np.asarray(frames.energies, dtype=float))
    return gap_of_dos(grid, per_atom, electrons, width=width, tolerance=MISSED) is not None
