"""What the model `ice` gets right and wrong: unseen structures, Born charges, vibrations, ice at ten pressures.

    python benchmarks/ice.py                # two hours, most of it for the molecular dynamics; writes ICE.md
    python benchmarks/ice.py --time 20      # ps at each pressure

Molecular dynamics is that of examples 07 and 09, which keep every finished picosecond in examples/output/07_ice; remove it
for another model.  Structures of group "test" of examples/data/ice.h5 were never used in training.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.optimize import BFGS
from ase.vibrations import VibrationsData
from hashes import models_line

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.data.frames import read_frames
from ase_mlelec.physics.spectra import block_error
from ase_mlelec.testing import five_point
from ase_mlelec.train.evaluate import errors

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path[:0] = [str(EXAMPLES / "dft"), str(EXAMPLES)]
dynamics, structures, infrared, structure, trajectories = map(
    importlib.import_module, ("ice_dynamics", "ice_structures", "07_ice_infrared", "09_ice_structure", "trajectories")
)

PRESSURES = (*range(20, 120, 10), 70)  # GPa, in turn
ABOVE, BELOW = 1900, 1000  # cm^-1
GRAM_PER_CM3 = 1000 * units.kg / units.m**3  # amu/Å^3
MOLECULE = 18.015  # amu
COLUMNS = {
    "atomic_dipole_rmse_A": "centroid, RMSE per component, Å",
    "dipole_rmse_e_A": "dipole of the cell, RMSE, e Å",
    "energy_mae_meV_per_atom": "energy, MAE, meV/atom",
    "forces_rmse_meV_per_A": "force, RMSE, meV/Å",
    "stress_rmse_GPa": "stress, RMSE, GPa",
}


# Structures ---------------------------------------------------------------------------------------------------------


def table_of_errors(model, frames):
    test = frames.select("test")
    groups = {"all": test}
    for phase in dict.fromkeys(frame.name.split("-")[0] for frame in test):
        groups[phase] = test.where(lambda frame, phase=phase: frame.name.startswith(phase))
    yield "| structures | n | " + " | ".join(COLUMNS.values()) + " |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for name, group in groups.items():
        found = errors(model, group)
        yield f"| {name} | {len(group)} | " + " | ".join(f"{found[key]:.4g}" for key in COLUMNS) + " |"
    dipoles = np.array([frame.labels["dipole"] for frame in test])
    yield ""
    yield (
        f"Dipoles of the test cells: standard deviation {dipoles.std(axis=0).mean():.2f} e Å per component (a model "
        "that knows nothing but their mean)."
    )


# Born charges -------------------------------------------------------------------------------------------------------


def table_of_born_charges(calc, path):
    yield "| cell | RMSE, e | with the sum rule imposed on DFT | sum over the cell: model | DFT |"
    yield "|---|---|---|---|---|"
    all_off, all_corrected = [], []
    for atoms, name, true in responses(path):
        found = calc.get_born_charges(atoms)
        off, corrected = found - true, found - (true - true.mean(axis=0))
        yield (
            f"| {name} | {rms(off):.4f} | {rms(corrected):.4f} | {np.abs(found.sum(axis=0)).max():.1e} | "
            f"{np.abs(true.sum(axis=0)).max():.3f} |"
        )
        all_off.append(off)
        all_corrected.append(corrected)
    yield f"| all | {rms(np.concatenate(all_off)):.4f} | {rms(np.concatenate(all_corrected)):.4f} | | |"


def responses(path):
    """Iterator over (Atoms, name, Born charges [N, 3, 3] e) of ph.x."""
    with np.load(path) as stored:
        data = {key: stored[key] for key in stored.files}
    for k, name in enumerate(data["name"]):
        yield (
            Atoms(data["numbers"][k], data["positions"][k], cell=data["cell"][k], pbc=True),
            name,
            data["born_charges"][k],
        )


def born_against_differences(calc, atoms, n_atoms=3):
    """Largest difference of Born charges from five-point differences of the dipole, e, over the first atoms."""
    born, worst = calc.get_born_charges(atoms).copy(), 0.0
    for atom, axis in np.ndindex(n_atoms, 3):

        def dipole_at(step):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            return calc.get_property("dipole", moved)

        worst = max(worst, np.abs(five_point(dipole_at) - born[atom, :, axis]).max())
    return worst


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


# Molecular dynamics -------------------------------------------------------------------------------------------------


def table_of_runs(calc, arguments):
    """Iterator over lines about runs at all pressures, those of examples 07 and 09."""
    yield (
        "| GPa asked for | found | K | length, ps | drift, meV/atom/ps | density, g/cm^3 | of experiment | O-H: nearer | "
        f"other oxygen | strongest absorption, cm^-1 | below {BELOW} cm^-1 | share above {ABOVE} cm^-1 | "
        "protons that stay | in the middle |"
    )
    yield "|" + "---|" * 14
    found, orders = [], []
    for name, atoms, run in infrared.runs(calc, arguments):
        row, order = of_run(name, atoms, run)
        yield row
        if not name.endswith("down"):
            found.append(run["pressure"].mean())
            orders.append(order)
    values, errors = (np.array([order[k] for order in orders]) for k in range(2))
    yield ""
    for k, change in structure.CHANGES.items():
        yield structure.located(change, found, values[:, k], errors[:, k]) + "."


def of_run(name, atoms, run):
    """Row of a table, and (value, error) of the measures of the order of protons."""
    apart = structure.distances(atoms, run["positions"])
    near, far = np.sort(apart, axis=2)[:, :, :2].mean(axis=(0, 1))
    order = structure.order_of(apart)
    picoseconds = len(run["conserved"]) * trajectories.FRAME * dynamics.STEP / 1000
    name = name.replace("GPa", "").replace("_", ", ")
    drift = 1000 * np.polyfit(np.linspace(0, picoseconds, len(run["conserved"])), run["conserved"], 1)[0] / len(atoms)
    found, bar = block_error(np.mean, run["pressure"])
    lattice = np.interp(found, dynamics.PRESSURES, dynamics.LATTICE_CONSTANTS)
    densities = [MOLECULE / each / GRAM_PER_CM3 for each in (3 * atoms.get_volume() / len(atoms), lattice**3 / 2)]
    places = " | ".join(spectrum_of(run, atoms.get_volume()))
    stay, middle = (f"{order[0][k]:.2f} ± {order[1][k]:.2f}" for k in (1, 2))
    return (
        f"| {name} | {found:.1f} ± {bar:.1f} | {run['temperature'].mean():.0f} | {picoseconds:.1f} | {drift:.4f} | "
        f"{densities[0]:.3f} | {densities[1]:.3f} | {near:.3f} | {far:.3f} | {places} | {stay} | {middle} |"
    ), order


def spectrum_of(run, volume):
    """Wavenumbers of the strongest absorption and of that below BELOW, share of that above ABOVE, with errors, str."""

    def values(dipoles):
        wavenumbers, alpha_n = infrared.spectrum(dipoles, run, volume)
        above = wavenumbers > ABOVE
        share = np.trapezoid(alpha_n[above], wavenumbers[above]) / np.trapezoid(alpha_n, wavenumbers)
        places = [trajectories.strongest(wavenumbers, alpha_n, (0, highest)) for highest in (np.inf, BELOW)]
        return np.array([*places, share])

    found, errors = block_error(values, run["dipoles"], infrared.N_BLOCKS)
    return [f"{found[k]:.{n}f} ± {errors[k]:.{n}f}" for k, n in enumerate((0, 0, 2))]


# Vibrations ---------------------------------------------------------------------------------------------------------


def stretch_frequencies(model, pressure):
    """Harmonic wavenumber of the symmetric O-H stretch of 16 molecules, cm^-1, of H2O and of D2O.

    Means over the modes, weighted by how much of the symmetric stretch of the molecules is in each.
    """
    lattice = np.interp(pressure, dynamics.PRESSURES, dynamics.LATTICE_CONSTANTS)
    atoms = structures.ice_atoms(lattice, np.random.default_rng(1))
    atoms.calc = DeepPotCalculator(model)
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=500)
    hessian, stretch = hessian_of(atoms), symmetric_stretch(atoms)
    found = []
    for mass in 1.008, 2.014:
        atoms.set_masses(np.where(atoms.symbols == "H", mass, atoms.get_masses()))
        modes = VibrationsData.from_2d(atoms, hessian)
        weights = (np.einsum("mia,kia->mk", stretch, modes.get_modes()) ** 2).sum(axis=0)
        found.append(np.average(modes.get_frequencies().real, weights=weights))
    return found


def hessian_of(atoms, step=0.005):
    """[3N, 3N], eV/Å^2, by central differences of the forces."""
    rows = []
    for atom, axis in np.ndindex(len(atoms), 3):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            forces.append(atoms.calc.get_property("forces", moved).ravel())
        rows.append((forces[1] - forces[0]) / (2 * step))
    return (np.array(rows) + np.array(rows).T) / 2


def symmetric_stretch(atoms):
    """[molecules, N, 3]: displacements times these give how much longer both bonds of a molecule become."""
    directions = np.zeros((len(atoms) // 3, len(atoms), 3))
    for k in range(len(atoms) // 3):
        for proton in (3 * k + 1, 3 * k + 2):
            bond = atoms.get_distance(3 * k, proton, mic=True, vector=True)
            directions[k, proton] = bond / np.linalg.norm(bond)
            directions[k, 3 * k] -= directions[k, proton]
    return directions


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    infrared.add_options(parser)
    parser.set_defaults(repeat=4, pressures=list(PRESSURES), time=2)
    parser.add_argument("--data", type=Path, default=EXAMPLES / "data" / "ice.h5")
    parser.add_argument("--response", type=Path, default=EXAMPLES / "data" / "ice_response.npz")
    parser.add_argument("--table", type=Path, default=HERE / "ICE.md")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, frames = load_model(arguments.model), read_frames(arguments.data)
    calc = DeepWannierCalculator(model, on_extrapolation="warn")
    unseen = next(frame.atoms for frame in frames if frame.group == "test")
    lines = [
        "# Accuracy of the model `ice`",
        "",
        f"Regenerated by `python benchmarks/ice.py --time {arguments.time}`.",
        "",
        models_line("ice"),
        "",
        "## Structures that were never used in training",
        "",
        *table_of_errors(model, frames),
        "",
        "## Born charges against density functional perturbation theory (ph.x)",
        "",
        *table_of_born_charges(calc, arguments.response),
        "",
        f"They are those of finite differences of the dipole to {born_against_differences(calc, unseen):.0e} e.",
        "",
    ]
    print("\n".join(lines), flush=True)
    lines += [
        "## Harmonic wavenumber of the symmetric O-H stretch, 16 molecules",
        "",
        "| GPa | H2O, cm^-1 | D2O | ratio |",
        "|---|---|---|---|",
    ]
    for pressure in min(PRESSURES), max(PRESSURES):
        light, heavy = stretch_frequencies(model, pressure)
        lines.append(f"| {pressure} | {light:.0f} | {heavy:.0f} | {light / heavy:.3f} |")
    print("\n".join(lines[-2:]), flush=True)
    lines += about_runs(calc, arguments)
    arguments.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def about_runs(calc, arguments):
    """Lines about the molecular dynamics."""
    return [
        "",
        f"## Molecular dynamics of {2 * arguments.repeat**3} molecules at {infrared.TEMPERATURE} K, classical nuclei",
        "",
        "Runs of examples 07 and 09 at the volume that a barostat finds within 0.35 ps, each from the one before "
        "(down: with falling pressure); pressures are those of the runs, with the momenta. Errors are standard "
        "errors of blocks of the run. Experiment: equation of state of Hemley et al. (1987). The strongest "
        f"absorption is that of spectra with a resolution of {infrared.RESOLUTION:g} cm^-1, or what a fifth of the "
        "run allows. A proton stays that is, on average over 0.5 ps, clearly on one side of its bond; the last "
        "column is the density of protons in the middle of a bond over that at the most likely place.",
        "",
        *table_of_runs(calc, arguments),
    ]


if __name__ == "__main__":
    main()
