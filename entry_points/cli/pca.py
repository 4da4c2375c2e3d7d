"""``mlelec pca``"""

import argparse
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, add_plot, write_figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

HELP = (
    "Principal components of the atomic densities of states along a trajectory, and an order parameter of every atom: "
    "which atoms have melted. Memory does not grow with the number of structures."
)
EXAMPLE = "mlelec pca si melting.extxyz@::10 --minima --out melting.h5 --plot pca.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structures", metavar="STRUCTURES", help="file that ASE reads; part of it as in run.traj@::10")
    parser.add_argument(
        "--minima",
        action="store_true",
        help="sum the atomic DOS at the local minima of the first structure's DOS for the order parameter, in place of "
        "the energies that the model names",
    )
    parser.add_argument(
        "--cna", action="store_true", help="compare with the common-neighbor analysis of diamond (needs OVITO)"
    )
    parser.add_argument("--atom", type=int, metavar="K", help="atom whose path is drawn (default: that of most change)")
    suffixes = [".h5", ".hdf5"]
    add_plot(parser, "draw the atoms in the plane of two components")
    add_out(parser, "keep the atomic DOS; the same call goes on with it", metavar="FILE.h5", suffixes=suffixes)
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from ase_mlelec import DeepDOSCalculator, evaluate
    from ase_mlelec.analysis.ados import components_of_run, scores_of_run
    from ase_mlelec.data.structures import structures

    calc = DeepDOSCalculator(arguments.model, device=arguments.device)
    if arguments.minima:
        set_offsets(calc, next(structures(arguments.structures)))
    with TemporaryDirectory() as folder:
        out = arguments.out or Path(folder) / "ados.h5"
        results = evaluate(calc, arguments.structures, ["ados", "order_parameter"], out=out)
        parts = components_of_run(results)
        scores, order = scores_of_run(results, parts), results["order_parameter"]
    types = structure_types(arguments.structures, order.shape) if arguments.cna else None
    print_summary(parts.explained_variance, order, types)
    if arguments.plot:
        plot(arguments, scores, order, parts.explained_variance, types)


def set_offsets(calc: "Any", atoms: "Any") -> None:
    """Set the energies of the order parameter to the minima of a structure's DOS."""
    from ase_mlelec.analysis.ados import minima_of_dos

    level = calc.get_fermi_level(calc.reference_temperature or 0.0, atoms=atoms)
    offsets = minima_of_dos(calc.energies, calc.get_total_dos(atoms), level)
    calc.metadata["order_parameter_offsets_eV"] = [round(value, 2) for value in offsets]
    print(f"minima of the DOS: {', '.join(f'{value:.2f}' for value in offsets)} eV from the Fermi level")


def structure_types(path: str, shape: tuple) -> "NDArray":
    """Diamond structure [n, N] of all atoms; NaN beyond those of smaller structures."""
    import numpy as np

    from ase_mlelec.analysis.structure_types import diamond_structure
    from ase_mlelec.data.structures import structures

    found = np.full(shape, np.nan)
    for row, atoms in zip(found, structures(path)):
        row[: len(atoms)] = diamond_structure(atoms)
    return found


def print_summary(variance: "NDArray", order: "NDArray", types: "NDArray | None") -> None:
    import numpy as np

    from ase_mlelec.analysis.structure_types import DIAMOND_TYPES

    n_structures, n_atoms = order.shape[0], int(np.isfinite(order).sum())
    told = " and ".join(f"{100 * part:.1f}" for part in variance)
    print(f"{n_atoms} atoms in {n_structures} structures: components with {told} % of the variance")
    low, high = (np.nanpercentile(order, percent) for percent in (1, 99))
    print(f"order parameter Q (states/eV): {low:.3f} to {high:.3f} (1st and 99th percentile)")
    for kind in () if types is None else np.unique(types[np.isfinite(types)]).astype(int):
        own = order[types == kind]
        share = 100 * len(own) / n_atoms
        print(f"{DIAMOND_TYPES[kind]}: {share:.1f} % of the atoms, Q {own.mean():.3f} ± {own.std():.3f} states/eV")


def plot(
    arguments: argparse.Namespace, scores: "NDArray", order: "NDArray", variance: "NDArray", types: "NDArray | None"
) -> None:
    from ase_mlelec.analysis.plots import components_figure
    from ase_mlelec.analysis.structure_types import DIAMOND_TYPES

    options: Mapping[str, Any] = {} if types is None else {"types": types, "names": DIAMOND_TYPES}
    write_figure(arguments.plot, components_figure(scores, order, variance=variance, atom=arguments.atom, **options))
