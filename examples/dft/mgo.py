"""The magnesium oxide data set: rocksalt at 5,000 K under 237 to 599 GPa, labeled by Quantum ESPRESSO.

    python mgo.py sample first.extxyz                       # displaced lattices and MD of a classical potential
    python mgo.py sample second.extxyz --model mgo          # constant-pressure MD of a model
    python mgo.py convergence first.extxyz work mgo_convergence.csv     # DOS labels against denser k meshes
    python mgo.py pulay first.extxyz work mgo_pulay.csv     # the part that the stress of pw.x lacks at this cutoff
    python mgo.py label first.extxyz work                   # DFT; one file per structure, skips what is done
    python mgo.py collect work mgo.h5                       # one compressed data set; adds to one that is there

LDA, Mg.pz-n-vbc and O.pz-rrkjus, 35/200 Ry, Fermi-Dirac at ONE electronic temperature (5,000 K).  Energies, forces and
stress: a 3^3 mesh per 8 atoms, half a step off Γ.  Bands, their projections on the atomic s and p functions, and the
Fermi level: a 6^3 mesh with Γ, where the conduction band has its minimum, with bands interpolated to 12^3; as they are,
the DOS of magnesium above the gap is wrong by up to a fifth of its spread (mgo_convergence.csv).  Spectra are relative to
the Fermi level of each structure at 5,000 K: relative to the average potential, a gap is at other energies in each
structure, and the noise of a model fills it.  Seeds are below 1000.
"""

import argparse
from functools import partial
from pathlib import Path

import espresso
from mgo_convergence import convergence, pulay
from mgo_labels import collect, label
from mgo_structures import MODEL_PLAN, PLAN, model_snapshot, sample, snapshot

from ase_mlelec import DeepPotCalculator


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--model", help="sample from this model's own MD instead of the classical potential's")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    for name in "convergence", "pulay":
        command = commands.add_parser(name)
        command.add_argument("structures")
        command.add_argument("work", type=Path)
        command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "sample":
        if arguments.model:
            sample(
                arguments.structures, partial(model_snapshot, calculator=DeepPotCalculator(arguments.model)), MODEL_PLAN
            )
        else:
            sample(arguments.structures, snapshot, PLAN)
    elif arguments.command == "label":
        espresso.label_all(
            label, arguments.structures, arguments.work, arguments.part, lambda atoms: (len(atoms), atoms.info["share"])
        )
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "convergence":
        convergence(arguments.structures, arguments.work, arguments.target)
    elif arguments.command == "pulay":
        pulay(arguments.structures, arguments.work, arguments.target)


if __name__ == "__main__":
    main()
