"""Time of every capability on a GPU, beside one thread of the processor; at most five minutes.

    python benchmarks/gpu.py                       # where there is a GPU; writes GPU.md beside this file
    python benchmarks/gpu.py --device cpu --tiny   # a trial of the script anywhere, in seconds; writes nothing

Each capability runs for growing sizes until its part of the time is spent; results in either place are compared.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from hashes import models_line

from ase_mlelec import (
    DeepDOSCalculator,
    DeepPotCalculator,
    DeepWannierCalculator,
    MLDFTCalculator,
    WannierTBCalculator,
    load_model,
)
from ase_mlelec.data.frames import Frame, Frames
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead
from ase_mlelec.model import Model
from ase_mlelec.structures.twist import commensurate, twisted_bilayer
from ase_mlelec.train.fit import FrameProblem
from ase_mlelec.train.losses import EnergyLoss

HERE = Path(__file__).parent
SECONDS = 270.0  # for all; the rest of five minutes is for loading
REPEATS = 3
DERIVATIVES = ("energy", "forces", "stress")


def silicon(n):
    return bulk("Si", cubic=True) * (n, n, n)


def aluminium(n):
    """Cells of four atoms, n along each side; for 0 a single atom."""
    return bulk("Al", a=4.05, cubic=True) * (n, n, n) if n else bulk("Al", a=4.05)


def ice(n):
    """Water molecules on a cubic lattice at the density of ice."""
    from ase.build import molecule

    water = molecule("H2O")
    water.set_cell([3.1, 3.1, 3.1])
    water.pbc = True
    return water * (n, n, n)


def graphene(m):
    from ase.build import graphene as layer

    return twisted_bilayer(layer(a=2.46), layer(a=2.46), commensurate(m, 1), 3.35)[0]


def properties(kind, model, names):
    """A step of a calculator: function of the device and precision that returns a function of Atoms."""

    def made(device, dtype):
        calc = kind(model, device=device, dtype=dtype, on_extrapolation="ignore")

        def step(atoms):
            calc.reset()
            found = [getattr(calc, name)(atoms) if callable(getattr(calc, name, None)) else None for name in names]
            return [
                calc.get_property(name, atoms) if each is None else each
                for name, each in zip(names, found, strict=True)
            ]

        return step

    return made


def hamiltonian(device, dtype):
    calc = WannierTBCalculator("graphene", device=device, dtype=dtype, on_extrapolation="ignore")

    def step(atoms):
        calc.reset()
        return [calc.get_hamiltonian(atoms).hk(np.zeros((1, 3)))]

    return step


def training(device, dtype):
    """A step of gradient descent of a Deep Potential, four structures at a time."""
    torch.manual_seed(0)
    descriptor = DeepPotSE(("Si",), 6.0, 0.5, sel=(60,)).double()
    model = Model(descriptor, {"energy": ScalarHead(1, descriptor.n_features).double()})
    model = model.to(device=device, dtype=getattr(torch, dtype or "float64"))

    def step(atoms):
        labels = {"energy": np.array(0.0), "forces": np.zeros((len(atoms), 3))}
        problem = FrameProblem(
            model, Frames([Frame(atoms.copy(), labels) for _ in range(4)]), EnergyLoss(), batch_size=4
        )
        values = list(problem.loss(range(4), 1.0))
        gradients = torch.autograd.grad(values[0], problem.parameters, allow_unused=True)
        return [values[0].detach().cpu().numpy(), max(float(g.abs().max()) for g in gradients if g is not None)]

    return step


CAPABILITIES = {  # name: (step, structures, sizes, sizes of a trial)
    "energy, forces, stress (si)": (properties(DeepPotCalculator, "si", DERIVATIVES), silicon, (2, 5, 10, 16), (1,)),
    "energy, forces, stress (water)": (properties(DeepPotCalculator, "water", DERIVATIVES), ice, (4, 8, 16), (2,)),
    "density of states (si)": (properties(DeepDOSCalculator, "si", ("get_total_dos",)), silicon, (2, 5, 10), (1,)),
    "dipole (water)": (properties(DeepWannierCalculator, "water", ("dipole",)), ice, (4, 8, 16), (2,)),
    "ML-DFT: energy (al)": (properties(MLDFTCalculator, "al", ("energy", "fermi_level")), aluminium, (1, 2, 3), (0,)),
    "Hamiltonian (graphene)": (hamiltonian, graphene, (3, 7, 16), (1,)),
    "step of gradient descent (Deep Potential)": (training, silicon, (2, 3, 5), (1,)),
}


def timed(step, atoms, device):
    """(least seconds of a few runs after one, results)"""
    best, found = np.inf, step(atoms)
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step(atoms)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best, found


def difference(found, wanted):
    """Largest difference of results, relative to the largest number of each."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(found, wanted, strict=True)]
    return max(float(abs(a - b).max() / max(abs(b).max(), 1e-12)) for a, b in pairs)


def measure(device, seconds, tiny):
    """Rows of the table, list of dict."""
    rows, end = [], time.monotonic() + seconds
    for k, (name, (made, structure, sizes, trial)) in enumerate(CAPABILITIES.items()):
        share = (end - time.monotonic()) / (len(CAPABILITIES) - k)
        stop = time.monotonic() + share
        for size in trial if tiny else sizes:
            atoms = structure(size)
            atoms.rattle(0.02, seed=0)
            row = {"what": name, "atoms": len(atoms)}
            row["processor"], wanted = timed(made("cpu", None), atoms, "cpu")
            for dtype in ("float64", "float32"):
                row[dtype], found = timed(made(device, dtype), atoms, device)
                row[f"{dtype} differs"] = difference(found, wanted)
            rows.append(row)
            print(json.dumps(row), flush=True)
            if time.monotonic() > stop - 0.8 * share:  # the next size takes several times as long
                break
    return rows


def report(rows, name):
    lines = [
        "# Time on a GPU",
        "",
        f"Written by `python benchmarks/gpu.py` on {name}, PyTorch {torch.__version__}. The least of {REPEATS} wall times, "
        "seconds, after one run; the processor has one thread and the precision of the model. In brackets: largest "
        "difference from the processor, relative to the largest number.",
        "",
        models_line("si", "water", "al", "graphene"),
        "",
        "| | atoms | processor | GPU, float64 | GPU, float32 |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        cells = [f"{row[d]:.4f} ({row[f'{d} differs']:.0e})" for d in ("float64", "float32")]
        lines.append(f"| {row['what']} | {row['atoms']:,} | {row['processor']:.4f} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--tiny", action="store_true", help="one small size of each capability")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; try the script with --device cpu --tiny")
    torch.set_num_threads(1)
    for name in ("si", "water", "al", "graphene"):
        load_model(name)  # loading is not measured
    rows = measure(arguments.device, arguments.seconds, arguments.tiny)
    if arguments.device == "cuda":
        (HERE / "GPU.md").write_text(report(rows, torch.cuda.get_device_name()), encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
