"""Energy against volume, relaxation and elastic constants of a structure with any ASE calculator."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, LBFGS
from numpy.typing import NDArray

from ase_mlelec.physics import eos

FMAX = 1e-3  # eV/Å
STEPS = 1000
MANY = 100  # atoms; with more, the matrix that BFGS diagonalizes in every step takes longer than the forces


class Volumes(NamedTuple):
    """Energies of a structure at several volumes.

    Attributes
    ----------
    volumes : array [n], Å^3
    energies : array [n], eV
    structures : list of ase.Atoms
    """

    volumes: NDArray
    energies: NDArray
    structures: list


def relaxed(atoms: Atoms, *, cell: bool = False, fmax: float = FMAX, steps: int = STEPS) -> Atoms:
    """Copy of a structure with relaxed positions, and with ``cell`` also with a relaxed cell.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator.
    fmax : float, eV/Å
        Largest force at the end.

    Raises
    ------
    ValueError
        Where ``steps`` steps do not suffice.
    """
    new = atoms.copy()
    new.calc = atoms.calc
    degrees: Any = FrechetCellFilter(new) if cell else new
    method: Any = BFGS if len(new) <= MANY else LBFGS
    with method(degrees, logfile=None) as optimizer, warnings.catch_warnings():
        # of the strain in every step, by 1e-13: scipy's estimate of the error is below what BFGS needs by far
        warnings.filterwarnings("ignore", message="logm result may be inaccurate", category=RuntimeWarning)
        if not optimizer.run(fmax=fmax, steps=steps):
            raise ValueError(
                f"the relaxation of {atoms.symbols} has forces above {fmax:g} eV/Å after {steps} steps; give more steps "
                "or a larger fmax, or start nearer to the minimum"
            )
    return new


def relaxation_energy(atoms: Atoms, *, cell: bool = True, fmax: float = FMAX, steps: int = STEPS) -> float:
    """Energy per atom that a structure loses when it relaxes, eV: positive, or 0 for a structure at rest."""
    before = atoms.get_potential_energy()
    after = relaxed(atoms, cell=cell, fmax=fmax, steps=steps).get_potential_energy()
    return (before - after) / len(atoms)


def energy_volume(
    atoms: Atoms, *, spread: float = 0.06, points: int = 11, relax: bool = False, fmax: float = FMAX, steps: int = STEPS
) -> Volumes:
    """Energies of a structure at volumes around its own.

    Parameters
    ----------
    atoms : ase.Atoms
        Crystal with a calculator, periodic along three directions.
    spread : float
        Largest relative change of the volume.
    points : int
        Number of volumes.
    relax : bool
        Whether positions are relaxed at each volume, in a cell of fixed shape.
    fmax, steps
        As in ``relaxed``.

    Raises
    ------
    ValueError
        For a structure that is not periodic, a spread that is not between 0 and 1, and relaxations that do not end.
    """
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise ValueError(f"got {atoms.symbols}, which is not periodic along three directions; give a crystal")
    if not 0 < spread < 1:
        raise ValueError(f"got spread={spread:g}, need more than 0 and less than 1, such as 0.06")
    structures = []
    for change in np.linspace(-spread, spread, points):
        new = atoms.copy()
        new.set_cell(atoms.cell.array * (1 + change) ** (1 / 3), scale_atoms=True)
        new.calc = atoms.calc
        structures.append(relaxed(new, fmax=fmax, steps=steps) if relax else new)
    energies = [new.get_potential_energy() for new in structures]
    return Volumes(np.array([new.get_volume() for new in structures]), np.array(energies), structures)


def equation_of_state(atoms: Atoms, *, kind: str = "birch-murnaghan", **options: Any) -> eos.EquationOfState:
    """Equation of state of a structure with its calculator.

    Parameters
    ----------
    atoms : ase.Atoms
        Crystal with a calculator.
    kind : str
        As in ``ase_mlelec.physics.eos.fit``.
    **options
        As in ``energy_volume``.

    Raises
    ------
    ValueError
        As ``energy_volume`` and ``ase_mlelec.physics.eos.fit``.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from ase.units import GPa
    >>> copper = bulk("Cu", a=3.6)
    >>> copper.calc = EMT()
    >>> found = equation_of_state(copper, kind="vinet")
    >>> f"{found.v0:.2f} Å^3, {found.bulk_modulus / GPa:.0f} GPa"
    '11.57 Å^3, 134 GPa'
    """
    found = energy_volume(atoms, **options)
    return eos.fit(found.volumes, found.energies, kind)


def elastic_constants(
    atoms: Atoms, *, strain: float = 0.003, relax: bool = True, fmax: float = FMAX, steps: int = STEPS
) -> NDArray:
    r"""Elastic constants of a structure at rest, from the stress under small strains of both signs.

    .. math::

        C_{ij} = \frac{\partial \sigma_i}{\partial \gamma_j}, \qquad
        \gamma = (\varepsilon_{xx}, \varepsilon_{yy}, \varepsilon_{zz},
                  2\varepsilon_{yz}, 2\varepsilon_{xz}, 2\varepsilon_{xy})

    Parameters
    ----------
    atoms : ase.Atoms
        Crystal with a calculator that has a stress, relaxed together with its cell; else the constants are those of the
        stress under pressure.
    strain : float
        Largest strain.
    relax : bool
        Whether positions follow the strain; False: clamped ions.
    fmax, steps
        As in ``relaxed``.

    Returns
    -------
    array [6, 6], eV/Å^3
        In ASE's Voigt order, symmetrized. Its asymmetry before is of second order in ``strain``.

    Raises
    ------
    ValueError
        For a structure that is not periodic, and relaxations that do not end.
    """
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise ValueError(f"got {atoms.symbols}, which is not periodic along three directions; give a crystal")
    columns = [
        (_stress(atoms, k, strain, relax, fmax, steps) - _stress(atoms, k, -strain, relax, fmax, steps)) / (2 * strain)
        for k in range(6)
    ]
    found = np.array(columns).T
    return (found + found.T) / 2


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def strained(atoms: Atoms, k: int, strain: float) -> Atoms:
    """Copy of a structure with one component of the strain, in Voigt's notation and ASE's order."""
    tensor = np.eye(3)
    i, j = VOIGT[k]
    tensor[i, j] += strain / 2
    tensor[j, i] += strain / 2
    new = atoms.copy()
    new.set_cell(atoms.cell.array @ tensor, scale_atoms=True)
    new.calc = atoms.calc
    return new


def _stress(atoms, k, strain, relax, fmax, steps):
    """Stress [6] of a strained structure."""
    new = strained(atoms, k, strain)
    if relax:
        new = relaxed(new, fmax=fmax, steps=steps)
    return new.get_stress()


def cubic_constants(constants: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """C11, C12 and C44 of a cubic crystal along its axes: means of those of [6, 6] that are equal by symmetry."""
    c = np.asarray(constants, dtype=float)
    return (
        float(c[[0, 1, 2], [0, 1, 2]].mean()),
        float(c[[0, 0, 1], [1, 2, 2]].mean()),
        float(c[[3, 4, 5], [3, 4, 5]].mean()),
    )
