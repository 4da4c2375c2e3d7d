"""The aluminium data set: structures from molecular dynamics, labeled by Quantum ESPRESSO with the LDOS on the grid.

    python aluminium.py sample structures.extxyz              # structures from EMT molecular dynamics
    python aluminium.py lattices lattices.extxyz              # perfect crystals at many volumes, a set of their own
    python aluminium.py label structures.extxyz work          # DFT; one file per structure, skips what is done
    python aluminium.py collect work aluminium.h5             # one compressed data set, grid points sub-sampled
    python aluminium.py pulay work                            # the part that the stress of pw.x lacks at this cutoff

Al.pz-vbc, 15 Ry, 8^3 k points per 4 atoms, Fermi-Dirac at the temperature of the atoms.  LDOS on 171 energies from -6
to 11 eV with Gaussians exp(-(x/s)^2), s = 0.2 eV.  Seeds are below 1000.
"""

import argparse
import shutil
import time
from pathlib import Path

import espresso
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from ase_mlelec.data.snapshots import Snapshot, write_snapshots
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.physics import fermi

PSEUDO = {"Al": "Al.pz-vbc.UPF"}
ENERGIES = np.linspace(-6.0, 11.0, 171)  # eV
WIDTH = 0.2  # eV
CUTOFF = 15.0  # Ry
PULAY_VIRIAL = 0.102  # eV/atom, mean of what "pulay" prints: 0.098 and 0.107
KPOINTS = {4: (8, 8, 8), 8: (8, 8, 4), 16: (8, 4, 4), 32: (4, 4, 4)}
REPEAT = {4: (1, 1, 1), 8: (1, 1, 2), 16: (1, 2, 2), 32: (2, 2, 2)}
LATTICE_CONSTANT = 4.05  # Å, the density of the paper
WHOLE = ("solid-4-298K-001", "liquid-4-933K-105")

# (phase, atoms, temperature K, structures, first seed, largest strain)
PLAN = [
    ("solid", 4, 298, 24, 0, 0.0),
    ("solid", 4, 933, 24, 50, 0.0),
    ("liquid", 4, 933, 36, 100, 0.0),
    ("solid", 8, 298, 8, 200, 0.0),
    ("solid", 8, 933, 8, 220, 0.0),
    ("liquid", 8, 933, 16, 240, 0.0),
    ("strained", 4, 298, 12, 300, 0.05),
    ("strained", 4, 933, 12, 320, 0.05),
    ("solid", 16, 298, 2, 400, 0.0),
    ("solid", 16, 933, 2, 410, 0.0),
    ("liquid", 16, 933, 12, 420, 0.0),
    ("solid", 32, 298, 1, 500, 0.0),
    ("solid", 32, 933, 1, 510, 0.0),
    ("liquid", 32, 933, 2, 520, 0.0),
]


LATTICE_CONSTANTS = np.linspace(3.82, 4.18, 31)  # Å, of the perfect crystals
LATTICE_SEED = 600


def dynamics(atoms, temperature, steps, rng):
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    Langevin(atoms, 3 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng).run(steps)
    atoms.wrap()


