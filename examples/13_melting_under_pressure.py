"""Where does a superheated crystal begin to melt, and which of its electrons tell?

    python 13_melting_under_pressure.py                             # 64 atoms, a minute on one core
    python 13_melting_under_pressure.py --cells 4 --steps 4000      # 512 atoms, 6 minutes
    python 13_melting_under_pressure.py --cells 8 --steps 3000      # 4,096 atoms, 6 ps: half an hour, with the extra fast

Heats silicon at 5 GPa until it melts.  An interrupted run goes on where it was when the same command is given again;
--anew starts from the crystal.  Writes to output/: 13_melting_under_pressure.png, temperature, pressure, density and DOS
over time, and slices of the structure colored by the order parameter Q; 13_components.png, the DOS of all atoms of
snapshots in the plane of their principal components, beside the common-neighbor analysis where OVITO is installed
(pip install ase-mlelec[cna]); 13_snapshots.extxyz, which `ase gui` colors by Q; the numbers in 13_*.h5.

The energies of Q are the local minima of the DOS of the crystal at the start.

Source: after Zeng et al. 2022, Figs. 4 to 7.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import write
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator, ElectronicRecorder, evaluate
from ase_mlelec.analysis import ados
from ase_mlelec.analysis.plots import COLORS, components_figure, plot_dos, plot_series
from ase_mlelec.analysis.recorder import heat
from ase_mlelec.analysis.result_file import ResultFile
from ase_mlelec.analysis.structure_types import DIAMOND_TYPES, diamond_structure
from ase_mlelec.analysis.trajectory import set_atom_scalars

PRESSURE, START, TIMESTEP = 5.0, 300.0, 2.0  # GPa, K, fs
STORED = ["temperature", "fermi_level", "total_dos", "order_parameter", "positions", "momenta", "cell"]
ROWS, SNAPSHOTS = 200, 20  # of the run, and of those whose atoms are looked at
SLICE = 5.0  # Å, of the structure that is drawn


def pressure(atoms):
    """GPa."""
    return -atoms.get_stress(voigt=False, include_ideal_gas=True).trace() / 3 / units.GPa


def density(atoms):
    """g/cm^3."""
    return atoms.get_masses().sum() / atoms.get_volume() * units._amu * 1e27


def crystal(cells):
    atoms = bulk("Si", "diamond", a=5.32, cubic=True) * ((cells,) * 3)
    thermalize_momenta(atoms, temperature_K=2 * START, rng=np.random.default_rng(1))
    Stationary(atoms)
    return atoms


def images(results, rows):
    """Structures of some rows of a run."""
    stored = [results[name][rows] for name in ("positions", "momenta", "cell")]
    for positions, momenta, cell in zip(*stored):
        yield Atoms(f"Si{len(positions)}", positions=positions, momenta=momenta, cell=cell, pbc=True)


def run(path, calc, arguments):
    """Heat the crystal, or go on with the run in a file; its rows."""
    done, atoms = 0, crystal(arguments.cells)
    if path.exists() and not arguments.anew:
        results = ResultFile(path)
        done, (atoms,) = round(results["step"][-1]), images(results, [-1])
        print(f"{path.name}: goes on from step {done}")
    offsets = ados.minima_of_dos(calc.energies, calc.get_total_dos(crystal(1)), calc.get_fermi_level())
    calc.metadata["order_parameter_offsets_eV"] = [round(value, 2) for value in offsets]
    atoms.calc = calc
    dyn = NPTBerendsen(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=START,
        pressure_au=PRESSURE * units.GPa,
        taut=100 * units.fs,
        taup=200 * units.fs,
        compressibility_au=0.01 / units.GPa,
    )
    quantities = [pressure, density, *STORED]
    recorder = ElectronicRecorder(atoms, path, quantities, dyn=dyn, resume=not arguments.anew)
    dyn.attach(recorder, interval=max(1, arguments.steps // ROWS))
    now = START + (arguments.temperature - START) * done / arguments.steps
    heat(dyn, now, arguments.temperature, max(arguments.steps - done, 0))
    recorder.close()
    return recorder.results


def melting(results):
    """First and last row of the transition: Q has risen by 35 and 80 % of its change; heat alone raises it by 25 %."""
    order = results["order_parameter"].mean(axis=1)
    smooth = np.convolve(np.pad(order, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    risen = (smooth - smooth[0]) / (smooth[-1] - smooth[0])
    return int(np.argmax(risen > 0.35)), int(np.argmax(risen > 0.8))


def heating_figure(results, offsets):
    """Series over time; DOS and slices of the structure before, in and after the transition."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    layout = [["temperature", "dos", "dos"], ["pressure", "dos", "dos"], ["density", "first", "middle"]]
    panels = figure.subplot_mosaic(
        [[*row, "last"] if k == 2 else [*row, "dos"] for k, row in enumerate(layout)], height_ratios=(1, 1, 1.5)
    )
    time, (first, last) = results["time"] / 1000, melting(results)
    for name, label, color in (
        ("temperature", "temperature (K)", COLORS[2]),
        ("pressure", "pressure (GPa)", COLORS[0]),
        ("density", "density (g/cm$^3$)", COLORS[3]),
    ):
        plot_series(panels[name], time, results[name], label, color=color)
        panels[name].axvspan(time[first], time[last], color="0.9", zorder=0)
    panels["density"].set_xlabel("time (ps)")
    order, grid, n_atoms = results["order_parameter"], results["energy_grid"], results["n_atoms"][0]
    low, high = np.percentile(order, (2, 98))
    stages = {"first": max(first // 2, 0), "middle": (first + last) // 2, "last": len(time) - 1}
    for (name, row), color in zip(stages.items(), COLORS):
        around = slice(max(row - 1, 0), row + 2)
        dos, level = results["total_dos"][around].mean(axis=0) / n_atoms, results["fermi_level"][around].mean()
        plot_dos(panels["dos"], grid, dos, level, align=True, color=color, label=f"{time[row]:.1f} ps")
        (atoms,) = images(results, [row])
        drawn = draw_slice(panels[name], atoms, order[row], low, high)
        panels[name].set_title(f"{time[row]:.1f} ps", fontsize="medium")
    for offset in offsets:
        panels["dos"].axvline(offset, color="0.6", ls=":", lw=1)
    panels["dos"].set_ylabel("DOS (states/eV/atom)")
    panels["dos"].legend(frameon=False)
    figure.colorbar(drawn, ax=panels["last"], label="$Q$ (states/eV)")
    return figure


def draw_slice(ax, atoms, order, low, high):
    """Atoms at the bottom of the cell, colored by Q."""
    positions = atoms.get_positions(wrap=True)
    near = positions[:, 2] < SLICE
    size = 2e4 / len(atoms) ** (2 / 3) / 16
    drawn = ax.scatter(*positions[near, :2].T, c=order[near], s=size, vmin=low, vmax=high, cmap="viridis")
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(0, atoms.cell[0, 0]), ylim=(0, atoms.cell[1, 1]))
    return drawn


def snapshots(results, calc, output):
    """ADOS of snapshots around the transition: (structures, result file)."""
    first, last = melting(results)
    width = max(last - first, 4)
    wanted = np.linspace(max(first - width, 0), min(last + width, len(results["time"]) - 1), SNAPSHOTS)
    rows = sorted({round(each) for each in wanted})
    chosen = list(images(results, rows))
    found = evaluate(calc, chosen, ["ados", "order_parameter"], out=output / "13_ados.h5", resume=False)
    for atoms, order in zip(chosen, found["order_parameter"]):
        set_atom_scalars(atoms, Q=order)
    write(output / "13_snapshots.extxyz", chosen)
    return chosen, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="si")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along each side (%(default)s: 64 atoms)")
    parser.add_argument("--steps", type=int, default=2000, help="time steps of 2 fs (%(default)s)")
    parser.add_argument("--temperature", type=float, default=2600, help="at the end, K (%(default)s)")
    parser.add_argument("--anew", action="store_true", help="replace a former run")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    calc = DeepDOSCalculator(arguments.model)
    results = run(arguments.output / f"13_{8 * arguments.cells**3}_atoms.h5", calc, arguments)
    offsets = calc.metadata["order_parameter_offsets_eV"]
    first, last = melting(results)
    time, kelvin = results["time"] / 1000, results["temperature"]
    print(f"minima of the DOS at {', '.join(f'{value:.2f}' for value in offsets)} eV from the Fermi level")
    print(f"melts from {time[first]:.2f} ps ({kelvin[first]:.0f} K) to {time[last]:.2f} ps ({kelvin[last]:.0f} K)")
    heating_figure(results, offsets).savefig(arguments.output / "13_melting_under_pressure.png", dpi=150)
    chosen, found = snapshots(results, calc, arguments.output)
    parts = ados.components_of_run(found)
    scores, order = ados.scores_of_run(found, parts), found["order_parameter"]
    print(f"Q of {order.size} atoms: {order.min():.2f} to {order.max():.2f} states/eV")
    options = {"variance": parts.explained_variance}
    try:
        options |= {"types": [diamond_structure(atoms) for atoms in chosen], "names": DIAMOND_TYPES}
    except ValueError as error:
        print(error)
    components_figure(scores, order, **options).savefig(arguments.output / "13_components.png", dpi=150)


if __name__ == "__main__":
    main()
