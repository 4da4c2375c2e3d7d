"""The silicon data set: structures from molecular dynamics, labeled by Quantum ESPRESSO.

    python silicon.py sample first.extxyz                     # structures from Stillinger-Weber MD
    python silicon.py sample second.extxyz --model si         # structures from a model's own MD
    python silicon.py sample large.extxyz --model si --large  # the same with 32 and 64 atoms
    python silicon.py sample oblique.extxyz --model si --oblique  # crystals in 2x2x2 primitive cells
    python silicon.py sample dense.extxyz --dense             # compressed lattices and crowds, up to 8 times the density
    python silicon.py sample lattices.extxyz --lattices       # beta-tin, strained diamond, waves
    python silicon.py sample glass.extxyz --model si --glass  # quenched by a model
    python silicon.py label first.extxyz work --part 0/2      # DFT; one file per structure, skips what is done
    python silicon.py collect work silicon.h5                 # one compressed data set; adds to one that is there;
                                                              # glasses: silicon_glass.h5
    python silicon.py pulay work silicon_pulay.csv            # the part that the stress of pw.x lacks at this cutoff
    python silicon.py convergence first.extxyz work silicon_convergence.csv     # DOS labels against denser k meshes
    python silicon.py compare work other silicon_energies.csv                   # energies of two folders of labels

Energies, forces and stress: Si.pz-vbc, 20 Ry, k points per 8 atoms 4^3 for crystals and 6^3 for liquids, Fermi-Dirac at
ONE electronic temperature (2000 K) for every structure, so that the energy is a function of the positions alone.  DOS:
6^3 per 8 atoms, 8^3 for crystals below 600 K, projected on the atomic s and p functions.  Seeds are below 1000.
"""

import argparse
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import espresso
import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from silicon_lattices import (
    DENSE,
    DENSE_PLAN,
    DENSE_SPACING,
    GLASS_PLAN,
    LATTICE_PLAN,
    LATTICE_SPACING,
    LATTICES,
    TIN_SPACING,
    dense_snapshot,
    glass_snapshot,
    lattice_mesh,
    lattice_snapshot,
    shortest_distance,
    spaced,
)
from stillinger_weber import StillingerWeber

from ase_mlelec import DeepPotCalculator
from ase_mlelec.data.batches import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import Projections, read_projections, read_pw

ELECTRONIC_TEMPERATURE = 2000.0  # K
CUTOFF = 20.0  # Ry
WIDTH = 0.04 * units.Ry  # eV, Gaussian exp(-(x/s)^2)
ENERGIES = np.linspace(-8.0, 10.0, 181)  # eV
BANDS_PER_ATOM = 3.25
# the same from a model's own constant-pressure MD: pressures (GPa) in place of scales
MODEL_PLAN = [
    ("solid", 8, (600, 1500, 2100), 0.0, 10.0, 4, 600),
    ("liquid", 8, (1500, 2000, 2600), 0.0, 10.0, 8, 620),
    ("solid", 16, (1800,), 0.0, 6.0, 3, 650),
    ("liquid", 16, (1700, 2300), 0.0, 8.0, 3, 660),
    ("solid", 32, (1500,), 3.0, 3.0, 1, 670),
    ("liquid", 32, (2000,), 4.0, 4.0, 1, 671),
    # second round: what the first one got wrong, superheated crystals and liquids far from the densities above
    ("solid", 8, (1800, 2200, 2500), -2.0, 8.0, 6, 700),
    ("liquid", 8, (1500, 1900, 2400), -4.0, 12.0, 12, 740),
    # third round: open liquids
    ("liquid", 8, (1500, 2000, 2500), -10.0, 0.0, 6, 840),
]
# the same for cells in which atoms have more kinds of surroundings than in 8 atoms
LARGE_PLAN = [
    ("liquid", 64, (1700, 2300), 0.0, 10.0, 6, 950),
    ("solid", 64, (1500,), 0.0, 10.0, 3, 965),
    ("liquid", 32, (1600, 2000, 2500), 0.0, 10.0, 4, 970),
]
# crystals in 2x2x2 primitive cells, which have the waves of the points X and L; forces and stress alone: at 3^3 k points
# the energy is 9.7 meV/atom above that of 4^3, forces differ by 4 meV/Å and stress by 0.05 GPa (oblique-16-300K-984)
OBLIQUE_PLAN = [("oblique", 16, (300, 700, 1100, 1500), -1.0, 7.0, 4, 984)]
WITHOUT_DOS = (*DENSE, *LATTICES, "glass", "oblique")
DENSEST = 9.0  # Å^3 per atom, of those that train
PULAY_STRUCTURES = ("static-8-10K-001", "solid-8-1500K-136", "liquid-8-2000K-324", "liquid-8-1900K-760")
PULAY_CUTOFFS = (19.0, 21.0)  # Ry
PULAY_VIRIAL = 0.115  # eV/atom, their mean in silicon_pulay.csv
CONVERGENCE = ("solid-8-300K-103", "liquid-8-2000K-324")
REPEAT = {8: (1, 1, 1), 16: (1, 1, 2), 32: (1, 2, 2), 64: (2, 2, 2)}

# (phase, atoms, temperatures K, linear scale of a = 5.40 Å from, to, structures per temperature, first seed)
PLAN = [
    ("static", 8, (10,), 0.955, 1.025, 8, 1),
    ("core", 8, (0,), 0.90, 0.99, 10, 20),
    ("solid", 8, (300, 600, 900, 1200, 1500, 1800, 2200), 0.965, 1.015, 8, 100),
    ("liquid", 8, (1600, 2000, 2500, 3000), 0.950, 1.000, 16, 300),
    ("solid", 16, (300, 1200, 1800), 0.970, 1.010, 2, 500),
    ("liquid", 16, (1800, 2400), 0.955, 0.995, 3, 520),
    ("solid", 32, (1200,), 0.98, 1.005, 2, 540),
    ("liquid", 32, (2000,), 0.96, 0.99, 2, 550),
    ("solid", 64, (1200,), 1.0, 1.0, 1, 560),
    ("liquid", 64, (2000,), 0.975, 0.975, 1, 561),
    ("liquid", 8, (1600, 2000, 2500), 0.980, 1.005, 8, 800),
]


