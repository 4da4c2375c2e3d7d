"""What does a laser pulse do to silicon, whose electrons it heats and whose ions they heat in turn?

    python 12_silicon_laser_pulse.py                    # 64 atoms, 0.8 ps of two pulses, two minutes on one core
    python 12_silicon_laser_pulse.py --energies 0.6 --cells 3 --time 2000

Pulses of 50 fs heat the electrons of a crystal at 300 K.  Forces are those of the hot electrons, which weaken the bonds;
the ions get heat at a rate G (T_e - T_i).  The weak pulse leaves a crystal; after the strong one it loses its order.
Writes output/12_silicon_laser_pulse.png: temperatures, order parameter, and density of states over time.

The states of the model ``si`` end 3 eV above the Fermi level, enough for some 8,000 K: the peak of the strong pulse is
beyond, and the calculator says so.  The energy is conserved to 1 to 2 meV per atom.  Cold electrons of ``si_hot`` have
almost no heat capacity in the crystal, so that this coupling would need much shorter steps at 300 K.

Source: two temperatures as in ase_mlelec.analysis.two_temperature; bond softening: Stampfli and Bennemann, Phys. Rev. B
42, 7163 (1990).
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.analysis.two_temperature import TwoTemperature, gaussian_pulse
from ase_mlelec.units import WATT_PER_M3_K

COUPLING = 1e18  # W/(m^3 K); of metals and excited semiconductors 10^16 to 10^18
PULSE = {"center": 100.0, "duration": 50.0}  # fs
TIMESTEP, BETWEEN, EVERY = 2.0, 2, 4  # fs; steps between two exchanges of heat, and between two rows
SHOWN = np.linspace(-13, 4, 86)  # eV from the Fermi level


def run(model, cells, energy, time):
    """Rows of a run: time, both temperatures, mean square displacement, order, energy less the pulse, DOS per atom."""
    atoms = bulk("Si", cubic=True, a=5.407) * ((cells,) * 3)
    atoms.calc = calc = DeepDOSCalculator(model, electronic_temperature=300)
    thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(1))
    Stationary(atoms)
    dyn, start = VelocityVerlet(atoms, TIMESTEP * units.fs), atoms.get_positions()
    two = TwoTemperature(atoms, dyn, coupling=COUPLING * WATT_PER_M3_K, pulse=gaussian_pulse(energy, **PULSE))
    rows = []

    def observe():
        moved = ((atoms.get_positions() - start) ** 2).sum(axis=1).mean()
        balance = (two.total_energy - two.absorbed) / len(atoms)
        grid = calc.energies - calc.get_fermi_level(calc.reference_temperature)
        dos = np.interp(SHOWN, grid, calc.get_total_dos() / len(atoms))
        temperatures = two.electronic_temperature, two.ionic_temperature
        order = calc.get_order_parameter().mean()
        rows.append([dyn.get_time() / units.fs, *temperatures, moved, order, balance, *dos])

    dyn.attach(two, interval=BETWEEN)
    dyn.attach(observe, interval=EVERY)
    dyn.run(round(time / TIMESTEP))
    return np.array(rows)


def draw(runs):
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplot_mosaic([["temperature", "order"], ["first", "last"]])
    for color, (energy, rows) in zip(("tab:blue", "tab:red", "tab:orange"), runs.items()):
        label = f"{energy:g} eV/atom"
        axes["temperature"].plot(rows[:, 0], rows[:, 1], color=color, label=f"electrons, {label}")
        axes["temperature"].plot(rows[:, 0], rows[:, 2], color=color, ls="--", label=f"ions, {label}")
        axes["order"].plot(rows[:, 0], rows[:, 4], color=color, label=label)
    axes["temperature"].set(xlabel="time (fs)", ylabel="temperature (K)", yscale="log")
    axes["order"].set(xlabel="time (fs)", ylabel="order parameter $Q$ (states/eV)")
    axes["temperature"].legend(fontsize="small")
    axes["order"].legend(fontsize="small")
    for name, energy in ("first", min(runs)), ("last", max(runs)):
        rows = runs[energy]
        image = axes[name].pcolormesh(rows[:, 0], SHOWN, rows[:, 6:].T, vmin=0, vmax=0.8, rasterized=True)
        axes[name].set(xlabel="time (fs)", ylabel="energy from the Fermi level (eV)", title=f"{energy:g} eV/atom")
    figure.colorbar(image, ax=[axes["first"], axes["last"]], label="DOS (states/eV/atom)")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="si")
    parser.add_argument(
        "--energies", type=float, nargs="+", default=[0.15, 0.7], help="of pulses, eV/atom (%(default)s)"
    )
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along each side (%(default)s: 64 atoms)")
    parser.add_argument("--time", type=float, default=800, help="fs (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    runs = {}
    for energy in arguments.energies:
        rows = runs[energy] = run(arguments.model, arguments.cells, energy, arguments.time)
        print(
            f"{energy:g} eV/atom: electrons up to {rows[:, 1].max():.0f} K, ions at the end {rows[-1, 2]:.0f} K, moved by "
            f"{np.sqrt(rows[-1, 3]):.2f} Å, energy balance within {np.ptp(rows[:, 5]) * 1000:.2g} meV/atom"
        )
    draw(runs).savefig(arguments.output / "12_silicon_laser_pulse.png", dpi=150)


if __name__ == "__main__":
    main()
