"""Force errors of models with and without the long range, at the same cutoffs, on water and ice; cost of a step.

    python benchmarks/long_range.py water DEEPMD        # ../shared/reference/deepmd: folders water and dipole
    python benchmarks/long_range.py ice                 # examples/data/ice.h5
    python benchmarks/long_range.py cost
    python benchmarks/long_range.py table

Each of the first three adds its numbers to LONG_RANGE.json beside this file, and writes LONG_RANGE.md from all of it.
Energies are linear in ACE invariants of fixed size, fitted in closed form; centroids are closed forms too. All models of
a data set see the same structures. Water: every tenth frame of data_1 and data_2 trains, every eighth of data_0 tests;
centroids come from other frames, every second of the folder dipole. Processes that run at the same time, each with some of
the rows (``--rows 0 1``), share the work.
"""

import argparse
import fcntl
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_mlelec import DeepPotCalculator
from ase_mlelec.atomic_write import replacing
from ase_mlelec.calculators.parameters import fingerprint
from ase_mlelec.data.frames import Frames, join, read_frames, write_hdf5
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.recipe import train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples" / "dft"))
import water as liquid

NUMBERS, TABLE = HERE / "LONG_RANGE.json", HERE / "LONG_RANGE.md"
CUTOFFS = 4.0, 5.5
WIDTHS = {
    "without": None,
    "width 1.25 Å": {"width": 1.25},
    "width 1.25 Å, ε = 1.8": {"width": 1.25, "dielectric": 1.8},
    "width 0.8 Å": {"width": 0.8},
}


def water(folder):
    """Frames of energies and forces for training and tests, and frames of centroids."""

    def every(name, step):
        frames = read_frames(folder / "water" / name)
        return frames.take(range(0, len(frames), step))

    energies = [replace(frame, group="train") for name in ("data_1", "data_2") for frame in every(name, 10)]
    energies += [replace(frame, group="test") for frame in every("data_0", 8)]
    vectors = [replace(frame, group="train") for frame in liquid.vectors(folder / "dipole" / "atomic_system")[::2]]
    return join([Frames(energies, None, dict(liquid.CHARGES)), Frames(vectors, None, dict(liquid.CHARGES))])


def molecules(atoms: Atoms):
    """Number of the molecule of every atom: that of the nearest oxygen."""
    oxygen = np.flatnonzero(atoms.numbers == 8)
    return np.argmin([atoms.get_distances(k, oxygen, mic=True) for k in range(len(atoms))], axis=1)


def force_errors(model, frames):
    """RMSE of the forces on atoms and on whole molecules, meV/Å, and of the energy, meV/atom, about its mean."""
    calculator = DeepPotCalculator(model, on_extrapolation="ignore")
    of_atoms, of_molecules, energies = [], [], []
    for frame in frames:
        error = calculator.get_forces(frame.atoms) - frame.labels["forces"]
        of_atoms.append(error.ravel())
        sums = np.zeros((int((frame.atoms.numbers == 8).sum()), 3))
        np.add.at(sums, molecules(frame.atoms), error)
        of_molecules.append(sums.ravel())
        energies.append((calculator.get_potential_energy(frame.atoms) - frame.labels["energy"]) / len(frame.atoms))
    rmse = [1000 * float(np.sqrt(np.square(np.concatenate(part)).mean())) for part in (of_atoms, of_molecules)]
    return {"atoms": rmse[0], "molecules": rmse[1], "energy": 1000 * float(np.std(energies))}


def trained(frames, cutoff, far, name):
    """Model of a configuration, and the processor time of its training, s."""
    with tempfile.TemporaryDirectory() as folder:
        write_hdf5(Path(folder) / "data.h5", frames)
        table = {
            "data": {"files": ["data.h5"]},
            "power_spectrum": {"cutoff": cutoff, "near": 0.0, "n_pair": 10, "n_radial": 4, "l_max": 4},
            "energy": {"widths": []},
            "dipole": {},
            "output": {"model": "m.safetensors"},
        } | ({"long_range": far} if far else {})
        start = time.process_time()
        model = train(parse_config(table, folder), progress=False)
        seconds = time.process_time() - start
    print(name, cutoff, f"{seconds:.0f} s", flush=True)
    return model, seconds


