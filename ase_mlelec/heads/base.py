"""Base classes of heads, and the per-species fitting nets that most heads share."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.nets import DenseNet, map_by_species


class Head(torch.nn.Module):
    """Base of all heads.

    Attributes
    ----------
    quantity : str
        Name of the quantity that ``forward`` returns, e.g. "energy".
    """

    quantity: str

    def forward(self, environment: Any, edges: Edges) -> Any:
        """Tensor [C, ...] of the quantity of every center."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(environment, edges)")

    def arguments(self) -> dict[str, Any]:
        """dict of the constructor arguments (JSON types), from which a model file restores the head."""
        raise NotImplementedError(f"{type(self).__name__} must define arguments()")


@dataclass(frozen=True)
class Blocks:
    """Blocks of a matrix between atomic functions: one for every atom, and one for every pair of atoms.

    Attributes
    ----------
    geometry
        Geometry with the atoms and pairs that the blocks belong to.
    onsite : dict by species k of Tensor [n, W, W]
        Blocks of the atoms ``atoms(k)``.
    hopping : dict by key (between layers or not, first species, second species) of Tensor [e, W, W']
        Blocks of the pairs ``pairs(key)`` from the first to the second atom; the reversed pair has the transpose.
    """

    geometry: Any
    onsite: dict
    hopping: dict

    def atoms(self, k: int) -> Tensor:
        """Tensor [n] of the atoms of species k."""
        return (self.geometry.species == k).nonzero()[:, 0]

    def pairs(self, key: tuple[bool, int, int]) -> tuple:
        """(first atom [e], second atom [e], lattice vector to the cell of the second atom [e, 3]) of pairs of a kind."""
        rows = self.geometry.groups()[key]
        return self.geometry.first[rows], self.geometry.second[rows], self.geometry.shift[rows]


