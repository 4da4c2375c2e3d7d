"""From a TOML file to the dataclasses of a configuration: strict keys, types and ranges."""

import difflib
import math
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_origin, get_type_hints

from ase_mlelec.train.config_ranges import check_numbers, check_texts

LARGEST_FILE = 100_000  # bytes; a configuration is a page of text
MOST_DOTS = 1000


def read_table(path):
    """dict of a TOML file, nested.

    Raises ValueError for a missing file, one that is too large, and a mistake in the TOML; without its name.
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
        text = content.decode("utf-8")
        # tomllib takes time that grows with the square of the dots of a key
        if any(line.partition("=")[0].count(".") > MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"more than {MOST_DOTS} dots in a line before '='; correct the TOML")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise ValueError("brackets or dots nested too deep for a configuration; correct the TOML") from None


def build(cls, table, section="", **given):
    """A dataclass of a table (dict) of TOML; fields with the metadata "key": False are no keys.

    section : name of the table, for messages and the ranges of its keys; "" for the whole file
    given : values of fields that are no keys

    A field "given" gets the names of the keys that the table has.

    Raises ValueError for an unknown or missing key, a wrong type, and a value out of range.
    """
    kinds, where = get_type_hints(cls), f"{section}." if section else ""
    keys = {entry.name: entry for entry in fields(cls) if entry.metadata.get("key", True)}
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key[:100], keys, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"unknown key '{where}{key[:80]}'; {hint}known are {', '.join(keys)}")
    for key, entry in keys.items():
        if key not in table and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"key '{where}{key}' is missing; add it")
    values = {key: _convert(value, kinds[key], f"{where}{key}") for key, value in table.items()}
    for key, value in values.items():
        check_texts(f"{where}{key}", value)
    if "given" in kinds:
        given["given"] = tuple(values)
    made = cls(**given, **values)
    for key, value in values.items():
        check_numbers(section, key, value)
    return made


def _convert(value, kind, where):
    """``value`` as the annotated type ``kind``; TOML arrays become tuples and integers serve as floats."""
    if get_origin(kind) is UnionType:
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    if hasattr(kind, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: got {_short(value)}, need a section [{where}]")
        return build(kind, value, where)
    if get_origin(kind) is tuple:
        entry, *others = get_args(kind)
        if not isinstance(value, list) or (Ellipsis not in others and len(value) != 1 + len(others)):
            raise ValueError(f"{where}: got {_short(value)}, need {_described(kind)}")
        return tuple(_convert(item, entry, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 10**300 else math.inf
    if type(value) is not kind:
        raise ValueError(f"{where}: got {_short(value)}, need {_described(kind)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where}: got {value}, need a finite number")
    if kind is int and abs(value) > 2**63:
        raise ValueError(f"{where}: got an integer of {value.bit_length()} bits, need a smaller one")
    return value


def _short(value):
    """repr of a value, of at most some 80 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, tables of thousands of levels
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _described(kind):
    names = {int: "an integer", float: "a number", str: "a text in quotes", bool: "true or false"}
    if kind in names:
        return names[kind]
    entry, *others = get_args(kind)
    what = {int: "integers", float: "numbers", str: "texts in quotes"}[entry]
    return f"a list of {what}, [...]" if Ellipsis in others else f"a list of {1 + len(others)} {what}"
