"""``mlelec dos``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, add_plot, write_columns, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELP = (
    "Density of states of a structure: Fermi level and gap are printed, the total DOS written as a picture and a table."
)
EXAMPLE = "mlelec dos si structure.xyz --plot dos.png --out dos.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help="file that ASE reads; the last structure in it counts")
    add_plot(parser, "draw the total DOS, occupied states shaded")
    add_out(parser, "write energies (eV) and total DOS (states/eV)", metavar="FILE.csv", former=["--csv"])
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase.io import read

    from ase_mlelec import DeepDOSCalculator, MLDFTCalculator, load_model
    from ase_mlelec.physics.dos import band_gap

    atoms: Any = read(arguments.structure)  # one structure, no list
    model = load_model(arguments.model)
    calc = (MLDFTCalculator if "ldos" in model.heads else DeepDOSCalculator)(model, device=arguments.device)
    level, total = calc.get_fermi_level(atoms=atoms), calc.get_total_dos(atoms)
    if "ldos" in model.heads:
        gap, vbm, cbm = band_gap(calc.energies, total / len(atoms), level)
    else:
        gap, vbm, cbm = calc.get_band_gap(atoms)
    print(
        f"{atoms.get_chemical_formula()}: Fermi level {level:.3f} eV, "
        + (f"gap {gap:.3f} eV from {vbm:.3f} to {cbm:.3f} eV" if gap > 0 else "no gap")
    )
    if arguments.out:
        write_columns(arguments.out, {"energy_eV": calc.energies, "dos_states_per_eV": total})
    if arguments.plot:
        plot(arguments.plot, calc.energies, total, level, atoms.get_chemical_formula())


def plot(path: str | PathLike, energies: "NDArray", total: "NDArray", level: float, title: str) -> None:
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import plot_dos

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_dos(figure.add_subplot(title=title), energies, total, level, align=True, occupied=True)
    write_figure(path, figure)
