"""What ML-DFT takes: time by step, time per grid point, memory.

    python benchmarks/ml_dft_timings.py                 # time by step on one core; minutes
    python benchmarks/ml_dft_timings.py --memory        # peak memory on 128^3 points; about ten minutes
    python benchmarks/ml_dft_timings.py --device cuda   # 256 atoms on 200^3 points from end to end

Each adds its numbers to ml_dft.json and writes ML_DFT.md beside this file from all that are there.

Source: after Ellis et al. 2021, Table V.
"""

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from hashes import models_line

from ase_mlelec import MLDFTCalculator, load_model
from ase_mlelec.physics import ewald, fermi, hartree, xc
from ase_mlelec.system import System

HERE = Path(__file__).parent
CELLS = (2, 4, 8)  # fcc cells of four atoms along each side
SAMPLE = 250_000  # grid points on which what is done point by point is timed
FORCE_SAMPLE = 20_000
# in terms of the last hidden layer, in which the LDOS is linear: the LDOS itself is not needed
STEPS = [
    "fingerprints",
    "net",
    "sum over points to DOS",
    "Fermi level",
    "sum over energies to density",
    "band energy and entropy",
    "Hartree energy",
    "exchange-correlation",
    "ion-ion energy",
]


def aluminium(n, spacing):
    """(Atoms of n^3 cells, displaced at random, and the shape of the grid)"""
    atoms = bulk("Al", a=4.05, cubic=True) * (n, n, n)
    atoms.rattle(0.1, seed=0)
    return atoms, (round(4.05 * n / spacing),) * 3


class Clock:
    """Processor seconds by step: those of the others on a busy machine do not count."""

    def __init__(self):
        self.seconds = dict.fromkeys(STEPS, 0.0)

    def __call__(self, step, function, *arguments):
        start = time.process_time()
        result = function(*arguments)
        self.seconds[step] += time.process_time() - start
        return result


@torch.no_grad()
def time_steps(model, atoms, shape):
    """dict: seconds by step for the whole grid, and the points they were measured on."""
    # as the calculator: float64 but for what is kept
    clock, descriptor, head = Clock(), model.descriptor, copy.deepcopy(model.heads["ldos"]).double()
    system, kept, total = System.from_atoms(atoms), [], 0
    chunks, points = iter(descriptor.grid_chunks(system, shape)), 0
    while points < SAMPLE:
        chunk = clock("fingerprints", next, chunks, None)
        if chunk is None:
            break
        features = clock("fingerprints", descriptor.of_chunk, system, chunk)
        part = clock("net", head.coordinates, features)
        total = total + clock("sum over points to DOS", lambda part: part.sum(dim=0), part)
        kept.append(clock("net", part.to, model.dtype))  # the calculator copies it into one array
        points += len(features)
    matrix, offset = head.basis()
    dos = (total / points @ matrix + offset) * atoms.get_volume()
    n_electrons, kelvin = torch.tensor(3.0 * len(atoms)), torch.tensor(298.0)
    level = clock("Fermi level", fermi.fermi_level, head.energies, dos, n_electrons, kelvin)
    number, energy, entropy = clock("band energy and entropy", fermi.integration_weights, head.energies, level, kelvin)
    clock("band energy and entropy", lambda: (energy @ dos, entropy @ dos))
    weights, constant = matrix @ number, offset @ number
    density = torch.cat(
        [clock("sum over energies to density", lambda part: part.double() @ weights + constant, part) for part in kept]
    )
    del kept
    n_points = int(np.prod(shape))
    for step in ("fingerprints", "net", "sum over points to DOS", "sum over energies to density"):
        clock.seconds[step] *= n_points / points
    # the values do not matter from here on, the size does
    whole = torch.from_numpy(np.resize(density.numpy(), shape))
    cell, positions = torch.tensor(atoms.cell.array), torch.tensor(atoms.positions)
    clock("Hartree energy", hartree.energy, whole, cell)
    clock("exchange-correlation", lambda: xc.energies(whole.clamp(min=0), cell, xc="lda_pz"))
    clock("ion-ion energy", ewald.energy, positions, torch.full((len(atoms),), 3.0, dtype=torch.float64), cell)
    return {
        "atoms": len(atoms),
        "grid_points": n_points,
        "measured_on": points,
        "seconds": clock.seconds,
        "forces_seconds": time_forces(model, atoms, shape) * n_points,
    }


def time_forces(model, atoms, shape):
    """Seconds per grid point of the second pass, for forces and stress, with fingerprints evaluated again."""
    system = System.from_atoms(atoms)
    leaves, seconds, points = (system.positions.requires_grad_(True), system.cell.requires_grad_(True)), 0.0, 0
    with torch.enable_grad():
        for chunk in model.descriptor.grid_chunks(system, shape):
            start = time.process_time()
            part = model.heads["ldos"].coordinates(model.descriptor.of_chunk(system, chunk, model.dtype))
            torch.autograd.grad(part.sum(), leaves)
            seconds, points = seconds + time.process_time() - start, points + len(part)
            if points > FORCE_SAMPLE:
                return seconds / points
    return seconds / points


