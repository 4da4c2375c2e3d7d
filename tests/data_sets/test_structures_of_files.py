"""Structures that commands evaluate: read as ASE reads them, or refused in one line that names the file."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from small_data import make_frames
from small_projwfc import write_run
from small_vasp import example, vasprun

from ase_mlelec import units
from ase_mlelec.data.frames import read_all, read_frames, write_hdf5
from ase_mlelec.data.structures import structure, structures
from ase_mlelec_entry_points.cli.main import main

COMMANDS = ("dos si {}", "predict si {} --out p.extxyz", "eos si {}", "elastic si {}", "phonons si {}", "pca si {}")
SILICON = "2\nLattice='0 2.7 2.7 2.7 0 2.7 2.7 2.7 0' Properties=species:S:1:pos:R:3\nSi 0 0 0\n{}\n"
CELL = "".join(f"_cell_length_{x} 5.5\n" for x in "abc") + "".join(
    f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma")
)
SITES = "loop_\n" + "".join(
    f"_atom_site_{name}\n" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
)
CIF = f"data_x\n{CELL}_symmetry_space_group_name_H-M 'P 1'\n{SITES}Si1 Si 0 0 0 {{}}\nSi2 Si .5 .5 .5 1.0\n"
DAMAGED = {  # name -> (content, what the message says after the name)
    "cut.xyz": (SILICON.format(""), "ASE cannot read it"),
    "text.xyz": ("hello\nworld\n", "ASE cannot read it"),
    "foreign.xyz": (SILICON.format("Xx 1 1 1"), "structure 0: the label 'Xx' begins with no chemical symbol"),
    "nan.xyz": (SILICON.format("Si nan 1 1"), "structure 0: positions of atom 1 are NaN"),
    "flat.xyz": (SILICON.format("Si 1 1 1").replace("2.7 2.7 0'", "0 2.7 2.7'"), "structure 0: pbc is .* no volume"),
    "POSCAR": ("Si\n1.0\n5 0 0\n0 5 0\n", "ASE cannot read it"),
    "vasprun.xml": ("<modeling><x></modeling>", r"ASE cannot read it \(ParseError"),
    "a.pwi": ("&control\n/\n&system\n ibrav=0\n", r"ASE cannot read it \(KeyError: 'ntyp'\)"),
    "none.cif": ("data_x\n_cell_length_a 5.4\n", "no structures in it"),
    "alloy.cif": (CIF.format("0.6\nGe1 Ge 0 0 0 0.4"), r"structure 0: a site is occupied in part \(Si 0.6, Ge 0.4\)"),
    "vacant.cif": (CIF.format(0.7), r"structure 0: a site is occupied in part \(Si 0.7\)"),
    "empty.xyz": ("", "ASE knows no such format"),
    "unknown.qqq": ("1 2 3", "ASE knows no such format"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name, tmp_path):
    content, message = DAMAGED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
        structure(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["a.pwi", "missing.xyz", "whole.xyz@7", "whole.xyz@x"])
def test_commands_refuse_in_one_line(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pwi").write_text(DAMAGED["a.pwi"][0])
    (tmp_path / "whole.xyz").write_text(SILICON.format("Si 1 1 1"))
    before = sorted(tmp_path.iterdir())
    assert main(command.format(name).split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mlelec: error: {name}: ") and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["si", "x.safetensors", "x.dp"])
def test_models_in_place_of_structures(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name != "si":
        (tmp_path / name).write_bytes(bytes(20))
    with pytest.raises(ValueError, match=f"{name}: a model, need a file with structures; the model comes first"):
        structure(name)
    write(tmp_path / "si", bulk("Si"), format="extxyz")
    assert str(structure("si").symbols) == "Si2"


DUMP = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 3\n0 3\n0 3\n"


def test_whole_sites_of_cif_files(tmp_path):
    """Rounded occupancies are whole."""
    (tmp_path / "a.cif").write_text(CIF.format("0.999"))
    assert structure(tmp_path / "a.cif").get_chemical_formula() == "Si2"


def test_dumps_without_elements(tmp_path):
    """ASE takes types for atomic numbers, and adds energies of zero."""
    (tmp_path / "a.dump").write_text(f"{DUMP}ITEM: ATOMS id type x y z fx fy fz\n1 2 0 0 0 0.1 0 0\n")
    with pytest.raises(ValueError, match="a.dump: a dump of LAMMPS with types in place of elements; write"):
        structure(tmp_path / "a.dump")
    (tmp_path / "b.dump").write_text(f"{DUMP}ITEM: ATOMS id element x y z fx fy fz\n1 Si 0 0 0 0.1 0 0\n")
    assert str(structure(tmp_path / "b.dump").symbols) == "Si"
    (tmp_path / "b.dump.gz").write_bytes(gzip.compress((tmp_path / "b.dump").read_bytes()))
    assert str(structure(tmp_path / "b.dump.gz").symbols) == "Si"
    for name in "ab":
        with pytest.raises(ValueError, match=f"{name}.dump: a dump of LAMMPS, which has no energies"):
            read_frames(tmp_path / f"{name}.dump")


QBOX = """<fpmd:simulation xmlns:fpmd="http://www.quantum-simulation.org/ns/fpmd/fpmd-1.0">
<release> 1.63.8 centos7 </release>
<species name="s">
<symbol>Si</symbol><atomic_number>14</atomic_number><mass>28.0</mass>
</species>
[qbox] <cmd>run 1</cmd>
<iteration count="1">
<etotal>-3.95</etotal>
<atomset>
<unit_cell a="10 0 0" b="0 10 0" c="0 0 10"/>
<atom name="Si1" species="s"><position>0 0 0</position><velocity>0 0 0</velocity><force>0 0 0.1</force></atom>
</atomset>
</iteration>
"""


def test_units_of_other_programs(tmp_path):
    """ASE converts none of Qbox's units, and all of RuNNer's, whose files other programs write in eV and Å."""
    (tmp_path / "a.xml").write_text(QBOX)
    for function in (structure, read_frames):
        with pytest.raises(ValueError, match="a.xml: .* 0: an output of Qbox, whose hartree, bohr and GPa"):
            function(tmp_path / "a.xml")
    (tmp_path / "input.data").write_text(
        "begin\nlattice 10 0 0\nlattice 0 10 0\nlattice 0 0 10\natom 2 0 0 Si 0 0 0 0 0.1\nenergy -1\ncharge 0\nend\n"
    )
    with pytest.warns(UserWarning) as caught:
        (frame,) = read_frames(tmp_path / "input.data")
    assert "input.data: read in hartree and bohr" in str(caught[0].message)
    np.testing.assert_allclose(frame.labels["energy"], -units.HARTREE, rtol=1e-6)
    np.testing.assert_allclose(frame.atoms.positions, [[2 * units.BOHR, 0, 0]], rtol=1e-6)


def test_forms_of_extxyz(tmp_path):
    """As data sets are read: labels of species, byte order marks, keys in other cases, names with the sign of parts."""
    content = SILICON.format("Si 1 1 1").replace("Lattice", "lattice").replace("Si 0", "Si1 0")
    (tmp_path / "a@b.xyz").write_bytes(b"\xef\xbb\xbf" + content.encode())
    atoms = structure(tmp_path / "a@b.xyz")
    assert str(atoms.symbols) == "Si2" and atoms.pbc.all() and atoms.get_volume() > 30
    (tmp_path / "c.xyz").write_text(content.replace("lattice", "cell"))
    with pytest.raises(ValueError, match="c.xyz: structure 0: it has cell in place of Lattice, and would have no cell"):
        structure(tmp_path / "c.xyz")


def test_which(tmp_path):
    images = [bulk("Si", a=a) for a in (5.3, 5.4, 5.5)]
    write(tmp_path / "a.traj", images)
    volumes = [atoms.get_volume() for atoms in images]
    found = {end: [atoms.get_volume() for atoms in structures(f"{tmp_path}/a.traj{end}")] for end in ("", "@:2", "@-2")}
    assert found == {"": volumes, "@:2": volumes[:2], "@-2": volumes[1:2]}
    assert structure(tmp_path / "a.traj").get_volume() == volumes[2]
    assert structure(f"{tmp_path}/a.traj@0").get_volume() == volumes[0]


@pytest.mark.parametrize("what", ["without volume", "at one place"])
def test_look_at_data_refuses_what_a_training_refuses(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]], cell=[4, 4, 4.4], pbc=True)
    if what == "without volume":
        atoms.cell[2] = atoms.cell[1]
    else:
        atoms.positions[1] = 0.01
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((2, 3)))
    write("bad.extxyz", atoms)
    assert main(["init", "bad.extxyz"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mlelec: error: bad.extxyz: frame 0 (bad-0): ") and not (tmp_path / "bad.toml").exists()


def test_data_sets_have_structures(tmp_path):
    frames = make_frames(3)
    write_hdf5(tmp_path / "a.h5", frames)
    found = list(structures(tmp_path / "a.h5"))
    assert [atoms.symbols.get_chemical_formula() for atoms in found] == ["Cu4", "Cu2", "Cu4"]
    np.testing.assert_allclose(structure(tmp_path / "a.h5").positions, frames[2].atoms.positions)
    np.testing.assert_allclose(structure(f"{tmp_path}/a.h5@1").positions, frames[1].atoms.positions)
    with pytest.raises(ValueError, match="a.h5@5: ASE cannot read it .IndexError"):
        structure(f"{tmp_path}/a.h5@5")


@pytest.mark.filterwarnings("ignore:.*may be labels but are not read:UserWarning")  # error bars
def test_labels_of_a_file_are_not_those_of_the_model(tmp_path):
    """Energies, forces, stress and virial of the file do not stay beside the predicted ones."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.info |= {"virial": np.eye(3), "magmom": np.ones(2), "time": 3.0}
    atoms.calc = SinglePointCalculator(atoms, energy=-7.7, forces=np.full((8, 3), 9.9), stress=np.arange(6.0))
    write(tmp_path / "in.extxyz", [atoms, atoms])
    found = structure(str(tmp_path / "in.extxyz"))
    assert found.info == {"time": 3.0} and found.get_potential_energy() == -7.7
    np.testing.assert_allclose(found.get_stress(), np.arange(6.0))
    assert main(["predict", "si", str(tmp_path / "in.extxyz"), "--out", str(tmp_path / "out.extxyz")]) == 0
    one, _ = read_frames(tmp_path / "out.extxyz")
    assert one.labels["energy"] < -100 and np.abs(one.labels["forces"]).max() < 5
    assert np.linalg.norm(one.labels["virial"]) > 1e-3 and "virial" not in (tmp_path / "out.extxyz").read_text()


