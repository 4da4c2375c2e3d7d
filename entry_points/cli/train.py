"""``mlelec train``"""

import argparse

HELP = (
    "Train a model as described in a TOML file. The same command goes on with a run that was interrupted. Learning "
    "curves (CSV) appear next to the model."
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
            print(f"Model: {member.folder / member.output.model}")
