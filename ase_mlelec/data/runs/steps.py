"""Runs of pw.x as data sets of energies, forces and stress, with all steps where a text has them."""

import re
import warnings
from io import StringIO
from os import PathLike
from pathlib import Path

import numpy as np
from ase.io import read

from ase_mlelec.data.conditions import CHARGED, IN_FIELD
from ase_mlelec.data.data_set import Frames, same_structure
from ase_mlelec.data.images import from_images
from ase_mlelec.data.runs.find import PROJECTIONS, XML, Texts, espresso_runs, program_of
from ase_mlelec.io.espresso.common import EspressoError, find_file
from ase_mlelec.io.espresso.pw import WHAT_TO_GIVE, PwResult, read_pw
from ase_mlelec.io.espresso.pw_text import MARK, SITE_ROW, is_converged, parse_pw_text, whole_steps
from ase_mlelec.io.text import float_or, read_text

# where pw.x tells fields in XML and text; with tefield = .true. and without eamp there is one of 0.001 Hartree units
FIELDS = re.compile(
    r"<electric_field_(?:amplitude|vector)>([^<]{1,200})<|E field amplitude \[Ha a\.u\.\]: *(\S{1,40})"
    r"|Using Berry phase electric field(?s:.{1,200}?)(?:Intensity [^:\n]{1,20}: *(\S{1,40})"
    r"|cartesian system of reference((?:\s+\S{1,40}){3}))"
)
ROUNDED = 0.006  # e, of numbers with two digits
SAME_ENERGY, SAME_PLACE = 1e-3, 1e-3  # eV, Å
SAME_UNIT = 2e-7  # ASE reads outputs with constants of 2006, by which energies differ by 9e-8 of their values
HEAVY = re.compile(
    r"^([ \t]*(?:\d+[ \t]+)?)[DT](?=\d*[ \t]+(?:tau\(|[-.\d]))", re.MULTILINE
)  # ASE knows no such symbol
NEAR = ("*.save", "*/*.save")  # folders near a text output


def is_run(path: str | PathLike) -> bool:
    """Whether a path is a text or XML file of pw.x, or the folder of a pw.x run."""
    path = Path(path)
    if path.is_dir():
        return not (path / "type.raw").exists() and any(
            any(path.glob(pattern)) for pattern in (f"{XML}*", f"*.save/{XML}*", "data-file.xml")
        )
    return program_of(path) == "PWSCF"


def read_run(path: str | PathLike) -> Frames:
    """Read Frames from a pw.x run, with energy, forces and virial as far as they were calculated.

    The text output of a relaxation or of molecular dynamics gives all converged steps, of an interrupted run those that
    were finished, provided that ASE and read_pw agree on the last step. It is read for ``prefix.save`` too, where it lies
    near. Otherwise, from XML, and with hybrid functionals, the result is the last step alone, with a warning.

    Raises
    ------
    EspressoError
        For errors of read_pw.
    """
    return _read(path, hint=True)


def _read(path, *, hint):
    """As read_run; a text output beside projections says so if ``hint``."""
    file = find_file(path, XML, WHAT_TO_GIVE)
    text = read_text(file, WHAT_TO_GIVE, EspressoError)
    is_xml, notes = text.lstrip("\ufeff \n\t").startswith("<"), []
    part = text if is_xml else whole_steps(text)
    with warnings.catch_warnings(record=True) as about_last:
        warnings.simplefilter("always")
        last = (PwResult(**parse_pw_text(file, part)) if part != text else read_pw(file)).to_atoms()
    images = [last]
    if is_xml:
        n_steps = text.count("<step ")
        if n_steps > 1 and file.name.startswith(XML) and (found := _text_output(file.parent, last)):
            return found
    else:
        marks = list(MARK.finditer(part))
        kinds = [mark.group(1) for mark in marks]
        n_steps = kinds.count("!!") or len(marks)
        if n_steps > 1 and "!!" not in kinds:
            converged = [is_converged(part, k) for k in range(n_steps)]
            images = _steps(part, last, converged) or images
            if not all(converged) and len(images) > 1:
                notes.append(f"{converged.count(False)} of {n_steps} steps did not converge, and are left out")
    if part != text:
        notes.append(f"the run did not finish; of its {n_steps} whole steps {len(images)} are read")
    elif n_steps > 1 and len(images) == 1:
        notes.append(f"the last of {n_steps} steps alone is read" + is_xml * "; the text output has all")
    named = hint and not file.name.startswith(XML)
    near = [] if not named else [p for form in NEAR for p in file.parent.glob(f"{form}/{PROJECTIONS}*")]
    if near:
        notes.append(f"bands projected on atoms lie in {near[0].parent}: give this folder to have spectra too")
    charge = charge_of(text)
    if charge:
        notes.append(f"the cell has a charge of {charge:g} e, {CHARGED}")
    if has_field(text):
        notes.append(IN_FIELD)
    for each in about_last:
        warnings.warn(each.message, stacklevel=4)
    if notes:
        warnings.warn(f"{file}: {'; '.join(notes)}", stacklevel=4)
    return from_images(images, name=file.parent.stem if file.name.startswith(XML) else file.stem)


