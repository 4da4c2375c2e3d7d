"""One program, one model, one structure, in a process of its own: run.py starts it for either program.

Every evaluation sees new positions (each atom moved by about 0.01 Å, as in a step of molecular dynamics), so that nothing
is remembered but the neighbour list, which is part of what is compared.
"""
import argparse
import json
import os
import time

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_INTRA_OP_PARALLELISM_THREADS",
           "DP_INTRA_OP_PARALLELISM_THREADS")


def ours(model, quantity):
    """(function of Atoms -> dict of arrays, versions)"""
    import torch

    import ase_mlelec
    cls = ase_mlelec.DeepPotCalculator if quantity == "energy" else ase_mlelec.DeepDOSCalculator
    calc = cls(model)
    evaluate = _ase_results(calc) if quantity == "energy" else lambda atoms: {"ados": calc.get_ados(atoms)}
    return evaluate, {"ase-mlelec": ase_mlelec.__version__, "torch": torch.__version__}


def peer(model, quantity):
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
    for name in ("program", "quantity", "model", "structure", "output"):
        parser.add_argument(name)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.update({name: str(arguments.threads) for name in THREADS}, TF_INTER_OP_PARALLELISM_THREADS="1",
                      DP_INTER_OP_PARALLELISM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
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
