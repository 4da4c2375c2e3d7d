"""Structures unlike the training data: what is told, once per kind and run, and how often it was found."""

import copy
from enum import StrEnum

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError
from torch import Tensor

from ase_mlelec.calculators.present import PresentStructure
from ase_mlelec.calculators.warn import warn_caller
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.safety import OUTER, TrainingRange
from ase_mlelec.system import System

CHUNK = 256  # centers at a time
NEIGHBORS, ATOMS, STRUCTURES = 1.25, 1.6, 1.4  # measures of TrainingRange, from which on is warned
FEW, FAR = 0.01, 1.5  # of the atoms: less are the extremes of any run, unless they are so many times beyond
REMEDY = "the model extrapolates: check the run, or train on such structures"


class OnExtrapolation(StrEnum):
    """What a calculator does where a structure is unlike the training data of its model."""

    WARN = "warn"  # once of each kind
    RAISE = "raise"
    IGNORE = "ignore"


def as_choice(what: str) -> OnExtrapolation:
    """Return the member of that value, or raise CalculatorSetupError."""
    try:
        return OnExtrapolation(what)
    except ValueError:
        raise CalculatorSetupError(f"got on_extrapolation={what!r}; choose 'warn', 'raise' or 'ignore'") from None


class Extrapolation:
    """Warns, or raises, where a structure is unlike the training data of a model.

    Parameters
    ----------
    model : Model
    what : OnExtrapolation

    Attributes
    ----------
    counts : dict of int
        By kind ("distance", "density", "atoms", "structure"): evaluations in which it was found.
    """

    def __init__(self, model: Model, *, what: OnExtrapolation = OnExtrapolation.WARN):
        self.what = what
        self.counts: dict[str, int] = {}
        self.symbols, self.closest = model.species, _closest(model)
        self.longest = 0.0 if self.closest is None else OUTER * float(self.closest.max())

    def __repr__(self) -> str:
        return f"Extrapolation(what={str(self.what)!r}, counts={self.counts})"

    def found(self, kind: str, message: str) -> None:
        """Count that something is beyond the training data, and tell it.

        Raises
        ------
        CalculationFailed
            If that was asked for.
        """
        if self.what == OnExtrapolation.IGNORE:
            return
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.what == OnExtrapolation.RAISE:
            raise CalculationFailed(f"{message}: {REMEDY}")
        if self.counts[kind] == 1:
            warn_caller(f"{message}: {REMEDY} (told once; calc.extrapolations counts)")

    def check_distances(self, model: Model, system: System, edges: Edges) -> None:
        """Look for atoms that are closer than any two of their species in the training data."""
        if self.what == OnExtrapolation.IGNORE or self.closest is None or edges.shortest > self.longest:
            return
        with torch.no_grad():
            distances = edges.distances
            rows = (distances < self.longest).nonzero()[:, 0]
            if not len(rows):
                return
            first, second = (
                model.species_index(system.numbers[atoms])
                for atoms in (edges.atoms[edges.center[rows]], edges.neighbor[rows])
            )
            ratio = distances[rows] / self.closest.to(distances)[first, second].clamp(min=1e-9)
            worst = int(ratio.argmin())
            if float(ratio[worst]) < OUTER:
                pair = "-".join(sorted(self.symbols[int(k)] for k in (first[worst], second[worst])))
                self.found(
                    "distance",
                    f"atoms are {float(distances[rows[worst]]):.2f} Å apart, the closest in the "
                    f"training data are {float(self.closest[first[worst], second[worst]]):.2f} Å ({pair})",
                )

    def check_range(self, seen: "Seen", system: System, edges: Edges) -> Tensor:
        """Compare with the range of the training what was seen of the centers of ``edges``.

        Returns
        -------
        Tensor [N]
            The measures of the atoms; zero for those that are no centers.
        """
        along, species = (torch.cat(parts) for parts in zip(*seen.parts))
        counts = torch.bincount(edges.center, minlength=len(species))
        measured = self.compare(
            seen.known, along, species, counts, system.batch[edges.atoms], n_systems=system.n_systems
        )
        return measured.new_zeros(len(system.numbers)).index_copy(0, edges.atoms, measured)

    def compare(
        self, known: TrainingRange, along: Tensor, species: Tensor, counts: Tensor, batch: Tensor, *, n_systems: int = 1
    ) -> Tensor:
        """Return the measures [C] of centers; arguments as in TrainingRange."""
        surroundings, neighbors = known.atoms(along, species), known.neighbors(counts, species)
        if self.what != OnExtrapolation.IGNORE:
            self._tell(surroundings, neighbors, known.structures(along, species, batch, n_systems))
        return torch.maximum(surroundings, neighbors)

    def _tell(self, surroundings, neighbors, structures):
        whole, n = float(structures.max()), len(neighbors)
        if whole > STRUCTURES:
            self.found("structure", _message("a structure as a whole is", whole))
        for kind, measures, limit, what in (
            ("density", neighbors, NEIGHBORS, "numbers of neighbors"),
            ("atoms", surroundings, ATOMS, "surroundings"),
        ):
            highest = float(measures.max())
            if highest > limit:
                many = int((measures > limit).sum())
                if many > FEW * n or highest > FAR * limit:
                    self.found(kind, _message(f"{what}, of {many} of {n} atoms, are", highest))


