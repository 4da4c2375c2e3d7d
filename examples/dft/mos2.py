"""The bilayer MoS2 data set: Hamiltonians by Quantum ESPRESSO and Wannier90, referred to the vacuum level; forces.

    ESPRESSO_PSEUDO=FOLDER                            # with mo.upf and s.upf
    python mos2.py sample mos2.extxyz                 # shifts, distances, strains, noise; some larger cells
    python mos2.py label mos2.extxyz work --part 0/2  # DFT; one file per structure, skips what is done
    python mos2.py collect work mos2.h5               # adds to the data sets: mos2.h5 and mos2_forces.h5

PBE with Grimme's D2, PAW, 40 Ry, cells 22 Å high; per primitive cell 4x4 points for energy and forces, 6x6 for the 34
bands, of which the lowest 12 (Mo 4s 4p, S 3s) are left out.  The 22 functions have projections as in Qi et al. 2024: on
Mo three dz2 along the directions to S in the plane, dxz and dyz; on S three pz towards Mo and outward; 40 localization
steps.  Axes belong to a layer and turn with it.  Kinds "calm", "lively", "row", "strip", "ripple", "patch", "wide",
"swatch" and those of the next paragraph have energy and forces only, at a quarter of the cost.  Rows and strips, of
which all but the name is alike, and pairs, which have Hamiltonians, are two primitive cells, whose atoms move against
their own images, on the same k points.  Single layers hold most of what atoms do to their neighbors in a layer, at
half the cost of two: a "sheet" is 2x2 of them, with Hamiltonian, a "patch" 3x3, a "wide" one 4x4, a "swatch" 3x2 with
larger displacements than any of these, and a "ripple" four in a row, bent along it: without ripples a fitted layer
bends too easily.  In "contact", sulfur is above sulfur.  Forces are not converged here, see mos2_forces.py.

Cells whose atoms move by 0.1 Å are for forces alone: "shaken" and "beam" are two and three primitive cells in a row,
"plate", "block" and "tile" single layers of 2x2, 3x2 and 3x3.  By what a linear fit says of its own uncertainty, an
hour of them tells twice as much about forces of larger cells as one of patches and rows; but a linear energy is not as
good there, and they help when they count less (see the card of the model).

The layers of "unlike" and "twisted" cells are turned against each other and strained unlike.  Their k points, 2x2 or Γ
of 3.5 or 12.5 primitive cells, are not those of the others: they are for comparisons, with DFT's levels on these
points.

Layers that are not alike, and parallel ones (3R), have a dipole, whose periodic images would put a field across them:
the dipole correction takes it away, and the zero of energy is the mean of the two vacuum levels.  For the same reason
the noise leaves every layer, as a whole, without a dipole along its normal; in the larger cells it has them locally.

A structure with a spread above 2.5 Å^2, a function away from its atom, bands that are not DFT's, or no flat vacuum is
not labeled: work/NAME.rejected says why.  Seeds are below 10000.
"""

from pathlib import Path

import espresso
import layered
import numpy as np
from ase import Atoms
from ase.build import make_supercell, mx2
from ase.neighborlist import neighbor_list
from layered import Kind

from ase_mlelec.data.hamiltonians import Function
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.structures.layers import layers
from ase_mlelec.structures.twist import twisted_bilayer

PSEUDO = {"Mo": "mo.upf", "S": "s.upf"}
JUMP = 0.05  # of the height of the cell, around the middle of the vacuum
CONTROL = dict(tefield=True, dipfield=True, tstress=False)
SYSTEM = dict(
    ecutwfc=40.0,
    occupations="smearing",
    smearing="gaussian",
    degauss=0.005,
    vdw_corr="grimme-d2",
    edir=3,
    emaxpos=1 - JUMP / 2,
    eopreg=JUMP,
    eamp=0.0,
)
POINTS, FINE_POINTS = 4, 6  # along a primitive vector, of scf and nscf; as dense at least in larger cells
BANDS, CORE, FUNCTIONS = 17, 6, 11  # per MoS2
STEPS = 40  # of the localization
MAX_SPREAD = 2.5  # Å^2
MAX_MISMATCH = 1e-4  # eV; H(R) has six digits
A, THICKNESS = 3.14, 3.13  # Å, of a layer
AREAS = {"MoS2": A**2 * np.sqrt(3) / 6}  # Å^2 per atom, by which a layer is known that is alone
THINNER = 0.6  # of the thickness, per strain in the plane
HEIGHT = 22.0  # Å, of the cell
VACUUM = 0.5 * JUMP * HEIGHT + 0.25  # Å from the middle of the vacuum, where its levels are taken

