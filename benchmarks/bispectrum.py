"""Bispectrum on a grid beside LAMMPS' compute sna/grid: same structures, one core, in turns; writes BISPECTRUM.md.

    python benchmarks/bispectrum.py --peer-python /path/to/other/venv/bin/python

The other environment holds ``lammps mpich ase``.  Without it only this package is timed.  Times are of the processor,
not of the clock, and the shortest of several, so that they mean something on a machine that does other things too.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from ase.build import bulk
from lammps_run import lammps_run

HERE = Path(__file__).parent
SIZES = {"32": 2, "256": 4, "2048": 8}  # atoms: cubes of the fcc cell
LATTICE = (4 / 0.06) ** (1 / 3)  # Å; 0.06 atoms/Å^3, aluminium
SPACING = 0.25  # Å, between grid points for the timing of this package
POINTS = {"32": 10, "256": 8, "2048": 6}  # along each direction: LAMMPS' grid, and the one that is compared
WHERE_TIME_GOES = (
    "Why the gradient takes twice as long as the value, which comes first (stages timed alone, float64, AMD EPYC): a fifth "
    "of it evaluates the functions on the group again, which would fill 120 kB per point if they were kept; a third goes "
    "back through the triple products, three operations for each where the value has one, with all functions and sums at a "
    "point in registers; a quarter goes back through the functions, and a fifth through the neighbors."
)
OPTIONS = dict(cutoff=4.67637, rfac0=0.99363, twojmax=10)


def aluminium(size):
    atoms = bulk("Al", a=LATTICE, cubic=True) * ((SIZES[size],) * 3)
    atoms.rattle(0.1, seed=0)
    return atoms


def shortest(function, repeats):
    """Processor seconds of the quickest call, and what it returned."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        found = function()
        times.append(time.process_time() - start)
    return min(times), found


