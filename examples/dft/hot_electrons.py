"""Free energies, forces and stress at several temperatures of the electrons, by Quantum ESPRESSO, at fixed positions.

    python hot_electrons.py label work                          # DFT; one file per structure and temperature
    python hot_electrons.py collect work hot_electrons.h5       # all that is there in one file

Structures and settings are those of silicon.h5 and aluminium.h5, with enough bands for the highest temperature.  Of the
first temperature of each structure, that of the energies of the data set, the levels are kept as a density of states.
"""

import argparse
import re
import shutil
from pathlib import Path

import espresso
import h5py
import numpy as np
from ase import Atoms, units

from ase_mlelec.atomic_write import replacing
from ase_mlelec.data.frames import Frame, read_hdf5
from ase_mlelec.data.snapshots import Snapshots
from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.projections import broaden

DATA = Path(__file__).parent.parent / "data"
MESHES = {"Si": (3, 3, 3), "Al": (6, 6, 6)}
CUTOFFS = {"Si": 20.0, "Al": 15.0}  # Ry
PSEUDOPOTENTIALS = {"Si": "Si.pz-vbc.UPF", "Al": "Al.pz-vbc.UPF"}
BANDS_PER_ATOM = {"Si": 8, "Al": 6}
WIDTHS = {"Si": 0.04 * units.Ry, "Al": 0.2}  # eV, Gaussian exp(-(x/s)^2), those of the models
ENERGIES = np.arange(-10.0, 34.05, 0.1)  # eV
# (structure, temperatures in K): never in the training of a shipped model
PLAN = [
    ("solid-8-1500K-135", (2000, 20000, 10000, 5000)),
    ("solid-4-933K-054", (933, 20000, 5000)),
    ("liquid-8-2000K-321", (2000, 20000, 5000, 10000)),
    ("liquid-4-933K-102", (933, 20000)),
]


def structures():
    """Atoms of PLAN by name."""
    found = {frame.name: frame.atoms for frame in read_hdf5(DATA / "silicon.h5")}
    found |= {snapshot.name: snapshot.atoms for snapshot in Snapshots(DATA / "aluminium.h5").select("test")}
    return {name: found[name] for name, _ in PLAN}


def calculate(atoms, directory, temperature, mesh=None, bands_per_atom=None):
    symbol = atoms.symbols[0]
    mesh, bands_per_atom = mesh or MESHES[symbol], bands_per_atom or BANDS_PER_ATOM[symbol]
    system = dict(
        ecutwfc=CUTOFFS[symbol],
        occupations="smearing",
        smearing="fermi-dirac",
        nosym=True,
        nbnd=round(bands_per_atom * len(atoms)),
        degauss=units.kB * temperature / units.Ry,
    )
    pseudopotentials = {symbol: PSEUDOPOTENTIALS[symbol]}
    espresso.pw(atoms, directory, "scf", pseudopotentials, mesh, system=system, electrons=dict(conv_thr=1e-8))
    return read_pw(directory / espresso.SAVE)


def weights(directory):
    """Weights [K] of the k points, whose sum is 2."""
    text = (directory / espresso.SAVE / "data-file-schema.xml").read_text()
    found = re.findall(r'<k_point weight="([^"]+)"', text[text.index("<band_structure>") :])
    return np.array([float(weight) for weight in found])


def label(name, atoms, temperature, work, mesh=None, bands_per_atom=None):
    """DFT of one structure at one temperature; the result appears as one file, or not at all."""
    target = work / f"{name}@{temperature}.npz"
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


def finished(path):
    """Frames of a data set, by name; none where there is no such file."""
    return {frame.name: frame for frame in read_hdf5(path)} if path.exists() else {}


def label_missing(structures, data_set, temperature, work, mesh_of, bands_per_atom):
    """``label`` of those of some Frames or Snapshots that a data set lacks; ``mesh_of`` : k mesh of each."""
    done = finished(data_set)
    for each in structures:
        if each.name not in done:
            label(each.name, each.atoms, temperature, work, mesh_of(each), bands_per_atom)


def gathered(structures, data_set, temperature, work, pulay):
    """Labels of Frames or Snapshots in ``work`` and in a data set: (Frames in their order; results of ``work``, by name).

    pulay : eV/atom, the part of the virial that pw.x lacks
    """
    found, results = finished(data_set), {}
    for each in structures:
        path = work / f"{each.name}@{temperature}.npz"
        if path.exists():
            result = results[each.name] = dict(np.load(path))
            virial = -result["stress"] * each.atoms.get_volume() + pulay * len(each.atoms) * np.eye(3)
            labels = {"energy": float(result["energy"]), "forces": result["forces"], "virial": virial}
            found[each.name] = Frame(each.atoms, labels, each.name, each.group)
    return [found[each.name] for each in structures if each.name in found], results


def dos(result, symbol):
    """Density of states [S], states/eV, on ENERGIES."""
    each = np.broadcast_to(result["kpoint_weights"][:, None], result["eigenvalues"].shape)
    return broaden(result["eigenvalues"].ravel(), each.reshape(-1, 1), ENERGIES, WIDTHS[symbol])[0]


def collect(work, target):
    """Write all finished labels."""
    with replacing(target) as path, h5py.File(path, "w") as file:
        file.attrs["program"] = "Quantum ESPRESSO 6.7"
        file["energies"] = ENERGIES
        for name, atoms in structures().items():
            temperatures = [t for t in dict(PLAN)[name] if (work / f"{name}@{t}.npz").exists()]
            if temperatures:
                write(file.create_group(name), name, atoms, temperatures, work)
                print(name, *temperatures)


def write(group, name, atoms, temperatures, work):
    """Labels of one structure: of every temperature energy (eV), forces (eV/Å), stress (eV/Å^3), and one DOS."""
    results = [dict(np.load(work / f"{name}@{temperature}.npz")) for temperature in temperatures]
    group["cell"], group["positions"], group["numbers"] = atoms.cell.array, atoms.positions, atoms.numbers
    group["temperatures"] = np.array(temperatures, dtype=float)
    for key in ("energy", "forces", "stress", "fermi_level", "entropy"):
        group[key] = np.array([result[key] for result in results])
    group["dos"] = dos(results[0], atoms.symbols[0])
    group.attrs["dos_width_eV"] = WIDTHS[atoms.symbols[0]]
    group.attrs["bands_complete_below_eV"] = float(results[0]["eigenvalues"][:, -1].min())
    group.attrs["kpoints"] = MESHES[atoms.symbols[0]]


def read(path):
    """(energies [S]; by name (Atoms, labels as ``write`` wrote them, attributes))."""
    with h5py.File(path) as file:
        found = {
            name: (
                Atoms(group["numbers"][:], group["positions"][:], cell=group["cell"][:], pbc=True),
                {key: group[key][:] for key in group},
                dict(group.attrs),
            )
            for name, group in file.items()
            if name != "energies"
        }
        return file["energies"][:], found


def label_all(work):
    known = structures()
    for name, temperatures in PLAN:
        for temperature in temperatures:
            label(name, known[name], temperature, work)


def run(text, collect, target, **labels):
    """Command line of a script: a subcommand for each of ``labels``, called with the folder of labels, and ``collect``.

    text : help; collect : callable of the folder of labels and a path, whose name in the help is ``target``
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in (*labels, "collect"):
        command = commands.add_parser(name)
        command.add_argument("work", type=Path)
    command.add_argument("target", metavar=target, type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.work, arguments.target)
        return
    arguments.work.mkdir(exist_ok=True)
    labels[arguments.command](arguments.work)


if __name__ == "__main__":
    run(__doc__, collect, "target", label=label_all)
