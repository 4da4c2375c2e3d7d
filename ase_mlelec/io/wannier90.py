"""Read and write the files of Wannier90: centres and spreads, Hamiltonians, the input file.

Every reader takes files that are compressed with gzip as well (``seed_hr.dat.gz``).

Source: Wannier90 3.1 output; its user guide, chapter "Files".
"""
import gzip
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from ase_mlelec import units
from ase_mlelec.io.atomic import replacing

LENGTHS = {"ang": 1.0, "bohr": units.BOHR}      # unit in the files -> Å
AMBIGUOUS = 0.05        # Å; a centre whose two nearest atoms are as close as this belongs to neither
SAME_PLACE = 0.01       # Å; ``.wout`` has five digits of the fractional coordinates


class Wannier90Error(ValueError):
    """A Wannier90 file or its contents cannot be used; the message names the cause and the remedy."""


class Centres(NamedTuple):
    """Wannier functions of one run.

    positions : array [W, 3], Å, as Wannier90 left them: in any cell
    spreads : array [W], Å^2, or None where the file has none (``_centres.xyz``)
    symbols : list of str, length N
    atoms : ase.Atoms of the run, with cell and pbc from ``.wout``, without them from ``_centres.xyz``
    n_bands : int, bands that the functions were made from, or None where the file does not tell
    """
    positions: np.ndarray
    spreads: np.ndarray | None
    symbols: list
    atoms: Atoms
    n_bands: int | None = None


def read_text(path):
    """Contents of a text file, compressed or not.

    Raises Wannier90Error when it is missing or not text.
    """
    path = Path(path)
    if not path.is_file():
        raise Wannier90Error(f"{path}: no such file; check the name and the folder")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode()
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise Wannier90Error(f"{path}: truncated or not text ({error}); copy or write it again") from None


# Centres

def read_centres(path):
    """Centres and spreads from ``seed.wout`` (the final state), or centres from ``seed_centres.xyz``.

    Returns Centres.

    Raises Wannier90Error when the run did not finish or the file is something else.
    """
    text = read_text(path)
    name = Path(path).name.removesuffix(".gz")
    return _centres_of_xyz(path, text) if name.endswith(".xyz") else _centres_of_wout(path, text)


def _centres_of_xyz(path, text):
    lines = text.splitlines()
    try:
        rows = [line.split() for line in lines[2:2 + int(lines[0])]]
        table = np.array([row[1:4] for row in rows], dtype=float).reshape(len(rows), 3)
        if len(rows) != int(lines[0]):
            raise ValueError(f"{len(rows)} rows of {int(lines[0])}")
    except (ValueError, IndexError) as error:
        raise Wannier90Error(f"{path}: truncated or not an xyz file ({error}); set write_xyz and run again") from None
    is_centre = np.array([row[0] == "X" for row in rows])
    if not is_centre.any():
        raise Wannier90Error(f"{path}: no centre (X), need seed_centres.xyz of Wannier90; set write_xyz")
    symbols = [_symbol(row[0]) for row in rows if row[0] != "X"]
    return Centres(table[is_centre], None, symbols, Atoms(symbols, table[~is_centre]))


_NUMBER = r"\s*([-+\d.Ee]+)\s*"
_CENTRE = re.compile(rf"WF centre and spread\s+\d+\s+\({_NUMBER},{_NUMBER},{_NUMBER}\){_NUMBER}$", re.MULTILINE)
_VECTOR = re.compile(rf"^\s*a_[123]{_NUMBER}{_NUMBER}{_NUMBER}$", re.MULTILINE)
_SITE = re.compile(r"^ \|\s*([A-Z][a-z]?)\S*\s+\d+\s+([-\d.]+)\s+([-\d.]+)\s+([-\d.]+)\s+\|", re.MULTILINE)


