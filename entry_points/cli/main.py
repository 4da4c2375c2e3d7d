"""Dispatcher of the console script ``mlelec``."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import ase_mlelec
from ase_mlelec import processes
from ase_mlelec_entry_points.cli.options import check_files

# name of the module -> its line in `mlelec --help`
COMMANDS = {
    "demo": "relax and melt silicon and follow its electrons",
    "models": "list the shipped models",
    "info": "show what a model file contains",
    "convert": "convert data sets and models between formats",
    "export": "write a model for deepmd-kit and LAMMPS",
    "init": "look at data and write a TOML file for a training",
    "train": "train a model as described in a TOML file, or on data",
    "active": "learn in rounds, with labels that the model asks for",
    "schema": "print the JSON schemas of these files, for editors",
    "protect": "give a model a repulsive core and ranges of its data",
    "calibrate": "give a model calibrated error bars",
    "test": "errors of a model on a data set",
    "predict": "energy, forces and stress of structures, as extended XYZ",
    "drive": "serve a model to i-PI and other programs with its protocol",
    "bands": "bands of a Wannier Hamiltonian along a path",
    "dos": "density of states, Fermi level and gap of a structure",
    "pca": "principal components of atomic DOS along a trajectory",
    "eos": "equation of state and relaxation energy of a crystal",
    "elastic": "elastic constants of a crystal",
    "phonons": "bands and density of states of the phonons of a crystal",
    "ir": "infrared spectrum of a trajectory with dipoles",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mlelec`` with ``argv`` (default: the command line) and return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((argument for argument in argv if not argument.startswith("-")), None)
    form, warnings.formatwarning, rank = warnings.formatwarning, one_line, 0
    try:
        arguments, others = build_parser(chosen).parse_known_args(argv)
        if others:
            arguments.parser.error(
                f"got {' '.join(others)} beyond its arguments; leave it out, or see {arguments.parser.prog} --help"
            )
        check_files(arguments)
        with ending_well(), processes.together():
            rank = processes.rank()
            if rank:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the first process tells
            arguments.run(arguments)
        sys.stdout.flush()  # a broken pipe shows here, not when the interpreter exits
        return 0
    except KeyboardInterrupt as stop:
        if not rank:
            print("mlelec:", stop if str(stop) else "interrupted", file=sys.stderr)  # a training says how to go on
        return getattr(stop, "code", 128 + signal.SIGINT)
    except Exception as error:
        if os.environ.get("MLELEC_DEBUG") or not isinstance(error, user_errors()):
            raise
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has what it wanted
            # the interpreter flushes stdout once more when it exits
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            return 0
        print("mlelec: error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = form


class Ended(KeyboardInterrupt):
    """The signal that ends a job, as an interruption: files that are being written are removed."""

    code = 128 + signal.SIGTERM


@contextmanager
def ending_well() -> Iterator[None]:
    """Context in which the signal that ends a job does what Ctrl-C does, unless the program does something else."""

    def end(number, frame):
        raise Ended

    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def one_line(message: Warning | str, *place: object, **line: object) -> str:
    """A warning as users need it, without the place in the program."""
    return f"mlelec: warning: {' '.join(str(message).split())}\n"


class _Version(argparse.Action):
    """Prints the version, which is read when it is asked for: that takes as long as all other help."""

    def __call__(self, parser, *options):
        print(f"ase-mlelec {ase_mlelec.__version__}")
        parser.exit()


class _Wide(argparse.HelpFormatter):
    """Formatter with room for the longest command, which argparse does not count because it is indented."""

    def add_argument(self, action):
        super().add_argument(action)
        self._action_max_length = max(self._action_max_length, max(map(len, COMMANDS)) + 4)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Parser of all commands; only the ``chosen`` command is imported and has its arguments."""
    parser = argparse.ArgumentParser(
        prog="mlelec",
        usage="mlelec [-h] [--version] COMMAND ...",
        description="Machine-learned electronic structure with ASE. More: mlelec COMMAND --help",
        formatter_class=_Wide,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version of the package and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, prog="mlelec")
    for name, summary in COMMANDS.items():
        if name == chosen:
            command = import_module(f"{__package__}.{name}")
            epilog = f"Example: {command.EXAMPLE}"
            subparser = subparsers.add_parser(name, help=summary, description=command.HELP, epilog=epilog)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run, parser=subparser)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def user_errors() -> tuple:
    """Exceptions that tell the user what to change, as opposed to a defect of the program.

    Imported here, because only a failing command needs ASE for it.
    """
    from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError
    from ase.io.formats import UnknownFileTypeError

    return ValueError, OSError, CalculatorError, PropertyNotImplementedError, UnknownFileTypeError


if __name__ == "__main__":
    sys.exit(main())
