"""Reading of a configuration from a TOML file."""

import tomllib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ase_mlelec.checks import printable
from ase_mlelec.train.config.mistakes import one_line
from ase_mlelec.train.config.schema import json_schema
from ase_mlelec.train.config.whole import Config

LARGEST_FILE = 100_000  # bytes; a configuration is a page of text
MOST_DOTS = 1000


def read_config(path: str | PathLike) -> Config:
    """Read the configuration of a training.

    Parameters
    ----------
    path : path
        TOML file.

    Raises
    ------
    ValueError
        For a missing file, a mistake in the TOML, an unknown or missing key, a wrong type, or a value out of range; the
        message names the file.
    """
    return parsed(path, parse_config)


def parsed(path: str | PathLike, parse: Callable[[Mapping[str, Any], Path], Any]) -> Any:
    """What ``parse(table, folder)`` makes of a TOML file.

    Raises
    ------
    ValueError
        For a missing file, a mistake in the TOML, and what ``parse`` raises it for; the message names the file.
    """
    path = Path(path)
    try:
        return parse(read_table(path), path.parent)
    except (OSError, ValueError) as error:  # tomllib's errors are ValueErrors
        raise ValueError(f"{path}: {printable(error, 1000)}") from None


def parse_config(table: Mapping[str, Any], folder: str | PathLike = ".") -> Config:
    """Make the configuration of a training from nested dicts.

    Parameters
    ----------
    table : dict
        Table as tomllib returns it.
    folder : path
        Folder from which relative paths start.

    Raises
    ------
    ValueError
        For an unknown or missing key, a wrong type, or a value out of range.
    """
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        raise ValueError(one_line(error, table, json_schema())) from None
    config._folder = Path(folder)
    return config


def read_table(path: str | PathLike) -> dict[str, Any]:
    """Read a TOML file as nested dicts.

    Raises
    ------
    ValueError
        For a missing file, a file that is too large, and a mistake in the TOML; the message does not name the file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError("No such file; give the name of a TOML file")
    if not path.is_file():
        raise ValueError("not a file; give the name of a TOML file")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(
            f"more than {LARGEST_FILE} bytes, too large for a configuration; give the TOML file, not a data set"
        )
    try:
        text = content.decode("utf-8-sig")  # editors of Windows put a mark before the text
        # the time that tomllib takes grows with the square of the number of dots in a key
        if any(line.partition("=")[0].count(".") > MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"more than {MOST_DOTS} dots in a line before '='; correct the TOML")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise ValueError("brackets or dots nested too deep for a configuration; correct the TOML") from None
