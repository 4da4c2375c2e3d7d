"""Blocks of Hamiltonians: exact symmetries of a random head, and two-center formulas learnt from aligned bilayers."""

import functools

import numpy as np
import pytest
import torch
from small_bilayers import graphene_bilayer, graphene_frame, mx2_bilayer, mx2_frame, mx2_functions, random_wannier_model

from ase_mlelec.calculators.wannier_tb import WannierTBCalculator
from ase_mlelec.descriptors import LayerMoments
from ase_mlelec.descriptors.layer_moments import descriptor as descriptor_module
from ase_mlelec.edges import Edges
from ase_mlelec.heads import HamiltonianHead
from ase_mlelec.heads.hamiltonian.assemble import unique_rows
from ase_mlelec.model import Model
from ase_mlelec.structures.twist import commensurate, twisted_bilayer
from ase_mlelec.system import System
from ase_mlelec.train.hamiltonian.closed_form import standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import fit_dipole, fit_hamiltonian
from ase_mlelec.train.hamiltonian.errors import hamiltonian_errors
from ase_mlelec.train.hamiltonian.items import frame_functions, prepare

K = np.array([[0.1, 0.2, 0.0], [0.0, 0.0, 0.0], [0.3, -0.4, 0.0]])
MAKE = {
    "mx2": functools.partial(mx2_bilayer, (0.3, 0.1), noise=0.05, seed=1),
    "graphene": functools.partial(graphene_bilayer, (0.3, 0.1), noise=0.05, seed=1),
}


@torch.no_grad()
def blocks_of(model, atoms):
    system = System.from_atoms(atoms)
    return model(system, Edges.build(system, model.cutoff))["hamiltonian"]


same_model = functools.cache(random_wannier_model)


def levels(kind, atoms, kpts=K):
    return WannierTBCalculator(same_model(kind)).get_hamiltonian(atoms).eigenvalues(kpts)


def turned_structures(atoms):
    """(name, the same crystal otherwise)"""
    rng = np.random.default_rng(0)
    for name in ("turned", "upside down", "inverted", "permuted", "shifted", "third vector reversed"):
        other = atoms.copy()
        if name == "turned":
            other.rotate(37, (1, 2, 3), rotate_cell=True)
        elif name == "upside down":
            other.rotate(180, "x", rotate_cell=True)
        elif name == "inverted":
            other.positions *= -1
            other.cell[:] *= -1
        elif name == "permuted":
            other = other[rng.permutation(len(atoms))]
        elif name == "shifted":
            other.positions += [1.2, 3.4, 9.7]
            other.wrap()
        else:
            other.cell[2] *= -1
        yield name, other


