"""What all sections of a configuration share: strict keys, and the types of settings with their ranges."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LONGEST_TEXT, MOST_NAMES = 4096, 10_000


class SettingError(ValueError):
    """Settings that are right one by one, but not together.

    Parameters
    ----------
    key : str
        Name of the setting that is to be changed, relative to the section that is checked; "" for the section itself.
    text : str
        What was got, what is needed, and how to get there.
    """

    def __init__(self, key, text):
        super().__init__(text)
        self.key = key


class Section(BaseModel):
    """Table of a configuration file: unknown keys, numbers in quotes and numbers that are not finite are mistakes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


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
BatchSize = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
LearningRates = Annotated[tuple[Rate, Rate], Field(strict=False)]


def needed(text: str) -> dict[str, str]:
    """What a mistake says where the range alone is no help, for ``Field(json_schema_extra=...)``."""
    return {"x-needed": text}
