"""Single against double precision: differences of energies and forces of the shipped models.

python benchmarks/precision.py          # writes PRECISION.md; a minute
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from ase.build import bulk, mx2
from dipole_speed import ice
from hashes import models_line

from ase_mlelec import DeepPotCalculator, compiled

HERE = Path(__file__).resolve().parent
SEEDS, FEWER = 12, 4  # structures; fewer without compiled loops


def silicon(n):
    return bulk("Si", cubic=True) * n


def bilayer(n):
    layer = mx2("MoS2", a=3.18, thickness=3.13, vacuum=None)
    above = layer.copy()
    above.positions[:, 2] += 6.3
    atoms = layer + above
    atoms.cell[2], atoms.pbc = [0, 0, 25], True
    return atoms * (n, n, 1)


CASES = [("si", silicon, 1), ("si", silicon, 2), ("si", silicon, 4), ("ice", ice, 2), ("mos2", bilayer, 2)]


def compared(name, atoms, seeds):
    """(mean and noise of the energy's difference, eV/atom; largest and rms difference of forces, eV/Å; ratio of times)."""
    calcs = [
        DeepPotCalculator(name, dtype=kind, device="cpu", on_extrapolation="ignore") for kind in ("float32", "float64")
    ]
    energies, forces, times = [], [], []
    for seed in range(seeds):
        moved = atoms.copy()
        moved.rattle(0.05, seed=seed)
        found = []
        for calc in calcs:
            start = time.process_time()
            found.append((calc.get_property("energy", moved), calc.get_property("forces", moved)))
            times.append(time.process_time() - start)
        energies.append((found[0][0] - found[1][0]) / len(atoms))
        forces.append(found[0][1] - found[1][1])
    ratio = np.median(times[1::2]) / np.median(times[::2])
    return np.mean(energies), np.std(energies), np.abs(forces).max(), np.sqrt(np.mean(np.square(forces))), ratio


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not compiled.is_wanted():
        raise SystemExit(f"compiled loops are missing: install ase-mlelec[fast] and unset {compiled.SWITCH}")
    lines = [
        "# Single against double precision",
        "",
        f'Written by `python benchmarks/precision.py`: `dtype="float32"` against float64, {SEEDS} structures with random '
        "displacements of 0.05 Å. Noise is the standard deviation of the difference of energies. Speed is the "
        "processor time in float64 over that in float32. Compiled loops are in float64; the last columns are without them.",
        "",
        models_line("si", "ice", "mos2"),
        "",
        "| model | atoms | energy, mean, eV/atom | noise, eV/atom | forces, largest, eV/Å | rms | speed "
        "| without loops: forces | rms | speed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, make, n in CASES:
        atoms = make(n)
        os.environ[compiled.SWITCH] = "1"
        mean, noise, largest, rms, ratio = compared(name, atoms, SEEDS)
        os.environ[compiled.SWITCH] = "0"
        _, _, *of_plain, plain = compared(name, atoms, FEWER)
        row = [f"`{name}`", len(atoms), *(f"{each:.1e}" for each in (mean, noise, largest, rms)), f"{ratio:.2f}"]
        row += [*(f"{each:.1e}" for each in of_plain), f"{plain:.2f}"]
        lines.append(f"| {' | '.join(map(str, row))} |")
        print(lines[-1], flush=True)
    (HERE / "PRECISION.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
