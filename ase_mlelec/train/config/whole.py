"""The whole configuration with its sections of data and descriptors, and checks of sections against each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PrivateAttr, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema

from ase_mlelec.quantities import LABELS, QUANTITIES, Quantity
from ase_mlelec.train.config.base import Cutoff, Length, Names, Section, SettingError, Text, Weight, Width, needed
from ase_mlelec.train.config.heads import (
    AtomicConfig,
    DipoleConfig,
    DOSConfig,
    EnergyConfig,
    HamiltonianConfig,
    LDOSConfig,
    PolarizabilityConfig,
)
from ase_mlelec.train.config.local_frame import LocalFrameConfig
from ase_mlelec.train.config.long_range import LongRangeConfig


class _Keys(Section):
    """Names of labels in files that ASE reads, where they differ from those in ``ase_mlelec.data.ase_formats``."""

    group: Text = ""
    """Name of the entry that holds the group of a structure, its purpose; by default "group" or "split"."""
    kind: Text = ""
    """Name of the entry that holds the kind of a structure; by default "config_type", "kind", "dataset" or "category"."""
    weight: Text = ""
    """Name of the entry that holds the configuration weight of a structure; by default "config_weight" or "weight"."""
    stress_unit: Literal["eV/A^3", "GPa", "kbar", "-eV/A^3", "-GPa", "-kbar"] | None = None
    """Unit of stresses in files such as extxyz, by default eV/A^3; with a minus sign for stresses that are positive under
    pressure."""
    dipole_unit: Text = ""
    """Unit of dipoles in files such as extxyz: "e A" (default), "e bohr" or "debye"."""
    polarizability_unit: Text = ""
    """Unit of polarizabilities in files such as extxyz: "A^3" (default) or "bohr^3"; with a number before it where the file
    has multiples of it, such as "0.1 bohr^3"."""
    born_charges_order: Text = ""
    """Order of the two indices of Born charges in files such as extxyz: "dipole, displacement" (default, derivative of a
    component of the dipole by a coordinate of the atom) or "displacement, dipole"."""
    added: SkipJsonSchema[dict[str, Text]] = Field(default_factory=dict)
    """Names of labels that other packages have added."""

    @model_validator(mode="before")
    @classmethod
    def _gather_added(cls, table):
        added = LABELS.keys() - cls.model_fields.keys()
        if not isinstance(table, dict) or not added & table.keys():
            return table
        kept = {label: name for label, name in table.items() if label not in added}
        return kept | {"added": {label: table[label] for label in table if label in added}}

    @property
    def given(self) -> dict[str, str]:
        """Names in the files by label, for the labels that have such a name."""
        return {label: name for label, name in self if name and label != "added"} | self.added


if TYPE_CHECKING:
    KeysConfig = _Keys
else:
    KeysConfig = create_model(
        "KeysConfig",
        __base__=_Keys,
        __doc__=_Keys.__doc__,
        **{
            name: (Text, Field("", description=f'Name of the {name}, {row.unit}, such as "REF_{name}".'))
            for name, row in LABELS.items()
        },
    )


class DataConfig(Section):
    """Data sets, and the groups of structures for training, validation and tests."""

    files: Annotated[Names, Field(min_length=1, json_schema_extra=needed("name at least one data set"))]
    """Data sets, relative to the configuration file; in addition to a data set of Hamiltonians, other files serve [energy]
    alone."""
    train: Annotated[Names, Field(min_length=1, json_schema_extra=needed("name at least one group of frames"))] = (
        "train",
    )
    """Groups or kinds (config_type) to train on. Structures of which no part names the group or kind are trained on too;
    but if this setting is given and names a group or a kind of the data, all others are left out. A structure that several
    parts name is in the test before the validation, and in that before the support. Usual names of groups, such as val,
    dev, Test and training, mean the parts that have their own names."""
    validation: Names = ("validation",)
    """Groups or kinds whose errors are watched during training."""
    test: Names = ("test",)
    """Groups or kinds for the errors of the trained model; training does not see them."""
    support: Names = ()
    """Groups or kinds that train [energy] as well, such as close pairs and compressed structures: they teach repulsion,
    but count neither for the range of the training data nor for the scale of energies."""
    hot: Names = ()
    """Data sets with energies, forces and stress of some of the structures of ``files``, by their names, at other
    temperatures of the electrons, one in each file ("electronic_temperature_K" in its settings). The model learns these
    free energies. It needs [dos], and energies that are linear in the features, [energy] widths = []."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1, json_schema_extra=needed("need 0 <= fraction < 1"))] = 0.1
    """Share of the training structures that is held out at random for validation, where no structure is in
    ``validation``. Trajectories, whose structures are similar to the next, are held out in pieces."""
    largest_force: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Structures with a larger force, eV/Å, are neither trained on nor in the validation; by default there is no limit."""
    weights: dict[str, Weight] = Field(default={})
    """Configuration weights of files, groups and kinds, such as "far.h5" = 0.3: factors of the squared errors of their
    structures in all losses of frames, times the weights that files have; default 1. With 0 their labels are left out,
    except Hamiltonians."""
    keys: KeysConfig = KeysConfig()
    """Names of labels in files of other programs."""

    @model_validator(mode="after")
    def _check_names(self):
        twice = sorted({*self.support} & {*self.train, *self.validation, *self.test})
        if twice:
            raise SettingError(
                "support", f"got {twice[0]}, which is in data.train, validation or test too; name it once"
            )
        return self


class OutputConfig(Section):
    """Files that training writes."""

    model: Text
    """The model file (.safetensors), relative to the configuration file; checkpoints and learning curves go next to
    it."""

    @model_validator(mode="after")
    def _check_model(self):
        if not self.model.endswith(".safetensors"):
            raise SettingError("model", f"got '{self.model}', need a name that ends in .safetensors; rename it")
        return self


class DescriptorConfig(Section):
    """Descriptor of atoms: arguments of DeepPotSE."""

    cutoff: Cutoff = 6.0
    """Radius of an environment, Å."""
    smooth: Length = 1.8
    """Distance at which neighbors begin to fade out towards the cutoff, Å."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8, strict=False)] = (24,)
    """Layers of the embedding; the last is the number of radial channels."""
    n_axis: Annotated[int, Field(ge=1, le=4096)] = 8
    """Channels of the second factor of the invariants, at most the last entry of ``widths``."""
    l_max: Annotated[int, Field(ge=1, le=3)] = 3
    """Largest angular momentum."""
    n_basis: Annotated[int, Field(ge=0, le=256)] = 16
    """Radial basis functions; 0: embedding nets instead."""
    sel: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(max_length=118, strict=False)] = ()
    """Expected number of neighbors of each species, which scales the sums over neighbors; []: from the volume of the
    cutoff sphere."""
    one_side: bool = True
    """Whether an embedding depends on the species of the neighbor alone; false: also on the species of the center."""
    n_products: Annotated[int, Field(ge=0, le=4096)] = 0
    """Channels in which second moments multiply first moments, for vectors and tensors; at most the last entry of
    ``widths``, with ``l_max`` of 2 or 3; 0: none."""

    @model_validator(mode="after")
    def _check_together(self):
        if not self.smooth < self.cutoff:
            raise SettingError("smooth", f"got {self.smooth:g} Å, need less than the cutoff, {self.cutoff:g}")
        for name in ("n_axis", "n_products"):
            if getattr(self, name) > self.widths[-1]:
                need = f"need at most the last of the widths, {self.widths[-1]}"
                raise SettingError(name, f"got {getattr(self, name)}, {need}")
        if self.n_products and self.l_max < 2:
            raise SettingError(
                "n_products", f"got {self.n_products} with l_max = {self.l_max}, need 0, or l_max of 2 or 3"
            )
        return self


