"""Errors of the labels of the silicon data set: k meshes, and the part that the stress of pw.x lacks."""

import shutil
from pathlib import Path

import espresso
import numpy as np
from ase import units
from ase.io import read
from silicon_labels import BANDS_PER_ATOM, ENERGIES, calculate_bands, calculate_energy, load_result

PULAY_STRUCTURES = ("static-8-10K-001", "solid-8-1500K-136", "liquid-8-2000K-324", "liquid-8-1900K-760")
PULAY_CUTOFFS = (19.0, 21.0)  # Ry
CONVERGENCE = ("solid-8-300K-103", "liquid-8-2000K-324")


def convergence(path, work, target):
    """rms error of the site DOS on k meshes against the densest, below the Fermi level, for several widths."""
    images = {atoms.info["name"]: atoms for atoms in read(path, ":")}
    meshes_tried, widths = (4, 6, 8), (0.01, 0.02, 0.03, 0.04)
    rows = ["structure,width_Ry,mesh,rms_error_states_per_eV,signal_states_per_eV"]
    for name in CONVERGENCE:
        directory = work / f"convergence-{name}"
        level = calculate_energy(images[name], directory, (4, 4, 4)).fermi_level
        bands = [
            calculate_bands(images[name], directory, (n,) * 3, int(BANDS_PER_ATOM * len(images[name])))
            for n in meshes_tried
        ]
        energies = ENERGIES[ENERGIES < level]
        for width in widths:
            best = bands[-1].site_dos(energies, width=width * units.Ry)
            signal = np.sqrt(best.var(axis=0).mean())
            for n, result in zip(meshes_tried[:-1], bands):
                error = np.sqrt(((result.site_dos(energies, width=width * units.Ry) - best) ** 2).mean())
                rows.append(f"{name},{width},{n}^3 against {meshes_tried[-1]}^3,{error:.4f},{signal:.4f}")
        shutil.rmtree(directory)
    Path(target).write_text("\n".join(rows) + "\n")


def compare(work, other, target):
    """Energies and forces of the structures labeled in both folders, such as on two k meshes."""
    rows = ["structure,volume_A3_per_atom,energy_difference_meV_per_atom,rms_force_difference_meV_per_A"]
    for path in sorted(work.glob("*.npz")):
        if (other / path.name).exists():
            with np.load(path) as one, np.load(other / path.name) as two:
                n_atoms = len(one["positions"])
                energy = 1000 * float(one["energy"] - two["energy"]) / n_atoms
                force = 1000 * np.sqrt(((one["forces"] - two["forces"]) ** 2).mean())
                volume = abs(np.linalg.det(one["cell"])) / n_atoms
            rows.append(f"{path.stem},{volume:.2f},{energy:.2f},{force:.1f}")
    Path(target).write_text("\n".join(rows) + "\n")


def pulay(work, target):
    """The Pulay virial of a few structures."""
    rows = [f"structure,volume_A3_per_atom,pulay_virial_eV_per_atom_{PULAY_CUTOFFS[0]:g}_to_{PULAY_CUTOFFS[1]:g}_Ry"]
    for name in PULAY_STRUCTURES:
        atoms, directory = load_result(work / f"{name}.npz")[0].atoms, work / f"pulay-{name}"
        virial = espresso.pulay_virial(
            lambda cutoff: calculate_energy(atoms, directory, (4, 4, 4), cutoff=cutoff).energy,
            len(atoms),
            *PULAY_CUTOFFS,
        )
        rows.append(f"{name},{atoms.get_volume() / len(atoms):.2f},{virial:.4f}")
        shutil.rmtree(directory)
        print(rows[-1], flush=True)
    Path(target).write_text("\n".join(rows) + "\n")
