"""Data sets of which some structures lack some labels: every label counts, and no more than that."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_data import ENERGIES, make_frames, make_wannier_frames
from small_models import random_model

from ase_mlelec import load_model
from ase_mlelec.data.batches import Batches
from ase_mlelec.data.frames import Frames, write_hdf5
from ase_mlelec.descriptors import DeepPotSE
from ase_mlelec.heads import ScalarHead, SpectrumHead
from ase_mlelec.model import Model
from ase_mlelec.quantities import QUANTITIES
from ase_mlelec.train.config import parse_config
from ase_mlelec.train.energy_rows import weighted_rows
from ase_mlelec.train.evaluate import errors, table
from ase_mlelec.train.fit import evaluate_loss, fit
from ase_mlelec.train.linear_energy import fit_linear
from ase_mlelec.train.losses import EnergyLoss, SpectrumLoss, TensorLoss, VectorLoss, energy_and_derivatives
from ase_mlelec.train.recipe import train
from ase_mlelec.train.standardize import standardize

LOSSES = [
    EnergyLoss((0.3, 2.0), (5.0, 1.0), (0.7, 0.2)),
    EnergyLoss((1, 1), (1, 1), (1, 1), strong_force=0.5),
    SpectrumLoss(1.0, 2.0, 3.0),
    SpectrumLoss(0.0, 1.0, 0.5),
]
DESCRIPTOR = {"cutoff": 4.0, "smooth": 2.0, "widths": [4], "n_axis": 3, "l_max": 2, "n_basis": 5}


def without(frames, taken):
    """The frames without some labels; taken : dict, index -> names."""
    part = Frames([copy.copy(frame) for frame in frames], frames.energies, frames.attributes)
    for k, names in taken.items():
        part.frames[k].labels = {name: value for name, value in part.frames[k].labels.items() if name not in names}
    return part


@pytest.fixture(scope="module")
def frames():
    return make_frames(6)


@pytest.fixture(scope="module")
def model(frames):
    made = random_model(1, ("energy",), species=("Cu",), widths=(4,), n_basis=6, l_max=2)
    torch.manual_seed(0)
    made.heads["dos"] = SpectrumHead(1, made.descriptor.n_features, frames.energies, (8,)).double()
    return made


def value_of(loss, model, frames, chosen=None, ratio=0.3):
    batches = Batches.for_model(model, frames, loss.labels)
    return loss(model, batches.batch(range(len(frames)) if chosen is None else chosen), ratio)


@pytest.mark.parametrize(
    "names, terms",
    [(("virial",), ("virial",)), (("forces",), ("forces",)), (("energy", "virial"), ("energy", "virial"))],
)
def test_terms_of_the_energy_are_means_over_those_with_the_label(names, terms, frames, model):
    """By hand: each term is the mean of this term alone over the single structures that have its label."""
    gaps = {0: names, 3: names, 4: ("forces",)}
    ends = {"energy": (0.3, 2.0), "forces": (5.0, 1.0), "virial": (0.7, 0.2)}
    part, expected = without(frames, gaps), 0.0
    for term, pair in ends.items():
        alone = EnergyLoss(**{name: pair if name == term else (0, 0) for name in ends})
        having = [k for k, frame in enumerate(part) if term in frame.labels]
        assert len(having) < 6 or term not in (*names, "forces")
        expected += np.mean([float(value_of(alone, model, frames, [k])[0].detach()) for k in having])
    value, squares = value_of(EnergyLoss(**ends), model, part)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-12)
    batch = Batches.for_model(model, frames, ("forces",)).batch(range(6))
    found = energy_and_derivatives(model, batch)[1]["forces"].detach()
    atoms = torch.tensor([k for k in range(6) if "forces" in part.frames[k].labels])
    rows = torch.isin(batch.system.batch, atoms)
    assert float(squares["forces_eV_per_A"].detach()) == pytest.approx(
        float((found - batch.labels["forces"])[rows].square().mean()), rel=1e-12
    )


def test_terms_of_spectra(frames, model):
    """Structures without ADOS have the total DOS for the terms of the total; those without either take no part."""
    part = without(frames, {0: ("ados",), 1: ("ados", "dos"), 2: ("dos",), 4: ("ados",)})
    loss = SpectrumLoss(1.0, 2.0, 3.0)
    step, atomic, totals = ENERGIES[1] - ENERGIES[0], [], []
    for frame in part:
        with torch.no_grad():
            mine = Batches.for_model(model, Frames([frame]), ()).batch([0]).predict(model, "dos").numpy()
        if "ados" in frame.labels:
            atomic.append(mine - frame.labels["ados"])
            totals.append((mine - frame.labels["ados"]).mean(axis=0))
        elif "dos" in frame.labels:
            totals.append((mine.sum(axis=0) - frame.labels["dos"]) / len(frame.atoms))
    assert (len(atomic), len(totals)) == (3, 5)
    expected = (
        np.mean(np.concatenate(atomic) ** 2)
        + 2 * np.mean(np.square(totals))
        + 3 * np.mean(np.square(np.cumsum(totals, axis=1) * step))
    )
    value, squares = value_of(loss, model, part)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-12)
    assert float(squares["dos_per_atom_eV"].detach()) == pytest.approx(np.mean(np.square(totals)), rel=1e-12)


@pytest.mark.parametrize("kind", [VectorLoss, TensorLoss])
def test_terms_of_centers(kind):
    """Sums where the labels by atom are missing; by the losses of the single structures."""
    frames, model = make_wannier_frames(4), random_model(2, ("dipole", "polarizability"))
    atomic, total = QUANTITIES[kind.quantity].atomic, QUANTITIES[kind.quantity].total
    part = without(frames, {0: (atomic,), 1: (atomic, total), 2: (total,)})
    one = [float(value_of(kind(1.0, 0.0), model, frames, [k])[0].detach()) for k in (2, 3)]
    sums = [float(value_of(kind(0.0, 1.0), model, frames, [k])[0].detach()) for k in (0, 2, 3)]
    value = value_of(kind(1.0, 0.7), model, part)[0]
    assert float(value.detach()) == pytest.approx(np.mean(one) + 0.7 * np.mean(sums), rel=1e-9)


@pytest.mark.parametrize(
    "kind", [EnergyLoss((1, 1), (1, 1), (1, 1)), SpectrumLoss(1.0, 2.0, 3.0), VectorLoss(1.0, 0.7)]
)
def test_configuration_weights_multiply_squares(kind, frames, model):
    """The loss of a batch with weights is their mean product with the losses of the single structures; errors for the
    curve are without weights."""
    if isinstance(kind, VectorLoss):
        frames, model = make_wannier_frames(4), random_model(2, ("dipole",))
    else:  # equal numbers of atoms, so that means over atoms are means over structures
        counts = [len(frame.atoms) for frame in frames]
        frames = frames.where(lambda frame: len(frame.atoms) == max(set(counts), key=counts.count))
    weights = np.linspace(0.5, 2.0, len(frames))
    changed = Frames([replace(frame, weight=w) for frame, w in zip(frames, weights)], frames.energies)
    single = [float(value_of(kind, model, frames, [k])[0].detach()) for k in range(len(frames))]
    value, squares = value_of(kind, model, changed)
    assert float(value.detach()) == pytest.approx(np.mean(weights * single), rel=1e-9)
    plain = value_of(kind, model, frames)[1]
    assert {k: float(v.detach()) for k, v in squares.items()} == {k: float(v.detach()) for k, v in plain.items()}
    assert changed.fingerprint() != frames.fingerprint()


@pytest.mark.parametrize("loss", LOSSES, ids=["energy", "strong forces", "ados", "dos"])
def test_labels_of_other_structures_change_nothing(loss, frames, model):
    """A batch in which all have all labels has the same loss, to the bit, in a set in which others lack some."""
    gaps = {0: ("virial", "ados"), 1: ("energy", "dos")}
    whole, mixed = (value_of(loss, model, part, [2, 3, 5])[0] for part in (frames, without(frames, gaps)))
    assert torch.equal(whole, mixed)
    batch = Batches.for_model(model, without(frames, gaps), loss.labels).batch([2, 3, 5])
    assert not batch.partial


def test_a_batch_without_a_label_leaves_its_term_out(frames, model):
    part = without(frames, dict.fromkeys(range(3), ("virial", "forces")))
    loss = EnergyLoss((1, 1), (1, 1), (1, 1))
    value, squares = value_of(loss, model, part, [0, 1, 2])
    assert set(squares) == {"energy_eV_per_atom"}
    alone = value_of(EnergyLoss((1, 1), (0, 0), (0, 0)), model, frames, [0, 1, 2])[0]
    assert float(value.detach()) == float(alone.detach())
    assert float(value_of(loss, model, without(part, {3: ("energy", "forces", "virial")}), [3])[0]) == 0.0


def linear_model(frames):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        descriptor = DeepPotSE(["Cu"], 4.0, 1.5, (3,), 3, l_max=2, n_basis=4)
        made = Model(descriptor, {"energy": ScalarHead(1, descriptor.n_features, ())}).double()
    standardize(made, frames)
    return made


@pytest.mark.parametrize("few_rows", [0.0, 1e9], ids=["normal equations", "rows"])
@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_closed_form_is_least_squares_over_the_rows_there_are(few_rows, weight, frames, monkeypatch):
    """numpy's least squares over the rows of single structures, label by label, with the ridge as further rows."""
    monkeypatch.setattr("ase_mlelec.train.linear_energy.FEW_ROWS", few_rows)
    monkeypatch.setattr("ase_mlelec.train.linear_energy.MANY_WEIGHTS", 0)
    loss = EnergyLoss((9, 2.0), (9, 0.5), (9, 0.1), strong_force=3.0)
    part = without(frames, {0: ("virial",), 1: ("forces",), 2: ("energy", "virial"), 4: ("energy", "forces")})
    made, ridge = linear_model(frames), 1e-4
    columns = []
    for k, frame in enumerate(part):
        for name in ("energy", "forces", "virial"):
            if name in frame.labels:
                alone = EnergyLoss(
                    **{
                        n: getattr(loss, n) if n == name else (0, 0)
                        for n in frame.labels
                        if n in ("energy", "forces", "virial")
                    }
                    | {n: (0, 0) for n in ("energy", "forces", "virial") if n != name},
                    strong_force=3.0,
                )
                # forces and virials, where they are known, say how much a structure counts
                single = Batches.for_model(made, Frames([frame]), (name, "forces", "virial"))
                rows, rest = weighted_rows(made, single.batch([0]), alone)[name]
                root = getattr(loss, name)[1] ** 0.5
                rows, rest = root * rows, root * rest
                columns.append((k, rows.numpy(), rest.numpy()))
    part = Frames([replace(frame, weight=weight if k >= 3 else 1.0) for k, frame in enumerate(part)], part.energies)
    roots = [weight**0.5 if k >= 3 else 1.0 for k, _, _ in columns]
    rows, rest = (np.concatenate([root * row[n] for root, row in zip(roots, columns)]) for n in (1, 2))
    n = rows.shape[1]
    size = (rows**2).sum() / n
    expected = np.linalg.lstsq(np.concatenate([rows, (ridge * size) ** 0.5 * np.eye(n)]), np.append(rest, np.zeros(n)))[
        0
    ]
    (layer,) = made.heads["energy"].nets.last
    before = torch.cat([layer.weight[0], layer.bias]).detach().clone()
    fit_linear(made, part, loss, ridge, batch_size=4, progress=False)
    change = (torch.cat([layer.weight[0], layer.bias]) - before).detach().numpy()
    np.testing.assert_allclose(change, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_errors_are_over_those_with_the_label(frames, model):
    part = without(frames, {0: ("virial", "ados"), 1: ("virial", "forces", "ados", "dos"), 2: ("energy",)})

    def of(chosen, keys):
        found = errors(model, Frames([frames.frames[k] for k in chosen], frames.energies))
        return {key: found[key] for key in keys}

    found = errors(model, part)
    expected = (
        of([2, 3, 4, 5], ("stress_rmse_GPa", "ados_rmse_states_per_eV", "ados_rmse_over_std"))
        | of([0, 2, 3, 4, 5], ("forces_mae_meV_per_A", "forces_rmse_meV_per_A"))
        | of([0, 1, 3, 4, 5], ("energy_mae_meV_per_atom", "energy_rmse_meV_per_atom"))
        | {"stress_frames": 4, "forces_frames": 5, "energy_frames": 5, "ados_frames": 4, "dos_frames": 5}
    )
    assert found.pop("dos_rmse_states_per_eV_per_atom") > 0
    assert found == pytest.approx(expected, rel=1e-12)
    lines = [line for line in table({"test": errors(model, part)}).splitlines() if "structures with a stress" in line]
    assert len(lines) == 1 and lines[0].split()[-1] == "4"
    assert not any(key.endswith("_frames") for key in errors(model, frames))


def test_validation_errors_weigh_by_labels(frames, model):
    """In batches of two, one of which has one label, the other two."""
    loss, part = EnergyLoss((1, 1), (1, 1), (1, 1)), without(frames, {0: ("virial",), 4: ("virial",), 5: ("virial",)})
    found = evaluate_loss(model, Batches.for_model(model, part, loss.labels), loss, batch_size=2)
    squares = [float(value_of(loss, model, frames, [k])[1]["virial_eV_per_atom"].detach()) for k in (1, 2, 3)]
    assert found["virial_eV_per_atom"] == pytest.approx(np.mean(squares) ** 0.5, rel=1e-12)


def test_curve_of_batches_without_a_label(frames, tmp_path):
    """The columns are those of all rows."""
    part = without(frames, dict.fromkeys(range(5), ("virial",)))
    made = random_model(1, ("energy",), species=("Cu",), widths=(4,), n_basis=6, l_max=2)
    fit(
        made,
        part,
        EnergyLoss((1, 1), (1, 1), (1, 1)),
        steps=6,
        batch_size=1,
        interval=1,
        curve=tmp_path / "a.csv",
        progress=False,
    )
    head, *rows = (tmp_path / "a.csv").read_text().splitlines()
    assert head.split(",")[-1] == "virial_eV_per_atom" or "virial_eV_per_atom" in head
    filled = [row.split(",")[head.split(",").index("virial_eV_per_atom")] != "" for row in rows]
    assert sum(filled) == 1 and len(rows) == 6


# in one command


def configuration(folder, **sections):
    tables = {"data": {"files": ["cu.h5"]}, "descriptor": DESCRIPTOR, "output": {"model": "cu.safetensors"}, **sections}
    return parse_config({name: table for name, table in tables.items() if table is not None}, folder)


GAPS = {
    0: ("virial",),
    1: ("forces", "ados"),
    3: ("virial", "dos"),
    4: ("energy",),
    5: ("virial", "ados"),
    6: ("ados", "dos"),
    8: ("virial",),
    9: ("forces", "virial"),
}


@pytest.mark.parametrize("energy", [{"steps": 3, "widths": [4]}, {"widths": []}], ids=["net", "linear"])
def test_any_mixture_of_labels_trains(energy, tmp_path):
    write_hdf5(tmp_path / "cu.h5", without(make_frames(10), GAPS))
    config = configuration(tmp_path, energy=energy, dos={"steps": 3, "widths": [4], "total": 1.0})
    train(config, progress=False)
    metadata = load_model(tmp_path / "cu.safetensors").metadata
    assert metadata["training"]["labels"]["train"] == {"energy": 6, "forces": 5, "virial": 4, "ados": 3, "dos": 5}
    assert "given" not in metadata["training"]["configuration"]["energy"]
    assert "stress_rmse_GPa" not in metadata["errors"]["validation"]  # none of the two has one
    assert {key: value for key, value in metadata["errors"]["test"].items() if key.endswith("_frames")} == {
        "energy_frames": 1,
        "forces_frames": 1,
        "stress_frames": 1,
    }


def test_mixtures_of_vectors_train(tmp_path):
    names = ("atomic_dipole", "summed_dipole", "atomic_polarizability", "polarizability")
    write_hdf5(
        tmp_path / "cu.h5",
        without(
            make_wannier_frames(10),
            {0: names[:1], 1: names[1:], 2: names[2:3], 3: names[::2], 5: names[:2], 6: names[::2]},
        ),
    )
    section = {"centers": ["O"], "steps": 3, "widths": [4], "total": 1.0}
    model = train(configuration(tmp_path, dipole=section, polarizability=section), progress=False)
    assert set(model.heads) == {"dipole", "polarizability"}
    assert model.metadata["errors"]["test"]["atomic_dipole_rmse_A"] > 0


def test_default_terms_without_labels_are_left_out_and_said(tmp_path, capsys):
    frames = without(make_frames(10), dict.fromkeys(range(10), ("virial", "forces", "ados")))
    write_hdf5(tmp_path / "cu.h5", frames)
    model = train(
        configuration(tmp_path, energy={"steps": 2, "widths": [4]}, dos={"steps": 2, "widths": [4]}, committee=2)
    )
    said = capsys.readouterr().err
    assert said.count("[energy] trains without forces: none of the 6 frames to train on has such labels") == 1
    assert said.count("[dos] trains without atomic") == 1
    assert set(model[0].metadata["errors"]["test"]) == {
        "energy_mae_meV_per_atom",
        "energy_rmse_meV_per_atom",
        "dos_rmse_states_per_eV_per_atom",
    }


@pytest.mark.parametrize(
    "sections, message",
    [
        (
            {"energy": {"virial": [1, 5]}},
            r"\[energy\] virial: none of the 6 frames to train on of cu.h5 has a label "
            r"'virial', they have energy, dos; give them, or leave the term out with virial = \[0, 0\]",
        ),
        ({"energy": {"widths": [], "forces": [1, 1]}}, r"\[energy\] forces: .* 'forces'.*with forces = \[0, 0\]"),
        (
            {"dos": {"atomic": 1.0}},
            r"\[dos\] atomic: .* 'ados', they have energy, dos; .*with atomic = 0 .and total = 1.",
        ),
        (
            {"polarizability": {"centers": ["Cu"]}},
            r"\[polarizability\]: none of the 6 frames to train on of cu.h5 has a label 'atomic_polarizability'.*leave out",
        ),
    ],
    ids=["virial", "forces", "ados", "polarizability"],
)
def test_terms_that_were_asked_for_are_refused(sections, message, tmp_path):
    write_hdf5(tmp_path / "cu.h5", without(make_frames(10), dict.fromkeys(range(10), ("virial", "forces", "ados"))))
    with pytest.raises(ValueError, match=message):
        train(configuration(tmp_path, **sections), progress=False)


def test_forces_alone(tmp_path):
    """Energies have no zero then, but forces are learnt."""
    gone = ("energy", "virial", "ados", "dos")
    write_hdf5(tmp_path / "cu.h5", without(make_frames(10), dict.fromkeys(range(10), gone)))
    model = train(configuration(tmp_path, energy={"steps": 2, "widths": [4]}), progress=False)
    assert set(model.metadata["errors"]["test"]) == {"forces_mae_meV_per_A", "forces_rmse_meV_per_A"}
    assert not model.heads["energy"].nets.bias.any() and model.heads["energy"].nets.scale > 0
