"""pw.x's data-file-schema.xml, which holds full precision."""

import re
import warnings
from os import PathLike

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from ase_mlelec import units
from ase_mlelec.io.espresso.common import (
    ESM,
    LOOSE,
    NO_ENERGY,
    NOT_CONVERGED,
    EspressoError,
    damaged,
    element,
    floats,
    parse_xml,
    whole_number,
)

MOVING = ("relax", "vc-relax", "md", "vc-md")
TRUE = ("true", "1")
NET_FORCE = 1e-3  # eV/Å, above rounding
# names in XML, which depend on version and input, -> in the text
SMEARING = dict.fromkeys(("fd", "f-d", "fermi-dirac"), "Fermi-Dirac") | dict.fromkeys(("gaussian", "gauss"), "Gaussian")
SMEARING |= dict.fromkeys(("mp", "m-p", "methfessel-paxton"), "Methfessel-Paxton")
SMEARING |= dict.fromkeys(("mv", "m-v", "marzari-vanderbilt", "cold"), "Marzari-Vanderbilt")
TERMS = {
    "eband": "band",
    "ehart": "hartree",
    "etxc": "xc",
    "vtxc": "xc_potential",
    "ewald": "ion_ion",
    "demet": "entropy",
}


def parse_pw_xml(path: str | PathLike, text: str) -> dict:
    """dict of the fields of PwResult."""
    root = parse_xml(path, text, "pw.x")
    _check_origin(path, root)
    out = only_child(path, root, "output")
    if out is None:
        raise EspressoError(f"{path}: no <output>; this is not pw.x's data-file-schema.xml or the run did not finish")
    calculation = root.findtext("input/control_variables/calculation", "scf").strip()
    if calculation in ("nscf", "bands"):
        raise EspressoError(f"{path}: written by {NO_ENERGY}")
    if calculation not in ("scf", *MOVING):
        raise EspressoError(f"{path}: the calculation is {calculation!r}, need one of scf, {', '.join(MOVING)}")
    total, bands = only_child(path, out, "total_energy"), only_child(path, out, "band_structure")
    n_steps = out.findtext("convergence_info/scf_conv/n_scf_steps", "1").strip()
    if total is None or bands is None or total.find("etot") is None or n_steps == "0":
        raise EspressoError(
            f"{path}: nothing was calculated (no total energy or no band structure: the run ended "
            "after its initialization); run pw.x to the end"
        )
    _check_convergence(path, root, out)
    if _number(path, total, "etot") == 0:
        raise EspressoError(f"{path}: the total energy is 0: nothing was calculated; run pw.x to the end")
    step = _calculated(path, root, out, calculation)
    total = _needed(path, step, "total_energy")
    energies = {
        tag: _number(path, total, tag) * units.HARTREE for tag in ("etot", *TERMS) if total.find(tag) is not None
    }
    symbols, cell, positions = structure_of(path, step, elements_of(path, root))
    forces, stress = _forces_and_stress(path, root, step, len(symbols), calculation)
    return dict(
        symbols=symbols,
        cell=cell,
        positions=positions,
        energy=energies.pop("etot"),
        terms={TERMS[tag]: energies[tag] for tag in TERMS if tag in energies},
        forces=forces,
        stress=stress,
        n_electrons=_number(path, bands, "nelec") if bands.find("nelec") is not None else None,
        **occupations_of(path, root, bands),
        **levels_of(path, out, bands),
    )


def only_child(path, parent, tag):
    """The only child with a tag, or None."""
    found = parent.findall(tag)
    if len(found) > 1:
        raise EspressoError(f"{path}: got {len(found)} times <{tag}> in <{parent.tag}>, need one; run pw.x again")
    return found[0] if found else None


def _needed(path, parent, tag):
    found = only_child(path, parent, tag)
    if found is None:
        raise damaged(path, f"no <{tag}> in <{parent.tag}>")
    return found


def _number(path, parent, tag):
    return float(floats(path, f"<{tag}>", _needed(path, parent, tag).text, 1)[0])


def _check_origin(path, root):
    creator = root.find("general_info/creator")
    if creator is not None and creator.get("NAME", "PWSCF").strip().upper() != "PWSCF":
        raise EspressoError(
            f"{path}: written by {creator.get('NAME')!r}, need a file of pw.x (PWSCF); give "
            "data-file-schema.xml of the pw.x run"
        )
    unit = root.get("Units", "Hartree atomic units")
    if unit != "Hartree atomic units":
        raise EspressoError(f"{path}: the units are {unit!r}, need Hartree atomic units; give pw.x's own file")


