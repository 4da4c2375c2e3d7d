"""Labels of the magnesium oxide data set by Quantum ESPRESSO, and the data set that they make."""

import resource
import shutil
import time
from dataclasses import replace
from typing import NamedTuple

import espresso
import kmesh
import numpy as np
from ase import Atoms, units
from mgo_structures import REPEAT, TEMPERATURE, TESTS, TRAINING
from scipy.optimize import brentq
from scipy.special import expit

from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import Projections, read_projections, read_pw

CUTOFF, DENSITY_CUTOFF = 35.0, 200.0  # Ry
PSEUDOPOTENTIALS = {"Mg": "Mg.pz-n-vbc.UPF", "O": "O.pz-rrkjus.UPF"}
VALENCE_ELECTRONS = {"Mg": 2, "O": 6}
BANDS_PER_ATOM, ENERGY_BANDS_PER_ATOM = 5, 3
ENERGY_MESH, DOS_MESH = 3, 6  # per 8 atoms
REFINE = 2  # times as many points along each axis, by interpolation
WIDTH = 0.04 * units.Ry  # eV, Gaussian exp(-(x/s)^2)
FROM_FERMI_LEVEL = np.linspace(-31.0, 24.0, 276)  # eV, of the labels
PULAY_VIRIAL = 0.011  # eV/atom, the mean of mgo_pulay.csv


class Levels(NamedTuple):
    """eV; projected_electrons: those that the site DOS holds below the gap, fewer than there are."""

    fermi_level: float
    valence_band_maximum: float
    conduction_band_minimum: float
    projected_electrons: float


def mesh(atoms, per_8_atoms):
    return tuple(int(np.ceil(per_8_atoms / n)) for n in REPEAT[len(atoms)])


def system(atoms, bands_per_atom, cutoff=CUTOFF):
    return dict(
        ecutwfc=cutoff,
        ecutrho=cutoff / CUTOFF * DENSITY_CUTOFF,
        occupations="smearing",
        smearing="fermi-dirac",
        degauss=units.kB * TEMPERATURE / units.Ry,
        nosym=True,
        nbnd=bands_per_atom * len(atoms),
    )


def calculate_energy(atoms, directory, cutoff=CUTOFF):
    espresso.pw(
        atoms,
        directory,
        "scf",
        PSEUDOPOTENTIALS,
        mesh(atoms, ENERGY_MESH),
        (1, 1, 1),
        system=system(atoms, ENERGY_BANDS_PER_ATOM, cutoff),
        electrons=dict(conv_thr=1e-8),
    )
    return read_pw(directory / espresso.SAVE)


def calculate_bands(atoms, directory, kpts):
    """Projections on atoms after calculate_energy.  conv_thr 1e-3 leaves the site DOS within 2e-4 states/eV of 1e-6."""
    espresso.pw(
        atoms,
        directory,
        "nscf",
        PSEUDOPOTENTIALS,
        kpts,
        system=system(atoms, BANDS_PER_ATOM),
        electrons=dict(conv_thr=1e-3),
        control=dict(calculation="nscf", tprnfor=False, tstress=False),
    )
    espresso.projwfc(directory)
    return read_projections(directory / espresso.SAVE, output=directory / "projwfc.out")