def _centres_of_wout(path, text):
    head, found, final = text.rpartition("Final State")
    unit = re.search(r"Lattice Vectors \((Ang|Bohr)\)", head)
    count = re.search(r"Number of Wannier Functions\s*:\s*(\d+)", head)
    final = final.partition("Sum of centres and spreads")
    if not (found and unit and count and final[1]):
        raise Wannier90Error(f"{path}: no final state; the run did not finish, or this is not a .wout file")
    table = np.array(_CENTRE.findall(final[0]), dtype=float).reshape(-1, 4)
    if len(table) != int(count[1]):
        raise Wannier90Error(f"{path}: got {len(table)} readable centres, need {count[1]}; run Wannier90 again")
    scale = LENGTHS[unit[1].lower()]
    cell = np.array(_VECTOR.findall(head)[-3:], dtype=float) * scale
    sites = _SITE.findall(head)
    symbols = [site[0] for site in sites]
    fractions = np.array([site[1:] for site in sites], dtype=float).reshape(-1, 3)
    atoms = Atoms(symbols, scaled_positions=fractions, cell=cell, pbc=True)
    bands = re.search(r"Number of input Bloch states\s*:\s*(\d+)", head)
    return Centres(table[:, :3] * scale, table[:, 3] * scale**2, symbols, atoms, int(bands[1]) if bands else None)


def _symbol(label):
    """Chemical symbol of a label such as Fe1 or si_a."""
    found = re.match("[A-Za-z][a-z]?", label)
    return found.group().capitalize() if found else "X"


def nearest_atoms(atoms, positions):
    """The atom nearest to each position by minimum image.

    atoms : ase.Atoms
    positions : array [W, 3], Å, in any cell

    Returns (owner [W] index of the atom, offset [W, 3] Å from the atom to the nearest image of the position).

    Raises Wannier90Error for a position that has two atoms at the same distance.
    """
    positions = np.asarray(positions, dtype=float)
    away = positions[:, None] - atoms.positions
    vectors, distances = find_mic(away.reshape(-1, 3), atoms.cell, atoms.pbc)
    vectors, distances = vectors.reshape(away.shape), distances.reshape(away.shape[:2])
    order = np.argsort(distances, axis=1)
    ranked = np.take_along_axis(distances, order, axis=1)
    if ranked.shape[1] > 1 and (close := ranked[:, 1] - ranked[:, 0] < AMBIGUOUS).any():
        at = int(np.argmax(close))
        raise Wannier90Error(f"centre {at}: got atoms {order[at, 0]} and {order[at, 1]} both at {ranked[at, 0]:.2f} Å, "
                             "need one nearest atom; change the projections or leave one of the species out")
    return order[:, 0], vectors[np.arange(len(positions)), order[:, 0]]


def assign_centres(atoms, centres, per_species, max_spread=None):
    """Share the Wannier centres out among the atoms that they are nearest to, and average them.

    atoms : ase.Atoms with cell and pbc
    centres : Centres, or array [W, 3] in Å
    per_species : dict of int, centres per atom, e.g. {"O": 4}; species that are not named get none
    max_spread : float, Å^2; a larger spread is an error, because the localization fell into a wrong minimum

    Returns (centroids [n, 3] Å, the mean of each atom's centres, unwrapped: next to the atom even where that lies
    outside of the cell; indices [n] of those atoms, increasing).

    Raises Wannier90Error when an atom gets another number of centres, for a centre that is as near to one atom as to
    another, for Centres of another structure, for functions of more bands than there are functions (a metal, or empty
    bands: the charges of such functions have no dipole), for spreads above max_spread, and for max_spread without
    spreads.

    Source: Zhang et al. 2020, Phys. Rev. B 102, 041121(R): centroids of the four centres around each oxygen.
    """
    positions, spreads = centres, None
    if isinstance(centres, Centres):
        positions, spreads = centres.positions, centres.spreads
        _check_run(atoms, centres)
    if max_spread is not None:
        _check_spreads(spreads, max_spread)
    wanted = np.array([per_species.get(symbol, 0) for symbol in atoms.symbols])
    indices = np.flatnonzero(wanted)
    if len(positions) != wanted.sum() or not len(indices):
        raise Wannier90Error(f"got {len(positions)} centres, need {wanted.sum()} for {per_species} in {atoms.symbols}; "
                             "check num_wann and per_species")
    owner, offset = nearest_atoms(atoms[indices], positions)
    counts = np.bincount(owner, minlength=len(indices))
    if (wrong := counts != wanted[indices]).any():
        at = int(np.argmax(wrong))
        atom = indices[at]
        raise Wannier90Error(f"centres do not split: got {counts[at]} nearest to atom {atom} ({atoms.symbols[atom]}), "
                             f"need {wanted[atom]}; reject this snapshot or localize again")
    total = np.zeros((len(indices), 3))
    np.add.at(total, owner, offset)
    return atoms.positions[indices] + total / counts[:, None], indices