class PowerSpectrumConfig(Section):
    """Descriptor that replaces [descriptor]: ACE invariants.

    It serves scalar quantities, and energies that are linear in the features ([energy] widths = []). For such energies
    an empty section, or one with ``inner`` alone, lets the data choose: cutoffs and the number of features by trials on
    structures that are held out. With other settings, those that are left out have the defaults below.
    """

    cutoff: Cutoff = 6.0
    """Radius of an environment, Å."""
    inner: Length = 0.0
    """Inner end of the range of the radial functions, Å; 0: nine tenths of the shortest distance in the training data."""
    n_pair: Annotated[int, Field(ge=1, le=100)] = 12
    """Radial functions of two-body terms."""
    n_radial: Annotated[int, Field(ge=1, le=50)] = 5
    """Radial functions of three-body terms, at most ``n_pair``."""
    l_max: Annotated[int, Field(ge=0, le=20)] = 8
    """Largest angular momentum of three-body terms."""
    near: Length = 4.5
    """Cutoff of four-body and five-body terms, Å; 0: no such terms."""
    roughest: Annotated[float, Field(ge=0, le=30)] = 9.0
    """Largest roughness of four-body terms; 0: no such terms. The largest roughness of five-body terms is 3/7 of it."""
    roughest_5: Annotated[float, Field(ge=0, le=30)] | None = None
    """Largest roughness of five-body terms, if not 3/7 of ``roughest``; 0: no such terms."""

    @property
    def chosen_by_data(self) -> bool:
        """Whether the file leaves cutoffs and numbers of features to the data."""
        return self.model_fields_set <= {"inner"}

    @model_validator(mode="after")
    def _check_together(self):
        if self.n_radial > self.n_pair:
            raise SettingError("n_radial", f"got {self.n_radial}, need at most n_pair, {self.n_pair}")
        if not self.inner < self.cutoff:
            raise SettingError("inner", f"got {self.inner:g} Å, need less than the cutoff, {self.cutoff:g}")
        return self


