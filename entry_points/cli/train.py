"""``mlelec train``"""

import argparse
import glob
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.init import add_minutes, check_new, look, name_of
from ase_mlelec_entry_points.cli.options import add_keys

if TYPE_CHECKING:
    from pathlib import Path

    from ase_mlelec.train.config import Config

HELP = (
    "Train a model as described in a TOML file, or on data, for which a TOML file is written first as by 'mlelec init'. "
    "The model can be used from the first minute on. Ctrl-C saves it, and the same command goes on; with more steps or "
    "minutes it lengthens a training that has ended. Learning curves (CSV) appear next to the model."
)
EXAMPLE = "mlelec train config.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG.toml|DATA",
        nargs="+",
        help="one TOML file with sections [data], [output], one or more of what is "
        "learned, such as [energy] and [dos], and, where the defaults are not wanted, [descriptor]; "
        "'mlelec schema' has all settings; or data sets in any format that is read",
    )
    add_keys(parser)
    add_minutes(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no table of errors")


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.train.config import read_config

    config = read_config(configuration_of(arguments))

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
    name = shlex.quote(str(path))
    lines += [
        "Next:",
        f"  mlelec test {name} DATA --plot parity.png    errors on other structures, with a picture",
        f"  mlelec info {name}    what the model holds",
    ]
    if config.dos is not None or config.ldos is not None:
        lines.append(f"  mlelec dos {name} STRUCTURE --plot dos.png    its density of states, Fermi level, gap")
    if config.hamiltonian is not None:
        lines.append(f"  mlelec bands STRUCTURE --model {name} --plot bands.png    its bands, with error bars")
    if curves:
        lines.append("  the same command with more steps or minutes continues this training")
    return "\n".join(lines)


def configuration_of(arguments: argparse.Namespace) -> str:
    """Name of the TOML file: the one that is given, or one that is written for the data.

    One that is there already for the same data is taken as it is, so that the same command goes on with a training.
    """
    from pathlib import Path

    given = arguments.config
    if any(name.endswith(".toml") for name in given) or not any(Path(name).exists() for name in given):
        if len(given) > 1:
            raise ValueError(f"got {len(given)} files, need one TOML file, or data sets alone")
        if arguments.key or arguments.minutes is not None:
            raise ValueError(f"got --key or --minutes beside {given[0]}; set them in this file")
        return str(given[0])
    out = Path(name_of(given[0]))
    if not out.exists():
        check_new(str(out))
        look(given, arguments, out)
        print(f"{out}: written", flush=True)
    elif arguments.key or arguments.minutes is not None or not is_of(out, given):
        raise ValueError(f"{out}: exists already; train with 'mlelec train {out}', or rename it")
    else:
        print(f"{out}: trains with this file, which is for these data", flush=True)
    return str(out)


def is_of(config: "Path", data: Sequence[str]) -> bool:
    """Whether a TOML file is for these data sets and no others."""
    from pathlib import Path

    from ase_mlelec.train.config import read_config

    files = read_config(config).data.files
    return {(config.parent / name).resolve() for name in files} == {Path(name).resolve() for name in data}
