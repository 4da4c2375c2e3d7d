"""Former names of modules, which still work, such as ``import ase_mlelec.bilayers``."""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec

FORMER = {
    "bilayers": "structures",
    "wannier_hamiltonian": "bands.wannier_hamiltonian",
    "calculators.bands": "calculators.no_bands",
    "heads.hamiltonian.pair_geometry": "descriptors.layer_moments.geometry",
    "heads.hamiltonian.two_centre": "heads.hamiltonian.two_center",
    "io.atomic": "atomic_write",
    "io.checks": "checks",
    "io.electrons": "data.electrons",
    "descriptors.deep_potential": "descriptors.deep_pot",
    "descriptors.local_frame": "descriptors.layer_moments.former",
    "descriptors.power_spectrum": "descriptors.ace.former",
    "descriptors.su2": "descriptors.bispectrum.kernel",
    "descriptors.wigner": "descriptors.bispectrum.tables",
    "heads.tensor": "heads.vector",
    "io.ase_formats": "data.ase_formats",
    "io.data_set": "data.data_set",
    "io.elements": "io.text",
    "io.errors": "io.espresso.common",
    "io.filplot": "io.espresso.filplot",
    "io.fortran": "io.text",
    "io.frames_hdf5": "data.frames",
    "io.images": "data.images",
    "io.keys": "data.keys",
    "io.runs": "data.frames",
    "testing.numbers": "testing.structures",
    "io.frames": "data.frames",
    "io.snapshots": "data.snapshots",
    "io.wannier90.centres": "io.wannier90.centers",
    "physics.core": "physics.core_charge",
    "train.hamiltonian_closed_form": "train.hamiltonian.closed_form",
    "train.hamiltonian_data": "data.hamiltonians",
    "train.levels": "train.hamiltonian.eigenvalue_response",
}
SPLIT = {  # modules that became several modules
    "physics.interior": ("physics.shift_invert", "physics.kernel_polynomial"),
    "physics.tight_binding": ("physics.bloch", "physics.bands", "physics.levels"),
    "train.frames": ("data.frames", "data.data_set", "data.batches"),
    "train.ldos_forces": ("data.grid_points", "train.ldos.label_refit"),
}
PACKAGE = __package__ + "."


class _FormerNames:
    """Finder that maps a name in FORMER to the module with the present name; both names give the same module.

    It has no base classes, because the import of importlib.abc takes 10 ms.
    """

    def find_spec(self, name, path=None, target=None):
        known = name.startswith(PACKAGE) and name.removeprefix(PACKAGE) in FORMER | SPLIT
        return ModuleSpec(name, self) if known else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__.removeprefix(PACKAGE)
        for part in SPLIT.get(name, ()):
            vars(module).update(
                {key: value for key, value in vars(import_module(PACKAGE + part)).items() if not key.startswith("__")}
            )
        if name in FORMER:
            sys.modules[module.__name__] = import_module(PACKAGE + FORMER[name])


def register():
    """Make the former names importable."""
    sys.meta_path.append(_FormerNames())