def _check_run(atoms, centres):
    """Whether a run was of these atoms, in any order (Wannier90 sorts them by species), and of occupied bands alone."""
    ours, theirs = sorted(atoms.symbols), sorted(centres.symbols)
    if ours != theirs:
        raise Wannier90Error(f"got centres of {Atoms(theirs).symbols}, need those of {Atoms(ours).symbols}; these are "
                             "of another structure, give the files of this one")
    away = centres.atoms.positions[:, None] - atoms.positions
    distances = find_mic(away.reshape(-1, 3), atoms.cell, atoms.pbc)[1].reshape(away.shape[:2])
    distances[np.not_equal.outer(centres.atoms.numbers, atoms.numbers)] = np.inf
    if (farthest := distances.min(axis=0).max()) > SAME_PLACE:
        raise Wannier90Error(f"got centres of a structure whose atoms are up to {farthest:.2f} Å away from these, need "
                             f"less than {SAME_PLACE}; give the files of this structure")
    if centres.n_bands is not None and centres.n_bands > len(centres.positions):
        raise Wannier90Error(f"got {len(centres.positions)} functions of {centres.n_bands} bands, need as many as "
                             "functions; a metal has no such dipole, for an insulator leave the empty bands out")


def _check_spreads(spreads, max_spread):
    if spreads is None:
        raise Wannier90Error("max_spread: got centres without spreads, need those of a .wout file; read that one")
    if spreads.max() > max_spread:
        raise Wannier90Error(f"centre {int(spreads.argmax())}: got a spread of {spreads.max():.2f} Å^2, need at most "
                             f"{max_spread:g}; reject this snapshot or localize again")


# Hamiltonians

FOLDED = "images of minimal distance folded in"     # in the first line of files that need no wsvec


class RealSpace(NamedTuple):
    """Matrices between Wannier functions, images folded in: multiply by phases and add, no degeneracies are left.

    r_vectors : array [R, 3], integers
    matrices : array [R, W, W], eV, <m 0|H|n R>
    positions : array [R, W, W, 3], Å, <m 0|r|n R>, or None (``_hr.dat`` has none)
    cell : array [3, 3], Å, rows, or None
    """
    r_vectors: np.ndarray
    matrices: np.ndarray
    positions: np.ndarray | None = None
    cell: np.ndarray | None = None


def read_hr(path):
    """H(R) from ``seed_hr.dat``, with the images of ``seed_wsvec.dat`` beside it.

    Returns RealSpace without positions and cell.

    Warns where there is no wsvec file: on a coarse mesh bands between its points are then off by up to 1 eV.

    Raises Wannier90Error for truncated files and degeneracies that do not belong to a mesh of k points.
    """
    return _folded(path, *_parse_hr(path, read_text(path)))


def read_tb(path):
    """H(R), <0|r|R> and the cell from ``seed_tb.dat``, with the images of ``seed_wsvec.dat`` beside it.

    Returns RealSpace.

    Warns and raises as read_hr does.
    """
    return _folded(path, *_parse_tb(path, read_text(path)))


def _head(path, tokens, at):
    """(W, R, degeneracies, place behind them), from the place of W."""
    try:
        size, count = int(tokens[at]), int(tokens[at + 1])
        degeneracies = np.array(tokens[at + 2:at + 2 + count], dtype=int)
        if min(size, count) < 1 or len(degeneracies) < count:
            raise ValueError(f"{size} functions, {len(degeneracies)} degeneracies of {count}")
    except (ValueError, IndexError) as error:
        raise Wannier90Error(f"{path}: truncated or not written by Wannier90 ({error}); write it again") from None
    if (degeneracies < 1).any() or abs((n_kpts := (1 / degeneracies).sum()) - round(n_kpts)) > 1e-6:
        raise Wannier90Error(f"{path}: wrong degeneracies, {degeneracies.min()} to {degeneracies.max()}, need positive "
                             "ones whose inverses add up to the number of k points; write the file again")
    return size, count, degeneracies, at + 2 + count


def _numbers(path, tokens, shape):
    """Tokens as array of floats of that shape."""
    try:
        if len(tokens) != np.prod(shape):
            raise ValueError(f"{len(tokens)} numbers of {np.prod(shape)}")
        return np.array(tokens, dtype=float).reshape(shape)
    except ValueError as error:
        raise Wannier90Error(f"{path}: truncated or damaged ({error}); write it again") from None


