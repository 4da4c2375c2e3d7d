"""Makes deepmd_options_*.dp and deepmd_options.npz beside this file: models of deepmd-kit 3.2 with random weights and
the options that few models have, and what deepmd-kit's own NumPy backend computes with them.

    python tests/data/deepmd_options.py          # in an environment with deepmd-kit
"""

from pathlib import Path

import numpy as np
from deepmd.dpmodel.descriptor.se_e2_a import DescrptSeA
from deepmd.dpmodel.fitting.dos_fitting import DOSFittingNet
from deepmd.dpmodel.fitting.ener_fitting import EnergyFittingNet
from deepmd.dpmodel.model.dos_model import DOSModel
from deepmd.dpmodel.model.ener_model import EnergyModel
from deepmd.dpmodel.utils.serialization import save_dp_model

HERE = Path(__file__).parent
NAMES = ["O", "H", "SI"]
TYPES = np.array([0, 1, 1, 2, 0, 1, 2, 1, 0, 1])
BOX = np.array([[5.0, 0, 0], [0.7, 5.4, 0], [0, -0.5, 5.2]])
# descriptor, fitting net, model
MODELS = {
    "excluded": (
        dict(resnet_dt=True, type_one_side=False, exclude_types=[[0, 1]], env_protection=0.05),
        dict(atom_ener=[None, -13.6, -100.0]),
        dict(pair_exclude_types=[[2, 2]], atom_exclude_types=[1]),
    ),
    "functions": (dict(type_one_side=False, activation_function="gelu"), dict(activation_function="softplus"), dict()),
    "single": (dict(resnet_dt=True, precision="float32", exclude_types=[[1, 1]]), dict(), dict()),
    "dos": (
        dict(resnet_dt=True, exclude_types=[[0, 0], [1, 2]], activation_function="relu"),
        dict(exclude_types=[2], activation_function="silu"),
        dict(),
    ),
}


def make(kind, descriptor, fitting, model, seed):
    generator = np.random.default_rng(seed)
    se = DescrptSeA(
        **{"rcut": 3.0, "rcut_smth": 1.0, "sel": [9, 14, 9], "neuron": [3, 6], "axis_neuron": 2, "seed": seed}
        | descriptor
    )
    kinds = se.davg.dtype
    se.davg[..., 0] = generator.uniform(0.05, 0.2, (3, 1)).astype(kinds)
    se.dstd[..., 0] = generator.uniform(0.3, 0.6, (3, 1)).astype(kinds)
    se.dstd[..., 1:] = generator.uniform(0.2, 0.4, (3, 1, 1)).astype(kinds)
    options = {"neuron": [5, 5], "mixed_types": False, "seed": seed + 1} | fitting
    n_out = 4 if kind == "dos" else 1
    if kind == "dos":
        net = DOSFittingNet(3, se.get_dim_out(), numb_dos=n_out, **options)
    else:
        net = EnergyFittingNet(3, se.get_dim_out(), **options)
    net.bias_atom_e = generator.normal(0, 1, (3, n_out))
    whole = (DOSModel if kind == "dos" else EnergyModel)(se, net, NAMES, **model)
    whole.atomic_model.out_bias[:] = generator.normal(-5, 1, whole.atomic_model.out_bias.shape)
    return whole


def positions(generator):
    """[N, 3] Å, no two closer than 1.1 Å."""
    found = []
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3) @ BOX
    while len(found) < len(TYPES):
        new = generator.random(3) @ BOX
        if all(np.linalg.norm(new + shifts - old, axis=1).min() > 1.1 for old in found):
            found.append(new)
    return np.array(found)


def main():
    coordinates = positions(np.random.default_rng(1))
    stored = {"positions": coordinates, "cell": BOX, "types": TYPES, "names": NAMES}
    for seed, (name, (descriptor, fitting, options)) in enumerate(MODELS.items()):
        model = make(name, descriptor, fitting, options, seed)
        save_dp_model(HERE / f"deepmd_options_{name}.dp", {"model": model.serialize(), "backend": "dpmodel"})
        found = model.call(coordinates[None], TYPES[None], BOX[None].reshape(1, 9))
        stored[name] = found["atom_dos" if name == "dos" else "atom_energy"][0]
    np.savez_compressed(HERE / "deepmd_options.npz", **stored)


if __name__ == "__main__":
    main()
