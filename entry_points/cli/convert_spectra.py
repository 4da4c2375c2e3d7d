"""Options of ``mlelec convert`` for densities of states of DFT calculations."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_mlelec.data.runs.spectra import Spectra

OPTIONS = ("width", "step", "electronic_temperature", "normalize")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", metavar="EV", type=float, help="s of Gaussians exp(-(x/s)^2) (default: 0.544)")
    parser.add_argument("--step", metavar="EV", type=float, help="of the energies of spectra (default: about width/5)")
    parser.add_argument(
        "--electronic-temperature", metavar="K", type=float, help="default: that of the Fermi-Dirac smearing, else 0"
    )
    parser.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="scale the shares of atoms to 1 (default: for VASP)"
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
