"""Energies at other temperatures of the electrons, in closed form."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from ase_mlelec.data.batches import Batches
from ase_mlelec.data.data_set import Frame, same_structure, temperature_of
from ase_mlelec.data.frames import Frames, join, read_all
from ase_mlelec.hot_energies import HotEnergies
from ase_mlelec.model import Model
from ase_mlelec.train.config import Config, EnergyConfig
from ase_mlelec.train.data_checks import check_frames
from ase_mlelec.train.evaluate import errors
from ase_mlelec.train.last_layer import n_weights
from ase_mlelec.train.linear_energy import fit_by_choice, fit_with_weights, folds_in_memory
from ase_mlelec.train.log import Log, readable_errors
from ase_mlelec.train.losses import energy_and_derivatives
from ase_mlelec.train.recipes.linear_energy import chooses_by, unit_loss

LABELS = ("energy", "forces", "virial")
# labels of a kind count alike, but for stress; where energies are known for few structures, of which none can choose
WEIGHTS, RIDGE = {"energy": 1.0, "forces": 1.0, "virial": 0.1}, 1e-8
BATCH = 8  # structures


def read_hot(parts: Mapping[str, Frames], config: Config) -> dict[float, dict[str, Frames]]:
    """Energies, forces and virials of the structures of each part at other temperatures, K, of the files data.hot.

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
        found[temperature] = {part: _same_structures(own, frames, name) for part, own in parts.items()}
        if not len(found[temperature]["train"]):
            raise ValueError(f"{name}: none of its structures is in the training data; give labels of such structures")
    return found


class HotFit(NamedTuple):
    """Outcome of ``fit_hot_energies``.

    Attributes
    ----------
    about : dict of JSON types
        What was chosen, and the errors.
    held : dict of (Model, Frames)
        Energy at each temperature, K, that was not fitted to its validation structures, and these.
    """

    about: dict[str, Any]
    held: dict[float, tuple[Model, Frames]]


def fit_hot_energies(model: Model, hot: Mapping[float, Mapping[str, Frames]], config: Config, log: Log) -> HotFit:
    """Give ``model`` HotEnergies from ``read_hot``.

    The energies at each temperature are fitted, not their changes: hot electrons make a smooth energy, which few
    structures determine, and a change has the roughness of the cold one. The fit begins with no energy at all, or with the
    mixture of those at the other temperatures that has the best forces, whatever is better on structures left out.
    """
    if not hot:
        return HotFit({}, {})
    reference = cast(float, temperature_of(next(iter(hot.values()))["train"].attributes))
    cold = Model(model.descriptor, {"energy": model.heads["energy"]})
    about, seen, final = {}, {reference: cold}, {reference: cold}  # without validation structures, and with them
    for temperature in sorted(hot, key=lambda temperature: -len(hot[temperature]["train"])):
        parts = hot[temperature]
        log.tell(f"free energy at {temperature:g} K: it is known for {len(parts['train'])} structures")
        fit = _Fit(seen, parts, config, log)
        seen[temperature] = fit.from_mixture_of(seen)
        about[f"energy at {temperature:g} K"] = fit.about | _errors(seen[temperature], parts, log)
        whole = len(parts.get("validation", ())) > 0
        final[temperature] = fit.from_mixture_of(final, parts["validation"]) if whole else seen[temperature]
    weights = {temperature: _weights_of(each) for temperature, each in final.items()}
    found = HotEnergies(reference, list(hot), len(weights[reference]), weights[reference].shape[1] - 1)
    found.changes = torch.stack([weights[temperature] - weights[reference] for temperature in hot])
    model.hot = found
    return HotFit(about, {t: (seen[t], hot[t]["validation"]) for t in hot if "validation" in hot[t]})


@contextmanager
def hot_energies_kept(model: Model) -> Iterator[None]:
    """Context in which the energy of ``model`` changes at its own temperature alone."""
    before = None if model.hot is None else _weights_of(model)
    yield
    if before is not None:
        model.hot.changes -= _weights_of(model) - before


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


def _same_structures(cold: Frames, hot: Frames, name: str) -> Frames:
    """Frames of ``cold`` with the labels of ``hot``, for structures that are in both, by their names."""
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
        labels = {key: other.labels[key] for key in LABELS if key in other.labels}
        if labels:
            found.append(replace(frame, labels=labels))
    return Frames(found, None, cold.attributes)


