"""Few structures of many species: error bars, and little memory."""

import numpy as np
import pytest
from ase import Atoms

from ase_mlelec import DeepPotCalculator
from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.train.basis import MOST
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.error_bars import MOST_WEIGHTS
from ase_mlelec.train.last_layer import n_weights
from ase_mlelec.train.recipe import train


@pytest.mark.slow
def test_three_species_have_bars(tmp_path):
    rng, frames = np.random.default_rng(0), []
    for _ in range(3):
        places = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]]) + rng.normal(0, 0.05, (3, 3))
        frames.append(Frame(Atoms("CNO", places), {"energy": rng.normal(), "forces": rng.normal(size=(3, 3))}))
    write_hdf5(tmp_path / "a.h5", Frames(frames))
    sections = {"data": {"files": ["a.h5"]}, "power_spectrum": {}, "energy": {"widths": []}}
    model = train(parse_config(sections | {"output": {"model": "a.safetensors"}}, tmp_path), progress=False)
    assert n_weights(model.heads["energy"]) <= MOST < MOST_WEIGHTS
    frames[0].atoms.calc = DeepPotCalculator(model, on_extrapolation="ignore")
    frames[0].atoms.get_potential_energy()
    assert frames[0].atoms.calc.uncertainty["energy"] > 0
