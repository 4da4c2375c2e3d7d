"""Cost and memory of large systems: energies and DOS to 100,000 atoms, ML-DFT of 131,072 atoms, 100,000 functions.

    python benchmarks/scale.py                       # all, about half an hour on one core
    python benchmarks/scale.py --only ldos terms     # some parts; the others stay as in scale.json

Each measurement runs in a process of its own, whose peak memory is stated.  Writes scale.json, SCALE.md and scale.png.
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
from ase.build import bulk, graphene
from hashes import models_line

from ase_mlelec import DeepDOSCalculator, MLDFTCalculator, WannierTBCalculator, evaluate, load_model, processes
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.calculators import ldos_prediction
from ase_mlelec.calculators.ldos_points import spectra_near
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.descriptors.bispectrum import grid as bricks
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.physics import ewald, hartree, xc
from ase_mlelec.structures.twist import commensurate, twisted_bilayer
from ase_mlelec.train.fit import fit
from ase_mlelec.train.losses import EnergyLoss

HERE = Path(__file__).parent
SIDE = 32  # fcc cells of four atoms along each side: 131,072 atoms
SLICE = 50_000  # grid points of the slice
SILICON = (5, 10, 23)  # cells of eight atoms along each side
MOS2 = (((15, 0), (14, 1)), ((21, 0), (20, 1)))
GRAPHENE = ((7, 1), (16, 1))  # 676 and 3,268 atoms
MOMENTS, VECTORS = 256, 4


class Clock(dict):
    """Processor seconds by name."""

    def __call__(self, name, function, *arguments, **options):
        start = time.process_time()
        result = function(*arguments, **options)
        self[name] = self.get(name, 0.0) + time.process_time() - start
        return result


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def aluminium(side):
    atoms = bulk("Al", a=4.05, cubic=True) * (side, side, side)
    atoms.rattle(0.1, seed=0)
    return atoms


def energy(side):
    """Energy, forces and density of states of silicon, after a small cell that loads what is needed."""
    clock = Clock()
    for n in (2, int(side)):
        atoms, calc = bulk("Si", cubic=True) * (n, n, n), DeepDOSCalculator("si", device="cpu")
        atoms.rattle(0.05, seed=0)
        clock.clear()
        clock("energy and forces", calc.get_property, "forces", atoms)
        clock("density of states", calc.get_total_dos, atoms)
        clock("Fermi level", calc.get_fermi_level, atoms=atoms)
    return {"atoms": len(atoms), "seconds": clock, "GB": peak()}


@torch.no_grad()
def ldos(side):
    """What is done point by point, on a slice of the grid of the whole cell; what is done once, whole."""
    model, clock, atoms = load_model("al"), Clock(), aluminium(int(side))
    shape = (round(4.05 * int(side) / model.metadata["grid_spacing_A"]),) * 3
    calc = MLDFTCalculator(model, device="cpu", on_extrapolation="ignore")
    clock("neighbors of atoms", calc._present, atoms)
    system = clock("neighbors of atoms", calc._structure)
    descriptor = calc.models[0].descriptor
    head = copy.deepcopy(calc.models[0].heads["ldos"]).double()
    spectra = spectra_near(head.energies, torch.tensor(7.8, dtype=torch.float64), torch.tensor(298.0))
    matrix, offset = head.basis()
    chunks, points = descriptor.grid_chunks(system, shape), 0
    while points < SLICE:
        # the first chunk of many comes after their search of neighbors
        name = "search of neighbors" if points == 0 else "chunks"
        chunk = clock(name, next, chunks)
        features = clock("fingerprints", descriptor.of_chunk, system, chunk)
        part = clock("net", head.coordinates, features)
        clock("projections", torch.addmm, offset @ spectra, part, matrix @ spectra)
        points += len(clock("projections", part.sum, dim=1))
    share = bricks.BRICKS_AT_ONCE * bricks.BRICK_EDGE**3 / atoms.get_volume()
    return {
        "atoms": len(atoms),
        "points": int(np.prod(shape)),
        "slice": points,
        "searched": float(min(share, 1.0) * np.prod(shape)),
        "projections": spectra.shape[1],
        "seconds": clock,
        "GB": peak(),
    }


@torch.no_grad()
def terms(side):
    """Hartree energy of a density of the right size; exchange and correlation of a part of its points."""
    n, clock = round(4.05 * int(side) / load_model("al").metadata["grid_spacing_A"]), Clock()
    x = torch.cos(torch.arange(n, dtype=torch.float64) * (2 * np.pi * int(side) / n))
    cell, density = (
        torch.eye(3, dtype=torch.float64) * 4.05 * int(side),
        0.18 + 0.03 * x[:, None, None] * x[:, None] * x,
    )
    clock("Hartree energy", hartree.energy, density, cell)
    most = peak()
    clock("exchange-correlation", xc.energies, density[: n // 16], cell, xc="lda_pz")
    clock["exchange-correlation"] *= n / (n // 16)
    return {"points": n**3, "seconds": clock, "GB": most}


@torch.no_grad()
def ions(side):
    """The ion-ion energy."""
    atoms, clock = aluminium(int(side)), Clock()
    charges = torch.full((len(atoms),), 3.0, dtype=torch.float64)
    clock("ion-ion energy", ewald.energy, torch.tensor(atoms.positions), charges, torch.tensor(atoms.cell.array))
    return {"atoms": len(atoms), "seconds": clock, "GB": peak()}


def streamed(side, streams):
    """A whole energy on a small cell, with the LDOS kept or streamed."""
    ldos_prediction.MOST_COORDINATES = 0 if int(streams) else 2**62
    atoms, clock = aluminium(int(side)), Clock()
    calc, before = MLDFTCalculator("al", device="cpu", on_extrapolation="ignore"), peak()
    clock("total free energy", calc.get_terms, atoms)
    found = {name: value / len(atoms) for name, value in calc.get_terms().items() if name != "fermi_level"}
    level = calc.get_fermi_level()
    return {
        "atoms": len(atoms),
        "points": int(np.prod(calc.grid())),
        "energy": found["total"],
        "fermi_level": level,
        "seconds": clock,
        "GB before": before,
        "GB": peak(),
    }


def spacing(side, spacing):
    """As streamed, with the LDOS kept, on a coarser grid."""
    model = load_model("al")
    model.metadata["grid_spacing_A"] = float(spacing)
    atoms, calc = aluminium(int(side)), MLDFTCalculator(model, device="cpu", on_extrapolation="ignore")
    energy = calc.get_terms(atoms)["total"] / len(atoms)
    found = {"points": int(np.prod(calc.grid())), "energy": energy, "fermi_level": calc.get_fermi_level()}
    return found | {"spacing": float(spacing), "atoms": len(atoms)}


def hamiltonian(kind, *cell):
    """Sparse Hamiltonian of a twisted bilayer and its density of states from a few moments."""
    clock = Clock()
    if kind == "mos2":
        from tight_binding import twisted_mos2

        a, b, c, d = map(int, cell)
        atoms, twist = twisted_mos2((a, b), (c, d))
    else:
        m, r = map(int, cell)
        atoms, twist = twisted_bilayer(graphene(a=2.46), graphene(a=2.46), commensurate(m, r), 3.35)
    calc = WannierTBCalculator(kind, device="cpu", on_extrapolation="ignore")
    found = clock("Hamiltonian", calc.get_hamiltonian, atoms)
    matrix = clock("H(k)", found.bloch.sparse, (0, 0, 0))
    grid = np.linspace(-20, 10, 6001)
    clock("density of states", found.kernel_polynomial_dos, grid, n_moments=MOMENTS, n_vectors=VECTORS)
    return {
        "angle": twist.angle,
        "atoms": len(atoms),
        "functions": found.size,
        "elements per function": matrix.nnz / found.size,
        "seconds": clock,
        "GB": peak(),
    }


def grid_of_aluminium():
    calc = MLDFTCalculator("al", device="cpu", on_extrapolation="ignore")
    calc.get_property("forces", bulk("Al", a=4.05))  # loads what is compiled
    return lambda: calc.get_property("forces", aluminium(2))


def spectra_of_silicon():
    images = [bulk("Si", cubic=True) * (2, 2, 2) for _ in range(64)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.05, seed=seed)
    calc = DeepDOSCalculator("si", device="cpu")
    calc.get_property("forces", images[0])
    return lambda: evaluate(calc, images, ["energy", "forces", "total_dos"], progress=False)


def gradient_descent(steps=6):
    frames = []
    for seed in range(16):
        atoms = bulk("Si", cubic=True) * (2, 2, 1)
        atoms.rattle(0.1, seed=seed)
        frames.append(Frame(atoms, {"energy": np.array(0.0), "forces": np.zeros((len(atoms), 3))}))
    torch.manual_seed(0)
    descriptor = DeepPotSE(("Si",), 6.0, 0.5, sel=(60,)).double()
    model = Model(descriptor, {"energy": ScalarHead(1, descriptor.n_features).double()})

    def train(frames, steps):
        return fit(model, Frames(frames), EnergyLoss(), steps=steps, batch_size=16, progress=False)

    train(frames[:2], 1)  # loads the optimizer, two seconds
    return lambda: train(frames, int(steps))


WORK = {
    "grid": grid_of_aluminium,
    "evaluate": spectra_of_silicon,
    "training": gradient_descent,
    "longer training": lambda: gradient_descent(26),
}


def shared(kind):
    """Processor seconds of each process, and the wall time, of work that all processes share."""
    with processes.together():
        work = WORK[kind]()
        processes.gathered(None)
        begun, start = time.perf_counter(), time.process_time()
        work()
        mine = time.process_time() - start
        found = {"seconds": processes.gathered(mine), "wall": time.perf_counter() - begun}
    return {"kind": kind, "processes": len(found["seconds"]), **found}


PARTS = {
    "energy": [(energy, n) for n in SILICON],
    "ldos": 3 * [(ldos, SIDE)],  # the shortest counts
    "terms": [(terms, SIDE)],
    "ions": [(ions, SIDE)],
    "streamed": [(streamed, 2, 0), (streamed, 2, 1)],
    "spacing": [(spacing, 2, each) for each in (0.27, 0.324, 0.405)],
    "processes": 2 * [(shared, n, kind) for kind in WORK for n in (1, 2)],  # the shortest of each count
    "mos2": [(hamiltonian, "mos2", *a, *b) for a, b in MOS2],
    "graphene": [(hamiltonian, "graphene", *pair) for pair in GRAPHENE],
}


def alone(function, *arguments):
    """The result of a function in a process of its own, with the load of the machine at its start."""
    load = os.getloadavg()[0]
    command, (first, *rest) = [sys.executable], arguments
    if function is shared:
        command, arguments = [*command, "-m", "torch.distributed.run", "--nproc-per-node", str(first)], rest
    command += [__file__, "--child", function.__name__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.returncode)
    found = json.loads(done.stdout.splitlines()[-1]) | {"load": load}
    print(function.__name__, *arguments, json.dumps(found), flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*PARTS, []], help="parts to measure; none: only write the table")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        torch.set_num_threads(1)
        name, *rest = arguments.child
        found = json.dumps(globals()[name](*rest))
        if os.environ.get("RANK", "0") == "0":  # lines of two processes may mix
            print(found)
        return
    path = HERE / "scale.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in PARTS if arguments.only is None else arguments.only:
        results[part] = [alone(*each) for each in PARTS[part]]
        if part == "processes":
            rows, n = results[part], 2 * len(WORK)
            results[part] = [min(rows[k::n], key=lambda row: max(row["seconds"])) for k in range(n)]
        if part == "ldos":
            results[part] = [min(results[part], key=lambda row: sum(row["seconds"].values()))]
        path.write_text(json.dumps(results, indent=1) + "\n")
    from scale_report import picture, report

    models = [name for name in ("al", "si", "mos2", "graphene") if name in results or name in ("al", "si")]
    (HERE / "SCALE.md").write_text(report(results, models_line(*models)), encoding="utf-8")
    picture(results, HERE / "scale.png", COLORS)


if __name__ == "__main__":
    main()
