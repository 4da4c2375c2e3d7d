"""The written configuration is valid, complete and says why."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from small_bilayers import graphene_bilayer, graphene_frame
from small_data import ATTRIBUTES as ATTRIBUTES_OF_COPPER
from small_data import make_frames, make_wannier_frames
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot
from small_survey import clean, mapped, trajectory

from ase_mlelec.data.frames import Frame, Frames, to_images, write_hdf5
from ase_mlelec.data.hamiltonians import write_hamiltonians
from ase_mlelec.data.snapshots import write_snapshots
from ase_mlelec.descriptors.ace import ACE
from ase_mlelec.survey import configuration, cost, report, survey
from ase_mlelec.survey.choices import relative
from ase_mlelec.survey.toml_text import TomlText
from ase_mlelec.train import basis
from ase_mlelec.train.config import parse_config, read_config
from ase_mlelec.train.log import Log
from ase_mlelec.train.recipes.budget import duration_of
from ase_mlelec.train.recipes.linear_energy import FEWEST, FEWEST_IN_TURN, orders_of
from ase_mlelec.uncertainty.covariance import N_DIRECTIONS


def written(folder, frames, name="data.h5"):
    """(Survey, Config, text of the TOML file) of a data set that is written to a folder."""
    if name.endswith(".h5"):
        write_hdf5(folder / name, frames)
    else:
        write(folder / name, to_images(frames))
    return chosen(folder, folder / name)


def chosen(folder, *paths, **options):
    found = survey(paths)
    text = configuration(found, folder / "model.toml", **options)
    unwrapped = text.replace("\n# ", " ")
    return found, parse_config(tomllib.loads(text), folder), unwrapped


def test_energies(tmp_path):
    found, config, text = written(tmp_path, clean(20))
    assert config.data.files == ("data.h5",) and config.output.model == "model.safetensors"
    assert config.power_spectrum is not None and config.energy.widths == () and config.dos is None
    assert "energy (20), forces (20), virial (20)" in text and "Held out for validation: 2 of 20" in text
    assert config.data.validation_fraction == 0.1 and "WARNING" not in text
    lines = report(found).splitlines()
    assert len(lines) < 20 and lines[0].startswith("data          20 structures with 8 atoms each (160 in all)")


def test_few_structures_are_all_trained_on(tmp_path):
    _, config, text = written(tmp_path, clean(5))
    assert round(5 * config.data.validation_fraction) == 0 and "5 structures are too few to hold some out" in text


def test_trajectories_are_named(tmp_path):
    found, _, text = written(tmp_path, trajectory(12))
    assert "12 structures lie in trajectories" in text and "1 run of 12 to 12 similar steps" in report(found)


@pytest.mark.parametrize(
    "groups, train, words",
    [
        (["train", "test", "size"], ("train",), "Left out, as no setting names their groups: size (8)"),
        (["bulk", "surface"], ("bulk", "surface"), "bulk (12), surface (12)"),
        (["train", "validation", "support"], ("train",), "support = "),
    ],
)
def test_groups(tmp_path, groups, train, words):
    frames = clean(24)
    for k, frame in enumerate(frames):
        frame.group = groups[k % len(groups)]
    _, config, text = written(tmp_path, frames)
    assert config.data.train == train and words in text
    assert ("support" in groups) == (config.data.support == ("support",))
    assert ("validation_fraction" in text) == ("validation" not in groups)


def test_several_quantities(tmp_path):
    _, config, text = written(tmp_path, make_frames(12))
    assert config.energy.widths == () and config.dos.closed_form
    assert "Spectra of atoms at 25 energies from -6 to 6 eV" in text


def test_other_temperatures_of_the_electrons(tmp_path):
    """A file of the same structures at another temperature is no further data; other structures are."""
    frames = make_frames(20)
    hot = {"settings": ATTRIBUTES_OF_COPPER["settings"] | {"electronic_temperature_K": 8000.0}}
    write_hdf5(tmp_path / "cold.h5", frames)
    write_hdf5(tmp_path / "hot.h5", Frames([replace(frames[3], labels={"energy": 1.0})], None, hot))
    found, config, text = chosen(tmp_path, tmp_path / "cold.h5", tmp_path / "hot.h5")
    assert config.data.files == ("cold.h5",) and config.data.hot == ("hot.h5",)
    assert found.structures.n_frames == 20 and "hot.h5: the same structures at other temperatures" in report(found)
    assert "Energies of some of the structures at other temperatures of the electrons." in text
    write_hdf5(tmp_path / "other.h5", Frames([replace(frames[3], name="other")], frames.energies, frames.attributes))
    _, config, _ = chosen(tmp_path, tmp_path / "cold.h5", tmp_path / "other.h5")
    assert config.data.files == ("cold.h5", "other.h5") and config.data.hot == ()
    moved = replace(frames[3], atoms=frames[4].atoms, labels={"energy": 1.0})  # another structure of this name
    write_hdf5(tmp_path / "moved.h5", Frames([moved], None, hot))
    with pytest.raises(
        ValueError, match=r"temperatures of the electrons \(K\) differ: .* and 8000; make all data with"
    ):
        survey([tmp_path / "cold.h5", tmp_path / "moved.h5"])


def test_totals_alone(tmp_path):
    frames = make_frames(10)
    for frame in frames:
        frame.labels = {"dos": frame.labels["dos"]}
    _, config, text = written(tmp_path, frames)
    assert "Spectra of structures alone" in text
    assert config.dos.closed_form and config.energy is None


def test_dipoles_and_polarizabilities(tmp_path):
    frames = make_wannier_frames(8)
    _, config, _ = written(tmp_path, frames)
    assert config.dipole.centers == config.polarizability.centers == ("O",)
    sums = Frames([Frame(f.atoms, {"summed_dipole": f.labels["summed_dipole"]}) for f in frames])
    _, config, _ = written(tmp_path, sums)
    assert config.dipole.centers == ("O", "Si") and config.dipole.closed_form


def test_wrong_units_of_a_stress(tmp_path):
    """A known unit is converted when the data are read, and then fits; another one is left out."""
    kbar = mapped(clean(24), virial=lambda value: -1602.176634 * value)
    found, config, text = written(tmp_path, kbar, "data.extxyz")
    assert found.suspicions and "stress_unit" in text
    assert '\nstress_unit = "-kbar"' in text and config.energy.virial is None
    keys = {"stress_unit": config.data.keys.stress_unit}
    assert not survey([tmp_path / "data.extxyz"], keys=keys).suspicions  # converted, it fits
    odd = mapped(clean(24), virial=lambda value: value / 1000)
    _, config, text = written(tmp_path, odd)
    assert config.energy.virial == (0, 0) and "times too small" in text


def test_structures_that_do_not_fit_are_named(tmp_path):
    frames = clean(24)
    frames[3].labels["energy"] += 9
    found, _, text = written(tmp_path, frames)
    assert "1 structure does not fit the rest" in text and "frame 3 (cu-3)" in report(found)


def test_spectra_without_energies(tmp_path):
    frames = make_frames(6)
    frames.energies = None
    write_hdf5(tmp_path / "dos.h5", frames)
    found = survey([tmp_path / "dos.h5"])
    assert "the energy grid is not known" in report(found)
    with pytest.raises(ValueError, match="mlelec convert .*dos.h5 --grid FIRST LAST"):
        configuration(found, tmp_path / "model.toml")


def test_nothing_to_train_on(tmp_path):
    frames = Frames([Frame(Atoms("MgO", np.eye(3)[:2]), {"dipole": np.ones(3)})])
    write_hdf5(tmp_path / "dipole.h5", frames)
    with pytest.raises(ValueError, match="got labels dipole, of which no model can be trained"):
        chosen(tmp_path, tmp_path / "dipole.h5")


@pytest.mark.parametrize("n", [1, 4])
def test_snapshots(tmp_path, n):
    write_snapshots(tmp_path / "al.h5", [make_snapshot(k) for k in range(n)], energies=ENERGIES, attributes=ATTRIBUTES)
    found, config, text = chosen(tmp_path, tmp_path / "al.h5")
    assert config.ldos is not None and not config.wanted and (config.ldos.batch_points > 0) == (n == 1)
    assert f"Expected: {216 * n} points in {config.ldos.epochs} epochs, 0." in text
    assert f"densities of {n} of {n} snapshots" in report(found) and config.ldos.schedule == "cosine"


def test_hamiltonians(tmp_path):
    frames = [graphene_frame(graphene_bilayer((0.1 * k, 0.0))) for k in range(3)]
    write_hamiltonians(tmp_path / "graphene.h5", frames, attributes={})
    found, config, text = chosen(tmp_path, tmp_path / "graphene.h5")
    assert "pairs of atoms within 12 Å in 2000 steps, " in text
    assert (cost.HOPPING, cost.STEPS, cost.BATCH) == (
        config.hamiltonian.cutoff,
        config.hamiltonian.steps,
        config.hamiltonian.batch_size,
    )
    assert config.hamiltonian.levels == 0 and config.hamiltonian.third == 0 and config.energy is None
    assert "4 to 4 functions" in report(found)


def test_expected_cost_is_that_of_the_recipe(tmp_path):
    for name in (
        "LABELS_PER_WEIGHT",
        "FEWEST",
        "MOST",
        "MOST_DUAL",
        "WORK",
        "TRIAL_SHARE",
        "FULL",
        "GROWN",
        "FEW_ROWS",
        "LARGEST",
        "FOLDS",
        "ENOUGH",
    ):
        assert getattr(cost, name) == getattr(basis, name)
    assert cost.SAMPLES == N_DIRECTIONS
    _, _, text = written(tmp_path, clean(20))
    assert f"{20 * (1 + 24 + 9)} labels for about 226 to 5000 weights, 0.2 minutes of one core and 0.5 GB" in text


@pytest.mark.parametrize("n_labels, most", [(100, [5000, 10_000, 15_000, 16_000]), (2500, [5000] * 4)])
def test_weights_of_few_structures(n_labels, most):
    """As many as each species may have, unless labels are so many that a matrix of the size of the weights is solved."""
    for n_species, limit in enumerate(most, 1):
        assert basis.largest_basis(n_species, n_labels) == limit
        assert 0.8 * limit < basis.basis_of_few(n_species, n_labels).n_weights <= limit
    assert basis.largest_basis(1, n_labels, 10**6) == 220
    assert (cost.FEW, cost.IN_TURN) == (FEWEST, FEWEST_IN_TURN)


@pytest.mark.parametrize(
    "n_labels, n_structures, most", [(14_000, 700, 5000), (16_000, 60, 5000), (16_000, 450, 5656), (16_000, 500, 8000)]
)
def test_weights_of_many_labels(n_labels, n_structures, most):
    """More where there are few folds, whose sums have the memory of one with LARGEST."""
    assert basis.largest_basis(2, n_labels, 1000, n_structures) == most
    assert int(cost._most_weights(n_labels, 2, n_structures)) == most
    assert basis.largest_basis(2, n_labels, 10**5, n_structures) == 2200


def test_cost_of_few_structures(tmp_path):
    _, _, text = written(tmp_path, clean(12))
    assert f"{12 * (1 + 24 + 9)} labels for about 5000 weights" in text
    _, _, text = written(tmp_path, clean(13))
    assert f"{13 * (1 + 24 + 9)} labels for about 200 to 5000 weights" in text


@pytest.mark.parametrize("n, weights", [(3, 5000), (4, 16_000)])
def test_weights_of_one_to_three_structures(tmp_path, n, weights):
    """None of them can be left out, so that all weights are solved for, in memory that grows as their square."""
    rng, frames = np.random.default_rng(0), []
    for k in range(n):
        atoms = Atoms(
            "HCNO", np.diag([1.5, 1.6, 1.7, 0])[:, :3] + rng.uniform(0, 0.3, (4, 3)), cell=[8, 8, 8], pbc=True
        )
        frames.append(Frame(atoms, {"energy": rng.normal(), "forces": rng.normal(size=(4, 3))}, f"{k}", "train"))
    found, config, text = written(tmp_path, Frames(frames))
    assert f"{13 * n} labels for about {weights} weights" in text
    orders = orders_of({"train": found.frames}, config, Log(False))
    n_features = ACE(("C", "H", "N", "O"), orders=orders).n_features
    assert 0.8 * weights < 4 * n_features <= weights


def test_minutes(tmp_path):
    write_hdf5(tmp_path / "data.h5", clean(3))
    text = configuration(survey([tmp_path / "data.h5"]), tmp_path / "model.toml", minutes=5)
    assert "\nminutes = 5.0\n" in text


@pytest.mark.parametrize("n", [1, 4])
def test_minutes_of_an_ldos(tmp_path, n):
    """A number of epochs would take precedence over them."""
    write_snapshots(tmp_path / "al.h5", [make_snapshot(k) for k in range(n)], energies=ENERGIES, attributes=ATTRIBUTES)
    found = survey([tmp_path / "al.h5"])
    assert "\nepochs = " in configuration(found, tmp_path / "model.toml")
    (tmp_path / "model.toml").write_text(configuration(found, tmp_path / "model.toml", minutes=5))
    config = read_config(tmp_path / "model.toml")
    assert duration_of(config.ldos, config) == {"epochs": None, "seconds": 300.0}


def test_paths(tmp_path):
    (tmp_path / "deep").mkdir()
    assert relative(tmp_path / "deep" / "a.h5", tmp_path) == "deep/a.h5"
    assert relative(tmp_path / "a.h5", tmp_path / "deep") == str(tmp_path / "a.h5")


def test_text_of_toml():
    text = TomlText()
    text.comment("word " * 40)
    text.section("a.b", "why")
    texts = ['"quoted" \\ back', "Å é \t \u007f", "x.h5"]
    text.set("names", texts, "because")
    text.set("odd key.h5", 0.3)
    text.set("flag", True)
    text.set("none", [])
    assert all(len(line) <= 118 for line in str(text).splitlines())
    assert tomllib.loads(str(text)) == {"a": {"b": {"names": texts, "odd key.h5": 0.3, "flag": True, "none": []}}}
