"""Data sets of Hamiltonians, and the training behind ``mlelec train``."""

import json

import h5py
import numpy as np
import pytest
import torch
from ase.calculators.calculator import CalculationFailed
from small_bilayers import graphene_bilayer, graphene_frame, mx2_bilayer, mx2_frame, mx2_functions

from ase_mlelec import WannierHamiltonian, WannierTBCalculator, load_model
from ase_mlelec.data.frames import Frame, Frames, join, read_frames, write_hdf5
from ase_mlelec.data.hamiltonians import (
    Function,
    HamiltonianFrame,
    Hamiltonians,
    at_their_atoms,
    is_hamiltonians,
    referred_to,
    write_hamiltonians,
)
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.finite import Diverged
from ase_mlelec.train.hamiltonian.closed_form import refit_onsite, standardize_hamiltonian
from ase_mlelec.train.hamiltonian.descent import HamiltonianProblem, category_scales, fit_hamiltonian
from ase_mlelec.train.hamiltonian.errors import compared_hamiltonians
from ase_mlelec.train.hamiltonian.items import frame_functions, prepare
from ase_mlelec.train.loop import Run
from ase_mlelec.train.recipe import train
from ase_mlelec.train.recipes import hamiltonian as recipe
from ase_mlelec_entry_points.cli.main import main

K = [[0.1, 0.3, 0.0], [0.0, 0.0, 0.0]]
OPTIONS = {"steps": 4, "batch_size": 2, "widths": [6], "n_radial": 3, "environment": 4.5}


