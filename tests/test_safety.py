"""The repulsive core and the range of the training data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.calculators.fd import calculate_numerical_forces
from small_models import random_model

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.data.frames import read_frames
from ase_mlelec.edges import Edges
from ase_mlelec.physics.repulsion import zbl
from ase_mlelec.safety import RepulsiveCore, TrainingRange, shortest_distances
from ase_mlelec.system import System
from ase_mlelec.testing import random_atoms

SPECIES = ("Cu", "O")
SHORTEST = {("Cu", "Cu"): 2.2, ("Cu", "O"): 1.7, ("O", "O"): 1.9}


def guarded(seed=0, crowded=None, **options):
    model = random_model(seed, species=SPECIES, **options)
    model.core = RepulsiveCore.below(SPECIES, SHORTEST, crowded)
    return model


def energies(model, atoms):
    system = System.from_atoms(atoms)
    return model(system, Edges.build(system, model.cutoff), ("energy",))["energy"].detach()


def pair(symbols, distance):
    return Atoms(symbols, [[0, 0, 0], [distance, 0, 0]])


def test_nothing_changes_beyond_the_outer_distance():
    model, atoms = guarded(), random_atoms("Cu4O4", [7, 7, 7], seed=3, shortest=2.3)
    with_core = energies(model, atoms)
    model.core = None
    assert torch.equal(with_core, energies(model, atoms))


@pytest.mark.parametrize("symbols", ["Cu2", "CuO", "O2"])
def test_bare_repulsion_within_the_inner_distance(symbols):
    """Two atoms at their mean energies and the universal repulsion."""
    model, atoms = guarded(), pair(symbols, 0.4)
    first, second = (torch.tensor([float(z)]) for z in atoms.numbers)
    bias = sum(float(model.heads["energy"].nets.bias[SPECIES.index(symbol), 0]) for symbol in atoms.symbols)
    repulsion = float(zbl(torch.tensor([0.4], dtype=torch.float64), first, second))
    assert float(energies(model, atoms).sum()) == pytest.approx(bias + repulsion, rel=1e-12)


def test_the_share_of_the_core_by_hand():
    """Halfway between the two distances the switch is 1/2: half of the model's energy, and half of the repulsion."""
    model = guarded()
    inner, outer = (float(table[0, 1]) for table in (model.core.inner, model.core.outer))
    r = (inner + outer) / 2
    atoms, bias = pair("CuO", r), model.heads["energy"].nets.bias[:, 0]
    with_core = energies(model, atoms)
    core, model.core = model.core, None
    bare = energies(model, atoms)
    repulsion = zbl(torch.tensor(r, dtype=torch.float64), torch.tensor(29.0), torch.tensor(8.0))
    np.testing.assert_allclose(with_core, bias + (bare - bias) / 2 + repulsion / 4, rtol=1e-12)
    assert core.longest == pytest.approx(0.95 * 2.2)


def test_shares_of_several_neighbors_multiply():
    """An atom between two others keeps (1 - w1)(1 - w2) of its own energy."""
    model = guarded()
    atoms = Atoms("OCuO", [[-1.45, 0, 0], [0, 0, 0], [1.52, 0, 0]])
    with_core = energies(model, atoms)[1]
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.cutoff)
    center, share, _, repulsion = model.core.pairs(system, edges)
    repulsion = share * repulsion
    model.core = None
    bias, bare = model.heads["energy"].nets.bias[0, 0], energies(model, atoms)[1]
    assert len(share[center == 1]) == 2 and (share > 0.01).all() and (share < 0.99).all()
    keep = (1 - share[center == 1]).prod()
    assert float(with_core) == pytest.approx(
        float(bias + keep * (bare - bias) + repulsion[center == 1].sum() / 2), 1e-12
    )


