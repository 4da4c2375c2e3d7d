"""The bilayer graphene data set: pz Hamiltonians by Quantum ESPRESSO and Wannier90, referred to the vacuum level.

    python graphene.py sample graphene.extxyz                 # primitive cells: shifts, distances, strains, noise
    python graphene.py label graphene.extxyz work --part 0/2  # DFT; one file per structure, skips what is done
    python graphene.py collect work graphene.h5               # one compressed data set

C.UPF (LDA, norm-conserving), 40 Ry, 9x9 mesh, 26 bands per primitive cell.  The functions are pz projections without
localization steps; the frozen window holds the π bands around the Fermi level alone.  A structure with a spread above
1.2 Å^2, a window that misses its bands, or no flat vacuum is not labelled: work/NAME.rejected says why.  Seeds are
below 1000.
"""
import argparse
import shutil
import time
from pathlib import Path

import espresso
import numpy as np
from ase import Atoms
from ase.io import read, write

from ase_mlelec import WannierHamiltonian
from ase_mlelec.io.atomic import replacing
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.wannier90 import Wannier90Error, read_centres
from ase_mlelec.train.hamiltonian_data import (Function, HamiltonianFrame, at_their_atoms, referred_to,
                                               write_hamiltonians)

PSEUDO = {"C": "C.UPF"}
SYSTEM = dict(ecutwfc=40.0, occupations="smearing", smearing="gaussian", degauss=0.01)
MESH = (9, 9, 1)
BANDS = 26                      # up to 17 eV above the Fermi level, for the disentanglement
WINDOW = (-10.5, 17.0)          # eV from the Fermi level
FROZEN = (-2.3, 1.8)            # eV; the σ bands start 3.1 eV below, free-electron ones 3 eV above
MAX_SPREAD = 1.2                # Å^2
MAX_IMAGINARY = 1e-3            # eV, of any element of H(R)
MAX_MISMATCH = 0.01             # eV, of a DFT level within 1.5 eV of the Fermi level
FLAT = 0.01                     # eV, of the potential over the middle Å of the vacuum
A = 2.46                        # Å
EMPTY = 14.0                    # Å of vacuum: the layers' images are out of reach of each other

# (what, structures, distance from, to Å, isotropic strain from, to, shear, noise in plane and out of plane Å, seed)
PLAN = [
    ("shift", 48, 3.20, 3.60, 0.0, 0.0, 0.0, 0.0, 0.0, 0),
    ("distance", 30, 2.90, 4.20, 0.0, 0.0, 0.0, 0.0, 0.0, 100),
    ("strain", 30, 3.10, 3.80, -0.02, 0.04, 0.01, 0.0, 0.0, 200),
    ("noise", 60, 3.10, 3.90, -0.015, 0.03, 0.005, 0.015, 0.04, 300),
]


def bilayer(shift, distance, a=A, strain=None, noise=(0.0, 0.0), rng=None):
    """Four atoms: AA stacking whose upper layer is moved by ``shift`` (fractions of the cell vectors)."""
    cell = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, distance + EMPTY]])
    sites = np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3]])
    fractions = np.hstack([np.concatenate([sites, sites + shift]), np.zeros((4, 1))])
    if strain is not None:
        cell[:2, :2] = cell[:2, :2] @ (np.eye(2) + strain)
    atoms = Atoms("C4", fractions @ cell, cell=cell, pbc=True)
    atoms.positions[:, 2] = EMPTY / 2 + np.repeat([0, distance], 2)
    if rng is not None:
        atoms.positions += rng.normal(0, 1, (4, 3)) * [noise[0], noise[0], noise[1]]
    return atoms


