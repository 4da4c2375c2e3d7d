"""``mlelec bands``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_out, add_plot, write_figure

if TYPE_CHECKING:
    from ase.spectrum.band_structure import BandStructure
    from numpy.typing import NDArray

HELP = (
    "Bands of a Wannier Hamiltonian on a path through the Brillouin zone, as a picture and as ASE's JSON; with --model of "
    "a structure, with error bars where the model has them."
)
EXAMPLE = "mlelec bands bilayer.xyz --model graphene --path GMKG --plot bands.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "hamiltonian",
        metavar="FILE",
        help="seed_hr.dat or seed_tb.dat of Wannier90, or the folder of one run; seed_wsvec.dat, "
        "seed.win, seed.wout and seed_centres.xyz beside it are read as well; with --model a structure that ASE reads",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="model that predicts the Hamiltonian of the structure FILE (names: mlelec models)",
    )
    parser.add_argument("--path", help="special points such as GMKG (default: ASE's choice for the cell)")
    parser.add_argument(
        "--points", type=int, default=200, metavar="N", help="number of k points on the path (%(default)s)"
    )
    parser.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="only bands within, eV")
    parser.add_argument("--fermi", type=float, metavar="E", help="energy that is zero in the picture, eV")
    add_plot(parser, "draw the bands")
    add_out(parser, "write them for 'ase band-structure'", metavar="FILE.json", former=["--json"])


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from ase_mlelec import WannierHamiltonian

    if arguments.fermi is not None and not np.isfinite(arguments.fermi):
        raise ValueError(
            f"--fermi: got {arguments.fermi}, need an energy in eV; leave it out to draw energies as they are"
        )
    if arguments.model:
        hamiltonian, bands, bars = predicted(arguments)
    else:
        hamiltonian, bars = WannierHamiltonian.read(file_of(arguments.hamiltonian)), None
        bands = hamiltonian.band_structure(
            arguments.path, npoints=arguments.points, window=arguments.window, reference=arguments.fermi or 0.0
        )
    energies = bands.energies[0]
    if not energies.size:
        raise ValueError(
            f"--window: got {arguments.window[0]:g} to {arguments.window[1]:g} eV, need one that holds "
            "bands; leave it out to see all"
        )
    print(
        f"{hamiltonian.size} functions, {len(hamiltonian.r_vectors)} lattice vectors; path {bands.path.path}: "
        f"{energies.shape[1]} bands from {np.nanmin(energies):.3f} to {np.nanmax(energies):.3f} eV"
    )
    if bars is not None:
        print(
            f"standard deviations of the bands: {np.nanmean(bars):.3f} eV on average, {np.nanmax(bars):.3f} eV at most"
        )
    if arguments.out:
        from ase_mlelec.atomic_write import replacing

        with replacing(arguments.out) as partial:
            bands.write(partial)
    if arguments.plot:
        plot(arguments.plot, bands, bars, "energy (eV)" if arguments.fermi is None else r"$E - E_\mathrm{F}$ (eV)")


def file_of(path: str) -> str:
    """The Hamiltonian of a folder with one, or the path itself."""
    from pathlib import Path

    from ase_mlelec.data.runs.wannier import ENDINGS, wannier_files

    if Path(path).is_file() and not path.endswith(ENDINGS):
        raise ValueError(
            f"{path}: got another name, need seed_hr.dat or seed_tb.dat; rename it, or give a model for a structure, --model"
        )
    if not Path(path).is_dir():
        return path
    found = wannier_files(path)
    if len(found) != 1:
        named = f", {found[0]} to {found[-1]}" if found else ""
        raise ValueError(
            f"{path}: got a folder with {len(found)} Hamiltonians of Wannier90{named}; give one file, seed_hr.dat or "
            "seed_tb.dat"
        )
    return str(found[0])


def predicted(arguments: argparse.Namespace) -> tuple:
    """(WannierHamiltonian, BandStructure, standard deviations of the bands or None) of a structure, by a model."""
    from ase_mlelec import WannierTBCalculator
    from ase_mlelec.data.images import read_images

    calc = WannierTBCalculator(arguments.model)
    (atoms,) = read_images(arguments.hamiltonian)[:1]
    hamiltonian = calc.get_hamiltonian(atoms)
    bands = hamiltonian.band_structure(
        arguments.path, npoints=arguments.points, window=arguments.window, reference=arguments.fermi or 0.0
    )
    known = any(name.startswith("hamiltonian/") for name in calc.models[0].posteriors) and bands.energies.size
    return hamiltonian, bands, calc.get_band_uncertainty(bands, atoms=atoms) if known else None


def plot(path: str | PathLike, bands: "BandStructure", bars: "NDArray | None", label: str) -> None:
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import plot_bands

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    plot_bands(figure.add_subplot(), bands, deviations=bars).set_ylabel(label)
    write_figure(path, figure)
