"""Aluminium by ML-DFT: errors of models trained on the crystal, on the liquid and on both, and of the shipped `al`.

    python benchmarks/aluminium.py      # writes ALUMINIUM.md and aluminium_energies.png beside this file

An interrupted run goes on where it was: fingerprints, checkpoints and models are kept in the folder ``--cache``.
Snapshots of group "test" of the data of examples/al.toml were never used in training.
Errors are those of the integrals of the predicted LDOS against the same integrals of the DFT LDOS.

Source: after Ellis et al. 2021, Tables II and IV, Figs. 5, 6 and 8.
"""

import argparse
from copy import deepcopy
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from hashes import models_line
from matplotlib.figure import Figure

from ase_mlelec import MLDFTCalculator, load_model
from ase_mlelec.analysis.plots import plot_parity_groups
from ase_mlelec.data.grid_points import ForceData, GridData
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.train.config import read_config
from ase_mlelec.train.ldos.descent import refit_last_layer
from ase_mlelec.train.ldos.errors import free_energy, ldos_errors
from ase_mlelec.train.ldos.label_refit import refit_with_labels
from ase_mlelec.train.ldos.standardize import fit_zero
from ase_mlelec.train.recipes.ldos import describe_ldos, fit_ldos_model, new_ldos_model

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
# trained on -> (phases of the training, phases of the tests)
TRAININGS = {
    "solid 298 K": (["solid 298 K"], ["solid 298 K"]),
    "solid 933 K": (["solid 933 K"], ["liquid 933 K", "solid 933 K"]),
    "liquid 933 K": (["liquid 933 K"], ["liquid 933 K", "solid 933 K"]),
    "solid + liquid 933 K": (["solid 933 K", "liquid 933 K"], ["liquid 933 K", "solid 933 K"]),
}
ALL = ["solid 298 K", "solid 933 K", "liquid 933 K", "strained", "lattice"]
FORCES_OF = 3  # unseen snapshots of each phase
FORCE_AND_ENERGY_WEIGHTS = ((0.0, 0.0), (0.03, 0.0), (0.0, 100.0), (0.03, 100.0))
NVE_STEPS, NVE_SPACING = 1000, 0.4  # of 1 fs; Å


def by_phase(paths):
    """The snapshots of files in groups that tell the phase too: "liquid 933 K test"."""
    snapshots = Snapshots(*paths)
    snapshots.groups = [f"{phase_of(snapshot)} {snapshot.group}" for snapshot in snapshots]
    return snapshots


def phase_of(snapshot):
    phase = snapshot.name.split("-")[0]
    return phase if phase in ("strained", "lattice") else f"{phase} {snapshot.temperature:.0f} K"


def train(name, phases, snapshots, config, cache):
    """(model, number of snapshots for training, of them for validation), with the settings of `al`"""
    parts = [snapshots.select(*(f"{phase} {role}" for phase in phases)) for role in ("train", "validation")]
    path = cache / f"{name.replace(' + ', ' ').replace(' ', '_')}_{parts[0].fingerprint()}.safetensors"
    sizes = [len(part) for part in parts]
    if path.exists():
        return load_model(path), *sizes
    model = new_ldos_model(snapshots, fit_zero(parts[0]), config)
    data, held = (grid_data(part, model, cache) for part in parts)
    fit_ldos_model(model, data, held, config, path.with_suffix(".checkpoint"))
    model.metadata = describe_ldos(parts[0])
    model.save(path)
    return model, *sizes


def grid_data(snapshots, model, cache):
    return GridData(
        snapshots, deepcopy(model.descriptor).double(), cache / "fingerprints.h5", zero=model.heads["ldos"].zero
    )


def evaluate(model, snapshots, cache):
    """dict of array [n]: errors as of ldos_errors, and the energies of DFT, eV/atom"""
    found = ldos_errors(model, grid_data(snapshots, model, cache))
    terms = [free_energy(snapshots, snapshot, snapshot.dos)[0] for snapshot in snapshots]
    for name, term in ("band_energy", "band"), ("free_energy", "total"):
        found[f"true_{name}"] = np.array([float(row[term]) for row in terms]) / [len(s.atoms) for s in snapshots]
    return found


def energy_columns(found):
    """Largest and mean absolute error in meV/atom, mean relative error in %; of band and total energy."""
    cells = []
    for name in "band_energy", "free_energy":
        error, true = np.abs(found[name]), np.abs(found[f"true_{name}"])
        cells += [f"{1000 * error.max():.2f}", f"{1000 * error.mean():.2f}", f"{100 * (error / true).mean():.4f}"]
    return cells


def table_of_energies(runs, snapshots, cache, results):
    yield "| trained on | tested on | band: max AE | MAE | MAPE | total: max AE | MAE | MAPE |"
    yield "|" + "---|" * 8
    for name, (model, n_train, n_held, tests) in runs.items():
        counts = f"{name} ({n_train} snapshots, {n_held} for validation)"
        for phase in tests:
            part = snapshots.select(f"{phase} test")
            found = results[name, phase] = evaluate(model, part, cache)
            yield f"| {counts} | {len(part)} {phase} | " + " | ".join(energy_columns(found)) + " |"
            counts = ""


