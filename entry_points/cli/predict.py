"""``mlelec predict``"""

HELP = "Energy, forces and stress of every structure in a file, written as extended XYZ."


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="name of a shipped model (see 'mlelec models') or a path")
    parser.add_argument("structures", metavar="STRUCTURES", help="file that ASE reads; part of it as in run.traj@::10")
    parser.add_argument("output", metavar="OUT.extxyz")


def run(arguments):
    if not arguments.output.endswith((".extxyz", ".xyz")):
        raise ValueError(f"got OUT '{arguments.output}', need a name that ends in .extxyz; rename it")
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import iread, write

    from ase_mlelec import DeepPotCalculator
    from ase_mlelec.atomic_write import replacing

    calc = DeepPotCalculator(arguments.model)
    images = []
    for atoms in iread(arguments.structures):
        names = ["energy", "forces", "stress"] if atoms.cell.rank == 3 else ["energy", "forces"]
        results = {name: calc.get_property(name, atoms) for name in names}
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    with replacing(arguments.output) as partial:
        write(partial, images, format="extxyz")
    print(f"{arguments.output}: {len(images)} structures with energy (eV), forces (eV/Å) and stress (eV/Å^3)")
