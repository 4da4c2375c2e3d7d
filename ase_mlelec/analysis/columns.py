"""Rows of results: one column for each quantity of a structure."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator


def set_atom_scalars(atoms: Atoms, **scalars):
    """Put one number per atom into ``atoms.arrays`` under each name; returns ``atoms``.

    ASE's viewer colors by any such array: write the structures as extxyz, open them with ``ase gui run.extxyz``, and
    choose View -> Colors -> By user-defined "<name>". (It also colors by tag, force, velocity, initial charge,
    magnetic moment and number of neighbors.) The color scale spans the values of the structure shown when the window
    was opened: open it at the last structure, or set min and max there. ASE's .traj and database files drop such
    arrays; where only those will do, ``atoms.set_initial_charges(values)`` survives and can be colored by, but changes
    what calculators see.

    Parameters
    ----------
    atoms : ase.Atoms
    scalars : name=array [N]

    Raises
    ------
    ValueError
        For arrays of another shape.
    """
    for name, values in scalars.items():
        if np.shape(values) != (len(atoms),):
            raise ValueError(f"{name}: got shape {np.shape(values)}, need ({len(atoms)},), one number per atom")
        atoms.set_array(name, np.asarray(values, dtype=float))
    return atoms


# Quantities


def column_names(quantities: Sequence[str | Callable]) -> list:
    if isinstance(quantities, str):
        raise ValueError(f"got quantities={quantities!r}, need a list of names; write [{quantities!r}]")
    return [name.__name__ if callable(name) else name for name in quantities]


def quantity_of(calc, atoms: Atoms, name: str | Callable):
    """The value of one quantity, as the module describes."""
    return getter(calc, atoms, name)()


def getter(calc, atoms: Atoms, name: str | Callable):
    """A function without arguments that returns the quantity.

    Raises
    ------
    ValueError
        For one that there is not.
    """
    if callable(name):
        return partial(name, atoms)
    if name in calc.implemented_properties:
        return partial(calc.get_property, name, atoms)
    method = getattr(calc, f"get_{name}", None)
    if method is not None:
        return partial(method, atoms=atoms)
    if hasattr(atoms, f"get_{name}"):
        return getattr(atoms, f"get_{name}")
    methods = sorted(found[4:] for found in {*dir(calc)} - {*dir(Calculator())} if found.startswith("get_"))
    raise ValueError(
        f"got quantity {name!r}, which neither {type(calc).__name__} nor Atoms has; choose among "
        f"{', '.join(dict.fromkeys([*calc.implemented_properties, *methods]))}"
    )


def row_of(calc, atoms: Atoms, quantities: Sequence[str | Callable]):
    row = {"n_atoms": len(atoms), "fingerprint": fingerprint(atoms)}
    for name, quantity in zip(column_names(quantities), quantities):
        value = quantity_of(calc, atoms, quantity)
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"got quantity {name!r}, which is a {type(value).__name__}, need numbers; ask for a "
                "quantity that is an array, such as 'ados' for 'dos'"
            )
        row[name] = array
    return row


def fingerprint(atoms: Atoms) -> np.uint64:
    """Hash, 64-bit int, of the parts of a structure on which results depend."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "big"))
