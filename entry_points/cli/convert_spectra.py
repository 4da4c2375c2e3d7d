"""Options of ``mlelec convert`` for densities of states of DFT calculations."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_mlelec.data.runs.spectra import Spectra

OPTIONS = ("width", "step", "electronic_temperature", "normalize")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--width",
        metavar="EV",
        type=float,
        help="width s of the Gaussian exp(-(x/s)^2) of every level of a run, eV (default: 0.544)",
    )
    parser.add_argument(
        "--step", metavar="EV", type=float, help="of the energies of spectra of runs, eV (default: about width/5)"
    )
    parser.add_argument(
        "--electronic-temperature",
        metavar="K",
        type=float,
        help="temperature of the electrons (default: that of the runs' Fermi-Dirac smearing, else 0)",
    )
    parser.add_argument(
        "--points", metavar="N", type=int, help="random grid points of each LDOS snapshot that are kept (default: all)"
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale the parts of every level on the atoms to the sum 1 (default: for VASP only)",
    )


def refuse_options(arguments: argparse.Namespace, source: str, *more: str) -> None:
    """Raise ValueError for options that belong to runs of DFT programs, and for those named ``more``."""
    for name in (*OPTIONS, *more):
        if getattr(arguments, name) not in (None, []):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"got {option} for {source}; leave it out, it belongs to runs of DFT programs with projections"
                + " or to MALA's X.info.json" * (name == "upf")
            )


def spectra_of(arguments: argparse.Namespace) -> "Spectra | None":
    """The Spectra that the options ask for; None where there is no such option."""
    from ase_mlelec.data.runs.spectra import WIDTH, Spectra

    if arguments.grid is None and not arguments.upf and all(getattr(arguments, name) is None for name in OPTIONS):
        return None
    return Spectra(
        width=WIDTH if arguments.width is None else arguments.width,
        grid=None if arguments.grid is None else tuple(arguments.grid),
        step=arguments.step,
        electronic_temperature=arguments.electronic_temperature,
        pseudopotentials=tuple(arguments.upf),
        normalize=arguments.normalize,
    )


def refuse_points(arguments: argparse.Namespace, source: str) -> None:
    """Raise ValueError for ``--points``, which belongs to the local density of states."""
    if arguments.points is not None:
        raise ValueError(f"got --points for {source}; leave it out, it belongs to folders with an LDOS of pp.x")


def convert_ldos(sources: Sequence[str], ldos: Sequence[str], target: str, arguments: argparse.Namespace) -> None:
    """Write snapshots of the local density of states from folders of pp.x and pw.x."""
    from ase_mlelec.data.runs.ldos import write_ldos
    from ase_mlelec.data.snapshots import Snapshots

    others = [source for source in sources if source not in ldos]
    if others:
        raise ValueError(f"got {ldos[0]} with an LDOS of pp.x, and {others[0]} without one; convert them apart")
    for option in ("grid", "width", "step", "normalize", "key"):
        if getattr(arguments, option) not in (None, []):
            raise ValueError(f"got --{option} for {ldos[0]}; leave it out, pp.x wrote energies and width of the LDOS")
    if arguments.points is not None and arguments.points < 1:
        raise ValueError(f"got --points {arguments.points}, need 1 or more")
    lines = write_ldos(
        target,
        sources,
        electronic_temperature=arguments.electronic_temperature,
        pseudopotentials=tuple(arguments.upf),
        n_points=arguments.points,
    )
    print(f"{target}: {len(Snapshots(target))} snapshots")
    for line in lines:
        print(f"  {line}")
