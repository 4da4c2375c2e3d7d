"""Data sets of Hamiltonians from folders with Wannier90's files, written from a Hamiltonian that is known."""

import re

import numpy as np
import pytest
from small_bilayers import graphene_bilayer, graphene_frame

from ase_mlelec import units
from ase_mlelec.data.frames import read_frames
from ase_mlelec.data.hamiltonians import Hamiltonians, referred_to
from ase_mlelec.data.runs.wannier import wannier_files
from ase_mlelec.physics.kmesh import monkhorst_pack
from ase_mlelec_entry_points.cli.main import main

LEVEL = 2.5  # eV, of the vacuum as pw.x counts
POINTS = np.array([[0.0, 0, 0], [0.1, 0.2, 0], [1 / 3, 1 / 3, 0]])


def rows(values):
    return "\n".join(" ".join(f"{x:.10f}" for x in row) for row in values)


def potential(planes):
    """A filplot file with plot_num = 11 whose function depends on the third coordinate alone, Ry."""
    numbers = "\n".join(f"{x:.9E}" for x in np.repeat(planes, 4))
    return f" potential\n 2 2 {len(planes)} 2 2 {len(planes)} 1 1\n 0 1.0 0 0 0 0 0\n1 0 0\n0 1 0\n0 0 1\n" + (
        f" 20.0 4.0 6.0 11\n 1 C 4.00\n 1 0 0 0 1\n{numbers}\n"
    )


def pw_xml(atoms, energy, forces, electrons, fermi):
    """data-file-schema.xml with what read_pw looks at."""
    cell, sites = atoms.cell.array / units.BOHR, atoms.positions / units.BOHR
    structure = f'<atomic_structure nat="{len(atoms)}" alat="1.0"><atomic_positions>' + "".join(
        f'<atom name="C" index="{k + 1}">{rows([site])}</atom>' for k, site in enumerate(sites)
    )
    structure += "</atomic_positions><cell>" + "".join(f"<a{k + 1}>{rows([cell[k]])}</a{k + 1}>" for k in range(3))
    structure += "</cell></atomic_structure>"
    return (
        '<qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0" Units="Hartree atomic units"><input>'
        "<control_variables><calculation>scf</calculation><forces>true</forces></control_variables><atomic_species>"
        '<species name="C"><pseudo_file>C.UPF</pseudo_file></species></atomic_species></input><output><convergence_info>'
        "<scf_conv><convergence_achieved>true</convergence_achieved><n_scf_steps>9</n_scf_steps></scf_conv>"
        f"</convergence_info>{structure}<total_energy><etot>{energy / units.HARTREE:.12f}</etot></total_energy>"
        f"<band_structure><nelec>{electrons}</nelec><fermi_energy>{fermi / units.HARTREE:.12f}</fermi_energy>"
        '<occupations_kind>smearing</occupations_kind><smearing degauss="0.005">gaussian</smearing></band_structure>'
        f'<forces rank="2" dims="3 {len(atoms)}">{rows(forces / units.HARTREE_PER_BOHR)}</forces></output>'
        "</qes:espresso>"
    )


