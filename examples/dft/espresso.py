"""Run Quantum ESPRESSO programs on one core: write the input with ASE, run, check that the job is done.

What the scripts of all data sets share is here too: the order in which structures are labeled.

Environment: ESPRESSO_PSEUDO, the folder of pseudopotentials (default /usr/share/espresso/pseudo, Debian's).  A serial
OpenBLAS (Debian: libopenblas0-serial) is put in front when present; it makes pw.x 1.4-2 times faster.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.io.espresso import write_espresso_in, write_fortran_namelist

from ase_mlelec.io.espresso import read_filplot, read_ldos

PSEUDO = os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo")
OPENBLAS = "/usr/lib/x86_64-linux-gnu/openblas-serial"
SAVE = Path("tmp/x.save")


def environment():
    return dict(
        os.environ,
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_btl="self",
        OMPI_MCA_hwloc_base_binding_policy="none",
        MALLOC_MMAP_MAX_="0",
        MALLOC_TRIM_THRESHOLD_=str(2**40),  # large arrays come again in every step
        LD_LIBRARY_PATH=f"{OPENBLAS}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    )


def run(program, name, directory):
    """Run ``program < name.in > name.out`` in ``directory``; RuntimeError with the end of the output on failure."""
    directory = Path(directory)
    with open(directory / f"{name}.in") as source, open(directory / f"{name}.out", "w") as target:
        code = subprocess.run(
            [program], stdin=source, stdout=target, stderr=subprocess.STDOUT, cwd=directory, env=environment()
        ).returncode
    text = (directory / f"{name}.out").read_text()
    if code or "JOB DONE" not in text:
        raise RuntimeError(f"{program} failed in {directory}/{name}.out:\n{text[-1500:]}")


def add_label_command(commands):
    """The subcommand ``label`` of argparse, whose arguments are those of ``label_all``."""
    command = commands.add_parser("label")
    command.add_argument("structures")
    command.add_argument("work", type=Path)
    command.add_argument("--part", default="0/1", help="i/n: every n-th structure from the i-th on")


def label_all(label, structures, work, part, key=len):
    """``label(atoms, work)`` for the structures of a file; ``part`` "i/n": every n-th of them from the i-th on.

    In the order of ``key(atoms)``, small cells first, and phases are mixed: whatever is finished at any time is a
    balanced data set.
    """
    work.mkdir(exist_ok=True)
    index, parts = (int(x) for x in part.split("/"))
    images = read(structures, ":")
    order = sorted(np.random.default_rng(0).permutation(len(images)), key=lambda k: key(images[k]))
    for k in order[index::parts]:
        label(images[k], work)


def pw(atoms, directory, name, pseudopotentials, kpts, koffset=(0, 0, 0), **namelists):
    """One pw.x run; ``namelists``: control, system, electrons as dicts that overrule the common settings."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    data = {
        "control": dict(
            calculation="scf",
            prefix="x",
            outdir="./tmp",
            pseudo_dir=PSEUDO,
            disk_io="low",
            verbosity="high",
            tprnfor=True,
            tstress=True,
        ),
        "system": {},
        "electrons": {},
    }
    for namelist, settings in namelists.items():
        data[namelist].update(settings)
    with open(directory / f"{name}.in", "w") as target:
        write_espresso_in(target, atoms, input_data=data, pseudopotentials=pseudopotentials, kpts=kpts, koffset=koffset)
    run("pw.x", name, directory)


def pulay_virial(energy, n_atoms, low, high):
    """What the stress of pw.x lacks, as an isotropic virial in eV/atom: -2/3 dE/dln(cutoff) between two cutoffs.

    energy : callable, eV of a cutoff; low, high : Ry.  Plane waves of a fixed cutoff are more in a larger cell, but the
    stress is the derivative of the energy at a fixed number of them.

    Source: Francis and Payne, J. Phys.: Condens. Matter 2, 4395 (1990).
    """
    return -2 / 3 * (energy(high) - energy(low)) / np.log(high / low) / n_atoms


def projwfc(directory, name="projwfc"):
    """Project the bands of the last pw.x run on atomic functions; writes SAVE/atomic_proj.xml and name.out."""
    with open(Path(directory) / f"{name}.in", "w") as target:
        write_fortran_namelist(
            target, {"projwfc": dict(prefix="x", outdir="./tmp", ngauss=0, degauss=0.04, filpdos="pdos")}
        )
    run("projwfc.x", name, directory)


def ldos(directory, energies, width):
    """Local density of states after a pw.x run, array [G1, G2, G3, S] in 1/(eV Å^3), Gaussian exp(-(x/width)^2).

    pp.x broadens with the kind of smearing that pw.x stored, whatever width it is given: the tag is rewritten first.
    """
    directory = Path(directory)
    schema = directory / SAVE / "data-file-schema.xml"
    schema.write_text(
        re.sub(r'(<smearing degauss="[^"]*">)\s*[\w-]+\s*(</smearing>)', r"\1gaussian\2", schema.read_text())
    )
    with open(directory / "ldos.in", "w") as target:
        write_fortran_namelist(
            target,
            {
                "inputpp": dict(
                    prefix="x",
                    outdir="./tmp",
                    filplot="ldos.",
                    plot_num=3,
                    degauss_ldos=width,
                    emin=float(energies[0]),
                    emax=float(energies[-1]) + 1e-6,
                    delta_e=float(energies[1] - energies[0]),
                )
            },
        )
    run("pp.x", "ldos", directory)
    return read_ldos([directory / f"ldos.{k:03d}" for k in range(1, len(energies) + 1)])