@pytest.mark.parametrize("kind", MAKE)
def test_bands_of_the_same_crystal(kind):
    atoms = MAKE[kind]()
    wanted = levels(kind, atoms)
    assert np.ptp(wanted) > 0.5
    for name, other in turned_structures(atoms):
        np.testing.assert_allclose(levels(kind, other), wanted, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", MAKE)
def test_other_cells_of_the_same_crystal(kind):
    """Other first vectors choose other frames of the same symmetry; supercells fold the bands."""
    atoms = MAKE[kind]()
    gamma = np.zeros((1, 3))
    wanted = levels(kind, atoms, [[0, 0, 0], [0, 0.5, 0]])
    for row, matrix in (
        ("sheared", [[1, 1, 0], [0, 1, 0], [0, 0, 1]]),
        ("left-handed", [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    ):
        other = atoms.copy()
        other.set_cell(np.array(matrix) @ atoms.cell.array)
        np.testing.assert_allclose(levels(kind, other, gamma), wanted[:1], atol=1e-11, err_msg=row)
    np.testing.assert_allclose(levels(kind, atoms * (1, 2, 1), gamma)[0], np.sort(wanted.ravel()), atol=1e-11)


@pytest.mark.parametrize("kind", MAKE)
def test_hermitian_and_real(kind):
    """Elements as they leave the head, before anything averages them."""
    model, atoms = random_wannier_model(kind), MAKE[kind]()
    r_vectors, which, row, column, value, owners = model.heads["hamiltonian"].elements(blocks_of(model, atoms))
    size = len(owners)
    dense = np.zeros((len(r_vectors), size, size))
    dense[which, row, column] = value
    place = {tuple(r): k for k, r in enumerate(r_vectors.tolist())}
    opposite = [place[tuple(-r)] for r in r_vectors]
    assert np.array_equal(dense, dense[opposite].transpose(0, 2, 1)) and abs(dense).max() > 0.1


def test_turned_layers_share_their_blocks():
    """A turn of the upper layer alone leaves the blocks within both layers as they were, to what it sees of the other:
    without sight of the other layer exactly."""
    model = random_wannier_model("graphene")
    layer = graphene_bilayer()[:2]
    found = []
    for cells in (commensurate(1, 1), commensurate(2, 1)):
        atoms, _ = twisted_bilayer(layer, layer, cells, 9.0)
        blocks = blocks_of(model, atoms)
        found.append((blocks.onsite[0].flatten(), blocks.hopping[False, 0, 0].flatten().sort().values[:: len(atoms)]))
    for one, two in zip(*found):
        assert torch.allclose(one[:2], two[:2], atol=1e-11)


@pytest.mark.slow
def test_smooth_where_atoms_are_above_each_other():
    """Directions of a pair along the normal are undefined; the elements are not: second differences vanish as h²."""
    calc = WannierTBCalculator(random_wannier_model("mx2"), on_extrapolation="ignore")
    atoms = mx2_bilayer(turned=False)  # S above S, Mo above Mo

    def hamiltonian(dx, dy):
        moved = atoms.copy()
        moved.positions[3:] += [dx, dy, 0]
        return calc.get_hamiltonian(moved).hk(K[:1])

    for direction in ((1, 0), (0.6, 0.8)):
        jumps = [
            abs(
                hamiltonian(*(h * np.array(direction)))
                - 2 * hamiltonian(0, 0)
                + hamiltonian(*(-h * np.array(direction)))
            ).max()
            / h**2
            for h in (1e-2, 1e-3)
        ]
        assert jumps[1] < 1.1 * jumps[0] + 1e-3


def test_fades_at_the_cutoff():
    """A layer that leaves: hopping beyond 12 Å is none, and goes to zero without a jump."""
    calc = WannierTBCalculator(random_wannier_model("graphene"), on_extrapolation="ignore")

    def coupling(distance):
        matrix = calc.get_hamiltonian(graphene_bilayer(distance=distance, height=40.0)).hk(K[:1])[0]
        return abs(matrix[:2, 2:]).max()

    assert coupling(11.5) > 1e-6 and coupling(12.001) == 0 and coupling(11.99) < 1e-3 * coupling(11.5)


def test_spectra_in_chunks(monkeypatch):
    """Large structures go through the ACE invariants in parts, with the same result."""
    calc = WannierTBCalculator(random_wannier_model("mx2"), on_extrapolation="ignore")
    atoms = mx2_bilayer(noise=0.03) * (2, 1, 1)
    whole = calc.get_hamiltonian(atoms).hk(K)
    monkeypatch.setattr(descriptor_module, "CENTERS", 5)
    atoms.rattle(1e-12, seed=0)  # evaluated again
    assert abs(calc.get_hamiltonian(atoms).hk(K) - whole).max() < 1e-9 * abs(whole).max()


# learning


def trained(frames, steps, held=(), **options):
    species, symmetry, functions, areas = frame_functions(frames)
    descriptor = LayerMoments(species, environment=5.5, symmetry=symmetry, n_radial=5, reference_areas=areas)
    torch.manual_seed(0)
    head = HamiltonianHead.for_descriptor(descriptor, functions, widths=(12,), n_hidden=12, n_reduced=6, n_directed=2)
    model = Model(descriptor, {"hamiltonian": head}).double()
    items, others = ([prepare(model, frame) for frame in part] for part in (frames, held))
    standardize_hamiltonian(model, items)
    errors = fit_hamiltonian(model, items, validation=others, steps=steps, progress=False, **options)
    return model, errors


def graphene_frames(count, first=0, **options):
    rng = np.random.default_rng(first)
    return [
        graphene_frame(
            graphene_bilayer(
                rng.random(2),
                rng.uniform(3.1, 3.8),
                strain=rng.uniform(-0.02, 0.04),
                noise=0.02 * (k % 2),
                seed=first + k,
            ),
            **options,
        )
        for k in range(count)
    ]


@pytest.mark.slow
def test_graphene_is_learnt_and_twists_are_exact():
    """Trained on shifted primitive cells, tested on others and on a twisted one, by the formula of Moon and Koshino."""
    model, _ = trained(graphene_frames(12), 5)
    errors = hamiltonian_errors(model, graphene_frames(3, first=90))
    assert errors["hamiltonian_all_mae_meV"] < 0.1 and errors["hamiltonian_inter_r2"] > 0.9999
    assert errors["hamiltonian_intra_near_mae_meV"] < 0.2 and errors["bands_mae_meV"] < 5
    layer = graphene_bilayer()[:2]
    twisted, _ = twisted_bilayer(layer, layer, commensurate(1, 1), 3.4)
    twisted.set_tags(0)
    errors = hamiltonian_errors(model, [graphene_frame(twisted)])
    assert errors["hamiltonian_inter_mae_meV"] < 0.05 and errors["hamiltonian_inter_r2"] > 0.9999
    assert errors["bands_mae_meV"] < 5


@pytest.mark.slow
def test_layer_functions_follow_a_twist():
    """d and p hybrids along axes of their layer: a model of aligned layers knows those of a twisted bilayer."""
    rng = np.random.default_rng(0)
    frames = []
    for k in range(8):
        atoms = mx2_bilayer(rng.random(2), rng.uniform(6.0, 6.8), turned=bool(k % 2), strain=rng.uniform(-0.02, 0.03))
        frames.append(mx2_frame(atoms, mx2_functions(atoms)))
    model, _ = trained(frames, 2)
    lower, upper = mx2_bilayer(turned=False)[:3], mx2_bilayer(turned=False)[:3]
    atoms, _found = twisted_bilayer(lower, upper, commensurate(1, 1), 6.4)
    errors = hamiltonian_errors(model, [mx2_frame(atoms, twisted_functions(atoms))])
    assert errors["hamiltonian_inter_r2"] > 0.999 and errors["hamiltonian_inter_mae_meV"] < 0.3
    assert errors["hamiltonian_intra_near_mae_meV"] < 0.5 and errors["bands_mae_meV"] < 10


def twisted_functions(atoms):
    """Hybrids of a twisted bilayer along the bonds of its own layers, found neighbor by neighbor."""
    functions = []
    for layer in (0, 1):
        own = atoms[atoms.get_tags() == layer]
        mo, s = (np.flatnonzero((atoms.get_tags() == layer) & (atoms.symbols == symbol)) for symbol in ("Mo", "S"))
        vectors = atoms.get_distances(mo[0], s, mic=True, vector=True)
        nearest = vectors[np.argsort(np.linalg.norm(vectors, axis=1))[0]]
        # a layer of mx2_bilayer has a bond at -30 degrees, from which its axes are counted
        angle = np.degrees(np.arctan2(nearest[1], nearest[0])) + 30
        flat = own.copy()
        flat.set_tags(0)
        places = np.flatnonzero(atoms.get_tags() == layer)
        functions += [f._replace(atom=int(places[f.atom])) for f in mx2_functions(flat, angle)]
    return sorted(functions, key=lambda f: f.atom)


@pytest.mark.slow
def test_gradient_descent_lowers_the_error():
    frames = graphene_frames(4)
    first, last = (trained(frames, steps, learning_rate=(3e-3, 1e-3), batch_size=2)[1] for steps in (1, 20))
    assert last["onsite"] < 0.9 * first["onsite"]


def test_interface_dipole_is_found():
    """Layers of different strain: known shifts of the layers give their coefficients back."""
    model = random_wannier_model("graphene")
    head = model.heads["hamiltonian"]
    layer, items, wanted = graphene_bilayer()[:2], [], (0.4, -0.15)
    for cells in (((2, 0), (1, 1)), ((1, 1), (2, 0)), ((2, 0), (2, 0))):
        atoms, _ = twisted_bilayer(layer, layer, cells, 3.4)
        item = prepare(model, graphene_frame(atoms))
        with torch.no_grad():
            onsite = head.unshifted(item.geometry).onsite
            strain, count = head.interface_features(item.layers)[0]
            step = wanted[0] * strain + wanted[1] * count
            shift = torch.tensor([-0.5, 0.5], dtype=torch.float64)[item.geometry.layer] * step
            item.onsite[0] = onsite[0] + shift[:, None, None]
        items.append(item)
    fit_dipole(head, items)
    for item in items:
        strain, count = head.interface_features(item.layers)[0]
        shifts = head.layer_shifts(item.layers)
        assert float(shifts[1] - shifts[0]) == pytest.approx(float(wanted[0] * strain + wanted[1] * count), abs=1e-9)
        assert float(shifts.sum()) == pytest.approx(0, abs=1e-12)
    assert abs(float(shifts[0])) < 1e-12  # equal layers have no dipole


def test_errors_of_the_head():
    model = random_wannier_model("mx2")
    arguments = model.heads["hamiltonian"].arguments()
    with pytest.raises(ValueError, match="got none of S"):
        HamiltonianHead(**arguments | {"functions": {"Mo": arguments["functions"]["Mo"]}})
    with pytest.raises(ValueError, match="need more than 11"):
        HamiltonianHead(**arguments | {"cutoff": 9.0})
    for third in (2.0, -1.0, 13.0, float("nan")):
        with pytest.raises(ValueError, match="need 3.5 to 12.0, or 0"):
            LayerMoments(["Mo", "S"], third=third)
    atoms = mx2_bilayer()
    wrong = [f._replace(orbital="px" if f.orbital == "pz" else f.orbital) for f in mx2_functions(atoms)]
    frame = mx2_frame(atoms, mx2_functions(atoms))
    with pytest.raises(ValueError, match="need as many, both partners|train on one set"):
        prepare(model, type(frame)(atoms, frame.hamiltonian, [f._replace(z=(0, 0, 1), x=(1, 0, 0)) for f in wrong]))


@pytest.mark.parametrize("n", [1, 2, 200])
def test_unique_rows(n):
    rows = torch.randint(-3, 3, (n, 3), generator=torch.Generator().manual_seed(n)) * torch.tensor([1, 5, -2])
    found, which = unique_rows(rows)
    wanted, places = torch.unique(rows, dim=0, return_inverse=True)
    assert torch.equal(found, wanted) and torch.equal(which, places)
