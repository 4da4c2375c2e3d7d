"""Evaluation of the models of a calculator, chunk by chunk; results are kept until the structure changes."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.outputs import all_outputs
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.calculators.chunked import Chunked
from ase_mlelec.calculators.extrapolation import CHUNK, WatchesRange
from ase_mlelec.calculators.potential import POTENTIAL_PROPERTIES, potential_results, volume_of, with_long_range
from ase_mlelec.deprecated import formerly_positional
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

KEPT = 2**23  # numbers; larger environments of the energy are not kept for its standard deviation but evaluated again
WATCH_EVERY = 10  # evaluations between two comparisons with the range of the training data


class EvaluatesModels(WatchesRange):
    """Mix-in of calculators that evaluates atomic energies with gradients, and electronic quantities, of all models."""

    evaluates_together = True  # several structures; otherwise one uses the processor well alone
    potential: Any  # ASE calculator, or None
    _keeps_graphs: bool
    _keeps_features: bool

    def evaluate(self, model: Model, system: System, environment: Environment) -> dict[str, Tensor]:
        """Return the electronic quantities [C, ...] of one model by name; subclasses write this method.

        Parameters
        ----------
        model : Model
            A member of the committee.
        system : System
            All atoms.
        environment : Environment
            Environment of the C centers of one chunk.
        """
        return {}

    @formerly_positional("properties")
    def each_of(
        self, images: Sequence[Atoms], *, properties: Sequence[str] = tuple(POTENTIAL_PROPERTIES)
    ) -> Iterator[Atoms]:
        """Evaluate structures together, then make each the present structure in turn.

        It is faster for small structures, which use the processor well only together. Quantities of a whole structure,
        such as the Fermi level, are computed on demand.

        Parameters
        ----------
        images : sequence of ase.Atoms
        properties : sequence of str
            Names of the results that will be asked for; with names other than energy, forces and stress, electronic
            quantities are evaluated too.

        Returns
        -------
        iterator over ``images``
        """
        if not self.evaluates_together:
            for image in images:
                self._present(image)
                yield image
            return
        asked = [name in POTENTIAL_PROPERTIES for name in properties]
        with self._one_call():
            edges, members, values = self._evaluate_together(images, asked)
        partner = self.potential.each_of(images) if any(asked) and hasattr(self.potential, "each_of") else images
        measured = self._measured()
        ends = np.cumsum([0, *map(len, images)])
        bounds = torch.searchsorted(edges.center, torch.as_tensor(ends, device=self.device)).tolist()
        for k, (image, _) in enumerate(zip(images, partner)):
            atoms, rows = slice(ends[k], ends[k + 1]), slice(bounds[k], bounds[k + 1])
            with self._one_call():
                self.reset()  # type: ignore[attr-defined]  # ase's
                self._present(image)
                self._measured().update({name: values[atoms] for name, values in measured.items()})
                if members:
                    own = [
                        (energy[atoms], gradient[rows], terms and terms.part(atoms, k))
                        for energy, gradient, terms in members
                    ]
                    self._store_potential(own, edges.part(atoms, rows))
                self._store({name: [member[atoms] for member in columns] for name, columns in values.items()})
            yield image

    def _evaluate_together(self, images, asked):
        """Evaluate all structures as one.

        Returns (Edges, atomic energies and gradients by member, electronic quantities by name and member).
        """
        own = self.potential is None and "energy" in self.implemented_properties
        system = System.from_atoms(images, torch.float64, self.device)
        self.models[0].check_species(system.numbers)
        edges = Edges.build(system, self._cache.cutoff)
        self._check_pairs(system, edges)
        self.reset()
        self._due = True
        members = [
            self._member_potential(k, model, system, edges) for k, model in enumerate(self.models) if own and any(asked)
        ]
        return edges, members, {} if all(asked) else self._member_electronic(system, edges)

    def _geometry(self):
        """Checked (System, Edges) of the present atoms, in float64 for models of any precision."""
        if "geometry" not in self._extra:
            system = System.from_atoms(self.atoms, torch.float64, self.device)
            self.models[0].check_species(self.atoms.numbers)
            edges = self._cache.edges(system)
            # successive steps are similar: compare with the training range after a new neighbor list, and now and then
            self._steps, built = self._steps + 1, self._cache.n_builds
            self._due = built != self._listed or self._steps % WATCH_EVERY == 0
            self._listed = built
            self._check_pairs(system, edges)
            self._extra["geometry"] = system, edges
        return self._extra["geometry"]

    def _check_pairs(self, system, edges):
        self._beyond.check_distances(self.models[0], system, edges)
        self._limits.check(system, edges, on_excess=self.on_extrapolation)

    def _evaluate_potential(self, wanted):
        system, edges = self._geometry()
        self._store_potential(
            [self._member_potential(k, model, system, edges) for k, model in enumerate(self.models)], edges
        )

    def _store_potential(self, members, edges):
        """Store ASE's results of the present atoms from atomic energies, dE/dvec and long range of every member."""
        volume = volume_of(self.atoms)
        results = [
            with_long_range(potential_results(energies, gradient, edges, volume=volume), terms, volume=volume)
            for energies, gradient, terms in members
        ]
        shared = [name for name in results[0] if all(name in result for result in results)]
        self._store({name: [result[name] for result in results] for name in shared})

    def _member_potential(self, k, model, system, edges):
        """Atomic energies [N] and dE/dvec [E, 3] without the long range, and the Terms of that, or None.

        They are computed chunk by chunk; the environments are kept for electronic quantities.
        """
        keeps, seen = self._keeps_graphs and self._keeps_energy(model, edges), self._seen("energy", model, edges)
        kept = self._keeps_features and self._keeps_energy(model, edges)
        needs_features, is_direct = kept or seen.known is not None or _is_shared(model), model.has_linear_energy
        reach = edges if is_direct else edges.up_to(model.descriptor.cutoff)
        energies, gradient = Chunked(reach.n_centers), Chunked(len(reach.center), planes=True)
        environments, graphs = [], []
        evaluated = functools.partial(energies_of, model, system, needs_features, keeps)
        for environment, energy, slope, graph in map_chunks(evaluated, reach.chunks(CHUNK), device=self.device):
            gradient.add(slope)
            energies.add(energy)
            if environment is None:
                continue
            graphs += [graph] if keeps else []
            seen.add(environment)
            if (len(model.heads) > 1 and model.electronic is None) or self._keeps_energy(model, edges):
                environments.append(environment)
        if environments and len(model.heads) > 1 and model.electronic is None:  # kept for the other heads
            self._environments[k] = [environment.to(self.dtype) for environment in environments]
        if environments and self._keeps_energy(model, edges):
            self._extra["energy_environments"] = environments
        if graphs:
            self._extra["graphs"] = reach, graphs
        self._check_range("energy", seen, system, reach)
        by_vectors = gradient.whole
        if not is_direct:
            by_vectors = self._of_all_edges(by_vectors, model.descriptor.cutoff, edges)
        terms = model.long_range and model.long_range.terms(model, system, edges)
        return energies.whole, by_vectors, terms

    def _keeps_energy(self, model, edges):
        """Whether environments of the energy are kept for its standard deviation, which needs them again."""
        alone = len(self.models) == 1 and "energy" in model.posteriors
        return alone and model.descriptor.n_features * edges.n_centers <= KEPT

    def _reach(self, model, edges):
        """The edges within the cutoff of a model; the members of a committee may have different cutoffs."""
        return edges if model.reach >= self._cache.cutoff else edges.closer_than(model.reach)

    def _of_all_edges(self, gradient, cutoff, edges):
        """A gradient [E, 3] by the vectors of all edges, from that by the edges within a cutoff."""
        if cutoff >= self._cache.cutoff:
            return gradient
        near = (edges.distances < cutoff).nonzero()[:, 0]
        return torch.zeros_like(edges.vec).index_put((near,), gradient)

    def _evaluate_electronic(self):
        """Store what ``evaluate`` returns, as NumPy arrays averaged over the committee."""
        self._store(self._member_electronic(*self._geometry()))

    def _member_electronic(self, system, edges):
        """Results of ``evaluate`` by name and member, dict of list of array [N, ...]."""
        values = {}
        with torch.no_grad():
            for k, model in enumerate(self.models):
                seen = self._electronic_environments(k, model, system, edges)
                evaluated = torch.no_grad()(functools.partial(self.evaluate, model, system))
                parts = map_chunks(evaluated, seen, device=self.device)
                for name, value in _joined(parts, edges.n_centers, self.device).items():
                    values.setdefault(name, []).append(value)
        return values

    def _electronic_environments(self, k, model, system, edges):
        """Environments of member k for electronic quantities, chunk by chunk; evaluated once for a structure."""
        if k not in self._environments:
            reach = self._reach(model, edges)
            self._environments[k] = list(self._environments_by(model, self.needs[0], system, reach))
            self._look_at(self.needs[0], model, self._environments[k], system, reach)
        return self._environments[k]

    def _store(self, values):
        """Store means over members in ``results`` (ASE's names) or the private cache, and spreads in ``uncertainty``."""
        for name, members in values.items():
            mean = members[0] if len(members) == 1 else np.mean(members, axis=0)
            if not np.isfinite(mean).all():
                raise CalculationFailed(f"the model gave a {name} that is not finite; check structure and model")
            if len(members) > 1:
                self._uncertainty[name] = np.std(members, axis=0) * self._spread_scale(name)
            (self.results if name in all_outputs else self._extra)[name] = mean