def compare(name, frames, rows):
    """Errors of the models of a data set; ``rows`` are numbers of them, or empty for all."""
    test = frames.where(lambda frame: frame.group == "test" and "forces" in frame.labels)
    cases = [(cutoff, title, far) for cutoff in CUTOFFS for title, far in WIDTHS.items()]
    for cutoff, title, far in [cases[k] for k in rows or range(len(cases))]:
        model, seconds = trained(frames, cutoff, far, title)
        found = force_errors(model, test) | {"hash": fingerprint(model), "seconds": seconds, "tests": len(test)}
        keep(name, f"{cutoff:g} Å, {title}", found)


def cost():
    """Processor time of energy and forces with and without the long range, s, by one model whose long range changes."""
    frames = read_frames(HERE.parent / "examples" / "data" / "ice.h5").select("train").take(range(0, 135, 27))
    model, _ = trained(frames, 4.5, {"width": 1.25}, "cost")
    for title, width in ("without", None), ("width 1.25 Å", 1.25), ("width 1 Å", 1.0):
        if width is None:
            far, model.long_range = model.long_range, None
        else:
            model.long_range = replace(far, width=width)
        calculator = DeepPotCalculator(model, on_extrapolation="ignore")
        found = {"hash": fingerprint(model)}
        for times in 1, 2, 3, 4:
            atoms = frames[0].atoms * (times, times, times)
            calculator.get_forces(atoms)
            rounds = []
            for _ in range(3):
                atoms.rattle(1e-4, seed=0)
                start = time.process_time()
                calculator.get_forces(atoms)
                rounds.append(time.process_time() - start)
            found[str(len(atoms))] = min(rounds)
        keep("cost", title, found)


def keep(name, row, found):
    """Add a row to the file of numbers; processes wait for each other."""
    with open(tempfile.gettempdir() + "/mlelec_long_range.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
        numbers.setdefault(name, {})[row] = found
        with replacing(NUMBERS) as partial:
            partial.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table():
    """Text of the file of tables."""
    numbers = json.loads(NUMBERS.read_text())
    lines = [
        "# Models with and without the long range",
        "",
        "Regenerated by `python benchmarks/long_range.py {water DEEPMD, ice, cost}`; what the rows are: see the script.",
        "RMSE on structures held back; the energy about its mean error. Molecules: the sum of the forces on the atoms of a",
        "molecule, which interactions between molecules decide. Widths and ε were not chosen by validation structures: each",
        "row is one look at the tests. The default width, 1.25 Å, is that of Zhang et al. 2022, ε that of the liquid.",
    ]
    for name in ("water", "ice"):
        rows = dict(sorted(numbers.get(name, {}).items()))
        if not rows:
            continue
        lines += ["", f"## {name.capitalize()}, {next(iter(rows.values()))['tests']} structures", ""]
        lines += ["| cutoff, long range | atoms, meV/Å | molecules, meV/Å | energy, meV/atom | training, s | model |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [
            f"| {row} | {found['atoms']:.1f} | {found['molecules']:.1f} | {found['energy']:.3f} | {found['seconds']:.0f} | "
            f"`{found['hash']}` |"
            for row, found in rows.items()
        ]
    if "cost" in numbers:
        sizes = [key for key in next(iter(numbers["cost"].values())) if key.isdigit()]
        lines += ["", "## Energy and forces of ice, ms of processor time, by number of atoms", ""]
        lines += [f"| | {' | '.join(sizes)} | model |", f"|---|{'---|' * len(sizes)}---|"]
        lines += [
            f"| {row} | {' | '.join(f'{1000 * found[size]:.0f}' for size in sizes)} | `{found['hash']}` |"
            for row, found in numbers["cost"].items()
        ]
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("water", "ice", "cost", "table"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.what == "water":
        compare("water", water(arguments.folder), arguments.rows)
    elif arguments.what == "ice":
        compare("ice", read_frames(HERE.parent / "examples" / "data" / "ice.h5"), arguments.rows)
    elif arguments.what == "cost":
        cost()
    TABLE.write_text(table(), encoding="utf-8")
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