@pytest.mark.parametrize("distance", [0.7, 1.0, 1.3, 1.5, 1.61])
def test_forces_and_stress_with_the_core(distance):
    atoms = Atoms(
        "CuOCuO", [[0, 0, 0], [distance, 0.2, 0.1], [2.9, 2.8, 0], [0.3, 2.4, 2.2]], cell=[5, 5.2, 4.9], pbc=True
    )
    atoms.calc = DeepPotCalculator(guarded(2), on_extrapolation="ignore")
    scale = np.abs(atoms.get_forces()).max()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-5), atol=1e-7 * scale)
    strain, step = atoms.copy(), 1e-5
    cell, sums = atoms.cell.array.copy(), []
    for sign in (1, -1):
        strain.set_cell(
            cell @ (np.eye(3) + sign * step * np.array([[1, 0.3, 0], [0.3, -0.4, 0], [0, 0, 0.2]])), scale_atoms=True
        )
        strain.calc = atoms.calc
        sums.append(strain.get_potential_energy())
        strain.set_cell(cell, scale_atoms=True)
    direction = np.array([1, -0.4, 0.2, 0, 0, 0.6])
    along = atoms.get_stress() @ direction
    assert along == pytest.approx((sums[0] - sums[1]) / (2 * step) / atoms.get_volume(), rel=1e-6, abs=1e-9 * scale)


CROWD = [2.0, 1.5]  # eV


def compressed(scale):
    atoms = random_atoms("Cu3O3", [5, 5, 5], seed=4, shortest=2.0)
    atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    return atoms


def test_crowded_atoms_by_hand():
    """Shares of the model's own energy and of the pair sum, with the sums written out."""
    model, atoms = guarded(3, CROWD), compressed(0.8)
    with_core, core = energies(model, atoms), model.core
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.cutoff)
    model.core = None
    bare, bias = energies(model, atoms).numpy(), model.heads["energy"].nets.bias[:, 0].detach().numpy()
    kinds = np.array([SPECIES.index(symbol) for symbol in atoms.symbols])
    wanted = np.zeros(6)

    def step(u):
        u = np.clip(u, 0, 1)
        return 10 * u**3 - 15 * u**4 + 6 * u**5

    shares = []
    for i in range(6):
        own, crowd, keep = 0.0, 0.0, 1.0
        for j, vec in zip(edges.neighbor[edges.center == i].tolist(), edges.vec[edges.center == i].numpy()):
            a, b, r = kinds[i], kinds[j], np.linalg.norm(vec)
            v = float(zbl(*(torch.tensor(float(x), dtype=torch.float64) for x in (r, *atoms.numbers[[i, j]]))))
            w = 1 - step((r - float(core.inner[a, b])) / float(core.outer[a, b] - core.inner[a, b]))
            reach = float(core.reach[a, b])
            own, keep = own + w * v / 2, keep * (1 - w)
            crowd += v / 2 * (1 - step((r - 0.6 * reach) / (0.4 * reach)))
        shares.append(step(crowd / CROWD[kinds[i]] - 1))
        b = bias[kinds[i]]
        wanted[i] = b + (1 - shares[-1]) * (keep * (bare[i] - b) + own) + shares[-1] * crowd
    assert 0 < min(shares) < 1 or 0 < max(shares) < 1  # some atoms are between
    np.testing.assert_allclose(with_core, wanted, rtol=1e-10)


def test_nothing_changes_up_to_the_crowd_of_the_training():
    model, atoms = guarded(3), compressed(1.0)
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.cutoff)
    bare = energies(model, atoms)
    model.core = RepulsiveCore.below(SPECIES, SHORTEST, [1e9, 1e9])
    most = [float(model.core.crowding(system, edges)[[symbol == s for symbol in atoms.symbols]].max()) for s in SPECIES]
    assert min(most) > 0
    model.core = RepulsiveCore.below(SPECIES, {}, most)
    if edges.shortest > float(model.core.outer.max()):
        assert torch.equal(energies(model, atoms), bare)
    np.testing.assert_allclose(energies(model, atoms), bare, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.7, 0.8, 0.9])
def test_forces_of_crowded_atoms(scale):
    atoms = compressed(scale)
    atoms.calc = DeepPotCalculator(guarded(3, CROWD), on_extrapolation="ignore")
    scale = np.abs(atoms.get_forces()).max()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-5), atol=1e-6 * scale)


