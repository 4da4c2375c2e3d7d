"""Aluminium with hot electrons: free energies and densities of states far above the Fermi level, by Quantum ESPRESSO.

    python hot_aluminium.py label work                     # DFT of structures of aluminium.h5; skips what is done
    python hot_aluminium.py further work                   # some of them at further temperatures
    python hot_aluminium.py collect work ../data           # data sets, one for each temperature; adds to those there

aluminium_20000K.h5 has free energies, forces and stress at 20,000 K of snapshots of aluminium.h5 with 4 atoms, and densities
of states up to 30 eV of the same runs: cold ones below and hot ones above would not do, as all levels shift with the
temperature, and states would be lost or counted twice between them.
Files of further temperatures have a part of these snapshots; what they have is not calculated again.  At 20,000 K energies
at 4^3 k points differ by 0.9 meV/atom from those at 6^3, forces by 0.6 meV/Å (liquid-4-933K-102); at 933 K those at 6^3 are
16 meV/atom below those at 8^3, so that cold free energies are no reference for hot ones: the temperature of the energies is
20,000 K.
"""

from pathlib import Path

import numpy as np
from hot_electrons import gathered, label_missing, run

from ase_mlelec.data.frames import Frames, read_hdf5, write_hdf5
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.io.projections import broaden

SOURCE = Path(__file__).parent.parent / "data/aluminium.h5"
COLD, TEMPERATURE = 933, 20000  # K, of the snapshots and of the labels
MESH, BANDS_PER_ATOM = (4, 4, 4), 8
HELD = 5  # structures for validation, and as many for tests
FURTHER = {10000: ((6, 6, 6), 6), 25000: ((4, 4, 4), 9), 5000: ((8, 8, 8), 4)}  # K, k mesh and bands per atom
N_FURTHER = 21  # snapshots at each of these
N_ATOMS = 4
ENERGIES = np.linspace(-6.0, 30.0, 181)  # eV
WIDTH = 0.4  # eV


def snapshots():
    """Snapshots at 933 K with few atoms, groups and phases mixed."""
    stored = Snapshots(SOURCE)
    found = [stored[k] for k in np.random.default_rng(0).permutation(len(stored))]
    return [each for each in found if each.temperature == COLD and len(each.atoms) == N_ATOMS]


def chosen():
    """Snapshots with 4 atoms, of which HELD are for validation and for tests; whatever is finished has some of each."""
    found = {group: [each for each in snapshots() if each.group == group] for group in ("train", "validation", "test")}
    held = [each for pair in zip(found["validation"][:HELD], found["test"][:HELD]) for each in pair]
    mixed = []
    while found["train"]:
        mixed += [*found["train"][:2], *held[:1]]
        found["train"], held = found["train"][2:], held[1:]
    return mixed


def data_set(folder, temperature):
    return folder / f"aluminium_{temperature}K.h5"


def label_some(work, snapshots, temperature, mesh, bands):
    """Free energies of ``snapshots``, but of those that the data set has."""
    label_missing(snapshots, data_set(SOURCE.parent, temperature), temperature, work, lambda each: mesh, bands)


def label_all(work):
    label_some(work, chosen(), TEMPERATURE, MESH, BANDS_PER_ATOM)


def label_further(work):
    for temperature, (mesh, bands) in FURTHER.items():
        label_some(work, chosen()[:N_FURTHER], temperature, mesh, bands)


def dos(result):
    """Density of states [S], states/eV."""
    levels = result["eigenvalues"]
    each = np.broadcast_to(result["kpoint_weights"][:, None], levels.shape)
    return broaden(levels.ravel(), each.reshape(-1, 1), ENERGIES, WIDTH)[0]


def collect(work, folder):
    """Write all finished labels, and those that the data sets of ``folder`` have."""
    stored, snapshots = Snapshots(SOURCE), chosen()
    former = stored.attributes["settings"]
    for temperature, (mesh, bands) in {TEMPERATURE: (MESH, BANDS_PER_ATOM), **FURTHER}.items():
        target = data_set(folder, temperature)
        frames, results = gathered(snapshots, target, temperature, work, former["pulay_virial_added_eV_per_atom"])
        settings = {"electronic_temperature_K": temperature, "kpoints": f"{mesh[0]}^3", "bands_per_atom": bands}
        attributes = {"settings": former | {"smearing": "Fermi-Dirac"} | settings}
        if temperature == TEMPERATURE:
            attributes |= add_spectra(frames, results, stored, target)
        if frames:
            write_hdf5(target, Frames(frames, ENERGIES if temperature == TEMPERATURE else None, attributes))
        print(f"{len(frames)} structures at {temperature} K")


def add_spectra(frames, results, stored, target):
    """Add densities of states of results to ``frames``; attributes of the data set, which say where bands are complete."""
    complete = [result["eigenvalues"][:, -1].min() for result in results.values()]
    for frame in frames:
        if frame.name in results:
            frame.labels["dos"] = dos(results[frame.name])
    if target.exists():
        complete.append(read_hdf5(target).attributes["bands_complete_below_eV"])
    attributes = {key: stored.attributes[key] for key in ("energy_reference", "valence_electrons")}
    attributes |= {"dos_width_eV": WIDTH, "bands_complete_below_eV": float(min(complete, default=np.inf))}
    print(f"bands complete below {attributes['bands_complete_below_eV']:.2f} eV")
    return attributes


if __name__ == "__main__":
    run(__doc__, collect, "folder", label=label_all, further=label_further)
