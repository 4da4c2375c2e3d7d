"""Dipole, Born charges and polarizability in extxyz files, where ASE and data sets look for them."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from small_data import make_wannier_frames

from ase_mlelec import DeepWannierCalculator, ElectronicRecorder
from ase_mlelec.analysis.trajectory import with_labels
from ase_mlelec.data.frames import read_frames
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import TensorHead, VectorHead
from ase_mlelec.model import Model
from ase_mlelec_entry_points.cli.main import main

NAMES = ["dipole", "born_charges", "polarizability"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    descriptor = DeepPotSE(["O", "Si"], 4.0, 1.0, (5,), 3, n_basis=5)
    heads = [kind(2, descriptor.n_features, descriptor.n_frame, [0], (6,)) for kind in (VectorHead, TensorHead)]
    model = Model(descriptor, {head.quantity: head for head in heads}).double()
    model.metadata = {"valence_charges": {"Si": 4.0, "O": 6.0}, "electrons_per_centre": {"O": 8.0}}
    return model


@pytest.fixture
def images():
    return [frame.atoms.copy() for frame in make_wannier_frames(2)]


def check(path, model, images):
    """The file has what the model gives, for ASE and as labels."""
    calc = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
    read, frames = ase.io.read(path, ":"), read_frames(path)
    for image, frame, atoms in zip(read, frames, images, strict=True):
        charges, tensor = calc.get_born_charges(atoms), calc.get_polarizability(atoms)
        np.testing.assert_allclose(image.get_dipole_moment(), calc.get_property("dipole", atoms), atol=1e-6)
        np.testing.assert_allclose(image.arrays["born_charges"], charges.reshape(-1, 9), atol=1e-6)
        np.testing.assert_allclose(image.info["polarizability"], tensor, atol=1e-6)
        np.testing.assert_allclose(frame.labels["born_charges"], charges, atol=1e-6)
        np.testing.assert_allclose(frame.labels["polarizability"], tensor, atol=1e-6)
        assert abs(charges).max() > 0.1 and "dipole" in frame.labels


@pytest.mark.parametrize("names", [NAMES, ["dipole", "born_effective_charges", "polarizability"]], ids=str)
def test_of_the_recorder(tmp_path, model, images, names):
    for atoms in images:
        atoms.calc = DeepWannierCalculator(model, device="cpu", on_extrapolation="ignore")
        recorder = ElectronicRecorder(atoms, tmp_path / "r.h5", names, extxyz=tmp_path / "r.extxyz")
        recorder()
        recorder.close()
    check(tmp_path / "r.extxyz", model, images)


def test_of_predict(tmp_path, model, images, capsys):
    model.save(tmp_path / "m.safetensors")
    images[0].set_array("tag", np.arange(len(images[0])))
    ase.io.write(tmp_path / "a.extxyz", images)
    assert not main(
        ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "a.extxyz"), "-o", str(tmp_path / "p.xyz")]
    )
    assert "2 structures with dipole (e Å), born_effective_charges (e), polarizability (Å^3)" in capsys.readouterr().out
    check(tmp_path / "p.xyz", model, images)
    assert (ase.io.read(tmp_path / "p.xyz", 0).arrays["tag"] == np.arange(len(images[0]))).all()


def test_results_of_another_structure_are_left_out():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    assert with_labels(atoms, {}).get_potential_energy() == energy
    atoms.positions[1, 2] = 2.6
    assert with_labels(atoms, {}).calc is None
    assert with_labels(atoms, {"energy": 1.0, "other": 2.0}).get_potential_energy() == 1.0
