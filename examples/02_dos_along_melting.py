"""How do the electrons of silicon change while it melts, and do those of an atom tell whether it is in the liquid?

    python 02_dos_along_melting.py                          # 1000 atoms, about five minutes on two cores
    python 02_dos_along_melting.py --cells 3 --steps 1200   # 216 atoms, less than a minute

Heats a crystal at zero pressure until it melts.  Writes to output/: 02_dos_along_melting.png, temperature, order
parameter Q, coordination and DOS over time; 02_principal_components.png, the DOS of every atom in the plane of its two
principal components; 02_melting.h5 and 02_melting.extxyz, the numbers and the structures, which `ase gui` colors by Q
(View -> Colors).

Source: after Zeng et al. 2022, Figs. 5 and 6.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.nptberendsen import NPTBerendsen
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator, ElectronicRecorder, evaluate
from ase_mlelec.analysis import ados
from ase_mlelec.analysis.plots import melting_figure, plot_components
from ase_mlelec.analysis.recorder import heat


def coordination(atoms):
    return ados.coordination(atoms, radius=2.9, width=0.3)


def melt(atoms, temperature, steps, output):
    """Heat from 300 K to ``temperature``, K; the recorded quantities."""
    # the momenta of 600 K, half of whose energy goes into the potential
    width = np.sqrt(atoms.get_masses() * units.kB * 600)[:, None]
    atoms.set_momenta(width * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    dyn = NPTBerendsen(
        atoms,
        2 * units.fs,
        temperature_K=300,
        pressure_au=0.0,
        taut=100 * units.fs,
        taup=500 * units.fs,
        compressibility_au=0.01 / units.GPa,
    )
    recorder = ElectronicRecorder(
        atoms,
        output / "02_melting.h5",
        dyn=dyn,
        extxyz=output / "02_melting.extxyz",
        resume=False,
        quantities=["temperature", "volume", "fermi_level", "total_dos", "order_parameter", coordination],
    )
    dyn.attach(recorder, interval=max(1, steps // 100))
    heat(dyn, 300, temperature, steps)
    return recorder.results


def components_figure(calc, path):
    """The atomic densities of states of ten snapshots in the plane of their principal components."""
    run = evaluate(calc, f"{path}@::10", ["ados", "order_parameter"])
    parts = ados.principal_components(run["ados"])
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    ax = plot_components(figure.add_subplot(), parts.scores(run["ados"]), run["order_parameter"], "$Q$ (states/eV)")
    ax.set_title(
        f"{100 * parts.explained_variance.sum():.0f} % of the variance of {run['order_parameter'].size} atoms",
        fontsize="medium",
    )
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="si")
    parser.add_argument("--cells", type=int, default=5, help="cubic cells along each side (%(default)s: 1000 atoms)")
    parser.add_argument("--steps", type=int, default=2000, help="time steps of 2 fs (%(default)s)")
    parser.add_argument("--temperature", type=float, default=2800, help="at the end, K (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    atoms = bulk("Si", "diamond", a=5.40, cubic=True) * ((arguments.cells,) * 3)
    atoms.calc = DeepDOSCalculator(arguments.model)
    results = melt(atoms, arguments.temperature, arguments.steps, arguments.output)
    for name in ("volume", "order_parameter", "coordination"):
        first, last = results[name][0], results[name][-1]
        print(f"{name} per atom: {first.sum() / len(atoms):.2f} -> {last.sum() / len(atoms):.2f}")
    melting_figure(results).savefig(arguments.output / "02_dos_along_melting.png", dpi=150)
    components_figure(atoms.calc, arguments.output / "02_melting.extxyz").savefig(
        arguments.output / "02_principal_components.png", dpi=150
    )


if __name__ == "__main__":
    main()
