"""MALA's snapshots: files made here, what must be refused, and MALA's own Be2 data."""

import json
from pathlib import Path

import numpy as np
import pytest

from ase_mlelec.io.espresso import read_pw
from ase_mlelec.io.mala import read_mala
from ase_mlelec.physics.fermi import fermi_level, integration_weights

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "mala"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference data in {REFERENCE}")

GRID = (2, 3, 4)
CELL = np.array([[3.0, 0, 0], [-1, 2.5, 0], [0.3, 0.4, 5]])
INFO = {
    "fermi_energy_dft": 7.5,
    "temperature": 298.0,
    "number_of_electrons_exact": 6.0,
    "band_energy_dft_calculation": 1.0,
    "total_energy_dft_calculation": -20.0,
    "grid_dimensions": [2, 3, 4],
    "entropy_contribution_dft_calculation": -0.01,
    "one_electron_contribution": None,
    "atoms": {
        "numbers": [13, 13],
        "positions": [[0, 0, 0], [1, 1, 2.5]],
        "cell": CELL.tolist(),
        "pbc": [True, True, True],
    },
}
FEATURES = np.random.default_rng(0).normal(size=(*GRID, 5)).astype(np.float32)
LDOS = np.random.default_rng(1).uniform(size=(*GRID, 7))


def coordinates(cell=CELL):
    fractions = np.stack(np.meshgrid(*(np.arange(n) / n for n in GRID), indexing="ij"), axis=-1)
    return fractions @ cell


def write(folder, info=INFO, fingerprints=None, ldos=LDOS):
    """Arguments of read_mala for files of these contents."""
    if fingerprints is None:
        fingerprints = np.concatenate([coordinates(), FEATURES], axis=-1).astype(np.float32)
    (folder / "info.json").write_text(json.dumps(info))
    np.save(folder / "in.npy", fingerprints)
    np.save(folder / "out.npy", ldos)
    return dict(
        info=folder / "info.json",
        input_npy=folder / "in.npy",
        output_npy=folder / "out.npy",
        grid_offset=-6.0,
        grid_spacing=0.5,
    )


def test_round_trip(tmp_path):
    found = read_mala(**write(tmp_path))
    assert np.array_equal(found.fingerprints, FEATURES) and found.fingerprints.dtype == np.float32
    assert np.array_equal(found.ldos, LDOS) and found.grid == GRID and type(found.ldos) is np.ndarray
    np.testing.assert_allclose(found.energies, [-6, -5.5, -5, -4.5, -4, -3.5, -3])
    assert found.terms == {"band": 1.0, "entropy": -0.01} and found.forces is None
    assert (found.temperature, found.fermi_level, found.energy, found.n_electrons) == (298.0, 7.5, -20.0, 6.0)
    assert found.atoms.get_chemical_formula() == "Al2" and found.atoms.pbc.all()
    assert np.array_equal(found.atoms.cell, CELL) and np.array_equal(found.atoms.positions[1], [1, 1, 2.5])


def test_least_information(tmp_path):
    info = {key: INFO[key] for key in ("atoms", "grid_dimensions")}
    found = read_mala(write(tmp_path, info)["info"])
    assert found.fingerprints is found.ldos is found.energies is found.energy is found.n_electrons is None
    assert found.terms == {}


def test_turned_coordinates(tmp_path):
    """LAMMPS turns a cell into its own frame, and the coordinates with it."""
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    fingerprints = np.concatenate([coordinates() @ turn, FEATURES], axis=-1)
    np.testing.assert_array_equal(read_mala(**write(tmp_path, fingerprints=fingerprints)).fingerprints, FEATURES)


def without(key):
    return {name: value for name, value in INFO.items() if name != key}


@pytest.mark.parametrize(
    "contents, message",
    [
        (dict(info=without("atoms")), "info.json: no atoms; write it with MALA's data converter"),
        (dict(info=without("grid_dimensions")), "info.json: no grid_dimensions"),
        (dict(info=[1, 2]), "info.json: no atoms and no grid_dimensions"),
        (dict(info={**INFO, "grid_dimensions": [2, 3]}), "info.json: atoms or grid_dimensions incomplete"),
        (
            dict(info={**INFO, "atoms": {"numbers": [13]}}),
            "atoms or grid_dimensions incomplete .KeyError: 'positions'.",
        ),
        (dict(info={**INFO, "grid_dimensions": [2, 3, 5]}), r"in.npy: got shape .2, 3, 4, 8., need the grid .2, 3, 5."),
        (dict(fingerprints=FEATURES), "in.npy: the first three columns are not the coordinates of the grid"),
        (dict(fingerprints=coordinates()), "in.npy: the first three columns are not"),
        (dict(fingerprints=np.concatenate([coordinates(CELL * 1.01), FEATURES], -1)), "first three columns are not"),
        (dict(ldos=LDOS[:, :, :3]), "out.npy: got shape .2, 3, 3, 7., need the grid .2, 3, 4."),
        (dict(ldos=LDOS.reshape(24, 7)), "out.npy: got shape .24, 7."),
        (dict(ldos=LDOS.astype(complex)), "out.npy: got complex128, need an npy file of real numbers"),
        (dict(ldos=np.where(LDOS == LDOS.max(), np.nan, LDOS)), "out.npy: got NaN or infinite values"),
    ],
)
def test_refused(tmp_path, contents, message):
    arguments = write(tmp_path, **contents)
    with pytest.raises(ValueError, match=message) as caught:
        read_mala(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:70], lambda data: b""], ids=["cut", "header", "empty"]
)
def test_truncated(tmp_path, damage):
    arguments = write(tmp_path)
    path = arguments["output_npy"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="out.npy: missing, truncated or not npy .*; convert the data again"):
        read_mala(**arguments)


