"""``mlelec dos``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, add_plot, write_columns, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ase_mlelec.calculators.band_gap import BandGap

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
    from ase_mlelec import DeepDOSCalculator, MLDFTCalculator, load_model
    from ase_mlelec.data.structures import structure

    atoms = structure(arguments.structure)
    model = load_model(arguments.model)
    if "hamiltonian" in model.heads and not {"dos", "ldos"} & {*model.heads}:
        raise ValueError(
            f"{arguments.model} has a Hamiltonian and no density of states of atoms; in Python, "
            f"WannierTBCalculator({arguments.model!r}).get_dos(), or 'mlelec bands {arguments.structure} --model "
            f"{arguments.model}'"
        )
    calc = (MLDFTCalculator if "ldos" in model.heads else DeepDOSCalculator)(model, device=arguments.device)
    level, total = calc.get_fermi_level(atoms=atoms), calc.get_total_dos(atoms)
    gap = gap_of_grid(calc, atoms, total) if "ldos" in model.heads else calc.get_band_gap(atoms)
    print(f"{atoms.get_chemical_formula()}: Fermi level {level:.3f} eV, {gap}")
    if "dos" in getattr(model, "posteriors", {}):
        name = "gap" if gap[0] > 0 else "fermi_level"
        bar = calc.uncertainty[name]
        print(f"standard deviation of the {name.replace('fermi_', 'Fermi ')} by the errors of the model: {bar:.3f} eV")
    if arguments.out:
        write_columns(arguments.out, {"energy_eV": calc.energies, "dos_states_per_eV": total})
    if arguments.plot:
        plot(arguments.plot, calc.energies, total, level, atoms.get_chemical_formula(), gap)


def gap_of_grid(calc: Any, atoms: Any, total: "NDArray") -> "BandGap":
    """Gap of a density of states that was integrated over a grid."""
    from torch import from_numpy

    from ase_mlelec.calculators.band_gap import BandGap
    from ase_mlelec.physics.gap import gap_of_dos, hidden_gap

    width, energies, n_atoms = float(calc.metadata.get("dos_width_eV", 0.0)), from_numpy(calc.energies), len(atoms)
    electrons = sum(calc.metadata["valence_electrons"][symbol] for symbol in atoms.symbols)
    found = gap_of_dos(energies, from_numpy(total) / n_atoms, electrons / n_atoms, width=width)
    if found is not None:
        return BandGap.between(found)
    level = calc.get_fermi_level(0.0, atoms=atoms)
    return BandGap.none(level, hidden_gap(energies, from_numpy(total), level, width=width), width)


def plot(path: str | PathLike, energies: "NDArray", total: "NDArray", level: float, title: str, gap: "BandGap") -> None:
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import plot_dos

    figure = Figure(figsize=(6, 4), layout="constrained")
    # edges are relative to the Fermi level in the picture
    words = f"gap {gap[0]:.2f} ± {gap.uncertainty[0]:.2f} eV" if gap[0] > 0 else str(gap)
    axes = figure.add_subplot(title=f"{title}: {words}")
    plot_dos(axes, energies, total, level, align=True, occupied=True)
    if gap[0] > 0:
        for edge, error in zip(gap[1:], gap.uncertainty[1:]):
            axes.axvspan(edge - error - level, edge + error - level, color="0.85", zorder=0)
    write_figure(path, figure)
