"""Small whole files of every kind that is read, written into a folder, many as other tests make them."""

import gzip
import sys
import warnings
from pathlib import Path

import ase.io
import h5py
import numpy as np
import small_vasp
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from small_bilayers import graphene_bilayer, graphene_frame, random_wannier_model
from small_data import make_frames
from small_deepmd import random_tree, write_dp
from small_espresso import stored
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot, random_ldos_model
from small_models import random_model
from small_projwfc import write_run

sys.path.append(str(Path(__file__).parents[1] / "io"))
import test_cp2k_trajectory
import test_cube
import test_deepmd_data
import test_espresso
import test_espresso_checks
import test_mala
import test_upf
import test_wannier90
import test_wannier90_forms

from ase_mlelec.analysis import result_writer
from ase_mlelec.analysis.result_file import journal_of
from ase_mlelec.analysis.result_writer import ResultWriter
from ase_mlelec.data.frames import Frames, to_images, write_hdf5
from ase_mlelec.data.hamiltonians import write_hamiltonians
from ase_mlelec.data.snapshots import write_snapshots
from ase_mlelec.io.wannier90 import write_hr, write_tb
from ase_mlelec.train.checkpoint import save_checkpoint

HR, WOUT, WSVEC = test_wannier90.hr_text(), test_wannier90.wout(), test_wannier90.WSVEC
CENTERS = "3\n\nX 0.1 0.2 0.3\nX 1.0 2.0 3.0\nSi 0.0 0.0 0.0\n"
CP2K_CENTERS = "3\n i = 5, E = -1.0\nO 0.1 0.2 0.3\nX 0.4 0.2 0.3\nX 0.1 0.2 0.7\n" * 2
AENET = """# total energy = -9.5 eV

CRYSTAL
PRIMVEC
4.0 0.0 0.0
0.0 4.0 0.0
0.0 0.0 4.0
PRIMCOORD
2 1
Si 0.0 0.0 0.0 0.1 0.0 0.0
Si 2.0 2.0 2.0 -0.1 0.0 0.0
"""
CP2K_CELLS = "# Step Time Ax\n 5 2.5 9.0 0.0 0.0 0.0 9.0 0.0 0.0 0.5 9.0 729.0\n"
PATTERN = test_wannier90.R_VECTORS, test_wannier90.MATRICES
CONFIG = """seed = 3
[data]
files = ["a.h5", "b.h5"]
validation = ["validation"]
[data.keys]
energy = "REF_energy"
[descriptor]
cutoff = 5.0
smooth = 2
widths = [8, 16]
n_axis = 4
one_side = true
[energy]
widths = [16, 16]
learning_rate = [5e-3, 5e-6]
forces = [100, 10]
steps = 10
batch_size = 2
[dos]
widths = [12]
[output]
model = "si.safetensors"
"""


ACTIVE = """training = "config.toml"
seed = 3
[explore]
temperatures = [300.0, 900.0]
strains = [-0.02, 0.0]
[select]
quantity = "forces"
low = 0.05
high = 0.5
number = 4
[label]
command = "true"
result = "result.extxyz"
[stop]
rounds = 3
"""


def active(folder):
    """A configuration of active learning, beside that of its training."""
    text("config.toml", CONFIG)(folder)
    text("active.toml", ACTIVE)(folder)


def text(name, content, packed=False):
    """A function that writes one text file."""

    def write(folder):
        path = folder / (f"{name}.gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content.encode(), mtime=0) if packed else content.encode())

    return write


def together(*writers):
    def write(folder):
        for writer in writers:
            writer(folder)

    return write


def run(name, which):
    """Text or XML of a stored pw.x run."""
    return text(("scf.out", "data-file-schema.xml")[which], stored()[name][which])


def vasprun(folder):
    text("vasprun.xml", small_vasp.vasprun(small_vasp.example()))(folder)


def outcar(folder):
    text("OUTCAR", small_vasp.outcar(small_vasp.example()))(folder)


def vaspout(folder):
    small_vasp.vaspout(folder / "vaspout.h5", small_vasp.example())


def ml_ab(folder):
    data = small_vasp.example()
    text("ML_AB", small_vasp.ml_ab([(data["symbols"], data["cell"], step) for step in data["steps"]]))(folder)


def cp2k_run(folder):
    test_cp2k_trajectory.run(folder)


def cp2k_extended(folder):
    for what, rows in ("pos", test_cp2k_trajectory.PLACES), ("frc", test_cp2k_trajectory.FORCES):
        frames = [test_cp2k_trajectory.extended(k, rows[k]) for k in range(3)]
        (folder / f"w-{what}-1.extxyz").write_text("".join(frames))


def projected_run(folder):
    write_run("symmetric", folder)


def projections(folder):
    text("atomic_proj.xml", test_espresso.projections_xml())(folder)
    text("pdos.out", test_espresso.OWNERS)(folder)


def filplots(folder):
    for k, energy in enumerate((-0.5, 0.0)):
        text(f"ldos{k}", test_espresso.filplot(test_espresso.FIELD**2 * (energy + 1), energy))(folder)


def cubes(folder):
    for k in (1, 2):
        text(f"ldos{k}.cube", test_cube.pp_cube(test_cube.structure(np.eye(3) * 4), k * test_cube.wave(np.eye(3) * 4)))(
            folder
        )


def mala(folder):
    test_mala.write(folder, dict(test_mala.INFO.items()))


def labeled():
    """Two images with every kind of label."""
    rng, images = np.random.default_rng(0), []
    for k in range(2):
        atoms = Atoms("SiO", [[0, 0, 0], [1.4, 1.3, 1.2 + k / 10]], cell=[5, 5.5, 6], pbc=True)
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=-10.0 - k,
            forces=rng.normal(size=(2, 3)),
            stress=rng.normal(size=6) / 100,
            dipole=rng.normal(size=3),
        )
        atoms.info["group"] = "train"
        images.append(atoms)
    return images


