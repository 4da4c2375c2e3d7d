"""What the data sets of bilayers share: sampling, checks of Hamiltonians, labels as files, one data set of them all.

A structure whose Wannier functions or vacuum are not good enough is not labeled: work/NAME.rejected says why.  Seeds
are below 10000.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import espresso
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from ase_mlelec import WannierHamiltonian
from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.data.hamiltonians import HamiltonianFrame, Hamiltonians, at_their_atoms, referred_to, write_hamiltonians
from ase_mlelec.io.espresso import PwResult
from ase_mlelec.io.wannier90 import Wannier90Error, read_centers

MAX_IMAGINARY = 1e-3  # eV, of any element of H(R)
MAX_AWAY = 0.8  # Å, of a function's center from its atom
FLAT = 0.005  # eV, of the potential over half an Å on either side of the middle of the vacuum


class Kind(NamedTuple):
    """A group of structures.

    distance : (from, to), Å; strain : (from, to), isotropic; shear : standard deviation of twice its elements
    noise : (in the plane, out of it), Å, standard deviations; hamiltonian : False, energy and forces only
    """

    name: str
    count: int
    distance: tuple
    strain: tuple
    shear: float
    noise: tuple
    first_seed: int
    hamiltonian: bool = True


class Label(NamedTuple):
    """What the calculation of a structure gives; without a Hamiltonian ``scf``, and ``vacuum`` where that is known.

    spreads : array [W], Å^2; vacuum : (below, above) the layers, eV; mismatch : eV, of the worst DFT level
    """

    scf: PwResult
    hamiltonian: WannierHamiltonian | None = None
    spreads: np.ndarray | None = None
    vacuum: tuple = ()
    mismatch: float = 0.0


def sample(path, plan, build):
    """Append to ``path`` the structures of ``plan`` that are not in it yet.

    build : callable of (kind, seed, shift [2], distance, strain [2, 2], random numbers) -> Atoms
    """
    done = {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()
    for kind in plan:
        for seed in range(kind.first_seed, kind.first_seed + kind.count):
            rng, name = np.random.default_rng(seed), f"{kind.name}-{seed:03d}"
            # the golden ratios fill cell and ranges evenly, whatever part of them is done
            shift = np.array([0.7548777 * seed, 0.5698403 * seed]) % 1
            near, far = kind.distance
            distance = near + (far - near) * ((0.6180340 * seed) % 1)
            strain = rng.normal(0, kind.shear / 2, (2, 2))
            low, high = kind.strain
            strain = (strain + strain.T) / 2 + np.eye(2) * (low + (high - low) * rng.random())
            if name not in done:
                atoms = build(kind, seed, shift, distance, strain, rng)
                atoms.info = {"name": name}
                write(path, atoms, append=True)
                print(name, f"{distance:.2f} Å, shift {shift[0]:.2f} {shift[1]:.2f}", flush=True)


def flat_vacuum(atoms, directory, away=0.0):
    """(below, above): vacuum levels on the two sides of the layers after an scf run, eV; see espresso.vacuum_levels.

    Raises Wannier90Error where the potential is not flat.
    """
    below, above, spread = espresso.vacuum_levels(atoms, directory, away)
    if spread > FLAT:
        raise Wannier90Error(
            f"vacuum: got a potential that varies by {1000 * spread:.0f} meV, need less than "
            f"{1000 * FLAT:.0f}; make the cell higher"
        )
    return below, above


def all_bands(atoms, directory, pseudopotentials, mesh, bands, system, **control):
    """The nscf run that Wannier90 needs: every point of the mesh, without symmetry."""
    espresso.pw(
        atoms,
        directory,
        "nscf",
        pseudopotentials,
        espresso.full_mesh(mesh),
        control=dict(control, calculation="nscf", tprnfor=False, tstress=False),
        system=dict(system, nbnd=bands, nosym=True, noinv=True),
        electrons=dict(conv_thr=1e-7, diago_full_acc=True),
    )


def good_hamiltonian(path, atoms, functions, max_spread):
    """(WannierHamiltonian with its functions at their atoms, spreads Å^2) of ``x_hr.dat``.

    Raises Wannier90Error for spreads, centers and imaginary parts that are too large.
    """
    found = at_their_atoms(WannierHamiltonian.read(path), atoms, functions)
    spreads = read_centers(path.parent / "x.wout").spreads
    if spreads.max() > max_spread:
        raise Wannier90Error(f"got a spread of {spreads.max():.2f} Å^2, need at most {max_spread}")
    owners = [function.atom for function in functions]
    away = np.linalg.norm(found.centers - atoms.positions[owners], axis=1).max()
    if away > MAX_AWAY:
        raise Wannier90Error(f"got a function {away:.2f} Å from its atom, need at most {MAX_AWAY}")
    imaginary = 0.0 if found.bloch.is_real else abs(found.bloch.stacked.data.imag).max()
    if imaginary > MAX_IMAGINARY:
        raise Wannier90Error(
            f"got complex elements of H(R), {1000 * imaginary:.1f} meV, need at most {1000 * MAX_IMAGINARY:g}"
        )
    return found, spreads


def dft_levels(directory):
    """Energies [K, bands] of the bands that Wannier90 was given, eV, in the order of the mesh."""
    table = np.loadtxt(directory / "x.eig")
    return table[:, 2].reshape(-1, int(table[:, 0].max()))


def check_mismatch(mismatch, most):
    """Raises Wannier90Error where DFT's levels are further than ``most`` eV from those of the functions."""
    if mismatch > most:
        raise Wannier90Error(
            f"got a DFT level {1000 * mismatch:.2g} meV off the Wannier bands, need at most {1000 * most:g}"
        )


