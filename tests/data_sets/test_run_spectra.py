"""Data sets with densities of states from runs of pw.x and projwfc.x."""

import re
import shutil
import warnings

import numpy as np
import pytest
from small_projwfc import HYDROGEN, INPUTS, WIDTH, write_run
from small_projwfc import run as run_programs

from ase_mlelec import units
from ase_mlelec.data.frames import read_all, read_frames, read_hdf5, write_hdf5
from ase_mlelec.data.runs.read import has_spectra, read_runs
from ase_mlelec.data.runs.spectra import Spectra, described
from ase_mlelec.io.espresso import EspressoError, Projections, read_projections, read_pw
from ase_mlelec.io.espresso.setup import read_setup
from ase_mlelec.physics import fermi
from ase_mlelec_entry_points.cli.main import main

PROJWFC = WIDTH * units.RYDBERG  # width of what projwfc.x printed, eV
RELAXED = dict(kpoints="gamma", control="forc_conv_thr=2e-2, etot_conv_thr=1e-2")
T = 0.02 * units.RYDBERG / units.KB


@pytest.fixture
def run(tmp_path):
    write_run("symmetric", tmp_path / "a")
    return tmp_path / "a"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["symmetric", "whole_mesh", "nscf", "spin"])
def test_spectra_are_those_of_projwfc(name, tmp_path):
    """projwfc.x symmetrizes what it prints, and not what it writes to atomic_proj.xml; it prints three digits."""
    printed = write_run(name, tmp_path)
    energies = printed[:, 0]
    spectra = Spectra(width=PROJWFC, grid=(energies[0] - 2, energies[-1]), step=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # projwfc.x goes beyond the complete bands
        (frame,) = frames = read_runs([tmp_path], spectra=spectra)
    np.testing.assert_allclose(frames.energies[10:], energies, atol=2e-3)
    found = np.vstack([frame.labels["dos"], frame.labels["ados"]])[:, 10:]
    np.testing.assert_allclose(found, printed[:, 1:].T, rtol=5.1e-3, atol=2e-5)
    raw = read_projections(tmp_path / "x.save", output=tmp_path / "projwfc.out").site_dos(energies, width=PROJWFC)
    if name != "whole_mesh":
        assert abs(raw - printed[:, 2:].T).max() > 0.1


def test_fermi_level_and_electrons(run):
    """The Fermi level of the levels is pw.x's, and that of the spectrum is near it; the grid holds all electrons."""
    frames = read_runs([run])
    level = read_setup(run).fermi_level
    low, high = frames.attributes["fermi_levels_eV"]
    assert low == high == pytest.approx(level, abs=2e-6)
    assert frames.attributes["settings"]["electronic_temperature_K"] == pytest.approx(T, abs=1e-2)
    assert frames.attributes["valence_electrons"] == {"H": 1.0}
    assert fermi.fermi_level(frames.energies, frames[0].labels["dos"], 3.0, T) == pytest.approx(level, abs=0.1)
    assert frames.attributes["settings"]["functional"] == "lda_pz"


def test_both_spins_are_added(tmp_path):
    """The Fermi level of all levels is pw.x's, the magnetization too; the DOS holds all electrons."""
    write_run("spin", tmp_path)
    frames, setup = read_runs([tmp_path]), read_setup(tmp_path)
    low, high = frames.attributes["fermi_levels_eV"]
    assert low == high == pytest.approx(setup.fermi_level, abs=2e-6) and setup.magnetization is None
    bands = read_projections(tmp_path / "x.save", output=tmp_path / "projwfc.out")
    np.testing.assert_allclose(bands.eigenvalues, setup.eigenvalues, atol=1e-6)
    up, down = (part.n_electrons(low, temperature=T) for part in bands.halves())
    total = float((tmp_path / "x.save" / "data-file-schema.xml").read_text().split("<total>")[1].split("<")[0])
    assert up + down == pytest.approx(3, abs=1e-6) and up - down == pytest.approx(total, abs=1e-5) and total > 0.7
    dos = frames[0].labels["dos"]
    assert fermi.fermi_level(frames.energies, dos, 3.0, T) == pytest.approx(low, abs=0.1)
    assert described(frames)[-1] == "spins: runs with two have the sum of both, in states/eV"


def test_spins_with_different_fermi_levels_are_refused(tmp_path):
    write_run("constrained", tmp_path)
    needed = r"x.save: tot_magnetization = 1 gives each spin its own Fermi level, .* a magnetization of 0\.88\d*; leave"
    with pytest.raises(EspressoError, match=needed):
        read_runs([tmp_path], spectra=Spectra())
    change(tmp_path / "x.save/data-file-schema.xml", "<tot_magnetization>1.0", "<tot_magnetization>0.88")
    assert "dos" in read_runs([tmp_path])[0].labels  # as much as both spins have anyway


def test_labels_are_those_of_read_pw(run):
    (frame,), found = read_frames(run), read_pw(run)
    assert frame.labels["energy"] == found.energy and frame.name == "x"
    np.testing.assert_allclose(frame.labels["forces"], found.forces)
    np.testing.assert_allclose(frame.labels["virial"], -found.stress * frame.atoms.get_volume())


def test_energy_of_an_nscf_run_is_that_of_the_scf_output(tmp_path):
    write_run("nscf", tmp_path)
    (frame,) = read_frames(tmp_path)
    assert frame.labels["energy"] == pytest.approx(read_pw(tmp_path / "scf.out").energy) and "forces" in frame.labels
    other = (tmp_path / "scf.out").read_text().replace("-2.9415", "-2.9425")
    (tmp_path / "other.out").write_text(other)
    with pytest.raises(EspressoError, match=r"2 outputs near it have different energies .*other.out, scf.out.*; move"):
        read_frames(tmp_path)
    (tmp_path / "other.out").unlink()
    change(tmp_path / "scf.out", "0.3000000", "0.3100000")
    assert read_frames(tmp_path)[0].labels.keys() == {"ados", "dos"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("projwfc.x") is None, reason="needs pw.x and projwfc.x")
def test_steps_of_a_relaxation(tmp_path, monkeypatch):
    """All have energies and forces, the last one has spectra."""
    system = "nbnd=5, occupations='smearing', smearing='fd', degauss=0.02"
    monkeypatch.setitem(INPUTS, "relax", [HYDROGEN | dict(calculation="relax", system=system, **RELAXED)])
    run_programs("relax", tmp_path)
    frames, text = read_runs([tmp_path]), (tmp_path / "relax.out").read_text()
    printed = [float(number) * units.RYDBERG for number in re.findall(r"^!.*= +(\S+) Ry", text, re.MULTILINE)]
    assert [frame.labels["energy"] for frame in frames] == pytest.approx(printed, abs=1e-6) and len(printed) > 1
    assert frames.counts | {"virial": 0} == {
        "energy": len(frames),
        "forces": len(frames),
        "virial": 0,
        "dos": 1,
        "ados": 1,
    }
    assert "dos" in frames[-1].labels and frames[-1].name == "x" and frames[0].name == "x-0"


def test_one_grid_for_runs_of_different_ranges(tmp_path):
    """The grid begins below the lowest level of all and ends where the first run lacks bands; values are exact."""
    for name, of in (("a", "symmetric"), ("b", "nscf")):
        write_run(of, tmp_path / name)
    frames, width = read_frames(tmp_path), Spectra().width
    assert [frame.name for frame in frames] == ["a/x", "b/x"]
    lowest, complete = np.inf, np.inf
    for frame, name in zip(frames, "ab"):
        path = tmp_path / name
        bands = read_projections(path / "x.save", output=path / "projwfc.out").averaged([0, 0, 0])
        np.testing.assert_allclose(frame.labels["ados"], bands.site_dos(frames.energies, width=width), atol=1e-14)
        np.testing.assert_allclose(frame.labels["dos"], bands.total_dos(frames.energies, width=width), atol=1e-14)
        lowest, complete = min(lowest, bands.eigenvalues.min()), min(complete, bands.complete_below)
    assert 0 <= lowest - 4 * width - frames.energies[0] < 0.1 and 0 <= complete - 2 * width - frames.energies[-1] < 0.1
    np.testing.assert_allclose(frames.energies / 0.1, np.rint(frames.energies / 0.1), atol=1e-9)
    separate = [read_frames(tmp_path / name) for name in "ab"]
    assert len(separate[0].energies) != len(separate[1].energies)
    together = read_all([tmp_path / "a", tmp_path / "b"])
    np.testing.assert_allclose(together.energies, frames.energies)


def test_runs_are_added_to_a_data_set(run, tmp_path):
    """Width and energies are those of the data set; its temperature has to be the same."""
    former = read_runs([run], spectra=Spectra(0.4, (-15.0, 4.0), 0.25))
    write_hdf5(tmp_path / "former.h5", former)
    both = read_all([tmp_path / "former.h5", run])
    assert len(both) == 2 and both.attributes["dos_width_eV"] == 0.4
    np.testing.assert_allclose(both[1].labels["ados"], both[0].labels["ados"], rtol=1e-6, atol=1e-12)
    former.attributes["settings"]["electronic_temperature_K"] = 300.0
    write_hdf5(tmp_path / "former.h5", former)
    with pytest.raises(ValueError, match=r"its electrons are at 3157\.\d* K, those of the data beside it at 300 K"):
        read_all([tmp_path / "former.h5", run])


@pytest.mark.parametrize(
    "path", ["", "x.save", "x.save/atomic_proj.xml", "x.save/data-file-schema.xml", "projwfc.out", ".."]
)
def test_paths_of_a_run(run, path):
    assert has_spectra(run / path) and read_frames(run / path).counts.keys() >= {"energy", "ados", "dos"}


def test_outdir_and_one_text_for_all_programs(run):
    (run / "tmp").mkdir()
    (run / "x.save").rename(run / "tmp" / "x.save")
    (run / "scf.out").write_text((run / "scf.out").read_text() + (run / "projwfc.out").read_text())
    (run / "projwfc.out").unlink()
    (frame,) = read_frames(run)
    assert "ados" in frame.labels
    with pytest.warns(UserWarning, match=r"bands projected on atoms lie in .*tmp/x.save: give this folder"):
        assert "ados" not in read_frames(run / "scf.out")[0].labels


def test_options(run):
    frames = read_runs([run], spectra=Spectra(0.3, (-20.0, 5.0), electronic_temperature=1000.0))
    assert frames.energies[0] == -20 and frames.energies[-1] == 5 and len(frames.energies) == 501
    assert frames.attributes["dos_width_eV"] == 0.3
    assert frames.attributes["settings"]["electronic_temperature_K"] == 1000
    scaled = read_runs([run], spectra=Spectra(normalize=True))
    np.testing.assert_allclose(scaled[0].labels["ados"].sum(axis=0), scaled[0].labels["dos"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            dict(grid=(-5.0, 5.0)),
            r"x.save: the grid begins at -5 eV, but the lowest level is at -\d+.\d+ eV: .* begin it",
        ),
        (dict(grid=(-20.0, 0.0)), r"x.save: the grid ends at 0 eV, and must hold \d.* eV, .*; end it at \d+ or above"),
        (
            dict(electronic_temperature=1e5),
            r"and must hold .*; calculate more bands \(nbnd of pw.x\): they are complete",
        ),
    ],
)
def test_grids_that_do_not_hold_the_electrons(run, options, message):
    with pytest.raises(ValueError, match=message):
        read_runs([run], spectra=Spectra(**options))


