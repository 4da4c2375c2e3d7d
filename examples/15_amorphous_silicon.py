"""Amorphous silicon by melting and quenching: its structure, its energy above the crystal, and the states in its gap.

    python 15_amorphous_silicon.py                              # 64 atoms, 10 ps: two minutes on one core
    python 15_amorphous_silicon.py --cells 4 --steps 20000      # 512 atoms, 40 ps: an hour

Melts a crystal, cools the liquid to 300 K in the volume of the crystal and relaxes what comes out, with its cell.  An
interrupted run goes on where it was when the same command is given again; --anew starts from the crystal.

Writes to output/: 15_amorphous_silicon.png, the cooling, pair distributions, bond angles, numbers of neighbors and the DOS;
15_amorphous.extxyz, the relaxed structure; the numbers of the run in 15_*.h5.

A quench within picoseconds leaves more defects than a real sample has: the slower, the fewer.

Source: after the amorphous silicon of Zeng 2022 (thesis on concurrent learning), with quench rates of simulations.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.neighborlist import neighbor_list
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator, ElectronicRecorder
from ase_mlelec.analysis import ados
from ase_mlelec.analysis.mechanics import relaxed
from ase_mlelec.analysis.plots import COLORS, plot_dos, plot_series
from ase_mlelec.analysis.recorder import heat
from ase_mlelec.analysis.result_file import ResultFile

MELT, LIQUID, END, TIMESTEP = 3500.0, 2000.0, 300.0, 2.0  # K, K, K, fs
SHARE = 0.2  # of the steps, at MELT; the rest cools from LIQUID
BOND, REACH = 2.9, 8.0  # Å: first minimum of the pair distribution, end of the picture
STORED = ["temperature", "positions", "momenta", "cell"]
ROWS = 100


def neighbors(atoms):
    """Mean number within BOND."""
    return ados.coordination(atoms, BOND).mean()


def crystal(cells, calc):
    """At rest, with its calculator."""
    atoms = bulk("Si", "diamond", a=5.46, cubic=True)
    atoms.calc = calc
    atoms = relaxed(atoms, cell=True) * ((cells,) * 3)
    atoms.calc = calc
    return atoms


def image(results, row):
    """Structure of a row of a run."""
    positions, momenta, cell = (results[name][row] for name in ("positions", "momenta", "cell"))
    return Atoms(f"Si{len(positions)}", positions=positions, momenta=momenta, cell=cell, pbc=True)


def quench(path, calc, arguments):
    """Melt and cool, or go on with the run in a file; its rows."""
    done, atoms = 0, crystal(arguments.cells, calc)
    if path.exists() and not arguments.anew:
        results = ResultFile(path)
        done, atoms = round(results["step"][-1]), image(results, -1)
        print(f"{path.name}: goes on from step {done}")
    else:
        thermalize_momenta(atoms, temperature_K=2 * MELT, rng=np.random.default_rng(1))
        Stationary(atoms)
    atoms.calc = calc
    random = np.random.default_rng(done)
    dyn = Langevin(atoms, TIMESTEP * units.fs, temperature_K=MELT, friction=0.01 / units.fs, rng=random)
    recorder = ElectronicRecorder(atoms, path, [neighbors, *STORED], dyn=dyn, resume=not arguments.anew)
    dyn.attach(recorder, interval=max(1, arguments.steps // ROWS))
    melt = round(SHARE * arguments.steps)
    if done < melt:
        heat(dyn, MELT, MELT, melt - done)
    left = arguments.steps - max(done, melt)
    heat(dyn, END + (LIQUID - END) * left / (arguments.steps - melt), END, left)
    recorder.close()
    return recorder.results


def pair_distribution(atoms, width=0.1):
    """(distances, g)."""
    edges = np.arange(0.0, REACH + width, width)
    counts, _ = np.histogram(neighbor_list("d", atoms, REACH), edges)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return (edges[1:] + edges[:-1]) / 2, counts * atoms.get_volume() / len(atoms) ** 2 / shells


def bond_angles(atoms):
    """Angles between the bonds of every atom, degrees."""
    first, vectors = neighbor_list("iD", atoms, BOND)
    units_ = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    for k in range(len(atoms)):
        own = units_[first == k]
        found.append((own @ own.T)[np.triu_indices(len(own), 1)])
    return np.degrees(np.arccos(np.clip(np.concatenate(found), -1, 1)))


def figure_of(results, liquid, glass, ideal, calc):
    """Cooling, structure and DOS."""
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    panels = figure.subplots(2, 3)
    time = results["time"] / 1000
    plot_series(panels[0, 0], time, results["temperature"], "temperature (K)", color=COLORS[2])
    plot_series(panels[1, 0], time, results["neighbors"], f"neighbors within {BOND} Å", color=COLORS[0])
    panels[1, 0].set_xlabel("time (ps)")
    for atoms, label, color in ((liquid, "liquid", COLORS[1]), (glass, "amorphous", COLORS[0])):
        panels[0, 1].plot(*pair_distribution(atoms), color=color, label=label)
    panels[0, 1].set(xlabel="distance (Å)", ylabel="g(r)", xlim=(1.5, REACH), ylim=(0, None))
    panels[0, 1].legend(frameon=False)
    angles = bond_angles(glass)
    panels[1, 1].hist(angles, np.arange(40, 181, 4), density=True, color=COLORS[0])
    panels[1, 1].axvline(109.47, color="0.5", ls=":")
    panels[1, 1].set(xlabel="bond angle (°)", ylabel="density", title=f"{angles.mean():.0f}° ± {angles.std():.0f}°")
    counts = ados.coordination(glass, BOND)
    names, numbers = np.unique(counts, return_counts=True)
    panels[0, 2].bar(names, numbers / len(glass), color=COLORS[0])
    panels[0, 2].set(xlabel=f"neighbors within {BOND} Å", ylabel="share of atoms")
    for atoms, label, color in ((ideal, "crystal", "0.5"), (glass, "amorphous", COLORS[0])):
        dos, level = calc.get_total_dos(atoms) / len(atoms), calc.get_fermi_level(atoms=atoms)
        plot_dos(panels[1, 2], calc.energies, dos, level, align=True, color=color, label=label)
    panels[1, 2].legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="si")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along each side (%(default)s: 64 atoms)")
    parser.add_argument("--steps", type=int, default=5000, help="time steps of 2 fs (%(default)s)")
    parser.add_argument("--anew", action="store_true", help="replace a former run")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc = DeepDOSCalculator(arguments.model)
    results = quench(arguments.output / f"15_{8 * arguments.cells**3}_atoms.h5", calc, arguments)
    ideal, glass = crystal(1, calc), image(results, -1)
    glass.calc = calc
    before = glass.get_potential_energy()
    glass = relaxed(glass, cell=True, fmax=0.02)
    energies = {name: atoms.get_potential_energy() / len(atoms) for name, atoms in (("c", ideal), ("a", glass))}
    bar = calc.get_uncertainty("energy", atoms=glass) / len(glass)
    write(arguments.output / "15_amorphous.extxyz", glass)
    print(f"relaxation from 300 K: {before / len(glass) - energies['a']:.3f} eV/atom")
    print(f"above the crystal: {energies['a'] - energies['c']:.3f} ± {bar:.3f} eV/atom")
    volumes = [atoms.get_volume() / len(atoms) for atoms in (glass, ideal)]
    print(f"volume: {volumes[0] / volumes[1]:.3f} of the crystal's")
    counts = ados.coordination(glass, BOND)
    shares = ", ".join(f"{n} neighbors {100 * np.mean(counts == n):.0f} %" for n in (3, 4, 5))
    print(f"mean number of neighbors {counts.mean():.2f}: {shares}")
    liquid = image(results, round(SHARE * (len(results["time"]) - 1)))
    figure_of(results, liquid, glass, ideal, calc).savefig(arguments.output / "15_amorphous_silicon.png", dpi=150)


if __name__ == "__main__":
    main()
