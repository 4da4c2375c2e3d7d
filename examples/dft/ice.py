"""The ice data set: cells of 16 H2O from 20 to 120 GPa, labeled by Quantum ESPRESSO and Wannier90.

    python ice.py sample first.extxyz                         # proton-disordered cells, thermally displaced
    python ice.py sample second.extxyz --models a b c d --seed 500    # where a committee disagrees, from its own MD
    python ice.py sample third.extxyz --hot --models a --seed 600     # hot and dense: molecules break up
    python ice.py label first.extxyz work --part 0/2          # DFT; one file per structure, skips what is done
    python ice.py response work                               # Born charges and dielectric tensors of small cells
    python ice.py pulay work                                  # the part that the stress of pw.x lacks at this cutoff
    python ice.py collect work ice.h5       # one compressed data set, which adds to one that is there; ice_response.npz

HSCV pseudopotentials, PBE, 85 Ry, Gamma; four Wannier functions per oxygen.  A structure whose functions do not come in
fours, or spread over more than 0.9 Å^2, is not labeled: work/NAME.rejected says why.  Seeds are below 1000.
"""

import argparse
import gzip
import shutil
import time
from dataclasses import replace
from pathlib import Path

import espresso
import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import InputError
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from vesin import NeighborList

from ase_mlelec import DeepPotCalculator
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
# ice VII and X at room temperature, Birch-Murnaghan with the constants of Hemley et al., Nature 330, 737 (1987)
PRESSURES = (20, 40, 60, 80, 100, 120)  # GPa
LATTICE_CONSTANTS = (3.03, 2.87, 2.77, 2.70, 2.65, 2.60)  # Å
OH_LENGTH = 0.98  # Å
DISAGREEMENT = (0.10, 0.60)  # eV/Å, deviation of a force: less is known, with more MD goes astray
FRAMES_PER_RUN = 3
STEP = 0.5  # fs, of all molecular dynamics

