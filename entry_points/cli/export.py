"""``mlelec export``"""

import argparse

from ase_mlelec_entry_points.cli.options import add_model, add_out

HELP = (
    "Write one quantity of a model as a model of deepmd-kit (.dp), which its calculators and, after its converter, LAMMPS "
    "run. The model needs the architecture se_e2_a: [descriptor] with l_max = 1 and n_basis = 0. Error bars and training "
    "ranges stay behind."
)
EXAMPLE = "mlelec export water.safetensors --to deepmd --out water.dp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--to", choices=["deepmd"], default="deepmd", help="the program (%(default)s)")
    add_out(parser, "the new model", metavar="FILE.dp", suffixes=[".dp"], required=True)
    parser.add_argument("--quantity", metavar="NAME", help="default: the energy, or the only quantity of the model")
    parser.add_argument(
        "--sel",
        metavar="N",
        type=int,
        nargs="+",
        help="largest number of neighbors of each species, beyond which deepmd-kit drops the farthest (default: 1.5 times "
        "the largest number in the training data)",
    )
    parser.add_argument(
        "--without-core",
        action="store_true",
        help="leave out the repulsive core and the correction of isolated atoms, which deepmd-kit does not have; energies "
        "of structures like the training data stay the same",
    )


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec import load_model
    from ase_mlelec.io.deepmd import write_model

    model = load_model(arguments.model)
    try:
        sel = write_model(
            arguments.out, model, quantity=arguments.quantity, sel=arguments.sel, without_core=arguments.without_core
        )
    except ValueError as error:
        raise ValueError(f"{arguments.model}: {error}") from None
    slots = ", ".join(f"{n} {symbol}" for n, symbol in zip(sel, model.species))
    print(f"{arguments.out}: at most {slots} within the cutoff, beyond which deepmd-kit drops the farthest")
