"""Sections of what goes in and out: [data], [data.keys] and [output]."""

from typing import Annotated

from pydantic import Field, model_validator

from ase_mlelec.train.config.base import Names, Section, SettingError, Text, names


class KeysConfig(Section):
    """What labels are called in files that ASE reads, where it is not what ``ase_mlelec.data.ase_formats`` looks for."""

    energy: Text = ""
    """Name of the energy, such as "REF_energy"."""
    forces: Text = ""
    """Name of the forces."""
    stress: Text = ""
    """Name of the stress."""
    virial: Text = ""
    """Name of the virial."""
    dipole: Text = ""
    """Name of the dipole."""
    polarizability: Text = ""
    """Name of the polarizability."""
    summed_dipole: Text = ""
    """Name of the sum of the vectors of all centers."""
    atomic_dipole: Text = ""
    """Name of the vectors of the centers."""
    atomic_polarizability: Text = ""
    """Name of the polarizabilities of the centers."""
    dos: Text = ""
    """Name of the total density of states."""
    ados: Text = ""
    """Name of the densities of states of the atoms."""
    group: Text = ""
    """Name of what tells the groups of structures, such as "config_type"."""

    @property
    def given(self) -> dict[str, str]:
        """Label -> name in the files, of the labels that have one."""
        return {label: name for label, name in self if name}


class DataConfig(Section):
    """Data sets, and which groups of their structures are for what."""

    files: names("name at least one data set")
    """Data sets, relative to the configuration file; beside one of Hamiltonians, others serve [energy] alone."""
    train: names("name at least one group of frames") = ("train",)
    """Groups to train on; so does a structure without a group, and structures of other groups are left out."""
    validation: Names = ("validation",)
    """Groups by whose errors the training is watched."""
    test: Names = ("test",)
    """Groups that training does not see, for the errors of the model."""
    support: Names = ()
    """Groups that train [energy] as well, such as close pairs and compressed structures: they teach repulsion, but are
    no part of what the model is meant for, nor of the scale of its energies."""
    validation_fraction: Annotated[
        float, Field(ge=0, lt=1, json_schema_extra={"x-needed": "need 0 <= fraction < 1"})
    ] = 0.1
    """Share of the training structures that is held out at random where no structure is in ``validation``."""
    keys: KeysConfig = KeysConfig()
    """Names of labels in files of other programs."""

    @model_validator(mode="after")
    def _check_support(self):
        twice = sorted({*self.support} & {*self.train, *self.validation, *self.test})
        if twice:
            raise SettingError(
                "support", f"got {twice[0]}, which is in data.train, validation or test too; name it once"
            )
        return self


class OutputConfig(Section):
    """What is written."""

    model: Text
    """The model file (.safetensors), relative to the configuration file; checkpoints and learning curves go next to
    it."""

    @model_validator(mode="after")
    def _check_model(self):
        if not self.model.endswith(".safetensors"):
            raise SettingError("model", f"got '{self.model}', need a name that ends in .safetensors; rename it")
        return self
