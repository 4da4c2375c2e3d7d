"""Functionals of the atomic density of states and their derivatives by positions and strain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.calculators.calculator import CalculatorSetupError
from torch import Tensor

from ase_mlelec.calculators.evaluation import EvaluatesModels
from ase_mlelec.calculators.extrapolation import CHUNK
from ase_mlelec.calculators.potential import potential_results, volume_of
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.physics import fermi
from ase_mlelec.physics.gap import GapOfDOS, gap_of_dos
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

NO_COUNTS = (
    "the model's header has no 'electrons_in_dos': the Fermi level is unknown; "
    "train with valence_electrons in the data's attributes"
)


@dataclass(frozen=True)
class Spectra:
    """Atomic densities of states of one structure, of which functionals are made; everything is differentiable.

    Attributes
    ----------
    energies : Tensor [S], eV
    ados : Tensor [N, S], states/eV, float64
    n_electrons : float or None
        None where the model does not know it.
    temperature : float, K
        Electronic temperature of the calculator.
    """

    energies: Tensor
    ados: Tensor
    n_electrons: float | None
    temperature: float

    @property
    def electrons(self) -> float:
        """Number of electrons; raises CalculatorSetupError where the model does not know it."""
        if self.n_electrons is None:
            raise CalculatorSetupError(NO_COUNTS)
        return self.n_electrons

    @property
    def dos(self) -> Tensor:
        """Density of states [S] of the structure, states/eV."""
        return self.ados.sum(0)

    def fermi_level(self, temperature: float | None = None) -> Tensor:
        """Fermi level, eV; default temperature: that of the calculator, K."""
        temperature = self.temperature if temperature is None else temperature
        return fermi.fermi_level(self.energies, self.dos, self.electrons, temperature)

    def order_parameter(self, offsets: Sequence[float]) -> Tensor:
        """Order parameters [N] of the atoms: the sum of their densities at energies relative to the Fermi level, eV."""
        return self.at(self.fermi_level() + torch.as_tensor(offsets).to(self.energies)).sum(1)

    def gap(self, width: float) -> GapOfDOS | None:
        """Gap, or None in a metal; ``width`` of the levels, eV, is ``dos_width_eV`` in the metadata of the model."""
        n_atoms = len(self.ados)
        return gap_of_dos(self.energies, self.dos / n_atoms, self.electrons / n_atoms, width=width)

    def at(self, points: Any) -> Tensor:
        """Densities of states [N, K] at energies [K], eV, with a continuous slope between the points of the grid.

        Cubic between two points, with the slopes of central differences (Catmull-Rom), on a uniform grid.

        Raises
        ------
        ValueError
            For energies outside the grid.
        """
        grid = self.energies
        points = torch.atleast_1d(torch.as_tensor(points, dtype=grid.dtype, device=grid.device))
        if not ((points >= grid[1]) & (points <= grid[-2])).all():
            raise ValueError(
                f"points: got {float(points.min()):g} to {float(points.max()):g} eV, need energies inside the grid, "
                f"{float(grid[1]):g} to {float(grid[-2]):g} eV; choose others, or train on a wider grid"
            )
        place = (torch.searchsorted(grid, points.detach(), right=True) - 1).clamp(1, len(grid) - 3)
        x = (points - grid[place]) / (grid[place + 1] - grid[place])
        before, left, right, after = (self.ados[:, place + k] for k in (-1, 0, 1, 2))
        slopes = (right - before) / 2, (after - left) / 2
        return (
            left * (1 - 3 * x**2 + 2 * x**3)
            + right * (3 * x**2 - 2 * x**3)
            + slopes[0] * (x - 2 * x**2 + x**3)
            + slopes[1] * (x**3 - x**2)
        )


Functional = Callable[[Spectra], Tensor]


class Derivative(NamedTuple):
    """Values of a functional and their derivatives, for B structures with N atoms in all.

    Attributes
    ----------
    values : list of B Tensors, in the functional's unit
    parts : Tensor [N]
        Σ_ε ados(ε) dF/dados(ε) of every atom.
    gradient : Tensor [E, 3]
        Derivative by the vectors of the edges.
    """

    values: list[Tensor]
    parts: Tensor
    gradient: Tensor


class DifferentiatesSpectra(EvaluatesModels):
    """Mix-in of calculators with atomic densities of states: functionals of them and their derivatives.

    A functional sees the densities of all atoms, so that they are evaluated twice: first to know dF/dados(ε), and then,
    chunk by chunk, for the derivative of Σ ados(ε) dF/dados(ε) with fixed factors.
    """

    def _spectra(self, ados, numbers) -> Spectra:
        """Spectra of one structure; subclasses write this method."""
        raise NotImplementedError(f"{type(self).__name__} must define _spectra()")

    def evaluate_functional(self, functional: Functional, *, atoms: Any = None) -> dict[str, Any]:
        """Return a functional of the density of states and its derivatives.

        Parameters
        ----------
        functional : callable
            Function of a Spectra that returns a Tensor without dimensions.
        atoms : ase.Atoms

        Returns
        -------
        dict
            ASE's names: energy and free_energy (the value, in its unit), forces [N, 3], minus its derivatives by the
            positions, per Å, and stress [6], its derivatives by the strain over the volume, per Å^3, where the cell has a
            volume. Of a committee they are means.
        """
        self._present(atoms)
        system, edges = self._geometry()
        volume = volume_of(self.atoms)
        nothing = torch.zeros(len(system.numbers))
        each = []
        for k, model in enumerate(self.models):
            found = self._differentiate(functional, k, model, system, edges)
            results = potential_results(nothing, found.gradient, edges, volume=volume)
            value = float(found.values[0])
            each.append(results | {"energy": value, "free_energy": value})
        names = [name for name in each[0] if name not in ("energies", "stresses")]
        return {name: np.mean([member[name] for member in each], axis=0) for name in names}

    def _differentiate(self, functional: Functional, k: int, model: Model, system: System, edges: Edges) -> Derivative:
        """Values and derivatives of a functional, for member k of a committee."""
        with torch.no_grad():
            seen = self._electronic_environments(k, model, system, edges)
            ados = torch.cat([self._ados(model, environment) for environment in seen]).double()
        counts = system.n_atoms.tolist()
        values, slopes = [], []
        for part, numbers in zip(ados.split(counts), system.numbers.split(counts)):
            leaf = part.requires_grad_(True)
            value = functional(self._spectra(leaf, numbers))
            _check_value(value)
            slopes.append(torch.autograd.grad(value, leaf)[0])
            values.append(value.detach())
        slope = torch.cat(slopes)
        return Derivative(values, (slope * ados).sum(1), self._pull_back(slope, model, system, edges))

    def _ados(self, model, environment: Environment) -> Tensor:
        return model.heads["dos"](environment, None)

    def _pull_back(self, slope, model, system, edges):
        """Derivative [E, 3] by the vectors of edges of Σ slope [N, S] ados [N, S], eV/Å."""
        cutoff = model.descriptor_of("dos").cutoff

        def gradient(chunk):
            part, factors = chunk
            leaf = part.with_vec(part.vec.detach().requires_grad_(True))
            ados = self._ados(model, model.environment("dos", system, leaf)).double()
            return torch.autograd.grad((ados * factors).sum(), leaf.vec)[0]

        parts = [part for _, part in edges.up_to(cutoff).chunks(CHUNK)]
        factors = slope.split([part.n_centers for part in parts])
        found = list(map_chunks(gradient, zip(parts, factors), device=self.device))
        return self._of_all_edges(torch.cat(found), cutoff, edges)


def _check_value(value):
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        got = f"a Tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise CalculatorSetupError(
            f"functional: got {got}, need a Tensor without dimensions that depends on the spectra; make it by operations "
            "of torch on spectra.ados"
        )
