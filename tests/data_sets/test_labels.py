"""Labels as other programs write them: read under their names, by a setting, or named as not read."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from ase_mlelec.data.frames import from_images, read_all, read_frames, to_images, write_hdf5

CELL = np.array([[5.4, 0.3, 0.0], [0.0, 5.1, 0.2], [0.1, 0.0, 5.0]])
TENSOR = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])
NINE, SIX = "1.0 0.1 0.2 0.1 2.0 0.3 0.2 0.3 3.0", "1.0 2.0 3.0 0.3 0.2 0.1"


def text_of(comment="energy=-10", columns="forces:R:3", rows=("0.1 0.2 0.3", "-0.1 -0.2 -0.3"), lattice=CELL):
    """An extxyz frame of two atoms."""
    cell = "" if lattice is None else f'Lattice="{" ".join(map(str, np.ravel(lattice)))}" pbc="T T T" '
    properties = f"species:S:1:pos:R:3:{columns}".rstrip(":")
    return f"2\n{cell}Properties={properties} {comment}\nSi 0 0 0 {rows[0]}\nO 1.4 1.3 1.2 {rows[1]}\n"


def frames_of(folder, *frames, keys=None):
    path = folder / "a.xyz"
    path.write_text("".join(frames))
    return read_frames(path, keys=keys)


def refused(folder, message, *frames, keys=None):
    with pytest.raises(ValueError, match=message) as caught:
        frames_of(folder, *frames, keys=keys)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(folder / "a.xyz"))


# names that are read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["energy", "Energy", "ENERGY", "free_energy"])
def test_energy(name, tmp_path):
    assert frames_of(tmp_path, text_of(f"{name}=-10")).frames[0].labels["energy"] == -10


def test_free_energy_comes_before_energy(tmp_path):
    """Forces are the gradient of the free energy."""
    with pytest.warns(UserWarning, match="energy is free_energy, which is up to 0.05 eV/atom away from energy"):
        frames = frames_of(tmp_path, text_of("energy=-9.9 free_energy=-10"))
    assert frames[0].labels["energy"] == -10
    with pytest.warns(UserWarning, match="free_energy may be labels but are not read"):
        frames = frames_of(tmp_path, text_of("energy=-9.9 free_energy=-10"), keys={"energy": "energy"})
    assert frames[0].labels["energy"] == -9.9


@pytest.mark.parametrize("name", ["forces", "force", "Forces"])
def test_forces(name, tmp_path):
    labels = frames_of(tmp_path, text_of(columns=f"{name}:R:3")).frames[0].labels
    np.testing.assert_array_equal(labels["forces"], [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])


@pytest.mark.parametrize("name", ["virial", "virials", "Virial"])
@pytest.mark.parametrize("numbers", [NINE, SIX])
def test_virial(name, numbers, tmp_path):
    labels = frames_of(tmp_path, text_of(f'energy=-10 {name}="{numbers}"')).frames[0].labels
    np.testing.assert_allclose(labels["virial"], TENSOR)


@pytest.mark.parametrize("numbers", [NINE, SIX])
def test_stress(numbers, tmp_path):
    labels = frames_of(tmp_path, text_of(f'energy=-10 stress="{numbers}"')).frames[0].labels
    np.testing.assert_allclose(labels["virial"], -TENSOR * np.linalg.det(CELL))


def test_virial_is_minus_the_derivative_by_strain(tmp_path):
    """Key ``stress`` as ASE writes it, and key ``virial`` = -stress x volume, against differences of energies."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    strain = np.array([[0.02, 0.01, 0.0], [0.01, -0.01, 0.005], [0.0, 0.005, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.calc = EMT()
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for step in (1e-5, -1e-5):
                moved = atoms.copy()
                change = np.eye(3)
                change[i, j] += step / 2
                change[j, i] += step / 2
                moved.set_cell(atoms.cell.array @ change, scale_atoms=True)
                moved.calc = EMT()
                expected[i, j] -= moved.get_potential_energy() / (2 * step)
    virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), stress=atoms.get_stress())
    write(tmp_path / "stress.xyz", atoms)
    atoms.calc = None
    atoms.info["virial"] = virial
    write(tmp_path / "virial.xyz", atoms)
    assert "virial=" in (tmp_path / "virial.xyz").read_text()
    for name in ("stress", "virial"):
        got = read_frames(tmp_path / f"{name}.xyz").frames[0].labels["virial"]
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_virial_beside_stress(tmp_path):
    stress = " ".join(map(str, np.ravel(-TENSOR / np.linalg.det(CELL))))
    both = frames_of(tmp_path, text_of(f'virial="{NINE}" stress="{stress}"'))
    np.testing.assert_allclose(both.frames[0].labels["virial"], TENSOR)
    refused(
        tmp_path,
        "frame 0: its virial is not -stress x volume.*unit or sign",
        text_of(f'virial="{NINE}" stress="{stress.replace("-", "")}"'),
    )


