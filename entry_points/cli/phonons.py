"""``mlelec phonons``"""

import argparse
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, add_plot, write_columns, write_figure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from ase_mlelec.analysis.phonons import Phonons

HELP = (
    "Phonons of a crystal by finite displacements, with phonopy: frequencies at Γ, bands along a path, density of states. "
    "Positions are relaxed first. Born charges and dielectric tensor, which split longitudinal from transverse modes, are "
    "those of the model where it has them, or of a file."
)
EXAMPLE = "mlelec phonons si diamond.xyz --supercell 4 4 4 --plot phonons.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help="primitive cell, a file that ASE reads; the last in it")
    parser.add_argument(
        "--supercell", metavar=("N1", "N2", "N3"), type=int, nargs=3, default=[2, 2, 2], help="(default: 2 2 2)"
    )
    parser.add_argument("--displacement", metavar="D", type=float, default=0.01, help="in Å (%(default)s)")
    parser.add_argument("--relax", action="store_true", help="relax the cell too")
    parser.add_argument("--born", metavar="FILE", help="output of ph.x (epsil), or phonopy's BORN")
    parser.add_argument("--path", help="special points such as GXWG (default: ASE's choice for the cell)")
    parser.add_argument("--points", type=int, default=150, metavar="N", help="of the path (%(default)s)")
    add_plot(parser, "draw bands and density of states")
    add_out(parser, "write points of the path and frequencies (THz)", metavar="FILE.csv")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec.analysis.mechanics import relaxed
    from ase_mlelec.analysis.phonons import THZ, Phonons, read_response, response_of
    from ase_mlelec.data.structures import structure

    atoms = structure(arguments.structure)
    atoms.calc = calculator(arguments.model, arguments.device)
    response = read_response(arguments.born, atoms) if arguments.born else None
    atoms = relaxed(atoms, cell=arguments.relax, fmax=1e-4)
    born, dielectric = response or response_of(atoms) or (None, None)
    phonons = Phonons(
        atoms,
        supercell=arguments.supercell,
        displacement=arguments.displacement,
        born_charges=born,
        dielectric=dielectric,
    )
    warn_of_short_supercell(atoms, arguments.supercell)
    n = phonons.n_displacements
    repeats = " x ".join(map(str, arguments.supercell))
    print(f"{atoms.symbols}: supercell {repeats}, {n} displacement{'s' * (n > 1)}")
    for title, direction in (
        ("Γ", None),
        *((("Γ along x, with Born charges", x_axis(atoms)),) if phonons.is_polar else ()),
    ):
        modes = phonons.energies([0, 0, 0], direction=direction)[0] / THZ
        print(f"{title}: {' '.join(f'{round(mode, 3) + 0.0:.3f}' for mode in modes)} THz")  # no -0.000
    bands = phonons.band_structure(arguments.path, npoints=arguments.points)
    lowest = bands.energies.min() / THZ
    if lowest < -0.1:
        print(f"unstable: imaginary frequencies down to {-lowest:.2f}i THz on the path {bands.path.path}")
    if arguments.out:
        columns = dict(zip(("q1", "q2", "q3"), bands.path.kpts.T))
        write_columns(
            arguments.out, columns | {f"mode{k + 1}_THz": row / THZ for k, row in enumerate(bands.energies[0].T)}
        )
    if arguments.plot:
        plot(arguments.plot, phonons, bands)


def calculator(name: str, device: str | None) -> Any:
    """Calculator of a model with an energy, and with Born charges where it has vectors."""
    from ase_mlelec import DeepWannierCalculator, load_model
    from ase_mlelec.heads import VectorHead
    from ase_mlelec_entry_points.cli.eos import calculator as of_energy

    model = load_model(name)
    if VectorHead.quantity in model.heads and "energy" in model.heads:
        return DeepWannierCalculator(model, device=device)
    return of_energy(name, device)


def warn_of_short_supercell(atoms: "Atoms", repeats: Sequence[int]) -> None:
    """Warn where an atom interacts with several images of another one, whose force constants cannot be told apart."""
    import warnings

    import numpy as np

    model = atoms.calc.models[0]
    if "energy" not in model.heads:
        return
    cutoff = model.descriptor_of("energy").cutoff
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    wanted = np.maximum(np.ceil(2 * cutoff / heights - 1e-6).astype(int), 1)
    if (np.asarray(repeats) < wanted).any():
        shortest, enough = min(np.asarray(repeats) * heights), " ".join(map(str, wanted))
        warnings.warn(
            f"the supercell of {shortest:.1f} Å is shorter than twice the cutoff of the model, {cutoff:g} Å: frequencies "
            f"between its own wave vectors are interpolated; --supercell {enough} holds all interactions",
            stacklevel=2,
        )


def x_axis(atoms: "Atoms") -> "NDArray":
    """The direction x in reduced coordinates of reciprocal space."""
    return atoms.cell.array[:, 0]


def plot(path: str | PathLike, phonons: "Phonons", bands: Any) -> None:
    """Draw bands and density of states side by side, in THz."""
    import numpy as np
    from ase.spectrum.band_structure import BandStructure
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.phonons import THZ
    from ase_mlelec.analysis.plots import COLORS, plot_bands

    figure = Figure(figsize=(7, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    plot_bands(left, BandStructure(bands.path, bands.energies / THZ)).set_ylabel("frequency (THz)")
    left.axhline(0, color="0.7", lw=0.8, zorder=0)
    dos = phonons.dos()
    right.fill_betweenx(np.asarray(dos.get_energies()) / THZ, dos.get_weights() * THZ, color=COLORS[0], alpha=0.4, lw=0)
    right.set(xlabel="modes per THz", xlim=(0, None))
    write_figure(path, figure)
