"""The magnesium oxide data set: rocksalt at 5,000 K under 237 to 599 GPa, labeled by Quantum ESPRESSO.

    python mgo.py sample first.extxyz                       # displaced lattices and MD of a classical potential
    python mgo.py sample second.extxyz --model mgo          # constant-pressure MD of a model
    python mgo.py convergence first.extxyz work mgo_convergence.csv     # DOS labels against denser k meshes
    python mgo.py pulay first.extxyz work mgo_pulay.csv     # the part that the stress of pw.x lacks at this cutoff
    python mgo.py label first.extxyz work                   # DFT; one file per structure, skips what is done
    python mgo.py collect work mgo.h5                       # one compressed data set; adds to one that is there

LDA, Mg.pz-n-vbc and O.pz-rrkjus, 35/200 Ry, Fermi-Dirac at ONE electronic temperature (5,000 K).  Energies, forces and
stress: a 3^3 mesh per 8 atoms, half a step off Γ.  Bands, their projections on the atomic s and p functions, and the
Fermi level: a 6^3 mesh with Γ, where the conduction band has its minimum, with bands interpolated to 12^3; as they are,
the DOS of magnesium above the gap is wrong by up to a fifth of its spread (mgo_convergence.csv).  Spectra are relative to
the Fermi level of each structure at 5,000 K: relative to the average potential, a gap is at other energies in each
structure, and the noise of a model fills it.  Seeds are below 1000.
"""

import argparse
import resource
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import espresso
import kmesh
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from born_mayer import BornMayer
from scipy.optimize import brentq
from scipy.special import expit
from vesin import NeighborList

from ase_mlelec import DeepPotCalculator
from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import Projections, read_projections, read_pw

TEMPERATURE = 5000.0  # K, of ions and electrons
CUTOFF, DENSITY_CUTOFF = 35.0, 200.0  # Ry
PSEUDOPOTENTIALS = {"Mg": "Mg.pz-n-vbc.UPF", "O": "O.pz-rrkjus.UPF"}
VALENCE_ELECTRONS = {"Mg": 2, "O": 6}
BANDS_PER_ATOM, ENERGY_BANDS_PER_ATOM = 5, 3
ENERGY_MESH, DOS_MESH = 3, 6  # per 8 atoms
REFINE = 2  # times as many points along each axis, by interpolation
WIDTH = 0.04 * units.Ry  # eV, Gaussian exp(-(x/s)^2)
ENERGIES = np.linspace(-14.0, 38.0, 261)  # eV, relative to the average electrostatic potential, of the convergence
FROM_FERMI_LEVEL = np.linspace(-31.0, 24.0, 276)  # eV, of the labels
REPEAT = {8: (1, 1, 1), 16: (1, 1, 2), 64: (2, 2, 2)}

# lattice constants in Å -> GPa, about, of the crystal at rest: five that train, and the four in the middle as tests.  At
# 5,000 K and the same volume the pressure is some 25 to 45 GPa higher; MD of a model is at these pressures themselves
TRAINING = {3.270: 599, 3.320: 508, 3.380: 418, 3.455: 327, 3.560: 237}
TESTS = {3.293: 554, 3.347: 463, 3.414: 373, 3.502: 282}
FORCE_CONSTANT, FORCE_CONSTANT_AT = 49.0, 3.55  # eV/Å^2, Å; ~ a^-9
SHORTEST = 1.0  # Å, between any two atoms
# (kind, atoms, lattice constants, structures of each, first seed)
PLAN = [
    ("einstein", 8, TRAINING, 12, 0),
    ("classical", 8, TRAINING, 12, 100),
    ("einstein", 8, TESTS, 5, 200),
    ("classical", 8, TESTS, 5, 250),
    ("classical", 16, TRAINING, 2, 300),
    ("classical", 16, TRAINING, 4, 310),
    ("classical", 64, TRAINING, 1, 350),
]
PULAY_STRUCTURES = ("einstein-8-3270-000", "einstein-8-3380-024", "einstein-8-3560-048")
PULAY_CUTOFFS = (33.0, 37.0)  # Ry
PULAY_VIRIAL = 0.011  # eV/atom, their mean in mgo_pulay.csv
# the same from a model's own MD at these pressures
MODEL_PLAN = [
    ("model", 8, TRAINING, 16, 400),
    ("model", 8, TESTS, 5, 500),
    ("model", 16, TRAINING, 2, 530),
    ("model", 64, TRAINING, 1, 545),
]
CONVERGENCE = ("einstein-8-3270-000", "einstein-8-3380-024")
CONVERGENCE_MESHES, CONVERGENCE_WIDTHS = (4, 5, 6, 8), (0.02, 0.03, 0.04)  # Ry
BEST_MESH = max(CONVERGENCE_MESHES)


class Levels(NamedTuple):
    """eV; projected_electrons: those that the site DOS holds below the gap, fewer than there are."""

    fermi_level: float
    valence_band_maximum: float
    conduction_band_minimum: float
    projected_electrons: float


