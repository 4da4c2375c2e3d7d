"""Pseudopotentials: files of both versions made of closed forms, what must be refused, and real files."""

import gzip
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import ase.units
import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.special import erf

from ase_mlelec.io.functionals import functional_of
from ase_mlelec.io.upf import read_upf

UNITS = ase.units.create_units("2018")
RY, HARTREE, BOHR = UNITS["Rydberg"], UNITS["Hartree"], UNITS["Bohr"]
SHARED = Path(__file__).parents[3] / "shared"
DEBIAN = Path("/usr/share/espresso/pseudo")
BERYLLIUM = SHARED / "reference" / "mala" / "Be2" / "Be.pbe-n-rrkjus_psl.1.0.0.UPF"
REAL = [
    BERYLLIUM,
    SHARED / "dft" / "pseudo" / "mo.upf",
    SHARED / "dft" / "pseudo" / "s.upf",
    DEBIAN / "Al.pz-vbc.UPF",
    DEBIAN / "Si.pz-vbc.UPF",
]

# Al with Gaussian charges in Rydberg units: valence 3 e of exponent A, core 0.7 e of exponent B
A, B, VALENCE, CORE = 1.3, 2.9, 3.0, 0.7
R = np.exp(-7 + 0.02 * np.arange(691)) / 13  # up to 69 bohr
COLUMNS = {
    "PP_R": R,
    "PP_RAB": 0.02 * R,
    "PP_LOCAL": -2 * VALENCE * erf(R) / R,
    "PP_RHOATOM": 4 * np.pi * R**2 * VALENCE * (A / np.pi) ** 1.5 * np.exp(-A * R**2),
    "PP_NLCC": CORE * (B / np.pi) ** 1.5 * np.exp(-B * R**2),
}

INFO = "<PP_INFO>\nmade by A & B, <nobody@nowhere>, 3 < 4\n</PP_INFO>\n"  # no XML
HEADER_1 = """<PP_HEADER>
   0                   Version Number
  Al                   Element
   NC                  Norm - Conserving pseudopotential
    T                  Nonlinear Core Correction
 SLA  PZ   NOGX NOGC   PZ   Exchange-Correlation functional
    3.00000000000      Z valence
    0.00000000000      Total energy
  0.0000000  0.0000000 Suggested cutoff for wfc and rho
    1                  Max angular momentum component
  691                  Number of points in mesh
    2    2             Number of Wavefunctions, Number of Projectors
 Wavefunctions         nl  l   occ
                       3S  0  2.00
</PP_HEADER>
"""
HEADER_2 = """<PP_HEADER comment="a > b" element=" Al" pseudo_type="NC" core_correction=".true."
 is_ultrasoft="F" is_paw="F"
 functional=" SLA  PZ   NOGX NOGC" z_valence="3.000000000000E+00" mesh_size="691" l_local='0'/>
"""


def fortran(value):
    """ES20.12E2, which leaves the E out of three-digit exponents."""
    mantissa, exponent = f"{value:.12e}".split("e")
    return f"{mantissa}{'E' if abs(int(exponent)) < 100 else ''}{int(exponent):+03d}"


def block(name, attributes=""):
    numbers = [fortran(value) for value in COLUMNS[name]]
    rows = "\n".join(" ".join(numbers[i : i + 4]) for i in range(0, len(numbers), 4))
    return f"<{name}{attributes}>\n{rows}\n</{name}>\n"


def version_1():
    return INFO + HEADER_1 + "".join(block(name) for name in COLUMNS)


def version_2():
    blocks = "".join(block(name, f' type="real"  size="{len(R)}" columns="4"') for name in COLUMNS)
    return f'<UPF version="2.0.1">\n{INFO}{HEADER_2}<PP_MESH mesh="691">{blocks}</PP_MESH></UPF>\n'


