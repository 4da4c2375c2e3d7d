"""What every descriptor must obey."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import NDArray

from ase_mlelec.descriptors.base import Descriptor, Environment
from ase_mlelec.edges import Edges
from ase_mlelec.system import System
from ase_mlelec.testing.structures import (
    Contract,
    assert_close,
    assert_continuous,
    doubled,
    five_point,
    pair_at_cutoff,
    random_rotation,
    shifted_by_cells,
    turned,
)


class EnvironmentContract(Contract):
    """Tests of classes that make an Environment of every atom: symmetry, smoothness, precision, gradient, round trip.

    A subclass writes ``make_descriptor()`` -> module in float64, the same every time, with ``cutoff``, ``n_features``,
    ``species`` and ``arguments()`` as a Descriptor, and ``make_atoms()``. For classes that are no Descriptors because
    they need more than ``edges.vec``.

    Attributes
    ----------
    tolerance
        Of float64 sums in another order, relative to the largest feature.
    single
        Of float32.
    """

    tolerance = 1e-12
    single = 1e-5

    def environment(
        self, atoms: Atoms, descriptor: Any | None = None, dtype: torch.dtype = torch.float64
    ) -> Environment:
        """Environment of all atoms, without gradient."""
        descriptor = descriptor or self.make_descriptor()
        system = System.from_atoms(atoms, dtype)
        with torch.no_grad():
            return descriptor(system, Edges.build(system, descriptor.cutoff))

    def assert_same(
        self,
        found: Environment,
        wanted: Environment,
        rows: slice | Sequence[int] | NDArray = slice(None),
        tolerance: float | None = None,
    ) -> None:
        tolerance = tolerance or self.tolerance
        assert_close(found.features, wanted.features[rows], tolerance, "features")
        assert torch.equal(found.species, wanted.species[rows])
        if wanted.frame is not None:
            assert_close(found.frame, wanted.frame[rows], tolerance, "frame")  # type: ignore[arg-type]

    def test_shapes(self, descriptor: Any, atoms: Atoms) -> None:
        found = self.environment(atoms, descriptor)
        assert found.features.shape == (len(atoms), descriptor.n_features)
        assert [descriptor.species[k] for k in found.species] == atoms.get_chemical_symbols()
        assert found.frame is None or (found.frame.ndim == 3 and found.frame.shape[::2] == (len(atoms), 3))
        assert found.features.isfinite().all() and float(found.features.std()) > 0

    def test_translation(self, atoms: Atoms) -> None:
        wanted = self.environment(atoms)
        moved = atoms.copy()
        moved.positions += [1.234, -5.6, 0.789]
        for other in (moved, shifted_by_cells(atoms)):
            self.assert_same(self.environment(other), wanted)
            other.wrap()
            self.assert_same(self.environment(other), wanted)

    def test_rotation(self) -> None:
        atoms, rotation = self.make_atoms(), random_rotation()
        wanted, found = self.environment(atoms), self.environment(turned(atoms, rotation))
        assert_close(found.features, wanted.features, self.tolerance)
        if wanted.frame is not None:
            assert_close(found.frame, wanted.frame.numpy() @ rotation.T, self.tolerance)  # type: ignore[arg-type]

    def test_permutation(self, atoms: Atoms) -> None:
        order = np.random.default_rng(1).permutation(len(atoms))
        self.assert_same(self.environment(atoms[order]), self.environment(atoms), order)

    def test_supercell(self, atoms: Atoms) -> None:
        self.assert_same(self.environment(doubled(atoms)), self.environment(atoms), [*range(len(atoms))] * 2)

    def test_float32(self, descriptor: Any, atoms: Atoms) -> None:
        wanted = self.environment(atoms, descriptor)
        found = self.environment(atoms, descriptor.to(torch.float32), torch.float32)
        assert found.features.dtype == torch.float32
        self.assert_same(found, wanted, tolerance=self.single)

    def test_smooth_at_the_cutoff(self, descriptor: Any, atoms: Atoms) -> None:

        def features(d):
            found = self.environment(pair_at_cutoff(atoms, descriptor.cutoff, descriptor.cutoff + d), descriptor)
            return {"features": found.features.numpy()}

        assert_continuous(features, self.tolerance * np.abs(features(0)["features"]).max())

    def test_gradient_of_positions(self, descriptor: Any, atoms: Atoms) -> None:
        """dD/dr along a random move of the atoms and a random strain against a five-point difference."""
        weights = torch.randn(descriptor.n_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def scalar(system):
            return (descriptor(system, Edges.build(system, descriptor.cutoff)).features @ weights).sum()

        assert_slope(scalar, System.from_atoms(atoms))

    def test_arguments_rebuild_it(self, descriptor: Any, atoms: Atoms) -> None:
        """The constructor arguments survive JSON and give, with the arrays, the same descriptor bit by bit."""
        again = type(descriptor)(**json.loads(json.dumps(descriptor.arguments()))).to(torch.float64)
        again.load_state_dict(descriptor.state_dict())
        assert torch.equal(self.environment(atoms, again).features, self.environment(atoms, descriptor).features)


def assert_slope(scalar: Callable[[System], torch.Tensor], system: System) -> None:
    """The derivative of ``scalar`` (function of a System of one structure) along a random move of all atoms and a
    random strain, against a five-point difference."""
    generator = torch.Generator().manual_seed(0)
    move = torch.randn(system.positions.shape, generator=generator, dtype=torch.float64)
    strain = 0.1 * torch.randn(1, 3, 3, generator=generator, dtype=torch.float64)

    def moved(step):
        return replace(system, positions=system.positions + step * move).strained(step * strain)

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(scalar(moved(step)), step)
    assert_derivative(lambda t: scalar(moved(t)), slope, 1e-4)  # few pairs cross the cutoff


def assert_derivative(function: Callable[[float], torch.Tensor], slope: torch.Tensor, step: float) -> None:
    """``slope`` is that of a function at 0, by differences over ``step``.

    To 1e-7: fourth-order differences over 0.001 Å, rounding 1e-16/1e-3 and kinks in w''' at the cutoff.
    """
    with torch.no_grad():
        numeric = five_point(lambda t: float(function(t)), step)
    assert numeric == pytest.approx(float(slope), rel=1e-7)


class DescriptorContract(EnvironmentContract):
    """What an EnvironmentContract has, of any structures and batches of them, with derivatives by all atoms that are
    exact through ``edges.vec`` alone.

    A subclass writes ``make_descriptor()`` -> Descriptor in float64, the same every time, and ``make_atoms()``.

    Attributes
    ----------
    tolerance
        Of float64 sums in another order, relative to the largest feature.
    single
        Of float32.
    """

    def make_others(self) -> Atoms:
        """Another structure, of other atoms."""
        other = self.make_atoms()[:-1]
        other.rattle(0.1, seed=0)
        return other

    def test_batch_equals_singles(self) -> None:
        atoms, other = self.make_atoms(), self.make_others()
        descriptor = self.make_descriptor()
        system = System.from_atoms([atoms, other])
        with torch.no_grad():
            together = descriptor(system, Edges.build(system, descriptor.cutoff))
        for part, rows in (atoms, slice(None, len(atoms))), (other, slice(len(atoms), None)):
            self.assert_same(self.environment(part, descriptor), together, rows)

    def test_gradient(self, descriptor: Descriptor, atoms: Atoms) -> None:
        """dD/dvec along a random direction against a five-point difference."""
        system = System.from_atoms(atoms)
        edges = Edges.build(system, descriptor.cutoff)
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(edges.vec.shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(descriptor.n_features, generator=generator, dtype=torch.float64)

        def scalar(step, vec=edges.vec):
            return (descriptor(system, edges.with_vec(vec + step * direction)).features @ weights).sum()

        leaf = edges.vec.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(scalar(0.0, leaf), leaf)
        assert_derivative(scalar, (gradient * direction).sum(), 2e-4)  # short: few edges cross a cutoff

    def test_gradient_by_edges(self) -> None:
        """The gradient by positions comes through ``edges.vec`` alone."""
        descriptor, system = self.make_descriptor(), System.from_atoms(self.make_atoms())
        generator = torch.Generator().manual_seed(0)
        move = torch.randn(system.positions.shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(descriptor.n_features, generator=generator, dtype=torch.float64)

        def scalar(step):
            moved = replace(system, positions=system.positions + step * move)
            return (descriptor(moved, Edges.build(moved, descriptor.cutoff)).features @ weights).sum()

        edges = Edges.build(system, descriptor.cutoff)
        leaf = edges.vec.clone().requires_grad_(True)
        found = (descriptor(system, edges.with_vec(leaf)).features @ weights).sum()
        (gradient,) = torch.autograd.grad(found, leaf)
        assert_derivative(scalar, (gradient * (move[edges.neighbor] - move[edges.center])).sum(), 1e-4)

    def test_atom_without_neighbors(self) -> None:
        """It has finite features, or is refused in one line that says what structures are needed."""
        atoms = Atoms(self.make_atoms().symbols[:1], [[0, 0, 0]])
        try:
            features = self.environment(atoms).features
        except InputError as error:
            features, refusal = None, str(error)
        if features is None:
            assert "need" in refusal
            assert "\n" not in refusal
        else:
            assert features.isfinite().all()


class ForceDescriptorContract(DescriptorContract):
    """Further tests for a Descriptor whose energies are trained on forces: derivatives of its gradient."""

    def test_summed_gradients(self, descriptor: Descriptor, atoms: Atoms) -> None:
        """By the coordinates of two atoms and by two strains, against five-point differences."""
        system = System.from_atoms(atoms)
        edges = Edges.build(system, descriptor.cutoff)
        moves = {}
        for atom, axis in ((0, 1), (len(atoms) - 1, 2)):
            moved = (edges.neighbor == atom).double() - (edges.center == atom).double()
            moves[3 * atom + axis] = moved[:, None] * torch.eye(3, dtype=torch.float64)[axis]
        for a, b in ((0, 2), (1, 1)):
            moves[3 * len(atoms) + 3 * a + b] = edges.vec[:, a, None] * torch.eye(3, dtype=torch.float64)[b]

        def summed(move, step):
            environment = descriptor(system, edges.with_vec(edges.vec + step * move))
            return torch.stack(
                [environment.features[environment.species == k].sum(dim=0) for k in range(len(descriptor.species))]
            )

        found = descriptor.summed_gradients(system, edges)
        assert found.shape == (3 * len(atoms) + 9, len(descriptor.species), descriptor.n_features)
        with torch.no_grad():
            for place, move in moves.items():
                numeric = five_point(lambda step: summed(move, step))
                # as in test_gradient, for one feature of the size of the largest
                assert_close(found[place], numeric, 1e-7)
        without = descriptor.summed_gradients(system, edges, strain=False)
        assert_close(without, found[: 3 * len(atoms)], 1e-12)
