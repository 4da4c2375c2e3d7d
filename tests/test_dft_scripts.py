"""The scripts that made the data sets of bilayers, as far as they go without the programs for DFT."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from ase.neighborlist import neighbor_list
from small_bilayers import hamiltonian_of, mx2_bilayer, mx2_frame, mx2_functions

from ase_mlelec import units
from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.hamiltonians import Hamiltonians
from ase_mlelec.io.espresso import PwResult
from ase_mlelec.io.wannier90 import Wannier90Error
from ase_mlelec.structures.layers import layers
from ase_mlelec.train.hamiltonian.items import frame_functions

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "dft"))
import espresso
import graphene
import layered
import mos2
import mos2_forces


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Some of each kind of the MoS2 plan, by its own command line."""
    path = tmp_path_factory.mktemp("mos2") / "mos2.extxyz"
    layered.sample(path, [kind._replace(count=5) for kind in mos2.PLAN], mos2.build)
    return path


@pytest.mark.parametrize("script", [mos2, graphene])
def test_plans(script):
    """Every group has a role for all its structures, no seed twice, none of those that are kept for others."""
    seeds = [seed for kind in script.PLAN for seed in range(kind.first_seed, kind.first_seed + kind.count)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 10000
    roles = [layered.role(f"x-{seed:03d}") for seed in seeds]
    assert 0.6 < roles.count("train") / len(seeds) < 0.85 and {"train", "validation", "test"} == set(roles)


def test_sampling_goes_on_where_it_stopped(sampled, tmp_path):
    whole = read(sampled, ":")
    path = tmp_path / "some.extxyz"
    for count in 2, 5:
        layered.sample(path, [kind._replace(count=count) for kind in mos2.PLAN[:3]], mos2.build)
    found = {atoms.info["name"]: atoms for atoms in read(path, ":")}
    assert len(found) == 15
    for atoms in whole[:15]:
        assert found[atoms.info["name"]] == atoms


def test_sampled_structures(sampled):
    """Two layers each, as many primitive cells as the name says, bonds and distances within what MoS2 can have."""
    for atoms in read(sampled, ":"):
        kind, seed = atoms.info["name"].split("-")
        cells = {"root3": 3, "double": 4, "row": 2, "strip": 2, "pair": 2, "shaken": 2, "beam": 3}.get(kind, 1)
        if kind in mos2.LAYERS:
            check_layers_of_two_lattices(atoms, kind, int(seed))
            continue
        if kind == "ripple" or kind in mos2.SINGLE:
            n, points = {
                "ripple": (12, (1, 4, 1)),
                "sheet": (12, (2, 2, 1)),
                "patch": (27, (2, 2, 1)),
                "wide": (48, (1, 1, 1)),
                "plate": (12, (2, 2, 1)),
                "block": (18, (2, 2, 1)),
                "tile": (27, (2, 2, 1)),
                "swatch": (18, (2, 2, 1)),
            }[kind]
            assert len(atoms) == n and mos2.mesh(atoms, 4, n // 3) == points
            assert (layers(atoms, areas=mos2.AREAS) == 0).all() and atoms.positions[:, 2].mean() == pytest.approx(
                11, abs=0.1
            )
            assert (0.1 if kind == "ripple" else 0.02) < np.ptp(atoms.positions[atoms.symbols == "Mo", 2]) < 1.0
            continue
        points = {1: (4, 4, 1), 2: (2, 4, 1), 3: (2, 4, 1) if kind == "beam" else (3, 3, 1), 4: (2, 2, 1)}[cells]
        assert mos2.mesh(atoms, 4, cells) == points
        assert len(atoms) == 6 * cells and atoms.cell[2, 2] == mos2.HEIGHT
        assert np.bincount(layers(atoms)).tolist() == [3 * cells] * 2
        first, d = neighbor_list("id", atoms, {("Mo", "S"): 3.0})
        shortest = 1.9 if kind in ("shaken", "beam") else 2.1
        assert (np.bincount(first)[atoms.symbols == "Mo"] == 6).all() and shortest < d.min() < d.max() < 2.85
        area = np.linalg.norm(np.cross(*atoms.cell[:2])) / cells
        strain = np.sqrt(area / (mos2.A**2 * np.sqrt(3) / 2)) - 1
        assert -0.025 < strain < 0.085
        if kind == "shift":
            assert strain == pytest.approx(0, abs=1e-9)
            moly = atoms[atoms.symbols == "Mo"].positions
            assert 6.0 <= moly[1, 2] - moly[0, 2] <= 6.8
        # no layer has its sulfur, as a whole, off the middle
        for layer in (0, 1):
            own = layers(atoms) == layer
            z = [atoms.positions[own & (atoms.symbols == symbol), 2].mean() for symbol in ("Mo", "S")]
            assert z[0] == pytest.approx(z[1], abs=1e-6)
        moved = kind in ("noise", "root3", "double", "calm", "lively", "row", "strip", "pair", "shaken", "beam")
        heights = atoms.positions[(atoms.symbols == "Mo") & (layers(atoms) == 0), 2]
        if moved and cells == 2:  # two heights may be alike by chance, their bonds are not
            assert np.ptp(d) > 0.05
        else:
            assert np.ptp(heights) > 0.01 if moved and cells > 1 else np.ptp(heights) < 1e-6


def check_layers_of_two_lattices(atoms, kind, seed):
    """As many primitive cells as planned below and above, bonds of MoS2, each layer as thick as its strain says."""
    cells = {"unlike": [3, 4], "twisted": [12, 13]}[kind][:: -1 if seed % 2 else 1]
    layer = layers(atoms)
    assert np.bincount(layer).tolist() == [3 * n for n in cells] and atoms.cell[2, 2] == pytest.approx(mos2.HEIGHT)
    assert mos2.mesh(atoms, 4, sum(cells) / 2) == ((2, 2, 1) if kind == "unlike" else (1, 1, 1))
    first, d = neighbor_list("id", atoms, {("Mo", "S"): 2.75})
    assert (np.bincount(first)[atoms.symbols == "Mo"] == 6).all() and 2.2 < d.min() < d.max() < 2.65
    z = [atoms.positions[(layer == k) & (atoms.symbols == "Mo"), 2].mean() for k in (0, 1)]
    assert 6.1 <= z[1] - z[0] <= 6.8 and np.mean(z) == pytest.approx(mos2.HEIGHT / 2, abs=0.1)
    thick = [abs(atoms.positions[(layer == k) & (atoms.symbols == "S"), 2] - z[k]).mean() for k in (0, 1)]
    assert (thick[0] > thick[1]) == (cells[0] > cells[1])  # the one of more cells is compressed


def test_both_stackings_are_tested():
    for kind in mos2.PLAN[:4]:
        for group in "train", "validation", "test":
            seeds = [
                seed
                for seed in range(kind.first_seed, kind.first_seed + kind.count)
                if layered.role(f"x-{seed}") == group
            ]
            assert {seed % 5 < 3 for seed in seeds} == {True, False}, (kind.name, group)


@pytest.mark.parametrize("turned", [False, True])
def test_axes_of_the_functions(turned):
    """Those of the paper for the lower layer; in an upper layer that is turned, all of them turned."""
    atoms = mos2.bilayer((0.2, 0.1), 6.3, turned)
    found = mos2.functions(atoms)
    assert [f.atom for f in found] == [0] * 5 + [1] * 3 + [2] * 3 + [3] * 5 + [4] * 3 + [5] * 3
    np.testing.assert_allclose(atoms.get_scaled_positions()[:2, :2], [[1 / 3, 2 / 3], [2 / 3, 1 / 3]], atol=1e-9)
    c = 0.866025
    metal = [(c, -0.5, 0), (-c, -0.5, 0), (0, 1, 0)]
    sulfur = [(c, 0.5), (-c, 0.5), (0, -1)]
    for start, way in (0, 1), (11, -1 if turned else 1):
        assert [f.orbital for f in found[start : start + 11]] == ["dz2"] * 3 + ["dxz", "dyz"] + ["pz"] * 6
        np.testing.assert_allclose([f.z for f in found[start : start + 3]], np.array(metal) * [way, way, 1], atol=1e-5)
        for f in found[start + 3 : start + 5]:
            np.testing.assert_allclose([f.z, f.x], [(0, 0, 1), (-c * way, 0.5 * way, 0)], atol=1e-5)
        for side, place in (1, start + 5), (-1, start + 8):
            wanted = [(x * way, y * way, side) for x, y in sulfur]
            np.testing.assert_allclose([f.z for f in found[place : place + 3]], wanted, atol=1e-5)
    assert all(abs(np.dot(f.z, f.x)) < 1e-9 for f in found)


def test_functions_are_found_in_other_structures(sampled):
    """Another builder's bilayers, where layers are known from the start; and larger, distorted cells."""
    for turned in False, True:
        atoms = mx2_bilayer((0.3, 0.6), turned=turned, strain=0.03, noise=0.03)
        for one, other in zip(mos2.functions(atoms), mx2_functions(atoms)):
            assert one[:2] == other[:2]
            np.testing.assert_allclose(one.z, other.z, atol=1e-9)
            np.testing.assert_allclose(one.x, other.x, atol=1e-9)
    for atoms in read(sampled, ":"):
        kind, seed = atoms.info["name"].split("-")
        if kind in mos2.LAYERS:
            continue  # turned by other angles
        turned = [int(seed) % 5 < 3 and tag == 1 for tag in atoms.get_tags()]
        for f in mos2.functions(atoms):
            if f.orbital == "dxz":
                assert (f.x[0] > 0) == turned[f.atom]


def home_block(hamiltonian):
    return hamiltonian.bloch.toarray()[np.flatnonzero(~hamiltonian.r_vectors.any(axis=1))[0]]


def test_blocks_of_both_layers_are_alike():
    """Between functions that turn with their layers, a turned layer has the blocks of the other one."""
    for turned in False, True:
        atoms = mos2.bilayer((0.1, 0.4), 10.0, turned)
        matrix = home_block(mx2_frame(atoms, mos2.functions(atoms)).hamiltonian)
        np.testing.assert_allclose(matrix[:5, :5], matrix[11:16, 11:16], atol=1e-10)
        np.testing.assert_allclose(matrix[5:11, 5:11], matrix[16:, 16:], atol=1e-10)
        assert abs(matrix[:5, :5] - np.diag(np.diag(matrix[:5, :5]))).max() > 1e-3


def test_projections_block():
    atoms = mos2.bilayer((0.2, 0.1), 6.3)
    lines = mos2.projections(atoms, mos2.functions(atoms)).splitlines()
    assert len(lines) == 22
    for line, f in zip(lines, mos2.functions(atoms)):
        site, orbital, z, x = line.split(":")
        numbers = [np.array(part.split("=")[1].split(","), dtype=float) for part in (site, z, x)]
        np.testing.assert_allclose(numbers[0] @ atoms.cell.array, atoms.positions[f.atom], atol=1e-6)
        assert orbital == f.orbital
        np.testing.assert_allclose(numbers[1:], [f.z, f.x], atol=1e-8)


# labels -------------------------------------------------------------------------------------------------------------


def label_of(atoms, spread=1.7):
    """What a calculation would give, with the Hamiltonian of a formula, 1.25 eV up."""
    found = mx2_frame(atoms, mos2.functions(atoms)).hamiltonian
    forces = np.arange(3.0 * len(atoms)).reshape(-1, 3)
    scf = PwResult(list(atoms.symbols), atoms.cell.array, atoms.positions, -7.5, forces=forces, fermi_level=1.0)
    return layered.Label(scf, found, np.full(found.size, spread), (1.0, 1.5), 2e-5)


def test_labels_and_the_data_set(tmp_path, capsys):
    structures, work, calls = tmp_path / "mos2.extxyz", tmp_path / "work", []
    layered.sample(structures, [mos2.PLAN[3]._replace(count=7)], mos2.build)

    def calculate(atoms, directory):
        calls.append(atoms.info["name"])
        directory.mkdir()
        if calls[-1] == "noise-301":
            raise Wannier90Error("got a spread of 9.00 Å^2, need at most 2.5")
        return layered.Label(label_of(atoms).scf) if calls[-1] == "noise-302" else label_of(atoms)

    for part in "0/2", "1/2", "0/1":
        espresso.label_all(lambda atoms, folder: layered.label(atoms, folder, calculate), structures, work, part)
    assert sorted(calls) == [f"noise-30{k}" for k in range(7)]  # the last part had nothing to do
    assert sorted(path.suffix for path in work.iterdir()) == [".npz"] * 6 + [".rejected"]
    assert "spread of 9.00" in (work / "noise-301.rejected").read_text()
    layered.collect(work, tmp_path / "mos2.h5", mos2.functions, mos2.ATTRIBUTES)
    output = capsys.readouterr().out
    assert "levels within 0.02 meV, work function 0.250 eV" in output
    assert "noise-302: -7.500 eV, forces up to 17.00 eV/Å" in output
    assert "mos2.h5: 5 structures, 1 test, 3 train, 1 validation\n" in output and "1 rejected" in output
    (frame,) = read_frames(tmp_path / "mos2_forces.h5")
    assert (frame.name, frame.group, frame.labels["energy"]) == ("noise-302", "train", -7.5)
    np.testing.assert_allclose(frame.labels["forces"], label_of(frame.atoms).scf.forces)
    before = {frame.name: frame.hamiltonian for frame in Hamiltonians(tmp_path / "mos2.h5")}
    for name in "noise-300", "noise-302":
        (work / f"{name}.npz").rename(tmp_path / f"{name}.npz")
    (tmp_path / "noise-302.npz").rename(work / "noise-309.npz")  # new; the two that are not there any more stay
    with np.load(work / "noise-303.npz") as label:
        spelled = {"centres" if key == "centers" else key: label[key] for key in label.files}
    assert "centres" in spelled  # as labels of before spell it
    np.savez(work / "noise-303.npz", **spelled)
    layered.collect(work, tmp_path / "mos2.h5", mos2.functions, mos2.ATTRIBUTES)
    assert [frame.name for frame in read_frames(tmp_path / "mos2_forces.h5")] == ["noise-302", "noise-309"]
    after = {frame.name: frame.hamiltonian for frame in Hamiltonians(tmp_path / "mos2.h5")}
    assert list(after) == list(before) and len(after) == 5
    for name, hamiltonian in after.items():
        np.testing.assert_array_equal(hamiltonian.bloch.toarray(), before[name].bloch.toarray())
    data = Hamiltonians(tmp_path / "mos2.h5")
    assert data.attributes["electrons_per_atom"] == {"Mo": 6, "S": 4} and data.frames().labels == ("energy", "forces")
    atoms = {image.info["name"]: image for image in read(structures, ":")}
    kpts = [[0.1, 0.3, 0.0]]
    for frame in data:
        wanted = label_of(atoms[frame.name])
        np.testing.assert_allclose(
            frame.hamiltonian.eigenvalues(kpts), wanted.hamiltonian.eigenvalues(kpts) - 1.25, atol=2e-5
        )  # single precision
        np.testing.assert_allclose(frame.forces, wanted.scf.forces)
        assert frame.energy == -7.5 and frame.group == layered.role(frame.name)
    species, fold, found, _ = frame_functions(data)
    assert (species, fold) == (["Mo", "S"], 3) and found["S"]["sided"] and not found["Mo"]["sided"]


def test_cells_for_comparisons_are_apart(tmp_path):
    """Their levels are those above the vacuum; the others, energies and forces alone, have none."""
    work, levels = tmp_path / "work", np.array([[-9.0, -8.0, -1.0, 2.0], [-9.5, -8.5, -2.0, 1.5]])
    work.mkdir()
    atoms = mos2.bilayer((0.2, 0.1), 6.3)
    scf = replace(label_of(atoms).scf, kpoints=np.array([[0, 0, 0], [0.5, 0, 0]]), eigenvalues=levels, fermi_level=0.5)
    for name in ("twisted-060", "calm-400"):
        atoms.info["name"] = name
        layered.label(
            atoms, work, lambda atoms, directory: (directory.mkdir(), layered.Label(scf, vacuum=(4.0, 5.0)))[1]
        )
    layered.collect(work, tmp_path / "mos2.h5", mos2.functions, mos2.ATTRIBUTES, apart=("twisted",))
    assert [frame.name for frame in read_frames(tmp_path / "mos2_forces.h5")] == ["calm-400"]
    (image,) = read(tmp_path / "mos2_levels.extxyz", ":")
    np.testing.assert_allclose(image.info["levels"], levels - 4.5)
    assert (image.info["name"], image.info["filled"], image.info["vacuum_step"]) == ("twisted-060", 3, 1.0)
    assert image.get_potential_energy() == -7.5


# energies and forces --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dispersion_between_images():
    """Of a pair of atoms, the sum over its images; derivatives; its force is what pulls layers to their images."""
    atoms = mos2_forces.lower_cell(mos2.bilayer((0.2, 0.1), 6.3, noise=(0.05, 0.05), rng=np.random.default_rng(0)))
    energy, forces = mos2_forces.image_dispersion(atoms)
    assert -0.02 < energy < -1e-3 and abs(forces.sum(axis=0)).max() < 1e-12
    for atom, axis in (0, 2), (4, 2), (4, 0):
        moved = []
        for step in 0.01, -0.01:
            other = atoms.copy()
            other.positions[atom, axis] += step
            moved.append(mos2_forces.image_dispersion(other)[0])
        assert forces[atom, axis] == pytest.approx((moved[1] - moved[0]) / 0.02, abs=1e-6)  # pairs cross 60 Å
    alone = Atoms("S", cell=[55.0, 55.0, 11.9], pbc=True)
    i, j, n = np.meshgrid(*[range(-6, 7)] * 3)
    distances = np.sqrt((55.0 * i) ** 2 + (55.0 * j) ** 2 + (11.9 * n) ** 2)[n != 0]
    wanted = -0.5 * 0.75 * 5.57e6 / 96485.33 * (distances[distances < 60] ** -6.0).sum()  # J nm^6/mol in eV Å^6
    assert mos2_forces.image_dispersion(alone)[0] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_inputs_of_energies_and_forces(tmp_path, monkeypatch):
    """Points and cells by the size of structures, and what is taken from the energy of pw.x."""
    given, single = {}, mos2.lower(mos2.bilayer((0, 0), 6.3, supercell=np.diag([3, 3, 1])))
    monkeypatch.setattr(mos2, "check_pseudopotentials", lambda: None)

    def pw(atoms, directory, name, pseudopotentials, kpts, koffset, control, system, electrons):
        given.update(kpts=kpts, koffset=koffset, system=system, cell=atoms.cell.lengths())

    monkeypatch.setattr(espresso, "pw", pw)
    for atoms, mesh, thick in (
        (mos2.bilayer((0, 0), 6.3), (6, 6, 1), 6.3 + mos2.THICKNESS),
        (single, (2, 2, 1), mos2.THICKNESS),
        (mos2.bilayer((0, 0), 6.3, supercell=np.diag([2, 1, 1])), (3, 6, 1), 6.3 + mos2.THICKNESS),
    ):
        monkeypatch.setattr(
            mos2_forces,
            "read_pw",
            lambda path, n=len(atoms): PwResult([], None, None, -7.5, forces=np.ones((n, 3)), kpoints=np.zeros((1, 3))),
        )
        found = mos2_forces.calculate(atoms, tmp_path)
        assert (given["kpts"], given["koffset"]) == (mesh, (1, 1, 0)) and given["system"]["ecutrho"] == 320
        assert given["cell"][2] == pytest.approx(thick + 10) and given["cell"][0] == atoms.cell.lengths()[0]
        # the field changes over 1.1 Å around the border of the cell
        assert given["system"]["eopreg"] * given["cell"][2] == pytest.approx(1.1)
        energy, forces = mos2_forces.image_dispersion(mos2_forces.lower_cell(atoms))
        assert found.hamiltonian is None and found.scf.energy == -7.5 - energy and energy < 0
        np.testing.assert_array_equal(found.scf.forces, 1 - forces)
    assert (atoms.cell[2, 2], atoms.positions[0, 2]) == (22.0, 11 - 3.15)  # as it was


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(spread=2.6), "got a spread of 2.60 Å.2, need at most 2.5"),
        (dict(away=1.0), "got a function 1.00 Å from its atom, need at most 0.8"),
        (dict(imaginary=0.002), r"got complex elements of H.R., 2.0 meV, need at most 1"),
        (dict(), None),
    ],
)
def test_bad_functions_are_rejected(tmp_path, monkeypatch, change, message):
    atoms = mos2.bilayer((0.2, 0.1), 6.3)
    n, functions = np.arange(22), mos2.functions(atoms)
    found = hamiltonian_of(atoms, [f.atom for f in functions], np.zeros((22, 3), int), n, n, np.ones(22) + 1j * 0)
    centers = found.centers + [0, 0, change.get("away", 0.0)] + atoms.cell.array[0]  # in another cell
    hop = np.zeros((22, 22), dtype=complex)
    hop[0, 1], hop[1, 0] = 0.1 + 1j * change.get("imaginary", 0.0), 0.1 - 1j * change.get("imaginary", 0.0)
    made = type(found)(found.cell, [[0, 0, 0]], (np.eye(22) + hop)[None], centers=centers)
    monkeypatch.setattr(layered.WannierHamiltonian, "read", lambda path: made)
    spreads = np.full(22, 1.7)
    spreads[7] = change.get("spread", 1.7)
    monkeypatch.setattr(layered, "read_centers", lambda path: type("Centers", (), {"spreads": spreads}))
    path = tmp_path / "x_hr.dat"
    if message:
        with pytest.raises(Wannier90Error, match=message):
            layered.good_hamiltonian(path, atoms, functions, mos2.MAX_SPREAD)
    else:
        found, _ = layered.good_hamiltonian(path, atoms, functions, mos2.MAX_SPREAD)
        np.testing.assert_allclose(found.centers, atoms.positions[[f.atom for f in functions]], atol=1e-9)


