"""Calculator of energy, forces and stress."""

import numpy as np
from ase import Atoms
from torch import Tensor

from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.descriptors.base import Environment
from ase_mlelec.model import Model
from ase_mlelec.system import System


class DeepPotCalculator(MLElecCalculator):
    """Calculator of energy, forces, stress, atomic energies and atomic stresses, from a model with an energy head.

    Parameters: see MLElecCalculator.

    References
    ----------
    Zhang et al. 2018 (DeepPot-SE); Rottenberg 2023, Eqs. (2.7)-(2.8).
    """

    needs = ("energy",)

    def get_descriptors(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the features of every atom from the first model of a committee, read-only.

        Returns
        -------
        array [N, F]
        """
        self._present(atoms)
        if "descriptors" not in self._extra:
            self._evaluate_electronic()
            self._extra["descriptors"].setflags(write=False)
        return self._extra["descriptors"]

    def _evaluate_shared(self):
        """Members share the neighbor list alone."""

    def evaluate(self, model: Model, system: System, environment: Environment) -> dict[str, Tensor]:
        """Return the features from the first model; features from other members may have another length."""
        if model is not self.models[0]:
            return {}
        features = environment.features
        whole = getattr(model.descriptor, "whole_features", None)  # of a copy with fewer features
        return {"descriptors": features if whole is None else whole(features)}


MLElecCalculator.potential_class = DeepPotCalculator  # set here, because the base class cannot import its subclasses