PLAN = [
    Kind("shift", 48, distance=(6.0, 6.8), strain=(0.0, 0.0), shear=0.0, noise=(0.0, 0.0), first_seed=0),
    Kind("distance", 24, distance=(5.9, 7.8), strain=(-0.01, 0.08), shear=0.0, noise=(0.0, 0.0), first_seed=100),
    Kind("strain", 36, distance=(6.0, 7.0), strain=(-0.02, 0.08), shear=0.01, noise=(0.0, 0.0), first_seed=200),
    Kind("noise", 60, distance=(6.0, 7.0), strain=(-0.02, 0.08), shear=0.01, noise=(0.03, 0.04), first_seed=300),
    Kind("root3", 10, distance=(6.1, 6.9), strain=(-0.01, 0.08), shear=0.005, noise=(0.06, 0.07), first_seed=600),
    Kind("double", 12, distance=(6.1, 6.9), strain=(-0.01, 0.08), shear=0.005, noise=(0.06, 0.07), first_seed=700),
    Kind(
        "calm",
        100,
        distance=(5.8, 7.8),
        strain=(-0.02, 0.02),
        shear=0.005,
        noise=(0.02, 0.02),
        first_seed=400,
        hamiltonian=False,
    ),
    Kind(
        "lively",
        100,
        distance=(5.8, 7.6),
        strain=(-0.02, 0.08),
        shear=0.01,
        noise=(0.05, 0.06),
        first_seed=500,
        hamiltonian=False,
    ),
    Kind(
        "ripple",
        20,
        distance=(6.3, 6.3),
        strain=(-0.02, 0.02),
        shear=0.005,
        noise=(0.03, 0.4),
        first_seed=910,
        hamiltonian=False,
    ),
    *(
        Kind(
            name,
            60,
            distance=(5.9, 7.2),
            strain=(-0.02, 0.04),
            shear=0.01,
            noise=(0.06, 0.08),
            first_seed=seed,
            hamiltonian=False,
        )
        for name, seed in (("row", 850), ("strip", 1700))
    ),
    Kind("pair", 59, distance=(5.9, 7.2), strain=(-0.02, 0.08), shear=0.01, noise=(0.04, 0.05), first_seed=751),
    Kind("sheet", 30, distance=(6.3, 6.3), strain=(0.0, 0.06), shear=0.01, noise=(0.05, 0.06), first_seed=930),
    Kind(
        "wide",
        30,
        distance=(6.3, 6.3),
        strain=(-0.02, 0.04),
        shear=0.01,
        noise=(0.06, 0.08),
        first_seed=960,
        hamiltonian=False,
    ),
    Kind(
        "patch",
        90,
        distance=(6.3, 6.3),
        strain=(-0.02, 0.06),
        shear=0.01,
        noise=(0.06, 0.07),
        first_seed=610,
        hamiltonian=False,
    ),
    Kind(
        "swatch",
        120,
        distance=(6.3, 6.3),
        strain=(-0.02, 0.04),
        shear=0.01,
        noise=(0.065, 0.085),
        first_seed=1500,
        hamiltonian=False,
    ),
    *(
        Kind(
            name,
            60,
            distance=distance,
            strain=(-0.02, 0.06),
            shear=0.01,
            noise=(0.09, 0.11),
            first_seed=seed,
            hamiltonian=False,
        )
        for name, distance, seed in (
            ("shaken", (5.9, 7.2), 1000),
            ("plate", (6.3, 6.3), 1100),
            ("block", (6.3, 6.3), 1200),
            ("tile", (6.3, 6.3), 1300),
            ("beam", (5.9, 7.2), 1400),
        )
    ),
    Kind(
        "unlike",
        10,
        distance=(6.1, 6.8),
        strain=(0.01, 0.03),
        shear=0.005,
        noise=(0.02, 0.03),
        first_seed=50,
        hamiltonian=False,
    ),
    Kind(
        "twisted",
        10,
        distance=(6.1, 6.8),
        strain=(0.01, 0.05),
        shear=0.005,
        noise=(0.02, 0.03),
        first_seed=60,
        hamiltonian=False,
    ),
    Kind("contact", 10, distance=(5.85, 6.3), strain=(-0.01, 0.05), shear=0.005, noise=(0.02, 0.02), first_seed=990),
]
BARE = [kind.name for kind in PLAN if not kind.hamiltonian]
SUPERCELLS = {
    "root3": [[2, 1, 0], [-1, 1, 0], [0, 0, 1]],
    "ripple": np.diag([4, 1, 1]),
    "wide": np.diag([4, 4, 1]),
    "block": np.diag([3, 2, 1]),
    "swatch": np.diag([3, 2, 1]),
    "beam": np.diag([3, 1, 1]),
    **dict.fromkeys(("pair", "row", "strip", "shaken"), np.diag([2, 1, 1])),
    **dict.fromkeys(("double", "sheet", "plate"), np.diag([2, 2, 1])),
    **dict.fromkeys(("patch", "tile"), np.diag([3, 3, 1])),
}
SINGLE = ("sheet", "patch", "wide", "swatch", "plate", "block", "tile")  # the lower layer alone
# supercells of the lower and the upper layer, the other way round for odd seeds: 3 and 4 or 12 and 13 primitive cells
LAYERS = {"unlike": ((1, 1), (2, 0)), "twisted": ((2, 2), (3, 1))}
ATTRIBUTES = {
    "electrons_per_atom": {"Mo": 6, "S": 4},
    "settings": {
        "program": "Quantum ESPRESSO 6.7, Wannier90 3.1",
        "xc": "PBE + D2",
        "pseudopotentials": "PAW, of Qi et al. 2024",
        "ecutwfc_Ry": SYSTEM["ecutwfc"],
        "kpoints": "4x4x1 (scf), 6x6x1 (nscf) of the primitive cell",
        "bands": 2 * BANDS,
        "excluded_bands": 2 * CORE,
        "localization_steps": STEPS,
        "dipole_correction": True,
        "projections": "Mo: three dz2 along the in-plane directions to S, dxz, dyz; S: three pz towards Mo and outward",
    },
}


