"""Phonons of silicon and of magnesium oxide under pressure: shipped models against ph.x.

Settings of DFT: LDA, pseudopotentials as in the training data; Si 24 Ry and 6x6x6 shifted k-points, MgO 35 and 200 Ry and
4x4x4 shifted k-points, fixed occupations. Response at Γ, X and L; Γ with the acoustic sum rule and, for MgO, along x with
Born charges and dielectric tensor. The labels of `si` have electrons at 2000 K: silicon is calculated so as well. The
models: finite displacements in 4x4x4 cells, in which X and L are exact; MgO takes Born charges and dielectric tensor of
ph.x.

    python benchmarks/phonons.py FOLDER [--pseudo /usr/share/espresso/pseudo] [--out benchmarks/PHONONS.md]

FOLDER keeps what is done; the same command goes on after an interruption. About two minutes on one core.
"""

import argparse
import os
import re
import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.units import Ry, kB
from hashes import models_line

from ase_mlelec import DeepPotCalculator
from ase_mlelec.analysis.phonons import THZ, Phonons, read_response

HERE = Path(__file__).parent
VOLUME = 39.2  # Å^3, conventional cell of MgO: about 240 GPa
FIXED, WARM = "occupations='fixed'", "occupations='smearing', smearing='fermi-dirac', degauss={:.8f}"
SILICON = "si", bulk("Si", a=5.405), {"Si": "Si.pz-vbc.UPF"}, (24, 96), 6
CRYSTALS = {  # model, structure, pseudopotentials, cutoffs in Ry, k-points, occupations, whether polar
    "`si`": (*SILICON, FIXED, False),
    "`si`, DFT with electrons at 2000 K": (*SILICON, WARM.format(2000 * kB / Ry), False),
    "`mgo`": (
        "mgo",
        bulk("MgO", "rocksalt", a=VOLUME ** (1 / 3)),
        {"Mg": "Mg.pz-n-vbc.UPF", "O": "O.pz-rrkjus.UPF"},
        (35, 200),
        4,
        FIXED,
        True,
    ),
}
POINTS = {"Γ": (0, 0, 0), "X": (0.5, 0, 0.5), "L": (0.5, 0.5, 0.5)}  # reduced
REPEATS, DEGENERATE = 4, 0.02  # THz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pseudo", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--out", type=Path, default=HERE / "PHONONS.md")
    arguments = parser.parse_args()
    os.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    rows = []
    for number, name in enumerate(CRYSTALS):
        folder = arguments.folder / f"crystal-{number}"
        calculate(name, folder, arguments.pseudo)
        rows += compared(name, reference(folder), predicted(name, folder))
    arguments.out.write_text("\n".join(report(rows)) + "\n", encoding="utf-8")


def calculate(name: str, folder: Path, pseudo: Path) -> None:
    """Run pw.x, ph.x and dynmat.x in ``folder``, unless that was done before."""
    _, atoms, pseudos, (cutoff, of_density), k, occupations, polar = CRYSTALS[name]
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "ph.out").exists() and "JOB DONE" in (folder / "ph.out").read_text():
        return
    kinds = "".join(f"{s} {atoms.get_masses()[atoms.symbols == s][0]} {file}\n" for s, file in pseudos.items())
    places = "".join(f"{s} {x:.12f} {y:.12f} {z:.12f}\n" for s, (x, y, z) in zip(atoms.symbols, atoms.positions))
    edge = 2 * atoms.cell.array.max()
    cell = "".join(f"{x:.12f} {y:.12f} {z:.12f}\n" for x, y, z in atoms.cell / edge)
    points = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0.5]])  # of POINTS, 2π/a
    inputs = {
        "pw": f"&control\n calculation='scf', prefix='x', outdir='./out', pseudo_dir='{pseudo}'\n/\n"
        f"&system\n ibrav=0, A={edge:.12f}, nat=2, ntyp={len(pseudos)}, ecutwfc={cutoff}, ecutrho={of_density}, "
        f"{occupations}\n/\n&electrons\n conv_thr=1e-12\n/\n"
        f"ATOMIC_SPECIES\n{kinds}CELL_PARAMETERS alat\n{cell}ATOMIC_POSITIONS angstrom\n{places}"
        f"K_POINTS automatic\n{k} {k} {k} 1 1 1\n",
        "ph": f"x\n&inputph\n prefix='x', outdir='./out', fildyn='x.dyn', tr2_ph=1e-15, qplot=.true., ldisp=.true., "
        f"epsil=.{str(polar).lower()}.\n/\n{len(points)}\n" + "".join(f"{x} {y} {z} 1\n" for x, y, z in points),
        "dynmat": "&input\n fildyn='x.dyn1', asr='simple', q(1)=1.0, q(2)=0.0, q(3)=0.0, filout='dynmat.modes'\n/\n",
    }
    for program, text in inputs.items():
        (folder / f"{program}.in").write_text(text)
        with open(folder / f"{program}.out", "w") as output:
            subprocess.run([f"{program}.x", "-in", f"{program}.in"], cwd=folder, stdout=output, check=True)


