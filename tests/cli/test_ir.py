"""``mlelec ir`` on point charges that swing at a known wavenumber and are wrapped into a cell that breathes."""

import command_line
import numpy as np
import pytest
import scipy.constants as si
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_mlelec import evaluate
from ase_mlelec.physics import spectra

STEP, WAVENUMBER = 1.0, 1500.0  # fs, cm^-1
CHARGES = np.array([2.0, -1.0, -1.0])


class PointCharges(Calculator):
    implemented_properties = ["dipole"]

    def calculate(self, atoms=None, properties=None, system_changes=None):
        self.results = {"dipole": CHARGES @ atoms.positions}


def time(atoms):
    return atoms.info["time"]


def frames(n=1500):
    """The first charge moves by 0.3 Å along (1, 1, 0) and passes the cell boundary; all atoms drift along."""
    images = []
    for k in range(n):
        swing = 0.3 * np.sin(2e-13 * np.pi * si.c * WAVENUMBER * STEP * k)
        cell = np.array([6.0, 5.0, 7.0]) * (1 + 0.02 * np.sin(0.01 * k))
        atoms = Atoms("OHH", cell=cell, pbc=True, scaled_positions=[[0, 0, 0.1], [0.2, 0.3, 0.1], [0.8, 0.2, 0.9]])
        atoms.positions += 0.002 * k
        atoms.positions[0] += [swing, swing, 0]
        atoms.wrap()
        atoms.info["time"] = STEP * k
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recorded and stored with the calculators, the frames in another order than that of time."""
    path, images = tmp_path_factory.mktemp("ir"), frames()
    images = [images[k] for k in np.random.default_rng(0).permutation(len(images))]
    evaluate(PointCharges(), images, ["dipole", "cell", time], out=path / "run.h5", progress=False)
    for atoms in images:
        atoms.calc = SinglePointCalculator(atoms, dipole=CHARGES @ atoms.positions)
        atoms.set_momenta(np.sqrt(units.kB * 250 * atoms.get_masses())[:, None] * np.ones(3))
    write(path / "run.extxyz", images)
    return path


def call(*arguments):
    command_line.call("ir", *arguments)


def fails(capsys, *arguments):
    return command_line.fails(capsys, "ir", *arguments)


def test_recorded(folder, capsys):
    call(
        folder / "run.h5",
        "--temperature",
        300,
        "--resolution",
        150,
        "--out",
        folder / "ir.csv",
        "--plot",
        folder / "ir.png",
    )
    assert "1500 frames every 1 fs, 300 K" in capsys.readouterr().out
    assert (folder / "ir.csv").read_text().startswith("wavenumber_per_cm,alpha_n_per_cm,standard_error_per_cm\n")
    assert (folder / "ir.png").read_bytes().startswith(b"\x89PNG")
    nu, alpha_n, error = np.loadtxt(folder / "ir.csv", delimiter=",", skiprows=1).T
    assert nu[alpha_n.argmax()] == pytest.approx(WAVENUMBER, abs=nu[1]) and nu.max() > 3950
    # the dipole alone, never wrapped, in a cell that does not breathe
    swing = 2 * 0.3 * np.sin(2e-13 * np.pi * si.c * WAVENUMBER * STEP * np.arange(1500))
    expected = spectra.infrared(swing[:, None] * [1, 1, 0], STEP, 300, 210, resolution=150)[1]
    assert np.trapezoid(alpha_n, nu) == pytest.approx(np.trapezoid(expected, nu), rel=0.02)
    assert error[alpha_n.argmax()] < 0.1 * alpha_n.max()


def test_trajectory(folder, capsys):
    call(folder / "run.h5", "--temperature", 250, "--resolution", 150, "--out", folder / "a.csv")
    call(folder / "run.extxyz", "--resolution", 150, "--out", folder / "b.csv")
    recorded, stored = capsys.readouterr().out.splitlines()
    assert recorded == stored and ", 250 K, " in stored  # of the momenta
    np.testing.assert_allclose(
        *(np.loadtxt(folder / name, delimiter=",", skiprows=1)[:, 1] for name in ("a.csv", "b.csv")), rtol=1e-3, atol=1
    )


def test_short_run_has_no_error_bars(folder, capsys):
    evaluate(PointCharges(), frames(500), ["dipole", "cell"], out=folder / "short.h5", progress=False)
    call(
        folder / "short.h5",
        "--timestep",
        STEP,
        "--temperature",
        300,
        "--resolution",
        100,
        "--max-wavenumber",
        2000,
        "--out",
        folder / "short.csv",
    )
    assert capsys.readouterr().out.endswith("; too short for error bars\n")
    assert (folder / "short.csv").read_text().startswith("wavenumber_per_cm,alpha_n_per_cm\n")
    assert 1950 < np.loadtxt(folder / "short.csv", delimiter=",", skiprows=1)[-1, 0] <= 2000


def test_mistakes(folder, capsys):
    assert "got no temperature of the frames; give --temperature" in fails(capsys, folder / "run.h5")
    images = frames(30)
    evaluate(PointCharges(), images, ["dipole"], out=folder / "no-cell.h5", progress=False)
    assert "need cell; record quantities=('dipole', 'cell', 'temperature')" in fails(capsys, folder / "no-cell.h5")
    evaluate(PointCharges(), images, ["dipole", "cell"], out=folder / "no-time.h5", progress=False)
    no_time = folder / "no-time.h5", "--temperature", 300
    assert "got no time of the frames; give --timestep" in fails(capsys, *no_time)
    assert "resolution: got 20 cm^-1 for a trajectory of 30 fs" in fails(capsys, *no_time, "--timestep", 1)
    write(folder / "plain.extxyz", images)
    assert "got no dipole in frame 0" in fails(capsys, folder / "plain.extxyz")
    assert "no such file" in fails(capsys, folder / "missing.h5").lower()
