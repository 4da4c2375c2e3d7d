"""``mlelec elastic``"""

import argparse

from ase_mlelec_entry_points.cli.options import add_device, add_model, add_out

HELP = (
    "Elastic constants of a crystal, from the stress under small strains, with relaxed positions. Structure and cell are "
    "relaxed first."
)
EXAMPLE = "mlelec elastic si diamond.xyz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help="file that ASE reads; the last structure in it counts")
    parser.add_argument("--strain", type=float, default=0.003, help="largest strain (%(default)s)")
    parser.add_argument("--clamped", action="store_true", help="positions follow the strain without relaxation")
    add_out(parser, "write the matrix in GPa", metavar="FILE.csv")
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    import numpy as np
    from ase.units import GPa

    from ase_mlelec.analysis.mechanics import elastic_constants, relaxed
    from ase_mlelec.atomic_write import replacing
    from ase_mlelec.data.structures import structure
    from ase_mlelec_entry_points.cli.eos import calculator

    if not 0 < arguments.strain < 0.1:
        raise ValueError(f"got --strain {arguments.strain:g}, need more than 0 and less than 0.1, such as 0.003")
    atoms = structure(arguments.structure)
    atoms.calc = calculator(arguments.model, arguments.device)
    atoms = relaxed(atoms, cell=True)
    found = elastic_constants(atoms, strain=arguments.strain, relax=not arguments.clamped) / GPa
    stable = np.linalg.eigvalsh(found).min() > 0
    how = "clamped positions" if arguments.clamped else "relaxed positions"
    print(f"{atoms.get_chemical_formula()}: elastic constants, GPa, {how}; order xx, yy, zz, yz, xz, xy")
    for row in found:
        print("".join(f"{round(value, 2) + 0.0:10.2f}" for value in row))  # no -0.00
    print(f"bulk modulus {found[:3, :3].mean():.2f} GPa (Voigt); {'stable' if stable else 'unstable'} under strain")
    if arguments.out:
        with replacing(arguments.out) as partial:
            np.savetxt(partial, found, delimiter=",", fmt="%.6f")
