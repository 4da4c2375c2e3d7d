"""``mlelec active``"""

import argparse

HELP = (
    "Learn actively: train a model, explore with it, select the structures about which it is unsure, label them, and train "
    "again, until a criterion of the TOML file holds. The same command goes on after an interruption. A folder has the "
    "model, the labels and a picture of every round."
)
EXAMPLE = "mlelec active active.toml --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG.toml",
        help="a TOML file with 'training', the file of 'mlelec train', and sections [select] and [label], and where the "
        "defaults are not wanted [explore], [train] and [stop]; 'mlelec schema active' has all settings",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what will be done and what it will cost")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="stop when the folder has N rounds; the same command goes on later"
    )
    parser.add_argument("--quiet", action="store_true", help="no lines about the progress")


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.active.config import read_active

    config = read_active(arguments.config)
    if arguments.rounds is not None and arguments.rounds < 1:
        raise ValueError(f"got --rounds {arguments.rounds}, need at least 1")

    from ase_mlelec.active.cost import estimate
    from ase_mlelec.active.rounds import learn

    if arguments.dry_run:
        print(estimate(config))
        return
    learn(config, progress=not arguments.quiet, rounds=arguments.rounds)
