"""What does a twist of bilayer MoS2 do to its layers and to its valence bands?

    python 11_twisted_mos2.py               # some minutes; writes output/11_twisted_mos2.png
    python 11_twisted_mos2.py --cells 3     # seconds

The model `mos2` relaxes commensurate cells with its force field and makes the Hamiltonian of what comes out.  Shown are
how high molybdenum lies above its layer's mean, and the highest valence bands of the rigid and of the relaxed bilayer
above the vacuum level.

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
from ase_mlelec.analysis.plots import COLOURS
from ase_mlelec.bilayers import commensurate, layers, twisted_bilayer

HERE = Path(__file__).parent
A, THICKNESS, DISTANCE = 3.18, 3.13, 6.3        # Å: of a layer, from S to S in it, between layers
OCCUPIED, FUNCTIONS = 14, 22                    # bands of the model, per primitive bilayer
POINTS = {"Γ": (0, 0, 0), "M": (0.5, 0, 0), "K": (1 / 3, 2 / 3, 0)}     # of vectors that enclose 60 degrees
PATH = "ΓMKΓ"
FORCE = 0.02                                    # eV/Å, where relaxation ends
N_BANDS = 16
BELOW = 0.15                                    # eV below the top of the valence bands: in the middle of those shown


def twisted(m):
    """(Atoms, Coincidence) of layers turned against each other, the unit cell of (m, m + 1)."""
    layer = mx2("MoS2", a=A, thickness=THICKNESS, vacuum=0.0)
    return twisted_bilayer(layer, layer, commensurate(m, 1), DISTANCE)


def valence_bands(calc, atoms, kpts):
    """Energies [K, n] of the highest occupied bands, eV, in rising order."""
    hamiltonian = calc.get_hamiltonian(atoms)
    n_occupied = hamiltonian.size * OCCUPIED // FUNCTIONS
    if hamiltonian.size < 2000:
        return hamiltonian.eigenvalues(kpts)[:, n_occupied - N_BANDS:n_occupied]
    top = valence_bands(calc, twisted(3)[0], [POINTS["Γ"]]).max()
    found = hamiltonian.eigenvalues(kpts, n_bands=N_BANDS, window=(top - 2 * BELOW, top))
    return np.sort(found, axis=1)


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
    parser.add_argument("--cells", type=int, nargs="+", default=(3, 8), help="m of the cells (m, m + 1)")
    parser.add_argument("--points", type=int, default=22, help="k points of each path (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc = WannierTBCalculator(arguments.model)
    figure = Figure(figsize=(9.5, 4.2 * len(arguments.cells)), layout="constrained")
    for (left, right), m in zip(figure.subplots(len(arguments.cells), 2, squeeze=False), arguments.cells):
        (atoms, twist), start = twisted(m), time.time()
        path = BandPath(atoms.cell, special_points=POINTS, path=PATH).interpolate(npoints=arguments.points)
        x, ticks, labels = path.get_linear_kpoint_axis()
        right.plot(x, valence_bands(calc, atoms, path.kpts), color="0.7", lw=1.0)
        atoms.calc = calc
        FIRE(atoms, logfile=None).run(fmax=FORCE, steps=500)
        relaxed = valence_bands(calc, atoms, path.kpts)
        right.plot(x, relaxed, color=COLOURS[0], lw=1.2)
        right.set(title="valence bands, rigid (grey) and relaxed", ylabel="energy (eV)", xlim=x[[0, -1]], xticks=ticks,
                  xticklabels=labels)
        draw_heights(left, atoms)
        left.set_title(f"{twist.angle:.2f}°, {len(atoms):,} atoms")
        metal = atoms.positions[atoms.symbols == "Mo", 2]
        upper = layers(atoms)[atoms.symbols == "Mo"] == 1
        print(f"{twist.angle:.2f} degrees, {len(atoms)} atoms: layers {metal[upper].mean() - metal[~upper].mean():.2f} Å "
              f"apart, the upper one {np.ptp(metal[upper]):.2f} Å uneven; highest band {np.ptp(relaxed[:, -1]):.3f} eV "
              f"wide; {time.time() - start:.0f} s", flush=True)
    figure.savefig(arguments.output / "11_twisted_mos2.png", dpi=150)
    print(f"Picture: {arguments.output / '11_twisted_mos2.png'}")


if __name__ == "__main__":
    main()
