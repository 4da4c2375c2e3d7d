"""The ``ase.plugins`` entry point: names and strings only.

ASE loads the plugin modules of all packages together, and one that raises disables those of every other package too.
``ase._4`` moreover announces that it may change without notice. A version of ASE without it, or with another
CalculatorPlugin, therefore finds no plugins here instead of an error; the calculators work all the same.
"""

import ase_mlelec

PAPERS = {
    "DeepPotCalculator": "Zhang et al., Advances in Neural Information Processing Systems 31 (2018)",
    "DeepWannierCalculator": "Zhang et al., Phys. Rev. B 102, 041121 (2020)",
    "DeepDOSCalculator": "Zeng et al., Phys. Rev. B 105, 174109 (2022)",
    "WannierTBCalculator": "Qi et al., arXiv:2403.13675 (2024)",
    "MLDFTCalculator": "Ellis et al., Phys. Rev. B 104, 035120 (2021)",
}

try:
    from ase._4.plugins.plugin import CalculatorPlugin

    # `module` names the package whose version ASE shows; the default, this module, belongs to no such distribution
    __ase_plugins__ = {
        CalculatorPlugin(name=name, citation=paper, module=ase_mlelec, implementation=f"ase_mlelec.{name}")
        for name, paper in PAPERS.items()
    }
except (ImportError, TypeError):
    __ase_plugins__ = set()
