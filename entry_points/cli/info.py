"""``mlelec info``"""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ase_mlelec_entry_points.cli.options import add_model

HELP = "Show what a model file contains: species, cutoff, quantities, size, and the metadata with units and provenance."
EXAMPLE = "mlelec info si"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, complete, for other programs")


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec import load_model
    from ase_mlelec.model_file.write import units_of

    model = load_model(arguments.model)
    summary = {
        "species": list(model.species),
        "cutoff_A": model.cutoff,
        "descriptor": type(model.descriptor).__name__,
        "heads": {quantity: type(head).__name__ for quantity, head in model.heads.items()},
        "units": units_of(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "core_A": model.core
        and {
            f"{a}-{b}": [round(float(ends[i, j]), 6) for ends in (model.core.inner, model.core.outer)]
            for i, a in enumerate(model.species)
            for j, b in enumerate(model.species)
            if i <= j
        },
        **({"long_range": model.long_range.arguments()} if model.long_range else {}),
        "ranges": list(model.ranges),
        "metadata": model.metadata,
    }
    print(json.dumps(summary, indent=2, ensure_ascii=False) if arguments.json else "\n".join(outline(summary)))


def outline(mapping: Mapping[str, Any], indent: str = "") -> Iterator:
    """Lines of ``key: value`` with nested dicts indented; long lists, such as an energy grid, are cut in the middle.

    What is empty is left out.
    """
    for key, value in mapping.items():
        if value is None or value in ({}, [], ""):
            continue
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from outline(value, indent + "  ")
        elif isinstance(value, list):
            shown = [str(entry) for entry in value]
            if len(shown) > 12:
                shown = [*shown[:3], "...", *shown[-3:], f"({len(value)} values)"]
            yield f"{indent}{key}: {' '.join(shown)}"
        else:
            yield f"{indent}{key}: {value}"
