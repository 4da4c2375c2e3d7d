"""One program, one model, one structure, in a process of its own: run.py starts it with the Python of either program.

Every evaluation sees new positions (each atom moved by about 0.01 Å, as in a step of molecular dynamics), so that
nothing can be remembered but what either program keeps between steps, such as a neighbour list.
"""
import argparse
import json
import os
import time

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_INTRA_OP_PARALLELISM_THREADS",
           "DP_INTRA_OP_PARALLELISM_THREADS")


def ours(model, quantity):
    """(function of Atoms -> dict of arrays, dict of versions)"""
    import torch

    import ase_mlelec
    versions = {"ase-mlelec": ase_mlelec.__version__, "torch": torch.__version__}
    if quantity == "energy":
        return _ase_results(ase_mlelec.DeepPotCalculator(model, device="cpu")), versions
    calc = ase_mlelec.DeepDOSCalculator(model, device="cpu")
    return lambda atoms: {"ados": calc.get_ados(atoms)}, versions


def peer(model, quantity):
    """The same of deepmd-kit; it has no ASE calculator for the DOS."""
    import deepmd
    import tensorflow
    versions = {"deepmd-kit": deepmd.__version__, "tensorflow": tensorflow.__version__}
    if quantity == "energy":
        from deepmd.calculator import DP
        return _ase_results(DP(model=model)), versions
    from deepmd.infer.deep_dos import DeepDOS
    net = DeepDOS(model)
    order = {symbol: k for k, symbol in enumerate(net.get_type_map())}

    def ados(atoms):
        types = [order[symbol] for symbol in atoms.symbols]
        _, atomic = net.eval(atoms.positions.reshape(1, -1), atoms.cell.array.reshape(1, 9), types, atomic=True)
        return {"ados": atomic[0]}
    return ados, versions


def _ase_results(calc):
    def evaluate(atoms):
        atoms.calc = calc
        return {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    return evaluate


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=["ours", "peer"])
    parser.add_argument("quantity", choices=["energy", "dos"])
    for name in ("model", "structure", "output"):
        parser.add_argument(name)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, arguments.cores)
    os.environ.update(dict.fromkeys(THREADS, str(len(arguments.cores))), CUDA_VISIBLE_DEVICES="",
                      TF_INTER_OP_PARALLELISM_THREADS="1", DP_INTER_OP_PARALLELISM_THREADS="1")
    run(arguments)


def run(arguments):
    import numpy as np
    from ase import Atoms
    stored = np.load(arguments.structure)
    atoms = Atoms(stored["numbers"], stored["positions"], cell=stored["cell"], pbc=True)
    evaluate, versions = {"ours": ours, "peer": peer}[arguments.program](arguments.model, arguments.quantity)
    results = evaluate(atoms)               # also warms up; compared between the programs
    rng, seconds = np.random.default_rng(0), []
    for _ in range(arguments.repeats):
        atoms.positions = stored["positions"] + rng.normal(0, 0.01, stored["positions"].shape)
        start = time.perf_counter()
        evaluate(atoms)
        seconds.append(time.perf_counter() - start)
    np.savez(arguments.output, seconds=seconds, versions=json.dumps(versions), **results)


if __name__ == "__main__":
    main()