class HeadOfPairs(Head):
    """Base of heads whose quantity belongs to pairs of atoms: ``forward`` returns Blocks."""

    def forward(self, environment: Any, edges: Edges | None = None) -> Blocks:
        """Blocks of all atoms and pairs of ``environment``, a Geometry."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(environment, edges)")


class FittingNets(torch.nn.Module):
    """One fitting net per species: [C, F] -> bias[species] + scale * net(standardized features), [C, n_out].

    Without ``widths`` the nets are linear. ``timestep`` and ``activation`` belong to the hidden layers, see DenseLayer.

    References
    ----------
    Zhang et al. 2018, Eq. (2); Zeng et al. 2022, Eq. (1).
    """

    hidden: Any  # ModuleList of DenseNet
    last: Any
    shift: Any  # None once folded
    inverse: Any
    bias: Tensor
    scale: Tensor

    def __init__(
        self,
        n_species: int,
        n_features: int,
        widths: Sequence[int],
        n_out: int,
        timestep: bool = False,
        activation: str = "tanh",
    ):
        super().__init__()
        self.hidden = torch.nn.ModuleList(DenseNet(n_features, widths, timestep, activation) for _ in range(n_species))
        width = widths[-1] if len(widths) else n_features
        self.last = torch.nn.ModuleList(torch.nn.Linear(width, n_out) for _ in range(n_species))
        for layer in self.last:
            torch.nn.init.normal_(layer.weight, 0, width**-0.5)
            torch.nn.init.zeros_(layer.bias)
        self.whole: Any = None  # first layers of nets that ``condense``
        self.register_buffer("shift", torch.zeros(n_species, n_features))
        self.register_buffer("inverse", torch.ones(n_species, n_features))
        self.register_buffer("bias", torch.zeros(n_species, n_out))
        self.register_buffer("scale", torch.ones(n_out))

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        return map_by_species(self._species, species, len(self.hidden), features)

    def of(self, environment: Environment) -> Tensor:
        """Outputs [C, n_out] for the centers of an environment."""
        if environment.kept is None or not len(self.hidden[0]):
            return self(environment.features, environment.species)
        return map_by_species(self._outputs, environment.species, len(self.last), self.inputs_of(environment))

    def inputs_of(self, environment: Environment) -> Tensor:
        """Inputs [C, H] of the last layers for the centers of an environment, which may keep those of hidden layers."""
        kept = environment.kept if len(self.hidden[0]) else None
        if kept is not None and self.hidden in kept:
            return kept[self.hidden]
        found = self.last_inputs(environment.features, environment.species)
        if kept is not None:
            kept[self.hidden] = found
        return found

    def last_inputs(self, features: Tensor, species: Tensor) -> Tensor:
        """Inputs [C, H] of the last layers, in which the outputs are linear, beside a constant for each species."""

        def inputs(k, rows):
            return self._hidden(k, rows if self.shift is None else (rows - self.shift[k]) * self.inverse[k])

        return map_by_species(inputs, species, len(self.hidden), features)

    @torch.no_grad()
    def with_slopes(self, features: Tensor, species: Tensor) -> tuple[Tensor, Tensor] | None:
        """Outputs [C] of folded nets with one output, and their derivatives [C, F] by the features, without a graph.

        None for nets that are not folded, for other activations than tanh, and on a GPU, which it would keep waiting.
        """
        nets = [self._layers(k, features.shape[1]) for k in range(len(self.hidden))]
        if (
            self.shift is not None
            or features.device.type != "cpu"
            or any(layer.activation is not torch.tanh for net in nets for layer in net)
        ):
            return None
        values, slopes = features.new_empty(len(features), dtype=self.last[0].weight.dtype), torch.empty_like(features)
        for k, (net, last) in enumerate(zip(nets, self.last)):
            rows = (species == k).nonzero()[:, 0]
            x, kept = features.index_select(0, rows), []
            for layer in net:
                x, slope = layer.with_slopes(x)
                kept.append(slope)
            values[rows] = last(x.to(last.weight.dtype))[:, 0]
            grad = last.weight.to(x.dtype).expand(len(rows), -1)
            for layer, slope in zip(reversed(net), reversed(kept)):
                grad = layer.pull_back(grad, slope)
            slopes.index_copy_(0, rows, grad)
        return values, slopes

    @torch.no_grad()
    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [species, H + 1, n_out], in units of the outputs, to weights and constants of the last layers."""
        scale = self.scale if self.shift is not None else torch.ones_like(self.scale)
        for layer, own in zip(self.last, change):
            layer.weight += own[:-1].T / scale[:, None]
            layer.bias += own[-1] / scale

    def is_linear(self) -> bool:
        """Whether there are no hidden layers."""
        return self.shift is not None and not len(self.hidden[0])

    @torch.no_grad()
    def as_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weights [species, n_out, F] of the features and constants [species, n_out]; None for nets with hidden layers."""
        if not self.is_linear():
            return None
        weights = torch.stack([layer.weight for layer in self.last]) * self.scale[:, None] * self.inverse[:, None]
        constants = self.bias + torch.stack([layer.bias for layer in self.last]) * self.scale
        return weights, constants - (weights @ self.shift[:, :, None])[:, :, 0]

    @torch.no_grad()
    def fold(self) -> None:
        """Absorb the normalization into the nets, for faster evaluation.

        Shift and inverse go into the first layers, where these have no shortcut; scale and bias go into the last.
        """
        if self.shift is None or not len(self.hidden[0]):
            return
        for k, first in enumerate(net[0] for net in self.hidden):
            if first.repeat:
                return
            first.weight *= self.inverse[k, :, None]
            first.bias -= self.shift[k] @ first.weight
        for bias, last in zip(self.bias, self.last):
            last.weight *= self.scale[:, None]
            last.bias.mul_(self.scale).add_(bias)
        self.shift = self.inverse = None

    def can_condense(self) -> bool:
        """Whether the features are read by the first layers of folded nets alone."""
        return self.shift is None and bool(len(self.hidden[0]))

    @torch.no_grad()
    def condense(self, shortened: Callable[[Tensor], Tensor]) -> None:
        """Read fewer features too, from which linear functions [F, ...] of all features are ``shortened`` to [F', ...]."""
        self.whole = torch.nn.ModuleList(net[0] for net in self.hidden)
        for net in self.hidden:
            net[0] = copy.copy(net[0])
            net[0]._parameters = {**net[0]._parameters, "weight": _fixed(shortened(net[0].weight))}

    def _layers(self, k, n_features):
        """Hidden layers of a net for all features, or for the fewer ones of ``condense``; list."""
        layers = list(self.hidden[k])
        if self.whole is not None and layers[0].weight.shape[0] != n_features:
            layers[0] = self.whole[k]
        return layers

    def _hidden(self, k, features):
        if self.whole is None or features.shape[1] == self.hidden[k][0].weight.shape[0]:
            return self.hidden[k](features)
        for layer in self._layers(k, features.shape[1]):
            features = layer(features)
        return features

    def _species(self, k, features):
        x = features if self.shift is None else (features - self.shift[k]) * self.inverse[k]
        return self._outputs(k, self._hidden(k, x))

    def _outputs(self, k, inputs):
        last = self.last[k]  # it may be more precise than the layers before
        values = last(inputs.to(last.weight.dtype))
        return values if self.shift is None else self.bias[k] + self.scale * values


def _fixed(array):
    return torch.nn.Parameter(array, requires_grad=False)