class BispectrumConfig(Section):
    """Descriptor of grid points for [ldos]: arguments of Bispectrum, without cutoffs and weights of single species."""

    twojmax: Annotated[int, Field(ge=1, le=16)] = 10
    """Twice the largest angular momentum of the hyperspherical harmonics."""
    cutoff: Cutoff = 4.67637
    """Radius of an environment, Å."""
    rmin0: Length = 0.0
    """Distance that is mapped to the pole of the three-sphere, Å."""
    n_radial: Annotated[int, Field(ge=0, le=200)] = 0
    """Radial sums of each species in addition to the bispectrum; 0: none."""

    @model_validator(mode="after")
    def _check_together(self):
        if not self.rmin0 < self.cutoff:
            raise SettingError("rmin0", f"got {self.rmin0:g} Å, need less than the cutoff, {self.cutoff:g}")
        return self


class Config(Section):
    """A training: data, descriptor, at least one head, output, and a seed.

    Of the heads energy, dos, dipole and polarizability, the first one is trained together with the descriptor. The later
    heads are trained on that descriptor, which does not change any more. With ``electronic``, all heads except the energy
    have a second descriptor, which is trained with the first of them; it is for data that are too few for the descriptor
    of the energy.

    The heads dos, dipole and polarizability are fitted in closed form where no setting of gradient descent is given (see
    ``drawn``). Where no descriptor is given either, and there is no energy, [dos] takes ACE invariants, and vectors and
    tensors take a DeepPotSE that is drawn, with products.

    The LDOS head has separate data and a separate descriptor (bispectrum). The Hamiltonian has separate
    data, on which the energy may be trained as well.
    """

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of all random numbers."""
    committee: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of models. They differ only in the seed: the first model has ``seed``. Where there are several, their file
    names end in -0, -1, ..."""
    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Time for gradient descent, minutes, in place of numbers of steps: the steps follow from the time that one takes. Heads
    share it equally, and so do the models of a committee. Heads with ``steps`` or ``epochs`` keep these."""
    precision: Literal["double", "single"] = "double"
    """Precision of gradient descent for quantities of atoms; the model is evaluated and saved in double precision. Energies
    of more than 100 eV per atom are trained in double precision."""
    start: Text = ""
    """Model to fine-tune: a model file, relative to the configuration file, or the name of a shipped model. All heads
    except the LDOS start from its parameters and normalization, with the same settings of descriptors and heads."""
    data: DataConfig
    output: OutputConfig
    descriptor: DescriptorConfig = DescriptorConfig()
    power_spectrum: PowerSpectrumConfig | None = None
    local_frame: LocalFrameConfig | None = None
    electronic: DescriptorConfig | None = None
    """Descriptor of all heads except the energy: arguments of DeepPotSE. Default: that of the energy, or DeepPotSE where
    [power_spectrum] or [local_frame] lack the directions that vectors and tensors need."""
    energy: EnergyConfig | None = None
    dos: DOSConfig | None = None
    dipole: DipoleConfig | None = None
    polarizability: PolarizabilityConfig | None = None
    quantities: dict[str, AtomicConfig] = Field(default_factory=dict)
    """Heads of quantities that other packages have added, one section each."""
    long_range: LongRangeConfig | None = None
    bispectrum: BispectrumConfig = BispectrumConfig()
    ldos: LDOSConfig | None = None
    hamiltonian: HamiltonianConfig | None = None

    _folder: Path = PrivateAttr(default=Path("."))

    @property
    def folder(self) -> Path:
        """Folder from which relative paths start."""
        return self._folder

    @property
    def cutoff(self) -> float:
        """Cutoff of the descriptor, Å."""
        return self.of_first.cutoff

    @property
    def instead(self) -> str:
        """Name of the section that replaces [descriptor]; "" for none."""
        return next((name for name in ("power_spectrum", "local_frame") if getattr(self, name) is not None), "")

    @property
    def of_first(self) -> DescriptorConfig | PowerSpectrumConfig | LocalFrameConfig:
        """Settings of the descriptor, whichever it is."""
        return getattr(self, self.instead or "descriptor")

    def section(self, quantity: str) -> Section | None:
        """Settings of the head of a quantity; None where the configuration has no such section."""
        return self.quantities.get(quantity, getattr(self, quantity, None))

    @property
    def wanted(self) -> list[Quantity]:
        """Quantities of atoms that have a section, in the order in which they are trained."""
        return [row for name, row in QUANTITIES.items() if row.labels and self.section(name) is not None]

    @model_validator(mode="after")
    def _check_heads(self):
        foreign = sorted(name for name in self.quantities if name not in QUANTITIES or hasattr(self, name))
        if foreign:
            added = [name for name in QUANTITIES if not hasattr(self, name)]
            raise SettingError(
                f"quantities.{foreign[0]}",
                f"there is no such quantity of another package, there are {', '.join(added) or 'none'}; correct the "
                "name or add the quantity first",
            )
        heads = [row.name for row in self.wanted]
        if not heads and self.ldos is None and self.hamiltonian is None:
            *sections, last = [f"[{name}]" for name in QUANTITIES if hasattr(self, name)]
            raise SettingError("", f"got none of the sections {', '.join(sections)} and {last}; add at least one")
        beside = [name for name in (*heads, "ldos") if name != "energy" and self.section(name) is not None]
        if self.hamiltonian is not None and beside:
            raise SettingError("", f"got [hamiltonian] beside [{beside[0]}]; train them apart, their data differ")
        if self.ldos is not None and self.start:
            raise SettingError(
                "start", f"got '{self.start}' beside [ldos], which is trained from scratch; leave one out"
            )
        if self.ldos is not None and heads:
            raise SettingError("", f"got [ldos] beside [{heads[0]}]; train them apart, their data differ")
        return self

    @model_validator(mode="after")
    def _check_hot(self):
        if self.data.hot and (self.energy is None or self.energy.widths or self.dos is None):
            raise SettingError(
                "data.hot", "got it without [energy] widths = [] and [dos], which it needs; add them or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_long_range(self):
        if self.long_range is None:
            return self
        if self.energy is None:
            raise SettingError(
                "", "got [long_range] without [energy], to which it belongs; add [energy] or leave it out"
            )
        if self.hamiltonian is not None:
            raise SettingError("", "got [long_range] beside [hamiltonian], which has no centroids; leave one out")
        if self.dipole is None and not self.long_range.charges:
            raise SettingError(
                "",
                "got [long_range] without [dipole], whose centroids it needs; add [dipole] or give long_range.charges",
            )
        return self

    @model_validator(mode="after")
    def _check_descriptors(self):
        heads, electronic = [row.name for row in self.wanted], self.electronic
        if self.power_spectrum is not None and self.local_frame is not None:
            raise SettingError("", "got [power_spectrum] beside [local_frame]; leave one out")
        if self.instead and self.descriptor != DescriptorConfig():
            raise SettingError("", f"got [{self.instead}] beside [descriptor]; leave one out")
        directed = [row.name for row in self.wanted if "3" in row.shape]
        if self.instead and directed and electronic is None and "energy" not in heads:
            raise SettingError(
                "", f"got [{self.instead}] for [{directed[0]}], but it has no directions; leave [{self.instead}] out"
            )
        if electronic is not None and ("energy" not in heads or len(heads) == 1):
            raise SettingError(
                "", "got [electronic] without [energy] and a head beside it; put the settings into [descriptor]"
            )
        return self
