"""Functions of an atom as combinations of real spherical harmonics around the normal of its layer.

Columns: s; pz, px, py; dz2, dxz, dyz, dx2-y2, dxy. A column winds around the normal with λ = m, as cos(mθ) or sin(mθ),
and has signs under reflection of the normal, (-1)^(l+m), and of the in-plane axis y, -1 for the sines.
"""

import functools

import numpy as np
import torch

ORBITALS = ("s", "pz", "px", "py", "dz2", "dxz", "dyz", "dx2-y2", "dxy")
DEGREE = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
WINDING = np.array([0, 0, 1, 1, 0, 1, 1, 2, 2])
SINE = np.array([False, False, False, True, False, False, True, False, True])


def harmonics(vectors):
    """Values [n, 9] of the columns in the directions ``vectors`` [n, 3], normalized to 4π over the sphere."""
    x, y, z = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    one = np.ones_like(x)
    p, d = 3**0.5, 5**0.5
    return np.stack(
        [
            one,
            p * z,
            p * x,
            p * y,
            d * (1.5 * z * z - 0.5),
            d * 3**0.5 * x * z,
            d * 3**0.5 * y * z,
            d * 0.75**0.5 * (x * x - y * y),
            d * 3**0.5 * x * y,
        ],
        axis=1,
    )


@functools.lru_cache
def _directions():
    directions = np.random.default_rng(0).normal(size=(40, 3))
    values = harmonics(directions)
    return directions, [np.linalg.pinv(values[:, DEGREE == l]) for l in range(3)]


def coefficients(orbital, z, x):
    """Coefficients [9] of an orbital with the axes z and x (need not be normalized) in the columns.

    Raises
    ------
    ValueError
        For other orbitals and for axes that are not perpendicular.
    """
    if orbital not in ORBITALS:
        raise ValueError(f"orbital: got '{orbital}', need one of {', '.join(ORBITALS)}")
    z, x = (np.asarray(axis, dtype=float) / max(np.linalg.norm(axis), 1e-12) for axis in (z, x))
    if abs(z @ x) > 1e-3 or min(np.linalg.norm(z), np.linalg.norm(x)) < 0.5:
        raise ValueError(
            f"axes: got z = {z.round(3).tolist()} and x = {x.round(3).tolist()}, need two perpendicular "
            "directions; correct them"
        )
    x = x - (x @ z) * z
    directions, inverses = _directions()
    own = directions @ np.stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z], axis=1)
    place = ORBITALS.index(orbital)
    degree = DEGREE[place]
    result = np.zeros(len(ORBITALS))
    result[DEGREE == degree] = inverses[degree] @ harmonics(own)[:, place]
    return result


def transform(functions):
    """(U [W, W] orthogonal, functions = U @ columns; columns [W], their places) of the functions of one atom.

    Parameters
    ----------
    functions : list of (orbital, z, x)
        Axes in the frame of the layer.

    Raises
    ------
    ValueError
        Where they do not span complete sets, such as px without py.

    Notes
    -----
    Hybrids are orthogonalized as Wannier functions are, symmetrically.
    """
    matrix = np.array([coefficients(*function) for function in functions])
    columns = np.flatnonzero(abs(matrix).max(axis=0) > 1e-5)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    closed = [
        WINDING[k] == 0
        or ((DEGREE == DEGREE[k]) & (WINDING == WINDING[k])).sum()
        == ((DEGREE[columns] == DEGREE[k]) & (WINDING[columns] == WINDING[k])).sum()
        for k in columns
    ]
    if len(columns) != len(functions) or values[0] < 1e-6 or not all(closed):
        names = ", ".join(orbital for orbital, _, _ in functions)
        raise ValueError(
            f"functions {names}: got {len(functions)} that span {len(columns)} harmonics around the "
            "normal, need as many, both partners of each pair; add or remove functions"
        )
    return (vectors / np.sqrt(values)) @ vectors.T @ matrix[:, columns], columns


def parities(columns):
    """Signs [2, W] of columns under reflection of the normal, and of y."""
    degree, winding, sine = DEGREE[columns], WINDING[columns], SINE[columns]
    return np.stack([1 - 2 * ((degree + winding) % 2), 1 - 2 * sine.astype(int)])


def circular(columns):
    """(V [W, W] complex with χ = V @ columns, windings λ [W]): χ turns by exp(-iλβ) with the frame."""
    size = len(columns)
    matrix, winding = np.zeros((size, size), dtype=complex), np.zeros(size, dtype=int)
    for place, column in enumerate(columns):
        if WINDING[column] == 0:
            matrix[place, place] = 1
            continue
        same = np.flatnonzero((DEGREE[columns] == DEGREE[column]) & (WINDING[columns] == WINDING[column]))
        cosine, sine = same[~SINE[columns][same]][0], same[SINE[columns][same]][0]
        sign = -1 if SINE[column] else 1  # the place of the cosine holds +λ, that of the sine -λ
        matrix[place, cosine], matrix[place, sine] = 0.5**0.5, sign * 1j * 0.5**0.5
        winding[place] = sign * WINDING[column]
    return matrix, winding


class AtomicFunctions(torch.nn.Module):
    """The functions of the atoms of one species, and their columns.

    Parameters
    ----------
    described : dict of "orbitals"
        Names; "z" and "x", axes in the frame of the layer for atoms above its middle; "sided", whether the axes of
        atoms below are mirrored.

    Attributes
    ----------
    size : int
        W.
    columns : array [W]
        Places of the columns.
    sided : bool
    transform : Tensor [W, W]
        Functions = transform @ columns.
    signs : Tensor [2, W]
        See ``parities``.
    winding : Tensor [W]
        λ of the circular functions.
    """

    def __init__(self, described):
        super().__init__()
        matrix, self.columns = transform(list(zip(described["orbitals"], described["z"], described["x"])))
        vectors, winding = circular(self.columns)
        self.size, self.sided = len(self.columns), bool(described["sided"])
        # as two real arrays: conversions of a module to another precision would drop the imaginary part
        for name, value in (
            ("signs", parities(self.columns).astype(float)),
            ("transform", matrix),
            ("vectors", np.stack([vectors.real, vectors.imag])),
            ("winding", winding),
        ):
            self.register_buffer(name, torch.as_tensor(value), persistent=False)

    @property
    def turns(self):
        """Whether any of the functions winds around the normal."""
        return bool(self.winding.any())

    def circular(self, dtype):
        """V [W, W], complex, with circular functions = V @ columns."""
        return torch.complex(*self.vectors).to(dtype)

    def at_heights(self, height):
        """U [n, W, W] of atoms at ``height`` [n] over the middle of their layer: functions = U @ columns."""
        mirrored = (height < 0) & self.sided
        return torch.where(mirrored[:, None, None], self.transform * self.signs[0], self.transform)


def turn(described: dict) -> bool:
    """Whether any of the functions that are described for AtomicFunctions winds around the normal."""
    return AtomicFunctions(described).turns


def reflected_block(block, first, second, up, across):
    """Blocks [..., W, W'] between two AtomicFunctions as they are in frames with reflected normal (up = -1) or
    direction in the plane (across = -1); twice is the identity."""
    for sign, place in ((up, 0), (across, 1)):
        if sign < 0:
            block = block * first.signs[place, :, None] * second.signs[place]
    return block
