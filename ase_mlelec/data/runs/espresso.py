"""Runs of pw.x and projwfc.x as ProjectedRun."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_mlelec import units
from ase_mlelec.data.images import from_images
from ase_mlelec.data.runs.find import Place, Texts
from ase_mlelec.data.runs.projected import ProjectedRun, other_magnetization
from ase_mlelec.io.espresso import PwResult, read_projections, read_pw
from ase_mlelec.io.espresso.common import EspressoError
from ase_mlelec.io.espresso.setup import Setup, read_setup
from ase_mlelec.io.projections import Projections
from ase_mlelec.io.text import element_of, read_text
from ase_mlelec.io.upf import read_upf

REFERENCE = "average electrostatic potential of the cell (Quantum ESPRESSO)"
FERMI_DIRAC = "Fermi-Dirac"
SAME_LEVEL, SAME_PLACE, SAME_ENERGY = 1e-3, 1e-3, 1e-3  # eV, Å, eV
STATE = re.compile(r"state #\s*\S+?: atom\s*(\d+)\s*\(\s*(\S+)")


def read_espresso(place: Place, *, texts: Texts, valence: Mapping[str, float]) -> ProjectedRun:
    """Read a pw.x run and its projections.

    Energy, forces and stress are those of the run in prefix.save. Where this is an nscf run, they are those of an scf
    output of the same structure near it, if there is one.

    Parameters
    ----------
    valence : dict of float by symbol
        Valence electrons of elements that are known already.

    Raises
    ------
    EspressoError
        For errors of the readers, and for files that are not of one run.
    """
    setup = read_setup(place.save)
    if setup.calculation == "bands":
        raise EspressoError(
            f"{place.save}: a bands run, whose k-points are a path, and bands of a path are no density of states; run "
            "pw.x with calculation = 'nscf' on a mesh, and projwfc.x again"
        )
    levels = _levels(place, setup, texts)
    result = result_of(place, setup, texts)
    atoms = Atoms(setup.symbols, setup.positions, cell=setup.cell, pbc=True)
    labels = {} if result is None else from_images([result.to_atoms()]).frames[0].labels
    widths = [each.smearing_width for each in (result, setup) if each is not None and each.smearing == FERMI_DIRAC]
    if setup.charge:
        raise EspressoError(
            f"{place.save}: the cell has a charge of {setup.charge:g} e, and spectra are filled with the electrons of "
            "neutral atoms; leave the run out"
        )
    temperature = float(widths[0] / units.KB) if widths else None
    if setup.magnetization is not None:
        wrong = other_magnetization(levels, setup.n_electrons, setup.magnetization, temperature)
        if wrong:
            raise EspressoError(
                f"{place.save}: tot_magnetization = {setup.magnetization:g} {wrong}; leave tot_magnetization out and give "
                "starting_magnetization"
            )
    return ProjectedRun(
        source=str(place.save),
        name=place.name,
        atoms=atoms,
        labels=labels,
        levels=levels,
        n_electrons=setup.n_electrons,
        valence=_valence(place, setup, valence),
        temperature=temperature,
        energy_reference=REFERENCE,
        more_bands="nbnd of pw.x",
        settings=setup.settings | _smearing(result or setup),
    )


def _levels(place, setup, texts):
    """Projections on all atoms of a run, symmetrized."""
    path = place.save
    found = read_projections(path, output=_listing(place, setup, texts))
    n_atoms = len(setup.symbols)
    if setup.eigenvalues is not None and (
        setup.eigenvalues.shape != found.eigenvalues.shape
        or np.abs(setup.eigenvalues - found.eigenvalues).max() > SAME_LEVEL
    ):
        raise EspressoError(
            f"{path}: atomic_proj.xml has other bands than data-file-schema.xml; run projwfc.x again after the last "
            "pw.x run"
        )
    missing = n_atoms - found.site_weights.shape[2]  # the last atoms may have no functions
    shares = np.pad(found.site_weights, ((0, 0), (0, 0), (0, max(missing, 0))))
    levels = Projections(found.eigenvalues, found.kpoint_weights, shares)
    return levels if len(set(setup.equivalent)) == n_atoms else levels.averaged(setup.equivalent)


def _listing(place, setup, texts):
    """Text output of projwfc.x, or of several programs, that lists the atomic functions of this run."""
    candidates = texts.of(place, "PROJWFC") + texts.of(place, "PWSCF")
    others = []
    for path in candidates:
        states = STATE.findall(read_text(path, "give projwfc.x's standard output", EspressoError))
        if states and _fits(states, setup.symbols):
            return path
        if states:
            others.append(path)
    folders = " or ".join(dict.fromkeys(str(folder) for folder in place.folders[1:]))
    why = f"{others[0]} is of another structure" if others else "there is none"
    raise EspressoError(
        f"{place.save}: need the text output of projwfc.x, which tells the atoms of the functions, in {folders}, but "
        f"{why}; put it there, or run projwfc.x again and keep its standard output"
    )


def _fits(states, symbols):
    """Whether all listed atoms are of the elements of this structure, and all elements are listed."""
    owners = {int(atom): label for atom, label in states}
    if max(owners) > len(symbols) or min(owners) < 1:
        return False
    try:
        return all(element_of(label) == symbols[atom - 1] for atom, label in owners.items())
    except ValueError:
        return False


def result_of(place: Place, setup: Setup, texts: Texts) -> PwResult | None:
    """Energy, forces and stress of the structure of a run; of an nscf run from an scf output near it, or None.

    Raises
    ------
    EspressoError
        For errors of read_pw, and for outputs with different energies.
    """
    if setup.calculation not in ("nscf", "bands"):
        result = read_pw(place.save)
        if not is_of_structure(result, setup):
            raise EspressoError(
                f"{place.save}: its energy is of another structure than its bands; finish the {setup.calculation}"
            )
        return result
    return result_near(place, setup, texts)


def result_near(place: Place, structure: Any, texts: Texts) -> PwResult | None:
    """Energy, forces and stress of a structure from an scf output in the folders of a run, or None.

    Parameters
    ----------
    structure : object
        With symbols, cell [3, 3] and positions [N, 3], Å.

    Raises
    ------
    EspressoError
        For outputs with different energies.
    """
    found: dict[Path, PwResult] = {}
    for path in texts.of(place, "PWSCF"):
        try:
            result = read_pw(path)
        except EspressoError:  # such as the output of the nscf run itself
            continue
        if is_of_structure(result, structure):
            found[path] = result
    energies = [result.energy for result in found.values()]
    if energies and max(energies) - min(energies) > SAME_ENERGY:
        raise EspressoError(
            f"{place.save}: {len(found)} outputs near it have different energies of this structure "
            f"({', '.join(path.name for path in found)}); move all but one of them to another folder"
        )
    # XML and text may be there; XML has more digits
    return next(
        (result for result in found.values() if result.eigenvalues is not None), next(iter(found.values()), None)
    )


def is_of_structure(result: Any, setup: Any) -> bool:
    """Whether objects with symbols, cell and positions, Å, are of one structure, whose atoms may be in other cells."""
    cell = np.asarray(setup.cell)
    if list(result.symbols) != list(setup.symbols) or np.abs(np.asarray(result.cell) - cell).max() > SAME_PLACE:
        return False
    away = (result.positions - setup.positions) @ np.linalg.inv(cell)
    return bool(np.abs((away - np.rint(away)) @ cell).max() < SAME_PLACE)


def _valence(place, setup, known):
    """Valence electrons by symbol, as far as they are known or in pseudopotentials that are found."""
    found = {symbol: known[symbol] for symbol in setup.pseudopotentials if symbol in known}
    for symbol in sorted(setup.pseudopotentials.keys() - found.keys()):
        path = pseudopotential_of(place, setup, symbol)
        if path is None:
            continue
        try:
            found[symbol] = read_upf(path).z_valence
        except ValueError:  # former formats; the number of electrons may tell
            continue
    return found


def pseudopotential_of(place: Place, setup: Setup, symbol: str) -> Path | None:
    """Path of the pseudopotential of an element, in prefix.save or in the folder that pw.x read it from, or None."""
    paths = [folder / setup.pseudopotentials[symbol] for folder in (place.save, setup.pseudo_folder)]
    return next((each for each in paths if each.is_file()), None)


def _smearing(run):
    if run.smearing is None:
        return {"smearing": "none"}
    return {"smearing": run.smearing, "smearing_width_eV": round(run.smearing_width, 8)}