def test_levels_of_dft(tmp_path):
    """Bands run fastest in x.eig; a level of DFT is compared with the nearest one of the functions near E_F alone."""
    levels = np.array([[-3.0, 0.2, 1.0], [-2.5, 0.1, 2.0]])
    (tmp_path / "x.eig").write_text("".join(f"{b + 1} {k + 1} {levels[k, b]}\n" for k in range(2) for b in range(3)))
    np.testing.assert_array_equal(layered.dft_levels(tmp_path), levels)
    assert graphene.worst_level(np.array([[0.21, 1.003], [0.1, 9.0]]), levels, 0.0) == pytest.approx(0.01)
    layered.check_mismatch(0.009, graphene.MAX_MISMATCH)
    with pytest.raises(Wannier90Error, match="got a DFT level 11 meV off the Wannier bands, need at most 10"):
        layered.check_mismatch(0.011, graphene.MAX_MISMATCH)


@pytest.mark.parametrize("away", [0.0, mos2.VACUUM])
def test_vacuum_levels(tmp_path, monkeypatch, away):
    """Layers with a dipole: -4.0 eV below, -3.7 above, and between the two the jump of the dipole correction."""
    atoms = mos2.bilayer((0.2, 0.1), 6.3)
    z = np.arange(180) / 180 * mos2.HEIGHT
    jump = 0.5 * mos2.JUMP * mos2.HEIGHT + 1e-6
    planes = np.interp(z, [jump, 4.0, 7.0, 15.0, 18.0, 22 - jump, 22], [-4.0, -4.0, -20.0, -20.0, -3.7, -3.7, -3.85])
    planes[z < jump] = np.interp(z[z < jump], [0, jump], [-3.85, -4.0])
    monkeypatch.setattr(espresso, "run", lambda program, name, directory: None)
    monkeypatch.setattr(espresso, "read_filplot", lambda path: np.broadcast_to(planes / units.RYDBERG, (2, 3, 180)))
    if away:
        below, above = layered.flat_vacuum(atoms, tmp_path, away)
        assert below == pytest.approx(-4.0, abs=1e-6) and above == pytest.approx(-3.7, abs=1e-6)
    else:
        with pytest.raises(Wannier90Error, match="varies by 1[0-9][0-9] meV, need less than 5; make the cell higher"):
            layered.flat_vacuum(atoms, tmp_path, away)