def bilayer(
    shift, distance, turned=True, strain=np.zeros((2, 2)), supercell=np.eye(3, dtype=int), noise=(0.0, 0.0), rng=None
):
    """Mo2S4, or more of it; the upper layer moves by ``shift`` (fractions of the primitive vectors) from Mo above Mo.

    turned : whether the upper layer is turned by 180 degrees, as in 2H; distance : Å, between the planes of Mo
    noise : (in the plane, along the normal), Å
    """
    cell = np.array([[A, 0, 0], [-A / 2, A * np.sqrt(3) / 2, 0], [0, 0, HEIGHT]])
    cell[:2, :2] = cell[:2, :2] @ (np.eye(2) + strain)
    metal, sulfur = np.array([1 / 3, 2 / 3]), np.array([2 / 3, 1 / 3])
    upper = [sulfur, metal, metal] if turned else [metal, sulfur, sulfur]
    fractions = np.array([metal, sulfur, sulfur, *(site + metal - upper[0] + shift for site in upper)])
    atoms = Atoms("MoS2MoS2", np.hstack([fractions, np.zeros((6, 1))]) @ cell, cell=cell, pbc=True)
    outer = 0.5 * THICKNESS * (1 - THINNER * np.trace(strain) / 2)
    atoms.positions[:, 2] = HEIGHT / 2 + np.repeat([-distance / 2, distance / 2], 3) + outer * np.array([0, 1, -1] * 2)
    atoms.set_tags(np.repeat([0, 1], 3))
    atoms = make_supercell(atoms, supercell)
    if rng is not None:
        atoms.positions += without_dipoles(atoms, rng.normal(0, 1, (len(atoms), 3)) * [noise[0], noise[0], noise[1]])
    return atoms


