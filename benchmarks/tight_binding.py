"""Time of Hamiltonians, bands and densities of states, beside other programs and against size; writes TIGHT_BINDING.md.

    OMP_NUM_THREADS=1 python benchmarks/tight_binding.py        # about ten minutes

On one core; CPU seconds, so that other programs on the machine matter little.  tbmodels is compared where it is
installed.  Twisted MoS2 is that of Qi et al. 2024, with a layer under more strain than the other; its Hamiltonian comes
from the model `mos2`.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from ase.build import graphene, mx2
from ase.neighborlist import neighbor_list
from hashes import models_line
from matplotlib.figure import Figure

from ase_mlelec import WannierHamiltonian, WannierTBCalculator
from ase_mlelec.analysis.plots import COLORS
from ase_mlelec.physics import bands
from ase_mlelec.physics.bloch import BlochSum, from_elements
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec.structures.twist import commensurate, twisted_bilayer

HERE = Path(__file__).parent
A, THICKNESS, DISTANCE = 3.26, 3.13, 6.3  # Å; strained to 3.14 and 3.38 in the cell of 8.95 degrees
CELLS = [
    ((6, 0), (5, 1)),
    ((10, 0), (9, 1)),
    ((15, 0), (14, 1)),
    ((21, 0), (20, 1)),
    ((29, 0), (28, 1)),
    ((41, 0), (40, 1)),
]
TURNS = 5  # of two programs beside each other
N_BANDS, MOST_BANDS = 40, 10000  # bands around the gap, of up to so many functions
GAP = -5.6, -4.6  # eV above the vacuum level, with the gap of twisted MoS2 in the middle


def twisted_graphene(m, r, reach=5.5):
    """pz functions with the distance dependence of Moon and Koshino 2013, Phys. Rev. B 87, 205404, Eqs. (3)-(5)."""
    atoms, found = twisted_bilayer(graphene(a=2.46), graphene(a=2.46), commensurate(m, r), 3.35)
    i, j, d, vectors, shifts = neighbor_list("ijdDS", atoms, reach)
    cosine2 = (vectors[:, 2] / d) ** 2
    hop = (
        -2.7 * np.exp(-(d - 2.46 / np.sqrt(3)) / 0.45264) * (1 - cosine2)
        + 0.48 * np.exp(-(d - 3.35) / 0.45264) * cosine2
    )
    r_vectors, which = np.unique(shifts, axis=0, return_inverse=True)
    matrices = from_elements(len(r_vectors), len(atoms), which.ravel(), i, j, hop)
    return WannierHamiltonian(np.array(atoms.cell), r_vectors, matrices, centers=atoms.positions), found


def random_cell(size, n_vectors, fill=1.0, seed=0):
    """Random H(R) of the shape of a Wannier Hamiltonian: complex, R within a sphere, a gap in the middle."""
    rng = np.random.default_rng(seed)
    cube = np.indices((11, 11, 11 if n_vectors > 60 else 1)).reshape(3, -1).T - [5, 5, 5 if n_vectors > 60 else 0]
    r_vectors = cube[np.lexsort((*cube.T, (cube**2).sum(1)))][:n_vectors]
    r_vectors = np.unique(np.concatenate([r_vectors, -r_vectors]), axis=0)
    elements = int(fill * size * size)
    which, row, column, value = [], [], [], []
    for index in range(len(r_vectors)):
        which.append(np.full(elements, index))
        row.append(rng.integers(0, size, elements))
        column.append(rng.integers(0, size, elements))
        value.append((rng.normal(size=elements) + 1j * rng.normal(size=elements)) / np.sqrt(elements))
    which, row, column, value = map(np.concatenate, (which, row, column, value))
    home = int(np.flatnonzero(~r_vectors.any(1))[0])
    place = np.linspace(-1, 1, size)
    steps = np.sign(place) * (0.3 + 6 * abs(place) ** 0.7)  # a gap of 0.6 eV and few levels at its edges
    opposite = len(r_vectors) - 1 - which
    which = np.concatenate([which, opposite, np.full(size, home)])
    matrices = from_elements(
        len(r_vectors),
        size,
        which,
        np.concatenate([row, column, np.arange(size)]),
        np.concatenate([column, row, np.arange(size)]),
        np.concatenate([0.3 * value, 0.3 * value.conj(), steps]),
    )
    return WannierHamiltonian(np.eye(3) * 5, r_vectors, matrices)


def seconds(function, repeats=1):
    """Least CPU time of some runs, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def small_cells():
    """Rows: a 24^3 mesh of 8 and 18 functions beside tbmodels, and a matrix product and batched eigvalsh written out."""
    yield "| functions | R | ase-mlelec, s | product + eigvalsh, s | tbmodels, s | largest difference, eV |"
    yield "|---|---|---|---|---|---|"
    kpts = monkhorst_pack((24, 24, 24))
    for size, n_vectors in ((8, 123), (18, 150)):
        hamiltonian = random_cell(size, n_vectors)
        matrices = hamiltonian.bloch.toarray()
        table = torch.from_numpy(matrices.reshape(-1, size * size))
        phases = hamiltonian.r_vectors.T.astype(float)

        def plain():
            angle = 2 * np.pi * torch.from_numpy(kpts @ phases)
            return torch.linalg.eigvalsh((torch.complex(angle.cos(), angle.sin()) @ table).reshape(-1, size, size))

        ours, found = seconds(lambda: hamiltonian.eigenvalues(kpts), 3)
        other, wanted = seconds(plain, 3)
        off, peer = abs(found - wanted.numpy()).max(), "not installed"
        if importlib.util.find_spec("tbmodels"):
            import tbmodels

            hop = dict(zip(map(tuple, hamiltonian.r_vectors.tolist()), matrices))
            model = tbmodels.Model(hop=hop, size=size, contains_cc=True)
            taken, levels = seconds(lambda: model.eigenval(kpts), 3)
            off, peer = max(off, abs(found - np.array(levels)).max()), f"{taken:.2f} ({taken / ours:.1f}x)"
        yield f"| {size} | {len(hamiltonian.r_vectors)} | {ours:.2f} | {other:.2f} | {peer} | {off:.0e} |"