def test_pseudopotentials_are_missed_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(espresso, "PSEUDO", str(tmp_path))
    for there, missing in ((), "mo.upf"), (("mo.upf",), "s.upf"):
        for name in there:
            (tmp_path / name).touch()
        with pytest.raises(FileNotFoundError, match=f"^{missing}: not in .*ESPRESSO_PSEUDO") as caught:
            mos2.calculate(mos2.bilayer((0, 0), 6.3), tmp_path / "x")
        assert "Qi et al. 2024" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "s.upf").touch()
    mos2.check_pseudopotentials()


@pytest.mark.parametrize("cells", [1, 3, 4])
def test_inputs_of_larger_cells(tmp_path, monkeypatch, cells):
    """Bands, functions and points that the programs are given, by the number of primitive cells."""
    kind = {1: mos2.PLAN[3], 3: mos2.PLAN[4], 4: mos2.PLAN[5]}[cells]
    atoms = mos2.build(kind, 1, np.array([0.1, 0.2]), 6.3, np.zeros((2, 2)), np.random.default_rng(0))
    given = {}
    monkeypatch.setattr(mos2, "check_pseudopotentials", lambda: None)
    monkeypatch.setattr(mos2, "read_pw", lambda path: None)
    monkeypatch.setattr(layered, "flat_vacuum", lambda *arguments: (0.0, 0.0))
    monkeypatch.setattr(
        espresso,
        "run",
        lambda program, name, directory: given.setdefault(name, (Path(directory) / f"{name}.in").read_text()),
    )
    monkeypatch.setattr(
        espresso,
        "_wannier90",
        lambda directory, *arguments: given.setdefault("win", (Path(directory) / "x.win").read_text()),
    )

    def stop(path, own, functions, max_spread):
        assert len(functions) == 22 * cells
        raise Wannier90Error("enough")

    monkeypatch.setattr(layered, "good_hamiltonian", stop)
    with pytest.raises(Wannier90Error, match="enough"):
        mos2.calculate(atoms, tmp_path / "x")
    win, nscf = (" ".join(given[name].split()) for name in ("win", "nscf"))
    points = {1: 36, 3: 16, 4: 9}[cells]
    for text in (
        f"num_wann = {22 * cells} ",
        f"num_bands = {22 * cells} ",
        f"exclude_bands = 1-{12 * cells} ",
        "num_iter = 40 ",
    ):
        assert text in win
    assert win.count(":dz2:") == 6 * cells and win.count(":pz:") == 12 * cells
    assert f"nbnd = {34 * cells} " in nscf and f"K_POINTS crystal {points} " in nscf
    for text in "tefield = .true.", "dipfield = .true.", "vdw_corr = 'grimme-d2'", "emaxpos = 0.975", "eopreg = 0.05":
        assert all(text in " ".join(given[name].split()) for name in ("scf", "nscf"))


def test_errors_of_wannier90_that_exits_as_if_all_were_well(tmp_path, monkeypatch):
    program = tmp_path / "wannier90.x"
    program.write_text(
        "#!/bin/sh\necho ' kmesh_get_bvector: Not enough bvectors found'\n"
        "echo 'Error: examine the output/error file for details'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match="Not enough bvectors"):
        espresso._wannier90(tmp_path, "-pp", "x")
