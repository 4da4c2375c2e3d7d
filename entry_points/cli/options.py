"""Options that mean the same in all commands, and the files that commands write.

``check_files`` looks at the names of these files before a command starts: a calculation does not end in an error for a
picture of an unknown kind or a folder that is not there.
"""

import argparse
import os
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

TYPE_CHECKING = False  # that of typing, which takes as long to import as this module
if TYPE_CHECKING:
    from typing import Any

    from ase import Atoms
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from ase_mlelec.model import Model

DATA = ("structures", "structure", "data", "hamiltonian", "file", "config")  # arguments that are files to read


def add_model(parser: argparse.ArgumentParser, name: str = "model", **options: "Any") -> None:
    """Add the model that is used: a positional argument, or the option ``--model`` where there is a default."""
    text = "name of a shipped model (see 'mlelec models') or a path"
    parser.add_argument(
        name, metavar="MODEL", help=text + (" (%(default)s)" if "default" in options else ""), **options
    )


def add_out(
    parser: argparse.ArgumentParser,
    meaning: str,
    *,
    metavar: str = "FILE",
    suffixes: Sequence[str] = (),
    required: bool = False,
    former: Sequence[str] = (),
) -> None:
    """Add ``--out``, the file with the result.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    meaning : str
        What is written.
    metavar : str
        Name of the file in the help.
    suffixes : sequence of str
        What the name has to end in; (): anything.
    required : bool
        Whether there is no result but this file.
    former : sequence of str
        Names that the option had in former versions, which go on to work.
    """
    parser.add_argument("-o", "--out", metavar=metavar, help=f"{meaning} (required)" if required else meaning)
    for name in former:
        parser.add_argument(name, dest="out", default=SUPPRESS, help=SUPPRESS)
    parser.set_defaults(out_suffixes=tuple(suffixes), out_required=required)


def add_plot(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--plot``, a picture."""
    parser.add_argument("--plot", metavar="FILE.png", help=f"{meaning}; png, pdf, svg and what else matplotlib writes")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, where the model is evaluated."""
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:0 (default: cuda where there is one)")


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add ``--key``, names of labels in files of other programs."""
    parser.add_argument(
        "--key",
        metavar="LABEL=NAME",
        action="append",
        default=[],
        help="what a label is called in files that ASE reads, such as energy=REF_energy; also group=NAME, for what "
        "tells the groups of structures; may be repeated",
    )


def keys_of(arguments: argparse.Namespace) -> dict:
    """Label -> name, of the options --key."""
    pairs = [pair.partition("=") for pair in arguments.key]
    for label, equals, name in pairs:
        if not (label and equals and name):
            raise ValueError(f"got --key {label}{equals}{name}, need LABEL=NAME, such as energy=REF_energy")
    return {label: name for label, _, name in pairs}


def check_files(arguments: argparse.Namespace) -> None:
    """Raise ValueError where a file of ``--out`` or ``--plot`` cannot be written.

    ``arguments.former_out`` is what former versions took as the last positional argument.
    """
    if getattr(arguments, "former_out", None) is not None and arguments.out is None:
        check_new(arguments.former_out)
        arguments.out = arguments.former_out
    out, plot = getattr(arguments, "out", None), getattr(arguments, "plot", None)
    if out is None and getattr(arguments, "out_required", False):
        raise ValueError("got no --out; give the name of the file to write")
    if out is not None:
        check_writable("--out", out, arguments.out_suffixes)
    if plot is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        check_writable("--plot", plot, [f".{kind}" for kind in sorted(FigureCanvasBase.get_supported_filetypes())])
    if out is not None and plot is not None and Path(out).resolve() == Path(plot).resolve():
        raise ValueError(f"got {out} for --out and for --plot; give two names")
    for option, path in ("--out", out), ("--plot", plot):
        if path is not None:
            _check_kept(arguments, option, path)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``, without which a file that is there already is kept."""
    parser.add_argument("--force", action="store_true", help="write over a file of this name")


def refuse_existing(path: str | PathLike, force: bool) -> None:
    """Raise ValueError where a result would replace a file, which may be edited by hand or made in hours of work."""
    if Path(path).exists() and not force:
        raise ValueError(f"{path}: exists already; give another name with --out, or --force to write over it")


def check_new(path: str | PathLike) -> None:
    """Raise ValueError where a result named without --out would replace a file, which may be one of several to read."""
    if Path(path).exists():
        raise ValueError(
            f"got {path} as the name of the result, which exists already; give the result a name with --out, or the files "
            "to read one by one"
        )


def _check_kept(arguments, option, path):
    """Raise ValueError where a result would replace data that the command reads; a model may become a better one."""
    for name in DATA:
        found = getattr(arguments, name, None) or []
        for each in [found] if isinstance(found, str) else found:
            # "run.traj@3" is a part of run.traj
            kept = next((Path(file) for file in (each, each.rpartition("@")[0]) if file and Path(file).is_file()), None)
            if kept and Path(path).exists() and kept.samefile(path):
                raise ValueError(f"{option}: got {path}, which is read; give the result another name")


def check_writable(option: str, path: str | PathLike, suffixes: Sequence[str] = ()) -> None:
    """Raise ValueError where no file of this name can be written, or none that ends in one of ``suffixes``."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder, need the name of a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option}: got '{path}', need a name that ends in {', '.join(suffixes)}; rename it")
    if not path.parent.is_dir():
        raise ValueError(f"{option}: got '{path}', but there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option}: got '{path}', but the folder {path.parent} is not writable; choose another one")


def write_columns(path: str | PathLike, columns: "Mapping[str, ArrayLike]") -> None:
    """Write a table (CSV) with a dict, heading -> array."""
    import numpy as np

    from ase_mlelec.atomic_write import replacing

    table = np.column_stack(list(columns.values()))
    with replacing(path) as partial:
        np.savetxt(partial, table, fmt="%.6g", delimiter=",", comments="", header=",".join(columns))


def write_figure(path: str | PathLike, figure: "Figure") -> None:
    """Write a picture of the kind that its suffix names."""
    from ase_mlelec.atomic_write import replacing

    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)


def check_species(model: "Model", atoms: "Atoms", place: str) -> None:
    """Raise ValueError, which begins with ``place``, for a structure with species that the model does not know."""
    import torch
    from ase.calculators.calculator import InputError

    try:
        model.check_species(torch.as_tensor(atoms.numbers))
    except InputError as error:
        raise ValueError(f"{place}: {error}, or leave it out") from None
