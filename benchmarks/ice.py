"""What the model `ice` gets right and wrong: unseen structures, Born charges, pressure, vibrations of H2O and D2O.

    python benchmarks/ice.py                # about an hour, most of it for the molecular dynamics; writes ICE.md
    python benchmarks/ice.py --time 20      # ps at each pressure

An interrupted run goes on with the next pressure: what is done is in the folder ``--cache``; remove it for another
model.  Structures of group "test" of examples/data/ice.h5 were never used in training.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from ase import units
from ase.io import read, write
from ase.optimize import BFGS
from ase.vibrations import VibrationsData
from hashes import models_line
from tqdm import tqdm

from ase_mlelec import DeepPotCalculator, DeepWannierCalculator, load_model
from ase_mlelec.data.frames import read_frames
from ase_mlelec.testing import five_point
from ase_mlelec.train.evaluate import errors

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES / "dft"))
import ice as cells

PRESSURES = (20, 40, 60, 80, 100, 110)  # GPa
TEMPERATURE = 300  # K
EQUILIBRATION = 400  # steps
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
            cells.Atoms(data["numbers"][k], data["positions"][k], cell=data["cell"][k], pbc=True),
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


# Pressure -----------------------------------------------------------------------------------------------------------


def pressures(model, picoseconds, cache):
    """Rows of constant-pressure dynamics of 128 molecules, each from the end of the last, at a higher pressure."""
    calc, atoms, rows = DeepPotCalculator(model, on_extrapolation="raise"), None, []
    for pressure in PRESSURES:
        end, done = cache / f"{pressure}GPa.extxyz", cache / f"{pressure}GPa_{picoseconds:g}ps.json"
        if not done.exists():
            if atoms is None:
                atoms = cells.compressed(calc, pressure, np.random.default_rng(0), 4, TEMPERATURE, 1000)
            atoms.calc = calc
            row = dynamics(atoms, pressure, picoseconds)
            write(
                end, cells.Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True, momenta=atoms.get_momenta())
            )
            done.write_text(json.dumps(row))
        atoms = read(end)
        rows.append(json.loads(done.read_text()))
        print(rows[-1], flush=True)
    return rows


def dynamics(atoms, pressure, picoseconds):
    """dict of means over the second half of a run; CalculationFailed where atoms come too close.

    A Berendsen barostat leads to the pressure; then follows dynamics with a conserved energy, whose drift is measured.
    """
    cells.barostat(atoms, pressure, TEMPERATURE).run(EQUILIBRATION)
    run, steps, seen = cells.constant_pressure(atoms, pressure, TEMPERATURE), int(picoseconds * 1000 / cells.STEP), []

    def observe():
        distances = atoms.get_all_distances(mic=True)[np.ix_(atoms.symbols == "H", atoms.symbols == "O")]
        near, far = np.sort(distances, axis=1)[:, :2].mean(axis=0)
        seen.append(
            [
                atoms.get_temperature(),
                cells.pressure_of(atoms.get_stress(voigt=False)),
                atoms.get_volume(),
                near,
                far,
                run.get_conserved_energy(),
                distances.min(),
            ]
        )

    run.attach(observe, interval=40)
    for _ in tqdm(run.irun(steps), total=steps + 1, desc=f"{pressure} GPa", disable=None, unit=" steps"):
        pass
    names = ("temperature", "found", "volume", "near", "far")
    conserved = np.array(seen)[:, 5]
    drift = np.polyfit(np.linspace(0, picoseconds, len(seen)), conserved, 1)[0]
    return {
        "pressure": pressure,
        "picoseconds": picoseconds,
        "molecules": len(atoms) // 3,
        "shortest": np.min(seen, axis=0)[6],
        "drift": 1000 * drift / len(atoms),
        **dict(zip(names, np.mean(seen[len(seen) // 2 :], axis=0))),
    }


def table_of_pressures(rows):
    yield (
        "| GPa asked for | found | K | length, ps | drift, meV/atom/ps | density, g/cm^3 | of experiment | "
        "O-H: nearer | other oxygen | shortest, Å |"
    )
    yield "|" + "---|" * 10
    for row in rows:
        a = np.interp(row["pressure"], cells.PRESSURES, cells.LATTICE_CONSTANTS)
        thermal = 3 * row["molecules"] * units.kB * row["temperature"] / row["volume"] / units.GPa  # of the momenta
        densities = [MOLECULE / volume / GRAM_PER_CM3 for volume in (row["volume"] / row["molecules"], a**3 / 2)]
        yield (
            f"| {row['pressure']} | {row['found'] + thermal:.1f} | {row['temperature']:.0f} | {row['picoseconds']:g} | "
            f"{row['drift']:.3f} | {densities[0]:.3f} | {densities[1]:.3f} | {row['near']:.3f} | {row['far']:.3f} | "
            f"{row['shortest']:.2f} |"
        )


# Vibrations ---------------------------------------------------------------------------------------------------------


def stretch_frequencies(model, pressure):
    """Harmonic wavenumber of the symmetric O-H stretch of 16 molecules, cm^-1, of H2O and of D2O.

    Means over the modes, weighted by how much of the symmetric stretch of the molecules is in each.
    """
    lattice = np.interp(pressure, cells.PRESSURES, cells.LATTICE_CONSTANTS)
    atoms = cells.ice_atoms(lattice, np.random.default_rng(1))
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
    parser.add_argument("--model", default="ice")
    parser.add_argument("--data", type=Path, default=EXAMPLES / "data" / "ice.h5")
    parser.add_argument("--response", type=Path, default=EXAMPLES / "data" / "ice_response.npz")
    parser.add_argument("--time", type=float, default=5.0, help="molecular dynamics at each pressure, ps (%(default)s)")
    parser.add_argument("--cache", type=Path, default=EXAMPLES / "output" / "ice_benchmark")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model, frames = load_model(arguments.model), read_frames(arguments.data)
    calc = DeepWannierCalculator(model)
    unseen = next(frame.atoms for frame in frames if frame.group == "test")
    lines = [
        "# Accuracy of the model `ice`",
        "",
        f"Regenerated by `python benchmarks/ice.py --time {arguments.time:g}`.",
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
    for pressure in PRESSURES[0], PRESSURES[-1]:
        light, heavy = stretch_frequencies(model, pressure)
        lines.append(f"| {pressure} | {light:.0f} | {heavy:.0f} | {light / heavy:.3f} |")
    print("\n".join(lines[-2:]), flush=True)
    lines += [
        "",
        f"## Constant-pressure molecular dynamics of 128 molecules at {TEMPERATURE} K",
        "",
        f"Each run starts from the end of the last, brought to its pressure in {EQUILIBRATION} steps of "
        f"{cells.STEP} fs; Nosé-Hoover chains and an isotropic barostat (Martyna, Tobias and Klein), whose "
        "conserved energy drifts as given; means over the second half. Experiment: equation of state of Hemley et "
        "al. (1987).",
        "",
        *table_of_pressures(pressures(model, arguments.time, arguments.cache)),
    ]
    (arguments.output / "ICE.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