def _check_convergence(path, root, out):
    scf, control = out.find("convergence_info/scf_conv"), root.find("input/electron_control")
    achieved = None if scf is None else scf.findtext("convergence_achieved")
    if achieved is not None and achieved.strip() not in TRUE:
        raise EspressoError(f"{path}: {NOT_CONVERGED}")
    if None not in (scf, control) and scf.find("scf_error") is not None and control.find("conv_thr") is not None:
        error, threshold = _number(path, scf, "scf_error"), _number(path, control, "conv_thr")
        if error > (LOOSE if achieved else 1) * threshold:
            raise EspressoError(f"{path}: {NOT_CONVERGED} (its accuracy is {error:g} Ha, conv_thr {threshold:g} Ha)")
    elif achieved is None:  # before 6.4 the accuracy is all there is
        raise EspressoError(f"{path}: it does not say whether the SCF converged; give the text output of the run")
    for tag in "exit_status", "status":
        code = root.findtext(tag, "0").strip()
        if code not in ("0", "3"):  # 3: the steps of a relaxation were not enough, which _calculated sees to
            raise EspressoError(f"{path}: pw.x stopped early (<{tag}> is {code!r}, need 0); run it to the end")


def _calculated(path, root, out, calculation):
    """The element with the structure that the energy belongs to, with its terms and forces.

    <output> holds the structure to come, and some terms of it, where nstep ended a relaxation and after every MD run.
    """
    steps = root.findall("step")
    if calculation not in MOVING and not steps and out.find("convergence_info/opt_conv") is None:
        return out
    if steps:
        last, etot = (_number(path, _needed(path, where, "total_energy"), "etot") for where in (steps[-1], out))
        if last == etot:
            return steps[-1]
        # the last calculation of vc-relax, with new plane waves for the structure of the last step, is no step
        stored, last = (structure_of(path, where, {})[1:] for where in (out, steps[-1]))
        if all(a.shape == b.shape and np.abs(a - b).max() < 1e-6 for a, b in zip(stored, last)):
            return out
    elif out.findtext("convergence_info/opt_conv/convergence_achieved", "").strip() in TRUE:
        return out
    raise EspressoError(
        f"{path}: the structure in it is not the one of its energy and forces, but of the step "
        f"after, which this {calculation} run did not calculate; read the text output of the run "
        "instead"
    )


def structure_of(path, parent, elements):
    """symbols, cell [3, 3] and positions [N, 3] in Å from the <atomic_structure> in ``parent``.

    Parameters
    ----------
    elements : dict from species' name to element
        Empty where the names alone must do.
    """
    structure = _needed(path, parent, "atomic_structure")
    lattice = _needed(path, structure, "cell")
    cell = np.array([floats(path, f"<a{i}>", _needed(path, lattice, f"a{i}").text, 3) for i in (1, 2, 3)])
    if abs(np.linalg.det(cell)) < 1e-9:
        raise damaged(path, "the cell has no volume")
    atoms = structure.findall("atomic_positions/atom")
    if not atoms:
        raise EspressoError(
            f"{path}: no atoms in <atomic_positions>; positions in other forms are not read: give the text output"
        )
    if "nat" in structure.attrib and whole_number(path, "nat", structure.get("nat")) != len(atoms):
        raise damaged(path, f"got {len(atoms)} atoms, its nat says {structure.get('nat')}")
    order = [whole_number(path, "index of an atom", atom.get("index", str(k + 1))) for k, atom in enumerate(atoms)]
    if sorted(order) != list(range(1, len(atoms) + 1)):
        raise damaged(path, f"the indices of the atoms are {sorted(order)[:9]}, need 1 to {len(atoms)}")
    atoms = [atom for _, atom in sorted(zip(order, atoms), key=lambda pair: pair[0])]
    names = [atom.get("name", "").strip() for atom in atoms]
    for name in names:
        if elements and name not in elements:
            raise damaged(path, f"an atom is {name!r}, the species are {', '.join(elements)}")
    positions = np.array([floats(path, f"atom {k + 1}", atom.text, 3) for k, atom in enumerate(atoms)])
    symbols = [elements[name] if elements else element(path, name) for name in names]
    return symbols, cell * units.BOHR, positions * units.BOHR


def elements_of(path, root):
    """Element of each species, dict by name, from its pseudopotential."""
    elements = {}
    for species in root.findall("output/atomic_species/species") or root.findall("input/atomic_species/species"):
        name, pseudo = species.get("name", "").strip(), species.findtext("pseudo_file", "").strip()
        elements[name] = element(path, name)
        other = re.match("[A-Za-z]*", pseudo).group().capitalize()  # "C" of "C.pbe-mt.UPF" and "c_pbe.upf"
        if species.find("mass") is None or other not in atomic_numbers or other == elements[name]:
            continue
        mass = _number(path, species, "mass")
        near = [abs(mass - atomic_masses[atomic_numbers[symbol]]) < 1 for symbol in (elements[name], other)]
        if near == [False, True]:
            raise EspressoError(
                f"{path}: species {name!r} has pseudopotential {pseudo} and the mass of {other}; "
                f"write {other} into the input and run pw.x again"
            )
    return elements


def _forces_and_stress(path, root, step, n_atoms, calculation):
    """Forces [N, 3] in eV/Å and stress [3, 3] in eV/Å^3, or None where this run calculated none.

    Zeros are no result where they were not asked for; a stress of nine exact zeros never is.
    """
    out = root.find("output")
    asked = root.findtext("input/control_variables/forces", "true").strip() in TRUE
    forces = _array(path, root, step if step.find("forces") is not None else out, "forces", n_atoms)
    if forces is not None:
        forces = None if not asked and not forces.any() else forces * units.HARTREE_PER_BOHR
    if forces is not None and _lacks_fixed(path, root, forces):
        warnings.warn(
            f"{path}: the forces are not read: pw.x stores zeros for atoms that were kept fixed; the text output has them",
            stacklevel=4,
        )
        forces = None
    return forces, _stress(path, root, step, calculation)