def twisted_mos2(lower, upper):
    layer = mx2("MoS2", a=A, thickness=THICKNESS, vacuum=0.0)
    return twisted_bilayer(layer, layer, (lower, upper), DISTANCE)


def all_bands(n_kpts):
    """Line: all bands of the 201-atom cell against LAPACK alone on the same matrices."""
    hamiltonian = WannierTBCalculator("mos2", on_extrapolation="ignore").get_hamiltonian(twisted_mos2(*CELLS[0])[0])
    kpts = np.random.default_rng(0).random((n_kpts, 3)) * [1, 1, 0]
    matrices = torch.from_numpy(hamiltonian.hk(kpts))
    r_vectors, parts = hamiltonian.bloch.r_vectors, hamiltonian.bloch.tolist()
    found = []
    for _ in range(TURNS):
        fresh = BlochSum(r_vectors, parts)  # without the tables of an earlier turn
        one, other = (lambda: bands.eigenvalues(fresh, kpts)), (lambda: [torch.linalg.eigvalsh(m) for m in matrices])
        found.append([seconds(function)[0] for function in (one, other)])
    ours, lapack = np.min(found, axis=0)
    return (
        f"All {hamiltonian.size} bands of the 201-atom cell at {n_kpts} k points: {ours:.1f} s, least of {TURNS}; LAPACK "
        f"on the same matrices {lapack:.1f} s, ratio {ours / lapack:.2f}."
    )


def costs_of_mos2(cells):
    """dict of what one cell of twisted MoS2 costs, in a process of its own."""
    torch.set_num_threads(1)
    (atoms, twist), calc = twisted_mos2(*cells), WannierTBCalculator("mos2", on_extrapolation="ignore")
    found = {"angle": twist.angle, "atoms": len(atoms)}
    calc.get_property("forces", mx2("MoS2", a=A, thickness=THICKNESS, size=(2, 2, 1), vacuum=8.0))  # reads machine code
    forces, _ = seconds(lambda: calc.get_property("forces", atoms))
    made, hamiltonian = seconds(lambda: calc.get_hamiltonian(atoms))
    return found | {"forces": forces, "hamiltonian": made} | costs_of_bands(hamiltonian, (0.1, 0.2, 0))


