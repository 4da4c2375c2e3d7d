"""``mlelec schema``"""

import argparse

from ase_mlelec_entry_points.cli.options import add_out

HELP = (
    "The JSON schema of the configuration of a training, or of active learning. An editor that knows it completes and "
    "checks settings: '#:schema mlelec.schema.json' is the first line of such a TOML file."
)
EXAMPLE = "mlelec schema --out mlelec.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=["train", "active"],
        default="train",
        metavar="COMMAND",
        help="the command that reads the file: train (default) or active",
    )
    add_out(parser, "write it; it is printed otherwise", metavar="FILE.json")


def run(arguments: argparse.Namespace) -> None:
    import json

    from ase_mlelec.atomic_write import replacing

    if arguments.what == "active":
        from ase_mlelec.active.config import json_schema
    else:
        from ase_mlelec.train.config import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if not arguments.out:
        print(text)
        return
    with replacing(arguments.out) as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")
