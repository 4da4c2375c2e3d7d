"""Trajectories of positions and forces of CP2K: what was written, in eV and Å, with the cell of each step."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_mlelec.data.frames import read_all, read_frames
from ase_mlelec.io.cp2k import read_input_cell, read_trajectory

HARTREE, BOHR = 27.211386245988, 0.529177210903
SYMBOLS = ["O", "H", "H"]
RNG = np.random.default_rng(5)
PLACES, FORCES = RNG.normal(0, 1, (4, 3, 3)).round(10), RNG.normal(0, 0.02, (4, 3, 3)).round(10)
INPUT = """&GLOBAL
  PROJECT w
  RUN_TYPE MD
&END GLOBAL
&FORCE_EVAL
  &SUBSYS
    &CELL
      ABC [angstrom] 9.0 10.0 11.0   ! of the box
      ALPHA_BETA_GAMMA 90 90 60
      PERIODIC XYZ
    &END CELL
  &END SUBSYS
&END FORCE_EVAL
"""


def frame(k, rows, form="i = {:8d}, time = {:12.3f}, E = {:20.10f}"):
    comment = form.format(k, 0.5 * k, -17.1 - 0.001 * k)
    lines = [f"{s:>3}" + "".join(f"{x:20.10f}" for x in row) for s, row in zip(SYMBOLS, rows)]
    return "\n".join([f"{len(rows):8d}", f" {comment}", *lines]) + "\n"


def run(folder, *, steps=(0, 1, 2), of_forces=None, cell="file"):
    (folder / "w-pos-1.xyz").write_text("".join(frame(k, PLACES[k]) for k in steps))
    (folder / "w-frc-1.xyz").write_text("".join(frame(k, FORCES[k]) for k in of_forces or steps))
    if cell == "file":
        rows = [f"{k} {0.5 * k} {9 + k} 0 0 0 10 0 0 0 11 990\n" for k in range(4)]
        (folder / "w-1.cell").write_text("# Step Time Ax\n" + "".join(rows))
    elif cell == "input":
        (folder / "w.inp").write_text(INPUT)
    return folder / "w-pos-1.xyz"


@pytest.mark.parametrize("cell", ["file", "input"])
def test_what_was_written(cell, tmp_path):
    frames = read_frames(run(tmp_path, cell=cell))
    assert frames.counts == {"energy": 3, "forces": 3} and [each.name for each in frames] == ["w-0", "w-1", "w-2"]
    for k, each in enumerate(frames):
        assert each.labels["energy"] == pytest.approx((-17.1 - 0.001 * k) * HARTREE, abs=1e-8)
        assert np.allclose(each.labels["forces"], FORCES[k] * HARTREE / BOHR, atol=1e-9)
        assert np.array_equal(each.atoms.positions, PLACES[k]) and list(each.atoms.symbols) == SYMBOLS
        lengths = [9 + k, 10, 11] if cell == "file" else [9, 10, 11]
        assert np.allclose(each.atoms.cell.lengths(), lengths) and each.atoms.pbc.all()
        assert np.isclose(each.atoms.cell.angles()[2], 90 if cell == "file" else 60)


def test_forms(tmp_path):
    """Compressed, Windows, relaxations without times, and files that are named with their companions."""
    path = run(tmp_path)
    for file in path, tmp_path / "w-frc-1.xyz":
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_text().replace("\n", "\r\n").encode()))
        file.unlink()
    assert read_frames(tmp_path / "w-pos-1.xyz.gz").counts == {"energy": 3, "forces": 3}
    path = run(tmp_path)
    path.write_text("".join(frame(k, PLACES[k], "i = {0:8d}, E = {2:20.10f}") for k in (0, 1)))
    assert read_frames(path).counts == {"energy": 2, "forces": 2}
    for paths in (
        [path],
        [tmp_path / "w-frc-1.xyz"],
        [path, tmp_path / "w-frc-1.xyz"],
        [tmp_path / "w-frc-1.xyz", path],
    ):
        assert len(read_all(paths)) == 2


def test_all_files_compressed(tmp_path):
    """The cells and the stress, too."""
    path, pressure = relaxation(tmp_path)
    (tmp_path / "w-1.stress").write_text(stress_file(enumerate(pressure[:2])))
    whole = read_frames(path)
    for file in [*tmp_path.iterdir()]:
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    frames = read_frames(tmp_path / "w-pos-1.xyz.gz")
    assert frames.counts == whole.counts == {"energy": 3, "forces": 3, "virial": 2}
    assert all(np.array_equal(a.atoms.cell, b.atoms.cell) for a, b in zip(frames, whole))


def test_forces_of_some_steps(tmp_path):
    with pytest.warns(UserWarning, match="2 of 3 steps have no forces in w-frc-1.xyz, and their energy alone is read"):
        frames = read_frames(run(tmp_path, of_forces=[1]))
    assert frames.counts == {"energy": 3, "forces": 1} and np.allclose(
        frames[1].labels["forces"], FORCES[1] * HARTREE / BOHR
    )


def test_stress_is_not_read_without_a_word(tmp_path):
    """In molecular dynamics it is not that of the structure alone."""
    path = run(tmp_path)
    (tmp_path / "w-1.stress").write_text(stress_file([(0, np.eye(3))]))
    with pytest.warns(UserWarning, match="w-1.stress: not read, as CP2K adds the motion of the atoms"):
        assert "virial" not in read_frames(path).counts


RELAXED = "i = {0:8d}, E = {2:20.10f}"  # the comment of a relaxation has no time


def stress_file(rows, dt=0.0):
    head = "#   Step   Time [fs]            xx [bar]            xy [bar] ...\n"
    return head + "".join(
        f"{k:8d}{dt * k:12.3f}" + "".join(f" {x:19.10f}" for x in np.ravel(row)) + "\n" for k, row in rows
    )


def relaxation(folder):
    path, half = run(folder), np.random.default_rng(7).normal(0, 5e3, (4, 3, 3)).round(6)
    path.write_text("".join(frame(k, PLACES[k], RELAXED) for k in range(3)))
    (folder / "w-frc-1.xyz").write_text("".join(frame(k, FORCES[k], RELAXED) for k in range(3)))
    return path, half + half.transpose(0, 2, 1)


def test_stress_of_a_relaxation(tmp_path):
    """A pressure tensor in bar, without the motion of atoms, which do not move; the cells grow by 1 Å a step."""
    path, pressure = relaxation(tmp_path)
    (tmp_path / "w-1.stress").write_text(stress_file(enumerate(pressure[:2])))
    frames = read_frames(path)
    assert frames.counts == {"energy": 3, "forces": 3, "virial": 2}
    for k, each in enumerate(frames.frames[:2]):
        volume = (9 + k) * 10 * 11
        np.testing.assert_allclose(
            each.labels["virial"], pressure[k] * 1e5 / 1.602176634e-19 * volume * 1e-30, rtol=1e-9
        )


def test_stress_that_is_not_known(tmp_path):
    """Of molecular dynamics, by the times or by the comments; of steps that a restart repeats; damaged ones."""
    path, pressure = relaxation(tmp_path)
    file = tmp_path / "w-1.stress"
    file.write_text(stress_file([(0, pressure[0]), (1, pressure[1]), (1, pressure[2])]))
    assert read_frames(path).counts["virial"] == 1
    file.write_text(stress_file(enumerate(pressure), dt=0.5))
    with pytest.warns(UserWarning, match="w-1.stress: not read, as CP2K adds the motion of the atoms"):
        assert "virial" not in read_frames(path).counts
    file.write_text(stress_file([(0, np.triu(pressure[0]))]))
    with pytest.raises(ValueError, match="w-1.stress: the stress of step 0 is not symmetric"):
        read_frames(path)
    file.write_text(stress_file([(0, np.triu(np.full((3, 3), 0.5)))]))  # of a relaxed cell, less than a bar
    assert read_frames(path).counts["virial"] == 1
    file.write_text("0 0.0 1 2 3\n")
    with pytest.raises(ValueError, match="w-1.stress, line 1: need a step, a time and nine components"):
        read_frames(path)


def test_run_that_goes_on_from_a_restart(tmp_path):
    """Its steps are there twice, and the second time with another energy."""
    path, second = run(tmp_path), "i = {:8d}, time = {:12.3f}, E = -18.0"
    for file, rows in (path, PLACES), (tmp_path / "w-frc-1.xyz", FORCES):
        file.write_text(file.read_text() + frame(2, rows[3], second))
    frames = read_frames(path)
    assert [each.labels["energy"] / HARTREE for each in frames] == pytest.approx([-17.1, -17.101, -17.102, -18.0])
    assert np.allclose([each.labels["forces"] for each in frames], FORCES * HARTREE / BOHR)


def test_run_that_did_not_finish(tmp_path):
    path = run(tmp_path)
    path.write_text(path.read_text()[:-4])
    with pytest.warns(UserWarning, match="w-pos-1.xyz: the last frame is cut off and left out"):
        assert len(read_frames(path)) == 2


def test_what_does_not_fit(tmp_path):
    path = run(tmp_path)
    (tmp_path / "w-frc-1.xyz").write_text("".join(frame(k, FORCES[k], "i = {0:8d}, E = -3.0") for k in (0, 1, 2)))
    with pytest.raises(ValueError, match="w-frc-1.xyz: step 0 has another energy or other atoms than in w-pos-1.xyz"):
        read_frames(path)
    (tmp_path / "w-1.cell").write_text("0 0.0 9 0 0 0 10 0 0 0 11 990\n")
    run(tmp_path, cell="")
    with pytest.raises(ValueError, match="frame 1: the file of cells has no step 1"):
        read_frames(path)
    (tmp_path / "w-1.cell").unlink()
    with pytest.raises(ValueError, match="whose cell is in another file; put w-1.cell or the one input .* beside it"):
        read_frames(path)
    path.unlink()
    with pytest.raises(ValueError, match="the positions are not beside it; put w-pos-1.xyz there"):
        read_frames(tmp_path / "w-frc-1.xyz")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("RUN_TYPE MD", "RUN_TYPE CELL_OPT", "its cell changes; put CP2K's file of cells"),
        ("PROJECT w", "PROJECT w\n ENSEMBLE NPT_F", "its cell changes; put CP2K's file of cells"),
        (
            "ABC [angstrom] 9.0",
            "ABC [nm] 9.0",
            r"&CELL has '\[NM\] 9.0 10.0 11.0', need three numbers in Å or \[bohr\]",
        ),
        ("ABC [angstrom] 9.0 10.0 11.0", "ABC ${L} 10.0 11.0", "&CELL holds something else than numbers"),
        ("PERIODIC XYZ", "MULTIPLE_UNIT_CELL 2 2 2", "&CELL names other cells or files"),
        ("&CELL", "&KIND", "it has no section &CELL"),
        ("&END FORCE_EVAL", "&SUBSYS\n &CELL\n ABC 3 3 3\n &END\n&END\n&END", "&CELL names other cells or files"),
    ],
)
def test_inputs_that_do_not_tell_the_cell(old, new, message, tmp_path):
    assert old in INPUT
    (tmp_path / "w.inp").write_text(INPUT.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"w.inp: {message}"):
        read_input_cell(tmp_path / "w.inp")


def test_vectors_of_an_input(tmp_path):
    vectors = "A [bohr] 10 0 0\n B 0 5.5 0.1\n C 0 0 7\n PERIODIC XY"
    text = INPUT.replace("ABC [angstrom] 9.0 10.0 11.0", vectors).replace("ALPHA_BETA_GAMMA 90 90 60", "")
    (tmp_path / "w.inp").write_text(text.replace("      PERIODIC XYZ\n", ""))
    cell, pbc = read_input_cell(tmp_path / "w.inp")
    assert np.allclose(cell, [[10 * BOHR, 0, 0], [0, 5.5, 0.1], [0, 0, 7]]) and pbc == [True, True, False]


@pytest.mark.parametrize(
    "old, new",
    [
        ("      ABC [ang", "      &CELL_REF\n        ABC 20 20 20\n      &END CELL_REF\n      ABC [ang"),
        ("      PERIODIC XYZ\n", "      PERIODIC XYZ\n      &CELL_REF\n        ABC 20 20 20\n      &END CELL_REF\n"),
        ("  &SUBSYS\n", "  &QMMM\n    &CELL\n      ABC 3 3 3\n    &END CELL\n  &END QMMM\n  &SUBSYS\n"),
        (INPUT, INPUT.lower()),
    ],
    ids=["reference first", "reference last", "QM/MM", "lower case"],
)
def test_other_cells_of_an_input(old, new, tmp_path):
    """The cell of the structure is neither the reference of the grid nor the cell of the quantum region."""
    assert old in INPUT
    (tmp_path / "w.inp").write_text(INPUT.replace(old, new))
    assert np.allclose(read_input_cell(tmp_path / "w.inp")[0], [[9, 0, 0], [5, 75**0.5, 0], [0, 0, 11]])


def test_units_of_choice(tmp_path):
    path = run(tmp_path, cell="input")
    text = INPUT + "&MOTION\n &PRINT\n  &{}\n   UNIT {}\n  &END\n &END\n&END MOTION\n"
    for section, unit in ("TRAJECTORY", "bohr"), ("FORCES", "eV*angstrom^-1"):
        (tmp_path / "w.inp").write_text(text.format(section, unit))
        with pytest.raises(ValueError, match=rf"w.inp: &{section} has UNIT .*, and its file is read in"):
            read_frames(path)
    for other in (
        text.format("TRAJECTORY", "[angstrom]"),
        text.format("FORCES", "bohr").replace("PROJECT w", "PROJECT v"),
    ):
        (tmp_path / "w.inp").write_text(other)
        assert len(read_frames(path)) == 3


def extended(k, rows, pbc=' pbc="T T F"'):
    """A frame in CP2K's FORMAT EXTXYZ."""
    comment = f'Lattice="9.0 0 0 1.0 10.0 0 0 0 {11 + k}.0" Properties=species:S:1:pos:R:3{pbc} '
    comment += f"Step={k} Time={0.5 * k:.3f} Energy={-17.1 - 0.001 * k:.10f}"
    return "\n".join(["       3", comment, *frame(k, rows).split("\n")[2:]])


