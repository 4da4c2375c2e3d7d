"""The unit of an LDOS, from the electrons at the Fermi level that the calculation claims."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from small_ldos import ATTRIBUTES, ENERGIES, make_snapshot

from ase_mlelec import units
from ase_mlelec.data.electrons import LDOS_UNITS, electrons_below
from ase_mlelec.data.snapshots import Snapshots, write_snapshots
from ase_mlelec.physics import fermi
from ase_mlelec_entry_points.cli.main import main

GRID, LEVELS = (3, 3, 4), np.linspace(-5.0, 15.0, 41)  # eV
VALENCE = 2.0


@pytest.mark.parametrize("temperature", [0.0, 300.0, 30000.0])
def test_electrons(temperature):
    """Against the exact integrals, at levels inside and at both ends of the grid."""
    energies, dos = np.sort(np.random.default_rng(0).uniform(-6, 9, 40)), np.random.default_rng(1).uniform(1, 3, 40)
    for level in (-6.0, -2.3, 4.0, 9.0):
        exact = fermi.integration_weights(energies, level, temperature)[0] @ dos
        assert electrons_below(energies, dos, level, temperature) == pytest.approx(exact, rel=2e-3, abs=0.02)


def write_mala(folder, factor=1.0, **changes):
    """Beryllium with a free-electron-like LDOS, and a pseudopotential without anything but a header that counts."""
    atoms = bulk("Be", "hcp", a=2.29, c=3.588)
    dos = 0.05 + 0.35 * np.sqrt(np.clip(LEVELS + 4, 0, None))
    level = float(fermi.fermi_level(LEVELS, dos, VALENCE * len(atoms), 300.0))
    ldos = np.broadcast_to(dos / atoms.get_volume() * factor, (*GRID, len(dos)))
    info = {
        "atoms": {key: np.asarray(getattr(atoms, key)).tolist() for key in ("numbers", "positions", "cell", "pbc")},
        "grid_dimensions": GRID,
        "temperature": 300.0,
        "fermi_energy_dft": level,
        "number_of_electrons_exact": VALENCE * len(atoms),
        "total_energy_dft_calculation": -70.0,
        **changes,
    }
    (folder / "be.info.json").write_text(json.dumps(info))
    np.save(folder / "be.out.npy", ldos)
    column = "".join(f"<{name}> 0.1 0.6 1.1 </{name}>" for name in ("PP_R", "PP_RAB", "PP_LOCAL", "PP_RHOATOM"))
    (folder / "be.UPF").write_text(
        '<UPF version="2.0.1"><PP_HEADER element="be" z_valence="2.0D0" mesh_size="3" '
        f'functional=" SLA  PW   PBE  PBE"/>{column}</UPF>'
    )
    return level


def convert(folder, *options, grid=(-5, 15)):
    return main(
        [
            "convert",
            str(folder / "be.info.json"),
            str(folder / "be.h5"),
            "--grid",
            *map(str, grid),
            "--upf",
            str(folder / "be.UPF"),
            *options,
        ]
    )


def test_conversion(tmp_path):
    level = write_mala(tmp_path)
    assert convert(tmp_path) == 0
    stored = Snapshots(tmp_path / "be.h5")
    assert stored.attributes["xc"] == "pbe" and stored.attributes["valence_electrons"] == {"Be": 2.0}
    assert stored[0].fermi_level == level
    assert stored[0].density.mean() * stored[0].atoms.get_volume() == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("unit", sorted(LDOS_UNITS.keys() - {"1/(eV*A^3)"}))
def test_other_units(tmp_path, capsys, unit):
    """Refused with the name of the unit, and read when it is given."""
    write_mala(tmp_path, 1 / LDOS_UNITS[unit])
    assert convert(tmp_path) == 1
    message = capsys.readouterr().err
    found = float(message.partition("the LDOS holds ")[2].split()[0])
    assert found == pytest.approx(4 / LDOS_UNITS[unit], rel=0.01) and "need 4;" in message
    assert f"probably in {unit}: convert it with --ldos-unit '{unit}'" in message and message.count("\n") == 1
    assert not (tmp_path / "be.h5").exists()
    assert convert(tmp_path, "--ldos-unit", unit) == 0
    assert Snapshots(tmp_path / "be.h5")[0].dos[20] == pytest.approx(0.05 + 0.35 * np.sqrt(9))


def test_unit_of_an_ldos():
    """1/(Ry bohr^3) from the constants themselves."""
    assert LDOS_UNITS["1/(Ry*Bohr^3)"] == pytest.approx(1 / (13.605693 * 0.529177211**3), rel=1e-7)
    assert LDOS_UNITS["1/(eV*Bohr^3)"] == pytest.approx(6.748334, rel=1e-6) and units.RYDBERG > 13


def test_no_fermi_level(tmp_path):
    """Then nothing tells the unit."""
    write_mala(tmp_path, fermi_energy_dft=None)
    with pytest.warns(UserWarning, match="be.info.json: no fermi_energy_dft in it, by which the unit and the energies"):
        assert convert(tmp_path) == 0


@pytest.mark.parametrize(
    "changes, options, grid, message",
    [
        ({}, (), (0, 20), "check the energies of its grid, its unit"),  # no unit explains it
        ({"fermi_energy_dft": -4.5}, (), (-5, 15), "check the energies of its grid"),
        ({"fermi_energy_dft": None, "number_of_electrons_exact": 4.0}, (), (-5, -3), "check --grid and the unit"),
        ({}, ("--ldos-unit", "1/Ry"), (-5, 15), "got --ldos-unit 1/Ry, need one of"),
        ({}, (), (15, -5), "need two energies, the lower one first"),
        ({"number_of_electrons_exact": 6.0}, (), (-5, 15), "got 6 electrons, need the 4 of the pseudopotentials"),
    ],
)
def test_not_converted(tmp_path, capsys, changes, options, grid, message):
    write_mala(tmp_path, **changes)
    assert convert(tmp_path, *options, grid=grid) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "be.h5").exists()


def test_level_of_another_calculation(tmp_path):
    level = write_mala(tmp_path)
    write_mala(tmp_path, fermi_energy_dft=level + 0.7)
    with pytest.warns(UserWarning, match="be.out.npy: the Fermi level of the LDOS is .* that of the calculation"):
        assert convert(tmp_path) == 0


def test_unit_of_our_own_snapshots(tmp_path):
    snapshot, factor = make_snapshot(0), 1 / LDOS_UNITS["1/(Ry*Bohr^3)"]
    level = float(fermi.fermi_level(ENERGIES, snapshot.dos, 12.0, snapshot.temperature))
    assert snapshot.fermi_level == level
    for changes, message in (
        ({"ldos": snapshot.ldos * factor}, r"snapshot 'al-0', LDOS: .* as many as there are in 1/\(Ry\*Bohr\^3\)"),
        ({"dos": snapshot.dos * factor}, r"snapshot 'al-0', DOS: .* need 12, as many as there are in 1/\(Ry"),
        ({"density": snapshot.density * units.BOHR**3}, "the density holds 1.778 electrons, need 12"),
    ):
        with pytest.raises(ValueError, match=message):
            write_snapshots(tmp_path / "a.h5", [replace(snapshot, **changes)], energies=ENERGIES, attributes=ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_unit_of_snapshots_that_others_wrote(tmp_path):
    """Without valence charges nothing can be told; with them it is, when the file is read."""
    import h5py

    snapshot = make_snapshot(0)
    wrong = replace(snapshot, dos=snapshot.dos / LDOS_UNITS["1/(Ry*Bohr^3)"])
    bare = {key: value for key, value in ATTRIBUTES.items() if key != "valence_electrons"}
    write_snapshots(tmp_path / "a.h5", [wrong], energies=ENERGIES, attributes=bare)
    assert len(list(Snapshots(tmp_path / "a.h5"))) == 1
    with h5py.File(tmp_path / "a.h5", "a") as file:
        known = json.loads(file.attrs["ase_mlelec_snapshots"])
        file.attrs["ase_mlelec_snapshots"] = json.dumps({**known, **ATTRIBUTES})
    with pytest.raises(ValueError, match="a.h5: snapshot 'al-0', DOS"):
        Snapshots(tmp_path / "a.h5")[0]
