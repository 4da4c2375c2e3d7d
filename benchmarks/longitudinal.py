"""Longitudinal waves of models with and without the long range against ph.x: magnesium oxide, and ice.

    python benchmarks/longitudinal.py FOLDER [--pseudo /usr/share/espresso/pseudo]     # writes LONGITUDINAL.md

Magnesium oxide: frequencies of optical waves along Γ-X of the models of examples/18_longitudinal_modes.py, beside ph.x with
the settings of phonons.py at the same wave vectors. Ice: how far long longitudinal waves are above transverse ones, as the
sum of ω² over all modes, which the trace of the dynamical matrix gives; that of DFT follows from the Born charges and the
dielectric tensors of ph.x in examples/data/ice_response.npz, that of the models from forces in rows of eight cells. FOLDER
keeps the runs of ph.x and the models. About ten minutes on one core.
"""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import phonons
from ase import Atoms, units
from long_range import trained

from ase_mlelec import DeepPotCalculator
from ase_mlelec.calculators.parameters import fingerprint
from ase_mlelec.data.frames import read_frames
from ase_mlelec.units import COULOMB

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
example = importlib.import_module("18_longitudinal_modes")

MGO = "`mgo`"  # in phonons.CRYSTALS
INSIDE = (0.25, 0.5, 0.75)  # wave vectors along x, 2π/a
RANGES = {"without long range": None, "with long range": {"width": 1.25, "dielectric": 3.3}}  # ε: mean of those of ph.x
ROW, STEP = 8, 0.01  # cells; Å
THZ = 1000 * units.fs / (2 * np.pi)


# Magnesium oxide ----------------------------------------------------------------------------------------------------


def of_dft(folder, pseudo):
    """Frequencies, THz, of ph.x by kind of wave and wave vector; the upper one of two longitudinal waves."""
    phonons.calculate(MGO, folder, pseudo)
    points = phonons.reference(folder)
    found = {
        "longitudinal": {0: points["Γ"][5], 1: points["X"][5]},
        "transverse": {0: points["Γ"][4], 1: points["X"][4]},
    }
    for wave in INSIDE:
        modes = of_wave(folder, wave)
        (pairs,) = [k for k in (3, 4) if abs(modes[k + 1] - modes[k]) < phonons.DEGENERATE]
        found["transverse"][wave] = modes[pairs]
        found["longitudinal"][wave] = next(each for k, each in enumerate(modes[3:], 3) if k not in (pairs, pairs + 1))
    return found


def of_wave(folder, wave):
    """Frequencies [6], THz, of ph.x at a wave vector along x, unless that was done before."""
    output = folder / f"wave_{wave}.out"
    if not output.exists() or "JOB DONE" not in output.read_text():
        text = f"x\n&inputph\n prefix='x', outdir='./out', fildyn='wave_{wave}.dyn', tr2_ph=1e-15\n/\n{wave} 0.0 0.0\n"
        output.with_suffix(".in").write_text(text)
        with open(output, "w") as file:
            subprocess.run(["ph.x", "-in", f"wave_{wave}.in"], cwd=folder, stdout=file, check=True)
    return [float(each) for each in re.findall(r"freq \(\s*\d+\) =\s*(\S+) \[THz\]", output.read_text())]


def table_of_mgo(folder, pseudo):
    wanted = of_dft(folder / "mgo", pseudo)
    yield "| wave vector along x, 2π/a | waves | DFT, THz | " + " | ".join(example.MODELS) + " |"
    yield "|---" * (3 + len(example.MODELS)) + "|"
    found = {}
    for name, far in example.MODELS.items():
        calc = example.trained(name, far, folder)
        found |= {(name, kind): example.optical(calc, axis) for axis, kind in enumerate(example.DFT)}
    for kind, points in wanted.items():
        for wave, frequency in sorted(points.items()):
            values = [at(found[name, kind], wave) for name in example.MODELS]
            shown = " | ".join(f"{each:.2f} ({100 * (each / frequency - 1):+.1f} %)" for each in values)
            yield f"| {wave:g} | {kind} | {frequency:.2f} | {shown} |"
    yield from ("", hashes_of(example.trained(name, far, folder) for name, far in example.MODELS.items()))


