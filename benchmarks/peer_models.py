"""Convert .dp models for deepmd-kit's TensorFlow backend, plain and compressed; run by its own Python, see run.py.

python peer_models.py MODEL.dp ...      # writes MODEL.pb and MODEL.compressed.pb beside them
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path


def compress(source, target):
    """What ``dp compress`` does; its own check wants settings of a training, which converted models do not carry."""
    module = importlib.import_module("deepmd.tf.entrypoints.compress")
    normalize = module.normalize

    def complete(tree):
        loss = {"type": "tensor", "pref": 0.0, "pref_atomic": 1.0}
        wanted = {"loss": loss} if tree["model"]["fitting_net"]["type"] == "dipole" else {}
        return normalize({**tree, "learning_rate": {"start_lr": 1e-3}, **wanted})

    module.normalize = complete
    module.compress(
        input=source,
        output=target,
        extrapolate=5,
        step=0.01,
        frequency=-1,
        training_script=None,
        checkpoint_folder="model-compression",
        mpi_log="master",
        log_path=None,
        log_level=2,
    )


def main():
    if sys.argv[1] == "compress":  # in a process of its own: it leaves a graph behind
        return compress(*sys.argv[2:])
    program = Path(sys.executable).with_name("dp")
    for name in map(Path, sys.argv[1:]):
        plain, compressed = name.resolve().with_suffix(".pb"), name.resolve().with_suffix(".compressed.pb")
        subprocess.run([program, "convert-backend", name, plain], check=True)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                [sys.executable, Path(__file__).resolve(), "compress", plain, compressed], check=True, cwd=scratch
            )


if __name__ == "__main__":
    main()
