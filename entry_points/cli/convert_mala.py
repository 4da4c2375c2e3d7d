"""MALA's snapshots to ours, for ``mlelec convert``."""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ase_mlelec.data.snapshots import Snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--upf",
        metavar="FILE",
        action="append",
        default=[],
        help="the pseudopotential of an element, once for each; with MALA's snapshots, and with runs where it is not found",
    )
    parser.add_argument(
        "--ldos-unit",
        metavar="UNIT",
        help="of the LDOS in MALA's snapshots: '1/(eV*A^3)' (the default), or with Ry or Ha for eV, Bohr for A",
    )


INFO, ARRAYS = ".info.json", (".out.npy", ".in.npy")


def snapshots_of(source: str) -> list[str]:
    """The files X.info.json that a source means: those in a folder, or the one beside X.out.npy; else the source itself."""
    from pathlib import Path

    path = Path(source)
    if path.is_dir():
        return sorted(str(each) for each in path.glob(f"*{INFO}")) or [source]
    beside = [path.with_name(path.name.removesuffix(ending) + INFO) for ending in ARRAYS if path.name.endswith(ending)]
    return [str(each) for each in beside if each.is_file()] or [source]


def pseudopotentials_of(sources: Sequence[str]) -> list[str]:
    """The UPF files in the folders among the sources."""
    from pathlib import Path

    folders = [Path(source) for source in sources if Path(source).is_dir()]
    return [str(each) for folder in folders for each in sorted(folder.iterdir()) if each.suffix.lower() == ".upf"]


def convert_mala(
    sources: Sequence[str],
    target: str,
    grid: tuple[float, float] | None,
    pseudopotentials: Sequence[str],
    unit: str | None = None,
) -> None:
    import numpy as np

    from ase_mlelec.data.electrons import LDOS_UNITS
    from ase_mlelec.data.runs.pseudopotentials import electrons_of
    from ase_mlelec.data.snapshots import Snapshots, write_snapshots
    from ase_mlelec.io.upf import read_upf
    from ase_mlelec.train.ldos.errors import beside_labels

    if grid is None:
        raise ValueError(
            "got no --grid; give the energies of the first and the last point of the LDOS, eV, from "
            "ldos_gridoffset_ev, ldos_gridsize and ldos_gridspacing_ev of MALA's parameters"
        )
    if not (np.isfinite(grid).all() and grid[0] < grid[1]):
        raise ValueError(f"got --grid {grid[0]:g} {grid[1]:g}, need two energies, the lower one first")
    if not pseudopotentials:
        raise ValueError(
            "got no --upf; give the pseudopotential of every element, for the valence charge, the core "
            "charge and the functional"
        )
    unit = unit or "1/(eV*A^3)"
    if unit not in LDOS_UNITS:
        raise ValueError(f"got --ldos-unit {unit}, need one of {', '.join(LDOS_UNITS)}")
    attributes = electrons_of([read_upf(path) for path in pseudopotentials]) | {"settings": {"program": "MALA"}}
    first, energies = mala_snapshot(sources[0], grid, attributes, unit)
    attributes["grid_spacing_A"] = float((first.atoms.cell.lengths() / first.shape).mean())
    write_snapshots(
        target,
        (mala_snapshot(source, grid, attributes, unit)[0] for source in sources),
        energies=energies,
        attributes=attributes,
    )
    lines = [f"{target}: {len(sources)} snapshots with {len(energies)} energies", beside_labels(Snapshots(target))]
    print("\n  ".join(filter(None, lines)))


def mala_snapshot(
    info: str, grid: tuple[float, float], attributes: Mapping[str, Any], unit: str
) -> "tuple[Snapshot, NDArray]":
    """(Snapshot, energies) of MALA's X.info.json and X.out.npy."""
    import numpy as np

    from ase_mlelec.data.electrons import LDOS_UNITS, check_electrons, warn_of_level
    from ase_mlelec.data.snapshots import Snapshot
    from ase_mlelec.io.mala import read_mala
    from ase_mlelec.physics import fermi

    stem = info.removesuffix(".info.json")
    found = read_mala(info, output_npy=f"{stem}.out.npy", grid_offset=grid[0], grid_spacing=1.0)
    if found.ldos.shape[-1] < 2:
        raise ValueError(f"{stem}.out.npy: got {found.ldos.shape[-1]} energies, need 2 or more; convert the data again")
    energies, ldos = np.linspace(*grid, found.ldos.shape[-1]), found.ldos.astype(float) * LDOS_UNITS[unit]
    n_electrons = _electrons(info, found, attributes["valence_electrons"])
    if found.temperature is None:
        raise ValueError(f"{info}: no temperature of the electrons; add it, K")
    dos = ldos.mean(axis=(0, 1, 2)) * found.atoms.get_volume()
    if found.fermi_level is not None:
        check_electrons(f"{stem}.out.npy", energies, dos, found.fermi_level, found.temperature, n_electrons, unit)
    try:
        level = fermi.fermi_level(energies, dos, n_electrons, found.temperature)
    except ValueError as error:
        raise ValueError(f"{stem}.out.npy: {error}; check --grid and the unit of the LDOS, --ldos-unit") from None
    if found.fermi_level is None:
        warnings.warn(
            f"{info}: no fermi_energy_dft in it, by which the unit and the energies of the LDOS are checked: they are taken "
            "as given",
            stacklevel=2,
        )
    else:
        warn_of_level(f"{stem}.out.npy", energies, level, found.fermi_level)
    density = ldos @ fermi.integration_weights(energies, level, found.temperature)[0]
    return Snapshot(
        found.atoms,
        found.grid,
        found.temperature,
        ldos.reshape(-1, len(energies)),
        dos,
        density=density,
        energy=found.energy,
        forces=found.forces,
        fermi_level=found.fermi_level,
        name=stem.rpartition("/")[2],
    ), energies


def _electrons(info, snapshot, counts):
    """Valence electrons of a MalaSnapshot from its pseudopotentials; the number in its files must agree."""
    symbols = snapshot.atoms.get_chemical_symbols()
    missing = sorted(set(symbols) - counts.keys())
    if missing:
        raise ValueError(f"{info}: got no pseudopotential of {missing[0]}; give one for every element with --upf")
    n_electrons = sum(counts[symbol] for symbol in symbols)
    if abs(n_electrons - (snapshot.n_electrons or n_electrons)) > 1e-6:
        raise ValueError(
            f"{info}: got {snapshot.n_electrons:g} electrons, need the {n_electrons:g} of the "
            "pseudopotentials; give those of the calculation with --upf"
        )
    return n_electrons
