"""Snapshots from files of pp.x and a pw.x run: an LDOS that is made to add up to the levels of a stored run."""

import re
import shutil

import numpy as np
import pytest
from small_projwfc import write_run

from ase_mlelec import units
from ase_mlelec.data.frames import read_all
from ase_mlelec.data.runs.ldos import ldos_folders
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.io.cube import write_cube
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.espresso.setup import read_setup
from ase_mlelec_entry_points.cli.main import main

WIDTH, SHAPE = 0.3, (4, 3, 2)
ENERGIES = np.arange(-11.5, 6.01, 0.25)
UPF = (
    '<UPF version="2.0.1"><PP_HEADER element="H" z_valence="1" functional="PZ" mesh_size="2"/>\n<PP_MESH><PP_R>0 1'
    "</PP_R><PP_RAB>1 1</PP_RAB></PP_MESH><PP_LOCAL>0 0</PP_LOCAL><PP_RHOATOM>0 0</PP_RHOATOM></UPF>"
)


def gaussian(x):
    return np.exp(-(x**2)) / np.pi**0.5


def thermal(x):
    return 1 / (2 + np.exp(-x) + np.exp(x))


def density_of_states(setup, form=gaussian):
    each = form((ENERGIES - setup.eigenvalues[..., None]) / WIDTH) / WIDTH
    return np.einsum("k,kme->e", setup.kpoint_weights, each)


def filplot(data, energy):
    rows = data.ravel(order="F")
    numbers = "".join(" ".join(f"{x:.9E}" for x in rows[i : i + 5]) + "\n" for i in range(0, len(rows), 5))
    sizes = " ".join(map(str, (*data.shape, *data.shape, 3, 1)))
    return (
        f" Energy = {energy:8.4f} eV, broadening = {WIDTH:8.4f} eV\n{sizes}\n 1 6.0 0 0 0 0 0\n 20.0 4.0 6.0 3\n"
        f" 1 H 1.00\n 1 0.3 0 0 1\n 2 0 0.3 0 1\n 3 0 0 0.3 1\n{numbers}"
    )


@pytest.fixture
def folder(tmp_path):
    """A run whose smearing is rewritten to Gaussian, its text output, and the LDOS."""
    return make(tmp_path / "a")


def make(folder, form=gaussian, scale=1.0, cubes=False):
    write_run("symmetric", folder)
    (folder / "x.save" / "atomic_proj.xml").unlink()
    (folder / "projwfc.out").unlink()
    change(folder / "x.save" / "data-file-schema.xml", ">fd<", ">gaussian<")
    setup = read_setup(folder)
    wave = 1 + 0.5 * np.cos(2 * np.pi * np.arange(SHAPE[0]) / SHAPE[0])[:, None, None] * np.ones(SHAPE)
    wave += 0.2 * np.arange(SHAPE[1])[:, None]
    volume = abs(np.linalg.det(setup.cell))
    ldos = scale * wave[..., None] / wave.mean() * density_of_states(setup, form) / volume
    atomic = ldos * units.RYDBERG * units.BOHR**3
    atoms = read_pw(folder).to_atoms()
    for k, energy in enumerate(ENERGIES):
        if cubes:
            write_cube(folder / f"ldos{k}.cube", atoms, ldos[..., k] * units.RYDBERG)
            lines = (folder / f"ldos{k}.cube").read_text().split("\n", 2)
            lines[1] = f"  Energy = {energy:8.4f} eV, broadening = {WIDTH:8.4f} eV"
            (folder / f"ldos{k}.cube").write_text("\n".join(lines))
        else:
            (folder / f"ldos.{k:03d}").write_text(filplot(atomic[..., k], energy))
    (folder / "H.UPF").write_text(UPF)
    np.save(folder / "ldos.npy", ldos)
    return folder


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def convert(folder, *options):
    return main(
        ["convert", str(folder), "-o", str(folder / "x.h5"), "--upf", str(folder / "H.UPF"), "--force", *options]
    )


@pytest.mark.parametrize("cubes", [False, True])
def test_snapshot(tmp_path, cubes, capsys):
    folder = make(tmp_path / "a", cubes=cubes)
    assert convert(folder) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{folder / 'x.h5'}: 1 snapshots"
    assert lines[0].startswith(
        "  LDOS: 71 energies from -11.5 to 6 eV, Gaussian exp(-(x/s)^2) with s = 0.3 eV; all grid"
    )
    assert lines[2].startswith("  free energies by the LDOS are ") and len(lines) == 3
    assert lines[1].startswith("  electrons: H 1; temperature 3157.75 K; Fermi levels -") and "lda_pz" in lines[1]
    snapshots = Snapshots(folder / "x.h5")
    (snapshot,) = snapshots
    ldos = np.load(folder / "ldos.npy")
    np.testing.assert_allclose(snapshots.energies, ENERGIES, atol=1e-9)
    np.testing.assert_allclose(snapshot.ldos, ldos.reshape(-1, len(ENERGIES)), atol=ldos.max() / 65535 + 1e-6)
    setup, result = read_setup(folder), read_pw(folder)
    np.testing.assert_allclose(snapshot.dos, density_of_states(setup), rtol=1e-5, atol=1e-6)
    assert snapshot.energy == result.energy and snapshot.fermi_level == setup.fermi_level
    np.testing.assert_allclose(snapshot.forces, result.forces)
    np.testing.assert_allclose(snapshot.stress, result.stress)
    volume = snapshot.atoms.get_volume()
    assert snapshot.density.mean() * volume == pytest.approx(3.0, abs=1e-4) and snapshot.shape == SHAPE
    assert snapshot.temperature == pytest.approx(0.02 * units.RYDBERG / units.KB, abs=1e-3)
    attributes = snapshots.attributes
    assert attributes["valence_electrons"] == {"H": 1.0} and attributes["xc"] == "lda_pz"
    assert attributes["dos_width_eV"] == WIDTH
    grid = setup.grid
    assert attributes["grid_spacing_A"] == pytest.approx(6 * units.BOHR / grid[0])