def _text_output(save, last):
    """All steps from the text output near the folder of a run, which ends with ``last``; None without such an output."""
    for place in espresso_runs(save):
        for file in Texts().of(place, "PWSCF"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    frames = _read(file, hint=False)
                except ValueError:
                    continue
            if len(frames) < 2 or not same_structure(frames[-1].atoms, last):
                continue
            if abs(frames[-1].labels["energy"] - last.calc.results["energy"]) > SAME_ENERGY:
                continue
            for warning in caught:
                warnings.warn(warning.message, stacklevel=5)
            for k, frame in enumerate(frames):
                frame.name = f"{save.stem}-{k}"
            return frames
    return None


def has_field(text: str) -> bool:
    """Whether the text or the XML of pw.x tells of an electric field."""
    words = " ".join(" ".join(filter(None, match.groups())) for match in FIELDS.finditer(text)).split()
    return any(float_or(word, 0.0) for word in words)


def charge_of(text: str) -> float:
    """Charge of the cell, e, from the text or the XML of pw.x; 0 where it does not tell."""
    if found := re.search(r"<tot_charge>\s*([-+.\deE]{1,40})\s*</tot_charge>", text):
        return float_or(found[1], 0.0)
    table = re.search(r"atomic species +valence +mass +pseudopotential\n((?:[ \t]+\S.*\n)*)", text)
    electrons = re.search(r"number of electrons +=[ \t]*([\d.]{1,40})", text)
    if not table or not electrons:
        return 0.0
    valence = {
        name: float_or(value, 0.0) for name, value in re.findall(r"^\s*(\S+)\s+([\d.]{1,40})\s", table[1], re.MULTILINE)
    }
    start = SITE_ROW.search(text)
    labels: list[str] = []
    for row in SITE_ROW.finditer(text, start.start() if start else 0):
        if row[1].isdecimal() and int(row[1][:18]) != len(labels) + 1:
            break
        labels.append(row[2])
    if not set(labels) <= valence.keys():
        return 0.0
    charge = sum(valence[label] for label in labels) - float_or(electrons[1], 0.0)
    whole = all(valence[label].is_integer() for label in labels)
    return round(charge, 2) if labels and abs(charge) > ROUNDED * (1 if whole else len(labels)) else 0.0


def _steps(text, last, converged):
    """Atoms of the converged steps as ASE reads them, with ``last`` as the last; None where ASE's last step differs."""
    try:
        found = read(StringIO(HEAVY.sub(r"\1H", text)), ":", format="espresso-out")
    except Exception:  # ASE's readers raise errors of any type
        return None
    images = [atoms for atoms in found if "energy" in getattr(atoms.calc, "results", {})]
    if len(images) != len(converged) or len(images[-1]) != len(last):
        return None
    energy, other = (atoms.calc.results["energy"] for atoms in (images[-1], last))
    moved = np.abs(images[-1].positions - last.positions).max() + np.abs(images[-1].cell - last.cell).max()
    if abs(energy - other) > max(SAME_ENERGY, SAME_UNIT * abs(other)) or moved > SAME_PLACE:
        return None
    for atoms in images:
        for name in {"energy", "free_energy"} & atoms.calc.results.keys():
            atoms.calc.results[name] *= other / (energy or 1)
    return [*(atoms for atoms, good in zip(images[:-1], converged) if good), last]
