"""What does it take to heat the electrons of aluminium while the nuclei stay: free energy, entropy, heat capacity?

    python 05_aluminium_electrons.py        # less than a minute; writes output/05_aluminium_electrons.png

The local density of states of an unseen snapshot is predicted once and integrated at electronic temperatures from 300
to 20,000 K; so is that of DFT.  Beside them Sommerfeld's law, S = C = γT with γ = π²k²D(E_F)/3, which holds while D is
constant within some kT.  The energies end at 11 eV: where states there are occupied by more than 1 % (shaded), what
lies above is missing.

Source: after Ellis et al. 2021, Eqs. (9) and (17).
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from matplotlib.figure import Figure

from ase_mlelec import MLDFTCalculator
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.physics import dos as density_of_states
from ase_mlelec.physics import fermi, total_energy

HERE = Path(__file__).parent
LABELS = ("$A - A$(300 K) (eV/atom)", "entropy ($k$/atom)", "heat capacity ($k$/atom)")


def integrate(calc, temperatures):
    """A and -TS at each temperature, eV; the LDOS is kept."""
    rows = [calc.get_terms() for calc.electronic_temperature in temperatures]
    return np.array([[row["total"], row["entropy"]] for row in rows]).T


def integrate_dft(snapshot, energies, temperatures):
    """The same from the LDOS of DFT."""
    ldos, atoms = snapshot.ldos.reshape(*snapshot.shape, -1).astype(float), snapshot.atoms
    terms = [
        total_energy.from_ldos(ldos, energies, atoms.cell.array, atoms.positions, np.full(len(atoms), 3.0), kelvin)
        for kelvin in temperatures
    ]
    return np.array([[row["total"], row["entropy"]] for row in terms]).T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="al")
    parser.add_argument("--data", type=Path, default=HERE / "data" / "aluminium.h5")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    snapshots = Snapshots(arguments.data)
    snapshot = next(s for s in snapshots.select("test") if s.points is None and s.name.startswith("solid"))
    temperatures, energies, n_atoms = np.linspace(300, 20000, 60), snapshots.energies, len(snapshot.atoms)
    calc = MLDFTCalculator(arguments.model)
    predicted = calc.get_total_dos(snapshot.atoms)
    curves = {
        "DFT": (snapshot.dos, integrate_dft(snapshot, energies, temperatures), {"color": "black", "lw": 1.8}),
        "ML-DFT": (predicted, integrate(calc, temperatures), {"color": COLORS[2], "ls": (0, (4, 2))}),
    }
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for name, (dos, (total, minus_ts), line) in curves.items():
        level = fermi.fermi_level(energies, dos, 3.0 * n_atoms, temperatures)
        capacity = density_of_states.heat_capacity(energies, dos, 3.0 * n_atoms, temperatures)
        gamma = np.pi**2 / 3 * units.kB**2 * np.interp(level[0], energies, dos) / n_atoms
        entropy = -minus_ts / temperatures / n_atoms
        for ax, values in zip(axes, ((total - total[0]) / n_atoms, entropy / units.kB, capacity / n_atoms / units.kB)):
            ax.plot(temperatures, values, label=name, **line)
        ratio = np.interp([300, 5000], temperatures, entropy / (gamma * temperatures))
        print(
            f"{name}: γ = {gamma * units.mol / units.kJ * 1e6:.3f} mJ/(mol K²), S/γT at 300 and 5,000 K: "
            f"{ratio[0]:.3f} and {ratio[1]:.3f}"
        )
    last = fermi.occupation(energies[-1], level, temperatures)
    for ax, label in zip(axes, LABELS):
        ax.axvspan(temperatures[last > 0.01].min(), temperatures[-1], color="0.93", zorder=0)
        ax.set(xlabel="temperature of the electrons (K)", ylabel=label, xlim=(0, temperatures[-1]))
    for ax in axes[1:]:
        ax.plot(temperatures, gamma * temperatures / units.kB, color=COLORS[0], lw=1, label="Sommerfeld")
        ax.legend(frameon=False)
    figure.savefig(arguments.output / "05_aluminium_electrons.png", dpi=120)


if __name__ == "__main__":
    main()