# (phase, lattice constant from, to Å, structures, first seed)
PLAN = [
    ("molecular", 2.72, 3.10, 48, 0),
    ("hopping", 2.60, 2.85, 36, 100),
    ("symmetric", 2.56, 2.72, 24, 200),
    ("hot", 2.58, 3.05, 16, 300),
    ("close", 2.56, 2.90, 14, 400),
    ("symmetric", 2.56, 2.72, 12, 224),
    ("hot", 2.58, 3.05, 10, 316),
]
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
RESPONSE_MESH = (4, 4, 4)  # shifted by half a step
TEMPERATURES = (240, 270, 300, 330)  # K, of the MD
RUNS_PER_PRESSURE = 2
# mass densities (g/cm^3) and temperatures (K) of the constant-volume MD that --hot samples
HOT_DENSITIES = (2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
HOT_TEMPERATURES = (400, 1000, 2000)
HOT_STEPS = (1500, 3000)  # of half a STEP, whose structures are taken
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


# Structures


def ice_vii(a, rng, repeat=2):
    """Oxygens and protons of ice VII: a bcc lattice of oxygens, which is two diamond lattices within each other.

    a : float, Å, lattice constant of the bcc cell; repeat : int, even, cells along each side: 2 repeat^3 molecules

    Returns (cell [3] Å, oxygens [N, 3] Å, donors [2N], bonds [2N, 3] Å): one proton on each bond from its donor to the
    next oxygen, and two protons to each donor.
    """
    corners = np.array(list(np.ndindex((repeat,) * 3)))
    oxygens = np.concatenate([2 * corners, 2 * corners + 1])  # in units of a/2: even sites, then odd ones
    index = {tuple(site): k for k, site in enumerate(oxygens)}
    pairs = np.array(
        [
            (k, index[tuple((site + step) % (2 * repeat))])
            for k, site in enumerate(oxygens[: len(corners)])
            for step in TETRAHEDRON
        ]
    )
    vectors = np.tile(TETRAHEDRON, (len(corners), 1)) * a / 2
    forward = _ice_rules(pairs, rng)
    donors = np.where(forward, pairs[:, 0], pairs[:, 1])
    return np.full(3, a * repeat), oxygens * a / 2, donors, np.where(forward[:, None], vectors, -vectors)


def _ice_rules(pairs, rng):
    """Random directions of bonds, [B] bool, two out of every molecule and two into it.

    Walking along unused bonds until there is no way on closes a loop, since every molecule has four bonds; directions
    along such loops obey the rules.  Turning random loops round afterwards makes all arrangements equally likely.

    Source: Bernal and Fowler, J. Chem. Phys. 1, 515 (1933); Rahman and Stillinger, J. Chem. Phys. 57, 4009 (1972).
    """
    bonds = [np.flatnonzero((pairs == site).any(axis=1)) for site in range(pairs.max() + 1)]
    start = np.full(len(pairs), -1)  # the molecule that gives the proton
    for bond in rng.permutation(len(pairs)):
        site = pairs[bond, 0]
        while len(free := [b for b in bonds[site] if start[b] < 0]):
            chosen = rng.choice(free)
            start[chosen] = site
            site = pairs[chosen].sum() - site
    for _ in range(2 * len(pairs)):
        path, visited, site = [], [], rng.integers(len(bonds))
        while site not in visited:
            visited.append(site)
            path.append(rng.choice([b for b in bonds[site] if start[b] == site]))
            site = pairs[path[-1]].sum() - site
        for bond in path[visited.index(site) :]:
            start[bond] = pairs[bond].sum() - start[bond]
    return start == pairs[:, 0]


def ice_atoms(a, rng, repeat=2, fractions=None, oxygen_noise=0.0, proton_noise=0.0):
    """Atoms of ice VII, each oxygen followed by its two protons.

    fractions : array [2N], places of the protons along their bonds, 0 at the donor; default at OH_LENGTH, or in the
        middle of the bond where that is nearer
    oxygen_noise, proton_noise : float, Å, standard deviations along each axis; protons: across their bonds only
    """
    cell, oxygens, donors, bonds = ice_vii(a, rng, repeat)
    length = np.linalg.norm(bonds, axis=1, keepdims=True)
    fractions = np.minimum(OH_LENGTH / length, 0.5) if fractions is None else np.reshape(fractions, (-1, 1))
    across = rng.normal(0, proton_noise, bonds.shape)
    across -= (across * bonds).sum(axis=1, keepdims=True) * bonds / length**2
    moved = rng.normal(0, oxygen_noise, oxygens.shape)
    protons = oxygens[donors] + moved[donors] + fractions * bonds + across
    order = np.argsort(donors, kind="stable").reshape(-1, 2)
    positions = np.concatenate([np.stack([oxygens + moved, *protons[order.T]], axis=1)]).reshape(-1, 3)
    return Atoms("OHH" * len(oxygens), positions, cell=cell, pbc=True)


def snapshot(phase, a, seed, repeat=2):
    """Ice VII ("molecular", "hot"), with protons that leave their molecule ("hopping"), and ice X ("symmetric").

    "close": protons anywhere along their bonds, down to distances that no ice has; they teach repulsion.
    """
    rng = np.random.default_rng(seed)
    middle, count = OH_LENGTH / (a * np.sqrt(3) / 2), 4 * repeat**3
    for _ in range(100):
        fractions = rng.normal(min(middle, 0.5), 0.04 if phase == "hot" else 0.025, count)
        if phase == "hopping":
            fractions = rng.uniform(min(middle, 0.45), 0.5, count)
            fractions = np.where(rng.random(count) < 0.1, 1 - fractions, fractions)
        elif phase == "close":
            fractions = rng.normal(min(middle, 0.5), 0.07, count)
        elif phase == "symmetric":
            fractions = rng.normal(0.5, 0.04, count)
        noise = (0.10, 0.16) if phase == "hot" else (0.05, 0.10)
        atoms = ice_atoms(a, rng, repeat, fractions, *noise)
        shear = rng.normal(0, 0.01, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (shear + shear.T) / 2), scale_atoms=True)
        if is_sound(atoms):
            return atoms
    raise RuntimeError(f"{phase} at {a:.3f} Å: no structure without atoms on top of each other")


def is_sound(atoms, closest=(1.1, 0.75, 1.7)):
    """Whether no two atoms are closer than ``closest``: H-H, H-O and O-O in Å, by default as ice never has them."""
    pairs, distances = NeighborList(cutoff=1.7, full_list=False).compute(atoms.positions, atoms.cell.array, True, "Pd")
    oxygens = (atoms.numbers[pairs] == 8).sum(axis=1)
    return not (distances < np.array(closest)[oxygens]).any()


def sample(path):
    done = names(path)
    for phase, low, high, count, first_seed in PLAN:
        for k in range(count):
            a, seed = low + (high - low) * (k + 0.5) / count, first_seed + k
            name = f"{phase}-{1000 * a:.0f}-{seed:03d}"
            if name not in done:
                add(path, snapshot(phase, a, seed), name)


