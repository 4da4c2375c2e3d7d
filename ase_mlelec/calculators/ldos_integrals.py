"""Terms of the total free energy from the LDOS of one model, and their gradients; checks of models and close atoms."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, InputError
from torch import Tensor

from ase_mlelec.calculators.extrapolation import NEIGHBORS
from ase_mlelec.calculators.ldos_points import KeptPoints, StreamedPoints
from ase_mlelec.calculators.potential import potential_results
from ase_mlelec.edges import Edges
from ase_mlelec.heads.spectrum import LDOSHead
from ase_mlelec.model import Model
from ase_mlelec.physics.ldos_functional import Ions, free_energy
from ase_mlelec.safety import RepulsiveCore
from ase_mlelec.system import System


class LDOSIntegrals:
    """Terms of the total free energy A as functions of the coordinates of the LDOS, the positions and the cell.

    Parameters
    ----------
    head : LDOSHead
    points : KeptPoints or StreamedPoints
        The LDOS at the points of the grid.
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
        points: KeptPoints | StreamedPoints,
        mean: Tensor,
        shape: tuple[int, int, int],
        system: System,
        symbols: Sequence[str],
        metadata: Mapping,
        temperature: float,
        fermi_level: float | None,
    ) -> None:
        device = system.positions.device
        like: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.n_points, self.dtype = points.n_points, points.dtype
        self.matrix, offset = head.basis()
        self.mean = (mean @ self.matrix + offset).requires_grad_(True)  # [S], 1/(eV Å^3)
        if torch.is_grad_enabled():
            self.shift = torch.zeros(shape, **like, requires_grad=True)  # its gradient: derivative by the density
        self.positions = system.positions.to(**like).clone().requires_grad_(True)
        self.cell = system.cell[0].to(**like).clone().requires_grad_(True)
        ions = Ions.described(metadata, symbols, self.positions, self.cell)
        volume = torch.linalg.det(self.cell).abs()
        energies, zero = head.energies.to(device), head.zero.level(symbols, volume)

        def density(weights):
            self.weights = weights
            valence = points.weighted(weights).reshape(shape)
            return valence + self.shift if torch.is_grad_enabled() else valence

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


def slopes_through(
    heads: Sequence[LDOSHead], features: Tensor, factors: Sequence[Mapping], indices: Tensor, leaves: Sequence[Tensor]
) -> list[tuple]:
    """Derivatives of A by ``leaves`` through the LDOS at some grid points, list of tuple of Tensor by head.

    Parameters
    ----------
    features : Tensor [P, F]
        Fingerprints of the points ``indices`` [P], which depend on the leaves.
    factors : sequence of dict by head
        From LDOSIntegrals.gradients: dA/dcoordinates(r, k) has rank two, g_dos(k) + g_density(r) w(k).
    """
    found = []
    for k, (head, g) in enumerate(zip(heads, factors), 1):
        part = head.coordinates(features)
        change = (part @ g["weights"]) @ g["density"][indices] + (part @ g["dos"]).sum()
        found.append(torch.autograd.grad(change, leaves, retain_graph=k < len(heads)))
    return found


def check_ldos_models(models: Sequence[Model]) -> None:
    """Raise CalculatorSetupError for metadata that lack an input of the total energy, and for unequal committees."""
    first = models[0]
    for key in ("valence_electrons", "grid_spacing_A", "xc"):
        if key not in first.metadata:
            raise CalculatorSetupError(
                f"the model's header has no '{key}', without which there is no total "
                "energy; train with it in the attributes of the data"
            )
    missing = [symbol for symbol in first.species if symbol not in first.metadata["valence_electrons"]]
    if missing:
        raise CalculatorSetupError(
            f"the model's header has no valence charge of {missing[0]}; add it to "
            "valence_electrons in the attributes of the data"
        )
    for member in models[1:]:
        different = [
            key
            for key in ("valence_electrons", "grid_spacing_A", "xc", "core_charges")
            if member.metadata.get(key) != first.metadata.get(key)
        ]
        if member.descriptor.arguments() != first.descriptor.arguments():
            different = ["fingerprints"]
        if not torch.equal(member.heads["ldos"].energies, first.heads["ldos"].energies):
            different = ["energy grids"]
        if member.heads["ldos"].zero != first.heads["ldos"].zero:
            different = ["zeros of energy"]
        if different:
            raise CalculatorSetupError(
                f"the models of a committee have different {different[0]}; train them on one kind of data"
            )


def check_periodic(atoms: Atoms) -> None:
    """Raise InputError for a structure that is not periodic in three directions."""
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InputError(
            f"got a cell of rank {atoms.cell.rank} and pbc {atoms.pbc.tolist()}, need three vectors "
            "and three periodic directions; set them with atoms.set_cell(...) and atoms.pbc = True"
        )


def far_from_training(measured: Tensor | None) -> str:
    """Word a hint, where the measures of atoms (see TrainingRange) say that they are unlike the training data."""
    if measured is None or float(measured.max()) < NEIGHBORS:
        return ""
    return (
        f"; the structure is unlike the training data ({float(measured.max()):.3g}, where 1 is their edge): "
        "the LDOS of the model means nothing here"
    )


def close_pairs(core: RepulsiveCore | None, edges: Edges) -> Edges | None:
    """Return the pairs that are closer than any pair in the training data, or None."""
    near = None if core is None or edges.shortest > core.longest else edges.closer_than(core.longest)
    return near if near is not None and len(near.center) else None


def held_apart(system: System, pairs: Edges, core: RepulsiveCore) -> Tensor:
    """Move close pairs apart, to distances at which the net knows the LDOS.

    A pair at r, below the outer radius d of the core, is moved to d (1 - u + 4 u^3 - 5 u^4 + 1.8 u^5) with u = 1 - r/d.
    This distance has two smooth derivatives at d and is never below 0.74 d.

    Returns
    -------
    Tensor [N, 3], Å
        Positions.
    """
    kinds = [core.species_of_number[system.numbers[atoms]] for atoms in (pairs.center, pairs.neighbor)]
    outer = core.outer[kinds[0], kinds[1]].double()
    vec = (
        system.positions[pairs.neighbor] + pairs.shift.to(system.cell) @ system.cell[0] - system.positions[pairs.center]
    )
    r = vec.norm(dim=1)
    u = (1 - r / outer).clamp(min=0)
    push = outer * u**3 * (4 - 5 * u + 1.8 * u**2) / (2 * r)  # half of it, because the edges list each pair twice
    return system.positions.index_add(0, pairs.neighbor, push[:, None] * vec)


def repulsion(models: Sequence[Model], system: System, edges: Edges, *, volume: float) -> list[dict]:
    """Compute energy, forces and stress of the repulsive cores.

    Parameters
    ----------
    models : sequence of Model
    system, edges
        One structure in float64.
    volume : float, Å^3

    Returns
    -------
    list of dict by model
        ASE's results; an empty dict where no atoms are within a core.
    """
    cores = [model.core for model in models if model.core is not None]
    if len(cores) < len(models) or edges.shortest > max(core.longest for core in cores):
        return []
    found, vec = [], edges.vec.detach().requires_grad_(True)
    for core in cores:
        none = vec.new_zeros(len(system.numbers))
        with torch.enable_grad():
            energies = core(none, vec.new_zeros(len(core.species)), system, edges.with_vec(vec))
        gradient = torch.zeros_like(vec)
        if energies.requires_grad:  # without a gradient, no close pair is within the core of its species
            (gradient,) = torch.autograd.grad(energies.sum(), vec)
            none = energies.detach()
        found.append(potential_results(none, gradient, edges, volume=volume))
    return found
