"""Energy and forces of linear ACE models: as features under autograd, contracted, and by compiled loops; LAMMPS' SNAP.

    python benchmarks/ace_speed.py          # writes ACE_SPEED.md

Needs numba (extra `fast`) and lammps with mpich (extra `peers`).  One thread on one core; the ways take turns.  Times
are of the processor, not of the clock, and the shortest of several.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CORE = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import torch
from ase.build import bulk, mx2
from hashes import models_line
from lammps_run import lammps_run

from ase_mlelec import DeepPotCalculator, load_model
from ase_mlelec.compiled import SWITCH
from ase_mlelec.descriptors import ACE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.structures.twist import twisted_bilayer
from ase_mlelec.train.basis import Basis

MOVE = 0.01  # Å, of every atom between two evaluations
CELLS = ((6, 0), (5, 1)), ((10, 0), (9, 1)), ((15, 0), (14, 1))  # of both layers; 201, 573 and 1,308 atoms
DISTANCE = 6.3  # Å, between the layers
SNAP = {"twojmax": 8, "cutoff": 4.7}
WAYS = {  # name -> (environment, whether the features are formed)
    "features, autograd": ("0", True),
    "contracted": ("0", False),
    "loops, features": ("1", True),
    "loops": ("1", False),
}


def twisted_mos2(cells):
    layer = mx2("MoS2", a=3.26, thickness=3.13, vacuum=0.0)
    return twisted_bilayer(layer, layer, cells, DISTANCE)[0]


def by_default(species, weights=8000, far=5.0, near=3.8):
    """A model as a training without settings makes it, with random weights: all orders, with products of scalars."""
    basis = Basis(far, near, len(species)).sized(weights)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        descriptor = ACE(species, inner=2.0, orders=basis.orders).double()
        return Model(descriptor, {"energy": ScalarHead(len(species), descriptor.n_features, ()).double()})


def alloy():
    atoms = bulk("Mo", cubic=True) * 6
    atoms.symbols[::3] = "W"
    return atoms


def calculator(model, way):
    """Function of Atoms: energy and forces; evaluations that are compared with the training data are not timed."""
    switch, features = WAYS[way]
    calc = DeepPotCalculator(model, device="cpu", on_extrapolation="ignore")
    if features:
        calc.models[0].linear_energy = lambda system, edges: None
    calc.models[0].ranges.clear()

    def evaluate(atoms):
        os.environ[SWITCH] = switch
        return calc.get_property("energy", atoms), calc.get_property("forces", atoms)

    return evaluate


def snap(atoms, repeats):
    """Function without arguments: processor seconds of one step of LAMMPS; the coefficients are random."""
    run = lammps_run()
    symbols = sorted(set(atoms.symbols))
    n = (SNAP["twojmax"] // 2 + 1) * (SNAP["twojmax"] // 2 + 2) * (2 * (SNAP["twojmax"] // 2) + 3) // 6 + 1
    folder = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    table = [f"{len(symbols)} {n}"]
    for symbol in symbols:
        table += [f"{symbol} 0.5 1.0", *(f"{x:.6e}" for x in rng.normal(0, 1e-3, n))]
    (folder / "snapcoeff").write_text("\n".join(table) + "\n")
    (folder / "snapparam").write_text(f"rcutfac {SNAP['cutoff']}\ntwojmax {SNAP['twojmax']}\n")
    cell, turn = atoms.cell.standard_form()
    places = atoms.positions @ turn.T
    a, b, c = cell.array
    run.commands_list(
        [
            "units metal",
            "atom_style atomic",
            f"boundary p p {'p' if atoms.pbc[2] else 'f'}",
            f"region box prism 0 {a[0]:.12f} 0 {b[1]:.12f} 0 {c[2]:.12f} {b[0]:.12f} {c[0]:.12f} {c[1]:.12f}",
            f"create_box {len(symbols)} box",
            "mass * 50.0",
        ]
    )
    kinds = [symbols.index(symbol) + 1 for symbol in atoms.symbols]
    run.create_atoms(len(atoms), None, kinds, places.ravel().tolist(), None, None, True)
    run.commands_list(
        [
            "pair_style snap",
            f"pair_coeff * * {folder / 'snapcoeff'} {folder / 'snapparam'} {' '.join(symbols)}",
            "run 0 post no",
        ]
    )

    def seconds():
        start = time.process_time()
        run.command(f"run {repeats} pre no post no")
        return (time.process_time() - start) / repeats

    return seconds


def measure(model, atoms, rounds):
    """dict of ms per atom by way, and the largest relative difference of the forces."""
    ways = {way: calculator(model, way) for way in WAYS}
    peer = snap(atoms, 3)
    best, rng, worst = dict.fromkeys([*WAYS, "LAMMPS SNAP"], np.inf), np.random.default_rng(0), 0.0
    for k in range(rounds + 1):  # the first one compiles, and builds the lists of neighbors
        atoms.positions += rng.normal(0, MOVE, atoms.positions.shape)
        forces = {}
        for way, evaluate in ways.items():
            start = time.process_time()
            _, forces[way] = evaluate(atoms)
            if k:
                best[way] = min(best[way], time.process_time() - start)
        best["LAMMPS SNAP"] = min(best["LAMMPS SNAP"], peer())
        first = forces["features, autograd"]
        worst = max(worst, *(float(abs(each - first).max() / abs(first).max()) for each in forces.values()))
    return {way: 1000 * seconds / len(atoms) for way, seconds in best.items()}, worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    shipped = load_model("mos2")
    jobs = [("`mos2`", shipped, twisted_mos2(cells)) for cells in CELLS]
    jobs.append(("defaults, one species", by_default(["Si"], 4000), bulk("Si", cubic=True) * 4))
    jobs.append(("defaults, two species", by_default(["Mo", "W"]), alloy()))
    rows, worst = [], 0.0
    for name, model, atoms in jobs:
        print(f"{name}: {len(atoms)} atoms", flush=True)
        found, difference = measure(model, atoms, rounds)
        worst = max(worst, difference)
        rows.append((name, len(atoms), model.descriptor.n_features, found))
    (HERE / "ACE_SPEED.md").write_text(report(rows, load, worst))


def report(rows, load, worst):
    import numba

    import ase_mlelec

    columns = [*WAYS, "LAMMPS SNAP"]
    lines = [
        "# Linear ACE models: time of energy and forces on one core",
        "",
        "Regenerated by `python benchmarks/ace_speed.py`; milliseconds of the processor per atom, the shortest of several,",
        f"pinned, one thread, in turns; load of the machine {load:.1f}. Models by default have random weights",
        "and the correlation orders of a training without settings. SNAP has 2J = "
        f"{SNAP['twojmax']}, cutoff {SNAP['cutoff']} Å and",
        "random coefficients, on the same structures. Lists of neighbors are not built in the evaluations shown.",
        "",
        models_line("mos2"),
        "",
        "- features, autograd: all invariants are formed, and PyTorch differentiates through them (before);",
        "- contracted: PyTorch contracts the weights with the products first;",
        "- loops, features: as the first one, by compiled loops, as nets on ACE and energies of isolated atoms need;",
        "- loops: contracted, by compiled loops.",
        "",
        f"| model | atoms | features | {' | '.join(columns)} | s per step by loops | times faster | of SNAP |",
        f"|{'---|' * (6 + len(columns))}",
    ]
    for name, n, n_features, found in rows:
        cells = " | ".join(f"{found[column]:.3f}" for column in columns)
        gain, share = found["features, autograd"] / found["loops"], found["loops"] / found["LAMMPS SNAP"]
        seconds = found["loops"] * n / 1000
        lines.append(f"| {name} | {n} | {n_features} | {cells} | {seconds:.3f} | {gain:.1f} | {share:.2f} |")
    versions = f"ase-mlelec {ase_mlelec.__version__}, torch {torch.__version__}, numba {numba.__version__}"
    lines += [
        "",
        f"Largest difference of the forces between the ways, relative to the largest force: {worst:.0e}. {versions}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