def test_other_files(tmp_path):
    arguments = write(tmp_path)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "x.npz", LDOS)
    for name, message in (
        ("object.npy", "truncated or not npy"),
        ("x.npz", "got an npz archive, need an npy file"),
        ("none.npy", "missing, truncated"),
    ):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            read_mala(**{**arguments, "output_npy": tmp_path / name})
    arguments["info"].write_text('{"atoms": ')
    with pytest.raises(ValueError, match="info.json: missing, truncated or not JSON"):
        read_mala(**arguments)


def changed(**atoms):
    return {**INFO, "atoms": {**INFO["atoms"], **atoms}}


@pytest.mark.parametrize(
    "info, message",
    [
        ({**INFO, "grid_dimensions": [float("inf"), 3, 4]}, "grid_dimensions is NaN or infinite .entry 1."),
        ({**INFO, "grid_dimensions": [-2, 3, 4]}, r"grid_dimensions is \[-2, 3, 4\], need whole numbers from 1"),
        ({**INFO, "grid_dimensions": [2.5, 3, 4]}, "grid_dimensions is .* need whole numbers"),
        ({**INFO, "grid_dimensions": "234"}, "grid_dimensions holds something else than numbers|has shape"),
        ({**INFO, "grid_dimensions": 24}, "atoms or grid_dimensions incomplete"),
        (changed(positions=[[float("nan"), 0, 0], [1, 1, 2.5]]), "atoms/positions is NaN or infinite .entry 1, 1."),
        (changed(positions=[[0, 0, 0]]), r"atoms/positions has shape \(1, 3\), need \(2, 3\)"),
        (changed(positions=[[0, 0, 0], [1, 1]]), "atoms/positions holds something else than numbers"),
        (changed(positions=[["0", 0, 0], [1, 1, 2.5]]), "atoms/positions holds something else than numbers"),
        (changed(cell=[[0, 0, 0]] * 3), "atoms/cell has no volume"),
        (changed(cell=None), "atoms/cell"),
        (changed(numbers=[13, 213]), "atoms/numbers is .* need whole numbers from 1 to 118"),
        (changed(numbers=[13, "Al"]), "atoms/numbers holds something else than numbers"),
        (changed(numbers=7), "atoms or grid_dimensions incomplete"),
        (changed(numbers=[]), "atoms/numbers"),
        (changed(pbc=["yes", "no", "no"]), "atoms/pbc is .* need three of true or false"),
        ({**INFO, "atoms": "Al2"}, "atoms or grid_dimensions incomplete"),
        ({**INFO, "fermi_energy_dft": float("nan")}, "fermi_energy_dft is NaN or infinite"),
        ({**INFO, "fermi_energy_dft": "7.5"}, "fermi_energy_dft is '7.5', need a number"),
        ({**INFO, "temperature": -1.0}, "got temperature -1, need more"),
        (
            {**INFO, "total_energy_dft_calculation": 10**400},
            "total_energy_dft_calculation holds something else|infinite",
        ),
        ({**INFO, "band_energy_dft_calculation": [1.0]}, "band_energy_dft_calculation is .* need a number"),
        ({**INFO, "atomic_forces_dft": [[0, 0, 0]]}, "atomic_forces_dft has shape"),
    ],
)
def test_damaged_info(tmp_path, info, message):
    arguments = write(tmp_path, info)
    with pytest.raises(ValueError, match=f"info.json: ({message})") as caught:
        read_mala(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100000, '{"atoms": 1e', "\0", "{" * 50, '{"atoms": {"numbers": [13]}'])
def test_no_json(tmp_path, text):
    arguments = write(tmp_path)
    arguments["info"].write_text(text)
    with pytest.raises(ValueError, match="info.json: missing, truncated or not JSON"):
        read_mala(**arguments)