def evaluate(model, n, n_grid, device):
    """dict: seconds and peak memory (of this process, or of the GPU) of energy, then of forces and stress."""
    atoms, _ = aluminium(n, 1.0)
    model.metadata["grid_spacing_A"] = 4.05 * n / n_grid
    atoms.calc, found = MLDFTCalculator(model, device=device), {"atoms": len(atoms), "grid": n_grid}
    for name, function in ("energy", atoms.get_potential_energy), ("forces", atoms.get_forces):
        start = time.perf_counter()
        function()
        found[f"{name}_seconds"] = time.perf_counter() - start
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if device == "cpu"
            else torch.cuda.max_memory_allocated()
        )
        found[f"{name}_peak_GB"] = peak / 1e9
    if device != "cpu":
        found["name"] = torch.cuda.get_device_name()
    return found


def in_child(arguments):
    """``evaluate`` in a process of its own, whose peak memory is then its own too."""
    command = [sys.executable, __file__, "--model", arguments.model, "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def report(results):
    lines = [
        "# ML-DFT: time and memory",
        "",
        "Written by `benchmarks/ml_dft_timings.py`. Ellis et al. report, for 256 "
        "atoms and 8 million points on another machine: fingerprints 2,910 s, net 19 to 54 s (GPU), DOS 1.5 s, "
        "Fermi level 2.3 s, density 1,280 s, energies 88 s.",
        "",
        models_line("al"),
        "",
    ]
    if "steps" in results:
        lines += table_of_steps(**results["steps"])
    for name, title in ("memory", "One core"), ("device", "GPU"):
        if name in results:
            row = results[name]
            lines += [
                f"## From end to end: {row.get('name', title)}, {row['atoms']} atoms, {row['grid']}^3 points",
                "",
                "| | seconds | peak memory, GB |",
                "|---|---|---|",
                *(
                    f"| {what} | {row[f'{key}_seconds']:.1f} | {row[f'{key}_peak_GB']:.2f} |"
                    for what, key in (("total free energy", "energy"), ("then forces and stress", "forces"))
                ),
                "",
            ]
    return "\n".join(lines)


def table_of_steps(rows, load):
    yield "## Time by step, one core"
    yield ""
    yield (
        f"Processor seconds for the whole grid, float64 but for the second pass, load {load:.1f} at the start. What "
        f"is done point by point is measured on at most {SAMPLE:,} points, forces on {FORCE_SAMPLE:,}, and scaled."
    )
    yield ""
    yield "| step | " + " | ".join(f"{row['atoms']} atoms, {row['grid_points']:,} points" for row in rows) + " |"
    yield "|---" * (1 + len(rows)) + "|"
    for step in STEPS:
        yield f"| {step} | " + " | ".join(f"{row['seconds'][step]:.3g}" for row in rows) + " |"
    after = [100 * sum(list(row["seconds"].values())[1:]) / row["seconds"]["fingerprints"] for row in rows]
    yield "| all after the fingerprints, % of them | " + " | ".join(f"{x:.1f}" for x in after) + " |"
    per_point = [1e6 * row["seconds"]["fingerprints"] / row["grid_points"] for row in rows]
    yield "| fingerprints, µs per point | " + " | ".join(f"{x:.1f}" for x in per_point) + " |"
    yield "| forces and stress (second pass) | " + " | ".join(f"{row['forces_seconds']:.3g}" for row in rows) + " |"
    yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="al")
    parser.add_argument("--memory", action="store_true", help="only the peak memory")
    parser.add_argument("--device", help="only from end to end on this device, e.g. cuda")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model)
    if arguments.child:
        print(json.dumps(evaluate(model, 4, 128, "cpu")))
        return
    path = arguments.output / "ml_dft.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if arguments.memory:
        results["memory"] = in_child(arguments)
    elif arguments.device:
        evaluate(model, 1, 20, arguments.device)  # the first use of a device loads its libraries
        results["device"] = evaluate(model, 4, 200, arguments.device)
    else:
        load, rows, spacing = os.getloadavg()[0], [], model.metadata["grid_spacing_A"]
        # what is done piece by piece loads modules of torch when it is first used, and compiles loops
        xc.energies(torch.full((64, 64, 64), 0.1, dtype=torch.float64), torch.eye(3, dtype=torch.float64), xc="lda_pz")
        time_steps(model.for_evaluation(), *aluminium(1, spacing))
        for n in CELLS:
            rows.append(time_steps(model.for_evaluation(), *aluminium(n, spacing)))
            print(json.dumps(rows[-1]), flush=True)
        results["steps"] = {"rows": rows, "load": load}
    path.write_text(json.dumps(results, indent=1) + "\n")
    (arguments.output / "ML_DFT.md").write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