def test_grid_beyond_the_bands(run):
    with pytest.warns(UserWarning, match=r"ends at 30 eV, but bands are complete only below .*; end the grid at"):
        read_runs([run], spectra=Spectra(grid=(-20.0, 30.0)))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(width=0.0), "width: got 0 eV, need 0.001 to 100"),
        (dict(width=float("nan")), "width: got nan eV"),
        (dict(grid=(1.0, -1.0)), "grid: got 1 -1, need two energies in eV, the lower first"),
        (dict(step=-0.1), "step: got -0.1 eV, need 0.0001 to 10, such as 0.1"),
        (dict(grid=(0.0, 1e5), step=1e-3), "got more than 100000 energies"),
        (dict(electronic_temperature=-1.0), "electronic_temperature: got -1 K"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Spectra(**options)


@pytest.mark.parametrize("width, step", [(0.5442, 0.1), (0.2, 0.05), (0.04, 0.01), (0.8, 0.2), (4.0, 1.0)])
def test_default_step(width, step):
    assert Spectra(width=width).step == pytest.approx(step, rel=1e-12)


def test_files_of_different_runs(run):
    change(run / "x.save" / "atomic_proj.xml", "-6.", "-7.")
    with pytest.raises(EspressoError, match="atomic_proj.xml has other bands than data-file-schema.xml; run projwfc.x"):
        read_runs([run], spectra=Spectra())
    with pytest.warns(UserWarning, match="spectra are not made, energies alone are read: .*atomic_proj.xml has other"):
        assert read_frames(run).counts.keys() == {"energy", "forces", "virial"}


def test_no_listing_of_the_functions(run):
    change(run / "projwfc.out", "(H  )", "(He )")
    with pytest.raises(EspressoError, match="need the text output of projwfc.x, .* but .*projwfc.out is of another"):
        read_runs([run], spectra=Spectra())
    (run / "projwfc.out").unlink()
    with pytest.raises(EspressoError, match=r"need the text output of projwfc.x, .* in .*a, but there is none; put it"):
        read_runs([run], spectra=Spectra())


def test_charged_cell(run):
    change(run / "x.save" / "data-file-schema.xml", "<tot_charge>0.0", "<tot_charge>1.0")
    with pytest.raises(EspressoError, match="the cell has a charge of 1 e"):
        read_runs([run], spectra=Spectra())


def test_bands_along_a_path(run):
    change(run / "x.save" / "data-file-schema.xml", "<calculation>scf", "<calculation>bands")
    with pytest.raises(
        EspressoError, match="a bands run, whose k-points are a path, .*'nscf' on a mesh, and projwfc.x"
    ):
        read_runs([run])


def test_two_temperatures(run, tmp_path):
    shutil.copytree(run, tmp_path / "b")
    change(tmp_path / "b" / "x.save" / "data-file-schema.xml", 'degauss="1.0', 'degauss="2.0')
    with pytest.raises(
        ValueError, match=r"a/x.save is of electrons at 3157\.\d* K, .*b/x.save at 6315\.\d* K.*apart, or"
    ):
        read_runs([tmp_path], spectra=Spectra())
    found = read_runs([tmp_path], spectra=Spectra(electronic_temperature=0.0)).attributes
    assert found["settings"]["electronic_temperature_K"] == 0


def test_smearing_that_is_no_temperature(run):
    change(run / "x.save" / "data-file-schema.xml", ">fd</smearing>", ">gaussian</smearing>")
    frames = read_runs([run])
    assert frames.attributes["settings"]["electronic_temperature_K"] == 0
    assert "temperature 0 K (smearing of the runs: Gaussian; --electronic-temperature sets" in described(frames)[1]


def test_no_projections(run):
    (run / "x.save" / "atomic_proj.xml").unlink()
    assert not has_spectra(run)
    assert read_runs([run]).counts.keys() == {"energy", "forces", "virial"}
    with pytest.raises(ValueError, match=r"no run with bands projected on atoms in it; give prefix.save of pw.x with"):
        read_runs([run], spectra=Spectra())
    with pytest.raises(ValueError, match=r"no run with bands projected on atoms in it"):
        read_runs([run / "scf.out"])


def test_runs_without_projections_beside_others(run, tmp_path):
    shutil.copytree(run, tmp_path / "b")
    (tmp_path / "b" / "x.save" / "atomic_proj.xml").unlink()
    frames = read_frames(tmp_path)
    assert frames.counts == {"energy": 2, "forces": 2, "virial": 2, "ados": 1, "dos": 1}
    assert [frame.name for frame in frames] == ["a/x", "b/x"]


def test_valence_electrons(run, tmp_path):
    """Of pseudopotentials that are not found they follow from the numbers of electrons, where the runs tell."""
    change(run / "x.save" / "data-file-schema.xml", "H.pz-vbc.UPF", "none.UPF")
    assert read_frames(run).attributes["valence_electrons"] == {"H": 1.0}
    schema = run / "x.save" / "data-file-schema.xml"
    change(schema, "<nelec>3.0", "<nelec>2.5")
    change(schema, "none.UPF", "H.UPF")
    upf = tmp_path / "H.UPF"
    upf.write_text(
        '<UPF version="2.0.1"><PP_HEADER element="H" z_valence="1" functional="PZ" mesh_size="2"/>\n<PP_MESH><PP_R>0 1'
        "</PP_R><PP_RAB>1 1</PP_RAB></PP_MESH><PP_LOCAL>0 0</PP_LOCAL><PP_RHOATOM>0 0</PP_RHOATOM></UPF>"
    )
    with pytest.raises(ValueError, match=r"the calculation has 2.5 electrons, its atoms have 3 by their pseudopoten"):
        read_runs([run], spectra=Spectra(pseudopotentials=[upf]))


def test_convert(run, capsys):
    assert (
        main(["convert", str(run), "--out", str(run / "x.h5"), "--width", "0.4", "--grid", "-14", "5", "--step", "0.2"])
        == 0
    )
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{run / 'x.h5'}: 1 structures with energy, forces, virial, ados, dos"
    assert lines[0].startswith(
        "  spectra: 96 energies from -14 to 5 eV, step 0.2 eV, Gaussian exp(-(x/s)^2) with s = 0.4"
    )
    assert lines[1].startswith(f"  electrons: H 1; temperature {T:.6g} K (of the Fermi-Dirac smearing); Fermi levels -")
    assert lines[2].startswith("  projections hold ")
    frames, former = read_hdf5(run / "x.h5"), read_runs([run], spectra=Spectra(0.4, (-14.0, 5.0), 0.2))
    np.testing.assert_allclose(frames[0].labels["ados"], former[0].labels["ados"], rtol=1e-6, atol=1e-30)
    assert frames.attributes == former.attributes
    write_hdf5(run / "y.h5", frames)
    assert main(["convert", str(run / "y.h5"), "--out", str(run / "z.h5"), "--width", "0.4"]) == 1
    assert "got --width for" in capsys.readouterr().err


def test_levels_in_closed_form():
    """Two levels with two electrons each, half of them of one k-point: gap, metal and thermal occupations."""
    bands = Projections(np.array([[-1.0, 1.0], [-1.0, 3.0]]), np.array([1.0, 1.0]), np.full((2, 2, 1), 0.9))
    assert bands.edges(2.0) == (-1.0, 1.0) and bands.fermi_level(2.0, temperature=0) == 0.0
    assert bands.edges(2.5) == (1.0, 1.0) and bands.fermi_level(2.5, temperature=0) == 1.0
    assert bands.projected_share(0.0, temperature=0) == pytest.approx(0.9, rel=1e-12)
    level, kt = bands.fermi_level(2.5, temperature=20000), units.KB * 20000
    filled = sum(count / (1 + np.exp((e - level) / kt)) for e, count in ((-1.0, 2), (1.0, 1), (3.0, 1)))
    assert filled == pytest.approx(2.5, abs=1e-9)
    with pytest.raises(ValueError, match="got 5 electrons, and bands for 4"):
        bands.edges(5.0)
    with pytest.raises(ValueError, match="got 4 electrons, which fill all bands"):
        bands.fermi_level(4.0, temperature=300)


def test_shares():
    shares = np.array([[[0.2, 0.4, 0.2], [0.0, 0.0, 0.0]]])
    bands = Projections(np.array([[0.0, 1.0]]), np.array([2.0]), shares)
    np.testing.assert_allclose(bands.normalized().site_weights, [[[0.25, 0.5, 0.25], [1 / 3] * 3]], rtol=1e-15)
    np.testing.assert_allclose(bands.averaged([0, 0, 2]).site_weights[0, 0], [0.3, 0.3, 0.2], rtol=1e-15)
