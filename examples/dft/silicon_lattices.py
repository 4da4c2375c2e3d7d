"""Structures of silicon that are made and not found by MD: compressed lattices, strained diamond, beta-tin, glasses.

Each function returns Atoms for one seed; ``silicon.py sample`` writes them, and says how they are labeled.
"""

import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from vesin import NeighborList

from ase_mlelec.analysis.mechanics import relaxed

# (phase, atoms, temperatures K, value from, to, structures per temperature, first seed)

# compressed, linear scale of 20 Å^3 per atom from, to: the repulsion of many atoms, in which nets know no bounds
DENSE_PLAN = [
    ("diamond", 8, (0,), 0.96, 0.49, 24, 860),
    ("packed", 8, (0,), 1.00, 0.50, 24, 890),  # those above 11 Å^3 were left out: metals at this k mesh
    ("crowd", 8, (0,), 0.95, 0.50, 24, 920),
]
DENSE = tuple(phase for phase, *_ in DENSE_PLAN)  # no DOS of them: their bands are wider than the grid
DENSE_SPACING = 0.35  # 1/Å, of the k mesh
# Å^3 per atom from, to: what equations of state, elastic constants and phonons are made of
LATTICE_PLAN = [
    ("tin", 2, (0,), 12.0, 17.0, 20, 200),
    ("tin", 4, (0,), 12.5, 16.5, 4, 220),
    ("strained", 2, (0,), 18.0, 21.5, 20, 224),
    ("wave", 4, (0,), 18.4, 21.0, 18, 244),
]
LATTICES = tuple({phase: None for phase, *_ in LATTICE_PLAN})
LATTICE_SPACING = 0.26  # 1/Å, of diamond
# of beta-tin, a metal; with one number of points for the three vectors of a primitive cell, as its symmetry needs: at
# 14.5 Å^3 per atom 13^3 are within 1.6 meV/atom and 0.1 GPa of 18^3
TIN_SPACING = {2: 0.215, 4: 0.15}
GLASS_PLAN = [("glass", 32, (0, 300), 0.0, 0.0, 5, 290)]
# doubled along one direction, the primitive cell has the waves of the points L and X
DOUBLED = ([[1, 0, 0], [0, 1, 0], [0, 0, 2]], [[1, 0, 1], [0, 1, 0], [-1, 0, 1]])


def shortest_distance(atoms):
    (found,) = NeighborList(cutoff=4.0, full_list=True).compute(atoms.positions, atoms.cell.array, True, "d")
    return found.min()


def sheared(atoms, size, rng):
    """Apply a random symmetric strain of this size, and scale to the volume that there was."""
    volume, shear = atoms.get_volume(), rng.normal(0, size, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (shear + shear.T) / 2), scale_atoms=True)
    atoms.set_cell(atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)


def beta_tin(n_atoms, volume, ratio):
    """Beta-tin with ``volume`` Å^3 per atom and c/a = ``ratio``, as a conventional cell of 4 or a primitive one of 2."""
    atoms = Atoms(
        "Si4",
        scaled_positions=[(0, 0, 0), (0, 0.5, 0.25), (0.5, 0.5, 0.5), (0.5, 0, 0.75)],
        cell=np.array([1, 1, ratio]) * (4 * volume / ratio) ** (1 / 3),
        pbc=True,
    )
    if n_atoms == 2:
        atoms = atoms[:2]
        atoms.set_cell(np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2 @ atoms.cell.array)
    return atoms


def lattice_snapshot(phase, n_atoms, temperature, volume, seed):
    """Beta-tin, strained diamond or diamond with waves; with small displacements, which some of the first two lack."""
    rng = np.random.default_rng(seed)
    if phase == "tin":
        atoms = beta_tin(n_atoms, volume, rng.uniform(0.50, 0.60))
        sheared(atoms, rng.choice([0.0, 0.015]), rng)
        atoms.rattle(rng.choice([0.0, 0.03, 0.08]), rng=rng)
        return atoms
    atoms = bulk("Si", a=(8 * volume) ** (1 / 3))
    if phase == "wave":
        atoms = make_supercell(atoms, DOUBLED[seed % 2])
    sheared(atoms, 0.02 if phase == "strained" else 0.005, rng)
    atoms.rattle(rng.choice([0.0, 0.03] if phase == "strained" else [0.02, 0.05, 0.1]), rng=rng)
    return atoms


def glass_snapshot(phase, n_atoms, temperature, _, seed, calculator):
    """Melted and cooled within 6 ps at the volume of the crystal; at 300 K, or at rest with its cell at 0 K."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", "diamond", a=5.40, cubic=True) * (1, 2, 2)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=7000.0, rng=rng)
    run = Langevin(atoms, 2 * units.fs, temperature_K=3500.0, friction=0.01 / units.fs, rng=rng)
    run.run(500)
    for now in np.linspace(2000.0, 300.0, 100):
        run.set_temperature(temperature_K=now)
        run.run(25)
    if temperature == 0:
        atoms = relaxed(atoms, cell=True)
    atoms.wrap()
    return atoms


def dense_snapshot(phase, n_atoms, temperature, scale, seed):
    """A compressed lattice with small displacements, or a crowd of atoms that keep a little distance."""
    rng = np.random.default_rng(seed)
    lattice = "diamond" if phase == "diamond" else ("sc", "bcc", "fcc", "betatin")[seed % 4]
    atoms = {
        "diamond": lambda: bulk("Si", "diamond", a=1.0, cubic=True),
        "sc": lambda: bulk("Si", "sc", a=1.0) * (2, 2, 2),
        "bcc": lambda: bulk("Si", "bcc", a=1.0, cubic=True) * (1, 2, 2),
        "fcc": lambda: bulk("Si", "fcc", a=1.0, cubic=True) * (1, 1, 2),
        "betatin": lambda: beta_tin(4, 0.55 / 4, 0.55) * (1, 1, 2),
    }[lattice]()
    size = (20.0 * n_atoms / atoms.get_volume()) ** (1 / 3) * scale
    shear = rng.normal(0, 0.02, (3, 3))
    atoms.set_cell(size * atoms.cell.array @ (np.eye(3) + (shear + shear.T) / 2), scale_atoms=True)
    if phase != "crowd":
        atoms.rattle(rng.choice([0.0, 0.02, 0.06]) * scale, rng=rng)
        return atoms
    closest = 0.62 * (20.0 ** (1 / 3)) * scale  # as close as very hot atoms come at this density
    while True:
        trial = atoms.copy()
        trial.rattle(0.35 * scale, rng=rng)
        if shortest_distance(trial) > closest:
            return trial


def lattice_mesh(atoms):
    """k mesh of a structure of LATTICE_PLAN."""
    if atoms.info["phase"] != "tin":
        return spaced(atoms, LATTICE_SPACING)
    mesh = spaced(atoms, TIN_SPACING[len(atoms)])
    return (max(mesh),) * 3 if len(atoms) == 2 else mesh


def spaced(atoms, spacing):
    """k mesh with points at most ``spacing`` 1/Å apart."""
    return tuple(int(n) for n in np.ceil(atoms.cell.reciprocal().lengths() * 2 * np.pi / spacing))