@pytest.mark.parametrize("make", [version_1, version_2])
def test_closed_forms(tmp_path, make):
    (tmp_path / "Al.UPF").write_text(make())
    found = read_upf(tmp_path / "Al.UPF")
    assert (found.symbol, found.z_valence, found.functional) == ("Al", 3.0, "SLA  PZ   NOGX NOGC")
    assert found.is_ultrasoft is found.is_paw is False
    np.testing.assert_allclose(found.r, R * BOHR, rtol=1e-10)  # conversion factors agree to 1e-11
    # far outside -Z e²/r; sums over the mesh converge as the Gaussians do, 1e-9 is the piece inside the first point
    assert found.local_potential[-1] * found.r[-1] == pytest.approx(-3 * HARTREE * BOHR, rel=1e-10)
    assert (found.atomic_charge * found.rab).sum() == pytest.approx(VALENCE, rel=1e-9)
    assert (4 * np.pi * found.r**2 * found.core_charge * found.rab).sum() == pytest.approx(CORE, rel=1e-9)
    mean_square = (found.r**2 * found.atomic_charge * found.rab).sum() / VALENCE
    assert mean_square == pytest.approx(1.5 / A * BOHR**2, rel=1e-9)


def test_no_core_correction(tmp_path):
    """A density that the header does not mention is not used, as in pw.x."""
    for text in version_1().replace("    T    ", "    F    "), version_2().replace(".true.", ".false."):
        (tmp_path / "Al.UPF").write_text(text)
        assert read_upf(tmp_path / "Al.UPF").core_charge is None


@pytest.mark.parametrize(
    "old, new, flags",
    [
        ('is_ultrasoft="F"', 'is_ultrasoft="true"', (True, False)),
        ('is_paw="F"', 'is_paw="T"', (True, True)),
        ("   NC   ", "   US   ", (True, False)),
        ("   NC   ", "   PAW  ", (True, True)),
    ],
)
def test_augmentation(tmp_path, old, new, flags):
    text = next(text for text in (version_1(), version_2()) if old in text)
    (tmp_path / "Al.UPF").write_text(text.replace(old, new))
    found = read_upf(tmp_path / "Al.UPF")
    assert (found.is_ultrasoft, found.is_paw) == flags


def test_bare_coulomb_potential(tmp_path):
    start, end = version_2().split(block("PP_LOCAL", ' type="real"  size="691" columns="4"'))
    (tmp_path / "Al.UPF").write_text(start + '<PP_LOCAL type="1/r">\n<!--Coulomb-->\n</PP_LOCAL>' + end)
    found = read_upf(tmp_path / "Al.UPF")
    np.testing.assert_allclose(found.local_potential, -2 * VALENCE * RY / R, rtol=1e-10)


