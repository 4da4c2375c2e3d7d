"""The script that made the magnesium oxide data set, as far as it goes without the programs for DFT."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read, write

from ase_mlelec.data.frames import read_frames
from ase_mlelec.io.espresso import Projections, PwResult
from ase_mlelec.physics import ewald

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "dft"))
import espresso
import kmesh
import mgo
import mgo_convergence
import mgo_labels
from born_mayer import CHARGE, REPULSION, BornMayer
from mgo_structures import MODEL_PLAN, PLAN, TESTS, TRAINING, lattice, model_snapshot, sample, snapshot

# the classical potential ----------------------------------------------------------------------------------------------


def displaced(a=3.4, size=0.1, repeat=1):
    atoms = bulk("MgO", "rocksalt", a=a, cubic=True) * repeat
    atoms.rattle(size, seed=1)
    atoms.calc = BornMayer()
    return atoms


def test_forces_are_derivatives():
    atoms = displaced()
    forces, numerical = atoms.get_forces(), np.zeros((8, 3))
    assert abs(forces.sum(axis=0)).max() < 1e-9
    for atom, axis in np.ndindex(numerical.shape):
        energies = []
        for step in 1e-4, -1e-4:
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = BornMayer()
            energies.append(moved.get_potential_energy())
        numerical[atom, axis] = (energies[1] - energies[0]) / 2e-4
    np.testing.assert_allclose(forces, numerical, atol=1e-5)


def test_coulomb_forces_are_near_those_of_ewald():
    """The damped and shifted sum against the whole one, the repulsion taken off; and both end at the cutoff."""
    import torch

    atoms = displaced()
    positions = torch.tensor(atoms.positions, requires_grad=True)
    charges = torch.tensor([CHARGE[symbol] for symbol in atoms.symbols], dtype=torch.float64)
    (whole,) = torch.autograd.grad(-ewald.energy(positions, charges, torch.tensor(atoms.cell.array)), positions)
    own = atoms.get_forces()
    repeat = 2 * np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) * atoms.cell[0, 0]
    shifts = np.concatenate([repeat / 2 * n for n in (1, 2, 3)])
    shifts = np.unique(np.round(shifts, 9), axis=0)
    for i, j in np.ndindex(8, 8):
        vectors = atoms.positions[j] + shifts - atoms.positions[i]
        r = np.linalg.norm(vectors, axis=1)
        vectors, r = vectors[(r > 1e-6) & (r < 7)], r[(r > 1e-6) & (r < 7)]
        strength, length = REPULSION[tuple(sorted((atoms.symbols[i], atoms.symbols[j])))]
        own[i] += (strength / length * np.exp(-r / length) / r) @ vectors
    assert abs(whole).max() > 4
    np.testing.assert_allclose(own, whole.numpy(), atol=0.35)
    assert BornMayer().coulomb(7.0) == pytest.approx((0, 0), abs=1e-12)


# structures -----------------------------------------------------------------------------------------------------------


def test_plan():
    """No seed twice, none of those that are kept for others; tests at pressures between those that train."""
    plans = PLAN + MODEL_PLAN
    seeds = [seed for _, _, constants, count, first in plans for seed in range(first, first + count * len(constants))]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 1000
    for one, middle, other in zip(TRAINING, TESTS, list(TRAINING)[1:]):
        assert one < middle < other
        assert TESTS[middle] == pytest.approx((TRAINING[one] + TRAINING[other]) / 2, abs=0.5)
    roles = [
        mgo_labels.role(f"{kind}-{n}-{1000 * a:.0f}-{first + t * count + k:03d}")
        for kind, n, constants, count, first in plans
        for t, a in enumerate(constants)
        for k in range(count)
        if a in TRAINING and n < 64
    ]
    assert set(roles) == {"train", "validation", "size", "hot", "hot_test"}
    for one, held in ("train", "validation"), ("hot", "hot_test"):
        assert 0.1 < roles.count(held) / (roles.count(one) + roles.count(held)) < 0.2
    assert mgo_labels.role("einstein-8-3347-205") == "test"
    assert {mgo_labels.role(f"model-{rest}") for rest in ("8-3502-515", "64-3560-549", "16-3270-551")} == {"hot_test"}
    planned = {f"{kind}-{n}-{1000 * a:.0f}" for kind, n, constants, *_ in plans for a in constants}
    assert all(
        name.rsplit("-", 1)[0] in planned for name in (*mgo_convergence.CONVERGENCE, *mgo_convergence.PULAY_STRUCTURES)
    )


@pytest.mark.parametrize("kind", ["einstein", "classical"])
def test_displacements(kind):
    """Those of a crystal at 5,000 K, smaller under more pressure; ions stay at their sites."""
    found = {}
    for a in 3.293, 3.502:  # not strained
        moved = []
        for seed in range(6 if kind == "einstein" else 2):
            atoms = snapshot(kind, 8, a, seed)
            assert atoms.cell.cellpar() == pytest.approx([a] * 3 + [90] * 3)
            shift = atoms.positions - bulk("MgO", "rocksalt", a=a, cubic=True).positions
            moved.append(shift - shift.mean(axis=0))
        found[a] = np.sqrt(np.mean(np.square(moved)) * 8 / 7)
        assert abs(np.array(moved)).max() < 0.6
    wanted = {a: np.sqrt(units.kB * 5000 / 49) * (a / 3.55) ** 4.5 for a in found}  # 0.094 Å at 3.55 Å
    for a in found:
        assert found[a] == pytest.approx(wanted[a], rel=0.15 if kind == "einstein" else 0.35)
    assert found[3.293] < found[3.502]


def test_cells_that_train_are_strained():
    volumes = [snapshot("einstein", 16, 3.38, seed).get_volume() for seed in range(20)]
    assert np.mean(volumes) == pytest.approx(2 * 3.38**3, rel=0.01) and 0.004 < np.std(volumes) / (2 * 3.38**3) < 0.03
    angles = snapshot("einstein", 16, 3.38, 0).cell.angles()
    assert 0.05 < abs(angles - 90).max() < 4


class Springs(Calculator):
    """Atoms on springs to their sites, in a cell with 600 GPa at 3.27 Å."""

    implemented_properties = ["energy", "forces", "stress"]
    bulk_modulus = 2000  # GPa

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        scaled = atoms.get_scaled_positions(wrap=False)
        shift = (scaled - np.round(scaled * 2) / 2) @ atoms.cell.array
        pressure = (600 - self.bulk_modulus * np.log(atoms.get_volume() / 3.27**3)) * units.GPa
        self.results = {"energy": 0.0, "forces": -50 * shift, "stress": np.array([-pressure] * 3 + [0] * 3)}


def test_snapshots_of_a_model():
    """Its MD finds the density of the pressure; a run that leaves what is reasonable is dropped."""
    atoms = model_snapshot("model", 8, 3.293, 1, Springs())
    assert atoms.get_volume() == pytest.approx(3.27**3 * np.exp(46 / 2000), rel=0.01) and atoms.calc is None
    shift = atoms.positions - bulk("MgO", "rocksalt", a=atoms.cell[0, 0], cubic=True).positions
    assert 0.04 < np.std(shift - shift.mean(axis=0)) < 0.15
    hard = Springs()
    hard.bulk_modulus = 6000
    assert model_snapshot("model", 8, 3.56, 1, hard) is None


def test_sampling_goes_on_where_it_stopped(tmp_path):
    plan = [("einstein", 8, (3.27, 3.56), 3, 10), ("einstein", 16, (3.347,), 2, 30)]
    sample(tmp_path / "whole.extxyz", snapshot, plan)
    whole = read(tmp_path / "whole.extxyz", ":")
    assert [atoms.info["name"] for atoms in whole] == [
        *(f"einstein-8-3270-{k:03d}" for k in (10, 11, 12)),
        *(f"einstein-8-3560-{k:03d}" for k in (13, 14, 15)),
        "einstein-16-3347-030",
        "einstein-16-3347-031",
    ]
    write(tmp_path / "some.extxyz", whole[::2])
    sample(tmp_path / "some.extxyz", snapshot, plan)
    found = {atoms.info["name"]: atoms for atoms in read(tmp_path / "some.extxyz", ":")}
    assert len(found) == 8
    for atoms in whole:
        assert found[atoms.info["name"]] == atoms
        assert atoms.info["share"] == found[atoms.info["name"]].info["share"]


def test_labels_are_made_of_every_pressure_in_turn(tmp_path, monkeypatch):
    """At any time the same share of every kind and pressure is done, whatever their number."""
    sample(
        tmp_path / "all.extxyz",
        snapshot,
        [("einstein", 8, TRAINING, 6, 0), ("einstein", 8, TESTS, 2, 100), ("einstein", 16, (3.27,), 1, 200)],
    )
    done = []
    monkeypatch.setattr(mgo, "label", lambda atoms, work: done.append(atoms.info["name"].split("-")))
    monkeypatch.setattr(sys, "argv", ["mgo.py", "label", str(tmp_path / "all.extxyz"), str(tmp_path / "work")])
    mgo.main()
    assert len(done) == 39 and done[-1][1] == "16"
    half = [a for _, _, a, _ in done[:19]]
    assert sorted(half) == sorted(f"{1000 * a:.0f}" for a in [*TRAINING] * 3 + [*TESTS])


# labels ---------------------------------------------------------------------------------------------------------------


def small_bands(n_atoms=8, n=6):
    """Bands of a mesh that do not depend on k; 0.97 of four electrons per atom on the atoms, a gap from 10 to 20 eV."""
    levels = np.concatenate([np.linspace(-5, 10, 2 * n_atoms), np.linspace(20, 50, 3 * n_atoms)])
    shares = np.random.default_rng(0).random((5 * n_atoms, n_atoms))
    shares *= 0.97 / shares.sum(axis=1, keepdims=True)
    weights = point_weights((n, n, n))
    return Projections(np.tile(levels, (len(weights), 1)), weights, np.tile(shares, (len(weights), 1, 1)))


def listed_points(mesh):
    """Of k and -k, the one that comes first, the last coordinate running fastest: as pw.x has them with nosym."""
    points = []
    for k in np.ndindex(*mesh):
        if tuple(-x % n for x, n in zip(k, mesh)) not in points:
            points.append(k)
    return np.array(points)


def point_weights(mesh):
    points = listed_points(mesh)
    own = ((2 * points) % mesh == 0).all(axis=1)
    return np.where(own, 2, 4) / np.prod(mesh)


def test_levels_of_a_gap():
    atoms, bands = bulk("MgO", "rocksalt", a=3.4, cubic=True), small_bands()
    bands.eigenvalues[1:] += np.sign(bands.eigenvalues[1:] - 15)  # Γ has both edges
    found = mgo_labels.levels(atoms, bands)
    assert (found.valence_band_maximum, found.conduction_band_minimum) == (10.0, 20.0)
    assert found.projected_electrons == pytest.approx(0.97 * 32)
    plain = mgo_labels.levels(atoms, bands, 1)
    filling = 1 / (1 + np.exp((bands.eigenvalues - plain.fermi_level) / (8.617333e-5 * 5000)))
    assert bands.kpoint_weights @ filling.sum(axis=1) == pytest.approx(32, abs=1e-9)
    assert plain[1:] == found[1:] and 12 < found.fermi_level < 18
    # two levels, alike but for their energies: half way
    two = Projections(np.array([[1.0, 4.0]]), np.array([2.0]), np.zeros((1, 2, 1)))
    assert mgo_labels.fermi_level(two, 2, 5000.0) == pytest.approx(2.5, abs=1e-8)


def test_labels_and_the_data_set(tmp_path, monkeypatch, capsys):
    sample(tmp_path / "all.extxyz", snapshot, [("einstein", 8, (3.27, 3.347), 2, 4)])
    calls, work = [], tmp_path / "work"
    stress = np.diag([-1.0, -2.0, -3.0])

    def energy(atoms, directory):
        directory.mkdir(parents=True)
        calls.append(directory.name)
        return PwResult(
            list(atoms.symbols),
            atoms.cell.array,
            atoms.positions,
            -7.5,
            forces=np.arange(24.0).reshape(8, 3),
            stress=stress,
            fermi_level=1.0,
        )

    def projected(atoms, directory, kpts):
        assert kpts == (3, 3, 3)
        return small_bands(n=3)

    monkeypatch.setattr(mgo_labels, "DOS_MESH", 3)
    monkeypatch.setattr(mgo_labels, "calculate_energy", energy)
    monkeypatch.setattr(mgo_labels, "calculate_bands", projected)
    for _ in range(2):
        espresso.label_all(mgo_labels.label, tmp_path / "all.extxyz", work, "0/1", lambda atoms: atoms.info["share"])
    assert len(calls) == 4 and len(list(work.iterdir())) == 4  # the second time there was nothing to do
    mgo_labels.collect(work, tmp_path / "mgo.h5")
    output = capsys.readouterr().out
    assert "test: 2; by lattice constant in mÅ: {'3347': 2}" in output and "gaps from 10.00 to 10.00 eV" in output
    next(work.glob("*.npz")).unlink()  # a later collection adds to what is there
    mgo_labels.collect(work, tmp_path / "mgo.h5")
    frames = read_frames(tmp_path / "mgo.h5")
    assert [(frame.name, frame.group) for frame in frames] == [
        ("einstein-8-3270-004", "train"),
        ("einstein-8-3270-005", "validation"),
        ("einstein-8-3347-006", "test"),
        ("einstein-8-3347-007", "test"),
    ]
    assert frames.labels == ("energy", "forces", "virial", "ados", "dos")
    images = {atoms.info["name"]: atoms for atoms in read(tmp_path / "all.extxyz", ":")}
    for frame in frames:
        assert (frame.atoms.symbols == images[frame.name].symbols).all()
        np.testing.assert_allclose(frame.atoms.positions, images[frame.name].positions)
        virial = -stress * frame.atoms.get_volume() + 8 * mgo_labels.PULAY_VIRIAL * np.eye(3)
        np.testing.assert_allclose(frame.labels["virial"], virial)
        np.testing.assert_allclose(frame.labels["forces"], np.arange(24.0).reshape(8, 3))
        gap = abs(frames.energies) < 3  # from the Fermi level, in the middle
        assert frame.labels["energy"] == -7.5 and frame.labels["dos"][gap].max() < 1e-6
        below = np.trapezoid(frame.labels["dos"][frames.energies < 0], dx=frames.energies[1] - frames.energies[0])
        assert below == pytest.approx(32, rel=1e-3)
        # each atom has its share of every band, in single precision
        np.testing.assert_allclose(frame.labels["ados"].sum(axis=0), 0.97 * frame.labels["dos"], atol=1e-5)
        stored = dict(
            zip(frames.attributes["electronic_levels"]["columns"], frames.attributes["electronic_levels"][frame.name])
        )
        assert stored["conduction_band_minimum"] == 20 and stored["projected_electrons"] == pytest.approx(31.04)


@pytest.mark.parametrize("mesh", [(6, 6, 6), (6, 5, 3)])
def test_bands_between_points(mesh):
    """Bands of a few waves in k, in the order of pw.x: what was calculated stays, what lies between is found."""

    def band(k):
        x, y, z = 2 * np.pi * np.moveaxis(k, -1, 0)
        return np.stack([3 * np.cos(x) + np.cos(y + z) + 0.3 * np.sin(z) ** 2, 5 - np.cos(x) * np.cos(y)], axis=-1)

    points = listed_points(mesh)
    shares = np.stack([0.5 + 0.2 * np.cos(2 * np.pi * points[:, :2] / mesh[:2])] * 3, axis=-1)
    bands = Projections(band(points / mesh), point_weights(mesh), shares)
    assert kmesh.refined(bands, mesh, 1) is bands
    dense = kmesh.refined(bands, mesh, 3)
    found = dense.eigenvalues.reshape(*(3 * n for n in mesh), 2)
    grid = np.stack(np.meshgrid(*(np.arange(3 * n) / (3 * n) for n in mesh), indexing="ij"), axis=-1)
    np.testing.assert_allclose(found[::3, ::3, ::3], band(grid)[::3, ::3, ::3], atol=1e-12)
    assert dense.kpoint_weights.sum() == pytest.approx(2)
    assert dense.kpoint_weights @ dense.eigenvalues == pytest.approx(bands.kpoint_weights @ bands.eigenvalues)
    assert dense.kpoint_weights @ dense.site_weights[:, 0, 0] == pytest.approx(
        bands.kpoint_weights @ bands.site_weights[:, 0, 0]
    )
    if mesh == (6, 6, 6):  # straight lines are wrong by 3 (1 - cos 30°) = 0.40 in the first term alone
        assert abs(found - band(grid)).max() < 0.2
    with pytest.raises(ValueError, match=r"got 2 k points with weights from 0.5 to 1.5, need the .* reduced by time"):
        kmesh.unfold(mesh, np.array([0.5, 1.5]))


def test_convergence(tmp_path, monkeypatch):
    """Errors of meshes whose bands are known to be off by a factor, against the spread of the densest one's atoms."""
    small = {"CONVERGENCE_MESHES": (3, 4), "BEST_MESH": 4, "DOS_MESH": 3, "CONVERGENCE_WIDTHS": (0.04,)}
    for name, value in small.items():
        monkeypatch.setattr(mgo_convergence, name, value)
    monkeypatch.setattr(mgo_labels, "DOS_MESH", 3)
    plan = [("einstein", 8, (3.27,), 1, 0), ("einstein", 8, (3.38,), 1, 24)]
    sample(tmp_path / "all.extxyz", snapshot, plan)
    (tmp_path / "work" / "convergence").mkdir(parents=True)
    calls = []
    monkeypatch.setattr(mgo_convergence, "calculate_energy", lambda atoms, directory: directory.mkdir())

    def projected(atoms, directory, kpts):
        calls.append(kpts)
        bands = small_bands(n=kpts[0])
        return Projections(bands.eigenvalues, bands.kpoint_weights, bands.site_weights * (1 if kpts[0] == 4 else 0.9))

    monkeypatch.setattr(mgo_convergence, "calculate_bands", projected)
    for _ in range(2):
        mgo_convergence.convergence(tmp_path / "all.extxyz", tmp_path / "work", tmp_path / "table.csv")
    assert calls == [(3, 3, 3), (4, 4, 4)] * 2
    head, *rows = (line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines())
    assert len(rows) == 2 * 2 * 2 * 3  # structures, elements, ranges of energy, and meshes but for the best one
    dos = small_bands(n=3).site_dos(mgo_convergence.ENERGIES, width=0.04 * units.Ry)
    magnesium = bulk("MgO", "rocksalt", a=3.4, cubic=True).symbols == "Mg"
    spread = np.sqrt(dos[magnesium].var(axis=0).mean())
    for mesh, between, error in ("3^3", "0", 0.1), ("3^3", "1", 0.1), ("4^3", "0", 0.0):
        (row,) = (row for row in rows if row[:6] == ["einstein-8-3270-000", "Mg", "all", "0.04", mesh, between])
        wanted = error * np.sqrt(np.mean(dos[magnesium] ** 2))
        np.testing.assert_allclose([float(x) for x in row[6:]], [wanted, spread, wanted / spread], atol=1e-3)
        assert len(row) == len(head)