def sample(path):
    done = {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()
    for kind, count, near, far, low, high, shear, flat, rough, first_seed in PLAN:
        for k in range(count):
            seed = first_seed + k
            rng, name = np.random.default_rng(seed), f"{kind}-{seed:03d}"
            # the golden ratios fill cell and ranges evenly, whatever part of them is done
            shift = np.array([0.7548777 * seed, 0.5698403 * seed]) % 1
            distance = near + (far - near) * ((0.6180340 * seed) % 1)
            strain = rng.normal(0, shear / 2, (2, 2))
            strain = (strain + strain.T) / 2 + np.eye(2) * (low + (high - low) * rng.random())
            if name not in done:
                atoms = bilayer(shift, distance, strain=strain, noise=(flat, rough), rng=rng)
                atoms.info = {"name": name}
                write(path, atoms, append=True)
                print(name, f"{distance:.2f} Å, shift {shift[0]:.2f} {shift[1]:.2f}", flush=True)


def calculate(atoms, directory):
    """Energy, forces, H(R), centres and vacuum level of one structure.

    Raises Wannier90Error where the functions or the vacuum are not good enough.
    """
    shutil.rmtree(directory, ignore_errors=True)
    espresso.pw(atoms, directory, "scf", PSEUDO, MESH, system=SYSTEM, electrons=dict(conv_thr=1e-9))
    scf = read_pw(directory / espresso.SAVE)
    level, spread = espresso.vacuum_level(atoms, directory)
    if spread > FLAT:
        raise Wannier90Error(f"vacuum: got a potential that varies by {1000 * spread:.0f} meV, need less than "
                             f"{1000 * FLAT:.0f}; make the cell higher")
    espresso.pw(atoms, directory, "nscf", PSEUDO, espresso.full_mesh(MESH),
                control=dict(calculation="nscf", tprnfor=False, tstress=False),
                system=dict(SYSTEM, nbnd=BANDS, nosym=True, noinv=True),
                electrons=dict(conv_thr=1e-7, diago_full_acc=True))
    fermi = scf.fermi_level
    extra = (f"num_bands = {BANDS}\nnum_iter = 0\ndis_num_iter = 400\ndis_conv_tol = 1e-10\n"
             f"dis_froz_min = {fermi + FROZEN[0]:.4f}\ndis_froz_max = {fermi + FROZEN[1]:.4f}\n"
             f"dis_win_min = {fermi + WINDOW[0]:.4f}\ndis_win_max = {fermi + WINDOW[1]:.4f}")
    found = WannierHamiltonian.read(espresso.hamiltonian(atoms, directory, "C: pz", len(atoms), MESH, extra))
    spreads = read_centres(directory / "x.wout").spreads
    if spreads.max() > MAX_SPREAD:
        raise Wannier90Error(f"got a spread of {spreads.max():.2f} Å^2, need at most {MAX_SPREAD}")
    imaginary = 0.0 if found.bloch.is_real else abs(found.bloch.stacked.data.imag).max()
    if imaginary > MAX_IMAGINARY:
        raise Wannier90Error(f"got complex elements of H(R), {1000 * imaginary:.1f} meV, need at most "
                             f"{1000 * MAX_IMAGINARY:g}")
    mismatch = worst_level(found, directory, fermi)
    if mismatch > MAX_MISMATCH:
        raise Wannier90Error(f"got a DFT level {1000 * mismatch:.0f} meV off the Wannier bands, need at most "
                             f"{1000 * MAX_MISMATCH:.0f}")
    return scf, found, spreads, level, mismatch


def worst_level(hamiltonian, directory, fermi):
    """The largest distance, eV, of a DFT level within 1.5 eV of the Fermi level from the nearest Wannier level."""
    lines = (directory / "x.eig").read_text().split()
    levels = np.array(lines, dtype=float).reshape(-1, BANDS, 3)[:, :, 2]
    found = hamiltonian.eigenvalues(espresso.full_mesh(MESH)[:, :3])
    distance = abs(levels[:, :, None] - found[:, None]).min(axis=2)
    return float(distance[abs(levels - fermi) < 1.5].max(initial=0.0))


def label(atoms, work):
    """DFT of one structure; the result appears as one file, or the reason why there is none."""
    name = atoms.info["name"]
    target, rejected, directory = work / f"{name}.npz", work / f"{name}.rejected", work / name
    if target.exists() or rejected.exists():
        return
    start = time.time()
    try:
        scf, found, spreads, level, mismatch = calculate(atoms, directory)
    except Wannier90Error as error:
        rejected.write_text(f"{error}\n")
        print(f"{name}: rejected, {error}", flush=True)
    else:
        with replacing(target) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, numbers=atoms.numbers, cell=atoms.cell.array, positions=atoms.positions,
                                energy=scf.energy, forces=scf.forces, fermi_level=scf.fermi_level, vacuum_level=level,
                                r_vectors=found.r_vectors, matrices=found.bloch.toarray().real.astype(np.float32),
                                centres=found.centres, spreads=spreads, mismatch=mismatch, seconds=time.time() - start)
        print(f"{name}: spread {spreads.max():.3f} Å^2, levels within {1000 * mismatch:.1f} meV, work function "
              f"{level - scf.fermi_level:.3f} eV, {time.time() - start:.0f} s", flush=True)
    shutil.rmtree(directory)


def role(name):
    """Which structures train, which steer the training, and which are never seen until the end."""
    return {3: "test", 5: "validation", 9: "test"}.get(int(name.split("-")[1]) % 12, "train")


def load_result(path):
    """One labelled structure of ``label``, as a HamiltonianFrame."""
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
    functions = [Function(atom, "pz") for atom in range(len(atoms))]
    hamiltonian = WannierHamiltonian(data["cell"], data["r_vectors"], data["matrices"].astype(float),
                                     data["centres"])
    hamiltonian = referred_to(at_their_atoms(hamiltonian, atoms, functions), float(data["vacuum_level"]))
    return HamiltonianFrame(atoms, hamiltonian, functions, float(data["energy"]), data["forces"], path.stem,
                            role(path.stem))


def collect(work, target):
    """Gather all finished labels into one compressed data set."""
    frames = [load_result(path) for path in sorted(work.glob("*.npz"))]
    settings = {"program": "Quantum ESPRESSO 6.7, Wannier90 3.1", "pseudopotential": "C.UPF (LDA)",
                "ecutwfc_Ry": SYSTEM["ecutwfc"], "kpoints": "9x9x1", "bands": BANDS, "projections": "C: pz",
                "localization_steps": 0, "frozen_window_eV": FROZEN}
    write_hamiltonians(target, frames, {"electrons_per_atom": {"C": 1}, "settings": settings})
    groups = [frame.group for frame in frames]
    print(f"{len(frames)} structures: " + ", ".join(f"{groups.count(g)} {g}" for g in sorted(set(groups)))
          + f"; {len(list(work.glob('*.rejected')))} rejected")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sample":
        sample(arguments.structures)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    else:
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)


if __name__ == "__main__":
    main()
