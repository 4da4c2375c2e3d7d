"""Machine-learned electronic structure behind ASE's calculator interface.

Public names are loaded on first use. Plugin discovery and ``mlelec --help`` can therefore import the package without
importing torch.
"""

from importlib import import_module

from ase_mlelec import former_names

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
    "ElectronicRecorder": "ase_mlelec.analysis.recorder",
}

__all__ = [*_PUBLIC, "__version__"]

former_names.register()


def __getattr__(name):
    if name == "__version__":
        value = globals()[name] = _version()
        return value
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ase_mlelec' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)  # found directly from now on
    return value


def _version():
    """Version of the installed package, which is made from the tags of the repository."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that no import should cost

    try:
        return version("ase-mlelec")
    except PackageNotFoundError:  # run from a checkout
        return "0+unknown"


def __dir__():
    return sorted({*globals(), *__all__})
