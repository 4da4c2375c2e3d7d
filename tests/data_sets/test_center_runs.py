"""Centroids and dipoles from folders of Wannier90 and trajectories of CP2K, whose centers are known."""

import re

import numpy as np
import pytest
from ase import Atoms

from ase_mlelec import units
from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.runs.centers import read_center_runs, wannier_runs
from ase_mlelec_entry_points.cli.main import main

LENGTH = 6.0  # Å
BONDS = np.array([[0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
LONE = np.array([[0.0, -0.25, 0.2], [0.0, -0.25, -0.2]])
ELECTRONS = {"valence_charges": {"O": 6.0, "H": 1.0}, "electrons_per_centre": {"O": 8.0}}


def water(seed):
    """Two molecules, one of them cut by the cell, the centers of their electrons in any cell, and the true dipole."""
    rng = np.random.default_rng(seed)
    symbols, positions, centers, dipole = [], [], [], np.zeros(3)
    for oxygen in (np.array([0.1, 3.0, 0.2]), np.array([3.2, 0.1, 3.1])):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        own = np.concatenate([0.45 * BONDS, LONE]) @ turn
        symbols += ["O", "H", "H"]
        positions += [oxygen, *(oxygen + BONDS @ turn)]
        centers += list(oxygen + own + LENGTH * rng.integers(-1, 2, (4, 3)))
        dipole += (BONDS @ turn).sum(axis=0) - 2 * own.sum(axis=0)
    return Atoms(symbols, positions, cell=[LENGTH] * 3, pbc=True), np.array(centers), dipole


def rows(labels, values):
    return "".join(f"{label} " + " ".join(f"{x:.10f}" for x in row) + "\n" for label, row in zip(labels, values))


def win_of(atoms, keywords=""):
    sites = rows(atoms.get_chemical_symbols(), atoms.positions)
    cell = rows([""] * 3, atoms.cell.array)
    return (
        f"num_wann = 8\n{keywords}\nbegin unit_cell_cart\nang\n{cell}end unit_cell_cart\n"
        f"begin atoms_cart\nang\n{sites}end atoms_cart\n"
    )


def pw_xml(atoms, energy):
    """data-file-schema.xml with what is read of it, without forces."""
    cell, sites = atoms.cell.array / units.BOHR, atoms.positions / units.BOHR
    places = "".join(
        f'<atom name="{atoms.symbols[k]}" index="{k + 1}">{rows([""], [site])}</atom>' for k, site in enumerate(sites)
    )
    vectors = "".join(f"<a{k + 1}>{rows([''], [cell[k]])}</a{k + 1}>" for k in range(3))
    species = "".join(f'<species name="{s}"><pseudo_file>{s}.UPF</pseudo_file></species>' for s in ("O", "H"))
    return (
        '<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0" Units="Hartree atomic units"><input>'
        f"<control_variables><calculation>scf</calculation></control_variables><atomic_species>{species}"
        "</atomic_species></input><output><convergence_info><scf_conv><convergence_achieved>true"
        "</convergence_achieved><n_scf_steps>9</n_scf_steps></scf_conv></convergence_info>"
        f'<atomic_structure nat="{len(atoms)}" alat="1.0"><atomic_positions>{places}</atomic_positions>'
        f"<cell>{vectors}</cell></atomic_structure>"
        f"<total_energy><etot>{energy / units.HARTREE:.12f}</etot></total_energy><band_structure>"
        "<nelec>16</nelec><occupations_kind>fixed</occupations_kind></band_structure></output></qes:espresso>"
    )


def write_run(folder, seed, *, energy=None, keywords="", centers=None):
    atoms, found, dipole = water(seed)
    folder.mkdir(parents=True)
    (folder / "w.win").write_text(win_of(atoms, keywords))
    found = found if centers is None else centers(found)
    labels = ["X"] * len(found) + atoms.get_chemical_symbols()
    (folder / "w_centres.xyz").write_text(f"{len(labels)}\n\n" + rows(labels, np.concatenate([found, atoms.positions])))
    if energy is not None:
        (folder / "w.save").mkdir()
        (folder / "w.save" / "data-file-schema.xml").write_text(pw_xml(atoms, energy))
    return dipole


def check(frames, dipoles):
    """Centroids, their sums and dipoles are the true ones."""
    assert frames.attributes["valence_charges"] == ELECTRONS["valence_charges"]
    assert frames.attributes["electrons_per_centre"] == ELECTRONS["electrons_per_centre"]
    for frame, dipole in zip(frames, dipoles, strict=True):
        np.testing.assert_allclose(frame.labels["dipole"], dipole, atol=1e-8)
        assert not frame.labels["atomic_dipole"][frame.atoms.numbers == 1].any()
        charges = np.where(frame.atoms.numbers == 8, -2.0, 1.0)
        from_centroids = charges @ frame.atoms.positions - 8 * frame.labels["atomic_dipole"].sum(axis=0)
        np.testing.assert_allclose(from_centroids, dipole, atol=1e-8)


def test_folders_of_wannier90(tmp_path, capsys):
    dipoles = [write_run(tmp_path / f"runs/w{k}", k, energy=-930.0 - k if k else None) for k in range(3)]
    assert len(wannier_runs(tmp_path / "runs")) == 3
    assert not main(["convert", str(tmp_path / "runs"), "--out", str(tmp_path / "w.h5")])
    told = capsys.readouterr().out
    assert "3 structures with energy (2), dipole, atomic_dipole" in told
    assert "ions: H 1, O 6 e; electrons at each centroid: O 8" in told
    frames = read_frames(tmp_path / "w.h5")
    assert [frame.name for frame in frames] == ["w0", "w1", "w2"]
    assert frames[2].labels["energy"] == pytest.approx(-932.0)
    check(frames, dipoles)


@pytest.mark.parametrize("where", ["comment", "file", "option"])
def test_trajectory_of_cp2k(tmp_path, where):
    text, cells, dipoles = "", "# Step Time Ax\n", []
    for step in (0, 10):
        atoms, centers, dipole = water(step)
        labels = [*atoms.get_chemical_symbols(), *["X"] * len(centers)]
        comment = (
            f'Lattice="{LENGTH} 0 0 0 {LENGTH} 0 0 0 {LENGTH}"' if where == "comment" else f" i = {step:8d}, E = -1"
        )
        text += f"{len(labels)}\n{comment}\n" + rows(labels, np.concatenate([atoms.positions, centers]))
        cells += f"{step} 0.0 {LENGTH} 0 0 0 {LENGTH} 0 0 0 {LENGTH} 216\n"
        dipoles.append(dipole)
    source, target = tmp_path / "p-HOMO_centers_s1-1_0.xyz", tmp_path / "w.h5"
    source.write_text(text)
    if where == "file":
        (tmp_path / "p-1.cell").write_text(cells)
    options = ["--cell", str(LENGTH)] if where == "option" else []
    assert not main(["convert", str(source), "--out", str(target), "--force", *options])
    frames = read_frames(target)
    assert frames[1].name.startswith("p-HOMO_centers_s1-1_0-1")
    check(frames, dipoles)


def test_charges_by_option(tmp_path, capsys):
    """Other charges of the ions than those of outer electrons, for functions of excluded bands."""
    write_run(tmp_path / "w", 0, keywords="exclude_bands = 1-2")
    source, target = str(tmp_path / "w"), str(tmp_path / "w.h5")
    assert main(["convert", source, "--out", target, "--ions", "O=8", "--ions", "H=1"]) == 1
    told = capsys.readouterr().err
    assert "w_centres.xyz: ions O 8, H 1 and 8 functions of 2 electrons leave a charge of 4 e; give the charges" in told
    assert not main(
        ["convert", source, "--out", target, "--force", "--ions", "O=7", "--ions", "H=0.5", "--functions", "O=4"]
    )
    assert read_frames(target).attributes["valence_charges"] == {"O": 7.0, "H": 0.5}


def test_structures_that_do_not_split_are_left_out(tmp_path):
    write_run(tmp_path / "r/a", 0)
    write_run(tmp_path / "r/b", 1, centers=lambda found: np.concatenate([found[:3], found[4:5] + 0.05, found[4:]]))
    with pytest.warns(UserWarning, match=r"1 of 2 structures are left out: .*b.w_centres.xyz: centers do not split"):
        frames = read_center_runs([tmp_path / "r"])
    assert [frame.name for frame in frames] == ["a"]
    with pytest.raises(ValueError, match=r"w_centres.xyz: centers do not split.*; no structure is left of 1"):
        read_center_runs([tmp_path / "r/b"])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--functions", "O=3"], "got 8 centers, need 6"),
        (["--functions", "S=4"], "got functions of S, there are H, O"),
        (["--functions", "O=4.5"], "got --functions O=4.5, need a whole number"),
        (["--ions", "O=6"], "got no charge of the ion H; give --ions H=N"),
        (["--ions", "O=six"], "got --ions O=six, need SYMBOL=N"),
        (["--grid", "-5", "5"], "got --grid for .*; leave it out, the source has Wannier centers"),
        (["--cell", "1", "2"], "got --cell with 2 numbers, need a length"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, message):
    write_run(tmp_path / "w", 0)
    assert main(["convert", str(tmp_path / "w"), "--out", str(tmp_path / "w.h5"), *options]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "w.h5").exists()


def test_bands_that_are_not_occupied(tmp_path):
    write_run(tmp_path / "w", 0, keywords="num_bands = 12")
    with pytest.raises(ValueError, match="got 8 functions of 12 bands"):
        read_center_runs([tmp_path / "w"])


def test_no_cell(tmp_path):
    atoms, centers, _ = water(0)
    labels = [*atoms.get_chemical_symbols(), *["X"] * len(centers)]
    source = tmp_path / "p-HOMO_centers_s1-1_0.xyz"
    source.write_text(f"{len(labels)}\n i = 0\n" + rows(labels, np.concatenate([atoms.positions, centers])))
    with pytest.raises(ValueError, match=r"frame 0 has no cell, and there is no one file p\*.cell beside it; give"):
        read_center_runs([source])


def test_a_folder_is_not_read_without_conversion(tmp_path):
    write_run(tmp_path / "w", 0)
    with pytest.raises(ValueError, match="a folder with Wannier centers; convert it first: mlelec convert"):
        read_frames(tmp_path / "w")
