"""What do ions far away do to the vibrations of a polar crystal, and how does a model learn it?

    python 18_longitudinal_modes.py     # a minute on one core, with the extra fast

Longitudinal optical waves of magnesium oxide charge the crests of the wave, which hold each other back over any distance;
transverse ones do not.  A model that sees a few Å gives both one frequency in the limit of long waves.  Two models of the
energy are trained on the same structures of 8 atoms, at pressures around 240 GPa and above: one as ``mlelec init`` writes
it, one with the electrostatics of rigid ions, whose charge and screening are those of density functional perturbation
theory.  Frequencies are those of finite displacements in a row of cubic cells, so that nothing is assumed of the waves
between.  Writes output/18_longitudinal_modes.png.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from matplotlib.figure import Figure

from ase_mlelec import DeepPotCalculator
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
SIDE = 39.2 ** (1 / 3)  # Å, cubic cell: about 240 GPa
CELLS, STEP = 12, 0.01  # cubic cells in a row; Å
# ph.x at this volume, by benchmarks/longitudinal.py
CHARGE, DIELECTRIC = 1.680, 2.731  # e, Born charge; of the electrons
DFT = {  # wave vector, 2π/a: frequency, THz, the upper one of two
    "longitudinal": {0: 40.99, 0.25: 38.72, 0.5: 33.69, 0.75: 38.51, 1: 41.40},
    "transverse": {0: 34.59, 0.25: 35.09, 0.5: 36.21, 0.75: 37.27, 1: 37.69},
}
MODELS = {
    "without long range": {},
    "with long range": {"long_range": {"charges": {"Mg": CHARGE, "O": -CHARGE}, "dielectric": DIELECTRIC}},
}
TABLE = {"data": {"files": ["mgo.h5"]}, "power_spectrum": {}, "energy": {"widths": []}}


def trained(name, far, folder):
    """Calculator of a model, which is trained unless it is in the folder."""
    path = folder / f"18_{name.replace(' ', '_')}.safetensors"
    if not path.exists():
        train(parse_config(TABLE | far | {"output": {"model": str(path)}}, HERE / "data"))
    return DeepPotCalculator(path, on_extrapolation="warn")


def optical(calc, axis, cells=CELLS):
    """Wave vectors along x, 2π/a, and frequencies, THz, of optical waves with displacements along an axis: arrays [n].

    Force constants of the first atom of each species, from both signs of a displacement, which are summed over the row
    with the phases of a wave; its wavelength divides the row, and planes of atoms across x move as one by symmetry.
    """
    atoms = bulk("MgO", "rocksalt", a=SIDE, cubic=True) * (cells, 1, 1)
    waves = np.arange(cells + 1) / cells
    own = [np.flatnonzero(atoms.symbols == symbol) for symbol in ("Mg", "O")]
    matrix = np.zeros((len(waves), 2, 2), complex)  # dynamical matrix of both species along the axis
    for k, (first, *_) in enumerate(own):
        constants = -(moved(calc, atoms, first, axis, STEP) - moved(calc, atoms, first, axis, -STEP)) / (2 * STEP)
        along = (atoms.positions[:, 0] - atoms.positions[first, 0]) / SIDE
        terms = constants * np.exp(-2j * np.pi * np.outer(waves, along))
        for j, others in enumerate(own):
            masses = atoms.get_masses()[[first, others[0]]]
            matrix[:, j, k] = terms[:, others].sum(axis=1) / np.sqrt(masses.prod())
    squares = np.linalg.eigvalsh((matrix + matrix.conj().swapaxes(1, 2)) / 2)[:, 1]
    return waves, np.sqrt(squares) * 1000 * units.fs / (2 * np.pi)


def moved(calc, atoms, which, axis, step):
    """Forces [N], eV/Å, along an axis after one atom was moved along it."""
    atoms = atoms.copy()
    atoms.positions[which, axis] += step
    return calc.get_forces(atoms)[:, axis]


def limit(waves, frequencies):
    """Frequency of infinitely long waves, from the two longest ones of finite length, as it is even in the wave vector."""
    first, second = waves[1:3] ** 2
    return (second * frequencies[1] - first * frequencies[2]) / (second - first)


def picture(found):
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), MODELS):
        for (kind, points), color in zip(DFT.items(), (COLORS[1], COLORS[0])):
            waves, frequencies = (values.copy() for values in found[name, kind])
            frequencies[0] = limit(waves, frequencies)  # without a wave there is no direction to be longitudinal to
            axes.plot(waves, frequencies, "o-", ms=3.5, color=color, label=kind)
            axes.plot(*zip(*points.items()), "*", ms=13, color=color, mec="k", mew=0.6, clip_on=False, zorder=3)
        axes.plot([], [], "*", ms=11, color="w", mec="k", mew=0.8, label="DFT (ph.x)")
        axes.set(xlabel=r"wave vector along x (2$\pi$/a)", xlim=(0, 1), title=name)
    figure.axes[0].set_ylabel("frequency of optical waves (THz)")
    figure.axes[0].legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "output")
    folder = parser.parse_args().output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, far in MODELS.items():
        calc = trained(name, far, folder)
        found |= {(name, kind): optical(calc, axis) for axis, kind in enumerate(DFT)}
        ends = [limit(*found[name, kind]) for kind in DFT]
        print(f"{name}: long waves {ends[0]:.2f} THz longitudinal, {ends[1]:.2f} THz transverse", flush=True)
    print(f"DFT: {DFT['longitudinal'][0]:.2f} and {DFT['transverse'][0]:.2f} THz")
    picture(found).savefig(folder / "18_longitudinal_modes.png", dpi=120)


if __name__ == "__main__":
    main()
