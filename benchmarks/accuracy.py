"""What the shipped silicon model gets right and wrong, in numbers and pictures.

    python benchmarks/accuracy.py           # writes ACCURACY.md and accuracy_dos.png beside this file

Structures of group "test" and the larger cells ("size") of examples/data/silicon.h5 were never used in training.
"""

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from hashes import models_line

from ase_mlelec import DeepDOSCalculator, DeepPotCalculator, load_model
from ase_mlelec.data.frames import read_frames
from ase_mlelec.physics import eos
from ase_mlelec.train.evaluate import errors

matplotlib.use("Agg")
HERE = Path(__file__).parent
DATA = HERE.parent / "examples" / "data" / "silicon.h5"
DFT_LATTICE, DFT_BULK = 5.405, 93.9  # Å, GPa: Si.pz-vbc, 24 Ry, 6^3 shifted mesh, Birch-Murnaghan of 9 volumes


def table_of_errors(model, frames):
    groups = {"test, all": frames.select("test")}
    for phase in ("static", "solid", "liquid"):
        groups[f"test, {phase}"] = groups["test, all"].where(lambda f, phase=phase: f.name.startswith(phase))
    for frame in frames.select("size"):
        groups[frame.name] = frames.where(lambda f, frame=frame: f is frame)
    results = {name: (len(group), errors(model, group)) for name, group in groups.items() if len(group)}
    columns = list(next(iter(results.values()))[1])
    lines = ["| structures | n | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, (count, row) in results.items():
        lines.append(f"| {name} | {count} | " + " | ".join(f"{row[c]:.4g}" for c in columns) + " |")
    return lines


def equation_of_state(calculator):
    volumes, energies = [], []
    for a in np.linspace(5.27, 5.54, 9):
        atoms = bulk("Si", a=a)
        atoms.calc = calculator
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    fit = eos.fit(volumes, energies)
    lattice, modulus = (4 * fit.v0) ** (1 / 3), fit.bulk_modulus / units.GPa
    return [
        f"Lattice constant {lattice:.4f} Å (DFT {DFT_LATTICE}, {100 * (lattice / DFT_LATTICE - 1):+.2f} %), "
        f"bulk modulus {modulus:.1f} GPa (DFT {DFT_BULK}, {100 * (modulus / DFT_BULK - 1):+.1f} %)."
    ]


def nve_drift(calculator, picoseconds):
    """Total energy of 216 atoms from 600 K, 1 fs steps: slope of a straight line through it, times the time."""
    atoms = bulk("Si", cubic=True, a=5.40) * (3, 3, 3)
    thermalize_momenta(atoms, temperature_K=1200, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = calculator
    run, energies, start = VelocityVerlet(atoms, 1.0 * units.fs), [], time.time()
    run.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
    run.run(int(picoseconds * 1000))
    energies = 1000 * np.array(energies) / len(atoms)
    drift = np.polyfit(np.linspace(0, picoseconds, len(energies)), energies, 1)[0] * picoseconds
    return [
        f"NVE, 216 atoms, 1 fs, {picoseconds:g} ps: drift {drift:+.4f} meV/atom, standard deviation "
        f"{energies.std():.4f} meV/atom, {1000 * (time.time() - start) / (picoseconds * 1000):.1f} ms per step."
    ]


def plot_dos(calculator, frames, path):
    import matplotlib.pyplot as plt

    cells = frames.select("size").frames
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4.5 * len(cells), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    lines = []
    for axis, frame in zip(axes[0], cells):
        predicted = calculator.get_total_dos(frame.atoms) / len(frame.atoms)
        true = frame.labels["ados"].sum(axis=0) / len(frame.atoms)
        level = calculator.get_fermi_level(atoms=frame.atoms)
        axis.plot(frames.energies, true, color="black", label="DFT")
        axis.plot(frames.energies, predicted, color="tab:red", linestyle="--", label="model si")
        axis.plot(frames.energies, predicted - true, color="tab:blue", linewidth=0.8, label="difference")
        axis.axvline(level, color="gray", linewidth=0.8, linestyle=":")
        axis.set(xlabel="energy (eV)", title=f"{frame.name.split('-')[0]}, {len(frame.atoms)} atoms")
        occupied = frames.energies < level
        rms = np.sqrt(np.mean((predicted - true)[occupied] ** 2))
        lines.append(
            f"{frame.name}: rms error of the DOS below the Fermi level {rms:.4f} states/eV/atom, whole grid "
            f"{np.sqrt(np.mean((predicted - true) ** 2)):.4f}; mean DOS below it {true[occupied].mean():.3f}; "
            f"Fermi level {level:.3f} eV."
        )
    axes[0, 0].set_ylabel("DOS (states/eV/atom)")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="si")
    parser.add_argument("--nve", type=float, default=10.0, help="length of the NVE run, ps")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    frames, model = read_frames(DATA), load_model(arguments.model)
    calculator = DeepDOSCalculator(model)
    lines = [
        "# Accuracy of the model `si`",
        "",
        "Regenerated by `python benchmarks/accuracy.py`.",
        "",
        models_line("si"),
        "",
        *table_of_errors(model, frames),
        "",
        "## Total DOS of the larger cells (DFT: sum of the projections)",
        "",
        *(f"- {line}" for line in plot_dos(calculator, frames, HERE / "accuracy_dos.png")),
        "",
        "![DOS of the larger cells](accuracy_dos.png)",
        "",
        "## Mechanics",
        "",
        *(f"- {line}" for line in equation_of_state(DeepPotCalculator(model))),
        *(f"- {line}" for line in nve_drift(DeepPotCalculator(model), arguments.nve)),
    ]
    (HERE / "ACCURACY.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
