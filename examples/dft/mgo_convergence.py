"""How exact the labels of the magnesium oxide data set are: k meshes of its spectra, plane waves of its stress."""

import shutil
from pathlib import Path

import espresso
import kmesh
import numpy as np
from ase import Atoms, units
from ase.io import read
from mgo_labels import DOS_MESH, PSEUDOPOTENTIALS, REFINE, calculate_bands, calculate_energy, levels, load_bands, stored

CONVERGENCE = ("einstein-8-3270-000", "einstein-8-3380-024")
CONVERGENCE_MESHES, CONVERGENCE_WIDTHS = (4, 5, 6, 8), (0.02, 0.03, 0.04)  # Ry
BEST_MESH = max(CONVERGENCE_MESHES)
ENERGIES = np.linspace(-14.0, 38.0, 261)  # eV, relative to the average electrostatic potential, of the convergence
PULAY_STRUCTURES = ("einstein-8-3270-000", "einstein-8-3380-024", "einstein-8-3560-048")
PULAY_CUTOFFS = (33.0, 37.0)  # Ry


def convergence(path, work, target):
    """Errors of the site DOS on k meshes against the densest, interpolated, for several widths, and the spread.

    The spread is the standard deviation over the atoms of an element, at a mean energy, of all labels that are finished
    and of the structures of this table.  Bands are kept in ``work/convergence``.
    """
    images = {atoms.info["name"]: atoms for atoms in read(path, ":")}
    bands = {name: _bands_on_meshes(images[name], work / "convergence") for name in CONVERGENCE}
    labeled = [
        (kmesh.refined(of_mesh[BEST_MESH], (BEST_MESH,) * 3, REFINE), images[name].symbols)
        for name, of_mesh in bands.items()
    ]
    for result in sorted(work.glob("*.npz")):
        with np.load(result) as data:
            labeled.append((load_bands(data), Atoms(data["numbers"]).symbols))
    rows = [
        "structure,element,energies,width_Ry,mesh,points_between_two,rms_error_states_per_eV,spread_states_per_eV,"
        "error_over_spread"
    ]
    for width in CONVERGENCE_WIDTHS:
        every = [(own.site_dos(ENERGIES, width=width * units.Ry), symbols) for own, symbols in labeled]
        for name, of_mesh in bands.items():
            rows += _convergence_rows(images[name], of_mesh, every, width)
    Path(target).write_text("\n".join(rows) + "\n")


def _bands_on_meshes(atoms, folder):
    """dict, points along an axis -> Projections of one structure; what is there is not calculated again."""
    name, found = atoms.info["name"], {}
    missing = [n for n in CONVERGENCE_MESHES if not (folder / f"{name}-{n}.npz").exists()]
    if missing:
        calculate_energy(atoms, folder / name)
        for n in missing:
            np.savez_compressed(folder / f"{name}-{n}.npz", **stored(calculate_bands(atoms, folder / name, (n,) * 3)))
        shutil.rmtree(folder / name)
    for n in CONVERGENCE_MESHES:
        with np.load(folder / f"{name}-{n}.npz") as data:
            found[n] = load_bands(data)
    return found


def _convergence_rows(atoms, of_mesh, every, width):
    top = levels(atoms, of_mesh[DOS_MESH]).valence_band_maximum
    right = kmesh.refined(of_mesh[BEST_MESH], (BEST_MESH,) * 3, REFINE).site_dos(ENERGIES, width=width * units.Ry)
    for n, refine in [(n, refine) for n in CONVERGENCE_MESHES for refine in (1, REFINE)][:-1]:
        own = kmesh.refined(of_mesh[n], (n,) * 3, refine).site_dos(ENERGIES, width=width * units.Ry)
        for element in PSEUDOPOTENTIALS:
            variance = np.concatenate([dos[kinds == element] for dos, kinds in every]).var(axis=0)
            square = (own - right)[atoms.symbols == element] ** 2
            for label, chosen in ("all", slice(None)), ("valence bands", ENERGIES < top):
                error, spread = np.sqrt(square[:, chosen].mean()), np.sqrt(variance[chosen].mean())
                yield (
                    f"{atoms.info['name']},{element},{label},{width},{n}^3,{refine - 1},{error:.4f},{spread:.4f},"
                    f"{error / spread:.3f}"
                )


def pulay(path, work, target):
    """The Pulay virial of one structure at every lattice constant that trains."""
    rows = [f"structure,volume_A3_per_atom,pulay_virial_eV_per_atom_{PULAY_CUTOFFS[0]:g}_to_{PULAY_CUTOFFS[1]:g}_Ry"]
    images = {atoms.info["name"]: atoms for atoms in read(path, ":")}
    for name in PULAY_STRUCTURES:
        atoms, directory = images[name], work / f"pulay-{name}"
        virial = espresso.pulay_virial(
            lambda cutoff: calculate_energy(atoms, directory, cutoff).energy, len(atoms), *PULAY_CUTOFFS
        )
        rows.append(f"{name},{atoms.get_volume() / len(atoms):.2f},{virial:.4f}")
        shutil.rmtree(directory)
        print(rows[-1], flush=True)
    Path(target).write_text("\n".join(rows) + "\n")
