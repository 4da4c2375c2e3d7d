"""Phonons: springs and rigid ions in closed form, ASE's own phonons, and the files of other programs."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones
from ase.calculators.tersoff import Tersoff
from ase.phonons import Phonons as ASEPhonons
from ase.units import _amu, _e, _hbar
from test_mechanics import SILICON

from ase_mlelec import DeepPotCalculator, load_model, units
from ase_mlelec.physics.ewald import energy as ewald
from ase_mlelec_entry_points.cli.main import main
from ase_mlelec_entry_points.cli.phonons import warn_of_short_supercell

pytest.importorskip("phonopy", reason="needs phonopy (extra phonons)")
from ase_mlelec.analysis.phonons import Phonons, read_response, response_of

HBAR_OMEGA = _hbar * (_e / _amu) ** 0.5 * 1e10 / _e  # eV: ħω for ω² of 1 eV/Å^2/amu
QPOINTS = [[0, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0.5], [0.1, 0.2, -0.3], [1 / 3, 0, 0]]


def signed_root(squares):
    return HBAR_OMEGA * np.sign(squares) * np.abs(squares) ** 0.5


def test_springs_between_neighbors():
    """fcc with central springs k: D(q) = k/m sum_r r r^T/|r|^2 (1 - cos q.r), at any q."""
    distance = 2 ** (1 / 6)
    atoms = bulk("Ar", a=distance * 2**0.5)
    atoms.calc = LennardJones(epsilon=1.0, sigma=1.0, rc=1.3 * distance)
    found = Phonons(atoms, supercell=(3, 3, 3), displacement=1e-4)
    stiffness, a = 72 / 2 ** (1 / 3), distance * 2**0.5
    bonds = [
        s * (np.eye(3)[i] + t * np.eye(3)[j]) * a / 2
        for i, j in ((0, 1), (0, 2), (1, 2))
        for s in (1, -1)
        for t in (1, -1)
    ]
    for q in QPOINTS:
        phases = 2 * np.pi * np.array(bonds) @ (np.array(q) @ atoms.cell.reciprocal().array)
        matrix = sum(np.outer(r, r) / (r @ r) * (1 - np.cos(x)) for r, x in zip(bonds, phases))
        wanted = signed_root(np.linalg.eigvalsh(matrix * stiffness / atoms.get_masses()[0]))
        np.testing.assert_allclose(found.energies(q)[0], wanted, rtol=1e-5, atol=1e-6)


def test_phonons_of_ase(tmp_path):
    """Diamond with Tersoff's potential, whose range is less than half of the supercell."""
    atoms = bulk("Si", a=5.432)
    atoms.calc = Tersoff({("Si", "Si", "Si"): SILICON})
    found = Phonons(atoms, supercell=(3, 3, 3))
    assert found.n_displacements == 1
    other = ASEPhonons(
        atoms, Tersoff({("Si", "Si", "Si"): SILICON}), supercell=(3, 3, 3), delta=0.01, name=tmp_path / "p"
    )
    other.run()
    other.read(acoustic=True)
    wanted = other.band_structure(QPOINTS, verbose=False)
    np.testing.assert_allclose(found.energies(QPOINTS), wanted, atol=2e-5)
    dos = found.dos((8, 8, 8), npoints=4000)
    assert np.trapezoid(dos.get_weights(), dos.get_energies()) == pytest.approx(6, rel=1e-3)


class RigidIons(Calculator):
    """Charges, and a repulsion of nearest neighbors."""

    implemented_properties = ["energy", "forces", "born_effective_charges"]
    charges = {"Na": 0.9, "Cl": -0.9}
    near = 3.2  # Å, between first and second neighbors

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        n, positions = len(self.atoms), torch.tensor(self.atoms.positions, requires_grad=True)
        cell = torch.tensor(self.atoms.cell.array)
        charges = torch.tensor([self.charges[symbol] for symbol in self.atoms.symbols], dtype=torch.float64)
        i, j, shifts = self.pairs(n)
        distances = (positions[j] - positions[i] + shifts @ cell).norm(dim=1)
        total = ewald(positions, charges, cell) + 500.0 * torch.exp(-distances / 0.35).sum() / 2
        self.results = {"energy": total.item(), "forces": -torch.autograd.grad(total, positions)[0].numpy()}
        self.results["born_effective_charges"] = charges.numpy()[:, None, None] * np.eye(3)

    def pairs(self, n):
        from ase.neighborlist import neighbor_list

        i, j, shifts = neighbor_list("ijS", self.atoms, self.near)
        return i, j, torch.tensor(shifts, dtype=torch.float64)

    def get_born_charges(self, atoms):
        return self.get_property("born_effective_charges", atoms)

    def get_dielectric_tensor(self, atoms):
        return np.eye(3)


def rigid_ions():
    atoms = bulk("NaCl", "rocksalt", a=5.3)
    atoms.calc = RigidIons()
    return atoms