def sample_by_committee(path, models, first_seed):
    """Constant-pressure MD of several models in turn, and from each run a few frames on which they disagree."""
    committee, done = DeepPotCalculator(models), names(path)
    drivers = [DeepPotCalculator(model) for model in committee.models]
    runs = [(pressure, TEMPERATURES[k % len(TEMPERATURES)]) for pressure in PRESSURES for k in range(RUNS_PER_PRESSURE)]
    for seed, (pressure, temperature) in enumerate(runs, first_seed):
        head = f"md-{pressure}GPa{temperature}K-{seed:03d}"
        if any(name.startswith(head) for name in done):
            continue
        frames, worst = explore(drivers[seed % len(drivers)], committee, pressure, temperature, seed)
        for step, atoms in frames:
            add(path, atoms, f"{head}-{step:05d}")
        print(f"{head}: {len(frames)} frames, largest deviation of a force {worst:.2f} eV/Å", flush=True)


def explore(calc, committee, pressure, temperature, seed, steps=4000, interval=20):
    """Frames [(step, Atoms)] of an MD run with disagreement between the bounds, and the largest one met."""
    rng = np.random.default_rng(seed)
    atoms = ice_atoms(np.interp(pressure, PRESSURES, LATTICE_CONSTANTS), rng, 2, None, 0.03, 0.05)
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    found, worst = [], 0.0
    try:
        for step, _ in enumerate(barostat(atoms, pressure, temperature).irun(steps)):
            if step % interval:
                continue
            committee.get_property("forces", atoms)
            deviation = np.linalg.norm(committee.uncertainty["forces"], axis=1).max()
            worst = max(worst, deviation)
            if deviation > DISAGREEMENT[1] or not is_sound(atoms):
                break
            if deviation > DISAGREEMENT[0]:
                found.append((step, atoms.copy()))
    except InputError:  # an immature model lets atoms run into each other
        pass
    chosen = rng.permutation(len(found))[:FRAMES_PER_RUN]
    return [found[k] for k in sorted(chosen)], worst


def sample_hot(path, model, first_seed):
    """Constant-volume MD of a model at HOT_DENSITIES and HOT_TEMPERATURES.

    Where atoms come too close, the run ends, and the last structure before that is taken.
    """
    calc, done = DeepPotCalculator(model), names(path)
    runs = [(density, temperature) for temperature in HOT_TEMPERATURES for density in HOT_DENSITIES]
    for seed, (density, temperature) in enumerate(runs, first_seed):
        head = f"fluid-{1000 * density:.0f}-{seed:03d}-{temperature}K"
        if any(name.startswith(head) for name in done):
            continue
        rng = np.random.default_rng(seed)
        atoms = ice_atoms(2.0, rng, 2, None, 0.02, 0.02)
        scale = (atoms.get_masses().sum() / atoms.get_volume() * units._amu * 1e27 / density) ** (1 / 3)
        atoms = ice_atoms(2.0 * scale, np.random.default_rng(seed), 2, None, 0.02, 0.02)
        atoms.calc = calc
        thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
        run = Langevin(atoms, STEP / 2 * units.fs, temperature_K=temperature, friction=0.05 / units.fs, rng=rng)
        last = wrapped(atoms)
        for step, _ in enumerate(run.irun(max(HOT_STEPS))):
            if step % 10 == 0:
                if not is_sound(atoms, closest=(0.9, 0.7, 1.6)):
                    add(path, last, f"{head}-{step - 10:05d}")
                    break
                last = wrapped(atoms)
            if step in HOT_STEPS:
                add(path, wrapped(atoms), f"{head}-{step:05d}")


def wrapped(atoms):
    """A copy with all atoms in the cell."""
    atoms = atoms.copy()
    atoms.wrap()
    return atoms


def compressed(calc, pressure, rng, repeat=2, temperature=300, steps=4000, hydrogen_mass=1.008):
    """Atoms of ice at a pressure in GPa and a temperature in K, after that many steps at constant pressure."""
    atoms = ice_atoms(np.interp(pressure, PRESSURES, LATTICE_CONSTANTS), rng, repeat)
    atoms.set_masses(np.where(atoms.symbols == "H", hydrogen_mass, atoms.get_masses()))
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=1.5 * temperature, rng=rng)  # part of it goes into the potential
    barostat(atoms, pressure, temperature).run(steps)
    return atoms