def snapshot(phase, n_atoms, temperature, seed, strain):
    """Fixed density, except for "strained": a random volume within ±3 ``strain``/2 and a random shear."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Al", "fcc", a=LATTICE_CONSTANT, cubic=True) * REPEAT[n_atoms]
    if strain:
        shear = rng.normal(0, strain / 4, (3, 3))
        shear = (shear + shear.T) / 2
        shear += np.eye(3) * (rng.uniform(-strain, strain / 2) - np.trace(shear) / 3)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
    if phase == "liquid":
        dynamics(atoms, 4000, 500, rng)
    dynamics(atoms, temperature, 400, rng)
    atoms.calc = None
    atoms.info = {"name": f"{phase}-{n_atoms}-{temperature}K-{seed:03d}", "temperature": temperature, "seed": seed}
    return atoms


def sample(path):
    done = {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()
    for phase, n_atoms, temperature, count, first_seed, strain in PLAN:
        for seed in range(first_seed, first_seed + count):
            if f"{phase}-{n_atoms}-{temperature}K-{seed:03d}" not in done:
                write(path, snapshot(phase, n_atoms, temperature, seed, strain), append=True)


def lattices(path):
    """Perfect crystals, from which the energy learns how it depends on the volume."""
    for seed, a in enumerate(LATTICE_CONSTANTS, LATTICE_SEED):
        atoms = bulk("Al", "fcc", a=a, cubic=True)
        atoms.info = {"name": f"lattice-4-298K-{seed:03d}", "temperature": 298, "seed": seed}
        write(path, atoms, append=True)


def calculate(atoms, directory, temperature, cutoff=CUTOFF, symmetric=False):
    n_atoms = len(atoms)
    espresso.pw(
        atoms,
        directory,
        "scf",
        PSEUDO,
        KPOINTS[n_atoms],
        system=dict(
            ecutwfc=cutoff,
            occupations="smearing",
            smearing="fermi-dirac",
            nosym=not symmetric,
            degauss=units.kB * temperature / units.Ry,
            nbnd=int(np.ceil(2.025 * n_atoms)) + 4,
        ),
        # Eq. (9) is of first order in the error of the density
        electrons=dict(conv_thr=1e-10),
    )
    return read_pw(directory / espresso.SAVE)


def label(atoms, work):
    """DFT of one structure; the result appears as one file, or not at all."""
    target = work / f"{atoms.info['name']}.npz"
    if target.exists():
        return
    start, directory, n_atoms = time.time(), work / atoms.info["name"], len(atoms)
    shutil.rmtree(directory, ignore_errors=True)
    temperature = float(atoms.info["temperature"])
    result = calculate(atoms, directory, temperature, symmetric=atoms.info["name"].startswith("lattice"))
    ldos = espresso.ldos(directory, ENERGIES, WIDTH)
    partial = directory / "result.npz"
    scale = ldos.max() / 65535
    np.savez_compressed(
        partial,
        cell=atoms.cell.array,
        positions=atoms.positions,
        temperature=temperature,
        energy=result.energy,
        forces=result.forces,
        stress=result.stress,
        fermi_level=result.fermi_level,
        seconds=time.time() - start,
        scale=scale,
        ldos=np.rint(np.clip(ldos, 0, None) / scale).astype(np.uint16),
        smallest=ldos.min(),
        dos=ldos.mean(axis=(0, 1, 2)) * atoms.get_volume(),
        **{f"term_{name}": value for name, value in result.terms.items()},
    )
    partial.rename(target)
    shutil.rmtree(directory)
    print(f"{atoms.info['name']}: {result.energy / n_atoms:.4f} eV/atom, {time.time() - start:.0f} s", flush=True)


def role(name):
    """Which snapshots train, which steer the training, and which are never seen until the end."""
    _phase, n_atoms, _, seed = name.split("-")
    if int(n_atoms) > 16:
        return "test"
    return {1: "test", 3: "validation", 6: "test"}.get(int(seed) % 8, "train")


def load_result(path, n_points=None):
    """One labeled structure of ``label`` as a Snapshot, with the LDOS of all grid points, or of ``n_points`` random ones
    per four atoms.
    """
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    ldos = data["ldos"] * float(data["scale"])
    shape, temperature, n_atoms = ldos.shape[:3], float(data["temperature"]), len(data["positions"])
    level = fermi.fermi_level(ENERGIES, data["dos"], 3.0 * n_atoms, temperature)
    density = ldos @ fermi.integration_weights(ENERGIES, level, temperature)[0]
    ldos, points = ldos.reshape(-1, len(ENERGIES)), None
    if n_points is not None:
        seed = int.from_bytes(path.stem.encode(), "big") % 2**32
        points = np.sort(np.random.default_rng(seed).choice(len(ldos), n_points * n_atoms // 4, replace=False))
        ldos = ldos[points]
    atoms = Atoms(f"Al{n_atoms}", data["positions"], cell=data["cell"], pbc=True)
    stress = data["stress"] - PULAY_VIRIAL * n_atoms / atoms.get_volume() * np.eye(3)
    return Snapshot(
        atoms,
        shape,
        temperature,
        ldos,
        data["dos"],
        points,
        density,
        float(data["energy"]),
        data["forces"],
        stress,
        float(data["fermi_level"]),
        path.stem,
        role(path.stem),
    )


def pulay(work):
    """Print the Pulay virial of the crystal at two lattice constants."""
    for a in (3.95, LATTICE_CONSTANT):
        atoms, directory = bulk("Al", "fcc", a=a, cubic=True), work / "pulay"
        virial = espresso.pulay_virial(lambda cutoff: calculate(atoms, directory, 933.0, cutoff).energy, 4, 14.0, 16.0)
        print(f"a = {a} Å: {virial:.4f} eV/atom")
        shutil.rmtree(directory)


def collect(work, target, n_points):
    """Gather all finished labels into one compressed data set; the snapshots in WHOLE keep all grid points."""
    paths = sorted(work.glob("*.npz"))
    settings = {
        "program": "Quantum ESPRESSO 6.7",
        "pseudopotential": PSEUDO["Al"] + " (LDA)",
        "ecutwfc_Ry": CUTOFF,
        "kpoints": "8x8x8 per 4 atoms",
        "smearing": "Fermi-Dirac at the temperature of the snapshot",
        "pulay_virial_added_eV_per_atom": PULAY_VIRIAL,
    }
    snapshots = (load_result(path, None if path.stem in WHOLE else n_points) for path in paths)
    write_snapshots(
        target,
        snapshots,
        energies=ENERGIES,
        attributes={
            "dos_width_eV": WIDTH,
            "energy_reference": "average electrostatic potential of the cell (Quantum ESPRESSO)",
            "valence_electrons": {"Al": 3},
            "xc": "lda_pz",
            "grid_spacing_A": 4.05 / 20,
            "settings": settings,
        },
    )
    groups = [role(path.stem) for path in paths]
    print(f"{len(paths)} snapshots: " + ", ".join(f"{groups.count(g)} {g}" for g in sorted(set(groups))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("sample", "lattices"):
        commands.add_parser(name).add_argument("structures")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command.add_argument("--points", type=int, default=300, help="grid points per four atoms that keep their LDOS")
    command = commands.add_parser("pulay")
    command.add_argument("work", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "pulay":
        pulay(arguments.work)
    elif arguments.command == "sample":
        sample(arguments.structures)
    elif arguments.command == "lattices":
        lattices(arguments.structures)
    elif arguments.command == "label":
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target, arguments.points)


if __name__ == "__main__":
    main()