def test_points_and_folders(tmp_path, capsys):
    for name in "ab":
        make(tmp_path / name)
    shutil.copy(tmp_path / "a" / "H.UPF", tmp_path)
    assert [files.folder.name for files in ldos_folders(tmp_path)] == ["a", "b"]
    assert convert(tmp_path, "--points", "5") == 0
    snapshots = Snapshots(tmp_path / "x.h5")
    assert [snapshot.name for snapshot in snapshots] == ["a", "b"] and len(snapshots[0].points) == 5
    assert "; 5 grid points of each snapshot" in capsys.readouterr().out
    whole = np.load(tmp_path / "a" / "ldos.npy").reshape(-1, len(ENERGIES))
    np.testing.assert_allclose(snapshots[0].ldos, whole[snapshots[0].points], atol=whole.max() / 65535 + 1e-6)


@pytest.mark.parametrize(
    "form, scale, message",
    [
        (
            thermal,
            1.0,
            "pp.x broadened the LDOS with the smearing of the pw.x run, .* write gaussian between <smearing",
        ),
        (gaussian, units.RYDBERG, r"adds up to a density of states that is off by \d+ % from that of the levels"),
    ],
)
def test_wrong_broadening_and_units(tmp_path, capsys, form, scale, message):
    folder = make(tmp_path / "a", form, scale)
    assert convert(folder) == 1 and not (folder / "x.h5").exists()
    assert re.search(message, capsys.readouterr().err)


def test_what_is_missing(folder, capsys):
    def refused(message, *options):
        assert convert(folder, *options) == 1
        assert message in capsys.readouterr().err

    refused("leave it out, pp.x wrote energies and width of the LDOS", "--width", "0.2")
    refused("got --points 0, need 1 or more", "--points", "0")
    refused("the energies end at 6 eV, too near to the Fermi level", "--electronic-temperature", "60000")
    (folder / "scf.out").unlink()
    refused("the temperature of the electrons is not known")
    assert convert(folder, "--electronic-temperature", "3000") == 0
    (folder / "ldos.040").unlink()
    refused("energies are missing between -1.75 and -1.25 eV; run pp.x again")


@pytest.mark.parametrize("what", ["origin", "order of the vectors", "atoms"])
def test_cubes_of_other_points(what, tmp_path, capsys):
    """The density of states would be the same."""
    folder = make(tmp_path / "a", cubes=True)
    for path in folder.glob("*.cube"):
        lines = path.read_text().split("\n")
        if what == "origin":
            lines[2] = lines[2].split()[0] + " 0.5 0.0 0.0"
        elif what == "order of the vectors":
            rows = [line.split() for line in lines[3:6]]
            lines[3:6] = [" ".join([rows[k][0], *rows[(k + 1) % 3][1:]]) for k in range(3)]
        else:
            lines[6] = " ".join([*lines[6].split()[:2], "1.0 1.0 1.0"])
        path.write_text("\n".join(lines))
    assert convert(folder) == 1
    assert "its cell, its atoms or the origin of its points are not those of" in capsys.readouterr().err


def test_energies_above_the_lowest_level(folder, capsys):
    for k in range(8):
        (folder / f"ldos.{k:03d}").unlink()
    assert convert(folder) == 1
    assert "the energies begin at -9.5 eV, but the lowest level is at -10.12 eV: electrons" in capsys.readouterr().err


def test_no_run_beside(folder, capsys):
    shutil.rmtree(folder / "x.save")
    assert convert(folder) == 1
    assert "need one pw.x run beside the files of the LDOS, prefix.save with data-" in capsys.readouterr().err


def test_pseudopotentials(folder, capsys):
    change(folder / "x.save" / "data-file-schema.xml", "H.pz-vbc.UPF", "none.UPF")
    assert main(["convert", str(folder), "-o", str(folder / "x.h5")]) == 1
    assert "the pseudopotential of H, none.UPF, is not there; give it with --upf" in capsys.readouterr().err
    change(folder / "H.UPF", 'element="H"', 'element="H" is_ultrasoft="T"')
    assert convert(folder) == 1
    assert "the pseudopotential of H is ultrasoft or PAW, whose LDOS lacks" in capsys.readouterr().err


def test_energies_of_a_folder_with_an_ldos(folder):
    """Reading energies alone says that there is more."""
    with pytest.warns(
        UserWarning, match=f"{folder}: with a local density of states of pp.x, not read here; .* convert"
    ):
        assert read_all([folder]).counts["energy"] == 1
