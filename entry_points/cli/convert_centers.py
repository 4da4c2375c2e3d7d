"""Wannier centers of Wannier90 and CP2K, for ``mlelec convert``."""

import argparse
from collections.abc import Sequence

from ase_mlelec_entry_points.cli.convert_grids import numbers_of

OPTIONS = ("functions", "ions", "cell")
OTHERS = ("grid", "width", "step", "normalize", "key", "electronic_temperature", "points", "electrons", "vacuum_level")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--functions",
        metavar="SYMBOL=N",
        action="append",
        default=[],
        help="Wannier functions of an atom, whose centers make a data set of dipoles",
    )
    parser.add_argument(
        "--ions",
        metavar="SYMBOL=N",
        action="append",
        default=[],
        help="charges of ions beside Wannier centers (default: of --upf, or the outer electrons)",
    )
    parser.add_argument(
        "--cell", metavar="A", type=float, nargs="+", help="cell of CP2K's centers, 1, 3 or 9 numbers in Å"
    )


def convert_centers(sources: Sequence[str], target: str, arguments: argparse.Namespace) -> bool:
    """Write centroids and dipoles, and return whether the sources have Wannier centers and no Hamiltonians.

    With ``--functions``, folders that hold Hamiltonians as well are read for their centers.
    """
    from ase_mlelec.data.frames import write_hdf5
    from ase_mlelec.data.runs.centers import has_centers, read_center_runs
    from ase_mlelec.data.runs.wannier import wannier_files

    wanted = [source for source in sources if has_centers(source)]
    if not arguments.functions:
        wanted = [source for source in wanted if not wannier_files(source)]
    if not wanted:
        for name in OPTIONS:
            if getattr(arguments, name) not in (None, []):
                raise ValueError(f"got --{name} for {sources[0]}; leave it out, it belongs to Wannier centers")
        return False
    if others := [source for source in sources if source not in wanted]:
        raise ValueError(f"got {wanted[0]} with Wannier centers, and {others[0]} without; convert them apart")
    for name in OTHERS:
        if getattr(arguments, name) not in (None, []):
            option = name.replace("_", "-")
            raise ValueError(f"got --{option} for {wanted[0]}; leave it out, the source has Wannier centers")
    frames = read_center_runs(
        wanted, functions=functions_of(arguments.functions), ions=ions_of(arguments), cell=cell_of(arguments.cell)
    )
    write_hdf5(target, frames)
    about = frames.attributes
    ions, electrons = (
        ", ".join(f"{symbol} {charge:g}" for symbol, charge in about[name].items())
        for name in ("valence_charges", "electrons_per_centre")
    )
    labels = ", ".join(name if n == len(frames) else f"{name} ({n})" for name, n in frames.counts.items())
    print(f"{target}: {len(frames)} structures with {labels}")
    print(f"  ions: {ions} e; electrons at each centroid: {electrons}")
    return True


def functions_of(texts: Sequence[str]) -> dict[str, int]:
    """Functions of an atom by symbol, of the options ``--functions``."""
    found = numbers_of("functions", texts)
    for symbol, number in found.items():
        if number != int(number):
            raise ValueError(f"got --functions {symbol}={number:g}, need a whole number")
    return {symbol: int(number) for symbol, number in found.items()}


def ions_of(arguments: argparse.Namespace) -> dict[str, float]:
    """Charges of ions of the options ``--upf`` and ``--ions``, which takes precedence; empty for none."""
    from ase_mlelec.io.upf import read_upf

    found = [read_upf(path) for path in arguments.upf]
    return {upf.symbol: upf.z_valence for upf in found} | numbers_of("ions", arguments.ions)


def cell_of(numbers: Sequence[float] | None):
    """Cell [3, 3], Å, of one, three or nine numbers; None without any."""
    import numpy as np

    if numbers is None:
        return None
    if len(numbers) not in (1, 3, 9) or not abs(np.linalg.det(cell := _full(numbers))) > 1e-3:
        raise ValueError(
            f"got --cell with {len(numbers)} numbers, need a length, three lengths or nine components, in Å"
        )
    return cell


def _full(numbers):
    import numpy as np

    return np.reshape(numbers, (3, 3)) if len(numbers) == 9 else np.diag(np.broadcast_to(numbers, 3))
