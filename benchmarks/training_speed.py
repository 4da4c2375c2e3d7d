"""Training side by side with deepmd-kit: same data, architecture, batch and precision, in turns; writes TRAINING_SPEED.md.

    python benchmarks/training_speed.py ../shared/reference/deepmd --peer-python ~/deepmd/bin/python

DATA is a folder with deepmd-kit's example data of water, dos and dipole.  The other environment holds
``deepmd-kit==3.2.0 tensorflow-cpu==2.21.0``, its fastest backend on CPUs.  Every program runs in processes of its own, one
thread on one core.  A step is everything from the choice of a batch to the update of the parameters, without files and
validation; the first steps are left out.  Times are CPU seconds of the process, which other load on the machine disturbs
less; on a free core they are the time.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import run

HERE = Path(__file__).parent
NETS = {"rcut": 6.0, "neuron": [25, 50, 100], "type_one_side": True}
WATER = {"type_map": ["O", "H"], "sel": [46, 92]}
# the architectures of deepmd-kit's examples
CASES = {
    "energy": {
        "what": "water, 192 atoms: energies and forces, axis 16, fitting 240x240x240",
        "systems": ["water/data_0"],
        "types": ["O", "H"],
        "descriptor": NETS | {"sel": [46, 92], "rcut_smth": 0.5, "axis_neuron": 16},
        "fitting": {"type": "ener", "neuron": [240, 240, 240]},
        "loss": {"type": "ener", "start_pref_v": 0, "limit_pref_v": 0},
    },
    "dos": {
        "what": "silicon, 32 atoms: ADOS of 250 energies, axis 8, fitting 120x120x120",
        "systems": ["dos/heat-221"],
        "types": ["Si"],
        "descriptor": NETS | {"sel": [90], "rcut_smth": 1.8, "axis_neuron": 8},
        "fitting": {"type": "dos", "numb_dos": 250, "neuron": [120, 120, 120]},
        "loss": {"type": "dos", "start_pref_ados": 1, "limit_pref_ados": 1, "start_pref_dos": 0, "limit_pref_dos": 0},
    },
    "dipole": {
        "what": "water, 192 atoms: vectors of the oxygens, axis 6, fitting 100x100x100",
        "systems": ["dipole/atomic_system"],
        "types": ["O", "H"],
        "descriptor": NETS | {"sel": [46, 92], "rcut_smth": 3.8, "axis_neuron": 6},
        "fitting": {"type": "dipole", "sel_type": [0], "neuron": [100, 100, 100]},
        "loss": {"type": "tensor", "pref": 0.0, "pref_atomic": 1.0},
    },
}
ROWS = [("energy", batch, precision) for precision in ("float64", "float32") for batch in (1, 8)]
ROWS += [("dos", 1, "float64"), ("dos", 8, "float64"), ("dipole", 1, "float64")]
WARM_UP = 3  # steps that do not count
PROGRAMS = ("ours", "peer")


def measured(program, row, arguments, scratch):
    """dict of one process: CPU seconds of every step, and versions."""
    name, batch, precision = row
    case = CASES[name] | {"batch": batch, "precision": precision, "steps": WARM_UP + arguments.steps}
    case["systems"] = [str(Path(arguments.data).resolve() / system) for system in case["systems"]]
    (scratch / "case.json").write_text(json.dumps(case))
    python = sys.executable if program == "ours" else arguments.peer_python
    command = [python, HERE / "training_workload.py", program, "case.json", "result.json", str(arguments.core)]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program}, {row}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads((scratch / "result.json").read_text())


def row_of(row, arguments, scratch, versions):
    """Line of the table: median CPU seconds of a step of each program, over all its processes."""
    seconds = {program: [] for program in PROGRAMS}
    for _ in range(arguments.rounds):
        for program in PROGRAMS:
            result = measured(program, row, arguments, scratch)
            seconds[program] += result["seconds"][WARM_UP:]
            versions |= result["versions"]
    ours, peer = (statistics.median(seconds[program]) for program in PROGRAMS)
    lowest = [min(seconds[program]) for program in PROGRAMS]
    line = (
        f"| {CASES[row[0]]['what']} | {row[1]} | {row[2]} | {1e3 * ours:.1f} ({1e3 * lowest[0]:.1f}) | "
        f"{1e3 * peer:.1f} ({1e3 * lowest[1]:.1f}) | {peer / ours:.1f} |"
    )
    print(line, flush=True)
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--peer-python", required=True, help="Python of an environment with deepmd-kit and TensorFlow")
    parser.add_argument("--rounds", type=int, default=1, help="processes per program and row, in turns")
    parser.add_argument("--steps", type=int, default=6, help="steps of each process that count")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    if not shutil.which(arguments.peer_python):
        parser.error(f"no program {arguments.peer_python}; give the Python of an environment with deepmd-kit")
    where, versions = run.machine(argparse.Namespace(cores=[arguments.core])), {}
    lines, path = [], arguments.output / "TRAINING_SPEED.md"
    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            lines.append(row_of(row, arguments, Path(scratch), versions))
            path.write_text(report(lines, where, os.getloadavg()[0], versions), encoding="utf-8")


def report(lines, where, load, versions):
    """TRAINING_SPEED.md as a string; it is written after every row."""
    head = [
        "# Speed of training beside deepmd-kit",
        "",
        "Written by `python benchmarks/training_speed.py DATA --peer-python PYTHON`; the same data, architecture (embedding "
        "25x50x100, cutoff 6 Å), batch and precision, programs in turns, one thread on one core. Times are CPU "
        "milliseconds of a step, median (shortest); ratio of the medians.",
        "",
        f"{where['processor']}, load {where['load_at_start']:.1f} at the start and {load:.1f} at the end; "
        f"{datetime.date.today()}; " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".",
        "",
        "| data | batch | precision | ase-mlelec | deepmd-kit | ratio |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
