"""Tight-binding models with closed forms, as (cell, r_vectors, matrices)."""

import numpy as np

A = 2.46  # Å, graphene
HEXAGONAL = np.array([[A, 0, 0], [-A / 2, A * np.sqrt(3) / 2, 0], [0, 0, 10.0]])


def build(size, hops, cell):
    """H(R) from on-site terms and hops (R, m, n, value): <m 0|H|n R>, with their conjugates."""
    table = {}
    for r_vector, m, n, value in hops:
        for r, i, j, v in ((r_vector, m, n, value), (tuple(-x for x in r_vector), n, m, np.conj(value))):
            table.setdefault(tuple(r), np.zeros((size, size), dtype=complex))[i, j] += v
    matrices = np.array(list(table.values()))
    return np.array(cell, dtype=float), np.array(list(table)), matrices if matrices.imag.any() else matrices.real


def chain(t=-1.0, a=2.0):
    """E = 2t cos(2πk)."""
    return build(1, [((1, 0, 0), 0, 0, t)], np.diag([a, 9, 9]))


def ssh(v=-1.0, w=-0.6):
    """Su, Schrieffer, Heeger: E = ±|v + w exp(2πik)|."""
    return build(2, [((0, 0, 0), 0, 1, v), ((1, 0, 0), 1, 0, w)], np.diag([3.0, 9, 9]))


def graphene(t=-2.7, mass=0.0, t2=0.0, phi=np.pi / 2):
    """pz orbitals of graphene; with on-site ±mass and second neighbors t2 exp(±iφ) the model of Haldane."""
    hops = [
        ((0, 0, 0), 0, 1, t),
        ((-1, 0, 0), 0, 1, t),
        ((0, 1, 0), 0, 1, t),
        ((0, 0, 0), 0, 0, mass / 2),
        ((0, 0, 0), 1, 1, -mass / 2),
    ]  # and their conjugates: ±mass
    for r_vector in ((1, 0, 0), (0, 1, 0), (-1, -1, 0)):  # 120 degrees apart
        hops += [(r_vector, 0, 0, t2 * np.exp(1j * phi)), (r_vector, 1, 1, t2 * np.exp(-1j * phi))]
    return build(2, hops, HEXAGONAL)


# first neighbors of site 0 are site 1 at 0, -a1 and a2 from its own cell, all at a/√3
GRAPHENE_SITES = np.array([[0, 0, 0], [1 / 3, -1 / 3, 0]]) @ HEXAGONAL


def random_model(rng, size=5, n_vectors=6, real=False):
    """Hermitian H(R) without any symmetry, on an oblique cell."""
    half = np.concatenate([[[0, 0, 0]], rng.permutation(np.indices((3, 3, 3)).reshape(3, -1).T - 1)[:n_vectors]])
    hops = [
        (tuple(r), m, n, rng.normal() + (0 if real else 1j * rng.normal()))
        for r in half
        for m in range(size)
        for n in range(size)
    ]
    return build(size, hops, [[3, 0.2, 0.1], [0.5, 2.5, 0.3], [-0.4, 0.2, 4]])


def supercell(cell, r_vectors, matrices, repeat):
    """The same crystal with ``repeat`` cells (n1, n2, n3) in one; function w of cell c is c W + w."""
    repeat = np.array(repeat)
    offsets = np.indices(repeat).reshape(3, -1).T
    size = matrices.shape[1]
    table = {}
    for here, offset in enumerate(offsets):
        for r_vector, matrix in zip(r_vectors, matrices):
            big, rest = np.divmod(offset + r_vector, repeat)
            there = np.ravel_multi_index(rest, repeat)
            block = table.setdefault(tuple(big.tolist()), np.zeros((len(offsets) * size,) * 2, dtype=matrices.dtype))
            block[here * size : (here + 1) * size, there * size : (there + 1) * size] += matrix
    return cell * repeat[:, None], np.array(list(table)), np.array(list(table.values()))