def lattice(n_atoms, a, rng, strain=0.0):
    """Rocksalt, whose size and shape vary as those of a small cell at constant pressure do."""
    atoms = bulk("MgO", "rocksalt", a=a, cubic=True) * REPEAT[n_atoms]
    shear = rng.normal(0, strain, (3, 3))
    shear = (shear + shear.T) / 2
    shear += np.eye(3) * (rng.normal(0, strain / 3) - np.trace(shear) / 3)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
    return atoms


def snapshot(kind, n_atoms, a, seed):
    """Independent displacements of every atom, or those of molecular dynamics; cells are strained where they train."""
    rng = np.random.default_rng(seed)
    atoms = lattice(n_atoms, a, rng, 0.01 if a in TRAINING else 0.0)
    if kind == "einstein":
        constant = FORCE_CONSTANT * (FORCE_CONSTANT_AT / a) ** 9
        atoms.rattle(np.sqrt(units.kB * TEMPERATURE / constant), rng=rng)
        return atoms
    atoms.calc = BornMayer()
    thermalize_momenta(atoms, temperature_K=2 * TEMPERATURE, rng=rng)  # half of it becomes potential energy
    Langevin(atoms, 1.0 * units.fs, temperature_K=TEMPERATURE, friction=0.05 / units.fs, rng=rng, fixcm=False).run(300)
    atoms.calc = None
    return atoms


def model_snapshot(kind, n_atoms, a, seed, calculator):
    """Constant-pressure MD of a model; a run that leaves reasonable densities or distances is dropped (None)."""
    rng = np.random.default_rng(seed)
    atoms = lattice(n_atoms, a, rng, 0.01 if a in TRAINING else 0.0)
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=2 * TEMPERATURE, rng=rng)
    pressure = {**TRAINING, **TESTS}[a]
    run = NPTBerendsen(
        atoms,
        1 * units.fs,
        temperature_K=TEMPERATURE,
        pressure_au=pressure * units.GPa,
        taut=30 * units.fs,
        taup=100 * units.fs,
        compressibility_au=1 / (4 * pressure * units.GPa),
    )
    try:
        for _ in run.irun(500):
            if not 0.9 < atoms.get_volume() / (a**3 * n_atoms / 8) < 1.1:
                return None
    except InputError:  # an immature model lets atoms run into each other
        return None
    (distances,) = NeighborList(cutoff=3.0, full_list=False).compute(atoms.positions, atoms.cell.array, True, "d")
    atoms.calc = None
    return atoms if distances.min() > SHORTEST else None


def sample(path, make, plan):
    """Write the structures of ``plan`` made by ``make`` (snapshot or model_snapshot)."""
    done = {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()
    for kind, n_atoms, lattice_constants, count, first_seed in plan:
        for seed, (a, k) in enumerate(((a, k) for a in lattice_constants for k in range(count)), first_seed):
            name = f"{kind}-{n_atoms}-{1000 * a:.0f}-{seed:03d}"
            if name not in done:
                atoms = make(kind, n_atoms, a, seed)
                if atoms is None:
                    print(f"{name}: dropped", flush=True)
                    continue
                atoms.set_momenta(None)
                # labels are made in the order of these: at any time of every kind and pressure the same share is done
                atoms.info = {"name": name, "share": (k + 0.5) / count}
                write(path, atoms, append=True)
                print(name, flush=True)


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

    Small cells of a model's own MD are hotter: "hot" ones train the energy alone, see benchmarks/MGO_HOT.md.
    """
    n_atoms, a, seed = (int(word) for word in name.split("-")[1:])
    if name.startswith("model-8-") and a / 1000 in TRAINING:
        return "hot_test" if seed % 6 == 5 else "hot"
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
    for group in "train", "validation", "test", "size":
        names = [frame.name.split("-") for frame in frames if frame.group == group]
        counts = {a: sum(name[2] == a for name in names) for a in sorted({name[2] for name in names})}
        print(f"{group}: {len(names)}; by lattice constant in mÅ: {counts}")
    gaps = [own.conduction_band_minimum - own.valence_band_maximum for own in electronic.values()]
    print(
        f"bands complete to {min(complete):.2f} eV above the Fermi level; gaps from {min(gaps):.2f} to {max(gaps):.2f} eV"
    )


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--model", help="sample from this model's own MD instead of the classical potential's")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    for name in "convergence", "pulay":
        command = commands.add_parser(name)
        command.add_argument("structures")
        command.add_argument("work", type=Path)
        command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sample":
        if arguments.model:
            sample(
                arguments.structures, partial(model_snapshot, calculator=DeepPotCalculator(arguments.model)), MODEL_PLAN
            )
        else:
            sample(arguments.structures, snapshot, PLAN)
    elif arguments.command == "label":
        espresso.label_all(
            label, arguments.structures, arguments.work, arguments.part, lambda atoms: (len(atoms), atoms.info["share"])
        )
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "convergence":
        convergence(arguments.structures, arguments.work, arguments.target)
    elif arguments.command == "pulay":
        pulay(arguments.structures, arguments.work, arguments.target)


if __name__ == "__main__":
    main()
