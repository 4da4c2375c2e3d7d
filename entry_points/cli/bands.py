"""``mlelec bands``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_out, add_plot, write_figure

if TYPE_CHECKING:
    from ase.spectrum.band_structure import BandStructure

HELP = "Bands of a Wannier Hamiltonian on a path through the Brillouin zone, as a picture and as ASE's JSON."
EXAMPLE = "mlelec bands graphene_hr.dat --path GMKG --plot bands.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "hamiltonian",
        metavar="FILE",
        help="seed_hr.dat or seed_tb.dat of Wannier90; seed_wsvec.dat, "
        "seed.win, seed.wout and seed_centres.xyz beside it are read as well",
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
    hamiltonian = WannierHamiltonian.read(arguments.hamiltonian)
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
    if arguments.out:
        from ase_mlelec.atomic_write import replacing

        with replacing(arguments.out) as partial:
            bands.write(partial)
    if arguments.plot:
        plot(arguments.plot, bands, "energy (eV)" if arguments.fermi is None else r"$E - E_\mathrm{F}$ (eV)")


def plot(path: str | PathLike, bands: "BandStructure", label: str) -> None:
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import plot_bands

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    plot_bands(figure.add_subplot(), bands).set_ylabel(label)
    write_figure(path, figure)
