"""Data set of liquid water for the model `water`, from the example data of deepmd-kit, which are not in this repository.

    git clone https://github.com/deepmodeling/deepmd-kit        # LGPL-3.0
    python examples/dft/water.py deepmd-kit/examples/water/data deepmd-kit/examples/water_tensor/dipole/training_data

writes output/water.h5.  The first folder has energies and forces of 64 molecules (data_0 to data_2, the last one for
tests), the second one the vectors of centroids (atomic_system, the last fifth for tests) and their sums (global_system,
all for tests).  The files of dipoles say `nopbc`, but molecules cross the box, and with the box errors are smaller.

``--start MODEL`` writes data/water.extxyz instead, from which other runs start: the end of 1 ps of molecular dynamics with
a model, which begin at a structure of the data.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import thermalize_momenta

from ase_mlelec import DeepPotCalculator
from ase_mlelec.data.frames import Frames, join, read_frames, write_hdf5

EXAMPLES = Path(__file__).parent.parent
FUNCTIONS = 4  # Wannier functions of an oxygen, whose displacements from it are added up in the data
SETTINGS = {
    "energies": "64 molecules, PBE0 with Tkatchenko-Scheffler dispersion, path-integral molecular dynamics at 330 K",
    "centroids": "64 molecules, means of four Wannier functions; level of theory not given",
    "source": "example data of deepmd-kit, LGPL-3.0",
}
TEMPERATURE = 330  # K, of the data
CHARGES = {"valence_charges": {"O": 6.0, "H": 1.0}, "electrons_per_centre": {"O": 8.0}}


def vectors(folder, periodic=True):
    """Frames of a folder of centroids, or of their sums over the cell, as displacements of means of four functions."""
    boxes = np.concatenate([np.load(path) for path in sorted(folder.glob("set.*/box.npy"))]).reshape(-1, 3, 3)
    frames = []
    for frame, box in zip(read_frames(folder), boxes, strict=True):
        labels = {key: value / FUNCTIONS for key, value in frame.labels.items()}
        atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=box if periodic else None, pbc=periodic)
        frames.append(replace(frame, atoms=atoms, labels=labels, kind=folder.name))
    return frames


def water(energies, dipoles):
    """Frames of both folders, each with its group and its kind, the name of its folder."""
    frames = []
    for name in "data_0", "data_1", "data_2":
        group = "test" if name == "data_2" else "train"
        frames += [replace(frame, group=group, kind=name) for frame in read_frames(energies / name)]
    known = vectors(dipoles / "atomic_system")
    n_train = len(known) * 4 // 5
    frames += [replace(frame, group="train" if k < n_train else "test") for k, frame in enumerate(known)]
    frames += [replace(frame, group="test") for frame in vectors(dipoles / "global_system")]
    return join([Frames(frames, None, CHARGES | {"settings": SETTINGS})])


def start(energies, model):
    """Atoms and momenta after molecular dynamics with a model; molecules in one piece, and no labels."""
    atoms = read_frames(energies / "data_0")[0].atoms
    atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    atoms.calc, rng = DeepPotCalculator(model), np.random.default_rng(0)
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    Bussi(atoms, 0.5 * units.fs, TEMPERATURE, 50 * units.fs, rng=rng).run(2000)
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True, momenta=atoms.get_momenta())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("energies", type=Path, help="folder with data_0, data_1 and data_2")
    parser.add_argument("dipoles", type=Path, help="folder with atomic_system and global_system")
    parser.add_argument("--output", type=Path, default=EXAMPLES / "output" / "water.h5")
    parser.add_argument("--start", metavar="MODEL", help="write a structure for molecular dynamics instead")
    arguments = parser.parse_args()
    if arguments.start:
        write(EXAMPLES / "data" / "water.extxyz", start(arguments.energies, arguments.start))
        return
    arguments.output.parent.mkdir(exist_ok=True)
    write_hdf5(arguments.output, water(arguments.energies, arguments.dipoles))
    print(f"{arguments.output}: written")


if __name__ == "__main__":
    main()