def test_zeros_in_place_of_a_stress(tmp_path):
    """Programs write them where none was calculated; a lone atom has none."""
    zeros = 'energy=-10 stress="0 0 0 0 0 0 0 0 0"'
    with pytest.warns(UserWarning, match="the stress of 1 structures is exactly zero, .* and is not read"):
        frames = frames_of(tmp_path, text_of(zeros), text_of(f'energy=-10 virial="{NINE}"'))
    assert frames.counts == {"energy": 2, "forces": 2, "virial": 1}
    alone = zeros + f' Lattice="{" ".join(map(str, CELL.ravel()))}"'
    assert frames_of(tmp_path, f"1\n{alone}\nSi 0 0 0\n").counts == {"energy": 1, "virial": 1}


def test_virial_or_stress(tmp_path):
    """A name with both words may be either: no unit and sign is suggested."""
    with pytest.warns(UserWarning, match="virial_stress may be labels but are not read$"):
        assert "virial" not in frames_of(tmp_path, text_of(f'energy=-10 virial_stress="{NINE}"')).counts


def test_label_that_stands_twice(tmp_path):
    refused(tmp_path, "the comment has energy 2 times; leave one", text_of("energy=-10 energy=-11"))
    refused(tmp_path, "the comment has Lattice 2 times", text_of('energy=-10 Lattice="9 0 0 0 9 0 0 0 9"'))
    other = frames_of(tmp_path, text_of('energy=-10 step=1 step=2 comment="energy=-11 \\"energy=-12"'))
    assert other[0].labels["energy"] == -10


def test_no_column_of_positions(tmp_path):
    text = text_of().replace("pos:R:3", "scaled_positions:R:3")
    refused(tmp_path, "names no column pos, of positions in Å; correct it", text)


def test_columns_without_a_name(tmp_path):
    with pytest.warns(UserWarning, match=r"a.xyz: not read, as Properties .*: columns 5 to 7 \(line 3\)"):
        assert frames_of(tmp_path, text_of(columns="")).counts == {"energy": 1}
    with pytest.warns(UserWarning, match=r": column 8 \(line 3\)"):
        assert frames_of(tmp_path, text_of(rows=("1 2 3 4", "1 2 3 4"))).counts == {"energy": 1, "forces": 1}