def table_of_fields(results, name):
    yield "| tested on | LDOS, 1/(eV Å^3) | DOS, states/eV/atom | density, MAPE in % |"
    yield "|---|---|---|---|"
    for phase in ALL:
        found = results[name, phase]
        rms = [np.sqrt(np.mean(found[key] ** 2)) for key in ("ldos", "dos")]
        yield f"| {phase} | {rms[0]:.2e} | {rms[1]:.4f} | {found['density_percent'].mean():.2f} |"


def section_of_sizes(results, name, model, snapshots):
    rows = list(rows_of_sizes(results, name, model, snapshots))
    if not rows:
        return ["The data set has no unseen cells of more than four atoms.", ""]
    return [
        "## `al` on unseen cells of more than four atoms",
        "",
        "| snapshot | band energy, meV/atom | total energy, meV/atom | DOS, states/eV/atom | density, MAPE in % | "
        "forces: RMSE, eV/Å |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def rows_of_sizes(results, name, model, snapshots):
    for phase in ALL:
        found = results[name, phase]
        for k, snapshot in enumerate(snapshots.select(f"{phase} test")):
            if len(snapshot.atoms) > 4:
                yield (
                    f"| {snapshot.name} | {1000 * found['band_energy'][k]:+.2f} | "
                    f"{1000 * found['free_energy'][k]:+.2f} | {found['dos'][k]:.4f} | "
                    f"{found['density_percent'][k]:.2f} | {force_errors(model, [snapshot])[0]:.3f} |"
                )


def smallest(snapshots):
    """At most FORCES_OF of them, those of the fewest atoms first."""
    return sorted(snapshots, key=lambda snapshot: len(snapshot.atoms))[:FORCES_OF]


def table_of_forces(model, snapshots):
    yield "| tested on | forces: RMSE, eV/Å | root mean square of DFT | stress: RMSE, GPa |"
    yield "|---|---|---|---|"
    for phase in ALL:
        part = smallest(snapshots.select(f"{phase} test"))
        yield f"| {len(part)} {phase} | " + " | ".join(f"{x:.3f}" for x in force_errors(model, part)) + " |"


def force_errors(model, snapshots):
    """Root mean squares: error of the forces, forces of DFT (eV/Å), error of the stress (GPa)"""
    calc, rows = MLDFTCalculator(model), []
    for snapshot in snapshots:
        calc.electronic_temperature = snapshot.temperature
        stress = calc.get_stress(snapshot.atoms) - snapshot.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        force = calc.get_forces(snapshot.atoms) - snapshot.forces
        rows.append([np.mean(force**2), np.mean(snapshot.forces**2), np.mean((stress / units.GPa) ** 2)])
    return np.sqrt(np.mean(rows, axis=0))


def refitted(model, weights, snapshots, config, cache):
    """The model with a last layer from LDOS and DOS, and with these weights from forces and energies."""
    fingerprint = model.metadata["training"]["fingerprints"]["train"]
    path = cache / f"refitted_{fingerprint}_{weights[0]:g}_{weights[1]:g}.safetensors"
    if not path.exists():
        part = snapshots.select(*(f"{phase} train" for phase in ALL))
        descriptor, model = deepcopy(model.descriptor).double(), deepcopy(model).float()
        data, head = grid_data(part, model, cache), model.heads["ldos"]
        refit_last_layer(head, data, config.ldos.dos_weight)
        if any(weights):
            forces = ForceData(part, descriptor, cache / "fingerprints.h5")
            refit_with_labels(head, data, forces, *weights, config.ldos.dos_weight)
        model.save(path)
    return load_model(path)


def table_of_force_term(shipped, snapshots, config, cache):
    yield (
        "| force_weight, energy_weight | tested on | forces: RMSE, eV/Å | stress: RMSE, GPa | LDOS, 1/(eV Å^3) | "
        "density, MAPE in % | band energy: MAE, meV/atom | total: MAE |"
    )
    yield "|" + "---|" * 8
    for phase in ALL:
        part = snapshots.select(f"{phase} test")
        for weights in FORCE_AND_ENERGY_WEIGHTS:
            model = refitted(shipped, weights, snapshots, config, cache)
            force, _, stress = force_errors(model, smallest(part))
            found = ldos_errors(model, grid_data(part, model, cache))
            mae = [1000 * np.abs(found[key]).mean() for key in ("band_energy", "free_energy")]
            yield (
                f"| {weights[0]:g}, {weights[1]:g} | {len(part)} {phase} | {force:.3f} | {stress:.2f} | "
                f"{np.sqrt(np.mean(found['ldos'] ** 2)):.2e} | {found['density_percent'].mean():.2f} | {mae[0]:.2f} | "
                f"{mae[1]:.2f} |"
            )


def table_of_labels(snapshots):
    """What the grid of energies and the broadening cost: A from the DFT LDOS against A of the DFT program."""
    yield "| snapshots | mean of the difference, meV/atom | standard deviation |"
    yield "|---|---|---|"
    for phase in ALL:
        part = snapshots.select(*(f"{phase} {role}" for role in ("train", "validation", "test")))
        error = [(float(free_energy(part, s, s.dos)[0]["total"]) - s.energy) / len(s.atoms) for s in part]
        yield f"| {len(part)} {phase} | {1000 * np.mean(error):+.3f} | {1000 * np.std(error):.3f} |"


def energy_conservation(model):
    """MD of four atoms without a thermostat; the grid is wider than that of the data, to take minutes, not hours."""
    model = deepcopy(model)
    model.metadata["grid_spacing_A"] = NVE_SPACING
    atoms = bulk("Al", a=4.05, cubic=True)
    atoms.calc = MLDFTCalculator(model, electronic_temperature=933.0)
    atoms.set_momenta(
        np.sqrt(atoms.get_masses() * units.kB * 1800)[:, None] * np.random.default_rng(0).normal(size=(len(atoms), 3))
    )
    Stationary(atoms)
    run, energies, temperatures = VelocityVerlet(atoms, 1.0 * units.fs), [], []
    run.attach(lambda: (energies.append(atoms.get_total_energy()), temperatures.append(atoms.get_temperature())))
    run.run(NVE_STEPS)
    energies, time = 1000 * np.array(energies) / len(atoms), np.arange(NVE_STEPS + 1) / 1000
    return (
        f"{NVE_STEPS} steps of 1 fs without a thermostat, four atoms at {np.mean(temperatures):.0f} K, grid of "
        f"{' x '.join(map(str, atoms.calc.grid()))} points: drift of A + kinetic energy "
        f"{np.polyfit(time, energies, 1)[0]:+.4f} meV/atom/ps, standard deviation {energies.std():.4f} meV/atom."
    )


def picture(results):
    trained = ["solid 933 K", "liquid 933 K", "solid + liquid 933 K"]
    figure = Figure(figsize=(12, 7.6), layout="constrained")
    for axes, name, title in zip(figure.subplots(2, 3), ("band_energy", "free_energy"), ("band", "total free")):
        for ax, model in zip(axes, trained):
            columns = [results[model, phase] for phase in ("solid 933 K", "liquid 933 K")]
            true = np.concatenate([found[f"true_{name}"] for found in columns])
            error = np.concatenate([found[name] for found in columns])
            groups = ["solid"] * len(columns[0][name]) + ["liquid"] * len(columns[1][name])
            plot_parity_groups(ax, true, true + error, groups, "eV/atom")
            ax.set_title(f"{title} energy, from {model}", fontsize="medium")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=EXAMPLES / "al.toml", help="settings of the trainings")
    parser.add_argument("--model", default="al", help="trained on all phases (%(default)s)")
    parser.add_argument("--cache", type=Path, default=EXAMPLES / "output" / "aluminium_benchmark")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    config, results = read_config(arguments.config), {}
    snapshots = by_phase([config.folder / name for name in config.data.files])
    runs = {
        name: (*train(name, phases, snapshots, config, arguments.cache), tests)
        for name, (phases, tests) in TRAININGS.items()
    }
    shipped = load_model(arguments.model)
    counts = shipped.metadata["training"]["frames"]
    runs["all of them: `al`"] = shipped, counts["train"], counts["validation"], ALL
    lines = [
        "# Aluminium by ML-DFT",
        "",
        "Regenerated by `python benchmarks/aluminium.py`. Snapshots at fixed density, strained ones and "
        "perfect crystals around it; none of the tests was seen in training or validation.",
        "",
        models_line("al"),
        "",
        "## Band energy and total free energy, meV/atom and %",
        "",
        *table_of_energies(runs, snapshots, arguments.cache, results),
        "",
        "![Energies of models trained on crystal, liquid and both](aluminium_energies.png)",
        "",
    ]
    name = next(reversed(runs))
    lines += [
        "## What `al` predicts in space and energy",
        "",
        *table_of_fields(results, name),
        "",
        *section_of_sizes(results, name, shipped, snapshots),
        "## Forces and stress of `al` against DFT",
        "",
        f"Of at most {FORCES_OF} snapshots of each phase, those of the fewest atoms; larger cells are above.",
        "",
        *table_of_forces(shipped, snapshots),
        "",
        "## With and without forces and energies in the training",
        "",
        "The net of `al`, its last layer refitted without and with forces and free energies. Forces and stress "
        f"are those of at most {FORCES_OF} snapshots, those of the fewest atoms.",
        "",
        *table_of_force_term(shipped, snapshots, config, arguments.cache),
        "",
        "## Energy conservation",
        "",
        energy_conservation(shipped),
        "",
        "## DFT itself: total free energy from its LDOS against its own",
        "",
        *table_of_labels(snapshots),
    ]
    (arguments.output / "ALUMINIUM.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(results).savefig(arguments.output / "aluminium_energies.png", dpi=110)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
