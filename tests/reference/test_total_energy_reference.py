"""Total energy terms of beryllium against Quantum ESPRESSO's output and against independent codes.

MALA's test snapshots (BSD-3), outside the repository in ../shared/reference/mala: density, LDOS, pseudopotential and
output of pw.x 6.6, PBE with core correction, ecutrho 160 Ry.  Their SCF was stopped early, so that only terms of the
printed density can be compared with pw.x; the numbers from the LDOS, which is coarse, are those of other programs.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ase_mlelec.io.mala import read_mala
from ase_mlelec.io.upf import read_upf
from ase_mlelec.physics import ewald, grid, hartree, total_energy, xc
from ase_mlelec.units import BOHR, GPA, HARTREE, KB, RYDBERG

SHARED = Path(__file__).parents[3] / "shared"
FOLDER = SHARED / "reference" / "mala"
BE2 = FOLDER / "Be2"
pytestmark = pytest.mark.skipif(not BE2.exists(), reason=f"no reference data in {FOLDER}")

CUTOFF = 160 * RYDBERG
CHARGES = [2.0, 2.0]
LABELS = {"hartree": "hartree", "xc": "xc", "ion_ion": "ewald"}


def snapshot(number):
    """(MalaSnapshot with its LDOS, output of pw.x)"""
    data = read_mala(
        BE2 / f"Be_snapshot{number}.info.json",
        output_npy=BE2 / f"Be_snapshot{number}.out.npy",
        grid_offset=-5.0,
        grid_spacing=2.5,
    )
    return data, (BE2 / f"Be_snapshot{number}.out").read_text()


def printed(output, term):
    return float(re.search(rf"{LABELS[term]} contribution\s+=\s+(\S+) Ry", output).group(1)) * RYDBERG


def core_density(positions, cell, shape):
    upf = read_upf(BE2 / "Be.pbe-n-rrkjus_psl.1.0.0.UPF")
    return grid.superpose(upf.core_charge, upf.r, upf.rab, positions, cell, shape, cutoff=CUTOFF)


def valence_density():
    """Electrons/Å^3."""
    return np.load(BE2 / "Be_snapshot0.dens.npy")[..., 0]


def stored():
    return json.loads((FOLDER / "eq9_be2.json").read_text())


def test_terms_of_the_density():
    """Every printed term to 1e-6 Ry; the numbers of the other code, from the same density, as closely."""
    data, output = snapshot(0)
    positions, cell, density = data.atoms.positions, data.atoms.cell.array, valence_density()
    core = core_density(positions, cell, density.shape)
    terms = total_energy.from_density(density, cell, positions, CHARGES, xc="pbe", core_density=core)
    for term in LABELS:
        assert terms[term] == pytest.approx(printed(output, term), abs=1e-6 * RYDBERG), term
    other = stored()["mine_Ry"]
    in_rydberg = {
        "hartree": terms["hartree"],
        "xc": terms["xc"],
        "ewald": terms["ion_ion"],
        "deband": -2 * terms["hartree"] - terms["xc_potential"],
        "xc_without_core": xc.energies(density, cell, xc="pbe")[0],
    }
    for name, value in in_rydberg.items():
        assert value / RYDBERG == pytest.approx(other[name], abs=2e-8), name
    volume = np.linalg.det(cell)
    assert core.mean() * volume == pytest.approx(other["int_core"], abs=1e-9)
    assert core.min() * BOHR**3 == pytest.approx(other["core_min"], abs=1e-9)


def test_stress_of_the_terms():
    """The derivatives with respect to strain are the printed stresses, to their last digit of 0.01 kbar.

    The electrons move with the cell, and so do the cores: pw.x prints their shares of the xc term apart.
    """
    data, output = snapshot(0)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    cell, positions = (torch.tensor(value) @ deformation for value in (data.atoms.cell.array, data.atoms.positions))
    density = torch.tensor(valence_density()) / torch.linalg.det(deformation)
    core = core_density(positions, cell, density.shape)
    energies = {
        ("hartree",): hartree.energy(density, cell),
        ("ewald",): ewald.energy(positions, CHARGES, cell),
        ("exc-cor", "corecor"): xc.energies(density, cell, xc="pbe", core_density=core)[0],
    }
    for names, energy in energies.items():
        (slope,) = torch.autograd.grad(energy, strain, retain_graph=True)
        kilobar = -slope / torch.linalg.det(cell.detach()) / (GPA / 10)
        blocks = [re.search(rf"{name}\s+stress \(kbar\)((?:\s+-?\d+\.\d+){{9}})", output).group(1) for name in names]
        wanted = sum(np.array(block.split(), dtype=float).reshape(3, 3) for block in blocks)
        np.testing.assert_allclose(kilobar, wanted, atol=0.006 * len(names))


@pytest.mark.parametrize("number", [0, 1])
def test_ewald_energy(number):
    data, output = snapshot(number)
    energy = ewald.energy(data.atoms.positions, CHARGES, data.atoms.cell.array)
    assert energy == pytest.approx(printed(output, "ion_ion"), abs=1e-6 * RYDBERG)


@pytest.mark.parametrize("number", [0, 1])
def test_terms_of_the_ldos(number):
    """Against another code that evaluates Eq. (9) from MALA's LDOS, which falls to zero one spacing beyond its ends."""
    data, _ = snapshot(number)
    ldos = np.pad(data.ldos.astype(float), [(0, 0)] * 3 + [(1, 1)])
    energies = np.concatenate([[data.energies[0] - 2.5], data.energies, [data.energies[-1] + 2.5]])
    positions, cell = data.atoms.positions, data.atoms.cell.array
    core = core_density(positions, cell, ldos.shape[:3])
    terms = total_energy.from_ldos(
        ldos, energies, cell, positions, CHARGES, data.temperature, xc="pbe", core_density=core
    )
    other = stored()["from_ldos_eV"][number]
    found = {
        "deband": -2 * terms["hartree"] - terms["xc_potential"],
        "ewald": terms["ion_ion"],
        **{name: terms[name] for name in ("hartree", "xc", "band", "entropy", "total")},
    }
    for name, value in found.items():
        assert value == pytest.approx(other[name], abs=2e-6), name
    level = json.loads((FOLDER / "postproc_be2.json").read_text())[f"snap{number}"]["fermi_sc_eV"]
    assert terms["fermi_level"] == pytest.approx(level, abs=1e-5)