def without_dipoles(atoms, moves):
    """The displacements [N, 3] with the sulfur of each layer (tag), as a whole, as much higher as its molybdenum."""
    moves, metal = moves.copy(), atoms.symbols == "Mo"
    for tag in (0, 1):
        own = atoms.get_tags() == tag
        moves[own & ~metal, 2] += moves[own & metal, 2].mean() - moves[own & ~metal, 2].mean()
    return moves


def build(kind, seed, shift, distance, strain, rng):
    turned = seed % 5 < 3  # the roles of structures go by twelves: both stackings are in each of them
    if kind.name == "contact":
        shift = np.array([2 / 3, 1 / 3] if turned else [0, 0]) + 0.12 * (shift - 0.5)
    if kind.name in LAYERS:
        return two_lattices(LAYERS[kind.name][:: -1 if seed % 2 else 1], shift, distance, strain, kind.noise, rng)
    supercell = SUPERCELLS.get(kind.name, np.eye(3, dtype=int))
    if kind.name == "ripple":
        return ripple(lower(bilayer(shift, distance, turned, strain, supercell)), *kind.noise, rng)
    atoms = bilayer(shift, distance, turned, strain, supercell, kind.noise, rng)
    return lower(atoms) if kind.name in SINGLE else atoms


def two_lattices(cells, shift, distance, strain, noise, rng):
    """Layers turned against each other, one stretched and one compressed onto a common cell, and both by ``strain``."""
    layer = mx2("MoS2", a=A, thickness=THICKNESS)
    atoms, twist = twisted_bilayer(layer, layer, cells, distance, vacuum=HEIGHT - distance - THICKNESS)
    upper = atoms.get_tags() == 1
    atoms.positions[upper] += shift @ layer.cell.array[:2]
    deformation = np.eye(3)
    deformation[:2, :2] += strain
    atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    for own, stretched in zip((~upper, upper), twist.strains):
        height = atoms.positions[own, 2]
        atoms.positions[own, 2] -= THINNER * (stretched + np.trace(strain) / 2) * (height - height.mean())
    atoms.positions += without_dipoles(atoms, rng.normal(0, 1, (len(atoms), 3)) * [noise[0], noise[0], noise[1]])
    return atoms


def lower(atoms):
    """The lower layer alone, in the middle of the cell."""
    layer = atoms[atoms.get_tags() == 0]
    layer.positions[:, 2] += HEIGHT / 2 - layer.positions[:, 2].mean()
    return layer


def ripple(layer, noise, amplitude, rng):
    """A layer bent along its first vector by up to ``amplitude``, Å, in one wave."""
    height = amplitude * rng.uniform(0.3, 1) * np.sin(2 * np.pi * (layer.get_scaled_positions()[:, 0] + rng.random()))
    layer.positions += rng.normal(0, noise, (len(layer), 3))
    layer.positions[:, 2] += height + HEIGHT / 2 - layer.positions[:, 2].mean()
    return layer


