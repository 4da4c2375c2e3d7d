"""``mlelec demo``"""

import argparse
from argparse import SUPPRESS
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_mlelec_entry_points.cli.options import add_device, add_model

if TYPE_CHECKING:
    from ase import Atoms

    from ase_mlelec import DeepDOSCalculator
    from ase_mlelec.analysis.result_file import ResultFile

HELP = (
    "Relax silicon, melt it, and follow its electrons: density of states, Fermi level, and an order parameter per "
    "atom. Writes a picture, a trajectory for 'ase gui', and the numbers (HDF5); takes two minutes with the extra fast."
)
EXAMPLE = "mlelec demo --atoms-per-side 2"

HOT, COOL = 2800, 1600  # K: so far above melting that it melts within a picosecond; and still a liquid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folder: dict[str, Any] = {"dest": "out_folder", "type": Path, "metavar": "FOLDER"}
    parser.add_argument("-o", "--out", default="mlelec-demo", help="where the files go (%(default)s)", **folder)
    parser.add_argument("--output", default=SUPPRESS, help=SUPPRESS, **folder)
    add_model(parser, "--model", default="si")
    parser.add_argument(
        "--atoms-per-side",
        type=int,
        default=3,
        metavar="N",
        help="number of cubic cells of 8 atoms along each side (%(default)s, which makes 216 atoms)",
    )
    parser.add_argument(
        "--steps", type=int, default=1600, metavar="N", help="number of time steps of 2 fs (%(default)s)"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    from ase_mlelec import DeepDOSCalculator

    if arguments.atoms_per_side < 1 or arguments.steps < 10:
        raise ValueError(
            f"got --atoms-per-side {arguments.atoms_per_side} and --steps {arguments.steps}, need at least 1 and 10"
        )
    arguments.out_folder.mkdir(parents=True, exist_ok=True)
    calc = DeepDOSCalculator(arguments.model, device=arguments.device)
    atoms = relaxed_crystal(calc) * ((arguments.atoms_per_side,) * 3)
    atoms.calc = calc
    draw(melt(atoms, arguments.steps, arguments.out_folder / "demo"), arguments.out_folder / "demo.png")


def relaxed_crystal(calc: "DeepDOSCalculator") -> "Atoms":
    """The cubic cell of 8 atoms at the lattice constant of the model."""
    from ase.build import bulk
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = bulk("Si", "diamond", a=5.5, cubic=True)
    atoms.calc = calc
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=100)  # type: ignore[arg-type]
    print(
        f"Relaxed the diamond cell: lattice constant {atoms.cell.lengths().mean():.3f} Å, "
        f"Fermi level {calc.get_fermi_level():.2f} eV."
    )
    return atoms


def melt(atoms: "Atoms", steps: int, path: Path) -> "ResultFile":
    """Heat quickly to HOT, cool to COOL, and record on the way; the results of the recorder."""
    import numpy as np
    from ase import units
    from ase.md.langevin import Langevin

    from ase_mlelec import ElectronicRecorder
    from ase_mlelec.analysis import ados
    from ase_mlelec.analysis.recorder import heat

    def coordination(atoms):
        return ados.coordination(atoms, radius=2.9, width=0.3)

    dyn = Langevin(
        atoms, 2 * units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=np.random.default_rng(1)
    )
    recorder = ElectronicRecorder(
        atoms,
        path.with_suffix(".h5"),
        dyn=dyn,
        extxyz=path.with_suffix(".extxyz"),
        resume=False,
        quantities=["temperature", "energy", "fermi_level", "total_dos", "order_parameter", coordination],
    )
    dyn.attach(recorder, interval=max(1, steps // 80))
    heating = int(0.65 * steps)
    print(f"Heating {len(atoms)} atoms from 300 to {HOT} K in {2e-3 * heating:.1f} ps ...")
    heat(dyn, 300, HOT, heating)
    print(f"Cooling to {COOL} K in {2e-3 * (steps - heating):.1f} ps: if it stays disordered, it is a liquid ...")
    heat(dyn, HOT, COOL, steps - heating)
    return recorder.results


def draw(results: "ResultFile", path: Path) -> None:
    from ase_mlelec.analysis.plots import melting_figure

    order, level, near = (results[name] for name in ("order_parameter", "fermi_level", "coordination"))
    print(
        f"Fermi level {level[0]:.2f} -> {level[-1]:.2f} eV, "
        f"neighbors {near[0].mean():.1f} -> {near[-1].mean():.1f}, "
        f"order parameter Q {order[0].mean():.2f} -> {order[-1].mean():.2f} states/eV."
    )
    melting_figure(results, title=f"Melting of silicon, {order.shape[1]} atoms").savefig(path, dpi=150)
    trajectory = path.with_suffix(".extxyz")
    print(
        f"Wrote {path}, {path.with_suffix('.h5')} and {trajectory}. Color the atoms by Q:\n"
        f'  ase gui {trajectory}@-1    (View -> Colors -> By user-defined "order_parameter")'
    )
