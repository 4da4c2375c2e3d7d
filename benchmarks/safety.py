"""How the shipped models behave outside of their training data: writes SAFETY.md.

    python benchmarks/safety.py

Pairs of atoms down to 0.1 Å, crystals up to eight times their density beside DFT, hot and dense molecular dynamics,
conservation of energy through the core, and which structures are reported as unlike the training data.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, diamond100, molecule
from ase.calculators.calculator import CalculationFailed
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_mlelec import DeepPotCalculator, MLDFTCalculator, load_model
from ase_mlelec.calculators.parameters import fingerprint
from ase_mlelec.data.frames import read_frames

FOLDER = Path(__file__).parent
DATA = FOLDER.parent / "examples" / "data"
PAIRS = {"si": ["Si2"], "ice": ["O2", "H2", "OH"], "mos2": ["MoS", "Mo2", "S2"], "al": ["Al2"]}


def calculator(name):
    return (MLDFTCalculator if name == "al" else DeepPotCalculator)(name, on_extrapolation="ignore")


def pairs():
    """Energies of two atoms alone (Al: neighbors in a crystal of four) against their distance."""
    yield "| model | pair | from (Å) | to (Å) | energy rises in each step | energy at the end (eV, above the start) |"
    yield "|---|---|---|---|---|---|"
    for name, symbols in PAIRS.items():
        calc = calculator(name)
        for pair in symbols:
            # O and H are bound at 1 Å; the LDOS of two atoms alone is beyond any model of a metal
            start, make = (0.9, alone) if pair == "OH" else (2.1, in_crystal) if name == "al" else (1.9, alone)
            grid = np.arange(start, 0.09, -0.1 if name == "al" else -0.02)
            values = [calc.get_property("energy", make(pair, r)) for r in grid]
            rises = (np.diff(values) > 0).all()
            yield (
                f"| {name} | {pair} | {grid[0]:.2f} | {grid[-1]:.2f} | {'yes' if rises else 'no'} | "
                f"{values[-1] - values[0]:.0f} |"
            )


def alone(pair, distance):
    return Atoms(pair, [[0, 0, 0], [distance, 0, 0]])


def in_crystal(_, distance):
    atoms = bulk("Al", cubic=True)
    vec = atoms.get_distance(0, 1, mic=True, vector=True)
    atoms.positions[1] = atoms.positions[0] + vec * distance / np.linalg.norm(vec)
    return atoms


def compressed(atoms, density):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * density ** (-1 / 3), scale_atoms=True)
    return atoms


def compression():
    """Crystals compressed in steps of 2 % (Al: 5 %), to eight times their density, or to where they are refused."""
    cells = {
        "si": bulk("Si", cubic=True, a=5.405),
        "ice": frames("ice.h5", "train")[3].atoms,
        "mos2": frames("mos2_converged_forces.h5", "train")[0].atoms,
        "al": bulk("Al", cubic=True),
    }
    yield "| model | structure | energy rises in each step up to | smallest step (eV/atom) | then |"
    yield "|---|---|---|---|---|"
    for name, atoms in cells.items():
        calc, densities = calculator(name), np.exp(np.linspace(0, np.log(8.0), 42 if name == "al" else 105)[1:])
        values, then = [], "-"
        for density in densities:
            try:
                values.append(calc.get_property("energy", compressed(atoms, density)) / len(atoms))
            except CalculationFailed as error:
                then = f"refused: {str(error).partition('; ')[0]}"
                break
        steps = np.diff(values)
        end = densities[len(values) - 1] if (steps > 0).all() else densities[np.argmax(steps <= 0)]
        yield f"| {name} | {atoms.symbols} | {end:.2f} times the density | {steps.min():.4f} | {then} |"


def beside_dft():
    """Compressed silicon that took no part in the training, against Quantum ESPRESSO."""
    calc = calculator("si")
    rest = read_frames(DATA / "silicon.h5")
    zero = min(frame.labels["energy"] / len(frame.atoms) for frame in rest if "energy" in frame.labels)
    yield "| structure | Å^3 per atom | DFT (eV/atom above diamond) | model |"
    yield "|---|---|---|---|"
    for frame in sorted((f for f in rest if f.group == "dense"), key=lambda f: (f.name.split("-")[0], f.name)):
        found = calc.get_property("energy", frame.atoms.copy()) / len(frame.atoms)
        yield (
            f"| {frame.name} | {frame.atoms.get_volume() / len(frame.atoms):.1f} | "
            f"{frame.labels['energy'] / len(frame.atoms) - zero:.2f} | {found - zero:.2f} |"
        )


def frames(name, group):
    return [frame for frame in read_frames(DATA / name) if frame.group == group]


def hot_and_dense(steps):
    """Molecular dynamics far beyond the training data."""
    rng = np.random.default_rng(0)
    atoms = compressed(bulk("Si", cubic=True, a=5.405) * 2, 3.0)
    atoms.calc = calculator("si")
    thermalize_momenta(atoms, temperature_K=10000, rng=rng)
    run, closest = Langevin(atoms, 0.5 * units.fs, temperature_K=10000, friction=0.02 / units.fs, rng=rng), []
    for _ in run.irun(steps):
        distances = atoms.get_all_distances(mic=True)
        closest.append(distances[np.triu_indices(len(atoms), 1)].min())
    yield (
        f"Silicon, 64 atoms, three times the density, 10,000 K, {steps} steps of 0.5 fs: closest pair "
        f"{min(closest):.2f} Å, temperature at the end {atoms.get_temperature():.0f} K; the run went to its end."
    )
    atoms = compressed(bulk("Si", cubic=True, a=5.405) * 2, 3.0)
    atoms.calc = calculator("si")
    thermalize_momenta(atoms, temperature_K=10000, rng=rng)
    Stationary(atoms)
    run, energies = VelocityVerlet(atoms, 0.1 * units.fs), []
    for _ in run.irun(steps):
        energies.append(atoms.get_total_energy() / len(atoms))
    drift = 1000 * np.polyfit(np.arange(len(energies)) * 1e-4, energies, 1)[0]
    yield (
        f"The same without a thermostat, 0.1 fs: total energy within {1000 * np.ptp(energies):.2f} meV/atom, drift "
        f"{drift:.2f} meV/atom/ps."
    )


def reported():
    """What ``on_extrapolation="warn"`` says, kind by kind."""
    silicon = bulk("Si", cubic=True, a=5.405)
    vacancy = silicon * 2
    del vacancy[0]
    ice = frames("ice.h5", "train")[3].atoms
    others = {
        "si": {
            "diamond": silicon,
            "1.1 times the density": compressed(silicon, 1.1),
            "twice the density": compressed(silicon, 2.0),
            "fcc": bulk("Si", "fcc", a=3.9),
            "bcc": bulk("Si", "bcc", a=3.1),
            "slab (100)": diamond100("Si", (2, 2, 6), vacuum=8),
            "Si2": Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]]),
            "vacancy": vacancy,
        },
        "ice": {"H2O": Atoms(molecule("H2O")), "twice the density": compressed(ice, 2.0)},
        "al": {
            "fcc": bulk("Al", cubic=True),
            "twice the density": compressed(bulk("Al", cubic=True), 2.0),
            "bcc": bulk("Al", "bcc", a=3.2, cubic=True),
        },
        "mos2": {
            "twice the density": compressed(frames("mos2_converged_forces.h5", "train")[0].atoms, 2.0),
            "Mo, bcc": bulk("Mo"),
        },
    }
    sets = {"si": "silicon.h5", "ice": "ice.h5", "mos2": "mos2_converged_forces.h5"}
    yield "| model | structure | largest measure of an atom | reported |"
    yield "|---|---|---|---|"
    for name, images in others.items():
        for title, atoms in images.items():
            measure, kinds = looked_at(name, atoms)
            yield f"| {name} | {title} | {measure:.2f} | {', '.join(kinds) or '-'} |"
        if name in sets:
            tests = [looked_at(name, frame.atoms) for frame in frames(sets[name], "test")]
            told = [", ".join(kinds) for _, kinds in tests if kinds]
            yield (
                f"| {name} | {len(tests)} test structures | {max(measure for measure, _ in tests):.2f} | "
                f"{len(told)} of them{': ' + '; '.join(told) if told else ''} |"
            )


def looked_at(name, atoms):
    """(largest measure, kinds that are warned of) of one structure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calc = (MLDFTCalculator if name == "al" else DeepPotCalculator)(name)
        measure = calc.get_extrapolation(atoms=atoms.copy()).max()
    return measure, sorted(calc.extrapolations)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of molecular dynamics")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = {
        "Two atoms": pairs,
        "Compression": compression,
        "Compressed silicon beside DFT": beside_dft,
        "Hot and dense": partial(hot_and_dense, arguments.steps),
        "Reported as unlike the training data": reported,
    }
    hashes = ", ".join(f"`{name}` {fingerprint(load_model(name))[:12]}" for name in PAIRS)
    lines = [
        "# Outside of the training data",
        "",
        "Regenerated by `python benchmarks/safety.py`.",
        "",
        f"Models: {hashes}.",
    ]
    for title, part in parts.items():
        lines += ["", f"## {title}", "", (getattr(part, "func", part).__doc__).strip().partition("\n")[0], "", *part()]
        print(title, flush=True)
    (FOLDER / "SAFETY.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