def test_energy_rises_under_compression_whatever_the_net_says():
    model = guarded(5, [0.5, 0.5])
    values = []
    for scale in np.linspace(0.7, 0.3, 60):
        try:
            values.append(float(energies(model, compressed(scale)).sum()))
        except InputError:  # atoms on top of each other
            break
    assert len(values) > 10 and (np.diff(values) > 0).all()


def test_smooth_at_both_distances():
    """The second derivative has no jump: over a fifth of the distance it changes a fifth as much."""
    model = guarded()
    for edge in (float(model.core.inner[0, 1]), float(model.core.outer[0, 1])):
        changes = []
        for h in (1e-3, 2e-4):
            values = np.array([float(energies(model, pair("CuO", edge + k * h)).sum()) for k in range(-3, 4)])
            changes.append(np.ptp(np.diff(values, 2) / h**2))
        assert changes[1] < 0.3 * changes[0]


@pytest.mark.parametrize("symbols", ["Cu2", "CuO", "O2"])
def test_pairs_repel_down_to_contact(symbols):
    model = guarded(1)
    shortest = SHORTEST[tuple(pair(symbols, 1).get_chemical_symbols())]
    values = [float(energies(model, pair(symbols, r)).sum()) for r in np.arange(0.1, 0.8 * shortest, 0.02)]
    assert (np.diff(values) < 0).all()


def test_parts_of_the_centers_and_batches():
    """Chunks of centers, and structures together, have the energies of the whole."""
    model = guarded()
    images = [pair("CuO", 1.5), random_atoms("Cu3O3", [5, 5, 5], seed=1, shortest=1.3)]
    system = System.from_atoms(images)
    edges = Edges.build(system, model.cutoff)
    whole = model(system, edges, ("energy",))["energy"]
    parts = torch.cat([model(system, part, ("energy",))["energy"] for _, part in edges.chunks(3)])
    np.testing.assert_allclose(parts.detach(), whole.detach(), rtol=1e-13)
    np.testing.assert_allclose(torch.cat([energies(model, image) for image in images]), whole.detach(), rtol=1e-13)


def test_core_and_ranges_are_part_of_the_file(tmp_path):
    model, atoms = guarded(), random_atoms("Cu3O3", [5, 5, 5], seed=1, shortest=1.3)
    model.ranges["descriptor"] = fitted(model, [atoms])
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert torch.equal(again.core.outer, model.core.outer) and torch.equal(
        energies(again, atoms), energies(model, atoms)
    )
    for name, value in model.ranges.state_dict().items():
        assert torch.equal(again.ranges.state_dict()[name], value), name
    again.core = None
    again.save(tmp_path / "bare.safetensors")
    assert load_model(tmp_path / "bare.safetensors").core is None


def test_a_copy_in_single_precision_leaves_the_model_as_it_was():
    model = guarded()
    DeepPotCalculator(model, dtype="float32")
    assert model.core.outer.dtype == torch.float64


