import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from small_models import ENERGIES, random_model

from ase_mlelec import CombinedCalculator, DeepDOSCalculator, DeepPotCalculator, ElectronicRecorder, evaluate
from ase_mlelec.analysis import result_file, trajectory
from ase_mlelec.analysis.recorder import heat
from ase_mlelec.analysis.trajectory import ResultFile, set_atom_scalars
from ase_mlelec.testing import random_atoms

QUANTITIES = ["energy", "forces", "stress", "fermi_level", "total_dos", "ados", "band_gap", "volume", "positions"]


@pytest.fixture
def calc():
    return DeepDOSCalculator(random_model(0, ("energy", "dos")))


@pytest.fixture
def images():
    """Of different sizes and species."""
    formulas = ["Si4O3", "Si2O", "Si", "Si3O2", "Si4O3"]
    return [random_atoms(formula, cell=[4.7 + 0.3 * k, 6.0, 5.5], seed=k) for k, formula in enumerate(formulas)]


@pytest.fixture
def calls(monkeypatch):
    """Numbers of structures that were evaluated, row by row."""
    counted, row = [], trajectory.row_of

    def counting(calc, atoms, quantities):
        counted.append(len(atoms))
        return row(calc, atoms, quantities)

    monkeypatch.setattr(trajectory, "row_of", counting)
    return counted


def test_evaluate_is_the_calculator_itself(calc, images):
    run = evaluate(calc, images, QUANTITIES, progress=False)
    for k, atoms in enumerate(images):
        n = len(atoms)
        assert run["n_atoms"][k] == n
        assert run["energy"][k] == pytest.approx(calc.get_property("energy", atoms), abs=1e-10)
        np.testing.assert_allclose(run["forces"][k, :n], calc.get_property("forces", atoms), atol=1e-10)
        np.testing.assert_allclose(run["ados"][k, :n], calc.get_ados(atoms), atol=1e-10)
        np.testing.assert_allclose(run["band_gap"][k], calc.get_band_gap(atoms), atol=1e-8)
        assert np.isnan(run["forces"][k, n:]).all()
    assert run["total_dos"].shape == (5, len(ENERGIES))
    np.testing.assert_array_equal(run["volume"], [atoms.get_volume() for atoms in images])


@pytest.mark.parametrize("size", [1, 2, 100])
def test_batches_do_not_matter(calc, images, size):
    together = evaluate(calc, images, QUANTITIES, progress=False)
    run = evaluate(calc, images, QUANTITIES, batch_size=size, progress=False)
    for name in QUANTITIES:
        np.testing.assert_allclose(run[name], together[name], atol=1e-8, err_msg=name)


def test_batches_of_every_kind_of_calculator(images):
    energy, dos = random_model(0), random_model(1, ("dos",), cutoff=3.5)
    committee = DeepDOSCalculator([random_model(k, ("energy", "dos"), cutoff=4 - 0.5 * k) for k in range(2)])
    kinds = [
        DeepPotCalculator(energy),
        DeepDOSCalculator(dos, potential=energy),
        committee,
        CombinedCalculator([DeepPotCalculator(energy), DeepDOSCalculator(dos)]),
    ]
    for calc in kinds:
        names = ["energy", "forces", *(["ados"] if hasattr(calc, "get_ados") else ["descriptors"])]
        together, alone = (evaluate(calc, images, names, batch_size=size, progress=False) for size in (5, 1))
        for name in names:
            np.testing.assert_allclose(together[name], alone[name], atol=1e-9)


def test_batches_fill_up_to_a_number_of_atoms(images):
    sizes = [[len(atoms) for atoms in batch] for batch in trajectory._batches(images * 120, None)]
    assert all(sum(size) <= 1024 for size in sizes) and len(sizes) < 5
    assert [len(batch) for batch in trajectory._batches(images, 2)] == [2, 2, 1]
    assert [len(batch) for batch in trajectory._batches([range(600), range(600)], None)] == [1, 1]


def test_any_ase_calculator_and_function(images):
    def shortest(atoms):
        return atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min(initial=np.inf)

    run = evaluate(LennardJones(), images, ["energy", shortest], progress=False)
    assert set(run) == {"energy", "shortest", "n_atoms", "fingerprint"}
    assert run["shortest"][1] == shortest(images[1])


def test_trajectory_files(calc, images, tmp_path):
    path = tmp_path / "images.extxyz"
    write(path, images)
    np.testing.assert_allclose(
        evaluate(calc, path, ["energy"])["energy"], evaluate(calc, images, ["energy"])["energy"], atol=1e-6
    )
    assert len(evaluate(calc, f"{path}@::2", ["energy"])["energy"]) == 3
    assert evaluate(calc, images[0], ["energy"])["energy"].shape == (1,)
    assert evaluate(calc, [], ["energy"]) == {}


