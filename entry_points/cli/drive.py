"""``mlelec drive``"""

import argparse

from ase_mlelec_entry_points.cli.options import add_device, add_model

HELP = (
    "Serve energies, forces and stress of a model to i-PI, or to another program with its protocol, such as ASE's "
    "SocketIOCalculator; with dipole, Born charges and polarizability as JSON in i-PI's extras. The other program, with "
    "which this one ends, has to wait at the socket first."
)
EXAMPLE = "mlelec drive ice ice.xyz --unix ice --extras dipole born_charges"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "structure", metavar="STRUCTURE", help="file that ASE reads, with the atoms in the order of the other program"
    )
    parser.add_argument("--unix", metavar="NAME", help="Unix socket of this name (i-PI: mode='unix')")
    parser.add_argument("--host", metavar="NAME", default="localhost", help="(%(default)s)")
    parser.add_argument("--port", metavar="N", type=int, help="port on the host (31415, or none with --unix)")
    parser.add_argument(
        "--extras", metavar="NAME", nargs="+", default=[], help="dipole, born_charges, polarizability, in atomic units"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase.calculators.calculator import PropertyNotImplementedError

    from ase_mlelec.calculators.socket_client import SocketClient, extras_of
    from ase_mlelec.data.structures import structure
    from ase_mlelec_entry_points.cli.phonons import calculator

    if arguments.unix and arguments.port:
        raise ValueError(f"got --unix {arguments.unix} and --port {arguments.port}; give one of them")
    atoms = structure(arguments.structure)
    atoms.calc = calculator(arguments.model, arguments.device)
    try:
        extras_of(atoms, arguments.extras)  # now, and not when the other program waits
    except (AttributeError, PropertyNotImplementedError):
        raise ValueError(
            f"--extras: {arguments.model} lacks some of {', '.join(arguments.extras)}; give a model that has them"
        ) from None
    client = SocketClient(extras=arguments.extras, unixsocket=arguments.unix, port=arguments.port, host=arguments.host)
    client.run(atoms, use_stress=bool(atoms.pbc.all()))
