"""Labels of the ice data set by Quantum ESPRESSO and Wannier90, and the data set that they make."""

import gzip
import shutil
import time
from dataclasses import replace
from pathlib import Path

import espresso
import numpy as np
from ase import Atoms
from ice_dynamics import pressure_of, small_fluid
from ice_structures import ice_atoms, snapshot

from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import read_ph, read_pw
from ase_mlelec.io.wannier90 import Wannier90Error, assign_centers, read_centers

PSEUDO = {"H": "H_HSCV_PBE-1.0.UPF", "O": "O_HSCV_PBE-1.0.UPF"}
CUTOFF = 85.0  # Ry
PULAY_VIRIAL = 0.203  # eV/atom, what "pulay" prints at both lattice constants: 8 to 12 GPa
CHARGES = {"O": 6, "H": 1}  # of the ions, e
CENTERS = {"O": 4}  # Wannier functions per atom, two electrons each
MAX_SPREAD = 0.9  # Å^2; larger ones are in a wrong minimum
# (phase, lattice constant Å, seed) of the cells whose Born charges are calculated, two molecules each
RESPONSES = [
    ("molecular", 3.00, 800),
    ("molecular", 2.85, 801),
    ("hopping", 2.78, 802),
    ("hopping", 2.70, 803),
    ("symmetric", 2.66, 804),
    ("symmetric", 2.60, 805),
]
# the same of cells that train
TAUGHT_RESPONSES = [
    ("molecular", 2.92, 810),
    ("symmetric", 2.63, 811),
    ("hopping", 2.74, 812),
    ("hot", 2.80, 813),
    ("molecular", 3.08, 814),
    ("symmetric", 2.56, 815),
    ("hot", 3.00, 816),
    ("hopping", 2.65, 817),
]
# the same of cells that are to train polarizabilities, in a file of their own; "fluid" is from dynamics at 1,000 or 2,000 K
FURTHER_RESPONSES = [
    ("fluid", 3.10, 820),
    ("molecular", 2.80, 821),
    ("fluid", 2.77, 822),
    ("hopping", 2.82, 823),
    ("hot", 2.68, 824),
    ("symmetric", 2.69, 825),
    ("fluid", 2.58, 826),
    ("molecular", 3.00, 827),
    ("hopping", 2.70, 828),
    ("hot", 2.92, 829),
    ("symmetric", 2.60, 831),
    ("molecular", 2.86, 832),
    ("hopping", 2.61, 834),
    ("hot", 2.75, 835),
    ("molecular", 3.12, 837),
    ("symmetric", 2.66, 838),
    ("hot", 3.05, 840),
    ("hopping", 2.78, 841),
    ("molecular", 2.74, 842),
]
# tests of the polarizability in a fluid, beside RESPONSES
FLUID_RESPONSES = [("fluid", 3.05, 806), ("fluid", 2.72, 807), ("fluid", 2.54, 808)]
RESPONSE_MESH = (4, 4, 4)  # shifted by half a step


