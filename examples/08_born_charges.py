"""How well do Born charges follow from the centroids of a model that was never shown one?

    python 08_born_charges.py       # seconds; writes output/08_born_charges.png

Compares with those of density functional perturbation theory in cells of ice, and shows how much charge moves with a
proton that is near its oxygen, and with one on its way to the middle of the bond.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from ase_mlelec import DeepWannierCalculator
from ase_mlelec.analysis.plots import COLORS, plot_parity_groups

HERE = Path(__file__).parent


def read_cells(path):
    """Structures, Born charges [n, N, 3, 3], e, and names."""
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    images = [Atoms(*structure, pbc=True) for structure in zip(data["numbers"], data["positions"])]
    for atoms, cell in zip(images, data["cell"]):
        atoms.set_cell(cell)
    return images, data["born_charges"], data["name"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ice")
    parser.add_argument("--data", type=Path, default=HERE / "data" / "ice_response.npz")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    images, reference, names = read_cells(arguments.data)
    calc = DeepWannierCalculator(arguments.model)
    predicted = np.array([calc.get_born_charges(atoms) for atoms in images])
    for name, true, found in zip(names, reference, predicted):
        # density functional perturbation theory breaks the sum rule by its finite grids; a model cannot follow that
        corrected = true - true.mean(axis=0)
        print(
            f"{name}: off by {np.sqrt(np.mean((found - true) ** 2)):.3f} e (root mean square), "
            f"{np.sqrt(np.mean((found - corrected) ** 2)):.3f} e with the sum rule; sum over the cell "
            f"{np.abs(found.sum(axis=0)).max():.4f} e, in DFT {np.abs(true.sum(axis=0)).max():.4f} e"
        )

    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    symbols = np.array([list(atoms.symbols) for atoms in images])
    plot_parity_groups(left, reference, predicted, np.repeat(symbols.ravel(), 9), "e")
    left.set_title("all components", loc="left", fontsize="medium")
    protons = symbols == "H"
    nearest = np.concatenate(
        [
            atoms.get_all_distances(mic=True)[np.ix_(atoms.symbols == "H", atoms.symbols == "O")].min(axis=1)
            for atoms in images
        ]
    )
    for charges, label, color, marker in ((reference, "DFT", "black", "o"), (predicted, "model", COLORS[2], "x")):
        right.plot(
            nearest,
            np.trace(charges[protons], axis1=1, axis2=2) / 3,
            ls="",
            marker=marker,
            ms=4,
            mew=0.8,
            mfc="none",
            color=color,
            label=label,
        )
    right.set(xlabel="distance of the proton to its nearest oxygen (Å)", ylabel="Tr Z*/3 of the proton (e)")
    right.legend(frameon=False)
    figure.savefig(arguments.output / "08_born_charges.png", dpi=120)


if __name__ == "__main__":
    main()