def test_eq9_of_another_program():
    """A short script in NumPy, written for other data: all terms of a noisy LDOS in a skewed cell, LDA."""
    path = SHARED / "dft" / "ldos.py"
    if not path.exists():
        pytest.skip(f"no {path}")
    spec = importlib.util.spec_from_file_location("ldos", path)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    other.HA, other.KB = HARTREE, KB
    random = np.random.default_rng(7)
    cell = np.array([[4.1, 0.2, 0], [-0.3, 3.9, 0.5], [0.1, 0.2, 4.4]])
    positions, charges, energies = random.uniform(0, 1, (4, 3)) @ cell, np.full(4, 3.0), np.linspace(-6, 11, 60)
    ldos = random.uniform(0, 0.04, (9, 11, 7, 60))
    theirs = other.eq9(energies, np.moveaxis(ldos, -1, 0) * BOHR**3, cell / BOHR, positions / BOHR, charges, 3000.0)
    ours = total_energy.from_ldos(ldos, energies, cell, positions, charges, 3000.0)
    names = {
        "band": "Eb",
        "entropy": "mTS",
        "hartree": "U",
        "xc": "Exc",
        "xc_potential": "Vxc",
        "ion_ion": "Vii",
        "total": "A",
        "fermi_level": "mu",
    }
    assert ours == pytest.approx({name: float(theirs[key]) for name, key in names.items()}, rel=1e-10)
