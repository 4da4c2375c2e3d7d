"""Errors of a predicted LDOS."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_mlelec.data.grid_points import GridData
from ase_mlelec.data.snapshots import Snapshot, Snapshots
from ase_mlelec.model import Model
from ase_mlelec.physics import ldos_functional
from ase_mlelec.physics.ldos_functional import Ions


def ldos_errors(model: Model | list[Model], data: GridData) -> dict:
    """Errors of every snapshot of ``data`` (GridData); integrals are compared with the same integrals of the true LDOS.

    Parameters
    ----------
    model : Model, or a list of them
        A committee that predicts the mean LDOS of its members.

    Returns
    -------
    dict of array
        One entry per snapshot: ldos (root mean square over points and energies, 1/(eV Å^3)), dos (root mean square,
        states/eV/atom), density_percent (mean of ``|n - n_true|/n_true``, %), band_energy and free_energy (predicted -
        true, eV/atom).

    Raises
    ------
    ValueError
        Where ``data`` has another zero of energy than the model.

    References
    ----------
    Ellis et al. 2021, Tables II and IV.
    """
    found = [
        {
            "ldos": each.ldos_error,
            "dos": np.sqrt(((each.dos - each.true_dos) ** 2).mean()) / each.n_atoms,
            "density_percent": 100 * np.abs(each.density / each.true_density - 1).mean(),
            "band_energy": (each.terms["band"] - each.true_terms["band"]) / each.n_atoms,
            "free_energy": (each.terms["total"] - each.true_terms["total"]) / each.n_atoms,
        }
        for each in _compared(model, data)
    ]
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


@dataclass(frozen=True)
class _Compared:
    """A snapshot: error of its LDOS, and integrals of the predicted and of the true one."""

    n_atoms: int
    ldos_error: float
    dos: NDArray
    true_dos: NDArray
    density: NDArray
    true_density: NDArray
    terms: dict
    true_terms: dict


@torch.no_grad()
def _compared(model, data):
    """Iterate over the _Compared of all snapshots."""
    models = model if isinstance(model, list) else [model]
    if any(one.heads["ldos"].zero != data.zero for one in models):
        raise ValueError("the data and the models have different zeros of energy; give GridData zero=head.zero")
    for k in range(len(data)):
        item, snapshot = data[k], data.snapshots[k]
        members = [one.heads["ldos"].spectrum(item.features.to(one.dtype)).double() for one in models]
        ldos = (sum(members) / len(members)).numpy()
        error = float(np.sqrt(((ldos[item.points] - item.ldos.numpy()) ** 2).mean()))
        dos = ldos.mean(axis=0) * item.volume
        terms, density = free_energy(data.snapshots, snapshot, dos, ldos, item.level)
        true, true_density = free_energy(data.snapshots, snapshot, snapshot.dos)
        yield _Compared(item.n_atoms, error, dos, item.dos.numpy(), density, true_density, terms, true)


def compared_ldos(model: Model | list[Model], data: GridData) -> dict[str, tuple[NDArray, NDArray, str]]:
    """Integrals of the true and of the predicted LDOS behind ``ldos_errors``, for figures.

    Returns
    -------
    dict of (true [n], predicted [n], unit)
        The density of states at all energies, the electron density at all points of the grids, the free energy of each
        snapshot.

    Raises
    ------
    ValueError
        As ``ldos_errors``.
    """
    columns: dict[tuple[str, str], list] = {}
    for each in _compared(model, data):
        for place, true, mine in (
            (("density of states", "states/eV/atom"), each.true_dos / each.n_atoms, each.dos / each.n_atoms),
            (("electron density", "e/Å$^3$"), each.true_density, each.density),
            (("free energy", "eV/atom"), each.true_terms["total"] / each.n_atoms, each.terms["total"] / each.n_atoms),
        ):
            columns.setdefault(place, []).append((np.ravel(true), np.ravel(mine)))
    joined = {place: [np.concatenate(column) for column in zip(*pairs)] for place, pairs in columns.items()}
    return {name: (true, mine, unit) for (name, unit), (true, mine) in joined.items()}


def mean_ldos_errors(model: Model | list[Model], data: GridData) -> dict:
    """Mean errors over the snapshots of ``data``, dict by the keys of QUANTITIES in ase_mlelec.train.evaluate."""
    found = ldos_errors(model, data)
    return {
        "ldos_rmse": float(np.sqrt((found["ldos"] ** 2).mean())),
        "density_mape_percent": float(found["density_percent"].mean()),
        "dos_rmse_states_per_eV_per_atom": float(np.sqrt((found["dos"] ** 2).mean())),
        "band_energy_mae_meV_per_atom": 1000 * float(np.abs(found["band_energy"]).mean()),
        "free_energy_mae_meV_per_atom": 1000 * float(np.abs(found["free_energy"]).mean()),
    }


def free_energy(
    snapshots: Snapshots, snapshot: Snapshot, dos: NDArray | Tensor, ldos: NDArray | None = None, level: float = 0.0
) -> tuple:
    """(terms of the total free energy, density) from a DOS, and an LDOS or else the density of the snapshot.

    Parameters
    ----------
    level : float, eV
        Zero of the energies of DOS and LDOS.
    """
    atoms = snapshot.atoms
    positions, cell, dos, energies = map(
        torch.as_tensor, (atoms.positions, atoms.cell.array, dos, snapshots.energies + level)
    )
    ions = Ions.described(snapshots.attributes, atoms.get_chemical_symbols(), positions, cell)
    density: Any = (
        snapshot.density if ldos is None else lambda weights: (ldos @ weights.numpy()).reshape(snapshot.shape)
    )
    temperature = torch.tensor(snapshot.temperature, dtype=torch.float64)
    terms, density = ldos_functional.free_energy(ions, energies, dos, density, temperature)
    return {name: value.item() for name, value in terms.items()}, np.asarray(density)


def beside_labels(snapshots: Snapshots) -> str:
    """Sentence on the free energies of the local density of states itself beside the labels; "" where there are none.

    Models learn the former. Coarse energies or grids, and the width of the Gaussians, keep them from those of DFT. Energies
    that end below the Fermi level give none.
    """
    some = [snapshots[k] for k in sorted({*np.linspace(0, len(snapshots) - 1, 3).round().astype(int).tolist()})]
    some = [each for each in some if each.energy is not None and each.density is not None]
    if not some:
        return ""
    try:
        totals = [free_energy(snapshots, each, each.dos)[0]["total"] for each in some]
    except ValueError as error:
        return f"free energies by the LDOS are not known: {error}"
    away = [1000 * (total - each.energy) / len(each.atoms) for total, each in zip(totals, some)]
    return (
        f"free energies by the LDOS are {np.mean(away):+.1f} meV/atom from the labels, {np.ptp(away) / 2:.1f} around it "
        f"({len(away)} snapshots)"
    )
