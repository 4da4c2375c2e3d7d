"""Pseudopotentials in the Unified Pseudopotential Format (UPF), versions 1 and 2.

The total energy needs three things of a pseudopotential: the valence charge, the partial core charge, and whether the
charge density is all in the wave functions (norm-conserving) or not (ultrasoft, PAW).  Many files are no valid XML,
so that the sections are found as text.

Source: Quantum ESPRESSO, upflib, for the meaning of the fields; in the files r is in bohr and potentials in Ry.
"""
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_mlelec import units
from ase_mlelec.io.fortran import fortran_floats


@dataclass(frozen=True)
class UPF:
    """One pseudopotential; functions on its radial mesh r, where ∫ g dr is the sum of g times rab.

    symbol : str
    z_valence : float, e
    functional : str, as in the file, e.g. "PBE" or "SLA  PZ   NOGX NOGC"
    is_ultrasoft : bool; augmentation charges, which PAW has as well
    is_paw : bool
    r : array [M], Å
    rab : array [M], Å, dr by index
    local_potential : array [M], eV
    atomic_charge : array [M], e/Å; 4πr² times the valence density of the free atom
    core_charge : array [M], e/Å^3, the partial core density of the nonlinear core correction, or None without one
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


def read_upf(path):
    """Read a UPF file of version 1 or 2.

    Returns UPF.

    Raises ValueError for a missing or truncated file, one without valence charge, and one that is no UPF.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a pseudopotential in UPF")
    text = path.read_text(errors="replace")
    if "<PP_HEADER" not in text:
        raise ValueError(f"{path}: not UPF version 1 or 2 (no <PP_HEADER>); convert it with upfconv.x of Quantum "
                         "ESPRESSO")
    if re.search(r"<UPF\b", text) and "</UPF>" not in text:
        raise _truncated(path, "no </UPF>")
    header = _header(path, text)
    if not header["z_valence"] > 0:
        raise ValueError(f"{path}: no valence charge, got z_valence {header['z_valence']:g}; correct the header")
    n_points = header.pop("n_points")

    def section(name, scale):
        return _section(path, text, name, n_points) * scale

    r = section("PP_R", units.BOHR)
    has_core = header.pop("has_core")
    if re.search(r'<PP_LOCAL\s+type="1/r"', text):      # written as a formula
        local_potential = -header["z_valence"] * units.HARTREE * units.BOHR / r
    else:
        local_potential = section("PP_LOCAL", units.RYDBERG)
    return UPF(**header, r=r, rab=section("PP_RAB", units.BOHR), local_potential=local_potential,
               atomic_charge=section("PP_RHOATOM", 1 / units.BOHR),
               core_charge=section("PP_NLCC", units.BOHR**-3) if has_core else None)


def _truncated(path, what):
    return ValueError(f"{path}: truncated UPF file ({what}); copy or download it again")


def _header(path, text):
    """What the header says, as arguments of UPF, with has_core and n_points."""
    attributes = re.search(r'<PP_HEADER\b((?:[^>"\']|"[^"]*"|\'[^\']*\')*)>', text)
    if attributes is None:
        raise _truncated(path, "<PP_HEADER> is not closed")
    if "=" in attributes.group(1):
        return _header_2(path, dict(re.findall(r'(\w+)\s*=\s*["\']([^"\']*)["\']', attributes.group(1))))
    end = text.find("</PP_HEADER>")
    if end < 0:
        raise _truncated(path, "no </PP_HEADER>")
    return _header_1(path, [line for line in text[attributes.end():end].splitlines() if line.strip()])


def _header_1(path, lines):
    """Version 1: one value and its meaning in each line, in a fixed order."""
    try:
        words = [line.split()[0] for line in lines[:10]]
        return dict(symbol=words[1], is_ultrasoft=words[2] in ("US", "PAW"), is_paw=words[2] == "PAW",
                    has_core=_flag(words[3]), functional=lines[4][:20].strip(),
                    z_valence=float(fortran_floats(words[5])[0]), n_points=int(words[9]))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: header not understood, no valence charge or mesh ({error}); "
                         "need UPF version 1 or 2") from None


def _header_2(path, attributes):
    """Version 2: attributes."""
    missing = {"element", "z_valence", "functional", "mesh_size"} - attributes.keys()
    if missing:
        what = "valence charge" if "z_valence" in missing else ", ".join(sorted(missing))
        raise ValueError(f"{path}: no {what} in <PP_HEADER>; need UPF version 1 or 2")
    is_paw = _flag(attributes.get("is_paw", "F"))
    return dict(symbol=attributes["element"].strip(), z_valence=float(fortran_floats(attributes["z_valence"])[0]),
                functional=attributes["functional"].strip(), is_paw=is_paw,
                is_ultrasoft=is_paw or _flag(attributes.get("is_ultrasoft", "F")),
                has_core=_flag(attributes.get("core_correction", "F")), n_points=int(attributes["mesh_size"]))


def _flag(word):
    """Fortran's and XML's ways to write a logical: T, .true., true."""
    return word.strip(" .").upper().startswith("T")


def _section(path, text, name, n_points):
    """The numbers between <name ...> and </name>."""
    found = re.search(rf"<{name}(?:\s[^>]*)?>([^<]*)</{name}>", text)
    if found is None:
        raise _truncated(path, f"no <{name}> or </{name}>")
    try:
        values = fortran_floats(found.group(1))
    except ValueError as error:
        raise ValueError(f"{path}: <{name}> holds something else than numbers ({error}); correct it") from None
    if len(values) != n_points:
        raise _truncated(path, f"got {len(values)} numbers in <{name}>, need the {n_points} of the header")
    return values
