"""The whole configuration, and checks of its sections against each other."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from ase_mlelec.quantities import QUANTITIES, Quantity
from ase_mlelec.train.config.base import Section, SettingError, Text
from ase_mlelec.train.config.data import DataConfig, OutputConfig
from ase_mlelec.train.config.descriptors import BispectrumConfig, DescriptorConfig, PowerSpectrumConfig
from ase_mlelec.train.config.heads import (
    AtomicConfig,
    DipoleConfig,
    DOSConfig,
    EnergyConfig,
    HamiltonianConfig,
    LDOSConfig,
    PolarizabilityConfig,
)


class Config(Section):
    """A training: data, descriptor, at least one head, output, and a seed.

    Of the heads energy, dos, dipole and polarizability, the first one is trained together with the descriptor. The later
    heads are trained on that descriptor, which does not change any more. With ``electronic``, all heads except the energy
    have a second descriptor, which is trained with the first of them; it is for data that are too few for the descriptor
    of the energy. The LDOS head has separate data and a separate descriptor (bispectrum). The Hamiltonian has separate
    data, on which the energy may be trained as well.
    """

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of all random numbers."""
    committee: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of models. They differ only in the seed: the first model has ``seed``. Where there are several, their file
    names end in -0, -1, ..."""
    start: Text = ""
    """Model to fine-tune: a model file, relative to the configuration file, or the name of a shipped model. All heads
    except the LDOS start from its parameters and normalization, with the same settings of descriptors and heads."""
    data: DataConfig
    output: OutputConfig
    descriptor: DescriptorConfig = DescriptorConfig()
    power_spectrum: PowerSpectrumConfig | None = None
    electronic: DescriptorConfig | None = None
    """Descriptor of all heads except the energy: arguments of DeepPotSE."""
    energy: EnergyConfig | None = None
    dos: DOSConfig | None = None
    dipole: DipoleConfig | None = None
    polarizability: PolarizabilityConfig | None = None
    quantities: dict[str, AtomicConfig] = Field(default_factory=dict)
    """Heads of quantities that other packages have added, one section each."""
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
        return (self.power_spectrum or self.descriptor).cutoff

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
    def _check_descriptors(self):
        heads, electronic = [row.name for row in self.wanted], self.electronic
        if self.power_spectrum is not None and self.descriptor != DescriptorConfig():
            raise SettingError("", "got [power_spectrum] beside [descriptor]; leave one out")
        directed = [row.name for row in self.wanted if "3" in row.shape]
        if self.power_spectrum is not None and directed and electronic is None:
            raise SettingError(
                "",
                f"got [power_spectrum] for [{directed[0]}], but it has no directions; add [electronic], the "
                "descriptor of that, or leave it out",
            )
        if electronic is not None and ("energy" not in heads or len(heads) == 1):
            raise SettingError(
                "", "got [electronic] without [energy] and a head beside it; put the settings into [descriptor]"
            )
        if electronic is not None and electronic.cutoff != self.cutoff:
            raise SettingError(
                "electronic.cutoff",
                f"got {electronic.cutoff:g}, the descriptor has {self.cutoff:g} Å; give both the same",
            )
        return self
