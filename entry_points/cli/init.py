"""``mlelec init``"""

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_force, add_keys, add_out, check_writable, keys_of, refuse_existing

if TYPE_CHECKING:
    from pathlib import Path

HELP = (
    "Look at data and print what they hold: structures, labels and how much they vary, and what looks wrong, such as "
    "units or single structures. Then write a commented TOML file for 'mlelec train' with the choices that follow."
)
USUAL_FOLDER = r"(set|data|sys|system|train|training|valid|validation|test|deepmd|npy)(_data)?[-._]?\d*"
MOST_MINUTES = 1_000_000  # as in configurations
EXAMPLE = "mlelec init run.extxyz OUTCAR --out config.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="+",
        help="data sets: .h5, deepmd npy folders, pw.x's output or .save, files that ASE reads with labels",
    )
    add_out(parser, "name of the TOML file (default: that of the first DATA, in this folder)", suffixes=[".toml"])
    add_force(parser)
    add_keys(parser)
    add_minutes(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bars, and no report")


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """Add ``--minutes``, the time for gradient descent."""
    parser.add_argument(
        "--minutes", type=minutes, metavar="N", help="time for gradient descent; closed forms take what they need"
    )


def minutes(text: str) -> float:
    """Number of minutes, which argparse refuses where it is not positive."""
    value = float(text)
    if not 0 < value <= MOST_MINUTES:
        raise ValueError(text)
    return value


def run(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    out = arguments.out or name_of(arguments.data[0])
    check_new(out, arguments.force)
    look(arguments.data, arguments, Path(out))
    print(f"{out}: written; next: mlelec train {shlex.quote(str(out))}")


def name_of(data: str) -> str:
    """Name of the TOML file for a data set, in the present folder.

    Folders with names that programs give, such as set.000 or data_0, count for the folder that they lie in.
    """
    import re
    from pathlib import Path

    path = Path(data).resolve()
    name = path.name
    if not path.is_dir():
        for suffix in (".gz", ".bz2", ".xz"):
            name = name.removesuffix(suffix)
        name = Path(name).stem.removesuffix(".info")
    elif name != ".save" and name.endswith(".save"):  # of pw.x
        name = name.removesuffix(".save")
    elif re.fullmatch(USUAL_FOLDER, name, re.IGNORECASE):
        above = [each for each in path.parents if not re.fullmatch(USUAL_FOLDER, each.name, re.IGNORECASE)]
        if above[0].name and above[0] != Path.home():
            name = above[0].name
    return f"{name}.toml"


def check_new(out: str, force: bool = False) -> None:
    """Raise ValueError where the TOML file exists or cannot be written."""
    check_writable("--out", out, [".toml"])
    refuse_existing(out, force)


def look(data: Sequence[str], arguments: argparse.Namespace, path: "Path") -> None:
    """Print the report on the data and write the TOML file."""
    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.survey import configuration, report, survey

    found = survey(data, keys=keys_of(arguments), progress=bar(not arguments.quiet))
    if not arguments.quiet:
        print(report(found), flush=True)
    text = configuration(found, path, minutes=arguments.minutes)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def bar(shown: bool) -> Callable[[Iterable, str], Iterable]:
    """Function that wraps an iterable in a progress bar with a title."""
    from ase_mlelec.progress import Bar

    def wrapped(items: Iterable, what: str) -> Iterable:
        return Bar(items, desc=what, show=shown, leave=False, delay=1)

    return wrapped