def energies_of(
    model: Model, system: System, needs_features: bool, keeps: bool, chunk: tuple[Any, Edges]
) -> tuple[Environment | None, Tensor, Tensor, tuple | None]:
    """Energies of the centers of a chunk (rows, edges), without the long range.

    Returns (environments or None, atomic energies [C], dE/dvec [E, 3], what bars of forces need or None: edges,
    environments, and derivatives of the directions for a linear energy, without which both have their graph).
    """
    _, edges = chunk
    linear = None if needs_features or keeps else model.linear_energy(system, edges)
    if linear is not None:
        return None, *linear, None
    if model.has_linear_energy:
        found = model.linear_energy_with_environment(system, edges, directions=keeps)
        return *found[:3], (edges, *found[::3]) if keeps else None
    leaf = edges.with_vec(edges.vec.detach().requires_grad_(True))
    environment = model.environment("energy", system, leaf)
    environment = environment.keeping() if "energy" in model.posteriors else environment
    direct = None if keeps else model.energy_by_features(environment, edges)
    if direct is not None:
        energies, by_features = direct
        (gradient,) = torch.autograd.grad(environment.features, leaf.vec, by_features)
        return environment.detached(), energies, gradient, None
    energy: Any = model.evaluate_head("energy", environment, system, leaf)
    (gradient,) = torch.autograd.grad(energy.sum(), leaf.vec, retain_graph=keeps)
    return environment.detached(), energy.detach(), gradient, (leaf, environment) if keeps else None


def _joined(parts, n, device):
    """Arrays [n, ...] in float64 by name, from dicts of Tensor [C, ...] of one chunk after the other."""
    found: dict[str, NDArray] = {}
    start = 0
    if device.type != "cpu":  # one wait for all
        every = list(parts)
        parts = [{name: torch.cat([part[name] for part in every]) for name in every[0]}]
    for part in parts:
        end = start
        for name, value in part.items():
            end = start + len(value)
            if end - start == n and value.device.type == "cpu" and value.dtype == torch.float64:
                found[name] = value.numpy()  # all of it
            else:
                found.setdefault(name, np.empty((n, *value.shape[1:])))[start:end] = value.cpu().numpy()
        start = end
    return found


def _is_shared(model):
    """Whether other heads than that of the energy have the same descriptor."""
    return any(name != "energy" and model.descriptor_of(name) is model.descriptor for name in model.heads)