def _stress(path, root, step, calculation):
    """Stress [3, 3] in eV/Å^3 or None."""
    out, dynamics = root.find("output"), root.findtext("input/cell_control/cell_dynamics", "bfgs").strip()
    stress = _array(path, root, out, "stress", 3)
    if stress is None or not stress.any():
        return None
    if step is not out and calculation.startswith("vc-") and (calculation == "vc-md" or dynamics != "bfgs"):
        warnings.warn(
            f"{path}: the stress is not read: pw.x stores it times the volume after {calculation} with "
            "dynamics of the cell; the text output has it",
            stacklevel=5,
        )
        return None
    if root.findtext("input/boundary_conditions/assume_isolated", "").strip().lower() == "esm":
        warnings.warn(f"{path}: {ESM}", stacklevel=5)
        return None
    return -stress * units.HARTREE_PER_BOHR3


def _lacks_fixed(path, root, forces):
    """Whether coordinates were kept fixed, whose forces [N, 3] in eV/Å are then zero in the file, whatever they were.

    Files of a single calculation do not name these, but pw.x makes the sum of its forces zero beforehand.
    """
    zero = forces == 0
    if (zero.any(axis=0) & (abs(forces.sum(axis=0)) > NET_FORCE)).any():
        return True
    found = root.find("input/free_positions")
    if found is None or not (found.text or "").strip() or not forces.any():
        return False
    fixed = floats(path, "<free_positions>", found.text, forces.size).reshape(forces.shape) == 0
    return bool(fixed.any() and zero[fixed].all())


def _array(path, root, parent, tag, rows):
    """Array [rows, 3] as it stands in the file, or None where it is not there, or empty and not asked for."""
    found = only_child(path, parent, tag)
    asked = root.findtext(f"input/control_variables/{tag}", "true").strip() in TRUE
    if found is None or (not asked and not (found.text or "").strip()):
        return None
    values = floats(path, f"<{tag}>", found.text, 3 * rows)
    if "dims" in found.attrib and sorted(found.get("dims").split()) != sorted(["3", str(rows)]):
        raise damaged(path, f"<{tag}> has dims {found.get('dims')!r}, need 3 and {rows}")
    return values.reshape(rows, 3)


def occupations_of(path, root, bands):
    """dict of fermi_level, smearing and smearing_width; <fermi_energy> of fixed occupations is the highest level."""
    smearing = only_child(path, bands, "smearing")
    kind = (
        bands.findtext("occupations_kind")
        or root.findtext("input/bands/occupations")
        or ("fixed" if smearing is None else "smearing")
    )
    kind = kind.strip().lower()
    found = {"fermi_level": None, "smearing": None, "smearing_width": 0.0}
    if kind.startswith(("smearing", "tetrahedra")) and bands.find("fermi_energy") is not None:
        found["fermi_level"] = _number(path, bands, "fermi_energy") * units.HARTREE
    if kind == "smearing" and smearing is not None:
        name = (smearing.text or "").strip()
        found["smearing"] = SMEARING.get(name.lower(), name)
        found["smearing_width"] = float(floats(path, "degauss", smearing.get("degauss"), 1)[0]) * units.HARTREE
    return found


def levels_of(path, out, bands, *, both_spins=False):
    """dict of kpoints and eigenvalues of the <output> of the XML file; none with two spins, unless ``both_spins``.

    Eigenvalues of spin down then follow those of spin up at the same k-point.
    """
    points = bands.findall("ks_energies")
    if not points or (bands.findtext("lsda", "false").strip() in TRUE and not both_spins):
        return {}
    n_points = bands.findtext("nks")
    if n_points is not None and whole_number(path, "<nks>", n_points) != len(points):
        raise damaged(path, f"got {len(points)} <ks_energies>, <nks> says {n_points.strip()}")
    length = float(floats(path, "alat", out.find("atomic_structure").get("alat"), 1)[0])
    levels = [_needed(path, point, "eigenvalues") for point in points]
    sizes = {
        whole_number(path, "size of <eigenvalues>", each.get("size", str(len((each.text or "").split()))))
        for each in levels
    }
    if len(sizes) != 1 or length <= 0:
        raise damaged(
            path,
            f"the k points have {sorted(sizes)[:4]} eigenvalues, need as many at each, and alat is "
            f"{length:g}, need a length",
        )
    # the points move with the cell, so that their fractions fit the stored structure
    cell = structure_of(path, out, {})[1] / units.BOHR / length
    found = np.array([floats(path, "<k_point>", _needed(path, point, "k_point").text, 3) for point in points])
    values = np.array([floats(path, "<eigenvalues>", each.text, min(sizes)) for each in levels])
    return {"kpoints": found @ cell.T, "eigenvalues": values * units.HARTREE}  # of 2π/alat in the file
