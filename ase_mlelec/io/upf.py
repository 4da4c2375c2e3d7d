"""Pseudopotentials in the Unified Pseudopotential Format (UPF), versions 1 and 2.

The total energy needs three things of a pseudopotential: the valence charge, the partial core charge, and whether the
charge density is all in the wave functions (norm-conserving) or not (ultrasoft, PAW). Many files are no valid XML,
so that the sections are found as text.

References: Quantum ESPRESSO, upflib, for the meaning of the fields; in the files r is in bohr and potentials in Ry.
"""

import re
from dataclasses import dataclass
from os import PathLike

import numpy as np

from ase_mlelec import units
from ase_mlelec.checks import printable
from ase_mlelec.io.text import element_of, fortran_floats, read_numbers, read_text

LARGEST_CHARGE = 120  # e

# formats of other programs, by what they begin with
OTHER_FORMATS = {
    "<psml": "PSML",
    "pspcod": "psp8 of Abinit",
    "zatom,zion": "psp8 of Abinit",
    "<pseudo version": "XML of PAW data",
}


@dataclass(frozen=True)
class UPF:
    """One pseudopotential; functions on its radial mesh r, where ∫ g dr is the sum of g times rab.

    Attributes
    ----------
    symbol : str
    z_valence : float, e
    functional : str
        As in the file, e.g. "PBE" or "SLA PZ NOGX NOGC"; functionals.functional_of has our name.
    is_ultrasoft : bool
        Augmentation charges, which PAW has as well.
    is_paw : bool
    r : array [M], Å
    rab : array [M], Å
        dr by index.
    local_potential : array [M], eV
    atomic_charge : array [M], e/Å
        4πr² times the valence density of the free atom.
    core_charge : array [M], e/Å^3
        The partial core density of the nonlinear core correction, or None without one.
    """

    symbol: str
    z_valence: float
    functional: str
    is_ultrasoft: bool
    is_paw: bool
    r: np.ndarray
    rab: np.ndarray
    local_potential: np.ndarray
    atomic_charge: np.ndarray
    core_charge: np.ndarray | None = None


def read_upf(path: str | PathLike) -> UPF:
    """Read a UPF file of version 1 or 2, compressed by gzip or not.

    Returns
    -------
    UPF

    Raises
    ------
    ValueError
        For a missing, truncated or damaged file, one without valence charge, and one that is no UPF.
    """
    text = _without(read_text(path, "give a pseudopotential in UPF"), ("<PP_INFO", "</PP_INFO>"), ("<!--", "-->"))
    other = next((name for mark, name in OTHER_FORMATS.items() if mark in text[:4000]), None)
    if other and "<PP_HEADER" not in text:
        raise ValueError(f"{path}: in the format {other}, which is not read; give UPF, which PseudoDojo has as well")
    if "<PP_HEADER" not in text:
        raise ValueError(
            f"{path}: not UPF version 1 or 2 (no <PP_HEADER>); give the pseudopotential in this format, "
            "to which upfconv.x converts other formats of Quantum ESPRESSO"
        )
    if re.search(r"<UPF\b", text) and "</UPF>" not in text:
        raise _truncated(path, "no </UPF>")
    header = _header(path, text)
    if not 0 < header["z_valence"] <= LARGEST_CHARGE:
        raise ValueError(f"{path}: no valence charge, got z_valence {header['z_valence']:g}; correct the header")
    n_points, has_core = header.pop("n_points"), header.pop("has_core")

    def section(name, scale):
        return _section(path, text, name, n_points) * scale

    r, rab = section("PP_R", units.BOHR), section("PP_RAB", units.BOHR)
    if n_points < 1 or r[0] < 0 or not (np.diff(r) > 0).all() or not (rab > 0).all():
        raise ValueError(
            f"{path}: <PP_R> does not rise from 0 or more, or <PP_RAB> is not positive; the file is "
            "damaged: copy or download it again"
        )
    if re.search(r'<PP_LOCAL\s+type\s*=\s*["\']1/r["\']', text):  # written as a formula
        if r[0] == 0:
            raise ValueError(
                f"{path}: the potential is -Z/r, and <PP_R> begins at 0; generate it again on a mesh without the origin"
            )
        local_potential = -header["z_valence"] * units.HARTREE * units.BOHR / r
    else:
        local_potential = section("PP_LOCAL", units.RYDBERG)
    return UPF(
        **header,
        r=r,
        rab=rab,
        local_potential=local_potential,
        atomic_charge=section("PP_RHOATOM", 1 / units.BOHR),
        core_charge=section("PP_NLCC", units.BOHR**-3) if has_core else None,
    )


