"""Data sets with densities of states from vasprun.xml, against sums of Gaussians of the numbers written into it."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
from small_vasp import example, parameter, vasprun

from ase_mlelec import units
from ase_mlelec.data.frames import read_all, read_frames, read_hdf5
from ase_mlelec.data.runs.read import has_spectra, read_runs
from ase_mlelec.data.runs.spectra import Spectra, described
from ase_mlelec.io.vasp import VaspError
from ase_mlelec_entry_points.cli.main import main

WIDTH = 0.3


def write(folder, data, **parameters):
    folder.mkdir(exist_ok=True)
    (folder / "vasprun.xml").write_text(vasprun(data, **parameters))
    return folder


def gaussians(energies, data, amounts):
    """Sum over spins, k-points and bands of the amounts [spins, K, M, n] times normalized Gaussians, [n, S]."""
    weights = np.array(data["weights"]) * 2 / len(data["eigenvalues"])
    away = (energies - data["eigenvalues"][..., None]) / WIDTH
    return np.einsum("k,skmn,skme->ne", weights, amounts, np.exp(-(away**2)) / (WIDTH * np.pi**0.5))


@pytest.mark.filterwarnings("ignore:.*the projections hold only")
@pytest.mark.parametrize("spins", [1, 2])
@pytest.mark.parametrize("normalize", [None, False])
def test_spectra(tmp_path, spins, normalize):
    data = example(spins=spins)
    frames = read_runs([write(tmp_path / "a", data, ISPIN=spins)], spectra=Spectra(WIDTH, normalize=normalize))
    assert frames.counts == {"energy": 2, "forces": 2, "virial": 2, "ados": 1, "dos": 1}
    spectrum = frames[1]
    assert spectrum.labels["energy"] == pytest.approx(data["steps"][1]["energy"])
    amounts = data["shares"].sum(axis=4)
    if normalize is None:
        amounts = amounts / amounts.sum(axis=3, keepdims=True)
    np.testing.assert_allclose(spectrum.labels["ados"], gaussians(frames.energies, data, amounts), atol=1e-6)
    total = gaussians(frames.energies, data, np.ones((*data["eigenvalues"].shape, 1)))[0]
    np.testing.assert_allclose(spectrum.labels["dos"], total, atol=1e-6)
    found = frames.attributes
    assert found["valence_electrons"] == {"Na": 1.0, "Cl": 7.0} and found["projections_normalized"] == (
        normalize is None
    )
    assert found["settings"]["electronic_temperature_K"] == pytest.approx(0.1 / units.KB, abs=1e-3)
    assert found["energy_reference"] == "average electrostatic potential of the cell (VASP)"
    share = found["projected_shares"][0]
    assert 0.4 < share < 0.8


@pytest.mark.filterwarnings("ignore:.*the projections hold only")
def test_fixed_density(tmp_path):
    """A density that was read and kept, as for a dense mesh: the spectra alone are labels."""
    data = example(n_steps=1)
    with pytest.warns(
        UserWarning, match="vasprun.xml: its density is kept as it was read .ICHARG = 11.*spectra alone are"
    ):
        (frame,) = read_runs([write(tmp_path / "a", data, ICHARG=11)])
    assert frame.labels.keys() == {"ados", "dos"}
    assert "energy" in read_runs([write(tmp_path / "b", data, ICHARG=1)])[0].labels
    folder = write(tmp_path / "c", data | {"shares": None}, ICHARG=11)
    with pytest.raises(VaspError, match="ICHARG = 11.*no labels; give the run that made the density"):
        read_frames(folder)
    folder = write(tmp_path / "d", data, ICHARG=12)  # of atoms beside each other, whose spectra are no labels either
    with pytest.raises(
        VaspError, match="as the sum of those of atoms .ICHARG = 12.*give the run that made the density"
    ):
        read_frames(folder)


@pytest.mark.parametrize("name", ["EFIELD", "EFIELD_PEAD"])
@pytest.mark.parametrize("field", [0.0, 0.1])
def test_electric_field(name, field, tmp_path, recwarn):
    folder = write(tmp_path / "a", example() | {"shares": None}, **{name: field})
    if name == "EFIELD_PEAD":  # a vector
        file = folder / "vasprun.xml"
        text = re.sub("<i name=.EFIELD_PEAD.> (.*) </i>", r'<v name="EFIELD_PEAD"> 0.0 0.0 \1 </v>', file.read_text())
        assert "<v name=" in text
        file.write_text(text)
    read_frames(folder)
    assert ["vasprun.xml: it is in an electric field" in str(each.message) for each in recwarn] == [True] * bool(field)


@pytest.mark.parametrize("name, value, label", [("ISIF", 1, "virial"), ("IMAGES", 4, "forces"), ("ISIF", 3, "")])
@pytest.mark.parametrize("incar", [False, True])
def test_settings_that_make_labels_wrong(name, value, label, incar, tmp_path):
    """Also of settings that are among those of the user alone."""
    folder = write(tmp_path / "a", example() | {"shares": None}, **{name: value})
    file = folder / "vasprun.xml"
    line = parameter(name, value)
    assert line in file.read_text()
    if incar:
        file.write_text(file.read_text().replace(line, "").replace("<kpoints>", f"<incar>\n{line}</incar>\n<kpoints>"))
    with pytest.warns(UserWarning, match=f"{name}.*") if label else nullcontext():
        frames = read_frames(folder)
    assert frames.counts == {each: 2 for each in ("energy", "forces", "virial") if each != label}


@pytest.mark.filterwarnings("ignore:.*the projections hold only")
def test_fixed_magnetization(tmp_path):
    """What one Fermi level of both spins has anyway is taken; more is refused."""
    data = example(spins=2)
    free = read_runs([write(tmp_path / "a", data, ISPIN=2)], spectra=Spectra(WIDTH))
    assert free.attributes["settings"]["spins"] == "both, added"
    with pytest.raises(ValueError, match="NUPDOWN = 5 gives each spin its own Fermi level, .*; leave NUPDOWN out"):
        read_runs([write(tmp_path / "b", data, ISPIN=2, NUPDOWN=5)], spectra=Spectra(WIDTH))


def test_poor_projections_are_said(tmp_path):
    with pytest.warns(UserWarning, match=r"the projections hold only \d\d % of the electrons, .*; --normalize scales"):
        read_runs([write(tmp_path, example())], spectra=Spectra(WIDTH, normalize=False))


def test_equivalent_atoms_have_the_mean(tmp_path):
    """Where symmetry reduced the k-points (ISYM of 1 or more)."""
    data = example(n_steps=1) | {"symbols": ["Si", "Si"], "valence": {"Si": 4.0}}
    data["steps"][0]["fractions"] = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    for symmetry, same in ((2, True), (0, False)):
        (frame,) = read_frames(write(tmp_path / "a", data, ISYM=symmetry))
        first, second = frame.labels["ados"]
        assert np.allclose(first, second, atol=1e-12) == same


def test_without_projections(tmp_path):
    folder = write(tmp_path / "a", example() | {"shares": None})
    assert not has_spectra(folder)
    for path in folder, folder / "vasprun.xml", tmp_path:
        frames = read_frames(path)
        assert frames.counts == {"energy": 2, "forces": 2, "virial": 2}
        assert [frame.labels["energy"] for frame in frames] == pytest.approx([-7.0, -7.1])
    charged = write(tmp_path / "b", example() | {"shares": None}, NELECT=7.0)
    with pytest.warns(UserWarning, match=r"the cell has a charge of 1 e \(NELECT\), on which its energy depends"):
        assert len(read_frames(charged)) == 2


def test_steps_that_did_not_converge(tmp_path):
    data = example()
    data["steps"][0]["scsteps"] = [-1.0, -6.0, -7.0]
    with pytest.warns(UserWarning, match=r"1 of 2 steps did not converge \(NELM\), and are left out"):
        assert len(read_frames(write(tmp_path / "a", data, NELM=3))) == 1
    data = example(n_steps=1)
    data["steps"][0]["scsteps"] = [-1.0, -6.0, -7.0]
    with (
        pytest.warns(UserWarning, match="1 of 1 steps did not"),
        pytest.raises(VaspError, match="the electrons of the last step, of the bands, did not converge; raise NELM"),
    ):
        read_runs([write(tmp_path / "b", data, NELM=3)], spectra=Spectra())


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("Gamma", "listgenerated", "its k-points are along lines, and bands of a path are no density of states"),
        ('"NELECT"> 8.0', '"NELECT"> 7.0', r"the cell has a charge of 1 e \(NELECT\), .*; leave the run out"),
        ('"NELECT"> 8.0', '"NELECT"> 12.0', r"the cell has a charge of -4 e"),
    ],
)
def test_runs_without_a_density_of_states(tmp_path, old, new, message):
    folder = write(tmp_path, example())
    text = (folder / "vasprun.xml").read_text()
    assert old in text
    (folder / "vasprun.xml").write_text(text.replace(old, new))
    with pytest.raises(VaspError, match=message):
        read_runs([folder], spectra=Spectra())


def test_bands_that_are_cut_off(tmp_path, capsys):
    """Their steps are read, or the reason is told where spectra are asked for."""
    path = write(tmp_path, example()) / "vasprun.xml"
    path.write_text(path.read_text()[:-30])
    with pytest.warns(UserWarning) as caught:
        assert read_frames(path).counts == {"energy": 2, "forces": 2, "virial": 2}
    assert "energies alone are read" in str(caught[-1].message) and "no run has all of its bands" in str(
        caught[-1].message
    )
    capsys.readouterr()
    with pytest.warns(UserWarning, match="ends early"):
        assert main(["convert", str(path), "--width", "0.3", "-o", str(tmp_path / "a.h5")]) == 1
    assert "vasprun.xml: no run has all of its bands; let them finish" in capsys.readouterr().err


def test_zeros_in_place_of_a_stress(tmp_path):
    data = example()
    data["steps"][0]["stress"] = np.zeros((3, 3))
    assert read_frames(write(tmp_path, data)).counts["virial"] == 1


def test_convert(tmp_path, capsys):
    for k in range(3):
        write(tmp_path / f"run{k}", example(k, n_steps=1))
    assert main(["convert", str(tmp_path), "-o", str(tmp_path / "x.h5"), "--width", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "3 structures with energy, forces, virial, ados, dos\n" in out and "of the electrons, scaled to 100 %" in out
    frames = read_hdf5(tmp_path / "x.h5")
    assert [frame.name for frame in frames] == ["run0", "run1", "run2"]
    assert described(frames) == described(read_all([tmp_path / f"run{k}" for k in range(3)], spectra=Spectra(0.3)))
    assert (
        main(["convert", str(tmp_path / "run0" / "vasprun.xml"), "-o", str(tmp_path / "y.h5"), "--key", "energy=E"])
        == 1
    )
    assert "got names of labels (E), which are for files that ASE reads" in capsys.readouterr().err
