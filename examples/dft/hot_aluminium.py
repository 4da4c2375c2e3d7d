"""Aluminium with hot electrons, as silicon in hot_silicon.py.

    python hot_aluminium.py label work                     # DFT of structures of aluminium.h5; skips what is done
    python hot_aluminium.py collect work ../data           # compressed data sets, one for each temperature

aluminium_933K.h5 has the free energies, forces and stress of the snapshots of aluminium.h5 at 933 K with 4 to 16 atoms,
and densities of states up to 30 eV: below 10 eV those of the snapshots, with wider levels, and above those of 20,000 K.
aluminium_20000K.h5 has energies, forces and stress at 20,000 K of the snapshots with 4 atoms.
"""

import argparse
from pathlib import Path

import numpy as np
from hot_electrons import label
from scipy.special import erfc

from ase_mlelec.data.frames import Frame, Frames, write_hdf5
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.io.projections import broaden

SOURCE = Path(__file__).parent.parent / "data/aluminium.h5"
COLD, TEMPERATURE = 933, 20000  # K
MESH, BANDS_PER_ATOM = (4, 4, 4), 8
TESTS = {5000: ((6, 6, 6), 4), 10000: ((6, 6, 6), 6), 25000: ((4, 4, 4), 9)}  # K, k mesh and bands per atom
TESTED = 4
LARGEST = 16  # atoms
ENERGIES = np.linspace(-6.0, 30.0, 181)  # eV
FORMER_WIDTH, WIDTH = 0.2, 0.4  # eV
SEAM, SOFTNESS = 10.0, 0.3  # eV


def snapshots(n_atoms=LARGEST):
    """Snapshots at 933 K with at most so many atoms, groups and phases mixed."""
    stored = Snapshots(SOURCE)
    found = [stored[k] for k in np.random.default_rng(0).permutation(len(stored))]
    return [each for each in found if each.temperature == COLD and len(each.atoms) <= n_atoms]


def tests():
    """Two crystals and two liquids that are tests."""
    found = [each for each in snapshots(4) if each.group == "test"]
    liquid = [each.name.startswith("liquid") for each in found]
    return [
        each for phase in (True, False) for each in [e for e, own in zip(found, liquid) if own == phase][: TESTED // 2]
    ]


def label_all(work):
    for each in snapshots(4):
        label(each.name, each.atoms, TEMPERATURE, work, MESH, BANDS_PER_ATOM)
    for temperature, (mesh, bands) in TESTS.items():
        for each in tests():
            label(each.name, each.atoms, temperature, work, mesh, bands)


def widened(energies, dos):
    """Density of states on ENERGIES with levels of WIDTH, from one with levels of FORMER_WIDTH on a fine grid."""
    width = np.sqrt(WIDTH**2 - FORMER_WIDTH**2)
    kernel = np.exp(-(((ENERGIES[:, None] - energies) / width) ** 2)) / (width * np.sqrt(np.pi))
    return kernel @ dos * (energies[1] - energies[0])


def joined(result, energies, former):
    """Density of states [S], states/eV: ``former`` on ``energies`` below the seam, and that of ``result`` above."""
    levels = result["eigenvalues"]
    each = np.broadcast_to(result["kpoint_weights"][:, None], levels.shape)
    hot = broaden(levels.ravel(), each.reshape(-1, 1), ENERGIES, WIDTH)[0]
    share = 0.5 * erfc((ENERGIES - SEAM) / SOFTNESS)
    return share * widened(energies, former) + (1 - share) * hot


def collect(work, folder):
    """Write all finished labels."""
    stored, cold, complete = Snapshots(SOURCE), [], []
    hot: dict = {temperature: [] for temperature in (TEMPERATURE, *TESTS)}
    pulay = stored.attributes["settings"]["pulay_virial_added_eV_per_atom"]
    for each in snapshots():
        volume = each.atoms.get_volume()
        labels = {"energy": float(each.energy), "forces": each.forces, "virial": -each.stress * volume}
        for temperature, frames in hot.items():
            path = work / f"{each.name}@{temperature}.npz"
            if not path.exists():
                continue
            result = dict(np.load(path))
            virial = -result["stress"] * volume + pulay * len(each.atoms) * np.eye(3)
            own = {"energy": float(result["energy"]), "forces": result["forces"], "virial": virial}
            frames.append(Frame(each.atoms, own, each.name, each.group))
            if temperature == TEMPERATURE:
                labels["dos"] = joined(result, stored.energies, each.dos)
                complete.append(result["eigenvalues"][:, -1].min())
        cold.append(Frame(each.atoms, labels, each.name, each.group))
    attributes = {key: stored.attributes[key] for key in ("energy_reference", "valence_electrons")}
    settings = stored.attributes["settings"]
    of_cold = attributes | {"settings": settings | {"electronic_temperature_K": COLD}, "dos_width_eV": WIDTH}
    of_cold["bands_complete_below_eV"] = float(min(complete))
    write_hdf5(folder / "aluminium_933K.h5", Frames(cold, ENERGIES, of_cold))
    meshes = {TEMPERATURE: (MESH, BANDS_PER_ATOM), **TESTS}
    for temperature, frames in hot.items():
        mesh, bands = meshes[temperature]
        own = {"electronic_temperature_K": temperature, "kpoints": f"{mesh[0]}^3 per 4 atoms", "bands_per_atom": bands}
        if frames:
            write_hdf5(folder / f"aluminium_{temperature}K.h5", Frames(frames, None, {"settings": settings | own}))
        print(f"{len(frames)} structures at {temperature} K")
    print(f"{len(cold)} structures at {COLD} K; bands complete below {min(complete):.2f} eV")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("label")
    command.add_argument("work", type=Path)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.work, arguments.folder)
        return
    arguments.work.mkdir(exist_ok=True)
    label_all(arguments.work)


if __name__ == "__main__":
    main()
