"""Text of a TOML file in which a comment stands above every setting."""

import json
import textwrap
from typing import Any

WIDTH = 118


class TomlText:
    """Builder of the text of a TOML file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def comment(self, text: str) -> None:
        """Add a comment, wrapped at the width of a page."""
        self.lines += textwrap.wrap(
            text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
        )

    def section(self, name: str, why: str = "") -> None:
        """Begin a table, with a comment above it."""
        self.lines.append("")
        if why:
            self.comment(why)
        self.lines.append(f"[{name}]")

    def set(self, key: str, value: Any, why: str = "") -> None:
        """Add a setting, with a comment above it."""
        if why:
            self.comment(why)
        self.lines.append(f"{_key(key)} = {_value(value)}")

    def __str__(self):
        return "\n".join(self.lines) + "\n"


def _key(key):
    """The key, in quotes where it is no bare key."""
    bare = key and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


def _value(value):
    """A value as TOML; JSON's strings and numbers are TOML's."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(entry)}' for key, entry in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character that only JSON allows