def label(atoms, work, calculate):
    """DFT of one structure; the result appears as one file, or the reason why there is none.

    calculate : callable of (atoms, directory) -> Label, raises Wannier90Error to reject the structure
    """
    name = atoms.info["name"]
    target, rejected, directory = work / f"{name}.npz", work / f"{name}.rejected", work / name
    if target.exists() or rejected.exists():
        return
    start = time.time()
    shutil.rmtree(directory, ignore_errors=True)
    try:
        found = calculate(atoms, directory)
    except Wannier90Error as error:
        rejected.write_text(f"{error}\n")
        print(f"{name}: rejected, {error}", flush=True)
    else:
        data, seconds = stored(found), time.time() - start
        with replacing(target) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file, numbers=atoms.numbers, cell=atoms.cell.array, positions=atoms.positions, seconds=seconds, **data
            )
        print(f"{name}: {described(data)}, {seconds:.0f} s", flush=True)
    shutil.rmtree(directory)


def stored(label):
    """dict of arrays of a Label."""
    scf, found = label.scf, label.hamiltonian
    data = dict(energy=scf.energy, forces=scf.forces, fermi_level=scf.fermi_level)
    if scf.kpoints is not None:
        data |= dict(kpoints=scf.kpoints, levels=scf.eigenvalues)
    if label.vacuum:
        below, above = label.vacuum
        data |= dict(vacuum_level=(below + above) / 2, vacuum_step=above - below)
    if found is not None:
        data |= dict(
            r_vectors=found.r_vectors,
            matrices=found.bloch.toarray().real.astype(np.float32),
            centers=found.centers,
            spreads=label.spreads,
            mismatch=label.mismatch,
        )
    return data


def described(data):
    if "r_vectors" not in data:
        return f"{data['energy']:.3f} eV, forces up to {abs(data['forces']).max():.2f} eV/Å"
    return (
        f"spread {data['spreads'].max():.3f} Å^2, levels within {1000 * data['mismatch']:.2g} meV, work function "
        f"{data['vacuum_level'] - data['fermi_level']:.3f} eV"
    )


def role(name):
    """Which structures train, which steer the training, and which are never seen until the end."""
    return {3: "test", 5: "validation", 9: "test"}.get(int(name.split("-")[1]) % 12, "train")


