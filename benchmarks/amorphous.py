"""Amorphous silicon, 64 atoms, of the model `si` against pw.x: energy above the crystal, relaxation, volume and DOS.

The model melts, cools and relaxes (examples/15_amorphous_silicon.py, 24 ps); pw.x then calculates the two ends, as quenched
at 300 K and relaxed, and the crystal, with the settings of the labels that `si` is trained with (examples/dft/silicon.py).

    python benchmarks/amorphous.py FOLDER       # half an hour on one core; writes AMORPHOUS.md and amorphous.png

FOLDER keeps what is done; the same command goes on after an interruption.

A table has the errors on ten glasses of 32 atoms, which were quenched in 6 ps by a former `si` and labeled by pw.x at 4x2x2
k-points (examples/data/silicon_glass.h5); 6x3x3 change one of them by 0.2 meV/atom and 9 meV/Å.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.io import read
from hashes import models_line
from matplotlib.figure import Figure

from ase_mlelec import DeepDOSCalculator
from ase_mlelec.analysis.ados import coordination
from ase_mlelec.analysis.mechanics import relaxed
from ase_mlelec.analysis.plots import COLORS, plot_dos
from ase_mlelec.analysis.result_file import ResultFile
from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.frames import read_hdf5

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES / "dft"))
import silicon_labels as silicon

STEPS, BOND, BULK_MODULUS = 12000, 2.9, 94.4  # of 2 fs; Å; GPa, of the crystal in DFT (EOS.md)
MESH = {8: 4, 64: 2}  # k-points along each side, of one density
TRAINED_ON_GLASSES = (
    "Trained with eight of these glasses as well, `si` is off by 148 to 167 meV/Å on the two others (170 without), for "
    "three choices of cutoffs and number of weights, and by 119 to 156 on the eight themselves: want of such data is not "
    "what makes glasses hard. The shipped model is not trained on them. These trainings are not part of the command."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "AMORPHOUS.md")
    arguments = parser.parse_args()
    calc, images = DeepDOSCalculator("si"), structures(arguments.folder)
    images["crystal"] = crystal(calc)
    found = {name: (dft(name, atoms, arguments.folder), of_model(calc, atoms)) for name, atoms in images.items()}
    picture(found, images).savefig(arguments.out.with_name("amorphous.png"), dpi=120)
    arguments.out.write_text("\n".join(report(found, images)) + "\n", encoding="utf-8")


def structures(folder: Path) -> dict:
    """The two ends of the relaxation after the quench, which is run or gone on with."""
    run, end = folder / "15_64_atoms.h5", folder / "15_amorphous.extxyz"
    if not end.exists():
        command = [sys.executable, EXAMPLES / "15_amorphous_silicon.py", "--steps", str(STEPS), "--output", folder]
        subprocess.run(command, check=True)
    quenched, results = read(end), ResultFile(run)
    quenched.set_cell(results["cell"][-1])
    quenched.positions = results["positions"][-1]
    return {"quenched": quenched, "amorphous": read(end)}


def crystal(calc):
    """At the model's lattice constant, 8 atoms."""
    atoms = bulk("Si", "diamond", a=5.46, cubic=True)
    atoms.calc = calc
    return relaxed(atoms, cell=True)


def dft(name: str, atoms, folder: Path) -> dict:
    """Results of pw.x, kept in the folder; the DOS of the quenched structure is left out."""
    path = folder / f"{name}.npz"
    if not path.exists():
        without_dos = name == "quenched"
        bands_per_atom = 2.5 if without_dos else silicon.BANDS_PER_ATOM
        result = silicon.calculate_energy(atoms, folder / name, (MESH[len(atoms)],) * 3, bands_per_atom)
        extra = {}
        if not without_dos:
            bands = silicon.project(folder / name)
            projected = bands.site_dos(silicon.ENERGIES, width=silicon.WIDTH).sum(axis=0)
            total = bands.total_dos(silicon.ENERGIES, width=silicon.WIDTH)
            extra = {"dos": projected, "total": total, "fermi_level": result.fermi_level}
        stress = result.stress - silicon.PULAY_VIRIAL * len(atoms) / atoms.get_volume() * np.eye(3)
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, energy=result.energy, forces=result.forces, stress=stress, **extra)
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


def of_model(calc: DeepDOSCalculator, atoms) -> dict:
    """The same of the model, with the error bar of the energy."""
    return {
        "energy": calc.get_property("energy", atoms),
        "forces": calc.get_property("forces", atoms),
        "stress": atoms_stress(calc, atoms),
        "dos": calc.get_total_dos(atoms),
        "fermi_level": calc.get_fermi_level(atoms=atoms),
        "bar": calc.get_uncertainty("energy", atoms=atoms),
    }


def atoms_stress(calc, atoms):
    """Stress [3, 3], eV/Å^3."""
    atoms = atoms.copy()
    atoms.calc = calc
    return atoms.get_stress(voigt=False)


def pressure(results: dict) -> float:
    """GPa."""
    return -np.trace(results["stress"]) / 3 / units.GPa


