"""``mlelec dos``"""

HELP = "Density of states of a structure: Fermi level and gap in numbers, the total DOS as a picture and a table."


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="name of a shipped model (see 'mlelec models') or a path")
    parser.add_argument("structure", metavar="STRUCTURE", help="file that ASE reads; the last structure in it counts")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the total DOS, occupied states shaded")
    parser.add_argument("--csv", metavar="FILE", help="write energies (eV) and total DOS (states/eV)")


def run(arguments):
    from ase.io import read

    from ase_mlelec import DeepDOSCalculator, MLDFTCalculator, load_model
    from ase_mlelec.physics.dos import band_gap

    atoms, model = read(arguments.structure), load_model(arguments.model)
    calc = (MLDFTCalculator if "ldos" in model.heads else DeepDOSCalculator)(model)
    level, total = calc.get_fermi_level(atoms=atoms), calc.get_total_dos(atoms)
    if "ldos" in model.heads:
        gap, vbm, cbm = band_gap(calc.energies, total / len(atoms), level)
    else:
        gap, vbm, cbm = calc.get_band_gap(atoms)
    print(
        f"{atoms.get_chemical_formula()}: Fermi level {level:.3f} eV, "
        + (f"gap {gap:.3f} eV from {vbm:.3f} to {cbm:.3f} eV" if gap > 0 else "no gap")
    )
    if arguments.csv:
        write_table(arguments.csv, calc.energies, total)
    if arguments.plot:
        plot(arguments.plot, calc.energies, total, level, atoms.get_chemical_formula())


def write_table(path, energies, total):
    import numpy as np

    from ase_mlelec.atomic_write import replacing

    with replacing(path) as partial:
        np.savetxt(
            partial,
            np.column_stack([energies, total]),
            fmt="%.6g",
            delimiter=",",
            comments="",
            header="energy_eV,dos_states_per_eV",
        )


def plot(path, energies, total, level, title):
    from matplotlib.figure import Figure

    from ase_mlelec.analysis.plots import plot_dos
    from ase_mlelec.atomic_write import replacing

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_dos(figure.add_subplot(title=title), energies, total, level, align=True, occupied=True)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)
