"""Time of band structures from H(R): all bands of small and middle cells, a few bands and the DOS of large ones.

Run it on one core, ``OMP_NUM_THREADS=1 python benchmarks/tight_binding.py``; CPU seconds, so that other programs on the
machine matter little.  ``--large`` adds a Hamiltonian of the size of a 1,308-atom MoS2 bilayer (4,796 functions, a
minute and 2 GB), ``--magic`` the pz functions of graphene twisted by 1.08 degrees (11,164 atoms).
"""
import argparse
import resource
import time

import numpy as np
import torch
from ase.build import graphene
from ase.neighborlist import neighbor_list

from ase_mlelec import WannierHamiltonian
from ase_mlelec.bilayers import commensurate, twisted_bilayer
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec.physics.tight_binding import from_elements


def twisted_graphene(m, r, reach=5.5):
    """pz functions with the distance dependence of Moon and Koshino 2013, Phys. Rev. B 87, 205404, Eqs. (3)-(5)."""
    atoms, found = twisted_bilayer(graphene(a=2.46), graphene(a=2.46), commensurate(m, r), 3.35)
    i, j, d, vectors, shifts = neighbor_list("ijdDS", atoms, reach)
    cosine2 = (vectors[:, 2] / d)**2
    hop = (-2.7 * np.exp(-(d - 2.46 / np.sqrt(3)) / 0.45264) * (1 - cosine2)
           + 0.48 * np.exp(-(d - 3.35) / 0.45264) * cosine2)
    r_vectors, which = np.unique(shifts, axis=0, return_inverse=True)
    matrices = from_elements(len(r_vectors), len(atoms), which.ravel(), i, j, hop)
    return WannierHamiltonian(np.array(atoms.cell), r_vectors, matrices, atoms.positions), found


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
    steps = np.sign(place) * (0.3 + 6 * abs(place)**0.7)       # a gap of 0.6 eV and few levels at its edges
    opposite = len(r_vectors) - 1 - which
    which = np.concatenate([which, opposite, np.full(size, home)])
    matrices = from_elements(len(r_vectors), size, which, np.concatenate([row, column, np.arange(size)]),
                             np.concatenate([column, row, np.arange(size)]),
                             np.concatenate([0.3 * value, 0.3 * value.conj(), steps]))
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
    """A 24^3 mesh of 8 and 18 functions against one matrix product and batched eigvalsh, written out."""
    kpts = monkhorst_pack((24, 24, 24))
    for size, n_vectors in ((8, 123), (18, 150)):
        hamiltonian = random_cell(size, n_vectors)
        table = torch.from_numpy(hamiltonian.bloch.toarray().reshape(-1, size * size))
        phases = hamiltonian.r_vectors.T.astype(float)

        def plain():
            angle = 2 * np.pi * torch.from_numpy(kpts @ phases)
            return torch.linalg.eigvalsh((torch.complex(angle.cos(), angle.sin()) @ table).reshape(-1, size, size))
        ours, found = seconds(lambda: hamiltonian.eigenvalues(kpts), 3)
        other, wanted = seconds(plain, 3)
        print(f"{size} functions, {len(hamiltonian.r_vectors)} R, 13824 k: {ours:.2f} s; product and "
              f"eigvalsh {other:.2f} s; difference {abs(found - wanted.numpy()).max():.0e} eV", flush=True)


def middle_cell(n_kpts):
    """All bands of 737 functions against LAPACK alone on the same matrices."""
    hamiltonian = random_cell(737, 9, 0.2)
    kpts = np.random.default_rng(0).random((n_kpts, 3))
    ours, _ = seconds(lambda: hamiltonian.eigenvalues(kpts))
    matrices = torch.from_numpy(hamiltonian.hk(kpts))
    lapack, _ = seconds(lambda: [torch.linalg.eigvalsh(matrix) for matrix in matrices])
    print(f"737 functions, {n_kpts} k, all bands: {ours:.1f} s; LAPACK {lapack:.1f} s, ratio {ours / lapack:.2f}",
          flush=True)


def few_bands(name, hamiltonian, k, n_bands, window):
    matrix = hamiltonian.bloch.sparse(k)
    built, _ = seconds(lambda: hamiltonian.bloch.sparse(k))
    ours, found = seconds(lambda: hamiltonian.eigenvalues([k], n_bands=n_bands, window=window))
    dos, _ = seconds(lambda: hamiltonian.kernel_polynomial_dos(np.linspace(-3, 3, 301), k, 256, 4))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{name}: {hamiltonian.size} functions, {100 * matrix.nnz / hamiltonian.size**2:.2f} % filled; H(k) "
          f"{built:.2f} s, {n_bands} bands {ours:.1f} s ({found.min():.3f} to {found.max():.3f} eV), DOS by 256 "
          f"moments of 4 vectors {dos:.1f} s; {memory:.1f} GB so far", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kpts", type=int, default=5, help="k points of the 737 functions (default: 5)")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--magic", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    small_cells()
    middle_cell(arguments.kpts)
    for m in (8, 30) if arguments.magic else (8,):
        built, (hamiltonian, found) = seconds(lambda m=m: twisted_graphene(m, 1))
        few_bands(f"graphene, {found.angle:.2f} degrees, built in {built:.1f} s", hamiltonian, (1 / 3, 1 / 3, 0), 12,
                  (0.6, 1.0))
    if arguments.large:
        few_bands("like MoS2 at 3.4 degrees", random_cell(4796, 9, 0.012), (0.1, 0.2, 0), 40, (-1.0, 1.0))


if __name__ == "__main__":
    main()
