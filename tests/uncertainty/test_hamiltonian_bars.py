"""Bars of Hamiltonians: members that share hidden layers against explicit models, first order against diagonalization."""

import numpy as np
import pytest
import torch
from ase.io import write
from small_bilayers import graphene_bilayer, graphene_frame, mx2_bilayer, random_wannier_model

from ase_mlelec import WannierTBCalculator, load_model
from ase_mlelec.bands.members import changes_of_bands, changes_of_levels
from ase_mlelec.data.hamiltonians import write_hamiltonians
from ase_mlelec.heads.hamiltonian.members import last_layers
from ase_mlelec.physics import levels
from ase_mlelec.train.hamiltonian.error_bars import add_hamiltonian_error_bars
from ase_mlelec.train.hamiltonian.left_out import Rows, evenly, growths
from ase_mlelec.uncertainty import Posterior
from ase_mlelec.uncertainty.posterior import N_HAMILTONIANS
from ase_mlelec_entry_points.cli.main import main

KPTS = np.array([[0, 0, 0], [0.1, 0.2, 0], [1 / 3, 1 / 3, 0]])


@pytest.fixture(scope="module")
def graphene():
    frames = [graphene_frame(graphene_bilayer((0.1 * k, 0.2), noise=0.03, seed=k), name=f"g{k}") for k in range(4)]
    model = random_wannier_model("graphene", energy=True)
    return model, add_hamiltonian_error_bars(model, frames[:3], frames[3:], ridges=[1e-2])


def drawn(kind):
    """A model of Hamiltonians with small random posteriors of all last layers."""
    model, generator = random_wannier_model(kind), torch.Generator().manual_seed(0)
    for name, layer in last_layers(model.heads["hamiltonian"]).items():
        inputs = 1e-4 * torch.randn(layer.in_features + 1, 3, generator=generator, dtype=torch.float64)
        posterior = Posterior.from_factors(inputs, torch.eye(layer.out_features).double(), n_species=1)
        model.posteriors[f"hamiltonian/{name}"] = posterior
    return model


@pytest.mark.parametrize("kind", ["graphene", "mx2"])
@pytest.mark.slow
def test_members_share_what_is_before_the_last_layers(kind):
    """The elements of all members at once are those of the models that Model.members makes."""
    atoms = graphene_bilayer((0.3, 0.1), noise=0.02) if kind == "graphene" else mx2_bilayer((0.2, 0.1), noise=0.02)
    model = drawn(kind)
    calc = WannierTBCalculator(model, on_extrapolation="ignore")
    calc.get_hamiltonian(atoms)
    together = [each.hk(KPTS) for each in calc._member_hamiltonians()]
    alone = [
        WannierTBCalculator(each, on_extrapolation="ignore").get_hamiltonian(atoms).hk(KPTS)
        for each in model.members(N_HAMILTONIANS)
    ]
    assert abs(together[0] - calc.get_hamiltonian(atoms).hk(KPTS)).max() > 1e-5
    np.testing.assert_allclose(together, alone, atol=1e-12)
    bars = calc.get_uncertainty("hamiltonian", atoms=atoms)
    elements = [each.bloch.toarray() for each in calc._member_hamiltonians()]
    np.testing.assert_allclose(bars.bloch.toarray(), np.std(elements, axis=0), atol=1e-12)


def test_first_order_changes_of_levels():
    atoms, calc = mx2_bilayer(noise=0.05), WannierTBCalculator(drawn("mx2"), on_extrapolation="ignore")
    own, members = calc.get_hamiltonian(atoms), calc._member_hamiltonians()
    kpts = KPTS[1:2]  # without degenerate levels
    energies, changes = changes_of_levels(own, members, kpts)
    exact = np.stack([each.eigenvalues(kpts) for each in members]) - energies
    apart = np.diff(energies[0]).min()
    assert abs(exact).max() > 1e-4 and apart > 1e-3
    assert abs(changes - exact).max() < abs(exact).max() ** 2 * 22 / apart
    some = own.eigenvalues(kpts, n_bands=4, window=(energies.min(), energies.max()))
    found = changes_of_bands(own, members, kpts, np.append(some, [[np.nan]], axis=1))
    first = abs(energies[0] - some[0, 0]).argmin()
    np.testing.assert_allclose(found[:, :, :4], changes[:, :, first : first + 4], atol=1e-12)
    assert np.isnan(found[:, :, 4]).all()


