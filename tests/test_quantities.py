"""A quantity of another package goes all the way from a file to a model and its errors by one row, one head, one loss."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from safetensors import safe_open

import ase_mlelec
from ase_mlelec import load_model, quantities
from ase_mlelec.analysis.result_writer import ResultWriter
from ase_mlelec.data.frames import read_frames, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import FittingNets, Head
from ase_mlelec.model import Model
from ase_mlelec.quantities import (
    HEADS,
    LABELS,
    LOSSES,
    QUANTITIES,
    Label,
    Measure,
    Quantity,
    SampleKind,
    mean_absolute,
    relative_to_spread,
)
from ase_mlelec.shipped import HEADER
from ase_mlelec.system import System
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.evaluate import errors, table
from ase_mlelec.train.losses import AtomicLoss
from ase_mlelec.train.recipe import train
from ase_mlelec.train.standardize import standardize
from ase_mlelec_entry_points.cli.main import main

# one row, with the label that it is trained on ...
CHARGES = Label("charges", "N", "e", "charges", keys=("mulliken",), parts=("mulliken",), largest=100.0)
CHARGE = Quantity(
    "charge",
    "charge",
    "e",
    atomic="charges",
    measures=(
        Measure("charge_rmse_me", "charge of an atom, root mean square", "me", "charges", scale=1000),
        Measure("charge_mae_me", "charge of an atom, mean absolute", "me", "charges", mean_absolute, scale=1000),
    ),
)
MOMENT = Label("moment", "", "μB", "a magnetization", keys=("moment",))
MAGNETIZATION = Quantity(
    "magnetization",
    "magnetization",
    "μB",
    total="moment",
    measures=(Measure("moment_rmse_muB_per_atom", "magnetization, root mean square", "μB/atom", "moment", per="atom"),),
)


# ... one head ...
class ChargeHead(Head):
    quantity = "charge"

    def __init__(self, n_species, n_features, widths=(8,)):
        super().__init__()
        self.n_species, self.n_features, self.widths = n_species, n_features, tuple(widths)
        self.nets = FittingNets(n_species, n_features, self.widths, 1)

    def arguments(self):
        return {"n_species": self.n_species, "n_features": self.n_features, "widths": list(self.widths)}

    def forward(self, environment, edges):
        return self.nets(environment.features, environment.species)[:, 0]


# ... and one loss
@dataclass(frozen=True)
class ChargeLoss(AtomicLoss):
    quantity = "charge"


class MomentHead(ChargeHead):
    quantity = "magnetization"


@dataclass(frozen=True)
class MomentLoss(AtomicLoss):
    quantity = "magnetization"


TOYS = {
    "charge": (CHARGE, CHARGES, ChargeHead, ChargeLoss),
    "magnetization": (MAGNETIZATION, MOMENT, MomentHead, MomentLoss),
}
DESCRIPTOR = {"cutoff": 4.0, "smooth": 1.0, "widths": [8], "n_axis": 4, "n_basis": 8}


@pytest.fixture(params=TOYS)
def toy(request):
    row, label, head, loss = TOYS[request.param]
    with quantities.added(row, labels=(label,), head=head, loss=loss):
        yield row, label


def make_images(n=24):
    """Molecules of Na and Cl with charges that depend on the neighbors, and a moment that is a sum over atoms."""
    rng, images = np.random.default_rng(3), []
    for k in range(n):
        places = np.array([[0, 0, 0], [2.4, 0, 0], [0, 2.6, 0], [2.4, 2.4, 0.5]][: 3 + k % 2])
        atoms = Atoms(["Na", "Cl", "Cl", "Na"][: len(places)], places + rng.normal(0, 0.15, places.shape))
        near = np.exp(-atoms.get_all_distances()).sum(axis=1) - 1
        sign = np.where(atoms.numbers == 11, 1.0, -1.0)
        atoms.arrays["mulliken"] = sign * (0.8 - near)
        atoms.info.update(moment=float((0.3 + near[sign < 0]).sum()), group="test" if k >= n - 6 else "train")
        images.append(atoms)
    return images


@pytest.fixture
def extxyz(tmp_path):
    path = tmp_path / "salt.extxyz"
    ase.io.write(path, make_images(), format="extxyz")
    return path


def test_no_relative_error_without_spread():
    """Equivalent atoms, whose spectra differ by the digits of a file alone, tell nothing about a relative error."""
    spectrum = np.linspace(0.0, 1.0, 50)
    rows = np.stack([spectrum, spectrum + 1e-8])
    assert relative_to_spread(rows + 0.1 - rows, rows) is None
    spread = np.stack([spectrum, 1.2 * spectrum])
    expected = np.sqrt(np.mean((0.1 * spectrum) ** 2))  # half of the difference of two rows
    assert relative_to_spread(np.full_like(spread, 0.3), spread) == pytest.approx(0.3 / expected)


def test_labels_from_extxyz_to_hdf5(toy, extxyz, tmp_path):
    _, label = toy
    frames = read_frames(extxyz)
    truth = [atoms.arrays["mulliken"] if label is CHARGES else atoms.info["moment"] for atoms in make_images()]
    assert label.name in frames.labels
    for frame, value in zip(frames, truth, strict=True):
        np.testing.assert_allclose(frame.labels[label.name], value, atol=1e-7)
    write_hdf5(tmp_path / "salt.h5", frames)
    again = read_frames(tmp_path / "salt.h5")
    assert again.labels == frames.labels and again.fingerprint() == frames.fingerprint()
    for frame, other in zip(frames, again, strict=True):
        np.testing.assert_array_equal(frame.labels[label.name], other.labels[label.name])


def test_shapes_and_sizes_of_labels_are_checked(toy, tmp_path):
    _, label = toy
    frames = read_frames_of(make_images(2), tmp_path)
    frames.frames[1].labels[label.name] = np.zeros((7, 2))
    with pytest.raises(ValueError, match=rf"label '{label.name}' has shape \(7, 2\), needed"):
        frames.check()


def read_frames_of(images, folder):
    ase.io.write(folder / "some.extxyz", images, format="extxyz")
    return read_frames(folder / "some.extxyz")


def test_other_names_are_told_and_can_be_given(tmp_path):
    images = make_images(4)
    for atoms in images:
        atoms.arrays["REF_mulliken"] = atoms.arrays.pop("mulliken")
        atoms.info["energy"] = 0.0
    ase.io.write(tmp_path / "named.extxyz", images, format="extxyz")
    row, label, head, loss = TOYS["charge"]
    with quantities.added(row, labels=(label,), head=head, loss=loss):
        with pytest.warns(UserWarning, match=r'to read them set charges = "REF_mulliken" in \[data.keys\]'):
            assert "charges" not in read_frames(tmp_path / "named.extxyz").labels
        given = {"files": ["named.extxyz"], "keys": {"charges": "REF_mulliken", "group": "group"}}
        config = parse_config({"data": given, "output": {"model": "m.safetensors"}, "quantities": {"charge": {}}})
        assert config.data.keys.given == {"charges": "REF_mulliken", "group": "group"}
        assert "charges" in read_frames(tmp_path / "named.extxyz", keys=config.data.keys.given).labels


def test_bias(toy, extxyz):
    """The mean by species for labels of atoms, the least-squares composition for those of structures."""
    row, label = toy
    frames = read_frames(extxyz)
    descriptor = DeepPotSE(["Cl", "Na"], **DESCRIPTOR)
    model = Model(descriptor, {row.name: HEADS[row.name](2, descriptor.n_features)}).double()
    standardize(model, frames)
    numbers = [frame.atoms.numbers for frame in frames]
    values = [frame.labels[label.name] for frame in frames]
    if label.of_atoms:
        wanted = [np.concatenate(values)[np.concatenate(numbers) == z].mean() for z in (17, 11)]
    else:
        counts = [[np.sum(each == z) for z in (17, 11)] for each in numbers]
        wanted = np.linalg.lstsq(np.array(counts, dtype=float), np.array(values), rcond=None)[0]
    np.testing.assert_allclose(model.heads[row.name].nets.bias[:, 0], wanted, atol=1e-10)


def test_head_without_a_row(extxyz):
    """Other heads can be trained and tested beside it; it is left as it is."""
    descriptor = DeepPotSE(["Cl", "Na"], **DESCRIPTOR)
    model = Model(descriptor, {"charge": ChargeHead(2, descriptor.n_features)}).double()
    with quantities.added(*TOYS["magnetization"][:1], labels=(MOMENT,), head=MomentHead, loss=MomentLoss):
        model.heads["magnetization"] = MomentHead(2, descriptor.n_features).double()
        frames = read_frames(extxyz)
        standardize(model, frames)
        assert list(errors(model, frames)) == ["moment_rmse_muB_per_atom"]
    assert not model.heads["charge"].nets.bias.any()


@pytest.mark.slow
def test_from_data_to_errors_and_back(toy, extxyz, tmp_path, capsys):
    """Trained by the ordinary recipe, tested by ``mlelec test``, described by ``mlelec info``, saved and loaded."""
    row, label = toy
    section = {"widths": [8], "steps": 150, "batch_size": 6}
    settings = {
        "data": {"files": [extxyz.name]},
        "descriptor": DESCRIPTOR,
        "quantities": {row.name: section},
        "output": {"model": "salt.safetensors"},
    }
    model = train(parse_config(settings, tmp_path), progress=False)
    test = read_frames(extxyz).where(lambda frame: frame.group == "test")
    found, measure = errors(model, test), row.measures[0]
    assert model.metadata["errors"]["test"] == pytest.approx(found)
    spread = np.std(np.concatenate([np.ravel(frame.labels[label.name]) for frame in test]))
    assert found[measure.key] < 0.2 * spread * (1000 if measure.unit == "me" else 1)

    def predicted(model):
        system = System.from_atoms(test.frames[0].atoms)
        with torch.no_grad():
            return model(system, Edges.build(system, model.cutoff))[row.name]

    np.testing.assert_array_equal(predicted(load_model(tmp_path / "salt.safetensors")), predicted(model))
    with safe_open(tmp_path / "salt.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    assert header["units"] == {"length": "Å", row.name: row.unit}
    assert main(["test", str(tmp_path / "salt.safetensors"), str(extxyz), "--group", "test"]) == 0
    assert re.search(rf"{measure.title} +{found[measure.key]:.4g}  {measure.unit}\n", capsys.readouterr().out)
    assert main(["info", str(tmp_path / "salt.safetensors")]) == 0
    assert f"units:\n  {row.name}: {row.unit}\n" in capsys.readouterr().out


def test_numbers_of_structures_with_a_label(toy, extxyz):
    """Errors are over those that have the label, whose number is told."""
    row, label = toy
    frames = read_frames(extxyz)
    descriptor = DeepPotSE(["Cl", "Na"], **DESCRIPTOR)
    model = Model(descriptor, {row.name: HEADS[row.name](2, descriptor.n_features)}).double()
    del frames.frames[0].labels[label.name]
    found = errors(model, frames)
    assert found[f"{label.name}_frames"] == 23
    assert f"structures with {label.noun}" in table({"all": found})


def test_columns_of_runs_have_units(tmp_path):
    with ResultWriter(tmp_path / "run.h5", {"quantities": ["forces", "charges", "volume"]}) as writer:
        writer.append([{"forces": np.zeros((2, 3)), "charges": np.zeros(2), "volume": 1.0}])
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["forces"].attrs["unit"].decode() == "eV/Å"
        assert "unit" not in file["volume"].attrs


def test_nothing_is_left(extxyz, tmp_path):
    before = [dict(each) for each in (QUANTITIES, LABELS, HEADS, LOSSES)]
    row, label, head, loss = TOYS["charge"]
    with quantities.added(row, labels=(label,), head=head, loss=loss):
        assert QUANTITIES["charge"] is CHARGE
        write_hdf5(tmp_path / "salt.h5", read_frames(extxyz))
    assert [QUANTITIES, LABELS, HEADS, LOSSES] == before
    with pytest.warns(UserWarning, match="labels charges are not known and not read"):
        read_frames(tmp_path / "salt.h5")
    with pytest.raises(ValueError, match=r"quantities\.charge: there is no such quantity of another package, .* none"):
        parse_config({"data": {"files": ["a.h5"]}, "output": {"model": "m.safetensors"}, "quantities": {"charge": {}}})


@pytest.mark.parametrize(
    "row, labels, message",
    [
        (Quantity("energy", "", "eV", total="energy"), (), "there is a 'energy' already; choose another name"),
        (CHARGE, (Label("forces", "N3", "eV/Å", "forces"), CHARGES), "there is a 'forces' already"),
        (CHARGE, (), "got the label 'charges', need one of energy, .* give a Label of it in labels"),
        (Quantity("empty", "empty", ""), (), "got no label, need one of energy"),
    ],
)
def test_refused(row, labels, message):
    before = [dict(each) for each in (QUANTITIES, LABELS)]
    with pytest.raises(ValueError, match=message):
        quantities.add(row, labels=labels, head=ChargeHead, loss=ChargeLoss)
    assert [QUANTITIES, LABELS] == before


def test_rows_fit_each_other():
    for name, row in QUANTITIES.items():
        assert name == row.name and row.unit and {*row.labels} <= LABELS.keys()
        assert {measure.label for measure in row.measures} <= {*row.labels, ""}
        assert all(measure.per in ("", "atom", "volume") for measure in row.measures)
        assert name in HEADS and HEADS[name].quantity == name
        assert (name in LOSSES) == (row.kind is SampleKind.ATOM)
    keys = [measure.key for row in QUANTITIES.values() for measure in row.measures]
    assert len(keys) == len({*keys})
    assert all(LABELS[row.becomes] for row in LABELS.values() if row.becomes)
    assert {row.kind for row in LABELS.values()} == {SampleKind.ATOM, SampleKind.STRUCTURE}


def test_a_quantity_is_named_in_few_files():
    """Its row, its head and its loss; whoever else needs it reads the table."""
    sources = [Path(ase_mlelec.__file__).parent, Path(main.__code__.co_filename).parents[1]]
    files = [path for folder in sources for path in folder.rglob("*.py")]
    assert len([path for path in files if '"dipole"' in path.read_text(encoding="utf-8")]) <= 3


@pytest.mark.parametrize("head", [ChargeHead, 3])
def test_heads_of_other_quantities_are_refused(head):
    spin = Quantity("spin", "spin", "", atomic="charges")
    with pytest.raises(ValueError, match="^quantity 'spin': got a head of another; set quantity in its class"):
        quantities.add(spin, labels=(CHARGES,), head=head, loss=ChargeLoss)
    assert "spin" not in QUANTITIES and "charges" not in LABELS
