"""What small jobs wait for besides arithmetic: times of this checkout, and of another one in turns with it.

    python benchmarks/overheads.py                          # writes OVERHEADS.md
    python benchmarks/overheads.py --against ../older       # with the times of an older checkout beside

One thread, pinned to one core, times of the processor.  Every number is the least of many, as whatever else runs only
adds to it; the checkouts take turns of a few repetitions each, so that they see the same load.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = "si"
QUANTITIES = ("energy", "fermi_level", "total_dos")
JOBS = {  # name -> (what it is, unit, repetitions in a turn)
    "help": ("`mlelec --help`", "ms", 1),
    "models": ("`mlelec models`", "ms", 1),
    "load": ('first model of a program, `load_model("si")` (torch imported before)', "ms", 1),
    "step": ("energy and forces of 8 atoms, a step of molecular dynamics", "ms", 40),
    "calls": ("- calls of torch in it", "", 1),
    "work": ("- those that are not views", "", 1),
    "level": ("Fermi level of a density of states, 181 points, 2,000 K", "ms", 40),
    "row": ("row of a recorder beyond its evaluation: energy, Fermi level, total DOS of 8 atoms", "ms", 40),
    "batch": ("`evaluate` of 256 structures of 8 atoms: energy, Fermi level, total DOS; per structure", "ms", 1),
    "large": ("energy and forces of 1,000 atoms", "ms", 1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="folder of another checkout")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    folders = [HERE.parent] + ([arguments.against.resolve()] if arguments.against else [])
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    load = os.getloadavg()[0]
    best = [dict.fromkeys(JOBS, float("inf")) for _ in folders]
    with tempfile.TemporaryDirectory() as scratch:
        environments = [environment(folder, Path(scratch) / str(k)) for k, folder in enumerate(folders)]
        os.chdir(scratch)  # where no checkout is, as "-m" looks here first
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                env=each,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for each in environments
        ]
        for _ in range(arguments.rounds):
            for name in JOBS:
                for found, worker, each in zip(best, workers, environments):
                    found[name] = min(found[name], measured(name, worker, each))
        for worker in workers:
            worker.communicate()
        os.chdir(HERE)  # the other folder goes away
    text = table(best, core, load, arguments.rounds)
    (HERE / "OVERHEADS.md").write_text(text, encoding="utf-8")
    print(text)


def environment(folder, scratch):
    """Variables that make programs import the package of a checkout, on one thread."""
    scratch.mkdir()
    (scratch / "ase_mlelec_entry_points").symlink_to(folder / "entry_points")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(folder), str(scratch)])}


def spent_by_children():
    """Processor seconds of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(name, worker, variables):
    if name in ("help", "models"):
        command = [sys.executable, "-m", "ase_mlelec_entry_points.cli.main", {"help": "--help"}.get(name, name)]
        start = spent_by_children()
        subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=True)
        return 1e3 * (spent_by_children() - start)
    if name == "load":
        code = (
            "import time, torch, ase_mlelec.bundle as bundle\nstart = time.process_time()\n"
            f"bundle.load_model({MODEL!r})\nprint(1e3 * (time.process_time() - start))"
        )
        return float(
            subprocess.run(
                [sys.executable, "-c", code], env=variables, text=True, check=True, stdout=subprocess.PIPE
            ).stdout
        )
    worker.stdin.write(name + "\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def table(best, core, load, rounds):
    from hashes import models_line

    lines = [
        "# Overheads",
        "",
        f"Written by `benchmarks/overheads.py`: one thread pinned to core {core}, load of the machine {load:.1f} on "
        f"{os.cpu_count()} cores; processor time, the least of {rounds} turns of up to 40 repetitions. Under "
        "load the caches are shared as well, so that an idle core is faster.",
        "",
        models_line(MODEL),
        "",
        "| job | unit | " + ("before | now |" if len(best) > 1 else "now |"),
        "|---|---|" + "--:|" * len(best),
    ]
    for name, (told, unit, _) in JOBS.items():
        numbers = [found[name] for found in reversed(best)]
        lines.append(
            f"| {told} | {unit} | "
            + " | ".join(f"{n:.0f}" if n >= 100 or not unit else f"{n:.2f}" for n in numbers)
            + " |"
        )
    return "\n".join([*lines, ""])


# in the process of one checkout


def work():
    import torch

    torch.set_num_threads(1)
    jobs = Jobs()
    for line in sys.stdin:
        name = line.strip()
        times = [getattr(jobs, name)() for _ in range(JOBS[name][2])]
        print(json.dumps(min(times)), flush=True)
    jobs.recorder.close()


class Jobs:
    """Every method does its job once and returns what it took, ms, or counted."""

    def __init__(self):
        import numpy as np
        from ase.build import bulk

        from ase_mlelec import DeepDOSCalculator, ElectronicRecorder

        def crystal(repeat, seed=1):
            atoms = bulk("Si", cubic=True) * repeat
            atoms.rattle(0.05, seed=seed)
            return atoms

        self.random, self.small, self.big = np.random.default_rng(0), crystal(1), crystal(5)
        for atoms in self.small, self.big:
            atoms.calc = DeepDOSCalculator(MODEL, on_extrapolation="ignore")
        self.images = [crystal(1, seed=k) for k in range(256)]
        self.folder = tempfile.TemporaryDirectory()
        self.recorder = ElectronicRecorder(self.small, Path(self.folder.name) / "run.h5", QUANTITIES)
        self.large(), self.step(), self.recorder()

    def timed(self, function):
        start = time.process_time()
        function()
        return 1e3 * (time.process_time() - start)

    def moved(self, atoms):
        atoms.positions += self.random.normal(0, 1e-3, atoms.positions.shape)
        return atoms

    def step(self, atoms=None):
        atoms = self.moved(self.small if atoms is None else atoms)
        return self.timed(lambda: (atoms.get_potential_energy(), atoms.get_forces()))

    def large(self):
        return self.step(self.big)

    def counted(self):
        from torch.utils._python_dispatch import TorchDispatchMode

        names = []

        class Calls(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                names.append(function.overloadpacket.__name__)
                return function(*args, **(kwargs or {}))

        with Calls():
            self.step()
        return names

    def calls(self):
        return len(self.counted())

    def work(self):
        views = {
            "view",
            "detach",
            "select",
            "slice",
            "transpose",
            "permute",
            "t",
            "unbind",
            "split",
            "split_with_sizes",
            "expand",
            "unsqueeze",
            "squeeze",
            "alias",
            "lift_fresh",
            "_unsafe_view",
        }
        return sum(name not in views for name in self.counted())

    def level(self):
        from ase_mlelec.physics import fermi

        calc = self.small.calc
        dos, n_electrons = calc.get_total_dos(atoms=self.small), 8 * calc.metadata["electrons_in_dos"]["Si"]
        return self.timed(lambda: fermi.fermi_level(calc.energies, dos, n_electrons, 2000.0))

    def row(self):
        atoms = self.moved(self.small)
        atoms.get_potential_energy(), atoms.calc.get_fermi_level(atoms=atoms), atoms.calc.get_total_dos(atoms=atoms)
        return self.timed(self.recorder)

    def batch(self):
        from ase_mlelec import evaluate

        return self.timed(lambda: evaluate(self.small.calc, self.images, QUANTITIES, progress=False)) / len(self.images)


if __name__ == "__main__":
    main()