def _in_place(path, table, size):
    """Rows (m, n, values) of each lattice vector, [R, W W, 2 + V], as array [R, W, W, V]."""
    index = table[..., :2].astype(int) - 1
    place = index @ [size, 1]
    if (np.sort(place, axis=1) != np.arange(size * size)).any():
        raise Wannier90Error(f"{path}: got rows m, n that are not each pair of {size} functions once; write it again")
    values = np.take_along_axis(table[..., 2:], np.argsort(place, axis=1)[..., None], axis=1)
    return values.reshape(len(table), size, size, -1)


def _parse_hr(path, text):
    first, _, rest = text.partition("\n")
    tokens = rest.split()
    size, count, degeneracies, start = _head(path, tokens, 0)
    table = _numbers(path, tokens[start:], (count, size * size, 7))
    if (table[:, :, :3] != table[:, :1, :3]).any():
        raise Wannier90Error(f"{path}: got rows of one lattice vector apart from each other; write it again")
    values = _in_place(path, table[..., 3:], size)
    return first, table[:, 0, :3].astype(int), degeneracies, values[..., 0] + 1j * values[..., 1], None, None


def _parse_tb(path, text):
    first, _, rest = text.partition("\n")
    tokens = rest.split()
    cell = _numbers(path, tokens[:9], (3, 3))
    size, count, degeneracies, start = _head(path, tokens, 9)
    middle = start + count * (3 + 4 * size**2)
    energies = _numbers(path, tokens[start:middle], (count, 3 + 4 * size**2))
    places = _numbers(path, tokens[middle:], (count, 3 + 8 * size**2))
    if (energies[:, :3] != places[:, :3]).any():
        raise Wannier90Error(f"{path}: got other lattice vectors for <0|r|R> than for H(R); write it again")
    values = _in_place(path, energies[:, 3:].reshape(count, -1, 4), size)
    places = _in_place(path, places[:, 3:].reshape(count, -1, 8), size)
    return (first, energies[:, :3].astype(int), degeneracies, values[..., 0] + 1j * values[..., 1],
            places[..., ::2] + 1j * places[..., 1::2], cell)


def _folded(path, first, r_vectors, degeneracies, matrices, positions, cell):
    """RealSpace of what a file holds, divided by the degeneracies and shared out among the images."""
    values = matrices[..., None] if positions is None else np.concatenate([matrices[..., None], positions], -1)
    values = values / degeneracies[:, None, None, None]
    size = matrices.shape[1]
    path = Path(path)
    wsvec = path.with_name(re.sub(r"_(hr|tb)\.dat", "_wsvec.dat", path.name))
    if FOLDED not in first:
        if wsvec != path and wsvec.is_file():
            r_vectors, values = _shared_out(wsvec, r_vectors, values)
        else:
            warnings.warn(f"{path}: no {wsvec.name} beside it; without the images of minimal distance a coarse mesh "
                          "interpolates badly", stacklevel=3)
    values = values.reshape(-1, size, size, values.shape[-1])
    return RealSpace(r_vectors, values[..., 0], None if positions is None else values[..., 1:], cell)


def _shared_out(path, r_vectors, values):
    """Elements <m 0|n R> moved to the images R + T of wsvec, which share them equally."""
    size = values.shape[1]
    lines = [line.split() for line in read_text(path).splitlines()[1:]]
    which, shift, share = [], [], []
    place = {tuple(r): index for index, r in enumerate(r_vectors.tolist())}
    at = 0
    try:
        while at < len(lines):
            *r_vector, m, n = map(int, lines[at])
            count = int(lines[at + 1][0])
            element = (place[tuple(r_vector)] * size + m - 1) * size + n - 1
            images = lines[at + 2:at + 2 + count]
            if len(images) != count or not (0 < m <= size and 0 < n <= size):
                raise ValueError(f"{len(images)} images of {count}")
            which += [element] * count
            shift += images
            share += [1 / count] * count
            at += 2 + count
        shift = np.array(shift, dtype=int).reshape(-1, 3)
        if len(set(which)) != values[..., 0].size:
            raise ValueError(f"{len(set(which))} elements of {values[..., 0].size}")
    except (ValueError, IndexError, KeyError) as error:
        raise Wannier90Error(f"{path}: truncated or of another run ({error}); write it again") from None
    which = np.array(which)
    index, element = np.divmod(which, size * size)
    images, target = np.unique(r_vectors[index] + shift, axis=0, return_inverse=True)
    folded = np.zeros((len(images), size * size, values.shape[-1]), dtype=complex)
    np.add.at(folded, (target.ravel(), element), values.reshape(-1, values.shape[-1])[which] * np.array(share)[:, None])
    return images, folded


