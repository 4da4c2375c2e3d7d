"""``mlelec protect``"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ase_mlelec_entry_points.cli.options import add_model, add_out

if TYPE_CHECKING:
    from ase import Atoms

HELP = (
    "Give a model a repulsive core below the shortest distances of its training data, and the ranges by which "
    "calculators tell structures unlike these data: for models of other programs and of former versions. What "
    "'mlelec train' writes has both."
)
EXAMPLE = "mlelec protect water.dp data/ --out water.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="+",
        help="the data sets that it was trained on: .h5, deepmd npy folders, files that ASE reads; or "
        "the configuration of its training (.toml)",
    )
    suffix = ".safetensors"
    add_out(parser, "the new model", metavar=f"FILE{suffix}", suffixes=[suffix], required=True, former=["--output"])
    parser.add_argument(
        "--group", metavar="NAME", action="append", help="take the structures of this group alone; may be repeated"
    )
    parser.add_argument(
        "--support",
        metavar="NAME",
        action="append",
        default=[],
        help="structures of this group count for the shortest distances alone: those that the model is "
        "not meant for, such as close pairs; may be repeated",
    )
    parser.add_argument("--no-core", action="store_true", help="no repulsive core")


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec import load_model
    from ase_mlelec.train.protection import protect

    model = load_model(arguments.model)
    images, support, hamiltonians = (
        configured(arguments.data[0]) if arguments.data[0].endswith(".toml") else selected(arguments)
    )
    if not images and not hamiltonians:
        raise ValueError(
            f"{', '.join(arguments.data)}: no structures of the groups "
            f"{', '.join(arguments.group or ['(all)'])}; name others with --group"
        )
    for atoms in (*images, *hamiltonians, *support):
        model.check_species(atoms.numbers)
    protect(model, images or hamiltonians, support, hamiltonians=hamiltonians or None, core=not arguments.no_core)
    model.save(arguments.out)
    distances = ", ".join(f"{pair} {distance:.2f}" for pair, distance in model.metadata["shortest_distances_A"].items())
    print(
        f"{arguments.out}: {len(images) + len(hamiltonians)} structures; shortest distances {distances} Å; "
        f"{'a repulsive core below them' if model.core is not None else 'no repulsive core'}"
    )


def configured(path: str) -> "tuple[list[Atoms], list[Atoms], list[Atoms]]":
    """(structures, support, structures with Hamiltonians), lists of ase.Atoms, that a configuration trains on."""
    from ase_mlelec.train.config import read_config

    config = read_config(path)
    images: list[Atoms] = []
    support: list[Atoms] = []
    hamiltonians: list[Atoms] = []
    for name in config.data.files:
        for atoms, group, has_hamiltonian in structures(str(config.folder / name)):
            if group in config.data.support:
                support.append(atoms)
            elif not group or group in config.data.train:
                (hamiltonians if has_hamiltonian else images).append(atoms)
    return images, support, hamiltonians


def selected(arguments: argparse.Namespace) -> "tuple[list[Atoms], list[Atoms], list[Atoms]]":
    """As ``configured``, of the data sets and groups of the command line."""
    images: list[Atoms] = []
    support: list[Atoms] = []
    hamiltonians: list[Atoms] = []
    for path in arguments.data:
        for atoms, group, has_hamiltonian in structures(path):
            if group in arguments.support:
                support.append(atoms)
            elif arguments.group is None or group in arguments.group:
                (hamiltonians if has_hamiltonian else images).append(atoms)
    return images, support, hamiltonians


def structures(path: str) -> "Iterator[tuple[Atoms, str, bool]]":
    """Iterator of (ase.Atoms, group, whether it has a Hamiltonian) of a data set of any kind."""
    from ase_mlelec.data.frames import read_frames
    from ase_mlelec.data.hamiltonians import Hamiltonians, is_hamiltonians
    from ase_mlelec.data.snapshots import Snapshots, is_snapshots

    if is_snapshots(path):
        yield from ((snapshot.atoms, snapshot.group, False) for snapshot in Snapshots(path))
    elif is_hamiltonians(path):
        yield from ((frame.atoms, frame.group, True) for frame in Hamiltonians(path))
    else:
        yield from ((frame.atoms, frame.group, False) for frame in read_frames(path))
