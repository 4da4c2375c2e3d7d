"""How well does a model know the electrons of aluminium it has never seen, crystal and liquid?

    python 03_aluminium_ml_dft.py       # less than a minute; writes output/03_aluminium_ml_dft.png

Takes the unseen snapshots that the data set stores with all their grid points: density of states and its error, density
at every grid point, and the density and its error on a plane through the cell.

Source: after Ellis et al. 2021, Figs. 3 and 4.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ase_mlelec import MLDFTCalculator
from ase_mlelec.analysis.plots import plot_dos_comparison, plot_parity_counts, plot_slice
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.physics import fermi

HERE = Path(__file__).parent
LAYOUT = [["dos", "parity", "density", "error"], ["dos_error", "parity", "density", "error"]]


def draw(figure, calc, snapshot, energies):
    """One row of the page."""
    atoms, n_atoms = snapshot.atoms, len(snapshot.atoms)
    calc.electronic_temperature = snapshot.temperature
    dos, density, level = calc.get_total_dos(atoms), calc.get_density(), calc.get_fermi_level()
    axes = figure.subplot_mosaic(LAYOUT, width_ratios=(1.2, 1, 1, 1), height_ratios=(3, 1))
    plot_dos_comparison(axes["dos"], axes["dos_error"], energies, snapshot.dos / n_atoms, dos / n_atoms, level)
    axes["dos"].set(title=snapshot.name, ylabel="DOS (states/eV/atom)")
    plot_parity_counts(axes["parity"], snapshot.density, density, "e/Å$^3$")
    plot_slice(axes["density"], density, atoms.cell, "density (e/Å$^3$)", cmap="magma", vmin=0)
    difference = density - snapshot.density
    largest = np.abs(difference[:, :, 0]).max()
    plot_slice(axes["error"], difference, atoms.cell, "error (e/Å$^3$)", cmap="RdBu_r", vmin=-largest, vmax=largest)
    true_level = fermi.fermi_level(energies, snapshot.dos, 3 * n_atoms, snapshot.temperature)
    print(
        f"{snapshot.name}: Fermi level {level:.3f} eV (DFT {true_level:.3f}), DOS off by "
        f"{np.sqrt(np.mean((dos - snapshot.dos) ** 2)) / n_atoms:.4f} states/eV/atom (root mean square), density by "
        f"{100 * np.mean(np.abs(difference / snapshot.density)):.2f} % (mean)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="al")
    parser.add_argument("--data", type=Path, default=HERE / "data" / "aluminium.h5")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    snapshots = Snapshots(arguments.data)
    whole = [snapshot for snapshot in snapshots.select("test") if snapshot.points is None]
    calc = MLDFTCalculator(arguments.model)
    figure = Figure(figsize=(16, 3.6 * len(whole)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    for row, snapshot in zip(figure.subfigures(len(whole), 1, squeeze=False)[:, 0], whole):
        draw(row, calc, snapshot, snapshots.energies)
    figure.savefig(arguments.output / "03_aluminium_ml_dft.png", dpi=110)


if __name__ == "__main__":
    main()
