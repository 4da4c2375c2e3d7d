"""Warnings about structures unlike the training data, once of each kind, and counts of such structures."""

import copy
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError
from torch import Tensor

from ase_mlelec.calculators.chunked import Chunked
from ase_mlelec.calculators.present import PresentStructure
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.physics.free_energy import beyond_grid
from ase_mlelec.safety import OUTER, TrainingRange
from ase_mlelec.system import System
from ase_mlelec.threads import map_chunks

INSIDE = ("ase", "ase_mlelec", "contextlib", "torch")


def warn_caller(message: str) -> None:
    """Warn at the line of the user's program that called this package, directly or through ASE."""
    frame, level = sys._getframe(1), 2  # level 1 is this function
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


CHUNK = 512  # centers evaluated at a time: bounds memory and keeps the work in the processor's cache
NEIGHBORS, ATOMS, STRUCTURES = 1.25, 1.6, 1.4  # a warning is given above these measures of TrainingRange
FEW, FAR = 0.01, 1.5  # no warning for a smaller share of the atoms, unless a measure is FAR times the limit
MISSING = 2e-3  # eV/atom, of the free energy of states above those that a model knows; more is told
REMEDY = "the model extrapolates: check the run, or train on such structures"


class OnExtrapolation(StrEnum):
    """Reaction of a calculator to a structure unlike the training data of its model."""

    WARN = "warn"  # once of each kind
    RAISE = "raise"
    IGNORE = "ignore"


def as_choice(what: str) -> OnExtrapolation:
    """Return the member with a value, or raise CalculatorSetupError."""
    try:
        return OnExtrapolation(what)
    except ValueError:
        raise CalculatorSetupError(f"got on_extrapolation={what!r}; choose 'warn', 'raise' or 'ignore'") from None


class Extrapolation:
    """Comparison of structures with the training data of a model, which warns or raises where they differ.

    Parameters
    ----------
    model : Model
    what : OnExtrapolation

    Attributes
    ----------
    counts : dict of int
        Number of evaluations outside the training data, by kind ("distance", "density", "atoms", "structure", "electronic
        temperature").
    """

    def __init__(self, model: Model, *, what: OnExtrapolation = OnExtrapolation.WARN) -> None:
        self.what = what
        self.counts: dict[str, int] = {}
        self.symbols, self.closest = model.species, _closest(model)
        self.longest = 0.0 if self.closest is None else OUTER * float(self.closest.max())

    def __repr__(self) -> str:
        return f"Extrapolation(what={str(self.what)!r}, counts={self.counts})"

    def found(self, kind: str, message: str) -> None:
        """Count a structure outside the training data, and warn or raise.

        Raises
        ------
        CalculationFailed
            With "raise".
        """
        if self.what == OnExtrapolation.IGNORE:
            return
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.what == OnExtrapolation.RAISE:
            raise CalculationFailed(f"{message}: {REMEDY}")
        if self.counts[kind] == 1:
            warn_caller(f"{message}: {REMEDY} (told once; calc.extrapolations counts)")

    def check_distances(self, model: Model, system: System, edges: Edges) -> None:
        """Look for pairs of atoms that are closer than any pair of their species in the training data."""
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
        """Compare the environments of the centers of ``edges`` with the range of the training data.

        Returns
        -------
        Tensor [N]
            Measures of the atoms; zero for atoms that are no centers.
        """
        along, species = seen.along.whole, seen.species.whole
        counts = torch.bincount(edges.center, minlength=len(species))
        measured = self.compare(
            seen.known,  # type: ignore[arg-type]  # called where there is a range
            along,
            species,
            counts,
            system.batch[edges.atoms],
            n_systems=system.n_systems,
        )
        return measured.new_zeros(len(system.numbers)).index_copy(0, edges.atoms, measured)

    def compare(
        self, known: TrainingRange, along: Tensor, species: Tensor, counts: Tensor, batch: Tensor, *, n_systems: int = 1
    ) -> Tensor:
        """Return the measures [C] of centers; the arguments are as in TrainingRange."""
        surroundings, neighbors = known.atoms(along, species), known.neighbors(counts, species)
        if self.what != OnExtrapolation.IGNORE:
            self._tell(surroundings, neighbors, known.structures(along, species, batch, n_systems))
        return torch.maximum(surroundings, neighbors)

    def _tell(self, surroundings, neighbors, structures):
        if not len(neighbors):  # no centers, such as a molecule of hydrogen for a model of water
            return
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
    """Environments of a descriptor, collected chunk by chunk, as projections on the components of a TrainingRange.

    Parameters
    ----------
    known : TrainingRange or None
        With None, no environments are kept.
    n : int
        Environments of all chunks.
    """

    def __init__(self, known: TrainingRange | None, n: int) -> None:
        self.known = known
        self.along, self.species = Chunked(n), Chunked(n)

    def add(self, environment: Environment) -> None:
        if self.known is not None:
            self.along.add(self.known.project(environment.features.detach(), environment.species))
            self.species.add(environment.species)