def frames():
    rng = np.random.default_rng(0)
    roles = ["train"] * 4 + ["validation", "test"]
    return [
        graphene_frame(
            graphene_bilayer(rng.random(2), rng.uniform(3.2, 3.6), noise=0.02 * (k % 2), seed=k), f"g{k}", role
        )
        for k, role in enumerate(roles)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_hamiltonians(
        folder / "g.h5", frames(), attributes={"electrons_per_atom": {"C": 1}, "settings": {"program": "formula"}}
    )
    return folder


def configuration(folder, output="g.safetensors", **options):
    return parse_config(
        {"data": {"files": ["g.h5"]}, "hamiltonian": OPTIONS | options, "output": {"model": output}}, folder
    )


def test_data_come_back(folder):
    assert is_hamiltonians(folder / "g.h5")
    data, wanted = Hamiltonians(folder / "g.h5"), frames()
    assert len(data) == 6 and data.groups[-2:] == ["validation", "test"] and len(data.select("train")) == 4
    for found, frame in zip(data, wanted):
        assert found.name == frame.name and found.functions == frame.functions and found.atoms == frame.atoms
        assert abs(found.hamiltonian.hk(K) - frame.hamiltonian.hk(K)).max() < 1e-5  # single precision
    atoms = mx2_bilayer((0.2, 0.1))
    frame = mx2_frame(atoms, mx2_functions(atoms))
    frame = HamiltonianFrame(atoms, frame.hamiltonian, frame.functions, -3.5, np.ones((6, 3)))
    write_hamiltonians(folder / "m.h5", [frame], attributes={})
    (found,) = Hamiltonians(folder / "m.h5")
    np.testing.assert_allclose([f.z for f in found.functions], [f.z for f in frame.functions], atol=1e-12)
    assert found.energy == -3.5 and Hamiltonians(folder / "m.h5").frames().labels == ("energy", "forces")


def test_vacuum_level_and_homes():
    frame = frames()[0]
    lowered = referred_to(frame.hamiltonian, 1.25)
    np.testing.assert_allclose(lowered.eigenvalues(K), frame.hamiltonian.eigenvalues(K) - 1.25, atol=1e-12)
    away = frame.hamiltonian.moved(np.array([[1, 0, 0], [0, 0, 0], [0, -1, 0], [0, 0, 0]]))
    home = at_their_atoms(away, frame.atoms, frame.functions)
    np.testing.assert_allclose(home.centers, frame.atoms.positions, atol=1e-12)
    assert abs(home.hk(K) - frame.hamiltonian.hk(K)).max() < 1e-12
    assert abs(away.hk(K) - frame.hamiltonian.hk(K)).max() > 1e-3


def test_functions_of_the_data():
    atoms = mx2_bilayer((0.2, 0.1))
    species, fold, functions, areas = frame_functions([mx2_frame(atoms, mx2_functions(atoms))])
    assert (species, fold) == (["Mo", "S"], 3) and areas["MoS2"] == pytest.approx(
        np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / 3
    )
    assert functions["Mo"]["orbitals"] == ["dz2"] * 3 + ["dxz", "dyz"]
    assert functions["S"]["sided"] and not functions["Mo"]["sided"]
    assert all(z[2] > 0 for z in functions["S"]["z"])  # of the upper sulfur


@pytest.mark.slow
def test_train_and_test(folder, capsys):
    (folder / "g.toml").write_text(
        '[data]\nfiles = ["g.h5"]\n[hamiltonian]\nsteps = 4\nbatch_size = 2\nwidths = [6]\n'
        'n_radial = 3\nenvironment = 4.5\n[output]\nmodel = "cli.safetensors"\n'
    )
    assert main(["train", str(folder / "g.toml"), "--quiet"]) == 0
    model = load_model(folder / "cli.safetensors")
    errors = model.metadata["errors"]["test"]
    assert errors["hamiltonian_inter_r2"] > 0.999 and errors["hamiltonian_intra_near_mae_meV"] < 1
    assert model.metadata["electrons_per_atom"] == {"C": 1} and model.metadata["energy_reference"] == "vacuum level"
    within, across = (model.metadata["nearest_distances_A"][key] for key in ("within", "across"))
    assert 1.3 < within[0] < within[1] < 1.6 and 3.0 < across[0] < across[1] < 4
    assert (folder / "cli.hamiltonian.checkpoint").exists() and (folder / "cli.hamiltonian.csv").exists()
    assert (
        main(
            [
                "test",
                str(folder / "cli.safetensors"),
                str(folder / "g.h5"),
                "--group",
                "test",
                "--json",
                str(folder / "errors.json"),
                "--plot",
                str(folder / "parity.png"),
            ]
        )
        == 0
    )
    assert (folder / "parity.png").stat().st_size > 10_000
    drawn = compared_hamiltonians(model, Hamiltonians(folder / "g.h5").select("test"))
    found = {name: 1000 * np.abs(mine - true).mean() for name, (true, mine, _) in drawn.items()}
    assert found["eigenvalues"] == pytest.approx(errors["bands_mae_meV"], rel=1e-9)
    assert found["elements on site"] == pytest.approx(errors["hamiltonian_onsite_mae_meV"], rel=1e-9)
    assert found["elements between layers"] == pytest.approx(errors["hamiltonian_inter_mae_meV"], rel=1e-9)
    output = capsys.readouterr().out
    assert "1 structure, 4 atoms" in output and "between layers, R2" in output
    assert json.loads((folder / "errors.json").read_text())["hamiltonian_all_mae_meV"] == pytest.approx(
        errors["hamiltonian_all_mae_meV"], rel=1e-9
    )
    # the errors are those of the calculator's bands
    frame = frames()[-1]
    levels = WannierTBCalculator(model, on_extrapolation="ignore").get_hamiltonian(frame.atoms).eigenvalues(K)
    assert abs(levels - frame.hamiltonian.eigenvalues(K)).mean() < 20 * errors["bands_mae_meV"] / 1000 + 1e-3


@pytest.mark.slow
def test_energies_of_other_files(tmp_path):
    """A force field is trained on the structures with Hamiltonians and on those without."""

    def energy(atoms):
        return float(1.7 + 0.3 * np.prod(np.cos(atoms.positions[:, 0])))

    whole = [
        HamiltonianFrame(
            frame.atoms,
            frame.hamiltonian,
            frame.functions,
            energy(frame.atoms),
            np.zeros((4, 3)),
            frame.name,
            frame.group,
        )
        for frame in frames()
    ]
    write_hamiltonians(tmp_path / "g.h5", whole, attributes={"electrons_per_atom": {"C": 1}})
    bare = [
        Frame(
            frame.atoms * (1, 2, 1),
            {"energy": 2 * energy(frame.atoms), "forces": np.zeros((8, 3))},
            frame.name,
            frame.group,
        )
        for frame in frames()[1:]
    ]
    write_hdf5(tmp_path / "e.h5", Frames(bare))
    write_hdf5(tmp_path / "f.h5", Frames(bare))
    table = {
        "data": {"files": ["e.h5", "g.h5"]},
        "hamiltonian": OPTIONS,
        "output": {"model": "g.safetensors"},
        "descriptor": {"cutoff": 4.0, "smooth": 1.0, "widths": [4], "n_axis": 2, "n_basis": 4},
        "energy": {"widths": [4], "virial": [0, 0], "steps": 2, "batch_size": 2},
    }
    model = train(parse_config(table, tmp_path), progress=False)
    assert model.metadata["training"]["frames"] == {
        "train": 4,
        "validation": 1,
        "test": 1,
        "train, energies only": 3,
        "validation, energies only": 1,
        "test, energies only": 1,
    }
    both = recipe.errors(
        model,
        join([Hamiltonians(tmp_path / "g.h5").select("test").frames(), read_frames(tmp_path / "e.h5").select("test")]),
    )
    name = "energy_mae_meV_per_atom"
    assert model.metadata["errors"]["test"][name] == pytest.approx(both[name], rel=1e-9)
    others = table | {"data": {"files": ["e.h5", "f.h5", "g.h5"], "weights": {"g.h5": 0.0, "f.h5": 0.3}}}
    others["energy"] = {"widths": [], "virial": [0, 0]}
    model = train(parse_config(others, tmp_path), progress=False)
    assert model.metadata["training"]["frames"] == {
        "train": 4,
        "validation": 1,
        "test": 1,
        "train, energies only": 6,
        "validation, energies only": 2,
        "test, energies only": 2,
    }
    held = recipe.errors(model, read_frames(tmp_path / "e.h5").select("test"))
    assert model.metadata["errors"]["test"][name] == pytest.approx(held[name], rel=1e-9)
    del table["energy"], table["descriptor"]
    with pytest.raises(ValueError, match=r"e\.h5 without Hamiltonians .* add .energy."):
        train(parse_config(table, tmp_path), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("third", [0.0, 4.5])
def test_fine_tuning_on_larger_cells(folder, third):
    """Trained on primitive cells, then on a larger one with distortions of its own: better there, and still one model
    with its reference areas; the same settings are needed."""
    options = OPTIONS | {"third": third}
    first = train(configuration(folder, "first.safetensors", third=third), progress=False)
    atoms = graphene_bilayer((0.2, 0.1), 3.3) * (2, 1, 1)
    atoms.positions += np.random.default_rng(1).normal(0, 0.04, (8, 3))
    write_hamiltonians(
        folder / "large.h5", [graphene_frame(atoms, "large", "train")], attributes={"electrons_per_atom": {"C": 1}}
    )
    table = {
        "data": {"files": ["large.h5"]},
        "hamiltonian": options | {"steps": 40, "learning_rate": [2e-2, 2e-3]},
        "output": {"model": "tuned.safetensors"},
        "start": "first.safetensors",
    }
    tuned = train(parse_config(table, folder), progress=False)
    data = Hamiltonians(folder / "large.h5")
    before, after = (recipe.hamiltonian_errors(model, data)["hamiltonian_all_mae_meV"] for model in (first, tuned))
    assert after < 0.9 * before
    heads = [model.heads["hamiltonian"] for model in (first, tuned)]
    assert heads[0].reference_areas == heads[1].reference_areas
    ranges = [model.metadata["nearest_distances_A"]["across"] for model in (first, tuned)]
    assert ranges[1][0] <= ranges[0][0] and ranges[0][1] <= ranges[1][1]
    for change, message in (
        ({"hamiltonian": options | {"widths": [5]}}, "as widths of the hamiltonian"),
        ({"hamiltonian": options | {"third": 5.0}}, "as third of the hamiltonian"),
        ({"start": "si"}, "si has no hamiltonian"),
    ):
        with pytest.raises(ValueError, match=message):
            train(parse_config(table | change, folder), progress=False)


@pytest.mark.slow
def test_single_layers_among_bilayers(tmp_path):
    """Layers alone hold what a layer does to itself: they train with others, and without."""

    def single(k, role):
        atoms = graphene_bilayer(noise=0.02, seed=k)
        atoms = atoms[atoms.positions[:, 2] < atoms.positions[:, 2].mean()]
        return graphene_frame(atoms, f"s{k}", role)

    alone = [single(k, role) for k, role in enumerate(["train", "train", "test"])]
    for name, data, limit in ("mixed", frames() + alone, 0.03), ("alone", alone, 0.1):  # eV
        write_hamiltonians(tmp_path / "g.h5", data, attributes={"electrons_per_atom": {"C": 1}})
        model = train(configuration(tmp_path), progress=False)
        assert model.metadata["errors"]["test"]["hamiltonian_intra_near_mae_meV"] < 3
        calc = WannierTBCalculator(model, on_extrapolation="raise")
        found = calc.get_hamiltonian(alone[2].atoms)
        wanted = alone[2].hamiltonian
        assert abs(found.eigenvalues(K) - wanted.eigenvalues(K)).max() < limit, name
        if name == "mixed":
            assert len(calc.get_hamiltonian(graphene_bilayer(distance=3.4)).centers) == 4
        else:
            with pytest.raises(CalculationFailed, match="3.40 Å apart, none in the training data"):
                calc.get_hamiltonian(graphene_bilayer((0, 0), 3.4))


@pytest.mark.parametrize("spectrum", [0.0, 5.0])
@pytest.mark.slow
def test_onsite_blocks_are_fitted_again(folder, spectrum):
    """Fine-tuning refits the linear on-site parts: without a step of the descent, errors on structures unlike those of
    the first training are halved; on these themselves the refit changes little."""
    model = train(configuration(folder, "first.safetensors", spectrum=spectrum), progress=False)
    head = model.double().heads["hamiltonian"]
    assert (model.descriptor.ace is not None) == bool(spectrum)
    known, other = (
        [prepare(model, frame) for frame in part]
        for part in (
            frames()[:4],
            [graphene_frame(graphene_bilayer((0.2, 0.1 * k), 3.3, noise=0.08, seed=k)) for k in range(8)],
        )
    )

    def errors(items):
        return category_scales(head, items)["onsite"]

    first, before = errors(known), errors(other)
    refit_onsite(head, known)
    assert 0.5 * first < errors(known) < 1.2 * first
    refit_onsite(head, other)
    assert errors(other) < 0.5 * before


@pytest.mark.slow
def test_interrupted_training_goes_on(folder, monkeypatch):
    fit = recipe.fit_hamiltonian

    def often(*arguments, **options):
        fit(*arguments, **{**options, "interval": 2})

    monkeypatch.setattr(recipe, "fit_hamiltonian", often)
    whole = train(configuration(folder, "whole.safetensors"), progress=False)
    save, calls = Run.save, []

    def stopping(run):
        save(run)
        calls.append(run.step)
        if run.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(configuration(folder), progress=False)
    again = train(configuration(folder), progress=False)
    assert calls == [2, 4]
    for (name, one), two in zip(whole.state_dict().items(), again.state_dict().values()):
        assert torch.equal(one, two), name


def test_damaged_data(folder, tmp_path):
    """Files of which a part is missing, of another shape, out of range or not finite: one error that names the file."""
    whole = (folder / "g.h5").read_bytes()
    path = tmp_path / "d.h5"

    def replaced(name, values):
        def change(group):
            del group[name]
            if values is not None:
                group[name] = values

        return change

    for change, message in (
        (replaced("value", None), "no /00000/value in it"),
        (replaced("row", np.zeros(3, int)), "00000/row has shape"),
        (replaced("axes", np.zeros((1, 2, 3))), "00000/axes has shape"),
        (replaced("cell", np.full((3, 3), np.nan)), "00000/cell is NaN or infinite"),
        (replaced("numbers", np.array([6, 6, 6, 999])), "/numbers: got 6 to 999, need 0 to 118"),
        (replaced("atom", np.array([0, 1, 2, 9])), "00000/atom: got 0 to 9, need 0 to 3"),
        (lambda group: group["which"].__setitem__(0, -1), "00000/which: got -1 to"),
        (lambda group: group["column"].__setitem__(0, 99), "/column: got 0 to 99, need 0 to 3"),
        (lambda group: group["value"].__setitem__(0, np.inf), "00000/value is NaN or infinite"),
        (lambda group: group.attrs.__setitem__("orbitals", "[1, 2]"), "got 2 orbitals of 4"),
        (lambda group: group.attrs.__delitem__("orbitals"), "attribute 'orbitals'"),
    ):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file["00000"])
        with pytest.raises(ValueError, match=message) as caught:
            list(Hamiltonians(path))
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_errors(folder, tmp_path, capsys):
    frame = frames()[0]
    for change, message in (
        ({"functions": frame.functions[:3]}, "got 3 functions for a Hamiltonian of 4"),
        ({"functions": [Function(7, "pz")] * 4}, "need 0 to 3"),
        ({"atoms": frame.atoms * (2, 1, 1)}, "of another cell"),
    ):
        with pytest.raises(ValueError, match=message):
            HamiltonianFrame(**{**vars(frame), **change})
    complex_one = WannierHamiltonian(
        frame.atoms.cell.array,
        [[0, 0, 0], [1, 0, 0], [-1, 0, 0]],
        np.array([np.eye(4), 0.1j * np.eye(4), -0.1j * np.eye(4)]),
    )
    with pytest.raises(ValueError, match="got a complex H"):
        HamiltonianFrame(**{**vars(frame), "hamiltonian": complex_one})
    own = Hamiltonians(folder / "g.h5")
    write_hamiltonians(tmp_path / "more.h5", [frame], attributes={})
    both = Hamiltonians(folder / "g.h5", tmp_path / "more.h5")
    assert len(own.frames()) == 0 and len(both) == len(own) + 1 and both[-1].name == frame.name
    assert [(path.name, len(part)) for path, part in both.by_file()] == [("g.h5", len(own)), ("more.h5", 1)]
    (tmp_path / "cut.h5").write_bytes((folder / "g.h5").read_bytes()[:2000])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    write_hamiltonians(tmp_path / "fermi.h5", [frame], attributes={"energy_reference": "Fermi level"})
    for name, message in (
        ("cut.h5", "truncated"),
        ("none.h5", "missing"),
        ("other.h5", "not a file of Hamiltonians"),
        ("fermi.h5", "need the vacuum level"),
    ):
        with pytest.raises(ValueError, match=message):
            Hamiltonians(tmp_path / name)
    for table, message in (
        ({"data": {"files": ["g.h5"], "train": ["none"]}}, "none of them to train on"),
        (
            {"data": {"files": ["g.h5", "energies.extxyz"]}},
            r"energies\.extxyz without Hamiltonians .*; leave such files out, or add",
        ),
        ({"dos": {}}, "train them apart"),
        ({"energy": {}, "power_spectrum": {}}, "no energies and forces to train on"),
        ({"hamiltonian": {"step": 1}}, "did you mean 'steps'"),
        ({"hamiltonian": {"onsite": -1.0}}, "loss weights"),
    ):
        with pytest.raises(ValueError, match=message):
            train(
                parse_config(
                    {"data": {"files": ["g.h5"]}, "hamiltonian": OPTIONS, "output": {"model": "x.safetensors"}} | table,
                    folder,
                ),
                progress=False,
            )
    assert main(["test", "si", str(folder / "g.h5")]) == 1
    assert "give a model of the Hamiltonian" in capsys.readouterr().err


def test_every_category_counts_in_the_watched_loss(folder):
    """Before the descent, the loss of validation structures is the sum of the weights, also where few structures are
    fitted closely by the linear parts, whose errors of other structures are many times as large."""
    model = recipe._untrained(frames()[:2], configuration(folder))
    items = [prepare(model, frame, 4) for frame in frames()[:5]]
    standardize_hamiltonian(model, items[:2])
    head = model.heads["hamiltonian"]
    training, held = (category_scales(head, part) for part in (items[:2], items[4:]))
    assert held["onsite"] > 3 * training["onsite"]
    problem = HamiltonianProblem(model, items[:2], items[4:], {"levels": 4.0}, 2, 0, "")
    assert problem.errors()["loss"] == pytest.approx(len(held) - 1 + 4)


@pytest.mark.slow
def test_stops_at_nan(folder):
    """A learning rate that is too large: one line with the step and the frames, and no model."""
    with pytest.raises(
        Diverged,
        match=r"training stopped at step \d+: the (loss|gradient|parameters|error) is NaN or "
        r"infinite, with the frames .*the learning rate, .*lower it",
    ):
        model = train(configuration(folder, "nan.safetensors", steps=1), progress=False)
        (folder / "nan.safetensors").unlink()
        model.heads["hamiltonian"].train().requires_grad_(True)
        items = [prepare(model, frame) for frame in frames()[:2]]
        fit_hamiltonian(model, items, steps=5, learning_rate=(1e200, 1e200), interval=1, progress=False)
    assert not (folder / "nan.safetensors").exists()


def test_elements_that_cannot_be(tmp_path):
    first, *others = frames()
    huge = HamiltonianFrame(
        first.atoms, referred_to(first.hamiltonian, 1e7), first.functions, name="huge", group="train"
    )
    write_hamiltonians(tmp_path / "h.h5", [*others, huge], attributes={"electrons_per_atom": {"C": 1}})
    with pytest.raises(
        ValueError, match=r"h.h5: frame \d \(huge\): H\(R\) reaches 1e\+07 eV, more than any calculation"
    ):
        train(
            parse_config(
                {"data": {"files": ["h.h5"]}, "hamiltonian": OPTIONS, "output": {"model": "h.safetensors"}}, tmp_path
            ),
            progress=False,
        )