def _message(what, measure):
    return f"{what} unlike the training data ({measure:.3g}, where 1 is their edge)"


class Seen:
    """Environments of a descriptor, chunk by chunk, as the range of the training sees them.

    Parameters
    ----------
    known : TrainingRange or None
        None: nothing is kept.
    """

    def __init__(self, known):
        self.known, self.parts = known, []

    def add(self, environment):
        if self.known is not None:
            self.parts.append(
                (self.known.project(environment.features.detach(), environment.species), environment.species)
            )


def _closest(model):
    """Tensor [species, species], Å, or None: the shortest distances in the training data."""
    known, symbols = model.metadata.get("shortest_distances_A"), model.species
    if known is None:
        overall = model.metadata.get("shortest_distance_A")  # of models of former versions
        known = {} if overall is None else {f"{a}-{b}": overall for a in symbols for b in symbols}
    if not known:
        return None
    table = torch.zeros(len(symbols), len(symbols), dtype=torch.float64)
    for pair, distance in known.items():
        i, j = (symbols.index(symbol) for symbol in pair.split("-"))
        table[i, j] = table[j, i] = distance
    return table


class WatchesRange(PresentStructure):
    """Mix-in of calculators: comparing structures with the training data of the (first) model."""

    models: list[Model]
    _beyond: Extrapolation

    @property
    def on_extrapolation(self) -> OnExtrapolation:
        """What happens where a model extrapolates: "warn", "raise" or "ignore\"."""
        return self._beyond.what

    @on_extrapolation.setter
    def on_extrapolation(self, what: str):
        chosen = as_choice(what)
        self._beyond = copy.copy(self._beyond)  # ``set`` must be able to go back
        self._beyond.what, self._beyond.counts = chosen, {}

    @property
    def extrapolations(self) -> dict[str, int]:
        """dict of int: evaluations that were beyond the training data since the calculator was made, by kind."""
        return dict(self._beyond.counts)

    def get_extrapolation(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return how far the surroundings of every atom are from the training data of the (first) model.

        Returns
        -------
        array [N]
            1 is the edge of the training data, 0 their middle; see ase_mlelec.safety.TrainingRange.

        Raises
        ------
        CalculatorSetupError
            For models without these ranges.
        """
        self._present(atoms)
        if self.models[0].range_of(self._watched) is None:
            raise CalculatorSetupError(
                "the model's file has no ranges of its training data; give it some with 'mlelec protect'"
            )
        if self._watched not in self._measured():
            self._measure_range()
        return self._measured()[self._watched].double().cpu().numpy()

    @property
    def _watched(self):
        """The quantity whose descriptor says how far a structure is from the training data."""
        heads = [*self.models[0].heads]
        return "energy" if self.potential is None and "energy" in heads else [*self.needs, *heads][0]

    def _measured(self):
        """dict of Tensor [N] by quantity, of the structures being evaluated."""
        return self._extra.setdefault("measured", {})

    def _measure_range(self):
        """Evaluate what ``get_extrapolation`` needs."""
        model, (system, edges) = self.models[0], self._geometry()
        descriptor, reach = model.descriptor_of(self._watched), self._reach(model, edges)
        self._due = True
        with torch.no_grad():
            self._look_at(
                self._watched, model, [descriptor(system, part) for _, part in reach.chunks(CHUNK)], system, reach
            )

    def _seen(self, quantity, model):
        """Collects the environments of a quantity's descriptor, those of the first model, and when it is time."""
        return Seen(model.range_of(quantity) if self._due and model is self.models[0] else None)

    def _check_range(self, quantity, seen, system, edges):
        """Compare what was seen of all centers of ``edges`` with the training."""
        if seen.parts:
            self._measured()[quantity] = self._beyond.check_range(seen, system, edges)

    def _look_at(self, quantity, model, environments, system, edges):
        """As ``_check_range``, of environments that are kept."""
        seen = self._seen(quantity, model)
        for environment in environments:
            seen.add(environment)
        self._check_range(quantity, seen, system, edges)
