"""``mlelec models``"""

import argparse

HELP = "List the models shipped with the package: name, species, cutoff and predicted quantities."
EXAMPLE = "mlelec models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", action="store_true", help="print the names alone, one per line")


def run(arguments: argparse.Namespace) -> None:
    # no more than the headers of the files is read, and torch is not imported
    from ase_mlelec.shipped import list_models, read_summary

    for name in list_models():
        if arguments.names:
            print(name)
            continue
        model = read_summary(name)
        print(
            f"{name}: species {', '.join(model['species'])}; cutoff {model['cutoff']:g} Å; "
            f"quantities {', '.join(model['quantities'])}"
        )