def strained_crystal(n_atoms, scale, rng, strain=0.02, oblique=False):
    """Diamond cell with a random symmetric strain on top of the linear scale."""
    atoms = bulk("Si", "diamond", a=5.40 * scale, cubic=not oblique) * ((2, 2, 2) if oblique else REPEAT[n_atoms])
    shear = rng.normal(0, strain / 2, (3, 3))
    shear = (shear + shear.T) / 2
    shear -= np.eye(3) * np.trace(shear) / 3
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
    return atoms


def dynamics(atoms, temperature, steps, rng, timestep=2.0):
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Langevin(atoms, timestep * units.fs, temperature_K=temperature, friction=0.05 / units.fs, rng=rng).run(steps)
    atoms.wrap()


def snapshot(phase, n_atoms, temperature, scale, seed, calculator):
    rng = np.random.default_rng(seed)
    atoms = strained_crystal(n_atoms, scale, rng, strain=0.0 if n_atoms == 64 else 0.02)
    atoms.calc = calculator
    if phase == "static":
        atoms.rattle(0.02, rng=rng)
    elif phase == "core":  # atoms pushed together: teaches the repulsion that MD meets when it goes astray
        atoms.rattle(0.28, rng=rng)
    elif phase == "solid":
        dynamics(atoms, temperature, 300, rng)
    else:
        dynamics(atoms, 6000.0, 300, rng)
        dynamics(atoms, temperature, 300, rng)
    return atoms


def model_snapshot(phase, n_atoms, temperature, pressure, seed, calculator):
    """Constant-pressure MD of a model; a run that leaves reasonable densities or distances is dropped (None)."""
    rng = np.random.default_rng(seed)
    atoms = strained_crystal(n_atoms, 0.97 if phase == "liquid" else 0.99, rng, oblique=phase == "oblique")
    atoms.calc = calculator
    try:
        if phase == "liquid":
            dynamics(atoms, 4500.0, 300, rng)
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
        run = NPTBerendsen(
            atoms,
            2 * units.fs,
            temperature_K=temperature,
            pressure_au=pressure * units.GPa,
            taut=50 * units.fs,
            taup=400 * units.fs,
            compressibility_au=0.01 / units.GPa,
        )
        for _ in run.irun(400):
            if not 13.0 < atoms.get_volume() / n_atoms < 24.0:
                return None
    except InputError:  # an immature model lets atoms run into each other
        return None
    atoms.wrap()
    return None if shortest_distance(atoms) < 1.9 else atoms


def sample(path, make, plan):
    """Write the structures of ``plan`` made by ``make`` (snapshot or model_snapshot)."""
    done = {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()
    for phase, n_atoms, temperatures, low, high, count, first_seed in plan:
        for t, temperature in enumerate(temperatures):
            for k in range(count):
                value, seed = low + (high - low) * (k + 0.5) / count, first_seed + t * count + k
                name = f"{phase}-{n_atoms}-{temperature}K-{seed:03d}"
                if name in done:
                    continue
                atoms = make(phase, n_atoms, temperature, value, seed)
                if atoms is None:
                    print(f"{name}: dropped", flush=True)
                    continue
                atoms.calc = None
                atoms.info = {"name": name, "phase": phase, "temperature": temperature, "seed": seed}
                write(path, atoms, append=True)
                print(name, f"{atoms.get_volume() / n_atoms:.2f} Å^3/atom", flush=True)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--dense", action="store_true", help="compressed lattices and crowds")
    command.add_argument("--lattices", action="store_true", help="beta-tin, strained diamond and waves")
    command.add_argument("--glass", action="store_true", help="glasses, with a model")
    command.add_argument("--model", help="sample from this model's own MD instead of Stillinger-Weber")
    command.add_argument("--large", action="store_true", help="cells of 32 and 64 atoms, with a model")
    command.add_argument("--oblique", action="store_true", help="crystals in 2x2x2 primitive cells, with a model")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("convergence")
    command.add_argument("structures")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("pulay")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("compare")
    command.add_argument("work", type=Path)
    command.add_argument("other", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "sample":
        if arguments.model and arguments.glass:
            make = partial(glass_snapshot, calculator=DeepPotCalculator(arguments.model))
            sample(arguments.structures, make, GLASS_PLAN)
        elif arguments.model:
            make = partial(model_snapshot, calculator=DeepPotCalculator(arguments.model))
            plan = LARGE_PLAN if arguments.large else OBLIQUE_PLAN if arguments.oblique else MODEL_PLAN
            sample(arguments.structures, make, plan)
        elif arguments.dense or arguments.lattices:
            make, plan = (dense_snapshot, DENSE_PLAN) if arguments.dense else (lattice_snapshot, LATTICE_PLAN)
            sample(arguments.structures, make, plan)
        else:
            sample(arguments.structures, partial(snapshot, calculator=StillingerWeber()), PLAN)
    elif arguments.command == "label":
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "pulay":
        pulay(arguments.work, arguments.target)
    elif arguments.command == "compare":
        compare(arguments.work, arguments.other, arguments.target)
    elif arguments.command == "convergence":
        convergence(arguments.structures, arguments.work, arguments.target)


if __name__ == "__main__":
    main()
