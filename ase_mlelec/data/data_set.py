"""Base class of data sets, and labeled structures in memory. Nothing here needs torch."""

import hashlib
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from ase_mlelec.quantities import LABELS, data_labels


def hash_of(contents: Iterable) -> str:
    """Hash of arrays and bytes, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in contents:
        digest.update(part if isinstance(part, bytes) else np.asarray(part).tobytes())
    return digest.hexdigest()[:16]


class DataSet:
    """Base of data sets: structures with labels.

    Subclasses have ``len``, items by index, ``groups`` (list of str, the group of every structure), ``take(indices)``,
    and ``_contents()``, which returns the arrays and bytes for the fingerprint.
    """

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def select(self, *groups: str) -> "DataSet":
        """The structures of these groups, a data set of the same kind.

        Parameters
        ----------
        *groups : str
        """
        return self.take([k for k, group in enumerate(self.groups) if group in groups])  # type: ignore[attr-defined]

    def _contents(self):
        raise NotImplementedError(f"{type(self).__name__} must define _contents()")

    def fingerprint(self) -> str:
        """Hash of the contents, which a model file records as its training data."""
        return hash_of(self._contents())


@dataclass
class Frame:
    """One structure with its labels, in the units and shapes of ``ase_mlelec.quantities.LABELS``.

    The labels are energy, eV; forces [N, 3], eV/Å; virial [3, 3] = -dE/dε, eV; ados [N, S] and dos [S], states/eV;
    dipole [3], e Å; polarizability [3, 3] and atomic_polarizability [N, 3, 3], Å^3; atomic_dipole [N, 3], Å, the
    displacement of the Wannier centroid from each atom (zero for atoms without a centroid); summed_dipole [3], Å, its
    sum over the atoms; born_charges [N, 3, 3], e, derivatives of the dipole by the positions, Z[i, a, b] = dM_a/dr_ib;
    summed_dipole_slopes [N, 3, 3], the same derivatives of summed_dipole.

    Attributes
    ----------
    group : str
        Purpose of the structure, e.g. "train", "validation", "test".
    weight : float
        Configuration weight: factor of the squared errors of this structure in training.
    kind : str
        Kind of the structure, e.g. "liquid", for weights and for errors by kind; ``config_type`` in many files.
    label_weights : dict of float
        Further factors of the squared errors of single labels, by label; default 1.
    """

    atoms: Atoms
    labels: dict = field(default_factory=dict)
    name: str = ""
    group: str = ""
    weight: float = 1.0
    kind: str = ""
    label_weights: dict = field(default_factory=dict)


@dataclass
class Frames(DataSet):
    """Data set of labeled structures; a frame may lack labels that other frames have.

    Attributes
    ----------
    frames : list of Frame
    energies : array [S] or None, eV
        Energy grid of all spectra.
    attributes : dict of JSON types
        Description of the data, such as settings of the calculations and width of the spectra.
    """

    frames: list
    energies: np.ndarray | None = None
    attributes: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, k):
        return self.frames[k]

    @property
    def groups(self) -> list:
        """Group of every frame, list of str."""
        return [frame.group for frame in self.frames]

    @property
    def kinds(self) -> list:
        """Kind of every frame, list of str."""
        return [frame.kind for frame in self.frames]

    def take(self, indices: Sequence[int]) -> "Frames":
        """The frames at these indices, a data set of the same kind."""
        return Frames([self.frames[k] for k in indices], self.energies, self.attributes)

    def where(self, condition: Callable[[Frame], bool]) -> "Frames":
        """The frames for which ``condition(frame)`` holds."""
        return self.take([k for k, frame in enumerate(self.frames) if condition(frame)])

    def select(self, *groups: str) -> "Frames":
        """The frames of these groups, a data set of the same kind.

        Parameters
        ----------
        *groups : str
        """
        if groups and callable(groups[0]):
            warnings.warn("select(condition) is now where(condition)", DeprecationWarning, stacklevel=2)
            return self.where(groups[0])
        return super().select(*groups)  # type: ignore[return-value]

    @property
    def labels(self) -> tuple:
        """Names of the labels that all frames have, tuple of str."""
        return tuple(name for name, count in self.counts.items() if count == len(self))

    @property
    def counts(self) -> dict:
        """Number of frames with each label, dict by label."""
        counts = {name: sum(name in frame.labels for frame in self.frames) for name in data_labels()}
        return {name: count for name, count in counts.items() if count}

    def require(self, *names: str) -> None:
        """Raise ValueError unless every frame has all these labels, in the right shapes."""
        for i, frame in enumerate(self.frames):
            for name in names:
                if name not in frame.labels:
                    raise ValueError(
                        f"{self._place(i)} has no label '{name}', it has {sorted(frame.labels)}; add it "
                        "or take its term out of the loss"
                    )
                self._check_label(i, name)

    def check(self, *names: str) -> None:
        """Raise ValueError unless the labels of these names (default: all) are known, finite and of the right shapes.

        Frames may lack labels.
        """
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
                f"{self._place(i)}: label '{name}' has shape {got}, needed {needed or 'one number'}"
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
                with np.errstate(over="ignore"):  # files store spectra in single precision
                    yield np.asarray(frame.labels[name], dtype=np.float32)
            if frame.weight != 1:
                yield f"weight {frame.weight}".encode()
            for name, weight in sorted(frame.label_weights.items()):
                yield f"weight of {name} {weight}".encode()


def same_structure(one: Atoms, other: Atoms) -> bool:
    """Whether two Atoms have the same numbers, and positions and cells up to 1e-4 Å."""
    return np.array_equal(one.numbers, other.numbers) and all(
        np.abs(mine - theirs).max(initial=0) <= SAME_PLACE
        for mine, theirs in ((one.positions, other.positions), (one.cell.array, other.cell.array))
    )


def temperature_of(attributes: Mapping[str, Any]) -> float | None:
    """Temperature of the electrons, K, to which the labels of a data set with these attributes belong, or None."""
    found = attributes.get("settings", {}).get("electronic_temperature_K")
    return float(found) if isinstance(found, numbers.Real) else None  # those of NumPy, too


SAME = {  # of spectra
    "dos_width_eV": "Gaussian widths of the levels (eV)",
    "energy_reference": "zeros of energy",
    "xc": "functionals",
}
BY_SYMBOL = {  # attributes by chemical symbol, and what they are where they have to be the same
    "valence_electrons": "numbers of valence electrons",
    "electrons_per_atom": "numbers of electrons in the functions",
    "core_charges": "",
}
ALIKE = 1e-3  # relative
SAME_PLACE = 1e-4  # Å, of a structure in two files


def join(parts: Iterable[Frames]) -> Frames:
    """Join several data sets; raises ValueError where their energy grids differ, or what their spectra and energies are."""
    parts = list(parts)
    grids = [part.energies for part in parts if part.energies is not None]
    check_grids(grids)
    check_same("temperatures of the electrons (K)", [temperature_of(part.attributes) for part in parts])
    attributes = joined_attributes(
        [part.attributes for part in parts], [part.attributes for part in parts if part.energies is not None]
    )
    return Frames([frame for part in parts for frame in part], grids[0] if grids else None, attributes)


def check_grids(grids: Sequence[np.ndarray]) -> None:
    """Raise ValueError where the energies [S], eV, of spectra differ."""
    for grid in grids[1:]:
        if len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6):
            raise ValueError(
                f"energy grids differ ({grids[0][0]:g}..{grids[0][-1]:g} eV, {len(grids[0])} points and "
                f"{grid[0]:g}..{grid[-1]:g} eV, {len(grid)} points); bring them to one grid first"
            )


def joined_attributes(parts: Sequence[Mapping[str, Any]], spectra: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Attributes of data sets that are joined; those of the later ones take precedence where they may differ.

    Parameters
    ----------
    spectra : sequence of mappings
        Those of ``parts`` that describe spectra.

    Raises
    ------
    ValueError
        Where widths, zeros of energy, functionals or numbers of electrons differ.
    """
    found = {key: value for part in parts for key, value in part.items()}
    for key, what in SAME.items():
        check_same(what, [each.get(key) for each in spectra])
    for key, what in BY_SYMBOL.items():
        tables = [table for part in parts if isinstance(table := part.get(key), Mapping)]
        for symbol in {symbol for table in tables for symbol in table} if what else ():
            check_same(f"{what} of {symbol}", [table.get(symbol) for table in tables])
        if tables:
            found[key] = {symbol: value for table in tables for symbol, value in table.items()}
    for key, choose in (
        ("grid_spacing_A", min),  # the finest, in whatever order the files are
        ("bands_complete_below_eV", min),
        ("fermi_levels_eV", _range),
        ("projected_shares", _range),
    ):
        values = [part[key] for part in parts if key in part]
        if len(values) > 1:
            found[key] = choose(values)
    return found


def _range(pairs):
    """The lowest and the highest of pairs of these."""
    return [min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)]


def check_same(what: str, values: Sequence) -> None:
    """Raise ValueError where numbers or texts differ, among those of ``values`` that are some.

    Parameters
    ----------
    what : str
        Their name in the message.
    """
    known = [value for value in values if isinstance(value, numbers.Real | str)]
    for value in known[1:]:
        if isinstance(value, str) or isinstance(known[0], str):
            same, shown = value == known[0], [str(known[0]), str(value)]
        else:
            same = bool(np.isclose(float(value), float(known[0]), rtol=ALIKE))
            shown = [f"{known[0]:g}", f"{value:g}"]
        if not same:
            raise ValueError(
                f"{what} differ: {shown[0]} and {shown[1]}; make all data with the same settings, or take those of one kind"
            )
