"""Structures of the magnesium oxide data set: displaced lattices, and molecular dynamics."""

from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.calculator import InputError
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from born_mayer import BornMayer
from vesin import NeighborList

# lattice constants in Å -> GPa, about, of the crystal at rest: five that train, and the four in the middle as tests.  At
# 5,000 K and the same volume the pressure is some 25 to 45 GPa higher; MD of a model is at these pressures themselves
TRAINING = {3.270: 599, 3.320: 508, 3.380: 418, 3.455: 327, 3.560: 237}
TESTS = {3.293: 554, 3.347: 463, 3.414: 373, 3.502: 282}
TEMPERATURE = 5000.0  # K, of ions and electrons
FORCE_CONSTANT, FORCE_CONSTANT_AT = 49.0, 3.55  # eV/Å^2, Å; ~ a^-9
SHORTEST = 1.0  # Å, between any two atoms
REPEAT = {8: (1, 1, 1), 16: (1, 1, 2), 64: (2, 2, 2)}
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
# the same from a model's own MD at these pressures
MODEL_PLAN = [
    ("model", 8, TRAINING, 16, 400),
    ("model", 8, TESTS, 5, 500),
    ("model", 16, TRAINING, 2, 530),
    ("model", 64, TRAINING, 1, 545),
    ("model", 16, TRAINING, 4, 550),
]


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