@pytest.mark.parametrize(
    "distances",
    [
        ([[2.0]], [[1.0]], [[3.0]]),
        ([[0.0]], [[1.0]], [[3.0]]),
        ([[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]),
        ([[np.nan]], [[2.0]], [[3.0]]),
        ([[1.0]], [[2.0]], [[1e9]]),
        ([[1.0]], [[2.0]], [[1.9]]),
    ],
)
def test_wrong_distances_are_refused(distances):
    with pytest.raises(ValueError, match="core: got distances"):
        RepulsiveCore(["Cu"], **dict(zip(("inner", "outer", "reach"), distances)))


@pytest.mark.parametrize("crowded", [[], [1.0, 2.0], [np.nan], [-1.0], [np.inf]])
def test_wrong_energies_are_refused(crowded):
    with pytest.raises(ValueError, match="core: got the energies"):
        RepulsiveCore(["Cu"], inner=[[1.0]], outer=[[2.0]], reach=[[3.0]], crowded=crowded)


def test_pairs_that_were_never_close_get_a_core_of_atomic_size():
    core = RepulsiveCore.below(("Cu", "O"), {("Cu", "Cu"): 2.2})
    assert float(core.outer[0, 0]) == pytest.approx(0.95 * 2.2)
    assert 0.6 < float(core.outer[1, 1]) < 1.2 and 1.0 < float(core.outer[0, 1]) < 1.8


def test_shortest_distances_by_pair():
    atoms = Atoms("CuOCu", [[0, 0, 0], [1.8, 0, 0], [0, 2.5, 0]])
    alone = Atoms("O2", [[0, 0, 0], [0, 0, 3.1]])
    found = shortest_distances([atoms, alone], SPECIES)
    assert found == pytest.approx({("Cu", "Cu"): 2.5, ("Cu", "O"): 1.8, ("O", "O"): 3.1})
    assert shortest_distances([Atoms("Cu")], SPECIES) == {}


# Range of the training data


def fitted(model, images):
    samples = []
    for atoms in images:
        system = System.from_atoms(atoms)
        edges = Edges.build(system, model.cutoff)
        environment = model.descriptor(system, edges)
        samples.append((environment.features.detach(), environment.species, torch.bincount(edges.center)))
    found = TrainingRange(model.species, model.descriptor.n_features)
    found.to(torch.float64).fit(samples)
    return found


def measures(model, known, images):
    images = images if isinstance(images, list) else [images]
    system = System.from_atoms(images)
    edges = Edges.build(system, model.cutoff)
    environment = model.descriptor(system, edges)
    along = known.project(environment.features, environment.species)
    counts = torch.bincount(edges.center, minlength=len(system.numbers))
    return (
        torch.maximum(known.atoms(along, environment.species), known.neighbors(counts, environment.species)),
        known.structures(along, environment.species, system.batch, len(images)),
    )


@pytest.mark.parametrize("few", [7, 10_000])
def test_ranges_are_those_of_all_atoms_joined(few, monkeypatch):
    """Principal components by the eigenvectors of a covariance; some structures lack a species."""
    monkeypatch.setattr("ase_mlelec.safety.training_range.SAMPLES", few)
    generator, samples = torch.Generator().manual_seed(1), []
    for k in range(24):
        species = torch.tensor([0, 1, 0, 0, 1])[: 1 + k % 5]
        features = torch.randn(len(species), 4, generator=generator, dtype=torch.float64) * torch.arange(1, 5) + k
        samples.append((features, species, torch.arange(len(species)) + k))
    known = TrainingRange(SPECIES, 4, 4).double().fit(samples)
    wider = 1 + 6 / 24 + (8 / 24) ** 4
    for k in range(2):
        every = torch.cat([features[species == k] for features, species, _ in samples])
        counts = torch.cat([counts[species == k] for _, species, counts in samples])
        mean, spread = every.mean(dim=0), every.std(dim=0, correction=0)
        torch.testing.assert_close(known.mean[k], mean, rtol=1e-12, atol=1e-12)
        inverse = 1 / (spread + 0.1 * spread.mean())
        some = (every[:: max(1, len(every) // few)] - mean) * inverse
        axes = known.axes[k] / inverse[:, None]
        values = torch.linalg.eigvalsh(some.T @ some).flip(0)
        torch.testing.assert_close(some.T @ some @ axes, axes * values, rtol=1e-9, atol=1e-9)
        along = (every - mean) @ known.axes[k]
        half = wider * (along.amax(dim=0) - along.amin(dim=0)) / 2
        torch.testing.assert_close(known.of_atoms.inverse[k], 1 / half, rtol=1e-9, atol=0)
        torch.testing.assert_close(
            known.of_neighbors.middle[k, 0], (counts.max() + counts.min()) / 2.0, check_dtype=False
        )
        own = torch.stack([x[s == k].mean(dim=0) for x, s, _ in samples if (s == k).any()]) - mean
        middle = (own @ known.axes[k]).amax(dim=0) + (own @ known.axes[k]).amin(dim=0)
        torch.testing.assert_close(known.of_structures.middle[k], middle / 2, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def copper():
    """A model, hot crystals of copper, and their range."""
    model = random_model(0, species=("Cu",), cutoff=4.0)
    images = []
    for seed in range(40):
        atoms = bulk("Cu", cubic=True) * 2
        atoms.set_cell(atoms.cell * (1 + 0.02 * np.sin(seed)), scale_atoms=True)
        atoms.rattle(0.08, seed=seed)
        images.append(atoms)
    return model, images, fitted(model, images[:30])


def test_the_training_data_are_within(copper):
    model, images, known = copper
    for atoms in images[:30]:
        here, whole = measures(model, known, atoms)
        assert here.max() <= 1 + 1e-9 and whole.max() <= 1 + 1e-9


def test_what_is_like_them_is_hardly_beyond(copper):
    model, images, known = copper
    assert max(float(measures(model, known, atoms)[1]) for atoms in images[30:]) < 1.1


def test_other_phases_densities_and_surfaces_are_beyond(copper):
    model, _, known = copper
    dense = bulk("Cu", cubic=True) * 2
    dense.set_cell(dense.cell / 2 ** (1 / 3), scale_atoms=True)
    slab = bulk("Cu", cubic=True) * (2, 2, 3)
    slab.cell[2] *= 3
    for atoms in (dense, slab, bulk("Cu", "bcc", a=2.87) * 3, Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]]), Atoms("Cu")):
        here, whole = measures(model, known, atoms)
        assert max(float(here.max()), float(whole.max())) > 1.3, atoms


def test_measures_of_a_batch_are_those_of_its_structures(copper):
    model, images, known = copper
    few = [images[33], Atoms("Cu"), images[35]]
    here, whole = measures(model, known, few)
    alone = [measures(model, known, atoms) for atoms in few]
    np.testing.assert_allclose(here, torch.cat([each for each, _ in alone]), rtol=1e-9)
    np.testing.assert_allclose(whole, torch.cat([each for _, each in alone]), rtol=1e-9)


def test_measures_do_not_change_under_rotation(copper):
    model, images, known = copper
    atoms = images[36].copy()
    atoms.rotate(50, "x", rotate_cell=True)
    for one, two in zip(measures(model, known, images[36]), measures(model, known, atoms)):
        np.testing.assert_allclose(one, two, rtol=1e-7)


@pytest.mark.parametrize("strain", [0.0, -0.05, -0.1, -0.2, -0.35])
def test_what_is_far_from_crowded_is_seen_at_a_glance(strain, monkeypatch):
    """The short cut gives what the sums over pairs give, and is taken where nothing is near."""
    model = load_model("si")
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
    atoms.rattle(0.05, seed=2)
    system = System.from_atoms(atoms)
    edges = Edges.build(system, model.cutoff)
    arguments = torch.arange(8, dtype=torch.float64), torch.zeros(1), system, edges
    found, is_far = model.core(*arguments), model.core._is_far_from_crowded(edges)
    monkeypatch.setattr(type(model.core), "_is_far_from_crowded", lambda *_: False)
    assert torch.equal(found, model.core(*arguments))
    assert is_far or strain < -0.04
    assert not is_far or torch.equal(found, arguments[0])
    assert not is_far or strain > -0.3


@pytest.mark.parametrize("calculator", [DeepPotCalculator, DeepWannierCalculator])
def test_neighbors_are_counted_within_the_cutoff_of_the_descriptor(calculator):
    """The two descriptors of ``ice`` have unlike cutoffs, and its neighbor list has the longer one."""
    frames = (
        read_frames(Path(__file__).parent.parent / "examples" / "data" / "ice.h5").select("train").take([0, 60, 120])
    )
    calc = calculator("ice", on_extrapolation="ignore")
    cutoffs = {descriptor.cutoff for descriptor in (calc.models[0].descriptor, calc.models[0].electronic)}
    assert len(cutoffs) == 2
    assert all(calc.get_extrapolation(atoms=frame.atoms.copy()).max() <= 1 for frame in frames)
