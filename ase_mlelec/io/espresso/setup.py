"""What pw.x's data-file-schema.xml tells of a calculation besides energies, of scf, nscf and bands runs alike."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from ase_mlelec import units
from ase_mlelec.io.espresso.common import EspressoError, damaged, find_file, floats, parse_xml, whole_number
from ase_mlelec.io.espresso.pw_xml import TRUE, elements_of, levels_of, occupations_of, only_child, structure_of
from ase_mlelec.io.functionals import functional_of
from ase_mlelec.io.text import read_text

WHAT_TO_GIVE = "give pw.x's prefix.save or data-file-schema.xml"
NOT_FIXED = -1000  # pw.x has -10000 or nothing where the magnetization is free


@dataclass(frozen=True)
class Setup:
    """Structure, electrons and settings of a pw.x run.

    Attributes
    ----------
    symbols : list of str
        Length N.
    cell : array [3, 3], Å
        Rows.
    positions : array [N, 3], Å
        The structure of the bands; after a relaxation the last one.
    calculation : str
        scf, nscf, bands, relax, ...
    n_electrons : float
    charge : float, e
    fermi_level : float, eV, or None
    smearing : str or None
        As in PwResult. Also smearing_width, eV.
    spin : str
        "" without spin, "polarized" or "spinors".
    pseudopotentials : dict of str
        File name by element, in ``pseudo_folder`` (and in the .save folder).
    eigenvalues : array [K, M], eV, or None
        Of a spin-polarized run [2 K, M], all points of spin up first.
    magnetization : float or None
        Electrons of spin up less those of spin down, where the input fixes them (``tot_magnetization``).
    kpoint_weights : array [K], or None
        Sum 2 (spin degeneracy included), or 1 for spinors.
    equivalent : array [N]
        The same number for atoms that the symmetries of the calculation make equivalent.
    grid : tuple of 3 ints, or None
        Points of the grid of the density.
    settings : dict of JSON types
        For the description of a data set.
    """

    symbols: list
    cell: np.ndarray
    positions: np.ndarray
    calculation: str
    n_electrons: float
    charge: float
    fermi_level: float | None
    smearing: str | None
    smearing_width: float
    spin: str
    pseudopotentials: dict
    pseudo_folder: Path
    eigenvalues: np.ndarray | None
    kpoint_weights: np.ndarray | None
    equivalent: np.ndarray
    grid: tuple | None
    magnetization: float | None = None
    settings: dict = field(default_factory=dict)


def read_setup(path: str | PathLike) -> Setup:
    """Read ``data-file-schema.xml`` (path: the file, prefix.save, or the folder that holds one).

    Raises
    ------
    EspressoError
        For a missing or damaged file, and for a run that did not finish.
    """
    path = find_file(path, "data-file-schema.xml", WHAT_TO_GIVE)
    root = parse_xml(path, read_text(path, WHAT_TO_GIVE, EspressoError), "pw.x")
    out = only_child(path, root, "output")
    bands = None if out is None else only_child(path, out, "band_structure")
    if bands is None or bands.find("nelec") is None:
        raise EspressoError(f"{path}: no band structure in it; this is not pw.x's file, or the run did not finish")
    elements = elements_of(path, root)
    symbols, cell, positions = structure_of(path, out, elements)
    spinors, polarized = (bands.findtext(tag, "false").strip() in TRUE for tag in ("noncolin", "lsda"))
    species = out.find("atomic_species")
    return Setup(
        symbols=symbols,
        cell=cell,
        positions=positions,
        calculation=root.findtext("input/control_variables/calculation", "scf").strip(),
        n_electrons=float(floats(path, "<nelec>", bands.findtext("nelec"), 1)[0]),
        charge=float(floats(path, "<tot_charge>", root.findtext("input/bands/tot_charge", "0"), 1)[0]),
        **occupations_of(path, root, bands),
        spin="spinors" if spinors else "polarized" if polarized else "",
        pseudopotentials=_pseudopotentials(path, root, elements),
        pseudo_folder=Path("" if species is None else species.get("pseudo_dir", "")),
        eigenvalues=_eigenvalues(path, out, bands, polarized),
        kpoint_weights=None if polarized else _weights(path, bands, 1 if spinors else 2),
        equivalent=_equivalent(path, out, len(symbols)),
        grid=_grid(path, out),
        magnetization=_magnetization(path, root) if polarized else None,
        settings=_settings(path, root, out) | ({"spins": "both, added"} if polarized else {}),
    )


def _eigenvalues(path, out, bands, polarized):
    found = levels_of(path, out, bands, both_spins=True).get("eigenvalues")
    if found is None or not polarized:
        return found
    if found.shape[1] % 2:
        raise damaged(path, f"got {found.shape[1]} eigenvalues of two spins at a k point, need as many of each")
    return np.concatenate(np.split(found, 2, axis=1))


def _magnetization(path, root):
    """The magnetization that the input fixes, or None."""
    text = root.findtext("input/bands/tot_magnetization")
    value = None if text is None else float(floats(path, "<tot_magnetization>", text, 1)[0])
    return None if value is None or value < NOT_FIXED else value


def _weights(path, bands, total):
    """Weights [K] of the k-points with this sum, or None."""
    points = [point.find("k_point") for point in bands.findall("ks_energies")]
    if not points or None in points:
        return None
    found = np.array([floats(path, "weight of a k point", point.get("weight"), 1)[0] for point in points])
    if found.min() < 0 or found.sum() <= 0:
        raise damaged(path, "the weights of the k points are not positive")
    return total * found / found.sum()


def _pseudopotentials(path, root, elements):
    """File name by element; species of one element must have the same file."""
    found = {}
    for species in root.findall("output/atomic_species/species") or root.findall("input/atomic_species/species"):
        name, pseudo = species.get("name", "").strip(), species.findtext("pseudo_file", "").strip()
        former = found.setdefault(elements[name], pseudo)
        if former != pseudo:
            raise EspressoError(
                f"{path}: {elements[name]} has two pseudopotentials, {former} and {pseudo}; give all atoms of an "
                "element the same"
            )
    return found


def _equivalent(path, out, n_atoms):
    """Numbers [N] of the sets of atoms that symmetries of the crystal exchange: the lowest index in each set."""
    sets = np.arange(n_atoms)
    for symmetry in out.findall("symmetries/symmetry"):
        if (symmetry.findtext("info") or "").strip() != "crystal_symmetry":
            continue
        words = (symmetry.findtext("equivalent_atoms") or "").split()
        images = [whole_number(path, "<equivalent_atoms>", word) - 1 for word in words]
        if words and sorted(images) != list(range(n_atoms)):
            raise damaged(path, f"<equivalent_atoms> are {words[:9]}, need 1 to {n_atoms} in any order")
        for atom, image in enumerate(images):
            low, high = sorted((sets[atom], sets[image]))
            sets[sets == high] = low
    return sets


def _grid(path, out):
    grid = out.find("basis_set/fft_grid")
    sizes = grid is not None and [whole_number(path, "<fft_grid>", grid.get(f"nr{k}")) for k in (1, 2, 3)]
    return tuple(sizes) if sizes and min(sizes) > 0 else None


def _settings(path, root, out):
    creator = root.find("general_info/creator")
    version = "" if creator is None else (creator.get("VERSION") or "").strip()
    functional = out.findtext("dft/functional") or root.findtext("input/dft/functional")
    found = {"program": f"Quantum ESPRESSO {version}".strip()}
    if functional:
        found["functional"] = functional_of(functional.strip()) or functional.strip()
    for tag, name in (("ecutwfc", "ecutwfc_Ry"), ("ecutrho", "ecutrho_Ry")):
        if text := out.findtext(f"basis_set/{tag}") or root.findtext(f"input/basis/{tag}"):
            value = floats(path, f"<{tag}>", text, 1)[0] * units.HARTREE / units.RYDBERG
            found[name] = round(float(value), 6)
    mesh = out.find("band_structure/starting_k_points/monkhorst_pack")
    if mesh is not None:
        sizes = [mesh.get(f"nk{k}", "?").strip() for k in (1, 2, 3)]
        shifted = any(mesh.get(f"k{k}", "0").strip() != "0" for k in (1, 2, 3))
        found["kpoints_dos"] = "x".join(sizes) + (", shifted by half a step" if shifted else "")
    return found
