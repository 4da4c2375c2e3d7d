"""Names of labels, kinds and weights that users have, and trajectories among structures."""

import re
import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from small_trajectories import displaced, trajectory

from ase_mlelec import units
from ase_mlelec.data.blocks import distance, pieces, runs
from ase_mlelec.data.frames import from_images, read_frames, to_images, write_hdf5
from ase_mlelec.data.keys import STRESS_UNITS
from ase_mlelec.train.config.whole import KeysConfig


def copper(**info):
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(info)
    atoms.arrays["REF_forces"] = np.full((4, 3), 0.5)
    return atoms


# labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "info, read",
    [
        ({"REF_energy": -1.0}, "energy: REF_energy, forces: REF_forces"),
        ({"energy_vasp": -1.0}, "energy: energy_vasp, forces: REF_forces"),
        ({"E": -1.0}, "energy: E, forces: REF_forces"),
        ({"REF_energy": -1.0, "MACE_energy": -9.0}, "energy: REF_energy, forces: REF_forces"),
        ({"dft_energy": -1.0, "kinetic_energy": 0.2}, "energy: dft_energy, forces: REF_forces"),
        ({"energy_dft": -1.0, "energy_pred": -9.0}, "energy: energy_dft, forces: REF_forces"),
        ({"REF_energy": -1.0, "REF_dipole": [0.0, 0.0, 1.0]}, "dipole: REF_dipole"),
    ],
)
def test_the_only_key_that_can_mean_a_label_is_read(info, read):
    with pytest.warns(UserWarning, match=f"read as .*{read}"):
        (frame,) = from_images([copper(**info)])
    assert frame.labels["energy"] == -1 and frame.labels["forces"].shape == (4, 3)


def test_results_of_models_are_no_labels():
    """Where a file has these alone, too."""
    atoms = bulk("Cu", cubic=True)
    atoms.info.update(energy_pred=-1.0, MACE_energy=-1.1)
    with pytest.warns(UserWarning, match="MACE_energy, energy_pred may be labels but are not read"):
        (frame,) = from_images([atoms])
    assert not frame.labels


@pytest.mark.parametrize(
    "name",
    [
        "energy_meV",
        "energy_kJmol",
        "energy_kcalmol",
        "energy_eVatom",
        "energy/atom",
        "energy_pa",
        "TotalEnergyHa",
        "E_Eh",
    ],
)
def test_units_in_names(name, tmp_path):
    """The energy alone, so that its name would be good enough without the unit."""
    atoms = bulk("Cu", cubic=True)
    atoms.info[name] = -1.0
    write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(ValueError, match=f"{name} is in another unit or per atom, by its name: convert it to eV"):
        read_frames(tmp_path / "a.extxyz")


@pytest.mark.parametrize("name, unit", [("stress_kbar", "kbar"), ("stress_kBar", "kbar"), ("stress_GPa", "GPa")])
def test_units_of_stress_in_names(name, unit):
    """They are read with the settings that the message names; the sign is open."""
    atoms = bulk("Cu", cubic=True)
    atoms.info = {"energy": -1.0, name: [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]}
    with pytest.warns(UserWarning, match=f"not read; .* --key stress={name} --key stress_unit={unit} .with - before"):
        assert "virial" not in from_images([atoms])[0].labels
    (frame,) = from_images([atoms], keys={"stress": name, "stress_unit": unit})
    factor = {"kbar": units.GPA / 10, "GPa": units.GPA}[unit]
    np.testing.assert_allclose(frame.labels["virial"], -factor * atoms.get_volume() * np.diag([1.0, 2.0, 3.0]))


def test_units_that_are_ours_in_names():
    atoms = bulk("Cu", cubic=True)
    atoms.arrays["forces_eV_per_A"] = np.full((4, 3), 0.5)
    with pytest.warns(UserWarning, match="read as forces: forces_eV_per_A"):
        assert "forces" in from_images([atoms])[0].labels


@pytest.mark.parametrize("name", ["polarization", "total_polarisation"])
def test_polarization_is_no_polarizability(name):
    atoms = bulk("Cu", cubic=True)
    atoms.info = {"energy": -1.0, name: [0.1, 0.2, 0.3]}
    with pytest.warns(UserWarning, match=f"{name} may be labels but are not read$"):
        from_images([atoms])


