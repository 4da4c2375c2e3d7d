"""Sections of input and output: [data], [data.keys] and [output]."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema

from ase_mlelec.quantities import LABELS
from ase_mlelec.train.config.base import Names, Section, SettingError, Text, Weight, needed


class _Keys(Section):
    """Names of labels in files that ASE reads, where they differ from those in ``ase_mlelec.data.ase_formats``."""

    group: Text = ""
    """Name of the entry that holds the group of a structure, such as "config_type"."""
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
    """Groups to train on; structures without a group are trained on too, structures of other groups are left out."""
    validation: Names = ("validation",)
    """Groups whose errors are watched during training."""
    test: Names = ("test",)
    """Groups for the errors of the trained model; training does not see them."""
    support: Names = ()
    """Groups that train [energy] as well, such as close pairs and compressed structures: they teach repulsion, but count
    neither for the range of the training data nor for the scale of energies."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1, json_schema_extra=needed("need 0 <= fraction < 1"))] = 0.1
    """Share of the training structures that is held out at random for validation, where no structure is in
    ``validation``."""
    weights: dict[str, Weight] = Field(default={})
    """Configuration weights of files and groups, such as "far.h5" = 0.3: factors of the squared errors of their structures
    in all losses of frames; default 1. With 0 their labels are left out, except Hamiltonians."""
    keys: KeysConfig = KeysConfig()
    """Names of labels in files of other programs."""

    @model_validator(mode="after")
    def _check_names(self):
        twice = sorted({*self.support} & {*self.train, *self.validation, *self.test})
        if twice:
            raise SettingError(
                "support", f"got {twice[0]}, which is in data.train, validation or test too; name it once"
            )
        known = {*self.files, *self.train, *self.support}
        for name in self.weights:
            if name not in known:
                raise SettingError(
                    "weights", f"got '{name}', need one of data.files, or a group of data.train or data.support"
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
