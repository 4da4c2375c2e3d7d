"""What ASE reads when it looks for calculators: names alone, so that it is quick, and no error whatever its version."""

import mlelec_magnetic

try:
    from ase._4.plugins.plugin import CalculatorPlugin

    __ase_plugins__ = {
        CalculatorPlugin(
            name="MagneticCalculator",
            citation="an example",
            module=mlelec_magnetic,
            implementation="mlelec_magnetic.calculator.MagneticCalculator",
        )
    }
except (ImportError, TypeError):
    __ase_plugins__ = set()
