"""Error messages for mistakes in a configuration: one line with section, key, value and need."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ase_mlelec.train.config.nodes import described, interval, node_at

LONGEST_TEXT = 4096
WEIGHTS = "put its files into data.files, with configuration weights in [data.weights]"
FORMER = {  # section and setting -> what to do instead
    ("EnergyConfig", "coarse"): WEIGHTS,
    ("EnergyConfig", "far"): WEIGHTS,
    ("EnergyConfig", "far_weight"): "give it to the files of 'far', in data.files and [data.weights]",
    ("EnergyConfig", "coarse_ridge"): "leave it out: 'ridge' holds for all files",
    ("EnergyConfig", "relevance"): "leave it out: 'ridge' and the roughness of the features say how much they may have",
}
ORDER = ("extra_forbidden", "missing")  # kinds of mistakes that are reported before others


class SettingError(ValueError):
    """Error of settings that are valid one by one, but contradict each other.

    Parameters
    ----------
    key : str
        Name of the setting to change, relative to the section that is checked; "" for the section itself.
    text : str
        Message: the value, the need, and a remedy.
    """

    def __init__(self, key: str, text: str):
        super().__init__(text)
        self.key = key


def one_line(error: ValidationError, table: Mapping[str, Any], schema: dict[str, Any]) -> str:
    """Message for the first mistake of a pydantic.ValidationError.

    Parameters
    ----------
    error : pydantic.ValidationError
    table : dict
        The table that was validated.
    schema : dict
        JSON schema of the table.
    """
    found = error.errors(include_url=False, include_input=False)
    first = min(found, key=lambda mistake: ORDER.index(mistake["type"]) if mistake["type"] in ORDER else len(ORDER))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        name = ".".join(filter(None, (_name(first["loc"]), cause.key)))
        return f"{name}: {cause}" if name else str(cause)
    *place, key = first["loc"]
    parent = node_at(schema, place)
    if first["type"] == "extra_forbidden":
        return _unknown(_name((*place, str(key)[:80])), str(key), parent)
    if first["type"] == "missing" and "properties" in parent:
        return f"key '{_name(first['loc'])}' is missing; add it"
    return _wrong_value(first["loc"], table, schema, first["type"])


def _unknown(name, key, section):
    known, remedy = section["properties"], FORMER.get((section.get("title"), key))
    if remedy:
        return f"{name}: got a setting of former versions; {remedy}"
    near = difflib.get_close_matches(key[:100], known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown key '{name}'; {hint}known are {', '.join(known)}"


def _wrong_value(place, table, schema, kind):
    """Message for a value, or an entry of an array, of the wrong type or out of range."""
    value, parent = table, table
    for part in place:
        parent, value = value, value[part] if not isinstance(value, list | tuple) or part < len(value) else None
    node, name = node_at(schema, place), _name(place)
    if isinstance(place[-1], int):
        array = node_at(schema, place[:-1])
        size = len(array.get("prefixItems", parent))
        below = kind == "greater_than" and "prefixItems" in array
        if below or len(parent) != size:  # the message is about the array as a whole
            need = f"two numbers above {node['exclusiveMinimum']:g}" if below else described(array)
            return f"{_name(place[:-1])}: got {short(parent)}, need {need}"
    if kind == "finite_number" and isinstance(value, float):
        return f"{name}: got {value}, need a finite number"
    if type(value) is int and abs(value) > 2**63 and node.get("type") in ("integer", "number"):
        return f"{name}: got an integer of {value.bit_length()} bits, need a smaller one"
    if "enum" in node and isinstance(value, str):
        return f"{name}: got {short(value)}, need one of {', '.join(node['enum'])}; correct it"
    if kind in ("too_short", "too_long") and "items" in node:
        if not value and "x-needed" in node:
            return f"{name}: got an empty list; {node['x-needed']}"
        fewest = node.get("minItems", 0)
        return f"{name}: got {len(value)} entries, need {fewest} to {node['maxItems']}"
    if kind.startswith("string_too"):
        if not value:
            return f"{name}: got {value!r}, need a text that is not empty"
        return f"{name}: got {value[:40]!r}..., need at most {LONGEST_TEXT} printable characters"
    if kind.startswith(("greater_than", "less_than")):
        shown = value if isinstance(value, int) else f"{value:.12g}"
        return f"{name}: got {shown}, {node.get('x-needed') or f'need {interval(node)}'}"
    return f"{name}: got {short(value)}, need {described(node, name)}"


def _name(place):
    """data.files[0] of ("data", "files", 0)"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def short(value: object) -> str:
    """repr of a value, of at most some 80 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, tables of thousands of levels
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