def test_file_that_is_named_twice(tmp_path, capsys):
    """By another way to it, or within a folder that is named too: its structures would count twice."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/vasprun.xml").write_text(vasprun(example() | {"shares": None}))
    other = tmp_path / "run" / ".." / "run"
    for paths in ([tmp_path / "run", other], [tmp_path / "run/vasprun.xml", other / "vasprun.xml"]):
        with pytest.warns(UserWarning, match="run.*: named more than once, and read once"):
            assert len(read_all(paths)) == 2
    write_run("symmetric", tmp_path / "a")
    run = next(tmp_path.glob("a/**/*.save"))
    with pytest.warns(UserWarning, match="save: named more than once, and read once"):
        assert len(read_all([run, run / "data-file-schema.xml"])) == 1
    arguments = ["convert", str(tmp_path / "run"), str(other), "--out", str(tmp_path / "all.h5")]
    with pytest.warns(UserWarning, match="named more than once"):
        assert main(arguments) == 0
    assert "all.h5: 2 structures with" in capsys.readouterr().out


def test_cell_without_volume_is_not_converted(tmp_path, capsys):
    """Later steps refuse it, and would name the data set in place of the file."""
    comment = 'Lattice="4 0 0 0 4 0 0 0 0" pbc="T T T" Properties=species:S:1:pos:R:3 energy=-7'
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nNa 0 0 0\nCl 2 0 0\n")
    assert main(["convert", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "a.h5")]) == 1
    assert "a.xyz: frame 0 (a-0): pbc is [True, True, True] but the periodic cell vectors" in capsys.readouterr().err
    assert not (tmp_path / "a.h5").exists()


def test_structures_that_came_from_cif_files(tmp_path):
    """ASE's reader of CIF files adds unit_cell and others, which extxyz files of calculations keep."""
    write(tmp_path / "a.cif", bulk("Cu", cubic=True))
    atoms = read(tmp_path / "a.cif")
    assert atoms.info["unit_cell"] == "conventional"
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5)
    atoms.info["formula_units"] = "four"
    write(tmp_path / "a.extxyz", atoms)
    assert read_frames(tmp_path / "a.extxyz")[0].labels["energy"] == -1.5
