"""Silicon with hot electrons: free energies and densities of states far above the Fermi level, by Quantum ESPRESSO.

    python hot_silicon.py label work --part 0/2            # DFT of structures of silicon.h5; skips what is done
    python hot_silicon.py label work --temperature 10000   # the same at another temperature
    python hot_silicon.py tests work                       # some tests at further temperatures
    python hot_silicon.py collect work ../data             # data sets, one for each temperature; adds to those there

Settings are those of silicon.h5, at 20,000 K, where a coarser k mesh is enough: energies differ by 1.0 meV/atom from those
at 4^3, forces by 0.6 meV/Å (liquid-8-2000K-321); 8 in place of 9 bands per atom change the energy by 0.03 meV/atom.

What the data sets have is not calculated again.  silicon_20000K.h5 has energies, forces and stress at 20,000 K, and files
of further temperatures those of a part of the structures.  silicon_hot.h5 has those of silicon.h5, and densities of states
up to 28 eV: below the last bands of silicon.h5 they are its own, on dense k meshes at 2,000 K, and above, where only high
temperatures count, those of 20,000 K.  Levels shift with the temperature, so that a few states are lost or counted twice in
between; what a model learns at 20,000 K makes up for it.
"""

import argparse
from pathlib import Path

import numpy as np
from hot_electrons import gathered, label_missing
from scipy.special import erfc
from silicon_labels import BANDS_PER_ATOM as FORMER_BANDS
from silicon_labels import ELECTRONIC_TEMPERATURE, PULAY_VIRIAL, WIDTH

from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.projections import broaden
from ase_mlelec.physics.fermi import fermi_level

SOURCE = Path(__file__).parent.parent / "data/silicon.h5"
TEMPERATURE = 20000  # K
ENERGIES = np.linspace(-8.0, 28.0, 181)  # eV, every second one of silicon.h5
SEAM, LAST_SEAM, SOFTNESS = 1.2, 9.2, 0.3  # eV: below the last bands of silicon.h5, before its last energy, and width
ABOVE = 0.7  # eV: least distance of the seam from the Fermi level; denser liquids get no density of states
GROUPS = ("train", "validation", "test", "support")
CYCLE = ("train", "train", "validation", "train", "train", "test")  # of whatever is finished, each group has its share
HELD = 8  # structures for validation, and as many for tests
TESTED = ("solid-8-900K-117", "solid-8-2100K-609", "liquid-8-3000K-363")  # tests at further temperatures
# K: bands per atom, and the k meshes of crystals and liquids; at 1,000 K there are tests alone
TEMPERATURES = {TEMPERATURE: (9, 3, 3), 25000: (9, 3, 3), 10000: (5.5, 4, 5), 5000: (4, 4, 6), 1000: (4, 4, 6)}


def structures():
    """Frames with 8 atoms that have a density of states, groups and phases mixed; then close pairs and compressed ones."""
    source = [frame for frame in read_hdf5(SOURCE) if len(frame.atoms) == 8]
    frames = [frame for frame in source if "dos" in frame.labels]
    order = np.random.default_rng(0).permutation(len(frames))
    left = {group: [frames[k] for k in order if frames[k].group == group] for group in set(CYCLE)}
    left |= {group: left[group][:HELD] for group in ("validation", "test")}
    by_volume = sorted(left["train"], key=lambda frame: frame.atoms.get_volume())
    # bits in reverse order: however many are finished, their volumes are spread as those of all
    left["train"] = [by_volume[k] for k in sorted(range(len(by_volume)), key=lambda k: f"{k:08b}"[::-1])]
    found = []
    while left["train"]:
        found += [left[group].pop(0) for group in CYCLE if left[group]]
    return found + [frame for frame in source if frame.group == "support"]


def data_set(folder, temperature):
    return folder / f"silicon_{temperature}K.h5"


def label_frames(frames, temperature, work):
    """Free energies of ``frames`` at ``temperature``, but of those that the data set has."""
    bands, *meshes = TEMPERATURES[temperature]

    def mesh_of(frame):
        return (meshes[frame.name.startswith("liquid")],) * 3

    label_missing(frames, data_set(SOURCE.parent, temperature), temperature, work, mesh_of, bands)


