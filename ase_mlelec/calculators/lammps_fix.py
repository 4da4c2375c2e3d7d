"""Any calculator as the potential of a LAMMPS run, by LAMMPS' fix external, in one process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

FIX = "mlelec"


def use_in_lammps(run: Any, calculator: Any, species: Sequence[str]) -> None:
    """Let LAMMPS take energy, forces and virial from a calculator.

    Parameters
    ----------
    run : lammps.lammps
        Run in units metal, on one process, with a box and without another potential (``pair_style zero`` if a list of
        neighbors is wanted for computes).
    calculator : ASE calculator
        With energy, forces and, for a periodic box, stress.
    species : sequence of str
        Chemical symbols of LAMMPS' types 1, 2, ...

    Raises
    ------
    ValueError
        For other units, several processes, and another number of types.

    Notes
    -----
    The fix is called "mlelec". Its energy and virial are those of the run: thermo, barostats and minimizers see them.

    References
    ----------
    LAMMPS manual, fix external in mode pf/callback.
    """
    if run.extract_global("units") != "metal":
        raise ValueError(f"got LAMMPS' units {run.extract_global('units')}, need metal; write 'units metal' first")
    if run.extract_setting("world_size") != 1:
        raise ValueError("got a run of several processes, need one; a calculator sees all atoms")
    if run.extract_setting("ntypes") != len(species):
        raise ValueError(
            f"species: got {len(species)} symbols for {run.extract_setting('ntypes')} types; give one for each"
        )
    run.commands_string(f"""
        fix {FIX} all external pf/callback 1 1
        fix_modify {FIX} energy yes virial yes""")
    run.set_fix_external_callback(FIX, _answer, (run, calculator, np.array(["X", *species])))


def _answer(caller, step, n_atoms, tags, positions, forces):
    """Write the forces of the present positions, arrays [N, 3], and tell energy and virial."""
    run, calculator, symbols = caller
    atoms = _atoms_of(run, symbols, n_atoms, positions)
    order = np.argsort(tags)  # LAMMPS sorts its atoms anew from time to time
    ordered = atoms[order]
    ordered.calc = calculator
    forces[order] = ordered.get_forces()
    run.fix_external_set_energy_global(FIX, ordered.get_potential_energy())
    if ordered.pbc.all():
        virial = -voigt_6_to_full_3x3_stress(ordered.get_stress()) * ordered.get_volume()
        run.fix_external_set_virial_global(
            FIX, [virial[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
        )


def _atoms_of(run, symbols, n_atoms, positions):
    low, high, xy, yz, xz, periodic, _ = run.extract_box()
    x, y, z = np.subtract(high, low)
    cell = [[x, 0, 0], [xy, y, 0], [xz, yz, z]]
    types = run.numpy.extract_atom("type")[:n_atoms].ravel()
    return Atoms(symbols[types], np.array(positions[:n_atoms]) - low, cell=cell, pbc=[bool(flag) for flag in periodic])
