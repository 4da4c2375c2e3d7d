"""Folders with Wannier90's Hamiltonians, or with a local density of states of pp.x, for ``mlelec convert``."""

import argparse
from collections.abc import Sequence

OPTIONS = {  # option -> what it belongs to
    "points": "folders with an LDOS of pp.x",
    "electrons": "folders with a Hamiltonian of Wannier90",
    "vacuum_level": "folders with a Hamiltonian of Wannier90",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--points", metavar="N", type=int, help="grid points kept of each LDOS snapshot (default: all)")
    parser.add_argument(
        "--electrons", metavar="SYMBOL=N", action="append", default=[], help="electrons of an atom in Wannier functions"
    )
    parser.add_argument(
        "--vacuum-level", metavar="EV", type=float, help="zero of Hamiltonians (default: in files of pp.x)"
    )


def refuse_options(arguments: argparse.Namespace, source: str, *allowed: str) -> None:
    """Raise ValueError for options that do not belong to a source, except the ``allowed`` ones."""
    for name, what in OPTIONS.items():
        if name not in allowed and getattr(arguments, name) not in (None, []):
            raise ValueError(f"got --{name.replace('_', '-')} for {source}; leave it out, it belongs to {what}")


def convert_folders(sources: Sequence[str], target: str, arguments: argparse.Namespace) -> bool:
    """Write snapshots or Hamiltonians, and return whether the sources are folders with such data."""
    from ase_mlelec.data.runs.ldos import ldos_folders
    from ase_mlelec.data.runs.wannier import wannier_files

    for of_source, convert in ((wannier_files, convert_wannier), (ldos_folders, convert_ldos)):
        chosen = [source for source in sources if of_source(source)]
        others = [source for source in sources if source not in chosen]
        if chosen and others:
            what = "a Hamiltonian of Wannier90" if convert is convert_wannier else "an LDOS of pp.x"
            raise ValueError(f"got {chosen[0]} with {what}, and {others[0]} without one; convert them apart")
        if chosen:
            convert(sources, target, arguments)
            return True
    refuse_options(arguments, sources[0])
    return False


def convert_ldos(sources: Sequence[str], target: str, arguments: argparse.Namespace) -> None:
    from ase_mlelec.data.runs.ldos import write_ldos
    from ase_mlelec.data.snapshots import Snapshots
    from ase_mlelec.train.ldos.errors import beside_labels

    refuse_options(arguments, sources[0], "points")
    for option in ("grid", "width", "step", "normalize", "key"):
        if getattr(arguments, option) not in (None, []):
            raise ValueError(
                f"got --{option} for {sources[0]}; leave it out, pp.x wrote energies and width of the LDOS"
            )
    if arguments.points is not None and arguments.points < 1:
        raise ValueError(f"got --points {arguments.points}, need 1 or more")
    lines = write_ldos(
        target,
        sources,
        electronic_temperature=arguments.electronic_temperature,
        pseudopotentials=tuple(arguments.upf),
        n_points=arguments.points,
    )
    snapshots = Snapshots(target)
    print("\n  ".join(filter(None, [f"{target}: {len(snapshots)} snapshots", *lines, beside_labels(snapshots)])))


def convert_wannier(sources: Sequence[str], target: str, arguments: argparse.Namespace) -> None:
    from ase_mlelec.data.hamiltonians import Hamiltonians
    from ase_mlelec.data.runs.wannier import write_wannier

    refuse_options(arguments, sources[0], "electrons", "vacuum_level")
    for option in ("grid", "width", "step", "normalize", "key", "upf", "electronic_temperature"):
        if getattr(arguments, option) not in (None, []):
            name = option.replace("_", "-")
            raise ValueError(f"got --{name} for {sources[0]}; leave it out, the folders have Hamiltonians of Wannier90")
    electrons = numbers_of("electrons", arguments.electrons)
    lines = write_wannier(target, sources, electrons=electrons, vacuum_level=arguments.vacuum_level)
    print("\n  ".join([f"{target}: {len(Hamiltonians(target))} structures", *lines]))


def numbers_of(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Numbers by symbol, of options such as ``--electrons C=1``."""
    from ase.data import atomic_numbers

    found = {}
    for text in texts:
        symbol, _, number = text.partition("=")
        try:
            found[symbol] = float(number)
        except ValueError:
            found[symbol] = -1.0
        if symbol not in atomic_numbers or not 0 <= found[symbol] < 100:
            raise ValueError(f"got --{option} {text}, need SYMBOL=N, such as C=1")
    return found
