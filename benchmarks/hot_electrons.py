"""Hot electrons against Quantum ESPRESSO, self-consistent at every temperature: python benchmarks/hot_electrons.py

Writes HOT_ELECTRONS.md.  The labels, examples/data/hot_electrons.h5, are made by examples/dft/hot_electrons.py; the
structures are tests of the models, never used in their training.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples/dft"))

from hot_electrons import read

from ase_mlelec import DeepDOSCalculator, MLDFTCalculator, units
from ase_mlelec.physics.free_energy import electronic_free_energy

ELECTRONS = {"Si": 4, "Al": 3}
MODELS = {"Si": ("si", DeepDOSCalculator), "Al": ("al", MLDFTCalculator)}
INTRODUCTION = """# Hot electrons

Free energy, forces and stress of fixed structures at electronic temperatures T, less those at the first temperature of
each structure, against Quantum ESPRESSO, self-consistent at every T (8 atoms of Si with 3^3, 4 of Al with 6^3 k points,
bands up to at least 12 eV above the Fermi level). `python benchmarks/hot_electrons.py` writes this file.

- *formula*: the free energy of electrons in the density of states that Quantum ESPRESSO has at the first temperature,
  with the width of its levels corrected; *plain*: without the correction. What is left is the change of the potential
  with T, an error of second order that no model of the density of states can mend.
- *model*: DeepDOSCalculator("si", electronic_temperature=T); for aluminium MLDFTCalculator("al"), which has no formula:
  its free energy is that of the LDOS at T. The states of both end 3 eV above the Fermi level; *missing* is the
  calculator's own estimate of the energy that states above would have.
- Forces: root mean square over components of the *change* with T by Quantum ESPRESSO, and of the error of this change.
  Stress likewise.
"""
HEAD = "| {} |".format(
    " | ".join(
        [
            "structure",
            "T (K)",
            "F(T) - F(T_0) (meV/atom)",
            "formula",
            "plain",
            "model",
            "missing",
            "force change (meV/Å)",
            "model",
            "stress change (GPa)",
            "model",
        ]
    )
)


def calculator(symbol, temperature):
    name, kind = MODELS[symbol]
    return kind(name, electronic_temperature=temperature, dtype="float64", device="cpu")


def predicted(atoms, temperature):
    """(energy per atom, forces, stress, what the calculator says is missing) of the model."""
    calc = calculator(atoms.symbols[0], temperature)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        energy = calc.get_property("energy", atoms) / len(atoms)
        forces, stress = calc.get_property("forces", atoms), calc.get_property("stress", atoms)
    said = [str(each.message) for each in told if "are missing" in str(each.message)]
    missing = said[0].split(" about ")[1].split(" eV/atom")[0] if said else ""
    return energy, forces, stress, missing


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def rows(name, atoms, labels, width, energies):
    """Lines of the table of one structure."""
    n_atoms, temperatures = len(atoms), labels["temperatures"]
    n_electrons = ELECTRONS[atoms.symbols[0]] * n_atoms
    order, lines = np.argsort(temperatures[1:]) + 1, []
    cold = predicted(atoms, temperatures[0])
    for k in order:
        change = {key: labels[key][k] - labels[key][0] for key in ("energy", "forces", "stress")}
        formula, plain = (
            (
                electronic_free_energy(energies, labels["dos"], n_electrons, temperatures[k], width=w)
                - electronic_free_energy(energies, labels["dos"], n_electrons, temperatures[0], width=w)
                - change["energy"]
            )
            / n_atoms
            for w in (width, 0.0)
        )
        hot = predicted(atoms, temperatures[k])
        stress = full_3x3_to_voigt_6_stress(change["stress"])
        errors = [hot[0] - cold[0] - change["energy"] / n_atoms, *(hot[i] - cold[i] for i in (1, 2))]
        cells = [
            name,
            f"{temperatures[k]:.0f}",
            f"{1000 * change['energy'] / n_atoms:.1f}",
            f"{1000 * formula:+.1f}",
            f"{1000 * plain:+.1f}",
            f"{1000 * errors[0]:+.1f}",
            f"{1000 * float(hot[3]):.0f}" if hot[3] else "",
            f"{1000 * rms(change['forces']):.0f}",
            f"{1000 * rms(errors[1] - change['forces']):.0f}",
            f"{rms(stress) / units.GPA:.2f}",
            f"{rms(errors[2] - stress) / units.GPA:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    energies, found = read(ROOT / "examples/data/hot_electrons.h5")
    hashes = [f"`{name}` {calculator(symbol, 1000.0).parameters['weights']}" for symbol, (name, _) in MODELS.items()]
    lines = [INTRODUCTION, f"Models: {', '.join(hashes)}.\n", HEAD, "|" + " --- |" * 11]
    for name, (atoms, labels, attributes) in found.items():
        width = float(attributes["dos_width_eV"])
        first = f"{atoms.symbols[0]} {name} ({labels['temperatures'][0]:.0f} K)"
        lines += rows(first, atoms, labels, width, energies)
        print(*lines[-len(labels["temperatures"]) + 1 :], sep="\n", flush=True)
    (ROOT / "benchmarks/HOT_ELECTRONS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