def test_file_holds_the_same(calc, images, tmp_path):
    run = evaluate(calc, images, QUANTITIES, progress=False)
    stored = evaluate(calc, images, QUANTITIES, out=tmp_path / "run.h5", batch_size=2, progress=False)
    assert stored.n_rows == 5 and set(stored) == {*run, "energy_grid"} and len(stored) == len(run) + 1
    for name in QUANTITIES:
        np.testing.assert_allclose(stored[name], run[name], atol=1e-9)
    np.testing.assert_array_equal(stored["energy_grid"], ENERGIES)
    assert stored.header["quantities"] == QUANTITIES
    assert stored.header["model"]["electronic_temperature_K"] == 300.0
    with h5py.File(tmp_path / "run.h5") as file:  # what a reader without this package sees
        np.testing.assert_array_equal(file["energy"][()], stored["energy"])
    with pytest.raises(KeyError, match="it has"):
        stored["bands"]


def test_resume(calc, images, tmp_path, calls):
    out = tmp_path / "run.h5"
    evaluate(calc, images[:3], QUANTITIES, out=out, progress=False)
    del calls[:]
    run = evaluate(calc, images, QUANTITIES, out=out, progress=False)
    assert calls == [5, 7]
    np.testing.assert_allclose(run["energy"], evaluate(calc, images, ["energy"], progress=False)["energy"], atol=1e-10)
    del calls[:]
    evaluate(calc, images, QUANTITIES, out=out, progress=False)
    assert calls == []
    evaluate(calc, images, QUANTITIES, out=out, resume=False, progress=False)
    assert len(calls) == 5


def test_other_settings_of_the_calculator(tmp_path):
    """Rows of one file are of one temperature and of the same weights; files of former versions do not tell."""
    calc, out = DeepDOSCalculator("si", device="cpu"), tmp_path / "run.h5"
    images = [bulk("Si") for _ in range(3)]
    for k, atoms in enumerate(images):
        atoms.rattle(0.05, seed=k)
    evaluate(calc, images[:2], ["fermi_level"], out=out, progress=False)
    hot = DeepDOSCalculator("si", device="cpu", electronic_temperature=1000)
    with pytest.raises(
        ValueError, match=r"other settings \(electronic_temperature 2000.0, not 1000.0\); give another file"
    ):
        evaluate(hot, images, ["fermi_level"], out=out, progress=False)
    with pytest.raises(ValueError, match=r"other settings \(weights "):
        evaluate(DeepDOSCalculator(["si", "si"], device="cpu"), images, ["fermi_level"], out=out, progress=False)
    out.unlink()
    with trajectory.writer_of(out, ["fermi_level"], calc, True):  # as former versions began it
        pass
    assert len(evaluate(hot, images, ["fermi_level"], out=out, progress=False)["fermi_level"]) == 3


def test_failure_keeps_what_is_finished(calc, images, tmp_path):
    out = tmp_path / "run.h5"
    broken = [*images[:2], random_atoms("Cu", cell=[4, 4, 4]), *images[2:]]
    with pytest.raises(Exception, match="Cu"):
        evaluate(calc, broken, ["energy"], out=out, batch_size=1, progress=False)
    assert ResultFile(out).n_rows == 2


@pytest.mark.parametrize("damage", ["long", "short", "uncounted"])
def test_truncated_last_row_is_dropped(calc, images, tmp_path, damage):
    """Whatever an interrupted write leaves: datasets of different lengths, or a row that was not counted."""
    out = tmp_path / "run.h5"
    complete = evaluate(calc, images, QUANTITIES, out=out, progress=False)["forces"]
    with h5py.File(out, "r+") as file:
        if damage == "short":
            file["forces"].resize(4, axis=0)
        elif damage == "long":
            file["forces"].resize(6, axis=0)
        else:
            file.attrs["rows"] = 4
            file["forces"][4] = 77.0
    assert ResultFile(out).n_rows == (5 if damage == "long" else 4)
    assert len(ResultFile(out)["forces"]) == len(ResultFile(out)["energy"]) == ResultFile(out).n_rows
    run = evaluate(calc, images, QUANTITIES, out=out, progress=False)
    np.testing.assert_allclose(run["forces"], complete, atol=1e-9)