def pseudopotentials(folder):
    """Unpack the HSCV pseudopotentials, which come with Quantum ESPRESSO's documentation, to a folder; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PSEUDO.values():
        if (folder / name).exists():
            continue
        if (Path(espresso.PSEUDO) / name).exists():
            data = (Path(espresso.PSEUDO) / name).read_bytes()
        elif packed := sorted(Path("/usr/share/doc").glob(f"quantum-espresso*/**/{name}.gz")):
            data = gzip.decompress(packed[0].read_bytes())
        else:
            raise FileNotFoundError(
                f"{name}: neither in {espresso.PSEUDO} nor, as {name}.gz, below /usr/share/doc/"
                "quantum-espresso; install Debian's quantum-espresso package, or put the file "
                "into a folder and name that in ESPRESSO_PSEUDO"
            )
        with replacing(folder / name) as partial:
            partial.write_bytes(data)
    return str(folder.resolve())


def calculate(atoms, directory, kpts, cutoff=CUTOFF, koffset=(0, 0, 0)):
    shutil.rmtree(directory, ignore_errors=True)
    espresso.pw(
        atoms,
        directory,
        "scf",
        PSEUDO,
        kpts,
        koffset,
        system=dict(ecutwfc=cutoff, nosym=True),
        electrons=dict(conv_thr=1e-10),
        control=dict(pseudo_dir=pseudopotentials(directory.parent / "pseudo")),
    )
    return read_pw(directory / espresso.SAVE)


def label(atoms, work):
    """DFT and Wannier centers of one structure; the result appears as one file, or the reason why there is none."""
    name = atoms.info["name"]
    target, rejected = work / f"{name}.npz", work / f"{name}.rejected"
    if target.exists() or rejected.exists():
        return
    start, directory = time.time(), work / name
    result = calculate(atoms, directory, None)
    try:
        output = espresso.wannier(atoms, directory, "O: sp3", sum(CENTERS.get(s, 0) for s in atoms.symbols))
        centers = read_centers(output)
        centroids, _ = assign_centers(atoms, centers, CENTERS, max_spread=MAX_SPREAD)
    except (Wannier90Error, RuntimeError) as error:
        rejected.write_text(f"{error}\n")
    else:
        with replacing(target) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file,
                numbers=atoms.numbers,
                cell=atoms.cell.array,
                positions=atoms.positions,
                energy=result.energy,
                forces=result.forces,
                stress=result.stress,
                centroids=centroids,
                centers=centers.positions,
                spreads=centers.spreads,
                seconds=time.time() - start,
            )
    shutil.rmtree(directory)
    print(
        f"{name}: {result.energy / len(atoms):.4f} eV/atom, {pressure_of(result.stress):.1f} GPa, "
        f"{'rejected, ' if rejected.exists() else ''}{time.time() - start:.0f} s",
        flush=True,
    )


def respond(work):
    """Born charges and dielectric tensors of all cells of RESPONSES and the like.

    Cells of two molecules, for the sake of the points: at Γ alone the charges of 16 molecules sum to -7 to -11 e.
    """
    (work / "response").mkdir(parents=True, exist_ok=True)
    for phase, a, seed in RESPONSES + FLUID_RESPONSES + TAUGHT_RESPONSES + FURTHER_RESPONSES:
        name = f"{phase}-{1000 * a:.0f}-{seed:03d}"
        target, directory, start = work / "response" / f"{name}.npz", work / f"response-{name}", time.time()
        if target.exists():
            continue
        atoms = small_fluid(a, seed) if phase == "fluid" else snapshot(phase, a, seed, repeat=1)
        calculate(atoms, directory, RESPONSE_MESH, koffset=(1, 1, 1))
        espresso.response(directory)
        born, dielectric = read_ph(directory / "response.out")
        with replacing(target) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file,
                numbers=atoms.numbers,
                cell=atoms.cell.array,
                positions=atoms.positions,
                born_charges=born,
                dielectric=dielectric,
                seconds=time.time() - start,
            )
        shutil.rmtree(directory)
        print(
            f"{name}: dielectric constant {np.trace(dielectric) / 3:.3f}, charges sum to "
            f"{abs(born.sum(axis=0)).max():.3f} e, {time.time() - start:.0f} s",
            flush=True,
        )


def pulay(work):
    """Print the Pulay virial of ice VII at two lattice constants."""
    for a in (2.70, 2.95):
        atoms, directory = ice_atoms(a, np.random.default_rng(0)), work / "pulay"
        virial = espresso.pulay_virial(
            lambda cutoff: calculate(atoms, directory, None, cutoff).energy, len(atoms), CUTOFF - 5, CUTOFF + 5
        )
        print(f"a = {a} Å: {virial:.4f} eV/atom", flush=True)
        shutil.rmtree(directory)


def role(name):
    """Which structures train, which steer the training, and which are never seen until the end; MD runs as a whole."""
    if name.startswith(("close", "response")):
        return "train"
    return {3: "test", 5: "validation", 9: "test"}.get(int(name.split("-")[2]) % 12, "train")


def load_result(path):
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
    oxygen = atoms.symbols == "O"
    displacement = np.zeros((len(atoms), 3))
    displacement[oxygen] = data["centroids"] - atoms.positions[oxygen]
    charges = np.array([CHARGES[symbol] for symbol in atoms.symbols], dtype=float)
    virial = PULAY_VIRIAL * len(atoms) * np.eye(3) - data["stress"] * atoms.get_volume()
    dipole = charges @ atoms.positions - 2 * CENTERS["O"] * data["centroids"].sum(axis=0)
    labels = {
        "energy": float(data["energy"]),
        "forces": data["forces"],
        "virial": virial,
        "atomic_dipole": displacement,
        "dipole": dipole,
    }
    return Frame(atoms, labels, path.stem, role(path.stem))


def load_response(path):
    """Born charges of one cell, less what they lack to obey the sum rule."""
    with np.load(path) as stored:
        atoms = Atoms(stored["numbers"], stored["positions"], cell=stored["cell"], pbc=True)
        born = stored["born_charges"] - stored["born_charges"].mean(axis=0)
    return Frame(atoms, {"born_charges": born}, f"response-{path.stem}", "train")


def load_polarizability(path, group):
    """As ``load_response``, with the polarizability."""
    frame = load_response(path)
    with np.load(path) as stored:
        tensor = polarizability(stored["dielectric"], frame.atoms.get_volume())
    return replace(frame, labels=frame.labels | {"polarizability": tensor}, group=group)


def polarizability(dielectric, volume):
    """Change of the dipole of a cell (Å^3) in the macroscopic field, from its dielectric tensor and volume (Å^3)."""
    symmetric = (dielectric + dielectric.T) / 2
    return volume * (symmetric - np.eye(3)) / (4 * np.pi)


def collect(work, target):
    """Gather all finished labels into one compressed data set, with those that are there, and responses beside it."""
    former = read_hdf5(target) if target.exists() else ()
    by_name = {frame.name: replace(frame, group=role(frame.name)) for frame in former}
    by_name |= {path.stem: load_result(path) for path in sorted(work.glob("*.npz"))}
    responses = {int(path.stem[-3:]): path for path in sorted((work / "response").glob("*.npz"))}
    taught = [load_response(responses[seed]) for _, _, seed in TAUGHT_RESPONSES if seed in responses]
    by_name |= {frame.name: frame for frame in taught}
    frames = list(by_name.values())
    virials = [frame.labels["virial"] / frame.atoms.get_volume() for frame in frames if "virial" in frame.labels]
    pressures = [pressure_of(-virial) for virial in virials]
    settings = {
        "program": "Quantum ESPRESSO 6.7, Wannier90 3.1",
        "pseudopotentials": f"{PSEUDO['O']}, {PSEUDO['H']}",
        "functional": "PBE",
        "ecutwfc_Ry": CUTOFF,
        "kpoints": "Gamma, cells of 16 H2O",
        "pulay_virial_added_eV_per_atom": PULAY_VIRIAL,
    }
    write_hdf5(
        target,
        Frames(
            frames,
            None,
            {
                "settings": settings,
                "valence_charges": CHARGES,
                "electrons_per_centre": {symbol: 2 * count for symbol, count in CENTERS.items()},
                "atomic_dipole": "Å, from an atom to the mean of its Wannier centers; 0 where it has none",
                "dipole": "e Å, of ions and electrons, each centroid next to its atom",
                "born_charges": f"e, of ph.x, a {RESPONSE_MESH[0]}^3 mesh off Γ, cells of two molecules",
            },
        ),
    )
    groups = [frame.group for frame in frames]
    print(
        f"{len(frames)} structures: "
        + ", ".join(f"{groups.count(g)} {g}" for g in sorted(set(groups)))
        + f"; {min(pressures):.0f} to {max(pressures):.0f} GPa; {len(list(work.glob('*.rejected')))} rejected"
    )
    write_polarizabilities(responses, target.with_name(f"{target.stem}_polarizability.h5"))
    tests = [responses[seed] for _, _, seed in RESPONSES if seed in responses]
    if tests:
        stored = [np.load(path) for path in tests]
        with replacing(target.with_name(f"{target.stem}_response.npz")) as partial, open(partial, "wb") as file:
            np.savez_compressed(
                file,
                name=[path.stem for path in tests],
                **{
                    key: np.array([data[key] for data in stored])
                    for key in ("numbers", "cell", "positions", "born_charges", "dielectric")
                },
            )


def write_polarizabilities(responses, target):
    """Data set of ``responses``, paths by seed, with polarizabilities."""
    groups = {"train": TAUGHT_RESPONSES + FURTHER_RESPONSES, "test": RESPONSES + FLUID_RESPONSES}
    frames = [
        load_polarizability(responses[seed], group)
        for group, cells in groups.items()
        for *_, seed in cells
        if seed in responses
    ]
    if frames:
        about = f"Å^3, of ph.x, a {RESPONSE_MESH[0]}^3 mesh off Γ, cells of two molecules: V (ε - 1) / 4π"
        write_hdf5(target, Frames(frames, None, {"valence_charges": CHARGES, "polarizability": about}))
        print(f"{len(frames)} polarizabilities")
