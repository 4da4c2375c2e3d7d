"""Makes silicon_wannier/ beside this file: silicon's Hamiltonian in the forms that Wannier90 writes, and its bands.

    python tests/data/silicon_wannier.py [folder of the runs]

It needs pw.x, pw2wannier90.x and wannier90.x with the pseudopotential of Debian's quantum-espresso-data; half a minute.
``bands_ref.npz`` holds the bands that Wannier90 draws from them, and sums over R by the loops below: of ``hr`` alone,
and with the images of ``wsvec``.
"""

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "silicon_wannier"
PSEUDO = "/usr/share/espresso/pseudo"
EDGE = 2.7  # Å, half the lattice constant
CELL = EDGE * np.array([[-1, 0, 1], [0, 1, 1], [-1, 1, 0]])
MESH = np.stack(np.meshgrid(*[np.arange(4) / 4] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
ROWS = "\n".join("{:.8f} {:.8f} {:.8f}".format(*k) for k in MESH)
ATOMS = "Si -0.25 0.75 -0.25\nSi 0 0 0"
CELL_TEXT = "\n".join("{:.8f} {:.8f} {:.8f}".format(*vector) for vector in CELL)

PW = f"""&control
 calculation='{{kind}}', prefix='x', outdir='.', pseudo_dir='{PSEUDO}'
/
&system
 ibrav=0, nat=2, ntyp=1, ecutwfc=14, nosym=.true., {{more}}
/
&electrons
 conv_thr=1e-9
/
ATOMIC_SPECIES
Si 28.086 Si.pz-vbc.UPF
ATOMIC_POSITIONS crystal
{ATOMS}
CELL_PARAMETERS angstrom
{CELL_TEXT}
K_POINTS {{kpoints}}
"""
WIN = f"""num_bands = 12
num_wann = 8
dis_win_max = 17.0
dis_froz_max = 6.4
dis_num_iter = 120
dis_mix_ratio = 1.0
num_iter = 50
search_shells = 12
write_hr = .true.
write_tb = .true.
write_xyz = .true.
translate_home_cell = .true.
use_ws_distance = .true.
bands_plot = .true.
bands_num_points = 20
begin projections
Si : sp3
end projections
begin kpoint_path
L 0.5 0.5 0.5 G 0 0 0
G 0 0 0 X 0.5 0 0.5
X 0.5 -0.5 0 K 0.375 -0.375 0
K 0.375 -0.375 0 G 0 0 0
end kpoint_path
begin atoms_frac
{ATOMS}
end atoms_frac
begin unit_cell_cart
{CELL_TEXT}
end unit_cell_cart
mp_grid = 4 4 4
begin kpoints
{ROWS}
end kpoints
"""
TO_WANNIER90 = "&inputpp\n outdir='.', prefix='x', seedname='silicon', write_mmn=.true., write_amn=.true.\n/\n"


def run(folder, program, text):
    (folder / f"{program[0]}.in").write_text(text)
    with open(folder / f"{program[0]}.in") as source:
        subprocess.run(program, stdin=source, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def bands_of(folder, kpts):
    """(bands of hr alone, bands with the images of wsvec), [K, 8] each, eV."""
    lines = (folder / "silicon_hr.dat").read_text().splitlines()
    size, count = int(lines[1]), int(lines[2])
    n_degenerate = -(-count // 15)
    degeneracies = np.array(" ".join(lines[3 : 3 + n_degenerate]).split(), dtype=int)
    table = np.array([line.split() for line in lines[3 + n_degenerate :]], dtype=float)
    images, place = {}, (folder / "silicon_wsvec.dat").read_text().splitlines()[1:]
    while place:
        key = tuple(map(int, place[0].split()))
        images[key] = np.array([line.split() for line in place[2 : 2 + int(place[1])]], dtype=int)
        place = place[2 + int(place[1]) :]
    plain, folded = np.zeros((2, len(kpts), size, size), dtype=complex)
    for n, (*where, real, imaginary) in enumerate(table):
        x, y, z, i, j = map(int, where)
        value = (real + 1j * imaginary) / degeneracies[n // size**2]
        plain[:, i - 1, j - 1] += value * np.exp(2j * np.pi * kpts @ [x, y, z])
        for shift in images[x, y, z, i, j]:
            phase = np.exp(2j * np.pi * kpts @ (shift + [x, y, z])) / len(images[x, y, z, i, j])
            folded[:, i - 1, j - 1] += value * phase
    return np.linalg.eigvalsh(plain), np.linalg.eigvalsh(folded)


def main(folder):
    run(folder, ["pw.x"], PW.format(kind="scf", more="", kpoints="automatic\n4 4 4 0 0 0"))
    mesh = f"crystal\n{len(MESH)}\n" + "\n".join(f"{row} 1" for row in ROWS.splitlines())
    run(folder, ["pw.x"], PW.format(kind="nscf", more="nbnd=12", kpoints=mesh))
    (folder / "silicon.win").write_text(WIN)
    run(folder, ["wannier90.x", "-pp", "silicon"], "")
    run(folder, ["pw2wannier90.x"], TO_WANNIER90)
    run(folder, ["wannier90.x", "silicon"], "")
    HERE.mkdir(exist_ok=True)
    for name in ("silicon.wout", "silicon_hr.dat", "silicon_wsvec.dat", "silicon_tb.dat"):
        (HERE / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))
    for name in ("silicon.win", "silicon_centres.xyz"):
        (HERE / name).write_bytes((folder / name).read_bytes())
    kpts = np.loadtxt(folder / "silicon_band.kpt", skiprows=1, usecols=(0, 1, 2))
    drawn = np.loadtxt(folder / "silicon_band.dat")[:, 1].reshape(8, -1).T
    plain, folded = bands_of(folder, kpts)
    np.savez_compressed(HERE / "bands_ref.npz", kfrac=kpts, e_wannier90=drawn, e_plain_hr=plain, e_hr_wsvec=folded)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
