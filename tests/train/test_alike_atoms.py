"""Species whose atoms are all equivalent by symmetry in the training data do not spoil the fit of the others."""

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.recipe import train
from ase_mlelec.train.standardize import mean_and_inverse


def labeled(atoms):
    atoms.calc = EMT()
    return Frame(Atoms(atoms), {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()})


def test_a_symmetric_molecule_among_others(tmp_path):
    """The two atoms of N2 are the only nitrogen; their features differ by rounding, which must not become the unit."""
    others = [molecule("H2O"), molecule("H2O")]
    for k, atoms in enumerate(others):
        atoms.positions += np.random.default_rng(k).normal(0, 0.05, atoms.positions.shape)
    frames = Frames([labeled(atoms) for atoms in (molecule("N2"), *others)])
    write_hdf5(tmp_path / "d.h5", frames)
    small = {"n_radial": 3, "l_max": 2, "near": 0}
    settings = {"data": {"files": ["d.h5"], "validation_fraction": 0.0}, "power_spectrum": small}
    settings |= {"energy": {"widths": []}, "output": {"model": "m.safetensors"}}
    model = train(parse_config(settings, tmp_path), progress=False)
    assert float(model.heads["energy"].nets.inverse.max()) < 1e6
    assert errors(model, frames)["forces_rmse_meV_per_A"] < 100


def test_spread_of_rounding():
    features = torch.tensor([[1.0, 20.0], [1.0 + 1e-15, 20.0 - 1e-14]], dtype=torch.float64)
    for weights in (None, torch.tensor([1.0, 0.5], dtype=torch.float64)):
        mean, inverse = mean_and_inverse(features, weights)
        assert 1e-2 < float((inverse * mean).max()) < 2
    zero = mean_and_inverse(torch.zeros(2, 2), None)[1]
    assert bool(torch.isfinite(zero).all())
