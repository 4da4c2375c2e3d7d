"""DeepPotCalculator: Deep Potential energy, forces and stress."""

from ase_mlelec.calculators.base import MLElecCalculator


class DeepPotCalculator(MLElecCalculator):
    """Energy, forces, stress and their parts by atom, from a model with an energy head.

    Parameters: see MLElecCalculator.

    Source: Zhang et al. 2018 (DeepPot-SE); Rottenberg 2023, Eqs. (2.7)-(2.8).
    """

    needs = ("energy",)

    def get_descriptors(self, atoms=None):
        """Features [N, F] of every atom (of the first model of a committee); a read-only array."""
        self._present(atoms)
        if "descriptors" not in self._extra:
            self._evaluate_electronic()
            self._extra["descriptors"].setflags(write=False)
        return self._extra["descriptors"]

    def evaluate(self, model, system, environment):
        # members may have features of different length: only the first one's are kept
        return {"descriptors": environment.features} if model is self.models[0] else {}
