"""Active learning with cheap labels: rounds, interruptions at every file that is written, pools, and the command."""

import copy
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from small_data import labels_of, make_frames

from ase_mlelec import load_model
from ase_mlelec.active import estimate, learn, parse_active, read_active
from ase_mlelec.active.explore import noted, read_trajectory
from ase_mlelec.active.rounds import frames_learned, pool_of, select_round
from ase_mlelec.active.rows import informative_rows
from ase_mlelec.active.selection import most_informative
from ase_mlelec.data.frames import read_hdf5, write_hdf5
from ase_mlelec_entry_points.cli.main import main

TRAINING = """
[data]
files = ["first.h5"]
[power_spectrum]
cutoff = 4.0
n_pair = 6
n_radial = 2
l_max = 2
near = 0
[energy]
widths = []
energy = [1, 1]
forces = [1, 1]
[output]
model = "copper.safetensors"
"""
ACTIVE = {
    "training": "train.toml",
    "seed": 3,
    "explore": {"temperatures": [2500.0], "runs": 2, "steps": 20, "every": 5, "timestep": 2.0},
    "select": {"low": 0.01, "high": 5.0, "number": 2},
    "label": {"function": "my_labels:label"},
    "stop": {"rounds": 1},
}


def emt(atoms, folder):
    atoms.calc = EMT()
    return atoms


def prepared(folder, table=ACTIVE, training=TRAINING, n=10):
    """Configuration in a folder with its data."""
    folder.mkdir(exist_ok=True)
    write_hdf5(folder / "first.h5", make_frames(n))
    (folder / "train.toml").write_text(training)
    return parse_active(table, folder)


def changed(**sections):
    """ACTIVE with some settings changed."""
    table = copy.deepcopy(ACTIVE)
    for name, settings in sections.items():
        table[name] = table.get(name, {}) | settings if isinstance(settings, dict) else settings
    return table


