"""What does a laser pulse do to silicon: melt it by heat, or by electrons that no longer hold the crystal together?

    python 12_silicon_laser_pulse.py                    # 64 atoms, 0.4 ps, about two minutes on one core
    python 12_silicon_laser_pulse.py --energies 0.5 3 --cells 3 --time 1000

Trains a density of states that reaches far above the Fermi level (silicon_wide.toml, seconds), which with the energy of
the model ``si`` makes a potential of hot electrons.  Pulses of 30 fs then heat the electrons; electrons heat the ions
with the constant G of their coupling.  Writes output/12_silicon_laser_pulse.png: temperatures, displacements, and the
density of states over time.  A run with cold electrons and the energy of the strongest pulse given to the ions instead
would need picoseconds: the crystal loses its order faster than heat can do, because its bonds are weaker.

Source: two temperatures as in ase_mlelec.analysis.two_temperature; bond softening: Stampfli and Bennemann, Phys. Rev. B
42, 7163 (1990).
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.analysis.two_temperature import TwoTemperature, gaussian_pulse
from ase_mlelec.train.config import read_config
from ase_mlelec.train.recipe import train
from ase_mlelec.units import WATT_PER_M3_K

HERE = Path(__file__).parent
COUPLING = 3e17  # W/(m^3 K); published values for excited silicon are 10^17 to 10^18
PULSE = {"center": 60.0, "duration": 30.0}  # fs
EVERY = 4  # fs between two rows


def model_of(output):
    """File of the wide density of states, trained where it is not there yet."""
    path = output / "silicon_wide.safetensors"
    if not path.exists():
        config = read_config(HERE / "silicon_wide.toml")
        config.output.model = str(path)
        train(config)
    return path


def run(model, cells, energy, time):
    """Rows of a run: time, both temperatures, mean square displacement, total energy less the pulse, DOS per atom."""
    atoms = bulk("Si", cubic=True, a=5.407) * (cells,) * 3
    atoms.calc = DeepDOSCalculator(model, potential="si", electronic_temperature=300, on_extrapolation="ignore")
    thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(1))
    dyn, start = VelocityVerlet(atoms, 1 * units.fs), atoms.get_positions()
    two = TwoTemperature(atoms, dyn, coupling=COUPLING * WATT_PER_M3_K, pulse=gaussian_pulse(energy, **PULSE))
    rows = []

    def observe():
        moved = ((atoms.get_positions() - start) ** 2).sum(axis=1).mean()
        balance = (two.total_energy - two.absorbed) / len(atoms)
        temperatures = two.electronic_temperature, two.ionic_temperature
        level = atoms.calc.get_fermi_level(2000.0)
        shifted = np.interp(SHOWN, atoms.calc.energies - level, atoms.calc.get_total_dos() / len(atoms))
        rows.append([dyn.get_time() / units.fs, *temperatures, moved, balance, *shifted])

    dyn.attach(two, interval=2)
    dyn.attach(observe, interval=EVERY)
    dyn.run(round(time))
    return np.array(rows)


SHOWN = np.linspace(-13, 8, 106)  # eV from the Fermi level


def draw(runs):
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplot_mosaic([["temperature", "moved"], ["first", "last"]])
    for color, (energy, rows) in zip(("tab:blue", "tab:orange", "tab:red"), runs.items()):
        label = f"{energy:g} eV/atom"
        axes["temperature"].plot(rows[:, 0], rows[:, 1], color=color, label=f"electrons, {label}")
        axes["temperature"].plot(rows[:, 0], rows[:, 2], color=color, ls="--", label=f"ions, {label}")
        axes["moved"].plot(rows[:, 0], rows[:, 3], color=color, label=label)
    axes["temperature"].set(xlabel="time (fs)", ylabel="temperature (K)", yscale="log")
    axes["moved"].set(xlabel="time (fs)", ylabel="mean square displacement (Å$^2$)")
    axes["temperature"].legend(fontsize="small")
    axes["moved"].legend(fontsize="small")
    for name, (energy, rows) in zip(("first", "last"), (list(runs.items())[0], list(runs.items())[-1])):
        image = axes[name].pcolormesh(rows[:, 0], SHOWN, rows[:, 5:].T, cmap="viridis", vmin=0, vmax=0.8, rasterized=True)
        axes[name].set(xlabel="time (fs)", ylabel="energy from the Fermi level (eV)", title=f"{energy:g} eV/atom")
    figure.colorbar(image, ax=[axes["first"], axes["last"]], label="DOS (states/eV/atom)")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--energies", type=float, nargs="+", default=[0.3, 2.0], help="of pulses, eV/atom (%(default)s)")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along each side (%(default)s: 64 atoms)")
    parser.add_argument("--time", type=float, default=400, help="fs (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    warnings.simplefilter("once")
    model, runs = model_of(arguments.output), {}
    for energy in arguments.energies:
        rows = runs[energy] = run(model, arguments.cells, energy, arguments.time)
        print(
            f"{energy:g} eV/atom: electrons up to {rows[:, 1].max():.0f} K, ions at the end {rows[-1, 2]:.0f} K, moved by "
            f"{np.sqrt(rows[-1, 3]):.2f} Å, energy balance within {np.ptp(rows[:, 4]) * 1000:.2g} meV/atom"
        )
    draw(runs).savefig(arguments.output / "12_silicon_laser_pulse.png", dpi=150)


if __name__ == "__main__":
    main()