def report(found: dict, images: dict):
    """Lines of the table."""
    glass, cubic = images["amorphous"], images["crystal"]
    counts = coordination(glass, BOND)
    shares = ", ".join(f"{n}: {100 * np.mean(counts == n):.0f} %" for n in (3, 4, 5))
    per_atom = {
        name: [1000 * float(side["energy"]) / len(images[name]) for side in sides] for name, sides in found.items()
    }
    above = np.subtract(per_atom["amorphous"], per_atom["crystal"])
    relaxation = np.subtract(per_atom["quenched"], per_atom["amorphous"])
    bar = 1000 * found["amorphous"][1]["bar"] / len(glass)
    volume = glass.get_volume() / len(glass) / (cubic.get_volume() / len(cubic))
    shift = [pressure(found["amorphous"][0]) / BULK_MODULUS, pressure(found["crystal"][0]) / BULK_MODULUS]
    yield "# Amorphous silicon: the model `si` against pw.x\n"
    yield "Written by `python benchmarks/amorphous.py FOLDER`, whose text says how.\n"
    yield models_line("si") + "\n"
    yield f"64 atoms after {STEPS * 0.002:.0f} ps; neighbors within {BOND} Å: {shares}, on average {counts.mean():.2f}.\n"
    yield "| | DFT | `si` | difference |\n|---|---|---|---|"
    yield _row("energy above the crystal, meV/atom", above, bar)
    yield _row("relaxation from 300 K, meV/atom", relaxation)
    volumes = volume * (1 + shift[0] - shift[1]), volume
    yield f"| volume over that of the crystal | {volumes[0]:.4f} | {volumes[1]:.4f} | {_percent(shift)} |\n"
    yield "| forces and pressures | rms of DFT's force, meV/Å | rms difference | pressure of DFT, GPa | of `si` |"
    yield "|---|---|---|---|---|"
    for name, (true, model) in found.items():
        size, off = (1000 * np.sqrt(np.mean(x**2)) for x in (true["forces"], model["forces"] - true["forces"]))
        yield f"| {name} | {size:.1f} | {off:.1f} | {pressure(true):.2f} | {pressure(model):.2f} |"
    yield "\n| DOS on atoms | rms error, states/eV/atom | Fermi level of DFT, eV | of `si` | DOS there: DFT | `si` |"
    yield "|---|---|---|---|---|---|"
    for name in ("crystal", "amorphous"):
        yield _dos_row(name, *found[name], len(images[name]))
    yield "\nThe volume of DFT is that of the model, changed by its pressure over the bulk modulus of the crystal."
    yield "Forces of a structure at rest are small in the model alone: what DFT finds there is the error.\n"
    yield "| glasses of 32 atoms | mean error of energy, meV/atom | spread | rms of DFT's force, meV/Å | rms difference |"
    yield "|---|---|---|---|---|"
    for temperature in (0, 300):
        yield _row_of_glasses(temperature, DeepDOSCalculator("si"))
    yield f"\n{TRAINED_ON_GLASSES}\n"
    yield "![densities of states](amorphous.png)"


def _row_of_glasses(temperature: int, calc: DeepDOSCalculator) -> str:
    energies, true, off = [], [], []
    for frame in read_hdf5(EXAMPLES / "data" / "silicon_glass.h5"):
        if f"-{temperature}K-" in frame.name:
            energies.append(
                1000 * (calc.get_property("energy", frame.atoms) - frame.labels["energy"]) / len(frame.atoms)
            )
            true.append(frame.labels["forces"])
            off.append(calc.get_property("forces", frame.atoms) - true[-1])
    size, error = (1000 * np.sqrt(np.mean(np.square(x))) for x in (true, off))
    name = "at rest" if temperature == 0 else f"{temperature} K"
    return f"| {name} | {np.mean(energies):+.1f} | {np.std(energies):.1f} | {size:.0f} | {error:.0f} |"


def _row(name: str, pair, bar: float | None = None) -> str:
    model = f"{pair[1]:.1f}" + ("" if bar is None else f" ± {bar:.1f}")
    return f"| {name} | {pair[0]:.1f} | {model} | {pair[1] - pair[0]:+.1f} |"


def _percent(shift) -> str:
    return f"{100 * (shift[1] - shift[0]):+.2f} %"


def _dos_row(name: str, true: dict, model: dict, n_atoms: int) -> str:
    off = np.sqrt(np.mean((true["dos"] - model["dos"]) ** 2)) / n_atoms
    levels = [float(side["fermi_level"]) for side in (true, model)]
    at = [np.interp(level, silicon.ENERGIES, side["dos"]) / n_atoms for level, side in zip(levels, (true, model))]
    return f"| {name} | {off:.4f} | {levels[0]:.3f} | {levels[1]:.3f} | {at[0]:.3f} | {at[1]:.3f} |"


def picture(found: dict, images: dict) -> Figure:
    """DOS of crystal and glass, of DFT and of the model, whose labels are projections on functions of atoms."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2, sharey=True), ("crystal", "amorphous")):
        for side, label, color in zip(found[name], ("DFT, on atoms", "si"), ("0.4", COLORS[0])):
            dos, level = side["dos"] / len(images[name]), float(side["fermi_level"])
            plot_dos(panel, silicon.ENERGIES, dos, level, align=True, color=color, label=label)
        states, level = found[name][0]["total"] / len(images[name]), float(found[name][0]["fermi_level"])
        panel.plot(silicon.ENERGIES - level, states, color="0.4", ls=":", label="DFT, all states")
        panel.set(title=name, ylim=(0, 1.0))
        panel.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