def cpu_seconds():
    """Of all programs that have been run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def label(atoms, work):
    """DFT of one structure; the result appears as one file, or not at all."""
    target = work / f"{atoms.info['name']}.npz"
    if target.exists():
        return
    start, start_cpu = time.time(), cpu_seconds()
    directory = work / atoms.info["name"]
    result = calculate_energy(atoms, directory)
    bands = calculate_bands(atoms, directory, mesh(atoms, DOS_MESH))
    unfinished = directory / "result.npz"
    np.savez_compressed(
        unfinished,
        cell=atoms.cell.array,
        positions=atoms.positions,
        numbers=atoms.numbers,
        energy=result.energy,
        forces=result.forces,
        stress=result.stress,
        seconds=time.time() - start,
        cpu_seconds=cpu_seconds() - start_cpu,
        **stored(bands),
    )
    unfinished.rename(target)
    shutil.rmtree(directory)
    print(
        f"{atoms.info['name']}: {result.energy / len(atoms):.4f} eV/atom, {cpu_seconds() - start_cpu:.0f} CPU s, "
        f"{time.time() - start:.0f} s",
        flush=True,
    )


def stored(bands):
    """Projections as arrays of a file."""
    return {
        "eigenvalues": bands.eigenvalues,
        "kpoint_weights": bands.kpoint_weights,
        "site_weights": bands.site_weights.astype(np.float32),
    }


def load_bands(data):
    return Projections(data["eigenvalues"], data["kpoint_weights"], data["site_weights"].astype(float))


def role(name):
    """Structures that train, those that steer the training, larger tests, and tests at pressures between theirs.

    Cells of a model's own MD are hotter: "hot" ones train as well, see benchmarks/MGO_HOT.md.
    """
    n_atoms, a, seed = (int(word) for word in name.split("-")[1:])
    if name.startswith("model-"):
        return "hot" if n_atoms < 64 and seed % 6 != 5 and a / 1000 in TRAINING else "hot_test"
    if n_atoms > 8:
        return "train" if n_atoms == 16 and seed % 2 == 0 else "size"
    if a / 1000 in TESTS:
        return "test"
    return "validation" if seed % 6 == 5 else "train"


def load_result(path, refine=REFINE):
    """One labeled structure of ``label``: (Frame, Projections as they were calculated)."""
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
    bands = load_bands(data)
    # without the Pulay virial, stress and energies of unlike volumes contradict one another
    virial = -data["stress"] * atoms.get_volume() + PULAY_VIRIAL * len(atoms) * np.eye(3)
    dense = kmesh.refined(bands, mesh(atoms, DOS_MESH), refine)
    grid = FROM_FERMI_LEVEL + levels(atoms, bands, refine).fermi_level
    labels = {
        "energy": float(data["energy"]),
        "forces": data["forces"],
        "virial": virial,
        "ados": dense.site_dos(grid, width=WIDTH),
        "dos": dense.total_dos(grid, width=WIDTH),
    }
    return Frame(atoms, labels, path.stem, role(path.stem)), bands


def levels(atoms, bands, refine=REFINE):
    """What the bands of one structure say about its electrons, Levels.  The edges are those of calculated points."""
    electrons = sum(VALENCE_ELECTRONS[symbol] for symbol in atoms.symbols)
    filled, empty = np.split(bands.eigenvalues, [electrons // 2], axis=1)
    projected = bands.kpoint_weights @ bands.site_weights[:, : electrons // 2].sum(axis=(1, 2))
    dense = kmesh.refined(bands, mesh(atoms, DOS_MESH), refine)
    return Levels(fermi_level(dense, electrons, TEMPERATURE), float(filled.max()), float(empty.min()), float(projected))


def fermi_level(bands, electrons, temperature):
    """Where Fermi-Dirac occupations of the levels add up to the electrons; on this mesh, that of the scf is coarser."""

    def excess(level):
        filling = expit((level - bands.eigenvalues) / (units.kB * temperature))
        return bands.kpoint_weights @ filling.sum(axis=1) - electrons

    return float(brentq(excess, bands.eigenvalues.min(), bands.eigenvalues.max(), xtol=1e-9))


def collect(work, target, refine=REFINE):
    """Gather all finished labels into one compressed data set, with those that are there already."""
    former = read_hdf5(target) if target.exists() else Frames([], FROM_FERMI_LEVEL)
    electronic = {
        name: Levels(*values)
        for name, values in former.attributes.get("electronic_levels", {}).items()
        if name not in ("columns", "energy_reference")
    }
    by_name = {frame.name: replace(frame, group=role(frame.name)) for frame in former}
    complete = [former.attributes["bands_complete_below_eV"]] if by_name else []
    for path in sorted(work.glob("*.npz")):
        frame, bands = load_result(path, refine)
        by_name[frame.name] = frame
        own = levels(frame.atoms, bands, refine)
        complete.append(bands.complete_below - own.fermi_level)
        electronic[frame.name] = own
    frames = list(by_name.values())
    settings = {
        "program": "Quantum ESPRESSO 6.7",
        "pseudopotentials": f"{', '.join(PSEUDOPOTENTIALS.values())} (LDA)",
        "ecutwfc_Ry": CUTOFF,
        "ecutrho_Ry": DENSITY_CUTOFF,
        "smearing": "Fermi-Dirac",
        "kpoints_energy": f"{ENERGY_MESH}^3 per 8 atoms, shifted by half a step",
        "kpoints_dos": f"{DOS_MESH}^3 per 8 atoms, with Gamma",
        "kpoints_interpolated_between_two": refine - 1,
        "electronic_temperature_K": TEMPERATURE,
        "bands_per_atom": BANDS_PER_ATOM,
        "pulay_virial_added_eV_per_atom": PULAY_VIRIAL,
    }
    write_hdf5(
        target,
        Frames(
            frames,
            FROM_FERMI_LEVEL,
            {
                "dos_width_eV": WIDTH,
                "energy_reference": f"Fermi level of the structure at {TEMPERATURE:g} K",
                "valence_electrons": VALENCE_ELECTRONS,
                "settings": settings,
                "bands_complete_below_eV": min(complete),
                "electronic_levels": {
                    "columns": Levels._fields,
                    "energy_reference": "average electrostatic potential of the cell (Quantum ESPRESSO)",
                    **{name: [round(value, 5) for value in own] for name, own in electronic.items()},
                },
            },
        ),
    )
    for group in sorted({frame.group for frame in frames}):
        names = [frame.name.split("-") for frame in frames if frame.group == group]
        counts = {a: sum(name[2] == a for name in names) for a in sorted({name[2] for name in names})}
        print(f"{group}: {len(names)}; by lattice constant in mÅ: {counts}")
    gaps = [own.conduction_band_minimum - own.valence_band_maximum for own in electronic.values()]
    print(
        f"bands complete to {min(complete):.2f} eV above the Fermi level; gaps from {min(gaps):.2f} to {max(gaps):.2f} eV"
    )
