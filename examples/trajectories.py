"""Molecular dynamics whose every finished picosecond is kept, which the examples of infrared spectra share."""

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from tqdm import tqdm

from ase_mlelec.atomic_write import replacing

EVERY, FRAME = 4, 40  # steps between dipoles, and between stored positions


def trajectory(atoms, path, picoseconds, step, temperature, seed=2, observe=None, often=None):
    """Run until ``picoseconds`` are kept in files that begin with ``path``; dict of arrays of all that is kept.

    A run begins with the atoms as they are; one that is kept goes on from its end, and is used whole where it is longer.

    atoms : Atoms with a calculator and momenta; their cell stays
    path : Path; files PATH_0000.npz, PATH_0001.npz, ... of one picosecond each
    step : float, fs; temperature : float, K, of a weak thermostat
    observe, often : dict of function(atoms), more that is kept every FRAME and every EVERY steps, by name

    Returns dipoles [n, 3] e Å every EVERY steps, positions [m, N, 3] Å every FRAME steps (atoms are never wrapped),
    temperature [m] K, conserved energy [m] eV, and what ``observe`` and ``often`` give.  Files have momenta at their end as
    well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    observe = {"temperature": lambda atoms: atoms.get_temperature()} | (observe or {})
    often = {"dipoles": lambda atoms: atoms.get_dipole_moment()} | (often or {})
    known = [dict(np.load(file)) for file in sorted(path.parent.glob(f"{path.name}_[0-9]*.npz"))]
    if known:
        atoms.positions, energy = known[-1]["end"], float(known[-1]["conserved"][-1])
        atoms.set_momenta(known[-1]["momenta"])
    else:
        energy = atoms.get_total_energy()
    for number in tqdm(range(len(known), picoseconds), desc=path.name, unit=" ps", disable=None):
        rng = np.random.default_rng([seed, number])
        part = one_picosecond(atoms, step, temperature, energy, rng, observe, often)
        energy = part["conserved"][-1]
        with replacing(path.parent / f"{path.name}_{number:04d}.npz") as partial, open(partial, "wb") as file:
            np.savez(file, **part)
        known.append(part)
    series = *often, "positions", "conserved", *observe
    return {name: np.concatenate([part[name] for part in known]) for name in series}


def one_picosecond(atoms, step, temperature, energy, rng, observe, often):
    """A part of a trajectory of weakly thermostatted dynamics; ``energy`` is the conserved one at its beginning."""
    dyn = Bussi(atoms, step * units.fs, temperature, 2000 * units.fs, rng=rng)
    offset = energy - atoms.get_total_energy()
    found = {name: [] for name in ("positions", "conserved", *observe, *often)}
    for _ in range(round(1000 / step / FRAME)):
        for _ in range(FRAME // EVERY):
            dyn.run(EVERY)
            for name, function in often.items():
                found[name].append(function(atoms))
        found["positions"].append(atoms.positions.astype(np.float32))
        found["conserved"].append(atoms.get_total_energy() - dyn.transferred_energy + offset)
        for name, function in observe.items():
            found[name].append(function(atoms))
    found = {name: np.array(values) for name, values in found.items()}
    return found | {"end": atoms.positions.copy(), "momenta": atoms.get_momenta()}


def strongest(wavenumbers, alpha_n, band):
    """Wavenumber of the largest absorption in a band."""
    low, high = band
    return wavenumbers[np.argmax(np.where((wavenumbers > low) & (wavenumbers < high), alpha_n, -np.inf))]
