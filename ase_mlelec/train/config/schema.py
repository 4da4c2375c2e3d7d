"""JSON schema of a configuration, for editors and documentation, and descriptions of its nodes in words."""

import functools

from ase_mlelec.train.config.nodes import of_sections, resolved
from ase_mlelec.train.config.whole import Config


@functools.cache
def json_schema() -> dict:
    """JSON schema of a configuration file, with the ranges, defaults and meanings of all settings."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def settings(schema: dict | None = None) -> dict[str, dict]:
    """Nodes of all sections by name, each with its settings but without inner sections.

    The settings before the first section have the name "". ``schema`` is that of a training by default.
    """
    schema, found = schema or json_schema(), {}

    def add(name, node):
        inside = {key: resolved(schema, entry) for key, entry in node["properties"].items() if not of_sections(entry)}
        found[name] = node | {"properties": {key: entry for key, entry in inside.items() if "properties" not in entry}}
        for key, entry in inside.items():
            if "properties" in entry:
                add(f"{name}.{key}".removeprefix("."), entry)

    add("", schema)
    return found
