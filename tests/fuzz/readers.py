"""The table of everything in the package that reads a file, with files that it reads.  A new reader is a new line here.

``functions`` names what a line tries, directly or within; a test holds this against what the package has.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import seeds
import test_aims
import test_cp2k_output
import test_cp2k_trajectory
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError
from test_wannier90_forms import sparse_text, win

from ase_mlelec.active.config import read_active
from ase_mlelec.analysis.phonons import read_response
from ase_mlelec.analysis.result_file import ResultFile
from ase_mlelec.analysis.result_writer import ResultWriter
from ase_mlelec.bands.wannier_hamiltonian import WannierHamiltonian
from ase_mlelec.bundle import load_model
from ase_mlelec.data import frames, snapshots
from ase_mlelec.data.ase_formats import read_mlelec_h5
from ase_mlelec.data.hamiltonians import Hamiltonians
from ase_mlelec.data.runs.centers import read_center_runs
from ase_mlelec.io import cp2k, cp2k_output, cube, deepmd, espresso, mala, upf, wannier90
from ase_mlelec.io.espresso.common import EspressoError
from ase_mlelec.io.vasp import VaspError
from ase_mlelec.io.wannier90 import Wannier90Error
from ase_mlelec.shipped import read_summary
from ase_mlelec.train.checkpoint import load_checkpoint
from ase_mlelec.train.config import read_config


@dataclass(frozen=True)
class Reader:
    """write : writes whole files into a folder; read : what is to be tried, called with the folder; errors : the
    documented classes; check : raises AssertionError where what came back does not fit together"""

    functions: str
    write: object
    read: object
    errors: tuple = (ValueError,)
    check: object = lambda found: None


# what fits together ---------------------------------------------------------------------------------------------------


def check_pw(found):
    n = len(found.symbols)
    assert found.cell.shape == (3, 3) and found.positions.shape == (n, 3), "cell and positions"
    assert found.forces is None or found.forces.shape == (n, 3), "forces"
    assert found.stress is None or found.stress.shape == (3, 3), "stress"
    assert found.kpoints is None or len(found.kpoints) == len(found.eigenvalues), "k points"


def check_projections(found):
    n_kpoints, n_bands = found.eigenvalues.shape
    assert found.kpoint_weights.shape == (n_kpoints,), "weights of k points"
    assert found.site_weights.shape[:2] == (n_kpoints, n_bands), "weights of sites"


def check_ph(found):
    assert found[0].shape[1:] == (3, 3) and found[1].shape == (3, 3), "charges and tensor"


def check_cube(found):
    assert found[1].ndim == 3 and found[0].cell.rank == 3, "grid and cell"


def check_upf(found):
    columns = [found.r, found.rab, found.local_potential, found.atomic_charge]
    assert {column.shape for column in columns} == {found.r.shape}, "columns"


def check_mala(found):
    for array in (found.fingerprints, found.ldos):
        assert array is None or array.shape[:3] == found.grid, "grid"
    assert found.ldos is None or found.ldos.shape[3:] == found.energies.shape, "energies"


def check_frames(found):
    found.check()
    for frame in found:
        assert len(frame.atoms) and frame.atoms.numbers.min() >= 0, "atoms"
        assert np.shape(frame.labels.get("forces", frame.atoms.positions)) == frame.atoms.positions.shape, "forces"


def check_real_space(found):
    assert len(found.r_vectors) == len(found.matrices) and len({m.shape for m in found.matrices}) == 1, "matrices"


def check_centers(found):
    assert (found.positions.ndim == 2 and found.spreads is None) or len(found.spreads) == len(found.positions), (
        "centers"
    )


# what is read in several steps ----------------------------------------------------------------------------------------


def hamiltonian(path):
    found = WannierHamiltonian.read(path)
    return found.cell, found.r_vectors, found.centers, list(found.bloch.tolist()), found.eigenvalues([[0.1, 0.2, 0.3]])


def all_of(cls):
    """Everything in a file that is read when it is asked for."""

    def read(path):
        found = cls(path)
        found.fingerprint()
        return [found.attributes, list(found)]

    return read


def hamiltonian_frames(path):
    attributes, found = all_of(Hamiltonians)(path)
    return [
        attributes,
        [(frame.atoms, frame.energy, frame.forces, frame.hamiltonian.hk([[0, 0, 0]])) for frame in found],
    ]


def whole_rows(path):
    """The rows of a result file without what fills them up; those that it says are damaged are left out."""
    stored = ResultFile(path)
    damaged, counts = set(stored.damaged_rows()), stored["n_atoms"]
    rows = [k for k in range(len(counts)) if k not in damaged]
    arrays = {name: stored[name] for name in stored}
    _ = stored.header, stored.n_rows
    if not {"energy", "forces"} <= arrays.keys():
        return []
    # one array may have more rows than another
    rows = [k for k in rows if k < min(len(arrays["energy"]), len(arrays["forces"]))]
    return [(arrays["energy"][k], arrays["forces"][k][: int(counts[k])]) for k in rows]


def gone_on_with(path):
    """A result file that is continued by one row."""
    with ResultWriter(path, {"quantities": ["energy", "forces"]}) as writer:
        writer.append([{"n_atoms": 2, "fingerprint": np.uint64(1), "energy": 0.5, "forces": np.zeros((2, 3))}])
    return whole_rows(path)


def model(path):
    found = load_model(path)
    return [found, found.metadata]


def quietly(read):
    """Without the warnings of ASE's own readers, which say nothing of us."""

    def quiet(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)

    return quiet


