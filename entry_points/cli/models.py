"""``mlelec models``"""

HELP = "List the models shipped with the package: name, species, cutoff and predicted quantities."


def add_arguments(parser):
    parser.add_argument("--names", action="store_true", help="print the names alone, one per line")


def run(arguments):
    from ase_mlelec import list_models, load_model

    for name in list_models():
        if arguments.names:
            print(name)
            continue
        model = load_model(name)
        print(f"{name}: species {', '.join(model.species)}; cutoff {model.cutoff:g} Å; "
              f"quantities {', '.join(model.heads)}")
