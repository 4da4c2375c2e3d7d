"""Writes docs/settings.rst and docs/active_settings.rst, the tables of all settings, from the models that check them.

python docs/make_settings.py
"""

from pathlib import Path

from ase_mlelec.active.config import json_schema
from ase_mlelec.train.config.nodes import described, interval
from ase_mlelec.train.config.schema import settings

PAGE = Path(__file__).with_name("settings.rst")
HEAD = """\
..  Written by docs/make_settings.py: change the descriptions in ase_mlelec/train/config/ and run it again.

Settings of a training
======================

All sections and settings of the file that ``mlelec train`` reads (TOML). A section that is left out is not trained, or
has the defaults; ``mlelec schema`` prints the same as a JSON schema for editors.
"""
ACTIVE_PAGE = PAGE.with_name("active_settings.rst")
ACTIVE_HEAD = """\
..  Written by docs/make_settings.py: change the descriptions in ase_mlelec/active/config.py and run it again.

Settings of active learning
===========================

All sections and settings of the file that ``mlelec active`` reads (TOML); :doc:`active` shows its use. ``mlelec schema
active`` prints the same as a JSON schema for editors.
"""


def page() -> str:
    """The text of settings.rst."""
    return HEAD + "".join(section(name, table) for name, table in settings().items())


def active_page() -> str:
    """The text of active_settings.rst."""
    return ACTIVE_HEAD + "".join(section(name, table) for name, table in settings(json_schema()).items())


def section(name, table) -> str:
    """A heading, what the section is, and its table."""
    title = f"[{name}]" if name else "Before the first section"
    rows = [row(key, node) for key, node in table["properties"].items()]
    text = f"{table['description']}\n\n" if name else ""
    return (
        f"\n{title}\n{'-' * len(title)}\n\n{text}.. list-table::\n   :header-rows: 1\n   :widths: 16 30 14 40\n\n"
        f"   * - setting\n     - value\n     - default\n     - meaning\n{''.join(rows)}"
    )


def row(key, node) -> str:
    """A row of the table of a section."""
    meaning = " ".join(node["description"].split())
    return f"   * - ``{key}``\n     - {values(node)}\n     - {default(node)}\n     - {meaning}\n"


def values(node) -> str:
    """Type and range in words."""
    if "enum" in node:
        return described(node)
    if node["type"] == "object" and not isinstance(node["additionalProperties"], dict):
        return described(node)
    if node["type"] == "object":
        each = interval(node["additionalProperties"])
        return ", ".join(filter(None, (described(node), each and f"each {each}")))
    if node["type"] != "array":
        return ", ".join(filter(None, (described(node), interval(node))))
    entry = (node.get("prefixItems") or [node["items"]])[0]
    entries = "" if "prefixItems" in node else f"{node.get('minItems', 0)} to {node['maxItems']} entries"
    return "; ".join(filter(None, (described(node), entries, interval(entry) and f"each {interval(entry)}")))


def default(node) -> str:
    """What a file without the setting has, as TOML."""
    value = node.get("default")
    if value is None:
        return "none" if "default" in node else "required"
    if isinstance(value, list):
        return f"``[{', '.join(map(toml, value))}]``"
    return "none" if value == {} else f"``{toml(value)}``"


def toml(value) -> str:
    """A number, a text or a truth value as TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    ACTIVE_PAGE.write_text(active_page(), encoding="utf-8")
