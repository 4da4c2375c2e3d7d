"""``mlelec eos``"""

import argparse
from os import PathLike
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, add_plot, write_columns, write_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ase_mlelec.analysis.mechanics import Volumes
    from ase_mlelec.physics.eos import EquationOfState

HELP = (
    "Equation of state of a crystal: energy at volumes around that of the structure, equilibrium volume, bulk modulus and "
    "its derivative, with the error of the fit and, where the model has error bars, the error of the model."
)
EXAMPLE = "mlelec eos si diamond.xyz --plot eos.png"
MEMBERS = 8  # members of the model whose equations of state give its error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help="file that ASE reads; the last structure in it counts")
    parser.add_argument(
        "--kind",
        default="birch-murnaghan",
        metavar="NAME",
        help="birch-murnaghan (third order, default), birch-murnaghan-2, birch-murnaghan-4, murnaghan or vinet",
    )
    parser.add_argument(
        "--spread", type=float, default=0.06, help="largest relative change of the volume (%(default)s)"
    )
    parser.add_argument("--points", type=int, default=11, help="number of volumes (%(default)s)")
    parser.add_argument(
        "--relax",
        action="store_true",
        help="relax structure and cell first, which gives the relaxation energy, and positions at each volume",
    )
    add_plot(parser, "draw energies and equation of state")
    add_out(parser, "write volumes (Å^3) and energies (eV)", metavar="FILE.csv")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase.units import GPa

    from ase_mlelec.analysis.mechanics import energy_volume, relaxed
    from ase_mlelec.data.structures import structure
    from ase_mlelec.physics import eos

    atoms = structure(arguments.structure)
    atoms.calc = calculator(arguments.model, arguments.device)
    n, name = len(atoms), atoms.get_chemical_formula()
    if arguments.relax:
        ideal, volume = atoms.get_potential_energy(), atoms.get_volume()
        atoms = relaxed(atoms, cell=True)
        energy, change = (ideal - atoms.get_potential_energy()) / n, atoms.get_volume() / volume - 1
        print(f"{name}: relaxation energy {1000 * energy:.3f} meV/atom, volume {100 * change:+.3f} %")
    curve = energy_volume(atoms, spread=arguments.spread, points=arguments.points, relax=arguments.relax)
    found = eos.fit(curve.volumes, curve.energies, arguments.kind)
    bars = errors_of_model(atoms.calc, curve, arguments.kind)
    ends = f"{curve.volumes[0]:.2f} to {curve.volumes[-1]:.2f} Å^3"
    print(f"{name}: {arguments.kind}, {len(curve.volumes)} volumes from {ends}")
    values: Any = found  # a tuple with another one in it
    rows = (
        ("volume", "Å^3/atom", 1 / n),
        ("energy", "eV/atom", 1 / n),
        ("bulk modulus", "GPa", 1 / GPa),
        ("derivative", "", 1),
    )
    print(f"{'':16}{'':>12}{'fit ±':>12}" + f"{'model ±':>12}" * (bars is not None))
    for k, (title, unit, scale) in enumerate(rows):
        model = "" if bars is None else f"{scale * bars[k]:12.5f}"
        print(f"{title:16}{scale * values[k]:12.5f}{scale * found.errors[k]:12.5f}{model}  {unit}".rstrip())
    if isinstance(found, eos.FourthOrder):
        print(f"{'second':16}{found.second_derivative * GPa:12.5f}{found.second_error * GPa:12.5f}  1/GPa")
    if arguments.out:
        write_columns(arguments.out, {"volume_A3": curve.volumes, "energy_eV": curve.energies})
    if arguments.plot:
        plot(arguments.plot, curve, found, arguments.kind, name, n)


def calculator(name: str, device: str | None) -> Any:
    """Calculator of a model with an energy.

    Raises
    ------
    ValueError
        For models without one.
    """
    from ase_mlelec import DeepPotCalculator, MLDFTCalculator, load_model

    model = load_model(name)
    if "energy" not in model.heads and "ldos" not in model.heads:
        raise ValueError(f"{name} has no energy, it has {', '.join(model.heads)}; give a model with an energy")
    return (MLDFTCalculator if "ldos" in model.heads else DeepPotCalculator)(model, device=device)


def errors_of_model(calc: Any, curve: "Volumes", kind: str) -> "NDArray | None":
    """Standard deviations of volume, energy, bulk modulus and derivative over members of the model; None without bars.

    There are none either, which a warning says, where energies of a member have no equation of state: they vary by more than
    these quantities can tell.
    """
    import warnings

    import numpy as np

    from ase_mlelec.physics import eos

    if "energy" not in calc.models[0].posteriors:
        return None
    fits = []
    for member in calc.members(MEMBERS, atoms=curve.structures[0]):
        energies = [member.get_property("energy", atoms) for atoms in curve.structures]
        try:
            fits.append(eos.fit(curve.volumes, energies, kind)[:4])
        except ValueError as error:
            warnings.warn(f"no errors of the model: of one of its members {error}", stacklevel=2)
            return None
    scale = calc.models[0].posteriors["energy"].scale("energy") / calc.models[0].posteriors["energy"].scale("members")
    return scale * np.std(fits, axis=0, ddof=1)


def plot(path: str | PathLike, curve: "Volumes", found: "EquationOfState", kind: str, name: str, n_atoms: int) -> None:
    """Draw energies per atom above the lowest, and the equation of state."""
    import numpy as np
    from matplotlib.figure import Figure

    from ase_mlelec.physics import eos

    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = figure.add_subplot()
    fine = np.linspace(curve.volumes.min(), curve.volumes.max(), 200)
    parameters: list[Any] = [*found[: 3 if kind.endswith("-2") else 4]]
    parameters += [found.second_derivative] if isinstance(found, eos.FourthOrder) else []

    def per_atom(energies):
        return 1000 * (np.asarray(energies) - found.e0) / n_atoms

    equation: Any = eos.KINDS[kind]
    ax.plot(fine / n_atoms, per_atom(equation(fine, *parameters)), "-", color="C0", label=kind)
    ax.plot(curve.volumes / n_atoms, per_atom(curve.energies), "o", color="C1", label=name)
    ax.set(xlabel="volume (Å$^3$/atom)", ylabel="energy above the minimum (meV/atom)")
    ax.legend(frameon=False)
    write_figure(path, figure)
