"""What was found in deepmd-kit's data but not read, or read otherwise than it stands there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from ase_mlelec.io.npy import map_npy

ASYMMETRY, FLOOR = 1e-3, 1e-2  # of virials, relative to the largest element, and eV, which is rounding


@dataclass
class Notes:
    """Data that were found but not read: file names, inputs with values of the first frame, names taken as elements."""

    unread: set = field(default_factory=set)
    inputs: dict = field(default_factory=dict)
    guessed: dict = field(default_factory=dict)
    asymmetric: dict = field(default_factory=dict)  # largest difference of virials, eV, by the name of the file
    coarse: dict = field(default_factory=dict)  # (type of the numbers, distance, unit) by the name of the file
    zeros: int = 0  # frames with zeros in place of a virial

    def symmetric(self, file, virials):
        """Symmetric part of virials [frames, 3, 3]; the antisymmetric one is noted where it is no rounding."""
        part = np.abs(virials - virials.swapaxes(1, 2)).max(initial=0.0)
        if part > FLOOR + ASYMMETRY * np.abs(virials).max(initial=0.0):
            self.asymmetric[str(file)] = part
        return (virials + virials.swapaxes(1, 2)) / 2

    def add_rounding(self, file, values, most, unit) -> None:
        """Note numbers that their type in the file rounds to more than ``most``."""
        kind = map_npy(file).dtype if file.suffix == ".npy" else np.dtype(float)
        step = float(np.spacing(np.abs(values).max(initial=0).astype(kind))) if kind.kind == "f" else 0.0
        if step > most:
            self.coarse[str(file)] = kind.name, step, unit

    def add_input(self, file, values, per_atom) -> None:
        """Refuse ``values`` [frames, ...] that are not the same in all frames read so far."""
        known = self.inputs.setdefault(file.stem, values[0])
        if per_atom and known.shape != values[0].shape:  # systems of different sizes cannot be compared
            known = values[0]
        if known.shape != values[0].shape or (values != known).any():
            raise ValueError(
                f"{file}: the labels depend on these inputs, which differ between frames and which no "
                "model here takes; put the frames of each value into folders of their own, or remove the "
                "file to mix them"
            )

    def messages(self, path: str | PathLike) -> Iterator:
        if self.inputs:
            shown = {name: [f"{value:g}" for value in np.unique(first)] for name, first in self.inputs.items()}
            shown = {name: few if len(few) < 4 else [*few[:3], "..."] for name, few in sorted(shown.items())}
            found = ", ".join(f"{name}.npy ({', '.join(few)})" for name, few in shown.items())
            yield (
                f"{path}: the labels depend on {found}, the same in all frames; it is not read, and a model of these "
                "data holds for these values alone"
            )
        if self.unread:
            yield f"{path}: not read: {', '.join(sorted(self.unread))}"
        if self.asymmetric:
            worst = max(self.asymmetric, key=self.asymmetric.__getitem__)
            yield (
                f"{worst}: virials are not symmetric, elements differ by up to {self.asymmetric[worst]:.3g} eV, which no "
                "energy of atoms gives; their symmetric part is read: check the order of the numbers and the calculation"
            )
        for file, (kind, step, unit) in self.coarse.items():
            yield f"{file}: its numbers, of type {kind}, are {step:.2g} {unit} apart, too far to learn from; write float64"
        if self.zeros:
            yield f"{path}: the virial of {self.zeros} frames is exactly zero, which no calculation gives, and is not read"
        if self.guessed:
            names = ", ".join(f"{name} as {symbol}" for name, symbol in sorted(self.guessed.items()))
            yield f"{path}: type_map.raw has names that are no chemical symbols; read {names}"