def _truncated(path, what):
    return ValueError(f"{path}: truncated UPF file ({what}); copy or download it again")


def _without(text, *marks):
    """The text without what people wrote into it, which may look like anything: what lies between pairs of marks."""
    for first, last in marks:
        parts, end = [], 0
        while (start := text.find(first, end)) >= 0 and (stop := text.find(last, start)) >= 0:
            parts.append(text[end:start])
            end = stop + len(last)
        text = "".join([*parts, text[end:]])
    return text


def _header(path, text):
    """Contents of the header as arguments of UPF, with has_core and n_points."""
    attributes = re.search(r'<PP_HEADER\b((?:[^>"\']|"[^"]*"|\'[^\']*\')*)>', text)
    if attributes is None:
        raise _truncated(path, "<PP_HEADER> is not closed")
    if "=" in attributes.group(1):
        found = re.findall(r"""(\w+)\s*=\s*("[^"]*"|'[^']*')""", attributes.group(1))
        return _header_2(path, {name: value[1:-1].strip() for name, value in found}, text)
    end = text.find("</PP_HEADER>")
    if end < 0:
        raise _truncated(path, "no </PP_HEADER>")
    return _header_1(path, [line for line in text[attributes.end() : end].splitlines() if line.strip()])


def _header_1(path, lines):
    """Version 1: one value and its meaning in each line, in a fixed order."""
    try:
        words = [line.split()[0] for line in lines[:10]]
        functional = lines[4].split("Exchange")[0][:20].strip()  # its short name may follow
        return dict(
            symbol=element_of(words[1]),
            is_ultrasoft=words[2] in ("US", "PAW"),
            is_paw=words[2] == "PAW",
            has_core=_flag(words[3]),
            functional=functional,
            z_valence=_number(words[5]),
            n_points=int(words[9]),
        )
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path}: header not understood, no valence charge or mesh ({printable(error)}); need UPF version 1 or 2"
        ) from None


def _header_2(path, attributes, text):
    """Version 2: attributes."""
    mesh = re.search(r"""<PP_MESH\s[^>]*?\bmesh\s*=\s*["']([^"']*)""", text)
    if mesh:  # says the same
        attributes.setdefault("mesh_size", mesh.group(1))
    missing = {"element", "z_valence", "functional", "mesh_size"} - attributes.keys()
    if missing:
        what = "valence charge" if "z_valence" in missing else ", ".join(sorted(missing))
        raise ValueError(f"{path}: no {what} in <PP_HEADER>; need UPF version 1 or 2")
    is_paw = _flag(attributes.get("is_paw", "F"))
    try:
        return dict(
            symbol=element_of(attributes["element"]),
            z_valence=_number(attributes["z_valence"]),
            functional=attributes["functional"],
            is_paw=is_paw,
            is_ultrasoft=is_paw or _flag(attributes.get("is_ultrasoft", "F")),
            has_core=_flag(attributes.get("core_correction", "F")),
            n_points=int(attributes["mesh_size"]),
        )
    except ValueError as error:
        raise ValueError(
            f"{path}: <PP_HEADER> not understood, no valence charge or mesh ({printable(error)}); "
            "correct it, or download the file again"
        ) from None


def _number(word):
    return float(fortran_floats(word.split()[0] if word.split() else "nothing")[0])


def _flag(word):
    """Fortran's and XML's ways to write a logical: T, .true., true."""
    return word.strip(" .").upper().startswith("T")


def _section(path, text, name, n_points):
    """The numbers between <name ...> and </name>."""
    found = re.search(rf"<{name}(?:\s[^>]*)?>([^<]*)</{name}>", text)
    if found is None:
        raise _truncated(path, f"no <{name}> or </{name}>")
    values = read_numbers(path, f"<{name}>", found.group(1))
    if len(values) != n_points:
        raise _truncated(path, f"got {len(values)} numbers in <{name}>, need the {n_points} of the header")
    return values
