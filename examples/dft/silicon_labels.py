"""DFT of the silicon data set: settings, labels by Quantum ESPRESSO, groups, and one file of all."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import espresso
import numpy as np
from ase import Atoms, units
from silicon_lattices import DENSE, DENSE_SPACING, LATTICE_SPACING, LATTICES, TIN_SPACING, lattice_mesh, spaced
from silicon_structures import REPEAT

from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import Projections, read_projections, read_pw

ELECTRONIC_TEMPERATURE = 2000.0  # K
CUTOFF = 20.0  # Ry
WIDTH = 0.04 * units.Ry  # eV, Gaussian exp(-(x/s)^2)
ENERGIES = np.linspace(-8.0, 10.0, 181)  # eV
BANDS_PER_ATOM = 3.25
WITHOUT_DOS = (*DENSE, *LATTICES, "glass", "oblique")
DENSEST = 9.0  # Å^3 per atom, of those that train
PULAY_VIRIAL = 0.115  # eV/atom, their mean in silicon_pulay.csv


def meshes(atoms):
    """k meshes of the scf and of the DOS, of constant density.

    Per 8 atoms: 6^3 for both in liquids, where the energy at 4^3 is off by up to 30 meV/atom (by 1 in crystals); in
    crystals 4^3, and 6^3 for the DOS, 8^3 where they are cold.  The 64-atom cells are too expensive for more than 4^3.
    2x2x2 primitive cells have 3^3, for forces and stress.
    """
    if atoms.info["phase"] == "oblique":
        return ((3, 3, 3),) * 2
    if atoms.info["phase"] in DENSE:
        return (spaced(atoms, DENSE_SPACING),) * 2
    if atoms.info["phase"] in LATTICES:
        return (lattice_mesh(atoms),) * 2
    repeat = np.array(REPEAT[len(atoms)])
    liquid = atoms.info["phase"] == "liquid" and len(atoms) < 64
    cold = atoms.info["phase"] != "liquid" and atoms.info["temperature"] < 600
    return tuple(int(n) for n in (6 if liquid else 4) // repeat), tuple(int(n) for n in (8 if cold else 6) // repeat)


def calculate_bands(atoms, directory, kpts, n_bands):
    system = dict(
        ecutwfc=CUTOFF,
        occupations="smearing",
        smearing="fermi-dirac",
        nosym=True,
        nbnd=n_bands,
        degauss=units.kB * ELECTRONIC_TEMPERATURE / units.Ry,
    )
    # 1e-3 leaves eigenvalues within 0.05 meV and the site DOS within 1e-4 states/eV of 1e-6 (see convergence)
    espresso.pw(
        atoms,
        directory,
        "nscf",
        {"Si": "Si.pz-vbc.UPF"},
        kpts,
        system=system,
        electrons=dict(conv_thr=1e-3),
        control=dict(calculation="nscf", tprnfor=False, tstress=False),
    )
    return project(directory)


def project(directory):
    espresso.projwfc(directory)
    return read_projections(directory / espresso.SAVE, output=directory / "projwfc.out")


def calculate_energy(atoms, directory, kpts, bands_per_atom=2.5, cutoff=CUTOFF):
    system = dict(
        ecutwfc=cutoff,
        occupations="smearing",
        smearing="fermi-dirac",
        nosym=True,
        nbnd=int(bands_per_atom * len(atoms)),
        degauss=units.kB * ELECTRONIC_TEMPERATURE / units.Ry,
    )
    espresso.pw(atoms, directory, "scf", {"Si": "Si.pz-vbc.UPF"}, kpts, system=system, electrons=dict(conv_thr=1e-8))
    return read_pw(directory / espresso.SAVE)


def label(atoms, work):
    """DFT of one structure; the result appears as one file, or not at all."""
    target = work / f"{atoms.info['name']}.npz"
    if target.exists():
        return
    start = time.time()
    directory = work / atoms.info["name"]
    energy_mesh, dos_mesh = meshes(atoms)
    if atoms.info["phase"] in WITHOUT_DOS:
        result, bands = calculate_energy(atoms, directory, energy_mesh), None
    elif energy_mesh == dos_mesh:
        result = calculate_energy(atoms, directory, energy_mesh, BANDS_PER_ATOM)
        bands = project(directory)
    else:
        result = calculate_energy(atoms, directory, energy_mesh)
        bands = calculate_bands(atoms, directory, dos_mesh, int(BANDS_PER_ATOM * len(atoms)))
    partial = directory / "result.npz"
    projections = (
        {}
        if bands is None
        else {
            "eigenvalues": bands.eigenvalues,
            "kpoint_weights": bands.kpoint_weights,
            "site_weights": bands.site_weights.astype(np.float32),
        }
    )
    np.savez_compressed(
        partial,
        cell=atoms.cell.array,
        positions=atoms.positions,
        energy=result.energy,
        forces=result.forces,
        stress=result.stress,
        fermi_level=result.fermi_level,
        seconds=time.time() - start,
        **projections,
    )
    partial.rename(target)
    shutil.rmtree(directory)
    print(f"{atoms.info['name']}: {result.energy / len(atoms):.4f} eV/atom, {time.time() - start:.0f} s", flush=True)


def role(name, volume):
    """Which structures train, which steer the training, and which are never seen until the end.

    volume : Å^3 per atom
    """
    phase, n_atoms, _, seed = name.split("-")
    if phase in DENSE:  # beyond, a model's repulsive core replaces its energy; lattices of metals are tests alone
        return "support" if phase != "packed" and volume > DENSEST and int(seed) % 6 != 5 else "dense"
    if phase in LATTICES:  # with a weight of its own in training; every sixth is a test
        return "crystal" if int(seed) % 6 != 5 else "tin" if phase == "tin" else "lattice"
    if phase == "core":
        return "support"
    if phase == "glass":  # trained on, they made no better glasses: tests, in a file of their own, silicon_glass.h5
        return "test"
    if int(seed) >= 700:
        return "train"
    if int(n_atoms) > 8:  # larger cells test whether what was learnt on small ones is extensive
        return "size"
    return {3: "test", 5: "validation", 9: "test"}.get(int(seed) % 12, "train")


def load_result(path):
    """One labeled structure of ``label``: (Frame, Projections or None)."""
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    atoms = Atoms("Si" * len(data["positions"]), data["positions"], cell=data["cell"], pbc=True)
    # without the Pulay virial, stress and energies of unlike volumes contradict one another
    virial = -data["stress"] * atoms.get_volume() + PULAY_VIRIAL * len(atoms) * np.eye(3)
    labels, bands = {"energy": float(data["energy"]), "forces": data["forces"], "virial": virial}, None
    if path.stem.startswith("oblique"):
        del labels["energy"]
    if "eigenvalues" in data:
        bands = Projections(data["eigenvalues"], data["kpoint_weights"], data["site_weights"].astype(float))
        labels |= {"ados": bands.site_dos(ENERGIES, width=WIDTH), "dos": bands.total_dos(ENERGIES, width=WIDTH)}
    return Frame(atoms, labels, path.stem, role(path.stem, atoms.get_volume() / len(atoms))), bands


def collect(work, target):
    """Gather all finished labels into one compressed data set, with those that are there already."""
    former = read_hdf5(target) if Path(target).exists() else Frames([], ENERGIES, {})
    frames = {
        frame.name: replace(frame, group=role(frame.name, frame.atoms.get_volume() / len(frame.atoms)))
        for frame in former
    }
    complete = [former.attributes.get("bands_complete_below_eV", np.inf)]
    for path in sorted(work.glob("*.npz")):
        frame, bands = load_result(path)
        frames[frame.name] = frame
        complete += [] if bands is None else [bands.complete_below]
    settings = {
        "program": "Quantum ESPRESSO 6.7",
        "pseudopotential": "Si.pz-vbc.UPF (LDA)",
        "ecutwfc_Ry": CUTOFF,
        "kpoints_energy": "per 8 atoms: 4x4x4 for crystals and 64-atom cells, 6x6x6 for other liquids; "
        "3x3x3 for 2x2x2 primitive cells, which have no energies; "
        f"{DENSE_SPACING} 1/Å for compressed structures, {LATTICE_SPACING} 1/Å for diamond in cells of 2 and 4 atoms; "
        f"{TIN_SPACING[2]} 1/Å for beta-tin, {TIN_SPACING[4]} 1/Å in its cells of 4 atoms",
        "kpoints_dos": "6x6x6 per 8 atoms, 8x8x8 for solids below 600 K",
        "smearing": "Fermi-Dirac",
        "electronic_temperature_K": ELECTRONIC_TEMPERATURE,
        "bands_per_atom": BANDS_PER_ATOM,
        "pulay_virial_added_eV_per_atom": PULAY_VIRIAL,
    }
    attributes = {
        "dos_width_eV": WIDTH,
        "energy_reference": "average electrostatic potential of the cell (Quantum ESPRESSO)",
        "valence_electrons": {"Si": 4},
        "settings": settings,
    }
    if np.isfinite(min(complete)):  # of data sets with a density of states
        attributes["bands_complete_below_eV"] = min(complete)
    write_hdf5(target, Frames(list(frames.values()), ENERGIES, attributes))
    groups = [frame.group for frame in frames.values()]
    print(
        f"{len(frames)} structures: "
        + ", ".join(f"{groups.count(g)} {g}" for g in sorted(set(groups)))
        + f"; bands complete below {min(complete):.2f} eV"
    )
