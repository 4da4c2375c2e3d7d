"""Some training steps of one program in a process of its own; training_speed.py starts it with the Python of either.

python training_workload.py PROGRAM CASE.json RESULT.json CORE
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

from workload import THREADS


def ours(case):
    """CPU seconds of every step, and versions."""
    import torch

    import ase_mlelec
    from ase_mlelec.data.frames import join, read_frames
    from ase_mlelec.train.fit import FrameProblem
    from ase_mlelec.train.loop import Schedule
    from ase_mlelec.train.run import Run
    from ase_mlelec.train.standardize import standardize

    torch.manual_seed(0)
    frames = join([read_frames(Path(system)) for system in case["systems"]])
    model, loss = _model(case)
    standardize(model, frames)
    model.to(getattr(torch, case["precision"]))
    run = Run(FrameProblem(model, frames, loss, batch_size=case["batch"]), Schedule(1e-3, 1e-6), 10_000, None)
    marks = [time.process_time()]
    for _ in range(case["steps"]):
        run.make_step(False)
        marks.append(time.process_time())
    return marks, {"ase-mlelec": ase_mlelec.__version__, "torch": torch.__version__}


def _model(case):
    """(Model of one quantity, its loss) with the architecture of deepmd-kit's input."""
    import numpy as np

    from ase_mlelec.descriptors import DeepPotSE
    from ase_mlelec.heads import ScalarHead, SpectrumHead, VectorHead
    from ase_mlelec.model import Model
    from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss, VectorLoss

    nets, fitting = case["descriptor"], case["fitting"]
    descriptor = DeepPotSE(
        case["types"], nets["rcut"], nets["rcut_smth"], nets["neuron"], nets["axis_neuron"], nets["sel"]
    )
    common = {"widths": fitting["neuron"], "timestep": True}
    n = len(case["types"]), descriptor.n_features
    if fitting["type"] == "ener":
        return Model(descriptor, {"energy": ScalarHead(*n, **common)}).double(), EnergyLoss()
    if fitting["type"] == "dos":
        head = SpectrumHead(*n, np.arange(float(fitting["numb_dos"])), **common)
        return Model(descriptor, {"dos": head}).double(), SpectrumLoss()
    head = VectorHead(*n, descriptor.n_frame, fitting["sel_type"], **common)
    return Model(descriptor, {"dipole": head}).double(), VectorLoss()


def peer(case):
    """The same of deepmd-kit's own training; its loop is told nothing, its sessions are watched."""
    import deepmd
    import tensorflow
    from deepmd.main import main
    from deepmd.tf.train import trainer

    marks, former = [], trainer.run_sess

    def run_sess(session, operations, *arguments, **options):
        found = former(session, operations, *arguments, **options)
        if isinstance(operations, list):  # the step and the next batch
            marks.append(time.process_time())
        return found

    trainer.run_sess = run_sess
    precision = {"precision": case["precision"]}
    table = {
        "model": {
            "type_map": case["types"],
            "descriptor": {"type": "se_e2_a", "seed": 1, **case["descriptor"], **precision},
            "fitting_net": {"resnet_dt": True, "seed": 1, **case["fitting"], **precision},
        },
        "learning_rate": {"type": "exp", "decay_steps": 5000, "start_lr": 1e-3, "stop_lr": 1e-6},
        "loss": case["loss"],
        "training": {
            "training_data": {"systems": case["systems"], "batch_size": case["batch"]},
            "numb_steps": case["steps"] + 1,
            "disp_training": False,
            "seed": 1,
        },
    }
    Path("input.json").write_text(json.dumps(table))
    main(["train", "input.json"])
    return marks, {"deepmd-kit": deepmd.__version__, "tensorflow": tensorflow.__version__}


def main():
    program, case, result, core = sys.argv[1:]
    os.sched_setaffinity(0, [int(core)])
    os.environ.update(
        dict.fromkeys(THREADS, "1"),
        CUDA_VISIBLE_DEVICES="",
        TF_INTER_OP_PARALLELISM_THREADS="1",
        DP_INTER_OP_PARALLELISM_THREADS="1",
    )
    marks, versions = {"ours": ours, "peer": peer}[program](json.loads(Path(case).read_text()))
    seconds = [late - early for early, late in itertools.pairwise(marks)]
    Path(result).write_text(json.dumps({"seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()
