"""Sections of what is learned: [energy], [dos], [dipole], [polarizability], [ldos], [hamiltonian]."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ase_mlelec.train.config.base import (
    BatchSize,
    LearningRates,
    Length,
    LossWeight,
    LossWeights,
    Names,
    Section,
    SettingError,
    Steps,
    Text,
    Weight,
    Widths,
    needed,
)


class Training(Section):
    """What the training of any head has: weights of the terms of its loss, of which one at least counts."""

    loss_terms: ClassVar[tuple[str, ...]]

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the settings that the file has: what it asks for itself is not left out in silence."""
        return tuple(name for name in type(self).model_fields if name in self.model_fields_set)

    @model_validator(mode="after")
    def _check_loss(self):
        weights = []
        for name in self.loss_terms:
            weight = getattr(self, name)
            weights += weight if isinstance(weight, tuple) else [weight]
        if min(weights) < 0 or not any(weights):
            shown = ", ".join(f"{weight:g}" for weight in weights)
            raise SettingError("", f"got the loss weights {shown}, need none below 0 and one above; correct them")
        return self


class EnergyConfig(Training):
    """Energies, forces and stress.

    The terms of the loss are weighted at the first and at the last step, and [0, 0] leaves a term out. Frames without
    a label have no part in its term; a term for which no frame has one is left out where its weights are the defaults,
    and refused where the file gives them.
    """

    loss_terms: ClassVar[tuple[str, ...]] = ("energy", "forces", "virial")

    widths: Widths = (64, 64)
    """Layers of the nets; []: energies that are linear in the features, on the descriptor before any training: in closed
    form, with the last weights of the loss and no steps, for data too few for a net."""
    energy: LossWeights = (0.1, 10.0)
    """Weight of energies per atom in the loss, first and last."""
    forces: LossWeights = (100.0, 10.0)
    """Weight of forces in the loss, first and last."""
    virial: LossWeights = (1.0, 5.0)
    """Weight of virials per atom in the loss, first and last."""
    strong_force: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Forces above it count less, eV/Å; by default all count the same."""
    core: bool = True
    """Whether the model gets a repulsive core below the shortest distances of its data."""
    ridge: Annotated[float, Field(gt=0, le=1e12)] = 1e-7
    """Ridge of the closed form, relative to the mean diagonal element of its normal matrix."""
    steps: Steps = 4000
    """Steps of the optimizer."""
    learning_rate: LearningRates = (5e-3, 5e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 4
    """Structures for each step."""


class DOSConfig(Training):
    """Density of states, as a sum over atoms."""

    loss_terms: ClassVar[tuple[str, ...]] = ("atomic", "total", "cumulative")

    widths: Widths = (128, 128)
    """Layers of the nets."""
    atomic: LossWeight = 1.0
    """Weight of the densities of states of atoms in the loss; 0: the total alone."""
    total: LossWeight = 0.0
    """Weight of the total density of states in the loss."""
    cumulative: LossWeight = 0.0
    """Weight of the integral of the total density of states in the loss."""
    steps: Steps = 2000
    """Steps of the optimizer."""
    learning_rate: LearningRates = (2e-3, 2e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 8
    """Structures for each step."""


class _OfAtoms(Training):
    """Quantity of atoms, with labels of atoms or of their sums."""

    loss_terms: ClassVar[tuple[str, ...]] = ("atomic", "total")

    widths: Widths = (64, 64)
    """Layers of the nets."""
    atomic: LossWeight = 1.0
    """Weight of the labels of atoms in the loss; 0: the sums over structures alone."""
    total: LossWeight = 0.0
    """Weight of the sums over structures in the loss."""
    steps: Steps = 2000
    """Steps of the optimizer."""
    learning_rate: LearningRates = (3e-3, 3e-6)
    """Learning rate, first and last."""
    batch_size: BatchSize = 4
    """Structures for each step."""


class AtomicConfig(_OfAtoms):
    """Quantity of atoms that another package has added to ase_mlelec.quantities."""

    centers: Names = ()
    """Species whose atoms have a value, for heads that take them, such as ["O"]."""


class DipoleConfig(_OfAtoms):
    """Vectors of atoms: displacements of the Wannier centroids, for dipoles."""

    centers: Annotated[Names, Field(min_length=1, json_schema_extra=needed("name the species that have a dipole"))]
    """Species whose atoms have a vector, such as ["O"]."""


class PolarizabilityConfig(_OfAtoms):
    """Tensors of atoms, for polarizabilities."""

    centers: Annotated[
        Names, Field(min_length=1, json_schema_extra=needed("name the species that have a polarizability"))
    ]
    """Species whose atoms have a tensor, such as ["O"]."""


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
    """What the local density of states is scaled by."""
    fingerprints: Literal["elements", "components"] = "elements"
    """Whether fingerprints are scaled one by one or as principal components."""
    dos_weight: Weight = 100.0
    """Weight of the density of states of a snapshot beside its local one when the last layer is refitted."""
    hold: Weight = 0.0
    """How strongly the refit is held at the layer that the descent found."""
    force_weight: Weight = 0.0
    """Weight of forces in a second refit of the last layer; 0: none."""
    energy_weight: Weight = 0.0
    """Weight of the free energies of the labels in a second refit of the last layer; 0: none."""
    epochs: Steps = 400
    """Passes over the data, at most."""
    learning_rate: LearningRates = (2e-3, 1e-5)
    """Learning rate of the first epoch, and the one at which training ends."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """How the learning rate falls: by half when there is no progress, or as a cosine."""
    patience: Steps = 10
    """Epochs without progress before a schedule of plateaus halves the learning rate."""
    batch_size: BatchSize = 2
    """Snapshots for each step."""
    batch_points: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Grid points of each snapshot for a step; 0: all."""


class HamiltonianConfig(Training):
    """Hamiltonian in a basis of Wannier functions, of layered crystals."""

    loss_terms: ClassVar[tuple[str, ...]] = ("onsite", "intra_near", "intra_long", "inter_near", "inter_long", "levels")

    cutoff: Annotated[float, Field(gt=11, le=30)] = 12.0
    """Distance up to which there is hopping, Å."""
    environment: Annotated[float, Field(gt=0, le=30)] = 6.0
    """Cutoff of the environment of an atom, Å."""
    n_radial: Annotated[int, Field(ge=1, le=50)] = 6
    """Radial functions of the environment."""
    spectrum: Length = 0.0
    """Cutoff of a power spectrum for on-site blocks beside it, Å; 0: none."""
    third: Annotated[Length, Field(json_schema_extra=needed("need 0, or 3.5 to the cutoff"))] = 0.0
    """Distance from both atoms of a pair within which other atoms change its hopping, Å, of at least 3.5; 0: they do
    not, as for data of a few structures."""
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
    """Weight of the eigenvalues within 1 eV of the Fermi level or the gap in the loss, nearer ones more, for data with
    numbers of electrons."""
    steps: Steps = 2000
    """Steps of the optimizer."""
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
