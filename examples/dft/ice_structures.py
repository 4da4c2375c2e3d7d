"""Structures of ice VII and ice X with disordered protons, for the ice data set."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from vesin import NeighborList

OH_LENGTH = 0.98  # Å
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
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


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


def names(path):
    return {atoms.info["name"] for atoms in read(path, ":")} if Path(path).exists() else set()


def add(path, atoms, name):
    atoms.calc, atoms.info = None, {"name": name}
    atoms.set_momenta(None)
    write(path, atoms, append=True)
