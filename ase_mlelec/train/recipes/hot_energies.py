"""Energies at other temperatures of the electrons, in closed form: changes of a linear energy head."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from ase_mlelec.data.data_set import Frame, same_structure, temperature_of
from ase_mlelec.data.frames import Frames, join, read_all
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config, EnergyConfig
from ase_mlelec.train.data_checks import check_frames
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.linear_energy import fit_by_choice, fit_with_weights
from ase_mlelec.train.log import Log, readable_errors
from ase_mlelec.train.recipes.linear_energy import chooses_by, unit_loss

LABELS = ("energy", "forces", "virial")
# labels of a kind count alike, but for stress; where changes are known for few structures, of which none can choose
WEIGHTS, RIDGE = {"energy": 1.0, "forces": 1.0, "virial": 0.1}, 1e-8


def read_changes(parts: Mapping[str, Frames], config: Config) -> dict[float, dict[str, Frames]]:
    """Changes of energy, forces and virial of the structures of each part, by the temperatures of the files data.hot, K.

    Raises
    ------
    ValueError
        For data sets without a temperature or of one that is known, structures that differ from those of their name, and
        data sets of which no structure is trained on.
    """
    reference = temperature_of(parts["train"].attributes)
    found: dict[float, dict[str, Frames]] = {}
    for name in config.data.hot:
        frames = read_all([config.folder / name], keys=config.data.keys.given, check=check_frames)
        temperature = _checked_temperature(name, frames, reference)
        if temperature in found:
            raise ValueError(f"{name}: got a second file with energies at {temperature:g} K; join the two")
        found[temperature] = {part: _changes(own, frames, name) for part, own in parts.items()}
        if not len(found[temperature]["train"]):
            raise ValueError(f"{name}: none of its structures is in the training data; give labels of such structures")
    return found


def fit_hot_energies(
    model: Model, changes: Mapping[float, Mapping[str, Frames]], config: Config, log: Log
) -> dict[str, Any]:
    """Give ``model`` HotEnergies from ``read_changes``; what was chosen and the errors, dict of JSON types."""
    about, found = {}, []
    for temperature, parts in changes.items():
        log.tell(f"free energy at {temperature:g} K: its change is known for {len(parts['train'])} structures")
        twin, about[f"energy at {temperature:g} K"] = _fit(model, parts, config, log)
        found.append(_change_of(twin.heads["energy"]))
    if found:
        last = model.heads["energy"].nets.last
        reference = cast(float, temperature_of(next(iter(changes.values()))["train"].attributes))
        hot = HotEnergies(reference, list(changes), len(last), last[0].in_features)
        hot.changes = torch.stack(found)
        model.hot = hot
    return about


def _checked_temperature(name, frames, reference):
    temperature = temperature_of(frames.attributes)
    if temperature is None or reference is None:
        raise ValueError(
            f"{name}: got energies without electronic_temperature_K in the settings of "
            f"{'this file' if temperature is None else 'data.files'}, need it to know what they are; add it"
        )
    if temperature == reference:
        raise ValueError(f"{name}: got energies at {temperature:g} K, which is that of data.files; name it there")
    return temperature


def _changes(cold: Frames, hot: Frames, name: str) -> Frames:
    """Frames with the changes of the labels that both have, for structures that are in both, by their names."""
    known: dict[str, Frame] = {frame.name: frame for frame in hot if frame.name}
    found = []
    for frame in cold:
        other = known.get(frame.name)
        if other is None:
            continue
        if not same_structure(frame.atoms, other.atoms):
            raise ValueError(
                f"{name}: '{frame.name}' has other atoms, positions or another cell than in data.files; correct its name"
            )
        both = [key for key in LABELS if key in frame.labels and key in other.labels]
        labels = {key: other.labels[key] - frame.labels[key] for key in both}
        if labels:
            found.append(replace(frame, labels=labels))
    return Frames(found, None, cold.attributes)


def _fit(model, parts, config, log):
    """(Model whose energy is the change of the free energy, its settings and errors).

    The errors are those of a fit without the validation structures, which are fitted as well in the end.
    """
    train, validation, support = (
        parts.get(part, parts["train"].take([])) for part in ("train", "validation", "support")
    )
    loss = unit_loss(train, cast(EnergyConfig, config.energy))
    weights, ridge = _choice(model, train, support, loss)
    about: dict[str, Any] = {"ridge": ridge, "weights": weights}

    def fitted(*frames):
        twin = _twin(model, train)
        fit_with_weights(twin, _joined(*frames), loss, weights, ridge)
        return twin

    twin = fitted(train, support)
    for part in ("validation", "test"):
        if len(parts.get(part, ())):
            about[part] = errors(twin, parts[part])
            log.tell(f"errors of the change, {len(parts[part])} structures of {part}: {readable_errors(about[part])}")
    return fitted(train, validation, support) if len(validation) else twin, about


def _choice(model, train, support, loss):
    """(Weights of the labels, ridge) that lead to the smallest errors on blocks of ``train`` that are left out."""
    seen, held = chooses_by(train)
    if not len(held):
        return WEIGHTS, RIDGE
    choice = fit_by_choice(_twin(model, train), _joined(seen, support), loss, held=held, progress=False).choice
    return choice.weights, choice.ridge


def _joined(*parts):
    return join([part for part in parts if len(part)])


def _twin(model, frames):
    """Model with the descriptor of the energy, whose energy is the mean change of each species."""
    head = copy.deepcopy(model.heads["energy"])
    for layer in head.nets.last:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    counts = np.array(
        [[frame.atoms.symbols.count(symbol) for symbol in model.species] for frame in frames], dtype=float
    )
    energies = np.array([frame.labels.get("energy", 0.0) for frame in frames], dtype=float)
    head.nets.bias[:, 0] = torch.as_tensor(np.linalg.lstsq(counts, energies, rcond=None)[0]).to(head.nets.bias)
    return Model(model.descriptor, {"energy": head})


@torch.no_grad()
def _change_of(head):
    """Change [species, F + 1], eV, of weights and constants that adds the energy of ``head``."""
    nets = head.nets
    rows = [torch.cat([layer.weight[0], layer.bias]) * nets.scale for layer in nets.last]
    found = torch.stack(rows)
    found[:, -1] += nets.bias[:, 0]
    return found
