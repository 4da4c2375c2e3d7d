"""Training of the LDOS: points in batches, learning rate, normalization, refit, committees, zero of energy."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot
from small_models import seeded

from ase_mlelec import load_model
from ase_mlelec.data import grid_points
from ase_mlelec.data.grid_points import GridData, fingerprints, relative
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.descriptors import Bispectrum
from ase_mlelec.heads import EnergyZero, LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.physics.total_energy import from_ldos
from ase_mlelec.train.checkpoint import load_checkpoint
from ase_mlelec.train.config import parse_config, read_config
from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.ldos.descent import LDOSLoss, LDOSProblem, fit_ldos, refit_last_layer
from ase_mlelec.train.ldos.errors import beside_labels, compared_ldos, ldos_errors, mean_ldos_errors
from ase_mlelec.train.ldos.standardize import SMALLEST, fit_zero, standardize_ldos
from ase_mlelec_entry_points.cli.main import main

DESCRIPTOR = Bispectrum(["Al"], 3, 3.2).double()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two snapshots, one of them with the LDOS at 100 of its 216 points."""
    folder = tmp_path_factory.mktemp("snapshots")
    write_snapshots(
        folder / "al.h5", [make_snapshot(0), make_snapshot(1, n_points=100)], energies=ENERGIES, attributes=ATTRIBUTES
    )
    return GridData(Snapshots(folder / "al.h5"), DESCRIPTOR, folder / "fingerprints.h5", progress=False)


def new_head(widths=(12, 12), seed=0):
    with seeded(seed):
        return LDOSHead(DESCRIPTOR.n_features, ENERGIES, widths)


def new_model(data, scaling="maximum", seed=0):
    head = new_head(seed=seed)
    standardize_ldos(head, data, scaling)
    return Model(DESCRIPTOR, {"ldos": head})


def fit(model, data, **options):
    return fit_ldos(model, data, **{"epochs": 4, "batch_size": 2, "progress": False, **options})


class Recorded(LDOSLoss):
    """The loss, and what it was asked for while gradients were wanted."""

    seen = []

    def __call__(self, head, item):
        if torch.is_grad_enabled():
            self.seen.append(item)
        return super().__call__(head, item)


def test_every_point_once_in_an_epoch(data):
    Recorded.seen = []
    fit(new_model(data), data, loss=Recorded(), epochs=1, batch_points=64)
    for k, sizes in ((0, [64, 64, 64, 24]), (1, [64, 36])):
        parts = [item for item in Recorded.seen if item.volume == data[k].volume and item.features is data[k].features]
        assert [len(item.points) for item in parts] == sizes
        points = torch.cat([item.points for item in parts])
        order = points.argsort()
        assert torch.equal(points[order], data[k].points) and not torch.equal(points, data[k].points)
        assert torch.equal(torch.cat([item.ldos for item in parts])[order], data[k].ldos)