def functions(atoms):
    """list of Function, five per Mo and three per S, in the order of the atoms.

    A layer is turned by 180 degrees where its bonds from Mo point to -210, -90 and 30 degrees.
    """
    layer, metal = layers(atoms, areas=AREAS), atoms.symbols == "Mo"
    first, _, bonds = neighbor_list("ijD", atoms, {("Mo", "S"): 3.0})
    threefold = np.exp(3j * np.arctan2(bonds[:, 1], bonds[:, 0]))[metal[first]]
    first = first[metal[first]]
    found = []
    for k, atom in enumerate(atoms):
        way = 1 if threefold[layer[first] == layer[k]].sum().imag < 0 else -1

        def along(degrees, up=0.0):
            return (float(way * np.cos(np.radians(degrees))), float(way * np.sin(np.radians(degrees))), up)

        if atom.symbol == "Mo":
            found += [Function(k, "dz2", along(degrees), (0.0, 0.0, 1.0)) for degrees in (-30, 210, 90)]
            found += [Function(k, name, (0.0, 0.0, 1.0), along(150)) for name in ("dxz", "dyz")]
        else:
            side = 1.0 if atom.position[2] > atoms.positions[metal & (layer == layer[k]), 2].mean() else -1.0
            found += [Function(k, "pz", along(degrees, side), along(degrees, -side)) for degrees in (30, 150, 270)]
    return found


def projections(atoms, functions):
    """Lines of Wannier90's projections block, one per function and in their order."""

    def numbers(values):
        return ",".join(f"{value:.9f}" for value in values)

    sites = atoms.get_scaled_positions()
    return "\n".join(
        f"f={numbers(sites[atom])}:{orbital}:z={numbers(z)}:x={numbers(x)}" for atom, orbital, z, x in functions
    )


def mesh(atoms, n, cells):
    """k points along the vectors of a cell, n along a primitive one of as much area; cells : of them in ``atoms``."""
    primitive = np.sqrt(atoms.cell.volume / HEIGHT / cells * 2 / np.sqrt(3))
    return (*(int(np.ceil(n * primitive / length - 0.15)) for length in atoms.cell.lengths()[:2]), 1)


def check_pseudopotentials():
    for name in PSEUDO.values():
        if not (Path(espresso.PSEUDO) / name).exists():
            raise FileNotFoundError(
                f"{name}: not in {espresso.PSEUDO}; copy the PAW pseudopotentials mo.upf (14 electrons) and s.upf (6), "
                "published with the code of Qi et al. 2024 (github.com/yuboqiuab/multifunctional), into a folder and "
                "name that in ESPRESSO_PSEUDO"
            )


def calculate(atoms, directory):
    """Label of one structure; Wannier90Error where the functions or the vacuum are not good enough."""
    check_pseudopotentials()
    bare = atoms.info.get("name", "").split("-")[0] in BARE
    units, sheets = len(atoms) // 3, layers(atoms, areas=AREAS).max() + 1
    coarse, fine = (mesh(atoms, n, units / sheets) for n in (POINTS, FINE_POINTS))
    # gentle mixing: with 0.7 and the correction a trial was at 1e-4 Ry still after 13 steps
    points = None if coarse == (1, 1, 1) else coarse  # None: Γ, with real functions
    espresso.pw(
        atoms,
        directory,
        "scf",
        PSEUDO,
        points,
        control=CONTROL,
        system=SYSTEM,
        electrons=dict(conv_thr=1e-8 if bare else 1e-9, mixing_beta=0.3),
    )
    scf = read_pw(directory / espresso.SAVE)
    vacuum = layered.flat_vacuum(atoms, directory, VACUUM)
    if bare:
        return layered.Label(scf, vacuum=vacuum)
    layered.all_bands(atoms, directory, PSEUDO, fine, BANDS * units, SYSTEM, **CONTROL)
    wanted, size = functions(atoms), FUNCTIONS * units
    path = espresso.hamiltonian(
        atoms,
        directory,
        projections(atoms, wanted),
        size,
        fine,
        f"num_bands = {size}\nexclude_bands = 1-{CORE * units}\nnum_iter = {STEPS}",
    )
    found, spreads = layered.good_hamiltonian(path, atoms, wanted, MAX_SPREAD)
    mismatch = abs(found.eigenvalues(espresso.full_mesh(fine)[:, :3]) - layered.dft_levels(directory)).max()
    layered.check_mismatch(mismatch, MAX_MISMATCH)
    return layered.Label(scf, found, spreads, vacuum, float(mismatch))


if __name__ == "__main__":
    layered.main(__doc__, PLAN, build, calculate, functions, ATTRIBUTES, apart=tuple(LAYERS))
