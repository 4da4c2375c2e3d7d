"""``mlelec train``"""

import argparse
import glob
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_mlelec.train.config import Config

HELP = (
    "Train a model as described in a TOML file. The model can be used from the first minute on. Ctrl-C saves it, and the "
    "same command goes on; with more steps or minutes it lengthens a training that has ended. Learning curves (CSV) "
    "appear next to the model."
)
EXAMPLE = "mlelec train config.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG.toml",
        help="sections [data], [output], one or more of what is "
        "learned, such as [energy] and [dos], and, where the defaults are not wanted, [descriptor]; "
        "'mlelec schema' has all settings",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no table of errors")


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.train.config import read_config

    config = read_config(arguments.config)

    from ase_mlelec.train.evaluate import table
    from ase_mlelec.train.recipe import train_members

    for member, model in train_members(config, progress=not arguments.quiet):
        if not arguments.quiet:
            if model.metadata["errors"]:
                print(table(model.metadata["errors"]))
            print(ending(member))


def ending(config: "Config") -> str:
    """Lines after a training: its files, and commands that may follow."""
    path = config.folder / config.output.model
    curves = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.csv"))
    lines = [f"Model: {path}"]
    if curves:
        lines.append(f"Learning curves: {', '.join(map(str, curves))}")
    lines += [
        "Next:",
        f"  mlelec test {shlex.quote(str(path))} DATA    errors on other structures",
        f"  mlelec info {shlex.quote(str(path))}    what the model holds",
    ]
    if curves:
        lines.append("  the same command with more steps or minutes continues this training")
    return "\n".join(lines)