def barostat(atoms, pressure, temperature):
    """Dynamics of 0.5 fs per step that reach a pressure in GPa and temperature in K; the cell keeps its shape."""
    return NPTBerendsen(
        atoms,
        STEP * units.fs,
        temperature_K=temperature,
        pressure_au=pressure * units.GPa,
        taut=50 * units.fs,
        taup=200 * units.fs,
        compressibility_au=0.005 / units.GPa,
    )


def constant_pressure(atoms, pressure, temperature):
    """Dynamics of 0.5 fs per step with a conserved energy, of atoms that are near the pressure (GPa) already.

    Forces are evaluated once per step, by ``barostat`` twice.
    """
    step = STEP * units.fs
    return IsotropicMTKNPT(atoms, step, temperature, pressure * units.GPa, 100 * step, 400 * step)


def chain(calc, pressures, folder, repeat=4, temperature=300):
    """Iterator over (name, Atoms) at pressures in GPa, each from the one before; kept in the folder, one file for each.

    The first begins as ice VII.  Where the pressure falls, names have "_down".
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = None
    for pressure in pressures:
        name = f"{pressure}GPa" + ("_down" if last and pressure < last[0] else "")
        file = folder / f"{name}.extxyz"
        if not file.exists():
            if last is None:
                rng = np.random.default_rng(pressure)
                last = pressure, compressed(calc, pressure, rng, repeat, temperature, 1000)
            atoms = last[1].copy()
            scale = np.interp(pressure, PRESSURES, LATTICE_CONSTANTS) / np.interp(last[0], PRESSURES, LATTICE_CONSTANTS)
            atoms.set_cell(atoms.cell * scale, scale_atoms=True)
            atoms.calc = calc
            equilibrate(atoms, pressure, temperature)
            with replacing(file) as partial:
                write(partial, bare(atoms), format="extxyz")
        last = pressure, read(file)
        last[1].calc = calc
        yield name, last[1]


def equilibrate(atoms, pressure, temperature, steps=(200, 500), kept=300):
    """Bring atoms to a pressure in GPa, and their cell to its mean over the last steps; both dynamics in turn."""
    barostat(atoms, pressure, temperature).run(steps[0])
    run, volumes = constant_pressure(atoms, pressure, temperature), []
    run.attach(lambda: volumes.append(atoms.get_volume()))
    run.run(steps[1])
    atoms.set_cell(atoms.cell * (np.mean(volumes[-kept:]) / atoms.get_volume()) ** (1 / 3), scale_atoms=True)


def bare(atoms):
    """Atoms with momenta and masses, and nothing else that a file of them would have."""
    masses, momenta = atoms.get_masses(), atoms.get_momenta()
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True, masses=masses, momenta=momenta)


def names(path):
    return {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()


def add(path, atoms, name):
    atoms.calc, atoms.info = None, {"name": name}
    atoms.set_momenta(None)
    write(path, atoms, append=True)


# Labels


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
    """Born charges and dielectric tensors of the cells of RESPONSES and TAUGHT_RESPONSES.

    Cells of two molecules, for the sake of the points: at Γ alone the charges of 16 molecules sum to -7 to -11 e.
    """
    (work / "response").mkdir(parents=True, exist_ok=True)
    for phase, a, seed in RESPONSES + TAUGHT_RESPONSES:
        name = f"{phase}-{1000 * a:.0f}-{seed:03d}"
        target, directory, start = work / "response" / f"{name}.npz", work / f"response-{name}", time.time()
        if target.exists():
            continue
        atoms = snapshot(phase, a, seed, repeat=1)
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


def pressure_of(stress):
    return -np.trace(stress) / 3 / units.GPa


# Data set


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--models", nargs="+", metavar="MODEL", help="a committee, whose own MD is sampled")
    command.add_argument("--hot", action="store_true", help="from 2 to 4 g/cm^3, up to 2,000 K, by the first model")
    command.add_argument("--seed", type=int, default=500, help="of the first MD run; another for each round")
    espresso.add_label_command(commands)
    command = commands.add_parser("response")
    command.add_argument("work", type=Path)
    command = commands.add_parser("pulay")
    command.add_argument("work", type=Path)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "sample":
        if arguments.hot:
            sample_hot(arguments.structures, arguments.models[0], arguments.seed)
        elif arguments.models:
            sample_by_committee(arguments.structures, arguments.models, arguments.seed)
        else:
            sample(arguments.structures)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "label":
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)
    elif arguments.command == "pulay":
        pulay(arguments.work)
    else:
        respond(arguments.work)


if __name__ == "__main__":
    main()
