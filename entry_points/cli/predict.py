"""``mlelec predict``"""

import argparse
from argparse import SUPPRESS

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out

HELP = (
    "Energy, forces and stress of every structure in a file, written as extended XYZ; with standard deviations and the "
    "leverage of every atom, where the model has error bars."
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
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import iread, write

    from ase_mlelec import DeepPotCalculator
    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.quantities import unit_of

    calc = DeepPotCalculator(arguments.model, device=arguments.device)
    images = []
    for atoms in iread(arguments.structures):
        names = ["energy", "forces", "stress"] if atoms.cell.rank == 3 else ["energy", "forces"]
        results = {name: calc.get_property(name, atoms) for name in names}
        if "energy" in calc.models[0].posteriors:
            bars = {name: calc.get_uncertainty(name, atoms=atoms) for name in names}
            leverage = calc.get_leverage(atoms)
            atoms.info |= {f"{name}_uncertainty": bars[name] for name in names if name != "forces"}
            atoms.set_array("forces_uncertainty", bars["forces"])
            atoms.set_array("leverage", leverage)
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    with replacing(arguments.out) as partial:
        write(partial, images, format="extxyz")
    energy, forces, stress = (f"{name} ({unit_of(name)})" for name in ("energy", "forces", "stress"))
    print(f"{arguments.out}: {len(images)} structures with {energy}, {forces} and {stress}")