def test_degenerate_levels_have_one_change():
    """It does not depend on the states that a solver returns for them."""
    atoms, calc = graphene_bilayer(), WannierTBCalculator(drawn("graphene"), on_extrapolation="ignore")
    own, members = calc.get_hamiltonian(atoms), calc._member_hamiltonians()
    energies, changes = changes_of_levels(own, members, KPTS)
    traces = [np.trace(each.hk(KPTS), axis1=1, axis2=2).real for each in (own, *members)]
    np.testing.assert_allclose(changes.sum(axis=2), np.array(traces[1:]) - traces[0], atol=1e-12)
    same = abs(np.diff(energies, axis=1)) < 1e-6
    assert not abs(np.diff(changes, axis=2)[:, same]).any()


def test_calculator(graphene):
    model, report = graphene
    assert set(report) == {"hamiltonian", "eigenvalues"} and report["hamiltonian"]["within_two"] > 0.85
    atoms = graphene_bilayer((0.3, 0.1), noise=0.02, seed=9)
    calc = atoms.calc = WannierTBCalculator(model, kpts=(3, 3, 1), on_extrapolation="ignore")
    eigenvalues = calc.get_property("eigenvalues", atoms)
    bars = calc.uncertainty["eigenvalues"]
    assert bars.shape == eigenvalues.shape and (bars > 0).all()
    bands = calc.band_structure("GMK", npoints=5)
    found = calc.get_band_uncertainty(bands)
    assert found.shape == bands.energies.shape and np.isfinite(found).all()
    kpts, weights = calc.get_hamiltonian().mesh((3, 3, 1))
    own, changes = calc._level_changes(kpts)
    on_mesh = WannierTBCalculator(model, kpts=kpts, on_extrapolation="ignore").get_uncertainty(
        "eigenvalues", atoms=atoms
    )
    first = model.posteriors["hamiltonian/onsite_C"]
    with_floor = np.hypot(changes.std(axis=0), first.floor("eigenvalues"))
    np.testing.assert_allclose(on_mesh[0], first.scale("eigenvalues") / first.scale("members") * with_floor, rtol=1e-9)
    spread = np.std([levels.fermi_level(own + change, weights, 4.0, 300.0) for change in changes])
    factor = model.posteriors["hamiltonian/onsite_C"].scales
    wanted = spread * factor["fermi_level"] / factor["members"]
    assert calc.uncertainty["fermi_level"] == pytest.approx(wanted, rel=1e-6)
    dos = calc.get_dos_uncertainty(np.linspace(-20, 20, 81), width=0.5)
    assert dos.shape == (81,) and dos.max() > 0
    atoms.rattle(0.05, seed=1)  # of the present structure
    assert calc.uncertainty["eigenvalues"].ravel() != pytest.approx(bars.ravel(), rel=1e-3)


def test_left_out_structures_count(graphene):
    """Errors of all structures, and the training structures say that they were left out."""
    report = graphene[1]["eigenvalues"]
    assert report["calibrated_on"] == "validation data and training structures that were left out"
    assert report["errors"] % 4 == 0 and report["errors"] >= 4 * 4  # four structures of four levels at least