def costs_of_graphene(m, r):
    torch.set_num_threads(1)
    made, (hamiltonian, twist) = seconds(lambda: twisted_graphene(m, r))
    found = {"angle": twist.angle, "atoms": hamiltonian.size, "hamiltonian": made}
    return found | costs_of_bands(hamiltonian, (1 / 3, 1 / 3, 0), 12, (0.6, 1.0))


def costs_of_bands(hamiltonian, k, n_bands=N_BANDS, window=GAP):
    matrix = hamiltonian.bloch.sparse(k)
    found = {"functions": hamiltonian.size, "filled": matrix.nnz / hamiltonian.size**2}
    found["dos"], _ = seconds(
        lambda: hamiltonian.kernel_polynomial_dos(np.linspace(-20, 10, 6001), k=k, n_moments=256, n_vectors=4)
    )
    if hamiltonian.size < MOST_BANDS or n_bands < N_BANDS:
        found["bands"], levels = seconds(lambda: hamiltonian.eigenvalues([k], n_bands=n_bands, window=window))
        found["levels"] = float(levels.min()), float(levels.max())
    return found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2}


def alone(function, *arguments):
    """The result of a function in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def table_of_costs(rows):
    yield (
        "| degrees | atoms | functions | forces, s | Hamiltonian, s | of H(k) not zero, % | bands, s | "
        "density of states, s | GB |"
    )
    yield "|" + "---|" * 9
    for row in rows:
        forces, bands = (f"{row[key]:.1f}" if key in row else "" for key in ("forces", "bands"))
        yield (
            f"| {abs(row['angle']):.2f} | {row['atoms']:,} | {row['functions']:,} | {forces} | "
            f"{row['hamiltonian']:.1f} | {100 * row['filled']:.2f} | {bands} | {row['dos']:.1f} | "
            f"{row['memory']:.1f} |"
        )


def picture(rows):
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    ax = figure.subplots()
    for key, label, color in zip(
        ("hamiltonian", "bands", "dos", "forces"),
        ("Hamiltonian from the structure", f"{N_BANDS} bands at one k point", "density of states", "energy and forces"),
        COLORS,
    ):
        chosen = [row for row in rows if key in row]
        ax.loglog([row["atoms"] for row in chosen], [row[key] for row in chosen], "o-", ms=4, color=color, label=label)
    ax.set(xlabel="atoms of twisted MoS$_2$", ylabel="seconds of one core")
    ax.set_xticks([row["atoms"] for row in rows], [f"{row['atoms']:,}" for row in rows])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kpts", type=int, default=20, help="k points of the 201-atom cell (%(default)s)")
    parser.add_argument("--sizes", type=int, default=len(CELLS), help="how many cells, the smallest first (all)")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fewer = f" --sizes {arguments.sizes}" if arguments.sizes < len(CELLS) else ""
    lines = [
        "# Tight binding: time on one core",
        "",
        f"Regenerated by `OMP_NUM_THREADS=1 python benchmarks/tight_binding.py{fewer}`; CPU seconds, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start; compiled loops (extra `fast`).",
        "",
        models_line("mos2"),
        "",
        "## All bands of small cells on 13,824 k points, random complex H(R)",
        "",
        *small_cells(),
        "",
        "## All bands of a middle cell",
        "",
        all_bands(arguments.kpts),
    ]
    print("\n".join(lines), flush=True)
    rows = []
    for cells in CELLS[: arguments.sizes]:
        rows.append(alone(costs_of_mos2, cells))
        print(rows[-1], flush=True)
    lines += [
        "",
        "## Twisted MoS2, model `mos2`, against size",
        "",
        f"Bands: the {N_BANDS} nearest to the middle of the gap at one k point, up to {MOST_BANDS:,} functions. "
        "Density of states: 256 Chebyshev moments of 4 vectors. GB: largest memory of the process.",
        "",
        *table_of_costs(rows),
        "",
        "![Cost against size](tight_binding_cost.png)",
    ]
    picture(rows).savefig(arguments.output / "tight_binding_cost.png", dpi=130)
    lines += [
        "",
        "## Twisted graphene, a formula for pz functions within 5.5 Å (Moon and Koshino 2013), 12 bands at K",
        "",
        *table_of_costs([alone(costs_of_graphene, *pair) for pair in ((8, 1), (30, 1))]),
    ]
    (arguments.output / "TIGHT_BINDING.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
