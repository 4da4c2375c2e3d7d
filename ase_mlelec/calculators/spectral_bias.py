"""Energies that are functionals of the density of states, such as biases on an order parameter or on a gap."""

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, CalculatorSetupError, all_changes

from ase_mlelec.calculators.deep_dos import DeepDOSCalculator
from ase_mlelec.calculators.spectral_functional import Functional


class SpectralBias(Calculator):
    """Energy, forces and stress of a functional of the density of states; forces are its exact derivatives.

    ::

        def bias(spectra):                                  # eV, of a Spectra
            return 2.0 * (spectra.order_parameter((0, -5, -8)).mean() - 0.3) ** 2

        calc = DeepDOSCalculator("si")
        atoms.calc = SumCalculator([calc, SpectralBias(calc, bias)])    # ase.calculators.mixing

    A functional may be anything that torch differentiates: the functions of ase_mlelec.physics (dos, gap, fermi,
    free_energy) are, of tensors. It must have a continuous slope, or molecular dynamics will not conserve the energy:
    ``spectra.at(points)`` and ``spectra.order_parameter`` interpolate smoothly, other than ``physics.dos.order_parameter``.

    Parameters
    ----------
    calculator : DeepDOSCalculator
        Of one model; its density of states is used, whatever its energy is. It may be a part of the sum.
    functional : callable
        Function of a Spectra that returns a Tensor without dimensions, eV; for a collective variable any unit.

    Raises
    ------
    CalculatorSetupError
        For another calculator and for a committee.
    """

    implemented_properties: Sequence[str] = ("energy", "free_energy", "forces", "stress")  # type: ignore[assignment]

    def __init__(self, calculator: BaseCalculator, functional: Functional) -> None:
        super().__init__()
        if not isinstance(calculator, DeepDOSCalculator):
            raise CalculatorSetupError(f"got {type(calculator).__name__}, need a DeepDOSCalculator, which has spectra")
        if len(calculator.models) > 1:
            raise CalculatorSetupError("got a committee; bias one of its models: calc.members()[0]")
        self.calculator, self.functional = calculator, functional
        self._answered: Any = None  # functional and temperature of the results

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """As in ASE; results of another functional or of another electronic temperature are dropped."""
        if self._answered != self._asked():
            self.results = {}
        return super().check_state(atoms, tol)

    def _asked(self):
        return self.functional, self.calculator.electronic_temperature

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        self.results = self.calculator.evaluate_functional(self.functional, atoms=self.atoms)
        self._answered = self._asked()

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return the name of the functional and the parameters of the calculator."""
        name = getattr(self.functional, "__name__", type(self.functional).__name__)
        return {"functional": name, "calculator": self.calculator.todict()}
