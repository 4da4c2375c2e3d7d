"""Neighbor limits of models from a program that keeps a fixed number of neighbors of each atom.

Where an atom has more neighbors, that program leaves some out, and its results differ from the results of this package.
"""

from collections.abc import Sequence

import torch
from ase.calculators.calculator import CalculationFailed

from ase_mlelec.calculators.extrapolation import OnExtrapolation
from ase_mlelec.calculators.warn import warn_caller
from ase_mlelec.descriptors.base import species_table
from ase_mlelec.edges import Edges
from ase_mlelec.model import Model
from ase_mlelec.system import System


class NeighborLimits:
    """Check of the numbers of neighbors against ``most_neighbors`` {symbol: number} in the metadata of models.

    Parameters
    ----------
    models : sequence of Model
    """

    def __init__(self, models: Sequence[Model]):
        self.reach = max(model.descriptor.cutoff for model in models)  # cutoff of the edges
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
            near = edges if model.descriptor.cutoff >= self.reach else edges.closer_than(model.descriptor.cutoff)
            message = excess(model, system, near)
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
    kinds = species_table(model.species).to(system.numbers.device)[system.numbers]
    group = edges.center * len(limits) + kinds.index_select(0, edges.neighbor)
    found = torch.bincount(group, minlength=edges.n_centers * len(limits)).reshape(-1, len(limits)).amax(dim=0).tolist()
    most = [(n, limit, symbol) for n, limit, symbol in zip(found, limits, model.species) if n > limit]
    if not most:
        return None
    n, limit, symbol = max(most, key=lambda each: each[0] / max(each[1], 1))
    return (
        f"an atom has {n} neighbors of {symbol} within {model.descriptor.cutoff:g} Å, the program that the model was "
        f"trained with ({model.metadata.get('origin', 'unknown')}) keeps the nearest {limit} (its sel) and drops the "
        "others: it gives other results here, and the model was not trained for this; train with a larger sel"
    )
