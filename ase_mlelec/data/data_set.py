"""What all data sets share, and labeled structures in memory. Nothing here needs torch."""

import hashlib
import warnings
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from ase_mlelec.quantities import LABELS, data_labels


def hash_of(contents) -> str:
    """16 hexadecimal digits that tell arrays and bytes from others."""
    digest = hashlib.sha256()
    for part in contents:
        digest.update(part if isinstance(part, bytes) else np.asarray(part).tobytes())
    return digest.hexdigest()[:16]


class DataSet:
    """Structures with what is known of them.

    Subclasses have ``len``, items by place, ``groups`` (list of str, what every structure is for), ``take(indices)``,
    and ``_contents()``: arrays and bytes, which are hashed.
    """

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def select(self, *groups):
        """The structures of these groups, a data set of the same kind.

        Parameters
        ----------
        *groups : str
        """
        return self.take([k for k, group in enumerate(self.groups) if group in groups])

    def _contents(self):
        raise NotImplementedError(f"{type(self).__name__} must define _contents()")

    def fingerprint(self) -> str:
        """Hash of what is in the data set, for the provenance in a model file."""
        return hash_of(self._contents())


@dataclass
class Frame:
    """One structure with its labels, in the units and shapes of ``ase_mlelec.quantities.LABELS``: energy eV, forces
    [N, 3] eV/Å, virial [3, 3] eV (-dE/dε), ados [N, S] and dos [S] states/eV, dipole [3] e Å, polarizability [3, 3] Å^3
    and its parts by atom, atomic_dipole [N, 3] Å, the displacement of an atom's Wannier centroid from it (zero where
    there is none), and summed_dipole [3] Å, its sum over the atoms.

    Attributes
    ----------
    group
        What the structure is for, e.g. "train", "validation", "test".
    weight
        Configuration weight, what its squared errors count in a training.
    """

    atoms: Atoms
    labels: dict = field(default_factory=dict)
    name: str = ""
    group: str = ""
    weight: float = 1.0


@dataclass
class Frames(DataSet):
    """A data set. Frames need not have the same labels: one that is not in ``frame.labels`` is not known for it.

    Attributes
    ----------
    frames : list of Frame
    energies : array [S] or None, eV
        The grid of all spectra.
    attributes : dict of JSON types
        Settings, width of the spectra and whatever describes the data.
    """

    frames: list
    energies: np.ndarray | None = None
    attributes: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, k):
        return self.frames[k]

    @property
    def groups(self):
        """list of str, what every frame is for."""
        return [frame.group for frame in self.frames]

    def take(self, indices):
        """The frames of these places."""
        return Frames([self.frames[k] for k in indices], self.energies, self.attributes)

    def where(self, condition):
        """The frames for which ``condition(frame)`` holds."""
        return self.take([k for k, frame in enumerate(self.frames) if condition(frame)])

    def select(self, *groups):
        """The frames of these groups, a data set of the same kind.

        Parameters
        ----------
        *groups : str
        """
        if groups and callable(groups[0]):
            warnings.warn("select(condition) is now where(condition)", DeprecationWarning, stacklevel=2)
            return self.where(groups[0])
        return super().select(*groups)

    @property
    def labels(self):
        """tuple of str, the labels that every frame has."""
        return tuple(name for name, count in self.counts.items() if count == len(self))

    @property
    def counts(self):
        """dict, label -> number of frames that have it, at least one."""
        counts = {name: sum(name in frame.labels for frame in self.frames) for name in data_labels()}
        return {name: count for name, count in counts.items() if count}

    def require(self, *names):
        """Raise ValueError unless every frame has all the labels, with shapes that fit."""
        for i, frame in enumerate(self.frames):
            for name in names:
                if name not in frame.labels:
                    raise ValueError(
                        f"{self._place(i)} has no label '{name}', it has {sorted(frame.labels)}; add it "
                        "or take its term out of the loss"
                    )
                self._check_label(i, name)

    def check(self, *names):
        """Raise ValueError unless the labels that there are, of these names (default all), have names that are known,
        finite values, and shapes that fit."""
        for i, frame in enumerate(self.frames):
            for name in (name for name in frame.labels if not names or name in names):
                if name not in data_labels():
                    raise ValueError(
                        f"{self._place(i)}: got the label '{name}', known are {', '.join(data_labels())}; rename "
                        "it or leave it out"
                    )
                self._check_label(i, name)

    def _place(self, i):
        return f"frame {i} ({self.frames[i].name or 'unnamed'})"

    def _check_label(self, i, name):
        frame = self.frames[i]
        sizes = {"N": len(frame.atoms), "S": -1 if self.energies is None else len(self.energies), "3": 3}
        needed = tuple(sizes[axis] for axis in LABELS[name].shape)
        got = np.shape(frame.labels[name])
        if len(got) != len(needed) or any(n not in (g, -1) for g, n in zip(got, needed)):
            raise ValueError(
                f"{self._place(i)}: label '{name}' has shape {got}, needed {needed}"
                + ("; are the energy grids of all data the same?" if LABELS[name].on_grid else "")
            )
        if not np.isfinite(frame.labels[name]).all():
            raise ValueError(f"{self._place(i)}: label '{name}' holds NaN; remove the frame")

    def _contents(self):
        if self.energies is not None:
            yield np.asarray(self.energies, dtype=float)
        for frame in self.frames:
            yield from (getattr(frame.atoms, name) for name in ("numbers", "positions", "cell", "pbc"))
            for name in sorted(frame.labels):
                yield name.encode()
                with np.errstate(over="ignore"):  # single precision, which is what a file keeps of spectra
                    yield np.asarray(frame.labels[name], dtype=np.float32)
            if frame.weight != 1:
                yield f"weight {frame.weight}".encode()


def join(parts):
    """One data set of several; ValueError when their energy grids differ."""
    parts = list(parts)
    grids = [part.energies for part in parts if part.energies is not None]
    for grid in grids[1:]:
        if len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6):
            raise ValueError(
                f"energy grids differ ({grids[0][0]:g}..{grids[0][-1]:g} eV, {len(grids[0])} points and "
                f"{grid[0]:g}..{grid[-1]:g} eV, {len(grid)} points); bring them to one grid first"
            )
    return Frames(
        [frame for part in parts for frame in part],
        grids[0] if grids else None,
        {key: value for part in parts for key, value in part.attributes.items()},
    )
