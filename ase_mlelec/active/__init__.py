"""Active learning: a model asks for the labels that it lacks.

In rounds, a model is trained, structures are explored with it, those that would lower its error bars most are labeled, and
the model is trained again with them. ``docs/active.rst`` shows the whole way::

    from ase_mlelec.active import learn, read_active

    summaries = learn(read_active("active.toml"))

The names are loaded when they are used, because processes that make labels need no torch.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ActiveConfig": "config",
    "estimate": "cost",
    "learn": "rounds",
    "parse_active": "config",
    "read_active": "config",
}
__all__ = ["ActiveConfig", "estimate", "learn", "parse_active", "read_active"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