def dos(result, frame):
    """Density of states [S], states/eV: that of a Frame of silicon.h5, and that of ``result`` above; or None."""
    levels = result["eigenvalues"]
    each = np.broadcast_to(result["kpoint_weights"][:, None], levels.shape)
    hot = broaden(levels.ravel(), each.reshape(-1, 1), ENERGIES, WIDTH)[0]
    last = round(FORMER_BANDS * len(frame.atoms)) - 1
    seam = min(levels[:, last].min() - SEAM, LAST_SEAM)
    share = 0.5 * erfc((ENERGIES - seam) / SOFTNESS)
    cold = np.zeros_like(hot)
    former = frame.labels["dos"][::2]
    cold[: len(former)] = former
    found = share * cold + (1 - share) * hot
    level = fermi_level(ENERGIES, found, 4 * len(frame.atoms), ELECTRONIC_TEMPERATURE)
    return found if seam > level + ABOVE else None


def collect(work, folder):
    """Write all finished labels, and those that the data sets of ``folder`` have."""
    frames = read_hdf5(SOURCE)
    cold, spectra, complete = [], {}, []
    if (folder / "silicon_hot.h5").exists():
        former = read_hdf5(folder / "silicon_hot.h5")
        spectra = {frame.name: frame.labels["dos"] for frame in former if "dos" in frame.labels}
        complete = [former.attributes["bands_complete_below_eV"]]
    for frame in frames:
        if frame.group not in GROUPS:
            continue
        labels = {key: frame.labels[key] for key in ("energy", "forces", "virial") if key in frame.labels}
        path = work / f"{frame.name}@{TEMPERATURE}.npz"
        if path.exists() and frame.group in CYCLE:
            result = dict(np.load(path))
            spectra[frame.name] = dos(result, frame)
            complete.append(float(result["eigenvalues"][:, -1].min()))
        spectrum = spectra.get(frame.name)
        cold.append(
            Frame(frame.atoms, labels | ({} if spectrum is None else {"dos": spectrum}), frame.name, frame.group)
        )
    attributes = {key: frames.attributes[key] for key in ("dos_width_eV", "energy_reference", "valence_electrons")}
    attributes["bands_complete_below_eV"] = min(complete)
    settings = frames.attributes["settings"]
    write_hdf5(folder / "silicon_hot.h5", Frames(cold, ENERGIES, attributes | {"settings": settings}))
    for temperature in TEMPERATURES:
        write_hot(work, folder, temperature, frames)
    print(f"{len(cold)} structures; bands complete below {min(complete):.2f} eV")


def write_hot(work, folder, temperature, frames):
    """Write energies, forces and virials at one temperature, in the order of ``frames``, those of silicon.h5."""
    target = data_set(folder, temperature)
    found, _ = gathered(frames, target, temperature, work, PULAY_VIRIAL)
    bands, crystal, liquid = TEMPERATURES[temperature]
    mesh = f"{crystal}^3 for crystals, {liquid}^3 for liquids"
    own = {"electronic_temperature_K": temperature, "kpoints_energy": mesh, "bands_per_atom": bands}
    settings = {key: value for key, value in frames.attributes["settings"].items() if key != "kpoints_dos"} | own
    write_hdf5(target, Frames(found, None, {"settings": settings}))
    print(f"{len(found)} structures at {temperature} K")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("label")
    command.add_argument("work", type=Path)
    command.add_argument("--part", default="0/1", help="i/n: every n-th structure from the i-th on")
    command.add_argument("--temperature", type=int, choices=TEMPERATURES, default=TEMPERATURE, help="K")
    command.add_argument("--groups", nargs="+", default=GROUPS, help="those of silicon.h5 (default: all)")
    command = commands.add_parser("tests")
    command.add_argument("work", type=Path)
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.work, arguments.folder)
        return
    arguments.work.mkdir(exist_ok=True)
    if arguments.command == "tests":
        tests = [frame for frame in structures() if frame.name in TESTED]
        for temperature in TEMPERATURES:
            label_frames(tests, temperature, arguments.work)
        return
    index, parts = (int(x) for x in arguments.part.split("/"))
    chosen = [frame for frame in structures() if frame.group in arguments.groups]
    label_frames(chosen[index::parts], arguments.temperature, arguments.work)


if __name__ == "__main__":
    main()
