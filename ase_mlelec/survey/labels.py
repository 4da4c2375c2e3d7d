"""How large the labels of a data set are and how much they vary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_mlelec.data.data_set import Frame, Frames
from ase_mlelec.quantities import LABELS

ROUNDS = 20  # of the iteration for least absolute deviations
SMALLEST = 1e-6  # eV/atom; deviations below count alike


@dataclass(frozen=True)
class Energies:
    """Energies per atom beyond a sum over the atoms' species.

    Attributes
    ----------
    frames : array [E] of int
        Indices of the frames with energies.
    rest : array [E], eV/atom
        Deviation from the best sum over species.
    references : dict of float, eV
        Energy of an atom, by symbol; empty where the compositions do not determine it.
    """

    frames: np.ndarray
    rest: np.ndarray
    references: dict

    @property
    def spread(self) -> float:
        """Standard deviation, eV/atom."""
        return float(self.rest.std())


def fit_energies(frames: Frames, *, without: list[int] | None = None) -> Energies | None:
    """Fit energies by a sum over species, by least absolute deviations per atom, so that wrong energies do not matter.

    Parameters
    ----------
    without : list of int
        Frames that are left out, such as isolated atoms.

    Returns
    -------
    Energies or None
        None where no frame has an energy.
    """
    out = set(without or ())
    chosen = [k for k, frame in enumerate(frames) if "energy" in frame.labels and k not in out]
    if not chosen:
        return None
    species = sorted({symbol for k in chosen for symbol in frames[k].atoms.symbols})
    counts = np.array([[(frames[k].atoms.symbols == symbol).sum() for symbol in species] for k in chosen], dtype=float)
    total = np.array([frames[k].labels["energy"] for k in chosen], dtype=float)
    n_atoms = counts.sum(axis=1)
    shares, energies = counts / n_atoms[:, None], total / n_atoms
    weights = np.ones(len(energies))
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(root[:, None] * shares, root * energies, rcond=None)[0]
        rest = energies - shares @ solution
        weights = 1 / np.maximum(abs(rest), SMALLEST)
    known = np.linalg.matrix_rank(shares) == len(species)
    return Energies(np.array(chosen), rest, dict(zip(species, solution.tolist(), strict=True)) if known else {})


@dataclass(frozen=True)
class Spread:
    """Size of one label over all frames that have it.

    Attributes
    ----------
    frames : array [F] of int
        Indices of the frames.
    rms : float
        Root mean square of the components, in the unit of the label; of a virial divided by the volume, eV/Å^3.
    largest : array [F]
        Largest component, by magnitude, of every frame; of forces the largest force, eV/Å.
    """

    name: str
    frames: np.ndarray
    rms: float
    largest: np.ndarray

    @property
    def unit(self) -> str:
        return LABELS[self.name].unit


def spread_of(frames: Frames, name: str) -> Spread | None:
    """Spread of a label; None where no frame has it."""
    found, largest, total, count = [], [], 0.0, 0
    for k, frame in enumerate(frames):
        value = stress_of(frame) if name == "virial" else frame.labels.get(name)
        if value is None:
            continue
        value = np.atleast_1d(np.asarray(value, dtype=float))
        found.append(k)
        sizes = np.linalg.norm(value, axis=1) if name == "forces" else abs(value)
        largest.append(float(sizes.max(initial=0.0)))
        total, count = total + float((value**2).sum()), count + value.size
    return Spread(name, np.array(found), (total / max(count, 1)) ** 0.5, np.array(largest)) if found else None


def stress_of(frame: Frame) -> NDArray | None:
    """Stress [3, 3] of a frame with a virial and a volume, eV/Å^3, positive under tension; None without."""
    if "virial" not in frame.labels or frame.atoms.cell.rank < 3:
        return None
    return -np.asarray(frame.labels["virial"]) / frame.atoms.get_volume()


def pressures(frames: Frames) -> NDArray:
    """Pressure of all frames with a stress, eV/Å^3."""
    stresses = (stress_of(frame) for frame in frames)
    return np.array([-np.trace(stress) / 3 for stress in stresses if stress is not None])
