"""Runs of VASP as ProjectedRun, and as frames of all their steps."""

import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ase_mlelec import units
from ase_mlelec.data.conditions import CHARGED, IN_FIELD
from ase_mlelec.data.data_set import Frame
from ase_mlelec.data.runs.find import distinct
from ase_mlelec.data.runs.projected import ProjectedRun, other_magnetization
from ase_mlelec.io.ml_ab import is_ml_ab, read_ml_ab
from ase_mlelec.io.outcar import Outcar, is_outcar, read_outcar
from ase_mlelec.io.projections import Projections
from ase_mlelec.io.text import float_or
from ase_mlelec.io.vasp import VaspError, Vasprun, has_projections, is_vasprun, read_vasprun
from ase_mlelec.io.vasp_settings import fixed_density, in_field, is_superposed, no_labels, notes
from ase_mlelec.io.vaspout import is_vaspout, read_vaspout
from ase_mlelec.physics.symmetry import equivalent_atoms

REFERENCE = "average electrostatic potential of the cell (VASP)"
FERMI_DIRAC = "Fermi-Dirac"
SMEARING = {-5: "tetrahedra", -4: "tetrahedra", -3: "tetrahedra", -2: "from input", -1: FERMI_DIRAC, 0: "Gaussian"}
# the first of a folder is read
NAMES = ("vasprun.xml", "vasprun.xml.gz", "OUTCAR", "OUTCAR.gz", "vaspout.h5", "ML_ABN", "ML_AB")


class VaspPlace(NamedTuple):
    """vasprun.xml, OUTCAR, vaspout.h5 or ML_AB of a run; see find.Place."""

    save: Path
    name: str

    @property
    def named(self) -> Path:
        """Path after which the run is named."""
        return self.save.absolute().parent if self.save.name in NAMES else Path(str(self.save).split(".xml")[0])

    @property
    def has_projections(self) -> bool:
        """Whether bands are projected on atoms (LORBIT = 10 or more)."""
        return has_projections(self.save)


def is_vasp(path: str | PathLike) -> bool:
    """Whether a file is an OUTCAR, a vasprun.xml, a vaspout.h5 or an ML_AB, of any name."""
    return Path(path).is_file() and any(is_it(path) for is_it in (is_vaspout, is_outcar, is_vasprun, is_ml_ab))


def vasp_runs(path: str | PathLike, depth: int) -> list[VaspPlace]:
    """Runs of VASP in a folder or up to ``depth`` folders below it, or the run of a file."""
    path = Path(path)
    if path.is_file():
        own = path.absolute().parent.name if path.name in NAMES else path.name.split(".")[0]
        return [VaspPlace(path, own)] if is_vasp(path) else []
    runs: dict[Path, Path] = {}
    for level in range(depth + 1):
        found: dict[Path, Path] = {}
        for name in NAMES:
            for each in path.glob("*/" * level + name):
                if not runs.keys() & {*each.parents}:  # what lies below the folder of a run belongs to it
                    found.setdefault(each.parent, each)
        runs |= found
    return [VaspPlace(each, each.absolute().parent.name) for each in distinct(runs.values())]


def read_vasp(place: VaspPlace) -> tuple[ProjectedRun | None, list[Frame]]:
    """The last step of a VASP run with its bands, or None without projections, and frames of the steps before.

    All steps are frames where there are no projections. Steps whose electrons did not converge are left out, with a
    warning, as are those of a machine-learned potential.

    Raises
    ------
    VaspError
        For errors of read_vasprun, read_outcar, read_vaspout and read_ml_ab, and where the bands are no density of states.
    """
    if is_outcar(place.save):
        return None, _without_bands(place, read_outcar(place.save))
    if is_vaspout(place.save):
        return None, _without_bands(place, read_vaspout(place.save))
    if is_ml_ab(place.save):
        runs = read_ml_ab(place.save)
        return None, [
            Frame(_atoms(run, run.steps[0]), _labels(run.steps[0]), f"{place.name}-{k}") for k, run in enumerate(runs)
        ]
    run = read_vasprun(place.save)
    if run.projections is None or is_superposed(run.parameters):
        return None, _without_bands(place, run)
    if fixed := fixed_density(run.parameters):
        warnings.warn(f"{place.save}: {fixed}; its spectra alone are read", stacklevel=4)
    frames = _converged(place, run)
    if not frames or not run.steps[-1].converged:
        raise VaspError(f"{place.save}: the electrons of the last step, of the bands, did not converge; raise NELM")
    if fixed:
        return _projected(place, run, replace(frames[-1], labels={})), []
    return _projected(place, run, frames[-1]), frames[:-1]


