"""Error bars of a local density of states and of what follows from it."""

import numpy as np
import pytest
import torch
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot, random_ldos_model

from ase_mlelec import MLDFTCalculator, load_model
from ase_mlelec.data.grid_points import GridData
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.train.ldos.error_bars import add_ldos_error_bars


@pytest.fixture(scope="module", params=[(6, 6), (6, 40)], ids=["narrow", "wide"])
def calibrated(request, tmp_path_factory):
    """A model with hidden layers narrower and wider than the spectrum, other than the one that made the snapshots."""
    folder = tmp_path_factory.mktemp("snapshots")
    made = [make_snapshot(seed, "train" if seed < 4 else "validation") for seed in range(6)]
    write_snapshots(folder / "al.h5", made, energies=ENERGIES, attributes=ATTRIBUTES)
    snapshots, model = Snapshots(folder / "al.h5"), random_ldos_model(3, ("Al",), widths=request.param)
    train, validation = (
        GridData(snapshots.select(part), model.descriptor, folder / "points.h5", progress=False)
        for part in ("train", "validation")
    )
    report = add_ldos_error_bars(model, train, validation)
    return model, made, report, folder


def test_report(calibrated):
    model, _, report, _ = calibrated
    assert set(report) == set(model.metadata["error_bars"]) == {"ldos", "dos", "density", "energy"}
    for name, found in report.items():
        assert found["scale"] > 0 and found["calibrated_on"] == "validation data", name
    assert set(model.posteriors["ldos"].scales) == {*report, "members"}


def test_middle_of_the_training_data_is_not_rounded(calibrated):
    """Distances from it have the precision of the model."""
    model, _, _, folder = calibrated
    points = GridData(
        Snapshots(folder / "al.h5").select("train"), model.descriptor, folder / "again.h5", progress=False
    )
    head, posterior = model.heads["ldos"], model.posteriors["ldos"]
    features = torch.cat([points[k].features for k in range(len(points))]).to(head.scale)
    wanted = posterior.coordinates(head.activations(features), None).mean(dim=0).detach()
    assert posterior.center.dtype == torch.float64
    np.testing.assert_allclose(posterior.center[0], wanted, rtol=1e-11, atol=1e-11 * float(wanted.abs().max()))


def test_calculator(calibrated, tmp_path, monkeypatch):
    """Bars are the spread of members, which evaluate no fingerprint again."""
    model, made, _, _ = calibrated
    model.save(tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    atoms, calls, evaluate = made[4].atoms.copy(), [], Bispectrum.of_chunk
    calc = atoms.calc = MLDFTCalculator(model, on_extrapolation="ignore")
    atoms.get_potential_energy()
    monkeypatch.setattr(Bispectrum, "of_chunk", lambda *given, **named: calls.append(1) or evaluate(*given, **named))
    bars = {name: calc.uncertainty[name] for name in ("energy", "dos", "density", "fermi_level", "band")}
    levels = [member.get_fermi_level() for member in calc.members(16)]
    assert not calls
    assert bars["fermi_level"] == pytest.approx(np.std(levels), rel=1e-6)
    posterior = model.posteriors["ldos"]
    wanted = np.std([member.get_potential_energy(atoms) for member in calc.members(16)])
    assert bars["energy"] == pytest.approx(wanted * posterior.scale("energy") / posterior.scale("members"), rel=1e-6)
    assert bars["density"].shape == calc.grid() and bars["dos"].shape == ENERGIES.shape
    if len(posterior.inputs[0]) > len(ENERGIES):
        return
    forces = calc.uncertainty["forces"]
    assert forces.shape == (4, 3) and calc.uncertainty["stress"].shape == (6,)
    member_forces = [member.get_property("forces", atoms) for member in calc.members(16)]
    np.testing.assert_allclose(forces, np.std(member_forces, axis=0), rtol=1e-5)


def test_members_are_linear_in_the_last_layer(calibrated):
    model, made, _, _ = calibrated
    atoms = made[5].atoms
    calc = MLDFTCalculator(model, on_extrapolation="ignore")
    own = calc.get_ldos(atoms=atoms)
    mean = np.mean([member.get_ldos(atoms=atoms) for member in calc.members(4, atoms=atoms)], axis=0)
    np.testing.assert_allclose(mean, own, atol=1e-9 * np.abs(own).max() + 1e-12)
    assert torch.isfinite(model.posteriors["ldos"].inputs).all()
