"""Labelled structures from ase.Atoms and back."""
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from ase_mlelec.io.data_set import Frame, Frames


def from_images(images, name=""):
    """Frames of ase.Atoms: energy, forces and stress from the calculator, ``arrays["ados"]``, and from ``info``
    dos_energies [S] eV, dos, name and group."""
    images = list(images)
    grids = [np.asarray(atoms.info["dos_energies"], dtype=float) for atoms in images if "dos_energies" in atoms.info]
    if any(len(grid) != len(grids[0]) or not np.allclose(grid, grids[0], atol=1e-6) for grid in grids):
        raise ValueError(f"{name}: the images have different dos_energies; bring them to one grid first")
    frames = [Frame(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc), _labels(atoms),
                    str(atoms.info.get("name", f"{name}-{i}")), str(atoms.info.get("group", "")))
              for i, atoms in enumerate(images)]
    return Frames(frames, grids[0] if grids else None)


def _labels(atoms):
    labels = {key: np.asarray(values[key], dtype=float)
              for key, values in (("ados", atoms.arrays), ("dos", atoms.info)) if key in values}
    if atoms.calc is None:
        return labels
    # the free energy is what forces are the gradient of; constraints are no part of the physics
    for name, get in (("energy", atoms.get_potential_energy),
                      ("energy", lambda: atoms.get_potential_energy(force_consistent=True)),
                      ("forces", lambda: atoms.get_forces(apply_constraint=False)),
                      ("virial", lambda: -atoms.get_stress(voigt=False, apply_constraint=False) * atoms.get_volume())):
        try:
            labels[name] = get()
        except (PropertyNotImplementedError, ValueError):   # ASE's two ways to say: not in the file
            continue
    return labels


def to_images(frames):
    """List of ase.Atoms that carry the labels of energy and DOS where ``from_images`` looks for them."""
    return [_to_atoms(frame, frames.energies) for frame in frames]


def _to_atoms(frame, energies):
    atoms, labels = frame.atoms.copy(), frame.labels
    atoms.info.update(name=frame.name, group=frame.group)
    if "ados" in labels:
        atoms.arrays["ados"] = np.array(labels["ados"])
    if "dos" in labels:
        atoms.info["dos"] = np.array(labels["dos"])
    if energies is not None:
        atoms.info["dos_energies"] = np.array(energies)
    results = {name: labels[name] for name in ("energy", "forces") if name in labels}
    if "energy" in labels:
        results["free_energy"] = labels["energy"]
    if "virial" in labels:
        results["stress"] = full_3x3_to_voigt_6_stress(-np.asarray(labels["virial"]) / atoms.get_volume())
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