def test_arrays_that_are_not_whole(tmp_path):
    """Nothing is allocated for what a header promises, and no objects are loaded."""
    arguments, path = write(tmp_path), tmp_path / "out.npy"
    whole = path.read_bytes()
    for data in (
        whole[:-8],
        whole + b"12345678",
        whole[:40],
        b"",
        whole.replace(b"(2, 3, 4, 7)", b"(2, 3, 4, 9)"),
        whole.replace(b"(2, 3, 4, 7), }   ", b"(2, 3, 4, 99999)}"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="out.npy: missing, truncated or not npy .*; convert the data again$"):
            read_mala(**arguments)


@pytest.mark.parametrize("change", [dict(grid_offset=None), dict(grid_spacing=None), dict(grid_spacing=0.0)])
def test_energies_are_needed(tmp_path, change):
    with pytest.raises(ValueError, match="need the energies in eV; take ldos_gridoffset_ev and ldos_gridspacing_ev"):
        read_mala(**{**write(tmp_path), **change})


# MALA's data -------------------------------------------------------------------------------------------------------


def beryllium(index):
    stem = REFERENCE / "Be2" / f"Be_snapshot{index}"
    return read_mala(
        f"{stem}.info.json",
        input_npy=f"{stem}.in.npy",
        output_npy=f"{stem}.out.npy",
        grid_offset=-5.0,
        grid_spacing=2.5,
    )


def spectrum(snapshot):
    """Energies and DOS as MALA sees them: falling to zero one step beyond both ends."""
    dos = snapshot.ldos.astype(float).mean(axis=(0, 1, 2)) * snapshot.atoms.get_volume()
    return np.pad(snapshot.energies, 1, "linear_ramp", end_values=(-7.5, 22.5)), np.pad(dos, 1)


@needs_reference
@pytest.mark.parametrize("index", [0, 1])
def test_info_is_the_run_of_pw(index):
    """The same numbers from pw.x' text output by our own reader, to the digits that pw.x prints."""
    found = beryllium(index)
    run = read_pw(REFERENCE / "Be2" / f"Be_snapshot{index}.out")
    assert found.energy == pytest.approx(run.energy, abs=1e-6)
    assert {**found.terms, "band": None} == pytest.approx({**run.terms, "band": None}, abs=1e-6)
    assert found.fermi_level == pytest.approx(run.fermi_level, abs=1e-9) and found.n_electrons == run.n_electrons
    np.testing.assert_allclose(found.forces, run.forces, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.atoms.cell, run.cell, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.atoms.positions, run.positions, rtol=0, atol=1e-4)
    assert sum(value for name, value in found.terms.items() if name != "band") == pytest.approx(found.energy, abs=1e-6)
    assert found.fingerprints.shape == (18, 18, 27, 91) and found.ldos.shape == (18, 18, 27, 11)


@needs_reference
@pytest.mark.parametrize("index", [0, 1])
def test_unit_of_the_ldos(index):
    """4 electrons at the Fermi level that MALA finds; in 1/(eV bohr^3) there would be 6.7 times as many."""
    found = beryllium(index)
    wanted = json.loads((REFERENCE / "postproc_be2.json").read_text())[f"snap{index}"]
    energies, dos = spectrum(found)
    np.testing.assert_allclose(dos[1:-1], wanted["dos"], rtol=1e-12)
    level = fermi_level(energies, dos, 4.0, found.temperature)
    assert level == pytest.approx(wanted["fermi_sc_eV"], abs=1e-6)
    number = integration_weights(energies, wanted["fermi_sc_eV"], found.temperature)[0] @ dos
    assert number == pytest.approx(4, abs=1e-6)
    # at pw.x' Fermi level the coarse grid (2.5 eV) holds 3.55 electrons
    number = integration_weights(energies, found.fermi_level, found.temperature)[0] @ dos
    assert number == pytest.approx(wanted["n_at_dft_fermi"], abs=1e-6)


@needs_reference
def test_density_from_the_ldos():
    """Against pw.x' density, point by point, with the deviations that an independent program finds."""
    found = beryllium(0)
    wanted = json.loads((REFERENCE / "postproc_be2.json").read_text())["snap0"]["density_vs_qe"]
    density = np.load(REFERENCE / "Be2" / "Be_snapshot0.dens.npy", allow_pickle=False)[..., 0]
    energies, dos = spectrum(found)
    level = fermi_level(energies, dos, 4.0, found.temperature)
    weights = integration_weights(energies, level, found.temperature)[0][1:-1]
    from_ldos = found.ldos @ weights
    assert density.mean() * found.atoms.get_volume() == pytest.approx(wanted["qe_integral"], rel=1e-12)
    assert 100 * np.mean(np.abs(from_ldos / density - 1)) == pytest.approx(wanted["mape_percent"], rel=1e-6)
    assert np.corrcoef(from_ldos.ravel(), density.ravel())[0, 1] == pytest.approx(wanted["corr"], rel=1e-6)
