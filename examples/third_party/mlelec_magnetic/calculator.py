"""MagneticCalculator: ASE's magnetic moments beside energy, forces and stress."""

import numpy as np
from torch import Tensor

from ase_mlelec.calculators.base import MLElecCalculator
from ase_mlelec.descriptors import Environment
from ase_mlelec.model import Model
from ase_mlelec.system import System


class MagneticCalculator(MLElecCalculator):
    """Magnetic moments of a model with a ``MomentHead``, with energy, forces and stress where the model has them.

    Parameters: see MLElecCalculator.
    """

    needs = ("magnetic_moment",)
    electronic = ("magmoms",)

    def evaluate(self, model: Model, system: System, environment: Environment) -> dict[str, Tensor]:
        """Return what is learned of every atom, by name; under a name of ASE it becomes a result, with its spread."""
        return {"magmoms": model.heads["magnetic_moment"](environment, None)}

    def electronic_results(self) -> dict[str, np.ndarray]:
        """Return ASE's results of the present structure."""
        if "magmoms" not in self.results:
            self._evaluate_electronic()
        return {"magmoms": self.results["magmoms"]}
