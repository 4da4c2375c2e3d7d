"""Sections of heads: [energy], [dos], [dipole], [polarizability], [ldos], [hamiltonian]."""

from typing import Annotated, Any, ClassVar, Literal, Self

from ase.data import chemical_symbols
from pydantic import BeforeValidator, Field, model_validator

from ase_mlelec.train.config.base import (
    BatchSize,
    LearningRates,
    Length,
    LossWeight,
    LossWeights,
    Names,
    Patience,
    Section,
    SettingError,
    Steps,
    Text,
    Weight,
    Widths,
    needed,
)
from ase_mlelec.train.config.long_range import Charges
from ase_mlelec.train.config.mistakes import short


class Training(Section):
    """Base of the sections of heads; at least one term of the loss must have a weight above zero."""

    loss_terms: ClassVar[tuple[str, ...]]

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the settings that the file gives; they are never ignored silently."""
        return tuple(name for name in type(self).model_fields if name in self.model_fields_set)

    @model_validator(mode="after")
    def _check_loss(self):
        weights, by_data = [], False
        for name in self.loss_terms:
            weight = getattr(self, name)
            by_data = by_data or weight is None
            weights += list(weight) if isinstance(weight, tuple) else [] if weight is None else [weight]
        if min(weights, default=0) < 0 or not (any(weights) or by_data):
            shown = ", ".join(f"{weight:g}" for weight in weights)
            raise SettingError("", f"got the loss weights {shown}, need none below 0 and one above; correct them")
        return self


LARGEST_ENERGY = 1e7  # eV


def _checked_energies(value):
    """Energies of isolated atoms, or how they are found; SettingError for anything else."""
    if isinstance(value, str) and value in ("auto", "isolated", "average"):
        return value
    if not isinstance(value, dict) or not value:
        raise SettingError(
            "", f'got {short(value)}, need "auto", "isolated", "average" or a table of energies, such as {{Mo = -4.5}}'
        )
    for symbol, energy in value.items():
        if symbol not in chemical_symbols[1:]:
            raise SettingError("", f"got '{short(symbol)}', need a chemical symbol such as Mo; correct it")
        if isinstance(energy, bool) or not isinstance(energy, int | float) or not abs(energy) < LARGEST_ENERGY:
            raise SettingError("", f"got {symbol} = {short(energy)}, need an energy in eV; correct it")
    return {symbol: float(energy) for symbol, energy in value.items()}


class EnergyConfig(Training):
    """Energies, forces and stress.

    Each term of the loss has a weight at the first step and a weight at the last step; [0, 0] leaves the term out. Frames
    without a label do not contribute to its term. If no frame has the label, the term is left out where its weights are
    the defaults, and refused where the file gives its weights. Without any weights in the file, the weights are
    automatic: [0.01, 1] for energies, [10, 1] for forces and [0.05, 0.2] for virials, in units of the spread of each label.
    Where the file gives some of them, the others have fixed values.
    """

    loss_terms: ClassVar[tuple[str, ...]] = ("energy", "forces", "virial")

    widths: Widths = (64, 64)
    """Layers of the nets; []: energies that are linear in the features of an untrained descriptor, fitted by ridge
    regression without steps. If the file gives no weights, the weights that lead to the smallest errors on some of the
    training structures are chosen; otherwise the last weights are taken."""
    energy: LossWeights | None = None
    """Weight of energies per atom in the loss, first and last; default automatic, or [0.1, 10] beside given weights."""
    forces: LossWeights | None = None
    """Weight of forces in the loss, first and last; default automatic, or [100, 10] beside given weights."""
    virial: LossWeights | None = None
    """Weight of virials per atom in the loss, first and last; default automatic, or [1, 5] beside given weights."""
    strong_force: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Forces above this size have a smaller weight, eV/Å; by default all forces have the same weight."""
    E0: Annotated[Literal["auto", "isolated", "average"] | dict[str, float], BeforeValidator(_checked_energies)] = (
        "auto"
    )
    """Energies of isolated atoms, which the model then reproduces exactly: a table by symbol, eV, such as {Mo = -4.5};
    "isolated": of the structures that are single atoms far from others; "average": none, but reference energies by least
    squares; "auto": isolated where there are some. Isolated atoms are in no other part of the training."""
    core: bool = True
    """Whether the model gets a repulsive core below the shortest distances of its data."""
    ridge: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """Ridge of the ridge regression, relative to the mean diagonal element of the normal matrix; by default chosen
    together with the weights, or 1e-7 where the file gives weights."""
    steps: Steps | None = None
    """Steps of the optimizer; by default for thirty passes over the data and a million atoms, and at least 2000."""
    patience: Patience = 30
    """Validations in a row, of a hundred at most, without a smaller error after which training ends; 0: never."""
    learning_rate: LearningRates = (5e-3, 5e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize | None = None
    """Structures for each step; by default about 128 atoms."""

    @property
    def weights_given(self) -> bool:
        """Whether the file gives a weight of the loss, so that the weights are not automatic."""
        return any(getattr(self, name) is not None for name in self.loss_terms)

    def completed(self, **settings: Any) -> Self:
        """These settings with automatic ones filled in; ``given`` stays as it is."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        fixed = {"energy": (0.1, 10.0), "forces": (100.0, 10.0), "virial": (1.0, 5.0)} if self.weights_given else {}
        chosen = {name: value for name, value in (settings | fixed).items() if values[name] is None}
        return type(self).model_construct(_fields_set=set(self.model_fields_set), **values | chosen)


class _Drawn(Training):
    """Base of heads that are fitted in closed form where no setting of gradient descent is given."""

    of_descent: ClassVar[tuple[str, ...]] = ("widths", "steps", "learning_rate", "batch_size", "cumulative")

    drawn: Annotated[int, Field(ge=0, le=8192)] | None = None
    """Drawn functions of each species for the closed form, whose ridge is found by cross-validation; by default a number
    that suits the data, or none where a setting of gradient descent is given. 0: gradient descent."""

    @property
    def closed_form(self) -> bool:
        """Whether the head is fitted in closed form, without gradient descent."""
        return not set(self.given) & set(self.of_descent) if self.drawn is None else self.drawn > 0

    @model_validator(mode="after")
    def _check_drawn(self):
        descent = [name for name in self.of_descent if name in self.given]
        if self.drawn and descent:
            raise SettingError(
                "drawn", f"got {self.drawn} beside {descent[0]}, a setting of gradient descent; leave one out"
            )
        return self


class DOSConfig(_Drawn):
    """Density of states, as a sum over atoms."""

    loss_terms: ClassVar[tuple[str, ...]] = ("atomic", "total", "cumulative")

    widths: Widths = (128, 128)
    """Layers of the nets."""
    atomic: LossWeight = 1.0
    """Weight of the densities of states of atoms in the loss; 0: the total alone."""
    total: LossWeight = 0.0
    """Weight of the total density of states in the loss; in closed form by default found by cross-validation."""
    cumulative: LossWeight = 0.0
    """Weight of the integral of the total density of states in the loss."""
    square_root: bool | None = None
    """Whether the closed form fits the square root of the densities of states of atoms, whose square is the prediction: it
    is never negative, and gaps keep the weak edges of their bands. By default for data of insulators, where no other
    setting of the loss is given; Fermi levels of metals are better without."""
    steps: Steps = 2000
    """Steps of the optimizer."""
    patience: Patience = 30
    """Validations in a row, of a hundred at most, without a smaller error after which training ends; 0: never."""
    learning_rate: LearningRates = (2e-3, 2e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 8
    """Structures for each step."""

    @property
    def loss_given(self) -> tuple[str, ...]:
        """Settings of the loss that the file gives."""
        return tuple(name for name in self.given if name in self.loss_terms)

    @model_validator(mode="after")
    def _check_root(self):
        others = () if not self.square_root else self.loss_given if self.closed_form else ("gradient descent",)
        if others:
            raise SettingError(
                "square_root",
                f"got true beside {others[0]}; roots are fitted in closed form to atoms alone; leave one out",
            )
        return self


class _OfAtoms(Training):
    """Quantity of atoms, with labels of atoms or of sums over structures."""

    loss_terms: ClassVar[tuple[str, ...]] = ("atomic", "total")

    widths: Widths = (64, 64)
    """Layers of the nets."""
    atomic: LossWeight = 1.0
    """Weight of the labels of atoms in the loss; 0: the sums over structures alone."""
    total: LossWeight = 0.0
    """Weight of the sums over structures in the loss; in closed form by default found by cross-validation."""
    steps: Steps = 2000
    """Steps of the optimizer."""
    patience: Patience = 30
    """Validations in a row, of a hundred at most, without a smaller error after which training ends; 0: never."""
    learning_rate: LearningRates = (3e-3, 3e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 4
    """Structures for each step."""


class AtomicConfig(_OfAtoms):
    """Quantity of atoms that another package has added to ase_mlelec.quantities."""

    centers: Names = ()
    """Species whose atoms have a value, such as ["O"], for heads with an argument ``centers``."""


class DipoleConfig(_Drawn, _OfAtoms):
    """Vectors of atoms: displacements of the Wannier centroids, for dipoles.

    They are learned from centroids, from dipoles and from Born charges, or from any mixture of these.
    """

    loss_terms: ClassVar[tuple[str, ...]] = ("atomic", "total", "born")

    born: LossWeight | None = None
    """Weight of Born charges in the loss, in units of the spread of each label; in closed form by default found by
    cross-validation, otherwise 1 where the data have some."""

    centers: Names = ()
    """Species whose atoms have a vector, such as ["O"]; by default those with vectors in the data."""
    ions: Charges = Field(default={})
    """Charges of the ions by species, e, such as {O = 6, H = 1}: the valence electrons of the pseudopotentials. By default
    those in the data."""
    electrons: Charges = Field(default={})
    """Charge of the electrons at each centroid by species of the centers, e, such as {O = 8}. By default that in the data,
    or an equal share of all electrons for one species of centers."""


class PolarizabilityConfig(_Drawn, _OfAtoms):
    """Tensors of atoms, for polarizabilities."""

    centers: Names = ()
    """Species whose atoms have a tensor, such as ["O"]; by default those with tensors in the data, and all where the data
    have polarizabilities of structures alone."""


class LDOSConfig(Training):
    """Local density of states on a grid."""

    loss_terms: ClassVar[tuple[str, ...]] = ("ldos", "density", "dos", "band_energy")

    widths: Widths = (128, 128)
    """Layers of the net."""
    activation: Text = "silu"
    """Activation function of the net."""
    ldos: LossWeight = 1.0
    """Weight of the local density of states in the loss."""
    density: LossWeight = 0.0
    """Weight of the electron density in the loss."""
    dos: LossWeight = 0.0
    """Weight of the density of states in the loss."""
    band_energy: LossWeight = 0.0
    """Weight of the band energy in the loss."""
    scaling: Literal["maximum", "spread"] = "maximum"
    """Scale of the local density of states: its maximum or its spread."""
    fingerprints: Literal["elements", "components"] = "elements"
    """Whether fingerprints are scaled one by one or as principal components."""
    dos_weight: Weight = 100.0
    """Weight of the density of states, relative to the local density of states, when the last layer is refitted."""
    hold: Weight = 0.0
    """Ridge that holds the refitted layer near the layer that gradient descent found."""
    force_weight: Weight = 0.0
    """Weight of forces in a second refit of the last layer; 0: none."""
    energy_weight: Weight = 0.0
    """Weight of the free energies of the labels in a second refit of the last layer; 0: none."""
    epochs: Steps = 400
    """Largest number of epochs."""
    learning_rate: LearningRates = (2e-3, 1e-5)
    """Learning rate of the first epoch, and learning rate at which training ends."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Schedule of the learning rate: halved when there is no progress, or a cosine."""
    patience: Steps = 10
    """Epochs without progress before the plateau schedule halves the learning rate."""
    batch_size: BatchSize = 2
    """Snapshots for each step."""
    batch_points: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Grid points of each snapshot in a step; 0: all."""


class HamiltonianConfig(Training):
    """Hamiltonian in a basis of Wannier functions, of layered crystals."""

    loss_terms: ClassVar[tuple[str, ...]] = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long", "levels")

    cutoff: Annotated[float, Field(gt=11, le=30)] = 12.0
    """Range of hopping, Å."""
    environment: Annotated[float, Field(gt=0, le=30)] = 6.0
    """Cutoff of the environment of an atom, Å."""
    n_radial: Annotated[int, Field(ge=1, le=50)] = 6
    """Radial functions of the environment."""
    spectrum: Length = 0.0
    """Cutoff of additional ACE invariants for on-site blocks, Å; 0: none."""
    third: Annotated[Length, Field(json_schema_extra=needed("need 0, or 3.5 to the cutoff"))] = 0.0
    """Range of three-center terms, Å, at least 3.5: a third atom within it of both atoms of a pair changes their hopping;
    0: no such terms, for data of few structures."""
    widths: Widths = (48, 32)
    """Layers of the nets of pairs."""
    onsite: LossWeight = 1.0
    """Weight of on-site blocks in the loss."""
    intra_near: LossWeight = 1.0
    """Weight of hopping within a layer below 6 Å in the loss."""
    intra_long: LossWeight = 1.0
    """Weight of hopping within a layer beyond 6 Å in the loss."""
    inter_near: LossWeight = 1.0
    """Weight of hopping between layers below 6 Å in the loss."""
    inter_long: LossWeight = 1.0
    """Weight of hopping between layers beyond 6 Å in the loss."""
    levels: LossWeight = 1.0
    """Weight of the eigenvalues within 1 eV of the Fermi level or the gap in the loss, for data with numbers of electrons;
    nearer eigenvalues have more weight."""
    steps: Steps = 2000
    """Steps of the optimizer."""
    patience: Patience = 30
    """Validations in a row, of a hundred at most, without a smaller error after which training ends; 0: never."""
    learning_rate: LearningRates = (3e-3, 3e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 4
    """Structures for each step."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        return {name: getattr(self, name) for name in self.loss_terms}

    @model_validator(mode="after")
    def _check_third(self):
        if self.third and not 3.5 <= self.third <= self.cutoff:
            raise SettingError("third", f"got {self.third:g} Å, need 0, or 3.5 to the cutoff, {self.cutoff:g}")
        return self
