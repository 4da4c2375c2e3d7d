"""Base class of the sections of a configuration, and the types of settings with their ranges."""

import functools
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ase_mlelec.train.config.mistakes import LONGEST_TEXT, SettingError, one_line

MOST_NAMES = 10_000


class Section(BaseModel):
    """Table of a configuration file; it refuses unknown keys, numbers in quotes, and NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init__(self, **settings: Any):
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(one_line(error, settings, _schema(type(self)))) from None

    # sections of a TOML file are made without __init__, so that whole files have one message; pydantic reads this
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __setattr__(self, name, value):
        if name in type(self).model_fields:
            raise ValueError(f"{name}: settings are frozen; give it when the {type(self).__name__} is made")
        super().__setattr__(name, value)


@functools.cache
def _schema(section):
    return section.model_json_schema()


def _check_text(text: str) -> str:
    if not text.isprintable():
        shown = f"{text[:40]!r}{'...' * (len(text) > 40)}"
        raise SettingError("", f"got {shown}, need at most {LONGEST_TEXT} printable characters")
    if text and not text.strip():
        raise SettingError("", f"got {text!r}, need a text that is not empty")
    return text


# Types of settings. TOML arrays, which are lists, become tuples.
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_check_text)]  # "" where a file has none
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(_check_text)]
Names = Annotated[tuple[Name, ...], Field(max_length=MOST_NAMES, strict=False)]

Weight = Annotated[float, Field(ge=0, le=1e12)]
# The lower end is checked with all weights of a loss at once, see Training.
LossWeight = Annotated[float, Field(le=1e12, json_schema_extra={"minimum": 0})]
LossWeights = Annotated[tuple[LossWeight, LossWeight], Field(strict=False)]
Length = Annotated[float, Field(ge=0, le=30)]
Cutoff = Annotated[float, Field(gt=0, le=30)]  # 30 Å: thousands of neighbors
Width = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(max_length=16, strict=False)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
Patience = Annotated[int, Field(ge=0, le=10**8)]
BatchSize = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
LearningRates = Annotated[tuple[Rate, Rate], Field(strict=False)]


def needed(text: str) -> dict[str, str]:
    """Text of an error message that replaces the range of a setting, for ``Field(json_schema_extra=...)``."""
    return {"x-needed": text}