def test_column_is_no_energy():
    atoms = copper(energy=-1.0)
    atoms.arrays["dE_dR"] = np.ones((4, 3))
    del atoms.arrays["REF_forces"]
    with pytest.warns(UserWarning, match="dE_dR may be labels but are not read$"):
        from_images([atoms])


def test_energy_of_two_numbers():
    with pytest.raises(ValueError, match=r"label 'energy' has shape \(2,\), needed one number$"):
        from_images([copper(energy=[-1.0, -1.0])])


@pytest.mark.parametrize("info", [{"unit": "kcal/mol"}, {"energy_units": "Hartree"}, {"length_unit": "Bohr"}])
def test_units_that_a_file_names(info):
    (key, value), atoms = *info.items(), copper(energy=-1.0, **info)
    with pytest.raises(ValueError, match=f"it says {key} = '{value}', but labels are read in eV and Å; convert them"):
        from_images([atoms])


@pytest.mark.filterwarnings("ignore:.*REF_forces may be labels")
@pytest.mark.parametrize(
    "info", [{"unit": "eV"}, {"units": "metal"}, {"force_unit": "eV/Å"}, {"stress_unit": "eV/Ang^3"}]
)
def test_units_that_are_ours(info):
    (frame,) = from_images([copper(energy=-1.0, **info)])
    assert frame.labels["energy"] == -1


@pytest.mark.parametrize("name", ["TotEnergy", "total_energy", "E", "etot", "epot", "energy_corrected"])
def test_plain_energy_beside_usual_forces(name):
    atoms = bulk("Cu", cubic=True)
    atoms.arrays["forces"] = np.full((4, 3), 0.5)
    atoms.info[name] = -1.5
    with pytest.warns(UserWarning, match=f"read as energy: {name}$"):
        (frame,) = from_images([atoms])
    assert frame.labels["energy"] == -1.5
    atoms.info["kinetic_energy"] = 0.3  # the other may be the sum
    with pytest.warns(UserWarning, match="kinetic_energy.* may be labels but are not read"):
        (frame,) = from_images([atoms])
    assert "energy" not in frame.labels or name == "epot"


def test_potential_energy_beside_kinetic_and_total():
    atoms = bulk("Cu", cubic=True)
    atoms.arrays["forces"] = np.full((4, 3), 0.5)
    atoms.info.update(kinetic_energy=0.3, total_energy=-1.2, potential_energy=-1.5)
    with pytest.warns(UserWarning, match="read as energy: potential_energy"):
        (frame,) = from_images([atoms])
    assert frame.labels["energy"] == -1.5
    atoms.info.update(MACE_energy=-1.4, potential_energy=-1.5, epot=-1.6)
    with pytest.warns(UserWarning, match="may be labels but are not read"):
        (frame,) = from_images([atoms])
    assert "energy" not in frame.labels


def test_e_alone_is_in_hartree_as_often_as_in_ev():
    atoms = bulk("Cu", cubic=True)
    atoms.info["E"] = -1.5
    with pytest.warns(UserWarning, match=r"E may be labels but are not read; .* --key energy=E"):
        (frame,) = from_images([atoms])
    assert not frame.labels


@pytest.mark.parametrize("name", ["gradient", "dft_grad", "frc"])
def test_columns_that_may_be_forces_are_named(name):
    atoms = bulk("Cu", cubic=True)
    atoms.info["energy"] = -1.5
    atoms.arrays[name] = np.full((4, 3), 0.5)
    with pytest.warns(UserWarning, match=f"{name} may be labels but are not read"):
        (frame,) = from_images([atoms])
    assert frame.labels.keys() == {"energy"}


@pytest.mark.parametrize(
    "info",
    [
        {"gap_energy": -1.0, "mace_energy": -1.1},  # two, and none is the reference
        {"dft_energy": -1.0, "REF_energy": -1.1},
        {"energy": -1.0, "forces_of_a_model": 0.0},  # a usual name: the others are of another calculation
    ],
)
def test_what_is_open_is_named(info):
    with pytest.warns(UserWarning, match="may be labels but are not read"):
        (frame,) = from_images([copper(**info)])
    assert "forces" not in frame.labels


