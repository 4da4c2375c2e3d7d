"""What does a twist of bilayer MoS2 do to its layers and to the bands beside its gap?

    python 11_twisted_mos2.py                   # ten minutes; writes output/11_twisted_mos2.png
    python 11_twisted_mos2.py --cells 8.95      # seconds

The model `mos2` relaxes commensurate cells with its force field and makes the Hamiltonian of what comes out.  Shown are
how high molybdenum lies above its layer's mean, and the highest valence and lowest conduction bands of the rigid and of
the relaxed bilayer, eV above the vacuum level.  8.95 and 3.42 degrees are the cells of the paper, in which one layer is
stretched onto fewer primitive cells than the other; in those of 9.43 and 3.89 degrees both layers are alike.

Source: after Qi et al. 2024, Figs. 2 and 3.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from ase.build import mx2
from ase.dft.kpoints import BandPath
from ase.optimize import FIRE
from matplotlib.figure import Figure

from ase_mlelec import WannierTBCalculator
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.structures.layers import layers
from ase_mlelec.structures.twist import commensurate, twisted_bilayer

HERE = Path(__file__).parent
THICKNESS, DISTANCE = 3.13, 6.3  # Å: from S to S of a layer, between layers
CELLS = {
    8.95: (3.26, ((6, 0), (5, 1))),
    3.42: (3.26, ((15, 0), (14, 1))),  # lattice constant Å, supercells
    9.43: (3.18, commensurate(3, 1)),
    3.89: (3.18, commensurate(8, 1)),
}
OCCUPIED, FUNCTIONS = 14, 22  # bands of the model, per primitive bilayer
POINTS = {"Γ": (0, 0, 0), "M": (0.5, 0, 0), "K": (1 / 3, 2 / 3, 0)}  # of vectors that enclose 60 degrees
PATH = "ΓMKΓ"
FORCE = 0.02  # eV/Å, where relaxation ends
N_BANDS = 16
GAP = -5.6, -4.6  # eV above the vacuum level; its middle is in the gap
AWAY = 0.15  # eV from the edges of the gap: in the middle of the bands shown


def twisted(degrees):
    """(Atoms, Coincidence) of two layers turned against each other."""
    a, cells = CELLS[degrees]
    layer = mx2("MoS2", a=a, thickness=THICKNESS, vacuum=0.0)
    return twisted_bilayer(layer, layer, cells, DISTANCE)


def edge_bands(calc, atoms, kpts):
    """Energies [K, n], eV, in rising order, of the highest valence and of the lowest conduction bands."""
    hamiltonian = calc.get_hamiltonian(atoms)
    if hamiltonian.size < 2000:
        n_occupied = hamiltonian.size * OCCUPIED // FUNCTIONS
        levels = hamiltonian.eigenvalues(kpts)
        return levels[:, n_occupied - N_BANDS : n_occupied], levels[:, n_occupied : n_occupied + N_BANDS]
    levels = np.sort(hamiltonian.eigenvalues(kpts[:1], n_bands=60, window=GAP)[0])
    place = np.diff(levels).argmax()
    windows = (levels[place] - 2 * AWAY, levels[place]), (levels[place + 1], levels[place + 1] + 2 * AWAY)
    return tuple(np.sort(hamiltonian.eigenvalues(kpts, n_bands=N_BANDS, window=window), axis=1) for window in windows)


def gap(edges):
    """eV, of what edge_bands returns."""
    valence, conduction = edges
    return conduction.min() - valence.max()


def draw_heights(ax, atoms):
    """Heights of molybdenum, above the mean of its layer, of the upper layer."""
    upper = (layers(atoms) == 1) & (atoms.symbols == "Mo")
    cell, positions = atoms.cell.array, atoms.positions[upper]
    points = np.concatenate([positions + i * cell[0] + k * cell[1] for i in range(2) for k in range(2)])
    heights = np.tile(positions[:, 2] - positions[:, 2].mean(), 4)
    image = ax.scatter(points[:, 0], points[:, 1], c=heights, s=18, cmap="coolwarm")
    ax.set(aspect="equal", xlabel="x (Å)", ylabel="y (Å)")
    ax.figure.colorbar(image, ax=ax, label="height of Mo (Å)", shrink=0.8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mos2")
    parser.add_argument("--cells", type=float, nargs="+", default=(8.95, 3.42), choices=CELLS, help="degrees")
    parser.add_argument("--points", type=int, default=22, help="k points of each path (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc = WannierTBCalculator(arguments.model)
    figure = Figure(figsize=(13, 4.2 * len(arguments.cells)), layout="constrained")
    for (left, *right), degrees in zip(figure.subplots(len(arguments.cells), 3, squeeze=False), arguments.cells):
        (atoms, twist), start = twisted(degrees), time.time()
        path = BandPath(atoms.cell, special_points=POINTS, path=PATH).interpolate(npoints=arguments.points)
        x, ticks, labels = path.get_linear_kpoint_axis()
        rigid = edge_bands(calc, atoms, path.kpts)
        atoms.calc = calc
        FIRE(atoms, logfile=None).run(fmax=FORCE, steps=500)
        relaxed = edge_bands(calc, atoms, path.kpts)
        for ax, name, before, after in zip(right, ("valence", "conduction"), rigid, relaxed):
            gray, *_ = ax.plot(x, before, color="0.7", lw=1.0)
            blue, *_ = ax.plot(x, after, color=COLORS[0], lw=1.2)
            ax.legend([gray, blue], ["rigid", "relaxed"], loc="best")
            ax.set(title=f"{name} bands", ylabel="energy (eV)", xlim=x[[0, -1]], xticks=ticks, xticklabels=labels)
        draw_heights(left, atoms)
        left.set_title(f"{abs(twist.angle):.2f}°, {len(atoms):,} atoms")
        metal = atoms.positions[atoms.symbols == "Mo", 2]
        upper = layers(atoms)[atoms.symbols == "Mo"] == 1
        apart = metal[upper].mean() - metal[~upper].mean()
        print(
            f"{degrees:.2f} degrees, {len(atoms)} atoms, strains {100 * twist.strains[0]:.1f} and "
            f"{100 * twist.strains[1]:.1f} %: layers {apart:.2f} Å apart, the upper one {np.ptp(metal[upper]):.2f} Å "
            f"uneven; highest valence band {np.ptp(relaxed[0][:, -1]):.3f} eV wide; "
            f"gap {gap(rigid):.2f} eV (rigid) and {gap(relaxed):.2f} eV (relaxed); "
            f"{time.time() - start:.0f} s",
            flush=True,
        )
    figure.savefig(arguments.output / "11_twisted_mos2.png", dpi=150)
    print(f"Picture: {arguments.output / '11_twisted_mos2.png'}")


if __name__ == "__main__":
    main()
