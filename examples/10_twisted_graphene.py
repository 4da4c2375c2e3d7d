"""How do the bands of bilayer graphene change with the twist, down to the magic angle?

    python 10_twisted_graphene.py                       # ten minutes; writes output/10_twisted_graphene.png
    python 10_twisted_graphene.py --angles 21.79 6.01   # seconds

The model `graphene` makes the pz Hamiltonian of a rigid bilayer at every angle; shown are the bands around the Fermi
level along K-Γ-M-K of the twisted cell, from the Dirac point.  The four that meet there become flatter with the angle,
down to the magic one, 1.08 degrees: 11,164 functions with hopping up to 12 Å, of which the twelve nearest levels are
found.

Source: after Bistritzer and MacDonald 2011, Proc. Natl. Acad. Sci. 108, 12233; Qi et al. 2024, Fig. 3.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from ase.build import graphene
from ase.dft.kpoints import BandPath
from matplotlib.figure import Figure

from ase_mlelec import WannierTBCalculator
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.structures.twist import commensurate, twisted_bilayer

HERE = Path(__file__).parent
DISTANCE = 3.35  # Å, mean of the layers of twisted bilayers
ANGLES = (21.79, 6.01, 3.89, 2.13, 1.08)  # degrees
POINTS = {"K": (1 / 3, 2 / 3, 0), "Γ": (0, 0, 0), "M": (0.5, 0.5, 0)}  # of vectors that enclose 60 degrees
PATH = "KΓMK"
N_BANDS = 12
FLAT = 0.005  # eV; where four levels are as near to it, it does not tell which are below


def twisted(angle):
    """(Atoms, Coincidence) of the commensurate bilayer nearest to an angle in degrees."""
    m = np.arange(1, 60)
    angles = np.degrees(np.arccos((3 * m**2 + 3 * m + 0.5) / (3 * m**2 + 3 * m + 1)))
    layer = graphene(a=2.46, vacuum=0.0)
    return twisted_bilayer(layer, layer, commensurate(int(m[abs(angles - angle).argmin()]), 1), DISTANCE)


def four_bands(energies, dirac):
    """The four bands [K, 4] that meet at K, the first point of a path, in energies [K, n] in rising order, and their
    mean there, eV: the four levels that are closest to each other and to ``dirac``.  Elsewhere two of them are below that
    mean and two above."""
    first = np.arange(energies.shape[1] - 3)
    means = energies[0, first[:, None] + np.arange(4)].mean(axis=1)
    level = means[(energies[0, 3:] - energies[0, :-3] + abs(means - dirac)).argmin()]
    nearest = np.sort(abs(energies - level).argsort(axis=1)[:, :4])
    below = (energies < level).sum(axis=1)[:, None] - 2 + np.arange(4)
    flat = abs(np.take_along_axis(energies, nearest, axis=1) - level).max(axis=1) < FLAT
    return np.take_along_axis(energies, np.where(flat[:, None], nearest, below), axis=1), level


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="graphene")
    parser.add_argument("--angles", type=float, nargs="+", default=ANGLES, help="degrees")
    parser.add_argument("--points", type=int, default=13, help="k points of each path (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc = WannierTBCalculator(arguments.model)
    # the Dirac point is that of a layer, wherever the other one is turned to
    small = calc.get_hamiltonian(twisted(21.79)[0])
    dirac = small.eigenvalues([POINTS["K"]])[0][small.size // 2 - 2 : small.size // 2 + 2].mean()
    figure = Figure(figsize=(3.2 * len(arguments.angles), 3.8), layout="constrained")
    axes = figure.subplots(1, len(arguments.angles), squeeze=False)[0]
    for ax, angle in zip(axes, arguments.angles):
        (atoms, twist), start = twisted(angle), time.time()
        hamiltonian = calc.get_hamiltonian(atoms)
        made = time.time() - start
        path = BandPath(atoms.cell, special_points=POINTS, path=PATH).interpolate(npoints=arguments.points)
        kpts, (places, ticks, labels) = path.kpts, path.get_linear_kpoint_axis()
        energies = hamiltonian.eigenvalues(kpts, n_bands=N_BANDS, window=(dirac - 0.1, dirac + 0.1))
        bands, level = four_bands(energies, dirac)
        flat = 1000 * np.ptp(bands)
        ax.plot(places, 1000 * (energies - level), color=COLORS[0], lw=1.0)
        ax.plot(places, 1000 * (bands - level), color=COLORS[1], lw=1.8)
        ax.set(
            title=f"{twist.angle:.2f}°, {len(atoms):,} atoms\nfour bands: {flat:.0f} meV wide",
            xlim=places[[0, -1]],
            xticks=ticks,
            xticklabels=labels,
        )
        ax.grid(axis="x")
        print(
            f"{twist.angle:.3f} degrees, {len(atoms)} atoms: four bands within {flat:.1f} meV; "
            f"Hamiltonian {made:.1f} s, {len(kpts)} k points {time.time() - start - made:.1f} s",
            flush=True,
        )
    axes[0].set_ylabel("energy (meV)")
    figure.savefig(arguments.output / "10_twisted_graphene.png", dpi=150)
    print(f"Picture: {arguments.output / '10_twisted_graphene.png'}")


if __name__ == "__main__":
    main()