def test_databases_of_ase(tmp_path):
    """Entries of the user are in tables of their own."""
    atoms = copper()
    del atoms.arrays["REF_forces"]
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0)
    with connect(tmp_path / "a.db") as database:
        database.write(atoms, config_type="surface", data={"dipole": np.array([0.0, 0.0, 2.0])})
    (frame,) = read_frames(tmp_path / "a.db")
    assert frame.labels["energy"] == -3 and frame.kind == "surface"
    np.testing.assert_array_equal(frame.labels["dipole"], [0, 0, 2])


def test_free_energy_of_gpaw(tmp_path):
    """ASE takes the energy at a width of zero alone from GPAW's text output."""
    rows = [
        "Positions:",
        "   0 Al     0.000000    0.000000    0.000000    ( 0.0000,  0.0000,  0.0000)",
        "",
        "Unit cell:",
    ]
    rows += ["           periodic     x           y           z      points  spacing"]
    rows += [
        f"  {k + 1}. axis:    yes    {'    '.join(f'{4.0 * (k == j):.6f}' for j in range(3))}    20     0.2"
        for k in range(3)
    ]
    rows += ["", "Dipole moment: (0.1, 0.2, 0.3) |e|*Ang"]
    rows += ["", "Energy contributions relative to reference atoms: (reference = -100.0)", "", "Kinetic:         +1.0"]
    rows += [
        "Entropy (-ST):   -0.20",
        "--------------------------",
        "Free energy:    -16.20",
        "Extrapolated:   -16.10",
        "",
    ]
    rows += ["Forces in eV/Ang:", "  0 Al    0.00000    0.00000   -0.00000", "", "Date: x", ""]
    (tmp_path / "a.txt").write_text("\n".join(["", "  ___ ___ ___ _ _ _  ", " |   |   |_  | | | | ", *rows]))
    with (
        pytest.warns(UserWarning, match="energy is free_energy, which is up to 0.1 eV/atom away"),
        pytest.warns(UserWarning, match="the dipoles of 1 periodic structures are not read"),
    ):
        (frame,) = read_frames(tmp_path / "a.txt")
    assert frame.labels["energy"] == -16.2 and "dipole" not in frame.labels
    text = (tmp_path / "a.txt").read_text().replace("axis:    yes", "axis:    no ")
    (tmp_path / "a.txt").write_text(text)
    with pytest.warns(UserWarning, match="energy is free_energy"):
        (frame,) = read_frames(tmp_path / "a.txt")
    np.testing.assert_array_equal(frame.labels["dipole"], [0.1, 0.2, 0.3])


def test_labels_of_several_calculators(tmp_path):
    images = [copper(energy=-1.0) for _ in range(3)]
    for atoms, name in zip(images, ["vasp", "emt", "unknown"]):
        del atoms.arrays["REF_forces"]
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
        atoms.calc.name = name
    with connect(tmp_path / "a.db") as database:
        for atoms in images:
            database.write(atoms)
    with pytest.warns(UserWarning, match=r"a.db: the labels are of several calculators \(emt, vasp\)"):
        read_frames(tmp_path / "a.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_images(images[1:])


@pytest.mark.parametrize("unit", STRESS_UNITS)
def test_units_of_stress(unit):
    """Against ASE's unit, for a stress of 2 GPa in tension along x."""
    size = {"eV/A^3": 2 * units.GPA, "GPa": 2.0, "kbar": 20.0}[unit.removeprefix("-")]
    stress = np.diag([-size if unit.startswith("-") else size, 0, 0])
    atoms = copper(energy=-1.0, stress=stress)
    del atoms.arrays["REF_forces"]
    (frame,) = from_images([atoms], keys={"stress_unit": unit})
    expected = -2 * units.GPA * atoms.get_volume()
    np.testing.assert_allclose(frame.labels["virial"], np.diag([expected, 0, 0]))
    atoms.info["virial"] = np.diag([expected, 0, 0])
    assert from_images([atoms], keys={"stress_unit": unit}).counts["virial"] == 1
    if unit != "eV/A^3":  # the virial tells the unit
        with pytest.raises(ValueError, match=re.escape(f'set stress_unit = "{unit}" in [data.keys]')):
            from_images([atoms])


def test_units_of_stress_of_the_setting():
    field = KeysConfig.model_json_schema()["properties"]["stress_unit"]["anyOf"][0]["enum"]
    assert field == [*STRESS_UNITS]
    with pytest.raises(ValueError, match="keys: got stress_unit = 'bar', need one of eV/A.3, GPa"):
        from_images([copper()], keys={"stress_unit": "bar"})


def test_results_of_a_calculator_are_in_ase_units():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, stress=np.array([0.1, 0, 0, 0, 0, 0]))
    (frame,) = from_images([atoms], keys={"stress_unit": "kbar"})
    assert frame.labels["virial"][0, 0] == pytest.approx(-0.1 * atoms.get_volume())


