"""kill -9 while results are written: is every row that was reported as written still there, with its numbers?

    python tests/analysis/kills.py --evaluate 300 --recorder 100

A child writes rows and reports each by a byte in a pipe; it is killed at a random moment.  Then the file must have all
rows that were reported, with the right numbers, and the same run must go on to its end.  In every other child the HDF5
file is replaced after each row, so that kills fall into that too.  Prints what is wrong; exit status 1 if anything is.
"""

import argparse
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read

from ase_mlelec.analysis import result_writer
from ase_mlelec.analysis.recorder import ElectronicRecorder
from ase_mlelec.analysis.trajectory import ResultFile, evaluate

N_ROWS = 60


class Numbers(Calculator):
    """Quantities that tell the structure they are of."""

    implemented_properties = ["energy"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = float(np.sin(self.atoms.positions).sum())

    def get_spectra(self, atoms=None):
        return np.sin(np.outer(atoms.positions[:, 0], np.arange(200)))

    def get_height(self, atoms=None):
        return atoms.positions[:, 2]


QUANTITIES = ["energy", "spectra", "height"]


def structure(k):
    """Number k; of different sizes, as rows then have to be filled up."""
    return Atoms(f"Si{2 + k % 3}", np.random.default_rng(k).uniform(0, 5, (2 + k % 3, 3)))


def run_evaluate(path, report):
    """Evaluate all structures; reports numbers of rows."""

    class Reporting(result_writer.ResultWriter):
        def append(self, rows):
            super().append(rows)
            report(self.n_rows)

    def images():
        yield from (structure(k) for k in range(N_ROWS))

    from ase_mlelec.analysis import trajectory

    trajectory.ResultWriter = Reporting
    return evaluate(Numbers(), images(), QUANTITIES, out=path, batch_size=3, progress=False)


def run_recorder(path, report):
    """A run of structures of one size, going on from the last row of an existing file."""
    first = max(ResultFile(path).n_rows - 1, 0) if path.exists() else 0
    atoms = structure(1)
    atoms.calc, start = Numbers(), atoms.positions.copy()
    atoms.positions = start + 0.01 * first
    recorder = ElectronicRecorder(atoms, path, QUANTITIES, extxyz=path.with_suffix(".extxyz"))
    for k in range(first, N_ROWS):
        atoms.positions = start + 0.01 * k
        recorder()
        report(k + 1)
    recorder.close()
    return recorder.results


def killed_at_random(run, path, rng, patience):
    """Number of rows that a child had reported when it was killed."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        result_writer.PATIENCE = patience
        run(path, lambda n: os.write(into, bytes([n])))
        os._exit(0)
    os.close(into)
    # from the start of the writing on, most of them early
    select.select([out], [], [], 60)
    time.sleep(rng.exponential(0.04))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    reported = b""
    while part := os.read(out, 4096):
        reported += part
    os.close(out)
    return max(reported, default=0)


def faults(run, path, expected, reported):
    """list of str, what is wrong after a kill."""
    found, stored = [], ResultFile(path)
    n = stored.n_rows
    if n < reported:
        found.append(f"{n} rows, {reported} were reported")
    arrays = {name: stored[name] for name in stored} if n else {}
    for name, values in arrays.items():
        size = np.minimum(values.shape, expected[name].shape)
        if len(values) != n or not np.array_equal(values, expected[name][tuple(map(slice, size))][:n], equal_nan=True):
            found.append(f"{name}: other numbers")
    whole = run(path, lambda n: None)
    found += [
        f"{name}: other numbers after going on"
        for name in expected
        if not np.array_equal(whole[name], expected[name], equal_nan=True)
    ]
    if path.with_suffix(".extxyz").exists() and len(read(path.with_suffix(".extxyz"), ":")) != N_ROWS:
        found.append("extxyz: another number of frames")
    left = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix not in (".h5", ".extxyz"))
    return found + [f"left: {', '.join(left)}"] * bool(left)


def count_faults(run, kills, rng, folder):
    """Kill ``run`` that often; prints what was wrong and returns how often something was."""
    expected = dict(run(folder / "whole.h5", lambda n: None))
    wrong, inside = 0, 0
    for k in range(kills):
        path = folder / f"{k}" / "run.h5"
        path.parent.mkdir()
        reported = killed_at_random(run, path, rng, patience=(50, 0)[k % 2])
        inside += 0 < reported < N_ROWS
        found = faults(run, path, expected, reported)
        if found:
            print(f"kill {k} of {run.__name__}: {'; '.join(found)}")
        wrong += bool(found)
    print(f"{run.__name__}: {wrong} of {kills} kills lost or changed rows; {inside} fell between first and last row")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluate", type=int, default=10, metavar="KILLS")
    parser.add_argument("--recorder", type=int, default=10, metavar="KILLS")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, wrong = np.random.default_rng(arguments.seed), 0
    for run, kills in (run_evaluate, arguments.evaluate), (run_recorder, arguments.recorder):
        with tempfile.TemporaryDirectory() as folder:
            wrong += count_faults(run, kills, rng, Path(folder))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
