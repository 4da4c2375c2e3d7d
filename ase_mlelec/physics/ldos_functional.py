"""The total free energy as a functional of the local density of states of a crystal with given pseudopotentials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_mlelec.physics import core_charge, fermi, total_energy


@dataclass(frozen=True)
class Ions:
    """Ions of a cell, with the properties of their pseudopotentials that the functional needs.

    Attributes
    ----------
    symbols : sequence of N str
    positions : Tensor [N, 3], Å
    cell : Tensor [3, 3], Å
    valence_electrons : dict of float by symbol
    xc : str
        "lda_pz", "lda_pw", "pbe" or "pbesol".
    core_charges : dict by symbol
        Partial core charges, see ``core_charge.density``.
    """

    symbols: Sequence[str]
    positions: Tensor
    cell: Tensor
    valence_electrons: Mapping[str, float]
    xc: str
    core_charges: Mapping[str, Any]

    @classmethod
    def described(cls, attributes: Mapping, symbols: Sequence[str], positions: Tensor, cell: Tensor) -> "Ions":
        """Ions with the pseudopotentials that the ``attributes`` of a data set, or a model's header, tell of."""
        return cls(
            symbols,
            positions,
            cell,
            attributes["valence_electrons"],
            attributes["xc"],
            attributes.get("core_charges", {}),
        )

    @property
    def charges(self) -> Tensor:
        """Tensor [N], e, of the valence electrons."""
        counts = [float(self.valence_electrons[symbol]) for symbol in self.symbols]
        return torch.tensor(counts, dtype=torch.float64, device=self.cell.device)

    def core_density(self, shape: Sequence[int]) -> Tensor | None:
        """Tensor [G1, G2, G3], electrons/Å^3, or None where no pseudopotential has a core correction."""
        return core_charge.density(self.core_charges, self.symbols, self.positions, self.cell, shape)


class FreeEnergy(NamedTuple):
    """Terms of A (dict of Tensor [], eV) and the density [G1, G2, G3], electrons/Å^3, that they belong to."""

    terms: dict
    density: Tensor


def free_energy(
    ions: Ions,
    energies: Tensor,
    dos: Tensor,
    density: Tensor | Callable[[Tensor], Tensor],
    temperature: Tensor,
    *,
    mu: Tensor | None = None,
) -> FreeEnergy:
    """Total free energy from the two integrals of the LDOS that it depends on.

    Parameters
    ----------
    ions : Ions
    energies : Tensor [S], eV
        On the absolute scale of the eigenvalues, or relative to a level: band energy and A are then relative to it.
    dos : Tensor [S], states/eV per cell
        The LDOS, integrated over the cell.
    density : Tensor [G1, G2, G3], electrons/Å^3, or function
        The function makes it of the weights [S] of occupied states: density = LDOS @ weights.
    temperature : Tensor [], K
    mu : Tensor [], eV
        By default the Fermi level at which the DOS holds the valence electrons.

    Returns
    -------
    FreeEnergy
        ``terms`` are the terms of ``total_energy.from_dos_and_density``.

    Raises
    ------
    ValueError
        As ``total_energy.from_ldos`` does.

    References
    ----------
    Ellis et al. 2021, Eqs. (9)-(13).
    """
    charges = ions.charges
    if mu is None:
        mu = fermi.fermi_level(energies, dos, charges.sum(), temperature)
    if callable(density):
        density = density(fermi.integration_weights(energies, mu, temperature)[0])
    terms = total_energy.from_dos_and_density(
        dos,
        energies,
        density,
        ions.cell,
        ions.positions,
        charges,
        temperature,
        xc=ions.xc,
        core_density=ions.core_density(density.shape),
        mu=mu,
    )
    return FreeEnergy(terms, density)