class Power:
    """The first attempt to put each file into its place fails, as if the program had been killed there."""

    def __init__(self, monkeypatch):
        self.seen, self.replace = [], os.replace
        monkeypatch.setattr("ase_mlelec.atomic_write.os.replace", self.cut)

    def cut(self, partial, path):
        if str(path) not in self.seen:
            self.seen.append(str(path))
            raise KeyboardInterrupt
        self.replace(partial, path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("active") / "whole"
    return folder, learn(prepared(folder), label=emt, progress=False)


def test_rounds(uninterrupted):
    folder, summaries = uninterrupted
    assert [each["labels"] for each in summaries] == [2, 0]
    assert summaries[-1]["ended"].startswith("no more rounds")
    labels = read_hdf5(folder / "active/round-00/labels.h5")
    assert labels.groups == ["train", "train"] and set(labels.counts) == {"energy", "forces", "virial"}
    np.testing.assert_allclose(labels[0].labels["forces"], labels_of(labels[0].atoms)["forces"], atol=1e-12)
    trained = load_model(folder / "copper.safetensors").metadata["training"]
    assert trained["frames"]["train"] == 6 + 2  # six of the ten first ones, and the new ones
    for k in range(2):
        assert (folder / f"active/round-{k:02d}/report.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_those_that_the_bars_foretell(uninterrupted):
    """The pairs of score and error are of the model that had not seen the labels."""
    summaries = uninterrupted[1]
    pairs = np.array([pair for each in summaries for pair in each["pairs"]])
    assert len(pairs) == 2 and (pairs > 0).all()
    assert 0.1 < np.median(pairs[:, 1] / pairs[:, 0]) < 10


@pytest.mark.slow
def test_interrupted_at_every_file(uninterrupted, tmp_path, monkeypatch):
    whole, summaries = uninterrupted
    config, power = prepared(tmp_path / "cut"), Power(monkeypatch)
    found = None
    for _ in range(100):
        try:
            found = learn(config, label=emt, progress=False)
            break
        except KeyboardInterrupt:
            continue
    kinds = {path.rpartition("/")[2] for path in power.seen}
    assert {"model.safetensors", "000.traj", "selected.traj", "labels.h5", "summary.json", "report.png"} <= kinds
    assert found == summaries
    for name in ("copper.safetensors", "active/round-01/model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()


def test_ended_run_stays_as_it_is(uninterrupted):
    folder, summaries = uninterrupted

    def never(atoms, own):
        raise AssertionError("labeled again")

    assert learn(parse_active(ACTIVE, folder), label=never, progress=False) == summaries


def test_other_settings_need_another_folder(uninterrupted):
    folder, _ = uninterrupted
    with pytest.raises(ValueError, match="other settings of select; give them back"):
        learn(parse_active(changed(select={"low": 0.02}), folder), label=emt, progress=False)
    longer = parse_active(changed(label={"workers": 3}, stop={"rounds": 1}), folder)
    assert len(learn(longer, label=emt, progress=False)) == 2


@pytest.mark.slow
def test_labels_that_fail_are_skipped(tmp_path, capsys):
    calls = []

    def fails_first(atoms, folder):
        calls.append(folder)
        if len(calls) == 1:
            raise RuntimeError("no convergence\nafter 100 steps")
        return emt(atoms, folder)

    config = prepared(tmp_path, changed(stop={"rounds": 1}))
    summaries = learn(config, label=fails_first)
    assert summaries[0]["selected"] == 2 and summaries[0]["labels"] == 1
    told = (tmp_path / "active/round-00/label/000/failed.txt").read_text()
    assert told == "RuntimeError: no convergence after 100 steps\n"
    assert "failed: " in capsys.readouterr().out
    assert len(calls) == 2


@pytest.mark.slow
def test_all_labels_fail(tmp_path):
    def fails(atoms, folder):
        raise RuntimeError("no license")

    with pytest.raises(ValueError, match="none of 2 labels succeeded; .*no license"):
        learn(prepared(tmp_path), label=fails, progress=False)


POOL = {
    "training": "train.toml",
    "select": {"quantity": "ados", "low": 0.0, "number": 3},
    "label": {"pool": ["pool.h5"]},
    "stop": {"share": 0.0, "labels": 5},
}
WITH_DOS = TRAINING.replace("[output]", "[dos]\ndrawn = 32\n[output]")
DOS_ONLY = TRAINING.replace("[energy]\nwidths = []\nenergy = [1, 1]\nforces = [1, 1]\n", "[dos]\ndrawn = 16\n")


def pool(folder, training=WITH_DOS, **sections):
    """Configuration with a pool of 15 structures, nine of them to train on."""
    table = copy.deepcopy(POOL)
    for name, settings in sections.items():
        table[name] |= settings
    folder.mkdir(exist_ok=True)
    write_hdf5(folder / "pool.h5", make_frames(15, seed=5))
    return prepared(folder, table, training)


@pytest.mark.slow
def test_pool(tmp_path):
    config = pool(tmp_path)
    frames = pool_of(config)
    assert len(frames) == 9  # without the groups validation and test
    summaries = learn(config, progress=False)
    assert [each["labels"] for each in summaries] == [3, 2]
    taken = [
        int(atoms.info["source"])
        for k in range(2)
        for atoms in read_trajectory(tmp_path / f"active/round-{k:02d}/selected.traj")
    ]
    assert len(set(taken)) == 5 and summaries[1]["states"]["candidate"] == 6
    labels = read_hdf5(tmp_path / "active/round-00/labels.h5")
    np.testing.assert_allclose(labels[1].labels["ados"], frames[taken[1]].labels["ados"])
    model = load_model(tmp_path / "active/round-00/model.safetensors")
    rows = informative_rows(model, "ados", [frame.atoms for frame in frames], frames_learned(config, 0))
    assert taken[:3] == most_informative(rows, number=3)
    again = select_round(config, 0, read_trajectory(tmp_path / "active/round-00/explore/given.traj")[::-1], model, 3)
    assert [int(atoms.info["source"]) for atoms in again] == taken[:3]  # in any order of the candidates
    assert len(frames_learned(config, 1)) == len(frames_learned(config, 0)) + 3


@pytest.mark.slow
def test_pool_needs_no_energy(tmp_path):
    """Nothing moves the atoms there."""
    config = pool(tmp_path, training=DOS_ONLY, stop={"labels": 3})
    assert [each["labels"] for each in learn(config, progress=False)] == [3]


def test_random_choice_for_comparison(tmp_path):
    """It depends on seed and round alone, and takes trusted frames too, but no unphysical ones."""
    config = prepared(tmp_path, changed(select={"by": "random"}))
    states = ["trusted"] * 10 + ["candidate"] * 10 + ["unphysical"] * 10
    frames = [noted(Atoms("H"), str(k), float(k), state) for k, state in enumerate(states)]
    chosen = [
        [int(atoms.info["source"]) for atoms in select_round(each, n, frames, None, 8)]
        for each, n in ((config, 0), (config, 0), (config, 1), (config.model_copy(update={"seed": 9}), 0))
    ]
    assert chosen[0] == chosen[1] and len({*map(tuple, chosen)}) == 3
    assert len({*chosen[0]}) == 8 and max(chosen[0]) < 20 and min(chosen[0]) < 10


def test_trusted_frames_count_and_are_not_chosen(uninterrupted):
    """Labels teach about all that was explored: here about structures of another density, for which there are two."""
    folder, _ = uninterrupted
    config = parse_active(ACTIVE, folder)
    model, images = load_model(folder / "active/round-00/model.safetensors"), [frame.atoms for frame in make_frames(12)]

    def chosen(strain, number):
        frames = [noted(atoms.copy(), str(k), 1.0 + k, "candidate") for k, atoms in enumerate(images)]
        for atoms in frames[10:]:
            atoms.set_cell(atoms.cell.array * 1.25, scale_atoms=True)
        trusted = [noted(atoms.copy(), "trusted", 0.001, "trusted") for atoms in images[:10] * 3]
        for k, atoms in enumerate(trusted):
            atoms.rattle(0.02, seed=k)
            atoms.set_cell(atoms.cell.array * strain, scale_atoms=True)
        return [atoms.info["source"] for atoms in select_round(config, 0, frames + trusted, model, number)]

    assert int(chosen(1.25, 1)[0]) >= 10
    assert "trusted" not in chosen(1.0, 6)


@pytest.mark.slow
def test_labels_must_teach_the_quantity(tmp_path):
    table = changed(select={"quantity": "ados", "low": 0.0})
    config = prepared(tmp_path, table, WITH_DOS)
    with pytest.raises(ValueError, match="the labels are energy, forces, virial, but ados needs ados or dos"):
        learn(config, label=emt, progress=False)


def toml(value):
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml(entry)}' for key, entry in value.items())}}}"
    return json.dumps(value)


def write(folder, table):
    """TOML of nested dicts of one level."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for name, section in table.items():
        if isinstance(section, dict):
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in section.items())]
    (folder / "active.toml").write_text("\n".join(lines) + "\n")
    return folder / "active.toml"


def test_dry_run(tmp_path, capsys):
    prepared(tmp_path)
    path = write(tmp_path, changed(label={"minutes": 30.0, "workers": 2}))
    before = sorted(tmp_path.rglob("*"))
    assert main(["active", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "6 train, 2 validation, 2 test structures to start with; each round anew" in out
    assert "2 runs of 0.04 ps a round at 1 conditions, 10 frames" in out
    assert "labels       by function: 2 at most, 0.5 hours with 2 at a time" in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_command(tmp_path, capsys):
    prepared(tmp_path)
    path = write(tmp_path, changed(select={"low": 1000.0, "high": 2000.0}))
    assert main(["active", str(path), "--rounds", "1"]) == 0
    assert "Ended: share of frames above the lower trust level, 0 %" in capsys.readouterr().out
    assert (tmp_path / "copper.safetensors").exists()
    assert main(["active", str(path), "--rounds", "0"]) == 1
    assert "got --rounds 0, need at least 1" in capsys.readouterr().err


def test_schema(capsys):
    assert main(["schema", "active"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["required"] == ["training", "select", "label"]
    undescribed = [
        (name, key)
        for name, node in schema["$defs"].items()
        for key, entry in node.get("properties", {}).items()
        if "description" not in entry
    ]
    assert not undescribed


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"select": {"lows": 1.0}}, "unknown key 'select.lows'; did you mean 'low'"),
        ({"select": {"low": -1.0}}, "select.low: got -1, need at least 0"),
        ({"select": {"low": 6.0}}, "select.high: got 5, need more than low, 6"),
        ({"select": {"quantity": "force"}}, "select.quantity: got 'force', need one of forces, energy"),
        ({"select": {"quantity": "gap"}}, r"gap, which needs \[dos\], but train.toml has \[energy\]"),
        ({"label": {"command": "run"}}, "label: got function and command, need exactly one of pool, calculator"),
        ({"label": {"function": ""}}, "label: got none of them, need exactly one of"),
        ({"label": {"function": "label"}}, "label.function: got 'label', need module:name, such as my_labels:label"),
        ({"label": {"options": {"a": 1}}}, "label.options: got one beside function"),
        ({"label": {"options": 3}}, "label.options: got 3, need a table"),
        ({"label": {"workers": 0}}, "label.workers: got 0, need at least 1"),
        ({"label": {"files": ["INCAR"]}}, "label.files: .*INCAR: no such file"),
        ({"explore": {"start": ["a.xyz"]}}, "explore.start: .*a.xyz: no such file"),
        ({"explore": {"runs": 0}}, "explore: got runs = 0 and no structures; give one of them"),
        ({"explore": {"temperatures": []}}, "explore.temperatures: got 0 entries"),
        ({"explore": {"temperatures": [0.0]}}, r"explore.temperatures\[0\]: got 0, need more than 0"),
        ({"explore": {"strains": [-0.6]}}, r"explore.strains\[0\]: got -0.6, need more than -0.5"),
        ({"stop": {"share": 2.0}}, "stop.share: got 2, need at least 0 and at most 1"),
        ({"training": "other.toml"}, "other.toml: No such file"),
    ],
)
def test_mistakes(tmp_path, sections, message):
    prepared(tmp_path)
    path = write(tmp_path, changed(**sections))
    with pytest.raises(ValueError, match=message) as caught:
        read_active(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_training_without_energy_needs_a_potential(tmp_path):
    with pytest.raises(ValueError, match="explore.potential: train.toml has no .energy. that moves the atoms"):
        prepared(tmp_path, changed(select={"quantity": "ados"}), DOS_ONLY)


def test_estimate_is_of_this_machine_when_there_is_a_model(uninterrupted):
    folder, _ = uninterrupted
    assert "minutes a round (measured)" in estimate(parse_active(ACTIVE, folder))


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not (DOCS / "conf.py").exists(), reason="reads the files of the checkout")
def test_page_of_settings_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ACTIVE_PAGE.read_text(encoding="utf-8") == module.active_page(), "run python docs/make_settings.py"