def _closest(model):
    """Shortest distances in the training data, Tensor [species, species], Å, or None."""
    known, symbols = model.metadata.get("shortest_distances_A"), model.species
    if known is None:
        overall = model.metadata.get("shortest_distance_A")  # from models of former versions
        known = {} if overall is None else {f"{a}-{b}": overall for a in symbols for b in symbols}
    if not known:
        return None
    table = torch.zeros(len(symbols), len(symbols), dtype=torch.float64)
    for pair, distance in known.items():
        i, j = (symbols.index(symbol) for symbol in pair.split("-"))
        table[i, j] = table[j, i] = distance
    return table


class WatchesRange(PresentStructure):
    """Mix-in of calculators that compares structures with the training data of the first model."""

    models: list[Model]
    device: torch.device
    _beyond: Extrapolation

    @property
    def on_extrapolation(self) -> OnExtrapolation:
        """Reaction to structures unlike the training data: "warn", "raise" or "ignore", see OnExtrapolation."""
        return self._beyond.what

    @on_extrapolation.setter
    def on_extrapolation(self, what: OnExtrapolation | str) -> None:
        chosen = as_choice(what)
        self._beyond = copy.copy(self._beyond)  # a copy, so that ``set`` can restore the former one after an error
        self._beyond.what, self._beyond.counts = chosen, {}

    @property
    def extrapolations(self) -> dict[str, int]:
        """Number of evaluations outside the training data since the calculator was made, dict by kind."""
        return dict(self._beyond.counts)

    def get_extrapolation(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return how far the environment of every atom is from the training data of the first model.

        Returns
        -------
        array [N]
            1 at the edge of the training data, 0 in their middle; see ase_mlelec.safety.TrainingRange, and get_leverage
            for another measure.

        Raises
        ------
        CalculatorSetupError
            For models without a TrainingRange.
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
        """Quantity whose descriptor measures the distance from the training data."""
        heads = [*self.models[0].heads]
        return "energy" if self.potential is None and "energy" in heads else [*self.needs, *heads][0]

    def _measured(self):
        """Measures [N] of the present structures, dict by quantity."""
        return self._extra.setdefault("measured", {})

    def _measure_range(self):
        """Evaluate the measures for ``get_extrapolation``."""
        model, (system, edges) = self.models[0], self._geometry()
        reach = self._reach(model, edges)
        self._due = True
        with torch.no_grad():
            environments = self._environments_by(model, self._watched, system, reach)
            self._look_at(self._watched, model, environments, system, reach)

    def _environments_by(self, model, quantity, system, edges):
        """Iterate over environments of the centers of ``edges`` for a quantity, without gradients, chunk by chunk."""

        @torch.no_grad()
        def environment(chunk):
            found = model.environment(quantity, system, chunk[1])
            return found.keeping() if quantity in model.posteriors else found

        return map_chunks(environment, edges.chunks(CHUNK), device=self.device)

    def _check_reach(self, energies, dos, fermi_level, n_atoms=None):
        """Tell where the electronic temperature fills states above those of the model.

        The density of states [S], states/eV, of ``n_atoms`` (default: of the present ones) on ``energies`` [S], eV.
        """
        if self._beyond.what == OnExtrapolation.IGNORE:
            return
        temperature, n_atoms = self.electronic_temperature, n_atoms or len(self.atoms)
        end = min(float(energies[-1]), float(self.metadata.get("bands_complete_below_eV", np.inf)))
        missing = float(beyond_grid(energies, dos, fermi_level, temperature, end)) / n_atoms
        if missing > MISSING:
            self._beyond.found(
                "electronic temperature",
                f"the density of states ends {end - fermi_level:.1f} eV above the Fermi level; at {temperature:g} K about "
                f"{missing:.2g} eV/atom of the free energy are missing",
            )

    def _seen(self, quantity, model, edges):
        """A Seen for the descriptor of a quantity; it collects for the first model alone, when a comparison is due."""
        first = model.ranges is self.models[0].ranges  # at other temperatures it is a copy with the same parts
        return Seen(model.range_of(quantity) if self._due and first else None, edges.n_centers)

    def _check_range(self, quantity, seen, system, edges):
        """Compare the collected environments of the centers of ``edges`` with the training data."""
        if seen.known is not None:
            near = edges.up_to(self.models[0].descriptor_of(quantity).cutoff)  # other heads may look farther
            self._measured()[quantity] = self._beyond.check_range(seen, system, near)

    def _look_at(self, quantity, model, environments, system, edges):
        """As ``_check_range``, for a list of environments."""
        seen = self._seen(quantity, model, edges)
        for environment in environments:
            seen.add(environment)
        self._check_range(quantity, seen, system, edges)


class NeighborLimits:
    """Check of the numbers of neighbors against ``most_neighbors`` {symbol: number} in the metadata of models.

    Parameters
    ----------
    models : sequence of Model
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.limited = [model for model in models if isinstance(model.metadata.get("most_neighbors"), dict)]

    def check(self, system: System, edges: Edges, *, on_excess: OnExtrapolation) -> None:
        """Warn, once for each model, where a center has more neighbors of a species than the limit of the model.

        Raises
        ------
        CalculationFailed
            With "raise".
        """
        if on_excess == OnExtrapolation.IGNORE:
            return
        for model in list(self.limited):
            message = excess(model, system, edges.up_to(model.descriptor.cutoff))
            if message and on_excess == OnExtrapolation.RAISE:
                raise CalculationFailed(message)
            if message:
                self.limited.remove(model)  # one warning per model
                warn_caller(message)


def excess(model: Model, system: System, edges: Edges) -> str | None:
    """Describe the center and species that exceed the limit most; None where no center exceeds it."""
    limits = [model.metadata["most_neighbors"].get(symbol) for symbol in model.species]
    if not all(isinstance(limit, int) for limit in limits) or not len(edges.center):
        return None
    on_host, n = edges.center.device.type == "cpu", edges.n_centers
    if on_host and np.diff(np.searchsorted(edges.center.numpy(), np.arange(n + 1))).max() <= min(limits):
        return None  # of all species together
    group = edges.center * len(limits) + model.species_index(system.numbers).index_select(0, edges.neighbor)
    size = n * len(limits)
    # NumPy's is several times faster
    count = (
        torch.from_numpy(np.bincount(group.numpy(), minlength=size))
        if on_host
        else torch.bincount(group, minlength=size)
    )
    found = count.reshape(n, len(limits)).amax(dim=0).tolist()
    most = [(n, limit, symbol) for n, limit, symbol in zip(found, limits, model.species) if n > limit]
    if not most:
        return None
    n, limit, symbol = max(most, key=lambda each: each[0] / max(each[1], 1))
    return (
        f"an atom has {n} neighbors of {symbol} within {model.descriptor.cutoff:g} Å, the program that the model was "
        f"trained with ({model.metadata.get('origin', 'unknown')}) keeps the nearest {limit} at most (its sel) and drops "
        "the others: it gives other results here, and the model was not trained for this; train with a larger sel"
    )