def wannier(atoms, directory, projections, n_functions):
    """Maximally localized Wannier functions of the occupied bands after a pw.x run at the Gamma point.

    In a cell that is not rectangular the phases of one center along b1, b2 and b1 - b2 may lie on different branches,
    which moves the center by Å: guiding centers choose the branch.

    projections : str as in Wannier90's input, such as "O: sp3"

    Returns the path of Wannier90's output.  RuntimeError where the localization does not converge.
    """
    _functions(
        atoms,
        directory,
        projections,
        n_functions,
        (1, 1, 1),
        "gamma_only = true\nguiding_centres = true\nwrite_xyz = true\nnum_iter = 500\nconv_window = 5\nconv_tol = 1e-9",
    )
    output = Path(directory) / "x.wout"
    if "convergence criteria satisfied" not in output.read_text():
        raise RuntimeError(f"wannier90.x did not converge in {output}; change the projections or reject the structure")
    return output


def hamiltonian(atoms, directory, projections, n_functions, mesh, extra=""):
    """H(R) of Wannier functions after an nscf pw.x run on the full Γ-centerd mesh (see full_mesh).

    projections : str, the lines of Wannier90's projections block
    extra : str, further lines of the input, such as windows

    Returns the path of ``x_hr.dat``, beside which lie x_wsvec.dat, x.win and x.wout.
    """
    _functions(atoms, directory, projections, n_functions, mesh, f"write_hr = true\nuse_ws_distance = true\n{extra}")
    return Path(directory) / "x_hr.dat"


def _functions(atoms, directory, projections, n_functions, mesh, settings):
    """Wannier functions of the bands of the last pw.x run; writes x.win, and what ``settings`` ask Wannier90 for."""
    directory = Path(directory)
    cell, positions, points = (
        "\n".join(" ".join(f"{x:.12f}" for x in row) for row in rows)
        for rows in (atoms.cell.array, atoms.positions, full_mesh(mesh)[:, :3])
    )
    sites = "\n".join(f"{symbol} {row}" for symbol, row in zip(atoms.symbols, positions.splitlines()))
    (directory / "x.win").write_text(
        # with Wannier90's 1e-6 Å^-1, neighbors at almost the same distance in a strained cell may be lost
        f"num_wann = {n_functions}\nmp_grid = {mesh[0]} {mesh[1]} {mesh[2]}\nkmesh_tol = 1e-8\n{settings}\n"
        f"begin unit_cell_cart\nang\n{cell}\nend unit_cell_cart\nbegin atoms_cart\nang\n{sites}\nend atoms_cart\n"
        f"begin projections\n{projections}\nend projections\nbegin kpoints\n{points}\nend kpoints\n"
    )
    _wannier90(directory, "-pp", "x")
    with open(directory / "overlaps.in", "w") as target:
        write_fortran_namelist(
            target, {"inputpp": dict(prefix="x", outdir="./tmp", seedname="x", write_mmn=True, write_amn=True)}
        )
    run("pw2wannier90.x", "overlaps", directory)
    _wannier90(directory, "x")


def _wannier90(directory, *arguments):
    done = subprocess.run(["wannier90.x", *arguments], cwd=directory, env=environment(), capture_output=True, text=True)
    if done.returncode or "Error:" in done.stdout:  # it exits with 0 after some errors
        output = directory / "x.wout"
        text = output.read_text() if output.exists() else ""
        raise RuntimeError(f"wannier90.x failed in {directory}:\n{done.stdout}{done.stderr}{text[-1500:]}")


def response(directory):
    """Born charges and dielectric tensor by ph.x after a pw.x run of an insulator; writes response.out.

    The pw.x run must not use the real wave functions of ``K_POINTS gamma``: give it kpts=(1, 1, 1).
    """
    (Path(directory) / "response.in").write_text(
        "response to an electric field\n&inputph\n  prefix = 'x'\n  outdir = './tmp'\n  epsil = .true.\n"
        "  zeu = .true.\n  trans = .false.\n  tr2_ph = 1e-14\n/\n0 0 0\n"
    )
    run("ph.x", "response", directory)


def full_mesh(mesh):
    """Points and weights [K, 4] of a Γ-centerd mesh without symmetry, the last coordinate running fastest."""
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in mesh), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.hstack([points, np.full((len(points), 1), 1 / len(points))])


def vacuum_levels(atoms, directory, away=0.0):
    """(level below, level above, spread) of the electrostatic potential in the vacuum of a slab after an scf run, eV.

    Means over planes parallel to the first two cell vectors, over the half Å that begins ``away`` from the middle of
    the widest gap between atoms, on the side of the layers' lower and upper faces; spread : the larger of the two
    half Å's.  With a dipole correction, whose jump is in that middle, ``away`` must be more than half its width.
    """
    directory = Path(directory)
    with open(directory / "potential.in", "w") as target:
        write_fortran_namelist(target, {"inputpp": dict(prefix="x", outdir="./tmp", filplot="potential", plot_num=11)})
    run("pp.x", "potential", directory)
    planes = read_filplot(directory / "potential").mean(axis=(0, 1)) * units.Ry
    heights = np.sort(atoms.get_scaled_positions()[:, 2] % 1)
    gaps = np.diff(np.append(heights, heights[0] + 1))
    middle = heights[gaps.argmax()] + gaps.max() / 2
    height = ((np.arange(len(planes)) / len(planes) - middle + 0.5) % 1 - 0.5) * atoms.cell.lengths()[2]
    # above the middle of the gap is below the layers
    below, above = (planes[(away <= way * height) & (way * height <= away + 0.5)] for way in (1, -1))
    return float(below.mean()), float(above.mean()), float(max(np.ptp(below), np.ptp(above)))
