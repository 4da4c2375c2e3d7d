"""Dipoles side by side with deepmd-kit, and what they cost in a step of molecular dynamics; writes DIPOLE_SPEED.md.

    python benchmarks/dipole_speed.py --peer-python /path/to/one/venv/bin/python --torch-python /path/to/another

The first environment is the one of run.py, with TensorFlow; the other holds ``deepmd-kit==3.2.0 torch==2.11.0``.
Either can be left out.  The second part times this package alone.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import models
import numpy as np
import run
import torch
from ase import Atoms
from hashes import models_line
from tqdm import tqdm

from ase_mlelec import CombinedCalculator, DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.heads import VectorHead
from ase_mlelec.model import Model

NAME, SIZES = "water_dipole", ("192", "1536")
PROGRAMS = {"plain": "deepmd-kit", "compressed": "deepmd-kit compressed", "pytorch": "deepmd-kit, PyTorch"}
LOAD = (
    "Times are of the clock. Beside other work, evaluations that take longer are interrupted more often, so that ratios are "
    "somewhat too large. deepmd-kit's PyTorch backend was last measured on 2026-11-21, on another machine (AMD EPYC, load "
    "2.4): 624 ms for 192 atoms and 17 s for 1,536, 118 and 594 times as long as this package then."
)
CHARGES = {"valence_charges": {"O": 6, "H": 1}, "electrons_per_centre": {"O": 8}}


def rows_of_programs(folder, arguments):
    """Rows of run.compare, as many programs as there are environments for."""
    programs = ["ours"] + ["compressed", "plain"] * bool(arguments.peer_python)
    run.prepare(folder, [NAME], {}, arguments.peer_python)
    if arguments.torch_python:
        program = Path(arguments.torch_python).with_name("dp")
        run._run([program, "convert-backend", folder / f"{NAME}.dp", folder / f"{NAME}.pth"], cwd=folder)
        programs.append("pytorch")
    with tqdm(total=len(SIZES) * len(programs) * arguments.rounds, unit="process") as bar:
        return [run.compare(folder, NAME, size, programs, arguments, bar) for size in SIZES]


def table_of_programs(rows):
    programs = [program for program in PROGRAMS if program in rows[0]["seconds"]]
    yield "| atoms | ase-mlelec, ms | " + "".join(
        f"{PROGRAMS[name]}, ms | times as long | difference, Å | " for name in programs
    )
    yield "|---" * (2 + 3 * len(programs)) + "|"
    for row in rows:
        own = row["seconds"]["ours"]
        cells = [str(row["atoms"]), f"{1e3 * own['min']:.1f} ({1e3 * own['median']:.1f})"]
        for program in programs:
            seconds = row["seconds"][program]
            cells += [
                f"{1e3 * seconds['min']:.1f} ({1e3 * seconds['median']:.1f})",
                f"{seconds['min'] / own['min']:.1f}",
                f"{row['difference'][program]['vectors']:.0e}",
            ]
        yield f"| {' | '.join(cells)} |"


def share(calc, atoms, repeats):
    """(processor seconds of energy and forces, of energy, forces and dipole), shortest of evaluations in turns."""
    rng, start = np.random.default_rng(0), atoms.positions.copy()
    seconds = {("forces",): [], ("forces", "dipole"): []}
    for _ in range(repeats + 1):
        for names, spent in seconds.items():
            atoms.positions = start + rng.normal(0, 0.01, start.shape)
            begin = time.process_time()
            for name in names:
                calc.get_property(name, atoms)
            spent.append(time.process_time() - begin)
    return [min(spent[1:]) for spent in seconds.values()]  # the first is to warm up


def calculators(folder):
    """dict: a model with both heads on one descriptor, and two models that share the neighbor list alone."""
    models.write_model(folder / "energy.dp", models.MODELS["water_small"])
    models.write_model(folder / "dipole.dp", models.MODELS[NAME])
    energy, dipole = load_model(folder / "energy.dp"), load_model(folder / "dipole.dp")
    dipole.metadata.update(CHARGES)
    with torch.random.fork_rng():
        head = VectorHead(2, energy.descriptor.n_features, models.EMBEDDING[-1], (0,), (60, 60, 60)).double()
    both = Model(energy.descriptor, {"energy": energy.heads["energy"], "dipole": head}, dict(CHARGES))
    return {
        "one model, one descriptor": DeepWannierCalculator(both, device="cpu"),
        "two models, shared edges": CombinedCalculator(
            [DeepPotCalculator(energy, device="cpu"), DeepWannierCalculator(dipole, device="cpu")]
        ),
    }


def table_of_shares(folder):
    yield "| | atoms | energy + forces, ms | with dipole, ms | more, % |"
    yield "|---|---|---|---|---|"
    cases = [
        (name, calc, run.WATER[size](), run.REPEATS[size])
        for name, calc in calculators(folder).items()
        for size in SIZES
    ]
    shipped = DeepWannierCalculator("ice", device="cpu")
    cases += [("`ice`, two descriptors, shared edges", shipped, ice(repeat), 20) for repeat in (2, 4)]
    for name, calc, atoms, repeats in cases:
        alone, together = share(calc, atoms, repeats)
        yield (
            f"| {name} | {len(atoms)} | {1e3 * alone:.1f} | {1e3 * together:.1f} | {100 * (together / alone - 1):.0f} |"
        )


def ice(repeat):
    """Atoms of cubic ice VII of 2.9 Å, 2 repeat³ molecules, protons on the lines between oxygens."""
    a, shortest = 2.9, 1.0
    cell = np.eye(3) * a
    atoms = Atoms("O2", [[0, 0, 0], [a / 2] * 3], cell=cell, pbc=True) * repeat
    ways = np.array([[1, 1, 1], [-1, -1, 1]]) / 3**0.5  # both protons of every molecule point the same way
    protons = (atoms.positions[:, None] + shortest * ways).reshape(-1, 3)
    return atoms + Atoms(f"H{len(protons)}", protons, cell=atoms.cell, pbc=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with deepmd-kit and TensorFlow")
    parser.add_argument("--torch-python", help="Python of an environment with deepmd-kit and PyTorch")
    parser.add_argument("--rounds", type=int, default=2, help="processes per program and size")
    parser.add_argument("--cores", type=int, nargs="+", default=[max(os.sched_getaffinity(0))])
    parser.add_argument("--output", type=Path, default=run.HERE)
    arguments = parser.parse_args()
    for python in filter(None, (arguments.peer_python, arguments.torch_python)):
        if not shutil.which(python):
            parser.error(f"no program {python}; give the Python of an environment with deepmd-kit")
    where = run.machine(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        rows = rows_of_programs(Path(scratch), arguments)
        os.sched_setaffinity(0, arguments.cores)
        torch.set_num_threads(len(arguments.cores))
        shares = list(table_of_shares(Path(scratch)))
    versions = {key: value for row in rows for key, value in row["versions"].items()}
    lines = [
        "# Speed of dipoles",
        "",
        "Written by `benchmarks/dipole_speed.py`: random weights, the same for all programs, double precision, "
        f"programs in turns on the same {where['cores_used']} core(s). Times are the shortest (median) of all "
        "evaluations; every evaluation sees new positions.",
        "",
        f"{where['processor']}, {where['cores']} cores, load {where['load_at_start']} at the start; Python "
        f"{where['python']}; " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".",
        "",
        f"## {run.CASES[NAME][2]}",
        "",
        *table_of_programs(rows),
        "",
        LOAD,
        "",
        "## What the dipole adds to a step",
        "",
        "Processor time.",
        "",
        models_line("ice"),
        "",
        *shares,
    ]
    (arguments.output / "DIPOLE_SPEED.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