# the table ------------------------------------------------------------------------------------------------------------

PW, PROJECTIONS, PH = "espresso.pw.read_pw", "espresso.projwfc.read_projections", "espresso.phonons.read_ph"
ESPRESSO, WANNIER, SETUP = (EspressoError,), (Wannier90Error,), (CalculatorSetupError,)
read_images = quietly(frames.read_frames)
LABELLED = "data.frames.read_frames data.images.read_labeled data.images.read_images"

READERS = {
    **{
        f"pw_text_{name}": Reader(
            PW, seeds.run(name, 0), lambda folder: espresso.read_pw(folder / "scf.out"), ESPRESSO, check_pw
        )
        for name in ("fermi_dirac", "vc_relax_nstep_2", "spin", "md")
    },
    **{
        f"pw_xml_{name}": Reader(PW, seeds.run(name, 1), espresso.read_pw, ESPRESSO, check_pw)
        for name in ("fermi_dirac", "relax_nstep_2", "hybrid", "two_fermi_levels")
    },
    "pw_data": Reader(
        "data.runs.steps.read_run data.frames.read_frames",
        seeds.run("vc_relax_nstep_2", 0),
        lambda folder: read_images(folder / "scf.out"),
        (EspressoError, ValueError),
        check_frames,
    ),
    "projected_runs": Reader(
        "data.runs.read.read_runs data.runs.espresso.read_espresso espresso.setup.read_setup",
        seeds.projected_run,
        read_images,
        (EspressoError, ValueError),
        check_frames,
    ),
    "vasprun": Reader(
        "data.runs.vasp.read_vasp vasp.read_vasprun", seeds.vasprun, read_images, (VaspError, ValueError), check_frames
    ),
    "outcar": Reader("outcar.read_outcar", seeds.outcar, read_images, (VaspError, ValueError), check_frames),
    "vaspout": Reader("vaspout.read_vaspout", seeds.vaspout, read_images, (VaspError, ValueError), check_frames),
    "ml_ab": Reader("ml_ab.read_ml_ab", seeds.ml_ab, read_images, (VaspError, ValueError), check_frames),
    "projwfc": Reader(
        PROJECTIONS,
        seeds.projections,
        lambda folder: espresso.read_projections(folder, output=folder / "pdos.out"),
        ESPRESSO,
        check_projections,
    ),
    "ph": Reader(PH, seeds.PH, lambda folder: espresso.read_ph(folder / "ph.out"), ESPRESSO, check_ph),
    "born": Reader(
        "analysis.phonons.read_response",
        seeds.text("BORN", "14.4\n2.9 0 0 0 2.9 0 0 0 2.9\n1.9 0 0 0 1.9 0 0 0 1.9\n-1.9 0 0 0 -1.9 0 0 0 -1.9\n"),
        lambda folder: read_response(folder / "BORN", bulk("MgO", "rocksalt", a=4.2)),
        check=check_ph,
    ),
    "filplot": Reader(
        "espresso.filplot.read_filplot", seeds.FILPLOT, lambda folder: espresso.read_filplot(folder / "rho"), ESPRESSO
    ),
    "filplot_ldos": Reader(
        "espresso.filplot.read_ldos",
        seeds.filplots,
        lambda folder: espresso.read_ldos([folder / "ldos0", folder / "ldos1"]),
        ESPRESSO,
    ),
    "cubes": Reader(
        "cube.read_cube cube.read_cubes",
        seeds.cubes,
        lambda folder: [
            cube.read_cube(folder / "ldos1.cube"),
            cube.read_cubes([folder / "ldos1.cube", folder / "ldos2.cube"]),
        ],
        check=lambda found: check_cube(found[0]),
    ),
    "upf_1": Reader("upf.read_upf", seeds.UPF_1, lambda folder: upf.read_upf(folder / "Al.UPF"), check=check_upf),
    "upf_2": Reader("upf.read_upf", seeds.UPF_2, lambda folder: upf.read_upf(folder / "Al.UPF"), check=check_upf),
    "mala": Reader(
        "mala.read_mala npy.read_npy npy.map_npy",
        seeds.mala,
        lambda folder: mala.read_mala(
            folder / "info.json",
            input_npy=folder / "in.npy",
            output_npy=folder / "out.npy",
            grid_offset=-6.0,
            grid_spacing=0.5,
        ),
        check=check_mala,
    ),
    "hr": Reader(
        "wannier90.hamiltonians.read_hr",
        seeds.text("x_hr.dat", seeds.HR),
        lambda folder: wannier90.read_hr(folder / "x_hr.dat"),
        WANNIER,
        check_real_space,
    ),
    "hr_gz": Reader(
        "wannier90.hamiltonians.read_hr",
        seeds.text("x_hr.dat", seeds.HR, True),
        lambda folder: wannier90.read_hr(folder / "x_hr.dat.gz"),
        WANNIER,
        check_real_space,
    ),
    "hr_sparse": Reader(
        "wannier90.hamiltonians.read_hr",
        seeds.text("x_hr.dat", sparse_text()),
        lambda folder: wannier90.read_hr(folder / "x_hr.dat"),
        WANNIER,
        check_real_space,
    ),
    "tb": Reader(
        "wannier90.hamiltonians.read_tb bands.wannier_hamiltonian.WannierHamiltonian.read",
        seeds.tb,
        lambda folder: [wannier90.read_tb(folder / "x_tb.dat"), hamiltonian(folder / "x_tb.dat")],
        WANNIER,
        lambda found: check_real_space(found[0]),
    ),
    "hr_run": Reader(
        "wannier90.run.read_run bands.wannier_hamiltonian.WannierHamiltonian.read",
        seeds.hr_run,
        lambda folder: hamiltonian(folder / "x_hr.dat"),
        WANNIER,
    ),
    "hr_and_wout": Reader(
        "wannier90.run.read_run bands.wannier_hamiltonian.WannierHamiltonian.read",
        seeds.hr_and_wout,
        lambda folder: hamiltonian(folder / "x_hr.dat"),
        WANNIER,
    ),
    "win": Reader(
        "wannier90.win.read_win wannier90.win.read_blocks",
        seeds.text("x.win", win()),
        lambda folder: wannier90.read_win(folder / "x.win"),
        WANNIER,
    ),
    "wout": Reader(
        "wannier90.centers.read_centers",
        seeds.text("x.wout", seeds.WOUT),
        lambda folder: wannier90.read_centers(folder / "x.wout"),
        WANNIER,
        check_centers,
    ),
    "centers_xyz": Reader(
        "wannier90.centers.read_centers",
        seeds.text("x_centres.xyz", seeds.CENTERS),
        lambda folder: wannier90.read_centers(folder / "x_centres.xyz"),
        WANNIER,
        check_centers,
    ),
    "cp2k_centers": Reader(
        "cp2k.read_centers_trajectory",
        seeds.text("a.xyz", seeds.CP2K_CENTERS),
        lambda folder: cp2k.read_centers_trajectory(folder / "a.xyz"),
    ),
    "center_runs": Reader(
        "data.runs.centers.read_center_runs",
        seeds.center_run,
        lambda folder: read_center_runs([folder]),
        (ValueError, Wannier90Error, EspressoError),
        check_frames,
    ),
    "cp2k_run": Reader(
        "data.runs.cp2k.read_cp2k cp2k.read_trajectory",
        seeds.cp2k_run,
        lambda folder: read_images(folder / "w-pos-1.xyz"),
        check=check_frames,
    ),
    "cp2k_output": Reader(
        "cp2k_output.read_output",
        seeds.text("a.out", test_cp2k_output.output()),
        lambda folder: cp2k_output.read_output(folder / "a.out"),
    ),
    "cp2k_extended": Reader(
        "data.runs.cp2k.read_cp2k cp2k.read_trajectory",
        seeds.cp2k_extended,
        lambda folder: read_images(folder / "w-pos-1.extxyz"),
        check=check_frames,
    ),
    "cp2k_units": Reader(
        "cp2k.check_input_units",
        seeds.text("w.inp", test_cp2k_trajectory.INPUT),
        lambda folder: (cp2k.check_input_units(folder / "w.inp", "w"), cp2k.charge_of_input(folder / "w.inp", "w")),
    ),
    "cp2k_input": Reader(
        "cp2k.read_input_cell",
        seeds.text("w.inp", test_cp2k_trajectory.INPUT),
        lambda folder: cp2k.read_input_cell(folder / "w.inp"),
    ),
    "cp2k_cells": Reader(
        "cp2k.read_cells", seeds.text("a.cell", seeds.CP2K_CELLS), lambda folder: cp2k.read_cells(folder / "a.cell")
    ),
    "aims": Reader(
        "aims.read_aims",
        seeds.text("aims.out", test_aims.dynamics(3) + test_aims.END),
        lambda folder: read_images(folder / "aims.out"),
        check=check_frames,
    ),
    "cp2k_stress": Reader(
        "cp2k.read_stress",
        seeds.text("a.stress", test_cp2k_trajectory.stress_file([(0, np.eye(3)), (1, np.ones((3, 3)))])),
        lambda folder: cp2k.read_stress(folder / "a.stress"),
    ),
    "extxyz": Reader(
        LABELLED, seeds.images("a.extxyz"), lambda folder: read_images(folder / "a.extxyz"), check=check_frames
    ),
    "extxyz_spectra": Reader(
        LABELLED, seeds.spectra, lambda folder: read_images(folder / "a.extxyz"), check=check_frames
    ),
    "xsf_of_aenet": Reader(
        "data.ase_readers.read_aenet",
        seeds.text("a.xsf", seeds.AENET),
        lambda folder: read_images(folder / "a.xsf"),
        check=check_frames,
    ),
    "traj": Reader(LABELLED, seeds.images("a.traj"), lambda folder: read_images(folder / "a.traj"), check=check_frames),
    "ase_json": Reader(
        LABELLED, seeds.images("a.json"), lambda folder: read_images(folder / "a.json"), check=check_frames
    ),
    "data_set": Reader(
        "data.frames.read_frames data.frames.read_all data.frames.read_hdf5",
        seeds.data_set,
        lambda folder: frames.read_all([folder / "a.h5"]),
        check=check_frames,
    ),
    "data_set_for_ase": Reader(
        "data.ase_formats.read_mlelec_h5", seeds.data_set, lambda folder: read_mlelec_h5(folder / "a.h5", slice(None))
    ),
    "deepmd_data": Reader(
        "deepmd.data.read_data data.frames.read_frames",
        seeds.deepmd,
        lambda folder: frames.read_frames(folder / "system"),
        check=check_frames,
    ),
    "deepmd_mixed": Reader(
        "deepmd.data.read_data", seeds.deepmd_mixed, lambda folder: deepmd.read_data(folder / "system")
    ),
    "deepmd_hdf5": Reader(
        "deepmd.data.read_data data.frames.read_frames",
        seeds.deepmd_hdf5,
        lambda folder: frames.read_frames(folder / "a.hdf5"),
        check=check_frames,
    ),
    "deepmd_texts": Reader(
        "deepmd.data.read_data", seeds.deepmd_texts, lambda folder: deepmd.read_data(folder / "system")
    ),
    **{
        f"dp_{'_'.join(map(str, arguments))}": Reader(
            "deepmd.model.read_model bundle.load_model",
            seeds.dp(*arguments),
            lambda folder: model(folder / "model.dp"),
            SETUP,
        )
        for arguments in (("ener",), ("dos", False), ("polar",))
    },
    "snapshots": Reader(
        "data.snapshots.Snapshots", seeds.snapshots, lambda folder: all_of(snapshots.Snapshots)(folder / "a.h5")
    ),
    "hamiltonians": Reader(
        "data.hamiltonians.Hamiltonians", seeds.hamiltonians, lambda folder: hamiltonian_frames(folder / "g.h5")
    ),
    "results": Reader(
        "analysis.result_file.ResultFile analysis.journal.read_run analysis.journal.read_rows "
        "analysis.result_file.read_blocks",
        seeds.results,
        lambda folder: whole_rows(folder / "run.h5"),
    ),
    "results_gone_on_with": Reader(
        "analysis.result_writer.ResultWriter",
        seeds.results,
        lambda folder: gone_on_with(folder / "run.h5"),
        (ValueError, OSError),
    ),
    **{
        f"model_{name}": Reader("bundle.load_model", write, lambda folder: model(folder / "model.safetensors"), SETUP)
        for name, write in seeds.MODELS.items()
    },
    "model_summary": Reader(
        "shipped.read_summary", seeds.MODELS["energy_dos"], lambda folder: read_summary("model", folder)
    ),
    "checkpoint": Reader(
        "train.checkpoint.load_checkpoint", seeds.checkpoint, lambda folder: load_checkpoint(folder / "run.checkpoint")
    ),
    "active": Reader(
        "active.config.read_active", seeds.active, lambda folder: read_active(folder / "active.toml").select.low
    ),
    "config": Reader(
        "train.config.files.read_config",
        seeds.text("config.toml", seeds.CONFIG),
        lambda folder: read_config(folder / "config.toml").model_dump(),
    ),
}

# parts of readers, which the readers of the table call
PARTS = {
    "text.read_text",
    "text.read_numbers",
    "hdf5.read_array",
    "data.hdf5.read_atoms",
    "data.hdf5.read_indices",
    "wannier90.files.read_text",
    "train.config.files.read_table",
    "model_file.read.read_header",
    "train.recipes.hot_energies.read_hot",
    "train.recipes.reading.read_checked",
    "active.worker.read_result",
    "active.explore.read_trajectory",  # of files that it wrote itself
}
