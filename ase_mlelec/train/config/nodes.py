"""Nodes of a JSON schema: the setting that a place in a configuration means, and what it says in words."""

from collections.abc import Sequence
from typing import Any

NOUNS = {"integer": "integers", "number": "numbers", "string": "texts in quotes"}


def resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict:
    """A node of a schema with references resolved, and without the null of optional settings."""
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    if options:
        node = {key: value for key, value in node.items() if key != "anyOf"} | options[0]
    if "$ref" in node:
        target = schema["$defs"][node["$ref"].rpartition("/")[2]]
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    return node


def _of_any_name(node) -> bool:
    """Whether a node is a table whose keys the schema does not list."""
    return isinstance(node.get("additionalProperties"), dict)


def of_sections(node: dict[str, Any]) -> bool:
    """Whether a node is a table of sections whose names the schema does not list."""
    return _of_any_name(node) and "type" not in node["additionalProperties"]


def node_at(schema: dict[str, Any], place: Sequence[str | int]) -> dict:
    """The node of a key, or of an entry of an array, such as ("energy", "forces", 0)."""
    node = schema
    for part in place:
        if isinstance(part, int):
            entries = node.get("prefixItems")
            node = entries[min(part, len(entries) - 1)] if entries else node["items"]
        else:
            node = node["additionalProperties"] if _of_any_name(node) else node["properties"].get(part, {})
        node = resolved(schema, node)
    return node


def interval(node: dict[str, Any]) -> str:
    """The range of a number, such as 'at least 1 and at most 16'."""
    ends = (
        ("at least", "minimum"),
        ("more than", "exclusiveMinimum"),
        ("at most", "maximum"),
        ("less than", "exclusiveMaximum"),
    )
    return " and ".join(f"{words} {node[key]:.12g}" for words, key in ends if key in node)


def described(node: dict[str, Any], name: str = "") -> str:
    """The type of a setting in words, such as 'a list of 2 numbers'; ``name`` is the name of a section."""
    if "properties" in node:
        return f"a section [{name}]"
    if "type" not in node and "enum" not in node:  # not a setting of files
        return "a table"
    if "enum" in node:
        return f"one of {', '.join(node['enum'])}"
    if node["type"] == "array":
        entries = node.get("prefixItems")
        noun = NOUNS[(entries[0] if entries else node["items"])["type"]]
        return f"a list of {len(entries)} {noun}" if entries else f"a list of {noun}, [...]"
    if node["type"] == "object" and not _of_any_name(node):
        return "a table"
    if node["type"] == "object":
        entry = node["additionalProperties"]
        pairs = entry["type"] == "array"
        noun = described(entry).replace("a list", "lists") if pairs else NOUNS[entry["type"]]
        return f"a table of {noun} by name"
    return {"integer": "an integer", "number": "a number", "string": "a text in quotes", "boolean": "true or false"}[
        node["type"]
    ]
