"""The ice data set: cells of 16 H2O from 20 to 120 GPa, labeled by Quantum ESPRESSO and Wannier90.

    python ice.py sample first.extxyz                         # proton-disordered cells, thermally displaced
    python ice.py sample second.extxyz --models a b c d --seed 500    # where a committee disagrees, from its own MD
    python ice.py sample third.extxyz --hot --models a --seed 600     # hot and dense: molecules break up
    python ice.py label first.extxyz work --part 0/2          # DFT; one file per structure, skips what is done
    python ice.py response work                               # Born charges and dielectric tensors of small cells
    python ice.py pulay work                                  # the part that the stress of pw.x lacks at this cutoff
    python ice.py collect work ice.h5       # one compressed data set, which adds to one that is there; ice_response.npz

HSCV pseudopotentials, PBE, 85 Ry, Gamma; four Wannier functions per oxygen.  A structure whose functions do not come in
fours, or spread over more than 0.9 Å^2, is not labeled: work/NAME.rejected says why.  Seeds are below 1000.
"""

import argparse
from pathlib import Path

import espresso
import torch
from ice_dynamics import sample_by_committee, sample_hot
from ice_labels import collect, label, pulay, respond
from ice_structures import sample


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sample")
    command.add_argument("structures")
    command.add_argument("--models", nargs="+", metavar="MODEL", help="a committee, whose own MD is sampled")
    command.add_argument("--hot", action="store_true", help="from 2 to 4 g/cm^3, up to 2,000 K, by the first model")
    command.add_argument("--seed", type=int, default=500, help="of the first MD run; another for each round")
    espresso.add_label_command(commands)
    command = commands.add_parser("response")
    command.add_argument("work", type=Path)
    command = commands.add_parser("pulay")
    command.add_argument("work", type=Path)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("target", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "sample":
        if arguments.hot:
            sample_hot(arguments.structures, arguments.models[0], arguments.seed)
        elif arguments.models:
            sample_by_committee(arguments.structures, arguments.models, arguments.seed)
        else:
            sample(arguments.structures)
    elif arguments.command == "collect":
        collect(arguments.work, arguments.target)
    elif arguments.command == "label":
        espresso.label_all(label, arguments.structures, arguments.work, arguments.part)
    elif arguments.command == "pulay":
        pulay(arguments.work)
    else:
        respond(arguments.work)


if __name__ == "__main__":
    main()
