"""``mlelec predict``"""

import argparse
from argparse import SUPPRESS

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out, check_species

HELP = (
    "Energy, forces and stress, dipole, Born charges and polarizability of every structure in a file, as far as the model "
    "has them, written as extended XYZ; with standard deviations and the leverage of every atom, where the model has error "
    "bars of energies."
)
EXAMPLE = "mlelec predict si run.traj@::10 --out predicted.extxyz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structures", metavar="STRUCTURES", help="file that ASE reads; part of it as in run.traj@::10")
    parser.add_argument("former_out", nargs="?", help=SUPPRESS)
    suffixes = [".extxyz", ".xyz"]
    add_device(parser)
    add_out(parser, "write the structures with results", metavar="FILE.extxyz", suffixes=suffixes, required=True)


def run(arguments: argparse.Namespace) -> None:
    from ase.io import write

    from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, load_model
    from ase_mlelec.analysis.trajectory import with_labels
    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.data.structures import structures
    from ase_mlelec.quantities import DIPOLE, unit_of

    heads = {DIPOLE, "polarizability"} & {*load_model(arguments.model).heads}
    calc = (DeepWannierCalculator if heads else DeepPotCalculator)(arguments.model, device=arguments.device)
    images: list = []
    asked: dict[str, None] = {}
    for k, atoms in enumerate(structures(arguments.structures)):
        check_species(calc.models[0], atoms, f"{arguments.structures}: structure {k}")
        names = names_of(calc, atoms)
        results = {name: calc.get_property(name, atoms) for name in names}
        if "polarizability" in heads:
            results["polarizability"] = calc.get_polarizability(atoms)
        if "energy" in calc.models[0].posteriors:
            bars = {
                name: calc.get_uncertainty(name, atoms=atoms)
                for name in ("energy", "forces", "stress")
                if name in names
            }
            leverage = calc.get_leverage(atoms)
            atoms.info |= {f"{name}_uncertainty": bars[name] for name in bars if name != "forces"}
            atoms.set_array("forces_uncertainty", bars["forces"])
            atoms.set_array("leverage", leverage)
        atoms.calc = None
        images.append(with_labels(atoms, results))
        asked |= dict.fromkeys(results)
    with replacing(arguments.out) as partial:
        write(partial, images, format="extxyz")
    print(f"{arguments.out}: {len(images)} structures with {', '.join(f'{name} ({unit_of(name)})' for name in asked)}")


def names_of(calc, atoms):
    """Results that are written: those of the model, without a stress where there is no volume."""
    from ase_mlelec.quantities import DIPOLE

    wanted = ("energy", "forces", "stress", DIPOLE, "born_effective_charges")
    return [
        name for name in wanted if name in calc.implemented_properties and (name != "stress" or atoms.cell.rank == 3)
    ]
