"""Atomic functions as combinations of real spherical harmonics around the normal of a layer.

The harmonics, called columns, are s; pz, px, py; dz2, dxz, dyz, dx2-y2, dxy. A column with azimuthal number m varies as
cos(mθ) or sin(mθ) around the normal. A reflection of the normal multiplies it by (-1)^(l+m); a reflection of the
in-plane axis y multiplies the sines by -1.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORBITALS = ("s", "pz", "px", "py", "dz2", "dxz", "dyz", "dx2-y2", "dxy")
DEGREE = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
WINDING = np.array([0, 0, 1, 1, 0, 1, 1, 2, 2])
SINE = np.array([False, False, False, True, False, False, True, False, True])


def harmonics(vectors: NDArray) -> NDArray:
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


def coefficients(orbital: str, z: NDArray, x: NDArray) -> NDArray:
    """Coefficients [9] of an orbital with the axes z and x in the columns; the axes need not be normalized.

    Raises
    ------
    ValueError
        For an unknown orbital and for axes that are not perpendicular.
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
    local = directions @ np.stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z], axis=1)
    place = ORBITALS.index(orbital)
    degree = DEGREE[place]
    result = np.zeros(len(ORBITALS))
    result[DEGREE == degree] = inverses[degree] @ harmonics(local)[:, place]
    return result


def transform(functions: Sequence[tuple]) -> tuple:
    """Orthogonal transformation from columns to the functions of one atom.

    Parameters
    ----------
    functions : list of (orbital, z, x)
        Names, and axes in the frame of the layer.

    Returns
    -------
    tuple
        (U [W, W], columns [W]): functions = U @ columns, and the places of these columns in ORBITALS.

    Raises
    ------
    ValueError
        Where the functions do not span complete sets, such as px without py.

    Notes
    -----
    Hybrids are orthogonalized symmetrically, as Wannier functions are.
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


def parities(columns: NDArray) -> NDArray:
    """Signs [2, W] of columns under reflection of the normal and under reflection of the in-plane axis y."""
    degree, winding, sine = DEGREE[columns], WINDING[columns], SINE[columns]
    return np.stack([1 - 2 * ((degree + winding) % 2), 1 - 2 * sine.astype(int)])


def circular(columns: NDArray) -> tuple:
    """Combinations χ of columns with definite azimuthal number: they turn by exp(-iλβ) with the frame.

    Returns (V [W, W], λ [W]) with χ = V @ columns, V complex.
    """
    size = len(columns)
    matrix, winding = np.zeros((size, size), dtype=complex), np.zeros(size, dtype=int)
    for place, column in enumerate(columns):
        if WINDING[column] == 0:
            matrix[place, place] = 1
            continue
        same = np.flatnonzero((DEGREE[columns] == DEGREE[column]) & (WINDING[columns] == WINDING[column]))
        cosine, sine = same[~SINE[columns][same]][0], same[SINE[columns][same]][0]
        sign = -1 if SINE[column] else 1  # the place of the cosine holds +λ, the place of the sine holds -λ
        matrix[place, cosine], matrix[place, sine] = 0.5**0.5, sign * 1j * 0.5**0.5
        winding[place] = sign * WINDING[column]
    return matrix, winding


class AtomicFunctions(torch.nn.Module):
    """The functions of the atoms of one species.

    Parameters
    ----------
    described : dict
        "orbitals": names; "z" and "x": axes in the frame of the layer, for atoms above its middle; "sided": whether
        atoms below the middle have mirrored axes.

    Attributes
    ----------
    size : int
        Number W of functions.
    columns : array [W]
        Places of the columns in ORBITALS.
    sided : bool
        Whether atoms below the middle of the layer have mirrored axes.
    turns : bool
        Whether any function changes when the frame turns around the normal.
    transform : Tensor [W, W]
        Functions = transform @ columns.
    signs : Tensor [2, W]
        See ``parities``.
    winding : Tensor [W]
        Azimuthal numbers λ of the functions χ, see ``circular``.
    windings : list of W int
        The same numbers.
    """

    signs: Tensor
    transform: Tensor
    vectors: Tensor
    winding: Tensor

    def __init__(self, described: Mapping):
        super().__init__()
        matrix, self.columns = transform(list(zip(described["orbitals"], described["z"], described["x"])))
        vectors, winding = circular(self.columns)
        self.size, self.sided, self.turns = len(self.columns), bool(described["sided"]), bool(winding.any())
        self.windings = winding.tolist()  # on the host
        # complex arrays are kept as two real ones: a conversion to another precision would drop the imaginary part
        for name, value in (
            ("signs", parities(self.columns).astype(float)),
            ("transform", matrix),
            ("vectors", np.stack([vectors.real, vectors.imag])),
            ("winding", winding),
        ):
            self.register_buffer(name, torch.as_tensor(value), persistent=False)

    def circular(self, dtype: torch.dtype) -> Tensor:
        """Complex matrix V [W, W] from columns to functions of definite azimuthal number."""
        return torch.complex(*self.vectors).to(dtype)

    def at_heights(self, height: Tensor) -> Tensor:
        """Matrices U [n, W, W], functions = U @ columns, of atoms at ``height`` [n] above the middle of their layer."""
        mirrored = (height < 0) & self.sided
        return torch.where(mirrored[:, None, None], self.transform * self.signs[0], self.transform)


def turn(described: dict) -> bool:
    """Whether any of the described functions (see AtomicFunctions) changes when the frame turns around the normal."""
    return AtomicFunctions(described).turns


def reflected_block(block: Tensor, first: AtomicFunctions, second: AtomicFunctions, up: int, across: int) -> Tensor:
    """Blocks [..., W, W'] in frames with a reflected normal (up = -1) or in-plane axis (across = -1).

    ``first`` and ``second`` are the AtomicFunctions of rows and columns. The operation is its own inverse.
    """
    for sign, place in ((up, 0), (across, 1)):
        if sign < 0:
            block = block * first.signs[place, :, None] * second.signs[place]
    return block
