"""Checks of the models of an MLDFTCalculator."""

from collections.abc import Sequence

import torch
from ase.calculators.calculator import CalculatorSetupError

from ase_mlelec.model import Model


def check_ldos_models(models: Sequence[Model]) -> None:
    """Raise CalculatorSetupError for metadata that lack an input of the total energy, and for unequal committees."""
    first = models[0]
    for key in ("valence_electrons", "grid_spacing_A", "xc"):
        if key not in first.metadata:
            raise CalculatorSetupError(
                f"the model's header has no '{key}', without which there is no total "
                "energy; train with it in the attributes of the data"
            )
    missing = [symbol for symbol in first.species if symbol not in first.metadata["valence_electrons"]]
    if missing:
        raise CalculatorSetupError(
            f"the model's header has no valence charge of {missing[0]}; add it to "
            "valence_electrons in the attributes of the data"
        )
    for member in models[1:]:
        different = [
            key
            for key in ("valence_electrons", "grid_spacing_A", "xc", "core_charges")
            if member.metadata.get(key) != first.metadata.get(key)
        ]
        if member.descriptor.arguments() != first.descriptor.arguments():
            different = ["fingerprints"]
        if not torch.equal(member.heads["ldos"].energies, first.heads["ldos"].energies):
            different = ["energy grids"]
        if member.heads["ldos"].zero != first.heads["ldos"].zero:
            different = ["zeros of energy"]
        if different:
            raise CalculatorSetupError(
                f"the models of a committee have different {different[0]}; train them on one kind of data"
            )