def ours(size, repeats):
    """dict: µs per point of this package, and its numbers on the grid that is compared."""
    from dataclasses import replace

    import torch

    from ase_mlelec import __version__
    from ase_mlelec.descriptors import Bispectrum, bispectrum
    from ase_mlelec.system import System

    torch.set_num_threads(1)
    atoms, out = aluminium(size), {"version": f"ase-mlelec {__version__}, torch {torch.__version__}"}
    shape = np.round(atoms.cell.lengths() / SPACING).astype(int)
    descriptor = Bispectrum(["Al"], **OPTIONS)
    bricks = len(list(bispectrum.grid._bricks(atoms.cell.array, shape)))
    for name, dtype in ("float64", torch.float64), ("float32", torch.float32):
        system = System.from_atoms(atoms, dtype)

        def search():
            """One batch of bricks; the first chunk costs as much as all."""
            return next(descriptor.grid_chunks(system, shape))

        def forward():
            with torch.no_grad():
                return [descriptor.of_chunk(system, chunk) for chunk in chunks]

        def both():
            leaves = replace(
                system, positions=system.positions.clone().requires_grad_(), cell=system.cell.clone().requires_grad_()
            )
            for chunk in chunks:
                features = descriptor.of_chunk(leaves, chunk)
                torch.autograd.grad(features, [leaves.positions, leaves.cell], torch.ones_like(features))

        searching = shortest(search, 2)[0] / (np.prod(shape) * min(1, bispectrum.grid.BRICKS_AT_ONCE / bricks))
        chunks = list(islice(descriptor.grid_chunks(system, shape), 2))
        n_points = sum(len(chunk.indices) for chunk in chunks)
        forward(), both()  # machine code is made or read
        out[name] = 1e6 * (searching + shortest(forward, repeats)[0] / n_points)
        out[f"{name} gradient"] = 1e6 * (searching + shortest(both, max(1, repeats // 2))[0] / n_points)
        out[f"{name} search"] = 1e6 * searching
        grid = torch.empty(POINTS[size] ** 3, descriptor.n_features, dtype=dtype)
        with torch.no_grad():
            for chunk in descriptor.grid_chunks(system, [POINTS[size]] * 3):
                grid[chunk.indices] = descriptor.of_chunk(system, chunk)
        out[f"{name} grid"] = grid.numpy()
    return out


def lammps(size, repeats):
    """The same of LAMMPS, in float64."""
    from lammps.constants import LMP_STYLE_GLOBAL, LMP_TYPE_ARRAY

    atoms, n = aluminium(size), POINTS[size]
    run = lammps_run()
    box = " ".join(f"0 {length!r}" for length in atoms.cell.lengths().tolist())
    run.commands_string(f"units metal\nboundary p p p\nregion box block {box}\ncreate_box 1 box\nmass 1 27")
    atoms.wrap()
    run.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    run.commands_string(f"""
        pair_style zero {OPTIONS["cutoff"] + 0.1}
        pair_coeff * *
        compute grid all sna/grid grid {n} {n} {n} {OPTIONS["cutoff"]} {OPTIONS["rfac0"]} {OPTIONS["twojmax"]} &
            0.5 1.0 bzeroflag 0
        run 0""")

    def evaluate():
        run.command("run 0")
        return run.numpy.extract_compute("grid", LMP_STYLE_GLOBAL, LMP_TYPE_ARRAY).copy()

    seconds, found = shortest(evaluate, repeats)
    grid = found[:, 3:].reshape(n, n, n, -1).transpose(2, 1, 0, 3).reshape(n**3, -1)
    return {"version": f"LAMMPS {run.version()}", "float64": 1e6 * seconds / n**3, "float64 grid": grid}


def measure(python, program, size, repeats):
    """Run one program in a process of its own; dict of what it found."""
    from run import _run

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.npz"
        _run(
            [
                python,
                __file__,
                "--worker",
                program,
                "--sizes",
                size,
                "--repeats",
                str(repeats),
                "--worker-output",
                output,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        with np.load(output) as stored:
            return {key: value if value.ndim else value.item() for key, value in stored.items()}


def best(results):
    """The smallest of every time of several runs of one program."""
    return {
        key: min(result[key] for result in results) if isinstance(value, float) else value
        for key, value in results[0].items()
    }


def difference(found, wanted):
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def report(rows, where, loads):
    versions = ", ".join(dict.fromkeys(result["version"] for row in rows.values() for result in row.values()))
    with_peer = all("lammps" in row for row in rows.values())
    busy = (
        " **The machine was not idle: all times are too long, those of ase-mlelec, which lives in the cache that "
        "is shared, more than those of LAMMPS.**"
        if max(loads) > 1.5
        else ""
    )
    lines = [
        "# Bispectrum beside LAMMPS",
        "",
        f"Written by `benchmarks/bispectrum.py`: aluminium at 0.06 atoms/Å³, 2J = {OPTIONS['twojmax']}, cutoff "
        f"{OPTIONS['cutoff']} Å (26 neighbors), µs of processor time per grid point on one core, programs in "
        "turns, shortest of all evaluations. LAMMPS (`compute sna/grid`, float64) on a coarse grid of the cell; "
        f"ase-mlelec on 4,096 or fewer points of one of {SPACING} Å, the search of neighbors included. With "
        "gradient: features and their product with a vector, derived by all positions and the cell, and in brackets how "
        "many times as long as without. ase-mlelec with compiled loops (extra `fast`).",
        "",
        f"{where['processor']}, {where['cores']} cores, load {min(loads):.1f} to {max(loads):.1f}.{busy} "
        f"Python {where['python']}; {versions}.",
        "",
    ]
    heads = [
        "atoms",
        *(["LAMMPS"] if with_peer else []),
        "float64",
        "float32",
        "float64 with gradient",
        "float32 with gradient",
        *(["ratio float64", "ratio float32", "difference float64", "difference float32"] if with_peer else []),
    ]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for size, row in rows.items():
        mine, peer = row["ours"], row.get("lammps")
        cells = [
            size,
            *([f"{peer['float64']:.0f}"] if with_peer else []),
            *(f"{mine[kind]:.1f}" for kind in ("float64", "float32")),
            *(
                f"{mine[f'{kind} gradient']:.1f} ({mine[f'{kind} gradient'] / mine[kind]:.1f})"
                for kind in ("float64", "float32")
            ),
        ]
        if with_peer:
            kinds = ("float64", "float32")
            cells += [f"{peer['float64'] / mine[kind]:.1f}" for kind in kinds]
            cells += [f"{difference(mine[f'{kind} grid'], peer['float64 grid']):.0e}" for kind in kinds]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Ratio: LAMMPS over ase-mlelec. Difference: the largest, relative to the largest component.",
        "",
        WHERE_TIME_GOES,
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with lammps, mpich and ase")
    parser.add_argument("--rounds", type=int, default=3, help="processes per program and size")
    parser.add_argument("--repeats", type=int, default=4, help="evaluations per process")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="numbers of atoms")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--worker", choices=["ours", "lammps"], help=argparse.SUPPRESS)
    parser.add_argument("--worker-output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        found = {"ours": ours, "lammps": lammps}[arguments.worker](arguments.sizes[0], arguments.repeats)
        np.savez(arguments.worker_output, **found)
        return
    if arguments.peer_python and not shutil.which(arguments.peer_python):
        parser.error(f"no program {arguments.peer_python}; give the Python of the environment with LAMMPS")
    from run import machine
    from tqdm import tqdm

    programs = {"ours": sys.executable} | ({"lammps": arguments.peer_python} if arguments.peer_python else {})
    runs = {size: {program: [] for program in programs} for size in arguments.sizes}
    loads = [os.getloadavg()[0]]
    with tqdm(total=len(programs) * len(runs) * arguments.rounds, unit="process") as bar:
        for size in runs:
            for _ in range(arguments.rounds):
                for program, python in programs.items():
                    bar.set_postfix_str(f"{size} {program}")
                    runs[size][program].append(measure(python, program, size, arguments.repeats))
                    loads.append(os.getloadavg()[0])
                    bar.update()
    rows = {size: {program: best(results) for program, results in row.items()} for size, row in runs.items()}
    where = machine(argparse.Namespace(cores=[0]))
    (arguments.output / "BISPECTRUM.md").write_text(report(rows, where, loads), encoding="utf-8")


if __name__ == "__main__":
    main()