@pytest.mark.parametrize(
    "n_atoms, energy, dos, bands",
    [(8, (3, 3, 3), (6, 6, 6), 40), (16, (3, 3, 2), (6, 6, 3), 80), (64, (2, 2, 2), (3, 3, 3), 320)],
)
def test_inputs(tmp_path, monkeypatch, n_atoms, energy, dos, bands):
    """Points and bands of constant density; the DOS sees Γ, where the conduction band has its minimum."""
    given = {}
    monkeypatch.setattr(
        espresso,
        "run",
        lambda program, name, directory: given.setdefault(
            name, " ".join((Path(directory) / f"{name}.in").read_text().split())
        ),
    )
    monkeypatch.setattr(mgo_labels, "read_pw", lambda path: None)
    monkeypatch.setattr(mgo_labels, "read_projections", lambda path, output: None)
    atoms = Atoms(lattice(n_atoms, 3.4, np.random.default_rng(0)))
    mgo_labels.calculate_energy(atoms, tmp_path)
    mgo_labels.calculate_bands(atoms, tmp_path, mgo_labels.mesh(atoms, mgo_labels.DOS_MESH))
    assert "K_POINTS automatic {} {} {} 1 1 1".format(*energy) in given["scf"]
    assert "K_POINTS automatic {} {} {} 0 0 0".format(*dos) in given["nscf"]
    for name in "scf", "nscf":
        for text in "ecutwfc = 35", "ecutrho = 200", "smearing = 'fermi-dirac'", "nosym = .true.", "degauss = 0.0316":
            assert text in given[name]
    assert f"nbnd = {bands} " in given["nscf"] and f"nbnd = {3 * n_atoms} " in given["scf"]


def test_pulay(tmp_path, monkeypatch):
    """Energies that fall by 0.3 eV per atom and unit of the cutoff's logarithm."""
    monkeypatch.setattr(mgo_convergence, "PULAY_STRUCTURES", ("einstein-8-3270-000",))
    sample(tmp_path / "all.extxyz", snapshot, [("einstein", 8, (3.27,), 1, 0)])

    def energy(atoms, directory, cutoff):
        directory.mkdir(exist_ok=True)
        return PwResult([], None, None, -0.3 * 8 * np.log(cutoff))

    monkeypatch.setattr(mgo_convergence, "calculate_energy", energy)
    mgo_convergence.pulay(tmp_path / "all.extxyz", tmp_path, tmp_path / "pulay.csv")
    assert (tmp_path / "pulay.csv").read_text().splitlines()[1].endswith(",0.2000")