class _Fit:
    """What is chosen for the energy at one temperature, with a dict of the models at others."""

    def __init__(self, fitted, parts, config, log):
        self.train = parts["train"]
        self.support = parts.get("support", self.train.take([]))
        self.loss = unit_loss(self.train, cast(EnergyConfig, config.energy))
        self.shares, self.weights, self.ridge = self._choice(fitted, log)

    @property
    def about(self):
        """Shares of the energies to begin with by temperature, weights of the labels, and ridge."""
        return {
            "begins_with": {f"{t:g}": share for t, share in self.shares.items()},
            "ridge": self.ridge,
            "weights": self.weights,
        }

    def _choice(self, fitted, log):
        """What leads to the smallest errors on blocks of the training structures that are left out."""
        seen, held = chooses_by(self.train, n_weights(next(iter(fitted.values())).heads["energy"]))
        mixtures = [dict.fromkeys(fitted, 0.0), _shares(fitted, self.train)]
        if not held:
            return mixtures[1], WEIGHTS, RIDGE
        model, seen = next(iter(fitted.values())), _joined(seen, self.support)
        seen, held = folds_in_memory(model, seen, held, self.loss, progress=log)
        choices = []
        for shares in mixtures:
            start = _mixture(fitted, shares, self.train)
            choices.append(fit_by_choice(start, seen, self.loss, held=held, progress=False).choice)
        best = min(range(len(mixtures)), key=lambda k: choices[k].score)
        return mixtures[best], choices[best].weights, choices[best].ridge

    def from_mixture_of(self, fitted, *more):
        """Model fitted to the training structures, those that support them, and ``more``."""
        found = _mixture(fitted, self.shares, self.train)
        fit_with_weights(found, _joined(self.train, *more, self.support), self.loss, self.weights, self.ridge)
        return found


def _errors(model, parts, log):
    """Errors on validation and test structures, which are told."""
    found = {part: errors(model, parts[part]) for part in ("validation", "test") if len(parts.get(part, ()))}
    for part, each in found.items():
        log.tell(f"errors, {len(parts[part])} structures of {part}: {readable_errors(each)}")
    return found


def _joined(*parts):
    return join([part for part in parts if len(part)])


def _shares(fitted, train):
    """Shares with which the energies at other temperatures have the best forces; without forces, the cold one alone."""
    if "forces" not in train.counts:
        return {temperature: float(k == 0) for k, temperature in enumerate(fitted)}
    columns = torch.stack([_values(model, train, "forces") for model in fitted.values()], 1)
    found = torch.linalg.lstsq(columns, _labels(train, "forces")[:, None]).solution[:, 0]
    return dict(zip(fitted, found.tolist()))


@torch.no_grad()
def _mixture(fitted, shares, train):
    """Model whose last layers are sums of those of ``fitted``, with the mean energy of ``train`` for each species."""
    found = copy.deepcopy(next(iter(fitted.values())))
    layers = [[*model.heads["energy"].nets.last.parameters()] for model in (found, *fitted.values())]
    for own, *others in zip(*layers):
        own.copy_(sum(share * other for share, other in zip(shares.values(), others)))
    if "energy" in train.counts:
        known = train.take([k for k, frame in enumerate(train) if "energy" in frame.labels])
        counts = [[frame.atoms.symbols.count(symbol) for symbol in found.species] for frame in known]
        left = (_labels(known, "energy") - _values(found, known, "energy")).numpy()
        bias = found.heads["energy"].nets.bias
        bias[:, 0] += torch.as_tensor(np.linalg.lstsq(np.array(counts, dtype=float), left, rcond=None)[0]).to(bias)
    return found


@torch.no_grad()
def _values(model, frames, label):
    """Energies or forces of the frames that have them, as a vector on the host, where the labels are."""
    batches = Batches.for_model(model, frames, [label]).with_label(label)
    found = []
    for batch in batches.all_batches(BATCH):
        energy, derivatives = energy_and_derivatives(model, batch, [label])
        found.append((energy if label == "energy" else derivatives[label]).flatten())
    return torch.cat(found).double().cpu()


def _labels(frames, label):
    """The labels of ``_values``."""
    known = [np.ravel(frame.labels[label]) for frame in frames if label in frame.labels]
    return torch.as_tensor(np.concatenate(known), dtype=torch.float64)


@torch.no_grad()
def _weights_of(model):
    """Weights and constant [species, F + 1] of the last layers, eV, with which they give the energy."""
    nets = model.heads["energy"].nets
    rows = [torch.cat([layer.weight[0], layer.bias]) * nets.scale for layer in nets.last]
    found = torch.stack(rows)
    found[:, -1] += nets.bias[:, 0]
    return found
