"""Side by side with deepmd-kit: same weights, same structures, same cores, in turns; writes RESULTS.md, results.json.

    python benchmarks/run.py --peer-python /path/to/other/venv/bin/python

The other environment holds ``deepmd-kit==3.2.0 tensorflow-cpu==2.21.0 ase`` (its fastest backend on
a processor).  Without it only this package is timed.  Models have random weights
unless ``--model water_small=file.dp`` names others.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import models
import numpy as np
from tqdm import tqdm

HERE = Path(__file__).parent
WATER = {"192": lambda: models.water(4), "1536": lambda: models.water(8), "5184": lambda: models.water(12)}
SILICON = {
    "216": lambda: models.silicon(3, 3, 3),
    "1440": lambda: models.silicon(6, 6, 5),
    "5184": lambda: models.silicon(9, 9, 8),
}
CASES = {
    "water_small": ("energy", WATER, "water, energy + forces + stress, axis 4, fitting 60x60x60"),
    "water_large": ("energy", WATER, "water, energy + forces + stress, axis 16, fitting 240x240x240"),
    "silicon_dos": ("dos", SILICON, "silicon, ADOS on 250 energies, axis 8, fitting 120x120x120"),
    "water_dipole": ("dipole", WATER, "water, vectors of the oxygens, axis 4, fitting 60x60x60"),
}
PROGRAMS = {
    "ours": ("ours", ".dp"),
    "compressed": ("peer", ".compressed.pb"),
    "plain": ("peer", ".pb"),
    "pytorch": ("torch", ".pth"),
}
REPEATS = {"192": 20, "216": 20, "1440": 8, "1536": 8, "5184": 4}
DIFFERENCES = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å^3", "ados": "states/eV", "vectors": "Å"}

COLUMNS = (
    "µs/atom: of ase-mlelec. Ratio: the faster of deepmd-kit's two models over ase-mlelec. Last columns: "
    "largest difference from deepmd-kit's plain (compressed) model. The ADOS of its TensorFlow backend "
    "differs by as much from that of its own NumPy backend, with which ase-mlelec agrees to 1e-14."
)


def prepare(folder, names, replaced, peer_python):
    """Write models into ``folder``, those of the peer in its own formats too."""
    for name in names:
        spec = models.MODELS[name]
        path = folder / f"{name}.dp"
        if name in replaced:
            shutil.copyfile(replaced[name], path)
            models.adapt(path, spec["closest"])
        else:
            models.write_model(path, spec)
    if peer_python:
        _run([peer_python, HERE / "peer_models.py", *folder.glob("*.dp")])


def _run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")


def measure(folder, name, size, program, arguments):
    """dict of arrays that one process of workload.py leaves behind."""
    who, suffix = PROGRAMS[program]
    python, output = sys.executable if who == "ours" else getattr(arguments, f"{who}_python"), folder / "output.npz"
    _run(
        [
            python,
            HERE / "workload.py",
            "ours" if who == "ours" else "peer",
            CASES[name][0],
            folder / f"{name}{suffix}",
            folder / f"{name}_{size}.npz",
            output,
            "--repeats",
            str(REPEATS[size]),
            "--cores",
            *map(str, arguments.cores),
        ],
        cwd=folder,
    )
    with np.load(output) as stored:
        return dict(stored)


def compare(folder, name, size, programs, arguments, bar):
    """One row of the table: seconds by program, and the largest differences between results."""
    atoms = CASES[name][1][size]()
    np.savez(folder / f"{name}_{size}.npz", numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array)
    runs = {program: [] for program in programs}
    for _ in range(arguments.rounds):
        for program in programs:
            bar.set_postfix_str(f"{name} {size} {program}")
            runs[program].append(measure(folder, name, size, program, arguments))
            bar.update()
    row = {"model": name, "atoms": len(atoms), "seconds": {}, "difference": {}, "versions": {}}
    for program, results in runs.items():
        seconds = np.concatenate([result["seconds"] for result in results])
        row["seconds"][program] = {"min": seconds.min(), "median": float(np.median(seconds))}
        row["versions"].update(json.loads(str(results[0]["versions"])))
        row["difference"][program] = {
            key: float(np.abs(results[0][key] - runs["ours"][0][key]).max() / (len(atoms) if key == "energy" else 1))
            for key in DIFFERENCES
            if key in results[0]
        }
    return row


def machine(arguments):
    """dict that says where the numbers come from."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "cores_used": len(arguments.cores),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def report(rows, where, replaced):
    """RESULTS.md as a string."""
    versions = {key: value for row in rows for key, value in row["versions"].items()}
    lines = [
        "# Speed beside deepmd-kit",
        "",
        "Written by `benchmarks/run.py`: same weights and structures, double precision, programs in turns on the "
        f"same {where['cores_used']} core(s). Times are of the processor, the shortest (median) of all evaluations in ms; "
        "every "
        "evaluation sees new positions. Both programs are called from Python: energy, forces and stress "
        "through their ASE calculators, ADOS through `get_ados` and `DeepDOS.eval`.",
        "",
        f"{where['processor']}, {where['cores']} cores, load {where['load_at_start']} at the start; "
        f"Python {where['python']}; " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".",
        "",
    ]
    lines += [
        COLUMNS
        if any("plain" in row["seconds"] for row in rows)
        else "deepmd-kit was not given (`--peer-python`): only this package is timed.",
        "",
    ]
    for name in dict.fromkeys(row["model"] for row in rows):
        title = CASES[name][2]
        weights = f"weights of {Path(replaced[name]).name}" if name in replaced else "random weights"
        lines += [f"## {title} ({weights})", "", *_table([row for row in rows if row["model"] == name]), ""]
    return "\n".join(lines)