def images(name):
    return lambda folder: ase.io.write(folder / name, labeled())


def spectra(folder):
    """extxyz with densities of states."""
    found = make_frames(2)
    ase.io.write(folder / "a.extxyz", to_images(Frames(list(found), found.energies)))


def data_set(folder):
    write_hdf5(folder / "a.h5", make_frames(3))


def deepmd(folder):
    rng = np.random.default_rng(0)
    test_deepmd_data.write(
        folder / "system", force=rng.normal(size=(2, 9)), virial=rng.normal(size=(2, 9)), atom_dos=rng.random((2, 12))
    )


def deepmd_mixed(folder):
    test_deepmd_data.write(folder / "system", types=(0, 0, 0), real_atom_types=np.array([[0, 1, 1], [1, -1, 1]]))


def deepmd_texts(folder):
    test_deepmd_data.write_texts(folder / "system")


def deepmd_hdf5(folder):
    deepmd(folder)
    with h5py.File(folder / "a.hdf5", "w") as file:
        for path in sorted((folder / "system").rglob("*")):
            if path.suffix == ".npy":
                file[str(path.relative_to(folder / "system"))] = np.load(path)
            elif path.is_file():
                kind = int if path.name == "type.raw" else str
                file[path.name] = [kind(word) for word in path.read_text().split()]
            if path.is_file():
                path.unlink()


def snapshots(folder):
    write_snapshots(
        folder / "a.h5", [make_snapshot(0), make_snapshot(1, "test", 100)], energies=ENERGIES, attributes=ATTRIBUTES
    )


def hamiltonians(folder):
    frame = graphene_frame(graphene_bilayer((0.2, 0.3)), "g")
    write_hamiltonians(folder / "g.h5", [frame], attributes={"electrons_per_atom": {"C": 1}})


def results(folder, patience=1e9):
    """Rows in the HDF5 file and, where the writer is patient, rows in the journal alone."""
    path, rng = folder / "run.h5", np.random.default_rng(0)

    def row(k):
        return {
            "n_atoms": 2 + k % 2,
            "fingerprint": np.uint64(2**63 + k),
            "energy": rng.normal(),
            "forces": rng.normal(size=(2 + k % 2, 3)),
        }

    header = {"quantities": ["energy", "forces"]}
    usual, result_writer.PATIENCE = result_writer.PATIENCE, patience
    try:
        with ResultWriter(path, header) as writer:
            writer.append([row(0), row(1)])
        if patience:
            writer = ResultWriter(path, header)
            writer.append([row(2)])
            writer.append([row(3)])
            content = path.read_bytes(), journal_of(path).read_bytes()
            writer.close()
            path.write_bytes(content[0])
            journal_of(path).write_bytes(content[1])
    finally:
        result_writer.PATIENCE = usual
    for other in [other for other in folder.iterdir() if other not in (path, journal_of(path))]:
        other.unlink()


def model(make, *arguments, **options):
    """A model file of this package."""

    def write(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(*arguments, **options).save(folder / "model.safetensors")

    return write


def dp(*arguments):
    return lambda folder: write_dp(folder / "model.dp", random_tree(*arguments, sel=(6, 8)))


def checkpoint(folder):
    rng = torch.Generator().manual_seed(0)
    save_checkpoint(
        folder / "run.checkpoint",
        {
            "model": {"weight": torch.randn(4, 3, generator=rng)},
            "step": 3,
            "rows": [{"step": 1, "loss": 0.5}],
            "identity": {"seed": 0},
        },
    )


def tb(folder):
    write_tb(folder / "x_tb.dat", np.diag([2.0, 3, 4]), *PATTERN, test_wannier90.PLACES)


def hr_run(folder):
    """A Hamiltonian with all that lies beside it."""
    text("x_hr.dat", HR)(folder)
    text("x_wsvec.dat", WSVEC)(folder)
    text("x.win", test_wannier90_forms.win().replace("num_wann = 1", "num_wann = 2"))(folder)
    text("x_centres.xyz", CENTERS)(folder)


def center_run(folder):
    """A molecule of water with the centers of its electrons."""
    atoms = "O 3 3 3\nH 3.76 3.59 3\nH 2.24 3.59 3\n"
    centers = "X 3.35 3.27 3\nX 2.65 3.27 3\nX 3 2.75 3.2\nX 3 2.75 2.8\n"
    cell = "begin unit_cell_cart\nang\n6 0 0\n0 6 0\n0 0 6\nend unit_cell_cart\n"
    text("w.win", f"num_wann = 4\n{cell}begin atoms_cart\nang\n{atoms}end atoms_cart\n")(folder)
    text("w_centres.xyz", f"7\n\n{centers}{atoms}")(folder)


def hr_and_wout(folder):
    write_hr(folder / "x_hr.dat", *PATTERN)
    text("x.wout", WOUT)(folder)


PH = text("ph.out", test_espresso_checks.PH)
UPF_1, UPF_2 = text("Al.UPF", test_upf.version_1()), text("Al.UPF", test_upf.version_2())
FILPLOT = text("rho", test_espresso.filplot(test_espresso.FIELD))
MODELS = {
    "energy_dos": model(random_model, 0, ("energy", "dos")),
    "dipole": model(random_model, 0, ("dipole", "polarizability")),
    "ldos": model(random_ldos_model),
    "hamiltonian": model(random_wannier_model),
    "chebyshev": model(random_model, 0, n_basis=8),
}
