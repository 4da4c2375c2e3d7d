"""Machine-learned electronic structure behind ASE's calculator interface.

Public names are loaded when they are first used, so that importing the package, which plugin discovery and
``mlelec --help`` do, costs no import of torch.
"""

from importlib import import_module

from ase_mlelec import former_names

__version__ = "0.1.0"

_PUBLIC = {
    "DeepPotCalculator": "ase_mlelec.calculators.deep_pot",
    "DeepDOSCalculator": "ase_mlelec.calculators.deep_dos",
    "MLDFTCalculator": "ase_mlelec.calculators.ml_dft",
    "WannierTBCalculator": "ase_mlelec.calculators.wannier_tb",
    "DeepWannierCalculator": "ase_mlelec.calculators.deep_wannier",
    "CombinedCalculator": "ase_mlelec.calculators.combined",
    "WannierHamiltonian": "ase_mlelec.bands.wannier_hamiltonian",
    "load_model": "ase_mlelec.bundle",
    "list_models": "ase_mlelec.shipped",
    "evaluate": "ase_mlelec.analysis.trajectory",
    "ElectronicRecorder": "ase_mlelec.analysis.trajectory",
}

__all__ = [*_PUBLIC, "__version__"]

former_names.register()


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ase_mlelec' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)  # found directly from now on
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC})