def _table(rows):
    titles = {
        "ours": "ase-mlelec",
        "compressed": "deepmd-kit compressed",
        "plain": "deepmd-kit",
        "pytorch": "deepmd-kit, PyTorch",
    }
    programs = [program for program in titles if all(program in row["seconds"] for row in rows)]
    peers = programs[1:]
    keys = [key for key in DIFFERENCES if rows and peers and key in rows[0]["difference"]["ours"]]
    titles = [
        "atoms",
        *(titles[program] for program in programs),
        "µs/atom",
        *(["ratio"] if peers else []),
        *(f"{key}, {DIFFERENCES[key]}" for key in keys),
    ]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for row in rows:
        times = [row["seconds"][program] for program in programs]
        cells = [str(row["atoms"]), *(f"{1e3 * t['min']:.1f} ({1e3 * t['median']:.1f})" for t in times)]
        cells.append(f"{1e6 * times[0]['min'] / row['atoms']:.0f}")
        if peers:
            cells.append(f"{min(t['min'] for t in times[1:]) / times[0]['min']:.2f}")
        cells += [f"{row['difference']['plain'][key]:.0e} ({row['difference']['compressed'][key]:.0e})" for key in keys]
        yield f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with deepmd-kit and TensorFlow")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE.dp", help="weights to use instead")
    parser.add_argument("--rounds", type=int, default=2, help="processes per program, model and size")
    parser.add_argument("--cores", type=int, nargs="+", default=[max(os.sched_getaffinity(0))])
    parser.add_argument("--sizes", nargs="+", default=list(REPEATS), help="numbers of atoms")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    if arguments.peer_python and not shutil.which(arguments.peer_python):
        parser.error(f"no program {arguments.peer_python}; give the Python of the environment with deepmd-kit")
    replaced = dict(item.split("=", 1) for item in arguments.model)
    programs = ["ours", "compressed", "plain"] if arguments.peer_python else ["ours"]
    where = machine(arguments)
    names = [name for name in CASES if name != "water_dipole"]  # that one is dipole_speed.py's
    pairs = [(name, size) for name in names for size in CASES[name][1] if size in arguments.sizes]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, names, replaced, arguments.peer_python)
        with tqdm(total=len(pairs) * len(programs) * arguments.rounds, unit="process") as bar:
            rows = [compare(folder, name, size, programs, arguments, bar) for name, size in pairs]
    (arguments.output / "results.json").write_text(json.dumps({"machine": where, "rows": rows}, indent=1) + "\n")
    (arguments.output / "RESULTS.md").write_text(report(rows, where, replaced), encoding="utf-8")


if __name__ == "__main__":
    main()
