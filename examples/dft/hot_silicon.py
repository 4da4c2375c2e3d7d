"""Silicon with hot electrons: free energies and densities of states far above the Fermi level, by Quantum ESPRESSO.

    python hot_silicon.py label work --part 0/2            # DFT of structures of silicon.h5; skips what is done
    python hot_silicon.py collect work ../data             # two compressed data sets, one for each temperature

Settings are those of silicon.h5, at 20,000 K, where a coarser k mesh is enough: energies differ by 1.0 meV/atom from those
at 4^3, forces by 0.6 meV/Å (liquid-8-2000K-321); 8 in place of 9 bands per atom change the energy by 0.03 meV/atom.

silicon_20000K.h5 has energies, forces and stress at 20,000 K. silicon_hot.h5 has those of silicon.h5, and densities of
states up to 28 eV: below the last bands of silicon.h5 they are its own, on dense k meshes at 2,000 K, and above, where
only high temperatures count, those of 20,000 K.
"""

import argparse
import shutil
from pathlib import Path

import espresso
import numpy as np
from ase import units
from hot_electrons import weights
from scipy.special import erfc
from silicon import BANDS_PER_ATOM as FORMER_BANDS
from silicon import PULAY_VIRIAL, WIDTH

from ase_mlelec.data.frames import Frame, Frames, read_hdf5, write_hdf5
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.projections import broaden

SOURCE = Path(__file__).parent.parent / "data/silicon.h5"
TEMPERATURE = 20000.0  # K
MESH = (3, 3, 3)
BANDS_PER_ATOM = 9
CUTOFF = 20.0  # Ry
ENERGIES = np.linspace(-8.0, 28.0, 181)  # eV, every second one of silicon.h5
SEAM, LAST_SEAM, SOFTNESS = 1.2, 9.2, 0.3  # eV: below the last bands of silicon.h5, before its last energy, and width
GROUPS = ("train", "validation", "test", "support")
CYCLE = ("train", "train", "validation", "train", "train", "test")  # of whatever is finished, each group has its share


def structures():
    """Frames with 8 atoms that have a density of states, groups and phases mixed."""
    frames = [frame for frame in read_hdf5(SOURCE) if len(frame.atoms) == 8 and "dos" in frame.labels]
    order = np.random.default_rng(0).permutation(len(frames))
    left = {group: [frames[k] for k in order if frames[k].group == group] for group in set(CYCLE)}
    found = []
    while left["train"]:
        found += [left[group].pop(0) for group in CYCLE if left[group]]
    return found


def calculate(atoms, directory, temperature, mesh, bands_per_atom):
    system = dict(
        ecutwfc=CUTOFF,
        occupations="smearing",
        smearing="fermi-dirac",
        nosym=True,
        nbnd=round(bands_per_atom * len(atoms)),
        degauss=units.kB * temperature / units.Ry,
    )
    espresso.pw(atoms, directory, "scf", {"Si": "Si.pz-vbc.UPF"}, mesh, system=system, electrons=dict(conv_thr=1e-8))
    return read_pw(directory / espresso.SAVE)


def label(name, atoms, work, temperature=TEMPERATURE, mesh=MESH, bands_per_atom=BANDS_PER_ATOM):
    """DFT of one structure; the result appears as one file, or not at all."""
    target = work / f"{name}@{temperature:.0f}.npz"
    if target.exists():
        return
    directory = work / target.stem
    result = calculate(atoms, directory, temperature, mesh, bands_per_atom)
    unfinished = directory / "result.npz"
    np.savez_compressed(
        unfinished,
        energy=result.energy,
        forces=result.forces,
        stress=result.stress,
        fermi_level=result.fermi_level,
        eigenvalues=result.eigenvalues,
        kpoint_weights=weights(directory),
        entropy=result.terms["entropy"],
    )
    unfinished.rename(target)
    shutil.rmtree(directory)
    print(f"{target.stem}: {result.energy / len(atoms):.4f} eV/atom", flush=True)


def dos(result, frame):
    """Density of states [S], states/eV: that of a Frame of silicon.h5, and that of ``result`` above."""
    levels = result["eigenvalues"]
    each = np.broadcast_to(result["kpoint_weights"][:, None], levels.shape)
    hot = broaden(levels.ravel(), each.reshape(-1, 1), ENERGIES, WIDTH)[0]
    last = round(FORMER_BANDS * len(frame.atoms)) - 1
    seam = min(levels[:, last].min() - SEAM, LAST_SEAM)
    share = 0.5 * erfc((ENERGIES - seam) / SOFTNESS)
    cold = np.zeros_like(hot)
    former = frame.labels["dos"][::2]
    cold[: len(former)] = former
    return share * cold + (1 - share) * hot


def collect(work, folder):
    """Write all finished labels."""
    cold, hot, complete = [], [], []
    frames = read_hdf5(SOURCE)
    for frame in frames:
        if frame.group not in GROUPS:
            continue
        labels = {key: frame.labels[key] for key in ("energy", "forces", "virial") if key in frame.labels}
        path = work / f"{frame.name}@{TEMPERATURE:.0f}.npz"
        if path.exists():
            result = dict(np.load(path))
            labels["dos"] = dos(result, frame)
            hot.append(Frame(frame.atoms, changed(result, frame.atoms), frame.name, frame.group))
            complete.append(result["eigenvalues"][:, -1].min())
        cold.append(Frame(frame.atoms, labels, frame.name, frame.group))
    attributes = {key: frames.attributes[key] for key in ("dos_width_eV", "energy_reference", "valence_electrons")}
    attributes["bands_complete_below_eV"] = float(min(complete))
    settings = frames.attributes["settings"]
    write_hdf5(folder / "silicon_hot.h5", Frames(cold, ENERGIES, attributes | {"settings": settings}))
    own = {"electronic_temperature_K": TEMPERATURE, "kpoints_energy": "3x3x3", "bands_per_atom": BANDS_PER_ATOM}
    settings = {key: value for key, value in settings.items() if key != "kpoints_dos"} | own
    write_hdf5(folder / "silicon_20000K.h5", Frames(hot, None, {"settings": settings}))
    print(
        f"{len(cold)} structures, {len(hot)} of them at {TEMPERATURE:g} K; bands complete below {min(complete):.2f} eV"
    )


def changed(result, atoms):
    """Labels at the other temperature, with the same part of the virial that pw.x lacks."""
    virial = -result["stress"] * atoms.get_volume() + PULAY_VIRIAL * len(atoms) * np.eye(3)
    return {"energy": float(result["energy"]), "forces": result["forces"], "virial": virial}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("label")
    command.add_argument("work", type=Path)
    command.add_argument("--part", default="0/1", help="i/n: every n-th structure from the i-th on")
    command = commands.add_parser("collect")
    command.add_argument("work", type=Path)
    command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.work, arguments.folder)
        return
    arguments.work.mkdir(exist_ok=True)
    index, parts = (int(x) for x in arguments.part.split("/"))
    for frame in structures()[index::parts]:
        label(frame.name, frame.atoms, arguments.work)


if __name__ == "__main__":
    main()