def test_one_batch_of_all_points_is_the_whole_snapshot(data):
    whole, parts = new_model(data), new_model(data)
    fit(whole, data, epochs=1)
    fit(parts, data, epochs=1, batch_points=1000)
    for a, b in zip(whole.heads["ldos"].hidden.parameters(), parts.heads["ldos"].hidden.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_integrals_are_of_all_points_in_every_batch(data):
    """The DOS of a batch of points is that of the whole grid."""
    Recorded.seen = []
    model = new_model(data)
    fit(model, data, loss=Recorded(ldos=0.0, dos=1.0), epochs=1, batch_points=50)
    loss, head = LDOSLoss(ldos=0.0, dos=1.0), model.heads["ldos"]
    assert len(Recorded.seen) > 2
    for item in Recorded.seen:
        (k,) = (k for k in range(2) if item.features is data[k].features)
        assert float(loss(head, item)[0].detach()) == float(loss(head, data[k])[0].detach())


def test_cosine(data, tmp_path):
    fit(new_model(data), data, schedule="cosine", learning_rate=(4e-3, 0.0), curve=tmp_path / "curve.csv")
    rates = np.genfromtxt(tmp_path / "curve.csv", delimiter=",", names=True)["learning_rate"]
    np.testing.assert_allclose(rates, 4e-3 * np.cos(np.pi / 8 * np.arange(4)) ** 2, rtol=1e-12)


def test_interrupted(data, tmp_path, monkeypatch):
    """The same parameters to the bit."""
    options = dict(schedule="cosine", batch_points=64, checkpoint=tmp_path / "fit.checkpoint")
    whole, parts = new_model(data), new_model(data)
    fit(whole, data, **options | {"checkpoint": None})
    true_errors, calls = LDOSProblem.errors, []

    def failing(problem):
        calls.append(problem)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true_errors(problem)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LDOSProblem, "errors", failing)
        fit(parts, data, **options)
    resumed = new_model(data, seed=1)
    fit(resumed, data, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_scaling_to_the_spread(data):
    head = new_head(widths=(4000,))
    standardize_ldos(head, data, "spread")
    ldos = torch.cat([data[k].ldos for k in range(2)]).double().numpy()
    np.testing.assert_allclose(float(head.scale), np.sqrt(((ldos - ldos.mean(axis=0)) ** 2).mean()), rtol=1e-5)
    features = torch.cat([data[k].features[data[k].points] for k in range(2)])
    with torch.no_grad():
        outputs = head.hidden[0]((features - head.shift) @ head.inverse.T)
        head.last.weight.zero_()
        np.testing.assert_allclose(head.spectrum(features[:1])[0], ldos.mean(axis=0), rtol=1e-5)
    assert abs(float(outputs.var(dim=0, correction=0).mean()) - 1) < 0.1


@pytest.mark.parametrize("n_linear", [0, 3])
def test_principal_components(data, n_linear):
    """Mean 0, no correlations and spread 1, or less where the fingerprints hardly vary; the linear ones by themselves."""
    head = LDOSHead(DESCRIPTOR.n_features, ENERGIES, (6,), n_linear=n_linear).double()
    standardize_ldos(head, data, fingerprints="components")
    features = torch.cat([data[k].features[data[k].points] for k in range(2)]).double()
    found = ((features - head.shift) @ head.inverse.T).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    n_nets = DESCRIPTOR.n_features - n_linear
    for part in (slice(0, n_nets), slice(n_nets, None)):
        covariance = found[:, part].T @ found[:, part] / len(found)
        variances = covariance.diagonal()
        np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-6)
        correlations = np.atleast_2d(np.corrcoef(features[:, part].T)) if len(variances) else np.empty((0, 0))
        own = np.linalg.eigvalsh(correlations)
        np.testing.assert_allclose(variances, own / (own + SMALLEST * own.max(initial=0)), atol=2e-3)
    assert not head.inverse[:n_nets, n_nets:].any() and not head.inverse[n_nets:, :n_nets].any()


@pytest.mark.parametrize("hold", [0.0, 1e-3, 1.0])
def test_refit_is_least_squares(data, hold):
    """Against the rows of the same problem stacked, by singular values."""
    head, dos_weight = new_head(widths=(6,)), 30.0
    standardize_ldos(head, data)
    with torch.no_grad():
        before = torch.cat([head.last.weight.T, head.last.bias[None]]).double().numpy() * float(head.scale)
        rows, right, pull = [], [], 0.0
        for k in range(2):
            item = data[k]
            h = np.pad(head.activations(item.features).double().numpy(), ((0, 0), (0, 1)), constant_values=1.0)
            own = h[item.points]
            whole = (dos_weight * len(own)) ** 0.5
            rows += [own, whole * h.mean(axis=0)[None]]
            right += [item.ldos.double().numpy(), whole * (item.dos.double().numpy() / item.volume)[None]]
            pull += hold * len(own) * (own**2).mean()
    rows.append(pull**0.5 * np.eye(7))
    right.append(pull**0.5 * before)
    wanted = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
    refit_last_layer(head, data, dos_weight, hold)
    found = np.concatenate([head.last.weight.detach().T, head.last.bias.detach()[None]]) * float(head.scale)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_held_refit_stays(data):
    head = new_head()
    standardize_ldos(head, data)
    before = head.last.weight.detach().clone()
    refit_last_layer(head, data, 30.0, hold=1e9)
    torch.testing.assert_close(head.last.weight.detach(), before, rtol=1e-5, atol=1e-6)