def load_label(path, functions_of):
    """One labeled structure of ``label``, as a HamiltonianFrame above the mean of the two vacuum levels, or as a Frame
    where it has no Hamiltonian.

    functions_of : callable of Atoms -> list of Function
    """
    with np.load(path) as file:
        data = {key: file[key] for key in file.files}
    atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
    if "r_vectors" not in data:
        return Frame(atoms, {"energy": float(data["energy"]), "forces": data["forces"]}, path.stem, role(path.stem))
    functions = functions_of(atoms)
    centers = data["centers" if "centers" in data else "centres"]  # labels of before are spelled so
    hamiltonian = WannierHamiltonian(data["cell"], data["r_vectors"], data["matrices"].astype(float), centers=centers)
    hamiltonian = referred_to(at_their_atoms(hamiltonian, atoms, functions), float(data["vacuum_level"]))
    return HamiltonianFrame(
        atoms, hamiltonian, functions, float(data["energy"]), data["forces"], path.stem, role(path.stem)
    )


def collect(work, target, functions_of, attributes, apart=()):
    """Gather all finished labels into one compressed data set, those without a Hamiltonian into another.

    apart : names of kinds that are kept in a third file, with the levels of DFT: they are for comparisons alone

    Structures that the data sets have and ``work`` has not are kept.
    """
    bare, whole, compared = [], [], []
    for path in sorted(work.glob("*.npz")):
        with np.load(path) as file:
            labeled = whole if "r_vectors" in file.files else bare
        (compared if path.stem.split("-")[0] in apart else labeled).append(path)
    if whole:
        kept = Hamiltonians(target) if target.exists() else ()
        write_hamiltonians(target, joined(kept, whole, functions_of), attributes=attributes)
        report(target, Hamiltonians(target).groups)
    if bare:
        forces = target.with_name(f"{target.stem}_forces.h5")
        frames = list(joined(read_hdf5(forces).frames if forces.exists() else (), bare, functions_of))
        write_hdf5(forces, Frames(frames, None, {"settings": attributes["settings"]}))
        report(forces, [frame.group for frame in frames])
    if compared:
        levels = target.with_name(f"{target.stem}_levels.extxyz")
        images = {atoms.info["name"]: atoms for atoms in (read(levels, ":") if levels.exists() else ())}
        images |= {path.stem: with_levels(path) for path in compared}
        with replacing(levels) as partial:
            write(partial, [images[name] for name in sorted(images)], format="extxyz")
        print(f"{levels}: {len(images)} structures")
    print(f"{len(list(work.glob('*.rejected')))} rejected")


def with_levels(path):
    """ase.Atoms of a label with energy, forces, and in ``info`` name, kpoints [K, 3], vacuum_step eV, levels [K, M], eV
    above the mean of the two vacuum levels, and filled, how many of them are at a point."""
    with np.load(path) as data:
        atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=float(data["energy"]), forces=data["forces"])
        atoms.info = {
            "name": path.stem,
            "kpoints": data["kpoints"].round(9),
            "vacuum_step": float(data["vacuum_step"]),
            "levels": (data["levels"] - data["vacuum_level"]).round(6),
            "filled": round((data["levels"] < data["fermi_level"]).sum(axis=1).mean()),
        }
    return atoms


def joined(kept, paths, functions_of):
    """Frames of a data set and of labels, one by one, by name; the label where both have one."""
    sources = {frame.name: (lambda k=k: kept[k]) for k, frame in enumerate(kept)}
    sources |= {path.stem: (lambda path=path: load_label(path, functions_of)) for path in paths}
    return (sources[name]() for name in sorted(sources))


def report(path, groups):
    print(f"{path}: {len(groups)} structures, " + ", ".join(f"{groups.count(g)} {g}" for g in sorted(set(groups))))


def main(description, plan, build, calculate, functions_of, attributes, apart=()):
    """The command line of a script: sample, label, collect."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sample":
        sample(arguments.structures, plan, build)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target, functions_of, attributes, apart)
    else:
        espresso.label_all(
            lambda atoms, work: label(atoms, work, calculate), arguments.structures, arguments.work, arguments.part
        )
