"""Threads of a step, beside other programs: one thread, the default, and PyTorch's own division of every operation.

    python benchmarks/threads.py            # writes THREADS.md

Every way is a process of its own with the default settings but for what its name says.  They take turns of one step each,
so that they see the same load; busy loops beside them are processes that compute without end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hashes import models_line

HERE = Path(__file__).resolve().parent
MODEL = "si"
CELLS = {"216": (3, 3, 3), "1,000": (5, 5, 5), "4,096": (8, 8, 8)}
WAYS = {
    "one": "one thread",
    "default": "default: chunks of atoms",
    "operations": "every operation divided (as PyTorch does by itself)",
}
BUSY = "while True: pass"
NOTE = (
    "Compiled loops, where `si` spends its time, are not divided by PyTorch, so that its own division hardly matters. Steps "
    "of a former `si`, of nets, took 11 to 15 times as long with it as with one thread (load 16). 216 atoms are one chunk, "
    "which one thread evaluates either way: ratios that differ from one there are scatter."
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=15, help="of each way (%(default)s)")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    load, rows = os.getloadavg()[0], []
    variables = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    workers = {way: started(way, variables) for way in WAYS}
    for busy in range(len(os.sched_getaffinity(0)) + 1):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        try:
            rows += [(busy, atoms, *times(workers, atoms, arguments.steps)) for atoms in CELLS]
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(*rows[-len(CELLS) :], sep="\n", flush=True)
    for worker in workers.values():
        worker.communicate()
    text = "\n".join(table(rows, load, arguments.steps))
    (HERE / "THREADS.md").write_text(text, encoding="utf-8")
    print(text)


def started(way, variables):
    command = [sys.executable, __file__, "--worker", way]
    return subprocess.Popen(command, env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def times(workers, atoms, steps):
    """Median times of a step, ms, by way; the ways take turns."""
    found = {way: [] for way in workers}
    for _ in range(steps):
        for way, worker in workers.items():
            # a way that takes a hundred times as long has told enough after five steps
            if way == "operations" and len(found[way]) >= 5:
                continue
            worker.stdin.write(atoms + "\n")
            worker.stdin.flush()
            found[way].append(json.loads(worker.stdout.readline()))
    return [statistics.median(each) for each in found.values()]


def table(rows, load, steps):
    yield from (
        "# Threads",
        "",
        f"Written by `python benchmarks/threads.py`: energy and forces, ms of a step, medians of {steps} (of the last "
        f"column: 5), the ways in turns. Load {load:.1f} on {os.cpu_count()} cores at the start, without the busy loops.",
        "",
        models_line(MODEL),
        "",
        f"| busy loops beside | atoms | {' | '.join(WAYS.values())} | default / one | divided / one |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    )
    for busy, atoms, one, default, divided in rows:
        numbers = f"{one:.0f} | {default:.0f} | {divided:.0f} | {default / one:.2f} | {divided / one:.1f}"
        yield f"| {busy} | {atoms} | {numbers} |"
    yield from ("", NOTE, "")


# in the process of one way


def work(way):
    import numpy as np
    import torch
    from ase.build import bulk

    from ase_mlelec import DeepDOSCalculator, threads

    if way == "one":
        torch.set_num_threads(1)
    if way == "operations":  # as if the calculator did nothing about threads
        threads._given.threads = 1
    random, made = np.random.default_rng(0), {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            made[name] = bulk("Si", cubic=True) * CELLS[name]
            made[name].rattle(0.05, seed=1)
            made[name].calc = DeepDOSCalculator(MODEL, device="cpu", on_extrapolation="ignore")
            made[name].get_forces()
        made[name].positions += random.normal(0, 1e-3, made[name].positions.shape)
        start = time.perf_counter()
        made[name].get_forces()
        print(json.dumps(1e3 * (time.perf_counter() - start)), flush=True)


if __name__ == "__main__":
    main()