@pytest.mark.parametrize("line, told", [("CHARGE 1", True), ("CHARGE 0", False), ("CHARGE", False), ("", False)])
def test_charge_of_an_input(line, told, tmp_path, recwarn):
    path = run(tmp_path, cell="input")
    (tmp_path / "w.inp").write_text(INPUT.replace("&FORCE_EVAL\n", f"&FORCE_EVAL\n  &DFT\n    {line}\n  &END DFT\n"))
    read_frames(path)
    found = [str(each.message) for each in recwarn]
    assert [("w.inp: the cell has a charge of 1 e, on which" in each) for each in found] == [True] * told


def test_extended_xyz(tmp_path):
    """The units are those of the other format, hartree and hartree/bohr, whatever the energy is called."""
    for what, rows in ("pos", PLACES), ("frc", FORCES):
        (tmp_path / f"w-{what}-1.extxyz").write_text("".join(extended(k, rows[k]) for k in range(3)))
    frames = read_frames(tmp_path / "w-pos-1.extxyz")
    assert frames.counts == {"energy": 3, "forces": 3}
    for k, each in enumerate(frames):
        assert each.labels["energy"] == pytest.approx((-17.1 - 0.001 * k) * HARTREE, abs=1e-8)
        assert np.allclose(each.labels["forces"], FORCES[k] * HARTREE / BOHR, atol=1e-9)
        assert np.allclose(each.atoms.cell, [[9, 0, 0], [1, 10, 0], [0, 0, 11 + k]]) and np.allclose(
            each.atoms.positions, PLACES[k]
        )
        assert each.atoms.pbc.tolist() == [True, True, False]
    (tmp_path / "run.xyz").write_text(extended(0, PLACES[0]))
    with pytest.raises(ValueError, match="run.xyz: a trajectory of CP2K, with energies in hartree"):
        read_frames(tmp_path / "run.xyz")
    (tmp_path / "w-pos-1.extxyz").write_text(extended(0, PLACES[0], ' pbc="T T"'))
    with pytest.raises(ValueError, match="w-pos-1.extxyz: the frame at line 1 has pbc=.T T., need three of T and F"):
        read_frames(tmp_path / "w-pos-1.extxyz")


def test_velocities(tmp_path):
    (tmp_path / "w-vel-1.xyz").write_text(frame(0, PLACES[0]))
    with pytest.raises(ValueError, match="velocities, which are no labels; give w-pos-1.xyz"):
        read_trajectory(tmp_path / "w-vel-1.xyz")


def test_other_names_are_refused(tmp_path):
    """Hartree would be taken for eV."""
    path = run(tmp_path)
    for form in "i = {:8d}, time = {:12.3f}, E = {:20.10f}", "i = {0:8d}, E = {2:20.10f}":
        (tmp_path / "run.xyz").write_text(frame(0, PLACES[0], form))
        with pytest.raises(ValueError, match="run.xyz: a trajectory of CP2K, with energies in hartree"):
            read_frames(tmp_path / "run.xyz")
    atoms = Atoms(SYMBOLS, PLACES[0])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.write(path, format="extxyz")  # a file of someone else with this name
    assert read_frames(path).frames[0].labels == {"energy": -1.0}
