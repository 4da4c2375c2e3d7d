"""The bilayer graphene data set: pz Hamiltonians by Quantum ESPRESSO and Wannier90, referred to the vacuum level.

    python graphene.py sample graphene.extxyz                 # primitive cells: shifts, distances, strains, noise
    python graphene.py label graphene.extxyz work --part 0/2  # DFT; one file per structure, skips what is done
    python graphene.py collect work graphene.h5               # one compressed data set

C.UPF (LDA, norm-conserving), 40 Ry, 9x9 mesh, 26 bands per primitive cell.  The functions are pz projections without
localization steps; the frozen window holds the π bands around the Fermi level alone.  A structure with a spread above
1.2 Å^2, a window that misses its bands, or no flat vacuum is not labeled: work/NAME.rejected says why.  Seeds are
below 10000.
"""

import espresso
import layered
import numpy as np
from ase import Atoms
from layered import Kind

from ase_mlelec.data.hamiltonians import Function
from ase_mlelec.io.espresso import read_pw

PSEUDO = {"C": "C.UPF"}
SYSTEM = dict(ecutwfc=40.0, occupations="smearing", smearing="gaussian", degauss=0.01)
MESH = (9, 9, 1)
BANDS = 26  # up to 17 eV above the Fermi level, for the disentanglement
WINDOW = (-10.5, 17.0)  # eV from the Fermi level
FROZEN = (-2.3, 1.8)  # eV; the σ bands start 3.1 eV below, free-electron ones 3 eV above
MAX_SPREAD = 1.2  # Å^2
MAX_MISMATCH = 0.01  # eV, of a DFT level within 1.5 eV of the Fermi level
A = 2.46  # Å
EMPTY = 14.0  # Å of vacuum: the layers' images are out of reach of each other

PLAN = [
    Kind("shift", 48, distance=(3.20, 3.60), strain=(0.0, 0.0), shear=0.0, noise=(0.0, 0.0), first_seed=0),
    Kind("distance", 30, distance=(2.90, 4.20), strain=(0.0, 0.0), shear=0.0, noise=(0.0, 0.0), first_seed=100),
    Kind("strain", 30, distance=(3.10, 3.80), strain=(-0.02, 0.04), shear=0.01, noise=(0.0, 0.0), first_seed=200),
    Kind("noise", 60, distance=(3.10, 3.90), strain=(-0.015, 0.03), shear=0.005, noise=(0.015, 0.04), first_seed=300),
]
ATTRIBUTES = {
    "electrons_per_atom": {"C": 1},
    "settings": {
        "program": "Quantum ESPRESSO 6.7, Wannier90 3.1",
        "pseudopotential": "C.UPF (LDA)",
        "ecutwfc_Ry": SYSTEM["ecutwfc"],
        "kpoints": "9x9x1",
        "bands": BANDS,
        "projections": "C: pz",
        "localization_steps": 0,
        "frozen_window_eV": FROZEN,
    },
}


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


def build(kind, seed, shift, distance, strain, rng):
    return bilayer(shift, distance, strain=strain, noise=kind.noise, rng=rng)


def functions(atoms):
    return [Function(atom, "pz") for atom in range(len(atoms))]


def calculate(atoms, directory):
    """Label of one structure; Wannier90Error where the functions or the vacuum are not good enough."""
    espresso.pw(atoms, directory, "scf", PSEUDO, MESH, system=SYSTEM, electrons=dict(conv_thr=1e-9))
    scf = read_pw(directory / espresso.SAVE)
    vacuum = layered.flat_vacuum(atoms, directory)
    layered.all_bands(atoms, directory, PSEUDO, MESH, BANDS, SYSTEM)
    fermi = scf.fermi_level
    extra = (
        f"num_bands = {BANDS}\nnum_iter = 0\ndis_num_iter = 400\ndis_conv_tol = 1e-10\n"
        f"dis_froz_min = {fermi + FROZEN[0]:.4f}\ndis_froz_max = {fermi + FROZEN[1]:.4f}\n"
        f"dis_win_min = {fermi + WINDOW[0]:.4f}\ndis_win_max = {fermi + WINDOW[1]:.4f}"
    )
    path = espresso.hamiltonian(atoms, directory, "C: pz", len(atoms), MESH, extra)
    found, spreads = layered.good_hamiltonian(path, atoms, functions(atoms), MAX_SPREAD)
    mismatch = worst_level(found.eigenvalues(espresso.full_mesh(MESH)[:, :3]), layered.dft_levels(directory), fermi)
    layered.check_mismatch(mismatch, MAX_MISMATCH)
    return layered.Label(scf, found, spreads, vacuum, mismatch)


def worst_level(found, levels, fermi):
    """The largest distance, eV, of a DFT level within 1.5 eV of the Fermi level from the nearest Wannier level."""
    distance = abs(levels[:, :, None] - found[:, None]).min(axis=2)
    return float(distance[abs(levels - fermi) < 1.5].max(initial=0.0))


if __name__ == "__main__":
    layered.main(__doc__, PLAN, build, calculate, functions, ATTRIBUTES)