def test_committee(tmp_path, capsys, monkeypatch):
    """Snapshots of two files, without a group, train; members differ but share fingerprints; the committee has the errors
    of the mean LDOS."""
    calls = []
    monkeypatch.setattr(grid_points, "fingerprints", lambda *arguments: calls.append(1) or fingerprints(*arguments))
    write_snapshots(tmp_path / "train.h5", [make_snapshot(0, group="")], energies=ENERGIES, attributes=ATTRIBUTES)
    for seed, name in (3, "more.h5"), (2, "test.h5"):
        one = [make_snapshot(seed, group="")]
        write_snapshots(tmp_path / name, one, energies=ENERGIES, attributes=ATTRIBUTES)
    (tmp_path / "al.toml").write_text(
        'committee = 2\n[data]\nfiles = ["train.h5", "more.h5"]\n[bispectrum]\ntwojmax = 3\ncutoff = 3.2\n[ldos]\n'
        'widths = [6]\nepochs = 2\nscaling = "spread"\nschedule = "cosine"\nbatch_points = 50\nhold = 1e-4\n'
        '[output]\nmodel = "al.safetensors"\n'
    )
    assert main(["train", str(tmp_path / "al.toml"), "--quiet"]) == 0
    names = [str(tmp_path / f"al-{k}.safetensors") for k in range(2)]
    assert len(calls) == 2
    models = [load_model(name) for name in names]
    assert [model.metadata["training"]["configuration"]["seed"] for model in models] == [0, 1]
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2 and not list(tmp_path.glob("*.fingerprints.h5"))
    capsys.readouterr()
    files = ["--json", str(tmp_path / "errors.json"), "--plot", str(tmp_path / "parity.png")]
    assert main(["test", *names, str(tmp_path / "test.h5"), *files]) == 0
    assert (tmp_path / "parity.png").stat().st_size > 10_000
    heading = capsys.readouterr().out.splitlines()[1].split()
    assert heading == ["member", "0", "member", "1", "committee"]
    data = GridData(Snapshots(tmp_path / "test.h5"), models[0].descriptor.double(), tmp_path / "f.h5", progress=False)
    with torch.no_grad():
        first, second = (model.heads["ldos"].spectrum(data[0].features).numpy() for model in models)
    assert np.abs(first - second).max() > 1e-4
    wanted = np.sqrt((((first + second) / 2 - data.snapshots[0].ldos) ** 2).mean())
    np.testing.assert_allclose(ldos_errors(models, data)["ldos"], wanted, rtol=1e-5)
    assert f'"ldos_rmse": {mean_ldos_errors(models, data)["ldos_rmse"]}' in (tmp_path / "errors.json").read_text()
    drawn, snapshot = compared_ldos(models, data), data.snapshots[0]
    dos, density, free = (drawn[name] for name in ("density of states", "electron density", "free energy"))
    np.testing.assert_allclose(dos[0], snapshot.dos / len(snapshot.atoms), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(((dos[1] - dos[0]) ** 2).mean()), ldos_errors(models, data)["dos"][0], rtol=1e-6)
    np.testing.assert_allclose(density[0], snapshot.density.ravel())
    np.testing.assert_allclose(free[1] - free[0], ldos_errors(models, data)["free_energy"], rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scaling": "minmax"}, "ldos.scaling: got 'minmax', need one of maximum, spread; correct it"),
        ({"schedule": "linear"}, "ldos.schedule: got 'linear', need one of plateau, cosine; correct it"),
        ({"hold": -1}, "ldos.hold: got -1, need at least 0"),
        ({"batch_points": -1}, "ldos.batch_points: got -1, need at least 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        parse_config({"data": {"files": ["a.h5"]}, "output": {"model": "a.safetensors"}, "ldos": options})


def test_bad_committee():
    with pytest.raises(ValueError, match="committee: got 0, need at least 1"):
        parse_config({"data": {"files": ["a.h5"]}, "output": {"model": "a.safetensors"}, "ldos": {}, "committee": 0})


def test_examples():
    """The configurations in the repository are understood."""
    paths = list((Path(__file__).parents[2] / "examples").glob("*.toml"))
    assert len(paths) > 8
    for path in paths:
        assert read_config(path).data.files


def strained_snapshots(path, slope):
    """Cells of four volumes, whose LDOS moves by ``slope`` (eV Å^3) times the density of the atoms."""
    snapshots = []
    for k, factor in enumerate((0.97, 0.99, 1.01, 1.03)):
        made = make_snapshot(k)
        atoms = made.atoms.copy()
        atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
        level = slope * (4 / atoms.get_volume() - 4 / made.atoms.get_volume())
        spectrum = 4 * np.exp(-(((ENERGIES - level) / 2) ** 2))
        ldos = np.broadcast_to(spectrum / atoms.get_volume(), made.ldos.shape)
        snapshots.append(replace(made, atoms=atoms, dos=spectrum, ldos=ldos))
    write_snapshots(path, snapshots, energies=ENERGIES, attributes=ATTRIBUTES)
    return Snapshots(path)


def test_zero_follows_the_density(tmp_path):
    """The slope is found, and relative to it the spectra of all volumes are one."""
    snapshots = strained_snapshots(tmp_path / "strained.h5", 150.0)
    zero = fit_zero(snapshots)
    assert zero.slopes["Al"] == pytest.approx(150.0, abs=1.5)
    volumes = [snapshot.atoms.get_volume() for snapshot in snapshots]
    assert np.mean([zero.level(["Al"] * 4, volume) for volume in volumes]) == pytest.approx(0, abs=1e-12)
    data = GridData(snapshots, DESCRIPTOR, tmp_path / "f.h5", progress=False, zero=zero)
    inside = slice(4, -4)  # beyond the ends of the grid the spectra are held
    for k in range(1, 4):
        np.testing.assert_allclose(data[k].dos[inside], data[0].dos[inside], atol=0.02)
        assert np.abs(snapshots[k].dos - snapshots[0].dos).max() > 0.1
    np.testing.assert_allclose(data[0].dos, data[0].ldos.mean(dim=0) * data[0].volume, atol=1e-4)  # 16 bits


def test_zero_of_one_density(data):
    """Without strain there is nothing to learn; energies are those of the file."""
    assert fit_zero(data.snapshots) == EnergyZero()


def test_relative_spectra():
    """A smooth spectrum moves as its formula does; beyond the grid it is held."""
    found = relative(ENERGIES, np.exp(-((ENERGIES / 2) ** 2)), 0.3)
    np.testing.assert_allclose(found[:-1], np.exp(-(((ENERGIES[:-1] + 0.3) / 2) ** 2)), atol=2e-4)
    assert found[-1] == pytest.approx(np.exp(-((ENERGIES[-1] / 2) ** 2)), rel=1e-12)


def test_zeros_that_differ(data):
    with pytest.raises(ValueError, match="different zeros of energy; give GridData zero=head.zero"):
        ldos_errors(Model(DESCRIPTOR, {"ldos": LDOSHead(DESCRIPTOR.n_features, ENERGIES, zero=EnergyZero(1.0))}), data)


def test_stops_at_nan(data, tmp_path):
    """A learning rate that is too large, and a snapshot whose fingerprints are NaN, with its name; the checkpoint is
    finite."""
    with pytest.raises(
        Diverged, match=r"stopped in epoch [123], learning rate 1e\+30: .*snapshot \d+ .*NaN or infinite"
    ):
        fit(new_model(data), data, learning_rate=(1e30, 1e29), checkpoint=tmp_path / "a")
    assert not (tmp_path / "a").exists() or all(
        bool(torch.isfinite(value).all()) for value in load_checkpoint(tmp_path / "a")["model"].values()
    )

    class Broken(LDOSLoss):
        def __call__(self, head, item):
            value, errors = super().__call__(head, item)
            return value * (torch.nan if torch.equal(item.ldos, data[1].ldos) else 1.0), errors

    with pytest.raises(
        Diverged, match=rf"epoch 1,.* the loss of snapshot 1 .{data.snapshots[1].name or 'unnamed'}. is NaN"
    ):
        fit(new_model(data), data, loss=Broken())


def test_free_energies_beside_the_labels(tmp_path):
    """The whole formula from the LDOS, on a way of its own, less labels that are 50 and 70 meV/atom higher and lower."""
    snapshots = []
    for k, away in enumerate((0.05, -0.07)):
        each = make_snapshot(k)
        core = ATTRIBUTES.get("core_density")
        total = from_ldos(
            each.ldos.reshape(*each.shape, -1),
            ENERGIES,
            each.atoms.cell.array,
            each.atoms.positions,
            [3.0] * len(each.atoms),
            each.temperature,
            xc="lda_pz",
            core_density=core,
        )["total"]
        snapshots.append(replace(each, energy=total + away * len(each.atoms)))
    write_snapshots(tmp_path / "a.h5", snapshots, energies=ENERGIES, attributes=ATTRIBUTES)
    found = re.fullmatch(
        r"free energies by the LDOS are ([-+.\d]+) meV/atom from the labels, ([.\d]+) around it \(2 snapshots\)",
        beside_labels(Snapshots(tmp_path / "a.h5")),
    )
    assert float(found[1]) == pytest.approx(10, abs=0.5) and float(found[2]) == pytest.approx(60, abs=0.5)
    write_snapshots(tmp_path / "b.h5", [make_snapshot(0)], energies=ENERGIES, attributes=ATTRIBUTES)
    assert beside_labels(Snapshots(tmp_path / "b.h5")) == ""
    short = replace(snapshots[0], dos=0.1 * snapshots[0].dos, fermi_level=None)
    write_snapshots(tmp_path / "c.h5", [short], energies=ENERGIES, attributes=ATTRIBUTES)
    assert re.match("free energies by the LDOS are not known: .*electrons", beside_labels(Snapshots(tmp_path / "c.h5")))
