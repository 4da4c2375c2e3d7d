"""Terms of the total free energy from the LDOS of one model, and their gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ase_mlelec.heads.spectrum import LDOSHead
from ase_mlelec.physics.ldos_functional import Ions, free_energy
from ase_mlelec.system import System

CHUNK = 2**16  # grid points that are converted to float64 at a time


class LDOSIntegrals:
    """Terms of the total free energy A as functions of the coordinates of the LDOS, the positions and the cell.

    Parameters
    ----------
    head : LDOSHead
    coordinates : Tensor [G, K]
        Coordinates of the LDOS at the points of the grid, see LDOSHead.coordinates.
    mean : Tensor [K], float64
        Mean of the coordinates over the grid.
    shape : (G1, G2, G3)
    system : System
        One structure in float64, in which close pairs are already moved apart.
    symbols : sequence of N str
    metadata : dict
        Metadata of the model: valence electrons, nonlinear core corrections, exchange and correlation.
    temperature : float, K
    fermi_level : float, eV
        With None it is solved for the number of electrons.

    Attributes
    ----------
    terms : dict of Tensor [], eV
    dos : Tensor [S], states/eV
    density : Tensor [G1, G2, G3], e/Å^3

    Raises
    ------
    ValueError
        For an LDOS that is not physical.
    """

    def __init__(
        self,
        head: LDOSHead,
        *,
        coordinates: Tensor,
        mean: Tensor,
        shape: tuple[int, int, int],
        system: System,
        symbols: Sequence[str],
        metadata: Mapping,
        temperature: float,
        fermi_level: float | None,
    ):
        device = system.positions.device
        like: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.n_points, self.dtype = len(coordinates), coordinates.dtype
        self.matrix, offset = head.basis()
        self.mean = (mean @ self.matrix + offset).requires_grad_(True)  # [S], 1/(eV Å^3)
        self.shift = torch.zeros(shape, **like, requires_grad=True)  # its gradient: derivative by the density
        self.positions = system.positions.to(**like).clone().requires_grad_(True)
        self.cell = system.cell[0].to(**like).clone().requires_grad_(True)
        ions = Ions.described(metadata, symbols, self.positions, self.cell)
        volume = torch.linalg.det(self.cell).abs()
        energies, zero = head.energies.to(device), head.zero.level(symbols, volume)

        def density(weights):
            self.weights, projector = weights, self.matrix @ weights
            valence = torch.cat([part.double() @ projector for part in coordinates.split(CHUNK)])
            return (valence + offset @ weights).reshape(shape) + self.shift

        self.dos = self.mean * volume
        mu = None if fermi_level is None else torch.tensor(float(fermi_level), **like) - zero
        terms, self.density = free_energy(ions, energies, self.dos, density, torch.tensor(temperature, **like), mu=mu)
        to_absolute = {"fermi_level": zero, **dict.fromkeys(("band", "total"), zero * (self.weights @ self.dos))}
        self.terms = {name: value + to_absolute.get(name, 0.0) for name, value in terms.items()}

    def gradients(self) -> dict[str, Tensor]:
        """Return dA/dpositions [N, 3] and dA/dcell [3, 3] at fixed LDOS, and the factors of dA/dcoordinates."""
        mean, shift, positions, cell = torch.autograd.grad(
            self.terms["total"], (self.mean, self.shift, self.positions, self.cell)
        )
        kind = self.dtype
        return {
            "positions": positions,
            "cell": cell,
            "density": shift.reshape(-1).to(kind),
            "dos": (self.matrix @ mean / self.n_points).to(kind),
            "weights": (self.matrix @ self.weights.detach()).to(kind),
        }