def _without_bands(place: VaspPlace, run: Vasprun | Outcar) -> list[Frame]:
    """Frames of a run without projections, with warnings of what its labels depend on."""
    if fixed := fixed_density(run.parameters):
        raise VaspError(f"{place.save}: {fixed}; give the run that made the density self-consistent")
    charge = run.charge if isinstance(run, Outcar) else _charge(run)
    if charge:
        warnings.warn(f"{place.save}: the cell has a charge of {charge:g} e (NELECT), {CHARGED}", stacklevel=5)
    return _converged(place, run)


def _converged(place: VaspPlace, run: Vasprun | Outcar) -> list[Frame]:
    """Frames of the steps whose electrons converged, with a warning about the others and those that are no labels."""
    unread = no_labels(run.parameters)
    for text in (IN_FIELD * in_field(run.parameters), *unread.values(), *notes(run.parameters)):
        if text:
            warnings.warn(f"{place.save}: {text}", stacklevel=6)
    frames = [
        Frame(
            _atoms(run, step),
            _labels(replace(step, **dict.fromkeys(unread))),
            place.name if len(run.steps) == 1 else f"{place.name}-{k}",
        )
        for k, step in enumerate(run.steps)
        if step.converged
    ]
    out = {**run.left_out, "did not converge (NELM)": len(run.steps) - len(frames)}
    n_steps = len(frames) + sum(out.values())
    reasons = [f"{count} of {n_steps} steps {reason}" for reason, count in out.items() if count]
    if reasons:
        warnings.warn(f"{place.save}: {', '.join(reasons)}, and are left out", stacklevel=5)
    return frames


def _atoms(run, step):
    return Atoms(run.symbols, step.positions, cell=step.cell, pbc=True)


def _labels(step):
    labels = {"energy": step.energy}
    if step.forces is not None:
        labels["forces"] = step.forces
    if step.stress is not None and step.stress.any():  # exact zeros stand where none was calculated
        labels["virial"] = -step.stress * abs(np.linalg.det(step.cell))
    if step.born_charges is not None:
        labels["born_charges"] = step.born_charges
    return labels


def _projected(place, run: Vasprun, frame: Frame) -> ProjectedRun:
    own = run.parameters
    if run.mesh.lower().startswith("listgenerated"):
        raise VaspError(
            f"{place.save}: its k-points are along lines, and bands of a path are no density of states; give a run "
            "with a mesh of k-points"
        )
    charge = _charge(run)
    if charge:
        raise VaspError(
            f"{place.save}: the cell has a charge of {charge:g} e (NELECT), and spectra are filled with the electrons of "
            "neutral atoms; leave the run out"
        )
    kind, width = (float_or(own.get(name), start) for name, start in (("ISMEAR", 1), ("SIGMA", 0.2)))
    settings: dict[str, Any] = {"program": f"VASP {own.get('version', '')}".strip()}
    for name in "GGA", "METAGGA", "ENMAX":
        if own.get(name, "--").strip("- "):
            settings[name] = own[name]
    settings |= {"kpoints_dos": run.mesh, "smearing": SMEARING.get(int(kind), f"Methfessel-Paxton {kind:g}")}
    if kind >= -1:
        settings["smearing_width_eV"] = width
    if float_or(own.get("ISPIN"), 1) == 2:
        settings["spins"] = "both, added"
    levels, temperature = _symmetrized(run, frame.atoms), width / units.KB if kind == -1 else None
    fixed = float_or(own.get("NUPDOWN"), -1)
    if "spins" in settings and fixed >= 0:
        wrong = other_magnetization(levels, run.n_electrons, fixed, temperature)
        if wrong:
            raise VaspError(f"{place.save}: NUPDOWN = {fixed:g} {wrong}; leave NUPDOWN out and give MAGMOM")
    return ProjectedRun(
        source=str(place.save),
        name=frame.name,
        atoms=frame.atoms,
        labels=frame.labels,
        levels=levels,
        n_electrons=run.n_electrons,
        valence=run.valence,
        temperature=temperature,
        energy_reference=REFERENCE,
        more_bands="NBANDS of VASP",
        settings=settings,
        normalize=True,
    )


def _charge(run):
    """Charge of the cell, e; 0 for a neutral one, and where valence electrons are not known."""
    charge = sum(run.valence.get(symbol, 0) for symbol in run.symbols) - run.n_electrons
    return charge if abs(charge) > 1e-3 and set(run.symbols) <= run.valence.keys() else 0.0


def _symmetrized(run, atoms) -> Projections:
    """Shares averaged over equivalent atoms, where VASP reduced the k-points by symmetry (ISYM of 1 or more)."""
    if float_or(run.parameters.get("ISYM"), 2) < 1:
        return run.projections
    symprec = float_or(run.parameters.get("SYMPREC"), 1e-5)
    found = equivalent_atoms(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers, symprec=symprec)
    return run.projections if found is None else run.projections.averaged(found)