def test_polar_crystal():
    """Between rigid ions every force constant of the electrostatics is a dipole interaction: a small supercell suffices."""
    atoms = rigid_ions()
    small = Phonons(atoms, born_charges=RigidIons().get_born_charges(atoms), dielectric=np.eye(3), displacement=1e-3)
    plain = Phonons(atoms, displacement=1e-3)
    large = Phonons(atoms, supercell=(4, 4, 4), displacement=1e-3)
    between = [[0.25, 0.25, 0], [0.25, 0, 0], [0.25, 0.5, 0.75]]  # of the large supercell alone
    wanted = large.energies(between)
    np.testing.assert_allclose(small.energies(between), wanted, atol=2e-5)
    assert np.abs(plain.energies(between) - wanted).max() > 1e-3
    reduced = np.prod(atoms.get_masses()) / atoms.get_masses().sum()
    splitting = 4 * np.pi * units.COULOMB * 0.9**2 / (atoms.get_volume() * reduced)
    for direction in (1, 0, 0), (1, 2, -1):
        modes = small.energies([0, 0, 0], direction=direction)[0] / HBAR_OMEGA
        np.testing.assert_allclose(modes[:3], 0, atol=1e-4)
        assert modes[5] ** 2 - modes[4] ** 2 == pytest.approx(splitting, rel=1e-5)
        np.testing.assert_allclose(modes[3:5], plain.energies([0, 0, 0])[0, 3:5] / HBAR_OMEGA, rtol=1e-5)
    bands = small.band_structure("LGX", npoints=31)
    center = int(np.flatnonzero(~bands.path.kpts.any(axis=1))[0])
    longitudinal = bands.energies[0, :, 5]
    assert abs(longitudinal[center] - longitudinal[center - 1]) < 0.03 * longitudinal[center]
    assert longitudinal[center] > 1.2 * small.energies([0, 0, 0])[0, 5]


def test_response_of_calculators():
    atoms = rigid_ions()
    born, dielectric = response_of(atoms)
    np.testing.assert_allclose(born, [0.9 * np.eye(3), -0.9 * np.eye(3)])
    np.testing.assert_allclose(dielectric, np.eye(3))
    atoms.calc = LennardJones()
    assert response_of(atoms) is None


def test_response_of_files(tmp_path):
    """phonopy's BORN, which has the dielectric tensor and the atoms that symmetry does not make of others."""
    rows = ["14.4", "2.9 0 0 0 2.9 0 0 0 2.9", "1.9 0 0 0 1.9 0 0 0 1.9", "-1.9 0 0 0 -1.9 0 0 0 -1.9"]
    (tmp_path / "BORN").write_text("\n".join(rows) + "\n")
    born, dielectric = read_response(tmp_path / "BORN", rigid_ions())
    np.testing.assert_allclose(born, [1.9 * np.eye(3), -1.9 * np.eye(3)], atol=1e-12)
    np.testing.assert_allclose(dielectric, 2.9 * np.eye(3), atol=1e-12)
    (tmp_path / "other").write_text("nothing\n")
    with pytest.raises(ValueError, match="other: neither an output of ph.x with epsil nor a file BORN"):
        read_response(tmp_path / "other", rigid_ions())


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda a: a.set_pbc([True, True, False]), {}, "does not repeat in all directions"),
        (lambda a: None, {"supercell": (2, 2, 0)}, "need three whole numbers of 1 or more"),
        (lambda a: None, {"supercell": (2, 2, 1.5)}, "need three whole numbers of 1 or more"),
        (lambda a: None, {"dielectric": np.eye(3)}, "a dielectric tensor alone, need"),
        (lambda a: None, {"born_charges": np.zeros((1, 3, 3)), "dielectric": np.eye(3)}, r"Born charges \(1, 3, 3\)"),
    ],
)
def test_bad_input(change, options, message):
    atoms = bulk("NaCl", "rocksalt", a=5.3)
    atoms.calc = LennardJones()
    change(atoms)
    with pytest.raises(ValueError, match=message):
        Phonons(atoms, **{"supercell": (1, 1, 1)} | options)


def test_command_line(tmp_path, capsys):
    bulk("Si", a=5.4).write(tmp_path / "si.xyz")
    picture, table = tmp_path / "a.png", tmp_path / "a.csv"
    arguments = ["phonons", "si", str(tmp_path / "si.xyz"), "--supercell", "2", "2", "2", "--points", "60"]
    # planes of atoms are 3.12 Å apart
    short = "the supercell of 6.2 Å is shorter than twice the cutoff of the model, .* --supercell 4 4 4 holds all"
    with pytest.warns(UserWarning, match=short):
        assert main([*arguments, "--plot", str(picture), "--out", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Si2: supercell 2 x 2 x 2, 1 displacement" and "-0.000" not in lines[1]
    modes = [float(x) for x in lines[1].split(":")[1].split()[:6]]
    assert modes[3] == pytest.approx(15.2, rel=0.04) and modes[3:] == [modes[3]] * 3 and max(map(abs, modes[:3])) < 0.01
    assert picture.stat().st_size > 10_000
    columns = np.genfromtxt(table, delimiter=",", names=True)
    assert columns.dtype.names[:3] == ("q1", "q2", "q3") and len(columns) == 60
    assert main([*arguments, "--born", str(tmp_path / "si.xyz")]) == 1
    assert "neither an output of ph.x" in capsys.readouterr().err


def test_supercells_that_hold_all_interactions(recwarn):
    """Twice the cutoff of the energy along every direction, not that of a Hamiltonian in the same model."""
    atoms = bulk("Si", cubic=True)
    atoms.calc = DeepPotCalculator("si")
    warn_of_short_supercell(atoms, (3, 3, 3))
    assert not recwarn
    for repeats in ((2, 3, 3), (3, 3, 2)):
        with pytest.warns(UserWarning, match=r"of 10.9 Å is shorter .* --supercell 3 3 3 holds"):
            warn_of_short_supercell(atoms, repeats)
    assert load_model("mos2").cutoff > 9 > load_model("mos2").descriptor_of("energy").cutoff
    atoms = bulk("Mo", cubic=True) * (6, 6, 6)  # 18.9 Å
    atoms.calc = DeepPotCalculator("mos2")
    warn_of_short_supercell(atoms, (1, 1, 1))
    assert not recwarn


def test_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ValueError, match=r"phonopy is not installed; pip install 'ase-mlelec\[phonons\]'"):
        Phonons(Atoms("Si", cell=[2, 2, 2], pbc=True))