def test_growth_where_a_structure_is_left_out():
    """Against the fit without its rows, whose matrices are written out."""
    generator, ridge = np.random.default_rng(0), 0.05
    rows = {name: generator.normal(size=(30, 6)) for name in ("onsite_C", "intra_C_C_near", "intra_C_O_near")}
    out = {"onsite_C": 2, "intra_C_C_near": 9, "intra_C_O_near": 4}
    sums, squares = {name: torch.as_tensor(part.T @ part) for name, part in rows.items()}, {}
    for name, n in out.items():
        own, normal = rows[name][:n], sums[name].numpy() + ridge * np.trace(sums[name].numpy()) / 6 * np.eye(6)
        before, after = (own @ np.linalg.inv(each) @ own.T for each in (normal, normal - own.T @ own))
        errors = np.linalg.inv(np.eye(n) - before)
        kind = "onsite" if name == "onsite_C" else "intra_near"
        new = np.array([np.sum(errors**2), n, np.trace(after), np.trace(before)])
        squares[kind] = squares.get(kind, 0) + new
    own = {name: Rows(torch.as_tensor(rows[name][:n].T @ rows[name][:n]), n) for name, n in out.items()}
    found = growths(own, sums, ridge)
    assert set(found) == set(squares)
    for kind, (a, b, c, d) in squares.items():
        np.testing.assert_allclose(found[kind], [(a / b) ** 0.5, (c / d) ** 0.5], rtol=1e-9)
    assert found["onsite"].errors > 1 and found["onsite"].bars > 1


def test_evenly():
    assert evenly(range(3), 5) == [0, 1, 2] and evenly(range(9), 3) == [0, 4, 8] and evenly([], 3) == []


def test_rotation_keeps_bars(graphene):
    calc, found = WannierTBCalculator(graphene[0], on_extrapolation="ignore"), []
    atoms = graphene_bilayer((0.3, 0.1), noise=0.02, seed=9)
    for angle in (0, 37):
        atoms.rotate(angle, "z", rotate_cell=True)
        found.append(calc.get_uncertainty("eigenvalues", atoms=atoms))
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-12)


def test_file_and_command(graphene, tmp_path, capsys):
    model, atoms = graphene[0], graphene_bilayer((0.3, 0.1), noise=0.02, seed=9)
    path, picture = tmp_path / "model.safetensors", tmp_path / "bands.png"
    model.save(path)
    again = WannierTBCalculator(load_model(path), on_extrapolation="ignore").get_uncertainty("eigenvalues", atoms=atoms)
    wanted = WannierTBCalculator(model, on_extrapolation="ignore").get_uncertainty("eigenvalues", atoms=atoms)
    np.testing.assert_array_equal(again, wanted)
    write(tmp_path / "atoms.xyz", atoms, format="extxyz")
    command = ["bands", str(tmp_path / "atoms.xyz"), "--model", str(path), "--points", "12", "--plot", str(picture)]
    assert main(command) == 0
    assert "standard deviations of the bands" in capsys.readouterr().out and picture.stat().st_size > 5000


@pytest.mark.parametrize("group", ["", "mine"])
def test_bars_of_data_without_groups(graphene, group, tmp_path, capsys):
    """As 'mlelec convert' writes them, or with the groups of the training."""
    frames = [graphene_frame(graphene_bilayer((0.1, 0.2), noise=0.03, seed=k), group=group) for k in range(2)]
    write_hamiltonians(tmp_path / "a.h5", frames, attributes={})
    model = random_wannier_model("graphene")
    model.metadata["training"] = {"configuration": {"data": {"train": ["mine"], "validation": ["other"]}}}
    model.save(tmp_path / "a.safetensors")
    out = tmp_path / "b.safetensors"
    assert main(["calibrate", str(tmp_path / "a.safetensors"), str(tmp_path / "a.h5"), "-o", str(out)]) == 0
    assert "2 Hamiltonians of the training, 0 to calibrate on" in capsys.readouterr().out
    assert load_model(out).posteriors


def test_without_posterior():
    calc = WannierTBCalculator(random_wannier_model("graphene"), on_extrapolation="ignore")
    calc.get_hamiltonian(graphene_bilayer())
    with pytest.raises(Exception, match="no posterior"):
        calc.get_uncertainty("hamiltonian")
    with pytest.raises(Exception, match="no posterior of the Hamiltonian; add error bars with 'mlelec calibrate'"):
        calc.get_band_uncertainty(calc.band_structure("GM", npoints=3))