# groups, kinds and weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "info, keys, group, kind",
    [
        ({"config_type": "bulk"}, {}, "", "bulk"),
        ({"kind": "bulk", "group": "test"}, {}, "test", "bulk"),
        ({"split": "train", "dataset": 3}, {}, "train", "3"),
        ({"config_type": "bulk"}, {"group": "config_type"}, "bulk", ""),
        ({"origin": "bulk", "config_type": "x"}, {"kind": "origin"}, "", "bulk"),
        ({"category": np.zeros(3)}, {}, "", ""),
    ],
)
def test_groups_and_kinds(info, keys, group, kind):
    atoms = copper(energy=-1.0, **info)
    del atoms.arrays["REF_forces"]
    (frame,) = from_images([atoms], keys=keys)
    assert (frame.group, frame.kind) == (group, kind)


def test_weights():
    atoms = copper(energy=-1.0, stress=np.eye(3), config_weight=0.5, config_stress_weight=0.1)
    atoms.info |= {"config_energy_weight": 4, "config_forces_weight": 0.0, "config_type": "bulk"}
    atoms.arrays["forces"] = atoms.arrays.pop("REF_forces")
    frames = from_images([atoms])
    frame = frames[0]
    assert frame.weight == 0.5 and frame.label_weights == {"energy": 4, "virial": 0.1}
    assert set(frame.labels) == {"energy", "virial"}  # a weight of zero: no label
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match="frame 0, config_weight: got .*, need a weight of 0 or more"):
            from_images([copper(energy=-1.0, config_weight=bad)])


@pytest.mark.parametrize("form", ["h5", "xyz"])
def test_kinds_and_weights_in_files(form, tmp_path):
    frames = from_images([bulk("Cu"), bulk("Cu")])
    for k, frame in enumerate(frames):
        frame.labels = {"energy": -1.0, "forces": np.zeros((1, 3))}
        frame.kind, frame.weight = ("", "bulk")[k], (1.0, 0.3)[k]
        frame.label_weights = ({}, {"energy": 2.0})[k]
    if form == "h5":
        write_hdf5(tmp_path / "a.h5", frames)
    else:
        write(tmp_path / "a.xyz", to_images(frames))
    found = read_frames(tmp_path / f"a.{form}")
    assert [(f.kind, f.weight, f.label_weights) for f in found] == [("", 1.0, {}), ("bulk", 0.3, {"energy": 2.0})]
    assert found.fingerprint() == frames.fingerprint()
    found[1].label_weights["energy"] = 1.5
    assert found.fingerprint() != frames.fingerprint()


# trajectories --------------------------------------------------------------------------------------------------------


def test_runs_of_a_trajectory():
    images = trajectory(24) + displaced(10) + [bulk("Cu")] + trajectory(16, seed=1)
    found = runs(images)
    assert [len(run) for run in found if len(run) > 1] == [24, 16]
    assert [k for run in found for k in run] == list(range(len(images)))


def test_pieces_are_short_and_cover_everything():
    images = trajectory(40)
    found = pieces(images, fraction=0.3)
    assert [k for piece in found for k in piece] == list(range(40))
    assert {len(piece) for piece in found} == {4}
    assert all(len(piece) == 1 for piece in pieces(displaced(30), fraction=0.3))


def test_distance_knows_images_drift_and_strain():
    first = bulk("Cu", cubic=True)
    second = first.copy()
    second.positions += 0.7
    second.wrap()
    assert distance(first, second) == pytest.approx(0, abs=1e-12)
    second.positions[0, 0] += 0.4
    expected = np.sqrt((3 * 0.1**2 + 0.3**2) / 4)
    assert distance(first, second) == pytest.approx(expected)
    third = first.copy()
    third.set_cell(first.cell * 1.1, scale_atoms=True)
    assert distance(first, third) == pytest.approx(0.1 * 3.61)