def write_hr(path, r_vectors, matrices):
    """Write H(R) as ``seed_hr.dat``, all degeneracies 1; no wsvec file is needed.

    r_vectors : array [R, 3], integers
    matrices : array [R, W, W], eV
    """
    _write(path, [], r_vectors, [_rows(r_vectors, np.asarray(matrices)[..., None], with_vector=True)], len(matrices[0]))


def write_tb(path, cell, r_vectors, matrices, positions):
    """Write cell, H(R) and <0|r|R> as ``seed_tb.dat``, all degeneracies 1; no wsvec file is needed.

    cell : array [3, 3], Å, rows
    r_vectors : array [R, 3], integers
    matrices : array [R, W, W], eV
    positions : array [R, W, W, 3], Å
    """
    lines = [" ".join(f"{x:.12f}" for x in vector) for vector in np.asarray(cell)]
    parts = [_rows(r_vectors, np.asarray(values), with_vector=False)
             for values in (np.asarray(matrices)[..., None], positions)]
    _write(path, lines, r_vectors, parts, len(matrices[0]))


def _rows(r_vectors, values, with_vector):
    """Lines of a table, m running fastest, with the lattice vector in every line or above its block."""
    size = values.shape[1]
    for r_vector, block in zip(np.asarray(r_vectors), values):
        head = " ".join(f"{x:4d}" for x in r_vector)
        if not with_vector:
            yield f"\n{head}"
        for n in range(size):
            for m in range(size):
                numbers = " ".join(f"{x.real:18.12f} {x.imag:18.12f}" for x in block[m, n])
                yield f"{head if with_vector else ''}{m + 1:5d}{n + 1:5d} {numbers}"


def _write(path, lines, r_vectors, parts, size):
    count = len(r_vectors)
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(f" written by ase-mlelec, {FOLDED}\n")
        file.writelines(f"{line}\n" for line in [*lines, size, count])
        file.writelines("    1" * min(15, count - start) + "\n" for start in range(0, count, 15))
        for part in parts:
            file.writelines(f"{line}\n" for line in part)


# Input file

class Win(NamedTuple):
    """Contents of ``seed.win``.

    atoms : ase.Atoms with cell
    keywords : dict of str, lower case -> value as written
    blocks : dict of str, lower case -> list of lines, without begin and end
    """
    atoms: Atoms
    keywords: dict
    blocks: dict


def read_win(path):
    """Read the input file of Wannier90.

    Returns Win.

    Raises Wannier90Error for blocks that do not end and a missing or unreadable cell.
    """
    keywords, blocks, block = {}, {}, None
    for line in read_text(path).splitlines():
        line = re.split("[!#]", line)[0].strip()
        words = line.lower().split()
        if len(words) > 1 and words[0] == "begin":
            block = blocks.setdefault(words[1], [])
        elif len(words) > 1 and words[0] == "end":
            block = None
        elif line and block is not None:
            block.append(line)
        elif line:
            key, _, value = re.sub(r"\s*[=:\s]\s*", " ", line, count=1).partition(" ")
            keywords[key.lower()] = value.strip()
    if block is not None:
        raise Wannier90Error(f"{path}: got a block without an end; the file is truncated, copy it again")
    try:
        cell = _lengths(blocks["unit_cell_cart"])
        name = "atoms_frac" if "atoms_frac" in blocks else "atoms_cart"
        rows = blocks.get(name, [])
        symbols = [_symbol(row.split()[0]) for row in rows if len(row.split()) == 4]
        places = _lengths(rows, 1)
        atoms = Atoms(symbols, places @ cell if name == "atoms_frac" else places, cell=cell, pbc=True)
    except (KeyError, ValueError, IndexError) as error:
        raise Wannier90Error(f"{path}: no readable cell or atoms ({error}); need unit_cell_cart and atoms") from None
    return Win(atoms, keywords, blocks)


def _lengths(rows, start=0):
    """Vectors in Å of the lines of a block, whose first line may be a unit."""
    scale = LENGTHS.get(rows[0].lower(), 1.0) if rows else 1.0
    table = [row.split()[start:start + 3] for row in rows if row.lower() not in LENGTHS]
    return scale * np.array(table, dtype=float).reshape(len(table), 3)
