"""One program, one model, one structure, in a process of its own: run.py starts it with the Python of either program.

Every evaluation sees new positions (each atom moved by about 0.01 Å, as in a step of molecular dynamics), so that
nothing can be remembered but what either program keeps between steps, such as a neighbor list.
"""

import argparse
import importlib
import json
import os
import time

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_INTRA_OP_PARALLELISM_THREADS",
    "DP_INTRA_OP_PARALLELISM_THREADS",
)


def ours(model, quantity):
    """(function of Atoms -> dict of arrays, dict of versions)"""
    import torch

    import ase_mlelec

    versions = {"ase-mlelec": ase_mlelec.__version__, "torch": torch.__version__}
    if quantity == "energy":
        return _ase_results(ase_mlelec.DeepPotCalculator(model, device="cpu")), versions
    if quantity == "dipole":
        return _vectors(ase_mlelec.load_model(model)), versions
    calc = ase_mlelec.DeepDOSCalculator(model, device="cpu")
    return lambda atoms: {"ados": calc.get_ados(atoms)}, versions


def _vectors(model):
    """The vectors as deepmd-kit has them, by a calculator: the displacements of its centroids from their atoms."""
    import ase_mlelec

    model.metadata.update(valence_charges={"O": 6, "H": 1}, electrons_per_centre={"O": 8})
    calc = ase_mlelec.DeepWannierCalculator(model, device="cpu")
    return lambda atoms: {"vectors": calc.get_centroids(atoms) - atoms.positions[atoms.numbers == 8]}


def peer(model, quantity):
    """The same of deepmd-kit; it has no ASE calculator for the DOS and for dipoles."""
    import deepmd
    import numpy as np

    backend = importlib.import_module("torch" if model.endswith(".pth") else "tensorflow")
    versions = {"deepmd-kit": deepmd.__version__, backend.__name__: backend.__version__}
    if quantity == "energy":
        from deepmd.calculator import DP

        return _ase_results(DP(model=model)), versions
    from deepmd.infer.deep_dipole import DeepDipole
    from deepmd.infer.deep_dos import DeepDOS

    net = {"dos": DeepDOS, "dipole": DeepDipole}[quantity](model)
    order = {symbol: k for k, symbol in enumerate(net.get_type_map())}

    def evaluate(atoms):
        types = np.array([order[symbol] for symbol in atoms.symbols])
        geometry = atoms.positions.reshape(1, -1), atoms.cell.array.reshape(1, 9), types
        if quantity == "dos":
            return {"ados": net.eval(*geometry, atomic=True)[1][0]}
        values = np.reshape(net.eval(*geometry, atomic=True), (-1, 3))  # of the oxygens, or of all atoms
        return {"vectors": values if len(values) < len(types) else values[types == 0]}

    return evaluate, versions


def _ase_results(calc):
    def evaluate(atoms):
        atoms.calc = calc
        return {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}

    return evaluate


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=["ours", "peer"])
    parser.add_argument("quantity", choices=["energy", "dos", "dipole"])
    for name in ("model", "structure", "output"):
        parser.add_argument(name)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, arguments.cores)
    os.environ.update(
        dict.fromkeys(THREADS, str(len(arguments.cores))),
        CUDA_VISIBLE_DEVICES="",
        TF_INTER_OP_PARALLELISM_THREADS="1",
        DP_INTER_OP_PARALLELISM_THREADS="1",
    )
    run(arguments)


def run(arguments):
    import numpy as np
    from ase import Atoms

    stored = np.load(arguments.structure)
    atoms = Atoms(stored["numbers"], stored["positions"], cell=stored["cell"], pbc=True)
    evaluate, versions = {"ours": ours, "peer": peer}[arguments.program](arguments.model, arguments.quantity)
    results = evaluate(atoms)  # also warms up; compared between the programs
    rng, seconds = np.random.default_rng(0), []
    for _ in range(arguments.repeats):
        atoms.positions = stored["positions"] + rng.normal(0, 0.01, stored["positions"].shape)
        start = time.process_time()
        evaluate(atoms)
        seconds.append(time.process_time() - start)
    np.savez(arguments.output, seconds=seconds, versions=json.dumps(versions), **results)


if __name__ == "__main__":
    main()