def make(folder, seed=0, bands="", electrons=16, flat=True):
    """A folder of Wannier90, the potential and pw.x; returns the frame with energies above the vacuum."""
    frame = graphene_frame(graphene_bilayer((0.1, 0.2), 3.4, noise=0.02, seed=seed))
    atoms = frame.atoms
    folder.mkdir(parents=True)
    moved = referred_to(frame.hamiltonian, -LEVEL).moved(np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, 0]]))
    moved.write(folder / "g_hr.dat")
    sites = "\n".join(f"X {row}" for row in rows(moved.centers).splitlines())
    (folder / "g_centres.xyz").write_text(
        f"{2 * len(atoms)}\n\n{sites}\n" + "".join(f"C {row}\n" for row in rows(atoms.positions).splitlines())
    )
    names = "\n".join(f"C {row}" for row in rows(atoms.positions).splitlines())
    (folder / "g.win").write_text(
        f"num_wann = 4\n{bands}\nmp_grid = 6 6 1\nbegin unit_cell_cart\nang\n{rows(atoms.cell.array)}\nend unit_cell_cart\n"
        f"begin atoms_cart\nang\n{names}\nend atoms_cart\nbegin projections\nC: pz\nend projections\n"
    )
    heights = np.linspace(0, atoms.cell[2, 2], 120, endpoint=False)
    planes = np.full(120, LEVEL / units.RYDBERG)
    planes[(heights > 3) & (heights < 10.5)] -= 1.0
    planes += 0 if flat else np.linspace(-0.1, 0.1, 120)
    (folder / "potential").write_text(potential(planes))
    levels = np.sort(frame.hamiltonian.eigenvalues(monkhorst_pack((12, 12, 1))), axis=None)
    fermi = LEVEL + levels[len(levels) // 2 - 1 : len(levels) // 2 + 1].mean()  # half filled
    forces = np.random.default_rng(seed).normal(0, 1, (4, 3))
    (folder / "x.save").mkdir()
    (folder / "x.save" / "data-file-schema.xml").write_text(pw_xml(atoms, -600.0 - seed, forces, electrons, fermi))
    return frame, forces, LEVEL - fermi


def test_one_folder(tmp_path, capsys):
    frame, forces, work = make(tmp_path / "a", bands="num_bands = 20")
    assert main(["convert", str(tmp_path / "a"), "-o", str(tmp_path / "x.h5")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path / 'x.h5'}: 1 structures"
    assert lines[0].startswith(
        "  Hamiltonians of 4 functions, whose centers are at most 0.000 Å from their atoms; 1 with"
    )
    assert lines[1] == (
        "  electrons per atom: C 1; vacuum levels 2.500 to 2.500 eV, the zero of energies; work functions "
        f"{work:.3f} to {work:.3f} eV"
    )
    data = Hamiltonians(tmp_path / "x.h5")
    (found,) = data
    np.testing.assert_allclose(
        found.hamiltonian.eigenvalues(POINTS), frame.hamiltonian.eigenvalues(POINTS), atol=2e-5
    )  # six digits in the file
    np.testing.assert_allclose(found.hamiltonian.centers, frame.atoms.positions, atol=1e-6)
    assert found.functions == frame.functions and found.name == "a"
    assert found.energy == pytest.approx(-600.0, abs=1e-6)
    np.testing.assert_allclose(found.forces, forces, atol=1e-8)
    assert data.attributes["electrons_per_atom"] == {"C": 1.0}


def test_electrons(tmp_path, capsys):
    """Without disentanglement they are those of the run less the excluded bands, else the filled levels are counted."""
    make(tmp_path / "a", bands="num_bands = 4\nexclude_bands = 1-5, 10", electrons=16)
    for options, expected in (([], 1.5), (["--electrons", "C=1.25"], 1.25)):
        assert main(["convert", str(tmp_path), "-o", str(tmp_path / "x.h5"), "--force", *options]) == 0
        assert Hamiltonians(tmp_path / "x.h5").attributes["electrons_per_atom"] == {"C": expected}
    (tmp_path / "a" / "x.save" / "data-file-schema.xml").unlink()
    with pytest.warns(UserWarning, match="the number of electrons in the functions is not known, .*--electrons C=N"):
        assert main(["convert", str(tmp_path / "a" / "g_hr.dat"), "-o", str(tmp_path / "x.h5"), "--force"]) == 0
    (found,) = Hamiltonians(tmp_path / "x.h5")
    assert found.energy is None and "0 with energies, 0 with forces" in capsys.readouterr().out
    assert main(["convert", str(tmp_path), "-o", str(tmp_path / "z.h5"), "--electrons", "Q=1"]) == 1
    assert "got --electrons Q=1, need SYMBOL=N, such as C=1" in capsys.readouterr().err


def test_not_read_as_frames(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a" / "x.save" / "data-file-schema.xml").unlink()
    with pytest.raises(
        ValueError, match="a: a folder with Hamiltonians of Wannier90; convert it first: mlelec convert"
    ):
        read_frames(tmp_path / "a")


def test_structures_that_are_left_out(tmp_path, capsys):
    make(tmp_path / "a", bands="num_bands = 20")
    make(tmp_path / "b", 1, bands="num_bands = 20", flat=False)
    assert [path.parent.name for path in wannier_files(tmp_path)] == ["a", "b"]
    with pytest.warns(
        UserWarning, match=r"1 of 2 structures are left out: .*b: the potential varies by \d+ meV in the"
    ):
        assert main(["convert", str(tmp_path), "-o", str(tmp_path / "x.h5")]) == 0
    assert [frame.name for frame in Hamiltonians(tmp_path / "x.h5")] == ["a"]
    command = ["convert", str(tmp_path / "b"), "-o", str(tmp_path / "y.h5")]
    assert main(command) == 1
    assert (
        "in the vacuum, need less than 5 meV; make the cell higher; no structure is left of 1"
        in capsys.readouterr().err
    )
    assert main([*command, "--vacuum-level", "2.5"]) == 0
    centers = tmp_path / "a" / "g_centres.xyz"
    lines = centers.read_text().splitlines()
    name, *place = lines[2].split()
    for moved, remedy in (
        ([0, 0, 1], "; for a layer in the middle of the cell, .* guiding_centres = true"),
        ([0, 1, 0], ""),
    ):
        lines[2] = " ".join([name, *(str(float(x) + dx) for x, dx in zip(place, moved))])
        centers.write_text("\n".join(lines) + "\n")
        assert main(["convert", str(tmp_path / "a"), "-o", str(tmp_path / "z.h5")]) == 1
        message = f"a: a function is 1.00 Å from its atom, need at most 0.8{remedy}; no structure is left"
        assert re.search(message, capsys.readouterr().err)


def test_what_is_missing(tmp_path, capsys):
    make(tmp_path / "a", bands="num_bands = 20")
    command = ["convert", str(tmp_path / "a"), "-o", str(tmp_path / "x.h5")]

    def refused(message, *options):
        assert main([*command, *options]) == 1
        assert message in capsys.readouterr().err

    refused("got --width for", "--width", "0.3")
    refused("got --points for", "--points", "3")
    (tmp_path / "a" / "potential").rename(tmp_path / "a" / "potential.dat")
    refused("need the level of the vacuum, to which energies are relative; run pp.x with plot_num = 11")
    win = tmp_path / "a" / "g.win"
    text = win.read_text()
    win.write_text(text.replace("C: pz", "C: p"))
    refused("its projections are 12 functions, g_hr.dat has 4")
    win.unlink()
    refused("need g.win beside it, with atoms and projections")
    win.write_text(text)
    (tmp_path / "a" / "g_centres.xyz").unlink()
    refused("need g.wout or g_centres.xyz beside it")
    (tmp_path / "a" / "h_hr.dat").write_text("")
    refused("got Hamiltonians of g, h, need one; name the file")
