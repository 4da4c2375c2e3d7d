"""Makes deepmd_dipole.dp, deepmd_polar.dp and deepmd.npz beside this file: two models trained for a moment on made-up
data by deepmd-kit 3.2 (TensorFlow backend, float64), and what deepmd-kit computes with them.

    python tests/data/deepmd_models.py          # in an environment with deepmd-kit and tensorflow-cpu
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TYPES = np.repeat([0, 1], [6, 12])
BOX = np.diag([6.0, 6.4, 6.8])
SHARED = {"neuron": [8, 8], "resnet_dt": True, "seed": 1, "precision": "float64"}
FITTINGS = {
    "dipole": SHARED | {"type": "dipole", "dipole_type": [0]},
    "polar": SHARED | {"type": "polar", "pol_type": [0, 1], "scale": [1.3, 0.7]},
}
DESCRIPTOR = {
    "type": "se_e2_a",
    "sel": [40, 80],
    "rcut_smth": 1.0,
    "rcut": 4.0,
    "neuron": [4, 8],
    "axis_neuron": 3,
    "type_one_side": True,
    "seed": 1,
    "precision": "float64",
}


def positions(n, generator):
    """[n, N, 3] Å: a cubic lattice of 3 x 3 x 2 sites, shaken."""
    sites = np.stack(np.meshgrid([0, 1, 2], [0, 1, 2], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3) / [3, 3, 2]
    return sites @ BOX + generator.normal(0, 0.25, (n, len(TYPES), 3))


def write_data(folder, generator):
    n = 4
    os.makedirs(folder / "set.000")
    np.savetxt(folder / "type.raw", TYPES, fmt="%d")
    (folder / "type_map.raw").write_text("O\nH\n")
    arrays = {
        "coord": positions(n, generator),
        "box": np.tile(BOX, (n, 1, 1)),
        "atomic_dipole": generator.normal(0, 0.1, (n, len(TYPES), 3)) * (TYPES == 0)[:, None],
        "atomic_polarizability": generator.normal(0, 0.1, (n, len(TYPES), 9)) + np.eye(3).ravel(),
    }
    for name, values in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", values.reshape(n, -1))


def train(folder, kind):
    """Train, freeze and convert; returns the path without its suffix."""
    data = {
        "model": {"type_map": ["O", "H"], "descriptor": DESCRIPTOR, "fitting_net": FITTINGS[kind]},
        "learning_rate": {"type": "exp", "start_lr": 0.01, "stop_lr": 1e-3, "decay_steps": 10},
        "loss": {"type": "tensor", "pref": 0.0, "pref_atomic": 1.0},
        "training": {
            "seed": 1,
            "numb_steps": 5,
            "disp_freq": 5,
            "save_freq": 5,
            "training_data": {"systems": [str(folder / "data")], "batch_size": 1},
        },
    }
    where = folder / kind
    where.mkdir()
    (where / "input.json").write_text(json.dumps(data))
    for command in ("dp --tf train input.json", "dp --tf freeze -o model.pb", "dp convert-backend model.pb model.dp"):
        subprocess.run(command.split(), cwd=where, check=True)
    return where / "model"


def main():
    from deepmd.infer.deep_dipole import DeepDipole
    from deepmd.infer.deep_polar import DeepPolar

    generator = np.random.default_rng(0)
    coordinates = positions(1, generator)
    stored = {"positions": coordinates[0], "cell": BOX, "types": TYPES}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data", generator)
        for kind, evaluator in ("dipole", DeepDipole), ("polar", DeepPolar):
            model = train(Path(folder), kind)
            values = evaluator(f"{model}.pb").eval(coordinates, BOX[None], TYPES, atomic=True)
            stored[kind] = np.reshape(values, (len(TYPES), *((3,) if kind == "dipole" else (3, 3))))
            (HERE / f"deepmd_{kind}.dp").write_bytes(Path(f"{model}.dp").read_bytes())
    np.savez_compressed(HERE / "deepmd.npz", **stored)


if __name__ == "__main__":
    main()
