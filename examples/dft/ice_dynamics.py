"""Molecular dynamics of ice with models: structures for the ice data set, and cells at given pressures."""

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import InputError
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.velocitydistribution import thermalize_momenta
from ice_structures import add, ice_atoms, is_sound, names

from ase_mlelec import DeepPotCalculator
from ase_mlelec.atomic_write import replacing

# ice VII and X at room temperature, Birch-Murnaghan with the constants of Hemley et al., Nature 330, 737 (1987)
PRESSURES = (20, 40, 60, 80, 100, 120)  # GPa
LATTICE_CONSTANTS = (3.03, 2.87, 2.77, 2.70, 2.65, 2.60)  # Å
DISAGREEMENT = (0.10, 0.60)  # eV/Å, deviation of a force: less is known, with more MD goes astray
FRAMES_PER_RUN = 3
STEP = 0.5  # fs, of all molecular dynamics
TEMPERATURES = (240, 270, 300, 330)  # K, of the MD
RUNS_PER_PRESSURE = 2
# mass densities (g/cm^3) and temperatures (K) of the constant-volume MD that --hot samples
HOT_DENSITIES = (2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
HOT_TEMPERATURES = (400, 1000, 2000)
HOT_STEPS = (1500, 3000)  # of half a STEP, whose structures are taken


def sample_by_committee(path, models, first_seed):
    """Constant-pressure MD of several models in turn, and from each run a few frames on which they disagree."""
    committee, done = DeepPotCalculator(models), names(path)
    drivers = [DeepPotCalculator(model) for model in committee.models]
    runs = [(pressure, TEMPERATURES[k % len(TEMPERATURES)]) for pressure in PRESSURES for k in range(RUNS_PER_PRESSURE)]
    for seed, (pressure, temperature) in enumerate(runs, first_seed):
        head = f"md-{pressure}GPa{temperature}K-{seed:03d}"
        if any(name.startswith(head) for name in done):
            continue
        frames, worst = explore(drivers[seed % len(drivers)], committee, pressure, temperature, seed)
        for step, atoms in frames:
            add(path, atoms, f"{head}-{step:05d}")
        print(f"{head}: {len(frames)} frames, largest deviation of a force {worst:.2f} eV/Å", flush=True)


def explore(calc, committee, pressure, temperature, seed, steps=4000, interval=20):
    """Frames [(step, Atoms)] of an MD run with disagreement between the bounds, and the largest one met."""
    rng = np.random.default_rng(seed)
    atoms = ice_atoms(np.interp(pressure, PRESSURES, LATTICE_CONSTANTS), rng, 2, None, 0.03, 0.05)
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    found, worst = [], 0.0
    try:
        for step, _ in enumerate(barostat(atoms, pressure, temperature).irun(steps)):
            if step % interval:
                continue
            committee.get_property("forces", atoms)
            deviation = np.linalg.norm(committee.uncertainty["forces"], axis=1).max()
            worst = max(worst, deviation)
            if deviation > DISAGREEMENT[1] or not is_sound(atoms):
                break
            if deviation > DISAGREEMENT[0]:
                found.append((step, atoms.copy()))
    except InputError:  # an immature model lets atoms run into each other
        pass
    chosen = rng.permutation(len(found))[:FRAMES_PER_RUN]
    return [found[k] for k in sorted(chosen)], worst


def sample_hot(path, model, first_seed):
    """Constant-volume MD of a model at HOT_DENSITIES and HOT_TEMPERATURES.

    Where atoms come too close, the run ends, and the last structure before that is taken.
    """
    calc, done = DeepPotCalculator(model), names(path)
    runs = [(density, temperature) for temperature in HOT_TEMPERATURES for density in HOT_DENSITIES]
    for seed, (density, temperature) in enumerate(runs, first_seed):
        head = f"fluid-{1000 * density:.0f}-{seed:03d}-{temperature}K"
        if any(name.startswith(head) for name in done):
            continue
        rng = np.random.default_rng(seed)
        atoms = ice_atoms(2.0, rng, 2, None, 0.02, 0.02)
        scale = (atoms.get_masses().sum() / atoms.get_volume() * units._amu * 1e27 / density) ** (1 / 3)
        atoms = ice_atoms(2.0 * scale, np.random.default_rng(seed), 2, None, 0.02, 0.02)
        for step, frame in hot_dynamics(atoms, calc, temperature, rng, max(HOT_STEPS)):
            if step in HOT_STEPS:
                add(path, frame, f"{head}-{step:05d}")
        if step < max(HOT_STEPS):
            add(path, frame, f"{head}-{step:05d}")


def hot_dynamics(atoms, calc, temperature, rng, steps):
    """Constant-volume dynamics at that temperature (K): (step, Atoms) every ten steps, until atoms come too close."""
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    run = Langevin(atoms, STEP / 2 * units.fs, temperature_K=temperature, friction=0.05 / units.fs, rng=rng)
    for step, _ in enumerate(run.irun(steps)):
        if step % 10:
            continue
        if not is_sound(atoms, closest=(0.9, 0.7, 1.6)):
            return
        yield step, wrapped(atoms)


def small_fluid(a, seed, model="ice"):
    """Two hot molecules, or what is left of them, in a cube of length ``a`` (Å); 2,000 K would part those of long ones."""
    rng = np.random.default_rng(seed)
    atoms = ice_atoms(a, rng, 1, None, 0.02, 0.02)
    calc = DeepPotCalculator(model, on_extrapolation="ignore")
    *_, (_, last) = hot_dynamics(atoms, calc, 2000 if a < 2.8 else 1000, rng, HOT_STEPS[0])
    return last


def wrapped(atoms):
    """A copy with all atoms in the cell."""
    atoms = atoms.copy()
    atoms.wrap()
    return atoms


def chain(calc, pressures, folder, repeat=4, temperature=300):
    """Iterator over (name, Atoms) at pressures in GPa, each from the one before; kept in the folder, one file for each.

    The first begins as ice VII.  Where the pressure falls, names have "_down".
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = None
    for pressure in pressures:
        name = f"{pressure}GPa" + ("_down" if last and pressure < last[0] else "")
        file = folder / f"{name}.extxyz"
        if not file.exists():
            if last is None:
                rng = np.random.default_rng(pressure)
                last = pressure, compressed(calc, pressure, rng, repeat, temperature, steps=1000)
            atoms = last[1].copy()
            scale = np.interp(pressure, PRESSURES, LATTICE_CONSTANTS) / np.interp(last[0], PRESSURES, LATTICE_CONSTANTS)
            atoms.set_cell(atoms.cell * scale, scale_atoms=True)
            atoms.calc = calc
            equilibrate(atoms, pressure, temperature)
            with replacing(file) as partial:
                write(partial, bare(atoms), format="extxyz")
        last = pressure, read(file)
        last[1].calc = calc
        yield name, last[1]


def compressed(calc, pressure, rng, repeat, temperature, steps):
    """Atoms of ice at a pressure in GPa and a temperature in K, after that many steps at constant pressure."""
    atoms = ice_atoms(np.interp(pressure, PRESSURES, LATTICE_CONSTANTS), rng, repeat)
    atoms.calc = calc
    thermalize_momenta(atoms, temperature_K=1.5 * temperature, rng=rng)  # part of it goes into the potential
    barostat(atoms, pressure, temperature).run(steps)
    return atoms


def equilibrate(atoms, pressure, temperature, steps=(200, 500), kept=300):
    """Bring atoms to a pressure in GPa, and their cell to its mean over the last steps; both dynamics in turn."""
    barostat(atoms, pressure, temperature).run(steps[0])
    run, volumes = constant_pressure(atoms, pressure, temperature), []
    run.attach(lambda: volumes.append(atoms.get_volume()))
    run.run(steps[1])
    atoms.set_cell(atoms.cell * (np.mean(volumes[-kept:]) / atoms.get_volume()) ** (1 / 3), scale_atoms=True)


def barostat(atoms, pressure, temperature):
    """Dynamics of 0.5 fs per step that reach a pressure in GPa and temperature in K; the cell keeps its shape."""
    return NPTBerendsen(
        atoms,
        STEP * units.fs,
        temperature_K=temperature,
        pressure_au=pressure * units.GPa,
        taut=50 * units.fs,
        taup=200 * units.fs,
        compressibility_au=0.005 / units.GPa,
    )


def constant_pressure(atoms, pressure, temperature):
    """Dynamics of 0.5 fs per step with a conserved energy, of atoms that are near the pressure (GPa) already.

    Forces are evaluated once per step, by ``barostat`` twice.
    """
    step = STEP * units.fs
    return IsotropicMTKNPT(atoms, step, temperature, pressure * units.GPa, 100 * step, 400 * step)


def bare(atoms):
    """Atoms with momenta and masses, and nothing else that a file of them would have."""
    masses, momenta = atoms.get_masses(), atoms.get_momenta()
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True, masses=masses, momenta=momenta)


def pressure_of(stress):
    return -np.trace(stress) / 3 / units.GPa