@pytest.mark.parametrize(
    "make, edit, message",
    [
        (version_1, lambda text: "&input\n title='Be'\n/", "not UPF version 1 or 2"),
        (version_2, lambda text: text[:-2000], "truncated UPF file .no </UPF>.; copy or download it again"),
        (version_1, lambda text: text[:400], "truncated UPF file .no </PP_HEADER>."),
        (version_1, lambda text: text[: text.index("HEADER") + 6], "truncated UPF file .<PP_HEADER> is not closed."),
        (version_1, lambda text: text[:-4000], "truncated UPF file .no <PP_NLCC> or </PP_NLCC>."),
        (
            version_1,
            lambda text: text.replace(fortran(R[-1]), ""),
            "got 690 numbers in <PP_R>, need the 691 of the header",
        ),
        (version_1, lambda text: text.replace(fortran(R[-1]), "nonsense"), "<PP_R> holds something else than numbers"),
        (version_2, lambda text: text.replace("z_valence", "zv"), "no valence charge in <PP_HEADER>"),
        (version_2, lambda text: text.replace('functional="', 'xc="'), "no functional in <PP_HEADER>"),
        (version_2, lambda text: text.replace('z_valence="3', 'z_valence="0'), "no valence charge, got z_valence 0"),
        (version_1, lambda text: text.replace("    3.00000000000      Z valence\n", ""), "no valence charge, got"),
        (version_1, lambda text: text.replace("    3.00000000000   ", "  three"), "header not understood, no valence"),
    ],
)
def test_refused(tmp_path, make, edit, message):
    path = tmp_path / "x.UPF"
    path.write_text(edit(make()))
    with pytest.raises(ValueError, match=message) as caught:
        read_upf(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing(tmp_path):
    with pytest.raises(ValueError, match="no such file; give a pseudopotential in UPF"):
        read_upf(tmp_path / "Al.UPF")


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_files_against_an_xml_parser(path):
    """Files that are valid XML: every number as the parser of the standard library finds it; charges add up."""
    if not path.exists():
        pytest.skip(f"no {path}")
    found, root = read_upf(path), ElementTree.parse(path).getroot()
    header = root.find("PP_HEADER").attrib
    assert found.symbol == header["element"].strip() and found.z_valence == float(header["z_valence"])
    assert found.functional == header["functional"].strip() and found.is_paw == (header["pseudo_type"] == "PAW")
    assert found.is_ultrasoft == (header["pseudo_type"] in ("US", "USPP", "PAW"))
    assert (found.core_charge is None) == (root.find("PP_NLCC") is None)
    columns = {
        "PP_MESH/PP_R": found.r / BOHR,
        "PP_MESH/PP_RAB": found.rab / BOHR,
        "PP_LOCAL": found.local_potential / RY,
        "PP_RHOATOM": found.atomic_charge * BOHR,
    }
    if found.core_charge is not None:
        columns["PP_NLCC"] = found.core_charge * BOHR**3
    for name, values in columns.items():
        np.testing.assert_allclose(values, [float(word) for word in root.find(name).text.split()], rtol=1e-10)
    assert (found.atomic_charge * found.rab).sum() == pytest.approx(found.z_valence, rel=1e-4)
    far = found.r > 4  # Å
    np.testing.assert_allclose(found.local_potential[far], -found.z_valence * HARTREE * BOHR / found.r[far], rtol=1e-4)


@pytest.mark.skipif(not BERYLLIUM.exists(), reason=f"no {BERYLLIUM}")
def test_core_charge_of_beryllium():
    """Of two atoms, as an independent evaluation integrates it; to the digit with Simpson's rule, as pw.x has it."""
    found = read_upf(BERYLLIUM)
    charge = 2 * simpson(4 * np.pi * found.r**2 * found.core_charge * found.rab)
    assert charge == pytest.approx(0.9090254033847827, rel=1e-12)


@pytest.mark.skipif(not (DEBIAN / "C.UPF").exists(), reason=f"no C.UPF in {DEBIAN}")
def test_real_file_of_version_1():
    found = read_upf(DEBIAN / "C.UPF")
    assert (found.symbol, found.z_valence, found.functional) == ("C", 4.0, "SLA  PZ   NOGX NOGC")
    assert (found.atomic_charge * found.rab).sum() == pytest.approx(4, rel=1e-6) and not found.is_ultrasoft
    assert found.r[-1] * found.local_potential[-1] == pytest.approx(-4 * HARTREE * BOHR, rel=1e-6)


# functionals and spellings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, ours",
    [
        ("PBE", "pbe"),
        (" SLA  PW   PBE  PBE", "pbe"),
        ("sla+pw+pbx+pbc", "pbe"),
        ("SLA-PW-PBX-PBC", "pbe"),
        ("1 4 3 4", "pbe"),
        ("1434", "pbe"),
        ("PBE ( 1  4  3  4 0 0)", "pbe"),
        ("( 1 4 3 4 )", "pbe"),
        ("XC-001I-004I-003I-004I-000I-000I", "pbe"),
        ("SLA PW PBX PBC NONE", "pbe"),
        ("1 4 14 9", "pbe"),
        ("XC-000I-000I-101L-130L-000I-000I", "pbe"),
        ("XC-000I-000I-116L-133L", "pbesol"),
        ("XC-001L-012L", "lda_pw"),
        ("XC-001I-009L-000I-000I", "lda_pz"),
        ("PBEsol", "pbesol"),
        ("SLA  PW   PSX  PSC", "pbesol"),
        ("1 4 10 8", "pbesol"),
        ("pz", "lda_pz"),
        ("LDA", "lda_pz"),
        ("SLA  PZ   NOGX NOGC", "lda_pz"),
        ("sla+pz", "lda_pz"),
        ("1 1 0 0", "lda_pz"),
        ("SLA PW NOGX NOGC", "lda_pw"),
        # others, some of which share words with ours
        ("SLA PW RPB PBC", None),
        ("SLA PW GGX GGC", None),
        ("PW91", None),
        ("PBE0", None),
        ("revPBE", None),
        ("SLA PW PBX PBC VDW1", None),
        ("SLA  PW   TPSS TPSS", None),
        ("SLA PW PSX PBC", None),
        ("PBX PSX", None),
        ("XC-001I-004I-101L-130L", None),
        ("XC-000I-000I-101L-133L", None),
        ("XC-000I-000I-101L-130L-000I-003I", None),
        ("XC-000I-000I-000I-000I-263L-267L", None),
        ("XC-101L", None),
        ("XC-1L1", None),
        ("1 4 3 4 0 3", None),
        ("1 4 3 8", None),
        ("PBC", None),
        ("", None),
        ("()", None),
        ("XC-", None),
        ("xyz", None),
    ],
)
def test_functionals_by_meaning(name, ours):
    assert functional_of(name) == ours


