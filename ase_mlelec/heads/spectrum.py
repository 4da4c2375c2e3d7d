"""Spectra of every center on a fixed energy grid: atomic density of states, local density of states."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.heads.base import FittingNets, Head
from ase_mlelec.nets import constructor_arguments
from ase_mlelec.physics.energy_zero import EnergyZero

ACTIVATIONS = {"silu": torch.nn.SiLU, "leaky_relu": torch.nn.LeakyReLU}


class SpectrumHead(Head):
    """Atomic DOS [N, S], states/eV, on ``energies`` [S] (eV).

    Parameters
    ----------
    square_root : bool
        Whether the nets give a root of the DOS, whose square is the DOS. It is then never negative, and its errors are
        small where it is small, as at the edges of a gap.

    References
    ----------
    Zeng et al. 2022, Eq. (1).
    """

    quantity = "dos"
    common_responses = True

    def __init__(
        self,
        n_species: int,
        n_features: int,
        energies: ArrayLike,
        widths: Sequence[int] = (240, 240, 240),
        timestep: bool = False,
        activation: str = "tanh",
        square_root: bool = False,
    ):
        super().__init__()
        self.n_species, self.n_features, self.widths, self.timestep = n_species, n_features, tuple(widths), timestep
        self.activation, self.square_root = activation, square_root
        # a copy, as the caller's array may change; no buffer, as float32 would round the grid
        self.energies = torch.as_tensor(energies, dtype=torch.float64).clone()
        self.nets = FittingNets(n_species, n_features, self.widths, len(self.energies), timestep, activation)

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self, rare=("activation", "square_root"))

    def forward(self, environment: Environment, edges: Edges) -> Tensor:
        return self.of_outputs(self.nets.of(environment))

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """Spectra [C, S] from the outputs [C, S] of the last layer, a root of either sign or the spectra themselves."""
        return outputs.square() if self.square_root else outputs

    def slopes(self, environment: Environment) -> Tensor | None:
        """Derivatives [C, S] of the spectra by the outputs of the last layer; None where they are one."""
        return 2 * self.nets.of(environment) if self.square_root else None

    def last_inputs(self, environment: Environment) -> tuple[Tensor, Tensor]:
        """Inputs [C, H] of the last layer, and the number [C] of the net of every center."""
        return self.nets.inputs_of(environment), environment.species

    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [nets, H + 1, outputs] to the weights and constants of the last layer."""
        self.nets.change_last(change)

    def responses(self, environment: Environment, outputs: Tensor) -> Tensor:
        """Spectra [Q, S] of columns of outputs [S, Q]; see ase_mlelec.uncertainty.bars."""
        return outputs.T


class LDOSHead(Head):
    """Local density of states [C, S], 1/(eV Å^3), of grid points; one net for all points.

    D = scale (W (h, z) + b). h is a feed-forward net of the standardized fingerprints (see standardize_ldos in
    ase_mlelec.train.ldos). z are the last n_linear fingerprints, in which D is linear; with radial sums (see
    ase_mlelec.descriptors.bispectrum.radial_sums) this linear part is a superposition of atomic spectra, from which
    training starts.

    Parameters
    ----------
    energies : [S], eV
        Energies relative to the zero of the structure, ``zero.level``.
    zero : EnergyZero, or its arguments as a dict
    activation : str
        "silu", or "leaky_relu" as in the paper. The kinks of "leaky_relu" make forces jump: with a grid spacing of
        0.45 Å, central differences over ±1e-3 Å are off by 0.02 eV/Å.

    References
    ----------
    Ellis et al. 2021, section II C.
    """

    shift: Tensor
    inverse: Tensor
    scale: Tensor
    hidden: Any

    quantity = "ldos"
    common_responses = True

    def __init__(
        self,
        n_features: int,
        energies: ArrayLike,
        widths: Sequence[int] = (128, 128),
        activation: str = "silu",
        zero: EnergyZero | Mapping[str, Any] = EnergyZero(),
        n_linear: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: got '{activation}', need one of {', '.join(ACTIVATIONS)}; correct it")
        self.n_features, self.widths, self.activation, self.n_linear = n_features, tuple(widths), activation, n_linear
        self.zero = zero if isinstance(zero, EnergyZero) else EnergyZero(**zero)
        # a copy, as the caller's array may change; no buffer, as float32 would round the grid
        self.energies = torch.as_tensor(energies, dtype=torch.float64).clone()
        sizes = [n_features, *self.widths]
        self.hidden = torch.nn.Sequential(
            *(part for a, b in itertools.pairwise(sizes) for part in (torch.nn.Linear(a, b), ACTIVATIONS[activation]()))
        )
        self.last = torch.nn.Linear(sizes[-1] + n_linear, len(self.energies))
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("inverse", torch.eye(n_features))
        self.register_buffer("scale", torch.ones(()))

    def arguments(self) -> dict[str, Any]:
        return constructor_arguments(self)

    def activations(self, features: Tensor) -> Tensor:
        """Outputs [C, H] of the last hidden layer and of z, in which the LDOS is linear."""
        first, features = self.hidden[0], features - self.shift
        # standardize the weights instead of the fingerprints: one product of small matrices, not one for every point
        h = self.hidden[1:](torch.nn.functional.linear(features, first.weight @ self.inverse, first.bias))
        return torch.cat([h, features @ self.inverse[self.n_features - self.n_linear :].T], dim=1)

    def forward(self, environment: Environment, edges: Edges) -> Tensor:
        return self.spectrum(environment.features)

    def spectrum(self, features: Tensor) -> Tensor:
        """LDOS [C, S], 1/(eV Å^3), from fingerprints [C, F]."""
        return self.scale * self.last(self.activations(features))

    def last_inputs(self, environment: Environment) -> tuple[Tensor, Tensor]:
        """Inputs [C, H] of the last layer, and the number [C] of the net of every point, 0."""
        h = self.activations(environment.features)
        return h, torch.zeros(len(h), dtype=torch.long, device=h.device)

    @torch.no_grad()
    def change_last(self, change: Tensor) -> None:
        """Add ``change`` [1, H + 1, S], 1/(eV Å^3), to the weights and constants of the last layer."""
        self.last.weight.add_(change[0, :-1].T / self.scale)
        self.last.bias.add_(change[0, -1] / self.scale)

    def responses(self, environment: Environment, outputs: Tensor) -> Tensor:
        """Spectra [Q, S] of columns of outputs [S, Q]; see ase_mlelec.uncertainty.bars."""
        return outputs.T

    def coordinates(self, features: Tensor) -> Tensor:
        """Coordinates [C, K] in which the LDOS is linear: the last hidden layer, or the LDOS where that is narrower.

        Integrals of the LDOS over points are linear in integrals of the coordinates, which take less memory.
        """
        return self.activations(features) if self.is_low_rank() else self.spectrum(features)

    def basis(self) -> tuple:
        """(matrix [K, S], offset [S]), float64 without gradients: the LDOS is coordinates @ matrix + offset."""
        scale, matrix, offset = (p.detach().double() for p in (self.scale, self.last.weight, self.last.bias))
        if self.is_low_rank():
            return scale * matrix.T, scale * offset
        return torch.eye(len(offset)).to(offset), torch.zeros_like(offset)

    def is_low_rank(self) -> bool:
        """Whether the last hidden layer is narrower than the LDOS."""
        return self.last.in_features < self.last.out_features