def reference(folder: Path) -> dict[str, np.ndarray]:
    """Frequencies [6], THz, by the name of the point."""
    found = re.findall(r"freq \(\s*\d+\) =\s*(\S+) \[THz\]", (folder / "ph.out").read_text())
    by_point = dict(zip(POINTS, np.array(found, dtype=float).reshape(-1, 6)))
    modes = re.findall(r"^\s+\d+\s+\S+\s+(\S+)\s+\S+$", (folder / "dynmat.out").read_text(), re.MULTILINE)
    return by_point | {"Γ": np.array(modes, dtype=float)}


def predicted(name: str, folder: Path) -> dict[str, np.ndarray]:
    """As ``reference``, of the model."""
    model, crystal, *_, polar = CRYSTALS[name]
    atoms: Atoms = crystal.copy()
    atoms.calc = DeepPotCalculator(model)
    born, dielectric = read_response(folder / "ph.out", atoms) if polar else (None, None)
    phonons = Phonons(atoms, supercell=[REPEATS] * 3, born_charges=born, dielectric=dielectric)
    along_x = atoms.cell.array[:, 0]
    found = phonons.energies(list(POINTS.values())) / THZ
    center = phonons.energies([0, 0, 0], direction=along_x)[0] / THZ
    return dict(zip(POINTS, found)) | {"Γ": center}


def compared(name: str, wanted: dict, found: dict) -> list[tuple]:
    """(name, point, degeneracy, frequencies of DFT and of the model, THz) of all modes but the acoustic ones at Γ."""
    rows = []
    for point in POINTS:
        modes = [(w, f) for w, f in zip(np.sort(wanted[point]), np.sort(found[point]))][3 if point == "Γ" else 0 :]
        while modes:
            alike = [mode for mode in modes if mode[0] - modes[0][0] < DEGENERATE]
            rows.append((name, point, len(alike), *np.mean(alike, axis=0)))
            modes = modes[len(alike) :]
    return rows


def report(rows: list[tuple]) -> list[str]:
    lines = [
        "# Phonons: shipped models against ph.x",
        "",
        "`python benchmarks/phonons.py FOLDER`; the settings are in this file. MgO with 9.8 Å³ per formula unit; its "
        "longitudinal mode at Γ has Born charges and dielectric tensor of ph.x on both sides.",
        "",
        "| model | point | modes | DFT (THz) | model (THz) | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, point, n, wanted, found in rows:
        lines.append(f"| {name} | {point} | {n} | {wanted:.3f} | {found:.3f} | {100 * (found / wanted - 1):+.1f} % |")
    within = {
        name: [abs(found / wanted - 1) < 0.03 for other, _, _, wanted, found in rows if other == name]
        for name in CRYSTALS
    }
    shares = "; ".join(f"{name}: {sum(good)} of {len(good)}" for name, good in within.items())
    return [*lines, "", f"Within 3 % of DFT: {shares}.", "", models_line("si", "mgo")]


if __name__ == "__main__":
    main()
