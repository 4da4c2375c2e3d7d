"""The silicon data set: structures from molecular dynamics, labeled by Quantum ESPRESSO.

    python silicon.py sample first.extxyz                     # structures from Stillinger-Weber MD
    python silicon.py sample second.extxyz --model si         # structures from a model's own MD
    python silicon.py sample large.extxyz --model si --large  # the same with 32 and 64 atoms
    python silicon.py sample oblique.extxyz --model si --oblique  # crystals in 2x2x2 primitive cells
    python silicon.py sample dense.extxyz --dense             # compressed lattices and crowds, up to 8 times the density
    python silicon.py sample lattices.extxyz --lattices       # beta-tin, strained diamond, waves
    python silicon.py sample glass.extxyz --model si --glass  # quenched by a model
    python silicon.py label first.extxyz work --part 0/2      # DFT; one file per structure, skips what is done
    python silicon.py collect work silicon.h5                 # one compressed data set; adds to one that is there;
                                                              # glasses: silicon_glass.h5
    python silicon.py pulay work silicon_pulay.csv            # the part that the stress of pw.x lacks at this cutoff
    python silicon.py convergence first.extxyz work silicon_convergence.csv     # DOS labels against denser k meshes
    python silicon.py compare work other silicon_energies.csv                   # energies of two folders of labels

Energies, forces and stress: Si.pz-vbc, 20 Ry, k points per 8 atoms 4^3 for crystals and 6^3 for liquids, Fermi-Dirac at
ONE electronic temperature (2000 K) for every structure, so that the energy is a function of the positions alone.  DOS:
6^3 per 8 atoms, 8^3 for crystals below 600 K, projected on the atomic s and p functions.  Seeds are below 1000.
"""

import argparse
from functools import partial
from pathlib import Path

import espresso
import torch
from silicon_checks import compare, convergence, pulay
from silicon_labels import collect, label
from silicon_lattices import DENSE_PLAN, GLASS_PLAN, LATTICE_PLAN, dense_snapshot, glass_snapshot, lattice_snapshot
from silicon_structures import LARGE_PLAN, MODEL_PLAN, OBLIQUE_PLAN, PLAN, model_snapshot, sample, snapshot
from stillinger_weber import StillingerWeber

from ase_mlelec import DeepPotCalculator


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--dense", action="store_true", help="compressed lattices and crowds")
    command.add_argument("--lattices", action="store_true", help="beta-tin, strained diamond and waves")
    command.add_argument("--glass", action="store_true", help="glasses, with a model")
    command.add_argument("--model", help="sample from this model's own MD instead of Stillinger-Weber")
    command.add_argument("--large", action="store_true", help="cells of 32 and 64 atoms, with a model")
    command.add_argument("--oblique", action="store_true", help="crystals in 2x2x2 primitive cells, with a model")
    espresso.add_label_command(commands)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("convergence")
    command.add_argument("structures")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("pulay")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    command = commands.add_parser("compare")
    command.add_argument("work", type=Path)
    command.add_argument("other", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "sample":
        if arguments.model and arguments.glass:
            make = partial(glass_snapshot, calculator=DeepPotCalculator(arguments.model))
            sample(arguments.structures, make, GLASS_PLAN)
        elif arguments.model:
            make = partial(model_snapshot, calculator=DeepPotCalculator(arguments.model))
            plan = LARGE_PLAN if arguments.large else OBLIQUE_PLAN if arguments.oblique else MODEL_PLAN
            sample(arguments.structures, make, plan)
        elif arguments.dense or arguments.lattices:
            make, plan = (dense_snapshot, DENSE_PLAN) if arguments.dense else (lattice_snapshot, LATTICE_PLAN)
            sample(arguments.structures, make, plan)
        else:
            sample(arguments.structures, partial(snapshot, calculator=StillingerWeber()), PLAN)
    elif arguments.command == "label":
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "pulay":
        pulay(arguments.work, arguments.target)
    elif arguments.command == "compare":
        compare(arguments.work, arguments.other, arguments.target)
    elif arguments.command == "convergence":
        convergence(arguments.structures, arguments.work, arguments.target)


if __name__ == "__main__":
    main()