def test_dipole_and_polarizability(tmp_path):
    labels = frames_of(tmp_path, text_of(f'energy=-10 dipole="0.1 0.2 0.3" polarizability="{NINE}"')).frames[0].labels
    np.testing.assert_array_equal(labels["dipole"], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(labels["polarizability"], TENSOR)
    labels = frames_of(tmp_path, text_of(f'pol="{SIX}"', "", ("", ""))).frames[0].labels
    assert labels.keys() == {"polarizability"}
    np.testing.assert_array_equal(labels["polarizability"], TENSOR)


def test_labels_by_atom(tmp_path):
    rows = ("1 2 3 1 0 0 0 1 0 0 0 1 0.5 0.25", "4 5 6 2 0 0 0 2 0 0 0 2 0.5 0.75")
    frame = frames_of(
        tmp_path,
        text_of(
            'dos="1 1" dos_energies="-1 1" group=test name=one',
            "atomic_dipole:R:3:atomic_polarizability:R:9:ados:R:2",
            rows,
        ),
    ).frames[0]
    assert (frame.name, frame.group) == ("one", "test")
    np.testing.assert_array_equal(frame.labels["atomic_dipole"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(frame.labels["atomic_polarizability"], [np.eye(3), 2 * np.eye(3)])
    np.testing.assert_array_equal(frame.labels["ados"], [[0.5, 0.25], [0.5, 0.75]])
    np.testing.assert_array_equal(frame.labels["dos"], [1, 1])


@pytest.mark.parametrize("form", ["h5", "mlelec.h5", "extxyz"])
def test_every_label_in_every_format(form, tmp_path):
    rng = np.random.default_rng(0)
    labels = {
        "energy": -1.25,
        "forces": rng.normal(size=(3, 3)),
        "dipole": rng.normal(size=3),
        "polarizability": TENSOR,
        "atomic_dipole": rng.normal(size=(3, 3)),
        "summed_dipole": rng.normal(size=3),
        "atomic_polarizability": rng.normal(size=(3, 3, 3)),
        "ados": rng.random((3, 4)),
        "dos": rng.random(4),
        "virial": TENSOR,
    }
    frames = from_images([molecule("H2O", cell=CELL, pbc=True), molecule("H2O")])
    for frame in frames:
        frame.labels.update(labels)
    frames.energies = np.linspace(-1, 1, 4)
    path = tmp_path / f"a.{form}"
    if form == "h5":
        write_hdf5(path, frames)
    elif form == "mlelec.h5":
        write(path, to_images(frames))
        assert read(path).get_dipole_moment() == pytest.approx(labels["dipole"])
    else:
        write(path, to_images(frames))
    for frame in read_frames(path):
        assert frame.labels.keys() == labels.keys()
        for name, value in labels.items():
            np.testing.assert_allclose(frame.labels[name], value, atol=1e-7, err_msg=name)


# names by a setting ---------------------------------------------------------------------------------------------------

REF = text_of(f'REF_energy=-10 REF_stress="{NINE}" config_type=bulk', "REF_forces:R:3")
NAMES = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


def test_no_labels_under_known_names(tmp_path):
    both = REF.replace("REF_energy=-10", "one_energy=-10 other_energy=-11").replace("REF_forces", "f")
    refused(
        tmp_path,
        r"no energies, forces or spectra.*it has f, one_energy, other_energy, REF_stress, config_type; to read them set "
        r"energy = \"one_energy\", forces = \"f\", stress = \"REF_stress\" in \[data.keys\].*--key energy=one_energy",
        both,
    )
    refused(tmp_path, "it has structures alone; write labels", text_of("", "", ("", "")))


def test_names_by_a_setting(tmp_path):
    frame = frames_of(tmp_path, REF, keys={**NAMES, "group": "config_type"}).frames[0]
    assert frame.group == "bulk" and frame.labels.keys() == {"energy", "forces", "virial"}
    np.testing.assert_allclose(frame.labels["virial"], -TENSOR * np.linalg.det(CELL))
    frame = frames_of(
        tmp_path,
        text_of(f'E=-3 REF_virials="{SIX}"', "f:R:3"),
        keys={"energy": "E", "forces": "f", "virial": "REF_virials"},
    ).frames[0]
    assert frame.labels["energy"] == -3 and frame.labels["forces"][0, 1] == 0.2
    np.testing.assert_allclose(frame.labels["virial"], TENSOR)


def test_a_name_by_a_setting_replaces_ours(tmp_path):
    both = text_of("energy=-10 REF_energy=-20")
    with pytest.warns(UserWarning, match="REF_energy may be labels but are not read"):
        assert frames_of(tmp_path, both).frames[0].labels["energy"] == -10
    with pytest.warns(UserWarning, match="a.xyz: energy may be labels but are not read"):
        assert frames_of(tmp_path, both, keys={"energy": "REF_energy"}).frames[0].labels["energy"] == -20


def test_wrong_settings(tmp_path):
    refused(
        tmp_path,
        "no structure has the key 'REF_energie' that is named for energy; there are .*REF_energy",
        REF,
        keys={"energy": "REF_energie"},
    )
    with pytest.raises(ValueError, match="keys: got enrgy = 'REF_energy', need one of energy, forces"):
        frames_of(tmp_path, REF, keys={"enrgy": "REF_energy"})
    write_hdf5(tmp_path / "a.h5", frames_of(tmp_path, text_of()))
    for attempt in (
        lambda: read_frames(tmp_path / "a.h5", keys=NAMES),
        lambda: read_all([tmp_path / "a.h5"], keys=NAMES),
    ):
        with pytest.raises(ValueError, match="a.h5: got names of labels .*for files that ASE reads"):
            attempt()


def test_several_files(tmp_path):
    """A key need not be in all of them."""
    (tmp_path / "b.xyz").write_text(text_of("REF_energy=-3", "REF_forces:R:3"))
    write_hdf5(tmp_path / "c.h5", frames_of(tmp_path, text_of()))
    (tmp_path / "a.xyz").write_text(REF)
    frames = read_all([tmp_path / name for name in ("a.xyz", "b.xyz", "c.h5")], keys=NAMES)
    assert frames.counts == {"energy": 3, "forces": 3, "virial": 1}
    with pytest.raises(ValueError, match="no structure has the key 'no' that is named for dipole"):
        read_all(
            [tmp_path / "b.xyz", tmp_path / "c.h5"],
            keys={"dipole": "no", "energy": "REF_energy", "forces": "REF_forces"},
        )


# what is not read is named --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comment, columns, named",
    [
        ('energy=-1 mu="0.1 0.2 0.3"', "forces:R:3", 'mu may be .*dipole = "mu"'),
        ('energy=-1 dipole_moment="0.1 0.2 0.3"', "forces:R:3", 'dipole = "dipole_moment"'),
        (
            "energy=-1 dft_energy=-2",
            "forces:R:3",
            'dft_energy and the energy that is read differ by up to 0.5 eV/atom: .*; to .*energy = "dft_energy"',
        ),
        ("energy=-1 formation_energy=-2", "forces:R:3", "a.xyz: formation_energy may be labels but are not read"),
        ("energy=-1 energy_var=2", "forces:R:3", "a.xyz: energy_var may be labels but are not read"),
        ("energy=-1 dft_energy=-1", "forces:R:3", "a.xyz: dft_energy may be labels but are not read"),
        ("energy=-1", "DFT_forces:R:3", 'forces = "DFT_forces"'),
        ("energy=-1", "hirshfeld_charges:R:3", "hirshfeld_charges may be labels but are not read$"),
        ("energy=-1", "magmoms:R:3", "magmoms may be labels but are not read$"),
        (
            'energy=-1 stress_GPa="1 0 0 0 1 0 0 0 1"',
            "forces:R:3",
            r"stress_GPa .*not read; .* --key stress=stress_GPa --key stress_unit=GPa \(with -",
        ),
        ("energy=-1 energy_per_atom=-2", "forces:R:3", "energy_per_atom may be labels but are not read$"),
        (
            'energy=-1 dipole_debye="1 0 0"',
            "forces:R:3",
            "dipole_debye .*not read; .* --key dipole=dipole_debye --key dipole_unit=debye$",
        ),
        ("energy=-1 total_charge=1", "forces:R:3", "labels may depend on total_charge, which no model here knows"),
        ("energy=-1 spin=3", "forces:R:3", "labels may depend on spin, which no model here knows"),
        ("energy=-1 multiplicity=2.0", "forces:R:3", "labels may depend on multiplicity, which no model here knows"),
        (
            'energy=-1 virial="1 0 0 0 1 0 0 0 1" REF_virials="1 0 0 0 1 0 0 0 1"',
            "forces:R:3",
            'REF_virials may be .*virial = "REF_virials"',
        ),
    ],
)
def test_what_is_not_read(comment, columns, named, tmp_path):
    with pytest.warns(UserWarning, match=named) as caught:
        assert frames_of(tmp_path, text_of(comment, columns), text_of(comment, columns)).counts["energy"] == 2
    assert len(caught) == 1 and "\n" not in str(caught[0].message)


def test_remedy_of_energies_per_atom_beside_forces(tmp_path):
    with pytest.warns(
        UserWarning, match="energy_per_atom is in another unit or per atom, by its name: convert it to eV"
    ):
        assert frames_of(tmp_path, text_of("energy_per_atom=-1", "forces:R:3")).counts == {"forces": 1}


# forms of extxyz files that ASE itself takes otherwise ----------------------------------------------------------------


def test_keys_of_the_structure_in_any_case(tmp_path):
    text = text_of("energy=-1").replace("Lattice=", "lattice=").replace("Properties=", "properties=")
    (frame,) = frames_of(tmp_path, text.replace("pbc=", "PBC="))
    assert np.allclose(frame.atoms.cell, CELL) and frame.atoms.pbc.all() and frame.labels.keys() == {"energy", "forces"}
    assert np.allclose(frame.labels["forces"][0], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("label, symbol", [("Fe1", "Fe"), ("FE", "Fe"), ("fe_up", "Fe"), ("Si", "Si"), ("D", "H")])
def test_labels_of_species(label, symbol, tmp_path):
    (frame,) = frames_of(tmp_path, text_of().replace("Si 0 0 0", f"{label} 0 0 0"))
    assert list(frame.atoms.symbols) == [symbol, "O"]
    (frame,) = frames_of(tmp_path, f"1\nenergy=-1\n{label} 0 0 0\n")
    assert list(frame.atoms.symbols) == [symbol]


def test_species_that_are_no_elements(tmp_path):
    with pytest.raises(ValueError, match="a.xyz: frame 1: the label 'X' begins with no chemical symbol"):
        frames_of(tmp_path, text_of(), text_of().replace("Si 0 0 0", "X 0 0 0"))


def test_atomic_numbers_come_before_labels(tmp_path):
    (frame,) = frames_of(tmp_path, "1\nProperties=species:S:1:Z:I:1:pos:R:3 energy=-1\nX 14 0 0 0\n")
    assert list(frame.atoms.symbols) == ["Si"]


@pytest.mark.parametrize("energy", ["-10.5", "-1.05D+01", "-1.05d1", "[-10.5]"])
def test_numbers_in_other_forms(energy, tmp_path):
    (frame,) = frames_of(tmp_path, text_of(f"energy={energy} stress=[[1,0,0.5],[0,2,0],[0.5,0,3]]"))
    assert frame.labels["energy"] == -10.5
    stress = -frame.labels["virial"] / frame.atoms.get_volume()
    assert np.allclose(stress, [[1, 0, 0.5], [0, 2, 0], [0.5, 0, 3]])


@pytest.mark.parametrize(
    "comment, columns",
    [
        ("energy=-1 total_charge=0 spin=1 time=3.0", "momenta:R:3"),
        ("energy=-1 spin_mode=collinear multiplicity=1.0", "tags:I:3"),
        ("energy=-1 config_type=bulk uid=e5", "tags:I:3"),
    ],
)
def test_what_is_no_label(comment, columns, tmp_path):
    rows = ("1 2 3", "4 5 6")
    assert frames_of(tmp_path, text_of(comment, columns, rows)).labels == ("energy",)


def test_energies_by_atom(tmp_path):
    (frame,) = frames_of(tmp_path, text_of(columns="energies:R:1", rows=("-4", "-6")))  # their sum is there
    assert frame.labels == {"energy": -10}
    rows = ("-4 1 2 3", "-6 4 5 6")
    with pytest.warns(UserWarning, match="energies may be labels but are not read$"):
        (frame,) = frames_of(tmp_path, text_of("time=1", "energies:R:1:forces:R:3", rows))
    assert frame.labels.keys() == {"forces"}


def test_isolated_atoms(tmp_path):
    atom = "1\nProperties=species:S:1:pos:R:3 config_type=IsolatedAtom energy=-0.2\nNa 0 0 0\n"
    frames = frames_of(tmp_path, atom, text_of("energy=-1 config_type=bulk"))
    assert [(frame.group, frame.kind) for frame in frames] == [("", "IsolatedAtom"), ("", "bulk")]
    groups = frames_of(tmp_path, atom, text_of("energy=-1 config_type=bulk"), keys={"group": "config_type"})
    assert [frame.group for frame in groups] == ["IsolatedAtom", "bulk"]


def test_stress_without_a_cell(tmp_path):
    with pytest.warns(UserWarning, match="the stress of 1 structures without a cell is not read$"):
        assert frames_of(tmp_path, text_of(f'energy=-1 stress="{NINE}"', lattice=None)).labels == ("energy", "forces")


def test_results_of_another_structure():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.positions[1, 2] = 2.6
    with pytest.warns(UserWarning, match="energy of another structure may be labels but are not read"):
        assert from_images([atoms]).counts == {}


# what is wrong with them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        (text_of('energy="-10 eV"'), "frame 0, energy: got '-10 eV', need numbers alone; take out units"),
        (text_of('energy="-1 -2"'), r"label 'energy' has shape \(2,\), needed one number"),
        (text_of("energy=T"), "energy: got 'True', need numbers"),
        (text_of("energy=nan"), "frame 0, energy: one of the values is NaN"),
        (text_of("energy=1e999"), "NaN or infinite"),
        (text_of('energy=-1 stress="1 2 3"'), r"frame 0, stress: got an array of shape \(3,\), need 9 numbers, or 6"),
        (text_of('energy=-1 virial="1 2 3 4 5 6 7 8 x"'), "virial: got '1 2 3 4 5 6 7 8 x', need numbers"),
        (text_of('energy=-1 virial="1 9 2 3 4 5 6 7 8"'), "is not symmetric"),
        (text_of('energy=-1 dipole="1 2"'), r"label 'dipole' has shape \(2,\), needed \(3,\)"),
        (text_of(columns="forces:R:2", rows=("1 2", "3 4")), r"label 'forces' has shape \(2, 2\), needed \(2, 3\)"),
        (text_of(rows=("nan 0 0", "0 0 0")), "forces: one of the values is NaN or infinite"),
        (text_of(lattice=np.full(9, np.inf)), "cell is NaN or infinite"),
        (text_of().replace("1.4 1.3", "nan 1.3"), "one of the positions is NaN or infinite"),
        (text_of().replace("Si", "Qq"), "frame 0: the label .Qq. begins with no chemical symbol"),
        (text_of()[:-30], "ASE cannot read it"),
        (text_of() + "\n" + text_of(), "line 5 is empty, need the number of atoms of the next frame"),
        ("10000000000\n" + text_of(), "line 1 claims 10000000000 atoms, but line 6 is missing"),
        (text_of() + "-2\n\n", "line 5 claims -2 atoms"),
        ("1e9\n", "ASE cannot read it"),
        ("", "Empty file"),
        ("\x00\xff\n" * 9, "ASE cannot read it"),
        (text_of('energy=-1 x="_JSON [1, "'), "ASE cannot read it"),
        ("99999999999999999\n" + text_of(), "ASE cannot read it"),
    ],
)
def test_damaged(text, message, tmp_path):
    refused(tmp_path, message, text)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.traj", b"- of UlmASE-Trajectory  \x03\x00\x00"),
        ("OUTCAR", b"vasp.5.4 \n ions per type = 3\n"),
        ("vasprun.xml", b"<?xml version='1.0'?><generator>"),
        ("a.json", b'{"1": {'),
        ("a.cif", b"data_\nloop_"),
        ("a.cfg", b"Number of particles = x\n"),
        ("a.xml", b"<a/>"),
        ("a.gz", b"\x1f\x8b\x08\x00"),
        ("a.extxyz.gz", b"\x1f\x8b\x08\x00damaged"),
        ("a.npz", b"PK\x03\x04"),
        ("pw.out", b"Program PWSCF v.6.7\n"),
    ],
)
def test_other_formats_damaged(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{re.escape(str(tmp_path / name))}: .*(readable are|run it to the end)|{name}: no energies"
    ):
        read_frames(tmp_path / name)


def test_folder_of_quantum_espresso(tmp_path):
    (tmp_path / "si.save").mkdir()
    (tmp_path / "si.save" / "data-file-schema.xml").write_text("<a/>")
    with pytest.raises(ValueError, match="si.save/data-file-schema.xml: "):
        read_frames(tmp_path / "si.save")


def test_name_with_an_at_sign(tmp_path):
    (tmp_path / "a@1.xyz").write_text(text_of())
    assert len(read_frames(tmp_path / "a@1.xyz")) == 1
