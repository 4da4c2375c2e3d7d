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
from hot_electrons import label, run

from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
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


def finished(folder, temperature):
    """Frames of the data set of a temperature, by name."""
    path = folder / f"aluminium_{temperature}K.h5"
    return {frame.name: frame for frame in read_hdf5(path)} if path.exists() else {}


def label_some(work, snapshots, temperature, mesh, bands):
    """Free energies of ``snapshots``, but of those that the data set has."""
    done = finished(SOURCE.parent, temperature)
    for each in snapshots:
        if each.name not in done:
            label(each.name, each.atoms, temperature, work, mesh, bands)


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
    stored, complete = Snapshots(SOURCE), [np.inf]
    pulay = stored.attributes["settings"]["pulay_virial_added_eV_per_atom"]
    for temperature, (mesh, bands) in {TEMPERATURE: (MESH, BANDS_PER_ATOM), **FURTHER}.items():
        found = finished(folder, temperature)
        for each in chosen():
            path = work / f"{each.name}@{temperature}.npz"
            if path.exists():
                result = dict(np.load(path))
                found[each.name] = labeled(each, result, pulay, temperature)
                complete.append(result["eigenvalues"][:, -1].min())
        settings = {"electronic_temperature_K": temperature, "kpoints": f"{mesh[0]}^3", "bands_per_atom": bands}
        attributes = {"settings": stored.attributes["settings"] | {"smearing": "Fermi-Dirac"} | settings}
        if temperature == TEMPERATURE:
            attributes |= of_spectra(stored, folder, min(complete))
        ordered = [found[each.name] for each in chosen() if each.name in found]
        if ordered:
            grid = ENERGIES if temperature == TEMPERATURE else None
            write_hdf5(folder / f"aluminium_{temperature}K.h5", Frames(ordered, grid, attributes))
        print(f"{len(ordered)} structures at {temperature} K")


def labeled(snapshot, result, pulay, temperature):
    """Frame of a Snapshot with the labels of a run."""
    virial = -result["stress"] * snapshot.atoms.get_volume() + pulay * len(snapshot.atoms) * np.eye(3)
    labels = {"energy": float(result["energy"]), "forces": result["forces"], "virial": virial}
    if temperature == TEMPERATURE:
        labels["dos"] = dos(result)
    return Frame(snapshot.atoms, labels, snapshot.name, snapshot.group)


def of_spectra(stored, folder, complete):
    """Attributes of the data set with densities of states; ``complete``: energy below which new ones have all bands, eV."""
    path = folder / f"aluminium_{TEMPERATURE}K.h5"
    if path.exists():
        complete = min(complete, read_hdf5(path).attributes["bands_complete_below_eV"])
    print(f"bands complete below {complete:.2f} eV")
    attributes = {key: stored.attributes[key] for key in ("energy_reference", "valence_electrons")}
    return attributes | {"dos_width_eV": WIDTH, "bands_complete_below_eV": float(complete)}


if __name__ == "__main__":
    run(__doc__, collect, "folder", label=label_all, further=label_further)