def test_files_of_something_else(calc, images, tmp_path):
    out = tmp_path / "run.h5"
    evaluate(calc, images, ["energy"], out=out, progress=False)
    with pytest.raises(ValueError, match="row 0 .* another structure"):
        evaluate(calc, images[1:], ["energy"], out=out, progress=False)
    with pytest.raises(ValueError, match="holds 5 rows, got 2 structures"):
        evaluate(calc, images[:2], ["energy"], out=out, progress=False)
    with pytest.raises(ValueError, match="with other quantities"):
        evaluate(calc, images, ["energy", "forces"], out=out, progress=False)
    other = DeepDOSCalculator(random_model(1, ("energy", "dos"), metadata={"seed": 1}))
    with pytest.raises(ValueError, match="another model;"):
        evaluate(other, images, ["energy"], out=out, progress=False)
    shifted = DeepDOSCalculator(random_model(0, ("energy", "dos")))
    shifted.models[0].heads["dos"].energies += 1
    with pytest.raises(ValueError, match="another energy grid"):
        evaluate(shifted, images, ["energy"], out=out, progress=False)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="of another program"):
        evaluate(calc, images, ["energy"], out=tmp_path / "foreign.h5")
    out.write_bytes(out.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be opened as an HDF5 file"):
        evaluate(calc, images, ["energy"], out=out)
    with pytest.raises(FileNotFoundError):
        ResultFile(tmp_path / "none.h5")["energy"]


@pytest.mark.parametrize(
    "quantities, message",
    [
        (["dos"], "'dos', which is a GridDOSCollection"),
        (["magic"], "choose among energy.*total_dos"),
        ("energy", r"write \['energy'\]"),
    ],
)
def test_impossible_quantities(calc, images, quantities, message):
    with pytest.raises(ValueError, match=message):
        evaluate(calc, images, quantities, progress=False)


def test_impossible_batch_size(calc, images):
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluate(calc, images, ["energy"], batch_size=0)


# Recorder


@pytest.fixture
def atoms(calc):
    crystal = random_atoms("Si4O3", cell=[4.7, 6.0, 5.5])
    crystal.calc = calc
    return crystal


RECORDED = ["energy", "temperature", "fermi_level", "total_dos", "positions"]


def run_dynamics(atoms, path, steps=4, quantities=RECORDED, **options):
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    recorder = ElectronicRecorder(atoms, path, quantities, dyn=dyn, **options)
    dyn.attach(recorder, interval=2)
    dyn.run(steps)
    return recorder


def test_recorder(atoms, calc, tmp_path):
    start = atoms.copy()
    run = run_dynamics(atoms, tmp_path / "run.h5").results
    assert run["step"].tolist() == [0, 2, 4]
    np.testing.assert_allclose(run["time"], [0, 1, 2])
    np.testing.assert_array_equal(run["positions"][0], start.positions)
    np.testing.assert_array_equal(run["positions"][2], atoms.positions)
    assert run["temperature"][2] == pytest.approx(atoms.get_temperature())
    np.testing.assert_allclose(run["total_dos"][2], calc.get_total_dos(atoms))
    np.testing.assert_array_equal(run["energy_grid"], ENERGIES)


@pytest.mark.slow
def test_recorder_goes_on(atoms, tmp_path):
    """A run in two parts, as after a restart from the last frame of a trajectory, is the run in one."""
    whole = atoms.copy()
    whole.calc = atoms.calc
    expected = run_dynamics(whole, tmp_path / "whole.h5", steps=8).results
    run_dynamics(atoms, tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:  # the next row was being written
        file["energy"].resize(4, axis=0)
    run = run_dynamics(atoms, tmp_path / "run.h5").results
    assert run["step"].tolist() == [0, 2, 4, 6, 8]
    for name in ("time", *RECORDED):
        np.testing.assert_allclose(run[name], expected[name], atol=1e-9, err_msg=name)
    assert run_dynamics(atoms, tmp_path / "run.h5", resume=False).results.n_rows == 3


def test_recorder_of_a_run_that_was_started_again(atoms, tmp_path):
    again = atoms.copy()
    again.calc = atoms.calc
    run_dynamics(atoms, tmp_path / "run.h5")
    with pytest.raises(ValueError, match="already holds a run from this structure on"):
        run_dynamics(again, tmp_path / "run.h5")


def test_recorder_under_an_optimizer(atoms, tmp_path):
    opt = BFGS(atoms, logfile=None)
    recorder = ElectronicRecorder(atoms, tmp_path / "run.h5", ["energy"], dyn=opt)
    opt.attach(recorder)
    opt.run(fmax=0.0, steps=3)
    assert recorder.results["step"].tolist() == [0, 1, 2, 3] and "time" not in recorder.results
    without = ElectronicRecorder(atoms, tmp_path / "other.h5", ["energy"])
    without()
    assert set(without.results) == {"energy", "energy_grid", "n_atoms", "fingerprint"}


def test_recorder_writes_what_the_viewer_colors_by(atoms, tmp_path):
    def height(atoms):
        return atoms.positions[:, 2]

    path = tmp_path / "run.extxyz"
    options = dict(quantities=["energy", "total_dos", "energies", height], extxyz=path)
    run = run_dynamics(atoms, tmp_path / "run.h5", **options).results
    frames = read(path, ":")
    assert len(frames) == 3
    for k, frame in enumerate(frames):
        np.testing.assert_allclose(frame.arrays["height"], run["height"][k], atol=1e-7)
        assert frame.get_potential_energy() == pytest.approx(run["energy"][k], abs=1e-6)
    assert {"total_dos", "energies"}.isdisjoint(frames[0].arrays)
    with open(path, "a") as file:  # a frame that was cut off
        file.write("7\nLattice=")
    run_dynamics(atoms, tmp_path / "run.h5", **options)
    assert len(read(path, ":")) == 5


def test_recorder_that_nobody_closes(tmp_path):
    """The file is complete at the end of the program, also where finalizers of others began before h5py did."""
    code = (
        "import tempfile, sys\nfolder = tempfile.TemporaryDirectory()\n"
        "from ase.build import bulk\nfrom ase.calculators.emt import EMT\n"
        "from ase_mlelec import ElectronicRecorder\n"
        "atoms = bulk('Al')\natoms.calc = EMT()\n"
        "recorder = ElectronicRecorder(atoms, sys.argv[1], ['energy'])\n"
        "for k in range(3):\n    atoms.positions[0, 0] += 0.1\n    recorder()\n"
    )
    path = tmp_path / "run.h5"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with h5py.File(path) as file:
        assert len(file["energy"]) == 3


def test_recorder_without_calculator(atoms, tmp_path):
    atoms.calc = None
    with pytest.raises(CalculatorSetupError, match="without a calculator"):
        ElectronicRecorder(atoms, tmp_path / "run.h5")


def test_attributes_of_other_calculators_are_no_energy_grid(tmp_path):
    """EMT has an attribute ``energies`` too."""
    run = evaluate(EMT(), [random_atoms("Cu2", cell=[6, 6, 6])], ["energy"], out=tmp_path / "run.h5")
    assert "energy_grid" not in run


def test_ase_gui_colors_by_any_scalar(atoms, tmp_path):
    """The viewer's own code, without a display."""
    pytest.importorskip("tkinter")
    from types import SimpleNamespace

    from ase.gui.view import View

    values = np.linspace(0.2, 1.5, len(atoms))
    write(tmp_path / "run.extxyz", set_atom_scalars(atoms, order_parameter=values))
    shown = SimpleNamespace(colormode="order_parameter", atoms=read(tmp_path / "run.extxyz"))
    np.testing.assert_allclose(View.get_color_scalars(shown), values, atol=1e-7)
    with pytest.raises(ValueError, match="one number per atom"):
        set_atom_scalars(atoms, order_parameter=values[1:])


def test_heating(atoms):
    dyn = Langevin(atoms, 0.5 * units.fs, temperature_K=1, friction=0.1, fixcm=False, rng=np.random.default_rng(0))
    seen = []
    dyn.attach(lambda: seen.append(round(dyn.temp / units.kB)))
    heat(dyn, 100, 200, 4, progress=False)
    assert dyn.nsteps == 4 and seen == [1, 125, 150, 175, 200]
    assert dyn.temp / units.kB == pytest.approx(200)


def test_a_recorder_knows_its_quantities_at_once(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    with pytest.raises(ValueError, match="got quantity 'energi', which neither EMT nor Atoms has; choose among energy"):
        ElectronicRecorder(atoms, tmp_path / "run.h5", ["energi"])
    assert not (tmp_path / "run.h5").exists()


def test_memory_does_not_grow_with_the_number_of_structures(tmp_path, monkeypatch):
    """Neither that of an evaluation nor that of reading its file in pieces; rows have 0.4 MB."""
    monkeypatch.setattr(result_file, "BLOCK_BYTES", 1 << 20)

    def spectra(atoms):
        return np.random.default_rng(0).random(50_000)

    def peak(n):
        tracemalloc.start()
        images = (bulk("Cu") for _ in range(n))
        run = evaluate(EMT(), images, [spectra], batch_size=1, out=tmp_path / f"{n}.h5", progress=False)
        assert sum(len(piece["spectra"]) for piece in run.pieces("spectra", "n_atoms")) == n
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert abs(peak(60) - peak(15)) < 3e6  # of 18 MB


def test_pieces_of_a_quantity_that_there_is_not(tmp_path):
    run = evaluate(EMT(), bulk("Cu"), ["energy"], out=tmp_path / "run.h5", progress=False)
    with pytest.raises(KeyError, match="has no 'ados'; it has energy"):
        next(run.pieces("energy", "ados"))