def at(curve, wave):
    """Frequency of a curve at a wave vector; at zero, the limit of long waves."""
    return np.interp(wave, *curve) if wave else example.limit(*curve)


# Ice ----------------------------------------------------------------------------------------------------------------


def table_of_ice():
    frames = read_frames(EXAMPLES / "data" / "ice.h5")
    calcs = {name: DeepPotCalculator(trained(frames, 4.0, far, name)[0]) for name, far in RANGES.items()}
    yield "| cell | DFT, THz | " + " | ".join(RANGES) + " |"
    yield "|---" * (2 + len(RANGES)) + "|"
    with np.load(EXAMPLES / "data" / "ice_response.npz") as stored:
        data = {key: stored[key] for key in stored.files}
    for k, name in enumerate(data["name"]):
        atoms = Atoms(data["numbers"][k], data["positions"][k], cell=data["cell"][k], pbc=True)
        wanted = splitting_of_charges(atoms, data["born_charges"][k], data["dielectric"][k])
        values = [splitting_of_waves(calc, atoms) for calc in calcs.values()]
        yield f"| {name} | {wanted:.2f} | " + " | ".join(f"{each:.2f}" for each in values) + " |"
    yield from ("", hashes_of(calcs.values()))


def splitting_of_charges(atoms, born, dielectric):
    """√Σ(ω_LO² - ω_TO²), THz, of long waves along the first reciprocal vector, by Born charges [N, 3, 3], e."""
    along = atoms.cell.reciprocal()[0]
    along = along / np.linalg.norm(along)
    charges = np.einsum("a,kab->kb", along, born)
    squares = (charges**2).sum(axis=1) / atoms.get_masses()
    return THZ * np.sqrt(4 * np.pi * COULOMB / atoms.get_volume() / (along @ dielectric @ along) * squares.sum())


def splitting_of_waves(calc, atoms):
    """As ``splitting_of_charges``, by forces in a row of cells; 0 where transverse waves are above."""
    row, n = atoms * (ROW, 1, 1), len(atoms)
    squares = np.zeros(3)  # sums of ω² for waves of infinite length without a field, of ROW and of ROW/2 cells
    for atom, axis in np.ndindex(n, 3):
        forces = [example.moved(calc, row, atom, axis, step)[atom::n] for step in (STEP, -STEP)]
        constants = (forces[1] - forces[0]) / (2 * STEP) / atoms.get_masses()[atom]
        squares += [constants @ np.cos(2 * np.pi * wave * np.arange(ROW) / ROW) for wave in range(3)]
    beyond = squares - squares[0]
    return THZ * np.sqrt(max((4 * beyond[1] - beyond[2]) / 3, 0))  # even in the wave vector


def hashes_of(calcs):
    return "Hashes of the models: " + ", ".join(f"`{fingerprint(calc.models[0])}`" for calc in calcs) + "."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pseudo", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--out", type=Path, default=HERE / "LONGITUDINAL.md")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    lines = [
        "# Longitudinal waves with and without the long range",
        "",
        "Written by `python benchmarks/longitudinal.py FOLDER`, which trains the models: none is a shipped one.",
        "",
        "## Magnesium oxide, 9.8 Å^3 per formula unit: optical waves",
        "",
        "The upper one of two longitudinal waves; at 0 the limit of long waves.",
        "",
        *table_of_mgo(folder, arguments.pseudo),
        "",
        "## Ice: how far long longitudinal waves are above transverse ones",
        "",
        "√Σ(ω_LO² - ω_TO²)/2π of all modes, waves along the first reciprocal vector; one dielectric constant, 3.3, in the",
        "model, 2.9 to 3.7 in DFT.",
        "",
        *table_of_ice(),
        "",
    ]
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