@pytest.mark.parametrize("make", [version_1, version_2])
@pytest.mark.parametrize("symbol", ["al", "AL", "Al", "Al1"])
def test_symbols(tmp_path, make, symbol):
    (tmp_path / "x.UPF").write_text(make().replace("  Al  ", f"  {symbol}  ").replace('" Al"', f'"{symbol}"'))
    assert read_upf(tmp_path / "x.UPF").symbol == "Al"


@pytest.mark.parametrize("number", ["3.0D0", "3.000000000000D+00", "3", "3."])
def test_forms_of_the_valence_charge(tmp_path, number):
    for text in version_1().replace("3.00000000000", number), version_2().replace("3.000000000000E+00", number):
        (tmp_path / "x.UPF").write_text(text)
        assert read_upf(tmp_path / "x.UPF").z_valence == 3.0


def test_compressed_and_with_input_in_it(tmp_path):
    """What people copy into <PP_INFO> is no data, and gzip is read whatever the name."""
    text = version_2().replace("3 < 4", '3 < 4 <PP_HEADER element="C"/> <PP_R>1 2</PP_R>')
    (tmp_path / "x.UPF").write_bytes(gzip.compress(text.encode()))
    found = read_upf(tmp_path / "x.UPF")
    assert found.symbol == "Al" and len(found.r) == 691
    for damage in (lambda data: data[:-30], lambda data: data[:200] + b"????????" + data[208:]):
        (tmp_path / "x.UPF").write_bytes(damage(gzip.compress(text.encode())))
        with pytest.raises(ValueError, match="x.UPF: the gzip file is .*; copy or compress it again"):
            read_upf(tmp_path / "x.UPF")


def test_mesh_size_of_the_mesh(tmp_path):
    (tmp_path / "x.UPF").write_text(version_2().replace('mesh_size="691"', ""))
    assert len(read_upf(tmp_path / "x.UPF").r) == 691


@pytest.mark.parametrize(
    "make, edit, message",
    [
        (version_1, lambda text: text.replace(fortran(R[5]), "NaN"), "<PP_R> is NaN or infinite .entry 6."),
        (version_2, lambda text: text.replace(fortran(R[5]), "1E400"), "<PP_R> is NaN or infinite .entry 6."),
        (version_2, lambda text: text.replace(fortran(R[5]), fortran(R[4])), "<PP_R> does not rise"),
        (version_2, lambda text: text.replace('mesh_size="691"', 'mesh_size="many"'), "<PP_HEADER> not understood"),
        (version_2, lambda text: text.replace('mesh_size="691"', f'mesh_size="{10**30}"'), "got 691 numbers in <PP_R>"),
        (version_2, lambda text: text.replace("3.000000000000E+00", "NaN"), "no valence charge, got z_valence nan"),
        (version_2, lambda text: text.replace("3.000000000000E+00", "1e400"), "no valence charge, got z_valence inf"),
        (version_2, lambda text: text.replace('" Al"', '"??"'), "<PP_HEADER> not understood"),
        (version_1, lambda text: text.replace("  Al  ", "  ??  "), "header not understood"),
        (version_1, lambda text: text.replace(fortran(R[5]), "1_0"), "<PP_R> holds something else than numbers"),
    ],
)
def test_damaged(tmp_path, make, edit, message):
    path = tmp_path / "x.UPF"
    path.write_text(edit(make()))
    with pytest.raises(ValueError, match=message) as caught:
        read_upf(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text, name",
    [
        ('<?xml version="1.0"?>\n<psml version="1.1" energy_unit="hartree">\n</psml>\n', "PSML"),
        ("Si ONCVPSP-3.3.0\n 14.0 4.0 170510 zatom,zion,pspd\n 8 11 2 4 600 0 pspcod,pspxc\n", "psp8 of Abinit"),
    ],
)
def test_other_formats(tmp_path, text, name):
    (tmp_path / "Si.psml").write_text(text)
    with pytest.raises(ValueError, match=f"Si.psml: in the format {name}, which is not read; give UPF"):
        read_upf(tmp_path / "Si.psml")
